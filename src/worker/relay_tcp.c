/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Relayed TCP connections ("flows").
 *
 *   connecting ── the guest accepts ──> open ── both sides have finished, or an error ──> gone
 *
 * Each side has two flags: `finished` (it sent its FIN) and `told` (it was sent the other's FIN,
 * after the last byte). So half-closed connections stay half-closed, both ways. Errors are carried
 * too: whatever breaks one side, a refused connect included, resets the other (SO_LINGER of 0 at
 * close).
 *
 * Bytes go from one socket to the other in the same call. Only what the other side does not take at
 * once is kept, at most RELAY_SCRATCH_SIZE for each direction, and nothing more is read before it
 * is gone: the senders feel the backpressure, and an idle connection costs no buffer. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "worker/relay.h"

#define ACCEPTS_PER_TURN 64
#define READS_PER_TURN 8
#define KEEPALIVE_IDLE_S 120
#define KEEPALIVE_INTERVAL_S 30
#define KEEPALIVE_PROBES 4

enum side { CLIENT, GUEST, SIDES };

struct flow;

struct flow_side {
    struct flow *flow;
    int fd;
    struct loop_io *io;
    bool finished;          /* its FIN came: nothing more to read */
    bool told;              /* the other side's FIN was passed to it */
    unsigned char *pending; /* on the way to this side; NULL when there is nothing */
    size_t pending_start;
    size_t pending_length;
};

struct flow {
    struct relay_link all;
    struct relay_link of_socket;
    struct relay_socket *socket;
    struct flow_side sides[SIDES];
    bool connecting;
    uint64_t active_ms;
};

static struct flow_side *side_other(struct flow_side *side)
{
    struct flow *flow = side->flow;

    return side == &flow->sides[CLIENT] ? &flow->sides[GUEST] : &flow->sides[CLIENT];
}

/* ---------------------------------------------------------------- end */

static void fd_reset(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static void side_deinit(struct flow_side *side)
{
    loop_io_free(side->io);
    if (side->fd >= 0)
        close(side->fd);
    free(side->pending);
}

static void flow_free(struct flow *flow)
{
    relay_link_remove(&flow->all);
    relay_link_remove(&flow->of_socket);
    flow->socket->n_running--;
    flow->socket->relay->n_flows--;
    side_deinit(&flow->sides[CLIENT]);
    side_deinit(&flow->sides[GUEST]);
    free(flow);
}

static void flow_abort(struct flow *flow)
{
    fd_reset(flow->sides[CLIENT].fd);
    fd_reset(flow->sides[GUEST].fd);
    flow_free(flow);
}

static void flow_abort_settle(struct flow *flow)
{
    struct relay_socket *socket = flow->socket;

    flow_abort(flow);
    relay_socket_settle(socket);
}

/* ---------------------------------------------------------------- bytes */

static void flow_touch(struct flow *flow)
{
    struct relay *relay = flow->socket->relay;

    flow->active_ms = loop_now_ms(relay->loop);
    relay_link_remove(&flow->all);
    relay_link_append(&relay->flows, &flow->all);
    relay_link_remove(&flow->of_socket);
    relay_link_append(&flow->socket->running, &flow->of_socket);
}

static unsigned side_events(struct flow_side *side)
{
    const struct flow_side *other = side_other(side);

    if (side->flow->connecting)
        return side == &side->flow->sides[GUEST] ? LOOP_WRITE : 0;
    return (!side->finished && !other->pending ? LOOP_READ : 0u) |
           (side->pending ? LOOP_WRITE : 0u);
}

static void flow_watch(struct flow *flow)
{
    for (int i = 0; i < SIDES; i++)
        loop_io_set_events(flow->sides[i].io, side_events(&flow->sides[i]));
}

/* Passes the FIN of the other side on once its last byte is out. 0 or a negative errno. */
static int side_tell(struct flow_side *side)
{
    if (!side_other(side)->finished || side->pending || side->told)
        return 0;
    side->told = true;
    return shutdown(side->fd, SHUT_WR) < 0 ? -errno : 0;
}

static int side_keep(struct flow_side *side, const unsigned char *bytes, size_t length)
{
    side->pending = malloc(length);
    if (!side->pending)
        return -ENOMEM;
    memcpy(side->pending, bytes, length);
    side->pending_start = 0;
    side->pending_length = length;
    return 0;
}

/* Sends what is pending. 0 when it is gone or the socket is full. */
static int side_flush(struct flow_side *side)
{
    ssize_t sent;

    if (!side->pending)
        return 0;
    sent = send(side->fd, side->pending + side->pending_start, side->pending_length, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    side->pending_start += (size_t)sent;
    side->pending_length -= (size_t)sent;
    if (side->pending_length)
        return 0;
    free(side->pending);
    side->pending = NULL;
    return side_tell(side);
}

static int side_write(struct flow_side *side, const unsigned char *bytes, size_t length)
{
    ssize_t sent = send(side->fd, bytes, length, MSG_NOSIGNAL);

    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    if (sent < 0)
        sent = 0;
    return (size_t)sent == length ? 0 : side_keep(side, bytes + sent, length - (size_t)sent);
}

/* Carries what one side has to the other. 0 or a negative errno that ends the flow. */
static int side_carry(struct flow_side *from)
{
    struct flow_side *to = side_other(from);
    unsigned char *scratch = from->flow->socket->relay->scratch;

    for (int i = 0; i < READS_PER_TURN && !from->finished && !to->pending; i++) {
        ssize_t length = recv(from->fd, scratch, RELAY_SCRATCH_SIZE, 0);
        int code;

        if (length < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (length == 0) {
            from->finished = true;
            return side_tell(to);
        }
        code = side_write(to, scratch, (size_t)length);
        if (code < 0)
            return code;
    }
    return 0;
}

static bool flow_is_complete(const struct flow *flow)
{
    return flow->sides[CLIENT].told && flow->sides[GUEST].told;
}

/* ---------------------------------------------------------------- connect */

static int connect_finish(struct flow *flow)
{
    int failure = 0;
    socklen_t length = sizeof(failure);

    if (getsockopt(flow->sides[GUEST].fd, SOL_SOCKET, SO_ERROR, &failure, &length) < 0)
        return -errno;
    flow->connecting = false;
    return -failure;
}

static void side_ready(void *userdata, unsigned events)
{
    struct flow_side *side = userdata;
    struct flow *flow = side->flow;
    struct relay_socket *socket = flow->socket;
    int code = 0;

    flow_touch(flow);
    if (flow->connecting) {
        code = connect_finish(flow);
    } else {
        if (events & LOOP_WRITE)
            code = side_flush(side);
        if (code == 0 && (events & LOOP_READ))
            code = side_carry(side);
    }
    if (code < 0)
        flow_abort(flow);
    else if (flow_is_complete(flow))
        flow_free(flow);
    else {
        flow_watch(flow);
        return;
    }
    relay_socket_settle(socket);
}

static void option_set(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof(value));
}

/* SO_REUSEADDR on what was accepted: its TIME_WAIT remnant must not keep the port from being bound
 * again. */
static void fd_init(int fd)
{
    option_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    option_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    option_set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    option_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    option_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    option_set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

static int side_init(struct flow *flow, enum side which, int fd)
{
    struct flow_side *side = &flow->sides[which];

    side->flow = flow;
    side->fd = fd;
    side->io = loop_io_new(flow->socket->relay->loop, fd, 0, side_ready, side);
    fd_init(fd);
    return side->io ? 0 : -ENOMEM;
}

/* Takes client_fd over, on failure too. */
static void flow_start(struct relay_socket *socket_, int client_fd)
{
    int guest_fd = socket(socket_->target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct flow *flow = guest_fd < 0 ? NULL : calloc(1, sizeof(*flow));
    int code;

    if (!flow) {
        fd_reset(client_fd);
        close(client_fd);
        if (guest_fd >= 0)
            close(guest_fd);
        return;
    }
    flow->socket = socket_;
    flow->connecting = true;
    relay_link_append(&socket_->relay->flows, &flow->all);
    relay_link_append(&socket_->running, &flow->of_socket);
    socket_->n_running++;
    socket_->relay->n_flows++;
    flow->active_ms = loop_now_ms(socket_->relay->loop);
    code = side_init(flow, CLIENT, client_fd);
    if (side_init(flow, GUEST, guest_fd) < 0 || code < 0 ||
        (connect(guest_fd, (const struct sockaddr *)&socket_->target, socket_->target_length) < 0 &&
         errno != EINPROGRESS)) {
        flow_abort(flow);
        return;
    }
    flow_watch(flow);
    relay_sweep_start(socket_->relay);
}

/* ---------------------------------------------------------------- limits */

/* Makes room by ending the connection that is idle longest, if it is idle for long. */
static bool flow_shed(struct relay *relay, struct flow *oldest, uint64_t idle_ms)
{
    struct relay_socket *socket = oldest->socket;

    if (loop_now_ms(relay->loop) - oldest->active_ms < idle_ms)
        return false;
    log_debug("too many connections: the one that was idle longest on port %u ends",
              socket->key.port);
    flow_abort(oldest);
    return true;
}

static bool flow_has_room(struct relay_socket *socket)
{
    struct relay *relay = socket->relay;

    if (socket->n_running >= RELAY_FLOWS_PER_PORT_MAX &&
        !flow_shed(relay, RELAY_CONTAINER(socket->running.next, struct flow, of_socket),
                   RELAY_SHED_IDLE_MS))
        return false;
    return relay->n_flows < RELAY_FLOWS_MAX ||
           flow_shed(relay, RELAY_CONTAINER(relay->flows.next, struct flow, all),
                     RELAY_SHED_IDLE_MS);
}

static bool accept_is_short(int code)
{
    return code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM;
}

void relay_tcp_accept(struct relay_socket *socket)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(socket->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0 && accept_is_short(errno)) {
            log_warning("cannot accept on port %u: %s", socket->key.port, strerror(errno));
            relay_accept_pause(socket->relay);
            return;
        }
        /* Errors of one connection that is gone already are not ours (accept(2)). */
        if (fd < 0 && errno != EAGAIN)
            continue;
        if (fd < 0)
            return;
        if (socket->target_length && flow_has_room(socket)) {
            flow_start(socket, fd);
        } else {
            fd_reset(fd);
            close(fd);
        }
    }
}

void relay_tcp_end_all(struct relay_socket *socket)
{
    while (!relay_ring_is_empty(&socket->running))
        flow_abort(RELAY_CONTAINER(socket->running.next, struct flow, of_socket));
}

static bool flow_is_overdue(const struct flow *flow, uint64_t now_ms)
{
    uint64_t idle_ms = now_ms - flow->active_ms;

    if (flow->connecting)
        return idle_ms >= RELAY_CONNECT_TIMEOUT_MS;
    return (flow->sides[CLIENT].finished || flow->sides[GUEST].finished) &&
           idle_ms >= RELAY_HALF_CLOSED_IDLE_MS;
}

/* Oldest first, until one is younger than the shortest bound. */
void relay_tcp_sweep(struct relay *relay, uint64_t now_ms)
{
    struct relay_link *link = relay->flows.next;

    while (link != &relay->flows) {
        struct flow *flow = RELAY_CONTAINER(link, struct flow, all);

        link = link->next;
        if (now_ms - flow->active_ms < RELAY_CONNECT_TIMEOUT_MS)
            return;
        if (flow_is_overdue(flow, now_ms))
            flow_abort_settle(flow);
    }
}
