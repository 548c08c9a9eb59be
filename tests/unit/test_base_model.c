/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/model.h"

static void modes_and_kinds_have_names(void **state)
{
    static const char *const modes[] = {"disabled", "loopback", "outbound", "full"};
    static const char *const kinds[] = {"netns", "tap"};
    enum guest_mode mode = MODE_FULL;
    enum guest_kind kind = KIND_TAP;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        assert_int_equal(guest_mode_parse(modes[i], &mode), 0);
        assert_int_equal(mode, i);
        assert_string_equal(guest_mode_name(mode), modes[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        assert_int_equal(guest_kind_parse(kinds[i], &kind), 0);
        assert_int_equal(kind, i);
        assert_string_equal(guest_kind_name(kind), kinds[i]);
    }
    assert_int_equal(guest_mode_parse("", &mode), -EINVAL);
    assert_int_equal(guest_mode_parse("Full", &mode), -EINVAL);
    assert_int_equal(guest_kind_parse("vm", &kind), -EINVAL);
    assert_int_equal(mode, MODE_FULL);
}

static void half_built_structs_are_freed(void **state)
{
    struct network network = {0};
    struct guest guest = {0};

    (void)state;
    network_deinit(&network);
    guest_deinit(&guest);

    labels_set(&network.labels, "a", "b");
    strings_add(&network.guests, "web");
    guest.endpoints = calloc(2, sizeof(*guest.endpoints));
    guest.n_endpoints = 2;
    strings_add(&guest.endpoints[1].aliases, "www");
    guest.ports = calloc(1, sizeof(*guest.ports));
    guest.n_ports = 1;
    guest.netns = strdup("/run/netns/a");
    strings_add(&guest.policy.allow, "any");
    strings_add(&guest.hosts, "a:10.0.0.1");
    network_deinit(&network);
    guest_deinit(&guest);
    guest_deinit(&guest);
    assert_null(guest.endpoints);
    assert_null(guest.netns);
}

static void ports_parse(void **state)
{
    /* text, then what port_format makes of it */
    static const char *const rows[][2] = {
        {"80", "80/tcp"},
        {"80/tcp", "80/tcp"},
        {"80/udp", "80/udp"},
        {"1", "1/tcp"},
        {"65535", "65535/tcp"},
        {"8080:80", "8080:80/tcp"},
        {"8000-8010:80-90", "8000-8010:80-90/tcp"},
        {"8000-8010", "8000-8010/tcp"},
        {"80-80", "80/tcp"},
        {"1-65535", "1-65535/tcp"},
        {"1-65535:1-65535/udp", "1-65535:1-65535/udp"},
        {"127.0.0.1:80", "127.0.0.1:80/tcp"},
        {"127.0.0.1::80", "127.0.0.1:80/tcp"},
        {"127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"},
        {"127.0.0.1:8080-8081:80-81/udp", "127.0.0.1:8080-8081:80-81/udp"},
        {"0.0.0.0:8080:80", "0.0.0.0:8080:80/tcp"},
        {"[::]:8080:80/udp", "[::]:8080:80/udp"},
        {"[::1]:80", "[::1]:80/tcp"},
        {"[::1]::80", "[::1]:80/tcp"},
        {"[::1]:8080:80", "[::1]:8080:80/tcp"},
        {"[fd00:0::1]:8080-8089:80-89/udp", "[fd00::1]:8080-8089:80-89/udp"},
        {"[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:60000-60001:50000-50001/udp",
         "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:60000-60001:50000-50001/udp"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error error = ERROR_INIT;
        struct port port;
        struct port again;
        char text[PORT_TEXT_MAX];

        if (port_parse(rows[i][0], "ports", &port, &error) != 0)
            fail_msg("%s", error.text);
        assert_string_equal(port_format(&port, text), rows[i][1]);
        assert_int_equal(port_parse(text, "ports", &again, &error), 0);
        assert_memory_equal(&port, &again, sizeof(port));
        assert_int_equal(port.id, 0);
        assert_int_equal(port.guest_id, 0);
    }
}

static void a_port_has_all_its_parts(void **state)
{
    struct error error = ERROR_INIT;
    struct port port;

    (void)state;
    assert_int_equal(port_parse("[::1]:8080-8083:80-83/udp", "ports[0]", &port, &error), 0);
    assert_true(ip_is_loopback(&port.host_ip));
    assert_int_equal(port.host_port, 8080);
    assert_int_equal(port.guest_port, 80);
    assert_int_equal(port.count, 4);
    assert_int_equal(port.protocol, IPPROTO_UDP);
    assert_int_equal(port_parse("80", "ports[0]", &port, &error), 0);
    assert_false(ip_is_set(&port.host_ip));
    assert_int_equal(port.host_port, 0);
    assert_int_equal(port.count, 1);
    assert_int_equal(port.protocol, IPPROTO_TCP);
}

static void malformed_ports_are_refused_with_a_remedy(void **state)
{
    /* text, and what the error must say */
    static const char *const rows[][2] = {
        {"", "\"\" is not a port number"},
        {":", "\"\" is not a port number"},
        {":80", "\"\" is not a port number"},
        {"80:", "\"\" is not a port number"},
        {"-", "\"\" is not a port number"},
        {"80-", "\"\" is not a port number"},
        {"-80", "\"\" is not a port number"},
        {"0", "ports are 1 to 65535"},
        {"0:80", "ports are 1 to 65535"},
        {"65536", "65536 is out of range; ports are 1 to 65535"},
        {"4294967376", "ports are 1 to 65535"},
        {"99999999999999999999999999", "ports are 1 to 65535"},
        {"080", "\"080\" is not a port number"},
        {"+80", "\"+80\" is not a port number"},
        {" 80", "\" 80\" is not a port number"},
        {"80 ", "\"80 \" is not a port number"},
        {"0x50", "\"0x50\" is not a port number"},
        {"http", "\"http\" is not a port number"},
        {"80-70", "the range 80-70 ends before it begins"},
        {"1-2-3", "\"2-3\" is not a port number"},
        {"8000-8010:80", "11 host ports can't lead to 1 guest ports; make both ranges as long"},
        {"8000:80-81", "1 host ports can't lead to 2 guest ports"},
        {"80/sctp", "\"sctp\" is not a protocol; use /tcp or /udp"},
        {"80/TCP", "\"TCP\" is not a protocol"},
        {"80/", "\"\" is not a protocol"},
        {"80/tcp/udp", "\"tcp/udp\" is not a protocol"},
        {"8080/tcp:80", "is not a protocol"},
        {"1:2:3", "\"2:3\" is not a port number"},
        {"127.0.0.1:1:2:3", "\"2:3\" is not a port number"},
        {"127.0.0.1", "\"127.0.0.1\" is not a port number"},
        {"127.0.0.1:", "\"\" is not a port number"},
        {"127.0.0:80", "\"127.0.0\" is not an IPv4 address of the host"},
        {"127.0.0.300:80:80", "\"127.0.0.300\" is not an IPv4 address of the host"},
        {"::1:80:80", "\"\" is not a port number"},
        {"[::1:80", "the bracket is not closed; write [ADDRESS]:HOST_PORT:GUEST_PORT"},
        {"[::1]80", "a colon must follow the address in brackets"},
        {"[::1]", "a colon must follow the address in brackets"},
        {"[]:80", "\"\" is not an IPv6 address of the host"},
        {"[10.0.0.1]:80", "\"10.0.0.1\" is not an IPv6 address of the host"},
        {"[fe80::1%eth0]:80", "is not an IPv6 address of the host"},
        {"224.0.0.1:80:80", "multicast"},
        {"[ff02::1]:80:80", "multicast"},
        {"80\n", "is not a port number"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error error = ERROR_INIT;
        struct port port = {.count = 7777};

        if (port_parse(rows[i][0], "ports[3]", &port, &error) != -EINVAL)
            fail_msg("\"%s\" was taken", rows[i][0]);
        assert_int_equal(error.kind, ERROR_FIELD);
        assert_string_equal(error.field, "ports[3]");
        assert_int_equal(port.count, 7777);
        if (!strstr(error.text, rows[i][1]))
            fail_msg("\"%s\": the error is: %s", rows[i][0], error.text);
        /* The culprit is quoted as it was given, but for control characters. */
        if (!strchr(rows[i][0], '\n') && !strstr(error.text, rows[i][0]))
            fail_msg("\"%s\" is not in: %s", rows[i][0], error.text);
    }
}

static void a_huge_port_text_is_refused(void **state)
{
    struct error error = ERROR_INIT;
    struct port port;
    char text[4096];

    (void)state;
    memset(text, '8', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(port_parse(text, "ports", &port, &error), -EINVAL);
    assert_non_null(strstr(error.text, "too long"));
    assert_true(strlen(error.text) < 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes_and_kinds_have_names),
        cmocka_unit_test(half_built_structs_are_freed),
        cmocka_unit_test(ports_parse),
        cmocka_unit_test(a_port_has_all_its_parts),
        cmocka_unit_test(malformed_ports_are_refused_with_a_remedy),
        cmocka_unit_test(a_huge_port_text_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
