/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The socket: who is asking, which method, limits. One JSON document per line in both directions.
 * Requests of one connection are answered in order; connections take turns, one line each, so that
 * a busy one does not hold up the others. A client that does not read its answers is not read from
 * either, and is dropped when its answers pile up beyond RPC_OUTPUT_MAX. */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "base/loop.h"
#include "service/service.h"

#define RPC_OUTPUT_MAX ((size_t)16 << 20)    /* bytes that wait for one slow client */
#define RPC_OUTPUT_PAUSE ((size_t)256 << 10) /* from here on nothing more is read from it */

struct rpc;

/* Can there be a socket in the run directory (its path has a limit)? Asked before anything is made.
 */
int rpc_check(const struct config *config, struct error *error);
/* Makes the socket RUN_DIR/moat.sock (mode and group by the configuration), or takes listen_fd
 * (passed by systemd) when it is not -1. The directory must exist. */
int rpc_new(const struct config *config, struct loop *loop, int listen_fd, struct rpc **ret_rpc,
            struct error *error);
/* From here on requests are served. */
void rpc_start(struct rpc *rpc, struct service *service);
/* Closes all connections and removes the socket file, unless systemd passed it. Ephemeral guests
 * are left to their owners: this is the end of the daemon, not of the guests. */
void rpc_free(struct rpc *rpc);
/* To every connection that is subscribed to it. */
void rpc_event(struct rpc *rpc, const struct event *event);
