/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/ruleset.h"

#include <errno.h>
#include <libnftnl/rule.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "nat/rule.h"
#include "nat/rules.h"

/* --- rules --- */

static const struct rule_table *const rule_tables[] = {
    &rules_source, &rules_policy, &rules_translation, &rules_filter, &rules_refusal,
};

size_t ruleset_rule_count(void)
{
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rule_tables); i++)
        count += rule_tables[i]->count;
    return count;
}

static const struct rule_def *rule_get(size_t index)
{
    size_t i = 0;

    while (index >= rule_tables[i]->count)
        index -= rule_tables[i++]->count;
    return &rule_tables[i]->defs[index];
}

enum chain_id ruleset_rule_chain(size_t index)
{
    return rule_get(index)->chain;
}

const char *ruleset_rule_comment(size_t index)
{
    return rule_get(index)->comment;
}

static struct nftnl_rule *rule_build(size_t index, const struct ruleset_groups *groups)
{
    const struct rule_def *def = rule_get(index);
    struct rule rule;

    rule_init(&rule, RULESET_TABLE, chain_def_get(def->chain)->name, def->comment, groups);
    rule_set_family(&rule, ruleset_table_family(chain_table(def->chain)));
    for (size_t i = 0; i < RULE_WORDS && def->words[i]; i++)
        def->words[i](&rule);
    return rule_finish(&rule);
}

/* --- tag --- */

int ruleset_rule_format(const struct ruleset_groups *groups, size_t index, char *text, size_t size)
{
    struct nftnl_rule *rule = rule_build(index, groups);

    if (!rule)
        return -ENOMEM;
    int length = nftnl_rule_snprintf(text, size, rule, NFTNL_OUTPUT_DEFAULT, 0);
    nftnl_rule_free(rule);
    return length;
}

/* FNV-1a, 64 bits. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    return (hash ^ 0xff) * 0x100000001b3u;
}

static uint64_t hash_sets_and_chains(uint64_t hash)
{
    char text[128];

    for (size_t i = 0; i < SET_COUNT_; i++) {
        set_format((enum set_id)i, text, sizeof(text));
        hash = hash_text(hash, text);
    }
    for (size_t i = 0; i < CHAIN_COUNT_; i++) {
        const struct nft_chain *chain = chain_def_get((enum chain_id)i);

        snprintf(text, sizeof(text), "%s %s %u %d", chain->name, chain->type ? chain->type : "",
                 chain->hook, chain->priority);
        hash = hash_text(hash, text);
    }
    return hash;
}

void ruleset_tag(const struct ruleset_groups *groups, char ret_tag[RULESET_TAG_MAX])
{
    uint64_t hash = hash_sets_and_chains(0xcbf29ce484222325u);
    char text[2048];

    for (size_t i = 0; i < ruleset_rule_count(); i++)
        if (ruleset_rule_format(groups, i, text, sizeof(text)) >= 0)
            hash = hash_text(hash, text);
    snprintf(ret_tag, RULESET_TAG_MAX, "moat %016llx", (unsigned long long)hash);
}

/* --- messages --- */

static void append_table(struct nft_transaction *transaction, const struct ruleset_groups *groups,
                         enum ruleset_table table)
{
    for (size_t i = 0; i < SET_COUNT_; i++) {
        const struct set_def *def = set_def_get((enum set_id)i);

        if (def->table == table)
            nft_transaction_add_set(transaction, set_build((enum set_id)i), def->name);
    }
    for (size_t i = 0; i < CHAIN_COUNT_; i++)
        if (chain_table((enum chain_id)i) == table)
            nft_transaction_add_chain(transaction, RULESET_TABLE, chain_def_get((enum chain_id)i));
    for (size_t i = 0; i < ruleset_rule_count(); i++)
        if (chain_table(ruleset_rule_chain(i)) == table)
            nft_transaction_add_rule(transaction, rule_build(i, groups), ruleset_rule_comment(i));
}

void ruleset_append(struct nft_transaction *transaction, const struct ruleset_groups *groups,
                    uint32_t table_flags)
{
    uint8_t family = transaction->family;
    char tag[RULESET_TAG_MAX];

    ruleset_tag(groups, tag);
    for (int i = 0; i < TABLE_COUNT_; i++) {
        transaction->family = ruleset_table_family((enum ruleset_table)i);
        nft_transaction_add_table(transaction, RULESET_TABLE, tag, table_flags);
        append_table(transaction, groups, (enum ruleset_table)i);
    }
    transaction->family = family;
}
