/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_view.h"

#define RANGES_MAX (ZONE_NETWORKS_MAX + 1) /* one for each network, and for every one */

static bool view_has(const struct dns_view *view, uint16_t network)
{
    if (view->all || network == ZONE_EVERY_NETWORK)
        return true;
    for (unsigned i = 0; i < view->count; i++)
        if (view->networks[i] == network)
            return true;
    return false;
}

/* A run of records to answer with. */
struct range {
    const struct zone_record *first;
    uint32_t count;
};

struct ranges {
    struct range items[RANGES_MAX];
    unsigned count;
    uint32_t total;
};

/* Where the records go. */
struct answering {
    struct dns_reply *reply;
    uint16_t owner;
    uint32_t ttl_s;
};

/* First record that is not before (network, type). */
static uint32_t node_lower(const struct zone_node *node, uint16_t network, uint32_t type)
{
    uint64_t wanted = (uint64_t)network << 32 | type;
    uint32_t low = 0;

    for (uint32_t high = node->count; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        const struct zone_record *record = &node->records[middle];

        if (((uint64_t)record->network << 32 | record->type) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void ranges_add(struct ranges *ranges, const struct zone_record *first, uint32_t count)
{
    if (count == 0 || ranges->count == RANGES_MAX)
        return;
    ranges->items[ranges->count++] = (struct range){.first = first, .count = count};
    ranges->total += count;
}

/* Records of one network; returns whether the name exists there. type NONE: none are wanted. */
static bool ranges_network(struct ranges *ranges, const struct zone_node *node, uint16_t network,
                           uint16_t type)
{
    uint32_t first = node_lower(node, network, type);

    if (type != DNS_TYPE_NONE)
        ranges_add(ranges, node->records + first, node_lower(node, network, type + 1u) - first);
    first = node_lower(node, network, DNS_TYPE_NONE);
    return first < node->count && node->records[first].network == network;
}

/* The host's: all networks. Records of one type are a run only within a network. */
static void ranges_all(struct ranges *ranges, const struct zone_node *node, uint16_t type)
{
    for (uint32_t i = 0; i < node->count && type != DNS_TYPE_NONE;) {
        uint32_t first = i;

        while (i < node->count && node->records[i].type == type)
            i++;
        ranges_add(ranges, node->records + first, i - first);
        i += i == first;
    }
}

static bool ranges_collect(struct ranges *ranges, const struct zone_node *node,
                           const struct dns_view *view, uint16_t type)
{
    bool exists;

    if (view->all) {
        ranges_all(ranges, node, type);
        return true;
    }
    exists = ranges_network(ranges, node, ZONE_EVERY_NETWORK, type);
    for (unsigned i = 0; i < view->count; i++)
        exists |= ranges_network(ranges, node, view->networks[i], type);
    return exists;
}

/* ANY is answered with one type of the name's (RFC 8482 section 4.1). */
static uint16_t type_wanted(uint16_t type, const struct zone_node *node,
                            const struct dns_view *view)
{
    if (type != DNS_TYPE_ANY)
        return type;
    for (uint32_t i = 0; i < node->count; i++)
        if (node->records[i].type != DNS_TYPE_NONE && view_has(view, node->records[i].network))
            return node->records[i].type;
    return DNS_TYPE_NONE;
}

/* RFC 2181 section 5: no record twice. Only static ones can repeat another. */
static bool is_repeated(const struct zone_node *node, const struct dns_view *view,
                        const struct zone_record *record)
{
    for (uint32_t i = 0; record->is_static && i < node->count; i++) {
        const struct zone_record *other = &node->records[i];

        if (other != record && (!other->is_static || other < record) &&
            other->type == record->type && other->length == record->length &&
            view_has(view, other->network) &&
            memcmp(zone_record_data(other), zone_record_data(record), record->length) == 0)
            return true;
    }
    return false;
}

static bool answer_record(const struct answering *answering, const struct zone_record *record)
{
    return dns_reply_answer(answering->reply, answering->owner, record->type, answering->ttl_s,
                            zone_record_data(record), record->length);
}

/* All records of the ranges, beginning with another one each time. */
static void answer_ranges(const struct answering *answering, struct zone_node *node,
                          const struct dns_view *view, const struct ranges *ranges)
{
    uint32_t skip = ranges->total ? node->rotation++ % ranges->total : 0;
    unsigned at = 0;

    while (at < ranges->count && skip >= ranges->items[at].count)
        skip -= ranges->items[at++].count;
    for (uint32_t left = ranges->total; left > 0; left--) {
        const struct zone_record *record = ranges->items[at].first + skip;

        if (!is_repeated(node, view, record) && !answer_record(answering, record))
            return;
        if (++skip == ranges->items[at].count) {
            skip = 0;
            at = at + 1 < ranges->count ? at + 1 : 0;
        }
    }
}

/* --- interface --- */

struct dns_view dns_view_of(const struct dns_asker *asker)
{
    if (!asker->guest)
        return (struct dns_view){.all = true};
    return (struct dns_view){.networks = asker->guest->networks, .count = asker->guest->n_networks};
}

bool dns_view_has_node(const struct dns_view *view, const struct zone_node *node)
{
    for (uint32_t i = 0; node && i < node->count; i++)
        if (view_has(view, node->records[i].network))
            return true;
    return false;
}

bool dns_view_has_data(const struct dns_view *view, const struct zone_node *node)
{
    for (uint32_t i = 0; node && i < node->count; i++)
        if (node->records[i].type != DNS_TYPE_NONE && view_has(view, node->records[i].network))
            return true;
    return false;
}

const struct zone_record *dns_view_alias(const struct dns_view *view, const struct zone_node *node)
{
    const struct zone_record *alias = NULL;

    for (uint32_t i = 0; node && i < node->count; i++) {
        const struct zone_record *record = &node->records[i];

        if (record->type == DNS_TYPE_NONE || !view_has(view, record->network))
            continue;
        if (record->type != DNS_TYPE_CNAME)
            return NULL;
        if (!alias)
            alias = record;
    }
    return alias;
}

bool dns_view_answer(const struct dns_view *view, struct zone_node *node, uint16_t type,
                     uint16_t owner, uint32_t ttl_s, struct dns_reply *reply)
{
    const struct answering answering = {.reply = reply, .owner = owner, .ttl_s = ttl_s};
    struct ranges ranges;

    if (!node)
        return false;
    if (node->count == 1) { /* nearly every name */
        const struct zone_record *record = node->records;

        if (!view_has(view, record->network))
            return false;
        if (record->type != DNS_TYPE_NONE && (type == record->type || type == DNS_TYPE_ANY))
            answer_record(&answering, record);
        return true;
    }
    ranges.count = 0;
    ranges.total = 0;
    if (!ranges_collect(&ranges, node, view, type_wanted(type, node, view)))
        return false;
    answer_ranges(&answering, node, view, &ranges);
    return true;
}
