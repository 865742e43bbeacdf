/* log_case.h: what the cases about the log share: a callback that remembers lines, and looks at what it remembers. */
#ifndef LOG_CASE_H
#define LOG_CASE_H

#include "kvtest.h"
#include "kvserver/kv_batch_ext.h"

enum { LINES_MAX = 400 };

typedef struct {
    int level, line;
    char file[128], func[64], message[1024];
    void *user_data;
} line_t;

static line_t lines[LINES_MAX];
static size_t lines_n;
static pthread_mutex_t lines_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_line(int level, const char *file, int line, const char *func, const char *message, void *user_data) {
    pthread_mutex_lock(&lines_lock);
    CHECK(lines_n < LINES_MAX);
    line_t *l = &lines[lines_n++];
    l->level = level;
    l->line = line;
    l->user_data = user_data;
    snprintf(l->file, sizeof l->file, "%s", file);
    snprintf(l->func, sizeof l->func, "%s", func);
    snprintf(l->message, sizeof l->message, "%s", message);
    pthread_mutex_unlock(&lines_lock);
    errno = 12345; /* nobody else's business */
}

static inline void listen_from(int level) {
    CHECK_OK(kv_log_set_level(level));
    CHECK_OK(kv_log_set_callback(on_line, NULL));
}

/* How many lines of this level (-1: any) have both words in their message. */
static inline size_t heard(int level, const char *word, const char *other) {
    size_t n = 0;
    pthread_mutex_lock(&lines_lock);
    for (size_t i = 0; i < lines_n; i++)
        n += (level < 0 || lines[i].level == level) && strstr(lines[i].message, word) && strstr(lines[i].message, other);
    pthread_mutex_unlock(&lines_lock);
    return n;
}

static inline void expect_heard(const char *file, int at, size_t wanted, int level, const char *word, const char *other) {
    size_t n = heard(level, word, other);
    if (n == wanted) return;
    for (size_t i = 0; i < lines_n; i++) fprintf(stderr, "    %d [%s] %s\n", lines[i].level, lines[i].func, lines[i].message);
    kvt_fail(file, at, "%zu lines of level %d with \"%s\" and \"%s\", expected %zu", n, level, word, other, wanted);
}
#define HEARD(n, level, word, other) expect_heard(__FILE__, __LINE__, n, level, word, other)

#endif
