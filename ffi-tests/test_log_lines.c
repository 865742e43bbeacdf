/* test_log_lines.c: what the library says of itself: each line once, of its level, with the store's path, the system's error where
 * there is one, and what to do. */
#include "fake_disk.h"
#include "log_case.h"
#include "uring_case.h"

static config_t plain(void) {
    config_t c = kvt_config();
    c.fsync_interval_ms = 0;
    c.max_retry_count = 0;
    c.timeout_ms = 1000000;
    return c;
}

static int try_put(manager_t *m, const char *key) {
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, key, strlen(key), "v", 1, on_op, &p));
    run_code(b);
    kv_async_batch_destroy(b);
    return p.result;
}

TEST(opening_and_closing_have_a_line_and_operations_none) {
    setenv("KVBATCH_IO", "threads", 1); /* wanted: then that is not worth a warning */
    listen_from(KV_LOG_INFO);
    manager_t *m = open_default();
    HEARD(1, KV_LOG_INFO, kvt_store(), "opened in");
    HEARD(1, KV_LOG_INFO, ": 0 keys", "KVBATCH_IO=threads");
    for (int i = 0; i < 300; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        put_one(m, key, "v");
        EXPECT(m, key, "v");
        EXPECT_MISS(m, "nobody");
    }
    manager_t *second = open_default(); /* of the same store: nothing is opened */
    close_manager(second);
    close_manager(m);
    HEARD(1, KV_LOG_INFO, kvt_store(), ": closed");
    CHECK_EQ_INT(lines_n, 2);
    m = open_default();
    HEARD(1, KV_LOG_INFO, "opened in", ": 300 keys");
    close_manager(m);
}

TEST(a_store_that_cannot_be_opened) {
    setenv("KVBATCH_STORE", "file:taken", 1);
    write_file("taken", "x", 1);
    listen_from(KV_LOG_INFO);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_CODE(kv_async_batch_manager_start(m), KV_ERR_FILE);
    kv_async_batch_manager_destroy(m);
    HEARD(1, KV_LOG_ERROR, "/taken: ", "os error");
    HEARD(1, KV_LOG_ERROR, "/taken: ", "name a directory");
    CHECK_EQ_INT(lines_n, 1);
}

static void newest_chunk(char path[5000]) {
    char names[64][256];
    size_t n = list_dir(kvt_store(), "chunk-", names, 64);
    CHECK(n > 0);
    snprintf(path, 5000, "%s/%s", kvt_store(), names[n - 1]);
}

TEST(recovery_says_what_it_cut) {
    manager_t *m = open_default();
    put_one(m, "k", "v");
    close_manager(m);
    char path[5000];
    newest_chunk(path);
    int fd = open(path, O_WRONLY | O_APPEND);
    CHECK(fd >= 0);
    CHECK_EQ_INT(write(fd, "what a crash has left", 21), 21);
    close(fd);
    listen_from(KV_LOG_INFO);
    m = open_default();
    HEARD(1, KV_LOG_INFO, kvt_store(), "the unfinished end of chunk-");
    HEARD(1, KV_LOG_INFO, "was cut at byte", "bytes that nothing had confirmed");
    HEARD(1, KV_LOG_INFO, "opened in", "ms: 1 keys"); /* and how long it took */
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(io_uring_is_denied) {
    unsetenv("KVBATCH_IO");
    deny_uring(EPERM);
    listen_from(KV_LOG_INFO);
    manager_t *m = open_default();
    HEARD(1, KV_LOG_WARN, kvt_store(), "io_uring cannot be had");
    HEARD(1, KV_LOG_WARN, kvt_store(), "os error 1");
    HEARD(1, KV_LOG_WARN, kvt_store(), "set KVBATCH_IO=threads");
    close_manager(m);
    lines_n = 0;
    ring_t *ring = kv_uring_create(NULL);
    CHECK(ring != NULL);
    CHECK_OK(kv_uring_start(ring));
    kv_uring_destroy(ring);
    HEARD(1, KV_LOG_WARN, "io_uring cannot be had, a ring works through threads", "os error 1");
    CHECK_EQ_INT(lines_n, 1);
}

TEST(a_store_that_takes_no_more_writes) {
    config_t c = plain();
    manager_t *m = open_with(&c);
    put_one(m, "k", "v");
    listen_from(KV_LOG_INFO);
    fail_with(&disk_sync, EIO, 1);
    for (int i = 0; i < 5; i++) CHECK_CODE(try_put(m, "lost"), KV_ERR_IO);
    HEARD(1, KV_LOG_FATAL, kvt_store(), "takes no more writes");
    HEARD(1, KV_LOG_FATAL, "os error 5", "open it again");
    CHECK_EQ_INT(lines_n, 1);
    heal(&disk_sync);
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
}

TEST(a_full_disk_and_room_again) {
    config_t c = plain();
    manager_t *m = open_with(&c);
    put_one(m, "k", "v");
    listen_from(KV_LOG_INFO);
    fail_with(&disk_write, ENOSPC, -1);
    for (int i = 0; i < 20; i++) CHECK_CODE(try_put(m, "refused"), KV_ERR_DISK_FULL);
    HEARD(1, KV_LOG_WARN, kvt_store(), "os error 28");
    HEARD(1, KV_LOG_WARN, kvt_store(), "free some space");
    CHECK_EQ_INT(lines_n, 1); /* not one for each */
    heal(&disk_write);
    put_one(m, "taken", "v");
    put_one(m, "taken", "again");
    HEARD(1, KV_LOG_INFO, kvt_store(), "writes succeed again");
    CHECK_EQ_INT(lines_n, 2);
    close_manager(m);
}

static void strike(const char *word) { /* one byte of it, on the disk */
    char path[5000];
    size_t len;
    newest_chunk(path);
    char *bytes = read_file(path, &len), *at = memmem(bytes, len, word, strlen(word));
    CHECK(at != NULL);
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0);
    CHECK_EQ_INT(syscall(SYS_pwrite64, fd, "#", 1, at - bytes), 1);
    close(fd);
    free(bytes);
}

TEST(damage_that_a_read_finds) {
    setenv("KVBATCH_IO", "threads", 1);
    config_t c = plain();
    manager_t *m = open_with(&c);
    put_one(m, "struck", "lightning");
    close_manager(m);
    m = open_with(&c);
    strike("lightning");
    listen_from(KV_LOG_INFO);
    for (int i = 0; i < 100; i++) {
        batch_t *b = new_batch(m, 1);
        add_get(b, "struck", NULL);
        CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
        kv_async_batch_destroy(b);
    }
    HEARD(1, KV_LOG_ERROR, kvt_store(), "(failed read 1 since");
    HEARD(7, KV_LOG_ERROR, "is damaged", "restore it from a backup");
    HEARD(1, KV_LOG_ERROR, "chunk-", "(failed read 64 since");
    CHECK_EQ_INT(lines_n, 7); /* 1, 2, 4, ... 64 */
    close_manager(m);
}

TEST(a_read_that_the_system_refuses) {
    setenv("KVBATCH_IO", "threads", 1);
    config_t c = plain();
    manager_t *m = open_with(&c);
    put_one(m, "cold", "value");
    close_manager(m);
    m = open_with(&c);
    listen_from(KV_LOG_INFO);
    fail_with(&disk_read, EIO, 1);
    batch_t *b = new_batch(m, 1);
    add_get(b, "cold", NULL);
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    kv_async_batch_destroy(b);
    HEARD(1, KV_LOG_ERROR, kvt_store(), "os error 5");
    CHECK_EQ_INT(lines_n, 1);
    close_manager(m);
}

static void on_op_slow(op_t *op, int result, void *ms) {
    UNUSED(op), UNUSED(result);
    sleep_ms(*(long *)ms);
}

TEST(a_slow_callback) {
    manager_t *m = open_default();
    listen_from(KV_LOG_INFO);
    long times_ms[] = {0, 1100};
    for (int slow = 0; slow < 2; slow++) {
        batch_t *b = new_batch(m, 1);
        CHECK_OK(kv_async_batch_get(b, "k", 1, NULL, NULL, on_op_slow, &times_ms[slow]));
        run(b);
        CHECK_EQ_INT(heard(KV_LOG_WARN, "the callbacks of a batch of 1 operations took", "a thread of your own"), slow);
    }
    close_manager(m);
}

static void on_end_slow(req_t *req, int result, void *ms) {
    UNUSED(req), UNUSED(result);
    sleep_ms(*(long *)ms);
}

TEST(a_slow_callback_of_a_ring) {
    listen_from(KV_LOG_INFO);
    ring_t *ring = kv_uring_create(NULL);
    CHECK(ring != NULL);
    CHECK_OK(kv_uring_start(ring));
    int fd = open("file", O_RDWR | O_CREAT, 0644);
    long time_ms = 1100;
    req_t *req = kv_uring_fsync_async(ring, fd, on_end_slow, &time_ms);
    CHECK(req != NULL);
    CHECK_OK(kv_uring_wait_request(ring, req, FOREVER));
    kv_uring_destroy(ring);
    HEARD(1, KV_LOG_WARN, "the callbacks of 1 requests took", "held up all of the ring");
    close(fd);
}
