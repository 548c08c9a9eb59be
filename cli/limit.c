/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat limit */
#include <stdio.h>

#include "arguments.h"
#include "base/rate.h"

static int print_limits(struct invocation *invocation, const struct proto_response *response)
{
    struct limits limits;
    char text[RATE_TEXT_MAX];
    int code = invocation_decode(response, &proto_limits, &limits);

    (void)invocation;
    if (code != EXIT_DONE)
        return code;
    printf("rate-up %s\n", rate_format(limits.rate_up, text));
    printf("rate-down %s\n", rate_format(limits.rate_down, text));
    printf("max-conns %u\n", limits.max_conns);
    if (limits.conn_rate)
        printf("conn-rate %u\n", limits.conn_rate);
    else
        puts("conn-rate none");
    return EXIT_DONE;
}

static int limit_show(struct invocation *invocation)
{
    return invocation_show(invocation, print_limits);
}

static int limit_set(struct invocation *invocation)
{
    const struct limit_set_params *params = &invocation->params.limit_set;
    struct error error = ERROR_INIT;

    if (!params->has_rate_up && !params->has_rate_down && !params->has_max_conns &&
        !params->has_conn_rate) {
        option_refuse(&error, "limit set needs a limit; see \"moat limit set --help\"");
        return invocation_fail(EXIT_USAGE, &error);
    }
    return invocation_show(invocation, NULL);
}

static int set_rate_up(struct invocation *invocation, const char *value, struct error *error)
{
    invocation->params.limit_set.has_rate_up = true;
    return rate_parse(value, "", &invocation->params.limit_set.limits.rate_up, error);
}

static int set_rate_down(struct invocation *invocation, const char *value, struct error *error)
{
    invocation->params.limit_set.has_rate_down = true;
    return rate_parse(value, "", &invocation->params.limit_set.limits.rate_down, error);
}

static int set_max_conns(struct invocation *invocation, const char *value, struct error *error)
{
    invocation->params.limit_set.has_max_conns = true;
    return arguments_set_count(value, "default", &invocation->params.limit_set.limits.max_conns,
                               error);
}

static int set_conn_rate(struct invocation *invocation, const char *value, struct error *error)
{
    invocation->params.limit_set.has_conn_rate = true;
    return arguments_set_count(value, "none", &invocation->params.limit_set.limits.conn_rate,
                               error);
}

static const struct option set_options[] = {
    ARGUMENTS_RATE_UP("rate_up", set_rate_up),
    ARGUMENTS_RATE_DOWN("rate_down", set_rate_down),
    ARGUMENTS_MAX_CONNS("max_conns", set_max_conns),
    ARGUMENTS_CONN_RATE("conn_rate", set_conn_rate),
    {0},
};

static const struct positional positionals[] = {ARGUMENTS_GUEST("guest"), {0}};

const struct command limit_commands[] = {
    {.group = "limit",
     .name = "show",
     .summary = "show what a guest is limited to",
     .positionals = positionals,
     .method = METHOD_LIMIT_GET,
     .run = limit_show},
    {.group = "limit",
     .name = "set",
     .summary = "change what a guest is limited to, while it runs",
     .options = set_options,
     .positionals = positionals,
     .method = METHOD_LIMIT_SET,
     .run = limit_set,
     .text = "Limits that are not given stay as they are. Each counts for each interface of the "
             "guest."},
    {0},
};
