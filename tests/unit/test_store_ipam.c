/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store_fixture.h"

static const char *take(struct fixture *f, const struct network *network, const char *guest)
{
    static char text[IP_TEXT_MAX];
    uint8_t family = cidr_is_set(&network->subnet) ? AF_INET : AF_INET6;
    struct ip ip = {0};

    ok(f, store_address_take(f->store, network, family, NULL, guest, &ip, &f->error));
    return ip_format(&ip, text);
}

static int take_exactly(struct fixture *f, const struct network *network, const char *want,
                        const char *guest)
{
    struct ip wanted = ip_of(want);
    struct ip ip = {0};
    int r = store_address_take(f->store, network, wanted.family, &wanted, guest, &ip, &f->error);

    if (r == 0)
        assert_true(ip_equal(&ip, &wanted));
    else
        assert_false(ip_is_set(&ip));
    return r;
}

static void release(struct fixture *f, const struct network *network, const char *ip,
                    const char *guest)
{
    struct ip released = ip_of(ip);

    ok(f, store_address_release(f->store, network, &released, guest, &f->error));
}

static void assert_count(struct fixture *f, const struct network *network, uint64_t used,
                         uint64_t total)
{
    uint64_t got_used;
    uint64_t got_total;

    ok(f, store_address_count(f->store, network, &got_used, &got_total, &f->error));
    assert_int_equal(got_used, used);
    assert_int_equal(got_total, total);
}

static void addresses_are_given_in_order_without_the_reserved_ones(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "");
    struct ip ip;

    assert_count(f, &network, 0, 5);
    begin(f);
    assert_string_equal(take(f, &network, "a"), "10.1.0.2");
    assert_string_equal(take(f, &network, "b"), "10.1.0.3");
    assert_string_equal(take(f, &network, "c"), "10.1.0.4");
    assert_string_equal(take(f, &network, "d"), "10.1.0.5");
    assert_string_equal(take(f, &network, "e"), "10.1.0.6");
    assert_count(f, &network, 5, 5);
    refused(f, store_address_take(f->store, &network, AF_INET, NULL, "f", &ip, &f->error),
            REASON_NO_FREE_ADDRESS,
            "network net: no free address: 5 of 5 addresses of 10.1.0.0/29");
    commit(f);
}

/* The first and last addresses of every prefix length, and the count, are right. */
static void every_prefix_length_is_right(void **state)
{
    struct fixture *f = *state;

    for (unsigned prefix = 8; prefix <= 30; prefix++) {
        char name[16];
        char subnet[32];

        snprintf(name, sizeof(name), "net%u", prefix);
        snprintf(subnet, sizeof(subnet), "10.0.0.0/%u", prefix);
        struct network network = network_stored(f, name, subnet, "");
        assert_count(f, &network, 0, (UINT64_C(1) << (32 - prefix)) - 3);
        begin(f);
        assert_string_equal(take(f, &network, "a"), "10.0.0.2");
        struct ip last = cidr_last(&network.subnet);
        struct ip before_last = ip_add(&last, -1);
        char text[IP_TEXT_MAX];
        refused(f, take_exactly(f, &network, ip_format(&last, text), "b"), REASON_ADDRESS_OUTSIDE,
                "first or last address");
        if (prefix < 30)
            ok(f, take_exactly(f, &network, ip_format(&before_last, text), "b"));
        assert_count(f, &network, prefix < 30 ? 2 : 1, (UINT64_C(1) << (32 - prefix)) - 3);
        commit(f);
    }
}

static void a_gateway_anywhere_is_left_out(void **state)
{
    static const char *const gateways[] = {"10.1.0.1", "10.1.0.3", "10.1.0.6"};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(gateways); i++) {
        struct network network = network_of("net", "10.1.0.0/29", "");
        struct ip ip;

        network.gateway = ip_of(gateways[i]);
        begin(f);
        ok(f, store_network_insert(f->store, &network, &f->error));
        assert_count(f, &network, 0, 5);
        for (int n = 0; n < 5; n++)
            assert_string_not_equal(take(f, &network, "g"), gateways[i]);
        refused(f, store_address_take(f->store, &network, AF_INET, NULL, "f", &ip, &f->error),
                REASON_NO_FREE_ADDRESS, "5 of 5");
        refused(f, take_exactly(f, &network, gateways[i], "f"), REASON_ADDRESS_IN_USE,
                "is the gateway of network net");
        store_rollback(f->store);
    }
}

static void automatic_addresses_come_from_the_range(void **state)
{
    struct fixture *f = *state;
    struct network network = network_of("net", "10.1.0.0/16", "");
    struct ip ip;

    network.ip_range = cidr_of("10.1.5.4/30");
    begin(f);
    ok(f, store_network_insert(f->store, &network, &f->error));
    assert_count(f, &network, 0, 4);
    /* Of the range all four are hosts' addresses: only the subnet's own first and last are not. */
    assert_string_equal(take(f, &network, "a"), "10.1.5.4");
    assert_string_equal(take(f, &network, "b"), "10.1.5.5");
    assert_string_equal(take(f, &network, "c"), "10.1.5.6");
    /* One outside is given by name only, is not counted, and is forgotten when it is released. */
    ok(f, take_exactly(f, &network, "10.1.9.9", "d"));
    refused(f, take_exactly(f, &network, "10.1.9.9", "e"), REASON_ADDRESS_IN_USE, "by guest d");
    assert_count(f, &network, 3, 4);
    release(f, &network, "10.1.9.9", "d");
    assert_count(f, &network, 3, 4);
    assert_string_equal(take(f, &network, "d"), "10.1.5.7");
    refused(f, store_address_take(f->store, &network, AF_INET, NULL, "f", &ip, &f->error),
            REASON_NO_FREE_ADDRESS, "4 of 4 addresses of 10.1.5.4/30");
    ok(f, take_exactly(f, &network, "10.1.9.9", "e"));
    commit(f);
}

static void a_range_that_is_only_the_gateway_is_empty(void **state)
{
    struct fixture *f = *state;
    struct network network = network_of("net", "10.1.0.0/16", "");
    struct ip ip;

    network.ip_range = cidr_of("10.1.0.1/32");
    begin(f);
    ok(f, store_network_insert(f->store, &network, &f->error));
    refused(f, store_address_take(f->store, &network, AF_INET, NULL, "f", &ip, &f->error),
            REASON_NO_FREE_ADDRESS, "0 of 0 addresses of 10.1.0.1/32");
    ok(f, take_exactly(f, &network, "10.1.0.2", "f"));
    commit(f);
}

static void addresses_that_cannot_be_given_are_refused(void **state)
{
    static const struct {
        const char *ip;
        enum reason reason;
        const char *words;
    } rows[] = {
        {"10.2.0.5", REASON_ADDRESS_OUTSIDE, "10.2.0.5 is not in the subnet 10.1.0.0/24"},
        {"10.1.1.0", REASON_ADDRESS_OUTSIDE, "not in the subnet"},
        {"10.1.0.0", REASON_ADDRESS_OUTSIDE, "first or last address"},
        {"10.1.0.255", REASON_ADDRESS_OUTSIDE, "first or last address"},
        {"10.1.0.1", REASON_ADDRESS_IN_USE, "10.1.0.1 is the gateway of network net"},
        {"10.1.0.9", REASON_ADDRESS_IN_USE, "10.1.0.9 is used by guest web on network net"},
        {"fd00::5", REASON_ADDRESS_OUTSIDE, "network net has no IPv6 subnet"},
    };
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/24", "");

    begin(f);
    ok(f, take_exactly(f, &network, "10.1.0.9", "web"));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        refused(f, take_exactly(f, &network, rows[i].ip, "x"), rows[i].reason, rows[i].words);
    assert_count(f, &network, 1, 253);
    commit(f);
}

static void a_freed_address_rests_until_the_others_were_given(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "");

    begin(f);
    take(f, &network, "a"); /* .2 */
    take(f, &network, "b"); /* .3 */
    take(f, &network, "c"); /* .4 */
    release(f, &network, "10.1.0.3", "b");
    release(f, &network, "10.1.0.2", "a");
    assert_string_equal(take(f, &network, "d"), "10.1.0.5");
    assert_string_equal(take(f, &network, "e"), "10.1.0.6");
    /* Now the one that has rested longest. */
    assert_string_equal(take(f, &network, "f"), "10.1.0.3");
    assert_string_equal(take(f, &network, "g"), "10.1.0.2");
    assert_count(f, &network, 5, 5);
    commit(f);
}

static void a_guest_gets_its_last_address_again(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "");
    struct network other = network_stored(f, "other", "10.2.0.0/29", "");

    begin(f);
    take(f, &network, "a"); /* .2 */
    take(f, &network, "b"); /* .3 */
    release(f, &network, "10.1.0.2", "a");
    release(f, &network, "10.1.0.3", "b");
    commit(f);
    fixture_reopen(f);
    begin(f);
    assert_string_equal(take(f, &other, "b"), "10.2.0.2");
    assert_string_equal(take(f, &network, "b"), "10.1.0.3");
    assert_string_equal(take(f, &network, "a"), "10.1.0.2");
    /* Of two that it had, the later; one that another has by now is gone. */
    release(f, &network, "10.1.0.2", "a");
    ok(f, take_exactly(f, &network, "10.1.0.5", "a"));
    release(f, &network, "10.1.0.5", "a");
    ok(f, take_exactly(f, &network, "10.1.0.5", "thief"));
    assert_string_equal(take(f, &network, "a"), "10.1.0.2");
    release(f, &network, "10.1.0.5", "thief");
    assert_string_equal(take(f, &network, "a"), "10.1.0.4");
    commit(f);
}

static void addresses_taken_ahead_are_stepped_over(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/28", "");

    begin(f);
    ok(f, take_exactly(f, &network, "10.1.0.2", "x"));
    ok(f, take_exactly(f, &network, "10.1.0.4", "y"));
    ok(f, take_exactly(f, &network, "10.1.0.5", "z"));
    /* Freed ahead of the cursor, it rests like any other. */
    release(f, &network, "10.1.0.5", "z");
    assert_string_equal(take(f, &network, "a"), "10.1.0.3");
    assert_string_equal(take(f, &network, "b"), "10.1.0.6");
    for (int i = 7; i <= 14; i++)
        take(f, &network, "c");
    assert_string_equal(take(f, &network, "d"), "10.1.0.5");
    assert_count(f, &network, 13, 13);
    commit(f);
}

static void a_release_by_another_does_nothing(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "");

    begin(f);
    take(f, &network, "a");
    release(f, &network, "10.1.0.2", "b");
    release(f, &network, "10.1.0.3", "a");
    release(f, &network, "10.9.9.9", "a");
    assert_count(f, &network, 1, 5);
    release(f, &network, "10.1.0.2", "a");
    release(f, &network, "10.1.0.2", "a");
    assert_count(f, &network, 0, 5);
    commit(f);
}

static void the_user_of_an_address_is_found(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "");
    struct ip ip = ip_of("10.1.0.2");
    char guest[NAME_MAX_LENGTH + 1] = "untouched";
    bool found;

    begin(f);
    ok(f, store_address_find(f->store, network.id, &ip, guest, &found, &f->error));
    assert_false(found);
    take(f, &network, "web");
    ok(f, store_address_find(f->store, network.id, &ip, guest, &found, &f->error));
    assert_true(found);
    assert_string_equal(guest, "web");
    release(f, &network, "10.1.0.2", "web");
    ok(f, store_address_find(f->store, network.id, &ip, guest, &found, &f->error));
    assert_false(found);
    commit(f);
}

static void a_rollback_gives_addresses_back(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "");

    begin(f);
    take(f, &network, "a");
    take(f, &network, "b");
    store_rollback(f->store);
    assert_count(f, &network, 0, 5);
    begin(f);
    assert_string_equal(take(f, &network, "b"), "10.1.0.2");
    commit(f);
    begin(f);
    release(f, &network, "10.1.0.2", "b");
    store_rollback(f->store);
    assert_count(f, &network, 1, 5);
}

static void outside_a_transaction_nothing_is_taken(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "");
    struct ip ip = ip_of("10.1.0.2");

    assert_true(store_address_take(f->store, &network, AF_INET, NULL, "a", &ip, &f->error) < 0);
    assert_true(store_address_release(f->store, &network, &ip, "a", &f->error) < 0);
    assert_count(f, &network, 0, 5);
}

static void ipv6_follows_the_same_rules(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "", "fd00:88::/64");

    assert_count(f, &network, 0, 0);
    begin(f);
    assert_string_equal(take(f, &network, "a"), "fd00:88::2");
    assert_string_equal(take(f, &network, "b"), "fd00:88::3");
    ok(f, take_exactly(f, &network, "fd00:88::4", "c"));
    ok(f, take_exactly(f, &network, "fd00:88::ffff:ffff:ffff:ffff", "d"));
    ok(f, take_exactly(f, &network, "fd00:88:0:0:8000::1", "e"));
    release(f, &network, "fd00:88::2", "a");
    assert_string_equal(take(f, &network, "f"), "fd00:88::5");
    assert_string_equal(take(f, &network, "a"), "fd00:88::2");
    refused(f, take_exactly(f, &network, "fd00:88::", "x"), REASON_ADDRESS_OUTSIDE,
            "first or last address");
    refused(f, take_exactly(f, &network, "fd00:88::1", "x"), REASON_ADDRESS_IN_USE, "gateway");
    refused(f, take_exactly(f, &network, "fd00:89::1", "x"), REASON_ADDRESS_OUTSIDE, "subnet");
    refused(f, take_exactly(f, &network, "10.0.0.1", "x"), REASON_ADDRESS_OUTSIDE,
            "network net has no IPv4 subnet");
    commit(f);
}

static void a_small_ipv6_subnet_is_exhausted_rightly(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "", "fd00:88::/126");
    struct ip ip;

    begin(f);
    assert_string_equal(take(f, &network, "a"), "fd00:88::2");
    assert_string_equal(take(f, &network, "b"), "fd00:88::3"); /* IPv6 has no broadcast */
    refused(f, store_address_take(f->store, &network, AF_INET6, NULL, "c", &ip, &f->error),
            REASON_NO_FREE_ADDRESS, "2 of 2 addresses of fd00:88::/126");
    commit(f);
}

static void both_families_have_their_own_pool(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/29", "fd00::/64");
    struct ip four;
    struct ip six;

    begin(f);
    ok(f, store_address_take(f->store, &network, AF_INET, NULL, "a", &four, &f->error));
    ok(f, store_address_take(f->store, &network, AF_INET6, NULL, "a", &six, &f->error));
    assert_ip_is(&four, "10.1.0.2");
    assert_ip_is(&six, "fd00::2");
    release(f, &network, "10.1.0.2", "a");
    ok(f, store_address_take(f->store, &network, AF_INET6, NULL, "b", &six, &f->error));
    assert_ip_is(&six, "fd00::3");
    assert_count(f, &network, 0, 5);
    commit(f);
}

/* --- against a naive model --- */

#define MODEL_GUESTS 24
#define MODEL_ADDRESSES 64 /* a /26 */

/* What is known of each address: who has it, or had it last, and when it was freed. */
struct model {
    int guest[MODEL_ADDRESSES]; /* -1: never given */
    unsigned freed[MODEL_ADDRESSES];
    unsigned clock;
};

static bool model_is_assignable(int address)
{
    return address >= 2 && address < MODEL_ADDRESSES - 1;
}

/* What a take must answer; -1: nothing is free. */
static int model_choose(const struct model *model, int guest)
{
    int last = -1;
    int oldest = -1;

    for (int i = 0; i < MODEL_ADDRESSES; i++) {
        if (!model->freed[i])
            continue;
        if (model->guest[i] == guest && (last < 0 || model->freed[i] > model->freed[last]))
            last = i;
        if (oldest < 0 || model->freed[i] < model->freed[oldest])
            oldest = i;
    }
    if (last >= 0)
        return last;
    for (int i = 0; i < MODEL_ADDRESSES; i++)
        if (model_is_assignable(i) && model->guest[i] < 0)
            return i;
    return oldest;
}

static bool model_is_used(const struct model *model, int address)
{
    return model->guest[address] >= 0 && !model->freed[address];
}

static void model_take(struct model *model, int address, int guest)
{
    model->guest[address] = guest;
    model->freed[address] = 0;
}

static struct ip model_ip(int address)
{
    return ip_from_v4(0x0a010000u + (uint32_t)address);
}

static unsigned model_random(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

static void step_take(struct fixture *f, const struct network *network, struct model *model,
                      int guest)
{
    int expected = model_choose(model, guest);
    struct ip ip = {0};
    char name[16];

    snprintf(name, sizeof(name), "g%d", guest);
    int r = store_address_take(f->store, network, AF_INET, NULL, name, &ip, &f->error);
    if (expected < 0) {
        assert_true(r < 0);
        assert_int_equal(f->error.reason, REASON_NO_FREE_ADDRESS);
        return;
    }
    if (r < 0)
        fail_msg("%s", f->error.text);
    struct ip expected_ip = model_ip(expected);
    assert_int_equal(ip_to_v4(&ip), ip_to_v4(&expected_ip));
    model_take(model, expected, guest);
}

static void step_take_exactly(struct fixture *f, const struct network *network, struct model *model,
                              int address, int guest)
{
    struct ip want = model_ip(address);
    struct ip ip = {0};
    char name[16];

    snprintf(name, sizeof(name), "g%d", guest);
    int r = store_address_take(f->store, network, AF_INET, &want, name, &ip, &f->error);
    assert_int_equal(r == 0, model_is_assignable(address) && !model_is_used(model, address));
    if (r == 0)
        model_take(model, address, guest);
}

static void step_release(struct fixture *f, const struct network *network, struct model *model,
                         int address)
{
    struct ip ip = model_ip(address);
    char name[16];

    if (!model_is_used(model, address))
        return;
    snprintf(name, sizeof(name), "g%d", model->guest[address]);
    ok(f, store_address_release(f->store, network, &ip, name, &f->error));
    model->freed[address] = ++model->clock;
}

static void model_compare(struct fixture *f, const struct network *network,
                          const struct model *model)
{
    uint64_t used = 0;

    for (int i = 0; i < MODEL_ADDRESSES; i++) {
        struct ip ip = model_ip(i);
        char guest[NAME_MAX_LENGTH + 1];
        bool found;

        ok(f, store_address_find(f->store, network->id, &ip, guest, &found, &f->error));
        assert_int_equal(found, model_is_used(model, i));
        if (found)
            assert_int_equal(atol(guest + 1), model->guest[i]);
        used += found;
    }
    assert_count(f, network, used, MODEL_ADDRESSES - 3);
}

static void random_use_agrees_with_a_naive_model(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/26", "");
    struct model model = {.clock = 0};
    unsigned seed = 42;

    for (int i = 0; i < MODEL_ADDRESSES; i++)
        model.guest[i] = -1;
    for (int transaction = 0; transaction < 600; transaction++) {
        struct model before = model;
        /* Phases of growth and of decline, so that both ends are met. */
        unsigned take_weight = transaction / 100 % 2 == 0 ? 6 : 2;

        begin(f);
        for (unsigned n = model_random(&seed) % 8; n > 0; n--) {
            int guest = (int)(model_random(&seed) % MODEL_GUESTS);
            int address = (int)(model_random(&seed) % MODEL_ADDRESSES);
            unsigned choice = model_random(&seed) % 10;

            if (choice < take_weight)
                step_take(f, &network, &model, guest);
            else if (choice == 9)
                step_take_exactly(f, &network, &model, address, guest);
            else
                step_release(f, &network, &model, address);
        }
        if (model_random(&seed) % 8 == 0) {
            store_rollback(f->store);
            model = before;
        } else {
            commit(f);
        }
        if (transaction % 20 == 0)
            model_compare(f, &network, &model);
    }
    model_compare(f, &network, &model);
}

/* --- cost --- */

/* Steps of one take and one release by a guest that is new. */
static uint64_t cost_of_one(struct fixture *f, const struct network *network, const char *guest)
{
    uint64_t mark = store_steps(f->store);
    char ip[IP_TEXT_MAX];

    snprintf(ip, sizeof(ip), "%s", take(f, network, guest));
    release(f, network, ip, guest);
    return steps_since(f, &mark);
}

static void fill(struct fixture *f, const struct network *network, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%u", i);
        take(f, network, name);
    }
}

/* An empty /16, one with 65,000 used, and one in which the last address is the only free one. */
static void a_take_costs_the_same_whatever_the_fill(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/16", "");
    struct ip ip;

    begin(f);
    cost_of_one(f, &network, "warm-up"); /* prepares the statements */
    uint64_t empty = cost_of_one(f, &network, "one");
    fill(f, &network, 65000);
    uint64_t full = cost_of_one(f, &network, "two");
    fill(f, &network, 65533 - 65000 - 1);
    assert_count(f, &network, 65532, 65533);
    uint64_t last = cost_of_one(f, &network, "three"); /* the only one left, a resting one */
    assert_true(full <= empty + 10);
    assert_true(last <= empty + 40);

    take(f, &network, "four");
    uint64_t mark = store_steps(f->store);
    refused(f, store_address_take(f->store, &network, AF_INET, NULL, "five", &ip, &f->error),
            REASON_NO_FREE_ADDRESS, "65533 of 65533");
    assert_true(steps_since(f, &mark) <= empty);
    commit(f);
}

static void a_take_costs_the_same_whatever_the_size(void **state)
{
    struct fixture *f = *state;
    struct network small = network_stored(f, "small", "192.168.0.0/29", "");
    struct network large = network_stored(f, "large", "10.0.0.0/8", "");
    struct network huge = network_stored(f, "huge", "", "fd00::/48");

    begin(f);
    cost_of_one(f, &small, "warm-up");
    uint64_t cost = cost_of_one(f, &small, "one");
    assert_true(cost_of_one(f, &large, "one") <= cost + 10);
    assert_true(cost_of_one(f, &huge, "one") <= cost + 10);
    commit(f);
}

/* A run of addresses that were asked for by name is walked over once, not at each take. */
static void addresses_taken_ahead_are_stepped_over_once(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/16", "");

    begin(f);
    cost_of_one(f, &network, "warm-up");
    uint64_t cost = cost_of_one(f, &network, "one");
    for (unsigned i = 0; i < 5000; i++) {
        struct ip want = ip_from_v4(0x0a010010u + i);
        struct ip ip;

        ok(f, store_address_take(f->store, &network, AF_INET, &want, "x", &ip, &f->error));
    }
    fill(f, &network, 20); /* reaches the run, and crosses it */
    assert_true(cost_of_one(f, &network, "two") <= cost + 10);
    assert_string_equal(take(f, &network, "three"), "10.1.19.161");
    commit(f);
}

/* Guests that come and go on a large network do not leave rows for ever. */
static void the_number_of_resting_addresses_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "", "fd00::/64");
    char ip[IP_TEXT_MAX];

    begin(f);
    for (unsigned i = 0; i < 65536 + 10; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%u", i);
        snprintf(ip, sizeof(ip), "%s", take(f, &network, name));
        release(f, &network, ip, name);
    }
    assert_string_equal(ip, "fd00::b"); /* the tenth address once more */
    commit(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(addresses_are_given_in_order_without_the_reserved_ones),
        STORE_TEST(every_prefix_length_is_right),
        STORE_TEST(a_gateway_anywhere_is_left_out),
        STORE_TEST(automatic_addresses_come_from_the_range),
        STORE_TEST(a_range_that_is_only_the_gateway_is_empty),
        STORE_TEST(addresses_that_cannot_be_given_are_refused),
        STORE_TEST(a_freed_address_rests_until_the_others_were_given),
        STORE_TEST(a_guest_gets_its_last_address_again),
        STORE_TEST(addresses_taken_ahead_are_stepped_over),
        STORE_TEST(a_release_by_another_does_nothing),
        STORE_TEST(the_user_of_an_address_is_found),
        STORE_TEST(a_rollback_gives_addresses_back),
        STORE_TEST(outside_a_transaction_nothing_is_taken),
        STORE_TEST(ipv6_follows_the_same_rules),
        STORE_TEST(a_small_ipv6_subnet_is_exhausted_rightly),
        STORE_TEST(both_families_have_their_own_pool),
        STORE_TEST(random_use_agrees_with_a_naive_model),
        STORE_TEST(a_take_costs_the_same_whatever_the_fill),
        STORE_TEST(a_take_costs_the_same_whatever_the_size),
        STORE_TEST(addresses_taken_ahead_are_stepped_over_once),
        STORE_TEST(the_number_of_resting_addresses_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
