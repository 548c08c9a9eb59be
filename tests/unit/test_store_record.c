/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store_fixture.h"

static int add(struct fixture *f, int64_t network_id, const char *name, const char *ip)
{
    struct dns_record record = {.network_id = network_id, .ip = ip_of(ip)};
    int r;

    snprintf(record.name, sizeof(record.name), "%s", name);
    r = store_record_insert(f->store, &record, &f->error);
    assert_int_equal(r == 0, record.id > 0);
    return r;
}

static size_t del(struct fixture *f, int64_t network_id, const char *name)
{
    size_t count = 99;

    ok(f, store_record_delete(f->store, network_id, name, &count, &f->error));
    return count;
}

static void assert_records(struct fixture *f, const char *expected)
{
    struct dns_record *records = NULL;
    char text[1024] = "";
    size_t length = 0;
    size_t count = 0;
    uint64_t counted;

    ok(f, store_record_list(f->store, &records, &count, &f->error));
    for (size_t i = 0; i < count; i++) {
        char ip[IP_TEXT_MAX];

        assert_int_equal(records[i].network_id != 0, records[i].network[0] != '\0');
        length +=
            (size_t)snprintf(text + length, sizeof(text) - length, "%s@%s=%s ", records[i].name,
                             records[i].network, ip_format(&records[i].ip, ip));
    }
    free(records);
    assert_string_equal(text, expected);
    ok(f, store_record_count(f->store, &counted, &f->error));
    assert_int_equal(counted, count);
}

static void records_are_listed_in_the_order_given(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    assert_records(f, "");
    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "fd00::9"));
    ok(f, add(f, net.id, "a.b", "10.9.9.8"));
    fixture_reopen(f);
    assert_records(f, "db@=10.9.9.9 db@net=10.9.9.9 db@net=fd00::9 a.b@net=10.9.9.8 ");
}

static void the_same_record_twice_is_refused(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.9"));
    refused(f, add(f, 0, "db", "10.9.9.9"), REASON_EXISTS, "db has the address 10.9.9.9 already");
    refused(f, add(f, net.id, "DB", "10.9.9.9"), REASON_EXISTS, "DB has the address 10.9.9.9");
    refused(f, add(f, 999, "x", "10.9.9.9"), REASON_NOT_FOUND, "network");
    assert_records(f, "db@=10.9.9.9 db@net=10.9.9.9 ");
}

static void a_name_is_deleted_on_its_network_only(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.8"));
    ok(f, add(f, net.id, "web", "10.9.9.8"));
    assert_int_equal(del(f, net.id, "none"), 0);
    assert_int_equal(del(f, 999, "db"), 0);
    assert_int_equal(del(f, net.id, "DB"), 2);
    assert_records(f, "db@=10.9.9.9 web@net=10.9.9.8 ");
    assert_int_equal(del(f, 0, "db"), 1);
    assert_records(f, "web@net=10.9.9.8 ");
}

static void one_record_is_deleted_by_its_id(void **state)
{
    struct fixture *f = *state;
    struct dns_record record = {.name = "db", .ip = ip_of("10.9.9.9")};

    ok(f, store_record_insert(f->store, &record, &f->error));
    ok(f, add(f, 0, "db", "10.9.9.8"));
    ok(f, store_record_delete_by_id(f->store, record.id, &f->error));
    refused(f, store_record_delete_by_id(f->store, record.id, &f->error), REASON_NOT_FOUND, "name");
    assert_records(f, "db@=10.9.9.8 ");
}

static void records_go_with_their_network(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.9"));
    ok(f, store_network_delete(f->store, net.id, &f->error));
    assert_records(f, "db@=10.9.9.9 ");
}

static void the_longest_name_fits(void **state)
{
    struct fixture *f = *state;
    struct dns_record *records;
    char name[254];
    size_t count;

    for (size_t i = 0; i < 253; i++)
        name[i] = i % 64 == 63 ? '.' : 'x';
    name[253] = '\0';
    ok(f, add(f, 0, name, "10.9.9.9"));
    ok(f, store_record_list(f->store, &records, &count, &f->error));
    assert_int_equal(count, 1);
    assert_string_equal(records[0].name, name);
    free(records);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(records_are_listed_in_the_order_given),
        STORE_TEST(the_same_record_twice_is_refused),
        STORE_TEST(a_name_is_deleted_on_its_network_only),
        STORE_TEST(one_record_is_deleted_by_its_id),
        STORE_TEST(records_go_with_their_network),
        STORE_TEST(the_longest_name_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
