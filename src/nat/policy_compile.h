/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the rules of a policy to one list of ranges per kind of destination and family, as an
 * interval set of nf_tables takes them. Pure functions. */
#pragma once

#include "base/rule.h"

/* Whether a destination is public is asked at each packet, for it depends on the host's addresses;
 * so a policy is compiled once for destinations that are, and once for the rest. */
enum policy_class { POLICY_PUBLIC, POLICY_PRIVATE, POLICY_CLASSES };

/* Protocols, destinations and ports from first to last. A protocol without ports has port 0. */
struct policy_range {
    struct ip first;
    struct ip last;
    uint8_t protocol_first;
    uint8_t protocol_last;
    uint16_t port_first;
    uint16_t port_last;
};

struct policy_table {
    struct policy_range *items;
    size_t count;
};

#define POLICY_TABLE_MAX 16384 /* ranges */

/* With allow rules: what is allowed and not denied. Without: what is denied. Ranges don't overlap.
 * Of domain rules only that they are there counts (policy_has_domains). Returns 0, -ENOMEM, or
 * -E2BIG for more than POLICY_TABLE_MAX ranges, which takes many overlapping rules with different
 * ports. */
int policy_compile(const struct policy_rules *allow, const struct policy_rules *deny,
                   enum policy_class class, uint8_t family, struct policy_table *ret_table);
void policy_table_deinit(struct policy_table *table);
