/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "proto/proto.h"

static struct proto_requests parse(const char *line)
{
    struct proto_requests requests = {0};

    assert_int_equal(proto_requests_parse(line, strlen(line), &requests), 0);
    return requests;
}

/* One request that is refused with this code and (for a field) this path. */
static void assert_refused(const char *line, int code, const char *field)
{
    struct proto_requests requests = parse(line);

    assert_int_equal(requests.count, 1);
    assert_int_equal(requests.items[0].code, code);
    assert_string_not_equal(requests.items[0].error.text, "");
    if (field)
        assert_string_equal(requests.items[0].error.field, field);
    proto_requests_deinit(&requests);
}

static void test_call(void **state)
{
    struct proto_requests requests =
        parse("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"network.create\",\"params\":"
              "{\"name\":\"web\",\"subnet\":\"10.1.0.0/24\",\"labels\":{\"a\":\"b\"}}}");
    const struct network_create_params *params = &requests.items[0].params.network_create;

    (void)state;
    assert_int_equal(requests.items[0].code, 0);
    assert_false(requests.batch);
    assert_string_equal(requests.items[0].id, "7");
    assert_string_equal(params->name, "web");
    assert_int_equal(params->subnet.prefix, 24);
    assert_true(params->dns); /* the default */
    assert_string_equal(labels_find(&params->labels, "a"), "b");
    proto_requests_deinit(&requests);
}

static void test_ids_are_echoed_exactly(void **state)
{
    static const char *const ids[] = {"1",    "\"x\"", "null",       "12345678901234567890",
                                      "1.50", "-3",    "\"\\u00e9\""};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        char line[128];
        struct proto_requests requests;

        snprintf(line, sizeof(line),
                 "{\"jsonrpc\":\"2.0\",\"method\":\"system.status\", \"id\" : %s }", ids[i]);
        requests = parse(line);
        assert_int_equal(requests.items[0].code, 0);
        assert_string_equal(requests.items[0].id, ids[i]);
        proto_requests_deinit(&requests);
    }
}

static void test_notification_has_no_id(void **state)
{
    struct proto_requests requests = parse("{\"jsonrpc\":\"2.0\",\"method\":\"system.status\"}");

    (void)state;
    assert_null(requests.items[0].id);
    proto_requests_deinit(&requests);
}

static void test_batch(void **state)
{
    struct proto_requests requests =
        parse("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"system.status\"}, 5 ,"
              "{\"jsonrpc\":\"2.0\",\"id\":\"b\",\"method\":\"nope\"}]");

    (void)state;
    assert_true(requests.batch);
    assert_int_equal(requests.count, 3);
    assert_int_equal(requests.items[0].code, 0);
    assert_int_equal(requests.items[1].code, PROTO_INVALID_REQUEST);
    assert_string_equal(requests.items[1].id, "null");
    assert_int_equal(requests.items[2].code, PROTO_METHOD_NOT_FOUND);
    assert_string_equal(requests.items[2].id, "\"b\"");
    proto_requests_deinit(&requests);
}

static void test_malformed_lines(void **state)
{
    static const struct {
        const char *line;
        int code;
    } rows[] = {
        {"", PROTO_PARSE_ERROR},
        {"nonsense", PROTO_PARSE_ERROR},
        {"{", PROTO_PARSE_ERROR},
        {"[", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",}", PROTO_PARSE_ERROR},
        {"{} {}", PROTO_PARSE_ERROR},
        {"[] []", PROTO_PARSE_ERROR},
        {"[1,]", PROTO_PARSE_ERROR},
        {"[{}", PROTO_PARSE_ERROR},
        {"\"\xff\"", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\x01z\"}", PROTO_PARSE_ERROR},
        {"[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":01,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":1.,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":-,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":+1,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":.5,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":1e,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":1e+,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":00,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":-01,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":0x1,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":NaN,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":tru,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":\"\\q\",\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":\"\\u12g4\",\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\v\"x\":2,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"[{\"jsonrpc\":\"2.0\",\"id\":01,\"method\":\"guest.list\"}]", PROTO_PARSE_ERROR},
        {"\x01{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guest.list\"}", PROTO_PARSE_ERROR},
        {"[]", PROTO_INVALID_REQUEST},
        {"1", PROTO_INVALID_REQUEST},
        {"{}", PROTO_INVALID_REQUEST},
        {"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"system.status\"}", PROTO_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":1}", PROTO_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"system.status\"}", PROTO_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"system.status\"}", PROTO_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"network.gett\"}", PROTO_METHOD_NOT_FOUND},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_refused(rows[i].line, rows[i].code, NULL);
}

static void test_bad_params(void **state)
{
    static const struct {
        const char *method;
        const char *params;
        const char *field;
    } rows[] = {
        {"network.create", "[]", "params"},
        {"network.create", "{}", "name"},
        {"network.create", "{\"name\":null}", "name"},
        {"network.create", "{\"name\":1}", "name"},
        {"network.create", "{\"name\":\"Web\"}", "name"},
        {"network.create", "{\"name\":\"-a\"}", "name"},
        {"network.create", "{\"name\":\"a\\u0000b\"}", "name"},
        {"network.create", "{\"name\":\"a\",\"subnet\":null}", "subnet"},
        {"network.create", "{\"name\":\"a\",\"name\":\"b\"}", "name"},
        {"network.create", "{\"name\":\"a\",\"colour\":1}", "colour"},
        {"network.create", "{\"name\":\"a\",\"subnet\":\"10.0.0.0\"}", "subnet"},
        {"network.create", "{\"name\":\"a\",\"subnet\":\"fd00::/64\"}", "subnet"},
        {"network.create", "{\"name\":\"a\",\"gateway\":\"10.0.0.300\"}", "gateway"},
        {"network.create", "{\"name\":\"a\",\"mtu\":10}", "mtu"},
        {"network.create", "{\"name\":\"a\",\"mtu\":1500.5}", "mtu"},
        {"network.create", "{\"name\":\"a\",\"mtu\":\"1500\"}", "mtu"},
        {"network.create", "{\"name\":\"a\",\"bridge\":\"a/b\"}", "bridge"},
        {"network.create", "{\"name\":\"a\",\"internal\":1}", "internal"},
        {"network.create", "{\"name\":\"a\",\"labels\":{\"x\":1}}", "labels"},
        {"network.create", "{\"name\":\"a\",\"dns_servers\":[\"1.1.1.1\",\"x\"]}",
         "dns_servers[1]"},
        {"guest.attach", "{\"name\":\"g\",\"mode\":\"open\"}", "mode"},
        {"guest.attach", "{\"name\":\"g\",\"kind\":\"docker\"}", "kind"},
        {"guest.attach", "{\"name\":\"g\",\"networks\":[{\"name\":\"a\"},{\"ip\":\"1.2.3.4\"}]}",
         "networks[1].name"},
        {"guest.attach", "{\"name\":\"g\",\"networks\":[{\"name\":\"a\",\"mac\":\"zz\"}]}",
         "networks[0].mac"},
        {"guest.attach", "{\"name\":\"g\",\"networks\":[5]}", "networks[0]"},
        {"guest.attach", "{\"name\":\"g\",\"tap\":{\"owner\":-1}}", "tap.owner"},
        {"guest.attach", "{\"name\":\"g\",\"tap\":{\"speed\":1}}", "tap.speed"},
        {"guest.attach", "{\"name\":\"g\",\"pid\":0}", "pid"},
        {"guest.attach", "{\"name\":\"g\",\"netns\":\"\"}", "netns"},
        {"port.add", "{\"guest\":\"g\",\"ports\":[]}", "ports"},
        {"port.add", "{\"guest\":\"g\"}", "ports"},
        {"localhost.set", "{\"guest\":\"g\"}", "enabled"},
        {"dns.add", "{\"name\":\"a b\",\"ip\":\"1.2.3.4\"}", "name"},
        {"network.list", "{\"all\":true}", "all"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char line[512];

        snprintf(line, sizeof(line),
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}", rows[i].method,
                 rows[i].params);
        assert_refused(line, PROTO_INVALID_PARAMS, rows[i].field);
    }
}

/* What a client encodes is what the server decodes, for every member that can be set. */
static void test_params_round_trip(void **state)
{
    const struct proto_method *method = proto_method_get(METHOD_GUEST_ATTACH);
    union params params;
    struct proto_requests requests;
    struct text text = {0};
    struct attach_network *network = calloc(1, sizeof(*network));
    const struct guest_attach_params *got;

    (void)state;
    proto_params_init(method, &params);
    strcpy(params.guest_attach.name, "web");
    params.guest_attach.networks = network;
    params.guest_attach.n_networks = 1;
    strcpy(network->name, "default");
    assert_int_equal(ip_parse("10.88.0.9", &network->ip), 0);
    assert_int_equal(mac_parse("02:00:00:00:00:09", &network->mac), 0);
    assert_int_equal(strings_add(&network->aliases, "api"), 0);
    params.guest_attach.has_kind = true;
    params.guest_attach.kind = KIND_TAP;
    params.guest_attach.tap.given = true;
    params.guest_attach.tap.owner = 1000;
    params.guest_attach.has_mode = true;
    params.guest_attach.mode = MODE_OUTBOUND;
    assert_int_equal(strings_add(&params.guest_attach.ports, "8080:80"), 0);
    assert_int_equal(labels_set(&params.guest_attach.labels, "k", "a \"quoted\"\n\\value"), 0);
    params.guest_attach.ephemeral = true;
    proto_call_encode(&text, method, &params, 3);
    assert_false(text.failed);
    requests = parse(text.data);
    assert_int_equal(requests.items[0].code, 0);
    got = &requests.items[0].params.guest_attach;
    assert_string_equal(got->networks[0].name, "default");
    assert_true(ip_equal(&got->networks[0].ip, &network->ip));
    assert_true(mac_equal(&got->networks[0].mac, &network->mac));
    assert_string_equal(got->networks[0].aliases.items[0], "api");
    assert_int_equal(got->kind, KIND_TAP);
    assert_int_equal(got->tap.owner, 1000);
    assert_int_equal(got->tap.group, -1);
    assert_int_equal(got->mode, MODE_OUTBOUND);
    assert_string_equal(got->ports.items[0], "8080:80");
    assert_string_equal(labels_find(&got->labels, "k"), "a \"quoted\"\n\\value");
    assert_true(got->ephemeral);
    proto_requests_deinit(&requests);
    proto_params_deinit(method, &params);
    text_deinit(&text);
}

/* A number 0 would be the process group of whoever sends it a signal. */
static void test_no_process_is_null(void **state)
{
    const struct status_result status = {.dns_pid = 7};
    const struct guest guest = {.kind = KIND_TAP};
    struct text text = {0};

    (void)state;
    proto_result_encode(&text, "1", proto_method_get(METHOD_SYSTEM_STATUS), &status, 0);
    assert_non_null(strstr(text.data, "\"dns_pid\":7,\"relay_pid\":null,\"dhcp_pid\":null"));
    assert_non_null(strstr(text.data, "\"guests\":0"));
    text_deinit(&text);
    text = (struct text){0};
    proto_result_encode(&text, "1", proto_method_get(METHOD_GUEST_GET), &guest, 0);
    assert_non_null(strstr(text.data, "\"netns\":null,\"netns_inode\":null,\"pid\":null"));
    text_deinit(&text);
}

static void test_result_round_trip(void **state)
{
    struct network network = {
        .internal = true, .dns = true, .mtu_now = 1420, .created_s = 1767323045};
    struct network got;
    struct proto_response *response = NULL;
    struct error error = ERROR_INIT;
    struct text text = {0};

    (void)state;
    strcpy(network.name, "web");
    strcpy(network.bridge, "moat1");
    assert_int_equal(cidr_parse("10.1.0.0/24", &network.subnet), 0);
    assert_int_equal(ip_parse("10.1.0.1", &network.gateway), 0);
    proto_result_encode(&text, "1", proto_method_get(METHOD_NETWORK_GET), &network, 0);
    assert_non_null(strstr(text.data, "\"ip_range\":null"));
    assert_non_null(strstr(text.data, "\"created\":\"2026-01-02T03:04:05Z\""));
    assert_int_equal(proto_response_parse(text.data, text.length, &response, &error), 0);
    assert_int_equal(proto_response_error(response, &error), 0);
    assert_int_equal(proto_response_object(response, &proto_network, &got, &error), 0);
    assert_string_equal(got.bridge, "moat1");
    assert_true(cidr_equal(&got.subnet, &network.subnet));
    assert_false(cidr_is_set(&got.ip_range));
    assert_int_equal(got.mtu_now, 1420);
    assert_int_equal(got.created_s, network.created_s);
    proto_network.deinit(&got);
    proto_response_free(response);
    text_deinit(&text);
}

static void test_error_round_trip(void **state)
{
    struct error sent = ERROR_INIT;
    struct error got = ERROR_INIT;
    struct proto_response *response = NULL;
    struct text text = {0};

    (void)state;
    error_set_reason(&sent, REASON_SUBNET_OVERLAP, "subnet overlaps \"x\"");
    proto_error_encode(&text, "\"a\"", proto_error_code(&sent), &sent);
    assert_string_equal(
        text.data,
        "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"error\":{\"code\":-32000,\"message\":\"subnet "
        "overlaps \\\"x\\\"\",\"data\":{\"reason\":\"subnet_overlap\"}}}");
    assert_int_equal(proto_response_parse(text.data, text.length, &response, &got), 0);
    assert_true(proto_response_error(response, &got) < 0);
    assert_int_equal(got.reason, REASON_SUBNET_OVERLAP);
    assert_string_equal(got.text, sent.text);
    proto_response_free(response);
    text_deinit(&text);
}

static void test_every_field_has_a_doc(void **state)
{
    (void)state;
    for (enum method_id id = 0; id < METHOD_COUNT_; id++) {
        const struct proto_method *method = proto_method_get(id);

        assert_non_null(method->doc);
        assert_ptr_equal(proto_method_find(method->name), method);
        assert_true(method->params->n_fields <= 64);
        for (size_t i = 0; i < method->params->n_fields; i++)
            assert_non_null(method->params->fields[i].doc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_ids_are_echoed_exactly),
        cmocka_unit_test(test_notification_has_no_id),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_malformed_lines),
        cmocka_unit_test(test_bad_params),
        cmocka_unit_test(test_params_round_trip),
        cmocka_unit_test(test_no_process_is_null),
        cmocka_unit_test(test_result_round_trip),
        cmocka_unit_test(test_error_round_trip),
        cmocka_unit_test(test_every_field_has_a_doc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
