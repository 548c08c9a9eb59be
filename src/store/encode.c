/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store/encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Length of an item when it is written, its newline included. */
static size_t item_length(const char *item)
{
    size_t length = 1;

    for (; *item; item++)
        length += *item == '\n' || *item == '\\' ? 2 : 1;
    return length;
}

/* Writes an item, returns where the next one goes. */
static char *item_write(char *to, const char *item)
{
    for (; *item; item++) {
        if (*item == '\n' || *item == '\\')
            *to++ = '\\';
        *to++ = *item == '\n' ? 'n' : *item;
    }
    *to++ = '\n';
    return to;
}

/* Turns the item of `length` characters at `from` into its value, in place: it only shrinks. */
static int item_read(char *item)
{
    char *to = item;

    for (const char *from = item; *from; from++) {
        if (*from != '\\') {
            *to++ = *from;
            continue;
        }
        from++;
        if (*from != 'n' && *from != '\\')
            return -EBADMSG;
        *to++ = *from == 'n' ? '\n' : '\\';
    }
    *to = '\0';
    return 0;
}

int encode_strings(const struct strings *strings, char **ret_text)
{
    size_t size = 1;

    for (size_t i = 0; i < strings->count; i++)
        size += item_length(strings->items[i]);
    char *text = malloc(size);
    if (!text)
        return -ENOMEM;
    char *end = text;
    for (size_t i = 0; i < strings->count; i++)
        end = item_write(end, strings->items[i]);
    *end = '\0';
    *ret_text = text;
    return 0;
}

int decode_strings(const char *text, struct strings *ret_strings)
{
    _cleanup_(strings_deinit) struct strings strings = {0};

    while (*text) {
        const char *end = strchr(text, '\n');

        if (!end)
            return -EBADMSG;
        if (strings_add_n(&strings, text, (size_t)(end - text)) < 0)
            return -ENOMEM;
        if (item_read(strings.items[strings.count - 1]) < 0)
            return -EBADMSG;
        text = end + 1;
    }
    *ret_strings = TAKE_STRUCT(strings);
    return 0;
}

int encode_ips(const struct ips *ips, char **ret_text)
{
    _cleanup_(strings_deinit) struct strings strings = {0};
    char text[IP_TEXT_MAX];

    for (size_t i = 0; i < ips->count; i++)
        if (strings_add(&strings, ip_format(&ips->items[i], text)) < 0)
            return -ENOMEM;
    return encode_strings(&strings, ret_text);
}

int decode_ips(const char *text, struct ips *ret_ips)
{
    _cleanup_(strings_deinit) struct strings strings = {0};
    _cleanup_(ips_deinit) struct ips ips = {0};
    int r = decode_strings(text, &strings);

    if (r < 0)
        return r;
    for (size_t i = 0; i < strings.count; i++) {
        struct ip ip;

        if (ip_parse(strings.items[i], &ip) < 0)
            return -EBADMSG;
        if (ips_add(&ips, &ip) < 0)
            return -ENOMEM;
    }
    *ret_ips = TAKE_STRUCT(ips);
    return 0;
}

int encode_labels(const struct labels *labels, char **ret_text)
{
    _cleanup_(strings_deinit) struct strings strings = {0};

    for (size_t i = 0; i < labels->count; i++)
        if (strings_add(&strings, labels->items[i].key) < 0 ||
            strings_add(&strings, labels->items[i].value) < 0)
            return -ENOMEM;
    return encode_strings(&strings, ret_text);
}

int decode_labels(const char *text, struct labels *ret_labels)
{
    _cleanup_(strings_deinit) struct strings strings = {0};
    _cleanup_(labels_deinit) struct labels labels = {0};
    int r = decode_strings(text, &strings);

    if (r < 0)
        return r;
    if (strings.count % 2 != 0)
        return -EBADMSG;
    for (size_t i = 0; i < strings.count; i += 2)
        if (labels_set(&labels, strings.items[i], strings.items[i + 1]) < 0)
            return -ENOMEM;
    *ret_labels = TAKE_STRUCT(labels);
    return 0;
}
