/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What domain rules open is kept for each address that a guest is given, and must be looked up at
 * each packet whatever ports the rules have. So the protocols and ports are cut into *services*:
 * two flows of one service are treated alike by every rule of the policy that can meet a given
 * address. An address that is open has one element for each service that is open. Pure functions.
 */
#pragma once

#include "base/rule.h"

/* Different ports and protocols that the domain rules and the deny rules of a policy with domain
 * rules may have. */
#define POLICY_SERVICES_KINDS_MAX 62
#define POLICY_SERVICES_MAX 128

/* Protocols and ports from first to last; a protocol without ports has all of them. */
struct policy_service_range {
    uint8_t protocol_first;
    uint8_t protocol_last;
    uint16_t port_first;
    uint16_t port_last;
    uint32_t service;
};

struct policy_service {
    uint8_t protocol; /* one flow of it, which stands for all */
    uint16_t port;
    bool opens;  /* there are names that can open it */
    bool closes; /* there are names that can deny it */
};

struct policy_services {
    struct policy_service_range *ranges; /* disjoint; together every protocol and port */
    size_t n_ranges;
    struct policy_service items[POLICY_SERVICES_MAX];
    uint32_t count;
    uint32_t n_opens; /* how many of them have it set */
    uint32_t n_closes;
};

/* The same rules give the same numbers. Without domain rules: none. Returns 0, -ENOMEM, or -E2BIG
 * for more than POLICY_SERVICES_KINDS_MAX, or POLICY_SERVICES_MAX where they overlap. */
int policy_services_compile(const struct policy_rules *allow, const struct policy_rules *deny,
                            struct policy_services *ret_services);
void policy_services_deinit(struct policy_services *services);
