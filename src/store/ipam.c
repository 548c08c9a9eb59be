/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses are given at constant cost, whatever the size and the fill of a network.
 *
 * A network has a pool per family: the addresses of its range, without the network's own, the
 * broadcast and the gateway address. An address of the pool is in one of three states:
 *
 *     never given ──take──▶ used ──release──▶ resting ──take──▶ used
 *
 * Used and resting ones have a row in `address`; a resting row has `freed`, its place in the queue.
 * The pool's cursor `next` stands at the first address that may never have been given: all of the
 * pool before it have rows, and it never goes back. An address that a caller asked for by name may
 * have a row ahead of the cursor, which steps over it later, once. So a take costs a few index
 * look-ups, in the order
 *
 *     1. what this guest (by name) had last, if it rests
 *     2. the next never given, so that freed ones rest as long as there are others
 *     3. the one that has rested longest
 *
 * and only when all addresses are used, which the counter tells, there is none. Rows of addresses
 * of large pools (a /8, any IPv6 network) would pile up; from RESTING_MAX on, 3 comes before 2.
 *
 * Addresses of the subnet outside the range are not of the pool: they are given by name only, and
 * their row goes with them. */
#include "store/query.h"

#include <errno.h>
#include <string.h>

#define RESTING_MAX 65536

struct pool {
    struct ip first; /* of the range, without the subnet's reserved ones; after last: empty */
    struct ip last;
    struct ip gateway;
    struct cidr subnet;
    struct cidr range; /* for texts */
    uint64_t total;    /* assignable addresses; UINT64_MAX when there are more */
};

/* A pool's row. */
struct cursor {
    struct ip next; /* absent: all were given */
    uint64_t used;
    uint64_t resting;
};

/* last - first + 1, saturating. */
static uint64_t range_size(const struct ip *first, const struct ip *last)
{
    size_t size = ip_bits(first->family) / 8;
    uint64_t difference = 0;
    int borrow = 0;

    if (ip_compare(first, last) > 0)
        return 0;
    for (size_t done = 0; done < size; done++) {
        int digit = last->bytes[size - 1 - done] - first->bytes[size - 1 - done] - borrow;

        borrow = digit < 0;
        if (done < sizeof(difference))
            difference |= (uint64_t)(digit & 0xff) << (8 * done);
        else if ((digit & 0xff) != 0)
            return UINT64_MAX;
    }
    return difference == UINT64_MAX ? difference : difference + 1;
}

static bool is_between(const struct ip *ip, const struct ip *first, const struct ip *last)
{
    return ip_compare(ip, first) >= 0 && ip_compare(ip, last) <= 0;
}

/* Is it one of the subnet's two addresses that no host may have? IPv6 has no broadcast; its first
 * address is the routers' anycast address (RFC 4291, 2.6.1). */
static bool is_reserved(const struct cidr *subnet, const struct ip *ip)
{
    struct ip first = cidr_first(subnet);
    struct ip last = cidr_last(subnet);

    return ip_equal(ip, &first) || (ip->family == AF_INET && ip_equal(ip, &last));
}

static void pool_init(struct pool *pool, const struct network *network, uint8_t family)
{
    *pool = (struct pool){
        .subnet = family == AF_INET6 ? network->subnet6 : network->subnet,
        .gateway = family == AF_INET6 ? network->gateway6 : network->gateway,
    };
    if (!cidr_is_set(&pool->subnet))
        return;
    pool->range = network->ip_range.ip.family == family ? network->ip_range : pool->subnet;
    pool->first = cidr_first(&pool->range);
    pool->last = cidr_last(&pool->range);
    if (is_reserved(&pool->subnet, &pool->first))
        pool->first = ip_add(&pool->first, 1);
    if (is_reserved(&pool->subnet, &pool->last))
        pool->last = ip_add(&pool->last, -1);
    pool->total = range_size(&pool->first, &pool->last);
    if (pool->total != UINT64_MAX && is_between(&pool->gateway, &pool->first, &pool->last))
        pool->total--;
}

static bool pool_contains(const struct pool *pool, const struct ip *ip)
{
    return is_between(ip, &pool->first, &pool->last) && !ip_equal(ip, &pool->gateway);
}

/* --- rows --- */

static int pool_insert(struct store *store, const struct network *network, uint8_t family,
                       struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "INSERT INTO pool (network_id, family, next) VALUES (?, ?, ?)");
    const struct ip absent = {0};
    struct pool pool;

    pool_init(&pool, network, family);
    if (!cidr_is_set(&pool.subnet))
        return 0;
    query_bind_int(&query, network->id);
    query_bind_int(&query, family);
    query_bind_ip(&query, pool.total > 0 ? &pool.first : &absent);
    return query_run(&query, error);
}

int store_pool_insert(struct store *store, const struct network *network, struct error *error)
{
    int r = pool_insert(store, network, AF_INET, error);

    return r < 0 ? r : pool_insert(store, network, AF_INET6, error);
}

static int pool_delete(struct store *store, int64_t network_id, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "DELETE FROM pool WHERE network_id = ? AND family = ?");

    query_bind_int(&query, network_id);
    query_bind_int(&query, AF_INET);
    return query_run(&query, error);
}

static int addresses_delete(struct store *store, int64_t network_id, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "DELETE FROM address WHERE network_id = ? AND family = ?");

    query_bind_int(&query, network_id);
    query_bind_int(&query, AF_INET);
    return query_run(&query, error);
}

int store_pool_replace(struct store *store, const struct network *network, struct error *error)
{
    int r = addresses_delete(store, network->id, error);

    if (r == 0)
        r = pool_delete(store, network->id, error);
    return r < 0 ? r : pool_insert(store, network, AF_INET, error);
}

static int cursor_get(struct store *store, int64_t network_id, uint8_t family,
                      struct cursor *ret_cursor, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "SELECT next, used, resting FROM pool WHERE network_id = ? AND family = ?");
    struct cursor cursor = {0};
    bool row;

    query_bind_int(&query, network_id);
    query_bind_int(&query, family);
    int r = query_next(&query, &row, error);
    if (r < 0)
        return r;
    if (!row)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no such network");
    cursor.next = query_ip(&query);
    cursor.used = (uint64_t)query_int(&query);
    cursor.resting = (uint64_t)query_int(&query);
    r = query_check(&query, error);
    if (r == 0)
        *ret_cursor = cursor;
    return r;
}

static int cursor_set(struct store *store, int64_t network_id, uint8_t family,
                      const struct cursor *cursor, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "UPDATE pool SET next = ?, used = ?, resting = ?"
                           " WHERE network_id = ? AND family = ?");

    query_bind_ip(&query, &cursor->next);
    query_bind_int(&query, (int64_t)cursor->used);
    query_bind_int(&query, (int64_t)cursor->resting);
    query_bind_int(&query, network_id);
    query_bind_int(&query, family);
    return query_run(&query, error);
}

/* Gives an address a row. *ret_inserted false: it has one. */
static int address_insert(struct store *store, int64_t network_id, const struct ip *ip, bool pooled,
                          const char *guest_name, bool *ret_inserted, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "INSERT INTO address (network_id, ip, family, pooled, guest)"
                           " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING");

    query_bind_int(&query, network_id);
    query_bind_ip(&query, ip);
    query_bind_int(&query, ip->family);
    query_bind_int(&query, pooled);
    query_bind_text(&query, guest_name);
    int r = query_run(&query, error);
    if (r == 0)
        *ret_inserted = sqlite3_changes(store->db) > 0;
    return r;
}

/* Ends the rest of an address. */
static int address_wake(struct store *store, int64_t network_id, const struct ip *ip,
                        const char *guest_name, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "UPDATE address SET guest = ?, freed = NULL WHERE network_id = ? AND ip = ?");

    query_bind_text(&query, guest_name);
    query_bind_int(&query, network_id);
    query_bind_ip(&query, ip);
    return query_run(&query, error);
}

/* The address of a row, absent if there is none. */
static int address_read(struct query *query, struct ip *ret_ip, struct error *error)
{
    struct ip ip = {0};
    bool row;
    int r = query_next(query, &row, error);

    if (r < 0)
        return r;
    if (row)
        ip = query_ip(query);
    r = query_check(query, error);
    if (r == 0)
        *ret_ip = ip;
    return r;
}

/* The resting address that the guest had last, absent if there is none. */
static int address_find_last(struct store *store, int64_t network_id, uint8_t family,
                             const char *guest_name, struct ip *ret_ip, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "SELECT ip FROM address WHERE network_id = ? AND family = ? AND guest = ?"
               " AND freed IS NOT NULL ORDER BY freed DESC LIMIT 1");

    query_bind_int(&query, network_id);
    query_bind_int(&query, family);
    query_bind_text(&query, guest_name);
    return address_read(&query, ret_ip, error);
}

/* The address that has rested longest, absent if none rests. */
static int address_find_oldest(struct store *store, int64_t network_id, uint8_t family,
                               struct ip *ret_ip, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT ip FROM address WHERE network_id = ? AND family = ?"
                           " AND freed IS NOT NULL ORDER BY freed LIMIT 1");

    query_bind_int(&query, network_id);
    query_bind_int(&query, family);
    return address_read(&query, ret_ip, error);
}

/* --- taking --- */

/* Moves the cursor to an address without a row and gives it one; absent when it comes to the end.
 */
static int take_next(struct store *store, int64_t network_id, const struct pool *pool,
                     struct cursor *cursor, const char *guest_name, struct ip *ret_ip,
                     struct error *error)
{
    *ret_ip = (struct ip){0};
    while (ip_is_set(&cursor->next) && !ip_is_set(ret_ip)) {
        struct ip candidate = cursor->next;
        bool inserted = false;

        if (pool_contains(pool, &candidate)) {
            int r =
                address_insert(store, network_id, &candidate, true, guest_name, &inserted, error);

            if (r < 0)
                return r;
        }
        if (inserted)
            *ret_ip = candidate;
        if (ip_equal(&candidate, &pool->last))
            cursor->next = (struct ip){0};
        else
            cursor->next = ip_add(&candidate, 1);
    }
    return 0;
}

static int take_resting(struct store *store, int64_t network_id, struct cursor *cursor,
                        const struct ip *ip, const char *guest_name, struct error *error)
{
    cursor->resting--;
    return address_wake(store, network_id, ip, guest_name, error);
}

static int take_oldest(struct store *store, int64_t network_id, uint8_t family,
                       struct cursor *cursor, const char *guest_name, struct ip *ret_ip,
                       struct error *error)
{
    int r = address_find_oldest(store, network_id, family, ret_ip, error);

    if (r < 0 || !ip_is_set(ret_ip))
        return r;
    return take_resting(store, network_id, cursor, ret_ip, guest_name, error);
}

/* Takes an address by the order at the top. There is one: not all are used. */
static int take_any(struct store *store, int64_t network_id, const struct pool *pool,
                    struct cursor *cursor, const char *guest_name, struct ip *ret_ip,
                    struct error *error)
{
    uint8_t family = pool->first.family;
    int r;

    r = address_find_last(store, network_id, family, guest_name, ret_ip, error);
    if (r < 0)
        return r;
    if (ip_is_set(ret_ip))
        return take_resting(store, network_id, cursor, ret_ip, guest_name, error);
    if (cursor->resting < RESTING_MAX) {
        r = take_next(store, network_id, pool, cursor, guest_name, ret_ip, error);
        if (r < 0 || ip_is_set(ret_ip))
            return r;
    }
    r = take_oldest(store, network_id, family, cursor, guest_name, ret_ip, error);
    if (r == 0 && !ip_is_set(ret_ip))
        return error_set(error, EBADMSG, "the state database is damaged: counts of addresses");
    return r;
}

static int pool_take(struct store *store, const struct network *network, const struct pool *pool,
                     const char *guest_name, struct ip *ret_ip, struct error *error)
{
    uint8_t family = pool->subnet.ip.family;
    char range[CIDR_TEXT_MAX];
    struct cursor cursor;
    struct ip ip = {0};
    int r;

    r = cursor_get(store, network->id, family, &cursor, error);
    if (r < 0)
        return r;
    if (cursor.used >= pool->total)
        return error_set_reason(
            error, REASON_NO_FREE_ADDRESS,
            "network %s: no free address: %llu of %llu addresses of %s are used; "
            "detach guests, or make a network with a larger subnet",
            network->name, (unsigned long long)cursor.used, (unsigned long long)pool->total,
            cidr_format(&pool->range, range));
    r = take_any(store, network->id, pool, &cursor, guest_name, &ip, error);
    if (r < 0)
        return r;
    cursor.used++;
    r = cursor_set(store, network->id, family, &cursor, error);
    if (r == 0)
        *ret_ip = ip;
    return r;
}

/* --- taking by name --- */

/* Who has, or had last, an address with a row. */
struct holder {
    char guest[NAME_MAX_LENGTH + 1];
    bool resting;
};

static int holder_find(struct store *store, int64_t network_id, const struct ip *ip,
                       struct holder *ret_holder, bool *ret_found, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "SELECT guest, freed IS NOT NULL FROM address WHERE network_id = ? AND ip = ?");
    struct holder holder = {0};
    bool row;

    query_bind_int(&query, network_id);
    query_bind_ip(&query, ip);
    int r = query_next(&query, &row, error);
    if (r < 0)
        return r;
    if (row) {
        query_text(&query, holder.guest, sizeof(holder.guest));
        holder.resting = query_bool(&query);
    }
    r = query_check(&query, error);
    if (r == 0) {
        *ret_holder = holder;
        *ret_found = row;
    }
    return r;
}

/* May the address be given to a guest of this network at all? */
static int want_check(const struct network *network, const struct pool *pool, const struct ip *want,
                      struct error *error)
{
    char text[IP_TEXT_MAX];
    char subnet[CIDR_TEXT_MAX];

    ip_format(want, text);
    if (!cidr_contains_ip(&pool->subnet, want))
        return error_set_reason(error, REASON_ADDRESS_OUTSIDE,
                                "%s is not in the subnet %s of network %s; choose an address of it",
                                text, cidr_format(&pool->subnet, subnet), network->name);
    if (is_reserved(&pool->subnet, want))
        return error_set_reason(
            error, REASON_ADDRESS_OUTSIDE,
            "%s is the subnet's first or last address, which no guest can have; "
            "choose another one of %s",
            text, cidr_format(&pool->subnet, subnet));
    if (ip_equal(want, &pool->gateway))
        return error_set_reason(error, REASON_ADDRESS_IN_USE,
                                "%s is the gateway of network %s; choose another address", text,
                                network->name);
    return 0;
}

/* Counts an address of the pool as used. */
static int want_count(struct store *store, const struct network *network, uint8_t family,
                      bool was_resting, struct error *error)
{
    struct cursor cursor;
    int r = cursor_get(store, network->id, family, &cursor, error);

    if (r < 0)
        return r;
    cursor.used++;
    cursor.resting -= was_resting;
    return cursor_set(store, network->id, family, &cursor, error);
}

static int want_take(struct store *store, const struct network *network, const struct pool *pool,
                     const struct ip *want, const char *guest_name, struct error *error)
{
    bool pooled = pool_contains(pool, want);
    struct holder holder = {0};
    char text[IP_TEXT_MAX];
    bool found;
    bool inserted;
    int r;

    r = want_check(network, pool, want, error);
    if (r < 0)
        return r;
    r = holder_find(store, network->id, want, &holder, &found, error);
    if (r < 0)
        return r;
    if (found && !holder.resting)
        return error_set_reason(error, REASON_ADDRESS_IN_USE,
                                "%s is used by guest %s on network %s; choose another address",
                                ip_format(want, text), holder.guest, network->name);
    if (found)
        r = address_wake(store, network->id, want, guest_name, error);
    else
        r = address_insert(store, network->id, want, pooled, guest_name, &inserted, error);
    if (r < 0 || !pooled)
        return r;
    return want_count(store, network, want->family, found, error);
}

/* --- the public face --- */

int store_address_take(struct store *store, const struct network *network, uint8_t family,
                       const struct ip *want, const char *guest_name, struct ip *ret_ip,
                       struct error *error)
{
    struct pool pool;
    int r;

    r = store_require_transaction(store, error);
    if (r < 0)
        return r;
    pool_init(&pool, network, family);
    if (!cidr_is_set(&pool.subnet))
        return error_set_reason(error, REASON_ADDRESS_OUTSIDE, "network %s has no IPv%d subnet",
                                network->name, family == AF_INET6 ? 6 : 4);
    if (!want || !ip_is_set(want))
        return pool_take(store, network, &pool, guest_name, ret_ip, error);
    r = want_take(store, network, &pool, want, guest_name, error);
    if (r == 0)
        *ret_ip = *want;
    return r;
}

/* Is the address used by the guest, and is it of the pool? */
static int used_find(struct store *store, int64_t network_id, const struct ip *ip,
                     const char *guest_name, bool *ret_used, bool *ret_pooled, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT pooled FROM address"
                           " WHERE network_id = ? AND ip = ? AND guest = ? AND freed IS NULL");

    query_bind_int(&query, network_id);
    query_bind_ip(&query, ip);
    query_bind_text(&query, guest_name);
    int r = query_next(&query, ret_used, error);
    if (r == 0)
        *ret_pooled = *ret_used && query_bool(&query);
    return r;
}

static int address_delete(struct store *store, int64_t network_id, const struct ip *ip,
                          struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "DELETE FROM address WHERE network_id = ? AND ip = ?");

    query_bind_int(&query, network_id);
    query_bind_ip(&query, ip);
    return query_run(&query, error);
}

/* Counts an address as resting, and gives it the last place in the queue. */
static int pool_rest(struct store *store, int64_t network_id, uint8_t family, int64_t *ret_place,
                     struct error *error)
{
    _cleanup_query_ struct query query = query_begin(
        store, "UPDATE pool SET used = used - 1, resting = resting + 1, freed = freed + 1"
               " WHERE network_id = ? AND family = ? RETURNING freed");
    bool row;

    query_bind_int(&query, network_id);
    query_bind_int(&query, family);
    int r = query_next(&query, &row, error);
    if (r < 0)
        return r;
    if (!row)
        return error_set(error, EBADMSG, "the state database is damaged: a network without a pool");
    *ret_place = query_int(&query);
    return 0;
}

static int address_rest(struct store *store, int64_t network_id, const struct ip *ip, int64_t place,
                        struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "UPDATE address SET freed = ? WHERE network_id = ? AND ip = ?");

    query_bind_int(&query, place);
    query_bind_int(&query, network_id);
    query_bind_ip(&query, ip);
    return query_run(&query, error);
}

int store_pool_release(struct store *store, int64_t network_id, const struct ip *ip,
                       const char *guest_name, struct error *error)
{
    int64_t place = 0;
    bool used = false;
    bool pooled = false;
    int r;

    r = used_find(store, network_id, ip, guest_name, &used, &pooled, error);
    if (r < 0 || !used)
        return r;
    if (!pooled)
        return address_delete(store, network_id, ip, error);
    r = pool_rest(store, network_id, ip->family, &place, error);
    if (r < 0)
        return r;
    return address_rest(store, network_id, ip, place, error);
}

int store_address_release(struct store *store, const struct network *network, const struct ip *ip,
                          const char *guest_name, struct error *error)
{
    int r = store_require_transaction(store, error);

    if (r < 0)
        return r;
    return store_pool_release(store, network->id, ip, guest_name, error);
}

int store_address_find(struct store *store, int64_t network_id, const struct ip *ip,
                       char ret_guest[NAME_MAX_LENGTH + 1], bool *ret_found, struct error *error)
{
    struct holder holder;
    bool found;
    int r = holder_find(store, network_id, ip, &holder, &found, error);

    if (r < 0)
        return r;
    *ret_found = found && !holder.resting;
    if (*ret_found)
        memcpy(ret_guest, holder.guest, sizeof(holder.guest));
    return 0;
}

int store_address_count(struct store *store, const struct network *network, uint64_t *ret_used,
                        uint64_t *ret_total, struct error *error)
{
    struct cursor cursor = {0};
    struct pool pool;

    pool_init(&pool, network, AF_INET);
    if (cidr_is_set(&pool.subnet)) {
        int r = cursor_get(store, network->id, AF_INET, &cursor, error);

        if (r < 0)
            return r;
    }
    *ret_used = cursor.used;
    *ret_total = pool.total;
    return 0;
}
