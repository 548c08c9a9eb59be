/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/json.h"

#include <string.h>

static bool fail(struct json *json)
{
    json->failed = true;
    return false;
}

static void space_skip(struct json *json)
{
    while (json->at < json->end && *json->at && strchr(" \t\r\n", *json->at))
        json->at++;
}

/* The next character that is no space, which stays; 0 at the end. */
static char peek(struct json *json)
{
    if (json->failed)
        return 0;
    space_skip(json);
    return json->at < json->end ? *json->at : 0;
}

static bool take(struct json *json, char wanted)
{
    if (peek(json) != wanted)
        return fail(json);
    json->at++;
    return true;
}

static bool take_word(struct json *json, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(json->end - json->at) < length || memcmp(json->at, word, length) != 0)
        return fail(json);
    json->at += length;
    return true;
}

void json_begin(struct json *json, const char *text, size_t length)
{
    *json = (struct json){.at = text, .end = text + length, .first = true};
}

/* --- objects and arrays --- */

bool json_open(struct json *json, char bracket)
{
    if (json->depth == JSON_DEPTH_MAX)
        return fail(json);
    if (!take(json, bracket))
        return false;
    json->depth++;
    json->first = true;
    return true;
}

/* Before a member or an element; false at the end. */
static bool next(struct json *json, char end)
{
    bool first = json->first;

    json->first = false;
    if (peek(json) == end) {
        json->at++;
        json->depth--;
        return false;
    }
    return first ? !json->failed : take(json, ',');
}

bool json_member(struct json *json, char *name, size_t size)
{
    return next(json, '}') && json_string(json, name, size) && take(json, ':');
}

bool json_element(struct json *json)
{
    return next(json, ']');
}

/* --- strings --- */

/* Where a string goes; what does not fit is only counted. */
struct sink {
    char *text;
    size_t size;
    size_t length;
};

static void sink_add(struct sink *sink, char c)
{
    if (c == '\0')
        sink->length = sink->size; /* does not fit, ever */
    if (sink->length < sink->size)
        sink->text[sink->length] = c;
    if (sink->length <= sink->size)
        sink->length++;
}

static void sink_add_unicode(struct sink *sink, uint32_t code)
{
    if (code < 0x80) {
        sink_add(sink, (char)code);
        return;
    }
    if (code < 0x800) {
        sink_add(sink, (char)(0xc0 | code >> 6));
    } else {
        if (code < 0x10000) {
            sink_add(sink, (char)(0xe0 | code >> 12));
        } else {
            sink_add(sink, (char)(0xf0 | code >> 18));
            sink_add(sink, (char)(0x80 | (code >> 12 & 0x3f)));
        }
        sink_add(sink, (char)(0x80 | (code >> 6 & 0x3f)));
    }
    sink_add(sink, (char)(0x80 | (code & 0x3f)));
}

static bool hex_read(struct json *json, uint32_t *ret_code)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    uint32_t code = 0;

    if (json->end - json->at < 4)
        return fail(json);
    for (int i = 0; i < 4; i++) {
        const char *digit = memchr(digits, json->at[i], sizeof(digits) - 1);

        if (!digit)
            return fail(json);
        code = code << 4 | (uint32_t)((digit - digits) & 15);
    }
    json->at += 4;
    *ret_code = code;
    return true;
}

/* Behind "\u": one code unit, or a pair of surrogates. */
static bool unicode_read(struct json *json, struct sink *sink)
{
    uint32_t code;
    uint32_t low;

    if (!hex_read(json, &code))
        return false;
    if (code >= 0xdc00 && code < 0xe000)
        return fail(json);
    if (code >= 0xd800 && code < 0xdc00) {
        if (!take_word(json, "\\u") || !hex_read(json, &low))
            return false;
        if (low < 0xdc00 || low >= 0xe000)
            return fail(json);
        code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
    }
    sink_add_unicode(sink, code);
    return true;
}

static bool escape_read(struct json *json, struct sink *sink)
{
    static const char names[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    char c = json->at < json->end ? *json->at++ : 0;
    const char *name = c ? strchr(names, c) : NULL;

    if (c == 'u')
        return unicode_read(json, sink);
    if (!name)
        return fail(json);
    sink_add(sink, meanings[name - names]);
    return true;
}

static bool string_read(struct json *json, struct sink *sink)
{
    if (!take(json, '"'))
        return false;
    while (json->at < json->end) {
        char c = *json->at++;

        if (c == '"')
            return true;
        if ((unsigned char)c < 0x20)
            return fail(json);
        if (c != '\\')
            sink_add(sink, c);
        else if (!escape_read(json, sink))
            return false;
    }
    return fail(json);
}

bool json_string(struct json *json, char *text, size_t size)
{
    struct sink sink = {.text = text, .size = size};
    bool done = string_read(json, &sink);

    text[done && sink.length < size ? sink.length : 0] = '\0';
    return done;
}

/* --- other values --- */

bool json_bool(struct json *json, bool *ret_value)
{
    bool value = peek(json) == 't';

    if (json->failed || !take_word(json, value ? "true" : "false"))
        return false;
    *ret_value = value;
    return true;
}

static bool is_digit(const struct json *json)
{
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

bool json_integer(struct json *json, int64_t *ret_value)
{
    bool negative = peek(json) == '-';
    int64_t value = 0;

    json->at += negative;
    if (json->failed || !is_digit(json))
        return fail(json);
    while (is_digit(json))
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *json->at++ - '0', &value))
            return fail(json);
    if (json->at < json->end && *json->at && strchr(".eE", *json->at))
        return fail(json);
    *ret_value = negative ? -value : value;
    return true;
}

bool json_is_object(struct json *json)
{
    return peek(json) == '{';
}

static bool digits_skip(struct json *json)
{
    if (!is_digit(json))
        return fail(json);
    while (is_digit(json))
        json->at++;
    return true;
}

static bool one_of_skip(struct json *json, const char *characters)
{
    if (json->at == json->end || !*json->at || !strchr(characters, *json->at))
        return false;
    json->at++;
    return true;
}

static bool number_skip(struct json *json)
{
    one_of_skip(json, "-");
    if (!digits_skip(json))
        return false;
    if (one_of_skip(json, ".") && !digits_skip(json))
        return false;
    if (!one_of_skip(json, "eE"))
        return true;
    one_of_skip(json, "+-");
    return digits_skip(json);
}

static bool scalar_skip(struct json *json)
{
    struct sink nowhere = {0};

    switch (peek(json)) {
    case '"':
        return string_read(json, &nowhere);
    case 't':
        return take_word(json, "true");
    case 'f':
        return take_word(json, "false");
    case 'n':
        return take_word(json, "null");
    default:
        return number_skip(json);
    }
}

/* The value behind which nothing is open that was not before. */
bool json_skip(struct json *json)
{
    char kinds[JSON_DEPTH_MAX + 1]; /* '{' or '[' of what was opened here, by depth */
    unsigned outside = json->depth;
    char name[2];

    do {
        char kind = peek(json);

        if (kind == '{' || kind == '[') {
            if (json_open(json, kind))
                kinds[json->depth] = kind;
        } else {
            scalar_skip(json);
        }
        /* At the end of what is open here, go out, as often as it ends. */
        while (!json->failed && json->depth > outside &&
               !(kinds[json->depth] == '{' ? json_member(json, name, sizeof(name))
                                           : json_element(json)))
            ;
    } while (!json->failed && json->depth > outside);
    return !json->failed;
}

bool json_is_done(struct json *json)
{
    return peek(json) == 0 && !json->failed && json->at == json->end && json->depth == 0;
}
