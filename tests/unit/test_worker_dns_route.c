/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which servers are asked for which names. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker/dns_route.h"

static struct dns_upstreams *servers_of(struct dns_upstream_pool *pool, const char *text)
{
    struct dns_upstreams *set;
    struct ip ip;

    assert_int_equal(ip_parse(text, &ip), 0);
    set = dns_upstreams_get(pool, &ip, 1);
    assert_non_null(set);
    return set;
}

static void add(struct dns_routes *routes, struct dns_upstream_pool *pool, const char *suffix,
                const char *server)
{
    struct dns_upstreams *set = servers_of(pool, server);

    assert_int_equal(dns_routes_set(routes, suffix, set), 0);
    dns_upstreams_put(set);
}

/* "": none. */
static void assert_route(const struct dns_routes *routes, const char *text, const char *server)
{
    const struct dns_upstreams *found;
    struct dns_name name;
    char ip[IP_TEXT_MAX] = "";

    assert_int_equal(dns_name_parse(text, &name), 0);
    found = dns_routes_find(routes, &name);
    if (found)
        ip_format(&found->servers[0]->ip, ip);
    assert_string_equal(ip, server);
}

static void the_longest_suffix_wins(void **state)
{
    struct dns_upstream_pool *pool = dns_upstream_pool_new();
    struct dns_routes routes = {0};

    (void)state;
    assert_route(&routes, "www.example.org", "");
    add(&routes, pool, "corp.example", "10.1.1.1");
    add(&routes, pool, "Lab.Corp.Example", "10.1.1.2");
    add(&routes, pool, "consul", "10.1.1.3");
    add(&routes, pool, "10.in-addr.arpa", "10.1.1.4");
    assert_route(&routes, "corp.example", "10.1.1.1");
    assert_route(&routes, "WWW.corp.EXAMPLE", "10.1.1.1");
    assert_route(&routes, "a.b.c.d.corp.example", "10.1.1.1");
    assert_route(&routes, "lab.corp.example", "10.1.1.2");
    assert_route(&routes, "x.y.lab.corp.example", "10.1.1.2");
    assert_route(&routes, "xlab.corp.example", "10.1.1.1");
    assert_route(&routes, "xcorp.example", "");
    assert_route(&routes, "example", "");
    assert_route(&routes, "web.service.consul", "10.1.1.3");
    assert_route(&routes, "4.3.2.10.in-addr.arpa", "10.1.1.4");
    assert_route(&routes, "4.3.2.110.in-addr.arpa", "");
    assert_route(&routes, ".", "");
    dns_routes_deinit(&routes);
    assert_route(&routes, "corp.example", "");
    dns_upstream_pool_free(pool);
}

static void a_suffix_is_replaced(void **state)
{
    struct dns_upstream_pool *pool = dns_upstream_pool_new();
    struct dns_upstreams *set = servers_of(pool, "10.1.1.9");
    struct dns_routes routes = {0};

    (void)state;
    add(&routes, pool, "corp.example", "10.1.1.1");
    add(&routes, pool, "corp.example", "10.1.1.2");
    assert_route(&routes, "a.corp.example", "10.1.1.2");
    assert_int_equal(dns_routes_set(&routes, ".", set), -EINVAL);
    assert_int_equal(dns_routes_set(&routes, "a..b", set), -EINVAL);
    assert_int_equal(set->references, 1);
    dns_upstreams_put(set);
    dns_routes_deinit(&routes);
    dns_upstream_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_suffix_wins),
        cmocka_unit_test(a_suffix_is_replaced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
