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

enum { BATCH = 1000 };

/* What the next batch does, made before its time is taken: fetching keys and values from all over the place is not the
 * library's work. */
static struct drawn {
    char key[KEY_BYTES];
    uint32_t number;
    uint32_t word; /* where in the pool the value begins that is read or written */
    int writes;
} draws[BATCH];
static char *values; /* BATCH of them */
static size_t drawn_first;
static uint32_t *popular; /* draws of a rank or of a key, one per operation */

static void prepare_write(size_t i, size_t key, size_t value_bytes)
{
    draws[i].word = (uint32_t)word_in(key, rounds[key]);
    draws[i].writes = 1;
    memcpy(values + i * value_bytes, value_of(draws[i].word), value_bytes);
}

static void draw(struct load *load, size_t first, size_t count)
{
    drawn_first = first;
    for (size_t i = 0; i < count; i++) {
        int percent = (int)(mix((first + i) * 2 + (uint64_t)run_number * 0x100000001) % 100);
        size_t key = popular[first + i];
        if (mixture.latest)
            key = key < present ? present - 1 - key : 0;
        int reads = percent < mixture.read + mixture.modify;
        int inserts = !reads && percent >= mixture.read + mixture.modify + mixture.update && present < opt.keys;
        if (inserts)
            key = present++;
        draws[i].number = (uint32_t)key;
        memcpy(draws[i].key, key_of(key), KEY_BYTES);
        if (reads) {
            draws[i].word = (uint32_t)word_in(key, rounds[key]);
            draws[i].writes = 0;
        } else {
            rounds[key] += !inserts;
            prepare_write(i, key, load->value);
        }
    }
}

static int add_drawn(struct load *load, struct slot *slot, size_t i)
{
    size_t at = i - drawn_first;
    if (!draws[at].writes)
        return read_into(slot, draws[at].key, draws[at].word);
    return kv_async_batch_put(slot->batch, draws[at].key, KEY_BYTES, values + at * load->value, load->value, NULL, NULL);
}

/* The second half of read-modify-write: some of the keys that the batch before has read. */
static void draw_changes(struct load *load, size_t first, size_t count)
{
    drawn_first = first;
    for (size_t i = 0; i < count; i++) {
        rounds[draws[i].number]++;
        prepare_write(i, draws[i].number, load->value);
    }
}

/* YCSB's F: batches of reads; a share of what they read is then written in a batch of its own. */
static void drive_modifying(struct load *load)
{
    size_t each = BATCH, writes = each * (size_t)mixture.modify / 100, ops = load->ops / each * each;
    double took = 0, cpu = 0;
    size_t done = 0;
    for (size_t first = 0; first < ops; first += each) {
        struct load reads = *load, changes = *load;
        reads.ops = each;
        reads.first = first;
        drive(&reads);
        changes.ops = changes.batch = writes;
        changes.prepare = draw_changes;
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
    values = memory(BATCH * opt.value);
    popular = memory(opt.keys * sizeof *popular);
    if (rounds == NULL)
        fail("memory", strerror(errno));
    zipf_begin(present, THETA);
    for (size_t i = 0; i < opt.keys; i++) {
        uint64_t random = mix(mix(i) + (uint64_t)run_number);
        popular[i] = (uint32_t)(mixture.latest ? zipf_rank(random) : zipf_item(random, present));
    }
    kv_async_batch_manager_t *manager = open_store("mixed", "", 0);
    fill(manager, present);
    settle();
    struct load load = {.manager = manager, .ops = opt.keys, .batch = BATCH, .in_flight = 1, .value = opt.value, .add = add_drawn,
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
    free(values);
    free(popular);
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
