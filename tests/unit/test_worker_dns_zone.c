/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is answered from the zone, to whom. */
#include "dns_wire.h"

#include <errno.h>
#include <stdlib.h>

#include "base/record.h"
#include "worker/dns_local.h"

#define TTL 60

static struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    if (text[0])
        assert_int_equal(ip_parse(text, &ip), 0);
    return ip;
}

static struct cidr cidr_of(const char *text)
{
    struct cidr cidr = {0};

    if (text[0])
        assert_int_equal(cidr_parse(text, &cidr), 0);
    return cidr;
}

static void add_network(struct zone *zone, int64_t id, const char *name, const char *gateway,
                        const char *subnet, const char *gateway6, const char *subnet6)
{
    struct zone_network config = {.id = id,
                                  .gateway = ip_of(gateway),
                                  .subnet = cidr_of(subnet),
                                  .gateway6 = ip_of(gateway6),
                                  .subnet6 = cidr_of(subnet6)};
    struct zone_network *network;

    assert_int_equal(dns_name_parse(name, &config.label), 0);
    assert_int_equal(zone_network_set(zone, &config, &network), 0);
}

/* names: space separated, the guest's first. */
static int try_endpoint(struct zone *zone, int64_t id, int64_t guest, int64_t network,
                        const char *ip, const char *ip6, const char *names)
{
    struct zone_endpoint_config config = {
        .id = id, .guest_id = guest, .network_id = network, .ip = ip_of(ip), .ip6 = ip_of(ip6)};
    char copy[4096];
    char *save;

    snprintf(copy, sizeof(copy), "%s", names);
    for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save))
        config.names[config.n_names++] = name;
    return zone_endpoint_set(zone, &config);
}

static void add_endpoint(struct zone *zone, int64_t id, int64_t guest, int64_t network,
                         const char *ip, const char *ip6, const char *names)
{
    assert_int_equal(try_endpoint(zone, id, guest, network, ip, ip6, names), 0);
}

/* value: as base/record.h keeps it. */
static int try_record(struct zone *zone, int64_t id, int64_t network, const char *name,
                      uint16_t type, const char *value)
{
    uint8_t rdata[RECORD_RDATA_MAX];
    struct zone_record_config config = {
        .id = id,
        .network_id = network,
        .name = name,
        .type = type,
        .rdata = rdata,
        .length = record_rdata_build(type, value, "moat.internal", rdata)};

    return zone_record_set(zone, &config);
}

static void add_typed(struct zone *zone, int64_t id, int64_t network, const char *name,
                      uint16_t type, const char *value)
{
    assert_int_equal(try_record(zone, id, network, name, type, value), 0);
}

static void add_record(struct zone *zone, int64_t id, int64_t network, const char *name,
                       const char *ip)
{
    add_typed(zone, id, network, name, strchr(ip, ':') ? RECORD_AAAA : RECORD_A, ip);
}

/* web (on both networks) and db on "default", hidden on "back" only. */
static struct zone *zone_make(void)
{
    struct zone *zone;

    assert_int_equal(zone_new("moat.internal", TTL, NULL, NULL, &zone), 0);
    add_network(zone, 1, "default", "10.88.0.1", "10.88.0.0/16", "fd00:88::1", "fd00:88::/64");
    add_network(zone, 2, "back", "10.89.16.1", "10.89.16.0/20", "", "");
    add_endpoint(zone, 1, 1, 1, "10.88.0.5", "fd00:88::5", "web www shared");
    add_endpoint(zone, 2, 2, 1, "10.88.0.6", "", "db shared a.b");
    add_endpoint(zone, 3, 1, 2, "10.89.16.5", "", "web backalias");
    add_endpoint(zone, 4, 3, 2, "10.89.16.6", "", "hidden");
    add_record(zone, 1, 0, "printer", "10.1.1.1");
    add_record(zone, 2, 0, "db.corp.example", "10.1.1.2");
    add_record(zone, 3, 2, "backonly.corp.example", "10.1.1.3");
    add_record(zone, 4, 1, "deep.er.moat.internal", "10.1.1.4");
    return zone;
}

/* Answer to a source address that asks the gateway of a network; "none": no answer; "elsewhere":
 * not ours; "alias of NAME": what NAME has is not ours. */
static const char *ask(struct zone *zone, int64_t network, const char *source, const char *name,
                       unsigned type, unsigned size, char text[4096])
{
    static struct message message;
    struct ip from = ip_of(source);
    struct dns_asker asker;
    struct dns_query query;
    struct dns_alias alias;
    char name_text[DNS_TEXT_MAX];

    put_query(&message, 1, name, type, size);
    if (!zone_asker_find(zone, zone_network_find(zone, network), &from, zone_source_hash(&from),
                         &asker))
        return "none";
    query.terms.tcp = false;
    assert_int_equal(dns_query_parse(message.data, message.length, &query), DNS_PARSE_OK);
    dns_local_prepare(zone, &query);
    switch (dns_local_answer(zone, &asker, &query, message.data, DNS_UDP_MAX, &message.length,
                             &alias)) {
    case DNS_LOCAL_NOT_OURS:
        return "elsewhere";
    case DNS_LOCAL_ALIAS:
        dns_name_format(alias.name.wire, name_text);
        assert_true(alias.answers > 0 && alias.length > query.terms.question_end);
        assert_memory_equal(message.data + alias.owner, alias.name.wire, alias.name.length);
        snprintf(text, 4096, "alias of %s", name_text);
        return text;
    case DNS_LOCAL_DONE:
        break;
    }
    return get_text(&message, text, 4096);
}

enum {
    A = 1,
    NS = 2,
    CNAME = 5,
    SOA = 6,
    PTR = 12,
    TXT = 16,
    AAAA = 28,
    SRV = 33,
    DS = 43,
    ANY = 255,
};

#define HOST "127.0.0.1"
#define WEB "10.88.0.5"     /* on default and back */
#define DB "10.88.0.6"      /* on default */
#define HIDDEN "10.89.16.6" /* on back */

struct row {
    int64_t network;
    const char *source;
    const char *name;
    unsigned type;
    const char *answer;
};

static void check(struct zone *zone, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char text[4096];
        const char *answer =
            ask(zone, rows[i].network, rows[i].source, rows[i].name, rows[i].type, 0, text);

        if (strcmp(answer, rows[i].answer) != 0)
            fail_msg("%s asks for %s type %u: got \"%s\", not \"%s\"", rows[i].source, rows[i].name,
                     rows[i].type, answer, rows[i].answer);
    }
}

#define CHECK(zone, rows) check(zone, rows, sizeof(rows) / sizeof((rows)[0]))

static void guests_are_found_by_all_their_names(void **state)
{
    static const struct row rows[] = {
        {1, DB, "db", A, "NOERROR aa: db 60 A 10.88.0.6"},
        {1, DB, "DB", A, "NOERROR aa: DB 60 A 10.88.0.6"},
        {1, DB, "db.moat.internal", A, "NOERROR aa: db.moat.internal 60 A 10.88.0.6"},
        {1, DB, "dB.MOAT.Internal", A, "NOERROR aa: dB.MOAT.Internal 60 A 10.88.0.6"},
        {1, DB, "db.default.moat.internal", A,
         "NOERROR aa: db.default.moat.internal 60 A 10.88.0.6"},
        {1, DB, "www", A, "NOERROR aa: www 60 A 10.88.0.5"},
        {1, DB, "www.default.moat.internal", AAAA,
         "NOERROR aa: www.default.moat.internal 60 AAAA fd00:88::5"},
        {1, DB, "a.b", A, "NOERROR aa: a.b 60 A 10.88.0.6"},
        {1, DB, "a.b.moat.internal", A, "NOERROR aa: a.b.moat.internal 60 A 10.88.0.6"},
        {1, DB, "a.b.default.moat.internal", A,
         "NOERROR aa: a.b.default.moat.internal 60 A 10.88.0.6"},
        {1, DB, "db", ANY, "NOERROR aa: db 60 A 10.88.0.6"},
    };
    struct zone *zone = zone_make();

    (void)state;
    CHECK(zone, rows);
    zone_free(zone);
}

static void each_sees_the_networks_that_it_is_on(void **state)
{
    static const struct row rows[] = {
        {1, DB, "web", A, "NOERROR aa: web 60 A 10.88.0.5"},
        {1, WEB, "web.back.moat.internal", A, "NOERROR aa: web.back.moat.internal 60 A 10.89.16.5"},
        {1, WEB, "hidden", A, "NOERROR aa: hidden 60 A 10.89.16.6"},
        {1, DB, "hidden", A, "NXDOMAIN aa: auth . 5 SOA"},
        {1, DB, "hidden.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "hidden.back.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "backalias", A, "NXDOMAIN aa: auth . 5 SOA"},
        {2, HIDDEN, "web", A, "NOERROR aa: web 60 A 10.89.16.5"},
        {2, HIDDEN, "www", A, "NXDOMAIN aa: auth . 5 SOA"},
        {1, HOST, "hidden", A, "NOERROR aa: hidden 60 A 10.89.16.6"},
        {1, "10.88.0.1", "hidden", A, "NOERROR aa: hidden 60 A 10.89.16.6"},
        {1, "fd00:88::1", "hidden", A, "NOERROR aa: hidden 60 A 10.89.16.6"},
        {2, "10.88.0.1", "db", A, "NOERROR aa: db 60 A 10.88.0.6"},
        {1, "fd00:88::5", "hidden", A, "NOERROR aa: hidden 60 A 10.89.16.6"},
        {2, DB, "db", A, "none"},           /* another network's guest */
        {1, "10.88.0.99", "db", A, "none"}, /* nobody's */
        {1, "8.8.8.8", "db", A, "none"},
    };
    struct zone *zone = zone_make();

    (void)state;
    CHECK(zone, rows);
    zone_free(zone);
}

static void what_is_not_there(void **state)
{
    static const struct row rows[] = {
        {1, DB, "db", AAAA, "NOERROR aa: auth . 5 SOA"},
        {1, DB, "db.moat.internal", 16, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "db.moat.internal", 65, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "nope", A, "NXDOMAIN aa: auth . 5 SOA"},
        {1, DB, "x.db.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "b", A, "NOERROR aa: auth . 5 SOA"}, /* a.b is below it */
        {1, DB, "b.moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "er.moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {2, HIDDEN, "b.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "default.moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "default", A, "NOERROR aa: auth . 5 SOA"},
        {1, DB, "back.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "internal", A, "NXDOMAIN aa: auth . 5 SOA"},
        {1, DB, "example.org", A, "elsewhere"},
        {1, DB, "other.internal", A, "elsewhere"},
        {1, DB, "b.org", A, "elsewhere"},
        {1, DB, ".", NS, "elsewhere"},
        {1, DB, "org", DS, "elsewhere"},
        {1, DB, "db", DS, "NOERROR aa: auth . 5 SOA"},
    };
    struct zone *zone = zone_make();

    (void)state;
    CHECK(zone, rows);
    zone_free(zone);
}

static void names_of_the_domain_itself(void **state)
{
    static const struct row rows[] = {
        {1, DB, "moat.internal", SOA, "NOERROR aa: moat.internal 60 SOA"},
        {1, DB, "moat.internal", NS, "NOERROR aa: moat.internal 60 NS host.moat.internal"},
        {1, DB, "moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "host", A, "NOERROR aa: host 60 A 10.88.0.1"},
        {1, DB, "host.moat.internal", AAAA, "NOERROR aa: host.moat.internal 60 AAAA fd00:88::1"},
        {2, HIDDEN, "host.moat.internal", A, "NOERROR aa: host.moat.internal 60 A 10.89.16.1"},
        {2, HIDDEN, "host.moat.internal", AAAA, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, WEB, "host.back.moat.internal", A,
         "NOERROR aa: host.back.moat.internal 60 A 10.89.16.1"},
        {1, DB, "host.back.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "localhost", A, "NOERROR aa: localhost 60 A 127.0.0.1"},
        {1, DB, "foo.localhost", AAAA, "NOERROR aa: foo.localhost 60 AAAA ::1"},
        {1, DB, "localhost", PTR, "NOERROR aa: auth . 5 SOA"},
    };
    struct zone *zone = zone_make();

    (void)state;
    CHECK(zone, rows);
    zone_free(zone);
}

static void static_names(void **state)
{
    static const struct row rows[] = {
        {1, DB, "printer", A, "NOERROR aa: printer 60 A 10.1.1.1"},
        {2, HIDDEN, "printer.moat.internal", A, "NOERROR aa: printer.moat.internal 60 A 10.1.1.1"},
        {2, HIDDEN, "printer.back.moat.internal", A,
         "NOERROR aa: printer.back.moat.internal 60 A 10.1.1.1"},
        {1, DB, "db.corp.example", A, "NOERROR aa: db.corp.example 60 A 10.1.1.2"},
        {1, DB, "db.corp.example", AAAA, "NOERROR aa: auth db.corp.example 5 SOA"},
        {1, DB, "corp.example", A, "elsewhere"},
        {1, DB, "backonly.corp.example", A, "elsewhere"},
        {2, HIDDEN, "backonly.corp.example", A, "NOERROR aa: backonly.corp.example 60 A 10.1.1.3"},
        {1, HOST, "backonly.corp.example", A, "NOERROR aa: backonly.corp.example 60 A 10.1.1.3"},
        {1, DB, "deep.er.moat.internal", A, "NOERROR aa: deep.er.moat.internal 60 A 10.1.1.4"},
        {1, DB, "2.1.1.10.in-addr.arpa", PTR,
         "NOERROR aa: 2.1.1.10.in-addr.arpa 60 PTR db.corp.example"},
        {1, DB, "4.1.1.10.in-addr.arpa", PTR,
         "NOERROR aa: 4.1.1.10.in-addr.arpa 60 PTR deep.er.moat.internal"},
        {1, DB, "3.1.1.10.in-addr.arpa", PTR, "elsewhere"},
        {2, HIDDEN, "3.1.1.10.in-addr.arpa", PTR,
         "NOERROR aa: 3.1.1.10.in-addr.arpa 60 PTR backonly.corp.example"},
    };
    struct zone *zone = zone_make();

    (void)state;
    CHECK(zone, rows);
    zone_record_remove(zone, 2);
    assert_string_equal(ask(zone, 1, DB, "db.corp.example", A, 0, (char[4096]){0}), "elsewhere");
    assert_string_equal(ask(zone, 1, DB, "2.1.1.10.in-addr.arpa", PTR, 0, (char[4096]){0}),
                        "elsewhere");
    zone_free(zone);
}

static void records_of_other_types(void **state)
{
    static const struct row rows[] = {
        {1, DB, "note", TXT, "NOERROR aa: note 60 TXT \"one two\""},
        {1, DB, "note.default.moat.internal", TXT,
         "NOERROR aa: note.default.moat.internal 60 TXT \"one two\""},
        {1, DB, "note", A, "NOERROR aa: auth . 5 SOA"},
        {1, DB, "note", ANY, "NOERROR aa: note 60 TXT \"one two\""},
        {1, DB, "_sip._tcp.web.moat.internal", SRV,
         "NOERROR aa: _sip._tcp.web.moat.internal 60 SRV 10 5 5060 web.moat.internal"},
        {1, DB, "_tcp.web.moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "_no._tcp", SRV, "NOERROR aa: _no._tcp 60 SRV 0 0 0 ."},
        {1, DB, "_out._tcp", SRV, "NOERROR aa: _out._tcp 60 SRV 1 2 3 sip.example.org"},
    };
    struct zone *zone = zone_make();
    char value[RECORD_VALUE_MAX + 1];
    char text[4096];
    char wanted[2048];

    (void)state;
    add_typed(zone, 20, 0, "note", RECORD_TXT, "one two");
    add_typed(zone, 21, 1, "_sip._tcp.web", RECORD_SRV, "10 5 5060 web");
    add_typed(zone, 22, 1, "_no._tcp", RECORD_SRV, "0 0 0 .");
    add_typed(zone, 23, 1, "_out._tcp", RECORD_SRV, "1 2 3 sip.example.org.");
    CHECK(zone, rows);
    /* Texts above 255 bytes are several strings. */
    memset(value, 'x', 300);
    value[300] = '\0';
    add_typed(zone, 24, 0, "long", RECORD_TXT, value);
    snprintf(wanted, sizeof(wanted), "NOERROR aa: long 60 TXT \"%.255s\" \"%s\"", value,
             value + 255);
    ask(zone, 1, DB, "long", TXT, 1232, text);
    assert_memory_equal(text, wanted, strlen(wanted));
    zone_free(zone);
}

static void bad_records_are_refused(void **state)
{
    static const struct {
        const char *name;
        uint16_t type;
        uint16_t length;
        const char *rdata;
    } rows[] = {
        {"x", A, 3, "abc"},         {"x", AAAA, 4, "abcd"},    {"x", CNAME, 0, ""},
        {"x", CNAME, 3, "\1a\300"}, {"x", CNAME, 4, "\1a\0x"}, {"x", SRV, 6, "abcdef"},
        {"x", TXT, 0, ""},          {"x", NS, 1, ""},          {"moat.internal", TXT, 2, "\1a"},
        {"", TXT, 2, "\1a"},        {"a..b", TXT, 2, "\1a"},
    };
    struct zone *zone = zone_make();
    size_t before = zone_node_count(zone);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct zone_record_config config = {.id = 77,
                                            .name = rows[i].name,
                                            .type = rows[i].type,
                                            .length = rows[i].length,
                                            .rdata = (const uint8_t *)rows[i].rdata};

        assert_int_equal(zone_record_set(zone, &config), -EINVAL);
    }
    assert_int_equal(try_record(zone, 77, 99, "x", RECORD_A, "10.1.1.1"), -ENOENT);
    assert_int_equal(zone_node_count(zone), before);
    zone_free(zone);
}

/* RFC 1034 section 4.3.2, RFC 6604. */
static void aliases_are_followed(void **state)
{
    static const struct row rows[] = {
        {1, DB, "here", A,
         "NOERROR aa: here 60 CNAME db.moat.internal db.moat.internal 60 A "
         "10.88.0.6"},
        {1, DB, "HERE.moat.internal", A,
         "NOERROR aa: HERE.moat.internal 60 CNAME db.moat.internal db.moat.internal 60 A "
         "10.88.0.6"},
        {1, DB, "here", CNAME, "NOERROR aa: here 60 CNAME db.moat.internal"},
        {1, DB, "here", ANY, "NOERROR aa: here 60 CNAME db.moat.internal"},
        {1, DB, "here", AAAA,
         "NOERROR aa: here 60 CNAME db.moat.internal auth moat.internal 5 SOA"},
        {1, DB, "twice", A,
         "NOERROR aa: twice 60 CNAME here.moat.internal here.moat.internal 60 CNAME "
         "db.moat.internal db.moat.internal 60 A 10.88.0.6"},
        {1, DB, "nowhere", A,
         "NXDOMAIN aa: nowhere 60 CNAME nobody.moat.internal auth moat.internal 5 SOA"},
        {2, HIDDEN, "here", A, /* db is on another network */
         "NXDOMAIN aa: here 60 CNAME db.moat.internal auth moat.internal 5 SOA"},
        {1, DB, "gate", A,
         "NOERROR aa: gate 60 CNAME host.moat.internal host.moat.internal 60 A 10.88.0.1"},
        {1, DB, "out", A, "alias of www.example.org"},
        {1, DB, "far", A, "alias of www.example.org"},
        {1, DB, "out", CNAME, "NOERROR aa: out 60 CNAME www.example.org"},
        {1, DB, "static", A,
         "NOERROR aa: static 60 CNAME db.corp.example db.corp.example 60 A 10.1.1.2"},
        {1, DB, "loop", A, "SERVFAIL aa:"},
        {1, DB, "onback", A, "NXDOMAIN aa: auth . 5 SOA"},
        {2, HIDDEN, "onback", A,
         "NOERROR aa: onback 60 CNAME hidden.moat.internal hidden.moat.internal 60 A 10.89.16.6"},
        /* A guest of that name is more than the alias. */
        {1, DB, "www", A, "NOERROR aa: www 60 A 10.88.0.5"},
        {2, HIDDEN, "www", A, "alias of www.example.org"},
        {1, DB, "db", AAAA, "NOERROR aa: auth . 5 SOA"},
    };
    struct zone *zone = zone_make();

    (void)state;
    add_typed(zone, 30, 0, "here", RECORD_CNAME, "db");
    add_typed(zone, 31, 0, "twice", RECORD_CNAME, "here");
    add_typed(zone, 32, 0, "nowhere", RECORD_CNAME, "nobody");
    add_typed(zone, 33, 0, "out", RECORD_CNAME, "www.example.org.");
    add_typed(zone, 34, 0, "far", RECORD_CNAME, "out");
    add_typed(zone, 35, 0, "static", RECORD_CNAME, "db.corp.example.");
    add_typed(zone, 36, 0, "loop", RECORD_CNAME, "pool");
    add_typed(zone, 37, 0, "pool", RECORD_CNAME, "loop");
    add_typed(zone, 38, 2, "onback", RECORD_CNAME, "hidden");
    add_typed(zone, 39, 0, "www", RECORD_CNAME, "www.example.org.");
    add_typed(zone, 40, 1, "db", RECORD_CNAME, "www.example.org.");
    add_typed(zone, 41, 0, "gate", RECORD_CNAME, "host");
    CHECK(zone, rows);
    for (int64_t id = 30; id <= 41; id++)
        zone_record_remove(zone, id);
    assert_string_equal(ask(zone, 1, DB, "here", A, 0, (char[4096]){0}),
                        "NXDOMAIN aa: auth . 5 SOA");
    assert_false(zone_has_aliases(zone));
    zone_free(zone);
}

/* The zone and the questions of RFC 4592 section 2.2.1, and what is ours besides. */
static void wildcards_stand_for_what_is_not_there(void **state)
{
    static const struct row rows[] = {
        {1, DB, "host3.example", TXT, "NOERROR aa: host3.example 60 TXT \"wild\""},
        {1, DB, "host3.example.moat.internal", TXT,
         "NOERROR aa: host3.example.moat.internal 60 TXT \"wild\""},
        {1, DB, "host3.example.moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "foo.bar.example.moat.internal", TXT,
         "NOERROR aa: foo.bar.example.moat.internal 60 TXT \"wild\""},
        /* these exist, with data or without */
        {1, DB, "host1.example.moat.internal", TXT, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "sub.*.example.moat.internal", TXT, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "_tcp.host1.example.moat.internal", TXT, "NOERROR aa: auth moat.internal 5 SOA"},
        /* below what exists, but not below the wildcard */
        {1, DB, "_telnet._tcp.host1.example.moat.internal", SRV,
         "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "ghost.*.example.moat.internal", TXT, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        /* the wildcard by its own name */
        {1, DB, "*.example.moat.internal", TXT,
         "NOERROR aa: *.example.moat.internal 60 TXT \"wild\""},
        /* on one network */
        {2, HIDDEN, "x.apps.moat.internal", A, "NOERROR aa: x.apps.moat.internal 60 A 10.1.2.3"},
        {2, HIDDEN, "x.y.apps.back.moat.internal", A,
         "NOERROR aa: x.y.apps.back.moat.internal 60 A 10.1.2.3"},
        {1, DB, "x.apps.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "x.apps", A, "elsewhere"},
        {1, DB, "a.b.moat.internal", A, "NOERROR aa: a.b.moat.internal 60 A 10.88.0.6"},
        /* names elsewhere */
        {1, DB, "any.corp.example", A, "NOERROR aa: any.corp.example 60 A 10.1.2.4"},
        {1, DB, "db.corp.example", A, "NOERROR aa: db.corp.example 60 A 10.1.1.2"},
        {1, DB, "x.db.corp.example", A, "elsewhere"},
        {1, DB, "corp.example", A, "elsewhere"},
        {1, DB, "x.alias.moat.internal", A,
         "NOERROR aa: x.alias.moat.internal 60 CNAME db.moat.internal db.moat.internal 60 A "
         "10.88.0.6"},
        {1, DB, "4.2.1.10.in-addr.arpa", PTR, "elsewhere"}, /* no PTR to a wildcard */
    };
    struct zone *zone = zone_make();

    (void)state;
    add_typed(zone, 50, 1, "*.example", RECORD_TXT, "wild");
    add_typed(zone, 51, 1, "sub.*.example", RECORD_A, "10.1.2.5");
    add_typed(zone, 52, 1, "host1.example", RECORD_A, "10.1.2.6");
    add_typed(zone, 53, 1, "_ssh._tcp.host1.example", RECORD_SRV, "0 0 22 host1");
    add_typed(zone, 54, 2, "*.apps", RECORD_A, "10.1.2.3");
    add_typed(zone, 55, 0, "*.corp.example", RECORD_A, "10.1.2.4");
    add_typed(zone, 56, 0, "*.alias", RECORD_CNAME, "db");
    CHECK(zone, rows);
    for (int64_t id = 50; id <= 56; id++)
        zone_record_remove(zone, id);
    assert_false(zone_has_wildcards(zone));
    zone_free(zone);
}

static void a_wildcard_of_the_domain(void **state)
{
    static const struct row rows[] = {
        {1, DB, "any.moat.internal", A, "NOERROR aa: any.moat.internal 60 A 10.1.2.3"},
        {1, DB, "a.ny.moat.internal", A, "NOERROR aa: a.ny.moat.internal 60 A 10.1.2.3"},
        {1, DB, "any.default.moat.internal", A,
         "NOERROR aa: any.default.moat.internal 60 A 10.1.2.3"},
        {1, DB, "db.moat.internal", A, "NOERROR aa: db.moat.internal 60 A 10.88.0.6"},
        {1, DB, "db.moat.internal", AAAA, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "x.db.moat.internal", A, "NXDOMAIN aa: auth moat.internal 5 SOA"},
        {1, DB, "default.moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "moat.internal", A, "NOERROR aa: auth moat.internal 5 SOA"},
        {1, DB, "www.example.org", A, "elsewhere"},
        {1, DB, "org", DS, "elsewhere"},
        {2, HIDDEN, "only.moat.internal", A, "NOERROR aa: only.moat.internal 60 A 10.1.2.3"},
    };
    struct zone *zone = zone_make();

    (void)state;
    add_record(zone, 50, 0, "*", "10.1.2.3");
    CHECK(zone, rows);
    zone_free(zone);
}

/* RFC 2181 section 5. */
static void no_record_is_answered_twice(void **state)
{
    struct zone *zone = zone_make();
    char text[4096];

    (void)state;
    add_record(zone, 50, 0, "db", "10.88.0.6");
    add_record(zone, 51, 1, "db", "10.88.0.6");
    add_record(zone, 52, 0, "both", "10.1.2.3");
    add_record(zone, 53, 1, "both", "10.1.2.3");
    for (int i = 0; i < 3; i++) {
        assert_string_equal(ask(zone, 1, DB, "db", A, 0, text), "NOERROR aa: db 60 A 10.88.0.6");
        assert_string_equal(ask(zone, 1, HOST, "both", A, 0, text),
                            "NOERROR aa: both 60 A 10.1.2.3");
        assert_string_equal(ask(zone, 1, DB, "both", A, 0, text), "NOERROR aa: both 60 A 10.1.2.3");
    }
    zone_free(zone);
}

static void addresses_have_names(void **state)
{
    static const struct row rows[] = {
        {1, DB, "5.0.88.10.in-addr.arpa", PTR,
         "NOERROR aa: 5.0.88.10.in-addr.arpa 60 PTR web.moat.internal"},
        {1, DB, "5.0.88.10.in-addr.arpa", A, "NOERROR aa: auth 88.10.in-addr.arpa 5 SOA"},
        {1, DB, "1.0.88.10.in-addr.arpa", PTR,
         "NOERROR aa: 1.0.88.10.in-addr.arpa 60 PTR host.moat.internal"},
        {1, DB, "77.0.88.10.in-addr.arpa", PTR, "NXDOMAIN aa: auth 88.10.in-addr.arpa 5 SOA"},
        {1, DB, "0.88.10.in-addr.arpa", PTR, "NOERROR aa: auth 88.10.in-addr.arpa 5 SOA"},
        {1, DB, "10.in-addr.arpa", PTR, "elsewhere"},
        {1, DB, "x.0.88.10.in-addr.arpa", PTR, "NXDOMAIN aa: auth 88.10.in-addr.arpa 5 SOA"},
        {1, DB, "6.16.89.10.in-addr.arpa", PTR, "NXDOMAIN aa: auth 16.89.10.in-addr.arpa 5 SOA"},
        {1, DB, "1.16.89.10.in-addr.arpa", PTR, "NXDOMAIN aa: auth 16.89.10.in-addr.arpa 5 SOA"},
        {1, DB, "1.17.89.10.in-addr.arpa", PTR, "NXDOMAIN aa: auth 17.89.10.in-addr.arpa 5 SOA"},
        {1, DB, "1.32.89.10.in-addr.arpa", PTR, "elsewhere"}, /* behind the /20 */
        {1, DB, "8.8.8.8.in-addr.arpa", PTR, "elsewhere"},
        {1, DB, "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.8.0.0.0.0.d.f.ip6.arpa", PTR,
         "NOERROR aa: 5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.8.0.0.0.0.d.f.ip6.arpa 60 "
         "PTR "
         "web.moat.internal"},
        {1, DB, "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.8.0.0.0.0.d.f.ip6.arpa", PTR,
         "NXDOMAIN aa: auth 0.0.0.0.0.0.0.0.8.8.0.0.0.0.d.f.ip6.arpa 5 SOA"},
    };
    struct zone *zone = zone_make();

    (void)state;
    CHECK(zone, rows);
    zone_free(zone);
}

static void shared_names_rotate(void **state)
{
    static const char *const wanted[] = {
        "NOERROR aa: shared 60 A 10.88.0.5 shared 60 A 10.88.0.6",
        "NOERROR aa: shared 60 A 10.88.0.6 shared 60 A 10.88.0.5",
        "NOERROR aa: shared 60 A 10.88.0.5 shared 60 A 10.88.0.6",
    };
    struct zone *zone = zone_make();
    char text[4096];

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_string_equal(ask(zone, 1, DB, "shared", A, 0, text), wanted[i]);
    /* web is on both networks: who is on both sees both addresses. */
    ask(zone, 1, WEB, "web", A, 0, text);
    assert_non_null(strstr(text, "10.88.0.5"));
    assert_non_null(strstr(text, "10.89.16.5"));
    ask(zone, 1, HOST, "web", A, 0, text);
    assert_non_null(strstr(text, "10.88.0.5"));
    assert_non_null(strstr(text, "10.89.16.5"));
    zone_free(zone);
}

static void many_addresses_are_truncated(void **state)
{
    struct zone *zone = zone_make();
    char text[4096];

    (void)state;
    for (int i = 0; i < 100; i++) {
        char ip[32];
        char name[32];

        snprintf(ip, sizeof(ip), "10.88.1.%d", i + 1);
        snprintf(name, sizeof(name), "w%d pool", i);
        add_endpoint(zone, 1000 + i, 1000 + i, 1, ip, "", name);
    }
    assert_string_equal(ask(zone, 1, DB, "pool", A, 0, text), "NOERROR aa tc:");
    assert_string_equal(ask(zone, 1, DB, "pool", A, 1232, text), "NOERROR aa tc: OPT 1232 0");
    for (int i = 0; i < 60; i++)
        zone_endpoint_remove(zone, 1000 + i);
    assert_string_equal(ask(zone, 1, DB, "pool", A, 0, text), "NOERROR aa tc:");
    ask(zone, 1, DB, "pool", A, 1232, text);
    for (int i = 61; i <= 100; i++) {
        char ip[32];

        snprintf(ip, sizeof(ip), "10.88.1.%d", i);
        assert_non_null(strstr(text, ip));
    }
    zone_free(zone);
}

static void endpoints_change(void **state)
{
    struct zone *zone = zone_make();
    size_t names = zone_node_count(zone);
    char text[4096];

    (void)state;
    add_endpoint(zone, 2, 2, 1, "10.88.0.60", "", "db2 shared"); /* the same endpoint */
    assert_string_equal(ask(zone, 1, "10.88.0.60", "db", A, 0, text), "NXDOMAIN aa: auth . 5 SOA");
    assert_string_equal(ask(zone, 1, "10.88.0.60", "db2", A, 0, text),
                        "NOERROR aa: db2 60 A 10.88.0.60");
    assert_string_equal(ask(zone, 1, DB, "db2", A, 0, text), "none");
    zone_endpoint_remove(zone, 2);
    assert_string_equal(ask(zone, 1, "10.88.0.60", "db2", A, 0, text), "none");
    assert_string_equal(ask(zone, 1, WEB, "shared", A, 0, text),
                        "NOERROR aa: shared 60 A 10.88.0.5");
    add_endpoint(zone, 2, 2, 1, "10.88.0.6", "", "db shared a.b");
    assert_int_equal(zone_node_count(zone), names);
    zone_endpoint_remove(zone, 2);
    zone_endpoint_remove(zone, 2);                      /* twice is fine */
    assert_int_equal(zone_node_count(zone), names - 3); /* db, a.b, b */
    zone_free(zone);
}

static void bad_endpoints_leave_nothing(void **state)
{
    static const struct {
        int64_t network;
        const char *names;
        int code;
    } rows[] = {
        {99, "x", -ENOENT},
        {1, "x y..z", -EINVAL},
        {1, "x .", -EINVAL},
        {1, "", -EINVAL},
    };
    struct zone *zone = zone_make();
    size_t names = zone_node_count(zone);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(
            try_endpoint(zone, 50, 50, rows[i].network, "10.88.0.50", "", rows[i].names),
            rows[i].code);
        assert_int_equal(zone_node_count(zone), names);
        assert_string_equal(ask(zone, 1, "10.88.0.50", "db", A, 0, (char[4096]){0}), "none");
    }
    zone_free(zone);
}

static void an_alias_that_is_the_domain_is_left_out(void **state)
{
    struct zone *zone = zone_make();
    char text[4096];

    (void)state;
    add_endpoint(zone, 50, 50, 1, "10.88.0.50", "", "fifty moat.internal 50th");
    assert_string_equal(ask(zone, 1, "10.88.0.50", "50th", A, 0, text),
                        "NOERROR aa: 50th 60 A 10.88.0.50");
    assert_string_equal(ask(zone, 1, "10.88.0.50", "moat.internal", A, 0, text),
                        "NOERROR aa: auth moat.internal 5 SOA");
    zone_free(zone);
}

static void networks_go_with_what_is_on_them(void **state)
{
    struct zone *zone = zone_make();
    char text[4096];

    (void)state;
    zone_network_remove(zone, 2);
    assert_string_equal(ask(zone, 1, WEB, "hidden", A, 0, text), "NXDOMAIN aa: auth . 5 SOA");
    assert_string_equal(ask(zone, 1, WEB, "web", A, 0, text), "NOERROR aa: web 60 A 10.88.0.5");
    assert_string_equal(ask(zone, 1, HOST, "backonly.corp.example", A, 0, text), "elsewhere");
    assert_string_equal(ask(zone, 1, WEB, "1.16.89.10.in-addr.arpa", PTR, 0, text), "elsewhere");
    /* The index is used again; nothing of the old network comes back. */
    add_network(zone, 3, "third", "10.90.0.1", "10.90.0.0/24", "", "");
    add_endpoint(zone, 9, 9, 3, "10.90.0.2", "", "nine");
    assert_string_equal(ask(zone, 3, "10.90.0.2", "hidden", A, 0, text),
                        "NXDOMAIN aa: auth . 5 SOA");
    assert_string_equal(ask(zone, 3, "10.90.0.2", "nine.third.moat.internal", A, 0, text),
                        "NOERROR aa: nine.third.moat.internal 60 A 10.90.0.2");
    zone_network_remove(zone, 1);
    zone_network_remove(zone, 3);
    assert_int_equal(zone_node_count(zone), 4); /* printer; db.corp.example and its ancestors */
    zone_free(zone);
}

static int gone_count;

static void count_gone(void *userdata, struct zone_guest *guest)
{
    (void)userdata;
    (void)guest;
    gone_count++;
}

static void guests_go_with_their_last_endpoint(void **state)
{
    struct zone *zone;

    (void)state;
    gone_count = 0;
    assert_int_equal(zone_new("moat.internal", TTL, count_gone, NULL, &zone), 0);
    add_network(zone, 1, "a", "10.1.0.1", "10.1.0.0/24", "", "");
    add_network(zone, 2, "b", "10.2.0.1", "10.2.0.0/24", "", "");
    add_endpoint(zone, 1, 1, 1, "10.1.0.2", "", "g");
    add_endpoint(zone, 2, 1, 2, "10.2.0.2", "", "g");
    add_endpoint(zone, 1, 1, 1, "10.1.0.3", "", "g"); /* replaced: the guest stays */
    zone_endpoint_remove(zone, 1);
    assert_int_equal(gone_count, 0);
    add_endpoint(zone, 2, 1, 2, "10.2.0.3", "", "g");
    assert_int_equal(gone_count, 0);
    zone_endpoint_remove(zone, 2);
    assert_int_equal(gone_count, 1);
    zone_free(zone);
}

/* Ten thousand names come and go in any order. */
static void many_names(void **state)
{
    struct zone *zone = zone_make();
    size_t names = zone_node_count(zone);
    char name[64];
    char ip[32];
    char text[4096];

    (void)state;
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof(name), "guest-%d alias-%d group-%d", i, i, i % 7);
        snprintf(ip, sizeof(ip), "10.88.%d.%d", 1 + i / 250, 1 + i % 250);
        add_endpoint(zone, 100 + i, 100 + i, 1, ip, "", name);
    }
    assert_int_equal(zone_node_count(zone), names + 20007);
    for (int i = 0; i < 10000; i += 3)
        zone_endpoint_remove(zone, 100 + i);
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof(name), "alias-%d", i);
        ask(zone, 1, DB, name, A, 0, text);
        assert_true((strncmp(text, "NXDOMAIN", 8) == 0) == (i % 3 == 0));
    }
    for (int i = 0; i < 10000; i++)
        zone_endpoint_remove(zone, 100 + i);
    assert_int_equal(zone_node_count(zone), names);
    zone_free(zone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guests_are_found_by_all_their_names),
        cmocka_unit_test(each_sees_the_networks_that_it_is_on),
        cmocka_unit_test(what_is_not_there),
        cmocka_unit_test(names_of_the_domain_itself),
        cmocka_unit_test(static_names),
        cmocka_unit_test(records_of_other_types),
        cmocka_unit_test(bad_records_are_refused),
        cmocka_unit_test(aliases_are_followed),
        cmocka_unit_test(wildcards_stand_for_what_is_not_there),
        cmocka_unit_test(a_wildcard_of_the_domain),
        cmocka_unit_test(no_record_is_answered_twice),
        cmocka_unit_test(addresses_have_names),
        cmocka_unit_test(shared_names_rotate),
        cmocka_unit_test(many_addresses_are_truncated),
        cmocka_unit_test(endpoints_change),
        cmocka_unit_test(bad_endpoints_leave_nothing),
        cmocka_unit_test(an_alias_that_is_the_domain_is_left_out),
        cmocka_unit_test(networks_go_with_what_is_on_them),
        cmocka_unit_test(guests_go_with_their_last_endpoint),
        cmocka_unit_test(many_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
