/*
 * support.h: what stands behind the figures of the benchmarks in C. Options, the keys and values that are stored,
 * directories, clock and quantiles. support.c is the other half; bench.c, its parts and storage.c use both.
 */
#ifndef KVBATCH_BENCH_SUPPORT_H
#define KVBATCH_BENCH_SUPPORT_H

#include "kvserver/kv_async_batch_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEY_BYTES = 16, TIMEOUT_MS = 60000, RUNS_MAX = 99, ONLY_MAX = 16, VALUE_BYTES_MIN = 16 };

/* A prime: the values of a key in two rounds lie this far apart in the pool. */
enum { ROUND_STEP = 7919 };

struct options {
    size_t keys;
    size_t batch;
    size_t value;
    int runs;
    const char *store;
    const char *only[ONLY_MAX];
    int only_count;
};
extern struct options opt;

extern char *keys;         /* opt.keys keys of KEY_BYTES */
extern char *missing_keys; /* as many that are never stored */
extern char *pool;         /* word j is mix(j): value i begins at word i, so no two are alike */
extern size_t step;        /* coprime to opt.keys: i -> i * step visits every key once, in no order */
extern char *stores;       /* this run's directory below opt.store */

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* splitmix64's last step (Steele, Lea, Flood, 2014): a word that looks random for every number. */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline const char *key_of(size_t i)
{
    return keys + i * KEY_BYTES;
}

static inline const char *value_of(size_t i)
{
    return pool + 8 * i;
}

/* Where in the pool the value of key i in round r begins: no two rounds give a key the same. */
static inline size_t word_in(size_t i, size_t round)
{
    return (i + round * ROUND_STEP) % opt.keys;
}

/* Whether a value of `bytes` bytes is the one that begins at `word`, by its length and its first and last whole words. */
static inline int is_value(const char *value, size_t len, size_t bytes, size_t word)
{
    uint64_t first, last;
    size_t words = bytes / 8;
    if (value == NULL || len != bytes)
        return 0;
    memcpy(&first, value, 8);
    memcpy(&last, value + 8 * (words - 1), 8);
    return first == mix(word) && last == mix(word + words - 1);
}

void fail(const char *what, const char *why) __attribute__((noreturn));
void must(int code, const char *what);
void *must_have(void *pointer, const char *what);
void *memory(size_t bytes);
void remove_tree(const char *path);
const char *path_of(const char *name);
double touch_memory(size_t mib);
void sync_stores(void);
void settle_for(size_t memory_mib);
void settle(void);
double quantile(double *values, size_t count, double share);
void make_data(size_t value_max);
void make_key(char *key, size_t i);
const char *file_system(void);
void make_directory(void);
int read_number(const char *text, size_t least, size_t most, size_t *out);

#endif
