/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store_fixture.h"

#include "base/record.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char *path_of(const struct fixture *f, const char *name)
{
    static char path[PATH_MAX + 32];

    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    return path;
}

/* Runs SQL on the closed database, as another program would. */
static void run_sql(const struct fixture *f, const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path_of(f, "moat.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int64_t query_number(struct fixture *f, const char *sql)
{
    sqlite3_stmt *statement;

    assert_int_equal(sqlite3_prepare_v2(f->store->db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return number;
}

static void the_files_are_private(void **state)
{
    static const char *const names[] = {"moat.db", "moat.db-wal", "moat.db-shm"};
    struct fixture *f = *state;
    struct stat status;

    ok(f, store_setting_set(f->store, "a", "b", &f->error));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        assert_int_equal(stat(path_of(f, names[i]), &status), 0);
        assert_int_equal(status.st_mode & 07777, 0600);
    }
    store_close(f->store);
    f->store = NULL;
    chmod(path_of(f, "moat.db"), 0644);
    ok(f, store_open(f->dir, &f->store, &f->error));
    assert_int_equal(stat(path_of(f, "moat.db"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void commits_are_durable_and_parents_are_checked(void **state)
{
    struct fixture *f = *state;

    uint64_t before = store_committed(f->store);

    ok(f, store_setting_set(f->store, "a", "b", &f->error));
    assert_true(store_committed(f->store) > before);
    store_wait_durable(f->store);
    assert_true(store_is_durable(f->store, store_committed(f->store)));
    assert_int_equal(store_disk_error(f->store), 0);
    assert_int_equal(query_number(f, "PRAGMA synchronous"), 1);
    assert_int_equal(query_number(f, "PRAGMA foreign_keys"), 1);
    assert_int_equal(query_number(f, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
}

static void a_missing_directory_is_refused(void **state)
{
    struct fixture *f = *state;
    struct store *store = NULL;

    assert_int_equal(store_open(path_of(f, "no/such"), &store, &f->error), -ENOENT);
    assert_null(store);
    assert_non_null(strstr(f->error.text, "no/such/moat.db"));
}

static void what_is_not_a_database_is_refused(void **state)
{
    struct fixture *f = *state;

    store_close(f->store);
    f->store = NULL;
    fixture_remove_files(f);
    int fd = open(path_of(f, "moat.db"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (int i = 0; i < 200; i++)
        assert_int_equal(write(fd, "This is not a database.\n", 24), 24);
    close(fd);
    assert_true(store_open(f->dir, &f->store, &f->error) < 0);
    assert_null(f->store);
    assert_non_null(strstr(f->error.text, "not a database"));

    fixture_remove_files(f);
    assert_int_equal(symlink("/dev/null", path_of(f, "moat.db")), 0);
    assert_true(store_open(f->dir, &f->store, &f->error) < 0);
}

static void another_programs_database_is_refused(void **state)
{
    struct fixture *f = *state;

    store_close(f->store);
    f->store = NULL;
    fixture_remove_files(f);
    run_sql(f, "CREATE TABLE t (a)");
    assert_true(store_open(f->dir, &f->store, &f->error) < 0);
    assert_non_null(strstr(f->error.text, "another program's database"));
    run_sql(f, "DROP TABLE t; PRAGMA application_id = 7");
    assert_true(store_open(f->dir, &f->store, &f->error) < 0);
    assert_non_null(strstr(f->error.text, "another program's database"));
}

static void a_newer_version_is_refused_and_untouched(void **state)
{
    struct fixture *f = *state;

    ok(f, store_setting_set(f->store, "key", "value", &f->error));
    int64_t version = query_number(f, "PRAGMA user_version");
    assert_true(version >= 1);
    store_close(f->store);
    f->store = NULL;
    run_sql(f, "PRAGMA user_version = 1000");
    assert_int_equal(store_open(f->dir, &f->store, &f->error), -EPROTO);
    assert_null(f->store);
    assert_non_null(strstr(f->error.text, "version 1000"));
    assert_non_null(strstr(f->error.text, "moat.db"));

    char sql[64];
    snprintf(sql, sizeof(sql), "PRAGMA user_version = %lld", (long long)version);
    run_sql(f, sql);
    ok(f, store_open(f->dir, &f->store, &f->error));
    _cleanup_free_ char *value = NULL;
    ok(f, store_setting_get(f->store, "key", &value, &f->error));
    assert_string_equal(value, "value");
}

static void opening_again_migrates_nothing(void **state)
{
    struct fixture *f = *state;
    int64_t before = query_number(f, "PRAGMA schema_version");

    fixture_reopen(f);
    assert_int_equal(query_number(f, "PRAGMA schema_version"), before);
}

/* Takes the database back from the version of today. */
#define BACK_TO_VERSION_2                       \
    "DROP TABLE passage;"                       \
    "DELETE FROM tally WHERE what = 'passage';" \
    "ALTER TABLE guest DROP COLUMN silent;"     \
    "ALTER TABLE guest DROP COLUMN dns_inject;" \
    "ALTER TABLE guest DROP COLUMN rate_up;"    \
    "ALTER TABLE guest DROP COLUMN rate_down;"  \
    "ALTER TABLE guest DROP COLUMN max_conns;"  \
    "ALTER TABLE guest DROP COLUMN conn_rate;"  \
    "ALTER TABLE guest DROP COLUMN netns_handle;"

/* Version 1 had addresses only. */
static void records_of_version_1_are_kept(void **state)
{
    static const char former[] = BACK_TO_VERSION_2
        "DROP TABLE record;"
        "CREATE TABLE record (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        "  network_id INTEGER REFERENCES network ON DELETE CASCADE,"
        "  name TEXT NOT NULL COLLATE NOCASE, ip TEXT NOT NULL) STRICT;"
        "CREATE TRIGGER record_added AFTER INSERT ON record BEGIN"
        "  UPDATE tally SET count = count + 1 WHERE what = 'record'; END;"
        "CREATE TRIGGER record_removed AFTER DELETE ON record BEGIN"
        "  UPDATE tally SET count = count - 1 WHERE what = 'record'; END;"
        "INSERT INTO record VALUES (7, NULL, 'printer', '10.1.1.1'), (9, NULL, 'six', 'fd00::9');"
        "PRAGMA user_version = 1";
    struct fixture *f = *state;
    struct dns_record *records;
    uint64_t counted;
    size_t count;

    assert_int_equal(sqlite3_exec(f->store->db, former, NULL, NULL, NULL), SQLITE_OK);
    fixture_reopen(f);
    ok(f, store_record_list(f->store, &records, &count, &f->error));
    assert_int_equal(count, 2);
    assert_int_equal(records[0].id, 7);
    assert_string_equal(records[0].name, "printer");
    assert_int_equal(records[0].type, RECORD_A);
    assert_string_equal(records[0].value, "10.1.1.1");
    assert_int_equal(records[1].type, RECORD_AAAA);
    assert_string_equal(records[1].value, "fd00::9");
    ok(f, store_record_delete_by_id(f->store, 7, &f->error));
    ok(f, store_record_count(f->store, &counted, &f->error));
    assert_int_equal(counted, 1);
    dns_records_free(records, count);
}

/* Version 2 had no passages, and refused every guest aloud. */
static void guests_of_version_2_are_kept(void **state)
{
    struct fixture *f = *state;
    struct network network = network_stored(f, "net", "10.1.0.0/24", "");
    int64_t guest_id = guest_stored(f, "web", &network, "10.1.0.2");
    struct guest guest = {0};
    uint64_t passages = 9;

    assert_int_equal(
        sqlite3_exec(f->store->db, BACK_TO_VERSION_2 "PRAGMA user_version = 2", NULL, NULL, NULL),
        SQLITE_OK);
    fixture_reopen(f);
    ok(f, store_guest_get(f->store, guest_id, &guest, &f->error));
    assert_string_equal(guest.name, "web");
    assert_false(guest.policy.silent);
    ok(f, store_passage_count(f->store, &passages, &f->error));
    assert_int_equal(passages, 0);
    guest_deinit(&guest);
}

static void assert_setting(struct fixture *f, const char *key, const char *expected)
{
    _cleanup_free_ char *value = NULL;

    ok(f, store_setting_get(f->store, key, &value, &f->error));
    if (!expected)
        assert_null(value);
    else
        assert_string_equal(value, expected);
}

static void settings_are_set_replaced_and_deleted(void **state)
{
    struct fixture *f = *state;

    assert_setting(f, "a", NULL);
    ok(f, store_setting_set(f->store, "a", "1", &f->error));
    ok(f, store_setting_set(f->store, "a", "two\nlines", &f->error));
    ok(f, store_setting_set(f->store, "b", "", &f->error));
    assert_setting(f, "a", "two\nlines");
    assert_setting(f, "b", "");
    fixture_reopen(f);
    assert_setting(f, "a", "two\nlines");
    ok(f, store_setting_set(f->store, "a", NULL, &f->error));
    ok(f, store_setting_set(f->store, "a", NULL, &f->error));
    assert_setting(f, "a", NULL);
    assert_setting(f, "b", "");
}

struct each {
    struct fixture *fixture;
    char text[256];
};

static void append_setting(void *userdata, const char *key, const char *value)
{
    struct each *each = userdata;
    size_t length = strlen(each->text);

    snprintf(each->text + length, sizeof(each->text) - length, "%s=%s ", key, value);
    /* The store may be used, and changed, from here. */
    ok(each->fixture, store_setting_set(each->fixture->store, key, NULL, &each->fixture->error));
}

static void settings_are_listed_by_prefix(void **state)
{
    static const char *const keys[] = {"sysctl.b", "sysctl.a", "sysctl",
                                       "sysctl_",  "sysctm",   "sysctl.\xf4\x8f\xbf\xbe",
                                       "%",        "sysctl.",  "SYSCTL.x"};
    struct fixture *f = *state;
    struct each each = {.fixture = f};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        ok(f, store_setting_set(f->store, keys[i], "v", &f->error));
    ok(f, store_setting_each(f->store, "sysctl.", append_setting, &each, &f->error));
    assert_string_equal(each.text, "sysctl.=v sysctl.a=v sysctl.b=v sysctl.\xf4\x8f\xbf\xbe=v ");
    each.text[0] = '\0';
    ok(f, store_setting_each(f->store, "%", append_setting, &each, &f->error));
    assert_string_equal(each.text, "%=v ");
    each.text[0] = '\0';
    ok(f, store_setting_each(f->store, "none", append_setting, &each, &f->error));
    assert_string_equal(each.text, "");
    ok(f, store_setting_each(f->store, "", append_setting, &each, &f->error));
    assert_string_equal(each.text, "SYSCTL.x=v sysctl=v sysctl_=v sysctm=v ");
}

static void a_rollback_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    store_rollback(f->store);
    begin(f);
    ok(f, store_setting_set(f->store, "a", "1", &f->error));
    assert_setting(f, "a", "1");
    store_rollback(f->store);
    store_rollback(f->store);
    assert_setting(f, "a", NULL);

    begin(f);
    ok(f, store_setting_set(f->store, "a", "2", &f->error));
    commit(f);
    store_rollback(f->store);
    assert_setting(f, "a", "2");
}

static void transactions_do_not_nest(void **state)
{
    struct fixture *f = *state;

    begin(f);
    assert_true(store_begin(f->store, &f->error) < 0);
    ok(f, store_setting_set(f->store, "a", "1", &f->error));
    commit(f);
    assert_true(store_commit(f->store, &f->error) < 0);
    assert_setting(f, "a", "1");
}

/* A process that dies in a transaction leaves what was committed before, and only that. */
static void a_crash_keeps_what_was_committed(void **state)
{
    struct fixture *f = *state;
    int status;

    store_close(f->store);
    f->store = NULL;
    pid_t child = fork();
    if (child == 0) {
        if (store_open(f->dir, &f->store, &f->error) < 0 ||
            store_setting_set(f->store, "committed", "1", &f->error) < 0 ||
            store_begin(f->store, &f->error) < 0 ||
            store_setting_set(f->store, "open", "1", &f->error) < 0)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    ok(f, store_open(f->dir, &f->store, &f->error));
    assert_setting(f, "committed", "1");
    assert_setting(f, "open", NULL);
}

static bool file_has(const struct fixture *f, const char *text)
{
    static char content[1 << 20];
    char path[PATH_MAX];
    FILE *file;
    size_t length;

    snprintf(path, sizeof(path), "%s/moat.db", f->dir);
    file = fopen(path, "re");
    assert_non_null(file);
    length = fread(content, 1, sizeof(content), file);
    fclose(file);
    assert_true(length > 0 && length < sizeof(content));
    return memmem(content, length, text, strlen(text));
}

static void a_checkpoint_empties_the_log(void **state)
{
    struct fixture *f = *state;
    int in_log;
    int copied;

    ok(f, store_setting_set(f->store, "a", "only in the log so far", &f->error));
    assert_false(file_has(f, "only in the log so far"));
    store_checkpoint(f->store);
    checkpoint_wait(&f->store->checkpoint);
    assert_true(file_has(f, "only in the log so far"));
    assert_int_equal(
        sqlite3_wal_checkpoint_v2(f->store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &copied),
        SQLITE_OK);
    assert_int_equal(in_log, copied);
    assert_setting(f, "a", "only in the log so far");
}

/* The thread goes on while the store does. */
static void checkpoints_beside_commits(void **state)
{
    struct fixture *f = *state;
    char value[32];

    for (unsigned i = 0; i < 2000; i++) {
        snprintf(value, sizeof(value), "%u", i);
        ok(f, store_setting_set(f->store, "a", value, &f->error));
        if (i % 16 == 0)
            store_checkpoint(f->store);
        assert_setting(f, "a", value);
    }
    store_close(f->store);
    ok(f, store_open(f->dir, &f->store, &f->error));
    assert_setting(f, "a", "1999");
}

static void a_locked_database_is_reported(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    assert_int_equal(sqlite3_open(path_of(f, "moat.db"), &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_busy_timeout(f->store->db, 1);
    assert_int_equal(store_begin(f->store, &f->error), -EBUSY);
    assert_non_null(strstr(f->error.text, "locked"));
    sqlite3_close(other);
    begin(f);
    commit(f);
}

static void a_full_disk_is_reported_and_undone(void **state)
{
    struct fixture *f = *state;
    char *value = malloc(1 << 20);
    char sql[64];

    memset(value, 'x', (1 << 20) - 1);
    value[(1 << 20) - 1] = '\0';
    snprintf(sql, sizeof(sql), "PRAGMA max_page_count = %lld",
             (long long)query_number(f, "PRAGMA page_count") + 8);
    query_number(f, sql);
    begin(f);
    ok(f, store_setting_set(f->store, "small", "1", &f->error));
    assert_int_equal(store_setting_set(f->store, "large", value, &f->error), -ENOSPC);
    assert_non_null(strstr(f->error.text, "full"));
    store_rollback(f->store);
    assert_setting(f, "small", NULL);
    ok(f, store_setting_set(f->store, "small", "2", &f->error));
    assert_setting(f, "small", "2");
    free(value);
}

/* A statement that can't be prepared is an error of the call, every time. */
static void a_missing_table_is_reported(void **state)
{
    struct fixture *f = *state;
    struct dns_record *records;
    size_t count;

    assert_int_equal(sqlite3_exec(f->store->db, "DROP TABLE record", NULL, NULL, NULL), SQLITE_OK);
    for (int i = 0; i < 2; i++) {
        f->error = ERROR_INIT;
        assert_true(store_record_list(f->store, &records, &count, &f->error) < 0);
        assert_non_null(strstr(f->error.text, "no such table"));
    }
}

static void closing_nothing_is_allowed(void **state)
{
    (void)state;
    store_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(the_files_are_private),
        STORE_TEST(commits_are_durable_and_parents_are_checked),
        STORE_TEST(a_missing_directory_is_refused),
        STORE_TEST(what_is_not_a_database_is_refused),
        STORE_TEST(another_programs_database_is_refused),
        STORE_TEST(a_newer_version_is_refused_and_untouched),
        STORE_TEST(opening_again_migrates_nothing),
        STORE_TEST(records_of_version_1_are_kept),
        STORE_TEST(guests_of_version_2_are_kept),
        STORE_TEST(settings_are_set_replaced_and_deleted),
        STORE_TEST(settings_are_listed_by_prefix),
        STORE_TEST(a_rollback_leaves_nothing),
        STORE_TEST(transactions_do_not_nest),
        STORE_TEST(a_crash_keeps_what_was_committed),
        STORE_TEST(a_checkpoint_empties_the_log),
        STORE_TEST(checkpoints_beside_commits),
        STORE_TEST(a_locked_database_is_reported),
        STORE_TEST(a_full_disk_is_reported_and_undone),
        STORE_TEST(a_missing_table_is_reported),
        cmocka_unit_test(closing_nothing_is_allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
