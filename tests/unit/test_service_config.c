/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "service/config.h"

/* Reads `text` as a configuration file; the error's text stays in *ret_error. */
static int read_text(const char *text, struct config *ret_config, struct error *ret_error)
{
    char path[] = "/tmp/moat-test-config-XXXXXX";
    int fd = mkstemp(path);
    int r;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    config_init(ret_config);
    r = config_read(ret_config, path, true, ret_error);
    unlink(path);
    return r;
}

static void test_defaults(void **state)
{
    struct config config;
    struct error error = ERROR_INIT;

    (void)state;
    config_init(&config);
    assert_int_equal(config_read(&config, "/nonexistent/moat.conf", false, &error), 0);
    assert_string_equal(config.domain, "moat.internal");
    assert_string_equal(config.default_subnet, "10.88.0.0/16");
    assert_true(config_read(&config, "/nonexistent/moat.conf", true, &error) < 0);
    assert_non_null(strstr(error.text, "/nonexistent/moat.conf"));
    config_deinit(&config);
}

static void test_every_key(void **state)
{
    struct config config;
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(
        read_text(
            "# a comment\n[daemon]\nsocket_group = net\nsocket_mode = 0600\nworker_user = nobody\n"
            "max_clients = 5\nlog_level = debug\n"
            "[network]\npools = 10.1.0.0/16, 10.2.0.0/16\nsubnet_size = 28\n"
            "default_subnet = 10.3.0.0/24\npublish_address = 127.0.0.1\nbridge_ports = "
            "10\nopen_firewalls = yes\n"
            "[dns]\nforward = corp.example=10.1.1.1 lab=::1\nforward = Corp.Example=10.1.1.2\n"
            "domain = test.internal\nresolv_conf = /etc/other\nupstreams = 1.2.3.4 ::5\nttl "
            "= 7\nstale = 86400\ncache = 64\nin_flight = 3\nconnections = 4\nrate = 5\n"
            "rebind_guard = yes\nresolved = no\n[policy]\ngrace = 9\n",
            &config, &error),
        0);
    assert_string_equal(config.socket_group, "net");
    assert_int_equal(config.socket_mode, 0600);
    assert_string_equal(config.worker_user, "nobody");
    assert_int_equal(config.max_clients, 5);
    assert_true(config.debug);
    assert_int_equal(config.pools.count, 2);
    assert_string_equal(config.pools.items[1], "10.2.0.0/16");
    assert_int_equal(config.subnet_size, 28);
    assert_string_equal(config.default_subnet, "10.3.0.0/24");
    assert_true(ip_is_loopback(&config.publish_address));
    assert_int_equal(config.bridge_ports, 10);
    assert_true(config.open_firewalls);
    assert_string_equal(config.domain, "test.internal");
    assert_string_equal(config.resolv_conf, "/etc/other");
    assert_int_equal(config.upstreams.count, 2);
    assert_int_equal(config.ttl_s, 7);
    assert_int_equal(config.stale_s, 86400);
    assert_int_equal(config.cache_kib, 64);
    assert_int_equal(config.max_in_flight, 3);
    assert_int_equal(config.max_connections, 4);
    assert_int_equal(config.rate, 5);
    assert_true(config.rebind_guard);
    assert_false(config.resolved);
    assert_int_equal(config.n_forwards, 2);
    assert_string_equal(config.forwards[0].suffix, "corp.example");
    assert_int_equal(config.forwards[0].servers.count, 2);
    assert_string_equal(config.forwards[1].suffix, "lab");
    assert_int_equal(config.forwards[1].servers.count, 1);
    assert_int_equal(config.grace_s, 9);
    config_deinit(&config);
}

/* Each is refused with the line and a word of what is wrong with it. */
static void test_refusals(void **state)
{
    static const struct {
        const char *text;
        const char *line;
        const char *word;
    } rows[] = {
        {"[daemon]\nsocket_mode = 999\n", ":2:", "socket_mode"},
        {"[daemon]\nsocket_mode = 1777\n", ":2:", "octal"},
        {"[daemon]\nmax_clients = 0\n", ":2:", "max_clients"},
        {"[daemon]\nmax_clients = 5x\n", ":2:", "5x"},
        {"[daemon]\nmax_clients = -5\n", ":2:", "-5"},
        {"[daemon]\nlog_level = loud\n", ":2:", "info or debug"},
        {"[daemon]\nnonsense = 1\n", ":2:", "nonsense"},
        {"[nowhere]\nttl = 1\n", ":2:", "nowhere"},
        {"ttl = 1\n", ":1:", "ttl"},
        {"[network]\ndefault_subnet = 10.3.0.1/24\n", ":2:", "10.3.0.1/24"},
        {"[network]\ndefault_subnet = 10.0.0.0/7\n", ":2:", "/8"},
        {"[network]\ndefault_subnet = fd00::/64\n", ":2:", "IPv4"},
        {"[network]\npools = 10.1.0.0/16 banana\n", ":2:", "banana"},
        {"[network]\nsubnet_size = 31\n", ":2:", "31"},
        {"[network]\npublish_address = localhost\n", ":2:", "IP address"},
        {"[dns]\n\ndomain = .x\n", ":3:", "DNS name"},
        {"[dns]\nresolv_conf = resolv.conf\n", ":2:", "absolute path"},
        {"[dns]\nupstreams = 1.2.3\n", ":2:", "1.2.3"},
        {"[dns]\nstale = 604801\n", ":2:", "stale"},
        {"[dns]\ncache = 15\n", ":2:", "cache"},
        {"[dns]\nin_flight = 0\n", ":2:", "in_flight"},
        {"[dns]\nconnections = 1025\n", ":2:", "connections"},
        {"[dns]\nrate = 1000001\n", ":2:", "rate"},
        {"[dns]\nrebind_guard = on\n", ":2:", "yes or no"},
        {"[dns]\nforward = corp.example\n", ":2:", "SUFFIX=IP"},
        {"[dns]\nforward = =10.1.1.1\n", ":2:", "SUFFIX=IP"},
        {"[dns]\nforward = .=10.1.1.1\n", ":2:", "SUFFIX=IP"},
        {"[dns]\nforward = a..b=10.1.1.1\n", ":2:", "SUFFIX=IP"},
        {"[dns]\nforward = corp.example=dns.corp.example\n", ":2:", "SUFFIX=IP"},
        {"[dns]\nforward = corp.example=0.0.0.0\n", ":2:", "SUFFIX=IP"},
        {"[dns]\nforward = a=1.1.1.1,a=1.1.1.2,a=1.1.1.3,a=1.1.1.4,a=1.1.1.5,a=1.1.1.6,"
         "a=1.1.1.7,a=1.1.1.8,a=1.1.1.9\n",
         ":2:", "at most 8"},
        {"[dns]\nforward = moat.internal=10.1.1.1\n", "forward", "our own domain"},
        {"[dns]\nforward = x.Lab.test=10.1.1.1\ndomain = lab.test\n", "forward", "never forwarded"},
        {"[dns]\nthis line has no sign\n", ":2:", "key = value"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct config config;
        struct error error = ERROR_INIT;

        assert_true(read_text(rows[i].text, &config, &error) < 0);
        if (!strstr(error.text, rows[i].line) || !strstr(error.text, rows[i].word))
            fail_msg("\"%s\" is refused by \"%s\", without \"%s\" or \"%s\"", rows[i].text,
                     error.text, rows[i].line, rows[i].word);
        config_deinit(&config);
    }
}

/* The manual page and the example name every key. */
static void test_documented(void **state)
{
    static const char *const files[] = {MOAT_SOURCE "/docs/man/moat.conf.5",
                                        MOAT_SOURCE "/docs/examples/moat.conf"};
    const char *section;
    const char *name;

    (void)state;
    for (size_t f = 0; f < ARRAY_SIZE(files); f++) {
        static char text[65536];
        _cleanup_fclose_ FILE *file = fopen(files[f], "re");
        size_t length;

        assert_non_null(file);
        length = fread(text, 1, sizeof(text) - 1, file);
        text[length] = '\0';
        for (size_t i = 0; (name = config_key_get(i, &section)); i++) {
            if (!strstr(text, name))
                fail_msg("%s does not name [%s] %s", files[f], section, name);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
