/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The DHCP worker: DHCPv4, DHCPv6 and router advertisements for guests on taps, and the neighbours
 * of those on routed ports.
 *
 * Each tap has a packet socket of its own, so it is beyond doubt who asks; answers go out on the
 * same one, past the bridge, and nobody else sees them. The kernel filters what is not meant
 * for us, other sources than the guest's MAC included (names/packet.c).
 *
 * A port has a budget of answers. When it is used up the socket is not read until there is some
 * again: a guest that floods fills its own socket's buffer, where the kernel drops the rest, and
 * costs others nothing. One turn of the loop reads a few frames of each port.
 *
 * Nothing is remembered of clients (dhcp4.h). The last close of a packet socket waits for an RCU
 * grace period, 20 ms: sockets of ports that are gone are closed one at a time, in between. */
#include <errno.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/dhcp4.h"
#include "worker/dhcp6.h"
#include "worker/dhcp_frame.h"
#include "worker/dhcp_message.h"
#include "worker/dhcp_nd.h"
#include "worker/dhcp_ra.h"
#include "worker/dns_table.h"
#include "worker/runtime.h"

#define FRAMES_PER_TURN 8
#define BUDGET_MAX 256   /* answers at once */
#define BUDGET_PER_S 512 /* answers that come back each second */
#define TICK_MS 50       /* while some port waits for its budget, or a socket to be closed */
#define SWEEP_MS 5000    /* how often unsolicited advertisements are looked after */
#define LOG_INTERVAL_MS 60000

static const struct ip router = {.family = AF_INET6, .bytes = {0xfe, 0x80, [15] = 1}};
static const struct ip all_nodes = {.family = AF_INET6, .bytes = {0xff, 0x02, [15] = 1}};
static const struct ip everybody = {.family = AF_INET, .bytes = {255, 255, 255, 255}};
static const struct mac broadcast = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
static const struct mac all_nodes_mac = {{0x33, 0x33, 0, 0, 0, 1}};

struct dhcp_worker;

struct served_port {
    struct dhcp_worker *worker;
    int64_t id;
    uint32_t interface;
    struct dhcp_port port;
    int fd;
    struct loop_io *io;
    uint32_t budget;
    uint64_t budget_ms; /* when it was last filled */
    bool paused;
    uint64_t advertise_ms; /* when the next unsolicited advertisement is due */
    uint64_t logged_ms;
};

struct closing {
    struct closing *next;
    int fd;
};

struct dhcp_worker {
    struct worker_runtime *runtime;
    struct loop *loop;
    struct loop_io *channel;
    struct loop_timer *tick_timer;
    struct loop_timer *sweep_timer;
    struct dns_table ports; /* of struct served_port, by id */
    struct closing *closing;
    bool draining;
};

static uint32_t id_hash(int64_t id)
{
    return (uint32_t)(((uint64_t)id * 0x9e3779b97f4a7c15u) >> 32);
}

static bool port_has_id(const void *item, const void *key)
{
    return ((const struct served_port *)item)->id == *(const int64_t *)key;
}

static struct served_port *port_find(const struct dhcp_worker *worker, int64_t id)
{
    return dns_table_find(&worker->ports, id_hash(id), port_has_id, &id);
}

/* --- budget --- */

static void budget_fill(struct served_port *port, uint64_t now_ms)
{
    uint64_t earned = (now_ms - port->budget_ms) * BUDGET_PER_S / 1000;

    if (earned == 0)
        return;
    port->budget_ms = now_ms;
    port->budget =
        earned > BUDGET_MAX - port->budget ? BUDGET_MAX : port->budget + (uint32_t)earned;
}

static void port_pause(struct served_port *port)
{
    port->paused = true;
    loop_io_set_events(port->io, 0);
    if (!loop_timer_is_active(port->worker->tick_timer))
        loop_timer_start(port->worker->tick_timer, TICK_MS);
}

/* --- sending --- */

static void frame_send(const struct served_port *port, const struct frame *frame)
{
    uint8_t buffer[FRAME_MAX];
    size_t length = frame_build(frame, buffer, sizeof(buffer));

    /* What a guest does not take is lost, as on any wire: it asks again. */
    if (length > 0)
        (void)send(port->fd, buffer, length, MSG_DONTWAIT);
}

static void advertise(struct served_port *port, const struct mac *mac, const struct ip *ip)
{
    uint8_t message[RA_MAX];
    struct frame frame = {
        .source_mac = port->port.server_mac,
        .destination_mac = *mac,
        .source = router,
        .destination = *ip,
        .protocol = IPPROTO_ICMPV6,
        .hop_limit = 255,
        .payload = message,
    };

    frame.length = ra_write(&port->port, message);
    frame_send(port, &frame);
}

/* --- answering --- */

/* At most once a minute for each port: a guest writes no log. */
static void decline_log(struct served_port *port, const struct ip *ip)
{
    uint64_t now_ms = loop_now_ms(port->worker->loop);
    char text[IP_TEXT_MAX];

    if (port->logged_ms && now_ms - port->logged_ms < LOG_INTERVAL_MS)
        return;
    port->logged_ms = now_ms;
    log_warning("guest %s says that its address %s is in use by another machine",
                port->port.host_name, ip_format(ip, text));
}

static bool is_for_server4(const struct served_port *port, const struct frame *frame)
{
    struct cidr subnet = {port->port.ip, port->port.prefix};
    struct ip last = cidr_last(&subnet);

    return ip_equal(&frame->destination, &everybody) ||
           ip_equal(&frame->destination, &port->port.gateway) ||
           ip_equal(&frame->destination, &last);
}

static void answer4(struct served_port *port, const struct frame *frame)
{
    struct dhcp4_request request;
    struct dhcp4_reply reply;
    struct frame answer = {
        .source_mac = port->port.server_mac,
        .source = port->port.gateway,
        .protocol = IPPROTO_UDP,
        .hop_limit = 64,
        .source_port = DHCP_SERVER_PORT,
        .destination_port = DHCP_CLIENT_PORT,
    };

    if (!ip_is_set(&port->port.ip) || !is_for_server4(port, frame) ||
        !dhcp4_request_parse(frame->payload, frame->length, &request))
        return;
    if (request.type == DHCP4_DECLINE)
        decline_log(port, &port->port.ip);
    if (!dhcp4_answer(&port->port, &request, &reply))
        return;
    answer.destination_mac = reply.broadcast ? broadcast : port->port.mac;
    answer.destination = reply.destination;
    answer.payload = reply.data;
    answer.length = reply.length;
    frame_send(port, &answer);
}

/* RFC 8415 section 16: to the servers' multicast address; a client that was never told that it may
 * send to one server alone must not. */
static void answer6(struct served_port *port, const struct frame *frame)
{
    static const struct ip servers = {AF_INET6, {0xff, 0x02, [13] = 1, [15] = 2}}; /* ff02::1:2 */
    struct dhcp6_request request;
    struct dhcp6_reply reply;
    struct frame answer = {
        .source_mac = port->port.server_mac,
        .destination_mac = port->port.mac,
        .source = router,
        .destination = frame->source,
        .protocol = IPPROTO_UDP,
        .hop_limit = 64,
        .source_port = DHCP6_SERVER_PORT,
        .destination_port = DHCP6_CLIENT_PORT,
    };

    if (!ip_equal(&frame->destination, &servers) || !ip_is_link_local(&frame->source) ||
        !dhcp6_request_parse(frame->payload, frame->length, &request))
        return;
    if (request.type == DHCP6_DECLINE)
        decline_log(port, &port->port.ip6);
    if (!dhcp6_answer(&port->port, &request, &reply))
        return;
    answer.payload = reply.data;
    answer.length = reply.length;
    frame_send(port, &answer);
}

static void answer_solicitation(struct served_port *port, const struct frame *frame)
{
    if (!ip_is_set(&port->port.ip6) || !ra_solicitation_is_valid(frame))
        return;
    if (ip_is_unspecified(&frame->source))
        advertise(port, &all_nodes_mac, &all_nodes);
    else
        advertise(port, &port->port.mac, &frame->source);
}

static void answer_neighbour(struct served_port *port, const struct frame *frame)
{
    uint8_t message[ND_ADVERTISEMENT_SIZE];
    struct ip target;
    const struct frame answer = {
        .source_mac = port->port.server_mac,
        .destination_mac = port->port.mac,
        .source = router,
        .destination = frame->source,
        .protocol = IPPROTO_ICMPV6,
        .hop_limit = 255,
        .payload = message,
        .length = sizeof(message),
    };

    if (!nd_solicitation_is_answered(&port->port, frame, &target))
        return;
    nd_write(&port->port, &target, message);
    frame_send(port, &answer);
}

static void frame_handle(struct served_port *port, const struct frame *frame)
{
    if (!mac_equal(&frame->source_mac, &port->port.mac))
        return;
    if (frame->protocol == IPPROTO_ICMPV6 && frame->payload[0] == ND_SOLICITATION)
        answer_neighbour(port, frame);
    else if (frame->protocol == IPPROTO_ICMPV6)
        answer_solicitation(port, frame);
    else if (frame->source.family == AF_INET && frame->destination_port == DHCP_SERVER_PORT)
        answer4(port, frame);
    else if (frame->source.family == AF_INET6 && frame->destination_port == DHCP6_SERVER_PORT)
        answer6(port, frame);
}

/* --- receiving --- */

/* A guest whose card computes checksums sends frames without: the kernel says so beside them. */
static bool checksum_is_pending(struct msghdr *message)
{
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item; item = CMSG_NXTHDR(message, item)) {
        struct tpacket_auxdata data;

        if (item->cmsg_level != SOL_PACKET || item->cmsg_type != PACKET_AUXDATA ||
            item->cmsg_len < CMSG_LEN(sizeof(data)))
            continue;
        memcpy(&data, CMSG_DATA(item), sizeof(data));
        return data.tp_status & TP_STATUS_CSUMNOTREADY;
    }
    return false;
}

/* False when there is nothing more. */
static bool frame_receive(struct served_port *port)
{
    uint8_t buffer[FRAME_MAX];
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct tpacket_auxdata)) + 64];
    struct iovec data = {buffer, sizeof(buffer)};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t length = recvmsg(port->fd, &message, MSG_DONTWAIT | MSG_TRUNC);
    struct frame frame;

    if (length < 0)
        return errno == EINTR || errno == ENETDOWN; /* the link was down for a moment */
    if ((size_t)length <= sizeof(buffer) &&
        frame_parse(buffer, (size_t)length, checksum_is_pending(&message), &frame))
        frame_handle(port, &frame);
    return true;
}

static void port_read(struct served_port *port)
{
    budget_fill(port, loop_now_ms(port->worker->loop));
    for (unsigned i = 0; i < FRAMES_PER_TURN; i++) {
        if (port->budget == 0) {
            port_pause(port);
            return;
        }
        if (!frame_receive(port))
            return;
        port->budget--;
    }
}

static void port_event(void *userdata, unsigned events)
{
    struct served_port *port = userdata;
    struct dhcp_worker *worker = port->worker;
    int64_t id = port->id;

    (void)events;
    worker_runtime_handle(worker->runtime); /* what moatd said before counts, */
    port = port_find(worker, id);           /* and may be that this port is gone */
    if (port && !worker->draining)
        port_read(port);
}

/* --- ports --- */

static void close_later(struct dhcp_worker *worker, int fd)
{
    struct closing *closing = malloc(sizeof(*closing));

    if (!closing) {
        close(fd);
        return;
    }
    *closing = (struct closing){.next = worker->closing, .fd = fd};
    worker->closing = closing;
    if (!loop_timer_is_active(worker->tick_timer))
        loop_timer_start(worker->tick_timer, TICK_MS);
}

static void close_one(struct dhcp_worker *worker)
{
    struct closing *closing = worker->closing;

    if (!closing)
        return;
    worker->closing = closing->next;
    close(closing->fd);
    free(closing);
}

static void port_free(struct served_port *port)
{
    loop_io_free(port->io);
    if (port->fd >= 0)
        close_later(port->worker, port->fd);
    free(port);
}

static uint64_t advertise_interval_ms(void)
{
    uint32_t chance = 0;

    if (getrandom(&chance, sizeof(chance), GRND_NONBLOCK) < 0)
        chance = 0;
    return UINT64_C(1000) * (RA_INTERVAL_MIN_S + chance % (RA_INTERVAL_MAX_S - RA_INTERVAL_MIN_S));
}

static void port_advertise(struct served_port *port, uint64_t now_ms)
{
    advertise(port, &all_nodes_mac, &all_nodes);
    port->advertise_ms = now_ms + advertise_interval_ms();
}

static struct served_port *port_new(struct dhcp_worker *worker, int64_t id)
{
    struct served_port *port = calloc(1, sizeof(*port));

    if (!port || dns_table_reserve(&worker->ports, 1) < 0) {
        free(port);
        return NULL;
    }
    port->worker = worker;
    port->id = id;
    port->fd = -1;
    port->budget = BUDGET_MAX;
    port->budget_ms = loop_now_ms(worker->loop);
    dns_table_add(&worker->ports, id_hash(id), port);
    return port;
}

static void port_set_socket(struct served_port *port, int fd)
{
    loop_io_free(port->io);
    if (port->fd >= 0)
        close_later(port->worker, port->fd);
    port->fd = fd;
    port->paused = false;
    port->io = loop_io_new(port->worker->loop, fd, LOOP_READ, port_event, port);
    if (!port->io)
        log_error("guest %s can't be served: out of memory", port->port.host_name);
}

/* An advertisement tells at once what is new; to a guest that is not up yet it is lost. */
static void port_take(struct dhcp_worker *worker, const struct dhcp_port_message *message, int *fds,
                      size_t n_fds)
{
    struct served_port *port = port_find(worker, message->id);

    if (!port)
        port = port_new(worker, message->id);
    if (!port) {
        log_error("guest %s can't be served: out of memory", message->port.host_name);
        return;
    }
    port->port = message->port;
    port->interface = message->interface;
    if (n_fds == 1)
        port_set_socket(port, TAKE_FD(fds[0]));
    if (ip_is_set(&port->port.ip6))
        port_advertise(port, loop_now_ms(worker->loop));
}

static void port_remove(struct dhcp_worker *worker, int64_t id)
{
    struct served_port *port = port_find(worker, id);

    if (!port)
        return;
    dns_table_remove(&worker->ports, id_hash(id), port);
    port_free(port);
}

typedef void (*port_fn)(struct served_port *port, void *userdata);

/* fn must not change the table. */
static void ports_each(struct dhcp_worker *worker, port_fn fn, void *userdata)
{
    for (uint32_t i = 0; worker->ports.slots && i <= worker->ports.mask; i++) {
        if (worker->ports.slots[i].item)
            fn(worker->ports.slots[i].item, userdata);
    }
}

/* --- the channel --- */

static void message_arrived(void *userdata, uint16_t type, const void *payload, size_t length,
                            int *fds, size_t n_fds)
{
    struct dhcp_worker *worker = userdata;

    if (type == DHCP_MESSAGE_PORT && length == sizeof(struct dhcp_port_message))
        port_take(worker, payload, fds, n_fds);
    else if (type == DHCP_MESSAGE_PORT_REMOVE && length == sizeof(struct dhcp_remove_message))
        port_remove(worker, ((const struct dhcp_remove_message *)payload)->id);
    else
        log_warning("ignored a message of type %u and %zu bytes", type, length);
}

static void port_hand_over(struct served_port *port, void *userdata)
{
    struct ip key = dhcp_socket_key(port->id, port->interface);
    struct worker_socket socket = {
        .protocol = IPPROTO_UDP, .family = key.family, .port = DHCP_SERVER_PORT};

    memcpy(socket.address, key.bytes, sizeof(socket.address));
    if (port->fd >= 0)
        worker_handover_add(userdata, &socket, port->fd);
}

static void sockets_wanted(void *userdata, struct worker_handover *handover)
{
    ports_each(userdata, port_hand_over, handover);
}

static void port_quiet(struct served_port *port, void *userdata)
{
    (void)userdata;
    loop_io_set_events(port->io, 0);
}

static void drain_wanted(void *userdata)
{
    struct dhcp_worker *worker = userdata;

    worker->draining = true;
    loop_timer_stop(worker->sweep_timer);
    ports_each(worker, port_quiet, NULL);
}

static bool serves(void *userdata)
{
    const struct dhcp_worker *worker = userdata;

    return !worker->draining && worker->ports.count > 0;
}

static const struct worker_kind_ops ops = {
    .message = message_arrived,
    .sockets = sockets_wanted,
    .drain = drain_wanted,
    .serves = serves,
};

static void channel_ready(void *userdata, unsigned events)
{
    struct dhcp_worker *worker = userdata;

    (void)events;
    worker_runtime_handle(worker->runtime);
    if (worker_runtime_is_done(worker->runtime))
        loop_stop(worker->loop);
}

/* --- timers --- */

static void port_resume(struct served_port *port, void *userdata)
{
    bool *waiting = userdata;

    if (!port->paused)
        return;
    budget_fill(port, loop_now_ms(port->worker->loop));
    if (port->budget == 0) {
        *waiting = true;
        return;
    }
    port->paused = false;
    loop_io_set_events(port->io, LOOP_READ);
}

static void tick(void *userdata)
{
    struct dhcp_worker *worker = userdata;
    bool waiting = false;

    close_one(worker);
    if (!worker->draining)
        ports_each(worker, port_resume, &waiting);
    if (waiting || worker->closing)
        loop_timer_start(worker->tick_timer, TICK_MS);
}

static void port_sweep(struct served_port *port, void *userdata)
{
    uint64_t now_ms = *(const uint64_t *)userdata;

    if (ip_is_set(&port->port.ip6) && now_ms >= port->advertise_ms)
        port_advertise(port, now_ms);
}

static void sweep(void *userdata)
{
    struct dhcp_worker *worker = userdata;
    uint64_t now_ms = loop_now_ms(worker->loop);

    ports_each(worker, port_sweep, &now_ms);
    loop_timer_start(worker->sweep_timer, SWEEP_MS);
    if (worker_runtime_is_done(worker->runtime))
        loop_stop(worker->loop);
}

/* --- the process --- */

static bool worker_init(struct dhcp_worker *worker)
{
    struct error error = ERROR_INIT;

    if (loop_new(&worker->loop, &error) < 0) {
        log_error("%s", error.text);
        return false;
    }
    worker->channel = loop_io_new(worker->loop, worker_runtime_fd(worker->runtime), LOOP_READ,
                                  channel_ready, worker);
    worker->tick_timer = loop_timer_new(worker->loop, tick, worker);
    worker->sweep_timer = loop_timer_new(worker->loop, sweep, worker);
    if (worker->channel && worker->tick_timer && worker->sweep_timer)
        return true;
    log_error("the DHCP worker can't start: out of memory");
    return false;
}

static void port_end(struct served_port *port, void *userdata)
{
    (void)userdata;
    loop_io_free(port->io);
    if (port->fd >= 0)
        close(port->fd);
    free(port);
}

static void worker_deinit(struct dhcp_worker *worker)
{
    ports_each(worker, port_end, NULL);
    free(worker->ports.slots);
    while (worker->closing)
        close_one(worker);
    loop_timer_free(worker->tick_timer);
    loop_timer_free(worker->sweep_timer);
    loop_io_free(worker->channel);
    loop_free(worker->loop);
}

int dhcp_worker_run(struct worker_runtime *runtime)
{
    struct dhcp_worker worker = {.runtime = runtime};
    bool started = worker_init(&worker);

    if (started) {
        worker_runtime_start(runtime, &ops, &worker);
        loop_timer_start(worker.sweep_timer, SWEEP_MS);
        loop_run(worker.loop);
    }
    worker_deinit(&worker);
    return started ? 0 : 1;
}
