/* test_allocator.c: a batch's memory comes from alloc_func and goes back to free_func, and a refusal at any point gives KV_ERR_MEM,
 * leaves what was there as it was, and leaks nothing. */
#include "kvtest.h"

static config_t config;
static manager_t *m;

static void open_counting(bool fail_fast) {
    config = counting_config();
    config.fail_fast = fail_fast;
    m = open_with(&config);
}

/* Runs the scenario with the n-th allocation refused, for every n until none is left to refuse; then with all from the n-th on. */
static void at_every_point(void (*scenario)(void)) {
    for (int from = 0; from < 2; from++) {
        long n = 1;
        for (;; n++) {
            long live = alloc_live;
            alloc_reset();
            if (from) alloc_fail_from = n;
            else alloc_fail_at = n;
            scenario();
            long refused = alloc_refused;
            alloc_reset();
            CHECK_EQ_INT(alloc_live, live);
            if (refused == 0) break;
            CHECK(n < 100000);
        }
        CHECK(n > 1); /* it allocates at all */
    }
}

static void make_and_drop(void) {
    kv_clear_error();
    batch_t *b = kv_async_batch_create(m, 100);
    if (b) kv_async_batch_destroy(b);
    else CHECK_EQ_INT(kvt_last(), KV_ERR_MEM);
}

TEST(creating_a_batch) {
    open_counting(false);
    CHECK_EQ_INT(alloc_live, 0);
    for (int from = 0; from < 2; from++) { /* a batch may get its memory at the first add: then nothing can fail here */
        alloc_reset();
        alloc_fail_from = 1;
        make_and_drop();
        alloc_reset();
        CHECK_EQ_INT(alloc_live, 0);
    }
    batch_t *b = new_batch(m, 10);
    add_put(b, "k", "v");
    CHECK(alloc_live > 0);
    kv_async_batch_destroy(b);
    CHECK_EQ_INT(alloc_live, 0);
    close_manager(m);
}

/* Adds; a refused one must leave the batch as it was, and the same add must succeed later. */
enum { ADDS = 60 };
static void add_all(void) {
    static char value[3000];
    memset(value, 'v', sizeof value);
    batch_t *b = kv_async_batch_create(m, ADDS);
    if (!b) {
        CHECK_EQ_INT(kvt_last(), KV_ERR_MEM);
        return;
    }
    for (uint64_t i = 0; i < ADDS; i++) {
        char key[32];
        snprintf(key, sizeof key, "key %lu", (unsigned long)i);
        for (;;) {
            int code = i % 3 == 2 ? kv_async_batch_get(b, key, strlen(key), NULL, NULL, NULL, NULL)
                                  : kv_async_batch_put(b, key, strlen(key), value, i * 50, NULL, NULL);
            if (code == KV_SUCCESS) break;
            CHECK_CODE(code, KV_ERR_MEM);
            CHECK_EQ_INT(kvt_last(), KV_ERR_MEM);
            CHECK_EQ_INT(stats_of(b).total_operations, i);
            CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
            alloc_fail_from = 0;
        }
        CHECK_EQ_INT(stats_of(b).total_operations, i + 1);
    }
    alloc_fail_at = alloc_fail_from = 0; /* what follows is not the subject */
    done_t done = DONE_INIT;
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(done.completed, ADDS);
    kv_async_batch_destroy(b);
    char *seen = get_one(m, "key 58");
    CHECK_EQ_INT(strlen(seen), 58 * 50);
    free(seen);
}

TEST(adding_with_every_allocation_refused_once) {
    open_counting(false);
    at_every_point(add_all);
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

/* Submit and wait; what was reported is what happened. */
static int round_number;
static void write_and_read(void) {
    long at = alloc_fail_at, from = alloc_fail_from;
    alloc_fail_at = alloc_fail_from = 0;
    round_number++;
    enum { N = 20 };
    static probe_t put[N], get[N], own[N];
    memset(put, 0, sizeof put);
    memset(get, 0, sizeof get);
    memset(own, 0, sizeof own);
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 3 * N);
    char key[32], value[64], text[64];
    snprintf(value, sizeof value, "round %d", round_number);
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "fixed%d", i);
        add_get(b, key, &get[i]);
        snprintf(key, sizeof key, "%d:%d", round_number, i);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), value, strlen(value), on_op, &put[i]));
        add_get(b, key, &own[i]);
    }
    long calls = alloc_calls; /* from here on, the n-th is refused */
    if (at) alloc_fail_at = calls + at;
    if (from) alloc_fail_from = calls + from;
    int code;
    while ((code = kv_async_batch_submit(b, on_done, &done)) != KV_SUCCESS) {
        CHECK_CODE(code, KV_ERR_MEM);
        CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
        alloc_fail_from = 0;
    }
    code = kv_async_batch_wait(b, FOREVER);
    alloc_fail_at = alloc_fail_from = 0;
    size_t good = 0;
    for (int i = 0; i < N; i++) {
        CHECK_EQ_INT(put[i].calls + get[i].calls + own[i].calls, 3);
        int results[] = {put[i].result, get[i].result, own[i].result};
        for (int k = 0; k < 3; k++) {
            int r = results[k], missed_its_failed_put = k == 2 && r == KV_ERR_KEY_NOT_FOUND && put[i].result != KV_SUCCESS;
            if (r == KV_SUCCESS || missed_its_failed_put) good++;
            else CHECK(r == KV_ERR_MEM || (config.fail_fast && r == KV_ERR_BATCH_FAILED));
        }
        snprintf(text, sizeof text, "value of fixed%d", i);
        if (get[i].result == KV_SUCCESS) CHECK_EQ_STR(get[i].value, text);
        if (own[i].result == KV_SUCCESS) CHECK_EQ_STR(own[i].value, value);
    }
    CHECK_EQ_INT(done.completed, good);
    CHECK_EQ_INT(done.failed, 3 * N - good);
    CHECK_CODE(code, good == 3 * N ? KV_SUCCESS : KV_ERR_BATCH_FAILED);
    if (config.fail_fast) CHECK(good == 0 || good == 3 * N);
    kv_async_batch_destroy(b);
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "%d:%d", round_number, i);
        EXPECT(m, key, put[i].result == KV_SUCCESS ? value : NULL);
    }
}

static void put_fixed(void) {
    batch_t *b = new_batch(m, 20);
    char key[32], value[64];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "fixed%d", i);
        snprintf(value, sizeof value, "value of fixed%d", i);
        add_put(b, key, value);
    }
    run(b);
}

/* The count of refusals is taken over the whole scenario, so the helpers' own batches must not be refused: they are not. */
static void executing(bool fail_fast) {
    open_counting(fail_fast);
    put_fixed();
    for (int from = 0; from < 2; from++) {
        for (long n = 1;; n++) {
            long live = alloc_live;
            alloc_reset();
            if (from) alloc_fail_from = n;
            else alloc_fail_at = n;
            write_and_read();
            long refused = alloc_refused;
            alloc_reset();
            CHECK_EQ_INT(alloc_live, live);
            if (refused == 0) break;
        }
    }
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

TEST(executing_with_every_allocation_refused_once) { executing(false); }
TEST(executing_with_every_allocation_refused_once_and_fail_fast) { executing(true); }

TEST(executing_in_memory_with_every_allocation_refused_once) {
    setenv("KVBATCH_STORE", "memory:", 1);
    executing(false);
}

TEST(everything_is_given_back) {
    open_counting(false);
    put_fixed();
    CHECK_EQ_INT(alloc_live, 0); /* nothing of a destroyed batch is kept */
    batch_t *pending = new_batch(m, 10), *cancelled = new_batch(m, 10), *ended = new_batch(m, 10);
    add_put(pending, "k", "v");
    add_put(cancelled, "k", "v");
    add_put(ended, "k", "v");
    add_get(ended, "fixed1", NULL);
    CHECK_OK(kv_async_batch_cancel(cancelled));
    CHECK_OK(run_code(ended));
    CHECK(alloc_live > 0);
    kv_async_batch_destroy(pending);
    kv_async_batch_destroy(cancelled);
    kv_async_batch_destroy(ended);
    CHECK_EQ_INT(alloc_live, 0);
    close_manager(m);
    CHECK(alloc_calls > 0);
}

TEST(all_that_a_batch_holds_is_counted) {
    open_counting(false);
    batch_t *b = new_batch(m, 10);
    static char value[500000];
    long calls = alloc_calls;
    CHECK_OK(kv_async_batch_put(b, "k", 1, value, sizeof value, NULL, NULL));
    CHECK(alloc_calls > calls); /* half a megabyte cannot have been there */
    alloc_fail_size = sizeof value;
    CHECK_ERR(kv_async_batch_put(b, "l", 1, value, sizeof value, NULL, NULL), KV_ERR_MEM);
    alloc_reset();
    CHECK_EQ_INT(stats_of(b).total_operations, 1);
    run(b);
    EXPECT_MISS(m, "l");
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

/* Two managers of one store, each with its own allocator: each batch's memory comes from its own manager's. */
static atomic_long other_live;
static void *other_alloc(size_t n) {
    char *p = malloc(n + 16);
    if (!p) return NULL;
    memcpy(p, "other allocator", 16);
    atomic_fetch_add(&other_live, 1);
    return p + 16;
}

static void other_free(void *p) {
    if (!p) return;
    CHECK(memcmp((char *)p - 16, "other allocator", 16) == 0);
    atomic_fetch_sub(&other_live, 1);
    free((char *)p - 16);
}

TEST(allocators_of_two_managers_are_not_mixed) {
    open_counting(false);
    config_t c = kvt_config();
    c.alloc_func = other_alloc;
    c.free_func = other_free;
    manager_t *other = open_with(&c);
    for (int i = 0; i < 30; i++) {
        batch_t *a = new_batch(m, 2), *b = new_batch(other, 2);
        add_put(a, "k", "from a");
        add_get(a, "k", NULL);
        add_put(b, "k", "from b");
        add_get(b, "k", NULL);
        submit(a);
        submit(b);
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        CHECK_OK(kv_async_batch_wait(a, FOREVER));
        CHECK(other_live > 0 && alloc_live > 0);
        kv_async_batch_destroy(a);
        kv_async_batch_destroy(b);
    }
    EXPECT(m, "k", "from b");
    close_manager(m);
    close_manager(other);
    CHECK_EQ_INT(alloc_live, 0);
    CHECK_EQ_INT(other_live, 0);
}

/* Random batches over few keys, each with one allocation refused, or all from one on: 20,000 refusals in all. What is reported
 * is what happened: a batch's writes are there all or none, a read gives what the writes before it have left. */
enum { SWEEP_KEYS = 12, SWEEP_REFUSALS = 20000 };
static char *sweep_model[SWEEP_KEYS];

static char *sweep_value(uint64_t *seed, int version) {
    size_t len = next_random(seed) % 8 == 0 ? next_random(seed) % 20000 : next_random(seed) % 200;
    char *value = calloc(1, len + 24);
    int head = snprintf(value, 24, "%d:", version);
    memset(value + head, 'a' + version % 26, len);
    return value;
}

static void sweep_batch(uint64_t seed, long at, long from) {
    enum { OPS_MAX = 30 };
    static probe_t probe[OPS_MAX];
    char *value[OPS_MAX] = {0};
    int key_of[OPS_MAX], kind[OPS_MAX], count = 0, wanted = 1 + (int)(next_random(&seed) % OPS_MAX);
    memset(probe, 0, sizeof probe);
    alloc_reset();
    alloc_fail_at = at;
    alloc_fail_from = from;
    batch_t *b = kv_async_batch_create(m, OPS_MAX);
    for (int i = 0; b && i < wanted; i++) {
        char key[16];
        int code;
        key_of[count] = (int)(next_random(&seed) % SWEEP_KEYS), kind[count] = (int)(next_random(&seed) % 3);
        snprintf(key, sizeof key, "sweep%d", key_of[count]);
        if (kind[count] == 0) {
            value[count] = sweep_value(&seed, i);
            code = kv_async_batch_put(b, key, strlen(key), value[count], strlen(value[count]), on_op, &probe[count]);
        } else if (kind[count] == 1)
            code = kv_async_batch_delete(b, key, strlen(key), on_op, &probe[count]);
        else
            code = kv_async_batch_get(b, key, strlen(key), NULL, NULL, on_op, &probe[count]);
        if (code == KV_SUCCESS)
            count++;
        else {
            CHECK_CODE(code, KV_ERR_MEM);
            free(value[count]);
            value[count] = NULL;
        }
    }
    if (b && count > 0) {
        done_t done = DONE_INIT;
        int code = kv_async_batch_submit(b, on_done, &done);
        if (code == KV_SUCCESS) {
            code = kv_async_batch_wait(b, FOREVER);
            CHECK(code == KV_SUCCESS || code == KV_ERR_BATCH_FAILED);
            for (int i = 0; i < count; i++) {
                CHECK_EQ_INT(probe[i].calls, 1);
                const char *known = sweep_model[key_of[i]];
                if (kind[i] == 2) {
                    CHECK(probe[i].result == KV_ERR_MEM || probe[i].result == (known ? KV_SUCCESS : KV_ERR_KEY_NOT_FOUND));
                    if (probe[i].result == KV_SUCCESS && strlen(known) < sizeof probe[i].value) CHECK_EQ_STR(probe[i].value, known);
                    continue;
                }
                CHECK_CODE(probe[i].result, KV_SUCCESS); /* all that writing needs was had before */
                free(sweep_model[key_of[i]]);
                sweep_model[key_of[i]] = kind[i] == 0 ? strdup(value[i]) : NULL;
            }
        } else {
            CHECK_CODE(code, KV_ERR_MEM);
            CHECK_EQ_INT(kv_async_batch_get_status(b), ST_PENDING);
        }
    }
    if (b) kv_async_batch_destroy(b);
    for (int i = 0; i < OPS_MAX; i++) free(value[i]);
}

SLOW_TEST(twenty_thousand_refused_allocations) {
    open_counting(false);
    long refusals = 0;
    uint64_t seed = 1;
    for (; refusals < SWEEP_REFUSALS; next_random(&seed)) {
        for (int from = 0; from < 2; from++) {
            for (long n = 1;; n++) {
                sweep_batch(seed, from ? 0 : n, from ? n : 0);
                long refused = alloc_refused;
                alloc_reset();
                CHECK_EQ_INT(alloc_live, 0);
                if (refused == 0) break;
                refusals += refused;
            }
        }
    }
    for (int i = 0; i < SWEEP_KEYS; i++) {
        char key[16];
        snprintf(key, sizeof key, "sweep%d", i);
        EXPECT(m, key, sweep_model[i]);
        free(sweep_model[i]);
    }
    close_manager(m);
}
