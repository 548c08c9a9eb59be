/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Real packets through the table: who reaches whom, and as whom. Twice: with br_netfilter passing
 * bridged frames through the table, and without. Needs root. */
#include "nat_topology.h"

static struct nat *nat;
static const char *bridge_nf = "0";

static void publish(struct nat_batch *batch)
{
    const struct nat_port ports[] = {
        port_of(NULL, 8080, "10.88.0.2", 80, TCP),
        port_of(NULL, 8080, "10.88.0.2", 80, UDP),
        port_of(NULL, 8083, "10.88.0.4", 80, TCP),
        port_of(NULL, 8083, "10.88.0.4", 80, UDP),
        port_of("127.0.0.1", 8081, "10.88.0.3", 80, TCP),
        port_of("127.0.0.1", 8081, "10.88.0.3", 80, UDP),
        port_of("192.0.2.1", 8082, "10.88.0.3", 80, TCP),
        port_of(NULL, 8082, "10.88.0.2", 80, TCP),
        port_of(NULL, 8090, "10.90.0.2", 80, TCP),
        port_of(NULL, 8091, "10.91.0.2", 80, TCP),
        {.host_port = 8100,
         .guest_ip = ip_of("10.88.0.2"),
         .guest_port = 100,
         .count = 50,
         .protocol = IPPROTO_TCP},
        {.host_port = 8600,
         .guest_ip = ip_of("10.88.0.2"),
         .guest_ip6 = ip_of("fd00:88::2"),
         .guest_port = 80,
         .count = 1,
         .protocol = IPPROTO_TCP},
    };

    for (size_t i = 0; i < ARRAY_SIZE(ports); i++)
        nat_batch_port(batch, &ports[i], true);
}

static void serve_everywhere(void)
{
    static const char *const gateways[] = {"10.88.0.1", "10.89.0.1", "10.90.0.1", "10.91.0.1"};

    for (int place = OUT; place < PLACES; place++) {
        serve((enum place)place, "0.0.0.0", 80, TCP);
        serve((enum place)place, "0.0.0.0", 80, UDP);
    }
    serve(OUT, "::", 80, TCP);
    serve(A1, "::", 80, TCP);
    serve(A2, "::", 80, TCP);
    serve(A1, "0.0.0.0", 149, TCP);
    for (size_t i = 0; i < ARRAY_SIZE(gateways); i++) {
        serve(HOST, gateways[i], 53, TCP);
        serve(HOST, gateways[i], 53, UDP);
    }
    serve(HOST, "0.0.0.0", 22, TCP);
    serve(HOST, "127.0.0.1", 23, TCP);
    serve(HOST, "127.0.0.1", 23, UDP);
    serve(HOST, "::", 9000, TCP);
    serve(HOST, "::", 8080, TCP); /* as the relay worker does */
}

static int setup(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    topology_make(bridge_nf);
    assert_int_equal(nat_open(0x6d000000, 0xff000000, &nat, &error), 0);
    struct nat_batch *batch = nat_batch_new(nat);
    batch_add_networks(batch);
    publish(batch);
    assert_int_equal(nat_rebuild(nat, batch, &error), 0);
    nat_batch_free(batch);
    servers_prepare();
    serve_everywhere();
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

struct row {
    enum place from;
    const char *address;
    uint16_t port;
    const char *answer;
};

static void assert_rows(const struct row *rows, size_t count, int type)
{
    for (size_t i = 0; i < count; i++) {
        bool silence = strcmp(rows[i].answer, "silence") == 0;
        const char *answer = silence
                                 ? ask_briefly(rows[i].from, rows[i].address, rows[i].port, type)
                                 : ask(rows[i].from, rows[i].address, rows[i].port, type);

        if (strcmp(answer, rows[i].answer) != 0)
            fail_msg("%s from %s to [%s]:%u: \"%s\", expected \"%s\"", type == TCP ? "TCP" : "UDP",
                     place_names[rows[i].from], rows[i].address, rows[i].port, answer,
                     rows[i].answer);
    }
}

#define ASSERT_TCP(rows) assert_rows(rows, ARRAY_SIZE(rows), TCP)
#define ASSERT_BOTH(rows)                         \
    do {                                          \
        assert_rows(rows, ARRAY_SIZE(rows), TCP); \
        assert_rows(rows, ARRAY_SIZE(rows), UDP); \
    } while (0)

static void published_ports_are_reached_and_keep_the_client(void **state)
{
    static const struct row rows[] = {
        {OUT, "192.0.2.1", 8080, "a1 192.0.2.2"},  {OUT, "192.0.2.1", 8083, "a3 192.0.2.2"},
        {HOST, "192.0.2.1", 8080, "a1 192.0.2.1"}, {HOST, "10.88.0.1", 8080, "a1 10.88.0.1"},
        {B1, "192.0.2.1", 8080, "a1 10.89.0.2"},   {B1, "192.0.2.1", 8083, "a3 10.89.0.2"},
        {B1, "10.89.0.1", 8080, "a1 10.89.0.2"},   {D1, "192.0.2.1", 8080, "a1 10.91.0.2"},
    };
    static const struct row tcp_only[] = {
        {OUT, "192.0.2.1", 8149, "a1 192.0.2.2"},
        {OUT, "192.0.2.1", 8150, "refused"},
        {OUT, "192.0.2.1", 8091, "d1 192.0.2.2"},
    };

    (void)state;
    ASSERT_BOTH(rows);
    ASSERT_TCP(tcp_only);
}

static void published_ports_are_reached_through_127_0_0_1(void **state)
{
    static const struct row rows[] = {
        {HOST, "127.0.0.1", 8080, "a1 10.88.0.1"},
        {HOST, "127.0.0.2", 8080, "a1 10.88.0.1"},
        {HOST, "127.0.0.1", 8083, "a3 10.88.0.1"},
        {HOST, "127.0.0.1", 8081, "a2 10.88.0.1"},
    };
    static const struct row tcp_only[] = {
        {HOST, "127.0.0.1", 22, "host 127.0.0.1"},
        {HOST, "127.0.0.1", 8091, "d1 10.91.0.1"},
    };

    (void)state;
    ASSERT_BOTH(rows);
    ASSERT_TCP(tcp_only);
}

static void neighbours_and_the_guest_itself_reach_it_through_the_host(void **state)
{
    static const struct row rows[] = {
        {A1, "192.0.2.1", 8080, "a1 10.88.0.1"}, {A1, "10.88.0.1", 8080, "a1 10.88.0.1"},
        {A2, "192.0.2.1", 8080, "a1 10.88.0.1"}, {A2, "10.88.0.1", 8080, "a1 10.88.0.1"},
        {A3, "192.0.2.1", 8080, "a1 10.88.0.1"}, {A1, "192.0.2.1", 8083, "a3 10.88.0.1"},
        {A3, "192.0.2.1", 8083, "a3 10.88.0.1"}, {A4, "192.0.2.1", 8080, "a1 10.88.0.1"},
    };
    static const struct row tcp_only[] = {
        {D2, "192.0.2.1", 8091, "d1 10.91.0.1"},
        {C2, "10.90.0.1", 8090, "c1 10.90.0.1"},
    };

    (void)state;
    ASSERT_BOTH(rows);
    ASSERT_TCP(tcp_only);
}

static void one_address_comes_before_every_address(void **state)
{
    static const struct row rows[] = {
        {OUT, "192.0.2.1", 8082, "a2 192.0.2.2"},
        {HOST, "10.89.0.1", 8082, "a1 10.89.0.1"},
    };

    (void)state;
    ASSERT_TCP(rows);
}

static void a_port_on_127_0_0_1_is_for_the_host_only(void **state)
{
    static const struct row rows[] = {
        {OUT, "192.0.2.1", 8081, "refused"},
        {A1, "192.0.2.1", 8081, "refused"},
        {A1, "10.88.0.1", 8081, "refused"},
        {B1, "10.89.0.1", 8081, "refused"},
    };

    (void)state;
    ASSERT_BOTH(rows);
}

/* Loopback addresses by a route made by hand, from the outside and from a guest, while
 * route_localnet is on. */
static void loopback_is_not_reached_by_a_crafted_route(void **state)
{
    static const struct {
        enum place from;
        const char *source, *via;
    } rows[] = {{OUT, "192.0.2.2", "192.0.2.1"}, {A2, "10.88.0.3", "10.88.0.1"}};

    (void)state;
    sysctl_write(HOST, "1", "net/ipv4/conf/out0/route_localnet");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        run(rows[i].from, "ip addr del 127.0.0.1/8 dev lo && ip route add 127.0.0.0/8 via %s",
            rows[i].via);
        sysctl_write(rows[i].from, "1", "net/ipv4/conf/all/route_localnet");
        for (int type = TCP; type <= UDP; type++) {
            assert_string_equal(
                ask_from(rows[i].from, rows[i].source, "127.0.0.1", 23, type, SILENCE_MS),
                "silence");
            assert_string_equal(
                ask_from(rows[i].from, rows[i].source, "127.0.0.1", 8081, type, SILENCE_MS),
                "silence");
        }
        run(rows[i].from, "ip route del 127.0.0.0/8 via %s && ip addr add 127.0.0.1/8 dev lo",
            rows[i].via);
    }
}

static void guests_reach_the_outside_as_the_host(void **state)
{
    static const struct row rows[] = {
        {A1, "192.0.2.2", 80, "out 192.0.2.1"},
        {A3, "192.0.2.2", 80, "out 192.0.2.1"},
        {A4, "192.0.2.2", 80, "out 192.0.2.1"},
        {D1, "192.0.2.2", 80, "out 192.0.2.1"},
    };

    (void)state;
    ASSERT_BOTH(rows);
}

static void neighbours_are_never_translated(void **state)
{
    static const struct row rows[] = {
        {A1, "10.88.0.3", 80, "a2 10.88.0.2"}, {A1, "10.88.0.4", 80, "a3 10.88.0.2"},
        {A3, "10.88.0.2", 80, "a1 10.88.0.4"}, {A4, "10.88.0.2", 80, "a1 10.88.0.5"},
        {C1, "10.90.0.3", 80, "c2 10.90.0.2"}, {HOST, "10.88.0.2", 80, "a1 10.88.0.1"},
    };

    (void)state;
    ASSERT_BOTH(rows);
}

static void networks_never_reach_each_other(void **state)
{
    static const struct row rows[] = {
        {A1, "10.89.0.2", 80, "refused"},  {A3, "10.89.0.2", 80, "refused"},
        {B1, "10.88.0.4", 80, "refused"},  {B1, "10.90.0.2", 80, "refused"},
        {D1, "10.91.0.3", 80, "refused"},  {OUT, "10.88.0.2", 80, "refused"},
        {OUT, "10.88.0.4", 80, "refused"},
    };

    (void)state;
    ASSERT_BOTH(rows);
}

static struct nat_passage passage_of(uint32_t from, uint32_t to, uint8_t protocol, uint16_t first,
                                     uint16_t last)
{
    return (struct nat_passage){from, to, {protocol, first, last}};
}

static void change_passages(const struct nat_passage *passages, size_t count, bool add)
{
    struct nat_batch *batch = nat_batch_new(nat);
    struct error error = ERROR_INIT;

    for (size_t i = 0; i < count; i++)
        nat_batch_passage(batch, &passages[i], add);
    if (nat_batch_commit(batch, &error) < 0)
        fail_msg("%s", error.text);
    nat_batch_free(batch);
}

static void a_passage_opens_what_it_says_one_way(void **state)
{
    static const struct row tcp[] = {
        {A1, "10.89.0.2", 80, "b1 10.88.0.2"},  {A3, "10.89.0.2", 80, "b1 10.88.0.4"},
        {A1, "10.91.0.2", 80, "d1 10.88.0.2"},  {A1, "10.91.0.3", 80, "d2 10.88.0.2"},
        {B1, "10.88.0.2", 80, "refused"},       {D1, "10.88.0.2", 80, "refused"},
        {B1, "10.91.0.2", 80, "refused"},       {D1, "10.91.0.3", 80, "refused"},
        {B1, "10.90.0.2", 80, "c1 10.90.0.1"},  {C1, "10.89.0.2", 80, "unreachable"},
        {D1, "10.88.0.5", 80, "refused"},       {A1, "10.91.0.1", 22, "refused"},
        {OUT, "10.91.0.2", 80, "refused"},      {C2, "10.90.0.2", 80, "c1 10.90.0.3"},
        {A1, "192.0.2.2", 80, "out 192.0.2.1"},
    };
    static const struct row udp[] = {
        {A1, "10.89.0.2", 80, "refused"},
        {A1, "10.91.0.2", 80, "d1 10.88.0.2"},
        {D1, "10.88.0.2", 80, "refused"},
        {B1, "10.90.0.2", 80, "c1 10.90.0.1"},
    };
    static const struct row closed[] = {
        {A1, "10.89.0.2", 80, "refused"},
        {A1, "10.91.0.2", 80, "refused"},
        {B1, "10.90.0.2", 80, "refused"},
    };
    const struct nat_passage passages[] = {
        passage_of(GROUP_A, GROUP_B, IPPROTO_TCP, 70, 80),
        passage_of(GROUP_A, GROUP_B, IPPROTO_UDP, 81, 90),
        passage_of(GROUP_A, GROUP_D, 0, 0, 0),
        passage_of(GROUP_D, GROUP_A, IPPROTO_TCP, 81, 65535),
        passage_of(GROUP_B, GROUP_C, 0, 0, 0),
    };

    (void)state;
    run(C1, "ip route del default");
    change_passages(passages, ARRAY_SIZE(passages), true);
    ASSERT_TCP(tcp);
    assert_rows(udp, ARRAY_SIZE(udp), UDP);
    run(A1, "ping -n -c1 -W2 10.91.0.2 >/dev/null");
    run(A1, "! ping -n -c1 -W1 10.89.0.2 >/dev/null");
    change_passages(passages, ARRAY_SIZE(passages), false);
    ASSERT_BOTH(closed);
    run(C1, "ip route add default via 10.90.0.1");
}

static void closed_guests_are_not_reached(void **state)
{
    static const struct row rows[] = {
        {A1, "10.88.0.5", 80, "refused"},
        {A3, "10.88.0.5", 80, "refused"},
        {OUT, "10.88.0.5", 80, "refused"},
        {HOST, "10.88.0.5", 80, "refused"},
    };

    (void)state;
    ASSERT_BOTH(rows);
}

static void internal_networks_have_no_outside(void **state)
{
    static const struct row rows[] = {
        {C2, "192.0.2.2", 80, "refused"},          {C2, "192.0.2.1", 22, "refused"},
        {OUT, "192.0.2.1", 8090, "refused"},       {HOST, "127.0.0.1", 8090, "c1 10.90.0.1"},
        {HOST, "192.0.2.1", 8090, "c1 10.90.0.1"},
    };

    (void)state;
    ASSERT_TCP(rows);
}

static void name_service_answers_its_own_network_only(void **state)
{
    static const struct row rows[] = {
        {A1, "10.88.0.1", 53, "host 10.88.0.2"}, {A4, "10.88.0.1", 53, "host 10.88.0.5"},
        {C1, "10.90.0.1", 53, "host 10.90.0.2"}, {HOST, "10.88.0.1", 53, "host 10.88.0.1"},
        {A1, "10.89.0.1", 53, "refused"},        {B1, "10.88.0.1", 53, "refused"},
        {OUT, "10.88.0.1", 53, "silence"},
    };

    (void)state;
    ASSERT_BOTH(rows);
}

static void services_of_the_host_need_host_access(void **state)
{
    static const struct row rows[] = {
        {A1, "192.0.2.1", 22, "refused"},         {A1, "10.88.0.1", 22, "refused"},
        {B1, "192.0.2.1", 22, "host 10.89.0.2"},  {B1, "10.89.0.1", 22, "host 10.89.0.2"},
        {OUT, "192.0.2.1", 22, "host 192.0.2.2"}, {B1, "10.89.0.1", 23, "refused"},
    };

    (void)state;
    ASSERT_TCP(rows);
}

static void ping_follows_the_same_rules(void **state)
{
    static const struct {
        enum place from;
        const char *address;
        bool answered;
    } rows[] = {
        {A1, "10.88.0.1", true},  {A1, "192.0.2.1", true},  {A1, "192.0.2.2", true},
        {A4, "10.88.0.1", true},  {C1, "10.90.0.1", true},  {D1, "10.91.0.1", true},
        {A1, "10.89.0.1", false}, {A1, "10.89.0.2", false}, {A1, "10.88.0.5", false},
        {C1, "192.0.2.1", false}, {D1, "10.91.0.3", false}, {OUT, "10.88.0.1", false},
        {OUT, "192.0.2.1", true}, {A1, "fd00:88::1", true}, {A1, "2001:db8::2", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        run(rows[i].from, "%s ping -n -c1 -W%d %s >/dev/null 2>&1", rows[i].answered ? "" : "!",
            rows[i].answered ? 2 : 1, rows[i].address);
}

static void ipv6(void **state)
{
    static const struct row rows[] = {
        {A1, "2001:db8::2", 80, "out 2001:db8::1"},    {OUT, "2001:db8::1", 8600, "a1 2001:db8::2"},
        {HOST, "2001:db8::1", 8600, "a1 2001:db8::1"}, {HOST, "::1", 8600, "refused"},
        {A2, "2001:db8::1", 8600, "a1 fd00:88::1"},    {A1, "2001:db8::1", 8600, "a1 fd00:88::1"},
        {A1, "fd00:88::3", 80, "a2 fd00:88::2"},       {OUT, "fd00:88::2", 80, "refused"},
        {A1, "2001:db8::1", 9000, "refused"},          {A1, "2001:db8::1", 8080, "host fd00:88::2"},
    };

    (void)state;
    ASSERT_TCP(rows);
}

/* traceroute: the host answers as the first hop, a closed guest as well. */
static void the_host_is_the_first_hop(void **state)
{
    static const enum place places_from[] = {A1, A3, A4, D1};
    int ttl = 1;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(places_from); i++) {
        int fd = socket_in(places_from[i], AF_INET, UDP);
        char byte;

        assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)), 0);
        assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &(int){1}, sizeof(int)), 0);
        assert_int_equal(socket_connect(fd, "192.0.2.2", 33434), 0);
        assert_int_equal(send(fd, "?", 1, 0), 1);
        assert_true(ask_wait(fd, POLLIN, ASK_TIMEOUT_MS));
        assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, EHOSTUNREACH);
        close(fd);
    }
}

/* The way to the outside carries less than either end believes: the server must have been told. */
static void segment_size_follows_the_path(void **state)
{
    uint32_t size = 0;
    socklen_t length = sizeof(size);

    (void)state;
    run(HOST, "ip link set out0 mtu 1300");
    int server = socket_bound(OUT, "0.0.0.0", 81, TCP);
    assert_int_equal(listen(server, 1), 0);
    int client = socket_in(A1, AF_INET, TCP);
    assert_int_equal(socket_connect(client, "192.0.2.2", 81), 0);
    int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(getsockopt(accepted, IPPROTO_TCP, 2 /* TCP_MAXSEG */, &size, &length), 0);
    assert_in_range(size, 536, 1260);
    close(accepted);
    close(client);
    close(server);
    run(HOST, "ip link set out0 mtu 1500");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_ports_are_reached_and_keep_the_client),
        cmocka_unit_test(published_ports_are_reached_through_127_0_0_1),
        cmocka_unit_test(neighbours_and_the_guest_itself_reach_it_through_the_host),
        cmocka_unit_test(one_address_comes_before_every_address),
        cmocka_unit_test(a_port_on_127_0_0_1_is_for_the_host_only),
        cmocka_unit_test(loopback_is_not_reached_by_a_crafted_route),
        cmocka_unit_test(guests_reach_the_outside_as_the_host),
        cmocka_unit_test(neighbours_are_never_translated),
        cmocka_unit_test(networks_never_reach_each_other),
        cmocka_unit_test(a_passage_opens_what_it_says_one_way),
        cmocka_unit_test(closed_guests_are_not_reached),
        cmocka_unit_test(internal_networks_have_no_outside),
        cmocka_unit_test(name_service_answers_its_own_network_only),
        cmocka_unit_test(services_of_the_host_need_host_access),
        cmocka_unit_test(ping_follows_the_same_rules),
        cmocka_unit_test(ipv6),
        cmocka_unit_test(the_host_is_the_first_hop),
        cmocka_unit_test(segment_size_follows_the_path),
    };

    if (!can_make_namespaces())
        return 0;
    int failed = cmocka_run_group_tests_name("bridged frames pass by", tests, setup, teardown);
    bridge_nf = "1";
    return failed +
           cmocka_run_group_tests_name("bridged frames pass the table", tests, setup, teardown);
}
