/*
 * lmdb.c: LMDB, in the comparison with others. Called by peers.c.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <lmdb.h>
#include <stdlib.h>

struct store {
    MDB_env *env;
    MDB_dbi dbi;
};

static void must(int code)
{
    if (code != MDB_SUCCESS)
        peer_fail("LMDB", mdb_strerror(code));
}

static void *open_store(const char *path, int sync, size_t expected)
{
    struct store *store = calloc(1, sizeof *store);
    MDB_txn *txn;
    if (store == NULL)
        peer_fail("LMDB", "no memory");
    must(mdb_env_create(&store->env));
    must(mdb_env_set_mapsize(store->env, expected * (peer_value_bytes + 200) * 2 + ((size_t)256 << 20)));
    must(mdb_env_set_maxreaders(store->env, 128));
    must(mdb_env_open(store->env, path, MDB_NOTLS | (sync ? 0 : MDB_NOSYNC | MDB_WRITEMAP | MDB_MAPASYNC), 0644));
    must(mdb_txn_begin(store->env, NULL, 0, &txn));
    must(mdb_dbi_open(txn, NULL, 0, &store->dbi));
    must(mdb_txn_commit(txn));
    return store;
}

static void close_store(void *session)
{
    struct store *store = session;
    mdb_env_close(store->env);
    free(store);
}

static void put(void *session, const size_t *which, size_t count)
{
    struct store *store = session;
    MDB_txn *txn;
    must(mdb_txn_begin(store->env, NULL, 0, &txn));
    for (size_t i = 0; i < count; i++) {
        MDB_val key = {PEER_KEY_BYTES, (void *)peer_key(which[i])}, value = {peer_value_bytes, (void *)peer_value(which[i])};
        must(mdb_put(txn, store->dbi, &key, &value, 0));
    }
    must(mdb_txn_commit(txn));
}

static size_t get(void *session, const size_t *which, size_t count)
{
    struct store *store = session;
    MDB_txn *txn;
    size_t right = 0;
    must(mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn));
    for (size_t i = 0; i < count; i++) {
        MDB_val key = {PEER_KEY_BYTES, (void *)peer_key(which[i])}, value;
        must(mdb_get(txn, store->dbi, &key, &value));
        right += peer_is_right(value.mv_data, value.mv_size, which[i]);
    }
    mdb_txn_abort(txn);
    return right;
}

const struct peer peer_lmdb = {
    .name = "LMDB",
    .set_up = "a transaction per batch; without sync: NOSYNC, WRITEMAP, MAPASYNC; values are looked at where they lie, not copied",
    .open = open_store,
    .close = close_store,
    .put = put,
    .get = get,
};
