/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A gap: somebody else took rules of ours away, and until they were back connections came about as
 * if there were none. Established connections are never asked again, so each one that the rules
 * would have refused, or would have led elsewhere, is forgotten by the kernel's connection
 * tracking here: its next packet is a new one to the rules, refused or translated.
 *
 * Nothing in an entry says when it was made. What decides is whether it may be as it is:
 *   from a guest           its policy, its network (internal, isolated, passages), the other
 *                          guest's mode; to the outside only with the host's address
 *   to a guest, or within  the guest's mode; from outside only through a published port
 *   to a port of the host  not where it is published: then it should have been translated
 *   from nobody            of a network, but from no address that a guest was given
 * An entry without an address of ours is none of our business but for the third. So a connection
 * goes on that was opened rightly and is translated. One that was allowed when it was opened, and
 * no longer is, ends like one of the gap. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

#define DNS_PORT 53
#define DHCP4_PORT 67
#define DHCP6_PORT 547
#define NAMES_MAX 64

struct subnet {
    struct cidr cidr;
    const struct network *network;
};

struct address {
    struct ip ip;
    const struct guest_plan *plan;
    size_t guest; /* index of its rules */
    size_t index; /* of the endpoint */
};

struct rules {
    struct policy_rules allow;
    struct policy_rules deny;
};

/* One port of the host that is published. */
struct published {
    uint16_t number;
    uint8_t protocol;
    struct nat_port port;
};

struct gap {
    struct service *service;
    struct subnet *subnets; /* sorted; subnets of ours don't overlap */
    size_t n_subnets;
    struct address *addresses; /* sorted */
    size_t n_addresses;
    struct published *published; /* sorted by protocol and number */
    size_t n_published;
    struct passage *passages;
    size_t n_passages;
    struct rules *rules; /* one for each guest */
    size_t n_rules;
    size_t ended;
};

/* --- what there is --- */

static void gap_deinit(struct gap *gap)
{
    for (size_t i = 0; i < gap->n_rules; i++) {
        policy_rules_deinit(&gap->rules[i].allow);
        policy_rules_deinit(&gap->rules[i].deny);
    }
    free(gap->rules);
    free(gap->subnets);
    free(gap->addresses);
    free(gap->published);
    free(gap->passages);
}

static int subnet_compare(const void *a, const void *b)
{
    const struct subnet *one = a;
    const struct subnet *other = b;

    return ip_compare(&one->cidr.ip, &other->cidr.ip);
}

static int address_compare(const void *a, const void *b)
{
    const struct address *one = a;
    const struct address *other = b;

    return ip_compare(&one->ip, &other->ip);
}

static int published_compare(const void *a, const void *b)
{
    const struct published *one = a;
    const struct published *other = b;

    if (one->protocol != other->protocol)
        return one->protocol < other->protocol ? -1 : 1;
    return one->number < other->number ? -1 : one->number > other->number;
}

static void add_subnet(struct gap *gap, const struct network *network, const struct cidr *cidr)
{
    if (cidr_is_set(cidr))
        gap->subnets[gap->n_subnets++] = (struct subnet){*cidr, network};
}

static int collect_subnets(struct gap *gap, const struct network *networks, size_t count)
{
    gap->subnets = calloc(2 * count + 1, sizeof(*gap->subnets));
    if (!gap->subnets)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        add_subnet(gap, &networks[i], &networks[i].subnet);
        add_subnet(gap, &networks[i], &networks[i].subnet6);
    }
    qsort(gap->subnets, gap->n_subnets, sizeof(*gap->subnets), subnet_compare);
    return 0;
}

static void add_address(struct gap *gap, const struct guest_plan *plan, size_t guest, size_t index,
                        const struct ip *ip)
{
    if (ip_is_set(ip))
        gap->addresses[gap->n_addresses++] = (struct address){*ip, plan, guest, index};
}

static int collect_addresses(struct gap *gap, const struct guest_plan *plans, size_t count)
{
    size_t endpoints = 0;

    for (size_t i = 0; i < count; i++)
        endpoints += plans[i].guest->n_endpoints;
    gap->addresses = calloc(2 * endpoints + 1, sizeof(*gap->addresses));
    if (!gap->addresses)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < plans[i].guest->n_endpoints; j++) {
            add_address(gap, &plans[i], i, j, &plans[i].guest->endpoints[j].ip);
            add_address(gap, &plans[i], i, j, &plans[i].guest->endpoints[j].ip6);
        }
    }
    qsort(gap->addresses, gap->n_addresses, sizeof(*gap->addresses), address_compare);
    return 0;
}

static void add_published(struct gap *gap, const struct guest_plan *plan, const struct port *port)
{
    struct nat_port nat;

    plan_nat_port(plan, port, &nat);
    for (uint32_t i = 0; i < nat.count; i++)
        gap->published[gap->n_published++] =
            (struct published){(uint16_t)(nat.host_port + i), nat.protocol, nat};
}

static int collect_published(struct gap *gap, const struct guest_plan *plans, size_t count)
{
    size_t numbers = 0;

    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < plans[i].guest->n_ports; j++)
            numbers += plans[i].guest->ports[j].count;
    gap->published = calloc(numbers + 1, sizeof(*gap->published));
    if (!gap->published)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < plans[i].guest->n_ports; j++)
            if (!port_is_waiting(gap->service, &plans[i].guest->ports[j]))
                add_published(gap, &plans[i], &plans[i].guest->ports[j]);
    qsort(gap->published, gap->n_published, sizeof(*gap->published), published_compare);
    return 0;
}

static int collect_rules(struct gap *gap, const struct guest_plan *plans, size_t count,
                         struct error *error)
{
    int r = 0;

    gap->rules = calloc(count + 1, sizeof(*gap->rules));
    if (!gap->rules)
        return error_set(error, ENOMEM, "gap");
    for (size_t i = 0; r >= 0 && i < count; i++) {
        const struct policy *policy = &plans[i].guest->policy;

        gap->n_rules++;
        r = policy_rules_parse(&policy->allow, "allow", &gap->rules[i].allow, error);
        if (r >= 0)
            r = policy_rules_parse(&policy->deny, "deny", &gap->rules[i].deny, error);
    }
    return r;
}

/* --- finding --- */

static const struct network *network_find_by_ip(const struct gap *gap, const struct ip *ip)
{
    size_t from = 0;
    size_t to = gap->n_subnets;

    while (from < to) { /* the last one that does not begin behind it */
        size_t middle = from + (to - from) / 2;

        if (ip_compare(&gap->subnets[middle].cidr.ip, ip) > 0)
            to = middle;
        else
            from = middle + 1;
    }
    return from > 0 && cidr_contains_ip(&gap->subnets[from - 1].cidr, ip)
               ? gap->subnets[from - 1].network
               : NULL;
}

static const struct address *address_find(const struct gap *gap, const struct ip *ip)
{
    const struct address wanted = {.ip = *ip};

    return gap->n_addresses ? bsearch(&wanted, gap->addresses, gap->n_addresses,
                                      sizeof(*gap->addresses), address_compare)
                            : NULL;
}

/* The first of those with this protocol and number, or where it would be. */
static size_t published_find(const struct gap *gap, uint8_t protocol, uint16_t number)
{
    const struct published wanted = {.protocol = protocol, .number = number};
    size_t from = 0;
    size_t to = gap->n_published;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (published_compare(&gap->published[middle], &wanted) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static const struct ip *target_of(const struct nat_port *port, uint8_t family)
{
    return family == AF_INET6 ? &port->guest_ip6 : &port->guest_ip;
}

/* Is the port of this address published, with (or without) a guest's address of that family? */
static bool is_published_at(const struct gap *gap, uint8_t protocol, const struct ip *ip,
                            uint16_t number, bool translated)
{
    for (size_t i = published_find(gap, protocol, number);
         i < gap->n_published && gap->published[i].protocol == protocol &&
         gap->published[i].number == number;
         i++) {
        const struct nat_port *port = &gap->published[i].port;

        if (ip_bindings_overlap(&port->host_ip, ip) &&
            ip_is_set(target_of(port, ip->family)) == translated)
            return true;
    }
    return false;
}

static bool is_published(const struct gap *gap, const struct conntrack_flow *flow, bool translated)
{
    return is_published_at(gap, flow->protocol, &flow->destination, flow->port, translated);
}

static bool is_gateway(const struct network *network, const struct ip *ip)
{
    return network && (ip_equal(&network->gateway, ip) || ip_equal(&network->gateway6, ip));
}

/* --- judging --- */

struct judgement {
    const struct gap *gap;
    struct conntrack *conntrack;
    const struct conntrack_flow *flow;
    const struct network *from; /* the network that the source is of; NULL: not ours */
    const struct address *source;
    const struct network *to; /* who answers is of */
    const struct address *server;
};

static bool is_local(const struct judgement *judgement, const struct ip *ip)
{
    return conntrack_address_is_local(judgement->conntrack, ip);
}

/* It went to the host itself, where the rules would have led it to a guest. The relay worker has
 * what they can't translate. */
static bool missed_its_guest(const struct judgement *judgement)
{
    const struct conntrack_flow *flow = judgement->flow;

    return !flow->published && is_published(judgement->gap, flow, true) &&
           !(flow->destination.family == AF_INET6 && ip_is_loopback(&flow->destination)) &&
           is_local(judgement, &flow->destination);
}

/* An answer of the relay that was under way when its entry was forgotten looks like a connection
 * that the host opened, and would keep the client's next packets from translation. */
static bool answers_in_its_place(const struct judgement *judgement)
{
    const struct conntrack_flow *flow = judgement->flow;

    return is_published_at(judgement->gap, flow->protocol, &flow->source, flow->source_port,
                           true) &&
           !(flow->source.family == AF_INET6 && ip_is_loopback(&flow->source)) &&
           is_local(judgement, &flow->source);
}

static bool is_echo(const struct conntrack_flow *flow)
{
    return flow->protocol == IPPROTO_ICMP || flow->protocol == IPPROTO_ICMPV6;
}

/* What every guest has of its own network, before its policy: names, addresses, neighbours. */
static bool is_for_everybody(const struct judgement *judgement)
{
    static const struct ip broadcast = {.family = AF_INET, .bytes = {255, 255, 255, 255}};
    const struct conntrack_flow *flow = judgement->flow;
    bool udp = flow->protocol == IPPROTO_UDP;

    if (ip_is_multicast(&flow->destination) || ip_equal(&flow->destination, &broadcast))
        return true;
    if (flow->destination.family == AF_INET6 && ip_is_link_local(&flow->destination))
        return true;
    return is_gateway(judgement->from, &flow->destination) &&
           ((judgement->from->dns && flow->port == DNS_PORT) ||
            (udp && (flow->port == DHCP4_PORT || flow->port == DHCP6_PORT)));
}

static bool policy_lets(const struct judgement *judgement)
{
    const struct gap *gap = judgement->gap;
    const struct conntrack_flow *flow = judgement->flow;
    const struct guest *guest = judgement->source->plan->guest;
    const struct rules *rules = &gap->rules[judgement->source->guest];
    const char *names[NAMES_MAX];
    struct policy_flow asked = {
        .ip = flow->destination,
        .protocol = flow->protocol,
        .port = flow->port,
        .names = names,
    };

    if (!policy_has_rules(&guest->policy))
        return true;
    asked.own =
        network_find_by_ip(gap, &flow->destination) || is_local(judgement, &flow->destination);
    asked.n_names =
        domain_names_find(gap->service, guest->id, &flow->destination, false, names, NAMES_MAX);
    return policy_allows(&rules->allow, &rules->deny, &asked, NULL);
}

static bool is_closed(const struct address *address)
{
    return address && address->plan->guest->mode == MODE_OUTBOUND;
}

static bool passage_lets(const struct judgement *judgement)
{
    const struct conntrack_flow *flow = judgement->flow;

    for (size_t i = 0; i < judgement->gap->n_passages; i++) {
        const struct passage *passage = &judgement->gap->passages[i];

        if (passage->from_id != judgement->from->id || passage->to_id != judgement->to->id)
            continue;
        if (span_is_everything(&passage->span) ||
            (passage->span.protocol == flow->protocol && passage->span.first <= flow->server_port &&
             flow->server_port <= passage->span.last))
            return true;
    }
    return false;
}

/* From a network of ours to a guest of one; as the chain `forward` has it (nat/rules_filter.c). */
static bool forward_lets(const struct judgement *judgement)
{
    if (is_closed(judgement->server))
        return false;
    if (judgement->from == judgement->to && !judgement->from->isolated)
        return true;
    if (judgement->from != judgement->to && passage_lets(judgement))
        return true;
    return !judgement->from->internal && !judgement->to->internal && judgement->flow->published;
}

/* From a guest to the host itself; as the chain `from_guest` has it. */
static bool host_lets(const struct judgement *judgement)
{
    const struct network *network = judgement->from;
    const struct conntrack_flow *flow = judgement->flow;
    bool own = is_gateway(network, &flow->server);

    if (judgement->to && !own)
        return false; /* another network's gateway */
    if (missed_its_guest(judgement))
        return false;
    if (network->host_access || (own && is_echo(flow)))
        return true;
    if (own && network->dns && flow->server_port == DNS_PORT)
        return true; /* by way of its localhost */
    return !network->internal && (is_echo(flow) || is_published(judgement->gap, flow, false));
}

static bool guest_may(const struct judgement *judgement)
{
    const struct conntrack_flow *flow = judgement->flow;

    if (is_for_everybody(judgement))
        return true;
    if (!policy_lets(judgement))
        return false;
    if (judgement->to && !is_gateway(judgement->to, &flow->server))
        return forward_lets(judgement);
    if (judgement->to)
        return host_lets(judgement);
    if (flow->masqueraded)
        return !judgement->from->internal;
    return is_local(judgement, &flow->server) && host_lets(judgement);
}

/* From the host or the outside to a guest, or to an address that a guest could have. */
static bool may_reach_guest(const struct judgement *judgement)
{
    if (is_closed(judgement->server))
        return false;
    if (judgement->flow->published && !judgement->to->internal)
        return true;
    return is_local(judgement, &judgement->flow->source);
}

static bool may_be(const struct judgement *judgement)
{
    const struct conntrack_flow *flow = judgement->flow;

    if (answers_in_its_place(judgement))
        return false;
    if (judgement->from && !is_gateway(judgement->from, &flow->source))
        return judgement->source && guest_may(judgement);
    if (judgement->to && !is_gateway(judgement->to, &flow->server))
        return may_reach_guest(judgement);
    if (judgement->to)
        return is_local(judgement, &flow->source);
    return !missed_its_guest(judgement);
}

/* Called by another thread, while this one waits. */
static bool ends(void *userdata, struct conntrack *conntrack, const struct conntrack_flow *flow)
{
    struct gap *gap = userdata;
    const struct judgement judgement = {
        .gap = gap,
        .conntrack = conntrack,
        .flow = flow,
        .from = network_find_by_ip(gap, &flow->source),
        .source = address_find(gap, &flow->source),
        .to = network_find_by_ip(gap, &flow->server),
        .server = address_find(gap, &flow->server),
    };

    if (may_be(&judgement))
        return false;
    gap->ended++;
    return true;
}

int gap_close(struct service *service, const struct network *networks, size_t n_networks,
              const struct guest_plan *plans, size_t n_plans, size_t *ret_ended,
              struct error *error)
{
    _cleanup_(gap_deinit) struct gap gap = {.service = service};
    int r = collect_rules(&gap, plans, n_plans, error);

    if (r >= 0 && (collect_subnets(&gap, networks, n_networks) < 0 ||
                   collect_addresses(&gap, plans, n_plans) < 0 ||
                   collect_published(&gap, plans, n_plans) < 0))
        r = error_set(error, ENOMEM, "gap");
    if (r >= 0)
        r = store_passage_list(service->store, 0, &gap.passages, &gap.n_passages, error);
    if (r >= 0)
        r = conntrack_cut(service->conntrack, ends, &gap, error);
    if (r >= 0)
        *ret_ended = gap.ended;
    return r;
}
