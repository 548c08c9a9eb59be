/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random policies with domain rules: the services are a partition, and two flows of one service are
 * treated alike, whatever name and address. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "nat/policy_services.h"

#define RULES_MAX 12
#define POLICIES 400
#define PROBES 300

static uint32_t seed = 7;

static uint32_t pick(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(seed >> 4) * below >> 28);
}

static uint16_t random_port(void)
{
    static const uint16_t ports[] = {1, 2, 52, 53, 54, 80, 81, 852, 853, 854, 65534, 65535};

    return ports[pick(ARRAY_SIZE(ports))];
}

static struct policy_rule random_rule(void)
{
    static const uint8_t protocols[] = {0, 0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP};
    static const enum rule_destination destinations[] = {RULE_ANY,   RULE_PUBLIC, RULE_PREFIX,
                                                         RULE_BELOW, RULE_NAME,   RULE_BOTH};
    static const char *const names[] = {"example.org", "a.example.org", "example.net"};
    struct policy_rule rule = {.destination = destinations[pick(ARRAY_SIZE(destinations))]};

    snprintf(rule.name, sizeof(rule.name), "%s", names[pick(ARRAY_SIZE(names))]);
    rule.prefix = (struct cidr){ip_from_v4(0xc0000200), (uint8_t)(24 + pick(2))};
    rule.protocol = protocols[pick(ARRAY_SIZE(protocols))];
    if (rule.protocol == IPPROTO_ICMP || pick(3) == 0)
        return rule;
    rule.port = rule.port_end = random_port();
    if (pick(2))
        rule.port_end = random_port();
    if (rule.port_end < rule.port)
        rule.port_end = rule.port;
    return rule;
}

static void random_service(uint8_t *ret_protocol, uint16_t *ret_port)
{
    static const uint8_t protocols[] = {IPPROTO_TCP,    IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP,
                                        IPPROTO_ICMPV6, 0,           47,          255};

    *ret_protocol = protocols[pick(ARRAY_SIZE(protocols))];
    *ret_port = 0;
    if (*ret_protocol == IPPROTO_TCP || *ret_protocol == IPPROTO_UDP)
        *ret_port = (uint16_t)(random_port() + pick(2));
}

/* The one range that has it. */
static uint32_t service_of(const struct policy_services *services, uint8_t protocol, uint16_t port)
{
    size_t found = services->n_ranges;

    for (size_t i = 0; i < services->n_ranges; i++) {
        const struct policy_service_range *range = &services->ranges[i];

        if (range->protocol_first > protocol || protocol > range->protocol_last ||
            range->port_first > port || port > range->port_last)
            continue;
        assert_int_equal(found, services->n_ranges);
        found = i;
    }
    assert_true(found < services->n_ranges);
    assert_true(services->ranges[found].service < services->count);
    return services->ranges[found].service;
}

/* Only what a name opens or closes: an address rule that allows is not a service's matter. */
static struct policy_rules domains_of(const struct policy_rules *rules, struct policy_rule *items)
{
    struct policy_rules kept = {items, 0};

    for (size_t i = 0; i < rules->count; i++)
        if (policy_rule_is_domain(&rules->items[i]))
            items[kept.count++] = rules->items[i];
    return kept;
}

static void assert_alike(const struct policy_rules *allow, const struct policy_rules *deny,
                         const struct policy_services *services)
{
    static const char *const names[] = {"example.org", "a.example.org", "b.a.example.org",
                                        "example.net"};
    const char *name = names[pick(ARRAY_SIZE(names))];
    struct policy_flow flow = {
        .ip = ip_from_v4(0xc0000200 + pick(256)), .names = &name, .n_names = 1};
    struct policy_flow stands_for;
    uint32_t service;

    if (pick(2))
        flow.ip = (struct ip){.family = AF_INET6, .bytes = {0x20, 1, 0x0d, 0xb8, [15] = 1}};
    random_service(&flow.protocol, &flow.port);
    service = service_of(services, flow.protocol, flow.port);
    stands_for = flow;
    stands_for.protocol = services->items[service].protocol;
    stands_for.port = services->items[service].port;
    if (policy_allows(allow, deny, &flow, NULL))
        assert_true(services->items[service].opens);
    if (policy_allows(allow, deny, &flow, NULL) != policy_allows(allow, deny, &stands_for, NULL))
        fail_msg("protocol %u port %u is not like protocol %u port %u", flow.protocol, flow.port,
                 stands_for.protocol, stands_for.port);
}

static void flows_of_one_service_are_alike(void **state)
{
    static struct policy_rule items[3][RULES_MAX];

    (void)state;
    for (unsigned n = 0; n < POLICIES; n++) {
        struct policy_rules allow = {items[0], 1 + pick(RULES_MAX - 1)};
        struct policy_rules deny = {items[1], pick(2) ? pick(RULES_MAX) : 0};
        struct policy_services services;
        struct policy_rules domains;

        for (size_t i = 0; i < RULES_MAX; i++) {
            items[0][i] = random_rule();
            items[1][i] = random_rule();
        }
        domains = domains_of(&allow, items[2]);
        if (domains.count == 0)
            continue;
        assert_int_equal(policy_services_compile(&allow, &deny, &services), 0);
        for (unsigned i = 0; i < PROBES; i++)
            assert_alike(&domains, &deny, &services);
        policy_services_deinit(&services);
    }
}

static void only_domain_rules_need_services(void **state)
{
    struct policy_rule items[2] = {{.destination = RULE_ANY, .port = 7, .port_end = 7},
                                   {.destination = RULE_NAME, .name = "example.org"}};
    struct policy_rules any = {items, 1};
    struct policy_rules name = {items + 1, 1};
    struct policy_rules none = {0};
    struct policy_services services;

    (void)state;
    assert_int_equal(policy_services_compile(&any, &any, &services), 0);
    assert_int_equal(services.count, 0);
    /* Nothing is left of a name that is denied whole: its addresses are never given. */
    assert_int_equal(policy_services_compile(&none, &name, &services), 0);
    assert_int_equal(services.count, 0);
    assert_int_equal(services.n_opens + services.n_closes, 0);
    assert_int_equal(policy_services_compile(&name, &none, &services), 0);
    assert_int_equal(services.count, 2); /* DNS, and all the rest, which is opened */
    assert_int_equal(services.n_opens, 1);
    policy_services_deinit(&services);
    items[1].protocol = IPPROTO_UDP;
    assert_int_equal(policy_services_compile(&none, &name, &services), 0);
    assert_int_equal(services.n_opens, 0);
    assert_int_equal(services.n_closes, 2);
    policy_services_deinit(&services);
}

static void too_many_kinds_are_refused(void **state)
{
    static struct policy_rule items[POLICY_SERVICES_KINDS_MAX + 1];
    struct policy_rules allow = {items, ARRAY_SIZE(items)};
    struct policy_rules none = {0};
    struct policy_services services = {.count = 7};

    (void)state;
    for (uint16_t i = 0; i < ARRAY_SIZE(items); i++)
        items[i] = (struct policy_rule){.destination = RULE_NAME,
                                        .name = "example.org",
                                        .protocol = i % 2 ? IPPROTO_TCP : IPPROTO_UDP,
                                        .port = (uint16_t)(3 * i + 1),
                                        .port_end = (uint16_t)(3 * i + 2)};
    assert_int_equal(policy_services_compile(&allow, &none, &services), -7);
    assert_int_equal(services.count, 7);
    allow.count--;
    assert_int_equal(policy_services_compile(&allow, &none, &services), 0);
    policy_services_deinit(&services);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flows_of_one_service_are_alike),
        cmocka_unit_test(only_domain_rules_need_services),
        cmocka_unit_test(too_many_kinds_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
