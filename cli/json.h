/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON for people: the same document, indented. */
#pragma once

#include "proto/proto.h"

/* Indents compact JSON by two spaces a level. */
void json_indent(const char *json, struct text *text);
