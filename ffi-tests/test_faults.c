/* test_faults.c: a disk that hangs, fills up, fails and lies by half (fake_disk.h): submit never blocks, errors reach exactly the
 * operations concerned, and nothing that was reported as failed turns up later unless it was reported in doubt. */
#include "fake_disk.h"

static config_t with_fsync(bool on) {
    config_t c = kvt_config();
    c.enable_batch_fsync = on;
    c.fsync_interval_ms = 0;
    c.max_retry_count = 0;
    c.timeout_ms = 1000000;
    return c;
}

/* Runs one PUT; what its callback got. `in_doubt`: whether wait's message said so. */
static int try_put(manager_t *m, const char *key, const char *value, int *in_doubt) {
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, strlen(value), on_op, &p));
    int code = run_code(b);
    CHECK_CODE(code, p.result == KV_SUCCESS ? KV_SUCCESS : KV_ERR_BATCH_FAILED);
    if (in_doubt) *in_doubt = code != KV_SUCCESS && strstr(kv_get_last_error()->message, "in doubt") != NULL;
    CHECK_EQ_INT(p.calls, 1);
    kv_async_batch_destroy(b);
    return p.result;
}

static void close_roughly(manager_t *m) { /* stop may tell of the failure */
    kv_async_batch_manager_stop(m);
    kv_async_batch_manager_destroy(m);
}

/* ---- a disk that hangs ---- */
TEST(no_call_but_wait_blocks_on_a_stuck_disk) {
    config_t c = with_fsync(true);
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    disk_write.stuck = disk_sync.stuck = 1;
    batch_t *b[50];
    done_t done[50];
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        done[i] = (done_t)DONE_INIT;
        b[i] = new_batch(m, 3);
        add_put(b[i], key, "v");
        add_get(b[i], "before", NULL);
        add_delete(b[i], "nobody");
        CHECK_OK(kv_async_batch_submit(b[i], on_done, &done[i]));
        CHECK_CODE(kv_async_batch_wait(b[i], 0), KV_ERR_TIMEOUT);
        stats_of(b[i]);
        CHECK_EQ_INT(manager_stats(m).active_batches, i + 1);
        int status = (int)kv_async_batch_get_status(b[i]);
        CHECK(status == ST_SUBMITTED || status == ST_COMPLETING);
        CHECK(printed(b[i], "total_operations") == 3);
    }
    while (disk_write.waiting + disk_sync.waiting == 0) sleep_ms(1);
    for (int i = 0; i < 50; i++) CHECK_EQ_INT(done[i].calls, 0); /* nothing is acknowledged that the disk has not taken */
    heal(&disk_write);
    heal(&disk_sync);
    for (int i = 0; i < 50; i++) {
        CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
        CHECK_EQ_INT(done[i].completed, 3);
        kv_async_batch_destroy(b[i]);
    }
    EXPECT(m, "k49", "v");
    close_manager(m);
}

TEST(with_fsync_completion_waits_for_the_sync) {
    config_t c = with_fsync(true);
    manager_t *m = open_with(&c);
    put_one(m, "before", "1"); /* the chunk is there now */
    disk_sync.stuck = 1;
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    while (disk_sync.waiting == 0) sleep_ms(1);
    CHECK_CODE(kv_async_batch_wait(b, 50), KV_ERR_TIMEOUT);
    CHECK_EQ_INT(done.calls, 0);
    heal(&disk_sync);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(done.calls, 1);
    kv_async_batch_destroy(b);
    close_manager(m);
}

/* A reader must not see what a crash may still take back. */
TEST(a_read_never_returns_what_is_not_yet_committed) {
    config_t c = with_fsync(true);
    manager_t *m = open_with(&c);
    put_one(m, "k", "old");
    disk_sync.stuck = 1;
    done_t wrote = DONE_INIT;
    batch_t *w = new_batch(m, 1), *r = new_batch(m, 1);
    add_put(w, "k", "new");
    CHECK_OK(kv_async_batch_submit(w, on_done, &wrote));
    while (disk_sync.waiting == 0) sleep_ms(1);
    probe_t p = {0};
    done_t seen = DONE_INIT;
    add_get(r, "k", &p);
    CHECK_OK(kv_async_batch_submit(r, on_done, &seen)); /* must see "new", so it has to wait for it */
    CHECK_CODE(kv_async_batch_wait(r, 50), KV_ERR_TIMEOUT);
    CHECK_EQ_INT(seen.calls, 0);
    heal(&disk_sync);
    CHECK_OK(kv_async_batch_wait(r, FOREVER));
    CHECK_EQ_STR(p.value, "new");
    CHECK_OK(kv_async_batch_wait(w, FOREVER));
    close_manager(m);
}

TEST(reads_of_other_keys_go_on_while_the_disk_hangs) {
    config_t c = with_fsync(true);
    manager_t *m = open_with(&c);
    put_one(m, "other", "1");
    batch_t *r = new_batch(m, 1), *w = new_batch(m, 1);
    probe_t p = {0};
    done_t seen = DONE_INIT;
    add_get(r, "other", &p);
    add_put(w, "k", "v");
    disk_sync.stuck = disk_write.stuck = 1;
    CHECK_OK(kv_async_batch_submit(r, on_done, &seen)); /* submitted before the write: nothing to wait for */
    submit(w);
    CHECK_OK(kv_async_batch_wait(r, FOREVER));
    CHECK_EQ_STR(p.value, "1");
    heal(&disk_sync);
    heal(&disk_write);
    CHECK_OK(kv_async_batch_wait(w, FOREVER));
    close_manager(m);
}

/* ---- a full disk ---- */
static void full_disk(bool fsync_on) {
    config_t c = with_fsync(fsync_on);
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    fail_with(&disk_write, ENOSPC, -1);
    for (int i = 0; i < 5; i++) {
        CHECK_CODE(try_put(m, "failed", "x", NULL), KV_ERR_DISK_FULL);
        CHECK_CODE(try_put(m, "before", "overwritten", NULL), KV_ERR_DISK_FULL);
        EXPECT_MISS(m, "failed");
        EXPECT(m, "before", "1");
    }
    heal(&disk_write);
    put_one(m, "after", "2"); /* writes come back by themselves */
    EXPECT(m, "after", "2");
    for (int reopened = 0; reopened < 3; reopened++) {
        EXPECT(m, "before", "1");
        EXPECT(m, "after", "2");
        EXPECT_MISS(m, "failed");
        close_manager(m);
        m = open_with(&c);
    }
    close_manager(m);
}

TEST(a_full_disk_fails_writes_until_there_is_room_with_fsync) { full_disk(true); }
TEST(a_full_disk_fails_writes_until_there_is_room_without_fsync) { full_disk(false); }

TEST(a_disk_that_is_full_once_in_a_while) {
    config_t c = with_fsync(true);
    manager_t *m = open_with(&c);
    enum { N = 200 };
    static int stored[N];
    for (int i = 0; i < N; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        if (i % 3 == 1) fail_with(&disk_write, ENOSPC, 1);
        int code = try_put(m, key, key, NULL);
        CHECK(code == KV_SUCCESS || code == KV_ERR_DISK_FULL);
        if (i % 3 != 1) CHECK_CODE(code, KV_SUCCESS);
        stored[i] = code == KV_SUCCESS;
        heal(&disk_write);
    }
    for (int reopened = 0; reopened < 2; reopened++) {
        for (int i = 0; i < N; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", i);
            EXPECT(m, key, stored[i] ? key : NULL);
        }
        close_manager(m);
        m = open_with(&c);
    }
    close_manager(m);
}

TEST(a_full_disk_among_concurrent_batches) {
    config_t c = with_fsync(true);
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    enum { N = 50 };
    batch_t *b[N];
    static probe_t p[N][2];
    fail_with(&disk_write, ENOSPC, 2);
    for (int i = 0; i < N; i++) {
        char key[2][16];
        b[i] = new_batch(m, 2);
        for (int k = 0; k < 2; k++) {
            snprintf(key[k], sizeof key[k], "%c%d", 'a' + k, i);
            CHECK_OK(kv_async_batch_put(b[i], key[k], strlen(key[k]), "v", 1, on_op, &p[i][k]));
        }
        submit(b[i]);
    }
    static int in_doubt[N];
    for (int i = 0; i < N; i++) {
        int code = kv_async_batch_wait(b[i], FOREVER);
        in_doubt[i] = code != KV_SUCCESS && strstr(kv_get_last_error()->message, "in doubt") != NULL;
        CHECK_CODE(code, p[i][0].result ? KV_ERR_BATCH_FAILED : KV_SUCCESS);
    }
    heal(&disk_write);
    for (int reopened = 0; reopened < 2; reopened++) {
        for (int i = 0; i < N; i++) {
            if (in_doubt[i]) continue;
            CHECK(p[i][0].result == KV_SUCCESS || p[i][0].result == KV_ERR_DISK_FULL);
            CHECK_CODE(p[i][1].result, p[i][0].result);
            for (int k = 0; k < 2; k++) {
                char key[16];
                snprintf(key, sizeof key, "%c%d", 'a' + k, i);
                EXPECT(m, key, p[i][0].result == KV_SUCCESS ? "v" : NULL);
            }
        }
        close_manager(m);
        m = open_with(&c);
    }
    close_manager(m);
}

/* ---- a disk that fails ---- */
TEST(a_failed_sync_poisons_writes_but_not_reads) {
    config_t c = with_fsync(true);
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    int in_doubt = 0;
    fail_with(&disk_sync, EIO, 1); /* once only: a retry would seem to succeed, and lie */
    CHECK_CODE(try_put(m, "k", "v", &in_doubt), KV_ERR_IO);
    heal(&disk_sync);
    for (int i = 0; i < 5; i++) CHECK_CODE(try_put(m, "later", "x", NULL), KV_ERR_IO);
    EXPECT(m, "before", "1");
    EXPECT_MISS(m, "later");
    EXPECT_MISS(m, "k"); /* not committed: not to be seen */
    close_roughly(m);
    m = open_with(&c); /* opened anew, it can be written again */
    EXPECT(m, "before", "1");
    EXPECT_MISS(m, "later");
    char *seen = get_one(m, "k");
    if (!in_doubt) CHECK(seen == NULL); /* only what was reported in doubt may be there */
    if (seen) CHECK_EQ_STR(seen, "v");
    free(seen);
    put_one(m, "after", "2");
    close_manager(m);
    m = open_with(&c);
    EXPECT(m, "after", "2");
    close_manager(m);
}

TEST(a_failed_background_sync_stops_later_writes) {
    config_t c = with_fsync(false);
    c.fsync_interval_ms = 20;
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    while (disk_sync.calls == 0) sleep_ms(1);
    fail_with(&disk_sync, EIO, 1);
    int code;
    do code = try_put(m, "k", "v", NULL);
    while (code == KV_SUCCESS); /* until the next sync in the background has failed */
    CHECK_CODE(code, KV_ERR_IO);
    heal(&disk_sync);
    CHECK_CODE(try_put(m, "later", "x", NULL), KV_ERR_IO);
    EXPECT(m, "before", "1");
    EXPECT(m, "k", "v");
    EXPECT_MISS(m, "later");
    close_roughly(m);
    m = open_with(&c);
    EXPECT(m, "before", "1");
    EXPECT_MISS(m, "later");
    put_one(m, "after", "2");
    close_manager(m);
}

static void failed_write(bool fsync_on) {
    config_t c = with_fsync(fsync_on);
    manager_t *m = open_with(&c);
    put_one(m, "before", "1");
    int in_doubt = 0;
    fail_with(&disk_write, EIO, 1);
    CHECK_CODE(try_put(m, "k", "v", &in_doubt), KV_ERR_IO);
    heal(&disk_write);
    EXPECT(m, "before", "1");
    EXPECT_MISS(m, "k");
    int later = try_put(m, "later", "x", NULL);
    CHECK(later == KV_SUCCESS || later == KV_ERR_IO); /* it may go on, or want to be opened anew */
    EXPECT(m, "later", later == KV_SUCCESS ? "x" : NULL);
    close_roughly(m);
    m = open_with(&c);
    EXPECT(m, "before", "1");
    EXPECT(m, "later", later == KV_SUCCESS ? "x" : NULL);
    if (!in_doubt) EXPECT_MISS(m, "k");
    put_one(m, "after", "2");
    close_manager(m);
}

TEST(a_failed_write_with_fsync) { failed_write(true); }
TEST(a_failed_write_without_fsync) { failed_write(false); }

/* What each errno of a write means to its batch, and to those behind it. */
TEST(each_errno_of_a_write_has_its_answer) {
    static const struct { int error, code, goes_on; } rows[] = {
        {ENOSPC, KV_ERR_DISK_FULL, 1}, {EDQUOT, KV_ERR_DISK_FULL, 1}, {EFBIG, KV_ERR_DISK_FULL, 1}, {EAGAIN, KV_ERR_IO, 1},
        {ENOMEM, KV_ERR_MEM, 1},       {EIO, KV_ERR_IO, 0},           {EROFS, KV_ERR_IO, 0},       {EACCES, KV_ERR_IO, 0},
        {ESTALE, KV_ERR_IO, 0},        {ENODEV, KV_ERR_IO, 0},        {EBADF, KV_ERR_IO, 0},       {EFAULT, KV_ERR_IO, 0},
        {EINVAL, KV_ERR_IO, 0},
    };
    setenv("KVBATCH_STORE", "file:errno-store?beat_idle_ms=0&min_fill_rate=0&checkpoint_log_bytes=0", 1); /* so that nobody else writes */
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        config_t c = with_fsync(i % 2);
        manager_t *m = open_with(&c);
        char key[32];
        int in_doubt = 0, error = rows[i / 2].error;
        snprintf(key, sizeof key, "key%zu", i);
        put_one(m, "before", key);
        fail_with(&disk_write, error, 1);
        CHECK_CODE(try_put(m, key, "v", &in_doubt), rows[i / 2].code);
        heal(&disk_write);
        CHECK_CODE(try_put(m, "later", key, NULL), rows[i / 2].goes_on ? KV_SUCCESS : KV_ERR_IO);
        EXPECT(m, "before", key);
        EXPECT_MISS(m, key);
        close_roughly(m);
        m = open_with(&c);
        EXPECT(m, "before", key);
        if (!in_doubt || rows[i / 2].goes_on) EXPECT_MISS(m, key);
        if (rows[i / 2].goes_on) EXPECT(m, "later", key);
        close_manager(m);
    }
}

TEST(short_and_interrupted_writes_are_completed) {
    static char bytes[300000];
    uint64_t seed = 5;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)next_random(&seed);
    for (int fsync_on = 0; fsync_on < 2; fsync_on++) {
        config_t c = with_fsync(fsync_on);
        manager_t *m = open_with(&c);
        disk_short_writes = 1;
        for (int i = 0; i < 10; i++) {
            char key[16];
            snprintf(key, sizeof key, "%d-%d", fsync_on, i);
            fail_with(&disk_write, EINTR, i % 3);
            put_mem(m, key, strlen(key), bytes + i, sizeof bytes - 10);
        }
        disk_short_writes = 0;
        heal(&disk_write);
        close_manager(m);
        m = open_with(&c);
        for (int i = 0; i < 10; i++) {
            char key[16];
            size_t len;
            snprintf(key, sizeof key, "%d-%d", fsync_on, i);
            char *seen = get_mem(m, key, strlen(key), &len);
            CHECK_EQ_MEM(seen, len, bytes + i, sizeof bytes - 10);
            free(seen);
        }
        close_manager(m);
    }
}

TEST(failures_while_the_first_chunk_is_made) {
    config_t c = with_fsync(true);
    static const int errors[] = {EIO, ENOSPC};
    for (int what = 0; what < 2; what++) {
        for (int e = 0; e < 2; e++) {
            char name[32];
            snprintf(name, sizeof name, "store-%d-%d", what, e);
            setenv("KVBATCH_STORE", name, 1);
            manager_t *m = open_with(&c); /* makes no chunk yet, or has made it well */
            fault_t *f = what ? &disk_sync : &disk_write;
            fail_with(f, errors[e], 1);
            int code = try_put(m, "k", "v", NULL);
            CHECK(code == KV_ERR_IO || (errors[e] == ENOSPC && code == KV_ERR_DISK_FULL));
            heal(f);
            EXPECT_MISS(m, "k");
            close_roughly(m);
            m = open_with(&c);
            put_one(m, "after", "2");
            close_manager(m);
            m = open_with(&c);
            EXPECT(m, "after", "2");
            close_manager(m);
        }
    }
}

/* Faults by chance; a batch of five keys is there whole or not at all, as it was reported. */
TEST(random_faults_never_break_a_promise) {
    config_t c = with_fsync(true);
    uint64_t seed = now_us();
    fprintf(stderr, "seed %lu\n", (unsigned long)seed);
    manager_t *m = open_with(&c);
    long held = 0, doubtful = 0; /* the round that the keys hold; another that they may hold instead, 0: none */
    for (long round = 1; round <= 150; round++) {
        char key[16], value[32];
        switch (next_random(&seed) % 8) {
        case 0: fail_with(&disk_write, ENOSPC, 1 + (long)(next_random(&seed) % 2)); break;
        case 1: fail_with(&disk_write, EIO, 1); break;
        case 2: fail_with(&disk_sync, EIO, 1); break;
        case 3: fail_with(&disk_write, EINTR, 2); break;
        case 4: disk_short_writes = 1; break;
        }
        c.enable_batch_fsync = next_random(&seed) % 3 != 0;
        snprintf(value, sizeof value, "%ld", round);
        batch_t *b = new_batch(m, 5);
        for (int i = 0; i < 5; i++) {
            snprintf(key, sizeof key, "key%d", i);
            add_put(b, key, value);
        }
        int code = run_code(b), in_doubt = code != KV_SUCCESS && strstr(kv_get_last_error()->message, "in doubt") != NULL;
        CHECK(code == KV_SUCCESS || code == KV_ERR_BATCH_FAILED);
        kv_async_batch_destroy(b);
        heal(&disk_write);
        heal(&disk_sync);
        disk_short_writes = 0;
        if (code == KV_SUCCESS) {
            held = round;
            doubtful = 0;
        } else if (in_doubt) {
            doubtful = round;
        }
        if (code != KV_SUCCESS || next_random(&seed) % 5 == 0) {
            close_roughly(m);
            m = open_with(&c);
        }
        char *first = get_one(m, "key0");
        long seen = first ? atol(first) : 0;
        free(first);
        if (seen != held && !(doubtful && seen == doubtful))
            kvt_fail(__FILE__, __LINE__, "round %ld: the store holds %ld, reported were %ld, in doubt %ld", round, seen, held, doubtful);
        held = seen;
        doubtful = 0;
        snprintf(value, sizeof value, "%ld", held);
        for (int i = 0; i < 5; i++) {
            snprintf(key, sizeof key, "key%d", i);
            EXPECT(m, key, held ? value : NULL);
        }
    }
    close_manager(m);
}
