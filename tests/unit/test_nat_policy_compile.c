/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random policies: what is compiled means for every probe what the plain evaluation says, and
 * ranges never overlap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "nat/policy_compile.h"

#define RULES_MAX 24
#define POLICIES 1500
#define PROBES 120

static uint32_t seed = 1;

static uint32_t pick(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(seed >> 4) * below >> 28);
}

/* Few addresses and ports, so that rules meet. */
static struct ip random_ip(uint8_t family)
{
    static const uint8_t bytes[] = {0, 1, 2, 127, 128, 254, 255};
    struct ip ip = {.family = family};
    unsigned length = ip_bits(family) / 8;

    ip.bytes[0] = pick(3) == 0 ? 10 : bytes[pick(7)];
    ip.bytes[1] = bytes[pick(3)];
    ip.bytes[length - 2] = bytes[pick(3)];
    ip.bytes[length - 1] = bytes[pick(7)];
    return ip;
}

static uint16_t random_port(void)
{
    static const uint16_t ports[] = {1, 2, 3, 53, 80, 81, 443, 65534, 65535};

    return ports[pick(ARRAY_SIZE(ports))];
}

static struct policy_rule random_rule(void)
{
    static const uint8_t protocols[] = {0, 0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP};
    static const enum rule_destination destinations[] = {RULE_ANY,    RULE_PUBLIC, RULE_PRIVATE,
                                                         RULE_PREFIX, RULE_PREFIX, RULE_PREFIX,
                                                         RULE_PREFIX, RULE_PREFIX, RULE_BELOW};
    struct policy_rule rule = {.name = "example.org"};
    uint8_t family = pick(3) ? AF_INET : AF_INET6;

    rule.destination = destinations[pick(ARRAY_SIZE(destinations))];
    rule.prefix = (struct cidr){random_ip(family), (uint8_t)pick(ip_bits(family) + 1)};
    rule.prefix = cidr_mask(&rule.prefix);
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

static struct policy_flow random_flow(void)
{
    static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6,
                                        0,           47,          132,          255};
    struct policy_flow flow = {
        .ip = random_ip(pick(3) ? AF_INET : AF_INET6),
        .own = pick(8) == 0,
        .protocol = protocols[pick(ARRAY_SIZE(protocols))],
    };

    if (flow.protocol == IPPROTO_TCP || flow.protocol == IPPROTO_UDP)
        flow.port = pick(8) ? (uint16_t)(random_port() + pick(3)) : 0;
    return flow;
}

static bool range_has(const struct policy_range *range, const struct policy_flow *flow)
{
    return ip_compare(&range->first, &flow->ip) <= 0 && ip_compare(&flow->ip, &range->last) <= 0 &&
           range->protocol_first <= flow->protocol && flow->protocol <= range->protocol_last &&
           range->port_first <= flow->port && flow->port <= range->port_last;
}

static bool table_has(const struct policy_table *table, const struct policy_flow *flow)
{
    for (size_t i = 0; i < table->count; i++)
        if (range_has(&table->items[i], flow))
            return true;
    return false;
}

static bool ranges_overlap(const struct policy_range *a, const struct policy_range *b)
{
    return ip_compare(&a->first, &b->last) <= 0 && ip_compare(&b->first, &a->last) <= 0 &&
           a->protocol_first <= b->protocol_last && b->protocol_first <= a->protocol_last &&
           a->port_first <= b->port_last && b->port_first <= a->port_last;
}

static void assert_apart(const struct policy_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        for (size_t j = 0; j < i; j++)
            assert_false(ranges_overlap(&table->items[i], &table->items[j]));
}

static void fail_at(const struct policy_rules *allow, const struct policy_rules *deny,
                    const struct policy_flow *flow)
{
    char text[RULE_TEXT_MAX];
    char ip[IP_TEXT_MAX];

    for (size_t i = 0; i < allow->count; i++)
        print_message("allow %s\n", policy_rule_format(&allow->items[i], text));
    for (size_t i = 0; i < deny->count; i++)
        print_message("deny %s\n", policy_rule_format(&deny->items[i], text));
    fail_msg("%s protocol %u port %u own %d", ip_format(&flow->ip, ip), flow->protocol, flow->port,
             flow->own);
}

static void compiled_is_what_the_rules_say(void **state)
{
    static struct policy_rule items[2][RULES_MAX];

    (void)state;
    for (unsigned n = 0; n < POLICIES; n++) {
        struct policy_rules allow = {items[0], pick(4) ? pick(RULES_MAX) : 0};
        struct policy_rules deny = {items[1], pick(2) ? pick(RULES_MAX) : 0};
        struct policy_table tables[POLICY_CLASSES][2] = {0};

        for (size_t i = 0; i < RULES_MAX; i++) {
            items[0][i] = random_rule();
            items[1][i] = random_rule();
        }
        for (int class = 0; class < POLICY_CLASSES; class ++)
            for (int v6 = 0; v6 < 2; v6++) {
                assert_int_equal(policy_compile(&allow, &deny, (enum policy_class) class,
                                                v6 ? AF_INET6 : AF_INET, &tables[class][v6]),
                                 0);
                assert_apart(&tables[class][v6]);
            }
        for (unsigned i = 0; i < PROBES; i++) {
            struct policy_flow flow = random_flow();
            int class = policy_flow_is_public(&flow) ? POLICY_PUBLIC : POLICY_PRIVATE;
            bool found = table_has(&tables[class][flow.ip.family == AF_INET6], &flow);

            if ((allow.count ? found : !found) != policy_allows(&allow, &deny, &flow, NULL))
                fail_at(&allow, &deny, &flow);
        }
        for (int class = 0; class < POLICY_CLASSES; class ++)
            for (int v6 = 0; v6 < 2; v6++)
                policy_table_deinit(&tables[class][v6]);
    }
}

static void neighbours_are_one_range(void **state)
{
    static const char *const texts[] = {"10.0.0.0/9", "10.128.0.0/9", "any:53"};
    struct policy_rule items[ARRAY_SIZE(texts)];
    struct policy_rules allow = {items, 2};
    struct policy_rules none = {0};
    struct policy_table table;
    struct error error = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        assert_int_equal(policy_rule_parse(texts[i], "allow", &items[i], &error), 0);
    assert_int_equal(policy_compile(&allow, &none, POLICY_PRIVATE, AF_INET, &table), 0);
    assert_int_equal(table.count, 1);
    assert_int_equal(table.items[0].protocol_last, 255);
    policy_table_deinit(&table);
    allow.count = 3; /* the gaps on both sides have TCP and UDP 53 */
    assert_int_equal(policy_compile(&allow, &none, POLICY_PRIVATE, AF_INET, &table), 0);
    assert_int_equal(table.count, 5);
    policy_table_deinit(&table);
    assert_int_equal(policy_compile(&allow, &none, POLICY_PRIVATE, AF_INET6, &table), 0);
    assert_int_equal(table.count, 2);
    policy_table_deinit(&table);
}

static void too_many_ranges_are_refused(void **state)
{
    static struct policy_rule items[1024];
    struct policy_rules allow = {items, ARRAY_SIZE(items)};
    struct policy_rules none = {0};
    struct policy_table table = {.count = 7};

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(items); i++) {
        items[i] = (struct policy_rule){.destination = RULE_PREFIX, .protocol = IPPROTO_TCP};
        items[i].prefix = (struct cidr){ip_from_v4(0x0a000000 + 2 * i), 32};
        if (i % 2 == 0)
            items[i].destination = RULE_ANY;
        items[i].port = items[i].port_end = (uint16_t)(2 * i + 1);
    }
    assert_int_equal(policy_compile(&allow, &none, POLICY_PUBLIC, AF_INET, &table), -7);
    assert_int_equal(table.count, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compiled_is_what_the_rules_say),
        cmocka_unit_test(neighbours_are_one_range),
        cmocka_unit_test(too_many_ranges_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
