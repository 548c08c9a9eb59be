/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Growing lists of strings, addresses and key/value pairs. Zero-initialised is empty. */
#pragma once

#include "base/address.h"

struct strings {
    char **items;
    size_t count;
};

struct ips {
    struct ip *items;
    size_t count;
};

struct label {
    char *key;
    char *value;
};

/* Sorted by key; keys are unique. */
struct labels {
    struct label *items;
    size_t count;
};

/* Room for one more in an array of `count` items: returns the array, moved perhaps, or NULL when
 * out of memory, with the old one still valid. An array that only grows by this has room for the
 * power of two at or above its count. */
void *list_grow(void *items, size_t count, size_t item_size);

/* All return 0 or -ENOMEM and copy what they are given. */
int strings_add(struct strings *strings, const char *item);
int strings_add_n(struct strings *strings, const char *item, size_t length);
bool strings_contains(const struct strings *strings, const char *item);
int strings_copy(const struct strings *from, struct strings *ret_to);
void strings_deinit(struct strings *strings);

int ips_add(struct ips *ips, const struct ip *ip);
bool ips_contains(const struct ips *ips, const struct ip *ip);
int ips_copy(const struct ips *from, struct ips *ret_to);
bool ips_equal(const struct ips *a, const struct ips *b); /* in this order */
void ips_deinit(struct ips *ips);

int labels_set(struct labels *labels, const char *key, const char *value);
const char *labels_find(const struct labels *labels, const char *key);
int labels_copy(const struct labels *from, struct labels *ret_to);
bool labels_equal(const struct labels *a, const struct labels *b);
void labels_deinit(struct labels *labels);
