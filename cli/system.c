/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat status, doctor, events, teardown */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "arguments.h"
#include "base/cleanup.h"
#include "remote.h"
#include "show.h"

#define TEARDOWN_TIMEOUT_MS 5000

/* --- status --- */

static void print_uptime(uint64_t seconds)
{
    printf("uptime      %" PRIu64 " d %" PRIu64 " h %" PRIu64 " min %" PRIu64 " s\n",
           seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
}

static void print_names(const struct dns_counters *dns)
{
    uint64_t outside = dns->cached + dns->missed;

    printf("names       %" PRIu64 " queries, %" PRIu64 " answered here, %" PRIu64
           " of other servers\n",
           dns->queries, dns->local, outside);
    printf("cache       %" PRIu64 " answers, %" PRIu64 " KiB", dns->cache_entries,
           (dns->cache_bytes + 1023) / 1024);
    if (outside > 0)
        printf(", hit rate %" PRIu64 " %%", dns->cached * 100 / outside);
    putchar('\n');
}

/* "-" while there is none. */
static void print_worker(const char *name, uint32_t pid, const char *end)
{
    if (pid)
        printf("%s %u%s", name, pid, end);
    else
        printf("%s -%s", name, end);
}

static int print_status(struct invocation *invocation, const struct proto_response *response)
{
    struct status_result status;
    struct text upstreams = {0};
    char address[IP_TEXT_MAX];
    int code = invocation_decode(response, &proto_status, &status);

    (void)invocation;
    if (code != EXIT_DONE)
        return code;
    for (size_t i = 0; i < status.upstreams.count; i++)
        show_append(&upstreams, ip_format(&status.upstreams.items[i], address));
    for (size_t i = 0; i < status.forward.count; i++)
        show_append(&upstreams, status.forward.items[i]);
    printf("moatd       %s, process %u\n", status.version, status.pid);
    print_uptime(status.uptime_seconds);
    printf("networks    %" PRIu64 "\nguests      %" PRIu64 "\nports       %" PRIu64 "\n",
           status.networks, status.guests, status.ports);
    printf("domain      %s\nupstreams   %s\n", status.domain,
           upstreams.length ? show_text(&upstreams) : "-");
    print_names(&status.dns);
    print_worker("workers     dns", status.dns_pid, ",");
    print_worker(" relay", status.relay_pid, "\n");
    printf("nftables    %s\n",
           status.table_owned ? "an owned table: a foreign \"flush ruleset\" passes it by"
                              : "a plain table: watched, and repaired when somebody flushes it");
    text_deinit(&upstreams);
    ips_deinit(&status.upstreams);
    strings_deinit(&status.forward);
    return EXIT_DONE;
}

static int system_status(struct invocation *invocation)
{
    return invocation_show(invocation, print_status);
}

/* --- doctor --- */

static void print_check(const struct check_result *check)
{
    printf("%-5s %s%s%s\n", check->ok ? "ok" : "FAIL", check->name, check->detail[0] ? ": " : "",
           check->detail);
    if (!check->ok && check->remedy[0])
        printf("      -> %s\n", check->remedy);
}

/* Exit code 1 where a check fails, with --json too. */
static int system_doctor(struct invocation *invocation)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    const struct check_result *checks;
    void *items;
    size_t count;
    int code = invocation_call_own(invocation, &response);

    if (code == EXIT_DONE)
        code = invocation_decode_list(response, &proto_check, &items, &count);
    if (code != EXIT_DONE)
        return code;
    checks = items;
    for (size_t i = 0; i < count; i++) {
        if (!invocation->json)
            print_check(&checks[i]);
        if (!checks[i].ok)
            code = EXIT_REFUSED;
    }
    if (invocation->json && invocation_print_json(response) != EXIT_DONE)
        code = EXIT_REFUSED;
    invocation_free_list(&proto_check, items, count);
    return code;
}

/* --- events --- */

static int print_event(const struct proto_response *response)
{
    struct event event;
    int code = invocation_decode(response, &proto_event, &event);

    if (code != EXIT_DONE)
        return code;
    show_time(event.time_ms);
    printf(" %s", event.type);
    if (event.guest[0])
        printf(" guest=%s", event.guest);
    if (event.network[0])
        printf(" network=%s", event.network);
    if (event.detail[0])
        printf(" %s", event.detail);
    putchar('\n');
    return EXIT_DONE;
}

/* Ends with the daemon (3) or by a signal; a reader that goes away ends it by SIGPIPE. */
static int system_events(struct invocation *invocation)
{
    _cleanup_(proto_response_freep) struct proto_response *answer = NULL;
    struct error error = ERROR_INIT;
    int code = invocation_call_own(invocation, &answer);

    while (code == EXIT_DONE) {
        _cleanup_(proto_response_freep) struct proto_response *event = NULL;

        if (remote_event(invocation->remote, &event, &error) < 0)
            return invocation_fail(EXIT_UNREACHABLE, &error);
        code = invocation->json ? invocation_print_json(event) : print_event(event);
        if (fflush(stdout) != 0)
            code = EXIT_REFUSED;
    }
    return code;
}

/* --- teardown --- */

/* The daemon ends with it, and what follows this command may rely on that. */
static int tear_down(struct invocation *invocation)
{
    struct pollfd daemon = {.fd = -1, .events = POLLIN};
    int code = invocation_connect(invocation);

    if (code != EXIT_DONE)
        return code;
    daemon.fd = remote_open_daemon(invocation->remote);
    code = invocation_show(invocation, NULL);
    if (daemon.fd < 0)
        return code;
    if (code == EXIT_DONE)
        poll(&daemon, 1, TEARDOWN_TIMEOUT_MS);
    close(daemon.fd);
    return code;
}

static int system_teardown(struct invocation *invocation)
{
    struct error error = ERROR_INIT;

    if (invocation->yes)
        return tear_down(invocation);
    option_refuse(
        &error, "teardown removes every network, guest and port of moat; add --yes if you mean it");
    return invocation_fail(EXIT_USAGE, &error);
}

static const struct option teardown_options[] = {
    {.name = "yes", .letter = 'y', .set = arguments_set_yes, .doc = "yes, remove everything"},
    {0},
};

static const struct option events_options[] = {
    {.name = "guest",
     .kind = OPTION_VALUE,
     .value = "GUEST",
     .field = "guest",
     .complete = COMPLETE_GUEST,
     .doc = "only what happens to this guest"},
    {0},
};

const struct command system_commands[] = {
    {.name = "events",
     .summary = "print what happens, one line each, until it is ended",
     .options = events_options,
     .method = METHOD_EVENTS_SUBSCRIBE,
     .run = system_events,
     .text = "With --json one JSON document a line."},
    {.name = "status",
     .summary = "show what the daemon is and has",
     .method = METHOD_SYSTEM_STATUS,
     .run = system_status},
    {.name = "doctor",
     .summary = "check the host, with a remedy for what is wrong",
     .method = METHOD_SYSTEM_DOCTOR,
     .run = system_doctor,
     .text = "Exit status 1 where a check fails."},
    {.name = "teardown",
     .summary = "remove everything that moat ever made on this host",
     .options = teardown_options,
     .method = METHOD_SYSTEM_TEARDOWN,
     .run = system_teardown},
    {0},
};
