/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "json.h"

#include <string.h>

static void new_line(struct text *text, unsigned depth)
{
    text_append(text, "\n%*s", (int)(2 * depth), "");
}

/* Length of a string, its quotes included. */
static size_t string_length(const char *json)
{
    size_t i = 1;

    while (json[i] && json[i] != '"')
        i += json[i] == '\\' && json[i + 1] ? 2 : 1;
    return json[i] ? i + 1 : i;
}

void json_indent(const char *json, struct text *text)
{
    unsigned depth = 0;

    while (*json) {
        size_t length = *json == '"' ? string_length(json) : 1;

        if (strchr("]}", *json) && depth > 0)
            new_line(text, --depth);
        if (strncmp(json, "[]", 2) == 0 || strncmp(json, "{}", 2) == 0) {
            text_append_n(text, json, 2);
            json += 2;
            continue;
        }
        text_append_n(text, json, length);
        if (strchr("[{", *json))
            new_line(text, ++depth);
        else if (*json == ',')
            new_line(text, depth);
        else if (*json == ':')
            text_append_n(text, " ", 1);
        json += length;
    }
}
