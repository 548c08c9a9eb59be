/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What networks, endpoints and ports are in the kernel: elements of sets. This file alone knows
 * which; a rebuild, a single change and a verification all go through the same three functions. */
#include "nat/counter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/yield.h"
#include "nat/opening.h"

#define DNS_PORT 53
/* The list of elements is one netlink attribute, whose length has 16 bits. */
#define ELEMENTS_ROOM 65000
#define COUNTER_ROOM ((size_t)160) /* the expressions of a counting element */
#define ELEMENT_ROOM                                                                          \
    ((size_t)10 * MNL_ALIGN(sizeof(struct nlattr)) + (size_t)2 * SET_KEY_MAX + SET_DATA_MAX + \
     POLICY_NAME_MAX + COUNTER_ROOM)

struct nat_batch *nat_batch_new(struct nat *nat)
{
    struct nat_batch *batch = calloc(1, sizeof(*batch));

    if (batch)
        batch->nat = nat;
    return batch;
}

void nat_batch_free(struct nat_batch *batch)
{
    if (!batch)
        return;
    for (size_t i = 0; i < batch->n_policies; i++)
        policy_object_free(batch->policies[i]);
    free(batch->policies);
    free(batch->openings);
    free(batch->elements);
    free(batch);
}

/* --- elements --- */

static struct nat_element *batch_push(struct nat_batch *batch, enum set_id set, bool add)
{
    if (batch->count == batch->capacity) {
        size_t capacity = batch->capacity ? batch->capacity * 2 : 16;
        struct nat_element *elements = realloc(batch->elements, capacity * sizeof(*elements));

        if (!elements) {
            batch->failed = true;
            return NULL;
        }
        batch->elements = elements;
        batch->capacity = capacity;
    }
    struct nat_element *element = &batch->elements[batch->count++];
    *element = (struct nat_element){.set = (uint8_t)set, .add = add};
    batch->n_deletions += !add;
    return element;
}

/* What the fields of an element are taken from. */
struct values {
    uint32_t group;
    uint32_t group_to;
    const struct ip *ip;
    uint8_t protocol;
    uint16_t port;
    const char *interface;
    const struct mac *mac;
    int64_t policy_id;
    uint64_t policy_version;
};

/* Writes the fields of two groups, addresses or services into registers as the rules load them. The
 * second group of SET_SAME is the same group. */
static void fields_write(const uint8_t *fields, const struct values *values, uint8_t *bytes)
{
    uint16_t port = htons(values->port);

    for (size_t i = 0; i < SET_FIELDS && fields[i] != FIELD_NONE; i++) {
        switch ((enum set_field)fields[i]) {
        case FIELD_GROUP: /* in the host's byte order, as meta iifgroup gives it */
            memcpy(bytes, &values->group, 4);
            break;
        case FIELD_GROUP_TO:
            memcpy(bytes, &values->group_to, 4);
            break;
        case FIELD_IP4:
            memcpy(bytes, values->ip->bytes, 4);
            break;
        case FIELD_IP6:
            memcpy(bytes, values->ip->bytes, 16);
            bytes += 12;
            break;
        case FIELD_PROTO:
            bytes[0] = values->protocol;
            break;
        case FIELD_PORT:
            memcpy(bytes, &port, 2);
            break;
        case FIELD_FAMILY:
            bytes[0] = values->ip->family == AF_INET6 ? NFPROTO_IPV6 : NFPROTO_IPV4;
            break;
        case FIELD_INTERFACE:
            if (values->interface)
                memcpy(bytes, values->interface, strnlen(values->interface, IFNAMSIZ));
            bytes += IFNAMSIZ - 4;
            break;
        case FIELD_MAC:
            if (values->mac)
                memcpy(bytes, values->mac->bytes, sizeof(values->mac->bytes));
            bytes += 4;
            break;
        case FIELD_POLICY:
            memcpy(bytes, &values->policy_id, sizeof(values->policy_id));
            memcpy(bytes + 8, &values->policy_version, sizeof(values->policy_version));
            bytes += 12;
            break;
        case FIELD_NONE:
            break;
        }
        bytes += 4;
    }
}

/* An element with a state that is deleted and added again stays, with its state: the last one, just
 * pushed, goes together with its deletion. */
static void batch_keep(struct nat_batch *batch)
{
    const struct nat_element *last = &batch->elements[batch->count - 1];

    for (size_t i = batch->count - 1; i-- > 0;) {
        struct nat_element *item = &batch->elements[i];

        if (item->set != last->set || memcmp(item->key, last->key, sizeof(item->key)) != 0)
            continue;
        if (item->add || item->amount != last->amount)
            return;
        memmove(item, item + 1, (batch->count - i - 2) * sizeof(*item));
        batch->count -= 2;
        batch->n_deletions--;
        return;
    }
}

static void batch_element(struct nat_batch *batch, enum set_id set, bool add,
                          const struct values *key, const struct values *data)
{
    struct nat_element *element = batch_push(batch, set, add);

    if (!element)
        return;
    fields_write(set_def_get(set)->key, key, element->key);
    if (data)
        fields_write(set_def_get(set)->data, data, element->data);
    if (add && set_state_get(set) && batch->n_deletions > 0)
        batch_keep(batch);
}

/* All addresses of a prefix. */
static void batch_prefix(struct nat_batch *batch, enum set_id set4, enum set_id set6, bool add,
                         const struct cidr *prefix)
{
    const struct ip first = cidr_first(prefix);
    const struct ip last = cidr_last(prefix);
    enum set_id set = prefix->ip.family == AF_INET6 ? set6 : set4;
    struct nat_element *element = batch_push(batch, set, add);

    if (!element)
        return;
    fields_write(set_def_get(set)->key, &(struct values){.ip = &first}, element->key);
    fields_write(set_def_get(set)->key, &(struct values){.ip = &last}, element->key_end);
}

struct nat_batch *nat_batch_new_constant(struct nat *nat)
{
    struct nat_batch *batch = nat_batch_new(nat);
    size_t count;
    const struct cidr *prefixes = policy_private_prefixes(&count);

    for (size_t i = 0; batch && i < count; i++)
        batch_prefix(batch, SET_SPECIAL4, SET_SPECIAL6, true, &prefixes[i]);
    return batch;
}

/* --- networks --- */

static void batch_gateway(struct nat_batch *batch, const struct nat_network *network,
                          const struct ip *gateway, bool add)
{
    static const uint8_t dns_protocols[] = {IPPROTO_UDP, IPPROTO_TCP};
    bool v6 = gateway->family == AF_INET6;
    struct values values = {.group = network->group, .ip = gateway, .port = DNS_PORT};

    if (!ip_is_set(gateway))
        return;
    batch_element(batch, v6 ? SET_GATEWAY6 : SET_GATEWAY4, add, &values, NULL);
    batch_element(batch, v6 ? SET_OWN6 : SET_OWN4, add, &values, NULL);
    batch_element(batch, v6 ? SET_SOURCE6 : SET_SOURCE4, add, &values, &values);
    if (!network->dns)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(dns_protocols); i++) {
        values.protocol = dns_protocols[i];
        batch_element(batch, v6 ? SET_DNS6 : SET_DNS4, add, &values, NULL);
        if (!v6)
            batch_element(batch, SET_OWN_DNS4, add, &values, NULL);
    }
}

void nat_batch_network(struct nat_batch *batch, const struct nat_network *network, bool add)
{
    const struct values values = {.group = network->group};

    if (!network->isolated)
        batch_element(batch, SET_SAME, add, &values, NULL);
    if (network->internal)
        batch_element(batch, SET_INTERNAL, add, &values, NULL);
    if (network->host_access)
        batch_element(batch, SET_HOST_ACCESS, add, &values, NULL);
    if (cidr_is_set(&network->subnet))
        batch_prefix(batch, SET_SUBNET4, SET_SUBNET6, add, &network->subnet);
    if (cidr_is_set(&network->subnet6))
        batch_prefix(batch, SET_SUBNET4, SET_SUBNET6, add, &network->subnet6);
    batch_gateway(batch, network, &network->gateway, add);
    batch_gateway(batch, network, &network->gateway6, add);
}

/* --- passages --- */

void nat_batch_passage(struct nat_batch *batch, const struct nat_passage *passage, bool add)
{
    struct values values = {
        .group = passage->from_group,
        .group_to = passage->to_group,
        .protocol = passage->span.protocol,
        .port = passage->span.first,
    };
    struct nat_element *element;

    if (span_is_everything(&passage->span)) {
        batch_element(batch, SET_PASSAGE, add, &values, NULL);
        return;
    }
    element = batch_push(batch, SET_PASSAGE_PORT, add);
    if (!element)
        return;
    fields_write(set_def_get(SET_PASSAGE_PORT)->key, &values, element->key);
    values.port = passage->span.last;
    fields_write(set_def_get(SET_PASSAGE_PORT)->key, &values, element->key_end);
}

/* --- endpoints --- */

/* An endpoint in a set that matches beyond an amount. */
static void batch_amount(struct nat_batch *batch, enum set_id set, bool add,
                         const struct values *key, uint32_t amount)
{
    struct nat_element *element = amount > 0 ? batch_push(batch, set, add) : NULL;

    if (!element)
        return;
    fields_write(set_def_get(set)->key, key, element->key);
    element->amount = amount;
    if (add && batch->n_deletions > 0)
        batch_keep(batch);
}

static void batch_endpoint_ip(struct nat_batch *batch, const struct nat_endpoint *endpoint,
                              const struct ip *ip, bool add)
{
    bool v6 = ip->family == AF_INET6;
    const struct values values = {.group = endpoint->group, .ip = ip};

    if (!ip_is_set(ip))
        return;
    batch_element(batch, v6 ? SET_GUEST6 : SET_GUEST4, add, &values, NULL);
    batch_element(batch, v6 ? SET_DENIED6 : SET_DENIED4, add, &values, NULL);
    batch_amount(batch, v6 ? SET_RATE6 : SET_RATE4, add, &values, endpoint->conn_rate);
    batch_amount(batch, v6 ? SET_CONNS6 : SET_CONNS4, add, &values,
                 endpoint->max_conns || !batch->nat ? endpoint->max_conns : batch->nat->share);
    if (endpoint->logged)
        batch_element(batch, v6 ? SET_LOGGED6 : SET_LOGGED4, add, &values, NULL);
    if (endpoint->silent)
        batch_element(batch, v6 ? SET_SILENT6 : SET_SILENT4, add, &values, NULL);
    if (endpoint->localhost && !v6)
        batch_element(batch, SET_LOCALHOST4, add, &values, NULL);
    if (endpoint->closed)
        batch_element(batch, v6 ? SET_CLOSED6 : SET_CLOSED4, add, &values, NULL);
}

static void batch_endpoint_policy(struct nat_batch *batch, const struct nat_endpoint *endpoint,
                                  bool add)
{
    const struct values values = {
        .interface = endpoint->host_interface,
        .policy_id = endpoint->policy_id,
        .policy_version = endpoint->policy_version,
    };

    if (endpoint->policy_id == 0)
        return;
    batch_element(batch, SET_POLICY_PUBLIC, add, &values, &values);
    batch_element(batch, SET_POLICY_PRIVATE, add, &values, &values);
}

/* One more address that the endpoint may send from. */
static void batch_source(struct nat_batch *batch, const struct nat_endpoint *endpoint,
                         const struct ip *ip, bool add)
{
    const struct values values = {
        .interface = endpoint->host_interface,
        .mac = &endpoint->mac,
        .ip = ip,
    };
    bool v6 = ip->family == AF_INET6;

    batch_element(batch, v6 ? SET_PORT6 : SET_PORT4, add, &values, NULL);
    if (!ip_is_unspecified(ip))
        batch_element(batch, v6 ? SET_FROM6 : SET_FROM4, add, &values, NULL);
}

/* The link-local address that the MAC makes (RFC 4291 appendix A). */
static struct ip link_local_of(const struct mac *mac)
{
    const uint8_t *bytes = mac->bytes;

    return (struct ip){.family = AF_INET6,
                       .bytes = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, bytes[0] ^ 2, bytes[1], bytes[2],
                                 0xff, 0xfe, bytes[3], bytes[4], bytes[5]}};
}

/* The unspecified address asks for an address, or whether one is free: rules let pass what does. */
static void batch_endpoint_sources(struct nat_batch *batch, const struct nat_endpoint *endpoint,
                                   bool add)
{
    const struct ip none4 = {.family = AF_INET};
    const struct ip none6 = {.family = AF_INET6};
    const struct ip link_local = link_local_of(&endpoint->mac);

    const struct values values = {.interface = endpoint->host_interface};

    if (!endpoint->host_interface[0])
        return;
    batch_element(batch, SET_DROPPED, add, &values, NULL);
    batch_element(batch, SET_DROPPED_PORT, add, &values, NULL);
    if (ip_is_set(&endpoint->ip)) {
        batch_source(batch, endpoint, &endpoint->ip, add);
        batch_source(batch, endpoint, &none4, add);
    }
    if (ip_is_set(&endpoint->ip6)) {
        batch_source(batch, endpoint, &endpoint->ip6, add);
        batch_source(batch, endpoint, &link_local, add);
        batch_source(batch, endpoint, &none6, add);
    }
}

void nat_batch_endpoint(struct nat_batch *batch, const struct nat_endpoint *endpoint, bool add)
{
    batch_endpoint_sources(batch, endpoint, add);
    batch_endpoint_policy(batch, endpoint, add);
    batch_endpoint_ip(batch, endpoint, &endpoint->ip, add);
    batch_endpoint_ip(batch, endpoint, &endpoint->ip6, add);
}

/* --- policies --- */

int nat_batch_policy(struct nat_batch *batch, const struct nat_policy *policy, bool add,
                     struct error *error)
{
    struct policy_object **policies =
        list_grow(batch->policies, batch->n_policies, sizeof(struct policy_object *));
    int result;

    if (!policies)
        return error_set(error, ENOMEM, "cannot prepare a policy");
    batch->policies = policies;
    result = policy_object_new(policy, add, &policies[batch->n_policies], error);
    if (result == 0)
        batch->n_policies++;
    return result;
}

/* --- ports --- */

static void batch_range(struct nat_batch *batch, const struct nat_port *port, enum set_id set,
                        const struct ip *target, bool add)
{
    struct values key = {.ip = &port->host_ip, .protocol = port->protocol};
    struct values data = {.ip = target};

    for (uint32_t i = 0; i < port->count; i++) {
        key.port = (uint16_t)(port->host_port + i);
        data.port = (uint16_t)(port->guest_port + i);
        batch_element(batch, set, add, &key, set_def_get(set)->data[0] ? &data : NULL);
    }
}

void nat_batch_port(struct nat_batch *batch, const struct nat_port *port, bool add)
{
    bool one = ip_is_set(&port->host_ip) && !ip_is_unspecified(&port->host_ip);
    bool on4 = port->host_ip.family != AF_INET6;
    bool on6 = port->host_ip.family != AF_INET;

    if (on4 && ip_is_set(&port->guest_ip))
        batch_range(batch, port, one ? SET_PUB4_AT : SET_PUB4, &port->guest_ip, add);
    /* Only who listens on every address of both families hears IPv4 for such a guest. */
    if (!ip_is_set(&port->host_ip) && !ip_is_set(&port->guest_ip) && ip_is_set(&port->guest_ip6))
        batch_range(batch, port, SET_RELAY4, &port->guest_ip6, add);
    if (on6 && ip_is_set(&port->guest_ip6))
        batch_range(batch, port, one ? SET_PUB6_AT : SET_PUB6, &port->guest_ip6, add);
    else if (on6 && ip_is_set(&port->guest_ip))
        batch_range(batch, port, one ? SET_RELAY6_AT : SET_RELAY6, &port->guest_ip, add);
}

/* --- messages --- */

static void put_value(struct nlmsghdr *message, uint16_t type, const void *value, size_t length)
{
    struct nlattr *nest = mnl_attr_nest_start(message, type);

    mnl_attr_put(message, NFTA_DATA_VALUE, length, value);
    mnl_attr_nest_end(message, nest);
}

static void put_policy(struct nlmsghdr *message, const struct nat_element *element)
{
    char chain[POLICY_NAME_MAX];
    uint64_t version;
    int64_t id;

    memcpy(&id, element->data, sizeof(id));
    memcpy(&version, element->data + 8, sizeof(version));
    policy_chain_name(id, version,
                      element->set == SET_POLICY_PUBLIC ? POLICY_PUBLIC : POLICY_PRIVATE, chain);
    struct nlattr *data = mnl_attr_nest_start(message, NFTA_SET_ELEM_DATA);
    struct nlattr *verdict = mnl_attr_nest_start(message, NFTA_DATA_VERDICT);
    mnl_attr_put_u32(message, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_GOTO));
    mnl_attr_put_strz(message, NFTA_VERDICT_CHAIN, chain);
    mnl_attr_nest_end(message, verdict);
    mnl_attr_nest_end(message, data);
}

static void put_element(struct nlmsghdr *message, const struct nat_element *element,
                        const struct counter *counter)
{
    struct nlattr *nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
    const struct set_def *def = set_def_get(element->set);
    size_t data = set_data_length(element->set);

    put_value(message, NFTA_SET_ELEM_KEY, element->key, set_key_length(element->set));
    if (def->ranges)
        put_value(message, NFTA_SET_ELEM_KEY_END, element->key_end, set_key_length(element->set));
    if (def->data[0] == FIELD_POLICY)
        put_policy(message, element);
    else if (data > 0)
        put_value(message, NFTA_SET_ELEM_DATA, element->data, data);
    if (element->add)
        counter_put(message, element, counter);
    mnl_attr_nest_end(message, nest);
}

/* What a message says of an element. */
enum manner {
    MANNER_AS_IS,
    MANNER_WAITING, /* an element that leads to a policy leads to the chain that drops */
    MANNER_LEAVING, /* only the elements that wait: deleted */
    MANNER_ARRIVING /* only these: added with what they lead to */
};

static bool leads_to_policy(const struct nat_element *element)
{
    return set_def_get(element->set)->data[0] == FIELD_POLICY;
}

/* How the elements of a batch are sent. */
struct sending {
    enum manner manner;
    const struct counters *counters; /* what they go on from; NULL: from 0 */
    struct nft_transaction *transaction;
};

static void put_element_as(struct nlmsghdr *message, const struct nat_element *element,
                           const struct sending *sending)
{
    const struct counter *counter =
        sending->counters ? counters_find(sending->counters, element) : NULL;
    struct nat_element waiting = *element;

    memset(waiting.data, 0, sizeof(waiting.data));
    put_element(message,
                sending->manner == MANNER_WAITING && leads_to_policy(element) ? &waiting : element,
                counter);
}

/* One message with as many of the elements as belong to the same set and fit. Returns how many. */
static size_t append_run(const struct nat_element *elements, size_t count,
                         const struct sending *sending)
{
    const struct nat_element *first = &elements[0];
    const char *set = set_def_get(first->set)->name;
    bool add = first->add && sending->manner != MANNER_LEAVING;
    uint8_t family = sending->transaction->family;
    size_t run = 1;

    while (run < count && run < ELEMENTS_ROOM / ELEMENT_ROOM && elements[run].set == first->set &&
           elements[run].add == first->add)
        run++;
    sending->transaction->family = ruleset_table_family(set_def_get(first->set)->table);
    struct nlmsghdr *message =
        nft_transaction_open(sending->transaction, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
                             add ? NLM_F_CREATE : 0, 256 + run * ELEMENT_ROOM, set);
    sending->transaction->family = family;
    if (!message)
        return run;
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set);
    struct nlattr *list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (size_t i = 0; i < run; i++)
        put_element_as(message, &elements[i], sending);
    mnl_attr_nest_end(message, list);
    nft_transaction_close(sending->transaction, message);
    return run;
}

static void append_elements(const struct nat_batch *batch, const struct sending *sending)
{
    bool all = sending->manner == MANNER_AS_IS || sending->manner == MANNER_WAITING;

    for (size_t at = 0; at < batch->count;) {
        if (all || leads_to_policy(&batch->elements[at]))
            at += append_run(&batch->elements[at], batch->count - at, sending);
        else
            at++;
    }
}

static void append_new_policies(const struct nat_batch *batch, struct nft_transaction *transaction)
{
    for (size_t i = 0; i < batch->n_policies; i++)
        if (batch->policies[i]->add)
            policy_object_append(batch->policies[i], true, transaction);
}

void nat_batch_append_policies(struct nat_batch *batch, struct nft_transaction *transaction)
{
    if (batch->failed)
        transaction->failed = true;
    append_new_policies(batch, transaction);
    openings_append(batch, false, transaction);
}

void nat_batch_append_elements(const struct nat_batch *batch, bool waiting,
                               const struct counters *counters, struct nft_transaction *transaction)
{
    const struct sending sending = {waiting ? MANNER_WAITING : MANNER_AS_IS, counters, transaction};

    if (batch->failed)
        transaction->failed = true;
    append_elements(batch, &sending);
}

void nat_batch_append_release(const struct nat_batch *batch, struct nft_transaction *transaction)
{
    append_elements(batch, &(struct sending){MANNER_LEAVING, NULL, transaction});
    append_elements(batch, &(struct sending){MANNER_ARRIVING, NULL, transaction});
}

/* --- commit --- */

/* Policies, with nothing that leads to them, and openings. */
static int commit_policies_once(struct nat_batch *batch, bool delete_first, struct error *error)
{
    struct nft_transaction transaction;

    nft_transaction_init(&transaction, NFPROTO_INET);
    if (batch->failed)
        transaction.failed = true;
    append_new_policies(batch, &transaction);
    openings_append(batch, delete_first, &transaction);
    int result = nft_socket_commit(batch->nat->socket, &transaction, error);
    nft_transaction_deinit(&transaction);
    return result;
}

/* An opening that was to be renewed by deleting it may be gone by then. */
static int commit_policies(struct nat_batch *batch, struct error *error)
{
    bool delete_first = !batch->nat->renews && openings_renew(batch);
    struct error refused = ERROR_INIT;
    int result = commit_policies_once(batch, delete_first, delete_first ? &refused : error);

    if (!delete_first || result == 0)
        return result;
    return commit_policies_once(batch, false, error);
}

/* Takes out what was added before. */
static int uncommit_policies(struct nat_batch *batch, struct error *error)
{
    struct nft_transaction transaction;

    nft_transaction_init(&transaction, NFPROTO_INET);
    for (size_t i = 0; i < batch->n_policies; i++)
        if (batch->policies[i]->add)
            policy_object_append(batch->policies[i], false, &transaction);
    int result = nft_socket_commit(batch->nat->socket, &transaction, error);
    nft_transaction_deinit(&transaction);
    return result;
}

static int commit_elements(struct nat_batch *batch, struct error *error)
{
    struct nft_transaction transaction;

    nft_transaction_init(&transaction, NFPROTO_INET);
    nat_batch_append_elements(batch, false, NULL, &transaction);
    for (size_t i = 0; i < batch->n_policies; i++)
        if (!batch->policies[i]->add)
            policy_object_append(batch->policies[i], false, &transaction);
    int result = nft_socket_commit(batch->nat->socket, &transaction, error);
    nft_transaction_deinit(&transaction);
    return result;
}

int nat_batch_commit(struct nat_batch *batch, struct error *error)
{
    struct error ignored = ERROR_INIT;
    int result = fault_point("nat.commit", error);

    if (result == 0)
        result = commit_policies(batch, error);
    if (result < 0)
        return result;
    if (batch->n_policies > 0)
        yield_if_due(); /* nothing leads to them yet */
    result = fault_point("nat.switch", error);
    if (result == 0)
        result = commit_elements(batch, error);
    if (result < 0 && uncommit_policies(batch, &ignored) < 0)
        log_warning("policies that nothing leads to stay until the next repair: %s", ignored.text);
    return result;
}
