/*
 * storage.c: what a store costs over time: bytes on disk and written, time to open, memory per key, and whether all of that
 * stays as it is.
 *
 *   make bench-storage                     or: make bench-storage ARGS="only=open"
 *   make endurance MINUTES=10              a mixed load for so long; fails if memory, descriptors or disk keep growing
 *
 * Every part runs in a process of its own, so that one does not find the memory of another; what it stored is read back
 * and compared, and a wrong value ends the program with exit code 1.
 */
#define _GNU_SOURCE
#include "support.h"
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { OVERWRITES = 5, MEMORY_KEYS = 10000000, QUIET_SECONDS = 3, PATIENCE_SECONDS = 300 };

/* ---- A store, batch by batch ---- */

static kv_async_batch_manager_t *open_with(const char *options, int fsync, double *took)
{
    char url[5000];
    kv_async_batch_config_t config = kv_async_batch_default_config();
    config.max_batch_size = opt.batch;
    config.timeout_ms = TIMEOUT_MS;
    config.enable_batch_fsync = fsync;
    snprintf(url, sizeof url, "file:%s%s", path_of("store"), options);
    setenv("KVBATCH_STORE", url, 1);
    kv_async_batch_manager_t *manager = must_have(kv_async_batch_manager_create(&config), "create the manager");
    if (took != NULL)
        settle();
    double begun = seconds();
    must(kv_async_batch_manager_start(manager), "open the store");
    if (took != NULL)
        *took = seconds() - begun;
    return manager;
}

static void close_store(kv_async_batch_manager_t *manager)
{
    must(kv_async_batch_manager_stop(manager), "stop the manager");
    kv_async_batch_manager_destroy(manager);
}

static const char *value_in(size_t i, size_t round)
{
    return value_of(word_in(i, round));
}

static void put_range(kv_async_batch_manager_t *manager, size_t first, size_t end, size_t round)
{
    for (; first < end; first += opt.batch) {
        kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, opt.batch), "create a batch");
        for (size_t i = first; i < first + opt.batch && i < end; i++)
            must(kv_async_batch_put(batch, key_of(i), KEY_BYTES, value_in(i, round), opt.value, NULL, NULL), "put");
        must(kv_async_batch_submit(batch, NULL, NULL), "submit");
        must(kv_async_batch_wait(batch, TIMEOUT_MS), "wait");
        kv_async_batch_destroy(batch);
    }
}

struct expected {
    size_t key, round;
    size_t *right;
};

static void on_get(kv_async_batch_operation_t *op, int result, void *user_data)
{
    struct expected *expected = user_data;
    *expected->right += result == KV_SUCCESS && op->value_len == opt.value &&
                        memcmp(op->value, value_in(expected->key, expected->round), opt.value) == 0;
}

/* All keys from `first` to `end` have the value of `round`. */
static void check_range(kv_async_batch_manager_t *manager, size_t first, size_t end, size_t round)
{
    struct expected *expected = memory(opt.batch * sizeof *expected);
    size_t right = 0, wanted = end - first;
    for (; first < end; first += opt.batch) {
        kv_async_batch_context_t *batch = must_have(kv_async_batch_create(manager, opt.batch), "create a batch");
        for (size_t i = first; i < first + opt.batch && i < end; i++) {
            expected[i - first] = (struct expected){i, round, &right};
            must(kv_async_batch_get(batch, key_of(i), KEY_BYTES, NULL, NULL, on_get, &expected[i - first]), "get");
        }
        must(kv_async_batch_submit(batch, NULL, NULL), "submit");
        must(kv_async_batch_wait(batch, TIMEOUT_MS), "wait");
        kv_async_batch_destroy(batch);
    }
    free(expected);
    if (right != wanted)
        fail("store", "reads do not give what was stored");
}

/* ---- What the system says ---- */

static size_t disk_bytes(void)
{
    size_t bytes = 0;
    char path[4600];
    DIR *dir = opendir(path_of("store"));
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        struct stat status;
        snprintf(path, sizeof path, "%s/store/%s", stores, entry->d_name);
        if (stat(path, &status) == 0 && S_ISREG(status.st_mode))
            bytes += (size_t)status.st_blocks * 512;
    }
    if (dir != NULL)
        closedir(dir);
    return bytes;
}

static size_t resident_bytes(void)
{
    size_t size = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm == NULL || fscanf(statm, "%zu %zu", &size, &resident) != 2)
        fail("/proc/self/statm", "cannot be read");
    fclose(statm);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Bytes that this process has handed to write calls. */
static size_t written_bytes(void)
{
    size_t bytes = 0;
    char line[128];
    FILE *io = fopen("/proc/self/io", "r");
    if (io == NULL)
        fail("/proc/self/io", strerror(errno));
    while (fgets(line, sizeof line, io) != NULL)
        sscanf(line, "wchar: %zu", &bytes);
    fclose(io);
    return bytes;
}

static size_t descriptors(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count - 3; /* ".", "..", and that of this very look */
}

/* Waits until compaction has nothing more to do. */
static void await_quiet(void)
{
    size_t before = 0;
    for (int calm = 0, waited = 0; calm < QUIET_SECONDS * 10 && waited < PATIENCE_SECONDS * 10; waited++) {
        size_t now = disk_bytes();
        calm = now == before ? calm + 1 : 0;
        before = now;
        usleep(100000);
    }
}

/* ---- Parts ---- */

static atomic_size_t disk_peak;
static atomic_int watching;

static void *watch_disk(void *unused)
{
    (void)unused;
    while (watching) {
        size_t now = disk_bytes();
        if (now > disk_peak)
            disk_peak = now;
        usleep(5000);
    }
    return NULL;
}

static void run_overwrite(void)
{
    pthread_t watcher;
    kv_async_batch_manager_t *manager = open_with("", 0, NULL);
    watching = 1;
    if (pthread_create(&watcher, NULL, watch_disk, NULL) != 0)
        fail("overwrite", "no thread to watch the disk with");
    for (size_t round = 0; round <= OVERWRITES; round++)
        put_range(manager, 0, opt.keys, round);
    size_t right_after = disk_bytes();
    await_quiet();
    watching = 0;
    pthread_join(watcher, NULL);
    check_range(manager, 0, opt.keys, OVERWRITES);
    close_store(manager);
    double live = (double)(opt.keys * (KEY_BYTES + opt.value));
    double put = live * (OVERWRITES + 1);
    printf("overwriting %zu keys %d times: %.1f MB live (keys and values)\n", opt.keys, OVERWRITES, live / 1e6);
    printf("  on disk: peak %.1f MB (%.2f of live), right after %.1f MB, after compaction %.1f MB (%.2f of live)\n",
           (double)disk_peak / 1e6,
           (double)disk_peak / live, (double)right_after / 1e6, (double)disk_bytes() / 1e6, (double)disk_bytes() / live);
    printf("  written: %.1f MB for %.1f MB put (write amplification %.2f)\n", (double)written_bytes() / 1e6, put / 1e6,
           (double)written_bytes() / put);
    manager = open_with("", 0, NULL);
    check_range(manager, 0, opt.keys, OVERWRITES);
    close_store(manager);
}

static void in_child(void (*run)(void), int dies)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        run();
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fail("child", strerror(errno));
    if (dies ? !WIFSIGNALED(status) : status != 0)
        fail("child", "did not end as it should");
}

static void fill_and_close(void)
{
    kv_async_batch_manager_t *manager = open_with("?checkpoint_log_bytes=16m", 0, NULL);
    put_range(manager, 0, opt.keys, 0);
    close_store(manager);
}

static void fill_and_die(void)
{
    put_range(open_with("?checkpoint_log_bytes=0", 0, NULL), 0, opt.keys, 0);
    kill(getpid(), SIGKILL);
}

static double open_times[RUNS_MAX];
static int open_run;

static void time_opening(void)
{
    double took;
    kv_async_batch_manager_t *manager = open_with("?checkpoint_log_bytes=0", 0, &took);
    check_range(manager, 0, opt.keys, 0);
    printf("%.9f\n", took);
    fflush(stdout);
    kill(getpid(), SIGKILL); /* nothing is written that would make the next opening easier */
}

/* Each opening in a process of its own, as a program's start is; the median, in milliseconds per million keys. */
static double openings(void)
{
    for (open_run = 0; open_run < opt.runs; open_run++) {
        int out[2];
        if (pipe(out) != 0)
            fail("pipe", strerror(errno));
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            dup2(out[1], STDOUT_FILENO);
            time_opening();
        }
        close(out[1]);
        FILE *answer = fdopen(out[0], "r");
        if (answer == NULL || fscanf(answer, "%lf", &open_times[open_run]) != 1)
            fail("open", "the child did not say how long it took");
        fclose(answer);
        waitpid(pid, NULL, 0);
    }
    return quantile(open_times, (size_t)opt.runs, 0.5) * 1e3 / ((double)opt.keys / 1e6);
}

static void run_open(void)
{
    in_child(fill_and_close, 0);
    printf("opening after an orderly close: %.1f ms per 1 M keys", openings());
    remove_tree(path_of("store"));
    in_child(fill_and_die, 1);
    printf("; after kill -9, without a checkpoint: %.1f ms per 1 M records (medians of %d)\n", openings(), opt.runs);
    remove_tree(path_of("store"));
}

static void run_memory(void)
{
    kv_async_batch_manager_t *manager = open_with("?hot_log_bytes=0&checkpoint_log_bytes=0&min_fill_rate=0", 0, NULL);
    size_t before = 0, most = 0;
    double sum = 0;
    int samples = 0;
    for (size_t round = 0, keys_in = 0; keys_in < MEMORY_KEYS; round++) {
        char key[KEY_BYTES + 1];
        for (size_t i = 0; i < opt.keys; i++) { /* new keys in the same memory */
            snprintf(key, sizeof key, "%08x%08x", (unsigned)(keys_in + i), (unsigned)round);
            memcpy(keys + i * KEY_BYTES, key, KEY_BYTES);
        }
        if (round == 0) {
            put_range(manager, 0, opt.batch, 0);
            before = resident_bytes();
        }
        put_range(manager, 0, opt.keys, 0);
        keys_in += opt.keys;
        double per_key = (double)(resident_bytes() - before) / (double)keys_in;
        if (keys_in * 2 >= MEMORY_KEYS) {
            sum += per_key;
            samples++;
            most = per_key * 100 > (double)most ? (size_t)(per_key * 100) : most;
        }
    }
    printf("memory: %.1f B per key at %d keys; from half of them on: mean %.1f, most %.1f\n",
           (double)(resident_bytes() - before) / MEMORY_KEYS, MEMORY_KEYS, sum / samples, (double)most / 100);
    close_store(manager);
}

/* ---- Endurance ---- */

static size_t minutes = 10;

/* Puts, overwrites, deletes and reads without end: what is used in the second half must be no more than in the first. */
static void run_endurance(void)
{
    kv_async_batch_manager_t *manager = open_with("?checkpoint_log_bytes=64m", 0, NULL);
    size_t rounds = 0, span = opt.keys / 10;
    size_t most[2][3] = {{0}};
    double begun = seconds(), until = begun + (double)minutes * 60, half = begun + (double)minutes * 30;
    put_range(manager, 0, opt.keys, 0);
    for (double next_line = begun; seconds() < until; rounds++) {
        size_t first = rounds % 10 * span;
        put_range(manager, first, first + span, rounds + 1);
        check_range(manager, first, first + span, rounds + 1);
        size_t now[3] = {resident_bytes(), descriptors(), disk_bytes()};
        /* The first eighth warms up: until then chunks, caches and pools are still filling. */
        if (seconds() > begun + (until - begun) / 8)
            for (int i = 0; i < 3; i++)
                if (now[i] > most[seconds() > half][i])
                    most[seconds() > half][i] = now[i];
        if (seconds() >= next_line) {
            printf("%6.0f s: %zu rounds, %.1f MB resident, %zu descriptors, %.1f MB on disk\n", seconds() - begun, rounds,
                   (double)now[0] / 1e6,
                   now[1], (double)now[2] / 1e6);
            fflush(stdout);
            next_line += (until - begun) / 20;
        }
    }
    close_store(manager);
    static const char *const what[3] = {"memory", "descriptors", "disk"};
    static const size_t unit[3] = {16 << 20, 4, 160 << 20}; /* one hot chunk's pages, some files, two chunks more or less */
    for (int i = 0; i < 3; i++) {
        printf("most %s: %zu in the first half, %zu in the second\n", what[i], most[0][i], most[1][i]);
        if (most[1][i] > most[0][i] + unit[i])
            fail(what[i], "keeps growing");
    }
}

/* ---- The parts ---- */

static const struct part {
    const char *name;
    void (*run)(void);
    int always;
} parts[] = {
    {"overwrite", run_overwrite, 1},
    {"open", run_open, 1},
    {"memory", run_memory, 1},
    {"endurance", run_endurance, 0},
};

static int usage(int code)
{
    fprintf(code == 0 ? stdout : stderr,
            "storage [--keys N] [--batch N] [--value BYTES] [--runs N] [--minutes N] [--store DIRECTORY] [only=PART]\n\nparts:\n");
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++)
        fprintf(code == 0 ? stdout : stderr, "  %s%s\n", parts[p].name, parts[p].always ? "" : " (only when asked for)");
    return code;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        size_t runs = 0;
        int good = 0;
        if (strcmp(name, "--help") == 0)
            return usage(0);
        if (strncmp(name, "only=", 5) == 0 && opt.only_count < ONLY_MAX) {
            opt.only[opt.only_count++] = name + 5;
            continue;
        }
        if (strcmp(name, "--keys") == 0)
            good = read_number(value, 1000, 99999999, &opt.keys);
        else if (strcmp(name, "--batch") == 0)
            good = read_number(value, 1, KV_ASYNC_BATCH_MAX_SIZE, &opt.batch);
        else if (strcmp(name, "--value") == 0)
            good = read_number(value, 0, (size_t)512 << 20, &opt.value);
        else if (strcmp(name, "--minutes") == 0)
            good = read_number(value, 1, 100000, &minutes);
        else if (strcmp(name, "--runs") == 0 && read_number(value, 1, RUNS_MAX, &runs))
            good = opt.runs = (int)runs;
        else if (strcmp(name, "--store") == 0 && value != NULL)
            good = (opt.store = value) != NULL;
        if (!good) {
            fprintf(stderr, "storage: %s %s is not understood\n", name, value != NULL ? value : "");
            return usage(2);
        }
        i++;
    }
    make_directory();
    make_data(opt.value);
    printf("%zu keys of %d B, values of %zu B, batches of %zu; store on %s\n", opt.keys, KEY_BYTES, opt.value, opt.batch, file_system());
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        int wanted = opt.only_count == 0 && parts[p].always;
        for (int o = 0; o < opt.only_count; o++)
            wanted |= strcmp(parts[p].name, opt.only[o]) == 0;
        if (wanted) {
            in_child(parts[p].run, 0);
            remove_tree(path_of("store"));
        }
    }
    return 0;
}
