/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one error idiom: a function returns 0 or a negative code and fills one struct error, once,
 * where it happened. Callers may add context; the top logs or answers it. On failure every output
 * of the function is untouched. A NULL struct error * is not allowed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The reasons of the contract (JSON-RPC error -32000, data.reason). */
enum reason {
    REASON_NONE, /* internal: answered as -32603 */
    REASON_EXISTS,
    REASON_NOT_FOUND,
    REASON_IN_USE,
    REASON_SUBNET_OVERLAP,
    REASON_SUBNET_INVALID,
    REASON_NO_FREE_ADDRESS,
    REASON_NO_FREE_SUBNET,
    REASON_ADDRESS_IN_USE,
    REASON_ADDRESS_OUTSIDE,
    REASON_PORT_IN_USE,
    REASON_MODE_FORBIDS,
    REASON_PERMISSION_DENIED,
    REASON_QUOTA,
    REASON_NOT_SUPPORTED,
    REASON_KERNEL,
    REASON_BUSY,
    REASON_COUNT_,
};

/* What kind of failure: decides how it is answered. */
enum error_kind {
    ERROR_NONE,
    ERROR_INTERNAL, /* -32603 */
    ERROR_FIELD,    /* -32602 with data.field */
    ERROR_REASON,   /* -32000 with data.reason */
};

struct error {
    enum error_kind kind;
    enum reason reason;
    int errnum;     /* positive errno value, 0 if none */
    char field[64]; /* path of the offending member: "subnet", "networks[1].ip" */
    char text[768]; /* one line, without "moat: " and without a newline */
};

#define ERROR_INIT ((struct error){0})

/* Internal failure. errnum (positive or negative errno, 0 for none) is appended as text when set.
 * Returns -errnum, or -EIO when errnum is 0. */
int error_set(struct error *error, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A failure that the contract names. Returns -EREMOTEIO always, so callers can tell it apart. */
int error_set_reason(struct error *error, enum reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The kernel refused: reason `kernel`, errno text and the extended ack (may be NULL) appended.
 * Returns -errnum. */
int error_set_kernel(struct error *error, int errnum, const char *extack, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A malformed value. Returns -EINVAL. */
int error_set_field(struct error *error, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "…: " before the text that is there. Returns nothing; keeps kind, reason and errno. */
void error_add_context(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Name of a reason as in the contract ("subnet_overlap"); "internal" for REASON_NONE. */
const char *reason_name(enum reason reason);
