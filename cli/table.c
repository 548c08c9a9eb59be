/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"

#define COLUMN_GAP 2
#define COLUMN_MIN 8 /* no column is cut below this */

/* Characters, not bytes: UTF-8 continuation bytes are not counted. */
static size_t text_width(const char *text)
{
    size_t width = 0;

    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

/* Bytes of the first `width` characters. */
static size_t text_prefix(const char *text, size_t width)
{
    size_t bytes = 0;

    for (; text[bytes]; bytes++)
        if (((unsigned char)text[bytes] & 0xc0) != 0x80 && width-- == 0)
            break;
    return bytes;
}

static void add_cells(struct table *table, va_list arguments)
{
    size_t used = table->n_rows * table->n_columns;
    char **grown = reallocarray(table->cells, used + table->n_columns, sizeof(*grown));

    if (!grown) {
        table->failed = true;
        return;
    }
    table->cells = grown;
    for (size_t i = 0; i < table->n_columns; i++) {
        const char *cell = va_arg(arguments, const char *);

        grown[used + i] = strdup(cell && cell[0] ? cell : "-");
        table->failed |= !grown[used + i];
    }
    table->n_rows++;
}

void table_init(struct table *ret_table, size_t n_columns, ...)
{
    va_list arguments;

    *ret_table = (struct table){.n_columns = n_columns};
    va_start(arguments, n_columns);
    add_cells(ret_table, arguments);
    va_end(arguments);
}

void table_add(struct table *table, ...)
{
    va_list arguments;

    va_start(arguments, table);
    add_cells(table, arguments);
    va_end(arguments);
}

void table_deinit(struct table *table)
{
    for (size_t i = 0; i < table->n_rows * table->n_columns; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){0};
}

/* Takes from the widest column, one character at a time, until the sum fits. */
static void widths_shrink(size_t *widths, size_t count, size_t max_width)
{
    size_t sum = COLUMN_GAP * (count - 1);

    for (size_t i = 0; i < count; i++)
        sum += widths[i];
    while (sum > max_width) {
        size_t widest = 0;

        for (size_t i = 1; i < count; i++)
            if (widths[i] > widths[widest])
                widest = i;
        if (widths[widest] <= COLUMN_MIN)
            return;
        widths[widest]--;
        sum--;
    }
}

static void write_cell(struct text *text, const char *cell, size_t width, bool last)
{
    size_t length = text_width(cell);
    bool cut = length > width;

    if (cut)
        text_append(text, "%.*s…", (int)text_prefix(cell, width - 1), cell);
    else
        text_append(text, "%s", cell);
    if (!last)
        text_append(text, "%*s", (int)((cut ? 0 : width - length) + COLUMN_GAP), "");
}

static void widths_of(const struct table *table, size_t *widths)
{
    for (size_t row = 0; row < table->n_rows; row++)
        for (size_t i = 0; i < table->n_columns; i++) {
            size_t width = text_width(table->cells[row * table->n_columns + i]);

            if (width > widths[i])
                widths[i] = width;
        }
}

void table_format(const struct table *table, size_t max_width, struct text *text)
{
    size_t widths[TABLE_COLUMNS_MAX] = {0};

    widths_of(table, widths);
    if (max_width > 0)
        widths_shrink(widths, table->n_columns, max_width);
    for (size_t row = 0; row < table->n_rows; row++) {
        for (size_t i = 0; i < table->n_columns; i++)
            write_cell(text, table->cells[row * table->n_columns + i], widths[i],
                       i + 1 == table->n_columns);
        text_append(text, "\n");
    }
}

static size_t terminal_width(void)
{
    struct winsize size;

    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
        return 0;
    return size.ws_col;
}

int table_print(const struct table *table)
{
    struct text text = {0};
    int r = -ENOMEM;

    if (!table->failed)
        table_format(table, terminal_width(), &text);
    if (!table->failed && !text.failed) {
        fputs(text.data, stdout);
        r = 0;
    }
    text_deinit(&text);
    return r;
}
