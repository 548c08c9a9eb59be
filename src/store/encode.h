/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists as one text column, for those that are only ever loaded and stored as a whole. Every item
 * ends with a newline; a newline inside an item is written "\n", a backslash "\\". So "" is the
 * empty list and
 * "\n" a list of one empty string. Labels are key and value in turn, addresses their text. */
#pragma once

#include "base/list.h"

/* *ret_text is malloc'ed. Return 0 or -ENOMEM. */
int encode_strings(const struct strings *strings, char **ret_text);
int encode_ips(const struct ips *ips, char **ret_text);
int encode_labels(const struct labels *labels, char **ret_text);

/* Return 0, -ENOMEM, or -EBADMSG for a text that no encoder made. */
int decode_strings(const char *text, struct strings *ret_strings);
int decode_ips(const char *text, struct ips *ret_ips);
int decode_labels(const char *text, struct labels *ret_labels);
