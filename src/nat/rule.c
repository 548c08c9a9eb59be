/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/rule.h"

#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>

#define MESSAGE_ROOM 4096 /* the longest rule takes less than a quarter of it */

/* --- expressions --- */

static bool put_comment(struct nftnl_rule *rule, const char *comment)
{
    struct nftnl_udata_buf *userdata = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);

    if (!userdata)
        return false;
    bool put = nftnl_udata_put_strz(userdata, NFTNL_UDATA_RULE_COMMENT, comment) &&
               nftnl_rule_set_data(rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(userdata),
                                   nftnl_udata_buf_len(userdata)) == 0;
    nftnl_udata_buf_free(userdata);
    return put;
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

const char *rule_comment_get(const struct nftnl_rule *rule)
{
    uint32_t length = 0;
    const void *userdata = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &length);
    const char *comment = NULL;

    if (userdata && nftnl_udata_parse(userdata, length, comment_find, &comment) < 0)
        return NULL;
    return comment;
}

void rule_init(struct rule *rule, const char *table, const char *chain, const char *comment,
               const void *context)
{
    *rule = (struct rule){.nftnl = nftnl_rule_alloc(), .context = context};
    rule->failed = !rule->nftnl || nftnl_rule_set_str(rule->nftnl, NFTNL_RULE_TABLE, table) < 0 ||
                   nftnl_rule_set_str(rule->nftnl, NFTNL_RULE_CHAIN, chain) < 0 ||
                   !put_comment(rule->nftnl, comment);
}

void rule_set_family(struct rule *rule, uint8_t family)
{
    if (rule->nftnl)
        nftnl_rule_set_u32(rule->nftnl, NFTNL_RULE_FAMILY, family);
}

struct nftnl_rule *rule_finish(struct rule *rule)
{
    if (!rule->failed)
        return rule->nftnl;
    if (rule->nftnl)
        nftnl_rule_free(rule->nftnl);
    return NULL;
}

struct nftnl_expr *rule_add(struct rule *rule, const char *name)
{
    struct nftnl_expr *expr = rule->nftnl ? nftnl_expr_alloc(name) : NULL;

    if (!expr) {
        rule->failed = true;
        return NULL;
    }
    nftnl_rule_add_expr(rule->nftnl, expr);
    return expr;
}

void rule_load_meta(struct rule *rule, enum nft_meta_keys key, unsigned reg)
{
    struct nftnl_expr *expr = rule_add(rule, "meta");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_META_DREG, NFT_REG32_00 + reg);
}

void rule_load_ct(struct rule *rule, enum nft_ct_keys key)
{
    struct nftnl_expr *expr = rule_add(rule, "ct");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_CT_DREG, NFT_REG32_00);
}

void rule_load_payload(struct rule *rule, enum nft_payload_bases base, uint32_t offset,
                       uint32_t length, unsigned reg)
{
    struct nftnl_expr *expr = rule_add(rule, "payload");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_LEN, length);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG32_00 + reg);
}

void rule_has_header(struct rule *rule, enum nft_exthdr_op op, uint8_t type)
{
    struct nftnl_expr *expr = rule_add(rule, "exthdr");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_EXTHDR_OP, op);
    nftnl_expr_set_u8(expr, NFTNL_EXPR_EXTHDR_TYPE, type);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_EXTHDR_OFFSET, 0);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_EXTHDR_LEN, 1);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_EXTHDR_FLAGS, NFT_EXTHDR_F_PRESENT);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_EXTHDR_DREG, NFT_REG32_00);
    rule_compare_u8(rule, NFT_CMP_EQ, 1);
}

void rule_load_value(struct rule *rule, const void *value, uint32_t length, unsigned reg)
{
    struct nftnl_expr *expr = rule_add(rule, "immediate");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_DREG, NFT_REG32_00 + reg);
    rule->failed |= nftnl_expr_set(expr, NFTNL_EXPR_IMM_DATA, value, length) < 0;
}

void rule_compare(struct rule *rule, enum nft_cmp_ops op, const void *value, uint32_t length)
{
    struct nftnl_expr *expr = rule_add(rule, "cmp");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_CMP_SREG, NFT_REG32_00);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_CMP_OP, op);
    rule->failed |= nftnl_expr_set(expr, NFTNL_EXPR_CMP_DATA, value, length) < 0;
}

void rule_compare_u8(struct rule *rule, enum nft_cmp_ops op, uint8_t value)
{
    rule_compare(rule, op, &value, sizeof(value));
}

void rule_compare_u32(struct rule *rule, enum nft_cmp_ops op, uint32_t value)
{
    rule_compare(rule, op, &value, sizeof(value));
}

void rule_mask(struct rule *rule, const void *bits, uint32_t length)
{
    static const uint8_t zero[16];
    struct nftnl_expr *expr = rule_add(rule, "bitwise");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_SREG, NFT_REG32_00);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_DREG, NFT_REG32_00);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_LEN, length);
    rule->failed |= nftnl_expr_set(expr, NFTNL_EXPR_BITWISE_MASK, bits, length) < 0 ||
                    nftnl_expr_set(expr, NFTNL_EXPR_BITWISE_XOR, zero, length) < 0;
}

void rule_lookup(struct rule *rule, const char *set, enum rule_lookup kind)
{
    struct nftnl_expr *expr = rule_add(rule, "lookup");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_SREG, NFT_REG32_00);
    rule->failed |= nftnl_expr_set_str(expr, NFTNL_EXPR_LOOKUP_SET, set) < 0;
    if (kind == RULE_LOOKUP_NOT)
        nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    if (kind == RULE_LOOKUP_MAP)
        nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_DREG, NFT_REG32_00);
    if (kind == RULE_LOOKUP_VERDICT)
        nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
}

void rule_verdict(struct rule *rule, uint32_t code, const char *chain)
{
    struct nftnl_expr *expr = rule_add(rule, "immediate");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_VERDICT, code);
    if (chain)
        rule->failed |= nftnl_expr_set_str(expr, NFTNL_EXPR_IMM_CHAIN, chain) < 0;
}

void rule_load_address_type(struct rule *rule)
{
    struct nftnl_expr *expr = rule_add(rule, "fib");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_DREG, NFT_REG32_00);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
}

/* --- objects of a transaction --- */

static struct nftnl_table *table_build(const char *name, const char *comment, uint32_t flags)
{
    struct nftnl_table *table = nftnl_table_alloc();
    struct nftnl_udata_buf *userdata = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
    bool set = table && userdata && nftnl_table_set_str(table, NFTNL_TABLE_NAME, name) == 0 &&
               nftnl_udata_put_strz(userdata, NFTNL_UDATA_TABLE_COMMENT, comment) &&
               nftnl_table_set_data(table, NFTNL_TABLE_USERDATA, nftnl_udata_buf_data(userdata),
                                    nftnl_udata_buf_len(userdata)) == 0;

    if (userdata)
        nftnl_udata_buf_free(userdata);
    if (set) {
        nftnl_table_set_u32(table, NFTNL_TABLE_FLAGS, flags);
        return table;
    }
    if (table)
        nftnl_table_free(table);
    return NULL;
}

void nft_transaction_add_table(struct nft_transaction *transaction, const char *name,
                               const char *comment, uint32_t flags)
{
    struct nftnl_table *table = table_build(name, comment, flags);
    struct nlmsghdr *message = nft_transaction_open(transaction, NFT_MSG_NEWTABLE, NLM_F_CREATE,
                                                    MESSAGE_ROOM, "the table");

    if (table && message) {
        nftnl_table_nlmsg_build_payload(message, table);
        nft_transaction_close(transaction, message);
    }
    if (table)
        nftnl_table_free(table);
    else
        transaction->failed = true;
}

void nft_transaction_delete_table(struct nft_transaction *transaction, const char *name)
{
    struct nlmsghdr *message = nft_transaction_open(transaction, NFT_MSG_DELTABLE, 0, MESSAGE_ROOM,
                                                    "the table's deletion");

    if (!message)
        return;
    mnl_attr_put_strz(message, NFTA_TABLE_NAME, name);
    nft_transaction_close(transaction, message);
}

static struct nftnl_chain *chain_build(const char *table, const struct nft_chain *def)
{
    struct nftnl_chain *chain = nftnl_chain_alloc();

    if (!chain)
        return NULL;
    bool set = nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, table) == 0 &&
               nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, def->name) == 0;
    if (def->type) {
        set = set && nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, def->type) == 0;
        nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, def->hook);
        nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, def->priority);
        nftnl_chain_set_u32(chain, NFTNL_CHAIN_POLICY, NF_ACCEPT);
    }
    if (!set) {
        nftnl_chain_free(chain);
        return NULL;
    }
    return chain;
}

void nft_transaction_add_chain(struct nft_transaction *transaction, const char *table,
                               const struct nft_chain *def)
{
    struct nftnl_chain *chain = chain_build(table, def);
    struct nlmsghdr *message =
        nft_transaction_open(transaction, NFT_MSG_NEWCHAIN, NLM_F_CREATE, MESSAGE_ROOM, def->name);

    if (chain && message) {
        nftnl_chain_nlmsg_build_payload(message, chain);
        nft_transaction_close(transaction, message);
    }
    if (chain)
        nftnl_chain_free(chain);
    else
        transaction->failed = true;
}

void nft_transaction_add_set(struct nft_transaction *transaction, struct nftnl_set *set,
                             const char *label)
{
    struct nlmsghdr *message =
        nft_transaction_open(transaction, NFT_MSG_NEWSET, NLM_F_CREATE, MESSAGE_ROOM, label);

    if (set && message) {
        nftnl_set_nlmsg_build_payload(message, set);
        nft_transaction_close(transaction, message);
    }
    if (set)
        nftnl_set_free(set);
    else
        transaction->failed = true;
}

void nft_transaction_add_rule(struct nft_transaction *transaction, struct nftnl_rule *rule,
                              const char *label)
{
    struct nlmsghdr *message = nft_transaction_open(
        transaction, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, MESSAGE_ROOM, label);

    if (rule && message) {
        nftnl_rule_nlmsg_build_payload(message, rule);
        nft_transaction_close(transaction, message);
    }
    if (rule)
        nftnl_rule_free(rule);
    else
        transaction->failed = true;
}
