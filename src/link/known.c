/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One set of entries, chained in two hash tables of the same size: by index and by name. */
#include "known.h"

#include <errno.h>
#include <stdio.h>
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

/* Without the lock, as all that is static here. */
static void each(struct known_table *table, void (*fn)(struct known *known, void *userdata),
                 void *userdata)
{
    for (size_t i = 0; i < table->n_buckets; i++)
        for (struct known *known = table->by_index[i], *next; known; known = next) {
            next = known->next_by_index;
            fn(known, userdata);
        }
}

static void entry_free(struct known *known, void *userdata)
{
    (void)userdata;
    free(known);
}

void known_init(struct known_table *table)
{
    *table = (struct known_table){0};
    pthread_mutex_init(&table->lock, NULL);
}

void known_deinit(struct known_table *table)
{
    each(table, entry_free, NULL);
    free(table->by_index);
    free(table->by_name);
    pthread_mutex_destroy(&table->lock);
}

static void entry_move(struct known *known, void *userdata)
{
    known_link(userdata, known);
}

/* Makes room for one more entry. */
static int reserve(struct known_table *table)
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
    each(table, entry_move, &larger);
    free(table->by_index);
    free(table->by_name);
    table->by_index = larger.by_index;
    table->by_name = larger.by_name;
    table->n_buckets = larger.n_buckets;
    return 0;
}

static struct known *find(const struct known_table *table, uint32_t index)
{
    struct known *known = table->n_buckets ? *bucket_index(table, index) : NULL;

    while (known && known->index != index)
        known = known->next_by_index;
    return known;
}

static struct known *find_name(const struct known_table *table, const char *name)
{
    struct known *known = table->n_buckets ? *bucket_name(table, name) : NULL;

    while (known && strcmp(known->name, name) != 0)
        known = known->next_by_name;
    return known;
}

static int set(struct known_table *table, const struct known *known)
{
    if (reserve(table) < 0)
        return -ENOMEM;
    struct known *copy = malloc(sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    *copy = *known;
    copy->generation = table->generation;
    known_delete(table, find(table, copy->index));
    known_delete(table, find_name(table, copy->name));
    known_link(table, copy);
    table->count++;
    return 0;
}

int known_set(struct known_table *table, const struct known *known)
{
    pthread_mutex_lock(&table->lock);
    int r = set(table, known);
    pthread_mutex_unlock(&table->lock);
    return r;
}

/* Takes a copy and gives the lock back. */
static bool show(struct known_table *table, const struct known *known, struct known *ret_known)
{
    bool found = known != NULL;

    if (found)
        *ret_known = *known;
    pthread_mutex_unlock(&table->lock);
    return found;
}

bool known_find(struct known_table *table, uint32_t index, struct known *ret_known)
{
    pthread_mutex_lock(&table->lock);
    return show(table, find(table, index), ret_known);
}

bool known_find_name(struct known_table *table, const char *name, struct known *ret_known)
{
    pthread_mutex_lock(&table->lock);
    return show(table, find_name(table, name), ret_known);
}

size_t known_count(struct known_table *table)
{
    pthread_mutex_lock(&table->lock);
    size_t count = table->count;
    pthread_mutex_unlock(&table->lock);
    return count;
}

/* The place of a name among those that are expected, or of "", a free one; NULL for none. */
static char *expected_find(struct known_table *table, const char *name)
{
    for (size_t i = 0; i < KNOWN_EXPECTED_MAX; i++)
        if (strcmp(table->expected[i], name) == 0)
            return table->expected[i];
    return NULL;
}

void known_expect(struct known_table *table, const char *name)
{
    pthread_mutex_lock(&table->lock);
    char *place = expected_find(table, "");
    if (place)
        snprintf(place, IFNAMSIZ, "%s", name);
    pthread_mutex_unlock(&table->lock);
}

void known_expect_end(struct known_table *table, const char *name)
{
    pthread_mutex_lock(&table->lock);
    char *place = expected_find(table, name);
    if (place)
        place[0] = '\0';
    pthread_mutex_unlock(&table->lock);
}

bool known_is_expected(struct known_table *table, const char *name)
{
    pthread_mutex_lock(&table->lock);
    bool expected = name[0] && expected_find(table, name);
    pthread_mutex_unlock(&table->lock);
    return expected;
}

void known_remove(struct known_table *table, uint32_t index)
{
    pthread_mutex_lock(&table->lock);
    known_delete(table, find(table, index));
    pthread_mutex_unlock(&table->lock);
}

void known_retire(struct known_table *table, uint32_t index)
{
    pthread_mutex_lock(&table->lock);
    struct known *known = find(table, index);
    if (known) {
        known_unlink(table, known);
        known->name[0] = '\0';
        known->retired = true;
        known_link(table, known);
    }
    pthread_mutex_unlock(&table->lock);
}

void known_each(struct known_table *table, known_fn fn, void *userdata)
{
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->n_buckets; i++)
        for (const struct known *known = table->by_index[i]; known; known = known->next_by_index)
            fn(known, userdata);
    pthread_mutex_unlock(&table->lock);
}

void known_survey_begin(struct known_table *table)
{
    pthread_mutex_lock(&table->lock);
    table->generation++;
    pthread_mutex_unlock(&table->lock);
}

void known_survey_mark(struct known_table *table, uint32_t index)
{
    pthread_mutex_lock(&table->lock);
    struct known *known = find(table, index);
    if (known)
        known->generation = table->generation;
    pthread_mutex_unlock(&table->lock);
}

struct survey {
    struct known_table *table;
    known_fn fn;
    void *userdata;
};

static void entry_judge(struct known *known, void *userdata)
{
    struct survey *survey = userdata;

    if (known->generation == survey->table->generation)
        return;
    survey->fn(known, survey->userdata);
    known_delete(survey->table, known);
}

void known_survey_end(struct known_table *table, known_fn fn, void *userdata)
{
    struct survey survey = {.table = table, .fn = fn, .userdata = userdata};

    pthread_mutex_lock(&table->lock);
    each(table, entry_judge, &survey);
    pthread_mutex_unlock(&table->lock);
}
