/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection reads until it has a call, answers it, and reads no further before the reply has
 * gone out. Whoever has asked for filters (subscribed) gets nothing but filters from then on. */
#include "worker/dns_hook.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/hook_call.h"

#define CONNECTIONS_MAX 64 /* systemd-resolved keeps five, and makes more for calls at once */

struct connection {
    struct dns_hook *hook;
    struct connection *next;
    struct loop_io *io;
    int fd;
    bool subscribed;
    bool changed; /* subscribed, and the filter is another one than was sent */
    size_t input_length;
    size_t sent; /* of the reply */
    struct hook_text reply;
    char input[HOOK_CALL_MAX + 1];
};

struct dns_hook {
    struct dns_hook_config config;
    const struct zone *zone; /* NULL: not started */
    struct connection *connections;
    unsigned n_connections;
    uint8_t message[DNS_MESSAGE_MAX];
};

static void connection_free(struct connection *connection)
{
    struct connection **link = &connection->hook->connections;

    while (*link != connection)
        link = &(*link)->next;
    *link = connection->next;
    connection->hook->n_connections--;
    loop_io_free(connection->io);
    close(connection->fd);
    hook_text_deinit(&connection->reply);
    free(connection);
}

static void connection_wait(struct connection *connection)
{
    bool writes = connection->sent < connection->reply.length;
    bool reads = connection->hook->zone && !writes;

    loop_io_set_events(connection->io, (reads ? LOOP_READ : 0u) | (writes ? LOOP_WRITE : 0u));
}

/* --- replies --- */

/* False: the peer is gone. */
static bool reply_send(struct connection *connection)
{
    struct hook_text *reply = &connection->reply;

    while (connection->sent < reply->length) {
        ssize_t sent = send(connection->fd, reply->data + connection->sent,
                            reply->length - connection->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN;
        connection->sent += (size_t)sent;
    }
    hook_text_deinit(reply);
    connection->sent = 0;
    return true;
}

static bool filter_send(struct connection *connection)
{
    if (!connection->changed || connection->reply.length > 0)
        return true; /* sent when what is before it has gone */
    connection->changed = false;
    hook_filter_write(connection->hook->zone, true, &connection->reply);
    return !connection->reply.failed && reply_send(connection);
}

/* --- calls --- */

/* Acts on one call, which ends at input[length]. */
static bool call_handle(struct connection *connection, size_t length)
{
    struct dns_hook *hook = connection->hook;
    enum hook_call handled =
        hook_call_handle(hook->zone, connection->input, length, hook->message, &connection->reply);

    if (handled == HOOK_CALL_BAD || connection->subscribed)
        return false;
    connection->subscribed = handled == HOOK_CALL_SUBSCRIBE;
    connection->input_length -= length + 1;
    memmove(connection->input, connection->input + length + 1, connection->input_length);
    return reply_send(connection);
}

static bool calls_handle(struct connection *connection)
{
    while (connection->reply.length == 0) {
        const char *end = memchr(connection->input, '\0', connection->input_length);

        if (!end)
            return connection->input_length < sizeof(connection->input);
        if (!call_handle(connection, (size_t)(end - connection->input)))
            return false;
    }
    return true;
}

/* False: the peer is gone, or is to be. */
static bool input_read(struct connection *connection)
{
    ssize_t length = recv(connection->fd, connection->input + connection->input_length,
                          sizeof(connection->input) - connection->input_length, MSG_DONTWAIT);

    if (length < 0)
        return errno == EAGAIN || errno == EINTR;
    connection->input_length += (size_t)length;
    return length > 0;
}

static bool is_open(const struct dns_hook *hook, const struct connection *wanted)
{
    const struct connection *connection = hook->connections;

    while (connection && connection != wanted)
        connection = connection->next;
    return connection;
}

static void connection_ready(void *userdata, unsigned events)
{
    struct connection *connection = userdata;
    struct dns_hook *hook = connection->hook;
    bool alive = true;

    hook->config.sync(hook->config.userdata);
    if (!is_open(hook, connection))
        return; /* what moatd has said ended it */
    if (events & LOOP_WRITE)
        alive = reply_send(connection);
    if (alive && events & LOOP_READ)
        alive = input_read(connection);
    if (alive)
        alive = calls_handle(connection) && filter_send(connection);
    if (alive)
        connection_wait(connection);
    else
        connection_free(connection);
}

/* --- interface --- */

struct dns_hook *dns_hook_new(const struct dns_hook_config *config)
{
    struct dns_hook *hook = calloc(1, sizeof(*hook));

    if (hook)
        hook->config = *config;
    return hook;
}

void dns_hook_free(struct dns_hook *hook)
{
    if (!hook)
        return;
    dns_hook_stop(hook);
    free(hook);
}

void dns_hook_add(struct dns_hook *hook, int fd)
{
    struct connection *connection =
        hook->n_connections < CONNECTIONS_MAX ? calloc(1, sizeof(*connection)) : NULL;

    if (connection)
        connection->io = loop_io_new(hook->config.loop, fd, 0, connection_ready, connection);
    if (!connection || !connection->io) {
        free(connection);
        close(fd);
        return;
    }
    connection->hook = hook;
    connection->fd = fd;
    connection->next = hook->connections;
    hook->connections = connection;
    hook->n_connections++;
    connection_wait(connection);
}

void dns_hook_start(struct dns_hook *hook, const struct zone *zone)
{
    hook->zone = zone;
    for (struct connection *connection = hook->connections; connection;
         connection = connection->next)
        connection_wait(connection);
}

void dns_hook_filter_changed(struct dns_hook *hook)
{
    struct connection *next;

    for (struct connection *connection = hook->connections; connection; connection = next) {
        next = connection->next;
        if (!connection->subscribed)
            continue;
        connection->changed = true;
        if (filter_send(connection))
            connection_wait(connection);
        else
            connection_free(connection);
    }
}

void dns_hook_stop(struct dns_hook *hook)
{
    while (hook->connections)
        connection_free(hook->connections);
    hook->zone = NULL;
}
