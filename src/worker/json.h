/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A reader of JSON texts (RFC 8259) that come from outside: it goes through the text once, keeps
 * nothing and allocates nothing. What is wrong in any way ends it: every function returns false
 * from then on, and json_is_done says so at the end.
 *
 *     json_begin(&json, text, length);
 *     json_open(&json, '{');
 *     while (json_member(&json, name, sizeof(name)))
 *         strcmp(name, "more") == 0 ? json_bool(&json, &more) : json_skip(&json);
 *     if (!json_is_done(&json)) … */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 32

struct json {
    const char *at;
    const char *end;
    unsigned depth;
    bool first; /* nothing of the innermost object or array was read yet */
    bool failed;
};

/* text: borrowed; needs no NUL. */
void json_begin(struct json *json, const char *text, size_t length);
/* Goes into an object ('{') or an array ('['). */
bool json_open(struct json *json, char bracket);
/* The name of the next member, as in json_string; its value must be read or skipped then. False at
 * the object's end, which is passed. */
bool json_member(struct json *json, char *name, size_t size);
/* Is there another element, to be read or skipped then? False at the array's end, which is passed.
 */
bool json_element(struct json *json);
/* Ended by NUL. A string that does not fit, or has a NUL in it, becomes "": it can't be one that is
 * meant. */
bool json_string(struct json *json, char *text, size_t size);
bool json_bool(struct json *json, bool *ret_value);
/* A number without fraction and exponent. */
bool json_integer(struct json *json, int64_t *ret_value);
/* Is the next value an object? */
bool json_is_object(struct json *json);
/* Any value. */
bool json_skip(struct json *json);
/* Was it one whole value, and all of it well-formed? */
bool json_is_done(struct json *json);
