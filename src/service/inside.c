/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What moat changes inside a guest besides its links: `moat localhost`, and the resolv.conf of
 * somebody else's container. Both are undone when the guest goes, and follow when it joins or
 * leaves a network. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "names/inject.h"
#include "service/private.h"

/* --- localhost --- */

/* Inside the namespace: what can be lost with it, and is replaced as a whole. */
static int localhost_inside(const struct guest_plan *plan, bool on, struct error *error)
{
    size_t index = plan_localhost_endpoint(plan);
    const struct endpoint *endpoint = &plan->guest->endpoints[index];
    int r = link_set_route_localnet(plan->netns_fd, endpoint->interface, on, error);

    if (r < 0)
        return r;
    return nat_localhost_set(plan->netns_fd, endpoint->interface, &endpoint->ip,
                             &plan->networks[index].gateway, on, error);
}

static int localhost_write(struct service *service, const struct guest *guest, bool on,
                           struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_guest_set_localhost(service->store, guest->id, on, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int localhost_change(struct service *service, struct guest_plan *plan, bool on,
                            struct error *error)
{
    struct guest changed = *plan->guest; /* shallow */
    struct error undo = ERROR_INIT;
    int r = localhost_write(service, plan->guest, on, error);

    if (r < 0)
        return r;
    changed.localhost = on;
    r = guest_rules_replace(service, plan, &changed, error);
    if (r >= 0)
        r = localhost_inside(plan, on, error);
    if (r >= 0) {
        event_emit(service, "localhost.changed", NULL, plan->guest->name, on ? "on" : "off");
        return 0;
    }
    if (localhost_write(service, plan->guest, plan->guest->localhost, &undo) < 0 ||
        localhost_inside(plan, plan->guest->localhost, &undo) < 0)
        log_error("localhost of guest %s: %s", plan->guest->name, undo.text);
    reconcile_schedule(service);
    return r;
}

static int localhost_check(const struct guest *guest, struct error *error)
{
    if (guest->kind != KIND_NETNS)
        return error_set_reason(
            error, REASON_NOT_SUPPORTED,
            "guest \"%s\" is a VM: its loopback is in its own kernel, out of moat's reach",
            guest->name);
    if (guest->n_endpoints == 0)
        return error_set_reason(error, REASON_MODE_FORBIDS,
                                "guest \"%s\" is in mode %s, on no network", guest->name,
                                guest_mode_name(guest->mode));
    return 0;
}

/* Leads it to where the plan's guest has its default route now. */
static int localhost_settle(const struct guest_plan *plan, size_t n_endpoints, bool on,
                            struct error *error)
{
    struct guest guest = *plan->guest; /* shallow: without the endpoints that leave */
    struct guest_plan rest = *plan;
    int r = 0;

    if (guest.n_endpoints == 0)
        return 0;
    if (on)
        guest.n_endpoints = n_endpoints;
    rest.guest = &guest;
    if (rest.netns_fd < 0)
        guest_netns_find(&guest, &rest.netns_fd);
    if (rest.netns_fd < 0)
        return 0; /* gone, and all that was in it */
    r = localhost_inside(&rest, on, error);
    if (plan->netns_fd < 0)
        close(rest.netns_fd);
    return r;
}

int service_localhost_set(struct service *service, const struct localhost_params *params,
                          struct error *error)
{
    struct guest guest = {0};
    struct guest_plan plan = {.guest = &guest, .netns_fd = -1};
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        r = localhost_check(&guest, error);
    if (r >= 0)
        r = guest_plan_load(service, &guest, &plan, error);
    if (r >= 0) {
        guest_netns_find(&guest, &plan.netns_fd);
        if (plan.netns_fd < 0)
            r = guest_netns_lost(&guest, error);
    }
    if (r >= 0 && guest.localhost != params->enabled)
        r = localhost_change(service, &plan, params->enabled, error);
    cleanup_close(&plan.netns_fd);
    guest_plan_deinit_networks(&plan);
    guest_deinit(&guest);
    return r;
}

/* --- resolv.conf --- */

/* The name services of the first n networks, in order; any of them answers for all. */
static int inject_list(const struct guest_plan *plan, size_t n, struct ips *ret_servers,
                       struct error *error)
{
    struct ips servers = {0};

    for (size_t i = 0; i < n; i++) {
        const struct network *network = &plan->networks[i];
        const struct ip *ip = ip_is_set(&network->gateway) ? &network->gateway : &network->gateway6;

        if (network->dns && ip_is_set(ip) && ips_add(&servers, ip) < 0) {
            ips_deinit(&servers);
            return error_set(error, ENOMEM, "name servers");
        }
    }
    *ret_servers = servers;
    return 0;
}

/* After its files were opened the process must still be the guest's. */
static int inject_place_find(const struct guest *guest, struct inject_place *ret_place,
                             struct error *error)
{
    struct inject_place place;
    uint64_t start = 0;
    int r = inject_place_open(guest->pid, &place, error);

    if (r < 0)
        return r;
    if (process_start_time(guest->pid, &start) < 0 || start != guest->pid_start) {
        inject_place_deinit(&place);
        return error_set_reason(error, REASON_NOT_FOUND, "the process of guest \"%s\" is gone",
                                guest->name);
    }
    *ret_place = place;
    return 0;
}

/* The file of a guest that was written: it may outlive the guest's process, so that what undoes it
 * needs to have it. */
struct injected {
    struct injected *next;
    int64_t guest_id;
    struct inject_place place; /* without a root */
};

static struct injected **injected_find(struct service *service, int64_t guest_id)
{
    struct injected **link = &service->injected;

    while (*link && (*link)->guest_id != guest_id)
        link = &(*link)->next;
    return link;
}

static void injected_forget(struct service *service, int64_t guest_id)
{
    struct injected **link = injected_find(service, guest_id);
    struct injected *injected = *link;

    if (!injected)
        return;
    *link = injected->next;
    inject_place_deinit(&injected->place);
    free(injected);
}

static int injected_remember(struct service *service, int64_t guest_id, struct inject_place *place,
                             struct error *error)
{
    struct injected *injected = calloc(1, sizeof(*injected));

    if (!injected)
        return error_set(error, ENOMEM, "guest");
    injected_forget(service, guest_id);
    *injected = (struct injected){.next = service->injected, .guest_id = guest_id};
    injected->place = *place;
    injected->place.root_fd = -1;
    place->file_fd = -1;
    service->injected = injected;
    return 0;
}

void inside_free_all(struct service *service)
{
    while (service->injected)
        injected_forget(service, service->injected->guest_id);
}

static int inject_into(struct inject_place *place, const struct guest_plan *plan, size_t n,
                       struct error *error)
{
    struct ips servers = {0};
    int r = inject_list(plan, n, &servers, error);

    if (r >= 0)
        r = inject_servers(place, &servers, error);
    ips_deinit(&servers);
    return r;
}

/* The name servers of the first n networks. */
static int inject(struct service *service, const struct guest_plan *plan, size_t n,
                  struct error *error)
{
    struct inject_place place;
    int r = inject_place_find(plan->guest, &place, error);

    if (r < 0)
        return r;
    r = inject_into(&place, plan, n, error);
    if (r >= 0)
        r = injected_remember(service, plan->guest->id, &place, error);
    inject_place_deinit(&place);
    return r;
}

/* Takes away what was put there: in the file that the guest has now, or that it had last. */
static int inject_undo(struct service *service, const struct guest_plan *plan, struct error *error)
{
    struct injected *injected = *injected_find(service, plan->guest->id);
    struct inject_place place;
    int r = inject_place_find(plan->guest, &place, error);

    if (r >= 0) {
        r = inject_into(&place, plan, 0, error);
        inject_place_deinit(&place);
    } else if (injected) {
        *error = ERROR_INIT;
        r = inject_into(&injected->place, plan, 0, error);
    }
    injected_forget(service, plan->guest->id);
    return r;
}

int inject_check(const struct guest_plan *plan, const struct peer *peer, struct error *error)
{
    struct inject_place place;
    struct ips servers = {0};
    size_t count;
    int r;

    if (!plan->guest->dns_inject)
        return 0;
    if (plan->guest->pid == 0)
        return error_set_field(error, "dns_inject",
                               "dns_inject: needs pid: the file is that of a process");
    r = inject_list(plan, plan->guest->n_endpoints, &servers, error);
    count = servers.count;
    ips_deinit(&servers);
    if (r >= 0 && count == 0)
        return error_set_field(error, "dns_inject",
                               "dns_inject: the guest is on no network that has a name service");
    if (r >= 0)
        r = inject_place_find(plan->guest, &place, error);
    if (r < 0)
        return r;
    inject_place_deinit(&place);
    if (peer->uid == 0 || peer->uid == geteuid() || place.owner == peer->uid)
        return 0;
    return error_set_reason(error, REASON_PERMISSION_DENIED,
                            "the files of process %d belong to user %u, not to you (%u); ask as "
                            "their owner or as root",
                            plan->guest->pid, place.owner, peer->uid);
}

/* --- steps --- */

int guest_inside_apply(struct service *service, const struct guest_plan *plan, struct error *error)
{
    return guest_inside_ensure(service, plan, true, error);
}

int guest_inside_ensure(struct service *service, const struct guest_plan *plan, bool new_link,
                        struct error *error)
{
    int r = 0;

    if (plan->guest->localhost && new_link)
        r = localhost_settle(plan, plan->guest->n_endpoints, true, error);
    if (r >= 0 && plan->guest->dns_inject)
        r = inject(service, plan, plan->guest->n_endpoints, error);
    return r;
}

void guest_inside_undo(struct service *service, const struct guest_plan *plan)
{
    const struct guest *guest = plan->guest;
    struct error error = ERROR_INIT;
    int r;

    if (guest->localhost &&
        localhost_settle(plan, plan->first_endpoint, plan->first_endpoint > 0, &error) < 0)
        log_warning("localhost of guest %s: %s", guest->name, error.text);
    if (!guest->dns_inject)
        return;
    error = ERROR_INIT;
    r = plan->first_endpoint > 0 ? inject(service, plan, plan->first_endpoint, &error)
                                 : inject_undo(service, plan, &error);
    if (r < 0 && error.reason != REASON_NOT_FOUND) /* gone, and its files with it */
        log_warning("guest %s: %s", guest->name, error.text);
}
