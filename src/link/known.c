/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One set of entries, chained in two hash tables of the same size: by index and by name. */
#include "known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define BUCKETS_MIN 64

static size_t hash_index(uint32_t index)
{
    return (uint32_t)(index * 2654435761u); /* modulo 2^32 is meant */
}

static size_t hash_name(const char *name)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash;
}

static struct known **bucket_index(const struct known_table *table, uint32_t index)
{
    return &table->by_index[hash_index(index) & (table->n_buckets - 1)];
}

static struct known **bucket_name(const struct known_table *table, const char *name)
{
    return &table->by_name[hash_name(name) & (table->n_buckets - 1)];
}

static void known_link(struct known_table *table, struct known *known)
{
    struct known **index = bucket_index(table, known->index);
    struct known **name = bucket_name(table, known->name);

    known->next_by_index = *index;
    *index = known;
    known->next_by_name = *name;
    *name = known;
}

static void known_unlink(struct known_table *table, const struct known *known)
{
    struct known **index = bucket_index(table, known->index);
    struct known **name = bucket_name(table, known->name);

    while (*index != known)
        index = &(*index)->next_by_index;
    *index = known->next_by_index;
    while (*name != known)
        name = &(*name)->next_by_name;
    *name = known->next_by_name;
}

static void known_delete(struct known_table *table, struct known *known)
{
    if (!known)
        return;
    known_unlink(table, known);
    free(known);
    table->count--;
}

void known_each(const struct known_table *table, known_fn fn, void *userdata)
{
    for (size_t i = 0; i < table->n_buckets; i++)
        for (struct known *known = table->by_index[i], *next; known; known = next) {
            next = known->next_by_index;
            fn(known, userdata);
        }
}

static void known_free(struct known *known, void *userdata)
{
    (void)userdata;
    free(known);
}

void known_deinit(struct known_table *table)
{
    known_each(table, known_free, NULL);
    free(table->by_index);
    free(table->by_name);
    *table = (struct known_table){0};
}

static void known_relink(struct known *known, void *userdata)
{
    known_link(userdata, known);
}

int known_reserve(struct known_table *table)
{
    if (table->count < table->n_buckets)
        return 0;
    struct known_table larger = {.n_buckets =
                                     table->n_buckets ? table->n_buckets * 2 : BUCKETS_MIN};
    _cleanup_free_ struct known **by_index = calloc(larger.n_buckets, sizeof(*by_index));
    _cleanup_free_ struct known **by_name = calloc(larger.n_buckets, sizeof(*by_name));

    if (!by_index || !by_name)
        return -ENOMEM;
    larger.by_index = TAKE_PTR(by_index);
    larger.by_name = TAKE_PTR(by_name);
    larger.count = table->count;
    known_each(table, known_relink, &larger);
    free(table->by_index);
    free(table->by_name);
    *table = larger;
    return 0;
}

int known_set(struct known_table *table, const struct known *known)
{
    if (known_reserve(table) < 0)
        return -ENOMEM;
    struct known *copy = malloc(sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    *copy = *known; /* may be an entry itself */
    known_remove(table, copy->index);
    known_remove_name(table, copy->name);
    known_link(table, copy);
    table->count++;
    return 0;
}

struct known *known_find(const struct known_table *table, uint32_t index)
{
    struct known *known = table->n_buckets ? *bucket_index(table, index) : NULL;

    while (known && known->index != index)
        known = known->next_by_index;
    return known;
}

struct known *known_find_name(const struct known_table *table, const char *name)
{
    struct known *known = table->n_buckets ? *bucket_name(table, name) : NULL;

    while (known && strcmp(known->name, name) != 0)
        known = known->next_by_name;
    return known;
}

void known_remove(struct known_table *table, uint32_t index)
{
    known_delete(table, known_find(table, index));
}

void known_remove_name(struct known_table *table, const char *name)
{
    known_delete(table, known_find_name(table, name));
}

void known_retire(struct known_table *table, struct known *known)
{
    known_unlink(table, known);
    known->name[0] = '\0';
    known->retired = true;
    known_link(table, known);
}
