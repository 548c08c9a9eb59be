/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Neighbours keep for a minute or more where an address was. A guest's MAC follows from its
 * address, so mostly its next owner has the same one and nobody need be told; where it has not (a
 * MAC that was asked for; a routed port, for which the host answers), everybody on the network is
 * told at once. To know when, the last addresses that were given back are remembered with the MAC
 * that they had on the wire. */
#include <string.h>

#include "service/private.h"

struct mac neighbours_usual_mac(const struct ip *ip)
{
    const uint8_t *bytes = ip->family == AF_INET ? ip->bytes : ip->bytes + 12;

    return (struct mac){{0x02, 0x6d, bytes[0], bytes[1], bytes[2], bytes[3]}};
}

/* What neighbours have in their caches for this endpoint. */
static struct mac mac_on_wire(const struct endpoint *endpoint, const struct network *network)
{
    return endpoint->routed ? network->mac : endpoint->mac;
}

static void remember(struct service *service, int64_t network_id, const struct ip *ip,
                     const struct mac *mac)
{
    if (!ip_is_set(ip))
        return;
    service->left[service->n_left++ % NEIGHBOURS_LEFT] =
        (struct neighbour_left){.network_id = network_id, .ip = *ip, .mac = *mac};
}

/* The latest entry; NULL when the address was nobody's, or that is long ago. */
static const struct neighbour_left *recall(const struct service *service, int64_t network_id,
                                           const struct ip *ip)
{
    size_t count = service->n_left < NEIGHBOURS_LEFT ? service->n_left : NEIGHBOURS_LEFT;

    for (size_t i = 1; i <= count; i++) {
        const struct neighbour_left *left = &service->left[(service->n_left - i) % NEIGHBOURS_LEFT];

        if (left->network_id == network_id && ip_equal(&left->ip, ip))
            return left;
    }
    return NULL;
}

void neighbours_left(struct service *service, const struct endpoint *endpoint,
                     const struct network *network)
{
    struct mac mac = mac_on_wire(endpoint, network);

    remember(service, network->id, &endpoint->ip, &mac);
    remember(service, network->id, &endpoint->ip6, &mac);
}

static void announce(struct service *service, const struct endpoint *endpoint,
                     const struct network *network, const struct ip *ip)
{
    const struct neighbour_left *left;
    struct mac usual;
    struct mac mac = mac_on_wire(endpoint, network);

    if (!ip_is_set(ip))
        return;
    left = recall(service, network->id, ip);
    usual = neighbours_usual_mac(ip_is_set(&endpoint->ip) ? &endpoint->ip : &endpoint->ip6);
    /* Nothing is known of the time before moatd's start: then a MAC that is not the usual one is
     * reason enough. */
    if (left ? mac_equal(&left->mac, &mac) : endpoint->routed || mac_equal(&usual, &mac))
        return;
    link_announce(service->link, network->bridge, ip, &mac);
}

void neighbours_joined(struct service *service, const struct endpoint *endpoint,
                       const struct network *network)
{
    announce(service, endpoint, network, &endpoint->ip);
    announce(service, endpoint, network, &endpoint->ip6);
}
