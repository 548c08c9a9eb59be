/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The relay worker holds the sockets of all published ports, and carries what the kernel can't
 * translate: IPv6 clients, [::1] included, of an IPv4 guest. It accepts on the IPv6 sockets
 * (dual-stack ones too: an IPv4 client that was not translated is served the same) and connects to
 * the guest, byte for byte (relay_tcp.c, relay_udp.c). IPv4 sockets are only held.
 *
 * When moatd is gone it goes on. When a new one takes over, it closes what it listened on, and ends
 * with the last connection or UDP session; a UDP socket is kept as long as a session answers
 * through it, but no longer read. */
#include "worker/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define PORTS 65536
#define ACCEPT_PAUSE_MS 100

void relay_link_init(struct relay_link *link)
{
    link->previous = link->next = link;
}

void relay_link_append(struct relay_link *ring, struct relay_link *link)
{
    link->previous = ring->previous;
    link->next = ring;
    ring->previous->next = link;
    ring->previous = link;
}

void relay_link_remove(struct relay_link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    relay_link_init(link);
}

bool relay_ring_is_empty(const struct relay_link *ring)
{
    return ring->next == ring;
}

/* ---------------------------------------------------------------- sockets */

static struct relay_socket **sockets_of(struct relay *relay, uint8_t protocol)
{
    return protocol == IPPROTO_TCP ? relay->tcp : relay->udp;
}

static struct relay_socket *socket_find(struct relay *relay, const struct worker_socket *key)
{
    struct relay_socket *socket = sockets_of(relay, key->protocol)[key->port];

    while (socket && memcmp(&socket->key, key, sizeof(*key)) != 0)
        socket = socket->next;
    return socket;
}

static void socket_ready(void *userdata, unsigned events)
{
    struct relay_socket *socket = userdata;

    (void)events;
    if (socket->key.protocol == IPPROTO_TCP)
        relay_tcp_accept(socket);
    else
        relay_udp_receive(socket);
}

static bool socket_is_served(const struct relay_socket *socket)
{
    const struct relay *relay = socket->relay;

    return socket->fd >= 0 && socket->key.family == AF_INET6 && socket->has_target &&
           !relay->draining && !(relay->accept_paused && socket->key.protocol == IPPROTO_TCP);
}

/* Most sockets of a range are never used and cost no watcher's memory before they have a target. */
static void socket_watch(struct relay_socket *socket)
{
    bool served = socket_is_served(socket);

    if (served && !socket->io) {
        socket->io = loop_io_new(socket->relay->loop, socket->fd, 0, socket_ready, socket);
        if (!socket->io) {
            log_error("out of memory: port %u is not relayed", socket->key.port);
            return;
        }
    }
    if (socket->io)
        loop_io_set_events(socket->io, served ? LOOP_READ : 0u);
}

static void socket_close(struct relay_socket *socket)
{
    loop_io_free(socket->io);
    socket->io = NULL;
    if (socket->fd >= 0)
        close(socket->fd);
    socket->fd = -1;
}

static void socket_end_all(struct relay_socket *socket)
{
    if (socket->key.protocol == IPPROTO_TCP)
        relay_tcp_end_all(socket);
    else
        relay_udp_end_all(socket);
}

static void socket_free(struct relay_socket *socket)
{
    struct relay *relay = socket->relay;
    struct relay_socket **link = &sockets_of(relay, socket->key.protocol)[socket->key.port];

    while (*link != socket)
        link = &(*link)->next;
    *link = socket->next;
    relay->n_sockets--;
    socket_close(socket);
    free(socket);
}

void relay_socket_settle(struct relay_socket *socket)
{
    struct relay *relay = socket->relay;

    if (!relay->draining || socket->n_running)
        return;
    socket_free(socket);
    if (relay->n_flows + relay->n_sessions == 0)
        loop_stop(relay->loop); /* that was the last */
}

static void socket_release(struct relay_socket *socket)
{
    socket_end_all(socket);
    socket_free(socket);
}

static int socket_add(struct relay *relay, const struct worker_socket *key, int fd)
{
    struct relay_socket *socket = calloc(1, sizeof(*socket));
    struct relay_socket **first = &sockets_of(relay, key->protocol)[key->port];
    struct relay_socket *former = socket_find(relay, key);

    if (!socket)
        return -ENOMEM;
    if (former)
        socket_release(former);
    socket->relay = relay;
    socket->key = *key;
    socket->fd = fd;
    relay_link_init(&socket->running);
    socket->next = *first;
    *first = socket;
    relay->n_sockets++;
    return 0;
}

/* Calls fn for each socket; it may free the one that it is called for. */
static void sockets_each(struct relay *relay, void (*fn)(struct relay_socket *, void *),
                         void *userdata)
{
    struct relay_socket **tables[] = {relay->tcp, relay->udp};

    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (size_t port = 0; port < PORTS; port++) {
            struct relay_socket *socket = tables[i][port];

            while (socket) {
                struct relay_socket *next = socket->next;

                fn(socket, userdata);
                socket = next;
            }
        }
    }
}

/* ---------------------------------------------------------------- timers */

static void sweep_due(void *userdata)
{
    struct relay *relay = userdata;
    uint64_t now_ms = loop_now_ms(relay->loop);

    relay_tcp_sweep(relay, now_ms);
    relay_udp_sweep(relay, now_ms);
    if (relay->n_flows || relay->n_sessions)
        loop_timer_start(relay->sweep_timer, RELAY_SWEEP_INTERVAL_MS);
    if (worker_runtime_is_done(relay->runtime))
        loop_stop(relay->loop);
}

void relay_sweep_start(struct relay *relay)
{
    if (!loop_timer_is_active(relay->sweep_timer))
        loop_timer_start(relay->sweep_timer, RELAY_SWEEP_INTERVAL_MS);
}

static void socket_watch_again(struct relay_socket *socket, void *userdata)
{
    (void)userdata;
    if (socket->has_target)
        socket_watch(socket);
}

static void accept_resume(void *userdata)
{
    struct relay *relay = userdata;

    relay->accept_paused = false;
    sockets_each(relay, socket_watch_again, NULL);
}

void relay_accept_pause(struct relay *relay)
{
    if (relay->accept_paused)
        return;
    relay->accept_paused = true;
    sockets_each(relay, socket_watch_again, NULL);
    loop_timer_start(relay->accept_timer, ACCEPT_PAUSE_MS);
}

/* ---------------------------------------------------------------- messages */

static bool range_is_valid(const struct relay_range *range)
{
    return (range->first.protocol == IPPROTO_TCP || range->first.protocol == IPPROTO_UDP) &&
           range->count <= PORTS - (uint32_t)range->first.port;
}

static struct worker_socket range_key(const struct relay_range *range, uint32_t index)
{
    struct worker_socket key = range->first;

    key.port = (uint16_t)(key.port + index);
    return key;
}

static void sockets_received(struct relay *relay, const struct relay_range *range, int *fds,
                             size_t n_fds)
{
    for (uint32_t i = 0; i < range->count && i < n_fds; i++) {
        struct worker_socket key = range_key(range, i);

        if (socket_add(relay, &key, fds[i]) < 0)
            log_error("out of memory: port %u is not held", key.port);
        else
            fds[i] = -1;
    }
}

/* TCP connections that run go on to where they go; UDP clients would never notice that theirs is
 * gone. */
static void socket_set_target(struct relay_socket *socket, const struct ip *guest_ip,
                              uint16_t guest_port)
{
    struct sockaddr_storage target = {0};
    socklen_t length = ip_is_set(guest_ip) ? ip_to_sockaddr(guest_ip, guest_port, &target) : 0;
    bool changed = memcmp(&socket->target, &target, sizeof(target)) != 0;

    if (changed && socket->key.protocol == IPPROTO_UDP)
        relay_udp_end_all(socket);
    socket->target = target;
    socket->target_length = length;
    socket->has_target = true;
    if (length && socket->key.protocol == IPPROTO_UDP && socket->key.family == AF_INET6)
        relay_udp_socket_init(socket);
    socket_watch(socket);
}

static void target_received(struct relay *relay, const struct relay_target *target)
{
    for (uint32_t i = 0; i < target->range.count; i++) {
        struct worker_socket key = range_key(&target->range, i);
        struct relay_socket *socket = socket_find(relay, &key);

        if (socket)
            socket_set_target(socket, &target->guest_ip, (uint16_t)(target->guest_port + i));
    }
}

static void release_received(struct relay *relay, const struct relay_range *range)
{
    for (uint32_t i = 0; i < range->count; i++) {
        struct worker_socket key = range_key(range, i);
        struct relay_socket *socket = socket_find(relay, &key);

        if (socket)
            socket_release(socket);
    }
}

static void message_received(void *userdata, uint16_t type, const void *payload, size_t length,
                             int *fds, size_t n_fds)
{
    struct relay *relay = userdata;
    size_t expected =
        type == RELAY_TARGET ? sizeof(struct relay_target) : sizeof(struct relay_range);
    struct relay_target target = {0};

    if (type > RELAY_RELEASE || length != expected) {
        log_warning("ignored a message of type %u and length %zu", type, length);
        return;
    }
    memcpy(type == RELAY_TARGET ? (void *)&target : (void *)&target.range, payload, length);
    if (!range_is_valid(&target.range)) {
        log_warning("ignored a message of type %u: no such ports", type);
        return;
    }
    if (type == RELAY_SOCKETS)
        sockets_received(relay, &target.range, fds, n_fds);
    else if (type == RELAY_TARGET)
        target_received(relay, &target);
    else
        release_received(relay, &target.range);
}

static void socket_hand_over(struct relay_socket *socket, void *userdata)
{
    if (socket->fd >= 0)
        worker_handover_add(userdata, &socket->key, socket->fd);
}

static void takeover_asked(void *userdata, struct worker_handover *handover)
{
    sockets_each(userdata, socket_hand_over, handover);
}

static void socket_drain(struct relay_socket *socket, void *userdata)
{
    (void)userdata;
    if (socket->key.protocol == IPPROTO_TCP)
        socket_close(socket);
    else
        socket_watch(socket);
    relay_socket_settle(socket);
}

static void drain_asked(void *userdata)
{
    struct relay *relay = userdata;

    relay->draining = true;
    sockets_each(relay, socket_drain, NULL);
}

static bool is_serving(void *userdata)
{
    struct relay *relay = userdata;

    return relay->draining ? relay->n_flows + relay->n_sessions > 0 : relay->n_sockets > 0;
}

static const struct worker_kind_ops ops = {.message = message_received,
                                           .sockets = takeover_asked,
                                           .drain = drain_asked,
                                           .serves = is_serving};

/* ---------------------------------------------------------------- life */

static void runtime_ready(void *userdata, unsigned events)
{
    struct relay *relay = userdata;

    (void)events;
    worker_runtime_handle(relay->runtime);
    if (worker_runtime_is_done(relay->runtime))
        loop_stop(relay->loop);
}

static int parts_make(struct relay *relay, struct error *error)
{
    int code = loop_new(&relay->loop, error);

    if (code < 0)
        return code;
    relay->tcp = calloc(PORTS, sizeof(struct relay_socket *));
    relay->udp = calloc(PORTS, sizeof(struct relay_socket *));
    relay->scratch = malloc(RELAY_SCRATCH_SIZE);
    relay->sweep_timer = loop_timer_new(relay->loop, sweep_due, relay);
    relay->accept_timer = loop_timer_new(relay->loop, accept_resume, relay);
    relay->runtime_io = loop_io_new(relay->loop, worker_runtime_fd(relay->runtime), LOOP_READ,
                                    runtime_ready, relay);
    if (!relay->tcp || !relay->udp || !relay->scratch || !relay->sweep_timer ||
        !relay->accept_timer || !relay->runtime_io || relay_udp_new(&relay->udp_sessions) < 0)
        return error_set(error, ENOMEM, "cannot make the relay");
    return 0;
}

int relay_new(struct worker_runtime *runtime, struct relay **ret_relay, struct error *error)
{
    struct relay *relay = calloc(1, sizeof(*relay));
    int code;

    if (!relay)
        return error_set(error, ENOMEM, "cannot make the relay");
    relay->runtime = runtime;
    relay_link_init(&relay->flows);
    relay_link_init(&relay->sessions);
    code = parts_make(relay, error);
    if (code < 0) {
        relay_free(relay);
        return code;
    }
    worker_runtime_start(runtime, &ops, relay);
    *ret_relay = relay;
    return 0;
}

static void socket_release_each(struct relay_socket *socket, void *userdata)
{
    (void)userdata;
    socket_release(socket);
}

void relay_free(struct relay *relay)
{
    if (!relay)
        return;
    if (relay->tcp && relay->udp)
        sockets_each(relay, socket_release_each, NULL);
    relay_udp_free(relay->udp_sessions);
    loop_io_free(relay->runtime_io);
    loop_timer_free(relay->sweep_timer);
    loop_timer_free(relay->accept_timer);
    loop_free(relay->loop);
    free(relay->scratch);
    free(relay->tcp);
    free(relay->udp);
    free(relay);
}

int relay_worker_run(struct worker_runtime *runtime)
{
    struct error error = ERROR_INIT;
    struct relay *relay = NULL;

    if (relay_new(runtime, &relay, &error) < 0 || !relay) {
        log_error("%s", error.text);
        return 1;
    }
    loop_run(relay->loop);
    relay_free(relay);
    return 0;
}
