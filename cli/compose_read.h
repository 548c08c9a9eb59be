/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading a Compose file: what its parts have in common. A complaint says
 * "FILE:LINE: services.web.ports: …". */
#pragma once

#include "compose.h"
#include "compose_yaml.h"
#include "proto/proto.h"

struct compose_reader {
    struct compose *compose;
    const char *directory; /* the file's folder, absolute */
    char place[256];       /* where it reads: "services.web" */
    struct error *error;
};

/* One key of a mapping. A key that begins with "x-" and is in no row is passed over. */
struct compose_key {
    const char *name; /* NULL ends a table */
    int (*read)(struct compose_reader *reader, void *object, const struct yml_node *value);
};

/* All of these return 0, or a negative code with the error filled. */

/* Reads a mapping by a table; a key that is in no row is refused. A key without a value is passed
 * over. */
int compose_read_map(struct compose_reader *reader, const struct yml_node *map,
                     const struct compose_key *keys, void *object);
/* Calls read for each value of a list, or for the one plain value that stands there instead. */
int compose_read_each(struct compose_reader *reader, const struct yml_node *node,
                      int (*read)(struct compose_reader *reader, void *object,
                                  const struct yml_node *value),
                      void *object);
/* Calls read for each key of a mapping, with its value as text (NULL: none), and for each item of a
 * list, split at the first of the separators. node is where a complaint points to. */
int compose_read_pairs(struct compose_reader *reader, const struct yml_node *node,
                       const char *separators,
                       int (*read)(struct compose_reader *reader, void *object,
                                   const struct yml_node *value, const char *key, const char *text),
                       void *object);
/* Goes on one step into the place; compose_leave goes back to what was before. */
size_t compose_enter(struct compose_reader *reader, const char *key);
void compose_leave(struct compose_reader *reader, size_t before);

/* A plain value; *ret_text stays the node's. */
int compose_read_text(struct compose_reader *reader, const struct yml_node *node,
                      const char **ret_text);
/* The same, copied; one that was there is freed. Empty ones are refused. */
int compose_read_string(struct compose_reader *reader, const struct yml_node *node,
                        char **ret_text);
int compose_read_bool(struct compose_reader *reader, const struct yml_node *node, bool *ret_value);
/* Into the member of a method's params at this path. */
int compose_read_member(struct compose_reader *reader, const struct yml_node *node,
                        enum method_id method, const char *path, void *params);
/* The same from a text. */
int compose_set_member(struct compose_reader *reader, const struct yml_node *node, const char *text,
                       enum method_id method, const char *path, void *params);
/* A path that is relative to the file's folder is made absolute; malloc'ed. */
int compose_read_path(struct compose_reader *reader, const struct yml_node *node, char **ret_path);
/* Value that can be read but says nothing that matters here: only its kind is looked at. */
int compose_read_nothing(struct compose_reader *reader, void *object, const struct yml_node *value);

int compose_refuse(struct compose_reader *reader, const struct yml_node *node, const char *format,
                   ...) __attribute__((format(printf, 3, 4)));
/* Puts file, line and place before the error's text. */
int compose_blame(struct compose_reader *reader, const struct yml_node *node);
int compose_out_of_memory(struct compose_reader *reader);

/* --- the two kinds of things in the file --- */

/* node: the value of networks.KEY; NULL for the implicit network "default". */
int compose_network_read(struct compose_reader *reader, struct compose_network *network,
                         const struct yml_node *node);
/* All services are in the list already, with their keys. */
int compose_service_read(struct compose_reader *reader, struct compose_service *service,
                         const struct yml_node *node);
