/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks that are served, and the sockets on their gateways. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "names/private.h"
#include "names/resolved.h"
#include "names/socket.h"

#define SYNC_TIMEOUT_MS 200

int names_network_send(struct names *names, struct served_network *network, bool with_sockets,
                       struct error *error)
{
    int fds[DNS_SOCKETS_COUNT];
    size_t n_fds = 0;

    network->message.sockets = with_sockets ? 0 : DNS_SOCKETS_KEEP;
    for (unsigned i = 0; with_sockets && i < DNS_SOCKETS_COUNT; i++) {
        if (network->fds[i] < 0)
            continue;
        fds[n_fds++] = network->fds[i];
        network->message.sockets |= (uint8_t)(1u << i);
    }
    return names_send(names, DNS_MESSAGE_NETWORK, &network->message.message,
                      sizeof(network->message), fds, n_fds, error);
}

static void network_unbind(struct served_network *network)
{
    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++) {
        if (network->fds[i] >= 0)
            close(network->fds[i]);
        network->fds[i] = -1;
    }
}

static void network_free(struct served_network *network)
{
    if (!network)
        return;
    network_unbind(network);
    ips_deinit(&network->servers);
    free(network);
}

DEFINE_CLEANUP(struct served_network, network_free)

static struct served_network **network_find(struct names *names, int64_t id)
{
    struct served_network **link = &names->networks;

    while (*link && (*link)->message.id != id)
        link = &(*link)->next;
    return link;
}

/* "moat-dns-udp-10.88.0.1"; a name there has no colons. */
static const char *stored_name(const struct served_network *network, unsigned place,
                               char name[FDSTORE_NAME_MAX])
{
    const struct ip *ip = place < 2 ? &network->message.gateway : &network->message.gateway6;
    char text[IP_TEXT_MAX];

    ip_format(ip, text);
    for (char *at = text; *at; at++)
        if (*at == ':')
            *at = '_';
    snprintf(name, FDSTORE_NAME_MAX, FDSTORE_PREFIX "dns-%s-%s", place % 2 ? "tcp" : "udp", text);
    return name;
}

static bool has_socket_of(const struct served_network *network, const struct ip *ip, unsigned place)
{
    const struct ip *own = place < 2 ? &network->message.gateway : &network->message.gateway6;

    return network->fds[place] >= 0 && ip_equal(ip, own);
}

/* The sockets that the network has and `successor` (NULL: none) has not are forgotten. */
static void stored_remove(const struct names *names, const struct served_network *network,
                          const struct served_network *successor)
{
    char name[FDSTORE_NAME_MAX];

    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++) {
        const struct ip *ip = i < 2 ? &network->message.gateway : &network->message.gateway6;

        if (network->fds[i] >= 0 && !(successor && has_socket_of(successor, ip, i)))
            fdstore_remove(names->fdstore, stored_name(network, i, name));
    }
}

/* The socket for one place: the former network's where the address is the same, that which the
 * service manager kept, the former worker's, or a new one. */
static int network_socket(struct names *names, struct served_network *network, unsigned place,
                          struct served_network *former, struct error *error)
{
    uint8_t protocol = place % 2 ? IPPROTO_TCP : IPPROTO_UDP;
    const struct ip *ip = place < 2 ? &network->message.gateway : &network->message.gateway6;
    const struct ip *former_ip = NULL;
    char name[FDSTORE_NAME_MAX];
    int r = 0;

    if (former)
        former_ip = place < 2 ? &former->message.gateway : &former->message.gateway6;
    if (former && former->fds[place] >= 0 && ip_equal(ip, former_ip)) {
        network->fds[place] = fcntl(former->fds[place], F_DUPFD_CLOEXEC, 0);
        return network->fds[place] < 0 ? error_set(error, errno, "cannot keep a socket") : 0;
    }
    network->fds[place] = fdstore_take(names->fdstore, stored_name(network, place, name));
    if (network->fds[place] >= 0)
        return 0;
    network->fds[place] = worker_inherited_take(names->worker, protocol, ip, DNS_PORT);
    if (network->fds[place] < 0)
        r = names_socket_bind(protocol, ip, DNS_PORT, &network->fds[place], error);
    if (r == 0)
        fdstore_put(names->fdstore, name, network->fds[place]);
    return r;
}

/* All sockets, or none. */
static int network_bind_all(struct names *names, struct served_network *network,
                            struct served_network *former, struct error *error)
{
    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++) {
        const struct ip *ip = i < 2 ? &network->message.gateway : &network->message.gateway6;
        int r = ip_is_set(ip) ? network_socket(names, network, i, former, error) : 0;

        if (r < 0) {
            network_unbind(network);
            return r;
        }
    }
    return 0;
}

/* The worker holds the sockets of a network that was removed until it has read of it. */
static int network_bind(struct names *names, struct served_network *network,
                        struct served_network *former, struct error *error)
{
    int r = network_bind_all(names, network, former, error);

    if (r == 0 || error->reason != REASON_PORT_IN_USE ||
        worker_sync(names->worker, SYNC_TIMEOUT_MS) < 0)
        return r;
    *error = ERROR_INIT;
    return network_bind_all(names, network, former, error);
}

/* Without sockets. NULL: no memory. */
static struct served_network *network_new(const struct names *names, const struct network *network)
{
    struct served_network *served = calloc(1, sizeof(*served));

    if (!served)
        return NULL;
    memset(served->fds, 0xff, sizeof(served->fds));
    if (ips_copy(&network->dns_servers, &served->servers) < 0) {
        free(served);
        return NULL;
    }
    served->message.id = network->id;
    served->message.gateway = network->gateway;
    served->message.gateway6 = network->gateway6;
    served->message.subnet = network->subnet;
    served->message.subnet6 = network->subnet6;
    served->message.internal = network->internal;
    memcpy(served->message.name, network->name, strlen(network->name));
    names_servers_fill(names, &served->servers, &served->message.upstreams);
    return served;
}

static bool sockets_equal(const struct served_network *network, const struct served_network *former)
{
    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++)
        if ((network->fds[i] >= 0) != (former->fds[i] >= 0))
            return false;
    return ip_equal(&network->message.gateway, &former->message.gateway) &&
           ip_equal(&network->message.gateway6, &former->message.gateway6);
}

/* Number and sockets left out. */
static bool network_equal(const struct served_network *a, const struct served_network *b)
{
    return cidr_equal(&a->message.subnet, &b->message.subnet) &&
           cidr_equal(&a->message.subnet6, &b->message.subnet6) &&
           ip_equal(&a->message.gateway, &b->message.gateway) &&
           ip_equal(&a->message.gateway6, &b->message.gateway6) &&
           a->message.internal == b->message.internal &&
           strcmp(a->message.name, b->message.name) == 0 && ips_equal(&a->servers, &b->servers) &&
           memcmp(&a->message.upstreams, &b->message.upstreams, sizeof(a->message.upstreams)) == 0;
}

int names_network_add(struct names *names, const struct network *network, struct error *error)
{
    _cleanup_(network_freep) struct served_network *served = NULL;
    struct served_network **link = network_find(names, network->id);
    struct served_network *former = *link;
    bool same_sockets;
    int r = fault_point("names.network", error);

    if (r < 0)
        return r;
    served = network_new(names, network);
    if (!served)
        return error_set(error, ENOMEM, "out of memory");
    r = network->dns ? network_bind(names, served, former, error) : 0;
    if (r < 0)
        return r;
    if (network->dns)
        resolved_network_set(names->resolved, network);
    same_sockets = former && sockets_equal(served, former);
    if (same_sockets && network_equal(served, former))
        return 0;
    r = names_network_send(names, served, !same_sockets, error);
    if (r < 0)
        return r;
    if (former)
        stored_remove(names, former, served);
    served->next = former ? former->next : NULL;
    *link = TAKE_PTR(served);
    network_free(former);
    if (!same_sockets)
        names_gateways_changed(names);
    return 0;
}

void names_network_remove(struct names *names, int64_t network_id)
{
    struct served_network **link = network_find(names, network_id);
    struct served_network *network = *link;
    struct dns_remove_message message = {.id = network_id};

    if (!network)
        return;
    *link = network->next;
    stored_remove(names, network, NULL);
    resolved_network_remove(names->resolved, network_id);
    names_send_removal(names, DNS_MESSAGE_NETWORK_REMOVE, network_id);
    worker_send_draining(names->worker, DNS_MESSAGE_NETWORK_REMOVE, &message, sizeof(message));
    network_free(network);
    names_gateways_changed(names);
}

void names_networks_free(struct names *names)
{
    while (names->networks) {
        struct served_network *next = names->networks->next;

        network_free(names->networks);
        names->networks = next;
    }
}

bool names_is_of_networks(const struct names *names, const struct ip *ip)
{
    for (const struct served_network *network = names->networks; network; network = network->next)
        if (cidr_contains_ip(&network->message.subnet, ip) ||
            cidr_contains_ip(&network->message.subnet6, ip))
            return true;
    return false;
}
