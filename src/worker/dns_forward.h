/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Questions that upstream servers answer. Each is asked once, whoever waits for it; the first good
 * answer goes to all that wait and into the cache. */
#pragma once

#include "base/loop.h"
#include "worker/dns_cache.h"
#include "worker/dns_upstream.h"
#include "worker/dns_zone.h"

struct dns_forward;
struct dns_question;

struct dns_waiter;
struct dns_waiter_ops {
    /* The answer; NULL: none could be had (SERVFAIL). Valid during the call, which must free the
     * waiter. */
    void (*answer)(struct dns_waiter *waiter, const struct dns_stored *stored);
    /* Nobody waits any more (its guest is gone): free it. */
    void (*drop)(struct dns_waiter *waiter);
};

/* One client's wait for one question; the transport embeds it. */
struct dns_waiter {
    const struct dns_waiter_ops *ops; /* set by the caller, like quota */
    struct dns_quota *quota;
    struct dns_question *question;
    struct dns_waiter *next; /* of the question */
    struct dns_waiter *prev;
    struct dns_waiter *newer; /* of the quota */
    struct dns_waiter *older;
};

struct dns_forward_config {
    struct loop *loop;
    struct dns_cache *cache;
    uint16_t port;        /* of upstream servers: 53 */
    uint32_t max_waiters; /* of one asker: when there are more, its oldest fails */
    uint32_t max_sockets; /* in all */
    bool stale;           /* what has expired in the cache answers where nobody else does */
    /* Must this answer be kept from who asked? Not called for servers that are trusted; NULL: no
     * answer is. */
    bool (*refuses)(void *userdata, const uint8_t *data, const struct dns_answer *answer);
    void *userdata;
};

struct dns_forward_stats {
    uint64_t questions; /* asked of upstream servers */
    uint64_t failed;    /* of them, without a good answer */
    uint64_t shed;      /* waiters that had to make room */
    uint64_t strays;    /* datagrams that answer nothing that was asked */
    uint64_t stale;     /* questions that were answered by what had expired */
    uint64_t refused;   /* answers that were kept from who asked */
};

struct dns_forward *dns_forward_new(const struct dns_forward_config *config); /* NULL: no memory */
/* For what comes from now on. */
void dns_forward_set_max_waiters(struct dns_forward *forward, uint32_t max_waiters);
void dns_forward_set_stale(struct dns_forward *forward, bool stale);
/* Drops all that wait. */
void dns_forward_free(struct dns_forward *forward);

/* Asks, or joins those who have asked. The waiter's answer comes by its ops, maybe before this
 * returns. 0, -ENOMEM, or -ENETUNREACH when the set is empty: then the waiter stays the caller's.
 */
int dns_forward_ask(struct dns_forward *forward, struct dns_upstreams *upstreams,
                    const struct dns_query *query, struct dns_waiter *waiter);
/* Takes a waiter out, which is the caller's then. The question goes on for the cache's sake. */
void dns_forward_cancel(struct dns_forward *forward, struct dns_waiter *waiter);
/* Drops all that wait on this quota. */
void dns_forward_cancel_all(struct dns_forward *forward, struct dns_quota *quota);
/* Does anybody wait? */
bool dns_forward_is_busy(const struct dns_forward *forward);
const struct dns_forward_stats *dns_forward_stats(const struct dns_forward *forward);
void dns_forward_key(struct dns_cache_key *key, const struct dns_upstreams *upstreams,
                     const struct dns_query *query);
