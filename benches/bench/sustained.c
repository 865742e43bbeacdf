/*
 * sustained.c: the row that overwrites random keys for a long time, so that compaction has to keep up; beside the same
 * without compaction, for a share of the time.
 */
#define _GNU_SOURCE
#include "bench.h"

static uint32_t *rounds;

static size_t drawn(size_t i)
{
    return mix(i + (size_t)run_number) % opt.keys;
}

static int add_overwrite(struct load *load, struct slot *slot, size_t i)
{
    size_t key = drawn(i);
    rounds[key]++;
    return kv_async_batch_put(slot->batch, key_of(key), KEY_BYTES, value_of(word_in(key, rounds[key])), load->value, NULL, NULL);
}

static kv_async_batch_manager_t *overwrite(const char *options, double duration, struct load *load, struct series *series)
{
    kv_async_batch_manager_t *manager = open_store("sustained", options, 0);
    memset(rounds, 0, opt.keys * sizeof *rounds);
    fill(manager, opt.keys);
    settle();
    *load = (struct load){.manager = manager, .ops = SIZE_MAX / 2, .batch = 1000, .in_flight = 1, .value = opt.value, .add = add_overwrite,
                          .until = seconds() + duration, .latencies = series};
    drive(load);
    return manager;
}

void run_sustained(void)
{
    struct series with = {0}, without = {0};
    struct load load;
    double duration = (double)extent.seconds;
    rounds = memory(opt.keys * sizeof *rounds);
    kv_async_batch_manager_t *manager = overwrite("?min_fill_rate=0", duration < 40 ? duration / 4 : 10, &load, &without);
    figure("rate without compaction", "M ops/s", rate(&load));
    drop_store(manager, "sustained");
    settle();
    manager = overwrite("?min_fill_rate=50", duration, &load, &with);
    at_least("rate", "M ops/s", rate(&load), 3);
    figure("CPU, all threads", "ns/op", cpu_ns(&load));
    figure("moved, of what was put", "x", counter(manager, "moved_records") / (double)load.done);
    figure("chunks removed", "count", counter(manager, "chunks_removed"));
    figure("commits that were held back", "share", counter(manager, "held_back") / counter(manager, "groups"));
    check_all(manager, opt.keys, rounds);
    drop_store(manager, "sustained");
    double p99_with = quantile(with.values, with.count, 0.99), p99_without = quantile(without.values, without.count, 0.99);
    at_most("p99 of commits, of that without compaction", "x", p99_with / p99_without, 3);
    figure("longest commit", "ms", quantile(with.values, with.count, 1) * 1e3);
    latencies("with compaction", &with, 0, 10000);
    latencies("without", &without, 0, 0);
    free(rounds);
}
