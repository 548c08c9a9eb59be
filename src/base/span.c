/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/span.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/model.h"

/* --- text --- */

int span_parse(const char *text, const char *field, struct port_span *ret_span, struct error *error)
{
    struct port port;
    int r = port_parse(text, field, &port, error);

    if (r < 0)
        return r;
    if (port.host_port != 0 || ip_is_set(&port.host_ip))
        return error_set_field(error, field,
                               "port \"%.80s\": only the guests' own ports count here; write "
                               "PORT[-END][/tcp|/udp]",
                               text);
    *ret_span = (struct port_span){
        .protocol = port.protocol,
        .first = port.guest_port,
        .last = (uint16_t)(port.guest_port + port.count - 1u),
    };
    return 0;
}

const char *span_format(const struct port_span *span, char text[SPAN_TEXT_MAX])
{
    const char *protocol = span->protocol == IPPROTO_UDP ? "udp" : "tcp";

    if (span_is_everything(span))
        text[0] = '\0';
    else if (span->first == span->last)
        snprintf(text, SPAN_TEXT_MAX, "%u/%s", span->first, protocol);
    else
        snprintf(text, SPAN_TEXT_MAX, "%u-%u/%s", span->first, span->last, protocol);
    return text;
}

/* --- one span --- */

bool span_is_everything(const struct port_span *span)
{
    return span->protocol == 0;
}

bool span_equal(const struct port_span *a, const struct port_span *b)
{
    return a->protocol == b->protocol && a->first == b->first && a->last == b->last;
}

static bool span_overlaps(const struct port_span *a, const struct port_span *b)
{
    return a->protocol == b->protocol && a->first <= b->last && b->first <= a->last;
}

/* Overlap, or nothing lies between them. */
static bool span_touches(const struct port_span *a, const struct port_span *b)
{
    return a->protocol == b->protocol && a->first <= (uint32_t)b->last + 1 &&
           b->first <= (uint32_t)a->last + 1;
}

static int span_compare(const void *left, const void *right)
{
    const struct port_span *a = left;
    const struct port_span *b = right;

    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    return (a->first > b->first) - (a->first < b->first);
}

/* --- the set --- */

static int spans_push(struct port_spans *spans, struct port_span span)
{
    struct port_span *items = list_grow(spans->items, spans->count, sizeof(*items));

    if (!items)
        return -ENOMEM;
    spans->items = items;
    items[spans->count++] = span;
    return 0;
}

bool spans_contains(const struct port_spans *spans, const struct port_span *span)
{
    for (size_t i = 0; i < spans->count; i++) {
        const struct port_span *item = &spans->items[i];

        if (span_is_everything(item) || (item->protocol == span->protocol &&
                                         item->first <= span->first && span->last <= item->last))
            return true;
    }
    return false;
}

bool spans_overlaps(const struct port_spans *spans, const struct port_span *span)
{
    if (span_is_everything(span))
        return spans->count > 0;
    for (size_t i = 0; i < spans->count; i++)
        if (span_is_everything(&spans->items[i]) || span_overlaps(&spans->items[i], span))
            return true;
    return false;
}

bool spans_have(const struct port_spans *spans, const struct port_span *item)
{
    for (size_t i = 0; i < spans->count; i++)
        if (span_equal(&spans->items[i], item))
            return true;
    return false;
}

/* Takes out what the span touches, and makes it so long as to cover that too. */
static void absorb(struct port_spans *spans, struct port_span *span)
{
    size_t kept = 0;

    for (size_t i = 0; i < spans->count; i++) {
        const struct port_span *item = &spans->items[i];

        if (!span_is_everything(span) && !span_touches(item, span)) {
            spans->items[kept++] = *item;
            continue;
        }
        if (item->first < span->first && !span_is_everything(span))
            span->first = item->first;
        if (item->last > span->last && !span_is_everything(span))
            span->last = item->last;
    }
    spans->count = kept;
}

int spans_add(struct port_spans *spans, const struct port_span *span)
{
    struct port_span whole = *span;
    struct port_span *items;

    if (spans_contains(spans, span))
        return 0;
    items = list_grow(spans->items, spans->count, sizeof(*items));
    if (!items)
        return -ENOMEM;
    spans->items = items;
    absorb(spans, &whole);
    items[spans->count++] = whole;
    qsort(items, spans->count, sizeof(*items), span_compare);
    return 0;
}

/* What is left of an item. */
static int push_rest(struct port_spans *rest, const struct port_span *item,
                     const struct port_span *span)
{
    int r = 0;

    if (!span_overlaps(item, span))
        return spans_push(rest, *item);
    if (item->first < span->first)
        r = spans_push(rest, (struct port_span){item->protocol, item->first, span->first - 1});
    if (r >= 0 && item->last > span->last)
        r = spans_push(rest, (struct port_span){item->protocol, span->last + 1, item->last});
    return r;
}

int spans_remove(struct port_spans *spans, const struct port_span *span)
{
    struct port_spans rest = {0};
    int r = 0;

    for (size_t i = 0; r >= 0 && !span_is_everything(span) && i < spans->count; i++)
        r = push_rest(&rest, &spans->items[i], span);
    if (r < 0) {
        spans_deinit(&rest);
        return r;
    }
    spans_deinit(spans);
    *spans = rest;
    return 0;
}

int spans_copy(const struct port_spans *from, struct port_spans *ret_to)
{
    struct port_spans copy = {0};

    for (size_t i = 0; i < from->count; i++)
        if (spans_push(&copy, from->items[i]) < 0) {
            spans_deinit(&copy);
            return -ENOMEM;
        }
    *ret_to = copy;
    return 0;
}

void spans_deinit(struct port_spans *spans)
{
    free(spans->items);
    *spans = (struct port_spans){0};
}
