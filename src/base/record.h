/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Static records of the name service: which types there are, their values as people write them, as
 * the store keeps them, and as DNS carries them (RFC 1035 section 3.3, RFC 2782, RFC 3596).
 *
 * A value that is or contains a name (CNAME, SRV) means a name of our domain when it has one label
 * or ends with the domain; else a whole name. The store keeps the first kind without the domain and
 * the second with a dot at its end, as in zone files, so that a change of the domain changes what
 * belongs to it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

/* The numbers are those of DNS. PTR records are made from A and AAAA. */
enum record_type {
    RECORD_NONE = 0,
    RECORD_A = 1,
    RECORD_CNAME = 5,
    RECORD_TXT = 16,
    RECORD_AAAA = 28,
    RECORD_SRV = 33,
};

#define RECORD_TYPES "A, AAAA, CNAME, TXT or SRV"
#define RECORD_VALUE_MAX 1024 /* bytes of a value's text */
#define RECORD_TEXT_MAX (RECORD_VALUE_MAX + 256)
#define RECORD_RDATA_MAX (RECORD_VALUE_MAX + 8)

/* "AAAA"; "" for what is none. */
const char *record_type_name(uint16_t type);
/* Takes upper and lower case. 0, or -EINVAL. */
int record_type_parse(const char *text, uint16_t *ret_type);

/* What a record may be called: a DNS name, or one whose first label is '*' (RFC 4592). */
bool record_name_is_valid(const char *name);
bool record_name_is_wildcard(const char *name);

/* From a value as people write it to the store's form, malloc'ed. 0, -ENOMEM, or -EINVAL with a
 * field error named `field`. */
int record_value_parse(uint16_t type, const char *text, const char *domain, const char *field,
                       char **ret_value, struct error *error);
/* From the store's form to one that record_value_parse takes: names are whole. Returns text. */
const char *record_value_format(uint16_t type, const char *value, const char *domain,
                                char text[RECORD_TEXT_MAX]);
/* From the store's form to rdata; returns its length, 0 when it does not fit the domain. */
uint16_t record_rdata_build(uint16_t type, const char *value, const char *domain,
                            uint8_t rdata[RECORD_RDATA_MAX]);
