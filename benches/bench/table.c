/*
 * table.c: what was seen, as text: a table for people, one line per figure for programs (.tsv), and a table for pages (.md).
 * Called by main when all runs are over, and by html.c for the machine's description.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <sys/utsname.h>

static const char *const verdicts[] = {"NOT MET", "met"};

static void number(char *text, size_t size, double value)
{
    snprintf(text, size, value >= 1000 ? "%.0f" : value >= 100 ? "%.1f" : value >= 10 ? "%.2f" : "%.3f", value);
}

static double most(const struct figure *figure, int sign)
{
    double extreme = figure->values[0];
    for (int i = 1; i < figure->count; i++)
        if (sign * figure->values[i] > sign * extreme)
            extreme = figure->values[i];
    return extreme;
}

void describe_machine(FILE *out, const char *line_end)
{
    struct utsname system = {0};
    char model[128] = "unknown processor", line[256];
    FILE *cpu = fopen("/proc/cpuinfo", "r");
    while (cpu != NULL && fgets(line, sizeof line, cpu) != NULL)
        if (sscanf(line, "model name : %127[^\n]", model) == 1)
            break;
    if (cpu != NULL)
        fclose(cpu);
    uname(&system);
    fprintf(out, "%zu keys of %d B, values of %zu B, batches of %zu; medians of %d runs (long rows: fewer)%s\n", opt.keys, KEY_BYTES,
            opt.value, opt.batch, opt.runs, line_end);
    fprintf(out, "%ld cores of %s, %.0f GiB of memory, %s %s, store on %s%s\n", sysconf(_SC_NPROCESSORS_ONLN), model,
            (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1 << 30), system.sysname, system.release, file_system(),
            line_end);
}

static void print_row(FILE *out, const struct row *row)
{
    fprintf(out, "\n%s", row->name);
    if (row->runs > 0 && row->runs != opt.runs)
        fprintf(out, " (%d run%s)", row->runs, row->runs == 1 ? "" : "s");
    if (row->foreign > 0.1)
        fprintf(out, "   [disturbed: other processes took up to %.0f %% of the cores]", row->foreign * 100);
    fprintf(out, "\n");
    for (const struct figure *figure = row->figures; figure < row->figures + row->figure_count; figure++) {
        char seen[32], least[32], largest[32], goal[32], wanted[64] = "";
        number(seen, sizeof seen, median_of(figure));
        number(least, sizeof least, most(figure, -1));
        number(largest, sizeof largest, most(figure, 1));
        number(goal, sizeof goal, figure->goal);
        if (figure->kind != NO_GOAL)
            snprintf(wanted, sizeof wanted, "goal %s %s", figure->kind == AT_LEAST ? ">=" : "<=", goal);
        fprintf(out, "  %-46s %10s %-10s %-18s %-8s", figure->name, seen, figure->unit, wanted,
                figure->kind == NO_GOAL ? "" : verdicts[is_met(figure)]);
        if (figure->count > 1)
            fprintf(out, " %s .. %s", least, largest);
        fprintf(out, "\n");
    }
}

void print_rows(FILE *out)
{
    int met = 0, goals = 0;
    const char *part = "";
    for (const struct row *row = rows; row < rows + row_count; row++) {
        if (!row->wanted || row->figure_count == 0)
            continue;
        if (strcmp(part, row->part) != 0)
            fprintf(out, "\n==== %s ====\n", part = row->part);
        print_row(out, row);
        for (int f = 0; f < row->figure_count; f++) {
            goals += row->figures[f].kind != NO_GOAL;
            met += is_met(&row->figures[f]) == 1;
        }
    }
    fprintf(out, "\n%d of %d goals met\n", met, goals);
}

void write_tsv(const char *path)
{
    FILE *out = fopen(path, "w");
    if (out == NULL)
        fail(path, strerror(errno));
    fprintf(out, "part\trow\tfigure\tunit\tmedian\tleast\tmost\tgoal\tmet\truns\tdisturbed\tresident_mb\n");
    for (const struct row *row = rows; row < rows + row_count; row++)
        for (const struct figure *figure = row->figures; figure < row->figures + row->figure_count; figure++) {
            char goal[32] = "";
            if (figure->kind != NO_GOAL)
                snprintf(goal, sizeof goal, "%s%g", figure->kind == AT_LEAST ? ">=" : "<=", figure->goal);
            fprintf(out, "%s\t%s\t%s\t%s\t%.6g\t%.6g\t%.6g\t%s\t%s\t%d\t%.2f\t%.1f\n", row->part, row->name, figure->name, figure->unit,
                    median_of(figure), most(figure, -1), most(figure, 1), goal,
                    figure->kind == NO_GOAL ? "" : is_met(figure) ? "yes" : "no", figure->count, row->foreign, row->resident / 1e6);
        }
    if (fclose(out) != 0)
        fail(path, strerror(errno));
}

/* The figures that have a goal; of rows without one, and of studies, all. */
void write_markdown(const char *path)
{
    FILE *out = fopen(path, "w");
    if (out == NULL)
        fail(path, strerror(errno));
    describe_machine(out, "\n");
    fprintf(out, "| workload | figure | goal | seen | least to most | |\n|---|---|---|---|---|---|\n");
    for (const struct row *row = rows; row < rows + row_count; row++) {
        int goals = 0;
        for (int f = 0; f < row->figure_count; f++)
            goals += row->figures[f].kind != NO_GOAL;
        for (const struct figure *figure = row->figures; figure < row->figures + row->figure_count; figure++) {
            char seen[32], least[32], largest[32], goal[32], wanted[64] = "", range[80] = "";
            if (figure->kind == NO_GOAL && goals > 0 && strcmp(row->part, "Studies") != 0)
                continue;
            number(seen, sizeof seen, median_of(figure));
            number(least, sizeof least, most(figure, -1));
            number(largest, sizeof largest, most(figure, 1));
            number(goal, sizeof goal, figure->goal);
            if (figure->kind != NO_GOAL)
                snprintf(wanted, sizeof wanted, "%s %s", figure->kind == AT_LEAST ? "≥" : "≤", goal);
            if (figure->count > 1)
                snprintf(range, sizeof range, "%s to %s", least, largest);
            fprintf(out, "| %s | %s, %s | %s | %s | %s | %s |\n", row->name, figure->name, figure->unit, wanted, seen, range,
                    figure->kind == NO_GOAL ? "" : verdicts[is_met(figure)]);
        }
    }
    if (fclose(out) != 0)
        fail(path, strerror(errno));
}
