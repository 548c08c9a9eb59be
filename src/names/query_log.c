/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A ring: query number N stands at N % QUERY_LOG_MAX. Queries that the worker had no room for have
 * numbers too, so that a reader learns how many it has missed. */
#include "names/query_log.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "worker/dns_codec.h"
#include "worker/dns_message.h"

#define LOST_MAX 1000000000u /* a worker that claims more is not believed */

struct query_log {
    uint64_t next; /* number of the next query; the first is 1 */
    struct dns_query_result queries[QUERY_LOG_MAX];
};

/* --- texts --- */

static const struct {
    uint16_t type;
    const char *name;
} types[] = {
    {1, "A"},       {2, "NS"},     {5, "CNAME"},  {6, "SOA"},    {12, "PTR"},
    {15, "MX"},     {16, "TXT"},   {28, "AAAA"},  {33, "SRV"},   {35, "NAPTR"},
    {39, "DNAME"},  {43, "DS"},    {44, "SSHFP"}, {46, "RRSIG"}, {47, "NSEC"},
    {48, "DNSKEY"}, {50, "NSEC3"}, {52, "TLSA"},  {64, "SVCB"},  {65, "HTTPS"},
    {99, "SPF"},    {251, "IXFR"}, {252, "AXFR"}, {255, "ANY"},  {257, "CAA"},
};

/* RFC 3597 section 5 for those without a name here. */
static void type_format(uint16_t type, char text[16])
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (types[i].type == type) {
            snprintf(text, 16, "%s", types[i].name);
            return;
        }
    }
    snprintf(text, 16, "TYPE%u", type);
}

static void rcode_format(uint16_t rcode, char text[16])
{
    static const char *const names[] = {"NOERROR",  "FORMERR", "SERVFAIL",
                                        "NXDOMAIN", "NOTIMP",  "REFUSED"};

    if (rcode < sizeof(names) / sizeof(names[0]))
        snprintf(text, 16, "%s", names[rcode]);
    else if (rcode == DNS_RCODE_BADVERS)
        snprintf(text, 16, "BADVERS");
    else
        snprintf(text, 16, "RCODE%u", rcode);
}

static const char *const sources[] = {
    [DNS_SOURCE_LOCAL] = "local",
    [DNS_SOURCE_CACHE] = "cache",
    [DNS_SOURCE_UPSTREAM] = "upstream",
};

static_assert(sizeof(sources) / sizeof(sources[0]) == DNS_SOURCE_COUNT_, "each source has a name");

/* A guest's or network's name; "" where the length is 0. False: it is none. */
static bool name_read(const uint8_t *text, size_t length, char name[NAME_MAX_LENGTH + 1])
{
    if (length > NAME_MAX_LENGTH)
        return false;
    memcpy(name, text, length);
    name[length] = '\0';
    return length == 0 || name_is_valid(name);
}

/* --- the ring --- */

struct query_log *query_log_new(void)
{
    struct query_log *log = calloc(1, sizeof(*log));

    if (log)
        log->next = 1;
    return log;
}

void query_log_clear(struct query_log *log)
{
    for (size_t i = 0; i < QUERY_LOG_MAX; i++) {
        free(log->queries[i].name);
        log->queries[i] = (struct dns_query_result){0};
    }
}

void query_log_free(struct query_log *log)
{
    if (!log)
        return;
    query_log_clear(log);
    free(log);
}

/* Takes the name over. */
static void query_put(struct query_log *log, const struct dns_query_result *query)
{
    struct dns_query_result *place = &log->queries[log->next % QUERY_LOG_MAX];

    free(place->name);
    *place = *query;
    place->number = log->next++;
}

static bool entry_put(struct query_log *log, const struct dns_query_entry *entry)
{
    const uint8_t *guest = entry->text + entry->name_length;
    struct dns_query_result query = {.time_ms = (int64_t)entry->time_ms,
                                     .duration_us = entry->duration_us};
    struct dns_name name;
    char text[DNS_TEXT_MAX];

    if (entry->time_ms > INT64_MAX / 2 || entry->source >= DNS_SOURCE_COUNT_ ||
        dns_name_read(entry->text, entry->name_length, 0, &name) != entry->name_length ||
        entry->name_length == 0 || !name_read(guest, entry->guest_length, query.guest) ||
        !name_read(guest + entry->guest_length, entry->network_length, query.network))
        return false;
    type_format(entry->type, query.type);
    rcode_format(entry->rcode, query.rcode);
    snprintf(query.source, sizeof(query.source), "%s", sources[entry->source]);
    query.name = strdup(dns_name_format(entry->text, text));
    if (!query.name)
        return false;
    query_put(log, &query);
    return true;
}

bool query_log_add(struct query_log *log, const void *payload, size_t length)
{
    const struct dns_queries_message *message = payload; /* aligned for any type */
    size_t at = sizeof(*message);

    if (length < at || message->lost > LOST_MAX)
        return false;
    log->next += message->lost;
    while (length - at >= offsetof(struct dns_query_entry, text)) {
        const struct dns_query_entry *entry =
            (const struct dns_query_entry *)((const char *)payload + at);
        size_t size = DNS_QUERY_ENTRY_SIZE((size_t)entry->name_length + entry->guest_length +
                                           entry->network_length);

        if (length - at < size || !entry_put(log, entry))
            return false;
        at += size;
    }
    return at == length;
}

/* --- reading --- */

static int query_copy(const struct dns_query_result *from, struct dns_query_result *ret_to)
{
    *ret_to = *from;
    ret_to->name = strdup(from->name);
    return ret_to->name ? 0 : -ENOMEM;
}

int query_log_read(const struct query_log *log, uint64_t since, struct dns_log_result *ret_result,
                   struct error *error)
{
    uint64_t oldest = log->next > QUERY_LOG_MAX ? log->next - QUERY_LOG_MAX : 1;
    uint64_t number = since > log->next ? log->next : since;
    struct dns_log_result result = {0};

    if (since > 0 && number < oldest)
        result.lost = oldest - number;
    if (number < oldest)
        number = oldest;
    result.queries = calloc(LIMIT_DNS_LOG, sizeof(*result.queries));
    if (!result.queries)
        return error_set(error, ENOMEM, "query log");
    for (; number < log->next && result.n_queries < LIMIT_DNS_LOG; number++) {
        const struct dns_query_result *query = &log->queries[number % QUERY_LOG_MAX];

        if (query->number != number) {
            result.lost++; /* the worker had no room for it, or it was forgotten */
        } else if (query_copy(query, &result.queries[result.n_queries++]) < 0) {
            dns_log_result_deinit(&result);
            return error_set(error, ENOMEM, "query log");
        }
    }
    result.next = number;
    *ret_result = result;
    return 0;
}
