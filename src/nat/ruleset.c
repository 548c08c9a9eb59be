/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rules are written in words: a rule is a row of the table at the end of this file, each word
 * of it a function that appends the expressions for one match or one action. As in every nf_tables
 * rule, a match that fails ends the rule. Registers: NFT_REG32_00 on, four bytes each; a key of
 * several fields lies in consecutive ones.
 *
 * What the chains are for:
 *   raw         before connection tracking: addresses of the loopback never come from outside, so
 * that what listens or is published on 127.0.0.1 stays there although route_localnet is on. dnat,
 * dnat_output   published ports, for what is addressed to this host only. 127.0.0.1 is served in
 *               output. [::1] is not translated: the kernel can't route from it, the relay worker
 * serves it. snat        to the outside with the host's address. Else the client's address is kept,
 * but for sources that a guest can't answer (127.0.0.1; a neighbour of its own network, whose
 * answer would pass the host by; the host's outer address or a guest's of another network on an
 * internal one): these come from the gateway. forward     networks never reach each other but where
 * a passage was allowed, nor is anything let in that is not published. With br_netfilter bridged
 * frames pass here too: both groups are then the bridge's own. guest_policy  what guests may open
 * connections to, asked before translation: a rule speaks of the address that the guest called.
 * Each policy has two chains of its own (policy.c). ports (bridge moat)   what bridged ports may
 * send: only from what they were given, no word of a router or DHCP server, nothing but IP and ARP.
 * No connection tracking is needed for it. input       what guests reach of the host; and who
 * reaches the gateways' addresses. output      the host itself opens no connection to a closed
 * guest. */
#include "nat/ruleset.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_bridge.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "nat/rule.h"

#define DROPPED_PER_SECOND 1 /* told of, for each endpoint; counted are all */
#define DENIED_PER_SECOND 20
#define LOOPBACK_INDEX 1 /* lo is the first link of every namespace */

/* --- sets --- */

static const struct set_def set_defs[] = {
    [SET_SAME] =
        {"same", "may open connections", {FIELD_GROUP, FIELD_GROUP}, {0}, false, TABLE_INET},
    [SET_PASSAGE] = {"passage",
                     "from one network to another",
                     {FIELD_GROUP, FIELD_GROUP_TO},
                     {0},
                     false,
                     TABLE_INET},
    [SET_PASSAGE_PORT] = {"passage_port",
                          "from one network to ports of another",
                          {FIELD_GROUP, FIELD_GROUP_TO, FIELD_PROTO, FIELD_PORT},
                          {0},
                          true,
                          TABLE_INET},
    [SET_INTERNAL] =
        {"internal", "networks without an outside", {FIELD_GROUP}, {0}, false, TABLE_INET},
    [SET_HOST_ACCESS] =
        {"host_access", "networks that reach the host", {FIELD_GROUP}, {0}, false, TABLE_INET},
    [SET_GATEWAY4] = {"gateway4", "gateways of all networks", {FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_GATEWAY6] = {"gateway6", "gateways of all networks", {FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_OWN4] =
        {"own4", "networks and their gateway", {FIELD_GROUP, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_OWN6] =
        {"own6", "networks and their gateway", {FIELD_GROUP, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_DNS4] =
        {"dns4", "name service", {FIELD_IP4, FIELD_PROTO, FIELD_PORT}, {0}, false, TABLE_INET},
    [SET_DNS6] =
        {"dns6", "name service", {FIELD_IP6, FIELD_PROTO, FIELD_PORT}, {0}, false, TABLE_INET},
    [SET_SOURCE4] = {"source4", "gateway as source", {FIELD_GROUP}, {FIELD_IP4}, false, TABLE_INET},
    [SET_SOURCE6] = {"source6", "gateway as source", {FIELD_GROUP}, {FIELD_IP6}, false, TABLE_INET},
    [SET_GUEST4] = {"guest4", "endpoints", {FIELD_GROUP, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_GUEST6] = {"guest6", "endpoints", {FIELD_GROUP, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_LOCALHOST4] = {"localhost4",
                        "endpoints whose localhost is the gateway",
                        {FIELD_GROUP, FIELD_IP4},
                        {0},
                        false,
                        TABLE_INET},
    [SET_CLOSED4] = {"closed4", "guests in mode outbound", {FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_CLOSED6] = {"closed6", "guests in mode outbound", {FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_PUB4] = {"pub4",
                  "published on every address",
                  {FIELD_PROTO, FIELD_PORT},
                  {FIELD_IP4, FIELD_PORT},
                  false,
                  TABLE_INET},
    [SET_PUB6] = {"pub6",
                  "published on every address",
                  {FIELD_PROTO, FIELD_PORT},
                  {FIELD_IP6, FIELD_PORT},
                  false,
                  TABLE_INET},
    [SET_PUB4_AT] = {"pub4_at",
                     "published on one address",
                     {FIELD_IP4, FIELD_PROTO, FIELD_PORT},
                     {FIELD_IP4, FIELD_PORT},
                     false,
                     TABLE_INET},
    [SET_PUB6_AT] = {"pub6_at",
                     "published on one address",
                     {FIELD_IP6, FIELD_PROTO, FIELD_PORT},
                     {FIELD_IP6, FIELD_PORT},
                     false,
                     TABLE_INET},
    [SET_RELAY4] = {"relay4", "relayed to IPv6", {FIELD_PROTO, FIELD_PORT}, {0}, false, TABLE_INET},
    [SET_RELAY6] = {"relay6", "relayed to IPv4", {FIELD_PROTO, FIELD_PORT}, {0}, false, TABLE_INET},
    [SET_RELAY6_AT] = {"relay6_at",
                       "relayed to IPv4 from one address",
                       {FIELD_IP6, FIELD_PROTO, FIELD_PORT},
                       {0},
                       false,
                       TABLE_INET},
    [SET_SUBNET4] = {"subnet4", "networks", {FIELD_FAMILY, FIELD_IP4}, {0}, true, TABLE_INET},
    [SET_SUBNET6] = {"subnet6", "networks", {FIELD_FAMILY, FIELD_IP6}, {0}, true, TABLE_INET},
    [SET_SPECIAL4] = {"special4", "never public", {FIELD_FAMILY, FIELD_IP4}, {0}, true, TABLE_INET},
    [SET_SPECIAL6] = {"special6", "never public", {FIELD_FAMILY, FIELD_IP6}, {0}, true, TABLE_INET},
    [SET_POLICY_PUBLIC] = {"policy_public",
                           "policies, for public addresses",
                           {FIELD_INTERFACE},
                           {FIELD_POLICY},
                           false,
                           TABLE_INET},
    [SET_POLICY_PRIVATE] = {"policy_private",
                            "policies, for other addresses",
                            {FIELD_INTERFACE},
                            {FIELD_POLICY},
                            false,
                            TABLE_INET},
    [SET_FROM4] =
        {"from4", "endpoints' sources", {FIELD_INTERFACE, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_FROM6] =
        {"from6", "endpoints' sources", {FIELD_INTERFACE, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_DROPPED] = {"dropped",
                     "frames that an endpoint may not send",
                     {FIELD_INTERFACE},
                     {0},
                     false,
                     TABLE_INET},
    [SET_DENIED4] =
        {"denied4", "connections refused", {FIELD_GROUP, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_DENIED6] =
        {"denied6", "connections refused", {FIELD_GROUP, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_LOGGED4] =
        {"logged4", "told of when refused", {FIELD_GROUP, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_LOGGED6] =
        {"logged6", "told of when refused", {FIELD_GROUP, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_SILENT4] =
        {"silent4", "refused in silence", {FIELD_GROUP, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_SILENT6] =
        {"silent6", "refused in silence", {FIELD_GROUP, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_CONNS4] =
        {"conns4", "too many connections", {FIELD_GROUP, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_CONNS6] =
        {"conns6", "too many connections", {FIELD_GROUP, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_RATE4] = {"rate4", "too many a second", {FIELD_GROUP, FIELD_IP4}, {0}, false, TABLE_INET},
    [SET_RATE6] = {"rate6", "too many a second", {FIELD_GROUP, FIELD_IP6}, {0}, false, TABLE_INET},
    [SET_DROPPED_PORT] = {"dropped_port",
                          "frames that an endpoint may not send",
                          {FIELD_INTERFACE},
                          {0},
                          false,
                          TABLE_BRIDGE},
    [SET_PORT4] = {"port4",
                   "endpoints' sources",
                   {FIELD_INTERFACE, FIELD_MAC, FIELD_IP4},
                   {0},
                   false,
                   TABLE_BRIDGE},
    [SET_PORT6] = {"port6",
                   "endpoints' sources",
                   {FIELD_INTERFACE, FIELD_MAC, FIELD_IP6},
                   {0},
                   false,
                   TABLE_BRIDGE},
};

static_assert(ARRAY_SIZE(set_defs) == SET_COUNT_, "a definition for each set");

static const struct set_state set_states[SET_COUNT_] = {
    [SET_DROPPED] = {.counts = true, .per_second = DROPPED_PER_SECOND},
    [SET_DROPPED_PORT] = {.counts = true, .per_second = DROPPED_PER_SECOND},
    [SET_DENIED4] = {.counts = true},
    [SET_DENIED6] = {.counts = true},
    [SET_LOGGED4] = {.per_second = DENIED_PER_SECOND},
    [SET_LOGGED6] = {.per_second = DENIED_PER_SECOND},
    [SET_CONNS4] = {.over_conns = true},
    [SET_CONNS6] = {.over_conns = true},
    [SET_RATE4] = {.over_rate = true},
    [SET_RATE6] = {.over_rate = true},
};

const struct set_state *set_state_get(enum set_id id)
{
    const struct set_state *state = &set_states[id];

    return state->counts || state->per_second || state->over_conns || state->over_rate ? state
                                                                                       : NULL;
}

uint8_t ruleset_table_family(enum ruleset_table table)
{
    return table == TABLE_BRIDGE ? NFPROTO_BRIDGE : NFPROTO_INET;
}

const struct set_def *set_def_get(enum set_id id)
{
    return &set_defs[id];
}

static const uint8_t field_lengths[] = {
    [FIELD_GROUP] = 4, [FIELD_GROUP_TO] = 4, [FIELD_IP4] = 4,    [FIELD_IP6] = 16,
    [FIELD_PROTO] = 1, [FIELD_PORT] = 2,     [FIELD_FAMILY] = 1, [FIELD_INTERFACE] = 16,
    [FIELD_MAC] = 6,   [FIELD_POLICY] = 16,
};

static size_t fields_length(const uint8_t *fields)
{
    size_t length = 0;

    for (size_t i = 0; i < SET_FIELDS && fields[i] != FIELD_NONE; i++)
        length += (field_lengths[fields[i]] + 3u) & ~3u;
    return length;
}

size_t set_key_length(enum set_id id)
{
    return fields_length(set_defs[id].key);
}

size_t set_data_length(enum set_id id)
{
    return fields_length(set_defs[id].data);
}

/* nft's numbers of data types (its enum datatypes), which the kernel only keeps for whoever lists
 * the set; the types of a concatenation are packed into six bits each. */
static uint32_t fields_type(const uint8_t *fields)
{
    static const uint32_t types[] = {
        [FIELD_GROUP] = 35, [FIELD_GROUP_TO] = 35, [FIELD_IP4] = 7,    [FIELD_IP6] = 8,
        [FIELD_PROTO] = 12, [FIELD_PORT] = 13,     [FIELD_FAMILY] = 2, [FIELD_INTERFACE] = 41,
        [FIELD_MAC] = 9,    [FIELD_POLICY] = 0,
    };
    uint32_t type = 0;

    for (size_t i = 0; i < SET_FIELDS && fields[i] != FIELD_NONE; i++)
        type = type << 6 | types[fields[i]];
    return type;
}

/* nft's enum byteorder: 1 is the host's, 2 the network's; 0 for concatenations. */
static uint32_t fields_byteorder(const uint8_t *fields)
{
    if (fields[0] == FIELD_NONE || fields[1] != FIELD_NONE)
        return 0;
    return fields[0] == FIELD_GROUP || fields[0] == FIELD_INTERFACE ? 1 : 2;
}

static bool set_put_userdata(struct nftnl_set *set, const struct set_def *def)
{
    struct nftnl_udata_buf *userdata = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);

    if (!userdata)
        return false;
    bool put =
        nftnl_udata_put_u32(userdata, NFTNL_UDATA_SET_KEYBYTEORDER, fields_byteorder(def->key)) &&
        (!def->data[0] || nftnl_udata_put_u32(userdata, NFTNL_UDATA_SET_DATABYTEORDER,
                                              fields_byteorder(def->data))) &&
        nftnl_udata_put_strz(userdata, NFTNL_UDATA_SET_COMMENT, def->comment) &&
        nftnl_set_set_data(set, NFTNL_SET_USERDATA, nftnl_udata_buf_data(userdata),
                           nftnl_udata_buf_len(userdata)) == 0;
    nftnl_udata_buf_free(userdata);
    return put;
}

static uint32_t set_flags(const struct set_def *def)
{
    return (def->data[0] ? NFT_SET_MAP : 0u) |
           (def->ranges ? NFT_SET_INTERVAL | NFT_SET_CONCAT : 0u);
}

/* The length of each field of a concatenation, without padding. */
static bool set_put_fields(struct nftnl_set *set, const struct set_def *def)
{
    uint8_t lengths[SET_FIELDS] = {0};
    uint32_t count = 0;

    while (count < SET_FIELDS && def->key[count] != FIELD_NONE) {
        lengths[count] = field_lengths[def->key[count]];
        count++;
    }
    return nftnl_set_set_data(set, NFTNL_SET_DESC_CONCAT, lengths, count) == 0;
}

static void set_put_data(struct nftnl_set *set, const struct set_def *def)
{
    if (def->data[0] == FIELD_POLICY) {
        nftnl_set_set_u32(set, NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT);
        return;
    }
    nftnl_set_set_u32(set, NFTNL_SET_DATA_TYPE, fields_type(def->data));
    nftnl_set_set_u32(set, NFTNL_SET_DATA_LEN, (uint32_t)fields_length(def->data));
}

/* What each element does when it matches: it counts, and then may have had enough. */
static bool set_add_counter(struct nftnl_set *set)
{
    struct nftnl_expr *counter = nftnl_expr_alloc("counter");

    if (counter)
        nftnl_set_add_expr(set, counter);
    return counter;
}

static bool set_add_limit(struct nftnl_set *set, uint8_t per_second)
{
    struct nftnl_expr *limit = nftnl_expr_alloc("limit");

    if (!limit)
        return false;
    nftnl_expr_set_u64(limit, NFTNL_EXPR_LIMIT_RATE, per_second);
    nftnl_expr_set_u64(limit, NFTNL_EXPR_LIMIT_UNIT, 1);
    nftnl_expr_set_u32(limit, NFTNL_EXPR_LIMIT_BURST, per_second);
    nftnl_expr_set_u32(limit, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
    nftnl_set_add_expr(set, limit);
    return true;
}

static bool set_put_state(struct nftnl_set *set, const struct set_state *state)
{
    uint32_t flags = nftnl_set_get_u32(set, NFTNL_SET_FLAGS);

    if (state->counts && state->per_second) /* several at once must be announced */
        nftnl_set_set_u32(set, NFTNL_SET_FLAGS, flags | NFT_SET_EXPR);
    return (!state->counts || set_add_counter(set)) &&
           (state->per_second == 0 || set_add_limit(set, state->per_second));
}

struct nftnl_set *set_def_build(const struct set_def *def, const char *name, uint32_t id)
{
    struct nftnl_set *set = nftnl_set_alloc();

    if (!set)
        return NULL;
    nftnl_set_set_u32(set, NFTNL_SET_FAMILY, ruleset_table_family(def->table));
    nftnl_set_set_u32(set, NFTNL_SET_FLAGS, set_flags(def));
    nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, fields_type(def->key));
    nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, (uint32_t)fields_length(def->key));
    nftnl_set_set_u32(set, NFTNL_SET_ID, id);
    if (def->data[0])
        set_put_data(set, def);
    if (nftnl_set_set_str(set, NFTNL_SET_TABLE, RULESET_TABLE) < 0 ||
        nftnl_set_set_str(set, NFTNL_SET_NAME, name) < 0 || !set_put_userdata(set, def) ||
        (def->ranges && !set_put_fields(set, def))) {
        nftnl_set_free(set);
        return NULL;
    }
    return set;
}

static struct nftnl_set *set_build(enum set_id id)
{
    struct nftnl_set *set = set_def_build(&set_defs[id], set_defs[id].name, (uint32_t)id + 1);

    if (set && set_state_get(id) && !set_put_state(set, set_state_get(id))) {
        nftnl_set_free(set);
        return NULL;
    }
    return set;
}

/* --- chains --- */

#define PORTS_PRIORITY (-300) /* before everything that others may have there */

static const struct nft_chain chain_defs[] = {
    [CHAIN_RAW] = {"raw", "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW},
    [CHAIN_POLICY] = {"guest_policy", "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_MANGLE},
    [CHAIN_POLICY_PRIVATE] = {"guest_policy_private", NULL, 0, 0},
    [CHAIN_POLICY_WAIT] = {"guest_policy_wait", NULL, 0, 0},
    [CHAIN_DNAT] = {"dnat", "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST},
    [CHAIN_DNAT_OUTPUT] = {"dnat_output", "nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST},
    [CHAIN_SNAT] = {"snat", "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC},
    [CHAIN_FORWARD] = {"forward", "filter", NF_INET_FORWARD, NF_IP_PRI_FILTER},
    [CHAIN_INPUT] = {"input", "filter", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER},
    [CHAIN_OUTPUT] = {"output", "filter", NF_INET_LOCAL_OUT, NF_IP_PRI_FILTER},
    [CHAIN_FROM_GUEST] = {"from_guest", NULL, 0, 0},
    [CHAIN_CONNS] = {"conns", NULL, 0, 0},
    [CHAIN_REFUSE] = {"refuse", NULL, 0, 0},
    [CHAIN_LIMITED] = {"limited", NULL, 0, 0},
    [CHAIN_REJECT] = {"reject_it", NULL, 0, 0},
    [CHAIN_NOT_GIVEN] = {"not_given", NULL, 0, 0},
    [CHAIN_PORTS] = {"ports", "filter", NF_BR_PRE_ROUTING, PORTS_PRIORITY},
    [CHAIN_PORTS_IP4] = {"ports_ip4", NULL, 0, 0},
    [CHAIN_PORTS_ARP] = {"ports_arp", NULL, 0, 0},
    [CHAIN_PORTS_IP6] = {"ports_ip6", NULL, 0, 0},
    [CHAIN_PORTS_NOT_GIVEN] = {"ports_not_given", NULL, 0, 0},
};

static_assert(ARRAY_SIZE(chain_defs) == CHAIN_COUNT_, "a definition for each chain");

const struct nft_chain *chain_def_get(enum chain_id id)
{
    return &chain_defs[id];
}

enum ruleset_table chain_table(enum chain_id id)
{
    return id >= CHAIN_PORTS ? TABLE_BRIDGE : TABLE_INET;
}

/* --- words: fields --- */

static void load_source4(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, reg);
}

static void load_destination4(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, reg);
}

static void load_source6(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 8, 16, reg);
}

static void load_destination6(struct rule *rule, unsigned reg)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 24, 16, reg);
}

/* proto . destination port, as in the maps of published ports. TCP and UDP have it in the same
 * place; of other protocols no element exists. */
static void load_service(struct rule *rule, unsigned reg)
{
    rule_load_meta(rule, NFT_META_L4PROTO, reg);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg + 1);
}

static void lookup(struct rule *rule, enum set_id set)
{
    rule_lookup(rule, set_defs[set].name, RULE_LOOKUP);
}

static void lookup_not(struct rule *rule, enum set_id set)
{
    rule_lookup(rule, set_defs[set].name, RULE_LOOKUP_NOT);
}

/* The data goes to the first registers. */
static void lookup_map(struct rule *rule, enum set_id set)
{
    rule_lookup(rule, set_defs[set].name, RULE_LOOKUP_MAP);
}

/* --- words: matches --- */

static void ip4(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, NFPROTO_IPV4);
}

static void ip6(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, NFPROTO_IPV6);
}

static const struct ruleset_groups *groups_of(const struct rule *rule)
{
    return rule->context;
}

static void group_is_ours(struct rule *rule, enum nft_meta_keys key, enum nft_cmp_ops op)
{
    rule_load_meta(rule, key, 0);
    rule_mask(rule, &groups_of(rule)->mask, sizeof(groups_of(rule)->mask));
    rule_compare_u32(rule, op, groups_of(rule)->base);
}

static void from_ours(struct rule *rule)
{
    group_is_ours(rule, NFT_META_IIFGROUP, NFT_CMP_EQ);
}

static void from_others(struct rule *rule)
{
    group_is_ours(rule, NFT_META_IIFGROUP, NFT_CMP_NEQ);
}

static void to_ours(struct rule *rule)
{
    group_is_ours(rule, NFT_META_OIFGROUP, NFT_CMP_EQ);
}

static void to_others(struct rule *rule)
{
    group_is_ours(rule, NFT_META_OIFGROUP, NFT_CMP_NEQ);
}

static void from_loopback(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIF, 0);
    rule_compare_u32(rule, NFT_CMP_EQ, LOOPBACK_INDEX);
}

static void not_from_loopback(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIF, 0);
    rule_compare_u32(rule, NFT_CMP_NEQ, LOOPBACK_INDEX);
}

static void source4_loopback(struct rule *rule)
{
    ip4(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 12, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, 127);
}

static void destination4_loopback(struct rule *rule)
{
    ip4(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 16, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, 127);
}

static const uint8_t loopback6[16] = {[15] = 1};

static void source6_loopback(struct rule *rule)
{
    ip6(rule);
    load_source6(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, loopback6, sizeof(loopback6));
}

static void destination6_loopback(struct rule *rule)
{
    ip6(rule);
    load_destination6(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, loopback6, sizeof(loopback6));
}

/* Addressed to this host, wherever it came in. */
static void to_host(struct rule *rule)
{
    rule_load_address_type(rule);
    rule_compare_u32(rule, NFT_CMP_EQ, RTN_LOCAL);
}

#define STATE_BIT(state) ((uint32_t)NF_CT_STATE_BIT(state))
#define STATES_KNOWN (STATE_BIT(IP_CT_ESTABLISHED) | STATE_BIT(IP_CT_RELATED))

static void state_has(struct rule *rule, uint32_t bits, enum nft_cmp_ops op)
{
    rule_load_ct(rule, NFT_CT_STATE);
    rule_mask(rule, &bits, sizeof(bits));
    rule_compare_u32(rule, op, 0);
}

static void known(struct rule *rule)
{
    state_has(rule, STATES_KNOWN, NFT_CMP_NEQ);
}

static void unknown(struct rule *rule)
{
    state_has(rule, STATES_KNOWN, NFT_CMP_EQ);
}

static void invalid(struct rule *rule)
{
    state_has(rule, NF_CT_STATE_INVALID_BIT, NFT_CMP_NEQ);
}

/* Never a public address: reserved, or of one of our networks. */
static void load_family_and_destination4(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    load_destination4(rule, 1);
}

static void load_family_and_destination6(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_NFPROTO, 0);
    load_destination6(rule, 1);
}

static void to_special4(struct rule *rule)
{
    ip4(rule);
    load_family_and_destination4(rule);
    lookup(rule, SET_SPECIAL4);
}

static void to_special6(struct rule *rule)
{
    ip6(rule);
    load_family_and_destination6(rule);
    lookup(rule, SET_SPECIAL6);
}

static void to_subnet4(struct rule *rule)
{
    ip4(rule);
    load_family_and_destination4(rule);
    lookup(rule, SET_SUBNET4);
}

static void to_subnet6(struct rule *rule)
{
    ip6(rule);
    load_family_and_destination6(rule);
    lookup(rule, SET_SUBNET6);
}

static void to_broadcast4(struct rule *rule)
{
    static const uint8_t broadcast[4] = {255, 255, 255, 255};

    ip4(rule);
    load_destination4(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, broadcast, sizeof(broadcast));
}

/* What never leaves the link: fe80::/10, and ff02::/16. */
static void to_link_local6(struct rule *rule)
{
    static const uint8_t mask[2] = {0xff, 0xc0};
    static const uint8_t prefix[2] = {0xfe, 0x80};

    ip6(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 24, 2, 0);
    rule_mask(rule, mask, sizeof(mask));
    rule_compare(rule, NFT_CMP_EQ, prefix, sizeof(prefix));
}

static void to_link_multicast6(struct rule *rule)
{
    static const uint8_t prefix[2] = {0xff, 0x02};

    ip6(rule);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 24, 2, 0);
    rule_compare(rule, NFT_CMP_EQ, prefix, sizeof(prefix));
}

/* The connection goes to a published port. */
static void published(struct rule *rule)
{
    static const uint32_t bit = IPS_DST_NAT;

    rule_load_ct(rule, NFT_CT_STATUS);
    rule_mask(rule, &bit, sizeof(bit));
    rule_compare_u32(rule, NFT_CMP_NEQ, 0);
}

static void protocol(struct rule *rule, uint8_t number)
{
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, number);
}

static void tcp(struct rule *rule)
{
    protocol(rule, IPPROTO_TCP);
}

static void tcp_syn(struct rule *rule)
{
    static const uint8_t syn_rst = 0x06;

    tcp(rule);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, 0);
    rule_mask(rule, &syn_rst, sizeof(syn_rst));
    rule_compare_u8(rule, NFT_CMP_EQ, 0x02);
}

static void udp_ports(struct rule *rule, uint16_t source, uint16_t destination)
{
    const uint16_t ports[] = {htons(source), htons(destination)};

    protocol(rule, IPPROTO_UDP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 4, 0);
    rule_compare(rule, NFT_CMP_EQ, ports, sizeof(ports));
}

static void dhcp4_request(struct rule *rule)
{
    ip4(rule);
    udp_ports(rule, 68, 67);
}

static void dhcp4_answer(struct rule *rule)
{
    ip4(rule);
    udp_ports(rule, 67, 68);
}

static void dhcp6_request(struct rule *rule)
{
    ip6(rule);
    udp_ports(rule, 546, 547);
}

static void dhcp6_answer(struct rule *rule)
{
    ip6(rule);
    udp_ports(rule, 547, 546);
}

static void udp_source(struct rule *rule, uint16_t port)
{
    const uint16_t wire = htons(port);

    protocol(rule, IPPROTO_UDP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, 0);
    rule_compare(rule, NFT_CMP_EQ, &wire, sizeof(wire));
}

static void icmp4(struct rule *rule)
{
    ip4(rule);
    protocol(rule, IPPROTO_ICMP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
}

static void icmp6(struct rule *rule)
{
    ip6(rule);
    protocol(rule, IPPROTO_ICMPV6);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
}

static void echo4(struct rule *rule)
{
    icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_ECHO);
}

static void echo6(struct rule *rule)
{
    icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMPV6_ECHO_REQUEST);
}

/* An error about what a guest sent, perhaps before its connection was known: it opens nothing. */
static void unreachable4(struct rule *rule)
{
    icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_DEST_UNREACH);
}

/* Time exceeded, parameter problem. */
static void error4(struct rule *rule)
{
    icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_GTE, ICMP_TIME_EXCEEDED);
    rule_compare_u8(rule, NFT_CMP_LTE, ICMP_PARAMETERPROB);
}

static void error6(struct rule *rule)
{
    icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_LTE, ICMPV6_PARAMPROB);
}

#define ND_ROUTER_SOLICIT 133 /* RFC 4861, section 4 */
#define ND_NEIGHBOR_SOLICIT 135
#define ND_NEIGHBOR_ADVERT 136

static void router_solicit(struct rule *rule)
{
    icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ND_ROUTER_SOLICIT);
}

static void neighbour_discovery(struct rule *rule)
{
    icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_GTE, ND_NEIGHBOR_SOLICIT);
    rule_compare_u8(rule, NFT_CMP_LTE, ND_NEIGHBOR_ADVERT);
}

static void load_groups(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    rule_load_meta(rule, NFT_META_OIFGROUP, 1);
}

static void within_same(struct rule *rule)
{
    load_groups(rule);
    lookup(rule, SET_SAME);
}

static void not_within_same(struct rule *rule)
{
    load_groups(rule);
    lookup_not(rule, SET_SAME);
}

static void on_passage(struct rule *rule)
{
    load_groups(rule);
    lookup(rule, SET_PASSAGE);
}

static void on_passage_port(struct rule *rule)
{
    load_groups(rule);
    load_service(rule, 2);
    lookup(rule, SET_PASSAGE_PORT);
}

static void from_internal(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    lookup(rule, SET_INTERNAL);
}

static void to_internal(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    lookup(rule, SET_INTERNAL);
}

static void from_host_access(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    lookup(rule, SET_HOST_ACCESS);
}

static void to_gateway4(struct rule *rule)
{
    ip4(rule);
    load_destination4(rule, 0);
    lookup(rule, SET_GATEWAY4);
}

static void to_gateway6(struct rule *rule)
{
    ip6(rule);
    load_destination6(rule, 0);
    lookup(rule, SET_GATEWAY6);
}

static void load_group_and_destination4(struct rule *rule)
{
    ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    load_destination4(rule, 1);
}

static void load_group_and_destination6(struct rule *rule)
{
    ip6(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    load_destination6(rule, 1);
}

static void to_own4(struct rule *rule)
{
    load_group_and_destination4(rule);
    lookup(rule, SET_OWN4);
}

static void to_own6(struct rule *rule)
{
    load_group_and_destination6(rule);
    lookup(rule, SET_OWN6);
}

static void not_to_own4(struct rule *rule)
{
    load_group_and_destination4(rule);
    lookup_not(rule, SET_OWN4);
}

static void not_to_own6(struct rule *rule)
{
    load_group_and_destination6(rule);
    lookup_not(rule, SET_OWN6);
}

static void to_dns4(struct rule *rule)
{
    ip4(rule);
    load_destination4(rule, 0);
    load_service(rule, 1);
    lookup(rule, SET_DNS4);
}

static void to_dns6(struct rule *rule)
{
    ip6(rule);
    load_destination6(rule, 0);
    load_service(rule, 4);
    lookup(rule, SET_DNS6);
}

static void to_closed4(struct rule *rule)
{
    ip4(rule);
    load_destination4(rule, 0);
    lookup(rule, SET_CLOSED4);
}

static void to_closed6(struct rule *rule)
{
    ip6(rule);
    load_destination6(rule, 0);
    lookup(rule, SET_CLOSED6);
}

/* IPv4 to a port of an IPv6-only guest: a listener of the relay worker. */
static void to_relay4(struct rule *rule)
{
    ip4(rule);
    load_service(rule, 0);
    lookup(rule, SET_RELAY4);
}

/* IPv6 to a port of an IPv4 guest: a listener of the relay worker. */
static void to_relay6(struct rule *rule)
{
    ip6(rule);
    load_service(rule, 0);
    lookup(rule, SET_RELAY6);
}

static void to_relay6_at(struct rule *rule)
{
    ip6(rule);
    load_destination6(rule, 0);
    load_service(rule, 4);
    lookup(rule, SET_RELAY6_AT);
}

/* From an endpoint to one of the same network. */
static void neighbours4(struct rule *rule)
{
    ip4(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    load_source4(rule, 1);
    lookup(rule, SET_GUEST4);
}

static void neighbours6(struct rule *rule)
{
    ip6(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    load_source6(rule, 1);
    lookup(rule, SET_GUEST6);
}

/* To the address that stands for localhost, from an endpoint that may use it. */
static void localhost_of_guest(struct rule *rule)
{
    static const uint8_t wire[4] = {NAT_LOCALHOST_WIRE};

    ip4(rule);
    load_destination4(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, wire, sizeof(wire));
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    load_source4(rule, 1);
    lookup(rule, SET_LOCALHOST4);
}

/* --- words: what endpoints may send --- */

#define REGS_INTERFACE 4 /* registers of its name */
#define REGS_MAC 2

static void not_from_bridge(struct rule *rule)
{
    static const char kind[16] = "bridge";

    rule_load_meta(rule, NFT_META_IIFKIND, 0);
    rule_compare(rule, NFT_CMP_NEQ, kind, sizeof(kind));
}

static void source4_is_not_given(struct rule *rule)
{
    ip4(rule);
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    load_source4(rule, REGS_INTERFACE);
    lookup_not(rule, SET_FROM4);
}

static void source6_is_not_given(struct rule *rule)
{
    ip6(rule);
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    load_source6(rule, REGS_INTERFACE);
    lookup_not(rule, SET_FROM6);
}

static void redirect4(struct rule *rule)
{
    icmp4(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_REDIRECT);
}

#define ND_ROUTER_ADVERT 134
#define ND_REDIRECT 137

static void router_advert(struct rule *rule)
{
    icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ND_ROUTER_ADVERT);
}

static void redirect6(struct rule *rule)
{
    icmp6(rule);
    rule_compare_u8(rule, NFT_CMP_EQ, ND_REDIRECT);
}

/* A VLAN tag stands where the type of the payload would: such a frame is of no type that passes. */
static void ether_type(struct rule *rule, uint16_t type)
{
    const uint16_t wire = htons(type);

    rule_load_payload(rule, NFT_PAYLOAD_LL_HEADER, 12, 2, 0);
    rule_compare(rule, NFT_CMP_EQ, &wire, sizeof(wire));
}

static void frame_ip4(struct rule *rule)
{
    ether_type(rule, ETH_P_IP);
}

static void frame_arp(struct rule *rule)
{
    ether_type(rule, ETH_P_ARP);
}

static void frame_ip6(struct rule *rule)
{
    ether_type(rule, ETH_P_IPV6);
}

static void load_port_and_mac(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    rule_load_payload(rule, NFT_PAYLOAD_LL_HEADER, 6, 6, REGS_INTERFACE);
}

static void given4(struct rule *rule)
{
    load_port_and_mac(rule);
    load_source4(rule, REGS_INTERFACE + REGS_MAC);
    lookup(rule, SET_PORT4);
}

static void given6(struct rule *rule)
{
    load_port_and_mac(rule);
    load_source6(rule, REGS_INTERFACE + REGS_MAC);
    lookup(rule, SET_PORT6);
}

static void source_none4(struct rule *rule)
{
    static const uint8_t none[4];

    load_source4(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, none, sizeof(none));
}

static void source_none6(struct rule *rule)
{
    static const uint8_t none[16];

    load_source6(rule, 0);
    rule_compare(rule, NFT_CMP_EQ, none, sizeof(none));
}

static void frame_dhcp4_request(struct rule *rule)
{
    udp_ports(rule, 68, 67);
}

static void frame_dhcp4_server(struct rule *rule)
{
    udp_source(rule, 67);
}

static void frame_dhcp6_server(struct rule *rule)
{
    udp_source(rule, 547);
}

static void frame_icmp6(struct rule *rule, uint8_t type)
{
    protocol(rule, IPPROTO_ICMPV6);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, type);
}

static void frame_router_advert(struct rule *rule)
{
    frame_icmp6(rule, ND_ROUTER_ADVERT);
}

static void frame_redirect6(struct rule *rule)
{
    frame_icmp6(rule, ND_REDIRECT);
}

static void frame_redirect4(struct rule *rule)
{
    protocol(rule, IPPROTO_ICMP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_REDIRECT);
}

static void frame_neighbour_solicit(struct rule *rule)
{
    frame_icmp6(rule, ND_NEIGHBOR_SOLICIT);
}

#define MLD2_REPORT 143 /* RFC 3810, section 5.2 */

static void frame_multicast_report(struct rule *rule)
{
    frame_icmp6(rule, MLD2_REPORT);
}

/* Says of an address that is not the sender's that it is its own. */
static void frame_false_advert(struct rule *rule)
{
    frame_icmp6(rule, ND_NEIGHBOR_ADVERT);
    load_port_and_mac(rule);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16, REGS_INTERFACE + REGS_MAC);
    rule_lookup(rule, set_defs[SET_PORT6].name, RULE_LOOKUP_NOT);
}

/* Ethernet and IPv4 (RFC 826); the sender's address in the frame and in the message, both its own.
 */
static void arp_given(struct rule *rule)
{
    static const uint8_t header[6] = {0, 1, 0x08, 0x00, 6, 4};

    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 0, sizeof(header), 0);
    rule_compare(rule, NFT_CMP_EQ, header, sizeof(header));
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 8, 6, REGS_INTERFACE);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 14, 4, REGS_INTERFACE + REGS_MAC);
    lookup(rule, SET_PORT4);
    load_port_and_mac(rule);
    lookup(rule, SET_PORT4);
}

/* --- words: what is dropped is counted --- */

static void from_counted(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    lookup(rule, SET_DROPPED);
}

static void from_counted_port(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    lookup(rule, SET_DROPPED_PORT);
}

/* From an endpoint of the set. */
static void endpoint4_in(struct rule *rule, enum set_id set)
{
    ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    load_source4(rule, 1);
    lookup(rule, set);
}

static void endpoint6_in(struct rule *rule, enum set_id set)
{
    ip6(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    load_source6(rule, 1);
    lookup(rule, set);
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

static void tell(struct rule *rule, const char *prefix)
{
    struct nftnl_expr *expr = rule_add(rule, "log");

    if (!expr)
        return;
    nftnl_expr_set_u16(expr, NFTNL_EXPR_LOG_GROUP, RULESET_LOG_GROUP);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_LOG_SNAPLEN, RULESET_LOG_LENGTH);
    rule->failed |= nftnl_expr_set_str(expr, NFTNL_EXPR_LOG_PREFIX, prefix) < 0;
}

static void tell_dropped(struct rule *rule)
{
    tell(rule, RULESET_LOG_DROPPED);
}

static void tell_denied(struct rule *rule)
{
    tell(rule, RULESET_LOG_DENIED);
}

static void tell_limited(struct rule *rule)
{
    tell(rule, RULESET_LOG_LIMITED);
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

/* --- words: actions --- */

static void accept_it(struct rule *rule)
{
    rule_verdict(rule, NF_ACCEPT, NULL);
}

static void drop_it(struct rule *rule)
{
    rule_verdict(rule, NF_DROP, NULL);
}

static void refuse_it(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_REFUSE].name);
}

static void not_given(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_NOT_GIVEN].name);
}

static void not_given_port(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_PORTS_NOT_GIVEN].name);
}

/* Allowed, where it is not too many. */
static void goto_conns(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_CONNS].name);
}

static void goto_limited(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_LIMITED].name);
}

static void goto_reject(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_REJECT].name);
}

static void goto_from_guest(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_FROM_GUEST].name);
}

static void goto_ports_ip4(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_PORTS_IP4].name);
}

static void goto_ports_arp(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_PORTS_ARP].name);
}

static void goto_ports_ip6(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_PORTS_IP6].name);
}

static void goto_policy_private(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, chain_defs[CHAIN_POLICY_PRIVATE].name);
}

/* To the chain of the policy of the interface, if it has one. */
static void follow_policy(struct rule *rule, enum set_id set)
{
    rule_load_meta(rule, NFT_META_IIFNAME, 0);
    rule_lookup(rule, set_defs[set].name, RULE_LOOKUP_VERDICT);
}

static void follow_policy_public(struct rule *rule)
{
    follow_policy(rule, SET_POLICY_PUBLIC);
}

static void follow_policy_private(struct rule *rule)
{
    follow_policy(rule, SET_POLICY_PRIVATE);
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

/* Address in the first register, port (if any) in port_reg. */
static void translate(struct rule *rule, uint32_t type, uint32_t family, uint32_t port_reg)
{
    struct nftnl_expr *expr = rule_add(rule, "nat");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_TYPE, type);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_FAMILY, family);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG32_00);
    if (port_reg)
        nftnl_expr_set_u32(expr, NFTNL_EXPR_NAT_REG_PROTO_MIN, NFT_REG32_00 + port_reg);
}

static void to_pub4(struct rule *rule)
{
    ip4(rule);
    load_service(rule, 0);
    lookup_map(rule, SET_PUB4);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV4, 1);
}

static void to_pub4_at(struct rule *rule)
{
    ip4(rule);
    load_destination4(rule, 0);
    load_service(rule, 1);
    lookup_map(rule, SET_PUB4_AT);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV4, 1);
}

static void to_pub6(struct rule *rule)
{
    ip6(rule);
    load_service(rule, 0);
    lookup_map(rule, SET_PUB6);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV6, 4);
}

static void to_pub6_at(struct rule *rule)
{
    ip6(rule);
    load_destination6(rule, 0);
    load_service(rule, 4);
    lookup_map(rule, SET_PUB6_AT);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV6, 4);
}

static void to_own_gateway4(struct rule *rule)
{
    ip4(rule);
    rule_load_meta(rule, NFT_META_IIFGROUP, 0);
    lookup_map(rule, SET_SOURCE4);
    translate(rule, NFT_NAT_DNAT, NFPROTO_IPV4, 0);
}

static void as_gateway4(struct rule *rule)
{
    ip4(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    lookup_map(rule, SET_SOURCE4);
    translate(rule, NFT_NAT_SNAT, NFPROTO_IPV4, 0);
}

static void as_gateway6(struct rule *rule)
{
    ip6(rule);
    rule_load_meta(rule, NFT_META_OIFGROUP, 0);
    lookup_map(rule, SET_SOURCE6);
    translate(rule, NFT_NAT_SNAT, NFPROTO_IPV6, 0);
}

static void masquerade(struct rule *rule)
{
    rule_add(rule, "masq");
}

/* The segment size of a SYN becomes what the path of the connection carries in both directions;
 * never more than it was. */
static void clamp_segment_size(struct rule *rule)
{
    struct nftnl_expr *route = rule_add(rule, "rt");
    struct nftnl_expr *order = rule_add(rule, "byteorder");
    struct nftnl_expr *option = rule_add(rule, "exthdr");

    if (!route || !order || !option)
        return;
    nftnl_expr_set_u32(route, NFTNL_EXPR_RT_KEY, NFT_RT_TCPMSS);
    nftnl_expr_set_u32(route, NFTNL_EXPR_RT_DREG, NFT_REG32_00);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_SREG, NFT_REG32_00);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_DREG, NFT_REG32_00);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_LEN, 2);
    nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_SIZE, 2);
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_SREG, NFT_REG32_00);
    nftnl_expr_set_u8(option, NFTNL_EXPR_EXTHDR_TYPE, 2); /* maximum segment size, RFC 9293 */
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_OFFSET, 2);
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_LEN, 2);
    nftnl_expr_set_u32(option, NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT);
}

/* --- rules --- */

typedef void (*rule_word)(struct rule *rule);

#define RULE_WORDS 4

struct rule_def {
    enum chain_id chain;
    const char *comment;
    rule_word words[RULE_WORDS];
};

static const struct rule_def rule_defs[] = {
    {CHAIN_RAW,
     "no loopback source from outside",
     {not_from_loopback, source4_loopback, not_given}},
    {CHAIN_RAW,
     "no loopback destination from outside",
     {not_from_loopback, destination4_loopback, not_given}},
    {CHAIN_RAW, "no ::1 source from outside", {not_from_loopback, source6_loopback, not_given}},
    {CHAIN_RAW,
     "no ::1 destination from outside",
     {not_from_loopback, destination6_loopback, not_given}},

    {CHAIN_RAW, "no redirects", {from_ours, redirect4, not_given}},
    {CHAIN_RAW, "no redirects, IPv6", {from_ours, redirect6, not_given}},
    {CHAIN_RAW, "no router advertisements", {from_ours, router_advert, not_given}},
    {CHAIN_RAW, "DHCP of routed ports", {from_ours, dhcp4_request, source_none4, accept_it}},
    {CHAIN_RAW,
     "sources of routed ports",
     {from_ours, not_from_bridge, source4_is_not_given, not_given}},
    {CHAIN_RAW,
     "sources of routed ports, IPv6",
     {from_ours, not_from_bridge, source6_is_not_given, not_given}},

    {CHAIN_POLICY, "not ours", {from_others, accept_it}},
    {CHAIN_POLICY, "known connections", {known, accept_it}},
    {CHAIN_POLICY, "name service", {to_own4, to_dns4, accept_it}},
    {CHAIN_POLICY, "name service, IPv6", {to_own6, to_dns6, accept_it}},
    {CHAIN_POLICY, "DHCP", {dhcp4_request, to_broadcast4, accept_it}},
    {CHAIN_POLICY, "DHCP of the gateway", {dhcp4_request, to_own4, accept_it}},
    {CHAIN_POLICY, "DHCPv6", {dhcp6_request, to_link_multicast6, accept_it}},
    {CHAIN_POLICY, "router solicitation", {router_solicit, to_link_multicast6, accept_it}},
    {CHAIN_POLICY,
     "neighbour discovery, multicast",
     {neighbour_discovery, to_link_multicast6, accept_it}},
    {CHAIN_POLICY,
     "neighbour discovery, link-local",
     {neighbour_discovery, to_link_local6, accept_it}},
    {CHAIN_POLICY, "neighbour discovery, gateway", {neighbour_discovery, to_own6, accept_it}},
    {CHAIN_POLICY, "this host", {to_host, goto_policy_private}},
    {CHAIN_POLICY, "our networks", {to_subnet4, goto_policy_private}},
    {CHAIN_POLICY, "our networks, IPv6", {to_subnet6, goto_policy_private}},
    {CHAIN_POLICY, "never public", {to_special4, goto_policy_private}},
    {CHAIN_POLICY, "never public, IPv6", {to_special6, goto_policy_private}},
    {CHAIN_POLICY, "public addresses", {follow_policy_public}},

    {CHAIN_POLICY_PRIVATE, "other addresses", {follow_policy_private}},

    {CHAIN_POLICY_WAIT, "not yet", {drop_it}},

    {CHAIN_DNAT, "localhost of a guest, published", {localhost_of_guest, to_pub4}},
    {CHAIN_DNAT, "localhost of a guest", {localhost_of_guest, to_own_gateway4}},
    {CHAIN_DNAT, "name service", {to_dns4, accept_it}},
    {CHAIN_DNAT, "name service, IPv6", {to_dns6, accept_it}},
    {CHAIN_DNAT, "published on this address", {to_host, to_pub4_at}},
    {CHAIN_DNAT, "published", {to_host, to_pub4}},
    {CHAIN_DNAT, "published on this address, IPv6", {to_host, to_pub6_at}},
    {CHAIN_DNAT, "published, IPv6", {to_host, to_pub6}},

    {CHAIN_DNAT_OUTPUT, "name service", {to_dns4, accept_it}},
    {CHAIN_DNAT_OUTPUT, "name service, IPv6", {to_dns6, accept_it}},
    {CHAIN_DNAT_OUTPUT, "::1 is the relay's", {destination6_loopback, accept_it}},
    {CHAIN_DNAT_OUTPUT, "published on this address", {to_host, to_pub4_at}},
    {CHAIN_DNAT_OUTPUT, "published", {to_host, to_pub4}},
    {CHAIN_DNAT_OUTPUT, "published on this address, IPv6", {to_host, to_pub6_at}},
    {CHAIN_DNAT_OUTPUT, "published, IPv6", {to_host, to_pub6}},

    {CHAIN_SNAT, "from 127.0.0.0/8 to a guest", {source4_loopback, as_gateway4}},
    {CHAIN_SNAT, "neighbour through the host", {published, neighbours4, as_gateway4}},
    {CHAIN_SNAT, "neighbour through the host, IPv6", {published, neighbours6, as_gateway6}},
    {CHAIN_SNAT, "from the host to an internal guest", {published, to_internal, as_gateway4}},
    {CHAIN_SNAT, "from the host to an internal guest, IPv6", {published, to_internal, as_gateway6}},
    {CHAIN_SNAT,
     "from another network to an internal guest",
     {from_ours, not_within_same, to_internal, as_gateway4}},
    {CHAIN_SNAT,
     "from another network to an internal guest, IPv6",
     {from_ours, not_within_same, to_internal, as_gateway6}},
    {CHAIN_SNAT, "to the outside", {from_ours, to_others, masquerade}},

    {CHAIN_FORWARD, "not ours", {from_others, to_others, accept_it}},
    {CHAIN_FORWARD, "segment size", {tcp_syn, clamp_segment_size}},
    {CHAIN_FORWARD, "known connections", {known, accept_it}},
    {CHAIN_FORWARD, "closed guests", {to_closed4, refuse_it}},
    {CHAIN_FORWARD, "closed guests, IPv6", {to_closed6, refuse_it}},
    {CHAIN_FORWARD, "within a network", {within_same, goto_conns}},
    {CHAIN_FORWARD, "no connection", {invalid, drop_it}},
    {CHAIN_FORWARD, "from network to network", {on_passage, goto_conns}},
    {CHAIN_FORWARD, "from network to ports of a network", {on_passage_port, goto_conns}},
    {CHAIN_FORWARD, "out of an internal network", {from_internal, refuse_it}},
    {CHAIN_FORWARD, "into an internal network", {to_internal, refuse_it}},
    {CHAIN_FORWARD, "published ports", {to_ours, published, goto_conns}},
    {CHAIN_FORWARD, "nothing else gets in", {to_ours, refuse_it}},
    {CHAIN_FORWARD, "to the outside", {goto_conns}},

    {CHAIN_INPUT, "the host itself", {from_loopback, accept_it}},
    {CHAIN_INPUT, "guests", {from_ours, goto_from_guest}},
    {CHAIN_INPUT, "gateways are for guests", {unknown, to_gateway4, drop_it}},
    {CHAIN_INPUT, "gateways are for guests, IPv6", {unknown, to_gateway6, drop_it}},

    {CHAIN_OUTPUT, "known connections", {known, accept_it}},
    {CHAIN_OUTPUT, "DHCP", {dhcp4_answer, accept_it}},
    {CHAIN_OUTPUT, "DHCPv6", {dhcp6_answer, accept_it}},
    {CHAIN_OUTPUT, "neighbour discovery", {neighbour_discovery, accept_it}},
    {CHAIN_OUTPUT, "unreachable", {unreachable4, accept_it}},
    {CHAIN_OUTPUT, "other errors", {error4, accept_it}},
    {CHAIN_OUTPUT, "errors, IPv6", {error6, accept_it}},
    {CHAIN_OUTPUT, "closed guests", {to_closed4, refuse_it}},
    {CHAIN_OUTPUT, "closed guests, IPv6", {to_closed6, refuse_it}},

    {CHAIN_FROM_GUEST, "known connections", {known, accept_it}},
    {CHAIN_FROM_GUEST, "no connection", {invalid, drop_it}},
    {CHAIN_FROM_GUEST, "another network's gateway", {to_gateway4, not_to_own4, refuse_it}},
    {CHAIN_FROM_GUEST, "another network's gateway, IPv6", {to_gateway6, not_to_own6, refuse_it}},
    {CHAIN_FROM_GUEST, "DHCP is the worker's", {dhcp4_request, drop_it}},
    {CHAIN_FROM_GUEST, "DHCPv6 is the worker's", {dhcp6_request, drop_it}},
    {CHAIN_FROM_GUEST, "router solicitation", {router_solicit, accept_it}},
    {CHAIN_FROM_GUEST, "neighbour discovery", {neighbour_discovery, accept_it}},
    {CHAIN_FROM_GUEST, "name service", {to_dns4, goto_conns}},
    {CHAIN_FROM_GUEST, "name service, IPv6", {to_dns6, goto_conns}},
    {CHAIN_FROM_GUEST, "ping of the gateway", {to_own4, echo4, goto_conns}},
    {CHAIN_FROM_GUEST, "ping of the gateway, IPv6", {to_own6, echo6, goto_conns}},
    {CHAIN_FROM_GUEST, "with access to the host", {from_host_access, goto_conns}},
    {CHAIN_FROM_GUEST, "internal networks", {from_internal, refuse_it}},
    {CHAIN_FROM_GUEST, "ping", {echo4, goto_conns}},
    {CHAIN_FROM_GUEST, "ping, IPv6", {echo6, goto_conns}},
    {CHAIN_FROM_GUEST, "relayed ports", {to_relay4, goto_conns}},
    {CHAIN_FROM_GUEST, "relayed ports, IPv6", {to_relay6, goto_conns}},
    {CHAIN_FROM_GUEST, "relayed ports on this address", {to_relay6_at, goto_conns}},
    {CHAIN_FROM_GUEST, "nothing else", {refuse_it}},

    {CHAIN_REFUSE, "no connection", {invalid, drop_it}},
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

    {CHAIN_REJECT, "in silence", {from_silent4, drop_it}},
    {CHAIN_REJECT, "in silence, IPv6", {from_silent6, drop_it}},
    {CHAIN_REJECT, "refused by reset", {tcp, reject_by_reset}},
    {CHAIN_REJECT, "refused by ICMP", {reject_by_icmp}},

    {CHAIN_NOT_GIVEN, "counted and told", {from_counted, tell_dropped}},
    {CHAIN_NOT_GIVEN, "dropped", {drop_it}},

    {CHAIN_PORTS, "not ours", {from_others, accept_it}},
    {CHAIN_PORTS, "IPv4", {frame_ip4, goto_ports_ip4}},
    {CHAIN_PORTS, "ARP", {frame_arp, goto_ports_arp}},
    {CHAIN_PORTS, "IPv6", {frame_ip6, goto_ports_ip6}},
    {CHAIN_PORTS, "nothing else", {not_given_port}},

    {CHAIN_PORTS_IP4, "no DHCP server", {frame_dhcp4_server, not_given_port}},
    {CHAIN_PORTS_IP4, "no redirects", {frame_redirect4, not_given_port}},
    {CHAIN_PORTS_IP4, "DHCP", {source_none4, frame_dhcp4_request, given4, accept_it}},
    {CHAIN_PORTS_IP4, "no source", {source_none4, not_given_port}},
    {CHAIN_PORTS_IP4, "what was given", {given4, accept_it}},
    {CHAIN_PORTS_IP4, "nothing else", {not_given_port}},

    {CHAIN_PORTS_ARP, "what was given", {arp_given, accept_it}},
    {CHAIN_PORTS_ARP, "nothing else", {not_given_port}},

    {CHAIN_PORTS_IP6, "no DHCP server", {frame_dhcp6_server, not_given_port}},
    {CHAIN_PORTS_IP6, "no router advertisements", {frame_router_advert, not_given_port}},
    {CHAIN_PORTS_IP6, "no redirects", {frame_redirect6, not_given_port}},
    {CHAIN_PORTS_IP6, "no false advertisements", {frame_false_advert, not_given_port}},
    {CHAIN_PORTS_IP6,
     "duplicate detection",
     {source_none6, frame_neighbour_solicit, given6, accept_it}},
    {CHAIN_PORTS_IP6,
     "multicast reports",
     {source_none6, frame_multicast_report, given6, accept_it}},
    {CHAIN_PORTS_IP6, "no source", {source_none6, not_given_port}},
    {CHAIN_PORTS_IP6, "what was given", {given6, accept_it}},
    {CHAIN_PORTS_IP6, "nothing else", {not_given_port}},

    {CHAIN_PORTS_NOT_GIVEN, "counted and told", {from_counted_port, tell_dropped}},
    {CHAIN_PORTS_NOT_GIVEN, "dropped", {drop_it}},
};

size_t ruleset_rule_count(void)
{
    return ARRAY_SIZE(rule_defs);
}

enum chain_id ruleset_rule_chain(size_t index)
{
    return rule_defs[index].chain;
}

const char *ruleset_rule_comment(size_t index)
{
    return rule_defs[index].comment;
}

static struct nftnl_rule *rule_build(const struct rule_def *def,
                                     const struct ruleset_groups *groups)
{
    struct rule rule;

    rule_init(&rule, RULESET_TABLE, chain_defs[def->chain].name, def->comment, groups);
    rule_set_family(&rule, ruleset_table_family(chain_table(def->chain)));
    for (size_t i = 0; i < RULE_WORDS && def->words[i]; i++)
        def->words[i](&rule);
    return rule_finish(&rule);
}

/* --- tag --- */

int ruleset_rule_format(const struct ruleset_groups *groups, size_t index, char *text, size_t size)
{
    struct nftnl_rule *rule = rule_build(&rule_defs[index], groups);

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
        snprintf(text, sizeof(text), "%s %x %x %x %d %u", set_defs[i].name,
                 fields_type(set_defs[i].key), fields_type(set_defs[i].data),
                 set_flags(&set_defs[i]), set_states[i].counts, set_states[i].per_second);
        hash = hash_text(hash, set_states[i].over_conns  ? "conns"
                               : set_states[i].over_rate ? "rate"
                                                         : "");
        hash = hash_text(hash, text);
    }
    for (size_t i = 0; i < CHAIN_COUNT_; i++) {
        snprintf(text, sizeof(text), "%s %s %u %d", chain_defs[i].name,
                 chain_defs[i].type ? chain_defs[i].type : "", chain_defs[i].hook,
                 chain_defs[i].priority);
        hash = hash_text(hash, text);
    }
    return hash;
}

void ruleset_tag(const struct ruleset_groups *groups, char ret_tag[RULESET_TAG_MAX])
{
    uint64_t hash = hash_sets_and_chains(0xcbf29ce484222325u);
    char text[2048];

    for (size_t i = 0; i < ARRAY_SIZE(rule_defs); i++)
        if (ruleset_rule_format(groups, i, text, sizeof(text)) >= 0)
            hash = hash_text(hash, text);
    snprintf(ret_tag, RULESET_TAG_MAX, "moat %016llx", (unsigned long long)hash);
}

/* --- messages --- */

static void append_table(struct nft_transaction *transaction, const struct ruleset_groups *groups,
                         enum ruleset_table table)
{
    for (size_t i = 0; i < SET_COUNT_; i++)
        if (set_defs[i].table == table)
            nft_transaction_add_set(transaction, set_build((enum set_id)i), set_defs[i].name);
    for (size_t i = 0; i < CHAIN_COUNT_; i++)
        if (chain_table((enum chain_id)i) == table)
            nft_transaction_add_chain(transaction, RULESET_TABLE, &chain_defs[i]);
    for (size_t i = 0; i < ARRAY_SIZE(rule_defs); i++)
        if (chain_table(rule_defs[i].chain) == table)
            nft_transaction_add_rule(transaction, rule_build(&rule_defs[i], groups),
                                     rule_defs[i].comment);
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
