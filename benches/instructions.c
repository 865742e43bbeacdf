/*
 * instructions.c: some batches of puts and of gets, for a program that counts instructions. Called by instructions.sh.
 *
 *   instructions DIRECTORY KEYS ROUNDS GETS      all keys are put ROUNDS times, then GETS of them are read
 *
 * Does nothing by chance, or by the clock, so that two runs differ by what they were asked for alone. Checks what it reads.
 */
#define _GNU_SOURCE
#include "support.h"

enum { BATCH = 1000, VALUE = 100 };

static char *values[BATCH];
static size_t lens[BATCH];

static void run(kv_async_batch_manager_t *manager, size_t first, int put)
{
    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, BATCH), "create a batch");
    for (size_t i = 0; i < BATCH; i++)
        must(put ? kv_async_batch_put(batch, key_of(first + i), KEY_BYTES, value_of(first + i), VALUE, NULL, NULL)
                 : kv_async_batch_get(batch, key_of(first + i), KEY_BYTES, &values[i], &lens[i], NULL, NULL),
             "add");
    must(kv_async_batch_submit(batch, NULL, NULL), "submit");
    must(kv_async_batch_wait(batch, TIMEOUT_MS), "wait");
    for (size_t i = 0; i < BATCH && !put; i++)
        if (!is_value(values[i], lens[i], VALUE, first + i))
            fail("get", "not what was stored");
    kv_async_batch_destroy(batch);
}

int main(int argc, char **argv)
{
    size_t numbers[3];
    char url[5000];
    for (int i = 0; i < 3; i++)
        if (argc != 5 || !read_number(argv[2 + i], 0, 100000000, &numbers[i]) || numbers[i] % (i == 1 ? 1 : BATCH) != 0)
            fail("usage", "instructions DIRECTORY KEYS ROUNDS GETS, keys and gets in thousands");
    opt.keys = numbers[0];
    make_data(VALUE);
    snprintf(url, sizeof url, "file:%s?min_fill_rate=0", argv[1]);
    setenv("KVBATCH_STORE", url, 1);
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.max_batch_size = BATCH;
    config.enable_batch_fsync = false;
    kv_async_batch_manager_t *manager = must_have(kv_async_batch_manager_create(&config), "create the manager");
    must(kv_async_batch_manager_start(manager), "open the store");
    for (size_t i = 0; i < opt.keys * numbers[1]; i += BATCH)
        run(manager, i % opt.keys, 1);
    for (size_t i = 0; i < numbers[2]; i += BATCH)
        run(manager, i % opt.keys, 0);
    must(kv_async_batch_manager_stop(manager), "stop");
    kv_async_batch_manager_destroy(manager);
    return 0;
}
