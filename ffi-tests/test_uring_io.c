/* test_uring_io.c: rings at work: round trips of every operation, waiting, callbacks, batches, statistics, many rounds. */
#include "uring_case.h"
#include <sys/socket.h>

TEST(a_write_is_read_back) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    unsigned char out[65536], in[65536];
    for (int i = 0; i < 65536; i++) out[i] = (unsigned char)(i % 256);
    memset(in, 0, sizeof in);
    end_t wrote = END_INIT, got = END_INIT, synced = END_INIT;
    req_t *w = good(kv_uring_write_async(ring, fd, out, sizeof out, 0, on_end, &wrote));
    CHECK_OK(kv_uring_wait_request(ring, w, 10000));
    CHECK_EQ_INT(wrote.calls, 1); /* the callback has returned */
    CHECK_EQ_INT(wrote.result, 65536);
    req_t *r = good(kv_uring_read_async(ring, fd, in, sizeof in, 0, on_end, &got));
    CHECK_OK(kv_uring_wait_request(ring, r, 10000));
    CHECK_EQ_INT(got.result, 65536);
    CHECK_EQ_MEM(in, sizeof in, out, sizeof out);
    req_t *s = good(kv_uring_fsync_async(ring, fd, on_end, &synced));
    CHECK_OK(kv_uring_wait_request(ring, s, 10000));
    CHECK_EQ_INT(synced.calls, 1);
    CHECK_EQ_INT(synced.result, 0);
    CHECK(w->request_id == wrote.id && r->request_id == got.id && s->request_id == synced.id);
    kv_uring_request_destroy(w);
    kv_uring_request_destroy(r);
    kv_uring_request_destroy(s);
    ring_close(ring);
    close(fd);
}

TEST(vectors_are_written_and_read_back) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    end_t wrote = END_INIT, got = END_INIT;
    char a[] = "first", b[] = "second one", c[] = "3", x[8] = {0}, y[9] = {0};
    struct iovec out[3] = {{a, 5}, {b, 10}, {c, 1}};
    req_t *w = good(kv_uring_writev_async(ring, fd, out, 3, 100, on_end, &wrote));
    memset(out, 0xff, sizeof out); /* the array is copied */
    CHECK_OK(kv_uring_wait_request(ring, w, FOREVER));
    CHECK_EQ_INT(wrote.result, 16);
    struct iovec in[2] = {{x, 7}, {y, 9}};
    req_t *r = good(kv_uring_readv_async(ring, fd, in, 2, 100, on_end, &got));
    memset(in, 0xff, sizeof in);
    CHECK_OK(kv_uring_wait_request(ring, r, FOREVER));
    CHECK_EQ_INT(got.result, 16);
    CHECK_EQ_MEM(x, 7, "firstse", 7);
    CHECK_EQ_MEM(y, 9, "cond one3", 9);
    CHECK_EQ_INT(w->iovcnt, 3);
    CHECK(w->iovecs != out && w->iovecs[1].iov_base == b && w->iovecs[1].iov_len == 10);
    CHECK_EQ_INT(w->op_type, KV_URING_OP_WRITEV);
    ring_close(ring);
}

TEST(a_request_says_what_it_is) {
    ring_t *ring = ring_open();
    int fd = new_file("f"), mark;
    end_t end = END_INIT;
    uint64_t before = kv_uring_get_timestamp_us();
    req_t *w = good(kv_uring_write_async(ring, fd, "12345", 5, 7, on_end, &end));
    CHECK_OK(kv_uring_wait_request(ring, w, FOREVER));
    uint64_t after = kv_uring_get_timestamp_us();
    CHECK(w->request_id > 0);
    CHECK_EQ_INT(w->op_type, KV_URING_OP_WRITE);
    CHECK_EQ_INT(w->status, KV_URING_REQ_COMPLETED);
    CHECK_EQ_INT(w->fd, fd);
    CHECK_EQ_INT(w->size, 5);
    CHECK_EQ_INT(w->offset, 7);
    CHECK(w->iovecs == NULL && w->iovcnt == 0 && w->callback == on_end && w->user_data == &end && !w->owns_buffer);
    CHECK_EQ_INT(w->result, 5);
    uint64_t began = (uint64_t)w->submit_time.tv_sec * 1000000 + (uint64_t)w->submit_time.tv_nsec / 1000;
    uint64_t ended = (uint64_t)w->complete_time.tv_sec * 1000000 + (uint64_t)w->complete_time.tv_nsec / 1000;
    CHECK(before <= began && began <= ended && ended <= after);
    CHECK(end.req == w && end.status == KV_URING_REQ_COMPLETED && end.stored_result == 5 && end.user_data == &end);
    CHECK(!pthread_equal(end.thread, pthread_self()));
    req_t *next = good(kv_uring_fsync_async(ring, fd, NULL, &mark));
    CHECK(next->request_id > w->request_id && next->user_data == &mark);
    ring_close(ring);
}

TEST(the_end_of_a_file_ends_a_read) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    char in[100];
    CHECK_EQ_INT(write_at(ring, fd, "0123456789", 10, 0), 10);
    CHECK_EQ_INT(read_at(ring, fd, in, 100, 0), 10);
    CHECK_EQ_INT(read_at(ring, fd, in, 100, 8), 2);
    CHECK_EQ_INT(read_at(ring, fd, in, 100, 10), 0);
    CHECK_EQ_INT(read_at(ring, fd, in, 100, 1 << 20), 0);
    CHECK_EQ_MEM(in, 2, "89", 2);
    ring_close(ring);
}

TEST(offset_minus_one_is_the_descriptors_own_position) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    char in[4];
    CHECK_EQ_INT(write_at(ring, fd, "abcd", 4, -1), 4);
    CHECK_EQ_INT(write_at(ring, fd, "efgh", 4, -1), 4);
    CHECK_EQ_INT(lseek(fd, 0, SEEK_CUR), 8);
    CHECK_EQ_INT(lseek(fd, 2, SEEK_SET), 2);
    CHECK_EQ_INT(read_at(ring, fd, in, 4, -1), 4);
    CHECK_EQ_MEM(in, 4, "cdef", 4);
    ring_close(ring);
}

TEST(a_large_transfer_is_whole) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    size_t size = 48u << 20;
    char *out = malloc(size), *in = calloc(1, size);
    CHECK(out && in);
    uint64_t chance = 7;
    for (size_t i = 0; i < size; i += 8) { uint64_t z = next_random(&chance); memcpy(out + i, &z, 8); }
    CHECK_EQ_INT(write_at(ring, fd, out, size, 0), (long long)size);
    CHECK_EQ_INT(read_at(ring, fd, in, size, 0), (long long)size);
    CHECK(memcmp(out, in, size) == 0);
    free(out);
    free(in);
    ring_close(ring);
}

TEST(many_pieces_are_whole) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    static char out[1024][64], in[1024][64];
    struct iovec o[1024], i[1024];
    for (int k = 0; k < 1024; k++) {
        memset(out[k], 'a' + k % 26, 64);
        o[k] = (struct iovec){out[k], (size_t)(k % 65)};
        i[k] = (struct iovec){in[k], (size_t)(k % 65)};
    }
    int total = finish(ring, kv_uring_writev_async(ring, fd, o, 1024, 0, NULL, NULL));
    CHECK(total > 30000);
    CHECK_EQ_INT(finish(ring, kv_uring_readv_async(ring, fd, i, 1024, 0, NULL, NULL)), total);
    for (int k = 0; k < 1024; k++) CHECK_EQ_MEM(in[k], (size_t)(k % 65), out[k], (size_t)(k % 65));
    ring_close(ring);
}

TEST(a_pipe_gives_what_is_there) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[100];
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 100, 0, NULL, NULL));
    CHECK_ERR(kv_uring_wait_request(ring, r, 20), KV_ERR_TIMEOUT);
    CHECK_EQ_INT(kv_uring_request_status(r), KV_URING_REQ_SUBMITTED);
    CHECK_EQ_INT(kv_uring_request_result(r), -EINPROGRESS);
    CHECK_EQ_INT(write_at(ring, ends[1], "hello", 5, 0), 5);
    CHECK_EQ_INT(finish(ring, r), 5);
    CHECK_EQ_MEM(in, 5, "hello", 5);
    r = good(kv_uring_read_async(ring, ends[0], in, 100, 0, NULL, NULL));
    close(ends[1]);
    CHECK_EQ_INT(finish(ring, r), 0);
    ring_close(ring);
}

static void *drain(void *fd) {
    static char all[400000];
    size_t got = 0;
    while (got < sizeof all) {
        ssize_t n = read(*(int *)fd, all + got, sizeof all - got);
        CHECK(n > 0);
        got += (size_t)n;
    }
    return all;
}

TEST(a_write_larger_than_a_pipe_is_whole) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    static char out[400000];
    for (size_t i = 0; i < sizeof out; i++) out[i] = (char)(i * 7);
    req_t *w = good(kv_uring_write_async(ring, ends[1], out, sizeof out, 0, NULL, NULL));
    pthread_t reader = thread_start(drain, &ends[0]);
    CHECK_EQ_INT(finish(ring, w), sizeof out);
    void *in;
    CHECK_EQ_INT(pthread_join(reader, &in), 0);
    CHECK(memcmp(in, out, sizeof out) == 0);
    ring_close(ring);
}

TEST(sockets_work_both_ways) {
    ring_t *ring = ring_open();
    int ends[2];
    CHECK_EQ_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    char in[10], back[10];
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 10, 0, NULL, NULL));
    CHECK_EQ_INT(write_at(ring, ends[1], "ping", 4, 0), 4);
    CHECK_EQ_INT(finish(ring, r), 4);
    CHECK_EQ_INT(write_at(ring, ends[0], "pong", 4, 0), 4);
    CHECK_EQ_INT(read_at(ring, ends[1], back, 10, 0), 4);
    CHECK_EQ_MEM(back, 4, "pong", 4);
    ring_close(ring);
}

TEST(a_full_queue_of_requests_ends) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    static char out[64][4096], in[64][4096];
    req_t *reqs[64];
    for (int i = 0; i < 64; i++) {
        memset(out[i], i + 1, 4096);
        reqs[i] = good(kv_uring_write_async(ring, fd, out[i], 4096, i * 4096, NULL, NULL));
    }
    for (int i = 0; i < 64; i++) CHECK_EQ_INT(finish(ring, reqs[i]), 4096);
    for (int i = 0; i < 64; i++) reqs[i] = good(kv_uring_read_async(ring, fd, in[i], 4096, i * 4096, NULL, NULL));
    for (int i = 63; i >= 0; i--) CHECK_EQ_INT(finish(ring, reqs[i]), 4096);
    CHECK(memcmp(in, out, sizeof in) == 0);
    ring_close(ring);
}

static void rounds(int count) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    for (int i = 0; i < count; i++) {
        unsigned char out[512], in[512];
        end_t wrote = END_INIT, got = END_INIT, synced = END_INIT;
        memset(out, i, sizeof out);
        off_t offset = (off_t)(i % 100) * 512;
        req_t *w = good(kv_uring_write_async(ring, fd, out, 512, offset, on_end, &wrote));
        CHECK_OK(kv_uring_wait_request(ring, w, FOREVER));
        CHECK(wrote.calls == 1 && wrote.result == 512 && wrote.id == w->request_id);
        req_t *r = good(kv_uring_read_async(ring, fd, in, 512, offset, on_end, &got));
        CHECK_OK(kv_uring_wait_request(ring, r, FOREVER));
        CHECK(got.calls == 1 && got.result == 512 && memcmp(in, out, 512) == 0);
        req_t *s = good(kv_uring_fsync_async(ring, fd, on_end, &synced));
        CHECK_OK(kv_uring_wait_request(ring, s, FOREVER));
        CHECK(synced.calls == 1 && synced.result == 0);
        kv_uring_request_destroy(w);
        kv_uring_request_destroy(r);
        kv_uring_request_destroy(s);
    }
    ring_stats_t stats = ring_stats(ring);
    CHECK_EQ_INT(stats.total_operations, 3 * count);
    CHECK_EQ_INT(stats.completions_total, 3 * count);
    CHECK_EQ_INT(stats.error_count, 0);
    ring_close(ring);
}

TEST(a_hundred_rounds_of_write_read_fsync) { rounds(100); }
SLOW_TEST(ten_thousand_rounds_of_write_read_fsync) { rounds(10000); }

static void *rounds_in_thread(void *ring) {
    static atomic_int numbers;
    char name[32];
    snprintf(name, sizeof name, "t%d", atomic_fetch_add(&numbers, 1));
    int fd = new_file(name);
    for (int i = 0; i < 200; i++) {
        int out = i, in = -1;
        CHECK_EQ_INT(write_at(ring, fd, &out, sizeof out, i * 4), 4);
        CHECK_EQ_INT(read_at(ring, fd, &in, sizeof in, i * 4), 4);
        CHECK_EQ_INT(in, i);
    }
    close(fd);
    return NULL;
}

TEST(threads_share_a_ring) {
    ring_t *ring = ring_open();
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) threads[i] = thread_start(rounds_in_thread, ring);
    for (int i = 0; i < 8; i++) thread_join(threads[i]);
    CHECK_EQ_INT(ring_stats(ring).completions_total, 3200);
    ring_close(ring);
}

TEST(rings_do_not_disturb_each_other) {
    ring_t *rings[5];
    pthread_t threads[5];
    for (int i = 0; i < 5; i++) threads[i] = thread_start(rounds_in_thread, rings[i] = ring_open());
    for (int i = 0; i < 5; i++) thread_join(threads[i]);
    for (int i = 0; i < 5; i++) CHECK_EQ_INT(ring_stats(rings[i]).completions_total, 400);
    for (int i = 0; i < 5; i++) ring_close(rings[i]);
}

static void *wait_for_it(void *both) {
    void **args = both;
    CHECK_OK(kv_uring_wait_request(args[0], args[1], FOREVER));
    return NULL;
}

TEST(several_threads_wait_for_one_request) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[10];
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 10, 0, NULL, NULL));
    void *both[2] = {ring, r};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) threads[i] = thread_start(wait_for_it, both);
    sleep_ms(20);
    CHECK_EQ_INT(write(ends[1], "x", 1), 1);
    for (int i = 0; i < 4; i++) thread_join(threads[i]);
    CHECK_OK(kv_uring_wait_request(ring, r, 0)); /* and again, after the end */
    ring_close(ring);
}

TEST(callbacks_come_without_a_wait) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    end_t end = END_INIT;
    good(kv_uring_write_async(ring, fd, "x", 1, 0, on_end, &end));
    gate_wait(&end.gate, 1);
    CHECK_EQ_INT(end.result, 1);
    ring_close(ring);
    CHECK_EQ_INT(end.calls, 1);
}

TEST(callbacks_come_one_at_a_time_and_each_once) {
    ring_t *ring = ring_with(512, 5000);
    int fd = new_file("f");
    atomic_int calls = 0;
    for (int i = 0; i < 500; i++) kv_uring_request_destroy(good(kv_uring_write_async(ring, fd, "abc", 3, i, on_end_count, &calls)));
    CHECK_OK(kv_uring_stop(ring));
    CHECK_EQ_INT(calls, 500);
    kv_uring_destroy(ring);
    CHECK_EQ_INT(calls, 500);
}

/* ---- counting completions ---- */
TEST(completions_are_waited_for_by_number) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    for (int i = 0; i < 10; i++) good(kv_uring_write_async(ring, fd, "abc", 3, i, NULL, NULL));
    CHECK(kv_uring_submit(ring) >= 0);
    CHECK_OK(kv_uring_wait_completions(ring, 4, FOREVER));
    CHECK_OK(kv_uring_wait_completions(ring, 6, FOREVER));
    CHECK_EQ_INT(kv_uring_peek_completions(ring), 0);
    CHECK_ERR(kv_uring_wait_completions(ring, 1, 0), KV_ERR_TIMEOUT);
    CHECK_ERR(kv_uring_wait_completions(ring, 1, 10), KV_ERR_TIMEOUT);
    CHECK_OK(kv_uring_wait_completions(ring, 0, 0));
    ring_close(ring);
}

TEST(submit_and_wait_waits) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    atomic_int calls = 0;
    for (int i = 0; i < 8; i++) good(kv_uring_write_async(ring, fd, "abc", 3, i, on_end_count, &calls));
    CHECK_OK(kv_uring_submit_and_wait(ring, 8, FOREVER));
    CHECK_EQ_INT(calls, 8);
    CHECK_OK(kv_uring_submit_and_wait(ring, 0, FOREVER));
    CHECK_ERR(kv_uring_submit_and_wait(ring, 1, 5), KV_ERR_TIMEOUT);
    ring_close(ring);
}

TEST(peek_looks_only_and_what_was_waited_for_is_gone) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    req_t *a = good(kv_uring_write_async(ring, fd, "abc", 3, 0, NULL, NULL));
    req_t *b = good(kv_uring_write_async(ring, fd, "abc", 3, 0, NULL, NULL));
    req_t *c = good(kv_uring_write_async(ring, fd, "abc", 3, 0, NULL, NULL));
    while (kv_uring_peek_completions(ring) < 3) sleep_ms(1);
    CHECK_EQ_INT(kv_uring_peek_completions(ring), 3);
    CHECK_OK(kv_uring_wait_request(ring, b, 0));
    CHECK_OK(kv_uring_wait_request(ring, b, 0));
    CHECK_EQ_INT(kv_uring_peek_completions(ring), 2);
    kv_uring_request_destroy(a);
    CHECK_EQ_INT(kv_uring_peek_completions(ring), 1);
    CHECK_OK(kv_uring_wait_completions(ring, 1, 0));
    CHECK_EQ_INT(kv_uring_peek_completions(ring), 0);
    CHECK_OK(kv_uring_wait_request(ring, c, 0));
    ring_close(ring);
}

/* ---- batches ---- */
TEST(a_batch_is_written_and_read_back) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    static char out[100][100], in[100][100];
    atomic_int calls = 0;
    kv_uring_batch_t *batch = kv_uring_batch_create(ring, 100);
    CHECK(batch != NULL);
    for (int i = 0; i < 100; i++) {
        memset(out[i], i, 100);
        CHECK_OK(kv_uring_batch_add_write(batch, fd, out[i], 100, i * 100, on_end_count, &calls));
    }
    CHECK_EQ_INT(calls, 0);
    CHECK_OK(kv_uring_batch_submit(ring, batch));
    CHECK_OK(kv_uring_wait_completions(ring, 100, FOREVER));
    CHECK_EQ_INT(calls, 100);
    /* It is empty again. */
    for (int i = 0; i < 100; i++) CHECK_OK(kv_uring_batch_add_read(batch, fd, in[i], 100, i * 100, on_end_count, &calls));
    CHECK_OK(kv_uring_batch_submit(ring, batch));
    CHECK_OK(kv_uring_wait_completions(ring, 100, FOREVER));
    CHECK_EQ_INT(calls, 200);
    CHECK(memcmp(in, out, sizeof in) == 0);
    ring_stats_t s = ring_stats(ring);
    CHECK_EQ_INT(s.submissions_batched, 200);
    CHECK_EQ_INT(s.submissions_total, 200);
    kv_uring_batch_destroy(batch);
    ring_close(ring);
}

TEST(a_batch_larger_than_the_queue_is_carried_out) {
    ring_t *ring = ring_with(4, 5000);
    int fd = new_file("f");
    atomic_int calls = 0;
    kv_uring_batch_t *batch = kv_uring_batch_create(ring, KV_URING_MAX_BATCH_SIZE);
    CHECK(batch != NULL);
    for (int i = 0; i < KV_URING_MAX_BATCH_SIZE; i++) CHECK_OK(kv_uring_batch_add_write(batch, fd, "abcd", 4, i * 4, on_end_count, &calls));
    CHECK_OK(kv_uring_batch_submit(ring, batch));
    CHECK_OK(kv_uring_wait_completions(ring, KV_URING_MAX_BATCH_SIZE, FOREVER));
    CHECK_EQ_INT(calls, KV_URING_MAX_BATCH_SIZE);
    CHECK_EQ_INT(lseek(fd, 0, SEEK_END), 4 * KV_URING_MAX_BATCH_SIZE);
    kv_uring_batch_destroy(batch);
    ring_close(ring);
}

TEST(a_batch_is_used_a_thousand_times) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    kv_uring_batch_t *batch = kv_uring_batch_create(ring, 3);
    atomic_int calls = 0;
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < 3; i++) CHECK_OK(kv_uring_batch_add_write(batch, fd, "abc", 3, i, on_end_count, &calls));
        CHECK_ERR(kv_uring_batch_add_write(batch, fd, "abc", 3, 0, on_end_count, &calls), KV_ERR_BATCH_FULL);
        CHECK_OK(kv_uring_batch_submit(ring, batch));
        CHECK_OK(kv_uring_wait_completions(ring, 3, FOREVER));
    }
    CHECK_EQ_INT(calls, 3000);
    kv_uring_batch_destroy(batch);
    ring_close(ring);
}

TEST(a_batch_destroyed_in_flight_still_calls_back) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[10];
    end_t end = END_INIT;
    kv_uring_batch_t *batch = kv_uring_batch_create(ring, 2);
    CHECK_OK(kv_uring_batch_add_read(batch, ends[0], in, 10, 0, on_end, &end));
    CHECK_OK(kv_uring_batch_submit(ring, batch));
    CHECK_OK(kv_uring_batch_add_read(batch, ends[0], in, 10, 0, on_end, &end)); /* never submitted */
    kv_uring_batch_destroy(batch);
    kv_uring_batch_destroy(batch);
    CHECK_EQ_INT(write(ends[1], "abc", 3), 3);
    gate_wait(&end.gate, 1);
    ring_close(ring);
    CHECK_EQ_INT(end.calls, 1);
    CHECK_EQ_INT(end.result, 3);
}

static req_t *kept;
static void keep_request(req_t *req, int result, void *data) {
    UNUSED(result);
    kept = req;
    gate_open(data);
}

TEST(a_batchs_request_is_known_by_its_callback) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    gate_t gate = GATE_INIT;
    kv_uring_batch_t *batch = kv_uring_batch_create(ring, 1);
    CHECK_OK(kv_uring_batch_add_write(batch, fd, "abc", 3, 0, keep_request, &gate));
    CHECK_OK(kv_uring_batch_submit(ring, batch));
    gate_wait(&gate, 1);
    CHECK_OK(kv_uring_wait_request(ring, kept, FOREVER));
    CHECK_EQ_INT(kv_uring_request_result(kept), 3);
    CHECK(kept->request_id > 0);
    kv_uring_batch_destroy(batch);
    CHECK_EQ_INT(kv_uring_request_status(kept), KV_URING_REQ_FAILED); /* it went with the batch */
    ring_close(ring);
}

/* ---- statistics ---- */
TEST(statistics_count_what_happened) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    char in[1000], out[1000] = {0};
    ring_stats_t s = ring_stats(ring), zero;
    memset(&zero, 0, sizeof zero);
    CHECK(memcmp(&s, &zero, sizeof s) == 0);
    for (int i = 0; i < 5; i++) CHECK_EQ_INT(write_at(ring, fd, out, 1000, i * 1000), 1000);
    for (int i = 0; i < 3; i++) CHECK_EQ_INT(read_at(ring, fd, in, 1000, 4500), 500);
    struct iovec v[2] = {{in, 10}, {in + 10, 20}};
    CHECK_EQ_INT(finish(ring, kv_uring_readv_async(ring, fd, v, 2, 0, NULL, NULL)), 30);
    CHECK_EQ_INT(finish(ring, kv_uring_writev_async(ring, fd, v, 2, 0, NULL, NULL)), 30);
    CHECK_EQ_INT(finish(ring, kv_uring_fsync_async(ring, fd, NULL, NULL)), 0);
    CHECK_EQ_INT(finish(ring, kv_uring_fsync_async(ring, 987, NULL, NULL)), -EBADF);
    s = ring_stats(ring);
    CHECK_EQ_INT(s.write_count, 5);
    CHECK_EQ_INT(s.read_count, 3);
    CHECK_EQ_INT(s.readv_count, 1);
    CHECK_EQ_INT(s.writev_count, 1);
    CHECK_EQ_INT(s.sync_count, 2);
    CHECK_EQ_INT(s.total_operations, 12);
    CHECK_EQ_INT(s.submissions_total, 12);
    CHECK_EQ_INT(s.completions_total, 12);
    CHECK_EQ_INT(s.bytes_written, 5030);
    CHECK_EQ_INT(s.bytes_read, 1530);
    CHECK_EQ_INT(s.error_count, 1);
    CHECK_EQ_INT(s.timeout_count + s.cancelled_count + s.queue_full_count + s.submissions_batched, 0);
    CHECK(s.total_complete_time > 0 && s.total_complete_time >= s.total_queue_time);
    CHECK(s.avg_complete_latency > 0 && s.avg_submit_latency > 0 && s.avg_queue_depth == 1);
    CHECK(s.read_throughput > 0 && s.write_throughput > 0);
    CHECK(kv_uring_get_throughput(ring, KV_URING_OP_WRITE) > 0 && kv_uring_get_throughput(ring, KV_URING_OP_FSYNC) == 0);
    CHECK(kv_uring_get_throughput(ring, KV_URING_OP_READ) + kv_uring_get_throughput(ring, KV_URING_OP_READV) == s.read_throughput);
    CHECK(kv_uring_get_latency(ring, KV_URING_OP_FSYNC) > 0 && kv_uring_get_latency(ring, KV_URING_OP_CLOSE) == 0);
    CHECK_OK(kv_uring_reset_stats(ring));
    s = ring_stats(ring);
    CHECK(memcmp(&s, &zero, sizeof s) == 0);
    CHECK(kv_uring_get_latency(ring, KV_URING_OP_WRITE) == 0);
    ring_close(ring);
}

TEST(latency_covers_what_was_waited_for) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[1];
    uint64_t begun = now_us();
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 1, 0, NULL, NULL));
    sleep_ms(30);
    CHECK_EQ_INT(write(ends[1], "x", 1), 1);
    CHECK_EQ_INT(finish(ring, r), 1);
    uint64_t waited = now_us() - begun;
    ring_stats_t s = ring_stats(ring);
    CHECK(s.total_complete_time >= 30000 && s.total_complete_time <= waited);
    CHECK(s.avg_complete_latency >= 30000 && s.avg_complete_latency <= (double)waited);
    ring_close(ring);
}

TEST(the_depth_of_the_queue_is_averaged) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[4];
    for (int i = 0; i < 4; i++) good(kv_uring_read_async(ring, ends[0], in + i, 1, 0, NULL, NULL));
    CHECK(ring_stats(ring).avg_queue_depth == 2.5);
    ring_close(ring); /* cancels them */
}

TEST(a_reset_forgets_what_is_in_flight) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[1];
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 1, 0, NULL, NULL));
    CHECK_OK(kv_uring_reset_stats(ring));
    CHECK_OK(kv_uring_validate_state(ring));
    CHECK_EQ_INT(write(ends[1], "x", 1), 1);
    CHECK_EQ_INT(finish(ring, r), 1);
    CHECK_OK(kv_uring_validate_state(ring));
    ring_stats_t s = ring_stats(ring);
    CHECK_EQ_INT(s.submissions_total + s.completions_total + s.bytes_read, 0);
    ring_close(ring);
}

TEST(what_is_printed_is_what_is_counted) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    CHECK_EQ_INT(write_at(ring, fd, "12345", 5, 0), 5);
    char *text = ring_text(ring, kv_uring_print_stats);
    CHECK(strstr(text, "  write_count: 1\n") && strstr(text, "  bytes_written: 5\n") && strstr(text, "  completions_total: 1\n"));
    CHECK(strstr(text, "  io_backend_reason: "));
    free(text);
    text = ring_text(ring, kv_uring_dump_state);
    CHECK(strstr(text, "  phase: Running\n") && strstr(text, "  in_flight: 0\n") && strstr(text, "  queue_depth: 64\n"));
    free(text);
    CHECK_OK(kv_uring_validate_state(ring));
    ring_close(ring);
}

TEST(a_debug_level_writes_to_the_log) {
    CHECK_OK(kv_error_init(KV_LOG_DEBUG, "log", 0));
    ring_t *ring = ring_open();
    int fd = new_file("f");
    CHECK_EQ_INT(write_at(ring, fd, "1", 1, 0), 1);
    CHECK_OK(kv_uring_set_debug_level(ring, 1));
    CHECK_EQ_INT(write_at(ring, fd, "1", 1, 0), 1);
    CHECK_EQ_INT(write_at(ring, 987, "1", 1, 0), -EBADF);
    CHECK_OK(kv_uring_set_debug_level(ring, 2));
    CHECK_EQ_INT(finish(ring, kv_uring_fsync_async(ring, fd, NULL, NULL)), 0);
    ring_close(ring);
    char *text = read_file("log", NULL);
    CHECK(strstr(text, "WRITE: Failed") && strstr(text, "FSYNC: Completed") && !strstr(text, "WRITE: Completed"));
    free(text);
}
