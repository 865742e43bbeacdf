/* test_wait_cancel_timeout.c: what wait says and when, cancelling in every state, back-pressure, and that slow callbacks
 * are no timeout. Batches in the queue: test_stuck_disk.c. */
#include "kvtest.h"
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

/* ---- timeout_ms (for what waits in the queue: test_stuck_disk.c) ---- */
/* On a slow machine a batch may time out before anybody takes it: then once more, with more time. */
TEST(a_slow_callback_is_no_timeout) {
    for (uint32_t timeout = 50;; timeout *= 4) {
        config_t c = kvt_config();
        c.timeout_ms = timeout;
        manager_t *m = open_with(&c);
        hold_t hold = HOLD_INIT;
        probe_t first = {0}, last = {0};
        batch_t *b = new_batch(m, 3);
        CHECK_OK(kv_async_batch_put(b, "j", 1, "u", 1, on_op, &first));
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
        CHECK_OK(kv_async_batch_put(b, "l", 1, "w", 1, on_op, &last));
        submit(b);
        gate_wait(&hold.entered, 1);
        int begun = first.result != KV_ERR_TIMEOUT;
        if (begun) sleep_ms((long)timeout + 50);
        gate_open(&hold.leave);
        int code = kv_async_batch_wait(b, FOREVER);
        if (begun) {
            CHECK_CODE(last.result, KV_SUCCESS);
            CHECK_CODE(code, KV_SUCCESS);
        }
        kv_async_batch_destroy(b);
        close_manager(m);
        if (begun) break;
    }
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
