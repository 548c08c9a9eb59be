/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A network's bridge. Ensuring one is: make it, down and marked as ours, if it is not there; set
 * everything that is not as wanted; bring it up; put its addresses right; forget the proxies of
 * routed ports that are gone. All of it may be done again at any time without harm to traffic. */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "handle.h"
#include "ready.h"
#include "settings.h"

#define ADDRESSES_MAX 64 /* of ours on one bridge; more than can be */

/* ------------------------------------------------------------------------------- the link */
/* Multicast snooping does nothing without a querier, but costs with each port. */
static void put_bridge_data(struct nlmsghdr *message)
{
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);

    mnl_attr_put_str(message, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
    mnl_attr_put_u32(message, IFLA_BR_STP_STATE, 0);
    mnl_attr_put_u32(message, IFLA_BR_FORWARD_DELAY, 0);
    mnl_attr_put_u8(message, IFLA_BR_MCAST_SNOOPING, 0);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, info);
}

static int bridge_create(struct link *link, const struct link_bridge *bridge,
                         struct link_state *ret_state, struct error *error)
{
    struct request request;
    bool found;

    request_init(&request);
    struct nlmsghdr *message =
        request_link(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, "create the bridge");
    mnl_attr_put_strz(message, IFLA_IFNAME, bridge->name);
    mnl_attr_put_u32(message, IFLA_GROUP, bridge->group);
    message_put_mac(message, &bridge->mac);
    put_bridge_data(message);
    int r = netlink_commit(&link->host, &request, bridge->name, error);
    if (r == 0)
        r = link_find(link, bridge->name, ret_state, &found, error);
    if (r == 0 && !found)
        r = error_set_kernel(error, ENODEV, NULL, "the bridge %s is gone at once", bridge->name);
    return r;
}

/* A bridge whose MTU was never set by hand computes it over all ports whenever one comes or goes.
 * Setting the value that it has does not count. */
static void request_bridge_mtu(struct request *request, const struct link_bridge *bridge,
                               const struct link_state *state, bool created)
{
    if (created && state->mtu == bridge->mtu)
        mnl_attr_put_u32(
            request_link(request, RTM_SETLINK, 0, state->info.index, "set the MTU of the bridge"),
            IFLA_MTU, bridge->mtu - 1);
    if (created || state->mtu != bridge->mtu)
        mnl_attr_put_u32(
            request_link(request, RTM_SETLINK, 0, state->info.index, "set the MTU of the bridge"),
            IFLA_MTU, bridge->mtu);
}

/* The kernel refuses a forward delay of 0 while STP is on, and looks at that attribute first. */
static void request_bridge_stp_off(struct request *request, const struct link_state *state)
{
    if (!state->spanning_tree)
        return;
    struct nlmsghdr *message =
        request_link(request, RTM_NEWLINK, 0, state->info.index, "switch STP off on the bridge");
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    mnl_attr_put_str(message, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
    mnl_attr_put_u32(message, IFLA_BR_STP_STATE, 0);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, info);
}

/* Attributes that are right already are not sent: setting a MAC again would flush neighbours. */
static void request_bridge_link(struct request *request, const struct link_bridge *bridge,
                                const struct link_state *state)
{
    struct nlmsghdr *message =
        request_link(request, RTM_NEWLINK, 0, state->info.index, "set up the bridge");

    mnl_attr_put_u32(message, IFLA_GROUP, bridge->group);
    if (strcmp(state->info.alias, bridge->alias) != 0)
        mnl_attr_put_strz(message, IFLA_IFALIAS, bridge->alias);
    if (!mac_equal(&state->mac, &bridge->mac))
        message_put_mac(message, &bridge->mac);
    put_bridge_data(message);
}

static void request_bridge_settings(const struct link *link, struct request *request,
                                    const struct link_bridge *bridge, uint32_t index)
{
    size_t count;
    const struct ipv4_setting *settings = settings_of(KNOWN_BRIDGE, &count);

    message_put_settings(
        request_link(request, RTM_SETLINK, 0, index, "change the IP settings of the bridge"),
        settings, count, link_has_ipv6(link, bridge->mtu));
    request_proxy_delay_none(request, index, AF_INET);
    if (cidr_is_set(&bridge->address6))
        request_proxy_delay_none(request, index, AF_INET6);
}

static int bridge_set_ipv6(struct link *link, const struct link_bridge *bridge, struct error *error)
{
    bool on = cidr_is_set(&bridge->address6);

    int r = link_ipv6_set(link, bridge->name, "accept_ra", "0", error);
    if (r == 0)
        r = link_ipv6_set(link, bridge->name, "proxy_ndp", on ? "1" : "0", error);
    if (r == 0)
        r = link_ipv6_set(link, bridge->name, "disable_ipv6", on ? "0" : "1", error);
    if (r == 0 && on) /* else it is no router to its guests (RFC 4861 section 7.2.4) */
        r = link_ipv6_set(link, bridge->name, "forwarding", "1", error);
    return r;
}

static int bridge_set_up(struct link *link, const struct link_bridge *bridge,
                         const struct link_state *state, bool created, struct error *error)
{
    struct request request;

    request_init(&request);
    request_bridge_stp_off(&request, state);
    request_bridge_mtu(&request, bridge, state, created);
    request_bridge_link(&request, bridge, state);
    request_bridge_settings(link, &request, bridge, state->info.index);
    int r = netlink_commit(&link->host, &request, bridge->name, error);
    if (r == 0)
        r = bridge_set_ipv6(link, bridge, error);
    if (r < 0)
        return r;
    request_init(&request);
    request_up(&request, state->info.index, true, "bring up the bridge");
    return netlink_commit(&link->host, &request, bridge->name, error);
}

/* ------------------------------------------------------------------------------- addresses */
struct own_addresses {
    uint32_t index;
    size_t count;
    struct cidr items[ADDRESSES_MAX];
};

static int own_addresses_take(const struct nlmsghdr *message, void *userdata)
{
    const struct nlattr *table[IFA_MAX + 1];
    const struct ifaddrmsg *header;
    struct own_addresses *own = userdata;

    if (!message) {
        own->count = 0;
        return 0;
    }
    header = mnl_nlmsg_get_payload(message);
    netlink_parse_message(message, sizeof(*header), table, IFA_MAX);
    if (header->ifa_index != own->index || own->count == ADDRESSES_MAX ||
        attribute_u8(table[IFA_PROTO]) != LINK_ROUTE_PROTOCOL)
        return 0;
    own->items[own->count++] =
        (struct cidr){.ip = attribute_ip(header->ifa_family,
                                         table[IFA_LOCAL] ? table[IFA_LOCAL] : table[IFA_ADDRESS]),
                      .prefix = header->ifa_prefixlen};
    return 0;
}

static bool bridge_wants(const struct link_bridge *bridge, const struct cidr *address)
{
    return cidr_equal(address, &bridge->address) || cidr_equal(address, &bridge->address6) ||
           (cidr_is_set(&bridge->address6) && cidr_equal(address, &link_router6));
}

static int bridge_set_addresses(struct link *link, const struct link_bridge *bridge, uint32_t index,
                                struct error *error)
{
    struct own_addresses own = {.index = index};
    struct request request;
    void *extra;

    request_init(&request);
    request_add(&request, RTM_GETADDR, 0, sizeof(struct ifaddrmsg), &extra,
                "read the addresses of");
    ((struct ifaddrmsg *)extra)->ifa_index = index;
    int r = netlink_dump(&link->host, &request, own_addresses_take, &own);
    if (r < 0)
        return error_set_kernel(error, r, NULL, "cannot read the addresses of %s", bridge->name);
    for (size_t i = 0; i < own.count; i++) {
        if (bridge_wants(bridge, &own.items[i]))
            continue;
        request_init(&request);
        request_address_remove(&request, index, &own.items[i]);
        r = netlink_commit(&link->host, &request, bridge->name, error);
        if (r < 0)
            return r;
    }
    request_init(&request);
    if (cidr_is_set(&bridge->address))
        request_address_add(&request, index, &bridge->address, 0);
    if (cidr_is_set(&bridge->address6)) {
        request_address_add(&request, index, &bridge->address6, 0);
        request_address_add(&request, index, &link_router6, 0);
    }
    return netlink_commit(&link->host, &request, bridge->name, error);
}

/* ------------------------------------------------------------------------------- proxies */
/* Addresses that the host answers for on the bridge, put there by us. */
struct proxies {
    uint32_t index;
    struct ip *items;
    size_t count, capacity;
};

static int proxies_take(const struct nlmsghdr *message, void *userdata)
{
    const struct nlattr *table[NDA_MAX + 1];
    struct proxies *proxies = userdata;
    const struct ndmsg *header;

    if (!message) {
        proxies->count = 0;
        return 0;
    }
    header = mnl_nlmsg_get_payload(message);
    netlink_parse_message(message, sizeof(*header), table, NDA_MAX);
    if ((uint32_t)header->ndm_ifindex != proxies->index ||
        attribute_u8(table[NDA_PROTOCOL]) != LINK_ROUTE_PROTOCOL)
        return 0;
    if (proxies->count == proxies->capacity) {
        size_t capacity = proxies->capacity ? proxies->capacity * 2 : 64;
        struct ip *items = reallocarray(proxies->items, capacity, sizeof(*items));

        if (!items)
            return -ENOMEM;
        proxies->items = items;
        proxies->capacity = capacity;
    }
    proxies->items[proxies->count++] = attribute_ip(header->ndm_family, table[NDA_DST]);
    return 0;
}

/* Is there a way to ip that leads elsewhere than out of the bridge? */
static bool proxy_is_used(struct link *link, const struct proxies *proxies, const struct ip *ip)
{
    const struct nlattr *table[RTA_MAX + 1];
    const struct nlmsghdr *answer;
    struct netlink_reply reply;
    struct request request;
    void *extra;

    request_init(&request);
    struct nlmsghdr *message =
        request_add(&request, RTM_GETROUTE, 0, sizeof(struct rtmsg), &extra, "find");
    struct rtmsg *header = extra;
    header->rtm_family = ip->family;
    header->rtm_dst_len = (uint8_t)ip_bits(ip->family);
    mnl_attr_put(message, RTA_DST, ip_bits(ip->family) / 8, ip->bytes);
    if (netlink_get(&link->host, &request, &reply, &answer) < 0)
        return false;
    netlink_parse_message(answer, sizeof(struct rtmsg), table, RTA_MAX);
    return attribute_u32(table[RTA_OIF]) != proxies->index;
}

/* A crash between the end of a routed port and the removal of its proxy leaves the proxy: the host
 * would take packets for an address that is a bridged guest's by now. */
static int bridge_sweep_proxies(struct link *link, const struct link_bridge *bridge, uint32_t index,
                                struct error *error)
{
    struct proxies proxies = {.index = index};
    struct request request;
    void *extra;

    request_init(&request);
    request_add(&request, RTM_GETNEIGH, 0, sizeof(struct ndmsg), &extra, "read the proxies of");
    ((struct ndmsg *)extra)->ndm_flags = NTF_PROXY;
    int r = netlink_dump(&link->host, &request, proxies_take, &proxies);
    if (r < 0)
        r = error_set_kernel(error, r, NULL, "cannot read the proxies of %s", bridge->name);
    for (size_t i = 0; r == 0 && i < proxies.count; i++) {
        if (proxy_is_used(link, &proxies, &proxies.items[i]))
            continue;
        request_init(&request);
        request_proxy_remove(&request, index, &proxies.items[i]);
        r = netlink_commit(&link->host, &request, bridge->name, error);
    }
    free(proxies.items);
    return r;
}

/* ------------------------------------------------------------------------------- removal */
/* The name must be free at once, the link goes later: it gets one from its index, which is unique
 * among links that exist. */
static int bridge_remove(struct link *link, const char *name, struct error *error)
{
    struct link_state state;
    struct request request;
    char aside[IFNAMSIZ];
    bool found;

    int r = link_find(link, name, &state, &found, error);
    if (r < 0)
        return r;
    if (!found || !link_is_ours(state.info.group, state.info.alias)) {
        link_forget(link, 0, name);
        return 0;
    }
    link_forget(link, state.info.index, name);
    request_init(&request);
    request_dying(&request, state.info.index);
    struct nlmsghdr *message =
        request_link(&request, RTM_SETLINK, 0, state.info.index, "move aside");
    snprintf(aside, sizeof(aside), "mx%08x", state.info.index);
    mnl_attr_put_strz(message, IFLA_IFNAME, aside);
    request_tolerate(&request, ENODEV);
    r = netlink_commit(&link->host, &request, name, error);
    reaper_kick(link->shared->reaper); /* whatever was answered, it may be in the group */
    return r;
}

/* ------------------------------------------------------------------------------- public */
static int bridge_remember(struct link *link, const struct link_bridge *bridge, uint32_t index,
                           struct error *error)
{
    struct known known = {.kind = KNOWN_BRIDGE,
                          .index = index,
                          .group = bridge->group,
                          .mtu = bridge->mtu,
                          .mac = bridge->mac,
                          .address = bridge->address,
                          .address6 = bridge->address6};

    memcpy(known.name, bridge->name, sizeof(known.name));
    if (known_set(&link->shared->known, &known) < 0)
        return error_set(error, ENOMEM, "cannot remember the bridge %s", bridge->name);
    return 0;
}

/* Finds or makes the link. */
static int bridge_get(struct link *link, const struct link_bridge *bridge,
                      struct link_state *ret_state, bool *ret_created, struct error *error)
{
    bool found;

    int r = link_find(link, bridge->name, ret_state, &found, error);
    if (r < 0)
        return r;
    if (found && (!link_is_ours(ret_state->info.group, ret_state->info.alias) ||
                  strcmp(ret_state->info.kind, "bridge") != 0))
        return error_set_reason(error, REASON_IN_USE,
                                "the host has a link %s already that is not moat's: choose "
                                "another bridge name",
                                bridge->name);
    *ret_created = !found;
    return found ? 0 : bridge_create(link, bridge, ret_state, error);
}

static void bridge_undo(struct link *link, const struct link_bridge *bridge)
{
    struct error error = ERROR_INIT;

    if (bridge_remove(link, bridge->name, &error) < 0)
        log_warning("%s is left over until the next start: %s", bridge->name, error.text);
}

/* A guest that comes at once finds its router. */
static void bridge_await(struct link *link, const struct link_bridge *bridge, uint32_t index)
{
    const struct ip addresses[] = {bridge->address6.ip, link_router6.ip};

    if (cidr_is_set(&bridge->address6))
        ready_await_groups(&link->host, index, addresses, ARRAY_SIZE(addresses));
}

int link_bridge_ensure(struct link *link, const struct link_bridge *bridge, struct error *error)
{
    struct link_state state;
    bool created = false;

    int r = fault_point("link.bridge", error);
    if (r == 0)
        r = bridge_get(link, bridge, &state, &created, error);
    if (r < 0) {
        if (created) /* the answer may have been lost, not the request */
            bridge_undo(link, bridge);
        return r;
    }
    uint32_t index = state.info.index;
    r = bridge_set_up(link, bridge, &state, created, error);
    if (r == 0)
        r = bridge_set_addresses(link, bridge, index, error);
    if (r == 0 && !created)
        r = bridge_sweep_proxies(link, bridge, index, error);
    if (r == 0)
        r = bridge_remember(link, bridge, index, error);
    if (r == 0 && created)
        bridge_await(link, bridge, index);
    if (r < 0 && created)
        bridge_undo(link, bridge);
    return r;
}

int link_bridge_remove(struct link *link, const char *name, struct error *error)
{
    int r = fault_point("link.remove", error);

    return r < 0 ? r : bridge_remove(link, name, error);
}
