/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An answer of an upstream server: what is taken from it is cached and passed on as a well-formed
 * reply. */
#include <stdlib.h>
#include <string.h>

#include "worker/dns_cache.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* The reply to a client that asks the same question. */
static void reply_check(const struct dns_stored *stored, const struct dns_answer *answer, bool tcp)
{
    static uint8_t data[DNS_MESSAGE_MAX];
    struct dns_query query;
    struct dns_answer again;
    size_t length = dns_question_build(data, 1, answer->name.wire, answer->name.length,
                                       answer->type, 0, true, false);

    must(dns_query_parse(data, length, &query) == DNS_PARSE_OK);
    query.terms.tcp = tcp;
    length = dns_stored_reply(stored, data, sizeof(data), &query.terms);
    must(tcp || length <= DNS_UDP_MAX);
    must(dns_answer_parse(data, length, &again));
    must(again.answers == (again.flags & DNS_FLAG_TC ? 0 : answer->answers));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dns_cache *cache;
    struct dns_answer answer;
    struct dns_stored stored;
    uint8_t *copy = malloc(size + 1);

    must(copy != NULL);
    if (!cache)
        cache = dns_cache_new(1 << 16);
    memcpy(copy, data, size);
    if (dns_answer_parse(copy, size, &answer) && answer.has_question) {
        struct dns_cache_key key = {.upstreams = 1, .type = answer.type, .name = &answer.name};

        dns_stored_from_answer(&stored, &answer, copy);
        reply_check(&stored, &answer, true);
        reply_check(&stored, &answer, false);
        dns_cache_put(cache, &key, &answer, copy, 1000);
        if (dns_cache_find(cache, &key, 5000, &stored))
            reply_check(&stored, &answer, true);
        must(dns_cache_bytes(cache) <= 1 << 16);
    }
    free(copy);
    return 0;
}
