/* test_config.c: defaults, validation and copying of the configuration. What each field does: test_config_effects.c. */
#include "kvtest.h"

TEST(defaults_are_the_documented_ones) {
    config_t c = kv_async_batch_default_config();
    CHECK_EQ_INT(c.max_batch_size, 256);
    CHECK_EQ_INT(c.max_memory_usage, 64 * 1024 * 1024);
    CHECK_EQ_INT(c.timeout_ms, 10000);
    CHECK_EQ_INT(c.max_concurrent_batches, 64);
    CHECK_EQ_INT(c.io_queue_depth, 64);
    CHECK_EQ_INT(c.enable_io_polling, false);
    CHECK_EQ_INT(c.enable_batch_fsync, true);
    CHECK_EQ_INT(c.fsync_interval_ms, 5000);
    CHECK_EQ_INT(c.enable_deduplication, true);
    CHECK_EQ_INT(c.enable_sorting, true);
    CHECK_EQ_INT(c.enable_compression, false);
    CHECK_EQ_INT(c.enable_prefetching, true);
    CHECK_EQ_INT(c.fail_fast, false);
    CHECK_EQ_INT(c.max_retry_count, 3);
    CHECK_EQ_INT(c.retry_delay_ms, 100);
    CHECK(c.alloc_func == malloc);
    CHECK(c.free_func == free);
}

TEST(defaults_are_valid) {
    config_t c = kvt_config();
    CHECK_OK(kv_async_batch_config_validate(&c));
}

TEST(validate_null) { CHECK_ERR(kv_async_batch_config_validate(NULL), KV_ERR_NULL_POINTER); }

/* Each invalid setting alone: refused by validate with INVALID_PARAM, and by manager_create with NULL. */
static void refused(config_t c) {
    CHECK_ERR(kv_async_batch_config_validate(&c), KV_ERR_INVALID_PARAM);
    CHECK_NO_HANDLE(kv_async_batch_manager_create(&c), KV_ERR_INVALID_PARAM);
}

static void accepted(config_t c) {
    CHECK_OK(kv_async_batch_config_validate(&c));
    manager_t *m = kv_async_batch_manager_create(&c);
    CHECK(m != NULL);
    kv_async_batch_manager_destroy(m);
}

#define REFUSED(name, setting) TEST(name) { config_t c = kvt_config(); setting; refused(c); }
#define ACCEPTED(name, setting) TEST(name) { config_t c = kvt_config(); setting; accepted(c); }

REFUSED(zero_batch_size, c.max_batch_size = 0)
REFUSED(batch_size_above_the_maximum, c.max_batch_size = KV_ASYNC_BATCH_MAX_SIZE + 1)
REFUSED(absurd_batch_size, c.max_batch_size = SIZE_MAX)
REFUSED(zero_memory, c.max_memory_usage = 0)
REFUSED(zero_timeout, c.timeout_ms = 0)
REFUSED(zero_queue_depth, c.io_queue_depth = 0)
REFUSED(zero_concurrent_batches, c.max_concurrent_batches = 0)
REFUSED(missing_alloc, c.alloc_func = NULL)
REFUSED(missing_free, c.free_func = NULL)
REFUSED(missing_both_allocators, c.alloc_func = NULL; c.free_func = NULL)
REFUSED(all_zero, memset(&c, 0, sizeof c))
ACCEPTED(largest_batch_size, c.max_batch_size = KV_ASYNC_BATCH_MAX_SIZE)
ACCEPTED(smallest_values, c.max_batch_size = c.max_memory_usage = 1; c.timeout_ms = c.io_queue_depth = c.max_concurrent_batches = 1)
ACCEPTED(no_background_sync, c.fsync_interval_ms = 0)
ACCEPTED(largest_values, c.max_memory_usage = SIZE_MAX; c.timeout_ms = c.max_concurrent_batches = c.io_queue_depth = UINT32_MAX;
         c.fsync_interval_ms = c.max_retry_count = c.retry_delay_ms = UINT32_MAX)
ACCEPTED(no_retries, c.max_retry_count = 0; c.retry_delay_ms = 0)

TEST(every_combination_of_switches_is_valid) {
    for (unsigned bits = 0; bits < 128; bits++) {
        config_t c = kvt_config();
        c.enable_io_polling = bits & 1;
        c.enable_batch_fsync = bits & 2;
        c.enable_deduplication = bits & 4;
        c.enable_sorting = bits & 8;
        c.enable_compression = bits & 16;
        c.enable_prefetching = bits & 32;
        c.fail_fast = bits & 64;
        CHECK_OK(kv_async_batch_config_validate(&c));
    }
}

TEST(validate_changes_nothing) {
    config_t c = kvt_config(), before;
    c.timeout_ms = 0;
    memcpy(&before, &c, sizeof c);
    CHECK_ERR(kv_async_batch_config_validate(&c), KV_ERR_INVALID_PARAM);
    CHECK(memcmp(&before, &c, sizeof c) == 0);
}

TEST(copy_takes_every_field) {
    config_t from = kvt_config(), to;
    from.max_batch_size = 1;
    from.max_memory_usage = 2;
    from.timeout_ms = 3;
    from.max_concurrent_batches = 4;
    from.io_queue_depth = 5;
    from.enable_io_polling = true;
    from.enable_batch_fsync = false;
    from.fsync_interval_ms = 6;
    from.enable_deduplication = false;
    from.enable_sorting = false;
    from.enable_compression = true;
    from.enable_prefetching = false;
    from.fail_fast = true;
    from.max_retry_count = 7;
    from.retry_delay_ms = 8;
    from.alloc_func = counting_alloc;
    from.free_func = counting_free;
    memset(&to, 0x55, sizeof to);
    CHECK_OK(kv_async_batch_config_copy(&to, &from));
    CHECK_EQ_INT(to.max_batch_size, 1);
    CHECK_EQ_INT(to.max_memory_usage, 2);
    CHECK_EQ_INT(to.timeout_ms, 3);
    CHECK_EQ_INT(to.max_concurrent_batches, 4);
    CHECK_EQ_INT(to.io_queue_depth, 5);
    CHECK(to.enable_io_polling && !to.enable_batch_fsync && !to.enable_deduplication && !to.enable_sorting);
    CHECK(to.enable_compression && !to.enable_prefetching && to.fail_fast);
    CHECK_EQ_INT(to.fsync_interval_ms, 6);
    CHECK_EQ_INT(to.max_retry_count, 7);
    CHECK_EQ_INT(to.retry_delay_ms, 8);
    CHECK(to.alloc_func == counting_alloc && to.free_func == counting_free);
}

TEST(copy_refuses_null) {
    config_t c = kvt_config(), before = c;
    CHECK_ERR(kv_async_batch_config_copy(NULL, &c), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_config_copy(&c, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_config_copy(NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK(memcmp(&before, &c, sizeof c) == 0);
}

TEST(copy_onto_itself_keeps_it) {
    config_t c = kvt_config();
    c.timeout_ms = 77;
    CHECK_OK(kv_async_batch_config_copy(&c, &c));
    CHECK_EQ_INT(c.timeout_ms, 77);
    CHECK_EQ_INT(c.max_batch_size, 256);
}

TEST(null_config_means_the_defaults) {
    manager_t *m = open_with(NULL);
    batch_t *b = new_batch(m, 0);
    for (int i = 0; i < 256; i++) CHECK_OK(kv_async_batch_put(b, "key", 3, "value", 5, NULL, NULL));
    CHECK_ERR(kv_async_batch_put(b, "key", 3, "value", 5, NULL, NULL), KV_ERR_BATCH_FULL);
    run(b);
    EXPECT(m, "key", "value");
    close_manager(m);
}

TEST(the_manager_keeps_its_own_copy) {
    config_t c = kvt_config();
    c.max_batch_size = 3;
    manager_t *m = kv_async_batch_manager_create(&c);
    CHECK(m != NULL);
    memset(&c, 0, sizeof c); /* the caller's variable may go */
    CHECK_OK(kv_async_batch_manager_start(m));
    batch_t *b = new_batch(m, 0);
    for (int i = 0; i < 3; i++) add_put(b, "key", "value");
    CHECK_ERR(kv_async_batch_put(b, "key", 3, "value", 5, NULL, NULL), KV_ERR_BATCH_FULL);
    run(b);
    close_manager(m);
}
