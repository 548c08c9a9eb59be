/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Make the kernel match", in parts. Private to service. */
#pragma once

#include "service/private.h"

struct state {
    struct service *service;
    struct network *networks;
    size_t n_networks;
    struct guest *guests;
    struct guest_plan *plans; /* one per guest */
    size_t n_guests;
    struct strings failed_before;
    struct link_info *links; /* ours, as they were found */
    size_t n_links;
    bool start;
    bool follow_mtu; /* the host's MTU is not what guests were told */
};

/* Is what it was attached by still there: its namespace, its owner? */
bool guest_is_alive(struct service *service, const struct guest *guest);
/* Everything but guests: what nobody knows goes, rules and networks are as they should be. Loads
 * networks and guests into the state, which has `service` and `start` set. Ends with reconcile_end,
 * whatever came of it. */
int reconcile_begin(struct state *state, struct error *error);
/* One guest: its links and what else the kernel and the workers have of it. What can't be put right
 * is told, and tried again later. The plan is the caller's, its namespace may be open afterwards.
 */
void reconcile_guest(const struct state *state, struct guest_plan *plan);
/* Frees what reconcile_begin has loaded. */
void reconcile_forget(struct state *state);
/* r: what became of it so far. Frees the state. */
int reconcile_end(struct state *state, int r, struct error *error);
