/* test_uring_ends.c: how requests end when they do not just complete: cancel, limits of time, stop and destroy with I/O in
 * flight, errors of the system, descriptors that go away, io_uring that is denied or stops working; and what is left in
 * memory afterwards. */
#include "uring_case.h"
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* ---- cancel ---- */
TEST(a_waiting_read_is_cancelled) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[10];
    end_t end = END_INIT;
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 10, 0, on_end, &end));
    CHECK_ERR(kv_uring_wait_request(ring, r, 10), KV_ERR_TIMEOUT);
    CHECK_OK(kv_uring_cancel_request(ring, r));
    CHECK_ERR(kv_uring_wait_request(ring, r, FOREVER), KV_ERR_CANCELLED);
    CHECK_EQ_INT(end.calls, 1);
    CHECK_EQ_INT(end.result, -ECANCELED);
    CHECK_EQ_INT(end.status, KV_URING_REQ_CANCELLED);
    CHECK_EQ_INT(kv_uring_request_status(r), KV_URING_REQ_CANCELLED);
    CHECK_OK(kv_uring_cancel_request(ring, r)); /* nothing changes */
    CHECK_EQ_INT(write(ends[1], "still here", 10), 10);
    CHECK_EQ_INT(read_at(ring, ends[0], in, 10, 0), 10); /* it took nothing */
    CHECK_EQ_INT(ring_stats(ring).cancelled_count, 1);
    CHECK_EQ_INT(ring_stats(ring).error_count, 0);
    ring_close(ring);
}

TEST(a_queued_request_is_cancelled) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    hold_t hold = HOLD_INIT;
    end_t end = END_INIT;
    good(kv_uring_fsync_async(ring, fd, on_end_hold, &hold));
    gate_wait(&hold.entered, 1);
    req_t *w = good(kv_uring_write_async(ring, fd, "abc", 3, 0, on_end, &end)); /* nobody can have begun it */
    CHECK_EQ_INT(kv_uring_request_status(w), KV_URING_REQ_PENDING);
    CHECK_OK(kv_uring_cancel_request(ring, w));
    CHECK_OK(kv_uring_cancel_request(ring, w));
    gate_open(&hold.leave);
    CHECK_ERR(kv_uring_wait_request(ring, w, FOREVER), KV_ERR_CANCELLED);
    CHECK_EQ_INT(end.calls, 1);
    CHECK_EQ_INT(lseek(fd, 0, SEEK_END), 0); /* nothing was written */
    ring_close(ring);
}

TEST(one_of_many_is_cancelled) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[20];
    req_t *r[20];
    for (int i = 0; i < 20; i++) r[i] = good(kv_uring_read_async(ring, ends[0], in + i, 1, 0, NULL, NULL));
    for (int i = 0; i < 20; i += 2) CHECK_OK(kv_uring_cancel_request(ring, r[i]));
    for (int i = 0; i < 20; i += 2) CHECK_ERR(kv_uring_wait_request(ring, r[i], FOREVER), KV_ERR_CANCELLED);
    CHECK_EQ_INT(write(ends[1], "0123456789", 10), 10);
    for (int i = 1; i < 20; i += 2) CHECK_OK(kv_uring_wait_request(ring, r[i], FOREVER));
    ring_close(ring);
}

static void *cancel_all(void *args) {
    void **a = args;
    for (int i = 0; i < 200; i++) CHECK_OK(kv_uring_cancel_request(a[0], ((req_t **)a[1])[i]));
    return NULL;
}

TEST(cancel_races_with_the_end) {
    for (int round = 0; round < 10; round++) {
        ring_t *ring = ring_with(256, 5000);
        int fd = new_file("f");
        static req_t *reqs[200];
        static end_t ends[200];
        memset(ends, 0, sizeof ends);
        for (int i = 0; i < 200; i++) reqs[i] = good(kv_uring_write_async(ring, fd, "abc", 3, i, on_end, &ends[i]));
        void *args[2] = {ring, reqs};
        pthread_t thread = thread_start(cancel_all, args);
        int completed = 0;
        for (int i = 0; i < 200; i++) {
            int code = kv_uring_wait_request(ring, reqs[i], FOREVER);
            CHECK(code == KV_SUCCESS || code == KV_ERR_CANCELLED);
            CHECK_EQ_INT(ends[i].calls, 1);
            CHECK_EQ_INT(ends[i].result, code == KV_SUCCESS ? 3 : -ECANCELED);
            completed += code == KV_SUCCESS;
        }
        thread_join(thread);
        ring_stats_t s = ring_stats(ring);
        CHECK_EQ_INT(s.cancelled_count, 200 - completed);
        CHECK_EQ_INT(s.bytes_written, 3 * completed);
        ring_close(ring);
    }
}

/* ---- limits of time ---- */
TEST(a_request_out_of_time_fails) {
    ring_t *ring = ring_with(8, 30);
    int ends[2];
    new_pipe(ends);
    char in[1];
    end_t end = END_INIT;
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 1, 0, on_end, &end));
    CHECK_ERR(kv_uring_wait_request(ring, r, FOREVER), KV_ERR_ASYNC_FAILED);
    CHECK_EQ_INT(end.calls, 1);
    CHECK_EQ_INT(end.result, -ETIMEDOUT);
    CHECK_EQ_INT(r->status, KV_URING_REQ_FAILED);
    ring_stats_t s = ring_stats(ring);
    CHECK(s.timeout_count == 1 && s.error_count == 1 && s.cancelled_count == 0);
    int fd = new_file("f");
    CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3); /* the ring goes on */
    ring_close(ring);
}

TEST(a_request_in_line_runs_out_of_time) {
    ring_t *ring = ring_with(8, 20);
    int fd = new_file("f");
    hold_t hold = HOLD_INIT;
    good(kv_uring_fsync_async(ring, fd, on_end_hold, &hold));
    gate_wait(&hold.entered, 1);
    req_t *w = good(kv_uring_write_async(ring, fd, "abc", 3, 0, NULL, NULL));
    sleep_ms(40);
    gate_open(&hold.leave);
    CHECK_ERR(kv_uring_wait_request(ring, w, FOREVER), KV_ERR_ASYNC_FAILED);
    CHECK_EQ_INT(w->result, -ETIMEDOUT);
    CHECK_EQ_INT(lseek(fd, 0, SEEK_END), 0);
    ring_close(ring);
}

TEST(a_cancelled_request_is_cancelled_also_when_it_is_late) {
    ring_t *ring = ring_with(8, 20);
    int fd = new_file("f");
    hold_t hold = HOLD_INIT;
    good(kv_uring_fsync_async(ring, fd, on_end_hold, &hold));
    gate_wait(&hold.entered, 1);
    uint64_t before = ring_stats(ring).timeout_count; /* on a busy disk, the sync itself */
    req_t *w = good(kv_uring_write_async(ring, fd, "abc", 3, 0, NULL, NULL));
    CHECK_OK(kv_uring_cancel_request(ring, w));
    sleep_ms(40); /* now it is out of time, too */
    gate_open(&hold.leave);
    CHECK_ERR(kv_uring_wait_request(ring, w, FOREVER), KV_ERR_CANCELLED);
    CHECK_EQ_INT(w->result, -ECANCELED);
    CHECK_EQ_INT(ring_stats(ring).cancelled_count, 1);
    CHECK_EQ_INT(ring_stats(ring).timeout_count, before);
    ring_close(ring);
}

TEST(without_a_limit_nothing_runs_out_of_time) {
    ring_t *ring = ring_with(8, UINT32_MAX);
    int ends[2];
    new_pipe(ends);
    char in[1];
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 1, 0, NULL, NULL));
    CHECK_ERR(kv_uring_wait_request(ring, r, 60), KV_ERR_TIMEOUT);
    CHECK_EQ_INT(write(ends[1], "x", 1), 1);
    CHECK_EQ_INT(finish(ring, r), 1);
    ring_close(ring);
}

/* ---- stop and destroy with I/O in flight ---- */
TEST(stop_carries_out_what_is_in_flight) {
    ring_t *ring = ring_with(1024, 5000);
    int fd = new_file("f");
    static char out[1000][100];
    atomic_int calls = 0;
    for (int i = 0; i < 1000; i++) {
        memset(out[i], i + 1, 100);
        good(kv_uring_write_async(ring, fd, out[i], 100, i * 100, on_end_count, &calls));
    }
    CHECK_OK(kv_uring_stop(ring));
    CHECK_EQ_INT(calls, 1000);
    CHECK_EQ_INT(ring_stats(ring).bytes_written, 100000);
    char *bytes = read_file("f", NULL);
    CHECK(memcmp(bytes, out, sizeof out) == 0);
    free(bytes);
    CHECK_OK(kv_uring_start(ring));
    CHECK_EQ_INT(finish(ring, kv_uring_fsync_async(ring, fd, NULL, NULL)), 0);
    ring_close(ring);
}

TEST(stop_cancels_what_waits_for_a_peer) {
    ring_t *ring = ring_with(64, UINT32_MAX);
    int ends[2];
    new_pipe(ends);
    static char in[64];
    end_t end[64];
    memset(end, 0, sizeof end);
    for (int i = 0; i < 64; i++) good(kv_uring_read_async(ring, ends[0], in + i, 1, 0, on_end, &end[i]));
    CHECK_OK(kv_uring_stop(ring));
    for (int i = 0; i < 64; i++) {
        CHECK_EQ_INT(end[i].calls, 1);
        CHECK_EQ_INT(end[i].result, -ECANCELED);
    }
    kv_uring_destroy(ring);
}

TEST(destroy_with_the_queue_full) {
    for (int round = 0; round < 20; round++) {
        ring_t *ring = ring_open();
        int fd = new_file("f"), ends[2];
        new_pipe(ends);
        static char out[64][512];
        atomic_int calls = 0;
        for (int i = 0; i < 32; i++) good(kv_uring_write_async(ring, fd, out[i], 512, i * 512, on_end_count, &calls));
        for (int i = 32; i < 64; i++) good(kv_uring_read_async(ring, ends[0], out[i], 512, 0, on_end_count, &calls));
        kv_uring_destroy(ring);
        CHECK_EQ_INT(calls, 64);
        close(fd);
        close(ends[0]);
        close(ends[1]);
    }
}

static void *stop_it(void *ring) {
    CHECK_OK(kv_uring_stop(ring));
    return NULL;
}

static void *submit_until_stopped(void *ring) {
    int fd = new_file("g");
    long accepted = 0;
    atomic_int *calls = calloc(1, sizeof *calls);
    for (;;) {
        req_t *w = kv_uring_write_async(ring, fd, "x", 1, 0, on_end_count, calls);
        if (w) accepted++;
        else if (kvt_last() == KV_ERR_INVALID_STATE) break;
        else CHECK_EQ_INT(kvt_last(), KV_ERR_BUSY);
    }
    CHECK_OK(kv_uring_stop(ring));
    CHECK_EQ_INT(*calls, accepted);
    free(calls);
    return NULL;
}

TEST(stop_races_with_submits_and_with_itself) {
    ring_t *ring = ring_open();
    pthread_t a = thread_start(submit_until_stopped, ring), b = thread_start(submit_until_stopped, ring);
    sleep_ms(20);
    pthread_t c = thread_start(stop_it, ring), d = thread_start(stop_it, ring);
    thread_join(a);
    thread_join(b);
    thread_join(c);
    thread_join(d);
    ring_close(ring);
}

static void *wait_for_many(void *ring) {
    CHECK_ERR(kv_uring_wait_completions(ring, 5, FOREVER), KV_ERR_INVALID_STATE);
    return NULL;
}

TEST(a_wait_ends_when_nothing_can_come_any_more) {
    ring_t *ring = ring_open();
    pthread_t waiter = thread_start(wait_for_many, ring);
    sleep_ms(20);
    CHECK_OK(kv_uring_stop(ring));
    thread_join(waiter);
    kv_uring_destroy(ring);
}

TEST(a_request_destroyed_in_flight_still_calls_back) {
    ring_t *ring = ring_open();
    int ends[2];
    new_pipe(ends);
    char in[10];
    end_t end = END_INIT;
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 10, 0, on_end, &end));
    kv_uring_request_destroy(r);
    kv_uring_request_destroy(r);
    CHECK_ERR(kv_uring_wait_request(ring, r, 0), KV_ERR_PARAM);
    CHECK_EQ_INT(write(ends[1], "abc", 3), 3);
    gate_wait(&end.gate, 1);
    CHECK_EQ_INT(end.result, 3);
    CHECK_OK(kv_uring_validate_state(ring));
    ring_close(ring);
    CHECK_EQ_INT(end.calls, 1);
}

TEST(start_and_stop_many_times) {
    ring_t *ring = kv_uring_create(NULL);
    int fd = new_file("f");
    for (int i = 0; i < 100; i++) {
        CHECK_OK(kv_uring_start(ring));
        CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3);
        CHECK_OK(kv_uring_stop(ring));
    }
    CHECK_EQ_INT(ring_stats(ring).completions_total, 100);
    kv_uring_destroy(ring);
}

/* ---- errors of the system ---- */
static void fails(ring_t *ring, req_t *req, int error, int code) {
    CHECK_ERR(kv_uring_wait_request(ring, good(req), FOREVER), code);
    CHECK_EQ_INT(kv_uring_request_status(req), KV_URING_REQ_FAILED);
    CHECK_EQ_INT(kv_uring_request_result(req), -error);
    kv_uring_request_destroy(req);
}

TEST(errors_have_their_codes) {
    ring_t *ring = ring_open();
    char x[8] = {0};
    int full = open("/dev/full", O_RDWR), only_read = open("/dev/zero", O_RDONLY), dir = open(".", O_RDONLY), ends[2];
    fails(ring, kv_uring_write_async(ring, 987, x, 8, 0, NULL, NULL), EBADF, KV_ERR_PARAM);
    fails(ring, kv_uring_write_async(ring, only_read, x, 8, 0, NULL, NULL), EBADF, KV_ERR_PARAM);
    fails(ring, kv_uring_write_async(ring, full, x, 8, 0, NULL, NULL), ENOSPC, KV_ERR_DISK_FULL);
    fails(ring, kv_uring_read_async(ring, dir, x, 8, 0, NULL, NULL), EISDIR, KV_ERR_PARAM);
    new_pipe(ends);
    fails(ring, kv_uring_fsync_async(ring, ends[0], NULL, NULL), EINVAL, KV_ERR_PARAM);
    close(ends[0]);
    fails(ring, kv_uring_write_async(ring, ends[1], x, 8, 0, NULL, NULL), EPIPE, KV_ERR_IO); /* and no signal */
    CHECK_EQ_INT(ring_stats(ring).error_count, 6);
    CHECK_EQ_INT(read_at(ring, only_read, x, 8, 0), 8);
    ring_close(ring);
}

TEST(a_file_that_may_not_grow_is_a_full_disk) {
    int fd = new_file("f");
    struct rlimit limit = {1000, 1000};
    CHECK_EQ_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ring_t *ring = ring_open();
    static char out[4000];
    fails(ring, kv_uring_write_async(ring, fd, out, 4000, 0, NULL, NULL), EFBIG, KV_ERR_DISK_FULL); /* never a part as success */
    fails(ring, kv_uring_write_async(ring, fd, out, 10, 2000, NULL, NULL), EFBIG, KV_ERR_DISK_FULL); /* and no signal */
    CHECK_EQ_INT(write_at(ring, fd, out, 1000, 0), 1000);
    ring_close(ring);
}

TEST(a_descriptor_that_does_not_block_says_busy) {
    ring_t *ring = ring_open();
    int ends[2];
    CHECK_EQ_INT(pipe2(ends, O_NONBLOCK), 0);
    char in[4];
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 4, 0, NULL, NULL));
    int code = kv_uring_wait_request(ring, r, 50);
    CHECK(code == KV_ERR_BUSY || code == KV_ERR_TIMEOUT); /* the kernel's ring does not wait for it, threads do */
    ring_close(ring);
}

TEST(a_closed_descriptor_is_an_error_of_the_request) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    hold_t hold = HOLD_INIT;
    good(kv_uring_fsync_async(ring, fd, on_end_hold, &hold));
    gate_wait(&hold.entered, 1);
    req_t *w = good(kv_uring_write_async(ring, fd, "abc", 3, 0, NULL, NULL));
    close(fd);
    gate_open(&hold.leave);
    fails(ring, w, EBADF, KV_ERR_PARAM);
    ring_close(ring);
}

TEST(a_process_that_closes_all_descriptors_goes_on) {
    ring_t *ring = ring_open();
    int fd = new_file("f"), ends[2];
    new_pipe(ends);
    char in[4];
    CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3);
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 4, 0, NULL, NULL));
    for (int i = 3; i < 200; i++)
        if (i != fd && i != ends[0] && i != ends[1]) syscall(SYS_close, i); /* close itself: ThreadSanitizer would blame this case */
    /* What the library had may be these files now: none of them may be written to. */
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "s%d", i);
        new_file(name);
    }
    for (int i = 0; i < 50; i++) CHECK_EQ_INT(write_at(ring, fd, "def", 3, i * 3), 3);
    CHECK_EQ_INT(write(ends[1], "x", 1), 1);
    int code = kv_uring_wait_request(ring, r, FOREVER);
    CHECK(code == KV_SUCCESS || code == KV_ERR_CANCELLED);
    ring_close(ring);
    for (int i = 0; i < 20; i++) {
        char name[16];
        struct stat s;
        snprintf(name, sizeof name, "s%d", i);
        CHECK_EQ_INT(stat(name, &s), 0);
        CHECK_EQ_INT(s.st_size, 0);
    }
    ring = ring_open();
    CHECK_EQ_INT(write_at(ring, fd, "ghi", 3, 0), 3);
    ring_close(ring);
}

TEST(without_descriptors_start_says_so) {
    ring_t *ring = kv_uring_create(NULL);
    struct rlimit before, none = {3, 3};
    CHECK_EQ_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    none.rlim_max = before.rlim_max;
    CHECK_EQ_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK_ERR(kv_uring_start(ring), KV_ERR_FILE);
    CHECK_ERR(kv_uring_start(ring), KV_ERR_FILE);
    CHECK_EQ_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_OK(kv_uring_start(ring));
    ring_close(ring);
}

/* ---- with and without io_uring ---- */
static void works(void) {
    ring_t *ring = ring_open();
    int fd = new_file("f"), ends[2];
    new_pipe(ends);
    char in[300] = {0}, out[300] = "abc"; /* valgrind does not see that io_uring fills buffers */
    struct iovec v[2] = {{in, 100}, {in + 100, 200}};
    CHECK_EQ_INT(write_at(ring, fd, out, 300, 0), 300);
    CHECK_EQ_INT(finish(ring, kv_uring_readv_async(ring, fd, v, 2, 0, NULL, NULL)), 300);
    CHECK(memcmp(in, out, 300) == 0);
    CHECK_EQ_INT(finish(ring, kv_uring_fsync_async(ring, fd, NULL, NULL)), 0);
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 300, 0, NULL, NULL));
    CHECK_OK(kv_uring_cancel_request(ring, r));
    CHECK_ERR(kv_uring_wait_request(ring, r, FOREVER), KV_ERR_CANCELLED);
    ring_close(ring);
}

static void denied(int error) {
    deny_uring(error);
    setenv("KVBATCH_IO", "auto", 1);
    CHECK(!kv_uring_is_supported());
    ring_t *ring = kv_uring_create(NULL);
    CHECK_ERR(kv_uring_probe_features(ring), KV_ERR_NOT_SUPPORTED);
    CHECK_OK(kv_uring_start(ring));
    CHECK_ERR(kv_uring_probe_features(ring), KV_ERR_NOT_SUPPORTED);
    CHECK(!through_kernel(ring));
    ring_close(ring);
    works();
}

TEST(a_ring_works_under_eperm) { denied(EPERM); }
TEST(a_ring_works_under_enosys) { denied(ENOSYS); }
TEST(a_ring_works_under_enomem) { denied(ENOMEM); }
TEST(a_ring_works_under_eopnotsupp) { denied(EOPNOTSUPP); }

/* Not slow, but left out under valgrind, which stops all threads while one sleeps in io_uring. */
SLOW_TEST(a_ring_uses_io_uring_where_it_may) {
    if (!kv_uring_is_supported()) kvt_skip("the kernel refuses io_uring here");
    setenv("KVBATCH_IO", "auto", 1);
    ring_t *ring = kv_uring_create(NULL);
    CHECK_OK(kv_uring_probe_features(ring));
    CHECK_OK(kv_uring_start(ring));
    CHECK_OK(kv_uring_probe_features(ring));
    CHECK(through_kernel(ring));
    ring_close(ring);
    works();
}

TEST(a_ring_uses_threads_when_told_to) {
    setenv("KVBATCH_IO", "threads", 1);
    ring_t *ring = ring_open();
    CHECK(!through_kernel(ring));
    char *text = ring_text(ring, kv_uring_print_stats);
    CHECK(strstr(text, "  io_backend_reason: KVBATCH_IO=threads\n"));
    free(text);
    ring_close(ring);
    works();
}

TEST(io_uring_that_is_denied_later_is_done_without) {
    ring_t *ring = ring_open();
    int fd = new_file("f"), ends[2];
    new_pipe(ends);
    char in[4];
    CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3);
    req_t *r = good(kv_uring_read_async(ring, ends[0], in, 4, 0, NULL, NULL));
    sleep_ms(10);
    /* For all threads of the process, also those that the library has. */
    deny_uring(EPERM);
    for (int i = 0; i < 20; i++) CHECK_EQ_INT(write_at(ring, fd, "def", 3, i * 3), 3);
    CHECK_EQ_INT(write(ends[1], "x", 1), 1);
    CHECK_EQ_INT(finish(ring, r), 1);
    CHECK(!through_kernel(ring)); /* whatever it was before */
    ring_close(ring);
}

static void wished(bool sq_poll, bool polling, bool other_thread) {
    kv_uring_config_t *c = kv_uring_config_create();
    CHECK_OK(kv_uring_config_set_sq_poll(c, sq_poll, 50));
    CHECK_OK(kv_uring_config_set_iopoll(c, polling));
    c->use_kernel_sqe_thread = other_thread;
    c->cq_entries_multiplier = 4;
    c->worker_threads = 20;
    ring_t *ring = kv_uring_create(c);
    kv_uring_config_destroy(c);
    CHECK_OK(kv_uring_start(ring));
    int fd = new_file("f");
    static char out[64][1000];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 64; i++) kv_uring_request_destroy(good(kv_uring_write_async(ring, fd, out[i], 1000, i * 1000, NULL, NULL)));
        while (ring_stats(ring).completions_total < (uint64_t)(round + 1) * 64) sleep_ms(1);
    }
    CHECK_EQ_INT(ring_stats(ring).bytes_written, 5 * 64000);
    if (through_kernel(ring)) {
        char *text = ring_text(ring, kv_uring_print_stats);
        CHECK_EQ_INT(strstr(text, "thread for submissions") || strstr(text, "polled by the kernel"), sq_poll || other_thread);
        free(text);
    }
    ring_close(ring);
}

TEST(the_kernels_thread_takes_submissions) { wished(true, false, false); }
TEST(the_kernels_thread_goes_by_two_names) { wished(false, false, true); }
TEST(completions_are_polled_for) { wished(false, true, false); }
TEST(all_wishes_at_once) { wished(true, true, true); }

TEST(a_queue_of_one_and_the_deepest) {
    for (int i = 0; i < 2; i++) {
        ring_t *ring = ring_with(i ? KV_URING_MAX_QUEUE_DEPTH : KV_URING_MIN_QUEUE_DEPTH, 5000);
        int fd = new_file("f"), n = i ? 4000 : 1;
        atomic_int calls = 0;
        for (int k = 0; k < n; k++) good(kv_uring_write_async(ring, fd, "abc", 3, k * 3, on_end_count, &calls));
        CHECK_OK(kv_uring_wait_completions(ring, (unsigned)n, FOREVER));
        CHECK_EQ_INT(calls, n);
        ring_close(ring);
    }
}

/* ---- memory ---- */
static size_t in_use(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void use_much(int fd, int times) {
    ring_t *ring = ring_open();
    for (int i = 0; i < times; i++) CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3);
    for (int i = 0; i < 60; i++) good(kv_uring_fsync_async(ring, fd, NULL, NULL)); /* these go with the ring */
    ring_close(ring);
}

TEST(nothing_piles_up_in_memory) {
    int fd = new_file("f");
    for (int i = 0; i < 30; i++) use_much(fd, 100);
    size_t before = in_use();
    for (int i = 0; i < 60; i++) use_much(fd, 100);
    size_t after = in_use();
    if (after > before + 65536) kvt_fail(__FILE__, __LINE__, "%zu bytes in use became %zu", before, after);
}

TEST(a_ring_that_is_used_for_long_does_not_grow) {
    ring_t *ring = ring_open();
    int fd = new_file("f");
    for (int i = 0; i < 3000; i++) CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3);
    size_t before = in_use();
    for (int i = 0; i < 6000; i++) CHECK_EQ_INT(write_at(ring, fd, "abc", 3, 0), 3);
    size_t after = in_use();
    if (after > before + 16384) kvt_fail(__FILE__, __LINE__, "%zu bytes in use became %zu", before, after);
    ring_close(ring);
}
