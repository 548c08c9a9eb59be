/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/chains.h"

#include <assert.h>
#include <linux/netfilter.h>
#include <linux/netfilter_bridge.h>
#include <linux/netfilter_ipv4.h>

#include "base/cleanup.h"

uint8_t ruleset_table_family(enum ruleset_table table)
{
    return table == TABLE_BRIDGE ? NFPROTO_BRIDGE : NFPROTO_INET;
}

#define PORTS_PRIORITY (-300) /* before everything that others may have there */

static const struct nft_chain chain_defs[] = {
    [CHAIN_RAW] = {"raw", "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW},
    [CHAIN_RAW_OUTPUT] = {"raw_output", "filter", NF_INET_LOCAL_OUT, NF_IP_PRI_RAW},
    [CHAIN_POLICY] = {"guest_policy", "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_MANGLE},
    [CHAIN_POLICY_PRIVATE] = {"guest_policy_private", NULL, 0, 0},
    [CHAIN_POLICY_WAIT] = {"guest_policy_wait", NULL, 0, 0},
    [CHAIN_DNAT] = {"dnat", "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST},
    [CHAIN_LOCALHOST] = {"localhost", NULL, 0, 0},
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
