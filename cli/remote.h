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
/* For poll(2). */
int remote_fd(const struct remote *remote);

/* Calls and waits. Returns 0 with an answer that holds a result, and that the caller frees;
 * -ENOTCONN when the daemon went away, or another negative code when it refused: the error is
 * filled. */
int remote_call(struct remote *remote, enum method_id method, const union params *params,
                struct proto_response **ret_response, struct error *error);
/* Waits for the next event, for ever. Returns 0 or as remote_call. */
int remote_event(struct remote *remote, struct proto_response **ret_event, struct error *error);
/* Reads and forgets what has arrived. Returns 0, or -ENOTCONN at the connection's end. Doesn't
 * block. */
int remote_drain(struct remote *remote);
/* The daemon's process as a pidfd, which the caller closes; -1 where it isn't known (the socket is
 * another process's, such as the service manager's). */
int remote_open_daemon(const struct remote *remote);

DEFINE_CLEANUP(struct proto_response, proto_response_free)
