/* test_names.c: names, descriptions and numbers: pure functions that work at any time. */
#include "kvtest.h"

TEST(operation_names) {
    CHECK_EQ_STR(kv_async_batch_op_name(KV_ASYNC_BATCH_PUT), "PUT");
    CHECK_EQ_STR(kv_async_batch_op_name(KV_ASYNC_BATCH_GET), "GET");
    CHECK_EQ_STR(kv_async_batch_op_name(KV_ASYNC_BATCH_DELETE), "DELETE");
    CHECK_EQ_STR(kv_async_batch_op_name(KV_ASYNC_BATCH_UPDATE), "UPDATE");
    CHECK_EQ_STR(kv_async_batch_op_name(KV_ASYNC_BATCH_SYNC), "SYNC");
}

TEST(unknown_operations_are_called_so) {
    int numbers[] = {5, -1, 99, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 5; i++) CHECK_EQ_STR(kv_async_batch_op_name((kv_async_batch_op_type_t)numbers[i]), "UNKNOWN");
}

TEST(status_names) {
    static const char *const names[] = {"PENDING", "SUBMITTED", "COMPLETING", "COMPLETED", "FAILED", "CANCELLED"};
    for (int i = 0; i < 6; i++) CHECK_EQ_STR(kv_async_batch_status_name((kv_async_batch_status_t)i), names[i]);
}

TEST(unknown_states_are_called_so) {
    int numbers[] = {6, -1, 99, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 5; i++) CHECK_EQ_STR(kv_async_batch_status_name((kv_async_batch_status_t)numbers[i]), "UNKNOWN");
}

#define CODES(X)                                                                                                                   \
    X(SYS, 1) X(MEM, 2) X(PARAM, 3) X(FILE, 4) X(NET, 5) X(NOT_FOUND, 6) X(EXIST, 7) X(TIMEOUT, 8) X(LOCK, 9) X(BUSY, 10)              \
    X(NOT_SUPPORTED, 11) X(CORRUPTED, 12) X(DISK_FULL, 13) X(TXN_CONFLICT, 14) X(TXN_ABORT, 15) X(CLUSTER_SYNC, 16)                   \
    X(NETWORK_PARTITION, 17) X(LEADER_CHANGED, 18) X(INVALID_PARAM, 19) X(OUT_OF_MEMORY, 20) X(IO_ERROR, 21) X(NO_SPACE, 22)         \
    X(THREAD_ERROR, 23) X(INVALID_STATE, 24) X(NOT_IMPLEMENTED, 25) X(COMPACTION_FAILED, 26) X(BATCH_FULL, 27)                       \
    X(BATCH_TOO_LARGE, 28) X(KEY_NOT_FOUND, 29) X(KEY_EXISTS, 30) X(KEY_TOO_LONG, 31) X(MEMORY_ALLOC, 32) X(LOCK_FAILED, 33)         \
    X(IO, 34) X(OVERFLOW, 35) X(UNDERFLOW, 36) X(ALIGNMENT, 37) X(DEVICE, 38) X(ASYNC_FAILED, 39) X(BATCH_FAILED, 40)                \
    X(MMAP_FAILED, 41) X(STATE, 42) X(CONFIG, 43) X(NULL_POINTER, 44) X(THREAD_CREATE, 45) X(CANCELLED, 46) X(UNKNOWN, 100)
#define ASSERT_CODE(name, number) _Static_assert(KV_ERR_##name == (number), #name);
CODES(ASSERT_CODE)
_Static_assert(KV_ERR_NONE == 0 && KV_SUCCESS == 0, "success is 0");

TEST(error_names_are_the_macros) {
#define NAMED(name, number) CHECK_EQ_STR(kv_get_error_name(number), "KV_ERR_" #name);
    CODES(NAMED)
    CHECK_EQ_STR(kv_get_error_name(0), "KV_ERR_NONE");
}

TEST(unknown_errors_have_a_name_and_a_description) {
    int numbers[] = {999, -1, 47, 99, 101, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 7; i++) {
        CHECK_EQ_STR(kv_get_error_name(numbers[i]), "UNKNOWN_ERROR");
        CHECK_EQ_STR(kv_get_error_desc(numbers[i]), "Unknown error");
    }
}

TEST(every_error_has_a_description_of_its_own_kind) {
#define DESCRIBED(name, number)                                          \
    CHECK(kv_get_error_desc(number) && strlen(kv_get_error_desc(number)) > 3); \
    CHECK(strcmp(kv_get_error_desc(number), "Unknown error") != 0);
    CODES(DESCRIBED)
    CHECK(kv_get_error_desc(0) && kv_get_error_desc(0)[0]);
}

TEST(the_clock_never_goes_back_and_tells_microseconds_since_1970) {
    uint64_t last = kv_async_batch_get_timestamp_us();
    uint64_t seconds = (uint64_t)time(NULL);
    CHECK(last / 1000000 + 5 >= seconds && last / 1000000 <= seconds + 5);
    for (int i = 0; i < 100000; i++) {
        uint64_t t = kv_async_batch_get_timestamp_us();
        CHECK(t >= last);
        last = t;
    }
    uint64_t before = kv_async_batch_get_timestamp_us();
    sleep_ms(3);
    CHECK(kv_async_batch_get_timestamp_us() >= before + 2000);
}

static void *read_clock(void *unused) {
    uint64_t last = 0;
    for (int i = 0; i < 50000; i++) {
        uint64_t t = kv_async_batch_get_timestamp_us();
        CHECK(t >= last);
        last = t;
    }
    return unused;
}

TEST(the_clock_may_be_read_by_many_threads) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++) t[i] = thread_start(read_clock, NULL);
    for (int i = 0; i < 4; i++) thread_join(t[i]);
}
