/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections. A client's bytes gather in `input` until a newline; then the client waits in a queue
 * and is not read from. Each turn of the loop answers one line of one client; in between all
 * sockets are looked at again, so that a line that came meanwhile can go first: detaches do, which
 * are short and which others' attaches must not hold up. Clients of one queue take turns. Answers
 * gather in `output` and leave as the socket takes them, but not before what they say was done is
 * durable: until then the client is held (`promise`), and others go on. Descriptors that arrive
 * belong to the next line that ends; those that no line used are closed with it. */
#include "rpc/rpc.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "rpc/dispatch.h"

#define READ_SIZE ((size_t)65536)
#define URGENT_METHOD "\"guest.detach\""
#define URGENT_LOOK 512   /* bytes of a line in which the method is looked for */
#define URGENT_RUN_MAX 32 /* lines that go first while others wait */

struct output_fd {
    size_t offset; /* leaves with the byte at this place of the output */
    int fd;
};

struct client {
    struct rpc *rpc;
    struct client *next;
    struct client **place; /* what points to this client */
    int fd;
    struct loop_io *io;
    struct client *behind; /* in the queue */
    bool queued;
    struct peer peer;
    struct text input;
    size_t scanned; /* bytes of the input known to hold no newline */
    int fds[PROTO_FDS_MAX];
    size_t n_fds;
    struct text output;
    size_t sent;
    struct output_fd output_fds[PROTO_FDS_MAX];
    size_t n_output_fds;
    uint64_t promise; /* the commit that the output waits for; 0: none */
    bool subscribed;
    bool end_of_input;
    bool skipping; /* the rest of a line that was too long */
};

struct queue {
    struct client *first;
    struct client *last;
};

struct rpc {
    const struct config *config;
    struct loop *loop;
    struct service *service;
    int fd;
    bool passed; /* by systemd: the socket file is systemd's */
    struct loop_io *io;
    struct client *clients;
    size_t n_clients;
    struct loop_timer *turn; /* runs while a queue has clients */
    struct queue urgent;
    struct queue ordinary;
    unsigned urgent_run; /* lines that went first since an ordinary one */
};

/* --- whose turn it is --- */

static void queue_push(struct queue *queue, struct client *client)
{
    client->behind = NULL;
    client->queued = true;
    if (queue->last)
        queue->last->behind = client;
    else
        queue->first = client;
    queue->last = client;
}

static void queue_remove(struct queue *queue, struct client *client)
{
    struct client *before = NULL;
    struct client *at = queue->first;

    while (at && at != client) {
        before = at;
        at = at->behind;
    }
    if (!at)
        return;
    if (before)
        before->behind = client->behind;
    else
        queue->first = client->behind;
    if (queue->last == client)
        queue->last = before;
    client->queued = false;
}

/* Only a guess from the text: what it is wrong about is answered all the same, in its turn. */
static bool line_is_urgent(const struct client *client, size_t length)
{
    return memmem(client->input.data, length < URGENT_LOOK ? length : URGENT_LOOK, URGENT_METHOD,
                  strlen(URGENT_METHOD)) != NULL;
}

static void client_queue(struct client *client, size_t line_length)
{
    struct rpc *rpc = client->rpc;

    queue_push(line_is_urgent(client, line_length) ? &rpc->urgent : &rpc->ordinary, client);
    loop_timer_start(rpc->turn, 0);
}

static struct client *queue_next(struct rpc *rpc)
{
    bool urgent = rpc->urgent.first && (!rpc->ordinary.first || rpc->urgent_run < URGENT_RUN_MAX);
    struct queue *queue = urgent ? &rpc->urgent : &rpc->ordinary;
    struct client *client = queue->first;

    rpc->urgent_run = urgent ? rpc->urgent_run + 1 : 0;
    if (client)
        queue_remove(queue, client);
    return client;
}

/* --- the end of a connection --- */

static void close_fds(struct client *client)
{
    for (size_t i = 0; i < client->n_fds; i++)
        close(client->fds[i]);
    client->n_fds = 0;
}

static void client_free(struct client *client)
{
    struct rpc *rpc = client->rpc;

    *client->place = client->next;
    if (client->next)
        client->next->place = client->place;
    rpc->n_clients--;
    queue_remove(&rpc->urgent, client);
    queue_remove(&rpc->ordinary, client);
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

    client_free(client);
    if (service && !service_is_torn_down(service))
        service_connection_closed(service, identity);
}

/* --- output --- */

static size_t output_left(const struct client *client)
{
    return client->output.length - client->sent;
}

static bool client_is_held(struct client *client)
{
    const struct service *service = client->rpc->service;

    if (client->promise && (!service || service_is_durable(service, client->promise)))
        client->promise = 0;
    return client->promise != 0;
}

static void set_events(struct client *client)
{
    unsigned events = 0;

    if (client->promise) {
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

static void queue_fd(struct client *client, int fd)
{
    if (client->n_output_fds == PROTO_FDS_MAX) {
        close(fd); /* so many unread answers: the client sees an answer without its descriptor */
        return;
    }
    client->output_fds[client->n_output_fds++] = (struct output_fd){client->output.length, fd};
}

/* The answer is put together aside: events that happen meanwhile go out before it. */
static bool answer(struct client *client, struct proto_requests *requests)
{
    struct text text = {0};
    uint64_t promised = service_promised(client->rpc->service);
    bool ok;

    for (size_t i = 0; i < requests->count; i++) {
        struct call call = {
            .service = client->rpc->service,
            .peer = &client->peer,
            .request = &requests->items[i],
            .fds = client->fds,
            .n_fds = client->n_fds,
            .text = &text,
        };

        if (requests->batch && requests->items[i].id)
            text_append_n(&text, text.length ? "," : "[", 1);
        dispatch(&call);
        if (call.ret_fd >= 0)
            queue_fd(client, call.ret_fd);
        client->subscribed |= call.subscribe;
    }
    if (text.length && requests->batch)
        text_append_n(&text, "]", 1);
    if (text.length)
        text_append_n(&text, "\n", 1);
    if (text.length)
        text_append_n(&client->output, text.data, text.length);
    if (service_promised(client->rpc->service) > promised)
        client->promise = service_promised(client->rpc->service);
    ok = !text.failed && !client->output.failed;
    text_deinit(&text);
    return ok;
}

static bool handle_line(struct client *client, const char *line, size_t length)
{
    struct proto_requests requests;
    bool ok;

    if (proto_requests_parse(line, length, &requests) < 0)
        return false;
    ok = answer(client, &requests);
    proto_requests_deinit(&requests);
    close_fds(client);
    return ok;
}

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
        ok = handle_line(client, client->input.data, length);
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
    bool more = client->queued;
    size_t length;

    if (ok)
        ok = client_flush(client);
    if (ok && !more && !client->promise && output_left(client) < RPC_OUTPUT_PAUSE) {
        more = find_line(client, &length);
        if (more)
            client_queue(client, length);
        else
            check_partial_line(client);
    }
    if (!ok || (client->end_of_input && !more && !client->promise && output_left(client) == 0)) {
        client_end(client);
        return;
    }
    set_events(client);
}

static void on_turn(void *userdata)
{
    struct rpc *rpc = userdata;
    struct client *client = queue_next(rpc);
    size_t length;

    if (rpc->urgent.first || rpc->ordinary.first)
        loop_timer_start(rpc->turn, 0);
    if (client)
        client_proceed(client, !find_line(client, &length) || handle_input(client, length));
}

/* Something has become durable. */
static void on_durable(void *userdata)
{
    struct rpc *rpc = userdata;
    struct client *next;

    for (struct client *client = rpc->clients; client; client = next) {
        next = client->next;
        if (client->promise && !client_is_held(client))
            client_proceed(client, true);
    }
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

    if ((events & LOOP_READ) && !client->queued) { /* else it comes again after its turn */
        ssize_t length = receive(client);

        if (length < 0 && errno != EAGAIN && errno != EINTR) {
            client_end(client);
            return;
        }
        if (length == 0)
            client->end_of_input = true;
    }
    client_proceed(client, true);
}

/* --- accepting --- */

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

static struct client *client_new(struct rpc *rpc, int fd)
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
    client->next = rpc->clients;
    client->place = &rpc->clients;
    if (client->next)
        client->next->place = &client->next;
    rpc->clients = client;
    rpc->n_clients++;
    return client;
}

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

static void on_accept(void *userdata, unsigned events)
{
    struct rpc *rpc = userdata;
    int fd = accept4(rpc->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            log_warning("accept: %s", strerror(errno));
        return;
    }
    if (rpc->n_clients >= rpc->config->max_clients)
        refuse_client(fd, "as many connections as are taken; see max_clients in moat.conf(5)");
    else if (!client_new(rpc, fd))
        refuse_client(fd, "out of memory");
}

/* --- the socket --- */

static int set_access(const struct config *config, const char *path, struct error *error)
{
    const struct group *group = config->socket_group[0] ? getgrnam(config->socket_group) : NULL;

    if (group && chown(path, (uid_t)-1, group->gr_gid) < 0)
        return error_set(error, errno, "cannot give %s to the group %s", path,
                         config->socket_group);
    if (chmod(path, (mode_t)config->socket_mode) < 0)
        return error_set(error, errno, "cannot set the mode of %s", path);
    return 0;
}

int rpc_check(const struct config *config, struct error *error)
{
    size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/worker-relay.sock");

    if (strlen(config->run_dir) <= most)
        return 0;
    return error_set(
        error, ENAMETOOLONG,
        "the run directory %.40s… is longer than %zu characters, so no socket fits in it",
        config->run_dir, most);
}

/* The lock on the directory says that nobody else serves there: a socket file that exists is a
 * leftover. It appears under its name only when it listens. */
static int make_socket(struct rpc *rpc, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char temporary[sizeof(address.sun_path)];
    char path[sizeof(address.sun_path)];
    int r;

    snprintf(path, sizeof(path), "%s/moat.sock", rpc->config->run_dir); /* fits: rpc_check */
    snprintf(temporary, sizeof(temporary), "%s/.moat.%u", rpc->config->run_dir,
             (unsigned)getpid() % 1000000u);
    memcpy(address.sun_path, temporary, sizeof(temporary));
    rpc->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (rpc->fd < 0)
        return error_set(error, errno, "socket");
    if (unlink(temporary) < 0 && errno != ENOENT)
        return error_set(error, errno, "cannot remove %s", temporary);
    if (bind(rpc->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(error, errno, "cannot bind %s", temporary);
    r = set_access(rpc->config, temporary, error);
    if (r >= 0 && listen(rpc->fd, 1024) < 0)
        r = error_set(error, errno, "cannot listen on %s", temporary);
    if (r >= 0 && rename(temporary, path) < 0)
        r = error_set(error, errno, "cannot rename %s", temporary);
    if (r < 0)
        unlink(temporary);
    return r;
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
    if (!rpc->turn)
        r = error_set(error, ENOMEM, "socket");
    if (r >= 0 && !rpc->passed)
        r = make_socket(rpc, error);
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
    service_on_durable(service, on_durable, rpc);
    rpc->io = loop_io_new(rpc->loop, rpc->fd, LOOP_READ, on_accept, rpc);
}

void rpc_free(struct rpc *rpc)
{
    char path[108];

    if (!rpc)
        return;
    if (rpc->service) {
        service_on_durable(rpc->service, NULL, NULL);
        service_wait_durable(rpc->service);
    }
    for (struct client *client = rpc->clients; client; client = client->next)
        (void)client_flush(client);
    rpc->service = NULL;
    while (rpc->clients)
        client_free(rpc->clients);
    loop_timer_free(rpc->turn);
    loop_io_free(rpc->io);
    if (rpc->fd >= 0)
        close(rpc->fd);
    snprintf(path, sizeof(path), "%s/moat.sock", rpc->config->run_dir);
    if (!rpc->passed)
        unlink(path);
    free(rpc);
}

void rpc_event(struct rpc *rpc, const struct event *event)
{
    struct client *next;

    for (struct client *client = rpc->clients; client; client = next) {
        next = client->next;
        if (!client->subscribed || output_left(client) > RPC_OUTPUT_MAX)
            continue;
        proto_event_encode(&client->output, event);
        text_append_n(&client->output, "\n", 1);
        set_events(
            client); /* written from the loop: this may be called in the middle of an answer */
    }
}
