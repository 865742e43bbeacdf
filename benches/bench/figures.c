/*
 * figures.c: what was seen. A row names its figures as it goes; each keeps one value per run. Called by all rows; prints
 * nothing.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <sys/resource.h>

struct row *now;
int run_number;

static void keep(const char *name, const char *unit, double value, enum goal kind, double goal)
{
    struct figure *figure = now->figures, *end = now->figures + now->figure_count;
    while (figure < end && strcmp(figure->name, name) != 0)
        figure++;
    if (figure == end) {
        if (now->figure_count == FIGURES_MAX)
            fail(name, "FIGURES_MAX is too small");
        now->figure_count++;
        snprintf(figure->name, sizeof figure->name, "%s", name);
        snprintf(figure->unit, sizeof figure->unit, "%s", unit);
        figure->kind = kind;
        figure->goal = goal;
    }
    if (figure->count < RUNS_MAX)
        figure->values[figure->count++] = value;
}

void figure(const char *name, const char *unit, double value)
{
    keep(name, unit, value, NO_GOAL, 0);
}

void at_least(const char *name, const char *unit, double value, double goal)
{
    keep(name, unit, value, AT_LEAST, goal);
}

void at_most(const char *name, const char *unit, double value, double goal)
{
    keep(name, unit, value, AT_MOST, goal);
}

void note(struct series *series, double value)
{
    if (series == NULL)
        return;
    if (series->count == series->room) {
        series->room = series->room == 0 ? 4096 : series->room * 2;
        series->values = realloc(series->values, series->room * sizeof *series->values);
        if (series->values == NULL)
            fail("memory", strerror(errno));
    }
    series->values[series->count++] = value;
}

static struct series *series_named(const char *name)
{
    struct series *series = now->series, *end = now->series + now->series_count;
    while (series < end && strcmp(series->name, name) != 0)
        series++;
    if (series == end) {
        if (now->series_count == SERIES_MAX)
            fail(name, "SERIES_MAX is too small");
        now->series_count++;
        snprintf(series->name, sizeof series->name, "%s", name);
    }
    return series;
}

void latencies(const char *name, struct series *series, double p50_goal, double p99_goal)
{
    static const struct {
        double share;
        const char *word;
    } shares[] = {{0.5, "p50"}, {0.99, "p99"}, {0.999, "p999"}};
    struct series *kept = series_named(name);
    double goals[3] = {p50_goal, p99_goal, 0};
    for (int i = 0; i < 3; i++) {
        char full[80];
        snprintf(full, sizeof full, "%s %s", name, shares[i].word);
        full[sizeof kept->name - 1] = '\0';
        keep(full, "us", quantile(series->values, series->count, shares[i].share) * 1e6, goals[i] > 0 ? AT_MOST : NO_GOAL, goals[i]);
    }
    for (size_t i = 0; i < series->count; i++)
        note(kept, series->values[i]);
    free(series->values);
    *series = (struct series){0};
}

double median_of(const struct figure *figure)
{
    double values[RUNS_MAX];
    memcpy(values, figure->values, sizeof values);
    return quantile(values, (size_t)figure->count, 0.5);
}

int is_met(const struct figure *figure)
{
    double seen = median_of(figure);
    if (figure->kind == NO_GOAL)
        return -1;
    return figure->kind == AT_LEAST ? seen >= figure->goal : seen <= figure->goal;
}

/* ---- What the system says ---- */

double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double user_seconds(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6;
}

/* Seconds for which other programs had a CPU, and by *total the seconds that there were, since the system began. Time in the
 * kernel is left out: its own threads write back what this process has written. */
double foreign_now(double *total)
{
    unsigned long long user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
    FILE *stat = fopen("/proc/stat", "r");
    *total = 0;
    if (stat == NULL)
        return 0;
    int got = fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal);
    fclose(stat);
    if (got != 8)
        return 0;
    double tick = (double)sysconf(_SC_CLK_TCK);
    *total = (double)(user + nice + system + idle + iowait + irq + softirq + steal) / tick;
    return (double)(user + nice + steal) / tick - user_seconds(RUSAGE_SELF) - user_seconds(RUSAGE_CHILDREN);
}

double resident_bytes(void)
{
    size_t size = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm == NULL || fscanf(statm, "%zu %zu", &size, &resident) != 2)
        fail("/proc/self/statm", "cannot be read");
    fclose(statm);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}
