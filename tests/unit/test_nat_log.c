/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading the packets that the kernel tells of: no root. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nat/log.h"

#define PACKET_MAX 256

static const uint8_t addresses4[] = {10, 88, 0, 2, 192, 0, 2, 7};
static const uint8_t addresses6[] = {
    0xfd, 0, 0, 0x88, [15] = 2, [16] = 0x20, 1, 0xd, 0xb8, [31] = 7};

/* A header of that many 32-bit words, then the ports. */
static size_t build4(uint8_t *packet, uint8_t words, uint8_t protocol, uint16_t fragment,
                     uint16_t port)
{
    memset(packet, 0, PACKET_MAX);
    packet[0] = (uint8_t)(0x40 | words);
    packet[6] = (uint8_t)(fragment >> 8);
    packet[7] = (uint8_t)fragment;
    packet[9] = protocol;
    memcpy(packet + 12, addresses4, sizeof(addresses4));
    packet[words * 4 + 2] = (uint8_t)(port >> 8);
    packet[words * 4 + 3] = (uint8_t)port;
    return (size_t)words * 4 + 8;
}

static size_t build6(uint8_t *packet, const uint8_t *headers, size_t count, uint16_t port)
{
    size_t at = 40;

    memset(packet, 0, PACKET_MAX);
    packet[0] = 0x60;
    memcpy(packet + 8, addresses6, sizeof(addresses6));
    packet[6] = headers[0];
    for (size_t i = 1; i < count; i++, at += 8)
        packet[at] = headers[i];
    packet[at + 2] = (uint8_t)(port >> 8);
    packet[at + 3] = (uint8_t)port;
    return at + 8;
}

static void assert_entry(const struct nat_log_entry *entry, const char *source,
                         const char *destination, uint8_t protocol, uint16_t port)
{
    char text[IP_TEXT_MAX];

    assert_string_equal(ip_format(&entry->source, text), source);
    assert_string_equal(ip_format(&entry->destination, text), destination);
    assert_int_equal(entry->protocol, protocol);
    assert_int_equal(entry->port, port);
}

static void ipv4_is_read(void **state)
{
    static const struct {
        uint8_t words;
        uint8_t protocol;
        uint16_t fragment;
        uint16_t port;
        uint16_t wanted;
    } rows[] = {
        {5, IPPROTO_TCP, 0, 443, 443},     {15, IPPROTO_TCP, 0, 443, 443},
        {5, IPPROTO_UDP, 0, 65535, 65535}, {5, IPPROTO_ICMP, 0, 443, 0},
        {5, IPPROTO_TCP, 0x0005, 443, 0},  {5, IPPROTO_TCP, 0x2000, 443, 443},
        {5, IPPROTO_SCTP, 0x4000, 80, 80},
    };
    uint8_t packet[PACKET_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nat_log_entry entry = {0};
        size_t length =
            build4(packet, rows[i].words, rows[i].protocol, rows[i].fragment, rows[i].port);

        assert_int_equal(nat_log_parse_packet(packet, length, &entry), 0);
        assert_entry(&entry, "10.88.0.2", "192.0.2.7", rows[i].protocol, rows[i].wanted);
    }
}

static void ipv6_is_read_behind_extension_headers(void **state)
{
    static const struct {
        uint8_t headers[4];
        size_t count;
        uint8_t protocol;
        uint16_t wanted;
    } rows[] = {
        {{IPPROTO_TCP}, 1, IPPROTO_TCP, 443},
        {{IPPROTO_HOPOPTS, IPPROTO_UDP}, 2, IPPROTO_UDP, 443},
        {{IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_TCP}, 4, IPPROTO_TCP, 443},
        {{IPPROTO_FRAGMENT, IPPROTO_TCP}, 2, IPPROTO_FRAGMENT, 0},
        {{IPPROTO_ICMPV6}, 1, IPPROTO_ICMPV6, 0},
        {{IPPROTO_NONE}, 1, IPPROTO_NONE, 0},
    };
    uint8_t packet[PACKET_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nat_log_entry entry = {0};
        size_t length = build6(packet, rows[i].headers, rows[i].count, 443);

        assert_int_equal(nat_log_parse_packet(packet, length, &entry), 0);
        assert_entry(&entry, "fd00:88::2", "2001:db8::7", rows[i].protocol, rows[i].wanted);
    }
}

static void what_is_cut_short_is_told_without_a_port_or_not_at_all(void **state)
{
    static const uint8_t tcp6[] = {IPPROTO_TCP};
    uint8_t packet[PACKET_MAX];
    struct nat_log_entry entry = {0};

    (void)state;
    build4(packet, 5, IPPROTO_TCP, 0, 443);
    for (size_t length = 0; length < 20; length++)
        assert_int_equal(nat_log_parse_packet(packet, length, &entry), -EINVAL);
    for (size_t length = 20; length < 24; length++) {
        assert_int_equal(nat_log_parse_packet(packet, length, &entry), 0);
        assert_int_equal(entry.port, 0);
    }
    build4(packet, 4, IPPROTO_TCP, 0, 443); /* shorter than a header can be */
    assert_int_equal(nat_log_parse_packet(packet, 64, &entry), -EINVAL);
    build6(packet, tcp6, 1, 443);
    for (size_t length = 0; length < 40; length++)
        assert_int_equal(nat_log_parse_packet(packet, length, &entry), -EINVAL);
    for (size_t length = 40; length < 44; length++) {
        assert_int_equal(nat_log_parse_packet(packet, length, &entry), 0);
        assert_int_equal(entry.port, 0);
    }
    packet[0] = 0x50;
    assert_int_equal(nat_log_parse_packet(packet, 64, &entry), -EINVAL);
}

/* Under ASan: nothing is read beyond what is there. */
static void any_bytes_are_read_within_their_bounds(void **state)
{
    unsigned seed = 7;

    (void)state;
    for (int i = 0; i < 50000; i++) {
        size_t length = (size_t)rand_r(&seed) % 100;
        uint8_t *data = malloc(length ? length : 1);
        struct nat_log_entry entry = {0};

        for (size_t j = 0; j < length; j++)
            data[j] = (uint8_t)rand_r(&seed);
        if (length > 6) {
            data[0] = i % 2 ? 0x45 : 0x60;
            data[6] = i % 3 ? IPPROTO_HOPOPTS : data[6];
        }
        int r = nat_log_parse_packet(data, length, &entry);
        assert_true(r == 0 || r == -EINVAL);
        free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv4_is_read),
        cmocka_unit_test(ipv6_is_read_behind_extension_headers),
        cmocka_unit_test(what_is_cut_short_is_told_without_a_port_or_not_at_all),
        cmocka_unit_test(any_bytes_are_read_within_their_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
