/* test_uring_misuse.c: what a C caller can do wrong with rings, requests and batches: NULL, garbage, stale handles, wrong states,
 * calls from callbacks, fork. Each gets a code and a message; nothing is followed, nothing hangs. */
#include "uring_case.h"
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

/* ---- configurations ---- */
static void refused(size_t offset, uint32_t value) {
    kv_uring_config_t *c = kv_uring_config_create();
    memcpy((char *)c + offset, &value, sizeof value);
    CHECK_ERR(kv_uring_config_validate(c), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_create(c), KV_ERR_PARAM);
    kv_uring_config_destroy(c);
}

TEST(a_bad_configuration_is_refused) {
    refused(offsetof(kv_uring_config_t, queue_depth), 0);
    refused(offsetof(kv_uring_config_t, queue_depth), 4097);
    refused(offsetof(kv_uring_config_t, queue_depth), UINT32_MAX);
    refused(offsetof(kv_uring_config_t, cq_entries_multiplier), 0);
    refused(offsetof(kv_uring_config_t, cq_entries_multiplier), UINT32_MAX);
    refused(offsetof(kv_uring_config_t, worker_threads), 0);
    refused(offsetof(kv_uring_config_t, worker_threads), 1000000);
    refused(offsetof(kv_uring_config_t, timeout_ms), 0);
    refused(offsetof(kv_uring_config_t, buffer_size), 0);
    refused(offsetof(kv_uring_config_t, buffer_size), KV_URING_MAX_BUFFER_SIZE + 1);
    kv_uring_config_t c;
    memset(&c, 0, sizeof c);
    CHECK_ERR(kv_uring_config_validate(&c), KV_ERR_PARAM);
    memset(&c, 0xff, sizeof c); /* bools that are neither 0 nor 1 among it */
    CHECK_ERR(kv_uring_config_validate(&c), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_create(&c), KV_ERR_PARAM);
}

TEST(setters_check_what_they_set) {
    kv_uring_config_t *c = kv_uring_config_create();
    CHECK_ERR(kv_uring_config_set_queue_depth(c, 0), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_config_set_queue_depth(c, 4097), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_config_set_buffer_size(c, 0), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_config_set_buffer_size(c, SIZE_MAX), KV_ERR_PARAM);
    CHECK_EQ_INT(c->queue_depth, 64);
    CHECK_EQ_INT(c->buffer_size, 65536);
    CHECK_OK(kv_uring_config_set_queue_depth(c, KV_URING_MIN_QUEUE_DEPTH));
    CHECK_OK(kv_uring_config_set_buffer_size(c, KV_URING_MAX_BUFFER_SIZE));
    CHECK_OK(kv_uring_config_set_sq_poll(c, true, 77));
    CHECK_OK(kv_uring_config_set_iopoll(c, true));
    CHECK(c->queue_depth == 1 && c->buffer_size == KV_URING_MAX_BUFFER_SIZE && c->use_sq_poll && c->sq_poll_idle == 77 && c->use_iopoll);
    CHECK_OK(kv_uring_config_validate(c));
    CHECK_ERR(kv_uring_config_set_queue_depth(NULL, 8), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_config_set_sq_poll(NULL, true, 8), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_config_set_iopoll(NULL, true), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_config_set_buffer_size(NULL, 8), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_config_validate(NULL), KV_ERR_PARAM);
    kv_uring_config_destroy(c);
}

TEST(only_what_was_made_is_destroyed) {
    kv_uring_config_t *c = kv_uring_config_create(), mine;
    memset(&mine, 7, sizeof mine);
    kv_uring_config_destroy(c);
    kv_uring_config_destroy(c);
    kv_uring_config_destroy(NULL);
    kv_uring_config_destroy(&mine);
    kv_uring_config_destroy((kv_uring_config_t *)(uintptr_t)0x1234567);
    CHECK_EQ_INT(mine.queue_depth, 0x07070707);
}

/* ---- handles ---- */
static void every_call_refuses(ring_t *ring, req_t *req) {
    ring_stats_t s;
    char x[8];
    struct iovec v = {x, 8};
    CHECK_ERR(kv_uring_start(ring), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_stop(ring), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_read_async(ring, 0, x, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_write_async(ring, 0, x, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_readv_async(ring, 0, &v, 1, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_writev_async(ring, 0, &v, 1, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_fsync_async(ring, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_batch_create(ring, 8), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_submit(ring, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_wait_request(ring, req, 0), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_cancel_request(ring, req), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_submit_and_wait(ring, 1, 0), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_wait_completions(ring, 1, 0), KV_ERR_PARAM);
    CHECK_EQ_INT(kv_uring_submit(ring), -1);
    CHECK_EQ_INT(kvt_last(), KV_ERR_PARAM);
    kv_clear_error();
    CHECK_EQ_INT(kv_uring_peek_completions(ring), -1);
    CHECK_EQ_INT(kvt_last(), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_get_stats(ring, &s), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_reset_stats(ring), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_print_stats(ring, stderr), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_probe_features(ring), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_set_debug_level(ring, 0), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_dump_state(ring, stderr), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_validate_state(ring), KV_ERR_PARAM);
    kv_clear_error();
    CHECK(kv_uring_get_throughput(ring, KV_URING_OP_READ) == 0);
    CHECK_EQ_INT(kvt_last(), KV_ERR_PARAM);
    CHECK(kv_uring_get_latency(ring, KV_URING_OP_READ) == 0);
    kv_uring_destroy(ring);
}

TEST(null_is_refused_everywhere) { every_call_refuses(NULL, NULL); }

TEST(garbage_handles_are_told_apart) {
    char junk[200] = {1, 2, 3};
    manager_t *m = kv_async_batch_manager_create(NULL);
    ring_t *ring = kv_uring_create(NULL);
    ring_t *wrong[] = {(ring_t *)junk, (ring_t *)(uintptr_t)1, (ring_t *)UINTPTR_MAX, (ring_t *)0x6000000000000010u, (ring_t *)m,
                       (ring_t *)((char *)ring + 16), (ring_t *)kv_uring_batch_create(ring, 1)};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) every_call_refuses(wrong[i], (req_t *)junk);
    CHECK_ERR(kv_async_batch_manager_start((manager_t *)ring), KV_ERR_INVALID_PARAM); /* and the other way round */
    kv_uring_batch_destroy((kv_uring_batch_t *)wrong[6]);
    kv_uring_destroy(ring);
    kv_async_batch_manager_destroy(m);
}

TEST(a_destroyed_ring_is_told_apart) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    req_t *w = good(kv_uring_write_async(ring, fd, "x", 1, 0, NULL, NULL));
    CHECK_OK(kv_uring_wait_request(ring, w, FOREVER));
    kv_uring_destroy(ring);
    every_call_refuses(ring, w);
    ring_t *other = ring_open();
    every_call_refuses(ring, w);
    ring_close(other);
}

TEST(garbage_requests_are_told_apart) {
    ring_t *ring = ring_open(), *other = ring_open();
    int fd = new_file("f");
    req_t mine;
    memset(&mine, 0, sizeof mine);
    req_t *w = good(kv_uring_write_async(ring, fd, "x", 1, 0, NULL, NULL));
    CHECK_OK(kv_uring_wait_request(ring, w, FOREVER));
    req_t *wrong[] = {NULL, &mine, (req_t *)(uintptr_t)8, (req_t *)UINTPTR_MAX, (req_t *)((char *)w + 8), (req_t *)ring};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_ERR(kv_uring_wait_request(ring, wrong[i], FOREVER), KV_ERR_PARAM);
        CHECK_ERR(kv_uring_cancel_request(ring, wrong[i]), KV_ERR_PARAM);
        kv_clear_error();
        CHECK_EQ_INT(kv_uring_request_status(wrong[i]), KV_URING_REQ_FAILED);
        CHECK_EQ_INT(kvt_last(), KV_ERR_PARAM);
        CHECK_EQ_INT(kv_uring_request_result(wrong[i]), -EINVAL);
        kv_uring_request_destroy(wrong[i]);
    }
    CHECK_ERR(kv_uring_wait_request(other, w, 0), KV_ERR_PARAM); /* another ring's */
    CHECK_ERR(kv_uring_cancel_request(other, w), KV_ERR_PARAM);
    CHECK_OK(kv_uring_wait_request(ring, w, 0));
    ring_close(other);
    ring_close(ring);
}

TEST(a_destroyed_request_is_told_apart) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    req_t *old = good(kv_uring_write_async(ring, fd, "x", 1, 0, NULL, NULL));
    CHECK_OK(kv_uring_wait_request(ring, old, FOREVER));
    kv_uring_request_destroy(old);
    for (int i = 0; i < 100; i++) {
        req_t *w = good(kv_uring_write_async(ring, fd, "x", 1, 0, NULL, NULL));
        CHECK(w != old); /* its memory rests: the address names nothing */
        kv_uring_request_destroy(old);
        CHECK_ERR(kv_uring_wait_request(ring, old, FOREVER), KV_ERR_PARAM);
        CHECK_OK(kv_uring_wait_request(ring, w, FOREVER));
        kv_uring_request_destroy(w);
    }
    ring_close(ring);
    kv_uring_request_destroy(old);
}

TEST(requests_go_with_their_ring) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    req_t *reqs[50];
    for (int i = 0; i < 50; i++) reqs[i] = good(kv_uring_write_async(ring, fd, "x", 1, 0, NULL, NULL));
    kv_uring_destroy(ring);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ_INT(kv_uring_request_result(reqs[i]), -EINVAL);
        kv_uring_request_destroy(reqs[i]);
    }
}

TEST(a_request_can_be_read_until_it_is_destroyed) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    req_t *first = good(kv_uring_write_async(ring, fd, "abc", 3, 0, NULL, NULL));
    uint64_t id = first->request_id;
    for (int i = 0; i < 3000; i++) CHECK_EQ_INT(write_at(ring, fd, "x", 1, 0), 1);
    CHECK_EQ_INT(first->request_id, id);
    CHECK_EQ_INT(first->result, 3);
    CHECK_EQ_INT(kv_uring_request_result(first), 3);
    CHECK_OK(kv_uring_stop(ring));
    CHECK_EQ_INT(kv_uring_request_status(first), KV_URING_REQ_COMPLETED);
    CHECK_OK(kv_uring_wait_request(ring, first, 0));
    kv_uring_destroy(ring);
}

/* ---- arguments ---- */
TEST(bad_arguments_are_refused) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    char x[8];
    struct iovec v = {x, 8}, null = {NULL, 8}, none = {x, 0}, huge[2] = {{x, SIZE_MAX}, {x, 8}};
    CHECK_NO_HANDLE(kv_uring_read_async(ring, -1, x, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_read_async(ring, fd, NULL, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_read_async(ring, fd, x, 0, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_read_async(ring, fd, x, SIZE_MAX, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_read_async(ring, fd, x, (size_t)INT32_MAX + 1, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_read_async(ring, fd, x, 8, -2, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_read_async(ring, fd, x, 8, INT64_MAX, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_write_async(ring, INT32_MIN, x, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_write_async(ring, fd, NULL, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_readv_async(ring, fd, NULL, 1, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_readv_async(ring, fd, &v, 0, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_readv_async(ring, fd, &v, -1, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_readv_async(ring, fd, &v, 1025, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_writev_async(ring, fd, &null, 1, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_writev_async(ring, fd, &none, 1, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_writev_async(ring, fd, huge, 2, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_fsync_async(ring, -1, NULL, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_get_stats(ring, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_set_debug_level(ring, -1), KV_ERR_PARAM);
    kv_clear_error();
    CHECK(kv_uring_get_latency(ring, (kv_uring_op_type_t)77) == 0);
    CHECK_EQ_INT(kvt_last(), KV_ERR_PARAM);
    CHECK_EQ_INT(ring_stats(ring).submissions_total, 0);
    ring_close(ring);
}

/* Not slow, but valgrind must not see it: it knows as well that the memory is not there. */
SLOW_TEST(memory_that_is_not_there_is_an_error_of_the_request) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    CHECK_EQ_INT(write_at(ring, fd, "12345678", 8, 0), 8);
    req_t *r = good(kv_uring_read_async(ring, fd, (void *)(uintptr_t)64, 8, 0, NULL, NULL));
    CHECK_ERR(kv_uring_wait_request(ring, r, FOREVER), KV_ERR_PARAM);
    CHECK_EQ_INT(r->result, -EFAULT);
    req_t *w = good(kv_uring_write_async(ring, fd, (void *)(uintptr_t)64, 8, 0, NULL, NULL));
    CHECK_ERR(kv_uring_wait_request(ring, w, FOREVER), KV_ERR_PARAM);
    ring_close(ring);
}

/* ---- batches ---- */
TEST(bad_batches_are_refused) {
    ring_t *ring = ring_open(), *other = ring_open();
    char x[8];
    CHECK_NO_HANDLE(kv_uring_batch_create(ring, 0), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_batch_create(ring, KV_URING_MAX_BATCH_SIZE + 1), KV_ERR_PARAM);
    CHECK_NO_HANDLE(kv_uring_batch_create(ring, SIZE_MAX), KV_ERR_PARAM);
    kv_uring_batch_t *b = kv_uring_batch_create(ring, 2);
    CHECK_ERR(kv_uring_batch_submit(ring, b), KV_ERR_PARAM); /* empty */
    CHECK_ERR(kv_uring_batch_add_read(b, -1, x, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_add_read(b, 0, NULL, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_add_write(b, 0, x, 0, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_add_write(b, 0, x, 8, -5, NULL, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_submit(ring, b), KV_ERR_PARAM); /* nothing was added */
    int fd = new_file("f");
    CHECK_OK(kv_uring_batch_add_write(b, fd, "x", 1, 0, NULL, NULL));
    CHECK_ERR(kv_uring_batch_submit(other, b), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_submit(ring, (kv_uring_batch_t *)ring), KV_ERR_PARAM);
    CHECK_OK(kv_uring_batch_submit(ring, b));
    CHECK_OK(kv_uring_wait_completions(ring, 1, FOREVER));
    kv_uring_batch_destroy(b);
    CHECK_ERR(kv_uring_batch_submit(ring, b), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_add_read(b, fd, x, 8, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_add_read(NULL, fd, x, 8, 0, NULL, NULL), KV_ERR_PARAM);
    kv_uring_batch_destroy(NULL);
    kv_uring_batch_destroy((kv_uring_batch_t *)x);
    kv_uring_batch_t *late = kv_uring_batch_create(ring, 2);
    CHECK_OK(kv_uring_batch_add_write(late, fd, "x", 1, 0, NULL, NULL));
    ring_close(ring);
    CHECK_ERR(kv_uring_batch_submit(ring, late), KV_ERR_PARAM);
    CHECK_ERR(kv_uring_batch_submit(other, late), KV_ERR_PARAM);
    kv_uring_batch_destroy(late);
    ring_close(other);
}

/* ---- states ---- */
TEST(a_ring_that_does_not_run_takes_nothing) {
    ring_t *ring = kv_uring_create(NULL);
    int fd = new_file("f");
    for (int round = 0; round < 2; round++) {
        CHECK_NO_HANDLE(kv_uring_write_async(ring, fd, "x", 1, 0, NULL, NULL), KV_ERR_INVALID_STATE);
        kv_uring_batch_t *b = kv_uring_batch_create(ring, 1);
        CHECK_OK(kv_uring_batch_add_write(b, fd, "abc", 3, 0, NULL, NULL));
        CHECK_ERR(kv_uring_batch_submit(ring, b), KV_ERR_INVALID_STATE);
        CHECK_ERR(kv_uring_submit_and_wait(ring, 1, FOREVER), KV_ERR_INVALID_STATE);
        CHECK_ERR(kv_uring_wait_completions(ring, 1, FOREVER), KV_ERR_INVALID_STATE);
        CHECK_EQ_INT(kv_uring_submit(ring), -1);
        CHECK_EQ_INT(kv_uring_peek_completions(ring), 0);
        CHECK_OK(kv_uring_stop(ring));
        CHECK_OK(kv_uring_start(ring));
        CHECK_OK(kv_uring_start(ring));
        CHECK_OK(kv_uring_batch_submit(ring, b)); /* as it was */
        CHECK_OK(kv_uring_wait_completions(ring, 1, FOREVER));
        kv_uring_batch_destroy(b);
        CHECK_OK(kv_uring_stop(ring));
        CHECK_OK(kv_uring_stop(ring));
    }
    kv_uring_destroy(ring);
    kv_uring_destroy(ring);
}

TEST(a_full_queue_says_so) {
    ring_t *ring = ring_with(3, 5000);
    int ends[2], fd = new_file("f");
    new_pipe(ends);
    char in[3];
    for (int i = 0; i < 3; i++) good(kv_uring_read_async(ring, ends[0], in + i, 1, 0, NULL, NULL));
    CHECK_NO_HANDLE(kv_uring_fsync_async(ring, fd, NULL, NULL), KV_ERR_BUSY);
    kv_uring_batch_t *b = kv_uring_batch_create(ring, 1);
    CHECK_OK(kv_uring_batch_add_write(b, fd, "abc", 3, 0, NULL, NULL));
    CHECK_ERR(kv_uring_batch_submit(ring, b), KV_ERR_BUSY);
    CHECK_EQ_INT(ring_stats(ring).queue_full_count, 2);
    CHECK_EQ_INT(write(ends[1], "x", 1), 1);
    CHECK_OK(kv_uring_wait_completions(ring, 1, FOREVER));
    CHECK_OK(kv_uring_batch_submit(ring, b));
    CHECK_OK(kv_uring_wait_completions(ring, 1, FOREVER));
    CHECK_EQ_INT(ring_stats(ring).submissions_total, 4);
    kv_uring_batch_destroy(b);
    ring_close(ring);
}

/* ---- from callbacks ---- */
typedef struct { ring_t *ring; int fd, code[6]; gate_t gate; } inside_t;

static void wait_inside(req_t *req, int result, void *data) {
    UNUSED(result);
    inside_t *in = data;
    in->code[0] = kv_uring_wait_request(in->ring, req, FOREVER);
    in->code[1] = kv_uring_wait_completions(in->ring, 1, 1000);
    in->code[2] = kv_uring_stop(in->ring);
    in->code[3] = kv_uring_wait_request(in->ring, req, 0);
    in->code[4] = kv_uring_submit_and_wait(in->ring, 1, FOREVER);
    in->code[5] = kv_uring_request_result(req);
    gate_open(&in->gate);
}

TEST(a_callback_must_not_wait_for_its_own_ring) {
    inside_t in = {.ring = ring_open(), .fd = new_file("f"), .gate = GATE_INIT};
    req_t *w = good(kv_uring_write_async(in.ring, in.fd, "abc", 3, 0, wait_inside, &in));
    CHECK_OK(kv_uring_wait_request(in.ring, w, FOREVER));
    int wanted[6] = {KV_ERR_INVALID_STATE, KV_ERR_INVALID_STATE, KV_ERR_INVALID_STATE, KV_ERR_TIMEOUT, KV_ERR_INVALID_STATE, 3};
    for (int i = 0; i < 6; i++) CHECK_EQ_INT(in.code[i], wanted[i]);
    ring_close(in.ring);
}

static void next_link(req_t *req, int result, void *data) {
    inside_t *in = data;
    CHECK_EQ_INT(result, 1);
    kv_uring_request_destroy(req);
    CHECK_EQ_INT(req->result, 1); /* readable until we return */
    if (++in->code[0] < 10000) good(kv_uring_write_async(in->ring, in->fd, "x", 1, in->code[0], next_link, in));
    else gate_open(&in->gate);
}

TEST(callbacks_submit_and_destroy) {
    inside_t in = {.ring = ring_with(1, 5000), .fd = new_file("f"), .gate = GATE_INIT};
    good(kv_uring_write_async(in.ring, in.fd, "x", 1, 0, next_link, &in));
    gate_wait(&in.gate, 1);
    CHECK_EQ_INT(in.code[0], 10000);
    ring_close(in.ring);
    CHECK_EQ_INT(lseek(in.fd, 0, SEEK_END), 10000);
}

static void use_another(req_t *req, int result, void *data) {
    UNUSED(req);
    UNUSED(result);
    inside_t *in = data;
    in->code[0] = write_at(in->ring, in->fd, "other", 5, 0);
    manager_t *m = open_default();
    put_one(m, "k", "from a callback");
    close_manager(m);
    gate_open(&in->gate);
}

TEST(a_callback_waits_for_another_ring_and_for_a_store) {
    ring_t *ring = ring_open();
    inside_t in = {.ring = ring_open(), .fd = new_file("f"), .gate = GATE_INIT};
    good(kv_uring_fsync_async(ring, in.fd, use_another, &in));
    gate_wait(&in.gate, 1);
    CHECK_EQ_INT(in.code[0], 5);
    ring_close(ring);
    ring_close(in.ring);
}

static void destroy_ring(req_t *req, int result, void *data) {
    UNUSED(result);
    inside_t *in = data;
    kv_uring_destroy(in->ring);
    in->code[0] = kv_uring_validate_state(in->ring);
    in->code[1] = req->result;
    gate_open(&in->gate);
}

TEST(a_callback_destroys_its_own_ring) {
    inside_t in = {.ring = ring_open(), .fd = new_file("f"), .gate = GATE_INIT};
    int ends[2];
    char x[1];
    new_pipe(ends);
    end_t end = END_INIT;
    good(kv_uring_read_async(in.ring, ends[0], x, 1, 0, on_end, &end));
    good(kv_uring_write_async(in.ring, in.fd, "abc", 3, 0, destroy_ring, &in));
    gate_wait(&in.gate, 1);
    CHECK_EQ_INT(in.code[0], KV_ERR_PARAM);
    CHECK_EQ_INT(in.code[1], 3);
    gate_wait(&end.gate, 1); /* the others get theirs */
    CHECK_EQ_INT(end.result, -ECANCELED);
    every_call_refuses(in.ring, NULL);
}

TEST(errno_is_the_callers) {
    ring_t *ring = ring_open();
    end_t end = END_INIT;
    int fd = new_file("f");
    errno = 4711;
    req_t *w = good(kv_uring_write_async(ring, fd, "x", 1, 0, on_end, &end));
    CHECK_OK(kv_uring_wait_request(ring, w, FOREVER));
    CHECK_NO_HANDLE(kv_uring_read_async(ring, -1, NULL, 0, 0, NULL, NULL), KV_ERR_PARAM);
    CHECK_EQ_INT(errno, 4711);
    ring_close(ring);
}

/* ---- fork ---- */
static ring_t *shared;
static req_t *shared_req;

static void forked(void (*body)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        body();
        raise(SIGKILL); /* see test_fork.c */
    }
    int status = join_status(pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) kvt_fail(__FILE__, __LINE__, "the child ended with status %x", status);
}

static void child_is_refused(void) {
    char x[8];
    ring_stats_t s;
    CHECK_ERR(kv_uring_start(shared), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_uring_stop(shared), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_uring_read_async(shared, 0, x, 8, 0, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_uring_create(NULL), KV_ERR_INVALID_STATE);
    CHECK_NO_HANDLE(kv_uring_batch_create(shared, 1), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_uring_wait_request(shared, shared_req, 0), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_uring_cancel_request(shared, shared_req), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_uring_get_stats(shared, &s), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(kv_uring_request_status(shared_req), KV_URING_REQ_FAILED);
    CHECK(!kv_uring_is_supported());
    CHECK(kv_uring_get_timestamp_us() > 0);
    CHECK_EQ_STR(kv_uring_op_name(KV_URING_OP_READ), "READ");
    kv_uring_config_t *c = kv_uring_config_create();
    CHECK_OK(kv_uring_config_set_queue_depth(c, 8));
    CHECK_OK(kv_uring_config_validate(c));
    kv_uring_config_destroy(c);
    kv_uring_request_destroy(shared_req);
    kv_uring_destroy(shared);
    kv_uring_destroy(shared);
}

TEST(a_forked_child_is_refused_and_the_parent_goes_on) {
    shared = ring_open();
    int ends[2];
    char in[10];
    new_pipe(ends);
    end_t end = END_INIT;
    shared_req = good(kv_uring_read_async(shared, ends[0], in, 10, 0, on_end, &end));
    forked(child_is_refused);
    CHECK_EQ_INT(write(ends[1], "abc", 3), 3);
    CHECK_OK(kv_uring_wait_request(shared, shared_req, FOREVER));
    CHECK_EQ_INT(end.result, 3);
    ring_close(shared);
}

static void child_uses_its_own(void) {
    ring_t *ring = ring_open();
    int fd = new_file("child");
    CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3);
    ring_close(ring);
}

TEST(a_process_that_forks_before_its_first_start_is_not_concerned) {
    ring_t *ring = kv_uring_create(NULL);
    forked(child_uses_its_own);
    CHECK_OK(kv_uring_start(ring));
    ring_close(ring);
}
