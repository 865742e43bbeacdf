/*
 * wiredtiger.c: WiredTiger, in the comparison with others. Called by peers.c.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <wiredtiger.h>

static const char table[] = "table:kv";

struct session {
    WT_SESSION *session;
    WT_CURSOR *cursor;
    int sync;
};

struct store {
    WT_CONNECTION *connection;
    int sync;
};

static void must(int code)
{
    if (code != 0)
        peer_fail("WiredTiger", wiredtiger_strerror(code));
}

static void *open_store(const char *path, int sync, size_t expected)
{
    char config[400];
    WT_SESSION *session;
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        peer_fail("WiredTiger", "no memory");
    (void)expected;
    snprintf(config, sizeof config,
             "create,cache_size=2GB,session_max=200,log=(enabled=true,file_max=256MB,prealloc=true),checkpoint=(wait=60),"
             "transaction_sync=(enabled=%s,method=fsync)",
             sync ? "true" : "false");
    must(wiredtiger_open(path, NULL, config, &store->connection));
    must(store->connection->open_session(store->connection, NULL, NULL, &session));
    must(session->create(session, table, "key_format=u,value_format=u,leaf_page_max=16KB,prefix_compression=false"));
    must(session->close(session, NULL));
    store->sync = sync;
    return store;
}

static void close_store(void *opened)
{
    struct store *store = opened;
    must(store->connection->close(store->connection, NULL));
    free(store);
}

static void *enter(void *opened)
{
    struct store *store = opened;
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL)
        peer_fail("WiredTiger", "no memory");
    must(store->connection->open_session(store->connection, NULL, "isolation=snapshot", &session->session));
    must(session->session->open_cursor(session->session, table, NULL, "overwrite=true", &session->cursor));
    session->sync = store->sync;
    return session;
}

static void leave(void *entered)
{
    struct session *session = entered;
    must(session->session->close(session->session, NULL));
    free(session);
}

static void put(void *entered, const size_t *which, size_t count)
{
    struct session *session = entered;
    must(session->session->begin_transaction(session->session, session->sync ? "sync=true" : "sync=false"));
    for (size_t i = 0; i < count; i++) {
        WT_ITEM key = {.data = peer_key(which[i]), .size = PEER_KEY_BYTES};
        WT_ITEM value = {.data = peer_value(which[i]), .size = peer_value_bytes};
        session->cursor->set_key(session->cursor, &key);
        session->cursor->set_value(session->cursor, &value);
        must(session->cursor->insert(session->cursor));
    }
    must(session->session->commit_transaction(session->session, NULL));
}

static size_t get(void *entered, const size_t *which, size_t count)
{
    struct session *session = entered;
    size_t right = 0;
    must(session->session->begin_transaction(session->session, NULL));
    for (size_t i = 0; i < count; i++) {
        WT_ITEM key = {.data = peer_key(which[i]), .size = PEER_KEY_BYTES}, value;
        session->cursor->set_key(session->cursor, &key);
        must(session->cursor->search(session->cursor));
        must(session->cursor->get_value(session->cursor, &value));
        right += peer_is_right(value.data, value.size, which[i]);
    }
    must(session->cursor->reset(session->cursor));
    must(session->session->commit_transaction(session->session, NULL));
    return right;
}

const struct peer peer_wiredtiger = {
    .name = "WiredTiger",
    .set_up = "B-tree, cache of 2 GB, log preallocated, a transaction per batch (sync=true or false), a session and a cursor per thread",
    .open = open_store,
    .close = close_store,
    .enter = enter,
    .leave = leave,
    .put = put,
    .get = get,
};
