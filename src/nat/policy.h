/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A policy in the kernel: two chains, for public addresses and for the rest, each with one set of
 * ranges per family. Their names are made of the policy's id and version; endpoints lead to the
 * chains by the maps SET_POLICY_PUBLIC and SET_POLICY_PRIVATE. */
#pragma once

#include <libnftnl/set.h>

#include "nat/nat.h"
#include "nat/nft.h"
#include "nat/policy_compile.h"
#include "nat/ruleset.h"

#define POLICY_NAME_MAX 64
#define POLICY_FAMILIES 2 /* IPv4, IPv6 */

struct policy_object {
    int64_t id;
    uint64_t version;
    bool add;
    bool accepts; /* ranges are what is allowed; else what is denied */
    struct policy_table tables[POLICY_CLASSES][POLICY_FAMILIES];
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

/* The chain's name; for id 0 the one that drops while a rebuild goes on. */
void policy_chain_name(int64_t id, uint64_t version, enum policy_class class,
                       char ret_name[POLICY_NAME_MAX]);
/* Reads such a name (but of id 0). */
bool policy_chain_find(const char *name, int64_t *ret_id, uint64_t *ret_version,
                       enum policy_class *ret_class);

/* Comments of the chain's rules in order, which say what they do; NULL behind the last. */
const char *policy_rule_comment(bool accepts, size_t index);
/* The set of a table, and its ranges as keys: first and last, each of policy_key_length bytes. */
const struct set_def *policy_set_def(unsigned family_index);
size_t policy_key_length(unsigned family_index);
void policy_range_write(const struct policy_range *range, uint8_t *first, uint8_t *last);
