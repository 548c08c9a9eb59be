/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store/query.h"

#include <errno.h>
#include <stdlib.h>

#define PASSAGE_COLUMNS                                                           \
    "passage.id, from_id, to_id, source.name, target.name, protocol, first_port," \
    " last_port"
#define PASSAGE_TABLES                                      \
    "passage JOIN network AS source ON source.id = from_id" \
    " JOIN network AS target ON target.id = to_id"

/* --- reading --- */

static struct port_span span_read(struct query *query)
{
    struct port_span span = {.protocol = (uint8_t)query_int(query)};

    span.first = (uint16_t)query_int(query);
    span.last = (uint16_t)query_int(query);
    return span;
}

static int passage_read(struct query *query, struct passage *ret_passage, struct error *error)
{
    struct passage passage = {0};

    passage.id = query_int(query);
    passage.from_id = query_int(query);
    passage.to_id = query_int(query);
    query_text(query, passage.from, sizeof(passage.from));
    query_text(query, passage.to, sizeof(passage.to));
    passage.span = span_read(query);
    int r = query_check(query, error);
    if (r == 0)
        *ret_passage = passage;
    return r;
}

int store_passage_list(struct store *store, int64_t network_id, struct passage **ret_passages,
                       size_t *ret_count, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " PASSAGE_COLUMNS " FROM " PASSAGE_TABLES
                           " WHERE ?1 = 0 OR from_id = ?1 OR to_id = ?1"
                           " ORDER BY source.name, target.name, protocol, first_port");
    _cleanup_free_ struct passage *passages = NULL;
    size_t count = 0;

    query_bind_int(&query, network_id);
    for (;;) {
        bool row;
        int r = query_next(&query, &row, error);

        if (r < 0)
            return r;
        if (!row)
            break;
        struct passage *grown = list_grow(passages, count, sizeof(*passages));
        if (!grown)
            return error_set(error, ENOMEM, "the state database");
        passages = grown;
        r = passage_read(&query, &passages[count], error);
        if (r < 0)
            return r;
        count++;
    }
    *ret_passages = TAKE_PTR(passages);
    *ret_count = count;
    return 0;
}

int store_passage_get(struct store *store, int64_t from_id, int64_t to_id,
                      struct port_spans *ret_spans, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT protocol, first_port, last_port FROM passage"
                           " WHERE from_id = ? AND to_id = ? ORDER BY protocol, first_port");
    _cleanup_(spans_deinit) struct port_spans spans = {0};

    query_bind_int(&query, from_id);
    query_bind_int(&query, to_id);
    for (;;) {
        bool row;
        int r = query_next(&query, &row, error);

        if (r < 0)
            return r;
        if (!row)
            break;
        const struct port_span span = span_read(&query);
        r = query_check(&query, error);
        if (r < 0)
            return r;
        if (spans_add(&spans, &span) < 0)
            return error_set(error, ENOMEM, "the state database");
    }
    *ret_spans = TAKE_STRUCT(spans);
    return 0;
}

int store_passage_count(struct store *store, uint64_t *ret_count, struct error *error)
{
    return store_tally(store, "passage", ret_count, error);
}

/* --- changing --- */

static int passage_delete(struct store *store, int64_t from_id, int64_t to_id, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "DELETE FROM passage WHERE from_id = ? AND to_id = ?");

    query_bind_int(&query, from_id);
    query_bind_int(&query, to_id);
    return query_run(&query, error);
}

static int passage_insert(struct store *store, int64_t from_id, int64_t to_id,
                          const struct port_span *span, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "INSERT INTO passage (from_id, to_id, protocol, first_port, last_port)"
                           " VALUES (?, ?, ?, ?, ?)");
    enum query_conflict conflict;

    query_bind_int(&query, from_id);
    query_bind_int(&query, to_id);
    query_bind_int(&query, span->protocol);
    query_bind_int(&query, span->first);
    query_bind_int(&query, span->last);
    int r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict == CONFLICT_PARENT)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such network");
    if (conflict == CONFLICT_UNIQUE)
        return error_set(error, EEXIST, "ports of a passage overlap");
    return 0;
}

int store_passage_set(struct store *store, int64_t from_id, int64_t to_id,
                      const struct port_spans *spans, struct error *error)
{
    int r = store_require_transaction(store, error);

    if (r == 0)
        r = passage_delete(store, from_id, to_id, error);
    for (size_t i = 0; r == 0 && i < spans->count; i++)
        r = passage_insert(store, from_id, to_id, &spans->items[i], error);
    return r;
}
