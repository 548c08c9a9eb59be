/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is a process of the host that we serve: in our network namespace? */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* False for a process that is gone, too. */
bool process_is_of_our_host(uint32_t pid);
