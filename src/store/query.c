/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Preparing a statement costs more than running it, so each is prepared once and kept for the life
 * of the store. The key is the address of the SQL text, a literal: a hash of the pointer finds the
 * slot without looking at the text, and a query needs no name or number besides the place where it
 * stands. */
#include "store/query.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/encode.h"

static_assert((STATEMENT_SLOTS & (STATEMENT_SLOTS - 1)) == 0, "slots are found by mask");

static struct statement *statement_slot(struct store *store, const char *sql)
{
    uint64_t hash = (uint64_t)(uintptr_t)sql * UINT64_C(0x9e3779b97f4a7c15);
    size_t slot = hash >> 32 & (STATEMENT_SLOTS - 1);

    while (store->statements[slot].sql && store->statements[slot].sql != sql)
        slot = (slot + 1) & (STATEMENT_SLOTS - 1);
    return &store->statements[slot];
}

static int statement_get(struct store *store, const char *sql, sqlite3_stmt **ret_statement)
{
    struct statement *slot = statement_slot(store, sql);
    int result;

    if (!slot->sql) {
        assert(store->n_statements < STATEMENT_SLOTS * 3 / 4);
        result =
            sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &slot->handle, NULL);
        if (result != SQLITE_OK)
            return result;
        slot->sql = sql;
        store->n_statements++;
    }
    *ret_statement = slot->handle;
    return SQLITE_OK;
}

struct query query_begin(struct store *store, const char *sql)
{
    struct query query = {.store = store};

    query.result = statement_get(store, sql, &query.statement);
    assert(!query.statement || !sqlite3_stmt_busy(query.statement));
    return query;
}

void query_end(struct query *query)
{
    if (!query->statement)
        return;
    /* What sqlite3_reset returns is the failure of the last step, reported by then. */
    sqlite3_reset(query->statement);
    sqlite3_clear_bindings(query->statement);
}

static void query_keep(struct query *query, int result)
{
    if (query->result == SQLITE_OK)
        query->result = result;
}

void query_set_damaged(struct query *query)
{
    query_keep(query, SQLITE_CORRUPT);
}

/* --- binding --- */

void query_bind_int(struct query *query, int64_t value)
{
    if (query->result == SQLITE_OK)
        query_keep(query, sqlite3_bind_int64(query->statement, ++query->parameter, value));
}

static void bind_text(struct query *query, const char *text, void (*destroy)(void *))
{
    if (query->result == SQLITE_OK)
        query_keep(query,
                   sqlite3_bind_text(query->statement, ++query->parameter, text, -1, destroy));
    else if (destroy != SQLITE_STATIC && destroy != SQLITE_TRANSIENT)
        destroy((void *)(uintptr_t)text);
}

void query_bind_text(struct query *query, const char *text)
{
    bind_text(query, text, SQLITE_STATIC);
}

/* Binds a copy of a short text; "" as NULL. */
static void bind_value(struct query *query, const char *text)
{
    bind_text(query, *text ? text : NULL, SQLITE_TRANSIENT);
}

void query_bind_ip(struct query *query, const struct ip *ip)
{
    char text[IP_TEXT_MAX];

    bind_value(query, ip_format(ip, text));
}

void query_bind_cidr(struct query *query, const struct cidr *cidr)
{
    char text[CIDR_TEXT_MAX];

    bind_value(query, cidr_format(cidr, text));
}

void query_bind_mac(struct query *query, const struct mac *mac)
{
    char text[MAC_TEXT_MAX];

    bind_value(query, mac_format(mac, text));
}

/* Binds what an encoder made, which SQLite frees. */
static void bind_encoded(struct query *query, int encoded, char *text)
{
    if (encoded < 0)
        query_keep(query, SQLITE_NOMEM);
    else
        bind_text(query, text, free);
}

void query_bind_strings(struct query *query, const struct strings *strings)
{
    char *text = NULL;

    if (strings->count == 0) {
        query_bind_text(query, "");
        return;
    }
    int encoded = encode_strings(strings, &text);
    bind_encoded(query, encoded, text);
}

void query_bind_ips(struct query *query, const struct ips *ips)
{
    char *text = NULL;

    if (ips->count == 0) {
        query_bind_text(query, "");
        return;
    }
    int encoded = encode_ips(ips, &text);
    bind_encoded(query, encoded, text);
}

void query_bind_labels(struct query *query, const struct labels *labels)
{
    char *text = NULL;

    if (labels->count == 0) {
        query_bind_text(query, "");
        return;
    }
    int encoded = encode_labels(labels, &text);
    bind_encoded(query, encoded, text);
}

/* --- running --- */

int query_check(struct query *query, struct error *error)
{
    switch (query->result) {
    case SQLITE_OK:
        return 0;
    case SQLITE_CORRUPT:
        return error_set(
            error, EBADMSG, "the state database is damaged: column %s of \"%s\"",
            query->column > 0 ? sqlite3_column_name(query->statement, query->column - 1) : "?",
            query->statement ? sqlite3_sql(query->statement) : "?");
    case SQLITE_NOMEM:
        return error_set(error, ENOMEM, "the state database");
    default:
        return store_error(query->store, error);
    }
}

int query_next(struct query *query, bool *ret_row, struct error *error)
{
    if (query->result == SQLITE_OK) {
        int result = sqlite3_step(query->statement);

        query->column = 0;
        if (result == SQLITE_ROW || result == SQLITE_DONE) {
            *ret_row = result == SQLITE_ROW;
            return 0;
        }
        return store_error(query->store, error);
    }
    return query_check(query, error);
}

int query_run(struct query *query, struct error *error)
{
    bool row = true;

    while (row) {
        int r = query_next(query, &row, error);

        if (r < 0)
            return r;
    }
    return 0;
}

static enum query_conflict conflict_of_result(int result)
{
    switch (result) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
        return CONFLICT_UNIQUE;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return CONFLICT_PARENT;
    default:
        return CONFLICT_NONE;
    }
}

int query_run_checked(struct query *query, enum query_conflict *ret_conflict, struct error *error)
{
    struct error failure = ERROR_INIT;
    int r = query_run(query, &failure);

    *ret_conflict = CONFLICT_NONE;
    if (r == 0)
        return 0;
    *ret_conflict = conflict_of_result(sqlite3_extended_errcode(query->store->db));
    if (*ret_conflict != CONFLICT_NONE)
        return 0;
    *error = failure;
    return r;
}

/* --- reading --- */

int64_t query_int(struct query *query)
{
    return sqlite3_column_int64(query->statement, query->column++);
}

bool query_bool(struct query *query)
{
    return query_int(query) != 0;
}

/* The next column's text, valid until the next step; "" for NULL. */
static const char *column_text(struct query *query)
{
    int column = query->column++;
    const char *text = (const char *)sqlite3_column_text(query->statement, column);

    if (!text && sqlite3_column_type(query->statement, column) != SQLITE_NULL)
        query_keep(query, SQLITE_NOMEM);
    return text ? text : "";
}

void query_text(struct query *query, char *buffer, size_t size)
{
    const char *text = column_text(query);
    size_t length = strlen(text);

    if (length >= size) {
        query_set_damaged(query);
        length = 0;
    }
    memcpy(buffer, text, length);
    buffer[length] = '\0';
}

char *query_text_dup(struct query *query)
{
    if (sqlite3_column_type(query->statement, query->column) == SQLITE_NULL) {
        query->column++;
        return NULL;
    }
    char *copy = strdup(column_text(query));
    if (!copy)
        query_keep(query, SQLITE_NOMEM);
    return copy;
}

struct ip query_ip(struct query *query)
{
    const char *text = column_text(query);
    struct ip ip = {0};

    if (*text && ip_parse(text, &ip) < 0)
        query_set_damaged(query);
    return ip;
}

struct cidr query_cidr(struct query *query)
{
    const char *text = column_text(query);
    struct cidr cidr = {0};

    if (*text && cidr_parse(text, &cidr) < 0)
        query_set_damaged(query);
    return cidr;
}

struct mac query_mac(struct query *query)
{
    const char *text = column_text(query);
    struct mac mac = {0};

    if (*text && mac_parse(text, &mac) < 0)
        query_set_damaged(query);
    return mac;
}

static void keep_decoded(struct query *query, int decoded)
{
    if (decoded < 0)
        query_keep(query, decoded == -ENOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT);
}

void query_strings(struct query *query, struct strings *ret_strings)
{
    keep_decoded(query, decode_strings(column_text(query), ret_strings));
}

void query_ips(struct query *query, struct ips *ret_ips)
{
    keep_decoded(query, decode_ips(column_text(query), ret_ips));
}

void query_labels(struct query *query, struct labels *ret_labels)
{
    keep_decoded(query, decode_labels(column_text(query), ret_labels));
}
