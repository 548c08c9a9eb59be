/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Endpoints and static records remember the keys that they put records under (dns_node.h), and take
 * exactly those back. */
#include "worker/dns_zone.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NEGATIVE_TTL_MAX_S 5 /* names come with guests: "does not exist" must not last */
#define SOA_REFRESH_S 3600
#define SOA_RETRY_S 600
#define SOA_EXPIRE_S 86400
#define SALT_IP 1
#define SALT_ID 2
#define SALT_LABEL 3

struct zone_endpoint {
    int64_t id;
    struct zone_guest *guest;
    struct zone_network *network;
    struct ip ip;
    struct ip ip6;
    uint16_t keys_length;
    uint8_t keys[]; /* each: its length, its bytes; the guest's first */
};

struct zone_static {
    int64_t id;
    uint16_t network;
    uint16_t type;
    uint16_t length; /* of the rdata */
    struct ip ip;    /* what PTR is made from; absent for other types and for wildcards */
    bool below;      /* given as a name of the domain, or a single label */
    bool wildcard;
    uint8_t key_length;
    uint8_t key[]; /* then the rdata */
};

struct zone {
    struct dns_name domain;
    uint32_t ttl_s;
    zone_guest_gone_fn guest_gone;
    void *userdata;
    struct zone_network *networks[ZONE_NETWORKS_MAX];
    uint16_t networks_end; /* no index at or above is used */
    struct dns_table networks_label;
    struct dns_table nodes;
    struct dns_table guests;       /* by id */
    struct dns_table endpoints;    /* by id */
    struct dns_table endpoints_ip; /* by address: up to twice each */
    struct dns_table statics;      /* by id */
    struct dns_table statics_ip;   /* by address */
    uint32_t n_wildcards;
    uint32_t n_aliases;
    uint32_t serial;
    uint16_t soa_length;
    uint8_t soa[2 * (DNS_NAME_MAX + 16) + 20];
};

/* --- hashes and comparisons --- */

static uint32_t id_hash(int64_t id)
{
    return dns_hash(&id, sizeof(id), SALT_ID);
}

static uint32_t ip_hash(const struct ip *ip)
{
    return dns_hash(ip->bytes, ip->family == AF_INET6 ? 16 : 4, SALT_IP);
}

static uint32_t label_hash(const uint8_t *label)
{
    return dns_hash(label, label[0] + 1u, SALT_LABEL);
}

static bool network_has_label(const void *item, const void *key)
{
    const uint8_t *label = key;

    return memcmp(((const struct zone_network *)item)->label.wire, label, label[0] + 1u) == 0;
}

static bool guest_has_id(const void *item, const void *key)
{
    return ((const struct zone_guest *)item)->id == *(const int64_t *)key;
}

static bool endpoint_has_id(const void *item, const void *key)
{
    return ((const struct zone_endpoint *)item)->id == *(const int64_t *)key;
}

static bool static_has_id(const void *item, const void *key)
{
    return ((const struct zone_static *)item)->id == *(const int64_t *)key;
}

static bool endpoint_has_ip(const void *item, const void *key)
{
    const struct zone_endpoint *endpoint = item;

    return ip_equal(&endpoint->ip, key) || ip_equal(&endpoint->ip6, key);
}

static bool static_has_ip(const void *item, const void *key)
{
    return ip_equal(&((const struct zone_static *)item)->ip, key);
}

/* --- life --- */

static void soa_init(struct zone *zone)
{
    static const struct {
        uint8_t length;
        char text[11];
    } labels[] = {{4, "host"}, {10, "hostmaster"}};
    uint8_t *at = zone->soa;

    for (size_t i = 0; i < 2; i++) {
        *at++ = labels[i].length;
        memcpy(at, labels[i].text, labels[i].length);
        at += labels[i].length;
        memcpy(at, zone->domain.wire, zone->domain.length);
        at += zone->domain.length;
    }
    dns_write_u32(at, zone->serial);
    dns_write_u32(at + 4, SOA_REFRESH_S);
    dns_write_u32(at + 8, SOA_RETRY_S);
    dns_write_u32(at + 12, SOA_EXPIRE_S);
    dns_write_u32(at + 16, zone_negative_ttl(zone));
    zone->soa_length = (uint16_t)(at + 20 - zone->soa);
}

static void zone_changed(struct zone *zone)
{
    zone->serial++;
    dns_write_u32(zone->soa + zone->soa_length - 20, zone->serial);
}

int zone_new(const char *domain, uint32_t ttl_s, zone_guest_gone_fn guest_gone, void *userdata,
             struct zone **ret_zone)
{
    struct zone *zone = calloc(1, sizeof(*zone));

    if (!zone)
        return -ENOMEM;
    if (dns_name_parse(domain, &zone->domain) < 0 || zone->domain.labels == 0) {
        free(zone);
        return -EINVAL;
    }
    zone->ttl_s = ttl_s;
    zone->guest_gone = guest_gone;
    zone->userdata = userdata;
    zone->serial = 1;
    soa_init(zone);
    *ret_zone = zone;
    return 0;
}

static void table_free_items(struct dns_table *table)
{
    for (uint32_t i = 0; table->slots && i <= table->mask; i++)
        free(table->slots[i].item);
    dns_table_deinit(table);
}

void zone_free(struct zone *zone)
{
    if (!zone)
        return;
    for (uint16_t i = 0; i < zone->networks_end; i++)
        if (zone->networks[i])
            zone_network_remove(zone, zone->networks[i]->id);
    /* What is left belongs to no network: static records for every network. */
    dns_nodes_free(&zone->nodes);
    table_free_items(&zone->statics);
    dns_table_deinit(&zone->statics_ip);
    dns_table_deinit(&zone->endpoints_ip);
    dns_table_deinit(&zone->endpoints);
    dns_table_deinit(&zone->guests);
    dns_table_deinit(&zone->networks_label);
    free(zone);
}

/* --- nodes --- */

struct zone_node *zone_node_find(const struct zone *zone, const uint8_t *key, size_t key_length,
                                 uint32_t hash)
{
    return dns_node_find(&zone->nodes, key, key_length, hash);
}

void zone_prefetch_slots(const struct zone *zone, uint32_t key_hash, uint32_t source_hash)
{
    dns_table_prefetch_slot(&zone->nodes, key_hash);
    dns_table_prefetch_slot(&zone->endpoints_ip, source_hash);
}

void zone_prefetch_items(const struct zone *zone, uint32_t key_hash, uint32_t source_hash)
{
    dns_table_prefetch_item(&zone->nodes, key_hash);
    dns_table_prefetch_item(&zone->endpoints_ip, source_hash);
}

size_t zone_node_count(const struct zone *zone)
{
    return zone->nodes.count;
}

/* The key of a name: what is left without the domain. Of the domain itself nothing is: length 0. */
static int key_parse(const struct zone *zone, const char *text, struct dns_name *ret_name,
                     size_t *ret_length)
{
    if (dns_name_parse(text, ret_name) < 0 || ret_name->labels == 0)
        return -EINVAL;
    *ret_length = ret_name->length - 1u;
    if (dns_name_is_below(ret_name, &zone->domain))
        *ret_length = ret_name->offsets[ret_name->labels - zone->domain.labels];
    return 0;
}

/* --- networks --- */

struct zone_network *zone_network_find(const struct zone *zone, int64_t id)
{
    for (uint16_t i = 0; i < zone->networks_end; i++)
        if (zone->networks[i] && zone->networks[i]->id == id)
            return zone->networks[i];
    return NULL;
}

static int network_add(struct zone *zone, int64_t id, struct zone_network **ret_network)
{
    struct zone_network *network;
    uint16_t index = 0;

    while (index < ZONE_NETWORKS_MAX && zone->networks[index])
        index++;
    if (index == ZONE_NETWORKS_MAX)
        return -ENOSPC;
    network = calloc(1, sizeof(*network));
    if (!network)
        return -ENOMEM;
    network->id = id;
    network->index = index;
    zone->networks[index] = network;
    if (index >= zone->networks_end)
        zone->networks_end = (uint16_t)(index + 1);
    *ret_network = network;
    return 0;
}

int zone_network_set(struct zone *zone, const struct zone_network *config,
                     struct zone_network **ret_network)
{
    struct zone_network *network = zone_network_find(zone, config->id);
    struct dns_upstreams *former = network ? network->upstreams : NULL;
    int r = network ? 0 : network_add(zone, config->id, &network);

    if (r < 0)
        return r;
    if (dns_table_reserve(&zone->networks_label, 1) < 0) {
        zone_network_remove(zone, config->id);
        return -ENOMEM;
    }
    dns_table_remove(&zone->networks_label, label_hash(network->label.wire), network);
    dns_table_add(&zone->networks_label, label_hash(config->label.wire), network);
    network->internal = config->internal;
    network->label = config->label;
    network->gateway = config->gateway;
    network->gateway6 = config->gateway6;
    network->subnet = config->subnet;
    network->subnet6 = config->subnet6;
    network->upstreams = config->upstreams ? dns_upstreams_reference(config->upstreams) : NULL;
    dns_upstreams_put(former);
    zone_changed(zone);
    *ret_network = network;
    return 0;
}

/* Removing moves other items into freed slots, so the table is gone through until nothing is found.
 */
static void network_remove_items(struct zone *zone, const struct zone_network *network)
{
    for (uint32_t i = 0; zone->endpoints.slots && i <= zone->endpoints.mask;) {
        const struct zone_endpoint *endpoint = zone->endpoints.slots[i].item;

        if (endpoint && endpoint->network == network)
            zone_endpoint_remove(zone, endpoint->id);
        else
            i++;
    }
    for (uint32_t i = 0; zone->statics.slots && i <= zone->statics.mask;) {
        const struct zone_static *record = zone->statics.slots[i].item;

        if (record && record->network == network->index)
            zone_record_remove(zone, record->id);
        else
            i++;
    }
}

void zone_network_remove(struct zone *zone, int64_t id)
{
    struct zone_network *network = zone_network_find(zone, id);

    if (!network)
        return;
    network_remove_items(zone, network);
    dns_table_remove(&zone->networks_label, label_hash(network->label.wire), network);
    zone->networks[network->index] = NULL;
    while (zone->networks_end > 0 && !zone->networks[zone->networks_end - 1])
        zone->networks_end--;
    dns_upstreams_put(network->upstreams);
    free(network);
    zone_changed(zone);
}

const struct zone_network *zone_network_find_label(const struct zone *zone, const uint8_t *label)
{
    return dns_table_find(&zone->networks_label, label_hash(label), network_has_label, label);
}

struct zone_network *zone_network_at(const struct zone *zone, uint16_t index)
{
    return index < zone->networks_end ? zone->networks[index] : NULL;
}

const struct zone_network *zone_network_find_subnet(const struct zone *zone, const struct ip *ip)
{
    for (uint16_t i = 0; i < zone->networks_end; i++) {
        const struct zone_network *network = zone->networks[i];

        if (network &&
            (cidr_contains_ip(&network->subnet, ip) || cidr_contains_ip(&network->subnet6, ip)))
            return network;
    }
    return NULL;
}

/* --- guests --- */

bool zone_has_guests(const struct zone *zone)
{
    return zone->guests.count > 0;
}

bool zone_has_wildcards(const struct zone *zone)
{
    return zone->n_wildcards > 0;
}

bool zone_has_aliases(const struct zone *zone)
{
    return zone->n_aliases > 0;
}

static struct zone_guest *guest_get(struct zone *zone, int64_t id)
{
    struct zone_guest *guest = dns_table_find(&zone->guests, id_hash(id), guest_has_id, &id);

    if (guest)
        return guest;
    guest = calloc(1, sizeof(*guest));
    if (!guest)
        return NULL;
    guest->id = id;
    if (dns_table_add(&zone->guests, id_hash(id), guest) < 0) {
        free(guest);
        return NULL;
    }
    return guest;
}

static void guest_free_if_unused(struct zone *zone, struct zone_guest *guest)
{
    if (guest->n_endpoints > 0)
        return;
    if (zone->guest_gone)
        zone->guest_gone(zone->userdata, guest);
    dns_table_remove(&zone->guests, id_hash(guest->id), guest);
    dns_upstreams_put(guest->upstreams);
    free(guest);
}

static int guest_network_add(struct zone_guest *guest, uint16_t index)
{
    uint16_t at = guest->n_networks;

    if (at == ZONE_GUEST_NETWORKS_MAX)
        return -ENOSPC;
    for (; at > 0 && guest->networks[at - 1] > index; at--)
        guest->networks[at] = guest->networks[at - 1];
    guest->networks[at] = index;
    guest->n_networks++;
    guest->n_endpoints++;
    return 0;
}

/* One entry goes: a guest may be on a network twice while an endpoint is replaced. */
static void guest_network_remove(struct zone_guest *guest, uint16_t index)
{
    uint16_t at = 0;

    while (at < guest->n_networks && guest->networks[at] != index)
        at++;
    if (at == guest->n_networks)
        return;
    guest->n_networks--;
    guest->n_endpoints--;
    memmove(guest->networks + at, guest->networks + at + 1,
            (size_t)(guest->n_networks - at) * sizeof(guest->networks[0]));
}

static void guest_upstreams_set(struct zone_guest *guest, struct dns_upstreams *upstreams)
{
    struct dns_upstreams *former = guest->upstreams;

    guest->upstreams = upstreams ? dns_upstreams_reference(upstreams) : NULL;
    dns_upstreams_put(former);
}

/* --- endpoints --- */

static int endpoint_keys(const struct zone *zone, const struct zone_endpoint_config *config,
                         struct zone_endpoint **ret_endpoint)
{
    struct zone_endpoint *endpoint;
    uint8_t keys[ZONE_NAMES_MAX * (DNS_NAME_MAX + 1)];
    size_t length = 0;

    if (config->n_names == 0 || config->n_names > ZONE_NAMES_MAX)
        return -EINVAL;
    for (size_t i = 0; i < config->n_names; i++) {
        struct dns_name name;
        size_t key_length;
        int r = key_parse(zone, config->names[i], &name, &key_length);

        if (r < 0)
            return r;
        if (key_length == 0)
            continue; /* an alias can't be the domain; the others can be had */
        keys[length] = (uint8_t)key_length;
        memcpy(keys + length + 1, name.wire, key_length);
        length += key_length + 1;
    }
    endpoint = calloc(1, sizeof(*endpoint) + length);
    if (!endpoint)
        return -ENOMEM;
    endpoint->keys_length = (uint16_t)length;
    memcpy(endpoint->keys, keys, length);
    *ret_endpoint = endpoint;
    return 0;
}

/* The same name twice (an alias that is the guest's name): once is enough. */
static bool endpoint_key_seen(const struct zone_endpoint *endpoint, size_t offset)
{
    for (size_t at = 0; at < offset; at += endpoint->keys[at] + 1u)
        if (memcmp(endpoint->keys + at, endpoint->keys + offset, endpoint->keys[offset] + 1u) == 0)
            return true;
    return false;
}

/* Its addresses, as records; returns how many. */
static size_t endpoint_records(const struct zone_endpoint *endpoint, struct zone_record records[2])
{
    uint16_t network = endpoint->network->index;
    size_t count = 0;

    if (ip_is_set(&endpoint->ip))
        records[count++] = zone_record_make(endpoint, network, DNS_TYPE_A, endpoint->ip.bytes, 4);
    if (ip_is_set(&endpoint->ip6))
        records[count++] =
            zone_record_make(endpoint, network, DNS_TYPE_AAAA, endpoint->ip6.bytes, 16);
    return count;
}

static int endpoint_insert_keys(struct zone *zone, struct zone_endpoint *endpoint)
{
    struct zone_record records[2];
    size_t n_records = endpoint_records(endpoint, records);

    for (size_t at = 0; at < endpoint->keys_length; at += endpoint->keys[at] + 1u) {
        if (endpoint_key_seen(endpoint, at))
            continue;
        if (dns_node_insert(&zone->nodes, endpoint->keys + at + 1, endpoint->keys[at], records,
                            n_records) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int endpoint_insert(struct zone *zone, struct zone_endpoint *endpoint)
{
    if (dns_table_reserve(&zone->endpoints, 1) < 0 || dns_table_reserve(&zone->endpoints_ip, 2) < 0)
        return -ENOMEM;
    dns_table_add(&zone->endpoints, id_hash(endpoint->id), endpoint);
    if (ip_is_set(&endpoint->ip))
        dns_table_add(&zone->endpoints_ip, ip_hash(&endpoint->ip), endpoint);
    if (ip_is_set(&endpoint->ip6))
        dns_table_add(&zone->endpoints_ip, ip_hash(&endpoint->ip6), endpoint);
    return endpoint_insert_keys(zone, endpoint);
}

/* Takes a free-standing endpoint into the zone; frees it where that fails. */
static int endpoint_adopt(struct zone *zone, struct zone_endpoint *endpoint, int64_t guest_id,
                          struct dns_upstreams *upstreams)
{
    struct zone_guest *guest = guest_get(zone, guest_id);
    int r = guest ? guest_network_add(guest, endpoint->network->index) : -ENOMEM;

    if (r < 0) {
        if (guest)
            guest_free_if_unused(zone, guest);
        free(endpoint);
        return r;
    }
    endpoint->guest = guest;
    if (endpoint->keys_length > 0 && endpoint->keys[1] < sizeof(guest->label))
        memcpy(guest->label, endpoint->keys + 1, endpoint->keys[1] + 1u);
    guest_upstreams_set(guest, upstreams);
    r = endpoint_insert(zone, endpoint);
    if (r < 0 &&
        dns_table_find(&zone->endpoints, id_hash(endpoint->id), endpoint_has_id, &endpoint->id)) {
        zone_endpoint_remove(zone, endpoint->id);
    } else if (r < 0) {
        guest_network_remove(guest, endpoint->network->index);
        guest_free_if_unused(zone, guest);
        free(endpoint);
    }
    return r;
}

/* The former endpoint goes after the new one is there: its guest, and what the guest has in flight,
 * stays. */
int zone_endpoint_set(struct zone *zone, const struct zone_endpoint_config *config)
{
    struct zone_guest *keep =
        dns_table_find(&zone->guests, id_hash(config->guest_id), guest_has_id, &config->guest_id);
    struct zone_endpoint *endpoint;
    int r;

    if (keep)
        keep->n_endpoints++;
    zone_endpoint_remove(zone, config->id);
    r = endpoint_keys(zone, config, &endpoint);
    if (r == 0) {
        endpoint->id = config->id;
        endpoint->ip = config->ip;
        endpoint->ip6 = config->ip6;
        endpoint->network = zone_network_find(zone, config->network_id);
        if (endpoint->network) {
            r = endpoint_adopt(zone, endpoint, config->guest_id, config->upstreams);
        } else {
            free(endpoint);
            r = -ENOENT;
        }
    }
    if (keep) {
        keep->n_endpoints--;
        guest_free_if_unused(zone, keep);
    }
    zone_changed(zone);
    return r;
}

void zone_endpoint_remove(struct zone *zone, int64_t id)
{
    struct zone_endpoint *endpoint =
        dns_table_find(&zone->endpoints, id_hash(id), endpoint_has_id, &id);

    if (!endpoint)
        return;
    for (size_t at = 0; at < endpoint->keys_length; at += endpoint->keys[at] + 1u)
        dns_node_remove(&zone->nodes, endpoint->keys + at + 1, endpoint->keys[at], endpoint);
    if (ip_is_set(&endpoint->ip))
        dns_table_remove(&zone->endpoints_ip, ip_hash(&endpoint->ip), endpoint);
    if (ip_is_set(&endpoint->ip6))
        dns_table_remove(&zone->endpoints_ip, ip_hash(&endpoint->ip6), endpoint);
    dns_table_remove(&zone->endpoints, id_hash(id), endpoint);
    guest_network_remove(endpoint->guest, endpoint->network->index);
    guest_free_if_unused(zone, endpoint->guest);
    free(endpoint);
    zone_changed(zone);
}

/* --- static records --- */

/* Is the rdata one of its type? Names in it must be whole and not compressed. */
static bool rdata_is_well_formed(uint16_t type, const uint8_t *rdata, size_t length)
{
    struct dns_name name;

    switch (type) {
    case DNS_TYPE_A:
        return length == 4;
    case DNS_TYPE_AAAA:
        return length == 16;
    case DNS_TYPE_CNAME:
        return length > 0 && dns_name_read(rdata, length, 0, &name) == length;
    case DNS_TYPE_SRV:
        return length > 6 && dns_name_read(rdata, length, 6, &name) == length;
    case DNS_TYPE_TXT:
        return length > 0 && length <= ZONE_RDATA_MAX;
    default:
        return false;
    }
}

static int static_parse(const struct zone *zone, const struct zone_record_config *config,
                        struct zone_static **ret_record)
{
    struct zone_static *record;
    struct dns_name name;
    size_t key_length;

    if (key_parse(zone, config->name, &name, &key_length) < 0 || key_length == 0 ||
        !rdata_is_well_formed(config->type, config->rdata, config->length))
        return -EINVAL;
    record = calloc(1, sizeof(*record) + key_length + config->length);
    if (!record)
        return -ENOMEM;
    record->id = config->id;
    record->type = config->type;
    record->length = config->length;
    record->below = name.labels == 1 || key_length < name.length - 1u;
    record->wildcard = name.wire[0] == 1 && name.wire[1] == '*';
    record->key_length = (uint8_t)key_length;
    memcpy(record->key, name.wire, key_length);
    memcpy(record->key + key_length, config->rdata, config->length);
    if (!record->wildcard && (config->type == DNS_TYPE_A || config->type == DNS_TYPE_AAAA))
        record->ip = ip_from_bytes(config->type == DNS_TYPE_A ? AF_INET : AF_INET6, config->rdata);
    *ret_record = record;
    return 0;
}

static int static_insert_key(struct zone *zone, const struct zone_static *from)
{
    struct zone_record record = zone_record_make(from, from->network, from->type,
                                                 from->key + from->key_length, from->length);

    record.is_static = true;
    return dns_node_insert(&zone->nodes, from->key, from->key_length, &record, 1);
}

/* Takes a free-standing record into the zone; frees it where that fails. */
static int static_adopt(struct zone *zone, struct zone_static *record)
{
    if (dns_table_reserve(&zone->statics, 1) < 0 || dns_table_reserve(&zone->statics_ip, 1) < 0) {
        free(record);
        return -ENOMEM;
    }
    dns_table_add(&zone->statics, id_hash(record->id), record);
    if (ip_is_set(&record->ip))
        dns_table_add(&zone->statics_ip, ip_hash(&record->ip), record);
    zone->n_wildcards += record->wildcard;
    zone->n_aliases += record->type == DNS_TYPE_CNAME;
    if (static_insert_key(zone, record) < 0) {
        zone_record_remove(zone, record->id);
        return -ENOMEM;
    }
    return 0;
}

int zone_record_set(struct zone *zone, const struct zone_record_config *config)
{
    const struct zone_network *network = zone_network_find(zone, config->network_id);
    struct zone_static *record;
    int r;

    zone_record_remove(zone, config->id);
    if (config->network_id != 0 && !network)
        return -ENOENT;
    r = static_parse(zone, config, &record);
    if (r < 0)
        return r;
    record->network = config->network_id == 0 ? ZONE_EVERY_NETWORK : network->index;
    zone_changed(zone);
    return static_adopt(zone, record);
}

void zone_record_remove(struct zone *zone, int64_t id)
{
    struct zone_static *record = dns_table_find(&zone->statics, id_hash(id), static_has_id, &id);

    if (!record)
        return;
    dns_node_remove(&zone->nodes, record->key, record->key_length, record);
    if (ip_is_set(&record->ip))
        dns_table_remove(&zone->statics_ip, ip_hash(&record->ip), record);
    dns_table_remove(&zone->statics, id_hash(id), record);
    zone->n_wildcards -= record->wildcard;
    zone->n_aliases -= record->type == DNS_TYPE_CNAME;
    free(record);
    zone_changed(zone);
}

/* --- who asks, and what is asked for --- */

/* The host's own packets to a gateway's address come from that address or, where a program says so,
 * from loopback; the kernel takes neither from outside. */
static bool source_is_host(const struct zone *zone, const struct ip *source)
{
    if (ip_is_loopback(source))
        return true;
    for (uint16_t i = 0; i < zone->networks_end; i++) {
        const struct zone_network *network = zone->networks[i];

        if (network &&
            (ip_equal(&network->gateway, source) || ip_equal(&network->gateway6, source)))
            return true;
    }
    return false;
}

uint32_t zone_source_hash(const struct ip *source)
{
    return ip_hash(source);
}

bool zone_asker_find(const struct zone *zone, struct zone_network *network, const struct ip *source,
                     uint32_t source_hash, struct dns_asker *ret_asker)
{
    uint32_t position = source_hash;
    const struct zone_endpoint *endpoint;

    ret_asker->network = network;
    while ((endpoint = dns_table_next(&zone->endpoints_ip, source_hash, endpoint_has_ip, source,
                                      &position))) {
        if (endpoint->network == network) {
            ret_asker->guest = endpoint->guest;
            return true;
        }
    }
    ret_asker->guest = NULL;
    return source_is_host(zone, source);
}

bool zone_asker_sees(const struct dns_asker *asker, uint16_t network_index)
{
    if (!asker->guest || network_index == ZONE_EVERY_NETWORK)
        return true;
    for (uint16_t i = 0; i < asker->guest->n_networks; i++)
        if (asker->guest->networks[i] == network_index)
            return true;
    return false;
}

void zone_address_names(const struct zone *zone, const struct dns_asker *asker, const struct ip *ip,
                        zone_name_fn fn, void *userdata)
{
    uint32_t hash = ip_hash(ip);
    uint32_t position = hash;
    const struct zone_endpoint *endpoint;
    const struct zone_static *record;

    while ((endpoint = dns_table_next(&zone->endpoints_ip, hash, endpoint_has_ip, ip, &position)))
        if (zone_asker_sees(asker, endpoint->network->index))
            fn(userdata, endpoint->keys + 1, endpoint->keys[0], true);
    position = hash;
    while ((record = dns_table_next(&zone->statics_ip, hash, static_has_ip, ip, &position)))
        if (zone_asker_sees(asker, record->network))
            fn(userdata, record->key, record->key_length, record->below);
}

const struct dns_name *zone_domain(const struct zone *zone)
{
    return &zone->domain;
}

uint32_t zone_ttl(const struct zone *zone)
{
    return zone->ttl_s;
}

uint32_t zone_negative_ttl(const struct zone *zone)
{
    return zone->ttl_s < NEGATIVE_TTL_MAX_S ? zone->ttl_s : NEGATIVE_TTL_MAX_S;
}

const uint8_t *zone_soa(const struct zone *zone, uint16_t *ret_length)
{
    *ret_length = zone->soa_length;
    return zone->soa;
}
