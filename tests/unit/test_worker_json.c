/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "worker/json.h"

static struct json begin(const char *text)
{
    struct json json;

    json_begin(&json, text, strlen(text));
    return json;
}

static bool is_json(const char *text)
{
    struct json json = begin(text);

    return json_skip(&json) && json_is_done(&json);
}

static void test_whole_values(void **state)
{
    static const char *const good[] = {"{}",
                                       "[]",
                                       " [ ] ",
                                       "null",
                                       "true",
                                       "false",
                                       "\"\"",
                                       "-1.5e+3",
                                       "[1,2,[3,{\"a\":[]}],{}]",
                                       "{\"a\":{\"b\":{}},\"c\":[[],[]]}",
                                       "[[[[[[[[]]]]]]]]",
                                       "{\"\\u0041\":\"\\ud83d\\ude00\\n\"}",
                                       "\t{\r\n\"a\" : 1 , \"b\" : [ null ] }\n"};
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[",
                                      "]",
                                      "[1,]",
                                      "[,1]",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "[1 2]",
                                      "{\"a\":1 \"b\":2}",
                                      "nul",
                                      "truex",
                                      "[truex]",
                                      "\"",
                                      "\"\\\"",
                                      "\"\\x\"",
                                      "\"\\u12g4\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00\"",
                                      "\"\\ud800\\u0041\"",
                                      "\"\n\"",
                                      "[]]",
                                      "{}{}",
                                      "[}",
                                      "{]",
                                      "[[]",
                                      "'a'",
                                      "+",
                                      "-",
                                      "1.",
                                      ".5",
                                      "1e",
                                      "--1"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        if (!is_json(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (is_json(bad[i]))
            fail_msg("taken: %s", bad[i]);
}

static void test_depth(void **state)
{
    char text[2 * JSON_DEPTH_MAX + 4];

    (void)state;
    for (size_t depth = 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        text[2 * depth] = '\0';
        assert_int_equal(is_json(text), depth <= JSON_DEPTH_MAX);
    }
}

static void test_strings(void **state)
{
    static const struct {
        const char *json;
        const char *text;
    } rows[] = {
        {"\"abc\"", "abc"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\"", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\"1234567890123456789\"", "1234567890123456789"},
        {"\"12345678901234567890\"", ""}, /* does not fit */
        {"\"1234567890123456789\\u20ac\"", ""},
        {"\"a\\u0000b\"", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct json json = begin(rows[i].json);
        char text[20];

        assert_true(json_string(&json, text, sizeof(text)));
        assert_string_equal(text, rows[i].text);
        assert_true(json_is_done(&json));
    }
}

static void test_numbers_and_booleans(void **state)
{
    static const struct {
        const char *json;
        int64_t value;
        bool good;
    } rows[] = {
        {"0", 0, true},
        {"-7", -7, true},
        {"9223372036854775807", INT64_MAX, true},
        {"9223372036854775808", 0, false},
        {"1.0", 0, false},
        {"1e3", 0, false},
        {"-", 0, false},
        {"\"1\"", 0, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct json json = begin(rows[i].json);
        int64_t value = 0;

        assert_int_equal(json_integer(&json, &value), rows[i].good);
        assert_int_equal(value, rows[i].value);
        assert_int_equal(json_is_done(&json), rows[i].good);
    }

    struct json json = begin("[true,false,1]");
    bool value = false;

    assert_true(json_open(&json, '['));
    assert_true(json_element(&json) && json_bool(&json, &value) && value);
    assert_true(json_element(&json) && json_bool(&json, &value) && !value);
    assert_true(json_element(&json));
    assert_false(json_bool(&json, &value));
    assert_false(json_element(&json)); /* after a failure nothing goes on */
    assert_false(json_is_done(&json));
}

static void test_members(void **state)
{
    struct json json = begin("{\"a\":[1,{\"x\":2}],\"long name\":3,\"b\":{},\"c\":4}");
    char name[4];
    char names[16] = "";
    size_t length = 0;

    (void)state;
    assert_true(json_is_object(&json));
    assert_true(json_open(&json, '{'));
    while (json_member(&json, name, sizeof(name))) {
        length +=
            (size_t)snprintf(names + length, sizeof(names) - length, "%s", name[0] ? name : "?");
        assert_true(json_skip(&json));
    }
    assert_string_equal(names, "a?bc");
    assert_true(json_is_done(&json));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_values), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_strings),      cmocka_unit_test(test_numbers_and_booleans),
        cmocka_unit_test(test_members),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
