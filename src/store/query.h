/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One run of one prepared statement: begin, bind in order, run or step, read columns in order, end.
 * A failure on the way (out of memory, a column that does not parse) is remembered and reported by
 * the next function that takes a struct error, so that binding and reading need no checks of their
 * own. */
#pragma once

#include "base/cleanup.h"
#include "store/private.h"

enum query_conflict {
    CONFLICT_NONE,
    CONFLICT_UNIQUE, /* there is such a row */
    CONFLICT_PARENT, /* a row that this one refers to is not there, or this one is referred to */
};

struct query {
    struct store *store;
    sqlite3_stmt *statement;
    int result; /* SQLITE_OK, or the first failure */
    int parameter;
    int column;
};

/* sql must be a string literal: the prepared statement is kept under its address. The same
 * statement can't be begun again before it has ended. */
struct query query_begin(struct store *store, const char *sql);
void query_end(struct query *query);
#define _cleanup_query_ _cleanup_(query_end)

/* Bind the next parameter. Texts must stay as they are until query_end; NULL, an absent address and
 * an empty MAC are bound as NULL. Lists are encoded (encode.h). */
void query_bind_int(struct query *query, int64_t value);
void query_bind_text(struct query *query, const char *text);
void query_bind_ip(struct query *query, const struct ip *ip);
void query_bind_cidr(struct query *query, const struct cidr *cidr);
void query_bind_mac(struct query *query, const struct mac *mac);
void query_bind_strings(struct query *query, const struct strings *strings);
void query_bind_ips(struct query *query, const struct ips *ips);
void query_bind_labels(struct query *query, const struct labels *labels);

/* Runs to the end; rows are ignored. */
int query_run(struct query *query, struct error *error);
/* The same, but a violated rule is a result, not a failure: the statement did nothing then. */
int query_run_checked(struct query *query, enum query_conflict *ret_conflict, struct error *error);
/* Goes to the next row. *ret_row false: there is none. */
int query_next(struct query *query, bool *ret_row, struct error *error);

/* Read the next column of the row. */
int64_t query_int(struct query *query);
bool query_bool(struct query *query);
/* Copies the text ("" for NULL) into the buffer; what is too long for it is damage. */
void query_text(struct query *query, char *buffer, size_t size);
/* malloc'ed; NULL for NULL. */
char *query_text_dup(struct query *query);
struct ip query_ip(struct query *query);
struct cidr query_cidr(struct query *query);
struct mac query_mac(struct query *query);
void query_strings(struct query *query, struct strings *ret_strings);
void query_ips(struct query *query, struct ips *ret_ips);
void query_labels(struct query *query, struct labels *ret_labels);
/* Remembers that the column read last does not hold what it should. */
void query_set_damaged(struct query *query);
/* 0, or what went wrong while binding or reading. */
int query_check(struct query *query, struct error *error);
