/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers that come from the zone (dns_zone.h), without allocating: names below the domain, single
 * labels, static names elsewhere, and addresses of our subnets (RFC 1034 4.3.2, RFC 2308, RFC 4592,
 * RFC 8020, RFC 8482). */
#pragma once

#include "worker/dns_alias.h"
#include "worker/dns_zone.h"

enum dns_local {
    DNS_LOCAL_NOT_OURS, /* a question for upstream servers */
    DNS_LOCAL_DONE,     /* the reply is complete */
    DNS_LOCAL_ALIAS,    /* it begins with aliases; what the last one stands for is not ours */
};

/* Computes the query's key; before dns_local_answer. */
void dns_local_prepare(const struct zone *zone, struct dns_query *query);
/* Builds the reply over the query in data. *ret_length is set for DNS_LOCAL_DONE, *ret_alias for
 * DNS_LOCAL_ALIAS (and used on the way). capacity as for dns_reply_begin. */
enum dns_local dns_local_answer(const struct zone *zone, const struct dns_asker *asker,
                                const struct dns_query *query, uint8_t *data, size_t capacity,
                                size_t *ret_length, struct dns_alias *ret_alias);
