/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Promises of the thread behind the store: kept on a file, never kept where the disk fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/sync.h"

static _Atomic unsigned calls;

static void count_call(void *userdata)
{
    assert_ptr_equal(userdata, &calls);
    calls++;
}

static void a_commit_becomes_durable(void **state)
{
    char path[] = "/tmp/moat-test-sync-XXXXXX";
    int fd = mkstemp(path);
    struct sync sync = {0};
    struct error error = ERROR_INIT;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(sync_start(&sync, path, &error), 0);
    sync_on_durable(&sync, count_call, &calls);
    for (uint64_t commit = 1; commit <= 100; commit++) {
        sync_commit(&sync);
        assert_int_equal(sync_committed(&sync), commit);
        sync_wait(&sync);
        assert_true(sync_is_durable(&sync, commit));
        assert_false(sync_is_durable(&sync, commit + 1));
    }
    sync_stop(&sync);
    assert_int_equal(sync.errnum, 0);
    unlink(path);
    close(fd);
}

/* fdatasync(2) of a device without a disk behind it fails. */
static void a_disk_that_fails_keeps_no_promise(void **state)
{
    struct sync sync = {0};
    struct error error = ERROR_INIT;

    (void)state;
    calls = 0;
    assert_int_equal(sync_start(&sync, "/dev/null", &error), 0);
    sync_on_durable(&sync, count_call, &calls);
    sync_commit(&sync);
    sync_wait(&sync);
    assert_int_not_equal(sync.errnum, 0);
    assert_false(sync_is_durable(&sync, 1));
    sync_commit(&sync);
    sync_wait(&sync);
    assert_false(sync_is_durable(&sync, 2));
    sync_stop(&sync);
    assert_int_equal(calls, 1); /* told once, that it will never be */
}

static void a_log_that_is_not_there_is_refused(void **state)
{
    struct sync sync = {0};
    struct error error = ERROR_INIT;

    (void)state;
    assert_true(sync_start(&sync, "/nonexistent/moat.db-wal", &error) < 0);
    assert_non_null(strstr(error.text, "/nonexistent/moat.db-wal"));
    sync_stop(&sync);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_becomes_durable),
        cmocka_unit_test(a_disk_that_fails_keeps_no_promise),
        cmocka_unit_test(a_log_that_is_not_there_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
