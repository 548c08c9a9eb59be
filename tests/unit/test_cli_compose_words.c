/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/compose_words.h"

/* --- variables --- */

static char *find(const char *name)
{
    static char set[] = "value";
    static char empty[] = "";

    if (strcmp(name, "SET") == 0 || strcmp(name, "_x1") == 0)
        return set;
    return strcmp(name, "EMPTY") == 0 ? empty : NULL;
}

static void assert_becomes(const char *text, const char *expected)
{
    struct text result = {0};
    struct error error = ERROR_INIT;

    if (compose_interpolate(text, find, &result, &error) < 0)
        fail_msg("%s: %s", text, error.text);
    assert_string_equal(result.data ? result.data : "", expected);
    text_deinit(&result);
}

static void assert_refused(const char *text, const char *word)
{
    struct text result = {0};
    struct error error = ERROR_INIT;

    assert_int_equal(compose_interpolate(text, find, &result, &error), -EINVAL);
    if (!strstr(error.text, word))
        fail_msg("%s: \"%s\" does not say \"%s\"", text, error.text, word);
    text_deinit(&result);
}

static void variables_are_replaced(void **state)
{
    (void)state;
    assert_becomes("", "");
    assert_becomes("plain", "plain");
    assert_becomes("$SET", "value");
    assert_becomes("a$SET-b ${SET}c", "avalue-b valuec");
    assert_becomes("$_x1.", "value.");
    assert_becomes("[$UNSET][${UNSET}][$EMPTY]", "[][][]");
    assert_becomes("$$SET $$$$ a$$", "$SET $$ a$");
    assert_becomes("$SETx", "");
}

static void operators_choose(void **state)
{
    (void)state;
    assert_becomes("${UNSET-other}${EMPTY-other}${SET-other}", "othervalue");
    assert_becomes("${UNSET:-other}${EMPTY:-other}${SET:-other}", "otherothervalue");
    assert_becomes("${UNSET+other}|${EMPTY+other}|${SET+other}", "|other|other");
    assert_becomes("${UNSET:+other}|${EMPTY:+other}|${SET:+other}", "||other");
    assert_becomes("${SET?no}${SET:?no}${EMPTY?no}", "valuevalue");
    assert_becomes("${UNSET:-}", "");
    assert_becomes("${UNSET-a-b:c}", "a-b:c");
    assert_becomes("${UNSET-${EMPTY:-${SET}}!}", "value!");
    assert_becomes("${UNSET-$$}", "$");
}

static void what_is_no_variable_is_refused(void **state)
{
    (void)state;
    assert_refused("$", "$$");
    assert_refused("a $ b", "$$");
    assert_refused("$1", "$$");
    assert_refused("${", "$$");
    assert_refused("${}", "$$");
    assert_refused("${SET", "$$");
    assert_refused("${1}", "$$");
    assert_refused("${SET:}", "$$");
    assert_refused("${SET%x}", "$$");
    assert_refused("${UNSET?why not}", "UNSET is not set: why not");
    assert_refused("${EMPTY:?}", "EMPTY is not set");
    assert_refused("${UNSET-$}", "$$");
}

static void nesting_and_length_are_bounded(void **state)
{
    static char text[COMPOSE_TEXT_MAX + 2];
    char *end = text;

    (void)state;
    for (unsigned i = 0; i < 50; i++)
        end += sprintf(end, "${UNSET-");
    for (unsigned i = 0; i < 50; i++)
        *end++ = '}';
    *end = '\0';
    assert_refused(text, "deep");
    memset(text, 'x', sizeof(text) - 1);
    assert_refused(text, "bytes");
}

/* --- commands --- */

static void assert_words(const char *text, size_t count, ...)
{
    struct strings words = {0};
    struct error error = ERROR_INIT;
    va_list expected;

    assert_int_equal(compose_split(text, &words, &error), 0);
    assert_int_equal(words.count, count);
    va_start(expected, count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(words.items[i], va_arg(expected, const char *));
    va_end(expected);
    strings_deinit(&words);
}

static void commands_are_split_as_a_shell_would(void **state)
{
    (void)state;
    assert_words("", 0);
    assert_words(" \t\n ", 0);
    assert_words("one", 1, "one");
    assert_words("  a  b\tc\n", 3, "a", "b", "c");
    assert_words("a 'b c' \"d e\"", 3, "a", "b c", "d e");
    assert_words("a''b \"\" ''", 3, "ab", "", "");
    assert_words("x'y z'w", 1, "xy zw");
    assert_words("'\"' \"'\"", 2, "\"", "'");
    assert_words("a\\ b \\' \\\\", 3, "a b", "'", "\\");
    assert_words("\"\\\" \\$ \\n\" '\\n'", 2, "\" $ \\n", "\\n");
    assert_words("$HOME *", 2, "$HOME", "*");
    assert_words("end\\", 1, "end\\");
}

static void a_quote_that_does_not_end_is_refused(void **state)
{
    static const char *const texts[] = {"'", "\"", "a 'b", "a \"b'", "\"\\\""};
    struct strings words = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct error error = ERROR_INIT;

        assert_int_equal(compose_split(texts[i], &words, &error), -EINVAL);
        assert_null(words.items);
    }
}

/* --- names --- */

static void names_are_made_to_fit(void **state)
{
    static const char *const rows[][3] = {
        {NULL, "web", "web"}, {"shop", "web", "shop-web"}, {"a", "My_Web.1", "a-my-web-1"},
        {NULL, "", NULL},     {NULL, "_web", NULL},        {"a", "web_", NULL},
        {NULL, "w b", NULL},  {NULL, "\303\244", NULL},
    };
    char long_name[80] = {0};
    char name[NAME_MAX_LENGTH + 1];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int r = compose_name(rows[i][0], rows[i][1], name);

        assert_int_equal(r, rows[i][2] ? 0 : -EINVAL);
        if (rows[i][2])
            assert_string_equal(name, rows[i][2]);
    }
    memset(long_name, 'x', NAME_MAX_LENGTH);
    assert_int_equal(compose_name(NULL, long_name, name), 0);
    assert_int_equal(compose_name("a", long_name, name), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variables_are_replaced),
        cmocka_unit_test(operators_choose),
        cmocka_unit_test(what_is_no_variable_is_refused),
        cmocka_unit_test(nesting_and_length_are_bounded),
        cmocka_unit_test(commands_are_split_as_a_shell_would),
        cmocka_unit_test(a_quote_that_does_not_end_is_refused),
        cmocka_unit_test(names_are_made_to_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
