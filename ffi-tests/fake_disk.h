/* fake_disk.h: a disk that fails, fills up or hangs on command. Included by one test program, it defines the C library's file calls
 * in that program, in front of the real ones; the library's calls come here because they are dynamic symbols. Only files of the
 * store (*.kvb, and directories for fsync) are concerned; everything else passes through. */
#ifndef FAKE_DISK_H
#define FAKE_DISK_H

#include "kvtest.h"
#include <dlfcn.h>
#include <sys/syscall.h>

#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif
#ifndef RWF_SYNC
#define RWF_SYNC 4
#endif

/* One kind of call: how often it came, how it fails, whether it hangs. */
typedef struct {
    atomic_long calls;
    atomic_int error;      /* errno for the calls to come; 0: none */
    atomic_long error_left; /* how many calls still fail; -1: all */
    atomic_int stuck;      /* 1: calls wait until it is 0 again */
    atomic_long waiting;   /* calls that hang now */
    atomic_int slow_ms;    /* each call takes this long */
} fault_t;
static fault_t disk_write, disk_sync, disk_read;
static atomic_int disk_short_writes; /* each write takes at most half of the bytes, at least one */

static int is_store_file(int fd, int directories_too) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    struct stat s;
    if (directories_too && fstat(fd, &s) == 0 && S_ISDIR(s.st_mode)) return 1;
    return n > 4 && strcmp(path + n - 4, ".kvb") == 0;
}

/* 0: let the call through; else the errno with which it fails. */
static int fault(fault_t *f) {
    atomic_fetch_add(&f->calls, 1);
    if (f->stuck) {
        atomic_fetch_add(&f->waiting, 1);
        while (f->stuck) sleep_ms(1);
        atomic_fetch_sub(&f->waiting, 1);
    }
    if (f->slow_ms) sleep_ms(f->slow_ms);
    int error = f->error;
    if (!error) return 0;
    long left = f->error_left;
    if (left < 0) return error;
    while (left > 0)
        if (atomic_compare_exchange_weak(&f->error_left, &left, left - 1)) return error;
    return 0;
}

static inline void fail_with(fault_t *f, int error, long times) {
    f->error_left = times;
    f->error = error;
}

static inline void heal(fault_t *f) {
    f->error = 0;
    f->error_left = 0;
    f->stuck = 0;
    f->slow_ms = 0;
}

#define FAIL_IF(f)                             \
    do {                                       \
        int fault_error = fault(f);            \
        if (fault_error) {                     \
            errno = fault_error;               \
            return -1;                         \
        }                                      \
    } while (0)

/* A write with the flag for durability is a write and a sync: either can fail it. */
static ssize_t vector_write(int fd, const struct iovec *v, int n, off_t offset, int flags) {
    struct iovec first;
    if (is_store_file(fd, 0)) {
        FAIL_IF(&disk_write);
        if (flags & (RWF_DSYNC | RWF_SYNC)) FAIL_IF(&disk_sync);
        if (disk_short_writes && n > 0) {
            first.iov_base = v[0].iov_base;
            first.iov_len = (v[0].iov_len + 1) / 2;
            v = &first;
            n = 1;
        }
    }
    return syscall(SYS_pwritev2, fd, v, n, (long)offset, 0L, flags);
}

ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t offset, int flags) { return vector_write(fd, v, n, offset, flags); }
ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off_t offset, int flags) { return vector_write(fd, v, n, offset, flags); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset) { return vector_write(fd, v, n, offset, 0); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t offset) { return vector_write(fd, v, n, offset, 0); }

static ssize_t plain_write(int fd, const void *bytes, size_t len, off_t offset) {
    if (is_store_file(fd, 0)) {
        FAIL_IF(&disk_write);
        if (disk_short_writes) len = (len + 1) / 2;
    }
    return syscall(SYS_pwrite64, fd, bytes, len, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) { return plain_write(fd, bytes, len, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset) { return plain_write(fd, bytes, len, offset); }

ssize_t write(int fd, const void *bytes, size_t len) {
    if (is_store_file(fd, 0)) {
        FAIL_IF(&disk_write);
        if (disk_short_writes) len = (len + 1) / 2;
    }
    return syscall(SYS_write, fd, bytes, len);
}

ssize_t writev(int fd, const struct iovec *v, int n) {
    if (is_store_file(fd, 0)) FAIL_IF(&disk_write);
    return syscall(SYS_writev, fd, v, n);
}

int fdatasync(int fd) {
    if (is_store_file(fd, 1)) FAIL_IF(&disk_sync);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
    if (is_store_file(fd, 1)) FAIL_IF(&disk_sync);
    return (int)syscall(SYS_fsync, fd);
}

ssize_t pread(int fd, void *bytes, size_t len, off_t offset) {
    if (is_store_file(fd, 0)) FAIL_IF(&disk_read);
    return syscall(SYS_pread64, fd, bytes, len, offset);
}

ssize_t pread64(int fd, void *bytes, size_t len, off_t offset) {
    if (is_store_file(fd, 0)) FAIL_IF(&disk_read);
    return syscall(SYS_pread64, fd, bytes, len, offset);
}

static ssize_t vector_read(int fd, const struct iovec *v, int n, off_t offset) {
    if (is_store_file(fd, 0)) FAIL_IF(&disk_read);
    return syscall(SYS_preadv, fd, v, n, (long)offset, 0L);
}

ssize_t preadv(int fd, const struct iovec *v, int n, off_t offset) { return vector_read(fd, v, n, offset); }
ssize_t preadv64(int fd, const struct iovec *v, int n, off_t offset) { return vector_read(fd, v, n, offset); }

#endif
