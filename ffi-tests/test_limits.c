/* test_limits.c: processes that may have little: file sizes, descriptors, address space, locked memory, stacks, and no io_uring.
 * What can't be had is an error of the operation concerned, and is forgotten when there is more again. */
#include "kvtest.h"
#include <signal.h>
#include <sys/resource.h>

static void limit(int what, rlim_t most, struct rlimit *before) {
    CHECK_EQ_INT(getrlimit(what, before), 0);
    struct rlimit low = *before;
    low.rlim_cur = most;
    CHECK_EQ_INT(setrlimit(what, &low), 0);
}

static void unlimit(int what, const struct rlimit *before) { CHECK_EQ_INT(setrlimit(what, before), 0); }

static char bytes[1 << 20];
static manager_t *m;

/* The result of a put of `len` bytes. */
static int put_result(const char *key, size_t len) {
    probe_t p = {0};
    batch_t *b = kv_async_batch_create(m, 1);
    if (!b) return kvt_last();
    int code = kv_async_batch_put(b, key, strlen(key), bytes, len, on_op, &p);
    if (code == KV_SUCCESS) {
        CHECK_OK(kv_async_batch_submit(b, NULL, NULL));
        code = kv_async_batch_wait(b, FOREVER);
        CHECK_EQ_INT(p.calls, 1);
        CHECK_CODE(code, p.result == KV_SUCCESS ? KV_SUCCESS : KV_ERR_BATCH_FAILED);
        code = p.result;
    }
    kv_async_batch_destroy(b);
    return code;
}

/* No handler, no mask: the signal that the kernel sends with this limit would end the process. */
static void small_files(bool fsync) {
    struct rlimit before;
    config_t c = kvt_config();
    c.enable_batch_fsync = fsync;
    c.max_retry_count = 0;
    m = open_with(&c);
    put_one(m, "before", "1");
    limit(RLIMIT_FSIZE, 1 << 20, &before);
    int refused = 0;
    for (int i = 0; i < 6; i++) {
        int code = put_result("big", 300000);
        if (code != KV_SUCCESS) {
            CHECK_CODE(code, KV_ERR_DISK_FULL);
            refused++;
        }
    }
    CHECK(refused > 0);
    EXPECT(m, "before", "1");
    unlimit(RLIMIT_FSIZE, &before);
    put_one(m, "after", "2");
    close_manager(m);
    m = open_default();
    EXPECT(m, "before", "1");
    EXPECT(m, "after", "2");
    close_manager(m);
}

TEST(files_that_may_not_grow_are_a_full_disk) { small_files(true); }
TEST(files_that_may_not_grow_are_a_full_disk_without_fsync) { small_files(false); }

/* Takes all descriptors that are left, so that the library finds none; how many, for giving them back. */
static int taken[256];
static int take_descriptors(void) {
    int n = 0;
    while (n < 256 && (taken[n] = open("/dev/null", O_RDONLY)) >= 0) n++;
    CHECK(n < 256 && errno == EMFILE);
    return n;
}

/* The next chunk's file can't be opened; batches that need it fail, and those behind go well once it can. */
TEST(no_descriptor_for_the_next_chunk) {
    struct rlimit before;
    setenv("KVBATCH_STORE", "file:small?chunk_bytes=4m", 1);
    config_t c = kvt_config();
    c.max_retry_count = 1;
    c.retry_delay_ms = 1;
    m = open_with(&c);
    put_one(m, "before", "1");
    limit(RLIMIT_NOFILE, 100, &before);
    int refused = 0, descriptors = take_descriptors();
    for (int i = 0; i < 12; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        int code = put_result(key, sizeof bytes);
        if (code != KV_SUCCESS) {
            CHECK_CODE(code, KV_ERR_FILE);
            refused++;
        }
    }
    CHECK(refused > 0);
    EXPECT(m, "before", "1");
    for (int i = 0; i < descriptors; i++) close(taken[i]);
    unlimit(RLIMIT_NOFILE, &before);
    for (int i = 0; i < 12; i++) CHECK_CODE(put_result("after", sizeof bytes), KV_SUCCESS);
    close_manager(m);
    m = open_default();
    EXPECT(m, "before", "1");
    size_t len;
    char *seen = get_mem(m, "after", 5, &len);
    CHECK_EQ_INT(len, sizeof bytes);
    free(seen);
    close_manager(m);
}

static rlim_t address_space(void) {
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL);
    CHECK_EQ_INT(fscanf(f, "%zu", &pages), 1);
    fclose(f);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void needs_an_address_space(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    kvt_skip("the sanitizer has an address space of its own");
#endif
    if (getenv("KV_RUNNER")) kvt_skip("the tool has an address space of its own");
}

/* Leaves so much more. The heap's arenas of threads that just began come while this looks: then it looks again. */
static void leave_address_space(rlim_t len, struct rlimit *before) {
    rlim_t seen = address_space();
    limit(RLIMIT_AS, seen + len, before);
    while (address_space() > seen) {
        unlimit(RLIMIT_AS, before);
        seen = address_space();
        limit(RLIMIT_AS, seen + len, before);
    }
}

TEST(an_address_space_that_is_used_up) {
    needs_an_address_space();
    struct rlimit before;
    config_t c = kvt_config();
    c.max_memory_usage = SIZE_MAX;
    m = open_with(&c);
    put_one(m, "before", "1");
    leave_address_space(24 << 20, &before);
    /* One batch takes what there is; a refused add leaves it as it was. */
    batch_t *b = new_batch(m, 1000);
    int added = 0, code = KV_SUCCESS;
    for (; added < 1000; added++) {
        code = kv_async_batch_put(b, "big", 3, bytes, sizeof bytes, NULL, NULL);
        if (code != KV_SUCCESS) break;
    }
    CHECK_CODE(code, KV_ERR_MEM);
    CHECK(added > 0);
    CHECK_EQ_INT(stats_of(b).total_operations, added);
    kv_async_batch_destroy(b);
    CHECK_CODE(put_result("small", 100), KV_SUCCESS);
    EXPECT(m, "before", "1");
    unlimit(RLIMIT_AS, &before);
    close_manager(m);
    m = open_default();
    EXPECT(m, "before", "1");
    close_manager(m);
}

TEST(no_address_space_to_start) {
    needs_an_address_space();
    struct rlimit before;
    m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    leave_address_space(1 << 20, &before); /* not even a thread's stack fits */
    kv_clear_error();
    int code = kv_async_batch_manager_start(m);
    unlimit(RLIMIT_AS, &before);
    if (code != KV_SUCCESS) {
        CHECK(code == KV_ERR_MEM || code == KV_ERR_THREAD_CREATE || code == KV_ERR_SYS);
        CHECK_EQ_INT(kvt_last(), code);
        CHECK_OK(kv_async_batch_manager_start(m));
    }
    put_one(m, "k", "v");
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(no_memory_may_be_locked) {
    struct rlimit before;
    limit(RLIMIT_MEMLOCK, 0, &before);
    for (int round = 0; round < 2; round++) {
        m = open_default();
        for (int i = 0; i < 20; i++) CHECK_CODE(put_result("k", 100000), KV_SUCCESS);
        size_t len;
        char *seen = get_mem(m, "k", 1, &len);
        CHECK_EQ_INT(len, 100000);
        free(seen);
        close_manager(m);
    }
}

/* Threads of the program with the least of stacks: they run callbacks and do batches' work, too. */
static void on_op_put_another(op_t *op, int result, void *unused) {
    UNUSED(op);
    UNUSED(unused);
    CHECK_CODE(result, KV_SUCCESS);
    CHECK_CODE(put_result("another", 3000), KV_SUCCESS);
}

static void *small_stack_body(void *number) {
    char key[32];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "t%ld", (long)number);
        batch_t *b = new_batch(m, 300);
        for (int k = 0; k < 100; k++) CHECK_OK(kv_async_batch_put(b, key, strlen(key), bytes, 5000, NULL, NULL));
        CHECK_OK(kv_async_batch_get(b, key, strlen(key), NULL, NULL, on_op_put_another, NULL));
        run(b);
    }
    CHECK_ERR(kv_async_batch_put(NULL, "k", 1, "v", 1, NULL, NULL), KV_ERR_NULL_POINTER);
    return NULL;
}

static void small_stacks(void) {
    setenv("KVBATCH_STORE", "file:stacks?hot_log_bytes=0", 1);
    config_t c = kvt_config();
    c.enable_compression = true;
    m = open_with(&c);
    pthread_attr_t attributes;
    pthread_t t[4];
    CHECK_EQ_INT(pthread_attr_init(&attributes), 0);
    CHECK_EQ_INT(pthread_attr_setstacksize(&attributes, 64 * 1024), 0);
    for (long i = 0; i < 4; i++) CHECK_EQ_INT(pthread_create(&t[i], &attributes, small_stack_body, (void *)i), 0);
    for (int i = 0; i < 4; i++) thread_join(t[i]);
    close_manager(m);
}

TEST(threads_with_64_kib_of_stack) { small_stacks(); }
TEST(threads_with_64_kib_of_stack_without_a_ring) {
    setenv("KVBATCH_IO", "threads", 1);
    small_stacks();
}

/* ---- io_uring is denied: from the start, or as soon as a store is open ---- */
static void without_a_ring(int error) {
    deny_uring(error);
    setenv("KVBATCH_STORE", "file:denied?hot_log_bytes=0", 1);
    m = open_default();
    batch_t *b = new_batch(m, 1);
    char *text = printed_text(b);
    CHECK(strstr(text, "io_backend: threads") != NULL);
    free(text);
    kv_async_batch_destroy(b);
    for (int i = 0; i < 20; i++) {
        CHECK_CODE(put_result("k", 100000 + (size_t)i), KV_SUCCESS);
        size_t len;
        char *seen = get_mem(m, "k", 1, &len);
        CHECK_EQ_INT(len, 100000 + i);
        free(seen);
    }
    close_manager(m);
}

TEST(io_uring_denied_with_eperm) { without_a_ring(EPERM); }
TEST(io_uring_denied_with_enosys) { without_a_ring(ENOSYS); }
TEST(io_uring_denied_with_enomem) { without_a_ring(ENOMEM); }

static void ring_taken_away(int error) {
    setenv("KVBATCH_STORE", "file:denied?hot_log_bytes=0", 1);
    m = open_default();
    CHECK_CODE(put_result("k", 100000), KV_SUCCESS);
    deny_uring(error); /* as a program that sandboxes itself when it is up */
    for (int i = 0; i < 20; i++) {
        batch_t *b = new_batch(m, 40);
        probe_t p[40] = {0};
        for (int k = 0; k < 40; k++) add_get(b, "k", &p[k]);
        run(b);
        for (int k = 0; k < 40; k++) CHECK_EQ_INT(p[k].value_len, 100000);
        CHECK_CODE(put_result("l", 1000), KV_SUCCESS);
    }
    close_manager(m);
}

TEST(io_uring_taken_away_with_eperm) { ring_taken_away(EPERM); }
TEST(io_uring_taken_away_with_enosys) { ring_taken_away(ENOSYS); }
TEST(io_uring_taken_away_with_enomem) { ring_taken_away(ENOMEM); }
