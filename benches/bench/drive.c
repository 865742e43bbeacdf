/*
 * drive.c: runs batches through the library, takes the time, and looks at every result. Called by the rows.
 *
 * What is measured goes from the first add to the end of the last batch, checks not counted: every value that is read is
 * compared by its length and its first and last words as it comes, and what that costs was measured before and is taken
 * off. Rows with values of the usual size have all bytes of all values compared by check_all, which no time is taken of.
 */
#define _GNU_SOURCE
#include "bench.h"

static double check_seconds; /* for one value */

/* ---- Stores ---- */

kv_async_batch_config_t config_with(int fsync)
{
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.max_batch_size = opt.batch;
    config.max_memory_usage = (size_t)512 << 20;
    config.timeout_ms = TIMEOUT_MS;
    config.enable_batch_fsync = fsync;
    config.max_concurrent_batches = 256;
    config.io_queue_depth = 256;
    return config;
}

kv_async_batch_manager_t *open_managed(const char *name, const char *options, kv_async_batch_config_t config)
{
    char url[5000];
    snprintf(url, sizeof url, "file:%s%s", path_of(name), options);
    setenv("KVBATCH_STORE", url, 1);
    kv_async_batch_manager_t *manager = must_have(kv_async_batch_manager_create(&config), "create the manager");
    must(kv_async_batch_manager_start(manager), "open the store");
    return manager;
}

kv_async_batch_manager_t *open_store(const char *name, const char *options, int fsync)
{
    return open_managed(name, options, config_with(fsync));
}

void close_store(kv_async_batch_manager_t *manager)
{
    must(kv_async_batch_manager_stop(manager), "stop the manager");
    kv_async_batch_manager_destroy(manager);
}

void drop_store(kv_async_batch_manager_t *manager, const char *name)
{
    close_store(manager);
    remove_tree(path_of(name));
}

/* A number that the store or the manager has counted, by the name under which it prints it. */
double counter(kv_async_batch_manager_t *manager, const char *name)
{
    char *text = NULL, wanted[80];
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, 1), "create a batch");
    if (stream == NULL)
        fail("memory", strerror(errno));
    must(kv_async_batch_print_stats(batch, stream), "print statistics");
    fclose(stream);
    kv_async_batch_destroy(batch);
    snprintf(wanted, sizeof wanted, "\n  %s: ", name);
    const char *at = strstr(text, wanted);
    if (at == NULL)
        fail(name, "the statistics have no such counter");
    double value = strtod(at + strlen(wanted), NULL);
    free(text);
    return value;
}

/* ---- One batch ---- */

int read_into(struct slot *slot, const char *key, long word)
{
    struct wanted *wanted = &slot->wanted[slot->reads++];
    wanted->word = word;
    return kv_async_batch_get(slot->batch, key, KEY_BYTES, &wanted->value, &wanted->len, NULL, NULL);
}

int add_put(struct load *load, struct slot *slot, size_t i)
{
    return kv_async_batch_put(slot->batch, key_of(i), KEY_BYTES, value_of(i), load->value, NULL, NULL);
}

/* All keys in no order, side by side in memory: fetching them from all over the place is not the library's work. */
uint32_t *order;
char *ordered_keys;

void make_order(void)
{
    order = memory(opt.keys * sizeof *order);
    ordered_keys = memory(opt.keys * KEY_BYTES);
    for (size_t i = 0; i < opt.keys; i++) {
        order[i] = (uint32_t)(i * step % opt.keys);
        memcpy(ordered_keys + i * KEY_BYTES, key_of(order[i]), KEY_BYTES);
    }
}

int add_get(struct load *load, struct slot *slot, size_t i)
{
    (void)load;
    return read_into(slot, ordered_keys + i * KEY_BYTES, order[i]);
}

int add_get_missing(struct load *load, struct slot *slot, size_t i)
{
    (void)load;
    return read_into(slot, missing_keys + i * KEY_BYTES, ABSENT);
}

static void on_batch(kv_async_batch_context_t *batch, size_t completed, size_t failed, void *user_data)
{
    struct slot *slot = user_data;
    (void)batch;
    (void)completed;
    slot->completed = seconds();
    slot->failed = failed;
}

static void check(struct load *load, struct slot *slot)
{
    for (struct wanted *wanted = slot->wanted; wanted < slot->wanted + slot->reads; wanted++)
        if (wanted->word == ABSENT ? wanted->value != NULL : !is_value(wanted->value, wanted->len, load->value, (size_t)wanted->word))
            load->wrong++;
    load->reads += slot->reads;
}

static void finish(struct load *load, struct slot *slot)
{
    if (slot->batch == NULL)
        return;
    must(kv_async_batch_wait(slot->batch, TIMEOUT_MS), "wait");
    check(load, slot);
    kv_async_batch_destroy(slot->batch);
    if (slot->failed > 0)
        fail("batch", "operations failed although wait said success");
    note(load->latencies, slot->completed - slot->submitted);
    load->done += slot->count;
    slot->batch = NULL;
    slot->reads = 0;
}

/* ---- Many ---- */

static void drive_only(struct load *load, double *paused, double *paused_cpu)
{
    struct slot slots[IN_FLIGHT_MAX] = {0};
    size_t turn = 0;
    for (size_t s = 0; s < load->in_flight; s++)
        slots[s].wanted = memory(load->batch * sizeof *slots[s].wanted);
    for (size_t first = 0; first < load->ops; first += load->batch, turn++) {
        struct slot *slot = &slots[turn % load->in_flight];
        finish(load, slot);
        if (load->until > 0 && seconds() >= load->until)
            break;
        slot->count = load->ops - first < load->batch ? load->ops - first : load->batch;
        if (load->prepare != NULL) {
            double begun = seconds(), cpu = cpu_seconds();
            load->prepare(load, load->first + first, slot->count);
            *paused_cpu += cpu_seconds() - cpu;
            *paused += seconds() - begun;
        }
        slot->batch = must_have(kv_async_batch_create(load->manager, load->batch), "create a batch");
        for (size_t i = 0; i < slot->count; i++)
            must(load->add(load, slot, load->first + first + i), "add");
        slot->submitted = seconds();
        must(kv_async_batch_submit(slot->batch, on_batch, slot), "submit");
    }
    for (size_t s = 0; s < load->in_flight; s++)
        finish(load, &slots[(turn + s) % load->in_flight]);
    for (size_t s = 0; s < load->in_flight; s++)
        free(slots[s].wanted);
}

void drive(struct load *load)
{
    double paused = 0, paused_cpu = 0, begun = seconds(), cpu = cpu_seconds();
    load->done = load->reads = load->wrong = 0;
    drive_only(load, &paused, &paused_cpu);
    double checking = (double)load->reads * check_seconds;
    load->took = seconds() - begun - paused - checking;
    load->cpu = cpu_seconds() - cpu - paused_cpu - checking;
    if (load->wrong > 0)
        fail(now != NULL ? now->name : "check", "reads do not give what was stored");
}

struct together {
    struct load *load;
    pthread_barrier_t *start;
};

static void *drive_thread(void *argument)
{
    struct together *together = argument;
    pthread_barrier_wait(together->start);
    drive(together->load);
    return NULL;
}

double drive_together(struct load *loads, int count, double *cpu)
{
    pthread_t threads[THREADS_MAX];
    struct together together[THREADS_MAX];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)count + 1);
    for (int t = 0; t < count; t++) {
        together[t] = (struct together){&loads[t], &start};
        if (pthread_create(&threads[t], NULL, drive_thread, &together[t]) != 0)
            fail("thread", strerror(errno));
    }
    double cpu_before = cpu_seconds();
    pthread_barrier_wait(&start);
    double begun = seconds(), reads = 0;
    for (int t = 0; t < count; t++) {
        pthread_join(threads[t], NULL);
        reads += (double)loads[t].reads;
    }
    double took = seconds() - begun;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_barrier_destroy(&start);
    if (cpu != NULL)
        *cpu = cpu_seconds() - cpu_before - reads * check_seconds;
    return took - reads * check_seconds / (double)(count < cores ? count : cores); /* they checked side by side */
}

double rate(const struct load *load)
{
    return (double)load->done / load->took / 1e6;
}

double cpu_ns(const struct load *load)
{
    return load->cpu / (double)load->done * 1e9;
}

/* What belongs to no row's figures: filling a store, looking at what a row has left. */
void fill(kv_async_batch_manager_t *manager, size_t count)
{
    struct load load = {.manager = manager, .ops = count, .batch = 1000, .in_flight = 8, .value = opt.value, .add = add_put};
    drive(&load);
}

static const uint32_t *expected_rounds;

static const char *in_rounds(size_t i, size_t *word)
{
    *word = word_in(i, expected_rounds == NULL ? 0 : expected_rounds[i]);
    return key_of(i);
}

void check_all(kv_async_batch_manager_t *manager, size_t count, const uint32_t *rounds)
{
    expected_rounds = rounds;
    check_each(manager, count, in_rounds);
}

void check_each(kv_async_batch_manager_t *manager, size_t count, const char *(*expected)(size_t i, size_t *word))
{
    enum { BATCH = 1000 };
    static struct wanted wanted[BATCH];
    for (size_t first = 0; first < count; first += BATCH) {
        struct slot slot = {.batch = must_have(kv_async_batch_create(manager, BATCH), "create a batch"), .wanted = wanted};
        for (size_t i = first; i < first + BATCH && i < count; i++) {
            size_t word;
            const char *key = expected(i, &word);
            must(read_into(&slot, key, (long)word), "add");
        }
        must(kv_async_batch_submit(slot.batch, NULL, NULL), "submit");
        must(kv_async_batch_wait(slot.batch, TIMEOUT_MS), "wait");
        for (size_t i = 0; i < slot.reads; i++) {
            if (wanted[i].value == NULL || wanted[i].len != opt.value ||
                memcmp(wanted[i].value, value_of((size_t)wanted[i].word), opt.value) != 0)
                fail(now->name, "what was stored is not there, byte for byte");
        }
        kv_async_batch_destroy(slot.batch);
    }
}

/* How long it takes to look at one value that was just read: its lines are in the cache. */
void measure_check(void)
{
    enum { VALUES = 1000, TIMES = 200 };
    struct wanted *wanted = memory(VALUES * sizeof *wanted);
    struct slot slot = {.reads = VALUES, .wanted = wanted};
    struct load load = {.value = opt.value};
    for (size_t i = 0; i < VALUES; i++)
        wanted[i] = (struct wanted){(char *)value_of(i), opt.value, (long)i};
    check(&load, &slot);
    double begun = seconds();
    for (int time = 0; time < TIMES; time++)
        check(&load, &slot);
    check_seconds = (seconds() - begun) / (VALUES * TIMES);
    if (load.wrong > 0)
        fail("check", "the values are not what they should be");
    free(wanted);
}
