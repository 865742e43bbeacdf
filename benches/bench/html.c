/*
 * html.c: the report as one page that needs nothing else: goals, figures, plots. Called by main when all runs are over.
 */
#define _GNU_SOURCE
#include "bench.h"

static const char head[] =
    "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>kvbatch: benchmarks</title>\n<style>\n"
    "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}\n"
    "table{border-collapse:collapse;width:100%;margin:.5em 0 1.5em}td,th{padding:2px 8px;text-align:right;border-bottom:1px solid #ddd}\n"
    "td:first-child,th:first-child{text-align:left}.no{color:#c00;font-weight:bold}.yes{color:#3a7a00}.note{color:#a05a00}\n"
    "svg{font:12px system-ui,sans-serif;max-width:100%;height:auto}.grid{stroke:#e2e2e2}.axis{stroke:#222}h2{margin-top:2em}\n"
    "</style></head><body>\n";

static void escaped(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '<')
            fprintf(out, "&lt;");
        else if (*text == '&')
            fprintf(out, "&amp;");
        else
            fputc(*text, out);
    }
}

static void write_row(FILE *out, const struct row *row)
{
    fprintf(out, "<h3>");
    escaped(out, row->name);
    fprintf(out, "</h3>\n<p>%d run%s, %.0f MB resident", row->runs, row->runs == 1 ? "" : "s", row->resident / 1e6);
    if (row->foreign > 0.1)
        fprintf(out, "; <span class='note'>disturbed: other processes took up to %.0f %% of the cores</span>", row->foreign * 100);
    fprintf(out, "</p>\n<table><tr><th>figure</th><th>median</th><th>unit</th><th>goal</th><th></th><th>least</th><th>most</th></tr>\n");
    for (const struct figure *figure = row->figures; figure < row->figures + row->figure_count; figure++) {
        double least = figure->values[0], most = figure->values[0];
        for (int i = 1; i < figure->count; i++) {
            least = figure->values[i] < least ? figure->values[i] : least;
            most = figure->values[i] > most ? figure->values[i] : most;
        }
        fprintf(out, "<tr><td>");
        escaped(out, figure->name);
        fprintf(out, "</td><td>%.4g</td><td>%s</td>", median_of(figure), figure->unit);
        if (figure->kind == NO_GOAL)
            fprintf(out, "<td></td><td></td>");
        else
            fprintf(out, "<td>%s %g</td><td class='%s'>%s</td>", figure->kind == AT_LEAST ? "&ge;" : "&le;", figure->goal,
                    is_met(figure) ? "yes" : "no", is_met(figure) ? "met" : "not met");
        fprintf(out, "<td>%.4g</td><td>%.4g</td></tr>\n", least, most);
    }
    fprintf(out, "</table>\n");
    plot_latencies(out, row);
}

void write_html(const char *path)
{
    FILE *out = fopen(path, "w");
    const char *part = "";
    if (out == NULL)
        fail(path, strerror(errno));
    fprintf(out, "%s<h1>kvbatch: benchmarks through the C API</h1>\n<p>", head);
    describe_machine(out, "<br>");
    fprintf(out, "</p>\n<h2>Goals</h2>\n<p>How many times each goal is reached; red: it is not.</p>\n");
    plot_goals(out);
    for (const struct row *row = rows; row < rows + row_count; row++) {
        if (row->figure_count == 0)
            continue;
        if (strcmp(part, row->part) != 0) {
            fprintf(out, "<h2>%s</h2>\n", part = row->part);
            plot_rates(out, part);
        }
        write_row(out, row);
    }
    fprintf(out, "</body></html>\n");
    if (fclose(out) != 0)
        fail(path, strerror(errno));
}
