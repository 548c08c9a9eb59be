/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of guests and networks, DNS names, interface names, ids. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_MAX_LENGTH 63
#define ID_TEXT_LENGTH 12 /* hex digits */

/* [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])? */
bool name_is_valid(const char *name);
/* A DNS name in text form: labels of 1–63 letters, digits, '-' and '_', 253 characters in all; a
 * trailing dot is not accepted. */
bool name_is_dns(const char *name);
/* What the kernel's dev_valid_name takes: 1–15 characters, no '/', ':', white space, not "." or
 * "..", without '%', and not "all" and "default", which are no interfaces in sysctl names. */
bool name_is_interface(const char *name);
/* Random lower-case hex id of ID_TEXT_LENGTH digits. */
void id_generate(char ret_id[ID_TEXT_LENGTH + 1]);
