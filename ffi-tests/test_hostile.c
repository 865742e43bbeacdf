/* test_hostile.c: the store's descriptors in bad hands. The one past the page cache (O_DIRECT), through which durable batches are
 * written, on disks that are not kind to it: short writes, errors, file systems that promise it and refuse. And host programs that
 * close descriptors which aren't theirs, or put a file of their own in the place of one. The calls that the library makes on
 * store files come here first; everything else passes through. A case is left out where the file system has no such way. */
#include "kvtest.h"
#include <fcntl.h>
#include <sys/syscall.h>

#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif

static atomic_long direct_writes, direct_failed, cached_writes, not_durable; /* calls on store files since the case began */
static atomic_int direct_error;     /* errno for the next call; 0: none */
static atomic_int direct_left;      /* how many calls fail; -1: all */
static atomic_size_t direct_at_most; /* so many bytes are written in one call; 0: any number */

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    path[n > 0 ? n : 0] = 0;
    return n > 4;
}

static int is_chunk(int fd) {
    char path[4096];
    return path_of(fd, path) && strcmp(path + strlen(path) - 4, ".kvb") == 0;
}

static int is_direct(int fd) { return (fcntl(fd, F_GETFL) & O_DIRECT) != 0; }

static ssize_t vector_write(int fd, const struct iovec *v, int n, off_t offset, int flags) {
    struct iovec first;
    if (is_chunk(fd)) {
        if (!(flags & RWF_DSYNC)) not_durable++;
        if (!is_direct(fd)) {
            cached_writes++;
        } else {
            direct_writes++;
            if (direct_error && direct_left != 0) {
                if (direct_left > 0) direct_left--;
                direct_failed++;
                errno = direct_error;
                return -1;
            }
            size_t most = direct_at_most;
            if (most && n > 0 && v[0].iov_len > most) {
                first = (struct iovec){v[0].iov_base, most};
                v = &first;
                n = 1;
            }
        }
    }
    return syscall(SYS_pwritev2, fd, v, n, (long)offset, 0L, flags);
}

ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t offset, int flags) { return vector_write(fd, v, n, offset, flags); }
ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off_t offset, int flags) { return vector_write(fd, v, n, offset, flags); }

static config_t durable(void) {
    config_t c = kvt_config();
    c.max_retry_count = 0;
    return c;
}

static int put_code(manager_t *m, const char *key, const char *value, size_t len, int *result) {
    probe_t probe = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, len, on_op, &probe));
    int code = run_code(b);
    kv_async_batch_destroy(b);
    CHECK_EQ_INT(probe.calls, 1);
    *result = probe.result;
    return code;
}

/* A running store whose durable batches are seen to pass the page cache. */
static manager_t *past_the_page_cache(void) {
    config_t c = durable();
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    for (int i = 0; i < 16 && direct_writes == 0; i++) put_one(m, "warm", "1");
    if (direct_writes == 0) kvt_skip("this file system has no way past the page cache");
    direct_writes = cached_writes = not_durable = 0;
    return m;
}

static char bytes[200000];
static void fill(uint64_t seed) {
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)next_random(&seed);
}

static void holds(manager_t *m, const char *key, size_t len) {
    size_t seen_len;
    char *seen = get_mem(m, key, strlen(key), &seen_len);
    CHECK_EQ_MEM(seen, seen_len, bytes, len);
    free(seen);
}

/* ---- short writes: at a block's end, and within one, so that the rest can't go the same way ---- */
static void short_by(size_t at_most) {
    manager_t *m = past_the_page_cache();
    size_t sizes[] = {1, 5000, 60000, sizeof bytes};
    fill(at_most);
    direct_at_most = at_most;
    for (size_t i = 0; i < 4; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%zu", i);
        put_mem(m, key, strlen(key), bytes, sizes[i]);
    }
    CHECK(direct_writes > 0);
    CHECK_EQ_INT(not_durable, 0); /* each piece of what was acknowledged */
    direct_at_most = 0;
    close_manager(m);
    m = open_default();
    for (size_t i = 0; i < 4; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%zu", i);
        holds(m, key, sizes[i]);
    }
    close_manager(m);
}

TEST(short_direct_writes_that_end_with_a_block) { short_by(4096); }
TEST(short_direct_writes_that_end_within_a_block) { short_by(512); }

TEST(interrupted_direct_writes) {
    manager_t *m = past_the_page_cache();
    fill(3);
    for (int i = 1; i <= 8; i++) {
        direct_left = i;
        direct_error = EINTR;
        put_mem(m, "k", 1, bytes, sizeof bytes - (size_t)i);
    }
    CHECK_EQ_INT(direct_failed, 36);
    direct_error = 0;
    close_manager(m);
    m = open_default();
    holds(m, "k", sizeof bytes - 8);
    close_manager(m);
}

/* ---- errors: the operation has the answer of any write, and what failed never turns up ---- */
static void fails_with(int error, int wanted) {
    manager_t *m = past_the_page_cache();
    int result;
    direct_left = -1;
    direct_error = error;
    CHECK_CODE(put_code(m, "refused", "2", 1, &result), KV_ERR_BATCH_FAILED);
    CHECK_CODE(result, wanted);
    CHECK(direct_failed > 0);
    direct_error = 0;
    EXPECT(m, "before", "1");
    EXPECT_MISS(m, "refused");
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
    m = open_default();
    EXPECT(m, "before", "1");
    EXPECT_MISS(m, "refused");
    put_one(m, "after", "3");
    close_manager(m);
    m = open_default();
    EXPECT(m, "after", "3");
    close_manager(m);
}

TEST(a_direct_write_fails_with_eio) { fails_with(EIO, KV_ERR_IO); }
TEST(a_direct_write_fails_with_enospc) { fails_with(ENOSPC, KV_ERR_DISK_FULL); }
TEST(a_direct_write_fails_with_edquot) { fails_with(EDQUOT, KV_ERR_DISK_FULL); }

/* Once it has worked, an EINVAL is an error like others. */
TEST(a_direct_write_fails_with_einval_after_others_went_well) { fails_with(EINVAL, KV_ERR_IO); }

/* Some file systems promise the way and then refuse it: the page cache is there for them. */
static void goes_through_the_page_cache(int error) {
    config_t c = durable();
    direct_left = -1;
    direct_error = error;
    manager_t *m = open_with(&c);
    for (int i = 0; i < 20; i++) put_one(m, "k", "value");
    if (direct_failed == 0) kvt_skip("this file system has no way past the page cache");
    CHECK(cached_writes > 0);
    CHECK_EQ_INT(direct_failed, direct_writes);
    CHECK(direct_failed < 20); /* nor is it asked for ever */
    close_manager(m);
    direct_error = 0;
    m = open_default();
    EXPECT(m, "k", "value");
    close_manager(m);
}

TEST(direct_writes_are_refused_with_einval) { goes_through_the_page_cache(EINVAL); }
TEST(direct_writes_are_refused_with_eopnotsupp) { goes_through_the_page_cache(EOPNOTSUPP); }

/* ---- host programs: a descriptor of the store is closed, or has become that of another file ---- */
static const char strangers[] = "what a stranger wrote";
static int stranger_fd; /* the stranger's own */

static void stranger_at(int number) {
    write_file("stranger", strangers, sizeof strangers);
    stranger_fd = open("stranger", O_RDWR | O_CLOEXEC);
    CHECK(stranger_fd >= 0);
    if (number >= 0) CHECK_EQ_INT(dup2(stranger_fd, number), number);
}

static void stranger_is_unharmed(void) {
    size_t len;
    char *seen = read_file("stranger", &len);
    CHECK_EQ_MEM(seen, len, strangers, sizeof strangers);
    free(seen);
}

static int is_cached(int fd) { return !is_direct(fd); }

/* Descriptors of the store's chunks of one kind, each given to `what`. */
static int each_chunk_fd(int (*kind)(int), void (*what)(int)) {
    int found = 0;
    for (int fd = 3; fd < 1024; fd++) {
        if (fcntl(fd, F_GETFD) == -1 || !is_chunk(fd) || !kind(fd)) continue;
        what(fd);
        found++;
    }
    return found;
}

static void close_it(int fd) { CHECK_EQ_INT(close(fd), 0); }

/* Writes are refused, each with the reason; then the store is closed, and the number stays the program's. What was acknowledged is
 * in the store, what was refused is nowhere. */
static void refuses_writes(manager_t *m, int number) {
    int result;
    for (int i = 0; i < 3; i++) {
        CHECK_CODE(put_code(m, "refused", "2", 1, &result), KV_ERR_BATCH_FAILED);
        CHECK_CODE(result, KV_ERR_IO);
    }
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
    if (number >= 0) {
        CHECK(fcntl(number, F_GETFD) != -1); /* not closed by us */
        stranger_is_unharmed();
    }
    m = open_default();
    EXPECT(m, "before", "1");
    EXPECT_MISS(m, "refused");
    put_one(m, "after", "3");
    close_manager(m);
    if (number >= 0) stranger_is_unharmed();
}

static int taken = -1;
static void take(int fd) {
    stranger_at(fd);
    taken = fd;
}

/* Without a way past the page cache, and whatever fsync there is. */
static void exchanged(bool fsync, void (*what)(int)) {
    config_t c = durable();
    c.enable_batch_fsync = fsync;
    c.fsync_interval_ms = 0;
    direct_left = -1; /* durable batches go through the page cache */
    direct_error = EOPNOTSUPP;
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    put_one(m, "before", "1");
    CHECK(each_chunk_fd(is_cached, what) == 1);
    refuses_writes(m, taken);
}

TEST(the_descriptor_is_exchanged_for_a_strangers_file) { exchanged(true, take); }
TEST(the_descriptor_is_exchanged_for_a_strangers_file_without_fsync) { exchanged(false, take); }
TEST(the_descriptor_is_closed) { exchanged(true, close_it); }

/* All that the process has but the first three, as a daemon does that starts the library too early. Which numbers those were. */
static int numbers[1024], numbers_len;
static void all_descriptors(bool strangers_file) {
    numbers_len = 0;
    for (int fd = 3; fd < 1000; fd++)
        if (fcntl(fd, F_GETFD) != -1) numbers[numbers_len++] = fd;
    CHECK(numbers_len > 1);
    if (!strangers_file) {
        for (int i = 0; i < numbers_len; i++) close(numbers[i]);
        return;
    }
    stranger_at(-1);
    for (int i = 0; i < numbers_len; i++) CHECK_EQ_INT(dup2(stranger_fd, numbers[i]), numbers[i]);
}

static void lost_all(bool strangers_file) {
    config_t c = durable();
    setenv("KVBATCH_STORE", "file:all?hot_log_bytes=0", 1); /* so that reads go to the disk */
    manager_t *m = open_with(&c);
    fill(9);
    put_mem(m, "cold", 4, bytes, sizeof bytes);
    put_one(m, "before", "1");
    holds(m, "cold", sizeof bytes);
    all_descriptors(strangers_file);
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    add_get(b, "cold", &p);
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED); /* no stranger's bytes, and no miss */
    CHECK(p.result == KV_ERR_IO || p.result == KV_ERR_CORRUPTED);
    kv_async_batch_destroy(b);
    int result;
    CHECK_CODE(put_code(m, "refused", "2", 1, &result), KV_ERR_BATCH_FAILED);
    CHECK_CODE(result, KV_ERR_IO);
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
    if (strangers_file) {
        struct stat wanted, seen;
        CHECK_EQ_INT(fstat(stranger_fd, &wanted), 0);
        for (int i = 0; i < numbers_len; i++) { /* none was closed */
            CHECK_EQ_INT(fstat(numbers[i], &seen), 0);
            CHECK(seen.st_ino == wanted.st_ino && seen.st_dev == wanted.st_dev);
        }
        stranger_is_unharmed();
    }
    m = open_with(&c);
    holds(m, "cold", sizeof bytes);
    EXPECT_MISS(m, "refused");
    put_one(m, "after", "3");
    close_manager(m);
    if (strangers_file) stranger_is_unharmed();
}

TEST(all_descriptors_are_closed) { lost_all(false); }
TEST(all_descriptors_are_exchanged_for_a_strangers_file) { lost_all(true); }

TEST(the_direct_descriptor_is_exchanged_for_a_strangers_file) {
    manager_t *m = past_the_page_cache();
    CHECK(each_chunk_fd(is_direct, take) == 1);
    refuses_writes(m, taken);
}

TEST(the_direct_descriptor_is_closed) {
    manager_t *m = past_the_page_cache();
    CHECK(each_chunk_fd(is_direct, close_it) == 1);
    refuses_writes(m, -1);
}
