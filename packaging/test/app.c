/* What a program in C has of an installed library: both ways to name a header, all of them, variables and
 * functions with variable arguments. Argument: a store. Built by packaging/test/run and CMakeLists.txt. */
#define _GNU_SOURCE
#include <kvserver/kv_async_batch_io.h>
#include "kv_error.h"
#include "kv_io_uring.h"
#include "kv_batch_ext.h"

static int is_one(const char *what, int condition)
{
    if (!condition)
        fprintf(stderr, "%s: %s\n", what, kv_get_last_error()->message);
    return condition;
}

int main(int argc, char **argv)
{
    if (argc != 2 || setenv("KVBATCH_STORE", argv[1], 1) != 0)
        return 2;
    kv_async_batch_manager_t *manager = kv_async_batch_manager_create(NULL);
    int good = is_one("start", kv_async_batch_manager_start(manager) == KV_SUCCESS);
    kv_async_batch_context_t *batch = kv_async_batch_create(manager, 10);
    char *value = NULL;
    size_t value_len = 0;
    good &= is_one("put", kv_async_batch_put(batch, "key", 3, "value", 5, NULL, NULL) == KV_SUCCESS);
    good &= is_one("get", kv_async_batch_get(batch, "key", 3, &value, &value_len, NULL, NULL) == KV_SUCCESS);
    good &= is_one("submit", kv_async_batch_submit(batch, NULL, NULL) == KV_SUCCESS);
    good &= is_one("wait", kv_async_batch_wait(batch, 60000) == KV_SUCCESS);
    good &= is_one("value", value != NULL && value_len == 5 && memcmp(value, "value", 5) == 0);
    kv_async_batch_destroy(batch);
    kv_async_batch_manager_destroy(manager);

    kv_uring_t *ring = kv_uring_create(NULL);
    good &= is_one("ring", kv_uring_start(ring) == KV_SUCCESS);
    kv_uring_destroy(ring);
    good &= is_one("version", strcmp(kv_batch_version(), KV_BATCH_VERSION) == 0);
    KV_ERROR(KV_ERR_BATCH_FULL, "%s %d", "words", 3);
    good &= is_one("error", strcmp(kv_get_last_error()->message, "words 3") == 0);
    good &= is_one("mirror", g_error_ctx.last_error.code == KV_ERR_BATCH_FULL);
    return good ? 0 : 1;
}
