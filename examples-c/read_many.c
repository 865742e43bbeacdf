/*
 * read_many.c: scenario "batch query". A report reads a thousand users in one batch; all of them are seen as they
 * were at one moment, also while others write.
 *
 *   cc -O2 -Iinclude examples-c/read_many.c -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o read_many
 *   ./read_many [STORE]
 */
#define _GNU_SOURCE
#include "example.h"

#include <string.h>

enum { USERS = 1000, ASKED = 1100, TIMEOUT_MS = 10000 };

struct report {
    size_t found;
    size_t missing;
    size_t failed;
    long balance_sum;
};

/* Callbacks of one batch come one after the other and all before wait returns: the report needs no lock. */
static void on_user(kv_async_batch_operation_t *op, int result, void *user_data)
{
    struct report *report = user_data;
    if (result == KV_ERR_KEY_NOT_FOUND) {
        report->missing++; /* a miss is an answer, not a failure */
    } else if (result != KV_SUCCESS) {
        report->failed++;
        fprintf(stderr, "%.*s: %s\n", (int)op->key_len, op->key, kv_get_error_desc(result));
    } else {
        report->found++;
        report->balance_sum += strtol(op->value, NULL, 10); /* a value is NUL-terminated behind its length */
    }
}

static size_t user_key(char *key, size_t size, int user)
{
    return (size_t)snprintf(key, size, "user_%d", user);
}

int main(int argc, char **argv)
{
    kv_async_batch_manager_t *manager = open_store(argc > 1 ? argv[1] : NULL, NULL);
    char key[32], value[32];

    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, USERS), "create a batch");
    for (int i = 0; i < USERS; i++) {
        size_t key_len = user_key(key, sizeof key, i);
        size_t value_len = (size_t)snprintf(value, sizeof value, "%d", i);
        must(kv_async_batch_put(batch, key, key_len, value, value_len, NULL, NULL), "put");
    }
    run_batch(batch, TIMEOUT_MS);

    /* The value comes through op->value, so the out-pointers may be NULL. */
    struct report report = {0};
    batch = must_have(kv_async_batch_create(manager, ASKED), "create a batch");
    for (int i = 0; i < ASKED; i++) {
        size_t key_len = user_key(key, sizeof key, i);
        must(kv_async_batch_get(batch, key, key_len, NULL, NULL, on_user, &report), "get");
    }
    double begun = seconds();
    run_batch(batch, TIMEOUT_MS);
    double took = seconds() - begun;

    close_store(manager);
    printf("asked for %d users in one batch: %zu found, %zu unknown, balances add up to %ld, %.0f us\n", ASKED, report.found,
           report.missing, report.balance_sum, took * 1e6);
    long expected = (long)USERS * (USERS - 1) / 2;
    return report.found == USERS && report.missing == ASKED - USERS && report.failed == 0 && report.balance_sum == expected ? 0 : 1;
}
