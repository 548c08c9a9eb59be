/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's side of a call. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "proto/codec.h"

struct proto_response {
    cJSON *json;
    const cJSON *result; /* or an event's params; NULL for an error */
};

void proto_call_encode(struct text *text, const struct proto_method *method,
                       const union params *params, uint32_t id)
{
    text_append(text, "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"%s\",\"params\":", id,
                method->name);
    codec_encode_params(text, method->params, params);
    text_append(text, "}");
}

int proto_response_parse(const char *line, size_t length, struct proto_response **ret_response,
                         struct error *error)
{
    struct proto_response *response = calloc(1, sizeof(*response));

    if (!response)
        return error_set(error, ENOMEM, "response");
    response->json = cJSON_ParseWithLength(line, length);
    if (!cJSON_IsObject(response->json)) {
        proto_response_free(response);
        return error_set(error, EPROTO, "the daemon's answer is not a JSON object");
    }
    response->result = cJSON_GetObjectItemCaseSensitive(response->json, "result");
    if (proto_response_is_event(response))
        response->result = cJSON_GetObjectItemCaseSensitive(response->json, "params");
    if (!response->result &&
        !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(response->json, "error"))) {
        proto_response_free(response);
        return error_set(error, EPROTO, "the daemon's answer has neither result nor error");
    }
    *ret_response = response;
    return 0;
}

void proto_response_free(struct proto_response *response)
{
    if (!response)
        return;
    cJSON_Delete(response->json);
    free(response);
}

bool proto_response_is_event(const struct proto_response *response)
{
    const cJSON *method = cJSON_GetObjectItemCaseSensitive(response->json, "method");

    return cJSON_IsString(method) && strcmp(method->valuestring, "event") == 0;
}

static enum reason reason_find(const char *name)
{
    for (enum reason reason = REASON_NONE + 1; reason < REASON_COUNT_; reason++) {
        if (strcmp(reason_name(reason), name) == 0)
            return reason;
    }
    return REASON_NONE;
}

int proto_response_error(const struct proto_response *response, struct error *error)
{
    const cJSON *json = cJSON_GetObjectItemCaseSensitive(response->json, "error");
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(json, "data");
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(data, "field");
    const cJSON *reason = cJSON_GetObjectItemCaseSensitive(data, "reason");
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(json, "message");
    const char *text = cJSON_IsString(message) ? message->valuestring : "refused without a word";

    if (response->result)
        return 0;
    if (cJSON_IsString(field))
        return error_set_field(error, field->valuestring, "%s", text);
    if (cJSON_IsString(reason))
        return error_set_reason(error, reason_find(reason->valuestring), "%s", text);
    return error_set(error, 0, "%s", text);
}

char *proto_response_text(const struct proto_response *response)
{
    return cJSON_PrintUnformatted(response->result);
}

int proto_response_object(const struct proto_response *response, const struct proto_object *object,
                          void *ret_data, struct error *error)
{
    int r;

    memset(ret_data, 0, object->size);
    r = codec_decode_result(response->result, object, ret_data, error);
    if (r < 0 && object->deinit)
        object->deinit(ret_data);
    return r;
}

static void free_items(const struct proto_object *object, char *items, size_t count)
{
    for (size_t i = 0; i < count && object->deinit; i++)
        object->deinit(items + i * object->size);
    free(items);
}

int proto_response_list(const struct proto_response *response, const struct proto_object *object,
                        void **ret_items, size_t *ret_count, struct error *error)
{
    size_t count = (size_t)cJSON_GetArraySize(response->result);
    size_t done = 0;
    const cJSON *json;
    char *items;

    if (!cJSON_IsArray(response->result))
        return error_set(error, EPROTO, "the daemon did not answer with a list");
    items = calloc(count ? count : 1, object->size);
    if (!items)
        return error_set(error, ENOMEM, "response");
    cJSON_ArrayForEach(json, response->result)
    {
        int r = codec_decode_result(json, object, items + done * object->size, error);

        done++;
        if (r < 0) {
            free_items(object, items, done);
            return r;
        }
    }
    *ret_items = items;
    *ret_count = count;
    return 0;
}

int proto_response_strings(const struct proto_response *response, struct strings *ret_strings,
                           struct error *error)
{
    struct strings strings = {0};
    const cJSON *json;

    if (!cJSON_IsArray(response->result))
        return error_set(error, EPROTO, "the daemon did not answer with a list");
    cJSON_ArrayForEach(json, response->result)
    {
        if (!cJSON_IsString(json) || strings_add(&strings, json->valuestring) < 0) {
            strings_deinit(&strings);
            return error_set(error, EPROTO, "the daemon did not answer with a list of strings");
        }
    }
    *ret_strings = strings;
    return 0;
}
