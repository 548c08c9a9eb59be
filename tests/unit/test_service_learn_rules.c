/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The fewest rules for what was seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/rule.h"
#include "service/learn_rules.h"

struct row {
    const char *ip;
    const char *name;
    uint8_t protocol;
    uint16_t port;
};

static void make(const struct row *rows, size_t count, struct strings *ret_rules)
{
    struct learnt_flow flows[64] = {0};

    for (size_t i = 0; i < count; i++) {
        assert_int_equal(ip_parse(rows[i].ip, &flows[i].ip), 0);
        flows[i].name = rows[i].name;
        flows[i].protocol = rows[i].protocol;
        flows[i].port = rows[i].port;
    }
    assert_int_equal(learn_rules_make(flows, count, ret_rules), 0);
}

static void assert_rules(const struct row *rows, size_t count, const char *expected)
{
    struct strings rules = {0};
    char text[2048] = "";

    make(rows, count, &rules);
    for (size_t i = 0; i < rules.count; i++) {
        strcat(text, i ? " " : "");
        strcat(text, rules.items[i]);
    }
    assert_string_equal(text, expected);
    strings_deinit(&rules);
}

#define ROWS(...)                      \
    (const struct row[]){__VA_ARGS__}, \
        sizeof((const struct row[]){__VA_ARGS__}) / sizeof(struct row)

static void ports_and_protocols_are_joined(void **state)
{
    (void)state;
    assert_rules(NULL, 0, "");
    assert_rules(ROWS({"192.0.2.1", NULL, IPPROTO_TCP, 443}), "192.0.2.1:443/tcp");
    assert_rules(ROWS({"192.0.2.1", NULL, IPPROTO_TCP, 53}, {"192.0.2.1", NULL, IPPROTO_UDP, 53}),
                 "192.0.2.1:53");
    assert_rules(ROWS({"192.0.2.1", NULL, IPPROTO_TCP, 82}, {"192.0.2.1", NULL, IPPROTO_TCP, 80},
                      {"192.0.2.1", NULL, IPPROTO_TCP, 81}, {"192.0.2.1", NULL, IPPROTO_UDP, 81},
                      {"192.0.2.1", NULL, IPPROTO_UDP, 90}),
                 "192.0.2.1:81 192.0.2.1:80/tcp 192.0.2.1:82/tcp 192.0.2.1:90/udp");
    assert_rules(ROWS({"192.0.2.1", NULL, IPPROTO_ICMP, 0}, {"192.0.2.1", NULL, IPPROTO_TCP, 1}),
                 "192.0.2.1:1/tcp 192.0.2.1/icmp");
    assert_rules(ROWS({"192.0.2.1", NULL, 47, 0}, {"192.0.2.1", NULL, IPPROTO_TCP, 1}),
                 "192.0.2.1");
    assert_rules(
        ROWS({"2001:db8::1", NULL, IPPROTO_TCP, 443}, {"2001:db8::1", NULL, IPPROTO_ICMPV6, 0}),
        "[2001:db8::1]:443/tcp 2001:db8::1/icmp");
}

static void names_stand_for_their_addresses(void **state)
{
    (void)state;
    assert_rules(ROWS({"192.0.2.1", "example.org", IPPROTO_TCP, 443},
                      {"192.0.2.2", "example.org", IPPROTO_TCP, 443},
                      {"2001:db8::1", "example.org", IPPROTO_TCP, 443},
                      {"2001:db8::1", "example.org", IPPROTO_TCP, 444},
                      {"192.0.2.1", "a.example", IPPROTO_UDP, 443},
                      {"192.0.2.9", NULL, IPPROTO_TCP, 22}),
                 "a.example:443/udp example.org:443-444/tcp 192.0.2.9:22/tcp");
}

static uint32_t seed = 3;

static uint32_t pick(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(seed >> 4) * below >> 28);
}

/* Random flows: the rules allow each of them, and of their neighbours only those that were seen. */
static void exactly_what_was_seen(void **state)
{
    static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP};

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct learnt_flow flows[40] = {0};
        size_t count = 1 + pick(39);
        struct policy_rules none = {0};
        struct policy_rules allow;
        struct strings rules = {0};
        struct error error = ERROR_INIT;

        for (size_t i = 0; i < count; i++) {
            flows[i].ip = ip_from_v4(0xc0000200 + pick(3));
            flows[i].protocol = protocols[pick(3)];
            flows[i].port = flows[i].protocol == IPPROTO_ICMP ? 0 : (uint16_t)(80 + pick(6));
        }
        assert_int_equal(learn_rules_make(flows, count, &rules), 0);
        assert_int_equal(policy_rules_parse(&rules, "allow", &allow, &error), 0);
        for (uint32_t n = 0; n < 3 * 3 * 8; n++) {
            struct policy_flow flow = {.ip = ip_from_v4(0xc0000200 + n % 3),
                                       .protocol = protocols[n / 3 % 3],
                                       .port = (uint16_t)(79 + n / 9)};
            bool seen = false;

            if (flow.protocol == IPPROTO_ICMP)
                flow.port = 0;
            for (size_t i = 0; i < count; i++)
                seen = seen || (ip_equal(&flows[i].ip, &flow.ip) &&
                                flows[i].protocol == flow.protocol && flows[i].port == flow.port);
            assert_int_equal(policy_allows(&allow, &none, &flow, NULL), seen);
        }
        policy_rules_deinit(&allow);
        strings_deinit(&rules);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_and_protocols_are_joined),
        cmocka_unit_test(names_stand_for_their_addresses),
        cmocka_unit_test(exactly_what_was_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
