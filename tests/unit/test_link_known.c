/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "link/known.h"

static struct known entry(uint32_t index, const char *name)
{
    struct known known = {.kind = KNOWN_BRIDGED, .index = index, .mtu = index};

    snprintf(known.name, sizeof(known.name), "%s", name);
    return known;
}

static void test_empty_table_finds_nothing(void **state)
{
    struct known_table table = {0};

    (void)state;
    assert_null(known_find(&table, 1));
    assert_null(known_find_name(&table, "mv1"));
    known_remove(&table, 1);
    known_remove_name(&table, "mv1");
    known_deinit(&table);
}

static void test_entries_are_found_by_index_and_name(void **state)
{
    struct known_table table = {0};
    char name[IFNAMSIZ];

    (void)state;
    for (uint32_t i = 1; i <= 5000; i++) {
        snprintf(name, sizeof(name), "mv%u", i);
        struct known known = entry(i * 64, name); /* the same low bits */
        assert_int_equal(known_set(&table, &known), 0);
    }
    assert_int_equal(table.count, 5000);
    for (uint32_t i = 1; i <= 5000; i++) {
        snprintf(name, sizeof(name), "mv%u", i);
        assert_non_null(known_find(&table, i * 64));
        assert_ptr_equal(known_find(&table, i * 64), known_find_name(&table, name));
    }
    assert_null(known_find(&table, 65));
    for (uint32_t i = 1; i <= 5000; i += 2)
        known_remove(&table, i * 64);
    assert_int_equal(table.count, 2500);
    assert_null(known_find_name(&table, "mv1"));
    assert_non_null(known_find_name(&table, "mv2"));
    known_deinit(&table);
}

static void test_an_entry_replaces_those_of_its_index_and_name(void **state)
{
    struct known_table table = {0};
    struct known a = entry(1, "mv1"), b = entry(2, "mv2"), both = entry(1, "mv2");

    (void)state;
    assert_int_equal(known_set(&table, &a), 0);
    assert_int_equal(known_set(&table, &b), 0);
    both.mtu = 9000;
    assert_int_equal(known_set(&table, &both), 0);
    assert_int_equal(table.count, 1);
    assert_int_equal(known_find(&table, 1)->mtu, 9000);
    assert_null(known_find(&table, 2));
    assert_null(known_find_name(&table, "mv1"));
    assert_int_equal(known_set(&table, known_find(&table, 1)), 0); /* itself */
    assert_int_equal(known_find(&table, 1)->mtu, 9000);
    known_deinit(&table);
}

static void test_a_retired_entry_has_no_name(void **state)
{
    struct known_table table = {0};
    struct known old = entry(1, "tap0"), new = entry(2, "tap0");

    (void)state;
    assert_int_equal(known_set(&table, &old), 0);
    known_retire(&table, known_find(&table, 1));
    assert_null(known_find_name(&table, "tap0"));
    assert_true(known_find(&table, 1)->retired);
    assert_int_equal(known_set(&table, &new), 0);
    assert_int_equal(table.count, 2);
    assert_false(known_find_name(&table, "tap0")->retired);
    known_remove(&table, 1);
    assert_int_equal(table.count, 1);
    known_deinit(&table);
}

struct removal {
    struct known_table *table;
    unsigned calls;
};

static void remove_entry(struct known *known, void *userdata)
{
    struct removal *removal = userdata;

    removal->calls++;
    known_remove(removal->table, known->index);
}

static void test_each_may_remove_what_it_is_shown(void **state)
{
    struct known_table table = {0};
    struct removal removal = {.table = &table};

    (void)state;
    for (uint32_t i = 1; i <= 300; i++) {
        char name[IFNAMSIZ];

        snprintf(name, sizeof(name), "mv%u", i);
        struct known known = entry(i, name);
        assert_int_equal(known_set(&table, &known), 0);
    }
    known_each(&table, remove_entry, &removal);
    assert_int_equal(removal.calls, 300);
    assert_int_equal(table.count, 0);
    known_deinit(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_table_finds_nothing),
        cmocka_unit_test(test_entries_are_found_by_index_and_name),
        cmocka_unit_test(test_an_entry_replaces_those_of_its_index_and_name),
        cmocka_unit_test(test_a_retired_entry_has_no_name),
        cmocka_unit_test(test_each_may_remove_what_it_is_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
