/*
 * durable_events.c: what "completed" is worth. A child process stores events and reports each batch that completed;
 * it is killed with SIGKILL in the middle of its work; then everything it had reported is read back.
 *
 *   cc -O2 -Iinclude examples-c/durable_events.c -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o durable_events
 *   ./durable_events [STORE]
 */
#define _GNU_SOURCE
#include "example.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH_OPS = 100, BATCHES_MIN = 20, TIMEOUT_MS = 10000 };

struct event {
    char key[48];
    char value[64];
    size_t value_len;
};

static long run; /* tells this run's events from those of earlier runs in the same store */

static struct event event(long number)
{
    struct event e;
    snprintf(e.key, sizeof e.key, "event_%ld_%ld", run, number);
    e.value_len = (size_t)snprintf(e.value, sizeof e.value, "{\"event\":%ld,\"check\":%ld}", number, number * 7919 % 10007);
    return e;
}

/* Stores batch after batch until it is killed. One byte into the pipe per completed batch. */
static void store_events(const char *store, int report)
{
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.enable_batch_fsync = true; /* completion means: on stable storage, also if the power fails now */
    kv_async_batch_manager_t *manager = open_store(store, &config);
    for (long number = 0;;) {
        kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, BATCH_OPS), "create a batch");
        for (int i = 0; i < BATCH_OPS; i++, number++) {
            struct event e = event(number);
            must(kv_async_batch_put(batch, e.key, strlen(e.key), e.value, e.value_len, NULL, NULL), "put");
        }
        run_batch(batch, TIMEOUT_MS);
        if (write(report, "+", 1) != 1)
            _exit(1);
    }
}

/* How many of this batch's events are in the store as they were written. */
static size_t count_intact(kv_async_batch_manager_t *manager, long first)
{
    char *values[BATCH_OPS];
    size_t lens[BATCH_OPS], intact = 0;
    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, BATCH_OPS), "create a batch");
    for (int i = 0; i < BATCH_OPS; i++) {
        struct event e = event(first + i);
        must(kv_async_batch_get(batch, e.key, strlen(e.key), &values[i], &lens[i], NULL, NULL), "get");
    }
    must(kv_async_batch_submit(batch, NULL, NULL), "submit");
    must(kv_async_batch_wait(batch, TIMEOUT_MS), "wait");
    for (int i = 0; i < BATCH_OPS; i++) {
        struct event e = event(first + i);
        intact += values[i] != NULL && lens[i] == e.value_len && memcmp(values[i], e.value, e.value_len) == 0;
    }
    kv_async_batch_destroy(batch);
    return intact;
}

int main(int argc, char **argv)
{
    const char *store = argc > 1 ? argv[1] : NULL;
    int pipe_ends[2];
    run = (long)time(NULL);
    /* The fork comes before this process has a manager: a started manager must not be taken across a fork. */
    pid_t child = pipe(pipe_ends) == 0 ? fork() : -1;
    if (child < 0) {
        perror("a child process with a pipe");
        return 1;
    }
    if (child == 0) {
        close(pipe_ends[0]);
        store_events(store, pipe_ends[1]);
    }
    close(pipe_ends[1]);
    long batches = 0;
    char byte;
    while (batches < BATCHES_MIN && read(pipe_ends[0], &byte, 1) == 1)
        batches++;
    kill(child, SIGKILL);
    while (read(pipe_ends[0], &byte, 1) == 1)
        batches++; /* reported before the blow fell */
    waitpid(child, NULL, 0); /* only now has it let go of the store */
    if (batches < BATCHES_MIN) {
        fprintf(stderr, "the child ended by itself after %ld batches\n", batches);
        return 1;
    }

    kv_async_batch_manager_t *manager = open_store(store, NULL);
    size_t intact = 0;
    for (long i = 0; i < batches; i++)
        intact += count_intact(manager, i * BATCH_OPS);
    close_store(manager);
    size_t reported = (size_t)batches * BATCH_OPS;
    printf("a process was killed after it had reported %zu events: %zu of them are in the store, intact\n", reported, intact);
    return intact == reported ? 0 : 1;
}
