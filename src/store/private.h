/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the store share. Nothing outside this folder includes it, but its tests. */
#pragma once

#include <sqlite3.h>

#include "store/checkpoint.h"
#include "store/store.h"
#include "store/sync.h"

#define STATEMENT_SLOTS 256 /* a power of two; see query.c */

/* A prepared statement that is kept, found by the address of its text. */
struct statement {
    const char *sql;
    sqlite3_stmt *handle;
};

struct store {
    sqlite3 *db;
    struct sync sync;
    struct checkpoint checkpoint;
    struct statement statements[STATEMENT_SLOTS];
    size_t n_statements;
    bool holds; /* a transaction is open: nothing comes in between (base/yield.h) */
};

/* schema.c: brings a database of any older version, or a new one, to this program's version.
 * Refuses a newer one and one that is not moat's. */
int store_schema_migrate(struct store *store, struct error *error);

/* The failure that SQLite reported last, as an internal error. Returns its negative errno. */
int store_error(struct store *store, struct error *error);

/* Steps of SQLite's machine that all kept statements took so far: the measure of the tests that
 * show a cost to be constant. */
uint64_t store_steps(struct store *store);

/* For functions that write more than one row: 0 inside a transaction, an internal error outside. */
int store_require_transaction(struct store *store, struct error *error);

/* store.c: the number of rows that is kept for a table. */
int store_tally(struct store *store, const char *table, uint64_t *ret_count, struct error *error);

/* ipam.c: prepares the cursors that addresses are given from. */
int store_pool_insert(struct store *store, const struct network *network, struct error *error);

/* ipam.c: forgets its IPv4 addresses and begins anew, with the subnet that it has now. */
int store_pool_replace(struct store *store, const struct network *network, struct error *error);

/* ipam.c: store_address_release by the network's id. */
int store_pool_release(struct store *store, int64_t network_id, const struct ip *ip,
                       const char *guest_name, struct error *error);
