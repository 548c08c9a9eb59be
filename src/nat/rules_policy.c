/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What guests may open connections to, asked before translation: a rule speaks of the address that
 * the guest called. Each policy has two chains of its own (policy.c), which a map leads to from the
 * host's end of the guest's link. */
#include "nat/rules.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/cleanup.h"
#include "nat/words.h"

/* Never a public address: reserved, or of one of our networks. */
static void load_family_and_destination4(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    word_load_destination4(rule, 1);
}

static void load_family_and_destination6(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    word_load_destination6(rule, 1);
}

static void to_special4(struct rule *rule)
{
    word_ip4(rule);
    load_family_and_destination4(rule);
    word_lookup(rule, SET_SPECIAL4);
}

static void to_special6(struct rule *rule)
{
    word_ip6(rule);
    load_family_and_destination6(rule);
    word_lookup(rule, SET_SPECIAL6);
}

static void to_subnet4(struct rule *rule)
{
    word_ip4(rule);
    load_family_and_destination4(rule);
    word_lookup(rule, SET_SUBNET4);
}

static void to_subnet6(struct rule *rule)
{
    word_ip6(rule);
    load_family_and_destination6(rule);
    word_lookup(rule, SET_SUBNET6);
}

static void to_broadcast4(struct rule *rule)
{
    static const uint8_t broadcast[4] = {255, 255, 255, 255};

    word_ip4(rule);
    word_load_destination4(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, broadcast, sizeof(broadcast));
}

/* What never leaves the link: fe80::/10, and ff02::/16. */
static void to_link_local6(struct rule *rule)
{
    static const uint8_t mask[2] = {0xff, 0xc0};
    static const uint8_t prefix[2] = {0xfe, 0x80};

    word_ip6(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 24, 2, 0);
    rule_mask(rule, mask, sizeof(mask));
    rule_compare(rule, NFT_CMP_EQ, prefix, sizeof(prefix));
}

static void to_link_multicast6(struct rule *rule)
{
    static const uint8_t prefix[2] = {0xff, 0x02};

    word_ip6(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 24, 2, 0);
    rule_compare(rule, NFT_CMP_EQ, prefix, sizeof(prefix));
}

static void goto_policy_private(struct rule *rule)
{
    word_goto(rule, CHAIN_POLICY_PRIVATE);
}

/* To the chain of the policy of the interface, if it has one. */
static void follow_policy(struct rule *rule, enum set_id set)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    rule_lookup(rule, set_def_get(set)->name, RULE_LOOKUP_VERDICT);
}

static void follow_policy_public(struct rule *rule)
{
    follow_policy(rule, SET_POLICY_PUBLIC);
}

static void follow_policy_private(struct rule *rule)
{
    follow_policy(rule, SET_POLICY_PRIVATE);
}

static const struct rule_def rule_defs[] = {
    {CHAIN_POLICY, "not ours", {word_from_others, word_accept_it}},
    {CHAIN_POLICY, "known connections", {word_known, word_accept_it}},
    {CHAIN_POLICY, "name service", {word_to_own4, word_to_dns4, word_accept_it}},
    {CHAIN_POLICY, "name service, IPv6", {word_to_own6, word_to_dns6, word_accept_it}},
    {CHAIN_POLICY, "DHCP", {word_dhcp4_request, to_broadcast4, word_accept_it}},
    {CHAIN_POLICY, "DHCP of the gateway", {word_dhcp4_request, word_to_own4, word_accept_it}},
    {CHAIN_POLICY, "DHCPv6", {word_dhcp6_request, to_link_multicast6, word_accept_it}},
    {CHAIN_POLICY,
     "router solicitation",
     {word_router_solicit, to_link_multicast6, word_accept_it}},
    {CHAIN_POLICY,
     "neighbour discovery, multicast",
     {word_neighbour_discovery, to_link_multicast6, word_accept_it}},
    {CHAIN_POLICY,
     "neighbour discovery, link-local",
     {word_neighbour_discovery, to_link_local6, word_accept_it}},
    {CHAIN_POLICY,
     "neighbour discovery, gateway",
     {word_neighbour_discovery, word_to_own6, word_accept_it}},
    {CHAIN_POLICY, "this host", {word_to_host, goto_policy_private}},
    {CHAIN_POLICY, "our networks", {to_subnet4, goto_policy_private}},
    {CHAIN_POLICY, "our networks, IPv6", {to_subnet6, goto_policy_private}},
    {CHAIN_POLICY, "never public", {to_special4, goto_policy_private}},
    {CHAIN_POLICY, "never public, IPv6", {to_special6, goto_policy_private}},
    {CHAIN_POLICY, "public addresses", {follow_policy_public}},

    {CHAIN_POLICY_PRIVATE, "other addresses", {follow_policy_private}},

    {CHAIN_POLICY_WAIT, "not yet", {word_drop_it}},
};

const struct rule_table rules_policy = {rule_defs, ARRAY_SIZE(rule_defs)};
