/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon, as the command sees it: one connection, typed calls. */
#pragma once

#include "base/cleanup.h"
#include "proto/proto.h"

struct remote;

/* Connects to the socket (NULL: the default). Returns 0, or -ENOTCONN with a text that names the
 * socket and the remedy. */
int remote_connect(const char *socket, struct remote **ret_remote, struct error *error);
/* Closes the connection; accepts NULL. */
void remote_free(struct remote *remote);
DEFINE_CLEANUP(struct remote, remote_free)
/* The socket that remote_connect connects to. */
const char *remote_socket_path(const char *socket);
/* For poll(2). */
int remote_fd(const struct remote *remote);

/* Calls and waits; answers to what was only sent before are passed over. Returns 0 with an answer
 * that holds a result, and that the caller frees; -ENOTCONN when the daemon went away, or another
 * negative code when it refused: the error is filled. */
int remote_call(struct remote *remote, enum method_id method, const union params *params,
                struct proto_response **ret_response, struct error *error);
/* Only calls: the answers, and events, are what remote_arrived gives, answers in the order of the
 * calls. Returns 0, -ENOTCONN or -ENOMEM with the error filled. */
int remote_send(struct remote *remote, enum method_id method, const union params *params,
                struct error *error);
/* The next answer or event that has arrived, if any. Returns 1 with one that the caller frees, 0,
 * or -ENOTCONN at the connection's end. Doesn't block. */
int remote_arrived(struct remote *remote, struct proto_response **ret_response);
/* Waits for the next event, for ever. Returns 0 or as remote_call. */
int remote_event(struct remote *remote, struct proto_response **ret_event, struct error *error);
/* Reads and forgets what has arrived. Returns 0, or -ENOTCONN at the connection's end. Doesn't
 * block. */
int remote_drain(struct remote *remote);
/* The daemon's process as a pidfd, which the caller closes; -1 where it isn't known (the socket is
 * another process's, such as the service manager's). */
int remote_open_daemon(const struct remote *remote);

DEFINE_CLEANUP(struct proto_response, proto_response_free)
