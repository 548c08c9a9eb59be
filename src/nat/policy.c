/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A set of ranges shows its elements only after the transaction that added them has switched the
 * rules (the kernel commits such sets last: nft_set_pipapo.c, "commit"). So a policy is made whole
 * in one transaction, with no way into it, and the next leads the endpoints from the old version to
 * the new one, and takes the old one out. These are elements of a hash map: they switch at once. */
#include "nat/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "nat/policy_chain.h"
#include "nat/rule.h"

#define RANGES_ROOM 60000 /* one netlink attribute has 16 bits of length */
#define RANGE_ROOM 96

static const struct set_def set_defs[POLICY_FAMILIES] = {
    {"", "ranges of a policy", {FIELD_IP4, FIELD_PORT, FIELD_PROTO}, {0}, true, TABLE_INET},
    {"", "ranges of a policy", {FIELD_IP6, FIELD_PORT, FIELD_PROTO}, {0}, true, TABLE_INET},
};

static const struct set_def services_def = {
    "", "services of a policy", {FIELD_PROTO, FIELD_PORT}, {FIELD_POLICY}, true, TABLE_INET};

static const struct set_def opening_defs[POLICY_FAMILIES] = {
    {"", "given by name", {FIELD_IP4}, {0}, false, TABLE_INET},
    {"", "given by name", {FIELD_IP6}, {0}, false, TABLE_INET},
};

static const uint8_t families[POLICY_FAMILIES] = {AF_INET, AF_INET6};

size_t policy_key_length(unsigned family_index)
{
    return family_index ? 24 : 12;
}

/* --- parts --- */

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
    if (index < POLICY_CLASSES) {
        policy_chain_name(object->id, object->version, (enum policy_class)index, text);
        return text;
    }
    index -= POLICY_CLASSES;
    for (int closes = 0; closes < 2; closes++) {
        if (index < side_count(object, closes)) {
            policy_service_name(object->id, object->version, closes,
                                side_service(object, closes, index), text);
            return text;
        }
        index -= side_count(object, closes);
    }
    return NULL;
}

/* The map of services, then the openings of each. */
static const char *side_set_get(const struct policy_object *object, bool closes, size_t index,
                                char text[POLICY_NAME_MAX], enum policy_set_kind *ret_kind)
{
    *ret_kind = index == 0 ? POLICY_SET_SERVICES : POLICY_SET_OPENINGS;
    if (index == 0)
        policy_services_name(object->id, object->version, closes, text);
    else
        policy_openings_name(object->id, object->version, closes,
                             families[(index - 1) % POLICY_FAMILIES],
                             side_service(object, closes, (index - 1) / POLICY_FAMILIES), text);
    return text;
}

const char *policy_set_get(const struct policy_object *object, size_t index,
                           char text[POLICY_NAME_MAX], enum policy_set_kind *ret_kind)
{
    size_t range_sets = (size_t)object->n_tables * POLICY_FAMILIES;

    *ret_kind = POLICY_SET_RANGES;
    if (index < range_sets)
        return object->sets[index / POLICY_FAMILIES][index % POLICY_FAMILIES];
    index -= range_sets;
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

/* Do any rules speak of @public or @private? Else both classes have the same ranges, in one set. */
static bool rules_split(const struct policy_rules *rules)
{
    for (size_t i = 0; i < rules->count; i++)
        if (rules->items[i].destination == RULE_PUBLIC ||
            rules->items[i].destination == RULE_PRIVATE)
            return true;
    return false;
}

static void object_name(struct policy_object *object)
{
    for (int class = 0; class < POLICY_CLASSES; class ++) {
        policy_chain_name(object->id, object->version, (enum policy_class) class,
                          object->chains[class]);
        for (int i = 0; i < POLICY_FAMILIES; i++)
            policy_ranges_name(object->id, object->version,
                               object->n_tables == 1 ? POLICY_CLASSES : (enum policy_class) class,
                               families[i], object->sets[class][i]);
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
    for (int class = 0; class < object->n_tables; class ++)
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
    object->n_tables = rules_split(policy->allow) || rules_split(policy->deny) ? POLICY_CLASSES : 1;
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

    memset(key, 0, length + 8);
    memcpy(key, ip->bytes, length);
    memcpy(key + length, &wire_port, sizeof(wire_port));
    key[length + 4] = protocol;
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
    policy_service_name(object->id, object->version, closes, range->service, chain);
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
    policy_service_name(object->id, object->version, closes, service, name);
    nft_transaction_add_chain(transaction, RULESET_TABLE, &chain);
    policy_service_append(object, closes, service, transaction);
}

static void append_new_services(const struct policy_object *object, bool closes,
                                struct nft_transaction *transaction)
{
    char map[POLICY_NAME_MAX];

    for (uint32_t i = 0; i < object->services.count; i++)
        if (service_is_on(object, closes, i))
            append_service(object, closes, i, transaction);
    policy_services_name(object->id, object->version, closes, map);
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
    for (int class = 0; class < object->n_tables; class ++)
        append_new_ranges(object, (enum policy_class) class, transaction);
    for (int class = 0; class < POLICY_CLASSES; class ++) {
        const struct nft_chain chain = {.name = object->chains[class]};

        nft_transaction_add_chain(transaction, RULESET_TABLE, &chain);
        policy_chain_append(object, (enum policy_class) class, transaction);
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
