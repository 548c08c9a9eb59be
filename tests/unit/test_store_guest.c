/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store_fixture.h"

static void assert_strings_equal(const struct strings *a, const struct strings *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        assert_string_equal(a->items[i], b->items[i]);
}

static void assert_endpoints_equal(const struct endpoint *a, const struct endpoint *b)
{
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->guest_id, b->guest_id);
    assert_int_equal(a->network_id, b->network_id);
    assert_int_equal(a->position, b->position);
    assert_string_equal(a->interface, b->interface);
    assert_string_equal(a->host_interface, b->host_interface);
    assert_true(ip_equal(&a->ip, &b->ip));
    assert_int_equal(a->prefix, b->prefix);
    assert_true(ip_equal(&a->ip6, &b->ip6));
    assert_int_equal(a->prefix6, b->prefix6);
    assert_true(mac_equal(&a->mac, &b->mac));
    assert_int_equal(a->routed, b->routed);
    assert_strings_equal(&a->aliases, &b->aliases);
}

static void assert_guests_equal(const struct guest *a, const struct guest *b)
{
    assert_int_equal(a->id, b->id);
    assert_string_equal(a->uid, b->uid);
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->mode, b->mode);
    assert_int_equal(!a->netns, !b->netns);
    if (a->netns)
        assert_string_equal(a->netns, b->netns);
    assert_int_equal(a->pid, b->pid);
    assert_true(a->pid_start == b->pid_start);
    assert_true(a->netns_dev == b->netns_dev);
    assert_true(a->netns_ino == b->netns_ino);
    assert_int_equal(a->ephemeral, b->ephemeral);
    assert_int_equal(a->owner_pid, b->owner_pid);
    assert_true(a->owner_start == b->owner_start);
    assert_int_equal(a->owner_uid, b->owner_uid);
    assert_int_equal(a->localhost, b->localhost);
    assert_true(a->tap_owner == b->tap_owner);
    assert_true(a->tap_group == b->tap_group);
    assert_int_equal(a->tap_multi_queue, b->tap_multi_queue);
    assert_int_equal(a->tap_vnet_hdr, b->tap_vnet_hdr);
    assert_int_equal(a->n_endpoints, b->n_endpoints);
    for (size_t i = 0; i < a->n_endpoints; i++)
        assert_endpoints_equal(&a->endpoints[i], &b->endpoints[i]);
    assert_int_equal(a->n_ports, b->n_ports);
    for (size_t i = 0; i < a->n_ports; i++) {
        char text[2][PORT_TEXT_MAX];

        assert_int_equal(a->ports[i].id, b->ports[i].id);
        assert_int_equal(a->ports[i].guest_id, b->ports[i].guest_id);
        assert_string_equal(port_format(&a->ports[i], text[0]), port_format(&b->ports[i], text[1]));
    }
    assert_strings_equal(&a->policy.allow, &b->policy.allow);
    assert_strings_equal(&a->policy.deny, &b->policy.deny);
    assert_int_equal(a->policy.log_denied, b->policy.log_denied);
    assert_strings_equal(&a->hosts, &b->hosts);
    assert_int_equal(a->dns.count, b->dns.count);
    for (size_t i = 0; i < a->dns.count; i++)
        assert_true(ip_equal(&a->dns.items[i], &b->dns.items[i]));
    assert_strings_equal(&a->dns_search, &b->dns_search);
    assert_true(labels_equal(&a->labels, &b->labels));
    assert_int_equal(a->created_s, b->created_s);
}

static struct guest full_guest(const struct network *one, const struct network *two)
{
    struct guest guest = guest_of("web");
    struct ip server = ip_of("9.9.9.9");
    struct endpoint *endpoint;

    guest.kind = KIND_TAP;
    guest.mode = MODE_OUTBOUND;
    guest.netns = strdup("/run/netns/web");
    guest.pid = 4194304;
    guest.pid_start = UINT64_MAX;
    guest.netns_dev = 4;
    guest.netns_ino = UINT64_C(4026531840);
    guest.ephemeral = guest.localhost = true;
    guest.owner_pid = 17;
    guest.owner_start = UINT64_C(1) << 63;
    guest.owner_uid = UINT32_MAX;
    guest.tap_owner = UINT32_MAX;
    guest.tap_group = -1;
    guest.tap_multi_queue = true;
    guest.created_s = 1700000000;
    endpoint = guest_add_endpoint(&guest, one, "10.1.0.2");
    strings_add(&endpoint->aliases, "www");
    strings_add(&endpoint->aliases, "w");
    endpoint->ip6 = ip_of("fd00::2");
    endpoint->prefix6 = 64;
    endpoint = guest_add_endpoint(&guest, two, "10.2.0.9");
    endpoint->routed = true;
    endpoint->interface[0] = '\0';
    snprintf(endpoint->host_interface, sizeof(endpoint->host_interface), "tap-web");
    guest_add_port(&guest, "8080:80");
    guest_add_port(&guest, "127.0.0.1:9000-9010:1000-1010/udp");
    guest_add_port(&guest, "[::1]:9000:1");
    strings_add(&guest.policy.allow, "@public:443/tcp");
    strings_add(&guest.policy.allow, "*.example.com");
    strings_add(&guest.policy.deny, "10.0.0.0/8");
    guest.policy.log_denied = true;
    strings_add(&guest.hosts, "db:10.9.9.9");
    ips_add(&guest.dns, &server);
    strings_add(&guest.dns_search, "example.com");
    labels_set(&guest.labels, "k", "v");
    return guest;
}

static void insert(struct fixture *f, struct guest *guest)
{
    begin(f);
    ok(f, store_guest_insert(f->store, guest, &f->error));
    commit(f);
}

static void a_guest_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "fd00::/64");
    struct network two = network_stored(f, "two", "10.2.0.0/16", "");
    struct guest guest = full_guest(&one, &two);
    struct guest found = {0};
    struct guest got = {0};
    struct guest *list = NULL;
    size_t count = 0;
    bool is_found = false;
    char own_name[IFNAMSIZ];

    insert(f, &guest);
    assert_true(guest.id > 0 && guest.endpoints[0].id > 0 && guest.ports[0].id > 0);
    snprintf(own_name, sizeof(own_name), "mv%d", (int)guest.endpoints[0].id);
    assert_string_equal(guest.endpoints[0].host_interface, own_name);
    fixture_reopen(f);

    ok(f, store_guest_find(f->store, "web", &found, &is_found, &f->error));
    assert_true(is_found);
    assert_guests_equal(&guest, &found);
    assert_string_equal(found.endpoints[0].network, "one");
    assert_string_equal(found.endpoints[1].network, "two");
    assert_ip_is(&found.endpoints[0].gateway, "10.1.0.1");
    assert_ip_is(&found.endpoints[1].gateway, "10.2.0.1");
    ok(f, store_guest_get(f->store, guest.id, &got, &f->error));
    assert_guests_equal(&guest, &got);
    ok(f, store_guest_list(f->store, &list, &count, &f->error));
    assert_int_equal(count, 1);
    assert_guests_equal(&guest, &list[0]);

    guest_deinit(&guest);
    guest_deinit(&found);
    guest_deinit(&got);
    guest_deinit(&list[0]);
    free(list);
}

static void all_guests_are_listed_with_their_own_parts(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "");
    struct network two = network_stored(f, "two", "10.2.0.0/24", "");
    struct guest *list = NULL;
    size_t count = 99;

    ok(f, store_guest_list(f->store, &list, &count, &f->error));
    assert_int_equal(count, 0);
    free(list);
    for (int i = 0; i < 20; i++) {
        char name[32];
        char ip[32];
        char port[32];

        snprintf(name, sizeof(name), "g%d", 20 - i);
        struct guest guest = guest_of(name);
        snprintf(ip, sizeof(ip), "10.1.0.%d", 10 + i);
        if (i % 2 == 0)
            guest_add_endpoint(&guest, &one, ip);
        snprintf(ip, sizeof(ip), "10.2.0.%d", 10 + i);
        if (i % 3 == 0)
            guest_add_endpoint(&guest, &two, ip);
        snprintf(port, sizeof(port), "%d:80", 8000 + i);
        if (i % 5 == 0)
            guest_add_port(&guest, port);
        insert(f, &guest);
        guest_deinit(&guest);
    }
    ok(f, store_guest_list(f->store, &list, &count, &f->error));
    assert_int_equal(count, 20);
    for (int i = 0; i < 20; i++) {
        char name[32];

        snprintf(name, sizeof(name), "g%d", 20 - i);
        assert_string_equal(list[i].name, name);
        assert_int_equal(list[i].n_endpoints, (i % 2 == 0) + (i % 3 == 0));
        for (size_t j = 0; j < list[i].n_endpoints; j++) {
            assert_int_equal(list[i].endpoints[j].guest_id, list[i].id);
            assert_int_equal(list[i].endpoints[j].position, j);
        }
        assert_int_equal(list[i].n_ports, i % 5 == 0);
        if (list[i].n_ports > 0)
            assert_int_equal(list[i].ports[0].host_port, 8000 + i);
        guest_deinit(&list[i]);
    }
    free(list);
}

static void an_unknown_guest_is_not_found(void **state)
{
    struct fixture *f = *state;
    struct guest guest = {.pid = 77};
    struct policy policy = {0};
    bool found = true;

    ok(f, store_guest_find(f->store, "none", &guest, &found, &f->error));
    assert_false(found);
    ok(f, store_guest_find_by_host_interface(f->store, "mv1", &guest, &found, &f->error));
    assert_false(found);
    refused(f, store_guest_get(f->store, 9, &guest, &f->error), REASON_NOT_FOUND, "guest");
    refused(f, store_guest_set_policy(f->store, 9, MODE_FULL, &policy, &f->error), REASON_NOT_FOUND,
            "guest");
    refused(f, store_guest_set_localhost(f->store, 9, true, &f->error), REASON_NOT_FOUND, "guest");
    refused(f, store_endpoint_delete(f->store, 9, &f->error), REASON_NOT_FOUND, "endpoint");
    refused(f, store_endpoint_set_routed(f->store, 9, true, &f->error), REASON_NOT_FOUND,
            "endpoint");
    begin(f);
    refused(f, store_guest_delete(f->store, 9, &f->error), REASON_NOT_FOUND, "guest");
    store_rollback(f->store);
    assert_int_equal(guest.pid, 77);
}

static void what_is_unique_is_refused_with_its_holder(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "fd00::/64");
    struct network two = network_stored(f, "two", "10.2.0.0/24", "");
    struct guest first = guest_of("first");
    struct guest second = guest_of("first");
    struct endpoint *held = guest_add_endpoint(&first, &one, "10.1.0.2");

    held->ip6 = ip_of("fd00::2");
    snprintf(held->host_interface, sizeof(held->host_interface), "tap0");
    insert(f, &first);

    begin(f);
    refused(f, store_guest_insert(f->store, &second, &f->error), REASON_EXISTS,
            "guest first exists already");
    snprintf(second.name, sizeof(second.name), "second");
    ok(f, store_guest_insert(f->store, &second, &f->error));

    struct endpoint endpoint = {.guest_id = second.id, .network_id = one.id};
    endpoint.mac = held->mac;
    refused(f, store_endpoint_insert(f->store, &endpoint, &f->error), REASON_ADDRESS_IN_USE,
            "the MAC 02:00:0a:01:00:02 is used by guest first");
    endpoint.mac.bytes[5]++;
    endpoint.ip = held->ip;
    refused(f, store_endpoint_insert(f->store, &endpoint, &f->error), REASON_ADDRESS_IN_USE,
            "10.1.0.2 is used by guest first");
    endpoint.ip = (struct ip){0};
    endpoint.ip6 = held->ip6;
    refused(f, store_endpoint_insert(f->store, &endpoint, &f->error), REASON_ADDRESS_IN_USE,
            "fd00::2 is used by guest first");
    endpoint.ip6 = (struct ip){0};
    snprintf(endpoint.host_interface, sizeof(endpoint.host_interface), "tap0");
    refused(f, store_endpoint_insert(f->store, &endpoint, &f->error), REASON_EXISTS,
            "the interface name tap0 belongs to guest first");
    snprintf(endpoint.host_interface, sizeof(endpoint.host_interface), "mv77");
    refused(f, store_endpoint_insert(f->store, &endpoint, &f->error), REASON_EXISTS,
            "names like mv77 are moat's own");
    endpoint.host_interface[0] = '\0';
    endpoint.guest_id = first.id;
    endpoint.position = 1;
    refused(f, store_endpoint_insert(f->store, &endpoint, &f->error), REASON_EXISTS,
            "the guest is on this network already");
    endpoint.network_id = 999;
    refused(f, store_endpoint_insert(f->store, &endpoint, &f->error), REASON_NOT_FOUND,
            "no such guest or network");
    assert_int_equal(endpoint.id, 0);

    /* On another network the same MAC and address are nobody's. */
    endpoint.network_id = two.id;
    endpoint.mac = held->mac;
    endpoint.ip = held->ip;
    ok(f, store_endpoint_insert(f->store, &endpoint, &f->error));
    assert_true(endpoint.id > 0);
    commit(f);
    guest_deinit(&first);
    guest_deinit(&second);
}

static void a_failed_insert_is_undone_by_the_rollback(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "");
    struct guest first = guest_of("first");
    struct guest second = guest_of("second");
    uint64_t guests;
    uint64_t ports;
    uint64_t bridged;

    guest_add_endpoint(&first, &one, "10.1.0.2");
    guest_add_port(&first, "80:80");
    insert(f, &first);
    guest_add_endpoint(&second, &one, "10.1.0.3");
    guest_add_port(&second, "81:80");
    guest_add_port(&second, "80:80");
    begin(f);
    refused(f, store_guest_insert(f->store, &second, &f->error), REASON_PORT_IN_USE,
            "guest first has published 80:80/tcp");
    assert_int_equal(second.id, 0);
    store_rollback(f->store);
    ok(f, store_guest_count(f->store, &guests, &ports, &f->error));
    ok(f, store_endpoint_count(f->store, one.id, false, &bridged, &f->error));
    assert_int_equal(guests, 1);
    assert_int_equal(ports, 1);
    assert_int_equal(bridged, 1);
    assert_true(store_guest_insert(f->store, &second, &f->error) < 0); /* no transaction */
    assert_int_equal(f->error.kind, ERROR_INTERNAL);
    guest_deinit(&first);
    guest_deinit(&second);
}

static void guests_are_found_by_host_interface(void **state)
{
    static const char *const strangers[] = {"",     "mv",    "mv0",  "mv01",
                                            "mv-1", "mv999", "mv1x", "eth0",
                                            "mv 1", "mv+1",  "xmv1", "mv9999999999999999999"};
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "");
    struct network two = network_stored(f, "two", "10.2.0.0/24", "");
    struct guest guest = full_guest(&one, &two);
    struct guest found = {0};
    bool is_found = false;

    insert(f, &guest);
    for (size_t i = 0; i < guest.n_endpoints; i++) {
        ok(f, store_guest_find_by_host_interface(f->store, guest.endpoints[i].host_interface,
                                                 &found, &is_found, &f->error));
        assert_true(is_found);
        assert_guests_equal(&guest, &found);
        guest_deinit(&found);
    }
    for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
        ok(f, store_guest_find_by_host_interface(f->store, strangers[i], &found, &is_found,
                                                 &f->error));
        if (is_found)
            fail_msg("%s was found", strangers[i]);
    }
    /* The second endpoint has a name of its own, so the one that its id would make is nobody's. */
    char name[32];
    snprintf(name, sizeof(name), "mv%d", (int)guest.endpoints[1].id);
    ok(f, store_guest_find_by_host_interface(f->store, name, &found, &is_found, &f->error));
    assert_false(is_found);
    guest_deinit(&guest);
}

static void guests_are_found_by_namespace(void **state)
{
    struct fixture *f = *state;
    struct guest guest = guest_of("web");
    struct guest twin = guest_of("twin");
    struct guest outside = guest_of("outside"); /* without a namespace */
    struct guest found = {0};
    bool is_found = true;

    ok(f, store_guest_find_by_netns(f->store, 4, 4026532000, &found, &is_found, &f->error));
    assert_false(is_found);
    guest.netns_dev = twin.netns_dev = 4;
    guest.netns_ino = twin.netns_ino = 4026532000;
    insert(f, &guest);
    insert(f, &twin);
    insert(f, &outside);
    ok(f, store_guest_find_by_netns(f->store, 4, 4026532000, &found, &is_found, &f->error));
    assert_true(is_found);
    assert_string_equal(found.name, "web");
    guest_deinit(&found);
    ok(f, store_guest_find_by_netns(f->store, 5, 4026532000, &found, &is_found, &f->error));
    assert_false(is_found);
    ok(f, store_guest_find_by_netns(f->store, 4, 4026532001, &found, &is_found, &f->error));
    assert_false(is_found);
    ok(f, store_guest_find_by_netns(f->store, 0, 0, &found, &is_found, &f->error));
    assert_false(is_found);
}

static void macs_are_found(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "");
    struct network two = network_stored(f, "two", "10.2.0.0/24", "");
    struct mac mac = mac_of("02:00:0a:01:00:02");
    struct mac none = {0};
    char name[NAME_MAX_LENGTH + 1];
    bool found;

    guest_stored(f, "web", &one, "10.1.0.2");
    ok(f, store_mac_find(f->store, one.id, &mac, name, &found, &f->error));
    assert_true(found);
    assert_string_equal(name, "web");
    ok(f, store_mac_find(f->store, two.id, &mac, name, &found, &f->error));
    assert_false(found);
    ok(f, store_mac_find(f->store, one.id, &none, name, &found, &f->error));
    assert_false(found);
}

static uint64_t endpoints(struct fixture *f, int64_t network_id, bool routed)
{
    uint64_t count;

    ok(f, store_endpoint_count(f->store, network_id, routed, &count, &f->error));
    return count;
}

static void endpoints_are_counted_by_sort(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "");
    struct network two = network_stored(f, "two", "10.2.0.0/24", "");
    struct guest guest = full_guest(&one, &two);
    int64_t other;

    insert(f, &guest);
    other = guest_stored(f, "other", &one, "10.1.0.9");
    assert_int_equal(endpoints(f, one.id, false), 2);
    assert_int_equal(endpoints(f, one.id, true), 0);
    assert_int_equal(endpoints(f, two.id, false), 0);
    assert_int_equal(endpoints(f, two.id, true), 1);
    assert_int_equal(endpoints(f, 999, true), 0);

    ok(f, store_endpoint_set_routed(f->store, guest.endpoints[0].id, true, &f->error));
    ok(f, store_endpoint_set_routed(f->store, guest.endpoints[0].id, true, &f->error));
    assert_int_equal(endpoints(f, one.id, false), 1);
    assert_int_equal(endpoints(f, one.id, true), 1);
    ok(f, store_endpoint_set_routed(f->store, guest.endpoints[1].id, false, &f->error));
    assert_int_equal(endpoints(f, two.id, false), 1);
    assert_int_equal(endpoints(f, two.id, true), 0);

    ok(f, store_endpoint_delete(f->store, guest.endpoints[1].id, &f->error));
    assert_int_equal(endpoints(f, two.id, false), 0);
    /* The rows that go with their guest are counted too. */
    begin(f);
    ok(f, store_guest_delete(f->store, guest.id, &f->error));
    ok(f, store_guest_delete(f->store, other, &f->error));
    commit(f);
    assert_int_equal(endpoints(f, one.id, false), 0);
    assert_int_equal(endpoints(f, one.id, true), 0);
    guest_deinit(&guest);
}

static void the_policy_and_localhost_are_replaced(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "");
    struct network two = network_stored(f, "two", "10.2.0.0/24", "");
    struct guest guest = full_guest(&one, &two);
    struct guest found = {0};
    struct policy policy = {0};
    bool is_found;

    insert(f, &guest);
    strings_add(&policy.deny, "any");
    ok(f, store_guest_set_policy(f->store, guest.id, MODE_LOOPBACK, &policy, &f->error));
    ok(f, store_guest_set_localhost(f->store, guest.id, false, &f->error));
    ok(f, store_guest_find(f->store, "web", &found, &is_found, &f->error));
    assert_int_equal(found.mode, MODE_LOOPBACK);
    assert_false(found.localhost);
    assert_false(found.policy.log_denied);
    assert_int_equal(found.policy.allow.count, 0);
    assert_strings_equal(&found.policy.deny, &policy.deny);
    policy_deinit(&policy);
    guest_deinit(&guest);
    guest_deinit(&found);
}

/* What attach and detach do, over and over: nothing is left, and the address is the same again. */
static void a_release_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "fd00::/64");
    uint64_t used;
    uint64_t total;
    uint64_t guests;
    uint64_t ports;

    for (int round = 0; round < 3; round++) {
        struct guest guest = guest_of("web");
        struct guest loaded;
        bool found;

        begin(f);
        struct endpoint *endpoint = guest_add_endpoint(&guest, &one, "");
        ok(f, store_address_take(f->store, &one, AF_INET, NULL, "web", &endpoint->ip, &f->error));
        ok(f, store_address_take(f->store, &one, AF_INET6, NULL, "web", &endpoint->ip6, &f->error));
        assert_ip_is(&endpoint->ip, "10.1.0.2");
        assert_ip_is(&endpoint->ip6, "fd00::2");
        guest_add_port(&guest, "80:80");
        ok(f, store_guest_insert(f->store, &guest, &f->error));
        commit(f);

        begin(f);
        ok(f, store_guest_find(f->store, "web", &loaded, &found, &f->error));
        ok(f, store_guest_release(f->store, &loaded, &f->error));
        commit(f);
        ok(f, store_address_count(f->store, &one, &used, &total, &f->error));
        ok(f, store_guest_count(f->store, &guests, &ports, &f->error));
        assert_int_equal(used, 0);
        assert_int_equal(guests, 0);
        assert_int_equal(ports, 0);
        assert_int_equal(endpoints(f, one.id, false), 0);
        guest_deinit(&guest);
        guest_deinit(&loaded);
    }
    ok(f, store_network_delete(f->store, one.id, &f->error));
}

static uint64_t cost_of_attach(struct fixture *f, const struct network *network, unsigned number)
{
    uint64_t mark = store_steps(f->store);
    struct guest guest = guest_of("");
    uint64_t count;
    uint64_t ports;
    char port[32];

    snprintf(guest.name, sizeof(guest.name), "guest-%u", number);
    struct endpoint *endpoint = guest_add_endpoint(&guest, network, "");
    snprintf(port, sizeof(port), "%u:80", 1000 + number);
    guest_add_port(&guest, port);
    guest.netns_dev = 4;
    guest.netns_ino = 4026532000 + number;
    struct guest other;
    bool found;
    ok(f, store_guest_find_by_netns(f->store, 4, guest.netns_ino, &other, &found, &f->error));
    assert_false(found);
    ok(f, store_guest_count(f->store, &count, &ports, &f->error));
    ok(f, store_endpoint_count(f->store, network->id, false, &count, &f->error));
    ok(f,
       store_address_take(f->store, network, AF_INET, NULL, guest.name, &endpoint->ip, &f->error));
    memcpy(endpoint->mac.bytes + 2, endpoint->ip.bytes, 4);
    ok(f, store_guest_insert(f->store, &guest, &f->error));
    guest_deinit(&guest);
    return steps_since(f, &mark);
}

static uint64_t cost_of_detach(struct fixture *f, unsigned number)
{
    uint64_t mark = store_steps(f->store);
    struct guest guest;
    char name[32];
    bool found;

    snprintf(name, sizeof(name), "guest-%u", number);
    ok(f, store_guest_find(f->store, name, &guest, &found, &f->error));
    ok(f, store_guest_release(f->store, &guest, &f->error));
    guest_deinit(&guest);
    return steps_since(f, &mark);
}

static void attach_and_detach_cost_the_same_at_5000_guests(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/16", "");

    begin(f);
    cost_of_attach(f, &network, 0); /* prepares the statements */
    cost_of_detach(f, 0);
    uint64_t attach = cost_of_attach(f, &network, 1);
    uint64_t detach = cost_of_detach(f, 1);
    for (unsigned i = 2; i < 5000; i++)
        cost_of_attach(f, &network, i);
    assert_true(cost_of_attach(f, &network, 5000) <= attach + 40);
    assert_true(cost_of_detach(f, 2500) <= detach + 40);
    commit(f);
}

static void a_damaged_guest_is_an_error_not_a_guess(void **state)
{
    static const char *const damages[] = {
        "guest SET kind = 'vm'",       "guest SET mode = ''",
        "guest SET allow = 'unended'", "guest SET dns = 'x' || char(10)",
        "endpoint SET ip = '10.0.0'",  "endpoint SET aliases = '\\x' || char(10)",
        "endpoint SET mac = 'x'",      "port SET host_ip = 'x'",
    };
    struct fixture *f = *state;
    struct network one = network_stored(f, "one", "10.1.0.0/24", "");
    struct guest guest = guest_of("web");

    guest_add_endpoint(&guest, &one, "10.1.0.2");
    guest_add_port(&guest, "80:80");
    insert(f, &guest);
    guest_deinit(&guest);
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        struct guest *list = NULL;
        size_t count = 0;
        bool found;
        char sql[256];

        snprintf(sql, sizeof(sql), "SAVEPOINT s; UPDATE %s", damages[i]);
        assert_int_equal(sqlite3_exec(f->store->db, sql, NULL, NULL, NULL), SQLITE_OK);
        assert_true(store_guest_list(f->store, &list, &count, &f->error) < 0);
        if (!strstr(f->error.text, "damaged"))
            fail_msg("%s: %s", damages[i], f->error.text);
        assert_null(list);
        assert_true(store_guest_find(f->store, "web", &guest, &found, &f->error) < 0);
        assert_int_equal(sqlite3_exec(f->store->db, "ROLLBACK TO s; RELEASE s", NULL, NULL, NULL),
                         SQLITE_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_guest_comes_back_as_it_was),
        STORE_TEST(all_guests_are_listed_with_their_own_parts),
        STORE_TEST(an_unknown_guest_is_not_found),
        STORE_TEST(what_is_unique_is_refused_with_its_holder),
        STORE_TEST(a_failed_insert_is_undone_by_the_rollback),
        STORE_TEST(guests_are_found_by_host_interface),
        STORE_TEST(guests_are_found_by_namespace),
        STORE_TEST(macs_are_found),
        STORE_TEST(endpoints_are_counted_by_sort),
        STORE_TEST(the_policy_and_localhost_are_replaced),
        STORE_TEST(a_release_leaves_nothing),
        STORE_TEST(attach_and_detach_cost_the_same_at_5000_guests),
        STORE_TEST(a_damaged_guest_is_an_error_not_a_guess),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
