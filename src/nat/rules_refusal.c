/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What becomes of a connection that is refused (refuse), or allowed but one too many (conns,
 * limited): it is counted, told of where asked for, and answered (reject_it). */
#include "nat/rules.h"

#include <libnftnl/expr.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/cleanup.h"
#include "nat/ruleset.h"
#include "nat/words.h"

/* From an endpoint of the set. */
static void endpoint4_in(struct rule *rule, enum set_id set)
{
    word_ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_load_source4(rule, 1);
    word_lookup(rule, set);
}

static void endpoint6_in(struct rule *rule, enum set_id set)
{
    word_ip6(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    word_load_source6(rule, 1);
    word_lookup(rule, set);
}

static void count_denied4(struct rule *rule)
{
    endpoint4_in(rule, SET_DENIED4);
}

static void count_denied6(struct rule *rule)
{
    endpoint6_in(rule, SET_DENIED6);
}

static void from_logged4(struct rule *rule)
{
    endpoint4_in(rule, SET_LOGGED4);
}

static void from_logged6(struct rule *rule)
{
    endpoint6_in(rule, SET_LOGGED6);
}

static void from_silent4(struct rule *rule)
{
    endpoint4_in(rule, SET_SILENT4);
}

static void from_silent6(struct rule *rule)
{
    endpoint6_in(rule, SET_SILENT6);
}

static void tell_denied(struct rule *rule)
{
    word_tell(rule, RULESET_LOG_DENIED);
}

static void tell_limited(struct rule *rule)
{
    word_tell(rule, RULESET_LOG_LIMITED);
}

static void over_conns4(struct rule *rule)
{
    endpoint4_in(rule, SET_CONNS4);
}

static void over_conns6(struct rule *rule)
{
    endpoint6_in(rule, SET_CONNS6);
}

static void over_rate4(struct rule *rule)
{
    endpoint4_in(rule, SET_RATE4);
}

static void over_rate6(struct rule *rule)
{
    endpoint6_in(rule, SET_RATE6);
}

static void goto_limited(struct rule *rule)
{
    word_goto(rule, CHAIN_LIMITED);
}

static void goto_reject(struct rule *rule)
{
    word_goto(rule, CHAIN_REJECT);
}

static void reject(struct rule *rule, uint32_t type, uint8_t code)
{
    struct nftnl_expr *expr = rule_add(rule, "reject");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_REJECT_TYPE, type);
    nftnl_expr_set_u8(expr, NFTNL_EXPR_REJECT_CODE, code);
}

static void reject_by_reset(struct rule *rule)
{
    reject(rule, NFT_REJECT_TCP_RST, 0);
}

static void reject_by_icmp(struct rule *rule)
{
    reject(rule, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
}

/* What a closed port says. */
static void reject_by_closed_port(struct rule *rule)
{
    reject(rule, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH);
}

static const struct rule_def rule_defs[] = {
    {CHAIN_REFUSE, "no connection", {word_invalid, word_drop_it}},
    {CHAIN_REFUSE, "counted", {count_denied4}},
    {CHAIN_REFUSE, "counted, IPv6", {count_denied6}},
    {CHAIN_REFUSE, "told", {from_logged4, tell_denied}},
    {CHAIN_REFUSE, "told, IPv6", {from_logged6, tell_denied}},
    {CHAIN_REFUSE, "refused", {goto_reject}},

    {CHAIN_CONNS, "too many a second", {over_rate4, goto_limited}},
    {CHAIN_CONNS, "too many a second, IPv6", {over_rate6, goto_limited}},
    {CHAIN_CONNS, "too many at once", {over_conns4, goto_limited}},
    {CHAIN_CONNS, "too many at once, IPv6", {over_conns6, goto_limited}},

    {CHAIN_LIMITED, "counted", {count_denied4}},
    {CHAIN_LIMITED, "counted, IPv6", {count_denied6}},
    {CHAIN_LIMITED, "told", {from_logged4, tell_limited}},
    {CHAIN_LIMITED, "told, IPv6", {from_logged6, tell_limited}},
    {CHAIN_LIMITED, "refused", {goto_reject}},

    {CHAIN_REJECT, "in silence", {from_silent4, word_drop_it}},
    {CHAIN_REJECT, "in silence, IPv6", {from_silent6, word_drop_it}},
    {CHAIN_REJECT, "refused by reset", {word_tcp, reject_by_reset}},
    {CHAIN_REJECT, "localhost of a guest", {word_to_localhost, reject_by_closed_port}},
    {CHAIN_REJECT, "refused by ICMP", {reject_by_icmp}},
};

const struct rule_table rules_refusal = {rule_defs, ARRAY_SIZE(rule_defs)};
