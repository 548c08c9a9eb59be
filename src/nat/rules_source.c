/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What may come in from where.
 *
 *   raw         before connection tracking: addresses of the loopback never come from outside, so
 *               that what listens or is published on 127.0.0.1 stays there although route_localnet
 *               is on; no source routes, whatever the host's settings say of them; and routed
 *               ports send only from what they were given.
 *               Queries to the name service by UDP are not tracked, nor (raw_output) its answers:
 *               thousands a second, each from a port of its own, would fill the host's table, and
 *               the guest's share of it.
 *   ports       (bridge moat) the same for bridged ports: no word of a router or DHCP server,
 *               nothing but IP and ARP. No connection tracking is needed for it.
 *   not_given, ports_not_given   what is dropped so is counted and told of. */
#include "nat/rules.h"

#include <arpa/inet.h>
#include <linux/icmp.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include <netinet/in.h>

#include "base/cleanup.h"
#include "nat/ruleset.h"
#include "nat/words.h"

#define REGS_INTERFACE 4 /* registers of its name */
#define REGS_MAC 2
#define MLD2_REPORT 143 /* RFC 3810, section 5.2 */

static void udp_source(struct rule *rule, uint16_t port)
{
    const uint16_t wire = htons(port);

    word_protocol(rule, IPPROTO_UDP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, 0);
    rule_compare(rule, NFT_CMP_EQ, &wire, sizeof(wire));
}

static void not_from_bridge(struct rule *rule)
{
    static const char kind[16] = "bridge";

    rule_load_meta(rule, NFT_META_IIFKIND, 0);
    rule_compare(rule, NFT_CMP_NEQ, kind, sizeof(kind));
}

static void source4_is_not_given(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    word_load_source4(rule, REGS_INTERFACE);
    word_lookup_not(rule, SET_FROM4);
}

static void source6_is_not_given(struct rule *rule)
{
    word_ip6(rule);
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    word_load_source6(rule, REGS_INTERFACE);
    word_lookup_not(rule, SET_FROM6);
}

static void redirect4(struct rule *rule)
{
    word_icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_REDIRECT);
}

static void loose_route4(struct rule *rule)
{
    rule_has_header(rule, NFT_EXTHDR_OP_IPV4, IPOPT_LSRR);
}

static void strict_route4(struct rule *rule)
{
    rule_has_header(rule, NFT_EXTHDR_OP_IPV4, IPOPT_SSRR);
}

static void routing_header6(struct rule *rule)
{
    rule_has_header(rule, NFT_EXTHDR_OP_IPV6, IPPROTO_ROUTING);
}

/* Not so where it lies behind extension headers in a later fragment. */
static void of_known_protocol(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_compare_u8(rule, NFT_CMP_GTE, 0);
}

static void router_advert(struct rule *rule)
{
    word_icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ND_ROUTER_ADVERT);
}

static void redirect6(struct rule *rule)
{
    word_icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ND_REDIRECT);
}

/* A VLAN tag stands where the type of the payload would: such a frame is of no type that passes. */
static void ether_type(struct rule *rule, uint16_t type)
{
    const uint16_t wire = htons(type);

    rule_load_payload(rule, NFT_PAYLOAD_LL_HEADER, 12, 2, 0);
    rule_compare(rule, NFT_CMP_EQ, &wire, sizeof(wire));
}

static void frame_ip4(struct rule *rule)
{
    ether_type(rule, ETH_P_IP);
}

static void frame_arp(struct rule *rule)
{
    ether_type(rule, ETH_P_ARP);
}

static void frame_ip6(struct rule *rule)
{
    ether_type(rule, ETH_P_IPV6);
}

static void load_port_and_mac(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    rule_load_payload(rule, NFT_PAYLOAD_LL_HEADER, 6, 6, REGS_INTERFACE);
}

static void given4(struct rule *rule)
{
    load_port_and_mac(rule);
    word_load_source4(rule, REGS_INTERFACE + REGS_MAC);
    word_lookup(rule, SET_PORT4);
}

static void given6(struct rule *rule)
{
    load_port_and_mac(rule);
    word_load_source6(rule, REGS_INTERFACE + REGS_MAC);
    word_lookup(rule, SET_PORT6);
}

static void source_none4(struct rule *rule)
{
    static const uint8_t none[4];

    word_load_source4(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, none, sizeof(none));
}

static void source_none6(struct rule *rule)
{
    static const uint8_t none[16];

    word_load_source6(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, none, sizeof(none));
}

static void frame_dhcp4_request(struct rule *rule)
{
    word_udp_ports(rule, 68, 67);
}

static void frame_dhcp4_server(struct rule *rule)
{
    udp_source(rule, 67);
}

static void frame_dhcp6_server(struct rule *rule)
{
    udp_source(rule, 547);
}

static void frame_icmp6(struct rule *rule, uint8_t type)
{
    word_protocol(rule, IPPROTO_ICMPV6);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, type);
}

static void frame_router_advert(struct rule *rule)
{
    frame_icmp6(rule, ND_ROUTER_ADVERT);
}

static void frame_redirect6(struct rule *rule)
{
    frame_icmp6(rule, ND_REDIRECT);
}

static void frame_redirect4(struct rule *rule)
{
    word_protocol(rule, IPPROTO_ICMP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_REDIRECT);
}

static void frame_multicast_report(struct rule *rule)
{
    frame_icmp6(rule, MLD2_REPORT);
}

/* Port . MAC . the address that the message is about. */
static void load_neighbour(struct rule *rule, uint8_t type)
{
    frame_icmp6(rule, type);
    load_port_and_mac(rule);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16, REGS_INTERFACE + REGS_MAC);
}

/* Says of an address that is not the sender's that it is its own. */
static void frame_false_advert(struct rule *rule)
{
    load_neighbour(rule, ND_NEIGHBOR_ADVERT);
    word_lookup_not(rule, SET_PORT6);
}

/* Asks whether anybody has the sender's own address. For another's, that would say that the sender
 * wants it too (RFC 4862 section 5.4.3). */
static void frame_own_solicit(struct rule *rule)
{
    load_neighbour(rule, ND_NEIGHBOR_SOLICIT);
    word_lookup(rule, SET_PORT6);
}

/* Ethernet and IPv4 (RFC 826); the sender's address in the frame and in the message, both its own.
 */
static void arp_given(struct rule *rule)
{
    static const uint8_t header[6] = {0, 1, 0x08, 0x00, 6, 4};

    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 0, sizeof(header), 0);
    rule_compare(rule, NFT_CMP_EQ, header, sizeof(header));
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 8, 6, REGS_INTERFACE);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 14, 4, REGS_INTERFACE + REGS_MAC);
    word_lookup(rule, SET_PORT4);
    load_port_and_mac(rule);
    word_lookup(rule, SET_PORT4);
}

static void from_counted(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    word_lookup(rule, SET_DROPPED);
}

static void from_counted_port(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    word_lookup(rule, SET_DROPPED_PORT);
}

static void tell_dropped(struct rule *rule)
{
    word_tell(rule, RULESET_LOG_DROPPED);
}

static void not_given(struct rule *rule)
{
    word_goto(rule, CHAIN_NOT_GIVEN);
}

static void not_given_port(struct rule *rule)
{
    word_goto(rule, CHAIN_PORTS_NOT_GIVEN);
}

static void goto_ports_ip4(struct rule *rule)
{
    word_goto(rule, CHAIN_PORTS_IP4);
}

static void goto_ports_arp(struct rule *rule)
{
    word_goto(rule, CHAIN_PORTS_ARP);
}

static void goto_ports_ip6(struct rule *rule)
{
    word_goto(rule, CHAIN_PORTS_IP6);
}

static void query4(struct rule *rule)
{
    word_udp(rule);
    word_to_dns4(rule);
}

static void query6(struct rule *rule)
{
    word_udp(rule);
    word_to_dns6(rule);
}

/* Of an endpoint whose localhost leads here it may be a question to localhost: translated, and so
 * tracked (localhost.c). */
static void not_by_localhost(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_load_source4(rule, 1);
    word_lookup_not(rule, SET_LOCALHOST4);
}

static void not_to_localhost(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    word_load_destination4(rule, 1);
    word_lookup_not(rule, SET_LOCALHOST4);
}

static void untracked(struct rule *rule)
{
    rule_add(rule, "notrack");
}

static const struct rule_def rule_defs[] = {
    {CHAIN_RAW,
     "no loopback source from outside",
     {word_not_from_loopback, word_source4_loopback, not_given}},
    {CHAIN_RAW,
     "no loopback destination from outside",
     {word_not_from_loopback, word_destination4_loopback, not_given}},
    {CHAIN_RAW,
     "no ::1 source from outside",
     {word_not_from_loopback, word_source6_loopback, not_given}},
    {CHAIN_RAW,
     "no ::1 destination from outside",
     {word_not_from_loopback, word_destination6_loopback, not_given}},

    {CHAIN_RAW, "no redirects", {word_from_ours, redirect4, not_given}},
    {CHAIN_RAW, "no redirects, IPv6", {word_from_ours, redirect6, not_given}},
    {CHAIN_RAW, "no source routes", {word_from_ours, loose_route4, not_given}},
    {CHAIN_RAW, "no strict source routes", {word_from_ours, strict_route4, not_given}},
    {CHAIN_RAW, "no source routes, IPv6", {word_from_ours, routing_header6, not_given}},
    {CHAIN_RAW, "no router advertisements", {word_from_ours, router_advert, not_given}},
    {CHAIN_RAW,
     "DHCP of routed ports",
     {word_from_ours, word_dhcp4_request, source_none4, word_accept_it}},
    {CHAIN_RAW,
     "sources of routed ports",
     {word_from_ours, not_from_bridge, source4_is_not_given, not_given}},
    {CHAIN_RAW,
     "sources of routed ports, IPv6",
     {word_from_ours, not_from_bridge, source6_is_not_given, not_given}},
    {CHAIN_RAW, "queries", {word_from_ours, query4, not_by_localhost, untracked}},
    {CHAIN_RAW, "queries, IPv6", {word_from_ours, query6, untracked}},
    {CHAIN_RAW_OUTPUT, "answers", {word_to_ours, word_from_dns4, not_to_localhost, untracked}},
    {CHAIN_RAW_OUTPUT, "answers, IPv6", {word_to_ours, word_from_dns6, untracked}},

    {CHAIN_NOT_GIVEN, "counted and told", {from_counted, tell_dropped}},
    {CHAIN_NOT_GIVEN, "dropped", {word_drop_it}},

    {CHAIN_PORTS, "not ours", {word_from_others, word_accept_it}},
    {CHAIN_PORTS, "IPv4", {frame_ip4, goto_ports_ip4}},
    {CHAIN_PORTS, "ARP", {frame_arp, goto_ports_arp}},
    {CHAIN_PORTS, "IPv6", {frame_ip6, goto_ports_ip6}},
    {CHAIN_PORTS, "nothing else", {not_given_port}},

    {CHAIN_PORTS_IP4, "no DHCP server", {frame_dhcp4_server, not_given_port}},
    {CHAIN_PORTS_IP4, "no redirects", {frame_redirect4, not_given_port}},
    {CHAIN_PORTS_IP4, "no source routes", {loose_route4, not_given_port}},
    {CHAIN_PORTS_IP4, "no strict source routes", {strict_route4, not_given_port}},
    {CHAIN_PORTS_IP4, "DHCP", {source_none4, frame_dhcp4_request, given4, word_accept_it}},
    {CHAIN_PORTS_IP4, "no source", {source_none4, not_given_port}},
    {CHAIN_PORTS_IP4, "what was given", {given4, word_accept_it}},
    {CHAIN_PORTS_IP4, "nothing else", {not_given_port}},

    {CHAIN_PORTS_ARP, "what was given", {arp_given, word_accept_it}},
    {CHAIN_PORTS_ARP, "nothing else", {not_given_port}},

    {CHAIN_PORTS_IP6, "no DHCP server", {frame_dhcp6_server, not_given_port}},
    {CHAIN_PORTS_IP6, "no router advertisements", {frame_router_advert, not_given_port}},
    {CHAIN_PORTS_IP6, "no redirects", {frame_redirect6, not_given_port}},
    {CHAIN_PORTS_IP6, "no source routes", {routing_header6, not_given_port}},
    {CHAIN_PORTS_IP6, "no false advertisements", {frame_false_advert, not_given_port}},
    {CHAIN_PORTS_IP6, "duplicate detection", {source_none6, frame_own_solicit, word_accept_it}},
    {CHAIN_PORTS_IP6,
     "multicast reports",
     {source_none6, frame_multicast_report, given6, word_accept_it}},
    {CHAIN_PORTS_IP6, "no source", {source_none6, not_given_port}},
    {CHAIN_PORTS_IP6, "what was given", {of_known_protocol, given6, word_accept_it}},
    {CHAIN_PORTS_IP6, "nothing else", {not_given_port}},

    {CHAIN_PORTS_NOT_GIVEN, "counted and told", {from_counted_port, tell_dropped}},
    {CHAIN_PORTS_NOT_GIVEN, "dropped", {word_drop_it}},
};

const struct rule_table rules_source = {rule_defs, ARRAY_SIZE(rule_defs)};
