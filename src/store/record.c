/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store/query.h"

#include <errno.h>

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
        query_begin(store, "INSERT INTO record (network_id, name, ip) VALUES (?, ?, ?)");
    enum query_conflict conflict;
    char ip[IP_TEXT_MAX];

    bind_network(&query, record->network_id);
    query_bind_text(&query, record->name);
    query_bind_ip(&query, &record->ip);
    int r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict == CONFLICT_UNIQUE)
        return error_set_reason(error, REASON_EXISTS, "%s has the address %s already", record->name,
                                ip_format(&record->ip, ip));
    if (conflict == CONFLICT_PARENT)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such network");
    record->id = sqlite3_last_insert_rowid(store->db);
    return 0;
}

int store_record_delete(struct store *store, int64_t network_id, const char *name,
                        size_t *ret_count, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "DELETE FROM record WHERE coalesce(network_id, 0) = ? AND name = ?");

    query_bind_int(&query, network_id);
    query_bind_text(&query, name);
    int r = query_run(&query, error);
    if (r == 0)
        *ret_count = (size_t)sqlite3_changes(store->db);
    return r;
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

    record.id = query_int(query);
    record.network_id = query_int(query);
    query_text(query, record.network, sizeof(record.network));
    query_text(query, record.name, sizeof(record.name));
    record.ip = query_ip(query);
    int r = query_check(query, error);
    if (r == 0)
        *ret_record = record;
    return r;
}

int store_record_list(struct store *store, struct dns_record **ret_records, size_t *ret_count,
                      struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT record.id, network_id, network.name, record.name, ip"
                           " FROM record LEFT JOIN network ON network.id = network_id"
                           " ORDER BY record.id");
    _cleanup_free_ struct dns_record *records = NULL;
    size_t count = 0;

    for (;;) {
        bool row;
        int r = query_next(&query, &row, error);

        if (r < 0)
            return r;
        if (!row)
            break;
        struct dns_record *grown = list_grow(records, count, sizeof(*records));
        if (!grown)
            return error_set(error, ENOMEM, "the state database");
        records = grown;
        r = record_read(&query, &records[count], error);
        if (r < 0)
            return r;
        count++;
    }
    *ret_records = TAKE_PTR(records);
    *ret_count = count;
    return 0;
}

int store_record_count(struct store *store, uint64_t *ret_count, struct error *error)
{
    return store_tally(store, "record", ret_count, error);
}
