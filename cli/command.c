/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "refusal.h"
#include "remote.h"

/* --- the table --- */

static const struct command *const tables[] = {
    net_commands,     run_commands,    guest_commands,      exec_commands,
    port_commands,    policy_commands, limit_commands,      dns_commands,
    compose_commands, system_commands, completion_commands,
};

static const struct {
    const char *name;
    const char *summary;
    const struct option *options;
} groups[] = {
    {"net", "networks", NULL},
    {"port", "published ports", NULL},
    {"policy", "who may talk to whom", NULL},
    {"limit", "how much and how many", NULL},
    {"dns", "names that the name service answers", NULL},
    {"compose", "services and networks of a Compose file", compose_group_options},
};

const struct command *command_get(size_t index)
{
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        for (const struct command *command = tables[i]; command->name; command++)
            if (index-- == 0)
                return command;
    return NULL;
}

static bool same_group(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

const struct command *command_find(const char *group, const char *name)
{
    const struct command *command;

    for (size_t i = 0; (command = command_get(i)); i++)
        if (same_group(group, command->group) && strcmp(name, command->name) == 0)
            return command;
    return NULL;
}

const char *command_group_summary(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
        if (strcmp(groups[i].name, name) == 0)
            return groups[i].summary;
    return NULL;
}

const struct option *command_group_options(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
        if (strcmp(groups[i].name, name) == 0)
            return groups[i].options;
    return NULL;
}

bool command_group_exists(const char *name)
{
    return command_group_summary(name) != NULL;
}

/* --- the invocation --- */

void invocation_init(struct invocation *ret_invocation)
{
    *ret_invocation = (struct invocation){0};
}

void invocation_set_command(struct invocation *invocation, const struct command *command)
{
    invocation->command = command;
    if (command->method < METHOD_COUNT_)
        proto_params_init(proto_method_get(command->method), &invocation->params);
}

void invocation_deinit(struct invocation *invocation)
{
    if (invocation->command && invocation->command->method < METHOD_COUNT_)
        proto_params_deinit(proto_method_get(invocation->command->method), &invocation->params);
    strings_deinit(&invocation->process.env);
    strings_deinit(&invocation->words);
    remote_free(invocation->remote);
    *invocation = (struct invocation){0};
}

int invocation_fail(int exit_code, const struct error *error)
{
    fflush(stdout);
    fprintf(stderr, "moat: %s\n", error->text);
    return exit_code;
}

int invocation_connect(struct invocation *invocation)
{
    struct error error = ERROR_INIT;

    if (invocation->remote || remote_connect(invocation->socket, &invocation->remote, &error) == 0)
        return EXIT_DONE;
    return invocation_fail(EXIT_UNREACHABLE, &error);
}

int invocation_call(struct invocation *invocation, enum method_id method,
                    const union params *params, struct proto_response **ret_response)
{
    struct error error = ERROR_INIT;
    int code = invocation_connect(invocation);
    int r;

    if (code != EXIT_DONE)
        return code;
    r = remote_call(invocation->remote, method, params, ret_response, &error);
    if (r == -ENOTCONN)
        return invocation_fail(EXIT_UNREACHABLE, &error);
    if (r < 0 && method == invocation->command->method &&
        refusal_translate(invocation->command, &error))
        return invocation_fail(EXIT_USAGE, &error);
    return r < 0 ? invocation_fail(EXIT_REFUSED, &error) : EXIT_DONE;
}

int invocation_call_own(struct invocation *invocation, struct proto_response **ret_response)
{
    return invocation_call(invocation, invocation->command->method, &invocation->params,
                           ret_response);
}

int invocation_print_json(const struct proto_response *response)
{
    _cleanup_free_ char *json = proto_response_text(response);

    if (!json) {
        fputs("moat: out of memory\n", stderr);
        return EXIT_REFUSED;
    }
    puts(json);
    return EXIT_DONE;
}

int invocation_show(struct invocation *invocation,
                    int (*print)(struct invocation *invocation,
                                 const struct proto_response *response))
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    int code = invocation_call_own(invocation, &response);

    if (code != EXIT_DONE)
        return code;
    if (invocation->json)
        return invocation_print_json(response);
    return print ? print(invocation, response) : EXIT_DONE;
}

int invocation_decode(const struct proto_response *response, const struct proto_object *object,
                      void *ret_data)
{
    struct error error = ERROR_INIT;

    if (proto_response_object(response, object, ret_data, &error) < 0)
        return invocation_fail(EXIT_REFUSED, &error);
    return EXIT_DONE;
}

int invocation_decode_list(const struct proto_response *response, const struct proto_object *object,
                           void **ret_items, size_t *ret_count)
{
    struct error error = ERROR_INIT;

    if (proto_response_list(response, object, ret_items, ret_count, &error) < 0)
        return invocation_fail(EXIT_REFUSED, &error);
    return EXIT_DONE;
}

void invocation_free_list(const struct proto_object *object, void *items, size_t count)
{
    for (size_t i = 0; object->deinit && i < count; i++)
        object->deinit((char *)items + i * object->size);
    free(items);
}

/* --- the whole --- */

static int print_help(const struct invocation *invocation)
{
    struct text text = {0};

    command_help_write(&text, invocation->group, invocation->command);
    if (!text.failed)
        fputs(text.data, stdout);
    text_deinit(&text);
    return EXIT_DONE;
}

/* What was printed must have arrived. */
static int check_output(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    fprintf(stderr, "moat: can't write the output: %s\n", strerror(errno));
    return code == EXIT_DONE ? EXIT_REFUSED : code;
}

int command_main(int argc, char **argv)
{
    struct invocation invocation;
    struct error error = ERROR_INIT;
    int code;

    invocation_init(&invocation);
    if (option_parse(argc, argv, &invocation, &error) < 0)
        code = invocation_fail(EXIT_USAGE, &error);
    else if (invocation.version)
        code = printf("moat %s\n", MOAT_VERSION) < 0;
    else if (invocation.help)
        code = print_help(&invocation);
    else
        code = invocation.command->run(&invocation);
    invocation_deinit(&invocation);
    return check_output(code);
}
