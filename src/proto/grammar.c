/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The grammar of RFC 8259, nothing more: cJSON is content with "01", "1.", a byte order mark and
 * control characters between the tokens, and what we echo of it others could not read. */
#include "proto/grammar.h"

#include <string.h>

struct scanner {
    const char *at;
    const char *end;
    unsigned depth; /* that is left */
};

static char peek(const struct scanner *s)
{
    return s->at < s->end ? *s->at : '\0';
}

static bool take(struct scanner *s, char c)
{
    if (peek(s) != c)
        return false;
    s->at++;
    return true;
}

static void take_space(struct scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r' || *s->at == '\n'))
        s->at++;
}

static bool take_digits(struct scanner *s)
{
    const char *begin = s->at;

    while (peek(s) >= '0' && peek(s) <= '9')
        s->at++;
    return s->at > begin;
}

static bool take_number(struct scanner *s)
{
    (void)take(s, '-');
    if (!take(s, '0') && !take_digits(s))
        return false;
    if (take(s, '.') && !take_digits(s))
        return false;
    if (!take(s, 'e') && !take(s, 'E'))
        return true;
    if (!take(s, '+'))
        (void)take(s, '-');
    return take_digits(s);
}

static bool take_hex(struct scanner *s)
{
    for (unsigned i = 0; i < 4; i++, s->at++)
        if (peek(s) == '\0' || !strchr("0123456789abcdefABCDEF", peek(s)))
            return false;
    return true;
}

static bool take_escaped(struct scanner *s)
{
    if (take(s, 'u'))
        return take_hex(s);
    if (peek(s) == '\0' || !strchr("\"\\/bfnrt", peek(s)))
        return false;
    s->at++;
    return true;
}

static bool take_string(struct scanner *s)
{
    if (!take(s, '"'))
        return false;
    while (s->at < s->end && *s->at != '"') {
        if ((unsigned char)*s->at < 0x20)
            return false;
        if (*s->at++ == '\\' && !take_escaped(s))
            return false;
    }
    return take(s, '"');
}

static bool take_word(struct scanner *s, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length) != 0)
        return false;
    s->at += length;
    return true;
}

static bool take_value(struct scanner *s);

/* Members or values, separated by commas, up to `close`; behind the opening bracket. */
static bool take_list(struct scanner *s, char close)
{
    take_space(s);
    if (take(s, close))
        return true;
    do {
        take_space(s);
        if (close == '}') {
            if (!take_string(s))
                return false;
            take_space(s);
            if (!take(s, ':'))
                return false;
        }
        if (!take_value(s))
            return false;
        take_space(s);
    } while (take(s, ','));
    return take(s, close);
}

static bool take_nested(struct scanner *s, char close)
{
    bool ok;

    if (s->depth == 0)
        return false;
    s->depth--;
    s->at++;
    ok = take_list(s, close);
    s->depth++;
    return ok;
}

static bool take_value(struct scanner *s)
{
    take_space(s);
    switch (peek(s)) {
    case '{':
        return take_nested(s, '}');
    case '[':
        return take_nested(s, ']');
    case '"':
        return take_string(s);
    case 't':
        return take_word(s, "true");
    case 'f':
        return take_word(s, "false");
    case 'n':
        return take_word(s, "null");
    default:
        return take_number(s);
    }
}

const char *grammar_skip_value(const char *text, const char *end, unsigned depth)
{
    struct scanner scanner = {text, end, depth};

    return take_value(&scanner) ? scanner.at : NULL;
}
