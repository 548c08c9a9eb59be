/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looks, in a thread of its own, at what of our links nobody tells of (settings.h): reading a link
 * waits for the kernel's configuration lock, which others hold for milliseconds. Private to link/.
 */
#pragma once

#include "handle.h"

struct patrol;

/* Called by the patrol's thread for a link that looks wrong: it only sends a wake-up. */
typedef void (*patrol_fn)(void *userdata);

/* Starts it. It ends with patrol_free, which waits for the look that is going on. */
int patrol_new(const struct link *link, patrol_fn fn, void *userdata, struct patrol **ret_patrol,
               struct error *error);
void patrol_free(struct patrol *patrol);

/* The link that was reported last, 0 for none; it may have been in the middle of a change by the
 * loop, so the caller looks at it again. */
uint32_t patrol_take(struct patrol *patrol);
