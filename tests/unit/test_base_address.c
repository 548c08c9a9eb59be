/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/address.h"
#include "base/cleanup.h"

static struct ip ip(const char *text)
{
    struct ip ip = {0};

    if (ip_parse(text, &ip) < 0)
        fail_msg("%s does not parse", text);
    return ip;
}

static struct cidr cidr(const char *text)
{
    struct cidr cidr = {0};

    if (cidr_parse(text, &cidr) < 0)
        fail_msg("%s does not parse", text);
    return cidr;
}

static void assert_ip(struct ip value, const char *expected)
{
    char text[IP_TEXT_MAX];

    assert_string_equal(ip_format(&value, text), expected);
}

static void assert_cidr(struct cidr value, const char *expected)
{
    char text[CIDR_TEXT_MAX];

    assert_string_equal(cidr_format(&value, text), expected);
}

static void addresses_parse_and_format(void **state)
{
    static const struct {
        const char *text;
        const char *formatted; /* NULL: refused */
    } rows[] = {
        {"0.0.0.0", "0.0.0.0"},
        {"10.88.0.1", "10.88.0.1"},
        {"255.255.255.255", "255.255.255.255"},
        {"::", "::"},
        {"::1", "::1"},
        {"FD00:0088::0003", "fd00:88::3"},
        {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
        {"::ffff:10.1.2.3", "::ffff:10.1.2.3"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"", NULL},
        {" 10.0.0.1", NULL},
        {"10.0.0.1 ", NULL},
        {"10.0.0.1\n", NULL},
        {"10.0.0", NULL},
        {"10.0.0.0.1", NULL},
        {"10.0.0.256", NULL},
        {"10.0.0.01", NULL},
        {"010.0.0.1", NULL},
        {"0x0a.0.0.1", NULL},
        {"10.0.0.-1", NULL},
        {"10.0.0.+1", NULL},
        {"168430081", NULL},
        {"localhost", NULL},
        {"10.0.0.1/24", NULL},
        {"fe80::1%eth0", NULL},
        {"[::1]", NULL},
        {":::", NULL},
        {"1::2::3", NULL},
        {"1:2:3:4:5:6:7", NULL},
        {"1:2:3:4:5:6:7:8:9", NULL},
        {"00001::", NULL},
        {"g::", NULL},
        {"::10.0.0.256", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct ip value = {.family = 77};
        char text[IP_TEXT_MAX];
        int r = ip_parse(rows[i].text, &value);

        if (!rows[i].formatted) {
            if (r != -EINVAL || value.family != 77)
                fail_msg("\"%s\" was taken", rows[i].text);
            continue;
        }
        if (r != 0)
            fail_msg("\"%s\" was refused", rows[i].text);
        assert_string_equal(ip_format(&value, text), rows[i].formatted);
    }
}

static void reverse_names_are_of_whole_parts(void **state)
{
    static const struct {
        const char *ip;
        unsigned parts;
        const char *name;
    } rows[] = {
        {"10.88.0.1", 4, "1.0.88.10.in-addr.arpa"},
        {"10.88.0.1", 2, "88.10.in-addr.arpa"},
        {"10.88.0.1", 0, "in-addr.arpa"},
        {"fd00:9::1", 16, "0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa"},
        {"fd00:9::1", 1, "f.ip6.arpa"},
        {"2001:db8::fe", 32,
         "e.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"},
    };
    char text[IP_REVERSE_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct ip ip;

        assert_int_equal(ip_parse(rows[i].ip, &ip), 0);
        assert_string_equal(ip_reverse_format(&ip, rows[i].parts, text), rows[i].name);
    }
}

static void an_absent_address_is_empty_text(void **state)
{
    struct ip absent = {0};
    struct cidr no_cidr = {0};
    struct mac no_mac = {0};
    char text[CIDR_TEXT_MAX] = "x";

    (void)state;
    assert_string_equal(ip_format(&absent, text), "");
    assert_string_equal(cidr_format(&no_cidr, text), "");
    assert_string_equal(mac_format(&no_mac, text), "");
    assert_false(ip_is_set(&absent));
    assert_false(cidr_is_set(&no_cidr));
    assert_false(mac_is_set(&no_mac));
}

static void v4_values_are_in_host_order(void **state)
{
    struct ip six = ip("::1");

    (void)state;
    assert_ip(ip_from_v4(0x0a580001), "10.88.0.1");
    struct ip four = ip("10.88.0.1");
    assert_int_equal(ip_to_v4(&four), 0x0a580001);
    assert_int_equal(ip_to_v4(&six), 0);
    for (size_t i = 4; i < sizeof(four.bytes); i++)
        assert_int_equal(four.bytes[i], 0);
    assert_int_equal(ip_bits(AF_INET), 32);
    assert_int_equal(ip_bits(AF_INET6), 128);
}

static void addresses_are_ordered_by_family_and_value(void **state)
{
    static const char *const ordered[] = {"0.0.0.1", "9.255.0.0", "10.0.0.0", "10.0.0.1",
                                          "::",      "::2",       "fd00::"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(ordered); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(ordered); j++) {
            struct ip a = ip(ordered[i]);
            struct ip b = ip(ordered[j]);
            int order = ip_compare(&a, &b);

            assert_int_equal(i < j, order < 0);
            assert_int_equal(i > j, order > 0);
            assert_int_equal(i == j, ip_equal(&a, &b));
        }
    }
    struct ip absent = {0};
    struct ip other = {.bytes = {9}};
    assert_true(ip_equal(&absent, &other));
}

static void addition_carries_and_wraps(void **state)
{
    static const struct {
        const char *from;
        int64_t offset;
        const char *sum;
    } rows[] = {
        {"10.0.0.1", 0, "10.0.0.1"},
        {"10.0.0.255", 1, "10.0.1.0"},
        {"10.0.1.0", -1, "10.0.0.255"},
        {"10.255.255.255", 1, "11.0.0.0"},
        {"255.255.255.255", 1, "0.0.0.0"},
        {"0.0.0.0", -1, "255.255.255.255"},
        {"10.0.0.0", 0xffffff, "10.255.255.255"},
        {"::", -1, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"::ffff:ffff:ffff:ffff", 1, "0:0:0:1::"},
        {"fd00::1:0:0:0:0", -1, "fd00::ffff:ffff:ffff:ffff"},
        {"fd00::", INT64_MAX, "fd00::7fff:ffff:ffff:ffff"},
        {"fd00::8000:0:0:0", INT64_MIN, "fd00::"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 2, "::1"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct ip from = ip(rows[i].from);

        assert_ip(ip_add(&from, rows[i].offset), rows[i].sum);
    }
}

static void prefixes_parse_and_format(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        {"10.88.0.0/16", true},
        {"10.88.0.1/16", true},
        {"0.0.0.0/0", true},
        {"1.2.3.4/32", true},
        {"::/0", true},
        {"fd00:88::/64", true},
        {"fd00:88::1/128", true},
        {"10.0.0.0", false},
        {"10.0.0.0/", false},
        {"/8", false},
        {"10.0.0.0/33", false},
        {"fd00::/129", false},
        {"10.0.0.0/08", false},
        {"10.0.0.0/00", false},
        {"10.0.0.0/+8", false},
        {"10.0.0.0/-8", false},
        {"10.0.0.0/ 8", false},
        {"10.0.0.0/8 ", false},
        {"10.0.0.0/8/8", false},
        {"10.0.0.0/255.0.0.0", false},
        {"10.0.0/8", false},
        {"10.0.0.0/4294967304", false},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/8", false},
        {"fe80::1%eth0/64", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct cidr value = {.prefix = 99};
        char text[CIDR_TEXT_MAX];
        int r = cidr_parse(rows[i].text, &value);

        if ((r == 0) != rows[i].good)
            fail_msg("\"%s\" was %s", rows[i].text, r == 0 ? "taken" : "refused");
        if (rows[i].good)
            assert_string_equal(cidr_format(&value, text), rows[i].text);
        else
            assert_int_equal(value.prefix, 99);
    }
}

/* Every prefix length against shifts of a 32-bit value. */
static void v4_prefix_arithmetic_is_right_for_every_length(void **state)
{
    static const uint32_t values[] = {0,          0x0a58fffe, 0xac1f8001,
                                      0xc0a80ac8, 0xffffffff, 0x01020304};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        for (unsigned prefix = 0; prefix <= 32; prefix++) {
            uint32_t mask = prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
            struct cidr value = {.ip = ip_from_v4(values[i]), .prefix = (uint8_t)prefix};
            struct ip first = cidr_first(&value);
            struct ip last = cidr_last(&value);
            struct cidr masked = cidr_mask(&value);

            assert_int_equal(ip_to_v4(&first), values[i] & mask);
            assert_int_equal(ip_to_v4(&last), values[i] | ~mask);
            assert_true(ip_equal(&masked.ip, &first));
            assert_int_equal(masked.prefix, prefix);
            assert_int_equal(cidr_has_host_bits(&value), (values[i] & ~mask) != 0);
            assert_true(cidr_contains_ip(&value, &first));
            assert_true(cidr_contains_ip(&value, &last));
            if (prefix > 0) {
                struct ip before = ip_add(&first, -1);
                struct ip after = ip_add(&last, 1);

                assert_false(cidr_contains_ip(&value, &before));
                assert_false(cidr_contains_ip(&value, &after));
            }
        }
    }
}

static void v6_prefix_arithmetic_is_right(void **state)
{
    static const struct {
        const char *cidr;
        const char *first;
        const char *last;
    } rows[] = {
        {"fd00:88::5/64", "fd00:88::", "fd00:88::ffff:ffff:ffff:ffff"},
        {"fd00:88::5/127", "fd00:88::4", "fd00:88::5"},
        {"fd00:88::5/128", "fd00:88::5", "fd00:88::5"},
        {"fd12:3456:789a::1/7", "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"fd00:88::1/61", "fd00:88::", "fd00:88:0:7:ffff:ffff:ffff:ffff"},
        {"::1/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct cidr value = cidr(rows[i].cidr);

        assert_ip(cidr_first(&value), rows[i].first);
        assert_ip(cidr_last(&value), rows[i].last);
    }
    struct cidr value = cidr("fd00:88::5/64");
    assert_cidr(cidr_mask(&value), "fd00:88::/64");
}

static void overlap_is_containment_of_one_in_the_other(void **state)
{
    static const struct {
        const char *a;
        const char *b;
        bool a_has_b;
        bool b_has_a;
    } rows[] = {
        {"10.88.0.0/16", "10.88.0.0/16", true, true},
        {"10.88.0.1/16", "10.88.9.0/16", true, true},
        {"10.0.0.0/8", "10.88.0.0/16", true, false},
        {"10.88.0.0/16", "10.89.0.0/16", false, false},
        {"10.88.0.0/15", "10.89.0.0/16", true, false},
        {"0.0.0.0/0", "1.2.3.4/32", true, false},
        {"10.88.0.0/30", "10.88.0.4/30", false, false},
        {"::/0", "10.0.0.0/8", false, false},
        {"fd00::/8", "fd00:88::/64", true, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct cidr a = cidr(rows[i].a);
        struct cidr b = cidr(rows[i].b);
        bool overlap = rows[i].a_has_b || rows[i].b_has_a;

        assert_int_equal(cidr_contains(&a, &b), rows[i].a_has_b);
        assert_int_equal(cidr_contains(&b, &a), rows[i].b_has_a);
        assert_int_equal(cidr_overlaps(&a, &b), overlap);
        assert_int_equal(cidr_overlaps(&b, &a), overlap);
    }
    struct cidr absent = {0};
    struct cidr any = cidr("0.0.0.0/0");
    struct ip no_ip = {0};
    assert_false(cidr_overlaps(&absent, &any));
    assert_false(cidr_overlaps(&any, &absent));
    assert_false(cidr_overlaps(&absent, &absent));
    assert_false(cidr_contains_ip(&absent, &no_ip));
    assert_false(cidr_contains_ip(&any, &no_ip));
}

static void prefixes_are_equal_bit_by_bit(void **state)
{
    struct cidr a = cidr("10.0.0.1/8");
    struct cidr b = cidr("10.0.0.0/8");
    struct cidr c = cidr("10.0.0.1/9");
    struct cidr absent = {0};
    struct cidr absent_too = {.prefix = 5};

    (void)state;
    assert_true(cidr_equal(&a, &a));
    assert_false(cidr_equal(&a, &b));
    assert_false(cidr_equal(&a, &c));
    assert_false(cidr_equal(&a, &absent));
    assert_true(cidr_equal(&absent, &absent_too));
}

static void macs_parse_and_format(void **state)
{
    static const struct {
        const char *text;
        const char *formatted;
    } rows[] = {
        {"02:42:0a:58:00:02", "02:42:0a:58:00:02"},
        {"AA-BB-CC-DD-EE-FF", "aa:bb:cc:dd:ee:ff"},
        {"02:42:0a:58:00", NULL},
        {"02:42:0a:58:00:02:03", NULL},
        {"02:42-0a:58:00:02", NULL},
        {"02:42:0a:58:00:0g", NULL},
        {"0242.0a58.0002", NULL},
        {"2:42:a:58:0:2", NULL},
        {"02:42:0a:58:00:02 ", NULL},
        {" 2:42:0a:58:00:02", NULL},
        {"0242:0a:58:00:022", NULL},
        {"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct mac mac = {{9, 9, 9, 9, 9, 9}};
        char text[MAC_TEXT_MAX];
        int r = mac_parse(rows[i].text, &mac);

        if (!rows[i].formatted) {
            if (r != -EINVAL || mac.bytes[0] != 9)
                fail_msg("\"%s\" was taken", rows[i].text);
            continue;
        }
        assert_int_equal(r, 0);
        assert_true(mac_is_set(&mac));
        assert_string_equal(mac_format(&mac, text), rows[i].formatted);
    }
}

static void kinds_of_addresses_are_told_apart(void **state)
{
    enum { LOOPBACK = 1, MULTICAST = 2, UNSPECIFIED = 4, LINK_LOCAL = 8 };
    static const struct {
        const char *text;
        int kinds;
    } rows[] = {
        {"127.0.0.1", LOOPBACK},
        {"127.255.255.255", LOOPBACK},
        {"126.255.255.255", 0},
        {"128.0.0.0", 0},
        {"::1", LOOPBACK},
        {"::2", 0},
        {"223.255.255.255", 0},
        {"224.0.0.1", MULTICAST},
        {"239.255.255.255", MULTICAST},
        {"240.0.0.0", 0},
        {"ff02::1", MULTICAST},
        {"fe00::1", 0},
        {"0.0.0.0", UNSPECIFIED},
        {"0.0.0.1", 0},
        {"::", UNSPECIFIED},
        {"169.254.0.1", LINK_LOCAL},
        {"169.253.255.255", 0},
        {"169.255.0.0", 0},
        {"fe80::1", LINK_LOCAL},
        {"febf::1", LINK_LOCAL},
        {"fec0::1", 0},
        {"10.0.0.1", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct ip value = ip(rows[i].text);
        int kinds = (ip_is_loopback(&value) ? LOOPBACK : 0) |
                    (ip_is_multicast(&value) ? MULTICAST : 0) |
                    (ip_is_unspecified(&value) ? UNSPECIFIED : 0) |
                    (ip_is_link_local(&value) ? LINK_LOCAL : 0);

        if (kinds != rows[i].kinds)
            fail_msg("%s: kinds %d, not %d", rows[i].text, kinds, rows[i].kinds);
    }
    struct ip absent = {0};
    assert_false(ip_is_loopback(&absent) || ip_is_multicast(&absent) ||
                 ip_is_unspecified(&absent) || ip_is_link_local(&absent));
}

static void sockaddrs_are_filled(void **state)
{
    struct sockaddr_storage storage;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct ip four = ip("10.0.0.1");
    struct ip six = ip("fd00::1");

    (void)state;
    assert_int_equal(ip_to_sockaddr(&four, 8080, &storage), sizeof(in));
    memcpy(&in, &storage, sizeof(in));
    assert_int_equal(in.sin_family, AF_INET);
    assert_int_equal(ntohs(in.sin_port), 8080);
    assert_int_equal(ntohl(in.sin_addr.s_addr), 0x0a000001);

    assert_int_equal(ip_to_sockaddr(&six, 53, &storage), sizeof(in6));
    memcpy(&in6, &storage, sizeof(in6));
    assert_int_equal(in6.sin6_family, AF_INET6);
    assert_int_equal(ntohs(in6.sin6_port), 53);
    assert_memory_equal(&in6.sin6_addr, six.bytes, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_parse_and_format),
        cmocka_unit_test(reverse_names_are_of_whole_parts),
        cmocka_unit_test(an_absent_address_is_empty_text),
        cmocka_unit_test(v4_values_are_in_host_order),
        cmocka_unit_test(addresses_are_ordered_by_family_and_value),
        cmocka_unit_test(addition_carries_and_wraps),
        cmocka_unit_test(prefixes_parse_and_format),
        cmocka_unit_test(v4_prefix_arithmetic_is_right_for_every_length),
        cmocka_unit_test(v6_prefix_arithmetic_is_right),
        cmocka_unit_test(overlap_is_containment_of_one_in_the_other),
        cmocka_unit_test(prefixes_are_equal_bit_by_bit),
        cmocka_unit_test(macs_parse_and_format),
        cmocka_unit_test(kinds_of_addresses_are_told_apart),
        cmocka_unit_test(sockaddrs_are_filled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
