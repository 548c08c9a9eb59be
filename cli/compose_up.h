/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat compose up: starts the services, each kept by a process of its own, and looks after them. */
#pragma once

#include "compose_state.h"

struct compose_up {
    struct invocation *invocation;
    const struct compose *compose;
    const bool *running; /* for each service: it runs already, from an earlier up */
    bool detach;
    unsigned timeout_s;
};

/* Starts every service that does not run yet, in the order of their dependencies. With detach
 * returns once all run, and they go on without us; else prints their output until all have ended or
 * a signal asks for the end. When one can't be started, those that were started here are ended
 * again, and why has been said. *ret_started: whether all of them were started. Returns the exit
 * code. */
int compose_up_run(const struct compose_up *up, bool *ret_started);
