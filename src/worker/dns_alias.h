/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers that begin with aliases (CNAME records) of ours and go on with what upstream servers say
 * of the name that the last one stands for: a stub resolver takes the whole chain from one answer
 * (RFC 1034 section 5.3.1). What came from upstream keeps its form; the pointers in it are moved to
 * where the name stands now. */
#pragma once

#include "worker/dns_cache.h"

struct dns_alias {
    uint16_t length;      /* of header, question and the aliases' records */
    uint16_t answers;     /* how many these are */
    uint16_t owner;       /* where the name stands in them, not compressed */
    struct dns_name name; /* what is asked of upstream servers */
};

/* The part of it that a reply needs. */
struct dns_alias_place {
    uint16_t length; /* 0: there is no alias */
    uint16_t answers;
    uint16_t owner;
    uint8_t name_length;
};

struct dns_alias_place dns_alias_place_of(const struct dns_alias *alias);
/* Builds the reply behind the aliases' records in data; returns its length. */
size_t dns_alias_reply(const struct dns_alias_place *place, const struct dns_stored *stored,
                       uint8_t *data, size_t capacity, const struct dns_terms *terms);
/* The aliases alone, with this rcode: that of the last name (RFC 6604). */
size_t dns_alias_reply_rcode(const struct dns_alias_place *place, uint8_t *data, size_t capacity,
                             const struct dns_terms *terms, enum dns_rcode rcode, enum dns_ede ede);
