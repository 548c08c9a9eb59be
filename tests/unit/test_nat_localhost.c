/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `moat localhost`: 127.0.0.1:PORT inside a guest. On a bridged and on a routed port, with and
 * without br_netfilter. Needs root. */
#include "nat_topology.h"

static struct nat *nat;
static const char *bridge_nf = "0";

/* Switches it on for the endpoint, or off: the host's side and the guest's. */
static void localhost_set(enum place place, const char *address, bool on)
{
    struct error error = ERROR_INIT;
    struct nat_batch *batch = nat_batch_new(nat);
    struct nat_endpoint endpoint = {.group = GROUP_A, .ip = ip_of(address), .localhost = !on};
    const struct ip guest = ip_of(address);
    const struct ip gateway = ip_of("10.88.0.1");

    nat_batch_endpoint(batch, &endpoint, false);
    endpoint.localhost = on;
    nat_batch_endpoint(batch, &endpoint, true);
    if (nat_batch_commit(batch, &error) < 0 ||
        nat_localhost_set(places[place], "eth0", &guest, &gateway, on, &error) < 0)
        fail_msg("%s", error.text);
    nat_batch_free(batch);
    sysctl_write(place, on ? "1" : "0", "net/ipv4/conf/eth0/route_localnet");
}

static int setup(void **state)
{
    struct error error = ERROR_INIT;
    const struct nat_port ports[] = {port_of(NULL, 8100, "10.89.0.2", 80, TCP),
                                     port_of("127.0.0.1", 8101, "10.89.0.2", 80, TCP)};

    (void)state;
    topology_make(bridge_nf);
    assert_int_equal(nat_open(0x6d000000, 0xff000000, &nat, &error), 0);
    struct nat_batch *batch = nat_batch_new(nat);
    const struct nat_network access = {.group = GROUP_A, .host_access = true, .isolated = true};
    batch_add_networks(batch);
    nat_batch_network(batch, &access, true); /* host access for net A as well */
    for (size_t i = 0; i < ARRAY_SIZE(ports); i++)
        nat_batch_port(batch, &ports[i], true);
    assert_int_equal(nat_rebuild(nat, batch, &error), 0);
    nat_batch_free(batch);
    localhost_set(A1, "10.88.0.2", true);
    localhost_set(A3, "10.88.0.4", true);
    servers_prepare();
    for (int type = TCP; type <= UDP; type++) {
        serve(HOST, "10.88.0.1", 7000, type);
        serve(HOST, "10.88.0.1", 53, type);
        serve(HOST, "127.0.0.1", 7001, type);
        serve(A1, "127.0.0.1", 8000, type);
        serve(A1, "0.0.0.0", 8001, type);
        serve(A3, "127.0.0.1", 8000, type);
        serve(B1, "0.0.0.0", 80, type);
    }
    servers_start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    servers_stop();
    nat_close(nat);
    topology_free();
    return 0;
}

static void nobody_listens_the_gateway_answers(void **state)
{
    (void)state;
    for (int type = TCP; type <= UDP; type++) {
        assert_string_equal(ask(A1, "127.0.0.1", 7000, type), "host 10.88.0.2");
        assert_string_equal(ask(A3, "127.0.0.1", 7000, type), "host 10.88.0.4");
        assert_string_equal(ask(A1, "127.0.0.1", 53, type), "host 10.88.0.2");
    }
}

static void who_listens_in_the_guest_comes_first(void **state)
{
    (void)state;
    for (int type = TCP; type <= UDP; type++) {
        assert_string_equal(ask(A1, "127.0.0.1", 8000, type), "a1 127.0.0.1");
        assert_string_equal(ask(A1, "127.0.0.1", 8001, type), "a1 127.0.0.1");
        assert_string_equal(ask(A3, "127.0.0.1", 8000, type), "a3 127.0.0.1");
    }
    assert_string_equal(ask(A1, "127.0.0.2", 8001, TCP), "a1 127.0.0.1");
}

/* It starts and ends while the guest runs: asked anew for each connection. */
static void a_listener_that_comes_is_found(void **state)
{
    (void)state;
    int fd = socket_bound(A1, "127.0.0.1", 7000, TCP);
    assert_int_equal(listen(fd, 1), 0);
    int client = socket_in(A1, AF_INET, TCP);
    assert_int_equal(socket_connect(client, "127.0.0.1", 7000), 0);
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    close(accepted);
    close(client);
    close(fd);
    assert_string_equal(ask(A1, "127.0.0.1", 7000, TCP), "host 10.88.0.2");
}

static void nobody_at_all_is_refused(void **state)
{
    (void)state;
    for (int type = TCP; type <= UDP; type++)
        assert_string_equal(ask(A1, "127.0.0.1", 9, type), "refused");
}

static void published_ports_are_the_gateways_too(void **state)
{
    (void)state;
    assert_string_equal(ask(A1, "127.0.0.1", 8100, TCP), "b1 10.88.0.2");
}

/* What the host has on its own loopback is not meant. */
static void the_hosts_loopback_stays_its_own(void **state)
{
    (void)state;
    for (int type = TCP; type <= UDP; type++) {
        assert_string_equal(ask(A1, "127.0.0.1", 7001, type), "refused");
        assert_string_equal(ask(A1, "127.0.0.1", 8101, type), "refused");
    }
}

static void others_keep_their_localhost(void **state)
{
    (void)state;
    assert_string_equal(ask(A2, "127.0.0.1", 7000, TCP), "refused");
}

#define BULK (32u << 20)

/* Large segments, both ways, through lo and back. */
static void bulk(void **state)
{
    static char bytes[1 << 16];
    size_t sent = 0;
    size_t received = 0;

    (void)state;
    int listener = socket_bound(HOST, "10.88.0.1", 7002, TCP);
    assert_int_equal(listen(listener, 1), 0);
    int client = socket_in(A1, AF_INET, TCP);
    assert_int_equal(socket_connect(client, "127.0.0.1", 7002), 0);
    int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    fcntl(client, F_SETFL, O_NONBLOCK);
    while (received < BULK) {
        ssize_t out = sent < BULK ? send(client, bytes, sizeof(bytes), MSG_NOSIGNAL) : -1;

        sent += out > 0 ? (size_t)out : 0;
        if (!ask_wait(server, POLLIN, ASK_TIMEOUT_MS))
            break;
        ssize_t in = recv(server, bytes, sizeof(bytes), MSG_DONTWAIT);
        received += in > 0 ? (size_t)in : 0;
    }
    assert_true(received >= BULK);
    assert_int_equal(send(server, "bye", 3, 0), 3);
    assert_true(ask_wait(client, POLLIN, ASK_TIMEOUT_MS));
    assert_int_equal(recv(client, bytes, sizeof(bytes), 0), 3);
    close(server);
    close(client);
    close(listener);
}

/* route_localnet is on in the guest: its loopback must stay closed to neighbours all the same, who
 * may also pretend to be the address that stands for localhost. */
static void neighbours_do_not_reach_the_guests_loopback(void **state)
{
    char text[16];

    (void)state;
    run(A2, "ip addr del 127.0.0.1/8 dev lo && ip route add 127.0.0.0/8 via 10.88.0.2"
            " && ip addr add 169.254.109.1/32 dev eth0");
    sysctl_write(A2, "1", "net/ipv4/conf/all/route_localnet");
    for (int type = TCP; type <= UDP; type++) {
        assert_string_equal(ask_from(A2, "10.88.0.3", "127.0.0.1", 8000, type, SILENCE_MS),
                            "silence");
        assert_string_equal(ask_from(A2, "169.254.109.1", "10.88.0.2", 8000, type, SILENCE_MS),
                            "silence");
    }
    int victim = socket_bound(A1, "127.0.0.1", 8002, UDP);
    int attacker = socket_bound(A2, "169.254.109.1", 53, UDP);
    assert_int_equal(socket_connect(attacker, "10.88.0.2", 8002), 0);
    assert_int_equal(send(attacker, "evil", 4, 0), 4);
    assert_false(ask_wait(victim, POLLIN, SILENCE_MS));
    assert_int_equal(recv(victim, text, sizeof(text), MSG_DONTWAIT), -1);
    close(attacker);
    close(victim);
}

static void off_is_as_before_and_may_be_repeated(void **state)
{
    struct error error = ERROR_INIT;
    const struct ip none = {0};

    (void)state;
    localhost_set(A3, "10.88.0.4", false);
    assert_int_equal(nat_localhost_set(places[A3], "eth0", &none, &none, false, &error), 0);
    assert_string_equal(ask(A3, "127.0.0.1", 7000, TCP), "refused");
    assert_string_equal(ask(A3, "127.0.0.1", 8000, TCP), "a3 127.0.0.1");
    localhost_set(A3, "10.88.0.4", true);
    assert_string_equal(ask(A3, "127.0.0.1", 7000, TCP), "host 10.88.0.4");
}

static void bad_values_are_refused(void **state)
{
    struct error error = ERROR_INIT;
    const struct ip guest = ip_of("10.88.0.2");
    const struct ip guest6 = ip_of("fd00::2");

    (void)state;
    assert_int_equal(nat_localhost_set(places[A1], "eth7", &guest, &guest, true, &error),
                     -EREMOTEIO);
    assert_int_equal(error.reason, REASON_NOT_FOUND);
    assert_int_equal(nat_localhost_set(places[A1], "eth0", &guest6, &guest, true, &error),
                     -EREMOTEIO);
    assert_int_equal(error.reason, REASON_NOT_SUPPORTED);
    assert_string_equal(ask(A1, "127.0.0.1", 7000, TCP), "host 10.88.0.2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_listens_the_gateway_answers),
        cmocka_unit_test(who_listens_in_the_guest_comes_first),
        cmocka_unit_test(a_listener_that_comes_is_found),
        cmocka_unit_test(nobody_at_all_is_refused),
        cmocka_unit_test(published_ports_are_the_gateways_too),
        cmocka_unit_test(the_hosts_loopback_stays_its_own),
        cmocka_unit_test(others_keep_their_localhost),
        cmocka_unit_test(bulk),
        cmocka_unit_test(off_is_as_before_and_may_be_repeated),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(neighbours_do_not_reach_the_guests_loopback),
    };

    if (!can_make_namespaces())
        return 0;
    int failed = cmocka_run_group_tests_name("bridged frames pass by", tests, setup, teardown);
    bridge_nf = "1";
    return failed +
           cmocka_run_group_tests_name("bridged frames pass the table", tests, setup, teardown);
}
