/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The schema, as the steps that lead to it: step N, a list of statements, turns version N - 1 into
 * version N in a transaction of its own. A step that was released is never changed.
 *
 * Addresses, prefixes and MACs are text, so that a person can read the database; they are always in
 * the one form that base/address.h formats. Absent is NULL. Lists are encode.h's. */
#include "store/query.h"

#include <errno.h>

/* "moat": tells our databases from those of other programs (PRAGMA application_id). */
#define APPLICATION_ID 0x6d6f6174

static const char *const step_1[] = {
    /* Networks, guests, ports, names
     *
     * `tally` holds the number of rows of the tables that have a limit, and network.n_bridged and
     * .n_routed the number of endpoints, kept by triggers: limits are checked at each change, which
     * must not cost a count of all rows.
     *
     * pool and address are explained in ipam.c, port's index in port.c. endpoint.host_interface is
     * NULL for the name that is made of the id (guest.c). */
    "CREATE TABLE setting ("
    "  key TEXT NOT NULL PRIMARY KEY,"
    "  value TEXT NOT NULL"
    ") STRICT, WITHOUT ROWID",

    "CREATE TABLE tally ("
    "  what TEXT NOT NULL PRIMARY KEY,"
    "  count INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID",
    "INSERT INTO tally VALUES ('network', 0), ('guest', 0), ('port', 0), ('record', 0)",

    "CREATE TABLE network ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  uid TEXT NOT NULL,"
    "  name TEXT NOT NULL UNIQUE,"
    "  bridge TEXT NOT NULL UNIQUE,"
    "  subnet TEXT,"
    "  gateway TEXT,"
    "  ip_range TEXT,"
    "  subnet6 TEXT,"
    "  gateway6 TEXT,"
    "  mac TEXT,"
    "  internal INTEGER NOT NULL,"
    "  isolated INTEGER NOT NULL,"
    "  host_access INTEGER NOT NULL,"
    "  dns INTEGER NOT NULL,"
    "  mtu INTEGER NOT NULL,"
    "  dns_servers TEXT NOT NULL,"
    "  labels TEXT NOT NULL,"
    "  created_s INTEGER NOT NULL,"
    "  n_bridged INTEGER NOT NULL DEFAULT 0,"
    "  n_routed INTEGER NOT NULL DEFAULT 0"
    ") STRICT",

    "CREATE TABLE pool ("
    "  network_id INTEGER NOT NULL REFERENCES network ON DELETE CASCADE,"
    "  family INTEGER NOT NULL,"
    "  next TEXT,"
    "  used INTEGER NOT NULL DEFAULT 0,"
    "  resting INTEGER NOT NULL DEFAULT 0,"
    "  freed INTEGER NOT NULL DEFAULT 0,"
    "  PRIMARY KEY (network_id, family)"
    ") STRICT, WITHOUT ROWID",

    "CREATE TABLE address ("
    "  network_id INTEGER NOT NULL REFERENCES network ON DELETE CASCADE,"
    "  ip TEXT NOT NULL,"
    "  family INTEGER NOT NULL,"
    "  pooled INTEGER NOT NULL,"
    "  guest TEXT NOT NULL,"
    "  freed INTEGER,"
    "  PRIMARY KEY (network_id, ip)"
    ") STRICT, WITHOUT ROWID",
    "CREATE UNIQUE INDEX address_resting ON address (network_id, family, freed)"
    "  WHERE freed IS NOT NULL",
    "CREATE INDEX address_last ON address (network_id, family, guest, freed)"
    "  WHERE freed IS NOT NULL",

    "CREATE TABLE guest ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  uid TEXT NOT NULL,"
    "  name TEXT NOT NULL UNIQUE,"
    "  kind TEXT NOT NULL,"
    "  mode TEXT NOT NULL,"
    "  netns TEXT,"
    "  pid INTEGER NOT NULL,"
    "  pid_start INTEGER NOT NULL,"
    "  netns_dev INTEGER NOT NULL,"
    "  netns_ino INTEGER NOT NULL,"
    "  ephemeral INTEGER NOT NULL,"
    "  owner_pid INTEGER NOT NULL,"
    "  owner_start INTEGER NOT NULL,"
    "  owner_uid INTEGER NOT NULL,"
    "  localhost INTEGER NOT NULL,"
    "  tap_owner INTEGER NOT NULL,"
    "  tap_group INTEGER NOT NULL,"
    "  tap_multi_queue INTEGER NOT NULL,"
    "  tap_vnet_hdr INTEGER NOT NULL,"
    "  allow TEXT NOT NULL,"
    "  deny TEXT NOT NULL,"
    "  log_denied INTEGER NOT NULL,"
    "  hosts TEXT NOT NULL,"
    "  dns TEXT NOT NULL,"
    "  dns_search TEXT NOT NULL,"
    "  labels TEXT NOT NULL,"
    "  created_s INTEGER NOT NULL"
    ") STRICT",

    "CREATE INDEX guest_netns ON guest (netns_ino, netns_dev) WHERE netns_ino <> 0",

    "CREATE TABLE endpoint ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  guest_id INTEGER NOT NULL REFERENCES guest ON DELETE CASCADE,"
    "  network_id INTEGER NOT NULL REFERENCES network,"
    "  position INTEGER NOT NULL,"
    "  interface TEXT NOT NULL,"
    "  host_interface TEXT,"
    "  ip TEXT,"
    "  prefix INTEGER NOT NULL,"
    "  ip6 TEXT,"
    "  prefix6 INTEGER NOT NULL,"
    "  mac TEXT,"
    "  routed INTEGER NOT NULL,"
    "  aliases TEXT NOT NULL,"
    "  UNIQUE (guest_id, position),"
    "  UNIQUE (network_id, guest_id)"
    ") STRICT",
    "CREATE UNIQUE INDEX endpoint_ip ON endpoint (network_id, ip) WHERE ip IS NOT NULL",
    "CREATE UNIQUE INDEX endpoint_ip6 ON endpoint (network_id, ip6) WHERE ip6 IS NOT NULL",
    "CREATE UNIQUE INDEX endpoint_mac ON endpoint (network_id, mac) WHERE mac IS NOT NULL",
    "CREATE UNIQUE INDEX endpoint_host_interface ON endpoint (host_interface)"
    "  WHERE host_interface IS NOT NULL",

    "CREATE TABLE port ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  guest_id INTEGER NOT NULL REFERENCES guest ON DELETE CASCADE,"
    "  protocol INTEGER NOT NULL,"
    "  host_ip TEXT NOT NULL,"
    "  first_port INTEGER NOT NULL,"
    "  last_port INTEGER NOT NULL,"
    "  guest_port INTEGER NOT NULL"
    ") STRICT",
    "CREATE INDEX port_guest ON port (guest_id)",
    "CREATE UNIQUE INDEX port_host ON port (protocol, host_ip, last_port)",

    "CREATE TABLE record ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  network_id INTEGER REFERENCES network ON DELETE CASCADE,"
    "  name TEXT NOT NULL COLLATE NOCASE,"
    "  ip TEXT NOT NULL"
    ") STRICT",
    "CREATE UNIQUE INDEX record_name ON record (coalesce(network_id, 0), name, ip)",
    "CREATE INDEX record_network ON record (network_id)",

    "CREATE TRIGGER network_added AFTER INSERT ON network BEGIN"
    "  UPDATE tally SET count = count + 1 WHERE what = 'network'; END;",
    "CREATE TRIGGER network_removed AFTER DELETE ON network BEGIN"
    "  UPDATE tally SET count = count - 1 WHERE what = 'network'; END;",
    "CREATE TRIGGER guest_added AFTER INSERT ON guest BEGIN"
    "  UPDATE tally SET count = count + 1 WHERE what = 'guest'; END;",
    "CREATE TRIGGER guest_removed AFTER DELETE ON guest BEGIN"
    "  UPDATE tally SET count = count - 1 WHERE what = 'guest'; END;",
    "CREATE TRIGGER port_added AFTER INSERT ON port BEGIN"
    "  UPDATE tally SET count = count + 1 WHERE what = 'port'; END;",
    "CREATE TRIGGER port_removed AFTER DELETE ON port BEGIN"
    "  UPDATE tally SET count = count - 1 WHERE what = 'port'; END;",
    "CREATE TRIGGER record_added AFTER INSERT ON record BEGIN"
    "  UPDATE tally SET count = count + 1 WHERE what = 'record'; END;",
    "CREATE TRIGGER record_removed AFTER DELETE ON record BEGIN"
    "  UPDATE tally SET count = count - 1 WHERE what = 'record'; END;",
    "CREATE TRIGGER endpoint_added AFTER INSERT ON endpoint BEGIN"
    "  UPDATE network SET n_bridged = n_bridged + (NOT NEW.routed), n_routed = n_routed + "
    "NEW.routed"
    "  WHERE id = NEW.network_id; END;",
    "CREATE TRIGGER endpoint_removed AFTER DELETE ON endpoint BEGIN"
    "  UPDATE network SET n_bridged = n_bridged - (NOT OLD.routed), n_routed = n_routed - "
    "OLD.routed"
    "  WHERE id = OLD.network_id; END;",
    "CREATE TRIGGER endpoint_changed AFTER UPDATE OF routed ON endpoint BEGIN"
    "  UPDATE network SET n_bridged = n_bridged + (NOT NEW.routed) - (NOT OLD.routed),"
    "    n_routed = n_routed + NEW.routed - OLD.routed"
    "  WHERE id = NEW.network_id; END;",
    NULL,
};

/* Static records of several types: record.ip becomes record.type and record.value. */
static const char *const step_2[] = {
    "CREATE TABLE record_2 ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  network_id INTEGER REFERENCES network ON DELETE CASCADE,"
    "  name TEXT NOT NULL COLLATE NOCASE,"
    "  type TEXT NOT NULL,"
    "  value TEXT NOT NULL"
    ") STRICT",
    "INSERT INTO record_2 SELECT id, network_id, name, iif(instr(ip, ':'), 'AAAA', 'A'), ip"
    "  FROM record",
    "DROP TABLE record",
    "ALTER TABLE record_2 RENAME TO record",
    "CREATE UNIQUE INDEX record_name ON record (name, coalesce(network_id, 0), type, value)",
    "CREATE INDEX record_network ON record (network_id)",
    "CREATE TRIGGER record_added AFTER INSERT ON record BEGIN"
    "  UPDATE tally SET count = count + 1 WHERE what = 'record'; END;",
    "CREATE TRIGGER record_removed AFTER DELETE ON record BEGIN"
    "  UPDATE tally SET count = count - 1 WHERE what = 'record'; END;",
    NULL,
};

static const char *const step_3[] = {
    /* Passages between networks (protocol 0: everything); guests that are refused in silence. */
    "CREATE TABLE passage ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  from_id INTEGER NOT NULL REFERENCES network ON DELETE CASCADE,"
    "  to_id INTEGER NOT NULL REFERENCES network ON DELETE CASCADE,"
    "  protocol INTEGER NOT NULL,"
    "  first_port INTEGER NOT NULL,"
    "  last_port INTEGER NOT NULL,"
    "  UNIQUE (from_id, to_id, protocol, first_port)"
    ") STRICT",
    "CREATE INDEX passage_to ON passage (to_id)",
    "INSERT INTO tally VALUES ('passage', 0)",
    "CREATE TRIGGER passage_added AFTER INSERT ON passage BEGIN"
    "  UPDATE tally SET count = count + 1 WHERE what = 'passage'; END;",
    "CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN"
    "  UPDATE tally SET count = count - 1 WHERE what = 'passage'; END;",
    "ALTER TABLE guest ADD COLUMN silent INTEGER NOT NULL DEFAULT 0",
    NULL,
};

static const char *const step_4[] = {
    /* --dns-inject */
    "ALTER TABLE guest ADD COLUMN dns_inject INTEGER NOT NULL DEFAULT 0",
    NULL,
};

/* Limits of guests; 0: none. */
static const char *const step_5[] = {
    "ALTER TABLE guest ADD COLUMN rate_up INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE guest ADD COLUMN rate_down INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE guest ADD COLUMN max_conns INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE guest ADD COLUMN conn_rate INTEGER NOT NULL DEFAULT 0",
    NULL,
};

/* What a guest's namespace is found by when neither path nor process lead there (any more). */
static const char *const step_6[] = {
    "ALTER TABLE guest ADD COLUMN netns_handle TEXT NOT NULL DEFAULT ''",
    NULL,
};

static const char *const *const steps[] = {step_1, step_2, step_3, step_4, step_5, step_6};

#define VERSION ((int64_t)ARRAY_SIZE(steps))

static int exec(struct store *store, const char *sql, struct error *error)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return store_error(store, error);
    return 0;
}

static int pragma_get(struct store *store, const char *sql, int64_t *ret_value, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, sql);
    bool row;
    int r = query_next(&query, &row, error);

    if (r < 0)
        return r;
    *ret_value = row ? query_int(&query) : 0;
    return 0;
}

/* A database is ours when it says so; a new one is empty. */
static int check_application(struct store *store, struct error *error)
{
    int64_t application_id;
    int64_t tables;
    int r;

    r = pragma_get(store, "PRAGMA application_id", &application_id, error);
    if (r < 0 || application_id == APPLICATION_ID)
        return r;
    r = pragma_get(store, "SELECT count(*) FROM sqlite_schema", &tables, error);
    if (r < 0)
        return r;
    if (application_id != 0 || tables != 0)
        return error_set(
            error, EEXIST,
            "this file is another program's database; move it away or use another state "
            "directory");
    return 0;
}

static int migrate_step(struct store *store, int64_t version, struct error *error)
{
    char pragmas[96];
    int r;

    snprintf(pragmas, sizeof(pragmas), "PRAGMA application_id = %d; PRAGMA user_version = %lld",
             APPLICATION_ID, (long long)version + 1);
    r = store_begin(store, error);
    if (r < 0)
        return r;
    for (const char *const *statement = steps[version]; *statement && r == 0; statement++)
        r = exec(store, *statement, error);
    if (r == 0)
        r = exec(store, pragmas, error);
    if (r == 0)
        r = store_commit(store, error);
    if (r < 0) {
        store_rollback(store);
        error_add_context(error, "step from version %lld", (long long)version);
    }
    return r;
}

int store_schema_migrate(struct store *store, struct error *error)
{
    int64_t version;
    int r;

    r = check_application(store, error);
    if (r < 0)
        return r;
    r = pragma_get(store, "PRAGMA user_version", &version, error);
    if (r < 0)
        return r;
    if (version < 0 || version > VERSION)
        return error_set(
            error, EPROTO,
            "it is of version %lld, and this program knows versions up to %lld only; run "
            "the newer moatd that wrote it, or restore a backup",
            (long long)version, (long long)VERSION);
    for (; version < VERSION && r == 0; version++)
        r = migrate_step(store, version, error);
    return r;
}
