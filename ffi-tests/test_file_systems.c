/* test_file_systems.c: stores on file systems of other kinds, and files that are deleted, cut or written over under a running store.
 * Cases that mount something do so in a mount namespace of their own, and are left out where that is not permitted. */
#include "kvtest.h"
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/syscall.h>

/* ---- what a file system may refuse: the library's calls come here first ---- */
static atomic_int lock_error, sync_error; /* errno of the calls to come; 0: none */

int flock(int fd, int how) {
    if (lock_error && !(how & LOCK_UN)) {
        errno = lock_error;
        return -1;
    }
    return (int)syscall(SYS_flock, fd, how);
}

int fsync(int fd) {
    if (sync_error) {
        errno = sync_error;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    if (sync_error) {
        errno = sync_error;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static void start_says(atomic_int *error, int number) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    *error = number;
    kv_clear_error();
    int code = kv_async_batch_manager_start(m);
    CHECK(code != KV_SUCCESS);
    CHECK(code != KV_ERR_LOCK); /* nobody else has it */
    CHECK_EQ_INT(kvt_last(), code);
    CHECK(strstr(kv_get_last_error()->message, strerror(number)) != NULL);
    *error = 0;
    CHECK_OK(kv_async_batch_manager_start(m));
    put_one(m, "k", "v");
    close_manager(m);
}

TEST(a_file_system_without_locks_is_refused) { start_says(&lock_error, ENOLCK); }
TEST(a_file_system_without_any_locks_is_refused) { start_says(&lock_error, EOPNOTSUPP); }
TEST(a_file_system_that_cannot_sync_is_refused) { start_says(&sync_error, EIO); }

/* ---- mounts ---- */
/* A namespace of this process's own: as root, or as root of a user namespace. */
static void own_mounts(void) {
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWNS) != 0) {
        char map[64];
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) kvt_skip("mounting is not allowed here");
        FILE *f = fopen("/proc/self/setgroups", "w");
        if (f) {
            fputs("deny", f);
            fclose(f);
        }
        snprintf(map, sizeof map, "0 %u 1", uid);
        write_file("/proc/self/uid_map", map, strlen(map));
        snprintf(map, sizeof map, "0 %u 1", gid);
        write_file("/proc/self/gid_map", map, strlen(map));
    }
    if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0) kvt_skip("mounting is not allowed here");
}

static void mounted(const char *kind, const char *dir, unsigned long flags, const char *options) {
    CHECK_EQ_INT(mkdir(dir, 0755), 0);
    if (mount(kind, dir, kind, flags, options) != 0) kvt_skip("%s cannot be mounted here: %s", kind, strerror(errno));
}

static char value[50000];
static void works_there(const char *store) {
    setenv("KVBATCH_STORE", store, 1);
    for (int round = 0; round < 3; round++) {
        manager_t *m = open_default();
        char key[32];
        for (int i = 0; i < 20; i++) {
            snprintf(key, sizeof key, "key%d-%d", round, i);
            memset(value, 'a' + i, sizeof value);
            put_mem(m, key, strlen(key), value, sizeof value);
        }
        for (int r = 0; r <= round; r++) {
            size_t len;
            snprintf(key, sizeof key, "key%d-19", r);
            char *seen = get_mem(m, key, strlen(key), &len);
            CHECK_EQ_INT(len, sizeof value);
            CHECK(seen[0] == 'a' + 19 && seen[len - 1] == 'a' + 19);
            free(seen);
        }
        close_manager(m);
    }
}

TEST(a_store_on_tmpfs) {
    own_mounts();
    mounted("tmpfs", "tmp", 0, "size=300m");
    works_there("tmp/store");
}

TEST(a_store_on_overlay) {
    own_mounts();
    mounted("tmpfs", "tmp", 0, "size=600m"); /* an overlay on an overlay is refused by many kernels */
    CHECK_EQ_INT(mkdir("tmp/lower", 0755) + mkdir("tmp/upper", 0755) + mkdir("tmp/work", 0755), 0);
    works_there("tmp/lower/store"); /* so that its files are copied up when they are opened to be written */
    mounted("overlay", "over", 0, "lowerdir=tmp/lower,upperdir=tmp/upper,workdir=tmp/work");
    setenv("KVBATCH_STORE", "over/store", 1);
    manager_t *m = open_default();
    size_t len;
    char *seen = get_mem(m, "key2-7", 6, &len);
    CHECK_EQ_INT(len, sizeof value);
    free(seen);
    put_one(m, "above", "1");
    close_manager(m);
    works_there("over/store");
    m = open_default();
    EXPECT(m, "above", "1");
    close_manager(m);
}

TEST(a_store_whose_file_system_becomes_read_only) {
    own_mounts();
    mounted("tmpfs", "tmp", 0, "size=300m");
    works_there("tmp/store");
    if (mount("tmpfs", "tmp", "tmpfs", MS_REMOUNT | MS_RDONLY, "") != 0) kvt_skip("cannot be mounted anew");
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_SYS);
    kv_async_batch_manager_destroy(m);
    setenv("KVBATCH_STORE", "file:tmp/store?read_only=true", 1);
    m = open_default();
    size_t len;
    char *seen = get_mem(m, "key2-7", 6, &len);
    CHECK_EQ_INT(len, sizeof value);
    free(seen);
    close_manager(m);
}

TEST(a_store_on_a_full_file_system) {
    own_mounts();
    mounted("tmpfs", "tmp", 0, "size=1m");
    setenv("KVBATCH_STORE", "tmp/store", 1);
    memset(value, 'v', sizeof value);
    manager_t *m = open_default();
    put_one(m, "before", "1");
    int result = KV_SUCCESS;
    for (int i = 0; i < 100 && result == KV_SUCCESS; i++) {
        char key[32];
        probe_t p = {0};
        snprintf(key, sizeof key, "key%d", i);
        batch_t *b = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, sizeof value, on_op, &p));
        run_code(b);
        kv_async_batch_destroy(b);
        result = p.result;
    }
    CHECK_CODE(result, KV_ERR_DISK_FULL);
    EXPECT(m, "before", "1");
    close_manager(m);
    m = open_default();
    EXPECT(m, "before", "1");
    close_manager(m);
}

static void is_locked(void *unused) {
    UNUSED(unused);
    setenv("KVBATCH_STORE", "bound", 1);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_LOCK);
    kv_async_batch_manager_destroy(m);
}

static int ask[2], answer[2];
static void holds_it(void *unused) {
    UNUSED(unused);
    char byte;
    manager_t *m = open_default();
    CHECK_EQ_INT(write(answer[1], "x", 1), 1);
    CHECK_EQ_INT(read(ask[0], &byte, 1), 1);
    close_manager(m);
}

TEST(a_bind_mount_is_the_same_store) {
    own_mounts();
    CHECK_EQ_INT(mkdir("real", 0755) + mkdir("bound", 0755), 0);
    if (mount("real", "bound", "none", MS_BIND, NULL) != 0) kvt_skip("directories cannot be bound here");
    CHECK_EQ_INT(pipe(ask) + pipe(answer), 0);
    char byte;
    setenv("KVBATCH_STORE", "real", 1);
    pid_t holder = spawn(holds_it, NULL);
    CHECK_EQ_INT(read(answer[0], &byte, 1), 1);
    in_child(is_locked, NULL); /* for another process */
    CHECK_EQ_INT(write(ask[1], "x", 1), 1);
    join(holder);
    manager_t *a = open_default();
    setenv("KVBATCH_STORE", "bound", 1);
    manager_t *b = open_default(); /* within one, both managers have it */
    put_one(a, "k", "by one");
    EXPECT(b, "k", "by one");
    close_manager(a);
    close_manager(b);
}

/* ---- files that others touch while the store is open ---- */
static char chunk[600];
static manager_t *cold_store(void) {
    setenv("KVBATCH_STORE", "file:store?hot_log_bytes=0", 1); /* so that reads go to the disk */
    config_t c = kvt_config();
    c.max_retry_count = 0;
    manager_t *m = open_with(&c);
    memset(value, 'c', sizeof value);
    put_mem(m, "cold", 4, value, sizeof value);
    char names[8][256];
    CHECK_EQ_INT(list_dir("store", "chunk-", names, 8), 1);
    snprintf(chunk, sizeof chunk, "store/%s", names[0]);
    return m;
}

static int result_of_get(manager_t *m, const char *key) {
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    add_get(b, key, &p);
    run_code(b);
    kv_async_batch_destroy(b);
    return p.result;
}

static int result_of_put(manager_t *m) {
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "new", 3, "1", 1, on_op, &p));
    run_code(b);
    kv_async_batch_destroy(b);
    return p.result;
}

TEST(a_chunk_that_is_deleted_under_the_store) {
    manager_t *m = cold_store();
    CHECK_EQ_INT(unlink(chunk), 0);
    CHECK_CODE(result_of_put(m), KV_ERR_IO); /* nothing is promised in a file that will be gone */
    CHECK_CODE(result_of_put(m), KV_ERR_IO);
    CHECK_CODE(result_of_get(m, "cold"), KV_SUCCESS); /* it is still there for whoever has it open */
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
}

TEST(a_chunk_that_is_cut_under_the_store) {
    manager_t *m = cold_store();
    CHECK_EQ_INT(truncate(chunk, 5000), 0);
    int code = result_of_get(m, "cold"); /* an answer, no SIGBUS: and not "not found" */
    CHECK(code == KV_ERR_CORRUPTED || code == KV_ERR_IO);
    CHECK_CODE(result_of_get(m, "nobody"), KV_ERR_KEY_NOT_FOUND);
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
}

TEST(an_old_copy_put_over_a_running_store) {
    manager_t *m = cold_store();
    copy_file(chunk, "old");
    memset(value, 'n', sizeof value);
    put_mem(m, "newer", 5, value, sizeof value);
    copy_file("old", chunk); /* over the same file */
    CHECK_CODE(result_of_get(m, "cold"), KV_SUCCESS);
    int code = result_of_get(m, "newer");
    CHECK(code == KV_ERR_CORRUPTED || code == KV_ERR_IO);
    CHECK_CODE(result_of_get(m, "nobody"), KV_ERR_KEY_NOT_FOUND);
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
}
