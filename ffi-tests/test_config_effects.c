/* test_config_effects.c: each of the 17 fields of the configuration does something that can be observed: in results, in statistics, or
 * in the counters that kv_async_batch_print_stats prints. */
#include "fake_disk.h"

static void put_many(manager_t *m, int n, size_t size) {
    static char bytes[100000];
    memset(bytes, 'v', sizeof bytes);
    batch_t *b = new_batch(m, (size_t)n);
    for (int i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "key%d", i);
        CHECK_OK(kv_async_batch_put(b, key, strlen(key), bytes, size, NULL, NULL));
    }
    run(b);
}

static void get_many(manager_t *m, int n) {
    static probe_t p[1000];
    memset(p, 0, sizeof p);
    batch_t *b = new_batch(m, (size_t)n);
    for (int i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "key%d", i * 7 % n); /* not in the order in which they lie on the disk */
        add_get(b, key, &p[i]);
    }
    run(b);
    for (int i = 0; i < n; i++) CHECK_CODE(p[i].result, KV_SUCCESS);
}

/* A manager whose reads must go to the disk: the store was written by an earlier one. */
static manager_t *cold(const config_t *c, int n) {
    manager_t *m = open_default();
    put_many(m, n, 5000);
    close_manager(m);
    return open_with(c);
}

static int reads_through_a_ring(manager_t *m) {
    batch_t *b = new_batch(m, 1);
    char *text = printed_text(b);
    int ring = strstr(text, "  io_backend: io_uring") != NULL;
    free(text);
    kv_async_batch_destroy(b);
    return ring;
}

TEST(max_batch_size_is_what_a_batch_of_size_zero_holds) {
    for (size_t size = 1; size < 600; size += 150) {
        config_t c = kvt_config();
        c.max_batch_size = size;
        manager_t *m = open_with(&c);
        batch_t *b = new_batch(m, 0);
        for (size_t i = 0; i < size; i++) add_put(b, "k", "v");
        CHECK_ERR(kv_async_batch_put(b, "k", 1, "v", 1, NULL, NULL), KV_ERR_BATCH_FULL);
        run(b);
        close_manager(m);
    }
}

TEST(max_memory_usage_limits_what_a_batch_holds) {
    static char kib[1024];
    int held[2];
    for (int i = 0; i < 2; i++) {
        config_t c = kvt_config();
        c.max_memory_usage = i ? 800000 : 200000;
        manager_t *m = open_with(&c);
        batch_t *b = new_batch(m, 5000);
        int code;
        for (held[i] = 0; (code = kv_async_batch_put(b, "key", 3, kib, sizeof kib, NULL, NULL)) == KV_SUCCESS; held[i]++) {}
        CHECK_CODE(code, KV_ERR_BATCH_TOO_LARGE);
        kv_async_batch_destroy(b);
        close_manager(m);
    }
    CHECK(held[0] > 50 && held[0] < 200);
    CHECK(held[1] > 3 * held[0]);
}

TEST(timeout_ms_ends_what_waits_in_the_queue) {
    static char bytes[600000];
    for (int i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "store-%d", i);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.timeout_ms = i ? 1000000 : 200;
        manager_t *m = open_with(&c), *helper = open_default();
        put_one(helper, "before", "1"); /* the chunk is there */
        disk_write.stuck = disk_sync.stuck = 1;
        batch_t *b[30];
        for (int k = 0; k < 30; k++) {
            b[k] = new_batch(m, 1);
            CHECK_OK(kv_async_batch_put(b[k], "k", 1, bytes, sizeof bytes, NULL, NULL));
            submit(b[k]);
        }
        if (i == 0) while (manager_stats(m).failed_operations == 0) sleep_ms(2);
        else sleep_ms(400);
        heal(&disk_write);
        heal(&disk_sync);
        int failed = 0;
        for (int k = 0; k < 30; k++) failed += kv_async_batch_wait(b[k], FOREVER) != KV_SUCCESS;
        CHECK(i ? failed == 0 : failed > 0);
        close_manager(m);
        close_manager(helper);
    }
}

TEST(max_concurrent_batches_is_where_submit_says_busy) {
    for (uint32_t limit = 1; limit < 40; limit += 9) {
        config_t c = kvt_config();
        c.max_concurrent_batches = limit;
        manager_t *m = open_with(&c);
        hold_t hold = HOLD_INIT;
        batch_t *b = NULL;
        for (uint32_t i = 0; i < limit; i++) {
            b = new_batch(m, 1);
            CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_hold, &hold));
            submit(b);
        }
        b = new_batch(m, 1);
        add_put(b, "k", "v");
        CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_BUSY);
        CHECK_EQ_INT(manager_stats(m).active_batches, limit);
        gate_open(&hold.leave);
        close_manager(m);
    }
}

TEST(io_queue_depth_bounds_the_reads_in_flight) {
    for (uint32_t depth = 1; depth <= 32; depth *= 4) {
        char name[16];
        snprintf(name, sizeof name, "store-%u", depth);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.io_queue_depth = depth;
        manager_t *m = cold(&c, 300);
        disk_read.slow_ms = 2; /* threads only: reads that find their bytes in the page cache hardly overlap by chance */
        get_many(m, 300);
        heal(&disk_read);
        CHECK(counter(m, "cold_reads") >= 300);
        double most = counter(m, "cold_reads_in_flight_max");
        CHECK(most >= 1 && most <= depth);
        if (depth > 1) CHECK(most > 1); /* and is made use of */
        close_manager(m);
    }
}

TEST(enable_io_polling_polls_for_completions) {
    for (int on = 0; on < 2; on++) {
        char name[16];
        snprintf(name, sizeof name, "store-%d", on);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.enable_io_polling = on;
        manager_t *m = cold(&c, 200);
        get_many(m, 200);
        if (!on || reads_through_a_ring(m)) CHECK(on ? counter(m, "polled_reads") > 0 : counter(m, "polled_reads") == 0);
        close_manager(m);
    }
}

TEST(enable_batch_fsync_syncs_each_batch) {
    for (int on = 0; on < 2; on++) {
        char name[16];
        snprintf(name, sizeof name, "store-%d", on);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.enable_batch_fsync = on;
        c.fsync_interval_ms = 0;
        manager_t *m = open_with(&c);
        put_one(m, "first", "1"); /* makes the chunk, which takes syncs of its own */
        long calls = disk_sync.calls;
        double counted = counter(m, "syncs");
        for (int i = 0; i < 20; i++) put_one(m, "k", "v");
        CHECK(on ? disk_sync.calls - calls >= 20 : disk_sync.calls == calls);
        CHECK(on ? counter(m, "syncs") - counted >= 20 : counter(m, "syncs") == counted);
        close_manager(m);
    }
}

TEST(concurrent_batches_share_one_sync) {
    config_t c = kvt_config();
    manager_t *m = open_with(&c);
    put_one(m, "first", "1");
    disk_write.stuck = disk_sync.stuck = 1; /* while the first ones hang, the others gather */
    batch_t *b[60];
    for (int i = 0; i < 60; i++) {
        b[i] = new_batch(m, 1);
        add_put(b[i], "k", "v");
        submit(b[i]);
    }
    while (disk_write.waiting + disk_sync.waiting == 0) sleep_ms(1);
    double syncs = counter(m, "syncs");
    long calls = disk_sync.calls;
    heal(&disk_write);
    heal(&disk_sync);
    for (int i = 0; i < 60; i++) CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
    CHECK(disk_sync.calls - calls < 40);
    CHECK(counter(m, "syncs") - syncs < 40);
    CHECK(counter(m, "groups") < counter(m, "batches"));
    close_manager(m);
}

TEST(fsync_interval_ms_syncs_in_the_background) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    c.fsync_interval_ms = 20;
    manager_t *m = open_with(&c);
    put_one(m, "first", "1");
    for (int i = 0; i < 3; i++) {
        long calls = disk_sync.calls;
        put_one(m, "k", "v");
        while (disk_sync.calls == calls) sleep_ms(1); /* comes though nothing else is asked */
    }
    CHECK(counter(m, "interval_syncs") >= 3);
    close_manager(m);
}

TEST(fsync_interval_zero_means_no_background_sync) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    c.fsync_interval_ms = 0;
    manager_t *m = open_with(&c);
    put_one(m, "first", "1");
    long calls = disk_sync.calls;
    put_one(m, "k", "v");
    sleep_ms(150);
    CHECK_EQ_INT(disk_sync.calls, calls);
    CHECK_EQ_INT(counter(m, "interval_syncs"), 0);
    close_manager(m);
}

TEST(enable_deduplication_leaves_out_what_a_later_write_makes_moot) {
    for (int on = 0; on < 2; on++) {
        char name[16];
        snprintf(name, sizeof name, "store-%d", on);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.enable_deduplication = on;
        manager_t *m = open_with(&c);
        batch_t *b = new_batch(m, 100);
        for (int i = 0; i < 100; i++) add_put(b, "k", "v");
        run(b);
        CHECK_EQ_INT(counter(m, "records"), on ? 1 : 100);
        CHECK_EQ_INT(counter(m, "deduplicated_writes"), on ? 99 : 0);
        b = new_batch(m, 3); /* a read in between keeps the first write's value alive for it */
        probe_t p = {0};
        add_put(b, "k", "one");
        add_get(b, "k", &p);
        add_put(b, "k", "two");
        run(b);
        CHECK_EQ_STR(p.value, "one");
        EXPECT(m, "k", "two");
        close_manager(m);
    }
}

TEST(enable_sorting_puts_reads_into_the_order_of_places) {
    for (int on = 0; on < 2; on++) {
        char name[16];
        snprintf(name, sizeof name, "store-%d", on);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.enable_sorting = on;
        manager_t *m = cold(&c, 200);
        get_many(m, 200);
        CHECK(counter(m, "cold_reads") >= 200);
        CHECK(on ? counter(m, "cold_reads_sorted") >= 200 : counter(m, "cold_reads_sorted") == 0);
        close_manager(m);
    }
}

static double store_bytes(void) {
    char names[64][256], path[5000];
    size_t n = list_dir(kvt_store(), "chunk-", names, 64);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        struct stat s;
        snprintf(path, sizeof path, "%s/%s", kvt_store(), names[i]);
        CHECK_EQ_INT(stat(path, &s), 0);
        sum += (double)s.st_size;
    }
    return sum;
}

TEST(enable_compression_makes_the_store_smaller) {
    double bytes[2];
    for (int on = 0; on < 2; on++) {
        char name[16];
        snprintf(name, sizeof name, "store-%d", on);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.enable_compression = on;
        manager_t *m = open_with(&c);
        put_many(m, 100, 20000);
        bytes[on] = store_bytes();
        CHECK_EQ_INT(counter(m, "packed_values"), on ? 100 : 0);
        batch_t *b = new_batch(m, 1);
        CHECK_EQ_INT(manager_stats(m).bytes_written, 2000000); /* as the caller sees them */
        kv_async_batch_destroy(b);
        for (int reopened = 0; reopened < 2; reopened++) {
            char *seen = get_one(m, "key42");
            CHECK(seen && strlen(seen) == 20000 && strspn(seen, "v") == 20000);
            free(seen);
            close_manager(m);
            c.enable_compression = !on; /* either setting reads what the other has written */
            m = open_with(&c);
        }
        close_manager(m);
    }
    CHECK(bytes[1] * 5 < bytes[0]);
}

TEST(compression_leaves_alone_what_would_not_shrink) {
    config_t c = kvt_config();
    c.enable_compression = true;
    manager_t *m = open_with(&c);
    char noise[10000];
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)next_random(&seed);
    put_mem(m, "noise", 5, noise, sizeof noise);
    put_one(m, "tiny", "x");
    CHECK_EQ_INT(counter(m, "packed_values"), 0);
    close_manager(m);
    m = open_with(&c);
    size_t len;
    char *seen = get_mem(m, "noise", 5, &len);
    CHECK_EQ_MEM(seen, len, noise, sizeof noise);
    free(seen);
    EXPECT(m, "tiny", "x");
    close_manager(m);
}

TEST(enable_prefetching_has_several_reads_in_flight) {
    for (int on = 0; on < 2; on++) {
        char name[16];
        snprintf(name, sizeof name, "store-%d", on);
        setenv("KVBATCH_STORE", name, 1);
        config_t c = kvt_config();
        c.enable_prefetching = on;
        manager_t *m = cold(&c, 200);
        disk_read.slow_ms = 2; /* as above */
        get_many(m, 200);
        heal(&disk_read);
        CHECK(on ? counter(m, "cold_reads_in_flight_max") > 1 : counter(m, "cold_reads_in_flight_max") == 1);
        close_manager(m);
    }
}

TEST(fail_fast_makes_a_batch_all_or_nothing) {
    static char big[200000];
    memset(big, 'b', sizeof big);
    for (int on = 0; on < 2; on++) {
        config_t c = counting_config();
        c.fail_fast = on;
        manager_t *m = open_with(&c);
        put_mem(m, "big", 3, big, sizeof big);
        delete_one(m, "k");
        batch_t *b = new_batch(m, 2);
        add_put(b, "k", "v");
        add_get(b, "big", NULL);
        alloc_fail_size = 150000;
        CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
        alloc_fail_size = 0;
        kv_async_batch_destroy(b);
        EXPECT(m, "k", on ? NULL : "v");
        close_manager(m);
    }
}

/* How a GET fares whose first `times` tries meet a transient error. */
static int read_with_failures(uint32_t retries, uint32_t delay, long times, uint64_t *took, double *counted) {
    config_t c = kvt_config();
    c.max_retry_count = retries;
    c.retry_delay_ms = delay;
    manager_t *m = cold(&c, 1);
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    add_get(b, "key0", &p);
    fail_with(&disk_read, EAGAIN, times);
    uint64_t start = now_us();
    run_code(b);
    *took = now_us() - start;
    heal(&disk_read);
    *counted = counter(m, "retries");
    close_manager(m);
    return p.result;
}

TEST(max_retry_count_is_how_often_a_transient_error_is_tried_again) {
    setenv("KVBATCH_IO", "threads", 1);
    uint64_t took;
    double counted;
    CHECK(read_with_failures(0, 1, 1, &took, &counted) != KV_SUCCESS);
    CHECK_EQ_INT(counted, 0);
    CHECK_OK(read_with_failures(1, 1, 1, &took, &counted));
    CHECK_EQ_INT(counted, 1);
    CHECK(read_with_failures(3, 1, 4, &took, &counted) != KV_SUCCESS);
    CHECK_EQ_INT(counted, 3);
    CHECK_OK(read_with_failures(5, 1, 4, &took, &counted));
    CHECK_EQ_INT(counted, 4);
}

TEST(retry_delay_ms_passes_between_the_tries) {
    setenv("KVBATCH_IO", "threads", 1);
    uint64_t took;
    double counted;
    CHECK_OK(read_with_failures(3, 40, 3, &took, &counted));
    CHECK(took >= 3 * 40000);
}

TEST(writes_are_tried_again_as_well) {
    for (uint32_t retries = 0; retries < 4; retries += 3) {
        config_t c = kvt_config();
        c.enable_batch_fsync = false;
        c.max_retry_count = retries;
        c.retry_delay_ms = 1;
        manager_t *m = open_with(&c);
        put_one(m, "before", "1");
        fail_with(&disk_write, ENOMEM, 2); /* the kernel could not get memory for the pages */
        probe_t p = {0};
        batch_t *b = new_batch(m, 1);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op, &p));
        int code = run_code(b);
        heal(&disk_write);
        CHECK(retries ? code == KV_SUCCESS : code == KV_ERR_BATCH_FAILED);
        CHECK(retries ? p.result == KV_SUCCESS : p.result != KV_SUCCESS);
        EXPECT(m, "k", retries ? "v" : NULL);
        kv_async_batch_manager_destroy(m);
    }
}

TEST(alloc_func_and_free_func_hold_what_a_batch_holds) {
    config_t c = counting_config();
    manager_t *m = open_with(&c);
    batch_t *b = new_batch(m, 10);
    add_put(b, "k", "v");
    CHECK(alloc_calls > 0 && alloc_live > 0);
    run(b);
    CHECK_EQ_INT(alloc_live, 0);
    close_manager(m);
}

TEST(log_bytes_are_what_the_files_grow_by) {
    manager_t *m = open_default();
    put_one(m, "first", "1");
    double counted = counter(m, "log_bytes"), on_disk = store_bytes();
    put_many(m, 100, 1000);
    double grown = store_bytes() - on_disk, claimed = counter(m, "log_bytes") - counted;
    CHECK(grown >= 100000);
    CHECK(claimed >= 100000);
    CHECK(claimed + 4096 >= grown && claimed <= grown + 4096); /* padding in front or behind */
    put_one(m, "one more", "x");
    CHECK(counter(m, "log_bytes") - counted - claimed >= 64); /* a frame's header at the least */
    close_manager(m);
}
