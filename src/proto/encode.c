/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Structs to JSON text, without a tree in between. */
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/record.h"
#include "proto/codec.h"

static void append_literal(struct text *text, const char *literal)
{
    text_append_n(text, literal, strlen(literal));
}

/* What has nothing in it to be escaped. */
static void append_quoted(struct text *text, const char *plain)
{
    append_literal(text, "\"");
    append_literal(text, plain);
    append_literal(text, "\"");
}

/* printf(3) takes several times as long, and most of an answer is short members. */
static void append_unsigned(struct text *text, uint64_t value)
{
    char digits[20];
    size_t first = sizeof(digits);

    do {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    text_append_n(text, digits + first, sizeof(digits) - first);
}

static void append_signed(struct text *text, int64_t value)
{
    if (value < 0)
        append_literal(text, "-");
    append_unsigned(text, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void codec_encode_string(struct text *text, const char *string)
{
    const char *run = string;

    text_append_n(text, "\"", 1);
    for (; *string; string++) {
        unsigned char c = (unsigned char)*string;

        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        text_append_n(text, run, (size_t)(string - run));
        if (c == '"' || c == '\\')
            text_append(text, "\\%c", c);
        else
            text_append(text, "\\u%04x", c);
        run = string + 1;
    }
    text_append_n(text, run, (size_t)(string - run));
    text_append_n(text, "\"", 1);
}

void codec_encode_strings(struct text *text, const struct strings *strings)
{
    append_literal(text, "[");
    for (size_t i = 0; i < strings->count; i++) {
        if (i)
            append_literal(text, ",");
        codec_encode_string(text, strings->items[i]);
    }
    append_literal(text, "]");
}

static void encode_ips(struct text *text, const struct ips *ips)
{
    char buffer[IP_TEXT_MAX];

    append_literal(text, "[");
    for (size_t i = 0; i < ips->count; i++) {
        if (i)
            append_literal(text, ",");
        append_quoted(text, ip_format(&ips->items[i], buffer));
    }
    append_literal(text, "]");
}

static void encode_labels(struct text *text, const struct labels *labels)
{
    append_literal(text, "{");
    for (size_t i = 0; i < labels->count; i++) {
        if (i)
            append_literal(text, ",");
        codec_encode_string(text, labels->items[i].key);
        append_literal(text, ":");
        codec_encode_string(text, labels->items[i].value);
    }
    append_literal(text, "}");
}

static void encode_time(struct text *text, int64_t seconds, int milliseconds)
{
    time_t time = (time_t)seconds;
    struct tm tm;
    char buffer[32];

    gmtime_r(&time, &tm);
    strftime(buffer, sizeof(buffer), "%Y-%m-%dT%H:%M:%S", &tm);
    if (milliseconds >= 0)
        text_append(text, "\"%s.%03dZ\"", buffer, milliseconds);
    else
        text_append(text, "\"%sZ\"", buffer);
}

static void encode_objects(struct text *text, const struct proto_field *field, const char *data,
                           bool params)
{
    const char *items = *(char *const *)(const void *)(data + field->offset);
    size_t count = *(const size_t *)(const void *)(data + field->count_offset);

    append_literal(text, "[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            append_literal(text, ",");
        if (params)
            codec_encode_params(text, field->object, items + i * field->size);
        else
            codec_encode_object(text, field->object, items + i * field->size);
    }
    append_literal(text, "]");
}

/* Is the member absent (or, for booleans and ids of params, at its default)? */
static bool is_absent(const struct proto_field *field, const char *data)
{
    const void *member = data + field->offset;

    switch (field->type) {
    case PROTO_TEXT:
    case PROTO_NAME:
    case PROTO_IFNAME:
    case PROTO_DNSNAME:
        return !*(const char *)member;
    case PROTO_STRING:
        return !*(char *const *)member;
    case PROTO_IP:
    case PROTO_IP4:
    case PROTO_IP6:
        return !ip_is_set(member);
    case PROTO_CIDR4:
    case PROTO_CIDR6:
        return !cidr_is_set(member);
    case PROTO_MAC:
        return !mac_is_set(member);
    case PROTO_PREFIX:
        return *(const uint8_t *)member == 0;
    case PROTO_PID:
        return *(const int32_t *)member == 0;
    case PROTO_UINT32:
        return *(const uint32_t *)member == 0;
    case PROTO_UINT64:
        return *(const uint64_t *)member == 0;
    case PROTO_RECORD:
        return *(const uint16_t *)member == RECORD_NONE;
    default:
        return false;
    }
}

static void encode_address(struct text *text, const struct proto_field *field, const void *member)
{
    char buffer[CIDR_TEXT_MAX];

    switch (field->type) {
    case PROTO_CIDR4:
    case PROTO_CIDR6:
        append_quoted(text, cidr_format(member, buffer));
        return;
    case PROTO_MAC:
        append_quoted(text, mac_format(member, buffer));
        return;
    default:
        append_quoted(text, ip_format(member, buffer));
    }
}

static void encode_integer(struct text *text, const struct proto_field *field, const void *member)
{
    switch (field->type) {
    case PROTO_UINT16:
        append_unsigned(text, *(const uint16_t *)member);
        return;
    case PROTO_PREFIX:
        append_unsigned(text, *(const uint8_t *)member);
        return;
    case PROTO_PID:
        append_signed(text, *(const int32_t *)member);
        return;
    case PROTO_UINT64:
        append_unsigned(text, *(const uint64_t *)member);
        return;
    case PROTO_ID:
        append_signed(text, *(const int64_t *)member);
        return;
    default:
        append_unsigned(text, *(const uint32_t *)member);
    }
}

static void encode_value(struct text *text, const struct proto_field *field, const char *data,
                         bool params)
{
    const void *member = data + field->offset;

    switch (field->type) {
    case PROTO_TEXT:
    case PROTO_NAME:
    case PROTO_IFNAME:
    case PROTO_DNSNAME:
        codec_encode_string(text, member);
        return;
    case PROTO_STRING:
        codec_encode_string(text, *(char *const *)member);
        return;
    case PROTO_BOOL:
        append_literal(text, *(const bool *)member ? "true" : "false");
        return;
    case PROTO_STRINGS:
        codec_encode_strings(text, member);
        return;
    case PROTO_IPS:
        encode_ips(text, member);
        return;
    case PROTO_LABELS:
        encode_labels(text, member);
        return;
    case PROTO_MODE:
        append_quoted(text, guest_mode_name(*(const enum guest_mode *)member));
        return;
    case PROTO_KIND:
        append_quoted(text, guest_kind_name(*(const enum guest_kind *)member));
        return;
    case PROTO_STATE:
        append_literal(text, "\"running\"");
        return;
    case PROTO_PROTOCOL:
        append_literal(text, *(const uint8_t *)member == IPPROTO_UDP ? "\"udp\"" : "\"tcp\"");
        return;
    case PROTO_RECORD:
        append_quoted(text, record_type_name(*(const uint16_t *)member));
        return;
    case PROTO_TIME_S:
        encode_time(text, *(const int64_t *)member, -1);
        return;
    case PROTO_TIME_MS:
        encode_time(text, *(const int64_t *)member / 1000, (int)(*(const int64_t *)member % 1000));
        return;
    case PROTO_OBJECT:
        if (params)
            codec_encode_params(text, field->object, member);
        else
            codec_encode_object(text, field->object, member);
        return;
    case PROTO_OBJECTS:
        encode_objects(text, field, data, params);
        return;
    case PROTO_IP:
    case PROTO_IP4:
    case PROTO_IP6:
    case PROTO_CIDR4:
    case PROTO_CIDR6:
    case PROTO_MAC:
        encode_address(text, field, member);
        return;
    case PROTO_UINT16:
    case PROTO_UINT32:
    case PROTO_UINT64:
    case PROTO_PREFIX:
    case PROTO_PID:
    case PROTO_ID:
        encode_integer(text, field, member);
        return;
    }
}

static bool is_omitted(const struct proto_field *field, const char *data)
{
    const void *member = data + field->offset;

    if (!(field->flags & PROTO_OMIT))
        return false;
    if (field->flags & PROTO_HAS)
        return !*(const bool *)(const void *)(data + field->has_offset);
    switch (field->type) {
    case PROTO_BOOL:
        return !*(const bool *)member;
    case PROTO_STRINGS:
        return ((const struct strings *)member)->count == 0;
    case PROTO_IPS:
        return ((const struct ips *)member)->count == 0;
    case PROTO_OBJECTS:
        return *(const size_t *)(const void *)(data + field->count_offset) == 0;
    default:
        return is_absent(field, data);
    }
}

void codec_encode_object(struct text *text, const struct proto_object *object, const void *data)
{
    const char *separator = "";

    append_literal(text, "{");
    for (size_t i = 0; i < object->n_fields; i++) {
        const struct proto_field *field = &object->fields[i];

        if (is_omitted(field, data))
            continue;
        append_literal(text, separator);
        append_quoted(text, field->name);
        append_literal(text, ":");
        separator = ",";
        if ((field->flags & PROTO_NULL) && is_absent(field, data))
            append_literal(text, "null");
        else
            encode_value(text, field, data, false);
    }
    append_literal(text, "}");
}

static bool is_default(const struct proto_field *field, const char *data);

static bool all_default(const struct proto_object *object, const char *data)
{
    for (size_t i = 0; i < object->n_fields; i++) {
        if (!is_default(&object->fields[i], data))
            return false;
    }
    return true;
}

/* Would leaving the member out say the same? */
static bool is_default(const struct proto_field *field, const char *data)
{
    const void *member = data + field->offset;

    if (field->flags & PROTO_REQUIRED)
        return false;
    if (field->flags & PROTO_HAS)
        return !*(const bool *)(const void *)(data + field->has_offset);
    switch (field->type) {
    case PROTO_BOOL:
        return *(const bool *)member == field->fallback;
    case PROTO_UINT32:
        return *(const uint32_t *)member == 0;
    case PROTO_UINT64:
        return *(const uint64_t *)member == 0;
    case PROTO_ID:
        return *(const int64_t *)member < 0;
    case PROTO_STRINGS:
        return ((const struct strings *)member)->count == 0;
    case PROTO_IPS:
        return ((const struct ips *)member)->count == 0;
    case PROTO_LABELS:
        return ((const struct labels *)member)->count == 0;
    case PROTO_OBJECT:
        return all_default(field->object, member);
    case PROTO_OBJECTS:
        return *(const size_t *)(const void *)(data + field->count_offset) == 0;
    default:
        return is_absent(field, data);
    }
}

void codec_encode_params(struct text *text, const struct proto_object *object, const void *data)
{
    const char *separator = "";

    append_literal(text, "{");
    for (size_t i = 0; i < object->n_fields; i++) {
        const struct proto_field *field = &object->fields[i];

        if (is_default(field, data))
            continue;
        append_literal(text, separator);
        append_quoted(text, field->name);
        append_literal(text, ":");
        encode_value(text, field, data, true);
        separator = ",";
    }
    append_literal(text, "}");
}
