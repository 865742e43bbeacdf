/*
 * study.c: rows that compare settings: how large a batch should be.
 */
#define _GNU_SOURCE
#include "bench.h"

/* ---- The size of a batch ---- */

static const size_t sizes[] = {1, 10, 100, 500, 1000, 5000, 10000, 100000};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

void run_study_sizes(void)
{
    for (int s = 0; s < SIZES; s++) {
        size_t batch = sizes[s] < opt.keys ? sizes[s] : opt.keys;
        char name[56];
        for (int fsync = 0; fsync <= 1; fsync++) {
            size_t ops = fsync && batch < 1000 ? batch * 2000 : batch < 10 ? 200000 : opt.keys; /* one sync costs what it costs */
            kv_async_batch_manager_t *manager = open_store("study", "", fsync);
            struct load load = {.manager = manager, .ops = ops < opt.keys ? ops : opt.keys, .batch = batch, .in_flight = 1,
                                .value = opt.value, .add = add_put};
            drive(&load);
            snprintf(name, sizeof name, "put, fsync %s, %zu", fsync ? "on" : "off", sizes[s]);
            figure(name, "M ops/s", rate(&load));
            if (!fsync) {
                check_all(manager, load.ops, NULL);
                load.add = add_get;
                fill(manager, opt.keys);
                drive(&load);
                snprintf(name, sizeof name, "get, hot, %zu", sizes[s]);
                figure(name, "M ops/s", rate(&load));
            }
            drop_store(manager, "study");
            settle();
        }
    }
}
