/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the table drops of guests: counted in the kernel for each endpoint, and told of by events.
 *
 * Frames: the kernel tells of one at most once a second for each endpoint (nat/log.h). The endpoint
 * is remembered, and at the end of the turn an event says how many there were in all.
 *
 * Connections, of guests that want it (--log-denied): the kernel tells of some each second. The
 * first to a destination is an event at once; those that follow are gathered, and told of together
 * at the end of each turn, until a turn has none. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/yield.h"
#include "service/private.h"

#define TURN_MS 1000
#define INTERFACES_MAX 64 /* told of in one turn; the others come in the next */
#define NAMES_MAX 16      /* of an address, looked at for the rule that denies it */
#define ATTEMPTS_MAX 256  /* destinations that are gathered; the rest is told of by number only */

/* A destination that a guest is denied. */
struct attempt {
    struct nat_log_entry entry;
    char network[NAME_MAX_LENGTH + 1];
    char guest[NAME_MAX_LENGTH + 1];
    struct denial denial; /* count: those that no event has told of */
};

struct drops {
    struct service *service;
    struct nat_log *log; /* NULL: another program has the group */
    struct loop_timer *timer;
    char interfaces[INTERFACES_MAX][IFNAMSIZ];
    size_t n_interfaces;
    struct attempt *attempts; /* ATTEMPTS_MAX of them */
    size_t n_attempts;
    size_t n_others;
};

/* --- counts --- */

static struct nat_endpoint counted_endpoint(const struct endpoint *endpoint)
{
    struct nat_endpoint nat = {
        .group = LINK_GROUP_OF(endpoint->network_id),
        .ip = endpoint->ip,
        .ip6 = endpoint->ip6,
    };

    memcpy(nat.host_interface, endpoint->host_interface, sizeof(nat.host_interface));
    return nat;
}

static void guest_add_drops(struct guest *guest, const struct nat_drops *drops)
{
    guest->drops.frames += drops->frames;
    guest->drops.connections += drops->connections;
    guest->has_drops = guest->drops.frames > 0 || guest->drops.connections > 0;
}

int guest_show_drops(struct service *service, struct guest *guest, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < guest->n_endpoints; i++) {
        const struct nat_endpoint endpoint = counted_endpoint(&guest->endpoints[i]);
        struct nat_drops drops = {0};

        r = nat_drops_get(service->nat, &endpoint, &drops, error);
        guest_add_drops(guest, &drops);
    }
    return r;
}

int guests_show_drops(struct service *service, struct guest *guests, size_t count,
                      struct error *error)
{
    struct nat_drops_list *list = NULL;
    int r = nat_drops_load(service->nat, &list, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        for (size_t j = 0; r >= 0 && j < guests[i].n_endpoints; j++) {
            const struct nat_endpoint endpoint = counted_endpoint(&guests[i].endpoints[j]);
            struct nat_drops drops = {0};

            r = nat_drops_find(list, &endpoint, &drops, error);
            guest_add_drops(&guests[i], &drops);
        }
        yield_if_due();
    }
    nat_drops_list_free(list);
    return r;
}

/* --- frames --- */

static void remember(struct drops *drops, const char *interface)
{
    for (size_t i = 0; i < drops->n_interfaces; i++)
        if (strcmp(drops->interfaces[i], interface) == 0)
            return;
    if (drops->n_interfaces < INTERFACES_MAX)
        memcpy(drops->interfaces[drops->n_interfaces++], interface, IFNAMSIZ);
    if (!loop_timer_is_active(drops->timer))
        loop_timer_start(drops->timer, TURN_MS);
}

static void tell_frames(struct service *service, const char *interface)
{
    struct guest guest = {0};
    struct error error = ERROR_INIT;
    bool found = false;
    int r = store_guest_find_by_host_interface(service->store, interface, &guest, &found, &error);

    if (r >= 0 && found)
        r = guest_show_drops(service, &guest, &error);
    if (r < 0)
        log_warning("what %s dropped: %s", interface, error.text);
    else if (found)
        event_emit(service, "guest.dropped", NULL, guest.name,
                   "frames that it may not send: %" PRIu64 " so far", guest.drops.frames);
    guest_deinit(&guest);
}

/* --- connections --- */

static void protocol_name(uint8_t protocol, char *text, size_t size)
{
    if (protocol == IPPROTO_TCP)
        snprintf(text, size, "tcp");
    else if (protocol == IPPROTO_UDP)
        snprintf(text, size, "udp");
    else if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
        snprintf(text, size, "icmp");
    else
        snprintf(text, size, "%u", protocol);
}

/* The endpoint that a packet came from: by its own link, or by its address behind a bridge. */
static int find_sender(struct service *service, const struct nat_log_entry *entry,
                       struct guest *ret_guest, bool *ret_found, struct error *error)
{
    char interface[IFNAMSIZ];
    int r;

    *ret_found = false;
    if (!link_name_find(entry->interface, interface))
        return 0;
    r = store_guest_find_by_host_interface(service->store, interface, ret_guest, ret_found, error);
    if (r >= 0 && !*ret_found)
        r = store_guest_find_by_address(service->store, interface, &entry->source, ret_guest,
                                        ret_found, error);
    return r;
}

static const char *network_of(const struct guest *guest, const struct ip *ip)
{
    for (size_t i = 0; i < guest->n_endpoints; i++)
        if (ip_equal(&guest->endpoints[i].ip, ip) || ip_equal(&guest->endpoints[i].ip6, ip))
            return guest->endpoints[i].network;
    return "";
}

/* The name that the guest looked up last of those that led to the address. */
static void find_name(struct service *service, const struct guest *guest,
                      const struct nat_log_entry *entry, struct denial *denial)
{
    const char *name;

    if (domain_names_find(service, guest->id, &entry->destination, false, &name, 1) > 0)
        snprintf(denial->name, sizeof(denial->name), "%s", name);
}

/* Which rule it was. None where the network ends there, whatever the rules say. */
static int find_rule(struct service *service, const struct guest *guest,
                     const struct nat_log_entry *entry, struct denial *denial, struct error *error)
{
    const char *names[NAMES_MAX];
    const struct policy_flow flow = {
        .ip = entry->destination,
        .own = policy_address_is_own(service, &entry->destination),
        .protocol = entry->protocol,
        .port = entry->port,
        .names = names,
        .n_names =
            domain_names_find(service, guest->id, &entry->destination, true, names, NAMES_MAX),
    };
    const struct policy_rule *rule = NULL;
    struct policy_rules allow = {0};
    struct policy_rules deny = {0};
    char text[RULE_TEXT_MAX];
    int r = policy_rules_parse(&guest->policy.allow, "allow", &allow, error);

    if (r >= 0)
        r = policy_rules_parse(&guest->policy.deny, "deny", &deny, error);
    if (r >= 0 && !policy_allows(&allow, &deny, &flow, &rule) && rule)
        snprintf(denial->rule, sizeof(denial->rule), "deny %s", policy_rule_format(rule, text));
    policy_rules_deinit(&allow);
    policy_rules_deinit(&deny);
    return r;
}

static int attempt_fill(struct service *service, const struct nat_log_entry *entry,
                        struct attempt *attempt, bool *ret_found, struct error *error)
{
    struct guest guest = {0};
    int r = find_sender(service, entry, &guest, ret_found, error);

    *attempt = (struct attempt){.entry = *entry};
    attempt->denial.ip = entry->destination;
    attempt->denial.port = entry->port;
    protocol_name(entry->protocol, attempt->denial.protocol, sizeof(attempt->denial.protocol));
    snprintf(attempt->guest, sizeof(attempt->guest), "%s", guest.name);
    snprintf(attempt->network, sizeof(attempt->network), "%s", network_of(&guest, &entry->source));
    if (r >= 0 && *ret_found)
        find_name(service, &guest, entry, &attempt->denial);
    if (entry->kind == NAT_LOG_LIMITED)
        snprintf(attempt->denial.rule, sizeof(attempt->denial.rule), "too many connections");
    else if (r >= 0 && *ret_found)
        r = find_rule(service, &guest, entry, &attempt->denial, error);
    guest_deinit(&guest);
    return r;
}

static bool attempt_is(const struct attempt *attempt, const struct nat_log_entry *entry)
{
    return attempt->entry.kind == entry->kind && attempt->entry.interface == entry->interface &&
           attempt->entry.protocol == entry->protocol && attempt->entry.port == entry->port &&
           ip_equal(&attempt->entry.source, &entry->source) &&
           ip_equal(&attempt->entry.destination, &entry->destination);
}

static void attempt_tell(struct service *service, struct attempt *attempt)
{
    event_emit_denied(service, attempt->network, attempt->guest, &attempt->denial);
    attempt->denial.count = 0;
}

static void attempt_add(struct drops *drops, const struct nat_log_entry *entry)
{
    struct attempt *attempt = &drops->attempts[drops->n_attempts];
    struct error error = ERROR_INIT;
    bool found = false;

    if (attempt_fill(drops->service, entry, attempt, &found, &error) < 0)
        log_warning("a denied connection: %s", error.text);
    if (!found)
        return;
    attempt->denial.count = 1;
    attempt_tell(drops->service, attempt);
    drops->n_attempts++;
}

static void on_denied(struct drops *drops, const struct nat_log_entry *entry)
{
    size_t i = 0;

    while (i < drops->n_attempts && !attempt_is(&drops->attempts[i], entry))
        i++;
    if (i < drops->n_attempts)
        drops->attempts[i].denial.count++;
    else if (drops->n_attempts < ATTEMPTS_MAX)
        attempt_add(drops, entry);
    else
        drops->n_others++;
    if (!loop_timer_is_active(drops->timer))
        loop_timer_start(drops->timer, TURN_MS);
}

static void tell_attempts(struct drops *drops)
{
    size_t kept = 0;

    for (size_t i = 0; i < drops->n_attempts; i++) {
        if (drops->attempts[i].denial.count == 0)
            continue;
        attempt_tell(drops->service, &drops->attempts[i]);
        drops->attempts[kept++] = drops->attempts[i];
    }
    drops->n_attempts = kept;
    if (drops->n_others > 0)
        event_emit(drops->service, "connection.denied", NULL, NULL,
                   "%zu more, to other destinations", drops->n_others);
    drops->n_others = 0;
    if (kept > 0)
        loop_timer_start(drops->timer, TURN_MS);
}

static void on_timer(void *userdata)
{
    struct drops *drops = userdata;

    for (size_t i = 0; i < drops->n_interfaces; i++)
        tell_frames(drops->service, drops->interfaces[i]);
    drops->n_interfaces = 0;
    tell_attempts(drops);
}

/* --- the log --- */

static void on_log(void *userdata, const struct nat_log_entry *entry)
{
    struct drops *drops = userdata;
    char interface[IFNAMSIZ];

    if (entry->kind != NAT_LOG_DROPPED)
        on_denied(drops, entry);
    else if (link_name_find(entry->interface, interface))
        remember(drops, interface);
}

int drops_start(struct service *service, struct error *error)
{
    struct drops *drops = calloc(1, sizeof(*drops));
    struct error busy = ERROR_INIT;

    if (!drops)
        return error_set(error, ENOMEM, "drops");
    drops->service = service;
    service->drops = drops;
    drops->timer = loop_timer_new(service->loop, on_timer, drops);
    drops->attempts = calloc(ATTEMPTS_MAX, sizeof(*drops->attempts));
    if (!drops->timer || !drops->attempts)
        return error_set(error, ENOMEM, "drops");
    if (nat_log_open(service->loop, on_log, drops, &drops->log, &busy) < 0)
        log_warning("no events of what is dropped: %s", busy.text);
    return 0;
}

bool drops_are_told(const struct service *service)
{
    return service->drops && service->drops->log;
}

void drops_stop(struct service *service)
{
    struct drops *drops = service->drops;

    service->drops = NULL;
    if (!drops)
        return;
    nat_log_close(drops->log);
    loop_timer_free(drops->timer);
    free(drops->attempts);
    free(drops);
}
