/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The chain of a policy, where a match that fails ends the rule:
 *
 *   allow rules                          deny rules alone
 *   without a connection: drop           without a connection: drop
 *   in the set: accept                   in the set: refuse
 *   not TCP or UDP, in the set: accept   not TCP or UDP, in the set: refuse
 *   (both for IPv6 too)                  (both for IPv6 too)
 *   refuse                               of a known protocol: accept
 *                                        drop
 *
 * The key is protocol . destination . port. A protocol other than TCP and UDP has no port, but
 * whatever it has in that place, or nothing: its second rule looks port 0 up. All ranges of such
 * protocols span every port, so that the first rule errs for none of them.
 *
 * A set of ranges shows its elements only after the transaction that added them has switched the
 * rules (the kernel commits such sets last: nft_set_pipapo.c, "commit"). So a policy is made whole
 * in one transaction, with no way into it, and the next leads the endpoints from the old version to
 * the new one, and takes the old one out. These are elements of a hash map: they switch at once. */
#include "nat/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "nat/rule.h"

#define RANGES_ROOM 60000 /* one netlink attribute has 16 bits of length */
#define RANGE_ROOM 96

static const struct set_def set_defs[POLICY_FAMILIES] = {
    {"", "ranges of a policy", {FIELD_PROTO, FIELD_IP4, FIELD_PORT}, {0}, true, TABLE_INET},
    {"", "ranges of a policy", {FIELD_PROTO, FIELD_IP6, FIELD_PORT}, {0}, true, TABLE_INET},
};

static const char *const class_names[POLICY_CLASSES] = {"public", "private"};
static const uint8_t families[POLICY_FAMILIES] = {AF_INET, AF_INET6};

const struct set_def *policy_set_def(unsigned family_index)
{
    return &set_defs[family_index];
}

size_t policy_key_length(unsigned family_index)
{
    return family_index ? 24 : 12;
}

/* --- names --- */

void policy_chain_name(int64_t id, uint64_t version, enum policy_class class,
                       char ret_name[POLICY_NAME_MAX])
{
    if (id == 0)
        snprintf(ret_name, POLICY_NAME_MAX, "%s", chain_def_get(CHAIN_POLICY_WAIT)->name);
    else
        snprintf(ret_name, POLICY_NAME_MAX, "guest%lld_%016llx_%s", (long long)id,
                 (unsigned long long)version, class_names[class]);
}

bool policy_chain_find(const char *name, int64_t *ret_id, uint64_t *ret_version,
                       enum policy_class *ret_class)
{
    unsigned long long version;
    long long id;
    int end = 0;

    if (sscanf(name, "guest%18lld_%16llx_%n", &id, &version, &end) != 2 || end == 0)
        return false;
    for (int class = 0; class < POLICY_CLASSES; class ++) {
        if (strcmp(name + end, class_names[class]) != 0)
            continue;
        *ret_id = id;
        *ret_version = version;
        *ret_class = (enum policy_class) class;
        return true;
    }
    return false;
}

/* --- objects --- */

static void object_name(struct policy_object *object)
{
    for (int class = 0; class < POLICY_CLASSES; class ++) {
        policy_chain_name(object->id, object->version, (enum policy_class) class,
                          object->chains[class]);
        for (int i = 0; i < POLICY_FAMILIES; i++)
            snprintf(object->sets[class][i], POLICY_NAME_MAX, "guest%lld_%016llx_%s%c",
                     (long long)object->id, (unsigned long long)object->version, class_names[class],
                     i ? '6' : '4');
    }
}

static int object_compile(struct policy_object *object, const struct nat_policy *policy,
                          struct error *error)
{
    for (int class = 0; class < POLICY_CLASSES; class ++)
        for (int i = 0; i < POLICY_FAMILIES; i++) {
            int result = policy_compile(policy->allow, policy->deny, (enum policy_class) class,
                                        families[i], &object->tables[class][i]);
            if (result == -E2BIG)
                return error_set_reason(error, REASON_QUOTA,
                                        "the rules overlap in more than %d ways; give fewer, or "
                                        "fewer different ports",
                                        POLICY_TABLE_MAX);
            if (result < 0)
                return error_set(error, result, "cannot prepare a policy");
        }
    return 0;
}

int policy_object_new(const struct nat_policy *policy, bool add, struct policy_object **ret_object,
                      struct error *error)
{
    struct policy_object *object = calloc(1, sizeof(*object));
    int result = 0;

    if (!object)
        return error_set(error, ENOMEM, "cannot prepare a policy");
    object->id = policy->id;
    object->version = policy->version;
    object->add = add;
    object_name(object);
    if (add) {
        object->accepts = policy->allow->count > 0;
        result = object_compile(object, policy, error);
    }
    if (result < 0)
        policy_object_free(object);
    else
        *ret_object = object;
    return result;
}

void policy_object_free(struct policy_object *object)
{
    if (!object)
        return;
    for (int class = 0; class < POLICY_CLASSES; class ++)
        for (int i = 0; i < POLICY_FAMILIES; i++)
            policy_table_deinit(&object->tables[class][i]);
    free(object);
}

/* --- ranges --- */

static void key_write(uint8_t protocol, const struct ip *ip, uint16_t port, uint8_t *key)
{
    uint16_t wire_port = htons(port);
    size_t length = ip_bits(ip->family) / 8;

    memset(key, 0, 8 + length);
    key[0] = protocol;
    memcpy(key + 4, ip->bytes, length);
    memcpy(key + 4 + length, &wire_port, sizeof(wire_port));
}

void policy_range_write(const struct policy_range *range, uint8_t *first, uint8_t *last)
{
    key_write(range->protocol_first, &range->first, range->port_first, first);
    key_write(range->protocol_last, &range->last, range->port_last, last);
}

static void put_key(struct nlmsghdr *message, uint16_t type, const void *key, size_t length)
{
    struct nlattr *nest = mnl_attr_nest_start(message, type);

    mnl_attr_put(message, NFTA_DATA_VALUE, length, key);
    mnl_attr_nest_end(message, nest);
}

static void put_range(struct nlmsghdr *message, const struct policy_range *range, size_t length)
{
    uint8_t first[SET_KEY_MAX];
    uint8_t last[SET_KEY_MAX];
    struct nlattr *nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);

    policy_range_write(range, first, last);
    put_key(message, NFTA_SET_ELEM_KEY, first, length);
    put_key(message, NFTA_SET_ELEM_KEY_END, last, length);
    mnl_attr_nest_end(message, nest);
}

static size_t append_some_ranges(struct nft_transaction *transaction, const char *set,
                                 const struct policy_range *ranges, size_t count, size_t length)
{
    struct nlmsghdr *message;
    struct nlattr *list;

    if (count > RANGES_ROOM / RANGE_ROOM)
        count = RANGES_ROOM / RANGE_ROOM;
    message = nft_transaction_open(transaction, NFT_MSG_NEWSETELEM, NLM_F_CREATE,
                                   256 + count * RANGE_ROOM, "a policy's ranges");
    if (!message)
        return count;
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set);
    list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (size_t i = 0; i < count; i++)
        put_range(message, &ranges[i], length);
    mnl_attr_nest_end(message, list);
    nft_transaction_close(transaction, message);
    return count;
}

/* --- rules --- */

static const char *const comments[2][7] = {
    {"no connection", "denied", "denied, without ports", "denied, IPv6",
     "denied, without ports, IPv6", "everything else", "no protocol"},
    {"no connection", "allowed", "allowed, without ports", "allowed, IPv6",
     "allowed, without ports, IPv6", "nothing else", NULL},
};

const char *policy_rule_comment(bool accepts, size_t index)
{
    return index < ARRAY_SIZE(comments[0]) ? comments[accepts][index] : NULL;
}

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

static void lookup_ranges(struct rule *rule, const struct policy_object *object,
                          enum policy_class class, unsigned family, bool ports)
{
    static const uint8_t no_port[4];
    uint32_t length = family ? 16 : 4;

    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, family ? NFPROTO_IPV6 : NFPROTO_IPV4);
    if (!ports) {
        not_protocol(rule, IPPROTO_TCP);
        not_protocol(rule, IPPROTO_UDP);
    }
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, family ? 24 : 16, length, 1);
    if (ports)
        rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, 1 + length / 4);
    else
        rule_load_value(rule, no_port, sizeof(no_port), 1 + length / 4);
    rule_lookup(rule, object->sets[class][family], RULE_LOOKUP);
    if (object->accepts)
        rule_verdict(rule, NF_ACCEPT, NULL);
    else
        refuse(rule);
}

/* A packet whose protocol can't be told passed no deny rule. */
static void everything_else(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_compare_u8(rule, NFT_CMP_GTE, 0);
    rule_verdict(rule, NF_ACCEPT, NULL);
}

static void append_rule(struct nft_transaction *transaction, const struct policy_object *object,
                        enum policy_class class, unsigned index)
{
    const char *comment = policy_rule_comment(object->accepts, index);
    struct rule rule;

    rule_init(&rule, RULESET_TABLE, object->chains[class], comment, NULL);
    if (index == 0)
        no_connection(&rule);
    else if (index <= 4)
        lookup_ranges(&rule, object, class, (index - 1) / 2, index % 2 == 1);
    else if (index == 6)
        rule_verdict(&rule, NF_DROP, NULL);
    else if (object->accepts)
        refuse(&rule);
    else
        everything_else(&rule);
    nft_transaction_add_rule(transaction, rule_finish(&rule), comment);
}

/* --- messages --- */

static void append_named(struct nft_transaction *transaction, uint16_t type, uint16_t table_type,
                         uint16_t name_type, const char *name, const char *label)
{
    struct nlmsghdr *message = nft_transaction_open(transaction, type, 0, 256, label);

    if (!message)
        return;
    mnl_attr_put_strz(message, table_type, RULESET_TABLE);
    mnl_attr_put_strz(message, name_type, name);
    nft_transaction_close(transaction, message);
}

static void append_new(const struct policy_object *object, enum policy_class class,
                       struct nft_transaction *transaction)
{
    const struct nft_chain chain = {.name = object->chains[class]};

    nft_transaction_add_chain(transaction, RULESET_TABLE, &chain);
    for (unsigned i = 0; i < POLICY_FAMILIES; i++) {
        const struct policy_table *table = &object->tables[class][i];
        const char *set = object->sets[class][i];

        nft_transaction_add_set(transaction, set_def_build(&set_defs[i], set, SET_COUNT_ + 1),
                                "a policy's set");
        for (size_t at = 0; at < table->count;)
            at += append_some_ranges(transaction, set, &table->items[at], table->count - at,
                                     policy_key_length(i));
    }
    for (unsigned i = 0; policy_rule_comment(object->accepts, i); i++)
        append_rule(transaction, object, class, i);
}

static void append_deletion(const struct policy_object *object, enum policy_class class,
                            struct nft_transaction *transaction)
{
    append_named(transaction, NFT_MSG_DELRULE, NFTA_RULE_TABLE, NFTA_RULE_CHAIN,
                 object->chains[class], "a policy's rules");
    append_named(transaction, NFT_MSG_DELCHAIN, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME,
                 object->chains[class], "a policy's chain");
    for (int i = 0; i < POLICY_FAMILIES; i++)
        append_named(transaction, NFT_MSG_DELSET, NFTA_SET_TABLE, NFTA_SET_NAME,
                     object->sets[class][i], "a policy's set");
}

void policy_object_append(const struct policy_object *object, bool add,
                          struct nft_transaction *transaction)
{
    for (int class = 0; class < POLICY_CLASSES; class ++) {
        if (add)
            append_new(object, (enum policy_class) class, transaction);
        else
            append_deletion(object, (enum policy_class) class, transaction);
    }
}
