/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Learning what a guest opens: while it lasts, connection tracking's events are noted, and the name
 * service tells which names the guest looked up. What comes of it are the fewest rules that allow
 * just that (learn_rules.c). It is bound to the connection that asked for it.
 *
 * Connections within a bridge pass by the host's connection tracking, so a guest that is learnt has
 * routed ports meanwhile. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "nat/flows.h"
#include "service/learn_rules.h"
#include "service/private.h"
#include "worker/dns_codec.h"
#include "worker/dns_table.h"

#define FLOWS_MAX 16384 /* different connections of one guest */
#define ADDRESSES_MAX ((size_t)2 * LIMIT_ENDPOINTS)
#define REFRESH_MS 1000 /* between two looks at which addresses the guest has */
#define NAMES_MAX 16    /* of one address that are looked at */
#define SALT_FLOW 48
#define DNS_PORT 53

struct seen {
    struct ip ip;
    uint8_t protocol;
    uint16_t port;
    char *name; /* NULL: it was not looked up */
};

struct learn {
    struct learn *next;
    int64_t guest_id;
    const void *connection;
    uint64_t started_ms;
    uint64_t refreshed_ms;
    struct ip addresses[ADDRESSES_MAX]; /* the guest's */
    size_t n_addresses;
    struct ip gateways[ADDRESSES_MAX];
    size_t n_gateways;
    struct dns_table flows; /* of struct seen */
    bool incomplete;        /* something was missed */
};

struct learns {
    struct learn *first;
    struct flow_watch *watch; /* while there is any */
};

static struct learn *learn_find(const struct service *service, int64_t guest_id)
{
    struct learn *learn = service->learns ? service->learns->first : NULL;

    while (learn && learn->guest_id != guest_id)
        learn = learn->next;
    return learn;
}

bool learn_is_on(const struct service *service, int64_t guest_id)
{
    return learn_find(service, guest_id) != NULL;
}

static void learn_free(struct learn *learn)
{
    for (uint32_t i = 0; learn->flows.slots && i <= learn->flows.mask; i++) {
        struct seen *seen = learn->flows.slots[i].item;

        if (seen)
            free(seen->name);
        free(seen);
    }
    dns_table_deinit(&learn->flows);
    free(learn);
}

/* --- what is seen --- */

static uint32_t seen_hash(const struct ip *ip, uint8_t protocol, uint16_t port)
{
    return dns_hash(ip->bytes, sizeof(ip->bytes),
                    (uint64_t)SALT_FLOW << 32 | (uint64_t)protocol << 16 | port);
}

static bool seen_equal(const void *item, const void *key)
{
    const struct seen *seen = item;
    const struct seen *wanted = key;

    return seen->protocol == wanted->protocol && seen->port == wanted->port &&
           ip_equal(&seen->ip, &wanted->ip);
}

/* A name that a rule can have: not those of guests. */
static bool is_for_rules(const struct service *service, const char *name)
{
    struct policy_rule ours = {.destination = RULE_BOTH};

    snprintf(ours.name, sizeof(ours.name), "%s", service->config->domain);
    return name_is_dns(name) && strchr(name, '.') && !policy_rule_covers_name(&ours, name);
}

/* By the name that the guest looked up last, where it did. Without memory: by its address. */
static void seen_name(struct service *service, const struct learn *learn, struct seen *seen)
{
    const char *names[NAMES_MAX];
    size_t count;

    if (seen->name)
        return;
    count = domain_names_find(service, learn->guest_id, &seen->ip, false, names, NAMES_MAX);
    for (size_t i = 0; i < count && !seen->name; i++)
        if (is_for_rules(service, names[i]))
            seen->name = strdup(names[i]);
}

static void addresses_add(struct ip *addresses, size_t *count, const struct ip *ip)
{
    if (ip_is_set(ip) && *count < ADDRESSES_MAX)
        addresses[(*count)++] = *ip;
}

static int learn_refresh(struct service *service, struct learn *learn, uint64_t now_ms,
                         struct error *error)
{
    struct guest guest = {0};
    struct guest_plan plan = {.guest = &guest};
    int r = store_guest_get(service->store, learn->guest_id, &guest, error);

    if (r >= 0)
        r = guest_plan_load(service, &guest, &plan, error);
    if (r >= 0) {
        learn->refreshed_ms = now_ms;
        learn->n_addresses = 0;
        learn->n_gateways = 0;
    }
    for (size_t i = 0; r >= 0 && i < guest.n_endpoints; i++) {
        addresses_add(learn->addresses, &learn->n_addresses, &guest.endpoints[i].ip);
        addresses_add(learn->addresses, &learn->n_addresses, &guest.endpoints[i].ip6);
        addresses_add(learn->gateways, &learn->n_gateways, &plan.networks[i].gateway);
        addresses_add(learn->gateways, &learn->n_gateways, &plan.networks[i].gateway6);
    }
    guest_plan_deinit_networks(&plan);
    guest_deinit(&guest);
    return r;
}

static bool is_among(const struct ip *addresses, size_t count, const struct ip *ip)
{
    for (size_t i = 0; i < count; i++)
        if (ip_equal(&addresses[i], ip))
            return true;
    return false;
}

/* Whose connection it is. Guests may join networks while they are learnt. */
static struct learn *learn_of(struct service *service, const struct ip *source)
{
    uint64_t now_ms = loop_now_ms(service->loop);
    struct error error = ERROR_INIT;

    for (struct learn *learn = service->learns->first; learn; learn = learn->next) {
        if (!is_among(learn->addresses, learn->n_addresses, source) &&
            now_ms - learn->refreshed_ms >= REFRESH_MS &&
            learn_refresh(service, learn, now_ms, &error) < 0)
            log_warning("learning: %s", error.text);
        if (is_among(learn->addresses, learn->n_addresses, source))
            return learn;
    }
    return NULL;
}

/* Open whatever the rules: not to be learnt. */
static bool is_name_service(const struct learn *learn, const struct flow *flow)
{
    return flow->port == DNS_PORT &&
           is_among(learn->gateways, learn->n_gateways, &flow->destination);
}

static void flow_note(struct service *service, struct learn *learn, const struct flow *flow)
{
    bool ports = flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP;
    struct seen wanted = {
        .ip = flow->destination, .protocol = flow->protocol, .port = ports ? flow->port : 0};
    uint32_t hash = seen_hash(&wanted.ip, wanted.protocol, wanted.port);
    struct seen *seen = dns_table_find(&learn->flows, hash, seen_equal, &wanted);

    if (seen) {
        seen_name(service, learn, seen);
        return;
    }
    seen = learn->flows.count < FLOWS_MAX ? malloc(sizeof(*seen)) : NULL;
    if (!seen || dns_table_add(&learn->flows, hash, seen) < 0) {
        learn->incomplete = true;
        free(seen);
        return;
    }
    *seen = wanted;
    seen_name(service, learn, seen);
}

static void on_flow(void *userdata, const struct flow *flow)
{
    struct service *service = userdata;
    struct learn *learn;

    for (learn = service->learns->first; !flow && learn; learn = learn->next)
        learn->incomplete = true;
    if (!flow)
        return;
    learn = learn_of(service, &flow->source);
    if (learn && !is_name_service(learn, flow))
        flow_note(service, learn, flow);
}

/* --- beginning and end --- */

static int watch_begin(struct service *service, struct error *error)
{
    if (!service->learns)
        service->learns = calloc(1, sizeof(*service->learns));
    if (!service->learns)
        return error_set(error, ENOMEM, "learning");
    if (service->learns->watch)
        return 0;
    return flow_watch_new(service->loop, on_flow, service, &service->learns->watch, error);
}

static void watch_end(struct service *service)
{
    if (!service->learns || service->learns->first)
        return;
    flow_watch_free(service->learns->watch);
    service->learns->watch = NULL;
}

/* Ports and names as they have to be, now that the guest is learnt, or not any more. */
static int guest_follow(struct service *service, struct guest *guest, struct error *error)
{
    struct guest_plan plan;
    int r = guest_plan_load(service, guest, &plan, error);

    if (r < 0)
        return r;
    r = domain_follow(service, guest, error);
    if (r >= 0)
        r = policy_move_ports(service, &plan, error);
    guest_plan_deinit_networks(&plan);
    return r;
}

static void learn_unlink(struct service *service, struct learn *learn)
{
    struct learn **link = &service->learns->first;

    while (*link != learn)
        link = &(*link)->next;
    *link = learn->next;
    watch_end(service);
}

static void learn_end(struct service *service, struct learn *learn)
{
    struct error error = ERROR_INIT;
    struct guest guest = {0};
    int r = store_guest_get(service->store, learn->guest_id, &guest, &error);

    learn_unlink(service, learn);
    if (r >= 0)
        r = guest_follow(service, &guest, &error);
    if (r < 0) {
        log_warning("after learning: %s; repairing", error.text);
        reconcile_schedule(service);
    }
    guest_deinit(&guest);
    learn_free(learn);
}

void learn_forget(struct service *service, int64_t guest_id)
{
    struct learn *learn = learn_find(service, guest_id);

    if (!learn)
        return;
    learn_unlink(service, learn);
    learn_free(learn);
}

void learn_connection_closed(struct service *service, const void *connection)
{
    struct learn *learn = service->learns ? service->learns->first : NULL;

    while (learn) {
        struct learn *next = learn->next;

        if (learn->connection == connection)
            learn_end(service, learn);
        learn = next;
    }
}

void learn_free_all(struct service *service)
{
    while (service->learns && service->learns->first)
        learn_forget(service, service->learns->first->guest_id);
    free(service->learns);
    service->learns = NULL;
}

static int learn_begin(struct service *service, const struct peer *peer, struct guest *guest,
                       struct error *error)
{
    struct learn *learn;
    int r;

    if (guest->n_endpoints == 0)
        return error_set_reason(error, REASON_MODE_FORBIDS,
                                "guest \"%s\" is on no network: there is nothing to learn",
                                guest->name);
    if (learn_is_on(service, guest->id))
        return error_set_reason(error, REASON_IN_USE, "guest \"%s\" is being learnt already",
                                guest->name);
    r = watch_begin(service, error);
    learn = r < 0 ? NULL : calloc(1, sizeof(*learn));
    if (!learn) {
        watch_end(service);
        return r < 0 ? r : error_set(error, ENOMEM, "learning");
    }
    learn->guest_id = guest->id;
    learn->connection = peer->connection;
    learn->started_ms = loop_now_ms(service->loop);
    learn->next = service->learns->first;
    service->learns->first = learn;
    r = learn_refresh(service, learn, learn->started_ms, error);
    if (r >= 0)
        r = guest_follow(service, guest, error);
    if (r < 0)
        learn_end(service, learn);
    return r;
}

/* --- the interface --- */

static int learn_stop(struct service *service, const struct guest *guest, struct error *error)
{
    struct learn *learn = learn_find(service, guest->id);

    if (!learn)
        return error_set_reason(error, REASON_NOT_FOUND, "guest \"%s\" is not being learnt",
                                guest->name);
    learn_end(service, learn);
    return 0;
}

int service_policy_learn(struct service *service, const struct peer *peer,
                         const struct learn_params *params, struct error *error)
{
    struct guest guest = {0};
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        r = params->enabled ? learn_begin(service, peer, &guest, error)
                            : learn_stop(service, &guest, error);
    guest_deinit(&guest);
    return r;
}

/* What was seen, each with its name by now. */
static int flows_collect(struct service *service, struct learn *learn,
                         struct learnt_flow **ret_flows, struct error *error)
{
    struct learnt_flow *flows = calloc((size_t)learn->flows.count + 1, sizeof(*flows));
    size_t count = 0;

    if (!flows)
        return error_set(error, ENOMEM, "learning");
    for (uint32_t i = 0; learn->flows.slots && i <= learn->flows.mask; i++) {
        struct seen *seen = learn->flows.slots[i].item;

        if (!seen)
            continue;
        seen_name(service, learn, seen);
        flows[count++] = (struct learnt_flow){seen->ip, seen->name, seen->protocol, seen->port};
    }
    *ret_flows = flows;
    return 0;
}

/* Sets *RET_LEARN to what is learnt of the guest of this name; refused when it is not being
 * learnt. */
static int learn_get(struct service *service, const char *name, struct learn **ret_learn,
                     struct error *error)
{
    struct guest guest = {0};
    struct learn *learn;
    int r = guest_find(service, name, &guest, error);

    if (r < 0)
        return r;
    learn = learn_find(service, guest.id);
    if (!learn)
        r = error_set_reason(error, REASON_NOT_FOUND, "guest \"%s\" is not being learnt",
                             guest.name);
    guest_deinit(&guest);
    *ret_learn = learn;
    return r;
}

int service_policy_learned(struct service *service, const struct guest_params *params,
                           struct learn_result *ret_result, struct error *error)
{
    _cleanup_free_ struct learnt_flow *flows = NULL;
    struct learn_result result = {0};
    struct learn *learn;
    int r = learn_get(service, params->guest, &learn, error);

    if (r < 0)
        return r;
    r = flows_collect(service, learn, &flows, error);
    if (r >= 0 && learn_rules_make(flows, learn->flows.count, &result.rules) < 0)
        r = error_set(error, ENOMEM, "learning");
    if (r < 0)
        return r;
    result.connections = learn->flows.count;
    result.complete = !learn->incomplete;
    result.seconds = (loop_now_ms(service->loop) - learn->started_ms) / 1000;
    *ret_result = result;
    return 0;
}
