/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rules are written in words: a rule is a row of a table, each word of it a function that
 * appends the expressions for one match or one action (words.h, or the file's own). As in every
 * nf_tables rule, a match that fails ends the rule. Registers: NFT_REG32_00 on, four bytes each; a
 * key of several fields lies in consecutive ones. One table for each thing that the rules do. */
#pragma once

#include <stddef.h>

#include "nat/chains.h"
#include "nat/rule.h"

typedef void (*rule_word)(struct rule *rule);

#define RULE_WORDS 4

struct rule_def {
    enum chain_id chain;
    const char *comment; /* its name; unique in the chain */
    rule_word words[RULE_WORDS];
};

/* Rules of whole chains: no chain has rules in two tables. */
struct rule_table {
    const struct rule_def *defs;
    size_t count;
};

extern const struct rule_table rules_source;      /* what endpoints may send from */
extern const struct rule_table rules_policy;      /* what guests may open connections to */
extern const struct rule_table rules_translation; /* published ports, the way out */
extern const struct rule_table rules_filter;      /* between networks, guests and host */
extern const struct rule_table rules_refusal;     /* limits; how a refusal is counted and told */
