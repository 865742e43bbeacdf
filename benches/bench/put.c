/*
 * put.c: rows that write: adding to a batch, puts with and without a sync, one large batch, deletes, and the example that
 * the documentation gives. Each begins with an empty store, and every byte is read back afterwards.
 */
#define _GNU_SOURCE
#include "bench.h"

enum { COUNTED_BATCHES = 100, LARGE_BATCH = 100000, EXAMPLE_BATCH = 1000, EXAMPLE_TIMES = 300, ROUNDS_BEFORE = 3 };

/* ---- Adding ---- */

static atomic_size_t given, taken_back;

static void *give(size_t bytes)
{
    given++;
    return malloc(bytes);
}

static void take_back(void *memory)
{
    taken_back += memory != NULL;
    free(memory);
}

static double add_batch(kv_async_batch_manager_t *manager, size_t first, size_t count, int submit)
{
    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, count), "create a batch");
    double begun = seconds();
    for (size_t i = first; i < first + count; i++)
        must(kv_async_batch_put(batch, key_of(i), KEY_BYTES, value_of(i), opt.value, NULL, NULL), "put");
    double took = seconds() - begun;
    if (submit) {
        must(kv_async_batch_submit(batch, NULL, NULL), "submit");
        must(kv_async_batch_wait(batch, TIMEOUT_MS), "wait");
    }
    kv_async_batch_destroy(batch);
    return took;
}

static size_t batches_in(size_t wanted)
{
    size_t most = opt.keys / opt.batch;
    return most < 1 ? fail("--keys", "must be at least a batch"), 0 : wanted < most ? wanted : most;
}

void run_add(void)
{
    double took = 0;
    size_t added = 0, counted = batches_in(COUNTED_BATCHES);
    kv_async_batch_manager_t *manager = open_store("add", "", 0);
    for (size_t first = 0; first + opt.batch <= opt.keys; first += opt.batch, added += opt.batch)
        took += add_batch(manager, first, opt.batch, 0);
    at_least("add", "M ops/s", (double)added / took / 1e6, 30);
    figure("add, of memcpy", "x", (double)added / took / 1e6 / base(BASE_MEMCPY));
    for (int phase = 0; phase < 2; phase++) { /* the first one warms up */
        counting_allocations = phase;
        for (size_t b = 0; b < counted; b++)
            add_batch(manager, b * opt.batch, opt.batch, 1);
        counting_allocations = 0;
    }
    at_most("malloc calls, add to destroy", "per batch", (double)atomic_exchange(&allocations, 0) / (double)counted, 2);
    drop_store(manager, "add");

    kv_async_batch_config_t config = config_with(0);
    config.alloc_func = give;
    config.free_func = take_back;
    manager = open_managed("add", "", config);
    add_batch(manager, 0, opt.batch, 1);
    given = 0;
    for (size_t b = 0; b < counted; b++)
        add_batch(manager, b * opt.batch, opt.batch, 1);
    at_most("alloc_func calls", "per batch", (double)given / (double)counted, 2);
    drop_store(manager, "add");
}

/* ---- Putting ---- */

/* Puts all keys. A store in use has had them put before, so that compaction has something to remove. */
static double put_all(size_t batch, int fsync, size_t in_flight, int in_use, double goal, struct series *series, double *cpu)
{
    kv_async_batch_manager_t *manager = open_store("put", "", fsync);
    struct load load = {.manager = manager, .ops = opt.keys, .batch = batch, .in_flight = in_flight, .value = opt.value, .add = add_put};
    for (int round = 0; in_use && round < ROUNDS_BEFORE; round++)
        drive(&load);
    load.latencies = series;
    drive(&load);
    at_least("rate", "M ops/s", rate(&load), goal);
    *cpu = cpu_ns(&load);
    check_all(manager, opt.keys, NULL);
    drop_store(manager, "put");
    return rate(&load);
}

static void put_unsynced(size_t batch, double goal, double cpu_goal)
{
    struct series series = {0};
    double cpu, seen = put_all(batch, 0, 1, 0, goal, &series, &cpu);
    figure("of plain write", "x", seen / base(BASE_WRITE));
    figure("of memcpy", "x", seen / base(BASE_MEMCPY));
    if (cpu_goal > 0)
        at_most("CPU, all threads", "ns/op", cpu, cpu_goal);
    else
        figure("CPU, all threads", "ns/op", cpu);
    latencies("submit to completion", &series, 0, 0);
}

void run_put_100(void)
{
    put_unsynced(100, 6, 0);
}

void run_put_1000(void)
{
    put_unsynced(1000, 8, 120);
}

void run_put_10000(void)
{
    put_unsynced(10000, 8, 0);
}

static void put_synced(size_t in_flight, int in_use, double goal, double ratio_goal)
{
    struct series series = {0};
    double plain = base(BASE_FDATASYNC), cpu, seen = put_all(opt.batch, 1, in_flight, in_use, goal, &series, &cpu);
    at_least("of write + fdatasync, a sync per batch", "x", seen / plain, ratio_goal);
    if (in_flight > 1)
        figure("of write + fdatasync, a sync per 8", "x", seen / base(BASE_FDATASYNC_8));
    figure("CPU, all threads", "ns/op", cpu);
    latencies("submit to durable", &series, in_use && in_flight == 1 ? 220 : 0, 0);
}

void run_put_fsync_1(void)
{
    put_synced(1, 0, 3.3, 0.6);
}

void run_put_fsync_8(void)
{
    put_synced(8, 0, 7, 0.9);
}

void run_put_fsync_1_in_use(void)
{
    put_synced(1, 1, 3.3, 0.6);
}

void run_put_fsync_8_in_use(void)
{
    put_synced(8, 1, 7, 0.9);
}

void run_put_large_batch(void)
{
    size_t count = opt.keys < LARGE_BATCH ? opt.keys : LARGE_BATCH;
    kv_async_batch_manager_t *manager = open_store("put", "", 0);
    double begun = seconds(), adding = add_batch(manager, 0, count, 1), took = seconds() - begun;
    at_most("one batch of 100000, create to destroy", "ms", took * 1e3 * LARGE_BATCH / (double)count, 20);
    figure("of that, adding", "ms", adding * 1e3 * LARGE_BATCH / (double)count);
    check_all(manager, count, NULL);
    drop_store(manager, "put");
}

static int add_delete(struct load *load, struct slot *slot, size_t i)
{
    (void)load;
    return kv_async_batch_delete(slot->batch, key_of(i), KEY_BYTES, NULL, NULL);
}

static int add_get_deleted(struct load *load, struct slot *slot, size_t i)
{
    (void)load;
    return read_into(slot, key_of(i), ABSENT);
}

void run_delete(void)
{
    kv_async_batch_manager_t *manager = open_store("put", "", 0);
    fill(manager, opt.keys);
    settle();
    struct load load = {.manager = manager, .ops = opt.keys, .batch = opt.batch, .in_flight = 1, .value = opt.value, .add = add_delete};
    drive(&load);
    figure("rate", "M ops/s", rate(&load));
    figure("CPU, all threads", "ns/op", cpu_ns(&load));
    load.add = add_get_deleted;
    drive(&load);
    drop_store(manager, "put");
}

/* ---- The documented example ---- */

static void on_put(kv_async_batch_operation_t *op, int result, void *user_data)
{
    (void)op;
    *(size_t *)user_data += result == KV_SUCCESS;
}

/* Add 1000 puts with callbacks, submit, wait: what the documentation gives 0.41 ms for. */
void run_example(void)
{
    size_t good = 0, rounds = 0, count = opt.keys < EXAMPLE_BATCH ? opt.keys : EXAMPLE_BATCH;
    struct series whole = {0}, submitting = {0};
    double adding = 0;
    kv_async_batch_manager_t *manager = open_store("example", "", 0);
    for (; rounds < EXAMPLE_TIMES; rounds++) {
        size_t first = rounds * count % (opt.keys - count + 1);
        double begun = seconds();
        kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, count), "create a batch");
        for (size_t i = first; i < first + count; i++)
            must(kv_async_batch_put(batch, key_of(i), KEY_BYTES, value_of(i), opt.value, on_put, &good), "put");
        double added = seconds();
        must(kv_async_batch_submit(batch, NULL, NULL), "submit");
        double submitted = seconds();
        must(kv_async_batch_wait(batch, 5000), "wait");
        note(&whole, seconds() - begun);
        note(&submitting, submitted - added);
        adding += added - begun;
        kv_async_batch_destroy(batch);
    }
    if (good != rounds * count)
        fail(now->name, "callbacks do not report success");
    drop_store(manager, "example");
    at_most("add, submit, wait: median", "ms", quantile(whole.values, whole.count, 0.5) * 1e3, 0.41);
    at_least("adding", "M ops/s", (double)(rounds * count) / adding / 1e6, 3.205128);
    at_most("the call of submit: median", "us", quantile(submitting.values, submitting.count, 0.5) * 1e6, 20);
    latencies("add, submit, wait", &whole, 0, 0);
    free(submitting.values);
}
