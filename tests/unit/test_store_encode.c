/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store/encode.h"

static void strings_survive_whatever_is_in_them(void **state)
{
    static const struct {
        const char *items[4];
        const char *text;
    } rows[] = {
        {{NULL}, ""},
        {{"", NULL}, "\n"},
        {{"", "", NULL}, "\n\n"},
        {{"a", NULL}, "a\n"},
        {{"a", "b c", "d", NULL}, "a\nb c\nd\n"},
        {{"a\nb", "\n", NULL}, "a\\nb\n\\n\n"},
        {{"\\", "\\n", "\\\n", NULL}, "\\\\\n\\\\n\n\\\\\\n\n"},
        {{"gr\xc3\xbc\xc3\x9f", "\x01\x7f\xff", NULL}, "gr\xc3\xbc\xc3\x9f\n\x01\x7f\xff\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct strings strings = {0};
        struct strings decoded = {0};
        char *text;

        for (const char *const *item = rows[i].items; *item; item++)
            strings_add(&strings, *item);
        assert_int_equal(encode_strings(&strings, &text), 0);
        assert_string_equal(text, rows[i].text);
        assert_int_equal(decode_strings(text, &decoded), 0);
        assert_int_equal(decoded.count, strings.count);
        for (size_t j = 0; j < strings.count; j++)
            assert_string_equal(decoded.items[j], strings.items[j]);
        strings_deinit(&strings);
        strings_deinit(&decoded);
        free(text);
    }
}

static void every_short_string_survives(void **state)
{
    static const char alphabet[] = "a\\n\n";

    (void)state;
    for (unsigned number = 0; number < 4 * 4 * 4 * 4 * 4; number++) {
        char item[6] = "";
        struct strings strings = {0};
        struct strings decoded = {0};
        char *text;

        for (unsigned i = 0, rest = number; i < 5; i++, rest /= 4)
            item[i] = alphabet[rest % 4];
        strings_add(&strings, item);
        strings_add(&strings, item + 3);
        assert_int_equal(encode_strings(&strings, &text), 0);
        assert_int_equal(decode_strings(text, &decoded), 0);
        assert_int_equal(decoded.count, 2);
        assert_string_equal(decoded.items[0], item);
        assert_string_equal(decoded.items[1], item + 3);
        strings_deinit(&strings);
        strings_deinit(&decoded);
        free(text);
    }
}

static void addresses_survive(void **state)
{
    static const char *const texts[] = {"10.88.0.1", "fd00:88::1", "::", "255.255.255.255"};
    struct ips ips = {0};
    struct ips decoded = {0};
    char *text;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct ip ip;

        assert_int_equal(ip_parse(texts[i], &ip), 0);
        ips_add(&ips, &ip);
    }
    assert_int_equal(encode_ips(&ips, &text), 0);
    assert_string_equal(text, "10.88.0.1\nfd00:88::1\n::\n255.255.255.255\n");
    assert_int_equal(decode_ips(text, &decoded), 0);
    assert_int_equal(decoded.count, ips.count);
    for (size_t i = 0; i < ips.count; i++)
        assert_true(ip_equal(&ips.items[i], &decoded.items[i]));
    ips_deinit(&ips);
    ips_deinit(&decoded);
    free(text);
}

static void labels_survive(void **state)
{
    struct labels labels = {0};
    struct labels decoded = {0};
    char *text;

    (void)state;
    labels_set(&labels, "b", "two\nlines");
    labels_set(&labels, "a=\\", "");
    labels_set(&labels, "", "empty key");
    assert_int_equal(encode_labels(&labels, &text), 0);
    assert_string_equal(text, "\nempty key\na=\\\\\n\nb\ntwo\\nlines\n");
    assert_int_equal(decode_labels(text, &decoded), 0);
    assert_true(labels_equal(&labels, &decoded));
    labels_deinit(&labels);
    labels_deinit(&decoded);
    free(text);
}

static void what_no_encoder_made_is_refused(void **state)
{
    static const char *const bad_strings[] = {"a", "a\nb", "\\\n", "a\\x\n", "\\t\n"};
    static const char *const bad_ips[] = {"10.0.0.1", "10.0.0\n", "\n", "10.0.0.1\nx\n"};
    static const char *const bad_labels[] = {"a\n", "a\nb\nc\n", "a\nb"};
    struct strings strings = {0};
    struct ips ips = {0};
    struct labels labels = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad_strings); i++)
        assert_int_equal(decode_strings(bad_strings[i], &strings), -EBADMSG);
    for (size_t i = 0; i < ARRAY_SIZE(bad_ips); i++)
        assert_int_equal(decode_ips(bad_ips[i], &ips), -EBADMSG);
    for (size_t i = 0; i < ARRAY_SIZE(bad_labels); i++)
        assert_int_equal(decode_labels(bad_labels[i], &labels), -EBADMSG);
    assert_null(strings.items);
    assert_null(ips.items);
    assert_null(labels.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_survive_whatever_is_in_them),
        cmocka_unit_test(every_short_string_survives),
        cmocka_unit_test(addresses_survive),
        cmocka_unit_test(labels_survive),
        cmocka_unit_test(what_no_encoder_made_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
