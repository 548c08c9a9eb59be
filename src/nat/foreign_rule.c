/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One rule of nf_tables, followed with a packet. The registers hold what is known: fields of the
 * packet that were made up stay unknown, and so does all that an expression writes which is not
 * understood here. */
#include <stdio.h>

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/xt_conntrack.h>
#include <net/ethernet.h>
#include <string.h>

#include "base/cleanup.h"
#include "nat/foreign_walk.h"

#define REGISTERS 16 /* of four bytes */
#define REGISTER_BYTES ((size_t)REGISTERS * 4)

struct machine {
    struct nat *nat;
    const struct nftnl_rule *rule;
    const struct foreign_packet *packet;
    uint8_t bytes[REGISTER_BYTES];
    bool known[REGISTER_BYTES];
    struct foreign_step step;
};

/* --- registers --- */

/* Byte offset of a register: four of sixteen bytes, or sixteen of four. */
static size_t register_offset(uint32_t number)
{
    if (number >= NFT_REG_1 && number <= NFT_REG_4)
        return (size_t)(number - NFT_REG_1) * 16;
    if (number >= NFT_REG32_00 && number <= NFT_REG32_15)
        return (size_t)(number - NFT_REG32_00) * 4;
    return REGISTER_BYTES;
}

static void forget_all(struct machine *machine)
{
    memset(machine->known, 0, sizeof(machine->known));
}

static void put(struct machine *machine, uint32_t number, const void *value, size_t length)
{
    size_t offset = register_offset(number);
    size_t padded = (length + 3) & ~(size_t)3; /* with zeros, as the kernel does */

    if (offset + padded > REGISTER_BYTES) {
        forget_all(machine);
        return;
    }
    memset(machine->bytes + offset, 0, padded);
    memcpy(machine->bytes + offset, value, length);
    memset(machine->known + offset, true, padded);
}

static void put_unknown(struct machine *machine, uint32_t number, size_t length)
{
    size_t offset = register_offset(number);

    for (size_t i = offset; i < offset + length && i < REGISTER_BYTES; i++)
        machine->known[i] = false;
}

/* NULL when some of it is not known. */
static const uint8_t *get(const struct machine *machine, uint32_t number, size_t length)
{
    size_t offset = register_offset(number);

    if (offset + length > REGISTER_BYTES)
        return NULL;
    for (size_t i = offset; i < offset + length; i++)
        if (!machine->known[i])
            return NULL;
    return machine->bytes + offset;
}

static void matched(struct machine *machine, enum foreign_match match)
{
    if (match < machine->step.match)
        machine->step.match = match;
}

/* --- what the packet has --- */

static void put_name(struct machine *machine, uint32_t number, const char *name)
{
    char padded[IFNAMSIZ] = "";

    snprintf(padded, sizeof(padded), "%s", name);
    put(machine, number, padded, sizeof(padded));
}

static void put_index(struct machine *machine, uint32_t number, const char *name)
{
    uint32_t index = name[0] ? if_nametoindex(name) : 0;

    put(machine, number, &index, sizeof(index));
}

static void load_meta(struct machine *machine, const struct nftnl_expr *expr)
{
    const struct foreign_packet *packet = machine->packet;
    uint32_t number = nftnl_expr_get_u32(expr, NFTNL_EXPR_META_DREG);
    bool six = packet->source.family == AF_INET6;
    uint8_t family = six ? NFPROTO_IPV6 : NFPROTO_IPV4;
    uint16_t type = htons(six ? ETHERTYPE_IPV6 : ETHERTYPE_IP);

    if (!nftnl_expr_is_set(expr, NFTNL_EXPR_META_DREG))
        return; /* it sets something of the packet */
    switch (nftnl_expr_get_u32(expr, NFTNL_EXPR_META_KEY)) {
    case NFT_META_IIFNAME:
        put_name(machine, number, packet->in);
        break;
    case NFT_META_OIFNAME:
        put_name(machine, number, packet->out);
        break;
    case NFT_META_IIF:
        put_index(machine, number, packet->in);
        break;
    case NFT_META_OIF:
        put_index(machine, number, packet->out);
        break;
    case NFT_META_NFPROTO:
        put(machine, number, &family, sizeof(family));
        break;
    case NFT_META_L4PROTO:
        put(machine, number, &packet->protocol, sizeof(packet->protocol));
        break;
    case NFT_META_PROTOCOL:
        put(machine, number, &type, sizeof(type));
        break;
    default:
        put_unknown(machine, number, IFNAMSIZ);
    }
}

/* The header as far as it is known. Returns its length; of other bytes nothing is known. */
#define HEADER_BYTES 40

static void network_header(const struct foreign_packet *packet, uint8_t bytes[HEADER_BYTES],
                           bool known[HEADER_BYTES])
{
    bool six = packet->source.family == AF_INET6;
    size_t size = six ? 16 : 4;
    size_t source = six ? 8 : 12;
    size_t protocol = six ? 6 : 9;

    bytes[protocol] = packet->protocol;
    known[protocol] = true;
    memcpy(bytes + source, packet->source.bytes, size);
    memcpy(bytes + source + size, packet->destination.bytes, size);
    memset(known + source, true, 2 * size);
}

static void transport_header(const struct foreign_packet *packet, uint8_t bytes[HEADER_BYTES],
                             bool known[HEADER_BYTES])
{
    const uint16_t ports[] = {htons(packet->source_port), htons(packet->destination_port)};

    memcpy(bytes, ports, sizeof(ports));
    memset(known, true, sizeof(ports));
    if (packet->protocol == IPPROTO_TCP) {
        bytes[13] = 0x02; /* SYN alone */
        known[13] = true;
    }
}

static void load_payload(struct machine *machine, const struct nftnl_expr *expr)
{
    uint32_t number = nftnl_expr_get_u32(expr, NFTNL_EXPR_PAYLOAD_DREG);
    uint32_t base = nftnl_expr_get_u32(expr, NFTNL_EXPR_PAYLOAD_BASE);
    uint32_t offset = nftnl_expr_get_u32(expr, NFTNL_EXPR_PAYLOAD_OFFSET);
    uint32_t length = nftnl_expr_get_u32(expr, NFTNL_EXPR_PAYLOAD_LEN);
    uint8_t bytes[HEADER_BYTES] = {0};
    bool known[HEADER_BYTES] = {false};
    bool all = length > 0 && offset < HEADER_BYTES && length <= HEADER_BYTES - offset;

    if (!nftnl_expr_is_set(expr, NFTNL_EXPR_PAYLOAD_DREG))
        return;
    if (base == NFT_PAYLOAD_NETWORK_HEADER)
        network_header(machine->packet, bytes, known);
    else if (base == NFT_PAYLOAD_TRANSPORT_HEADER)
        transport_header(machine->packet, bytes, known);
    for (uint32_t i = 0; all && i < length; i++)
        all = known[offset + i];
    if (all)
        put(machine, number, bytes + offset, length);
    else
        put_unknown(machine, number, length);
}

static void load_ct(struct machine *machine, const struct nftnl_expr *expr)
{
    uint32_t number = nftnl_expr_get_u32(expr, NFTNL_EXPR_CT_DREG);
    uint32_t state = NF_CT_STATE_BIT(IP_CT_NEW);
    uint32_t status = machine->packet->published ? IPS_DST_NAT : 0;

    if (!nftnl_expr_is_set(expr, NFTNL_EXPR_CT_DREG))
        return;
    switch (nftnl_expr_get_u32(expr, NFTNL_EXPR_CT_KEY)) {
    case NFT_CT_STATE:
        put(machine, number, &state, sizeof(state));
        break;
    case NFT_CT_STATUS:
        put(machine, number, &status, sizeof(status));
        break;
    default:
        put_unknown(machine, number, 16);
    }
}

/* --- matches --- */

static bool compares(uint32_t op, int order)
{
    switch (op) {
    case NFT_CMP_EQ:
        return order == 0;
    case NFT_CMP_NEQ:
        return order != 0;
    case NFT_CMP_LT:
        return order < 0;
    case NFT_CMP_LTE:
        return order <= 0;
    case NFT_CMP_GT:
        return order > 0;
    default:
        return order >= 0;
    }
}

static void compare(struct machine *machine, const struct nftnl_expr *expr)
{
    uint32_t length = 0;
    const void *data = nftnl_expr_get(expr, NFTNL_EXPR_CMP_DATA, &length);
    const uint8_t *value =
        get(machine, nftnl_expr_get_u32(expr, NFTNL_EXPR_CMP_SREG), data ? length : 0);

    if (!data || !value)
        matched(machine, MATCH_MAYBE);
    else if (!compares(nftnl_expr_get_u32(expr, NFTNL_EXPR_CMP_OP), memcmp(value, data, length)))
        matched(machine, MATCH_NO);
}

static void range(struct machine *machine, const struct nftnl_expr *expr)
{
    uint32_t length = 0;
    uint32_t length_to = 0;
    const void *from = nftnl_expr_get(expr, NFTNL_EXPR_RANGE_FROM_DATA, &length);
    const void *to = nftnl_expr_get(expr, NFTNL_EXPR_RANGE_TO_DATA, &length_to);
    const uint8_t *value =
        get(machine, nftnl_expr_get_u32(expr, NFTNL_EXPR_RANGE_SREG), from ? length : 0);
    bool negated = nftnl_expr_get_u32(expr, NFTNL_EXPR_RANGE_OP) == NFT_RANGE_NEQ;

    if (!from || !to || !value || length != length_to)
        matched(machine, MATCH_MAYBE);
    else if ((memcmp(value, from, length) >= 0 && memcmp(value, to, length) <= 0) == negated)
        matched(machine, MATCH_NO);
}

static void bitwise(struct machine *machine, const struct nftnl_expr *expr)
{
    uint32_t target = nftnl_expr_get_u32(expr, NFTNL_EXPR_BITWISE_DREG);
    uint32_t mask_length = 0;
    uint32_t xor_length = 0;
    const uint8_t *mask = nftnl_expr_get(expr, NFTNL_EXPR_BITWISE_MASK, &mask_length);
    const uint8_t * xor = nftnl_expr_get(expr, NFTNL_EXPR_BITWISE_XOR, &xor_length);
    const uint8_t *value =
        get(machine, nftnl_expr_get_u32(expr, NFTNL_EXPR_BITWISE_SREG), mask ? mask_length : 0);
    uint8_t result[REGISTER_BYTES];

    if (!mask || !xor || !value || mask_length != xor_length || mask_length > sizeof(result)) {
        put_unknown(machine, target, 16);
        return;
    }
    for (uint32_t i = 0; i < mask_length; i++)
        result[i] = (uint8_t)((value[i] & mask[i]) ^ xor[i]);
    put(machine, target, result, mask_length);
}

/* A map of verdicts acts; of other maps nothing is known here. The length of the key is the set's.
 */
static void look_up(struct machine *machine, const struct nftnl_expr *expr)
{
    const struct nftnl_rule *rule = machine->rule;
    bool map = nftnl_expr_is_set(expr, NFTNL_EXPR_LOOKUP_DREG);
    bool negated = nftnl_expr_is_set(expr, NFTNL_EXPR_LOOKUP_FLAGS) &&
                   nftnl_expr_get_u32(expr, NFTNL_EXPR_LOOKUP_FLAGS) & NFT_LOOKUP_F_INV;
    size_t offset = register_offset(nftnl_expr_get_u32(expr, NFTNL_EXPR_LOOKUP_SREG));
    size_t known = offset;
    enum foreign_match match;

    while (known < REGISTER_BYTES && machine->known[known])
        known++;
    match = foreign_set_find(machine->nat, nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY),
                             nftnl_rule_get_str(rule, NFTNL_RULE_TABLE),
                             nftnl_expr_get_str(expr, NFTNL_EXPR_LOOKUP_SET),
                             machine->bytes + offset, known - offset, &machine->step);
    if (negated && match != MATCH_MAYBE)
        match = match == MATCH_YES ? MATCH_NO : MATCH_YES;
    matched(machine, match);
    if (map && nftnl_expr_get_u32(expr, NFTNL_EXPR_LOOKUP_DREG) != NFT_REG_VERDICT)
        put_unknown(machine, nftnl_expr_get_u32(expr, NFTNL_EXPR_LOOKUP_DREG), 16);
}

static void match_xt(struct machine *machine, const struct nftnl_expr *expr)
{
    uint32_t length = 0;
    const void *info = nftnl_expr_get(expr, NFTNL_EXPR_MT_INFO, &length);

    matched(machine,
            foreign_xt_match(nftnl_expr_get_str(expr, NFTNL_EXPR_MT_NAME),
                             nftnl_expr_get_u32(expr, NFTNL_EXPR_MT_REV), info, info ? length : 0));
}

/* --- actions --- */

static void immediate(struct machine *machine, const struct nftnl_expr *expr)
{
    struct foreign_step *step = &machine->step;
    uint32_t number = nftnl_expr_get_u32(expr, NFTNL_EXPR_IMM_DREG);
    uint32_t length = 0;
    const void *data;

    if (number != NFT_REG_VERDICT) {
        data = nftnl_expr_get(expr, NFTNL_EXPR_IMM_DATA, &length);
        if (data)
            put(machine, number, data, length);
        return;
    }
    switch ((int)nftnl_expr_get_u32(expr, NFTNL_EXPR_IMM_VERDICT)) {
    case NF_ACCEPT:
        step->action = ACTION_ACCEPT;
        break;
    case NF_DROP:
        step->action = ACTION_DROP;
        break;
    case NFT_RETURN:
        step->action = ACTION_RETURN;
        break;
    case NFT_JUMP:
    case NFT_GOTO:
        step->action = (int)nftnl_expr_get_u32(expr, NFTNL_EXPR_IMM_VERDICT) == NFT_JUMP
                           ? ACTION_JUMP
                           : ACTION_GOTO;
        snprintf(step->chain, sizeof(step->chain), "%s",
                 nftnl_expr_get_str(expr, NFTNL_EXPR_IMM_CHAIN));
        break;
    case NFT_CONTINUE:
        break;
    default:
        step->action = ACTION_UNKNOWN;
    }
}

static void reject(struct machine *machine, const struct nftnl_expr *expr)
{
    (void)expr;
    machine->step.action = ACTION_DROP;
}

static void target_xt(struct machine *machine, const struct nftnl_expr *expr)
{
    machine->step.action = foreign_xt_target(nftnl_expr_get_str(expr, NFTNL_EXPR_TG_NAME));
}

static void nothing(struct machine *machine, const struct nftnl_expr *expr)
{
    (void)machine;
    (void)expr;
}

static void unknown(struct machine *machine)
{
    forget_all(machine);
    matched(machine, MATCH_MAYBE);
}

static const struct {
    const char *name;
    void (*follow)(struct machine *machine, const struct nftnl_expr *expr);
} expressions[] = {
    {"meta", load_meta}, {"payload", load_payload}, {"ct", load_ct},       {"cmp", compare},
    {"range", range},    {"bitwise", bitwise},      {"lookup", look_up},   {"immediate", immediate},
    {"reject", reject},  {"match", match_xt},       {"target", target_xt}, {"counter", nothing},
    {"log", nothing},    {"notrack", nothing},      {"last", nothing},
};

static int expression_follow(struct nftnl_expr *expr, void *userdata)
{
    struct machine *machine = userdata;
    const char *name = nftnl_expr_get_str(expr, NFTNL_EXPR_NAME);

    if (machine->step.match == MATCH_NO || machine->step.action != ACTION_NONE)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(expressions); i++) {
        if (strcmp(expressions[i].name, name) == 0) {
            expressions[i].follow(machine, expr);
            return 0;
        }
    }
    unknown(machine);
    return 0;
}

void foreign_rule_follow(struct nat *nat, const struct nftnl_rule *rule,
                         const struct foreign_packet *packet, struct foreign_step *ret_step)
{
    struct machine machine = {
        .nat = nat,
        .rule = rule,
        .packet = packet,
        .step = {.match = MATCH_YES, .action = ACTION_NONE},
    };

    nftnl_expr_foreach((struct nftnl_rule *)(uintptr_t)rule, expression_follow, &machine);
    *ret_step = machine.step;
}

/* --- xtables --- */

static enum foreign_match match_conntrack(unsigned revision,
                                          const struct xt_conntrack_mtinfo3 *info, size_t length)
{
    bool is_new;

    if (revision != 3 || length < sizeof(*info) ||
        info->match_flags & ~(unsigned)(XT_CONNTRACK_STATE | XT_CONNTRACK_STATE_ALIAS))
        return MATCH_MAYBE;
    if (info->state_mask & (XT_CONNTRACK_STATE_SNAT | XT_CONNTRACK_STATE_DNAT))
        return MATCH_MAYBE;
    is_new = info->state_mask & XT_CONNTRACK_STATE_BIT(IP_CT_NEW);
    return is_new == !(info->invert_flags & XT_CONNTRACK_STATE) ? MATCH_YES : MATCH_NO;
}

enum foreign_match foreign_xt_match(const char *name, unsigned revision, const void *info,
                                    size_t length)
{
    if (name && strcmp(name, "comment") == 0)
        return MATCH_YES;
    if (name && strcmp(name, "conntrack") == 0 && info)
        return match_conntrack(revision, info, length);
    return MATCH_MAYBE;
}

enum foreign_action foreign_xt_target(const char *name)
{
    static const char *const go_on[] = {"LOG",      "NFLOG", "MARK", "CONNMARK", "TRACE", "TCPMSS",
                                        "CLASSIFY", "SET",   "DSCP", "TOS",      "CT",    "ULOG"};

    if (name && (strcmp(name, "REJECT") == 0 || strcmp(name, "DROP") == 0))
        return ACTION_DROP;
    for (size_t i = 0; name && i < ARRAY_SIZE(go_on); i++)
        if (strcmp(name, go_on[i]) == 0)
            return ACTION_NONE;
    return ACTION_UNKNOWN;
}
