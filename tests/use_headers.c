/* Compiled by tests/headers.rs, as C and as C++: every macro, every type, and the layout that is frozen. */
#include "kvserver/kv_async_batch_io.h"

#if defined(__cplusplus)
#define FROZEN(condition) static_assert(condition, "frozen layout")
#elif __STDC_VERSION__ >= 201112L
#define FROZEN(condition) _Static_assert(condition, "frozen layout")
#else
#define FROZEN_AT(line) frozen_layout_##line
#define FROZEN_NAME(line) FROZEN_AT(line)
#define FROZEN(condition) typedef char FROZEN_NAME(__LINE__)[(condition) ? 1 : -1]
#endif

#include <stddef.h>

FROZEN(sizeof(kv_error_t) == 464);
FROZEN(sizeof(struct kv_error_s) == 464);
FROZEN(offsetof(kv_error_t, func) == 260);
FROZEN(offsetof(kv_error_t, file) == 324);
FROZEN(offsetof(kv_error_t, line) == 452);
FROZEN(offsetof(kv_error_t, timestamp) == 456);
FROZEN(sizeof(kv_error_ctx_t) == 488);
FROZEN(offsetof(kv_error_ctx_t, log_level) == 464);
FROZEN(offsetof(kv_error_ctx_t, log_file) == 472);
FROZEN(offsetof(kv_error_ctx_t, log_to_stdout) == 480);
FROZEN(sizeof(kv_async_batch_config_t) == 72);
FROZEN(offsetof(kv_async_batch_config_t, timeout_ms) == 16);
FROZEN(offsetof(kv_async_batch_config_t, io_queue_depth) == 24);
FROZEN(offsetof(kv_async_batch_config_t, enable_io_polling) == 28);
FROZEN(offsetof(kv_async_batch_config_t, enable_batch_fsync) == 29);
FROZEN(offsetof(kv_async_batch_config_t, fsync_interval_ms) == 32);
FROZEN(offsetof(kv_async_batch_config_t, enable_deduplication) == 36);
FROZEN(offsetof(kv_async_batch_config_t, fail_fast) == 40);
FROZEN(offsetof(kv_async_batch_config_t, max_retry_count) == 44);
FROZEN(offsetof(kv_async_batch_config_t, alloc_func) == 56);
FROZEN(offsetof(kv_async_batch_config_t, free_func) == 64);
FROZEN(sizeof(struct kv_async_batch_stats_s) == 160);
FROZEN(offsetof(kv_async_batch_stats_t, avg_batch_size) == 104);
FROZEN(offsetof(kv_async_batch_stats_t, peak_memory_usage) == 136);
FROZEN(offsetof(kv_async_batch_stats_t, queued_operations) == 156);
FROZEN(sizeof(struct kv_async_batch_operation_s) == 56);
FROZEN(offsetof(kv_async_batch_operation_t, result_code) == 40);
FROZEN(offsetof(kv_async_batch_operation_t, user_data) == 48);
FROZEN(sizeof(kv_async_batch_op_type_t) == sizeof(int));
FROZEN(sizeof(enum kv_async_batch_status_e) == sizeof(int));
FROZEN(KV_ASYNC_BATCH_SYNC == 4);
FROZEN(KV_ASYNC_BATCH_STATUS_CANCELLED == 5);
FROZEN(KV_ASYNC_BATCH_DEFAULT_SIZE == 256);
FROZEN(KV_ASYNC_BATCH_MAX_SIZE == 1048576);
FROZEN(KV_ASYNC_BATCH_DEFAULT_TIMEOUT_MS == 10000);
FROZEN(KV_ASYNC_BATCH_MAX_CONCURRENT == 64);
FROZEN(KV_LOG_DEBUG == 0 && KV_LOG_INFO == 1 && KV_LOG_WARN == 2 && KV_LOG_ERROR == 3 && KV_LOG_FATAL == 4);

FROZEN(sizeof(struct kv_uring_config_s) == 40);
FROZEN(offsetof(kv_uring_config_t, use_kernel_sqe_thread) == 10);
FROZEN(offsetof(kv_uring_config_t, allocator) == 32);
FROZEN(sizeof(struct kv_uring_request_s) == 160);
FROZEN(offsetof(kv_uring_request_t, iovecs) == 48);
FROZEN(offsetof(kv_uring_request_t, result) == 80);
FROZEN(offsetof(kv_uring_request_t, owns_buffer) == 136);
FROZEN(offsetof(kv_uring_request_t, prev) == 152);
FROZEN(sizeof(struct kv_uring_stats_s) == 184);
FROZEN(offsetof(kv_uring_stats_t, write_throughput) == 176);
FROZEN(sizeof(kv_uring_op_type_t) == sizeof(int) && sizeof(enum kv_uring_req_status_e) == sizeof(int));
FROZEN(KV_URING_OP_FALLOCATE == 8 && KV_URING_REQ_CANCELLED == 4);
FROZEN(KV_URING_MAX_QUEUE_DEPTH == 4096 && KV_URING_MAX_BATCH_SIZE == 256);

static void on_request(struct kv_uring_request_s *req, int result, void *data) {
    kv_uring_request_t *same = req;
    (void)same;
    (void)result;
    (void)data;
}

int use_ring(void);
int use_ring(void) {
    kv_uring_config_t *config = kv_uring_config_create();
    kv_uring_callback_t callback = on_request;
    kv_uring_t *ring = kv_uring_create(config);
    struct kv_uring_s *same_ring = ring;
    struct iovec pieces[1] = {{NULL, 0}};
    const struct iovec *same_pieces = pieces;
    kv_uring_stats_t stats;
    char bytes[8];
    int sum = kv_uring_config_set_sq_poll(config, true, 1000u) + kv_uring_start(same_ring);
    kv_uring_request_t *req = kv_uring_read_async(ring, 0, bytes, sizeof bytes, 0, callback, NULL);
    enum kv_uring_req_status_e status = kv_uring_request_status(req);
    struct kv_uring_batch_s *batch = kv_uring_batch_create(ring, 8);
    kv_uring_batch_t *same_batch = batch;
    req = kv_uring_writev_async(ring, 0, same_pieces, 1, 0, on_request, NULL);
    req = kv_uring_readv_async(ring, 0, pieces, 1, 0, NULL, NULL);
    sum += kv_uring_batch_add_write(same_batch, 0, "bytes", 5, 0, callback, NULL) + kv_uring_batch_submit(ring, batch);
    sum += kv_uring_wait_request(ring, req, 0) + kv_uring_get_stats(ring, &stats) + (int)kv_uring_get_latency(ring, KV_URING_OP_READ);
    printf("%s %s\n", kv_uring_op_name(KV_URING_OP_READ), kv_uring_status_name(status));
    kv_uring_destroy(ring);
    kv_uring_config_destroy(config);
    return sum;
}

static void on_operation(kv_async_batch_operation_t *op, int result, void *user_data) {
    struct kv_async_batch_operation_s *same = op;
    (void)same;
    (void)result;
    (void)user_data;
}

static void on_batch(kv_async_batch_context_t *ctx, size_t completed_count, size_t failed_count, void *user_data) {
    struct kv_async_batch_context_s *same = ctx;
    (void)same;
    (void)completed_count;
    (void)failed_count;
    (void)user_data;
}

static int checks(const void *pointer, int number) {
    KV_CHECK(number > 0, KV_ERR_INVALID_PARAM, "no argument");
    KV_CHECK(number > 1, KV_ERR_INVALID_PARAM, "an argument: %d", number);
    KV_CHECK_NULL(pointer, "no argument");
    KV_CHECK_NULL(pointer, "an argument: %d", number);
    KV_CHECK_LOG(number > 2, "no argument");
    if (number > 3)
        KV_CHECK_LOG(number > 4, "an argument: %d", number);
    else
        KV_ERROR(KV_ERR_BATCH_FULL, "no argument");
    KV_ERROR(KV_ERR_BATCH_FULL, "arguments: %d %s", number, "text");
    KV_LOG_DEBUG_MSG("no argument");
    KV_LOG_INFO_MSG("an argument: %d", number);
    KV_LOG_WARN_MSG("an argument: %d", number);
    KV_LOG_ERROR_MSG("an argument: %d", number);
    KV_LOG_FATAL_MSG("an argument: %d", number);
    return g_error_ctx.last_error.code;
}

int use_headers(void);
int use_headers(void) {
    kv_async_batch_config_t config = kv_async_batch_default_config();
    struct kv_async_batch_config_s copy;
    kv_async_batch_stats_t stats;
    kv_async_batch_op_type_t op = KV_ASYNC_BATCH_GET;
    enum kv_async_batch_op_type_e same_op = op;
    kv_async_batch_status_t status = KV_ASYNC_BATCH_PENDING;
    kv_async_batch_callback_t callback = on_operation;
    kv_async_batch_complete_callback_t complete = on_batch;
    kv_async_batch_manager_t *manager;
    struct kv_async_batch_context_s *ctx;
    char *value = NULL;
    size_t value_len = 0;
    char line[512];
    int sum = kv_error_init(KV_LOG_WARN, NULL, 0) + kv_async_batch_config_copy(&copy, &config);
    config.alloc_func = malloc;
    config.free_func = free;
    config.fail_fast = true;
    sum += kv_async_batch_config_validate(&config);
    manager = kv_async_batch_manager_create(&config);
    sum += kv_async_batch_manager_start(manager);
    ctx = kv_async_batch_create(manager, 100);
    sum += kv_async_batch_put(ctx, "key", 3, "value", 5, callback, NULL);
    sum += kv_async_batch_get(ctx, "key", 3, &value, &value_len, NULL, NULL);
    sum += kv_async_batch_delete(ctx, "key", 3, NULL, NULL);
    sum += kv_async_batch_submit(ctx, complete, NULL) + kv_async_batch_wait(ctx, 5000) + kv_async_batch_cancel(ctx);
    status = kv_async_batch_get_status(ctx);
    sum += kv_async_batch_get_stats(ctx, &stats) + kv_async_batch_reset_stats(ctx) + kv_async_batch_print_stats(ctx, stdout);
    sum += kv_async_batch_manager_get_stats(manager, &stats);
    kv_async_batch_destroy(ctx);
    sum += kv_async_batch_manager_stop(manager);
    kv_async_batch_manager_destroy(manager);
    kv_format_error(kv_get_last_error(), line, sizeof line);
    kv_print_error(kv_get_last_error());
    kv_clear_error();
    printf("%s %s %s %s %llu\n", kv_get_error_name(sum), kv_get_error_desc(sum), kv_async_batch_op_name(same_op),
           kv_async_batch_status_name(status), (unsigned long long)kv_async_batch_get_timestamp_us());
    sum += checks(line, kv_uring_is_supported() ? 1 : 0);
    return kv_uring_get_timestamp_us() > 0 ? sum : -1;
}
