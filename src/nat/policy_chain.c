/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The chain of a policy, where a match that fails ends the rule:
 *
 *   allow rules                          deny rules alone
 *   without a connection: drop           without a connection: drop
 *   denied by name: refuse               denied by name: refuse
 *   in the set: accept                   in the set: refuse
 *   not TCP or UDP, in the set: accept   not TCP or UDP, in the set: refuse
 *   (both for IPv6 too)                  (both for IPv6 too)
 *   given by name: accept                of a known protocol: accept
 *   refuse                               drop
 *
 * What stands "by name" is there only with such domain rules, as two rules, for protocols with and
 * without ports, that jump to the chain of the packet's service. That one asks whether the address
 * is among the openings, and refuses; or, where it would accept, asks once more that the address is
 * none of the host's and of no network of ours: it may have become one since it was opened.
 *
 * The key is destination . port . protocol: the kernel narrows the ranges field by field, so that
 * what tells most of them apart comes first. A protocol other than TCP and UDP has no port, but
 * whatever it has in that place, or nothing: its second rule looks port 0 up. All ranges of such
 * protocols span every port, so that the first rule errs for none of them. */
#include "nat/policy_chain.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>

#include "nat/rule.h"

/* --- which rules there are --- */

enum rule_kind {
    RULE_NO_CONNECTION,
    RULE_CLOSED, /* denied by name: with ports, without */
    RULE_RANGES, /* with and without ports, for both families */
    RULE_OPEN,   /* given by name, as RULE_CLOSED */
    RULE_NOTHING_ELSE,
    RULE_EVERYTHING_ELSE,
    RULE_NO_PROTOCOL,
    RULE_KINDS_,
};

#define RULE_VARIANTS 4

static const char *const comments[RULE_KINDS_][RULE_VARIANTS] = {
    [RULE_NO_CONNECTION] = {"no connection"},
    [RULE_CLOSED] = {"denied by name", "denied by name, without ports"},
    [RULE_RANGES] = {"denied", "denied, without ports", "denied, IPv6",
                     "denied, without ports, IPv6"},
    [RULE_OPEN] = {"given by name", "given by name, without ports"},
    [RULE_NOTHING_ELSE] = {"nothing else"},
    [RULE_EVERYTHING_ELSE] = {"everything else"},
    [RULE_NO_PROTOCOL] = {"no protocol"},
};

static const char *const allowed_comments[RULE_VARIANTS] = {
    "allowed", "allowed, without ports", "allowed, IPv6", "allowed, without ports, IPv6"};

/* Of the chain of a service. */
static const char *const service_comments[POLICY_FAMILIES] = {"addresses", "addresses, IPv6"};

static bool kind_is_there(const struct policy_object *object, enum rule_kind kind)
{
    switch (kind) {
    case RULE_CLOSED:
        return object->services.n_closes;
    case RULE_OPEN:
        return object->services.n_opens;
    case RULE_NOTHING_ELSE:
        return object->accepts;
    case RULE_EVERYTHING_ELSE:
    case RULE_NO_PROTOCOL:
        return !object->accepts;
    default:
        return true;
    }
}

static size_t kind_variants(enum rule_kind kind)
{
    size_t count = 0;

    while (count < RULE_VARIANTS && comments[kind][count])
        count++;
    return count;
}

/* The rule at this place of the chain of a class; false behind the last. */
static bool rule_find(const struct policy_object *object, size_t index, enum rule_kind *ret_kind,
                      unsigned *ret_variant)
{
    for (int kind = 0; kind < RULE_KINDS_; kind++) {
        size_t count = kind_variants((enum rule_kind)kind);

        if (!kind_is_there(object, (enum rule_kind)kind))
            continue;
        if (index < count) {
            *ret_kind = (enum rule_kind)kind;
            *ret_variant = (unsigned)index;
            return true;
        }
        index -= count;
    }
    return false;
}

const char *policy_rule_comment(const struct policy_object *object, size_t chain, size_t index)
{
    enum rule_kind kind;
    unsigned variant;

    if (chain >= POLICY_CLASSES)
        return index < POLICY_FAMILIES ? service_comments[index] : NULL;
    if (!rule_find(object, index, &kind, &variant))
        return NULL;
    return kind == RULE_RANGES && object->accepts ? allowed_comments[variant]
                                                  : comments[kind][variant];
}

/* --- their expressions --- */

static void refuse(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_def_get(CHAIN_REFUSE)->name);
}

static void no_connection(struct rule *rule)
{
    static const uint32_t bit = NF_CT_STATE_INVALID_BIT;

    rule_load_ct(rule, NFT_CT_STATE);
    rule_mask(rule, &bit, sizeof(bit));
    rule_compare_u32(rule, NFT_CMP_NEQ, 0);
    rule_verdict(rule, NF_DROP, NULL);
}

static void not_protocol(struct rule *rule, uint8_t protocol)
{
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_compare_u8(rule, NFT_CMP_NEQ, protocol);
}

static void match_family(struct rule *rule, unsigned family)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, family ? NFPROTO_IPV6 : NFPROTO_IPV4);
}

static void match_ports(struct rule *rule, bool ports)
{
    if (ports)
        return;
    not_protocol(rule, IPPROTO_TCP);
    not_protocol(rule, IPPROTO_UDP);
}

static void load_destination(struct rule *rule, unsigned family, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, family ? 24 : 16, family ? 16 : 4, reg);
}

static void load_port(struct rule *rule, bool ports, unsigned reg)
{
    static const uint8_t no_port[4];

    if (ports)
        rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg);
    else
        rule_load_value(rule, no_port, sizeof(no_port), reg);
}

static void lookup_ranges(struct rule *rule, const struct policy_object *object,
                          enum policy_class class, unsigned family, bool ports)
{
    match_family(rule, family);
    match_ports(rule, ports);
    load_destination(rule, family, 0);
    load_port(rule, ports, family ? 4 : 1);
    rule_load_meta(rule, NFT_META_L4PROTO, family ? 5 : 2);
    rule_lookup(rule, object->sets[class][family], RULE_LOOKUP);
    if (object->accepts)
        rule_verdict(rule, NF_ACCEPT, NULL);
    else
        refuse(rule);
}

/* To the chain of the packet's service, and back. */
static void follow_service(struct rule *rule, const struct policy_object *object, bool closes,
                           bool ports)
{
    char map[POLICY_NAME_MAX];

    match_ports(rule, ports);
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    load_port(rule, ports, 1);
    policy_services_name(object->id, object->version, closes, map);
    rule_lookup(rule, map, RULE_LOOKUP_VERDICT);
}

/* None of the host's addresses, and of no network of ours. */
static void not_own(struct rule *rule, unsigned family)
{
    rule_load_address_type(rule);
    rule_compare_u32(rule, NFT_CMP_NEQ, RTN_LOCAL);
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    load_destination(rule, family, 1);
    rule_lookup(rule, set_def_get(family ? SET_SUBNET6 : SET_SUBNET4)->name, RULE_LOOKUP_NOT);
}

static void lookup_openings(struct rule *rule, const struct policy_object *object, bool closes,
                            uint32_t service, unsigned family)
{
    char set[POLICY_NAME_MAX];

    match_family(rule, family);
    load_destination(rule, family, 0);
    policy_openings_name(object->id, object->version, closes, family ? AF_INET6 : AF_INET, service,
                         set);
    rule_lookup(rule, set, RULE_LOOKUP);
    if (closes) {
        refuse(rule);
        return;
    }
    not_own(rule, family);
    rule_verdict(rule, NF_ACCEPT, NULL);
}

/* A packet whose protocol can't be told passed no deny rule. */
static void everything_else(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_compare_u8(rule, NFT_CMP_GTE, 0);
    rule_verdict(rule, NF_ACCEPT, NULL);
}

static void write_rule(struct rule *rule, const struct policy_object *object,
                       enum policy_class class, enum rule_kind kind, unsigned variant)
{
    unsigned family = variant / 2;
    bool ports = variant % 2 == 0;

    switch (kind) {
    case RULE_NO_CONNECTION:
        no_connection(rule);
        break;
    case RULE_CLOSED:
    case RULE_OPEN:
        follow_service(rule, object, kind == RULE_CLOSED, ports);
        break;
    case RULE_RANGES:
        lookup_ranges(rule, object, class, family, ports);
        break;
    case RULE_NOTHING_ELSE:
        refuse(rule);
        break;
    case RULE_EVERYTHING_ELSE:
        everything_else(rule);
        break;
    case RULE_NO_PROTOCOL:
    case RULE_KINDS_:
        rule_verdict(rule, NF_DROP, NULL);
        break;
    }
}

void policy_chain_append(const struct policy_object *object, enum policy_class class,
                         struct nft_transaction *transaction)
{
    enum rule_kind kind;
    unsigned variant;

    for (size_t i = 0; rule_find(object, i, &kind, &variant); i++) {
        const char *comment = policy_rule_comment(object, class, i);
        struct rule rule;

        rule_init(&rule, RULESET_TABLE, object->chains[class], comment, NULL);
        write_rule(&rule, object, class, kind, variant);
        nft_transaction_add_rule(transaction, rule_finish(&rule), comment);
    }
}

void policy_service_append(const struct policy_object *object, bool closes, uint32_t service,
                           struct nft_transaction *transaction)
{
    char name[POLICY_NAME_MAX];

    policy_service_name(object->id, object->version, closes, service, name);
    for (unsigned i = 0; i < POLICY_FAMILIES; i++) {
        struct rule rule;

        rule_init(&rule, RULESET_TABLE, name, service_comments[i], NULL);
        lookup_openings(&rule, object, closes, service, i);
        nft_transaction_add_rule(transaction, rule_finish(&rule), service_comments[i]);
    }
}
