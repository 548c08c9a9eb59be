/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_upstream.h"

#include <stdlib.h>

#define BAND_FIRST_US 16000
#define PROBE_FIRST_MS 1000 /* after a failure; doubled by each further one */
#define PROBE_LAST_MS 30000
#define FAILURES_MAX 16

struct dns_upstream_pool {
    struct dns_server *servers;
    struct dns_upstreams *sets;
    uint32_t last_id;
};

struct dns_upstream_pool *dns_upstream_pool_new(void)
{
    return calloc(1, sizeof(struct dns_upstream_pool));
}

void dns_upstream_pool_free(struct dns_upstream_pool *pool)
{
    free(pool);
}

static struct dns_server *server_get(struct dns_upstream_pool *pool, const struct ip *ip)
{
    struct dns_server *server = pool->servers;

    while (server && !ip_equal(&server->ip, ip))
        server = server->next;
    if (!server) {
        server = calloc(1, sizeof(*server));
        if (!server)
            return NULL;
        server->ip = *ip;
        server->next = pool->servers;
        pool->servers = server;
    }
    server->references++;
    return server;
}

static void server_put(struct dns_upstream_pool *pool, struct dns_server *server)
{
    struct dns_server **link = &pool->servers;

    if (--server->references > 0)
        return;
    while (*link != server)
        link = &(*link)->next;
    *link = server->next;
    free(server);
}

static bool set_has(const struct dns_upstreams *set, const struct ip *ip)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (ip_equal(&set->servers[i]->ip, ip))
            return true;
    return false;
}

static bool set_equal(const struct dns_upstreams *a, const struct dns_upstreams *b)
{
    if (a->count != b->count || a->trusted != b->trusted)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (a->servers[i] != b->servers[i])
            return false;
    return true;
}

static void set_free(struct dns_upstreams *set)
{
    for (uint32_t i = 0; i < set->count; i++)
        server_put(set->pool, set->servers[i]);
    free(set);
}

/* Becomes one of the pool's sets, or gives way to the same one that is there. */
static struct dns_upstreams *set_intern(struct dns_upstreams *set)
{
    struct dns_upstream_pool *pool = set->pool;

    for (struct dns_upstreams *other = pool->sets; other; other = other->next) {
        if (set_equal(other, set)) {
            set_free(set);
            return dns_upstreams_reference(other);
        }
    }
    set->id = ++pool->last_id;
    set->references = 1;
    set->next = pool->sets;
    pool->sets = set;
    return set;
}

static struct dns_upstreams *set_make(struct dns_upstream_pool *pool, const struct ip *ips,
                                      size_t count, bool trusted)
{
    struct dns_upstreams *set = calloc(1, sizeof(*set));

    if (!set)
        return NULL;
    set->pool = pool;
    set->trusted = trusted;
    for (size_t i = 0; i < count && set->count < DNS_UPSTREAMS_MAX; i++) {
        if (set_has(set, &ips[i]))
            continue;
        set->servers[set->count] = server_get(pool, &ips[i]);
        if (!set->servers[set->count]) {
            set_free(set);
            return NULL;
        }
        set->count++;
    }
    return set_intern(set);
}

struct dns_upstreams *dns_upstreams_get(struct dns_upstream_pool *pool, const struct ip *ips,
                                        size_t count)
{
    return set_make(pool, ips, count, false);
}

struct dns_upstreams *dns_upstreams_get_trusted(struct dns_upstream_pool *pool,
                                                const struct ip *ips, size_t count)
{
    return set_make(pool, ips, count, true);
}

struct dns_upstreams *dns_upstreams_reference(struct dns_upstreams *set)
{
    set->references++;
    return set;
}

void dns_upstreams_put(struct dns_upstreams *set)
{
    struct dns_upstreams **link;

    if (!set || --set->references > 0)
        return;
    link = &set->pool->sets;
    while (*link != set)
        link = &(*link)->next;
    *link = set->next;
    set_free(set);
}

static unsigned server_band(const struct dns_server *server)
{
    unsigned band = 0;

    for (uint32_t limit = BAND_FIRST_US; server->latency_us >= limit && band < 16; limit *= 2)
        band++;
    return band;
}

static bool server_before(const struct dns_server *a, const struct dns_server *b)
{
    if (a->failures != b->failures)
        return a->failures < b->failures;
    return server_band(a) < server_band(b);
}

void dns_upstreams_order(const struct dns_upstreams *set, struct dns_server **ret_order)
{
    for (uint32_t i = 0; i < set->count; i++) {
        uint32_t at = i;

        while (at > 0 && server_before(set->servers[i], ret_order[at - 1])) {
            ret_order[at] = ret_order[at - 1];
            at--;
        }
        ret_order[at] = set->servers[i];
    }
}

void dns_server_answered(struct dns_server *server, uint32_t latency_us)
{
    if (latency_us == 0)
        latency_us = 1;
    server->failures = 0;
    if (server->latency_us == 0)
        server->latency_us = latency_us;
    else
        server->latency_us = (uint32_t)(((uint64_t)server->latency_us * 7 + latency_us) / 8);
}

static uint64_t probe_delay(const struct dns_server *server)
{
    uint64_t delay = PROBE_FIRST_MS;

    if (server->failures == 0)
        return PROBE_LAST_MS;
    for (uint32_t i = 1; i < server->failures && delay < PROBE_LAST_MS; i++)
        delay *= 2;
    return delay < PROBE_LAST_MS ? delay : PROBE_LAST_MS;
}

void dns_server_slow(struct dns_server *server, uint32_t waited_us, uint64_t now_ms)
{
    if (server->latency_us < waited_us)
        server->latency_us = waited_us;
    server->probe_ms = now_ms + probe_delay(server);
}

void dns_server_failed(struct dns_server *server, uint64_t now_ms)
{
    if (server->failures < FAILURES_MAX)
        server->failures++;
    server->probe_ms = now_ms + probe_delay(server);
}

bool dns_server_probe_due(struct dns_server *server, uint64_t now_ms)
{
    bool doubtful = server->failures > 0 || server_band(server) > 0;

    if (!doubtful || now_ms < server->probe_ms)
        return false;
    server->probe_ms = now_ms + probe_delay(server);
    return true;
}
