/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compose_read.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "option.h"
#include "value.h"

/* --- complaints --- */

int compose_blame(struct compose_reader *reader, const struct yml_node *node)
{
    if (reader->place[0])
        error_add_context(reader->error, "%s", reader->place);
    return yml_blame(node, reader->error);
}

int compose_refuse(struct compose_reader *reader, const struct yml_node *node, const char *format,
                   ...)
{
    char text[480];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    option_refuse(reader->error, "%s", text);
    return compose_blame(reader, node);
}

int compose_out_of_memory(struct compose_reader *reader)
{
    return error_set(reader->error, ENOMEM, "Compose file");
}

size_t compose_enter(struct compose_reader *reader, const char *key)
{
    size_t before = strlen(reader->place);

    snprintf(reader->place + before, sizeof(reader->place) - before, "%s%.64s", before ? "." : "",
             key);
    return before;
}

void compose_leave(struct compose_reader *reader, size_t before)
{
    reader->place[before] = '\0';
}

/* --- mappings and lists --- */

static const struct compose_key *find_key(const struct compose_key *keys, const char *name)
{
    for (; keys->name; keys++)
        if (strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

static int refuse_key(struct compose_reader *reader, const struct yml_entry *entry)
{
    const struct yml_node at = {.file = entry->value->file, .line = entry->line};

    return compose_refuse(reader, &at,
                          "moat doesn't know the key \"%.80s\"; see moat(1) for those "
                          "it knows",
                          entry->key);
}

int compose_read_map(struct compose_reader *reader, const struct yml_node *map,
                     const struct compose_key *keys, void *object)
{
    if (map->kind != YML_MAP)
        return compose_refuse(reader, map, "this must be a mapping, not %s",
                              yml_kind_name(map->kind));
    for (size_t i = 0; i < map->count; i++) {
        const struct yml_entry *entry = &map->entries[i];
        const struct compose_key *key = find_key(keys, entry->key);
        size_t before;
        int r;

        if (!key && strncmp(entry->key, "x-", 2) == 0)
            continue;
        if (!key)
            return refuse_key(reader, entry);
        if (entry->value->kind == YML_NULL)
            continue;
        before = compose_enter(reader, entry->key);
        r = key->read(reader, object, entry->value);
        if (r < 0)
            return r;
        compose_leave(reader, before);
    }
    return 0;
}

int compose_read_each(struct compose_reader *reader, const struct yml_node *node,
                      int (*read)(struct compose_reader *reader, void *object,
                                  const struct yml_node *value),
                      void *object)
{
    int r = 0;

    if (node->kind == YML_TEXT)
        return read(reader, object, node);
    if (node->kind != YML_LIST)
        return compose_refuse(reader, node, "this must be a list, not %s",
                              yml_kind_name(node->kind));
    for (size_t i = 0; r == 0 && i < node->count; i++)
        r = read(reader, object, node->entries[i].value);
    return r;
}

static int
read_list_pair(struct compose_reader *reader, const struct yml_node *node, const char *separators,
               int (*read)(struct compose_reader *reader, void *object,
                           const struct yml_node *value, const char *key, const char *text),
               void *object)
{
    _cleanup_free_ char *key = NULL;
    const char *text;
    size_t length;
    int r = compose_read_text(reader, node, &text);

    if (r < 0)
        return r;
    length = strcspn(text, separators);
    key = strndup(text, length);
    if (!key)
        return compose_out_of_memory(reader);
    return read(reader, object, node, key, text[length] ? text + length + 1 : NULL);
}

int compose_read_pairs(struct compose_reader *reader, const struct yml_node *node,
                       const char *separators,
                       int (*read)(struct compose_reader *reader, void *object,
                                   const struct yml_node *value, const char *key, const char *text),
                       void *object)
{
    int r = 0;

    if (node->kind != YML_MAP && node->kind != YML_LIST)
        return compose_refuse(reader, node, "this must be a mapping or a list, not %s",
                              yml_kind_name(node->kind));
    for (size_t i = 0; r == 0 && i < node->count; i++) {
        const struct yml_node *value = node->entries[i].value;
        const char *text = NULL;

        if (node->kind == YML_LIST) {
            r = read_list_pair(reader, value, separators, read, object);
            continue;
        }
        if (value->kind != YML_NULL)
            r = compose_read_text(reader, value, &text);
        if (r == 0)
            r = read(reader, object, value, node->entries[i].key, text);
    }
    return r;
}

/* --- plain values --- */

int compose_read_text(struct compose_reader *reader, const struct yml_node *node,
                      const char **ret_text)
{
    if (node->kind != YML_TEXT)
        return compose_refuse(reader, node, "this must be a plain value, not %s",
                              yml_kind_name(node->kind));
    *ret_text = node->text;
    return 0;
}

int compose_read_string(struct compose_reader *reader, const struct yml_node *node, char **ret_text)
{
    const char *text = "";
    char *copy;
    int r = compose_read_text(reader, node, &text);

    if (r < 0)
        return r;
    if (text[0] == '\0')
        return compose_refuse(reader, node, "the value is empty");
    copy = strdup(text);
    if (!copy)
        return compose_out_of_memory(reader);
    free(*ret_text);
    *ret_text = copy;
    return 0;
}

int compose_read_bool(struct compose_reader *reader, const struct yml_node *node, bool *ret_value)
{
    static const char *const words[][2] = {
        {"true", "false"}, {"True", "False"}, {"TRUE", "FALSE"}, {"yes", "no"}, {"on", "off"}};
    const char *text;
    int r = compose_read_text(reader, node, &text);

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        bool yes = strcmp(text, words[i][0]) == 0;

        if (yes || strcmp(text, words[i][1]) == 0) {
            *ret_value = yes;
            return 0;
        }
    }
    return compose_refuse(reader, node, "\"%.40s\" is neither true nor false", text);
}

int compose_set_member(struct compose_reader *reader, const struct yml_node *node, const char *text,
                       enum method_id method, const char *path, void *params)
{
    int r = value_set(proto_method_get(method)->params, path, params, text, reader->error);

    return r == -EINVAL ? compose_blame(reader, node) : r;
}

int compose_read_member(struct compose_reader *reader, const struct yml_node *node,
                        enum method_id method, const char *path, void *params)
{
    const char *text;
    int r = compose_read_text(reader, node, &text);

    return r < 0 ? r : compose_set_member(reader, node, text, method, path, params);
}

int compose_read_path(struct compose_reader *reader, const struct yml_node *node, char **ret_path)
{
    _cleanup_free_ char *path = NULL;
    int r = compose_read_string(reader, node, &path);

    if (r < 0 || !path)
        return r;
    free(*ret_path);
    *ret_path = NULL;
    if (path[0] == '/')
        *ret_path = TAKE_PTR(path);
    else if (asprintf(ret_path, "%s/%s", reader->directory, path) < 0)
        *ret_path = NULL;
    return *ret_path ? 0 : compose_out_of_memory(reader);
}

int compose_read_nothing(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    const char *text;

    (void)object;
    if (value->kind == YML_LIST)
        return compose_read_each(reader, value, compose_read_nothing, object);
    return compose_read_text(reader, value, &text);
}
