/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "remote.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

#include "moat/moat.h"

struct remote {
    struct moat *moat;
    uint32_t last_id;
    uint32_t owed; /* answers to what was only sent */
    char *socket;  /* for texts */
};

const char *remote_socket_path(const char *socket)
{
    if (!socket)
        socket = secure_getenv("MOAT_SOCKET");
    return socket && socket[0] ? socket : "/run/moat/moat.sock";
}

static const char *connect_remedy(int errnum)
{
    switch (errnum) {
    case EACCES:
    case EPERM:
        return "your user may not use it: become a member of the socket's group, or root";
    case ENAMETOOLONG:
        return "use a shorter path";
    default:
        return "is moatd running? start it, or name its socket by --socket or MOAT_SOCKET";
    }
}

int remote_connect(const char *socket, struct remote **ret_remote, struct error *error)
{
    struct remote *remote = calloc(1, sizeof(*remote));
    const char *path = remote_socket_path(socket);
    int r = -ENOMEM;

    if (remote)
        remote->socket = strdup(path);
    if (remote && remote->socket)
        r = moat_connect(path, &remote->moat);
    if (r < 0) {
        remote_free(remote);
        error_set(error, 0, "can't reach moatd at %s: %s; %s", path, strerror(-r),
                  connect_remedy(-r));
        return -ENOTCONN;
    }
    *ret_remote = remote;
    return 0;
}

void remote_free(struct remote *remote)
{
    if (!remote)
        return;
    moat_close(remote->moat);
    free(remote->socket);
    free(remote);
}

int remote_fd(const struct remote *remote)
{
    return moat_fd(remote->moat);
}

static int refuse_gone(const struct remote *remote, int r, struct error *error)
{
    error_set(error, 0, "moatd at %s ended the connection (%s); look at its log, then try again",
              remote->socket, strerror(-r));
    return -ENOTCONN;
}

static int receive(struct remote *remote, int timeout_ms, struct proto_response **ret_response,
                   struct error *error)
{
    _cleanup_free_ char *line = NULL;
    size_t length;
    int r = moat_receive(remote->moat, timeout_ms, &line, &length, NULL);

    if (r < 0)
        return refuse_gone(remote, r, error);
    return proto_response_parse(line, length, ret_response, error);
}

/* The next answer, or the next event; what is of the other kind is passed over. */
static int receive_kind(struct remote *remote, bool event, struct proto_response **ret_response,
                        struct error *error)
{
    for (;;) {
        struct proto_response *response;
        int r = receive(remote, -1, &response, error);

        if (r < 0)
            return r;
        if (proto_response_is_event(response) == event) {
            *ret_response = response;
            return 0;
        }
        proto_response_free(response);
    }
}

static int send_call(struct remote *remote, enum method_id method, const union params *params,
                     struct error *error)
{
    struct text text = {0};
    int r;

    proto_call_encode(&text, proto_method_get(method), params, ++remote->last_id);
    r = text.failed ? -ENOMEM : moat_send(remote->moat, text.data, text.length, NULL, 0);
    text_deinit(&text);
    if (r == -ENOMEM)
        return error_set(error, r, "call");
    /* A daemon that hangs up may have said why: EPIPE here does not keep from reading. */
    return r < 0 && r != -EPIPE ? refuse_gone(remote, r, error) : 0;
}

int remote_send(struct remote *remote, enum method_id method, const union params *params,
                struct error *error)
{
    int r = send_call(remote, method, params, error);

    remote->owed += r == 0;
    return r;
}

static int pass_over_owed(struct remote *remote, struct error *error)
{
    while (remote->owed > 0) {
        struct proto_response *response;
        int r = receive_kind(remote, false, &response, error);
        if (r < 0)
            return r;
        proto_response_free(response);
        remote->owed--;
    }
    return 0;
}

int remote_call(struct remote *remote, enum method_id method, const union params *params,
                struct proto_response **ret_response, struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    int r = send_call(remote, method, params, error);

    if (r == 0)
        r = pass_over_owed(remote, error);
    if (r == 0)
        r = receive_kind(remote, false, &response, error);
    if (r == 0)
        r = proto_response_error(response, error);
    if (r < 0)
        return r;
    *ret_response = TAKE_PTR(response);
    return 0;
}

int remote_event(struct remote *remote, struct proto_response **ret_event, struct error *error)
{
    return receive_kind(remote, true, ret_event, error);
}

int remote_arrived(struct remote *remote, struct proto_response **ret_response)
{
    _cleanup_free_ char *line = NULL;
    struct error ignored = ERROR_INIT;
    size_t length;
    int r = moat_receive(remote->moat, 0, &line, &length, NULL);

    if (r == -ETIMEDOUT)
        return 0;
    if (r == 0)
        r = proto_response_parse(line, length, ret_response, &ignored);
    if (r < 0)
        return -ENOTCONN;
    remote->owed -= remote->owed > 0 && !proto_response_is_event(*ret_response);
    return 1;
}

int remote_drain(struct remote *remote)
{
    struct proto_response *response;
    int r;

    while ((r = remote_arrived(remote, &response)) > 0)
        proto_response_free(response);
    return r;
}

int remote_open_daemon(const struct remote *remote)
{
    struct ucred credentials;
    socklen_t size = sizeof(credentials);

    /* Of the process that listens (unix(7)); 0 when it is outside our pid namespace. */
    if (getsockopt(remote_fd(remote), SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0 ||
        credentials.pid <= 1)
        return -1;
    return pidfd_open(credentials.pid, 0);
}
