/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store_fixture.h"

#include "base/record.h"

static int add_value(struct fixture *f, int64_t network_id, const char *name, uint16_t type,
                     const char *value)
{
    struct dns_record record = {.network_id = network_id, .type = type, .value = strdup(value)};
    int r;

    snprintf(record.name, sizeof(record.name), "%s", name);
    r = store_record_insert(f->store, &record, &f->error);
    assert_int_equal(r == 0, record.id > 0);
    dns_record_deinit(&record);
    return r;
}

static int add(struct fixture *f, int64_t network_id, const char *name, const char *ip)
{
    return add_value(f, network_id, name, strchr(ip, ':') ? RECORD_AAAA : RECORD_A, ip);
}

static void assert_texts(struct dns_record *records, size_t count, const char *expected)
{
    char text[1024] = "";
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        assert_int_equal(records[i].network_id != 0, records[i].network[0] != '\0');
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s@%s=%s/%s ",
                                   records[i].name, records[i].network,
                                   record_type_name(records[i].type), records[i].value);
    }
    dns_records_free(records, count);
    assert_string_equal(text, expected);
}

static void assert_records(struct fixture *f, const char *expected)
{
    struct dns_record *records = NULL;
    size_t count = 0;
    uint64_t counted;

    ok(f, store_record_list(f->store, &records, &count, &f->error));
    assert_texts(records, count, expected);
    ok(f, store_record_count(f->store, &counted, &f->error));
    assert_int_equal(counted, count);
}

static void assert_named(struct fixture *f, const char *name, const char *expected)
{
    struct dns_record *records = NULL;
    size_t count = 0;

    ok(f, store_record_list_by_name(f->store, name, &records, &count, &f->error));
    assert_texts(records, count, expected);
}

static void records_are_listed_in_the_order_given(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    assert_records(f, "");
    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "fd00::9"));
    ok(f, add_value(f, net.id, "a.b", RECORD_TXT, "one \"two\"; ünï"));
    ok(f, add_value(f, 0, "*.apps", RECORD_CNAME, "db"));
    fixture_reopen(f);
    assert_records(f, "db@=A/10.9.9.9 db@net=A/10.9.9.9 db@net=AAAA/fd00::9 "
                      "a.b@net=TXT/one \"two\"; ünï *.apps@=CNAME/db ");
}

static void the_same_record_twice_is_refused(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.9"));
    ok(f, add_value(f, 0, "db", RECORD_TXT, "10.9.9.9"));
    refused(f, add(f, 0, "db", "10.9.9.9"), REASON_EXISTS,
            "\"db\" has that A record already: 10.9.9.9");
    refused(f, add(f, net.id, "DB", "10.9.9.9"), REASON_EXISTS, "\"DB\" has that A record");
    refused(f, add(f, 999, "x", "10.9.9.9"), REASON_NOT_FOUND, "network");
    assert_records(f, "db@=A/10.9.9.9 db@net=A/10.9.9.9 db@=TXT/10.9.9.9 ");
}

static void records_of_one_name_are_found_on_all_networks(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.8"));
    ok(f, add(f, net.id, "web", "10.9.9.8"));
    ok(f, add(f, 0, "x.db", "10.9.9.8"));
    assert_named(f, "db", "db@=A/10.9.9.9 db@net=A/10.9.9.8 ");
    assert_named(f, "DB", "db@=A/10.9.9.9 db@net=A/10.9.9.8 ");
    assert_named(f, "d", "");
}

static void one_record_is_deleted_by_its_id(void **state)
{
    struct fixture *f = *state;
    char address[] = "10.9.9.9";
    struct dns_record record = {.name = "db", .type = RECORD_A, .value = address};

    ok(f, store_record_insert(f->store, &record, &f->error));
    ok(f, add(f, 0, "db", "10.9.9.8"));
    ok(f, store_record_delete_by_id(f->store, record.id, &f->error));
    refused(f, store_record_delete_by_id(f->store, record.id, &f->error), REASON_NOT_FOUND, "name");
    assert_records(f, "db@=A/10.9.9.8 ");
}

static void records_go_with_their_network(void **state)
{
    struct fixture *f = *state;
    struct network net = network_stored(f, "net", "10.1.0.0/24", "");

    ok(f, add(f, 0, "db", "10.9.9.9"));
    ok(f, add(f, net.id, "db", "10.9.9.9"));
    ok(f, store_network_delete(f->store, net.id, &f->error));
    assert_records(f, "db@=A/10.9.9.9 ");
}

static void the_longest_name_and_value_fit(void **state)
{
    struct fixture *f = *state;
    struct dns_record *records;
    char name[254];
    char value[RECORD_VALUE_MAX + 1];
    size_t count;

    for (size_t i = 0; i < 253; i++)
        name[i] = i % 64 == 63 ? '.' : 'x';
    name[253] = '\0';
    memset(value, 'v', RECORD_VALUE_MAX);
    value[RECORD_VALUE_MAX] = '\0';
    ok(f, add_value(f, 0, name, RECORD_TXT, value));
    ok(f, store_record_list(f->store, &records, &count, &f->error));
    assert_int_equal(count, 1);
    assert_string_equal(records[0].name, name);
    assert_string_equal(records[0].value, value);
    dns_records_free(records, count);
}

static void a_damaged_type_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct dns_record *records;
    size_t count;

    ok(f, add(f, 0, "db", "10.9.9.9"));
    assert_int_equal(
        sqlite3_exec(f->store->db, "UPDATE record SET type = 'HINFO'", NULL, NULL, NULL),
        SQLITE_OK);
    assert_true(store_record_list(f->store, &records, &count, &f->error) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(records_are_listed_in_the_order_given),
        STORE_TEST(the_same_record_twice_is_refused),
        STORE_TEST(records_of_one_name_are_found_on_all_networks),
        STORE_TEST(one_record_is_deleted_by_its_id),
        STORE_TEST(records_go_with_their_network),
        STORE_TEST(the_longest_name_and_value_fit),
        STORE_TEST(a_damaged_type_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
