/*
 * mixed.c: rows that read and write in one batch, with popular keys: half and half, 80/20, and the workloads of YCSB
 * (A, B, C, D, F; E scans, which this store does not do). Every read knows which round of its key it is to find.
 */
#define _GNU_SOURCE
#include "bench.h"

#define THETA 0.99

/* Shares in percent; what is left are inserts. */
struct mixture {
    int read, update, modify; /* modify: read a key and write it anew */
    int latest;               /* popular keys are the newest */
};

static struct mixture mixture;
static uint32_t *rounds;
static size_t present; /* keys 0 to present - 1 are there */

/* What the next batch does, drawn before its time is taken. */
static struct drawn {
    uint32_t key;
    enum { READ, WRITE, INSERT } kind;
} * draws;
static size_t drawn_first;

static void draw(struct load *load, size_t first, size_t count)
{
    size_t now_present = present;
    (void)load;
    drawn_first = first;
    for (size_t i = 0; i < count; i++) {
        uint64_t random = mix((first + i) * 2 + (uint64_t)run_number * 0x100000001), other = mix(random);
        int percent = (int)(random % 100);
        size_t key;
        if (mixture.latest) {
            size_t back = zipf_rank(other);
            key = back < now_present ? now_present - 1 - back : 0;
        } else
            key = zipf_item(other, now_present);
        if (percent < mixture.read + mixture.modify)
            draws[i] = (struct drawn){(uint32_t)key, READ};
        else if (percent < mixture.read + mixture.modify + mixture.update || now_present == opt.keys)
            draws[i] = (struct drawn){(uint32_t)key, WRITE};
        else
            draws[i] = (struct drawn){(uint32_t)now_present++, INSERT};
    }
}

static int put_round(struct load *load, struct slot *slot, size_t key)
{
    return kv_async_batch_put(slot->batch, key_of(key), KEY_BYTES, value_of(word_in(key, rounds[key])), load->value, NULL, NULL);
}

static int add_drawn(struct load *load, struct slot *slot, size_t i)
{
    const struct drawn *drawn = &draws[i - drawn_first];
    size_t key = drawn->key;
    switch (drawn->kind) {
    case READ:
        return read_into(slot, key_of(key), (long)word_in(key, rounds[key]));
    case WRITE:
        rounds[key]++;
        break;
    case INSERT:
        present++;
        break;
    }
    return put_round(load, slot, key);
}

/* The second half of read-modify-write: some of the keys that the batch before has read. */
static int add_modified(struct load *load, struct slot *slot, size_t i)
{
    size_t key = draws[i].key;
    rounds[key]++;
    return put_round(load, slot, key);
}

/* YCSB's F: batches of reads; a share of what they read is then written in a batch of its own. */
static void drive_modifying(struct load *load)
{
    size_t each = 1000, writes = each * (size_t)mixture.modify / 100, ops = load->ops;
    double took = 0, cpu = 0;
    size_t done = 0;
    for (size_t first = 0; first < ops; first += each) {
        struct load reads = *load, changes = *load;
        reads.ops = each;
        reads.first = first;
        drive(&reads);
        changes.ops = changes.batch = writes;
        changes.prepare = NULL;
        changes.add = add_modified;
        drive(&changes);
        took += reads.took + changes.took;
        cpu += reads.cpu + changes.cpu;
        done += each; /* a read-modify-write is one operation */
    }
    load->took = took;
    load->cpu = cpu;
    load->done = done;
}

static void mixed_row(struct mixture mixed, double goal)
{
    struct series series = {0};
    mixture = mixed;
    int inserting = mixture.read + mixture.update + mixture.modify < 100;
    present = inserting ? opt.keys - opt.keys / 10 : opt.keys;
    rounds = calloc(opt.keys, sizeof *rounds);
    draws = memory(1000 * sizeof *draws);
    if (rounds == NULL)
        fail("memory", strerror(errno));
    zipf_begin(present, THETA);
    kv_async_batch_manager_t *manager = open_store("mixed", "", 0);
    fill(manager, present);
    settle();
    struct load load = {.manager = manager, .ops = opt.keys, .batch = 1000, .in_flight = 1, .value = opt.value, .add = add_drawn,
                        .prepare = draw, .latencies = &series};
    if (mixture.modify > 0)
        drive_modifying(&load);
    else
        drive(&load);
    if (goal > 0)
        at_least("rate", "M ops/s", rate(&load), goal);
    else
        figure("rate", "M ops/s", rate(&load));
    figure("of memcpy", "x", rate(&load) / base(BASE_MEMCPY));
    figure("CPU, all threads", "ns/op", cpu_ns(&load));
    latencies("submit to completion", &series, 0, 0);
    check_all(manager, present, rounds);
    drop_store(manager, "mixed");
    free(rounds);
    free(draws);
}

void run_mixed_50(void)
{
    mixed_row((struct mixture){.read = 50, .update = 50}, 5);
}

void run_mixed_80(void)
{
    mixed_row((struct mixture){.read = 80, .update = 20}, 5);
}

void run_ycsb_a(void)
{
    mixed_row((struct mixture){.read = 50, .update = 50}, 0);
}

void run_ycsb_b(void)
{
    mixed_row((struct mixture){.read = 95, .update = 5}, 0);
}

void run_ycsb_c(void)
{
    mixed_row((struct mixture){.read = 100}, 0);
}

void run_ycsb_d(void)
{
    mixed_row((struct mixture){.read = 95, .latest = 1}, 0);
}

void run_ycsb_f(void)
{
    mixed_row((struct mixture){.read = 50, .modify = 50}, 0);
}
