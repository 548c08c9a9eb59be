/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Workers that a former moatd left and whose run directory was emptied meanwhile: nobody can reach
 * them there any more, but they hold ports. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* Ends every worker of this kind (same program, same network namespace, no moatd as its parent) but
 * those that `is_known` says, and waits until each is gone, 1 s at most. */
void strays_end(const char *kind, bool (*is_known)(void *userdata, pid_t pid), void *userdata);
