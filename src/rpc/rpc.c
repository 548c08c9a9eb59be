/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who connects, and the beginning and end of it all; connections are client.c's, their order
 * turn.c's. */
#include "rpc/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "rpc/client.h"

/* --- accepting --- */

#define ACCEPTS_MAX 64 /* at once */

static void refuse_client(int fd, const char *text)
{
    struct text line = {0};
    struct error error = ERROR_INIT;

    error_set_reason(&error, REASON_BUSY, "%s", text);
    proto_error_encode(&line, "null", PROTO_REFUSED, &error);
    text_append_n(&line, "\n", 1);
    if (!line.failed && send(fd, line.data, line.length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_debug("a refused client did not take its refusal");
    text_deinit(&line);
    close(fd);
}

/* False when nobody waits. */
static bool accept_one(struct rpc *rpc)
{
    int fd = accept4(rpc->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            log_warning("accept: %s", strerror(errno));
        return false;
    }
    if (rpc->n_clients >= rpc->config->max_clients)
        refuse_client(fd, "as many connections as are taken; see max_clients in moat.conf(5)");
    else if (!client_new(rpc, fd))
        refuse_client(fd, "out of memory");
    return true;
}

static void on_accept(void *userdata, unsigned events)
{
    (void)events;
    (void)accept_one(userdata);
}

/* In the middle of something else nobody says twice that several wait. */
static void on_accept_between(void *userdata, unsigned events)
{
    struct rpc *rpc = userdata;
    unsigned i = 0;

    (void)events;
    while (i < ACCEPTS_MAX && accept_one(rpc))
        i++;
    if (i == ACCEPTS_MAX)
        loop_io_again(rpc->io);
}

/* --- from the loop and the service --- */

static void on_patience(void *userdata)
{
    struct rpc *rpc = userdata;

    for (struct client *client = rpc->clients; client; client = client->next)
        turn_unpark_ready(client);
}

/* Detaches that came, their answers, and one thing else. */
static void on_turn(void *userdata)
{
    struct rpc *rpc = userdata;
    struct client *client;

    clients_end_broken(rpc);
    turn_urgent(rpc);
    turn_urgent(rpc);
    client = turn_take(rpc);
    if (client)
        client_turn(client);
    service_detach_flush(rpc->service); /* a detach that did not look like one */
    if (rpc->n_settling && (rpc->worked || service_is_settled(rpc->service)))
        on_patience(rpc); /* nothing went, so nobody else says so */
    rpc->worked = false;
}

/* A promise may be kept now, or a request be taken that had to wait. */
static void on_progress(void *userdata)
{
    struct rpc *rpc = userdata;
    struct client *next;

    for (struct client *client = rpc->clients; client; client = next) {
        next = client->next;
        client_kept(client);
    }
    on_patience(rpc);
}

int rpc_new(const struct config *config, struct loop *loop, int listen_fd, struct rpc **ret_rpc,
            struct error *error)
{
    struct rpc *rpc = calloc(1, sizeof(*rpc));
    int r = 0;

    if (!rpc)
        return error_set(error, ENOMEM, "socket");
    *rpc = (struct rpc){.config = config, .loop = loop, .fd = listen_fd, .passed = listen_fd >= 0};
    rpc->turn = loop_timer_new(loop, on_turn, rpc);
    rpc->patience = loop_timer_new(loop, on_patience, rpc);
    if (!rpc->turn || !rpc->patience)
        r = error_set(error, ENOMEM, "socket");
    else
        loop_timer_set_last(rpc->turn);
    if (r >= 0 && !rpc->passed)
        r = socket_make(config, &rpc->fd, error);
    if (r < 0) {
        rpc_free(rpc);
        return r;
    }
    *ret_rpc = rpc;
    return 0;
}

void rpc_start(struct rpc *rpc, struct service *service)
{
    rpc->service = service;
    service_on_progress(service, on_progress, rpc);
    rpc->io = loop_io_new(rpc->loop, rpc->fd, LOOP_READ, on_accept, rpc);
    if (rpc->io)
        loop_io_set_urgent(rpc->io, on_accept_between);
}

void rpc_free(struct rpc *rpc)
{
    char path[108];

    if (!rpc)
        return;
    rpc->ending = true;
    for (struct client *client = rpc->service ? rpc->clients : NULL; client; client = client->next)
        client_finish(client);
    if (rpc->service)
        service_on_progress(rpc->service, NULL, NULL);
    rpc->service = NULL;
    while (rpc->clients)
        client_free(rpc->clients);
    loop_timer_free(rpc->turn);
    loop_timer_free(rpc->patience);
    loop_io_free(rpc->io);
    if (rpc->fd >= 0)
        close(rpc->fd);
    socket_path(rpc->config, path, sizeof(path));
    if (!rpc->passed)
        unlink(path);
    free(rpc);
}

void rpc_event(struct rpc *rpc, const struct event *event)
{
    for (struct client *client = rpc->clients; client; client = client->next)
        client_tell(client, event);
}
