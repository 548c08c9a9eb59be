/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store_fixture.h"

#include "base/record.h"

static void assert_networks_equal(const struct network *a, const struct network *b)
{
    assert_int_equal(a->id, b->id);
    assert_string_equal(a->uid, b->uid);
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->bridge, b->bridge);
    assert_true(cidr_equal(&a->subnet, &b->subnet));
    assert_true(ip_equal(&a->gateway, &b->gateway));
    assert_true(cidr_equal(&a->ip_range, &b->ip_range));
    assert_true(cidr_equal(&a->subnet6, &b->subnet6));
    assert_true(ip_equal(&a->gateway6, &b->gateway6));
    assert_true(mac_equal(&a->mac, &b->mac));
    assert_int_equal(a->internal, b->internal);
    assert_int_equal(a->isolated, b->isolated);
    assert_int_equal(a->host_access, b->host_access);
    assert_int_equal(a->dns, b->dns);
    assert_int_equal(a->mtu, b->mtu);
    assert_int_equal(a->dns_servers.count, b->dns_servers.count);
    for (size_t i = 0; i < a->dns_servers.count; i++)
        assert_true(ip_equal(&a->dns_servers.items[i], &b->dns_servers.items[i]));
    assert_true(labels_equal(&a->labels, &b->labels));
    assert_int_equal(a->created_s, b->created_s);
}

static struct network full_network(void)
{
    struct network network = network_of("full", "10.88.0.0/16", "fd00:88::/64");
    struct ip server = ip_of("192.0.2.53");
    struct ip server6 = ip_of("2001:db8::53");

    network.ip_range = cidr_of("10.88.5.0/24");
    network.mac = mac_of("02:42:0a:58:00:01");
    network.internal = network.isolated = network.host_access = true;
    network.dns = false;
    network.mtu = 1420;
    ips_add(&network.dns_servers, &server);
    ips_add(&network.dns_servers, &server6);
    labels_set(&network.labels, "a", "b\nc");
    labels_set(&network.labels, "z", "");
    network.created_s = 1700000000;
    return network;
}

static void a_network_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;
    struct network network = full_network();
    struct network found = {0};
    struct network got = {0};
    bool is_found = false;

    begin(f);
    ok(f, store_network_insert(f->store, &network, &f->error));
    commit(f);
    assert_true(network.id > 0);
    fixture_reopen(f);
    ok(f, store_network_find(f->store, "full", &found, &is_found, &f->error));
    assert_true(is_found);
    assert_networks_equal(&network, &found);
    ok(f, store_network_get(f->store, network.id, &got, &f->error));
    assert_networks_equal(&network, &got);
    network_deinit(&network);
    network_deinit(&found);
    network_deinit(&got);
}

static void absent_parts_stay_absent(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "six", "", "fd00:6::/64");
    struct network found;
    bool is_found;

    ok(f, store_network_find(f->store, "six", &found, &is_found, &f->error));
    assert_networks_equal(&network, &found);
    assert_false(cidr_is_set(&found.subnet));
    assert_false(ip_is_set(&found.gateway));
    assert_false(mac_is_set(&found.mac));
    network_deinit(&found);
}

static void an_unknown_network_is_not_found(void **state)
{
    struct fixture *f = *state;
    struct network network = {.mtu = 77};
    bool found = true;

    ok(f, store_network_find(f->store, "none", &network, &found, &f->error));
    assert_false(found);
    assert_int_equal(network.mtu, 77);
    refused(f, store_network_get(f->store, 9, &network, &f->error), REASON_NOT_FOUND, "network");
    refused(f, store_network_delete(f->store, 9, &f->error), REASON_NOT_FOUND, "network");
    assert_int_equal(network.mtu, 77);
}

static void names_and_bridges_are_unique(void **state)
{
    struct fixture *f = *state;
    struct network first = network_stored(f, "one", "10.1.0.0/24", "");
    struct network same_name = network_of("one", "10.2.0.0/24", "");
    struct network same_bridge = network_of("two", "10.2.0.0/24", "");
    uint64_t count;

    (void)first;
    snprintf(same_name.bridge, sizeof(same_name.bridge), "other");
    snprintf(same_bridge.bridge, sizeof(same_bridge.bridge), "br-one");
    begin(f);
    refused(f, store_network_insert(f->store, &same_name, &f->error), REASON_EXISTS,
            "network one exists already");
    refused(f, store_network_insert(f->store, &same_bridge, &f->error), REASON_EXISTS,
            "the bridge name br-one belongs to network one");
    assert_int_equal(same_name.id, 0);
    /* Both: the name is what the caller sees first. */
    refused(f, store_network_insert(f->store, &first, &f->error), REASON_EXISTS,
            "network one exists already");
    store_rollback(f->store);
    ok(f, store_network_count(f->store, &count, &f->error));
    assert_int_equal(count, 1);
}

static void networks_are_listed_by_id_and_ids_are_never_reused(void **state)
{
    struct fixture *f = *state;
    struct network *networks = NULL;
    size_t count = 99;
    uint64_t stored;

    ok(f, store_network_list(f->store, &networks, &count, &f->error));
    assert_int_equal(count, 0);
    free(networks);
    network_stored(f, "c", "10.1.0.0/24", "");
    network_stored(f, "a", "10.2.0.0/24", "");
    struct network last = network_stored(f, "b", "10.3.0.0/24", "");
    ok(f, store_network_delete(f->store, last.id, &f->error));
    struct network again = network_stored(f, "b", "10.3.0.0/24", "");
    assert_true(again.id > last.id);

    ok(f, store_network_list(f->store, &networks, &count, &f->error));
    assert_int_equal(count, 3);
    assert_string_equal(networks[0].name, "c");
    assert_string_equal(networks[1].name, "a");
    assert_string_equal(networks[2].name, "b");
    for (size_t i = 0; i < count; i++)
        network_deinit(&networks[i]);
    free(networks);
    ok(f, store_network_count(f->store, &stored, &f->error));
    assert_int_equal(stored, 3);
}

static void a_network_with_guests_stays(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/24", "");
    struct strings names = {0};
    int64_t web;

    guest_stored(f, "zoe", &network, "10.1.0.3");
    web = guest_stored(f, "adam", &network, "10.1.0.2");
    guest_stored(f, "elsewhere", NULL, NULL);
    ok(f, store_network_guests(f->store, network.id, &names, &f->error));
    assert_int_equal(names.count, 2);
    assert_string_equal(names.items[0], "adam");
    assert_string_equal(names.items[1], "zoe");
    strings_deinit(&names);

    refused(f, store_network_delete(f->store, network.id, &f->error), REASON_IN_USE, "has guests");
    begin(f);
    ok(f, store_guest_delete(f->store, web, &f->error));
    commit(f);
    refused(f, store_network_delete(f->store, network.id, &f->error), REASON_IN_USE, "has guests");
}

static void what_hangs_on_a_network_goes_with_it(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/24", "fd00::/64");
    char address[] = "10.9.9.9";
    struct dns_record record = {
        .network_id = network.id, .name = "db", .type = RECORD_A, .value = address};
    struct ip ip;
    uint64_t count;

    begin(f);
    ok(f, store_address_take(f->store, &network, AF_INET, NULL, "g", &ip, &f->error));
    ok(f, store_record_insert(f->store, &record, &f->error));
    ok(f, store_network_delete(f->store, network.id, &f->error));
    commit(f);
    ok(f, store_record_count(f->store, &count, &f->error));
    assert_int_equal(count, 0);
    ok(f, store_network_count(f->store, &count, &f->error));
    assert_int_equal(count, 0);
    begin(f);
    refused(f, store_address_take(f->store, &network, AF_INET, NULL, "g", &ip, &f->error),
            REASON_NOT_FOUND, "network");
    store_rollback(f->store);
}

static void an_insert_outside_a_transaction_is_refused(void **state)
{
    struct fixture *f = *state;
    struct network network = network_of("net", "10.1.0.0/24", "");
    bool found;

    assert_true(store_network_insert(f->store, &network, &f->error) < 0);
    assert_int_equal(f->error.kind, ERROR_INTERNAL);
    ok(f, store_network_find(f->store, "net", &network, &found, &f->error));
    assert_false(found);
}

static void a_damaged_column_is_an_error_not_a_guess(void **state)
{
    static const char *const damages[] = {
        "subnet = '10.1.0.0'",
        "gateway = 'x'",
        "mac = '1:2'",
        "dns_servers = 'unended'",
        "labels = 'odd' || char(10)",
        "name = '0123456789012345678901234567890123456789012345678901234567890123456789'",
    };
    struct fixture *f = *state;

    network_stored(f, "net", "10.1.0.0/24", "");
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        struct network *networks = NULL;
        size_t count = 0;
        char sql[256];

        snprintf(sql, sizeof(sql), "SAVEPOINT s; UPDATE network SET %s", damages[i]);
        assert_int_equal(sqlite3_exec(f->store->db, sql, NULL, NULL, NULL), SQLITE_OK);
        assert_true(store_network_list(f->store, &networks, &count, &f->error) < 0);
        if (!strstr(f->error.text, "damaged"))
            fail_msg("%s: %s", damages[i], f->error.text);
        assert_null(networks);
        assert_int_equal(sqlite3_exec(f->store->db, "ROLLBACK TO s; RELEASE s", NULL, NULL, NULL),
                         SQLITE_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_network_comes_back_as_it_was),
        STORE_TEST(absent_parts_stay_absent),
        STORE_TEST(an_unknown_network_is_not_found),
        STORE_TEST(names_and_bridges_are_unique),
        STORE_TEST(networks_are_listed_by_id_and_ids_are_never_reused),
        STORE_TEST(a_network_with_guests_stays),
        STORE_TEST(what_hangs_on_a_network_goes_with_it),
        STORE_TEST(an_insert_outside_a_transaction_is_refused),
        STORE_TEST(a_damaged_column_is_an_error_not_a_guess),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
