/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dns_wire.h"

#include <stdlib.h>

#include "worker/dns_cache.h"

static void answer_make(struct message *message, const char *name, uint32_t ttl_s, unsigned records)
{
    put_header(message, 1, 0x81a0, 1, records, 0, 0);
    put_question(message, name, 1);
    for (unsigned i = 0; i < records; i++)
        put_record(message, 0xc00c, 1, ttl_s + i, "\1\2\3\4", 4);
}

static void cache_put(struct dns_cache *cache, const char *name, uint32_t upstreams, uint32_t ttl_s,
                      unsigned records, uint64_t now_ms)
{
    static struct message message;
    struct dns_answer answer;
    struct dns_cache_key key = {.upstreams = upstreams, .type = 1, .name = &answer.name};

    answer_make(&message, name, ttl_s, records);
    assert_true(dns_answer_parse(message.data, message.length, &answer));
    dns_cache_put(cache, &key, &answer, message.data, now_ms);
}

/* The reply to a query as text; "": not there. */
static const char *cache_ask(struct dns_cache *cache, const char *name, uint32_t upstreams,
                             unsigned size, uint64_t now_ms, char text[4096])
{
    static struct message message;
    struct dns_query query;
    struct dns_cache_key key = {.upstreams = upstreams, .type = 1, .name = &query.name};
    struct dns_stored stored;

    put_query(&message, 9, name, 1, size);
    assert_int_equal(dns_query_parse(message.data, message.length, &query), DNS_PARSE_OK);
    query.terms.tcp = false;
    if (!dns_cache_find(cache, &key, now_ms, &stored))
        return "";
    message.length = dns_stored_reply(&stored, message.data, DNS_UDP_MAX, &query.terms);
    return get_text(&message, text, 4096);
}

static void hits_count_down_and_keep_the_case(void **state)
{
    struct dns_cache *cache = dns_cache_new(1 << 20);
    char text[4096];

    (void)state;
    cache_put(cache, "example.org", 1, 60, 2, 1000);
    assert_string_equal(cache_ask(cache, "ExAmple.org", 1, 0, 1000, text),
                        "NOERROR: ExAmple.org 60 A 1.2.3.4 ExAmple.org 61 A 1.2.3.4");
    assert_string_equal(cache_ask(cache, "example.org", 1, 1232, 31999, text),
                        "NOERROR: example.org 30 A 1.2.3.4 example.org 31 A 1.2.3.4 OPT 1232 0");
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 60999, text),
                        "NOERROR: example.org 1 A 1.2.3.4 example.org 2 A 1.2.3.4");
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 61000, text), "");
    assert_int_equal(dns_cache_count(cache), 0);
    assert_int_equal(dns_cache_bytes(cache), 0);
    dns_cache_free(cache);
}

static void questions_are_told_apart(void **state)
{
    struct dns_cache *cache = dns_cache_new(1 << 20);
    char text[4096];

    (void)state;
    cache_put(cache, "example.org", 1, 60, 1, 0);
    assert_string_equal(cache_ask(cache, "example.org", 2, 0, 0, text), "");
    assert_string_equal(cache_ask(cache, "example.com", 1, 0, 0, text), "");
    assert_string_not_equal(cache_ask(cache, "example.org", 1, 0, 0, text), "");
    dns_cache_flush(cache);
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 0, text), "");
    dns_cache_free(cache);
}

static void later_answers_replace_earlier_ones(void **state)
{
    struct dns_cache *cache = dns_cache_new(1 << 20);
    char text[4096];

    (void)state;
    cache_put(cache, "example.org", 1, 60, 3, 0);
    cache_put(cache, "example.org", 1, 10, 1, 5000);
    assert_int_equal(dns_cache_count(cache), 1);
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 5000, text),
                        "NOERROR: example.org 10 A 1.2.3.4");
    cache_put(cache, "example.org", 1, 0, 1, 6000); /* not to be kept */
    assert_int_equal(dns_cache_count(cache), 0);
    dns_cache_free(cache);
}

static void long_answers_are_truncated_by_udp(void **state)
{
    struct dns_cache *cache = dns_cache_new(1 << 20);
    char text[4096];

    (void)state;
    cache_put(cache, "example.org", 1, 60, 50, 0);
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 0, text), "NOERROR tc:");
    assert_non_null(strstr(cache_ask(cache, "example.org", 1, 1232, 0, text), "A 1.2.3.4"));
    dns_cache_free(cache);
}

static void bytes_are_bounded(void **state)
{
    const size_t bound = 64 * 1024;
    struct dns_cache *cache = dns_cache_new(bound);
    char name[64];
    char text[4096];

    (void)state;
    cache_put(cache, "loved.example", 1, 600, 1, 0);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "name-%d.example", i);
        cache_put(cache, name, 1, 600, 1, 0);
        assert_true(dns_cache_bytes(cache) <= bound);
        assert_string_not_equal(cache_ask(cache, "loved.example", 1, 0, 0, text), "");
    }
    assert_in_range(dns_cache_count(cache), 200, 800);
    assert_string_not_equal(cache_ask(cache, "name-4999.example", 1, 0, 0, text), "");
    assert_string_equal(cache_ask(cache, "name-0.example", 1, 0, 0, text), "");
    dns_cache_flush(cache);
    assert_int_equal(dns_cache_bytes(cache), 0);
    dns_cache_free(cache);
}

static void answers_longer_than_the_bound_are_not_kept(void **state)
{
    struct dns_cache *cache = dns_cache_new(512);
    char text[4096];

    (void)state;
    cache_put(cache, "small.example", 1, 60, 1, 0);
    cache_put(cache, "big.example", 1, 60, 60, 0);
    assert_string_equal(cache_ask(cache, "big.example", 1, 1232, 0, text), "");
    assert_string_not_equal(cache_ask(cache, "small.example", 1, 0, 0, text), "");
    dns_cache_free(cache);
}

static void authentic_data_is_told_to_who_asks(void **state)
{
    static struct message message;
    struct dns_query query;
    struct dns_answer answer;
    struct dns_stored stored;
    static struct message out;

    (void)state;
    answer_make(&message, "example.org", 60, 1); /* with AD */
    assert_true(dns_answer_parse(message.data, message.length, &answer));
    dns_stored_from_answer(&stored, &answer, message.data);
    for (int ask = 0; ask < 2; ask++) {
        put_query(&out, 1, "example.org", 1, 0);
        if (ask)
            out.data[3] |= 0x20;
        assert_int_equal(dns_query_parse(out.data, out.length, &query), DNS_PARSE_OK);
        query.terms.tcp = false;
        out.length = dns_stored_reply(&stored, out.data, DNS_UDP_MAX, &query.terms);
        assert_int_equal((get_u16(&out, 2) & DNS_FLAG_AD) != 0, ask);
    }
}

/* The reply from an entry that has expired, as text; "": there is none. */
static const char *cache_ask_stale(struct dns_cache *cache, const char *name, uint64_t now_ms,
                                   char text[4096])
{
    static struct message message;
    struct dns_query query;
    struct dns_cache_key key = {.upstreams = 1, .type = 1, .name = &query.name};
    struct dns_stored stored;

    put_query(&message, 9, name, 1, 1232);
    assert_int_equal(dns_query_parse(message.data, message.length, &query), DNS_PARSE_OK);
    query.terms.tcp = false;
    if (!dns_cache_find_stale(cache, &key, now_ms, &stored))
        return "";
    message.length = dns_stored_reply(&stored, message.data, DNS_UDP_MAX, &query.terms);
    assert_memory_equal(message.data + message.length - 6, "\0\17\0\2\0\3", 6); /* EDE 3 */
    return get_text(&message, text, 4096);
}

/* RFC 8767. */
static void expired_answers_are_there_for_want_of_others(void **state)
{
    struct dns_cache *cache = dns_cache_new(1 << 20);
    char text[4096];

    (void)state;
    dns_cache_set_bounds(cache, 1 << 20, 3600);
    cache_put(cache, "example.org", 1, 60, 1, 0);
    assert_string_equal(cache_ask_stale(cache, "example.org", 59999, text), ""); /* fresh */
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 60000, text), "");
    assert_string_equal(cache_ask_stale(cache, "example.org", 60000, text),
                        "NOERROR: example.org 30 A 1.2.3.4 OPT 1232 0");
    /* Needed once, it is given out for 30 s. */
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 89999, text),
                        "NOERROR: example.org 30 A 1.2.3.4");
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 90000, text), "");
    /* A good answer takes its place. */
    cache_put(cache, "example.org", 1, 60, 1, 100000);
    assert_string_equal(cache_ask(cache, "example.org", 1, 0, 100000, text),
                        "NOERROR: example.org 60 A 1.2.3.4");
    assert_string_equal(cache_ask_stale(cache, "example.org", 3759999, text),
                        "NOERROR: example.org 30 A 1.2.3.4 OPT 1232 0");
    assert_string_equal(cache_ask_stale(cache, "example.org", 3760000, text), "");
    assert_int_equal(dns_cache_count(cache), 0);
    dns_cache_free(cache);
}

static void expired_answers_make_room_first(void **state)
{
    struct dns_cache *cache = dns_cache_new(64 * 1024);
    char name[64];
    char text[4096];

    (void)state;
    dns_cache_set_bounds(cache, 64 * 1024, 3600);
    cache_put(cache, "old.example", 1, 1, 1, 0);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "name-%d.example", i);
        cache_put(cache, name, 1, 600, 1, 5000);
    }
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "name-%d.example", i);
        assert_string_not_equal(cache_ask(cache, name, 1, 0, 5000, text), "");
    }
    while (dns_cache_bytes(cache) < 64 * 1024 - 200)
        cache_put(cache, name, 1000 + (uint32_t)dns_cache_count(cache), 600, 1, 5000);
    cache_put(cache, "a.example", 1, 600, 1, 5000);
    cache_put(cache, "b.example", 1, 600, 1, 5000);
    assert_string_equal(cache_ask_stale(cache, "old.example", 5000, text), "");
    assert_string_not_equal(cache_ask(cache, "name-0.example", 1, 0, 5000, text), "");
    dns_cache_free(cache);
}

static void a_smaller_bound_counts_at_once(void **state)
{
    struct dns_cache *cache = dns_cache_new(1 << 20);
    char name[64];

    (void)state;
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "name-%d.example", i);
        cache_put(cache, name, 1, 600, 1, 0);
    }
    dns_cache_set_bounds(cache, 16384, 0);
    assert_true(dns_cache_bytes(cache) <= 16384);
    dns_cache_free(cache);
}

static void names_are_flushed_with_those_below(void **state)
{
    static const struct {
        const char *name;
        bool stays;
    } rows[] = {
        {"example.org", false},
        {"www.example.org", false},
        {"a.b.example.org", false},
        {"xexample.org", true},
        {"org", true},
        {"example.com", true},
        {"www.example.or", true},
        {"x.example.org.net", true},
    };
    struct dns_cache *cache = dns_cache_new(1 << 20);
    struct dns_name name;
    char text[4096];

    (void)state;
    assert_int_equal(dns_name_parse("Example.ORG", &name), 0);
    dns_cache_flush_below(cache, &name);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cache_put(cache, rows[i].name, 1, 60, 1, 0);
    dns_cache_flush_below(cache, &name);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(cache_ask(cache, rows[i].name, 1, 0, 0, text)[0] != '\0', rows[i].stays);
    assert_int_equal(dns_name_parse("", &name), 0);
    dns_cache_flush_below(cache, &name);
    assert_int_equal(dns_cache_count(cache), 0);
    assert_int_equal(dns_cache_bytes(cache), 0);
    dns_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_count_down_and_keep_the_case),
        cmocka_unit_test(questions_are_told_apart),
        cmocka_unit_test(later_answers_replace_earlier_ones),
        cmocka_unit_test(long_answers_are_truncated_by_udp),
        cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(answers_longer_than_the_bound_are_not_kept),
        cmocka_unit_test(authentic_data_is_told_to_who_asks),
        cmocka_unit_test(expired_answers_are_there_for_want_of_others),
        cmocka_unit_test(expired_answers_make_room_first),
        cmocka_unit_test(a_smaller_bound_counts_at_once),
        cmocka_unit_test(names_are_flushed_with_those_below),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
