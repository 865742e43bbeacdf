/* test_refusals.c: what is refused, with which code, with a message in the last error, and that a refusal changes nothing. */
#include "kvtest.h"

#define PUT(b, k, kl, v, vl) kv_async_batch_put(b, k, kl, v, vl, NULL, NULL)
#define GET(b, k, kl) kv_async_batch_get(b, k, kl, NULL, NULL, NULL, NULL)
#define DELETE(b, k, kl) kv_async_batch_delete(b, k, kl, NULL, NULL)

/* A batch with two operations; `still_two` proves that a refusal left it so. */
static manager_t *manager;
static batch_t *two_operations(void) {
    manager = open_default();
    batch_t *b = new_batch(manager, 10);
    add_put(b, "one", "1");
    add_put(b, "two", "2");
    return b;
}

static void still_two(batch_t *b) {
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
    CHECK_EQ_INT(stats_of(b).total_operations, 2);
    done_t done = DONE_INIT;
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(done.completed, 2);
    CHECK_EQ_INT(done.failed, 0);
    kv_async_batch_destroy(b);
    EXPECT(manager, "one", "1");
    EXPECT(manager, "two", "2");
    close_manager(manager);
}

TEST(put_refuses_null_and_zero_length_keys) {
    batch_t *b = two_operations();
    CHECK_ERR(PUT(NULL, "k", 1, "v", 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(PUT(b, NULL, 1, "v", 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(PUT(b, NULL, 0, "v", 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(PUT(b, "k", 0, "v", 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(PUT(b, "k", 1, NULL, 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(PUT(b, "k", 1, NULL, 0), KV_ERR_NULL_POINTER);
    still_two(b);
}

TEST(get_refuses_null_and_zero_length_keys) {
    batch_t *b = two_operations();
    CHECK_ERR(GET(NULL, "k", 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(GET(b, NULL, 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(GET(b, "k", 0), KV_ERR_NULL_POINTER);
    still_two(b);
}

TEST(delete_refuses_null_and_zero_length_keys) {
    batch_t *b = two_operations();
    CHECK_ERR(DELETE(NULL, "k", 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(DELETE(b, NULL, 1), KV_ERR_NULL_POINTER);
    CHECK_ERR(DELETE(b, "k", 0), KV_ERR_NULL_POINTER);
    still_two(b);
}

TEST(keys_beyond_65535_bytes) {
    char *key = malloc(65536);
    CHECK(key != NULL);
    memset(key, 'k', 65536);
    batch_t *b = two_operations();
    CHECK_ERR(PUT(b, key, 65536, "v", 1), KV_ERR_KEY_TOO_LONG);
    CHECK_ERR(GET(b, key, 65536), KV_ERR_KEY_TOO_LONG);
    CHECK_ERR(DELETE(b, key, 65536), KV_ERR_KEY_TOO_LONG);
    still_two(b);
    free(key);
}

TEST(absurd_lengths_are_refused_before_memory_is_touched) {
    batch_t *b = two_operations();
    size_t lengths[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2 + 1, (size_t)1 << 48, (size_t)1 << 32, ((size_t)1 << 32) + 1};
    for (size_t i = 0; i < 6; i++) {
        CHECK_ERR(PUT(b, "k", lengths[i], "v", 1), KV_ERR_KEY_TOO_LONG);
        CHECK_ERR(GET(b, "k", lengths[i]), KV_ERR_KEY_TOO_LONG);
        CHECK_ERR(DELETE(b, "k", lengths[i]), KV_ERR_KEY_TOO_LONG);
        CHECK_ERR(PUT(b, "k", 1, "v", lengths[i]), KV_ERR_INVALID_PARAM);
    }
    still_two(b);
}

TEST(values_beyond_512_mib) {
    batch_t *b = two_operations();
    CHECK_ERR(PUT(b, "k", 1, "v", ((size_t)512 << 20) + 1), KV_ERR_INVALID_PARAM); /* not read: the literal has two bytes */
    still_two(b);
}

TEST(a_full_batch) {
    manager = open_default();
    batch_t *b = new_batch(manager, 2);
    add_put(b, "one", "1");
    add_put(b, "two", "2");
    CHECK_ERR(PUT(b, "k", 1, "v", 1), KV_ERR_BATCH_FULL);
    CHECK_ERR(GET(b, "k", 1), KV_ERR_BATCH_FULL);
    CHECK_ERR(DELETE(b, "k", 1), KV_ERR_BATCH_FULL);
    still_two(b);
}

TEST(deduplication_makes_no_room) {
    manager = open_default();
    batch_t *b = new_batch(manager, 2);
    add_put(b, "one", "0");
    add_put(b, "one", "1");
    CHECK_ERR(PUT(b, "one", 3, "2", 1), KV_ERR_BATCH_FULL);
    run(b);
    EXPECT(manager, "one", "1");
    close_manager(manager);
}

TEST(past_the_memory_limit) {
    config_t c = kvt_config();
    c.max_memory_usage = 256 * 1024;
    manager = open_with(&c);
    batch_t *b = new_batch(manager, 100);
    add_put(b, "one", "1");
    char *big = malloc(300 * 1024);
    CHECK(big != NULL);
    memset(big, 'x', 300 * 1024);
    CHECK_ERR(PUT(b, "big", 3, big, 300 * 1024), KV_ERR_BATCH_TOO_LARGE);
    add_put(b, "two", "2"); /* what fits still goes in */
    still_two(b);
    free(big);
}

TEST(the_memory_limit_counts_all_adds_together) {
    config_t c = kvt_config();
    c.max_memory_usage = 1 << 20;
    manager = open_with(&c);
    batch_t *b = new_batch(manager, 1000);
    char *kib = malloc(1024), key[16];
    CHECK(kib != NULL);
    memset(kib, 'x', 1024);
    int n = 0, code;
    for (;; n++) {
        snprintf(key, sizeof key, "k%d", n);
        if ((code = PUT(b, key, strlen(key), kib, 1024)) != KV_SUCCESS) break;
        CHECK(n < 1000);
        CHECK(stats_of(b).current_memory_usage <= c.max_memory_usage);
    }
    CHECK_CODE(code, KV_ERR_BATCH_TOO_LARGE);
    CHECK(n < 1024);  /* the limit holds for the values alone already */
    CHECK(n >= 512);  /* and at least half of it is for the caller's bytes */
    CHECK_EQ_INT(stats_of(b).total_operations, n);
    run(b);
    snprintf(key, sizeof key, "k%d", n);
    EXPECT_MISS(manager, key);
    snprintf(key, sizeof key, "k%d", n - 1);
    char *seen = get_one(manager, key);
    CHECK_EQ_INT(strlen(seen), 1024);
    free(seen);
    free(kib);
    close_manager(manager);
}

TEST(values_that_are_read_do_not_count_as_memory) {
    manager_t *big = open_default();
    char *mib = malloc(1 << 20);
    CHECK(mib != NULL);
    memset(mib, 'x', 1 << 20);
    for (int i = 0; i < 4; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        put_mem(big, key, 2, mib, 1 << 20);
    }
    config_t c = kvt_config();
    c.max_memory_usage = 64 * 1024;
    manager = open_with(&c);
    probe_t p[4] = {0};
    batch_t *b = new_batch(manager, 4);
    for (int i = 0; i < 4; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        add_get(b, key, &p[i]);
    }
    run(b);
    for (int i = 0; i < 4; i++) {
        CHECK_CODE(p[i].result, KV_SUCCESS);
        CHECK_EQ_INT(p[i].value_len, 1 << 20);
    }
    free(mib);
    close_manager(manager);
    close_manager(big);
}

/* Not pending: nothing more can be added, whatever the state. */
static void adds_are_refused(batch_t *b) {
    CHECK_ERR(PUT(b, "k", 1, "v", 1), KV_ERR_INVALID_STATE);
    CHECK_ERR(GET(b, "k", 1), KV_ERR_INVALID_STATE);
    CHECK_ERR(DELETE(b, "k", 1), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
}

TEST(a_submitted_batch_takes_no_more) {
    manager = open_default();
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(manager, 10);
    CHECK_OK(kv_async_batch_put(b, "a", 1, "1", 1, on_op_hold, &hold));
    submit(b);
    adds_are_refused(b);
    gate_wait(&hold.entered, 1);
    adds_are_refused(b);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    kv_async_batch_destroy(b);
    EXPECT_MISS(manager, "k");
    close_manager(manager);
}

TEST(a_completed_batch_takes_no_more) {
    manager = open_default();
    batch_t *b = new_batch(manager, 10);
    add_put(b, "a", "1");
    CHECK_OK(run_code(b));
    adds_are_refused(b);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_COMPLETED);
    CHECK_EQ_INT(stats_of(b).total_operations, 1);
    kv_async_batch_destroy(b);
    close_manager(manager);
}

TEST(a_cancelled_batch_takes_no_more) {
    manager = open_default();
    batch_t *b = new_batch(manager, 10);
    add_put(b, "a", "1");
    CHECK_OK(kv_async_batch_cancel(b));
    adds_are_refused(b);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_CANCELLED);
    kv_async_batch_destroy(b);
    EXPECT_MISS(manager, "a");
    close_manager(manager);
}

TEST(an_empty_batch_cannot_be_submitted) {
    manager = open_default();
    done_t done = DONE_INIT;
    batch_t *b = new_batch(manager, 10);
    CHECK_ERR(kv_async_batch_submit(b, on_done, &done), KV_ERR_INVALID_PARAM);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
    add_put(b, "one", "1"); /* it can still be filled and submitted */
    add_put(b, "two", "2");
    CHECK_EQ_INT(done.calls, 0);
    still_two(b);
}

TEST(submitting_twice) {
    manager = open_default();
    done_t first = DONE_INIT, second = DONE_INIT;
    batch_t *b = new_batch(manager, 10);
    add_put(b, "a", "1");
    CHECK_OK(kv_async_batch_submit(b, on_done, &first));
    CHECK_ERR(kv_async_batch_submit(b, on_done, &second), KV_ERR_INVALID_STATE);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_ERR(kv_async_batch_submit(b, on_done, &second), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(first.calls, 1);
    CHECK_EQ_INT(second.calls, 0);
    kv_async_batch_destroy(b);
    close_manager(manager);
}

TEST(a_refused_second_submit_leaves_values_alone) {
    config_t c = counting_config(); /* overwrites what is freed */
    manager = open_with(&c);
    put_one(manager, "k", "a value");
    char *value = NULL;
    size_t len = 0;
    batch_t *b = new_batch(manager, 1);
    CHECK_OK(kv_async_batch_get(b, "k", 1, &value, &len, NULL, NULL));
    CHECK_OK(run_code(b));
    long live = alloc_live;
    for (int i = 0; i < 3; i++) CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(alloc_live, live);
    CHECK_EQ_MEM(value, len, "a value", 7);
    CHECK_OK(kv_async_batch_wait(b, 0));
    kv_async_batch_destroy(b);
    close_manager(manager);
    CHECK_EQ_INT(alloc_live, 0);
}

TEST(a_refused_second_submit_loses_no_callback) {
    manager = open_default();
    for (int i = 0; i < 300; i++) {
        done_t done = DONE_INIT;
        batch_t *b = new_batch(manager, 1);
        add_put(b, "k", "v");
        CHECK_OK(kv_async_batch_submit(b, on_done, &done));
        while (done.calls == 0) CHECK_CODE(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        CHECK_EQ_INT(done.completed, 1);
        kv_async_batch_destroy(b);
    }
    close_manager(manager);
}

TEST(null_batches) {
    stats_t s;
    CHECK_ERR(kv_async_batch_submit(NULL, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_wait(NULL, 0), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_wait(NULL, FOREVER), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_cancel(NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_get_stats(NULL, &s), KV_ERR_NULL_POINTER);
    CHECK_EQ_INT(kv_async_batch_get_status(NULL), ST_FAILED);
    kv_async_batch_destroy(NULL);
    kv_async_batch_destroy(NULL);
}

TEST(null_statistics) {
    batch_t *b = two_operations();
    CHECK_ERR(kv_async_batch_get_stats(b, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_manager_get_stats(manager, NULL), KV_ERR_NULL_POINTER);
    still_two(b);
}

TEST(sizes_of_batches) {
    config_t c = kvt_config();
    c.max_batch_size = 7;
    manager = open_with(&c);
    static const size_t sizes[][2] = {{0, 7}, {1, 1}, {7, 7}, {8, 8}, {300, 300}, {5000, 5000}};
    for (size_t i = 0; i < 6; i++) {
        batch_t *b = new_batch(manager, sizes[i][0]);
        for (size_t k = 0; k < sizes[i][1]; k++) add_put(b, "k", "v");
        CHECK_ERR(PUT(b, "k", 1, "v", 1), KV_ERR_BATCH_FULL);
        CHECK_EQ_INT(stats_of(b).total_operations, (long long)sizes[i][1]);
        kv_async_batch_destroy(b);
    }
    close_manager(manager);
}

TEST(batches_above_the_largest_size) {
    manager = open_default();
    CHECK_NO_HANDLE(kv_async_batch_create(manager, (size_t)KV_ASYNC_BATCH_MAX_SIZE + 1), KV_ERR_INVALID_PARAM);
    CHECK_NO_HANDLE(kv_async_batch_create(manager, SIZE_MAX), KV_ERR_INVALID_PARAM);
    CHECK_NO_HANDLE(kv_async_batch_create(manager, SIZE_MAX / 2), KV_ERR_INVALID_PARAM);
    batch_t *b = kv_async_batch_create(manager, KV_ASYNC_BATCH_MAX_SIZE); /* the largest itself is honoured */
    CHECK(b != NULL);
    kv_async_batch_destroy(b);
    close_manager(manager);
}

TEST(messages_say_more_than_the_code) {
    batch_t *b = two_operations();
    CHECK_ERR(PUT(b, NULL, 1, "v", 1), KV_ERR_NULL_POINTER);
    char null_pointer[256];
    snprintf(null_pointer, sizeof null_pointer, "%s", kv_get_last_error()->message);
    CHECK_NO_HANDLE(kv_async_batch_create(manager, SIZE_MAX), KV_ERR_INVALID_PARAM);
    CHECK(strcmp(null_pointer, kv_get_last_error()->message) != 0);
    CHECK(strlen(null_pointer) > 10 && strlen(kv_get_last_error()->message) > 10);
    still_two(b);
}

TEST(success_leaves_the_last_error_alone_or_clear) {
    batch_t *b = two_operations();
    CHECK_ERR(PUT(b, NULL, 1, "v", 1), KV_ERR_NULL_POINTER);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
    CHECK(kvt_last() == KV_ERR_NULL_POINTER || kvt_last() == 0); /* never some other error out of the blue */
    kv_clear_error();
    add_get(b, "one", NULL);
    CHECK_OK(run_code(b));
    CHECK_EQ_INT(kvt_last(), 0);
    kv_async_batch_destroy(b);
    close_manager(manager);
}
