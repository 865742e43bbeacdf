/* test_bad_handles.c: stale, forged and foreign handles are told apart, never followed: KV_ERR_INVALID_PARAM, and destroying them
 * again does nothing. */
#include "kvtest.h"
#include <sys/mman.h>

static void bad_batch(batch_t *b) {
    stats_t s;
    char *value = (char *)"untouched";
    size_t len = 4711;
    CHECK_ERR(kv_async_batch_put(b, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_get(b, "k", 1, &value, &len, NULL, NULL), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_delete(b, "k", 1, NULL, NULL), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_wait(b, 0), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_cancel(b), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_get_stats(b, &s), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_reset_stats(b), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_print_stats(b, stderr), KV_ERR_INVALID_PARAM);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_FAILED);
    CHECK(len == 4711 && strcmp(value, "untouched") == 0);
    kv_async_batch_destroy(b);
    kv_async_batch_destroy(b);
}

static void bad_manager(manager_t *m) {
    stats_t s;
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_manager_stop(m), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_manager_get_stats(m, &s), KV_ERR_INVALID_PARAM);
    CHECK_NO_HANDLE(kv_async_batch_create(m, 1), KV_ERR_INVALID_PARAM);
    kv_async_batch_manager_destroy(m);
    kv_async_batch_manager_destroy(m);
}

TEST(a_destroyed_batch) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    kv_async_batch_destroy(b);
    bad_batch(b);
    EXPECT_MISS(m, "k");
    close_manager(m);
    bad_batch(b);
}

TEST(a_destroyed_batch_that_had_ended) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    CHECK_OK(run_code(b));
    kv_async_batch_destroy(b);
    bad_batch(b);
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(batches_of_a_destroyed_manager) {
    manager_t *m = open_default();
    batch_t *pending = new_batch(m, 1), *ended = new_batch(m, 1), *cancelled = new_batch(m, 1);
    add_put(pending, "k", "v");
    add_put(ended, "l", "v");
    CHECK_OK(run_code(ended));
    CHECK_OK(kv_async_batch_cancel(cancelled));
    kv_async_batch_manager_destroy(m);
    bad_batch(pending);
    bad_batch(ended);
    bad_batch(cancelled);
}

TEST(a_destroyed_manager) {
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    kv_async_batch_manager_destroy(m);
    bad_manager(m);
    m = open_default();
    kv_async_batch_manager_destroy(m);
    bad_manager(m);
}

TEST(a_stale_handle_does_not_reach_its_successor) {
    manager_t *m = open_default();
    batch_t *old[100];
    for (int i = 0; i < 100; i++) {
        old[i] = new_batch(m, 1);
        kv_async_batch_destroy(old[i]);
        batch_t *next = new_batch(m, 2); /* likely gets the place of the old one */
        add_put(next, "k", "v");
        for (int k = 0; k <= i; k++) {
            CHECK(old[k] != next); /* a handle is not given out twice within such a short time */
            CHECK_EQ_INT(kv_async_batch_get_status(old[k]), ST_FAILED);
            kv_async_batch_destroy(old[k]);
            CHECK_CODE(kv_async_batch_put(old[k], "evil", 4, "x", 1, NULL, NULL), KV_ERR_INVALID_PARAM);
        }
        CHECK_EQ_INT(stats_of(next).total_operations, 1);
        run(next);
    }
    EXPECT_MISS(m, "evil");
    close_manager(m);
}

TEST(forged_batches) {
    manager_t *m = open_default();
    static char zeros[4096], noise[4096];
    uint64_t seed = 7;
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)next_random(&seed);
    void *heap = calloc(1, 4096);
    void *no_access = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *forged[] = {(void *)1, (void *)7, (void *)8, (void *)16, (void *)4096, (void *)-1, (void *)-8, (void *)-4096, (void *)0xdeadbeef,
                      (void *)0x7fffffffffff, (void *)(uintptr_t)0x8000000000000000, (void *)(uintptr_t)0x4141414141414141, zeros, noise,
                      noise + 1, heap, no_access, &seed, (void *)bad_batch, stdout};
    for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++) bad_batch(forged[i]);
    for (int i = 0; i < 1000; i++) CHECK_CODE(kv_async_batch_cancel((batch_t *)next_random(&seed)), KV_ERR_INVALID_PARAM);
    for (uintptr_t i = 1; i < 5000; i++) CHECK_CODE(kv_async_batch_cancel((batch_t *)i), KV_ERR_INVALID_PARAM);
    put_one(m, "k", "v");
    EXPECT(m, "k", "v");
    close_manager(m);
    free(heap);
}

TEST(forged_managers) {
    manager_t *m = open_default();
    static char zeros[4096];
    uint64_t seed = 8;
    void *no_access = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *forged[] = {(void *)1, (void *)8, (void *)-1, (void *)-16, (void *)0xdeadbeef, zeros, zeros + 3, no_access, &seed, stdout};
    for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++) bad_manager(forged[i]);
    for (int i = 0; i < 1000; i++) CHECK_CODE(kv_async_batch_manager_stop((manager_t *)next_random(&seed)), KV_ERR_INVALID_PARAM);
    put_one(m, "k", "v");
    close_manager(m);
}

/* Near misses of true handles: neighbours, and pointers into whatever they point to. */
TEST(handles_that_are_almost_right) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    for (intptr_t d = -64; d <= 64; d++) {
        if (d == 0) continue;
        CHECK_CODE(kv_async_batch_cancel((batch_t *)((intptr_t)b + d)), KV_ERR_INVALID_PARAM);
        CHECK_CODE(kv_async_batch_manager_stop((manager_t *)((intptr_t)m + d)), KV_ERR_INVALID_PARAM);
    }
    for (int bit = 0; bit < 64; bit++) {
        CHECK_CODE(kv_async_batch_cancel((batch_t *)((uintptr_t)b ^ (uintptr_t)1 << bit)), KV_ERR_INVALID_PARAM);
        CHECK_CODE(kv_async_batch_manager_stop((manager_t *)((uintptr_t)m ^ (uintptr_t)1 << bit)), KV_ERR_INVALID_PARAM);
    }
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
    add_put(b, "k", "v");
    run(b);
    close_manager(m);
}

TEST(a_manager_passed_as_a_batch) {
    manager_t *m = open_default();
    bad_batch((batch_t *)m);
    put_one(m, "k", "v"); /* it was not destroyed by that */
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(a_batch_passed_as_a_manager) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1);
    bad_manager((manager_t *)b);
    add_put(b, "k", "v");
    run(b);
    EXPECT(m, "k", "v");
    close_manager(m);
}

TEST(bad_handles_with_other_bad_arguments) {
    batch_t *forged = (batch_t *)0x10;
    int code = kv_async_batch_put(forged, NULL, 0, NULL, 0, NULL, NULL);
    CHECK(code == KV_ERR_INVALID_PARAM || code == KV_ERR_NULL_POINTER);
    code = kv_async_batch_get_stats(forged, NULL);
    CHECK(code == KV_ERR_INVALID_PARAM || code == KV_ERR_NULL_POINTER);
    code = kv_async_batch_manager_get_stats((manager_t *)forged, NULL);
    CHECK(code == KV_ERR_INVALID_PARAM || code == KV_ERR_NULL_POINTER);
}

TEST(bad_handles_before_anything_was_created) {
    bad_batch((batch_t *)0x1234);
    bad_manager((manager_t *)0x1234);
}

/* ---- the same in a race: many threads destroy one handle while others use it ---- */
static manager_t *shared_manager;
static batch_t *shared;
static gate_t go = GATE_INIT;

static void *destroy_shared(void *unused) {
    gate_wait(&go, 1);
    kv_async_batch_destroy(shared);
    return unused;
}

static void *use_shared(void *unused) {
    gate_wait(&go, 1);
    for (int i = 0; i < 20; i++) {
        int code = kv_async_batch_put(shared, "k", 1, "v", 1, NULL, NULL);
        CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM || code == KV_ERR_INVALID_STATE);
        stats_t s;
        code = kv_async_batch_get_stats(shared, &s);
        CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM);
    }
    int code = kv_async_batch_submit(shared, NULL, NULL);
    CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM || code == KV_ERR_INVALID_STATE);
    code = kv_async_batch_wait(shared, FOREVER);
    CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM || code == KV_ERR_INVALID_STATE);
    return unused;
}

TEST(destroy_races_with_use_and_with_itself) {
    config_t c = counting_config();
    c.enable_batch_fsync = false;
    shared_manager = open_with(&c);
    for (int round = 0; round < 200; round++) {
        go = (gate_t)GATE_INIT;
        shared = new_batch(shared_manager, 100);
        add_put(shared, "k", "v");
        pthread_t t[4];
        for (int i = 0; i < 4; i++) t[i] = thread_start(i < 2 ? destroy_shared : use_shared, NULL);
        gate_open(&go);
        for (int i = 0; i < 4; i++) thread_join(t[i]);
        bad_batch(shared);
    }
    close_manager(shared_manager);
    CHECK_EQ_INT(alloc_live, 0);
}

static void *destroy_manager(void *unused) {
    gate_wait(&go, 1);
    kv_async_batch_manager_destroy(shared_manager);
    return unused;
}

static void *use_manager(void *unused) {
    gate_wait(&go, 1);
    for (int i = 0; i < 20; i++) {
        batch_t *b = kv_async_batch_create(shared_manager, 1);
        if (!b) break; /* gone */
        int code = kv_async_batch_put(b, "k", 1, "v", 1, NULL, NULL);
        CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM || code == KV_ERR_INVALID_STATE);
        code = kv_async_batch_submit(b, NULL, NULL);
        CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM || code == KV_ERR_INVALID_STATE);
        code = kv_async_batch_wait(b, FOREVER);
        CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM || code == KV_ERR_INVALID_STATE);
        kv_async_batch_destroy(b);
    }
    return unused;
}

TEST(manager_destroy_races_with_use_and_with_itself) {
    for (int round = 0; round < 40; round++) {
        go = (gate_t)GATE_INIT;
        config_t c = counting_config();
        shared_manager = open_with(&c);
        pthread_t t[4];
        for (int i = 0; i < 4; i++) t[i] = thread_start(i < 2 ? destroy_manager : use_manager, NULL);
        gate_open(&go);
        for (int i = 0; i < 4; i++) thread_join(t[i]);
        bad_manager(shared_manager);
        CHECK_EQ_INT(alloc_live, 0);
    }
}

/* A waiter that sleeps in wait when another thread destroys the batch gets the true result, or is told that the handle is gone. */
static hold_t hold;
static void *wait_shared(void *unused) {
    gate_open(&go);
    int code = kv_async_batch_wait(shared, FOREVER);
    CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_PARAM);
    return unused;
}

TEST(destroying_what_another_thread_waits_for) {
    manager_t *m = open_default();
    for (int round = 0; round < 20; round++) {
        go = (gate_t)GATE_INIT;
        hold = (hold_t)HOLD_INIT;
        shared = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(shared, "k", 1, "v", 1, on_op_hold, &hold));
        submit(shared);
        gate_wait(&hold.entered, 1);
        pthread_t waiter = thread_start(wait_shared, NULL);
        gate_wait(&go, 1);
        pthread_t destroyer = thread_start(destroy_shared, NULL);
        sleep_ms(2);
        gate_open(&hold.leave);
        thread_join(waiter);
        thread_join(destroyer);
    }
    close_manager(m);
}
