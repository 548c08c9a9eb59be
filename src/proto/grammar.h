/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>

/* The place behind the JSON value that `text` begins with (white space before it is skipped); NULL:
 * it is none by the letter of RFC 8259, or its objects and arrays are nested more than `depth`
 * deep. The text is UTF-8 without NUL. */
const char *grammar_skip_value(const char *text, const char *end, unsigned depth);
