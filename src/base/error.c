/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static const char *const reason_names[] = {
    [REASON_NONE] = "internal",
    [REASON_EXISTS] = "exists",
    [REASON_NOT_FOUND] = "not_found",
    [REASON_IN_USE] = "in_use",
    [REASON_SUBNET_OVERLAP] = "subnet_overlap",
    [REASON_SUBNET_INVALID] = "subnet_invalid",
    [REASON_NO_FREE_ADDRESS] = "no_free_address",
    [REASON_NO_FREE_SUBNET] = "no_free_subnet",
    [REASON_ADDRESS_IN_USE] = "address_in_use",
    [REASON_ADDRESS_OUTSIDE] = "address_outside",
    [REASON_PORT_IN_USE] = "port_in_use",
    [REASON_MODE_FORBIDS] = "mode_forbids",
    [REASON_PERMISSION_DENIED] = "permission_denied",
    [REASON_QUOTA] = "quota",
    [REASON_NOT_SUPPORTED] = "not_supported",
    [REASON_KERNEL] = "kernel",
    [REASON_BUSY] = "busy",
};

static_assert(ARRAY_SIZE(reason_names) == REASON_COUNT_, "a name for each reason");

/* Keeps the text one printable line that ends at a whole UTF-8 character, whatever a caller's value
 * or the kernel put into it. */
static void text_sanitize(char *text, bool truncated)
{
    size_t length = strlen(text);

    if (truncated) {
        while (length > 0 && ((unsigned char)text[length - 1] & 0xc0) == 0x80)
            length--;
        if (length > 0 && (unsigned char)text[length - 1] >= 0xc0)
            length--;
        text[length] = '\0';
    }
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = '?';
}

__attribute__((format(printf, 2, 0))) static void text_format(struct error *error,
                                                              const char *format, va_list arguments)
{
    /* Not straight into error->text: it may be one of the arguments. */
    char text[sizeof(error->text)];
    int length = vsnprintf(text, sizeof(text), format, arguments);

    if (length < 0)
        text[0] = '\0';
    text_sanitize(text, length >= (int)sizeof(text));
    memcpy(error->text, text, strlen(text) + 1);
}

static void text_append(struct error *error, const char *separator, const char *more)
{
    size_t used = strlen(error->text);
    int length = snprintf(error->text + used, sizeof(error->text) - used, "%s%s", separator, more);

    text_sanitize(error->text, length >= (int)(sizeof(error->text) - used));
}

static void text_append_errno(struct error *error, int errnum)
{
    const char *description = strerrordesc_np(errnum);
    char number[32];

    if (!description) {
        snprintf(number, sizeof(number), "error %d", errnum);
        description = number;
    }
    text_append(error, ": ", description);
}

static void error_reset(struct error *error, enum error_kind kind, enum reason reason, int errnum)
{
    error->kind = kind;
    error->reason = reason;
    error->errnum = errnum;
    error->field[0] = '\0';
}

int error_set(struct error *error, int errnum, const char *format, ...)
{
    va_list arguments;

    errnum = abs(errnum);
    va_start(arguments, format);
    text_format(error, format, arguments);
    va_end(arguments);
    error_reset(error, ERROR_INTERNAL, REASON_NONE, errnum);
    if (errnum == 0)
        return -EIO;
    text_append_errno(error, errnum);
    return -errnum;
}

int error_set_reason(struct error *error, enum reason reason, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_format(error, format, arguments);
    va_end(arguments);
    error_reset(error, ERROR_REASON, reason, 0);
    return -EREMOTEIO;
}

int error_set_kernel(struct error *error, int errnum, const char *extack, const char *format, ...)
{
    va_list arguments;

    errnum = abs(errnum);
    va_start(arguments, format);
    text_format(error, format, arguments);
    va_end(arguments);
    error_reset(error, ERROR_REASON, REASON_KERNEL, errnum);
    text_append_errno(error, errnum ? errnum : EIO);
    if (extack && *extack) {
        text_append(error, " (", extack);
        text_append(error, ")", "");
    }
    return errnum ? -errnum : -EIO;
}

int error_set_field(struct error *error, const char *field, const char *format, ...)
{
    char name[sizeof(error->field)];
    va_list arguments;

    int length = snprintf(name, sizeof(name), "%s", field);
    text_sanitize(name, length >= (int)sizeof(name));
    va_start(arguments, format);
    text_format(error, format, arguments);
    va_end(arguments);
    error_reset(error, ERROR_FIELD, REASON_NONE, EINVAL);
    memcpy(error->field, name, strlen(name) + 1);
    return -EINVAL;
}

void error_add_context(struct error *error, const char *format, ...)
{
    char before[sizeof(error->text)];
    va_list arguments;

    memcpy(before, error->text, sizeof(before));
    va_start(arguments, format);
    text_format(error, format, arguments);
    va_end(arguments);
    text_append(error, ": ", before);
}

const char *reason_name(enum reason reason)
{
    if ((unsigned)reason >= REASON_COUNT_)
        return reason_names[REASON_NONE];
    return reason_names[reason];
}
