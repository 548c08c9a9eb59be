/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's domain rules in the form in which the DNS worker is told of them: one message, or as
 * many as they need. */
#pragma once

#include "names/names.h"
#include "worker/dns_message.h"

struct permit_part {
    size_t length;
    struct dns_permit_message *payload;
};

struct permit_parts {
    int64_t guest_id;
    struct permit_part *items;
    size_t count; /* at least one */
};

/* NULL: no memory. */
struct permit_parts *permit_parts_new(const struct names_permit *permit);
void permit_parts_free(struct permit_parts *parts);
/* Do they say the same, but for the numbers of the messages? */
bool permit_parts_equal(const struct permit_parts *a, const struct permit_parts *b);
