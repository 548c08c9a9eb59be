/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Choosing subnets. Everything that the host uses counts: its addresses, the routes of all its
 * tables, its resolvers, and our own networks. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "service/private.h"

static int used_add(struct used_prefixes *used, const struct cidr *cidr, struct error *error,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));

static int used_add(struct used_prefixes *used, const struct cidr *cidr, struct error *error,
                    const char *format, ...)
{
    struct used_prefix *items = reallocarray(used->items, used->count + 1, sizeof(*items));
    va_list arguments;

    if (!items)
        return error_set(error, ENOMEM, "subnets");
    used->items = items;
    items[used->count].cidr = cidr_mask(cidr);
    va_start(arguments, format);
    vsnprintf(items[used->count].text, sizeof(items[used->count].text), format, arguments);
    va_end(arguments);
    used->count++;
    return 0;
}

static int add_networks(struct service *service, int64_t except_id, struct used_prefixes *used,
                        struct error *error)
{
    struct network *networks = NULL;
    size_t count = 0;
    int r = store_network_list(service->store, &networks, &count, error);

    for (size_t i = 0; i < count; i++) {
        char text[CIDR_TEXT_MAX];

        if (r >= 0 && networks[i].id != except_id && cidr_is_set(&networks[i].subnet))
            r = used_add(used, &networks[i].subnet, error, "network %s (%s)", networks[i].name,
                         cidr_format(&networks[i].subnet, text));
        if (r >= 0 && networks[i].id != except_id && cidr_is_set(&networks[i].subnet6))
            r = used_add(used, &networks[i].subnet6, error, "network %s (%s)", networks[i].name,
                         cidr_format(&networks[i].subnet6, text));
        network_deinit(&networks[i]);
    }
    free(networks);
    return r;
}

static int add_prefix(struct used_prefixes *used, const struct link_prefix *prefix,
                      struct error *error)
{
    char text[CIDR_TEXT_MAX];

    if (prefix->ours)
        return 0; /* counted as a network, or about to go */
    cidr_format(&prefix->cidr, text);
    if (prefix->kind == LINK_PREFIX_ADDRESS)
        return used_add(used, &prefix->cidr, error, "link %s (address %s)", prefix->interface,
                        text);
    return used_add(used, &prefix->cidr, error, "route %s%s%s in table %u", text,
                    prefix->interface[0] ? " dev " : "", prefix->interface, prefix->table);
}

static int add_host(struct service *service, struct used_prefixes *used, struct error *error)
{
    struct link_prefix *prefixes = NULL;
    size_t count = 0;
    int r = prefixes_list(service, &prefixes, &count, error);

    /* addresses first: the better name for what a connected route says as well */
    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (prefixes[i].kind == LINK_PREFIX_ADDRESS)
            r = add_prefix(used, &prefixes[i], error);
    }
    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (prefixes[i].kind == LINK_PREFIX_ROUTE)
            r = add_prefix(used, &prefixes[i], error);
    }
    free(prefixes);
    return r;
}

static int add_servers(struct used_prefixes *used, const struct ips *servers, const char *what,
                       struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < servers->count; i++) {
        struct cidr cidr = {servers->items[i], (uint8_t)ip_bits(servers->items[i].family)};
        char text[IP_TEXT_MAX];

        r = used_add(used, &cidr, error, "%s %s", what, ip_format(&servers->items[i], text));
    }
    return r;
}

static int add_resolvers(struct service *service, struct used_prefixes *used, struct error *error)
{
    const struct config *config = service->config;
    int r = add_servers(used, names_upstreams(service->names), "the host's resolver", error);

    for (size_t i = 0; r >= 0 && i < config->n_forwards; i++)
        r = add_servers(used, &config->forwards[i].servers, "the configured resolver", error);
    return r;
}

int used_prefixes_collect(struct service *service, int64_t except_id,
                          struct used_prefixes *ret_used, struct error *error)
{
    struct used_prefixes used = {0};
    int r = add_networks(service, except_id, &used, error);

    if (r >= 0)
        r = add_host(service, &used, error);
    if (r >= 0)
        r = add_resolvers(service, &used, error);
    if (r < 0) {
        used_prefixes_deinit(&used);
        return r;
    }
    *ret_used = used;
    return 0;
}

void used_prefixes_deinit(struct used_prefixes *used)
{
    free(used->items);
    *used = (struct used_prefixes){0};
}

const struct used_prefix *used_prefixes_find(const struct used_prefixes *used,
                                             const struct cidr *cidr)
{
    for (size_t i = 0; i < used->count; i++) {
        if (used->items[i].cidr.ip.family == cidr->ip.family &&
            cidr_overlaps(&used->items[i].cidr, cidr))
            return &used->items[i];
    }
    return NULL;
}

/* The first free prefix of the pool; candidates jump over whatever they hit, so the cost is the
 * number of used prefixes, not of candidates. */
static bool pool_choose(const struct cidr *pool, unsigned prefix, const struct used_prefixes *used,
                        struct cidr *ret_subnet)
{
    struct cidr candidate = {pool->ip, (uint8_t)prefix};

    if (prefix < pool->prefix)
        return false;
    while (cidr_contains_ip(pool, &candidate.ip)) {
        const struct used_prefix *hit = used_prefixes_find(used, &candidate);
        struct ip last;
        struct ip next;

        if (!hit) {
            *ret_subnet = candidate;
            return true;
        }
        last = cidr_last(hit->cidr.prefix < prefix ? &hit->cidr : &candidate);
        next = ip_add(&last, 1);
        if (ip_compare(&next, &candidate.ip) <= 0)
            return false; /* wrapped */
        candidate.ip = next;
    }
    return false;
}

int subnet_choose(struct service *service, const char *preferred, unsigned prefix,
                  const struct used_prefixes *used, struct cidr *ret_subnet, struct error *error)
{
    struct cidr cidr;

    if (preferred && cidr_parse(preferred, &cidr) == 0 && !used_prefixes_find(used, &cidr)) {
        *ret_subnet = cidr;
        return 0;
    }
    for (size_t i = 0; i < service->config->pools.count; i++) {
        struct cidr pool;

        if (cidr_parse(service->config->pools.items[i], &pool) == 0 &&
            pool_choose(&pool, prefix, used, ret_subnet))
            return 0;
    }
    return error_set_reason(
        error, REASON_NO_FREE_SUBNET,
        "no free /%u is left in the pools; give one with --subnet, or add a pool to moat.conf",
        prefix);
}

/* FNV-1a, 64 bits: spreads the seed and the name over the 56 free bits of fd00::/8 up to /64. */
static uint64_t hash(uint64_t value, const char *text)
{
    for (; *text; text++)
        value = (value ^ (unsigned char)*text) * 0x100000001b3ull;
    return value;
}

int subnet6_choose(struct service *service, const char *network, const struct used_prefixes *used,
                   struct cidr *ret_subnet, struct error *error)
{
    _cleanup_free_ char *seed = NULL;
    int r = store_setting_get(service->store, "ula_seed", &seed, error);

    if (r < 0)
        return r;
    if (!seed) {
        char fresh[ID_TEXT_LENGTH + 1];

        id_generate(fresh);
        r = store_setting_set(service->store, "ula_seed", fresh, error);
        if (r < 0)
            return r;
        seed = strdup(fresh);
        if (!seed)
            return error_set(error, ENOMEM, "subnet");
    }
    for (unsigned attempt = 0; attempt < 64; attempt++) {
        uint64_t global = hash(0xcbf29ce484222325ull, seed);
        uint64_t subnet = hash(0xcbf29ce484222325ull + attempt, network);
        struct cidr cidr = {.prefix = 64};
        uint8_t *bytes = cidr.ip.bytes;

        cidr.ip.family = AF_INET6;
        bytes[0] = 0xfd; /* RFC 4193 section 3.1: fd, 40 bits global ID, 16 bits subnet ID */
        for (unsigned i = 0; i < 5; i++)
            bytes[1 + i] = (uint8_t)(global >> (8 * i));
        bytes[6] = (uint8_t)(subnet >> 24);
        bytes[7] = (uint8_t)(subnet >> 40);
        if (!used_prefixes_find(used, &cidr)) {
            *ret_subnet = cidr;
            return 0;
        }
    }
    return error_set_reason(error, REASON_NO_FREE_SUBNET,
                            "no free IPv6 /64 was found; give one with --subnet6");
}
