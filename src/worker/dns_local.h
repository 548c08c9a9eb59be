/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers that come from the zone (dns_zone.h), without allocating: names below the domain, single
 * labels, static names elsewhere, and addresses of our subnets (RFC 1034 4.3.2, RFC 2308, RFC 8020,
 * RFC 8482). */
#pragma once

#include "worker/dns_zone.h"

/* Computes the query's key; before dns_local_answer. */
void dns_local_prepare(const struct zone *zone, struct dns_query *query);
/* Builds the reply over the query in data and sets *ret_length; false when the question is not ours
 * to answer (it is one for upstream servers). capacity as for dns_reply_begin. */
bool dns_local_answer(const struct zone *zone, const struct dns_asker *asker,
                      const struct dns_query *query, uint8_t *data, size_t capacity,
                      size_t *ret_length);
