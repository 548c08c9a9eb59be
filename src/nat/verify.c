/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compares the kernel's table with what a rebuild would make. The static part is not compared byte
 * by byte, which kernels give back in different forms, but by marks that nobody else sets: the hash
 * in the table's comment and the comment of every rule, in order. Elements are compared in full. */
#include "nat/table.h"

#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VERIFY_TRIES 5
#define REHASH_PAUSE_MAX_MS 8

/* --- chains --- */

struct chains {
    uint32_t seen; /* bits of enum chain_id */
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

    for (size_t i = 0; name && i < CHAIN_COUNT_; i++) {
        if (strcmp(name, chain_def_get((enum chain_id)i)->name) != 0)
            continue;
        chains->seen |= UINT32_C(1) << i;
        return chain_matches(chain, chain_def_get((enum chain_id)i));
    }
    return false;
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

static int verify_chains(struct nat *nat, bool *ret_same, struct error *error)
{
    struct chains chains = {0, true};
    int result =
        nft_socket_get(nat->socket, NFT_MSG_GETCHAIN, true, NULL, chain_parse, &chains, error);

    if (result == 0)
        *ret_same = chains.same && chains.seen == (UINT32_C(1) << CHAIN_COUNT_) - 1;
    return result;
}

/* --- rules --- */

struct rules {
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

static int comment_find(const struct nftnl_udata *attribute, void *userdata)
{
    const char **comment = userdata;
    const char *text = nftnl_udata_get(attribute);
    uint8_t length = nftnl_udata_len(attribute);

    if (nftnl_udata_type(attribute) == NFTNL_UDATA_RULE_COMMENT && length > 0 &&
        text[length - 1] == '\0')
        *comment = text;
    return 0;
}

static const char *rule_comment(const struct nftnl_rule *rule)
{
    uint32_t length = 0;
    const void *userdata = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &length);
    const char *comment = NULL;

    if (!userdata || nftnl_udata_parse(userdata, length, comment_find, &comment) < 0)
        return NULL;
    return comment;
}

static bool rule_check(const struct nftnl_rule *rule, struct rules *rules)
{
    const char *name = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
    const char *comment = rule_comment(rule);
    size_t chain = 0;

    while (name && chain < CHAIN_COUNT_ &&
           strcmp(name, chain_def_get((enum chain_id)chain)->name) != 0)
        chain++;
    if (!name || !comment || chain == CHAIN_COUNT_)
        return false;
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

static int verify_rules(struct nat *nat, bool *ret_same, struct error *error)
{
    struct rules rules = {.same = true};
    int result =
        nft_socket_get(nat->socket, NFT_MSG_GETRULE, true, rules_build, rule_parse, &rules, error);

    if (result == 0)
        *ret_same = rules.same && rules.count == ruleset_rule_count();
    return result;
}

/* --- sets --- */

struct sets {
    uint32_t seen; /* bits of enum set_id */
    bool same;
};

static_assert(SET_COUNT_ < 32 && CHAIN_COUNT_ < 32, "bits");

static bool set_check(const struct nftnl_set *set, struct sets *sets)
{
    const char *name = nftnl_set_get_str(set, NFTNL_SET_NAME);

    for (size_t i = 0; name && i < SET_COUNT_; i++) {
        if (strcmp(name, set_def_get((enum set_id)i)->name) != 0)
            continue;
        sets->seen |= UINT32_C(1) << i;
        return nftnl_set_get_u32(set, NFTNL_SET_KEY_LEN) == set_key_length((enum set_id)i);
    }
    return false;
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

static int verify_sets(struct nat *nat, bool *ret_same, struct error *error)
{
    struct sets sets = {0, true};
    int result =
        nft_socket_get(nat->socket, NFT_MSG_GETSET, true, sets_build, set_parse, &sets, error);

    if (result == 0)
        *ret_same = sets.same && sets.seen == (UINT32_C(1) << SET_COUNT_) - 1;
    return result;
}

/* --- elements --- */

struct dump {
    enum set_id set;
    struct nat_batch found; /* only its list is used */
    bool malformed;
};

/* Copies NFTA_SET_ELEM_KEY or _DATA, which must have exactly this length. */
static bool value_copy(const struct nlattr *nest, void *bytes, size_t length)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        if (mnl_attr_get_type(attribute) != NFTA_DATA_VALUE)
            continue;
        if (mnl_attr_get_payload_len(attribute) != length)
            return false;
        memcpy(bytes, mnl_attr_get_payload(attribute), length);
        return true;
    }
    return false;
}

static bool element_parse(const struct nlattr *nest, struct nat_element *element)
{
    size_t data_length = set_data_length((enum set_id)element->set);
    struct nlattr *attribute;
    bool key = false;
    bool data = data_length == 0;

    mnl_attr_for_each_nested(attribute, nest)
    {
        switch (mnl_attr_get_type(attribute)) {
        case NFTA_SET_ELEM_KEY:
            key = value_copy(attribute, element->key, set_key_length((enum set_id)element->set));
            break;
        case NFTA_SET_ELEM_DATA:
            data = value_copy(attribute, element->data, data_length);
            break;
        default: /* somebody gave it a timeout, a comment, … : it is not what we made */
            if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_PAD)
                return false;
        }
    }
    return key && data;
}

static int dump_push(struct dump *dump, const struct nlattr *nest)
{
    struct nat_batch *found = &dump->found;
    struct nat_element element = {.set = (uint8_t)dump->set, .add = true};

    if (found->count == found->capacity) {
        size_t capacity = found->capacity ? found->capacity * 2 : 256;
        struct nat_element *elements = realloc(found->elements, capacity * sizeof(*elements));

        if (!elements)
            return -ENOMEM;
        found->elements = elements;
        found->capacity = capacity;
    }
    if (!element_parse(nest, &element))
        dump->malformed = true;
    found->elements[found->count++] = element;
    return 0;
}

static int elements_parse(const struct nlmsghdr *message, void *userdata)
{
    struct nlattr *attribute;
    struct nlattr *nest;

    mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_LIST_ELEMENTS)
            continue;
        mnl_attr_for_each_nested(nest, attribute)
        {
            int result = dump_push(userdata, nest);

            if (result < 0)
                return result;
        }
    }
    return 0;
}

static void elements_build(struct nlmsghdr *message, void *userdata)
{
    const struct dump *dump = userdata;

    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set_def_get(dump->set)->name);
}

static int element_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct nat_element));
}

/* Sorts, and leaves out what is there twice. */
static size_t elements_normalize(struct nat_element *elements, size_t count)
{
    size_t kept = 0;

    if (count > 1)
        qsort(elements, count, sizeof(*elements), element_compare);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || element_compare(&elements[kept - 1], &elements[i]) != 0)
            elements[kept++] = elements[i];
    return kept;
}

static int dump_all(struct nat *nat, struct dump *dump, struct error *error)
{
    for (size_t i = 0; i < SET_COUNT_; i++) {
        dump->set = (enum set_id)i;
        int result = nft_socket_get(nat->socket, NFT_MSG_GETSETELEM, true, elements_build,
                                    elements_parse, dump, error);
        if (result < 0)
            return result;
    }
    return 0;
}

/* The same? If not, may another dump tell otherwise? */
static bool elements_judge(struct dump *dump, struct nat_element *wanted, size_t n_wanted,
                           bool *ret_retry)
{
    struct nat_batch *found = &dump->found;
    size_t n_found = elements_normalize(found->elements, found->count);
    bool same = !dump->malformed && n_wanted == n_found &&
                (n_found == 0 || memcmp(wanted, found->elements, n_found * sizeof(*wanted)) == 0);

    *ret_retry = !same && (n_found < found->count || n_found < n_wanted);
    return same;
}

static int verify_elements_once(struct nat *nat, struct nat_element *wanted, size_t n_wanted,
                                bool *ret_same, bool *ret_retry, struct error *error)
{
    struct dump dump = {0};
    int result = dump_all(nat, &dump, error);

    if (result == 0)
        *ret_same = elements_judge(&dump, wanted, n_wanted, ret_retry);
    free(dump.found.elements);
    return result;
}

/* The kernel grows a hash table behind its back for some milliseconds after many elements were
 * added; a dump meanwhile gives some of them twice and misses others. Such a dump is repeated. */
static int verify_elements(struct nat *nat, const struct nat_batch *batch, bool *ret_same,
                           struct error *error)
{
    _cleanup_free_ struct nat_element *wanted = calloc(batch->count + 1, sizeof(*wanted));
    bool retry = true;
    int result = 0;

    if (!wanted || batch->failed)
        return error_set(error, ENOMEM, "cannot verify nftables");
    if (batch->count > 0)
        memcpy(wanted, batch->elements, batch->count * sizeof(*wanted));
    size_t n_wanted = elements_normalize(wanted, batch->count);
    for (long pause_ms = 1; result == 0 && retry; pause_ms *= 2) {
        result = verify_elements_once(nat, wanted, n_wanted, ret_same, &retry, error);
        if (pause_ms > REHASH_PAUSE_MAX_MS)
            break;
        if (result == 0 && retry)
            nanosleep(&(struct timespec){.tv_nsec = pause_ms * 1000000}, NULL);
    }
    return result;
}

/* --- all of it --- */

static int verify_table(struct nat *nat, bool *ret_same, struct error *error)
{
    struct nat_table_state state;
    char tag[RULESET_TAG_MAX];
    int result = nat_table_get(nat, &state, error);

    if (result < 0)
        return result;
    ruleset_tag(&nat->groups, tag);
    uint32_t flags = nat->owner_impossible ? 0 : TABLE_F_OWNER | TABLE_F_PERSIST;
    *ret_same = state.exists && state.flags == flags && strcmp(state.tag, tag) == 0;
    return 0;
}

static int verify_once(struct nat *nat, const struct nat_batch *batch, bool *ret_same,
                       struct error *error)
{
    int result = verify_table(nat, ret_same, error);

    if (result == 0 && *ret_same)
        result = verify_chains(nat, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_rules(nat, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_sets(nat, ret_same, error);
    if (result == 0 && *ret_same)
        result = verify_elements(nat, batch, ret_same, error);
    return result;
}

int nat_verify(struct nat *nat, struct nat_batch *batch, bool *ret_same, struct error *error)
{
    bool same = false;
    int result = -EINTR;

    for (int i = 0; i < VERIFY_TRIES && result == -EINTR; i++)
        result = verify_once(nat, batch, &same, error);
    if (result == -ENOENT) { /* it went while we were looking */
        same = false;
        result = 0;
    }
    if (result == -EINTR)
        return error_set(error, EINTR, "nftables changes all the time");
    if (result == 0)
        *ret_same = same;
    return result;
}
