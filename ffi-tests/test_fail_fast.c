/* test_fail_fast.c: with fail_fast a batch is all or nothing; without it the other operations take effect. The operation that fails
 * is a GET whose value the batch's allocator will not hold. */
#include "kvtest.h"

enum { BIG = 300000, LIMIT = 250000 };

/* A store with a value that is too big, a small one, and one to delete. */
static manager_t *prepared(bool fail_fast) {
    static char bytes[BIG];
    config_t c = counting_config();
    c.fail_fast = fail_fast;
    manager_t *m = open_with(&c);
    memset(bytes, 'b', sizeof bytes);
    put_mem(m, "big", 3, bytes, BIG);
    put_one(m, "small", "s");
    put_one(m, "doomed", "still here");
    return m;
}

enum { OPS = 6 };
static probe_t p[OPS];
static done_t done;

static batch_t *mixed_batch(manager_t *m) {
    memset(p, 0, sizeof p);
    done = (done_t)DONE_INIT;
    batch_t *b = new_batch(m, OPS);
    CHECK_OK(kv_async_batch_put(b, "first", 5, "1", 1, on_op, &p[0]));
    add_get(b, "small", &p[1]);
    add_get(b, "big", &p[2]);
    CHECK_OK(kv_async_batch_delete(b, "doomed", 6, on_op, &p[3]));
    add_get(b, "nobody", &p[4]);
    CHECK_OK(kv_async_batch_put(b, "last", 4, "2", 1, on_op, &p[5]));
    return b;
}

static int run_short_of_memory(batch_t *b) {
    alloc_fail_size = LIMIT;
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    int code = kv_async_batch_wait(b, FOREVER);
    alloc_reset();
    for (int i = 0; i < OPS; i++) {
        CHECK_EQ_INT(p[i].calls, 1);
        CHECK_EQ_INT(p[i].result, p[i].stored_result);
        if (i) CHECK(p[i].turn > p[i - 1].turn);
    }
    CHECK_EQ_INT(done.calls, 1);
    CHECK_EQ_INT(done.completed + done.failed, OPS);
    return code;
}

TEST(with_it_one_failure_fails_all_and_nothing_is_written) {
    manager_t *m = prepared(true);
    batch_t *b = mixed_batch(m);
    CHECK_CODE(run_short_of_memory(b), KV_ERR_BATCH_FAILED);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_FAILED);
    for (int i = 0; i < OPS; i++) CHECK_CODE(p[i].result, i == 2 ? KV_ERR_MEM : KV_ERR_BATCH_FAILED);
    CHECK_EQ_INT(done.completed, 0);
    CHECK_EQ_INT(done.failed, OPS);
    CHECK_EQ_INT(stats_of(b).failed_operations, OPS);
    kv_async_batch_destroy(b);
    for (int reopened = 0; reopened < 2; reopened++) {
        EXPECT_MISS(m, "first");
        EXPECT_MISS(m, "last");
        EXPECT(m, "doomed", "still here");
        close_manager(m);
        m = open_default();
    }
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

TEST(without_it_the_others_take_effect) {
    manager_t *m = prepared(false);
    batch_t *b = mixed_batch(m);
    CHECK_CODE(run_short_of_memory(b), KV_ERR_BATCH_FAILED);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_FAILED);
    static const int wanted[OPS] = {KV_SUCCESS, KV_SUCCESS, KV_ERR_MEM, KV_SUCCESS, KV_ERR_KEY_NOT_FOUND, KV_SUCCESS};
    for (int i = 0; i < OPS; i++) CHECK_CODE(p[i].result, wanted[i]);
    CHECK_EQ_STR(p[1].value, "s");
    CHECK_EQ_INT(done.completed, OPS - 1);
    CHECK_EQ_INT(done.failed, 1);
    kv_async_batch_destroy(b);
    for (int reopened = 0; reopened < 2; reopened++) {
        EXPECT(m, "first", "1");
        EXPECT(m, "last", "2");
        EXPECT_MISS(m, "doomed");
        close_manager(m);
        m = open_default();
    }
    close_manager(m);
}

TEST(a_miss_is_no_failure) {
    manager_t *m = prepared(true);
    batch_t *b = new_batch(m, 3);
    probe_t miss = {0};
    add_put(b, "first", "1");
    add_get(b, "nobody", &miss);
    add_delete(b, "never was");
    CHECK_OK(run_code(b));
    CHECK_CODE(miss.result, KV_ERR_KEY_NOT_FOUND);
    EXPECT(m, "first", "1");
    close_manager(m);
}

TEST(a_failed_batch_does_not_touch_its_neighbours) {
    manager_t *m = prepared(true);
    batch_t *good[10], *bad[10];
    char key[32];
    alloc_fail_size = LIMIT;
    for (int i = 0; i < 10; i++) {
        snprintf(key, sizeof key, "good%d", i);
        good[i] = new_batch(m, 1);
        add_put(good[i], key, key);
        submit(good[i]);
        snprintf(key, sizeof key, "bad%d", i);
        bad[i] = new_batch(m, 2);
        add_put(bad[i], key, key);
        add_get(bad[i], "big", NULL);
        submit(bad[i]);
    }
    for (int i = 0; i < 10; i++) {
        CHECK_OK(kv_async_batch_wait(good[i], FOREVER));
        CHECK_CODE(kv_async_batch_wait(bad[i], FOREVER), KV_ERR_BATCH_FAILED);
    }
    alloc_reset();
    for (int i = 0; i < 10; i++) {
        snprintf(key, sizeof key, "good%d", i);
        EXPECT(m, key, key);
        snprintf(key, sizeof key, "bad%d", i);
        EXPECT_MISS(m, key);
    }
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

TEST(two_failures_both_tell_their_own_reason) {
    manager_t *m = prepared(true);
    probe_t a = {0}, b = {0}, put = {0};
    batch_t *batch = new_batch(m, 3);
    add_get(batch, "big", &a);
    CHECK_OK(kv_async_batch_put(batch, "first", 5, "1", 1, on_op, &put));
    add_get(batch, "big", &b);
    alloc_fail_size = LIMIT;
    CHECK_CODE(run_code(batch), KV_ERR_BATCH_FAILED);
    alloc_reset();
    /* Whether the second is still tried once the first has failed is left open; that the first tells its reason is not. */
    CHECK_CODE(a.result, KV_ERR_MEM);
    CHECK(b.result == KV_ERR_MEM || b.result == KV_ERR_BATCH_FAILED);
    CHECK_CODE(put.result, KV_ERR_BATCH_FAILED);
    EXPECT_MISS(m, "first");
    close_manager(m);
}

TEST(out_pointers_of_a_failed_batch_are_null) {
    manager_t *m = prepared(true);
    char *small = (char *)"sentinel", *big = (char *)"sentinel";
    size_t small_len = 4711, big_len = 4711;
    batch_t *b = new_batch(m, 2);
    CHECK_OK(kv_async_batch_get(b, "small", 5, &small, &small_len, NULL, NULL));
    CHECK_OK(kv_async_batch_get(b, "big", 3, &big, &big_len, NULL, NULL));
    alloc_fail_size = LIMIT;
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    alloc_reset();
    CHECK(big == NULL && big_len == 0);
    CHECK(small == NULL && small_len == 0);
    close_manager(m);
}

TEST(in_memory_it_holds_as_well) {
    setenv("KVBATCH_STORE", "memory:", 1);
    manager_t *m = prepared(true);
    batch_t *b = mixed_batch(m);
    CHECK_CODE(run_short_of_memory(b), KV_ERR_BATCH_FAILED);
    for (int i = 0; i < OPS; i++) CHECK_CODE(p[i].result, i == 2 ? KV_ERR_MEM : KV_ERR_BATCH_FAILED);
    EXPECT_MISS(m, "first");
    EXPECT(m, "doomed", "still here");
    close_manager(m);
}
