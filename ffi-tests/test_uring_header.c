/* test_uring_header.c: kv_io_uring.h alone, and the library with io_uring denied: it works all the same, through threads, and says so.
 * Included first and alone, so that nothing else pulls in what the header must. */
#include "kvserver/kv_io_uring.h"

static uint64_t width_types_are_there(void) {
    uint32_t small = 1;
    bool yes = true;
    off_t offset = 0;
    struct iovec v = {NULL, 0};
    struct timespec t = {0, 0};
    struct timeval tv = {0, 0};
    struct stat s = {0};
    pthread_t self = pthread_self();
    return small + yes + (uint64_t)offset + v.iov_len + (uint64_t)(t.tv_sec + tv.tv_sec + s.st_size) + (self ? 0 : 1) + (KV_SUCCESS != 0) +
           (O_RDONLY != 0) + (EPERM != 1) + (stdout == NULL);
}

#include "kvtest.h"
#include <sys/syscall.h>

/* What the kernel itself says to a setup with good arguments. */
static bool kernel_allows_a_ring(void) {
    unsigned char parameters[120];
    memset(parameters, 0, sizeof parameters);
    long fd = syscall(425, 4, parameters);
    if (fd >= 0) close((int)fd);
    return fd >= 0;
}

TEST(the_header_pulls_in_what_callers_lean_on) { CHECK_EQ_INT(width_types_are_there(), 2); }

TEST(is_supported_tells_the_truth) {
    CHECK_EQ_INT(kv_uring_is_supported(), kernel_allows_a_ring());
    CHECK_EQ_INT(kv_uring_is_supported(), kernel_allows_a_ring()); /* asking changes nothing */
}

static void denied_with(int error) {
    deny_uring(error);
    CHECK(!kernel_allows_a_ring());
    CHECK_EQ_INT(kv_uring_is_supported(), false);
}

TEST(is_supported_is_false_under_eperm) { denied_with(EPERM); }
TEST(is_supported_is_false_under_enosys) { denied_with(ENOSYS); }

TEST(the_clock_rises) {
    uint64_t a = kv_uring_get_timestamp_us();
    sleep_ms(3);
    uint64_t b = kv_uring_get_timestamp_us();
    CHECK(b >= a + 2000);
    uint64_t last = b;
    for (int i = 0; i < 10000; i++) {
        uint64_t now = kv_uring_get_timestamp_us();
        CHECK(now >= last);
        last = now;
    }
}

/* The store, with reads that must go to the disk. */
static char *backend(manager_t *m) {
    batch_t *b = new_batch(m, 1);
    char *text = printed_text(b), *at = strstr(text, "  io_backend: ");
    CHECK(at != NULL);
    at += strlen("  io_backend: ");
    char *name = strndup(at, strcspn(at, "\n"));
    free(text);
    kv_async_batch_destroy(b);
    return name;
}

static void works(const char *wanted) {
    for (int round = 0; round < 2; round++) {
        manager_t *m = open_default();
        char *name = backend(m);
        if (wanted) CHECK_EQ_STR(name, wanted);
        batch_t *b = new_batch(m, 500);
        static char value[3000];
        static probe_t p[300];
        memset(p, 0, sizeof p);
        char key[32];
        for (int i = 0; i < 300; i++) {
            snprintf(key, sizeof key, "key%d", i);
            memset(value, 'a' + i % 26, sizeof value);
            if (round == 0) CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, (size_t)(i * 10), NULL, NULL));
            else add_get(b, key, &p[i]);
        }
        run(b);
        if (round == 1) {
            for (int i = 0; i < 300; i++) {
                CHECK_CODE(p[i].result, KV_SUCCESS);
                CHECK_EQ_INT(p[i].value_len, i * 10);
                if (i) CHECK_EQ_INT(p[i].value[0], 'a' + i % 26);
            }
            CHECK(counter(m, "cold_reads") > 0);
            if (strcmp(name, "io_uring") == 0) CHECK(counter(m, "ring_reads") > 0);
            else CHECK_EQ_INT(counter(m, "ring_reads"), 0);
        }
        free(name);
        close_manager(m);
    }
}

TEST(the_store_works_with_what_there_is) { works(NULL); }

TEST(the_store_takes_the_ring_where_it_may) {
    if (!kernel_allows_a_ring()) kvt_skip("the kernel refuses io_uring here");
    setenv("KVBATCH_IO", "auto", 1);
    works("io_uring");
}

TEST(the_store_takes_threads_under_eperm) {
    deny_uring(EPERM);
    setenv("KVBATCH_IO", "auto", 1);
    works("threads");
}

TEST(the_store_takes_threads_under_enosys) {
    deny_uring(ENOSYS);
    unsetenv("KVBATCH_IO");
    works("threads");
}

TEST(the_store_takes_threads_when_told_to) {
    setenv("KVBATCH_IO", "threads", 1);
    works("threads");
}

TEST(a_store_written_one_way_is_read_the_other) {
    manager_t *m = open_default();
    put_one(m, "k", "written with what there is");
    close_manager(m);
    setenv("KVBATCH_IO", "threads", 1);
    m = open_default();
    EXPECT(m, "k", "written with what there is");
    put_one(m, "l", "written through threads");
    close_manager(m);
    unsetenv("KVBATCH_IO");
    m = open_default();
    EXPECT(m, "l", "written through threads");
    close_manager(m);
}
