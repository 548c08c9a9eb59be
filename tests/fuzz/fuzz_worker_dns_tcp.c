/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What one client sends by TCP, in pieces: each piece is the byte that says its length (0: the
 * worker's turn) and that many bytes. Nothing hangs, nothing is kept after the connection. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/dns_tcp.h"

#define PATIENCE_MS 4000

static struct loop *loop;
static struct loop_timer *timer;
static struct dns_tcp *tcp;
static struct sockaddr_in address;

#define must(condition) ((condition) ? (void)0 : give_up(#condition))

static void give_up(const char *condition)
{
    fprintf(stderr, "not so: %s: %s\n", condition, strerror(errno));
    abort();
}

static void sync_nothing(void *userdata)
{
    (void)userdata;
}

static void turn_over(void *userdata)
{
    (void)userdata;
    loop_stop(loop);
}

static void turn(void)
{
    loop_timer_start(timer, 0);
    loop_run(loop);
}

/* The kernel may hand over what loopback carries a little later: on a busy machine in ksoftirqd. */
static void turn_until_count(uint32_t count)
{
    uint64_t deadline_ms = loop_now_ms(loop) + PATIENCE_MS;

    while (dns_tcp_count(tcp) != count) {
        must(loop_now_ms(loop) < deadline_ms);
        turn();
    }
}

static void listener_init(struct zone_network *network)
{
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct dns_tcp_listener *listener;

    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    must(fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, 16) == 0);
    must(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    listener = dns_tcp_listen(tcp, fd, network);
    must(listener != NULL);
    dns_tcp_set_accepting(listener, true);
}

static void worker_init(void)
{
    static struct dns_service service;
    struct zone_network config = {.id = 1};
    struct zone_network *network;
    struct error error = ERROR_INIT;

    must(loop_new(&loop, &error) == 0);
    timer = loop_timer_new(loop, turn_over, NULL);
    must(zone_new("moat.internal", 60, NULL, NULL, &service.zone) == 0);
    must(dns_name_parse("default", &config.label) == 0);
    must(ip_parse("127.0.0.1", &config.gateway) == 0);
    must(zone_network_set(service.zone, &config, &network) == 0);
    service.cache = dns_cache_new(1 << 16);
    service.upstreams = dns_upstreams_get(dns_upstream_pool_new(), NULL, 0);
    tcp = dns_tcp_new(&(struct dns_tcp_config){.loop = loop,
                                               .service = &service,
                                               .sync = sync_nothing,
                                               .max_connections = 16,
                                               .max_connections_per_asker = 8,
                                               .max_waiting = 8,
                                               .idle_ms = 10000});
    listener_init(network);
}

/* libFuzzer's SIGALRM interrupts a connect(), which goes on all the same (connect(2), EINTR). */
static void client_connect(int fd)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    int failure = 0;
    socklen_t length = sizeof(failure);

    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return;
    must(errno == EINTR);
    while (poll(&writable, 1, PATIENCE_MS) < 0)
        must(errno == EINTR);
    must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &length) == 0 && failure == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct linger reset = {.l_onoff = 1};
    static uint8_t answers[65536];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t at = 0;

    if (!loop)
        worker_init();
    must(fd >= 0);
    client_connect(fd);
    turn_until_count(1);
    while (at < size) {
        size_t length = data[at++];

        if (length > size - at)
            length = size - at;
        if (length > 0)
            send(fd, data + at, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            turn();
        at += length;
        while (recv(fd, answers, sizeof(answers), MSG_DONTWAIT) > 0)
            continue;
    }
    turn();
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset,
               sizeof(reset)); /* no TIME_WAIT: ports would run out */
    close(fd);
    turn_until_count(0);
    return 0;
}
