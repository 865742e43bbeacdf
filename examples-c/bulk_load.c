/*
 * bulk_load.c: scenario "high-frequency writes". Metrics arrive one by one and go out in batches of 1000, several
 * batches in flight: while one is being written and synced, the next one fills.
 *
 *   cc -O2 -Iinclude examples-c/bulk_load.c -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o bulk_load
 *   ./bulk_load [STORE [METRICS]]
 */
#define _GNU_SOURCE
#include "example.h"

#include <string.h>

enum { BATCH_OPS = 1000, IN_FLIGHT = 4, TIMEOUT_MS = 30000 };

struct pipeline {
    kv_async_batch_manager_t *manager;
    kv_async_batch_context_t *filling;
    kv_async_batch_context_t *in_flight[IN_FLIGHT]; /* a ring: the oldest is the next to be overwritten */
    size_t submitted;
};

static void finish(kv_async_batch_context_t **batch)
{
    if (*batch != NULL) {
        must(kv_async_batch_wait(*batch, TIMEOUT_MS), "wait");
        kv_async_batch_destroy(*batch);
        *batch = NULL;
    }
}

/* Sends the filling batch on its way. Waits only when IN_FLIGHT batches are on theirs already: that is the brake. */
static void flush(struct pipeline *p)
{
    kv_async_batch_context_t **slot = &p->in_flight[p->submitted % IN_FLIGHT];
    finish(slot);
    must(kv_async_batch_submit(p->filling, NULL, NULL), "submit");
    *slot = p->filling;
    p->filling = NULL;
    p->submitted++;
}

static void record(struct pipeline *p, const char *key, const char *value)
{
    if (p->filling == NULL)
        p->filling = must_have(kv_async_batch_create(p->manager, BATCH_OPS), "create a batch");
    int code = kv_async_batch_put(p->filling, key, strlen(key), value, strlen(value), NULL, NULL);
    if (code == KV_ERR_BATCH_FULL || code == KV_ERR_BATCH_TOO_LARGE) {
        flush(p); /* full: on its way with it, and into a fresh one */
        record(p, key, value);
        return;
    }
    must(code, "put");
}

int main(int argc, char **argv)
{
    long metrics = argc > 2 ? atol(argv[2]) : 200000;
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.max_batch_size = BATCH_OPS;
    config.timeout_ms = TIMEOUT_MS;
    struct pipeline p = {.manager = open_store(argc > 1 ? argv[1] : NULL, &config)};

    double begun = seconds();
    for (long i = 0; i < metrics; i++) {
        char key[64], value[128];
        snprintf(key, sizeof key, "metric_%08ld", i);
        snprintf(value, sizeof value, "{\"timestamp\":%ld,\"value\":%ld}", (long)time(NULL), i % 997);
        record(&p, key, value);
    }
    if (p.filling != NULL)
        flush(&p);
    for (size_t i = 0; i < IN_FLIGHT; i++)
        finish(&p.in_flight[i]);
    double took = seconds() - begun;

    close_store(p.manager);
    printf("stored %ld metrics in %zu batches, each on stable storage: %.2f s, %.0f metrics/s\n", metrics, p.submitted, took,
           (double)metrics / took);
    return 0;
}
