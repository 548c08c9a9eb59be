/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat policy */
#include <stdio.h>

#include "arguments.h"

static int print_policy(struct invocation *invocation, const struct proto_response *response)
{
    struct policy_result result;
    int code = invocation_decode(response, &proto_policy_result, &result);

    (void)invocation;
    if (code != EXIT_DONE)
        return code;
    printf("mode %s\n", guest_mode_name(result.mode));
    for (size_t i = 0; i < result.policy.allow.count; i++)
        printf("allow %s\n", result.policy.allow.items[i]);
    for (size_t i = 0; i < result.policy.deny.count; i++)
        printf("deny %s\n", result.policy.deny.items[i]);
    if (result.policy.log_denied)
        puts("log-denied");
    if (result.policy.silent)
        puts("drop");
    policy_deinit(&result.policy);
    return EXIT_DONE;
}

static int policy_show(struct invocation *invocation)
{
    return invocation_show(invocation, print_policy);
}

static int policy_set(struct invocation *invocation)
{
    return invocation_show(invocation, NULL);
}

static const struct option set_options[] = {
    {.name = "mode",
     .kind = OPTION_VALUE,
     .value = "MODE",
     .field = "mode",
     .words = MODE_WORDS,
     .doc = "what it may reach: disabled, loopback, outbound or full (default: as it is)"},
    ARGUMENTS_ALLOW("allow"),
    ARGUMENTS_DENY("deny"),
    ARGUMENTS_LOG_DENIED("log_denied"),
    ARGUMENTS_DROP("drop"),
    {.name = "cut", .field = "cut", .doc = "end connections that run and are no longer allowed"},
    {0},
};

static int print_verdict(struct invocation *invocation, const struct proto_response *response)
{
    struct policy_test_result result;
    int code = invocation_decode(response, &proto_policy_test_result, &result);

    (void)invocation;
    if (code == EXIT_DONE)
        printf("%s: %s\n", result.allowed ? "allowed" : "denied", result.reason);
    return code;
}

static int policy_test(struct invocation *invocation)
{
    return invocation_show(invocation, print_verdict);
}

static const struct positional test_positionals[] = {
    ARGUMENTS_GUEST("guest"), {.name = "DEST:PORT[/PROTO]", .field = "destination"}, {0}};

static const struct positional positionals[] = {ARGUMENTS_GUEST("guest"), {0}};

const struct command policy_commands[] = {
    {.group = "policy",
     .name = "show",
     .summary = "show a guest's mode and rules",
     .positionals = positionals,
     .method = METHOD_POLICY_GET,
     .run = policy_show},
    {.group = "policy",
     .name = "set",
     .summary = "replace a guest's rules",
     .options = set_options,
     .positionals = positionals,
     .method = METHOD_POLICY_SET,
     .run = policy_set,
     .text = "The rules that were there are gone; without --allow and --deny the guest has none."},
    {.group = "policy",
     .name = "test",
     .summary = "say whether a guest could open a connection",
     .positionals = test_positionals,
     .method = METHOD_POLICY_TEST,
     .run = policy_test,
     .text =
         "DEST is an address (IPv6 in brackets) or a name, PROTO tcp (default) or udp; for ping\n"
         "give DEST/icmp. Prints allowed or denied, and by which rule; sends no packet."},
    {0},
};
