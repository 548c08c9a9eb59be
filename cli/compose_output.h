/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output of services, line by line, each with its service's name before it: "web  | line". */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define COMPOSE_LINE_MAX 8192 /* bytes; what is longer is broken */

/* One stream of one service. Zero-initialised but for fd is empty. */
struct compose_stream {
    int fd; /* what is read; -1 when it has ended */
    size_t length;
    char line[COMPOSE_LINE_MAX];
};

struct compose_prefix {
    const char *name;
    size_t width;       /* of the column of names */
    const char *colour; /* an escape sequence; "": none */
};

/* Colours are for terminals whose user did not forbid them (NO_COLOR). number: of the service. */
const char *compose_colour(FILE *output, size_t number);
/* Reads what is there, at most once, and prints the whole lines of it. At the end of the stream
 * prints what is left, closes fd and sets it to -1. */
void compose_stream_read(struct compose_stream *stream, const struct compose_prefix *prefix,
                         FILE *output);
