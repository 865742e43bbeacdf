/* test_stuck_disk.c: a disk that hangs on command (fake_disk.h) keeps batches in the queue: they can be cancelled, they time out, and
 * neither waits for the disk; nor do reads of other keys. */
#include "fake_disk.h"

enum { QUEUED = 40, VALUE = 600000 };
static batch_t *queued[QUEUED];
static probe_t queued_ops[QUEUED][2];
static done_t queued_done[QUEUED];
static manager_t *stuck_manager;
static manager_t *helper; /* of the same store, with a timeout that no slow machine reaches */

static void fill_the_queue(config_t c) {
    static char bytes[VALUE];
    memset(bytes, 'q', sizeof bytes);
    stuck_manager = open_with(&c);
    helper = open_default();
    put_one(helper, "before", "1");
    disk_write.stuck = disk_sync.stuck = 1;
    for (int i = 0; i < QUEUED; i++) {
        char key[32];
        snprintf(key, sizeof key, "q%d", i);
        queued_done[i] = (done_t)DONE_INIT;
        queued[i] = new_batch(stuck_manager, 2);
        CHECK_OK(kv_async_batch_put(queued[i], key, strlen(key), bytes, VALUE, on_op, &queued_ops[i][0]));
        CHECK_OK(kv_async_batch_get(queued[i], key, strlen(key), NULL, NULL, on_op, &queued_ops[i][1]));
        CHECK_OK(kv_async_batch_submit(queued[i], on_done, &queued_done[i])); /* never waits for the disk */
    }
    while (disk_write.waiting + disk_sync.waiting == 0) sleep_ms(1);
}

/* A batch has either done all of its work or none; `code` is what it gets in the second case. */
static int check_queued(int i, int code) {
    char key[32];
    snprintf(key, sizeof key, "q%d", i);
    CHECK_EQ_INT(queued_done[i].calls, 1);
    CHECK_EQ_INT(queued_ops[i][0].calls, 1);
    CHECK_EQ_INT(queued_ops[i][1].calls, 1);
    CHECK(queued_ops[i][0].turn < queued_ops[i][1].turn && queued_ops[i][1].turn < queued_done[i].turn);
    CHECK_CODE(queued_ops[i][1].result, queued_ops[i][0].result);
    char *seen = get_one(helper, key);
    int done = queued_ops[i][0].result == KV_SUCCESS;
    if (done) {
        CHECK_EQ_INT(queued_done[i].completed, 2);
        CHECK(seen && strlen(seen) == VALUE);
    } else {
        CHECK_CODE(queued_ops[i][0].result, code);
        CHECK_EQ_INT(queued_done[i].failed, 2);
        CHECK_EQ_INT(queued_done[i].completed, 0);
        CHECK(seen == NULL);
    }
    free(seen);
    return done;
}

TEST(cancelling_queued_batches_behind_a_stuck_disk) {
    config_t c = kvt_config();
    c.timeout_ms = 1000000;
    fill_the_queue(c);
    int cancelled[QUEUED], n = 0;
    for (int i = QUEUED - 1; i >= 0; i--) {
        int code = kv_async_batch_cancel(queued[i]);
        CHECK(code == KV_SUCCESS || code == KV_ERR_BUSY);
        cancelled[i] = code == KV_SUCCESS;
        n += cancelled[i];
        if (cancelled[i]) { /* its end does not wait for the disk */
            CHECK_CODE(kv_async_batch_wait(queued[i], FOREVER), KV_ERR_CANCELLED);
            CHECK_EQ_INT(kv_async_batch_get_status(queued[i]), ST_CANCELLED);
            CHECK_EQ_INT(queued_done[i].calls, 1);
        }
    }
    CHECK(n > 0);
    CHECK(n < QUEUED); /* at least the one that hangs was past cancelling */
    heal(&disk_write);
    heal(&disk_sync);
    for (int i = 0; i < QUEUED; i++) CHECK_CODE(kv_async_batch_wait(queued[i], FOREVER), cancelled[i] ? KV_ERR_CANCELLED : KV_SUCCESS);
    for (int i = 0; i < QUEUED; i++) CHECK_EQ_INT(check_queued(i, KV_ERR_CANCELLED), !cancelled[i]);
    stats_t s = manager_stats(stuck_manager);
    CHECK_EQ_INT(s.cancelled_operations, 2 * n);
    CHECK_EQ_INT(s.failed_operations, 0);
    CHECK_EQ_INT(s.active_batches, 0);
    close_manager(stuck_manager);
    close_manager(helper);
    helper = open_default();
    for (int i = 0; i < QUEUED; i++) CHECK_EQ_INT(check_queued(i, KV_ERR_CANCELLED), !cancelled[i]); /* after a reopening, too */
    close_manager(helper);
}

TEST(cancelled_batches_make_room_for_others) {
    config_t c = kvt_config();
    c.timeout_ms = 1000000;
    c.max_concurrent_batches = QUEUED;
    fill_the_queue(c);
    batch_t *late = new_batch(stuck_manager, 1);
    add_put(late, "late", "1");
    CHECK_ERR(kv_async_batch_submit(late, NULL, NULL), KV_ERR_BUSY);
    CHECK_OK(kv_async_batch_cancel(queued[QUEUED - 1]));
    CHECK_CODE(kv_async_batch_wait(queued[QUEUED - 1], FOREVER), KV_ERR_CANCELLED);
    CHECK_OK(kv_async_batch_submit(late, NULL, NULL));
    heal(&disk_write);
    heal(&disk_sync);
    CHECK_OK(kv_async_batch_wait(late, FOREVER));
    close_manager(stuck_manager);
    close_manager(helper);
}

TEST(timeout_ms_fails_what_nobody_has_begun) {
    config_t c = kvt_config();
    c.timeout_ms = 300;
    fill_the_queue(c);
    int n = 0;
    while (n == 0) { /* comes while the disk still hangs, though nobody waits for these batches */
        sleep_ms(5);
        for (int i = 0; i < QUEUED; i++) n += queued_done[i].calls;
    }
    heal(&disk_write);
    heal(&disk_sync);
    int failed = 0;
    for (int i = 0; i < QUEUED; i++) {
        int code = kv_async_batch_wait(queued[i], FOREVER);
        CHECK(code == KV_SUCCESS || code == KV_ERR_BATCH_FAILED);
        CHECK_EQ_INT(kv_async_batch_get_status(queued[i]), code == KV_SUCCESS ? ST_COMPLETED : ST_FAILED);
        CHECK_EQ_INT(check_queued(i, KV_ERR_TIMEOUT), code == KV_SUCCESS);
        failed += code != KV_SUCCESS;
    }
    CHECK(failed > 0 && failed < QUEUED);
    CHECK_EQ_INT(manager_stats(stuck_manager).failed_batches, failed);
    put_one(helper, "after", "1"); /* nothing is broken */
    EXPECT(helper, "after", "1");
    close_manager(stuck_manager);
    close_manager(helper);
}

/* On a slow machine a batch may time out before anybody takes it: then once more, with more time. */
TEST(timeout_ms_does_not_touch_what_is_being_executed) {
    helper = open_default();
    put_one(helper, "before", "1");
    for (uint32_t timeout = 50;; timeout *= 4) {
        config_t c = kvt_config();
        c.timeout_ms = timeout;
        manager_t *m = open_with(&c);
        done_t done = DONE_INIT;
        disk_write.stuck = disk_sync.stuck = 1;
        batch_t *b = new_batch(m, 1);
        add_put(b, "k", "v");
        CHECK_OK(kv_async_batch_submit(b, on_done, &done));
        while (disk_write.waiting + disk_sync.waiting == 0 && done.calls == 0) sleep_ms(1);
        int begun = done.calls == 0;
        if (begun) {
            CHECK_CODE(kv_async_batch_wait(b, timeout + 100), KV_ERR_TIMEOUT); /* the wait's own limit */
            CHECK_ERR(kv_async_batch_cancel(b), KV_ERR_BUSY);
        }
        heal(&disk_write);
        heal(&disk_sync);
        CHECK_CODE(kv_async_batch_wait(b, FOREVER), begun ? KV_SUCCESS : KV_ERR_BATCH_FAILED);
        close_manager(m);
        if (begun) break;
    }
    EXPECT(helper, "k", "v");
    close_manager(helper);
}

TEST(only_reads_of_keys_that_are_being_written_wait_for_a_stuck_disk) {
    enum { IMPATIENT_MS = 10 };
    manager_t *m = open_default();
    put_one(m, "a", "old");
    put_one(m, "b", "old");
    put_one(m, "c", "old");
    disk_write.stuck = disk_sync.stuck = 1;
    batch_t *hangs = new_batch(m, 1), *in_line = new_batch(m, 2), *of_a = new_batch(m, 2), *of_b = new_batch(m, 2);
    add_put(hangs, "a", "new");
    submit(hangs);
    while (disk_write.waiting + disk_sync.waiting == 0) sleep_ms(1);
    add_put(in_line, "b", "new");
    add_delete(in_line, "gone");
    submit(in_line);
    probe_t a = {0}, b = {0}, gone = {0}, c = {0};
    add_get(of_a, "c", &c);
    add_get(of_a, "a", &a);
    submit(of_a);
    add_get(of_b, "b", &b);
    add_get(of_b, "gone", &gone);
    submit(of_b);
    for (int i = 0; i < 100; i++) {
        EXPECT(m, "c", "old"); /* while the disk hangs */
        EXPECT_MISS(m, "never there");
    }
    CHECK_ERR(kv_async_batch_wait(of_a, IMPATIENT_MS), KV_ERR_TIMEOUT);
    CHECK_ERR(kv_async_batch_wait(of_b, IMPATIENT_MS), KV_ERR_TIMEOUT);
    CHECK_EQ_INT(kv_async_batch_get_status(hangs), ST_COMPLETING);
    heal(&disk_write);
    heal(&disk_sync);
    CHECK_OK(kv_async_batch_wait(of_b, FOREVER));
    CHECK_OK(kv_async_batch_wait(of_a, FOREVER));
    CHECK_EQ_STR(a.value, "new");
    CHECK_EQ_STR(b.value, "new");
    CHECK_EQ_STR(c.value, "old");
    CHECK_CODE(gone.result, KV_ERR_KEY_NOT_FOUND);
    close_manager(m);
}
