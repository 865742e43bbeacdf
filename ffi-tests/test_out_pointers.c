/* test_out_pointers.c: where a GET's value goes. The documented examples pass variables that are out of scope when the batch runs:
 * so only kv_async_batch_wait writes, in the waiting thread, once, and never to an address that two GETs share. */
#include "kvtest.h"

#define SENTINEL ((char *)"sentinel: never written")
#define GET(b, key, value, len) CHECK_OK(kv_async_batch_get(b, key, strlen(key), value, len, NULL, NULL))

TEST(wait_writes_value_and_length) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    char *value = SENTINEL;
    size_t len = 4711;
    batch_t *b = new_batch(m, 1);
    GET(b, "k", &value, &len);
    CHECK_OK(run_code(b));
    CHECK(value != SENTINEL);
    CHECK_EQ_MEM(value, len, "value", 5);
    CHECK_EQ_INT(value[5], 0);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(a_miss_sets_null_and_zero) {
    manager_t *m = open_default();
    char *value = SENTINEL;
    size_t len = 4711;
    batch_t *b = new_batch(m, 1);
    GET(b, "nobody", &value, &len);
    CHECK_OK(run_code(b));
    CHECK(value == NULL);
    CHECK_EQ_INT(len, 0);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(either_pointer_or_both_may_be_null) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    char *value = SENTINEL;
    size_t len = 4711;
    probe_t p = {0};
    batch_t *b = new_batch(m, 4);
    GET(b, "k", &value, NULL);
    GET(b, "k", NULL, &len);
    GET(b, "k", NULL, NULL);
    add_get(b, "k", &p);
    CHECK_OK(run_code(b));
    CHECK_EQ_STR(value, "value");
    CHECK_EQ_INT(len, 5);
    CHECK_EQ_STR(p.value, "value");
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(nothing_is_written_before_wait) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    char *hit = SENTINEL, *miss = SENTINEL;
    size_t hit_len = 4711, miss_len = 4711;
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 2);
    GET(b, "k", &hit, &hit_len);
    GET(b, "nobody", &miss, &miss_len);
    CHECK(hit == SENTINEL && hit_len == 4711); /* not by adding */
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&done.gate, 1);
    while (kv_async_batch_get_status(b) != ST_COMPLETED) sleep_ms(1);
    CHECK(hit == SENTINEL && hit_len == 4711); /* not by the library's threads */
    CHECK(miss == SENTINEL && miss_len == 4711);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_MEM(hit, hit_len, "value", 5);
    CHECK(miss == NULL && miss_len == 0);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(nothing_is_written_when_nobody_waits) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    char *value = SENTINEL;
    size_t len = 4711;
    done_t done = DONE_INIT;
    batch_t *b = new_batch(m, 1);
    GET(b, "k", &value, &len);
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&done.gate, 1);
    kv_async_batch_destroy(b); /* waits for the end, but is no wait */
    CHECK(value == SENTINEL && len == 4711);
    close_manager(m);
    CHECK(value == SENTINEL && len == 4711);
}

TEST(a_wait_that_times_out_writes_nothing) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    hold_t hold = HOLD_INIT;
    char *value = SENTINEL;
    size_t len = 4711;
    batch_t *b = new_batch(m, 2);
    GET(b, "k", &value, &len);
    CHECK_OK(kv_async_batch_put(b, "x", 1, "1", 1, on_op_hold, &hold));
    submit(b);
    gate_wait(&hold.entered, 1);
    CHECK_CODE(kv_async_batch_wait(b, 0), KV_ERR_TIMEOUT);
    CHECK_CODE(kv_async_batch_wait(b, 10), KV_ERR_TIMEOUT);
    CHECK(value == SENTINEL && len == 4711);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_MEM(value, len, "value", 5);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(written_once_a_second_wait_leaves_the_callers_variables_alone) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    char *value = NULL;
    size_t len = 0;
    batch_t *b = new_batch(m, 1);
    GET(b, "k", &value, &len);
    CHECK_OK(run_code(b));
    CHECK_EQ_MEM(value, len, "value", 5);
    value = SENTINEL;
    len = 4711;
    CHECK_OK(kv_async_batch_wait(b, 0));
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK(value == SENTINEL && len == 4711);
    kv_async_batch_destroy(b);
    CHECK(value == SENTINEL && len == 4711);
    close_manager(m);
}

TEST(an_address_that_two_gets_share_is_never_written) {
    manager_t *m = open_default();
    put_one(m, "a", "1");
    put_one(m, "b", "2");
    put_one(m, "c", "3");
    char *both = SENTINEL, *own = SENTINEL;
    size_t both_len = 4711, own_len = 4711;
    probe_t pa = {0}, pb = {0};
    batch_t *b = new_batch(m, 3);
    CHECK_OK(kv_async_batch_get(b, "a", 1, &both, &both_len, on_op, &pa));
    GET(b, "c", &own, &own_len);
    CHECK_OK(kv_async_batch_get(b, "b", 1, &both, &both_len, on_op, &pb));
    CHECK_OK(run_code(b));
    CHECK(both == SENTINEL && both_len == 4711);
    CHECK_EQ_STR(pa.value, "1"); /* there the value comes through op->value */
    CHECK_EQ_STR(pb.value, "2");
    CHECK_EQ_MEM(own, own_len, "3", 1); /* the address of the third is its own */
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(sharing_is_seen_whatever_the_order_of_the_addresses) {
    static const int orders[][4] = {{0, 1, 2, 0}, {2, 1, 0, 2}, {0, 2, 1, 2}, {0, 1, 1, 2}, {1, -1, 2, 1}, {3, 2, 1, 0}, {0, 1, -1, 3}};
    manager_t *m = open_default();
    put_one(m, "a", "1");
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        char *value[4] = {SENTINEL, SENTINEL, SENTINEL, SENTINEL};
        size_t len[4] = {4711, 4711, 4711, 4711}, wanted[4] = {0};
        batch_t *b = new_batch(m, 4);
        for (int i = 0; i < 4; i++) {
            int at = orders[o][i];
            GET(b, "a", at < 0 ? NULL : &value[at], at < 0 ? NULL : &len[at]);
            if (at >= 0) wanted[at]++;
        }
        CHECK_OK(run_code(b));
        for (int i = 0; i < 4; i++) {
            if (wanted[i] == 1) CHECK_EQ_MEM(value[i], len[i], "1", 1);
            else CHECK(value[i] == SENTINEL && len[i] == 4711);
        }
        kv_async_batch_destroy(b);
    }
    close_manager(m);
}

TEST(a_shared_length_does_not_hold_back_an_own_value_nor_the_other_way) {
    manager_t *m = open_default();
    put_one(m, "a", "1");
    put_one(m, "b", "22");
    char *va = SENTINEL, *vb = SENTINEL;
    size_t len = 4711;
    batch_t *b = new_batch(m, 2);
    GET(b, "a", &va, &len);
    GET(b, "b", &vb, &len);
    CHECK_OK(run_code(b));
    CHECK_EQ_INT(len, 4711);
    CHECK_EQ_STR(va, "1");
    CHECK_EQ_STR(vb, "22");
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(the_documented_loop_over_a_local_variable_harms_nobody) {
    manager_t *m = open_default();
    batch_t *w = new_batch(m, 100);
    char key[32], wanted[32];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "user_%d", i);
        add_put(w, key, key);
    }
    run(w);
    static probe_t p[100];
    batch_t *b = new_batch(m, 100);
    for (int i = 0; i < 100; i++) {
        char *value = NULL;
        size_t value_len = 0;
        snprintf(key, sizeof key, "user_%d", i);
        CHECK_OK(kv_async_batch_get(b, key, strlen(key), &value, &value_len, on_op, &p[i]));
    }
    submit(b);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    for (int i = 0; i < 100; i++) {
        snprintf(wanted, sizeof wanted, "user_%d", i);
        CHECK_EQ_INT(p[i].calls, 1);
        CHECK_EQ_STR(p[i].value, wanted);
    }
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(each_get_of_a_batch_has_its_own_result) {
    manager_t *m = open_default();
    enum { N = 500 };
    static char *value[N];
    static size_t len[N];
    batch_t *w = new_batch(m, N);
    char key[32], text[64];
    for (int i = 0; i < N; i += 2) {
        snprintf(key, sizeof key, "k%d", i);
        snprintf(text, sizeof text, "value of %d", i);
        add_put(w, key, text);
    }
    run(w);
    batch_t *b = new_batch(m, N);
    for (int i = 0; i < N; i++) {
        value[i] = SENTINEL;
        len[i] = 4711;
        snprintf(key, sizeof key, "k%d", i);
        GET(b, key, &value[i], &len[i]);
    }
    CHECK_OK(run_code(b));
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "value of %d", i);
        if (i % 2) CHECK(value[i] == NULL && len[i] == 0);
        else CHECK_EQ_MEM(value[i], len[i], text, strlen(text));
        if (value[i]) CHECK_EQ_INT(value[i][len[i]], 0);
    }
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(values_live_until_destroy_whatever_happens_meanwhile) {
    manager_t *m = open_default();
    char *big = malloc(100000);
    CHECK(big != NULL);
    memset(big, 'b', 100000);
    put_one(m, "small", "s");
    put_mem(m, "big", 3, big, 100000);
    char *small_value, *big_value;
    size_t small_len, big_len;
    batch_t *b = new_batch(m, 2);
    GET(b, "small", &small_value, &small_len);
    GET(b, "big", &big_value, &big_len);
    CHECK_OK(run_code(b));
    put_one(m, "small", "other");
    delete_one(m, "big");
    for (int i = 0; i < 50; i++) put_mem(m, "fill", 4, big, 100000);
    CHECK_OK(kv_async_batch_manager_stop(m)); /* values belong to the batch, not to the running store */
    CHECK_EQ_MEM(small_value, small_len, "s", 1);
    CHECK_EQ_MEM(big_value, big_len, big, 100000);
    memset(big_value, 'x', big_len); /* the caller's own copy: may be changed */
    CHECK_OK(kv_async_batch_manager_start(m));
    EXPECT_MISS(m, "big");
    kv_async_batch_destroy(b);
    kv_async_batch_manager_destroy(m);
    free(big);
}

TEST(values_come_from_the_configured_allocator) {
    config_t c = counting_config();
    manager_t *m = open_with(&c);
    char *bytes = malloc(300000);
    CHECK(bytes != NULL);
    memset(bytes, 'v', 300000);
    put_mem(m, "k", 1, bytes, 300000);
    close_manager(m);
    m = open_with(&c);
    char *value = NULL;
    size_t len = 0;
    batch_t *b = new_batch(m, 1);
    GET(b, "k", &value, &len);
    alloc_fail_size = 250000; /* no block of the value's size is to be had */
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    CHECK(alloc_refused > 0);
    CHECK(value == NULL && len == 0);
    kv_async_batch_destroy(b);
    alloc_reset();
    b = new_batch(m, 1);
    GET(b, "k", &value, &len);
    CHECK_OK(run_code(b));
    CHECK_EQ_MEM(value, len, bytes, 300000);
    kv_async_batch_destroy(b);
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
    free(bytes);
}

TEST(a_get_of_the_own_batchs_write_fills_them_too) {
    manager_t *m = open_default();
    char *first = SENTINEL, *second = SENTINEL, *third = SENTINEL;
    size_t n1 = 1, n2 = 1, n3 = 1;
    batch_t *b = new_batch(m, 6);
    GET(b, "k", &first, &n1);
    add_put(b, "k", "own write");
    GET(b, "k", &second, &n2);
    add_delete(b, "k");
    GET(b, "k", &third, &n3);
    CHECK_OK(run_code(b));
    CHECK(first == NULL && n1 == 0);
    CHECK_EQ_MEM(second, n2, "own write", 9);
    CHECK_EQ_INT(second[9], 0);
    CHECK(third == NULL && n3 == 0);
    kv_async_batch_destroy(b);
    close_manager(m);
}

TEST(a_cancelled_get_that_is_waited_for_sets_null_and_zero) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    char *value = SENTINEL;
    size_t len = 4711;
    batch_t *b = new_batch(m, 1);
    GET(b, "k", &value, &len);
    CHECK_OK(kv_async_batch_cancel(b));
    CHECK_CODE(kv_async_batch_wait(b, FOREVER), KV_ERR_CANCELLED);
    CHECK(value == NULL && len == 0);
    kv_async_batch_destroy(b);
    close_manager(m);
}

/* ---- several waiters ---- */
typedef struct { batch_t *b; gate_t *ready; } waiter_t;
static char *shared_value;
static size_t shared_len;

static void *wait_and_look(void *arg) {
    waiter_t *w = arg;
    gate_open(w->ready);
    CHECK_OK(kv_async_batch_wait(w->b, FOREVER));
    CHECK_EQ_MEM(shared_value, shared_len, "value", 5); /* written before the first of them returns */
    return NULL;
}

TEST(with_several_waiters_the_first_to_return_finds_them_written) {
    manager_t *m = open_default();
    put_one(m, "k", "value");
    for (int round = 0; round < 50; round++) {
        gate_t ready = GATE_INIT;
        batch_t *b = new_batch(m, 1);
        shared_value = SENTINEL;
        shared_len = 4711;
        GET(b, "k", &shared_value, &shared_len);
        submit(b);
        pthread_t t[6];
        waiter_t w = {.b = b, .ready = &ready};
        for (int i = 0; i < 6; i++) t[i] = thread_start(wait_and_look, &w);
        for (int i = 0; i < 6; i++) thread_join(t[i]);
        kv_async_batch_destroy(b);
    }
    close_manager(m);
}

TEST(a_submit_again_after_busy_keeps_the_pointers) {
    config_t c = kvt_config();
    c.max_concurrent_batches = 1;
    manager_t *m = open_with(&c);
    put_one(m, "k", "value");
    hold_t hold = HOLD_INIT;
    batch_t *first = new_batch(m, 1), *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put(first, "x", 1, "1", 1, on_op_hold, &hold));
    submit(first);
    char *value = SENTINEL;
    size_t len = 4711;
    GET(b, "k", &value, &len);
    CHECK_ERR(kv_async_batch_submit(b, NULL, NULL), KV_ERR_BUSY);
    CHECK(value == SENTINEL && len == 4711);
    gate_open(&hold.leave);
    CHECK_OK(kv_async_batch_wait(first, FOREVER));
    CHECK_OK(run_code(b));
    CHECK_EQ_MEM(value, len, "value", 5);
    kv_async_batch_destroy(first);
    kv_async_batch_destroy(b);
    close_manager(m);
}
