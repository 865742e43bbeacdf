/* test_callbacks.c: one callback per operation, in order, then the completion callback, exactly once each, whatever happens.
 * What a callback may do: test_reentrancy.c. */
#include "kvtest.h"

TEST(each_callback_once_in_order_and_the_completion_last) {
    manager_t *m = open_default();
    for (int round = 0; round < 20; round++) {
        static probe_t p[300];
        memset(p, 0, sizeof p);
        done_t done = DONE_INIT;
        batch_t *b = new_batch(m, 300);
        for (int i = 0; i < 300; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", i / 4); /* keys repeat: deduplication must not swallow callbacks */
            if (i % 4 == 2) CHECK_OK(kv_async_batch_get(b, key, strlen(key), NULL, NULL, on_op, &p[i]));
            else if (i % 4 == 3) CHECK_OK(kv_async_batch_delete(b, key, strlen(key), on_op, &p[i]));
            else CHECK_OK(kv_async_batch_put(b, key, strlen(key), "v", 1, on_op, &p[i]));
        }
        CHECK_OK(kv_async_batch_submit(b, on_done, &done));
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        for (int i = 0; i < 300; i++) {
            CHECK_EQ_INT(p[i].calls, 1);
            if (i) CHECK(p[i].turn > p[i - 1].turn);
        }
        CHECK_EQ_INT(done.calls, 1);
        CHECK(done.turn > p[299].turn);
        CHECK_EQ_INT(done.completed, 300);
        CHECK_EQ_INT(done.failed, 0);
        CHECK(done.batch == b);
        kv_async_batch_destroy(b);
        CHECK_EQ_INT(done.calls, 1);
    }
    close_manager(m);
}

TEST(callbacks_come_though_nobody_waits) {
    manager_t *m = open_default();
    probe_t p = {0};
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op, &p));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&done.gate, 1);
    CHECK_EQ_INT(p.calls, 1);
    CHECK(p.turn < done.turn);
    CHECK(!pthread_equal(done.thread, pthread_self()));
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(what_a_put_callback_sees) {
    manager_t *m = open_default();
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "the key", 7, "the value", 9, on_op, &p));
    run(b);
    CHECK_EQ_INT(p.type, KV_ASYNC_BATCH_PUT);
    CHECK_EQ_MEM(p.key, p.key_len, "the key", 7);
    CHECK_CODE(p.result, KV_SUCCESS);
    CHECK_CODE(p.stored_result, KV_SUCCESS);
    CHECK(p.user_data == &p);
    close_manager(m);
}

TEST(what_a_get_callback_sees) {
    manager_t *m = open_default();
    put_one(m, "the key", "the value");
    probe_t hit = {0}, miss = {0};
    batch_t *b = new_batch(m, 2);
    add_get(b, "the key", &hit);
    add_get(b, "no key", &miss);
    run(b);
    CHECK_EQ_INT(hit.type, KV_ASYNC_BATCH_GET);
    CHECK_EQ_MEM(hit.key, hit.key_len, "the key", 7);
    CHECK_EQ_MEM(hit.value, hit.value_len, "the value", 9);
    CHECK(hit.ends_in_nul);
    CHECK_CODE(hit.result, KV_SUCCESS);
    CHECK_CODE(hit.stored_result, KV_SUCCESS);
    CHECK(hit.user_data == &hit);
    CHECK_CODE(miss.result, KV_ERR_KEY_NOT_FOUND);
    CHECK_EQ_INT(miss.has_value, 0);
    CHECK_EQ_INT(miss.value_len, 0);
    CHECK_EQ_MEM(miss.key, miss.key_len, "no key", 6);
    close_manager(m);
}

TEST(what_a_delete_callback_sees) {
    manager_t *m = open_default();
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_delete(b, "gone", 4, on_op, &p));
    run(b);
    CHECK_EQ_INT(p.type, KV_ASYNC_BATCH_DELETE);
    CHECK_EQ_MEM(p.key, p.key_len, "gone", 4);
    CHECK_CODE(p.result, KV_SUCCESS);
    CHECK(p.user_data == &p);
    close_manager(m);
}

TEST(null_callbacks_everywhere) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 3);
    add_put(b, "a", "1");
    add_get(b, "a", NULL);
    add_delete(b, "b");
    CHECK_OK(kv_async_batch_submit(b, NULL, (void *)"unused"));
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(only_some_operations_have_a_callback) {
    manager_t *m = open_default();
    static probe_t p[50];
    batch_t *b = new_batch(m, 100);
    for (int i = 0; i < 100; i++) CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, i % 2 ? on_op : NULL, i % 2 ? &p[i / 2] : NULL));
    run(b);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ_INT(p[i].calls, 1);
        if (i) CHECK(p[i].turn > p[i - 1].turn);
    }
    close_manager(m);
}

static atomic_int null_data_calls;
static void on_op_null_data(op_t *op, int result, void *user_data) {
    CHECK(user_data == NULL && op->user_data == NULL);
    CHECK_CODE(result, KV_SUCCESS);
    atomic_fetch_add(&null_data_calls, 1);
}

static void on_done_null_data(batch_t *b, size_t completed, size_t failed, void *user_data) {
    CHECK(b != NULL && user_data == NULL && completed == 1 && failed == 0);
    atomic_fetch_add(&null_data_calls, 1);
}

TEST(user_data_may_be_null) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_null_data, NULL));
    CHECK_OK(kv_async_batch_submit(b, on_done_null_data, NULL));
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(null_data_calls, 2);
    kv_async_batch_destroy(b);
    close_manager(m);
}

static void on_op_lock(op_t *op, int result, void *lock) {
    UNUSED(op);
    UNUSED(result);
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
}

/* The caller may hold a lock that its callbacks take: a callback run inside submit would deadlock here. */
TEST(submit_never_runs_a_callback) {
    manager_t *m = open_default();
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    for (int i = 0; i < 50; i++) {
        batch_t *b = new_batch(m, 3);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_lock, &lock));
        CHECK_OK(kv_async_batch_get(b, "k", 1, NULL, NULL, on_op_lock, &lock));
        pthread_mutex_lock(&lock);
        submit(b);
        pthread_mutex_unlock(&lock);
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        kv_async_batch_destroy(b);
    }
    close_manager(m);
}

TEST(wait_returns_after_the_last_callback_has_returned) {
    manager_t *m = open_default();
    for (int i = 0; i < 100; i++) {
        atomic_int n = 0;
        done_t done = DONE_INIT;
        batch_t *b = new_batch(m, 10);
        for (int k = 0; k < 10; k++) CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_count, &n));
        CHECK_OK(kv_async_batch_submit(b, on_done, &done));
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        CHECK_EQ_INT(n, 10);
        CHECK_EQ_INT(done.calls, 1);
        kv_async_batch_destroy(b);
    }
    close_manager(m);
}

static void *wait_for_it(void *b) {
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    return NULL;
}

TEST(wait_does_not_return_while_a_callback_runs) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    submit(b);
    gate_wait(&hold.entered, 1); /* so another thread than ours is in it */
    CHECK_EQ_INT(kv_async_batch_wait(b, 0), KV_ERR_TIMEOUT);
    CHECK_EQ_INT(kv_async_batch_wait(b, 20), KV_ERR_TIMEOUT);
    gate_open(&hold.leave);
    wait_for_it(b);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(callbacks_of_one_batch_never_overlap) {
    manager_t *m = open_default();
    for (int round = 0; round < 20; round++) {
        hold_t hold = HOLD_INIT;
        probe_t second = {0};
        batch_t *b = new_batch(m, 2);
        CHECK_OK(kv_async_batch_put(b, "a", 1, "1", 1, on_op_hold, &hold));
        CHECK_OK(kv_async_batch_put(b, "b", 1, "2", 1, on_op, &second));
        submit(b);
        gate_wait(&hold.entered, 1);
        CHECK_CODE(kv_async_batch_wait(b, 1), KV_ERR_TIMEOUT); /* a waiter does not take over the second one */
        CHECK_EQ_INT(second.calls, 0);
        gate_open(&hold.leave);
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        CHECK_EQ_INT(second.calls, 1);
        kv_async_batch_destroy(b);
    }
    close_manager(m);
}

TEST(the_value_stays_readable_after_the_callback_until_destroy) {
    manager_t *m = open_default();
    put_one(m, "k", "kept");
    char *value = NULL;
    size_t len = 0;
    atomic_int n = 0;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_get(b, "k", 1, &value, &len, on_op_count, &n));
    CHECK_OK(run_code(b));
    CHECK_EQ_INT(n, 1);
    put_one(m, "k", "replaced by another batch");
    CHECK_EQ_MEM(value, len, "kept", 4);
    kv_async_batch_destroy(b);
    close_manager(m);
}
