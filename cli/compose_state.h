/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the daemon has of a project: guests and networks with its label. */
#pragma once

#include "command.h"
#include "compose.h"

struct compose_state {
    struct guest *guests; /* all there are */
    size_t n_guests;
    struct network *networks;
    size_t n_networks;
};

/* Asks the daemon. Returns the exit code; what went wrong has been said. */
int compose_state_load(struct invocation *invocation, struct compose_state *ret_state);
void compose_state_deinit(struct compose_state *state);

/* By name; NULL when there is none. */
const struct guest *compose_state_guest(const struct compose_state *state, const char *name);
const struct network *compose_state_network(const struct compose_state *state, const char *name);
/* Does the label of this kind say this? */
bool compose_labelled(const struct labels *labels, const char *kind, const char *value);

/* --- one thing each; they return the exit code, and have said what went wrong --- */

int compose_network_create(struct invocation *invocation, const struct compose_network *network);
/* One that is gone already is fine. */
int compose_network_remove(struct invocation *invocation, const char *name);
/* Detaches a guest; one that is gone already is fine. */
int compose_guest_detach(struct invocation *invocation, const char *name);
/* Ends the processes of these guests (SIGTERM, and SIGKILL after timeout_s), all at the same time,
 * and detaches the guests. Blocks until they are gone. */
int compose_guests_stop(struct invocation *invocation, const struct guest *const *guests,
                        size_t count, unsigned timeout_s);
