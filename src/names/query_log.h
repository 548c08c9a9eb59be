/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The latest queries that the name service answered, as its worker reports them while somebody
 * wants to know. Each has a number; what is older than the last QUERY_LOG_MAX is forgotten. */
#pragma once

#include <stddef.h>

#include "base/api.h"
#include "base/error.h"

#define QUERY_LOG_MAX 4096

struct query_log;

struct query_log *query_log_new(void); /* NULL: no memory */
void query_log_free(struct query_log *log);
void query_log_clear(struct query_log *log);
/* Takes the worker's message in, as far as it is well-formed; false when some of it is not. */
bool query_log_add(struct query_log *log, const void *payload, size_t length);
/* What has come since this number (0: all there is), at most LIMIT_DNS_LOG of it, the oldest first.
 */
int query_log_read(const struct query_log *log, uint64_t since, struct dns_log_result *ret_result,
                   struct error *error);
