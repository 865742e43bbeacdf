/*
 * support.h: what stands behind the figures of bench.c and storage.c. Options, the keys and values that are stored,
 * directories, clock and quantiles. Each of the two includes it once.
 */
#ifndef KVBATCH_BENCH_SUPPORT_H
#define KVBATCH_BENCH_SUPPORT_H

#include "kvserver/kv_async_batch_io.h"

#include <fts.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

enum { KEY_BYTES = 16, TIMEOUT_MS = 60000, IN_FLIGHT_MAX = 8, RUNS_MAX = 99, ONLY_MAX = 8 };

static struct {
    size_t keys;
    size_t batch;
    size_t value;
    int runs;
    const char *store;
    const char *only[ONLY_MAX];
    int only_count;
} opt = {.keys = 1000000, .batch = 1000, .value = 100, .runs = 3, .store = "target/bench/stores"};

static char *keys;         /* opt.keys keys of KEY_BYTES */
static char *missing_keys; /* as many that are never stored */
static char *pool;         /* random bytes: the value of key i lies at 8 * i, so no two are alike */
static size_t step;        /* coprime to opt.keys: i -> i * step visits every key once, in no order */
static char *stores;       /* this run's directory below opt.store */
static double *latency;    /* of the row that runs now, in seconds, one per batch; NULL: what runs now is not measured */
static size_t latencies;

/* ---- Small tools ---- */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void remove_tree(const char *path)
{
    char *roots[] = {(char *)path, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (walk == NULL)
        return;
    for (FTSENT *entry; (entry = fts_read(walk)) != NULL;)
        if (entry->fts_info != FTS_D)
            remove(entry->fts_accpath);
    fts_close(walk);
}

static void clean_up(void)
{
    if (stores != NULL)
        remove_tree(stores);
    rmdir(opt.store); /* stays if somebody else has something in it */
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "\nbench: %s: %s\n", what, why);
    exit(1);
}

static void must(int code, const char *what)
{
    if (code != KV_SUCCESS)
        fail(what, kv_get_last_error()->message);
}

static void *must_have(void *pointer, const char *what)
{
    if (pointer == NULL)
        fail(what, kv_get_last_error()->message);
    return pointer;
}

static void *memory(size_t bytes)
{
    void *p = malloc(bytes);
    if (p == NULL)
        fail("memory", strerror(errno));
    return p;
}

static inline void note_latency(double seconds_taken)
{
    if (latency != NULL)
        latency[latencies++] = seconds_taken;
}

static const char *key_of(size_t i)
{
    return keys + i * KEY_BYTES;
}

static inline const char *value_of(size_t i)
{
    return pool + 8 * i;
}

static const char *path_of(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", stores, name);
    return path;
}

/* What earlier rows left to the kernel must not be paid by the next one. */
static void settle(void)
{
    int fd = open(stores, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) != 0)
        fail(stores, strerror(errno));
    close(fd);
}

/* ---- Figures ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value below which `share` of the values lie; sorts them. */
static double quantile(double *values, size_t count, double share)
{
    qsort(values, count, sizeof *values, ascending);
    return count == 0 ? 0 : values[(size_t)(share * (double)(count - 1) + 0.5)];
}

/* ---- Setting up ---- */

static size_t divisor(size_t a, size_t b)
{
    return b == 0 ? a : divisor(b, a % b);
}

static void make_data(void)
{
    size_t pool_bytes = 8 * opt.keys + opt.value;
    keys = memory(opt.keys * KEY_BYTES + 1);
    missing_keys = memory(opt.keys * KEY_BYTES + 1);
    pool = memory(pool_bytes + 8);
    for (size_t i = 0; i < opt.keys; i++) {
        snprintf(keys + i * KEY_BYTES, KEY_BYTES + 1, "key:%012u", (unsigned)i);
        snprintf(missing_keys + i * KEY_BYTES, KEY_BYTES + 1, "non:%012u", (unsigned)i);
    }
    uint64_t x = 0x9e3779b97f4a7c15u;
    for (size_t at = 0; at < pool_bytes; at += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64 (Marsaglia, 2003) */
        memcpy(pool + at, &x, 8);
    }
    for (step = opt.keys * 5 / 8 | 1; divisor(step, opt.keys) != 1; step += 2)
        continue;
}

static const char *file_system(void)
{
    static char number[32];
    struct statfs fs;
    if (statfs(stores, &fs) != 0)
        return "an unknown file system";
    switch ((unsigned long)fs.f_type) {
    case 0xEF53:
        return "ext4";
    case 0x58465342:
        return "xfs";
    case 0x9123683E:
        return "btrfs";
    case 0x01021994:
        return "tmpfs (no disk: fsync costs nothing)";
    case 0x794C7630:
        return "overlayfs";
    default:
        snprintf(number, sizeof number, "file system 0x%lx", (unsigned long)fs.f_type);
        return number;
    }
}

static void make_directory(void)
{
    static char path[4000];
    if (strlen(opt.store) > 3000)
        fail("--store", "the path is too long");
    for (const char *slash = opt.store; (slash = strchr(slash + 1, '/')) != NULL;) {
        snprintf(path, sizeof path, "%.*s", (int)(slash - opt.store), opt.store);
        mkdir(path, 0755);
    }
    mkdir(opt.store, 0755);
    snprintf(path, sizeof path, "%s/%d", opt.store, (int)getpid());
    if (mkdir(path, 0755) != 0)
        fail(path, strerror(errno));
    stores = path;
    atexit(clean_up);
}

static int read_number(const char *text, size_t least, size_t most, size_t *out)
{
    char *end;
    errno = 0;
    unsigned long long number = text == NULL ? 0 : strtoull(text, &end, 10);
    if (text == NULL || *text == '-' || end == text || *end != '\0' || errno != 0 || number < least || number > most)
        return 0;
    *out = (size_t)number;
    return 1;
}

#endif
