/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A closed-loop generator of DNS queries: a fixed number is in flight, each answer brings the next
 * query. Queries are for the names "PREFIX<n>SUFFIX", n drawn from 0 to COUNT - 1, type A; an
 * answer must have the query's id. bench_dns_load ADDRESS PORT [-f IN_FLIGHT] [-t SECONDS] [-c CPU]
 * [-n COUNT] [-p PREFIX] [-s SUFFIX] [-a FIRST]
 *                  [-b SOURCE] [-e] [-u] [-q QUERIES]
 * -q: ends when so many are answered, if that is before the time is over; -a: the first n; -b:
 * source address; -e: anything that comes back is an answer (for an echo); -u: an answer with an
 * error code is counted as bad. Prints one line: queries per second, median and 99th percentile of
 * the round trip in µs (of single queries: with one in flight they are exact), lost and bad
 * answers. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT_MAX 512
#define SIZE 1232
#define TIMEOUT_MS 500
#define SAMPLES_MAX (1u << 22)

struct options {
    const char *address;
    const char *port;
    const char *source;
    const char *prefix;
    const char *suffix;
    unsigned long in_flight;
    unsigned long count;
    unsigned long first;
    unsigned long queries;
    double seconds;
    long cpu;
    bool echo;
    bool strict;
};

struct load {
    struct options options;
    int fd;
    uint64_t random;
    uint64_t sent_ns[1 << 16]; /* by id; 0: not in flight */
    uint16_t next_id;
    uint64_t answered;
    uint64_t lost;
    uint64_t bad;
    uint64_t strays;
    size_t n_samples;
    uint32_t *samples_ns;
    uint8_t out[IN_FLIGHT_MAX][SIZE];
    uint8_t in[IN_FLIGHT_MAX][SIZE];
    struct iovec out_parts[IN_FLIGHT_MAX];
    struct iovec in_parts[IN_FLIGHT_MAX];
    struct mmsghdr out_messages[IN_FLIGHT_MAX];
    struct mmsghdr in_messages[IN_FLIGHT_MAX];
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t random_next(struct load *load)
{
    load->random = load->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(load->random >> 33);
}

/* --- queries --- */

static size_t label_append(uint8_t *data, size_t length, const char *label, size_t label_length)
{
    data[length] = (uint8_t)label_length;
    memcpy(data + length + 1, label, label_length);
    return length + 1 + label_length;
}

static size_t name_append(uint8_t *data, size_t length, const char *name)
{
    while (*name) {
        size_t label = strcspn(name, ".");

        length = label_append(data, length, name, label);
        name += label;
        name += *name == '.';
    }
    data[length] = 0;
    return length + 1;
}

static size_t query_build(struct load *load, uint8_t *data)
{
    static const uint8_t type_and_class[] = {0, 1, 0, 1};
    const struct options *options = &load->options;
    uint16_t id = load->next_id++;
    char name[256];
    size_t length = 12;

    while (load->sent_ns[id])
        id = load->next_id++;
    load->sent_ns[id] = now_ns();
    memset(data, 0, length);
    data[0] = (uint8_t)(id >> 8);
    data[1] = (uint8_t)id;
    data[2] = 1; /* RD */
    data[5] = 1;
    if (options->count > 0)
        snprintf(name, sizeof(name), "%s%lu%s", options->prefix,
                 options->first + random_next(load) % options->count, options->suffix);
    else
        snprintf(name, sizeof(name), "%s%s", options->prefix, options->suffix);
    length = name_append(data, length, name);
    memcpy(data + length, type_and_class, sizeof(type_and_class));
    return length + 4;
}

static void queries_send(struct load *load, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        load->out_parts[i].iov_len = query_build(load, load->out[i]);
    for (unsigned done = 0; done < count;) {
        int sent = sendmmsg(load->fd, load->out_messages + done, count - done, 0);

        if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
            fprintf(stderr, "bench_dns_load: %s\n", strerror(errno));
            exit(1);
        }
        done += sent > 0 ? (unsigned)sent : 0;
    }
}

/* --- answers --- */

/* Whether it answers something that is in flight. */
static bool answer_take(struct load *load, const uint8_t *data, size_t length, uint64_t now)
{
    uint16_t id = (uint16_t)(data[0] << 8 | data[1]);

    if (length < 12 || !load->sent_ns[id] || (!load->options.echo && !(data[2] & 0x80))) {
        load->strays++;
        return false;
    }
    if (load->options.strict && ((data[3] & 15) || (data[6] | data[7]) == 0))
        load->bad++;
    if (load->n_samples < SAMPLES_MAX)
        load->samples_ns[load->n_samples++] = (uint32_t)(now - load->sent_ns[id]);
    load->sent_ns[id] = 0;
    load->answered++;
    return true;
}

static unsigned answers_receive(struct load *load, unsigned in_flight)
{
    int count = recvmmsg(load->fd, load->in_messages, in_flight, MSG_WAITFORONE, NULL);
    uint64_t now = now_ns();
    unsigned taken = 0;

    for (int i = 0; i < count; i++)
        taken += answer_take(load, load->in[i], load->in_messages[i].msg_len, now);
    return taken;
}

/* Nothing came for long: all that is in flight is lost. */
static unsigned in_flight_forget(struct load *load)
{
    unsigned forgotten = 0;

    for (unsigned i = 0; i < 1 << 16; i++) {
        forgotten += load->sent_ns[i] != 0;
        load->sent_ns[i] = 0;
    }
    load->lost += forgotten;
    return forgotten;
}

static double load_run(struct load *load)
{
    uint64_t start = now_ns();
    uint64_t end = start + (uint64_t)(load->options.seconds * 1e9);
    unsigned wanted = (unsigned)load->options.in_flight;

    while (now_ns() < end && load->answered < load->options.queries) {
        unsigned taken;

        queries_send(load, wanted);
        taken = answers_receive(load, (unsigned)load->options.in_flight);
        if (taken == 0)
            taken = in_flight_forget(load);
        wanted = taken;
    }
    return (double)(now_ns() - start) / 1e9;
}

/* --- report --- */

static int sample_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void report(struct load *load, double seconds)
{
    size_t n = load->n_samples;
    double median = 0;
    double high = 0;

    qsort(load->samples_ns, n, sizeof(*load->samples_ns), sample_compare);
    if (n > 0) {
        size_t middle = n / 2;
        size_t most = n * 99 / 100;

        median = load->samples_ns[middle] / 1e3;
        high = load->samples_ns[most] / 1e3;
    }
    printf("%.0f/s median %.1f us p99 %.1f us lost %llu bad %llu stray %llu\n",
           (double)load->answered / seconds, median, high, (unsigned long long)load->lost,
           (unsigned long long)load->bad, (unsigned long long)load->strays);
}

/* --- set-up --- */

static bool options_parse(int argc, char **argv, struct options *options)
{
    int option;

    *options = (struct options){.prefix = "guest-",
                                .suffix = "",
                                .in_flight = 32,
                                .seconds = 3,
                                .queries = -1ul,
                                .cpu = -1};
    while ((option = getopt(argc, argv, "f:t:c:n:p:s:a:b:q:eu")) != -1) {
        switch (option) {
        case 'f':
            options->in_flight = strtoul(optarg, NULL, 10);
            break;
        case 't':
            options->seconds = strtod(optarg, NULL);
            break;
        case 'c':
            options->cpu = strtol(optarg, NULL, 10);
            break;
        case 'n':
            options->count = strtoul(optarg, NULL, 10);
            break;
        case 'p':
            options->prefix = optarg;
            break;
        case 's':
            options->suffix = optarg;
            break;
        case 'a':
            options->first = strtoul(optarg, NULL, 10);
            break;
        case 'b':
            options->source = optarg;
            break;
        case 'q':
            options->queries = strtoul(optarg, NULL, 10);
            break;
        case 'e':
            options->echo = true;
            break;
        case 'u':
            options->strict = true;
            break;
        default:
            return false;
        }
    }
    if (argc - optind != 2 || options->in_flight < 1 || options->in_flight > IN_FLIGHT_MAX)
        return false;
    options->address = argv[optind];
    options->port = argv[optind + 1];
    return true;
}

static bool load_connect(struct load *load)
{
    const struct options *options = &load->options;
    struct sockaddr_in server = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)strtoul(options->port, NULL, 10))};
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct timeval timeout = {.tv_usec = TIMEOUT_MS * 1000L};
    int size = 4 << 20;

    load->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (load->fd < 0 || inet_pton(AF_INET, options->address, &server.sin_addr) != 1)
        return false;
    setsockopt(load->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    setsockopt(load->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    if (options->source && (inet_pton(AF_INET, options->source, &source.sin_addr) != 1 ||
                            bind(load->fd, (const struct sockaddr *)&source, sizeof(source)) < 0))
        return false;
    return connect(load->fd, (const struct sockaddr *)&server, sizeof(server)) == 0;
}

static bool load_init(struct load *load)
{
    cpu_set_t cpus;

    load->random = now_ns();
    load->samples_ns = malloc(SAMPLES_MAX * sizeof(*load->samples_ns));
    if (!load->samples_ns)
        return false;
    for (int i = 0; i < IN_FLIGHT_MAX; i++) {
        load->out_parts[i].iov_base = load->out[i];
        load->in_parts[i] = (struct iovec){.iov_base = load->in[i], .iov_len = SIZE};
        load->out_messages[i].msg_hdr =
            (struct msghdr){.msg_iov = &load->out_parts[i], .msg_iovlen = 1};
        load->in_messages[i].msg_hdr =
            (struct msghdr){.msg_iov = &load->in_parts[i], .msg_iovlen = 1};
    }
    CPU_ZERO(&cpus);
    if (load->options.cpu >= 0) {
        CPU_SET((size_t)load->options.cpu, &cpus);
        if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
            return false;
    }
    return load_connect(load);
}

int main(int argc, char **argv)
{
    struct load *load = calloc(1, sizeof(*load));

    if (!load)
        return 1;
    if (!options_parse(argc, argv, &load->options)) {
        fprintf(stderr, "usage: bench_dns_load [OPTION...] ADDRESS PORT (see the source)\n");
        return 2;
    }
    if (!load_init(load)) {
        fprintf(stderr, "bench_dns_load: %s\n", strerror(errno));
        return 1;
    }
    report(load, load_run(load));
    return 0;
}
