/* SPDX-License-Identifier: GPL-2.0-or-later */
/* In WAL mode a commit appends the changed pages to the log, which a thread makes durable (sync.c);
 * the database file itself is written at a checkpoint, by another one (checkpoint.c): now and then,
 * and when the log has become long. */
#include "store/query.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/yield.h"
#include "store/vfs.h"

#define DATABASE_NAME "moat.db"

/* Another program, such as an administrator's sqlite3, may hold the write lock for a moment. */
#define BUSY_TIMEOUT_MS 1000

/* page_size: a change touches some fifteen pages and the log takes whole ones, so small pages halve
 * the time of a commit; it counts for a new file only. synchronous: see sync.c. cache_size: 16 MiB,
 * more than the state of 10,000 guests. cache_spill: nothing reaches the log before the commit, or
 * what vfs.c has gathered of a transaction that is rolled back would stay there. */
static const char setup[] = "PRAGMA page_size = 512;"
                            "PRAGMA journal_mode = WAL;"
                            "PRAGMA synchronous = NORMAL;"
                            "PRAGMA foreign_keys = ON;"
                            "PRAGMA trusted_schema = OFF;"
                            "PRAGMA temp_store = MEMORY;"
                            "PRAGMA cache_size = -16384;"
                            "PRAGMA cache_spill = OFF;"
                            "PRAGMA journal_size_limit = 16777216;";

#define LOG_PAGES_LONG 16384 /* 8 MiB: then it is time for a checkpoint */
#define LOG_PAGES_MAX 131072 /* 64 MiB: then a commit waits for one that has everything */

/* errno for the result codes that are worth telling apart. */
static int errno_of_result(int result)
{
    switch (result & 0xff) {
    case SQLITE_NOMEM:
        return ENOMEM;
    case SQLITE_FULL:
        return ENOSPC;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return EBUSY;
    case SQLITE_READONLY:
        return EROFS;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return EACCES;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return EBADMSG;
    default:
        return EIO;
    }
}

int store_error(struct store *store, struct error *error)
{
    int errnum = sqlite3_system_errno(store->db);
    int result = sqlite3_extended_errcode(store->db);

    if (errnum == 0 || ((result & 0xff) != SQLITE_IOERR && (result & 0xff) != SQLITE_CANTOPEN))
        errnum = errno_of_result(result);
    return error_set(error, errnum, "the state database: %s", sqlite3_errmsg(store->db));
}

/* Called by SQLite after each commit that wrote something. */
static int committed(void *userdata, sqlite3 *db, const char *schema, int log_pages)
{
    struct store *store = userdata;

    sync_commit(&store->sync);
    (void)db;
    (void)schema;
    if (log_pages < LOG_PAGES_LONG || !store->checkpoint.started)
        return SQLITE_OK;
    checkpoint_want(&store->checkpoint);
    if (log_pages >= LOG_PAGES_MAX)
        checkpoint_wait(&store->checkpoint);
    return SQLITE_OK;
}

/* SQLite would make the file readable by all, and its companions take the file's mode. */
static int database_create(const char *path, struct error *error)
{
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_set(error, errno, "cannot open the state database %s", path);
    if (!S_ISREG(status.st_mode))
        return error_set(error, EINVAL, "the state database %s is not a regular file", path);
    if ((status.st_mode & 07777) != 0600 && fchmod(fd, 0600) < 0)
        return error_set(error, errno, "cannot make the state database %s private", path);
    return 0;
}

/* A connection is used by one thread, and nobody asks SQLite for its statistics: without both it
 * takes no lock at each step and allocation. Only counts before the first database is opened. */
static void library_configure(void)
{
    sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static int database_open(struct store *store, const char *path, struct error *error)
{
    int r = database_create(path, error);

    if (r < 0)
        return r;
    library_configure();
    if (store_vfs_register() < 0)
        return error_set(error, ENOMEM, "SQLite");
    if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, STORE_VFS) !=
        SQLITE_OK)
        return store->db ? store_error(store, error) : error_set(error, ENOMEM, "SQLite");
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    if (sqlite3_exec(store->db, setup, NULL, NULL, NULL) != SQLITE_OK)
        return store_error(store, error);
    sqlite3_wal_hook(store->db, committed, store);
    return store_schema_migrate(store, error);
}

DEFINE_CLEANUP(struct store, store_close)

int store_open(const char *state_dir, struct store **ret_store, struct error *error)
{
    _cleanup_(store_closep) struct store *store = calloc(1, sizeof(*store));
    _cleanup_free_ char *path = NULL;
    _cleanup_free_ char *log_path = NULL;
    int r;

    if (!store || asprintf(&path, "%s/" DATABASE_NAME, state_dir) < 0 ||
        asprintf(&log_path, "%s-wal", path) < 0)
        return error_set(error, ENOMEM, "cannot open the state database in %s", state_dir);
    r = database_open(store, path, error);
    if (r == 0)
        r = sync_start(&store->sync, log_path, error);
    if (r == 0)
        r = checkpoint_start(&store->checkpoint, path, error);
    if (r < 0) {
        error_add_context(error, "%s", path);
        return r;
    }
    *ret_store = TAKE_PTR(store);
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < STATEMENT_SLOTS; i++)
        sqlite3_finalize(store->statements[i].handle);
    checkpoint_stop(&store->checkpoint);
    sync_stop(&store->sync);
    sqlite3_close(store->db);
    free(store);
}

uint64_t store_committed(const struct store *store)
{
    return sync_committed(&store->sync);
}

bool store_is_durable(struct store *store, uint64_t commit)
{
    return sync_is_durable(&store->sync, commit);
}

void store_on_durable(struct store *store, store_durable_fn fn, void *userdata)
{
    sync_on_durable(&store->sync, fn, userdata);
}

void store_wait_durable(struct store *store)
{
    sync_wait(&store->sync);
}

int store_disk_error(const struct store *store)
{
    return -store->sync.errnum;
}

uint64_t store_steps(struct store *store)
{
    uint64_t steps = 0;

    for (size_t i = 0; i < STATEMENT_SLOTS; i++)
        if (store->statements[i].handle)
            steps += (uint64_t)sqlite3_stmt_status(store->statements[i].handle,
                                                   SQLITE_STMTSTATUS_VM_STEP, 0);
    return steps;
}

int store_require_transaction(struct store *store, struct error *error)
{
    if (sqlite3_get_autocommit(store->db))
        return error_set(error, EPROTO, "a change of the state database outside a transaction");
    return 0;
}

/* Nobody else's changes come in the middle of a transaction. */
static void hold_while_open(struct store *store)
{
    bool open = !sqlite3_get_autocommit(store->db);

    if (open && !store->holds)
        yield_hold();
    else if (!open && store->holds)
        yield_release();
    store->holds = open;
}

static int transaction_run(struct store *store, const char *statement, struct error *error)
{
    _cleanup_query_ struct query query = query_begin(store, statement);
    int r = query_run(&query, error);

    hold_while_open(store);
    return r;
}

int store_begin(struct store *store, struct error *error)
{
    return transaction_run(store, "BEGIN IMMEDIATE", error);
}

int store_commit(struct store *store, struct error *error)
{
    return transaction_run(store, "COMMIT", error);
}

void store_rollback(struct store *store)
{
    struct error ignored = ERROR_INIT;

    hold_while_open(store);
    if (sqlite3_get_autocommit(store->db))
        return;
    /* It can only fail where SQLite has rolled back by itself, on an I/O error. */
    transaction_run(store, "ROLLBACK", &ignored);
}

int store_tally(struct store *store, const char *table, uint64_t *ret_count, struct error *error)
{
    _cleanup_query_ struct query query =
        query_begin(store, "SELECT count FROM tally WHERE what = ?");
    bool row;

    query_bind_text(&query, table);
    int r = query_next(&query, &row, error);
    if (r == 0)
        *ret_count = row ? (uint64_t)query_int(&query) : 0;
    return r;
}

void store_checkpoint(struct store *store)
{
    checkpoint_want(&store->checkpoint);
}
