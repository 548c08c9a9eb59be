/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Queries by TCP (RFC 7766, RFC 9210): pipelined, answered in the order in which answers are ready.
 */
#pragma once

#include "base/loop.h"
#include "worker/dns_service.h"
#include "worker/dns_udp.h" /* dns_sync_fn */

struct dns_tcp;          /* the transport */
struct dns_tcp_listener; /* one gateway's */
struct dns_connection;

#define DNS_TCP_QUERY_MAX 4096 /* bytes; who says that more will come is cut off */

struct dns_tcp_config {
    struct loop *loop;
    struct dns_service *service;
    dns_sync_fn sync; /* called between receiving and answering */
    void *userdata;
    uint32_t max_connections;           /* in all */
    uint32_t max_connections_per_asker; /* of one guest: beyond, its own oldest goes */
    uint32_t max_waiting; /* queries of one connection that wait for upstream servers */
    uint32_t idle_ms;     /* without a whole query or a reply */
};

struct dns_tcp *dns_tcp_new(const struct dns_tcp_config *config); /* NULL: no memory */
/* For connections from now on. */
void dns_tcp_set_max_per_asker(struct dns_tcp *tcp, uint32_t max_connections);
/* Closes all connections; after the listeners. */
void dns_tcp_free(struct dns_tcp *tcp);

/* Serves this socket, which listens already and is closed with it. NULL: no memory. */
struct dns_tcp_listener *dns_tcp_listen(struct dns_tcp *tcp, int fd, struct zone_network *network);
int dns_tcp_fd(const struct dns_tcp_listener *listener);
void dns_tcp_set_accepting(struct dns_tcp_listener *listener, bool accepting);
/* Closes it with its connections. */
void dns_tcp_close(struct dns_tcp_listener *listener);
/* Closes the connections that are counted there (their guest goes). */
void dns_tcp_close_all(struct dns_tcp *tcp, struct dns_quota *quota);
/* From now on connections end as soon as nothing is due on them. */
void dns_tcp_drain(struct dns_tcp *tcp);
uint32_t dns_tcp_count(const struct dns_tcp *tcp);
