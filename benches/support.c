/*
 * support.c: the other half of support.h.
 */
#define _GNU_SOURCE
#include "support.h"
#include <fts.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

enum { USUAL_MIB = 2048, PAGE_BYTES = 4096 };

struct options opt = {.keys = 1000000, .batch = 1000, .value = 100, .runs = 3, .store = "target/bench/stores"};
char *keys, *missing_keys, *pool, *stores;
size_t step;

/* ---- Small tools ---- */

void remove_tree(const char *path)
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

void fail(const char *what, const char *why)
{
    fprintf(stderr, "\nbench: %s: %s\n", what, why);
    exit(1);
}

void must(int code, const char *what)
{
    if (code != KV_SUCCESS)
        fail(what, kv_get_last_error()->message);
}

void *must_have(void *pointer, const char *what)
{
    if (pointer == NULL)
        fail(what, kv_get_last_error()->message);
    return pointer;
}

void *memory(size_t bytes)
{
    void *p = malloc(bytes);
    if (p == NULL)
        fail("memory", strerror(errno));
    return p;
}

const char *path_of(const char *name)
{
    static __thread char path[4096];
    snprintf(path, sizeof path, "%s/%s", stores, name);
    return path;
}

/* Touches so much memory and gives it back; how long that took, in seconds. */
double touch_memory(size_t mib)
{
    size_t bytes = mib << 20;
    double begun = seconds();
    char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == 0 || pages == MAP_FAILED)
        return 0; /* figures are only steadier with it */
    madvise(pages, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < bytes; at += PAGE_BYTES)
        pages[at] = 1;
    munmap(pages, bytes);
    return seconds() - begun;
}

/* Has everything that was written on stable storage. */
void sync_stores(void)
{
    int fd = open(stores, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) != 0)
        fail(stores, strerror(errno));
    close(fd);
}

/*
 * What earlier rows left to the kernel must not be paid by the next one, nor what nobody left it: a virtual machine may give
 * memory that is free for some seconds back to its host, and a page of that costs microseconds at its next touch (the row
 * "memory" shows it). So the next row finds what it wants touched a moment ago; several times as much, for the kernel need not
 * give out what it took back last. Never more than is free, of which some is left to others.
 */
void settle_for(size_t memory_mib)
{
    sync_stores();
    size_t free_mib = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) >> 20, most = free_mib / 8 * 7;
    touch_memory(memory_mib < most ? memory_mib : most);
}

/* The same for a row with the usual number of keys. */
void settle(void)
{
    settle_for(USUAL_MIB);
}

/* ---- Figures ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value below which `share` of the values lie; sorts them. */
double quantile(double *values, size_t count, double share)
{
    qsort(values, count, sizeof *values, ascending);
    return count == 0 ? 0 : values[(size_t)(share * (double)(count - 1) + 0.5)];
}

/* ---- Setting up ---- */

static size_t divisor(size_t a, size_t b)
{
    return b == 0 ? a : divisor(b, a % b);
}

/* Key i, KEY_BYTES of it, without a NUL. */
void make_key(char *key, size_t i)
{
    memcpy(key, "key:", 4);
    for (int at = KEY_BYTES - 1; at >= 4; at--, i /= 10)
        key[at] = (char)('0' + i % 10);
}

/* No value is longer than `value_max`. */
void make_data(size_t value_max)
{
    size_t words = opt.keys + value_max / 8 + 1;
    keys = memory(opt.keys * KEY_BYTES);
    missing_keys = memory(opt.keys * KEY_BYTES);
    pool = memory(words * 8);
    for (size_t i = 0; i < opt.keys; i++) {
        make_key(keys + i * KEY_BYTES, i);
        make_key(missing_keys + i * KEY_BYTES, i);
        memcpy(missing_keys + i * KEY_BYTES, "non:", 4);
    }
    for (size_t j = 0; j < words; j++) {
        uint64_t word = mix(j);
        memcpy(pool + 8 * j, &word, 8);
    }
    for (step = opt.keys * 5 / 8 | 1; divisor(step, opt.keys) != 1; step += 2)
        continue;
}

const char *file_system(void)
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

void make_directory(void)
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

int read_number(const char *text, size_t least, size_t most, size_t *out)
{
    char *end;
    errno = 0;
    unsigned long long number = text == NULL ? 0 : strtoull(text, &end, 10);
    if (text == NULL || *text == '-' || end == text || *end != '\0' || errno != 0 || number < least || number > most)
        return 0;
    *out = (size_t)number;
    return 1;
}
