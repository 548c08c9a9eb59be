/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names and their records: one hash table of nodes by key (dns_zone.h says what a key is). A node
 * holds its records sorted by network, so that what an asker sees is a few runs found by binary
 * search, however many guests share a name. A key of several labels also puts records without type
 * under its ancestors: they exist then, with nothing to say (RFC 8020). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/dns_table.h"

struct zone_record {
    const void *owner; /* the endpoint or static record that it came with */
    uint16_t network;  /* index, or ZONE_EVERY_NETWORK */
    uint16_t type;     /* DNS_TYPE_NONE: the name exists as an ancestor of others only */
    uint16_t length;   /* of the data */
    bool is_static;    /* may say what another record of the name says too */
    union {
        uint8_t data[16];
        const uint8_t *bytes; /* the owner's, where the data is longer */
    };
};

struct zone_node {
    uint32_t hash;
    uint32_t count;
    uint16_t rotation; /* which address comes first next time */
    uint8_t key_length;
    struct zone_record *records; /* sorted by network, then type */
    struct zone_record only;     /* where `records` points while there is one */
    uint8_t key[];
};

static inline const uint8_t *zone_record_data(const struct zone_record *record)
{
    return record->length <= sizeof(record->data) ? record->data : record->bytes;
}

/* data of up to 16 bytes is copied; longer data must stay where it is while the record is there. */
struct zone_record zone_record_make(const void *owner, uint16_t network, uint16_t type,
                                    const void *data, uint16_t length);

uint32_t zone_key_hash(const uint8_t *key, size_t key_length);
/* hash: zone_key_hash of the key. NULL: there is no such name. */
struct zone_node *dns_node_find(const struct dns_table *nodes, const uint8_t *key,
                                size_t key_length, uint32_t hash);
/* Puts records, all of one owner and network, under the key, and ones without type under its
 * ancestors. 0, or -ENOMEM: then some are there, and dns_node_remove takes them away. */
int dns_node_insert(struct dns_table *nodes, const uint8_t *key, size_t key_length,
                    const struct zone_record *records, size_t n_records);
/* Takes away what this owner has under the key and its ancestors. */
void dns_node_remove(struct dns_table *nodes, const uint8_t *key, size_t key_length,
                     const void *owner);
/* Frees all nodes and the table's slots. */
void dns_nodes_free(struct dns_table *nodes);
