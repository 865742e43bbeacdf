/* test_persistence.c: what is stored outlives managers and processes; which store a manager opens; one process at a time. What a
 * start refuses, and how: test_start_failures.c. */
#include "kvtest.h"
#include <signal.h>
#include <sys/wait.h>

static int exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0;
}

static void put_hundred(void *prefix) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 100);
    char key[64];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%s%d", (char *)prefix, i);
        add_put(b, key, key);
    }
    run(b);
    close_manager(m);
}

static void find_hundred(void *prefix) {
    manager_t *m = open_default();
    char key[64];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%s%d", (char *)prefix, i);
        EXPECT(m, key, key);
    }
    close_manager(m);
}

static void find_nothing(void *prefix) {
    manager_t *m = open_default();
    char key[64];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%s%d", (char *)prefix, i);
        EXPECT_MISS(m, key);
    }
    close_manager(m);
}

TEST(from_one_manager_to_the_next) {
    put_hundred("a");
    find_hundred("a");
}

TEST(from_one_process_to_the_next) {
    in_child(put_hundred, "a");
    in_child(find_hundred, "a");
    in_child(put_hundred, "b");
    find_hundred("a");
    find_hundred("b");
}

static void put_and_leave_without_goodbye(void *fsync_on) {
    config_t c = kvt_config();
    c.enable_batch_fsync = fsync_on != NULL;
    c.fsync_interval_ms = 0;
    manager_t *m = open_with(&c);
    for (int i = 0; i < 20; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%d", i);
        put_one(m, key, "stays");
    }
    _exit(0); /* no stop, no destroy: what was acknowledged is stored all the same */
}

static void find_twenty(void) {
    manager_t *m = open_default();
    for (int i = 0; i < 20; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%d", i);
        EXPECT(m, key, "stays");
    }
    close_manager(m);
}

TEST(a_process_that_ends_without_stopping_loses_nothing_with_fsync) {
    in_child(put_and_leave_without_goodbye, "on");
    find_twenty();
}

TEST(a_process_that_ends_without_stopping_loses_nothing_without_fsync) {
    in_child(put_and_leave_without_goodbye, NULL);
    find_twenty();
}

static void overwrite_and_delete(void *unused) {
    UNUSED(unused);
    manager_t *m = open_default();
    put_one(m, "kept", "1");
    put_one(m, "changed", "1");
    put_one(m, "deleted", "1");
    put_one(m, "back", "1");
    delete_one(m, "back");
    close_manager(m);
    m = open_default();
    put_one(m, "changed", "2");
    delete_one(m, "deleted");
    put_one(m, "back", "2");
    delete_one(m, "never was");
    close_manager(m);
}

TEST(overwrites_and_deletes_persist_over_many_reopenings) {
    in_child(overwrite_and_delete, NULL);
    for (int i = 0; i < 5; i++) {
        manager_t *m = open_default();
        EXPECT(m, "kept", "1");
        EXPECT(m, "changed", "2");
        EXPECT_MISS(m, "deleted");
        EXPECT(m, "back", "2");
        EXPECT_MISS(m, "never was");
        if (i % 2) put_one(m, "extra", "x"); /* reopened with and without a write */
        close_manager(m);
    }
}

TEST(opening_and_closing_without_a_write_keeps_the_data) {
    put_hundred("a");
    for (int i = 0; i < 20; i++) close_manager(open_default());
    find_hundred("a");
}

/* ---- which store ---- */
TEST(the_default_is_kvbatch_data_in_the_working_directory) {
    unsetenv("KVBATCH_STORE");
    put_hundred("a");
    CHECK(exists("kvbatch-data"));
    find_hundred("a");
    setenv("KVBATCH_STORE", "", 1); /* empty is as good as unset */
    find_hundred("a");
    setenv("KVBATCH_STORE", "kvbatch-data", 1);
    find_hundred("a");
}

TEST(the_variable_is_read_when_the_manager_is_created) {
    setenv("KVBATCH_STORE", "one", 1);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    setenv("KVBATCH_STORE", "two", 1);
    CHECK_OK(kv_async_batch_manager_start(m));
    put_one(m, "k", "v");
    close_manager(m);
    CHECK(exists("one") && !exists("two"));
}

TEST(a_path_holds_plain_bytes) {
    static const char *const names[] = {"with space", "per%20cent", "h\xc3\xa4", "a+b&c=d?e#f", "dot.dir", "trailing/"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        setenv("KVBATCH_STORE", names[i], 1);
        put_hundred((void *)names[i]);
        CHECK(exists(names[i]));
        find_hundred((void *)names[i]);
    }
    CHECK(!exists("per cent"));
}

TEST(a_file_url_is_percent_decoded) {
    setenv("KVBATCH_STORE", "file:with%20space%2Bplus%25", 1);
    put_hundred("a");
    CHECK(exists("with space+plus%"));
    find_hundred("a");
    setenv("KVBATCH_STORE", "with space+plus%", 1);
    find_hundred("a");
}

TEST(a_file_url_may_be_absolute) {
    char cwd[2048], url[4096];
    CHECK(getcwd(cwd, sizeof cwd) != NULL);
    CHECK(strchr(cwd, '%') == NULL);
    snprintf(url, sizeof url, "file:%s/absolute", cwd);
    setenv("KVBATCH_STORE", url, 1);
    put_hundred("a");
    CHECK(exists("absolute"));
    snprintf(url, sizeof url, "file://%s/absolute", cwd);
    setenv("KVBATCH_STORE", url, 1);
    find_hundred("a");
}

TEST(a_relative_store_stays_where_it_was_when_the_process_changes_directory) {
    setenv("KVBATCH_STORE", "here", 1);
    CHECK_EQ_INT(mkdir("elsewhere", 0755), 0);
    manager_t *m = open_default();
    put_one(m, "k", "1");
    CHECK_EQ_INT(chdir("elsewhere"), 0);
    put_one(m, "l", "2");
    close_manager(m);
    CHECK(!exists("here"));
    CHECK_EQ_INT(chdir(".."), 0);
    m = open_default();
    EXPECT(m, "k", "1");
    EXPECT(m, "l", "2");
    close_manager(m);
}

TEST(two_names_of_one_directory_are_one_store) {
    CHECK_EQ_INT(mkdir("real", 0755), 0);
    CHECK_EQ_INT(symlink("real", "alias"), 0);
    setenv("KVBATCH_STORE", "real", 1);
    manager_t *a = open_default();
    setenv("KVBATCH_STORE", "./alias", 1);
    manager_t *b = open_default();
    put_one(a, "k", "1");
    EXPECT(b, "k", "1");
    close_manager(a);
    close_manager(b);
}

TEST(memory_is_private_to_its_manager_and_keeps_nothing) {
    setenv("KVBATCH_STORE", "memory:", 1);
    manager_t *a = open_default(), *b = open_default();
    put_one(a, "k", "1");
    EXPECT(a, "k", "1");
    EXPECT_MISS(b, "k");
    close_manager(a);
    close_manager(b);
    find_nothing("k");
    CHECK(!exists("memory:") && !exists("memory"));
}

TEST(named_memory_is_shared_and_goes_with_its_last_manager) {
    setenv("KVBATCH_STORE", "memory:team", 1);
    manager_t *a = open_default(), *b = open_default();
    setenv("KVBATCH_STORE", "memory:other", 1);
    manager_t *c = open_default();
    put_one(a, "k", "1");
    EXPECT(b, "k", "1");
    EXPECT_MISS(c, "k");
    close_manager(a);
    EXPECT(b, "k", "1");
    setenv("KVBATCH_STORE", "memory:team", 1);
    a = open_default();
    EXPECT(a, "k", "1");
    close_manager(a);
    close_manager(b);
    close_manager(c);
    a = open_default();
    EXPECT_MISS(a, "k");
    close_manager(a);
}

TEST(missing_parent_directories_are_made_or_named) {
    setenv("KVBATCH_STORE", "deep/deeper/store", 1);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    int code = kv_async_batch_manager_start(m);
    if (code == KV_SUCCESS) {
        put_one(m, "k", "v");
        EXPECT(m, "k", "v");
    } else {
        CHECK_CODE(code, KV_ERR_FILE);
        CHECK(strstr(kv_get_last_error()->message, "deep/deeper") != NULL);
    }
    kv_async_batch_manager_destroy(m);
}

/* ---- one process at a time ---- */
static int to_child[2], from_child[2];

static void hold_the_store(void *unused) {
    UNUSED(unused);
    manager_t *m = open_default();
    put_one(m, "owner", "child");
    CHECK_EQ_INT(write(from_child[1], "x", 1), 1);
    char byte;
    close(to_child[1]);
    if (read(to_child[0], &byte, 1) == 1) close_manager(m);
}

static pid_t child_with_store(void) {
    CHECK_EQ_INT(pipe(to_child) + pipe(from_child), 0);
    pid_t pid = spawn(hold_the_store, NULL);
    char byte;
    CHECK_EQ_INT(read(from_child[0], &byte, 1), 1);
    return pid;
}

/* An idle store writes once more, a moment after its last commit: a frame header in a block of its own. */
static void await_beat(const char *chunk) {
    struct stat status;
    for (int i = 0; i < 60000; i++) {
        if (stat(chunk, &status) == 0 && status.st_size % 4096 == 64)
            return;
        usleep(1000);
    }
    CHECK(!"the beat never came");
}

TEST(a_second_process_is_locked_out_until_the_first_closes) {
    setenv("KVBATCH_STORE", "the-store", 1);
    pid_t pid = child_with_store();
    await_beat("the-store/chunk-0000000000000001.kvb");
    uint64_t before = dir_digest("the-store", "chunk");
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_LOCK);
        CHECK(strstr(kv_get_last_error()->message, "the-store") != NULL);
        char number[32];
        snprintf(number, sizeof number, "%d", (int)pid);
        CHECK(strstr(kv_get_last_error()->message, number) != NULL); /* who has it */
    }
    CHECK_EQ_INT(dir_digest("the-store", "chunk"), before);
    CHECK_EQ_INT(write(to_child[1], "x", 1), 1);
    join(pid);
    CHECK_OK(kv_async_batch_manager_start(m));
    EXPECT(m, "owner", "child");
    close_manager(m);
}

TEST(a_killed_process_leaves_no_lock) {
    pid_t pid = child_with_store();
    CHECK_EQ_INT(kill(pid, SIGKILL), 0);
    CHECK(WIFSIGNALED(join_status(pid)));
    manager_t *m = open_default();
    EXPECT(m, "owner", "child");
    close_manager(m);
}

static void try_to_open(void *unused) {
    UNUSED(unused);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    char byte;
    CHECK_EQ_INT(read(to_child[0], &byte, 1), 1); /* until the parent has the store */
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_LOCK);
    CHECK_EQ_INT(write(from_child[1], "x", 1), 1);
}

TEST(a_refused_second_process_does_not_disturb_the_first) {
    CHECK_EQ_INT(pipe(to_child) + pipe(from_child), 0);
    pid_t pid = spawn(try_to_open, NULL);
    manager_t *m = open_default();
    put_one(m, "a", "1");
    char byte;
    CHECK_EQ_INT(write(to_child[1], "x", 1), 1);
    CHECK_EQ_INT(read(from_child[0], &byte, 1), 1);
    join(pid);
    put_one(m, "b", "2");
    close_manager(m);
    m = open_default();
    EXPECT(m, "a", "1");
    EXPECT(m, "b", "2");
    close_manager(m);
}

TEST(a_moved_store_is_still_the_store) {
    setenv("KVBATCH_STORE", "before", 1);
    put_hundred("a");
    CHECK_EQ_INT(rename("before", "after"), 0);
    setenv("KVBATCH_STORE", "after", 1);
    find_hundred("a");
}

TEST(a_copied_store_is_a_store) {
    setenv("KVBATCH_STORE", "original", 1);
    put_hundred("a");
    static char names[64][256];
    size_t n = list_dir("original", "", names, 64);
    CHECK(n > 0);
    CHECK_EQ_INT(mkdir("copy", 0755), 0);
    for (size_t i = 0; i < n; i++) {
        char from[600], to[600];
        snprintf(from, sizeof from, "original/%s", names[i]);
        snprintf(to, sizeof to, "copy/%s", names[i]);
        copy_file(from, to);
    }
    setenv("KVBATCH_STORE", "copy", 1);
    find_hundred("a");
    put_hundred("b");
    setenv("KVBATCH_STORE", "original", 1);
    find_hundred("a");
    find_nothing("b");
}
