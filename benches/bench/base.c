/*
 * base.c: what the machine gives to plain code: the same bytes assembled in memory (memcpy), then given to write(), then
 * made durable with fdatasync() in a file that was written full of zeros before, and the device's sequential writes. Each
 * is measured once in each run, just before the first row that is compared with it.
 */
#define _GNU_SOURCE
#include "bench.h"

enum { DEVICE_BYTES = 1 << 30, DEVICE_PIECE_BYTES = 1 << 20, NEW_PIECE_BYTES = 4 << 20, DEVICE_PIECES = 4, FREE_SECONDS = 3 };

static double measured[BASES];
static double device_measured[DEVICES];
static struct series commits;

void forget_bases(void)
{
    memset(measured, 0, sizeof measured);
    memset(device_measured, 0, sizeof device_measured);
}

static size_t assemble(char *to, size_t first, size_t count)
{
    char *begin = to;
    for (size_t i = first; i < first + count; i++) {
        memcpy(to, key_of(i), KEY_BYTES);
        memcpy(to + KEY_BYTES, value_of(i), opt.value);
        to += KEY_BYTES + opt.value;
    }
    return (size_t)(to - begin);
}

/* A file of so many zeros, on stable storage. */
static int zeroed_file(const char *path, size_t bytes, int flags)
{
    char *zeros = NULL;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || posix_memalign((void **)&zeros, 4096, DEVICE_PIECE_BYTES) != 0)
        fail(path, strerror(errno));
    memset(zeros, 0, DEVICE_PIECE_BYTES);
    for (size_t at = 0; at < bytes; at += DEVICE_PIECE_BYTES)
        if (pwrite(fd, zeros, DEVICE_PIECE_BYTES, (off_t)at) != DEVICE_PIECE_BYTES)
            fail(path, strerror(errno));
    if (fsync(fd) != 0)
        fail(path, strerror(errno));
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    free(zeros);
    if (flags == 0)
        return fd;
    close(fd);
    if ((fd = open(path, O_RDWR | O_CLOEXEC | flags)) < 0)
        fail(path, strerror(errno));
    return fd;
}

/* opt.keys records in batches; written if there is a file, synced after each `per_sync` batches if that is not 0. */
static double plain(int fd, size_t per_sync)
{
    char *buffer = memory(opt.batch * (KEY_BYTES + opt.value));
    size_t batches = 0;
    off_t at = 0;
    double begun = seconds(), submitted = begun;
    for (size_t first = 0; first < opt.keys; first += opt.batch) {
        size_t count = opt.keys - first < opt.batch ? opt.keys - first : opt.batch;
        size_t bytes = assemble(buffer, first, count);
        __asm__ volatile("" ::"r"(buffer) : "memory"); /* the copy is not for nothing */
        if (batches % (per_sync > 0 ? per_sync : 1) == 0)
            submitted = seconds();
        if (fd >= 0 && pwrite(fd, buffer, bytes, at) != (ssize_t)bytes)
            fail("plain file", "short write");
        at += (off_t)bytes;
        if (per_sync > 0 && ++batches % per_sync == 0) {
            if (fdatasync(fd) != 0)
                fail("plain file", strerror(errno));
            note(&commits, seconds() - submitted);
        }
    }
    double took = seconds() - begun;
    free(buffer);
    return took;
}

double base(enum base which)
{
    if (measured[which] > 0)
        return measured[which];
    settle();
    const char *path = path_of("plain");
    size_t bytes = opt.keys * (KEY_BYTES + opt.value);
    int fd = -1;
    commits.count = 0;
    if (which == BASE_WRITE)
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    else if (which != BASE_MEMCPY)
        fd = zeroed_file(path, bytes + DEVICE_PIECE_BYTES, 0);
    if (which != BASE_MEMCPY && fd < 0)
        fail(path, strerror(errno));
    double took = plain(fd, which == BASE_FDATASYNC ? 1 : which == BASE_FDATASYNC_8 ? 8 : 0);
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    settle();
    return measured[which] = (double)opt.keys / took / 1e6;
}

/* A file with space that was never written. */
static int allocated_file(const char *path, size_t bytes, int flags)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0644);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)bytes) != 0 || fsync(fd) != 0)
        fail(path, strerror(errno));
    return fd;
}

/* Sequential O_DIRECT writes, several in flight by threads. */
struct writer {
    int fd, number;
    size_t piece_bytes;
};

static void *write_pieces(void *argument)
{
    struct writer *writer = argument;
    size_t len = writer->piece_bytes;
    char *piece = NULL;
    if (posix_memalign((void **)&piece, 4096, len) != 0)
        fail("memory", "none for a piece to write");
    memset(piece, 'x', len);
    for (size_t at = (size_t)writer->number * len; at < DEVICE_BYTES; at += DEVICE_PIECES * len)
        if (pwrite(writer->fd, piece, len, (off_t)at) != (ssize_t)len)
            fail("plain file", strerror(errno));
    free(piece);
    return NULL;
}

double device_write_bytes_per_second(enum device which)
{
    if (device_measured[which] > 0)
        return device_measured[which];
    const char *path = path_of("plain");
    int is_new = which == DEVICE_NEW_BLOCKS;
    int fd = is_new ? allocated_file(path, DEVICE_BYTES, O_DIRECT | O_DSYNC) : zeroed_file(path, DEVICE_BYTES, O_DIRECT);
    pthread_t threads[DEVICE_PIECES];
    struct writer writers[DEVICE_PIECES];
    settle();
    double begun = seconds();
    for (int t = 0; t < DEVICE_PIECES; t++) {
        writers[t] = (struct writer){fd, t, is_new ? NEW_PIECE_BYTES : DEVICE_PIECE_BYTES};
        if (pthread_create(&threads[t], NULL, write_pieces, &writers[t]) != 0)
            fail("thread", strerror(errno));
    }
    for (int t = 0; t < DEVICE_PIECES; t++)
        pthread_join(threads[t], NULL);
    if (fdatasync(fd) != 0)
        fail(path, strerror(errno));
    double took = seconds() - begun;
    close(fd);
    unlink(path);
    settle();
    return device_measured[which] = DEVICE_BYTES / took;
}

/* ---- Rows ---- */

void run_memory(void)
{
    sleep(FREE_SECONDS);
    figure("first touch, free for 3 s before", "ms/GiB", touch_memory(512) * 2e3);
    figure("first touch, free for a moment before", "ms/GiB", touch_memory(512) * 2e3);
}

void run_memcpy(void)
{
    figure("rate", "M ops/s", base(BASE_MEMCPY));
}

void run_write(void)
{
    figure("rate", "M ops/s", base(BASE_WRITE));
    figure("of memcpy", "x", base(BASE_WRITE) / base(BASE_MEMCPY));
}

void run_fdatasync(void)
{
    measured[BASE_FDATASYNC] = 0;
    figure("rate, a sync for each batch", "M ops/s", base(BASE_FDATASYNC));
    latencies("write + fdatasync", &commits, 0, 0);
    figure("rate, a sync for 8 batches", "M ops/s", base(BASE_FDATASYNC_8));
}

void run_device(void)
{
    figure("sequential write, 1 MiB, 4 at a time", "MB/s", device_write_bytes_per_second(DEVICE_WRITTEN_BLOCKS) / 1e6);
    figure("new blocks, 4 MiB synced, 4 at a time", "MB/s", device_write_bytes_per_second(DEVICE_NEW_BLOCKS) / 1e6);
}
