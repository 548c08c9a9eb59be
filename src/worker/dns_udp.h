/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Queries by UDP: taken, answered and sent in batches. */
#pragma once

#include "base/loop.h"
#include "worker/dns_service.h"

struct dns_udp;        /* the transport: buffers that all its sockets share */
struct dns_udp_socket; /* one gateway's */

/* Called between receiving queries and answering them; may open and close sockets. */
typedef void (*dns_sync_fn)(void *userdata);

/* service and loop stay the caller's. NULL: no memory. */
struct dns_udp *dns_udp_new(struct loop *loop, struct dns_service *service, dns_sync_fn sync,
                            void *userdata);
void dns_udp_free(struct dns_udp *udp); /* after its sockets */

/* Serves this bound socket, which is closed with it. NULL: no memory (the descriptor stays the
 * caller's). */
struct dns_udp_socket *dns_udp_open(struct dns_udp *udp, int fd, struct zone_network *network);
int dns_udp_fd(const struct dns_udp_socket *socket);
/* Stops or starts receiving; answers that are due are sent all the same. */
void dns_udp_set_receiving(struct dns_udp_socket *socket, bool receiving);
/* Drops who waits on it, and closes. */
void dns_udp_close(struct dns_udp_socket *socket);
