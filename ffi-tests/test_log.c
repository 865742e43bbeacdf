/* test_log.c: the log of kv_batch_ext.h: levels, callbacks that are replaced under load and from inside, KVBATCH_LOG. What the library
 * says of itself is in test_log_lines.c. */
#include "log_case.h"
#include <signal.h>
#include <sys/wait.h>

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR", "FATAL"};

static void one_of_each(void) {
    KV_LOG_DEBUG_MSG("line %d", 0);
    KV_LOG_INFO_MSG("line %d", 1);
    KV_LOG_WARN_MSG("line %d", 2);
    KV_LOG_ERROR_MSG("line %d", 3);
    KV_LOG_FATAL_MSG("line %d", 4);
}

TEST(a_line_arrives_as_it_was_written) {
    int mine;
    CHECK_OK(kv_log_set_callback(on_line, &mine));
    errno = 7;
    KV_LOG_WARN_MSG("%s of %d", "seven", 9);
    CHECK_EQ_INT(errno, 7);
    int line = __LINE__ - 2;
    CHECK_EQ_INT(lines_n, 1);
    CHECK_EQ_INT(lines[0].level, KV_LOG_WARN);
    CHECK_EQ_INT(lines[0].line, line);
    CHECK_EQ_STR(lines[0].file, __FILE__);
    CHECK_EQ_STR(lines[0].func, __func__);
    CHECK_EQ_STR(lines[0].message, "seven of 9");
    CHECK(lines[0].user_data == &mine);
    kv_log(KV_LOG_WARN, NULL, 0, NULL, NULL); /* NULL becomes an empty string */
    CHECK_EQ_STR(lines[1].file, "");
    CHECK_EQ_STR(lines[1].func, "");
    CHECK_EQ_STR(lines[1].message, "");
}

TEST(every_level_leaves_out_what_is_below) {
    CHECK_EQ_INT(kv_log_get_level(), KV_LOG_INFO);
    CHECK_OK(kv_log_set_callback(on_line, NULL));
    for (int level = KV_LOG_DEBUG; level <= KV_LOG_OFF; level++) {
        CHECK_OK(kv_log_set_level(level));
        CHECK_EQ_INT(kv_log_get_level(), level);
        CHECK_EQ_INT(g_error_ctx.log_level, level);
        lines_n = 0;
        one_of_each();
        CHECK_EQ_INT(lines_n, KV_LOG_OFF - level);
        for (size_t i = 0; i < lines_n; i++) CHECK_EQ_INT(lines[i].level, level + (int)i);
    }
    CHECK_ERR(kv_log_set_level(-1), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_log_set_level(6), KV_ERR_INVALID_PARAM);
    CHECK_EQ_INT(kv_log_get_level(), KV_LOG_OFF);
    CHECK_OK(kv_error_init(KV_LOG_ERROR, NULL, 0)); /* the same level, by the other function */
    CHECK_EQ_INT(kv_log_get_level(), KV_LOG_ERROR);
    lines_n = 0;
    one_of_each();
    CHECK_EQ_INT(lines_n, 2);
}

TEST(the_file_of_kv_error_init_goes_on_beside_a_callback) {
    CHECK_OK(kv_error_init(KV_LOG_WARN, "host.log", 0));
    listen_from(KV_LOG_ERROR);
    one_of_each();
    CHECK_EQ_INT(lines_n, 2);
    CHECK_OK(kv_log_set_callback(NULL, NULL));
    one_of_each();
    CHECK_EQ_INT(lines_n, 2);
    size_t len;
    char *text = read_file("host.log", &len);
    CHECK(strstr(text, "[ERROR]") && strstr(text, "line 4") && !strstr(text, "line 2"));
    free(text);
}

/* ---- replaced and removed ---- */
typedef struct { atomic_int alive, calls; } hearer_t;

static void on_line_alive(int level, const char *file, int line, const char *func, const char *message, void *user_data) {
    UNUSED(level), UNUSED(file), UNUSED(line), UNUSED(func), UNUSED(message);
    hearer_t *h = user_data;
    CHECK(h->alive);
    h->calls++;
    for (int i = 0; i < 20; i++) CHECK(h->alive); /* also not while it runs */
}

static atomic_int load_over;

static void *write_lines(void *written) {
    while (!load_over) {
        KV_LOG_WARN_MSG("under load");
        atomic_fetch_add((atomic_long *)written, 1);
    }
    return NULL;
}

TEST(whoever_was_replaced_is_never_called_again) {
    enum { THREADS = 4, ROUNDS = 3000 };
    pthread_t t[THREADS];
    atomic_long written = 0;
    for (int i = 0; i < THREADS; i++) t[i] = thread_start(write_lines, &written);
    long calls = 0, rounds = 0;
    hearer_t hearers[2] = {0};
    while (rounds < ROUNDS || calls < 100) { /* a slow machine goes on until lines were heard */
        hearer_t *next = &hearers[rounds % 2], *before = &hearers[(rounds + 1) % 2];
        next->alive = 1;
        CHECK_OK(kv_log_set_callback(on_line_alive, next));
        before->alive = 0;
        if (rounds % 3 == 0) {
            CHECK_OK(kv_log_set_callback(NULL, NULL));
            next->alive = 0;
        }
        calls += before->calls;
        before->calls = 0;
        rounds++;
    }
    CHECK_OK(kv_log_set_callback(NULL, NULL));
    hearers[0].alive = hearers[1].alive = 0;
    long then = written;
    while (written < then + 100) sleep_ms(1);
    load_over = 1;
    for (int i = 0; i < THREADS; i++) thread_join(t[i]);
}

static hold_t held = HOLD_INIT;

static void on_line_hold(int level, const char *file, int line, const char *func, const char *message, void *user_data) {
    UNUSED(level), UNUSED(file), UNUSED(line), UNUSED(func), UNUSED(message), UNUSED(user_data);
    gate_open(&held.entered);
    gate_wait(&held.leave, 1);
}

static void *write_one(void *arg) {
    UNUSED(arg);
    KV_LOG_WARN_MSG("one");
    return NULL;
}

static atomic_int removed;

static void *remove_callback(void *arg) {
    UNUSED(arg);
    CHECK_OK(kv_log_set_callback(NULL, NULL));
    removed = 1;
    return NULL;
}

TEST(removing_waits_for_the_call_that_runs) {
    CHECK_OK(kv_log_set_callback(on_line_hold, NULL));
    pthread_t writer = thread_start(write_one, NULL);
    gate_wait(&held.entered, 1);
    pthread_t remover = thread_start(remove_callback, NULL);
    sleep_ms(50);
    CHECK(!removed);
    KV_LOG_WARN_MSG("nobody is there, and nobody waits");
    gate_open(&held.leave);
    thread_join(remover);
    CHECK(removed);
    thread_join(writer);
    CHECK_EQ_INT(gate_count(&held.entered), 1);
}

TEST(a_forked_child_does_not_wait_for_calls_of_its_parent) {
    CHECK_OK(kv_log_set_callback(on_line_hold, NULL));
    pthread_t writer = thread_start(write_one, NULL);
    gate_wait(&held.entered, 1);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK_OK(kv_log_set_callback(on_line, NULL)); /* would hang */
        KV_LOG_WARN_MSG("of the child");
        CHECK_EQ_INT(lines_n, 1);
        raise(SIGKILL); /* what only stacks of the parent's threads pointed to is no leak */
    }
    int status = join_status(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    gate_open(&held.leave);
    thread_join(writer);
}

/* ---- from inside ---- */
static atomic_int inside_calls;

static void on_line_removes(int level, const char *file, int line, const char *func, const char *message, void *user_data) {
    UNUSED(level), UNUSED(file), UNUSED(line), UNUSED(func), UNUSED(message);
    inside_calls++;
    CHECK_OK(kv_log_set_callback(user_data ? on_line : NULL, NULL));
}

TEST(a_callback_may_remove_and_replace_itself) {
    for (int round = 0; round < 300; round++) { /* more than there are places for callbacks */
        CHECK_OK(kv_log_set_callback(on_line_removes, NULL));
        one_of_each();
        CHECK_EQ_INT(inside_calls, 1);
        CHECK_OK(kv_log_set_callback(on_line_removes, &inside_calls));
        lines_n = 0;
        one_of_each();
        CHECK_EQ_INT(inside_calls, 2);
        CHECK_EQ_INT(lines_n, 3); /* the rest went to the one that it has set */
        inside_calls = 0;
    }
}

static manager_t *m;
static batch_t *b;

static void on_line_calls(int level, const char *file, int line, const char *func, const char *message, void *user_data) {
    UNUSED(level), UNUSED(file), UNUSED(line), UNUSED(func), UNUSED(message), UNUSED(user_data);
    inside_calls++;
    stats_t s;
    KV_LOG_FATAL_MSG("from inside"); /* to the file, not to itself */
    CHECK_ERR(kv_async_batch_put(b, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK(strstr(kv_get_last_error()->message, "log callback") != NULL);
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_cancel(b), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_get_stats(b, &s), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_manager_stop(m), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_async_batch_manager_create(NULL), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_async_batch_create(m, 1), KV_ERR_INVALID_STATE);
    kv_async_batch_destroy(b);
    kv_async_batch_manager_destroy(m);
    CHECK_EQ_INT(kvt_last(), KV_ERR_INVALID_STATE);
    CHECK_OK(kv_log_set_level(kv_log_get_level()));
    CHECK_EQ_STR(kv_get_error_name(27), "KV_ERR_BATCH_FULL");
    CHECK(kv_batch_version_number() >= KV_BATCH_VERSION_NUMBER);
}

TEST(a_callback_that_calls_the_library_is_refused_and_nothing_hangs) {
    CHECK_OK(kv_error_init(KV_LOG_DEBUG, "host.log", 0));
    m = open_default();
    b = new_batch(m, 2);
    add_put(b, "k", "v");
    CHECK_OK(kv_log_set_callback(on_line_calls, NULL));
    KV_LOG_WARN_MSG("of the host");
    CHECK_EQ_INT(inside_calls, 1);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING); /* it is all still there */
    run(b);
    EXPECT(m, "k", "v");
    close_manager(m); /* a line of the library's own, in the middle of its work */
    CHECK(inside_calls > 1);
    size_t len;
    char *text = read_file("host.log", &len);
    CHECK(strstr(text, "from inside") != NULL);
    free(text);
}

/* ---- KVBATCH_LOG ---- */
static char *text_of(const char *path) {
    size_t len;
    return read_file(path, &len);
}

static void expect_levels(char *text, int from) {
    for (int level = 0; level < 5; level++) {
        char word[32];
        snprintf(word, sizeof word, "line %d\n", level);
        CHECK_EQ_INT(strstr(text, word) != NULL, level >= from);
        snprintf(word, sizeof word, "[%s]", level_names[level]);
        CHECK_EQ_INT(strstr(text, word) != NULL, level >= from);
    }
    free(text);
}

static void with_variable(void *value) {
    setenv("KVBATCH_LOG", value, 1);
    one_of_each();
}

TEST(the_variable_names_a_level_and_a_file) {
    const char *const words[] = {"debug", "info", "warn", "error", "fatal"};
    for (int level = 0; level < 5; level++) {
        char value[64], path[32];
        snprintf(path, sizeof path, "%s.log", words[level]);
        snprintf(value, sizeof value, "%s:%s", words[level], path);
        in_child(with_variable, value);
        expect_levels(text_of(path), level);
    }
}

TEST(the_variable_alone_means_stderr) {
    CHECK(freopen("err", "w", stderr) != NULL);
    setenv("KVBATCH_LOG", "error", 1);
    one_of_each();
    expect_levels(text_of("err"), KV_LOG_ERROR);
}

TEST(the_librarys_own_lines_need_no_code) {
    setenv("KVBATCH_LOG", "info:lib.log", 1);
    manager_t *own = open_default();
    CHECK_EQ_INT(mkdir("elsewhere", 0755), 0);
    CHECK_EQ_INT(chdir("elsewhere"), 0); /* the file stays the one that was meant */
    CHECK_OK(kv_log_set_level(KV_LOG_OFF)); /* the host's level is another matter */
    close_manager(own);
    char *text = text_of("../lib.log");
    CHECK(strstr(text, "opened in") && strstr(text, ": closed\n") && strstr(text, kvt_store()));
    free(text);
}

static void expect_no_effect(const char *value, const char *why) {
    CHECK(freopen("err", "w", stderr) != NULL);
    setenv("KVBATCH_LOG", value, 1);
    listen_from(KV_LOG_WARN);
    manager_t *own = open_default();
    put_one(own, "k", "v");
    EXPECT(own, "k", "v");
    one_of_each();
    close_manager(own);
    char *text = text_of("err");
    char *said = strstr(text, value);
    CHECK(said && strstr(text, "KVBATCH_LOG") && strstr(text, why) && strstr(text, "has no effect"));
    CHECK_EQ_INT(strstr(said + 1, "KVBATCH_LOG=") == NULL, 1); /* once */
    CHECK(!strstr(text, "line 4"));
    HEARD(1, KV_LOG_WARN, "KVBATCH_LOG", why); /* the host hears of it, too */
    HEARD(1, KV_LOG_FATAL, "line 4", "");
    free(text);
}

TEST(an_unknown_level_is_said_and_changes_nothing) { expect_no_effect("loud", "debug, info, warn, error or fatal"); }
TEST(a_missing_path_is_said_and_changes_nothing) { expect_no_effect("warn:", "no path behind the colon"); }
TEST(a_file_that_cannot_be_opened_is_said_and_changes_nothing) {
    expect_no_effect("warn:missing/x", "No such file or directory (os error 2)");
}

TEST(an_empty_variable_means_nothing) {
    CHECK(freopen("err", "w", stderr) != NULL);
    setenv("KVBATCH_LOG", "", 1);
    close_manager(open_default());
    one_of_each();
    char *text = text_of("err");
    CHECK_EQ_STR(text, "");
    free(text);
}

TEST(the_variable_spares_a_file_that_has_taken_the_number) {
    CHECK(freopen("err", "w", stderr) != NULL);
    setenv("KVBATCH_LOG", "warn", 1);
    KV_LOG_WARN_MSG("before");
    fclose(stderr); /* as a daemon does; the next file has number 2 */
    int fd = open("mine", O_RDWR | O_CREAT, 0644);
    CHECK_EQ_INT(fd, 2);
    KV_LOG_WARN_MSG("after");
    char *text = text_of("mine");
    CHECK_EQ_STR(text, "");
    free(text);
    text = text_of("err");
    CHECK(strstr(text, "before") && !strstr(text, "after"));
    free(text);
}
