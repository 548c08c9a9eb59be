/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Columns for people. On a terminal that is too narrow the widest columns are cut with "…";
 * elsewhere nothing is ever cut, so that scripts see whole values. */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "proto/proto.h"

#define TABLE_COLUMNS_MAX 8

struct table {
    size_t n_columns;
    size_t n_rows;
    char **cells; /* row by row, the headings first */
    bool failed;  /* out of memory somewhere */
};

/* Begins a table with n_columns headings, as arguments. */
void table_init(struct table *ret_table, size_t n_columns, ...);
/* Adds a row: one text (const char *, copied; NULL or "" shows as "-") for each column. */
void table_add(struct table *table, ...);
void table_deinit(struct table *table);
/* Writes it; max_width 0: as wide as it is. */
void table_format(const struct table *table, size_t max_width, struct text *text);
/* Prints it to stdout, at most as wide as the terminal. Returns 0 or -ENOMEM. */
int table_print(const struct table *table);
