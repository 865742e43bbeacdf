/*
 * peers.c: this library beside other embedded stores: the same workloads, the same bytes, in the same run.
 *
 *   make bench-peers                        says what to install if something is missing
 *
 * Keys of 16 bytes, values of 100. All stores are run in turn, `runs` times; the figures are medians over the runs. Every value
 * that is read is compared; a store that gives a wrong one ends the program with exit code 1.
 */
#define _GNU_SOURCE
#include "../support.h"
#include "peer.h"
#include <pthread.h>
#include <sys/stat.h>

enum { BATCH = 1000, SMALL_BATCH = 10, THREADS = 8, SYNCED_SHARE = 5, SMALL_SHARE = 25 };

static const struct peer *const peers[] = {&peer_kvbatch, &peer_rocksdb, &peer_leveldb, &peer_lmdb, &peer_wiredtiger, &peer_tkrzw};
enum { PEERS = sizeof peers / sizeof peers[0] };

/* Where the figures of a workload stand; values are M operations per second. */
enum workload { PUT_IN_ORDER, PUT_IN_NO_ORDER, GET, PUT_SYNC, PUT_SYNC_THREADS, WORKLOADS };
static const char *const names[WORKLOADS] = {
    "put, no sync, in order of keys", "put, no sync, in no order", "get, in memory, in no order", "put, a sync per batch",
    "8 threads x 10 puts, synced",
};
static double seen[WORKLOADS][PEERS][RUNS_MAX];

size_t peer_value_bytes;

const char *peer_key(size_t i)
{
    return key_of(i);
}

const char *peer_value(size_t i)
{
    return value_of(i);
}

int peer_is_right(const char *value, size_t len, size_t i)
{
    return is_value(value, len, opt.value, i);
}

void peer_fail(const char *name, const char *why)
{
    fail(name, why);
}

/* ---- Workloads ---- */

struct share {
    const struct peer *peer;
    void *store;
    size_t first, count, batch;
    int mixed, reading; /* mixed: keys in no order */
    pthread_barrier_t *start;
};

static void work(const struct share *share, void *session)
{
    size_t which[BATCH], right = 0;
    for (size_t done = 0; done < share->count; done += share->batch) {
        size_t count = share->count - done < share->batch ? share->count - done : share->batch;
        for (size_t i = 0; i < count; i++) {
            size_t at = share->first + done + i;
            which[i] = share->mixed ? at * step % opt.keys : at;
        }
        if (share->reading)
            right += share->peer->get(session, which, count);
        else
            share->peer->put(session, which, count);
    }
    if (share->reading && right != share->count)
        fail(share->peer->name, "it does not give what was stored");
}

static void *enter(const struct share *share)
{
    return share->peer->enter != NULL ? share->peer->enter(share->store) : share->store;
}

static void leave(const struct share *share, void *session)
{
    if (share->peer->leave != NULL)
        share->peer->leave(session);
}

static double timed(struct share share)
{
    void *session = enter(&share);
    double begun = seconds();
    work(&share, session);
    double took = seconds() - begun;
    leave(&share, session);
    return (double)share.count / took / 1e6;
}

static void *thread(void *argument)
{
    struct share *share = argument;
    void *session = enter(share);
    pthread_barrier_wait(share->start);
    work(share, session);
    pthread_barrier_wait(share->start);
    leave(share, session);
    return NULL;
}

static double timed_threads(struct share whole)
{
    pthread_t threads[THREADS];
    struct share shares[THREADS];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, THREADS + 1);
    for (int t = 0; t < THREADS; t++) {
        shares[t] = whole;
        shares[t].count = whole.count / THREADS;
        shares[t].first = whole.first + shares[t].count * (size_t)t;
        shares[t].start = &start;
        if (pthread_create(&threads[t], NULL, thread, &shares[t]) != 0)
            fail("thread", strerror(errno));
    }
    pthread_barrier_wait(&start);
    double begun = seconds();
    pthread_barrier_wait(&start);
    double took = seconds() - begun;
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    pthread_barrier_destroy(&start);
    return (double)(whole.count / THREADS * THREADS) / took / 1e6;
}

static void *fresh(const struct peer *peer, int sync)
{
    const char *path = path_of("peer");
    remove_tree(path);
    if (mkdir(path, 0755) != 0)
        fail(path, strerror(errno));
    settle();
    return peer->open(path, sync, opt.keys);
}

static void run_peer(int p, int run)
{
    const struct peer *peer = peers[p];
    struct share all = {.peer = peer, .count = opt.keys, .batch = BATCH};
    struct share mixed = all, synced = all, small = all, reads = all;

    all.store = fresh(peer, 0);
    seen[PUT_IN_ORDER][p][run] = timed(all);
    peer->close(all.store);

    mixed.mixed = 1;
    mixed.store = fresh(peer, 0);
    seen[PUT_IN_NO_ORDER][p][run] = timed(mixed);
    if (peer->rest != NULL)
        peer->rest(mixed.store);
    reads.store = mixed.store;
    reads.mixed = reads.reading = 1;
    timed(reads); /* what it caches is cached */
    seen[GET][p][run] = timed(reads);
    peer->close(mixed.store);

    synced.store = fresh(peer, 1);
    synced.count = opt.keys / SYNCED_SHARE;
    seen[PUT_SYNC][p][run] = timed(synced);
    small.store = synced.store;
    small.first = synced.count;
    small.count = opt.keys / SMALL_SHARE;
    small.batch = SMALL_BATCH;
    seen[PUT_SYNC_THREADS][p][run] = timed_threads(small);
    reads = (struct share){.peer = peer, .store = synced.store, .count = synced.count + small.count / THREADS * THREADS, .batch = BATCH,
                           .reading = 1};
    timed(reads); /* all of it is there */
    peer->close(synced.store);
    remove_tree(path_of("peer"));
}

/* ---- Showing ---- */

static void show(const char *report)
{
    FILE *tsv = report == NULL ? NULL : fopen(report, "w");
    if (report != NULL && tsv == NULL)
        fail(report, strerror(errno));
    printf("\n| %-32s |", "M ops/s");
    for (int p = 0; p < PEERS; p++)
        printf(" %10s |", peers[p]->name);
    printf(" kvbatch, of the best other |\n|---|---|---|---|---|---|---|---|\n");
    for (int w = 0; w < WORKLOADS; w++) {
        double ratios[RUNS_MAX], best[PEERS];
        int first = 1;
        printf("| %-32s |", names[w]);
        for (int p = 0; p < PEERS; p++) {
            double values[RUNS_MAX];
            memcpy(values, seen[w][p], sizeof values);
            best[p] = quantile(values, (size_t)opt.runs, 0.5);
            printf(" %10.3f |", best[p]);
            if (tsv != NULL)
                fprintf(tsv, "%s\t%s\t%.6g\n", names[w], peers[p]->name, best[p]);
            if (p > 1 && best[p] > best[first])
                first = p;
        }
        for (int run = 0; run < opt.runs; run++)
            ratios[run] = seen[w][0][run] / seen[w][first][run];
        printf(" %.2f of %s |\n", quantile(ratios, (size_t)opt.runs, 0.5), peers[first]->name);
    }
    printf("\n");
    for (int p = 0; p < PEERS; p++)
        printf("%s: %s\n", peers[p]->name, peers[p]->set_up);
    if (tsv != NULL && fclose(tsv) != 0)
        fail(report, strerror(errno));
}

int main(int argc, char **argv)
{
    const char *report = NULL;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        size_t runs = 0;
        int good = 0;
        if (strcmp(name, "--keys") == 0)
            good = read_number(value, 10000, 99999999, &opt.keys);
        else if (strcmp(name, "--runs") == 0 && read_number(value, 1, RUNS_MAX, &runs))
            good = opt.runs = (int)runs;
        else if (strcmp(name, "--store") == 0 && value != NULL)
            good = (opt.store = value) != NULL;
        else if (strcmp(name, "--report") == 0 && value != NULL)
            good = (report = value) != NULL;
        if (!good) {
            fprintf(stderr, "peers [--keys N] [--runs N] [--store DIRECTORY] [--report FILE.tsv]\n");
            return 2;
        }
        i++;
    }
    peer_value_bytes = opt.value;
    make_directory();
    make_data(opt.value);
    printf("%zu keys of %d B, values of %zu B, batches of %d; synced: a share of them; medians of %d runs; store on %s\n", opt.keys,
           KEY_BYTES, opt.value, BATCH, opt.runs, file_system());
    fflush(stdout);
    for (int run = 0; run < opt.runs; run++)
        for (int p = 0; p < PEERS; p++) {
            if (isatty(STDERR_FILENO))
                fprintf(stderr, "\r\033[Krun %d of %d: %s", run + 1, opt.runs, peers[p]->name);
            run_peer(p, run);
        }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    show(report);
    return 0;
}
