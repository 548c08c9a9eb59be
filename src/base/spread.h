/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Does the same to each of many items, by several threads side by side: for what takes the kernel
 * microseconds each, and where different items have next to nothing in common. Each thread takes a
 * few at a time, so that none waits long for another. */
#pragma once

#include <stdint.h>

/* 0, or a negative errno, which ends the whole. From any of the threads. */
typedef int (*spread_fn)(void *userdata, uint32_t index);

/* Calls fn once for each index below count, from the caller's thread and, for each `worth` items
 * more, from another one, as far as there are processors. Returns when all have been called. Yields
 * (yield.h) in between. On failure not all have been called, and the first that is known to have
 * failed is *ret_index; its errno is returned. Where a thread can't be made the others do its work.
 */
int spread(uint32_t count, uint32_t worth, spread_fn fn, void *userdata, uint32_t *ret_index);
