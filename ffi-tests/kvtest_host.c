/* kvtest_host.c: helpers that know nothing of batches: processes, threads, files, chance, a counting allocator, and a
 * filter that takes io_uring away. Linked into every test program. */
#include "kvtest.h"
#include "uring_filter.h"
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* ---- processes and threads ---- */
pid_t spawn(void (*body)(void *), void *arg) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body(arg);
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

int join_status(pid_t pid) {
    int status = 0;
    pid_t seen;
    do seen = waitpid(pid, &status, 0);
    while (seen < 0 && errno == EINTR);
    CHECK_EQ_INT(seen, pid);
    return status;
}

void join(pid_t pid) {
    int status = join_status(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) _exit(77);
    if (WIFSIGNALED(status)) kvt_fail(__FILE__, __LINE__, "the child was ended by signal %d", WTERMSIG(status));
    if (status != 0) kvt_fail(__FILE__, __LINE__, "the child ended with code %d", WEXITSTATUS(status));
}

void in_child(void (*body)(void *), void *arg) { join(spawn(body, arg)); }

pthread_t thread_start(void *(*body)(void *), void *arg) {
    pthread_t t;
    CHECK_EQ_INT(pthread_create(&t, NULL, body, arg), 0);
    return t;
}

void thread_join(pthread_t t) { CHECK_EQ_INT(pthread_join(t, NULL), 0); }

void sleep_ms(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- files ---- */
char *read_file(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) kvt_fail(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    CHECK_EQ_INT(fseek(f, 0, SEEK_END), 0);
    long end = ftell(f);
    CHECK(end >= 0);
    rewind(f);
    char *bytes = malloc((size_t)end + 1);
    CHECK(bytes != NULL);
    CHECK_EQ_INT(fread(bytes, 1, (size_t)end, f), end);
    bytes[end] = 0;
    fclose(f);
    if (len) *len = (size_t)end;
    return bytes;
}

void write_file(const char *path, const void *bytes, size_t len) {
    FILE *f = fopen(path, "wb");
    if (!f) kvt_fail(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    CHECK_EQ_INT(fwrite(bytes, 1, len, f), (long long)len);
    CHECK_EQ_INT(fclose(f), 0);
}

void copy_file(const char *from, const char *to) {
    size_t len;
    char *bytes = read_file(from, &len);
    write_file(to, bytes, len);
    free(bytes);
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

size_t list_dir(const char *dir, const char *prefix, char names[][256], size_t room) {
    DIR *d = opendir(dir);
    if (!d) return 0;
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, strlen(prefix)) != 0) continue;
        CHECK(n < room);
        snprintf(names[n++], 256, "%s", e->d_name);
    }
    closedir(d);
    qsort(names, n, 256, by_name);
    return n;
}

uint64_t dir_digest(const char *dir, const char *prefix) {
    static char names[4096][256];
    size_t n = list_dir(dir, prefix, names, 4096);
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < n; i++) {
        char *path;
        size_t len;
        CHECK(asprintf(&path, "%s/%s", dir, names[i]) > 0);
        char *bytes = read_file(path, &len);
        free(path);
        for (const char *c = names[i]; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
        for (size_t k = 0; k < len; k++) hash = (hash ^ (unsigned char)bytes[k]) * 1099511628211u;
        hash = (hash ^ len) * 1099511628211u;
        free(bytes);
    }
    return hash;
}

uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void deny_uring(int error) {
    if (refuse_uring(error) != 0) kvt_skip("system calls cannot be filtered here: %s", strerror(errno));
}

/* ---- the counting allocator: a header in front of each block tells a foreign or twice freed pointer ---- */
atomic_long alloc_calls, alloc_live, alloc_refused, alloc_fail_at, alloc_fail_from;
atomic_size_t alloc_fail_size;
#define ALIVE 0x600dca11600dca11u
#define GONE 0xdeadca11deadca11u
struct header { uint64_t mark, size; };

void *counting_alloc(size_t n) {
    long call = atomic_fetch_add(&alloc_calls, 1) + 1;
    long from = alloc_fail_from;
    size_t limit = alloc_fail_size;
    if (call == alloc_fail_at || (from && call >= from) || (limit && n >= limit)) {
        atomic_fetch_add(&alloc_refused, 1);
        return NULL;
    }
    struct header *h = malloc(sizeof *h + n);
    if (!h) return NULL;
    h->mark = ALIVE;
    h->size = n;
    memset(h + 1, 0xcd, n); /* nobody may count on zeros */
    atomic_fetch_add(&alloc_live, 1);
    return h + 1;
}

void counting_free(void *p) {
    if (!p) return;
    struct header *h = (struct header *)p - 1;
    if (h->mark != ALIVE) kvt_fail(__FILE__, __LINE__, "free_func got a pointer that alloc_func did not give, or twice");
    h->mark = GONE;
    memset(p, 0xdd, h->size);
    atomic_fetch_sub(&alloc_live, 1);
    free(h);
}

void alloc_reset(void) {
    alloc_calls = alloc_refused = alloc_fail_at = alloc_fail_from = 0;
    alloc_fail_size = 0;
}

config_t counting_config(void) {
    config_t c = kv_async_batch_default_config();
    c.alloc_func = counting_alloc;
    c.free_func = counting_free;
    return c;
}
