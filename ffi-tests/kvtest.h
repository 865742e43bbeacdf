/* kvtest.h: the harness of the C suite, and the helpers that its cases share. The driver (main.rs) builds one program per
 * test_*.c file and runs one process per case, in an empty directory, with KVBATCH_STORE naming a fresh path inside it.
 * Exit codes: 0 passed, 77 skipped (the reason on stderr), anything else failed. Only the documented headers are used here. */
#ifndef KVTEST_H
#define KVTEST_H

#include "kvserver/kv_async_batch_io.h"
#include "kvserver/kv_io_uring.h"
#include <stdatomic.h>

struct kvt_case { const char *name; void (*run)(void); int slow; struct kvt_case *next; };
void kvt_register(struct kvt_case *c);

#define KVT_CASE(n, is_slow)                                                                  \
    static void n(void);                                                                      \
    static struct kvt_case kvt_case_##n = {#n, n, is_slow, NULL};                             \
    __attribute__((constructor)) static void kvt_add_##n(void) { kvt_register(&kvt_case_##n); } \
    static void n(void)
#define TEST(n) KVT_CASE(n, 0)
#define SLOW_TEST(n) KVT_CASE(n, 1) /* left out under KV_QUICK=1, that is under valgrind */

/* Print where and why, then leave at once (from any thread): with code 1, or 77 for kvt_skip. */
_Noreturn void kvt_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void kvt_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void kvt_eq_int(const char *file, int line, const char *text, long long seen, long long wanted);
void kvt_eq_mem(const char *file, int line, const char *text, const void *a, size_t a_len, const void *b, size_t b_len);
void kvt_code(const char *file, int line, const char *text, int seen, int wanted);
void kvt_error(const char *file, int line, const char *text, int seen, int wanted);

#define CHECK(c) do { if (!(c)) kvt_fail(__FILE__, __LINE__, "not true: %s", #c); } while (0)
#define CHECK_EQ_INT(a, b) kvt_eq_int(__FILE__, __LINE__, #a, (long long)(a), (long long)(b))
#define CHECK_EQ_MEM(a, a_len, b, b_len) kvt_eq_mem(__FILE__, __LINE__, #a, a, a_len, b, b_len)
#define CHECK_EQ_STR(a, b) kvt_eq_mem(__FILE__, __LINE__, #a, a, kvt_len(a), b, kvt_len(b))
/* The code that a call returns... */
#define CHECK_CODE(call, wanted) kvt_code(__FILE__, __LINE__, #call, call, wanted)
#define CHECK_OK(call) CHECK_CODE(call, KV_SUCCESS)
/* ...and, for a failing one, that this thread's last error has the same code and a message. */
#define CHECK_ERR(call, wanted) (kv_clear_error(), kvt_error(__FILE__, __LINE__, #call, call, wanted))
/* A handle that was refused: NULL, and the last error says why. */
#define CHECK_NO_HANDLE(call, wanted) (kv_clear_error(), kvt_error(__FILE__, __LINE__, #call, (call) ? KV_SUCCESS : kvt_last(), wanted))
#define UNUSED(x) ((void)(x))
size_t kvt_len(const char *s); /* 0 for NULL */
int kvt_last(void);            /* the code of this thread's last error */

/* The states, by number: what their names are is a matter of test_names.c and test_abi_layout.c. */
#define ST_PENDING 0
#define ST_SUBMITTED 1
#define ST_COMPLETING 2
#define ST_COMPLETED 3
#define ST_FAILED 4
#define ST_CANCELLED 5
#define FOREVER UINT32_MAX

typedef kv_async_batch_manager_t manager_t;
typedef kv_async_batch_context_t batch_t;
typedef kv_async_batch_config_t config_t;
typedef kv_async_batch_stats_t stats_t;
typedef kv_async_batch_operation_t op_t;

/* ---- a gate: counts up, others wait for a count; no wait has a limit, the driver ends what hangs ---- */
typedef struct { pthread_mutex_t lock; pthread_cond_t changed; unsigned long count; } gate_t;
#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}
void gate_open(gate_t *g);
void gate_wait(gate_t *g, unsigned long count);
unsigned long gate_count(gate_t *g);

/* ---- what a case expects of callbacks ---- */
/* One per operation: pass `on_op` and the probe's address. `turn` numbers the callbacks of the whole process from 1. */
typedef struct {
    atomic_int calls, result, stored_result, type;
    unsigned long turn;
    size_t key_len, value_len;
    char key[128], value[128]; /* the first bytes of what the callback saw */
    int has_value, ends_in_nul;
    void *user_data;
    pthread_t thread;
} probe_t;
void on_op(op_t *op, int result, void *probe);
/* One per batch: pass `on_done` and its address. */
typedef struct { atomic_int calls; size_t completed, failed; unsigned long turn; batch_t *batch; pthread_t thread; gate_t gate; } done_t;
#define DONE_INIT {.gate = GATE_INIT}
void on_done(batch_t *batch, size_t completed, size_t failed, void *done);
/* An operation's callback that holds its batch in flight until `leave` is opened. */
typedef struct { gate_t entered, leave; } hold_t;
#define HOLD_INIT {GATE_INIT, GATE_INIT}
void on_op_hold(op_t *op, int result, void *hold);
void on_op_count(op_t *op, int result, void *atomic_counter);

/* ---- managers and batches ---- */
const char *kvt_store(void); /* what KVBATCH_STORE says */
config_t kvt_config(void);   /* the defaults */
manager_t *open_with(const config_t *config); /* created and started; NULL: the defaults */
manager_t *open_default(void);
void close_manager(manager_t *m); /* stopped and destroyed */
batch_t *new_batch(manager_t *m, size_t size);
void add_put(batch_t *b, const char *key, const char *value);
void add_get(batch_t *b, const char *key, probe_t *probe);
void add_delete(batch_t *b, const char *key);
void add_put_n(batch_t *b, const char *key, const char *value, size_t len);
void submit(batch_t *b);
void run(batch_t *b);    /* submit, wait, must be COMPLETED, destroy */
int run_code(batch_t *b); /* submit, wait: what wait says */
/* One batch for one operation, waited for. */
void put_one(manager_t *m, const char *key, const char *value);
void put_mem(manager_t *m, const char *key, size_t key_len, const void *value, size_t len);
void delete_one(manager_t *m, const char *key);
/* What the store holds now: the value in memory that the caller frees, or NULL for a miss. */
char *get_mem(manager_t *m, const char *key, size_t key_len, size_t *len);
char *get_one(manager_t *m, const char *key);
void expect(const char *file, int line, manager_t *m, const char *key, const char *value);
#define EXPECT(m, key, value) expect(__FILE__, __LINE__, m, key, value)
#define EXPECT_MISS(m, key) expect(__FILE__, __LINE__, m, key, NULL)
stats_t stats_of(batch_t *b);
stats_t manager_stats(manager_t *m);
/* A number from what kv_async_batch_print_stats prints ("  name: value"); -1 when there is no such line. */
double printed(batch_t *b, const char *name);
double counter(manager_t *m, const char *name); /* the same, through a batch that is never submitted */
char *printed_text(batch_t *b);                 /* all of it; the caller frees it */

/* ---- processes, files, chance ---- */
pid_t spawn(void (*body)(void *), void *arg); /* fork before the library is started; the child ends with 0 */
int join_status(pid_t pid);                   /* as waitpid gives it */
void join(pid_t pid);                         /* must have ended with 0 */
void in_child(void (*body)(void *), void *arg);
pthread_t thread_start(void *(*body)(void *), void *arg);
void thread_join(pthread_t t);
void sleep_ms(long ms);
uint64_t now_us(void); /* monotonic */
char *read_file(const char *path, size_t *len);
void write_file(const char *path, const void *bytes, size_t len);
void copy_file(const char *from, const char *to);
/* The names in a directory that begin with `prefix`, sorted; how many. */
size_t list_dir(const char *dir, const char *prefix, char names[][256], size_t room);
uint64_t dir_digest(const char *dir, const char *prefix); /* changes when a name, size or byte does */
uint64_t next_random(uint64_t *state);
/* From here on, io_uring's system calls fail with `error` in this process. */
void deny_uring(int error);

/* ---- an allocator that counts and that can refuse ---- */
extern atomic_long alloc_calls, alloc_live, alloc_refused; /* calls, blocks not yet freed, refusals */
extern atomic_long alloc_fail_at;    /* the n-th call from the reset fails, and only that; 0: none */
extern atomic_long alloc_fail_from;  /* the n-th call and all later ones fail; 0: none */
extern atomic_size_t alloc_fail_size; /* requests of this many bytes or more fail; 0: none */
void *counting_alloc(size_t n);
void counting_free(void *p);
void alloc_reset(void);
config_t counting_config(void);

#endif
