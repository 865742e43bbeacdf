/*
 * kvbatch.c: this library, in the comparison with others. Called by peers.c.
 */
#define _GNU_SOURCE
#include "peer.h"

#include "kvserver/kv_async_batch_io.h"

#include <stdlib.h>

enum { PATIENCE_MS = 60000 };

static void must(int code)
{
    if (code != KV_SUCCESS)
        peer_fail("kvbatch", kv_get_last_error()->message);
}

static void *open_store(const char *path, int sync, size_t expected)
{
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.max_batch_size = PEER_BATCH_MAX;
    config.enable_batch_fsync = sync;
    (void)expected;
    setenv("KVBATCH_STORE", path, 1);
    kv_async_batch_manager_t *manager = kv_async_batch_manager_create(&config);
    if (manager == NULL)
        peer_fail("kvbatch", kv_get_last_error()->message);
    must(kv_async_batch_manager_start(manager));
    return manager;
}

static void close_store(void *store)
{
    must(kv_async_batch_manager_stop(store));
    kv_async_batch_manager_destroy(store);
}

static kv_async_batch_context_t *begin(void *session, size_t count)
{
    kv_async_batch_context_t *batch = kv_async_batch_create(session, count);
    if (batch == NULL)
        peer_fail("kvbatch", kv_get_last_error()->message);
    return batch;
}

static void put(void *session, const size_t *which, size_t count)
{
    kv_async_batch_context_t *batch = begin(session, count);
    for (size_t i = 0; i < count; i++)
        must(kv_async_batch_put(batch, peer_key(which[i]), PEER_KEY_BYTES, peer_value(which[i]), peer_value_bytes, NULL, NULL));
    must(kv_async_batch_submit(batch, NULL, NULL));
    must(kv_async_batch_wait(batch, PATIENCE_MS));
    kv_async_batch_destroy(batch);
}

static size_t get(void *session, const size_t *which, size_t count)
{
    char *values[PEER_BATCH_MAX] = {NULL};
    size_t lens[PEER_BATCH_MAX] = {0}, right = 0;
    kv_async_batch_context_t *batch = begin(session, count);
    for (size_t i = 0; i < count; i++)
        must(kv_async_batch_get(batch, peer_key(which[i]), PEER_KEY_BYTES, &values[i], &lens[i], NULL, NULL));
    must(kv_async_batch_submit(batch, NULL, NULL));
    must(kv_async_batch_wait(batch, PATIENCE_MS));
    for (size_t i = 0; i < count; i++)
        right += peer_is_right(values[i], lens[i], which[i]);
    kv_async_batch_destroy(batch);
    return right;
}

const struct peer peer_kvbatch = {
    .name = "kvbatch", .set_up = "defaults", .open = open_store, .close = close_store, .put = put, .get = get};
