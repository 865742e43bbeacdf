/* test_put_get_delete.c: what is put is there, byte for byte; what is deleted is not. */
#include "kvtest.h"

TEST(put_then_get) {
    manager_t *m = open_default();
    put_one(m, "name", "value");
    EXPECT(m, "name", "value");
    close_manager(m);
}

TEST(get_of_nothing_is_a_miss) {
    manager_t *m = open_default();
    probe_t p = {0};
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 1);
    add_get(b, "nobody", &p);
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    CHECK_OK(kv_async_batch_wait(b, FOREVER)); /* a miss is no failure */
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_COMPLETED);
    CHECK_EQ_INT(p.calls, 1);
    CHECK_CODE(p.result, KV_ERR_KEY_NOT_FOUND);
    CHECK_CODE(p.stored_result, KV_ERR_KEY_NOT_FOUND);
    CHECK_EQ_INT(done.completed, 1);
    CHECK_EQ_INT(done.failed, 0);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(overwriting_keeps_the_last) {
    manager_t *m = open_default();
    put_one(m, "k", "first");
    put_one(m, "k", "second, longer than the first");
    EXPECT(m, "k", "second, longer than the first");
    put_one(m, "k", "3");
    EXPECT(m, "k", "3");
    close_manager(m);
}

TEST(delete_removes) {
    manager_t *m = open_default();
    put_one(m, "k", "v");
    put_one(m, "other", "stays");
    delete_one(m, "k");
    EXPECT_MISS(m, "k");
    EXPECT(m, "other", "stays");
    put_one(m, "k", "again");
    EXPECT(m, "k", "again");
    close_manager(m);
}

TEST(deleting_what_is_not_there_succeeds) {
    manager_t *m = open_default();
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_delete(b, "nobody", 6, on_op, &p));
    run(b);
    CHECK_CODE(p.result, KV_SUCCESS);
    EXPECT_MISS(m, "nobody");
    delete_one(m, "nobody");
    close_manager(m);
}

TEST(an_empty_value_is_a_value) {
    manager_t *m = open_default();
    put_mem(m, "empty", 5, "", 0);
    size_t len = 99;
    char *value = get_mem(m, "empty", 5, &len);
    CHECK(value != NULL);
    CHECK_EQ_INT(len, 0);
    CHECK_EQ_INT(value[0], 0);
    free(value);
    close_manager(m);
    m = open_default(); /* and after a reopening, too */
    value = get_mem(m, "empty", 5, &len);
    CHECK(value != NULL && len == 0);
    free(value);
    close_manager(m);
}

TEST(keys_and_values_hold_any_byte) {
    manager_t *m = open_default();
    char key[256], value[512];
    for (int i = 0; i < 256; i++) key[i] = (char)i;
    for (int i = 0; i < 512; i++) value[i] = (char)(255 - i);
    put_mem(m, key, 256, value, 512);
    put_mem(m, "a\0b", 3, "x\0y", 3);
    put_mem(m, "a\0c", 3, "other", 5);
    put_mem(m, "\0", 1, "zero", 4);
    size_t len;
    char *seen = get_mem(m, key, 256, &len);
    CHECK_EQ_MEM(seen, len, value, 512);
    free(seen);
    seen = get_mem(m, "a\0b", 3, &len);
    CHECK_EQ_MEM(seen, len, "x\0y", 3);
    free(seen);
    seen = get_mem(m, "\0", 1, &len);
    CHECK_EQ_MEM(seen, len, "zero", 4);
    free(seen);
    CHECK(get_mem(m, "a", 1, NULL) == NULL);
    CHECK(get_mem(m, "\0\0", 2, NULL) == NULL);
    close_manager(m);
}

TEST(a_key_is_not_its_prefix) {
    manager_t *m = open_default();
    put_one(m, "abc", "3");
    put_one(m, "ab", "2");
    EXPECT(m, "abc", "3");
    EXPECT(m, "ab", "2");
    EXPECT_MISS(m, "a");
    EXPECT_MISS(m, "abcd");
    delete_one(m, "ab");
    EXPECT(m, "abc", "3");
    close_manager(m);
}

TEST(keys_of_every_length_up_to_300_and_at_the_limit) {
    manager_t *m = open_default();
    char *key = malloc(65536);
    CHECK(key != NULL);
    memset(key, 'k', 65536);
    batch_t *b = new_batch(m, 400);
    for (size_t n = 1; n <= 300; n++) CHECK_OK(kv_async_batch_put(b, key, n, (char *)&n, sizeof n, NULL, NULL));
    for (size_t n = 65530; n <= 65535; n++) CHECK_OK(kv_async_batch_put(b, key, n, (char *)&n, sizeof n, NULL, NULL));
    run(b);
    for (int reopened = 0; reopened < 2; reopened++) {
        for (size_t n = 1; n <= 65535; n = n == 300 ? 65530 : n + 1) {
            size_t len;
            char *seen = get_mem(m, key, n, &len);
            CHECK_EQ_MEM(seen, len, &n, sizeof n);
            free(seen);
        }
        CHECK(get_mem(m, key, 301, NULL) == NULL);
        close_manager(m);
        m = open_default();
    }
    close_manager(m);
    free(key);
}

TEST(values_of_many_sizes) {
    static const size_t sizes[] = {0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 257, 4031, 4032, 4095, 4096, 4097, 8191, 8192,
                                   16383, 16384, 65535, 65536, 65537, 131071, 131072, 1048575, 1048576, 1048577, 3000001};
    enum { N = sizeof sizes / sizeof sizes[0] };
    char *bytes = malloc(3000001);
    CHECK(bytes != NULL);
    uint64_t seed = 1;
    for (size_t i = 0; i < 3000001; i++) bytes[i] = (char)next_random(&seed);
    manager_t *m = open_default();
    batch_t *b = new_batch(m, N);
    for (size_t i = 0; i < N; i++) {
        char key[32];
        snprintf(key, sizeof key, "size %zu", sizes[i]);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), bytes + i, sizes[i] ? sizes[i] - (i == N - 1 ? N : 0) : 0, NULL, NULL));
    }
    run(b);
    for (int reopened = 0; reopened < 2; reopened++) {
        for (size_t i = 0; i < N; i++) {
            char key[32];
            size_t len;
            snprintf(key, sizeof key, "size %zu", sizes[i]);
            char *seen = get_mem(m, key, strlen(key), &len);
            CHECK_EQ_MEM(seen, len, bytes + i, sizes[i] ? sizes[i] - (i == N - 1 ? N : 0) : 0);
            free(seen);
        }
        close_manager(m);
        m = open_default();
    }
    close_manager(m);
    free(bytes);
}

static void huge_round_trip(size_t size) {
    config_t c = kvt_config();
    c.max_memory_usage = size + (1 << 20);
    manager_t *m = open_with(&c);
    char *bytes = malloc(size);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < size; i += 8) memcpy(bytes + i, &i, size - i < 8 ? size - i : 8);
    put_one(m, "before", "1");
    put_mem(m, "huge", 4, bytes, size);
    put_one(m, "after", "2");
    for (int reopened = 0; reopened < 2; reopened++) {
        size_t len;
        char *seen = get_mem(m, "huge", 4, &len);
        CHECK_EQ_INT(len, size);
        CHECK(memcmp(seen, bytes, size) == 0);
        free(seen);
        EXPECT(m, "before", "1");
        EXPECT(m, "after", "2");
        close_manager(m);
        m = open_with(&c);
    }
    close_manager(m);
    free(bytes);
}

TEST(a_value_of_20_mib) { huge_round_trip(20 << 20); }
SLOW_TEST(a_value_larger_than_a_chunk) { huge_round_trip(100 << 20); }
SLOW_TEST(a_value_of_512_mib_the_largest) { huge_round_trip((size_t)512 << 20); }

TEST(adding_copies_so_that_buffers_may_be_reused_at_once) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 100);
    char key[32], value[32];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "key%02d", i);
        snprintf(value, sizeof value, "value%02d", i);
        CHECK_OK(kv_async_batch_put(b, key, 5, value, 7, NULL, NULL));
        memset(key, '#', sizeof key);
        memset(value, '#', sizeof value);
    }
    run(b);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "key%02d", i);
        snprintf(value, sizeof value, "value%02d", i);
        EXPECT(m, key, value);
    }
    close_manager(m);
}

TEST(a_batch_of_5000) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 5000);
    char key[32], value[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "user_%d", i);
        snprintf(value, sizeof value, "v%d", i * 7);
        add_put(b, key, value);
    }
    run(b);
    static probe_t probes[5000];
    b = new_batch(m, 5000);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "user_%d", i);
        add_get(b, key, &probes[i]);
    }
    run(b);
    for (int i = 0; i < 5000; i++) {
        snprintf(value, sizeof value, "v%d", i * 7);
        CHECK_EQ_INT(probes[i].calls, 1);
        CHECK_CODE(probes[i].result, KV_SUCCESS);
        CHECK_EQ_STR(probes[i].value, value);
    }
    close_manager(m);
}

SLOW_TEST(a_batch_of_the_largest_size) {
    config_t c = kvt_config();
    c.max_memory_usage = (size_t)1 << 30;
    manager_t *m = open_with(&c);
    batch_t *b = new_batch(m, KV_ASYNC_BATCH_MAX_SIZE);
    char key[32];
    atomic_int calls = 0;
    for (int i = 0; i < KV_ASYNC_BATCH_MAX_SIZE; i++) {
        int n = snprintf(key, sizeof key, "%d", i);
        CHECK_OK(kv_async_batch_put(b, key, (size_t)n, key, (size_t)n, on_op_count, &calls));
    }
    CHECK_ERR(kv_async_batch_put(b, "x", 1, "x", 1, NULL, NULL), KV_ERR_BATCH_FULL);
    run(b);
    CHECK_EQ_INT(calls, KV_ASYNC_BATCH_MAX_SIZE);
    for (int i = 0; i < KV_ASYNC_BATCH_MAX_SIZE; i += 9973) {
        snprintf(key, sizeof key, "%d", i);
        EXPECT(m, key, key);
    }
    close_manager(m);
}

TEST(one_batch_may_mix_everything) {
    manager_t *m = open_default();
    put_one(m, "old", "1");
    put_one(m, "doomed", "2");
    probe_t get = {0}, miss = {0}, put = {0}, del = {0};
    batch_t *b = new_batch(m, 4);
    CHECK_OK(kv_async_batch_get(b, "old", 3, NULL, NULL, on_op, &get));
    CHECK_OK(kv_async_batch_put(b, "new", 3, "3", 1, on_op, &put));
    CHECK_OK(kv_async_batch_delete(b, "doomed", 6, on_op, &del));
    CHECK_OK(kv_async_batch_get(b, "never", 5, NULL, NULL, on_op, &miss));
    run(b);
    CHECK_EQ_STR(get.value, "1");
    CHECK_CODE(put.result, KV_SUCCESS);
    CHECK_CODE(del.result, KV_SUCCESS);
    CHECK_CODE(miss.result, KV_ERR_KEY_NOT_FOUND);
    EXPECT(m, "new", "3");
    EXPECT_MISS(m, "doomed");
    close_manager(m);
}

/* Random batches against an array that knows what must be there; the store is reopened now and then. */
static void against_a_model(config_t c, uint64_t seed, int batches) {
    enum { KEYS = 300 };
    static char model[KEYS][64];
    static probe_t probes[64];
    static char wanted[64][64];
    memset(model, 0, sizeof model);
    manager_t *m = open_with(&c);
    for (int round = 0; round < batches; round++) {
        if (next_random(&seed) % 40 == 0) {
            close_manager(m);
            m = open_with(&c);
        }
        size_t n = 1 + next_random(&seed) % 64;
        batch_t *b = new_batch(m, n);
        memset(probes, 0, sizeof probes);
        for (size_t i = 0; i < n; i++) {
            size_t k = next_random(&seed) % KEYS;
            char key[32];
            snprintf(key, sizeof key, "key-%zu", k);
            wanted[i][0] = 1; /* not a read */
            switch (next_random(&seed) % 4) {
            case 0:
            case 1:
                snprintf(model[k], sizeof model[k], "%d:%zu:%.*s", round, i, (int)(next_random(&seed) % 30),
                         "abcdefghijklmnopqrstuvwxyzabcd");
                CHECK_OK(kv_async_batch_put(b, key, strlen(key), model[k], strlen(model[k]), on_op, &probes[i]));
                break;
            case 2:
                model[k][0] = 0;
                CHECK_OK(kv_async_batch_delete(b, key, strlen(key), on_op, &probes[i]));
                break;
            default:
                strcpy(wanted[i], model[k]);
                add_get(b, key, &probes[i]);
            }
        }
        run(b);
        for (size_t i = 0; i < n; i++) {
            CHECK_EQ_INT(probes[i].calls, 1);
            if (wanted[i][0] == 1) {
                CHECK_CODE(probes[i].result, KV_SUCCESS);
            } else if (wanted[i][0] == 0) {
                CHECK_CODE(probes[i].result, KV_ERR_KEY_NOT_FOUND);
            } else {
                CHECK_CODE(probes[i].result, KV_SUCCESS);
                CHECK_EQ_STR(probes[i].value, wanted[i]);
            }
        }
    }
    for (size_t k = 0; k < KEYS; k++) {
        char key[32];
        snprintf(key, sizeof key, "key-%zu", k);
        EXPECT(m, key, model[k][0] ? model[k] : NULL);
    }
    close_manager(m);
}

TEST(random_batches_agree_with_a_model) { against_a_model(kvt_config(), 42, 200); }

TEST(random_batches_agree_with_a_model_without_fsync_and_deduplication) {
    config_t c = kvt_config();
    c.enable_batch_fsync = c.enable_deduplication = c.enable_sorting = c.enable_prefetching = false;
    against_a_model(c, 43, 400);
}

TEST(random_batches_agree_with_a_model_with_compression_and_fail_fast) {
    config_t c = kvt_config();
    c.enable_compression = c.fail_fast = true;
    against_a_model(c, 44, 200);
}

TEST(random_batches_agree_with_a_model_in_memory) {
    setenv("KVBATCH_STORE", "memory:model", 1);
    manager_t *keeper = open_default(); /* so that reopening finds the data */
    against_a_model(kvt_config(), 45, 400);
    close_manager(keeper);
}

SLOW_TEST(random_batches_agree_with_a_model_for_long) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    c.enable_compression = true;
    against_a_model(c, 46, 20000);
}

SLOW_TEST(two_hundred_thousand_keys_survive_a_reopening) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    manager_t *m = open_with(&c);
    char key[32], value[32];
    for (int i = 0; i < 200; i++) {
        batch_t *b = new_batch(m, 1000);
        for (int k = 0; k < 1000; k++) {
            snprintf(key, sizeof key, "key:%d", i * 1000 + k);
            snprintf(value, sizeof value, "%d", (i * 1000 + k) * 3);
            add_put(b, key, value);
        }
        run(b);
    }
    close_manager(m);
    m = open_with(&c);
    static probe_t probes[1000];
    for (int i = 0; i < 200; i++) {
        memset(probes, 0, sizeof probes);
        batch_t *b = new_batch(m, 1000);
        for (int k = 0; k < 1000; k++) {
            snprintf(key, sizeof key, "key:%d", i * 1000 + k);
            add_get(b, key, &probes[k]);
        }
        run(b);
        for (int k = 0; k < 1000; k++) {
            snprintf(value, sizeof value, "%d", (i * 1000 + k) * 3);
            CHECK_EQ_STR(probes[k].value, value);
        }
    }
    close_manager(m);
}
