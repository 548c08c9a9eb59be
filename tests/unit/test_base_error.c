/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

static void reasons_have_the_names_of_the_contract(void **state)
{
    static const struct {
        enum reason reason;
        const char *name;
    } rows[] = {
        {REASON_NONE, "internal"},
        {REASON_EXISTS, "exists"},
        {REASON_NOT_FOUND, "not_found"},
        {REASON_IN_USE, "in_use"},
        {REASON_SUBNET_OVERLAP, "subnet_overlap"},
        {REASON_SUBNET_INVALID, "subnet_invalid"},
        {REASON_NO_FREE_ADDRESS, "no_free_address"},
        {REASON_NO_FREE_SUBNET, "no_free_subnet"},
        {REASON_ADDRESS_IN_USE, "address_in_use"},
        {REASON_ADDRESS_OUTSIDE, "address_outside"},
        {REASON_PORT_IN_USE, "port_in_use"},
        {REASON_MODE_FORBIDS, "mode_forbids"},
        {REASON_PERMISSION_DENIED, "permission_denied"},
        {REASON_QUOTA, "quota"},
        {REASON_NOT_SUPPORTED, "not_supported"},
        {REASON_KERNEL, "kernel"},
        {REASON_BUSY, "busy"},
        {REASON_COUNT_, "internal"},
    };

    (void)state;
    assert_int_equal(ARRAY_SIZE(rows), REASON_COUNT_ + 1);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_string_equal(reason_name(rows[i].reason), rows[i].name);
}

static void an_internal_error_ends_with_the_errno(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(error_set(&error, ENOENT, "cannot open %s", "x"), -ENOENT);
    assert_int_equal(error.kind, ERROR_INTERNAL);
    assert_int_equal(error.reason, REASON_NONE);
    assert_int_equal(error.errnum, ENOENT);
    assert_string_equal(error.text, "cannot open x: No such file or directory");

    assert_int_equal(error_set(&error, -ENOENT, "again"), -ENOENT);
    assert_int_equal(error.errnum, ENOENT);

    assert_int_equal(error_set(&error, 0, "no errno"), -EIO);
    assert_int_equal(error.errnum, 0);
    assert_string_equal(error.text, "no errno");

    assert_int_equal(error_set(&error, 99999, "odd"), -99999);
    assert_string_equal(error.text, "odd: error 99999");
}

static void a_reason_is_told_apart_from_errnos(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    error_set_field(&error, "name", "bad");
    assert_int_equal(error_set_reason(&error, REASON_EXISTS, "network %s exists", "web"),
                     -EREMOTEIO);
    assert_int_equal(error.kind, ERROR_REASON);
    assert_int_equal(error.reason, REASON_EXISTS);
    assert_int_equal(error.errnum, 0);
    assert_string_equal(error.field, "");
    assert_string_equal(error.text, "network web exists");
}

static void a_kernel_error_carries_the_extended_ack(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(error_set_kernel(&error, -EBUSY, "Device is busy", "cannot add %s", "v0"),
                     -EBUSY);
    assert_int_equal(error.kind, ERROR_REASON);
    assert_int_equal(error.reason, REASON_KERNEL);
    assert_int_equal(error.errnum, EBUSY);
    assert_string_equal(error.text, "cannot add v0: Device or resource busy (Device is busy)");

    assert_int_equal(error_set_kernel(&error, EPERM, NULL, "cannot add %s", "v0"), -EPERM);
    assert_string_equal(error.text, "cannot add v0: Operation not permitted");
    assert_int_equal(error_set_kernel(&error, EPERM, "", "x"), -EPERM);
    assert_string_equal(error.text, "x: Operation not permitted");
    assert_int_equal(error_set_kernel(&error, 0, NULL, "x"), -EIO);
}

static void a_field_error_names_the_member(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(error_set_field(&error, "networks[1].ip", "%s is not an address", "x"),
                     -EINVAL);
    assert_int_equal(error.kind, ERROR_FIELD);
    assert_string_equal(error.field, "networks[1].ip");
    assert_string_equal(error.text, "x is not an address");

    /* The field may be the error's own, as when a caller re-words it. */
    error_set_field(&error, error.field, "again: %s", error.text);
    assert_string_equal(error.field, "networks[1].ip");
    assert_string_equal(error.text, "again: x is not an address");
}

static void context_goes_before_and_keeps_the_kind(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    error_set_reason(&error, REASON_BUSY, "later");
    error_add_context(&error, "guest %s", "web");
    assert_string_equal(error.text, "guest web: later");
    assert_int_equal(error.kind, ERROR_REASON);
    assert_int_equal(error.reason, REASON_BUSY);
}

static void the_text_stays_one_line(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    error_set_kernel(&error, EPERM, "two\nlines", "a\nb\tc\x7f");
    assert_string_equal(error.text, "a?b?c?: Operation not permitted (two?lines)");
    error_set_field(&error, "a\nb", "x");
    assert_string_equal(error.field, "a?b");
}

/* Does every character have all its bytes? */
static bool is_whole_utf8(const char *text)
{
    while (*text) {
        unsigned char lead = (unsigned char)*text++;
        int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;

        if ((lead & 0xc0) == 0x80)
            return false;
        for (; more > 0; more--)
            if (((unsigned char)*text++ & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static void long_texts_are_cut_at_a_whole_character(void **state)
{
    struct error error = ERROR_INIT;
    char text[1600];
    char field[200];

    (void)state;
    /* Three-byte characters: whatever the offset, none may be cut in two. */
    for (size_t offset = 0; offset < 3; offset++) {
        memset(text, 'x', offset);
        for (size_t i = offset; i + 3 < sizeof(text); i += 3)
            memcpy(text + i, "\xe2\x82\xac", 4);
        error_set(&error, EPERM, "%s", text);
        size_t length = strlen(error.text);
        assert_true(length >= sizeof(error.text) - 4 && length < sizeof(error.text));
        assert_true(is_whole_utf8(error.text));
        error_add_context(&error, "%s", text);
        assert_true(is_whole_utf8(error.text));
    }
    memset(field, 'f', sizeof(field) - 1);
    field[sizeof(field) - 1] = '\0';
    error_set_field(&error, field, "x");
    assert_int_equal(strlen(error.field), sizeof(error.field) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reasons_have_the_names_of_the_contract),
        cmocka_unit_test(an_internal_error_ends_with_the_errno),
        cmocka_unit_test(a_reason_is_told_apart_from_errnos),
        cmocka_unit_test(a_kernel_error_carries_the_extended_ack),
        cmocka_unit_test(a_field_error_names_the_member),
        cmocka_unit_test(context_goes_before_and_keeps_the_kind),
        cmocka_unit_test(the_text_stays_one_line),
        cmocka_unit_test(long_texts_are_cut_at_a_whole_character),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
