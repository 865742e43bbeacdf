/* test_read_faults.c: reads that fail, records that were damaged, descriptors that ran out: each reaches exactly the operations
 * concerned, and never turns into a miss or wrong bytes. */
#include "fake_disk.h"
#include <sys/resource.h>

static config_t without_retries(void) {
    config_t c = kvt_config();
    c.max_retry_count = 0;
    c.timeout_ms = 1000000;
    return c;
}

static manager_t *cold_store(config_t *c) { /* reads go to the disk, and there through pread, which can be made to fail */
    setenv("KVBATCH_IO", "threads", 1);
    static char bytes[2000];
    memset(bytes, 'b', sizeof bytes);
    manager_t *m = open_with(c);
    put_mem(m, "cold", 4, bytes, sizeof bytes);
    put_one(m, "small", "s");
    close_manager(m);
    return open_with(c);
}

TEST(a_failed_read_fails_its_operation_and_heals) {
    config_t c = without_retries();
    manager_t *m = cold_store(&c);
    probe_t p[3] = {0};
    batch_t *b = new_batch(m, 3);
    add_get(b, "cold", &p[0]);
    add_get(b, "nobody", &p[1]);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op, &p[2]));
    fail_with(&disk_read, EIO, -1);
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    heal(&disk_read);
    CHECK_CODE(p[0].result, KV_ERR_IO);
    CHECK_CODE(p[1].result, KV_ERR_KEY_NOT_FOUND);
    CHECK_CODE(p[2].result, KV_SUCCESS);
    CHECK_EQ_INT(p[0].has_value, 0);
    EXPECT(m, "k", "v");
    char *seen = get_one(m, "cold"); /* an error of a read says nothing about the next one */
    CHECK(seen && strlen(seen) == 2000);
    free(seen);
    put_one(m, "after", "1");
    close_manager(m);
}

TEST(a_failed_read_with_fail_fast_writes_nothing) {
    config_t c = without_retries();
    c.fail_fast = true;
    manager_t *m = cold_store(&c);
    probe_t p[2] = {0};
    batch_t *b = new_batch(m, 2);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op, &p[0]));
    add_get(b, "cold", &p[1]);
    fail_with(&disk_read, EIO, -1);
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    heal(&disk_read);
    CHECK_CODE(p[0].result, KV_ERR_BATCH_FAILED);
    CHECK_CODE(p[1].result, KV_ERR_IO);
    EXPECT_MISS(m, "k");
    close_manager(m);
    m = open_with(&c);
    EXPECT_MISS(m, "k");
    close_manager(m);
}

TEST(a_read_error_while_opening_is_an_error_and_no_end_of_the_log) {
    config_t c = without_retries();
    manager_t *m = cold_store(&c);
    close_manager(m);
    uint64_t before = dir_digest(kvt_store(), "chunk");
    for (long good = 0; good < 8; good++) { /* the n-th read fails, and later ones */
        m = kv_async_batch_manager_create(&c);
        CHECK(m != NULL);
        fail_with(&disk_read, EIO, -1);
        int code = kv_async_batch_manager_start(m);
        CHECK_CODE(code, KV_ERR_IO);
        heal(&disk_read);
        CHECK_EQ_INT(dir_digest(kvt_store(), "chunk"), before);
        CHECK_OK(kv_async_batch_manager_start(m));
        EXPECT(m, "small", "s");
        close_manager(m);
    }
}

TEST(a_record_that_was_damaged_on_the_disk_is_refused) {
    setenv("KVBATCH_IO", "threads", 1);
    config_t c = without_retries();
    manager_t *m = open_with(&c);
    put_one(m, "sound", "a sound value");
    put_one(m, "struck", "the value that lightning strikes");
    close_manager(m);
    m = open_with(&c);
    char names[64][256], path[5000];
    size_t n = list_dir(kvt_store(), "chunk-", names, 64);
    int struck = 0;
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", kvt_store(), names[i]);
        size_t len;
        char *bytes = read_file(path, &len);
        char *at = memmem(bytes, len, "lightning", 9);
        if (at) {
            int fd = open(path, O_WRONLY);
            CHECK(fd >= 0);
            CHECK_EQ_INT(syscall(SYS_pwrite64, fd, "L", 1, at - bytes), 1);
            close(fd);
            struck = 1;
        }
        free(bytes);
    }
    CHECK(struck);
    probe_t p[2] = {0};
    batch_t *b = new_batch(m, 2);
    add_get(b, "struck", &p[0]);
    add_get(b, "sound", &p[1]);
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    CHECK_CODE(p[0].result, KV_ERR_CORRUPTED); /* never wrong bytes, never a miss */
    CHECK_EQ_INT(p[0].has_value, 0);
    CHECK_CODE(p[1].result, KV_SUCCESS);
    CHECK_EQ_STR(p[1].value, "a sound value");
    CHECK(counter(m, "damaged_reads") >= 1);
    put_one(m, "struck", "written anew"); /* the way out */
    EXPECT(m, "struck", "written anew");
    close_manager(m);
}

TEST(too_few_file_descriptors_to_start) {
    struct rlimit before, low;
    CHECK_EQ_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    low = before;
    low.rlim_cur = 3;
    CHECK_EQ_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    kv_clear_error();
    int code = kv_async_batch_manager_start(m);
    CHECK_EQ_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK(code != KV_SUCCESS);
    CHECK_EQ_INT(kvt_last(), code);
    CHECK_OK(kv_async_batch_manager_start(m));
    put_one(m, "k", "v");
    EXPECT(m, "k", "v");
    close_manager(m);
}
