/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "show.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "json.h"
#include "remote.h"

static int append_answer(struct invocation *invocation, const char *name, struct text *text)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    _cleanup_free_ char *json = NULL;
    int code;

    snprintf(invocation->params.name.name, sizeof(invocation->params.name.name), "%s", name);
    code = invocation_call_own(invocation, &response);
    if (code != EXIT_DONE)
        return code;
    json = proto_response_text(response);
    if (json)
        text_append_n(text, json, strlen(json));
    else
        text->failed = true;
    return EXIT_DONE;
}

static void print_array(const struct text *array, bool compact)
{
    struct text indented = {0};

    if (compact) {
        puts(array->data);
        return;
    }
    json_indent(array->data, &indented);
    if (!indented.failed)
        puts(indented.data);
    text_deinit(&indented);
}

int show_inspect(struct invocation *invocation)
{
    struct text array = {0};
    int code = EXIT_DONE;

    text_append(&array, "[");
    for (size_t i = 0; code == EXIT_DONE && i < invocation->words.count; i++) {
        if (i > 0)
            text_append(&array, ",");
        code = append_answer(invocation, invocation->words.items[i], &array);
    }
    text_append(&array, "]");
    if (code == EXIT_DONE && !array.failed)
        print_array(&array, invocation->json);
    text_deinit(&array);
    return code;
}

void show_append(struct text *text, const char *item)
{
    text_append(text, "%s%s", text->length > 0 ? "," : "", item);
}

void show_append_address(struct text *text, const struct ip *ip, unsigned prefix)
{
    char address[IP_TEXT_MAX];

    if (ip_is_set(ip))
        text_append(text, "%s%s/%u", text->length > 0 ? "," : "", ip_format(ip, address), prefix);
}

const char *show_text(const struct text *text)
{
    return text->failed || !text->data ? "" : text->data;
}

void show_time(int64_t time_ms)
{
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm tm;
    char text[32] = "";

    if (gmtime_r(&seconds, &tm))
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    printf("%s.%03dZ", text, (int)(time_ms % 1000));
}
