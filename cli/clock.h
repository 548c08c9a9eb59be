/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Time for timeouts. */
#pragma once

#include <stdint.h>
#include <time.h>

/* Never goes back; its beginning means nothing. */
static inline int64_t clock_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
