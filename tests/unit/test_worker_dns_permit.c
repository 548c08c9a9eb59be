/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What guests with domain rules may ask, which addresses an answer gives, and that a reply waits
 * until moatd has opened them. */
#include "dns_wire.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "worker/dns_addresses.h"
#include "worker/dns_give.h"
#include "worker/dns_permit.h"
#include "worker/dns_service.h"

#define A 1
#define CNAME 5
#define AAAA 28
#define GUEST 12

/* --- permits --- */

struct rule_row {
    uint8_t bits;
    const char *name;
};

static void permit_say(struct dns_permits *permits, uint8_t flags, const struct rule_row *rules,
                       size_t count, int expected)
{
    _cleanup_free_ struct dns_permit_message *message = calloc(1, sizeof(*message) + 4096);
    char *at = message->rules;

    message->guest_id = GUEST;
    message->version = 3;
    message->grace_ms = 1000;
    message->flags = flags;
    for (size_t i = 0; i < count; i++) {
        *at++ = (char)rules[i].bits;
        at = strcpy(at, rules[i].name) + strlen(rules[i].name) + 1;
    }
    message->n_rules = (uint16_t)count;
    message->rules_length = (uint32_t)(at - message->rules);
    assert_int_equal(dns_permits_set(permits, message, sizeof(*message) + message->rules_length),
                     expected);
}

static unsigned check(const struct dns_permits *permits, const char *text)
{
    struct dns_name name;

    assert_int_equal(dns_name_parse(text, &name), 0);
    return dns_permit_check(dns_permits_find(permits, GUEST), &name);
}

#define WHOLE (DNS_PERMIT_FIRST | DNS_PERMIT_LAST)

static void names_are_found_by_their_labels(void **state)
{
    static const struct rule_row rules[] = {
        {DNS_RULE_SELF | DNS_RULE_ALLOW, "example.org"},
        {DNS_RULE_BELOW | DNS_RULE_ALLOW, "example.net"},
        {DNS_RULE_SELF | DNS_RULE_BELOW | DNS_RULE_ALLOW, "example.com"},
        {DNS_RULE_SELF | DNS_RULE_BELOW | DNS_RULE_DENY, "no.example.com"},
        {DNS_RULE_SELF | DNS_RULE_CLOSE, "half.example"},
    };
    static const struct {
        const char *name;
        unsigned answer;
    } rows[] = {
        {"example.org", DNS_PERMIT_OUTSIDE | DNS_PERMIT_GIVE},
        {"EXAMPLE.org", DNS_PERMIT_OUTSIDE | DNS_PERMIT_GIVE},
        {"a.example.org", 0},
        {"example.net", 0},
        {"a.b.example.net", DNS_PERMIT_OUTSIDE | DNS_PERMIT_GIVE},
        {"aexample.net", 0},
        {"example.com", DNS_PERMIT_OUTSIDE | DNS_PERMIT_GIVE},
        {"no.example.com", DNS_PERMIT_NEVER},
        {"a.no.example.com", DNS_PERMIT_NEVER},
        {"half.example", DNS_PERMIT_GIVE},
        {"org", 0},
        {".", 0},
    };
    struct dns_permits *permits = dns_permits_new();

    (void)state;
    assert_null(dns_permits_find(permits, GUEST));
    permit_say(permits, WHOLE | DNS_PERMIT_LISTED, rules, ARRAY_SIZE(rules), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (check(permits, rows[i].name) != rows[i].answer)
            fail_msg("%s: %u", rows[i].name, check(permits, rows[i].name));
    permit_say(permits, WHOLE, rules + 3, 2, 0); /* deny rules alone: all else is asked */
    assert_int_equal(check(permits, "example.org"), DNS_PERMIT_OUTSIDE);
    assert_int_equal(check(permits, "half.example"), DNS_PERMIT_OUTSIDE | DNS_PERMIT_GIVE);
    assert_int_equal(check(permits, "no.example.com"), DNS_PERMIT_NEVER);
    dns_permits_remove(permits, GUEST);
    assert_null(dns_permits_find(permits, GUEST));
    dns_permits_free(permits);
}

static void parts_hold_with_the_last(void **state)
{
    static const struct rule_row rules[] = {
        {DNS_RULE_SELF | DNS_RULE_ALLOW, "one.example"},
        {DNS_RULE_SELF | DNS_RULE_ALLOW, "two.example"},
        {DNS_RULE_SELF | DNS_RULE_ALLOW, "three.example"},
    };
    struct dns_permits *permits = dns_permits_new();

    (void)state;
    permit_say(permits, WHOLE | DNS_PERMIT_LISTED, &rules[0], 1, 0);
    permit_say(permits, DNS_PERMIT_FIRST | DNS_PERMIT_LISTED, &rules[1], 1, 0);
    assert_true(check(permits, "one.example") & DNS_PERMIT_OUTSIDE);
    assert_false(check(permits, "two.example") & DNS_PERMIT_OUTSIDE);
    permit_say(permits, DNS_PERMIT_LAST | DNS_PERMIT_LISTED, &rules[2], 1, 0);
    assert_false(check(permits, "one.example") & DNS_PERMIT_OUTSIDE);
    assert_true(check(permits, "two.example") & DNS_PERMIT_OUTSIDE);
    assert_true(check(permits, "three.example") & DNS_PERMIT_OUTSIDE);
    dns_permits_free(permits);
}

static void what_is_malformed_closes(void **state)
{
    static const struct rule_row good = {DNS_RULE_SELF | DNS_RULE_ALLOW, "one.example"};
    static const struct rule_row bad = {DNS_RULE_SELF | DNS_RULE_ALLOW, "a..b"};
    struct dns_permits *permits = dns_permits_new();

    (void)state;
    permit_say(permits, WHOLE, &good, 1, 0);
    assert_true(check(permits, "other.example") & DNS_PERMIT_OUTSIDE);
    permit_say(permits, WHOLE, &bad, 1, -71);
    assert_int_equal(check(permits, "one.example"), 0);
    assert_int_equal(check(permits, "other.example"), 0);
    dns_permits_remove(permits, GUEST);
    permit_say(permits, DNS_PERMIT_LAST, &good, 1, -71); /* the end of nothing */
    assert_int_equal(check(permits, "one.example"), 0);
    dns_permits_free(permits);
}

/* --- addresses --- */

static size_t addresses_of(struct message *message, const char *text,
                           struct dns_give_address *ret_addresses)
{
    struct dns_name name;

    assert_int_equal(dns_name_parse(text, &name), 0);
    return dns_addresses_read(message->data, message->length, &name, ret_addresses);
}

static void put_owned(struct message *message, const char *owner, unsigned type, uint32_t ttl_s,
                      const void *rdata, size_t length)
{
    put_name(message, owner);
    put_u16(message, type);
    put_u16(message, 1);
    put_u32(message, ttl_s);
    put_u16(message, (unsigned)length);
    put_bytes(message, rdata, length);
}

static struct message message;
static struct dns_give_address addresses[DNS_GIVE_MAX];

static void addresses_of_the_chain_count(void **state)
{
    static const uint8_t one[4] = {192, 0, 2, 1};
    static const uint8_t two[4] = {192, 0, 2, 2};
    static const uint8_t six[16] = {0x20, 1, 0x0d, 0xb8, [15] = 6};
    static const char cdn[] = "\3CDN\7example"; /* its end is the root */

    (void)state;
    put_header(&message, 1, 0x8180, 1, 5, 0, 0);
    put_question(&message, "WWW.example.org", A);
    put_owned(&message, "cdn.example", A, 100000, one, 4); /* before its alias, in any case */
    put_record(&message, 0xc00c, CNAME, 60, cdn, sizeof(cdn));
    put_owned(&message, "www.example.org", A, 60, two, 4); /* an alias has no other data */
    put_owned(&message, "elsewhere.example", A, 60, two, 4);
    put_owned(&message, "cdn.EXAMPLE", AAAA, 7, six, 16);
    assert_int_equal(addresses_of(&message, "www.example.org", addresses), 2);
    assert_memory_equal(addresses[0].ip.bytes, one, 4);
    assert_int_equal(addresses[0].ttl_s, DNS_GIVE_TTL_MAX_S);
    assert_int_equal(addresses[1].ip.family, AF_INET6);
    assert_int_equal(addresses[1].ttl_s, 7);
    /* The client is told the TTL that holds. */
    assert_int_equal(addresses_of(&message, "www.example.org", addresses), 2);
    assert_int_equal(addresses[0].ttl_s, DNS_GIVE_TTL_MAX_S);
}

static void circles_and_rubbish_end(void **state)
{
    static const uint8_t one[4] = {192, 0, 2, 1};
    const uint8_t pointer[2] = {0xc0, 0x0c};
    uint32_t seed = 1;

    (void)state;
    put_header(&message, 1, 0x8180, 1, 2, 0, 0);
    put_question(&message, "a.example", A);
    put_record(&message, 0xc00c, CNAME, 60, pointer, 2); /* to itself */
    put_record(&message, 0xc00c, A, 60, one, 4);
    assert_int_equal(addresses_of(&message, "a.example", addresses), 1);
    for (int i = 0; i < 20000; i++) {
        struct message broken = message;

        for (int j = 0; j < 4; j++) {
            seed = seed * 1664525 + 1013904223;
            broken.data[12 + (seed >> 8) % (broken.length - 12)] = (uint8_t)(seed >> 24);
        }
        broken.length -= (seed >> 4) % 30;
        (void)addresses_of(&broken, "a.example", addresses);
    }
}

/* --- gives --- */

struct sent {
    uint64_t number;
    int64_t guest_id;
    bool wait;
    char name[DNS_DOMAIN_MAX];
};

struct fixture {
    struct loop *loop;
    struct dns_permits *permits;
    struct dns_gives *gives;
    struct sent sent[256];
    size_t n_sent;
    int send_result;
};

struct test_client {
    struct dns_client client;
    bool released;
    bool dropped;
    enum dns_rcode rcode;
};

static int fake_send(void *userdata, uint16_t type, const void *payload, size_t length)
{
    struct fixture *fixture = userdata;
    const struct dns_give_message *give = payload;

    assert_int_equal(type, DNS_MESSAGE_GIVE);
    assert_int_equal(length, sizeof(*give) + give->count * sizeof(give->addresses[0]));
    if (fixture->send_result < 0)
        return fixture->send_result;
    fixture->sent[fixture->n_sent] =
        (struct sent){.number = give->number, .guest_id = give->guest_id, .wait = give->wait};
    memcpy(fixture->sent[fixture->n_sent++].name, give->name, sizeof(give->name));
    return 0;
}

static void fake_release(struct dns_client *client, uint8_t *data, size_t length,
                         enum dns_rcode rcode)
{
    struct test_client *test = (struct test_client *)client;

    assert_non_null(data);
    assert_true(length > 12);
    assert_null(client->give);
    assert_false(test->released);
    test->released = true;
    test->rcode = rcode;
}

static void fake_drop(struct dns_client *client)
{
    ((struct test_client *)client)->dropped = true;
}

static int setup(void **state)
{
    static const struct rule_row rule = {DNS_RULE_SELF | DNS_RULE_BELOW | DNS_RULE_ALLOW,
                                         "example"};
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error error = ERROR_INIT;

    assert_int_equal(loop_new(&fixture->loop, &error), 0);
    fixture->permits = dns_permits_new();
    permit_say(fixture->permits, WHOLE | DNS_PERMIT_LISTED, &rule, 1, 0);
    fixture->gives = dns_gives_new(&(struct dns_gives_config){
        .loop = fixture->loop,
        .permits = fixture->permits,
        .send = fake_send,
        .release = fake_release,
        .drop = fake_drop,
        .userdata = fixture,
    });
    assert_non_null(fixture->gives);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    dns_gives_free(fixture->gives);
    dns_permits_free(fixture->permits);
    loop_free(fixture->loop);
    free(fixture);
    return 0;
}

static struct dns_permit *permit_of(const struct fixture *fixture)
{
    return dns_permits_find(fixture->permits, GUEST);
}

/* A reply that gives one address. */
static bool needed(struct fixture *fixture, const char *text, uint8_t last, uint32_t ttl_s)
{
    const uint8_t ip[4] = {192, 0, 2, last};
    static struct dns_name name;

    put_header(&message, 1, 0x8180, 1, 1, 0, 0);
    put_question(&message, text, A);
    put_record(&message, 0xc00c, A, ttl_s, ip, 4);
    assert_int_equal(dns_name_parse(text, &name), 0);
    return dns_give_needed(fixture->gives, permit_of(fixture), &name, message.data, message.length);
}

static bool hold(struct fixture *fixture, struct test_client *client)
{
    return dns_give_hold(fixture->gives, permit_of(fixture), &client->client, message.data,
                         message.length);
}

static void answer(struct fixture *fixture, size_t index, uint8_t given)
{
    struct dns_given_message given_message = {.number = fixture->sent[index].number,
                                              .given = given};

    dns_gives_answered(fixture->gives, &given_message, false);
}

static void a_reply_waits_until_its_addresses_are_open(void **state)
{
    struct fixture *fixture = *state;
    struct test_client client = {0};
    struct test_client refused = {0};
    struct test_client failed = {0};

    assert_true(needed(fixture, "a.example", 1, 60));
    assert_true(hold(fixture, &client));
    assert_int_equal(fixture->n_sent, 1);
    assert_string_equal(fixture->sent[0].name, "a.example");
    assert_int_equal(fixture->sent[0].guest_id, GUEST);
    assert_true(fixture->sent[0].wait);
    assert_false(client.released);
    answer(fixture, 0, DNS_GIVEN_OPEN);
    assert_true(client.released);
    assert_int_equal(client.rcode, DNS_RCODE_NOERROR);
    answer(fixture, 0, DNS_GIVEN_OPEN); /* twice does nothing */
    /* It is open now, for this name and as long. */
    assert_false(needed(fixture, "a.example", 1, 60));
    assert_false(needed(fixture, "a.example", 1, 30));
    assert_true(needed(fixture, "a.example", 1, 120));
    assert_true(needed(fixture, "a.example", 2, 60));
    assert_true(needed(fixture, "b.example", 1, 60));
    assert_true(hold(fixture, &refused));
    answer(fixture, 1, DNS_GIVEN_REFUSED);
    assert_int_equal(refused.rcode, DNS_RCODE_REFUSED);
    assert_true(needed(fixture, "b.example", 1, 60));
    assert_true(hold(fixture, &failed));
    answer(fixture, 2, DNS_GIVEN_FAILED);
    assert_int_equal(failed.rcode, DNS_RCODE_SERVFAIL);
    assert_false(dns_gives_is_busy(fixture->gives));
    assert_false(needed(fixture, "a.other", 1, 60)); /* not named by a rule */
}

static void other_rules_are_asked_anew(void **state)
{
    static const struct rule_row rule = {DNS_RULE_SELF | DNS_RULE_ALLOW, "a.example"};
    struct fixture *fixture = *state;
    struct test_client client = {0};
    struct test_client late = {0};

    assert_true(needed(fixture, "a.example", 1, 60));
    assert_true(hold(fixture, &client));
    answer(fixture, 0, DNS_GIVEN_OPEN);
    assert_true(needed(fixture, "a.example", 2, 60));
    assert_true(hold(fixture, &late));
    permit_say(fixture->permits, WHOLE | DNS_PERMIT_LISTED, &rule, 1, 0);
    assert_int_equal(permit_of(fixture)->n_held, 1);
    answer(fixture, 1, DNS_GIVEN_OPEN);
    assert_true(late.released);
    assert_int_equal(permit_of(fixture)->n_held, 0);
    assert_true(needed(fixture, "a.example", 1, 60));
}

static void the_window_and_another_moatd(void **state)
{
    struct fixture *fixture = *state;
    struct test_client clients[100] = {0};

    for (uint8_t i = 0; i < 100; i++) {
        assert_true(needed(fixture, "a.example", i, 60));
        assert_true(hold(fixture, &clients[i]));
    }
    assert_int_equal(fixture->n_sent, 64);
    answer(fixture, 0, DNS_GIVEN_OPEN);
    assert_int_equal(fixture->n_sent, 65);
    /* moatd goes and comes back: what was not answered is asked again. */
    fixture->n_sent = 0;
    fixture->send_result = -107;
    dns_gives_ask_again(fixture->gives);
    assert_int_equal(fixture->n_sent, 0);
    fixture->send_result = 0;
    dns_gives_ask_again(fixture->gives);
    assert_int_equal(fixture->n_sent, 64);
    dns_give_cancel(clients[1].client.give);
    assert_null(clients[1].client.give);
    dns_gives_drop_guest(fixture->gives, GUEST + 1);
    assert_false(clients[2].dropped);
    dns_gives_drop_guest(fixture->gives, GUEST);
    assert_true(clients[2].dropped && clients[99].dropped && !clients[1].dropped);
    assert_false(dns_gives_is_busy(fixture->gives));
    assert_int_equal(permit_of(fixture)->n_held, 0);
}

static void one_guest_can_hold_so_many(void **state)
{
    struct fixture *fixture = *state;
    struct test_client *clients = calloc(1025, sizeof(*clients));

    fixture->send_result = -107;
    for (size_t i = 0; i < 1024; i++) {
        assert_true(needed(fixture, "a.example", (uint8_t)i, 60));
        assert_true(hold(fixture, &clients[i]));
    }
    assert_true(needed(fixture, "a.example", 1, 60));
    assert_false(hold(fixture, &clients[1024]));
    dns_gives_drop_guest(fixture->gives, GUEST);
    free(clients);
}

static void what_is_only_reported_does_not_wait(void **state)
{
    struct fixture *fixture = *state;

    permit_say(fixture->permits, WHOLE | DNS_PERMIT_REPORT, NULL, 0, 0);
    assert_false(needed(fixture, "a.other", 1, 60));
    assert_int_equal(fixture->n_sent, 1);
    assert_false(fixture->sent[0].wait);
    assert_false(needed(fixture, "a.other", 1, 60)); /* said already */
    assert_int_equal(fixture->n_sent, 1);
    fixture->send_result = -105;
    assert_false(needed(fixture, "b.other", 1, 60));
    fixture->send_result = 0;
    assert_false(needed(fixture, "b.other", 1, 60));
    assert_int_equal(fixture->n_sent, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_by_their_labels),
        cmocka_unit_test(parts_hold_with_the_last),
        cmocka_unit_test(what_is_malformed_closes),
        cmocka_unit_test(addresses_of_the_chain_count),
        cmocka_unit_test(circles_and_rubbish_end),
        cmocka_unit_test_setup_teardown(a_reply_waits_until_its_addresses_are_open, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(other_rules_are_asked_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(the_window_and_another_moatd, setup, teardown),
        cmocka_unit_test_setup_teardown(one_guest_can_hold_so_many, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_only_reported_does_not_wait, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
