/*
 * bench.c: what a C caller gets, in operations per second, beside what the machine gives to plain code in the same run.
 *
 *   make bench                             or: make bench ARGS="--runs 5 only=get"
 *
 * Absolute figures wander on shared machines, so every row is also a ratio against a row without the library: the same
 * bytes assembled in memory (memcpy), then given to write(), then made durable with fdatasync(). All rows are run
 * in turn, `runs` times; the figures are medians over the runs. Latency is that of a batch, from the call of submit
 * to its completion callback: with fsync on that is submit -> durable. Every result is checked: a row whose reads do
 * not find what was written, byte for byte, ends the program with exit code 1.
 *
 * A row is an entry in `rows` below and a function that does the work on `opt.keys` keys and returns the seconds.
 */
#define _GNU_SOURCE
#include "support.h"

/* ---- Rows without the library ---- */

static size_t assemble(char *to, size_t first, size_t count)
{
    char *begin = to;
    for (size_t i = first; i < first + count; i++) {
        memcpy(to, key_of(i), KEY_BYTES);
        memcpy(to + KEY_BYTES, value_of(i), opt.value);
        to += KEY_BYTES + opt.value;
    }
    return (size_t)(to - begin);
}

static double plain(int writing, int syncing)
{
    char *buffer = memory(opt.batch * (KEY_BYTES + opt.value));
    const char *path = path_of("plain");
    int fd = writing ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (writing && fd < 0)
        fail(path, strerror(errno));
    double begun = seconds();
    for (size_t first = 0; first < opt.keys; first += opt.batch) {
        size_t count = opt.keys - first < opt.batch ? opt.keys - first : opt.batch;
        size_t bytes = assemble(buffer, first, count);
        double submitted = seconds();
        __asm__ volatile("" ::"r"(buffer) : "memory"); /* the copy is not for nothing */
        if (writing && write(fd, buffer, bytes) != (ssize_t)bytes)
            fail(path, "short write");
        if (syncing && fdatasync(fd) != 0)
            fail(path, strerror(errno));
        if (writing)
            note_latency(seconds() - submitted);
    }
    double took = seconds() - begun;
    if (writing) {
        close(fd);
        unlink(path);
    }
    free(buffer);
    return took;
}

static double run_memcpy(void)
{
    return plain(0, 0);
}

static double run_write(void)
{
    return plain(1, 0);
}

static double run_write_fdatasync(void)
{
    return plain(1, 1);
}

/* ---- Driving the library ---- */

/* One batch in flight, and what its callbacks find: they run one after the other and are done when wait returns. */
struct slot {
    kv_async_batch_context_t *batch;
    double submitted;
    double completed;
    size_t failed;
    size_t right;
    size_t absent;
    struct reference {
        struct slot *slot;
        size_t key;
    } * references;
};

struct tally {
    size_t right;  /* reads that gave the value that was stored */
    size_t absent; /* reads that said there is no such key */
};

typedef int (*add_operation)(kv_async_batch_context_t *batch, struct reference *reference, size_t i);

static void on_get(kv_async_batch_operation_t *op, int result, void *user_data)
{
    struct reference *reference = user_data;
    if (result == KV_ERR_KEY_NOT_FOUND)
        reference->slot->absent++;
    else if (result == KV_SUCCESS && op->value_len == opt.value && memcmp(op->value, value_of(reference->key), opt.value) == 0)
        reference->slot->right++;
}

static void on_batch(kv_async_batch_context_t *batch, size_t completed, size_t failed, void *user_data)
{
    struct slot *slot = user_data;
    (void)batch;
    (void)completed;
    slot->completed = seconds();
    slot->failed = failed;
}

static int add_put(kv_async_batch_context_t *batch, struct reference *reference, size_t i)
{
    (void)reference;
    return kv_async_batch_put(batch, key_of(i), KEY_BYTES, value_of(i), opt.value, NULL, NULL);
}

static int add_get(kv_async_batch_context_t *batch, struct reference *reference, size_t i)
{
    reference->key = i * step % opt.keys;
    return kv_async_batch_get(batch, key_of(reference->key), KEY_BYTES, NULL, NULL, on_get, reference);
}

static int add_get_missing(kv_async_batch_context_t *batch, struct reference *reference, size_t i)
{
    return kv_async_batch_get(batch, missing_keys + i * KEY_BYTES, KEY_BYTES, NULL, NULL, on_get, reference);
}

static int add_delete(kv_async_batch_context_t *batch, struct reference *reference, size_t i)
{
    (void)reference;
    return kv_async_batch_delete(batch, key_of(i), KEY_BYTES, NULL, NULL);
}

static void finish(struct slot *slot, struct tally *tally)
{
    if (slot->batch == NULL)
        return;
    must(kv_async_batch_wait(slot->batch, TIMEOUT_MS), "wait");
    kv_async_batch_destroy(slot->batch);
    if (slot->failed > 0)
        fail("batch", "operations failed although wait said success");
    note_latency(slot->completed - slot->submitted);
    tally->right += slot->right;
    tally->absent += slot->absent;
    *slot = (struct slot){.references = slot->references};
}

/* All keys through `add` in batches, `in_flight` of them at a time; the time it took, from the first add to the last callback. */
static double drive(kv_async_batch_manager_t *manager, size_t in_flight, add_operation add, struct tally *tally)
{
    struct slot slots[IN_FLIGHT_MAX] = {0};
    for (size_t s = 0; s < in_flight; s++)
        slots[s].references = memory(opt.batch * sizeof *slots[s].references);
    *tally = (struct tally){0};
    size_t turn = 0;
    double begun = seconds();
    for (size_t first = 0; first < opt.keys; first += opt.batch, turn++) {
        struct slot *slot = &slots[turn % in_flight];
        finish(slot, tally);
        size_t count = opt.keys - first < opt.batch ? opt.keys - first : opt.batch;
        slot->batch = must_have(kv_async_batch_create(manager, opt.batch), "create a batch");
        for (size_t i = 0; i < count; i++) {
            slot->references[i].slot = slot;
            must(add(slot->batch, &slot->references[i], first + i), "add");
        }
        slot->submitted = seconds();
        must(kv_async_batch_submit(slot->batch, on_batch, slot), "submit");
    }
    for (size_t s = 0; s < in_flight; s++)
        finish(&slots[(turn + s) % in_flight], tally);
    double took = seconds() - begun;
    for (size_t s = 0; s < in_flight; s++)
        free(slots[s].references);
    return took;
}

static kv_async_batch_manager_t *open_store(const char *name, int fsync)
{
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.max_batch_size = opt.batch;
    config.max_memory_usage = ((size_t)64 << 20) + opt.batch * (opt.value + 256);
    config.timeout_ms = TIMEOUT_MS;
    config.enable_batch_fsync = fsync;
    setenv("KVBATCH_STORE", path_of(name), 1);
    kv_async_batch_manager_t *manager = must_have(kv_async_batch_manager_create(&config), "create the manager");
    must(kv_async_batch_manager_start(manager), "open the store");
    return manager;
}

static void close_store(kv_async_batch_manager_t *manager)
{
    must(kv_async_batch_manager_stop(manager), "stop the manager");
    kv_async_batch_manager_destroy(manager);
}

/* What belongs to no row's figures: filling a store, looking at what a row has left. */
static struct tally drive_unmeasured(kv_async_batch_manager_t *manager, add_operation add)
{
    struct tally tally;
    double *measured = latency;
    latency = NULL;
    drive(manager, IN_FLIGHT_MAX, add, &tally);
    latency = measured;
    return tally;
}

/* `right` keys are there with their value, the others are not there at all. */
static void check_all(kv_async_batch_manager_t *manager, const char *row, size_t right)
{
    struct tally tally = drive_unmeasured(manager, add_get);
    if (tally.right != right || tally.absent != opt.keys - right) {
        fprintf(stderr, "\n%s: %zu keys should be there: %zu are as stored, %zu absent\n", row, right, tally.right, tally.absent);
        fail(row, "wrong results");
    }
}

/* ---- Rows of the library ---- */

static double put_row(const char *name, int fsync, size_t in_flight)
{
    struct tally tally;
    kv_async_batch_manager_t *manager = open_store("put", fsync);
    double took = drive(manager, in_flight, add_put, &tally);
    check_all(manager, name, opt.keys);
    close_store(manager);
    remove_tree(path_of("put"));
    return took;
}

static double run_put_1(void)
{
    return put_row("put, fsync off, 1 in flight", 0, 1);
}

static double run_put_8(void)
{
    return put_row("put, fsync off, 8 in flight", 0, 8);
}

static double run_put_fsync_1(void)
{
    return put_row("put, fsync on, 1 in flight", 1, 1);
}

static double run_put_fsync_8(void)
{
    return put_row("put, fsync on, 8 in flight", 1, 8);
}

/* The store that rows of reads and deletes share. It stays open, so what was just written is hot. */
static kv_async_batch_manager_t *filled;

static kv_async_batch_manager_t *filled_store(void)
{
    if (filled == NULL) {
        filled = open_store("filled", 0);
        drive_unmeasured(filled, add_put);
    }
    return filled;
}

static void drop_filled_store(void)
{
    if (filled != NULL) {
        close_store(filled);
        filled = NULL;
        remove_tree(path_of("filled"));
    }
}

static double get_row(const char *name, size_t in_flight, add_operation add, size_t right)
{
    struct tally tally;
    double took = drive(filled_store(), in_flight, add, &tally);
    if (tally.right != right || tally.absent != opt.keys - right)
        fail(name, "reads do not give what was stored");
    return took;
}

static double run_get_hot_1(void)
{
    return get_row("get hot, 1 in flight", 1, add_get, opt.keys);
}

static double run_get_hot_8(void)
{
    return get_row("get hot, 8 in flight", 8, add_get, opt.keys);
}

static double run_get_missing(void)
{
    return get_row("get missing", 1, add_get_missing, 0);
}

static double run_delete(void)
{
    struct tally tally;
    kv_async_batch_manager_t *manager = filled_store();
    double took = drive(manager, 1, add_delete, &tally);
    check_all(manager, "delete", 0);
    drop_filled_store();
    return took;
}

/* ---- The table ---- */

struct row {
    const char *name;
    const char *against; /* the row that the ratio is taken with */
    double (*run)(void);
    int wanted;
    double rates[RUNS_MAX];
    double *latency;
    size_t latencies;
};

static struct row rows[] = {
    {.name = "memcpy", .against = NULL, .run = run_memcpy},
    {.name = "write", .against = "memcpy", .run = run_write},
    {.name = "write + fdatasync", .against = "write", .run = run_write_fdatasync},
    {.name = "put, fsync off, 1 in flight", .against = "write", .run = run_put_1},
    {.name = "put, fsync off, 8 in flight", .against = "write", .run = run_put_8},
    {.name = "put, fsync on, 1 in flight", .against = "write + fdatasync", .run = run_put_fsync_1},
    {.name = "put, fsync on, 8 in flight", .against = "write + fdatasync", .run = run_put_fsync_8},
    {.name = "get hot, 1 in flight", .against = "memcpy", .run = run_get_hot_1},
    {.name = "get hot, 8 in flight", .against = "memcpy", .run = run_get_hot_8},
    {.name = "get missing", .against = "memcpy", .run = run_get_missing},
    {.name = "delete, fsync off", .against = "write", .run = run_delete},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static struct row *row_named(const char *name)
{
    for (size_t r = 0; r < ROWS; r++)
        if (name != NULL && strcmp(rows[r].name, name) == 0)
            return &rows[r];
    return NULL;
}

static void print_table(void)
{
    printf("%-28s %9s %9s  %-26s %9s %9s\n", "", "M ops/s", "MB/s", "ratio", "p50 us", "p99 us");
    for (size_t r = 0; r < ROWS; r++) {
        struct row *row = &rows[r], *base = row_named(row->against);
        if (!row->wanted)
            continue;
        /* Ratios are taken run by run, before the rates are sorted: the two rows met the same machine. */
        double ratios[RUNS_MAX], rates[RUNS_MAX];
        for (int i = 0; i < opt.runs; i++) {
            rates[i] = row->rates[i];
            ratios[i] = base == NULL ? 0 : row->rates[i] / base->rates[i];
        }
        double rate = quantile(rates, (size_t)opt.runs, 0.5);
        char ratio[64] = "";
        if (base != NULL)
            snprintf(ratio, sizeof ratio, "%.3g of %s", quantile(ratios, (size_t)opt.runs, 0.5), base->name);
        printf("%-28s %9.3f %9.1f  %-26s", row->name, rate / 1e6, rate * (double)(KEY_BYTES + opt.value) / 1e6, ratio);
        if (row->latencies > 0)
            printf(" %9.1f %9.1f", quantile(row->latency, row->latencies, 0.5) * 1e6,
                   quantile(row->latency, row->latencies, 0.99) * 1e6);
        printf("\n");
    }
}

static void run_rows(void)
{
    size_t batches = (opt.keys + opt.batch - 1) / opt.batch;
    latency = memory(batches * sizeof *latency);
    for (int i = 0; i < opt.runs; i++) {
        for (size_t r = 0; r < ROWS; r++) {
            if (!rows[r].wanted)
                continue;
            if (isatty(STDERR_FILENO))
                fprintf(stderr, "\r\033[Krun %d of %d: %s", i + 1, opt.runs, rows[r].name);
            settle();
            latencies = 0;
            rows[r].rates[i] = (double)opt.keys / rows[r].run();
            if (rows[r].latency == NULL)
                rows[r].latency = memory((size_t)opt.runs * batches * sizeof *latency);
            memcpy(rows[r].latency + rows[r].latencies, latency, latencies * sizeof *latency);
            rows[r].latencies += latencies;
        }
        drop_filled_store();
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    free(latency);
}

/* ---- Setting up ---- */

static void choose_rows(void)
{
    size_t chosen = 0;
    for (size_t r = 0; r < ROWS; r++) {
        int wanted = opt.only_count == 0;
        for (int o = 0; o < opt.only_count; o++)
            wanted |= strstr(rows[r].name, opt.only[o]) != NULL;
        if (!wanted)
            continue;
        chosen++;
        for (struct row *row = &rows[r]; row != NULL; row = row_named(row->against))
            row->wanted = 1; /* a ratio wants its other half */
    }
    if (chosen == 0)
        fail("only=", "no row has a name like this");
}

static int usage(int code)
{
    fprintf(code == 0 ? stdout : stderr,
            "bench [--keys N] [--batch N] [--value BYTES] [--runs N] [--store DIRECTORY] [only=PART-OF-A-ROW'S-NAME]...\n\nrows:\n");
    for (size_t r = 0; r < ROWS; r++)
        fprintf(code == 0 ? stdout : stderr, "  %s\n", rows[r].name);
    return code;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        size_t runs = 0;
        int good = 0;
        if (strcmp(name, "--help") == 0)
            return usage(0);
        if (strncmp(name, "only=", 5) == 0 && opt.only_count < ONLY_MAX) {
            opt.only[opt.only_count++] = name + 5;
            continue;
        }
        if (strcmp(name, "--keys") == 0)
            good = read_number(value, 1, 999999999, &opt.keys);
        else if (strcmp(name, "--batch") == 0)
            good = read_number(value, 1, KV_ASYNC_BATCH_MAX_SIZE, &opt.batch);
        else if (strcmp(name, "--value") == 0)
            good = read_number(value, 0, (size_t)512 << 20, &opt.value);
        else if (strcmp(name, "--runs") == 0 && read_number(value, 1, RUNS_MAX, &runs))
            good = opt.runs = (int)runs;
        else if (strcmp(name, "--store") == 0 && value != NULL)
            good = (opt.store = value) != NULL;
        if (!good) {
            fprintf(stderr, "bench: %s %s is not understood\n", name, value != NULL ? value : "");
            return usage(2);
        }
        i++;
    }
    choose_rows();
    make_directory();
    make_data();

    struct utsname system = {0};
    uname(&system);
    printf("%zu keys of %d B, values of %zu B, batches of %zu, median of %d runs\n", opt.keys, KEY_BYTES, opt.value, opt.batch, opt.runs);
    printf("%ld cores, %s %s, store on %s\n\n", sysconf(_SC_NPROCESSORS_ONLN), system.sysname, system.release, file_system());
    fflush(stdout);
    run_rows();
    print_table();
    return 0;
}
