/* programs/dlopen.c: a plugin host: loads the library at run time (the path is the argument), uses it, lets go of it while its
 * threads are at work, and loads it again. Neither the harness nor the headers take part. */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef void *create_t(const void *);
typedef int start_t(void *);
typedef void destroy_t(void *);
typedef void *batch_t(void *, size_t);
typedef int put_t(void *, const char *, size_t, const char *, size_t, void (*)(void *, int, void *), void *);
typedef int submit_t(void *, void *, void *);

enum { BATCHES = 10, OPERATIONS = 5 };

#define CHECK(c) do { if (!(c)) { fprintf(stderr, "%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, #c, dlerror()); return 1; } } while (0)
#define LOAD(type, name) type *name; *(void **)&name = dlsym(library, "kv_async_batch_" #name); CHECK(name != NULL)

static atomic_int called;
static void on_op(void *op, int result, void *user_data) {
    (void)op, (void)result, (void)user_data;
    usleep(1000); /* so that there is still work when the library is let go of */
    called++;
}

static int use(const char *path, int leave_running) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    LOAD(create_t, manager_create);
    LOAD(start_t, manager_start);
    LOAD(destroy_t, manager_destroy);
    LOAD(batch_t, create);
    LOAD(put_t, put);
    LOAD(submit_t, submit);
    void *m = manager_create(NULL);
    CHECK(m != NULL);
    CHECK(manager_start(m) == 0);
    int before = called;
    for (int i = 0; i < BATCHES; i++) {
        void *b = create(m, OPERATIONS);
        CHECK(b != NULL);
        for (int k = 0; k < OPERATIONS; k++) CHECK(put(b, "k", 1, "v", 1, on_op, NULL) == 0);
        CHECK(submit(b, NULL, NULL) == 0);
    }
    if (!leave_running) manager_destroy(m);
    CHECK(dlclose(library) == 0);
    /* An unmapped library would crash in its own threads now. */
    while (called < before + BATCHES * OPERATIONS) usleep(1000);
    usleep(20000);
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (use(argv[1], 0) || use(argv[1], 0) || use(argv[1], 1)) return 1;
    /* It stays loaded, under its soname: -z nodelete, and what programs link against. */
    CHECK(dlopen("libkvbatch.so.1", RTLD_NOW | RTLD_NOLOAD) != NULL);
    return 0;
}
