/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of sets, and how a row of it becomes a set of the kernel. */
#include "nat/sets.h"

#include <assert.h>
#include <libnftnl/expr.h>
#include <libnftnl/udata.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>

#include "base/cleanup.h"

#define DROPPED_PER_SECOND 1 /* told of, for each endpoint; counted are all */
#define DENIED_PER_SECOND 20

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
    [SET_OWN_DNS4] = {"own_dns4",
                      "networks and their name service",
                      {FIELD_GROUP, FIELD_PROTO, FIELD_PORT},
                      {0},
                      false,
                      TABLE_INET},
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

const struct set_def *set_def_get(enum set_id id)
{
    return &set_defs[id];
}

/* --- fields --- */

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

/* --- building --- */

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

struct nftnl_set *set_build(enum set_id id)
{
    struct nftnl_set *set = set_def_build(&set_defs[id], set_defs[id].name, (uint32_t)id + 1);

    if (set && set_state_get(id) && !set_put_state(set, set_state_get(id))) {
        nftnl_set_free(set);
        return NULL;
    }
    return set;
}

void set_format(enum set_id id, char *text, size_t size)
{
    const struct set_def *def = &set_defs[id];
    const struct set_state *state = &set_states[id];

    snprintf(text, size, "%s %x %x %x %d %u %d%d", def->name, fields_type(def->key),
             fields_type(def->data), set_flags(def), state->counts, state->per_second,
             state->over_conns, state->over_rate);
}
