/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hash table of the DNS worker: pointers to items that carry their own keys, with open
 * addressing, linear probing and deletion by shifting back (no tombstones). It never shrinks.
 * Several items may have the same hash or the same key. Hashes are seeded (dns_hash), so that
 * nobody outside can choose collisions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct dns_slot {
    void *item; /* NULL: free */
    uint32_t hash;
};

struct dns_table { /* zero-initialised is empty */
    struct dns_slot *slots;
    uint32_t mask; /* size - 1, when slots is set */
    uint32_t count;
};

typedef bool (*dns_equal_fn)(const void *item, const void *key);

/* The first item at or after *position that has this hash and equals the key; NULL when there is
 * none. Begin with *position = hash; go on with the same position for the next one. Inline, so that
 * `equal` is too. */
static inline void *dns_table_next(const struct dns_table *table, uint32_t hash, dns_equal_fn equal,
                                   const void *key, uint32_t *position)
{
    if (!table->slots)
        return NULL;
    for (uint32_t at = *position & table->mask;; at = (at + 1) & table->mask) {
        const struct dns_slot *slot = &table->slots[at];

        if (!slot->item)
            return NULL;
        if (slot->hash == hash && equal(slot->item, key)) {
            *position = at + 1;
            return slot->item;
        }
    }
}

static inline void *dns_table_find(const struct dns_table *table, uint32_t hash, dns_equal_fn equal,
                                   const void *key)
{
    uint32_t position = hash;

    return dns_table_next(table, hash, equal, key, &position);
}

/* For batches: the slot comes into the cache while others are looked at; then, from the slot, the
 * item. */
static inline void dns_table_prefetch_slot(const struct dns_table *table, uint32_t hash)
{
    if (table->slots)
        __builtin_prefetch(&table->slots[hash & table->mask]);
}

static inline void dns_table_prefetch_item(const struct dns_table *table, uint32_t hash)
{
    uint32_t at = hash & table->mask;

    if (!table->slots)
        return;
    while (table->slots[at].item && table->slots[at].hash != hash)
        at = (at + 1) & table->mask;
    __builtin_prefetch(table->slots[at].item);
    __builtin_prefetch((const char *)table->slots[at].item + 64);
}

static inline void dns_table_put(struct dns_table *table, uint32_t hash, void *item)
{
    uint32_t at = hash & table->mask;

    while (table->slots[at].item)
        at = (at + 1) & table->mask;
    table->slots[at] = (struct dns_slot){.item = item, .hash = hash};
}

/* Makes room for `count` more items, so that as many dns_table_add cannot fail. 0 or -1 (no
 * memory). */
static inline int dns_table_reserve(struct dns_table *table, uint32_t count)
{
    uint32_t size = table->slots ? table->mask + 1 : 0;
    uint32_t wanted = size ? size : 16;

    while ((uint64_t)(table->count + count) * 4 > (uint64_t)wanted * 3)
        wanted *= 2;
    if (wanted == size)
        return 0;

    struct dns_table grown = {.slots = calloc(wanted, sizeof(*grown.slots)), .mask = wanted - 1};
    if (!grown.slots)
        return -1;
    grown.count = table->count;
    for (uint32_t i = 0; i < size; i++)
        if (table->slots[i].item)
            dns_table_put(&grown, table->slots[i].hash, table->slots[i].item);
    free(table->slots);
    *table = grown;
    return 0;
}

static inline int dns_table_add(struct dns_table *table, uint32_t hash, void *item)
{
    if (dns_table_reserve(table, 1) < 0)
        return -1;
    dns_table_put(table, hash, item);
    table->count++;
    return 0;
}

/* Removes this item (by identity). Nothing when it is not there. */
static inline void dns_table_remove(struct dns_table *table, uint32_t hash, const void *item)
{
    uint32_t hole;
    uint32_t at;

    if (!table->slots)
        return;
    for (hole = hash & table->mask; table->slots[hole].item != item;
         hole = (hole + 1) & table->mask)
        if (!table->slots[hole].item)
            return;
    /* Whatever was pushed past the hole moves back into it, until a free slot. */
    for (at = (hole + 1) & table->mask; table->slots[at].item; at = (at + 1) & table->mask) {
        uint32_t home = table->slots[at].hash & table->mask;

        if (((at - home) & table->mask) >= ((at - hole) & table->mask)) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole].item = NULL;
    table->count--;
}

/* Frees the slots, not the items. */
static inline void dns_table_deinit(struct dns_table *table)
{
    free(table->slots);
    *table = (struct dns_table){0};
}
