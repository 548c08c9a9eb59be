/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a Compose file becomes; what is refused is tested by tests/system/test_compose.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/compose.h"

/* Loads a text as the file of a project "p". */
static struct compose load(const char *text)
{
    char path[] = "/tmp/moat-compose-XXXXXX";
    int fd = mkstemp(path);
    struct error error = ERROR_INIT;
    struct compose compose = {0};
    int r;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    r = compose_load(path, "p", &compose, &error);
    unlink(path);
    if (r < 0)
        fail_msg("%s", error.text);
    return compose;
}

static void example_can_be_read(void **state)
{
    struct error error = ERROR_INIT;
    struct compose compose = {0};

    (void)state;
    if (compose_load(MOAT_SOURCE "/docs/examples/compose.yaml", NULL, &compose, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(compose.project, "example");
    assert_int_equal(compose.n_services, 3);
    assert_int_equal(compose_service_find(&compose, "setup")->depth, 0);
    assert_int_equal(compose_service_find(&compose, "web")->depth, 2);
    compose_deinit(&compose);
}

static void services_and_networks_have_names_and_labels(void **state)
{
    struct compose compose = load("services:\n  a: {command: x y}\n");
    const struct compose_service *service = &compose.services[0];
    const struct compose_network *network = &compose.networks[0];

    (void)state;
    assert_string_equal(service->attach.name, "p-a");
    assert_int_equal(service->command.count, 2);
    assert_int_equal(service->attach.n_networks, 1);
    assert_string_equal(service->attach.networks[0].name, "p-default");
    assert_string_equal(service->attach.networks[0].aliases.items[0], "a");
    assert_string_equal(service->workdir, "/tmp");
    assert_string_equal(labels_find(&service->attach.labels, COMPOSE_LABEL_PROJECT), "p");
    assert_string_equal(labels_find(&service->attach.labels, COMPOSE_LABEL_SERVICE), "a");
    assert_string_equal(labels_find(&service->attach.labels, COMPOSE_LABEL_CONFIG),
                        service->config);
    assert_string_equal(network->create.name, "p-default");
    assert_string_equal(labels_find(&network->create.labels, COMPOSE_LABEL_NETWORK), "default");
    assert_true(network->create.ipv4);
    assert_int_equal(service->attach.tap.owner, -1);
    compose_deinit(&compose);
}

/* Two texts that differ in one setting: the number differs too. */
static void assert_differs(const char *before, const char *after)
{
    struct compose a = load(before);
    struct compose again = load(before);
    struct compose b = load(after);

    assert_string_equal(a.services[0].config, again.services[0].config);
    if (strcmp(a.services[0].config, b.services[0].config) == 0)
        fail_msg("the same number for %s and %s", before, after);
    compose_deinit(&a);
    compose_deinit(&again);
    compose_deinit(&b);
}

static void every_setting_changes_the_number(void **state)
{
    static const char *const settings[] = {
        "environment: {A: b}",
        "environment: {A: c}",
        "environment: {A: '', B: ''}",
        "working_dir: /x",
        "user: '1'",
        "hostname: x",
        "container_name: x",
        "x-moat-rootfs: /x",
        "ports: [80]",
        "ports: ['80:80']",
        "dns: 192.0.2.1",
        "dns_search: x",
        "extra_hosts: ['a:192.0.2.1']",
        "extra_hosts: ['a:host-gateway']",
        "labels: {a: b}",
        "network_mode: none",
        "x-moat-policy: {mode: outbound}",
        "x-moat-policy: {allow: any}",
        "x-moat-policy: {deny: any}",
        "x-moat-policy: {log_denied: true}",
        "x-moat-policy: {drop: true}",
        "networks: {default: {ipv4_address: 10.0.0.2}}",
        "networks: {default: {aliases: [x]}}",
        "networks: {default: {mac_address: '02:00:00:00:00:01'}}",
    };

    (void)state;
    assert_differs("services: {a: {command: x}}", "services: {a: {command: y}}");
    assert_differs("services: {a: {command: x y}}", "services: {a: {command: ['x y']}}");
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        char text[200];
        char other[200];

        snprintf(text, sizeof(text), "services: {a: {command: x, %s}}", settings[i]);
        snprintf(other, sizeof(other), "services: {a: {command: x%s%s}}", i ? ", " : "",
                 i ? settings[i - 1] : "");
        assert_differs(other, text);
    }
}

static void a_networks_settings_are_its_services(void **state)
{
    static const char plain[] = "services: {a: {command: x, networks: [n]}}\nnetworks: {n: }";
    static const char *const settings[] = {
        "internal: true",
        "enable_ipv6: true",
        "enable_ipv4: false",
        "name: other",
        "labels: {a: b}",
        "ipam: {config: [{subnet: 10.1.0.0/24}]}",
        "driver_opts: {com.docker.network.driver.mtu: 1400}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        char text[200];

        snprintf(text, sizeof(text),
                 "services: {a: {command: x, networks: [n]}}\nnetworks: {n: {%s}}", settings[i]);
        assert_differs(plain, text);
    }
}

static void dependencies_have_depths(void **state)
{
    struct compose compose = load("services:\n"
                                  "  d: {command: x, depends_on: [b, c]}\n"
                                  "  c: {command: x, depends_on: [b]}\n"
                                  "  b: {command: x, depends_on: [a]}\n"
                                  "  a: {command: x}\n");

    (void)state;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(compose.services[i].depth, 3 - i);
    compose_deinit(&compose);
}

static void merged_mappings_keep_what_is_their_own(void **state)
{
    struct compose compose = load("x-a: &a {command: one, user: '1'}\n"
                                  "x-b: &b {command: two, hostname: h}\n"
                                  "services:\n"
                                  "  s: {<<: [*a, *b], user: '2'}\n");
    const struct compose_service *service = &compose.services[0];

    (void)state;
    assert_string_equal(service->command.items[0], "one");
    assert_string_equal(service->user, "2");
    assert_string_equal(service->hostname, "h");
    compose_deinit(&compose);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(example_can_be_read),
        cmocka_unit_test(services_and_networks_have_names_and_labels),
        cmocka_unit_test(every_setting_changes_the_number),
        cmocka_unit_test(a_networks_settings_are_its_services),
        cmocka_unit_test(dependencies_have_depths),
        cmocka_unit_test(merged_mappings_keep_what_is_their_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
