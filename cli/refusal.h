/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon refuses malformed values by the names of the API's members; people typed options. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct command;

/* Is the error about a value that an option or argument of the command gave? Then it speaks of that
 * one from now on: "networks[0].mac: …" becomes "--network: mac: …". */
bool refusal_translate(const struct command *command, struct error *error);
