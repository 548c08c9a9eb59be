/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The query log, as the worker reports it; nothing that a worker says is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "names/query_log.h"
#include "worker/dns_message.h"

struct report {
    alignas(8) uint8_t data[65536];
    size_t length;
};

static void report_begin(struct report *report, uint64_t lost)
{
    const struct dns_queries_message message = {.lost = lost};

    memcpy(report->data, &message, sizeof(message));
    report->length = sizeof(message);
}

static struct dns_query_entry *report_add(struct report *report, const char *wire, size_t length,
                                          const char *guest)
{
    struct dns_query_entry *entry = (struct dns_query_entry *)(report->data + report->length);

    *entry = (struct dns_query_entry){.time_ms = 1000,
                                      .duration_us = 1500,
                                      .type = 28,
                                      .rcode = 3,
                                      .source = DNS_SOURCE_UPSTREAM,
                                      .name_length = (uint8_t)length,
                                      .guest_length = (uint8_t)strlen(guest),
                                      .network_length = 7};
    memcpy(entry->text, wire, length);
    memcpy(entry->text + length, guest, strlen(guest));
    memcpy(entry->text + length + strlen(guest), "default", 7);
    report->length += DNS_QUERY_ENTRY_SIZE(length + strlen(guest) + 7);
    return entry;
}

static bool add(struct query_log *log, const struct report *report)
{
    return query_log_add(log, report->data, report->length);
}

static struct dns_log_result read_since(const struct query_log *log, uint64_t since)
{
    struct dns_log_result result;
    struct error error = ERROR_INIT;

    assert_int_equal(query_log_read(log, since, &result, &error), 0);
    return result;
}

static void entries_are_shown_as_texts(void **state)
{
    static struct report report;
    struct query_log *log = query_log_new();
    struct dns_log_result result;

    (void)state;
    report_begin(&report, 0);
    report_add(&report, "\3wWw\7example\0", 13, "web");
    report_add(&report, "\3a.b\0", 5, "")->type = 4711;
    report_add(&report, "\0", 1, "web")->rcode = 16;
    assert_true(add(log, &report));
    result = read_since(log, 0);
    assert_int_equal(result.n_queries, 3);
    assert_int_equal(result.next, 4);
    assert_int_equal(result.lost, 0);
    assert_string_equal(result.queries[0].name, "wWw.example");
    assert_string_equal(result.queries[0].guest, "web");
    assert_string_equal(result.queries[0].network, "default");
    assert_string_equal(result.queries[0].type, "AAAA");
    assert_string_equal(result.queries[0].rcode, "NXDOMAIN");
    assert_string_equal(result.queries[0].source, "upstream");
    assert_int_equal(result.queries[0].duration_us, 1500);
    assert_string_equal(result.queries[1].name, "a\\046b");
    assert_string_equal(result.queries[1].guest, "");
    assert_string_equal(result.queries[1].type, "TYPE4711");
    assert_string_equal(result.queries[2].name, ".");
    assert_string_equal(result.queries[2].rcode, "BADVERS");
    dns_log_result_deinit(&result);
    query_log_free(log);
}

static void what_is_malformed_is_not_taken(void **state)
{
    static struct report report;
    struct query_log *log = query_log_new();
    struct dns_log_result result;

    (void)state;
    for (int i = 0; i < 8; i++) {
        struct dns_query_entry *entry;

        report_begin(&report, 0);
        entry = report_add(&report, "\3web\0", 5, "web");
        switch (i) {
        case 0:
            entry->source = DNS_SOURCE_COUNT_;
            break;
        case 1:
            entry->name_length = 4; /* without its end */
            break;
        case 2:
            memcpy(entry->text + 5, "W;b", 3);
            break;
        case 3:
            entry->text[0] = 0xc0;
            break;
        case 4:
            entry->network_length = 200;
            break;
        case 5:
            report.length -= 8;
            break;
        case 6:
            report.length += 4;
            break;
        default:
            entry->time_ms = UINT64_MAX;
        }
        if (add(log, &report))
            fail_msg("case %d", i);
    }
    report_begin(&report, UINT64_MAX);
    assert_false(add(log, &report));
    report.length = 4;
    assert_false(add(log, &report));
    result = read_since(log, 0);
    assert_int_equal(result.n_queries, 1); /* of case 6: what stood before the junk */
    dns_log_result_deinit(&result);
    query_log_free(log);
}

static void the_oldest_make_room_and_readers_learn_of_it(void **state)
{
    static struct report report;
    struct query_log *log = query_log_new();
    struct dns_log_result result;

    (void)state;
    for (int i = 0; i < 5000; i++) {
        report_begin(&report, 0);
        report_add(&report, "\3web\0", 5, "web");
        assert_true(add(log, &report));
    }
    result = read_since(log, 0);
    assert_int_equal(result.lost, 0); /* nobody had asked */
    assert_int_equal(result.n_queries, LIMIT_DNS_LOG);
    assert_int_equal(result.queries[0].number, 5001 - QUERY_LOG_MAX);
    assert_int_equal(result.next, 5001 - QUERY_LOG_MAX + LIMIT_DNS_LOG);
    dns_log_result_deinit(&result);
    result = read_since(log, 10);
    assert_int_equal(result.lost, 5001 - QUERY_LOG_MAX - 10);
    dns_log_result_deinit(&result);
    result = read_since(log, 5000);
    assert_int_equal(result.n_queries, 1);
    dns_log_result_deinit(&result);
    result = read_since(log, UINT64_MAX);
    assert_int_equal(result.n_queries, 0);
    assert_int_equal(result.next, 5001);
    dns_log_result_deinit(&result);
    /* The worker had no room for some. */
    report_begin(&report, 7);
    report_add(&report, "\3web\0", 5, "web");
    assert_true(add(log, &report));
    result = read_since(log, 5001);
    assert_int_equal(result.lost, 7);
    assert_int_equal(result.n_queries, 1);
    assert_int_equal(result.queries[0].number, 5008);
    dns_log_result_deinit(&result);
    query_log_clear(log);
    query_log_free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_shown_as_texts),
        cmocka_unit_test(what_is_malformed_is_not_taken),
        cmocka_unit_test(the_oldest_make_room_and_readers_learn_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
