/* test_reuse.c: files of chunks that compaction has removed and that are used again: by batches that are synced, for the next chunk.
 * Whatever such a file held before, it holds what was written since; and nobody who has the file by another name sees it change. */
#include "kvtest.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { KEYS = 4000, PUTS = 100, VALUE = 1000, ROUNDS_MAX = 200 };

/* ---- the library's calls come here first ---- */
static atomic_long kept, begun; /* files that have lost their place as a chunk, and those that have found one */
static int is_chunk(const char *name) { return strncmp(name, "chunk-", 6) == 0; }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    int result = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (result == 0 && is_chunk(from) && !is_chunk(to)) kept++;
    if (result == 0 && !is_chunk(from) && is_chunk(to)) begun++;
    return result;
}

static manager_t *open_small(int fsync) {
    config_t c = kvt_config();
    setenv("KVBATCH_STORE", "file:store?chunk_bytes=4m&hot_log_bytes=0", 1);
    c.enable_batch_fsync = fsync;
    return open_with(&c);
}

static char value[VALUE];
static const char *value_of(int key, int round) {
    snprintf(value, sizeof value, "key %d, round %d.", key, round);
    size_t len = strlen(value);
    memset(value + len, 'a' + (key * 7 + round) % 26, sizeof value - len);
    return value;
}

/* Puts a batch of the keys from `first` on. */
static void put_some(manager_t *m, int first, int round) {
    batch_t *b = new_batch(m, PUTS);
    for (int key = first; key < first + PUTS; key++) {
        char name[32];
        snprintf(name, sizeof name, "key%d", key);
        CHECK_OK(kv_async_batch_put(b, name, strlen(name), value_of(key, round), VALUE, NULL, NULL));
    }
    run(b);
}

static void put_all(manager_t *m, int round) {
    for (int first = 0; first < KEYS; first += PUTS) put_some(m, first, round);
}

/* Keys below `end` are of this round, the others of the one before it. */
static void look_at_all(manager_t *m, int round, int end) {
    for (int key = 0; key < KEYS; key++) {
        char name[32];
        size_t len;
        snprintf(name, sizeof name, "key%d", key);
        char *seen = get_mem(m, name, strlen(name), &len);
        CHECK_EQ_MEM(seen, len, value_of(key, key < end ? round : round - 1), VALUE);
        free(seen);
    }
}

/* Overwrites all keys until a chunk has the file of a removed one, and another time `more` rounds; the last round. */
static int until_reused(manager_t *m, int round, int more) {
    for (long before = kept; more > 0; round++) {
        CHECK(round < ROUNDS_MAX);
        put_all(m, round);
        more -= kept > before && begun > 0;
    }
    return round - 1;
}

TEST(what_was_written_is_there_and_nothing_else) {
    manager_t *m = open_small(1);
    int round = until_reused(m, 1, 6);
    CHECK(kept > 1);
    look_at_all(m, round, KEYS);
    close_manager(m);
    char names[8][256];
    CHECK_EQ_INT(list_dir("store", "ahead", names, 8), 0);
    for (int again = 0; again < 2; again++) {
        m = open_small(1);
        look_at_all(m, round, KEYS);
        round = until_reused(m, round + 1, 2);
        close_manager(m);
    }
}

static int told[2];
static void put_and_die(void *unused) {
    UNUSED(unused);
    manager_t *m = open_small(1);
    int round = until_reused(m, 1, 2) + 1, end = KEYS / 2 / PUTS * PUTS;
    for (int first = 0; first < end; first += PUTS) put_some(m, first, round);
    CHECK_EQ_INT(write(told[1], &round, sizeof round), sizeof round);
    raise(SIGKILL);
}

TEST(after_a_kill_the_older_frames_count_for_nothing) {
    int round;
    CHECK_EQ_INT(pipe(told), 0);
    int status = join_status(spawn(put_and_die, NULL));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_EQ_INT(read(told[0], &round, sizeof round), sizeof round);
    manager_t *m = open_small(1);
    look_at_all(m, round, KEYS / 2 / PUTS * PUTS);
    put_all(m, round + 1);
    look_at_all(m, round + 1, KEYS);
    close_manager(m);
}

/* As `cp -l` makes them. */
TEST(files_with_another_name_stay_as_they_are) {
    char names[64][256], from[5000], to[5000];
    manager_t *m = open_small(1);
    int round = 0;
    size_t linked = 0;
    CHECK_EQ_INT(mkdir("copy", 0700), 0);
    while (linked == 0) {
        round = until_reused(m, round + 1, 1);
        size_t found = list_dir("store", "chunk-", names, 64), newest = 0;
        for (size_t i = 1; i < found; i++)
            if (strcmp(names[i], names[newest]) > 0) newest = i; /* which the log goes on in */
        for (size_t i = 0; i < found; i++) {
            snprintf(from, sizeof from, "store/%s", names[i]);
            snprintf(to, sizeof to, "copy/%s", names[i]);
            linked += i != newest && syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0) == 0; /* it may be gone by now */
        }
    }
    uint64_t before = dir_digest("copy", "chunk-");
    round = until_reused(m, round + 1, 6);
    look_at_all(m, round, KEYS);
    close_manager(m);
    CHECK_EQ_INT(list_dir("copy", "chunk-", names, 64), (long long)linked);
    CHECK_EQ_INT((long long)dir_digest("copy", "chunk-"), (long long)before);
}

/* Batches that are not synced go into files of their own, whatever is kept. */
TEST(synced_batches_and_others_by_turns) {
    manager_t *synced = open_small(1), *m = open_small(0);
    int round = until_reused(synced, 1, 2);
    for (int by_turns = 0; by_turns < 12; by_turns++) put_all(by_turns % 4 == 3 ? m : synced, ++round);
    look_at_all(m, round, KEYS);
    close_manager(m);
    close_manager(synced);
    m = open_small(0);
    look_at_all(m, round, KEYS);
    close_manager(m);
}

TEST(options_can_do_without) {
    config_t c = kvt_config();
    setenv("KVBATCH_STORE", "file:store?chunk_bytes=4m&prepare_chunks=false", 1);
    c.enable_batch_fsync = 1;
    manager_t *m = open_with(&c);
    for (int round = 1; round < 8; round++) put_all(m, round);
    while (counter(m, "chunks_removed") < 2) sleep_ms(1);
    put_all(m, 8);
    close_manager(m);
    CHECK_EQ_INT(kept, 0);
}
