/* test_start_failures.c: stores that cannot be opened: each cause has a code of its own and a message that names the path, and the
 * store's bytes stay as they were. docs/FORMAT.md says where the patched bytes lie. */
#include "kvtest.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#define STORE "refused-store"

/* Starting must fail, twice, with this code and a message that names the path and contains `text`, too. In a child: a process that
 * has started a manager may not fork others that do. */
typedef struct { int code; const char *text; } refusal_t;

static void refuses(void *arg) {
    const refusal_t *wanted = arg;
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(kv_async_batch_manager_start(m), wanted->code);
        const char *message = kv_get_last_error()->message;
        if (!strstr(message, STORE)) kvt_fail(__FILE__, __LINE__, "the message does not name " STORE);
        if (!strstr(message, wanted->text)) kvt_fail(__FILE__, __LINE__, "the message does not name %s", wanted->text);
        CHECK(strlen(message) > strlen(STORE) + 20); /* and says more than that */
    }
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    kv_async_batch_manager_destroy(m);
}

/* The same, and no chunk is touched. */
static void start_fails_naming(int code, const char *text) {
    refusal_t wanted = {code, text};
    uint64_t before = dir_digest(STORE, "chunk");
    in_child(refuses, &wanted);
    CHECK_EQ_INT(dir_digest(STORE, "chunk"), before);
}

static void start_fails(int code) { start_fails_naming(code, ""); }

/* A store of `rounds` chunks, each with some batches; written by children, so that nothing of it stays open here. */
static void fill(void *rounds) {
    for (long round = 0; round < *(long *)rounds; round++) {
        manager_t *m = open_default();
        for (int i = 0; i < 20; i++) {
            char key[32];
            snprintf(key, sizeof key, "round%ld-%d", round, i);
            put_one(m, key, "a value that can be found in the file");
        }
        /* Most of the chunk must be needed, or it would be compacted away. */
        char key[32], filler[300000];
        snprintf(key, sizeof key, "filler%ld", round);
        memset(filler, 'f', sizeof filler - 1);
        filler[sizeof filler - 1] = 0;
        put_one(m, key, filler);
        close_manager(m);
    }
}

static void make_store(const char *name, long rounds) {
    setenv("KVBATCH_STORE", name, 1);
    in_child(fill, &rounds);
    setenv("KVBATCH_STORE", STORE, 1);
}

static void still_opens(void *rounds) {
    manager_t *m = open_default();
    for (long round = 0; round < *(long *)rounds; round++) {
        char key[32];
        snprintf(key, sizeof key, "round%ld-19", round);
        EXPECT(m, key, "a value that can be found in the file");
    }
    close_manager(m);
}

TEST(a_path_that_is_a_file) {
    setenv("KVBATCH_STORE", STORE, 1);
    write_file(STORE, "my thesis", 9);
    start_fails(KV_ERR_FILE);
    size_t len;
    char *bytes = read_file(STORE, &len);
    CHECK_EQ_MEM(bytes, len, "my thesis", 9);
    free(bytes);
}

TEST(a_path_below_a_file) {
    setenv("KVBATCH_STORE", STORE "/below", 1);
    write_file(STORE, "x", 1);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_FILE);
    CHECK(strstr(kv_get_last_error()->message, STORE) != NULL);
    kv_async_batch_manager_destroy(m);
}

TEST(a_name_that_is_too_long) {
    char name[5000];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    setenv("KVBATCH_STORE", name, 1);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_FILE);
    kv_async_batch_manager_destroy(m);
}

static void as_nobody(void *unused) {
    UNUSED(unused);
    if (setgid(65534) != 0 || setuid(65534) != 0) kvt_skip("no other user to become");
    refuses(&(refusal_t){KV_ERR_SYS, ""});
}

TEST(a_directory_that_may_not_be_written) {
    if (getuid() != 0) kvt_skip("needs root, to become nobody");
    make_store(STORE, 1);
    CHECK_EQ_INT(chmod(STORE, 0755), 0);
    uint64_t before = dir_digest(STORE, "");
    in_child(as_nobody, NULL);
    CHECK_EQ_INT(dir_digest(STORE, ""), before);
    long rounds = 1;
    in_child(still_opens, &rounds);
}

TEST(a_store_that_may_not_be_made) {
    if (getuid() != 0) kvt_skip("needs root, to become nobody");
    setenv("KVBATCH_STORE", STORE, 1);
    CHECK_EQ_INT(chmod(".", 0755), 0);
    in_child(as_nobody, NULL);
    struct stat s;
    CHECK(stat(STORE, &s) != 0);
}

static void read_only_mount(void *unused) {
    UNUSED(unused);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0) kvt_skip("mounting is not allowed here");
    CHECK_EQ_INT(mount(STORE, STORE, "none", MS_BIND, NULL), 0);
    CHECK_EQ_INT(mount(STORE, STORE, "none", MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
    start_fails(KV_ERR_SYS);
}

TEST(a_file_system_that_is_read_only) {
    if (getuid() != 0) kvt_skip("needs root, to mount");
    make_store(STORE, 1);
    in_child(read_only_mount, NULL);
    long rounds = 1;
    in_child(still_opens, &rounds);
}

/* ---- bytes that do not belong there ---- */
static char names[64][256];

static const char *chunk(size_t index_from_the_end) {
    static char path[600];
    size_t n = list_dir(STORE, "chunk-", names, 64);
    CHECK(n > index_from_the_end);
    snprintf(path, sizeof path, STORE "/%s", names[n - 1 - index_from_the_end]);
    return path;
}

static uint32_t crc32c(const unsigned char *bytes, size_t len) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

TEST(a_chunk_of_another_store) {
    make_store(STORE, 1);
    make_store("stranger", 3);
    static char theirs[64][256];
    size_t n = list_dir("stranger", "chunk-", theirs, 64), have = list_dir(STORE, "chunk-", names, 64);
    CHECK(n > have);
    char from[600], to[600];
    snprintf(from, sizeof from, "stranger/%s", theirs[n - 1]); /* its number is free here */
    snprintf(to, sizeof to, STORE "/%s", theirs[n - 1]);
    copy_file(from, to);
    start_fails(KV_ERR_CONFIG);
    CHECK_EQ_INT(unlink(to), 0);
    long rounds = 1;
    in_child(still_opens, &rounds);
}

/* Flips one byte of the value of "round0-0", which later acknowledged batches follow. */
static void flip(const char *path, const char *near) {
    size_t len;
    char *bytes = read_file(path, &len);
    char *at = memmem(bytes, len, near, strlen(near));
    CHECK(at != NULL);
    at[strlen(near) + 3] ^= 0x20;
    write_file(path, bytes, len);
    free(bytes);
}

TEST(damage_among_acknowledged_batches) {
    make_store(STORE, 2);
    char path[600];
    snprintf(path, sizeof path, "%s", chunk(1));
    flip(path, "round0-3");
    start_fails_naming(KV_ERR_CORRUPTED, strrchr(path, '/') + 1); /* which file */
    flip(path, "round0-3"); /* back */
    long rounds = 2;
    in_child(still_opens, &rounds);
}

TEST(a_chunk_that_is_missing) {
    make_store(STORE, 3);
    char path[600];
    snprintf(path, sizeof path, "%s", chunk(1));
    CHECK_EQ_INT(rename(path, "aside"), 0);
    start_fails(KV_ERR_CORRUPTED);
    CHECK_EQ_INT(rename("aside", path), 0);
    long rounds = 3;
    in_child(still_opens, &rounds);
}

TEST(a_chunk_that_was_cut_within_acknowledged_batches) {
    make_store(STORE, 2);
    char path[600];
    snprintf(path, sizeof path, "%s", chunk(1));
    size_t len;
    char *bytes = read_file(path, &len);
    write_file(path, bytes, 4096 + 64); /* the header and a little */
    start_fails(KV_ERR_CORRUPTED);
    write_file(path, bytes, len);
    free(bytes);
    long rounds = 2;
    in_child(still_opens, &rounds);
}

TEST(bytes_of_the_store_that_were_overwritten_with_zeros) {
    make_store(STORE, 2);
    char path[600];
    snprintf(path, sizeof path, "%s", chunk(1));
    size_t len;
    char *bytes = read_file(path, &len), *zeros = calloc(1, len);
    CHECK(zeros != NULL);
    memcpy(zeros, bytes, 4096);
    write_file(path, zeros, len);
    start_fails(KV_ERR_CORRUPTED);
    write_file(path, bytes, len);
    free(bytes);
    free(zeros);
    long rounds = 2;
    in_child(still_opens, &rounds);
}

TEST(other_files_in_the_directory_are_left_alone) {
    make_store(STORE, 2);
    write_file(STORE "/README.txt", "mine", 4);
    CHECK_EQ_INT(mkdir(STORE "/lost+found", 0700), 0);
    long rounds = 2;
    in_child(still_opens, &rounds);
    size_t len;
    char *bytes = read_file(STORE "/README.txt", &len);
    CHECK_EQ_MEM(bytes, len, "mine", 4);
    free(bytes);
}

/* Changes a field of the newest chunk's header, with a checksum that is right again; docs/FORMAT.md draws it: the version at byte 8,
 * the oldest reader that may read it at 12, required features at 16, the checksum of all before it in the last four bytes. */
static void patch_header(size_t at, uint32_t value, bool good_checksum) {
    size_t len;
    char *bytes = read_file(chunk(0), &len), path[600];
    snprintf(path, sizeof path, "%s", chunk(0));
    CHECK(len >= 4096 && memcmp(bytes, "\x89KVB\r\n\x1a\n", 8) == 0);
    memcpy(bytes + at, &value, 4);
    uint32_t crc = crc32c((unsigned char *)bytes, 4092);
    if (good_checksum) memcpy(bytes + 4092, &crc, 4);
    write_file(path, bytes, len);
    free(bytes);
}

TEST(a_newer_format_version) {
    make_store(STORE, 1);
    patch_header(12, 2, true);
    start_fails(KV_ERR_NOT_SUPPORTED);
    patch_header(12, 1, true);
    long rounds = 1;
    in_child(still_opens, &rounds); /* so it was this field, and the checksum is understood */
    patch_header(16, 1u << 31, true);
    start_fails(KV_ERR_NOT_SUPPORTED);
    patch_header(16, 0, true);
    patch_header(8, 2, true); /* a newer writer that older readers may still read */
    in_child(still_opens, &rounds);
}

TEST(a_damaged_chunk_header) {
    make_store(STORE, 2);
    size_t len;
    char *bytes = read_file(chunk(0), &len);
    patch_header(12, 2, false); /* no word of a newer version: simply damaged */
    start_fails(KV_ERR_CORRUPTED);
    char path[600];
    snprintf(path, sizeof path, "%s", chunk(0));
    write_file(path, bytes, len);
    free(bytes);
    long rounds = 2;
    in_child(still_opens, &rounds);
}

/* ---- a full disk ---- */
static void fill_the_disk(const char *dir) {
    char path[600];
    snprintf(path, sizeof path, "%s/ballast", dir);
    int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0644);
    CHECK(fd >= 0);
    static char block[4096];
    while (write(fd, block, sizeof block) > 0) {}
    CHECK_EQ_INT(errno, ENOSPC);
    close(fd);
}

static void mount_small(const char *dir) {
    if (getuid() != 0) kvt_skip("needs root, to mount");
    CHECK_EQ_INT(mkdir(dir, 0755), 0);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=2m") != 0)
        kvt_skip("mounting is not allowed here");
}

static void fills_up_and_recovers(bool fsync_on) {
    mount_small("small");
    setenv("KVBATCH_STORE", "small/" STORE, 1);
    config_t c = kvt_config();
    c.enable_batch_fsync = fsync_on;
    manager_t *m = open_with(&c);
    static char value[30000];
    memset(value, 'v', sizeof value);
    char key[32];
    int stored = 0;
    probe_t p = {0};
    for (;; stored++) {
        snprintf(key, sizeof key, "k%d", stored);
        memset(&p, 0, sizeof p);
        batch_t *b = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, sizeof value, on_op, &p));
        int code = run_code(b);
        kv_async_batch_destroy(b);
        if (code != KV_SUCCESS) {
            CHECK_CODE(code, KV_ERR_BATCH_FAILED);
            break;
        }
        CHECK(stored < 200);
    }
    CHECK_CODE(p.result, KV_ERR_DISK_FULL);
    CHECK(stored > 10);
    EXPECT_MISS(m, key); /* what failed is not there */
    for (int i = 0; i < stored; i++) { /* reads go on */
        snprintf(key, sizeof key, "k%d", i);
        char *seen = get_one(m, key);
        CHECK(seen && strlen(seen) == sizeof value);
        free(seen);
    }
    CHECK_EQ_INT(mount("tmpfs", "small", "tmpfs", MS_REMOUNT, "size=8m"), 0); /* somebody makes room */
    put_one(m, "after", "1");
    EXPECT(m, "after", "1");
    close_manager(m);
    m = open_with(&c);
    EXPECT(m, "after", "1");
    for (int i = 0; i < stored; i++) {
        snprintf(key, sizeof key, "k%d", i);
        char *seen = get_one(m, key);
        CHECK(seen && strlen(seen) == sizeof value);
        free(seen);
    }
    snprintf(key, sizeof key, "k%d", stored);
    EXPECT_MISS(m, key); /* a write reported as failed never turns up */
    close_manager(m);
}

TEST(a_disk_that_fills_up_with_fsync) { fills_up_and_recovers(true); }
TEST(a_disk_that_fills_up_without_fsync) { fills_up_and_recovers(false); }

TEST(a_store_on_a_full_disk_can_be_read_and_says_so_when_written) {
    mount_small("small");
    setenv("KVBATCH_STORE", "small/" STORE, 1);
    long rounds = 1;
    in_child(fill, &rounds);
    fill_the_disk("small");
    uint64_t before = dir_digest("small/" STORE, "chunk");
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    int code = kv_async_batch_manager_start(m);
    if (code == KV_SUCCESS) {
        EXPECT(m, "round0-7", "a value that can be found in the file");
        static char big[100000];
        probe_t p = {0};
        batch_t *b = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(b, "k", 1, big, sizeof big, on_op, &p));
        CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
        CHECK_CODE(p.result, KV_ERR_DISK_FULL);
        EXPECT(m, "round0-7", "a value that can be found in the file");
    } else {
        CHECK_CODE(code, KV_ERR_DISK_FULL);
        CHECK(strstr(kv_get_last_error()->message, STORE) != NULL);
        CHECK_EQ_INT(dir_digest("small/" STORE, "chunk"), before);
    }
    CHECK_EQ_INT(unlink("small/ballast"), 0);
    CHECK_OK(kv_async_batch_manager_start(m));
    put_one(m, "after", "1");
    close_manager(m);
    still_opens(&rounds);
}

TEST(a_new_store_on_a_full_disk) {
    mount_small("small");
    fill_the_disk("small");
    setenv("KVBATCH_STORE", "small/" STORE, 1);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    int code = kv_async_batch_manager_start(m);
    if (code != KV_SUCCESS) {
        CHECK_CODE(code, KV_ERR_DISK_FULL);
        CHECK(strstr(kv_get_last_error()->message, STORE) != NULL);
    }
    CHECK_EQ_INT(unlink("small/ballast"), 0);
    CHECK_OK(kv_async_batch_manager_start(m));
    put_one(m, "k", "v");
    EXPECT(m, "k", "v");
    close_manager(m);
}

/* ---- names that no store has ---- */
TEST(a_file_url_that_cannot_be_decoded) {
    static const char *const urls[] = {"file:bad%zz", "file:bad%2", "file:bad%", "file:nul%00inside"};
    for (size_t i = 0; i < 4; i++) {
        setenv("KVBATCH_STORE", urls[i], 1);
        kv_clear_error();
        manager_t *m = kv_async_batch_manager_create(NULL); /* the earliest moment to say so, or the next */
        if (m) CHECK(kv_async_batch_manager_start(m) != KV_SUCCESS);
        CHECK(kvt_last() != 0);
        CHECK(kv_get_last_error()->message[0] != 0);
        kv_async_batch_manager_destroy(m);
    }
}

TEST(an_engine_that_is_not_built_in) {
    static const char *const urls[] = {"rocksdb:some-path", "redis://127.0.0.1:1"};
    for (size_t i = 0; i < 2; i++) {
        setenv("KVBATCH_STORE", urls[i], 1);
        kv_clear_error();
        manager_t *m = kv_async_batch_manager_create(NULL);
        int code = m ? kv_async_batch_manager_start(m) : kvt_last();
        CHECK(code != KV_SUCCESS);
        CHECK_EQ_INT(kvt_last(), code);
        kv_async_batch_manager_destroy(m);
    }
    struct stat s;
    CHECK(stat("some-path", &s) != 0 && stat("rocksdb:some-path", &s) != 0); /* and no such file was made instead */
}
