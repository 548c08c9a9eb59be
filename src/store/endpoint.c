/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A host interface that the caller did not name is called "mv<endpoint id>". The row holds NULL for
 * it, so that neither a second write nor an index entry is needed; nobody else may have a name of
 * that form. */
#include "store/endpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define OWN_PREFIX "mv"

static void own_name_format(int64_t endpoint_id, char name[IFNAMSIZ])
{
    snprintf(name, IFNAMSIZ, OWN_PREFIX "%" PRId64, endpoint_id);
}

/* The endpoint's id in a name that own_name_format made, else 0. */
static int64_t own_name_parse(const char *name)
{
    const char *digits = name + strlen(OWN_PREFIX);
    char again[IFNAMSIZ];

    if (strncmp(name, OWN_PREFIX, strlen(OWN_PREFIX)) != 0 || strlen(name) >= IFNAMSIZ)
        return 0;
    int64_t id = strtoll(digits, NULL, 10);
    own_name_format(id, again);
    return id > 0 && strcmp(again, name) == 0 ? id : 0;
}

void endpoint_read(struct query *query, struct endpoint *ret_endpoint)
{
    struct endpoint endpoint = {0};

    endpoint.id = query_int(query);
    endpoint.guest_id = query_int(query);
    endpoint.network_id = query_int(query);
    endpoint.position = (uint32_t)query_int(query);
    query_text(query, endpoint.network, sizeof(endpoint.network));
    query_text(query, endpoint.interface, sizeof(endpoint.interface));
    query_text(query, endpoint.host_interface, sizeof(endpoint.host_interface));
    endpoint.ip = query_ip(query);
    endpoint.prefix = (uint8_t)query_int(query);
    endpoint.ip6 = query_ip(query);
    endpoint.prefix6 = (uint8_t)query_int(query);
    endpoint.gateway = query_ip(query);
    endpoint.mac = query_mac(query);
    endpoint.routed = query_bool(query);
    query_strings(query, &endpoint.aliases);
    if (endpoint.host_interface[0] == '\0')
        own_name_format(endpoint.id, endpoint.host_interface);
    *ret_endpoint = endpoint;
}

/* --- what an insert stumbled over --- */

static int refuse_interface(struct store *store, const struct endpoint *endpoint, bool *ret_refused,
                            struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT name FROM endpoint JOIN guest ON guest.id = guest_id"
                           " WHERE host_interface = ?");
    char guest[NAME_MAX_LENGTH + 1];

    query_bind_text(&query, endpoint->host_interface);
    int r = query_next(&query, ret_refused, error);
    if (r < 0 || !*ret_refused)
        return r;
    query_text(&query, guest, sizeof(guest));
    return error_set_reason(error, REASON_EXISTS,
                            "the interface name %s belongs to guest %s; choose another one",
                            endpoint->host_interface, guest);
}

static int refuse_mac(struct store *store, const struct endpoint *endpoint, bool *ret_refused,
                      struct error *error)
{
    char guest[NAME_MAX_LENGTH + 1];
    char mac[MAC_TEXT_MAX];
    int r = store_mac_find(store, endpoint->network_id, &endpoint->mac, guest, ret_refused, error);

    if (r < 0 || !*ret_refused)
        return r;
    return error_set_reason(error, REASON_ADDRESS_IN_USE,
                            "the MAC %s is used by guest %s on this network; choose another one",
                            mac_format(&endpoint->mac, mac), guest);
}

static int refuse_ip(struct store *store, const struct endpoint *endpoint, const struct ip *ip,
                     bool *ret_refused, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT name FROM endpoint JOIN guest ON guest.id = guest_id"
                           " WHERE network_id = ?1 AND ip = ?2"
                           " UNION ALL SELECT name FROM endpoint JOIN guest ON guest.id = guest_id"
                           " WHERE network_id = ?1 AND ip6 = ?2");
    char guest[NAME_MAX_LENGTH + 1];
    char text[IP_TEXT_MAX];

    query_bind_int(&query, endpoint->network_id);
    query_bind_ip(&query, ip);
    int r = query_next(&query, ret_refused, error);
    if (r < 0 || !*ret_refused)
        return r;
    query_text(&query, guest, sizeof(guest));
    return error_set_reason(error, REASON_ADDRESS_IN_USE,
                            "%s is used by guest %s on this network; choose another address",
                            ip_format(ip, text), guest);
}

/* Names the rule, and who was there first. */
static int endpoint_refuse(struct store *store, const struct endpoint *endpoint,
                           struct error *error)
{
    bool refused;
    int r;

    r = refuse_interface(store, endpoint, &refused, error);
    if (r == 0 && !refused)
        r = refuse_mac(store, endpoint, &refused, error);
    if (r == 0 && !refused)
        r = refuse_ip(store, endpoint, &endpoint->ip, &refused, error);
    if (r == 0 && !refused)
        r = refuse_ip(store, endpoint, &endpoint->ip6, &refused, error);
    if (r == 0)
        r = error_set_reason(error, REASON_EXISTS, "the guest is on this network already");
    return r;
}

/* --- the public face --- */

int store_endpoint_insert(struct store *store, struct endpoint *endpoint, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store,
        "INSERT INTO endpoint (guest_id, network_id, position, interface, host_interface, ip,"
        " prefix, ip6, prefix6, mac, routed, aliases)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    const char *host_interface = endpoint->host_interface;
    enum query_conflict conflict;
    int r;

    r = store_require_transaction(store, error);
    if (r < 0)
        return r;
    if (own_name_parse(host_interface) != 0)
        return error_set_reason(error, REASON_EXISTS,
                                "interface names like %s are moat's own; choose another one",
                                host_interface);
    query_bind_int(&query, endpoint->guest_id);
    query_bind_int(&query, endpoint->network_id);
    query_bind_int(&query, endpoint->position);
    query_bind_text(&query, endpoint->interface);
    query_bind_text(&query, *host_interface ? host_interface : NULL);
    query_bind_ip(&query, &endpoint->ip);
    query_bind_int(&query, endpoint->prefix);
    query_bind_ip(&query, &endpoint->ip6);
    query_bind_int(&query, endpoint->prefix6);
    query_bind_mac(&query, &endpoint->mac);
    query_bind_int(&query, endpoint->routed);
    query_bind_strings(&query, &endpoint->aliases);
    r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict == CONFLICT_UNIQUE)
        return endpoint_refuse(store, endpoint, error);
    if (conflict == CONFLICT_PARENT)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such guest or network");
    endpoint->id = sqlite3_last_insert_rowid(store->db);
    if (!*host_interface)
        own_name_format(endpoint->id, endpoint->host_interface);
    return 0;
}

/* For a statement that must have changed one endpoint. */
static int require_changed(struct store *store, int r, struct error *error)
{
    if (r == 0 && sqlite3_changes(store->db) == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such endpoint");
    return r;
}

int store_endpoint_delete(struct store *store, int64_t endpoint_id, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, "DELETE FROM endpoint WHERE id = ?");

    query_bind_int(&query, endpoint_id);
    return require_changed(store, query_run(&query, error), error);
}

int store_endpoint_set_routed(struct store *store, int64_t endpoint_id, bool routed,
                              struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "UPDATE endpoint SET routed = ? WHERE id = ?");

    query_bind_int(&query, routed);
    query_bind_int(&query, endpoint_id);
    return require_changed(store, query_run(&query, error), error);
}

int store_endpoint_count(struct store *store, int64_t network_id, bool routed, uint64_t *ret_count,
                         struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT iif(?, n_routed, n_bridged) FROM network WHERE id = ?");
    bool row;

    query_bind_int(&query, routed);
    query_bind_int(&query, network_id);
    int r = query_next(&query, &row, error);
    if (r == 0)
        *ret_count = row ? (uint64_t)query_int(&query) : 0;
    return r;
}

int store_mac_find(struct store *store, int64_t network_id, const struct mac *mac,
                   char ret_guest[NAME_MAX_LENGTH + 1], bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, network_id ? "SELECT name FROM endpoint JOIN guest ON guest.id = guest_id"
                            " WHERE network_id = ? AND mac = ?"
                          : "SELECT name FROM endpoint JOIN guest ON guest.id = guest_id"
                            " WHERE mac = ?");
    char guest[NAME_MAX_LENGTH + 1] = "";
    bool row;

    if (network_id)
        query_bind_int(&query, network_id);
    query_bind_mac(&query, mac);
    int r = query_next(&query, &row, error);
    if (r < 0)
        return r;
    if (row)
        query_text(&query, guest, sizeof(guest));
    r = query_check(&query, error);
    if (r < 0)
        return r;
    *ret_found = row;
    if (row)
        memcpy(ret_guest, guest, sizeof(guest));
    return 0;
}

/* The guest of a host interface that a caller named. */
static int guest_id_find(struct store *store, const char *host_interface, int64_t *ret_guest_id,
                         bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT guest_id FROM endpoint WHERE host_interface = ?");

    query_bind_text(&query, host_interface);
    int r = query_next(&query, ret_found, error);
    if (r == 0 && *ret_found)
        *ret_guest_id = query_int(&query);
    return r;
}

/* The guest of an endpoint whose host interface has our own name. */
static int guest_id_find_own(struct store *store, int64_t endpoint_id, int64_t *ret_guest_id,
                             bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT guest_id FROM endpoint WHERE id = ? AND host_interface IS NULL");

    query_bind_int(&query, endpoint_id);
    int r = query_next(&query, ret_found, error);
    if (r == 0 && *ret_found)
        *ret_guest_id = query_int(&query);
    return r;
}

int store_guest_find_by_host_interface(struct store *store, const char *host_interface,
                                       struct guest *ret_guest, bool *ret_found,
                                       struct error *error)
{
    int64_t own_id = own_name_parse(host_interface);
    int64_t guest_id = 0;
    bool found;
    int r;

    if (own_id != 0)
        r = guest_id_find_own(store, own_id, &guest_id, &found, error);
    else
        r = guest_id_find(store, host_interface, &guest_id, &found, error);
    if (r == 0 && found)
        r = store_guest_get(store, guest_id, ret_guest, error);
    if (r == 0)
        *ret_found = found;
    return r;
}
