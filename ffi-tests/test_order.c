/* test_order.c: operations take effect in the order they were added, batches in the order of their submits, and the writes of a
 * batch become visible to others together. */
#include "kvtest.h"

#define SAW(probe, text) do { CHECK_CODE((probe).result, KV_SUCCESS); CHECK_EQ_STR((probe).value, text); } while (0)
#define MISSED(probe) CHECK_CODE((probe).result, KV_ERR_KEY_NOT_FOUND)

TEST(a_get_sees_earlier_writes_of_its_batch_and_not_later_ones) {
    manager_t *m = open_default();
    put_one(m, "k", "before");
    probe_t p[7] = {0};
    batch_t *b = new_batch(m, 20);
    add_get(b, "k", &p[0]);
    add_put(b, "k", "one");
    add_get(b, "k", &p[1]);
    add_put(b, "k", "two");
    add_put(b, "k", "three");
    add_get(b, "k", &p[2]);
    add_delete(b, "k");
    add_get(b, "k", &p[3]);
    add_put(b, "k", "four");
    add_get(b, "k", &p[4]);
    add_get(b, "other", &p[5]);
    add_put(b, "other", "late");
    add_get(b, "other", &p[6]);
    run(b);
    SAW(p[0], "before");
    SAW(p[1], "one");
    SAW(p[2], "three");
    MISSED(p[3]);
    SAW(p[4], "four");
    MISSED(p[5]);
    SAW(p[6], "late");
    EXPECT(m, "k", "four");
    close_manager(m);
}

/* The same sequence gives the same results whatever the switches that may only reorder or leave out work. */
TEST(no_switch_changes_results) {
    for (unsigned bits = 0; bits < 32; bits++) {
        char name[32];
        snprintf(name, sizeof name, "store-%u", bits);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.enable_batch_fsync = bits & 1;
        c.enable_deduplication = bits & 2;
        c.enable_sorting = bits & 4;
        c.enable_compression = bits & 8;
        c.enable_prefetching = bits & 16;
        manager_t *m = open_with(&c);
        probe_t p[4] = {0};
        batch_t *b = new_batch(m, 20);
        add_put(b, "z", "1");
        add_put(b, "a", "1");
        add_get(b, "z", &p[0]);
        add_delete(b, "z");
        add_put(b, "a", "2");
        add_get(b, "z", &p[1]);
        add_get(b, "a", &p[2]);
        add_put(b, "z", "3");
        add_put(b, "m", "4");
        add_delete(b, "m");
        add_get(b, "m", &p[3]);
        run(b);
        SAW(p[0], "1");
        MISSED(p[1]);
        SAW(p[2], "2");
        MISSED(p[3]);
        EXPECT(m, "a", "2");
        EXPECT(m, "z", "3");
        EXPECT_MISS(m, "m");
        close_manager(m);
    }
}

TEST(the_last_of_a_thousand_writes_to_one_key_wins) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 1000);
    char value[16];
    static probe_t p[1000];
    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof value, "%d", i);
        CHECK_OK(kv_async_batch_put(b, "k", 1, value, strlen(value), on_op, &p[i]));
    }
    run(b);
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ_INT(p[i].calls, 1); /* what deduplication dropped still gets its callback, with success */
        CHECK_CODE(p[i].result, KV_SUCCESS);
    }
    EXPECT(m, "k", "999");
    close_manager(m);
    m = open_default();
    EXPECT(m, "k", "999");
    close_manager(m);
}

TEST(put_then_delete_ends_deleted_and_delete_then_put_ends_present) {
    manager_t *m = open_default();
    put_one(m, "x", "old");
    put_one(m, "y", "old");
    batch_t *b = new_batch(m, 10);
    add_put(b, "x", "new");
    add_delete(b, "x");
    add_delete(b, "y");
    add_put(b, "y", "new");
    run(b);
    EXPECT_MISS(m, "x");
    EXPECT(m, "y", "new");
    close_manager(m);
    m = open_default();
    EXPECT_MISS(m, "x");
    EXPECT(m, "y", "new");
    close_manager(m);
}

TEST(a_get_sees_every_batch_submitted_before_its_own) {
    manager_t *m = open_default();
    for (int i = 0; i < 200; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        batch_t *w = new_batch(m, 2), *r = new_batch(m, 2);
        probe_t p[2] = {0};
        add_put(w, "a", value);
        add_put(w, "b", value);
        add_get(r, "a", &p[0]);
        add_get(r, "b", &p[1]);
        submit(w); /* nobody waits for it */
        CHECK_OK(run_code(r));
        SAW(p[0], value);
        SAW(p[1], value);
        kv_async_batch_destroy(w);
        kv_async_batch_destroy(r);
    }
    close_manager(m);
}

/* A batch of reads may look as late as it likes, but at one moment. */
TEST(a_get_sees_the_state_before_or_after_a_later_batch) {
    manager_t *m = open_default();
    put_one(m, "k", "start");
    for (int i = 0; i < 200; i++) {
        char before[16], after[16];
        snprintf(before, sizeof before, i ? "%d" : "start", i - 1);
        snprintf(after, sizeof after, "%d", i);
        batch_t *w = new_batch(m, 1), *r = new_batch(m, 1);
        probe_t p = {0};
        add_get(r, "k", &p);
        add_put(w, "k", after);
        submit(r);
        submit(w);
        CHECK_OK(kv_async_batch_wait(w, FOREVER));
        CHECK_OK(kv_async_batch_wait(r, FOREVER));
        CHECK_CODE(p.result, KV_SUCCESS);
        CHECK(strcmp(p.value, before) == 0 || strcmp(p.value, after) == 0);
        kv_async_batch_destroy(w);
        kv_async_batch_destroy(r);
    }
    close_manager(m);
}

/* Batches of reads may go ahead of writes of other keys. All the same, what each of them reads is the state after some batch that
 * was not submitted before its turn, and never a mixture. */
TEST(reads_fit_in_where_they_were_submitted_or_later) {
    enum { KEYS = 12, STEPS = 600, AT_ONCE = 40, READS = 3 };
    static int state[STEPS + 1][KEYS]; /* after so many writing batches: who wrote the key last */
    struct { batch_t *batch; int from, keys[READS]; probe_t p[READS]; } slots[AT_ONCE] = {0}, *slot;
    manager_t *m = open_default();
    unsigned random = 1;
    int writes = 0, reads_done = 0;
    char key[16], value[16];
    for (int step = 0; step < STEPS + AT_ONCE; step++) {
        slot = &slots[step % AT_ONCE];
        if (slot->batch) {
            CHECK_OK(kv_async_batch_wait(slot->batch, FOREVER));
            kv_async_batch_destroy(slot->batch);
            int fits = slot->from < 0; /* a batch that wrote */
            for (int at = slot->from; at <= writes && !fits; at++) {
                fits = 1;
                for (int i = 0; i < READS; i++) {
                    int wrote = state[at][slot->keys[i]];
                    snprintf(value, sizeof value, "%d", wrote);
                    fits &= wrote ? slot->p[i].result == KV_SUCCESS && strcmp(slot->p[i].value, value) == 0
                                  : slot->p[i].result == KV_ERR_KEY_NOT_FOUND;
                }
            }
            CHECK(fits);
            reads_done += slot->from >= 0;
        }
        memset(slot, 0, sizeof *slot);
        if (step >= STEPS) continue;
        slot->batch = new_batch(m, KEYS);
        int is_read = (random = random * 1103515245 + 12345) >> 16 & 1;
        slot->from = is_read ? writes : -1;
        if (!is_read) {
            writes++;
            memcpy(state[writes], state[writes - 1], sizeof state[0]);
        }
        for (int i = 0; i < READS; i++) {
            int k = (int)(((random = random * 1103515245 + 12345) >> 16) % KEYS);
            snprintf(key, sizeof key, "k%d", k);
            snprintf(value, sizeof value, "%d", writes);
            slot->keys[i] = k;
            if (is_read) add_get(slot->batch, key, &slot->p[i]);
            else add_put(slot->batch, key, value);
            if (!is_read) state[writes][k] = writes;
        }
        submit(slot->batch);
    }
    CHECK(reads_done > STEPS / 4 && reads_done < STEPS * 3 / 4);
    close_manager(m);
}

TEST(overlapping_submits_end_with_the_last_submitted) {
    manager_t *m = open_default();
    enum { N = 50 };
    batch_t *b[N];
    for (int round = 0; round < 10; round++) {
        char value[32];
        for (int i = 0; i < N; i++) {
            b[i] = new_batch(m, 2);
            snprintf(value, sizeof value, "%d.%d", round, i);
            if (i % 5 == 3) add_delete(b[i], "k");
            else add_put(b[i], "k", value);
            add_put(b[i], "same", value);
            submit(b[i]);
        }
        for (int i = N - 1; i >= 0; i--) {
            CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
            kv_async_batch_destroy(b[i]);
        }
        EXPECT(m, "k", value);
        EXPECT(m, "same", value);
    }
    close_manager(m);
}

TEST(a_chain_of_reads_and_writes_in_one_go) {
    manager_t *m = open_default();
    enum { N = 60 };
    batch_t *b[N];
    static probe_t p[N];
    for (int i = 0; i < N; i++) { /* each batch reads what the one before wrote, then writes; all submitted at once */
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        b[i] = new_batch(m, 2);
        add_get(b[i], "chain", &p[i]);
        add_put(b[i], "chain", value);
        submit(b[i]);
    }
    for (int i = 0; i < N; i++) {
        char before[16];
        snprintf(before, sizeof before, "%d", i - 1);
        CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
        if (i) SAW(p[i], before);
        else MISSED(p[0]);
        kv_async_batch_destroy(b[i]);
    }
    close_manager(m);
}

/* ---- never half a batch: writers set all keys to one number, readers must see one number ---- */
enum { WIDTH = 40 };
static manager_t *shared;
static atomic_int stop_readers;
static atomic_long reads;

static void *write_rows(void *arg) {
    long from = (long)arg;
    for (long n = 0; n < 300; n++) {
        char key[16], value[32];
        snprintf(value, sizeof value, "%ld", from + n);
        batch_t *b = new_batch(shared, 2 * WIDTH);
        for (int i = 0; i < WIDTH; i++) {
            snprintf(key, sizeof key, "w%02d", i);
            if (n % 7 == 6) add_delete(b, key); /* now and then all of them go at once */
            else add_put(b, key, value);
        }
        run(b);
    }
    return NULL;
}

static void *read_rows(void *unused) {
    UNUSED(unused);
    probe_t *p = calloc(WIDTH, sizeof *p);
    CHECK(p != NULL);
    while (!stop_readers) {
        memset(p, 0, WIDTH * sizeof *p);
        batch_t *b = new_batch(shared, WIDTH);
        for (int i = 0; i < WIDTH; i++) {
            char key[16];
            snprintf(key, sizeof key, "w%02d", i * 7 % WIDTH);
            add_get(b, key, &p[i]);
        }
        run(b);
        for (int i = 1; i < WIDTH; i++) {
            CHECK_CODE(p[i].result, p[0].result);
            CHECK_EQ_STR(p[i].value, p[0].value);
        }
        atomic_fetch_add(&reads, 1);
    }
    free(p);
    return NULL;
}

static void never_half_a_batch(config_t c) {
    shared = open_with(&c);
    pthread_t writers[2], readers[2];
    for (int i = 0; i < 2; i++) readers[i] = thread_start(read_rows, NULL);
    for (long i = 0; i < 2; i++) writers[i] = thread_start(write_rows, (void *)(i * 1000));
    for (int i = 0; i < 2; i++) thread_join(writers[i]);
    stop_readers = 1;
    for (int i = 0; i < 2; i++) thread_join(readers[i]);
    CHECK(reads > 0);
    close_manager(shared);
}

TEST(readers_never_see_half_a_batch) { never_half_a_batch(kvt_config()); }

TEST(readers_never_see_half_a_batch_without_fsync) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    never_half_a_batch(c);
}

TEST(readers_never_see_half_a_batch_in_memory) {
    setenv("KVBATCH_STORE", "memory:", 1);
    never_half_a_batch(kvt_config());
}

/* A reader that saw a value never sees an older one afterwards. */
static void *count_up(void *unused) {
    UNUSED(unused);
    for (int n = 1; n <= 1500; n++) {
        char value[16];
        snprintf(value, sizeof value, "%d", n);
        put_one(shared, "counter", value);
    }
    stop_readers = 1;
    return NULL;
}

static void *watch_counter(void *unused) {
    UNUSED(unused);
    long last = 0;
    while (!stop_readers) {
        char *value = get_one(shared, "counter");
        long now = value ? atol(value) : 0;
        CHECK(now >= last);
        last = now;
        free(value);
        atomic_fetch_add(&reads, 1);
    }
    return NULL;
}

TEST(a_reader_never_goes_back_in_time) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    shared = open_with(&c);
    pthread_t t[3];
    for (int i = 0; i < 2; i++) t[i] = thread_start(watch_counter, NULL);
    t[2] = thread_start(count_up, NULL);
    for (int i = 0; i < 3; i++) thread_join(t[i]);
    EXPECT(shared, "counter", "1500");
    close_manager(shared);
}

/* A batch that reads and writes is one step: its reads see the moment right before its writes. */
static void *increment(void *name) {
    for (int n = 0; n < 200; n++) {
        probe_t a = {0}, b = {0};
        batch_t *batch = new_batch(shared, 4);
        add_get(batch, "left", &a);
        add_get(batch, "right", &b);
        char value[32];
        snprintf(value, sizeof value, "%s-%d", (char *)name, n);
        add_put(batch, "left", value);
        add_put(batch, "right", value);
        run(batch);
        CHECK_CODE(a.result, b.result);
        CHECK_EQ_STR(a.value, b.value);
    }
    return NULL;
}

TEST(reads_of_a_writing_batch_are_one_snapshot) {
    shared = open_default();
    pthread_t t[4];
    static const char *const names[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) t[i] = thread_start(increment, (void *)names[i]);
    for (int i = 0; i < 4; i++) thread_join(t[i]);
    close_manager(shared);
}
