/*
 * delete_many.c: scenario "batch delete". Sessions carry the time of their end; what has ended is found with one
 * batch of reads and deleted with one batch of deletes, which takes effect as a whole.
 *
 *   cc -O2 -Iinclude examples-c/delete_many.c -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o delete_many
 *   ./delete_many [STORE]
 */
#define _GNU_SOURCE
#include "example.h"

#include <string.h>

enum { SESSIONS = 1000, KEY_BYTES = 32, TIMEOUT_MS = 10000 };

static char keys[SESSIONS][KEY_BYTES];

/* One batch of reads over all sessions. The out-pointers are written by wait, in this thread, before it returns. */
static size_t read_sessions(kv_async_batch_manager_t *manager, time_t now, unsigned char *expired, size_t *there)
{
    static char *values[SESSIONS]; /* one address per GET: a shared one would not be written */
    static size_t lens[SESSIONS];
    size_t count = 0;
    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, SESSIONS), "create a batch");
    for (int i = 0; i < SESSIONS; i++)
        must(kv_async_batch_get(batch, keys[i], strlen(keys[i]), &values[i], &lens[i], NULL, NULL), "get");
    must(kv_async_batch_submit(batch, NULL, NULL), "submit");
    must(kv_async_batch_wait(batch, TIMEOUT_MS), "wait");
    *there = 0;
    for (int i = 0; i < SESSIONS; i++) {
        *there += values[i] != NULL;
        expired[i] = values[i] != NULL && strtol(values[i], NULL, 10) <= (long)now;
        count += expired[i];
    }
    kv_async_batch_destroy(batch); /* the values belong to the batch and go with it */
    return count;
}

int main(int argc, char **argv)
{
    kv_async_batch_manager_t *manager = open_store(argc > 1 ? argv[1] : NULL, NULL);
    time_t now = time(NULL);

    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, SESSIONS), "create a batch");
    for (int i = 0; i < SESSIONS; i++) {
        char ends[32];
        snprintf(keys[i], KEY_BYTES, "session_%d", i);
        size_t len = (size_t)snprintf(ends, sizeof ends, "%ld", (long)now + (i % 4 == 0 ? -60 : 3600));
        must(kv_async_batch_put(batch, keys[i], strlen(keys[i]), ends, len, NULL, NULL), "put");
    }
    run_batch(batch, TIMEOUT_MS);

    static unsigned char expired[SESSIONS];
    size_t there = 0;
    size_t found = read_sessions(manager, now, expired, &there);

    batch = must_have(kv_async_batch_create(manager, SESSIONS), "create a batch");
    for (int i = 0; i < SESSIONS; i++)
        if (expired[i])
            must(kv_async_batch_delete(batch, keys[i], strlen(keys[i]), NULL, NULL), "delete");
    run_batch(batch, TIMEOUT_MS);

    size_t left = 0;
    size_t still_expired = read_sessions(manager, now, expired, &left);
    close_store(manager);
    printf("%zu of %zu sessions had ended and were deleted in one batch: %zu are left, %zu of them ended\n", found, there, left,
           still_expired);
    return found == SESSIONS / 4 && left == there - found && still_expired == 0 ? 0 : 1;
}
