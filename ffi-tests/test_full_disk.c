/* test_full_disk.c: a store that has filled its disk: everything is still read, deletes are taken, compaction makes room with what
 * was kept back for it, and writes come back, all in one process. Needs a small file system of its own. */
#include "log_case.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

enum { VALUE_BYTES = 256 << 10, KEYS_MAX = 2000, MORE = 60 };

static void mount_tmpfs(const char *dir) {
    if (getuid() != 0) kvt_skip("needs root, to mount");
    CHECK_EQ_INT(mkdir(dir, 0755), 0);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=256m") != 0)
        kvt_skip("mounting is not allowed here");
}

static char value[VALUE_BYTES];

/* Bytes that cannot be packed, different for each key. */
static const char *value_of(long key) {
    uint64_t seed = (uint64_t)key + 1;
    for (size_t i = 0; i < sizeof value; i += 8) {
        uint64_t bits = next_random(&seed);
        memcpy(value + i, &bits, 8);
    }
    return value;
}

static int try_put(manager_t *m, long key, char *message, size_t room) {
    char name[32];
    snprintf(name, sizeof name, "key%ld", key);
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, name, strlen(name), value_of(key), sizeof value, on_op, &p));
    int code = run_code(b);
    CHECK_CODE(code, p.result == KV_SUCCESS ? KV_SUCCESS : KV_ERR_BATCH_FAILED);
    if (code != KV_SUCCESS && message) snprintf(message, room, "%s", kv_get_last_error()->message);
    kv_async_batch_destroy(b);
    return p.result;
}

static void check(manager_t *m, const char *there, long keys) {
    for (long key = 0; key < keys; key++) {
        char name[32];
        size_t len = 0;
        snprintf(name, sizeof name, "key%ld", key);
        char *seen = get_mem(m, name, strlen(name), &len);
        if (!there[key]) {
            CHECK(seen == NULL);
            continue;
        }
        CHECK(seen != NULL);
        CHECK_EQ_MEM(seen, len, value_of(key), sizeof value);
        free(seen);
    }
}

/* Nobody asks for compaction. */
static void put_when_there_is_room(manager_t *m, long key) {
    int code;
    while ((code = try_put(m, key, NULL, 0)) != KV_SUCCESS) {
        CHECK_CODE(code, KV_ERR_DISK_FULL);
        sleep_ms(10);
    }
}

SLOW_TEST(a_store_that_has_filled_its_disk_can_be_emptied_and_filled_again) {
    mount_tmpfs("small");
    setenv("KVBATCH_STORE", "small/store", 1);
    static char there[KEYS_MAX], names[64][256], message[1000];
    manager_t *m = open_default();
    listen_from(KV_LOG_INFO);
    long keys = 0;
    int code;
    while ((code = try_put(m, keys, message, sizeof message)) == KV_SUCCESS) {
        there[keys++] = 1;
        CHECK(keys < KEYS_MAX - 2 * MORE);
    }
    CHECK_CODE(code, KV_ERR_DISK_FULL);
    CHECK(strstr(message, "in doubt") == NULL); /* what was kept back was enough to write down that it did not happen */
    CHECK(list_dir("small/store", "chunk-", names, 64) >= 3);
    struct statvfs s;
    CHECK_EQ_INT(statvfs("small", &s), 0);
    CHECK((uint64_t)s.f_bavail * s.f_frsize > 40u << 20); /* and is there for what is to come */
    for (int i = 0; i < 20; i++) CHECK_CODE(try_put(m, keys, message, sizeof message), KV_ERR_DISK_FULL);
    CHECK(strstr(message, "delete keys") != NULL);
    HEARD(1, KV_LOG_WARN, "the disk is full: delete keys", "os error 28"); /* once, not for each that is refused */
    HEARD(0, -1, "small/store", "there is room again");
    check(m, there, keys + 1);
    for (long key = 0; key < keys; key += 2 * 16) {
        batch_t *b = new_batch(m, 16);
        for (long i = 0; i < 16 && key + 2 * i < keys; i++) {
            char name[32];
            snprintf(name, sizeof name, "key%ld", key + 2 * i);
            add_delete(b, name);
            there[key + 2 * i] = 0;
        }
        run(b);
    }
    check(m, there, keys + 1);
    for (long more = 0; more < MORE; more++) {
        put_when_there_is_room(m, keys);
        there[keys++] = 1;
    }
    CHECK(counter(m, "chunks_removed") >= 1);
    CHECK(heard(KV_LOG_INFO, "small/store", "there is room again") >= 1);
    check(m, there, keys);
    for (int reopened = 0; reopened < 2; reopened++) {
        close_manager(m);
        m = open_default();
        check(m, there, keys);
    }
    put_when_there_is_room(m, keys);
    close_manager(m);
}
