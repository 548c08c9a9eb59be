/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sets of ports, as disjoint spans: what is open is added to and taken from, and comes out in its
 * shortest form. Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SPAN_TEXT_MAX 24

/* Ports from first to last of TCP or UDP; or, with protocol 0 and no ports, everything of every
 * protocol. */
struct port_span {
    uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP, 0 */
    uint16_t first;
    uint16_t last;
};

/* Sorted by protocol and port; neither overlapping nor adjoining. Everything stands alone.
 * Zero-initialised is empty. */
struct port_spans {
    struct port_span *items;
    size_t count;
};

/* PORT[-END][/tcp|/udp], TCP where none is said. Errors are field errors named `field`; text may be
 * any string. */
int span_parse(const char *text, const char *field, struct port_span *ret_span,
               struct error *error);
/* "80/tcp", "8000-8010/udp"; "" for everything. Returns text. */
const char *span_format(const struct port_span *span, char text[SPAN_TEXT_MAX]);
bool span_is_everything(const struct port_span *span);
bool span_equal(const struct port_span *a, const struct port_span *b);

/* Both return 0 or -ENOMEM, with the set as it was. Taking everything empties the set; what is
 * taken from everything must be everything. */
int spans_add(struct port_spans *spans, const struct port_span *span);
int spans_remove(struct port_spans *spans, const struct port_span *span);
bool spans_contains(const struct port_spans *spans, const struct port_span *span); /* all of it */
bool spans_overlaps(const struct port_spans *spans, const struct port_span *span); /* some of it */
bool spans_have(const struct port_spans *spans, const struct port_span *item); /* this very span */
int spans_copy(const struct port_spans *from, struct port_spans *ret_to);
void spans_deinit(struct port_spans *spans);
