/* test_snippets.c: the code of the documentation, word for word (snippets/ holds it), compiles as it stands and does what it says. Its
 * variables die before the batch runs, in places: KV_CFLAGS="-fsanitize=address -fsanitize-address-use-after-scope" watches that. */
#include "snippets/quick_start_1_headers.inc"

#include "kvtest.h"

/* The documented types and prototypes, again: a header that declares them otherwise does not compile here. */
#include "snippets/callback_types.inc"
#include "snippets/prototypes.inc"

/* What the snippets leave to their reader. */
static atomic_int batches_done, ops_done, gets_found;
static atomic_size_t completed_total, failed_total;
static gate_t done = GATE_INIT;

static void batch_complete_callback(batch_t *ctx, size_t completed, size_t failed, void *user_data) {
    CHECK(ctx != NULL);
    CHECK(user_data == NULL || strcmp(user_data, "of the batch") == 0);
    atomic_fetch_add(&completed_total, completed);
    atomic_fetch_add(&failed_total, failed);
    atomic_fetch_add(&batches_done, 1);
    gate_open(&done);
}
#define batch_callback batch_complete_callback

static void callback(op_t *op, int result, void *user_data) {
    CHECK_CODE(result, KV_SUCCESS);
    CHECK(user_data == NULL || strcmp(user_data, "of the operation") == 0);
    CHECK(op->key != NULL);
    atomic_fetch_add(&ops_done, 1);
}

static void get_callback(op_t *op, int result, void *user_data) {
    CHECK(user_data == NULL);
    CHECK_EQ_INT(op->op_type, KV_ASYNC_BATCH_GET);
    if (result == KV_SUCCESS) {
        CHECK_EQ_MEM(op->value, op->value_len, op->key, op->key_len); /* this test stores each user under his own name */
        atomic_fetch_add(&gets_found, 1);
    } else {
        CHECK_CODE(result, KV_ERR_KEY_NOT_FOUND);
    }
    atomic_fetch_add(&ops_done, 1);
}

TEST(quick_start) {
    void *user_data = "of the operation", *batch_user_data = "of the batch";
#include "snippets/quick_start_2_manager.inc"
#include "snippets/quick_start_3_batch.inc"
#include "snippets/quick_start_4_add.inc"
#include "snippets/quick_start_5_submit.inc"
    CHECK_EQ_INT(ops_done, 3);
    CHECK_EQ_INT(batches_done, 1);
    CHECK_EQ_INT(completed_total, 3);
    CHECK_EQ_INT(failed_total, 0);
    CHECK_EQ_MEM(value, value_len, "{\"name\":\"张三\"}", 15); /* 15, though the literal has 17 bytes: the caller's word counts */
    CHECK_EQ_INT(value[15], 0);
    CHECK_EQ_INT(kv_async_batch_get_status(ctx), ST_COMPLETED);
    EXPECT_MISS(manager, "user_1");
#include "snippets/quick_start_6_clean_up.inc"
}

TEST(quick_start_stores_what_is_not_deleted) {
    void *user_data = NULL, *batch_user_data = NULL;
#include "snippets/quick_start_2_manager.inc"
#include "snippets/quick_start_3_batch.inc"
    kv_async_batch_put(ctx, "user_1", 6, "{\"name\":\"张三\"}", 15, callback, user_data);
#include "snippets/quick_start_5_submit.inc"
#include "snippets/quick_start_6_clean_up.inc"
    manager = open_default();
    size_t len;
    char *seen = get_mem(manager, "user_1", 6, &len);
    CHECK_EQ_MEM(seen, len, "{\"name\":\"张三\"}", 15);
    free(seen);
    close_manager(manager);
}

TEST(scenario_1_frequent_writes) {
    manager_t *manager = open_default();
    batch_t *ctx = new_batch(manager, 1000);
    time_t begin = time(NULL);
#include "snippets/scenario_1_write.inc"
    time_t end = time(NULL);
    gate_wait(&done, 1);
    CHECK_EQ_INT(completed_total, 1000);
    CHECK_EQ_INT(failed_total, 0);
    kv_async_batch_destroy(ctx);
    close_manager(manager);
    manager = open_default();
    for (int i = 0; i < 1000; i++) {
        int found = 0;
        for (time_t t = begin; t <= end; t++) {
            char key[64];
            snprintf(key, sizeof key, "metric_%ld_%d", t, i);
            char *value = get_one(manager, key);
            long stamp;
            int number;
            if (value && sscanf(value, "{\"timestamp\":%ld,\"value\":%d}", &stamp, &number) == 2 && stamp >= begin && stamp <= end) found++;
            free(value);
        }
        CHECK_EQ_INT(found, 1);
    }
    close_manager(manager);
}

/* Fills the stack that the dead variables of the loop lay on, so that a stray write shows. */
static __attribute__((noinline)) void stack_canary(unsigned char *area, size_t n, int check) {
    if (!check) memset(area, 0x5a, n);
    else for (size_t i = 0; i < n; i++) CHECK_EQ_INT(area[i], 0x5a);
}

static __attribute__((noinline)) void scenario_2(batch_t *ctx) {
#include "snippets/scenario_2_read.inc"
}

TEST(scenario_2_many_reads) {
    manager_t *manager = open_default();
    batch_t *users = new_batch(manager, 60);
    for (int i = 0; i < 60; i++) {
        char key[32];
        snprintf(key, sizeof key, "user_%d", i);
        add_put(users, key, key);
    }
    run(users);
    batch_t *ctx = new_batch(manager, 100);
    scenario_2(ctx); /* its variables are gone now, the batch may still be running */
    unsigned char area[8192];
    stack_canary(area, sizeof area, 0);
    gate_wait(&done, 1);
    CHECK_OK(kv_async_batch_wait(ctx, 5000));
    stack_canary(area, sizeof area, 1);
    CHECK_EQ_INT(ops_done, 100);
    CHECK_EQ_INT(gets_found, 60);
    CHECK_EQ_INT(completed_total, 100); /* a miss is completed */
    CHECK_EQ_INT(failed_total, 0);
    kv_async_batch_destroy(ctx);
    close_manager(manager);
}

TEST(scenario_3_many_deletes) {
    manager_t *manager = open_default();
    put_one(manager, "expired_1", "old");
    put_one(manager, "expired_3", "old");
    put_one(manager, "expired_4", "stays");
    batch_t *ctx = new_batch(manager, 10);
    {
#include "snippets/scenario_3_delete.inc"
    }
    gate_wait(&done, 1);
    CHECK_EQ_INT(completed_total, 3);
    kv_async_batch_destroy(ctx);
    close_manager(manager);
    manager = open_default();
    EXPECT_MISS(manager, "expired_1");
    EXPECT_MISS(manager, "expired_2");
    EXPECT_MISS(manager, "expired_3");
    EXPECT(manager, "expired_4", "stays");
    close_manager(manager);
}

TEST(the_batch_full_pattern) {
    config_t config = counting_config();
    manager_t *manager = open_with(&config);
    size_t max_batch_size = 10;
    batch_t *ctx = kv_async_batch_create(manager, max_batch_size);
    CHECK(ctx != NULL);
    void *user_data = NULL;
    for (int i = 0; i < 95; i++) {
        char key[32], value[32];
        size_t key_len = (size_t)snprintf(key, sizeof key, "key %d", i);
        size_t value_len = (size_t)snprintf(value, sizeof value, "value %d", i);
#include "snippets/batch_full.inc"
    }
    CHECK_EQ_INT(batches_done, 9);
    kv_async_batch_submit(ctx, batch_callback, NULL);
    CHECK_OK(kv_async_batch_wait(ctx, FOREVER));
    CHECK_EQ_INT(batches_done, 10);
    CHECK_EQ_INT(ops_done, 95);
    CHECK_EQ_INT(completed_total, 95);
    CHECK(alloc_live > 0); /* the pattern drops its old contexts */
    kv_async_batch_manager_stop(manager);
    kv_async_batch_manager_destroy(manager);
    CHECK_EQ_INT(alloc_live, 0); /* the manager has taken them along */
    manager = open_default();
    for (int i = 0; i < 95; i++) {
        char key[32], value[32];
        snprintf(key, sizeof key, "key %d", i);
        snprintf(value, sizeof value, "value %d", i);
        EXPECT(manager, key, value);
    }
    close_manager(manager);
}
