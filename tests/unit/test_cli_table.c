/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output for people: tables and indented JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json.h"
#include "cli/table.h"

static void assert_table(const struct table *table, size_t max_width, const char *expected)
{
    struct text text = {0};

    assert_false(table->failed);
    table_format(table, max_width, &text);
    assert_string_equal(text.data, expected);
    text_deinit(&text);
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, 3, "NAME", "ADDRESS", "STATE");
    table_add(&table, "web", "10.88.0.2", "running");
    table_add(&table, "a-long-name", "", NULL);
    assert_table(&table, 0,
                 "NAME         ADDRESS    STATE\n"
                 "web          10.88.0.2  running\n"
                 "a-long-name  -          -\n");
    table_deinit(&table);
}

static void the_widest_column_is_cut_on_a_narrow_terminal(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, 2, "NAME", "PORTS");
    table_add(&table, "web", "8080:80/tcp,8443:443/tcp,9000:9000/udp");
    assert_table(&table, 25,
                 "NAME  PORTS\n"
                 "web   8080:80/tcp,8443:4…\n");
    assert_table(&table, 3,
                 "NAME  PORTS\n"
                 "web   8080:80…\n");
    table_deinit(&table);
}

static void characters_count_not_bytes(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, 2, "A", "B");
    table_add(&table, "äöü", "x");
    table_add(&table, "abcd", "y");
    assert_table(&table, 0, "A     B\näöü   x\nabcd  y\n");
    table_deinit(&table);
}

static void json_is_indented_but_not_changed(void **state)
{
    static const char *const rows[][2] = {
        {"[]", "[]"},
        {"{}", "{}"},
        {"[1,2]", "[\n  1,\n  2\n]"},
        {"{\"a\":{\"b\":[]},\"c\":null}", "{\n  \"a\": {\n    \"b\": []\n  },\n  \"c\": null\n}"},
        {"\"a,b:[{\\\"}]\\\\\"", "\"a,b:[{\\\"}]\\\\\""},
        {"[\"\\\\\",\"x\"]", "[\n  \"\\\\\",\n  \"x\"\n]"},
        {"\"unfinished", "\"unfinished"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct text text = {0};

        json_indent(rows[i][0], &text);
        assert_string_equal(text.data, rows[i][1]);
        text_deinit(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(the_widest_column_is_cut_on_a_narrow_terminal),
        cmocka_unit_test(characters_count_not_bytes),
        cmocka_unit_test(json_is_indented_but_not_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
