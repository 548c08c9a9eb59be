/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/dns_codec.h"

struct key {
    const uint8_t *bytes;
    size_t length;
};

static bool node_has_key(const void *item, const void *key)
{
    const struct zone_node *node = item;
    const struct key *wanted = key;

    return node->key_length == wanted->length &&
           memcmp(node->key, wanted->bytes, wanted->length) == 0;
}

uint32_t zone_key_hash(const uint8_t *key, size_t key_length)
{
    return dns_hash(key, key_length, 0);
}

struct zone_node *dns_node_find(const struct dns_table *nodes, const uint8_t *key,
                                size_t key_length, uint32_t hash)
{
    struct key wanted = {.bytes = key, .length = key_length};

    return dns_table_find(nodes, hash, node_has_key, &wanted);
}

struct zone_record zone_record_make(const void *owner, uint16_t network, uint16_t type,
                                    const void *data, uint16_t length)
{
    struct zone_record record = {
        .owner = owner, .network = network, .type = type, .length = length};

    if (length <= sizeof(record.data))
        memcpy(record.data, data, length);
    else
        record.bytes = data;
    return record;
}

static struct zone_node *node_get(struct dns_table *nodes, const uint8_t *key, size_t key_length)
{
    uint32_t hash = zone_key_hash(key, key_length);
    struct zone_node *node = dns_node_find(nodes, key, key_length, hash);

    if (node)
        return node;
    node = calloc(1, sizeof(*node) + key_length);
    if (!node)
        return NULL;
    node->hash = hash;
    node->key_length = (uint8_t)key_length;
    node->records = &node->only;
    memcpy(node->key, key, key_length);
    if (dns_table_add(nodes, node->hash, node) < 0) {
        free(node);
        return NULL;
    }
    return node;
}

static void node_free_if_empty(struct dns_table *nodes, struct zone_node *node)
{
    if (node->count > 0)
        return;
    dns_table_remove(nodes, node->hash, node);
    if (node->records != &node->only)
        free(node->records);
    free(node);
}

/* Arrays have room for the next power of two at or above their count, and at least for four. */
static int node_make_room(struct zone_node *node)
{
    bool inside = node->records == &node->only;
    struct zone_record *grown;

    if (inside ? node->count == 0 : node->count < 4 || node->count & (node->count - 1))
        return 0;
    grown =
        reallocarray(inside ? NULL : node->records, inside ? 4 : node->count * 2ul, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    if (inside)
        grown[0] = node->only;
    node->records = grown;
    return 0;
}

static bool record_before(const struct zone_record *a, const struct zone_record *b)
{
    return a->network != b->network ? a->network < b->network : a->type < b->type;
}

static int record_insert(struct dns_table *nodes, const uint8_t *key, size_t key_length,
                         const struct zone_record *record)
{
    struct zone_node *node = node_get(nodes, key, key_length);
    uint32_t low = 0;
    uint32_t high;

    if (!node)
        return -ENOMEM;
    if (node_make_room(node) < 0) {
        node_free_if_empty(nodes, node);
        return -ENOMEM;
    }
    for (high = node->count; low < high;) {
        uint32_t middle = low + (high - low) / 2;

        if (record_before(record, &node->records[middle]))
            high = middle;
        else
            low = middle + 1;
    }
    memmove(node->records + low + 1, node->records + low,
            (node->count - low) * sizeof(*node->records));
    node->records[low] = *record;
    node->count++;
    return 0;
}

static void node_remove_owner(struct dns_table *nodes, const uint8_t *key, size_t key_length,
                              const void *owner)
{
    struct zone_node *node = dns_node_find(nodes, key, key_length, zone_key_hash(key, key_length));
    uint32_t kept = 0;

    if (!node)
        return;
    for (uint32_t i = 0; i < node->count; i++)
        if (node->records[i].owner != owner)
            node->records[kept++] = node->records[i];
    node->count = kept;
    if (kept == 1 && node->records != &node->only) {
        struct zone_record *records = node->records;

        node->only = records[0];
        node->records = &node->only;
        free(records);
    }
    node_free_if_empty(nodes, node);
}

int dns_node_insert(struct dns_table *nodes, const uint8_t *key, size_t key_length,
                    const struct zone_record *records, size_t n_records)
{
    for (size_t i = 0; i < n_records; i++)
        if (record_insert(nodes, key, key_length, &records[i]) < 0)
            return -ENOMEM;
    for (size_t at = key[0] + 1u; n_records > 0 && at < key_length; at += key[at] + 1u) {
        struct zone_record record = {.owner = records[0].owner, .network = records[0].network};

        if (record_insert(nodes, key + at, key_length - at, &record) < 0)
            return -ENOMEM;
    }
    return 0;
}

void dns_node_remove(struct dns_table *nodes, const uint8_t *key, size_t key_length,
                     const void *owner)
{
    for (size_t at = 0; at < key_length; at += key[at] + 1u)
        node_remove_owner(nodes, key + at, key_length - at, owner);
}

void dns_nodes_free(struct dns_table *nodes)
{
    for (uint32_t i = 0; nodes->slots && i <= nodes->mask; i++) {
        struct zone_node *node = nodes->slots[i].item;

        if (node && node->records != &node->only)
            free(node->records);
        free(node);
    }
    dns_table_deinit(nodes);
}
