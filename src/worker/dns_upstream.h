/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Upstream name servers and how well they answer. A *server* is one address with its record; a
 * *set* is the list that a guest, a network or the host uses. Both are shared by everybody who
 * names the same ones, so that what was learnt about a server serves all. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"

#define DNS_UPSTREAMS_MAX 8 /* servers of one set; more are left out */

struct dns_server {
    struct dns_server *next;
    uint32_t references;
    struct ip ip;
    uint32_t latency_us; /* smoothed; 0: not known yet */
    uint32_t failures;   /* in a row */
    uint64_t probe_ms; /* when it is asked again beside the one that is used, to see how it does */
    bool plain;        /* answers FORMERR to EDNS: asked without */
    bool folds_case;   /* does not keep the case of the question: no 0x20 */
};

struct dns_upstream_pool;

struct dns_upstreams {
    struct dns_upstreams *next;
    struct dns_upstream_pool *pool;
    uint32_t id; /* never used again: part of the cache's key */
    uint32_t references;
    uint32_t count;
    bool trusted;                                  /* with private addresses too (dns_rebind.h) */
    struct dns_server *servers[DNS_UPSTREAMS_MAX]; /* in the order given */
};

struct dns_upstream_pool *dns_upstream_pool_new(void); /* NULL: no memory */
/* All sets must have been put. */
void dns_upstream_pool_free(struct dns_upstream_pool *pool);

/* The set of these servers, in this order; doubles left out. A reference, given back by put. NULL:
 * no memory. An empty set is fine. */
struct dns_upstreams *dns_upstreams_get(struct dns_upstream_pool *pool, const struct ip *ips,
                                        size_t count);
/* The same, for names that have servers of their own. */
struct dns_upstreams *dns_upstreams_get_trusted(struct dns_upstream_pool *pool,
                                                const struct ip *ips, size_t count);
struct dns_upstreams *dns_upstreams_reference(struct dns_upstreams *set);
void dns_upstreams_put(struct dns_upstreams *set); /* NULL is fine */

/* The servers in the order in which to ask: those that answer before those that failed; then by
 * latency, in steps of doubling from 16 ms, so that small differences do not overturn the order
 * that the administrator gave. ret_order has room for DNS_UPSTREAMS_MAX. */
void dns_upstreams_order(const struct dns_upstreams *set, struct dns_server **ret_order);
void dns_server_answered(struct dns_server *server, uint32_t latency_us);
/* It has not answered for so long; it may yet. */
void dns_server_slow(struct dns_server *server, uint32_t waited_us, uint64_t now_ms);
/* No answer, or one that is none. */
void dns_server_failed(struct dns_server *server, uint64_t now_ms);
/* Is it time to see whether a server that failed or was slow does better? Moves its time on when it
 * is. */
bool dns_server_probe_due(struct dns_server *server, uint64_t now_ms);
