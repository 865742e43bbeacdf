/* kvtest.c: the harness's main, its checks, and the helpers for batches. Linked into every test program. */
#include "kvtest.h"
#include <signal.h>
#include <sys/prctl.h>

static struct kvt_case *cases;

void kvt_register(struct kvt_case *c) {
    struct kvt_case **place = &cases;
    while (*place) place = &(*place)->next;
    *place = c;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (struct kvt_case *c = cases; c; c = c->next) printf("%s%s\n", c->name, c->slow ? " slow" : "");
        return 0;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody is left to end a case that hangs */
    int ran = 0;
    for (struct kvt_case *c = cases; c; c = c->next) {
        if (argc > 1 && strcmp(argv[1], c->name) != 0) continue;
        c->run();
        ran++;
    }
    if (ran == 0) fprintf(stderr, "no such case; try --list\n");
    return ran == 0;
}

void kvt_fail(const char *file, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    flockfile(stderr);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, args);
    const kv_error_t *e = kv_get_last_error();
    if (e && e->code) fprintf(stderr, "\n    last error: %d %s", e->code, e->message);
    fprintf(stderr, "\n");
    fflush(stderr);
    funlockfile(stderr);
    va_end(args);
    _exit(1);
}

void kvt_skip(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    fflush(stderr);
    _exit(77);
}

void kvt_eq_int(const char *file, int line, const char *text, long long seen, long long wanted) {
    if (seen != wanted) kvt_fail(file, line, "%s is %lld, expected %lld", text, seen, wanted);
}

void kvt_eq_mem(const char *file, int line, const char *text, const void *a, size_t a_len, const void *b, size_t b_len) {
    if (!a != !b) kvt_fail(file, line, "%s is %s, expected %s", text, a ? (const char *)a : "NULL", b ? (const char *)b : "NULL");
    if (!a) return;
    size_t both = a_len < b_len ? a_len : b_len, at = 0;
    while (at < both && ((const char *)a)[at] == ((const char *)b)[at]) at++;
    if (a_len == b_len && at == a_len) return;
    kvt_fail(file, line, "%s: %zu bytes \"%.*s\", expected %zu bytes \"%.*s\"; they differ at byte %zu", text, a_len,
             (int)(a_len < 200 ? a_len : 200), (const char *)a, b_len, (int)(b_len < 200 ? b_len : 200), (const char *)b, at);
}

void kvt_code(const char *file, int line, const char *text, int seen, int wanted) {
    if (seen != wanted)
        kvt_fail(file, line, "%s gave %d %s, expected %d %s", text, seen, kv_get_error_name(seen), wanted, kv_get_error_name(wanted));
}

void kvt_error(const char *file, int line, const char *text, int seen, int wanted) {
    kvt_code(file, line, text, seen, wanted);
    const kv_error_t *e = kv_get_last_error();
    if (!e) kvt_fail(file, line, "%s: kv_get_last_error gave NULL", text);
    if (e->code != wanted) kvt_fail(file, line, "%s: the last error has code %d, expected %d", text, e->code, wanted);
    if (e->message[0] == 0) kvt_fail(file, line, "%s: the last error has no message", text);
}

size_t kvt_len(const char *s) { return s ? strlen(s) : 0; }

int kvt_last(void) {
    const kv_error_t *e = kv_get_last_error();
    return e ? e->code : -1;
}

/* ---- gates ---- */
void gate_open(gate_t *g) {
    pthread_mutex_lock(&g->lock);
    g->count++;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

void gate_wait(gate_t *g, unsigned long count) {
    pthread_mutex_lock(&g->lock);
    while (g->count < count) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

unsigned long gate_count(gate_t *g) {
    pthread_mutex_lock(&g->lock);
    unsigned long count = g->count;
    pthread_mutex_unlock(&g->lock);
    return count;
}

/* ---- callbacks ---- */
static atomic_ulong turns;

static size_t keep(char *to, size_t room, const char *from, size_t len) {
    size_t n = len < room - 1 ? len : room - 1;
    if (from) memcpy(to, from, n);
    to[from ? n : 0] = 0;
    return len;
}

void on_op(op_t *op, int result, void *probe) {
    probe_t *p = probe;
    p->turn = atomic_fetch_add(&turns, 1) + 1;
    p->result = result;
    p->stored_result = op->result_code;
    p->type = (int)op->op_type;
    p->key_len = keep(p->key, sizeof p->key, op->key, op->key_len);
    p->has_value = op->value != NULL;
    p->value_len = keep(p->value, sizeof p->value, op->value, op->value_len);
    p->ends_in_nul = op->value && op->value[op->value_len] == 0;
    p->user_data = op->user_data;
    p->thread = pthread_self();
    atomic_fetch_add(&p->calls, 1);
}

void on_done(batch_t *batch, size_t completed, size_t failed, void *done) {
    done_t *d = done;
    d->turn = atomic_fetch_add(&turns, 1) + 1;
    d->completed = completed;
    d->failed = failed;
    d->batch = batch;
    d->thread = pthread_self();
    atomic_fetch_add(&d->calls, 1);
    gate_open(&d->gate);
}

void on_op_hold(op_t *op, int result, void *hold) {
    UNUSED(op);
    UNUSED(result);
    hold_t *h = hold;
    gate_open(&h->entered);
    gate_wait(&h->leave, 1);
}

void on_op_count(op_t *op, int result, void *atomic_counter) {
    UNUSED(op);
    UNUSED(result);
    atomic_fetch_add((atomic_int *)atomic_counter, 1);
}

/* ---- managers and batches ---- */
const char *kvt_store(void) {
    const char *s = getenv("KVBATCH_STORE");
    CHECK(s && *s);
    return s;
}

config_t kvt_config(void) { return kv_async_batch_default_config(); }

manager_t *open_with(const config_t *config) {
    manager_t *m = kv_async_batch_manager_create(config);
    CHECK(m != NULL);
    CHECK_OK(kv_async_batch_manager_start(m));
    return m;
}

manager_t *open_default(void) { return open_with(NULL); }

void close_manager(manager_t *m) {
    CHECK_OK(kv_async_batch_manager_stop(m));
    kv_async_batch_manager_destroy(m);
}

batch_t *new_batch(manager_t *m, size_t size) {
    batch_t *b = kv_async_batch_create(m, size);
    CHECK(b != NULL);
    return b;
}

void add_put_n(batch_t *b, const char *key, const char *value, size_t len) {
    CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, len, NULL, NULL));
}

void add_put(batch_t *b, const char *key, const char *value) { add_put_n(b, key, value, strlen(value)); }

void add_get(batch_t *b, const char *key, probe_t *probe) {
    CHECK_OK(kv_async_batch_get(b, key, strlen(key), NULL, NULL, probe ? on_op : NULL, probe));
}

void add_delete(batch_t *b, const char *key) { CHECK_OK(kv_async_batch_delete(b, key, strlen(key), NULL, NULL)); }

void submit(batch_t *b) { CHECK_OK(kv_async_batch_submit(b, NULL, NULL)); }

int run_code(batch_t *b) {
    submit(b);
    return kv_async_batch_wait(b, FOREVER);
}

void run(batch_t *b) {
    CHECK_OK(run_code(b));
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_COMPLETED);
    kv_async_batch_destroy(b);
}

void put_mem(manager_t *m, const char *key, size_t key_len, const void *value, size_t len) {
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, key, key_len, value, len, NULL, NULL));
    run(b);
}

void put_one(manager_t *m, const char *key, const char *value) { put_mem(m, key, strlen(key), value, strlen(value)); }

void delete_one(manager_t *m, const char *key) {
    batch_t *b = new_batch(m, 1);
    add_delete(b, key);
    run(b);
}

char *get_mem(manager_t *m, const char *key, size_t key_len, size_t *len) {
    batch_t *b = new_batch(m, 1);
    char *value = (char *)"never written", *copy = NULL;
    size_t value_len = 4711;
    CHECK_OK(kv_async_batch_get(b, key, key_len, &value, &value_len, NULL, NULL));
    CHECK_OK(run_code(b));
    if (value) {
        CHECK(value_len != 4711 || strcmp(value, "never written") != 0);
        CHECK_EQ_INT(value[value_len], 0);
        CHECK((copy = malloc(value_len + 1)) != NULL);
        memcpy(copy, value, value_len + 1);
    } else {
        CHECK_EQ_INT(value_len, 0);
    }
    if (len) *len = value_len;
    kv_async_batch_destroy(b);
    return copy;
}

char *get_one(manager_t *m, const char *key) { return get_mem(m, key, strlen(key), NULL); }

void expect(const char *file, int line, manager_t *m, const char *key, const char *value) {
    size_t len;
    char *seen = get_mem(m, key, strlen(key), &len);
    kvt_eq_mem(file, line, key, seen, len, value, kvt_len(value));
    free(seen);
}

stats_t stats_of(batch_t *b) {
    stats_t s;
    memset(&s, 0xa5, sizeof s);
    CHECK_OK(kv_async_batch_get_stats(b, &s));
    return s;
}

stats_t manager_stats(manager_t *m) {
    stats_t s;
    memset(&s, 0xa5, sizeof s);
    CHECK_OK(kv_async_batch_manager_get_stats(m, &s));
    return s;
}

char *printed_text(batch_t *b) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    CHECK(to != NULL);
    CHECK_OK(kv_async_batch_print_stats(b, to));
    CHECK_EQ_INT(fclose(to), 0);
    CHECK(len > 0);
    return text;
}

double printed(batch_t *b, const char *name) {
    char *text = printed_text(b), wanted[128];
    snprintf(wanted, sizeof wanted, "  %s: ", name);
    const char *at = strstr(text, wanted);
    double value = at ? strtod(at + strlen(wanted), NULL) : -1;
    free(text);
    return value;
}

double counter(manager_t *m, const char *name) {
    batch_t *b = new_batch(m, 1);
    double value = printed(b, name);
    kv_async_batch_destroy(b);
    if (value < 0) kvt_fail(__FILE__, __LINE__, "kv_async_batch_print_stats prints no line \"  %s: value\"", name);
    return value;
}
