/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What links of ours should look like: filled by whoever makes or changes one, read by the watcher
 * to tell somebody else's change from ours. It is not state to restore from; that is the store's.
 * Handles of several threads share a table: each call is atomic, and what is found is a copy.
 * Private to link/. */
#pragma once

#include <net/if.h>
#include <pthread.h>

#include "base/address.h"
#include "base/error.h"

enum known_kind { KNOWN_BRIDGE, KNOWN_BRIDGED, KNOWN_ROUTED, KNOWN_BETWEEN };

struct known {
    enum known_kind kind;
    uint32_t index;
    char name[IFNAMSIZ];
    uint32_t group;
    uint32_t master; /* index of the bridge; 0 for a bridge and a routed port */
    uint32_t bridge; /* index of a port's bridge, whether it is in it or not */
    uint32_t mtu;
    struct mac mac;                /* of the bridge; of the guest, for a port */
    struct ip ip, ip6;             /* of the guest; absent for a bridge */
    struct cidr address, address6; /* of the bridge */
    bool retired;                  /* we removed it: what is still heard of it is of no interest */

    /* kept by the table */
    struct known *next_by_index, *next_by_name;
    unsigned generation;
};

#define KNOWN_EXPECTED_MAX 4 /* links that are being made at once: one of each thread */

struct known_table {
    pthread_mutex_t lock;               /* guards what follows */
    struct known **by_index, **by_name; /* arrays of n_buckets chains */
    size_t n_buckets;                   /* a power of two; 0 before the first entry */
    size_t count;
    unsigned generation; /* of the latest known_survey_begin */
    char expected[KNOWN_EXPECTED_MAX][IFNAMSIZ];
};

void known_init(struct known_table *table);
void known_deinit(struct known_table *table);
/* Adds a copy, or replaces the entry of that index or of that name. Returns 0 or -ENOMEM. */
int known_set(struct known_table *table, const struct known *known);
/* False when there is none. */
bool known_find(struct known_table *table, uint32_t index, struct known *ret_known);
bool known_find_name(struct known_table *table, const char *name, struct known *ret_known);
size_t known_count(struct known_table *table);
/* A link of that name is being made, which will be known when it is there; and it is, or has
 * failed. */
void known_expect(struct known_table *table, const char *name);
void known_expect_end(struct known_table *table, const char *name);
bool known_is_expected(struct known_table *table, const char *name);
/* Fine when there is none. */
void known_remove(struct known_table *table, uint32_t index);
/* Marks it as retired and takes its name away, so that only its index finds it. Fine when there is
 * none. */
void known_retire(struct known_table *table, uint32_t index);
/* Calls fn for every entry; fn must not use the table. */
typedef void (*known_fn)(const struct known *known, void *userdata);
void known_each(struct known_table *table, known_fn fn, void *userdata);

/* Which entries' links are gone? Between begin and end every link that is there is marked; end
 * removes those that were not, and calls fn for each. What is set meanwhile counts as marked. */
void known_survey_begin(struct known_table *table);
void known_survey_mark(struct known_table *table, uint32_t index);
void known_survey_end(struct known_table *table, known_fn fn, void *userdata);
