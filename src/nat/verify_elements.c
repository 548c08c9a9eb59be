/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/verify_elements.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "nat/counter.h"
#include "nat/opening.h"

#define REHASH_PAUSE_MAX_MS 8

struct dump {
    enum set_id set;
    const char *name; /* of the set */
    size_t key_length;
    const struct policy_object *services; /* of a map of services: whose */
    bool closes;
    bool ranges;
    struct nat_batch found; /* only its list is used */
    bool malformed;
};

/* Copies NFTA_SET_ELEM_KEY or _DATA, which must have exactly this length. */
static bool value_copy(const struct nlattr *nest, void *bytes, size_t length)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        if (mnl_attr_get_type(attribute) != NFTA_DATA_VALUE)
            continue;
        if (mnl_attr_get_payload_len(attribute) != length)
            return false;
        memcpy(bytes, mnl_attr_get_payload(attribute), length);
        return true;
    }
    return false;
}

/* Id and version of the policy to whose chain an element leads. */
static bool policy_copy(const struct nlattr *nest, enum set_id set, uint8_t *bytes)
{
    enum policy_class class = set == SET_POLICY_PUBLIC ? POLICY_PUBLIC : POLICY_PRIVATE;
    enum policy_class found = POLICY_CLASSES;
    struct nlattr *verdict;
    struct nlattr *attribute;
    uint64_t version = 0;
    int64_t id = 0;

    mnl_attr_for_each_nested(verdict, nest) mnl_attr_for_each_nested(attribute, verdict)
    {
        if (mnl_attr_get_type(attribute) == NFTA_VERDICT_CHAIN &&
            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0 &&
            !policy_chain_find(mnl_attr_get_str(attribute), &id, &version, &found))
            return false;
        if (mnl_attr_get_type(attribute) == NFTA_VERDICT_CODE &&
            (mnl_attr_validate(attribute, MNL_TYPE_U32) < 0 ||
             ntohl(mnl_attr_get_u32(attribute)) != (uint32_t)NFT_GOTO))
            return false;
    }
    memcpy(bytes, &id, sizeof(id));
    memcpy(bytes + 8, &version, sizeof(version));
    return found == class;
}

/* The number of the service to whose chain an element jumps. */
static bool service_copy(const struct nlattr *nest, const struct policy_object *object, bool closes,
                         uint8_t *bytes)
{
    char chain[POLICY_NAME_MAX];
    struct nlattr *verdict;
    struct nlattr *attribute;
    bool found = false;

    mnl_attr_for_each_nested(verdict, nest) mnl_attr_for_each_nested(attribute, verdict)
    {
        if (mnl_attr_get_type(attribute) == NFTA_VERDICT_CODE &&
            (mnl_attr_validate(attribute, MNL_TYPE_U32) < 0 ||
             ntohl(mnl_attr_get_u32(attribute)) != (uint32_t)NFT_JUMP))
            return false;
        if (mnl_attr_get_type(attribute) != NFTA_VERDICT_CHAIN ||
            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0)
            continue;
        for (uint32_t i = 0; i < object->services.count; i++) {
            policy_service_name(object->id, object->version, closes, i, chain);
            if (strcmp(mnl_attr_get_str(attribute), chain) != 0)
                continue;
            memcpy(bytes, &i, sizeof(i));
            found = true;
        }
    }
    return found;
}

static bool element_parse(const struct dump *dump, const struct nlattr *nest,
                          struct nat_element *element)
{
    bool of_policy = dump->set < SET_COUNT_ && set_def_get(dump->set)->data[0] == FIELD_POLICY;
    struct nlattr *attribute;
    bool key = false;
    bool key_end = !dump->ranges;
    size_t data_length = dump->set < SET_COUNT_ ? set_data_length(dump->set) : 0;
    bool data = data_length == 0 && !dump->services;

    mnl_attr_for_each_nested(attribute, nest)
    {
        switch (mnl_attr_get_type(attribute)) {
        case NFTA_SET_ELEM_KEY:
            key = value_copy(attribute, element->key, dump->key_length);
            break;
        case NFTA_SET_ELEM_KEY_END:
            key_end = dump->ranges && value_copy(attribute, element->key_end, dump->key_length);
            break;
        case NFTA_SET_ELEM_DATA:
            if (dump->services)
                data = service_copy(attribute, dump->services, dump->closes, element->data);
            else
                data = of_policy ? policy_copy(attribute, dump->set, element->data)
                                 : value_copy(attribute, element->data, data_length);
            break;
        case NFTA_SET_ELEM_EXPR:
        case NFTA_SET_ELEM_EXPRESSIONS:
            if (dump->set >= SET_COUNT_ || !set_state_get(dump->set))
                return false;
            if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_EXPR)
                element->amount = counter_read_amount(attribute, dump->set);
            break;
        default: /* somebody gave it a timeout, a comment, … : it is not what we made */
            if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_PAD)
                return false;
        }
    }
    return key && key_end && data;
}

static int dump_push(struct dump *dump, const struct nlattr *nest)
{
    struct nat_batch *found = &dump->found;
    struct nat_element element = {.set = (uint8_t)dump->set, .add = true};

    if (found->count == found->capacity) {
        size_t capacity = found->capacity ? found->capacity * 2 : 256;
        struct nat_element *elements = realloc(found->elements, capacity * sizeof(*elements));

        if (!elements)
            return -ENOMEM;
        found->elements = elements;
        found->capacity = capacity;
    }
    if (!element_parse(dump, nest, &element))
        dump->malformed = true;
    found->elements[found->count++] = element;
    return 0;
}

static int elements_parse(const struct nlmsghdr *message, void *userdata)
{
    struct nlattr *attribute;
    struct nlattr *nest;

    mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_LIST_ELEMENTS)
            continue;
        mnl_attr_for_each_nested(nest, attribute)
        {
            int result = dump_push(userdata, nest);

            if (result < 0)
                return result;
        }
    }
    return 0;
}

static void elements_build(struct nlmsghdr *message, void *userdata)
{
    const struct dump *dump = userdata;

    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, dump->name);
}

static int element_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct nat_element));
}

/* Sorts, and leaves out what is there twice. */
static size_t elements_normalize(struct nat_element *elements, size_t count)
{
    size_t kept = 0;

    if (count > 1)
        qsort(elements, count, sizeof(*elements), element_compare);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || element_compare(&elements[kept - 1], &elements[i]) != 0)
            elements[kept++] = elements[i];
    return kept;
}

static int dump_all(struct nat *nat, struct dump *dump, struct error *error)
{
    for (size_t i = 0; i < SET_COUNT_; i++) {
        dump->set = (enum set_id)i;
        dump->name = set_def_get(dump->set)->name;
        dump->key_length = set_key_length(dump->set);
        dump->ranges = set_def_get(dump->set)->ranges;
        int result =
            nft_socket_get(nat->socket, ruleset_table_family(set_def_get(dump->set)->table),
                           NFT_MSG_GETSETELEM, true, elements_build, elements_parse, dump, error);
        if (result < 0)
            return result;
    }
    return 0;
}

/* The same? If not, may another dump tell otherwise? */
static bool elements_judge(struct dump *dump, struct nat_element *wanted, size_t n_wanted,
                           bool *ret_retry)
{
    struct nat_batch *found = &dump->found;
    size_t n_found = elements_normalize(found->elements, found->count);
    bool same = !dump->malformed && n_wanted == n_found &&
                (n_found == 0 || memcmp(wanted, found->elements, n_found * sizeof(*wanted)) == 0);

    *ret_retry = !same && (n_found < found->count || n_found < n_wanted);
    return same;
}

static int verify_elements_once(struct nat *nat, struct nat_element *wanted, size_t n_wanted,
                                bool *ret_same, bool *ret_retry, struct error *error)
{
    struct dump dump = {0};
    int result = dump_all(nat, &dump, error);

    if (result == 0)
        *ret_same = elements_judge(&dump, wanted, n_wanted, ret_retry);
    free(dump.found.elements);
    return result;
}

/* The kernel grows a hash table behind its back for some milliseconds after many elements were
 * added; a dump meanwhile gives some of them twice and misses others. Such a dump is repeated. */
int verify_elements(struct nat *nat, const struct nat_batch *batch,
                    const struct nat_batch *constant, bool *ret_same, struct error *error)
{
    size_t count = batch->count + (constant ? constant->count : 0);
    _cleanup_free_ struct nat_element *wanted = calloc(count + 1, sizeof(*wanted));
    bool retry = true;
    int result = 0;

    if (!constant || !wanted || batch->failed || constant->failed)
        return error_set(error, ENOMEM, "cannot verify nftables");
    memcpy(wanted, constant->elements, constant->count * sizeof(*wanted));
    if (batch->count > 0)
        memcpy(wanted + constant->count, batch->elements, batch->count * sizeof(*wanted));
    size_t n_wanted = elements_normalize(wanted, count);
    for (long pause_ms = 1; result == 0 && retry; pause_ms *= 2) {
        result = verify_elements_once(nat, wanted, n_wanted, ret_same, &retry, error);
        if (pause_ms > REHASH_PAUSE_MAX_MS)
            break;
        if (result == 0 && retry)
            nanosleep(&(struct timespec){.tv_nsec = pause_ms * 1000000}, NULL);
    }
    return result;
}

/* --- ranges of policies --- */

/* Sorts both. */
static bool dump_equals(struct dump *dump, struct nat_element *wanted, size_t count)
{
    size_t n_wanted = elements_normalize(wanted, count);
    size_t n_found = elements_normalize(dump->found.elements, dump->found.count);

    return !dump->malformed && n_wanted == n_found &&
           (n_found == 0 || memcmp(wanted, dump->found.elements, n_found * sizeof(*wanted)) == 0);
}

static int dump_get(struct nat *nat, struct dump *dump, struct error *error)
{
    return nft_socket_get(nat->socket, NFPROTO_INET, NFT_MSG_GETSETELEM, true, elements_build,
                          elements_parse, dump, error);
}

static bool ranges_judge(struct dump *dump, const struct policy_table *table,
                         struct nat_element *wanted)
{
    for (size_t i = 0; i < table->count; i++) {
        wanted[i].set = SET_COUNT_;
        wanted[i].add = true;
        policy_range_write(&table->items[i], wanted[i].key, wanted[i].key_end);
    }
    return dump_equals(dump, wanted, table->count);
}

static int verify_ranges(struct nat *nat, const struct policy_object *object,
                         enum policy_class class, unsigned family, bool *ret_same,
                         struct error *error)
{
    const struct policy_table *table = &object->tables[class][family];
    _cleanup_free_ struct nat_element *wanted = calloc(table->count + 1, sizeof(*wanted));
    struct dump dump = {
        .set = SET_COUNT_,
        .name = object->sets[class][family],
        .key_length = policy_key_length(family),
        .ranges = true,
    };
    int result;

    if (!wanted)
        return error_set(error, ENOMEM, "cannot verify nftables");
    result = dump_get(nat, &dump, error);
    if (result == 0)
        *ret_same = ranges_judge(&dump, table, wanted);
    free(dump.found.elements);
    return result;
}

static bool services_judge(struct dump *dump, const struct policy_services *services,
                           struct nat_element *wanted)
{
    size_t count = 0;

    for (size_t i = 0; i < services->n_ranges; i++) {
        uint32_t service = services->ranges[i].service;

        if (!(dump->closes ? services->items[service].closes : services->items[service].opens))
            continue;
        wanted[count].set = SET_COUNT_;
        wanted[count].add = true;
        policy_service_range_write(&services->ranges[i], wanted[count].key, wanted[count].key_end);
        memcpy(wanted[count++].data, &service, sizeof(service));
    }
    return dump_equals(dump, wanted, count);
}

static int verify_services(struct nat *nat, const struct policy_object *object, const char *map,
                           bool closes, bool *ret_same, struct error *error)
{
    _cleanup_free_ struct nat_element *wanted =
        calloc(object->services.n_ranges + 1, sizeof(*wanted));
    struct dump dump = {
        .set = SET_COUNT_,
        .name = map,
        .key_length = POLICY_SERVICE_KEY,
        .services = object,
        .closes = closes,
        .ranges = true,
    };
    int result;

    if (!wanted)
        return error_set(error, ENOMEM, "cannot verify nftables");
    result = dump_get(nat, &dump, error);
    if (result == 0)
        *ret_same = services_judge(&dump, &object->services, wanted);
    free(dump.found.elements);
    return result;
}

static int verify_all_services(struct nat *nat, const struct policy_object *object, bool *ret_same,
                               struct error *error)
{
    bool closes = object->services.n_opens == 0; /* what is opened comes first */
    char text[POLICY_NAME_MAX];
    enum policy_set_kind kind;
    const char *set;
    int result = 0;

    for (size_t i = 0; result == 0 && *ret_same && (set = policy_set_get(object, i, text, &kind));
         i++) {
        if (kind != POLICY_SET_SERVICES)
            continue;
        result = verify_services(nat, object, set, closes, ret_same, error);
        closes = true;
    }
    return result;
}

int verify_policy(struct nat *nat, const struct nat_batch *batch,
                  const struct policy_object *object, bool *ret_same, struct error *error)
{
    int result = 0;

    for (int class = 0; class < object->n_tables; class ++)
        for (unsigned i = 0; result == 0 && *ret_same && i < POLICY_FAMILIES; i++)
            result = verify_ranges(nat, object, (enum policy_class) class, i, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_all_services(nat, object, ret_same, error);
    if (result == 0 && *ret_same)
        result = openings_verify(nat, batch, object, ret_same, error);
    return result;
}
