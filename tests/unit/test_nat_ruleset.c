/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The static ruleset and the elements, without a kernel. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "nat/table.h"

static const struct ruleset_groups groups = {0x6d000000, 0xff000000};

static struct ip ip(const char *text)
{
    struct ip result;

    assert_int_equal(ip_parse(text, &result), 0);
    return result;
}

/* --- rules --- */

static void each_rule_has_its_own_comment_in_its_chain(void **state)
{
    (void)state;
    for (size_t i = 0; i < ruleset_rule_count(); i++) {
        assert_non_null(ruleset_rule_comment(i));
        assert_in_range(strlen(ruleset_rule_comment(i)), 1, 127);
        for (size_t j = 0; j < i; j++)
            if (ruleset_rule_chain(i) == ruleset_rule_chain(j))
                assert_string_not_equal(ruleset_rule_comment(i), ruleset_rule_comment(j));
    }
}

static size_t rule_find(enum chain_id chain, const char *comment)
{
    for (size_t i = 0; i < ruleset_rule_count(); i++)
        if (ruleset_rule_chain(i) == chain && strcmp(ruleset_rule_comment(i), comment) == 0)
            return i;
    fail_msg("no rule \"%s\"", comment);
    return 0;
}

static void assert_rule_has(enum chain_id chain, const char *comment, const char *part)
{
    char text[2048];

    assert_true(ruleset_rule_format(&groups, rule_find(chain, comment), text, sizeof(text)) > 0);
    if (!strstr(text, part))
        fail_msg("rule \"%s\" lacks \"%s\": %s", comment, part, text);
}

static void rules_are_what_they_say(void **state)
{
    (void)state;
    assert_rule_has(CHAIN_RAW, "no loopback destination from outside", "meta load iif =>");
    assert_rule_has(CHAIN_RAW, "no loopback destination from outside", "network header + 16");
    assert_rule_has(CHAIN_RAW, "no loopback destination from outside", "not_given");
    assert_rule_has(CHAIN_NOT_GIVEN, "dropped", "drop");
    assert_rule_has(CHAIN_DNAT, "published", "fib daddr type");
    assert_rule_has(CHAIN_DNAT, "published", "set pub4");
    assert_rule_has(CHAIN_DNAT_OUTPUT, "published", "fib daddr type");
    assert_rule_has(CHAIN_SNAT, "to the outside", "masq");
    assert_rule_has(CHAIN_SNAT, "to the outside", "0x6d000000");
    assert_rule_has(CHAIN_FORWARD, "nothing else gets in", "goto -> refuse");
    assert_rule_has(CHAIN_FORWARD, "segment size", "rt load tcpmss");
}

/* What is looked at first must stand first. */
static void assert_before(enum chain_id chain, const char *first, const char *second)
{
    assert_true(rule_find(chain, first) < rule_find(chain, second));
}

static void order_of_rules(void **state)
{
    (void)state;
    assert_before(CHAIN_DNAT, "published on this address", "published");
    assert_before(CHAIN_DNAT_OUTPUT, "::1 is the relay's", "published, IPv6");
    assert_before(CHAIN_FORWARD, "segment size", "known connections");
    assert_before(CHAIN_FORWARD, "closed guests", "within a network");
    assert_before(CHAIN_FORWARD, "within a network", "into an internal network");
    assert_before(CHAIN_FORWARD, "into an internal network", "published ports");
    assert_before(CHAIN_FROM_GUEST, "another network's gateway", "name service");
    assert_before(CHAIN_FROM_GUEST, "another network's gateway", "with access to the host");
}

static void tag_names_the_ruleset(void **state)
{
    const struct ruleset_groups others = {0x6e000000, 0xff000000};
    char tag[RULESET_TAG_MAX];
    char again[RULESET_TAG_MAX];

    (void)state;
    ruleset_tag(&groups, tag);
    ruleset_tag(&groups, again);
    assert_string_equal(tag, again);
    assert_memory_equal(tag, "moat ", 5);
    ruleset_tag(&others, again);
    assert_string_not_equal(tag, again);
}

/* --- sets and chains --- */

static void sets_fit(void **state)
{
    (void)state;
    for (size_t i = 0; i < SET_COUNT_; i++) {
        assert_in_range(strlen(set_def_get((enum set_id)i)->name), 1, 15);
        assert_in_range(set_key_length((enum set_id)i), 4, SET_KEY_MAX);
        assert_in_range(set_data_length((enum set_id)i), 0, SET_DATA_MAX);
    }
    assert_int_equal(set_key_length(SET_PORT6), SET_KEY_MAX);
    assert_int_equal(set_data_length(SET_PUB6_AT), SET_DATA_MAX);
}

static size_t count_messages(const struct nft_transaction *transaction, uint16_t type)
{
    size_t count = 0;
    int left = (int)transaction->length;
    const struct nlmsghdr *message = (const void *)transaction->data;

    for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
        count += message->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | type);
    assert_int_equal(left, 0);
    return count;
}

static void transaction_has_everything(void **state)
{
    struct nft_transaction transaction;

    (void)state;
    nft_transaction_init(&transaction, NFPROTO_INET);
    ruleset_append(&transaction, &groups, 0);
    assert_false(transaction.failed);
    assert_int_equal(count_messages(&transaction, NFT_MSG_NEWTABLE), TABLE_COUNT_);
    assert_int_equal(count_messages(&transaction, NFT_MSG_NEWSET), SET_COUNT_);
    assert_int_equal(count_messages(&transaction, NFT_MSG_NEWCHAIN), CHAIN_COUNT_);
    assert_int_equal(count_messages(&transaction, NFT_MSG_NEWRULE), ruleset_rule_count());
    nft_transaction_deinit(&transaction);
}

/* --- elements --- */

static size_t elements_count(const struct nat_batch *batch, enum set_id set)
{
    size_t count = 0;

    for (size_t i = 0; i < batch->count; i++)
        count += batch->elements[i].set == set;
    return count;
}

static void network_is_elements(void **state)
{
    struct nat_batch *batch = nat_batch_new(NULL);
    struct nat_network network = {.group = 0x6d000001, .gateway = ip("10.88.0.1"), .dns = true};

    (void)state;
    nat_batch_network(batch, &network, true);
    assert_int_equal(elements_count(batch, SET_SAME), 1);
    assert_int_equal(elements_count(batch, SET_GATEWAY4), 1);
    assert_int_equal(elements_count(batch, SET_OWN4), 1);
    assert_int_equal(elements_count(batch, SET_SOURCE4), 1);
    assert_int_equal(elements_count(batch, SET_DNS4), 2);
    assert_int_equal(elements_count(batch, SET_OWN_DNS4), 2);
    assert_int_equal(batch->count, 8);
    network.isolated = network.internal = network.host_access = true;
    network.dns = false;
    network.gateway6 = ip("fd00::1");
    nat_batch_network(batch, &network, false);
    assert_int_equal(elements_count(batch, SET_SAME), 1);
    assert_int_equal(elements_count(batch, SET_INTERNAL), 1);
    assert_int_equal(elements_count(batch, SET_HOST_ACCESS), 1);
    assert_int_equal(elements_count(batch, SET_SOURCE6), 1);
    assert_int_equal(batch->count, 8 + 2 + 3 + 3);
    assert_false(batch->elements[batch->count - 1].add);
    nat_batch_free(batch);
}

static void endpoint_is_elements(void **state)
{
    struct nat_batch *batch = nat_batch_new(NULL);
    struct nat_endpoint endpoint = {.group = 0x6d000001, .ip = ip("10.88.0.2"), .closed = true};

    (void)state;
    nat_batch_endpoint(batch, &endpoint, true);
    assert_int_equal(batch->count, 3);
    assert_int_equal(batch->elements[0].set, SET_GUEST4);
    assert_memory_equal(batch->elements[0].key, &endpoint.group, 4);
    assert_memory_equal(batch->elements[0].key + 4, "\x0a\x58\x00\x02", 4);
    assert_int_equal(batch->elements[1].set, SET_DENIED4);
    assert_memory_equal(batch->elements[1].key, batch->elements[0].key, 8);
    assert_int_equal(batch->elements[2].set, SET_CLOSED4);
    assert_memory_equal(batch->elements[2].key, "\x0a\x58\x00\x02", 4);
    nat_batch_free(batch);
}

static void port_is_elements(void **state)
{
    struct nat_batch *batch = nat_batch_new(NULL);
    struct nat_port port = {.host_port = 8080,
                            .guest_port = 80,
                            .count = 2,
                            .protocol = IPPROTO_TCP,
                            .guest_ip = ip("10.88.0.2")};
    const struct nat_element *last;

    (void)state;
    nat_batch_port(batch, &port, true);
    assert_int_equal(elements_count(batch, SET_PUB4), 2);
    assert_int_equal(elements_count(batch, SET_RELAY6), 2);
    last = &batch->elements[1];
    assert_memory_equal(last->key, "\x06\0\0\0\x1f\x91\0\0", 8);
    assert_memory_equal(last->data, "\x0a\x58\x00\x02\0\x51\0\0", 8);
    nat_batch_free(batch);
}

/* Which sets a port goes to, by the families of host and guest. */
static void port_families(void **state)
{
    static const struct {
        const char *host, *guest, *guest6;
        enum set_id sets[2];
        size_t count;
    } rows[] = {
        {NULL, "10.0.0.2", NULL, {SET_PUB4, SET_RELAY6}, 2},
        {NULL, "10.0.0.2", "fd00::2", {SET_PUB4, SET_PUB6}, 2},
        {NULL, NULL, "fd00::2", {SET_RELAY4, SET_PUB6}, 2},
        {"::", NULL, "fd00::2", {SET_PUB6}, 1},
        {"::", "10.0.0.2", NULL, {SET_RELAY6}, 1},
        {"127.0.0.1", "10.0.0.2", "fd00::2", {SET_PUB4_AT}, 1},
        {"2001:db8::1", "10.0.0.2", "fd00::2", {SET_PUB6_AT}, 1},
        {"2001:db8::1", "10.0.0.2", NULL, {SET_RELAY6_AT}, 1},
        {"192.0.2.1", NULL, "fd00::2", {0}, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct nat_batch *batch = nat_batch_new(NULL);
        struct nat_port port = {
            .host_port = 1, .guest_port = 1, .count = 1, .protocol = IPPROTO_UDP};

        if (rows[i].host)
            port.host_ip = ip(rows[i].host);
        if (rows[i].guest)
            port.guest_ip = ip(rows[i].guest);
        if (rows[i].guest6)
            port.guest_ip6 = ip(rows[i].guest6);
        nat_batch_port(batch, &port, true);
        assert_int_equal(batch->count, rows[i].count);
        for (size_t j = 0; j < rows[i].count; j++)
            assert_int_equal(batch->elements[j].set, rows[i].sets[j]);
        nat_batch_free(batch);
    }
}

/* Every attribute's length fits its 16 bits, and nothing is lost between the messages. */
static size_t count_elements(const struct nft_transaction *transaction)
{
    size_t count = 0;
    int left = (int)transaction->length;
    struct nlmsghdr *message = (void *)transaction->data;

    for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
        struct nlattr *attribute;
        struct nlattr *element;

        if (message->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM))
            continue;
        mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
        {
            if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_LIST_ELEMENTS)
                continue;
            mnl_attr_for_each_nested(element, attribute) count++;
            assert_ptr_equal((char *)attribute + MNL_ALIGN(attribute->nla_len),
                             (char *)message + message->nlmsg_len);
        }
    }
    return count;
}

static void large_ranges_are_chunked(void **state)
{
    struct nat_batch *batch = nat_batch_new(NULL);
    const struct nat_port port = {.host_ip = ip("2001:db8::1"),
                                  .host_port = 1,
                                  .guest_port = 1,
                                  .count = 65535,
                                  .protocol = IPPROTO_TCP,
                                  .guest_ip6 = ip("fd00::2")};
    struct nft_transaction transaction;

    (void)state;
    nat_batch_port(batch, &port, true);
    assert_int_equal(batch->count, 65535);
    nft_transaction_init(&transaction, NFPROTO_INET);
    nat_batch_append_elements(batch, false, NULL, &transaction);
    assert_false(transaction.failed);
    assert_int_equal(count_elements(&transaction), 65535);
    nft_transaction_deinit(&transaction);
    nat_batch_free(batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_has_its_own_comment_in_its_chain),
        cmocka_unit_test(rules_are_what_they_say),
        cmocka_unit_test(order_of_rules),
        cmocka_unit_test(tag_names_the_ruleset),
        cmocka_unit_test(sets_fit),
        cmocka_unit_test(transaction_has_everything),
        cmocka_unit_test(network_is_elements),
        cmocka_unit_test(endpoint_is_elements),
        cmocka_unit_test(port_is_elements),
        cmocka_unit_test(port_families),
        cmocka_unit_test(large_ranges_are_chunked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
