/*
 * leveldb.c: LevelDB, in the comparison with others. Called by peers.c.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <leveldb/c.h>
#include <stdlib.h>

struct store {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter;
    leveldb_writeoptions_t *write;
    leveldb_readoptions_t *read;
};

static void good(char *error)
{
    if (error != NULL)
        peer_fail("LevelDB", error);
}

static void *open_store(const char *path, int sync, size_t expected)
{
    char *error = NULL;
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        peer_fail("LevelDB", "no memory");
    (void)expected;
    store->cache = leveldb_cache_create_lru((size_t)1 << 30);
    store->filter = leveldb_filterpolicy_create_bloom(10);
    store->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(store->options, 1);
    leveldb_options_set_cache(store->options, store->cache);
    leveldb_options_set_filter_policy(store->options, store->filter);
    leveldb_options_set_compression(store->options, leveldb_no_compression);
    leveldb_options_set_write_buffer_size(store->options, (size_t)256 << 20);
    store->write = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(store->write, (unsigned char)sync);
    store->read = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(store->read, 1);
    store->db = leveldb_open(store->options, path, &error);
    good(error);
    return store;
}

static void rest(void *session)
{
    leveldb_compact_range(((struct store *)session)->db, NULL, 0, NULL, 0);
}

static void close_store(void *session)
{
    struct store *store = session;
    leveldb_close(store->db);
    leveldb_writeoptions_destroy(store->write);
    leveldb_readoptions_destroy(store->read);
    leveldb_options_destroy(store->options);
    leveldb_filterpolicy_destroy(store->filter);
    leveldb_cache_destroy(store->cache);
    free(store);
}

static void put(void *session, const size_t *which, size_t count)
{
    struct store *store = session;
    char *error = NULL;
    leveldb_writebatch_t *batch = leveldb_writebatch_create();
    for (size_t i = 0; i < count; i++)
        leveldb_writebatch_put(batch, peer_key(which[i]), PEER_KEY_BYTES, peer_value(which[i]), peer_value_bytes);
    leveldb_write(store->db, store->write, batch, &error);
    good(error);
    leveldb_writebatch_destroy(batch);
}

static size_t get(void *session, const size_t *which, size_t count)
{
    struct store *store = session;
    size_t right = 0;
    for (size_t i = 0; i < count; i++) {
        char *error = NULL;
        size_t len = 0;
        char *value = leveldb_get(store->db, store->read, peer_key(which[i]), PEER_KEY_BYTES, &len, &error);
        good(error);
        right += peer_is_right(value, len, which[i]);
        leveldb_free(value);
    }
    return right;
}

const struct peer peer_leveldb = {
    .name = "LevelDB",
    .set_up = "write buffer of 256 MiB, bloom filter, cache of 1 GiB, no compression; reads after a full compaction, checksums verified",
    .open = open_store,
    .rest = rest,
    .close = close_store,
    .put = put,
    .get = get,
};
