/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fault injection at the steps of an apply, compiled in by MOAT_FAULTS (debug and asan presets).
 * Environment: MOAT_FAULT="step[:n]" makes the n-th pass (default 1) of that step fail with EIO;
 * MOAT_CRASH="step[:n]" ends the process there with _exit(86). Comma separated lists. */
#pragma once

#include "base/error.h"

#ifdef MOAT_FAULTS
/* 0, or -EIO with the error filled ("injected fault at <step>"). */
int fault_point(const char *step, struct error *error);
#else
static inline int fault_point(const char *step, struct error *error)
{
    (void)step;
    (void)error;
    return 0;
}
#endif
