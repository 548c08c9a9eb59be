/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the elements of counting sets (struct set_state) have counted. A rebuild makes the elements
 * anew and gives them what they had. */
#pragma once

#include "nat/table.h"

struct counter {
    uint8_t set; /* enum set_id */
    uint8_t key[SET_KEY_MAX];
    uint64_t packets;
    uint64_t bytes;
};

struct counters {
    struct counter *items;
    size_t count;
};

/* All of the table that is there; none where there is none. */
int counters_load(struct nat *nat, struct counters *ret_counters, struct error *error);
void counters_deinit(struct counters *counters);
/* NULL where there is none. */
const struct counter *counters_find(const struct counters *counters, const struct nat_element *key);

/* The expressions of an element as its set has them, if it has, counting from there on (NULL: from
 * 0). */
void counter_put(struct nlmsghdr *message, const struct nat_element *element,
                 const struct counter *counter);
/* What an element's expression says of nat_element.amount; 0 where it says nothing of it. */
uint32_t counter_read_amount(const struct nlattr *expression, enum set_id set);
