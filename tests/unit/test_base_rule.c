/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RULEs: what is read, what is refused and why, and what a policy means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/rule.h"

static struct policy_rule parse(const char *text)
{
    struct error error = ERROR_INIT;
    struct policy_rule rule;

    if (policy_rule_parse(text, "allow[2]", &rule, &error) < 0)
        fail_msg("%s: %s", text, error.text);
    return rule;
}

static void rules_are_read_and_written(void **state)
{
    static const char *const rows[][2] = {
        {"any", "any"},
        {"any:53/udp", "any:53/udp"},
        {"any/icmp", "any/icmp"},
        {"@public", "@public"},
        {"@public:443", "@public:443"},
        {"@private:1-65535/tcp", "@private:1-65535/tcp"},
        {"192.0.2.1", "192.0.2.1"},
        {"192.0.2.1/32", "192.0.2.1"},
        {"192.0.2.1:80", "192.0.2.1:80"},
        {"192.0.2.1:80-80/tcp", "192.0.2.1:80/tcp"},
        {"10.0.0.0/8:8000-8010/udp", "10.0.0.0/8:8000-8010/udp"},
        {"10.0.0.0/8/tcp", "10.0.0.0/8/tcp"},
        {"0.0.0.0/0", "0.0.0.0/0"},
        {"::/0", "::/0"},
        {"2001:DB8::1", "2001:db8::1"},
        {"2001:db8::/32/icmp", "2001:db8::/32/icmp"},
        {"[2001:db8::1]", "2001:db8::1"},
        {"[2001:db8::1]:443", "[2001:db8::1]:443"},
        {"[2001:db8::]/32:443", "[2001:db8::/32]:443"},
        {"[2001:db8::/32]:443/tcp", "[2001:db8::/32]:443/tcp"},
        {"Example.ORG", "example.org"},
        {"example.org.:443", "example.org:443"},
        {"*.example.org:443/tcp", "*.example.org:443/tcp"},
        {".example.org", ".example.org"},
        {"*.org", "*.org"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example"},
        {"_dmarc.example.org", "_dmarc.example.org"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char text[RULE_TEXT_MAX];
        struct policy_rule rule = parse(rows[i][0]);

        assert_string_equal(policy_rule_format(&rule, text), rows[i][1]);
        struct policy_rule again = parse(text);
        assert_memory_equal(&again, &rule, sizeof(rule));
    }
}

static void what_is_no_rule_is_refused_with_the_remedy(void **state)
{
    static const char *const rows[][2] = {
        {"", "is empty"},
        {"any:0", "1 to 65535"},
        {"any:", "1 to 65535"},
        {"any:080", "1 to 65535"},
        {"any:65536", "1 to 65535"},
        {"any:100000", "1 to 65535"},
        {"any:1-", "1 to 65535"},
        {"any:20-10", "ends before it begins"},
        {"any:1-2-3", "1 to 65535"},
        {"any:http", "1 to 65535"},
        {"any:8/icmp", "leave the port out"},
        {"any/sctp", "tcp, udp and icmp"},
        {"any/TCP", "tcp, udp and icmp"},
        {"any/", "tcp, udp and icmp"},
        {"any/tcp:80", "tcp, udp and icmp"},
        {"@lan", "@public and @private"},
        {"10.0.0.1/8", "write 10.0.0.0/8"},
        {"2001:db8::1/32", "write 2001:db8::/32"},
        {"10.0.0.0/33", "ADDRESS/PREFIX"},
        {"300.1.2.3", "is not an address"},
        {"10.0.0", "is not an address"},
        {"2001:db8::1:443:1:1:1:1:1:1", "[ADDRESS]:PORT"},
        {"[2001:db8::1", "lacks the ]"},
        {"[2001:db8::1]443", "[IPv6]"},
        {"[192.0.2.1]:80", "[IPv6]"},
        {"[2001:db8::/32]/32", "[IPv6]"},
        {"localhost", "has a dot"},
        {"*", "is no destination"},
        {"*.", "is no destination"},
        {".", "is no destination"},
        {"a..b", "is no destination"},
        {"a.*.b", "is no destination"},
        {"ex ample.org", "is no destination"},
        {"b\xc3\xbc"
         "cher.example",
         "xn--"},
        {"!example.org", "is no destination"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error error = ERROR_INIT;
        struct policy_rule rule = {.port = 7};

        if (policy_rule_parse(rows[i][0], "allow[2]", &rule, &error) == 0)
            fail_msg("\"%s\" was taken", rows[i][0]);
        assert_string_equal(error.field, "allow[2]");
        if (!strstr(error.text, rows[i][1]))
            fail_msg("\"%s\": %s", rows[i][0], error.text);
        assert_int_equal(rule.port, 7);
    }
}

static void what_is_too_long_is_refused(void **state)
{
    char text[4096];
    struct error error = ERROR_INIT;
    struct policy_rule rule;

    (void)state;
    for (size_t length = 1; length < sizeof(text) - 1; length += 7) {
        memset(text, 'a', length);
        text[length] = '\0';
        assert_int_equal(policy_rule_parse(text, "deny[0]", &rule, &error), -22);
    }
    memset(text, '1', 400);
    text[0] = '[';
    text[400] = '\0';
    assert_int_equal(policy_rule_parse(text, "deny[0]", &rule, &error), -22);
}

static void domain_rules_cover_names(void **state)
{
    static const struct {
        const char *rule;
        const char *name;
        bool covers;
    } rows[] = {
        {"example.org", "example.org", true},
        {"example.org", "EXAMPLE.org.", true},
        {"example.org", "a.example.org", false},
        {"*.example.org", "example.org", false},
        {"*.example.org", "a.example.org", true},
        {"*.example.org", "a.b.Example.org", true},
        {"*.example.org", "badexample.org", false},
        {".example.org", "example.org", true},
        {".example.org", "a.example.org", true},
        {".example.org", "badexample.org", false},
        {".example.org", "org", false},
        {".example.org", "", false},
        {".example.org", ".", false},
        {"any", "example.org", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct policy_rule rule = parse(rows[i].rule);

        if (policy_rule_covers_name(&rule, rows[i].name) != rows[i].covers)
            fail_msg("%s and %s", rows[i].rule, rows[i].name);
    }
}

static struct policy_flow flow_of(const char *ip, uint8_t protocol, uint16_t port)
{
    struct policy_flow flow = {.protocol = protocol, .port = port};

    assert_int_equal(ip_parse(ip, &flow.ip), 0);
    return flow;
}

static void public_is_what_is_not_private(void **state)
{
    static const char *const public[] = {"1.1.1.1",     "192.0.2.1",       "192.0.1.1",
                                         "198.20.0.1",  "223.255.255.255", "2606:4700::1111",
                                         "2001:db8::1", "64:ff9b::101:101"};
    static const char *const private[] = {"0.0.0.0",
                                          "10.1.2.3",
                                          "100.64.0.1",
                                          "100.100.100.200",
                                          "127.0.0.1",
                                          "169.254.169.254",
                                          "172.31.255.255",
                                          "192.0.0.192",
                                          "192.168.0.1",
                                          "198.19.255.255",
                                          "224.0.0.1",
                                          "255.255.255.255",
                                          "::",
                                          "::1",
                                          "::ffff:1.1.1.1",
                                          "64:ff9b::a00:1",
                                          "64:ff9b::a9fe:a9fe",
                                          "2002:a00:1::1",
                                          "2001::1",
                                          "fd00:ec2::254",
                                          "fe80::1",
                                          "fec0::1",
                                          "ff02::1"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(public); i++) {
        struct policy_flow flow = flow_of(public[i], IPPROTO_TCP, 443);

        if (!policy_flow_is_public(&flow))
            fail_msg("%s", public[i]);
        flow.own = true;
        assert_false(policy_flow_is_public(&flow));
    }
    for (size_t i = 0; i < ARRAY_SIZE(private); i++) {
        struct policy_flow flow = flow_of(private[i], IPPROTO_TCP, 443);

        if (policy_flow_is_public(&flow))
            fail_msg("%s", private[i]);
    }
}

static void private_prefixes_are_apart(void **state)
{
    size_t count;
    const struct cidr *prefixes = policy_private_prefixes(&count);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        assert_false(cidr_has_host_bits(&prefixes[i]));
        for (size_t j = 0; j < i; j++)
            assert_false(cidr_overlaps(&prefixes[i], &prefixes[j]));
    }
}

#define ROW_RULES 3

static void a_policy_means(void **state)
{
    static const struct {
        const char *allow[ROW_RULES];
        const char *deny[ROW_RULES];
        const char *ip;
        uint8_t protocol;
        uint16_t port;
        bool allowed;
    } rows[] = {
        {{NULL}, {NULL}, "192.0.2.1", IPPROTO_TCP, 80, true},
        {{"any:443"}, {NULL}, "192.0.2.1", IPPROTO_TCP, 443, true},
        {{"any:443"}, {NULL}, "2001:db8::1", IPPROTO_UDP, 443, true},
        {{"any:443"}, {NULL}, "192.0.2.1", IPPROTO_TCP, 80, false},
        {{"any:443"}, {NULL}, "192.0.2.1", IPPROTO_ICMP, 0, false},
        {{"any:443/tcp"}, {NULL}, "192.0.2.1", IPPROTO_UDP, 443, false},
        {{"any/icmp"}, {NULL}, "192.0.2.1", IPPROTO_ICMP, 0, true},
        {{"any/icmp"}, {NULL}, "2001:db8::1", IPPROTO_ICMPV6, 0, true},
        {{"any/icmp"}, {NULL}, "2001:db8::1", IPPROTO_ICMP, 0, false},
        {{"any"}, {"10.0.0.0/8"}, "10.1.1.1", IPPROTO_TCP, 80, false},
        {{"10.1.1.1"}, {"10.0.0.0/8:80"}, "10.1.1.1", IPPROTO_TCP, 80, false},
        {{"10.1.1.1"}, {"10.0.0.0/8:80"}, "10.1.1.1", IPPROTO_TCP, 81, true},
        {{NULL}, {"@private"}, "169.254.169.254", IPPROTO_TCP, 80, false},
        {{NULL}, {"@private"}, "192.0.2.1", IPPROTO_TCP, 80, true},
        {{"@public"}, {NULL}, "192.168.1.1", IPPROTO_TCP, 80, false},
        {{"0.0.0.0/0"}, {NULL}, "2001:db8::1", IPPROTO_TCP, 80, false},
        {{"example.org"}, {NULL}, "192.0.2.1", IPPROTO_TCP, 80, false},
        {{NULL}, {"example.org"}, "192.0.2.1", IPPROTO_TCP, 80, true},
        {{"any"}, {NULL}, "192.0.2.1", 132, 0, true},
        {{"any:1-65535"}, {NULL}, "192.0.2.1", 132, 5, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct policy_rule items[2][ROW_RULES];
        struct policy_rules allow = {items[0], 0};
        struct policy_rules deny = {items[1], 0};
        struct policy_flow flow = flow_of(rows[i].ip, rows[i].protocol, rows[i].port);

        for (; rows[i].allow[allow.count]; allow.count++)
            items[0][allow.count] = parse(rows[i].allow[allow.count]);
        for (; rows[i].deny[deny.count]; deny.count++)
            items[1][deny.count] = parse(rows[i].deny[deny.count]);
        if (policy_allows(&allow, &deny, &flow, NULL) != rows[i].allowed)
            fail_msg("row %zu", i);
    }
}

/* Up to three rules of each kind. */
struct names_row {
    const char *allow[4];
    const char *deny[4];
};

static void rules_of(const char *const texts[4], struct policy_rule items[4],
                     struct policy_rules *ret_rules)
{
    *ret_rules = (struct policy_rules){items, 0};
    for (; texts[ret_rules->count]; ret_rules->count++)
        items[ret_rules->count] = parse(texts[ret_rules->count]);
}

static void names_are_allowed_or_not(void **state)
{
    static const struct {
        struct names_row rules;
        const char *name;
        bool allowed;
    } rows[] = {
        {{{"example.org"}, {0}}, "example.org", true},
        {{{"example.org"}, {0}}, "example.net", false},
        {{{"example.org", "any"}, {0}}, "example.net", false},
        {{{"any"}, {0}}, "example.net", true},
        {{{"any"}, {"example.net"}}, "example.net", false},
        {{{"any"}, {"example.net"}}, "example.org", true},
        {{{0}, {"*.example.net"}}, "a.example.net", false},
        {{{0}, {"*.example.net"}}, "example.net", true},
        {{{".example.net"}, {"a.example.net"}}, "a.example.net", false},
        {{{".example.net"}, {"a.example.net"}}, "b.example.net", true},
        {{{".example.net"}, {"a.example.net:80"}}, "a.example.net", true},
        {{{".example.net"}, {"a.example.net/udp"}}, "a.example.net", true},
        {{{"10.0.0.0/8"}, {"192.0.2.1"}}, "example.net", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct policy_rule items[2][4];
        struct policy_rules allow;
        struct policy_rules deny;

        rules_of(rows[i].rules.allow, items[0], &allow);
        rules_of(rows[i].rules.deny, items[1], &deny);
        if (policy_allows_name(&allow, &deny, rows[i].name, NULL) != rows[i].allowed)
            fail_msg("row %zu", i);
    }
}

static void addresses_given_for_names_are_allowed(void **state)
{
    static const struct {
        struct names_row rules;
        const char *name; /* for which 192.0.2.1 was given */
        uint8_t protocol;
        uint16_t port;
        bool own;
        bool allowed;
    } rows[] = {
        {{{"example.org"}, {0}}, "example.org", IPPROTO_TCP, 80, false, true},
        {{{"example.org"}, {0}}, "example.net", IPPROTO_TCP, 80, false, false},
        {{{"example.org"}, {0}}, "example.org", IPPROTO_TCP, 80, true, false},
        {{{"example.org:443"}, {0}}, "example.org", IPPROTO_TCP, 80, false, false},
        {{{".example.org"}, {"192.0.2.0/24"}}, "a.example.org", IPPROTO_TCP, 80, false, false},
        {{{".example.org"}, {"a.example.org:80"}}, "a.example.org", IPPROTO_TCP, 80, false, false},
        {{{"any"}, {"a.example.org:80"}}, "a.example.org", IPPROTO_TCP, 80, false, false},
        {{{"any"}, {"a.example.org:80"}}, "b.example.org", IPPROTO_TCP, 80, false, true},
        /* DNS elsewhere */
        {{{"any"}, {0}}, "a.example", IPPROTO_UDP, 53, false, true},
        {{{"any"}, {"example.org"}}, "a.example", IPPROTO_UDP, 53, false, false},
        {{{"any"}, {"example.org"}}, "a.example", IPPROTO_TCP, 853, false, false},
        {{{"any"}, {"example.org"}}, "a.example", IPPROTO_ICMP, 53, false, true},
        {{{"any", "192.0.2.1:53"}, {"example.org"}}, "a.example", IPPROTO_UDP, 53, false, true},
        {{{"example.org"}, {0}}, "example.org", IPPROTO_UDP, 53, false, false},
        {{{"example.org:53"}, {0}}, "example.org", IPPROTO_UDP, 53, false, true},
        {{{0}, {"example.org"}}, "a.example", IPPROTO_UDP, 53, false, false},
        {{{0}, {"example.org"}}, "a.example", IPPROTO_UDP, 54, false, true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct policy_flow flow = flow_of("192.0.2.1", rows[i].protocol, rows[i].port);
        struct policy_rule items[2][4];
        struct policy_rules allow;
        struct policy_rules deny;

        flow.own = rows[i].own;
        flow.names = &rows[i].name;
        flow.n_names = 1;
        rules_of(rows[i].rules.allow, items[0], &allow);
        rules_of(rows[i].rules.deny, items[1], &deny);
        if (policy_allows(&allow, &deny, &flow, NULL) != rows[i].allowed)
            fail_msg("row %zu", i);
    }
}

static void lists_name_the_culprit(void **state)
{
    struct error error = ERROR_INIT;
    char items[][16] = {"any:443", "@public", "any:x"};
    char *pointers[] = {items[0], items[1], items[2]};
    struct strings texts = {pointers, 3};
    struct policy_rules rules = {0};

    (void)state;
    assert_int_equal(policy_rules_parse(&texts, "policy.allow", &rules, &error), -22);
    assert_string_equal(error.field, "policy.allow[2]");
    assert_null(rules.items);
    texts.count = 2;
    assert_int_equal(policy_rules_parse(&texts, "allow", &rules, &error), 0);
    assert_int_equal(rules.count, 2);
    policy_rules_deinit(&rules);
    texts.count = 0;
    assert_int_equal(policy_rules_parse(&texts, "allow", &rules, &error), 0);
    policy_rules_deinit(&rules);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_read_and_written),
        cmocka_unit_test(what_is_no_rule_is_refused_with_the_remedy),
        cmocka_unit_test(what_is_too_long_is_refused),
        cmocka_unit_test(domain_rules_cover_names),
        cmocka_unit_test(public_is_what_is_not_private),
        cmocka_unit_test(private_prefixes_are_apart),
        cmocka_unit_test(a_policy_means),
        cmocka_unit_test(names_are_allowed_or_not),
        cmocka_unit_test(addresses_given_for_names_are_allowed),
        cmocka_unit_test(lists_name_the_culprit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
