/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compose_yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "compose_words.h"
#include "option.h"

#define MERGE_DEPTH_MAX 16 /* of mappings that are merged into one another */

struct yml {
    char *file;
    struct yml_node *nodes; /* in the order of the document's, whose first is 1 */
    size_t count;
    size_t root;
    size_t n_entries;
};

struct loading {
    struct yml *yaml;
    yaml_document_t document;
    struct error *error;
};

/* --- complaints --- */

const char *yml_kind_name(enum yml_kind kind)
{
    static const char *const names[] = {
        [YML_NULL] = "nothing",
        [YML_TEXT] = "a plain value",
        [YML_LIST] = "a list",
        [YML_MAP] = "a mapping",
    };

    return names[kind];
}

int yml_blame(const struct yml_node *node, struct error *error)
{
    error_add_context(error, "%s:%u", node->file, node->line);
    return -EINVAL;
}

int yml_refuse(const struct yml_node *node, struct error *error, const char *format, ...)
{
    char text[600];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    option_refuse(error, "%s", text);
    return yml_blame(node, error);
}

/* --- nodes --- */

static struct yml_node *node_get(const struct loading *loading, int id)
{
    return &loading->yaml->nodes[id - 1];
}

static const yaml_node_t *source_get(const struct loading *loading, const struct yml_node *node)
{
    return loading->document.nodes.start + (node - loading->yaml->nodes);
}

static int out_of_memory(struct loading *loading)
{
    return error_set(loading->error, ENOMEM, "%s", loading->yaml->file);
}

static bool is_null(const yaml_node_t *source)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    if (source->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcmp((const char *)source->data.scalar.value, words[i]) == 0)
            return true;
    return false;
}

static int take_scalar(struct loading *loading, const yaml_node_t *source, struct yml_node *node)
{
    const char *value = (const char *)source->data.scalar.value;
    struct text text = {0};

    if (strlen(value) != source->data.scalar.length)
        return yml_refuse(node, loading->error, "the value has a NUL byte in it");
    if (is_null(source))
        return 0;
    if (compose_interpolate(value, getenv, &text, loading->error) < 0) {
        text_deinit(&text);
        return yml_blame(node, loading->error);
    }
    node->kind = YML_TEXT;
    node->text = text.data ? text.data : strdup("");
    return node->text ? 0 : out_of_memory(loading);
}

static int take_nodes(struct loading *loading)
{
    struct yml *yaml = loading->yaml;
    const yaml_node_t *first = loading->document.nodes.start;
    int r = 0;

    yaml->count = (size_t)(loading->document.nodes.top - first);
    yaml->nodes = calloc(yaml->count + 1, sizeof(*yaml->nodes));
    if (!yaml->nodes)
        return out_of_memory(loading);
    for (size_t i = 0; r == 0 && i < yaml->count; i++) {
        struct yml_node *node = &yaml->nodes[i];

        *node = (struct yml_node){
            .file = yaml->file, .line = (unsigned)first[i].start_mark.line + 1, .kind = YML_NULL};
        if (first[i].type == YAML_SCALAR_NODE)
            r = take_scalar(loading, &first[i], node);
        else
            node->kind = first[i].type == YAML_SEQUENCE_NODE ? YML_LIST : YML_MAP;
    }
    return r;
}

/* --- lists and mappings --- */

static int add_entry(struct loading *loading, struct yml_node *node, struct yml_entry entry)
{
    struct yml_entry *grown;

    if (++loading->yaml->n_entries > YML_ENTRIES_MAX)
        return yml_refuse(node, loading->error, "there are more than %d entries in the file",
                          YML_ENTRIES_MAX);
    if (entry.key && node->count >= YML_KEYS_MAX)
        return yml_refuse(node, loading->error, "the mapping has more than %d keys", YML_KEYS_MAX);
    grown = list_grow(node->entries, node->count, sizeof(*grown));
    if (!grown)
        return out_of_memory(loading);
    node->entries = grown;
    grown[node->count++] = entry;
    return 0;
}

static int take_list(struct loading *loading, struct yml_node *node, const yaml_node_t *source)
{
    int r = 0;

    for (const int *item = source->data.sequence.items.start;
         r == 0 && item < source->data.sequence.items.top; item++) {
        const struct yml_node *value = node_get(loading, *item);

        r = add_entry(loading, node, (struct yml_entry){.line = value->line, .value = value});
    }
    return r;
}

static int read_map(struct loading *loading, struct yml_node *node, unsigned depth);

/* The entries of another mapping, but for the keys that are there already. */
static int merge_map(struct loading *loading, struct yml_node *node, struct yml_node *other,
                     unsigned depth)
{
    int r;

    if (other->kind != YML_MAP)
        return yml_refuse(node, loading->error, "\"<<\" takes a mapping, or a list of mappings");
    r = read_map(loading, other, depth + 1);
    for (size_t i = 0; r == 0 && i < other->count; i++)
        if (!yml_find(node, other->entries[i].key))
            r = add_entry(loading, node, other->entries[i]);
    return r;
}

static int merge(struct loading *loading, struct yml_node *node, int id, unsigned depth)
{
    struct yml_node *other = node_get(loading, id);
    const yaml_node_t *source = source_get(loading, other);
    int r = 0;

    if (other->kind != YML_LIST)
        return merge_map(loading, node, other, depth);
    for (const int *item = source->data.sequence.items.start;
         r == 0 && item < source->data.sequence.items.top; item++)
        r = merge_map(loading, node, node_get(loading, *item), depth);
    return r;
}

static bool is_merge(const yaml_node_t *key)
{
    return key->type == YAML_SCALAR_NODE && key->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           strcmp((const char *)key->data.scalar.value, "<<") == 0;
}

static int take_pair(struct loading *loading, struct yml_node *node, const yaml_node_pair_t *pair)
{
    const yaml_node_t *source = loading->document.nodes.start + pair->key - 1;
    const struct yml_node *key = node_get(loading, pair->key);
    const char *text;

    if (source->type != YAML_SCALAR_NODE)
        return yml_refuse(key, loading->error, "a key is %s; only plain ones are taken",
                          yml_kind_name(key->kind));
    text = key->kind == YML_TEXT ? key->text : "";
    if (yml_find(node, text))
        return yml_refuse(key, loading->error, "the key \"%.80s\" is given twice", text);
    return add_entry(loading, node,
                     (struct yml_entry){
                         .key = text, .line = key->line, .value = node_get(loading, pair->value)});
}

/* Its own keys come first: they win over merged ones. A mapping that has entries has been read. */
static int read_map(struct loading *loading, struct yml_node *node, unsigned depth)
{
    const yaml_node_t *source = source_get(loading, node);
    const yaml_node_pair_t *top = source->data.mapping.pairs.top;
    int r = 0;

    if (node->count > 0)
        return 0;
    if (depth > MERGE_DEPTH_MAX)
        return yml_refuse(node, loading->error, "mappings are merged more than %d deep",
                          MERGE_DEPTH_MAX);
    for (const yaml_node_pair_t *pair = source->data.mapping.pairs.start; r == 0 && pair < top;
         pair++)
        if (!is_merge(loading->document.nodes.start + pair->key - 1))
            r = take_pair(loading, node, pair);
    for (const yaml_node_pair_t *pair = source->data.mapping.pairs.start; r == 0 && pair < top;
         pair++)
        if (is_merge(loading->document.nodes.start + pair->key - 1))
            r = merge(loading, node, pair->value, depth);
    return r;
}

static int take_entries(struct loading *loading)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < loading->yaml->count; i++) {
        struct yml_node *node = &loading->yaml->nodes[i];

        if (node->kind == YML_LIST)
            r = take_list(loading, node, source_get(loading, node));
        else if (node->kind == YML_MAP)
            r = read_map(loading, node, 0);
    }
    return r;
}

/* --- the file --- */

static int read_file(const char *path, char **ret_data, size_t *ret_length, struct error *error)
{
    _cleanup_fclose_ FILE *file = fopen(path, "re");
    _cleanup_free_ char *data = file ? malloc(YML_FILE_MAX + 1) : NULL;
    size_t length = 0;

    if (!data)
        return error_set(error, errno, "can't open %s", path);
    length = fread(data, 1, YML_FILE_MAX + 1, file);
    if (ferror(file))
        return error_set(error, errno, "can't read %s", path);
    if (length > YML_FILE_MAX)
        return option_refuse(error, "%s has more than %zu bytes", path, YML_FILE_MAX);
    *ret_data = TAKE_PTR(data);
    *ret_length = length;
    return 0;
}

static int refuse_syntax(const char *path, const yaml_parser_t *parser, struct error *error)
{
    size_t line = parser->problem_mark.line;

    if (parser->error == YAML_MEMORY_ERROR)
        return error_set(error, ENOMEM, "%s", path);
    if (parser->error == YAML_READER_ERROR)
        return option_refuse(error, "%s: byte %zu is not text: %s", path, parser->problem_offset,
                             parser->problem ? parser->problem : "");
    return option_refuse(error, "%s:%zu: this is not YAML: %s", path, line + 1,
                         parser->problem ? parser->problem : "it can't be read");
}

/* The file is one document: what follows it would be passed over in silence. */
static int check_end(const char *path, yaml_parser_t *parser, struct error *error)
{
    yaml_document_t next;
    const yaml_node_t *root;
    int r = 0;

    if (!yaml_parser_load(parser, &next))
        return refuse_syntax(path, parser, error);
    root = yaml_document_get_root_node(&next);
    if (root)
        r = option_refuse(error, "%s:%zu: a second document begins; one file is one document", path,
                          root->start_mark.line + 1);
    yaml_document_delete(&next);
    return r;
}

static int load_document(const char *path, const char *data, size_t length,
                         yaml_document_t *ret_document, struct error *error)
{
    yaml_document_t document;
    yaml_parser_t parser;
    int r = 0;

    if (!yaml_parser_initialize(&parser))
        return error_set(error, ENOMEM, "%s", path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, length);
    if (!yaml_parser_load(&parser, &document)) {
        r = refuse_syntax(path, &parser, error);
    } else {
        if (!yaml_document_get_root_node(&document))
            r = option_refuse(error, "%s: there is nothing in it", path);
        if (r == 0)
            r = check_end(path, &parser, error);
        if (r < 0)
            yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    if (r == 0)
        *ret_document = document;
    return r;
}

int yml_load(const char *path, struct yml **ret_yaml, struct error *error)
{
    _cleanup_(yml_freep) struct yml *yaml = calloc(1, sizeof(*yaml));
    _cleanup_free_ char *data = NULL;
    struct loading loading = {.yaml = yaml, .error = error};
    size_t length = 0;
    int r;

    if (!yaml || !(yaml->file = strdup(path)))
        return error_set(error, ENOMEM, "%s", path);
    r = read_file(path, &data, &length, error);
    if (r == 0)
        r = load_document(path, data, length, &loading.document, error);
    if (r < 0)
        return r;
    r = take_nodes(&loading);
    if (r == 0)
        r = take_entries(&loading);
    yaml_document_delete(&loading.document);
    if (r == 0)
        *ret_yaml = TAKE_PTR(yaml);
    return r;
}

void yml_free(struct yml *yaml)
{
    if (!yaml)
        return;
    for (size_t i = 0; yaml->nodes && i < yaml->count; i++) {
        free(yaml->nodes[i].text);
        free(yaml->nodes[i].entries);
    }
    free(yaml->nodes);
    free(yaml->file);
    free(yaml);
}

/* --- reading --- */

const struct yml_node *yml_root(const struct yml *yaml)
{
    return &yaml->nodes[0]; /* the loader makes the root first */
}

const struct yml_node *yml_find(const struct yml_node *map, const char *key)
{
    for (size_t i = 0; map->kind == YML_MAP && i < map->count; i++)
        if (strcmp(map->entries[i].key, key) == 0)
            return map->entries[i].value;
    return NULL;
}
