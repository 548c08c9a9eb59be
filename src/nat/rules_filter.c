/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may open connections to whom.
 *
 *   forward     networks never reach each other but where a passage was allowed, nor is anything
 *               let in that is not published. With br_netfilter bridged frames pass here too: both
 *               groups are then the bridge's own.
 *   input       what guests reach of the host (from_guest); who reaches the gateways' addresses.
 *   output      the host itself opens no connection to a closed guest. */
#include "nat/rules.h"

#include <libnftnl/expr.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/cleanup.h"
#include "nat/words.h"

static void tcp_syn(struct rule *rule)
{
    static const uint8_t syn_rst = 0x06;

    word_tcp(rule);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, 0);
    rule_mask(rule, &syn_rst, sizeof(syn_rst));
    rule_compare_u8(rule, NFT_CMP_EQ, 0x02);
}

static void dhcp4_answer(struct rule *rule)
{
    word_ip4(rule);
    word_udp_ports(rule, 67, 68);
}

static void dhcp6_answer(struct rule *rule)
{
    word_ip6(rule);
    word_udp_ports(rule, 547, 546);
}

static void echo4(struct rule *rule)
{
    word_icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_ECHO);
}

static void echo6(struct rule *rule)
{
    word_icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMPV6_ECHO_REQUEST);
}

/* An error about what a guest sent, perhaps before its connection was known: it opens nothing. */
static void unreachable4(struct rule *rule)
{
    word_icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_DEST_UNREACH);
}

/* Time exceeded, parameter problem. */
static void error4(struct rule *rule)
{
    word_icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_GTE, ICMP_TIME_EXCEEDED);
    rule_compare_u8(rule, NFT_CMP_LTE, ICMP_PARAMETERPROB);
}

static void error6(struct rule *rule)
{
    word_icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_LTE, ICMPV6_PARAMPROB);
}

static void on_passage(struct rule *rule)
{
    word_load_groups(rule);
    word_lookup(rule, SET_PASSAGE);
}

static void on_passage_port(struct rule *rule)
{
    word_load_groups(rule);
    word_load_service(rule, 2);
    word_lookup(rule, SET_PASSAGE_PORT);
}

static void not_from_internal(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_lookup_not(rule, SET_INTERNAL);
}

static void to_gateway4(struct rule *rule)
{
    word_ip4(rule);
    word_load_destination4(rule, 0);
    word_lookup(rule, SET_GATEWAY4);
}

static void to_gateway6(struct rule *rule)
{
    word_ip6(rule);
    word_load_destination6(rule, 0);
    word_lookup(rule, SET_GATEWAY6);
}

static void not_to_own4(struct rule *rule)
{
    word_load_group_and_destination4(rule);
    word_lookup_not(rule, SET_OWN4);
}

static void not_to_own6(struct rule *rule)
{
    word_load_group_and_destination6(rule);
    word_lookup_not(rule, SET_OWN6);
}

static void to_closed4(struct rule *rule)
{
    word_ip4(rule);
    word_load_destination4(rule, 0);
    word_lookup(rule, SET_CLOSED4);
}

static void to_closed6(struct rule *rule)
{
    word_ip6(rule);
    word_load_destination6(rule, 0);
    word_lookup(rule, SET_CLOSED6);
}

/* IPv6 to a port of an IPv4 guest: a listener of the relay worker. */
static void to_relay6(struct rule *rule)
{
    word_ip6(rule);
    word_load_service(rule, 0);
    word_lookup(rule, SET_RELAY6);
}

static void to_relay6_at(struct rule *rule)
{
    word_ip6(rule);
    word_load_destination6(rule, 0);
    word_load_service(rule, 4);
    word_lookup(rule, SET_RELAY6_AT);
}

/* Allowed, where it is not too many. */
static void goto_conns(struct rule *rule)
{
    word_goto(rule, CHAIN_CONNS);
}

static void goto_from_guest(struct rule *rule)
{
    word_goto(rule, CHAIN_FROM_GUEST);
}

/* The segment size of a SYN becomes what the path of the connection carries in both directions;
 * never more than it was. */
static void clamp_segment_size(struct rule *rule)
{
    struct nftnl_expr *route = rule_add(rule, "rt");
    struct nftnl_expr *order = rule_add(rule, "byteorder");
    struct nftnl_expr *option = rule_add(rule, "exthdr");

    if (!route || !order || !option)
        return;
    nftnl_expr_set_u32(route, NFTNL_EXPR_RT_KEY, NFT_RT_TCPMSS);
    nftnl_expr_set_u32(route, NFTNL_EXPR_RT_DREG, NFT_REG32_00);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_SREG, NFT_REG32_00);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_DREG, NFT_REG32_00);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_LEN, 2);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_SIZE, 2);
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_SREG, NFT_REG32_00);
    nftnl_expr_set_u8(option, NFTNL_EXPR_EXTHDR_TYPE, 2); /* maximum segment size, RFC 9293 */
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_OFFSET, 2);
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_LEN, 2);
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT);
}

static const struct rule_def rule_defs[] = {
    {CHAIN_FORWARD, "not ours", {word_from_others, word_to_others, word_accept_it}},
    {CHAIN_FORWARD, "segment size", {tcp_syn, clamp_segment_size}},
    {CHAIN_FORWARD, "known connections", {word_known, word_accept_it}},
    {CHAIN_FORWARD, "closed guests", {to_closed4, word_refuse_it}},
    {CHAIN_FORWARD, "closed guests, IPv6", {to_closed6, word_refuse_it}},
    {CHAIN_FORWARD, "within a network", {word_within_same, goto_conns}},
    {CHAIN_FORWARD, "no connection", {word_invalid, word_drop_it}},
    {CHAIN_FORWARD, "from network to network", {on_passage, goto_conns}},
    {CHAIN_FORWARD, "from network to ports of a network", {on_passage_port, goto_conns}},
    {CHAIN_FORWARD, "out of an internal network", {word_from_internal, word_refuse_it}},
    {CHAIN_FORWARD, "into an internal network", {word_to_internal, word_refuse_it}},
    {CHAIN_FORWARD, "published ports", {word_to_ours, word_published, goto_conns}},
    {CHAIN_FORWARD, "nothing else gets in", {word_to_ours, word_refuse_it}},
    {CHAIN_FORWARD, "to the outside", {goto_conns}},

    {CHAIN_INPUT, "the host itself", {word_from_loopback, word_accept_it}},
    {CHAIN_INPUT, "guests", {word_from_ours, goto_from_guest}},
    {CHAIN_INPUT, "gateways are for guests", {word_unknown, to_gateway4, word_drop_it}},
    {CHAIN_INPUT, "gateways are for guests, IPv6", {word_unknown, to_gateway6, word_drop_it}},

    {CHAIN_OUTPUT, "known connections", {word_known, word_accept_it}},
    {CHAIN_OUTPUT, "answers of the name service", {word_from_dns4, word_accept_it}},
    {CHAIN_OUTPUT, "answers of the name service, IPv6", {word_from_dns6, word_accept_it}},
    {CHAIN_OUTPUT, "DHCP", {dhcp4_answer, word_accept_it}},
    {CHAIN_OUTPUT, "DHCPv6", {dhcp6_answer, word_accept_it}},
    {CHAIN_OUTPUT, "neighbour discovery", {word_neighbour_discovery, word_accept_it}},
    {CHAIN_OUTPUT, "unreachable", {unreachable4, word_accept_it}},
    {CHAIN_OUTPUT, "other errors", {error4, word_accept_it}},
    {CHAIN_OUTPUT, "errors, IPv6", {error6, word_accept_it}},
    {CHAIN_OUTPUT, "closed guests", {to_closed4, word_refuse_it}},
    {CHAIN_OUTPUT, "closed guests, IPv6", {to_closed6, word_refuse_it}},

    {CHAIN_FROM_GUEST, "known connections", {word_known, word_accept_it}},
    {CHAIN_FROM_GUEST, "no connection", {word_invalid, word_drop_it}},
    {CHAIN_FROM_GUEST, "relayed ports", {not_from_internal, word_to_relay4, goto_conns}},
    {CHAIN_FROM_GUEST, "relayed ports, IPv6", {not_from_internal, to_relay6, goto_conns}},
    {CHAIN_FROM_GUEST,
     "relayed ports on this address",
     {not_from_internal, to_relay6_at, goto_conns}},
    {CHAIN_FROM_GUEST, "another network's gateway", {to_gateway4, not_to_own4, word_refuse_it}},
    {CHAIN_FROM_GUEST,
     "another network's gateway, IPv6",
     {to_gateway6, not_to_own6, word_refuse_it}},
    {CHAIN_FROM_GUEST, "DHCP is the worker's", {word_dhcp4_request, word_drop_it}},
    {CHAIN_FROM_GUEST, "DHCPv6 is the worker's", {word_dhcp6_request, word_drop_it}},
    {CHAIN_FROM_GUEST, "router solicitation", {word_router_solicit, word_accept_it}},
    {CHAIN_FROM_GUEST, "neighbour discovery", {word_neighbour_discovery, word_accept_it}},
    {CHAIN_FROM_GUEST, "queries", {word_to_dns4, word_udp, word_accept_it}},
    {CHAIN_FROM_GUEST, "queries, IPv6", {word_to_dns6, word_udp, word_accept_it}},
    {CHAIN_FROM_GUEST, "name service", {word_to_dns4, goto_conns}},
    {CHAIN_FROM_GUEST, "name service, IPv6", {word_to_dns6, goto_conns}},
    {CHAIN_FROM_GUEST, "ping of the gateway", {word_to_own4, echo4, goto_conns}},
    {CHAIN_FROM_GUEST, "ping of the gateway, IPv6", {word_to_own6, echo6, goto_conns}},
    {CHAIN_FROM_GUEST, "with access to the host", {word_from_host_access, goto_conns}},
    {CHAIN_FROM_GUEST, "internal networks", {word_from_internal, word_refuse_it}},
    {CHAIN_FROM_GUEST, "ping", {echo4, goto_conns}},
    {CHAIN_FROM_GUEST, "ping, IPv6", {echo6, goto_conns}},
    {CHAIN_FROM_GUEST, "nothing else", {word_refuse_it}},
};

const struct rule_table rules_filter = {rule_defs, ARRAY_SIZE(rule_defs)};
