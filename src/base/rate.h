/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rates of data as people write them: "10mbit". Pure functions. */
#pragma once

#include <stdint.h>

#include "base/error.h"

#define RATE_MIN_BITS 64000u /* per second; less is not of use with frames of 1,500 bytes */
#define RATE_MAX_BITS 1000000000000ull /* 1tbit */
#define RATE_TEXT_MAX 32

/* N[k|m|g|t]bit with powers of 1,000; "none" is 0. Errors are field errors named `field`; text may
 * be any string. */
int rate_parse(const char *text, const char *field, uint64_t *ret_bits, struct error *error);
/* The shortest form that is exact: "10mbit"; "none" for 0. Returns text. */
const char *rate_format(uint64_t bits, char text[RATE_TEXT_MAX]);
