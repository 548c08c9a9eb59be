/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of options by the type of the API's member that they fill. */
#pragma once

#include "proto/proto.h"

/* The member at a path such as "policy.allow", and in *ret_offset its offset from the start of the
 * outermost struct. NULL: there is none. */
const struct proto_field *value_field_find(const struct proto_object *object, const char *path,
                                           size_t *ret_offset);

/* Parses text (NULL: a flag) into the member of params: lists grow, anything else is replaced. Also
 * sets the "has" markers on the way. Returns 0, or -EINVAL with what is wrong. */
int value_set(const struct proto_object *object, const char *path, void *params, const char *text,
              struct error *error);
