/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "worker/dhcp4.h"
#include "worker/dhcp6.h"
#include "worker/dhcp_frame.h"
#include "worker/dhcp_nd.h"
#include "worker/dhcp_ra.h"

static struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    assert_int_equal(ip_parse(text, &ip), 0);
    return ip;
}

static struct dhcp_port port_make(void)
{
    struct dhcp_port port = {
        .mac = {{2, 0x6d, 10, 88, 0, 5}},
        .server_mac = {{2, 0x6d, 10, 88, 0, 1}},
        .ip = ip_of("10.88.0.5"),
        .gateway = ip_of("10.88.0.1"),
        .ip6 = ip_of("fd00:88::5"),
        .prefix = 16,
        .prefix6 = 64,
        .default_route = true,
        .default_route6 = true,
        .on_link6 = true,
        .mtu = 1500,
        .lease_s = 3600,
        .host_name = "vm",
        .n_search = 1,
        .search = {"moat.internal"},
    };

    port.dns.items[port.dns.count++] = port.gateway;
    port.dns6.items[port.dns6.count++] = ip_of("fd00:88::1");
    return port;
}

/* --- frames --- */

static const char *const pairs[][2] = {{"10.88.0.1", "255.255.255.255"}, {"fe80::1", "ff02::1"}};

/* What is built is read again as it was, and its checksums are right. */
static void frames_come_back(void **state)
{
    static const uint8_t payload[] = "an odd number of bytes";

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct frame frame = {.source_mac = {{1, 2, 3, 4, 5, 6}},
                              .destination_mac = {{7, 8, 9, 10, 11, 12}},
                              .source = ip_of(pairs[i][0]),
                              .destination = ip_of(pairs[i][1]),
                              .protocol = IPPROTO_UDP,
                              .hop_limit = 64,
                              .source_port = 67,
                              .destination_port = 68,
                              .payload = payload,
                              .length = sizeof(payload)};
        uint8_t buffer[FRAME_MAX];
        size_t length = frame_build(&frame, buffer, sizeof(buffer));
        struct frame read;

        assert_true(length > sizeof(payload));
        assert_true(frame_parse(buffer, length, false, &read));
        assert_true(ip_equal(&read.source, &frame.source));
        assert_true(ip_equal(&read.destination, &frame.destination));
        assert_true(mac_equal(&read.source_mac, &frame.source_mac));
        assert_int_equal(read.destination_port, 68);
        assert_int_equal(read.length, sizeof(payload));
        assert_memory_equal(read.payload, payload, sizeof(payload));
        assert_true(frame_parse(memset(buffer + length, 0, 10) ? buffer : NULL, length + 10, false,
                                &read)); /* padding */
        assert_int_equal(read.length, sizeof(payload));
    }
}

static void frames_that_were_damaged_are_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct frame frame = {.source = ip_of(pairs[i][0]),
                              .destination = ip_of(pairs[i][1]),
                              .protocol = IPPROTO_UDP,
                              .source_port = 68,
                              .destination_port = 67,
                              .payload = (const uint8_t *)"data",
                              .length = 4};
        uint8_t buffer[FRAME_MAX];
        size_t length = frame_build(&frame, buffer, sizeof(buffer));
        struct frame read;

        for (size_t cut = 0; cut < length; cut++)
            assert_false(frame_parse(buffer, cut, false, &read));
        buffer[length - 1] ^= 1;
        assert_false(frame_parse(buffer, length, false, &read));
        assert_true(frame_parse(buffer, length, true, &read));
        assert_int_equal(frame_build(&frame, buffer, length - 1), 0);
    }
}

static void fragments_are_none(void **state)
{
    struct frame frame = {.source = ip_of("10.88.0.5"),
                          .destination = ip_of("10.88.0.1"),
                          .protocol = IPPROTO_UDP,
                          .payload = (const uint8_t *)"data",
                          .length = 4};
    uint8_t buffer[FRAME_MAX];
    size_t length = frame_build(&frame, buffer, sizeof(buffer));
    struct frame read;

    (void)state;
    buffer[14 + 6] = 0x20; /* more fragments; the sum over the header with it */
    buffer[14 + 10] = (uint8_t)(buffer[14 + 10] - 0x20);
    assert_false(frame_parse(buffer, length, true, &read));
}

/* --- DHCPv4 --- */

struct message {
    uint8_t data[1500];
    size_t length;
};

static void message_make(struct message *message, const struct dhcp_port *port, uint8_t type)
{
    static const uint8_t cookie[] = {99, 130, 83, 99, 53, 1};

    memset(message, 0, sizeof(*message));
    message->data[0] = message->data[1] = 1;
    message->data[2] = 6;
    memcpy(message->data + 28, port->mac.bytes, 6);
    memcpy(message->data + 236, cookie, sizeof(cookie));
    message->data[242] = type;
    message->length = 243;
}

static void message_put(struct message *message, uint8_t code, const void *data, uint8_t length)
{
    message->data[message->length++] = code;
    message->data[message->length++] = length;
    memcpy(message->data + message->length, data, length);
    message->length += length;
}

static const uint8_t *option_find(const struct dhcp4_reply *reply, uint8_t code,
                                  uint8_t *ret_length)
{
    for (size_t at = 240; at < reply->length && reply->data[at] != 255;) {
        if (reply->data[at] == code) {
            *ret_length = reply->data[at + 1];
            return reply->data + at + 2;
        }
        at += reply->data[at] ? 2u + reply->data[at + 1] : 1u;
    }
    return NULL;
}

static bool answer(const struct message *message, const struct dhcp_port *port,
                   struct dhcp4_reply *reply)
{
    struct dhcp4_request request;

    return dhcp4_request_parse(message->data, message->length, &request) &&
           dhcp4_answer(port, &request, reply);
}

/* RFC 2131 section 4.3.2, table 4: type, requested, server, ciaddr -> answer. */
static void requests_are_decided(void **state)
{
    static const struct {
        uint8_t type;
        const char *requested, *server, *ciaddr;
        uint8_t answer; /* 0: none */
    } rows[] = {
        {DHCP4_DISCOVER, NULL, NULL, NULL, DHCP4_OFFER},
        {DHCP4_DISCOVER, "10.88.0.77", NULL, NULL, DHCP4_OFFER},
        {DHCP4_REQUEST, "10.88.0.5", "10.88.0.1", NULL, DHCP4_ACK},
        {DHCP4_REQUEST, "10.88.0.6", "10.88.0.1", NULL, DHCP4_NAK},
        {DHCP4_REQUEST, "10.88.0.5", "10.88.0.2", NULL, 0},
        {DHCP4_REQUEST, "10.88.0.5", NULL, NULL, DHCP4_ACK},
        {DHCP4_REQUEST, "192.0.2.1", NULL, NULL, DHCP4_NAK},
        {DHCP4_REQUEST, NULL, NULL, "10.88.0.5", DHCP4_ACK},
        {DHCP4_REQUEST, NULL, NULL, "10.88.0.6", DHCP4_NAK},
        {DHCP4_REQUEST, NULL, NULL, NULL, 0},
        {DHCP4_INFORM, NULL, NULL, "10.88.0.5", DHCP4_ACK},
        {DHCP4_INFORM, NULL, NULL, "10.88.0.6", 0},
        {DHCP4_RELEASE, NULL, "10.88.0.1", "10.88.0.5", 0},
        {DHCP4_DECLINE, "10.88.0.5", "10.88.0.1", NULL, 0},
        {DHCP4_OFFER, NULL, NULL, NULL, 0},
        {DHCP4_ACK, NULL, NULL, NULL, 0},
    };
    struct dhcp_port port = port_make();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct message message;
        struct dhcp4_reply reply = {0};
        struct ip ip;

        message_make(&message, &port, rows[i].type);
        if (rows[i].ciaddr) {
            ip = ip_of(rows[i].ciaddr);
            memcpy(message.data + 12, ip.bytes, 4);
        }
        if (rows[i].requested) {
            ip = ip_of(rows[i].requested);
            message_put(&message, 50, ip.bytes, 4);
        }
        if (rows[i].server) {
            ip = ip_of(rows[i].server);
            message_put(&message, 54, ip.bytes, 4);
        }
        if (answer(&message, &port, &reply) != (rows[i].answer != 0) ||
            (rows[i].answer && reply.type != rows[i].answer))
            fail_msg("row %zu: answered %d instead of %d", i, reply.type, rows[i].answer);
    }
}

static void nothing_malformed_is_a_request(void **state)
{
    struct dhcp_port port = port_make();
    struct dhcp4_request request;
    struct message message;

    (void)state;
    message_make(&message, &port, DHCP4_DISCOVER);
    message_put(&message, 61, "identifier", 10);
    assert_true(dhcp4_request_parse(message.data, message.length, &request));
    assert_int_equal(request.client_id_length, 10);
    for (size_t cut = 0; cut < 243; cut++)
        assert_false(dhcp4_request_parse(message.data, cut, &request));
    for (size_t cut = 244; cut < message.length; cut++) /* an option that is cut off */
        assert_false(dhcp4_request_parse(message.data, cut, &request));
    static const size_t header[] = {0, 1, 2, 3, 24, 27, 236};
    for (size_t i = 0; i < ARRAY_SIZE(header); i++) {
        message.data[header[i]] ^= 9;
        assert_false(dhcp4_request_parse(message.data, message.length, &request));
        message.data[header[i]] ^= 9;
    }
}

static void long_answers_leave_the_last_names_out(void **state)
{
    struct dhcp_port port = port_make();
    struct dhcp4_reply reply = {0};
    struct message message;
    uint8_t length = 0;

    (void)state;
    port.n_search = DHCP_SEARCH_MAX;
    for (unsigned i = 1; i < DHCP_SEARCH_MAX; i++)
        snprintf(port.search[i], DHCP_DOMAIN_MAX, "%0*d.%0*d.example", 60, 0, 60, 0);
    message_make(&message, &port, DHCP4_DISCOVER);
    assert_true(answer(&message, &port, &reply));
    assert_true(reply.length <= 548);
    assert_non_null(option_find(&reply, 119, &length));
    assert_int_equal(reply.data[reply.length - 1] == 255 || reply.data[reply.length - 1] == 0, 1);
    message_put(&message, 57, "\xff\xff", 2);
    assert_true(answer(&message, &port, &reply));
    assert_true(reply.length > 1000 && reply.length <= DHCP4_MESSAGE_MAX);
}

/* --- DHCPv6 --- */

static const uint8_t solicit[] = {
    1, 9, 8, 7,                                      /* SOLICIT */
    0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 9,       /* client identifier */
    0, 3, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, /* IA_NA */
};

static void a_solicitation_is_answered(void **state)
{
    struct dhcp_port port = port_make();
    struct dhcp6_request request;
    struct dhcp6_reply reply = {0};
    struct ip ip6;

    (void)state;
    assert_true(dhcp6_request_parse(solicit, sizeof(solicit), &request));
    assert_true(dhcp6_answer(&port, &request, &reply));
    assert_int_equal(reply.data[0], DHCP6_ADVERTISE);
    assert_memory_equal(reply.data + 1, "\x09\x08\x07", 3);
    assert_memory_equal(reply.data + 4, solicit + 4, 14); /* the client's identifier */
    ip6 = ip_from_bytes(AF_INET6, reply.data + 4 + 14 + 14 + 16 + 4);
    assert_true(ip_equal(&ip6, &port.ip6));
    port.ip6 = (struct ip){0};
    assert_false(dhcp6_answer(&port, &request, &reply));
    for (size_t cut = 5; cut < sizeof(solicit); cut++) {
        if (cut != 4 + 14)
            assert_false(dhcp6_request_parse(solicit, cut, &request));
    }
}

/* --- router advertisements --- */

static void an_advertisement_is_what_rfc4861_says(void **state)
{
    struct dhcp_port port = port_make();
    uint8_t data[RA_MAX];
    size_t length = ra_write(&port, data);

    (void)state;
    assert_int_equal(data[0], 134);
    assert_int_equal(data[5], 0xc0);
    assert_int_equal(data[6] << 8 | data[7], RA_ROUTER_LIFETIME_S);
    for (size_t at = 16; at < length; at += (size_t)data[at + 1] * 8)
        assert_true(data[at + 1] > 0 && at + (size_t)data[at + 1] * 8 <= length);
    port.default_route6 = false;
    ra_write(&port, data);
    assert_int_equal(data[6] << 8 | data[7], 0);
}

/* --- neighbours --- */

/* From the guest's link-local address, for an address of its subnet. */
static struct frame solicitation_make(const struct dhcp_port *port, uint8_t message[32])
{
    struct ip target = ip_add(&port->ip6, 1);

    memset(message, 0, 32);
    message[0] = ND_SOLICITATION;
    memcpy(message + 8, target.bytes, 16);
    message[24] = 1;
    message[25] = 1;
    return (struct frame){.source = {AF_INET6, {0xfe, 0x80, [15] = 9}},
                          .protocol = IPPROTO_ICMPV6,
                          .hop_limit = 255,
                          .payload = message,
                          .length = 32};
}

static void the_host_answers_for_neighbours_of_routed_ports(void **state)
{
    struct dhcp_port port = port_make();
    uint8_t message[32];
    uint8_t answer[ND_ADVERTISEMENT_SIZE];
    struct ip target = {0};

    (void)state;
    port.on_link6 = false;
    struct frame frame = solicitation_make(&port, message);
    assert_true(nd_solicitation_is_answered(&port, &frame, &target));
    assert_memory_equal(target.bytes, message + 8, 16);
    nd_write(&port, &target, answer);
    assert_int_equal(answer[0], 136);
    assert_int_equal(answer[4], 0x40);
    assert_memory_equal(answer + 8, target.bytes, 16);
    assert_memory_equal(answer + 26, port.server_mac.bytes, 6);
    port.on_link6 = true;
    assert_false(nd_solicitation_is_answered(&port, &frame, &target));
}

static void other_solicitations_are_not_answered(void **state)
{
    struct dhcp_port port = port_make();
    uint8_t message[32];
    struct ip target = {0};

    (void)state;
    port.on_link6 = false;
    struct frame frame = solicitation_make(&port, message);
    frame.hop_limit = 254; /* from beyond the link */
    assert_false(nd_solicitation_is_answered(&port, &frame, &target));
    frame = solicitation_make(&port, message);
    frame.source = (struct ip){.family = AF_INET6}; /* is it a duplicate? */
    assert_false(nd_solicitation_is_answered(&port, &frame, &target));
    frame = solicitation_make(&port, message);
    memcpy(message + 8, port.ip6.bytes, 16); /* its own */
    assert_false(nd_solicitation_is_answered(&port, &frame, &target));
    frame = solicitation_make(&port, message);
    message[8] ^= 1; /* beyond the subnet */
    assert_false(nd_solicitation_is_answered(&port, &frame, &target));
    frame = solicitation_make(&port, message);
    message[25] = 0; /* an option without length */
    assert_false(nd_solicitation_is_answered(&port, &frame, &target));
    frame = solicitation_make(&port, message);
    for (frame.length = 0; frame.length < 32; frame.length++)
        if (frame.length != 24)
            assert_false(nd_solicitation_is_answered(&port, &frame, &target));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_back),
        cmocka_unit_test(frames_that_were_damaged_are_none),
        cmocka_unit_test(fragments_are_none),
        cmocka_unit_test(requests_are_decided),
        cmocka_unit_test(nothing_malformed_is_a_request),
        cmocka_unit_test(long_answers_leave_the_last_names_out),
        cmocka_unit_test(a_solicitation_is_answered),
        cmocka_unit_test(an_advertisement_is_what_rfc4861_says),
        cmocka_unit_test(the_host_answers_for_neighbours_of_routed_ports),
        cmocka_unit_test(other_solicitations_are_not_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
