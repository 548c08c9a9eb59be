/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "proto/proto.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_reserve(struct text *text, size_t more)
{
    size_t wanted = text->length + more + 1;
    size_t size = text->allocated ? text->allocated : 256;
    char *data;

    if (text->failed)
        return false;
    if (wanted <= text->allocated)
        return true;
    while (size < wanted)
        size *= 2;
    data = realloc(text->data, size);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->allocated = size;
    return true;
}

void text_append_n(struct text *text, const char *data, size_t length)
{
    if (!text_reserve(text, length))
        return;
    if (length)
        memcpy(text->data + text->length, data, length);
    text->length += length;
    text->data[text->length] = '\0';
}

void text_append(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_list again;
    int length;

    va_start(arguments, format);
    va_copy(again, arguments);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length >= 0 && text_reserve(text, (size_t)length)) {
        vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    } else {
        text->failed = true;
    }
    va_end(again);
}

void text_deinit(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}
