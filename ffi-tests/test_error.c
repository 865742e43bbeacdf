/* test_error.c: kv_error.h: the last error per thread, the variadic functions, formatting, printing and the log. */
#include "kvtest.h"
#include <limits.h>
#include <stddef.h>

static const kv_error_t *last(void) {
    const kv_error_t *e = kv_get_last_error();
    CHECK(e != NULL);
    return e;
}

TEST(without_an_error_the_code_is_zero) {
    CHECK_EQ_INT(last()->code, 0);
    CHECK_EQ_STR(last()->message, "");
}

TEST(set_error_fills_every_field) {
    time_t before = time(NULL);
    kv_set_error(KV_ERR_FILE, "some/file.c", 123, "some_function", "cannot open %s", "it");
    const kv_error_t *e = last();
    CHECK_EQ_INT(e->code, KV_ERR_FILE);
    CHECK_EQ_STR(e->message, "cannot open it");
    CHECK_EQ_STR(e->file, "some/file.c");
    CHECK_EQ_STR(e->func, "some_function");
    CHECK_EQ_INT(e->line, 123);
    CHECK(e->timestamp >= before && e->timestamp <= time(NULL));
}

TEST(the_macro_fills_in_where) {
    KV_ERROR(KV_ERR_NET, "no arguments");
    int line = __LINE__ - 1;
    CHECK_EQ_INT(last()->code, KV_ERR_NET);
    CHECK_EQ_STR(last()->message, "no arguments");
    CHECK(strstr(last()->file, "test_error.c") != NULL);
    CHECK_EQ_STR(last()->func, __func__);
    CHECK_EQ_INT(last()->line, line);
    KV_ERROR(KV_ERR_NET, "%d arguments", 1);
    CHECK_EQ_STR(last()->message, "1 arguments");
}

TEST(clear_forgets) {
    KV_ERROR(KV_ERR_NET, "x");
    kv_clear_error();
    CHECK_EQ_INT(last()->code, 0);
    CHECK_EQ_STR(last()->message, "");
}

/* What snprintf makes of the same arguments is what must come out. */
#define SAME(...)                                                        \
    do {                                                                 \
        char wanted[256];                                                \
        snprintf(wanted, sizeof wanted, __VA_ARGS__);                    \
        kv_set_error(KV_ERR_SYS, __FILE__, __LINE__, __func__, __VA_ARGS__); \
        CHECK_EQ_STR(last()->message, wanted);                           \
    } while (0)

TEST(arguments_of_every_kind) {
    const char *null_string = NULL;
    SAME("%d %i %u %x %X %o", -1, 2, 3u, 0xabcu, 0xDEFu, 8u);
    SAME("%c%c%c", 'a', 'b', 'c');
    SAME("%hhd %hd %ld %lld %zd %jd %td", -1, -2, -3L, -4LL, (ssize_t)-5, (intmax_t)-6, (ptrdiff_t)-7);
    SAME("%lu %llu %zu %jx", ULONG_MAX, ULLONG_MAX, SIZE_MAX, UINTMAX_MAX);
    SAME("%lld %lld", (long long)INT64_MAX, (long long)INT64_MIN);
    SAME("%f %.2f %e %g %10.3f|%-10.1f|", 1.5, 2.345, 12345.678, 0.0001, 3.14159, 2.71828);
    SAME("%s %10s %-10s| %.3s", "plain", "right", "left", "cut here");
    SAME("%s", null_string ? null_string : "(null)");
    SAME("%p", (void *)0x1234);
    SAME("%5d|%-5d|%05d|%+d|% d", 42, 42, 42, 42, 42);
    SAME("%*d %.*s %*.*f", 8, 42, 3, "abcdef", 8, 2, 1.23456);
    SAME("100%% and %d%%", 50);
    SAME("%Lf", 1.25L);
}

TEST(many_integer_arguments) {
    SAME("%d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d", /* the most that fit into registers, and many more */
         1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20);
    SAME("%ld %ld %ld %ld %ld %ld %ld %ld %ld", 1L << 40, 2L << 40, 3L << 40, 4L << 40, 5L << 40, 6L << 40, 7L << 40, 8L << 40, 9L << 40);
}

TEST(many_floating_arguments) { /* more than the eight registers */
    SAME("%.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f", 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5);
}

TEST(mixed_arguments) {
    SAME("%d %.1f %s %d %.1f %s %d %.1f %s %d %.1f %s %d %.1f %s", 1, 1.5, "a", 2, 2.5, "b", 3, 3.5, "c", 4, 4.5, "d", 5, 5.5, "e");
    SAME("%s %ld %.3f %c %zu %s %d %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %lld", /* both kinds spill over */
         "mix", -5L, 1.234, 'x', (size_t)7, "end", 8, 1., 2., 3., 4.,
         5., 6., 7., 8., 9., 1LL << 62);
}

TEST(long_messages_are_cut_and_terminated) {
    static char lengthy[5000];
    memset(lengthy, 'm', sizeof lengthy - 1);
    for (size_t n = 250; n < 260; n++) {
        kv_set_error(KV_ERR_SYS, "f", 1, "g", "%.*s", (int)n, lengthy);
        CHECK_EQ_INT(strlen(last()->message), n < 255 ? n : 255);
        CHECK_EQ_INT(last()->code, KV_ERR_SYS);
    }
    kv_set_error(KV_ERR_SYS, lengthy, 1, lengthy, "%s%s%s", lengthy, lengthy, lengthy);
    CHECK_EQ_INT(strlen(last()->message), 255);
    CHECK_EQ_INT(strlen(last()->func), 63);
    CHECK(strlen(last()->file) <= 127 && strlen(last()->file) > 100);
    CHECK_EQ_INT(last()->line, 1);
}

TEST(null_arguments_are_survived) {
    const char *volatile null = NULL; /* hidden from the compiler's own checks */
    kv_set_error(KV_ERR_SYS, null, 7, null, "text");
    CHECK_EQ_INT(last()->code, KV_ERR_SYS);
    CHECK_EQ_STR(last()->message, "text");
    void (*set)(int, const char *, int, const char *, const char *, ...) = kv_set_error;
    set(KV_ERR_NET, "f", 1, "g", null);
    CHECK_EQ_INT(last()->code, KV_ERR_NET);
    void (*log)(int, const char *, int, const char *, const char *, ...) = kv_log;
    log(KV_LOG_FATAL, null, 1, null, null);
    CHECK_EQ_INT(kv_error_init(KV_LOG_DEBUG, "null.log", 0), KV_SUCCESS);
    log(KV_LOG_FATAL, null, 1, null, "with nulls");
    log(KV_LOG_FATAL, null, 1, null, null);
    size_t len;
    char *text = read_file("null.log", &len);
    CHECK(strstr(text, "with nulls") != NULL);
    free(text);
}

/* ---- per thread ---- */
static gate_t step = GATE_INIT;
static void *other_thread(void *unused) {
    CHECK_EQ_INT(last()->code, 0); /* the main thread's is not ours */
    KV_ERROR(KV_ERR_BUSY, "the other's");
    gate_open(&step);
    gate_wait(&step, 2);
    CHECK_EQ_INT(last()->code, KV_ERR_BUSY);
    CHECK_EQ_STR(last()->message, "the other's");
    return unused;
}

TEST(each_thread_has_its_own_last_error) {
    KV_ERROR(KV_ERR_FILE, "the main thread's");
    pthread_t t = thread_start(other_thread, NULL);
    gate_wait(&step, 1);
    CHECK_EQ_INT(last()->code, KV_ERR_FILE);
    CHECK_EQ_STR(last()->message, "the main thread's");
    CHECK_EQ_INT(g_error_ctx.last_error.code, KV_ERR_BUSY); /* the latest of any thread */
    CHECK_EQ_STR(g_error_ctx.last_error.message, "the other's");
    kv_clear_error();
    CHECK_EQ_INT(last()->code, 0);
    gate_open(&step);
    thread_join(t);
}

static void *hammer(void *arg) {
    long id = (long)arg;
    char wanted[64];
    for (int i = 0; i < 2000; i++) {
        KV_ERROR((int)(1 + id), "thread %ld, error %d", id, i);
        snprintf(wanted, sizeof wanted, "thread %ld, error %d", id, i);
        CHECK_EQ_INT(last()->code, 1 + id);
        CHECK_EQ_STR(last()->message, wanted);
    }
    return NULL;
}

TEST(many_threads_set_errors_at_once) {
    pthread_t t[4];
    for (long i = 0; i < 4; i++) t[i] = thread_start(hammer, (void *)i);
    for (int i = 0; i < 4; i++) thread_join(t[i]);
    int code = g_error_ctx.last_error.code;
    CHECK(code >= 1 && code <= 4);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "thread %d, error 1999", code - 1);
    CHECK_EQ_STR(g_error_ctx.last_error.message, wanted); /* never two mixed */
}

TEST(failing_calls_of_the_library_set_it) {
    kv_clear_error();
    CHECK_ERR(kv_async_batch_manager_start(NULL), KV_ERR_NULL_POINTER);
    CHECK(last()->func[0] != 0);
    CHECK(last()->timestamp > 0);
    CHECK_EQ_INT(g_error_ctx.last_error.code, KV_ERR_NULL_POINTER);
    CHECK_EQ_STR(g_error_ctx.last_error.message, last()->message);
}

/* ---- format and print ---- */
static kv_error_t sample(void) {
    kv_error_t e;
    memset(&e, 0, sizeof e);
    e.code = KV_ERR_FILE;
    strcpy(e.message, "no such thing");
    strcpy(e.func, "find");
    strcpy(e.file, "where.c");
    e.line = 42;
    e.timestamp = time(NULL);
    return e;
}

static void looks_right(const char *text) {
    static const char start[] = "Error 4 (KV_ERR_FILE) at where.c:42 in find: no such thing [";
    CHECK(strncmp(text, start, strlen(start)) == 0);
    const char *stamp = text + strlen(start);
    const char *end = strchr(stamp, ']');
    CHECK(end != NULL && end > stamp);
    char year[8];
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(year, sizeof year, "%Y", &tm);
    CHECK(strstr(stamp, year) != NULL);
}

TEST(format_error) {
    kv_error_t e = sample();
    char text[1024];
    memset(text, 'x', sizeof text);
    kv_format_error(&e, text, sizeof text);
    looks_right(text);
    CHECK_EQ_STR(strchr(text, ']'), "]");
}

TEST(format_error_of_an_unknown_code) {
    kv_error_t e = sample();
    e.code = 999;
    char text[1024];
    kv_format_error(&e, text, sizeof text);
    CHECK(strncmp(text, "Error 999 (UNKNOWN_ERROR) at ", 29) == 0);
}

TEST(format_error_fits_any_buffer) {
    kv_error_t e = sample();
    char full[1024], text[1024];
    kv_format_error(&e, full, sizeof full);
    size_t whole = strlen(full);
    for (size_t n = 0; n <= whole + 2; n++) {
        memset(text, 'x', sizeof text);
        kv_format_error(&e, text, n);
        if (n > 0) {
            size_t len = n - 1 < whole ? n - 1 : whole;
            CHECK_EQ_INT(strlen(text), len);
            CHECK(memcmp(text, full, len) == 0);
        }
        for (size_t i = n; i < n + 100; i++) CHECK_EQ_INT(text[i], 'x');
    }
}

TEST(format_error_with_nulls_and_full_fields) {
    kv_error_t e = sample();
    char text[1024] = "untouched";
    kv_format_error(&e, NULL, 100);
    kv_format_error(NULL, text, sizeof text);
    kv_format_error(NULL, NULL, 0);
    memset(e.message, 'm', sizeof e.message); /* no NUL anywhere: a caller's own struct */
    memset(e.func, 'f', sizeof e.func);
    memset(e.file, 'p', sizeof e.file);
    kv_format_error(&e, text, sizeof text);
    CHECK(strncmp(text, "Error 4 (KV_ERR_FILE) at ", 25) == 0);
    CHECK(strlen(text) < 256 + 64 + 128 + 120);
}

static char *captured(int fd, void (*body)(void)) {
    fflush(NULL);
    int keep = dup(fd), to = open("captured", O_CREAT | O_TRUNC | O_WRONLY, 0600);
    CHECK(keep >= 0 && to >= 0);
    CHECK_EQ_INT(dup2(to, fd), fd);
    body();
    fflush(NULL);
    CHECK_EQ_INT(dup2(keep, fd), fd);
    close(to);
    close(keep);
    size_t len;
    return read_file("captured", &len);
}

static void print_sample(void) {
    kv_error_t e = sample();
    kv_print_error(&e);
    kv_print_error(NULL);
}

TEST(print_error_writes_to_stderr) {
    char *text = captured(2, print_sample);
    looks_right(text);
    CHECK(strchr(text, '\n') != NULL);
    free(text);
    text = captured(1, print_sample);
    CHECK_EQ_STR(text, "");
    free(text);
}

/* ---- the log ---- */
static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at++) n++;
    return n;
}

static void log_all_levels(void) {
    KV_LOG_DEBUG_MSG("a debug line");
    KV_LOG_INFO_MSG("an info line with %d", 1);
    KV_LOG_WARN_MSG("a warn line with %s", "text");
    KV_LOG_ERROR_MSG("an error line with %.1f", 1.5);
    KV_LOG_FATAL_MSG("a fatal line");
}

TEST(log_lines_have_the_documented_form) {
    CHECK_EQ_INT(kv_error_init(KV_LOG_DEBUG, "the.log", 0), KV_SUCCESS);
    log_all_levels();
    size_t len;
    char *text = read_file("the.log", &len);
    static const char *const levels[] = {"[DEBUG]", "[INFO]", "[WARN]", "[ERROR]", "[FATAL]"};
    char *line = text;
    for (int i = 0; i < 5; i++) {
        char *end = strchr(line, '\n');
        CHECK(end != NULL);
        *end = 0;
        CHECK_EQ_INT(line[0], '[');
        char *at = strstr(line, levels[i]);
        CHECK(at != NULL && at[-1] == ' ');
        CHECK(strstr(at, "test_error.c:") != NULL);
        CHECK(strstr(at, "] [log_all_levels] [T-") != NULL);
        CHECK(strstr(at, "line") != NULL);
        line = end + 1;
    }
    CHECK_EQ_INT(*line, 0);
    CHECK(strstr(text, "a debug line") != NULL);
    free(text);
    text = read_file("the.log", &len);
    CHECK(strstr(text, "] an info line with 1\n") != NULL);
    CHECK(strstr(text, "] a warn line with text\n") != NULL);
    CHECK(strstr(text, "] an error line with 1.5\n") != NULL);
    free(text);
}

TEST(the_log_level_filters) {
    for (int level = KV_LOG_DEBUG; level <= KV_LOG_FATAL; level++) {
        char name[32];
        snprintf(name, sizeof name, "level%d.log", level);
        CHECK_EQ_INT(kv_error_init(level, name, 0), KV_SUCCESS);
        CHECK_EQ_INT(g_error_ctx.log_level, level);
        log_all_levels();
        size_t len;
        char *text = read_file(name, &len);
        CHECK_EQ_INT(count(text, "\n"), 5 - level);
        CHECK_EQ_INT(count(text, "a debug line"), level <= KV_LOG_DEBUG);
        CHECK_EQ_INT(count(text, "a warn line"), level <= KV_LOG_WARN);
        CHECK_EQ_INT(count(text, "a fatal line"), 1);
        free(text);
    }
}

static void log_to_stdout(void) {
    CHECK_EQ_INT(kv_error_init(KV_LOG_INFO, NULL, 1), KV_SUCCESS);
    CHECK_EQ_INT(g_error_ctx.log_to_stdout, 1);
    log_all_levels();
}

TEST(logging_to_stdout) {
    char *text = captured(1, log_to_stdout);
    CHECK_EQ_INT(count(text, "\n"), 4);
    CHECK_EQ_INT(count(text, "an info line with 1"), 1);
    free(text);
}

static void log_uninitialised(void) {
    manager_t *m = open_default();
    put_one(m, "k", "v");
    CHECK_ERR(kv_async_batch_put(NULL, "k", 1, "v", 1, NULL, NULL), KV_ERR_NULL_POINTER);
    close_manager(m);
}

TEST(the_library_is_silent_unless_told_otherwise) {
    char *text = captured(1, log_uninitialised);
    CHECK_EQ_STR(text, "");
    free(text);
    text = captured(2, log_uninitialised);
    CHECK_EQ_STR(text, "");
    free(text);
}

TEST(a_log_file_that_cannot_be_opened) {
    CHECK_EQ_INT(mkdir("a-directory", 0755), 0);
    int code = kv_error_init(KV_LOG_INFO, "a-directory", 0);
    CHECK(code != KV_SUCCESS);
    CHECK(kv_error_init(KV_LOG_INFO, "no/such/dir/the.log", 0) != KV_SUCCESS);
    log_all_levels(); /* goes nowhere, and nothing breaks */
    CHECK_EQ_INT(kv_error_init(KV_LOG_INFO, "good.log", 0), KV_SUCCESS);
    log_all_levels();
    size_t len;
    char *text = read_file("good.log", &len);
    CHECK_EQ_INT(count(text, "\n"), 4);
    free(text);
}

TEST(a_log_file_is_appended_to) {
    write_file("old.log", "yesterday\n", 10);
    CHECK_EQ_INT(kv_error_init(KV_LOG_FATAL, "old.log", 0), KV_SUCCESS);
    log_all_levels();
    CHECK_EQ_INT(kv_error_init(KV_LOG_FATAL, "old.log", 0), KV_SUCCESS);
    log_all_levels();
    size_t len;
    char *text = read_file("old.log", &len);
    CHECK(strncmp(text, "yesterday\n", 10) == 0);
    CHECK_EQ_INT(count(text, "a fatal line"), 2);
    free(text);
}

TEST(long_log_lines_are_not_torn) {
    static char lengthy[3000];
    memset(lengthy, 'l', sizeof lengthy - 1);
    CHECK_EQ_INT(kv_error_init(KV_LOG_INFO, "long.log", 0), KV_SUCCESS);
    KV_LOG_INFO_MSG("%s", lengthy);
    KV_LOG_INFO_MSG("next");
    size_t len;
    char *text = read_file("long.log", &len);
    CHECK_EQ_INT(count(text, "\n"), 2);
    CHECK(count(text, "] next\n") == 1);
    free(text);
}

static void *log_many(void *arg) {
    for (int i = 0; i < 500; i++) KV_LOG_INFO_MSG("<%ld:%d>", (long)arg, i);
    return NULL;
}

TEST(lines_of_many_threads_do_not_mix) {
    CHECK_EQ_INT(kv_error_init(KV_LOG_INFO, "threads.log", 0), KV_SUCCESS);
    pthread_t t[4];
    for (long i = 0; i < 4; i++) t[i] = thread_start(log_many, (void *)i);
    for (int i = 0; i < 4; i++) thread_join(t[i]);
    size_t len;
    char *text = read_file("threads.log", &len);
    CHECK_EQ_INT(count(text, "\n"), 2000);
    int lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        CHECK_EQ_INT(line[0], '[');
        CHECK_EQ_INT(count(line, "[INFO]"), 1);
        CHECK_EQ_INT(count(line, "<"), 1);
        CHECK_EQ_INT(line[strlen(line) - 1], '>');
    }
    CHECK_EQ_INT(lines, 2000);
    free(text);
}

/* ---- the checking macros ---- */
static int checked(int good, const void *pointer) {
    KV_CHECK_NULL(pointer, "no pointer, good is %d", good);
    KV_CHECK(good > 0, KV_ERR_PARAM, "good is %d", good);
    KV_CHECK_LOG(good > 5, "good is only %d", good);
    return KV_SUCCESS;
}

TEST(the_checking_macros) {
    CHECK_EQ_INT(kv_error_init(KV_LOG_DEBUG, "check.log", 0), KV_SUCCESS);
    CHECK_ERR(checked(1, NULL), KV_ERR_NULL_POINTER);
    CHECK_EQ_STR(last()->message, "no pointer, good is 1");
    CHECK_ERR(checked(0, "x"), KV_ERR_PARAM);
    CHECK_EQ_STR(last()->message, "good is 0");
    CHECK_OK(checked(9, "x"));
    CHECK_OK(checked(3, "x"));
    size_t len;
    char *text = read_file("check.log", &len);
    CHECK_EQ_INT(count(text, "good is only 3"), 1);
    CHECK_EQ_INT(count(text, "good is only 9"), 0);
    free(text);
}
