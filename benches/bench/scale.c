/*
 * scale.c: rows about more keys (10 M, 40 M) and larger values (1 KiB, 64 KiB) than usual.
 */
#define _GNU_SOURCE
#include "bench.h"

enum { VALUES_BYTES = 1 << 30, VALUES_MIB = 2048 };

/* ---- Many keys ---- */

static struct load many_load(kv_async_batch_manager_t *manager, size_t count, struct scratch *scratch)
{
    return (struct load){.manager = manager, .ops = count, .batch = 1000, .in_flight = 1, .value = opt.value, .add = add_made_put,
                         .prepare = make_puts, .context = scratch};
}

static size_t many; /* keys that reads are drawn from */

static void make_reads(struct load *load, size_t first, size_t count)
{
    struct scratch *scratch = load->context;
    scratch->first = first;
    for (size_t i = 0; i < count; i++)
        make_key(scratch->keys[i], mix(first + i) % many);
}

static int add_made_get(struct load *load, struct slot *slot, size_t i)
{
    struct scratch *scratch = load->context;
    return read_into(slot, scratch->keys[i - scratch->first], (long)(mix(i) % many));
}

/* Puts `count` new keys, overwrites as many as 1 M of them, reads some; the log is held in memory whole. */
static void measure_keys(size_t count, double *put, double *update, double *get)
{
    struct scratch scratch = scratch_for(1000, opt.value);
    char options[80];
    size_t log_mib = (count + 2 * opt.keys) * (opt.value + 64) / (1 << 20) + 256;
    snprintf(options, sizeof options, "?hot_log_bytes=%zum&min_fill_rate=0", log_mib);
    settle_for(2 * log_mib + log_mib / 4); /* the hot log, the kernel's copy, the index */
    kv_async_batch_manager_t *manager = open_store("many", options, 0);
    struct load load = many_load(manager, count, &scratch);
    drive(&load);
    *put = rate(&load);
    settle();
    load.ops = count < 1000000 ? count : 1000000;
    load.first = (count - load.ops) / 2;
    drive(&load);
    *update = rate(&load);
    many = count;
    load = many_load(manager, 1000000, &scratch);
    load.add = add_made_get;
    load.prepare = make_reads;
    drive(&load); /* not the first look at memory: its host may have looked after it meanwhile, and that costs once per page */
    drive(&load);
    *get = rate(&load);
    drop_store(manager, "many");
    drop_scratch(&scratch);
}

static void keys_row(size_t count)
{
    static double put_1, update_1, get_1;
    static int measured_in = -1;
    double put, update, get;
    if (measured_in != run_number)
        measure_keys(1000000, &put_1, &update_1, &get_1);
    measured_in = run_number;
    measure_keys(count, &put, &update, &get);
    figure("put of new keys", "M ops/s", put);
    at_least("put of new keys, of 1 M keys", "x", put / put_1, 0.7);
    figure("overwrite", "M ops/s", update);
    at_least("overwrite, of 1 M keys", "x", update / update_1, 0.7);
    figure("get", "M ops/s", get);
    at_least("get, of 1 M keys", "x", get / get_1, 0.7);
}

void run_keys_10(void)
{
    keys_row(extent.quick ? 2000000 : 10000000);
}

void run_keys_many(void)
{
    keys_row(extent.many_keys);
}

/* ---- Large values ---- */

static int add_put_value(struct load *load, struct slot *slot, size_t i)
{
    size_t key = i % opt.keys;
    return kv_async_batch_put(slot->batch, key_of(key), KEY_BYTES, value_of(key), load->value, NULL, NULL);
}

static int add_get_value(struct load *load, struct slot *slot, size_t i)
{
    size_t key = i % opt.keys;
    (void)load;
    return read_into(slot, key_of(key), (long)key);
}

/* The same values twice more: by the second time compaction has removed chunks. Bytes per second of that. */
static double overwrite_twice(struct load *load)
{
    double begun = 0;
    for (int round = 0; round < 2; round++) {
        begun = seconds();
        drive(load);
    }
    return (double)(load->done * (load->value + KEY_BYTES)) / (seconds() - begun);
}

/* 1 GiB of values of this size: durable, eight batches in flight; and unsynced, with one sync at the end. */
static void values_row(size_t value, size_t batch)
{
    double device = device_write_bytes_per_second(DEVICE_WRITTEN_BLOCKS), new_blocks = device_write_bytes_per_second(DEVICE_NEW_BLOCKS);
    size_t count = (extent.quick ? VALUES_BYTES / 8 : VALUES_BYTES) / value;
    for (int fsync = 1; fsync >= 0; fsync--) {
        kv_async_batch_manager_t *manager = open_store("values", "", fsync);
        struct load load = {.manager = manager, .ops = count < opt.keys ? count : opt.keys, .batch = batch, .in_flight = fsync ? 8 : 1,
                            .value = value, .add = add_put_value};
        settle_for(VALUES_MIB); /* the hot log, and what is in the page cache */
        double begun = seconds();
        drive(&load);
        if (!fsync)
            sync_stores();
        double bytes = (double)(load.done * (value + KEY_BYTES)), per_second = bytes / (seconds() - begun);
        figure(fsync ? "durable, 8 in flight" : "fsync off, one sync at the end", "MB/s", per_second / 1e6);
        at_least(fsync ? "durable, of the device's write" : "fsync off, of the device's write", "x", per_second / device, 0.8);
        if (fsync)
            figure("durable, of synced writes into new blocks", "x", per_second / new_blocks);
        figure(fsync ? "durable, CPU" : "fsync off, CPU", "ns/op", cpu_ns(&load));
        if (fsync)
            at_least("durable, store in use, of the device's write", "x", overwrite_twice(&load) / device, 0.8);
        load.add = add_get_value;
        drive(&load);
        drop_store(manager, "values");
    }
}

void run_values_1k(void)
{
    values_row(1 << 10, 1000);
}

void run_values_64k(void)
{
    values_row(64 << 10, 64);
}
