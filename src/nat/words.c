/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/words.h"

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include "nat/ruleset.h"

#define LOOPBACK_INDEX 1 /* lo is the first link of every namespace */

void word_load_source4(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, reg);
}

void word_load_destination4(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, reg);
}

void word_load_source6(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 8, 16, reg);
}

void word_load_destination6(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 24, 16, reg);
}

void word_load_service(struct rule *rule, unsigned reg)
{
    rule_load_meta(rule, NFT_META_L4PROTO, reg);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg + 1);
}

void word_lookup(struct rule *rule, enum set_id set)
{
    rule_lookup(rule, set_def_get(set)->name, RULE_LOOKUP);
}

void word_lookup_not(struct rule *rule, enum set_id set)
{
    rule_lookup(rule, set_def_get(set)->name, RULE_LOOKUP_NOT);
}

void word_ip4(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, NFPROTO_IPV4);
}

void word_ip6(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, NFPROTO_IPV6);
}

static const struct ruleset_groups *groups_of(const struct rule *rule)
{
    return rule->context;
}

static void group_is_ours(struct rule *rule, enum nft_meta_keys key, enum nft_cmp_ops op)
{
    rule_load_meta(rule, key, 0);
    rule_mask(rule, &groups_of(rule)->mask, sizeof(groups_of(rule)->mask));
    rule_compare_u32(rule, op, groups_of(rule)->base);
}

void word_from_ours(struct rule *rule)
{
    group_is_ours(rule, NFT_META_IIFGROUP, NFT_CMP_EQ);
}

void word_from_others(struct rule *rule)
{
    group_is_ours(rule, NFT_META_IIFGROUP, NFT_CMP_NEQ);
}

void word_to_ours(struct rule *rule)
{
    group_is_ours(rule, NFT_META_OIFGROUP, NFT_CMP_EQ);
}

void word_to_others(struct rule *rule)
{
    group_is_ours(rule, NFT_META_OIFGROUP, NFT_CMP_NEQ);
}

void word_from_loopback(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIF, 0);
    rule_compare_u32(rule, NFT_CMP_EQ, LOOPBACK_INDEX);
}

void word_not_from_loopback(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIF, 0);
    rule_compare_u32(rule, NFT_CMP_NEQ, LOOPBACK_INDEX);
}

void word_source4_loopback(struct rule *rule)
{
    word_ip4(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 12, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, 127);
}

void word_destination4_loopback(struct rule *rule)
{
    word_ip4(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 16, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, 127);
}

static const uint8_t loopback6[16] = {[15] = 1};

void word_source6_loopback(struct rule *rule)
{
    word_ip6(rule);
    word_load_source6(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, loopback6, sizeof(loopback6));
}

void word_destination6_loopback(struct rule *rule)
{
    word_ip6(rule);
    word_load_destination6(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, loopback6, sizeof(loopback6));
}

void word_to_host(struct rule *rule)
{
    rule_load_address_type(rule);
    rule_compare_u32(rule, NFT_CMP_EQ, RTN_LOCAL);
}

#define STATE_BIT(state) ((uint32_t)NF_CT_STATE_BIT(state))
#define STATES_KNOWN (STATE_BIT(IP_CT_ESTABLISHED) | STATE_BIT(IP_CT_RELATED))

static void state_has(struct rule *rule, uint32_t bits, enum nft_cmp_ops op)
{
    rule_load_ct(rule, NFT_CT_STATE);
    rule_mask(rule, &bits, sizeof(bits));
    rule_compare_u32(rule, op, 0);
}

void word_known(struct rule *rule)
{
    state_has(rule, STATES_KNOWN, NFT_CMP_NEQ);
}

void word_unknown(struct rule *rule)
{
    state_has(rule, STATES_KNOWN, NFT_CMP_EQ);
}

void word_invalid(struct rule *rule)
{
    state_has(rule, NF_CT_STATE_INVALID_BIT, NFT_CMP_NEQ);
}

void word_published(struct rule *rule)
{
    static const uint32_t bit = IPS_DST_NAT;

    rule_load_ct(rule, NFT_CT_STATUS);
    rule_mask(rule, &bit, sizeof(bit));
    rule_compare_u32(rule, NFT_CMP_NEQ, 0);
}

void word_protocol(struct rule *rule, uint8_t number)
{
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, number);
}

void word_tcp(struct rule *rule)
{
    word_protocol(rule, IPPROTO_TCP);
}

void word_udp(struct rule *rule)
{
    word_protocol(rule, IPPROTO_UDP);
}

void word_udp_ports(struct rule *rule, uint16_t source, uint16_t destination)
{
    const uint16_t ports[] = {htons(source), htons(destination)};

    word_protocol(rule, IPPROTO_UDP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 4, 0);
    rule_compare(rule, NFT_CMP_EQ, ports, sizeof(ports));
}

void word_dhcp4_request(struct rule *rule)
{
    word_ip4(rule);
    word_udp_ports(rule, 68, 67);
}

void word_dhcp6_request(struct rule *rule)
{
    word_ip6(rule);
    word_udp_ports(rule, 546, 547);
}

void word_icmp4(struct rule *rule)
{
    word_ip4(rule);
    word_protocol(rule, IPPROTO_ICMP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
}

void word_icmp6(struct rule *rule)
{
    word_ip6(rule);
    word_protocol(rule, IPPROTO_ICMPV6);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
}

void word_router_solicit(struct rule *rule)
{
    word_icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ND_ROUTER_SOLICIT);
}

void word_neighbour_discovery(struct rule *rule)
{
    word_icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_GTE, ND_NEIGHBOR_SOLICIT);
    rule_compare_u8(rule, NFT_CMP_LTE, ND_NEIGHBOR_ADVERT);
}

void word_load_groups(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    rule_load_meta(rule, NFT_META_OIFGROUP, 1);
}

void word_within_same(struct rule *rule)
{
    word_load_groups(rule);
    word_lookup(rule, SET_SAME);
}

void word_from_internal(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_lookup(rule, SET_INTERNAL);
}

void word_to_internal(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    word_lookup(rule, SET_INTERNAL);
}

void word_load_group_and_destination4(struct rule *rule)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_load_destination4(rule, 1);
}

void word_load_group_and_destination6(struct rule *rule)
{
    word_ip6(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_load_destination6(rule, 1);
}

void word_to_own4(struct rule *rule)
{
    word_load_group_and_destination4(rule);
    word_lookup(rule, SET_OWN4);
}

void word_to_own6(struct rule *rule)
{
    word_load_group_and_destination6(rule);
    word_lookup(rule, SET_OWN6);
}

void word_to_dns4(struct rule *rule)
{
    word_ip4(rule);
    word_load_destination4(rule, 0);
    word_load_service(rule, 1);
    word_lookup(rule, SET_DNS4);
}

void word_to_dns6(struct rule *rule)
{
    word_ip6(rule);
    word_load_destination6(rule, 0);
    word_load_service(rule, 4);
    word_lookup(rule, SET_DNS6);
}

/* proto . source port: a service's, of what it says. */
static void load_own_service(struct rule *rule, unsigned reg)
{
    rule_load_meta(rule, NFT_META_L4PROTO, reg);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, reg + 1);
}

void word_from_dns4(struct rule *rule)
{
    word_ip4(rule);
    word_udp(rule);
    word_load_source4(rule, 0);
    load_own_service(rule, 1);
    word_lookup(rule, SET_DNS4);
}

void word_from_dns6(struct rule *rule)
{
    word_ip6(rule);
    word_udp(rule);
    word_load_source6(rule, 0);
    load_own_service(rule, 4);
    word_lookup(rule, SET_DNS6);
}

void word_tell(struct rule *rule, const char *prefix)
{
    struct nftnl_expr *expr = rule_add(rule, "log");

    if (!expr)
        return;
    nftnl_expr_set_u16(expr, NFTNL_EXPR_LOG_GROUP, RULESET_LOG_GROUP);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_LOG_SNAPLEN, RULESET_LOG_LENGTH);
    rule->failed |= nftnl_expr_set_str(expr, NFTNL_EXPR_LOG_PREFIX, prefix) < 0;
}

void word_accept_it(struct rule *rule)
{
    rule_verdict(rule, NF_ACCEPT, NULL);
}

void word_drop_it(struct rule *rule)
{
    rule_verdict(rule, NF_DROP, NULL);
}

void word_goto(struct rule *rule, enum chain_id chain)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_def_get(chain)->name);
}

void word_from_host_access(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_lookup(rule, SET_HOST_ACCESS);
}

void word_to_relay4(struct rule *rule)
{
    word_ip4(rule);
    word_load_service(rule, 0);
    word_lookup(rule, SET_RELAY4);
}

void word_refuse_it(struct rule *rule)
{
    word_goto(rule, CHAIN_REFUSE);
}

void word_to_localhost(struct rule *rule)
{
    static const uint8_t wire[4] = {NAT_LOCALHOST_WIRE};

    word_ip4(rule);
    word_load_destination4(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, wire, sizeof(wire));
}
