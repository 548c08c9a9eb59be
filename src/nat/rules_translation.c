/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Published ports, localhost of guests, and the way out.
 *
 *   dnat, dnat_output   published ports, for what is addressed to this host only. 127.0.0.1 is
 *               served in output. [::1] is not translated: the kernel can't route from it, the
 *               relay worker serves it.
 *   localhost   where a guest's localhost leads to (localhost.c), as far as its gateway would take
 *               it. The rest is refused here, before it is translated: with br_netfilter the kernel
 *               sends the reset for a bridged frame out of its port at once (nf_send_reset), and
 *               does not translate it back, so that a client who called another address takes no
 *               notice of it.
 *   snat        to the outside with the host's address. Else the client's address is kept, but for
 *               sources that a guest can't answer (127.0.0.1; a neighbour of its own network, whose
 *               answer would pass the host by; the host's outer address or a guest's of another
 *               network on an internal one): these come from the gateway. */
#include "nat/rules.h"

#include <libnftnl/expr.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>

#include "base/cleanup.h"
#include "nat/ruleset.h"
#include "nat/words.h"

/* The data goes to the first registers. */
static void lookup_map(struct rule *rule, enum set_id set)
{
    rule_lookup(rule, set_def_get(set)->name, RULE_LOOKUP_MAP);
}

static void not_within_same(struct rule *rule)
{
    word_load_groups(rule);
    word_lookup_not(rule, SET_SAME);
}

/* From an endpoint to one of the same network. */
static void neighbours4(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    word_load_source4(rule, 1);
    word_lookup(rule, SET_GUEST4);
}

static void neighbours6(struct rule *rule)
{
    word_ip6(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    word_load_source6(rule, 1);
    word_lookup(rule, SET_GUEST6);
}

/* From an endpoint that may use it. */
static void localhost_of_guest(struct rule *rule)
{
    word_to_localhost(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_load_source4(rule, 1);
    word_lookup(rule, SET_LOCALHOST4);
}

/* Address in the first register, port (if any) in port_reg. */
static void translate(struct rule *rule, uint32_t type, uint32_t family, uint32_t port_reg)
{
    struct nftnl_expr *expr = rule_add(rule, "nat");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_TYPE, type);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_FAMILY, family);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG32_00);
    if (port_reg)
        nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_REG_PROTO_MIN, NFT_REG32_00 + port_reg);
}

static void to_pub4(struct rule *rule)
{
    word_ip4(rule);
    word_load_service(rule, 0);
    lookup_map(rule, SET_PUB4);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV4, 1);
}

static void to_pub4_at(struct rule *rule)
{
    word_ip4(rule);
    word_load_destination4(rule, 0);
    word_load_service(rule, 1);
    lookup_map(rule, SET_PUB4_AT);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV4, 1);
}

static void to_pub6(struct rule *rule)
{
    word_ip6(rule);
    word_load_service(rule, 0);
    lookup_map(rule, SET_PUB6);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV6, 4);
}

static void to_pub6_at(struct rule *rule)
{
    word_ip6(rule);
    word_load_destination6(rule, 0);
    word_load_service(rule, 4);
    lookup_map(rule, SET_PUB6_AT);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV6, 4);
}

static void to_own_gateway4(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    lookup_map(rule, SET_SOURCE4);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV4, 0);
}

/* A port at which the own network's gateway answers for names. */
static void to_own_dns_port4(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_load_service(rule, 1);
    word_lookup(rule, SET_OWN_DNS4);
}

static void goto_localhost(struct rule *rule)
{
    word_goto(rule, CHAIN_LOCALHOST);
}

static void as_gateway4(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    lookup_map(rule, SET_SOURCE4);
    translate(rule, NFT_NAT_SNAT, NFPROTO_IPV4, 0);
}

static void as_gateway6(struct rule *rule)
{
    word_ip6(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    lookup_map(rule, SET_SOURCE6);
    translate(rule, NFT_NAT_SNAT, NFPROTO_IPV6, 0);
}

static void masquerade(struct rule *rule)
{
    rule_add(rule, "masq");
}

/* Guests with process namespaces of their own all number their pings alike. Two that begin at once
 * get the same number outside, as each finds it free, and the kernel drops one of them; so that
 * they get any (nf_nat_core.c). TCP and UDP keep their ports where they can: what punches holes
 * into NAT relies on that (RFC 4787, section 4.2.1). */
static void masquerade_echoes(struct rule *rule)
{
    struct nftnl_expr *expression = rule_add(rule, "masq");

    if (expression)
        nftnl_expr_set_u32(expression, NFTNL_EXPR_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
}

static const struct rule_def rule_defs[] = {
    {CHAIN_DNAT, "localhost of a guest", {localhost_of_guest, goto_localhost}},
    {CHAIN_DNAT, "name service", {word_to_dns4, word_accept_it}},
    {CHAIN_DNAT, "name service, IPv6", {word_to_dns6, word_accept_it}},
    {CHAIN_DNAT, "published on this address", {word_to_host, to_pub4_at}},
    {CHAIN_DNAT, "published", {word_to_host, to_pub4}},
    {CHAIN_DNAT, "published on this address, IPv6", {word_to_host, to_pub6_at}},
    {CHAIN_DNAT, "published, IPv6", {word_to_host, to_pub6}},

    {CHAIN_LOCALHOST, "published", {to_pub4}},
    {CHAIN_LOCALHOST, "name service", {to_own_dns_port4, to_own_gateway4}},
    {CHAIN_LOCALHOST, "with access to the host", {word_from_host_access, to_own_gateway4}},
    {CHAIN_LOCALHOST, "internal networks", {word_from_internal, word_refuse_it}},
    {CHAIN_LOCALHOST, "relayed ports", {word_to_relay4, to_own_gateway4}},
    {CHAIN_LOCALHOST, "nothing else", {word_refuse_it}},

    {CHAIN_DNAT_OUTPUT, "name service", {word_to_dns4, word_accept_it}},
    {CHAIN_DNAT_OUTPUT, "name service, IPv6", {word_to_dns6, word_accept_it}},
    {CHAIN_DNAT_OUTPUT, "::1 is the relay's", {word_destination6_loopback, word_accept_it}},
    {CHAIN_DNAT_OUTPUT, "published on this address", {word_to_host, to_pub4_at}},
    {CHAIN_DNAT_OUTPUT, "published", {word_to_host, to_pub4}},
    {CHAIN_DNAT_OUTPUT, "published on this address, IPv6", {word_to_host, to_pub6_at}},
    {CHAIN_DNAT_OUTPUT, "published, IPv6", {word_to_host, to_pub6}},

    {CHAIN_SNAT, "from 127.0.0.0/8 to a guest", {word_source4_loopback, as_gateway4}},
    {CHAIN_SNAT, "neighbour through the host", {word_published, neighbours4, as_gateway4}},
    {CHAIN_SNAT, "neighbour through the host, IPv6", {word_published, neighbours6, as_gateway6}},
    {CHAIN_SNAT,
     "from the host to an internal guest",
     {word_published, word_to_internal, as_gateway4}},
    {CHAIN_SNAT,
     "from the host to an internal guest, IPv6",
     {word_published, word_to_internal, as_gateway6}},
    {CHAIN_SNAT,
     "from another network to an internal guest",
     {word_from_ours, not_within_same, word_to_internal, as_gateway4}},
    {CHAIN_SNAT,
     "from another network to an internal guest, IPv6",
     {word_from_ours, not_within_same, word_to_internal, as_gateway6}},
    {CHAIN_SNAT,
     "to the outside, ping",
     {word_from_ours, word_to_others, word_icmp4, masquerade_echoes}},
    {CHAIN_SNAT,
     "to the outside, IPv6, ping",
     {word_from_ours, word_to_others, word_icmp6, masquerade_echoes}},
    {CHAIN_SNAT, "to the outside", {word_from_ours, word_to_others, masquerade}},
};

const struct rule_table rules_translation = {rule_defs, ARRAY_SIZE(rule_defs)};
