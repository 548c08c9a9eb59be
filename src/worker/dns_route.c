/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_route.h"

#include <errno.h>
#include <stdlib.h>

#define SALT_SUFFIX 4

struct dns_route {
    struct dns_upstreams *upstreams; /* owned reference */
    struct dns_name suffix;
};

/* A suffix as it stands in a name: to the root's byte. */
struct suffix {
    const uint8_t *wire;
    size_t length;
};

static uint32_t suffix_hash(const struct suffix *suffix)
{
    return dns_hash(suffix->wire, suffix->length, SALT_SUFFIX);
}

static bool route_has_suffix(const void *item, const void *wanted)
{
    const struct dns_route *route = item;
    const struct suffix *suffix = wanted;

    return route->suffix.length == suffix->length &&
           memcmp(route->suffix.wire, suffix->wire, suffix->length) == 0;
}

static struct dns_route *route_find(const struct dns_routes *routes, const struct suffix *suffix)
{
    return dns_table_find(&routes->table, suffix_hash(suffix), route_has_suffix, suffix);
}

static int route_add(struct dns_routes *routes, const struct dns_name *name,
                     struct dns_upstreams *upstreams)
{
    struct suffix suffix = {.wire = name->wire, .length = name->length};
    struct dns_route *route = calloc(1, sizeof(*route));

    if (!route || dns_table_add(&routes->table, suffix_hash(&suffix), route) < 0) {
        free(route);
        return -ENOMEM;
    }
    route->suffix = *name;
    route->upstreams = dns_upstreams_reference(upstreams);
    if (name->labels > routes->most_labels)
        routes->most_labels = name->labels;
    return 0;
}

int dns_routes_set(struct dns_routes *routes, const char *suffix, struct dns_upstreams *upstreams)
{
    struct dns_upstreams *former;
    struct dns_route *route;
    struct dns_name name;

    if (dns_name_parse(suffix, &name) < 0 || name.labels == 0)
        return -EINVAL;
    route = route_find(routes, &(struct suffix){.wire = name.wire, .length = name.length});
    if (!route)
        return route_add(routes, &name, upstreams);
    former = route->upstreams;
    route->upstreams = dns_upstreams_reference(upstreams);
    dns_upstreams_put(former);
    return 0;
}

struct dns_upstreams *dns_routes_find(const struct dns_routes *routes, const struct dns_name *name)
{
    unsigned labels = name->labels < routes->most_labels ? name->labels : routes->most_labels;

    for (; labels > 0; labels--) {
        unsigned offset = name->offsets[name->labels - labels];
        struct suffix suffix = {.wire = name->wire + offset, .length = name->length - offset};
        const struct dns_route *route = route_find(routes, &suffix);

        if (route)
            return route->upstreams;
    }
    return NULL;
}

void dns_routes_deinit(struct dns_routes *routes)
{
    for (uint32_t i = 0; routes->table.slots && i <= routes->table.mask; i++) {
        struct dns_route *route = routes->table.slots[i].item;

        if (!route)
            continue;
        dns_upstreams_put(route->upstreams);
        free(route);
    }
    dns_table_deinit(&routes->table);
    *routes = (struct dns_routes){0};
}
