/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The name worker's code in a process without moatd, sandbox or rules: what is measured in it is
 * the worker alone (its instructions under valgrind, its time for a change).
 *
 * bench_dns_serve ADDRESS PORT NAMES [UPSTREAM UPSTREAM_PORT]
 *
 * ADDRESS is the gateway; guests "guest-0" to "guest-<NAMES-1>" are on its network, and so is
 * "asker", with the address after ADDRESS. Prints "ready". Then each line of the standard input is
 * a command: "change COUNT" gives as many guests another address, and prints the time of each in
 * ns; the end of the input ends it. */
#include "bench.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/loop.h"
#include "worker/dns_control.h"

#define NETWORK_ID 1
#define NAMES_MAX 60000

struct serve {
    struct loop *loop;
    struct dns_control *control;
    struct dns_page *page;
    uint64_t number;
    unsigned long n_names;
    struct loop_io *input;
};

/* --- what moatd does --- */

static void tell(struct serve *serve, uint16_t type, struct dns_message *message, size_t length,
                 int *fds, size_t n_fds)
{
    message->number = ++serve->number;
    atomic_store(&serve->page->number, message->number);
    dns_control_message(serve->control, type, message, length, fds, n_fds);
}

static struct ip address_read(const char *text)
{
    struct ip ip;

    if (ip_parse(text, &ip) < 0 || ip.family != AF_INET)
        die("%s: no IPv4 address", text);
    return ip;
}

static int socket_bound(int type, const struct ip *ip, const char *port)
{
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(ip, (uint16_t)strtoul(port, NULL, 10), &address);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, length) < 0 ||
        (type == SOCK_STREAM && listen(fd, 16) < 0))
        die("port %s", port);
    return fd;
}

static void tell_config(struct serve *serve)
{
    struct dns_config_message config = {
        .ttl_s = 5, .cache_bytes = 16u << 20, .domain = "moat.internal"};
    int fd = memfd_create("page", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, sizeof(*serve->page)) < 0)
        die("the page");
    serve->page = mmap(NULL, sizeof(*serve->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (serve->page == MAP_FAILED)
        die("the page");
    tell(serve, DNS_MESSAGE_CONFIG, &config.message, sizeof(config), &fd, 1);
}

static void tell_upstream(struct serve *serve, const char *address)
{
    struct dns_upstreams_message message = {
        .upstreams = {.count = 1, .servers = {address_read(address)}}};

    tell(serve, DNS_MESSAGE_UPSTREAMS, &message.message, sizeof(message), NULL, 0);
}

static void tell_network(struct serve *serve, const struct ip *gateway, const char *port)
{
    struct dns_network_message message = {.id = NETWORK_ID,
                                          .gateway = *gateway,
                                          .sockets = DNS_SOCKET_UDP | DNS_SOCKET_TCP,
                                          .name = "default"};
    int fds[2] = {socket_bound(SOCK_DGRAM, gateway, port),
                  socket_bound(SOCK_STREAM, gateway, port)};

    if (cidr_parse("10.88.0.0/16", &message.subnet) < 0)
        die("the subnet");
    tell(serve, DNS_MESSAGE_NETWORK, &message.message, sizeof(message), fds, 2);
}

/* Returns how long the worker took for it, in ns. */
static uint64_t tell_guest(struct serve *serve, int64_t id, const struct ip *ip, const char *name)
{
    size_t length = sizeof(struct dns_endpoint_message) + strlen(name) + 1;
    struct dns_endpoint_message *message = calloc(1, length);
    uint64_t start;

    if (!message)
        die("memory");
    message->id = id;
    message->guest_id = id;
    message->network_id = NETWORK_ID;
    message->ip = *ip;
    message->n_names = 1;
    message->names_length = (uint16_t)(strlen(name) + 1);
    memcpy(message->names, name, strlen(name) + 1);
    start = now_ns();
    tell(serve, DNS_MESSAGE_ENDPOINT, &message->message, length, NULL, 0);
    start = now_ns() - start;
    free(message);
    return start;
}

/* round: each has other addresses. */
static uint64_t tell_numbered(struct serve *serve, unsigned long i, unsigned round)
{
    struct ip ip = ip_from_v4((uint32_t)(10u << 24 | (88 + round) << 16 | (i + 256)));
    char name[32];

    snprintf(name, sizeof(name), "guest-%lu", i);
    return tell_guest(serve, (int64_t)(i + 2), &ip, name);
}

static void tell_all(struct serve *serve, char **arguments, const char *upstream)
{
    struct ip gateway = address_read(arguments[0]);
    struct ip asker = gateway;
    struct dns_message ready = {0};

    asker.bytes[3]++;
    tell_config(serve);
    if (upstream)
        tell_upstream(serve, upstream);
    tell_network(serve, &gateway, arguments[1]);
    tell_guest(serve, 1, &asker, "asker");
    for (unsigned long i = 0; i < serve->n_names; i++)
        tell_numbered(serve, i, 0);
    tell(serve, DNS_MESSAGE_READY, &ready, sizeof(ready), NULL, 0);
}

/* --- the worker's channel: everything comes by calls --- */

static void nothing(void *userdata)
{
    (void)userdata;
}

static int message_refuse(void *userdata, uint16_t type, const void *payload, size_t length)
{
    (void)userdata;
    (void)type;
    (void)payload;
    (void)length;
    return -EAGAIN;
}

/* --- commands --- */

static void command_change(struct serve *serve, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        unsigned long which = i * 7919 % serve->n_names; /* all over the table */
        uint64_t taken = tell_numbered(serve, which, (unsigned)(1 + i / serve->n_names));

        printf("%llu%c", (unsigned long long)taken, i + 1 < count ? ' ' : '\n');
    }
    fflush(stdout);
}

static void input_ready(void *userdata, unsigned events)
{
    struct serve *serve = userdata;
    char line[64];
    unsigned long count;

    (void)events;
    if (!fgets(line, sizeof(line), stdin))
        loop_stop(serve->loop);
    else if (sscanf(line, "change %lu", &count) == 1)
        command_change(serve, count);
    else
        die("no command: %s", line);
}

int main(int argc, char **argv)
{
    struct serve serve = {0};
    struct error error = ERROR_INIT;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: bench_dns_serve ADDRESS PORT NAMES [UPSTREAM UPSTREAM_PORT]\n");
        return 2;
    }
    serve.n_names = strtoul(argv[3], NULL, 10);
    if (serve.n_names < 1 || serve.n_names > NAMES_MAX || loop_new(&serve.loop, &error) < 0)
        die("no such number of names, or no loop");
    serve.control = dns_control_new(&(struct dns_control_config){
        .loop = serve.loop,
        .port = argc == 6 ? (uint16_t)strtoul(argv[5], NULL, 10) : DNS_PORT,
        .receive = nothing,
        .wait = nothing,
        .active = nothing,
        .send = message_refuse,
        .userdata = &serve,
    });
    serve.input = loop_io_new(serve.loop, STDIN_FILENO, LOOP_READ, input_ready, &serve);
    if (!serve.control || !serve.input)
        die("memory");
    tell_all(&serve, argv + 1, argc == 6 ? argv[4] : NULL);
    puts("ready");
    fflush(stdout);
    loop_run(serve.loop);
    loop_io_free(serve.input);
    dns_control_free(serve.control);
    loop_free(serve.loop);
    return 0;
}
