/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compares the kernel's table with what a rebuild would make. The static part is not compared byte
 * by byte, which kernels give back in different forms, but by marks that nobody else sets: the hash
 * in the table's comment and the comment of every rule, in order. Elements are compared in full. */
#include "nat/verify_elements.h"

#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "nat/policy_chain.h"

#define VERIFY_TRIES 5

/* --- policies --- */

/* What is there of one. */
struct policy_seen {
    const struct policy_object *object;
    size_t *rules; /* of each chain */
    size_t n_chains;
};

struct expected {
    struct policy_seen *policies; /* by id */
    size_t n_policies;
};

static int policy_compare(const void *a, const void *b)
{
    const struct policy_object *one = ((const struct policy_seen *)a)->object;
    const struct policy_object *other = ((const struct policy_seen *)b)->object;

    return one->id != other->id ? (one->id < other->id ? -1 : 1)
                                : (one->version > other->version) - (one->version < other->version);
}

static void expected_deinit(struct expected *expected)
{
    for (size_t i = 0; i < expected->n_policies; i++)
        free(expected->policies[i].rules);
    free(expected->policies);
    *expected = (struct expected){0};
}

static bool policy_seen_init(struct policy_seen *seen, const struct policy_object *object)
{
    char text[POLICY_NAME_MAX];

    seen->object = object;
    while (policy_chain_get(object, seen->n_chains, text))
        seen->n_chains++;
    seen->rules = calloc(seen->n_chains + 1, sizeof(*seen->rules));
    return seen->rules;
}

static int expected_init(struct expected *expected, const struct nat_batch *batch,
                         struct error *error)
{
    bool made = true;

    *expected =
        (struct expected){.policies = calloc(batch->n_policies + 1, sizeof(*expected->policies))};
    for (size_t i = 0; expected->policies && made && i < batch->n_policies; i++)
        made = policy_seen_init(&expected->policies[expected->n_policies++], batch->policies[i]);
    if (!expected->policies || !made) {
        expected_deinit(expected);
        return error_set(error, ENOMEM, "cannot verify nftables");
    }
    qsort(expected->policies, expected->n_policies, sizeof(*expected->policies), policy_compare);
    return 0;
}

/* The policy whose chain or set has this name, or NULL. */
static struct policy_seen *expected_find(const struct expected *expected, const char *name)
{
    struct policy_object object = {0};
    const struct policy_seen key = {.object = &object};

    if (!policy_name_read(name, &object.id, &object.version))
        return NULL;
    return bsearch(&key, expected->policies, expected->n_policies, sizeof(key), policy_compare);
}

/* And which of its chains that is. */
static struct policy_seen *expected_find_chain(const struct expected *expected, const char *name,
                                               size_t *ret_chain)
{
    struct policy_seen *policy = expected_find(expected, name);
    char text[POLICY_NAME_MAX];
    const char *chain;

    for (size_t i = 0; policy && (chain = policy_chain_get(policy->object, i, text)); i++) {
        if (strcmp(name, chain) != 0)
            continue;
        *ret_chain = i;
        return policy;
    }
    return NULL;
}

static size_t expected_chains(const struct expected *expected)
{
    size_t count = 0;

    for (size_t i = 0; i < expected->n_policies; i++)
        count += expected->policies[i].n_chains;
    return count;
}

/* --- chains --- */

struct chains {
    const struct expected *expected;
    enum ruleset_table table;
    uint32_t seen;   /* bits of enum chain_id */
    size_t policies; /* chains of policies */
    bool same;
};

static bool chain_matches(const struct nftnl_chain *chain, const struct nft_chain *def)
{
    const char *type = nftnl_chain_get_str(chain, NFTNL_CHAIN_TYPE);

    if (!def->type)
        return !nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM);
    return type && strcmp(type, def->type) == 0 &&
           nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) == def->hook &&
           nftnl_chain_get_s32(chain, NFTNL_CHAIN_PRIO) == def->priority &&
           nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) == NF_ACCEPT;
}

static bool chain_check(const struct nftnl_chain *chain, struct chains *chains)
{
    const char *name = nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME);
    size_t index;

    for (size_t i = 0; name && i < CHAIN_COUNT_; i++) {
        if (chain_table((enum chain_id)i) != chains->table ||
            strcmp(name, chain_def_get((enum chain_id)i)->name) != 0)
            continue;
        chains->seen |= UINT32_C(1) << i;
        return chain_matches(chain, chain_def_get((enum chain_id)i));
    }
    if (!name || !expected_find_chain(chains->expected, name, &index))
        return false;
    chains->policies++;
    return !nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM);
}

static int chain_parse(const struct nlmsghdr *message, void *userdata)
{
    struct chains *chains = userdata;
    struct nftnl_chain *chain = nftnl_chain_alloc();

    if (!chain)
        return -ENOMEM;
    bool parsed = nftnl_chain_nlmsg_parse(message, chain) >= 0;
    const char *table = parsed ? nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE) : NULL;
    if (table && strcmp(table, RULESET_TABLE) == 0)
        chains->same = chain_check(chain, chains) && chains->same;
    nftnl_chain_free(chain);
    return parsed ? 0 : -EPROTO;
}

static int verify_chains(struct nat *nat, const struct expected *expected, bool *ret_same,
                         struct error *error)
{
    struct chains chains = {.expected = expected, .same = true};
    int result = 0;

    for (int i = 0; result == 0 && i < TABLE_COUNT_; i++) {
        chains.table = (enum ruleset_table)i;
        result = nft_socket_get(nat->socket, ruleset_table_family(chains.table), NFT_MSG_GETCHAIN,
                                true, NULL, chain_parse, &chains, error);
    }

    if (result == 0)
        *ret_same = chains.same && chains.seen == (UINT32_C(1) << CHAIN_COUNT_) - 1 &&
                    chains.policies == expected_chains(expected);
    return result;
}

/* --- rules --- */

struct rules {
    const struct expected *expected;
    enum ruleset_table table;
    size_t next[CHAIN_COUNT_]; /* index of the rule that comes next in each chain */
    size_t count;
    bool same;
};

/* The first rule at or after `index` of that chain. */
static size_t rule_next(enum chain_id chain, size_t index)
{
    while (index < ruleset_rule_count() && ruleset_rule_chain(index) != chain)
        index++;
    return index;
}

static bool rule_check_policy(const char *name, const char *comment, struct rules *rules)
{
    size_t chain;
    struct policy_seen *policy = expected_find_chain(rules->expected, name, &chain);
    const char *wanted =
        policy ? policy_rule_comment(policy->object, chain, policy->rules[chain]) : NULL;

    if (!wanted || strcmp(comment, wanted) != 0)
        return false;
    policy->rules[chain]++;
    return true;
}

/* No policy may lack a rule at its end. */
static bool policies_are_complete(const struct expected *expected)
{
    for (size_t i = 0; i < expected->n_policies; i++) {
        const struct policy_seen *policy = &expected->policies[i];

        for (size_t chain = 0; chain < policy->n_chains; chain++)
            if (policy_rule_comment(policy->object, chain, policy->rules[chain]))
                return false;
    }
    return true;
}

static bool rule_check(const struct nftnl_rule *rule, struct rules *rules)
{
    const char *name = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
    const char *comment = rule_comment_get(rule);
    size_t chain = 0;

    while (name && chain < CHAIN_COUNT_ &&
           (chain_table((enum chain_id)chain) != rules->table ||
            strcmp(name, chain_def_get((enum chain_id)chain)->name) != 0))
        chain++;
    if (!name || !comment)
        return false;
    if (chain == CHAIN_COUNT_)
        return rule_check_policy(name, comment, rules);
    size_t index = rule_next((enum chain_id)chain, rules->next[chain]);
    rules->next[chain] = index + 1;
    rules->count++;
    return index < ruleset_rule_count() && strcmp(comment, ruleset_rule_comment(index)) == 0;
}

static int rule_parse(const struct nlmsghdr *message, void *userdata)
{
    struct rules *rules = userdata;
    struct nftnl_rule *rule = nftnl_rule_alloc();

    if (!rule)
        return -ENOMEM;
    bool parsed = nftnl_rule_nlmsg_parse(message, rule) >= 0;
    const char *table = parsed ? nftnl_rule_get_str(rule, NFTNL_RULE_TABLE) : NULL;
    if (table && strcmp(table, RULESET_TABLE) == 0)
        rules->same = rule_check(rule, rules) && rules->same;
    nftnl_rule_free(rule);
    return parsed ? 0 : -EPROTO;
}

static void rules_build(struct nlmsghdr *message, void *userdata)
{
    (void)userdata;
    mnl_attr_put_strz(message, NFTA_RULE_TABLE, RULESET_TABLE);
}

static int verify_rules(struct nat *nat, struct expected *expected, bool *ret_same,
                        struct error *error)
{
    struct rules rules = {.expected = expected, .same = true};

    for (size_t i = 0; i < expected->n_policies; i++)
        memset(expected->policies[i].rules, 0,
               expected->policies[i].n_chains * sizeof(*expected->policies[i].rules));
    int result = 0;

    for (int i = 0; result == 0 && i < TABLE_COUNT_; i++) {
        rules.table = (enum ruleset_table)i;
        result = nft_socket_get(nat->socket, ruleset_table_family(rules.table), NFT_MSG_GETRULE,
                                true, rules_build, rule_parse, &rules, error);
    }

    if (result == 0)
        *ret_same =
            rules.same && rules.count == ruleset_rule_count() && policies_are_complete(expected);
    return result;
}

/* --- sets --- */

struct sets {
    const struct expected *expected;
    enum ruleset_table table;
    uint64_t seen;   /* bits of enum set_id */
    size_t policies; /* sets of policies */
    bool same;
};

static_assert(SET_COUNT_ < 64 && CHAIN_COUNT_ < 32, "bits");

static bool set_check_policy(const char *name, struct sets *sets)
{
    const struct policy_seen *policy = expected_find(sets->expected, name);
    char text[POLICY_NAME_MAX];
    enum policy_set_kind kind;
    const char *set;

    for (size_t i = 0; policy && (set = policy_set_get(policy->object, i, text, &kind)); i++) {
        if (strcmp(name, set) != 0)
            continue;
        sets->policies++;
        return true;
    }
    return false;
}

/* How many sets policies have. */
static size_t sets_of_policies(const struct expected *expected)
{
    char text[POLICY_NAME_MAX];
    enum policy_set_kind kind;
    size_t count = 0;

    for (size_t i = 0; i < expected->n_policies; i++)
        for (size_t j = 0; policy_set_get(expected->policies[i].object, j, text, &kind); j++)
            count++;
    return count;
}

static bool set_check(const struct nftnl_set *set, struct sets *sets)
{
    const char *name = nftnl_set_get_str(set, NFTNL_SET_NAME);

    for (size_t i = 0; name && i < SET_COUNT_; i++) {
        if (set_def_get((enum set_id)i)->table != sets->table ||
            strcmp(name, set_def_get((enum set_id)i)->name) != 0)
            continue;
        sets->seen |= UINT64_C(1) << i;
        return nftnl_set_get_u32(set, NFTNL_SET_KEY_LEN) == set_key_length((enum set_id)i);
    }
    return name && set_check_policy(name, sets);
}

static int set_parse(const struct nlmsghdr *message, void *userdata)
{
    struct sets *sets = userdata;
    struct nftnl_set *set = nftnl_set_alloc();

    if (!set)
        return -ENOMEM;
    bool parsed = nftnl_set_nlmsg_parse(message, set) >= 0;
    if (parsed)
        sets->same = set_check(set, sets) && sets->same;
    nftnl_set_free(set);
    return parsed ? 0 : -EPROTO;
}

static void sets_build(struct nlmsghdr *message, void *userdata)
{
    (void)userdata;
    mnl_attr_put_strz(message, NFTA_SET_TABLE, RULESET_TABLE);
}

static int verify_sets(struct nat *nat, const struct expected *expected, bool *ret_same,
                       struct error *error)
{
    struct sets sets = {.expected = expected, .same = true};
    int result = 0;

    for (int i = 0; result == 0 && i < TABLE_COUNT_; i++) {
        sets.table = (enum ruleset_table)i;
        result = nft_socket_get(nat->socket, ruleset_table_family(sets.table), NFT_MSG_GETSET, true,
                                sets_build, set_parse, &sets, error);
    }

    if (result == 0)
        *ret_same = sets.same && sets.seen == (UINT64_C(1) << SET_COUNT_) - 1 &&
                    sets.policies == sets_of_policies(expected);
    return result;
}

/* --- elements of policies --- */

static int verify_policies(struct nat *nat, const struct nat_batch *batch,
                           const struct expected *expected, bool *ret_same, struct error *error)
{
    int result = 0;

    for (size_t i = 0; result == 0 && *ret_same && i < expected->n_policies; i++)
        result = verify_policy(nat, batch, expected->policies[i].object, ret_same, error);
    return result;
}

/* --- all of it --- */

static int verify_tables(struct nat *nat, bool *ret_same, struct error *error)
{
    uint32_t flags = nat->owner_impossible ? 0 : TABLE_F_OWNER | TABLE_F_PERSIST;
    struct nat_table_state state;
    char tag[RULESET_TAG_MAX];
    bool same = true;

    ruleset_tag(&nat->groups, tag);
    for (int i = 0; i < TABLE_COUNT_; i++) {
        int result = nat_table_get(nat, (enum ruleset_table)i, &state, error);

        if (result < 0)
            return result;
        same = same && state.exists && state.flags == flags && strcmp(state.tag, tag) == 0;
    }
    *ret_same = same;
    return 0;
}

static int verify_once(struct nat *nat, const struct nat_batch *batch,
                       const struct nat_batch *constant, struct expected *expected, bool *ret_same,
                       struct error *error)
{
    int result = verify_tables(nat, ret_same, error);

    if (result == 0 && *ret_same)
        result = verify_chains(nat, expected, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_rules(nat, expected, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_sets(nat, expected, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_elements(nat, batch, constant, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_policies(nat, batch, expected, ret_same, error);
    return result;
}

#define TAG_START "moat "

/* Both tables are there, with the tag of another ruleset of ours. */
static int verdict_get(struct nat *nat, bool same, enum nat_verdict *ret_verdict,
                       struct error *error)
{
    struct nat_table_state state;
    char tag[RULESET_TAG_MAX];
    bool former = !same;

    ruleset_tag(&nat->groups, tag);
    for (int i = 0; former && i < TABLE_COUNT_; i++) {
        int result = nat_table_get(nat, (enum ruleset_table)i, &state, error);

        if (result < 0)
            return result;
        former = state.exists && strncmp(state.tag, TAG_START, strlen(TAG_START)) == 0 &&
                 strcmp(state.tag, tag) != 0;
    }
    *ret_verdict = same ? NAT_SAME : former ? NAT_FORMER : NAT_CHANGED;
    return 0;
}

int nat_verify(struct nat *nat, struct nat_batch *batch, enum nat_verdict *ret_verdict,
               struct error *error)
{
    struct nat_batch *constant = nat_batch_new_constant(nat);
    struct expected expected = {0};
    bool same = false;
    int result = constant ? expected_init(&expected, batch, error)
                          : error_set(error, ENOMEM, "cannot verify nftables");

    if (result == 0)
        result = -EINTR;
    for (int i = 0; i < VERIFY_TRIES && result == -EINTR; i++)
        result = verify_once(nat, batch, constant, &expected, &same, error);
    expected_deinit(&expected);
    nat_batch_free(constant);
    if (result == -ENOENT) { /* it went while we were looking */
        same = false;
        result = 0;
    }
    if (result == -EINTR)
        return error_set(error, EINTR, "nftables changes all the time");
    return result < 0 ? result : verdict_get(nat, same, ret_verdict, error);
}
