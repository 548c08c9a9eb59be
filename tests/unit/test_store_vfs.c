/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store's way to the disk, on top of a VFS that counts writes to the log and can refuse them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "store/vfs.h"

static struct {
    sqlite3_vfs *system;
    sqlite3_vfs vfs;
    sqlite3_io_methods methods;
    const sqlite3_io_methods *log; /* the system's */
    unsigned writes;
    unsigned before; /* so many of the next are good */
    unsigned refuse; /* then so many are refused */
} counting;

static int counting_write(sqlite3_file *file, const void *data, int length, sqlite3_int64 offset)
{
    counting.writes++;
    if (counting.before) {
        counting.before--;
    } else if (counting.refuse) {
        counting.refuse--;
        return SQLITE_FULL;
    }
    return counting.log->xWrite(file, data, length, offset);
}

static int counting_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                         int *ret_flags)
{
    int result = counting.system->xOpen(counting.system, name, file, flags, ret_flags);

    (void)vfs;
    if (result != SQLITE_OK || !(flags & SQLITE_OPEN_WAL))
        return result;
    counting.log = file->pMethods;
    counting.methods = *file->pMethods;
    counting.methods.xWrite = counting_write;
    file->pMethods = &counting.methods;
    return result;
}

/* As the default, which the store's VFS is made on. */
static int counting_register(void **state)
{
    (void)state;
    counting.system = sqlite3_vfs_find(NULL);
    if (!counting.system)
        return -1;
    counting.vfs = *counting.system;
    counting.vfs.zName = "counting";
    counting.vfs.pNext = NULL;
    counting.vfs.xOpen = counting_open;
    return sqlite3_vfs_register(&counting.vfs, 1) == SQLITE_OK && store_vfs_register() == 0 ? 0
                                                                                            : -1;
}

struct fixture {
    char directory[32];
    char path[64];
    sqlite3 *db;
};

static sqlite3 *database_open(const struct fixture *fixture, const char *vfs)
{
    sqlite3 *db = NULL;

    assert_int_equal(
        sqlite3_open_v2(fixture->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs),
        SQLITE_OK);
    return db;
}

static void run(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

static int64_t number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value;

    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static void assert_whole(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;

    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(statement, 0), "ok");
    sqlite3_finalize(statement);
}

static int fixture_start(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/moat-test-vfs-XXXXXX");
    if (!mkdtemp(fixture->directory))
        return -1;
    snprintf(fixture->path, sizeof(fixture->path), "%s/db", fixture->directory);
    fixture->db = database_open(fixture, STORE_VFS);
    run(fixture->db,
        "PRAGMA page_size = 512; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
        "PRAGMA wal_autocheckpoint = 0; PRAGMA cache_spill = OFF;"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, text); CREATE INDEX i ON t (text)");
    counting.writes = 0;
    *state = fixture;
    return 0;
}

static int fixture_stop(void **state)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    struct fixture *fixture = *state;
    char path[80];

    counting.refuse = 0;
    sqlite3_close(fixture->db);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s%s", fixture->path, ends[i]);
        unlink(path);
    }
    rmdir(fixture->directory);
    free(fixture);
    return 0;
}

static void insert(sqlite3 *db, unsigned count, unsigned length)
{
    char sql[256];

    snprintf(sql, sizeof(sql),
             "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u) "
             "INSERT INTO t (text) SELECT hex(randomblob(%u)) FROM n",
             count, length);
    run(db, sql);
}

/* Another connection, and so another program, sees what is in the file: all that was committed. */
static void assert_another_sees(const struct fixture *fixture, int64_t rows)
{
    sqlite3 *other = database_open(fixture, "counting");

    assert_int_equal(number(other, "SELECT count(*) FROM t"), rows);
    assert_whole(other);
    sqlite3_close(other);
}

static void a_transaction_is_one_write(void **state)
{
    struct fixture *fixture = *state;

    for (unsigned i = 1; i <= 20; i++) {
        unsigned before = counting.writes;

        insert(fixture->db, 8, 40); /* pages of the table and of its index */
        assert_int_equal(counting.writes, before + 1);
        assert_another_sees(fixture, 8 * i);
    }
}

static void a_long_transaction_is_few_writes(void **state)
{
    struct fixture *fixture = *state;

    insert(fixture->db, 2000, 100); /* some 500 KiB */
    assert_in_range(counting.writes, 8, 40);
    assert_another_sees(fixture, 2000);
}

/* A cache of a few pages: pages go to the log before the end, are read from there and written anew;
 * what is rolled back to a savepoint is written over. */
static void whatever_spills_is_found_again(void **state)
{
    struct fixture *fixture = *state;
    unsigned writes = counting.writes;
    sqlite3 *db = fixture->db;

    run(db, "PRAGMA cache_spill = ON; PRAGMA cache_size = 10");
    for (unsigned round = 0; round < 5; round++) {
        run(db, "BEGIN");
        insert(db, 300, 60);
        run(db, "UPDATE t SET text = text || 'x' WHERE id % 3 = 0; SAVEPOINT s");
        assert_true(counting.writes > writes);
        writes = counting.writes;
        insert(db, 300, 60);
        run(db, "DELETE FROM t WHERE id % 7 = 0; ROLLBACK TO s; UPDATE t SET text = text || 'y' "
                "WHERE id % 5 = 0; COMMIT");
        assert_another_sees(fixture, 300 * (round + 1));
    }
    assert_whole(db);
    run(db, "BEGIN; DELETE FROM t WHERE id % 2 = 0; ROLLBACK");
    assert_another_sees(fixture, 1500);
}

/* After a checkpoint the log begins anew. */
static void a_log_that_is_used_anew(void **state)
{
    struct fixture *fixture = *state;

    for (unsigned i = 1; i <= 10; i++) {
        insert(fixture->db, 50, 40);
        insert(fixture->db, 1, 40);
        run(fixture->db, "PRAGMA wal_checkpoint(PASSIVE)");
        assert_another_sees(fixture, 51 * i);
    }
    run(fixture->db, "PRAGMA wal_checkpoint(TRUNCATE)");
    insert(fixture->db, 1, 40);
    assert_another_sees(fixture, 511);
}

/* The commit says so, and nothing of it is there. */
static void a_full_disk_fails_the_commit(void **state)
{
    struct fixture *fixture = *state;
    sqlite3 *db = fixture->db;

    insert(db, 10, 40);
    run(db, "BEGIN");
    insert(db, 10, 40);
    counting.refuse = 1;
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_FULL);
    if (!sqlite3_get_autocommit(db))
        run(db, "ROLLBACK");
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 10);
    assert_another_sees(fixture, 10);
    insert(db, 5, 40);
    assert_another_sees(fixture, 15);
    counting.before = 1;
    counting.refuse = 1;
    run(db, "BEGIN");
    insert(db, 2000, 100); /* several writes: the second is refused */
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_FULL);
    assert_int_equal(counting.refuse, 0);
    if (!sqlite3_get_autocommit(db))
        run(db, "ROLLBACK");
    assert_another_sees(fixture, 15);
    insert(db, 5, 40);
    assert_another_sees(fixture, 20);
    assert_whole(db);
}

/* What was rolled back leaves nothing that could be written over what another has committed. */
static void another_writes_in_between(void **state)
{
    struct fixture *fixture = *state;
    sqlite3 *other = database_open(fixture, "counting");

    for (unsigned i = 1; i <= 10; i++) {
        run(fixture->db, "PRAGMA wal_checkpoint(PASSIVE); PRAGMA cache_size = 10; BEGIN");
        insert(fixture->db, 150, 60);
        run(fixture->db, "ROLLBACK");
        insert(other, 50, 60);
        assert_another_sees(fixture, 60 * i - 10);
        insert(fixture->db, 10, 60);
        assert_another_sees(fixture, 60 * i);
    }
    sqlite3_close(other);
}

/* What was committed is found by who opens it after a crash, here by the system's own VFS. */
static void a_crash_loses_nothing_that_was_committed(void **state)
{
    struct fixture *fixture = *state;
    struct fixture copy = *fixture;
    char command[256];
    sqlite3 *db;

    insert(fixture->db, 10, 40);
    run(fixture->db, "PRAGMA cache_spill = ON; PRAGMA cache_size = 10; BEGIN");
    insert(fixture->db, 1000, 40); /* much of it is in the log */
    snprintf(copy.path, sizeof(copy.path), "%s/copy", fixture->directory);
    snprintf(command, sizeof(command), "cp %s %s && cp %s-wal %s-wal", fixture->path, copy.path,
             fixture->path, copy.path);
    assert_int_equal(system(command), 0);
    run(fixture->db, "ROLLBACK");
    db = database_open(&copy, "counting");
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 10);
    assert_whole(db);
    sqlite3_close(db);
    unlink(copy.path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_start, fixture_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_transaction_is_one_write),
        TEST(a_long_transaction_is_few_writes),
        TEST(whatever_spills_is_found_again),
        TEST(a_log_that_is_used_anew),
        TEST(a_full_disk_fails_the_commit),
        TEST(another_writes_in_between),
        TEST(a_crash_loses_nothing_that_was_committed),
    };

    return cmocka_run_group_tests(tests, counting_register, NULL);
}
