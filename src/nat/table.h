/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of this layer share of struct nat and struct nat_batch. */
#pragma once

#include "nat/nat.h"
#include "nat/nft.h"
#include "nat/policy.h"
#include "nat/ruleset.h"

/* NFT_TABLE_F_PERSIST of Linux 6.9; Debian 12's headers don't have it. */
#define TABLE_F_PERSIST 0x4u
#define TABLE_F_OWNER 0x2u

struct nat_watch;
struct counters;

struct nat {
    struct nft_socket *socket;
    struct nft_socket *reader; /* of long dumps, which yield */
    struct ruleset_groups groups;
    bool owned;            /* the table in the kernel is ours alone */
    uint32_t share;        /* of the connection tracking table, for one endpoint: connections */
    bool owner_impossible; /* this kernel has no owner|persist */
    bool renews;           /* this kernel renews elements that are added again (opening.c) */
    struct nat_watch *watch;
};

/* One change of one element. */
struct nat_element {
    uint8_t set; /* enum set_id */
    bool add;
    uint8_t key[SET_KEY_MAX];
    uint8_t key_end[SET_KEY_MAX]; /* of ranges */
    uint8_t data[SET_DATA_MAX];
    uint32_t amount; /* of sets that match beyond one (struct set_state) */
};

struct nat_batch {
    struct nat *nat;
    struct nat_element *elements;
    size_t count;
    size_t capacity;
    size_t n_deletions;
    struct policy_object **policies;
    size_t n_policies;
    struct nat_opening *openings;
    size_t n_openings;
    bool failed; /* out of memory */
};

/* Appends the messages of policies that are added, and of openings. */
void nat_batch_append_policies(struct nat_batch *batch, struct nft_transaction *transaction);
/* Of elements. waiting: those that lead to a policy lead to the chain that drops instead. counters
 * (may be NULL): what counting elements go on from. */
void nat_batch_append_elements(const struct nat_batch *batch, bool waiting,
                               const struct counters *counters,
                               struct nft_transaction *transaction);
/* Ends the waiting. */
void nat_batch_append_release(const struct nat_batch *batch, struct nft_transaction *transaction);
/* Elements that every table of ours has: a batch of its own. NULL without memory. */
struct nat_batch *nat_batch_new_constant(struct nat *nat);

/* A table as the kernel has it. */
struct nat_table_state {
    bool exists;
    uint32_t flags;
    uint32_t owner; /* netlink port of the owner, 0 for none */
    char tag[RULESET_TAG_MAX];
};
int nat_table_get(struct nat *nat, enum ruleset_table table, struct nat_table_state *ret_state,
                  struct error *error);
