/* test_ahead.c: disk space that a store takes ahead of batches which are not synced: it changes nothing that is there, is given back,
 * and can be done without. */
#include "log_case.h"
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

enum { PUTS = 100, VALUE = 1000, BATCHES = 15, BATCHES_MAX = 300 }; /* 1.5 to 30 MB */

/* ---- the library's calls come here first ---- */
static atomic_int allocate_error; /* errno of the calls to come; 0: none */
static atomic_long allocated;
static atomic_int refused; /* the file system gives none */

static int allocate(int fd, int mode, long offset, long len) {
    allocated++;
    if (allocate_error) {
        errno = allocate_error;
        return -1;
    }
    int result = (int)syscall(SYS_fallocate, fd, mode, offset, len);
    refused |= result != 0 && errno == EOPNOTSUPP;
    return result;
}

int fallocate(int fd, int mode, off_t offset, off_t len) { return allocate(fd, mode, offset, len); }
int fallocate64(int fd, int mode, off_t offset, off_t len) { return allocate(fd, mode, offset, len); }

static manager_t *open_unsynced(void) {
    config_t c = kvt_config();
    c.enable_batch_fsync = 0;
    c.fsync_interval_ms = 0;
    return open_with(&c);
}

static char value[VALUE];
static const char *value_of(int batch, int i) {
    memset(value, 'a' + (batch * 7 + i) % 26, sizeof value);
    return value;
}

static void put_batch(manager_t *m, int batch) {
    batch_t *b = new_batch(m, PUTS);
    for (int i = 0; i < PUTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "key%d-%d", batch, i);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), value_of(batch, i), VALUE, NULL, NULL));
    }
    run(b);
}

static void look_at_all(manager_t *m, int batches) {
    for (int batch = 0; batch < batches; batch++)
        for (int i = 0; i < PUTS; i++) {
            char key[32];
            size_t len;
            snprintf(key, sizeof key, "key%d-%d", batch, i);
            char *seen = get_mem(m, key, strlen(key), &len);
            CHECK_EQ_MEM(seen, len, value_of(batch, i), VALUE);
            free(seen);
        }
}

static long long chunk_bytes(void) {
    char names[8][256], path[5000];
    struct stat s;
    CHECK(list_dir(kvt_store(), "chunk-", names, 8) > 0);
    snprintf(path, sizeof path, "%s/%s", kvt_store(), names[0]);
    CHECK_EQ_INT(stat(path, &s), 0);
    return s.st_size;
}

/* Nothing is had ahead where the disk is nearly full. */
static void has_room(void) {
    struct statvfs disk;
    CHECK_EQ_INT(statvfs(".", &disk), 0);
    if ((uint64_t)disk.f_bavail * disk.f_frsize < 400u << 20) kvt_skip("there are less than 400 MiB free");
}

static long long bytes_of(int batches) { return (long long)batches * PUTS * (VALUE + 64); }

/* Puts until the file is longer than what was put needs, by more than is left when a chunk ends; how many batches that took. */
static int put_until_ahead(manager_t *m) {
    int batch = 0;
    do {
        CHECK(batch < BATCHES_MAX);
        put_batch(m, batch++);
        sleep_ms(1); /* a thread of its own does it */
        if (refused) kvt_skip("this file system gives no space ahead");
    } while (batch < BATCHES || chunk_bytes() < bytes_of(batch) + (1 << 20));
    return batch;
}

TEST(space_comes_ahead_and_is_given_back) {
    has_room();
    manager_t *m = open_unsynced();
    int batches = put_until_ahead(m);
    CHECK(allocated > 0);
    look_at_all(m, batches);
    close_manager(m);
    CHECK(chunk_bytes() < bytes_of(batches));
    m = open_unsynced();
    look_at_all(m, batches);
    close_manager(m);
}

static int told[2];
static void puts_until_ahead(void *unused) {
    UNUSED(unused);
    int batches = put_until_ahead(open_unsynced());
    CHECK_EQ_INT(write(told[1], &batches, sizeof batches), sizeof batches);
    raise(SIGKILL);
}

TEST(zeros_behind_the_end_are_no_damage) {
    int batches;
    has_room();
    CHECK_EQ_INT(pipe(told), 0);
    int status = join_status(spawn(puts_until_ahead, NULL));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) kvt_skip("this file system gives no space ahead");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_EQ_INT(read(told[0], &batches, sizeof batches), sizeof batches);
    listen_from(KV_LOG_INFO);
    manager_t *m = open_unsynced();
    HEARD(0, KV_LOG_WARN, "chunk-", "");
    HEARD(0, -1, "unfinished end", "");
    look_at_all(m, batches);
    put_batch(m, batches);
    look_at_all(m, batches + 1);
    close_manager(m);
    CHECK(chunk_bytes() < bytes_of(batches)); /* what the next chunk's begin has cut off */
}

/* Synced writes go past the page cache, to places of which it holds zeros. */
TEST(synced_batches_among_them) {
    has_room();
    manager_t *m = open_unsynced(), *synced = open_default();
    int batch = 0;
    while (batch < 3 * BATCHES) {
        put_batch(m, batch++);
        if (batch > BATCHES && batch % 3 == 0) put_batch(synced, batch++);
    }
    look_at_all(m, batch);
    close_manager(synced);
    close_manager(m);
    char url[5000];
    snprintf(url, sizeof url, "file:%s?hot_log_bytes=0", kvt_store()); /* what the disk has */
    setenv("KVBATCH_STORE", url, 1);
    m = open_unsynced();
    look_at_all(m, batch);
    close_manager(m);
}

TEST(small_batches_take_none) {
    manager_t *m = open_unsynced();
    for (int i = 0; i < 1500; i++) {
        char key[32];
        snprintf(key, sizeof key, "key%d", i);
        put_mem(m, key, strlen(key), value_of(0, i), VALUE);
    }
    close_manager(m);
    CHECK_EQ_INT(allocated, 0);
}

TEST(options_can_do_without) {
    setenv("KVBATCH_STORE", "file:store?prepare_chunks=false", 1);
    manager_t *m = open_unsynced();
    for (int batch = 0; batch < 4 * BATCHES; batch++) {
        put_batch(m, batch);
        sleep_ms(1); /* as where it does come */
    }
    close_manager(m);
    CHECK_EQ_INT(allocated, 0);
}

static void goes_on_without(int error, const char *says) {
    has_room();
    allocate_error = error;
    listen_from(KV_LOG_INFO);
    manager_t *m = open_unsynced();
    int batch = 0;
    while (batch < BATCHES || allocated == 0) {
        CHECK(batch < BATCHES_MAX);
        put_batch(m, batch++);
        sleep_ms(1);
    }
    while (heard(KV_LOG_INFO, "cannot have space and pages ahead of the log", says) == 0) sleep_ms(1);
    long asked = allocated;
    for (int more = 0; more < BATCHES; more++) put_batch(m, batch++);
    CHECK_EQ_INT(allocated, asked); /* not again in this chunk */
    HEARD(1, KV_LOG_INFO, "cannot have space and pages ahead of the log", says);
    look_at_all(m, batch);
    close_manager(m);
    m = open_unsynced();
    look_at_all(m, batch);
    close_manager(m);
}

TEST(a_file_system_that_takes_no_space_ahead) { goes_on_without(EOPNOTSUPP, "os error 95"); }
TEST(a_full_disk_gives_no_space_ahead) { goes_on_without(ENOSPC, "os error 28"); }
