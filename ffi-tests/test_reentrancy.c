/* test_reentrancy.c: a callback may use the library: create, submit, wait for other batches, ask, cancel, destroy its own batch, even
 * stop its manager. Only waiting for its own batch is refused. */
#include "kvtest.h"

typedef struct { manager_t *m; batch_t *b; int depth; gate_t end; atomic_int n; } chain_t;

static void next_link(batch_t *b, size_t completed, size_t failed, void *chain);

static void submit_link(chain_t *c) {
    char key[32];
    snprintf(key, sizeof key, "link%d", c->depth);
    batch_t *b = kv_async_batch_create(c->m, 1);
    CHECK(b != NULL);
    CHECK_OK(kv_async_batch_put(b, key, strlen(key), key, strlen(key), NULL, NULL));
    CHECK_OK(kv_async_batch_submit(b, next_link, c));
}

static void next_link(batch_t *b, size_t completed, size_t failed, void *chain) {
    chain_t *c = chain;
    CHECK_EQ_INT(completed, 1);
    CHECK_EQ_INT(failed, 0);
    kv_async_batch_destroy(b); /* its own */
    if (--c->depth > 0) submit_link(c);
    else gate_open(&c->end);
}

TEST(a_callback_may_create_submit_and_destroy) {
    config_t cfg = kvt_config();
    cfg.enable_batch_fsync = false;
    chain_t c = {.m = open_with(&cfg), .depth = 2000, .end = GATE_INIT};
    submit_link(&c);
    gate_wait(&c.end, 1);
    EXPECT(c.m, "link1", "link1");
    EXPECT(c.m, "link1999", "link1999");
    close_manager(c.m);
}

static void on_op_submit_another(op_t *op, int result, void *chain) {
    UNUSED(op);
    CHECK_CODE(result, KV_SUCCESS);
    chain_t *c = chain;
    batch_t *b = kv_async_batch_create(c->m, 1);
    CHECK(b != NULL);
    CHECK_OK(kv_async_batch_put(b, "from a callback", 15, "1", 1, NULL, NULL));
    CHECK_OK(kv_async_batch_submit(b, NULL, NULL));
    CHECK_OK(kv_async_batch_wait(b, FOREVER)); /* another batch: allowed */
    CHECK_EQ_INT(kv_async_batch_get_status(b), ST_COMPLETED);
    kv_async_batch_destroy(b);
    atomic_fetch_add(&c->n, 1);
}

TEST(a_callback_may_wait_for_another_batch) {
    chain_t c = {.m = open_default()};
    batch_t *b = new_batch(c.m, 5);
    for (int i = 0; i < 5; i++) CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_submit_another, &c));
    run(b);
    CHECK_EQ_INT(c.n, 5);
    EXPECT(c.m, "from a callback", "1");
    close_manager(c.m);
}

/* As many at once as there may be batches in flight: no number of library threads must be too small for this. */
TEST(many_callbacks_may_wait_for_other_batches_at_the_same_time) {
    config_t cfg = kvt_config();
    cfg.max_concurrent_batches = 80;
    chain_t c = {.m = open_with(&cfg)};
    batch_t *b[40];
    for (int i = 0; i < 40; i++) {
        b[i] = new_batch(c.m, 1);
        CHECK_OK(kv_async_batch_put(b[i], "k", 1, "v", 1, on_op_submit_another, &c));
        submit(b[i]);
    }
    for (int i = 0; i < 40; i++) {
        CHECK_OK(kv_async_batch_wait(b[i], FOREVER));
        kv_async_batch_destroy(b[i]);
    }
    CHECK_EQ_INT(c.n, 40);
    close_manager(c.m);
}

static void on_op_wait_for_own(op_t *op, int result, void *chain) {
    UNUSED(op);
    UNUSED(result);
    chain_t *c = chain;
    CHECK_ERR(kv_async_batch_wait(c->b, FOREVER), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_wait(c->b, 0), KV_ERR_INVALID_STATE);
    atomic_fetch_add(&c->n, 1);
}

static void on_done_wait_for_own(batch_t *b, size_t completed, size_t failed, void *chain) {
    CHECK_EQ_INT(completed + failed, 2);
    CHECK_ERR(kv_async_batch_wait(b, FOREVER), KV_ERR_INVALID_STATE);
    atomic_fetch_add(&((chain_t *)chain)->n, 1);
}

TEST(waiting_for_the_own_batch_in_a_callback_is_refused) {
    chain_t c = {.m = open_default()};
    c.b = new_batch(c.m, 2);
    CHECK_OK(kv_async_batch_put(c.b, "k", 1, "v", 1, on_op_wait_for_own, &c));
    CHECK_OK(kv_async_batch_get(c.b, "k", 1, NULL, NULL, on_op_wait_for_own, &c));
    CHECK_OK(kv_async_batch_submit(c.b, on_done_wait_for_own, &c));
    CHECK_OK(kv_async_batch_wait(c.b, FOREVER));
    CHECK_EQ_INT(c.n, 3);
    kv_async_batch_destroy(c.b);
    close_manager(c.m);
}

static void on_op_ask(op_t *op, int result, void *chain) {
    UNUSED(op);
    UNUSED(result);
    chain_t *c = chain;
    stats_t s;
    CHECK_OK(kv_async_batch_get_stats(c->b, &s));
    CHECK_EQ_INT(s.total_operations, 3);
    CHECK_OK(kv_async_batch_manager_get_stats(c->m, &s));
    CHECK(s.active_batches >= 1);
    int status = (int)kv_async_batch_get_status(c->b);
    CHECK(status == ST_SUBMITTED || status == ST_COMPLETING);
    int code = kv_async_batch_cancel(c->b); /* past cancelling */
    CHECK_CODE(code, KV_ERR_BUSY);
    CHECK_ERR(kv_async_batch_put(c->b, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_submit(c->b, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK(printed(c->b, "no such line") == -1); /* prints all the same */
    atomic_fetch_add(&c->n, 1);
}

TEST(a_callback_may_ask_for_status_statistics_and_cancel) {
    chain_t c = {.m = open_default()};
    c.b = new_batch(c.m, 3);
    CHECK_OK(kv_async_batch_put(c.b, "k", 1, "v", 1, on_op_ask, &c));
    CHECK_OK(kv_async_batch_get(c.b, "k", 1, NULL, NULL, on_op_ask, &c));
    CHECK_OK(kv_async_batch_delete(c.b, "k", 1, on_op_ask, &c));
    CHECK_OK(run_code(c.b));
    CHECK_EQ_INT(c.n, 3);
    kv_async_batch_destroy(c.b);
    close_manager(c.m);
}

static void on_op_destroy_own(op_t *op, int result, void *chain) {
    CHECK_CODE(result, KV_SUCCESS);
    chain_t *c = chain;
    if (atomic_fetch_add(&c->n, 1) == 0) kv_async_batch_destroy(c->b);
    CHECK_EQ_MEM(op->key, op->key_len, "key", 3); /* valid until this returns */
}

TEST(destroying_the_own_batch_in_its_first_callback_loses_no_callback) {
    config_t cfg = counting_config();
    for (int i = 0; i < 20; i++) {
        chain_t c = {.m = open_with(&cfg)};
        done_t done = DONE_INIT;
        c.b = new_batch(c.m, 4);
        for (int k = 0; k < 4; k++) CHECK_OK(kv_async_batch_put(c.b, "key", 3, "value", 5, on_op_destroy_own, &c));
        CHECK_OK(kv_async_batch_submit(c.b, on_done, &done));
        gate_wait(&done.gate, 1);
        CHECK_EQ_INT(c.n, 4);
        EXPECT(c.m, "key", "value");
        close_manager(c.m);
        CHECK_EQ_INT(done.calls, 1);
        CHECK_EQ_INT(alloc_live, 0);
    }
}

static void on_done_destroy_own(batch_t *b, size_t completed, size_t failed, void *gate) {
    CHECK_EQ_INT(completed, 1);
    CHECK_EQ_INT(failed, 0);
    kv_async_batch_destroy(b);
    kv_async_batch_destroy(b); /* and again: does nothing */
    gate_open(gate);
}

TEST(destroying_the_own_batch_in_the_completion_callback) {
    config_t cfg = counting_config();
    manager_t *m = open_with(&cfg);
    gate_t gate = GATE_INIT;
    for (unsigned i = 1; i <= 300; i++) {
        batch_t *b = new_batch(m, 1);
        add_put(b, "k", "v");
        CHECK_OK(kv_async_batch_submit(b, on_done_destroy_own, &gate));
        gate_wait(&gate, i);
    }
    close_manager(m);
    CHECK_EQ_INT(alloc_live, 0);
}

static void on_op_destroy_other(op_t *op, int result, void *chain) {
    UNUSED(op);
    UNUSED(result);
    chain_t *c = chain;
    kv_async_batch_destroy(c->b); /* pending: dropped */
    atomic_fetch_add(&c->n, 1);
}

TEST(a_callback_may_destroy_another_batch) {
    chain_t c = {.m = open_default()};
    c.b = new_batch(c.m, 1);
    add_put(c.b, "dropped", "1");
    batch_t *b = new_batch(c.m, 1);
    CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_destroy_other, &c));
    run(b);
    CHECK_EQ_INT(c.n, 1);
    EXPECT_MISS(c.m, "dropped");
    close_manager(c.m);
}

static void on_op_stop(op_t *op, int result, void *chain) {
    UNUSED(op);
    UNUSED(result);
    chain_t *c = chain;
    int code = kv_async_batch_manager_stop(c->m);
    CHECK(code == KV_SUCCESS || code == KV_ERR_INVALID_STATE); /* but no deadlock with itself */
    atomic_fetch_add(&c->n, 1);
}

TEST(stopping_the_manager_in_a_callback_does_not_hang) {
    chain_t c = {.m = open_default()};
    done_t done = DONE_INIT;
    batch_t *b = new_batch(c.m, 2);
    CHECK_OK(kv_async_batch_put(b, "a", 1, "1", 1, on_op_stop, &c));
    CHECK_OK(kv_async_batch_put(b, "b", 1, "2", 1, on_op_stop, &c));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&done.gate, 1);
    CHECK_EQ_INT(c.n, 2);
    CHECK_EQ_INT(done.completed, 2);
    kv_async_batch_destroy(b);
    CHECK_OK(kv_async_batch_manager_stop(c.m));
    CHECK_OK(kv_async_batch_manager_start(c.m));
    EXPECT(c.m, "b", "2");
    close_manager(c.m);
}

static void on_op_destroy_manager(op_t *op, int result, void *chain) {
    UNUSED(op);
    UNUSED(result);
    chain_t *c = chain;
    kv_async_batch_manager_destroy(c->m);
    atomic_fetch_add(&c->n, 1);
}

TEST(destroying_the_manager_in_a_callback_does_not_hang) {
    chain_t c = {.m = open_default()};
    done_t done = DONE_INIT;
    batch_t *b = new_batch(c.m, 1);
    CHECK_OK(kv_async_batch_put(b, "a", 1, "1", 1, on_op_destroy_manager, &c));
    CHECK_OK(kv_async_batch_submit(b, on_done, &done));
    gate_wait(&done.gate, 1);
    CHECK_EQ_INT(c.n, 1);
    kv_async_batch_manager_destroy(c.m); /* whichever of the two ended it: the other does nothing */
    manager_t *m = open_default();
    EXPECT(m, "a", "1");
    close_manager(m);
}

static void on_op_change_errno(op_t *op, int result, void *user_data) {
    UNUSED(op);
    UNUSED(result);
    errno = 4711;
    KV_ERROR(KV_ERR_NET, "a callback's own trouble");
    atomic_fetch_add((atomic_int *)user_data, 1);
}

TEST(errors_set_in_a_callback_do_not_reach_other_batches) {
    manager_t *m = open_default();
    atomic_int n = 0;
    for (int i = 0; i < 20; i++) {
        batch_t *b = new_batch(m, 2);
        CHECK_OK(kv_async_batch_put(b, "k", 1, "v", 1, on_op_change_errno, &n));
        CHECK_OK(kv_async_batch_get(b, "k", 1, NULL, NULL, on_op_change_errno, &n));
        run(b);
        EXPECT(m, "k", "v");
    }
    CHECK_EQ_INT(n, 40);
    close_manager(m);
}
