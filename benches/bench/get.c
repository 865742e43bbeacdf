/*
 * get.c: rows that read: what is in memory, with one and two threads; what is not there; and what is on the disk only,
 * beside plain reads of the same files.
 */
#define _GNU_SOURCE
#include "bench.h"

enum { COLD_VALUE_BYTES = 1024, COLD_BATCH = 256, COLD_THREADS = 8, RAW_DEPTH = 128 };

/* ---- Hot ---- */

/* The store that rows of hot reads share. It stays open, so what was just written is hot. */
static kv_async_batch_manager_t *hot;
static kv_async_batch_manager_t *cold;
static size_t cold_keys;

static kv_async_batch_manager_t *hot_store(void)
{
    if (hot == NULL) {
        hot = open_store("hot", "", 0);
        fill(hot, opt.keys);
        check_all(hot, opt.keys, NULL);
        settle();
    }
    return hot;
}

static struct load hot_load(size_t batch, struct series *series)
{
    return (struct load){.manager = hot_store(), .ops = opt.keys, .batch = batch, .in_flight = 1, .value = opt.value, .add = add_get,
                         .latencies = series};
}

void run_get_hot(void)
{
    struct series series = {0};
    struct load load = hot_load(1000, &series);
    drive(&load); /* warms up */
    series.count = 0;
    double cold_before = counter(hot, "cold_reads");
    drive(&load);
    at_least("one thread", "M ops/s", rate(&load), 6);
    figure("of memcpy", "x", rate(&load) / base(BASE_MEMCPY));
    at_most("CPU, all threads", "ns/op", cpu_ns(&load), 130);
    latencies("submit to completion", &series, 0, 0);
    struct load two[2] = {hot_load(1000, NULL), hot_load(1000, NULL)};
    two[0].ops = two[1].ops = opt.keys / 2;
    two[1].first = opt.keys / 2;
    double cpu, took = drive_together(two, 2, &cpu), both = (double)(two[0].done + two[1].done) / took / 1e6;
    figure("two threads", "M ops/s", both);
    at_least("two threads, of one", "x", both / rate(&load), 1.7);
    if (counter(hot, "cold_reads") != cold_before)
        fail(now->name, "reads that should be hot went to the disk: choose fewer --keys");
}

void run_get_missing(void)
{
    struct load load = hot_load(1000, NULL);
    load.add = add_get_missing;
    drive(&load);
    at_least("rate", "M ops/s", rate(&load), 12);
    figure("of memcpy", "x", rate(&load) / base(BASE_MEMCPY));
    figure("CPU, all threads", "ns/op", cpu_ns(&load));
}

void run_threads_get(void)
{
    struct load loads[8];
    for (int t = 0; t < 8; t++) {
        loads[t] = hot_load(10, NULL);
        loads[t].ops = opt.keys / 8;
        loads[t].first = opt.keys / 8 * (size_t)t;
    }
    double cpu, took = drive_together(loads, 8, &cpu);
    double done = (double)(opt.keys / 8 * 8);
    at_least("rate", "M ops/s", done / took / 1e6, 4);
    figure("CPU, all threads", "ns/op", cpu / done * 1e9);
}

/* ---- Cold ---- */

static int add_cold_get(struct load *load, struct slot *slot, size_t i)
{
    char key[KEY_BYTES];
    size_t drawn = mix(i + (size_t)run_number * 977 * opt.keys) % cold_keys;
    (void)load;
    make_key(key, drawn);
    return read_into(slot, key, (long)drawn);
}

static kv_async_batch_manager_t *cold_store(void)
{
    if (cold == NULL) {
        cold_keys = extent.quick ? 256 << 10 : 2 << 20;
        struct scratch scratch = scratch_for(opt.batch, COLD_VALUE_BYTES);
        struct load load = {.manager = open_store("cold", "", 0), .ops = cold_keys, .batch = opt.batch, .in_flight = 1,
                            .value = COLD_VALUE_BYTES, .add = add_made_put, .prepare = make_puts, .context = &scratch};
        drive(&load);
        drop_scratch(&scratch);
        close_store(load.manager);
        cold = open_store("cold", "", 0); /* what was written is no longer in its memory */
    }
    return cold;
}

void run_get_cold(void)
{
    size_t reads = extent.quick ? 20000 : 100000;
    struct series series = {0};
    struct load load = {.manager = cold_store(), .ops = reads, .batch = COLD_BATCH, .in_flight = 1, .value = COLD_VALUE_BYTES,
                        .add = add_cold_get, .latencies = &series};
    settle();
    drop_caches("cold");
    double raw = raw_reads_per_second("cold", RAW_DEPTH, reads);
    drop_caches("cold");
    double before = counter(cold, "cold_reads");
    drive(&load);
    figure("reads answered by the disk", "share", (counter(cold, "cold_reads") - before) / (double)reads);
    figure("rate", "K ops/s", rate(&load) * 1e3);
    figure("raw reads of 4 KiB, 128 in flight", "K/s", raw / 1e3);
    if (raw > 0)
        at_least("of raw reads", "x", rate(&load) * 1e6 / raw, 0.85);
    figure("CPU, all threads", "ns/op", cpu_ns(&load));
    latencies("256 cold reads", &series, 0, 0);
    struct load loads[COLD_THREADS];
    for (int t = 0; t < COLD_THREADS; t++) {
        loads[t] = load;
        loads[t].latencies = NULL;
        loads[t].ops = reads / COLD_THREADS;
        loads[t].first = reads * (size_t)(t + 1);
    }
    drop_caches("cold");
    figure("8 threads", "K ops/s", (double)(reads / COLD_THREADS * COLD_THREADS) / drive_together(loads, COLD_THREADS, NULL) / 1e3);
}

void close_shared_stores(void)
{
    if (hot != NULL)
        drop_store(hot, "hot");
    hot = NULL;
    if (cold != NULL && run_number + 1 == opt.runs)
        drop_store(cold, "cold");
}
