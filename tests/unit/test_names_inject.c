/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The text of a resolv.conf; the file itself is the system test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "names/inject.h"

#define BLOCK "# moat: begin\nnameserver 10.88.0.1\n# moat: end\n"
#define OTHER "# moat: begin\nnameserver 10.9.0.1\nnameserver fd00::1\n# moat: end\n"

static char result[INJECT_FILE_MAX + 1];

static void assert_becomes(const char *old, const char *block, const char *expected)
{
    long length = inject_edit(old, strlen(old), block, result);

    assert_int_equal(length, strlen(expected));
    result[length] = '\0';
    assert_string_equal(result, expected);
}

static void the_block_comes_first(void **state)
{
    (void)state;
    assert_becomes("", BLOCK, BLOCK);
    assert_becomes("nameserver 192.0.2.1\n", BLOCK, BLOCK "nameserver 192.0.2.1\n");
    assert_becomes("no newline", BLOCK, BLOCK "no newline");
    assert_becomes("\n\n#\n", BLOCK, BLOCK "\n\n#\n");
}

static void a_former_block_is_replaced_wherever_it_stands(void **state)
{
    (void)state;
    assert_becomes(OTHER "search a\n", BLOCK, BLOCK "search a\n");
    assert_becomes("search a\n" OTHER "options b\n", BLOCK, BLOCK "search a\noptions b\n");
    assert_becomes(OTHER OTHER "x\n" OTHER, BLOCK, BLOCK "x\n");
    assert_becomes(BLOCK "search a\n", BLOCK, BLOCK "search a\n");
}

static void without_servers_it_is_as_before(void **state)
{
    static const char *const texts[] = {"", "x", "nameserver 192.0.2.1\nsearch a\n", "\n",
                                        "# moat\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char with[200];
        long length = inject_edit(texts[i], strlen(texts[i]), BLOCK, with);

        with[length] = '\0';
        assert_becomes(with, "", texts[i]);
        assert_becomes(texts[i], "", texts[i]);
    }
}

static void a_block_without_its_end_takes_nothing_along(void **state)
{
    (void)state;
    assert_becomes("# moat: begin\nnameserver 10.88.0.1\nsearch a\n", "", "search a\n");
    assert_becomes("# moat: begin\n", "", "");
    assert_becomes("# moat: begin\noptions x\n# moat: end\n", "", "options x\n# moat: end\n");
    assert_becomes("# moat: begin", "", "# moat: begin");
}

static void the_length_is_bounded(void **state)
{
    static char old[INJECT_FILE_MAX];

    (void)state;
    memset(old, 'x', sizeof(old));
    assert_int_equal(inject_edit(old, sizeof(old), "", result), sizeof(old));
    assert_int_equal(inject_edit(old, sizeof(old), BLOCK, result), -EFBIG);
    assert_int_equal(inject_edit(old, sizeof(old) - strlen(BLOCK), BLOCK, result), sizeof(old));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_block_comes_first),
        cmocka_unit_test(a_former_block_is_replaced_wherever_it_stands),
        cmocka_unit_test(without_servers_it_is_as_before),
        cmocka_unit_test(a_block_without_its_end_takes_nothing_along),
        cmocka_unit_test(the_length_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
