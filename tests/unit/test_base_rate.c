/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/rate.h"

static void rates_are_read_and_written(void **state)
{
    static const struct {
        const char *text;
        uint64_t bits;
        const char *shortest;
    } rows[] = {
        {"64kbit", 64000, "64kbit"},
        {"10mbit", 10000000, "10mbit"},
        {"1500kbit", 1500000, "1500kbit"},
        {"1000mbit", 1000000000, "1gbit"},
        {"1tbit", 1000000000000, "1tbit"},
        {"64001bit", 64001, "64001bit"},
        {"0010mbit", 10000000, "10mbit"},
        {"none", 0, "none"},
        {"1000000000000bit", 1000000000000, "1tbit"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error error = ERROR_INIT;
        char text[RATE_TEXT_MAX];
        uint64_t bits = 1;

        if (rate_parse(rows[i].text, "rate", &bits, &error) < 0)
            fail_msg("%s", error.text);
        assert_int_equal(bits, rows[i].bits);
        assert_string_equal(rate_format(bits, text), rows[i].shortest);
    }
}

static void other_texts_are_refused(void **state)
{
    static const char *const rows[] = {
        "",
        "0",
        "10",
        "mbit",
        "10mb",
        "10Mbit",
        "10mbit ",
        " 10mbit",
        "-1mbit",
        "1.5mbit",
        "63kbit",
        "2tbit",
        "0mbit",
        "10mbps",
        "1e6bit",
        "off",
        "+10mbit",
        "99999999999999999999bit",
        "18446744073709551617bit",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error error = ERROR_INIT;
        uint64_t bits = 7;

        if (rate_parse(rows[i], "limits.rate_up", &bits, &error) == 0)
            fail_msg("\"%s\" was accepted", rows[i]);
        assert_int_equal(error.kind, ERROR_FIELD);
        assert_string_equal(error.field, "limits.rate_up");
        assert_int_equal(bits, 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_read_and_written),
        cmocka_unit_test(other_texts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
