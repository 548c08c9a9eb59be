/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection. Its bytes gather in `input` until a newline; then the client waits for its turn and
 * is not read from. Its requests are answered one after the other (`work`); one whose answer comes
 * later leaves the client waiting for that, while others go on. Answers gather in `output` and
 * leave as the socket takes them, but not before what they promise is kept (service.h): until then
 * the client is held. Descriptors that arrive belong to the next line that ends; those that
 * no line used are closed with it. */
#include "rpc/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define READ_SIZE ((size_t)65536)

/* --- the requests of a line --- */

static void close_fds(struct client *client)
{
    for (size_t i = 0; i < client->n_fds; i++)
        close(client->fds[i]);
    client->n_fds = 0;
}

static int work_begin(struct client *client, const char *line, size_t length)
{
    struct work *work = &client->work;
    int r = proto_requests_parse(line, length, &work->requests);

    if (r < 0)
        return r;
    work->active = true;
    work->undispatched = work->impatient = false;
    work->next = 0;
    work->n_fds = 0;
    work->n_fds_used = 0;
    work->promise = (struct promise){0};
    return 0;
}

static void work_deinit(struct client *client)
{
    struct work *work = &client->work;

    if (!work->active)
        return;
    for (size_t i = 0; i < work->n_fds; i++)
        close(work->fds[i].fd);
    proto_requests_deinit(&work->requests);
    text_deinit(&work->text);
    work->active = false;
}

static void subscribe(struct client *client, const char *only_guest)
{
    client->subscribed = true;
    snprintf(client->only_guest, sizeof(client->only_guest), "%s", only_guest);
}

static bool wants(const struct client *client, const struct event *event)
{
    return client->subscribed &&
           (!client->only_guest[0] || strcmp(client->only_guest, event->guest) == 0);
}

/* The descriptors of an answer leave with its last bytes, one with each, in order. A notification
 * has no answer, and where so many wait that there is no room the client sees one without any. */
static void work_take_fds(struct work *work)
{
    const struct call *call = &work->call;
    bool ok = call->request->id && work->n_fds + call->n_ret_fds <= PROTO_FDS_MAX;

    for (size_t i = 0; i < call->n_ret_fds; i++) {
        if (ok)
            work->fds[work->n_fds++] =
                (struct output_fd){work->text.length - call->n_ret_fds + i, call->ret_fds[i]};
        else
            close(call->ret_fds[i]);
    }
}

static void work_take_promise(struct work *work)
{
    const struct call *call = &work->call;
    struct promise promise = service_promised(call->service);

    promise = promise_since(&promise, &work->before);
    if (call->undurable)
        promise.commit = 0;
    if (call->gave_nothing_back)
        promise.release = promise.closing = 0;
    work->promise = promise_both(&work->promise, &promise);
}

/* The request in hand is answered: what came with its answer. */
static void work_take(struct client *client)
{
    struct work *work = &client->work;

    work_take_promise(work);
    if (work->call.subscribe)
        subscribe(client, work->call.only_guest);
    work->n_fds_used += work->call.n_fds_used;
    work_take_fds(work);
}

static void on_answered(struct call *call)
{
    struct client *client = call->userdata;

    work_take(client);
    turn_queue_work(client);
}

/* All requests of the line are answered. False when the connection is over. */
static bool work_end(struct client *client)
{
    struct work *work = &client->work;
    bool ok;

    if (work->text.length && work->requests.batch)
        text_append_n(&work->text, "]", 1);
    if (work->text.length)
        text_append_n(&work->text, "\n", 1);
    while (work->n_fds && client->n_output_fds < PROTO_FDS_MAX) {
        struct output_fd fd = work->fds[0];

        fd.offset += client->output.length;
        client->output_fds[client->n_output_fds++] = fd;
        memmove(work->fds, work->fds + 1, --work->n_fds * sizeof(*work->fds));
    }
    if (work->text.length)
        text_append_n(&client->output, work->text.data, work->text.length);
    if (!promise_is_empty(&work->promise)) {
        client->promise = work->promise;
        client->held = true;
    }
    ok = !work->text.failed && !client->output.failed;
    work_deinit(client);
    close_fds(client);
    return ok;
}

/* The next request, and the call that it becomes. False when there is none. */
static bool work_next(struct client *client)
{
    struct work *work = &client->work;
    struct proto_request *request;

    if (work->next == work->requests.count)
        return false;
    request = &work->requests.items[work->next++];
    if (work->requests.batch && request->id)
        text_append_n(&work->text, work->text.length ? "," : "[", 1);
    work->call = (struct call){
        .service = client->rpc->service,
        .peer = &client->peer,
        .request = request,
        .fds = client->fds + work->n_fds_used,
        .n_fds = client->n_fds - work->n_fds_used,
        .earlier = service_promised(client->rpc->service),
        .text = &work->text,
        .answered = on_answered,
        .userdata = client,
    };
    work->undispatched = true;
    work->waited = CALL_READY;
    return true;
}

/* Nobody reads from a client that waits: whoever has gone meanwhile is not served any more, but for
 * his detaches. One that has only stopped sending is. */
static bool client_has_hung_up(const struct client *client)
{
    struct pollfd connection = {.fd = client->fd};

    return poll(&connection, 1, 0) == 1 && connection.revents & (POLLHUP | POLLERR);
}

/* Answers one request after the other, up to one that has to wait or whose answer comes later.
 * False when the connection is over. */
static bool work_go_on(struct client *client)
{
    struct work *work = &client->work;

    while (work->undispatched || work_next(client)) {
        if (turn_park(client))
            return true;
        if (work->waited && !dispatch_is_urgent(&work->call) && client_has_hung_up(client))
            return false;
        work->undispatched = false;
        work->before = service_promised(client->rpc->service);
        turn_dispatch(client);
        if (work->call.pending)
            return true;
        work_take(client);
    }
    return work_end(client);
}

/* --- the end of a connection --- */

void client_free(struct client *client)
{
    struct rpc *rpc = client->rpc;

    *client->place = client->next;
    if (client->next)
        client->next->place = client->place;
    rpc->n_clients--;
    rpc->n_broken -= client->broken;
    turn_leave(client);
    work_deinit(client);
    loop_io_free(client->io);
    close_fds(client);
    for (size_t i = 0; i < client->n_output_fds; i++)
        close(client->output_fds[i].fd);
    text_deinit(&client->input);
    text_deinit(&client->output);
    close(client->fd);
    free(client);
}

static void client_end(struct client *client)
{
    struct service *service = client->rpc->service;
    const void *identity = client;

    if (client->rpc->between) { /* what its end brings with it is not urgent */
        client->rpc->n_broken += !client->broken;
        client->broken = true;
        loop_io_set_events(client->io, 0);
        loop_timer_start(client->rpc->turn, 0);
        return;
    }
    if (client->work.active && !client->work.undispatched && service)
        service_settle(service); /* what is on its way looks at this connection */
    client_free(client);
    if (service && !service_is_torn_down(service))
        service_connection_closed(service, identity);
}

void clients_end_broken(struct rpc *rpc)
{
    struct client *next;

    for (struct client *client = rpc->clients; rpc->n_broken && client; client = next) {
        next = client->next;
        if (client->broken)
            client_end(client);
    }
}

/* --- output --- */

static size_t output_left(const struct client *client)
{
    return client->output.length - client->sent;
}

static bool client_is_held(struct client *client)
{
    struct service *service = client->rpc->service;

    if (client->held && (!service || service_is_kept(service, &client->promise)))
        client->held = false;
    return client->held;
}

static void set_events(struct client *client)
{
    unsigned events = 0;

    if (client->held || client->queued || client->work.active || client->broken) {
        loop_io_set_events(client->io, 0);
        return;
    }
    if (!client->end_of_input && output_left(client) < RPC_OUTPUT_PAUSE)
        events |= LOOP_READ;
    if (output_left(client))
        events |= LOOP_WRITE;
    loop_io_set_events(client->io, events);
}

/* Up to the next descriptor, which must leave with the first byte of its answer. */
static ssize_t send_some(struct client *client)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {client->output.data + client->sent, output_left(client)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    const struct output_fd *next = client->n_output_fds ? &client->output_fds[0] : NULL;
    ssize_t length;

    if (next && next->offset > client->sent)
        part.iov_len = next->offset - client->sent;
    if (next && next->offset == client->sent) {
        if (client->n_output_fds > 1)
            part.iov_len = client->output_fds[1].offset - client->sent;
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        control.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &next->fd, sizeof(int));
    }
    length = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (length > 0 && message.msg_control) {
        close(next->fd);
        client->n_output_fds--;
        memmove(client->output_fds, client->output_fds + 1,
                client->n_output_fds * sizeof(*client->output_fds));
    }
    return length;
}

/* False when the connection is over. */
static bool client_flush(struct client *client)
{
    bool held = client_is_held(client);

    while (!held && output_left(client)) {
        ssize_t length = send_some(client);

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN)
            break;
        if (length < 0)
            return false;
        client->sent += (size_t)length;
    }
    if (output_left(client) == 0 && client->output.length) {
        client->sent = 0;
        client->output.length = 0;
        if (client->output.allocated > RPC_OUTPUT_PAUSE)
            text_deinit(&client->output); /* a large answer once must not stay */
    }
    return output_left(client) <= RPC_OUTPUT_MAX;
}

/* --- lines --- */

static void refuse_long_line(struct client *client)
{
    struct error error = ERROR_INIT;

    error_set(&error, 0, "a line has at most %zu bytes", PROTO_LINE_MAX);
    proto_error_encode(&client->output, "null", PROTO_INVALID_REQUEST, &error);
    text_append_n(&client->output, "\n", 1);
    client->skipping = true;
}

static void drop_input(struct client *client, size_t length)
{
    client->input.length -= length;
    memmove(client->input.data, client->input.data + length, client->input.length);
    client->scanned = 0;
    if (client->input.length == 0 && client->input.allocated > 4 * READ_SIZE)
        text_deinit(&client->input);
}

/* The first line of the input is there whole; *ret_length: without its end. */
static bool find_line(struct client *client, size_t *ret_length)
{
    const char *newline = NULL;

    if (client->input.length > client->scanned)
        newline = memchr(client->input.data + client->scanned, '\n',
                         client->input.length - client->scanned);
    if (!newline) {
        client->scanned = client->input.length;
        return false;
    }
    *ret_length = (size_t)(newline - client->input.data);
    client->scanned = *ret_length;
    return true;
}

/* Takes the first line of that length from the input. False when the connection is over. */
static bool handle_input(struct client *client, size_t length)
{
    bool ok = true;

    if (client->skipping)
        client->skipping = false;
    else if (length > PROTO_LINE_MAX)
        refuse_long_line(client), client->skipping = false;
    else if (length && !(length == 1 && client->input.data[0] == '\r'))
        ok = work_begin(client, client->input.data, length) >= 0 && work_go_on(client);
    drop_input(client, length + 1);
    return ok;
}

/* What is not a whole line yet, and is longer than one may be, need not be kept. */
static void check_partial_line(struct client *client)
{
    if (client->input.length <= PROTO_LINE_MAX)
        return;
    if (!client->skipping)
        refuse_long_line(client);
    drop_input(client, client->input.length);
}

/* Sends what can be sent, and finds out what comes next. */
static void client_proceed(struct client *client, bool ok)
{
    bool more = client->queued || client->work.active;
    size_t length;

    if (ok)
        ok = client_flush(client);
    if (ok && !more && !client->held && output_left(client) < RPC_OUTPUT_PAUSE) {
        more = find_line(client, &length);
        if (more)
            turn_queue_line(client, length);
        else
            check_partial_line(client);
    }
    if (!ok || (client->end_of_input && !more && !client->held && output_left(client) == 0)) {
        client_end(client);
        return;
    }
    set_events(client);
}

void client_turn(struct client *client)
{
    size_t length;
    bool ok = true;

    if (client->work.active)
        ok = work_go_on(client);
    else if (find_line(client, &length))
        ok = handle_input(client, length);
    client_proceed(client, ok);
}

void client_kept(struct client *client)
{
    if (client->held && !client_is_held(client))
        client_proceed(client, true);
}

void client_finish(struct client *client)
{
    turn_end_patience(client);
    while (client->work.active) {
        service_settle(client->rpc->service);
        turn_leave(client);
        if (!work_go_on(client))
            break;
    }
    service_wait_kept(client->rpc->service);
    (void)client_flush(client);
}

void client_tell(struct client *client, const struct event *event)
{
    if (!wants(client, event) || output_left(client) > RPC_OUTPUT_MAX)
        return;
    proto_event_encode(&client->output, event);
    text_append_n(&client->output, "\n", 1);
    set_events(client); /* written from the loop: this may be called in the middle of an answer */
}

/* --- input --- */

static void take_fds(struct client *client, struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (client->n_fds < PROTO_FDS_MAX)
                client->fds[client->n_fds++] = fd;
            else
                close(fd);
        }
    }
}

static ssize_t receive(struct client *client)
{
    char buffer[READ_SIZE];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(PROTO_FDS_MAX * sizeof(int))];
    } control;
    struct iovec part = {buffer, sizeof(buffer)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t length = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (length < 0)
        return length;
    take_fds(client, &message);
    text_append_n(&client->input, buffer, (size_t)length);
    if (client->input.failed) {
        errno = ENOMEM;
        return -1;
    }
    return length;
}

static void on_client(void *userdata, unsigned events)
{
    struct client *client = userdata;

    if ((events & LOOP_READ) && !client->queued && !client->work.active) { /* else it comes again */
        ssize_t length = receive(client);

        if (length <= 0 && client->rpc->between)
            return; /* what there is of its end is there yet when its time comes */
        if (length < 0 && errno != EAGAIN && errno != EINTR) {
            client_end(client);
            return;
        }
        if (length == 0)
            client->end_of_input = true;
    }
    client_proceed(client, true);
}

/* --- the beginning --- */

static int read_peer(struct client *client)
{
    struct ucred credentials;
    socklen_t length = sizeof(credentials);

    if (getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return -errno;
    client->peer.pid = credentials.pid;
    client->peer.uid = credentials.uid;
    client->peer.connection = client;
    service_peer_identify(&client->peer);
    return 0;
}

struct client *client_new(struct rpc *rpc, int fd)
{
    struct client *client = calloc(1, sizeof(*client));

    if (!client)
        return NULL;
    client->rpc = rpc;
    client->fd = fd;
    client->io = loop_io_new(rpc->loop, fd, LOOP_READ, on_client, client);
    if (!client->io || read_peer(client) < 0) {
        loop_io_free(client->io);
        free(client);
        return NULL;
    }
    loop_io_set_urgent(client->io, on_client);
    client->next = rpc->clients;
    client->place = &rpc->clients;
    if (client->next)
        client->next->place = &client->next;
    rpc->clients = client;
    rpc->n_clients++;
    return client;
}
