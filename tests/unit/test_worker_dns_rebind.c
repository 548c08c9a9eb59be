/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of the inside in answers from outside. */
#include "dns_wire.h"

#include "worker/dns_rebind.h"

static struct zone *zone_make(void)
{
    struct zone_network config = {.id = 1};
    struct zone_network *network;
    struct zone *zone;

    assert_int_equal(zone_new("moat.internal", 60, NULL, NULL, &zone), 0);
    assert_int_equal(cidr_parse("203.0.113.0/24", &config.subnet), 0);
    assert_int_equal(dns_name_parse("default", &config.label), 0);
    assert_int_equal(zone_network_set(zone, &config, &network), 0);
    return zone;
}

static bool found(const struct zone *zone, unsigned type, const void *rdata, size_t length)
{
    static struct message message;
    struct dns_answer answer;

    put_header(&message, 1, 0x8180, 1, 2, 0, 1);
    put_question(&message, "www.example.org", type);
    put_record(&message, 0xc00c, 5, 60, "\3cdn\xc0\x10", 6);
    put_record(&message, 0xc02d, type, 60, rdata, length);
    put_opt(&message, 1232, 0, 0);
    assert_true(dns_answer_parse(message.data, message.length, &answer));
    return dns_rebind_found(zone, message.data, &answer);
}

static void addresses(void **state)
{
    static const struct {
        const char *ip;
        bool inside;
    } rows[] = {
        {"10.1.2.3", true},
        {"172.16.0.1", true},
        {"172.32.0.1", false},
        {"192.168.255.255", true},
        {"127.0.0.1", true},
        {"0.0.0.0", true},
        {"169.254.169.254", true},
        {"100.64.0.1", true},
        {"224.0.0.1", true},
        {"8.8.8.8", false},
        {"203.0.113.7", true}, /* a network of ours */
        {"203.0.114.7", false},
        {"::1", true},
        {"::", true},
        {"fd00::1", true},
        {"fe80::1", true},
        {"::ffff:10.0.0.1", true},
        {"2001:4860:4860::8888", false},
        {"64:ff9b::7f00:1", true},
    };
    struct zone *zone = zone_make();

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ip ip;
        bool v6 = strchr(rows[i].ip, ':');

        assert_int_equal(ip_parse(rows[i].ip, &ip), 0);
        if (found(zone, v6 ? 28 : 1, ip.bytes, v6 ? 16 : 4) != rows[i].inside)
            fail_msg("%s", rows[i].ip);
    }
    zone_free(zone);
}

static void hints(void **state)
{
    static const struct {
        const char *rdata;
        size_t length;
        bool inside;
    } rows[] = {
        {"\0\1\0", 3, false},
        {"\0\1\3svc\0\0\1\0\3\2h2\0\4\0\4\10\10\10\10", 22, false},
        {"\0\1\0\0\4\0\4\12\0\0\1", 11, true},
        {"\0\1\0\0\4\0\10\10\10\10\10\300\250\0\1", 15, true},
        {"\0\1\0\0\1\0\3\2h2\0\4\0\4\177\0\0\1", 18, true},
        {"\0\1\0\0\6\0\20\375\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 23, true},
        {"\0\1\0\0\4\0\5\12\0\0\1", 11, false}, /* malformed: no client takes it */
        {"\0\1\0\0\4\0\3\12\0\0", 10, false},
        {"\0\1\300\14", 4, false},
        {"\0", 1, false},
    };
    struct zone *zone = zone_make();

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(found(zone, 65, rows[i].rdata, rows[i].length), rows[i].inside);
        assert_int_equal(found(zone, 64, rows[i].rdata, rows[i].length), rows[i].inside);
        assert_false(found(zone, 16, rows[i].rdata, rows[i].length));
    }
    zone_free(zone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(hints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
