/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New TCP connections per second, and the throughput of one connection.
 *
 *   bench_tcp serve PORT...                  accepts, says one byte, closes; prints "ready"
 *   bench_tcp sink PORT                      reads and forgets; prints "ready"
 *   bench_tcp connect ADDRESS PORT SECONDS   connects and resets, one after the other; prints the
 *                                            connections per second
 *   bench_tcp stream ADDRESS PORT SECONDS    sends on one connection; prints Gbit/s
 *
 * connect takes the server's byte from each SYNC-th connection only: as they are accepted in order,
 * the server has then taken all before it, and its queue never overflows. The servers end when
 * their standard input does. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include "bench.h"

#define SYNC 500
#define PORTS_MAX 16
#define CHUNK (1 << 20)

static uint16_t port_parse(const char *text)
{
    return htons((uint16_t)strtoul(text, NULL, 10));
}

static int listener_open(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = port_parse(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4096) < 0)
        die("port %s", port);
    return fd;
}

/* Bursts are taken whole: one wake-up for many connections. */
static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            return;
        send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT); /* most are reset already */
        close(fd);
    }
}

static void serve(char **ports, int count)
{
    struct pollfd polls[PORTS_MAX + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};

    if (count > PORTS_MAX)
        die("at most %d ports", PORTS_MAX);
    for (int i = 0; i < count; i++)
        polls[i + 1] = (struct pollfd){.fd = listener_open(ports[i]), .events = POLLIN};
    printf("ready\n");
    fflush(stdout);
    while (!polls[0].revents) {
        if (poll(polls, (nfds_t)count + 1, -1) < 0)
            die("poll");
        for (int i = 1; i <= count; i++)
            if (polls[i].revents)
                accept_all(polls[i].fd);
    }
}

static void sink(const char *port)
{
    static char buffer[CHUNK];
    struct pollfd polls[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                              {.fd = listener_open(port), .events = POLLIN}};

    printf("ready\n");
    fflush(stdout);
    while (!polls[0].revents) {
        if (poll(polls, 2, -1) < 0)
            die("poll");
        int fd = accept4(polls[1].fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        while (recv(fd, buffer, sizeof(buffer), 0) > 0)
            ;
        close(fd);
    }
}

static struct sockaddr_in target(char **arguments)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = port_parse(arguments[1])};

    if (inet_pton(AF_INET, arguments[0], &address.sin_addr) != 1)
        die("%s is no address", arguments[0]);
    return address;
}

static int connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        die("connect");
    return fd;
}

static void connect_once(const struct sockaddr_in *address, bool sync)
{
    const struct linger reset = {.l_onoff = 1};
    int fd = connect_to(address);
    char byte;

    if (sync && recv(fd, &byte, 1, 0) != 1)
        die("no byte came");
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
}

static void connect_often(char **arguments)
{
    const struct sockaddr_in address = target(arguments);
    uint64_t start = now_ns();
    uint64_t end = start + (uint64_t)(strtod(arguments[2], NULL) * 1e9);
    unsigned long count = 0;

    while (now_ns() < end)
        connect_once(&address, ++count % SYNC == 0);
    printf("%.0f\n", (double)count / ((double)(now_ns() - start) / 1e9));
}

static void stream(char **arguments)
{
    static char buffer[CHUNK];
    const struct sockaddr_in address = target(arguments);
    int fd = connect_to(&address);
    uint64_t start = now_ns();
    uint64_t end = start + (uint64_t)(strtod(arguments[2], NULL) * 1e9);
    uint64_t bytes = 0;

    while (now_ns() < end) {
        ssize_t sent = send(fd, buffer, sizeof(buffer), MSG_NOSIGNAL);

        if (sent < 0)
            die("send");
        bytes += (uint64_t)sent;
    }
    printf("%.2f\n", (double)bytes * 8 / (double)(now_ns() - start));
    close(fd);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 2 ? argv[1] : "";

    if (strcmp(verb, "serve") == 0)
        serve(argv + 2, argc - 2);
    else if (strcmp(verb, "sink") == 0)
        sink(argv[2]);
    else if (strcmp(verb, "connect") == 0 && argc == 5)
        connect_often(argv + 2);
    else if (strcmp(verb, "stream") == 0 && argc == 5)
        stream(argv + 2);
    else
        die("usage: bench_tcp serve PORT... | sink PORT | connect|stream ADDRESS PORT SECONDS");
    return 0;
}
