/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "refusal.h"

#include <stdio.h>
#include <string.h>

#include "command.h"

/* "networks[0].mac" as the tables have it: "networks.mac". */
static void path_plain(const char *field, char path[64])
{
    size_t length = 0;

    for (; *field && length < 63; field++) {
        if (*field == '[') {
            field += strcspn(field, "]");
            if (!*field)
                break;
            continue;
        }
        path[length++] = *field;
    }
    path[length] = '\0';
}

/* What of the path is left behind a row's member; NULL: the row fills another one. */
static const char *path_behind(const char *path, const char *member)
{
    size_t length = member ? strlen(member) : 0;

    if (length == 0 || strncmp(path, member, length) != 0)
        return NULL;
    if (path[length] == '\0')
        return path + length;
    return path[length] == '.' ? path + length + 1 : NULL;
}

/* "--network" or "PORT"; "": none of the command's. */
static const char *find_name(const struct command *command, const char *path, char name[64])
{
    const char *rest;

    name[0] = '\0';
    for (const struct option *option = command->options; option && option->name; option++) {
        rest = path_behind(path, option->field);
        if (rest) {
            snprintf(name, 64, "--%s", option->name);
            return rest;
        }
    }
    for (const struct positional *row = command->positionals; row && row->name; row++) {
        rest = path_behind(path, row->field);
        if (rest) {
            snprintf(name, 64, "%s", row->name);
            return rest;
        }
    }
    return NULL;
}

bool refusal_translate(const struct command *command, struct error *error)
{
    size_t length = strlen(error->field);
    char path[64];
    char name[64];
    const char *rest;

    if (error->kind != ERROR_FIELD)
        return false;
    path_plain(error->field, path);
    rest = find_name(command, path, name);
    if (!rest)
        return false;
    if (length > 0 && strncmp(error->text, error->field, length) == 0 &&
        strncmp(error->text + length, ": ", 2) == 0)
        memmove(error->text, error->text + length + 2, strlen(error->text + length + 2) + 1);
    error_add_context(error, *rest ? "%s: %s" : "%s", name, rest);
    return true;
}
