/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rules of a policy's chains. */
#pragma once

#include "nat/policy.h"

/* Rules of the chain of a class, and of the chain of a service. */
void policy_chain_append(const struct policy_object *object, enum policy_class class,
                         struct nft_transaction *transaction);
void policy_service_append(const struct policy_object *object, bool closes, uint32_t service,
                           struct nft_transaction *transaction);
/* Comments of a chain's rules in order (chains as policy_chain_get numbers them), which say what
 * they do; NULL behind the last. */
const char *policy_rule_comment(const struct policy_object *object, size_t chain, size_t index);
