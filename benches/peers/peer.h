/*
 * peer.h: what the comparison wants of a store. peers.c runs the workloads; each other file is one store, set up as somebody
 * would who knows it well. A store must never be given less care than kvbatch: the same bytes, the same order, the same checks.
 */
#ifndef KVBATCH_BENCH_PEER_H
#define KVBATCH_BENCH_PEER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All functions end the program if something fails. */
struct peer {
    const char *name;
    const char *set_up; /* how, in words */
    /* In an empty directory, for about `expected` keys. `sync`: a batch is on stable storage when put returns; else it has been
     * handed to the system. */
    void *(*open)(const char *path, int sync, size_t expected);
    /* Does what makes reads quick once much was written; NULL: nothing. */
    void (*rest)(void *store);
    void (*close)(void *store);
    /* What a thread needs to work with the store; NULL: the store itself. */
    void *(*enter)(void *store);
    void (*leave)(void *session);
    /* One batch of the keys `which`; all or nothing where the store can. */
    void (*put)(void *session, const size_t *which, size_t count);
    /* One batch of reads: how many of the values are right. */
    size_t (*get)(void *session, const size_t *which, size_t count);
};

extern const struct peer peer_kvbatch, peer_rocksdb, peer_leveldb, peer_lmdb, peer_wiredtiger, peer_tkrzw;

enum { PEER_KEY_BYTES = 16, PEER_BATCH_MAX = 1000 };

/* Key i and its value; every value has peer_value_bytes. */
const char *peer_key(size_t i);
const char *peer_value(size_t i);
extern size_t peer_value_bytes;
int peer_is_right(const char *value, size_t len, size_t i);
#ifdef __cplusplus
[[noreturn]]
#else
__attribute__((noreturn))
#endif
void peer_fail(const char *name, const char *why);

#ifdef __cplusplus
}
#endif

#endif
