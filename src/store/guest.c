/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest is loaded whole: its row, then its endpoints and its ports, each by an index. A list of
 * all guests takes the same three statements for some guests at a time, each in the order of the
 * guests' ids, side by side. */
#include "store/endpoint.h"

#include <errno.h>
#include <string.h>

#include "base/yield.h"
#include "store/port.h"

#define GUEST_COLUMNS                                                                          \
    "id, uid, name, kind, mode, netns, pid, pid_start, netns_dev, netns_ino, ephemeral, "      \
    "owner_pid,"                                                                               \
    " owner_start, owner_uid, localhost, tap_owner, tap_group, tap_multi_queue, tap_vnet_hdr," \
    " allow, deny, log_denied, silent, rate_up, rate_down, max_conns, conn_rate, hosts, dns,"  \
    " dns_search, labels, created_s, dns_inject, netns_handle"

/* --- inserting --- */

static void guest_bind(struct query *query, const struct guest *guest)
{
    query_bind_text(query, guest->uid);
    query_bind_text(query, guest->name);
    query_bind_text(query, guest_kind_name(guest->kind));
    query_bind_text(query, guest_mode_name(guest->mode));
    query_bind_text(query, guest->netns);
    query_bind_int(query, guest->pid);
    query_bind_int(query, (int64_t)guest->pid_start);
    query_bind_int(query, (int64_t)guest->netns_dev);
    query_bind_int(query, (int64_t)guest->netns_ino);
    query_bind_int(query, guest->ephemeral);
    query_bind_int(query, guest->owner_pid);
    query_bind_int(query, (int64_t)guest->owner_start);
    query_bind_int(query, guest->owner_uid);
    query_bind_int(query, guest->localhost);
    query_bind_int(query, guest->tap_owner);
    query_bind_int(query, guest->tap_group);
    query_bind_int(query, guest->tap_multi_queue);
    query_bind_int(query, guest->tap_vnet_hdr);
    query_bind_strings(query, &guest->policy.allow);
    query_bind_strings(query, &guest->policy.deny);
    query_bind_int(query, guest->policy.log_denied);
    query_bind_int(query, guest->policy.silent);
    query_bind_int(query, (int64_t)guest->limits.rate_up);
    query_bind_int(query, (int64_t)guest->limits.rate_down);
    query_bind_int(query, guest->limits.max_conns);
    query_bind_int(query, guest->limits.conn_rate);
    query_bind_strings(query, &guest->hosts);
    query_bind_ips(query, &guest->dns);
    query_bind_strings(query, &guest->dns_search);
    query_bind_labels(query, &guest->labels);
    query_bind_int(query, guest->created_s);
    query_bind_int(query, guest->dns_inject);
    query_bind_text(query, guest->netns_handle);
}

static int guest_insert_row(struct store *store, const struct guest *guest, int64_t *ret_id,
                            struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "INSERT INTO guest (uid, name, kind, mode, netns, pid, pid_start, netns_dev,"
               " netns_ino, ephemeral, owner_pid, owner_start, owner_uid, localhost, tap_owner,"
               " tap_group, tap_multi_queue, tap_vnet_hdr, allow, deny, log_denied, silent,"
               " rate_up, rate_down, max_conns, conn_rate, hosts, dns, dns_search, labels,"
               " created_s, dns_inject, netns_handle)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
               " ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    enum query_conflict conflict;

    guest_bind(&query, guest);
    int r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict != CONFLICT_NONE)
        return error_set_reason(error, REASON_EXISTS,
                                "guest %s exists already; choose another name or detach it first",
                                guest->name);
    *ret_id = sqlite3_last_insert_rowid(store->db);
    return 0;
}

static int guest_insert_parts(struct store *store, struct guest *guest, int64_t guest_id,
                              struct error *error)
{
    int r = 0;

    for (size_t i = 0; i < guest->n_endpoints && r == 0; i++) {
        guest->endpoints[i].guest_id = guest_id;
        r = store_endpoint_insert(store, &guest->endpoints[i], error);
    }
    for (size_t i = 0; i < guest->n_ports && r == 0; i++) {
        guest->ports[i].guest_id = guest_id;
        r = store_port_insert(store, &guest->ports[i], error);
    }
    return r;
}

int store_guest_insert(struct store *store, struct guest *guest, struct error *error)
{
    int64_t guest_id = 0;
    int r;

    r = store_require_transaction(store, error);
    if (r == 0)
        r = guest_insert_row(store, guest, &guest_id, error);
    if (r == 0)
        r = guest_insert_parts(store, guest, guest_id, error);
    if (r == 0)
        guest->id = guest_id;
    return r;
}

/* --- removing --- */

int store_guest_delete(struct store *store, int64_t guest_id, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, "DELETE FROM guest WHERE id = ?");
    int r;

    r = store_require_transaction(store, error);
    if (r < 0)
        return r;
    query_bind_int(&query, guest_id);
    r = query_run(&query, error);
    if (r == 0 && sqlite3_changes(store->db) == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such guest");
    return r;
}

static int endpoint_release(struct store *store, const struct guest *guest,
                            const struct endpoint *endpoint, struct error *error)
{
    const struct ip *ips[] = {&endpoint->ip, &endpoint->ip6};
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(ips) && r == 0; i++)
        if (ip_is_set(ips[i]))
            r = store_pool_release(store, endpoint->network_id, ips[i], guest->name, error);
    return r;
}

int store_guest_release(struct store *store, const struct guest *guest, struct error *error)
{
    int r;

    r = store_require_transaction(store, error);
    for (size_t i = 0; i < guest->n_endpoints && r == 0; i++)
        r = endpoint_release(store, guest, &guest->endpoints[i], error);
    return r < 0 ? r : store_guest_delete(store, guest->id, error);
}

/* --- loading --- */

/* Reads GUEST_COLUMNS. */
static int guest_read(struct query *query, struct guest *ret_guest, struct error *error)
{
    _cleanup_(guest_deinit) struct guest guest = {0};
    char kind[16];
    char mode[16];

    guest.id = query_int(query);
    query_text(query, guest.uid, sizeof(guest.uid));
    query_text(query, guest.name, sizeof(guest.name));
    query_text(query, kind, sizeof(kind));
    if (guest_kind_parse(kind, &guest.kind) < 0)
        query_set_damaged(query);
    query_text(query, mode, sizeof(mode));
    if (guest_mode_parse(mode, &guest.mode) < 0)
        query_set_damaged(query);
    guest.netns = query_text_dup(query);
    guest.pid = (int32_t)query_int(query);
    guest.pid_start = (uint64_t)query_int(query);
    guest.netns_dev = (uint64_t)query_int(query);
    guest.netns_ino = (uint64_t)query_int(query);
    guest.ephemeral = query_bool(query);
    guest.owner_pid = (int32_t)query_int(query);
    guest.owner_start = (uint64_t)query_int(query);
    guest.owner_uid = (uint32_t)query_int(query);
    guest.localhost = query_bool(query);
    guest.tap_owner = query_int(query);
    guest.tap_group = query_int(query);
    guest.tap_multi_queue = query_bool(query);
    guest.tap_vnet_hdr = query_bool(query);
    query_strings(query, &guest.policy.allow);
    query_strings(query, &guest.policy.deny);
    guest.policy.log_denied = query_bool(query);
    guest.policy.silent = query_bool(query);
    guest.limits.rate_up = (uint64_t)query_int(query);
    guest.limits.rate_down = (uint64_t)query_int(query);
    guest.limits.max_conns = (uint32_t)query_int(query);
    guest.limits.conn_rate = (uint32_t)query_int(query);
    query_strings(query, &guest.hosts);
    query_ips(query, &guest.dns);
    query_strings(query, &guest.dns_search);
    query_labels(query, &guest.labels);
    guest.created_s = query_int(query);
    guest.dns_inject = query_bool(query);
    query_text(query, guest.netns_handle, sizeof(guest.netns_handle));
    int r = query_check(query, error);
    if (r < 0)
        return r;
    *ret_guest = TAKE_STRUCT(guest);
    return 0;
}

/* Reads the row's endpoint into the guest. */
static int guest_read_endpoint(struct guest *guest, struct query *query, struct error *error)
{
    struct endpoint *grown =
        list_grow(guest->endpoints, guest->n_endpoints, sizeof(*guest->endpoints));

    if (!grown)
        return error_set(error, ENOMEM, "the state database");
    guest->endpoints = grown;
    endpoint_read(query, &grown[guest->n_endpoints++]);
    return query_check(query, error);
}

static int guest_read_port(struct guest *guest, struct query *query, struct error *error)
{
    struct port *grown = list_grow(guest->ports, guest->n_ports, sizeof(*guest->ports));

    if (!grown)
        return error_set(error, ENOMEM, "the state database");
    guest->ports = grown;
    port_read(query, &grown[guest->n_ports++]);
    return query_check(query, error);
}

/* Reads all rows of a query for the parts of one guest. */
static int guest_load_parts(struct guest *guest, struct query *query,
                            int (*read)(struct guest *, struct query *, struct error *),
                            struct error *error)
{
    bool row = true;
    int r = 0;

    query_bind_int(query, guest->id);
    while (r == 0 && row) {
        r = query_next(query, &row, error);
        if (r == 0 && row)
            r = read(guest, query, error);
    }
    return r;
}

static int guest_load(struct store *store, struct guest *guest, struct error *error)
{
    _cleanup_query_ struct query endpoints =
        query_begin(store, "SELECT " ENDPOINT_COLUMNS " FROM " ENDPOINT_TABLES
                           " WHERE guest_id = ? ORDER BY position");
    _cleanup_query_ struct query ports =
        query_begin(store, "SELECT " PORT_COLUMNS " FROM port WHERE guest_id = ? ORDER BY id");
    int r = guest_load_parts(guest, &endpoints, guest_read_endpoint, error);

    return r < 0 ? r : guest_load_parts(guest, &ports, guest_read_port, error);
}

/* The row of a query for at most one guest, and all that hangs on it. */
static int guest_read_one(struct store *store, struct query *query, struct guest *ret_guest,
                          bool *ret_found, struct error *error)
{
    _cleanup_(guest_deinit) struct guest guest = {0};
    bool row;
    int r;

    r = query_next(query, &row, error);
    if (r == 0 && row)
        r = guest_read(query, &guest, error);
    if (r == 0 && row)
        r = guest_load(store, &guest, error);
    if (r < 0)
        return r;
    if (row) {
        *ret_guest = TAKE_STRUCT(guest);
    }
    *ret_found = row;
    return 0;
}

int store_guest_find(struct store *store, const char *name, struct guest *ret_guest,
                     bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " GUEST_COLUMNS " FROM guest WHERE name = ?");

    query_bind_text(&query, name);
    return guest_read_one(store, &query, ret_guest, ret_found, error);
}

int store_guest_get(struct store *store, int64_t guest_id, struct guest *ret_guest,
                    struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " GUEST_COLUMNS " FROM guest WHERE id = ?");
    bool found;

    query_bind_int(&query, guest_id);
    int r = guest_read_one(store, &query, ret_guest, &found, error);
    if (r == 0 && !found)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such guest");
    return r;
}

int store_guest_find_by_netns(struct store *store, uint64_t dev, uint64_t ino,
                              struct guest *ret_guest, bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " GUEST_COLUMNS " FROM guest"
                           " WHERE netns_ino = ? AND netns_dev = ? AND netns_ino <> 0"
                           " ORDER BY id LIMIT 1");

    query_bind_int(&query, (int64_t)ino);
    query_bind_int(&query, (int64_t)dev);
    return guest_read_one(store, &query, ret_guest, ret_found, error);
}

int store_guest_find_by_address(struct store *store, const char *bridge, const struct ip *ip,
                                struct guest *ret_guest, bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "SELECT " GUEST_COLUMNS " FROM guest WHERE id = (SELECT guest_id FROM endpoint"
               " JOIN network ON network.id = network_id"
               " WHERE bridge = ?1 AND (endpoint.ip = ?2 OR endpoint.ip6 = ?2))");

    query_bind_text(&query, bridge);
    query_bind_ip(&query, ip);
    return guest_read_one(store, &query, ret_guest, ret_found, error);
}

struct guests {
    struct guest *items;
    size_t count;
};

static void guests_deinit(struct guests *guests)
{
    for (size_t i = 0; i < guests->count; i++)
        guest_deinit(&guests->items[i]);
    free(guests->items);
}

#define CHUNK 32 /* guests that are read at once */

/* A part of the list: guests above one id, up to another. */
struct chunk {
    size_t first; /* of the guests */
    int64_t above;
    int64_t last;
};

static int chunk_load_rows(struct store *store, struct guests *guests, struct chunk *chunk,
                           struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " GUEST_COLUMNS " FROM guest WHERE id > ? ORDER BY id LIMIT ?");

    query_bind_int(&query, chunk->above);
    query_bind_int(&query, CHUNK);
    for (;;) {
        bool row;
        int r = query_next(&query, &row, error);

        if (r < 0 || !row)
            return r;
        struct guest *grown = list_grow(guests->items, guests->count, sizeof(*grown));
        if (!grown)
            return error_set(error, ENOMEM, "the state database");
        guests->items = grown;
        r = guest_read(&query, &grown[guests->count], error);
        if (r < 0)
            return r;
        guests->count++;
    }
}

/* Reads all rows of a query for the parts of a chunk's guests, in the order of the guests' ids.
 * `guest_id_column` counts from 0. */
static int chunk_load_parts(struct guests *guests, const struct chunk *chunk, struct query *query,
                            int guest_id_column,
                            int (*read)(struct guest *, struct query *, struct error *),
                            struct error *error)
{
    size_t i = chunk->first;

    query_bind_int(query, chunk->above);
    query_bind_int(query, chunk->last);
    for (;;) {
        bool row;
        int r = query_next(query, &row, error);

        if (r < 0 || !row)
            return r;
        int64_t guest_id = sqlite3_column_int64(query->statement, guest_id_column);
        while (i < guests->count && guests->items[i].id != guest_id)
            i++;
        if (i == guests->count)
            return error_set(error, EBADMSG,
                             "the state database is damaged: parts without a guest");
        r = read(&guests->items[i], query, error);
        if (r < 0)
            return r;
    }
}

static int chunk_load(struct store *store, struct guests *guests, struct chunk *chunk,
                      struct error *error)
{
    _cleanup_query_ struct query endpoints =
        query_begin(store, "SELECT " ENDPOINT_COLUMNS " FROM " ENDPOINT_TABLES
                           " WHERE guest_id > ? AND guest_id <= ? ORDER BY guest_id, position");
    _cleanup_query_ struct query ports =
        query_begin(store, "SELECT " PORT_COLUMNS
                           " FROM port WHERE guest_id > ? AND guest_id <= ? ORDER BY guest_id, id");
    int r = chunk_load_rows(store, guests, chunk, error);

    if (r < 0)
        return r;
    chunk->last =
        guests->count - chunk->first < CHUNK ? INT64_MAX : guests->items[guests->count - 1].id;
    r = chunk_load_parts(guests, chunk, &endpoints, 1, guest_read_endpoint, error);
    return r < 0 ? r : chunk_load_parts(guests, chunk, &ports, 1, guest_read_port, error);
}

int store_guest_list(struct store *store, struct guest **ret_guests, size_t *ret_count,
                     struct error *error)
{
    _cleanup_(guests_deinit) struct guests guests = {0};
    struct chunk chunk = {.above = 0};

    while (chunk.above < INT64_MAX) {
        int r = chunk_load(store, &guests, &chunk, error);

        if (r < 0)
            return r;
        chunk = (struct chunk){.first = guests.count, .above = chunk.last};
        yield_if_due();
    }
    *ret_guests = TAKE_PTR(guests.items);
    *ret_count = guests.count;
    guests.count = 0;
    return 0;
}

int store_guest_count(struct store *store, uint64_t *ret_guests, uint64_t *ret_ports,
                      struct error *error)
{
    uint64_t guests;
    uint64_t ports;
    int r = store_tally(store, "guest", &guests, error);

    if (r == 0)
        r = store_tally(store, "port", &ports, error);
    if (r < 0)
        return r;
    *ret_guests = guests;
    *ret_ports = ports;
    return 0;
}

/* --- changing --- */

/* For a statement that must have changed one guest. */
static int require_changed(struct store *store, int r, struct error *error)
{
    if (r == 0 && sqlite3_changes(store->db) == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such guest");
    return r;
}

int store_guest_set_policy(struct store *store, int64_t guest_id, enum guest_mode mode,
                           const struct policy *policy, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "UPDATE guest SET mode = ?, allow = ?, deny = ?, log_denied = ?,"
                           " silent = ? WHERE id = ?");

    query_bind_text(&query, guest_mode_name(mode));
    query_bind_strings(&query, &policy->allow);
    query_bind_strings(&query, &policy->deny);
    query_bind_int(&query, policy->log_denied);
    query_bind_int(&query, policy->silent);
    query_bind_int(&query, guest_id);
    return require_changed(store, query_run(&query, error), error);
}

int store_guest_set_limits(struct store *store, int64_t guest_id, const struct limits *limits,
                           struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "UPDATE guest SET rate_up = ?, rate_down = ?, max_conns = ?,"
                           " conn_rate = ? WHERE id = ?");

    query_bind_int(&query, (int64_t)limits->rate_up);
    query_bind_int(&query, (int64_t)limits->rate_down);
    query_bind_int(&query, limits->max_conns);
    query_bind_int(&query, limits->conn_rate);
    query_bind_int(&query, guest_id);
    return require_changed(store, query_run(&query, error), error);
}

int store_guest_set_localhost(struct store *store, int64_t guest_id, bool on, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "UPDATE guest SET localhost = ? WHERE id = ?");

    query_bind_int(&query, on);
    query_bind_int(&query, guest_id);
    return require_changed(store, query_run(&query, error), error);
}
