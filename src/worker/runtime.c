/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An epoll instance holds the control channel, the listener for the next moatd, and that one's
 * connection until it has asked for the sockets (the candidate). A candidate that asks becomes the
 * control channel. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "worker/channel.h"
#include "worker/worker.h"

#define SEND_QUEUE_MAX 256
#define HANDOVER_TIMEOUT_MS 1000

struct worker_runtime {
    int epoll_fd;
    int listener_fd; /* -1: none */
    uid_t moatd_uid; /* who may take over */
    struct channel control;
    struct channel candidate;
    bool control_is_watched_for_write;
    bool draining;
    const struct worker_kind_ops *ops; /* NULL before worker_runtime_start */
    void *userdata;
    struct channel_message message;
};

struct worker_handover {
    struct channel *channel;
    uint64_t deadline_ms;
    int code; /* the first failure: nothing is sent after it */
    size_t n_sockets;
    size_t n_sent;
    struct worker_socket sockets[WORKER_FDS_MAX];
    int fds[WORKER_FDS_MAX];
};

/* ---------------------------------------------------------------- SIGTERM */

static volatile sig_atomic_t is_orphan;

/* With moatd there, stopping is its business. An orphan obeys: nobody else could stop it at
 * shutdown. */
static void sigterm_received(int signal_number)
{
    (void)signal_number;
    if (is_orphan)
        _exit(0);
}

static void sigterm_init(void)
{
    struct sigaction action = {.sa_handler = sigterm_received, .sa_flags = SA_RESTART};

    sigaction(SIGTERM, &action, NULL);
}

/* ---------------------------------------------------------------- descriptors */

static int watch(struct worker_runtime *runtime, int fd, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data = {.fd = fd}};

    return epoll_ctl(runtime->epoll_fd, operation, fd, &event);
}

/* Closing does not end a watch while another process has the descriptor too (epoll(7)). */
static void channel_close(struct worker_runtime *runtime, struct channel *channel)
{
    if (!channel_is_open(channel))
        return;
    watch(runtime, channel->fd, 0, EPOLL_CTL_DEL);
    channel_deinit(channel);
}

/* Whoever started moatd may wait for the end of its log: it must not be held open any longer.
 * Standard input is /dev/null. */
static void log_detach(void)
{
    if (close(STDERR_FILENO) == 0 && dup(STDIN_FILENO) != STDERR_FILENO)
        abort();
}

static void control_lost(struct worker_runtime *runtime)
{
    channel_close(runtime, &runtime->control);
    runtime->control_is_watched_for_write = false;
    is_orphan = 1;
    log_debug("moatd is gone");
    log_detach();
}

static void control_watch(struct worker_runtime *runtime)
{
    bool write = runtime->control.first != NULL;

    if (!channel_is_open(&runtime->control) || write == runtime->control_is_watched_for_write)
        return;
    watch(runtime, runtime->control.fd, EPOLLIN | (write ? (uint32_t)EPOLLOUT : 0), EPOLL_CTL_MOD);
    runtime->control_is_watched_for_write = write;
}

static int control_send(struct worker_runtime *runtime, uint16_t type, const void *payload,
                        size_t length)
{
    int code = channel_send(&runtime->control, type, payload, length, NULL, 0);

    control_watch(runtime);
    return code;
}

static uid_t peer_uid(int fd)
{
    struct ucred credentials;
    socklen_t length = sizeof(credentials);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return (uid_t)-1;
    return credentials.uid;
}

static int fd_set_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

struct worker_runtime *worker_runtime_new(int control_fd, int listener_fd)
{
    struct worker_runtime *runtime = calloc(1, sizeof(*runtime));

    if (!runtime) {
        close(control_fd);
        if (listener_fd >= 0)
            close(listener_fd);
        return NULL;
    }
    channel_init(&runtime->control, control_fd);
    channel_init(&runtime->candidate, -1);
    runtime->listener_fd = listener_fd;
    runtime->moatd_uid = peer_uid(control_fd);
    runtime->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (runtime->epoll_fd < 0 || watch(runtime, control_fd, EPOLLIN, EPOLL_CTL_ADD) < 0 ||
        (listener_fd >= 0 && (fd_set_nonblock(listener_fd) < 0 ||
                              watch(runtime, listener_fd, EPOLLIN, EPOLL_CTL_ADD) < 0))) {
        worker_runtime_free(runtime);
        return NULL;
    }
    is_orphan = 0;
    sigterm_init();
    return runtime;
}

void worker_runtime_free(struct worker_runtime *runtime)
{
    if (!runtime)
        return;
    channel_deinit(&runtime->control);
    channel_deinit(&runtime->candidate);
    if (runtime->listener_fd >= 0)
        close(runtime->listener_fd);
    if (runtime->epoll_fd >= 0)
        close(runtime->epoll_fd);
    free(runtime);
}

void worker_runtime_start(struct worker_runtime *runtime, const struct worker_kind_ops *ops,
                          void *userdata)
{
    runtime->ops = ops;
    runtime->userdata = userdata;
}

int worker_runtime_fd(const struct worker_runtime *runtime)
{
    return runtime->epoll_fd;
}

bool worker_runtime_is_draining(const struct worker_runtime *runtime)
{
    return runtime->draining;
}

bool worker_runtime_is_done(struct worker_runtime *runtime)
{
    return runtime->ops && (runtime->draining || !channel_is_open(&runtime->control)) &&
           !runtime->ops->serves(runtime->userdata);
}

int worker_runtime_send(struct worker_runtime *runtime, uint16_t type, const void *payload,
                        size_t length)
{
    if (!channel_is_open(&runtime->control))
        return -ENOTCONN;
    if (runtime->control.n_queued >= SEND_QUEUE_MAX)
        return -ENOBUFS;
    return control_send(runtime, type, payload, length);
}

/* ---------------------------------------------------------------- handover */

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The one place that waits: the sockets are on their way to a moatd that does nothing but wait for
 * them. */
static int handover_wait_writable(struct worker_handover *handover)
{
    uint64_t now = now_ms();
    struct pollfd channel = {.fd = handover->channel->fd, .events = POLLOUT};

    if (now >= handover->deadline_ms || poll(&channel, 1, (int)(handover->deadline_ms - now)) == 0)
        return -ETIMEDOUT;
    return 0;
}

static void handover_send(struct worker_handover *handover, uint16_t type, const void *payload,
                          size_t length, const int *fds, size_t n_fds)
{
    if (handover->code == 0)
        handover->code = channel_send(handover->channel, type, payload, length, fds, n_fds);
    while (handover->code == 0) {
        int code = channel_flush(handover->channel);

        if (code == 0)
            return;
        handover->code = code == -EAGAIN ? handover_wait_writable(handover) : code;
    }
}

static void handover_flush(struct worker_handover *handover)
{
    if (!handover->n_sockets)
        return;
    handover_send(handover, WORKER_SOCKET, handover->sockets,
                  handover->n_sockets * sizeof(handover->sockets[0]), handover->fds,
                  handover->n_sockets);
    handover->n_sent += handover->n_sockets;
    handover->n_sockets = 0;
}

void worker_handover_add(struct worker_handover *handover, const struct worker_socket *socket,
                         int fd)
{
    handover->sockets[handover->n_sockets] = *socket;
    handover->fds[handover->n_sockets++] = fd;
    if (handover->n_sockets == WORKER_FDS_MAX)
        handover_flush(handover);
}

/* The candidate becomes the control channel: it may go on speaking to a draining worker. */
static void candidate_adopt(struct worker_runtime *runtime)
{
    channel_close(runtime, &runtime->control);
    runtime->control = runtime->candidate;
    if (!runtime->control.first)
        runtime->control.last = &runtime->control.first;
    channel_init(&runtime->candidate, -1);
    runtime->control_is_watched_for_write = false;
    is_orphan = 0;
    control_watch(runtime);
}

static void control_drain(struct worker_runtime *runtime);

/* What the former moatd still said is obeyed first, so that what is handed over is what it meant. A
 * handover that fails changes nothing here: the next moatd may ask again. */
static void takeover(struct worker_runtime *runtime)
{
    struct worker_handover handover = {.channel = &runtime->candidate,
                                       .deadline_ms = now_ms() + HANDOVER_TIMEOUT_MS};

    control_drain(runtime);
    if (!runtime->draining) {
        runtime->ops->sockets(runtime->userdata, &handover);
        handover_flush(&handover);
    }
    handover_send(&handover, WORKER_DONE, NULL, 0, NULL, 0);
    if (handover.code < 0) {
        log_warning("cannot hand the sockets over to the new moatd: %s", strerror(-handover.code));
        channel_close(runtime, &runtime->candidate);
        return;
    }
    log_info("handed %zu sockets over to the new moatd", handover.n_sent);
    candidate_adopt(runtime);
    if (!runtime->draining) {
        runtime->draining = true;
        runtime->ops->drain(runtime->userdata);
    }
}

static void candidate_accept(struct worker_runtime *runtime)
{
    int fd = accept4(runtime->listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (peer_uid(fd) != runtime->moatd_uid) {
        log_warning("uid %u is not moatd: refused", peer_uid(fd));
        close(fd);
        return;
    }
    /* The last one that came is the one that lives. */
    channel_close(runtime, &runtime->candidate);
    channel_init(&runtime->candidate, fd);
    if (watch(runtime, fd, EPOLLIN, EPOLL_CTL_ADD) < 0)
        channel_deinit(&runtime->candidate);
}

static void candidate_receive(struct worker_runtime *runtime)
{
    int code = channel_receive(&runtime->candidate, &runtime->message);

    if (code == -EAGAIN)
        return;
    if (code == 1)
        channel_message_close_fds(&runtime->message);
    if (code == 1 && runtime->message.header.type == WORKER_TAKEOVER)
        takeover(runtime);
    else
        channel_close(runtime, &runtime->candidate);
}

/* ---------------------------------------------------------------- control */

static void message_handle(struct worker_runtime *runtime, struct channel_message *message)
{
    uint16_t type = message->header.type;

    if (message->fds_lost)
        log_warning("out of descriptors: a message of type %u came without some of its own", type);
    if (type == WORKER_SYNC)
        control_send(runtime, WORKER_SYNC, message->payload, message->header.length);
    else if (type >= WORKER_FIRST_OWN)
        runtime->ops->message(runtime->userdata, type, message->payload, message->header.length,
                              message->fds, message->n_fds);
    else
        log_debug("ignored a message of type %u", type);
    channel_message_close_fds(message);
}

static void control_drain(struct worker_runtime *runtime)
{
    while (channel_is_open(&runtime->control)) {
        int code = channel_receive(&runtime->control, &runtime->message);

        if (code == 1) {
            message_handle(runtime, &runtime->message);
        } else if (code == -EPROTO) {
            log_warning("ignored a malformed message from moatd");
        } else {
            if (code != -EAGAIN)
                control_lost(runtime);
            return;
        }
    }
}

static void control_flush(struct worker_runtime *runtime)
{
    int code = channel_flush(&runtime->control);

    if (code < 0 && code != -EAGAIN)
        control_lost(runtime);
    else
        control_watch(runtime);
}

void worker_runtime_handle(struct worker_runtime *runtime)
{
    struct epoll_event events[4];
    int count;

    if (!runtime->ops)
        return;
    do
        count = epoll_wait(runtime->epoll_fd, events, ARRAY_SIZE(events), 0);
    while (count < 0 && errno == EINTR);
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;

        if (fd == runtime->control.fd && (events[i].events & EPOLLOUT))
            control_flush(runtime);
        if (fd == runtime->control.fd && (events[i].events & ~(uint32_t)EPOLLOUT))
            control_drain(runtime);
        else if (fd == runtime->candidate.fd)
            candidate_receive(runtime);
        else if (fd == runtime->listener_fd)
            candidate_accept(runtime);
    }
}
