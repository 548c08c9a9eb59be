/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server's reading side. A line must be JSON by the letter (grammar.c, which also bounds its
 * depth). Then a small scanner splits a batch into its items and finds the raw text of each `id`
 * (so that it is echoed exactly, whatever number it is); cJSON parses each item. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "proto/codec.h"
#include "proto/grammar.h"

struct span {
    const char *begin;
    const char *end;
};

/* A line as it came, for the raw ids, and as it is parsed; same length. */
struct line {
    const char *raw;
    char *text;
    size_t length;
};

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
        p++;
    return p;
}

/* p at the opening quote; returns the place after the closing one, NULL if there is none. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

/* Over one value, which is good JSON; NULL at the end. */
static const char *skip_value(const char *p, const char *end)
{
    unsigned depth = 0;

    p = skip_space(p, end);
    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
            if (!p || depth == 0)
                return p;
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0)
                return p; /* the end of a bare value before it */
            p++;
            if (--depth == 0)
                return p;
        } else if (depth == 0 &&
                   (*p == ',' || *p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')) {
            return p;
        } else {
            p++;
        }
    }
    return depth == 0 ? p : NULL;
}

/* The raw value of the last member `name` of an object (cJSON takes the first: duplicates are
 * refused later). */
static bool find_member(struct span object, const char *name, struct span *ret_value)
{
    const char *p = skip_space(object.begin, object.end);
    bool found = false;

    if (p == object.end || *p != '{')
        return false;
    p++;
    for (;;) {
        const char *key = p = skip_space(p, object.end);
        const char *value;
        size_t length = strlen(name);

        if (p >= object.end || *p != '"')
            return found;
        p = skip_string(p, object.end);
        if (!p)
            return found;
        bool match = (size_t)(p - key) == length + 2 && memcmp(key + 1, name, length) == 0;
        p = skip_space(p, object.end);
        if (p >= object.end || *p != ':')
            return found;
        value = skip_space(p + 1, object.end);
        p = skip_value(value, object.end);
        if (!p)
            return found;
        if (match) {
            *ret_value = (struct span){value, p};
            found = true;
        }
        p = skip_space(p, object.end);
        if (p >= object.end || *p != ',')
            return found;
        p++;
    }
}

/* RFC 3629: well-formed UTF-8 without a raw NUL. */
static bool is_clean_text(const char *line, size_t length)
{
    const unsigned char *p = (const unsigned char *)line;
    const unsigned char *end = p + length;

    while (p < end) {
        unsigned more = *p < 0x80             ? 0
                        : (*p & 0xe0) == 0xc0 ? 1
                        : (*p & 0xf0) == 0xe0 ? 2
                        : (*p & 0xf8) == 0xf0 ? 3
                                              : 4;
        uint32_t value = more == 0   ? *p
                         : more == 1 ? *p & 0x1fu
                         : more == 2 ? *p & 0x0fu
                                     : *p & 0x07u;
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};

        if (more == 4 || *p == 0 || (size_t)(end - p) <= more)
            return false;
        for (unsigned i = 1; i <= more; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return false;
            value = value << 6 | (p[i] & 0x3fu);
        }
        if (value < least[more] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
            return false;
        p += more + 1;
    }
    return true;
}

/* An escaped NUL would cut a C string short: it becomes the noncharacter U+FFFF, of the same length
 * as text, which no value may contain (decode.c). */
static void mask_escaped_nul(char *line, size_t length)
{
    for (size_t i = 0; i + 5 < length; i++) {
        if (line[i] != '\\')
            continue;
        if (memcmp(line + i + 1, "u0000", 5) == 0)
            memcpy(line + i + 2, "ffff", 4);
        i++; /* over what is escaped, a backslash included */
    }
}

static struct proto_request *add_request(struct proto_requests *requests)
{
    struct proto_request *items = realloc(requests->items, (requests->count + 1) * sizeof(*items));

    if (!items)
        return NULL;
    requests->items = items;
    items[requests->count] = (struct proto_request){0};
    return &items[requests->count++];
}

static int refuse(struct proto_request *request, int code, const char *text)
{
    request->code = code;
    error_set(&request->error, 0, "%s", text);
    if (!request->id)
        request->id = strdup("null");
    return request->id ? 0 : -ENOMEM;
}

static bool id_is_valid(const cJSON *id)
{
    return cJSON_IsString(id) || cJSON_IsNumber(id) || cJSON_IsNull(id);
}

static const cJSON *member(const cJSON *json, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(json, name);
}

/* Fills method and params; a refusal is part of the request, not a failure. */
static void read_call(struct proto_request *request, const cJSON *json)
{
    const cJSON *params = member(json, "params");
    const struct proto_method *method = proto_method_find(member(json, "method")->valuestring);

    if (!method) {
        request->code = PROTO_METHOD_NOT_FOUND;
        error_set(&request->error, 0, "there is no method \"%.64s\"",
                  member(json, "method")->valuestring);
        return;
    }
    if (params && !cJSON_IsObject(params)) {
        request->code = PROTO_INVALID_PARAMS;
        error_set_field(&request->error, "params", "params: takes an object");
        return;
    }
    request->method = method;
    proto_params_init(method, &request->params);
    if (codec_decode_params(params, method->params, "", &request->params, &request->error) < 0)
        request->code = PROTO_INVALID_PARAMS;
}

static int read_request(struct proto_request *request, const struct line *line, struct span text)
{
    struct span id;
    cJSON *json = cJSON_ParseWithLength(text.begin, (size_t)(text.end - text.begin));
    const cJSON *version;
    int r = 0;

    if (!json)
        return refuse(request, PROTO_PARSE_ERROR, "this is not JSON that can be read");
    if (!cJSON_IsObject(json)) {
        r = refuse(request, PROTO_INVALID_REQUEST, "a request is an object");
        goto out;
    }
    if (find_member(text, "id", &id)) {
        if (!id_is_valid(member(json, "id"))) {
            r = refuse(request, PROTO_INVALID_REQUEST, "id: takes a string, a number or null");
            goto out;
        }
        request->id = strndup(line->raw + (id.begin - line->text), (size_t)(id.end - id.begin));
        if (!request->id) {
            r = -ENOMEM;
            goto out;
        }
    }
    version = member(json, "jsonrpc");
    if (!cJSON_IsString(version) || strcmp(version->valuestring, "2.0") != 0)
        r = refuse(request, PROTO_INVALID_REQUEST, "jsonrpc: takes \"2.0\"");
    else if (!cJSON_IsString(member(json, "method")))
        r = refuse(request, PROTO_INVALID_REQUEST, "method: takes a string");
    else
        read_call(request, json);
out:
    cJSON_Delete(json);
    return r;
}

static int refuse_line(struct proto_requests *requests, int code, const char *text)
{
    struct proto_request *request = add_request(requests);

    return request ? refuse(request, code, text) : -ENOMEM;
}

static int read_batch(struct proto_requests *requests, const struct line *line, const char *p)
{
    const char *end = line->text + line->length;

    p = skip_space(p + 1, end);
    if (p < end && *p == ']')
        return refuse_line(requests, PROTO_INVALID_REQUEST, "an empty batch");
    requests->batch = true;
    while (p < end && *p != ']') {
        const char *next = skip_value(p, end);
        struct proto_request *request;
        int r;

        if (requests->count == PROTO_BATCH_MAX) {
            proto_requests_deinit(requests);
            return refuse_line(requests, PROTO_INVALID_REQUEST,
                               "more requests in one batch than are taken");
        }
        request = add_request(requests);
        if (!request)
            return -ENOMEM;
        r = read_request(request, line, (struct span){p, next});
        if (r < 0)
            return r;
        p = skip_space(next, end);
        if (p < end && *p == ',')
            p = skip_space(p + 1, end);
    }
    return 0;
}

static int read_line(struct proto_requests *requests, const struct line *line)
{
    const char *end = line->text + line->length;
    const char *p = skip_space(line->text, end);
    const char *behind = grammar_skip_value(p, end, PROTO_DEPTH_MAX);
    struct proto_request *request;

    if (!behind)
        return refuse_line(requests, PROTO_PARSE_ERROR,
                           "this is not JSON, or it is nested too deeply");
    if (skip_space(behind, end) != end)
        return refuse_line(requests, PROTO_PARSE_ERROR,
                           "there is more on the line after the JSON document");
    if (*p == '[')
        return read_batch(requests, line, p);
    request = add_request(requests);
    return request ? read_request(request, line, (struct span){p, end}) : -ENOMEM;
}

int proto_requests_parse(const char *line, size_t length, struct proto_requests *ret_requests)
{
    struct proto_requests requests = {0};
    _cleanup_free_ char *text = malloc(length + 1);
    int r;

    if (!text)
        return -ENOMEM;
    memcpy(text, line, length);
    text[length] = '\0';
    mask_escaped_nul(text, length);
    if (is_clean_text(line, length))
        r = read_line(&requests, &(struct line){line, text, length});
    else
        r = refuse_line(&requests, PROTO_PARSE_ERROR, "this is not UTF-8 text");
    if (r < 0) {
        proto_requests_deinit(&requests);
        return r;
    }
    *ret_requests = requests;
    return 0;
}

void proto_requests_deinit(struct proto_requests *requests)
{
    for (size_t i = 0; i < requests->count; i++) {
        proto_params_deinit(requests->items[i].method, &requests->items[i].params);
        free(requests->items[i].id);
    }
    free(requests->items);
    *requests = (struct proto_requests){0};
}
