/*
 * load_files.c: store every regular file below a directory (key: its path, value: its content), then let a second
 * process read all of it back and compare it byte for byte.
 *
 *   cc -O2 -Iinclude examples-c/load_files.c -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o load_files
 *   ./load_files [DIRECTORY [STORE]]       default: /usr/include, and KVBATCH_STORE or ./kvbatch-data
 *
 * Symbolic links are not followed. A file that vanishes, cannot be read or is above the limits of the store is named,
 * counted and left out; the others are stored all the same. On a terminal a bar shows how far it is.
 */
#define _GNU_SOURCE
#include "example.h"

#include <fts.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

enum {
    BATCH_OPS = 1000,
    BATCH_BYTES = 8 << 20, /* a batch of large files ends earlier */
    IN_FLIGHT = 4,
    TIMEOUT_MS = 120000,
    VALUE_BYTES_MAX = 512 << 20,
};

static const char *store_path; /* the directory the store keeps its files in */
static size_t left_out;        /* files and directories that were named and passed over */
static double bar_drawn;       /* when; 0: there is no bar on the screen */

/* ---- What the user sees ---- */

static void wipe_bar(void)
{
    if (bar_drawn > 0)
        fprintf(stderr, "\r\033[K");
    bar_drawn = 0;
}

static void draw_bar(const char *what, size_t done, size_t all)
{
    double now = seconds();
    if (!isatty(STDERR_FILENO) || all == 0 || now - bar_drawn < 0.1)
        return;
    bar_drawn = now;
    size_t filled = done < all ? done * 30 / all : 30;
    fprintf(stderr, "\r\033[K%s [%.*s%*s] %zu of %zu files", what, (int)filled, "##############################", (int)(30 - filled),
            "", done, all);
}

static void leave_out(const char *path, const char *why)
{
    wipe_bar();
    fprintf(stderr, "left out  %s: %s\n", path, why);
    left_out++;
}

/* ---- Files ---- */

/* The next regular file of the walk, or NULL at its end. What cannot be walked is named if `aloud`. */
static FTSENT *next_file(FTS *walk, int aloud)
{
    struct stat store;
    int store_known = stat(store_path, &store) == 0;
    FTSENT *entry;
    while ((entry = fts_read(walk)) != NULL) {
        switch (entry->fts_info) {
        case FTS_F:
            return entry;
        case FTS_D: /* a store inside the directory would swallow itself */
            if (store_known && entry->fts_statp->st_ino == store.st_ino && entry->fts_statp->st_dev == store.st_dev)
                fts_set(walk, entry, FTS_SKIP);
            break;
        case FTS_DNR:
        case FTS_ERR:
        case FTS_NS:
            if (aloud)
                leave_out(entry->fts_path, strerror(entry->fts_errno));
            break;
        default: /* symbolic links, pipes, devices, sockets, and directories on the way up */
            break;
        }
    }
    return NULL;
}

static FTS *walk_below(char *directory)
{
    char *roots[] = {directory, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    if (walk == NULL) {
        perror(directory);
        exit(1);
    }
    return walk;
}

struct content {
    char *bytes;
    size_t len;
    size_t room;
};

/* Reads a whole file into `content`, which grows. NULL, or why the file cannot be stored. */
static const char *read_file(const char *path, struct content *content)
{
    const char *why = NULL;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        why = strerror(errno);
    else if (!S_ISREG(st.st_mode)) /* it was one when the walk came by */
        why = "no longer a regular file";
    for (content->len = 0; why == NULL;) {
        if (st.st_size > VALUE_BYTES_MAX || content->len > VALUE_BYTES_MAX) {
            why = "larger than 512 MiB, the longest value";
        } else if (content->len == content->room) {
            size_t room = content->room == 0 ? 1 << 20 : 2 * content->room;
            char *bytes = realloc(content->bytes, room);
            if (bytes == NULL) {
                why = "no memory for its content";
            } else {
                content->bytes = bytes;
                content->room = room;
            }
        } else {
            ssize_t n = read(fd, content->bytes + content->len, content->room - content->len);
            if (n == 0)
                break;
            if (n > 0)
                content->len += (size_t)n;
            else if (errno != EINTR)
                why = strerror(errno);
        }
    }
    if (fd >= 0)
        close(fd);
    return why;
}

static size_t count_files(char *directory)
{
    size_t count = 0;
    FTS *walk = walk_below(directory);
    while (next_file(walk, 0) != NULL)
        count++;
    fts_close(walk);
    return count;
}

/* ---- Storing ---- */

/* Callbacks of several batches may run in several threads: each slot has figures of its own, read after wait. */
struct slot {
    kv_async_batch_context_t *batch;
    size_t ops; /* added to this batch */
    size_t bytes;
    size_t stored_files; /* by all batches of this slot */
    uint64_t stored_bytes;
    size_t not_stored;
};

struct loader {
    kv_async_batch_manager_t *manager;
    struct slot slots[IN_FLIGHT]; /* a ring; slots[turn] is being filled, the others are in flight */
    size_t turn;
};

static void on_stored(kv_async_batch_operation_t *op, int result, void *user_data)
{
    struct slot *slot = user_data;
    if (result == KV_SUCCESS) {
        slot->stored_files++;
        slot->stored_bytes += op->value_len;
    } else if (slot->not_stored++ < 3) { /* the rest will have met the same trouble; wait says what it was */
        fprintf(stderr, "NOT STORED  %.*s: %s\n", (int)op->key_len, op->key, kv_get_error_desc(result));
    }
}

static void finish(struct slot *slot)
{
    if (slot->ops > 0)
        must(kv_async_batch_wait(slot->batch, TIMEOUT_MS), "wait");
    kv_async_batch_destroy(slot->batch); /* ignores NULL */
    slot->batch = NULL;
    slot->ops = slot->bytes = 0;
}

/* Sends the filling batch on its way and makes room for the next one, waiting for the oldest if need be. */
static void flush(struct loader *loader)
{
    struct slot *slot = &loader->slots[loader->turn];
    if (slot->ops == 0)
        return;
    must(kv_async_batch_submit(slot->batch, NULL, NULL), "submit");
    loader->turn = (loader->turn + 1) % IN_FLIGHT;
    finish(&loader->slots[loader->turn]);
}

static void store_file(struct loader *loader, const char *path, const struct content *content)
{
    struct slot *slot = &loader->slots[loader->turn];
    if (slot->ops > 0 && (slot->ops == BATCH_OPS || slot->bytes + content->len > BATCH_BYTES)) {
        flush(loader);
        slot = &loader->slots[loader->turn];
    }
    if (slot->batch == NULL)
        slot->batch = must_have(kv_async_batch_create(loader->manager, BATCH_OPS), "create a batch");
    const char *bytes = content->bytes != NULL ? content->bytes : "";
    if (kv_async_batch_put(slot->batch, path, strlen(path), bytes, content->len, on_stored, slot) != KV_SUCCESS) {
        leave_out(path, kv_get_last_error()->message);
        return;
    }
    slot->ops++;
    slot->bytes += content->len;
}

static uint64_t bytes_on_disk(void)
{
    uint64_t blocks = 0;
    FTS *walk = walk_below((char *)store_path);
    for (FTSENT *entry; (entry = fts_read(walk)) != NULL;)
        if (entry->fts_info == FTS_F)
            blocks += (uint64_t)entry->fts_statp->st_blocks;
    fts_close(walk);
    return blocks * 512;
}

static void print_figures(const char *what, size_t files, uint64_t bytes, double took)
{
    printf("%s %zu files, %.1f MB in %.2f s: %.0f ops/s, %.1f MB/s", what, files, (double)bytes / 1e6, took, (double)files / took,
           (double)bytes / 1e6 / took);
}

static kv_async_batch_manager_t *open_manager(void)
{
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.max_batch_size = BATCH_OPS;
    config.max_memory_usage = (size_t)VALUE_BYTES_MAX + (64 << 20); /* the largest file fits into a batch alone */
    config.timeout_ms = TIMEOUT_MS;
    return open_store(NULL, &config);
}

static size_t store_all(char *directory)
{
    size_t all = count_files(directory), walked = 0;
    struct loader loader = {.manager = open_manager()};
    struct content content = {0};
    double begun = seconds();
    FTS *walk = walk_below(directory);
    for (FTSENT *file; (file = next_file(walk, 1)) != NULL; walked++) {
        const char *why = read_file(file->fts_path, &content);
        if (why != NULL)
            leave_out(file->fts_path, why);
        else
            store_file(&loader, file->fts_path, &content);
        draw_bar("storing", walked, all);
    }
    fts_close(walk);
    flush(&loader);
    size_t files = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        finish(&loader.slots[i]);
        files += loader.slots[i].stored_files;
        bytes += loader.slots[i].stored_bytes;
    }
    double took = seconds() - begun;
    free(content.bytes);
    close_store(loader.manager); /* from here on, what is stored must stand on its own */
    wipe_bar();
    print_figures("stored   ", files, bytes, took);
    printf(", %.1f MB on disk, %zu left out\n", (double)bytes_on_disk() / 1e6, left_out);
    return files;
}

/* ---- Reading back, in a second process ---- */

struct verifier {
    kv_async_batch_manager_t *manager;
    struct timespec since; /* a file that changed after this may differ */
    size_t count;
    char *paths[BATCH_OPS];
    char *values[BATCH_OPS];
    size_t lens[BATCH_OPS];
    int results[BATCH_OPS];
    struct content content;
    size_t equal, changed, vanished, wrong;
    uint64_t bytes;
};

static void on_read(kv_async_batch_operation_t *op, int result, void *user_data)
{
    (void)op;
    *(int *)user_data = result;
}

static int changed_since(const char *path, const struct timespec *since)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return 1;
    return st.st_ctim.tv_sec > since->tv_sec || (st.st_ctim.tv_sec == since->tv_sec && st.st_ctim.tv_nsec >= since->tv_nsec);
}

static void compare(struct verifier *v, size_t i)
{
    const char *path = v->paths[i];
    const char *why = read_file(path, &v->content);
    size_t len = v->content.len;
    if (why != NULL) {
        if (v->results[i] == KV_SUCCESS) { /* else it could not be stored either, and was named then */
            leave_out(path, why);
            v->vanished++;
        }
    } else if (v->results[i] == KV_SUCCESS && v->lens[i] == len && (len == 0 || memcmp(v->values[i], v->content.bytes, len) == 0)) {
        v->equal++;
        v->bytes += len;
    } else if (changed_since(path, &v->since)) {
        v->changed++;
    } else {
        wipe_bar();
        fprintf(stderr, "WRONG     %s: %s\n", path, v->results[i] == KV_SUCCESS ? "differs" : kv_get_error_desc(v->results[i]));
        v->wrong++;
    }
}

static void read_batch(struct verifier *v)
{
    if (v->count == 0)
        return;
    kv_async_batch_context_t *batch = must_have(kv_async_batch_create(v->manager, v->count), "create a batch");
    for (size_t i = 0; i < v->count; i++)
        must(kv_async_batch_get(batch, v->paths[i], strlen(v->paths[i]), &v->values[i], &v->lens[i], on_read, &v->results[i]), "get");
    must(kv_async_batch_submit(batch, NULL, NULL), "submit");
    int code = kv_async_batch_wait(batch, TIMEOUT_MS);
    if (code != KV_ERR_BATCH_FAILED) /* single reads failed: compare() names them */
        must(code, "wait");
    for (size_t i = 0; i < v->count; i++) {
        compare(v, i);
        free(v->paths[i]);
    }
    kv_async_batch_destroy(batch); /* the values go with it */
    v->count = 0;
}

static int verify_all(char *directory, size_t stored_before, struct timespec since)
{
    struct verifier v = {.manager = open_manager(), .since = since};
    size_t walked = 0, bytes = 0;
    double begun = seconds();
    FTS *walk = walk_below(directory);
    for (FTSENT *file; (file = next_file(walk, 0)) != NULL; walked++) {
        if (v.count == BATCH_OPS || bytes > BATCH_BYTES) {
            read_batch(&v);
            bytes = 0;
        }
        char *path = strdup(file->fts_path);
        if (path == NULL)
            break;
        v.paths[v.count++] = path;
        bytes += (size_t)file->fts_statp->st_size;
        draw_bar("comparing", walked, stored_before);
    }
    fts_close(walk);
    read_batch(&v);
    double took = seconds() - begun;
    free(v.content.bytes);
    close_store(v.manager);
    wipe_bar();
    print_figures("read back", v.equal, v.bytes, took);
    int good = v.wrong == 0 && (v.equal > 0 || stored_before == 0);
    printf(good ? ", every byte equal (process %d)\n" : ", NOT ALL EQUAL (process %d)\n", (int)getpid());
    if (v.changed + v.vanished > 0)
        printf("          %zu files changed and %zu vanished since they were stored\n", v.changed, v.vanished);
    return good ? 0 : 1;
}

/* Starts this program anew, so that nothing but the store itself can hand over what was stored. */
static int verify_in_second_process(char *directory, size_t stored_before, struct timespec since)
{
    extern char **environ;
    char count[32], sec[32], nsec[32], self[4096] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) {
        perror("/proc/self/exe");
        return 1;
    }
    snprintf(count, sizeof count, "%zu", stored_before);
    snprintf(sec, sizeof sec, "%ld", (long)since.tv_sec);
    snprintf(nsec, sizeof nsec, "%ld", since.tv_nsec);
    char *args[] = {"load_files", "--verify", directory, count, sec, nsec, NULL};
    pid_t child;
    int status = 0;
    fflush(stdout);
    int error = posix_spawn(&child, self, NULL, NULL, args, environ);
    if (error != 0) {
        fprintf(stderr, "a second process cannot be started: %s\n", strerror(error));
        return 1;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    int verifying = argc == 6 && strcmp(argv[1], "--verify") == 0;
    char *directory = verifying ? argv[2] : argc > 1 ? argv[1] : "/usr/include";
    if (!verifying && argc > 2)
        setenv("KVBATCH_STORE", argv[2], 1);
    const char *store = getenv("KVBATCH_STORE");
    store = store != NULL && *store != '\0' ? store : "kvbatch-data";
    if (strncmp(store, "memory:", 7) == 0) {
        fprintf(stderr, "load_files shows that files outlive a process: give it a store on disk, not %s\n", store);
        return 2;
    }
    store_path = strncmp(store, "file:", 5) == 0 ? store + 5 : store;
    struct stat st;
    if (stat(directory, &st) != 0 || !S_ISDIR(st.st_mode)) {
        fprintf(stderr, "%s is not a directory that can be read\nusage: load_files [DIRECTORY [STORE]]\n", directory);
        return 2;
    }
    if (verifying)
        return verify_all(directory, strtoul(argv[3], NULL, 10), (struct timespec){strtol(argv[4], NULL, 10), strtol(argv[5], NULL, 10)});

    struct timespec since; /* the clock that stamps files */
    clock_gettime(CLOCK_REALTIME_COARSE, &since);
    size_t files = store_all(directory);
    return verify_in_second_process(directory, files, since);
}
