/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <netinet/in.h>

#include "store_fixture.h"

static const struct port_span web = {IPPROTO_TCP, 80, 90};
static const struct port_span dns = {IPPROTO_UDP, 53, 53};
static const struct port_span everything = {0};

static void set(struct fixture *f, const struct network *from, const struct network *to,
                const struct port_span *first, const struct port_span *second)
{
    struct port_spans spans = {0};

    if (first)
        assert_int_equal(spans_add(&spans, first), 0);
    if (second)
        assert_int_equal(spans_add(&spans, second), 0);
    begin(f);
    ok(f, store_passage_set(f->store, from->id, to->id, &spans, &f->error));
    commit(f);
    spans_deinit(&spans);
}

static uint64_t count(struct fixture *f)
{
    uint64_t result = 99;

    ok(f, store_passage_count(f->store, &result, &f->error));
    return result;
}

static void passages_come_back_as_they_were(void **state)
{
    struct fixture *f = *state;
    struct network a = network_stored(f, "a", "10.1.0.0/24", "");
    struct network b = network_stored(f, "b", "10.2.0.0/24", "");
    struct port_spans found = {0};

    set(f, &a, &b, &web, &dns);
    fixture_reopen(f);
    ok(f, store_passage_get(f->store, a.id, b.id, &found, &f->error));
    assert_int_equal(found.count, 2);
    assert_true(spans_have(&found, &web));
    assert_true(spans_have(&found, &dns));
    spans_deinit(&found);
    ok(f, store_passage_get(f->store, b.id, a.id, &found, &f->error));
    assert_int_equal(found.count, 0);
    assert_int_equal(count(f), 2);
    set(f, &a, &b, &everything, NULL);
    ok(f, store_passage_get(f->store, a.id, b.id, &found, &f->error));
    assert_int_equal(found.count, 1);
    assert_true(span_is_everything(&found.items[0]));
    spans_deinit(&found);
    set(f, &a, &b, NULL, NULL);
    assert_int_equal(count(f), 0);
}

static void passages_are_listed_with_their_names(void **state)
{
    struct fixture *f = *state;
    struct network a = network_stored(f, "a", "10.1.0.0/24", "");
    struct network b = network_stored(f, "b", "10.2.0.0/24", "");
    struct network c = network_stored(f, "c", "10.3.0.0/24", "");
    struct passage *passages = NULL;
    size_t n = 0;

    set(f, &b, &c, &web, NULL);
    set(f, &c, &a, &everything, NULL);
    set(f, &a, &b, &web, &dns);
    ok(f, store_passage_list(f->store, 0, &passages, &n, &f->error));
    assert_int_equal(n, 4);
    assert_string_equal(passages[0].from, "a");
    assert_string_equal(passages[0].to, "b");
    assert_true(span_equal(&passages[0].span, &web));
    assert_true(span_equal(&passages[1].span, &dns));
    assert_string_equal(passages[2].from, "b");
    assert_int_equal(passages[3].from_id, c.id);
    assert_int_equal(passages[3].to_id, a.id);
    free(passages);
    ok(f, store_passage_list(f->store, c.id, &passages, &n, &f->error));
    assert_int_equal(n, 2);
    free(passages);
}

static void passages_go_with_either_network(void **state)
{
    struct fixture *f = *state;
    struct network a = network_stored(f, "a", "10.1.0.0/24", "");
    struct network b = network_stored(f, "b", "10.2.0.0/24", "");
    struct network c = network_stored(f, "c", "10.3.0.0/24", "");

    set(f, &a, &b, &web, &dns);
    set(f, &b, &c, &web, NULL);
    set(f, &c, &a, &web, NULL);
    begin(f);
    ok(f, store_network_delete(f->store, b.id, &f->error));
    commit(f);
    assert_int_equal(count(f), 1);
}

static void a_passage_needs_networks_and_a_transaction(void **state)
{
    struct fixture *f = *state;
    struct network a = network_stored(f, "a", "10.1.0.0/24", "");
    struct port_span item = web;
    struct port_spans spans = {&item, 1};

    assert_true(store_passage_set(f->store, a.id, a.id, &spans, &f->error) < 0);
    assert_int_equal(f->error.kind, ERROR_INTERNAL);
    begin(f);
    refused(f, store_passage_set(f->store, a.id, 99, &spans, &f->error), REASON_NOT_FOUND,
            "no such network");
    store_rollback(f->store);
    assert_int_equal(count(f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(passages_come_back_as_they_were),
        STORE_TEST(passages_are_listed_with_their_names),
        STORE_TEST(passages_go_with_either_network),
        STORE_TEST(a_passage_needs_networks_and_a_transaction),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
