/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text of Compose files: variables in values, and commands in one string. Pure functions. */
#pragma once

#include "base/error.h"
#include "base/list.h"
#include "proto/proto.h"

#define COMPOSE_TEXT_MAX ((size_t)64 * 1024) /* of one value with its variables */

/* Appends text with its variables replaced, as the Compose specification has them: $NAME, ${NAME},
 * ${NAME-other} (unset), ${NAME:-other} (unset or empty), ${NAME?why} and ${NAME:?why} (refused),
 * ${NAME+other} and ${NAME:+other} (set; and not empty), $$ for one '$'. Variables may stand in the
 * other text. find: the value of a variable, NULL when it is not set (getenv(3) fits). Returns 0,
 * or -EINVAL with what is wrong. */
int compose_interpolate(const char *text, char *(*find)(const char *name), struct text *result,
                        struct error *error);

/* Splits a command as a shell would, but nothing is expanded: words are separated by white space;
 * '…' keeps everything, "…" everything but \" \\ \$ \`, and \ keeps the next character. Returns 0,
 * or -EINVAL for a quote that does not end. */
int compose_split(const char *text, struct strings *ret_words, struct error *error);

/* A name of the daemon made of a name of a Compose file: lower case, '-' for '_' and '.', with
 * "prefix-" before it (prefix NULL: without). Returns 0, or -EINVAL when that is no name of at most
 * NAME_MAX_LENGTH characters. */
int compose_name(const char *prefix, const char *name, char ret_name[NAME_MAX_LENGTH + 1]);
