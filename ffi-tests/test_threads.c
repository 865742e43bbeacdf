/* test_threads.c: many threads on one manager, on one batch, on one store: all of it succeeds, and races have one winner. */
#include "kvtest.h"

enum { THREADS = 8 };
static manager_t *m;
static batch_t *shared;
static atomic_int accepted, full, refused, submitted;
static gate_t go = GATE_INIT;

static void all_threads(void *(*body)(void *)) {
    pthread_t t[THREADS];
    for (long i = 0; i < THREADS; i++) t[i] = thread_start(body, (void *)i);
    gate_open(&go);
    for (int i = 0; i < THREADS; i++) thread_join(t[i]);
}

static void *own_batches(void *arg) {
    long id = (long)arg;
    gate_wait(&go, 1);
    for (int round = 0; round < 50; round++) {
        char key[64], value[64];
        batch_t *b = new_batch(m, 20);
        for (int i = 0; i < 20; i++) {
            snprintf(key, sizeof key, "t%ld-%d-%d", id, round, i);
            snprintf(value, sizeof value, "value %ld %d %d", id, round, i);
            CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, strlen(value), on_op_count, &accepted));
        }
        run(b);
    }
    return NULL;
}

TEST(eight_threads_with_batches_of_their_own) {
    m = open_default();
    all_threads(own_batches);
    CHECK_EQ_INT(accepted, THREADS * 50 * 20);
    CHECK_EQ_INT(manager_stats(m).completed_operations, THREADS * 50 * 20);
    CHECK_EQ_INT(manager_stats(m).failed_operations, 0);
    for (int reopened = 0; reopened < 2; reopened++) {
        for (int id = 0; id < THREADS; id++) {
            for (int round = 0; round < 50; round += 7) {
                char key[64], value[64];
                snprintf(key, sizeof key, "t%d-%d-%d", id, round, round % 20);
                snprintf(value, sizeof value, "value %d %d %d", id, round, round % 20);
                EXPECT(m, key, value);
            }
        }
        close_manager(m);
        m = open_default();
    }
    close_manager(m);
}

static void *fill_shared(void *arg) {
    long id = (long)arg;
    gate_wait(&go, 1);
    for (int i = 0; i < 1000; i++) {
        char key[64];
        snprintf(key, sizeof key, "s%ld-%d", id, i);
        CHECK_OK(kv_async_batch_put(shared, key, strlen(key), key, strlen(key), on_op_count, &accepted));
    }
    return NULL;
}

TEST(eight_threads_fill_one_batch) {
    m = open_default();
    shared = new_batch(m, THREADS * 1000);
    all_threads(fill_shared);
    CHECK_EQ_INT(stats_of(shared).total_operations, THREADS * 1000);
    run(shared);
    CHECK_EQ_INT(accepted, THREADS * 1000);
    for (int id = 0; id < THREADS; id++) {
        for (int i = 0; i < 1000; i += 37) {
            char key[64];
            snprintf(key, sizeof key, "s%d-%d", id, i);
            EXPECT(m, key, key);
        }
    }
    close_manager(m);
}

static void *fill_to_the_brim(void *arg) {
    gate_wait(&go, 1);
    for (int i = 0; i < 200; i++) {
        int code = kv_async_batch_put(shared, "key", 3, "v", 1, NULL, NULL);
        CHECK(code == KV_SUCCESS || code == KV_ERR_BATCH_FULL);
        atomic_fetch_add(code == KV_SUCCESS ? &accepted : &full, 1);
    }
    return arg;
}

TEST(a_race_for_the_last_places_fills_exactly_the_batch) {
    m = open_default();
    shared = new_batch(m, 1000);
    all_threads(fill_to_the_brim);
    CHECK_EQ_INT(accepted, 1000);
    CHECK_EQ_INT(full, THREADS * 200 - 1000);
    CHECK_EQ_INT(stats_of(shared).total_operations, 1000);
    run(shared);
    close_manager(m);
}

static void *add_until_submitted(void *arg) {
    long id = (long)arg;
    gate_wait(&go, 1);
    for (int i = 0;; i++) {
        char key[64];
        snprintf(key, sizeof key, "r%ld-%d", id, i);
        int code = kv_async_batch_put(shared, key, strlen(key), "v", 1, on_op_count, &full);
        if (code == KV_ERR_INVALID_STATE) break;
        CHECK_CODE(code, KV_SUCCESS);
        if (atomic_fetch_add(&accepted, 1) > 500 && id == 0) submit(shared);
    }
    return NULL;
}

TEST(adds_that_race_with_submit_are_in_or_refused) {
    m = open_default();
    for (int round = 0; round < 10; round++) {
        accepted = full = 0;
        shared = new_batch(m, KV_ASYNC_BATCH_MAX_SIZE);
        all_threads(add_until_submitted);
        CHECK_OK(kv_async_batch_wait(shared, FOREVER));
        CHECK_EQ_INT(stats_of(shared).total_operations, accepted);
        CHECK_EQ_INT(full, accepted); /* every accepted one had its callback */
        kv_async_batch_destroy(shared);
    }
    close_manager(m);
}

static done_t race_done;
static void *submit_or_cancel(void *arg) {
    long id = (long)arg;
    gate_wait(&go, 1);
    int code = id % 2 ? kv_async_batch_cancel(shared) : kv_async_batch_submit(shared, on_done, &race_done);
    if (id % 2) CHECK(code == KV_SUCCESS || code == KV_ERR_BUSY);
    else CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_STATE);
    if (id % 2 == 0 && code == KV_SUCCESS) atomic_fetch_add(&submitted, 1);
    return NULL;
}

TEST(submit_and_cancel_race_with_one_outcome) {
    m = open_default();
    for (int round = 0; round < 200; round++) {
        char key[32];
        snprintf(key, sizeof key, "race%d", round);
        submitted = 0;
        race_done = (done_t)DONE_INIT;
        shared = new_batch(m, 1);
        add_put(shared, key, "v");
        go = (gate_t)GATE_INIT;
        all_threads(submit_or_cancel);
        CHECK(submitted <= 1);
        int code = kv_async_batch_wait(shared, FOREVER);
        CHECK(code == KV_SUCCESS || code == KV_ERR_CANCELLED);
        CHECK_EQ_INT(kv_async_batch_get_status(shared), code == KV_SUCCESS ? ST_COMPLETED : ST_CANCELLED);
        if (code == KV_SUCCESS) CHECK_EQ_INT(submitted, 1);
        CHECK_EQ_INT(race_done.calls, submitted); /* callbacks for what was submitted, and for nothing else */
        kv_async_batch_destroy(shared);
        EXPECT(m, key, code == KV_SUCCESS ? "v" : NULL);
    }
    close_manager(m);
}

static void *own_keys_with_reads(void *arg) {
    long id = (long)arg;
    uint64_t seed = (uint64_t)id;
    static _Thread_local int model[50];
    static _Thread_local probe_t p[20];
    gate_wait(&go, 1);
    for (int round = 1; round <= 60; round++) {
        batch_t *b = new_batch(m, 20);
        int wanted[20];
        memset(p, 0, sizeof p);
        for (int i = 0; i < 20; i++) {
            int k = (int)(next_random(&seed) % 50);
            char key[64], value[64];
            snprintf(key, sizeof key, "own%ld-%d", id, k);
            wanted[i] = -1;
            switch (next_random(&seed) % 3) {
            case 0:
                model[k] = round * 100 + i;
                snprintf(value, sizeof value, "%d", model[k]);
                add_put(b, key, value);
                break;
            case 1:
                model[k] = 0;
                add_delete(b, key);
                break;
            default:
                wanted[i] = model[k];
                add_get(b, key, &p[i]);
            }
        }
        run(b);
        for (int i = 0; i < 20; i++) {
            if (wanted[i] < 0) continue;
            CHECK_CODE(p[i].result, wanted[i] ? KV_SUCCESS : KV_ERR_KEY_NOT_FOUND);
            if (wanted[i]) CHECK_EQ_INT(atoi(p[i].value), wanted[i]);
        }
    }
    return NULL;
}

TEST(eight_threads_read_write_and_delete_their_own_keys) {
    m = open_default();
    all_threads(own_keys_with_reads);
    CHECK_EQ_INT(manager_stats(m).failed_operations, 0);
    CHECK_EQ_INT(manager_stats(m).completed_batches, THREADS * 60);
    close_manager(m);
}

static void *own_managers(void *arg) {
    long id = (long)arg;
    gate_wait(&go, 1);
    for (int round = 0; round < 10; round++) {
        manager_t *own = open_default(); /* the same store for all */
        char key[64];
        snprintf(key, sizeof key, "m%ld-%d", id, round);
        put_one(own, key, key);
        EXPECT(own, key, key);
        close_manager(own);
    }
    return NULL;
}

TEST(managers_of_one_store_come_and_go_in_eight_threads) {
    all_threads(own_managers);
    m = open_default();
    for (int id = 0; id < THREADS; id++) {
        for (int round = 0; round < 10; round++) {
            char key[64];
            snprintf(key, sizeof key, "m%d-%d", id, round);
            EXPECT(m, key, key);
        }
    }
    close_manager(m);
}

static void *first_manager(void *arg) {
    gate_wait(&go, 1);
    manager_t *own = open_default();
    close_manager(own);
    return arg;
}

static void all_begin_at_once(void *unused) {
    (void)unused;
    all_threads(first_manager);
}

/* What a process makes once, by whoever comes first, is handed over whole to those who come meanwhile. */
TEST(the_first_managers_of_a_process_are_made_in_eight_threads_at_once) {
    for (int round = 0; round < 40; round++) in_child(all_begin_at_once, NULL);
}

static void *make_and_destroy(void *arg) {
    gate_wait(&go, 1);
    for (int i = 0; i < 2000; i++) {
        batch_t *b = new_batch(m, 3);
        add_put(b, "k", "v");
        CHECK_EQ_INT(stats_of(b).total_operations, 1); /* never another thread's batch */
        CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
        kv_async_batch_destroy(b);
    }
    return arg;
}

TEST(batches_are_made_and_destroyed_in_eight_threads) {
    m = open_default();
    all_threads(make_and_destroy);
    EXPECT_MISS(m, "k");
    close_manager(m);
}

static void *small_stack_body(void *unused) {
    for (int i = 0; i < 10; i++) {
        batch_t *b = new_batch(m, 300);
        for (int k = 0; k < 200; k++) add_put(b, "k", "v");
        add_get(b, "k", NULL);
        run(b); /* the waiting thread may do the work itself, here on 64 KiB of stack */
    }
    return unused;
}

TEST(a_thread_with_a_small_stack_may_do_everything) {
    m = open_default();
    pthread_attr_t attributes;
    pthread_t t;
    CHECK_EQ_INT(pthread_attr_init(&attributes), 0);
    CHECK_EQ_INT(pthread_attr_setstacksize(&attributes, 64 * 1024), 0);
    CHECK_EQ_INT(pthread_create(&t, &attributes, small_stack_body, NULL), 0);
    thread_join(t);
    EXPECT(m, "k", "v");
    close_manager(m);
}

static void *submit_and_leave(void *b) {
    submit(b);
    return NULL;
}

TEST(a_thread_may_end_before_its_batch) {
    m = open_default();
    for (int i = 0; i < 50; i++) {
        batch_t *b = new_batch(m, 1);
        add_put(b, "k", "v");
        thread_join(thread_start(submit_and_leave, b));
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        kv_async_batch_destroy(b);
    }
    close_manager(m);
}

static void *stop_and_start(void *arg) {
    gate_wait(&go, 1);
    if (arg == 0) {
        for (int i = 0; i < 15; i++) {
            CHECK_OK(kv_async_batch_manager_stop(m));
            CHECK_OK(kv_async_batch_manager_start(m));
        }
        submitted = 1;
        return NULL;
    }
    for (int n = 0; !submitted; n++) {
        char key[64];
        snprintf(key, sizeof key, "n%ld-%d", (long)arg, n);
        batch_t *b = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), key, strlen(key), NULL, NULL));
        int code = kv_async_batch_submit(b, NULL, NULL);
        CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_STATE);
        if (code == KV_SUCCESS) {
            CHECK_OK(kv_async_batch_wait(b, FOREVER)); /* accepted means completed, stop or not */
            atomic_fetch_add(&accepted, 1);
        } else {
            atomic_fetch_add(&refused, 1);
        }
        kv_async_batch_destroy(b);
    }
    return NULL;
}

TEST(submits_that_race_with_stop_complete_or_are_refused) {
    m = open_default();
    all_threads(stop_and_start);
    CHECK(accepted > 0);
    CHECK_EQ_INT(manager_stats(m).failed_operations, 0);
    close_manager(m);
}
