/*
 * plot.c: plots as inline SVG: how far each goal is met, rates as bars, and latencies by percentile. Called by html.c.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <math.h>

enum { WIDTH = 860, LABEL = 400, BAR = 16, ROW = 22, CURVE_HEIGHT = 260, LEFT = 60, BOTTOM = 30 };

static const char *const colours[] = {"#3465a4", "#cc6b1f", "#4e9a06", "#75507b", "#a40000", "#2e8b8b", "#8f5902", "#555753"};

static void text_at(FILE *out, double x, double y, const char *anchor, const char *text)
{
    fprintf(out, "<text x='%.1f' y='%.1f' text-anchor='%s'>", x, y, anchor);
    for (; *text != '\0'; text++) {
        if (*text == '<' || *text == '&')
            fprintf(out, *text == '<' ? "&lt;" : "&amp;");
        else
            fputc(*text, out);
    }
    fprintf(out, "</text>\n");
}

static void begin(FILE *out, int height)
{
    fprintf(out, "<svg viewBox='0 0 %d %d' width='%d' height='%d' role='img'>\n", WIDTH, height, WIDTH, height);
}

/* Each goal as a bar: how many times what was asked for was reached, on a scale of doublings around 1. */
void plot_goals(FILE *out)
{
    int bars = 0, at = 0;
    for (const struct row *row = rows; row < rows + row_count; row++)
        for (int f = 0; f < row->figure_count; f++)
            bars += row->figures[f].kind != NO_GOAL;
    double room = WIDTH - LABEL - 80, middle = LABEL + 40 + room / 2;
    begin(out, bars * ROW + 30);
    for (const struct row *row = rows; row < rows + row_count; row++)
        for (const struct figure *figure = row->figures; figure < row->figures + row->figure_count; figure++) {
            if (figure->kind == NO_GOAL)
                continue;
            char label[160], ratio[32];
            double seen = median_of(figure), times = figure->kind == AT_LEAST ? seen / figure->goal : figure->goal / seen;
            if (figure->goal == 0)
                times = seen == 0 ? 8 : 0.125;
            double doublings = fmax(-3, fmin(3, log2(fmax(times, 1e-9)))), x = middle + doublings * room / 6, y = at++ * ROW + 4;
            snprintf(label, sizeof label, "%s: %s", row->name, figure->name);
            if (strlen(label) > 62)
                snprintf(label + 59, 4, "...");
            snprintf(ratio, sizeof ratio, "%.2f", times);
            text_at(out, LABEL - 8, y + 13, "end", label);
            fprintf(out, "<rect x='%.1f' y='%.1f' width='%.1f' height='%d' fill='%s'/>\n", fmin(x, middle), y, fabs(x - middle), BAR,
                    times >= 1 ? "#4e9a06" : "#cc0000");
            text_at(out, x >= middle ? x + 4 : x - 4, y + 13, x >= middle ? "start" : "end", ratio);
        }
    fprintf(out, "<line x1='%.1f' y1='0' x2='%.1f' y2='%d' class='axis'/>\n", middle, middle, bars * ROW);
    text_at(out, middle, bars * ROW + 20, "middle", "goal");
    fprintf(out, "</svg>\n");
}

/* All figures of one part that are rates in M ops/s. */
void plot_rates(FILE *out, const char *part)
{
    double largest = 0;
    int bars = 0, at = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1 && (bars == 0 || largest <= 0))
            return;
        if (pass == 1)
            begin(out, bars * ROW + 4);
        for (const struct row *row = rows; row < rows + row_count; row++)
            for (const struct figure *figure = row->figures; figure < row->figures + row->figure_count; figure++) {
                double seen = median_of(figure);
                if (strcmp(row->part, part) != 0 || strcmp(figure->unit, "M ops/s") != 0)
                    continue;
                if (pass == 0) {
                    bars++;
                    largest = fmax(largest, seen);
                    continue;
                }
                char label[160], value[32];
                double y = at++ * ROW + 4, length = seen / largest * (WIDTH - LABEL - 60);
                snprintf(label, sizeof label, "%s: %s", row->name, figure->name);
                if (strlen(label) > 62)
                    snprintf(label + 59, 4, "...");
                snprintf(value, sizeof value, "%.2f", seen);
                text_at(out, LABEL - 8, y + 13, "end", label);
                fprintf(out, "<rect x='%d' y='%.1f' width='%.1f' height='%d' fill='%s'/>\n", LABEL, y, length, BAR, colours[0]);
                text_at(out, LABEL + length + 4, y + 13, "start", value);
            }
    }
    fprintf(out, "</svg>\n");
}

/* Percentiles to the right, on a scale on which each nine takes as much room; time upwards, each factor of ten likewise. */
void plot_latencies(FILE *out, const struct row *row)
{
    static const double shares[] = {0.01, 0.05, 0.1,  0.2,  0.3,  0.4,  0.5,   0.6,   0.7,   0.8,   0.85,   0.9,
                                    0.93, 0.95, 0.97, 0.98, 0.99, 0.993, 0.995, 0.997, 0.999, 0.9995, 0.9999};
    enum { SHARES = sizeof shares / sizeof shares[0] };
    double low = 1e9, high = 0, points[SERIES_MAX][SHARES];
    if (row->series_count == 0)
        return;
    for (int s = 0; s < row->series_count; s++)
        for (int i = 0; i < SHARES; i++) {
            double value = points[s][i] = fmax(1e-8, quantile(row->series[s].values, row->series[s].count, shares[i]));
            low = fmin(low, value);
            high = fmax(high, value);
        }
    low = floor(log10(low));
    high = ceil(log10(high) + 1e-9);
    double width = WIDTH - LEFT - 20, height = CURVE_HEIGHT - BOTTOM - 10;
    begin(out, CURVE_HEIGHT + row->series_count * 18);
    for (double power = low; power <= high; power++) {
        char label[32];
        double y = 10 + height * (high - power) / (high - low);
        snprintf(label, sizeof label, power >= -3 ? "%.0f ms" : "%g us", pow(10, power) * (power >= -3 ? 1e3 : 1e6));
        fprintf(out, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' class='grid'/>\n", LEFT, y, WIDTH - 20, y);
        text_at(out, LEFT - 6, y + 4, "end", label);
    }
    for (int i = 0; i < 5; i++) {
        static const double marks[] = {0, 0.5, 0.9, 0.99, 0.999};
        static const char *const names[] = {"least", "p50", "p90", "p99", "p999"};
        double x = LEFT + width * -log10(1 - marks[i]) / 4;
        fprintf(out, "<line x1='%.1f' y1='10' x2='%.1f' y2='%.1f' class='grid'/>\n", x, x, 10 + height);
        text_at(out, x, CURVE_HEIGHT - 12, "middle", names[i]);
    }
    for (int s = 0; s < row->series_count; s++) {
        fprintf(out, "<polyline fill='none' stroke-width='2' stroke='%s' points='", colours[s % 8]);
        for (int i = 0; i < SHARES; i++)
            fprintf(out, "%.1f,%.1f ", LEFT + width * -log10(1 - shares[i]) / 4,
                    10 + height * (high - log10(points[s][i])) / (high - low));
        fprintf(out, "'/>\n<rect x='%d' y='%d' width='12' height='12' fill='%s'/>\n", LEFT, CURVE_HEIGHT + s * 18, colours[s % 8]);
        text_at(out, LEFT + 18, CURVE_HEIGHT + s * 18 + 11, "start", row->series[s].name);
    }
    fprintf(out, "</svg>\n");
}
