/* test_crash.c: kill -9 at random moments. The child writes batches and reports, through a pipe, each one that wait has confirmed;
 * the parent holds these numbers (the oracle), kills, and the next child checks: nothing confirmed is lost, no batch is there in
 * part, nothing deleted is back; then it goes on writing. The parent itself never starts the library. */
#include "kvtest.h"
#include <signal.h>
#include <sys/wait.h>

enum { WRITERS_MAX = 3, ROW = 8, WINDOW = 300, ROUNDS_PER_STORE = 20 };

static int report_fd;
static config_t config;
static const char *options = ""; /* of the store */
static int writers;
static uint64_t confirmed[WRITERS_MAX]; /* the oracle: highest number that the child reported, per writer */
static uint64_t found[WRITERS_MAX];     /* what the store holds: the number that the next batch follows */

typedef struct { uint64_t writer, number; } report_t; /* below PIPE_BUF: written in one piece */

/* The value of cell `i` of batch `n`: its length and bytes follow from the numbers. */
static size_t cell_value(char *to, int writer, uint64_t n, int i) {
    uint64_t seed = n * 1000003 + (uint64_t)i * 31 + (uint64_t)writer;
    size_t len = (size_t)snprintf(to, 64, "%d/%lu/%d ", writer, (unsigned long)n, i);
    size_t extra = next_random(&seed) % (n % 50 == 0 ? 5000 : 200);
    for (size_t k = 0; k < extra; k++) to[len + k] = (char)('a' + (next_random(&seed) >> 20) % 26);
    return len + extra;
}

/* Batch `n` of a writer: overwrites its row, adds a cell of its own, deletes the own cell of batch n - 5. */
static batch_t *write_batch(manager_t *m, int writer, uint64_t n) {
    char key[64], value[6000];
    batch_t *b = new_batch(m, ROW + 2);
    for (int i = 0; i < ROW; i++) {
        snprintf(key, sizeof key, "row%d-%d", writer, i);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, cell_value(value, writer, n, i), NULL, NULL));
    }
    snprintf(key, sizeof key, "own%d-%lu", writer, (unsigned long)n);
    CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, cell_value(value, writer, n, ROW), NULL, NULL));
    if (n > 5) {
        snprintf(key, sizeof key, "own%d-%lu", writer, (unsigned long)(n - 5));
        add_delete(b, key);
    }
    submit(b);
    return b;
}

static void cell_is(manager_t *m, const char *key, int writer, uint64_t n, int i, int present) {
    char value[6000];
    size_t wanted = cell_value(value, writer, n, i), len;
    char *seen = get_mem(m, key, strlen(key), &len);
    kvt_eq_mem(__FILE__, __LINE__, key, seen, len, present ? value : NULL, wanted);
    free(seen);
}

/* Finds the last batch that the store holds and checks that it holds exactly that state. */
static uint64_t check_store(manager_t *m, int writer) {
    char key[64];
    snprintf(key, sizeof key, "row%d-0", writer);
    char *first = get_one(m, key);
    uint64_t n = 0;
    if (first) {
        char *number = strchr(first, '/');
        CHECK(number != NULL);
        n = strtoull(number + 1, NULL, 10);
    }
    free(first);
    if (n < confirmed[writer])
        kvt_fail(__FILE__, __LINE__, "writer %d: batch %lu was confirmed, the store holds batch %lu", writer,
                 (unsigned long)confirmed[writer], (unsigned long)n);
    if (n == 0) return 0;
    for (int i = 0; i < ROW; i++) {
        snprintf(key, sizeof key, "row%d-%d", writer, i);
        cell_is(m, key, writer, n, i, 1);
    }
    for (uint64_t k = n > WINDOW ? n - WINDOW : 1; k <= n + 10; k++) {
        snprintf(key, sizeof key, "own%d-%lu", writer, (unsigned long)k);
        cell_is(m, key, writer, k, ROW, k <= n && k + 5 > n);
    }
    return n;
}

static manager_t *writing;
static void *write_on(void *arg) {
    long writer = (long)arg;
    enum { FLIGHT = 4 };
    batch_t *flight[FLIGHT] = {NULL};
    for (uint64_t n = found[writer] + 1;; n++) {
        batch_t **place = &flight[n % FLIGHT];
        if (*place) { /* several batches in flight; each is confirmed in its turn */
            CHECK_OK(kv_async_batch_wait(*place, FOREVER));
            kv_async_batch_destroy(*place);
            report_t r = {(uint64_t)writer, n - FLIGHT};
            if (write(report_fd, &r, sizeof r) != sizeof r) _exit(1);
        }
        *place = write_batch(writing, (int)writer, n);
    }
    return NULL;
}

static void child(void *unused) {
    UNUSED(unused);
    writing = open_with(&config);
    for (int w = 0; w < writers; w++) {
        found[w] = check_store(writing, w);
        report_t r = {(uint64_t)w | 1u << 31, found[w]}; /* checked; goes on from here */
        if (write(report_fd, &r, sizeof r) != sizeof r) _exit(1);
    }
    pthread_t t[WRITERS_MAX];
    for (long w = 0; w < writers; w++) t[w] = thread_start(write_on, (void *)w);
    for (long w = 0; w < writers; w++) thread_join(t[w]);
}

static void final_check(void *unused) {
    UNUSED(unused);
    manager_t *m = open_with(&config);
    for (int w = 0; w < writers; w++) check_store(m, w);
    close_manager(m);
}

static void take(const report_t *r) {
    uint64_t w = r->writer & ~(1u << 31);
    CHECK(w < (uint64_t)writers);
    CHECK(r->number >= confirmed[w]);
    confirmed[w] = r->number;
}

static void rounds(int count, bool fsync_on, int writer_count) {
    config = kvt_config();
    config.enable_batch_fsync = fsync_on;
    writers = writer_count;
    uint64_t seed = now_us(), confirmations = 0;
    fprintf(stderr, "seed %lu\n", (unsigned long)seed);
    for (int round = 0; round < count; round++) {
        if (round % ROUNDS_PER_STORE == 0) { /* a fresh store, lest opening takes longer and longer */
            if (round) in_child(final_check, NULL);
            char name[64];
            snprintf(name, sizeof name, "file:store-%d%s", round, options);
            setenv("KVBATCH_STORE", name, 1);
            memset(confirmed, 0, sizeof confirmed);
        }
        int ends[2];
        CHECK_EQ_INT(pipe(ends), 0);
        report_fd = ends[1];
        pid_t pid = spawn(child, NULL);
        close(ends[1]);
        report_t r;
        for (int w = 0; w < writers; w++) { /* the time to kill begins when the child writes */
            if (read(ends[0], &r, sizeof r) != sizeof r) {
                join(pid);
                kvt_fail(__FILE__, __LINE__, "round %d: the child ended before it wrote", round);
            }
            take(&r);
        }
        /* Now and then it is killed while it makes its first chunk; else some time after the first confirmation. Reading goes on
         * meanwhile, so that the child never stalls. */
        int at_once = next_random(&seed) % 5 == 0;
        if (!at_once && read(ends[0], &r, sizeof r) == sizeof r) {
            take(&r);
            confirmations++;
        }
        uint64_t end = now_us() + next_random(&seed) % (at_once ? 10000 : 40000);
        CHECK_EQ_INT(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
        while (now_us() < end) {
            ssize_t n = read(ends[0], &r, sizeof r);
            if (n == sizeof r) {
                take(&r);
                confirmations++;
            } else {
                CHECK(n != 0); /* the child ended by itself */
                struct timespec nap = {0, 50000};
                nanosleep(&nap, NULL);
            }
        }
        CHECK_EQ_INT(kill(pid, SIGKILL), 0);
        int status = join_status(pid);
        if (!WIFSIGNALED(status)) kvt_fail(__FILE__, __LINE__, "round %d: the child ended by itself: %x", round, status);
        while (read(ends[0], &r, sizeof r) == sizeof r) { /* what it managed to report still counts */
            take(&r);
            confirmations++;
        }
        close(ends[0]);
    }
    in_child(final_check, NULL);
    CHECK(confirmations > 0);
    fprintf(stderr, "%d kills, %lu batches confirmed\n", count, (unsigned long)confirmations);
}

TEST(ten_kills_with_fsync) { rounds(10, true, 1); }
TEST(ten_kills_without_fsync) { rounds(10, false, 1); }
TEST(ten_kills_with_fsync_and_three_writers) { rounds(10, true, 3); }
TEST(ten_kills_without_fsync_and_three_writers) { rounds(10, false, 3); }
TEST(ten_kills_without_fsync_in_small_chunks) { /* the next one is made ahead all the time */
    options = "?chunk_bytes=4m";
    rounds(10, false, 2);
}
SLOW_TEST(two_hundred_kills_with_fsync) { rounds(200, true, 2); }
SLOW_TEST(two_hundred_kills_without_fsync) { rounds(200, false, 2); }

/* Killed while it opens: recovery itself must be repeatable from any point. */
static void open_only(void *unused) {
    UNUSED(unused);
    manager_t *m = open_with(&config);
    put_one(m, "opened", "again");
    for (;;) pause();
}

TEST(kills_during_recovery) {
    config = kvt_config();
    writers = 1;
    uint64_t seed = now_us();
    rounds(3, false, 1);
    for (int i = 0; i < 30; i++) {
        pid_t pid = spawn(open_only, NULL);
        struct timespec nap = {0, (long)(next_random(&seed) % 20000000)};
        nanosleep(&nap, NULL);
        CHECK_EQ_INT(kill(pid, SIGKILL), 0);
        CHECK(WIFSIGNALED(join_status(pid)));
    }
    in_child(final_check, NULL);
}
