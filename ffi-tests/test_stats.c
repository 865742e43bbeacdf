/* test_stats.c: each figure is true, of a context and of its manager, and the two agree. */
#include "kvtest.h"

/* Four writes of 3 + 5 + 0 + 5 bytes, three reads of 5 bytes, a miss and a delete: nine operations. */
enum { OPS = 9, WRITTEN = 13, READ = 15 };
static batch_t *known_batch(manager_t *m) {
    batch_t *b = new_batch(m, 20);
    add_put(b, "a", "abc");
    add_put(b, "b", "12345");
    add_put_n(b, "c", "", 0);
    add_put(b, "b", "54321"); /* makes the first one moot: counted all the same */
    add_get(b, "b", NULL);
    add_get(b, "b", NULL);
    add_get(b, "b", NULL);
    add_get(b, "nobody", NULL);
    add_delete(b, "a");
    return b;
}

static void counts(const char *of, stats_t s, uint64_t batches) {
    fprintf(stderr, "%s:\n", of); /* shown only when something fails */
    CHECK_EQ_INT(s.total_operations, OPS * batches);
    CHECK_EQ_INT(s.completed_operations, OPS * batches);
    CHECK_EQ_INT(s.failed_operations, 0);
    CHECK_EQ_INT(s.cancelled_operations, 0);
    CHECK_EQ_INT(s.total_batches, batches);
    CHECK_EQ_INT(s.completed_batches, batches);
    CHECK_EQ_INT(s.failed_batches, 0);
    CHECK_EQ_INT(s.bytes_written, WRITTEN * batches);
    CHECK_EQ_INT(s.bytes_read, READ * batches);
    CHECK_EQ_INT(s.keys_processed, OPS * batches);
    CHECK(s.avg_batch_size > OPS - 0.001 && s.avg_batch_size < OPS + 0.001);
    CHECK_EQ_INT(s.active_batches, 0);
    CHECK_EQ_INT(s.queued_operations, 0);
}

TEST(counts_of_a_context) {
    manager_t *m = open_default();
    batch_t *b = known_batch(m);
    CHECK_OK(run_code(b));
    counts("context", stats_of(b), 1);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(counts_of_a_manager_add_up) {
    manager_t *m = open_default();
    for (uint64_t i = 1; i <= 10; i++) {
        run(known_batch(m));
        counts("manager", manager_stats(m), i); /* stays after the contexts are gone */
    }
    close_manager(m);
}

TEST(counts_do_not_depend_on_the_switches) {
    for (unsigned bits = 0; bits < 16; bits++) {
        config_t c = kvt_config();
        c.enable_deduplication = bits & 1;
        c.enable_compression = bits & 2;
        c.enable_batch_fsync = bits & 4;
        c.enable_sorting = bits & 8;
        setenv("KVBATCH_STORE", "memory:", 1);
        manager_t *m = open_with(&c);
        batch_t *b = known_batch(m);
        CHECK_OK(run_code(b));
        counts("context", stats_of(b), 1);
        counts("manager", manager_stats(m), 1);
        kv_async_batch_destroy(b);
        close_manager(m);
    }
}

TEST(a_fresh_context_and_a_fresh_manager) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 5);
    stats_t all[2] = {stats_of(b), manager_stats(m)};
    for (int i = 0; i < 2; i++) {
        stats_t s = all[i];
        CHECK_EQ_INT(s.total_operations + s.completed_operations + s.failed_operations + s.cancelled_operations, 0);
        CHECK_EQ_INT(s.total_batches + s.completed_batches + s.failed_batches, 0);
        CHECK_EQ_INT(s.bytes_read + s.bytes_written + s.keys_processed, 0);
        CHECK_EQ_INT(s.total_submit_time + s.total_complete_time + s.total_wait_time, 0);
        CHECK(s.avg_batch_size == 0 && s.avg_latency_us == 0); /* not 0/0 */
        CHECK(s.throughput_ops_per_sec == 0 && s.throughput_mb_per_sec == 0);
        CHECK_EQ_INT(s.active_batches + s.queued_operations, 0);
    }
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(a_context_counts_at_add_and_a_manager_at_submit) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 5);
    for (unsigned i = 1; i <= 3; i++) {
        add_put(b, "k", "value");
        CHECK_EQ_INT(stats_of(b).total_operations, i);
        CHECK_EQ_INT(manager_stats(m).total_operations, 0);
    }
    CHECK_ERR(kv_async_batch_put(b, NULL, 1, "v", 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_EQ_INT(stats_of(b).total_operations, 3); /* a refused one does not count */
    CHECK_EQ_INT(stats_of(b).bytes_written, 0);    /* bytes of completed operations only */
    CHECK_EQ_INT(stats_of(b).completed_operations, 0);
    CHECK_OK(run_code(b));
    CHECK_EQ_INT(manager_stats(m).total_operations, 3);
    CHECK_EQ_INT(stats_of(b).bytes_written, 15);
    kv_async_batch_destroy(b);
    batch_t *dropped = new_batch(m, 5);
    add_put(dropped, "k", "value");
    kv_async_batch_destroy(dropped);
    CHECK_EQ_INT(manager_stats(m).total_operations, 3); /* never submitted */
    CHECK_EQ_INT(manager_stats(m).total_batches, 1);
    close_manager(m);
}

TEST(a_busy_submit_counts_nothing) {
    config_t c = kvt_config();
    c.max_concurrent_batches = 1;
    manager_t *m = open_with(&c);
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(m, 1), *busy = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    add_put(busy, "x", "1");
    submit(b);
    for (int i = 0; i < 3; i++) CHECK_ERR(kv_async_batch_submit(busy, NULL, NULL), KV_ERR_BUSY);
    CHECK_EQ_INT(manager_stats(m).total_operations, 1);
    CHECK_EQ_INT(manager_stats(m).total_batches, 1);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_OK(run_code(busy));
    CHECK_EQ_INT(manager_stats(m).total_operations, 2);
    CHECK_EQ_INT(manager_stats(m).total_batches, 2);
    close_manager(m);
}

TEST(active_batches_is_a_gauge) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    batch_t *b = new_batch(m, 2);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    CHECK_EQ_INT(manager_stats(m).active_batches, 0);
    submit(b);
    gate_wait(&hold.entered, 1);
    CHECK_EQ_INT(manager_stats(m).active_batches, 1);
    CHECK_EQ_INT(stats_of(b).active_batches, 1);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(manager_stats(m).active_batches, 0);
    CHECK_EQ_INT(stats_of(b).active_batches, 0);
    CHECK_EQ_INT(manager_stats(m).completed_batches, 1);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(failed_operations_and_batches) {
    static char bytes[200000];
    memset(bytes, 'x', sizeof bytes);
    config_t c = counting_config();
    manager_t *m = open_with(&c);
    put_mem(m, "big", 3, bytes, sizeof bytes);
    batch_t *b = new_batch(m, 5);
    add_put(b, "a", "12345");
    add_get(b, "big", NULL);
    add_get(b, "a", NULL);
    done_t done = DONE_INIT;
    alloc_fail_size = 150000;
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    CHECK_CODE(kv_async_batch_wait(b, FOREVER), KV_ERR_BATCH_FAILED);
    alloc_reset();
    stats_t s = stats_of(b), all = manager_stats(m);
    CHECK_EQ_INT(s.total_operations, 3);
    CHECK_EQ_INT(s.completed_operations, 2);
    CHECK_EQ_INT(s.failed_operations, 1);
    CHECK_EQ_INT(s.cancelled_operations, 0);
    CHECK_EQ_INT(s.completed_batches, 0);
    CHECK_EQ_INT(s.failed_batches, 1);
    CHECK_EQ_INT(s.bytes_written, 5);
    CHECK_EQ_INT(s.bytes_read, 5);
    CHECK_EQ_INT(s.keys_processed, 2);
    CHECK_EQ_INT(done.completed, s.completed_operations);
    CHECK_EQ_INT(done.failed, s.failed_operations + s.cancelled_operations);
    CHECK_EQ_INT(all.failed_operations, 1);
    CHECK_EQ_INT(all.failed_batches, 1);
    CHECK_EQ_INT(all.completed_batches, 1);
    CHECK_EQ_INT(all.completed_operations, 3);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(a_batch_cancelled_while_pending_fails_nothing) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 5);
    add_put(b, "k", "value");
    CHECK_OK(kv_async_batch_cancel(b));
    stats_t s = stats_of(b);
    CHECK_EQ_INT(s.total_operations, 1);
    CHECK_EQ_INT(s.completed_operations + s.failed_operations, 0);
    CHECK_EQ_INT(s.completed_batches + s.failed_batches, 0);
    CHECK_EQ_INT(s.bytes_written + s.keys_processed, 0);
    CHECK_EQ_INT(manager_stats(m).total_operations, 0);
    kv_async_batch_destroy(b);
    close_manager(m);
}

static void *wait_forever(void *b) {
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    return NULL;
}

TEST(times_are_sums_of_durations_in_microseconds) {
    manager_t *m = open_default();
    hold_t hold = HOLD_INIT;
    uint64_t start = now_us();
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
    uint64_t before_submit = now_us();
    submit(b);
    uint64_t after_submit = now_us();
    gate_wait(&hold.entered, 1);
    uint64_t before_wait = now_us();
    CHECK_CODE(kv_async_batch_wait(b, 50), KV_ERR_TIMEOUT);
    uint64_t waited = now_us() - before_wait;
    stats_t s = stats_of(b);
    CHECK(s.total_wait_time >= 49000 && s.total_wait_time <= waited + 1);
    CHECK(s.total_submit_time <= after_submit - before_submit + 1);
    uint64_t before_second = now_us();
    pthread_t t = thread_start(wait_forever, b);
    sleep_ms(60);
    gate_open(&hold.leave);
    thread_join(t);
    uint64_t end = now_us();
    s = stats_of(b);
    CHECK(s.total_wait_time >= 49000 && s.total_wait_time <= waited + (end - before_second) + 2);
    CHECK(s.total_complete_time > 0 && s.total_complete_time <= end - before_submit + 1);
    CHECK(s.avg_latency_us > 0 && s.avg_latency_us <= (double)(end - start) + 1);
    stats_t all = manager_stats(m);
    CHECK_EQ_INT(all.total_wait_time, s.total_wait_time);
    CHECK_EQ_INT(all.total_submit_time, s.total_submit_time);
    CHECK_EQ_INT(all.total_complete_time, s.total_complete_time);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(throughput_is_positive_and_no_more_than_what_was_done) {
    manager_t *m = open_default();
    static char kib[1024];
    memset(kib, 'x', sizeof kib);
    uint64_t start = now_us();
    for (int i = 0; i < 20; i++) {
        batch_t *b = new_batch(m, 50);
        for (int k = 0; k < 50; k++) CHECK_OK(kv_async_batch_put(b, "k", 1, kib, sizeof kib, NULL, NULL));
        CHECK_OK(run_code(b));
        stats_t s = stats_of(b);
        CHECK(s.throughput_ops_per_sec > 0 && s.throughput_mb_per_sec > 0);
        CHECK(s.avg_latency_us > 0);
        kv_async_batch_destroy(b);
    }
    stats_t s = manager_stats(m);
    CHECK(s.throughput_ops_per_sec > 0 && s.throughput_mb_per_sec > 0);
    CHECK(s.avg_latency_us > 0 && s.avg_latency_us <= (double)(now_us() - start));
    CHECK(s.throughput_ops_per_sec < 1e12 && s.throughput_mb_per_sec < 1e9); /* finite, no division by nothing */
    close_manager(m);
}

TEST(memory_figures) {
    manager_t *m = open_default();
    static char mib[1 << 20];
    memset(mib, 'x', sizeof mib);
    batch_t *b = new_batch(m, 10);
    size_t before = stats_of(b).current_memory_usage;
    CHECK_OK(kv_async_batch_put(b, "k", 1, mib, sizeof mib, NULL, NULL));
    stats_t one = stats_of(b);
    CHECK(one.current_memory_usage >= before + sizeof mib);
    CHECK(one.peak_memory_usage >= one.current_memory_usage);
    batch_t *c = new_batch(m, 10);
    CHECK_OK(kv_async_batch_put(c, "k", 1, mib, sizeof mib, NULL, NULL));
    stats_t all = manager_stats(m);
    CHECK_EQ_INT(all.current_memory_usage, stats_of(b).current_memory_usage + stats_of(c).current_memory_usage);
    CHECK(all.peak_memory_usage >= 2 * sizeof mib);
    CHECK_OK(run_code(b));
    kv_async_batch_destroy(b);
    kv_async_batch_destroy(c);
    stats_t end = manager_stats(m);
    CHECK_EQ_INT(end.current_memory_usage, 0);
    CHECK(end.peak_memory_usage >= all.peak_memory_usage);
    close_manager(m);
}

TEST(memory_stays_within_the_limit) {
    config_t c = kvt_config();
    c.max_memory_usage = 100000;
    manager_t *m = open_with(&c);
    batch_t *b = new_batch(m, 1000);
    static char kib[1024];
    while (kv_async_batch_put(b, "key", 3, kib, sizeof kib, NULL, NULL) == KV_SUCCESS) {}
    CHECK(stats_of(b).current_memory_usage <= 100000);
    CHECK(stats_of(b).peak_memory_usage <= 100000);
    run(b);
    close_manager(m);
}

TEST(reset_clears_the_counts_of_the_context_only) {
    manager_t *m = open_default();
    batch_t *b = known_batch(m);
    CHECK_OK(run_code(b));
    kv_async_batch_reset_stats(b);
    stats_t s = stats_of(b);
    CHECK_EQ_INT(s.total_operations + s.completed_operations + s.failed_operations + s.cancelled_operations, 0);
    CHECK_EQ_INT(s.total_batches + s.completed_batches + s.failed_batches, 0);
    CHECK_EQ_INT(s.bytes_read + s.bytes_written + s.keys_processed, 0);
    CHECK_EQ_INT(s.total_submit_time + s.total_complete_time + s.total_wait_time, 0);
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_COMPLETED);
    counts("manager", manager_stats(m), 1);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(print_writes_the_figures_as_lines) {
    manager_t *m = open_default();
    batch_t *b = known_batch(m);
    CHECK_OK(run_code(b));
    CHECK_EQ_INT(printed(b, "total_operations"), OPS);
    CHECK_EQ_INT(printed(b, "completed_operations"), OPS);
    CHECK_EQ_INT(printed(b, "failed_operations"), 0);
    CHECK_EQ_INT(printed(b, "bytes_written"), WRITTEN);
    CHECK_EQ_INT(printed(b, "bytes_read"), READ);
    CHECK_EQ_INT(printed(b, "completed_batches"), 1);
    char *text = printed_text(b);
    CHECK(text[strlen(text) - 1] == '\n');
    free(text);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(print_refuses_null) {
    CHECK_ERR(kv_async_batch_print_stats(NULL, stdout), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_reset_stats(NULL), KV_ERR_NULL_POINTER);
}

static void *print_all_the_time(void *b) {
    for (int i = 0; i < 200; i++) {
        stats_of(b);
        CHECK(printed(b, "total_operations") >= 0);
    }
    return NULL;
}

TEST(statistics_may_be_asked_for_while_threads_work) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 100000);
    pthread_t t = thread_start(print_all_the_time, b);
    for (int i = 0; i < 20000; i++) add_put(b, "k", "v");
    submit(b);
    thread_join(t);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(stats_of(b).completed_operations, 20000);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(totals_agree_after_concurrent_work) {
    manager_t *m = open_default();
    enum { N = 30 };
    batch_t *b[N];
    stats_t sum;
    memset(&sum, 0, sizeof sum);
    for (int i = 0; i < N; i++) submit(b[i] = known_batch(m));
    for (int i = 0; i < N; i++) {
        CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
        stats_t s = stats_of(b[i]);
        sum.total_operations += s.total_operations;
        sum.completed_operations += s.completed_operations;
        sum.bytes_read += s.bytes_read;
        sum.bytes_written += s.bytes_written;
        sum.total_complete_time += s.total_complete_time;
        sum.total_submit_time += s.total_submit_time;
        sum.total_wait_time += s.total_wait_time;
    }
    stats_t all = manager_stats(m);
    CHECK_EQ_INT(all.total_operations, sum.total_operations);
    CHECK_EQ_INT(all.completed_operations, sum.completed_operations);
    CHECK_EQ_INT(all.bytes_read, sum.bytes_read);
    CHECK_EQ_INT(all.bytes_written, sum.bytes_written);
    CHECK_EQ_INT(all.total_complete_time, sum.total_complete_time);
    CHECK_EQ_INT(all.total_submit_time, sum.total_submit_time);
    CHECK_EQ_INT(all.total_wait_time, sum.total_wait_time);
    counts("manager", all, N);
    close_manager(m);
}
