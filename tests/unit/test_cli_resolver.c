/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cli/resolver.h"

#define HEAD "# Made by moat for this guest.\n"
#define LOCALHOST HEAD "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

static struct ips ips_of(const char *const *texts)
{
    struct ips ips = {0};

    for (; *texts; texts++) {
        struct ip ip;

        assert_int_equal(ip_parse(*texts, &ip), 0);
        assert_int_equal(ips_add(&ips, &ip), 0);
    }
    return ips;
}

#define IPS(...) ips_of((const char *const[]){__VA_ARGS__, NULL})

static void assert_conf(const struct resolver *resolver, const char *expected)
{
    struct text text = {0};

    resolver_write_conf(resolver, &text);
    assert_false(text.failed);
    assert_string_equal(text.data, expected);
    text_deinit(&text);
}

static void gateways_come_before_everything_else(void **state)
{
    struct ips dns = IPS("9.9.9.9");
    struct resolver resolver = {.gateways = IPS("10.88.0.1"),
                                .dns = &dns,
                                .domain = "moat.internal",
                                .host_text = "nameserver 192.0.2.1\n"};

    (void)state;
    assert_conf(&resolver, HEAD "nameserver 10.88.0.1\nsearch moat.internal\n");
    ips_deinit(&resolver.gateways);
    ips_deinit(&dns);
}

static void only_as_many_servers_as_the_c_library_reads(void **state)
{
    struct resolver resolver = {.gateways = IPS("10.1.0.1", "10.2.0.1", "fd00::1", "10.4.0.1"),
                                .domain = "d"};

    (void)state;
    assert_conf(&resolver,
                HEAD "nameserver 10.1.0.1\nnameserver 10.2.0.1\nnameserver fd00::1\nsearch d\n");
    ips_deinit(&resolver.gateways);
}

static void search_domains_follow_moats_own(void **state)
{
    struct strings search = {0};
    struct resolver resolver = {
        .gateways = IPS("10.1.0.1"), .domain = "moat.internal", .search = &search};

    (void)state;
    resolver.host_text =
        "search a.example\ndomain corp.example\t lab.example\noptions ndots:2 edns0\n";
    assert_conf(&resolver,
                HEAD "nameserver 10.1.0.1\nsearch moat.internal corp.example lab.example\n"
                     "options ndots:2 edns0\n");
    resolver.host_text = "search moat.internal corp.example MOAT.internal.  # ours\n";
    assert_conf(&resolver, HEAD "nameserver 10.1.0.1\nsearch moat.internal corp.example\n");
    resolver.host_text = "searching x\n#search y\nnameserver 192.0.2.1";
    assert_conf(&resolver, HEAD "nameserver 10.1.0.1\nsearch moat.internal\n");
    resolver.host_text = "search a.example\n";
    strings_add(&search, "example.org");
    strings_add(&search, "example.net");
    assert_conf(&resolver,
                HEAD "nameserver 10.1.0.1\nsearch moat.internal example.org example.net\n");
    ips_deinit(&resolver.gateways);
    strings_deinit(&search);
}

static void without_a_name_service_the_given_servers_count(void **state)
{
    struct ips dns = IPS("9.9.9.9", "2620:fe::fe");
    struct strings search = {0};
    struct resolver resolver = {.dns = &dns,
                                .search = &search,
                                .domain = "moat.internal",
                                .host_text = "nameserver 192.0.2.1\n"};

    (void)state;
    strings_add(&search, "example.org");
    assert_conf(&resolver, HEAD "nameserver 9.9.9.9\nnameserver 2620:fe::fe\nsearch example.org\n");
    ips_deinit(&dns);
    strings_deinit(&search);
}

static void else_the_hosts_file_counts(void **state)
{
    struct resolver resolver = {
        .host_text = "# host\nnameserver 192.0.2.1\nsearch example.org\noptions ndots:2"};

    (void)state;
    assert_conf(&resolver,
                HEAD "# host\nnameserver 192.0.2.1\nsearch example.org\noptions ndots:2\n");
}

static void a_stub_on_the_hosts_loopback_is_replaced_by_what_it_asks(void **state)
{
    struct ips servers = IPS("127.0.0.53", "192.0.2.7");
    struct resolver resolver = {.host_text =
                                    "nameserver 127.0.0.53\nnameserver\t::1\noptions edns0\n",
                                .host_servers = &servers};

    (void)state;
    assert_conf(&resolver, HEAD "nameserver 192.0.2.7\noptions edns0\n");
    ips_deinit(&servers);
}

static void a_guest_without_networks_has_no_servers(void **state)
{
    struct resolver resolver = {.domain = "moat.internal"};

    (void)state;
    assert_conf(&resolver, HEAD);
}

/* --- hosts --- */

static void assert_hosts(const struct guest *guest, const char *hostname,
                         const struct strings *add_hosts, const char *expected)
{
    struct text text = {0};

    resolver_write_hosts(guest, "moat.internal", hostname, add_hosts, &text);
    assert_false(text.failed);
    assert_string_equal(text.data, expected);
    text_deinit(&text);
}

static void addresses_have_the_guests_names(void **state)
{
    struct endpoint endpoints[2] = {{.prefix = 16}, {.prefix = 24}};
    struct guest guest = {.name = "web", .endpoints = endpoints, .n_endpoints = 2};

    (void)state;
    ip_parse("10.88.0.2", &endpoints[0].ip);
    ip_parse("fd00::2", &endpoints[0].ip6);
    ip_parse("10.89.0.2", &endpoints[1].ip);
    assert_hosts(&guest, "box", NULL,
                 LOCALHOST "10.88.0.2\tweb.moat.internal web box\n"
                           "fd00::2\tweb.moat.internal web box\n"
                           "10.89.0.2\tweb.moat.internal web box\n");
    assert_hosts(&guest, "web", NULL,
                 LOCALHOST "10.88.0.2\tweb.moat.internal web\n"
                           "fd00::2\tweb.moat.internal web\n"
                           "10.89.0.2\tweb.moat.internal web\n");
}

static void added_hosts_come_first_and_may_be_ipv6(void **state)
{
    struct guest guest = {.name = "web"};
    struct strings hosts = {0};

    (void)state;
    strings_add(&hosts, "db:192.0.2.7");
    strings_add(&hosts, "db:2001:db8::7");
    assert_hosts(&guest, "web", &hosts,
                 LOCALHOST "192.0.2.7\tdb\n2001:db8::7\tdb\n127.0.1.1\tweb.moat.internal web\n");
    strings_deinit(&hosts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gateways_come_before_everything_else),
        cmocka_unit_test(only_as_many_servers_as_the_c_library_reads),
        cmocka_unit_test(search_domains_follow_moats_own),
        cmocka_unit_test(without_a_name_service_the_given_servers_count),
        cmocka_unit_test(else_the_hosts_file_counts),
        cmocka_unit_test(a_stub_on_the_hosts_loopback_is_replaced_by_what_it_asks),
        cmocka_unit_test(a_guest_without_networks_has_no_servers),
        cmocka_unit_test(addresses_have_the_guests_names),
        cmocka_unit_test(added_hosts_come_first_and_may_be_ipv6),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
