/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tables `inet moat` and `bridge moat` consist of: sets (sets.h), chains (chains.h) and
 * rules (rules.h), all constant. Only elements of the sets (and policies) change afterwards
 * (batch.c). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "nat/chains.h"
#include "nat/nft.h"
#include "nat/sets.h"

#define RULESET_TAG_MAX 32

/* What is dropped is told of by NFLOG: the group, the prefixes, and how much of a packet. */
#define RULESET_LOG_GROUP 28013
#define RULESET_LOG_DROPPED "moat dropped"
#define RULESET_LOG_DENIED "moat denied"
#define RULESET_LOG_LIMITED "moat limited"
#define RULESET_LOG_LENGTH 128 /* bytes: IPv6 with some extension headers, and ports */

/* 169.254.109.1: stands for a guest's localhost between the guest and the host (localhost.c). */
#define NAT_LOCALHOST_WIRE 169, 254, 109, 1

/* How links of ours are known: (group & mask) == base. */
struct ruleset_groups {
    uint32_t base;
    uint32_t mask;
};

/* The rules chain by chain, in their order; each has a comment of its own, which nat_verify looks
 * for. */
size_t ruleset_rule_count(void);
enum chain_id ruleset_rule_chain(size_t index);
const char *ruleset_rule_comment(size_t index);

/* Names this ruleset in the table's comment: "moat <hash of everything static>". */
void ruleset_tag(const struct ruleset_groups *groups, char ret_tag[RULESET_TAG_MAX]);
/* Text of a rule's expressions, one per line, for tests and the tag. Returns what snprintf returns,
 * or -ENOMEM. */
int ruleset_rule_format(const struct ruleset_groups *groups, size_t index, char *text, size_t size);

/* Appends the tables (with these NFT_TABLE_F_* flags), sets, chains and rules. */
void ruleset_append(struct nft_transaction *transaction, const struct ruleset_groups *groups,
                    uint32_t table_flags);
