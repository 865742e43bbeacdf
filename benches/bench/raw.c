/*
 * raw.c: what the device gives to a program that does nothing but read: random blocks of 4 KiB from the files of a store,
 * O_DIRECT, a number of them in flight at all times. Through the kernel's io_uring interface, without a library. Also what else
 * there is to do with a store's files.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <dirent.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { BLOCK_BYTES = 4096, FILES_MAX = 256 };

struct files {
    int fds[FILES_MAX];
    size_t blocks[FILES_MAX];
    int count;
};

struct ring {
    int fd;
    unsigned entries, *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

static void for_each_file(const char *store, void (*take)(const char *path, void *context), void *context)
{
    char path[4600];
    const char *directory = path_of(store);
    DIR *dir = opendir(directory);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        struct stat about;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (stat(path, &about) == 0 && S_ISREG(about.st_mode))
            take(path, context);
    }
    if (dir != NULL)
        closedir(dir);
}

static void open_file(const char *path, void *context)
{
    struct files *files = context;
    struct stat about;
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd >= 0 && files->count < FILES_MAX && fstat(fd, &about) == 0 && about.st_size >= (16 << 20)) {
        files->fds[files->count] = fd;
        files->blocks[files->count++] = (size_t)about.st_size / BLOCK_BYTES;
    } else if (fd >= 0)
        close(fd);
}

static void forget_file(const char *path, void *context)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    (void)context;
    if (fd < 0)
        return;
    fdatasync(fd); /* dirty pages stay */
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* Has the kernel forget what it keeps of the store's files. */
void drop_caches(const char *store)
{
    for_each_file(store, forget_file, NULL);
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) { /* only root may; without it the advice above has to do */
        ssize_t written = write(fd, "1", 1);
        (void)written;
        close(fd);
    }
}

static void add_blocks(const char *path, void *context)
{
    struct stat about;
    if (stat(path, &about) == 0)
        *(double *)context += (double)about.st_blocks * 512;
}

/* What the store's files take of the disk. */
double disk_bytes(const char *store)
{
    double bytes = 0;
    for_each_file(store, add_blocks, &bytes);
    return bytes;
}

static int ring_open(struct ring *ring, unsigned entries)
{
    struct io_uring_params params = {0};
    ring->fd = (int)syscall(__NR_io_uring_setup, entries, &params);
    if (ring->fd < 0)
        return 0;
    size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    char *sq = mmap(NULL, sq_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, cq_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_CQ_RING);
    ring->sqes = mmap(NULL, params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
                      IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || ring->sqes == MAP_FAILED)
        fail("io_uring", "its rings cannot be mapped");
    ring->entries = params.sq_entries;
    ring->sq_tail = (unsigned *)(sq + params.sq_off.tail);
    ring->sq_mask = (unsigned *)(sq + params.sq_off.ring_mask);
    ring->sq_array = (unsigned *)(sq + params.sq_off.array);
    ring->cq_head = (unsigned *)(cq + params.cq_off.head);
    ring->cq_tail = (unsigned *)(cq + params.cq_off.tail);
    ring->cq_mask = (unsigned *)(cq + params.cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
    return 1;
}

static void ask(struct ring *ring, const struct files *files, char *buffers, unsigned slot, uint64_t random)
{
    unsigned tail = *ring->sq_tail, at = tail & *ring->sq_mask;
    int file = (int)(random % (unsigned)files->count);
    size_t block = (size_t)(random >> 20) % files->blocks[file];
    ring->sqes[at] = (struct io_uring_sqe){.opcode = IORING_OP_READ,
                                           .fd = files->fds[file],
                                           .addr = (uint64_t)(uintptr_t)(buffers + (size_t)slot * BLOCK_BYTES),
                                           .len = BLOCK_BYTES,
                                           .off = block * BLOCK_BYTES,
                                           .user_data = slot};
    ring->sq_array[at] = at;
    __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

double raw_reads_per_second(const char *store, unsigned depth, size_t reads)
{
    struct files files = {.count = 0};
    struct ring ring;
    char *buffers = NULL;
    for_each_file(store, open_file, &files);
    if (files.count == 0)
        fail(store, "there are no files to read from with O_DIRECT");
    if (!ring_open(&ring, depth))
        return 0;
    if (posix_memalign((void **)&buffers, BLOCK_BYTES, (size_t)depth * BLOCK_BYTES) != 0)
        fail("memory", "none for blocks to read");
    uint64_t drawn = (uint64_t)getpid() << 32;
    size_t asked = 0, done = 0;
    unsigned fresh = 0;
    double begun = seconds();
    for (; asked < depth; asked++, fresh++)
        ask(&ring, &files, buffers, (unsigned)asked, mix(drawn++));
    while (done < reads) {
        long entered = syscall(__NR_io_uring_enter, ring.fd, fresh, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        if (entered < 0 && errno != EINTR)
            fail("io_uring", strerror(errno));
        fresh -= entered > 0 ? (unsigned)entered : 0;
        unsigned head = *ring.cq_head, tail = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);
        for (; head != tail; head++, done++) {
            struct io_uring_cqe *end = &ring.cqes[head & *ring.cq_mask];
            if (end->res <= 0)
                fail("raw reads", strerror(-end->res));
            ask(&ring, &files, buffers, (unsigned)end->user_data, mix(drawn++));
            asked++, fresh++;
        }
        __atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
    }
    double took = seconds() - begun;
    while (done < asked) { /* the buffers are the kernel's until all have ended */
        long entered = syscall(__NR_io_uring_enter, ring.fd, fresh, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        fresh -= entered > 0 ? (unsigned)entered : 0;
        unsigned tail = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);
        done += tail - *ring.cq_head;
        __atomic_store_n(ring.cq_head, tail, __ATOMIC_RELEASE);
    }
    close(ring.fd);
    for (int f = 0; f < files.count; f++)
        close(files.fds[f]);
    free(buffers);
    return (double)reads / took;
}
