/*
 * study.c: rows that compare settings: how large a batch should be, what it gains that batches of several threads are merged
 * into one write and one sync, how large such a group should become, and what some options of a store do.
 */
#define _GNU_SOURCE
#include "bench.h"

/* ---- The size of a batch ---- */

static const size_t sizes[] = {1, 10, 100, 500, 1000, 5000, 10000, 100000};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

void run_study_sizes(void)
{
    for (int s = 0; s < SIZES; s++) {
        size_t batch = sizes[s] < opt.keys ? sizes[s] : opt.keys;
        char name[56];
        for (int fsync = 0; fsync <= 1; fsync++) {
            size_t ops = fsync && batch < 1000 ? batch * 2000 : batch < 10 ? 200000 : opt.keys; /* one sync costs what it costs */
            kv_async_batch_manager_t *manager = open_store("study", "", fsync);
            struct load load = {.manager = manager, .ops = ops < opt.keys ? ops : opt.keys, .batch = batch, .in_flight = 1,
                                .value = opt.value, .add = add_put};
            drive(&load);
            snprintf(name, sizeof name, "put, fsync %s, %zu", fsync ? "on" : "off", sizes[s]);
            figure(name, "M ops/s", rate(&load));
            if (!fsync) {
                check_all(manager, load.ops, NULL);
                load.add = add_get;
                fill(manager, opt.keys);
                drive(&load);
                snprintf(name, sizeof name, "get, hot, %zu", sizes[s]);
                figure(name, "M ops/s", rate(&load));
            }
            drop_store(manager, "study");
            settle();
        }
    }
}

/* ---- Merging ---- */

/* `threads` threads, each with one batch of `batch` puts in flight, durable: M operations per second. */
static double together(const char *options, int threads, size_t batch, double *writes_per_batch)
{
    struct load loads[THREADS_MAX];
    kv_async_batch_manager_t *manager = open_store("study", options, 1);
    size_t each = batch * (extent.quick ? 20 : threads > 8 ? 300 : 1000);
    if (each * (size_t)threads > opt.keys)
        each = opt.keys / (size_t)threads / batch * batch;
    for (int t = 0; t < threads; t++)
        loads[t] = (struct load){.manager = manager, .ops = each, .batch = batch, .in_flight = 1, .value = opt.value, .add = add_put,
                                 .first = each * (size_t)t};
    double writes = counter(manager, "log_writes"), batches = counter(manager, "batches");
    double took = drive_together(loads, threads, NULL);
    *writes_per_batch = (counter(manager, "log_writes") - writes) / (counter(manager, "batches") - batches);
    check_all(manager, each * (size_t)threads, NULL);
    drop_store(manager, "study");
    settle();
    return (double)(each * (size_t)threads) / took / 1e6;
}

void run_study_merge(void)
{
    static const int threads[] = {1, 8, 64};
    static const size_t batches[] = {1, 10};
    for (int t = 0; t < 3; t++)
        for (int b = 0; b < 2; b++) {
            char name[56];
            double writes_on, writes_off;
            double off = together("?write_merge=false", threads[t], batches[b], &writes_off);
            double on = together("", threads[t], batches[b], &writes_on);
            snprintf(name, sizeof name, "%d threads x %zu, merging off", threads[t], batches[b]);
            figure(name, "M ops/s", off);
            snprintf(name, sizeof name, "%d threads x %zu, merging on", threads[t], batches[b]);
            figure(name, "M ops/s", on);
            snprintf(name, sizeof name, "%d threads x %zu, on, of off", threads[t], batches[b]);
            if (threads[t] == 64)
                at_least(name, "x", on / off, 2);
            else
                figure(name, "x", on / off);
            snprintf(name, sizeof name, "%d threads x %zu, log writes, of off", threads[t], batches[b]);
            if (threads[t] == 64)
                at_most(name, "x", writes_on / writes_off, 0.25);
            else
                figure(name, "x", writes_on / writes_off);
        }
}

/* ---- The limit of a group ---- */

static const struct {
    int threads;
    size_t batch;
} group_loads[] = {{8, 10}, {64, 10}, {8, 100}, {8, 1000}, {4, 10000}};
static const char *const limits[] = {"16k", "64k", "128k", "256k", "512k", "1m", "4m"};
enum { GROUP_LOADS = sizeof group_loads / sizeof group_loads[0], LIMITS = sizeof limits / sizeof limits[0], GROUP_ROUNDS = 3 };

/* Each load under each fixed limit and under the one that adapts, in turns; medians of the rounds are compared. */
void run_study_limits(void)
{
    for (int l = 0; l < GROUP_LOADS; l++) {
        double fixed[LIMITS][GROUP_ROUNDS], adaptive[GROUP_ROUNDS], best = 0, writes;
        char name[56];
        int rounds = extent.quick ? 1 : GROUP_ROUNDS;
        for (int round = 0; round < rounds; round++) {
            for (int k = 0; k < LIMITS; k++) {
                char options[64];
                snprintf(options, sizeof options, "?write_merge_bytes=%s", limits[k]);
                fixed[k][round] = together(options, group_loads[l].threads, group_loads[l].batch, &writes);
            }
            adaptive[round] = together("", group_loads[l].threads, group_loads[l].batch, &writes);
        }
        for (int k = 0; k < LIMITS; k++) {
            double seen = quantile(fixed[k], (size_t)rounds, 0.5);
            snprintf(name, sizeof name, "%d x %zu, limit %s", group_loads[l].threads, group_loads[l].batch, limits[k]);
            figure(name, "M ops/s", seen);
            best = seen > best ? seen : best;
        }
        double seen = quantile(adaptive, (size_t)rounds, 0.5);
        snprintf(name, sizeof name, "%d x %zu, adaptive", group_loads[l].threads, group_loads[l].batch);
        figure(name, "M ops/s", seen);
        snprintf(name, sizeof name, "%d x %zu, adaptive, of the best fixed", group_loads[l].threads, group_loads[l].batch);
        at_least(name, "x", seen / best, 0.9);
    }
}

/* ---- Options ---- */

static void study_in_flight(void)
{
    static const size_t numbers[] = {1, 2, 4, 8, 16};
    for (int n = 0; n < 5; n++) {
        char name[56];
        kv_async_batch_manager_t *manager = open_store("study", "", 1);
        struct load load = {.manager = manager, .ops = opt.keys, .batch = 1000, .in_flight = numbers[n], .value = opt.value,
                            .add = add_put};
        drive(&load);
        check_all(manager, opt.keys, NULL);
        drop_store(manager, "study");
        settle();
        snprintf(name, sizeof name, "put, fsync on, %zu batches in flight", numbers[n]);
        figure(name, "M ops/s", rate(&load));
    }
}

static void study_prepare(void)
{
    static const char *const options[] = {"?prepare_chunks=false", "?prepare_chunks=true"};
    for (int o = 0; o < 2; o++) {
        char name[56];
        struct series series = {0};
        kv_async_batch_manager_t *manager = open_store("study", options[o], 1);
        struct load load = {.manager = manager, .ops = opt.keys, .batch = 1000, .in_flight = 1, .value = opt.value, .add = add_put,
                            .latencies = &series};
        drive(&load); /* the first chunk is never prepared */
        series.count = 0;
        drive(&load);
        drop_store(manager, "study");
        settle();
        snprintf(name, sizeof name, "put, fsync on, %s", options[o] + 1);
        figure(name, "M ops/s", rate(&load));
        snprintf(name, sizeof name, "submit to durable, %s", options[o] + 1);
        latencies(name, &series, 0, 0);
    }
}

static void study_hot_log(void)
{
    static const char *const options[] = {"?hot_log_bytes=0", "?hot_log_bytes=256m"};
    for (int o = 0; o < 2; o++) {
        char name[56];
        kv_async_batch_manager_t *manager = open_store("study", options[o], 0);
        fill(manager, opt.keys);
        settle();
        struct load load = {.manager = manager, .ops = opt.keys / 4, .batch = 1000, .in_flight = 1, .value = opt.value, .add = add_get};
        drive(&load);
        snprintf(name, sizeof name, "get, just written, %s", options[o] + 1);
        figure(name, "M ops/s", rate(&load));
        drop_store(manager, "study");
        settle();
    }
}

/* Random overwriting, five times as much as there is: how fast, how slow at times, and how much disk it takes. */
static void study_fill_rate(void)
{
    static const int percents[] = {0, 30, 50, 70};
    for (int p = 0; p < 4; p++) {
        char name[56], options[40];
        struct series series = {0};
        snprintf(options, sizeof options, "?min_fill_rate=%d", percents[p]);
        struct load load;
        kv_async_batch_manager_t *manager = overwrite(options, 5 * opt.keys, 0, &load, &series);
        snprintf(name, sizeof name, "overwrite, min_fill_rate=%d", percents[p]);
        figure(name, "M ops/s", rate(&load));
        snprintf(name, sizeof name, "min_fill_rate=%d, on disk, of live bytes", percents[p]);
        figure(name, "x", disk_bytes("sustained") / (double)(opt.keys * (KEY_BYTES + opt.value)));
        snprintf(name, sizeof name, "min_fill_rate=%d, commit", percents[p]);
        latencies(name, &series, 0, 0);
        check_overwritten(manager);
        drop_store(manager, "sustained");
        settle();
    }
}

void run_study_options(void)
{
    study_in_flight();
    study_prepare();
    study_hot_log();
    study_fill_rate();
}
