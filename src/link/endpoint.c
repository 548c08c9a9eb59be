/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's side of a port, whether veth or tap.
 *
 * bridged: member of the bridge. A static forwarding entry and a permanent neighbour entry on the
 *   bridge say where the guest is, so that neither the host's first packet to it is flooded to
 *   every port nor another guest can claim its address towards the host.
 * routed: not in the bridge. A host route leads to it, the host answers ARP (and ND) for everything
 *   on its link, and for its address on the bridge.
 *
 * Every port's host end has the bridge's MAC: a guest's entry for its gateway is right whichever
 * kind its port is of, and stays so when that changes.
 *
 * Order in which a routed port is built: settings, route, then the proxy on the bridge; it is taken
 * down the other way round. So the host never draws packets for which it has no route. */
#include <errno.h>
#include <linux/ip.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "handle.h"
#include "settings.h"

/* ------------------------------------------------------------------------------- pieces */
/* What a new link has of a routed port's settings: a port that was routed before goes back to that.
 */
static void settings_take_default(struct ipv4_setting *settings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char key[64];
        char value[SYSCTL_VALUE_MAX];
        struct error error = ERROR_INIT;

        settings[i].value = 0;
        snprintf(key, sizeof(key), "net.ipv4.conf.default.%s", settings_name(settings[i].id));
        if (sysctl_get(key, value, &error) >= 0)
            settings[i].value = (uint32_t)strtoul(value, NULL, 10);
    }
}

static struct cidr host_prefix(const struct ip *ip)
{
    return (struct cidr){.ip = *ip, .prefix = (uint8_t)ip_bits(ip->family)};
}

/* The host speaks to the guest from the gateway's address, as it does over the bridge. */
static void request_host_route(struct request *request, const struct link_endpoint *endpoint,
                               uint32_t index, const struct ip *ip, bool add)
{
    struct route route = {.to = host_prefix(ip), .index = index};

    if (add && ip->family == endpoint->bridge_ip.family)
        route.source = endpoint->bridge_ip;
    request_route(request, add ? RTM_NEWROUTE : RTM_DELROUTE,
                  add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &route,
                  add ? "set the host route to" : "remove the host route to");
    if (!add) {
        request_tolerate(request, ESRCH);
        request_tolerate(request, ENODEV);
    }
}

static void request_routed_ip(struct request *request, const struct link_endpoint *endpoint,
                              uint32_t index, uint32_t bridge_index, const struct ip *ip)
{
    if (!ip_is_set(ip))
        return;
    request_proxy_delay_none(request, index, ip->family);
    request_host_route(request, endpoint, index, ip, true);
    request_neighbour_add(request, index, ip, &endpoint->mac);
    request_neighbour_remove(request, bridge_index, ip);
    request_proxy_add(request, bridge_index, ip);
}

static void request_bridged_ip(struct request *request, const struct link_endpoint *endpoint,
                               uint32_t bridge_index, const struct ip *ip)
{
    if (ip_is_set(ip))
        request_neighbour_add(request, bridge_index, ip, &endpoint->mac);
}

/* Takes back what a port of either kind put beside its link. index 0: the link is gone, and its
 * routes with it. */
static void request_forget_ip(struct request *request, const struct link_endpoint *endpoint,
                              uint32_t index, uint32_t bridge_index, const struct ip *ip)
{
    if (!ip_is_set(ip))
        return;
    if (bridge_index != 0) {
        request_proxy_remove(request, bridge_index, ip);
        request_neighbour_remove(request, bridge_index, ip);
    }
    if (index != 0)
        request_host_route(request, endpoint, index, ip, false);
}

static struct nlmsghdr *request_port_settings(const struct link *link, struct request *request,
                                              const struct link_endpoint *endpoint, uint32_t index,
                                              bool was_routed)
{
    struct nlmsghdr *message = request_link(request, RTM_SETLINK, 0, index, "set up");
    struct ipv4_setting settings[SETTINGS_MAX];
    size_t count = 0;
    bool silent = link_has_ipv6(link, endpoint->mtu);

    if (endpoint->routed || was_routed)
        memcpy(settings, settings_of(KNOWN_ROUTED, &count), sizeof(settings));
    if (!endpoint->routed)
        settings_take_default(settings, count);
    if (count > 0 || silent)
        message_put_settings(message, settings, count, silent);
    return message;
}

/* 0: there is none. */
static uint32_t endpoint_bridge_find(const struct link *link, const struct link_endpoint *endpoint)
{
    struct known known;

    if (known_find_name(&link->shared->known, endpoint->bridge, &known))
        return known.index;
    return link_index(link, endpoint->bridge);
}

int endpoint_bridge_index(const struct link *link, const struct link_endpoint *endpoint,
                          uint32_t *ret_index, struct error *error)
{
    uint32_t index = endpoint_bridge_find(link, endpoint);

    if (index == 0)
        return error_set_kernel(error, ENODEV, NULL, "the bridge %s is not there",
                                endpoint->bridge);
    *ret_index = index;
    return 0;
}

static int endpoint_remember(struct link *link, const struct link_endpoint *endpoint,
                             uint32_t index, uint32_t bridge_index, struct error *error)
{
    struct known known = {.kind = endpoint->routed ? KNOWN_ROUTED : KNOWN_BRIDGED,
                          .index = index,
                          .group = endpoint->group,
                          .master = endpoint->routed ? 0 : bridge_index,
                          .bridge = bridge_index,
                          .mtu = endpoint->mtu,
                          .mac = endpoint->mac,
                          .ip = endpoint->ip,
                          .ip6 = endpoint->ip6};

    memcpy(known.name, endpoint->host_name, sizeof(known.name));
    if (known_set(&link->shared->known, &known) < 0)
        return error_set(error, ENOMEM, "cannot remember the link %s", endpoint->host_name);
    return 0;
}

/* ------------------------------------------------------------------------------- settle */
static bool endpoint_needs_hairpin(struct link *link, const struct link_endpoint *endpoint)
{
    return !endpoint->routed && (endpoint->bridge_nf || link_bridge_nf(link));
}

static void request_bridged(struct link *link, struct request *request,
                            const struct link_endpoint *endpoint, uint32_t index,
                            uint32_t bridge_index)
{
    if (endpoint_needs_hairpin(link, endpoint))
        request_hairpin(request, index, true);
    if (mac_is_set(&endpoint->mac)) {
        request_forwarding_entry(request, index, &endpoint->mac);
        request_bridged_ip(request, endpoint, bridge_index, &endpoint->ip);
        request_bridged_ip(request, endpoint, bridge_index, &endpoint->ip6);
    }
}

static int routed_set_ipv6(const struct link *link, const struct link_endpoint *endpoint,
                           struct error *error)
{
    return link_ipv6_set(link, endpoint->host_name, "accept_ra", "0", error);
}

/* The gateway's address only where the host keeps it to its bridge. */
static void request_routed(const struct link *link, struct request *request,
                           const struct link_endpoint *endpoint, uint32_t index,
                           uint32_t bridge_index)
{
    if (ip_is_set(&endpoint->bridge_ip) && link_arp_ignores(link)) {
        struct cidr gateway = host_prefix(&endpoint->bridge_ip);

        request_address_add(request, index, &gateway, REQUEST_ADDRESS_NO_ROUTE);
    }
    if (ip_is_set(&endpoint->ip6))
        request_address_add(request, index, &link_router6, 0);
    request_routed_ip(request, endpoint, index, bridge_index, &endpoint->ip);
    request_routed_ip(request, endpoint, index, bridge_index, &endpoint->ip6);
}

int endpoint_settle(struct link *link, const struct link_endpoint *endpoint, uint32_t index,
                    uint32_t bridge_index, struct error *error)
{
    struct request request;

    request_init(&request);
    mnl_attr_put_strz(request_port_settings(link, &request, endpoint, index, false), IFLA_IFALIAS,
                      endpoint->alias);
    if (!endpoint->routed)
        request_bridged(link, &request, endpoint, index, bridge_index);
    int r = netlink_commit(&link->host, &request, endpoint->host_name, error);
    if (r == 0 && endpoint->routed)
        r = fault_point("link.route", error);
    if (r == 0 && endpoint->routed)
        r = routed_set_ipv6(link, endpoint, error);
    if (r == 0 && endpoint->routed) {
        request_init(&request);
        request_routed(link, &request, endpoint, index, bridge_index);
        r = netlink_commit(&link->host, &request, endpoint->host_name, error);
    }
    return r < 0 ? r : endpoint_remember(link, endpoint, index, bridge_index, error);
}

int endpoint_name_taken(struct link *link, const struct link_endpoint *endpoint,
                        struct error *error)
{
    struct link_state state;
    bool found;

    int r = link_find(link, endpoint->host_name, &state, &found, error);
    if (r < 0)
        return r;
    if (found && !link_is_ours(state.info.group, state.info.alias))
        return error_set_reason(error, REASON_IN_USE,
                                "the host has a link %s already that is not moat's",
                                endpoint->host_name);
    if (found)
        return error_set_reason(error, REASON_EXISTS, "the link %s is there already",
                                endpoint->host_name);
    return error_set_reason(error, REASON_EXISTS, "the guest has a link %s already",
                            endpoint->peer_name);
}

/* ------------------------------------------------------------------------------- removal */
/* The proxies and entries go first, so that what a crash leaves is a link with our mark. */
static int endpoint_withdraw(struct link *link, const struct link_endpoint *endpoint,
                             uint32_t index, struct error *error)
{
    uint32_t bridge_index = link_index(link, endpoint->bridge);
    struct request request;

    link_forget(link, index, endpoint->host_name);
    request_init(&request);
    request_forget_ip(&request, endpoint, index, bridge_index, &endpoint->ip);
    request_forget_ip(&request, endpoint, index, bridge_index, &endpoint->ip6);
    if (index != 0)
        request_dying(&request, index);
    int r = netlink_commit(&link->host, &request, endpoint->host_name, error);
    if (index != 0) /* whatever was answered, it may be in the group */
        reaper_kick(link->shared->reaper);
    return r;
}

void endpoint_undo(struct link *link, const struct link_endpoint *endpoint, uint32_t index)
{
    struct error error = ERROR_INIT;

    if (endpoint_withdraw(link, endpoint, index, &error) < 0)
        log_warning("%s is left over until the next start: %s", endpoint->host_name, error.text);
}

/* Index of the endpoint's link if it is there and ours, else 0. */
static int endpoint_own_index(struct link *link, const struct link_endpoint *endpoint,
                              uint32_t *ret_index, struct error *error)
{
    uint32_t index = link_index(link, endpoint->host_name);
    struct known known;
    struct link_state state;
    bool found = false;

    if (index != 0 && !(known_find(&link->shared->known, index, &known) &&
                        strcmp(known.name, endpoint->host_name) == 0)) {
        int r = link_find(link, endpoint->host_name, &state, &found, error);

        if (r < 0)
            return r;
        if (!found || !link_is_ours(state.info.group, state.info.alias))
            index = 0;
    }
    *ret_index = index;
    return 0;
}

void link_endpoint_abandon(struct link *link, const struct link_endpoint *endpoint)
{
    link_forget(link, 0, endpoint->host_name);
}

int link_endpoint_remove(struct link *link, const struct link_endpoint *endpoint,
                         struct error *error)
{
    uint32_t index = 0;

    int r = fault_point("link.remove", error);
    if (r == 0)
        r = endpoint_own_index(link, endpoint, &index, error);
    return r < 0 ? r : endpoint_withdraw(link, endpoint, index, error);
}

/* ------------------------------------------------------------------------------- ensure */
/* What is right already is not sent: the kernel would tell everybody who listens that it changed.
 */
static void request_port_link(struct request *request, const struct link_endpoint *endpoint,
                              const struct link_state *state, uint32_t master)
{
    if (state->info.up && state->info.group == endpoint->group && state->mtu == endpoint->mtu &&
        state->info.master == master && mac_equal(&state->mac, &endpoint->bridge_mac))
        return;
    struct nlmsghdr *message = request_link(request, RTM_SETLINK, 0, state->info.index, "connect");

    message_set_up(message, true);
    mnl_attr_put_u32(message, IFLA_GROUP, endpoint->group);
    if (state->mtu != endpoint->mtu)
        mnl_attr_put_u32(message, IFLA_MTU, endpoint->mtu);
    if (state->info.master != master)
        mnl_attr_put_u32(message, IFLA_MASTER, master);
    if (!mac_equal(&state->mac, &endpoint->bridge_mac))
        message_put_mac(message, &endpoint->bridge_mac);
}

/* What the other kind of port left on the bridge and in the routing table. */
static void request_other_kind_gone(struct request *request, const struct link_endpoint *endpoint,
                                    uint32_t index, uint32_t bridge_index)
{
    if (endpoint->routed)
        return;
    request_forget_ip(request, endpoint, index, bridge_index, &endpoint->ip);
    request_forget_ip(request, endpoint, index, bridge_index, &endpoint->ip6);
    if (ip_is_set(&endpoint->ip))
        request_neighbour_remove(request, index, &endpoint->ip);
    if (ip_is_set(&endpoint->ip6))
        request_neighbour_remove(request, index, &endpoint->ip6);
}

static int endpoint_match(struct link *link, const struct link_endpoint *endpoint,
                          const struct link_state *state, uint32_t bridge_index,
                          struct error *error)
{
    struct request request;

    request_init(&request);
    request_port_settings(link, &request, endpoint, state->info.index,
                          state->info.master != bridge_index);
    request_other_kind_gone(&request, endpoint, state->info.index, bridge_index);
    request_port_link(&request, endpoint, state, endpoint->routed ? 0 : bridge_index);
    int r = netlink_commit(&link->host, &request, endpoint->host_name, error);
    if (r == 0 && !endpoint->routed && !endpoint_needs_hairpin(link, endpoint)) {
        request_init(&request);
        request_hairpin(&request, state->info.index, false);
        r = netlink_commit(&link->host, &request, endpoint->host_name, error);
    }
    if (r == 0 && endpoint->routed && ip_is_set(&endpoint->ip6)) /* a new one has it */
        r = link_ipv6_set(link, endpoint->host_name, "forwarding", "1", error);
    return r < 0 ? r : endpoint_settle(link, endpoint, state->info.index, bridge_index, error);
}

int link_endpoint_ensure(struct link *link, const struct link_endpoint *endpoint, bool *ret_found,
                         struct error *error)
{
    struct link_state state;
    uint32_t bridge_index;
    bool found;

    int r = link_find(link, endpoint->host_name, &state, &found, error);
    if (r < 0)
        return r;
    if (found && state.info.group == LINK_GROUP_DYING)
        found = false;
    if (!found) {
        link_forget(link, 0, endpoint->host_name);
        *ret_found = false;
        return 0;
    }
    if (!link_is_ours(state.info.group, state.info.alias))
        return endpoint_name_taken(link, endpoint, error);
    r = endpoint_bridge_index(link, endpoint, &bridge_index, error);
    if (r == 0)
        r = endpoint_match(link, endpoint, &state, bridge_index, error);
    if (r == 0)
        *ret_found = true;
    return r;
}

int link_endpoint_set_routed(struct link *link, const struct link_endpoint *endpoint,
                             struct error *error)
{
    struct error inside = ERROR_INIT;
    struct known known;
    bool found;

    int r = link_endpoint_ensure(link, endpoint, &found, error);
    if (r < 0)
        return r;
    if (!found)
        return error_set_reason(error, REASON_NOT_FOUND, "the link %s is gone",
                                endpoint->host_name);
    if (guest_follow_port(link, endpoint, &inside) < 0)
        log_warning("%s reaches its IPv6 peers no more: %s", endpoint->alias, inside.text);
    if (!known_find_name(&link->shared->known, endpoint->host_name, &known))
        return error_set(error, ENOENT, "the link %s is not known", endpoint->host_name);
    return announce_move(link, &known, endpoint_bridge_find(link, endpoint), &endpoint->bridge_mac,
                         error);
}
