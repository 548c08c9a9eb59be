/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attaches and detaches guests over moatd's socket, and times each answer.
 *
 *   bench_attach SOCKET
 *
 * attach COUNT CALLERS PORTS  ->  COUNT more guests, each in a new namespace that was made before
 *     the clock started and with PORTS published ports, by CALLERS connections at once; answers
 *     with the wall time, then the time of each, all in ns, callers mixed
 * tap COUNT                   ->  COUNT more guests on taps, one caller; the same answer
 * untap COUNT                 ->  detaches the last COUNT of those
 * detach COUNT CALLERS        ->  the same for the last COUNT; answers when their links are gone
 * churn COUNT CALLERS         ->  one caller attaches and detaches COUNT times, the others do the
 *     same as long as that goes on; answers with the wall time and the time of each of the one
 *     caller's detaches
 *
 * A request that is refused ends the program. */
#include <pthread.h>
#include <stdatomic.h>

#include "bench.h"
#include "rpc.h"

#define CALLERS_MAX 64
#define RING 64 /* namespaces of one caller that churns */

struct caller {
    struct bench *bench;
    int fd;
    unsigned first; /* guests first, first + step, … below end */
    unsigned end;
    unsigned step;
    unsigned id;
};

struct bench {
    const char *path;
    int home_fd;
    int guests[GUESTS_MAX];
    unsigned n_guests; /* namespaces that are there */
    unsigned count;    /* guests that are attached */
    unsigned taps;     /* of those on taps */
    unsigned ports;
    uint64_t samples_ns[GUESTS_MAX];
    _Atomic bool stop;
    unsigned rounds;
    struct caller callers[CALLERS_MAX];
    pthread_barrier_t start;
};

static uint64_t guest_attach(const struct caller *caller, const char *name, int netns_fd)
{
    char text[1024];
    size_t length;

    length = (size_t)snprintf(
        text, sizeof(text),
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guest.attach\",\"params\":{\"name\":\"%s\","
        "\"kind\":\"netns\",\"netns_fd\":true,\"networks\":[{\"name\":\"default\"}]%s",
        name, caller->bench->ports ? ",\"ports\":[" : "");
    for (unsigned i = 0; i < caller->bench->ports; i++)
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s\"%u\"", i ? "," : "",
                                   8000 + i);
    length += (size_t)snprintf(text + length, sizeof(text) - length, "%s}}\n",
                               caller->bench->ports ? "]" : "");
    return call(caller->fd, text, length, netns_fd);
}

static uint64_t guest_detach(const struct caller *caller, const char *name)
{
    char text[256];
    int length = snprintf(text, sizeof(text),
                          "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guest.detach\",\"params\":"
                          "{\"name\":\"%s\"}}\n",
                          name);

    return call(caller->fd, text, (size_t)length, -1);
}

static uint64_t tap_attach(const struct caller *caller, const char *name)
{
    char text[256];
    int length = snprintf(text, sizeof(text),
                          "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guest.attach\",\"params\":"
                          "{\"name\":\"%s\",\"kind\":\"tap\",\"networks\":[{\"name\":\"default\"}],"
                          "\"tap\":{\"owner\":1000,\"group\":1000}}}\n",
                          name);

    return call(caller->fd, text, (size_t)length, -1);
}

static void *tap_main(void *userdata)
{
    const struct caller *caller = userdata;
    struct bench *bench = caller->bench;
    char name[32];

    pthread_barrier_wait(&bench->start);
    for (unsigned i = caller->first; i < caller->end; i += caller->step) {
        snprintf(name, sizeof(name), "tap-%u", i);
        bench->samples_ns[i] = tap_attach(caller, name);
    }
    return NULL;
}

static void *untap_main(void *userdata)
{
    const struct caller *caller = userdata;
    struct bench *bench = caller->bench;
    char name[32];

    pthread_barrier_wait(&bench->start);
    for (unsigned i = caller->first; i < caller->end; i += caller->step) {
        snprintf(name, sizeof(name), "tap-%u", i);
        bench->samples_ns[i] = guest_detach(caller, name);
    }
    return NULL;
}

static void *attach_main(void *userdata)
{
    const struct caller *caller = userdata;
    struct bench *bench = caller->bench;
    char name[32];

    pthread_barrier_wait(&bench->start);
    for (unsigned i = caller->first; i < caller->end; i += caller->step) {
        snprintf(name, sizeof(name), "bench-%u", i);
        bench->samples_ns[i] = guest_attach(caller, name, bench->guests[i]);
    }
    return NULL;
}

static void *detach_main(void *userdata)
{
    const struct caller *caller = userdata;
    struct bench *bench = caller->bench;
    char name[32];

    pthread_barrier_wait(&bench->start);
    for (unsigned i = caller->first; i < caller->end; i += caller->step) {
        snprintf(name, sizeof(name), "bench-%u", i);
        bench->samples_ns[i] = guest_detach(caller, name);
    }
    return NULL;
}

/* Each caller goes round its own namespaces: the link in the last one is still being deleted. */
static void *churn_main(void *userdata)
{
    const struct caller *caller = userdata;
    struct bench *bench = caller->bench;
    int home_fd = netns_home();
    int ring[RING];
    char name[32];

    for (unsigned i = 0; i < RING; i++)
        ring[i] = netns_make(home_fd);
    pthread_barrier_wait(&bench->start);
    for (unsigned i = 0; caller->id == 0 ? i < bench->rounds : !bench->stop; i++) {
        netns_settle(ring[i % RING], home_fd);
        snprintf(name, sizeof(name), "churn-%u-%u", caller->id, i);
        guest_attach(caller, name, ring[i % RING]);
        uint64_t taken = guest_detach(caller, name);
        if (caller->id == 0)
            bench->samples_ns[i] = taken;
    }
    for (unsigned i = 0; i < RING; i++) {
        netns_settle(ring[i], home_fd);
        close(ring[i]);
    }
    close(home_fd);
    if (caller->id == 0)
        bench->stop = true;
    return NULL;
}

/* Runs the callers over guests [first, end) and prints the samples. */
static void callers_run(struct bench *bench, void *(*body)(void *), unsigned callers,
                        unsigned first, unsigned end)
{
    pthread_t threads[CALLERS_MAX];

    if (callers == 0 || callers > CALLERS_MAX)
        die("1 to %d callers", CALLERS_MAX);
    bench->stop = false;
    pthread_barrier_init(&bench->start, NULL, callers + 1);
    for (unsigned i = 0; i < callers; i++) {
        bench->callers[i] = (struct caller){.bench = bench,
                                            .fd = connection_open(bench->path),
                                            .first = first + i,
                                            .end = end,
                                            .step = callers,
                                            .id = i};
        if (pthread_create(&threads[i], NULL, body, &bench->callers[i]) != 0)
            die("thread");
    }
    pthread_barrier_wait(&bench->start);
    uint64_t start = now_ns();
    for (unsigned i = 0; i < callers; i++)
        pthread_join(threads[i], NULL);
    printf("%lu", (unsigned long)(now_ns() - start));
    for (unsigned i = 0; i < callers; i++)
        close(bench->callers[i].fd);
    pthread_barrier_destroy(&bench->start);
    for (unsigned i = first; i < end; i++)
        printf(" %lu", (unsigned long)bench->samples_ns[i]);
    printf("\n");
}

static void attach(struct bench *bench, unsigned count, unsigned callers, unsigned ports)
{
    if (bench->count + count > GUESTS_MAX || ports > 64)
        die("too many guests or ports");
    while (bench->n_guests < bench->count + count)
        bench->guests[bench->n_guests++] = netns_make(bench->home_fd);
    bench->ports = ports;
    callers_run(bench, attach_main, callers, bench->count, bench->count + count);
    bench->count += count;
}

static void tap(struct bench *bench, unsigned count)
{
    if (bench->taps + count > GUESTS_MAX)
        die("too many taps");
    callers_run(bench, tap_main, 1, bench->taps, bench->taps + count);
    bench->taps += count;
}

static void untap(struct bench *bench, unsigned count)
{
    if (count > bench->taps)
        die("too few taps");
    callers_run(bench, untap_main, 1, bench->taps - count, bench->taps);
    bench->taps -= count;
}

static void detach(struct bench *bench, unsigned count, unsigned callers)
{
    if (count > bench->count)
        die("too few guests");
    callers_run(bench, detach_main, callers, bench->count - count, bench->count);
    bench->count -= count;
    for (unsigned i = 0; i < count; i++)
        netns_settle(bench->guests[bench->count + i], bench->home_fd);
}

static void churn(struct bench *bench, unsigned count, unsigned callers)
{
    if (count > GUESTS_MAX)
        die("too many rounds");
    bench->rounds = count;
    bench->ports = 1;
    callers_run(bench, churn_main, callers, 0, count);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    char line[64];
    unsigned count, callers, ports;

    if (argc != 2)
        die("usage: bench_attach SOCKET");
    bench.path = argv[1];
    bench.home_fd = netns_home();
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "attach %u %u %u", &count, &callers, &ports) == 3)
            attach(&bench, count, callers, ports);
        else if (sscanf(line, "tap %u", &count) == 1)
            tap(&bench, count);
        else if (sscanf(line, "untap %u", &count) == 1)
            untap(&bench, count);
        else if (sscanf(line, "detach %u %u", &count, &callers) == 2)
            detach(&bench, count, callers);
        else if (sscanf(line, "churn %u %u", &count, &callers) == 2)
            churn(&bench, count, callers);
        fflush(stdout);
    }
    return 0;
}
