/* SPDX-License-Identifier: GPL-2.0-or-later */
/* On an internal network what is not ours is REFUSED (with extended error 18, Prohibited): true,
 * where NXDOMAIN would say that the name does not exist and be remembered; and libc's and systemd's
 * resolvers go on to the next server, which a guest with a second network has. SERVFAIL would make
 * resolvers try again and again. */
#include "worker/dns_service.h"

#include <stdlib.h>

#include "worker/dns_local.h"

#define QUERY_CREDIT 1000ull /* of a quota, for one query */

static const struct dns_alias_place no_alias = {0};

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

/* The reply to a question that is not ours to answer, or that began with aliases of ours. */
static size_t elsewhere_rcode(struct dns_request *request, const struct dns_terms *terms,
                              const struct dns_alias_place *alias, enum dns_rcode rcode,
                              enum dns_ede ede)
{
    if (alias->length == 0)
        return reply_rcode(request, terms, rcode, ede);
    return dns_alias_reply_rcode(alias, request->data, request->capacity, terms, rcode, ede);
}

static size_t stored_reply(const struct dns_alias_place *alias, const struct dns_stored *stored,
                           uint8_t *data, size_t capacity, const struct dns_terms *terms)
{
    if (alias->length == 0)
        return dns_stored_reply(stored, data, capacity, terms);
    return dns_alias_reply(alias, stored, data, capacity, terms);
}

/* A reply without records, over one that has the same question. */
static size_t rcode_build(uint8_t *data, size_t capacity, const struct dns_terms *terms,
                          enum dns_rcode rcode)
{
    struct dns_reply reply;

    dns_reply_begin(&reply, data, capacity, terms);
    return dns_reply_finish(&reply, terms, 0, rcode, DNS_EDE_NONE);
}

/* --- what waits --- */

/* Addresses are not told before they are open: those of the name that was asked for or, where no
 * rule speaks of that, of the one that an alias of ours leads to. */
static bool give_needed(struct dns_service *service, struct dns_permit *permit,
                        const struct dns_name *name, const struct dns_alias_place *alias,
                        uint8_t *data, size_t length)
{
    if (dns_give_needed(service->gives, permit, name, data, length))
        return true;
    return alias->length && dns_name_read(data, length, alias->owner, &service->given) &&
           dns_give_needed(service->gives, permit, &service->given, data, length);
}

/* False: the reply goes out now. */
static bool client_hold(struct dns_client *client, uint8_t *data, size_t *length)
{
    struct dns_service *service = client->service;
    struct dns_permit *permit = dns_permits_find(service->permits, client->guest_id);
    struct dns_name name;

    if (!permit || dns_name_read(data, client->terms.question_end, DNS_HEADER_SIZE, &name) == 0 ||
        !give_needed(service, permit, &name, &client->alias, data, *length))
        return false;
    if (dns_give_hold(service->gives, permit, client, data, *length))
        return true;
    *length = rcode_build(data, *length, &client->terms, DNS_RCODE_SERVFAIL);
    return false;
}

/* A guest's quota is a part of it. */
static const struct zone_guest *client_guest(const struct dns_client *client)
{
    const char *quota = (const char *)client->waiter.quota;

    if (client->waiter.quota == &client->service->host_quota)
        return NULL;
    return (const struct zone_guest *)(quota - offsetof(struct zone_guest, quota));
}

/* A reply that had to wait, as it leaves. */
static void client_log(const struct dns_client *client, const uint8_t *reply)
{
    if (client->started_us > 0)
        dns_log_add(client->service->log, client_guest(client), client->network, reply,
                    client->terms.question_end, reply[3] & DNS_FLAG_RCODE, client->source,
                    client->started_us);
}

static void client_answer(struct dns_waiter *waiter, const struct dns_stored *stored)
{
    struct dns_client *client = (struct dns_client *)waiter; /* its first member */
    struct dns_service *service = client->service;
    struct dns_stored failed = {.rcode = DNS_RCODE_SERVFAIL};
    size_t length = client->alias.length ? client->alias.length : client->terms.question_end;

    memcpy(service->buffer, client->question, length);
    length = stored_reply(&client->alias, stored ? stored : &failed, service->buffer,
                          sizeof(service->buffer), &client->terms);
    client->source = stored && stored->stale ? DNS_SOURCE_CACHE : DNS_SOURCE_UPSTREAM;
    if (client_hold(client, service->buffer, &length))
        return;
    client_log(client, service->buffer);
    client->reply(client, service->buffer, length);
}

static void client_drop(struct dns_waiter *waiter)
{
    struct dns_client *client = (struct dns_client *)waiter;

    client->reply(client, NULL, 0);
}

void dns_service_release(struct dns_client *client, uint8_t *data, size_t length,
                         enum dns_rcode rcode)
{
    if (rcode != DNS_RCODE_NOERROR)
        length = rcode_build(data, length, &client->terms, rcode);
    client_log(client, data);
    client->reply(client, data, length);
}

void dns_service_drop(struct dns_client *client)
{
    client->reply(client, NULL, 0);
}

void dns_service_cancel(struct dns_client *client)
{
    if (client->give)
        dns_give_cancel(client->give);
    else
        dns_forward_cancel(client->service->forward, &client->waiter);
}

static const struct dns_waiter_ops client_ops = {.answer = client_answer, .drop = client_drop};

/* question: what is asked of upstream servers; its terms are the query's. */
static size_t query_forward(struct dns_service *service, struct dns_request *request,
                            const struct dns_query *question, const struct dns_alias_place *alias,
                            const struct dns_asker *asker, struct dns_upstreams *upstreams)
{
    size_t length = alias->length ? alias->length : question->terms.question_end;
    struct dns_client *client;

    if (upstreams->count == 0)
        return elsewhere_rcode(request, &question->terms, alias, DNS_RCODE_SERVFAIL,
                               DNS_EDE_NO_REACHABLE);
    client = request->client_new(request, length);
    if (!client)
        return elsewhere_rcode(request, &question->terms, alias, DNS_RCODE_SERVFAIL, DNS_EDE_NONE);
    client->waiter.ops = &client_ops;
    client->waiter.quota = asker_quota(service, asker);
    client->service = service;
    client->guest_id = asker->guest ? asker->guest->id : 0;
    client->terms = question->terms;
    client->network = request->network;
    client->started_us = request->started_us;
    client->alias = *alias;
    memcpy(client->question, request->data, length);
    if (dns_forward_ask(service->forward, upstreams, question, &client->waiter) < 0)
        client_answer(&client->waiter, NULL);
    return 0;
}

/* --- what is asked --- */

static struct dns_upstreams *upstreams_of(const struct dns_service *service,
                                          const struct dns_asker *asker,
                                          const struct dns_name *name)
{
    struct dns_upstreams *route = dns_routes_find(&service->routes, name);

    if (route)
        return route;
    if (asker->guest && asker->guest->upstreams)
        return asker->guest->upstreams;
    return asker->network->upstreams ? asker->network->upstreams : service->upstreams;
}

/* By its domain rules a guest may ask for the name itself, or for the alias of ours that leads
 * there.
 */
static bool may_ask(const struct dns_request *request, const struct dns_name *name)
{
    unsigned answer;

    if (!request->permit)
        return true;
    answer = dns_permit_check(request->permit, name);
    if (!(answer & DNS_PERMIT_NEVER))
        answer |= dns_permit_check(request->permit, &request->query.name);
    return answer & DNS_PERMIT_OUTSIDE;
}

static size_t query_elsewhere(struct dns_service *service, struct dns_request *request,
                              const struct dns_query *question, const struct dns_alias_place *alias,
                              const struct dns_asker *asker)
{
    struct dns_upstreams *upstreams = upstreams_of(service, asker, &question->name);
    const struct dns_terms *terms = &question->terms;
    struct dns_cache_key key;
    struct dns_stored stored;

    if (asker->network->internal || !may_ask(request, &question->name)) {
        service->stats.refused++;
        return elsewhere_rcode(request, terms, alias, DNS_RCODE_REFUSED, DNS_EDE_PROHIBITED);
    }
    if (!(terms->flags & DNS_FLAG_RD)) /* we hold no such zone, and are not asked to ask */
        return elsewhere_rcode(request, terms, alias,
                               alias->length ? DNS_RCODE_NOERROR : DNS_RCODE_REFUSED, DNS_EDE_NONE);
    dns_forward_key(&key, upstreams, question);
    if (dns_cache_find(service->cache, &key, request->now_ms, &stored)) {
        service->stats.cached++;
        service->source = DNS_SOURCE_CACHE;
        return stored_reply(alias, &stored, request->data, request->capacity, terms);
    }
    service->stats.missed++;
    return query_forward(service, request, question, alias, asker, upstreams);
}

/* The name that an alias of ours stands for is asked for instead. */
static size_t query_alias(struct dns_service *service, struct dns_request *request,
                          const struct dns_query *query, const struct dns_asker *asker)
{
    struct dns_query question = {.terms = query->terms,
                                 .type = query->type,
                                 .class = query->class,
                                 .name = service->alias.name};

    request->alias = dns_alias_place_of(&service->alias);
    return query_elsewhere(service, request, &question, &request->alias, asker);
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
    if (request->permit && dns_permit_check(request->permit, &query->name) & DNS_PERMIT_NEVER) {
        service->stats.refused++;
        return reply_rcode(request, &query->terms, DNS_RCODE_REFUSED, DNS_EDE_PROHIBITED);
    }
    switch (dns_local_answer(service->zone, asker, query, request->data, request->capacity, &length,
                             &service->alias)) {
    case DNS_LOCAL_DONE:
        service->stats.local++;
        return length;
    case DNS_LOCAL_ALIAS:
        return query_alias(service, request, query, asker);
    case DNS_LOCAL_NOT_OURS:
        break;
    }
    return query_elsewhere(service, request, query, &no_alias, asker);
}

/* The reply that is there already must wait like one from upstream servers. */
static size_t query_hold(struct dns_service *service, struct dns_request *request,
                         const struct dns_asker *asker, size_t length)
{
    const struct dns_query *query = &request->query;
    struct dns_client *client;

    if (!give_needed(service, request->permit, &query->name, &request->alias, request->data,
                     length))
        return length;
    client = request->client_new(request, 0);
    if (!client)
        return reply_rcode(request, &query->terms, DNS_RCODE_SERVFAIL, DNS_EDE_NONE);
    client->waiter.quota = asker_quota(service, asker);
    client->service = service;
    client->guest_id = request->permit->guest_id;
    client->terms = query->terms;
    client->network = request->network;
    client->started_us = request->started_us;
    client->source = service->source;
    if (!dns_give_hold(service->gives, request->permit, client, request->data, length))
        dns_service_release(client, request->data, length, DNS_RCODE_SERVFAIL);
    return 0;
}

/* A reply that is there at once. */
static void query_log(struct dns_service *service, const struct dns_request *request,
                      const struct dns_asker *asker)
{
    const struct dns_terms *terms = &request->query.terms;
    uint16_t rcode = request->data[3] & DNS_FLAG_RCODE;

    dns_log_add(service->log, asker->guest, asker->network, request->data, terms->question_end,
                terms->edns_version > 0 ? (uint16_t)DNS_RCODE_BADVERS : rcode, service->source,
                request->started_us);
}

static size_t query_answer_permitted(struct dns_service *service, struct dns_request *request,
                                     const struct dns_asker *asker)
{
    size_t length;

    service->source = DNS_SOURCE_LOCAL;
    length = query_answer(service, request, &request->query, asker);
    if (length > 0 && request->permit)
        length = query_hold(service, request, asker, length);
    if (length > 0 && request->started_us > 0)
        query_log(service, request, asker);
    return length;
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

/* A bucket that holds the queries of one second. */
static bool quota_take(struct dns_quota *quota, uint32_t rate, uint64_t now_ms)
{
    uint64_t most = rate * QUERY_CREDIT;
    uint64_t more = (now_ms - quota->credited_ms) * rate;

    quota->credit = more < most - quota->credit ? quota->credit + more : most;
    quota->credited_ms = now_ms;
    if (quota->credit < QUERY_CREDIT)
        return false;
    quota->credit -= QUERY_CREDIT;
    return true;
}

/* By UDP there is no answer: the client's next attempt comes when it may. By TCP that would hold up
 * the connection. */
static size_t answer_too_many(struct dns_service *service, struct dns_request *request)
{
    service->stats.shed++;
    if (!request->tcp || request->parse != DNS_PARSE_OK)
        return 0;
    return reply_rcode(request, &request->query.terms, DNS_RCODE_REFUSED, DNS_EDE_PROHIBITED);
}

static size_t asker_answer(struct dns_service *service, struct dns_request *request,
                           const struct dns_asker *asker)
{
    if (service->rate > 0 && asker->guest &&
        !quota_take(&asker->guest->quota, service->rate, request->now_ms))
        return answer_too_many(service, request);
    request->permit = asker->guest ? dns_permits_find(service->permits, asker->guest->id) : NULL;
    request->alias = no_alias;
    switch (request->parse) {
    case DNS_PARSE_OK:
        return query_answer_permitted(service, request, asker);
    case DNS_PARSE_FORMERR:
        return dns_error_build(request->data, DNS_RCODE_FORMERR);
    case DNS_PARSE_NOTIMP:
        return dns_error_build(request->data, DNS_RCODE_NOTIMP);
    case DNS_PARSE_DROP:
        break;
    }
    return 0;
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
    request->started_us = service->logging ? dns_log_now_us() : 0;
    return asker_answer(service, request, &asker);
}
