/* uring_case.h: what the cases about rings share: rings, files, and a callback that remembers. */
#ifndef URING_CASE_H
#define URING_CASE_H

#include "kvtest.h"

typedef kv_uring_t ring_t;
typedef kv_uring_request_t req_t;
typedef kv_uring_stats_t ring_stats_t;

/* One per request: pass `on_end` and its address. */
typedef struct {
    atomic_int calls, result;
    req_t *req;
    uint64_t id;
    int status, stored_result;
    void *user_data;
    pthread_t thread;
    gate_t gate;
} end_t;
#define END_INIT {.gate = GATE_INIT}

static inline void on_end(req_t *req, int result, void *data) {
    end_t *end = data;
    end->req = req;
    end->id = req->request_id;
    end->status = (int)req->status;
    end->stored_result = req->result;
    end->user_data = req->user_data;
    end->thread = pthread_self();
    end->result = result;
    atomic_fetch_add(&end->calls, 1);
    errno = 12345; /* nobody else's business */
    gate_open(&end->gate);
}

static inline void on_end_count(req_t *req, int result, void *atomic_counter) {
    UNUSED(req);
    UNUSED(result);
    atomic_fetch_add((atomic_int *)atomic_counter, 1);
}

/* Holds the ring's thread until `leave` is opened. */
static inline void on_end_hold(req_t *req, int result, void *hold) {
    UNUSED(req);
    UNUSED(result);
    hold_t *h = hold;
    gate_open(&h->entered);
    gate_wait(&h->leave, 1);
}

static inline ring_t *ring_with(uint32_t depth, uint32_t timeout_ms) {
    kv_uring_config_t *config = kv_uring_config_create();
    CHECK(config != NULL);
    CHECK_OK(kv_uring_config_set_queue_depth(config, depth));
    config->timeout_ms = timeout_ms;
    ring_t *ring = kv_uring_create(config);
    CHECK(ring != NULL);
    kv_uring_config_destroy(config);
    CHECK_OK(kv_uring_start(ring));
    return ring;
}

static inline ring_t *ring_open(void) {
    ring_t *ring = kv_uring_create(NULL);
    CHECK(ring != NULL);
    CHECK_OK(kv_uring_start(ring));
    return ring;
}

static inline void ring_close(ring_t *ring) {
    CHECK_OK(kv_uring_validate_state(ring));
    CHECK_OK(kv_uring_stop(ring));
    CHECK_OK(kv_uring_validate_state(ring));
    kv_uring_destroy(ring);
}

static inline int new_file(const char *name) {
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static inline void new_pipe(int ends[2]) { CHECK_EQ_INT(pipe2(ends, O_CLOEXEC), 0); }

static inline req_t *good(req_t *req) {
    CHECK(req != NULL);
    return req;
}

/* Waits, and destroys: the result. */
static inline int finish(ring_t *ring, req_t *req) {
    int code = kv_uring_wait_request(ring, good(req), FOREVER);
    int result = kv_uring_request_result(req);
    CHECK_EQ_INT(kv_uring_request_status(req) == KV_URING_REQ_COMPLETED, code == KV_SUCCESS);
    kv_uring_request_destroy(req);
    return result;
}

static inline int write_at(ring_t *ring, int fd, const void *bytes, size_t size, off_t offset) {
    return finish(ring, kv_uring_write_async(ring, fd, bytes, size, offset, NULL, NULL));
}

static inline int read_at(ring_t *ring, int fd, void *bytes, size_t size, off_t offset) {
    return finish(ring, kv_uring_read_async(ring, fd, bytes, size, offset, NULL, NULL));
}

static inline ring_stats_t ring_stats(ring_t *ring) {
    ring_stats_t s;
    memset(&s, 0xa5, sizeof s);
    CHECK_OK(kv_uring_get_stats(ring, &s));
    return s;
}

/* The text that a printing function leaves; the caller frees it. */
static inline char *ring_text(ring_t *ring, int (*print)(ring_t *, FILE *)) {
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    CHECK(file != NULL);
    CHECK_OK(print(ring, file));
    CHECK_EQ_INT(fclose(file), 0);
    return text;
}

/* Whether the ring works through io_uring, as it says itself. */
static inline bool through_kernel(ring_t *ring) {
    char *text = ring_text(ring, kv_uring_print_stats);
    bool yes = strstr(text, "  io_backend: io_uring\n") != NULL;
    CHECK(yes || strstr(text, "  io_backend: threads\n") != NULL);
    free(text);
    return yes;
}

#endif
