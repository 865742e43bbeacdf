/* test_ahead.c: disk space that a store takes ahead of batches which are not synced: it changes nothing that is there, is given back,
 * and can be done without. */
#include "log_case.h"
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { PUTS = 100, VALUE = 1000, BATCHES = 30 }; /* 3 MB */

/* ---- the library's calls come here first ---- */
static atomic_int allocate_error; /* errno of the calls to come; 0: none */
static atomic_long allocated;

static int allocate(int fd, int mode, long offset, long len) {
    allocated++;
    if (allocate_error) {
        errno = allocate_error;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
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
    CHECK_EQ_INT(list_dir(kvt_store(), "chunk-", names, 8) > 0, 1);
    snprintf(path, sizeof path, "%s/%s", kvt_store(), names[0]);
    CHECK_EQ_INT(stat(path, &s), 0);
    return s.st_size;
}

/* Puts until the file is longer than what was put needs, by more than may be left; how many batches that took. */
static int put_until_ahead(manager_t *m) {
    int batch = 0;
    do {
        CHECK(batch < 100 * BATCHES);
        put_batch(m, batch++);
        sleep_ms(1); /* a thread of its own does it */
    } while (batch < BATCHES || chunk_bytes() < (long long)batch * PUTS * (VALUE + 64) + (3 << 19));
    return batch;
}

TEST(space_comes_ahead_and_is_given_back) {
    manager_t *m = open_unsynced();
    int batches = put_until_ahead(m);
    CHECK(allocated > 0);
    look_at_all(m, batches);
    close_manager(m);
    CHECK(chunk_bytes() < (long long)batches * PUTS * (VALUE + 64));
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
    CHECK_EQ_INT(pipe(told), 0);
    int status = join_status(spawn(puts_until_ahead, NULL));
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
    CHECK(chunk_bytes() < (long long)batches * PUTS * (VALUE + 64)); /* what the next chunk's begin has cut off */
}

TEST(small_batches_take_none) {
    manager_t *m = open_unsynced();
    for (int i = 0; i < 1500; i++) {
        char key[32];
        snprintf(key, sizeof key, "key%d", i);
        put_mem(m, key, strlen(key), value_of(0, i), VALUE);
    }
    CHECK_EQ_INT(allocated, 0);
    close_manager(m);
}

TEST(options_can_do_without) {
    setenv("KVBATCH_STORE", "file:store?prepare_chunks=false", 1);
    manager_t *m = open_unsynced();
    for (int batch = 0; batch < BATCHES; batch++) put_batch(m, batch);
    CHECK_EQ_INT(allocated, 0);
    close_manager(m);
}

static void goes_on_without(int error, const char *says) {
    allocate_error = error;
    listen_from(KV_LOG_INFO);
    manager_t *m = open_unsynced();
    int batch = 0;
    while (batch < BATCHES || allocated == 0) put_batch(m, batch++);
    while (heard(KV_LOG_INFO, "cannot take space ahead of the log", says) == 0) sleep_ms(1);
    long asked = allocated;
    for (int more = 0; more < BATCHES; more++) put_batch(m, batch++);
    CHECK_EQ_INT(allocated, asked); /* not again in this chunk */
    HEARD(1, KV_LOG_INFO, "cannot take space ahead of the log", says);
    look_at_all(m, batch);
    close_manager(m);
    m = open_unsynced();
    look_at_all(m, batch);
    close_manager(m);
}

TEST(a_file_system_that_takes_no_space_ahead) { goes_on_without(EOPNOTSUPP, "os error 95"); }
TEST(a_full_disk_gives_no_space_ahead) { goes_on_without(ENOSPC, "os error 28"); }
