/* test_options.c: the options that stand in a store's URL: they have their effect, and what cannot be is refused by name.
 * docs/OPTIONS.md lists them. */
#include "kvtest.h"

#define STORE "store"

static char names[256][256];

static size_t chunks_of(const char *store) { return list_dir(store, "chunk-", names, 256); }

static void name_store(const char *url) { CHECK_EQ_INT(setenv("KVBATCH_STORE", url, 1), 0); }

/* Three rounds over the same keys: two thirds of the bytes end up dead. */
static void fill(manager_t *m) {
    char value[100000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 60; i++) {
            char key[32];
            snprintf(key, sizeof key, "key%d", i);
            put_one(m, key, value);
        }
}

/* Chunks that a store has once it was filled, run as `url` says. */
static size_t chunks_when_filled(const char *url, const char *path) {
    name_store(url);
    manager_t *m = open_default();
    fill(m);
    close_manager(m);
    return chunks_of(path);
}

TEST(an_option_in_the_url_has_its_effect) {
    CHECK_EQ_INT(chunks_when_filled("file:plain?min_fill_rate=0&prepare_chunks=false", "plain"), 1);
    CHECK(chunks_when_filled("file:small?min_fill_rate=0&chunk_bytes=4m&prepare_chunks=false", "small") >= 4);
}

TEST(several_options_and_escapes) {
    name_store("file:a%3fb?hot_log_bytes=%30&chunk_bytes=4194304&compaction_rate_limit=1m&recovery=strict");
    manager_t *m = open_default();
    put_one(m, "k", "v");
    EXPECT(m, "k", "v");
    CHECK(counter(m, "hot_reads") == 0); /* there is no hot log */
    CHECK(counter(m, "hot_bytes") == 0);
    close_manager(m);
    CHECK_EQ_INT(chunks_of("a?b"), 1);
}

TEST(batches_are_not_merged_if_the_store_is_told_so) {
    enum { BATCHES = 60 };
    batch_t *batches[BATCHES];
    name_store("file:store?write_merge=false");
    manager_t *m = open_default();
    for (int i = 0; i < BATCHES; i++) {
        char key[32];
        snprintf(key, sizeof key, "key%d", i);
        batches[i] = new_batch(m, 1);
        add_put(batches[i], key, "v");
        CHECK_OK(kv_async_batch_submit(batches[i], NULL, NULL));
    }
    for (int i = 0; i < BATCHES; i++) {
        CHECK_OK(kv_async_batch_wait(batches[i], 60000));
        kv_async_batch_destroy(batches[i]);
    }
    CHECK(counter(m, "batches") == BATCHES);
    CHECK(counter(m, "groups") == BATCHES);
    close_manager(m);
}

TEST(a_question_mark_in_a_bare_path_is_part_of_it) {
    name_store("store?min_fill_rate=nonsense");
    close_manager(open_default());
    CHECK_EQ_INT(access("store?min_fill_rate=nonsense", F_OK), 0);
}

/* The URL names no store: no manager is made, nothing on disk either, and the message says what is allowed. */
static void refused(const char *url, const char *option, const char *allowed) {
    name_store(url);
    CHECK_NO_HANDLE(kv_async_batch_manager_create(NULL), KV_ERR_INVALID_PARAM);
    const char *message = kv_get_last_error()->message;
    if (!strstr(message, option)) kvt_fail(__FILE__, __LINE__, "%s: the message does not name %s: %s", url, option, message);
    if (!strstr(message, allowed)) kvt_fail(__FILE__, __LINE__, "%s: the message does not say \"%s\": %s", url, allowed, message);
    CHECK(access(STORE, F_OK) != 0);
}

TEST(an_unknown_option) {
    refused("file:store?min_fill=40", "\"min_fill\"",
            "min_fill_rate, compaction_rate_limit, compacted_codec, chunk_bytes, hot_log_bytes, checkpoint_log_bytes");
    refused("file:store?MIN_FILL_RATE=40", "\"MIN_FILL_RATE\"", "min_fill_rate");
    refused("file:store?&", "\"\"", "min_fill_rate");
}

TEST(an_option_given_twice) { refused("file:store?chunk_bytes=8m&chunk_bytes=8m", "chunk_bytes", "once"); }

TEST(an_option_out_of_range) {
    refused("file:store?min_fill_rate=96", "min_fill_rate=\"96\"", "0 to 95 percent");
    refused("file:store?chunk_bytes=1m", "chunk_bytes=\"1m\"", "4m to 2g");
    refused("file:store?compaction_rate_limit=1", "compaction_rate_limit", "0, or 64k to 1024g");
    refused("file:store?chunk_bytes=18446744073709551616", "chunk_bytes", "4m to 2g");
}

TEST(an_impossible_value) {
    refused("file:store?min_fill_rate=", "min_fill_rate", "0 to 95");
    refused("file:store?min_fill_rate", "min_fill_rate", "min_fill_rate=VALUE");
    refused("file:store?min_fill_rate=-1", "min_fill_rate", "0 to 95");
    refused("file:store?recovery=lenient", "recovery", "strict or prefix");
    refused("file:store?hot_log_bytes=4mb", "hot_log_bytes", "auto");
    refused("file:store?chunk_bytes=%zz", "%", "hexadecimal");
}

TEST(options_at_odds_with_each_other) {
    refused("file:store?hot_log_bytes=4m", "hot_log_bytes=4m", "chunk_bytes=64m");
    refused("file:store?min_fill_rate=0&compaction_rate_limit=1m", "min_fill_rate=0", "compaction_rate_limit=1m");
    refused("file:store?read_only=true&chunk_bytes=8m", "read_only=true", "chunk_bytes=8m");
}

TEST(a_second_manager_cannot_change_what_is_in_force) {
    name_store("file:store?min_fill_rate=40");
    manager_t *first = open_default();
    manager_t *same = open_default();
    name_store(STORE); /* asks for nothing */
    manager_t *silent = open_default();
    name_store("file:store?min_fill_rate=50");
    manager_t *other = kv_async_batch_manager_create(NULL);
    CHECK(other != NULL);
    CHECK_ERR(kv_async_batch_manager_start(other), KV_ERR_CONFIG);
    CHECK(strstr(kv_get_last_error()->message, "min_fill_rate=40, not 50") != NULL);
    close_manager(first);
    close_manager(same);
    close_manager(silent);
    CHECK_OK(kv_async_batch_manager_start(other)); /* the options went with the last of them */
    close_manager(other);
}

TEST(a_reader_changes_nothing_and_refuses_writes) {
    name_store(STORE);
    manager_t *m = open_default();
    put_one(m, "k", "v");
    close_manager(m);
    uint64_t before = dir_digest(STORE, "");
    name_store("file:store?read_only=true");
    m = open_default();
    EXPECT(m, "k", "v");
    batch_t *b = new_batch(m, 1);
    add_put(b, "k", "w");
    int code = run_code(b);
    CHECK(code != KV_SUCCESS);
    EXPECT(m, "k", "v");
    close_manager(m);
    CHECK_EQ_INT(dir_digest(STORE, ""), before);
    name_store("file:none?read_only=true");
    m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_FILE);
    kv_async_batch_manager_destroy(m);
    CHECK(access("none", F_OK) != 0);
}

/* ---- recovery=prefix ---- */
#define ROUNDS 40

static void fill_in_order(void) {
    manager_t *m = open_default();
    char key[32];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(key, sizeof key, "key-%03d", i);
        put_one(m, key, "a value that was confirmed");
    }
    close_manager(m);
}

static void damage(const char *near) {
    char path[600];
    CHECK(chunks_of(STORE) >= 1);
    snprintf(path, sizeof path, STORE "/%s", names[0]);
    size_t len;
    char *bytes = read_file(path, &len);
    char *at = memmem(bytes, len, near, strlen(near));
    CHECK(at != NULL);
    at[1] ^= 0x20;
    write_file(path, bytes, len);
    free(bytes);
}

static void start_refused(const char *url) {
    name_store(url);
    manager_t *m = kv_async_batch_manager_create(NULL);
    CHECK(m != NULL);
    CHECK_ERR(kv_async_batch_manager_start(m), KV_ERR_CORRUPTED);
    kv_async_batch_manager_destroy(m);
}

static void holds_the_prefix(manager_t *m) {
    char key[32];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(key, sizeof key, "key-%03d", i);
        if (i < 25)
            EXPECT(m, key, "a value that was confirmed");
        else
            EXPECT_MISS(m, key);
    }
}

TEST(recovery_prefix_is_a_choice_and_is_reported) {
    name_store(STORE);
    fill_in_order();
    damage("key-025");
    uint64_t before = dir_digest(STORE, "chunk-");
    start_refused(STORE);
    start_refused("file:store?recovery=strict");
    CHECK_EQ_INT(dir_digest(STORE, "chunk-"), before);
    name_store("file:store?recovery=prefix");
    manager_t *m = open_default();
    holds_the_prefix(m);
    CHECK(counter(m, "given_up_records") == ROUNDS - 25);
    CHECK_EQ_INT(dir_digest(STORE, "chunk-"), before); /* as long as nothing is written */
    close_manager(m);
    start_refused(STORE); /* it was for that opening alone */
    name_store("file:store?recovery=prefix");
    m = open_default();
    put_one(m, "new", "life");
    close_manager(m);
    name_store(STORE); /* now the cut is on record */
    m = open_default();
    holds_the_prefix(m);
    EXPECT(m, "new", "life");
    CHECK(counter(m, "given_up_records") == 0);
    close_manager(m);
}
