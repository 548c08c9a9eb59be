/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The codecs against frames that real programs have sent: what clients say is understood, and what
 * we answer to it says the same, byte for byte in each option, as a real server did. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "worker/dhcp4.h"
#include "worker/dhcp6.h"
#include "worker/dhcp_frame.h"
#include "worker/dhcp_ra.h"

#define CAPTURES_MAX 40

struct capture {
    char name[40];
    uint8_t data[FRAME_MAX];
    size_t size;
};

static struct capture captures[CAPTURES_MAX];
static size_t n_captures;

/* What the server of the captures was set to. */
static struct dhcp_port port_make(void)
{
    struct dhcp_port port = {
        .mac = {{2, 0x6d, 10, 88, 0, 5}},
        .server_mac = {{2, 0x6d, 10, 88, 0, 1}},
        .ip = ip_from_v4(0x0a580005),
        .gateway = ip_from_v4(0x0a580001),
        .ip6 = {AF_INET6, {0xfd, 0, 0, 0x88, [15] = 5}},
        .prefix = 16,
        .prefix6 = 64,
        .default_route = 1,
        .default_route6 = 1,
        .on_link6 = 1,
        .mtu = 1400,
        .lease_s = 3600,
        .host_name = "vm",
        .n_search = 2,
        .search = {"moat.internal", "corp.example"},
    };

    port.dns.items[port.dns.count++] = port.gateway;
    port.ntp.items[port.ntp.count++] = ip_from_v4(0x0a580009);
    port.dns6.items[port.dns6.count++] = (struct ip){AF_INET6, {0xfd, 0, 0, 0x88, [15] = 1}};
    return port;
}

/* --- the file --- */

static void capture_append(struct capture *capture, const char *digits)
{
    for (; digits[0] && digits[1]; digits += 2) {
        unsigned byte;

        assert_int_equal(sscanf(digits, "%2x", &byte), 1);
        assert_true(capture->size < sizeof(capture->data));
        capture->data[capture->size++] = (uint8_t)byte;
    }
}

static int captures_read(void **state)
{
    FILE *file = fopen(MOAT_TEST_DATA "/dhcp-captures", "re");
    bool named = false;
    char line[512];

    (void)state;
    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0') {
            named = false;
            continue;
        }
        if (named) {
            capture_append(&captures[n_captures - 1], line);
            continue;
        }
        assert_true(n_captures < CAPTURES_MAX);
        snprintf(captures[n_captures++].name, sizeof(captures[0].name), "%s", line);
        named = true;
    }
    fclose(file);
    assert_true(n_captures > 20);
    return 0;
}

static struct frame frame_of(const char *name)
{
    struct frame frame;

    for (size_t i = 0; i < n_captures; i++) {
        if (strcmp(captures[i].name, name) != 0)
            continue;
        assert_true(frame_parse(captures[i].data, captures[i].size, false, &frame));
        return frame;
    }
    fail_msg("there is no capture \"%s\"", name);
    return (struct frame){0};
}

/* --- frames --- */

static void every_frame_is_read_and_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_captures; i++) {
        struct frame frame = frame_of(captures[i].name);
        uint8_t buffer[FRAME_MAX];
        struct frame again;
        size_t length = frame_build(&frame, buffer, sizeof(buffer));

        assert_int_equal(length, captures[i].size);
        assert_true(frame_parse(buffer, length, false, &again));
        assert_memory_equal(again.payload, frame.payload, frame.length);
        assert_true(ip_equal(&again.source, &frame.source) &&
                    ip_equal(&again.destination, &frame.destination));
    }
}

/* By the checksums of IPv4, UDP and ICMPv6. */
static void a_changed_address_is_noticed(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_captures; i++) {
        bool six = captures[i].data[12] == 0x86;
        size_t address = 14 + (six ? 8 : 12); /* the source */
        struct frame frame;

        captures[i].data[address + 3] ^= 1;
        assert_false(frame_parse(captures[i].data, captures[i].size, false, &frame));
        captures[i].data[address + 3] ^= 1;
    }
}

/* --- DHCPv4 --- */

static void dhcp4_clients_are_understood(void **state)
{
    static const struct {
        const char *name;
        enum dhcp4_type type, answer; /* 0: none */
        bool requested, server, client_id;
    } rows[] = {
        {"udhcpc discover", DHCP4_DISCOVER, DHCP4_OFFER, false, false, true},
        {"udhcpc request", DHCP4_REQUEST, DHCP4_ACK, true, true, true},
        {"udhcpc release", DHCP4_RELEASE, 0, false, true, true},
        {"dhclient discover", DHCP4_DISCOVER, DHCP4_OFFER, false, false, false},
        {"dhclient request", DHCP4_REQUEST, DHCP4_ACK, true, true, false},
        {"networkd discover", DHCP4_DISCOVER, DHCP4_OFFER, false, false, true},
        {"networkd request", DHCP4_REQUEST, DHCP4_ACK, true, true, true},
        {"networkd release", DHCP4_RELEASE, 0, false, false, true},
        {"dhcpcd discover", DHCP4_DISCOVER, DHCP4_OFFER, false, false, false},
        {"dhcpcd request", DHCP4_REQUEST, DHCP4_ACK, true, true, false},
    };
    struct dhcp_port port = port_make();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct frame frame = frame_of(rows[i].name);
        struct dhcp4_request request;
        struct dhcp4_reply reply;
        bool answered;

        assert_int_equal(frame.destination_port, DHCP_SERVER_PORT);
        assert_true(dhcp4_request_parse(frame.payload, frame.length, &request));
        assert_int_equal(request.type, rows[i].type);
        assert_true(mac_equal(&request.chaddr, &port.mac));
        assert_int_equal(ip_is_set(&request.requested), rows[i].requested);
        assert_int_equal(ip_is_set(&request.server), rows[i].server);
        assert_int_equal(request.client_id_length > 0, rows[i].client_id);
        answered = dhcp4_answer(&port, &request, &reply);
        assert_int_equal(answered, rows[i].answer != 0);
        if (answered)
            assert_int_equal(reply.type, rows[i].answer);
    }
}

static void servers_messages_are_no_requests(void **state)
{
    static const char *const four[] = {"dnsmasq offer", "dnsmasq ack"};
    static const char *const six[] = {"dnsmasq advertise", "dnsmasq reply", "dnsmasq rapid-reply"};
    struct frame frame = frame_of("dnsmasq router-advertisement");
    struct dhcp4_request request;
    struct dhcp6_request request6;

    (void)state;
    assert_false(ra_solicitation_is_valid(&frame));
    for (size_t i = 0; i < ARRAY_SIZE(four); i++) {
        frame = frame_of(four[i]);
        assert_false(dhcp4_request_parse(frame.payload, frame.length, &request));
    }
    for (size_t i = 0; i < ARRAY_SIZE(six); i++) {
        frame = frame_of(six[i]);
        assert_false(dhcp6_request_parse(frame.payload, frame.length, &request6));
    }
}

static const uint8_t *option4(const uint8_t *message, size_t length, uint8_t code)
{
    for (size_t at = 240; at + 1 < length && message[at] != 255;
         at += message[at] ? 2u + message[at + 1] : 1)
        if (message[at] == code)
            return message + at + 1; /* length, then value */
    return NULL;
}

static void assert_same_option4(const struct dhcp4_reply *ours, const struct frame *theirs,
                                uint8_t code)
{
    const uint8_t *a = option4(ours->data, ours->length, code);
    const uint8_t *b = option4(theirs->payload, theirs->length, code);

    if (!a || !b)
        fail_msg("option %u: %s has it not", code, a ? "the server" : "our answer");
    assert_memory_equal(a, b, 1u + b[0]);
}

static void offers_and_acks_say_what_a_real_servers_say(void **state)
{
    /* Mask, router, name server, domain, MTU, time server, lease time, type, server, renewal,
     * rebinding, search list. */
    static const uint8_t codes[] = {1, 3, 6, 15, 26, 42, 51, 53, 54, 58, 59, 119};
    static const char *const pairs[][2] = {{"dhclient discover", "dnsmasq offer"},
                                           {"dhclient request", "dnsmasq ack"}};
    struct dhcp_port port = port_make();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        struct frame question = frame_of(pairs[i][0]);
        struct frame theirs = frame_of(pairs[i][1]);
        struct dhcp4_request request;
        struct dhcp4_reply reply;

        assert_true(dhcp4_request_parse(question.payload, question.length, &request));
        assert_true(dhcp4_answer(&port, &request, &reply));
        assert_memory_equal(reply.data, theirs.payload, 8);            /* op to xid */
        assert_memory_equal(reply.data + 10, theirs.payload + 10, 10); /* flags to yiaddr */
        assert_memory_equal(reply.data + 28, theirs.payload + 28, 16); /* chaddr */
        assert_memory_equal(reply.data + 236, theirs.payload + 236, 4);
        for (size_t j = 0; j < ARRAY_SIZE(codes); j++)
            assert_same_option4(&reply, &theirs, codes[j]);
    }
}

/* --- DHCPv6 --- */

static void dhcp6_clients_are_understood(void **state)
{
    static const struct {
        const char *name;
        enum dhcp6_type type;
        uint8_t answer;
        bool server, rapid;
    } rows[] = {
        {"dhclient solicit", DHCP6_SOLICIT, DHCP6_ADVERTISE, false, false},
        {"dhclient request6", DHCP6_REQUEST, DHCP6_REPLY, true, false},
        {"dhclient release6", DHCP6_RELEASE, DHCP6_REPLY, true, false},
        {"networkd solicit", DHCP6_SOLICIT, DHCP6_REPLY, false, true},
    };
    /* The server of the captures called itself otherwise: its requests are for us here. */
    static const uint8_t our_id[] = {0, 3, 0, 1, 2, 0x6d, 10, 88, 0, 1};
    struct dhcp_port port = port_make();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct frame frame = frame_of(rows[i].name);
        struct dhcp6_request request;
        struct dhcp6_reply reply;

        assert_int_equal(frame.destination_port, DHCP6_SERVER_PORT);
        assert_true(dhcp6_request_parse(frame.payload, frame.length, &request));
        assert_int_equal(request.type, rows[i].type);
        assert_int_equal(request.server_id_length > 0, rows[i].server);
        assert_int_equal(request.rapid_commit, rows[i].rapid);
        assert_true(request.client_id_length > 0);
        assert_true(request.n_ias >= 1 && request.ias[0].kind == DHCP6_OPTION_IA_NA);
        if (rows[i].server) {
            assert_false(dhcp6_answer(&port, &request, &reply)); /* another server's */
            memcpy(request.server_id, our_id, sizeof(our_id));
            request.server_id_length = sizeof(our_id);
        }
        assert_true(dhcp6_answer(&port, &request, &reply));
        assert_int_equal(reply.data[0], rows[i].answer);
        assert_memory_equal(reply.data + 1, frame.payload + 1, 3); /* xid */
    }
}

/* The option's length and value; NULL: it is not there. */
static const uint8_t *option6(const uint8_t *options, size_t length, uint16_t code)
{
    for (size_t at = 0; at + 4 <= length;
         at += 4u + ((size_t)options[at + 2] << 8) + options[at + 3])
        if (options[at] == code >> 8 && options[at + 1] == (code & 0xff))
            return options + at + 2;
    return NULL;
}

static void assert_same_option6(const struct dhcp6_reply *ours, const struct frame *theirs,
                                uint16_t code)
{
    const uint8_t *a = option6(ours->data + 4, ours->length - 4, code);
    const uint8_t *b = option6(theirs->payload + 4, theirs->length - 4, code);

    if (!a || !b)
        fail_msg("option %u: %s has it not", code, a ? "the server" : "our answer");
    assert_memory_equal(a, b, 2u + ((size_t)b[0] << 8) + b[1]);
}

static void dhcp6_answers_say_what_a_real_servers_say(void **state)
{
    /* A server tells only what was asked for: networkd did not ask for the search list. */
    static const struct {
        const char *question, *answer;
        uint16_t codes[4];
    } rows[] = {
        {"dhclient solicit",
         "dnsmasq advertise",
         {DHCP6_OPTION_CLIENT_ID, DHCP6_OPTION_DNS, DHCP6_OPTION_SEARCH}},
        {"networkd solicit",
         "dnsmasq rapid-reply",
         {DHCP6_OPTION_CLIENT_ID, DHCP6_OPTION_DNS, DHCP6_OPTION_RAPID_COMMIT}},
    };
    struct dhcp_port port = port_make();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct frame question = frame_of(rows[i].question);
        struct frame theirs = frame_of(rows[i].answer);
        struct dhcp6_request request;
        struct dhcp6_reply reply;
        const uint8_t *a;
        const uint8_t *b;

        assert_true(dhcp6_request_parse(question.payload, question.length, &request));
        assert_true(dhcp6_answer(&port, &request, &reply));
        assert_memory_equal(reply.data, theirs.payload, 4); /* type, xid */
        for (size_t j = 0; rows[i].codes[j]; j++)
            assert_same_option6(&reply, &theirs, rows[i].codes[j]);
        a = option6(reply.data + 4, reply.length - 4, DHCP6_OPTION_IA_NA);
        b = option6(theirs.payload + 4, theirs.length - 4, DHCP6_OPTION_IA_NA);
        assert_true(a && b);
        assert_memory_equal(a + 2, b + 2, 4);        /* IAID; the times are the server's affair */
        assert_memory_equal(a + 14, b + 14, 4 + 16); /* the address's option begins */
    }
}

/* --- router advertisements --- */

static void solicitations_are_understood(void **state)
{
    static const char *const names[] = {
        "kernel router-solicitation", "networkd router-solicitation", "dhcpcd router-solicitation"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct frame frame = frame_of(names[i]);

        assert_int_equal(frame.protocol, IPPROTO_ICMPV6);
        assert_true(ra_solicitation_is_valid(&frame));
    }
}

/* An option of neighbour discovery (RFC 4861 section 4.6): type, length in eights, value. */
static const uint8_t *option_nd(const uint8_t *message, size_t length, uint8_t type)
{
    for (size_t at = 16; at + 8 <= length && message[at + 1]; at += 8u * message[at + 1])
        if (message[at] == type)
            return message + at;
    return NULL;
}

static void advertisements_say_what_a_real_routers_say(void **state)
{
    enum { PREFIX = 3, MTU = 5, RDNSS = 25, DNSSL = 31 };
    struct frame theirs = frame_of("dnsmasq router-advertisement");
    struct dhcp_port port = port_make();
    uint8_t ours[RA_MAX];
    size_t length = ra_write(&port, ours);
    const uint8_t *a;
    const uint8_t *b;

    (void)state;
    assert_int_equal(ours[0], 134);
    assert_int_equal(ours[1], 0);
    assert_int_equal(ours[5] & 0xc0, theirs.payload[5] & 0xc0); /* managed, other */
    assert_memory_equal(ours + 6, theirs.payload + 6, 2);       /* lifetime of the router */
    a = option_nd(ours, length, MTU);
    b = option_nd(theirs.payload, theirs.length, MTU);
    assert_true(a && b);
    assert_memory_equal(a, b, 8);
    a = option_nd(ours, length, RDNSS);
    b = option_nd(theirs.payload, theirs.length, RDNSS);
    assert_true(a && b);
    assert_memory_equal(a, b, 4);
    assert_memory_equal(a + 8, b + 8, 16); /* behind the lifetime: the address */
    a = option_nd(ours, length, DNSSL);
    b = option_nd(theirs.payload, theirs.length, DNSSL);
    assert_true(a && b);
    assert_memory_equal(a, b, 4);
    assert_memory_equal(a + 8, b + 8, 8u * b[1] - 8);
    a = option_nd(ours, length, PREFIX);
    b = option_nd(theirs.payload, theirs.length, PREFIX);
    assert_true(a && b);
    assert_memory_equal(a, b, 3);     /* type, length, length of the prefix */
    assert_int_equal(a[3] & 0x40, 0); /* no addresses of one's own making */
    assert_memory_equal(a + 16, b + 16, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_frame_is_read_and_written),
        cmocka_unit_test(a_changed_address_is_noticed),
        cmocka_unit_test(dhcp4_clients_are_understood),
        cmocka_unit_test(servers_messages_are_no_requests),
        cmocka_unit_test(offers_and_acks_say_what_a_real_servers_say),
        cmocka_unit_test(dhcp6_clients_are_understood),
        cmocka_unit_test(dhcp6_answers_say_what_a_real_servers_say),
        cmocka_unit_test(solicitations_are_understood),
        cmocka_unit_test(advertisements_say_what_a_real_routers_say),
    };

    return cmocka_run_group_tests(tests, captures_read, NULL);
}
