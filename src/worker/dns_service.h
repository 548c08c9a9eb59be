/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What becomes of one query, whatever it came by: who asks, is it well-formed, is it ours, is it in
 * the cache, does it go to upstream servers. The transports (dns_udp.h, dns_tcp.h) receive and
 * send. */
#pragma once

#include "worker/dns_alias.h"
#include "worker/dns_forward.h"
#include "worker/dns_give.h"
#include "worker/dns_log.h"
#include "worker/dns_permit.h"
#include "worker/dns_route.h"
#include "worker/dns_zone.h"

struct dns_service_stats {
    uint64_t queries;
    uint64_t local;
    uint64_t cached;
    uint64_t missed;
    uint64_t refused;
    uint64_t shed; /* beyond their guest's rate */
};

struct dns_service {
    struct zone *zone;
    struct dns_cache *cache;
    struct dns_forward *forward;
    struct dns_upstreams *upstreams; /* the host's; owned reference */
    struct dns_routes routes;
    struct dns_permits *permits; /* of guests with domain rules */
    struct dns_gives *gives;
    struct dns_quota host_quota;
    uint32_t rate; /* queries of one guest in a second; 0: any number */
    struct dns_service_stats stats;
    struct dns_log *log;
    bool logging;                    /* it is on */
    enum dns_source source;          /* of the answer that is being made */
    struct dns_alias alias;          /* of the query at hand */
    struct dns_name given;           /* of the reply at hand: whose addresses are given */
    uint8_t buffer[DNS_MESSAGE_MAX]; /* where late replies are built */
};

/* A query that waits: for upstream servers, then, with domain rules, for moatd. The transport
 * allocates it with room for the question behind it. */
struct dns_client {
    struct dns_waiter waiter;
    struct dns_give *give; /* what it waits for; NULL: upstream servers */
    struct dns_service *service;
    int64_t guest_id; /* 0: the host's */
    struct dns_terms terms;
    struct zone_network *network; /* whose gateway was asked */
    uint64_t started_us;          /* for the log; 0: it was off */
    enum dns_source source;       /* of the answer */
    struct dns_alias_place alias; /* whose records stand behind the question, if any */
    /* Sends the reply, or, with length 0, gives up; frees the client. */
    void (*reply)(struct dns_client *client, const uint8_t *data, size_t length);
    uint8_t *question; /* header and question as they came, and the records of aliases */
};

struct dns_request {
    struct zone_network *network; /* whose gateway was asked */
    struct ip source;
    uint8_t *data; /* the query; the reply is built in its place */
    size_t length;
    size_t capacity; /* at least DNS_UDP_MAX */
    uint64_t now_ms;
    bool tcp;
    /* Makes the client when the answer must wait: question (room for `length` bytes) and reply are
     * set, the rest zero. NULL: no room; SERVFAIL. */
    struct dns_client *(*client_new)(struct dns_request *request, size_t length);
    void *transport;     /* for client_new */
    uint64_t started_us; /* set while the log is on, else 0 */
    /* Set by dns_service_read: */
    uint32_t source_hash;
    enum dns_parse parse;
    struct dns_query query;
    /* Set by dns_service_answer: */
    struct dns_permit *permit;    /* NULL: no domain rules */
    struct dns_alias_place alias; /* that the reply begins with, if any */
};

/* The first step for each query of a batch: parses it. Then for each, if there are several: what
 * its answer will read is brought into the CPU's cache (as far as the first step could not). */
void dns_service_read(const struct dns_service *service, struct dns_request *request);
void dns_service_prefetch(const struct dns_service *service, const struct dns_request *request);
/* The last step. Length of the reply in request->data; 0: none, or not now. Never blocks; allocates
 * only for what must wait. */
size_t dns_service_answer(struct dns_service *service, struct dns_request *request);
/* The transport can't reply to this client any more: nothing waits for it from now on. */
void dns_service_cancel(struct dns_client *client);
/* For dns_gives_new. */
void dns_service_release(struct dns_client *client, uint8_t *data, size_t length,
                         enum dns_rcode rcode);
void dns_service_drop(struct dns_client *client);
/* Whose bounds count for this source; NULL: nobody's who gets answers. */
struct dns_quota *dns_service_quota(struct dns_service *service, struct zone_network *network,
                                    const struct ip *source);
