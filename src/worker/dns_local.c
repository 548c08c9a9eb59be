/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which name wins where several could be meant, below the domain and for single labels:
 *   1. "host" is the gateway of the asker's network, "host.NETWORK" that of another one of its own;
 *   2. NAME.NETWORK, where the asker is on that network, is NAME there;
 *   3. NAME on any network that the asker is on, and static names for every network;
 *   4. NETWORK alone exists without data (names are below it).
 *
 * Everything else there is NXDOMAIN, and never goes to an upstream server. The one exception: DS
 * and DNSKEY of a top-level domain, which only a validating resolver in a guest asks for, and which
 * it can't do without.
 *
 * The SOA of a negative answer names the zone that the name would be in: the domain; the root for a
 * single label; for a reverse name the labels that our subnet's prefix spells. */
#include "worker/dns_local.h"

#define RANGES_MAX 32

struct local {
    const struct zone *zone;
    const struct dns_asker *asker;
    const struct dns_query *query;
    struct dns_reply reply;
};

/* The networks whose records count. */
struct view {
    const uint16_t *networks; /* ascending */
    unsigned count;
    bool all;
};

static const uint8_t label_host[] = "\4host";
static const uint8_t label_localhost[] = "\11localhost";

static bool label_is(const uint8_t *label, const uint8_t *wanted)
{
    return memcmp(label, wanted, wanted[0] + 1u) == 0;
}

/* --- replies --- */

static size_t finish(struct local *local, enum dns_rcode rcode)
{
    return dns_reply_finish(&local->reply, &local->query->terms, DNS_FLAG_AA, rcode, DNS_EDE_NONE);
}

/* NXDOMAIN or no data, with the SOA of the zone whose name begins at this label of the question's.
 */
static size_t finish_negative(struct local *local, enum dns_rcode rcode, uint16_t soa_owner)
{
    uint16_t length;
    const uint8_t *soa = zone_soa(local->zone, &length);

    dns_reply_authority(&local->reply, soa_owner, DNS_TYPE_SOA, zone_negative_ttl(local->zone), soa,
                        length);
    local->reply.truncated = false; /* a domain so long that its SOA does not fit: then without */
    return finish(local, rcode);
}

static size_t finish_answers(struct local *local, uint16_t soa_owner)
{
    if (local->reply.answers == 0 && !local->reply.truncated)
        return finish_negative(local, DNS_RCODE_NOERROR, soa_owner);
    return finish(local, DNS_RCODE_NOERROR);
}

static bool wants(const struct local *local, uint16_t type)
{
    return local->query->type == type || local->query->type == DNS_TYPE_ANY;
}

static void answer_ip(struct local *local, const struct ip *ip)
{
    bool v6 = ip->family == AF_INET6;

    if (ip_is_set(ip) && wants(local, v6 ? DNS_TYPE_AAAA : DNS_TYPE_A))
        dns_reply_answer(&local->reply, DNS_HEADER_SIZE, v6 ? DNS_TYPE_AAAA : DNS_TYPE_A,
                         zone_ttl(local->zone), ip->bytes, v6 ? 16 : 4);
}

static size_t answer_gateway(struct local *local, const struct zone_network *network,
                             uint16_t soa_owner)
{
    answer_ip(local, &network->gateway);
    answer_ip(local, &network->gateway6);
    return finish_answers(local, soa_owner);
}

/* RFC 6761 section 6.3. */
static size_t answer_localhost(struct local *local, uint16_t soa_owner)
{
    struct ip v4 = ip_from_v4(0x7f000001);
    struct ip v6 = {.family = AF_INET6, .bytes = {[15] = 1}};

    answer_ip(local, &v4);
    answer_ip(local, &v6);
    return finish_answers(local, soa_owner);
}

/* --- records of a name --- */

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

static void ranges_all(struct ranges *ranges, const struct zone_node *node, uint16_t type)
{
    for (uint32_t i = 0; i < node->count && ranges->count < RANGES_MAX;) {
        uint32_t first = i;

        while (i < node->count && node->records[i].type == type)
            i++;
        ranges_add(ranges, node->records + first, i - first);
        i += i == first;
    }
}

static bool ranges_collect(struct ranges *ranges, const struct zone_node *node,
                           const struct view *view, uint16_t type)
{
    bool exists = ranges_network(ranges, node, ZONE_EVERY_NETWORK, type);

    if (view->all) {
        ranges->count = 0;
        ranges->total = 0;
        if (type != DNS_TYPE_NONE)
            ranges_all(ranges, node, type);
        return true;
    }
    for (unsigned i = 0; i < view->count; i++)
        exists |= ranges_network(ranges, node, view->networks[i], type);
    return exists;
}

static bool view_has(const struct view *view, uint16_t network)
{
    if (view->all || network == ZONE_EVERY_NETWORK)
        return true;
    for (unsigned i = 0; i < view->count; i++)
        if (view->networks[i] == network)
            return true;
    return false;
}

/* ANY is answered with one type of the name's (RFC 8482 section 4.1). */
static uint16_t type_wanted(const struct local *local, const struct zone_node *node,
                            const struct view *view)
{
    if (local->query->type != DNS_TYPE_ANY)
        return local->query->type;
    for (uint32_t i = 0; i < node->count; i++)
        if (node->records[i].type != DNS_TYPE_NONE && view_has(view, node->records[i].network))
            return node->records[i].type;
    return DNS_TYPE_NONE;
}

static bool answer_record(struct local *local, const struct zone_record *record)
{
    return dns_reply_answer(&local->reply, DNS_HEADER_SIZE, record->type, zone_ttl(local->zone),
                            record->data, record->length);
}

/* All records of the ranges, beginning with another one each time. */
static void answer_ranges(struct local *local, struct zone_node *node, const struct ranges *ranges)
{
    uint32_t skip = ranges->total ? node->rotation++ % ranges->total : 0;
    unsigned at = 0;

    while (at < ranges->count && skip >= ranges->items[at].count)
        skip -= ranges->items[at++].count;
    for (uint32_t left = ranges->total; left > 0; left--) {
        if (!answer_record(local, ranges->items[at].first + skip))
            return;
        if (++skip == ranges->items[at].count) {
            skip = 0;
            at = at + 1 < ranges->count ? at + 1 : 0;
        }
    }
}

/* Adds what the node has for this view; false when the name does not exist in it. */
static bool answer_node(struct local *local, struct zone_node *node, const struct view *view)
{
    struct ranges ranges;

    if (!node)
        return false;
    if (node->count == 1) { /* nearly every name */
        const struct zone_record *record = node->records;

        if (!view_has(view, record->network))
            return false;
        if (record->type != DNS_TYPE_NONE && wants(local, record->type))
            answer_record(local, record);
        return true;
    }
    ranges.count = 0;
    ranges.total = 0;
    if (!ranges_collect(&ranges, node, view, type_wanted(local, node, view)))
        return false;
    answer_ranges(local, node, &ranges);
    return true;
}

/* The node of the question's first key_length bytes. */
static struct zone_node *node_find(const struct local *local, size_t key_length)
{
    const struct dns_query *query = local->query;
    const uint8_t *key = query->name.wire;

    return zone_node_find(local->zone, key, key_length,
                          key_length == query->key_length ? query->key_hash
                                                          : zone_key_hash(key, key_length));
}

/* Has it data of any type, not only descendants? */
static bool node_has_data(const struct zone_node *node, const struct view *view)
{
    for (uint32_t i = 0; node && i < node->count; i++)
        if (node->records[i].type != DNS_TYPE_NONE && view_has(view, node->records[i].network))
            return true;
    return false;
}

static struct view view_of(const struct dns_asker *asker)
{
    if (!asker->guest)
        return (struct view){.all = true};
    return (struct view){.networks = asker->guest->networks, .count = asker->guest->n_networks};
}

/* --- below the domain, and single labels --- */

/* The domain itself: SOA and NS; addresses are those of names below it. */
static size_t answer_apex(struct local *local, uint16_t owner)
{
    uint16_t length;
    const uint8_t *soa = zone_soa(local->zone, &length);

    if (wants(local, DNS_TYPE_SOA))
        dns_reply_answer(&local->reply, owner, DNS_TYPE_SOA, zone_ttl(local->zone), soa, length);
    else if (local->query->type == DNS_TYPE_NS) /* the SOA begins with the server's name */
        dns_reply_answer(&local->reply, owner, DNS_TYPE_NS, zone_ttl(local->zone), soa,
                         (uint16_t)(label_host[0] + 1 + zone_domain(local->zone)->length));
    return finish_answers(local, owner);
}

/* The network that this label names, if the asker is on it. */
static const struct zone_network *network_seen(const struct local *local, const uint8_t *label)
{
    const struct zone_network *network = zone_network_find_label(local->zone, label);

    return network && zone_asker_sees(local->asker, network->index) ? network : NULL;
}

/* NAME.NETWORK, of two labels or more; false when there is no such network or name. */
static bool answer_on_network(struct local *local, unsigned labels, uint16_t soa_owner,
                              size_t *ret_length)
{
    const struct dns_name *name = &local->query->name;
    unsigned offset = name->offsets[labels - 1];
    const struct zone_network *network = network_seen(local, name->wire + offset);

    if (!network)
        return false;
    if (labels == 2 && label_is(name->wire, label_host)) {
        *ret_length = answer_gateway(local, network, soa_owner);
        return true;
    }
    struct view view = {.networks = &network->index, .count = 1};
    if (!answer_node(local, node_find(local, offset), &view))
        return false;
    *ret_length = finish_answers(local, soa_owner);
    return true;
}

/* labels: how many of the name's labels are not the domain's; at least one. */
static size_t answer_ours(struct local *local, unsigned labels, uint16_t soa_owner)
{
    const struct dns_name *name = &local->query->name;
    struct view view = view_of(local->asker);
    size_t length;

    if (labels == 1 && label_is(name->wire, label_host))
        return answer_gateway(local, local->asker->network, soa_owner);
    if (name->labels == 1 && label_is(name->wire, label_localhost))
        return answer_localhost(local, soa_owner);
    if (labels > 1 && answer_on_network(local, labels, soa_owner, &length))
        return length;
    if (answer_node(local, node_find(local, name->offsets[labels]), &view))
        return finish_answers(local, soa_owner);
    if (labels == 1 && network_seen(local, name->wire))
        return finish_negative(local, DNS_RCODE_NOERROR, soa_owner);
    return finish_negative(local, DNS_RCODE_NXDOMAIN, soa_owner);
}

/* --- reverse names --- */

static void answer_ptr(void *userdata, const uint8_t *key, size_t key_length, bool below)
{
    struct local *local = userdata;
    const struct dns_name *domain = zone_domain(local->zone);
    uint8_t target[DNS_NAME_MAX + DNS_NAME_MAX];
    size_t length = key_length;

    memcpy(target, key, key_length);
    if (below) {
        memcpy(target + length, domain->wire, domain->length);
        length += domain->length;
    } else {
        target[length++] = 0;
    }
    if (length <= DNS_NAME_MAX && wants(local, DNS_TYPE_PTR))
        dns_reply_answer(&local->reply, DNS_HEADER_SIZE, DNS_TYPE_PTR, zone_ttl(local->zone),
                         target, (uint16_t)length);
}

struct exists {
    bool found;
};

static void note_exists(void *userdata, const uint8_t *key, size_t key_length, bool below)
{
    (void)key;
    (void)key_length;
    (void)below;
    ((struct exists *)userdata)->found = true;
}

/* Adds the names of an address; false when there are none that the asker sees. */
static bool answer_address(struct local *local, const struct zone_network *network,
                           const struct ip *ip)
{
    struct exists exists = {0};

    if (network && (ip_equal(ip, &network->gateway) || ip_equal(ip, &network->gateway6))) {
        if (!zone_asker_sees(local->asker, network->index))
            return false;
        answer_ptr(local, label_host, label_host[0] + 1u, true);
        return true;
    }
    zone_address_names(local->zone, local->asker, ip, note_exists, &exists);
    if (!exists.found)
        return false;
    zone_address_names(local->zone, local->asker, ip, answer_ptr, local);
    return true;
}

/* The label at which the reverse zone of our subnet begins: as many labels before "in-addr.arpa" as
 * the prefix reaches into. */
static uint16_t reverse_zone_owner(const struct local *local, const struct zone_network *network,
                                   const struct ip *ip)
{
    bool v6 = ip->family == AF_INET6;
    unsigned prefix = v6 ? network->subnet6.prefix : network->subnet.prefix;
    unsigned bits_each = v6 ? 4 : 8;

    return dns_question_label(local->query, local->query->name.labels - 2u -
                                                (prefix + bits_each - 1) / bits_each);
}

/* Leaves *ret_length as it is, and returns false, for addresses that are not ours. */
static bool answer_reverse(struct local *local, enum dns_reverse kind, const struct ip *ip,
                           unsigned bits, size_t *ret_length)
{
    const struct zone_network *network = zone_network_find_subnet(local->zone, ip);
    unsigned prefix = 0;
    uint16_t owner = DNS_HEADER_SIZE;

    if (network)
        prefix = ip->family == AF_INET6 ? network->subnet6.prefix : network->subnet.prefix;
    if (network && bits < prefix)
        network = NULL; /* an ancestor of our subnet's names */
    if (network)
        owner = reverse_zone_owner(local, network, ip);
    if (kind == DNS_REVERSE_ADDRESS && answer_address(local, network, ip))
        *ret_length = finish_answers(local, owner);
    else if (network)
        *ret_length = finish_negative(
            local, kind == DNS_REVERSE_PART ? DNS_RCODE_NOERROR : DNS_RCODE_NXDOMAIN, owner);
    return *ret_length > 0;
}

/* --- elsewhere --- */

static bool answer_elsewhere(struct local *local, size_t *ret_length)
{
    const struct dns_name *name = &local->query->name;
    const uint8_t *last = name->wire + name->offsets[name->labels - 1];
    struct view view = view_of(local->asker);
    struct zone_node *node;

    if (label_is(last, label_localhost)) {
        *ret_length = answer_localhost(local, dns_question_label(local->query, name->labels - 1u));
        return true;
    }
    node = node_find(local, name->length - 1u);
    if (!node_has_data(node, &view))
        return false;
    answer_node(local, node, &view);
    *ret_length = finish_answers(local, DNS_HEADER_SIZE);
    return true;
}

static bool is_for_validator(const struct local *local)
{
    struct view view = view_of(local->asker);
    const struct dns_name *name = &local->query->name;

    return (local->query->type == DNS_TYPE_DS || local->query->type == DNS_TYPE_DNSKEY) &&
           !node_has_data(node_find(local, name->length - 1u), &view);
}

void dns_local_prepare(const struct zone *zone, struct dns_query *query)
{
    const struct dns_name *domain = zone_domain(zone);
    const struct dns_name *name = &query->name;

    if (dns_name_is_below(name, domain))
        query->key_length = name->offsets[name->labels - domain->labels];
    else
        query->key_length = (uint8_t)(name->length - 1);
    query->key_hash = zone_key_hash(name->wire, query->key_length);
}

bool dns_local_answer(const struct zone *zone, const struct dns_asker *asker,
                      const struct dns_query *query, uint8_t *data, size_t capacity,
                      size_t *ret_length)
{
    struct local local = {.zone = zone, .asker = asker, .query = query};
    const struct dns_name *domain = zone_domain(zone);
    bool below = dns_name_is_below(&query->name, domain);
    struct ip ip;
    unsigned bits;
    enum dns_reverse reverse;

    if (query->name.labels == 0)
        return false; /* the root */
    dns_reply_begin(&local.reply, data, capacity, &query->terms);
    if (below) {
        unsigned labels = query->name.labels - domain->labels;
        uint16_t owner = dns_question_label(query, labels);

        *ret_length = labels == 0 ? answer_apex(&local, owner) : answer_ours(&local, labels, owner);
        return true;
    }
    if (query->name.labels == 1) {
        if (is_for_validator(&local))
            return false;
        *ret_length = answer_ours(&local, 1, DNS_OWNER_ROOT);
        return true;
    }
    *ret_length = 0;
    reverse = dns_reverse_parse(&query->name, &ip, &bits);
    if (reverse != DNS_REVERSE_NO)
        return answer_reverse(&local, reverse, &ip, bits, ret_length);
    return answer_elsewhere(&local, ret_length);
}
