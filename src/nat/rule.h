/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing rules, chains and tables through libnftnl: what every ruleset of ours is made with. */
#pragma once

#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <linux/netfilter/nf_tables.h>
#include <stdbool.h>
#include <stdint.h>

#include "nat/nft.h"

/* --- rules --- */

/* A rule that is being written. Registers are numbered in units of four bytes; rule_compare,
 * rule_mask and rule_lookup work on register 0 and those after it. A match that fails ends the
 * rule. */
struct rule {
    struct nftnl_rule *nftnl;
    const void *context; /* the caller's */
    bool failed;         /* out of memory */
};

void rule_init(struct rule *rule, const char *table, const char *chain, const char *comment,
               const void *context);
void rule_set_family(struct rule *rule, uint8_t family); /* inet else */
/* The finished rule, the caller's; NULL when there was no memory. */
struct nftnl_rule *rule_finish(struct rule *rule);

/* The comment of a rule that the kernel told of, in its memory; NULL for none. */
const char *rule_comment_get(const struct nftnl_rule *rule);

/* An expression to fill, owned by the rule; NULL when there is no memory. */
struct nftnl_expr *rule_add(struct rule *rule, const char *name);

void rule_load_meta(struct rule *rule, enum nft_meta_keys key, unsigned reg);
void rule_load_ct(struct rule *rule, enum nft_ct_keys key);
void rule_load_payload(struct rule *rule, enum nft_payload_bases base, uint32_t offset,
                       uint32_t length, unsigned reg);
/* What the destination is to the host's routing (RTN_LOCAL, …), in register 0. */
void rule_load_address_type(struct rule *rule);
/* The packet has this IPv4 option or IPv6 extension header. */
void rule_has_header(struct rule *rule, enum nft_exthdr_op op, uint8_t type);
void rule_load_value(struct rule *rule, const void *value, uint32_t length, unsigned reg);
void rule_compare(struct rule *rule, enum nft_cmp_ops op, const void *value, uint32_t length);
void rule_compare_u8(struct rule *rule, enum nft_cmp_ops op, uint8_t value);
void rule_compare_u32(struct rule *rule, enum nft_cmp_ops op, uint32_t value);
/* Register 0 (and those after it) &= bits, of one to sixteen bytes. */
void rule_mask(struct rule *rule, const void *bits, uint32_t length);

enum rule_lookup {
    RULE_LOOKUP,
    RULE_LOOKUP_NOT,
    RULE_LOOKUP_MAP,    /* data to register 0 on */
    RULE_LOOKUP_VERDICT /* a map of verdicts: follows the one found */
};
void rule_lookup(struct rule *rule, const char *set, enum rule_lookup kind);
/* code: NF_ACCEPT, NF_DROP, NFT_GOTO, …; chain for NFT_GOTO and NFT_JUMP only. */
void rule_verdict(struct rule *rule, uint32_t code, const char *chain);

/* --- objects of a transaction --- */

struct nft_chain {
    const char *name;
    const char *type; /* NULL: not a base chain */
    uint32_t hook;    /* NF_INET_* */
    int32_t priority;
};

/* These append the object; NULL for set or rule counts as "out of memory". The object is freed. */
void nft_transaction_add_table(struct nft_transaction *transaction, const char *name,
                               const char *comment, uint32_t flags);
void nft_transaction_delete_table(struct nft_transaction *transaction, const char *name);
void nft_transaction_add_chain(struct nft_transaction *transaction, const char *table,
                               const struct nft_chain *def);
void nft_transaction_add_set(struct nft_transaction *transaction, struct nftnl_set *set,
                             const char *label);
void nft_transaction_add_rule(struct nft_transaction *transaction, struct nftnl_rule *rule,
                              const char *label);
