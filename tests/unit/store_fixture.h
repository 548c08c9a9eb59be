/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A store in a temporary directory, and builders for rows. Every helper fails the test on an error
 * that the test did not ask for, with the error's text. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "store/private.h"
#include "store/store.h"

struct fixture {
    char dir[PATH_MAX];
    struct store *store;
    struct error error; /* for calls that are meant to succeed */
};

/* Asserts that a call succeeded. */
#define ok(fixture, call)                                     \
    do {                                                      \
        if ((call) != 0)                                      \
            fail_msg("%s: %s", #call, (fixture)->error.text); \
    } while (0)

/* Asserts that a call fails with a reason and a text that has the words. */
#define refused(fixture, call, expected_reason, words)                                           \
    do {                                                                                         \
        (fixture)->error = ERROR_INIT;                                                           \
        if ((call) == 0)                                                                         \
            fail_msg("%s was not refused", #call);                                               \
        assert_string_equal(reason_name((fixture)->error.reason), reason_name(expected_reason)); \
        if (!strstr((fixture)->error.text, words))                                               \
            fail_msg("\"%s\" is not in: %s", words, (fixture)->error.text);                      \
    } while (0)

__attribute__((unused)) static int fixture_setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    const char *tmp = getenv("TMPDIR");

    snprintf(fixture->dir, sizeof(fixture->dir), "%s/moat-store-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(fixture->dir))
        return -1;
    if (store_open(fixture->dir, &fixture->store, &fixture->error) < 0) {
        print_error("%s\n", fixture->error.text);
        return -1;
    }
    *state = fixture;
    return 0;
}

static inline void fixture_remove_files(const struct fixture *fixture)
{
    DIR *dir = opendir(fixture->dir);

    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

__attribute__((unused)) static int fixture_teardown(void **state)
{
    struct fixture *fixture = *state;

    store_close(fixture->store);
    fixture_remove_files(fixture);
    rmdir(fixture->dir);
    free(fixture);
    return 0;
}

#define STORE_TEST(function) \
    cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

/* Closes the store and opens it again: what is then there was on the disk. */
static inline void fixture_reopen(struct fixture *fixture)
{
    store_close(fixture->store);
    fixture->store = NULL;
    ok(fixture, store_open(fixture->dir, &fixture->store, &fixture->error));
}

static inline void begin(struct fixture *fixture)
{
    ok(fixture, store_begin(fixture->store, &fixture->error));
}

static inline void commit(struct fixture *fixture)
{
    ok(fixture, store_commit(fixture->store, &fixture->error));
}

static inline struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    if (*text && ip_parse(text, &ip) < 0)
        fail_msg("%s is not an address", text);
    return ip;
}

static inline struct cidr cidr_of(const char *text)
{
    struct cidr cidr = {0};

    if (*text && cidr_parse(text, &cidr) < 0)
        fail_msg("%s is not a prefix", text);
    return cidr;
}

static inline struct mac mac_of(const char *text)
{
    struct mac mac = {0};

    if (mac_parse(text, &mac) < 0)
        fail_msg("%s is not a MAC", text);
    return mac;
}

static inline void assert_ip_is(const struct ip *ip, const char *expected)
{
    char text[IP_TEXT_MAX];

    assert_string_equal(ip_format(ip, text), expected);
}

/* A network with the first address as its gateway; "" for an absent subnet. The bridge is
 * "br-NAME". */
static inline struct network network_of(const char *name, const char *subnet, const char *subnet6)
{
    struct network network = {
        .subnet = cidr_of(subnet), .subnet6 = cidr_of(subnet6), .dns = true, .created_s = 1};
    struct ip first = cidr_first(&network.subnet);
    struct ip first6 = cidr_first(&network.subnet6);

    snprintf(network.uid, sizeof(network.uid), "%012x", 1);
    snprintf(network.name, sizeof(network.name), "%s", name);
    snprintf(network.bridge, sizeof(network.bridge), "br-%.10s", name);
    if (ip_is_set(&first))
        network.gateway = ip_add(&first, 1);
    if (ip_is_set(&first6))
        network.gateway6 = ip_add(&first6, 1);
    return network;
}

/* The same, stored. */
static inline struct network network_stored(struct fixture *fixture, const char *name,
                                            const char *subnet, const char *subnet6)
{
    struct network network = network_of(name, subnet, subnet6);

    begin(fixture);
    ok(fixture, store_network_insert(fixture->store, &network, &fixture->error));
    commit(fixture);
    return network;
}

/* A guest without endpoints and ports. */
static inline struct guest guest_of(const char *name)
{
    struct guest guest = {.kind = KIND_NETNS, .mode = MODE_FULL, .created_s = 1};

    snprintf(guest.uid, sizeof(guest.uid), "%012x", 2);
    snprintf(guest.name, sizeof(guest.name), "%s", name);
    return guest;
}

/* Gives the guest an endpoint on the network with a MAC that is made of its address. */
static inline struct endpoint *guest_add_endpoint(struct guest *guest,
                                                  const struct network *network, const char *ip)
{
    guest->endpoints =
        reallocarray(guest->endpoints, guest->n_endpoints + 1, sizeof(*guest->endpoints));
    struct endpoint *endpoint = &guest->endpoints[guest->n_endpoints];

    *endpoint = (struct endpoint){
        .network_id = network->id,
        .position = (uint32_t)guest->n_endpoints,
        .ip = ip_of(ip),
        .prefix = network->subnet.prefix,
    };
    endpoint->mac.bytes[0] = 2;
    memcpy(endpoint->mac.bytes + 2, endpoint->ip.bytes, 4);
    snprintf(endpoint->interface, sizeof(endpoint->interface), "eth%zu", guest->n_endpoints);
    guest->n_endpoints++;
    return endpoint;
}

static inline void guest_add_port(struct guest *guest, const char *text)
{
    struct error error = ERROR_INIT;
    struct port port;

    if (port_parse(text, "ports", &port, &error) < 0)
        fail_msg("%s", error.text);
    guest->ports = reallocarray(guest->ports, guest->n_ports + 1, sizeof(*guest->ports));
    guest->ports[guest->n_ports++] = port;
}

/* A stored guest on one network; its id. */
static inline int64_t guest_stored(struct fixture *fixture, const char *name,
                                   const struct network *network, const char *ip)
{
    struct guest guest = guest_of(name);

    if (network)
        guest_add_endpoint(&guest, network, ip);
    begin(fixture);
    ok(fixture, store_guest_insert(fixture->store, &guest, &fixture->error));
    commit(fixture);
    int64_t id = guest.id;
    guest_deinit(&guest);
    return id;
}

/* Steps of SQLite's machine since the mark; moves the mark. */
static inline uint64_t steps_since(struct fixture *fixture, uint64_t *mark)
{
    uint64_t now = store_steps(fixture->store);
    uint64_t steps = now - *mark;

    *mark = now;
    return steps;
}
