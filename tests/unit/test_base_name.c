/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/name.h"

#define X10 "xxxxxxxxxx"
#define X60 X10 X10 X10 X10 X10 X10
#define X63 X60 "xxx"

struct row {
    const char *text;
    bool good;
};

static void check_rows(const struct row *rows, size_t count, bool (*is_good)(const char *))
{
    for (size_t i = 0; i < count; i++)
        if (is_good(rows[i].text) != rows[i].good)
            fail_msg("\"%s\" was %s", rows[i].text, rows[i].good ? "refused" : "taken");
}

static void names_of_guests_and_networks(void **state)
{
    static const struct row rows[] = {
        {"a", true},    {"0", true},     {"web", true},        {"web-1", true}, {"a--b", true},
        {X63, true},    {"", false},     {X63 "x", false},     {"-a", false},   {"a-", false},
        {"-", false},   {"Web", false},  {"a_b", false},       {"a.b", false},  {"a b", false},
        {"a\n", false}, {"../x", false}, {"w\xc3\xa9", false}, {"a/b", false},  {"%s", false},
    };

    (void)state;
    check_rows(rows, ARRAY_SIZE(rows), name_is_valid);
}

static void dns_names(void **state)
{
    static const struct row rows[] = {
        {"a", true},
        {"example.com", true},
        {"A-b_c.D9", true},
        {"_srv._tcp.example.com", true},
        {"-a.b-", true},
        {X63 ".x", true},
        {X63 "." X63 "." X63 "." X60 "x", true},
        {X63 "." X63 "." X63 "." X60 "xx", false},
        {X63 "x", false},
        {"", false},
        {".", false},
        {"a.", false},
        {".a", false},
        {"a..b", false},
        {"a b", false},
        {"a*b", false},
        {"*.example.com", false},
        {"b\xc3\xbc.de", false},
        {"a\n", false},
    };

    (void)state;
    check_rows(rows, ARRAY_SIZE(rows), name_is_dns);
}

static void interface_names(void **state)
{
    static const struct row rows[] = {
        {"eth0", true},
        {"moat0", true},
        {"a", true},
        {"a.b-c_d@e", true},
        {"123456789012345", true},
        {"...", true},
        {"1234567890123456", false},
        {"", false},
        {".", false},
        {"..", false},
        {"all", false},
        {"default", false},
        {"all0", true},
        {"a/b", false},
        {"a:b", false},
        {"a b", false},
        {"a\tb", false},
        {"a\n", false},
        {"v%d", false},
        {"\x7f", false},
        {"\xc3\xa9", false},
        {"\x01", false},
    };

    (void)state;
    check_rows(rows, ARRAY_SIZE(rows), name_is_interface);
}

static void ids_are_hex_and_differ(void **state)
{
    char ids[64][ID_TEXT_LENGTH + 1];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        id_generate(ids[i]);
        assert_int_equal(strlen(ids[i]), ID_TEXT_LENGTH);
        assert_int_equal(strspn(ids[i], "0123456789abcdef"), ID_TEXT_LENGTH);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(ids[i], ids[j]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_guests_and_networks),
        cmocka_unit_test(dns_names),
        cmocka_unit_test(interface_names),
        cmocka_unit_test(ids_are_hex_and_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
