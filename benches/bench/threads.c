/*
 * threads.c: rows of several threads that write at a time, and of a manager that has nothing to do.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <math.h>
#include <dirent.h>

enum { IDLE_SECONDS = 5, SETTLE_SECONDS = 12 };

/* ---- Eight threads, ten operations, a sync each ---- */

void run_threads_put(void)
{
    struct load loads[8];
    struct series series[8] = {0}, all = {0};
    kv_async_batch_manager_t *manager = open_store("threads", "", 1);
    size_t each = opt.keys / (extent.quick ? 80 : 20);
    for (int t = 0; t < 8; t++)
        loads[t] = (struct load){.manager = manager, .ops = each, .batch = 10, .in_flight = 1, .value = opt.value, .add = add_put,
                                 .first = each * (size_t)t, .latencies = &series[t]};
    double syncs = counter(manager, "syncs"), writes = counter(manager, "log_writes"), batches = counter(manager, "batches");
    double cpu, took = drive_together(loads, 8, &cpu), done = (double)(each * 8);
    batches = counter(manager, "batches") - batches;
    at_least("rate", "K ops/s", done / took / 1e3, 350);
    at_most("syncs, of the batches", "share", (counter(manager, "syncs") - syncs) / batches, 0.25);
    figure("log writes, of the batches", "share", (counter(manager, "log_writes") - writes) / batches);
    figure("CPU, all threads", "ns/op", cpu / done * 1e9);
    for (int t = 0; t < 8; t++) {
        for (size_t i = 0; i < series[t].count; i++)
            note(&all, series[t].values[i]);
        free(series[t].values);
    }
    latencies("10 puts, submit to durable", &all, 0, 0);
    check_all(manager, each * 8, NULL);
    drop_store(manager, "threads");
}

/* ---- Nothing to do ---- */

/* A line of a thread's status that begins like this; what stands behind. */
static int status_line(const char *thread, const char *begin, char *rest, size_t len)
{
    char path[300], line[128];
    int found = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", thread);
    FILE *status = fopen(path, "r");
    while (status != NULL && !found && fgets(line, sizeof line, status) != NULL)
        if ((found = strncmp(line, begin, strlen(begin)) == 0))
            snprintf(rest, len, "%s", line + strlen(begin));
    if (status != NULL)
        fclose(status);
    return found;
}

/* Voluntary context switches of the library's threads, of whatever store: each is a thread that had woken up. The kernel's own helpers
 * for io_uring, of which one looks around every five seconds once there was any, are none of them. */
static double wake_ups(void)
{
    double sum = 0;
    DIR *dir = opendir("/proc/self/task");
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char name[64], switches[64];
        if (status_line(entry->d_name, "Name:\tkvbatch-", name, sizeof name) &&
            status_line(entry->d_name, "voluntary_ctxt_switches:", switches, sizeof switches))
            sum += atof(switches);
    }
    if (dir != NULL)
        closedir(dir);
    return sum;
}

void run_idle(void)
{
    for (int fsync = 1; fsync >= 0; fsync--) {
        kv_async_batch_manager_t *manager = open_store("idle", "", fsync);
        fill(manager, opt.keys < 10000 ? opt.keys : 10000);
        sleep(SETTLE_SECONDS); /* fsync_interval_ms is 5000, and a spare thread for callbacks ends after 10 s */
        double before = wake_ups(), cpu = cpu_seconds();
        sleep(IDLE_SECONDS);
        /* A thread that ends meanwhile takes its count along. */
        double woken = fmax(0, wake_ups() - before);
        at_most(fsync ? "wake-ups, all threads" : "wake-ups, fsync off", "per second", woken / IDLE_SECONDS, 0);
        figure(fsync ? "CPU" : "CPU, fsync off", "us per second", (cpu_seconds() - cpu) / IDLE_SECONDS * 1e6);
        drop_store(manager, "idle");
    }
}
