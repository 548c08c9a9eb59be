/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "service/learn_rules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/rule.h"

/* Flows of one destination, sorted by protocol and port. */
struct group {
    const struct learnt_flow *flows;
    size_t count;
    struct strings *rules;
};

static int destination_compare(const struct learnt_flow *a, const struct learnt_flow *b)
{
    if (a->name && b->name)
        return strcmp(a->name, b->name);
    if (a->name || b->name)
        return a->name ? -1 : 1;
    return ip_compare(&a->ip, &b->ip);
}

static int service_compare(const void *a, const void *b)
{
    const struct learnt_flow *one = a;
    const struct learnt_flow *other = b;
    int order = one->protocol - other->protocol;

    return order == 0 ? one->port - other->port : order;
}

static int flow_compare(const void *a, const void *b)
{
    const struct learnt_flow *one = a;
    const struct learnt_flow *other = b;
    int order = destination_compare(one, other);

    return order == 0 ? service_compare(one, other) : order;
}

static bool is_icmp(const struct learnt_flow *flow)
{
    return flow->protocol == IPPROTO_ICMP || flow->protocol == IPPROTO_ICMPV6;
}

static bool group_has(const struct group *group, uint8_t protocol, uint32_t port)
{
    const struct learnt_flow wanted = {.protocol = protocol, .port = (uint16_t)port};

    return bsearch(&wanted, group->flows, group->count, sizeof(wanted), service_compare);
}

/* --- rules --- */

static int add_rule(const struct group *group, uint8_t protocol, uint32_t first, uint32_t last)
{
    const struct learnt_flow *flow = &group->flows[0];
    struct policy_rule rule = {
        .destination = flow->name ? RULE_NAME : RULE_PREFIX,
        .prefix = {flow->ip, (uint8_t)ip_bits(flow->ip.family)},
        .protocol = protocol,
        .port = (uint16_t)first,
        .port_end = (uint16_t)last,
    };
    char text[RULE_TEXT_MAX];

    if (flow->name)
        snprintf(rule.name, sizeof(rule.name), "%s", flow->name);
    return strings_add(group->rules, policy_rule_format(&rule, text));
}

/* Is this port one of those that the rules of this protocol (0: of both) are made of? */
static bool belongs(const struct group *group, uint8_t protocol, uint32_t port)
{
    bool tcp = group_has(group, IPPROTO_TCP, port);
    bool udp = group_has(group, IPPROTO_UDP, port);

    if (protocol == 0)
        return tcp && udp;
    return protocol == IPPROTO_TCP ? tcp && !udp : udp && !tcp;
}

/* Ranges of ports; flows of TCP stand before those of UDP, each in order. */
static int add_ports(const struct group *group, uint8_t protocol)
{
    uint8_t by = protocol == IPPROTO_UDP ? IPPROTO_UDP : IPPROTO_TCP;
    uint32_t first = 0;
    uint32_t last = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < group->count; i++) {
        uint32_t port = group->flows[i].port;

        if (group->flows[i].protocol != by || port == 0 || !belongs(group, protocol, port))
            continue;
        if (first && port <= last + 1) { /* the same for another family, or the next */
            last = port;
            continue;
        }
        if (first)
            r = add_rule(group, protocol, first, last);
        first = last = port;
    }
    return r == 0 && first ? add_rule(group, protocol, first, last) : r;
}

static int add_group(const struct group *group)
{
    bool icmp = false;
    int r = 0;

    for (size_t i = 0; i < group->count; i++) {
        const struct learnt_flow *flow = &group->flows[i];

        icmp = icmp || is_icmp(flow);
        if (!is_icmp(flow) && flow->port == 0)
            return add_rule(group, 0, 0, 0); /* another protocol, or a port that rules can't name */
    }
    r = add_ports(group, 0);
    if (r == 0)
        r = add_ports(group, IPPROTO_TCP);
    if (r == 0)
        r = add_ports(group, IPPROTO_UDP);
    if (r == 0 && icmp)
        r = add_rule(group, IPPROTO_ICMP, 0, 0);
    return r;
}

/* --- groups --- */

static size_t group_end(const struct learnt_flow *flows, size_t first, size_t count)
{
    size_t end = first + 1;

    while (end < count && destination_compare(&flows[first], &flows[end]) == 0)
        end++;
    return end;
}

int learn_rules_make(const struct learnt_flow *flows, size_t count, struct strings *ret_rules)
{
    _cleanup_free_ struct learnt_flow *sorted = calloc(count + 1, sizeof(*sorted));
    struct strings rules = {0};
    int r = sorted ? 0 : -ENOMEM;

    if (sorted && count > 0) {
        memcpy(sorted, flows, count * sizeof(*sorted));
        qsort(sorted, count, sizeof(*sorted), flow_compare);
    }
    for (size_t first = 0; r == 0 && first < count;) {
        size_t end = group_end(sorted, first, count);
        struct group group = {&sorted[first], end - first, &rules};

        r = add_group(&group);
        first = end;
    }
    if (r == 0)
        *ret_rules = rules;
    else
        strings_deinit(&rules);
    return r;
}
