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
#include <linux/rtnetlink.h>
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

static const struct set_def services_def = {
    "", "services of a policy", {FIELD_PROTO, FIELD_PORT}, {FIELD_POLICY}, true, TABLE_INET};

static const struct set_def opening_defs[POLICY_FAMILIES] = {
    {"", "given by name", {FIELD_IP4}, {0}, false, TABLE_INET},
    {"", "given by name", {FIELD_IP6}, {0}, false, TABLE_INET},
};

static const char *const opening_words[] = {"open", "closed"}; /* by `closes` */
static const char *const class_names[POLICY_CLASSES] = {"public", "private"};
static const uint8_t families[POLICY_FAMILIES] = {AF_INET, AF_INET6};

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

const char *policy_name_read(const char *name, int64_t *ret_id, uint64_t *ret_version)
{
    unsigned long long version;
    long long id;
    int end = 0;

    if (sscanf(name, "guest%18lld_%16llx_%n", &id, &version, &end) != 2 || end == 0)
        return NULL;
    *ret_id = id;
    *ret_version = version;
    return name + end;
}

bool policy_chain_find(const char *name, int64_t *ret_id, uint64_t *ret_version,
                       enum policy_class *ret_class)
{
    int64_t id;
    uint64_t version;
    const char *rest = policy_name_read(name, &id, &version);

    for (int class = 0; rest && class < POLICY_CLASSES; class ++) {
        if (strcmp(rest, class_names[class]) != 0)
            continue;
        *ret_id = id;
        *ret_version = version;
        *ret_class = (enum policy_class) class;
        return true;
    }
    return false;
}

/* family and service only where they count: AF_UNSPEC, -1. */
static void set_name(int64_t id, uint64_t version, const char *what, uint8_t family, int service,
                     char ret_name[POLICY_NAME_MAX])
{
    char number[16] = "";

    if (service >= 0)
        snprintf(number, sizeof(number), "_%d", service);
    snprintf(ret_name, POLICY_NAME_MAX, "guest%lld_%016llx_%s%s%s", (long long)id,
             (unsigned long long)version, what,
             family == AF_INET    ? "4"
             : family == AF_INET6 ? "6"
                                  : "",
             number);
}

void policy_openings_name(int64_t id, uint64_t version, bool closes, uint8_t family,
                          uint32_t service, char ret_name[POLICY_NAME_MAX])
{
    set_name(id, version, opening_words[closes], family, (int)service, ret_name);
}

bool policy_openings_read(const char *name, struct nat_opening *ret_opening)
{
    struct nat_opening opening = {0};
    const char *rest = policy_name_read(name, &opening.policy_id, &opening.policy_version);
    char wanted[POLICY_NAME_MAX];
    const char *number = rest ? strchr(rest, '_') : NULL;

    if (!number || sscanf(number, "_%3u", &opening.service) != 1)
        return false;
    for (int i = 0; i < 2 * POLICY_FAMILIES; i++) {
        opening.closes = i / 2;
        opening.ip.family = families[i % 2];
        policy_openings_name(opening.policy_id, opening.policy_version, opening.closes,
                             opening.ip.family, opening.service, wanted);
        if (strcmp(name, wanted) != 0)
            continue;
        *ret_opening = opening;
        return true;
    }
    return false;
}

void policy_service_chain(const struct policy_object *object, bool closes, uint32_t service,
                          char ret_name[POLICY_NAME_MAX])
{
    set_name(object->id, object->version, opening_words[closes], AF_UNSPEC, (int)service, ret_name);
}

/* The map that leads there. */
static void services_name(const struct policy_object *object, bool closes,
                          char ret_name[POLICY_NAME_MAX])
{
    set_name(object->id, object->version, closes ? "closed" : "open", AF_UNSPEC, -1, ret_name);
}

/* How many services names can open, or deny. */
static size_t side_count(const struct policy_object *object, bool closes)
{
    return closes ? object->services.n_closes : object->services.n_opens;
}

static bool service_is_on(const struct policy_object *object, bool closes, uint32_t service)
{
    const struct policy_service *item = &object->services.items[service];

    return closes ? item->closes : item->opens;
}

/* The n-th of them. */
static uint32_t side_service(const struct policy_object *object, bool closes, size_t n)
{
    uint32_t service = 0;

    while (!service_is_on(object, closes, service) || n-- > 0)
        service++;
    return service;
}

const char *policy_chain_get(const struct policy_object *object, size_t index,
                             char text[POLICY_NAME_MAX])
{
    if (index < POLICY_CLASSES)
        return object->chains[index];
    index -= POLICY_CLASSES;
    for (int closes = 0; closes < 2; closes++) {
        if (index < side_count(object, closes)) {
            policy_service_chain(object, closes, side_service(object, closes, index), text);
            return text;
        }
        index -= side_count(object, closes);
    }
    return NULL;
}

#define RANGE_SETS ((size_t)POLICY_CLASSES * POLICY_FAMILIES)

/* The map of services, then the openings of each. */
static const char *side_set_get(const struct policy_object *object, bool closes, size_t index,
                                char text[POLICY_NAME_MAX], enum policy_set_kind *ret_kind)
{
    *ret_kind = index == 0 ? POLICY_SET_SERVICES : POLICY_SET_OPENINGS;
    if (index == 0)
        services_name(object, closes, text);
    else
        policy_openings_name(object->id, object->version, closes,
                             families[(index - 1) % POLICY_FAMILIES],
                             side_service(object, closes, (index - 1) / POLICY_FAMILIES), text);
    return text;
}

const char *policy_set_get(const struct policy_object *object, size_t index,
                           char text[POLICY_NAME_MAX], enum policy_set_kind *ret_kind)
{
    *ret_kind = POLICY_SET_RANGES;
    if (index < RANGE_SETS)
        return object->sets[index / POLICY_FAMILIES][index % POLICY_FAMILIES];
    index -= RANGE_SETS;
    for (int closes = 0; closes < 2; closes++) {
        size_t services = side_count(object, closes);
        size_t sets = services ? 1 + services * POLICY_FAMILIES : 0;

        if (index < sets)
            return side_set_get(object, closes, index, text, ret_kind);
        index -= sets;
    }
    return NULL;
}

/* --- objects --- */

static void object_name(struct policy_object *object)
{
    for (int class = 0; class < POLICY_CLASSES; class ++) {
        policy_chain_name(object->id, object->version, (enum policy_class) class,
                          object->chains[class]);
        for (int i = 0; i < POLICY_FAMILIES; i++)
            set_name(object->id, object->version, class_names[class], families[i], -1,
                     object->sets[class][i]);
    }
}

static int object_compile_services(struct policy_object *object, const struct nat_policy *policy,
                                   struct error *error)
{
    int result = policy_services_compile(policy->allow, policy->deny, &object->services);

    if (result == -E2BIG)
        return error_set_reason(error, REASON_QUOTA,
                                "beside domain names there may be at most %d different ports and "
                                "protocols, fewer where they overlap; give fewer",
                                POLICY_SERVICES_KINDS_MAX);
    return result < 0 ? error_set(error, result, "cannot prepare a policy") : 0;
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
    int result;

    if (!object)
        return error_set(error, ENOMEM, "cannot prepare a policy");
    object->id = policy->id;
    object->version = policy->version;
    object->add = add;
    object_name(object);
    result = object_compile_services(object, policy, error);
    object->accepts = policy->allow->count > 0;
    if (result == 0 && add)
        result = object_compile(object, policy, error);
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
    policy_services_deinit(&object->services);
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

/* --- services --- */

static void service_key_write(uint8_t protocol, uint16_t port, uint8_t *key)
{
    uint16_t wire_port = htons(port);

    memset(key, 0, POLICY_SERVICE_KEY);
    key[0] = protocol;
    memcpy(key + 4, &wire_port, sizeof(wire_port));
}

void policy_service_range_write(const struct policy_service_range *range, uint8_t *first,
                                uint8_t *last)
{
    service_key_write(range->protocol_first, range->port_first, first);
    service_key_write(range->protocol_last, range->port_last, last);
}

static void put_service(struct nlmsghdr *message, const struct policy_object *object, bool closes,
                        const struct policy_service_range *range)
{
    struct nlattr *nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
    uint8_t first[POLICY_SERVICE_KEY];
    uint8_t last[POLICY_SERVICE_KEY];
    char chain[POLICY_NAME_MAX];

    policy_service_range_write(range, first, last);
    put_key(message, NFTA_SET_ELEM_KEY, first, sizeof(first));
    put_key(message, NFTA_SET_ELEM_KEY_END, last, sizeof(last));
    policy_service_chain(object, closes, range->service, chain);
    struct nlattr *data = mnl_attr_nest_start(message, NFTA_SET_ELEM_DATA);
    struct nlattr *verdict = mnl_attr_nest_start(message, NFTA_DATA_VERDICT);
    mnl_attr_put_u32(message, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_JUMP));
    mnl_attr_put_strz(message, NFTA_VERDICT_CHAIN, chain);
    mnl_attr_nest_end(message, verdict);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, nest);
}

#define SERVICE_ROOM 160

static void append_services(struct nft_transaction *transaction, const char *map,
                            const struct policy_object *object, bool closes)
{
    const struct policy_services *services = &object->services;
    struct nlmsghdr *message =
        nft_transaction_open(transaction, NFT_MSG_NEWSETELEM, NLM_F_CREATE,
                             256 + services->n_ranges * SERVICE_ROOM, "a policy's services");
    struct nlattr *list;

    if (!message)
        return;
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, map);
    list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (size_t i = 0; i < services->n_ranges; i++)
        if (service_is_on(object, closes, services->ranges[i].service))
            put_service(message, object, closes, &services->ranges[i]);
    mnl_attr_nest_end(message, list);
    nft_transaction_close(transaction, message);
}

/* --- rules --- */

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
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    load_destination(rule, family, 1);
    load_port(rule, ports, family ? 5 : 2);
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
    services_name(object, closes, map);
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
    policy_openings_name(object->id, object->version, closes, families[family], service, set);
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

static void append_rules(struct nft_transaction *transaction, const struct policy_object *object,
                         enum policy_class class)
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

/* Openings stay until their time is over: the kernel need not look for those that are gone all the
 * time. */
#define OPENINGS_GC_MS 60000

static struct nftnl_set *openings_build(const char *name, unsigned family)
{
    struct nftnl_set *set = set_def_build(&opening_defs[family], name, SET_COUNT_ + 1);

    if (set) {
        nftnl_set_set_u32(set, NFTNL_SET_FLAGS,
                          nftnl_set_get_u32(set, NFTNL_SET_FLAGS) | NFT_SET_TIMEOUT);
        nftnl_set_set_u32(set, NFTNL_SET_GC_INTERVAL, OPENINGS_GC_MS);
    }
    return set;
}

/* One service's chain and sets. */
static void append_service(const struct policy_object *object, bool closes, uint32_t service,
                           struct nft_transaction *transaction)
{
    char name[POLICY_NAME_MAX];
    struct nft_chain chain = {.name = name};

    for (unsigned i = 0; i < POLICY_FAMILIES; i++) {
        policy_openings_name(object->id, object->version, closes, families[i], service, name);
        nft_transaction_add_set(transaction, openings_build(name, i), "a policy's openings");
    }
    policy_service_chain(object, closes, service, name);
    nft_transaction_add_chain(transaction, RULESET_TABLE, &chain);
    for (unsigned i = 0; i < POLICY_FAMILIES; i++) {
        struct rule rule;

        rule_init(&rule, RULESET_TABLE, name, service_comments[i], NULL);
        lookup_openings(&rule, object, closes, service, i);
        nft_transaction_add_rule(transaction, rule_finish(&rule), service_comments[i]);
    }
}

static void append_new_services(const struct policy_object *object, bool closes,
                                struct nft_transaction *transaction)
{
    char map[POLICY_NAME_MAX];

    for (uint32_t i = 0; i < object->services.count; i++)
        if (service_is_on(object, closes, i))
            append_service(object, closes, i, transaction);
    services_name(object, closes, map);
    nft_transaction_add_set(transaction, set_def_build(&services_def, map, SET_COUNT_ + 1),
                            "a policy's map of services");
    append_services(transaction, map, object, closes);
}

static void append_new_ranges(const struct policy_object *object, enum policy_class class,
                              struct nft_transaction *transaction)
{
    for (unsigned i = 0; i < POLICY_FAMILIES; i++) {
        const struct policy_table *table = &object->tables[class][i];
        const char *set = object->sets[class][i];

        nft_transaction_add_set(transaction, set_def_build(&set_defs[i], set, SET_COUNT_ + 1),
                                "a policy's set");
        for (size_t at = 0; at < table->count;)
            at += append_some_ranges(transaction, set, &table->items[at], table->count - at,
                                     policy_key_length(i));
    }
}

static void append_new(const struct policy_object *object, struct nft_transaction *transaction)
{
    if (object->services.n_opens)
        append_new_services(object, false, transaction);
    if (object->services.n_closes)
        append_new_services(object, true, transaction);
    for (int class = 0; class < POLICY_CLASSES; class ++) {
        const struct nft_chain chain = {.name = object->chains[class]};

        nft_transaction_add_chain(transaction, RULESET_TABLE, &chain);
        append_new_ranges(object, (enum policy_class) class, transaction);
        append_rules(transaction, object, (enum policy_class) class);
    }
}

/* Rules first, and the maps before the chains that they lead to. */
static void append_deletion(const struct policy_object *object, struct nft_transaction *transaction)
{
    char text[POLICY_NAME_MAX];
    enum policy_set_kind kind;
    const char *name;

    for (size_t i = 0; (name = policy_chain_get(object, i, text)); i++)
        append_named(transaction, NFT_MSG_DELRULE, NFTA_RULE_TABLE, NFTA_RULE_CHAIN, name,
                     "a policy's rules");
    for (size_t i = 0; (name = policy_set_get(object, i, text, &kind)); i++)
        append_named(transaction, NFT_MSG_DELSET, NFTA_SET_TABLE, NFTA_SET_NAME, name,
                     "a policy's set");
    for (size_t i = 0; (name = policy_chain_get(object, i, text)); i++)
        append_named(transaction, NFT_MSG_DELCHAIN, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, name,
                     "a policy's chain");
}

void policy_object_append(const struct policy_object *object, bool add,
                          struct nft_transaction *transaction)
{
    if (add)
        append_new(object, transaction);
    else
        append_deletion(object, transaction);
}
