/* test_manager.c: the life cycle: created, started, stopped, started again, destroyed, and who is taken along. */
#include "kvtest.h"

static int exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0;
}

TEST(create_touches_no_file) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK(!exists(kvt_store()));
    kv_async_batch_manager_destroy(m);
    CHECK(!exists(kvt_store()));
}

TEST(start_makes_the_store) {
    manager_t *m = open_default();
    CHECK(exists(kvt_store()));
    close_manager(m);
    CHECK(exists(kvt_store()));
}

TEST(starting_twice_succeeds) {
    manager_t *m = open_default();
    put_one(m, "a", "1");
    CHECK_OK(kv_async_batch_manager_start(m));
    EXPECT(m, "a", "1");
    close_manager(m);
}

TEST(stopping_what_never_ran_succeeds) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_OK(kv_async_batch_manager_stop(m));
    CHECK_OK(kv_async_batch_manager_stop(m));
    CHECK_OK(kv_async_batch_manager_start(m));
    put_one(m, "a", "1");
    EXPECT(m, "a", "1");
    close_manager(m);
}

TEST(stopping_twice_succeeds) {
    manager_t *m = open_default();
    CHECK_OK(kv_async_batch_manager_stop(m));
    CHECK_OK(kv_async_batch_manager_stop(m));
    kv_async_batch_manager_destroy(m);
}

TEST(start_after_stop_works_and_finds_the_data) {
    manager_t *m = open_default();
    for (int i = 0; i < 5; i++) {
        char key[16], last[16];
        snprintf(key, sizeof key, "round%d", i);
        put_one(m, key, "here");
        CHECK_OK(kv_async_batch_manager_stop(m));
        CHECK_OK(kv_async_batch_manager_start(m));
        for (int k = 0; k <= i; k++) {
            snprintf(last, sizeof last, "round%d", k);
            EXPECT(m, last, "here");
        }
    }
    close_manager(m);
}

TEST(null_managers) {
    stats_t s;
    CHECK_ERR(kv_async_batch_manager_start(NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_manager_stop(NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_manager_get_stats(NULL, &s), KV_ERR_NULL_POINTER);
    CHECK_NO_HANDLE(kv_async_batch_create(NULL, 10), KV_ERR_NULL_POINTER);
    kv_async_batch_manager_destroy(NULL);
    kv_async_batch_manager_destroy(NULL);
}

TEST(submit_before_start_is_refused_and_the_batch_stays) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 2);
    add_put(b, "a", "1");
    CHECK_ERR(kv_async_batch_submit(b, on_done, &done), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
    CHECK_EQ_INT(done.calls, 0);
    add_put(b, "b", "2"); /* still to be filled */
    CHECK_OK(kv_async_batch_manager_start(m));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(done.calls, 1);
    CHECK_EQ_INT(done.completed, 2);
    kv_async_batch_destroy(b);
    EXPECT(m, "a", "1");
    EXPECT(m, "b", "2");
    close_manager(m);
}

TEST(submit_after_stop_is_refused_until_the_next_start) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    add_put(b, "a", "1");
    CHECK_OK(kv_async_batch_manager_stop(m));
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
    CHECK_OK(kv_async_batch_manager_start(m));
    run(b);
    EXPECT(m, "a", "1");
    close_manager(m);
}

TEST(stop_completes_what_was_submitted) {
    config_t c = kvt_config();
    c.max_concurrent_batches = 200;
    manager_t *m = open_with(&c);
    static done_t done[100];
    atomic_int ops = 0;
    batch_t *b[100];
    for (int i = 0; i < 100; i++) {
        done[i] = (done_t)DONE_INIT;
        b[i] = new_batch(m, 10);
        for (int k = 0; k < 10; k++) {
            char key[32];
            snprintf(key, sizeof key, "b%d-%d", i, k);
            CHECK_OK(kv_async_batch_put(b[i], key, strlen(key), key, strlen(key), on_op_count, &ops));
        }
        CHECK_OK(kv_async_batch_submit(b[i], on_done, &done[i]));
    }
    CHECK_OK(kv_async_batch_manager_stop(m));
    CHECK_EQ_INT(ops, 1000); /* every callback has been by the time stop returns */
    for (int i = 0; i < 100; i++) {
        CHECK_EQ_INT(done[i].calls, 1);
        CHECK_EQ_INT(done[i].completed, 10);
        CHECK_EQ_INT(kv_async_batch_get_status(b[i]), ST_COMPLETED);
        CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
    }
    CHECK_OK(kv_async_batch_manager_start(m));
    for (int i = 0; i < 100; i++) {
        char key[32];
        snprintf(key, sizeof key, "b%d-%d", i, i % 10);
        EXPECT(m, key, key);
        kv_async_batch_destroy(b[i]);
    }
    close_manager(m);
}

static void *stop_it(void *m) {
    CHECK_OK(kv_async_batch_manager_stop(m));
    return NULL;
}

TEST(stop_waits_for_the_last_callback) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "a", 1, "1", 1, on_op_hold, &hold));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&hold.entered, 1);
    pthread_t t = thread_start(stop_it, m);
    sleep_ms(30); /* gives a wrong stop the chance to return early */
    CHECK_EQ_INT(done.calls, 0);
    gate_open(&hold.leave);
    thread_join(t);
    CHECK_EQ_INT(done.calls, 1);
    CHECK_OK(kv_async_batch_wait(b, 0));
    kv_async_batch_destroy(b);
    kv_async_batch_manager_destroy(m);
}

TEST(many_threads_may_start_and_stop) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    for (int round = 0; round < 10; round++) {
        CHECK_OK(kv_async_batch_manager_start(m));
        put_one(m, "a", "1");
        pthread_t t[4];
        for (int i = 0; i < 4; i++) t[i] = thread_start(stop_it, m);
        for (int i = 0; i < 4; i++) thread_join(t[i]);
    }
    kv_async_batch_manager_destroy(m);
}

TEST(destroying_a_running_manager_stops_it) {
    manager_t *m = open_default();
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 1);
    add_put(b, "a", "1");
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    kv_async_batch_manager_destroy(m);
    CHECK_EQ_INT(done.calls, 1);
    CHECK_EQ_INT(done.completed, 1);
    m = open_default();
    EXPECT(m, "a", "1");
    close_manager(m);
}

TEST(destroying_an_unstarted_manager) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    batch_t *b = new_batch(m, 5);
    add_put(b, "a", "1");
    kv_async_batch_manager_destroy(m); /* takes the batch along */
}

TEST(destroy_takes_living_batches_along) {
    config_t c = counting_config();
    manager_t *m = open_with(&c);
    for (int i = 0; i < 20; i++) {
        batch_t *b = new_batch(m, 10);
        add_put(b, "key", "value");
        if (i % 2) CHECK_OK(run_code(b)); /* ended, never destroyed: the documented loop does that */
    }
    CHECK(alloc_live > 0);
    kv_async_batch_manager_destroy(m);
    CHECK_EQ_INT(alloc_live, 0);
}

TEST(batches_may_be_made_and_filled_before_the_start) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    batch_t *b = new_batch(m, 3);
    add_put(b, "early", "bird");
    CHECK_OK(kv_async_batch_manager_start(m));
    run(b);
    EXPECT(m, "early", "bird");
    close_manager(m);
}

TEST(two_managers_that_name_one_store_share_it) {
    manager_t *a = open_default(), *b = open_default();
    put_one(a, "from a", "1");
    EXPECT(b, "from a", "1");
    put_one(b, "from b", "2");
    EXPECT(a, "from b", "2");
    delete_one(b, "from a");
    EXPECT_MISS(a, "from a");
    close_manager(a);
    put_one(b, "after a's end", "3"); /* the store stays open for the other */
    EXPECT(b, "from b", "2");
    close_manager(b);
}

TEST(managers_of_different_stores_are_apart) {
    manager_t *m[4];
    char name[32];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "store-%d", i);
        setenv("KVBATCH_STORE", name, 1);
        m[i] = open_default();
        put_one(m[i], "who", name);
    }
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "store-%d", i);
        EXPECT(m[i], "who", name);
        close_manager(m[i]);
    }
}

TEST(a_failed_start_can_be_tried_again) {
    setenv("KVBATCH_STORE", "in-the-way", 1);
    write_file("in-the-way", "x", 1);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_FILE);
    batch_t *b = new_batch(m, 1);
    add_put(b, "a", "1");
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(unlink("in-the-way"), 0);
    CHECK_OK(kv_async_batch_manager_start(m));
    run(b);
    EXPECT(m, "a", "1");
    close_manager(m);
}

TEST(hundreds_of_managers_one_after_the_other) {
    for (int i = 0; i < 200; i++) {
        manager_t *m = kv_async_batch_manager_create(NULL);
        CHECK(m != NULL);
        if (i % 10 == 0) {
            CHECK_OK(kv_async_batch_manager_start(m));
            put_one(m, "a", "1");
        }
        kv_async_batch_manager_destroy(m);
    }
}

static long open_files(void) {
    static char names[4096][256];
    return (long)list_dir("/proc/self/fd", "", names, 4096);
}

static long threads(void) {
    static char names[4096][256];
    return (long)list_dir("/proc/self/task", "", names, 4096);
}

TEST(a_destroyed_manager_leaves_neither_thread_nor_file_open) {
    close_manager(open_default()); /* what is kept for the process's life is there now */
    long files = open_files(), tasks = threads();
    for (int i = 0; i < 10; i++) {
        manager_t *m = open_default();
        put_one(m, "a", "1");
        close_manager(m);
    }
    CHECK_EQ_INT(open_files(), files);
    while (threads() > tasks) sleep_ms(1); /* a joined thread may still be listed for a moment */
}
