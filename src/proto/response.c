/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server's writing side. */
#include "base/yield.h"
#include "proto/codec.h"

static void begin(struct text *text, const char *id)
{
    text_append(text, "{\"jsonrpc\":\"2.0\",\"id\":%s,", id);
}

static void encode_list(struct text *text, const struct proto_object *object, const char *items,
                        size_t count)
{
    text_append(text, "[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            text_append(text, ",");
        codec_encode_object(text, object, items + i * object->size);
        yield_if_due();
    }
    text_append(text, "]");
}

void proto_result_encode(struct text *text, const char *id, const struct proto_method *method,
                         const void *data, size_t count)
{
    begin(text, id);
    text_append(text, "\"result\":");
    switch (method->result_kind) {
    case RESULT_EMPTY:
        text_append(text, "{}");
        break;
    case RESULT_OBJECT:
        codec_encode_object(text, method->result, data);
        break;
    case RESULT_LIST:
        encode_list(text, method->result, data, count);
        break;
    case RESULT_STRINGS:
        codec_encode_strings(text, data);
        break;
    }
    text_append(text, "}");
}

int proto_error_code(const struct error *error)
{
    switch (error->kind) {
    case ERROR_FIELD:
        return PROTO_INVALID_PARAMS;
    case ERROR_REASON:
        return PROTO_REFUSED;
    default:
        return PROTO_INTERNAL_ERROR;
    }
}

void proto_error_encode(struct text *text, const char *id, int code, const struct error *error)
{
    begin(text, id);
    text_append(text, "\"error\":{\"code\":%d,\"message\":", code);
    codec_encode_string(text, error->text);
    if (error->kind == ERROR_FIELD) {
        text_append(text, ",\"data\":{\"field\":");
        codec_encode_string(text, error->field);
        text_append(text, "}");
    } else if (error->kind == ERROR_REASON) {
        text_append(text, ",\"data\":{\"reason\":\"%s\"}", reason_name(error->reason));
    }
    text_append(text, "}}");
}

void proto_event_encode(struct text *text, const struct event *event)
{
    text_append(text, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":");
    codec_encode_object(text, &proto_event, event);
    text_append(text, "}");
}
