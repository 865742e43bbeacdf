/*
 * example.h: what the examples share. Leaving in the library's own words when a call fails, and choosing the store.
 * A real program would report and go on; an example stops at the first thing that is not as it should be.
 */
#ifndef KVBATCH_EXAMPLE_H
#define KVBATCH_EXAMPLE_H

#include "kvserver/kv_async_batch_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* The last error is per thread and says what to do about it, so it is read in the thread whose call failed. */
static inline void must(int code, const char *what)
{
    if (code == KV_SUCCESS)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, kv_get_error_name(code), kv_get_last_error()->message);
    exit(1);
}

/* For calls that return a handle: NULL is the failure, the last error says why. */
static inline void *must_have(void *handle, const char *what)
{
    if (handle == NULL)
        must(kv_get_last_error()->code != KV_SUCCESS ? kv_get_last_error()->code : KV_ERR_UNKNOWN, what);
    return handle;
}

/* A started manager. `store` is a path or URL; NULL leaves the choice to KVBATCH_STORE, else ./kvbatch-data. */
static inline kv_async_batch_manager_t *open_store(const char *store, const kv_async_batch_config_t *config)
{
    if (store != NULL && setenv("KVBATCH_STORE", store, 1) != 0) {
        perror("setenv");
        exit(1);
    }
    kv_async_batch_manager_t *manager = must_have(kv_async_batch_manager_create(config), "create the manager");
    must(kv_async_batch_manager_start(manager), "open the store");
    return manager;
}

/* Submits, waits for the end of the batch and frees it. */
static inline void run_batch(kv_async_batch_context_t *batch, uint32_t timeout_ms)
{
    must(kv_async_batch_submit(batch, NULL, NULL), "submit");
    must(kv_async_batch_wait(batch, timeout_ms), "wait");
    kv_async_batch_destroy(batch);
}

static inline void close_store(kv_async_batch_manager_t *manager)
{
    must(kv_async_batch_manager_stop(manager), "stop the manager");
    kv_async_batch_manager_destroy(manager);
}

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

#endif
