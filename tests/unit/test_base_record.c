/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of static records, from what people write to what DNS carries. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/record.h"

#define DOMAIN "moat.internal"

static void types_have_names(void **state)
{
    static const uint16_t types[] = {RECORD_A, RECORD_AAAA, RECORD_CNAME, RECORD_TXT, RECORD_SRV};
    uint16_t type;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        assert_int_equal(record_type_parse(record_type_name(types[i]), &type), 0);
        assert_int_equal(type, types[i]);
        assert_non_null(strstr(RECORD_TYPES, record_type_name(types[i])));
    }
    assert_int_equal(record_type_parse("cname", &type), 0);
    assert_int_equal(type, RECORD_CNAME);
    assert_true(record_type_parse("PTR", &type) < 0);
    assert_true(record_type_parse("", &type) < 0);
    assert_string_equal(record_type_name(12), "");
}

static void names_may_begin_with_a_star(void **state)
{
    static const char *const good[] = {"a", "*", "*.a", "*.a.b", "_x._tcp.a", "A-1"};
    static const char *const bad[] = {"",    "*.",    "**", "*a", "a.*",
                                      "*.*", "a.*.b", ".",  "a.", "a b"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(record_name_is_valid(good[i]));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(record_name_is_valid(bad[i]));
}

/* What is written, what is kept, what is shown. */
static void values_are_normalised(void **state)
{
    static const struct {
        uint16_t type;
        const char *text, *value, *shown;
    } rows[] = {
        {RECORD_A, "10.1.2.3", "10.1.2.3", "10.1.2.3"},
        {RECORD_AAAA, "FD00:0:0::1", "fd00::1", "fd00::1"},
        {RECORD_CNAME, "web", "web", "web.moat.internal"},
        {RECORD_CNAME, "Web.Moat.Internal", "web", "web.moat.internal"},
        {RECORD_CNAME, "web.moat.internal.", "web", "web.moat.internal"},
        {RECORD_CNAME, "web.blue.moat.internal", "web.blue", "web.blue.moat.internal"},
        {RECORD_CNAME, "www.Example.org", "www.example.org.", "www.example.org"},
        {RECORD_CNAME, "www.example.org.", "www.example.org.", "www.example.org"},
        {RECORD_CNAME, "com.", "com.", "com."},
        {RECORD_CNAME, "moat.internal", "moat.internal.", "moat.internal"},
        {RECORD_TXT, "v=1; \"x\" ü", "v=1; \"x\" ü", "v=1; \"x\" ü"},
        {RECORD_SRV, "10 5 5060 sip", "10 5 5060 sip", "10 5 5060 sip.moat.internal"},
        {RECORD_SRV, "0  0   0  .", "0 0 0 .", "0 0 0 ."},
        {RECORD_SRV, "007 65535 1 a.b.", "7 65535 1 a.b.", "7 65535 1 a.b"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error error = ERROR_INIT;
        char text[RECORD_TEXT_MAX];
        char *value;
        char *again;

        assert_int_equal(
            record_value_parse(rows[i].type, rows[i].text, DOMAIN, "v", &value, &error), 0);
        assert_string_equal(value, rows[i].value);
        assert_string_equal(record_value_format(rows[i].type, value, DOMAIN, text), rows[i].shown);
        assert_int_equal(record_value_parse(rows[i].type, text, DOMAIN, "v", &again, &error), 0);
        assert_string_equal(again, value);
        free(value);
        free(again);
    }
}

static void bad_values_are_refused(void **state)
{
    static const struct {
        uint16_t type;
        const char *text, *says;
    } rows[] = {
        {RECORD_A, "fd00::1", "is not an IPv4 address"},
        {RECORD_A, "10.1.2", "is not an IPv4 address"},
        {RECORD_AAAA, "10.1.2.3", "is not an IPv6 address"},
        {RECORD_CNAME, "", "is not a DNS name"},
        {RECORD_CNAME, ".", "is not a DNS name"},
        {RECORD_CNAME, "a..b", "is not a DNS name"},
        {RECORD_CNAME, "*.a", "is not a DNS name"},
        {RECORD_TXT, "", "1 to 1024 bytes"},
        {RECORD_TXT, "a\nb", "control characters"},
        {RECORD_SRV, "10 5 5060", "PRIORITY WEIGHT PORT TARGET"},
        {RECORD_SRV, "10 5 65536 sip", "PRIORITY WEIGHT PORT TARGET"},
        {RECORD_SRV, "10 5 -1 sip", "PRIORITY WEIGHT PORT TARGET"},
        {RECORD_SRV, "10 5 5060 sip too", "PRIORITY WEIGHT PORT TARGET"},
        {RECORD_SRV, "", "PRIORITY WEIGHT PORT TARGET"},
    };
    char longest[RECORD_VALUE_MAX + 2];
    char *value = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error error = ERROR_INIT;

        assert_int_equal(
            record_value_parse(rows[i].type, rows[i].text, DOMAIN, "v", &value, &error), -EINVAL);
        assert_int_equal(error.kind, ERROR_FIELD);
        if (!strstr(error.text, rows[i].says))
            fail_msg("\"%s\": %s", rows[i].text, error.text);
    }
    memset(longest, 'x', sizeof(longest));
    longest[RECORD_VALUE_MAX + 1] = '\0';
    struct error error = ERROR_INIT;
    assert_int_equal(record_value_parse(RECORD_TXT, longest, DOMAIN, "v", &value, &error), -EINVAL);
    longest[RECORD_VALUE_MAX] = '\0';
    assert_int_equal(record_value_parse(RECORD_TXT, longest, DOMAIN, "v", &value, &error), 0);
    free(value);
}

static void assert_rdata(uint16_t type, const char *value, const char *bytes, size_t length)
{
    uint8_t rdata[RECORD_RDATA_MAX];

    assert_int_equal(record_rdata_build(type, value, DOMAIN, rdata), length);
    assert_memory_equal(rdata, bytes, length);
}

#define RDATA(type, value, bytes) assert_rdata(type, value, bytes, sizeof(bytes) - 1)

static void rdata_is_that_of_the_rfcs(void **state)
{
    uint8_t rdata[RECORD_RDATA_MAX];
    char text[RECORD_VALUE_MAX + 1];
    char name[260] = "";

    (void)state;
    RDATA(RECORD_A, "10.1.2.3", "\12\1\2\3");
    RDATA(RECORD_AAAA, "fd00::1", "\375\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1");
    RDATA(RECORD_CNAME, "web", "\3web\4moat\10internal\0");
    RDATA(RECORD_CNAME, "www.example.org.", "\3www\7example\3org\0");
    RDATA(RECORD_TXT, "abc", "\3abc");
    RDATA(RECORD_SRV, "10 5 5060 sip", "\0\12\0\5\23\304\3sip\4moat\10internal\0");
    RDATA(RECORD_SRV, "0 0 0 .", "\0\0\0\0\0\0\0");
    memset(text, 'x', RECORD_VALUE_MAX);
    text[RECORD_VALUE_MAX] = '\0';
    assert_int_equal(record_rdata_build(RECORD_TXT, text, DOMAIN, rdata), RECORD_VALUE_MAX + 5);
    assert_int_equal(rdata[0], 255);
    assert_int_equal(rdata[256], 255);
    assert_int_equal(rdata[4 * 256], 4);
    for (int i = 0; i < 62; i++)
        strcat(name, "abc.");
    name[247] = '\0';
    assert_int_equal(record_rdata_build(RECORD_CNAME, name, DOMAIN, rdata), 0); /* too long */
    strcat(name, ".");
    assert_int_equal(record_rdata_build(RECORD_CNAME, name, DOMAIN, rdata), 249);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_names),          cmocka_unit_test(names_may_begin_with_a_star),
        cmocka_unit_test(values_are_normalised),     cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(rdata_is_that_of_the_rfcs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
