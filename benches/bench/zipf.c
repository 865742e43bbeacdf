/*
 * zipf.c: zipfian draws, by the method of Gray et al. ("Quickly generating billion-record synthetic databases", 1994), which
 * YCSB uses too. Called by rows with skewed keys.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <math.h>

static struct {
    size_t items;
    double theta, zeta, eta, alpha, half;
} zipf;

void zipf_begin(size_t items, double theta)
{
    if (zipf.items == items && zipf.theta == theta)
        return;
    double zeta = 0;
    for (size_t i = 1; i <= items; i++)
        zeta += 1 / pow((double)i, theta);
    zipf.items = items;
    zipf.theta = theta;
    zipf.zeta = zeta;
    zipf.half = 1 + pow(0.5, theta);
    zipf.alpha = 1 / (1 - theta);
    zipf.eta = (1 - pow(2.0 / (double)items, 1 - theta)) / (1 - zipf.half / zeta);
}

size_t zipf_rank(uint64_t random)
{
    double u = (double)(random >> 11) * 0x1p-53, uz = u * zipf.zeta;
    if (uz < 1)
        return 0;
    if (uz < zipf.half)
        return 1;
    size_t rank = (size_t)((double)zipf.items * pow(zipf.eta * u - zipf.eta + 1, zipf.alpha));
    return rank < zipf.items ? rank : zipf.items - 1;
}

size_t zipf_item(uint64_t random, size_t items)
{
    return mix(zipf_rank(random)) % items;
}
