/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store/query.h"

#include <errno.h>

#define NETWORK_COLUMNS                                                                    \
    "id, uid, name, bridge, subnet, gateway, ip_range, subnet6, gateway6, mac, internal, " \
    "isolated,"                                                                            \
    " host_access, dns, mtu, dns_servers, labels, created_s"

/* Who has the name or the bridge that an insert stumbled over. */
static int network_conflict(struct store *store, const struct network *network, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT name, name = ?1 FROM network WHERE name = ?1"
                           " UNION ALL SELECT name, 0 FROM network WHERE bridge = ?2");
    char name[NAME_MAX_LENGTH + 1];
    bool row;

    query_bind_text(&query, network->name);
    query_bind_text(&query, network->bridge);
    int r = query_next(&query, &row, error);
    if (r < 0)
        return r;
    if (!row)
        return error_set(error, EEXIST, "network %s can't be stored", network->name);
    query_text(&query, name, sizeof(name));
    if (query_bool(&query))
        return error_set_reason(error, REASON_EXISTS,
                                "network %s exists already; choose another name or remove it first",
                                network->name);
    return error_set_reason(error, REASON_EXISTS,
                            "the bridge name %s belongs to network %s; choose another one",
                            network->bridge, name);
}

static void network_bind(struct query *query, const struct network *network)
{
    query_bind_text(query, network->uid);
    query_bind_text(query, network->name);
    query_bind_text(query, network->bridge);
    query_bind_cidr(query, &network->subnet);
    query_bind_ip(query, &network->gateway);
    query_bind_cidr(query, &network->ip_range);
    query_bind_cidr(query, &network->subnet6);
    query_bind_ip(query, &network->gateway6);
    query_bind_mac(query, &network->mac);
    query_bind_int(query, network->internal);
    query_bind_int(query, network->isolated);
    query_bind_int(query, network->host_access);
    query_bind_int(query, network->dns);
    query_bind_int(query, network->mtu);
    query_bind_ips(query, &network->dns_servers);
    query_bind_labels(query, &network->labels);
    query_bind_int(query, network->created_s);
}

/* Reads NETWORK_COLUMNS. */
static int network_read(struct query *query, struct network *ret_network, struct error *error)
{
    _cleanup_(network_deinit) struct network network = {0};

    network.id = query_int(query);
    query_text(query, network.uid, sizeof(network.uid));
    query_text(query, network.name, sizeof(network.name));
    query_text(query, network.bridge, sizeof(network.bridge));
    network.subnet = query_cidr(query);
    network.gateway = query_ip(query);
    network.ip_range = query_cidr(query);
    network.subnet6 = query_cidr(query);
    network.gateway6 = query_ip(query);
    network.mac = query_mac(query);
    network.internal = query_bool(query);
    network.isolated = query_bool(query);
    network.host_access = query_bool(query);
    network.dns = query_bool(query);
    network.mtu = (uint32_t)query_int(query);
    query_ips(query, &network.dns_servers);
    query_labels(query, &network.labels);
    network.created_s = query_int(query);
    int r = query_check(query, error);
    if (r < 0)
        return r;
    *ret_network = TAKE_STRUCT(network);
    return 0;
}

int store_network_insert(struct store *store, struct network *network, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "INSERT INTO network (uid, name, bridge, subnet, gateway, ip_range, subnet6,"
               " gateway6, mac, internal, isolated, host_access, dns, mtu, dns_servers,"
               " labels, created_s)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    struct network stored = *network;
    enum query_conflict conflict;
    int r;

    r = store_require_transaction(store, error);
    if (r < 0)
        return r;
    network_bind(&query, network);
    r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict)
        return network_conflict(store, network, error);
    stored.id = sqlite3_last_insert_rowid(store->db);
    r = store_pool_insert(store, &stored, error);
    if (r < 0)
        return r;
    network->id = stored.id;
    return 0;
}

int store_network_move(struct store *store, const struct network *network, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "UPDATE network SET subnet = ?, gateway = ?, ip_range = ?, mac = ?"
                           " WHERE id = ?");
    int r = store_require_transaction(store, error);

    if (r < 0)
        return r;
    query_bind_cidr(&query, &network->subnet);
    query_bind_ip(&query, &network->gateway);
    query_bind_cidr(&query, &network->ip_range);
    query_bind_mac(&query, &network->mac);
    query_bind_int(&query, network->id);
    r = query_run(&query, error);
    if (r == 0 && sqlite3_changes(store->db) == 0)
        r = error_set_reason(error, REASON_NOT_FOUND, "there is no such network");
    return r < 0 ? r : store_pool_replace(store, network, error);
}

int store_network_delete(struct store *store, int64_t network_id, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, "DELETE FROM network WHERE id = ?");
    enum query_conflict conflict;

    query_bind_int(&query, network_id);
    int r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict)
        return error_set_reason(error, REASON_IN_USE,
                                "the network has guests; detach them first or use --force");
    if (sqlite3_changes(store->db) == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such network");
    return 0;
}

/* The row of a query for at most one network. */
static int network_read_one(struct query *query, struct network *ret_network, bool *ret_found,
                            struct error *error)
{
    bool row;
    int r = query_next(query, &row, error);

    if (r == 0 && row)
        r = network_read(query, ret_network, error);
    if (r == 0)
        *ret_found = row;
    return r;
}

int store_network_find(struct store *store, const char *name, struct network *ret_network,
                       bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " NETWORK_COLUMNS " FROM network WHERE name = ?");

    query_bind_text(&query, name);
    return network_read_one(&query, ret_network, ret_found, error);
}

int store_network_get(struct store *store, int64_t network_id, struct network *ret_network,
                      struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " NETWORK_COLUMNS " FROM network WHERE id = ?");
    bool found;

    query_bind_int(&query, network_id);
    int r = network_read_one(&query, ret_network, &found, error);
    if (r == 0 && !found)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such network");
    return r;
}

struct networks {
    struct network *items;
    size_t count;
};

static void networks_deinit(struct networks *networks)
{
    for (size_t i = 0; i < networks->count; i++)
        network_deinit(&networks->items[i]);
    free(networks->items);
}

int store_network_list(struct store *store, struct network **ret_networks, size_t *ret_count,
                       struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " NETWORK_COLUMNS " FROM network ORDER BY id");
    _cleanup_(networks_deinit) struct networks networks = {0};

    for (;;) {
        bool row;
        int r = query_next(&query, &row, error);

        if (r < 0)
            return r;
        if (!row)
            break;
        struct network *items = list_grow(networks.items, networks.count, sizeof(*items));
        if (!items)
            return error_set(error, ENOMEM, "the state database");
        networks.items = items;
        r = network_read(&query, &networks.items[networks.count], error);
        if (r < 0)
            return r;
        networks.count++;
    }
    *ret_networks = TAKE_PTR(networks.items);
    *ret_count = networks.count;
    networks.count = 0;
    return 0;
}

int store_network_guests(struct store *store, int64_t network_id, struct strings *ret_names,
                         struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT guest.name FROM endpoint JOIN guest ON guest.id = guest_id"
                           " WHERE network_id = ? ORDER BY guest.name");
    _cleanup_(strings_deinit) struct strings names = {0};

    query_bind_int(&query, network_id);
    for (;;) {
        char name[NAME_MAX_LENGTH + 1];
        bool row;
        int r = query_next(&query, &row, error);

        if (r < 0)
            return r;
        if (!row)
            break;
        query_text(&query, name, sizeof(name));
        r = query_check(&query, error);
        if (r < 0)
            return r;
        if (strings_add(&names, name) < 0)
            return error_set(error, ENOMEM, "the state database");
    }
    *ret_names = TAKE_STRUCT(names);
    return 0;
}

int store_network_count(struct store *store, uint64_t *ret_count, struct error *error)
{
    return store_tally(store, "network", ret_count, error);
}

int store_network_forwards(struct store *store, uint8_t family, bool *ret_forwards,
                           struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT EXISTS (SELECT 1 FROM network WHERE NOT internal"
                           " AND iif(?, subnet, subnet6) IS NOT NULL)");
    bool row;

    query_bind_int(&query, family == AF_INET);
    int r = query_next(&query, &row, error);
    if (r == 0)
        *ret_forwards = row && query_bool(&query);
    return r;
}
