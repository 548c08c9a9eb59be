/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of sysctls and the text of /proc/<pid>/stat. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "link/netns.h"
#include "link/sysctl.h"

static void test_sysctl_keys_become_paths(void **state)
{
    static const struct {
        const char *key, *path; /* path NULL: refused */
    } rows[] = {
        {"net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"},
        {"net.ipv4.conf.eth0/100.rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"},
        {"kernel", "/proc/sys/kernel"},
        {"", NULL},
        {".", NULL},
        {".net", NULL},
        {"net.", NULL},
        {"net..ipv4", NULL},
        {"net.//.etc", NULL}, /* would be ".." */
        {"net./.etc", NULL},
        {"net.///.x", "/proc/sys/net/.../x"}, /* an odd name, but a name */
    };
    char path[SYSCTL_PATH_MAX], longer[SYSCTL_PATH_MAX + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int r = sysctl_path(rows[i].key, path);

        assert_int_equal(r, rows[i].path ? 0 : -EINVAL);
        if (rows[i].path)
            assert_string_equal(path, rows[i].path);
    }
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(sysctl_path(longer, path), -ENAMETOOLONG);
    longer[SYSCTL_PATH_MAX - sizeof("/proc/sys/")] = '\0';
    assert_int_equal(sysctl_path(longer, path), 0);
}

#define FIELDS_4_TO_21 " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"

static void test_start_time_is_the_22nd_field(void **state)
{
    static const struct {
        const char *text;
        uint64_t start; /* 0: refused */
    } rows[] = {
        {"7 (sh) S" FIELDS_4_TO_21 " 123456 99 0\n", 123456},
        {"7 (a b) c) S" FIELDS_4_TO_21 " 18446744073709551615 0\n", UINT64_MAX},
        {"7 (1 2 3 4) S" FIELDS_4_TO_21 " 5 0", 5},
        {"", 0},
        {"7 sh S" FIELDS_4_TO_21 " 123456 99", 0},
        {"7 (sh) S 1 2 3", 0},
        {"7 (sh) S" FIELDS_4_TO_21 " ", 0},
        {"7 (sh) S" FIELDS_4_TO_21 " -5 0", 0},
        {"7 (sh) S" FIELDS_4_TO_21 " 12345", 0}, /* cut off: there may be more digits */
        {"7 (sh) S" FIELDS_4_TO_21 " 18446744073709551616 0", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t start = 0;
        int r = process_parse_start_time(rows[i].text, &start);

        assert_int_equal(r, rows[i].start ? 0 : -EINVAL);
        assert_true(start == rows[i].start);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sysctl_keys_become_paths),
        cmocka_unit_test(test_start_time_is_the_22nd_field),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
