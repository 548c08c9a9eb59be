/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat dns log */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/cleanup.h"
#include "dns_log.h"
#include "remote.h"
#include "show.h"

#define FOLLOW_INTERVAL_MS 200

static void print_query(const struct dns_query_result *query)
{
    show_time(query->time_ms);
    printf(" %s %s %s %s %s %" PRIu32 ".%" PRIu32 " ms\n", query->guest[0] ? query->guest : "host",
           query->name, query->type, query->rcode, query->source, query->duration_us / 1000,
           query->duration_us % 1000 / 100);
}

static void print_queries(const struct dns_log_result *log)
{
    if (log->lost > 0)
        fprintf(stderr, "moat: %" PRIu64 " queries are missing here\n", log->lost);
    for (size_t i = 0; i < log->n_queries; i++)
        print_query(&log->queries[i]);
}

static void pause_a_moment(void)
{
    struct timespec moment = {.tv_nsec = FOLLOW_INTERVAL_MS * 1000000L};

    nanosleep(&moment, NULL);
}

/* Once, from params.since on. With --json the answer as it is, or, where `quiet`, if it says
 * anything. *ret_log is not to be freed: its queries are gone. */
static int read_once(struct invocation *invocation, bool quiet, struct dns_log_result *ret_log)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    struct dns_log_result log = {0};
    int code = invocation_call_own(invocation, &response);

    if (code == EXIT_DONE)
        code = invocation_decode(response, &proto_dns_log, &log);
    if (code != EXIT_DONE)
        return code;
    if (!invocation->json)
        print_queries(&log);
    else if (!quiet || log.n_queries > 0 || log.lost > 0)
        code = invocation_print_json(response);
    *ret_log = log;
    dns_log_result_deinit(&log);
    invocation->params.dns_log.since = ret_log->next;
    return fflush(stdout) == 0 ? code : EXIT_REFUSED;
}

int dns_log_run(struct invocation *invocation)
{
    struct dns_log_result log;
    int code = read_once(invocation, false, &log);

    if (code == EXIT_DONE && log.began && !invocation->json && !invocation->follow)
        fputs("moat: queries are kept from now on, until ten minutes after this was last asked\n",
              stderr);
    while (code == EXIT_DONE && (invocation->follow || log.n_queries == LIMIT_DNS_LOG)) {
        if (log.n_queries < LIMIT_DNS_LOG)
            pause_a_moment();
        code = read_once(invocation, true, &log);
    }
    return code;
}
