/* test_layout_uring.c: sizes, offsets and numbers of kv_io_uring.h that programs compiled against the original have built in, and the
 * names of its numbers. */
#include "kvserver/kv_io_uring.h"
#include "uring_case.h"
#include <stddef.h>

#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "sizeof " #type)
#define FIELD(type, field, c_type) _Static_assert(_Generic(((type *)0)->field, c_type: 1, default: 0), #type "." #field " is no " #c_type)
#define NUMBER(name, value) _Static_assert((name) == (value), #name)
#define MEMBER(type, field, offset, c_type) AT(type, field, offset); FIELD(type, field, c_type)

typedef kv_uring_config_t ring_config_t;
SIZE(ring_config_t, 40);
SIZE(struct kv_uring_config_s, 40);
MEMBER(ring_config_t, queue_depth, 0, uint32_t);
MEMBER(ring_config_t, sq_poll_idle, 4, uint32_t);
MEMBER(ring_config_t, use_sq_poll, 8, bool);
MEMBER(ring_config_t, use_iopoll, 9, bool);
MEMBER(ring_config_t, use_kernel_sqe_thread, 10, bool);
MEMBER(ring_config_t, cq_entries_multiplier, 12, uint32_t);
MEMBER(ring_config_t, worker_threads, 16, uint32_t);
MEMBER(ring_config_t, timeout_ms, 20, uint32_t);
MEMBER(ring_config_t, buffer_size, 24, size_t);
MEMBER(ring_config_t, allocator, 32, void *);

SIZE(req_t, 160);
SIZE(struct kv_uring_request_s, 160);
MEMBER(req_t, request_id, 0, uint64_t);
AT(req_t, op_type, 8);
SIZE(((req_t *)0)->op_type, 4);
AT(req_t, status, 12);
SIZE(((req_t *)0)->status, 4);
MEMBER(req_t, fd, 16, int);
MEMBER(req_t, buffer, 24, void *);
MEMBER(req_t, size, 32, size_t);
MEMBER(req_t, offset, 40, off_t);
MEMBER(req_t, iovecs, 48, struct iovec *);
MEMBER(req_t, iovcnt, 56, int);
MEMBER(req_t, callback, 64, kv_uring_callback_t);
MEMBER(req_t, user_data, 72, void *);
MEMBER(req_t, result, 80, int);
MEMBER(req_t, submit_time, 88, struct timespec);
MEMBER(req_t, complete_time, 104, struct timespec);
MEMBER(req_t, owns_buffer, 136, bool);
MEMBER(req_t, next, 144, struct kv_uring_request_s *);
MEMBER(req_t, prev, 152, struct kv_uring_request_s *);

SIZE(ring_stats_t, 184);
SIZE(struct kv_uring_stats_s, 184);
#define STAT(index, field, c_type) MEMBER(ring_stats_t, field, 8 * (index), c_type)
STAT(0, read_count, uint64_t);
STAT(1, write_count, uint64_t);
STAT(2, readv_count, uint64_t);
STAT(3, writev_count, uint64_t);
STAT(4, sync_count, uint64_t);
STAT(5, total_operations, uint64_t);
STAT(6, bytes_read, uint64_t);
STAT(7, bytes_written, uint64_t);
STAT(8, total_submit_time, uint64_t);
STAT(9, total_complete_time, uint64_t);
STAT(10, total_queue_time, uint64_t);
STAT(11, submissions_total, uint64_t);
STAT(12, completions_total, uint64_t);
STAT(13, submissions_batched, uint64_t);
STAT(14, queue_full_count, uint64_t);
STAT(15, error_count, uint64_t);
STAT(16, timeout_count, uint64_t);
STAT(17, cancelled_count, uint64_t);
STAT(18, avg_submit_latency, double);
STAT(19, avg_complete_latency, double);
STAT(20, avg_queue_depth, double);
STAT(21, read_throughput, double);
STAT(22, write_throughput, double);

SIZE(kv_uring_op_type_t, 4);
SIZE(enum kv_uring_req_status_e, 4);
SIZE(kv_uring_req_status_t, 4);
NUMBER(KV_URING_OP_READ, 0);
NUMBER(KV_URING_OP_WRITE, 1);
NUMBER(KV_URING_OP_READV, 2);
NUMBER(KV_URING_OP_WRITEV, 3);
NUMBER(KV_URING_OP_FSYNC, 4);
NUMBER(KV_URING_OP_FDATASYNC, 5);
NUMBER(KV_URING_OP_OPENAT, 6);
NUMBER(KV_URING_OP_CLOSE, 7);
NUMBER(KV_URING_OP_FALLOCATE, 8);
NUMBER(KV_URING_REQ_PENDING, 0);
NUMBER(KV_URING_REQ_SUBMITTED, 1);
NUMBER(KV_URING_REQ_COMPLETED, 2);
NUMBER(KV_URING_REQ_FAILED, 3);
NUMBER(KV_URING_REQ_CANCELLED, 4);
NUMBER(KV_URING_DEFAULT_QUEUE_DEPTH, 64);
NUMBER(KV_URING_MAX_QUEUE_DEPTH, 4096);
NUMBER(KV_URING_MIN_QUEUE_DEPTH, 1);
NUMBER(KV_URING_DEFAULT_BUFFER_SIZE, 65536);
NUMBER(KV_URING_MAX_BUFFER_SIZE, 16777216);
NUMBER(KV_URING_MAX_BATCH_SIZE, 256);
NUMBER(KV_URING_TIMEOUT_MS, 5000);

TEST(the_library_agrees_on_the_configuration) {
    /* Filled with the defaults by a library that was compiled elsewhere. */
    ring_config_t *c = kv_uring_config_create();
    CHECK(c != NULL);
    CHECK_EQ_INT(c->queue_depth, 64);
    CHECK_EQ_INT(c->sq_poll_idle, 1000);
    CHECK(!c->use_sq_poll && !c->use_iopoll && !c->use_kernel_sqe_thread);
    CHECK_EQ_INT(c->cq_entries_multiplier, 2);
    CHECK_EQ_INT(c->worker_threads, 1);
    CHECK_EQ_INT(c->timeout_ms, 5000);
    CHECK_EQ_INT(c->buffer_size, 65536);
    CHECK(c->allocator == NULL);
    CHECK_OK(kv_uring_config_validate(c));
    kv_uring_config_destroy(c);
}

TEST(the_library_agrees_on_the_statistics) {
    struct { ring_stats_t stats; unsigned char behind[64]; } s;
    memset(&s, 0xa5, sizeof s);
    ring_t *ring = kv_uring_create(NULL);
    CHECK_OK(kv_uring_get_stats(ring, &s.stats));
    for (size_t i = 0; i < sizeof s.stats; i++) CHECK_EQ_INT(((unsigned char *)&s.stats)[i], 0);
    for (size_t i = 0; i < sizeof s.behind; i++) CHECK_EQ_INT(s.behind[i], 0xa5);
    kv_uring_destroy(ring);
}

TEST(numbers_have_names) {
    const char *ops[] = {"READ", "WRITE", "READV", "WRITEV", "FSYNC", "FDATASYNC", "OPENAT", "CLOSE", "FALLOCATE"};
    const char *statuses[] = {"PENDING", "SUBMITTED", "COMPLETED", "FAILED", "CANCELLED"};
    for (int i = 0; i < 9; i++) CHECK_EQ_STR(kv_uring_op_name((kv_uring_op_type_t)i), ops[i]);
    for (int i = 0; i < 5; i++) CHECK_EQ_STR(kv_uring_status_name((kv_uring_req_status_t)i), statuses[i]);
    int wrong[] = {-1, 9, 5000, INT32_MIN, INT32_MAX};
    for (int i = 0; i < 5; i++) {
        CHECK_EQ_STR(kv_uring_op_name((kv_uring_op_type_t)wrong[i]), "UNKNOWN");
        CHECK_EQ_STR(kv_uring_status_name((kv_uring_req_status_t)wrong[i]), "UNKNOWN");
    }
    CHECK_EQ_STR(kv_uring_status_name((kv_uring_req_status_t)5), "UNKNOWN");
}
