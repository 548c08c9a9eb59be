/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/counter.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/list.h"

#define LOAD_TRIES 5

/* --- to the kernel --- */

static struct nlattr *expression_begin(struct nlmsghdr *message, const char *name,
                                       struct nlattr **ret_data)
{
    struct nlattr *nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);

    mnl_attr_put_strz(message, NFTA_EXPR_NAME, name);
    *ret_data = mnl_attr_nest_start(message, NFTA_EXPR_DATA);
    return nest;
}

static void expression_end(struct nlmsghdr *message, struct nlattr *nest, struct nlattr *data)
{
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, nest);
}

static void put_counter(struct nlmsghdr *message, const struct counter *counter)
{
    struct nlattr *data;
    struct nlattr *nest = expression_begin(message, "counter", &data);

    mnl_attr_put_u64(message, NFTA_COUNTER_BYTES, htobe64(counter ? counter->bytes : 0));
    mnl_attr_put_u64(message, NFTA_COUNTER_PACKETS, htobe64(counter ? counter->packets : 0));
    expression_end(message, nest, data);
}

/* flags: NFT_LIMIT_F_INV matches what is beyond it. */
static void put_limit(struct nlmsghdr *message, uint32_t per_second, uint32_t flags)
{
    struct nlattr *data;
    struct nlattr *nest = expression_begin(message, "limit", &data);

    mnl_attr_put_u64(message, NFTA_LIMIT_RATE, htobe64(per_second));
    mnl_attr_put_u64(message, NFTA_LIMIT_UNIT, htobe64(1));
    mnl_attr_put_u32(message, NFTA_LIMIT_BURST, htonl(per_second));
    mnl_attr_put_u32(message, NFTA_LIMIT_TYPE, htonl(NFT_LIMIT_PKTS));
    mnl_attr_put_u32(message, NFTA_LIMIT_FLAGS, htonl(flags));
    expression_end(message, nest, data);
}

static void put_over_conns(struct nlmsghdr *message, uint32_t amount)
{
    struct nlattr *data;
    struct nlattr *nest = expression_begin(message, "connlimit", &data);

    mnl_attr_put_u32(message, NFTA_CONNLIMIT_COUNT, htonl(amount));
    mnl_attr_put_u32(message, NFTA_CONNLIMIT_FLAGS, htonl(NFT_CONNLIMIT_F_INV));
    expression_end(message, nest, data);
}

void counter_put(struct nlmsghdr *message, const struct nat_element *element,
                 const struct counter *counter)
{
    const struct set_state *state = set_state_get((enum set_id)element->set);
    struct nlattr *list;

    if (!state)
        return;
    list = mnl_attr_nest_start(message, NFTA_SET_ELEM_EXPRESSIONS);
    if (state->counts)
        put_counter(message, counter);
    if (state->per_second)
        put_limit(message, state->per_second, 0);
    if (state->over_conns)
        put_over_conns(message, element->amount);
    if (state->over_rate)
        put_limit(message, element->amount, NFT_LIMIT_F_INV);
    mnl_attr_nest_end(message, list);
}

/* --- from the kernel --- */

/* The data of an expression of that name; NULL where it is another. */
static const struct nlattr *expression_data(const struct nlattr *expression, const char *name)
{
    const struct nlattr *data = NULL;
    struct nlattr *attribute;
    bool is = false;

    mnl_attr_for_each_nested(attribute, expression)
    {
        if (mnl_attr_get_type(attribute) == NFTA_EXPR_NAME)
            is = mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0 &&
                 strcmp(mnl_attr_get_str(attribute), name) == 0;
        if (mnl_attr_get_type(attribute) == NFTA_EXPR_DATA)
            data = attribute;
    }
    return is ? data : NULL;
}

static uint64_t number_read(const struct nlattr *data, uint16_t type)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, data)
    {
        if (mnl_attr_get_type(attribute) != type)
            continue;
        if (mnl_attr_get_payload_len(attribute) == sizeof(uint32_t))
            return ntohl(mnl_attr_get_u32(attribute));
        if (mnl_attr_get_payload_len(attribute) == sizeof(uint64_t))
            return be64toh(mnl_attr_get_u64(attribute));
    }
    return 0;
}

uint32_t counter_read_amount(const struct nlattr *expression, enum set_id set)
{
    const struct set_state *state = set_state_get(set);
    const struct nlattr *data = NULL;

    if (state && state->over_conns && (data = expression_data(expression, "connlimit")))
        return (uint32_t)number_read(data, NFTA_CONNLIMIT_COUNT);
    if (state && state->over_rate && (data = expression_data(expression, "limit")))
        return (uint32_t)number_read(data, NFTA_LIMIT_RATE);
    return 0;
}

/* One expression; what is no counter is passed over. */
static void counter_read_expression(const struct nlattr *expression, struct counter *counter)
{
    const struct nlattr *data = expression_data(expression, "counter");

    if (!data)
        return;
    counter->packets = number_read(data, NFTA_COUNTER_PACKETS);
    counter->bytes = number_read(data, NFTA_COUNTER_BYTES);
}

static void counter_read_key(const struct nlattr *nest, struct counter *counter)
{
    size_t length = set_key_length((enum set_id)counter->set);
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        if (mnl_attr_get_type(attribute) == NFTA_DATA_VALUE &&
            mnl_attr_get_payload_len(attribute) == length)
            memcpy(counter->key, mnl_attr_get_payload(attribute), length);
    }
}

static void counter_read(const struct nlattr *element, struct counter *counter)
{
    struct nlattr *expression;
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, element)
    {
        switch (mnl_attr_get_type(attribute)) {
        case NFTA_SET_ELEM_KEY:
            counter_read_key(attribute, counter);
            break;
        case NFTA_SET_ELEM_EXPR:
            counter_read_expression(attribute, counter);
            break;
        case NFTA_SET_ELEM_EXPRESSIONS:
            mnl_attr_for_each_nested(expression, attribute)
                counter_read_expression(expression, counter);
            break;
        }
    }
}

struct load {
    struct nft_socket *socket;
    enum set_id set;
    const uint8_t *key; /* of the one that is asked for; NULL: all */
    bool roughly;       /* some may be missing or there twice */
    bool rough;         /* they may be */
    struct counters counters;
};

static int load_push(struct load *load, const struct nlattr *element)
{
    struct counters *counters = &load->counters;
    struct counter *items = list_grow(counters->items, counters->count, sizeof(*items));

    if (!items)
        return -ENOMEM;
    counters->items = items;
    items[counters->count] = (struct counter){.set = (uint8_t)load->set};
    counter_read(element, &items[counters->count++]);
    return 0;
}

static int load_parse(const struct nlmsghdr *message, void *userdata)
{
    struct nlattr *attribute;
    struct nlattr *element;
    int r = 0;

    mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_LIST_ELEMENTS)
            continue;
        mnl_attr_for_each_nested(element, attribute) if (r == 0) r = load_push(userdata, element);
    }
    return r;
}

static void put_key(struct nlmsghdr *message, const uint8_t *key, size_t length)
{
    struct nlattr *list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    struct nlattr *element = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
    struct nlattr *nest = mnl_attr_nest_start(message, NFTA_SET_ELEM_KEY);

    mnl_attr_put(message, NFTA_DATA_VALUE, length, key);
    mnl_attr_nest_end(message, nest);
    mnl_attr_nest_end(message, element);
    mnl_attr_nest_end(message, list);
}

static void load_build(struct nlmsghdr *message, void *userdata)
{
    const struct load *load = userdata;

    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set_def_get(load->set)->name);
    if (load->key)
        put_key(message, load->key, set_key_length(load->set));
}

/* Of one set. 0 where it is not there. */
static int load_set(struct load *load, struct error *error)
{
    const struct set_def *def = set_def_get(load->set);
    size_t before = load->counters.count;
    int r = -EINTR;

    for (int i = 0; i < LOAD_TRIES && r == -EINTR; i++) {
        load->counters.count = before;
        r = nft_socket_get(load->socket, ruleset_table_family(def->table), NFT_MSG_GETSETELEM,
                           !load->key, load_build, load_parse, load, error);
        if (r == -EINTR && load->roughly) {
            load->rough = true;
            r = 0;
        }
    }
    if (r == -EINTR)
        return error_set(error, EINTR, "nftables changes all the time");
    return r == -ENOENT ? 0 : r;
}

static int counter_compare(const void *left, const void *right)
{
    const struct counter *a = left;
    const struct counter *b = right;

    return a->set != b->set ? a->set - b->set : memcmp(a->key, b->key, sizeof(a->key));
}

/* Of all sets that count, in order. */
static int load_all(struct load *load, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < SET_COUNT_; i++) {
        load->set = (enum set_id)i;
        if (set_state_get(load->set) && set_state_get(load->set)->counts)
            r = load_set(load, error);
    }
    if (r < 0)
        counters_deinit(&load->counters);
    else if (load->counters.count > 1)
        qsort(load->counters.items, load->counters.count, sizeof(*load->counters.items),
              counter_compare);
    return r;
}

int counters_load(struct nat *nat, struct counters *ret_counters, struct error *error)
{
    struct load load = {.socket = nat->socket};
    int r = load_all(&load, error);

    if (r == 0)
        *ret_counters = load.counters;
    return r;
}

void counters_deinit(struct counters *counters)
{
    free(counters->items);
    *counters = (struct counters){0};
}

const struct counter *counters_find(const struct counters *counters, const struct nat_element *key)
{
    struct counter wanted = {.set = key->set};

    if (counters->count == 0)
        return NULL;
    memcpy(wanted.key, key->key, sizeof(wanted.key));
    return bsearch(&wanted, counters->items, counters->count, sizeof(wanted), counter_compare);
}

/* --- of endpoints --- */

struct nat_drops_list {
    struct nat *nat;
    struct counters counters;
    bool rough;
};

static void drops_add(struct nat_drops *drops, enum set_id set, uint64_t packets)
{
    if (set == SET_DENIED4 || set == SET_DENIED6)
        drops->connections += packets;
    else
        drops->frames += packets;
}

/* Which elements count for the endpoint. */
static size_t drops_elements(const struct nat_endpoint *endpoint, struct nat_element elements[4])
{
    const struct ip *ips[] = {&endpoint->ip, &endpoint->ip6};
    size_t count = 2;

    memset(elements, 0, 4 * sizeof(*elements));
    elements[0].set = SET_DROPPED;
    elements[1].set = SET_DROPPED_PORT;
    for (size_t i = 0; i < 2; i++)
        memcpy(elements[i].key, endpoint->host_interface,
               strnlen(endpoint->host_interface, IFNAMSIZ));
    for (size_t i = 0; i < ARRAY_SIZE(ips); i++) {
        if (!ip_is_set(ips[i]))
            continue;
        elements[count].set = i == 0 ? SET_DENIED4 : SET_DENIED6;
        memcpy(elements[count].key, &endpoint->group, sizeof(endpoint->group));
        memcpy(elements[count].key + 4, ips[i]->bytes, ip_bits(ips[i]->family) / 8);
        count++;
    }
    return count;
}

int nat_drops_get(struct nat *nat, const struct nat_endpoint *endpoint, struct nat_drops *ret_drops,
                  struct error *error)
{
    struct nat_element elements[4];
    size_t count = drops_elements(endpoint, elements);
    struct nat_drops drops = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        struct load load = {
            .socket = nat->socket, .set = (enum set_id)elements[i].set, .key = elements[i].key};

        r = load_set(&load, error);
        if (load.counters.count > 0)
            drops_add(&drops, load.set, load.counters.items[0].packets);
        counters_deinit(&load.counters);
    }
    if (r == 0)
        *ret_drops = drops;
    return r;
}

int nat_drops_load(struct nat *nat, struct nat_drops_list **ret_list, struct error *error)
{
    struct nat_drops_list *list = calloc(1, sizeof(*list));
    struct load load = {.socket = nat->reader, .roughly = true};
    int r;

    if (!list)
        return error_set(error, ENOMEM, "counters");
    r = load_all(&load, error);
    if (r < 0) {
        free(list);
        return r;
    }
    *list = (struct nat_drops_list){.nat = nat, .counters = load.counters, .rough = load.rough};
    *ret_list = list;
    return 0;
}

int nat_drops_find(const struct nat_drops_list *list, const struct nat_endpoint *endpoint,
                   struct nat_drops *ret_drops, struct error *error)
{
    struct nat_element elements[4];
    size_t count = drops_elements(endpoint, elements);
    struct nat_drops drops = {0};

    for (size_t i = 0; i < count; i++) {
        const struct counter *counter = counters_find(&list->counters, &elements[i]);

        if (counter)
            drops_add(&drops, (enum set_id)counter->set, counter->packets);
        else if (list->rough)
            return nat_drops_get(list->nat, endpoint, ret_drops, error);
    }
    *ret_drops = drops;
    return 0;
}

void nat_drops_list_free(struct nat_drops_list *list)
{
    if (!list)
        return;
    counters_deinit(&list->counters);
    free(list);
}
