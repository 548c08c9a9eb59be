/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A YAML file as a tree. The only place that knows libyaml, whose functions begin with yaml_.
 *
 * Aliases lead to the node that they name, so that a node may be below several others, or below
 * itself: who reads the tree goes down by what is expected there, never over everything. "<<"
 * merges are done. Variables in values are replaced from the environment. A mapping that has a key
 * twice is refused. Every complaint names the file and the line. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/error.h"

#define YML_FILE_MAX ((size_t)1 << 20)
#define YML_ENTRIES_MAX 100000 /* of all mappings and lists together, merged ones included */
#define YML_KEYS_MAX 4096      /* of one mapping */

enum yml_kind {
    YML_NULL, /* nothing, ~ or null */
    YML_TEXT,
    YML_LIST,
    YML_MAP,
};

struct yml_node;

struct yml_entry {
    const char *key; /* NULL in a list */
    unsigned line;   /* where the key stands */
    const struct yml_node *value;
};

struct yml_node {
    const char *file; /* as it was given, for complaints */
    enum yml_kind kind;
    unsigned line; /* the first is 1 */
    char *text;    /* YML_TEXT */
    struct yml_entry *entries;
    size_t count;
};

struct yml; /* owns all nodes of a file */

/* Reads a file of at most YML_FILE_MAX bytes with one document. Returns 0, or a negative code with
 * the error filled. */
int yml_load(const char *path, struct yml **ret_yaml, struct error *error);
void yml_free(struct yml *yaml);
DEFINE_CLEANUP(struct yml, yml_free)
const struct yml_node *yml_root(const struct yml *yaml);

/* NULL when there is none. */
const struct yml_node *yml_find(const struct yml_node *map, const char *key);
/* "a list", for texts. */
const char *yml_kind_name(enum yml_kind kind);
/* Puts "FILE:LINE: " before the error's text. Returns -EINVAL. */
int yml_blame(const struct yml_node *node, struct error *error);
/* Sets the error to "FILE:LINE: …". Returns -EINVAL. */
int yml_refuse(const struct yml_node *node, struct error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
