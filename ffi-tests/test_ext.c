/* test_ext.c: what kv_batch_ext.h adds to managers and batches: a store by its URL, UPDATE, SYNC, expiry, outcomes, backup, the version. */
#include "kvtest.h"
#include "kvserver/kv_batch_ext.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static manager_t *open_at(const char *url) {
    manager_t *m = kv_async_batch_manager_create_at(NULL, url);
    CHECK(m != NULL);
    CHECK_OK(kv_async_batch_manager_start(m));
    return m;
}

/* ---- version ---- */
TEST(the_version_is_that_of_the_header) {
    CHECK_EQ_STR(kv_batch_version(), KV_BATCH_VERSION);
    CHECK_EQ_INT(kv_batch_version_number(), KV_BATCH_VERSION_NUMBER);
    int parts[3];
    CHECK_EQ_INT(sscanf(kv_batch_version(), "%d.%d.%d", &parts[0], &parts[1], &parts[2]), 3);
    CHECK_EQ_INT(parts[0] * 1000000 + parts[1] * 1000 + parts[2], KV_BATCH_VERSION_NUMBER);
#if KV_BATCH_VERSION_NUMBER < 1000000
#error "the preprocessor can compare it"
#endif
}

/* ---- a store by its URL ---- */
TEST(a_program_names_its_stores) {
    manager_t *a = open_at("file:a?min_fill_rate=40"), *b = open_at("b"), *c = open_at("memory:c"), *d = open_at("memory:c");
    put_one(a, "k", "of a");
    put_one(b, "k", "of b");
    put_one(c, "k", "of c");
    EXPECT(a, "k", "of a");
    EXPECT(b, "k", "of b");
    EXPECT(d, "k", "of c");
    close_manager(c);
    close_manager(d);
    close_manager(a);
    close_manager(b);
    CHECK_EQ_INT(access(kvt_store(), F_OK), -1); /* what KVBATCH_STORE says was not asked */
    setenv("KVBATCH_STORE", "a", 1);
    a = open_default();
    EXPECT(a, "k", "of a");
    close_manager(a);
}

TEST(the_configuration_counts) {
    config_t config = kvt_config();
    config.max_batch_size = 1;
    manager_t *m = kv_async_batch_manager_create_at(&config, "memory:");
    batch_t *b = new_batch(m, 0);
    add_put(b, "k", "v");
    CHECK_ERR(kv_async_batch_put(b, "l", 1, "v", 1, NULL, NULL), KV_ERR_BATCH_FULL);
    kv_async_batch_destroy(b);
    kv_async_batch_manager_destroy(m);
    config.max_batch_size = 0;
    CHECK_NO_HANDLE(kv_async_batch_manager_create_at(&config, "memory:"), KV_ERR_INVALID_PARAM);
}

TEST(what_is_no_url_is_refused) {
    CHECK_NO_HANDLE(kv_async_batch_manager_create_at(NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_NO_HANDLE(kv_async_batch_manager_create_at(NULL, ""), KV_ERR_INVALID_PARAM);
    CHECK_NO_HANDLE(kv_async_batch_manager_create_at(NULL, "file:x?no_option=1"), KV_ERR_INVALID_PARAM);
    CHECK(strstr(kv_get_last_error()->message, "no_option") != NULL);
    CHECK_NO_HANDLE(kv_async_batch_manager_create_at(NULL, "fil:x"), KV_ERR_INVALID_PARAM); /* misspelt: no new, empty store */
    CHECK(strstr(kv_get_last_error()->message, "unknown scheme") != NULL);
    CHECK_NO_HANDLE(kv_async_batch_manager_create_at(NULL, "redis://host"), KV_ERR_NOT_SUPPORTED);
    CHECK_EQ_INT(access("x", F_OK), -1);
    CHECK_EQ_INT(access("fil:x", F_OK), -1);
}

/* ---- UPDATE ---- */
TEST(an_update_needs_a_key_that_is_there) {
    manager_t *m = open_default();
    put_one(m, "there", "old");
    probe_t p[3] = {0};
    batch_t *b = new_batch(m, 3);
    CHECK_OK(kv_async_batch_update(b, "there", 5, "new", 3, on_op, &p[0]));
    CHECK_OK(kv_async_batch_update(b, "missing", 7, "new", 3, on_op, &p[1]));
    add_get(b, "there", &p[2]);
    CHECK_CODE(run_code(b), KV_ERR_BATCH_FAILED);
    CHECK_CODE(p[0].result, KV_SUCCESS);
    CHECK_EQ_INT(p[0].type, KV_ASYNC_BATCH_UPDATE);
    CHECK_EQ_STR(p[0].value, "new");
    CHECK_CODE(p[1].result, KV_ERR_KEY_NOT_FOUND);
    CHECK_EQ_STR(p[2].value, "new");
    kv_async_batch_destroy(b);
    EXPECT(m, "there", "new");
    EXPECT_MISS(m, "missing");
    b = new_batch(m, 2);
    add_put(b, "fresh", "1");
    CHECK_OK(kv_async_batch_update(b, "fresh", 5, "2", 1, NULL, NULL)); /* it sees what is before it */
    run(b);
    EXPECT(m, "fresh", "2");
    close_manager(m);
}

TEST(bad_arguments_of_operations) {
    manager_t *m = open_default();
    batch_t *b = new_batch(m, 2);
    batch_t *ended = new_batch(m, 2);
    add_put(ended, "k", "v");
    submit(ended);
    CHECK_OK(kv_async_batch_wait(ended, FOREVER));
    static char long_key[70000];
    CHECK_ERR(kv_async_batch_update(NULL, "k", 1, "v", 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_update(b, NULL, 1, "v", 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_update(b, "k", 0, "v", 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_update(b, "k", 1, NULL, 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_update(b, long_key, sizeof long_key, "v", 1, NULL, NULL), KV_ERR_KEY_TOO_LONG);
    CHECK_ERR(kv_async_batch_update(b, "k", 1, "v", (512u << 20) + 1, NULL, NULL), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_update(ended, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_update((batch_t *)m, "k", 1, "v", 1, NULL, NULL), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_put_expiring(NULL, "k", 1, "v", 1, 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_put_expiring(b, NULL, 1, "v", 1, 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_put_expiring(b, "k", 1, NULL, 1, 1, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_put_expiring(ended, "k", 1, "v", 1, 1, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_ERR(kv_async_batch_sync(NULL, NULL, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_sync((batch_t *)m, NULL, NULL), KV_ERR_INVALID_PARAM);
    CHECK_ERR(kv_async_batch_sync(ended, NULL, NULL), KV_ERR_INVALID_STATE);
    CHECK_EQ_INT(stats_of(b).total_operations, 0); /* what was refused changed nothing */
    kv_async_batch_destroy(ended);
    CHECK_ERR(kv_async_batch_sync(ended, NULL, NULL), KV_ERR_INVALID_PARAM);
    close_manager(m);
}

/* ---- SYNC ---- */
TEST(a_sync_is_an_operation_and_syncs) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    c.fsync_interval_ms = 0;
    manager_t *m = open_with(&c);
    put_one(m, "k", "v");
    double before = counter(m, "syncs");
    probe_t p = {0};
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_sync(b, on_op, &p));
    run(b);
    CHECK_EQ_INT(p.calls, 1);
    CHECK_CODE(p.result, KV_SUCCESS);
    CHECK_EQ_INT(p.type, KV_ASYNC_BATCH_SYNC);
    CHECK_EQ_INT(p.key_len, 0);
    CHECK(counter(m, "syncs") > before);
    close_manager(m);
}

/* ---- expiry ---- */
static uint64_t unix_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void put_until(manager_t *m, const char *key, uint64_t expiry_ms) {
    batch_t *b = new_batch(m, 1);
    CHECK_OK(kv_async_batch_put_expiring(b, key, strlen(key), "v", 1, expiry_ms, NULL, NULL));
    run(b);
}

TEST(a_key_goes_when_its_time_is_over) {
    manager_t *m = open_default();
    uint64_t soon = unix_ms() + 300;
    put_until(m, "soon", soon);
    put_until(m, "late", UINT64_MAX);
    put_until(m, "past", 1);
    put_until(m, "kept", 1);
    put_one(m, "kept", "for good");
    EXPECT_MISS(m, "past");
    while (unix_ms() <= soon) sleep_ms(10);
    EXPECT_MISS(m, "soon");
    EXPECT(m, "late", "v");
    EXPECT(m, "kept", "for good");
    close_manager(m);
    m = open_default();
    EXPECT_MISS(m, "soon");
    EXPECT(m, "late", "v");
    close_manager(m);
}

/* ---- outcomes ---- */
static int outcome_of(manager_t *m, const kv_batch_id_t *id) {
    kv_batch_outcome_t outcome = (kv_batch_outcome_t)77;
    CHECK_OK(kv_async_batch_manager_get_outcome(m, id, &outcome));
    return (int)outcome;
}

TEST(what_became_of_a_batch_is_known_after_a_restart) {
    manager_t *m = open_default();
    kv_batch_id_t id[2], none = {0};
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "v");
    CHECK_ERR(kv_async_batch_get_id(b, &id[0]), KV_ERR_INVALID_STATE);
    submit(b);
    CHECK_OK(kv_async_batch_get_id(b, &id[0]));
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_EQ_INT(outcome_of(m, &id[0]), KV_BATCH_OUTCOME_COMMITTED);
    CHECK_OK(kv_async_batch_get_id(b, &id[1])); /* for ever the same */
    CHECK_EQ_MEM(&id[0], sizeof id[0], &id[1], sizeof id[1]);
    kv_async_batch_destroy(b);
    b = new_batch(m, 1); /* what only reads has none */
    add_get(b, "k", NULL);
    submit(b);
    CHECK_OK(kv_async_batch_wait(b, FOREVER));
    CHECK_ERR(kv_async_batch_get_id(b, &id[1]), KV_ERR_INVALID_STATE);
    kv_async_batch_destroy(b);
    id[1].number += 1000; /* never given out */
    CHECK_EQ_INT(outcome_of(m, &id[1]), KV_BATCH_OUTCOME_UNKNOWN);
    CHECK(outcome_of(m, &none) != KV_BATCH_OUTCOME_COMMITTED);
    kv_batch_outcome_t outcome;
    CHECK_OK(kv_async_batch_manager_stop(m));
    CHECK_ERR(kv_async_batch_manager_get_outcome(m, &id[0], &outcome), KV_ERR_INVALID_STATE);
    close_manager(m);
    m = open_default();
    CHECK_EQ_INT(outcome_of(m, &id[0]), KV_BATCH_OUTCOME_COMMITTED);
    CHECK_EQ_INT(outcome_of(m, &id[1]), KV_BATCH_OUTCOME_NOT_COMMITTED);
    CHECK_ERR(kv_async_batch_manager_get_outcome(NULL, &id[0], &outcome), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_manager_get_outcome(m, NULL, &outcome), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_manager_get_outcome(m, &id[0], NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_get_id(NULL, &id[0]), KV_ERR_NULL_POINTER);
    b = new_batch(m, 1);
    CHECK_ERR(kv_async_batch_get_id(b, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_get_id((batch_t *)m, &id[0]), KV_ERR_INVALID_PARAM);
    close_manager(m);
}

/* A child names its batches before it is killed; the store says later which of them took effect, and that is so. */
enum { DOUBTS = 200 };
typedef struct { atomic_int named; kv_batch_id_t id[DOUBTS]; } doubts_t;

static void submit_until_killed(void *arg) {
    doubts_t *doubts = arg;
    manager_t *m = open_default();
    for (int i = 0; i < DOUBTS; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        batch_t *b = new_batch(m, 1);
        add_put(b, key, "v");
        submit(b);
        CHECK_OK(kv_async_batch_get_id(b, &doubts->id[i]));
        doubts->named = i + 1;
        CHECK_OK(kv_async_batch_wait(b, FOREVER));
        kv_async_batch_destroy(b);
    }
    for (;;) sleep_ms(1000);
}

TEST(after_a_kill_each_batch_is_known_to_have_happened_or_not) {
    doubts_t *doubts = mmap(NULL, sizeof *doubts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(doubts != MAP_FAILED);
    pid_t child = spawn(submit_until_killed, doubts);
    while (doubts->named < 20) sleep_ms(1);
    CHECK_EQ_INT(kill(child, SIGKILL), 0);
    CHECK(WIFSIGNALED(join_status(child)));
    manager_t *m = open_default();
    for (int i = 0; i < doubts->named; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        char *seen = get_one(m, key);
        CHECK_EQ_INT(outcome_of(m, &doubts->id[i]), seen ? KV_BATCH_OUTCOME_COMMITTED : KV_BATCH_OUTCOME_NOT_COMMITTED);
        free(seen);
    }
    close_manager(m);
}

/* ---- backup ---- */
TEST(a_backup_is_the_store_of_one_moment) {
    manager_t *m = open_default();
    put_one(m, "k", "before");
    CHECK_OK(kv_async_batch_manager_backup(m, "copy"));
    put_one(m, "k", "after");
    manager_t *copy = open_at("copy");
    EXPECT(copy, "k", "before");
    put_one(copy, "k", "its own way");
    EXPECT(m, "k", "after");
    close_manager(copy);
    CHECK_ERR(kv_async_batch_manager_backup(m, "copy"), KV_ERR_EXIST);
    write_file("file", "x", 1);
    CHECK_ERR(kv_async_batch_manager_backup(m, "file"), KV_ERR_FILE);
    CHECK_ERR(kv_async_batch_manager_backup(m, NULL), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_manager_backup(m, ""), KV_ERR_NULL_POINTER);
    CHECK_ERR(kv_async_batch_manager_backup(NULL, "other"), KV_ERR_NULL_POINTER);
    CHECK_OK(kv_async_batch_manager_stop(m));
    CHECK_ERR(kv_async_batch_manager_backup(m, "other"), KV_ERR_INVALID_STATE);
    close_manager(m);
    m = open_at("memory:");
    CHECK_ERR(kv_async_batch_manager_backup(m, "other"), KV_ERR_NOT_SUPPORTED);
    close_manager(m);
    CHECK_EQ_INT(access("other", F_OK), -1);
}

static atomic_int writing;

static void *write_on(void *manager) {
    for (int i = 0; writing; i++) { /* both keys of a batch or none: a copy that tears one shows it */
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        batch_t *b = new_batch(manager, 2);
        add_put(b, "left", value);
        add_put(b, "right", value);
        run(b);
    }
    return NULL;
}

TEST(batches_go_on_during_a_backup) {
    config_t c = kvt_config();
    c.enable_batch_fsync = false;
    manager_t *m = open_with(&c);
    writing = 1;
    pthread_t writer = thread_start(write_on, m);
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, "copy%d", i);
        CHECK_OK(kv_async_batch_manager_backup(m, name));
        manager_t *copy = open_at(name);
        char *left = get_one(copy, "left"), *right = get_one(copy, "right");
        CHECK_EQ_STR(left, right);
        free(left);
        free(right);
        close_manager(copy);
    }
    writing = 0;
    thread_join(writer);
    close_manager(m);
}
