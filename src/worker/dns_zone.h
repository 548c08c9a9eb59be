/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the name worker knows: networks, the endpoints of guests on them, static records; and who
 * may see what. One thread, no I/O. A change touches only the names that it is about.
 *
 * Names are kept by their *key*: the labels in wire form, lower case, without the domain and
 * without the root's byte. "web", "web.moat.internal" and "WEB" have one key. A name of several
 * labels outside the domain is its own key, so a static record or an alias may also be
 * "db.example.com". A wildcard's key begins with the label "*". Each record belongs to one network,
 * or to every one, and is seen by those who are on it. */
#pragma once

#include "base/address.h"
#include "base/list.h"
#include "worker/dns_codec.h"
#include "worker/dns_node.h"
#include "worker/dns_table.h"
#include "worker/dns_upstream.h"

#define ZONE_NETWORKS_MAX 1024
#define ZONE_GUEST_NETWORKS_MAX 16
#define ZONE_NAMES_MAX 17         /* of one endpoint: its guest's and its aliases */
#define ZONE_EVERY_NETWORK 0xffff /* as a network's index */
#define ZONE_RDATA_MAX 2048       /* bytes of a static record's data */

struct zone;
struct dns_waiter;

struct zone_network {
    int64_t id;
    uint16_t index; /* < ZONE_NETWORKS_MAX; used again after removal */
    bool internal;  /* nothing is forwarded for it */
    struct dns_name label;
    struct ip gateway;
    struct ip gateway6;
    struct cidr subnet;
    struct cidr subnet6;
    struct dns_upstreams *upstreams; /* owned reference; NULL: the host's */
    struct dns_listeners *listeners; /* the transports'; not touched here */
};

/* What is counted and bounded for each asker; the modules that use it keep it. */
struct dns_quota {
    struct dns_waiter *oldest; /* of its questions in flight */
    struct dns_waiter *newest;
    uint32_t n_waiters;
    struct dns_connection *first; /* its TCP connections, oldest first */
    struct dns_connection *last;
    uint32_t n_connections;
    uint64_t credit; /* thousandths of a query that it may send at once (dns_service.c) */
    uint64_t credited_ms;
};

struct zone_guest {
    int64_t id;
    uint16_t n_networks;
    uint16_t networks[ZONE_GUEST_NETWORKS_MAX]; /* indices, ascending */
    uint16_t n_endpoints;
    uint8_t label[64];               /* its name: length byte and text */
    struct dns_upstreams *upstreams; /* owned reference; NULL: the network's */
    struct dns_quota quota;
};

/* Who asks: a guest, or the host (guest NULL), through this network's gateway. */
struct dns_asker {
    struct zone_guest *guest;
    struct zone_network *network;
};

/* As it comes in a message; the zone copies it. */
struct zone_endpoint_config {
    int64_t id;
    int64_t guest_id;
    int64_t network_id;
    struct ip ip;
    struct ip ip6;
    const char *names[ZONE_NAMES_MAX]; /* the guest's first, then its aliases */
    size_t n_names;
    struct dns_upstreams *upstreams; /* borrowed; NULL: the network's */
};

/* As it comes in a message; the zone copies it. */
struct zone_record_config {
    int64_t id;
    int64_t network_id; /* 0: on every network */
    const char *name;   /* may begin with "*." */
    uint16_t type;      /* A, AAAA, CNAME, TXT or SRV */
    uint16_t length;
    const uint8_t *rdata; /* names in it are not compressed */
};

/* Called before a guest that nobody has an endpoint for any more is freed. */
typedef void (*zone_guest_gone_fn)(void *userdata, struct zone_guest *guest);

int zone_new(const char *domain, uint32_t ttl_s, zone_guest_gone_fn guest_gone, void *userdata,
             struct zone **ret_zone);
void zone_free(struct zone *zone);

/* All return 0, -ENOMEM, -EINVAL (a name that is none), -ENOENT (no such network) or -ENOSPC (too
 * many). What has the same id is replaced; on failure it is gone. */
int zone_network_set(struct zone *zone, const struct zone_network *config,
                     struct zone_network **ret_network);
/* Removes it with its endpoints and static records. */
void zone_network_remove(struct zone *zone, int64_t id);
struct zone_network *zone_network_find(const struct zone *zone, int64_t id);
int zone_endpoint_set(struct zone *zone, const struct zone_endpoint_config *config);
void zone_endpoint_remove(struct zone *zone, int64_t id);
int zone_record_set(struct zone *zone, const struct zone_record_config *config);
void zone_record_remove(struct zone *zone, int64_t id);

uint32_t zone_source_hash(const struct ip *source);
/* Whose query is it, by source address (and its hash), on a socket of this network's gateway?
 * False: nobody's who gets answers. */
bool zone_asker_find(const struct zone *zone, struct zone_network *network, const struct ip *source,
                     uint32_t source_hash, struct dns_asker *ret_asker);

/* --- for dns_local.c, which answers from it --- */

/* Is there any endpoint of a guest? */
bool zone_has_guests(const struct zone *zone);
/* Is there any static record that is a wildcard, or a CNAME? */
bool zone_has_wildcards(const struct zone *zone);
bool zone_has_aliases(const struct zone *zone);

const struct dns_name *zone_domain(const struct zone *zone);
uint32_t zone_ttl(const struct zone *zone);
uint32_t zone_negative_ttl(const struct zone *zone);
/* rdata of the SOA, with the serial of the last change. */
const uint8_t *zone_soa(const struct zone *zone, uint16_t *ret_length);
/* hash: zone_key_hash of the key. */
struct zone_node *zone_node_find(const struct zone *zone, const uint8_t *key, size_t key_length,
                                 uint32_t hash);
/* Bring what zone_node_find and zone_asker_find will read into the CPU's cache, in two steps:
 * slots, then items. */
void zone_prefetch_slots(const struct zone *zone, uint32_t key_hash, uint32_t source_hash);
void zone_prefetch_items(const struct zone *zone, uint32_t key_hash, uint32_t source_hash);
/* Network by its label (as in a name: length byte and text). */
const struct zone_network *zone_network_find_label(const struct zone *zone, const uint8_t *label);
struct zone_network *zone_network_at(const struct zone *zone, uint16_t index);
/* Our network whose subnet this address is in; NULL if none. */
const struct zone_network *zone_network_find_subnet(const struct zone *zone, const struct ip *ip);
/* Calls fn with the key of each name that this address has and the asker sees. below: it is meant
 * below the domain. */
typedef void (*zone_name_fn)(void *userdata, const uint8_t *key, size_t key_length, bool below);
void zone_address_names(const struct zone *zone, const struct dns_asker *asker, const struct ip *ip,
                        zone_name_fn fn, void *userdata);
bool zone_asker_sees(const struct dns_asker *asker, uint16_t network_index);
/* How many names, for tests and status. */
size_t zone_node_count(const struct zone *zone);
