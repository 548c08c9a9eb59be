/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection holds memory only while half a query has come or replies have not gone out. It stops
 * reading while too many of its queries wait or too much of its output is unsent, so a client that
 * does not read gets no further, and it is closed when for a while neither a whole query has come
 * nor any of a reply gone. Bytes that trickle in don't count.
 *
 * Connections stand in two lists, the oldest activity first: the transport's, for the time-out, and
 * their asker's, for its bound. One that is found broken while it is being worked on is marked, and
 * freed by who works on it. */
#include "worker/dns_tcp.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ACCEPTS_MAX 16                            /* in one turn */
#define ACCEPT_PAUSE_MS 100                       /* when descriptors or memory are short */
#define INPUT_MAX (2ul * (DNS_TCP_QUERY_MAX + 2)) /* bytes that are looked at together */
#define UNSENT_MAX 65536                          /* bytes; beyond, nothing more is read */

struct tcp_client {
    struct dns_client client;
    struct dns_connection *connection;
    struct tcp_client *next;
    struct tcp_client *prev;
    uint8_t question[];
};

struct links {
    struct dns_connection *newer;
    struct dns_connection *older;
};

struct dns_connection {
    struct dns_tcp *tcp;
    struct dns_tcp_listener *listener;
    struct dns_quota *quota;
    struct loop_io *io;
    struct links all;
    struct links asker;
    struct tcp_client *clients;
    uint64_t active_ms;
    uint32_t n_waiting;
    int fd;
    bool busy;  /* being worked on: not to be freed */
    bool ended; /* to be freed by who works on it */
    bool eof;   /* the client sends no more */
    struct ip source;
    uint8_t *input; /* the beginning of a query, or whole ones that there was no room to answer */
    size_t input_length;
    uint8_t *output; /* unsent: from output_start */
    size_t output_start;
    size_t output_length;
    size_t output_size;
};

struct dns_tcp_listener {
    struct dns_tcp *tcp;
    struct dns_tcp_listener *next;
    struct zone_network *network;
    struct loop_io *io;
    int fd;
    bool accepting;
};

struct dns_tcp {
    struct dns_tcp_config config;
    struct dns_tcp_listener *listeners;
    struct dns_connection *oldest;
    struct dns_connection *newest;
    struct loop_timer *idle_timer;
    struct loop_timer *pause_timer;
    uint32_t count;
    bool paused;
    bool draining;
    uint8_t input[INPUT_MAX];
    uint8_t work[DNS_MESSAGE_MAX]; /* a query, then its reply */
};

/* --- lists --- */

static void all_append(struct dns_connection *connection)
{
    struct dns_tcp *tcp = connection->tcp;

    connection->all = (struct links){.older = tcp->newest};
    if (tcp->newest)
        tcp->newest->all.newer = connection;
    else
        tcp->oldest = connection;
    tcp->newest = connection;
}

static void all_remove(struct dns_connection *connection)
{
    struct links *links = &connection->all;

    if (links->older)
        links->older->all.newer = links->newer;
    else
        connection->tcp->oldest = links->newer;
    if (links->newer)
        links->newer->all.older = links->older;
    else
        connection->tcp->newest = links->older;
}

static void asker_append(struct dns_connection *connection)
{
    struct dns_quota *quota = connection->quota;

    connection->asker = (struct links){.older = quota->last};
    if (quota->last)
        quota->last->asker.newer = connection;
    else
        quota->first = connection;
    quota->last = connection;
    quota->n_connections++;
}

static void asker_remove(struct dns_connection *connection)
{
    struct dns_quota *quota = connection->quota;
    struct links *links = &connection->asker;

    if (links->older)
        links->older->asker.newer = links->newer;
    else
        quota->first = links->newer;
    if (links->newer)
        links->newer->asker.older = links->older;
    else
        quota->last = links->older;
    quota->n_connections--;
}

static void connection_touch(struct dns_connection *connection)
{
    connection->active_ms = loop_now_ms(connection->tcp->config.loop);
    all_remove(connection);
    all_append(connection);
    asker_remove(connection);
    asker_append(connection);
}

/* --- the end of a connection --- */

static void client_free(struct tcp_client *client)
{
    struct dns_connection *connection = client->connection;

    if (client->prev)
        client->prev->next = client->next;
    else
        connection->clients = client->next;
    if (client->next)
        client->next->prev = client->prev;
    connection->n_waiting--;
    free(client);
}

/* Nothing of it is left for others; its memory is freed unless somebody works on it. */
static void connection_end(struct dns_connection *connection)
{
    if (!connection->ended) {
        connection->ended = true;
        while (connection->clients) {
            dns_service_cancel(&connection->clients->client);
            client_free(connection->clients);
        }
        all_remove(connection);
        asker_remove(connection);
        connection->tcp->count--;
        loop_io_free(connection->io);
        close(connection->fd);
    }
    if (connection->busy)
        return;
    free(connection->input);
    free(connection->output);
    free(connection);
}

/* --- output --- */

static size_t output_unsent(const struct dns_connection *connection)
{
    return connection->output_length - connection->output_start;
}

/* Makes room for `length` more bytes behind what is unsent. */
static bool output_reserve(struct dns_connection *connection, size_t length)
{
    size_t unsent = output_unsent(connection);
    uint8_t *grown;

    if (connection->output_start > 0) {
        memmove(connection->output, connection->output + connection->output_start, unsent);
        connection->output_start = 0;
        connection->output_length = unsent;
    }
    if (unsent + length <= connection->output_size)
        return true;
    grown = realloc(connection->output, unsent + length);
    if (!grown)
        return false;
    connection->output = grown;
    connection->output_size = unsent + length;
    return true;
}

static bool output_append(struct dns_connection *connection, const uint8_t *data, size_t length)
{
    if (!output_reserve(connection, length + 2))
        return false;
    dns_write_u16(connection->output + connection->output_length, (uint16_t)length);
    memcpy(connection->output + connection->output_length + 2, data, length);
    connection->output_length += length + 2;
    return true;
}

static void output_release(struct dns_connection *connection)
{
    free(connection->output);
    connection->output = NULL;
    connection->output_size = 0;
    connection->output_start = 0;
    connection->output_length = 0;
}

/* False: the connection is broken. */
static bool output_flush(struct dns_connection *connection)
{
    size_t unsent = output_unsent(connection);

    while (output_unsent(connection) > 0) {
        ssize_t sent = send(connection->fd, connection->output + connection->output_start,
                            output_unsent(connection), MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < 0)
            break;
        connection->output_start += (size_t)sent;
    }
    if (output_unsent(connection) < unsent)
        connection_touch(connection);
    if (output_unsent(connection) == 0)
        output_release(connection);
    return true;
}

/* --- queries --- */

static void connection_settle(struct dns_connection *connection);

static void client_reply(struct dns_client *waiting, const uint8_t *data, size_t length)
{
    struct tcp_client *client = (struct tcp_client *)waiting; /* its first member */
    struct dns_connection *connection = client->connection;
    bool appended = length == 0 || output_append(connection, data, length);

    client_free(client);
    if (!appended)
        connection_end(connection);
    if (appended && !connection->busy)
        connection_settle(connection);
}

static struct dns_client *client_new(struct dns_request *request, size_t length)
{
    struct dns_connection *connection = request->transport;
    struct tcp_client *client = calloc(1, sizeof(*client) + length);

    if (!client)
        return NULL;
    client->connection = connection;
    client->client.reply = client_reply;
    client->client.question = client->question;
    client->next = connection->clients;
    if (client->next)
        client->next->prev = client;
    connection->clients = client;
    connection->n_waiting++;
    return &client->client;
}

/* False: the connection ends. */
static bool query_handle(struct dns_connection *connection, const uint8_t *data, size_t length)
{
    struct dns_tcp *tcp = connection->tcp;
    struct dns_request request = {
        .network = connection->listener->network,
        .source = connection->source,
        .data = tcp->work,
        .length = length,
        .capacity = DNS_MESSAGE_MAX,
        .now_ms = loop_now_ms(tcp->config.loop),
        .tcp = true,
        .client_new = client_new,
        .transport = connection,
    };
    size_t reply;

    memcpy(tcp->work, data, length);
    connection_touch(connection);
    dns_service_read(tcp->config.service, &request);
    reply = dns_service_answer(tcp->config.service, &request);
    return reply == 0 || output_append(connection, tcp->work, reply);
}

/* Is there room for the answer to one more? */
static bool connection_may_handle(const struct dns_connection *connection)
{
    return !connection->ended && !connection->tcp->draining &&
           connection->n_waiting < connection->tcp->config.max_waiting &&
           output_unsent(connection) < UNSENT_MAX;
}

static bool is_whole_query(const uint8_t *data, size_t length)
{
    return length >= 2 && length - 2 >= dns_read_u16(data);
}

/* All whole queries in `data`, as long as answers have room; returns how many bytes they are. -1:
 * nonsense came. */
static ssize_t queries_handle(struct dns_connection *connection, const uint8_t *data, size_t length)
{
    size_t at = 0;

    while (length - at >= 2 && connection_may_handle(connection)) {
        size_t query = dns_read_u16(data + at);

        if (query < DNS_HEADER_SIZE || query > DNS_TCP_QUERY_MAX)
            return -1;
        if (!is_whole_query(data + at, length - at))
            break;
        if (!query_handle(connection, data + at + 2, query))
            return -1;
        at += query + 2;
    }
    return (ssize_t)at;
}

/* Keeps what was not handled for later. */
static bool input_keep(struct dns_connection *connection, const uint8_t *data, size_t length)
{
    uint8_t *kept = NULL;

    if (length > 0) {
        kept = malloc(length);
        if (!kept)
            return false;
        memcpy(kept, data, length);
    }
    free(connection->input);
    connection->input = kept;
    connection->input_length = length;
    return true;
}

/* Handles what was kept and the `got` bytes that stand behind it in the transport's buffer. False:
 * the connection must end. */
static bool input_handle(struct dns_connection *connection, size_t got)
{
    struct dns_tcp *tcp = connection->tcp;
    size_t length = connection->input_length + got;
    ssize_t handled;

    if (connection->input_length > 0)
        memcpy(tcp->input, connection->input, connection->input_length);
    tcp->config.sync(tcp->config.userdata);
    if (connection->ended)
        return false;
    handled = queries_handle(connection, tcp->input, length);
    return handled >= 0 && input_keep(connection, tcp->input + handled, length - (size_t)handled);
}

static bool connection_read(struct dns_connection *connection)
{
    struct dns_tcp *tcp = connection->tcp;
    size_t kept = connection->input_length;
    ssize_t got = recv(connection->fd, tcp->input + kept, sizeof(tcp->input) - kept, MSG_DONTWAIT);

    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0) {
        connection->eof = true;
        return true;
    }
    return input_handle(connection, (size_t)got);
}

/* --- what comes next --- */

static bool connection_has_query(const struct dns_connection *connection)
{
    return is_whole_query(connection->input, connection->input_length);
}

static bool connection_may_read(const struct dns_connection *connection)
{
    return connection_may_handle(connection) && !connection->eof &&
           connection->input_length < INPUT_MAX;
}

static bool connection_is_through(const struct dns_connection *connection)
{
    bool no_more =
        connection->tcp->draining || (connection->eof && !connection_has_query(connection));

    return no_more && connection->n_waiting == 0 && output_unsent(connection) == 0;
}

/* Whole queries that were kept for want of room are handled as soon as there is some. */
static bool connection_catch_up(struct dns_connection *connection)
{
    while (connection_has_query(connection) && connection_may_handle(connection))
        if (!input_handle(connection, 0) || !output_flush(connection))
            return false;
    return true;
}

/* After everything that was done with a connection: sends, then waits for what is due, or ends it.
 */
static void connection_settle(struct dns_connection *connection)
{
    connection->busy = true;
    if (!connection->ended && (!output_flush(connection) || !connection_catch_up(connection) ||
                               connection_is_through(connection)))
        connection_end(connection);
    connection->busy = false;
    if (connection->ended) {
        connection_end(connection);
        return;
    }
    loop_io_set_events(connection->io, (connection_may_read(connection) ? LOOP_READ : 0u) |
                                           (output_unsent(connection) > 0 ? LOOP_WRITE : 0u));
}

static void connection_ready(void *userdata, unsigned events)
{
    struct dns_connection *connection = userdata;

    connection->busy = true;
    if (events & LOOP_READ && !connection_read(connection))
        connection_end(connection);
    connection_settle(connection);
}

/* --- time --- */

static void idle_arm(struct dns_tcp *tcp)
{
    uint64_t now_ms = loop_now_ms(tcp->config.loop);
    uint64_t due_ms;

    if (!tcp->oldest || loop_timer_is_active(tcp->idle_timer))
        return;
    due_ms = tcp->oldest->active_ms + tcp->config.idle_ms;
    loop_timer_start(tcp->idle_timer, due_ms > now_ms ? due_ms - now_ms : 0);
}

static void idle_expired(void *userdata)
{
    struct dns_tcp *tcp = userdata;
    uint64_t now_ms = loop_now_ms(tcp->config.loop);

    while (tcp->oldest && tcp->oldest->active_ms + tcp->config.idle_ms <= now_ms)
        connection_end(tcp->oldest);
    idle_arm(tcp);
}

/* --- accepting --- */

static void listener_watch(struct dns_tcp_listener *listener)
{
    loop_io_set_events(listener->io,
                       listener->accepting && !listener->tcp->paused ? LOOP_READ : 0u);
}

static void pause_set(struct dns_tcp *tcp, bool paused)
{
    tcp->paused = paused;
    for (struct dns_tcp_listener *listener = tcp->listeners; listener; listener = listener->next)
        listener_watch(listener);
    if (paused)
        loop_timer_start(tcp->pause_timer, ACCEPT_PAUSE_MS);
}

static void pause_expired(void *userdata)
{
    pause_set(userdata, false);
}

static bool source_read(const struct sockaddr_storage *address, struct ip *ret_ip)
{
    if (address->ss_family == AF_INET)
        *ret_ip = ip_from_bytes(AF_INET, &((const struct sockaddr_in *)address)->sin_addr);
    else if (address->ss_family == AF_INET6)
        *ret_ip = ip_from_bytes(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr);
    else
        return false;
    return true;
}

/* Room for one more: the asker's own oldest goes; only where it has none, that of all which has
 * been silent for longest. */
static void connections_make_room(struct dns_tcp *tcp, struct dns_quota *quota)
{
    if (quota->n_connections >= tcp->config.max_connections_per_asker)
        connection_end(quota->first);
    if (tcp->count >= tcp->config.max_connections)
        connection_end(quota->first ? quota->first : tcp->oldest);
}

static void connection_add(struct dns_tcp_listener *listener, int accepted,
                           const struct sockaddr_storage *address)
{
    struct dns_tcp *tcp = listener->tcp;
    _cleanup_close_ int fd = accepted;
    struct dns_connection *connection;
    struct dns_quota *quota;
    struct ip source;
    int on = 1;

    if (!source_read(address, &source))
        return;
    quota = dns_service_quota(tcp->config.service, listener->network, &source);
    if (!quota)
        return;
    connections_make_room(tcp, quota);
    connection = calloc(1, sizeof(*connection));
    if (!connection)
        return;
    connection->io = loop_io_new(tcp->config.loop, fd, LOOP_READ, connection_ready, connection);
    if (!connection->io) {
        free(connection);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    connection->tcp = tcp;
    connection->listener = listener;
    connection->quota = quota;
    connection->source = source;
    connection->fd = TAKE_FD(fd);
    connection->active_ms = loop_now_ms(tcp->config.loop);
    all_append(connection);
    asker_append(connection);
    tcp->count++;
    idle_arm(tcp);
}

static bool is_shortage(int errnum)
{
    return errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS || errnum == ENOMEM;
}

static void listener_readable(void *userdata, unsigned events)
{
    struct dns_tcp_listener *listener = userdata;
    struct dns_tcp *tcp = listener->tcp;
    struct sockaddr_storage address;

    (void)events;
    tcp->config.sync(tcp->config.userdata);
    /* The listener may be closed by now; its number would be another's. */
    for (const struct dns_tcp_listener *other = tcp->listeners; other != listener;
         other = other->next)
        if (!other)
            return;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        socklen_t length = sizeof(address);
        int fd = accept4(listener->fd, (struct sockaddr *)&address, &length,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            connection_add(listener, fd, &address);
            continue;
        }
        if (is_shortage(errno))
            pause_set(tcp, true);
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

/* --- interface --- */

struct dns_tcp *dns_tcp_new(const struct dns_tcp_config *config)
{
    struct dns_tcp *tcp = calloc(1, sizeof(*tcp));

    if (!tcp)
        return NULL;
    tcp->config = *config;
    tcp->idle_timer = loop_timer_new(config->loop, idle_expired, tcp);
    tcp->pause_timer = loop_timer_new(config->loop, pause_expired, tcp);
    if (!tcp->idle_timer || !tcp->pause_timer) {
        dns_tcp_free(tcp);
        return NULL;
    }
    return tcp;
}

void dns_tcp_set_max_per_asker(struct dns_tcp *tcp, uint32_t max_connections)
{
    tcp->config.max_connections_per_asker = max_connections;
}

void dns_tcp_free(struct dns_tcp *tcp)
{
    if (!tcp)
        return;
    while (tcp->oldest)
        connection_end(tcp->oldest);
    loop_timer_free(tcp->idle_timer);
    loop_timer_free(tcp->pause_timer);
    free(tcp);
}

struct dns_tcp_listener *dns_tcp_listen(struct dns_tcp *tcp, int fd, struct zone_network *network)
{
    struct dns_tcp_listener *listener = calloc(1, sizeof(*listener));

    if (!listener)
        return NULL;
    listener->io = loop_io_new(tcp->config.loop, fd, 0, listener_readable, listener);
    if (!listener->io) {
        free(listener);
        return NULL;
    }
    listener->tcp = tcp;
    listener->network = network;
    listener->fd = fd;
    listener->next = tcp->listeners;
    tcp->listeners = listener;
    return listener;
}

int dns_tcp_fd(const struct dns_tcp_listener *listener)
{
    return listener->fd;
}

void dns_tcp_set_accepting(struct dns_tcp_listener *listener, bool accepting)
{
    listener->accepting = accepting;
    listener_watch(listener);
}

void dns_tcp_close(struct dns_tcp_listener *listener)
{
    struct dns_tcp_listener **link;

    if (!listener)
        return;
    link = &listener->tcp->listeners;
    while (*link != listener)
        link = &(*link)->next;
    *link = listener->next;
    for (struct dns_connection *connection = listener->tcp->oldest, *newer; connection;
         connection = newer) {
        newer = connection->all.newer;
        if (connection->listener == listener)
            connection_end(connection);
    }
    loop_io_free(listener->io);
    close(listener->fd);
    free(listener);
}

void dns_tcp_close_all(struct dns_tcp *tcp, struct dns_quota *quota)
{
    (void)tcp;
    while (quota->first)
        connection_end(quota->first);
}

void dns_tcp_drain(struct dns_tcp *tcp)
{
    tcp->draining = true;
    for (struct dns_connection *connection = tcp->oldest, *newer; connection; connection = newer) {
        newer = connection->all.newer;
        connection_settle(connection);
    }
}

uint32_t dns_tcp_count(const struct dns_tcp *tcp)
{
    return tcp->count;
}
