/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compose_words.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "option.h"

#define NESTING_MAX 8 /* ${A:-${B:-${C}}} */

/* --- variables --- */

struct interpolation {
    char *(*find)(const char *name);
    struct text *result;
    struct error *error;
};

static int interpolate(struct interpolation *interpolation, const char *text, size_t length,
                       unsigned depth);

static size_t name_length(const char *text, size_t length)
{
    size_t n = 0;

    while (n < length && (isalpha((unsigned char)text[n]) || text[n] == '_' ||
                          (n > 0 && isdigit((unsigned char)text[n]))))
        n++;
    return n;
}

static int append(struct interpolation *interpolation, const char *text, size_t length)
{
    if (interpolation->result->length + length > COMPOSE_TEXT_MAX)
        return option_refuse(interpolation->error, "the value has more than %zu bytes",
                             COMPOSE_TEXT_MAX);
    text_append_n(interpolation->result, text, length);
    return interpolation->result->failed ? error_set(interpolation->error, ENOMEM, "value") : 0;
}

static int append_variable(struct interpolation *interpolation, const char *name, size_t length)
{
    _cleanup_free_ char *copy = strndup(name, length);
    const char *value = copy ? interpolation->find(copy) : NULL;

    if (!copy)
        return error_set(interpolation->error, ENOMEM, "value");
    return value ? append(interpolation, value, strlen(value)) : 0;
}

/* The length of what stands before the '}' that ends it; the same as length when there is none. */
static size_t braced_length(const char *text, size_t length)
{
    unsigned open = 0;
    size_t i = 0;

    for (; i < length; i++) {
        if (text[i] == '$' && i + 1 < length && text[i + 1] == '{')
            open++;
        else if (text[i] == '}' && open-- == 0)
            break;
    }
    return i;
}

/* What may stand behind the name: an operator, with ':' before it when an empty value counts as
 * none, and the other text. */
struct expression {
    const char *name;
    size_t name_length;
    char op; /* '-', '?', '+', or 0: none */
    bool empty_is_none;
    const char *other;
    size_t other_length;
};

static int parse_expression(const char *text, size_t length, struct expression *ret_expression)
{
    struct expression expression = {.name = text, .name_length = name_length(text, length)};
    const char *rest = text + expression.name_length;
    const char *end = text + length;

    if (expression.name_length == 0)
        return -EINVAL;
    if (rest < end && *rest == ':') {
        expression.empty_is_none = true;
        rest++;
    }
    if (rest < end && strchr("-?+", *rest))
        expression.op = *rest++;
    else if (rest < end || expression.empty_is_none)
        return -EINVAL;
    expression.other = rest;
    expression.other_length = (size_t)(end - rest);
    *ret_expression = expression;
    return 0;
}

static int evaluate(struct interpolation *interpolation, const struct expression *expression,
                    unsigned depth)
{
    _cleanup_free_ char *name = strndup(expression->name, expression->name_length);
    const char *value = name ? interpolation->find(name) : NULL;
    bool is_set = value && (*value || !expression->empty_is_none);

    if (!name)
        return error_set(interpolation->error, ENOMEM, "value");
    if (expression->op == '+')
        return is_set ? interpolate(interpolation, expression->other, expression->other_length,
                                    depth + 1)
                      : 0;
    if (is_set || expression->op == '\0')
        return value ? append(interpolation, value, strlen(value)) : 0;
    if (expression->op == '-')
        return interpolate(interpolation, expression->other, expression->other_length, depth + 1);
    return option_refuse(interpolation->error, "the variable %.80s is not set%s%.*s", name,
                         expression->other_length ? ": " : "",
                         expression->other_length > 200 ? 200 : (int)expression->other_length,
                         expression->other);
}

/* text follows "${"; *ret_used gets what was used of it. */
static int take_braced(struct interpolation *interpolation, const char *text, size_t length,
                       unsigned depth, size_t *ret_used)
{
    size_t inner = braced_length(text, length);
    struct expression expression;

    if (inner == length || parse_expression(text, inner, &expression) < 0)
        return option_refuse(interpolation->error,
                             "\"${%.*s\" is no variable: write ${NAME} or ${NAME:-other}, and $$ "
                             "for a '$'",
                             length > 40 ? 40 : (int)length, text);
    *ret_used = inner + 1;
    return evaluate(interpolation, &expression, depth);
}

/* text follows '$'. */
static int take_variable(struct interpolation *interpolation, const char *text, size_t length,
                         unsigned depth, size_t *ret_used)
{
    size_t name = name_length(text, length);
    int r;

    if (length > 0 && text[0] == '$') {
        *ret_used = 1;
        return append(interpolation, "$", 1);
    }
    if (length > 0 && text[0] == '{') {
        r = take_braced(interpolation, text + 1, length - 1, depth, ret_used);
        if (r == 0)
            ++*ret_used;
        return r;
    }
    if (name == 0)
        return option_refuse(interpolation->error, "\"$%.*s\" is no variable; write $$ for a '$'",
                             length > 20 ? 20 : (int)length, text);
    *ret_used = name;
    return append_variable(interpolation, text, name);
}

static int interpolate(struct interpolation *interpolation, const char *text, size_t length,
                       unsigned depth)
{
    if (depth > NESTING_MAX)
        return option_refuse(interpolation->error,
                             "variables stand in one another more than %d deep", NESTING_MAX);
    while (length > 0) {
        const char *dollar = memchr(text, '$', length);
        size_t plain = dollar ? (size_t)(dollar - text) : length;
        size_t used = 0;
        int r = append(interpolation, text, plain);

        if (r == 0 && dollar)
            r = take_variable(interpolation, dollar + 1, length - plain - 1, depth, &used);
        if (r < 0)
            return r;
        plain += dollar ? 1 + used : 0;
        text += plain;
        length -= plain;
    }
    return 0;
}

int compose_interpolate(const char *text, char *(*find)(const char *name), struct text *result,
                        struct error *error)
{
    struct interpolation interpolation = {.find = find, .result = result, .error = error};

    return interpolate(&interpolation, text, strlen(text), 0);
}

/* --- commands --- */

/* Copies one word from *text, which is moved behind it. Returns false for a quote that does not
 * end. */
static bool take_word(const char **text, struct text *word)
{
    const char *next = *text;
    char quote = '\0';

    for (; *next && (quote || !isspace((unsigned char)*next)); next++) {
        if (quote ? *next == quote : (*next == '\'' || *next == '"')) {
            quote = quote ? '\0' : *next;
            continue;
        }
        if (*next == '\\' && quote != '\'' && next[1] &&
            (quote == '\0' || strchr("\"\\$`", next[1])))
            next++;
        text_append_n(word, next, 1);
    }
    *text = next;
    return quote == '\0';
}

int compose_split(const char *text, struct strings *ret_words, struct error *error)
{
    struct strings words = {0};
    int r = 0;

    while (r == 0 && *(text += strspn(text, " \t\r\n\v\f"))) {
        struct text word = {0};

        if (!take_word(&text, &word))
            r = option_refuse(error, "a quote in the command does not end");
        else if (word.failed || strings_add(&words, word.data ? word.data : "") < 0)
            r = error_set(error, ENOMEM, "command");
        text_deinit(&word);
    }
    if (r < 0)
        strings_deinit(&words);
    else
        *ret_words = words;
    return r;
}

/* --- names --- */

int compose_name(const char *prefix, const char *name, char ret_name[NAME_MAX_LENGTH + 1])
{
    char made[NAME_MAX_LENGTH + 2];
    int length =
        snprintf(made, sizeof(made), "%s%s%s", prefix ? prefix : "", prefix ? "-" : "", name);

    if (length < 0 || length > NAME_MAX_LENGTH)
        return -EINVAL;
    for (char *c = made; *c; c++)
        *c = *c == '_' || *c == '.' ? '-' : (char)tolower((unsigned char)*c);
    if (!name_is_valid(made))
        return -EINVAL;
    memcpy(ret_name, made, (size_t)length + 1);
    return 0;
}
