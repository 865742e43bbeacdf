/*
 * latency.c: rows about how long one batch takes: until it is durable, with the machine idle and with every core kept busy by
 * other processes; of reads beside writes that are being synced; and of batches of one operation.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { HOGS_MAX = 256, READ_BATCH = 100, ONES = 200000 };

/* ---- Submit to durable ---- */

static void durable(double p50_goal, double p99_goal)
{
    struct series series = {0};
    kv_async_batch_manager_t *manager = open_store("latency", "", 1);
    struct load load = {.manager = manager, .ops = opt.keys, .batch = 1000, .in_flight = 1, .value = opt.value, .add = add_put,
                        .latencies = &series};
    drive(&load);
    latencies("submit to durable", &series, p50_goal, p99_goal);
    figure("rate", "M ops/s", rate(&load));
    check_all(manager, opt.keys, NULL);
    drop_store(manager, "latency");
}

void run_latency(void)
{
    durable(220, 2000);
}

void run_latency_busy(void)
{
    pid_t hogs[HOGS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN), count = cores < HOGS_MAX ? cores : HOGS_MAX;
    for (long h = 0; h < count; h++) {
        hogs[h] = fork();
        if (hogs[h] < 0)
            fail("fork", strerror(errno));
        if (hogs[h] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (volatile unsigned spin = 0;; spin++)
                continue;
        }
    }
    durable(400, 0);
    for (long h = 0; h < count; h++) {
        kill(hogs[h], SIGKILL);
        waitpid(hogs[h], NULL, 0);
    }
}

/* ---- Reads beside syncs ---- */

static atomic_int writing;

static void *write_and_sync(void *argument)
{
    struct load *load = argument;
    while (writing)
        drive(load);
    return NULL;
}

static int add_put_high(struct load *load, struct slot *slot, size_t i)
{
    size_t key = opt.keys / 2 + i % (opt.keys / 2);
    return kv_async_batch_put(slot->batch, key_of(key), KEY_BYTES, value_of(key), load->value, NULL, NULL);
}

static int add_get_low(struct load *load, struct slot *slot, size_t i)
{
    size_t key = mix(i) % (opt.keys / 2);
    (void)load;
    return read_into(slot, key_of(key), (long)key);
}

/* Small batches of reads of one half of the keys, alone and while batches of puts to the other half are made durable. */
void run_reads_beside_syncs(void)
{
    struct series alone = {0}, beside = {0}, syncs = {0};
    pthread_t writer;
    kv_async_batch_manager_t *manager = open_store("latency", "", 1);
    fill(manager, opt.keys);
    settle();
    struct load reads = {.manager = manager, .ops = opt.keys / 2, .batch = READ_BATCH, .in_flight = 1, .value = opt.value,
                         .add = add_get_low, .latencies = &alone};
    struct load writes = {.manager = manager, .ops = opt.keys / 10, .batch = 1000, .in_flight = 1, .value = opt.value,
                          .add = add_put_high, .latencies = &syncs};
    drive(&reads);
    writing = 1;
    if (pthread_create(&writer, NULL, write_and_sync, &writes) != 0)
        fail("thread", strerror(errno));
    reads.latencies = &beside;
    drive(&reads);
    writing = 0;
    pthread_join(writer, NULL);
    check_all(manager, opt.keys, NULL);
    drop_store(manager, "latency");
    double commit = quantile(syncs.values, syncs.count, 0.5);
    /* Not the median: after each read that was held up, some go quickly until the next commit begins. */
    at_most("100 reads beside syncs p90, of a commit's p50", "x", quantile(beside.values, beside.count, 0.9) / commit, 0.25);
    latencies("100 reads, alone", &alone, 0, 0);
    latencies("100 reads, beside syncs", &beside, 0, 0);
    latencies("1000 puts, submit to durable", &syncs, 0, 0);
}

/* ---- One operation ---- */

static double clock_cost(void)
{
    double begun = seconds();
    for (int i = 0; i < ONES; i++)
        seconds();
    return (seconds() - begun) / ONES;
}

/* From the call of submit to the return of wait, on average; `whole` is from create to destroy. */
static void one_by_one(int put, double goal)
{
    struct series series = {0};
    size_t wrong = 0, span = opt.keys < 100000 ? opt.keys : 100000;
    double inside = 0, clock = clock_cost();
    kv_async_batch_manager_t *manager = open_store("one", "", 0);
    fill(manager, span);
    settle();
    double begun = seconds();
    for (size_t i = 0; i < ONES; i++) {
        size_t key = mix(i) % span, len = 0;
        char *value = NULL;
        kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, 1), "create a batch");
        if (put)
            must(kv_async_batch_put(batch, key_of(key), KEY_BYTES, value_of(key), opt.value, NULL, NULL), "put");
        else
            must(kv_async_batch_get(batch, key_of(key), KEY_BYTES, &value, &len, NULL, NULL), "get");
        double submitted = seconds();
        must(kv_async_batch_submit(batch, NULL, NULL), "submit");
        must(kv_async_batch_wait(batch, TIMEOUT_MS), "wait");
        double took = seconds() - submitted - clock;
        inside += took;
        note(&series, took);
        wrong += !put && !is_value(value, len, opt.value, key);
        kv_async_batch_destroy(batch);
    }
    double took = seconds() - begun - 2 * clock * ONES;
    if (wrong > 0)
        fail(now->name, "reads do not give what was stored");
    check_all(manager, span, NULL);
    drop_store(manager, "one");
    at_most("submit + wait", "us", inside / ONES * 1e6, goal);
    figure("create to destroy", "us", took / ONES * 1e6);
    latencies("submit + wait", &series, 0, 0);
}

void run_one_get(void)
{
    one_by_one(0, 1.5);
}

void run_one_put(void)
{
    one_by_one(1, 5);
}
