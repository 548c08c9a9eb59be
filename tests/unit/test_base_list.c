/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/list.h"

static void strings_keep_their_order(void **state)
{
    struct strings strings = {0};
    struct strings copy = {0};

    (void)state;
    for (int i = 0; i < 100; i++) {
        char text[32];

        snprintf(text, sizeof(text), "item %d", i);
        assert_int_equal(strings_add(&strings, text), 0);
    }
    assert_int_equal(strings_add_n(&strings, "abcdef", 3), 0);
    assert_int_equal(strings_add_n(&strings, "abcdef", 0), 0);
    assert_int_equal(strings.count, 102);
    assert_string_equal(strings.items[0], "item 0");
    assert_string_equal(strings.items[99], "item 99");
    assert_string_equal(strings.items[100], "abc");
    assert_string_equal(strings.items[101], "");
    assert_true(strings_contains(&strings, "item 64"));
    assert_true(strings_contains(&strings, ""));
    assert_false(strings_contains(&strings, "item 100"));

    assert_int_equal(strings_copy(&strings, &copy), 0);
    strings_deinit(&strings);
    assert_null(strings.items);
    assert_int_equal(copy.count, 102);
    assert_string_equal(copy.items[63], "item 63");
    strings_deinit(&copy);
    strings_deinit(&copy);
}

static void addresses_keep_their_order(void **state)
{
    struct ips ips = {0};
    struct ips copy = {0};

    (void)state;
    for (uint32_t i = 0; i < 33; i++) {
        struct ip ip = ip_from_v4(i);

        assert_int_equal(ips_add(&ips, &ip), 0);
    }
    struct ip in = ip_from_v4(32);
    struct ip out = ip_from_v4(33);
    assert_true(ips_contains(&ips, &in));
    assert_false(ips_contains(&ips, &out));
    assert_int_equal(ips_copy(&ips, &copy), 0);
    ips_deinit(&ips);
    ips_deinit(&ips);
    assert_int_equal(copy.count, 33);
    assert_int_equal(ip_to_v4(&copy.items[7]), 7);
    ips_deinit(&copy);
}

static void labels_are_sorted_and_unique(void **state)
{
    static const char *const keys[] = {"m", "a", "z", "b", "m", "aa", "", "z"};
    static const char *const sorted[] = {"", "a", "aa", "b", "m", "z"};
    struct labels labels = {0};
    struct labels copy = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        char value[32];

        snprintf(value, sizeof(value), "v%zu", i);
        assert_int_equal(labels_set(&labels, keys[i], value), 0);
    }
    assert_int_equal(labels.count, 6);
    for (size_t i = 0; i < labels.count; i++)
        assert_string_equal(labels.items[i].key, sorted[i]);
    assert_string_equal(labels_find(&labels, "m"), "v4");
    assert_string_equal(labels_find(&labels, "z"), "v7");
    assert_string_equal(labels_find(&labels, ""), "v6");
    assert_null(labels_find(&labels, "mm"));
    assert_null(labels_find(&labels, "zz"));

    assert_int_equal(labels_copy(&labels, &copy), 0);
    assert_true(labels_equal(&labels, &copy));
    assert_int_equal(labels_set(&copy, "a", "other"), 0);
    assert_false(labels_equal(&labels, &copy));
    assert_string_equal(labels_find(&labels, "a"), "v1");
    assert_int_equal(labels_set(&copy, "new", ""), 0);
    assert_false(labels_equal(&labels, &copy));
    labels_deinit(&labels);
    labels_deinit(&labels);
    labels_deinit(&copy);
    assert_true(labels_equal(&labels, &copy));
}

static void empty_lists_copy_and_free(void **state)
{
    struct strings strings = {0};
    struct strings strings_to = {0};
    struct ips ips = {0};
    struct ips ips_to = {0};
    struct labels labels = {0};
    struct labels labels_to = {0};

    (void)state;
    assert_int_equal(strings_copy(&strings, &strings_to), 0);
    assert_int_equal(ips_copy(&ips, &ips_to), 0);
    assert_int_equal(labels_copy(&labels, &labels_to), 0);
    assert_int_equal(strings_to.count + ips_to.count + labels_to.count, 0);
    strings_deinit(&strings_to);
    ips_deinit(&ips_to);
    labels_deinit(&labels_to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_keep_their_order),
        cmocka_unit_test(addresses_keep_their_order),
        cmocka_unit_test(labels_are_sorted_and_unique),
        cmocka_unit_test(empty_lists_copy_and_free),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
