/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which name wins where several could be meant, below the domain and for single labels:
 *   1. "host" is the gateway of the asker's network, "host.NETWORK" that of another one of its own;
 *   2. NAME.NETWORK, where the asker is on that network, is NAME there;
 *   3. NAME on any network that the asker is on, and static names for every network;
 *   4. wildcards, in the same order (RFC 4592: below the closest ancestor that exists);
 *   5. NETWORK alone exists without data (names are below it).
 *
 * Everything else there is NXDOMAIN, and never goes to an upstream server. The one exception: DS
 * and DNSKEY of a top-level domain, which only a validating resolver in a guest asks for, and which
 * it can't do without.
 *
 * The SOA of a negative answer names the zone that the name would be in: the domain; the root for a
 * single label; for a reverse name the labels that our subnet's prefix spells.
 *
 * Where a name is an alias (CNAME) its record is answered, and all begins again with the name that
 * it stands for (RFC 1034 section 4.3.2, step 3a), until that has data, does not exist, or is not
 * ours. */
#include "worker/dns_local.h"

#include "worker/dns_view.h"

#define ALIASES_MAX 8 /* of one answer: more are a loop, or as bad */

struct local {
    const struct zone *zone;
    const struct dns_asker *asker;
    const struct dns_query *query;
    /* What is looked for: the question's name, then the name that an alias stands for. */
    const struct dns_name *name;
    uint16_t owner; /* where it stands in the message */
    uint8_t key_length;
    uint32_t key_hash;
    bool alias; /* the name is one: its CNAME is in the reply */
    unsigned n_aliases;
    struct dns_alias *aliases; /* where the name behind the last alias is kept */
    struct dns_reply reply;
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

/* Of the name, without those of aliases before it. */
static bool has_answers(const struct local *local)
{
    return local->reply.answers > local->n_aliases || local->reply.truncated;
}

/* 0 after an alias: the answer goes on. */
static size_t finish_answers(struct local *local, uint16_t soa_owner)
{
    if (local->alias)
        return 0;
    return has_answers(local) ? finish(local, DNS_RCODE_NOERROR)
                              : finish_negative(local, DNS_RCODE_NOERROR, soa_owner);
}

static bool wants(const struct local *local, uint16_t type)
{
    return local->query->type == type || local->query->type == DNS_TYPE_ANY;
}

static void answer_ip(struct local *local, const struct ip *ip)
{
    bool v6 = ip->family == AF_INET6;

    if (ip_is_set(ip) && wants(local, v6 ? DNS_TYPE_AAAA : DNS_TYPE_A))
        dns_reply_answer(&local->reply, local->owner, v6 ? DNS_TYPE_AAAA : DNS_TYPE_A,
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

/* Where label i of the name stands in the message, for use as owner. */
static uint16_t label_at(const struct local *local, unsigned i)
{
    return (uint16_t)(local->owner + local->name->offsets[i]);
}

/* The node of the name's first key_length bytes. */
static struct zone_node *node_find(const struct local *local, size_t key_length)
{
    const uint8_t *key = local->name->wire;

    return zone_node_find(local->zone, key, key_length,
                          key_length == local->key_length ? local->key_hash
                                                          : zone_key_hash(key, key_length));
}

/* The network that this label names, if the asker is on it. */
static const struct zone_network *network_seen(const struct local *local, const uint8_t *label)
{
    const struct zone_network *network = zone_network_find_label(local->zone, label);

    return network && zone_asker_sees(local->asker, network->index) ? network : NULL;
}

/* Does the ancestor exist that is the name's bytes from `at` to key_length? */
static bool ancestor_exists(const struct local *local, const struct dns_view *view, size_t at,
                            size_t key_length)
{
    const uint8_t *key = local->name->wire + at;
    size_t length = key_length - at;

    if (dns_view_has_node(view,
                          zone_node_find(local->zone, key, length, zone_key_hash(key, length))))
        return true;
    return key[0] + 1u == length && network_seen(local, key);
}

static struct zone_node *wildcard_at(const struct local *local, size_t at, size_t key_length)
{
    uint8_t key[DNS_NAME_MAX + 2] = {1, '*'};
    size_t length = key_length - at;

    memcpy(key + 2, local->name->wire + at, length);
    return zone_node_find(local->zone, key, length + 2, zone_key_hash(key, length + 2));
}

/* The wildcard that stands for the name's first key_length bytes, which don't exist: that of the
 * closest ancestor. The last one, of no bytes, is the domain. NULL: none. */
static struct zone_node *wildcard_find(const struct local *local, const struct dns_view *view,
                                       size_t key_length)
{
    const uint8_t *name = local->name->wire;

    if (!zone_has_wildcards(local->zone))
        return NULL;
    for (size_t at = name[0] + 1u; at < key_length; at += name[at] + 1u)
        if (ancestor_exists(local, view, at, key_length))
            return wildcard_at(local, at, key_length);
    return wildcard_at(local, key_length, key_length);
}

static void answer_alias(struct local *local, const struct zone_record *record)
{
    struct dns_reply *reply = &local->reply;

    if (!dns_reply_answer(reply, local->owner, DNS_TYPE_CNAME, zone_ttl(local->zone),
                          zone_record_data(record), record->length))
        return;
    local->alias = true;
    /* It was read when the record was made. */
    (void)dns_name_read(zone_record_data(record), record->length, 0, &local->aliases->name);
    local->aliases->owner = (uint16_t)(reply->length - record->length);
}

/* Adds what the node has for this view; false when the name does not exist in it. */
static bool answer_node(struct local *local, struct zone_node *node, const struct dns_view *view)
{
    uint16_t answers = local->reply.answers;

    if (!dns_view_answer(view, node, local->query->type, local->owner, zone_ttl(local->zone),
                         &local->reply))
        return false;
    if (local->reply.answers == answers && !local->reply.truncated &&
        zone_has_aliases(local->zone)) {
        const struct zone_record *alias = dns_view_alias(view, node);

        if (alias)
            answer_alias(local, alias);
    }
    return true;
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

static struct dns_view view_of_network(const struct zone_network *network)
{
    return (struct dns_view){.networks = &network->index, .count = 1};
}

/* NAME.NETWORK is meant where the last of these labels is a network that the asker is on; NULL: not
 * so. *ret_key_length: of NAME. */
static const struct zone_network *network_of(const struct local *local, unsigned labels,
                                             size_t *ret_key_length)
{
    *ret_key_length = local->name->offsets[labels - 1];
    return labels > 1 ? network_seen(local, local->name->wire + *ret_key_length) : NULL;
}

/* Adds what a wildcard has for the name; false when none stands for it. */
static bool answer_wildcard(struct local *local, const struct zone_network *network,
                            size_t name_key_length, size_t key_length)
{
    struct dns_view view;

    if (!zone_has_wildcards(local->zone))
        return false;
    if (network) {
        view = view_of_network(network);
        if (answer_node(local, wildcard_find(local, &view, name_key_length), &view))
            return true;
    }
    view = dns_view_of(local->asker);
    return answer_node(local, wildcard_find(local, &view, key_length), &view);
}

/* labels: how many of the name's labels are not the domain's; at least one. */
static size_t answer_ours(struct local *local, unsigned labels, uint16_t soa_owner)
{
    const struct dns_name *name = local->name;
    struct dns_view view = dns_view_of(local->asker);
    size_t name_key_length;
    const struct zone_network *network = network_of(local, labels, &name_key_length);

    if (labels == 1 && label_is(name->wire, label_host))
        return answer_gateway(local, local->asker->network, soa_owner);
    if (name->labels == 1 && label_is(name->wire, label_localhost))
        return answer_localhost(local, soa_owner);
    if (network && labels == 2 && label_is(name->wire, label_host))
        return answer_gateway(local, network, soa_owner);
    if (network) {
        struct dns_view on_network = view_of_network(network);

        if (answer_node(local, node_find(local, name_key_length), &on_network))
            return finish_answers(local, soa_owner);
    }
    if (answer_node(local, node_find(local, name->offsets[labels]), &view))
        return finish_answers(local, soa_owner);
    if (labels == 1 && network_seen(local, name->wire))
        return finish_negative(local, DNS_RCODE_NOERROR, soa_owner);
    if (answer_wildcard(local, network, name_key_length, name->offsets[labels]))
        return finish_answers(local, soa_owner);
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
        dns_reply_answer(&local->reply, local->owner, DNS_TYPE_PTR, zone_ttl(local->zone), target,
                         (uint16_t)length);
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

    return label_at(local, local->name->labels - 2u - (prefix + bits_each - 1) / bits_each);
}

/* Leaves *ret_length as it is, and returns false, for addresses that are not ours. */
static bool answer_reverse(struct local *local, enum dns_reverse kind, const struct ip *ip,
                           unsigned bits, size_t *ret_length)
{
    const struct zone_network *network = zone_network_find_subnet(local->zone, ip);
    unsigned prefix = 0;
    uint16_t owner = local->owner;

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

/* The name itself, or the wildcard that stands for it; NULL when the asker sees no data of either:
 * then it is not ours. */
static struct zone_node *node_elsewhere(const struct local *local, const struct dns_view *view)
{
    size_t key_length = local->name->length - 1u;
    struct zone_node *node = node_find(local, key_length);

    if (dns_view_has_data(view, node))
        return node;
    if (dns_view_has_node(view, node))
        return NULL;
    node = wildcard_find(local, view, key_length);
    /* "*" alone is for names of the domain. */
    return node && node->key_length > 2 && dns_view_has_data(view, node) ? node : NULL;
}

static bool answer_elsewhere(struct local *local, size_t *ret_length)
{
    const struct dns_name *name = local->name;
    struct dns_view view = dns_view_of(local->asker);
    struct zone_node *node;

    if (label_is(name->wire + name->offsets[name->labels - 1], label_localhost)) {
        *ret_length = answer_localhost(local, label_at(local, name->labels - 1u));
        return true;
    }
    node = node_elsewhere(local, &view);
    if (!node)
        return false;
    answer_node(local, node, &view);
    *ret_length = finish_answers(local, local->owner);
    return true;
}

static bool is_for_validator(const struct local *local)
{
    struct dns_view view = dns_view_of(local->asker);

    return (local->query->type == DNS_TYPE_DS || local->query->type == DNS_TYPE_DNSKEY) &&
           !dns_view_has_data(&view, node_find(local, local->name->length - 1u));
}

/* --- any name --- */

/* How many bytes of the name are its key. */
static uint8_t key_length_of(const struct zone *zone, const struct dns_name *name)
{
    const struct dns_name *domain = zone_domain(zone);

    if (dns_name_is_below(name, domain))
        return name->offsets[name->labels - domain->labels];
    return (uint8_t)(name->length - 1);
}

/* The finished reply's length; 0: an alias was found (local->alias), or the name is not ours. */
static size_t answer_name(struct local *local)
{
    const struct dns_name *name = local->name;
    const struct dns_name *domain = zone_domain(local->zone);
    size_t length = 0;
    struct ip ip;
    unsigned bits;
    enum dns_reverse reverse;

    if (name->labels == 0)
        return 0; /* the root */
    if (dns_name_is_below(name, domain)) {
        unsigned labels = name->labels - domain->labels;
        uint16_t owner = label_at(local, labels);

        return labels == 0 ? answer_apex(local, owner) : answer_ours(local, labels, owner);
    }
    if (name->labels == 1)
        return is_for_validator(local) ? 0 : answer_ours(local, 1, DNS_OWNER_ROOT);
    reverse = dns_reverse_parse(name, &ip, &bits);
    if (reverse != DNS_REVERSE_NO && answer_reverse(local, reverse, &ip, bits, &length))
        return length;
    return answer_elsewhere(local, &length) ? length : 0;
}

/* Goes on to the name that the last alias stands for. */
static void alias_follow(struct local *local)
{
    local->alias = false;
    local->n_aliases++;
    local->name = &local->aliases->name;
    local->owner = local->aliases->owner;
    local->key_length = key_length_of(local->zone, local->name);
    local->key_hash = zone_key_hash(local->name->wire, local->key_length);
}

static size_t finish_loop(struct local *local)
{
    local->reply.length = local->query->terms.question_end;
    local->reply.answers = 0;
    return finish(local, DNS_RCODE_SERVFAIL);
}

/* --- interface --- */

void dns_local_prepare(const struct zone *zone, struct dns_query *query)
{
    query->key_length = key_length_of(zone, &query->name);
    query->key_hash = zone_key_hash(query->name.wire, query->key_length);
}

enum dns_local dns_local_answer(const struct zone *zone, const struct dns_asker *asker,
                                const struct dns_query *query, uint8_t *data, size_t capacity,
                                size_t *ret_length, struct dns_alias *ret_alias)
{
    struct local local = {
        .zone = zone,
        .asker = asker,
        .query = query,
        .name = &query->name,
        .owner = DNS_HEADER_SIZE,
        .key_length = query->key_length,
        .key_hash = query->key_hash,
        .aliases = ret_alias,
    };

    dns_reply_begin(&local.reply, data, capacity, &query->terms);
    *ret_length = answer_name(&local);
    while (local.alias) {
        alias_follow(&local);
        *ret_length = local.n_aliases > ALIASES_MAX ? finish_loop(&local) : answer_name(&local);
    }
    if (*ret_length > 0)
        return DNS_LOCAL_DONE;
    if (local.n_aliases == 0)
        return DNS_LOCAL_NOT_OURS;
    ret_alias->length = (uint16_t)local.reply.length;
    ret_alias->answers = local.reply.answers;
    return DNS_LOCAL_ALIAS;
}
