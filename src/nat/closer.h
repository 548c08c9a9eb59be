/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whoever closes a listening socket last pays for it. For a long range that is a
 * thread of ours, so that neither the loop nor the relay, whose answers detaches wait for, is busy
 * with it: it closes when the relay has. Used from the loop's thread. Private to nat. */
#pragma once

#include "base/loop.h"

struct closer;

/* Has the relay let go of what was released with that number (reserve_is_released)? */
typedef bool (*closer_ready_fn)(void *userdata, uint64_t release);
/* From the loop, urgent: more is closed. Never from within a call of these functions. */
typedef void (*closer_closed_fn)(void *userdata);

/* Closes these descriptors (-1 is none) at once, many of them by several threads; yields
 * (base/yield.h). They are -1 after it. */
void closer_close(int *fds, uint32_t count);

int closer_new(struct loop *loop, closer_ready_fn ready, closer_closed_fn closed, void *userdata,
               struct closer **ret_closer, struct error *error);
/* Closes what is left, ready or not, and ends the thread. Blocks. Nobody is told. */
void closer_free(struct closer *closer);
/* Takes these descriptors (they are -1 after it) to be closed when `release`, not less than that of
 * any call before, is ready. Without memory they are closed at once. */
void closer_add(struct closer *closer, int *fds, uint32_t count, uint64_t release);
/* How often something was added; has the first so many of that been closed? */
uint64_t closer_added(const struct closer *closer);
bool closer_has_closed(const struct closer *closer, uint64_t number);
/* Something may be ready. */
void closer_look(struct closer *closer);
/* Waits until that is closed, as far as it is ready; yields (base/yield.h). False after timeout_ms.
 */
bool closer_wait(struct closer *closer, uint64_t number, unsigned timeout_ms);
