/*
 * quickstart.c: put, get and delete in batches, with every return code looked at.
 *
 *   cc -Iinclude examples-c/quickstart.c -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o quickstart
 *   ./quickstart [STORE]
 *
 * STORE is a directory (made if missing) or "memory:"; without it the environment variable KVBATCH_STORE decides,
 * else ./kvbatch-data.
 */
#define _GNU_SOURCE
#include "kvserver/kv_async_batch_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int code, const char *what)
{
    if (code != KV_SUCCESS) {
        fprintf(stderr, "%s: %s: %s\n", what, kv_get_error_name(code), kv_get_last_error()->message);
        exit(1);
    }
}

/* Runs once per operation, in the order of the batch, in a thread of the library or in the one that waits. */
static void on_operation(kv_async_batch_operation_t *op, int result, void *user_data)
{
    (void)user_data;
    printf("  %-6s %-6.*s %s", kv_async_batch_op_name(op->op_type), (int)op->key_len, op->key, kv_get_error_name(result));
    if (op->op_type == KV_ASYNC_BATCH_GET && result == KV_SUCCESS)
        printf("  value: %.*s", (int)op->value_len, op->value);
    printf("\n");
}

/* Runs once per batch, after the last operation's callback. */
static void on_batch(kv_async_batch_context_t *batch, size_t completed, size_t failed, void *user_data)
{
    (void)batch;
    printf("%s: %zu completed, %zu failed\n", (const char *)user_data, completed, failed);
}

static kv_async_batch_context_t *new_batch(kv_async_batch_manager_t *manager)
{
    kv_async_batch_context_t *batch = kv_async_batch_create(manager, 100);
    if (batch == NULL) {
        fprintf(stderr, "create a batch: %s\n", kv_get_last_error()->message);
        exit(1);
    }
    return batch;
}

static void put(kv_async_batch_context_t *batch, const char *key, const char *value)
{
    check(kv_async_batch_put(batch, key, strlen(key), value, strlen(value), on_operation, NULL), "put");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        setenv("KVBATCH_STORE", argv[1], 1);

    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.timeout_ms = 5000;
    kv_async_batch_manager_t *manager = kv_async_batch_manager_create(&config);
    if (manager == NULL) {
        fprintf(stderr, "create the manager: %s\n", kv_get_last_error()->message);
        return 1;
    }
    check(kv_async_batch_manager_start(manager), "open the store");

    /* A batch is all or nothing after a crash. By default completion means: on stable storage. */
    kv_async_batch_context_t *batch = new_batch(manager);
    put(batch, "user_1", "{\"name\":\"Ada\"}");
    put(batch, "user_2", "{\"name\":\"Grace\"}");
    put(batch, "user_3", "{\"name\":\"Barbara\"}");
    check(kv_async_batch_submit(batch, on_batch, "stored"), "submit");
    check(kv_async_batch_wait(batch, 5000), "wait");
    kv_async_batch_destroy(batch);

    /* A batch may mix operations; they take effect in the order they were added. */
    batch = new_batch(manager);
    char *value = NULL; /* set by wait; belongs to the batch */
    size_t value_len = 0;
    check(kv_async_batch_get(batch, "user_1", 6, &value, &value_len, on_operation, NULL), "get");
    check(kv_async_batch_delete(batch, "user_2", 6, on_operation, NULL), "delete");
    check(kv_async_batch_get(batch, "user_2", 6, NULL, NULL, on_operation, NULL), "get");
    check(kv_async_batch_submit(batch, on_batch, "read and deleted"), "submit");
    check(kv_async_batch_wait(batch, 5000), "wait");
    int as_stored = value != NULL && value_len == 14 && memcmp(value, "{\"name\":\"Ada\"}", 14) == 0;
    kv_async_batch_destroy(batch);

    check(kv_async_batch_manager_stop(manager), "stop the manager");
    kv_async_batch_manager_destroy(manager);
    printf("user_1 came back %s\n", as_stored ? "as it was stored" : "CHANGED");
    return as_stored ? 0 : 1;
}
