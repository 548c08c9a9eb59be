/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tables `inet moat` and `bridge moat` and their chains. What a chain is for stands with its
 * rules: rules_source.c, rules_policy.c, rules_translation.c, rules_filter.c, rules_refusal.c. */
#pragma once

#include <stdint.h>

#include "nat/rule.h"

#define RULESET_TABLE "moat"

/* Both tables have this name, and are made, replaced and removed together. */
enum ruleset_table { TABLE_INET, TABLE_BRIDGE, TABLE_COUNT_ };
uint8_t ruleset_table_family(enum ruleset_table table);

enum chain_id {
    CHAIN_RAW,
    CHAIN_RAW_OUTPUT,
    CHAIN_POLICY,
    CHAIN_POLICY_PRIVATE,
    CHAIN_POLICY_WAIT,
    CHAIN_DNAT,
    CHAIN_LOCALHOST,
    CHAIN_DNAT_OUTPUT,
    CHAIN_SNAT,
    CHAIN_FORWARD,
    CHAIN_INPUT,
    CHAIN_OUTPUT,
    CHAIN_FROM_GUEST,
    CHAIN_CONNS,
    CHAIN_REFUSE,
    CHAIN_LIMITED,
    CHAIN_REJECT,
    CHAIN_NOT_GIVEN,
    CHAIN_PORTS,
    CHAIN_PORTS_IP4,
    CHAIN_PORTS_ARP,
    CHAIN_PORTS_IP6,
    CHAIN_PORTS_NOT_GIVEN,
    CHAIN_COUNT_,
};

const struct nft_chain *chain_def_get(enum chain_id id);
enum ruleset_table chain_table(enum chain_id id);
