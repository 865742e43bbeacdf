/* test_abi_layout.c: sizes, offsets and numbers that programs compiled against the original headers have built in. Each is checked
 * when this file is compiled; the cases repeat what a library compiled elsewhere must agree with at run time. */
#include "kvtest.h"
#include <stddef.h>

#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "sizeof " #type)
#define FIELD(type, field, c_type) _Static_assert(_Generic(((type *)0)->field, c_type: 1, default: 0), #type "." #field " is no " #c_type)

SIZE(config_t, 72);
AT(config_t, max_batch_size, 0);
AT(config_t, max_memory_usage, 8);
AT(config_t, timeout_ms, 16);
AT(config_t, max_concurrent_batches, 20);
AT(config_t, io_queue_depth, 24);
AT(config_t, enable_io_polling, 28);
AT(config_t, enable_batch_fsync, 29);
AT(config_t, fsync_interval_ms, 32);
AT(config_t, enable_deduplication, 36);
AT(config_t, enable_sorting, 37);
AT(config_t, enable_compression, 38);
AT(config_t, enable_prefetching, 39);
AT(config_t, fail_fast, 40);
AT(config_t, max_retry_count, 44);
AT(config_t, retry_delay_ms, 48);
AT(config_t, alloc_func, 56);
AT(config_t, free_func, 64);
FIELD(config_t, max_batch_size, size_t);
FIELD(config_t, max_memory_usage, size_t);
FIELD(config_t, timeout_ms, uint32_t);
FIELD(config_t, max_concurrent_batches, uint32_t);
FIELD(config_t, io_queue_depth, uint32_t);
FIELD(config_t, enable_io_polling, bool);
FIELD(config_t, enable_batch_fsync, bool);
FIELD(config_t, fsync_interval_ms, uint32_t);
FIELD(config_t, enable_deduplication, bool);
FIELD(config_t, enable_sorting, bool);
FIELD(config_t, enable_compression, bool);
FIELD(config_t, enable_prefetching, bool);
FIELD(config_t, fail_fast, bool);
FIELD(config_t, max_retry_count, uint32_t);
FIELD(config_t, retry_delay_ms, uint32_t);

SIZE(stats_t, 160);
#define STAT(index, field, c_type) AT(stats_t, field, 8 * (index)); FIELD(stats_t, field, c_type)
STAT(0, total_operations, uint64_t);
STAT(1, completed_operations, uint64_t);
STAT(2, failed_operations, uint64_t);
STAT(3, cancelled_operations, uint64_t);
STAT(4, total_batches, uint64_t);
STAT(5, completed_batches, uint64_t);
STAT(6, failed_batches, uint64_t);
STAT(7, bytes_read, uint64_t);
STAT(8, bytes_written, uint64_t);
STAT(9, keys_processed, uint64_t);
STAT(10, total_submit_time, uint64_t);
STAT(11, total_complete_time, uint64_t);
STAT(12, total_wait_time, uint64_t);
STAT(13, avg_batch_size, double);
STAT(14, avg_latency_us, double);
STAT(15, throughput_ops_per_sec, double);
STAT(16, throughput_mb_per_sec, double);
STAT(17, peak_memory_usage, size_t);
STAT(18, current_memory_usage, size_t);
STAT(19, active_batches, uint32_t);
AT(stats_t, queued_operations, 156);
FIELD(stats_t, queued_operations, uint32_t);

SIZE(op_t, 56);
AT(op_t, op_type, 0);
AT(op_t, key, 8);
AT(op_t, key_len, 16);
AT(op_t, value, 24);
AT(op_t, value_len, 32);
AT(op_t, result_code, 40);
AT(op_t, user_data, 48);
FIELD(op_t, key, char *);
FIELD(op_t, key_len, size_t);
FIELD(op_t, value, char *);
FIELD(op_t, value_len, size_t);
FIELD(op_t, result_code, int);
FIELD(op_t, user_data, void *);

SIZE(kv_error_t, 464);
AT(kv_error_t, code, 0);
AT(kv_error_t, message, 4);
AT(kv_error_t, func, 260);
AT(kv_error_t, file, 324);
AT(kv_error_t, line, 452);
AT(kv_error_t, timestamp, 456);
SIZE(((kv_error_t *)0)->message, 256);
SIZE(((kv_error_t *)0)->func, 64);
SIZE(((kv_error_t *)0)->file, 128);
SIZE(kv_error_ctx_t, 488);
AT(kv_error_ctx_t, last_error, 0);
AT(kv_error_ctx_t, log_level, 464);
AT(kv_error_ctx_t, log_file, 472);
AT(kv_error_ctx_t, log_to_stdout, 480);

SIZE(kv_async_batch_op_type_t, 4);
SIZE(kv_async_batch_status_t, 4);
#define NUMBER(name, value) _Static_assert((name) == (value), #name)
NUMBER(KV_ASYNC_BATCH_PUT, 0);
NUMBER(KV_ASYNC_BATCH_GET, 1);
NUMBER(KV_ASYNC_BATCH_DELETE, 2);
NUMBER(KV_ASYNC_BATCH_UPDATE, 3);
NUMBER(KV_ASYNC_BATCH_SYNC, 4);
NUMBER(KV_ASYNC_BATCH_PENDING, 0);
NUMBER(KV_ASYNC_BATCH_SUBMITTED, 1);
NUMBER(KV_ASYNC_BATCH_COMPLETING, 2);
NUMBER(KV_ASYNC_BATCH_COMPLETED, 3);
NUMBER(KV_ASYNC_BATCH_FAILED, 4);
NUMBER(KV_ASYNC_BATCH_CANCELLED, 5);
NUMBER(KV_ASYNC_BATCH_DEFAULT_SIZE, 256);
NUMBER(KV_ASYNC_BATCH_MAX_SIZE, 1048576);
NUMBER(KV_ASYNC_BATCH_DEFAULT_TIMEOUT_MS, 10000);
NUMBER(KV_ASYNC_BATCH_MAX_CONCURRENT, 64);
NUMBER(KV_SUCCESS, 0);
NUMBER(KV_LOG_DEBUG, 0);
NUMBER(KV_LOG_INFO, 1);
NUMBER(KV_LOG_WARN, 2);
NUMBER(KV_LOG_ERROR, 3);
NUMBER(KV_LOG_FATAL, 4);

/* The structs have both a tag and a typedef, and the tags are the documented ones. */
#define SAME(tag, type) _Static_assert(_Generic((struct tag *)0, type *: 1, default: 0), #tag " is not " #type)
SAME(kv_async_batch_config_s, config_t);
SAME(kv_async_batch_stats_s, stats_t);
SAME(kv_async_batch_operation_s, op_t);
SAME(kv_async_batch_context_s, batch_t);
SAME(kv_async_batch_manager_s, manager_t);

/* A library that wrote another layout would write these fields elsewhere. */
TEST(default_config_fills_all_72_bytes_where_c_expects_them) {
    config_t c = kv_async_batch_default_config();
    unsigned char *raw = (unsigned char *)&c;
    size_t size;
    uint32_t u32;
    memcpy(&size, raw + 0, 8);
    CHECK_EQ_INT(size, 256);
    memcpy(&size, raw + 8, 8);
    CHECK_EQ_INT(size, 64 << 20);
    memcpy(&u32, raw + 16, 4);
    CHECK_EQ_INT(u32, 10000);
    memcpy(&u32, raw + 32, 4);
    CHECK_EQ_INT(u32, 5000);
    CHECK_EQ_INT(raw[28], 0);
    CHECK_EQ_INT(raw[29], 1);
    CHECK_EQ_INT(raw[36], 1);
    CHECK_EQ_INT(raw[40], 0);
    memcpy(&u32, raw + 44, 4);
    CHECK_EQ_INT(u32, 3);
    memcpy(&u32, raw + 48, 4);
    CHECK_EQ_INT(u32, 100);
    void *(*alloc)(size_t);
    memcpy(&alloc, raw + 56, 8);
    CHECK(alloc == malloc);
}

TEST(config_copy_writes_72_bytes_and_no_more) {
    struct { config_t c; unsigned char guard[64]; } to;
    memset(&to, 0xee, sizeof to);
    config_t from = kv_async_batch_default_config();
    CHECK_OK(kv_async_batch_config_copy(&to.c, &from));
    for (size_t i = 0; i < sizeof to.guard; i++) CHECK_EQ_INT(to.guard[i], 0xee);
}

TEST(get_stats_writes_160_bytes_and_no_more) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 4);
    add_put(b, "k", "v");
    struct { stats_t s; unsigned char guard[64]; } to;
    memset(&to, 0xee, sizeof to);
    CHECK_OK(kv_async_batch_get_stats(b, &to.s));
    for (size_t i = 0; i < sizeof to.guard; i++) CHECK_EQ_INT(to.guard[i], 0xee);
    uint64_t first;
    memcpy(&first, &to, 8);
    CHECK_EQ_INT(first, 1);
    memset(&to, 0xee, sizeof to);
    CHECK_OK(kv_async_batch_manager_get_stats(m, &to.s));
    for (size_t i = 0; i < sizeof to.guard; i++) CHECK_EQ_INT(to.guard[i], 0xee);
    CHECK(to.s.queued_operations != 0xeeeeeeee); /* the last field is written, too */
    kv_async_batch_destroy(b);
    close_manager(m);
}

static void look_at_raw_operation(op_t *op, int result, void *user_data) {
    const unsigned char *raw = (const unsigned char *)op;
    int type, stored;
    char *key;
    size_t len;
    void *data;
    memcpy(&type, raw, 4);
    memcpy(&key, raw + 8, 8);
    memcpy(&len, raw + 16, 8);
    memcpy(&stored, raw + 40, 4);
    memcpy(&data, raw + 48, 8);
    CHECK_EQ_INT(type, 2);
    CHECK_EQ_MEM(key, len, "gone", 4);
    CHECK_EQ_INT(stored, result);
    CHECK(data == user_data);
    atomic_fetch_add((atomic_int *)user_data, 1);
}

TEST(the_operation_of_a_callback_has_the_documented_layout) {
    manager_t *m = open_default();
    atomic_int seen = 0;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_delete(b, "gone", 4, look_at_raw_operation, &seen));
    run(b);
    CHECK_EQ_INT(seen, 1);
    close_manager(m);
}

TEST(g_error_ctx_is_laid_out_as_declared) {
    CHECK_ERR(kv_async_batch_config_validate(NULL), KV_ERR_NULL_POINTER);
    int code;
    memcpy(&code, (const char *)&g_error_ctx, 4);
    CHECK_EQ_INT(code, KV_ERR_NULL_POINTER);
    CHECK_EQ_STR((const char *)&g_error_ctx + 4, kv_get_last_error()->message);
}

TEST(every_documented_function_is_there_with_its_type) {
    config_t (*default_config)(void) = kv_async_batch_default_config;
    int (*validate)(const config_t *) = kv_async_batch_config_validate;
    int (*copy)(config_t *, const config_t *) = kv_async_batch_config_copy;
    manager_t *(*create)(const config_t *) = kv_async_batch_manager_create;
    void (*destroy)(manager_t *) = kv_async_batch_manager_destroy;
    int (*start)(manager_t *) = kv_async_batch_manager_start;
    int (*stop)(manager_t *) = kv_async_batch_manager_stop;
    batch_t *(*batch)(manager_t *, size_t) = kv_async_batch_create;
    void (*drop)(batch_t *) = kv_async_batch_destroy;
    int (*put)(batch_t *, const char *, size_t, const char *, size_t, kv_async_batch_callback_t, void *) = kv_async_batch_put;
    int (*get)(batch_t *, const char *, size_t, char **, size_t *, kv_async_batch_callback_t, void *) = kv_async_batch_get;
    int (*del)(batch_t *, const char *, size_t, kv_async_batch_callback_t, void *) = kv_async_batch_delete;
    int (*submit_it)(batch_t *, kv_async_batch_complete_callback_t, void *) = kv_async_batch_submit;
    int (*wait)(batch_t *, uint32_t) = kv_async_batch_wait;
    int (*cancel)(batch_t *) = kv_async_batch_cancel;
    kv_async_batch_status_t (*status)(const batch_t *) = kv_async_batch_get_status;
    int (*stats)(const batch_t *, stats_t *) = kv_async_batch_get_stats;
    int (*m_stats)(const manager_t *, stats_t *) = kv_async_batch_manager_get_stats;
    const char *(*op_name)(kv_async_batch_op_type_t) = kv_async_batch_op_name;
    const char *(*status_name)(kv_async_batch_status_t) = kv_async_batch_status_name;
    uint64_t (*clock)(void) = kv_async_batch_get_timestamp_us;
    CHECK(default_config && validate && copy && create && destroy && start && stop && batch && drop && put && get && del && submit_it);
    CHECK(wait && cancel && status && stats && m_stats && op_name && status_name && clock);
}

/* Existing callers lean on what the original headers pull in; kvtest.h includes nothing of all this by itself. */
TEST(headers_pull_in_what_callers_lean_on) {
    FILE *f = stdout;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct stat s = {0};
    struct iovec v = {NULL, 0};
    struct timeval tv = {0, 0};
    struct timespec ts = {0, 0};
    va_list args;
    bool yes = true;
    uint32_t n = 1;
    off_t offset = 0;
    CHECK(f && yes && n && O_RDONLY == 0 && EINTR != 0);
    CHECK_EQ_INT(pthread_mutex_lock(&lock), 0);
    CHECK_EQ_INT(s.st_size + (off_t)v.iov_len + tv.tv_sec + ts.tv_sec + offset, 0);
    CHECK_EQ_INT(sizeof args > 0 && getpid() > 0 && time(NULL) > 0 && strlen("x") == 1 && atoi("1") == 1, 1);
}
