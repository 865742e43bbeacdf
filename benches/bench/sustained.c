/*
 * sustained.c: the row that overwrites random keys for a long time, so that compaction has to keep up; beside the same
 * without compaction, for a share of the time.
 */
#define _GNU_SOURCE
#include "bench.h"

enum { BLOCK = 1000, OVERWRITE_MIB = 4096 /* the kernel's copy of what is written in seconds */ };

/* What is overwritten at once: a block of keys that lie anywhere in the store, and side by side in the memory of this program.
 * Each time it gets other values. */
static uint32_t *block_rounds;
static size_t blocks;

static size_t block_of(size_t i)
{
    return mix(i / BLOCK + (size_t)run_number * 1000003) % blocks;
}

static int put_at(struct load *load, struct slot *slot, size_t position)
{
    size_t word = word_in(position, block_rounds[position / BLOCK]);
    return kv_async_batch_put(slot->batch, ordered_keys + position * KEY_BYTES, KEY_BYTES, value_of(word), load->value, NULL, NULL);
}

static int add_first(struct load *load, struct slot *slot, size_t i)
{
    return put_at(load, slot, i);
}

static int add_overwrite(struct load *load, struct slot *slot, size_t i)
{
    size_t block = block_of(i);
    block_rounds[block] += i % BLOCK == 0;
    return put_at(load, slot, block * BLOCK + i % BLOCK);
}

static const char *expected(size_t i, size_t *word)
{
    *word = word_in(i, block_rounds[i / BLOCK]);
    return ordered_keys + i * KEY_BYTES;
}

kv_async_batch_manager_t *overwrite(const char *options, size_t ops, double duration, struct load *load, struct series *series)
{
    kv_async_batch_manager_t *manager = open_store("sustained", options, 0);
    blocks = opt.keys / BLOCK;
    free(block_rounds);
    block_rounds = calloc(blocks, sizeof *block_rounds);
    if (block_rounds == NULL)
        fail("memory", strerror(errno));
    *load = (struct load){.manager = manager, .ops = blocks * BLOCK, .batch = BLOCK, .in_flight = 1, .value = opt.value, .add = add_first};
    drive(load);
    settle_for(OVERWRITE_MIB);
    load->ops = ops;
    load->add = add_overwrite;
    load->until = duration > 0 ? seconds() + duration : 0;
    load->latencies = series;
    drive(load);
    return manager;
}

void check_overwritten(kv_async_batch_manager_t *manager)
{
    check_each(manager, blocks * BLOCK, expected);
}

void run_sustained(void)
{
    struct series with = {0}, without = {0};
    struct load load;
    double duration = (double)extent.seconds;
    kv_async_batch_manager_t *manager = overwrite("?min_fill_rate=0", SIZE_MAX / 2, duration < 40 ? duration / 4 : 10, &load, &without);
    figure("rate without compaction", "M ops/s", rate(&load));
    drop_store(manager, "sustained");
    settle();
    manager = overwrite("?min_fill_rate=50", SIZE_MAX / 2, duration, &load, &with);
    at_least("rate", "M ops/s", rate(&load), 3);
    figure("CPU, all threads", "ns/op", cpu_ns(&load));
    figure("moved, of what was put", "x", counter(manager, "moved_records") / (double)load.done);
    figure("chunks removed", "count", counter(manager, "chunks_removed"));
    figure("commits that were held back", "share", counter(manager, "held_back") / counter(manager, "groups"));
    check_overwritten(manager);
    drop_store(manager, "sustained");
    double p99_with = quantile(with.values, with.count, 0.99), p99_without = quantile(without.values, without.count, 0.99);
    at_most("p99 of commits, of that without compaction", "x", p99_with / p99_without, 3);
    figure("longest commit", "ms", quantile(with.values, with.count, 1) * 1e3);
    latencies("with compaction", &with, 0, 10000);
    latencies("without", &without, 0, 0);
}
