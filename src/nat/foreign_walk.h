/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Following rules without knowing everything: what a match that is not understood would say is left
 * open, and what follows from it is remembered as possible. Used by both kinds of rules (foreign.c,
 * foreign_legacy.c). */
#pragma once

#include "nat/foreign.h"

enum foreign_match { MATCH_NO, MATCH_MAYBE, MATCH_YES };

enum foreign_action {
    ACTION_NONE, /* on to the next rule */
    ACTION_ACCEPT,
    ACTION_DROP, /* or reject */
    ACTION_RETURN,
    ACTION_JUMP,
    ACTION_GOTO,
    ACTION_UNKNOWN, /* any of the first three */
};

/* What one rule does with the packet. */
struct foreign_step {
    enum foreign_match match;
    enum foreign_action action;
    char chain[128]; /* of a jump; the caller's own kind of name */
};

/* What may have happened before the end that was certain. */
struct foreign_doubts {
    bool accepted;
    bool dropped;
};

#define FOREIGN_DEPTH_MAX 16 /* jumps within jumps, as the kernel has it */

/* What the end of a base chain means, with what may have happened on the way. */
enum foreign_verdict foreign_conclude(bool dropped, const struct foreign_doubts *doubts);

/* All chains and rules of nf_tables that are not ours; NULL behind the last. */
struct nftnl_chain;
struct nftnl_rule;
const struct nftnl_chain *foreign_chain_get(const struct foreign *foreign, size_t index);
const struct nftnl_rule *foreign_rule_get(const struct foreign *foreign, size_t index);
/* What one chain makes of the packet; it passes those that it does not see. */
enum foreign_verdict foreign_base_ask(const struct foreign *foreign,
                                      const struct nftnl_chain *chain,
                                      const struct foreign_packet *packet);

/* Matches and targets of xtables, which nf_tables carries too (nft_compat). */
enum foreign_match foreign_xt_match(const char *name, unsigned revision, const void *info,
                                    size_t length);
enum foreign_action foreign_xt_target(const char *name);

/* A rule of nf_tables. */
void foreign_rule_follow(struct nat *nat, const struct nftnl_rule *rule,
                         const struct foreign_packet *packet, struct foreign_step *ret_step);

/* The element that a set of that table has for the key. ret_step: its verdict, where it is a map of
 * verdicts. */
enum foreign_match foreign_set_find(struct nat *nat, uint32_t family, const char *table,
                                    const char *set, const void *key, size_t length,
                                    struct foreign_step *ret_step);

/* The filter table of iptables-legacy of one family; NULL where none is in use. */
struct foreign_legacy;
int foreign_legacy_load(uint8_t family, struct foreign_legacy **ret_legacy, struct error *error);
void foreign_legacy_free(struct foreign_legacy *legacy); /* accepts NULL */
enum foreign_verdict foreign_legacy_ask(const struct foreign_legacy *legacy,
                                        const struct foreign_packet *packet);
