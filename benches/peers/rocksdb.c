/*
 * rocksdb.c: RocksDB, in the comparison with others. Called by peers.c.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <rocksdb/c.h>
#include <stdlib.h>

struct store {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write;
    rocksdb_readoptions_t *read;
    rocksdb_column_family_handle_t *family;
};

static void good(char *error)
{
    if (error != NULL)
        peer_fail("RocksDB", error);
}

static void *open_store(const char *path, int sync, size_t expected)
{
    char *error = NULL;
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        peer_fail("RocksDB", "no memory");
    (void)expected;
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru((size_t)1 << 30));
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_data_block_index_type(table, rocksdb_block_based_table_data_block_index_type_binary_search_and_hash);
    store->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(store->options, 1);
    rocksdb_options_set_block_based_table_factory(store->options, table);
    rocksdb_options_set_compression(store->options, rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(store->options, (size_t)256 << 20);
    rocksdb_options_set_max_write_buffer_number(store->options, 4);
    rocksdb_options_set_max_background_jobs(store->options, 2);
    rocksdb_options_set_enable_pipelined_write(store->options, 1);
    rocksdb_options_set_recycle_log_file_num(store->options, 4);
    rocksdb_options_set_bytes_per_sync(store->options, 1 << 20);
    store->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(store->write, (unsigned char)sync);
    store->read = rocksdb_readoptions_create();
    const char *names[] = {"default"};
    const rocksdb_options_t *options[] = {store->options};
    store->db = rocksdb_open_column_families(store->options, path, 1, names, options, &store->family, &error);
    good(error);
    return store;
}

static void rest(void *session)
{
    struct store *store = session;
    char *error = NULL;
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    rocksdb_flush(store->db, flush, &error);
    good(error);
    rocksdb_flushoptions_destroy(flush);
    rocksdb_compact_range(store->db, NULL, 0, NULL, 0);
}

static void close_store(void *session)
{
    struct store *store = session;
    rocksdb_column_family_handle_destroy(store->family);
    rocksdb_close(store->db);
    rocksdb_writeoptions_destroy(store->write);
    rocksdb_readoptions_destroy(store->read);
    rocksdb_options_destroy(store->options);
    free(store);
}

static void put(void *session, const size_t *which, size_t count)
{
    struct store *store = session;
    char *error = NULL;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (size_t i = 0; i < count; i++)
        rocksdb_writebatch_put(batch, peer_key(which[i]), PEER_KEY_BYTES, peer_value(which[i]), peer_value_bytes);
    rocksdb_write(store->db, store->write, batch, &error);
    good(error);
    rocksdb_writebatch_destroy(batch);
}

static size_t get(void *session, const size_t *which, size_t count)
{
    struct store *store = session;
    const char *keys[PEER_BATCH_MAX] = {NULL};
    size_t lens[PEER_BATCH_MAX] = {0}, right = 0;
    char *errors[PEER_BATCH_MAX] = {NULL};
    rocksdb_pinnableslice_t *values[PEER_BATCH_MAX] = {NULL};
    for (size_t i = 0; i < count; i++) {
        keys[i] = peer_key(which[i]);
        lens[i] = PEER_KEY_BYTES;
    }
    rocksdb_batched_multi_get_cf(store->db, store->read, store->family, count, keys, lens, values, errors, 0);
    for (size_t i = 0; i < count; i++) {
        size_t len = 0;
        good(errors[i]);
        const char *value = values[i] == NULL ? NULL : rocksdb_pinnableslice_value(values[i], &len);
        right += (size_t)peer_is_right(value, len, which[i]);
        rocksdb_pinnableslice_destroy(values[i]);
    }
    return right;
}

const struct peer peer_rocksdb = {
    .name = "RocksDB",
    .set_up = "write buffers of 256 MiB, pipelined writes, recycled logs, bloom filters, hash index in blocks, block cache of 1 GiB, no "
              "compression; reads by batched MultiGet after a flush and a full compaction",
    .open = open_store,
    .rest = rest,
    .close = close_store,
    .put = put,
    .get = get,
};
