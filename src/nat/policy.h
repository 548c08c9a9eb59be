/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A policy in the kernel: two chains, for public addresses and for the rest, which look up one set
 * of ranges per family; each its own, or both the same where no rule tells them apart. Their names
 * are made of the policy's id and version; endpoints lead to the chains by the maps
 * SET_POLICY_PUBLIC and SET_POLICY_PRIVATE. With domain rules there is also a map of services, and
 * for each service a chain with one set of *openings* per family (opening.c): the addresses that
 * the guest was given for names. What names open and what they deny have such maps, chains and sets
 * each. */
#pragma once

#include <libnftnl/set.h>

#include "nat/nat.h"
#include "nat/nft.h"
#include "nat/policy_compile.h"
#include "nat/policy_names.h"
#include "nat/policy_services.h"
#include "nat/ruleset.h"

#define POLICY_FAMILIES 2 /* IPv4, IPv6 */

struct policy_object {
    int64_t id;
    uint64_t version;
    bool add;
    bool accepts; /* ranges are what is allowed; else what is denied */
    int n_tables; /* classes with ranges of their own; 1: they have the same, and the same sets */
    struct policy_table tables[POLICY_CLASSES][POLICY_FAMILIES];
    struct policy_services services;
    char chains[POLICY_CLASSES][POLICY_NAME_MAX];
    char sets[POLICY_CLASSES][POLICY_FAMILIES][POLICY_NAME_MAX];
};

/* Compiles, where it is to be added. Reason quota; see nat_batch_policy. */
int policy_object_new(const struct nat_policy *policy, bool add, struct policy_object **ret_object,
                      struct error *error);
void policy_object_free(struct policy_object *object);
/* Chains, sets and rules; or their deletion. */
void policy_object_append(const struct policy_object *object, bool add,
                          struct nft_transaction *transaction);

/* Names of its chains; NULL behind the last. The first POLICY_CLASSES are those of the classes. */
const char *policy_chain_get(const struct policy_object *object, size_t index,
                             char text[POLICY_NAME_MAX]);
/* Names of its sets, and what each is; NULL behind the last. */
enum policy_set_kind { POLICY_SET_RANGES, POLICY_SET_SERVICES, POLICY_SET_OPENINGS };
const char *policy_set_get(const struct policy_object *object, size_t index,
                           char text[POLICY_NAME_MAX], enum policy_set_kind *ret_kind);
size_t policy_key_length(unsigned family_index);
void policy_range_write(const struct policy_range *range, uint8_t *first, uint8_t *last);
/* The same for a map of services. */
#define POLICY_SERVICE_KEY 8
void policy_service_range_write(const struct policy_service_range *range, uint8_t *first,
                                uint8_t *last);
