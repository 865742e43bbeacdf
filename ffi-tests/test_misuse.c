/* test_misuse.c: what programs do wrong with the library, or do to it: the rows of docs/MISUSE.md that no other file shows.
 * A refusal or a stated result each time; never a crash, a hang or a lost write. */
#include "kvtest.h"
#include <locale.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unwind.h>

/* ---- configurations ---- */
TEST(a_configuration_of_garbage) {
    uint64_t seed = 4;
    for (int i = 0; i < 2000; i++) {
        union { config_t config; unsigned char bytes[sizeof(config_t)]; } c;
        for (size_t k = 0; k < sizeof c; k++) c.bytes[k] = (unsigned char)(next_random(&seed) >> (i % 50));
        int code = kv_async_batch_config_validate(&c.config);
        CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM);
        memset(c.bytes + (i % 2 ? 0 : 8), 0, 8); /* no batch, or no memory */
        CHECK_ERR(kv_async_batch_config_validate(&c.config), KV_ERR_INVALID_PARAM);
        CHECK_NO_HANDLE(kv_async_batch_manager_create(&c.config), KV_ERR_INVALID_PARAM);
    }
}

/* ---- allocators ---- */
static atomic_int skew;          /* memory lies this far from where malloc would have it */
static atomic_size_t skewed_from; /* requests of so many bytes or more */
static void *skewed_alloc(size_t n) {
    char *p = counting_alloc(n + 32);
    if (!p) return NULL;
    int by = n >= skewed_from ? skew : 0;
    p += 16 + by;
    p[-1] = (char)by;
    return p;
}
static void skewed_free(void *p) {
    if (p) counting_free((char *)p - 16 - ((char *)p)[-1]);
}

TEST(an_allocator_that_misaligns_is_told_so) {
    config_t c = kvt_config();
    c.alloc_func = skewed_alloc;
    c.free_func = skewed_free;
    manager_t *m = open_with(&c);
    put_one(m, "k", "value");
    static char value[300000];
    put_mem(m, "long", 4, value, sizeof value);
    int skews[] = {1, 2, 4, 7, 15};
    for (size_t i = 0; i < 5; i++) {
        skew = skews[i];
        batch_t *b = kv_async_batch_create(m, 4); /* may take no memory yet */
        if (b) CHECK_ERR(kv_async_batch_put(b, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_PARAM);
        CHECK_EQ_INT(kvt_last(), KV_ERR_INVALID_PARAM);
        CHECK(strstr(kv_get_last_error()->message, "alloc_func") != NULL);
        skew = 0;
        kv_clear_error();
        if (!b) b = new_batch(m, 4);
        add_put(b, "k", "value"); /* the refused one left nothing behind */
        CHECK_EQ_INT(stats_of(b).total_operations, 1);
        skew = skews[i];
        int code = kv_async_batch_submit(b, NULL, NULL); /* may have all it needs */
        skew = 0;
        if (code != KV_SUCCESS) {
            CHECK_CODE(code, KV_ERR_INVALID_PARAM);
            CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
            submit(b);
        }
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        kv_async_batch_destroy(b);
        /* In the midst of the work: no place for the value that is read. */
        probe_t p = {0};
        b = new_batch(m, 1);
        add_get(b, "long", &p);
        skewed_from = sizeof value;
        skew = skews[i];
        CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
        CHECK_CODE(p.result, KV_ERR_INVALID_PARAM);
        skewed_from = skew = 0;
        kv_async_batch_destroy(b);
        EXPECT(m, "k", "value");
    }
    skew = 8; /* what many pools give is enough */
    put_one(m, "pool", "1");
    EXPECT(m, "pool", "1");
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

static manager_t *m;
static batch_t *from_within;
static atomic_int calls_from_within;
static void *calling_alloc(size_t n) {
    if (from_within) {
        batch_t *b = from_within;
        from_within = NULL;
        stats_t s;
        CHECK_ERR(kv_async_batch_put(b, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_STATE);
        CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
        CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_INVALID_STATE);
        CHECK_ERR(kv_async_batch_get_stats(b, &s), KV_ERR_INVALID_STATE);
        CHECK_ERR(kv_async_batch_manager_stop(m), KV_ERR_INVALID_STATE);
        CHECK_NO_HANDLE(kv_async_batch_create(m, 1), KV_ERR_INVALID_STATE);
        kv_async_batch_destroy(b); /* refused as well, or what follows would fail */
        kv_async_batch_manager_destroy(m);
        CHECK_EQ_STR(kv_async_batch_op_name(KV_ASYNC_BATCH_PUT), "PUT");
        calls_from_within++;
    }
    return counting_alloc(n);
}

TEST(an_allocator_that_calls_the_library_is_refused) {
    config_t c = counting_config();
    c.alloc_func = calling_alloc;
    m = open_with(&c);
    batch_t *b = new_batch(m, 1000);
    static char value[10000];
    from_within = b;
    for (int i = 0; i < 100; i++) CHECK_OK(kv_async_batch_put(b, "key", 3, value, sizeof value, NULL, NULL));
    CHECK_EQ_INT(calls_from_within, 1);
    run(b);
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

/* Why an allocator has to be ready for several threads at a time: it is called from more than one. */
static pthread_t main_thread;
static atomic_int calls_here, calls_elsewhere;
static void *watching_alloc(size_t n) {
    if (pthread_equal(pthread_self(), main_thread)) calls_here++;
    else calls_elsewhere++;
    return counting_alloc(n);
}

TEST(an_allocator_is_called_from_threads_of_the_library_too) {
    main_thread = pthread_self();
    config_t c = counting_config();
    c.alloc_func = watching_alloc;
    m = open_with(&c);
    static char value[5000];
    put_mem(m, "k", 1, value, sizeof value);
    for (int i = 0; calls_elsewhere == 0; i++) {
        done_t done = DONE_INIT;
        batch_t *b = new_batch(m, 1);
        add_get(b, "k", NULL);
        CHECK_OK(kv_async_batch_submit(b, on_done, &done));
        gate_wait(&done.gate, 1); /* this thread does not wait on the batch, so another does the work */
        kv_async_batch_destroy(b);
        CHECK(i < 1000);
    }
    CHECK(calls_here > 0);
    close_manager(m);
}

/* ---- callbacks that misbehave ---- */
static atomic_int stopped;
static void *stop_it(void *unused) {
    CHECK_OK(kv_async_batch_manager_stop(m));
    stopped = 1;
    return unused;
}

TEST(callbacks_that_block_hold_up_their_own_batches_only) {
    enum { BLOCKED = 40 };
    static hold_t hold = HOLD_INIT;
    m = open_default();
    batch_t *b[BLOCKED];
    for (int i = 0; i < BLOCKED; i++) {
        b[i] = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(b[i], "held", 4, "1", 1, on_op_hold, &hold));
        submit(b[i]);
    }
    gate_wait(&hold.entered, BLOCKED);
    char key[32];
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof key, "key%d", i);
        put_one(m, key, key);
        EXPECT(m, key, key);
    }
    for (int i = 0; i < BLOCKED; i++) CHECK_CODE(kv_async_batch_wait(b[i], 0), KV_ERR_TIMEOUT);
    pthread_t t = thread_start(stop_it, NULL);
    sleep_ms(50);
    CHECK_EQ_INT(stopped, 0);
    gate_open(&hold.leave);
    thread_join(t);
    for (int i = 0; i < BLOCKED; i++) {
        CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
        kv_async_batch_destroy(b[i]);
    }
    kv_async_batch_manager_destroy(m);
}

static pthread_mutex_t hosts_lock = PTHREAD_MUTEX_INITIALIZER;
static int under_the_lock;
static void on_op_lock(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(unused);
    CHECK_CODE(result, KV_SUCCESS);
    pthread_mutex_lock(&hosts_lock);
    under_the_lock++;
    pthread_mutex_unlock(&hosts_lock);
}

static void *submit_under_the_lock(void *unused) {
    for (int i = 0; i < 300; i++) {
        batch_t *b = new_batch(m, 2);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_lock, NULL));
        CHECK_OK(kv_async_batch_get(b, "k", 1, NULL, NULL, on_op_lock, NULL));
        for (;;) {
            pthread_mutex_lock(&hosts_lock);
            int code = kv_async_batch_submit(b, NULL, NULL);
            pthread_mutex_unlock(&hosts_lock);
            if (code == KV_SUCCESS) break;
            CHECK_CODE(code, KV_ERR_BUSY); /* and never a wait: the callbacks that would end it need the lock */
            sleep_ms(1);
        }
        if (i % 2) CHECK_OK(kv_async_batch_wait(b, FOREVER));
        kv_async_batch_destroy(b);
    }
    return unused;
}

TEST(a_lock_held_over_submit_may_be_taken_by_a_callback) {
    config_t c = kvt_config();
    c.max_concurrent_batches = 4;
    c.enable_batch_fsync = false;
    m = open_with(&c);
    pthread_t t[3];
    for (int i = 0; i < 3; i++) t[i] = thread_start(submit_under_the_lock, NULL);
    for (int i = 0; i < 3; i++) thread_join(t[i]);
    close_manager(m);
    CHECK_EQ_INT(under_the_lock, 3 * 300 * 2);
}

typedef void (*callback_t)(op_t *, int, void *);
static void drop_exception(_Unwind_Reason_Code reason, struct _Unwind_Exception *exception) {
    UNUSED(reason);
    UNUSED(exception);
}
static void on_op_throw(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(result);
    UNUSED(unused);
    static struct _Unwind_Exception exception = {.exception_class = 0x4b56544553540000, .exception_cleanup = drop_exception};
    _Unwind_RaiseException(&exception); /* as a C++ callback that throws */
}
static void on_op_exit_thread(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(result);
    UNUSED(unused);
    pthread_exit(NULL);
}

static void leaves_the_callback(void *callback) {
    CHECK(freopen("said", "w", stderr) != NULL);
    m = open_default();
    batch_t *b = new_batch(m, 1);
    done_t done = DONE_INIT;
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, *(callback_t *)callback, NULL));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&done.gate, 1);
}

/* The process ends with a message, and what was acknowledged is in the store. */
static void ends_with_a_message(callback_t callback) {
    int status = join_status(spawn(leaves_the_callback, &callback));
    CHECK(WIFSIGNALED(status));
    CHECK_EQ_INT(WTERMSIG(status), SIGABRT);
    size_t len;
    char *said = read_file("said", &len);
    CHECK(len > 0);
    free(said);
    m = open_default();
    put_one(m, "after", "1");
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(an_exception_that_leaves_a_callback_ends_the_process_with_a_message) { ends_with_a_message(on_op_throw); }
TEST(a_thread_that_exits_in_a_callback_ends_the_process_with_a_message) { ends_with_a_message(on_op_exit_thread); }

/* A locale with another decimal sign if there is one; else any but "C". */
static const char *another_locale(void) {
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "tr_TR.UTF-8", "en_US.UTF-8", "C.UTF-8", "C.utf8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (setlocale(LC_ALL, names[i])) return names[i];
    return NULL;
}

static atomic_int changed;
static const char *changed_to;
static void on_op_change_everything(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(unused);
    CHECK_CODE(result, KV_SUCCESS);
    errno = 4711;
    CHECK(setlocale(LC_ALL, changed_to) != NULL);
    CHECK_EQ_INT(chdir("/"), 0);
    umask(0777);
    changed++;
}

TEST(a_callback_may_change_errno_locale_directory_and_umask) {
    changed_to = another_locale();
    if (!changed_to) kvt_skip("there is no locale but C");
    CHECK(setlocale(LC_ALL, "C") != NULL);
    m = open_default();
    for (int i = 0; i < 50; i++) {
        CHECK(setlocale(LC_ALL, "C") != NULL);
        batch_t *b = new_batch(m, 2);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_change_everything, NULL));
        CHECK_OK(kv_async_batch_get(b, "k", 1, NULL, NULL, on_op_change_everything, NULL));
        errno = 77;
        CHECK_OK(run_code(b));
        CHECK_EQ_INT(errno, 77);
        CHECK_EQ_STR(setlocale(LC_ALL, NULL), changed_to); /* the program's business: it stays */
        kv_async_batch_destroy(b);
    }
    CHECK_EQ_INT(changed, 100);
    batch_t *b = new_batch(m, 1);
    char *text = printed_text(b);
    CHECK(strstr(text, "avg_latency_us: ") != NULL);
    CHECK(strchr(strstr(text, "avg_latency_us: "), '.') != NULL); /* numbers look the same in every locale */
    free(text);
    kv_async_batch_destroy(b);
    EXPECT(m, "k", "v");
    close_manager(m);
    umask(077);
    m = open_default();
    EXPECT(m, "k", "v");
    close_manager(m);
}

static atomic_int signals_seen;
static void on_signal(int number) {
    UNUSED(number);
    signals_seen++;
}
static void on_op_signal(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(unused);
    CHECK_CODE(result, KV_SUCCESS);
    if (!pthread_equal(pthread_self(), main_thread)) { /* a thread of the library: signals are not for it */
        sigset_t mask;
        CHECK_EQ_INT(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
        for (int number = 1; number < 32; number++)
            if (number != SIGKILL && number != SIGSTOP) CHECK_EQ_INT(sigismember(&mask, number), 1);
    }
    CHECK_EQ_INT(kill(getpid(), SIGUSR1), 0);
    CHECK_EQ_INT(raise(SIGUSR2), 0); /* to this very thread; one of the library's keeps it pending */
}

TEST(a_callback_may_raise_signals) {
    main_thread = pthread_self();
    struct sigaction action = {.sa_handler = on_signal};
    CHECK_EQ_INT(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQ_INT(sigaction(SIGUSR2, &action, NULL), 0);
    m = open_default();
    for (int i = 0; i < 20; i++) {
        done_t done = DONE_INIT;
        batch_t *b = new_batch(m, 2);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_signal, NULL));
        CHECK_OK(kv_async_batch_get(b, "k", 1, NULL, NULL, on_op_signal, NULL));
        CHECK_OK(kv_async_batch_submit(b, on_done, &done));
        if (i % 2) CHECK_OK(kv_async_batch_wait(b, FOREVER));
        else gate_wait(&done.gate, 1);
        kv_async_batch_destroy(b);
    }
    CHECK(signals_seen > 0);
    EXPECT(m, "k", "v");
    close_manager(m);
}

static atomic_int child;
static atomic_int callbacks_here;
static void on_op_fork_and_return(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(unused);
    CHECK_CODE(result, KV_SUCCESS);
    if (callbacks_here++ == 0) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid > 0) child = pid;
    } else if (child == 0) {
        _exit(99); /* the child went on */
    }
}

/* The child is a copy of a thread in the midst of work that the parent does: it ends where it would return to it. */
static void fork_and_return(bool waits) {
    m = open_default();
    for (int i = 0; i < 5; i++) {
        child = callbacks_here = 0;
        done_t done = DONE_INIT;
        batch_t *b = new_batch(m, 3), *behind = new_batch(m, 1);
        for (int k = 0; k < 3; k++) CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_fork_and_return, NULL));
        add_put(behind, "behind", "1");
        CHECK_OK(kv_async_batch_submit(b, on_done, &done));
        submit(behind);
        if (waits) CHECK_OK(kv_async_batch_wait(b, FOREVER));
        else gate_wait(&done.gate, 1);
        CHECK_EQ_INT(callbacks_here, 3);
        CHECK(child > 0);
        int status = join_status(child);
        CHECK(WIFEXITED(status));
        if (!getenv("KV_RUNNER")) CHECK_EQ_INT(WEXITSTATUS(status), 1); /* a memory checker has a code of its own */
        CHECK(WEXITSTATUS(status) != 99);
        CHECK_OK(kv_async_batch_wait(behind, FOREVER));
        CHECK_EQ_INT(done.calls, 1);
        kv_async_batch_destroy(behind);
        kv_async_batch_destroy(b);
    }
    close_manager(m);
    m = open_default();
    EXPECT(m, "k", "v");
    EXPECT(m, "behind", "1");
    close_manager(m);
}

TEST(a_child_that_returns_from_a_callback_is_ended) { fork_and_return(false); }
TEST(a_child_that_returns_from_a_callback_under_wait_is_ended) { fork_and_return(true); }

/* ---- submit and wait ---- */
TEST(a_cancelled_and_a_completed_batch_are_not_submitted_again) {
    m = open_default();
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    CHECK_OK(run_code(b));
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_COMPLETED);
    kv_async_batch_destroy(b);
    b = new_batch(m, 1);
    add_put(b, "never", "v");
    CHECK_OK(kv_async_batch_cancel(b));
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_CANCELLED);
    kv_async_batch_destroy(b);
    EXPECT_MISS(m, "never");
    close_manager(m);
}

TEST(a_program_that_ignores_busy_holds_no_more_memory) {
    enum { LIMIT = 4, WAITING = 64, ROUNDS = 500 };
    static hold_t hold = HOLD_INIT;
    config_t c = counting_config();
    c.max_concurrent_batches = LIMIT;
    m = open_with(&c);
    batch_t *held[LIMIT], *b[WAITING];
    for (int i = 0; i < LIMIT; i++) {
        held[i] = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(held[i], "held", 4, "1", 1, on_op_hold, &hold));
        submit(held[i]);
    }
    gate_wait(&hold.entered, LIMIT);
    atomic_int n = 0;
    for (int i = 0; i < WAITING; i++) {
        b[i] = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(b[i], "k", 1, "v", 1, on_op_count, &n));
    }
    long live = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < WAITING; i++) CHECK_CODE(kv_async_batch_submit(b[i], NULL, NULL), KV_ERR_BUSY);
        if (round == 0) live = alloc_live;
    }
    CHECK_EQ_INT(alloc_live, live);
    gate_open(&hold.leave);
    for (int left = WAITING; left > 0;) { /* in a tight loop, which must not keep others from ending */
        left = 0;
        for (int i = 0; i < WAITING; i++)
            if (kv_async_batch_get_status(b[i]) == ST_PENDING && kv_async_batch_submit(b[i], NULL, NULL) != KV_SUCCESS) left++;
    }
    for (int i = 0; i < WAITING; i++) {
        CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
        kv_async_batch_destroy(b[i]);
    }
    for (int i = 0; i < LIMIT; i++) kv_async_batch_destroy(held[i]);
    CHECK_EQ_INT(n, WAITING);
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

/* The clock on the wall may be set at any time; what the library asks for here passes through these. */
static atomic_long wall_off_s;
int clock_gettime(clockid_t clock, struct timespec *t) {
    int code = (int)syscall(SYS_clock_gettime, clock, t);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) t->tv_sec += wall_off_s;
    return code;
}

static atomic_int set_no_more;
static void *set_the_clock(void *unused) {
    for (uint64_t seed = 3; !set_no_more;) {
        wall_off_s = (long)(next_random(&seed) % 2000000) - 1000000;
        sleep_ms(1);
    }
    return unused;
}

TEST(a_clock_that_is_set_changes_no_wait) {
    static hold_t hold = HOLD_INIT;
    m = open_default();
    pthread_t t = thread_start(set_the_clock, NULL);
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(b);
    gate_wait(&hold.entered, 1);
    for (uint32_t ms = 1; ms <= 256; ms *= 4) {
        uint64_t start = now_us();
        CHECK_CODE(kv_async_batch_wait(b, ms), KV_ERR_TIMEOUT);
        CHECK(now_us() - start >= ms * 1000);
    }
    for (int i = 0; i < 50; i++) put_one(m, "others", "go on"); /* none is out of time */
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    kv_async_batch_destroy(b);
    set_no_more = 1;
    thread_join(t);
    wall_off_s = 0;
    close_manager(m);
}

/* ---- signals ---- */
static void on_alarm(int number) {
    int before = errno;
    UNUSED(number);
    /* What a handler may call: these look at their argument only. */
    if (strcmp(kv_async_batch_op_name(KV_ASYNC_BATCH_GET), "GET") != 0) _exit(98);
    if (strcmp(kv_async_batch_status_name(KV_ASYNC_BATCH_FAILED), "FAILED") != 0) _exit(98);
    if (strcmp(kv_get_error_name(KV_ERR_BUSY), "KV_ERR_BUSY") != 0) _exit(98);
    signals_seen++;
    errno = before;
}

static void *work_in_the_storm(void *name) {
    char key[40], value[40];
    for (int i = 0; i < 25; i++) {
        batch_t *b = new_batch(m, 200);
        probe_t p[100];
        memset(p, 0, sizeof p);
        for (int k = 0; k < 100; k++) {
            snprintf(key, sizeof key, "%s%d", (char *)name, k);
            snprintf(value, sizeof value, "%d-%d", i, k);
            add_put(b, key, value);
            add_get(b, key, &p[k]);
        }
        run(b);
        for (int k = 0; k < 100; k++) {
            snprintf(value, sizeof value, "%d-%d", i, k);
            CHECK_CODE(p[k].result, KV_SUCCESS);
            CHECK_EQ_STR(p[k].value, value);
        }
    }
    return NULL;
}

TEST(a_storm_of_signals_changes_nothing) {
    struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */
    CHECK_EQ_INT(sigaction(SIGALRM, &action, NULL), 0);
    long every_us = getenv("KV_RUNNER") ? 10000 : 100; /* a checker is too slow to get anywhere in between */
    struct itimerval timer = {{0, every_us}, {0, every_us}}, none = {{0, 0}, {0, 0}};
    CHECK_EQ_INT(setitimer(ITIMER_REAL, &timer, NULL), 0);
    m = open_default(); /* so that opening is in the storm, too */
    pthread_t t = thread_start(work_in_the_storm, "a");
    work_in_the_storm("b");
    pthread_join(t, NULL);
    close_manager(m);
    m = open_default();
    CHECK_EQ_INT(setitimer(ITIMER_REAL, &none, NULL), 0);
    CHECK(signals_seen > 10);
    EXPECT(m, "a99", "24-99");
    EXPECT(m, "b0", "24-0");
    close_manager(m);
}

/* ---- processes ---- */
static int ends[2], ready[2];

static void die_and_leave_a_child(void *unused) {
    UNUSED(unused);
    m = open_default();
    put_one(m, "k", "from one that died");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        char byte;
        close(ends[1]);
        if (write(ready[1], "x", 1) != 1) raise(SIGKILL);
        while (read(ends[0], &byte, 1) < 0) {} /* keeps all it has inherited open until the case ends */
        raise(SIGKILL);
    }
    char byte;
    CHECK_EQ_INT(read(ready[0], &byte, 1), 1);
    raise(SIGKILL);
}

TEST(a_child_that_outlives_its_parent_keeps_no_lock) {
    CHECK_EQ_INT(pipe(ends) + pipe(ready), 0);
    int status = join_status(spawn(die_and_leave_a_child, NULL));
    CHECK(WIFSIGNALED(status));
    CHECK_EQ_INT(WTERMSIG(status), SIGKILL);
    m = open_default();
    EXPECT(m, "k", "from one that died");
    put_one(m, "k", "from one that lives");
    EXPECT(m, "k", "from one that lives");
    close_manager(m);
}

enum { WRITERS = 3 };
typedef struct { atomic_int acknowledged[WRITERS]; int fsync, at_exit; } shared_t;
static shared_t *shared;

static void *write_on(void *number) {
    long writer = (long)number;
    for (int i = 1;; i++) {
        char key[32], value[32];
        snprintf(key, sizeof key, "w%ld-%d", writer, i % 50);
        snprintf(value, sizeof value, "%d", i);
        batch_t *b = kv_async_batch_create(m, 1), *behind = kv_async_batch_create(m, 1);
        if (!b || !behind) return NULL;
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, strlen(value), NULL, NULL));
        CHECK_OK(kv_async_batch_put(behind, "behind", 6, value, strlen(value), NULL, NULL));
        submit(b);
        submit(behind);
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        atomic_store(&shared->acknowledged[writer], i);
        kv_async_batch_destroy(b); /* `behind` may still be in flight when the next begins, and when the process ends */
        kv_async_batch_destroy(behind);
    }
}

static void end_at_work(void *unused) {
    UNUSED(unused);
    config_t c = kvt_config();
    c.enable_batch_fsync = shared->fsync;
    m = open_with(&c);
    for (long i = 0; i < WRITERS; i++) thread_start(write_on, (void *)i);
    for (int i = 0; i < WRITERS; i++)
        while (shared->acknowledged[i] < 20) sleep_ms(1);
    if (shared->at_exit) exit(0);
    _exit(0);
}

static void finds_it_all(void *unused) {
    UNUSED(unused);
    m = open_default();
    for (int w = 0; w < WRITERS; w++) {
        for (int k = 0; k < 50; k++) {
            char key[32];
            snprintf(key, sizeof key, "w%d-%d", w, k);
            char *value = get_one(m, key);
            int last = shared->acknowledged[w], newest = last - ((last % 50) - k + 50) % 50; /* acknowledged, to this key */
            if (newest > 0) CHECK(value && atoi(value) >= newest && atoi(value) <= last + 1);
            free(value);
        }
    }
    put_one(m, "after", "1");
    close_manager(m);
}

static void ends_at_work(int fsync, int at_exit) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    for (int round = 0; round < 3; round++) {
        memset(shared, 0, sizeof *shared);
        shared->fsync = fsync;
        shared->at_exit = at_exit;
        setenv("KVBATCH_STORE", round == 0 ? "one" : round == 1 ? "two" : "three", 1);
        join(spawn(end_at_work, NULL));
        in_child(finds_it_all, NULL);
    }
    munmap(shared, sizeof *shared);
}

TEST(exit_with_batches_in_flight_loses_nothing) { ends_at_work(1, 1); }
TEST(exit_with_batches_in_flight_loses_nothing_without_fsync) { ends_at_work(0, 1); }
TEST(underscore_exit_with_batches_in_flight_loses_nothing) { ends_at_work(1, 0); }
TEST(underscore_exit_with_batches_in_flight_loses_nothing_without_fsync) { ends_at_work(0, 0); }
