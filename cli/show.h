/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the commands that list and inspect have in common. */
#pragma once

#include "command.h"

/* Calls the command's method, whose params are a name, for each of the words, and prints one JSON
 * array of the answers: indented, or as one line with --json. One refusal: nothing is printed.
 * Returns the exit code. */
int show_inspect(struct invocation *invocation);
/* Joins with ','. */
void show_append(struct text *text, const char *item);
/* "10.88.0.2/16"; nothing when ip is absent. */
void show_append_address(struct text *text, const struct ip *ip, unsigned prefix);
/* Prints a time, ms since the epoch, as "2026-11-22T12:00:00.000Z". */
void show_time(int64_t time_ms);
/* Name of a member for people: NULL-safe "" of a failed text. */
const char *show_text(const struct text *text);
