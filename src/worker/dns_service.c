/* SPDX-License-Identifier: GPL-2.0-or-later */
/* On an internal network what is not ours is REFUSED (with extended error 18, Prohibited): true,
 * where NXDOMAIN would say that the name does not exist and be remembered; and libc's and systemd's
 * resolvers go on to the next server, which a guest with a second network has. SERVFAIL would make
 * resolvers try again and again. */
#include "worker/dns_service.h"

#include <stdlib.h>

#include "worker/dns_local.h"

static struct dns_quota *asker_quota(struct dns_service *service, const struct dns_asker *asker)
{
    return asker->guest ? &asker->guest->quota : &service->host_quota;
}

struct dns_quota *dns_service_quota(struct dns_service *service, struct zone_network *network,
                                    const struct ip *source)
{
    struct dns_asker asker;

    if (!zone_asker_find(service->zone, network, source, zone_source_hash(source), &asker))
        return NULL;
    return asker_quota(service, &asker);
}

static size_t reply_rcode(struct dns_request *request, const struct dns_terms *terms,
                          enum dns_rcode rcode, enum dns_ede ede)
{
    struct dns_reply reply;

    dns_reply_begin(&reply, request->data, request->capacity, terms);
    return dns_reply_finish(&reply, terms, 0, rcode, ede);
}

/* --- what waits --- */

static void client_answer(struct dns_waiter *waiter, const struct dns_stored *stored)
{
    struct dns_client *client = (struct dns_client *)waiter; /* its first member */
    struct dns_service *service = client->service;
    struct dns_stored failed = {.rcode = DNS_RCODE_SERVFAIL};
    size_t length;

    memcpy(service->buffer, client->question, client->terms.question_end);
    length = dns_stored_reply(stored ? stored : &failed, service->buffer, sizeof(service->buffer),
                              &client->terms);
    client->reply(client, service->buffer, length);
}

static void client_drop(struct dns_waiter *waiter)
{
    struct dns_client *client = (struct dns_client *)waiter;

    client->reply(client, NULL, 0);
}

static const struct dns_waiter_ops client_ops = {.answer = client_answer, .drop = client_drop};

static size_t query_forward(struct dns_service *service, struct dns_request *request,
                            const struct dns_query *query, const struct dns_asker *asker,
                            struct dns_upstreams *upstreams)
{
    size_t length = query->terms.question_end;
    struct dns_client *client;

    if (upstreams->count == 0)
        return reply_rcode(request, &query->terms, DNS_RCODE_SERVFAIL, DNS_EDE_NO_REACHABLE);
    client = request->client_new(request, length);
    if (!client)
        return reply_rcode(request, &query->terms, DNS_RCODE_SERVFAIL, DNS_EDE_NONE);
    client->waiter.ops = &client_ops;
    client->waiter.quota = asker_quota(service, asker);
    client->service = service;
    client->terms = query->terms;
    memcpy(client->question, request->data, length);
    if (dns_forward_ask(service->forward, upstreams, query, &client->waiter) < 0)
        client_answer(&client->waiter, NULL);
    return 0;
}

/* --- what is asked --- */

static struct dns_upstreams *upstreams_of(const struct dns_service *service,
                                          const struct dns_asker *asker)
{
    if (asker->guest && asker->guest->upstreams)
        return asker->guest->upstreams;
    return asker->network->upstreams ? asker->network->upstreams : service->upstreams;
}

static size_t query_elsewhere(struct dns_service *service, struct dns_request *request,
                              const struct dns_query *query, const struct dns_asker *asker)
{
    struct dns_upstreams *upstreams = upstreams_of(service, asker);
    struct dns_cache_key key;
    struct dns_stored stored;

    if (asker->network->internal) {
        service->stats.refused++;
        return reply_rcode(request, &query->terms, DNS_RCODE_REFUSED, DNS_EDE_PROHIBITED);
    }
    if (!(query->terms.flags & DNS_FLAG_RD)) /* we hold no such zone, and are not asked to ask */
        return reply_rcode(request, &query->terms, DNS_RCODE_REFUSED, DNS_EDE_NONE);
    dns_forward_key(&key, upstreams, query);
    if (dns_cache_find(service->cache, &key, request->now_ms, &stored)) {
        service->stats.cached++;
        return dns_stored_reply(&stored, request->data, request->capacity, &query->terms);
    }
    return query_forward(service, request, query, asker, upstreams);
}

/* What no name can answer; NOERROR: go on. */
static enum dns_rcode query_check(const struct dns_query *query)
{
    if (query->terms.edns_version > 0)
        return DNS_RCODE_BADVERS;
    if (query->type == DNS_TYPE_OPT || query->type == DNS_TYPE_NONE)
        return DNS_RCODE_FORMERR;
    if (query->class != DNS_CLASS_IN)
        return DNS_RCODE_REFUSED;
    if (query->type >= DNS_TYPE_META_FIRST && query->type <= DNS_TYPE_META_LAST)
        return DNS_RCODE_REFUSED;
    return DNS_RCODE_NOERROR;
}

static size_t query_answer(struct dns_service *service, struct dns_request *request,
                           const struct dns_query *query, const struct dns_asker *asker)
{
    enum dns_rcode rcode = query_check(query);
    size_t length;

    if (rcode != DNS_RCODE_NOERROR)
        return reply_rcode(request, &query->terms, rcode, DNS_EDE_NONE);
    if (dns_local_answer(service->zone, asker, query, request->data, request->capacity, &length)) {
        service->stats.local++;
        return length;
    }
    return query_elsewhere(service, request, query, asker);
}

void dns_service_read(const struct dns_service *service, struct dns_request *request)
{
    struct dns_query *query = &request->query;

    request->source_hash = zone_source_hash(&request->source);
    request->parse = dns_query_parse(request->data, request->length, query);
    query->terms.tcp = request->tcp;
    if (request->parse != DNS_PARSE_OK)
        return;
    dns_local_prepare(service->zone, query);
    zone_prefetch_slots(service->zone, query->key_hash, request->source_hash);
}

void dns_service_prefetch(const struct dns_service *service, const struct dns_request *request)
{
    if (request->parse == DNS_PARSE_OK)
        zone_prefetch_items(service->zone, request->query.key_hash, request->source_hash);
}

size_t dns_service_answer(struct dns_service *service, struct dns_request *request)
{
    struct dns_asker asker;

    service->stats.queries++;
    if (!zone_asker_find(service->zone, request->network, &request->source, request->source_hash,
                         &asker)) {
        service->stats.refused++;
        return 0;
    }
    switch (request->parse) {
    case DNS_PARSE_OK:
        return query_answer(service, request, &request->query, &asker);
    case DNS_PARSE_FORMERR:
        return dns_error_build(request->data, DNS_RCODE_FORMERR);
    case DNS_PARSE_NOTIMP:
        return dns_error_build(request->data, DNS_RCODE_NOTIMP);
    case DNS_PARSE_DROP:
        break;
    }
    return 0;
}
