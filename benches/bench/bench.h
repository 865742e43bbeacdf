/*
 * bench.h: what the parts of the benchmark share. bench.c has the table of rows and main; drive.c runs batches; figures.c
 * keeps what was seen; table.c, html.c and plot.c show it; alloc.c counts allocations; base.c measures the machine without
 * the library. Every other file has the rows of one subject.
 */
#ifndef KVBATCH_BENCH_H
#define KVBATCH_BENCH_H

#include "support.h"
#include <pthread.h>
#include <stdatomic.h>

enum { IN_FLIGHT_MAX = 64, FIGURES_MAX = 64, SERIES_MAX = 8, THREADS_MAX = 64, VALUE_BYTES_MAX = 64 << 10 };

/* ---- What was asked for, beside support.h's options ---- */

struct extent {
    int full;             /* bench-full: everything, at full length */
    int quick;            /* a look at whether it works */
    size_t seconds;       /* of sustained overwriting */
    size_t many_keys;     /* the largest store, in keys */
    const char *report;   /* path of the reports, without .tsv, .md and .html */
};
extern struct extent extent;

/* ---- Figures (figures.c) ---- */

enum goal { NO_GOAL, AT_LEAST, AT_MOST };

struct figure {
    char name[56], unit[16];
    enum goal kind;
    double goal;
    double values[RUNS_MAX];
    int count;
};

/* Durations of one kind, in seconds; what a plot is made from. */
struct series {
    char name[56];
    double *values;
    size_t count, room;
};

enum extents { QUICK = 1, DEFAULT = 2, FULL = 4, ASKED = 8 };

struct row {
    const char *name, *part;
    void (*run)(void);
    int in;       /* in which extents it runs by itself */
    int runs_max; /* at the most, if not full; 0: as many as were asked for */
    int wanted, runs;
    struct figure figures[FIGURES_MAX];
    int figure_count;
    struct series series[SERIES_MAX];
    int series_count;
    double foreign;  /* most of the CPUs' time that other processes took in one run, as a share */
    double resident; /* most memory at the end of a run, in bytes */
};
extern struct row rows[];
extern const int row_count;
extern struct row *now; /* the row that runs */
extern int run_number;

void figure(const char *name, const char *unit, double value);
void at_least(const char *name, const char *unit, double value, double goal);
void at_most(const char *name, const char *unit, double value, double goal);
/* p50, p99 and p999 in microseconds, with goals for the first two (0: none), and a plot. Empties the series. */
void latencies(const char *name, struct series *series, double p50_goal, double p99_goal);
void note(struct series *series, double value);
double median_of(const struct figure *figure);
int is_met(const struct figure *figure); /* 1, 0; -1: it has no goal */
double foreign_now(double *total);
double resident_bytes(void);
double cpu_seconds(void); /* of this process, all threads */

/* ---- Driving the library (drive.c) ---- */

enum { ABSENT = -1 };

/* One batch in flight, and what it is to find. */
struct slot {
    kv_async_batch_context_t *batch;
    double submitted, completed;
    size_t failed, count, reads;
    struct wanted {
        char *value;
        size_t len;
        long word; /* where in the pool the value begins; ABSENT: there is no such key */
    } * wanted;
};

/* Operations 0 to ops - 1, in batches. */
struct load {
    kv_async_batch_manager_t *manager;
    size_t ops, batch, in_flight, value;
    size_t first; /* added to each number: where a thread's share begins */
    int (*add)(struct load *load, struct slot *slot, size_t i);
    void (*prepare)(struct load *load, size_t first, size_t count); /* outside of the time that is taken */
    void *context;
    double until; /* begin no batch after this moment; 0: do all */
    struct series *latencies; /* from submit to completion; may be NULL */
    /* What came of it, without the cost of checking. */
    double took, cpu;
    size_t done, reads, wrong;
};

void drive(struct load *load);
/* Several loads at once, each in a thread; from the first that began to the last that ended. */
double drive_together(struct load *loads, int count, double *cpu);
double rate(const struct load *load); /* M operations per second */
double cpu_ns(const struct load *load);

int add_put(struct load *load, struct slot *slot, size_t i);
int add_get(struct load *load, struct slot *slot, size_t i); /* in no order */
int add_get_missing(struct load *load, struct slot *slot, size_t i);
int read_into(struct slot *slot, const char *key, long word);

/* A store of this name, with options as in a URL ("?a=1" or ""). */
kv_async_batch_manager_t *open_store(const char *name, const char *options, int fsync);
kv_async_batch_manager_t *open_managed(const char *name, const char *options, kv_async_batch_config_t config);
kv_async_batch_config_t config_with(int fsync);
void close_store(kv_async_batch_manager_t *manager);
void drop_store(kv_async_batch_manager_t *manager, const char *name);
void fill(kv_async_batch_manager_t *manager, size_t count); /* keys 0 to count - 1 in round 0 */
void check_all(kv_async_batch_manager_t *manager, size_t count, const uint32_t *rounds); /* every byte; NULL: round 0 */
/* Every byte of `count` keys; the key of number i, and where its value begins. */
void check_each(kv_async_batch_manager_t *manager, size_t count, const char *(*expected)(size_t i, size_t *word));
double counter(kv_async_batch_manager_t *manager, const char *name);
void measure_check(void);
extern uint32_t *order;    /* all keys in no order, by number... */
extern char *ordered_keys; /* ...and the keys themselves */
void make_order(void);

/* Random overwriting, without compaction or with (sustained.c): `ops` puts, or until the time is over. */
kv_async_batch_manager_t *overwrite(const char *options, size_t ops, double duration, struct load *load, struct series *series);
void check_overwritten(kv_async_batch_manager_t *manager);

/* Keys and values that are made as they are needed, for stores larger than the data in memory (made.c): value i begins with
 * word i, as others do. Made before the time of a batch is taken. */
struct scratch {
    char (*keys)[KEY_BYTES];
    char *values;
    size_t first;
};
struct scratch scratch_for(size_t batch, size_t value);
void drop_scratch(struct scratch *scratch);
void make_puts(struct load *load, size_t first, size_t count);
int add_made_put(struct load *load, struct slot *slot, size_t i);

/* ---- The machine without the library (base.c, raw.c) ---- */

enum base { BASE_MEMCPY, BASE_WRITE, BASE_FDATASYNC, BASE_FDATASYNC_8, BASES };
/* M operations per second of the same bytes, measured once in each run. */
double base(enum base which);
void forget_bases(void);
/* Sequential O_DIRECT writes: into blocks that were written before, with a sync at the end; or, each of them durable, into blocks
 * that only have their place. Measured once in each run, too. */
enum device { DEVICE_WRITTEN_BLOCKS, DEVICE_NEW_BLOCKS, DEVICES };
double device_write_bytes_per_second(enum device which);
/* Random reads of 4 KiB with O_DIRECT from a store's chunk files, per second; 0 if there is no io_uring. */
double raw_reads_per_second(const char *store, unsigned depth, size_t reads);
void drop_caches(const char *store);
double disk_bytes(const char *store);

/* ---- Allocations (alloc.c) ---- */

extern atomic_int counting_allocations;
extern atomic_size_t allocations;

/* ---- Showing (table.c, html.c, plot.c) ---- */

void print_rows(FILE *out);
void write_tsv(const char *path);
void write_markdown(const char *path);
void write_html(const char *path);
void plot_latencies(FILE *out, const struct row *row);
void plot_rates(FILE *out, const char *part);
void plot_goals(FILE *out);
void describe_machine(FILE *out, const char *line_end);

/* ---- Zipfian draws (zipf.c) ---- */

void zipf_begin(size_t items, double theta);
size_t zipf_rank(uint64_t random);           /* 0 is the most popular */
size_t zipf_item(uint64_t random, size_t items); /* the same, popular ones anywhere */

/* ---- Rows ---- */

void run_memory(void);
void run_memcpy(void);
void run_write(void);
void run_fdatasync(void);
void run_device(void);
void run_add(void);
void run_put_100(void);
void run_put_1000(void);
void run_put_10000(void);
void run_put_fsync_1(void);
void run_put_fsync_8(void);
void run_put_fsync_1_in_use(void);
void run_put_fsync_8_in_use(void);
void run_put_large_batch(void);
void run_example(void);
void run_delete(void);
void run_latency(void);
void run_latency_busy(void);
void run_get_hot(void);
void run_get_missing(void);
void run_get_cold(void);
void run_one_get(void);
void run_one_put(void);
void run_threads_put(void);
void run_threads_get(void);
void run_reads_beside_syncs(void);
void run_mixed_50(void);
void run_mixed_80(void);
void run_ycsb_a(void);
void run_ycsb_b(void);
void run_ycsb_c(void);
void run_ycsb_d(void);
void run_ycsb_f(void);
void run_sustained(void);
void run_keys_10(void);
void run_keys_many(void);
void run_values_1k(void);
void run_values_64k(void);
void run_idle(void);
void run_study_sizes(void);
void run_study_merge(void);
void run_study_limits(void);
void run_study_options(void);
void close_shared_stores(void);

#endif
