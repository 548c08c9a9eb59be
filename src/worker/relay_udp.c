/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Relayed UDP. A session is a client's address and port together with the host's address that it
 * asked; it has a socket of its own towards the guest, so that the guest's answers find their way
 * back, and they leave from the address that was asked (IPV6_PKTINFO, RFC 3542 section 6.2). It
 * ends after RELAY_SESSION_IDLE_MS without a datagram in either direction. Datagrams that a full
 * socket does not take are lost, as UDP's are. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "worker/relay.h"

#define DATAGRAMS_PER_TURN 64
#define BUCKETS 4096

/* Compared and hashed as bytes: no padding, all set. */
struct session_key {
    struct in6_addr client;
    struct in6_addr host; /* what the client sent to */
    uint32_t scope;       /* of a link-local client */
    uint16_t port;        /* of the client, network order */
    uint16_t host_port;
};

struct session {
    struct relay_link all;
    struct relay_link of_socket;
    struct session *next; /* in the bucket */
    struct relay_socket *socket;
    struct session_key key;
    int fd; /* connected to the guest */
    struct loop_io *io;
    uint64_t active_ms;
};

struct relay_udp {
    uint64_t seed; /* clients choose their addresses: they must not know the buckets */
    struct session *buckets[BUCKETS];
};

union packet_info {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

int relay_udp_new(struct relay_udp **ret_udp)
{
    struct relay_udp *udp = calloc(1, sizeof(*udp));

    if (!udp)
        return -ENOMEM;
    if (getrandom(&udp->seed, sizeof(udp->seed), 0) != sizeof(udp->seed)) {
        free(udp);
        return -EIO;
    }
    *ret_udp = udp;
    return 0;
}

void relay_udp_free(struct relay_udp *udp)
{
    free(udp);
}

void relay_udp_socket_init(const struct relay_socket *socket)
{
    int on = 1;

    if (setsockopt(socket->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on)) < 0)
        log_warning("UDP port %u: cannot learn the address that clients ask: %s", socket->key.port,
                    strerror(errno));
}

/* ---------------------------------------------------------------- sessions */

static struct session **bucket_of(struct relay_udp *udp, const struct session_key *key)
{
    uint64_t words[5];
    uint64_t hash = udp->seed;

    _Static_assert(sizeof(words) == sizeof(*key), "the key is hashed as words");
    memcpy(words, key, sizeof(words));
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return &udp->buckets[(hash ^ udp->seed >> 17) % BUCKETS];
}

static struct session *session_find(struct relay *relay, const struct session_key *key)
{
    struct session *session = *bucket_of(relay->udp_sessions, key);

    while (session && memcmp(&session->key, key, sizeof(*key)) != 0)
        session = session->next;
    return session;
}

static void session_free(struct session *session)
{
    struct relay *relay = session->socket->relay;
    struct session **link = bucket_of(relay->udp_sessions, &session->key);

    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    relay_link_remove(&session->all);
    relay_link_remove(&session->of_socket);
    session->socket->n_running--;
    relay->n_sessions--;
    loop_io_free(session->io);
    close(session->fd);
    free(session);
}

static void session_touch(struct session *session)
{
    struct relay *relay = session->socket->relay;

    session->active_ms = loop_now_ms(relay->loop);
    relay_link_remove(&session->all);
    relay_link_append(&relay->sessions, &session->all);
    relay_link_remove(&session->of_socket);
    relay_link_append(&session->socket->running, &session->of_socket);
}

/* Link-local addresses mean nothing without their link; elsewhere the routing decides. */
static void packet_info_set(struct msghdr *message, union packet_info *control,
                            const struct session *session)
{
    struct in6_pktinfo info = {.ipi6_addr = session->key.host};
    struct cmsghdr *cmsg;

    if (IN6_IS_ADDR_LINKLOCAL(&session->key.host))
        info.ipi6_ifindex = session->key.scope;
    memset(control, 0, sizeof(*control));
    message->msg_control = control->bytes;
    message->msg_controllen = sizeof(control->bytes);
    cmsg = CMSG_FIRSTHDR(message);
    cmsg->cmsg_level = IPPROTO_IPV6;
    cmsg->cmsg_type = IPV6_PKTINFO;
    cmsg->cmsg_len = CMSG_LEN(sizeof(info));
    memcpy(CMSG_DATA(cmsg), &info, sizeof(info));
}

static void session_answer(const struct session *session, void *bytes, size_t length)
{
    struct sockaddr_in6 client = {.sin6_family = AF_INET6,
                                  .sin6_addr = session->key.client,
                                  .sin6_port = session->key.port,
                                  .sin6_scope_id = session->key.scope};
    struct iovec part = {.iov_base = bytes, .iov_len = length};
    struct msghdr message = {
        .msg_name = &client, .msg_namelen = sizeof(client), .msg_iov = &part, .msg_iovlen = 1};
    union packet_info control;

    packet_info_set(&message, &control, session);
    if (sendmsg(session->socket->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_debug("UDP port %u: an answer is lost: %s", session->socket->key.port, strerror(errno));
}

/* The guest has answered. */
static void session_ready(void *userdata, unsigned events)
{
    struct session *session = userdata;
    unsigned char *scratch = session->socket->relay->scratch;

    (void)events;
    for (int i = 0; i < DATAGRAMS_PER_TURN; i++) {
        ssize_t length = recv(session->fd, scratch, RELAY_SCRATCH_SIZE, MSG_DONTWAIT);

        /* ECONNREFUSED: nobody listens in the guest at the moment. */
        if (length < 0 && errno == ECONNREFUSED)
            continue;
        if (length < 0)
            return;
        session_answer(session, scratch, (size_t)length);
        session_touch(session);
    }
}

/* Makes room by ending the session that is idle longest: of this socket, or of all. */
static void sessions_make_room(struct relay_socket *socket)
{
    struct relay *relay = socket->relay;
    struct session *oldest;

    if (socket->n_running >= RELAY_SESSIONS_PER_PORT_MAX)
        session_free(RELAY_CONTAINER(socket->running.next, struct session, of_socket));
    if (relay->n_sessions < RELAY_SESSIONS_MAX)
        return;
    oldest = RELAY_CONTAINER(relay->sessions.next, struct session, all);
    session_free(oldest);
}

static int guest_connect(const struct relay_socket *socket_)
{
    _cleanup_close_ int fd =
        socket(socket_->target.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 ||
        connect(fd, (const struct sockaddr *)&socket_->target, socket_->target_length) < 0)
        return -errno;
    return TAKE_FD(fd);
}

static struct session *session_new(struct relay_socket *socket, const struct session_key *key)
{
    struct relay *relay = socket->relay;
    struct session **bucket = bucket_of(relay->udp_sessions, key);
    struct session *session;
    int fd;

    sessions_make_room(socket);
    session = calloc(1, sizeof(*session));
    fd = session ? guest_connect(socket) : -1;
    if (fd >= 0)
        session->io = loop_io_new(relay->loop, fd, LOOP_READ, session_ready, session);
    if (fd < 0 || !session->io) {
        if (fd >= 0)
            close(fd);
        free(session);
        return NULL;
    }
    session->socket = socket;
    session->key = *key;
    session->fd = fd;
    session->next = *bucket;
    *bucket = session;
    relay_link_append(&relay->sessions, &session->all);
    relay_link_append(&socket->running, &session->of_socket);
    socket->n_running++;
    relay->n_sessions++;
    relay_sweep_start(relay);
    return session;
}

/* ---------------------------------------------------------------- clients */

static bool packet_info_get(struct msghdr *message, struct in6_pktinfo *ret_info)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg; cmsg = CMSG_NXTHDR(message, cmsg)) {
        if (cmsg->cmsg_level == IPPROTO_IPV6 && cmsg->cmsg_type == IPV6_PKTINFO) {
            memcpy(ret_info, CMSG_DATA(cmsg), sizeof(*ret_info));
            return true;
        }
    }
    return false;
}

/* What goes to many is not for a guest, and could not be answered from. */
static bool address_is_one_host(const struct in6_addr *address)
{
    if (IN6_IS_ADDR_V4MAPPED(address)) {
        uint32_t ipv4 = ntohl(address->s6_addr32[3]);

        return !IN_MULTICAST(ipv4) && ipv4 != INADDR_BROADCAST && ipv4 != INADDR_ANY;
    }
    return !IN6_IS_ADDR_MULTICAST(address) && !IN6_IS_ADDR_UNSPECIFIED(address);
}

/* Port 0 can't be answered to. */
static bool key_make(const struct relay_socket *socket, const struct sockaddr_in6 *client,
                     const struct in6_pktinfo *info, struct session_key *ret_key)
{
    if (client->sin6_family != AF_INET6 || !client->sin6_port ||
        !address_is_one_host(&info->ipi6_addr))
        return false;
    *ret_key = (struct session_key){.client = client->sin6_addr,
                                    .host = info->ipi6_addr,
                                    .port = client->sin6_port,
                                    .host_port = socket->key.port};
    /* The scope id is set for link-local clients only; a link-local host address has the link it
     * came by. */
    ret_key->scope = client->sin6_scope_id;
    if (!ret_key->scope && IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr))
        ret_key->scope = info->ipi6_ifindex;
    return true;
}

static void datagram_carry(struct relay_socket *socket, const struct session_key *key,
                           const void *bytes, size_t length)
{
    struct session *session = session_find(socket->relay, key);

    if (session && session->socket != socket) {
        session_free(session);
        session = NULL;
    }
    if (!session)
        session = session_new(socket, key);
    if (!session)
        return;
    session_touch(session);
    /* The first send after a refusal reports that instead of sending (udp(7)). */
    for (int i = 0; i < 2; i++) {
        if (send(session->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 ||
            errno != ECONNREFUSED)
            return;
    }
}

/* Returns false when there is nothing more. */
static bool datagram_receive(struct relay_socket *socket)
{
    unsigned char *scratch = socket->relay->scratch;
    struct sockaddr_in6 client = {0};
    struct iovec part = {.iov_base = scratch, .iov_len = RELAY_SCRATCH_SIZE};
    union packet_info control;
    struct msghdr message = {.msg_name = &client,
                             .msg_namelen = sizeof(client),
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct session_key key;
    struct in6_pktinfo info;
    ssize_t length = recvmsg(socket->fd, &message, MSG_DONTWAIT);

    if (length < 0)
        return errno == EINTR;
    if (socket->target_length && packet_info_get(&message, &info) &&
        key_make(socket, &client, &info, &key))
        datagram_carry(socket, &key, scratch, (size_t)length);
    return true;
}

void relay_udp_receive(struct relay_socket *socket)
{
    for (int i = 0; i < DATAGRAMS_PER_TURN; i++) {
        if (!datagram_receive(socket))
            return;
    }
}

void relay_udp_end_all(struct relay_socket *socket)
{
    while (!relay_ring_is_empty(&socket->running))
        session_free(RELAY_CONTAINER(socket->running.next, struct session, of_socket));
}

void relay_udp_sweep(struct relay *relay, uint64_t now_ms)
{
    while (!relay_ring_is_empty(&relay->sessions)) {
        struct session *session = RELAY_CONTAINER(relay->sessions.next, struct session, all);
        struct relay_socket *socket = session->socket;

        if (now_ms - session->active_ms < RELAY_SESSION_IDLE_MS)
            return;
        session_free(session);
        relay_socket_settle(socket);
    }
}
