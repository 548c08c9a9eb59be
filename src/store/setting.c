/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store/query.h"

#include <errno.h>

int store_setting_get(struct store *store, const char *key, char **ret_value, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT value FROM setting WHERE key = ?");
    char *value = NULL;
    bool row;

    query_bind_text(&query, key);
    int r = query_next(&query, &row, error);
    if (r < 0)
        return r;
    if (row)
        value = query_text_dup(&query);
    r = query_check(&query, error);
    if (r < 0)
        return r;
    *ret_value = value;
    return 0;
}

static int setting_delete(struct store *store, const char *key, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, "DELETE FROM setting WHERE key = ?");

    query_bind_text(&query, key);
    return query_run(&query, error);
}

int store_setting_set(struct store *store, const char *key, const char *value, struct error *error)
{
    if (!value)
        return setting_delete(store, key, error);

    _cleanup_query_ struct query query =
        query_begin(store, "INSERT INTO setting (key, value) VALUES (?, ?)"
                           " ON CONFLICT (key) DO UPDATE SET value = excluded.value");
    query_bind_text(&query, key);
    query_bind_text(&query, value);
    return query_run(&query, error);
}

/* Keys and values in turn. */
static int setting_collect(struct store *store, const char *prefix, struct strings *ret_strings,
                           struct error *error)
{
    /* The greatest code point ends the range of what begins with the prefix. */
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT key, value FROM setting"
                           " WHERE key >= ?1 AND key < ?1 || char(0x10ffff) ORDER BY key");
    _cleanup_(strings_deinit) struct strings strings = {0};
    bool row;

    query_bind_text(&query, prefix);
    for (;;) {
        int r = query_next(&query, &row, error);

        if (r < 0)
            return r;
        if (!row)
            break;
        _cleanup_free_ char *key = query_text_dup(&query);
        _cleanup_free_ char *value = query_text_dup(&query);
        r = query_check(&query, error);
        if (r < 0)
            return r;
        if (strings_add(&strings, key) < 0 || strings_add(&strings, value) < 0)
            return error_set(error, ENOMEM, "the state database");
    }
    *ret_strings = TAKE_STRUCT(strings);
    return 0;
}

int store_setting_each(struct store *store, const char *prefix, store_setting_fn fn, void *userdata,
                       struct error *error)
{
    _cleanup_(strings_deinit) struct strings strings = {0};
    int r = setting_collect(store, prefix, &strings, error);

    if (r < 0)
        return r;
    for (size_t i = 0; i < strings.count; i += 2)
        fn(userdata, strings.items[i], strings.items[i + 1]);
    return 0;
}
