/*
 * bench.c: what a C caller gets from the library, row by row, each with its goal beside it.
 *
 *   make bench                             some five minutes
 *   make bench ARGS="--runs 9 only=cold"   rows that have this in their name or part
 *   make bench-full                        every row at full length
 *
 * Absolute figures wander on shared machines, so rows are compared with plain code (memcpy, write, fdatasync, raw reads) that
 * is measured in the same run, and say how much of the machine others had meanwhile. All rows are run in turn, as often as
 * --runs says; figures are medians over the runs. Every result is checked (drive.c says how): a row whose reads do not find what was
 * written ends the program with exit code 1.
 *
 * A row is an entry in `rows` and a function in one of the files of benches/bench.
 */
#define _GNU_SOURCE
#include "bench/bench.h"
#include <sys/stat.h>

struct extent extent = {.seconds = 20, .many_keys = 40000000, .report = "target/bench/report"};

enum { USUAL = DEFAULT | FULL, ALWAYS = QUICK | DEFAULT | FULL };

struct row rows[] = {
    {.part = "The machine", .name = "memory", .run = run_memory, .in = ALWAYS, .runs_max = 1},
    {.part = "The machine", .name = "memcpy", .run = run_memcpy, .in = ALWAYS},
    {.part = "The machine", .name = "plain write", .run = run_write, .in = ALWAYS},
    {.part = "The machine", .name = "plain write + fdatasync", .run = run_fdatasync, .in = ALWAYS},
    {.part = "The machine", .name = "device", .run = run_device, .in = USUAL},
    {.part = "Put", .name = "batch add", .run = run_add, .in = ALWAYS},
    {.part = "Put", .name = "put, fsync off, batch 1000", .run = run_put_1000, .in = ALWAYS},
    {.part = "Put", .name = "put, fsync off, batch 100", .run = run_put_100, .in = ALWAYS},
    {.part = "Put", .name = "put, fsync off, batch 10000", .run = run_put_10000, .in = ALWAYS},
    {.part = "Put", .name = "put, fsync per batch, one in flight", .run = run_put_fsync_1, .in = ALWAYS},
    {.part = "Put", .name = "put, fsync per batch, eight in flight", .run = run_put_fsync_8, .in = ALWAYS},
    {.part = "Put", .name = "put, fsync per batch, one in flight, store in use", .run = run_put_fsync_1_in_use, .in = ALWAYS},
    {.part = "Put", .name = "put, fsync per batch, eight in flight, store in use", .run = run_put_fsync_8_in_use, .in = ALWAYS},
    {.part = "Put", .name = "one batch of 100,000 puts, fsync off", .run = run_put_large_batch, .in = ALWAYS},
    {.part = "Put", .name = "delete, fsync off", .run = run_delete, .in = ALWAYS},
    {.part = "Put", .name = "the documented example", .run = run_example, .in = ALWAYS},
    {.part = "Latency", .name = "submit to durable, 1000 puts", .run = run_latency, .in = ALWAYS},
    {.part = "Latency", .name = "submit to durable, 1000 puts, all cores kept busy", .run = run_latency_busy, .in = ALWAYS},
    {.part = "Latency", .name = "one-op batch: hot get", .run = run_one_get, .in = ALWAYS},
    {.part = "Latency", .name = "one-op batch: unsynced put", .run = run_one_put, .in = ALWAYS},
    {.part = "Latency", .name = "reads beside syncs of other keys", .run = run_reads_beside_syncs, .in = ALWAYS},
    {.part = "Get", .name = "get hot", .run = run_get_hot, .in = ALWAYS},
    {.part = "Get", .name = "get missing", .run = run_get_missing, .in = ALWAYS},
    {.part = "Get", .name = "get cold, 1 KiB, batch 256", .run = run_get_cold, .in = ALWAYS},
    {.part = "Threads", .name = "8 threads x 10 puts, fsync", .run = run_threads_put, .in = ALWAYS},
    {.part = "Threads", .name = "8 threads x 10 hot gets", .run = run_threads_get, .in = ALWAYS},
    {.part = "Mixed", .name = "mixed 50/50, zipfian", .run = run_mixed_50, .in = ALWAYS},
    {.part = "Mixed", .name = "mixed 80/20, zipfian", .run = run_mixed_80, .in = ALWAYS},
    {.part = "Mixed", .name = "YCSB A: 50 read, 50 update", .run = run_ycsb_a, .in = USUAL},
    {.part = "Mixed", .name = "YCSB B: 95 read, 5 update", .run = run_ycsb_b, .in = USUAL},
    {.part = "Mixed", .name = "YCSB C: read only", .run = run_ycsb_c, .in = USUAL},
    {.part = "Mixed", .name = "YCSB D: 95 read the latest, 5 insert", .run = run_ycsb_d, .in = USUAL},
    {.part = "Mixed", .name = "YCSB F: 50 read, 50 read-modify-write", .run = run_ycsb_f, .in = USUAL},
    {.part = "Long", .name = "sustained overwrite, compaction at 50 %", .run = run_sustained, .in = ALWAYS, .runs_max = 1},
    {.part = "Long", .name = "10 M keys", .run = run_keys_10, .in = USUAL, .runs_max = 1},
    {.part = "Long", .name = "40 M keys", .run = run_keys_many, .in = FULL, .runs_max = 1},
    {.part = "Values", .name = "values of 1 KiB", .run = run_values_1k, .in = ALWAYS},
    {.part = "Values", .name = "values of 64 KiB", .run = run_values_64k, .in = ALWAYS},
    {.part = "Idle", .name = "idle manager", .run = run_idle, .in = ALWAYS, .runs_max = 1},
    {.part = "Studies", .name = "study: batch size", .run = run_study_sizes, .in = FULL | ASKED, .runs_max = 1},
    {.part = "Studies", .name = "study: merging batches of several threads", .run = run_study_merge, .in = FULL | ASKED, .runs_max = 1},
    {.part = "Studies", .name = "study: limit of a merged group", .run = run_study_limits, .in = FULL | ASKED, .runs_max = 1},
    {.part = "Studies", .name = "study: options", .run = run_study_options, .in = FULL | ASKED},
};
const int row_count = sizeof rows / sizeof rows[0];

static void run_row(struct row *row)
{
    double total_before, total, foreign = foreign_now(&total_before);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[Krun %d of %d: %s", run_number + 1, opt.runs, row->name);
    settle();
    now = row;
    row->run();
    row->runs++;
    foreign = foreign_now(&total) - foreign;
    double share = total > total_before + 1 ? foreign / (total - total_before) : 0; /* the kernel counts in steps of 10 ms */
    row->foreign = share > row->foreign ? share : row->foreign;
    double resident = resident_bytes();
    row->resident = resident > row->resident ? resident : row->resident;
}

static void write_reports(void)
{
    char path[4600];
    snprintf(path, sizeof path, "%s.tsv", extent.report);
    write_tsv(path);
    snprintf(path, sizeof path, "%s.md", extent.report);
    write_markdown(path);
    snprintf(path, sizeof path, "%s.html", extent.report);
    write_html(path);
}

static void run_rows(void)
{
    for (run_number = 0; run_number < opt.runs; run_number++) {
        forget_bases();
        for (struct row *row = rows; row < rows + row_count; row++) {
            int most = row->runs_max == 0 ? opt.runs : extent.full && row->runs_max < 3 ? 3 : row->runs_max;
            if (row->wanted && run_number < most)
                run_row(row);
        }
        close_shared_stores();
        write_reports(); /* so that a run that is broken off leaves what it has seen */
    }
    run_number = 0;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

static void choose_rows(void)
{
    int chosen = 0, in = extent.full ? FULL : extent.quick ? QUICK : DEFAULT;
    for (struct row *row = rows; row < rows + row_count; row++) {
        row->wanted = opt.only_count == 0 && (row->in & in) != 0;
        for (int o = 0; o < opt.only_count; o++)
            row->wanted |= strstr(row->name, opt.only[o]) != NULL || strcmp(row->part, opt.only[o]) == 0;
        chosen += row->wanted;
    }
    if (chosen == 0)
        fail("only=", "no row has a name like this");
}

static int usage(int code)
{
    FILE *out = code == 0 ? stdout : stderr;
    fprintf(out, "bench [--quick | --full] [--runs N] [--keys N] [--batch N] [--value BYTES] [--seconds N] [--many-keys N]\n"
                 "      [--store DIRECTORY] [--report PATH-WITHOUT-SUFFIX] [only=PART-OF-A-NAME]...\n\n"
                 "--seconds: of sustained overwriting. --report: where .tsv, .md and .html are written.\n\nrows:\n");
    for (const struct row *row = rows; row < rows + row_count; row++)
        fprintf(out, "  %-10s %s%s\n", row->part, row->name, row->in & DEFAULT ? "" : " (with --full, or asked for by name)");
    return code;
}

static void read_arguments(int argc, char **argv)
{
    size_t runs = 0, seconds_asked = 0;
    opt.runs = 0;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        int good = 0;
        if (strcmp(name, "--help") == 0)
            exit(usage(0));
        if (strcmp(name, "--quick") == 0 || strcmp(name, "--full") == 0) {
            *(name[2] == 'q' ? &extent.quick : &extent.full) = 1;
            continue;
        }
        if (strncmp(name, "only=", 5) == 0 && opt.only_count < ONLY_MAX) {
            opt.only[opt.only_count++] = name + 5;
            continue;
        }
        if (strcmp(name, "--keys") == 0)
            good = read_number(value, 10000, 99999999, &opt.keys);
        else if (strcmp(name, "--batch") == 0)
            good = read_number(value, 1, 10000, &opt.batch);
        else if (strcmp(name, "--value") == 0)
            good = read_number(value, VALUE_BYTES_MIN, VALUE_BYTES_MAX, &opt.value);
        else if (strcmp(name, "--runs") == 0 && read_number(value, 1, RUNS_MAX, &runs))
            good = opt.runs = (int)runs;
        else if (strcmp(name, "--seconds") == 0)
            good = read_number(value, 1, 86400, &seconds_asked);
        else if (strcmp(name, "--many-keys") == 0)
            good = read_number(value, 1000000, 2000000000, &extent.many_keys);
        else if (strcmp(name, "--store") == 0 && value != NULL)
            good = (opt.store = value) != NULL;
        else if (strcmp(name, "--report") == 0 && value != NULL)
            good = (extent.report = value) != NULL;
        if (!good) {
            fprintf(stderr, "bench: %s %s is not understood\n", name, value != NULL ? value : "");
            exit(usage(2));
        }
        i++;
    }
    if (opt.runs == 0)
        opt.runs = extent.quick ? 1 : 5;
    extent.seconds = seconds_asked > 0 ? seconds_asked : extent.full ? 60 : extent.quick ? 4 : extent.seconds;
}

int main(int argc, char **argv)
{
    read_arguments(argc, argv);
    choose_rows();
    make_directory();
    make_data(VALUE_BYTES_MAX);
    make_order();
    measure_check();
    describe_machine(stdout, "");
    fflush(stdout);
    run_rows();
    print_rows(stdout);
    printf("reports: %s.tsv, .md and .html\n", extent.report);
    return 0;
}
