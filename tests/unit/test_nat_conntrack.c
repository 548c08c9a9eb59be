/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flushing connection tracking: what goes, and that nothing else does. Needs root. */
#include "nat_topology.h"

#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

static struct nat *nat;
static struct conntrack *conntrack;

static int setup(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    topology_make("0");
    assert_int_equal(nat_open(0x6d000000, 0xff000000, &nat, &error), 0);
    struct nat_batch *batch = nat_batch_new(nat);
    batch_add_networks(batch);
    assert_int_equal(nat_rebuild(nat, batch, &error), 0);
    nat_batch_free(batch);
    assert_int_equal(conntrack_open(&conntrack, &error), 0);
    servers_prepare();
    for (int place = OUT; place < PLACES; place++) {
        serve((enum place)place, "0.0.0.0", 80, UDP);
        serve((enum place)place, "0.0.0.0", 80, TCP);
    }
    serve(OUT, "2001:db8::2", 80, UDP);
    serve(OUT, "0.0.0.0", 7000, UDP);
    serve(HOST, "0.0.0.0", 7001, UDP);
    servers_start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    servers_stop();
    conntrack_close(conntrack);
    nat_close(nat);
    topology_free();
    return 0;
}

static void port_set(const struct nat_port *port, bool add)
{
    struct error error = ERROR_INIT;
    struct nat_batch *batch = nat_batch_new(nat);

    nat_batch_port(batch, port, add);
    if (nat_batch_commit(batch, &error) < 0)
        fail_msg("%s", error.text);
    nat_batch_free(batch);
}

/* --- a client that keeps its port: what its flow leads to is one entry --- */

static int client_open(enum place place, uint16_t source, const char *address)
{
    return socket_bound(place, strchr(address, ':') ? "::" : "0.0.0.0", source, UDP);
}

/* Does the entry of this flow exist? */
static int entry_exists(const char *source, uint16_t source_port, const char *destination,
                        uint16_t port)
{
    char line[256];

    snprintf(
        line, sizeof(line),
        "conntrack -L -f %s -p udp --orig-src %s --sport %u --orig-dst %s --dport %u 2>/dev/null"
        " | grep -q udp",
        strchr(source, ':') ? "ipv6" : "ipv4", source, source_port, destination, port);
    return system(line) == 0;
}

static void flow_make(enum place place, uint16_t source, const char *address, uint16_t port,
                      const char *answer)
{
    int fd = client_open(place, source, address);
    char text[128];

    assert_string_equal(ask_udp(fd, address, port, ASK_TIMEOUT_MS, text, sizeof(text)), answer);
    close(fd);
}

static void a_guest_goes_with_its_entries_only(void **state)
{
    const struct nat_port port = port_of(NULL, 8080, "10.88.0.2", 80, UDP);
    const struct ip guest = ip_of("10.88.0.2");

    (void)state;
    port_set(&port, true);
    flow_make(A1, 2001, "192.0.2.2", 80, "out 192.0.2.1");
    flow_make(A2, 2002, "192.0.2.2", 80, "out 192.0.2.1");
    flow_make(OUT, 2003, "192.0.2.1", 8080, "a1 192.0.2.2");
    flow_make(OUT, 2004, "192.0.2.1", 7001, "host 192.0.2.2");
    conntrack_flush_guest(conntrack, &guest);
    conntrack_wait(conntrack);
    assert_false(entry_exists("10.88.0.2", 2001, "192.0.2.2", 80));
    assert_true(entry_exists("10.88.0.3", 2002, "192.0.2.2", 80));
    assert_false(entry_exists("192.0.2.2", 2003, "192.0.2.1", 8080));
    assert_true(entry_exists("192.0.2.2", 2004, "192.0.2.1", 7001));
    port_set(&port, false);
}

/* Kernels have compared IPv6 addresses the other way round in their filters. */
static void a_guest_goes_with_its_ipv6_entries_only(void **state)
{
    const struct ip guest = ip_of("fd00:88::2");

    (void)state;
    flow_make(A1, 2011, "2001:db8::2", 80, "out 2001:db8::1");
    flow_make(A2, 2012, "2001:db8::2", 80, "out 2001:db8::1");
    flow_make(A2, 2013, "192.0.2.2", 80, "out 192.0.2.1");
    conntrack_flush_guest(conntrack, &guest);
    conntrack_wait(conntrack);
    assert_false(entry_exists("fd00:88::2", 2011, "2001:db8::2", 80));
    assert_true(entry_exists("fd00:88::3", 2012, "2001:db8::2", 80));
    assert_true(entry_exists("10.88.0.3", 2013, "192.0.2.2", 80));
}

/* One by filter, one perhaps not. */
static void both_addresses_of_a_guest_go_at_once(void **state)
{
    const struct ip guests[] = {ip_of("10.88.0.2"), ip_of("fd00:88::2")};

    (void)state;
    flow_make(A1, 2021, "2001:db8::2", 80, "out 2001:db8::1");
    flow_make(A1, 2022, "192.0.2.2", 80, "out 192.0.2.1");
    flow_make(A2, 2023, "2001:db8::2", 80, "out 2001:db8::1");
    flow_make(A2, 2024, "192.0.2.2", 80, "out 192.0.2.1");
    for (size_t i = 0; i < ARRAY_SIZE(guests); i++)
        conntrack_flush_guest(conntrack, &guests[i]);
    conntrack_wait(conntrack);
    assert_false(entry_exists("fd00:88::2", 2021, "2001:db8::2", 80));
    assert_false(entry_exists("10.88.0.2", 2022, "192.0.2.2", 80));
    assert_true(entry_exists("fd00:88::3", 2023, "2001:db8::2", 80));
    assert_true(entry_exists("10.88.0.3", 2024, "192.0.2.2", 80));
}

/* To see what a filter does, an entry is made: nobody finds it afterwards. */
static void the_probe_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(system("conntrack -L -f ipv6 -w 28013 2>/dev/null | grep -q ."), 256);
    assert_int_equal(system("conntrack -L -f ipv4 -w 28013 2>/dev/null | grep -q ."), 256);
}

/* More guests at once than are deleted by filter: one dump. */
static void many_guests_go_at_once(void **state)
{
    (void)state;
    flow_make(A1, 2101, "192.0.2.2", 80, "out 192.0.2.1");
    flow_make(A2, 2102, "192.0.2.2", 80, "out 192.0.2.1");
    flow_make(B1, 2103, "192.0.2.2", 80, "out 192.0.2.1");
    for (int i = 2; i < 200; i++) {
        struct ip guest = ip_of("10.88.0.0");

        if (i != 3) {
            guest = ip_add(&guest, i);
            conntrack_flush_guest(conntrack, &guest);
        }
    }
    conntrack_wait(conntrack);
    assert_false(entry_exists("10.88.0.2", 2101, "192.0.2.2", 80));
    assert_true(entry_exists("10.88.0.3", 2102, "192.0.2.2", 80));
    assert_true(entry_exists("10.89.0.2", 2103, "192.0.2.2", 80));
}

/* Not: the same port of another machine, another port, the other protocol, another guest's. */
static void a_port_goes_with_its_entries_only(void **state)
{
    const struct nat_port port = port_of(NULL, 7000, "10.88.0.2", 80, UDP);
    const struct nat_port other = port_of("10.89.0.1", 7000, "10.88.0.3", 80, UDP);

    (void)state;
    port_set(&port, true);
    port_set(&other, true);
    flow_make(OUT, 2201, "192.0.2.1", 7000, "a1 192.0.2.2");
    flow_make(B1, 2202, "192.0.2.1", 7000, "a1 10.89.0.2");
    flow_make(B1, 2203, "10.89.0.1", 7000, "a2 10.89.0.2");
    flow_make(B1, 2204, "192.0.2.2", 7000, "out 192.0.2.1");
    flow_make(HOST, 2205, "192.0.2.2", 7000, "out 192.0.2.1");
    flow_make(OUT, 2206, "192.0.2.1", 7001, "host 192.0.2.2");
    conntrack_flush_port(conntrack, &port);
    conntrack_wait(conntrack);
    assert_false(entry_exists("192.0.2.2", 2201, "192.0.2.1", 7000));
    assert_false(entry_exists("10.89.0.2", 2202, "192.0.2.1", 7000));
    assert_true(entry_exists("10.89.0.2", 2203, "10.89.0.1", 7000));
    assert_true(entry_exists("10.89.0.2", 2204, "192.0.2.2", 7000));
    assert_true(entry_exists("192.0.2.1", 2205, "192.0.2.2", 7000));
    assert_true(entry_exists("192.0.2.2", 2206, "192.0.2.1", 7001));
    conntrack_flush_port(conntrack, &other);
    conntrack_wait(conntrack);
    assert_false(entry_exists("10.89.0.2", 2203, "10.89.0.1", 7000));
    port_set(&port, false);
    port_set(&other, false);
}

static void a_range_goes_as_a_whole(void **state)
{
    struct nat_port port = port_of(NULL, 7100, "10.88.0.2", 80, UDP);
    const struct nat_port last = port_of(NULL, 7109, "10.88.0.2", 80, UDP);
    const struct nat_port beyond = port_of(NULL, 7110, "10.88.0.2", 80, UDP);

    (void)state;
    port.count = 10;
    port_set(&last, true);
    port_set(&beyond, true);
    flow_make(OUT, 2301, "192.0.2.1", 7109, "a1 192.0.2.2");
    flow_make(OUT, 2302, "192.0.2.1", 7110, "a1 192.0.2.2");
    conntrack_flush_port(conntrack, &port);
    conntrack_wait(conntrack);
    assert_false(entry_exists("192.0.2.2", 2301, "192.0.2.1", 7109));
    assert_true(entry_exists("192.0.2.2", 2302, "192.0.2.1", 7110));
    port_set(&last, false);
    port_set(&beyond, false);
}

/* --- a client that never stops --- */

struct endless {
    int fd;
    _Atomic bool stop;
    _Atomic(enum place) answered_by; /* HOST: nobody */
    pthread_t thread;
};

static void *endless_run(void *userdata)
{
    struct endless *endless = userdata;
    char text[128];

    while (!endless->stop) {
        send(endless->fd, "?", 1, 0); /* ECONNREFUSED is fine */
        if (!ask_wait(endless->fd, POLLIN, 5))
            continue;
        ssize_t received = recv(endless->fd, text, sizeof(text), 0);
        if (received >= 2)
            endless->answered_by = memcmp(text, "a1", 2) == 0   ? A1
                                   : memcmp(text, "a2", 2) == 0 ? A2
                                                                : HOST;
    }
    return NULL;
}

static void wait_answered_by(struct endless *endless, enum place place)
{
    double start_us = now_us();

    while (endless->answered_by != place && now_us() - start_us < 1e6)
        poll(NULL, 0, 1);
    if (endless->answered_by != place)
        fail_msg("the client does not reach %s within a second", place_names[place]);
    print_message("%s answers after %.1f ms\n", place_names[place], (now_us() - start_us) / 1000);
}

static void an_endless_client_reaches_the_successor(void **state)
{
    const struct nat_port first = port_of(NULL, 7200, "10.88.0.2", 80, UDP);
    const struct nat_port second = port_of(NULL, 7200, "10.88.0.3", 80, UDP);
    struct endless endless = {.answered_by = HOST};

    (void)state;
    endless.fd = client_open(OUT, 2401, "192.0.2.1");
    assert_int_equal(socket_connect(endless.fd, "192.0.2.1", 7200), 0);
    assert_int_equal(pthread_create(&endless.thread, NULL, endless_run, &endless), 0);
    while (!entry_exists("192.0.2.2", 2401, "192.0.2.1", 7200)) /* untranslated */
        poll(NULL, 0, 1);
    port_set(&first, true);
    conntrack_flush_port(conntrack, &first);
    wait_answered_by(&endless, A1);
    port_set(&first, false);
    conntrack_flush_port(conntrack, &first);
    port_set(&second, true);
    conntrack_flush_port(conntrack, &second);
    wait_answered_by(&endless, A2);
    endless.stop = true;
    pthread_join(endless.thread, NULL);
    close(endless.fd);
    port_set(&second, false);
}

static void closing_finishes_what_is_queued(void **state)
{
    struct error error = ERROR_INIT;
    struct conntrack *other = NULL;
    const struct ip guest = ip_of("10.88.0.2");

    (void)state;
    flow_make(A1, 2501, "192.0.2.2", 80, "out 192.0.2.1");
    assert_int_equal(conntrack_open(&other, &error), 0);
    conntrack_flush_guest(other, &guest);
    conntrack_close(other);
    assert_false(entry_exists("10.88.0.2", 2501, "192.0.2.2", 80));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_goes_with_its_entries_only),
        cmocka_unit_test(a_guest_goes_with_its_ipv6_entries_only),
        cmocka_unit_test(both_addresses_of_a_guest_go_at_once),
        cmocka_unit_test(the_probe_leaves_nothing),
        cmocka_unit_test(many_guests_go_at_once),
        cmocka_unit_test(a_port_goes_with_its_entries_only),
        cmocka_unit_test(a_range_goes_as_a_whole),
        cmocka_unit_test(an_endless_client_reaches_the_successor),
        cmocka_unit_test(closing_finishes_what_is_queued),
    };

    if (!can_make_namespaces())
        return 0;
    if (system("conntrack --version >/dev/null 2>&1") != 0) {
        print_message("skipped: no `conntrack`\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
