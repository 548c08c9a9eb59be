/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A socket is either watched by the loop or, while queries come faster than they are taken, polled:
 * once in every turn of the loop, unasked: where it is watched every query that comes costs the
 * kernel a wake-up, though nobody sleeps.
 *
 * While queries come one at a time each is taken by a call for one datagram, which costs the kernel
 * less than one for a batch; now and then a batch is asked for, to see whether more come at once.
 */
#include "worker/dns_udp.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/dns_cache.h"

#define BATCH 64
#define QUERY_MAX DNS_UDP_MAX /* longer ones are malformed: the rest is cut off by the kernel */
#define GROUP 16 /* queries worked on together: what they touch stays in the nearest cache */
#define BUSY 8   /* queries in a batch: the next one has come by then, so the loop is not asked */
#define ROUNDS_MAX 16 /* batches taken from one socket in one turn */
#define ALONE 8       /* batches of one query, one after the other: the next come so too */
#define SINGLES 15    /* queries then taken singly until a batch is asked for */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* A client that waits, in its socket's list. */
struct udp_client {
    struct dns_client client;
    struct dns_udp_socket *socket;
    struct udp_client *next;
    struct udp_client *prev;
    union address address;
    uint8_t question[];
};

struct dns_udp_socket {
    struct dns_udp *udp;
    struct zone_network *network;
    struct loop_io *io;
    struct loop_timer *poll; /* active: polled, else watched */
    struct udp_client *clients;
    int fd;
    bool receiving;
    uint8_t alone;   /* the last batches that were one query, up to ALONE */
    uint8_t singles; /* still to be taken before a batch is asked for */
};

struct dns_udp {
    struct loop *loop;
    struct dns_service *service;
    dns_sync_fn sync;
    void *userdata;
    struct dns_udp_socket *current; /* in its callback; NULL once it is closed */
    const union address *client_address;
    struct mmsghdr received[BATCH];
    struct mmsghdr sent[BATCH];
    struct iovec received_parts[BATCH];
    struct iovec sent_parts[BATCH];
    union address addresses[BATCH];
    struct dns_request requests[GROUP];
    uint8_t data[BATCH][QUERY_MAX];
};

/* --- clients that wait --- */

static socklen_t address_length(const union address *address)
{
    return address->any.sa_family == AF_INET6 ? sizeof(address->v6) : sizeof(address->v4);
}

static void client_free(struct udp_client *client)
{
    if (client->prev)
        client->prev->next = client->next;
    else
        client->socket->clients = client->next;
    if (client->next)
        client->next->prev = client->prev;
    free(client);
}

/* What the socket does not take now is lost, as with any datagram: the client asks again. */
static void client_reply(struct dns_client *waiting, const uint8_t *data, size_t length)
{
    struct udp_client *client = (struct udp_client *)waiting; /* its first member */

    if (length > 0)
        (void)!sendto(client->socket->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL,
                      &client->address.any, address_length(&client->address));
    client_free(client);
}

static struct dns_client *client_new(struct dns_request *request, size_t length)
{
    struct dns_udp_socket *socket = request->transport;
    struct udp_client *client = calloc(1, sizeof(*client) + length);

    if (!client)
        return NULL;
    client->socket = socket;
    client->address = *socket->udp->client_address;
    client->client.reply = client_reply;
    client->client.question = client->question;
    client->next = socket->clients;
    if (client->next)
        client->next->prev = client;
    socket->clients = client;
    return &client->client;
}

/* --- batches --- */

static struct ip address_read(const union address *address)
{
    struct ip ip = {.family = AF_INET};

    if (address->any.sa_family == AF_INET6) {
        ip.family = AF_INET6;
        memcpy(ip.bytes, &address->v6.sin6_addr, 16);
    } else {
        memcpy(ip.bytes, &address->v4.sin_addr, 4);
    }
    return ip;
}

static void query_read(struct dns_udp_socket *socket, unsigned at, struct dns_request *request,
                       uint64_t now_ms)
{
    struct dns_udp *udp = socket->udp;

    request->source = address_read(&udp->addresses[at]);
    request->network = socket->network;
    request->data = udp->data[at];
    request->length = udp->received[at].msg_len;
    request->now_ms = now_ms;
    request->transport = socket;
    dns_service_read(udp->service, request);
}

static void reply_put(struct dns_udp *udp, unsigned at, size_t length, unsigned *replies)
{
    struct msghdr *header = &udp->sent[*replies].msg_hdr;

    udp->sent_parts[*replies] = (struct iovec){.iov_base = udp->data[at], .iov_len = length};
    header->msg_name = &udp->addresses[at];
    header->msg_namelen = udp->received[at].msg_hdr.msg_namelen;
    ++*replies;
}

/* Three times over the group, so that the memory of one query comes while others are worked on. */
static void group_handle(struct dns_udp_socket *socket, unsigned first, unsigned count,
                         uint64_t now_ms, unsigned *replies)
{
    struct dns_udp *udp = socket->udp;

    for (unsigned i = 0; i < count; i++)
        query_read(socket, first + i, &udp->requests[i], now_ms);
    for (unsigned i = 0; i < count; i++)
        dns_service_prefetch(udp->service, &udp->requests[i]);
    for (unsigned i = 0; i < count; i++) {
        size_t length;

        udp->client_address = &udp->addresses[first + i];
        length = dns_service_answer(udp->service, &udp->requests[i]);
        if (length > 0)
            reply_put(udp, first + i, length, replies);
    }
}

/* Answers all that can be answered now; returns how many replies stand in udp->sent. */
static unsigned batch_handle(struct dns_udp_socket *socket, unsigned count)
{
    uint64_t now_ms = loop_now_ms(socket->udp->loop);
    unsigned replies = 0;

    for (unsigned first = 0; first < count; first += GROUP)
        group_handle(socket, first, count - first < GROUP ? count - first : GROUP, now_ms,
                     &replies);
    return replies;
}

/* What can't be sent is lost, as in a batch. */
static void single_send(const struct dns_udp_socket *socket)
{
    const struct msghdr *header = &socket->udp->sent[0].msg_hdr;
    ssize_t sent;

    do
        sent = sendto(socket->fd, header->msg_iov->iov_base, header->msg_iov->iov_len,
                      MSG_DONTWAIT | MSG_NOSIGNAL, header->msg_name, header->msg_namelen);
    while (sent < 0 && errno == EINTR);
}

/* A reply that can't be sent (no route to its client, say) does not hold up those behind it. */
static void batch_send(struct dns_udp_socket *socket, unsigned count)
{
    struct mmsghdr *messages = socket->udp->sent;
    unsigned done = 0;

    if (count == 1) {
        single_send(socket);
        return;
    }
    while (done < count) {
        int sent = sendmmsg(socket->fd, messages + done, count - done, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        done += sent > 0 ? (unsigned)sent : 1;
    }
}

static unsigned single_receive(struct dns_udp_socket *socket)
{
    struct dns_udp *udp = socket->udp;
    struct msghdr *header = &udp->received[0].msg_hdr;
    ssize_t length = recvfrom(socket->fd, udp->data[0], QUERY_MAX, MSG_DONTWAIT, header->msg_name,
                              &header->msg_namelen);

    socket->singles--;
    if (length < 0)
        return 0;
    udp->received[0].msg_len = (unsigned)length;
    return 1;
}

/* 0 when there was nothing. */
static unsigned batch_receive(struct dns_udp_socket *socket)
{
    int count;

    if (socket->singles > 0)
        return single_receive(socket);
    count = recvmmsg(socket->fd, socket->udp->received, BATCH, MSG_DONTWAIT, NULL);
    if (count != 1)
        socket->alone = 0;
    else if (socket->alone < ALONE)
        socket->alone++;
    if (socket->alone == ALONE)
        socket->singles = SINGLES;
    return count > 0 ? (unsigned)count : 0;
}

static void batch_reset(struct dns_udp *udp, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        udp->received[i].msg_hdr.msg_namelen = sizeof(udp->addresses[i]);
}

/* Takes what has come, in some batches; false: the socket is closed, or may not receive any more.
 * *ret_busy: there is probably more. */
static bool socket_work(struct dns_udp_socket *socket, bool *ret_busy)
{
    struct dns_udp *udp = socket->udp;
    unsigned count = BATCH;

    for (int round = 0; round < ROUNDS_MAX && count >= BUSY; round++) {
        count = batch_receive(socket);
        if (count == 0)
            break;
        udp->current = socket;
        udp->sync(udp->userdata);
        if (udp->current)
            batch_send(socket, batch_handle(socket, count));
        batch_reset(udp, count);
        if (!udp->current)
            return false;
    }
    *ret_busy = count >= BUSY;
    return socket->receiving;
}

static void socket_readable(void *userdata, unsigned events)
{
    struct dns_udp_socket *socket = userdata;
    bool busy;

    (void)events;
    if (!socket_work(socket, &busy) || !busy)
        return;
    loop_io_set_events(socket->io, 0);
    loop_timer_start(socket->poll, 0);
}

static void socket_poll(void *userdata)
{
    struct dns_udp_socket *socket = userdata;
    bool busy;

    if (!socket_work(socket, &busy))
        return;
    if (busy)
        loop_timer_start(socket->poll, 0);
    else
        loop_io_set_events(socket->io, LOOP_READ);
}

/* --- interface --- */

struct dns_udp *dns_udp_new(struct loop *loop, struct dns_service *service, dns_sync_fn sync,
                            void *userdata)
{
    struct dns_udp *udp = calloc(1, sizeof(*udp));

    if (!udp)
        return NULL;
    udp->loop = loop;
    udp->service = service;
    udp->sync = sync;
    udp->userdata = userdata;
    for (int i = 0; i < BATCH; i++) {
        udp->received_parts[i] = (struct iovec){.iov_base = udp->data[i], .iov_len = QUERY_MAX};
        udp->received[i].msg_hdr = (struct msghdr){.msg_name = &udp->addresses[i],
                                                   .msg_namelen = sizeof(udp->addresses[i]),
                                                   .msg_iov = &udp->received_parts[i],
                                                   .msg_iovlen = 1};
        udp->sent[i].msg_hdr = (struct msghdr){.msg_iov = &udp->sent_parts[i], .msg_iovlen = 1};
    }
    for (int i = 0; i < GROUP; i++)
        udp->requests[i] = (struct dns_request){.capacity = DNS_UDP_MAX, .client_new = client_new};
    return udp;
}

void dns_udp_free(struct dns_udp *udp)
{
    free(udp);
}

struct dns_udp_socket *dns_udp_open(struct dns_udp *udp, int fd, struct zone_network *network)
{
    struct dns_udp_socket *socket = calloc(1, sizeof(*socket));

    if (!socket)
        return NULL;
    socket->udp = udp;
    socket->network = network;
    socket->fd = fd;
    socket->io = loop_io_new(udp->loop, fd, 0, socket_readable, socket);
    socket->poll = loop_timer_new(udp->loop, socket_poll, socket);
    if (!socket->io || !socket->poll) {
        loop_io_free(socket->io);
        loop_timer_free(socket->poll);
        free(socket);
        return NULL;
    }
    return socket;
}

int dns_udp_fd(const struct dns_udp_socket *socket)
{
    return socket->fd;
}

void dns_udp_set_receiving(struct dns_udp_socket *socket, bool receiving)
{
    socket->receiving = receiving;
    loop_timer_stop(socket->poll);
    loop_io_set_events(socket->io, receiving ? LOOP_READ : 0u);
}

void dns_udp_close(struct dns_udp_socket *socket)
{
    if (!socket)
        return;
    if (socket->udp->current == socket)
        socket->udp->current = NULL;
    while (socket->clients) {
        dns_service_cancel(&socket->clients->client);
        client_free(socket->clients);
    }
    loop_timer_free(socket->poll);
    loop_io_free(socket->io);
    close(socket->fd);
    free(socket);
}
