/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/network_option.h"

static void a_name_alone_leaves_the_rest_to_the_daemon(void **state)
{
    struct error error = ERROR_INIT;
    struct attach_network network;

    (void)state;
    assert_int_equal(network_option_parse("default", &network, &error), 0);
    assert_string_equal(network.name, "default");
    assert_false(ip_is_set(&network.ip));
    assert_false(ip_is_set(&network.ip6));
    assert_false(mac_is_set(&network.mac));
    assert_int_equal(network.aliases.count, 0);
}

static void all_keys_in_any_order(void **state)
{
    struct error error = ERROR_INIT;
    struct attach_network network;
    char text[IP_TEXT_MAX];

    (void)state;
    assert_int_equal(network_option_parse(
                         "lab,alias=db,mac=02:00:00:00:00:0A,ip6=fd00::5,ip=10.1.0.5,alias=db.old",
                         &network, &error),
                     0);
    assert_string_equal(network.name, "lab");
    assert_string_equal(ip_format(&network.ip, text), "10.1.0.5");
    assert_string_equal(ip_format(&network.ip6, text), "fd00::5");
    assert_string_equal(mac_format(&network.mac, text), "02:00:00:00:00:0a");
    assert_int_equal(network.aliases.count, 2);
    assert_string_equal(network.aliases.items[1], "db.old");
    strings_deinit(&network.aliases);
}

static void malformed_values_are_refused_by_name(void **state)
{
    static const struct {
        const char *text;
        const char *says;
    } rows[] = {
        {"", "is not a name"},
        {",ip=10.0.0.1", "is not a name"},
        {"Lab", "is not a name"},
        {"lab,", "ip=A, ip6=A, mac=M or alias=N"},
        {"lab,ip", "ip=A, ip6=A, mac=M or alias=N"},
        {"lab,name=x", "ip=A, ip6=A, mac=M or alias=N"},
        {"lab,aliases=x", "ip=A, ip6=A, mac=M or alias=N"},
        {"lab,ip=", "ip: \"\" is not an IPv4 address"},
        {"lab,ip=fd00::1", "is not an IPv4 address"},
        {"lab,ip6=10.0.0.1", "is not an IPv6 address"},
        {"lab,mac=02:00", "mac: \"02:00\" is not a MAC address"},
        {"lab,alias=", "is not a DNS name"},
        {"lab,alias=a b", "is not a DNS name"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error error = ERROR_INIT;
        struct attach_network network;

        if (network_option_parse(rows[i].text, &network, &error) != -EINVAL ||
            !strstr(error.text, rows[i].says))
            fail_msg("\"%s\": \"%s\" has no \"%s\"", rows[i].text, error.text, rows[i].says);
    }
}

static void a_guest_has_a_limited_number_of_networks(void **state)
{
    struct guest_attach_params params = {0};
    struct error error = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < LIMIT_ENDPOINTS; i++)
        assert_int_equal(network_option_add(&params, "lab,alias=x", &error), 0);
    assert_int_equal(network_option_add(&params, "lab", &error), -EINVAL);
    assert_int_equal(params.n_networks, LIMIT_ENDPOINTS);
    for (size_t i = 0; i < params.n_networks; i++)
        strings_deinit(&params.networks[i].aliases);
    free(params.networks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_alone_leaves_the_rest_to_the_daemon),
        cmocka_unit_test(all_keys_in_any_order),
        cmocka_unit_test(malformed_values_are_refused_by_name),
        cmocka_unit_test(a_guest_has_a_limited_number_of_networks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
