/* planted.c: one fault for each thing that a sanitizer is there for; `.ci/sanitize` builds it like the C suite, runs `planted NAME` for
 * each name, and fails if no report comes. Some are in C alone; in those that begin with lib_ it is the library's own code that
 * touches the memory, so that a library without the sanitizer in it does not pass. Never a part of the suite. */
#include "kvserver/kv_async_batch_io.h"
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the compiler must not see through. */
static void *volatile blind;
static void *hide(void *p) {
    blind = p;
    return blind;
}
static volatile int one = 1;

static void good(int code) {
    if (code != KV_SUCCESS) {
        fprintf(stderr, "planted: %s\n", kv_get_error_name(code));
        exit(3);
    }
}

static kv_async_batch_manager_t *manager;
static kv_async_batch_context_t *batch;

/* A batch that reads a key which is not there into these pointers. */
static void begin_get(char **value, size_t *value_len) {
    manager = kv_async_batch_manager_create(NULL);
    if (!manager) exit(3);
    good(kv_async_batch_manager_start(manager));
    batch = kv_async_batch_create(manager, 1);
    good(kv_async_batch_get(batch, "key", 3, value, value_len, NULL, NULL));
}

static void end_get(void) {
    good(kv_async_batch_submit(batch, NULL, NULL));
    good(kv_async_batch_wait(batch, UINT32_MAX));
    kv_async_batch_destroy(batch);
    good(kv_async_batch_manager_stop(manager));
    kv_async_batch_manager_destroy(manager);
}

/* ---- AddressSanitizer ---- */
static void overflow(void) {
    char *bytes = hide(malloc(8));
    bytes[7 + one] = 1;
    free(bytes);
}

static void use_after_free(void) {
    char *bytes = hide(malloc(8));
    free(bytes);
    bytes = blind;
    bytes[0] = 1;
}

static void leak(void) {
    memset(hide(malloc(4711)), 1, 4711);
    blind = NULL;
}

/* The memory for the value's address is gone when the library writes it. */
static void lib_use_after_free(void) {
    char **value = hide(malloc(sizeof *value));
    size_t *value_len = hide(malloc(sizeof *value_len));
    begin_get(value, value_len);
    free(value);
    end_get();
    free(value_len);
}

/* The value's length does not fit where the library writes it. */
static void lib_overflow(void) {
    char **value = hide(malloc(sizeof *value));
    char *small = hide(malloc(sizeof(size_t) / 2));
    begin_get(value, (size_t *)(void *)small);
    end_get();
    free(small);
    free(value);
}

/* ---- ThreadSanitizer ---- */
static int shared;
static void *add(void *none) {
    for (int i = 0; i < 1000; i++) shared += one;
    return none;
}

static void race(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, add, NULL) != 0) exit(3);
    add(NULL);
    pthread_join(thread, NULL);
}

/* Looks at the out-pointers without having waited, while another thread waits. */
static char *racy_value;
static size_t racy_len;
static void *look(void *none) {
    if (((volatile size_t *)&racy_len)[0] == 4712) printf("never\n");
    return none;
}

static void lib_race(void) {
    pthread_t thread;
    begin_get(&racy_value, &racy_len);
    if (pthread_create(&thread, NULL, look, NULL) != 0) exit(3);
    end_get();
    pthread_join(thread, NULL);
}

/* ---- UndefinedBehaviorSanitizer ---- */
static void misaligned(void) {
    static uint64_t words[2];
    uint64_t *word = hide((char *)words + one);
    *word = 1;
}

static void bounds(void) {
    int few[4] = {0};
    few[3 + one] = 1;
    hide(few);
}

static void signed_overflow(void) {
    int most = INT32_MAX - 1 + one;
    printf("%d\n", most + one);
}

static const struct { const char *name; void (*plant)(void); } faults[] = {
    {"overflow", overflow}, {"use_after_free", use_after_free}, {"leak", leak}, {"lib_use_after_free", lib_use_after_free},
    {"lib_overflow", lib_overflow}, {"race", race}, {"lib_race", lib_race}, {"misaligned", misaligned}, {"bounds", bounds},
    {"signed_overflow", signed_overflow},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 2 && i < sizeof faults / sizeof *faults; i++) {
        if (strcmp(argv[1], faults[i].name) != 0) continue;
        faults[i].plant();
        return 0;
    }
    fprintf(stderr, "usage: planted NAME\n");
    return 3;
}
