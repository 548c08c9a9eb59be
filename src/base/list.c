/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void *list_grow(void *items, size_t count, size_t item_size)
{
    /* Without a capacity to compare with: it is full when the count is zero or a power of two. */
    if (count & (count - 1))
        return items;
    return reallocarray(items, count ? count * 2 : 1, item_size);
}

int strings_add(struct strings *strings, const char *item)
{
    return strings_add_n(strings, item, strlen(item));
}

int strings_add_n(struct strings *strings, const char *item, size_t length)
{
    char **items = list_grow(strings->items, strings->count, sizeof(*items));

    if (!items)
        return -ENOMEM;
    strings->items = items;
    char *copy = strndup(item, length);
    if (!copy)
        return -ENOMEM;
    items[strings->count++] = copy;
    return 0;
}

bool strings_contains(const struct strings *strings, const char *item)
{
    for (size_t i = 0; i < strings->count; i++)
        if (strcmp(strings->items[i], item) == 0)
            return true;
    return false;
}

int strings_copy(const struct strings *from, struct strings *ret_to)
{
    struct strings copy = {0};

    for (size_t i = 0; i < from->count; i++) {
        if (strings_add(&copy, from->items[i]) < 0) {
            strings_deinit(&copy);
            return -ENOMEM;
        }
    }
    *ret_to = copy;
    return 0;
}

void strings_deinit(struct strings *strings)
{
    for (size_t i = 0; i < strings->count; i++)
        free(strings->items[i]);
    free(strings->items);
    *strings = (struct strings){0};
}

int ips_add(struct ips *ips, const struct ip *ip)
{
    struct ip *items = list_grow(ips->items, ips->count, sizeof(*items));

    if (!items)
        return -ENOMEM;
    ips->items = items;
    items[ips->count++] = *ip;
    return 0;
}

bool ips_contains(const struct ips *ips, const struct ip *ip)
{
    for (size_t i = 0; i < ips->count; i++)
        if (ip_equal(&ips->items[i], ip))
            return true;
    return false;
}

int ips_copy(const struct ips *from, struct ips *ret_to)
{
    struct ips copy = {0};

    for (size_t i = 0; i < from->count; i++) {
        if (ips_add(&copy, &from->items[i]) < 0) {
            ips_deinit(&copy);
            return -ENOMEM;
        }
    }
    *ret_to = copy;
    return 0;
}

bool ips_equal(const struct ips *a, const struct ips *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!ip_equal(&a->items[i], &b->items[i]))
            return false;
    return true;
}

void ips_deinit(struct ips *ips)
{
    free(ips->items);
    *ips = (struct ips){0};
}

/* Where the key is, or where it belongs. */
static size_t labels_position(const struct labels *labels, const char *key)
{
    size_t low = 0;
    size_t high = labels->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(labels->items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool labels_has_at(const struct labels *labels, size_t position, const char *key)
{
    return position < labels->count && strcmp(labels->items[position].key, key) == 0;
}

static int labels_replace(struct label *label, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(label->value);
    label->value = copy;
    return 0;
}

static int labels_insert(struct labels *labels, size_t position, const char *key, const char *value)
{
    struct label *items = list_grow(labels->items, labels->count, sizeof(*items));

    if (!items)
        return -ENOMEM;
    labels->items = items;
    struct label label = {.key = strdup(key), .value = strdup(value)};
    if (!label.key || !label.value) {
        free(label.key);
        free(label.value);
        return -ENOMEM;
    }
    memmove(items + position + 1, items + position, (labels->count - position) * sizeof(*items));
    items[position] = label;
    labels->count++;
    return 0;
}

int labels_set(struct labels *labels, const char *key, const char *value)
{
    size_t position = labels_position(labels, key);

    if (labels_has_at(labels, position, key))
        return labels_replace(&labels->items[position], value);
    return labels_insert(labels, position, key, value);
}

const char *labels_find(const struct labels *labels, const char *key)
{
    size_t position = labels_position(labels, key);

    return labels_has_at(labels, position, key) ? labels->items[position].value : NULL;
}

int labels_copy(const struct labels *from, struct labels *ret_to)
{
    struct labels copy = {0};

    for (size_t i = 0; i < from->count; i++) {
        if (labels_set(&copy, from->items[i].key, from->items[i].value) < 0) {
            labels_deinit(&copy);
            return -ENOMEM;
        }
    }
    *ret_to = copy;
    return 0;
}

bool labels_equal(const struct labels *a, const struct labels *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i].key, b->items[i].key) != 0 ||
            strcmp(a->items[i].value, b->items[i].value) != 0)
            return false;
    return true;
}

void labels_deinit(struct labels *labels)
{
    for (size_t i = 0; i < labels->count; i++) {
        free(labels->items[i].key);
        free(labels->items[i].value);
    }
    free(labels->items);
    *labels = (struct labels){0};
}
