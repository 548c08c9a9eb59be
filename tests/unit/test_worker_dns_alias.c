/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers of upstream servers behind aliases of ours. */
#include "dns_wire.h"

#include <stdlib.h>

#include "worker/dns_alias.h"

#define TARGET "www.example.org"
#define QUESTION_END 33 /* of a question for TARGET */

/* The query of a guest for "far", answered so far by its alias. */
static struct dns_alias_place alias_begin(struct message *message, struct dns_terms *ret_terms)
{
    struct dns_alias alias = {.answers = 1};
    struct dns_query query;
    struct message target = {.length = 0};

    put_query(message, 7, "far.moat.internal", 1, 1232);
    assert_int_equal(dns_query_parse(message->data, message->length, &query), DNS_PARSE_OK);
    message->length = query.terms.question_end;
    assert_int_equal(dns_name_parse(TARGET, &alias.name), 0);
    put_name(&target, TARGET);
    alias.owner = (uint16_t)(message->length + 12);
    put_record(message, 0xc00c, 5, 60, target.data, target.length);
    alias.length = (uint16_t)message->length;
    *ret_terms = query.terms;
    ret_terms->tcp = true;
    return dns_alias_place_of(&alias);
}

/* What upstream says, and what the guest is told. */
static const char *answer(const struct message *upstream, uint32_t age_s, char *text, size_t size)
{
    static struct message message;
    struct dns_answer parsed;
    struct dns_stored stored;
    struct dns_terms terms;
    struct dns_alias_place place = alias_begin(&message, &terms);

    assert_true(dns_answer_parse(upstream->data, upstream->length, &parsed));
    dns_stored_from_answer(&stored, &parsed, upstream->data);
    stored.ttls = parsed.ttls;
    stored.n_ttls = parsed.n_ttls;
    stored.age_s = age_s;
    message.length = dns_alias_reply(&place, &stored, message.data, sizeof(message.data), &terms);
    return get_text(&message, text, size);
}

#define BEFORE "far.moat.internal 60 CNAME www.example.org "

static void records_are_moved(void **state)
{
    static const uint8_t ip[] = {192, 0, 2, 7};
    static struct message upstream;
    char text[4096];

    (void)state;
    put_header(&upstream, 1, 0x8180, 1, 2, 0, 0);
    put_question(&upstream, TARGET, 1);
    assert_int_equal(upstream.length, QUESTION_END);
    /* www.example.org → cdn.example.org → 192.0.2.7: pointers to the question, into its middle, and
     * to a record. */
    put_record(&upstream, 0xc00c, 5, 300, "\3cdn\xc0\x10", 6);
    put_record(&upstream, 0xc000 | (QUESTION_END + 12), 1, 200, ip, 4);
    assert_string_equal(answer(&upstream, 50, text, sizeof(text)),
                        "NOERROR aa: " BEFORE "www.example.org 250 CNAME cdn.example.org "
                        "cdn.example.org 150 A 192.0.2.7 OPT 1232 0");
}

static void names_in_rdata_are_moved(void **state)
{
    static struct message upstream;
    char text[4096];

    (void)state;
    put_header(&upstream, 1, 0x8183, 1, 0, 1, 0);
    put_question(&upstream, TARGET, 1);
    put_record(&upstream, 0xc010, 6, 300,
               "\2ns\xc0\x10\4host\xc0\x21\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5", 32);
    assert_string_equal(answer(&upstream, 0, text, sizeof(text)),
                        "NXDOMAIN aa: " BEFORE "auth example.org 300 SOA OPT 1232 0");
    put_header(&upstream, 1, 0x8180, 1, 1, 0, 0);
    put_question(&upstream, TARGET, 33);
    put_record(&upstream, 0xc00c, 33, 300, "\0\1\0\2\0\3\3sip\xc0\x10", 12);
    assert_string_equal(answer(&upstream, 0, text, sizeof(text)),
                        "NOERROR aa: " BEFORE
                        "www.example.org 300 SRV 1 2 3 sip.example.org OPT 1232 0");
}

static void rdata_of_unknown_types_stays(void **state)
{
    static struct message upstream;
    static struct message message;
    struct dns_answer parsed;
    struct dns_stored stored;
    struct dns_terms terms;
    struct dns_alias_place place;

    (void)state;
    put_header(&upstream, 1, 0x8180, 1, 1, 0, 0);
    put_question(&upstream, TARGET, 65280);
    put_record(&upstream, 0xc00c, 65280, 300, "\xc0\x0c\xc0\xff", 4);
    assert_true(dns_answer_parse(upstream.data, upstream.length, &parsed));
    dns_stored_from_answer(&stored, &parsed, upstream.data);
    place = alias_begin(&message, &terms);
    terms.edns = false;
    message.length = dns_alias_reply(&place, &stored, message.data, sizeof(message.data), &terms);
    assert_memory_equal(message.data + message.length - 4, "\xc0\x0c\xc0\xff", 4);
}

/* An upstream server may say anything: what can't be moved is not passed on. */
static void what_can_not_be_moved_is_a_failure(void **state)
{
    static const struct {
        unsigned owner, type;
        const char *rdata;
        size_t length;
    } rows[] = {
        {0xc00b, 1, "abcd", 4},          /* into the header */
        {0xc01e, 1, "abcd", 4},          /* into the question's type */
        {0xc00c, 5, "\3cdn\xc0\x1f", 6}, /* the same in rdata */
        {0xc00c, 5, "\3cdn", 4},         /* a name that does not end */
        {0xc00c, 5, "\100cdn", 4},       /* a label of a kind that there is not */
        {0xc00c, 6, "\2ns\xc0\x10", 5},  /* one name of two */
        {0xc00c, 33, "\0\1", 2},         /* shorter than what stands before the name */
        {0xc00c, 5, "\xc0", 1},          /* half a pointer */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static struct message upstream;
        char text[4096];

        put_header(&upstream, 1, 0x8180, 1, 1, 0, 0);
        put_question(&upstream, TARGET, rows[i].type);
        put_record(&upstream, rows[i].owner, rows[i].type, 300, rows[i].rdata, rows[i].length);
        assert_string_equal(answer(&upstream, 0, text, sizeof(text)),
                            "SERVFAIL aa: far.moat.internal 60 CNAME www.example.org OPT 1232 0");
    }
}

static void pointers_beyond_their_range_are_a_failure(void **state)
{
    static struct message upstream;
    static uint8_t filler[16384];
    char text[4096];

    (void)state;
    put_header(&upstream, 1, 0x8180, 1, 2, 0, 0);
    put_question(&upstream, TARGET, 65280);
    put_record(&upstream, 0xc00c, 65280, 300, filler, 0x3fff - QUESTION_END - 12);
    assert_int_equal(upstream.length, 0x3fff);
    put_name(&upstream, "a"); /* at 0x3fff: what points there can't be moved up */
    put_u16(&upstream, 65280);
    put_u16(&upstream, 1);
    put_u32(&upstream, 300);
    put_u16(&upstream, 0);
    upstream.data[7] = 3;
    put_record(&upstream, 0xffff, 65280, 300, "", 0);
    assert_string_equal(answer(&upstream, 0, text, sizeof(text)),
                        "SERVFAIL aa: far.moat.internal 60 CNAME www.example.org OPT 1232 0");
}

static void what_does_not_fit_is_truncated(void **state)
{
    static struct message upstream;
    static struct message message;
    static uint8_t filler[1200];
    struct dns_answer parsed;
    struct dns_stored stored;
    struct dns_terms terms;
    struct dns_alias_place place = alias_begin(&message, &terms);
    char text[4096];

    (void)state;
    put_header(&upstream, 1, 0x8180, 1, 1, 0, 0);
    put_question(&upstream, TARGET, 16);
    put_record(&upstream, 0xc00c, 65280, 300, filler, sizeof(filler));
    assert_true(dns_answer_parse(upstream.data, upstream.length, &parsed));
    dns_stored_from_answer(&stored, &parsed, upstream.data);
    terms.tcp = false;
    message.length = dns_alias_reply(&place, &stored, message.data, sizeof(message.data), &terms);
    assert_string_equal(get_text(&message, text, sizeof(text)), "NOERROR aa tc: OPT 1232 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_moved),
        cmocka_unit_test(names_in_rdata_are_moved),
        cmocka_unit_test(rdata_of_unknown_types_stays),
        cmocka_unit_test(what_can_not_be_moved_is_a_failure),
        cmocka_unit_test(pointers_beyond_their_range_are_a_failure),
        cmocka_unit_test(what_does_not_fit_is_truncated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
