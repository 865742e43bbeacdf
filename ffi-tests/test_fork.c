/* test_fork.c: a child of a process that has started a manager gets a clear refusal and touches neither ring nor file; a process that
 * forks before its first start, as a daemon does, is not concerned. */
#include "kvtest.h"
#include <signal.h>
#include <sys/wait.h>

static manager_t *m;
static batch_t *b;

/* fork as a program does it. A child whose checks passed ends by a signal: were it to exit, a memory checker would call leaked
 * whatever only the stacks of the parent's threads pointed to. */
static void forked(void (*body)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        body();
        raise(SIGKILL);
    }
    int status = join_status(pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) kvt_fail(__FILE__, __LINE__, "the child ended with status %x", status);
}

static void everything_is_refused(void) {
    stats_t s;
    config_t c = kvt_config();
    CHECK_ERR(kv_async_batch_put(b, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_get(b, "k", 1, NULL, NULL, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_delete(b, "k", 1, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_wait(b, 0), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_cancel(b), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_get_stats(b, &s), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_reset_stats(b), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_print_stats(b, stderr), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_manager_stop(m), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_manager_get_stats(m, &s), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_async_batch_create(m, 1), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_async_batch_manager_create(NULL), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_async_batch_manager_create(&c), KV_ERR_INVALID_STATE);
}

static void parent_goes_on(void) {
    run(b);
    EXPECT(m, "before", "1");
    EXPECT(m, "pending", "2");
    put_one(m, "after", "3");
    EXPECT(m, "after", "3");
    close_manager(m);
    m = open_default();
    EXPECT(m, "pending", "2");
    EXPECT(m, "after", "3");
    close_manager(m);
}

static void start_parent(void) {
    m = open_default();
    put_one(m, "before", "1");
    b = new_batch(m, 10);
    add_put(b, "pending", "2");
}

/* What the parent's chunks hold when it has come to rest: a store that has been idle for a moment writes a beat, once. */
static uint64_t digest_at_rest(void) {
    uint64_t before, after = dir_digest(kvt_store(), "chunk");
    do {
        before = after;
        usleep(500000);
        after = dir_digest(kvt_store(), "chunk");
    } while (after != before);
    return after;
}

TEST(in_the_child_everything_is_refused) {
    start_parent();
    forked(everything_is_refused);
    parent_goes_on();
}

static void pure_functions_work(void) {
    config_t c = kv_async_batch_default_config();
    CHECK_EQ_INT(c.max_batch_size, 256);
    CHECK_EQ_STR(kv_async_batch_op_name(KV_ASYNC_BATCH_PUT), "PUT");
    CHECK_EQ_STR(kv_async_batch_status_name(KV_ASYNC_BATCH_FAILED), "FAILED");
    CHECK_EQ_STR(kv_get_error_name(KV_ERR_BUSY), "KV_ERR_BUSY");
    CHECK(kv_get_error_desc(KV_ERR_BUSY)[0] != 0);
    CHECK(kv_async_batch_get_timestamp_us() > 1000000);
    kv_clear_error();
    CHECK_EQ_INT(kv_get_last_error()->code, 0);
    KV_ERROR(KV_ERR_NET, "set in the child: %d", 7);
    CHECK_EQ_STR(kv_get_last_error()->message, "set in the child: 7");
}

TEST(in_the_child_pure_functions_work) {
    start_parent();
    forked(pure_functions_work);
    parent_goes_on();
}

static void destroy_all(void) {
    kv_async_batch_destroy(b);
    kv_async_batch_manager_destroy(m);
    kv_async_batch_destroy(b);
    kv_async_batch_manager_destroy(m);
}

TEST(in_the_child_destroy_frees_memory_and_touches_no_file) {
    start_parent();
    uint64_t before = digest_at_rest();
    forked(destroy_all);
    CHECK_EQ_INT(dir_digest(kvt_store(), "chunk"), before);
    parent_goes_on();
}

static void exiting_child(void) {
#ifdef __SANITIZE_ADDRESS__
    return; /* see forked */
#endif
    if (getenv("KV_RUNNER")) return;
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) exit(0); /* with whatever runs at exit */
    join(pid);
}

TEST(a_child_that_exits_leaves_the_parents_store_alone) {
    start_parent();
    uint64_t before = digest_at_rest();
    for (int i = 0; i < 5; i++) exiting_child();
    CHECK_EQ_INT(dir_digest(kvt_store(), "chunk"), before);
    parent_goes_on();
}

/* A third process, forked early, sees whether the parent still holds the lock after its child has gone. */
static int ask[2], answer[2];

static void witness(void *unused) {
    UNUSED(unused);
    char byte;
    manager_t *own = kv_async_batch_manager_create(NULL);
    CHECK(own != NULL);
    CHECK_EQ_INT(read(ask[0], &byte, 1), 1);
    CHECK_ERR(kv_async_batch_manager_start(own), KV_ERR_LOCK);
    CHECK_EQ_INT(write(answer[1], "x", 1), 1);
    CHECK_EQ_INT(read(ask[0], &byte, 1), 1);
    CHECK_OK(kv_async_batch_manager_start(own));
    EXPECT(own, "after", "3");
    close_manager(own);
}

TEST(the_parent_keeps_its_lock_when_the_child_ends) {
    CHECK_EQ_INT(pipe(ask) + pipe(answer), 0);
    pid_t pid = spawn(witness, NULL);
    start_parent();
    forked(destroy_all);
    exiting_child();
    char byte;
    CHECK_EQ_INT(write(ask[1], "x", 1), 1);
    CHECK_EQ_INT(read(answer[0], &byte, 1), 1);
    parent_goes_on();
    CHECK_EQ_INT(write(ask[1], "x", 1), 1);
    join(pid);
}

static hold_t hold = HOLD_INIT;
static done_t done = DONE_INIT;

static void refused_quickly(void) {
    CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_INVALID_STATE); /* and no waiting for threads that are not here */
    kv_async_batch_destroy(b);
    kv_async_batch_manager_destroy(m);
}

TEST(a_child_of_a_process_with_batches_in_flight_does_not_hang) {
    m = open_default();
    put_one(m, "before", "1");
    b = new_batch(m, 2);
    CHECK_OK(kv_async_batch_put(b, "pending", 7, "2", 1, on_op_hold, &hold));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&hold.entered, 1);
    forked(refused_quickly);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(done.calls, 1);
    kv_async_batch_destroy(b);
    EXPECT(m, "pending", "2");
    close_manager(m);
}

static atomic_int stop_work;
static void *work(void *arg) {
    char key[32];
    for (int i = 0; !stop_work; i++) {
        snprintf(key, sizeof key, "%s%d", (char *)arg, i % 100);
        put_one(m, key, key);
    }
    return NULL;
}

static void touch_everything(void) {
    everything_is_refused();
    destroy_all();
}

/* Whatever lock another thread holds at the moment of the fork: the child must not wait for it. */
TEST(children_forked_in_the_midst_of_work) {
    start_parent();
    pthread_t t[2] = {thread_start(work, "a"), thread_start(work, "b")};
    for (int i = 0; i < 50; i++) forked(touch_everything);
    stop_work = 1;
    for (int i = 0; i < 2; i++) thread_join(t[i]);
    parent_goes_on();
}

static void on_op_fork(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(unused);
    CHECK_CODE(result, KV_SUCCESS);
    forked(everything_is_refused);
}

TEST(forking_in_a_callback) {
    start_parent();
    batch_t *other = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(other, "x", 1, "y", 1, on_op_fork, NULL));
    run(other);
    parent_goes_on();
}

static void daemon_body(void *unused) {
    UNUSED(unused);
    m = open_default();
    put_one(m, "daemon", "works");
    EXPECT(m, "daemon", "works");
    close_manager(m);
}

TEST(forking_before_the_first_start_is_harmless) {
    config_t c = kvt_config();
    CHECK_OK(kv_async_batch_config_validate(&c));
    in_child(daemon_body, NULL);
    m = open_default(); /* and the parent itself may go on, too */
    EXPECT(m, "daemon", "works");
    close_manager(m);
}

static void start_inherited(void *unused) {
    UNUSED(unused);
    CHECK_OK(kv_async_batch_manager_start(m));
    run(b);
    EXPECT(m, "pending", "2");
    close_manager(m);
}

TEST(a_manager_created_before_the_fork_may_be_started_in_the_child) {
    m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    b = new_batch(m, 1);
    add_put(b, "pending", "2");
    in_child(start_inherited, NULL);
    CHECK_OK(kv_async_batch_manager_start(m)); /* this process's own copy knows nothing of that */
    EXPECT(m, "pending", "2");
    kv_async_batch_destroy(b);
    close_manager(m);
}

static void fork_twice(void *unused) {
    UNUSED(unused);
    in_child(daemon_body, NULL);
}

TEST(a_daemon_that_forks_twice) {
    in_child(fork_twice, NULL);
    daemon_body(NULL);
}

TEST(a_child_may_exec_a_program_that_uses_the_library) {
    start_parent();
    char program[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    CHECK(n > 0);
    program[n] = 0;
    if (strstr(program, "test_fork") == NULL) kvt_skip("runs under a tool that is its own program");
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        setenv("KVBATCH_STORE", "own-store", 1);
        execl(program, program, "forking_before_the_first_start_is_harmless", (char *)NULL);
        _exit(9);
    }
    join(pid);
    parent_goes_on();
}

static void in_memory_refused(void) {
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_async_batch_manager_create(NULL), KV_ERR_INVALID_STATE);
    destroy_all();
}

TEST(a_memory_store_is_no_exception) {
    setenv("KVBATCH_STORE", "memory:", 1);
    start_parent();
    forked(in_memory_refused);
    run(b);
    EXPECT(m, "pending", "2");
    close_manager(m);
}
