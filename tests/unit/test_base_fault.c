/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"

#ifdef MOAT_FAULTS

/* Counters live as long as the process: each test uses steps of its own. */

static int forget_environment(void **state)
{
    (void)state;
    unsetenv("MOAT_FAULT");
    unsetenv("MOAT_CRASH");
    return 0;
}

static void nothing_fails_without_the_environment(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(fault_point("calm", &error), 0);
    assert_int_equal(error.kind, ERROR_NONE);
}

static void the_first_pass_fails_by_default(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    setenv("MOAT_FAULT", "first", 1);
    assert_int_equal(fault_point("firs", &error), 0);
    assert_int_equal(fault_point("first-not", &error), 0);
    assert_int_equal(fault_point("first", &error), -EIO);
    assert_string_equal(error.text, "injected fault at first: Input/output error");
    assert_int_equal(fault_point("first", &error), 0);
}

static void a_list_names_passes_of_several_steps(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    setenv("MOAT_FAULT", "other,list-a:2,list-b:1,list-a:4,", 1);
    assert_int_equal(fault_point("list-a", &error), 0);
    assert_int_equal(fault_point("list-b", &error), -EIO);
    assert_int_equal(fault_point("list-a", &error), -EIO);
    assert_int_equal(fault_point("list-a", &error), 0);
    assert_int_equal(fault_point("list-a", &error), -EIO);
    assert_int_equal(fault_point("list-b", &error), 0);
}

static void a_crash_ends_the_process(void **state)
{
    struct error error = ERROR_INIT;
    int status;

    (void)state;
    setenv("MOAT_CRASH", "crash:2", 1);
    pid_t child = fork();
    if (child == 0) {
        fault_point("crash", &error);
        fault_point("crash", &error);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 86);
}

#define TEST(function) cmocka_unit_test_teardown(function, forget_environment)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_fails_without_the_environment),
        TEST(the_first_pass_fails_by_default),
        TEST(a_list_names_passes_of_several_steps),
        TEST(a_crash_ends_the_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void a_release_build_has_no_faults(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    setenv("MOAT_FAULT", "step", 1);
    setenv("MOAT_CRASH", "step", 1);
    assert_int_equal(fault_point("step", &error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_release_build_has_no_faults)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
