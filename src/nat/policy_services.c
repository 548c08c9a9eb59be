/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ports and protocols that rules have (their *kinds*) are marks on the line of all protocols
 * and, for TCP and UDP, on the line of ports. Between two marks lies a cell; its signature is the
 * set of kinds that cover it, for IPv4 and for IPv6, since icmp is another protocol in each. Cells
 * with one signature are one service. */
#include "nat/policy_services.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PORT_LAST 65535u
#define DNS_BIT (UINT64_C(1) << 63)
#define DNS_MARKS 4
#define MARKS_MAX (2 * POLICY_SERVICES_KINDS_MAX + DNS_MARKS + 1)
#define RANGES_MAX (2 * MARKS_MAX + 8)

static_assert(POLICY_SERVICES_KINDS_MAX < 63, "bits of a signature");

struct signature {
    uint64_t v4;
    uint64_t v6;
};

struct cutter {
    struct policy_rule kinds[POLICY_SERVICES_KINDS_MAX]; /* destinations don't count */
    size_t n_kinds;
    uint32_t marks[MARKS_MAX]; /* where a cell begins */
    size_t n_marks;
    struct signature signatures[POLICY_SERVICES_MAX]; /* of each service */
    struct policy_service_range ranges[RANGES_MAX];
    size_t n_ranges;
    struct policy_services *services;
    bool full; /* there would be more services */
};

/* --- kinds --- */

/* A name that is denied whole is never resolved, so that nothing of it is to be closed. */
static bool counts(const struct policy_rule *rule, bool deny)
{
    return policy_rule_is_domain(rule) && (!deny || rule->port || rule->protocol);
}

static bool any_counts(const struct policy_rules *rules, bool deny)
{
    for (size_t i = 0; i < rules->count; i++)
        if (counts(&rules->items[i], deny))
            return true;
    return false;
}

static int kind_add(struct cutter *cutter, const struct policy_rule *rule)
{
    for (size_t i = 0; i < cutter->n_kinds; i++) {
        const struct policy_rule *kind = &cutter->kinds[i];

        if (kind->protocol == rule->protocol && kind->port == rule->port &&
            kind->port_end == rule->port_end)
            return 0;
    }
    if (cutter->n_kinds == POLICY_SERVICES_KINDS_MAX)
        return -E2BIG;
    cutter->kinds[cutter->n_kinds++] = *rule;
    return 0;
}

static int kinds_collect(struct cutter *cutter, const struct policy_rules *allow,
                         const struct policy_rules *deny)
{
    int result = 0;

    for (size_t i = 0; result == 0 && i < allow->count; i++)
        if (policy_rule_is_domain(&allow->items[i]))
            result = kind_add(cutter, &allow->items[i]);
    for (size_t i = 0; result == 0 && i < deny->count; i++)
        result = kind_add(cutter, &deny->items[i]);
    return result;
}

/* --- cells --- */

static struct signature signature_of(const struct cutter *cutter, uint8_t protocol, uint16_t port)
{
    struct policy_flow flow4 = {.ip.family = AF_INET, .protocol = protocol, .port = port};
    struct policy_flow flow6 = {.ip.family = AF_INET6, .protocol = protocol, .port = port};
    struct signature signature = {0};

    for (size_t i = 0; i < cutter->n_kinds; i++) {
        signature.v4 |= (uint64_t)policy_rule_covers_service(&cutter->kinds[i], &flow4) << i;
        signature.v6 |= (uint64_t)policy_rule_covers_service(&cutter->kinds[i], &flow6) << i;
    }
    if (policy_port_is_dns(protocol, port))
        signature.v4 |= DNS_BIT;
    return signature;
}

static uint32_t service_get(struct cutter *cutter, uint8_t protocol, uint16_t port)
{
    struct policy_services *services = cutter->services;
    struct signature wanted = signature_of(cutter, protocol, port);
    uint32_t i = 0;

    while (i < services->count && memcmp(&cutter->signatures[i], &wanted, sizeof(wanted)) != 0)
        i++;
    if (i == POLICY_SERVICES_MAX) {
        cutter->full = true;
        return 0;
    }
    if (i == services->count) {
        cutter->signatures[i] = wanted;
        services->items[services->count++] =
            (struct policy_service){.protocol = protocol, .port = port};
    }
    return i;
}

static void range_add(struct cutter *cutter, unsigned protocol_first, unsigned protocol_last,
                      uint32_t port_first, uint32_t port_last)
{
    uint32_t service = service_get(cutter, (uint8_t)protocol_first, (uint16_t)port_first);
    struct policy_service_range *last =
        cutter->n_ranges ? &cutter->ranges[cutter->n_ranges - 1] : NULL;

    if (last && last->service == service && last->protocol_first == protocol_first &&
        port_first > 0) { /* goes on where the last one ends */
        last->port_last = (uint16_t)port_last;
        return;
    }
    cutter->ranges[cutter->n_ranges++] = (struct policy_service_range){
        .protocol_first = (uint8_t)protocol_first,
        .protocol_last = (uint8_t)protocol_last,
        .port_first = (uint16_t)port_first,
        .port_last = (uint16_t)port_last,
        .service = service,
    };
}

static int mark_compare(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;

    return left < right ? -1 : left > right;
}

static void mark_ports(struct cutter *cutter, uint8_t protocol)
{
    static const uint32_t dns[DNS_MARKS] = {53, 54, 853, 854};

    cutter->marks[0] = 0;
    memcpy(cutter->marks + 1, dns, sizeof(dns));
    cutter->n_marks = 1 + DNS_MARKS;
    for (size_t i = 0; i < cutter->n_kinds; i++) {
        const struct policy_rule *kind = &cutter->kinds[i];

        if (!kind->port || (kind->protocol && kind->protocol != protocol))
            continue;
        cutter->marks[cutter->n_marks++] = kind->port;
        if (kind->port_end < PORT_LAST)
            cutter->marks[cutter->n_marks++] = kind->port_end + 1u;
    }
    qsort(cutter->marks, cutter->n_marks, sizeof(cutter->marks[0]), mark_compare);
}

static void cut_ports(struct cutter *cutter, uint8_t protocol)
{
    mark_ports(cutter, protocol);
    for (size_t i = 0; i < cutter->n_marks; i++) {
        uint32_t next = i + 1 < cutter->n_marks ? cutter->marks[i + 1] : PORT_LAST + 1;

        if (next > cutter->marks[i])
            range_add(cutter, protocol, protocol, cutter->marks[i], next - 1);
    }
}

/* The numbers of protocols that rules tell apart, in order; those between are alike. */
static void cut_protocols(struct cutter *cutter)
{
    static const uint8_t known[] = {IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6};
    unsigned first = 0;

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i] > first)
            range_add(cutter, first, known[i] - 1u, 0, PORT_LAST);
        if (known[i] == IPPROTO_TCP || known[i] == IPPROTO_UDP)
            cut_ports(cutter, known[i]);
        else
            range_add(cutter, known[i], known[i], 0, PORT_LAST);
        first = known[i] + 1u;
    }
    range_add(cutter, first, 255, 0, PORT_LAST);
}

/* --- what names can do --- */

static bool rule_reaches(const struct policy_rule *rule, const struct policy_service *service,
                         bool deny)
{
    struct policy_flow flow4 = {
        .ip.family = AF_INET, .protocol = service->protocol, .port = service->port};
    struct policy_flow flow6 = flow4;

    flow6.ip.family = AF_INET6;
    if (!counts(rule, deny) ||
        (!deny && !rule->port && policy_port_is_dns(service->protocol, service->port)))
        return false;
    return policy_rule_covers_service(rule, &flow4) || policy_rule_covers_service(rule, &flow6);
}

static bool rules_reach(const struct policy_rules *rules, const struct policy_service *service,
                        bool deny)
{
    for (size_t i = 0; i < rules->count; i++)
        if (rule_reaches(&rules->items[i], service, deny))
            return true;
    return false;
}

static void mark_services(struct policy_services *services, const struct policy_rules *allow,
                          const struct policy_rules *deny)
{
    for (uint32_t i = 0; i < services->count; i++) {
        struct policy_service *service = &services->items[i];

        service->opens = rules_reach(allow, service, false);
        service->closes = rules_reach(deny, service, true);
        services->n_opens += service->opens;
        services->n_closes += service->closes;
    }
}

/* --- interface --- */

static int ranges_copy(const struct cutter *cutter, struct policy_services *services)
{
    services->ranges = calloc(cutter->n_ranges, sizeof(*services->ranges));
    if (!services->ranges)
        return -ENOMEM;
    memcpy(services->ranges, cutter->ranges, cutter->n_ranges * sizeof(*services->ranges));
    services->n_ranges = cutter->n_ranges;
    return 0;
}

int policy_services_compile(const struct policy_rules *allow, const struct policy_rules *deny,
                            struct policy_services *ret_services)
{
    struct policy_services services = {0};
    _cleanup_free_ struct cutter *cutter = NULL;
    int result;

    if (!any_counts(allow, false) && !any_counts(deny, true)) {
        *ret_services = services;
        return 0;
    }
    cutter = calloc(1, sizeof(*cutter));
    if (!cutter)
        return -ENOMEM;
    cutter->services = &services;
    result = kinds_collect(cutter, allow, deny);
    if (result < 0)
        return result;
    cut_protocols(cutter);
    if (cutter->full)
        return -E2BIG;
    mark_services(&services, allow, deny);
    result = ranges_copy(cutter, &services);
    if (result == 0)
        *ret_services = services;
    return result;
}

void policy_services_deinit(struct policy_services *services)
{
    free(services->ranges);
    services->ranges = NULL;
    services->n_ranges = 0;
}
