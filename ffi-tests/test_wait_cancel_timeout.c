/* test_wait_cancel_timeout.c: what wait says and when, cancelling in every state, back-pressure, and timeout_ms. A disk that hangs
 * on command (fake_disk.h) keeps batches in the queue. */
#include "fake_disk.h"
#include <signal.h>

/* ---- wait ---- */
TEST(waiting_for_what_was_not_submitted) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    CHECK_ERR(kv_async_batch_wait(b, 0), KV_ERR_INVALID_STATE);
    add_put(b, "k", "v");
    CHECK_ERR(kv_async_batch_wait(b, 0), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
    run(b);
    close_manager(m);
}

TEST(wait_gives_the_same_again_and_again) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    CHECK_OK(run_code(b));
    for (int i = 0; i < 10; i++) CHECK_OK(kv_async_batch_wait(b, i % 2 ? 0 : FOREVER));
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(wait_zero_polls_and_the_batch_goes_on) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(b);
    CHECK_CODE(kv_async_batch_wait(b, 0), KV_ERR_TIMEOUT); /* must not run the callback and hang in it */
    gate_wait(&hold.entered, 1);
    for (int i = 0; i < 100; i++) CHECK_CODE(kv_async_batch_wait(b, 0), KV_ERR_TIMEOUT);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    kv_async_batch_destroy(b);
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(polling_alone_sees_the_end) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    submit(b);
    int code;
    while ((code = kv_async_batch_wait(b, 0)) == KV_ERR_TIMEOUT) sleep_ms(1);
    CHECK_CODE(code, KV_SUCCESS);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(a_wait_with_a_limit_uses_it_up) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(b);
    gate_wait(&hold.entered, 1);
    uint64_t start = now_us();
    CHECK_ERR(kv_async_batch_wait(b, 60), KV_ERR_TIMEOUT);
    CHECK(now_us() - start >= 60000);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    kv_async_batch_destroy(b);
    close_manager(m);
}

typedef struct { batch_t *b; gate_t started; atomic_int ended; int code; } waiter_t;

static void *wait_in_thread(void *arg) {
    waiter_t *w = arg;
    gate_open(&w->started);
    int code = kv_async_batch_wait(w->b, FOREVER);
    CHECK_CODE(code, w->code);
    atomic_fetch_add(&w->ended, 1);
    return NULL;
}

TEST(many_threads_may_wait_before_and_after_the_end) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    waiter_t w = {.b = new_batch(m, 1), .started = GATE_INIT, .code = KV_SUCCESS};
    CHECK_OK(kv_async_batch_put(w.b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(w.b);
    gate_wait(&hold.entered, 1);
    pthread_t t[16];
    for (int i = 0; i < 8; i++) t[i] = thread_start(wait_in_thread, &w);
    gate_wait(&w.started, 8);
    sleep_ms(20);
    CHECK_EQ_INT(w.ended, 0);
    gate_open(&hold.leave);
    for (int i = 8; i < 16; i++) t[i] = thread_start(wait_in_thread, &w);
    for (int i = 0; i < 16; i++) thread_join(t[i]);
    CHECK_EQ_INT(w.ended, 16);
    kv_async_batch_destroy(w.b);
    close_manager(m);
}

static atomic_int signals;
static void count_signal(int number) {
    UNUSED(number);
    atomic_fetch_add(&signals, 1);
}

TEST(signals_do_not_end_a_wait) {
    struct sigaction action = {.sa_handler = count_signal};
    CHECK_EQ_INT(sigaction(SIGUSR1, &action, NULL), 0);
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    waiter_t w = {.b = new_batch(m, 1), .started = GATE_INIT, .code = KV_SUCCESS};
    CHECK_OK(kv_async_batch_put(w.b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(w.b);
    gate_wait(&hold.entered, 1);
    pthread_t t = thread_start(wait_in_thread, &w);
    gate_wait(&w.started, 1);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ_INT(pthread_kill(t, SIGUSR1), 0);
        if (i % 20 == 0) sleep_ms(1);
    }
    while (signals == 0) sleep_ms(1);
    CHECK_EQ_INT(w.ended, 0);
    gate_open(&hold.leave);
    thread_join(t);
    kv_async_batch_destroy(w.b);
    close_manager(m);
}

/* A failed batch: its GET's value is too large for the allocator. */
static batch_t *failed_batch(manager_t *m) {
    static char bytes[200000];
    memset(bytes, 'x', sizeof bytes);
    put_mem(m, "big", 3, bytes, sizeof bytes);
    batch_t *b = new_batch(m, 2);
    add_get(b, "big", NULL);
    alloc_fail_size = 150000;
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    alloc_fail_size = 0;
    return b;
}

TEST(waiting_for_a_failed_batch) {
    config_t c = counting_config();
    manager_t *m = open_with(&c);
    batch_t *b = failed_batch(m);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_FAILED);
    CHECK_ERR(kv_async_batch_wait(b, 0), KV_ERR_BATCH_FAILED);
    CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_BATCH_FAILED);
    CHECK_OK(kv_async_batch_cancel(b)); /* ended: nothing changes */
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_FAILED);
    kv_async_batch_destroy(b);
    close_manager(m);
}

/* ---- cancel and destroy ---- */
TEST(cancelling_a_pending_batch) {
    manager_t *m = open_default();
    probe_t p = {0};
    batch_t *b = new_batch(m, 2);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op, &p));
    CHECK_OK(kv_async_batch_cancel(b));
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_CANCELLED);
    CHECK_OK(kv_async_batch_cancel(b)); /* once more changes nothing */
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_CODE(kv_async_batch_wait(b, FOREVER), KV_ERR_CANCELLED);
    kv_async_batch_destroy(b);
    CHECK_EQ_INT(p.calls, 0); /* it was never begun */
    EXPECT_MISS(m, "k");
    close_manager(m);
    CHECK_EQ_INT(p.calls, 0);
}

TEST(cancelling_an_empty_pending_batch) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 2);
    CHECK_OK(kv_async_batch_cancel(b));
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_CANCELLED);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(cancelling_a_completed_batch_changes_nothing) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    CHECK_OK(run_code(b));
    CHECK_OK(kv_async_batch_cancel(b));
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_COMPLETED);
    CHECK_OK(kv_async_batch_wait(b, 0));
    kv_async_batch_destroy(b);
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(cancelling_what_is_being_executed_is_too_late) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(b);
    gate_wait(&hold.entered, 1);
    CHECK_ERR(kv_async_batch_cancel(b), KV_ERR_BUSY);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    kv_async_batch_destroy(b);
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(destroying_a_pending_batch_drops_it_without_callbacks) {
    manager_t *m = open_default();
    probe_t p = {0};
    for (int i = 0; i < 10; i++) {
        batch_t *b = new_batch(m, 2);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op, &p));
        kv_async_batch_destroy(b);
    }
    EXPECT_MISS(m, "k");
    close_manager(m);
    CHECK_EQ_INT(p.calls, 0);
}

static void *destroy_it(void *b) {
    kv_async_batch_destroy(b);
    return NULL;
}

TEST(destroying_a_batch_in_flight_waits_for_its_end) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&hold.entered, 1);
    pthread_t t = thread_start(destroy_it, b);
    sleep_ms(30); /* gives a wrong destroy the chance to pull the batch away */
    CHECK_EQ_INT(done.calls, 0);
    gate_open(&hold.leave);
    thread_join(t);
    CHECK_EQ_INT(done.calls, 1);
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(destroying_right_after_submit) {
    config_t c = counting_config();
    c.enable_batch_fsync = false;
    manager_t *m = open_with(&c);
    atomic_int n = 0;
    for (int i = 0; i < 1000; i++) {
        batch_t *b = new_batch(m, 2);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_count, &n));
        CHECK_OK(kv_async_batch_get(b, "k", 1, NULL, NULL, on_op_count, &n));
        submit(b);
        kv_async_batch_destroy(b);
        CHECK_EQ_INT(n, 2 * (i + 1));
    }
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

/* ---- the queue behind a disk that hangs ---- */
enum { QUEUED = 40, VALUE = 600000 };
static batch_t *queued[QUEUED];
static probe_t queued_ops[QUEUED][2];
static done_t queued_done[QUEUED];
static manager_t *stuck_manager;

static void fill_the_queue(config_t c) {
    static char bytes[VALUE];
    memset(bytes, 'q', sizeof bytes);
    stuck_manager = open_with(&c);
    put_one(stuck_manager, "before", "1");
    disk_write.stuck = disk_sync.stuck = 1;
    for (int i = 0; i < QUEUED; i++) {
        char key[32];
        snprintf(key, sizeof key, "q%d", i);
        queued_done[i] = (done_t)DONE_INIT;
        queued[i] = new_batch(stuck_manager, 2);
        CHECK_OK(kv_async_batch_put(queued[i], key, strlen(key), bytes, VALUE, on_op, &queued_ops[i][0]));
        CHECK_OK(kv_async_batch_get(queued[i], key, strlen(key), NULL, NULL, on_op, &queued_ops[i][1]));
        CHECK_OK(kv_async_batch_submit(queued[i], on_done, &queued_done[i])); /* never waits for the disk */
    }
    while (disk_write.waiting + disk_sync.waiting == 0) sleep_ms(1);
}

/* A batch has either done all of its work or none; `code` is what it gets in the second case. */
static int check_queued(int i, int code) {
    char key[32];
    snprintf(key, sizeof key, "q%d", i);
    CHECK_EQ_INT(queued_done[i].calls, 1);
    CHECK_EQ_INT(queued_ops[i][0].calls, 1);
    CHECK_EQ_INT(queued_ops[i][1].calls, 1);
    CHECK(queued_ops[i][0].turn < queued_ops[i][1].turn && queued_ops[i][1].turn < queued_done[i].turn);
    CHECK_CODE(queued_ops[i][1].result, queued_ops[i][0].result);
    char *seen = get_one(stuck_manager, key);
    int done = queued_ops[i][0].result == KV_SUCCESS;
    if (done) {
        CHECK_EQ_INT(queued_done[i].completed, 2);
        CHECK(seen && strlen(seen) == VALUE);
    } else {
        CHECK_CODE(queued_ops[i][0].result, code);
        CHECK_EQ_INT(queued_done[i].failed, 2);
        CHECK_EQ_INT(queued_done[i].completed, 0);
        CHECK(seen == NULL);
    }
    free(seen);
    return done;
}

TEST(cancelling_queued_batches_behind_a_stuck_disk) {
    config_t c = kvt_config();
    c.timeout_ms = 1000000;
    fill_the_queue(c);
    int cancelled[QUEUED], n = 0;
    for (int i = QUEUED - 1; i >= 0; i--) {
        int code = kv_async_batch_cancel(queued[i]);
        CHECK(code == KV_SUCCESS || code == KV_ERR_BUSY);
        cancelled[i] = code == KV_SUCCESS;
        n += cancelled[i];
        if (cancelled[i]) { /* its end does not wait for the disk */
            CHECK_CODE(kv_async_batch_wait(queued[i], FOREVER), KV_ERR_CANCELLED);
            CHECK_EQ_INT(kv_async_batch_get_status(queued[i]), ST_CANCELLED);
            CHECK_EQ_INT(queued_done[i].calls, 1);
        }
    }
    CHECK(n > 0);
    CHECK(n < QUEUED); /* at least the one that hangs was past cancelling */
    heal(&disk_write);
    heal(&disk_sync);
    for (int i = 0; i < QUEUED; i++) CHECK_CODE(kv_async_batch_wait(queued[i], FOREVER), cancelled[i] ? KV_ERR_CANCELLED : KV_SUCCESS);
    for (int i = 0; i < QUEUED; i++) CHECK_EQ_INT(check_queued(i, KV_ERR_CANCELLED), !cancelled[i]);
    stats_t s = manager_stats(stuck_manager);
    CHECK_EQ_INT(s.cancelled_operations, 2 * n);
    CHECK_EQ_INT(s.failed_operations, 0);
    CHECK_EQ_INT(s.active_batches, 0);
    close_manager(stuck_manager);
    stuck_manager = open_with(&c);
    for (int i = 0; i < QUEUED; i++) CHECK_EQ_INT(check_queued(i, KV_ERR_CANCELLED), !cancelled[i]); /* after a reopening, too */
    close_manager(stuck_manager);
}

TEST(cancelled_batches_make_room_for_others) {
    config_t c = kvt_config();
    c.timeout_ms = 1000000;
    c.max_concurrent_batches = QUEUED;
    fill_the_queue(c);
    batch_t *late = new_batch(stuck_manager, 1);
    add_put(late, "late", "1");
    CHECK_ERR(kv_async_batch_submit(late, NULL, NULL), KV_ERR_BUSY);
    CHECK_OK(kv_async_batch_cancel(queued[QUEUED - 1]));
    CHECK_CODE(kv_async_batch_wait(queued[QUEUED - 1], FOREVER), KV_ERR_CANCELLED);
    CHECK_OK(kv_async_batch_submit(late, NULL, NULL));
    heal(&disk_write);
    heal(&disk_sync);
    CHECK_OK(kv_async_batch_wait(late, FOREVER));
    close_manager(stuck_manager);
}

TEST(timeout_ms_fails_what_nobody_has_begun) {
    config_t c = kvt_config();
    c.timeout_ms = 150;
    fill_the_queue(c);
    int n = 0;
    while (n == 0) { /* comes while the disk still hangs, though nobody waits for these batches */
        sleep_ms(5);
        for (int i = 0; i < QUEUED; i++) n += queued_done[i].calls;
    }
    heal(&disk_write);
    heal(&disk_sync);
    int failed = 0;
    for (int i = 0; i < QUEUED; i++) {
        int code = kv_async_batch_wait(queued[i], FOREVER);
        CHECK(code == KV_SUCCESS || code == KV_ERR_BATCH_FAILED);
        CHECK_EQ_INT(kv_async_batch_get_status(queued[i]), code == KV_SUCCESS ? ST_COMPLETED : ST_FAILED);
        CHECK_EQ_INT(check_queued(i, KV_ERR_TIMEOUT), code == KV_SUCCESS);
        failed += code != KV_SUCCESS;
    }
    CHECK(failed > 0 && failed < QUEUED);
    CHECK_EQ_INT(manager_stats(stuck_manager).failed_batches, failed);
    put_one(stuck_manager, "after", "1"); /* nothing is broken */
    EXPECT(stuck_manager, "after", "1");
    close_manager(stuck_manager);
}

TEST(timeout_ms_does_not_touch_what_is_being_executed) {
    config_t c = kvt_config();
    c.timeout_ms = 50;
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    disk_write.stuck = disk_sync.stuck = 1;
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    submit(b);
    while (disk_write.waiting + disk_sync.waiting == 0) sleep_ms(1);
    CHECK_CODE(kv_async_batch_wait(b, 200), KV_ERR_TIMEOUT); /* the wait's own limit */
    CHECK_ERR(kv_async_batch_cancel(b), KV_ERR_BUSY);
    heal(&disk_write);
    heal(&disk_sync);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    kv_async_batch_destroy(b);
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(a_slow_callback_is_no_timeout) {
    config_t c = kvt_config();
    c.timeout_ms = 20;
    manager_t *m = open_with(&c);
    hold_t hold = HOLD_INIT;
    probe_t p = {0};
    batch_t *b = new_batch(m, 2);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    CHECK_OK(kv_async_batch_put(b, "l", 1, "w", 1, on_op, &p));
    submit(b);
    gate_wait(&hold.entered, 1);
    sleep_ms(100);
    gate_open(&hold.leave);
    int code = kv_async_batch_wait(b, FOREVER);
    CHECK_CODE(p.result, KV_SUCCESS);
    CHECK_CODE(code, KV_SUCCESS);
    kv_async_batch_destroy(b);
    close_manager(m);
}

/* ---- back-pressure ---- */
TEST(more_than_max_concurrent_batches_are_busy_and_stay_pending) {
    config_t c = kvt_config();
    c.max_concurrent_batches = 2;
    manager_t *m = open_with(&c);
    hold_t hold = HOLD_INIT;
    done_t done = DONE_INIT;
    batch_t *a = new_batch(m, 1), *b = new_batch(m, 1), *late = new_batch(m, 2);
    CHECK_OK(kv_async_batch_put(a, "a", 1, "1", 1, on_op_hold, &hold));
    CHECK_OK(kv_async_batch_put(b, "b", 1, "2", 1, on_op_hold, &hold));
    submit(a);
    submit(b);
    add_put(late, "late", "3");
    for (int i = 0; i < 10; i++) {
        CHECK_ERR(kv_async_batch_submit(late, on_done, &done), KV_ERR_BUSY);
        CHECK_EQ_INT(kv_async_batch_get_status(late), ST_PENDING);
    }
    add_put(late, "more", "4"); /* pending: can still be filled */
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(a, FOREVER));
    CHECK_OK(kv_async_batch_submit(late, on_done, &done)); /* a's place is free as soon as wait has returned */
    CHECK_OK(kv_async_batch_wait(late, FOREVER));
    CHECK_EQ_INT(done.calls, 1);
    CHECK_EQ_INT(done.completed, 2);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    EXPECT(m, "late", "3");
    EXPECT(m, "more", "4");
    close_manager(m);
}

static void on_op_submit_late(op_t *op, int result, void *late) {
    UNUSED(op);
    UNUSED(result);
    CHECK_ERR(kv_async_batch_submit(late, NULL, NULL), KV_ERR_BUSY);
}

TEST(a_batch_is_in_flight_until_its_last_callback_has_returned) {
    config_t c = kvt_config();
    c.max_concurrent_batches = 1;
    manager_t *m = open_with(&c);
    batch_t *b = new_batch(m, 1), *late = new_batch(m, 1);
    add_put(late, "late", "1");
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_submit_late, late));
    CHECK_OK(run_code(b));
    CHECK_OK(run_code(late));
    EXPECT(m, "late", "1");
    close_manager(m);
}

TEST(each_manager_of_a_store_has_its_own_limit) {
    config_t c = kvt_config();
    c.max_concurrent_batches = 1;
    manager_t *m = open_with(&c), *other = open_with(&c);
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(m, 1), *refused = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(b);
    add_put(refused, "x", "1");
    CHECK_ERR(kv_async_batch_submit(refused, NULL, NULL), KV_ERR_BUSY);
    put_one(other, "y", "2");
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    EXPECT(other, "y", "2");
    close_manager(m);
    close_manager(other);
}
