/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rtnetlink messages that link/ sends, one function each, and what it reads from the kernel's
 * (rtnetlink(7), Documentation/netlink/specs/rt-*.yaml of the kernel). `what` names the step in
 * errors. Private to link/. */
#pragma once

#include "link.h"
#include "netlink.h"

/* A link as the kernel describes it. */
struct link_state {
    struct link_info info;
    bool operational;   /* IF_OPER_UP: what is handed to it leaves (RFC 2863) */
    bool spanning_tree; /* a bridge that takes part in STP */
    uint32_t mtu;
    struct mac mac;
};

/* Does it carry our group or our alias? */
bool link_is_ours(uint32_t group, const char *alias);
/* From RTM_NEWLINK or RTM_DELLINK. Returns 0 or -EBADMSG. */
int link_parse(const struct nlmsghdr *message, struct link_state *ret_state);
/* An IPv4 or IPv6 address from an attribute; absent when it is NULL or too short. */
struct ip attribute_ip(uint8_t family, const struct nlattr *attribute);

/* --- links --- */
/* RTM_SETLINK, RTM_NEWLINK, RTM_GETLINK … of index; the caller puts attributes. */
struct nlmsghdr *request_link(struct request *request, uint16_t type, uint16_t flags,
                              uint32_t index, const char *what);
/* Sets the flag IFF_UP of the message's link as `up` says. */
void message_set_up(struct nlmsghdr *message, bool up);
void message_put_mac(struct nlmsghdr *message, const struct mac *mac);

struct ipv4_setting {
    uint16_t id; /* IPV4_DEVCONF_… */
    uint32_t value;
};
/* Per-device IPv4 settings of an existing link, without /proc/sys; ipv6_silent: no link-local
 * address when the link comes up (the kernel refuses that, EAFNOSUPPORT, on a link without IPv6;
 * see link_has_ipv6). */
void message_put_settings(struct nlmsghdr *message, const struct ipv4_setting *settings,
                          size_t count, bool ipv6_silent);
/* Hairpin mode of a bridge's port. */
void request_hairpin(struct request *request, uint32_t index, bool on);
void request_up(struct request *request, uint32_t index, bool up, const char *what);
/* Down, out of its bridge, into the dying group. */
void request_dying(struct request *request, uint32_t index);

/* --- addresses --- */
#define REQUEST_ADDRESS_NO_ROUTE 1u /* IFA_F_NOPREFIXROUTE */
/* An address of ours; fine when it is there already. IPv6: without duplicate address detection. */
void request_address_add(struct request *request, uint32_t index, const struct cidr *address,
                         unsigned flags);
void request_address_remove(struct request *request, uint32_t index, const struct cidr *address);

/* --- routes and neighbours --- */
struct route {
    struct cidr to;   /* prefix 0 with a family: the default route */
    struct ip via;    /* absent: on the link */
    struct ip source; /* preferred source; absent: the kernel's choice */
    uint32_t index;
};
/* In table main, marked with LINK_ROUTE_PROTOCOL. */
void request_route(struct request *request, uint16_t type, uint16_t flags,
                   const struct route *route, const char *what);
/* The host answers for ip on this link. */
void request_proxy_add(struct request *request, uint32_t index, const struct ip *ip);
/* Fine when there is none. */
void request_proxy_remove(struct request *request, uint32_t index, const struct ip *ip);
/* A neighbour entry that never ages and that no guest can overwrite. */
void request_neighbour_add(struct request *request, uint32_t index, const struct ip *ip,
                           const struct mac *mac);
/* Fine when there is none. */
void request_neighbour_remove(struct request *request, uint32_t index, const struct ip *ip);
/* Static entry of a bridge's forwarding table: mac is behind this port. */
void request_forwarding_entry(struct request *request, uint32_t index, const struct mac *mac);
/* Proxied answers on this link go out at once instead of after up to 0.8 s. */
void request_proxy_delay_none(struct request *request, uint32_t index, uint8_t family);
