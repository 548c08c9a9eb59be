/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A sweep over the addresses: the first and last addresses of all rules cut the address space into
 * intervals in which the same rules hold. For each interval the services (protocols and ports) that
 * pass are the allowed ones without the denied ones; neighbours with the same services are one. As
 * prefixes nest, n rules make at most 2n+1 intervals. */
#include "nat/policy_compile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/yield.h"

#define PORT_LAST 65535u

/* A rule as it stands in the address space. */
struct span {
    struct ip first;
    struct ip last;
    const struct policy_rule *rule;
    bool deny;
};

struct port_range {
    uint32_t first;
    uint32_t last;
};

struct port_list {
    struct port_range *items;
    size_t count;
};

struct services {
    struct port_list tcp;
    struct port_list udp;
    bool icmp;
    bool other;
};

struct sweep {
    uint8_t family;
    bool accepts; /* there are allow rules */
    bool no_dns;  /* DNS elsewhere is closed (policy_has_domains) */
    struct span *spans;
    size_t n_spans;
    struct ip *cuts; /* where an interval begins */
    size_t n_cuts;
    const struct span **active;
    size_t n_active;
    struct port_list allowed; /* scratch */
    struct port_list denied;
    struct services services; /* of the interval at hand */
    struct services pending;  /* of the intervals before, not written yet */
    struct ip pending_first;
    struct ip pending_last;
    bool has_pending;
    struct policy_table table;
    size_t capacity;
};

/* --- spans --- */

static struct ip family_edge(uint8_t family, uint8_t byte)
{
    struct ip ip = {.family = family};

    memset(ip.bytes, byte, ip_bits(family) / 8);
    return ip;
}

static bool rule_spans(const struct policy_rule *rule, enum policy_class class, uint8_t family,
                       struct span *span)
{
    span->first = family_edge(family, 0);
    span->last = family_edge(family, 0xff);
    span->rule = rule;
    switch (rule->destination) {
    case RULE_ANY:
        return true;
    case RULE_PUBLIC:
        return class == POLICY_PUBLIC;
    case RULE_PRIVATE:
        return class == POLICY_PRIVATE;
    case RULE_PREFIX:
        span->first = cidr_first(&rule->prefix);
        span->last = cidr_last(&rule->prefix);
        return rule->prefix.ip.family == family;
    case RULE_NAME:
    case RULE_BELOW:
    case RULE_BOTH:
        break;
    }
    return false;
}

static void add_spans(struct sweep *sweep, const struct policy_rules *rules, bool deny,
                      enum policy_class class)
{
    for (size_t i = 0; i < rules->count; i++) {
        struct span *span = &sweep->spans[sweep->n_spans];

        span->deny = deny;
        if (rule_spans(&rules->items[i], class, sweep->family, span))
            sweep->n_spans++;
    }
}

static int span_compare(const void *a, const void *b)
{
    return ip_compare(&((const struct span *)a)->first, &((const struct span *)b)->first);
}

static int ip_order(const void *a, const void *b)
{
    return ip_compare(a, b);
}

static void find_cuts(struct sweep *sweep)
{
    struct ip top = family_edge(sweep->family, 0xff);
    size_t count = 0;

    if (sweep->no_dns && !sweep->accepts) /* something is denied everywhere */
        sweep->cuts[count++] = family_edge(sweep->family, 0);
    for (size_t i = 0; i < sweep->n_spans; i++) {
        sweep->cuts[count++] = sweep->spans[i].first;
        if (!ip_equal(&sweep->spans[i].last, &top))
            sweep->cuts[count++] = ip_add(&sweep->spans[i].last, 1);
    }
    if (count > 0)
        qsort(sweep->cuts, count, sizeof(*sweep->cuts), ip_order);
    for (size_t i = 0; i < count; i++)
        if (sweep->n_cuts == 0 || !ip_equal(&sweep->cuts[sweep->n_cuts - 1], &sweep->cuts[i]))
            sweep->cuts[sweep->n_cuts++] = sweep->cuts[i];
}

/* --- services of an interval --- */

/* What a rule without a port opens where DNS elsewhere is closed. */
static const struct port_range but_dns[] = {{0, 52}, {54, 852}, {854, PORT_LAST}};
static const struct port_range only_dns[] = {{53, 53}, {853, 853}};

static int port_compare(const void *a, const void *b)
{
    const struct port_range *one = a;
    const struct port_range *other = b;

    return one->first < other->first ? -1 : one->first > other->first;
}

/* Sorts, and joins what overlaps or touches. */
static void ports_join(struct port_list *list)
{
    size_t kept = 0;

    if (list->count > 1)
        qsort(list->items, list->count, sizeof(*list->items), port_compare);
    for (size_t i = 0; i < list->count; i++) {
        struct port_range *last = kept ? &list->items[kept - 1] : NULL;

        if (last && list->items[i].first <= last->last + 1)
            last->last = last->last > list->items[i].last ? last->last : list->items[i].last;
        else
            list->items[kept++] = list->items[i];
    }
    list->count = kept;
}

/* from − what, both joined. */
static void ports_subtract(const struct port_list *from, const struct port_list *what,
                           struct port_list *result)
{
    size_t at = 0;

    result->count = 0;
    for (size_t i = 0; i < from->count; i++) {
        uint32_t first = from->items[i].first;
        uint32_t last = from->items[i].last;

        while (at < what->count && what->items[at].last < first)
            at++;
        for (size_t j = at; j < what->count && what->items[j].first <= last; j++) {
            if (what->items[j].first > first)
                result->items[result->count++] =
                    (struct port_range){first, what->items[j].first - 1};
            first = what->items[j].last + 1;
        }
        if (first <= last)
            result->items[result->count++] = (struct port_range){first, last};
    }
}

static void ports_add(struct port_list *list, const struct port_range *ranges, size_t count)
{
    memcpy(list->items + list->count, ranges, count * sizeof(*ranges));
    list->count += count;
}

static void collect_ports(struct sweep *sweep, uint8_t protocol, bool deny, struct port_list *list)
{
    static const struct port_range all = {0, PORT_LAST};
    bool whole = false; /* a rule without a port was there: its ranges once are enough */

    list->count = 0;
    for (size_t i = 0; i < sweep->n_active; i++) {
        const struct policy_rule *rule = sweep->active[i]->rule;

        if (sweep->active[i]->deny != deny || (rule->protocol && rule->protocol != protocol))
            continue;
        if (rule->port)
            list->items[list->count++] = (struct port_range){rule->port, rule->port_end};
        whole |= !rule->port;
    }
    if (whole && sweep->no_dns && !deny)
        ports_add(list, but_dns, ARRAY_SIZE(but_dns));
    else if (whole)
        ports_add(list, &all, 1);
    if (sweep->no_dns && deny && !sweep->accepts)
        ports_add(list, only_dns, ARRAY_SIZE(only_dns));
    ports_join(list);
}

static void compute_ports(struct sweep *sweep, uint8_t protocol, struct port_list *result)
{
    sweep->allowed.count = 0;
    collect_ports(sweep, protocol, true, &sweep->denied);
    if (sweep->accepts) {
        collect_ports(sweep, protocol, false, &sweep->allowed);
        ports_subtract(&sweep->allowed, &sweep->denied, result);
        return;
    }
    memcpy(result->items, sweep->denied.items, sweep->denied.count * sizeof(*result->items));
    result->count = sweep->denied.count;
}

/* Protocols without ports: protocol 0 stands for all but TCP, UDP and ICMP. */
static bool compute_portless(const struct sweep *sweep, uint8_t protocol)
{
    bool allowed = false;
    bool denied = false;

    for (size_t i = 0; i < sweep->n_active; i++) {
        const struct policy_rule *rule = sweep->active[i]->rule;

        if (rule->port || (rule->protocol && rule->protocol != protocol))
            continue;
        if (sweep->active[i]->deny)
            denied = true;
        else
            allowed = true;
    }
    return sweep->accepts ? allowed && !denied : denied;
}

static void compute_services(struct sweep *sweep)
{
    compute_ports(sweep, IPPROTO_TCP, &sweep->services.tcp);
    compute_ports(sweep, IPPROTO_UDP, &sweep->services.udp);
    sweep->services.icmp = compute_portless(sweep, IPPROTO_ICMP);
    sweep->services.other = compute_portless(sweep, 0);
}

static bool ports_equal(const struct port_list *a, const struct port_list *b)
{
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->items, b->items, a->count * sizeof(*a->items)) == 0);
}

static bool services_equal(const struct services *a, const struct services *b)
{
    return a->icmp == b->icmp && a->other == b->other && ports_equal(&a->tcp, &b->tcp) &&
           ports_equal(&a->udp, &b->udp);
}

/* --- ranges --- */

static int emit(struct sweep *sweep, unsigned protocol_first, unsigned protocol_last,
                const struct port_range *ports)
{
    struct policy_table *table = &sweep->table;

    if (table->count == POLICY_TABLE_MAX)
        return -E2BIG;
    if (table->count == sweep->capacity) {
        size_t capacity = sweep->capacity ? sweep->capacity * 2 : 64;
        struct policy_range *items = reallocarray(table->items, capacity, sizeof(*items));

        if (!items)
            return -ENOMEM;
        table->items = items;
        sweep->capacity = capacity;
    }
    table->items[table->count++] = (struct policy_range){
        .first = sweep->pending_first,
        .last = sweep->pending_last,
        .protocol_first = (uint8_t)protocol_first,
        .protocol_last = (uint8_t)protocol_last,
        .port_first = (uint16_t)ports->first,
        .port_last = (uint16_t)ports->last,
    };
    return 0;
}

static bool ports_are_all(const struct port_list *list)
{
    return list->count == 1 && list->items[0].first == 0 && list->items[0].last == PORT_LAST;
}

/* Is the whole protocol in, whatever port? */
static bool is_whole(const struct sweep *sweep, unsigned protocol)
{
    const struct services *services = &sweep->pending;

    if (protocol == IPPROTO_TCP)
        return ports_are_all(&services->tcp);
    if (protocol == IPPROTO_UDP)
        return ports_are_all(&services->udp);
    if (protocol == (sweep->family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6))
        return services->icmp;
    return services->other;
}

/* Where the protocols that a policy tells apart begin, in both families. */
static const uint16_t protocol_marks[] = {
    0,           IPPROTO_ICMP,    IPPROTO_ICMP + 1, IPPROTO_TCP,        IPPROTO_TCP + 1,
    IPPROTO_UDP, IPPROTO_UDP + 1, IPPROTO_ICMPV6,   IPPROTO_ICMPV6 + 1, 256,
};

static int emit_whole(struct sweep *sweep)
{
    static const struct port_range all = {0, PORT_LAST};
    const uint16_t *mark = protocol_marks;
    int result = 0;

    while (result == 0 && *mark < 256) {
        unsigned first = *mark;

        while (*mark < 256 && is_whole(sweep, *mark))
            mark++;
        if (*mark > first)
            result = emit(sweep, first, *mark - 1u, &all);
        else
            mark++;
    }
    return result;
}

static int emit_ports(struct sweep *sweep, uint8_t protocol, const struct port_list *list)
{
    int result = 0;

    for (size_t i = 0; result == 0 && !ports_are_all(list) && i < list->count; i++)
        result = emit(sweep, protocol, protocol, &list->items[i]);
    return result;
}

static int emit_pending(struct sweep *sweep)
{
    int result;

    if (!sweep->has_pending)
        return 0;
    sweep->has_pending = false;
    result = emit_whole(sweep);
    if (result == 0)
        result = emit_ports(sweep, IPPROTO_TCP, &sweep->pending.tcp);
    if (result == 0)
        result = emit_ports(sweep, IPPROTO_UDP, &sweep->pending.udp);
    return result;
}

/* --- the sweep --- */

static void update_active(struct sweep *sweep, const struct ip *cut, size_t *next)
{
    size_t kept = 0;

    for (size_t i = 0; i < sweep->n_active; i++)
        if (ip_compare(&sweep->active[i]->last, cut) >= 0)
            sweep->active[kept++] = sweep->active[i];
    while (*next < sweep->n_spans && ip_equal(&sweep->spans[*next].first, cut))
        sweep->active[kept++] = &sweep->spans[(*next)++];
    sweep->n_active = kept;
}

static int take_interval(struct sweep *sweep, const struct ip *first, const struct ip *last)
{
    int result;

    compute_services(sweep);
    if (sweep->has_pending && services_equal(&sweep->services, &sweep->pending)) {
        sweep->pending_last = *last;
        return 0;
    }
    result = emit_pending(sweep);
    struct services former = sweep->pending;
    sweep->pending = sweep->services;
    sweep->services = former;
    sweep->pending_first = *first;
    sweep->pending_last = *last;
    sweep->has_pending = true;
    return result;
}

static int sweep_run(struct sweep *sweep)
{
    size_t next = 0;
    int result = 0;

    for (size_t i = 0; result == 0 && i < sweep->n_cuts; i++) {
        struct ip last = i + 1 < sweep->n_cuts ? ip_add(&sweep->cuts[i + 1], -1)
                                               : family_edge(sweep->family, 0xff);

        update_active(sweep, &sweep->cuts[i], &next);
        result = take_interval(sweep, &sweep->cuts[i], &last);
        yield_if_due();
    }
    return result == 0 ? emit_pending(sweep) : result;
}

static bool ports_allocate(struct port_list *list, size_t count)
{
    list->items = calloc(count, sizeof(*list->items));
    return list->items;
}

static bool sweep_allocate(struct sweep *sweep, size_t n_rules)
{
    size_t count = n_rules + 1 + ARRAY_SIZE(but_dns); /* spans, or ranges of ports of them */

    sweep->spans = calloc(count, sizeof(*sweep->spans));
    sweep->cuts = calloc(2 * count, sizeof(*sweep->cuts));
    sweep->active = calloc(count, sizeof(*sweep->active));
    return sweep->spans && sweep->cuts && sweep->active && ports_allocate(&sweep->allowed, count) &&
           ports_allocate(&sweep->denied, count) &&
           ports_allocate(&sweep->services.tcp, 2 * count) &&
           ports_allocate(&sweep->services.udp, 2 * count) &&
           ports_allocate(&sweep->pending.tcp, 2 * count) &&
           ports_allocate(&sweep->pending.udp, 2 * count);
}

static void sweep_deinit(struct sweep *sweep)
{
    free(sweep->spans);
    free(sweep->cuts);
    free(sweep->active);
    free(sweep->allowed.items);
    free(sweep->denied.items);
    free(sweep->services.tcp.items);
    free(sweep->services.udp.items);
    free(sweep->pending.tcp.items);
    free(sweep->pending.udp.items);
    policy_table_deinit(&sweep->table);
}

int policy_compile(const struct policy_rules *allow, const struct policy_rules *deny,
                   enum policy_class class, uint8_t family, struct policy_table *ret_table)
{
    struct sweep sweep = {
        .family = family, .accepts = allow->count > 0, .no_dns = policy_has_domains(allow, deny)};
    int result = -ENOMEM;

    if (sweep_allocate(&sweep, allow->count + deny->count)) {
        add_spans(&sweep, allow, false, class);
        add_spans(&sweep, deny, true, class);
        if (sweep.n_spans > 1)
            qsort(sweep.spans, sweep.n_spans, sizeof(*sweep.spans), span_compare);
        find_cuts(&sweep);
        result = sweep_run(&sweep);
    }
    if (result == 0)
        *ret_table = TAKE_STRUCT(sweep.table);
    sweep_deinit(&sweep);
    return result;
}

void policy_table_deinit(struct policy_table *table)
{
    free(table->items);
    *table = (struct policy_table){0};
}
