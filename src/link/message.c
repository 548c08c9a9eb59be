/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "message.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <string.h>

/* ------------------------------------------------------------------------------- reading */
bool link_is_ours(uint32_t group, const char *alias)
{
    return (group & LINK_GROUP_MASK) == LINK_GROUP_BASE ||
           strncmp(alias, LINK_ALIAS_PREFIX, strlen(LINK_ALIAS_PREFIX)) == 0;
}

static void parse_link_info(const struct nlattr *nest, struct link_state *state)
{
    const struct nlattr *table[IFLA_INFO_MAX + 1];
    const struct nlattr *bridge[IFLA_BR_MAX + 1];

    netlink_parse_attributes(mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest), table,
                             IFLA_INFO_MAX);
    attribute_text(table[IFLA_INFO_KIND], state->info.kind, sizeof(state->info.kind));
    if (!table[IFLA_INFO_DATA] || strcmp(state->info.kind, "bridge") != 0)
        return;
    netlink_parse_attributes(mnl_attr_get_payload(table[IFLA_INFO_DATA]),
                             mnl_attr_get_payload_len(table[IFLA_INFO_DATA]), bridge, IFLA_BR_MAX);
    state->spanning_tree = attribute_u32(bridge[IFLA_BR_STP_STATE]) != 0;
}

int link_parse(const struct nlmsghdr *message, struct link_state *ret_state)
{
    const struct nlattr *table[IFLA_MAX + 1];
    const struct ifinfomsg *header = mnl_nlmsg_get_payload(message);
    struct link_state state = {0};

    if (mnl_nlmsg_get_payload_len(message) < sizeof(*header))
        return -EBADMSG;
    netlink_parse_message(message, sizeof(*header), table, IFLA_MAX);
    state.info.index = (uint32_t)header->ifi_index;
    state.info.up = header->ifi_flags & IFF_UP;
    state.operational = attribute_u8(table[IFLA_OPERSTATE]) == IF_OPER_UP;
    attribute_text(table[IFLA_IFNAME], state.info.name, sizeof(state.info.name));
    attribute_text(table[IFLA_IFALIAS], state.info.alias, sizeof(state.info.alias));
    state.info.group = attribute_u32(table[IFLA_GROUP]);
    state.info.master = attribute_u32(table[IFLA_MASTER]);
    state.mtu = attribute_u32(table[IFLA_MTU]);
    if (table[IFLA_ADDRESS] &&
        mnl_attr_get_payload_len(table[IFLA_ADDRESS]) == sizeof(state.mac.bytes))
        memcpy(state.mac.bytes, mnl_attr_get_payload(table[IFLA_ADDRESS]), sizeof(state.mac.bytes));
    if (table[IFLA_LINKINFO])
        parse_link_info(table[IFLA_LINKINFO], &state);
    *ret_state = state;
    return 0;
}

struct ip attribute_ip(uint8_t family, const struct nlattr *attribute)
{
    if (!attribute || mnl_attr_get_payload_len(attribute) < ip_bits(family) / 8)
        return (struct ip){0};
    return ip_from_bytes(family, mnl_attr_get_payload(attribute));
}

/* ------------------------------------------------------------------------------- links */
struct nlmsghdr *request_link(struct request *request, uint16_t type, uint16_t flags,
                              uint32_t index, const char *what)
{
    void *extra;
    struct nlmsghdr *message =
        request_add(request, type, flags, sizeof(struct ifinfomsg), &extra, what);
    struct ifinfomsg *header = extra;

    header->ifi_family = AF_UNSPEC;
    header->ifi_index = (int)index;
    return message;
}

void message_set_up(struct nlmsghdr *message, bool up)
{
    struct ifinfomsg *header = mnl_nlmsg_get_payload(message);

    header->ifi_change = IFF_UP;
    header->ifi_flags = up ? IFF_UP : 0;
}

void message_put_mac(struct nlmsghdr *message, const struct mac *mac)
{
    if (mac_is_set(mac))
        mnl_attr_put(message, IFLA_ADDRESS, sizeof(mac->bytes), mac->bytes);
}

void message_put_settings(struct nlmsghdr *message, const struct ipv4_setting *settings,
                          size_t count, bool ipv6_silent)
{
    struct nlattr *families = mnl_attr_nest_start(message, IFLA_AF_SPEC);

    if (count > 0) {
        struct nlattr *ipv4 = mnl_attr_nest_start(message, AF_INET);
        struct nlattr *values = mnl_attr_nest_start(message, IFLA_INET_CONF);

        for (size_t i = 0; i < count; i++)
            mnl_attr_put_u32(message, settings[i].id, settings[i].value);
        mnl_attr_nest_end(message, values);
        mnl_attr_nest_end(message, ipv4);
    }
    if (ipv6_silent) {
        struct nlattr *ipv6 = mnl_attr_nest_start(message, AF_INET6);

        mnl_attr_put_u8(message, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
        mnl_attr_nest_end(message, ipv6);
    }
    mnl_attr_nest_end(message, families);
}

void request_hairpin(struct request *request, uint32_t index, bool on)
{
    struct nlmsghdr *message =
        request_link(request, RTM_SETLINK, 0, index, "set the hairpin mode of");
    struct ifinfomsg *header = mnl_nlmsg_get_payload(message);

    header->ifi_family = AF_BRIDGE;
    struct nlattr *port = mnl_attr_nest_start(message, IFLA_PROTINFO);
    mnl_attr_put_u8(message, IFLA_BRPORT_MODE, on);
    mnl_attr_nest_end(message, port);
}

void request_up(struct request *request, uint32_t index, bool up, const char *what)
{
    message_set_up(request_link(request, RTM_SETLINK, 0, index, what), up);
}

void request_dying(struct request *request, uint32_t index)
{
    struct nlmsghdr *message = request_link(request, RTM_SETLINK, 0, index, "take down");

    message_set_up(message, false);
    mnl_attr_put_u32(message, IFLA_GROUP, LINK_GROUP_DYING);
    request_tolerate(request, ENODEV);
}

/* ------------------------------------------------------------------------------- addresses */
static struct nlmsghdr *request_address(struct request *request, uint16_t type, uint16_t flags,
                                        uint32_t index, const struct cidr *address,
                                        const char *what)
{
    void *extra;
    struct nlmsghdr *message =
        request_add(request, type, flags, sizeof(struct ifaddrmsg), &extra, what);
    struct ifaddrmsg *header = extra;
    size_t size = ip_bits(address->ip.family) / 8;

    header->ifa_family = address->ip.family;
    header->ifa_prefixlen = address->prefix;
    header->ifa_index = index;
    header->ifa_scope = ip_is_link_local(&address->ip) ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    mnl_attr_put(message, IFA_LOCAL, size, address->ip.bytes);
    mnl_attr_put(message, IFA_ADDRESS, size, address->ip.bytes);
    return message;
}

void request_address_add(struct request *request, uint32_t index, const struct cidr *address,
                         unsigned flags)
{
    struct nlmsghdr *message = request_address(request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE,
                                               index, address, "set an address of");
    uint32_t address_flags = flags & REQUEST_ADDRESS_NO_ROUTE ? IFA_F_NOPREFIXROUTE : 0;

    mnl_attr_put_u8(message, IFA_PROTO, LINK_ROUTE_PROTOCOL);
    if (address->ip.family == AF_INET6)
        address_flags |= IFA_F_NODAD;
    else if (address->prefix < 31)
        mnl_attr_put(message, IFA_BROADCAST, 4, cidr_last(address).bytes);
    if (address_flags)
        mnl_attr_put_u32(message, IFA_FLAGS, address_flags);
}

void request_address_remove(struct request *request, uint32_t index, const struct cidr *address)
{
    request_address(request, RTM_DELADDR, 0, index, address, "remove an address of");
    request_tolerate(request, EADDRNOTAVAIL);
}

/* ------------------------------------------------------------------------------- routes */
void request_route(struct request *request, uint16_t type, uint16_t flags,
                   const struct route *route, const char *what)
{
    void *extra;
    struct nlmsghdr *message =
        request_add(request, type, flags, sizeof(struct rtmsg), &extra, what);
    struct rtmsg *header = extra;
    size_t size = ip_bits(route->to.ip.family) / 8;

    header->rtm_family = route->to.ip.family;
    header->rtm_dst_len = route->to.prefix;
    header->rtm_table = RT_TABLE_MAIN;
    header->rtm_protocol = LINK_ROUTE_PROTOCOL;
    header->rtm_scope = ip_is_set(&route->via) ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    header->rtm_type = RTN_UNICAST;
    if (route->to.prefix > 0)
        mnl_attr_put(message, RTA_DST, size, cidr_mask(&route->to).ip.bytes);
    if (ip_is_set(&route->via))
        mnl_attr_put(message, RTA_GATEWAY, size, route->via.bytes);
    if (ip_is_set(&route->source))
        mnl_attr_put(message, RTA_PREFSRC, size, route->source.bytes);
    mnl_attr_put_u32(message, RTA_OIF, route->index);
}

/* ------------------------------------------------------------------------------- neighbours */
static struct nlmsghdr *request_neighbour(struct request *request, uint16_t type, uint16_t flags,
                                          uint32_t index, uint8_t family, uint16_t state,
                                          uint8_t neighbour_flags, const char *what)
{
    void *extra;
    struct nlmsghdr *message =
        request_add(request, type, flags, sizeof(struct ndmsg), &extra, what);
    struct ndmsg *header = extra;

    header->ndm_family = family;
    header->ndm_ifindex = (int)index;
    header->ndm_state = state;
    header->ndm_flags = neighbour_flags;
    return message;
}

static void message_put_destination(struct nlmsghdr *message, const struct ip *ip)
{
    mnl_attr_put(message, NDA_DST, ip_bits(ip->family) / 8, ip->bytes);
}

void request_proxy_add(struct request *request, uint32_t index, const struct ip *ip)
{
    struct nlmsghdr *message =
        request_neighbour(request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, ip->family,
                          NUD_PERMANENT, NTF_PROXY, "answer for the address of");

    message_put_destination(message, ip);
    mnl_attr_put_u8(message, NDA_PROTOCOL, LINK_ROUTE_PROTOCOL);
}

void request_proxy_remove(struct request *request, uint32_t index, const struct ip *ip)
{
    message_put_destination(request_neighbour(request, RTM_DELNEIGH, 0, index, ip->family, 0,
                                              NTF_PROXY, "stop answering for the address of"),
                            ip);
    request_tolerate(request, ENOENT);
    request_tolerate(request, ENODEV);
}

void request_neighbour_add(struct request *request, uint32_t index, const struct ip *ip,
                           const struct mac *mac)
{
    struct nlmsghdr *message =
        request_neighbour(request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, ip->family,
                          NUD_PERMANENT, 0, "set the neighbour entry of");

    message_put_destination(message, ip);
    mnl_attr_put(message, NDA_LLADDR, sizeof(mac->bytes), mac->bytes);
    mnl_attr_put_u8(message, NDA_PROTOCOL, LINK_ROUTE_PROTOCOL);
}

void request_neighbour_remove(struct request *request, uint32_t index, const struct ip *ip)
{
    message_put_destination(request_neighbour(request, RTM_DELNEIGH, 0, index, ip->family, 0, 0,
                                              "remove the neighbour entry of"),
                            ip);
    request_tolerate(request, ENOENT);
    request_tolerate(request, ENODEV);
}

void request_forwarding_entry(struct request *request, uint32_t index, const struct mac *mac)
{
    struct nlmsghdr *message =
        request_neighbour(request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, AF_BRIDGE,
                          NUD_NOARP, NTF_MASTER, "set the forwarding entry of");

    mnl_attr_put(message, NDA_LLADDR, sizeof(mac->bytes), mac->bytes);
}

void request_proxy_delay_none(struct request *request, uint32_t index, uint8_t family)
{
    void *extra;
    struct nlmsghdr *message = request_add(request, RTM_SETNEIGHTBL, 0, sizeof(struct ndtmsg),
                                           &extra, "set the proxy delay of");
    struct ndtmsg *header = extra;

    header->ndtm_family = family;
    mnl_attr_put_strz(message, NDTA_NAME, family == AF_INET ? "arp_cache" : "ndisc_cache");
    struct nlattr *parameters = mnl_attr_nest_start(message, NDTA_PARMS);
    mnl_attr_put_u32(message, NDTPA_IFINDEX, index);
    mnl_attr_put_u64(message, NDTPA_PROXY_DELAY, 0);
    mnl_attr_nest_end(message, parameters);
}
