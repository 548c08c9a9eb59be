/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who goes first on a busy machine (setpriority(2), sched(7)). The loop does a little for whoever
 * asks, one after the other: a moment that it waits for a processor is a moment for everybody. What
 * takes long, and what works for guests, is done by other threads and processes, which have no such
 * claim. */
#pragma once

/* The calling thread goes before ordinary ones from now on. Nothing happens where whoever started
 * us has chosen a nice value, or where it is not permitted. Threads and processes that it makes
 * have the same until they say otherwise. */
void priority_raise(void);

/* The calling thread is an ordinary one from now on. Async-signal-safe. */
void priority_give_up(void);

/* The calling thread leaves most of a busy processor to ordinary ones from now on. */
void priority_lower(void);
