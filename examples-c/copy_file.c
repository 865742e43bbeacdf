/*
 * copy_file.c: asynchronous I/O on your own files, without a store: a file is copied through a ring, many blocks in
 * flight at a time, and put on stable storage.
 *
 *   cc -O2 -Iinclude examples-c/copy_file.c -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o copy_file
 *   ./copy_file [FROM TO]
 */
#define _GNU_SOURCE
#include "kvserver/kv_io_uring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 65536, BLOCKS_IN_FLIGHT = 16 };

struct copy {
    kv_uring_t *ring;
    int from, to;
    off_t next; /* where the next block begins; touched by callbacks only, and they come one at a time */
    size_t copied;
    int blocks_busy;
    int failed; /* an errno */
    pthread_mutex_t lock;
    pthread_cond_t idle;
};

struct block {
    struct copy *copy;
    off_t offset;
    char bytes[BLOCK_BYTES];
};

static void on_read(kv_uring_request_t *req, int result, void *data);

static void finish_block(struct copy *copy, int error)
{
    pthread_mutex_lock(&copy->lock);
    if (error != 0)
        copy->failed = error;
    copy->blocks_busy--;
    pthread_cond_signal(&copy->idle);
    pthread_mutex_unlock(&copy->lock);
}

static void read_next(struct block *block)
{
    struct copy *copy = block->copy;
    block->offset = copy->next;
    copy->next += BLOCK_BYTES;
    if (kv_uring_read_async(copy->ring, copy->from, block->bytes, BLOCK_BYTES, block->offset, on_read, block) == NULL)
        finish_block(copy, EIO);
}

static void on_written(kv_uring_request_t *req, int result, void *data)
{
    struct block *block = data;
    kv_uring_request_destroy(req);
    if (result < 0) {
        finish_block(block->copy, -result);
    } else {
        block->copy->copied += (size_t)result;
        read_next(block);
    }
}

static void on_read(kv_uring_request_t *req, int result, void *data)
{
    struct block *block = data;
    struct copy *copy = block->copy;
    kv_uring_request_destroy(req);
    if (result <= 0) /* 0: the end of the file */
        finish_block(copy, -result);
    else if (kv_uring_write_async(copy->ring, copy->to, block->bytes, (size_t)result, block->offset, on_written, block) == NULL)
        finish_block(copy, EIO);
}

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, kv_get_last_error()->message);
        exit(1);
    }
}

static void must_open(int fd, const char *path)
{
    if (fd < 0) {
        perror(path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    const char *from = argc > 2 ? argv[1] : argv[0]; /* without arguments: copies itself */
    char *to = argc > 2 ? argv[2] : NULL;
    if (to == NULL && asprintf(&to, "%s.copy", argv[0]) < 0)
        return 1;

    struct copy copy = {.lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER, .blocks_busy = BLOCKS_IN_FLIGHT};
    must_open(copy.from = open(from, O_RDONLY | O_CLOEXEC), from);
    must_open(copy.to = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), to);

    copy.ring = kv_uring_create(NULL);
    must(copy.ring != NULL, "create the ring");
    must(kv_uring_start(copy.ring) == KV_SUCCESS, "start the ring");

    struct block *blocks = calloc(BLOCKS_IN_FLIGHT, sizeof *blocks);
    if (blocks == NULL)
        return 1;
    /* All first reads in one batch. From here on the callbacks keep the blocks moving. */
    kv_uring_batch_t *batch = kv_uring_batch_create(copy.ring, BLOCKS_IN_FLIGHT);
    must(batch != NULL, "create a batch");
    for (int i = 0; i < BLOCKS_IN_FLIGHT; i++) {
        blocks[i].copy = &copy;
        blocks[i].offset = copy.next;
        copy.next += BLOCK_BYTES;
        must(kv_uring_batch_add_read(batch, copy.from, blocks[i].bytes, BLOCK_BYTES, blocks[i].offset, on_read, &blocks[i]) == KV_SUCCESS,
             "add a read");
    }
    must(kv_uring_batch_submit(copy.ring, batch) == KV_SUCCESS, "submit");
    kv_uring_batch_destroy(batch);

    pthread_mutex_lock(&copy.lock);
    while (copy.blocks_busy > 0)
        pthread_cond_wait(&copy.idle, &copy.lock);
    pthread_mutex_unlock(&copy.lock);
    if (copy.failed != 0) {
        fprintf(stderr, "copying failed: %s\n", strerror(copy.failed));
        return 1;
    }

    kv_uring_request_t *sync = kv_uring_fsync_async(copy.ring, copy.to, NULL, NULL);
    must(sync != NULL, "sync");
    must(kv_uring_wait_request(copy.ring, sync, UINT32_MAX) == KV_SUCCESS, "sync");
    kv_uring_request_destroy(sync);

    struct stat wanted, got;
    int known = fstat(copy.from, &wanted) == 0 && fstat(copy.to, &got) == 0;
    if (!known || wanted.st_size != got.st_size || (size_t)got.st_size != copy.copied) {
        fprintf(stderr, "%s and %s differ in size\n", from, to);
        return 1;
    }
    printf("%zu bytes of %s copied to %s\n", copy.copied, from, to);
    must(kv_uring_print_stats(copy.ring, stdout) == KV_SUCCESS, "print the statistics");
    kv_uring_destroy(copy.ring);
    free(blocks);
    if (argc <= 2) {
        unlink(to);
        free(to);
    }
    return 0;
}
