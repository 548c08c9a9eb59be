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

struct fixture {
    struct known_table table;
    struct known found;
};

static int fixture_start(void **state)
{
    static struct fixture fixture;

    known_init(&fixture.table);
    *state = &fixture;
    return 0;
}

static int fixture_stop(void **state)
{
    struct fixture *fixture = *state;

    known_deinit(&fixture->table);
    return 0;
}

static void test_empty_table_finds_nothing(void **state)
{
    struct fixture *f = *state;

    assert_false(known_find(&f->table, 1, &f->found));
    assert_false(known_find_name(&f->table, "mv1", &f->found));
    known_remove(&f->table, 1);
    known_retire(&f->table, 1);
    assert_int_equal(known_count(&f->table), 0);
}

static void test_names_are_expected_until_they_are_there(void **state)
{
    struct fixture *f = *state;

    assert_false(known_is_expected(&f->table, "tap0"));
    known_expect(&f->table, "tap0");
    known_expect(&f->table, "tap1");
    assert_true(known_is_expected(&f->table, "tap0"));
    assert_false(known_is_expected(&f->table, ""));
    known_expect_end(&f->table, "tap0");
    assert_false(known_is_expected(&f->table, "tap0"));
    assert_true(known_is_expected(&f->table, "tap1"));
    known_expect_end(&f->table, "tap1");
    for (char last = '0'; last < '0' + 2 * KNOWN_EXPECTED_MAX; last++) {
        char name[] = {'t', last, '\0'};

        known_expect(&f->table, name);
        assert_int_equal(known_is_expected(&f->table, name), last < '0' + KNOWN_EXPECTED_MAX);
    }
}

static void add(struct fixture *f, uint32_t index, const char *name)
{
    struct known known = entry(index, name);

    assert_int_equal(known_set(&f->table, &known), 0);
}

static void test_entries_are_found_by_index_and_name(void **state)
{
    struct fixture *f = *state;
    char name[IFNAMSIZ];

    for (uint32_t i = 1; i <= 5000; i++) {
        snprintf(name, sizeof(name), "mv%u", i);
        add(f, i * 64, name); /* the same low bits */
    }
    assert_int_equal(known_count(&f->table), 5000);
    for (uint32_t i = 1; i <= 5000; i++) {
        snprintf(name, sizeof(name), "mv%u", i);
        assert_true(known_find(&f->table, i * 64, &f->found));
        assert_string_equal(f->found.name, name);
        assert_true(known_find_name(&f->table, name, &f->found));
        assert_int_equal(f->found.index, i * 64);
    }
    assert_false(known_find(&f->table, 65, &f->found));
    for (uint32_t i = 1; i <= 5000; i += 2)
        known_remove(&f->table, i * 64);
    assert_int_equal(known_count(&f->table), 2500);
    assert_false(known_find_name(&f->table, "mv1", &f->found));
    assert_true(known_find_name(&f->table, "mv2", &f->found));
}

static void test_an_entry_replaces_those_of_its_index_and_name(void **state)
{
    struct fixture *f = *state;
    struct known both = entry(1, "mv2");

    add(f, 1, "mv1");
    add(f, 2, "mv2");
    both.mtu = 9000;
    assert_int_equal(known_set(&f->table, &both), 0);
    assert_int_equal(known_count(&f->table), 1);
    assert_true(known_find(&f->table, 1, &f->found));
    assert_int_equal(f->found.mtu, 9000);
    assert_false(known_find(&f->table, 2, &f->found));
    assert_false(known_find_name(&f->table, "mv1", &f->found));
}

static void test_a_retired_entry_has_no_name(void **state)
{
    struct fixture *f = *state;

    add(f, 1, "tap0");
    known_retire(&f->table, 1);
    assert_false(known_find_name(&f->table, "tap0", &f->found));
    assert_true(known_find(&f->table, 1, &f->found));
    assert_true(f->found.retired);
    add(f, 2, "tap0");
    assert_int_equal(known_count(&f->table), 2);
    assert_true(known_find_name(&f->table, "tap0", &f->found));
    assert_false(f->found.retired);
    known_remove(&f->table, 1);
    assert_int_equal(known_count(&f->table), 1);
}

static void count_entry(const struct known *known, void *userdata)
{
    unsigned *sum = userdata;

    *sum += known->index;
}

static void test_each_shows_every_entry_once(void **state)
{
    struct fixture *f = *state;
    char name[IFNAMSIZ];
    unsigned sum = 0;

    for (uint32_t i = 1; i <= 300; i++) {
        snprintf(name, sizeof(name), "mv%u", i);
        add(f, i, name);
    }
    known_each(&f->table, count_entry, &sum);
    assert_int_equal(sum, 300 * 301 / 2);
}

static void test_a_survey_removes_what_was_not_seen(void **state)
{
    struct fixture *f = *state;
    unsigned gone = 0;

    add(f, 1, "mv1");
    add(f, 2, "mv2");
    known_survey_begin(&f->table);
    known_survey_mark(&f->table, 2);
    known_survey_mark(&f->table, 77);
    add(f, 3, "mv3"); /* made while the survey went on */
    known_survey_end(&f->table, count_entry, &gone);
    assert_int_equal(gone, 1);
    assert_int_equal(known_count(&f->table), 2);
    known_survey_begin(&f->table); /* a mark counts for one survey */
    known_survey_end(&f->table, count_entry, &gone);
    assert_int_equal(gone, 1 + 2 + 3);
    assert_int_equal(known_count(&f->table), 0);
}

#define ROUNDS 20000

static void *set_and_remove(void *userdata)
{
    struct known_table *table = userdata;
    char name[IFNAMSIZ];

    for (uint32_t i = 0; i < ROUNDS; i++) {
        snprintf(name, sizeof(name), "mv%u", i % 100 + 100);
        struct known known = entry(i % 100 + 100, name);
        known_set(table, &known);
        known_remove(table, (i + 50) % 100 + 100);
    }
    return NULL;
}

static void test_two_threads_share_a_table(void **state)
{
    struct fixture *f = *state;
    pthread_t other;
    unsigned sum = 0;

    add(f, 1, "mv1");
    assert_int_equal(pthread_create(&other, NULL, set_and_remove, &f->table), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (known_find_name(&f->table, "mv100", &f->found))
            assert_int_equal(f->found.index, 100);
        assert_true(known_find(&f->table, 1, &f->found));
    }
    pthread_join(other, NULL);
    known_each(&f->table, count_entry, &sum);
    assert_true(sum > 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_start, fixture_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_empty_table_finds_nothing),
        TEST(test_names_are_expected_until_they_are_there),
        TEST(test_entries_are_found_by_index_and_name),
        TEST(test_an_entry_replaces_those_of_its_index_and_name),
        TEST(test_a_retired_entry_has_no_name),
        TEST(test_each_shows_every_entry_once),
        TEST(test_a_survey_removes_what_was_not_seen),
        TEST(test_two_threads_share_a_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
