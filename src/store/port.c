/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ports of one protocol and host address ("" is every address) never overlap: an insert that would
 * is refused. So, in the order of their last port, the first one that does not end before the
 * wanted range is the only one of them that can overlap it: one look-up per address decides,
 * however long the ranges and however many the rows. A port of one address is compared with the
 * ports of that address and those of every address; a port of every address with those of each
 * address that has any. */
#include "store/port.h"

#include <errno.h>
#include <string.h>

#define PORT_EVERY_ADDRESS ""

static uint16_t port_last(const struct port *port)
{
    return (uint16_t)(port->host_port + port->count - 1);
}

static bool port_is_storable(const struct port *port)
{
    return port->host_port > 0 && port->guest_port > 0 && port->count > 0 &&
           port->host_port + port->count - 1 <= UINT16_MAX &&
           port->guest_port + port->count - 1 <= UINT16_MAX;
}

void port_read(struct query *query, struct port *ret_port)
{
    struct port port = {0};

    port.id = query_int(query);
    port.guest_id = query_int(query);
    port.protocol = (uint8_t)query_int(query);
    port.host_ip = query_ip(query);
    port.host_port = (uint16_t)query_int(query);
    int64_t last = query_int(query);
    port.guest_port = (uint16_t)query_int(query);
    port.count = (uint16_t)(last - port.host_port + 1);
    *ret_port = port;
}

/* Who holds a port that a wanted one overlaps. */
struct holder {
    char guest[NAME_MAX_LENGTH + 1];
    struct port port;
    bool found;
};

/* Looks among the ports of one host address, as text. */
static int holder_find_on(struct store *store, const struct port *port, const char *host_ip,
                          struct holder *holder, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT " PORT_COLUMNS ", guest.name"
                           " FROM port JOIN guest ON guest.id = guest_id"
                           " WHERE protocol = ? AND host_ip = ? AND last_port >= ?"
                           " ORDER BY last_port LIMIT 1");
    bool row;

    query_bind_int(&query, port->protocol);
    query_bind_text(&query, host_ip);
    query_bind_int(&query, port->host_port);
    int r = query_next(&query, &row, error);
    if (r < 0 || !row)
        return r;
    port_read(&query, &holder->port);
    query_text(&query, holder->guest, sizeof(holder->guest));
    holder->found = holder->port.host_port <= port_last(port);
    return query_check(&query, error);
}

/* The next host address, as text, that has ports of the protocol. *ret_found false: there is no
 * other. */
static int host_ip_next(struct store *store, uint8_t protocol, char host_ip[IP_TEXT_MAX],
                        bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT host_ip FROM port WHERE protocol = ? AND host_ip > ?"
                           " ORDER BY host_ip LIMIT 1");
    char next[IP_TEXT_MAX] = "";

    query_bind_int(&query, protocol);
    query_bind_text(&query, host_ip);
    int r = query_next(&query, ret_found, error);
    if (r < 0)
        return r;
    if (*ret_found)
        query_text(&query, next, sizeof(next));
    r = query_check(&query, error);
    memcpy(host_ip, next, sizeof(next));
    return r;
}

/* Looks among the ports of each host address that a socket on the port's would be in the way of. */
static int holder_find_anywhere(struct store *store, const struct port *port, struct holder *holder,
                                struct error *error)
{
    char host_ip[IP_TEXT_MAX] = PORT_EVERY_ADDRESS;
    bool more = true;
    int r = 0;

    while (r == 0 && more && !holder->found) {
        struct ip ip = {0};

        r = host_ip_next(store, port->protocol, host_ip, &more, error);
        if (r == 0 && more && ip_parse(host_ip, &ip) == 0 &&
            ip_bindings_overlap(&ip, &port->host_ip))
            r = holder_find_on(store, port, host_ip, holder, error);
    }
    return r;
}

static int holder_find(struct store *store, const struct port *port, struct holder *holder,
                       struct error *error)
{
    static const char *const everywhere[] = {"0.0.0.0", "::"};
    bool one = ip_is_set(&port->host_ip) && !ip_is_unspecified(&port->host_ip);
    char host_ip[IP_TEXT_MAX];
    int r;

    *holder = (struct holder){0};
    r = holder_find_on(store, port, PORT_EVERY_ADDRESS, holder, error);
    if (r < 0 || holder->found)
        return r;
    if (!one)
        return holder_find_anywhere(store, port, holder, error);
    r = holder_find_on(store, port, everywhere[port->host_ip.family == AF_INET6], holder, error);
    if (r < 0 || holder->found)
        return r;
    return holder_find_on(store, port, ip_format(&port->host_ip, host_ip), holder, error);
}

int store_port_overlap(struct store *store, const struct port *port,
                       char ret_guest[NAME_MAX_LENGTH + 1], struct port *ret_port, bool *ret_found,
                       struct error *error)
{
    struct holder holder;
    int r = holder_find(store, port, &holder, error);

    if (r < 0)
        return r;
    *ret_found = holder.found;
    if (holder.found) {
        memcpy(ret_guest, holder.guest, sizeof(holder.guest));
        *ret_port = holder.port;
    }
    return 0;
}

static int port_refuse_overlap(struct store *store, const struct port *port, struct error *error)
{
    char wanted[PORT_TEXT_MAX];
    char held[PORT_TEXT_MAX];
    struct holder holder;
    int r = holder_find(store, port, &holder, error);

    if (r < 0 || !holder.found)
        return r;
    return error_set_reason(error, REASON_PORT_IN_USE,
                            "port %s can't be published: guest %s has published %s; choose another "
                            "host port or remove that one",
                            port_format(port, wanted), holder.guest,
                            port_format(&holder.port, held));
}

int store_port_insert(struct store *store, struct port *port, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "INSERT INTO port (guest_id, protocol, host_ip, first_port, last_port, guest_port)"
               " VALUES (?, ?, ?, ?, ?, ?)");
    enum query_conflict conflict;
    char host_ip[IP_TEXT_MAX];
    int r;

    if (!port_is_storable(port))
        return error_set(error, EINVAL, "a port that was not chosen can't be stored");
    r = port_refuse_overlap(store, port, error);
    if (r < 0)
        return r;
    query_bind_int(&query, port->guest_id);
    query_bind_int(&query, port->protocol);
    query_bind_text(&query, ip_format(&port->host_ip, host_ip));
    query_bind_int(&query, port->host_port);
    query_bind_int(&query, port_last(port));
    query_bind_int(&query, port->guest_port);
    r = query_run_checked(&query, &conflict, error);
    if (r < 0)
        return r;
    if (conflict != CONFLICT_NONE)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such guest");
    port->id = sqlite3_last_insert_rowid(store->db);
    return 0;
}

int store_port_delete(struct store *store, int64_t port_id, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, "DELETE FROM port WHERE id = ?");

    query_bind_int(&query, port_id);
    int r = query_run(&query, error);
    if (r == 0 && sqlite3_changes(store->db) == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such port");
    return r;
}
