/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat policy */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "clock.h"
#include "remote.h"

#define LEARN_DEFAULT_S 60
#define LEARN_MAX_S 604800

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

/* --- learn --- */

static volatile sig_atomic_t is_interrupted;

static void interrupted(int signal_number)
{
    (void)signal_number;
    is_interrupted = 1;
}

static int set_for(struct invocation *invocation, const char *value, struct error *error)
{
    static const struct {
        const char *suffix;
        unsigned long seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    char *end;
    unsigned long number = strtoul(value, &end, 10);
    unsigned long seconds = 0;

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(end, units[i].suffix) == 0 && number <= LEARN_MAX_S)
            seconds = number * units[i].seconds;
    if (value[0] < '0' || value[0] > '9' || seconds == 0 || seconds > LEARN_MAX_S)
        return option_refuse(error, "--for: \"%s\" is no time of 1s to 7d, such as 90s or 5m",
                             value);
    invocation->for_s = (uint32_t)seconds;
    return 0;
}

/* From here on who interrupts ends the waiting, also when it has not begun yet. Blocked are the
 * signals but while it waits. */
static void learn_catch_interrupts(sigset_t *ret_before)
{
    struct sigaction action = {.sa_handler = interrupted};
    sigset_t waited;

    sigemptyset(&waited);
    sigaddset(&waited, SIGINT);
    sigaddset(&waited, SIGTERM);
    sigprocmask(SIG_BLOCK, &waited, ret_before);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Until the time is over, somebody interrupts, or the daemon goes away. */
static int learn_wait(struct invocation *invocation, uint32_t seconds, const sigset_t *before)
{
    int64_t end_ms = clock_now_ms() + (int64_t)seconds * 1000;
    struct pollfd daemon = {.fd = remote_fd(invocation->remote), .events = POLLIN};

    while (!is_interrupted && clock_now_ms() < end_ms) {
        int64_t left_ms = end_ms - clock_now_ms();
        struct timespec timeout = {.tv_sec = (time_t)(left_ms / 1000),
                                   .tv_nsec = (long)(left_ms % 1000) * 1000000};

        if (ppoll(&daemon, 1, &timeout, before) > 0 && remote_drain(invocation->remote) < 0) {
            fputs("moat: the daemon has ended; what was learnt is lost\n", stderr);
            return EXIT_UNREACHABLE;
        }
    }
    sigprocmask(SIG_SETMASK, before, NULL);
    return EXIT_DONE;
}

static int print_learned(const struct proto_response *response)
{
    struct learn_result result;
    int code = invocation_decode(response, &proto_learn_result, &result);

    if (code != EXIT_DONE)
        return code;
    for (size_t i = 0; i < result.rules.count; i++)
        puts(result.rules.items[i]);
    if (!result.complete)
        fputs("moat: there was more than could be taken; learn again, for a shorter time\n",
              stderr);
    strings_deinit(&result.rules);
    return EXIT_DONE;
}

static int policy_learn(struct invocation *invocation)
{
    _cleanup_(proto_response_freep) struct proto_response *begun = NULL;
    _cleanup_(proto_response_freep) struct proto_response *learned = NULL;
    union params params = {0};
    sigset_t before;
    int code;

    invocation->params.learn.enabled = true;
    learn_catch_interrupts(&before);
    code = invocation_call_own(invocation, &begun);
    if (code == EXIT_DONE)
        code = learn_wait(invocation, invocation->for_s ? invocation->for_s : LEARN_DEFAULT_S,
                          &before);
    if (code != EXIT_DONE)
        return code;
    memcpy(params.guest.guest, invocation->params.learn.guest, sizeof(params.guest.guest));
    code = invocation_call(invocation, METHOD_POLICY_LEARNED, &params, &learned);
    if (code != EXIT_DONE)
        return code;
    return invocation->json ? invocation_print_json(learned) : print_learned(learned);
}

static const struct option learn_options[] = {
    {.name = "for",
     .kind = OPTION_VALUE,
     .value = "TIME",
     .set = set_for,
     .doc = "for so long, such as 90s, 5m or 1h (default: 60s)"},
    {0},
};

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
    {.group = "policy",
     .name = "learn",
     .summary = "record what a guest opens, and print rules for it",
     .options = learn_options,
     .positionals = positionals,
     .method = METHOD_POLICY_LEARN,
     .run = policy_learn,
     .text =
         "Prints the least policy, one RULE a line, when the time is over or it is interrupted.\n"
         "Names that the guest looked up stand for their addresses."},
    {0},
};
