/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store/query.h"

#include <errno.h>

#include "base/record.h"

/* 0, every network, is NULL in the table, since it is a foreign key. */
static void bind_network(struct query *query, int64_t network_id)
{
    if (network_id == 0)
        query_bind_text(query, NULL);
    else
        query_bind_int(query, network_id);
}

int store_record_insert(struct store *store, struct dns_record *record, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "INSERT INTO record (network_id, name, type, value)"
                           " VALUES (?, ?, ?, ?)");
    enum query_conflict conflict;

    bind_network(&query, record->network_id);
    query_bind_text(&query, record->name);
    query_bind_text(&query, record_type_name(record->type));
    query_bind_text(&query, record->value);
    int r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict == CONFLICT_UNIQUE)
        return error_set_reason(error, REASON_EXISTS, "\"%s\" has that %s record already: %.200s",
                                record->name, record_type_name(record->type), record->value);
    if (conflict == CONFLICT_PARENT)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such network");
    record->id = sqlite3_last_insert_rowid(store->db);
    return 0;
}

int store_record_delete_by_id(struct store *store, int64_t record_id, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, "DELETE FROM record WHERE id = ?");

    query_bind_int(&query, record_id);
    int r = query_run(&query, error);
    if (r == 0 && sqlite3_changes(store->db) == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such name");
    return r;
}

static int record_read(struct query *query, struct dns_record *ret_record, struct error *error)
{
    struct dns_record record = {0};
    char type[16];

    record.id = query_int(query);
    record.network_id = query_int(query);
    query_text(query, record.network, sizeof(record.network));
    query_text(query, record.name, sizeof(record.name));
    query_text(query, type, sizeof(type));
    if (record_type_parse(type, &record.type) < 0)
        query_set_damaged(query);
    record.value = query_text_dup(query);
    int r = query_check(query, error);
    if (r == 0)
        *ret_record = record;
    else
        dns_record_deinit(&record);
    return r;
}

#define RECORD_SELECT                                                                  \
    "SELECT record.id, network_id, network.name, record.name, type, value FROM record" \
    " LEFT JOIN network ON network.id = network_id"

static int records_read(struct query *query, struct dns_record **ret_records, size_t *ret_count,
                        struct error *error)
{
    struct dns_record *records = NULL;
    size_t count = 0;
    int r;

    for (;;) {
        struct dns_record *grown;
        bool row;

        r = query_next(query, &row, error);
        if (r < 0 || !row)
            break;
        grown = list_grow(records, count, sizeof(*records));
        if (!grown) {
            r = error_set(error, ENOMEM, "the state database");
            break;
        }
        records = grown;
        r = record_read(query, &records[count], error);
        if (r < 0)
            break;
        count++;
    }
    if (r < 0) {
        dns_records_free(records, count);
        return r;
    }
    *ret_records = records;
    *ret_count = count;
    return 0;
}

int store_record_list(struct store *store, struct dns_record **ret_records, size_t *ret_count,
                      struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, RECORD_SELECT " ORDER BY record.id");

    return records_read(&query, ret_records, ret_count, error);
}

int store_record_list_by_name(struct store *store, const char *name,
                              struct dns_record **ret_records, size_t *ret_count,
                              struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, RECORD_SELECT " WHERE record.name = ? ORDER BY record.id");

    query_bind_text(&query, name);
    return records_read(&query, ret_records, ret_count, error);
}

int store_record_count(struct store *store, uint64_t *ret_count, struct error *error)
{
    return store_tally(store, "record", ret_count, error);
}
