/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/span.h"

static struct port_span span_of(const char *text)
{
    struct error error = ERROR_INIT;
    struct port_span span = {0};

    if (strcmp(text, "everything") != 0 && span_parse(text, "port", &span, &error) < 0)
        fail_msg("%s", error.text);
    return span;
}

/* Words separated by spaces: "+80", "-80-90/udp", "+everything". What is left, as a text. */
static void change(struct port_spans *spans, const char *words)
{
    char copy[256];
    char *rest = NULL;

    snprintf(copy, sizeof(copy), "%s", words);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        const struct port_span span = span_of(word + 1);

        assert_int_equal(word[0] == '+' ? spans_add(spans, &span) : spans_remove(spans, &span), 0);
    }
}

static void show(const struct port_spans *spans, char text[512])
{
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < spans->count; i++) {
        char span[SPAN_TEXT_MAX];

        length += (size_t)snprintf(text + length, 512 - length, "%s%s", i ? " " : "",
                                   span_is_everything(&spans->items[i])
                                       ? "everything"
                                       : span_format(&spans->items[i], span));
    }
}

static void ports_are_read_and_written(void **state)
{
    static const char *const rows[][2] = {
        {"80", "80/tcp"},           {"80/tcp", "80/tcp"},    {"53/udp", "53/udp"},
        {"80-90", "80-90/tcp"},     {"80-80/udp", "80/udp"}, {"1-65535", "1-65535/tcp"},
        {"65535/udp", "65535/udp"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct port_span span = span_of(rows[i][0]);
        char text[SPAN_TEXT_MAX];

        assert_string_equal(span_format(&span, text), rows[i][1]);
    }
}

static void other_texts_are_refused(void **state)
{
    static const char *const rows[] = {"",           "x",           "0",       "65536", "90-80",
                                       "80/icmp",    "8080:80",     "80-",     "80 ",   "-80",
                                       "1.2.3.4:80", "[::1]:80:80", "80/tcp/", "080",   "80,81"};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error error = ERROR_INIT;
        struct port_span span = {7, 7, 7};

        if (span_parse(rows[i], "ports[3]", &span, &error) == 0)
            fail_msg("\"%s\" was accepted", rows[i]);
        assert_int_equal(error.kind, ERROR_FIELD);
        assert_string_equal(error.field, "ports[3]");
        assert_int_equal(span.first, 7);
    }
}

static void sets_have_their_shortest_form(void **state)
{
    static const char *const rows[][2] = {
        {"+80", "80/tcp"},
        {"+80 +80", "80/tcp"},
        {"+81 +80", "80-81/tcp"},
        {"+80 +82", "80/tcp 82/tcp"},
        {"+80 +82 +81", "80-82/tcp"},
        {"+80 +80/udp", "80/tcp 80/udp"},
        {"+10-20 +15-30 +5-9", "5-30/tcp"},
        {"+65535 +65534", "65534-65535/tcp"},
        {"+1-65535 +80", "1-65535/tcp"},
        {"+80 +90/udp +everything", "everything"},
        {"+everything +80", "everything"},
        {"+80-90 -85", "80-84/tcp 86-90/tcp"},
        {"+80-90 -80", "81-90/tcp"},
        {"+80-90 -90", "80-89/tcp"},
        {"+80-90 -1-65535", ""},
        {"+80-90 -85/udp", "80-90/tcp"},
        {"+10 +20 +30 -15-25", "10/tcp 30/tcp"},
        {"+1-65535 -1 -65535", "2-65534/tcp"},
        {"+80 +90 -everything", ""},
        {"+everything -everything", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct port_spans spans = {0};
        char text[512];

        change(&spans, rows[i][0]);
        show(&spans, text);
        if (strcmp(text, rows[i][1]) != 0)
            fail_msg("%s: \"%s\" instead of \"%s\"", rows[i][0], text, rows[i][1]);
        spans_deinit(&spans);
    }
}

/* Random changes, compared with a plain array of ports. */
static void sets_are_what_a_table_of_ports_would_be(void **state)
{
    enum { PORTS = 64, ROUNDS = 20000 };
    struct port_spans spans = {0};
    bool open[2][PORTS + 2] = {0};
    unsigned seed = 5;

    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        bool udp = rand_r(&seed) % 2;
        bool add = rand_r(&seed) % 2;
        uint16_t first = (uint16_t)(1 + rand_r(&seed) % PORTS);
        uint16_t last = (uint16_t)(first + rand_r(&seed) % 9);
        const struct port_span span = {udp ? IPPROTO_UDP : IPPROTO_TCP, first,
                                       last > PORTS ? PORTS : last};
        bool all = true;
        bool some = false;

        for (unsigned port = span.first; port <= span.last; port++) {
            all = all && open[udp][port];
            some = some || open[udp][port];
        }
        assert_int_equal(spans_contains(&spans, &span), all);
        assert_int_equal(spans_overlaps(&spans, &span), some);
        assert_int_equal((add ? spans_add : spans_remove)(&spans, &span), 0);
        for (unsigned port = span.first; port <= span.last; port++)
            open[udp][port] = add;
        size_t runs = 0;
        for (int p = 0; p < 2; p++)
            for (int port = 1; port <= PORTS; port++)
                runs += open[p][port] && !open[p][port - 1];
        assert_int_equal(spans.count, runs);
    }
    spans_deinit(&spans);
}

static void copies_are_their_own(void **state)
{
    struct port_spans spans = {0};
    struct port_spans copy = {0};
    const struct port_span span = {IPPROTO_TCP, 80, 80};

    (void)state;
    change(&spans, "+80 +90-95/udp");
    assert_int_equal(spans_copy(&spans, &copy), 0);
    change(&spans, "-everything");
    assert_int_equal(copy.count, 2);
    assert_true(spans_have(&copy, &span));
    assert_false(spans_have(&spans, &span));
    spans_deinit(&spans);
    spans_deinit(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_are_read_and_written),
        cmocka_unit_test(other_texts_are_refused),
        cmocka_unit_test(sets_have_their_shortest_form),
        cmocka_unit_test(sets_are_what_a_table_of_ports_would_be),
        cmocka_unit_test(copies_are_their_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
