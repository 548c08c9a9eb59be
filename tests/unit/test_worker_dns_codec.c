/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dns_wire.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "worker/dns_codec.h"

/* The worker's functions read exactly what they are given: a copy of the very size shows it under
 * ASan. */
static enum dns_parse parse_exact(const struct message *message, struct dns_query *ret_query)
{
    _cleanup_free_ uint8_t *copy = malloc(message->length ? message->length : 1);
    enum dns_parse parse;

    assert_non_null(copy);
    memcpy(copy, message->data, message->length);
    parse = dns_query_parse(copy, message->length, ret_query);
    return parse;
}

/* --- names --- */

static void name_parse_takes_what_fits(void **state)
{
    static const struct {
        const char *text;
        int labels; /* -1: refused */
    } rows[] = {
        {".", 0},
        {"web", 1},
        {"web.", 1},
        {"WEB.moat.Internal", 3},
        {"", 0},
        {"a..b", -1},
        {".a", -1},
        {"..", -1},
        {"a123456789b123456789c123456789d123456789e123456789f123456789xyz", 1},
        {"a123456789b123456789c123456789d123456789e123456789f123456789xyzw", -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct dns_name name;
        int r = dns_name_parse(rows[i].text, &name);

        assert_int_equal(r, rows[i].labels < 0 ? -EINVAL : 0);
        if (r == 0)
            assert_int_equal(name.labels, rows[i].labels);
    }
}

static void name_of_255_bytes_is_the_longest(void **state)
{
    char text[300];
    struct dns_name name;
    size_t length = 0;

    (void)state;
    for (int i = 0; i < 127; i++) {
        text[length++] = 'a';
        text[length++] = '.';
    }
    text[length - 1] = '\0';
    assert_int_equal(dns_name_parse(text, &name), 0);
    assert_int_equal(name.length, 255);
    assert_int_equal(name.labels, 127);
    text[length - 1] = '.';
    text[length] = 'a';
    text[length + 1] = '\0';
    assert_int_equal(dns_name_parse(text, &name), -EINVAL);
}

static void name_is_lowered_and_formatted(void **state)
{
    static const uint8_t wire[] = "\5W@[Z.\3\0\xc3\xa4";
    char text[DNS_TEXT_MAX];
    struct dns_name name;

    (void)state;
    assert_int_equal(dns_name_read(wire, sizeof(wire), 0, &name), sizeof(wire));
    assert_string_equal(dns_name_format(name.wire, text), "w@[z\\046.\\000\\195\\164");
    assert_int_equal(dns_name_parse(".", &name), 0);
    assert_string_equal(dns_name_format(name.wire, text), ".");
}

static void name_lowering_changes_letters_only(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t wire[] = {3, 'x', (uint8_t)byte, 'Y', 0};
        struct dns_name name;

        assert_int_equal(dns_name_read(wire, sizeof(wire), 0, &name), sizeof(wire));
        assert_int_equal(name.wire[2], byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
        assert_int_equal(name.wire[3], 'y');
    }
}

static void name_is_below_at_label_boundaries_only(void **state)
{
    static const struct {
        const char *name;
        bool below;
    } rows[] = {
        {"moat.internal", true},       {"web.moat.internal", true}, {"a.b.moat.internal", true},
        {"xmoat.internal", false},     {"internal", false},         {"moat.internal.org", false},
        {"web.moat.internals", false},
    };
    struct dns_name suffix;

    (void)state;
    assert_int_equal(dns_name_parse("moat.internal", &suffix), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct dns_name name;

        assert_int_equal(dns_name_parse(rows[i].name, &name), 0);
        assert_int_equal(dns_name_is_below(&name, &suffix), rows[i].below);
    }
    /* One label whose bytes look like the end of a name. */
    struct dns_name trick;
    static const uint8_t wire[] = "\20x\4moat\10internal";
    assert_int_equal(dns_name_read(wire, sizeof(wire), 0, &trick), 0);
    static const uint8_t whole[] = "\17x\4moat\10internal\0";
    assert_int_not_equal(dns_name_read(whole, sizeof(whole), 0, &trick), 0);
    assert_false(dns_name_is_below(&trick, &suffix));
}

static void reverse_names_are_read(void **state)
{
    static const struct {
        const char *name;
        enum dns_reverse kind;
        const char *ip;
        unsigned bits;
    } rows[] = {
        {"5.0.88.10.in-addr.arpa", DNS_REVERSE_ADDRESS, "10.88.0.5", 32},
        {"88.10.in-addr.arpa", DNS_REVERSE_PART, "10.88.0.0", 16},
        {"in-addr.arpa", DNS_REVERSE_PART, "0.0.0.0", 0},
        {"x.0.88.10.in-addr.arpa", DNS_REVERSE_BAD, "10.88.0.0", 24},
        {"05.0.88.10.in-addr.arpa", DNS_REVERSE_BAD, "10.88.0.0", 24},
        {"256.0.88.10.in-addr.arpa", DNS_REVERSE_BAD, "10.88.0.0", 24},
        {"1.5.0.88.10.in-addr.arpa", DNS_REVERSE_BAD, "10.88.0.5", 32},
        {"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
         DNS_REVERSE_ADDRESS, "2001:db8::1", 128},
        {"8.b.d.0.1.0.0.2.ip6.arpa", DNS_REVERSE_PART, "2001:db8::", 32},
        {"xx.8.b.d.0.1.0.0.2.ip6.arpa", DNS_REVERSE_BAD, "2001:db8::", 32},
        {"arpa", DNS_REVERSE_NO, "", 0},
        {"5.0.88.10.in-addr.arpa.org", DNS_REVERSE_NO, "", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[IP_TEXT_MAX];
        struct dns_name name;
        struct ip ip;
        unsigned bits = 0;

        assert_int_equal(dns_name_parse(rows[i].name, &name), 0);
        assert_int_equal(dns_reverse_parse(&name, &ip, &bits), rows[i].kind);
        if (rows[i].kind == DNS_REVERSE_NO)
            continue;
        assert_string_equal(ip_format(&ip, text), rows[i].ip);
        assert_int_equal(bits, rows[i].bits);
    }
}

/* --- queries --- */

static void query_is_read(void **state)
{
    struct message message;
    struct dns_query query;

    (void)state;
    put_query(&message, 0x1234, "WeB.Moat", 28, 4096);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_OK);
    assert_int_equal(query.terms.id, 0x1234);
    assert_int_equal(query.type, 28);
    assert_int_equal(query.class, 1);
    assert_int_equal(query.name.labels, 2);
    assert_memory_equal(query.name.wire, "\3web\4moat", 10);
    assert_true(query.terms.edns);
    assert_int_equal(query.terms.udp_size, DNS_UDP_MAX);
    assert_false(query.terms.dnssec_ok);
    put_query(&message, 1, "web", 1, 0);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_OK);
    assert_false(query.terms.edns);
    assert_int_equal(query.terms.udp_size, DNS_UDP_MIN);
    put_query(&message, 1, "web", 1, 100);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_OK);
    assert_int_equal(query.terms.udp_size, DNS_UDP_MIN);
}

static void query_of_every_shorter_length_is_refused(void **state)
{
    struct message message;
    struct dns_query query;
    size_t whole;

    (void)state;
    put_query(&message, 1, "web.moat.internal", 1, 1232);
    whole = message.length;
    for (message.length = 0; message.length < whole; message.length++)
        assert_int_equal(parse_exact(&message, &query),
                         message.length < DNS_HEADER_SIZE ? DNS_PARSE_DROP : DNS_PARSE_FORMERR);
}

static void query_that_is_none(void **state)
{
    struct message message;
    struct dns_query query;

    (void)state;
    put_query(&message, 1, "web", 1, 0);
    message.data[2] |= 0x80; /* a response */
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_DROP);
    for (unsigned opcode = 1; opcode < 16; opcode++) {
        put_query(&message, 1, "web", 1, 0);
        message.data[2] = (uint8_t)(opcode << 3);
        assert_int_equal(parse_exact(&message, &query), DNS_PARSE_NOTIMP);
    }
    for (int questions = 0; questions < 3; questions++) {
        put_query(&message, 1, "web", 1, 0);
        put_question(&message, "web", 1);
        message.data[5] = (uint8_t)questions;
        assert_int_equal(parse_exact(&message, &query),
                         questions == 1 ? DNS_PARSE_OK : DNS_PARSE_FORMERR);
    }
}

/* Malformed in one way each. */
static void query_malformed(void **state)
{
    struct message message;
    struct dns_query query;

    (void)state;
    put_header(&message, 1, 0x0100, 1, 0, 0, 0); /* a pointer in the question */
    put_u16(&message, 0xc00c);
    put_u32(&message, 0x00010001);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);

    put_header(&message, 1, 0x0100, 1, 0, 0, 0); /* a label type that nobody defined */
    put_bytes(&message, "\100a\0\0\1\0\1", 7);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);

    put_header(&message, 1, 0x0100, 1, 0, 0, 0); /* 256 bytes of name */
    for (int i = 0; i < 128; i++)
        put_bytes(&message, "\1a", 2);
    put_bytes(&message, "\0\0\1\0\1", 5);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);

    put_query(&message, 1, "web", 1, 1232); /* an answer in a query */
    message.data[7] = 1;
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);

    put_query(&message, 1, "web", 1, 1232); /* two OPT */
    put_opt(&message, 1232, 0, 0);
    message.data[11] = 2;
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);

    put_header(&message, 1, 0x0100, 1, 0, 0, 1); /* OPT of a name */
    put_question(&message, "web", 1);
    put_record(&message, 0xc00c, 41, 0, "", 0);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);

    put_query(&message, 1, "web", 1, 1232); /* an option longer than OPT */
    message.data[message.length - 1] = 4;
    put_bytes(&message, "\0\12\0\1", 4);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);

    put_query(&message, 1, "web", 1, 1232); /* more records announced than there are */
    message.data[10] = 0xff;
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_FORMERR);
}

static void query_options_are_passed_over(void **state)
{
    struct message message;
    struct dns_query query;

    (void)state;
    put_query(&message, 1, "web", 1, 1232);
    message.data[message.length - 1] = 16; /* OPT's length */
    put_u16(&message, 10);                 /* a cookie */
    put_u16(&message, 8);
    put_bytes(&message, "01234567", 8);
    put_u16(&message, 65001); /* unknown, empty */
    put_u16(&message, 0);
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_OK);
    assert_true(query.terms.edns);
}

/* --- replies --- */

static void query_prepare(struct message *message, struct dns_query *query, unsigned size, bool tcp)
{
    put_query(message, 7, "WeB.example", 1, size);
    assert_int_equal(dns_query_parse(message->data, message->length, query), DNS_PARSE_OK);
    query->terms.tcp = tcp;
}

static void reply_keeps_the_case(void **state)
{
    struct message message;
    struct dns_query query;
    struct dns_reply reply;
    char text[512];

    (void)state;
    query_prepare(&message, &query, 1232, false);
    dns_reply_begin(&reply, message.data, DNS_UDP_MAX, &query.terms);
    assert_true(dns_reply_answer(&reply, DNS_HEADER_SIZE, 1, 60, "\12\130\0\5", 4));
    message.length = dns_reply_finish(&reply, &query.terms, DNS_FLAG_AA, DNS_RCODE_NOERROR, 0);
    assert_string_equal(get_text(&message, text, sizeof(text)),
                        "NOERROR aa: WeB.example 60 A 10.88.0.5 OPT 1232 0");
    assert_int_equal(get_u16(&message, 0), 7);
    assert_int_equal(get_u16(&message, 2) & (DNS_FLAG_RD | DNS_FLAG_RA), DNS_FLAG_RD | DNS_FLAG_RA);
}

static void reply_is_truncated_where_it_must_be(void **state)
{
    static const struct {
        unsigned size;
        bool tcp;
        unsigned fit; /* records of 16 bytes behind 29 bytes of header and question */
    } rows[] = {
        {0, false, 30}, {512, false, 29}, {4096, false, 74}, {0, true, 200}, {1232, true, 200}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct message message;
        struct dns_query query;
        struct dns_reply reply;
        unsigned fit = 0;

        query_prepare(&message, &query, rows[i].size, rows[i].tcp);
        dns_reply_begin(&reply, message.data, sizeof(message.data), &query.terms);
        while (fit < 200 && dns_reply_answer(&reply, DNS_HEADER_SIZE, 1, 60, "\1\2\3\4", 4))
            fit++;
        assert_int_equal(fit, rows[i].fit);
        message.length = dns_reply_finish(&reply, &query.terms, 0, DNS_RCODE_NOERROR, 0);
        assert_int_equal((get_u16(&message, 2) & DNS_FLAG_TC) != 0, fit < 200);
        assert_int_equal(get_u16(&message, 6), fit < 200 ? 0 : 200);
    }
}

static void reply_with_extended_rcode(void **state)
{
    struct message message;
    struct dns_query query;
    struct dns_reply reply;
    char text[512];

    (void)state;
    query_prepare(&message, &query, 1232, false);
    dns_reply_begin(&reply, message.data, DNS_UDP_MAX, &query.terms);
    message.length = dns_reply_finish(&reply, &query.terms, 0, DNS_RCODE_BADVERS, 0);
    assert_string_equal(get_text(&message, text, sizeof(text)), "NOERROR: OPT 1232 1");
    query_prepare(&message, &query, 1232, false);
    dns_reply_begin(&reply, message.data, DNS_UDP_MAX, &query.terms);
    message.length =
        dns_reply_finish(&reply, &query.terms, 0, DNS_RCODE_REFUSED, DNS_EDE_PROHIBITED);
    assert_string_equal(get_text(&message, text, sizeof(text)), "REFUSED: OPT 1232 0");
    assert_memory_equal(message.data + message.length - 6, "\0\17\0\2\0\22", 6);
}

static void error_has_a_header_only(void **state)
{
    struct message message;
    char text[512];

    (void)state;
    put_query(&message, 9, "web", 1, 1232);
    message.data[2] = 0x11; /* opcode 2, RD */
    message.length = dns_error_build(message.data, DNS_RCODE_NOTIMP);
    assert_int_equal(message.length, DNS_HEADER_SIZE);
    assert_string_equal(get_text(&message, text, sizeof(text)), "NOTIMP:");
    assert_int_equal(message.data[2] & 0x78, 0x10);
}

/* --- answers --- */

static bool answer_exact(const struct message *message, struct dns_answer *ret_answer)
{
    _cleanup_free_ uint8_t *copy = malloc(message->length ? message->length : 1);

    assert_non_null(copy);
    memcpy(copy, message->data, message->length);
    return dns_answer_parse(copy, message->length, ret_answer);
}

static void put_soa(struct message *message, uint32_t ttl_s, uint32_t minimum_s)
{
    struct message rdata = {.length = 0};

    put_bytes(&rdata, "\0\0", 2);
    for (uint32_t i = 0; i < 4; i++)
        put_u32(&rdata, i);
    put_u32(&rdata, minimum_s);
    put_record(message, 0xc00c, 6, ttl_s, rdata.data, rdata.length);
}

static void answer_is_measured(void **state)
{
    struct message message;
    struct dns_answer answer;
    size_t body_end;

    (void)state;
    put_header(&message, 5, 0x8180, 1, 2, 0, 1);
    put_question(&message, "Example.org", 1);
    put_record(&message, 0xc00c, 1, 300, "\1\2\3\4", 4);
    put_record(&message, 0xc00c, 1, 100, "\1\2\3\5", 4);
    body_end = message.length;
    put_opt(&message, 1232, 0, 0);
    assert_true(answer_exact(&message, &answer));
    assert_int_equal(answer.ttl_s, 100);
    assert_int_equal(answer.answers, 2);
    assert_int_equal(answer.additional, 0);
    assert_int_equal(answer.body_end, body_end);
    assert_int_equal(answer.n_ttls, 2);
    assert_int_equal(get_u16(&message, answer.ttls[1] + 2ul), 100);
    assert_memory_equal(answer.name.wire, "\7example\3org", 13);
}

static void answer_ttls(void **state)
{
    static const struct {
        unsigned rcode;
        int answers; /* of TTL 200 */
        int soa;     /* its minimum, -1: none; its TTL is 300 */
        uint32_t ttl;
    } rows[] = {
        {0, 1, -1, 200}, {0, 0, 60, 60}, {3, 0, 60, 60}, {3, 0, 900, 300}, {0, 0, -1, 0},
        {3, 0, -1, 0},   {3, 1, 50, 50}, {2, 1, -1, 0},  {5, 0, 60, 0},    {0, 1, 60, 200},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct message message;
        struct dns_answer answer;

        put_header(&message, 5, 0x8180 | rows[i].rcode, 1, (unsigned)rows[i].answers,
                   rows[i].soa >= 0, 0);
        put_question(&message, "example.org", 1);
        if (rows[i].answers)
            put_record(&message, 0xc00c, 1, 200, "\1\2\3\4", 4);
        if (rows[i].soa >= 0)
            put_soa(&message, 300, (uint32_t)rows[i].soa);
        assert_true(answer_exact(&message, &answer));
        assert_int_equal(answer.ttl_s, rows[i].ttl);
    }
}

static void answer_ttl_with_the_top_bit_is_zero(void **state)
{
    struct message message;
    struct dns_answer answer;

    (void)state;
    put_header(&message, 5, 0x8180, 1, 1, 0, 0);
    put_question(&message, "example.org", 1);
    put_record(&message, 0xc00c, 1, 0x80000001, "\1\2\3\4", 4);
    assert_true(answer_exact(&message, &answer));
    assert_int_equal(answer.ttl_s, 0);
}

static void answer_with_opt_in_the_middle_is_cut(void **state)
{
    struct message message;
    struct dns_answer answer;

    (void)state;
    put_header(&message, 5, 0x8180, 1, 1, 0, 3);
    put_question(&message, "example.org", 1);
    put_record(&message, 0xc00c, 1, 300, "\1\2\3\4", 4);
    put_record(&message, 0xc00c, 28, 300, "0123456789abcdef", 16);
    put_opt(&message, 1232, 0, 0);
    put_record(&message, 0xc00c, 1, 300, "\1\2\3\4", 4);
    assert_true(answer_exact(&message, &answer));
    assert_int_equal(answer.additional, 1);
    assert_int_equal(answer.body_end, message.length - 16 - 11);
}

static void answer_of_every_shorter_length_is_refused(void **state)
{
    struct message message;
    struct dns_answer answer;
    size_t whole;

    (void)state;
    put_header(&message, 5, 0x8180, 1, 1, 1, 1);
    put_question(&message, "example.org", 1);
    put_record(&message, 0xc00c, 1, 300, "\1\2\3\4", 4);
    put_soa(&message, 300, 60);
    put_opt(&message, 1232, 0, 0);
    whole = message.length;
    assert_true(answer_exact(&message, &answer));
    for (message.length = 0; message.length < whole; message.length++)
        assert_false(answer_exact(&message, &answer));
}

static void answer_malformed(void **state)
{
    struct message message;
    struct dns_answer answer;

    (void)state;
    put_query(&message, 5, "example.org", 1, 0); /* a query */
    assert_false(answer_exact(&message, &answer));
    put_header(&message, 5, 0x8180, 1, 1, 0, 0); /* a pointer to itself */
    put_question(&message, "example.org", 1);
    put_record(&message, 0xc000 | 29, 1, 300, "\1\2\3\4", 4);
    assert_false(answer_exact(&message, &answer));
    put_header(&message, 5, 0x8180, 1, 1, 0, 0); /* a pointer forward */
    put_question(&message, "example.org", 1);
    put_record(&message, 0xc0ff, 1, 300, "\1\2\3\4", 4);
    assert_false(answer_exact(&message, &answer));
    put_header(&message, 5, 0x8380, 1, 9, 0, 0); /* truncated: its records are not looked at */
    put_question(&message, "example.org", 1);
    put_bytes(&message, "\300", 1);
    assert_true(answer_exact(&message, &answer));
    assert_int_equal(answer.ttl_s, 0);
    assert_int_equal(answer.answers, 0);
}

static void question_is_built(void **state)
{
    uint8_t data[DNS_QUESTION_MAX];
    struct message message;
    struct dns_query query;

    (void)state;
    message.length = dns_question_build(message.data, 77, (const uint8_t *)"\3wEb", 5, 16,
                                        DNS_FLAG_CD, true, true);
    assert_true(message.length <= sizeof(data));
    assert_int_equal(parse_exact(&message, &query), DNS_PARSE_OK);
    assert_int_equal(query.terms.id, 77);
    assert_int_equal(query.terms.flags, DNS_FLAG_RD | DNS_FLAG_CD);
    assert_true(query.terms.dnssec_ok);
    assert_memory_equal(message.data + 12, "\3wEb", 5);
}

static void hash_spreads(void **state)
{
    unsigned buckets[64] = {0};

    (void)state;
    dns_hash_seed();
    for (uint32_t i = 0; i < 6400; i++) {
        char name[32];
        int length = snprintf(name, sizeof(name), "guest-%u", i);

        buckets[dns_hash(name, (size_t)length, 0) % 64]++;
    }
    for (int i = 0; i < 64; i++)
        assert_in_range(buckets[i], 40, 180);
    assert_int_not_equal(dns_hash("a", 1, 0), dns_hash("a", 1, 1));
    assert_int_not_equal(dns_hash("a", 1, 0), dns_hash("a\0", 2, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_parse_takes_what_fits),
        cmocka_unit_test(name_of_255_bytes_is_the_longest),
        cmocka_unit_test(name_is_lowered_and_formatted),
        cmocka_unit_test(name_lowering_changes_letters_only),
        cmocka_unit_test(name_is_below_at_label_boundaries_only),
        cmocka_unit_test(reverse_names_are_read),
        cmocka_unit_test(query_is_read),
        cmocka_unit_test(query_of_every_shorter_length_is_refused),
        cmocka_unit_test(query_that_is_none),
        cmocka_unit_test(query_malformed),
        cmocka_unit_test(query_options_are_passed_over),
        cmocka_unit_test(reply_keeps_the_case),
        cmocka_unit_test(reply_is_truncated_where_it_must_be),
        cmocka_unit_test(reply_with_extended_rcode),
        cmocka_unit_test(error_has_a_header_only),
        cmocka_unit_test(answer_is_measured),
        cmocka_unit_test(answer_ttls),
        cmocka_unit_test(answer_ttl_with_the_top_bit_is_zero),
        cmocka_unit_test(answer_with_opt_in_the_middle_is_cut),
        cmocka_unit_test(answer_of_every_shorter_length_is_refused),
        cmocka_unit_test(answer_malformed),
        cmocka_unit_test(question_is_built),
        cmocka_unit_test(hash_spreads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
