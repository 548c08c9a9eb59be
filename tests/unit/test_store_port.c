/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store_fixture.h"

static struct port port_of(const char *text, int64_t guest_id)
{
    struct error error = ERROR_INIT;
    struct port port = {0};

    if (port_parse(text, "ports", &port, &error) < 0)
        fail_msg("%s", error.text);
    port.guest_id = guest_id;
    return port;
}

static int publish(struct fixture *f, const char *text, int64_t guest_id)
{
    struct port port = port_of(text, guest_id);
    int r = store_port_insert(f->store, &port, &f->error);

    assert_int_equal(r == 0, port.id > 0);
    return r;
}

static void ports_overlap_by_protocol_address_and_range(void **state)
{
    static const struct {
        const char *held;
        const char *wanted;
        bool overlap;
    } rows[] = {
        {"80:80", "80:81", true},
        {"80:80", "81:80", false},
        {"80:80", "79:80", false},
        {"80:80/tcp", "80:80/udp", false},
        {"80:80/udp", "80:80/udp", true},
        {"100-200:100-200", "200:1", true},
        {"100-200:100-200", "100:1", true},
        {"100-200:100-200", "150-160:1-11", true},
        {"100-200:100-200", "99-100:1-2", true},
        {"100-200:100-200", "200-300:1-101", true},
        {"100-200:100-200", "50-300:1-251", true},
        {"100-200:100-200", "201-300:1-100", false},
        {"100-200:100-200", "1-99:1-99", false},
        {"1-65535:1-65535", "65535:1", true},
        {"1-65535:1-65535", "1:1", true},
        {"127.0.0.1:80:80", "127.0.0.1:80:80", true},
        {"127.0.0.1:80:80", "127.0.0.2:80:80", false},
        {"127.0.0.1:80:80", "[::1]:80:80", false},
        {"127.0.0.1:80:80", "80:80", true},
        {"80:80", "127.0.0.1:80:80", true},
        {"[::1]:80:80", "80:80", true},
        {"80:80", "[::1]:80:80", true},
        {"0.0.0.0:80:80", "80:80", true},
        {"80:80", "0.0.0.0:80:80", true},
        {"[::]:80:80", "80:80", true},
        {"80:80", "[::]:80:80", true},
        {"0.0.0.0:80:80", "0.0.0.0:80:80", true},
        {"0.0.0.0:80:80", "127.0.0.1:80:80", true},
        {"127.0.0.1:80:80", "0.0.0.0:80:80", true},
        {"[::]:80:80", "[::1]:80:80", true},
        {"[::1]:80:80", "[::]:80:80", true},
        {"0.0.0.0:80:80", "[::]:80:80", false},
        {"[::]:80:80", "0.0.0.0:80:80", false},
        {"0.0.0.0:80:80", "[::1]:80:80", false},
        {"127.0.0.1:80:80", "[::]:80:80", false},
        {"127.0.0.1:100-200:100-200", "150:1", true},
        {"127.0.0.1:100-200:100-200", "201:1", false},
        {"127.0.0.1:80:80/udp", "80:80/tcp", false},
    };
    struct fixture *f = *state;
    int64_t holder = guest_stored(f, "holder", NULL, NULL);
    int64_t other = guest_stored(f, "other", NULL, NULL);

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct port wanted = port_of(rows[i].wanted, other);
        struct port held = {0};
        char guest[NAME_MAX_LENGTH + 1] = "";
        char text[PORT_TEXT_MAX];
        bool found;

        begin(f);
        ok(f, publish(f, rows[i].held, holder));
        ok(f, store_port_overlap(f->store, &wanted, guest, &held, &found, &f->error));
        if (found != rows[i].overlap)
            fail_msg("%s is held, %s is wanted: overlap %d", rows[i].held, rows[i].wanted, found);
        int r = store_port_insert(f->store, &wanted, &f->error);
        assert_int_equal(r == 0, !found);
        if (found) {
            assert_string_equal(guest, "holder");
            assert_int_equal(held.guest_id, holder);
            assert_true(strncmp(port_format(&held, text), rows[i].held, strlen(rows[i].held)) == 0);
            assert_int_equal(f->error.reason, REASON_PORT_IN_USE);
            assert_non_null(strstr(f->error.text, "guest holder has published"));
        }
        store_rollback(f->store);
    }
}

static void a_guest_does_not_overlap_itself_either(void **state)
{
    struct fixture *f = *state;
    int64_t guest = guest_stored(f, "web", NULL, NULL);

    ok(f, publish(f, "80:80", guest));
    refused(f, publish(f, "79-80:1-2", guest), REASON_PORT_IN_USE,
            "port 79-80:1-2/tcp can't be published: guest web has published 80:80/tcp");
}

static void a_port_is_free_when_it_or_its_guest_goes(void **state)
{
    struct fixture *f = *state;
    int64_t web = guest_stored(f, "web", NULL, NULL);
    int64_t other = guest_stored(f, "other", NULL, NULL);
    struct port port = port_of("80:80", web);
    uint64_t guests;
    uint64_t ports;

    ok(f, store_port_insert(f->store, &port, &f->error));
    ok(f, publish(f, "443:443", web));
    ok(f, store_port_delete(f->store, port.id, &f->error));
    refused(f, store_port_delete(f->store, port.id, &f->error), REASON_NOT_FOUND, "port");
    ok(f, publish(f, "80:80", other));
    ok(f, store_guest_count(f->store, &guests, &ports, &f->error));
    assert_int_equal(ports, 2);
    begin(f);
    ok(f, store_guest_delete(f->store, web, &f->error));
    commit(f);
    ok(f, publish(f, "443:443", other));
    ok(f, store_guest_count(f->store, &guests, &ports, &f->error));
    assert_int_equal(guests, 1);
    assert_int_equal(ports, 2);
}

static void what_was_not_chosen_cannot_be_stored(void **state)
{
    struct fixture *f = *state;
    int64_t web = guest_stored(f, "web", NULL, NULL);
    struct port port = port_of("80", web);

    assert_true(store_port_insert(f->store, &port, &f->error) < 0);
    port = port_of("80:80", web);
    port.count = 0;
    assert_true(store_port_insert(f->store, &port, &f->error) < 0);
    port = port_of("65535:80", web);
    port.count = 2;
    assert_true(store_port_insert(f->store, &port, &f->error) < 0);
    port = port_of("80:65535", web);
    port.count = 2;
    assert_true(store_port_insert(f->store, &port, &f->error) < 0);
    refused(f, publish(f, "80:80", 999), REASON_NOT_FOUND, "guest");
}

/* Against a map of all 65,535 ports of each address. */
static void random_use_agrees_with_a_naive_model(void **state)
{
    static const char *const addresses[] = {"", "127.0.0.1:", "10.0.0.1:", "[::1]:"};
    static bool taken[ARRAY_SIZE(addresses)][65536];
    struct fixture *f = *state;
    int64_t guest = guest_stored(f, "web", NULL, NULL);
    unsigned accepted = 0;

    memset(taken, 0, sizeof(taken));
    srand(7);
    begin(f);
    for (int i = 0; i < 3000; i++) {
        size_t address = (size_t)rand() % ARRAY_SIZE(addresses);
        int first = 1 + rand() % 5000;
        int last = first + (rand() % 4 == 0 ? rand() % 300 : rand() % 3);
        bool expected = true;
        char text[PORT_TEXT_MAX];

        for (size_t a = 0; a < ARRAY_SIZE(addresses); a++)
            for (int p = first; p <= last && (a == 0 || address == 0 || a == address); p++)
                expected = expected && !taken[a][p];
        snprintf(text, sizeof(text), "%s%d-%d:%d-%d", addresses[address], first, last, first, last);
        int r = publish(f, text, guest);
        if ((r == 0) != expected)
            fail_msg("%s: %s", text, r == 0 ? "was taken" : f->error.text);
        for (int p = first; p <= last && r == 0; p++)
            taken[address][p] = true;
        accepted += r == 0;
    }
    assert_true(accepted > 500);
    commit(f);
}

/* The cost of a look-up does not depend on the number of rows, nor on the length of ranges. */
static void a_lookup_costs_the_same_at_10000_ports(void **state)
{
    struct fixture *f = *state;
    int64_t guest = guest_stored(f, "web", NULL, NULL);
    struct port wanted = port_of("30000:80", guest);
    struct port wide = port_of("20001-40000:1-20000", guest);
    struct port held;
    char name[NAME_MAX_LENGTH + 1];
    bool found;

    begin(f);
    ok(f, publish(f, "1:1", guest));
    ok(f, publish(f, "127.0.0.1:2:1", guest));
    ok(f, store_port_overlap(f->store, &wanted, name, &held, &found, &f->error));
    uint64_t mark = store_steps(f->store);
    ok(f, store_port_overlap(f->store, &wanted, name, &held, &found, &f->error));
    uint64_t cost = steps_since(f, &mark);
    for (int i = 0; i < 5000; i++) {
        char text[PORT_TEXT_MAX];

        snprintf(text, sizeof(text), "%d:80", 10000 + i);
        ok(f, publish(f, text, guest));
        snprintf(text, sizeof(text), "127.0.0.1:%d-%d:80-81", 40000 + 2 * i, 40001 + 2 * i);
        ok(f, publish(f, text, guest));
    }
    mark = store_steps(f->store);
    ok(f, store_port_overlap(f->store, &wanted, name, &held, &found, &f->error));
    assert_false(found);
    assert_true(steps_since(f, &mark) <= cost + 40);
    ok(f, store_port_overlap(f->store, &wide, name, &held, &found, &f->error));
    assert_true(found);
    assert_true(steps_since(f, &mark) <= cost + 40);
    commit(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(ports_overlap_by_protocol_address_and_range),
        STORE_TEST(a_guest_does_not_overlap_itself_either),
        STORE_TEST(a_port_is_free_when_it_or_its_guest_goes),
        STORE_TEST(what_was_not_chosen_cannot_be_stored),
        STORE_TEST(random_use_agrees_with_a_naive_model),
        STORE_TEST(a_lookup_costs_the_same_at_10000_ports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
