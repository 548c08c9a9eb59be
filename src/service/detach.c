/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests that go: detached, or since their namespace or owner is gone.
 *
 * Detaches that come together go together (service_detach_flush): one transaction in the store, one
 * commit of the kernel's rules. Whatever is wrong with that, they go one by one instead. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/step.h"

/* --- one guest --- */

static int release(struct service *service, const struct guest *guest, struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_guest_release(service->store, guest, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

int guest_remove(struct service *service, struct guest *guest, const char *why, struct error *error)
{
    struct guest_plan plan;
    int r = guest_plan_load(service, guest, &plan, error);

    if (r < 0)
        return r;
    r = release(service, guest, error);
    if (r >= 0) {
        owner_remove(service, guest->id);
        guest_plan_undo(service, &plan);
        event_emit(service, "guest.detached", NULL, guest->name, "%s", why);
    }
    guest_plan_deinit_networks(&plan);
    return r;
}

void guest_remove_by_id(struct service *service, int64_t guest_id, const char *why)
{
    struct error error = ERROR_INIT;
    struct guest guest = {0};
    int r = store_guest_get(service->store, guest_id, &guest, &error);

    if (r >= 0)
        r = guest_remove(service, &guest, why, &error);
    if (r < 0)
        log_error("removing a guest (%s): %s", why, error.text);
    guest_deinit(&guest);
}

/* --- leaving one network --- */

static size_t find_endpoint(const struct guest *guest, const char *network)
{
    size_t i = 0;

    while (i < guest->n_endpoints && strcmp(guest->endpoints[i].network, network) != 0)
        i++;
    return i;
}

/* Moves one endpoint (and its network) to the end, where a plan with first_endpoint takes it alone.
 */
static void move_last(struct guest_plan *plan, size_t index)
{
    struct guest *guest = plan->guest;
    size_t last = guest->n_endpoints - 1;
    struct endpoint endpoint = guest->endpoints[index];
    struct network network = plan->networks[index];

    memmove(&guest->endpoints[index], &guest->endpoints[index + 1],
            (last - index) * sizeof(endpoint));
    memmove(&plan->networks[index], &plan->networks[index + 1], (last - index) * sizeof(network));
    guest->endpoints[last] = endpoint;
    plan->networks[last] = network;
}

/* The family's default route moves to the next network that has an outside. */
static int route_take_over(const struct guest_plan *rest, uint8_t family, int netns_fd,
                           struct error *error)
{
    static const struct ip none = {0};
    size_t next = plan_default_endpoint(rest, family);

    if (next == rest->guest->n_endpoints)
        return 0;
    return link_default_route_set(netns_fd, rest->guest->endpoints[next].interface,
                                  family == AF_INET ? &rest->networks[next].gateway : &none,
                                  family == AF_INET6 ? &rest->networks[next].gateway6 : &none,
                                  error);
}

/* What the leaving endpoint carried: per family, was it the default one? */
struct carried {
    bool route4;
    bool route6;
    bool localhost;
    struct nat_port ports[LIMIT_PORTS_PER_GUEST];
};

static void carried_look(const struct guest_plan *plan, size_t index, struct carried *ret_carried)
{
    ret_carried->route4 = index == plan_default_endpoint(plan, AF_INET);
    ret_carried->route6 = index == plan_default_endpoint(plan, AF_INET6);
    ret_carried->localhost = plan->guest->localhost && index == plan_localhost_endpoint(plan);
    for (size_t i = 0; i < plan->guest->n_ports; i++)
        plan_nat_port(plan, &plan->guest->ports[i], &ret_carried->ports[i]);
}

/* The host lets another endpoint speak of localhost from now on. */
static int localhost_take_over(struct service *service, const struct guest_plan *rest,
                               struct error *error)
{
    struct guest before = *rest->guest; /* shallow: no endpoint of the rest had it */
    struct guest_plan plan = *rest;

    before.localhost = false;
    plan.guest = &before;
    return guest_rules_replace(service, &plan, rest->guest, error);
}

static int take_over(struct service *service, const struct guest_plan *rest,
                     const struct carried *carried, struct error *error)
{
    int netns_fd = -1;
    int r = carried->localhost ? localhost_take_over(service, rest, error) : 0;

    if (r < 0 || (!carried->route4 && !carried->route6))
        return r;
    if (rest->guest->n_ports)
        r = ports_retarget(service, rest, carried->ports, error);
    if (r >= 0)
        r = guest_leases_apply(service, rest, error);
    if (rest->guest->kind == KIND_NETNS)
        guest_netns_find(rest->guest, &netns_fd);
    if (netns_fd < 0)
        return r; /* a VM, which DHCP tells; or the namespace is going: there is nobody to route for
                   */
    if (r >= 0 && carried->route4)
        r = route_take_over(rest, AF_INET, netns_fd, error);
    if (r >= 0 && carried->route6)
        r = route_take_over(rest, AF_INET6, netns_fd, error);
    close(netns_fd);
    return r;
}

static int forget_last_endpoint(struct service *service, const struct guest_plan *plan,
                                struct error *error)
{
    size_t last = plan->guest->n_endpoints - 1;
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = endpoint_forget(service, plan->guest, last, &plan->networks[last], error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int leave(struct service *service, struct guest_plan *plan, size_t index,
                 struct error *error)
{
    struct guest *guest = plan->guest;
    struct carried carried;
    struct guest after;
    struct guest_plan rest = *plan;
    const struct endpoint *leaving;
    struct error refused = ERROR_INIT;
    int r;

    carried_look(plan, index, &carried);
    move_last(plan, index);
    after = *guest; /* shallow: the guest without its last endpoint */
    after.n_endpoints--;
    rest.guest = &after;
    leaving = &guest->endpoints[after.n_endpoints];
    if (guest->n_ports && plan_default_endpoint(&rest, AF_INET) == after.n_endpoints &&
        plan_default_endpoint(&rest, AF_INET6) == after.n_endpoints)
        return error_set_reason(
            error, REASON_IN_USE,
            "guest \"%s\" has published ports and no other network with an outside than \"%s\"; "
            "`moat port rm` them first",
            guest->name, leaving->network);
    r = forget_last_endpoint(service, plan, error);
    if (r < 0)
        return r;
    if (take_over(service, &rest, &carried, &refused) < 0) {
        log_warning("guest %s: %s; repairing", guest->name, refused.text);
        reconcile_schedule(service);
    }
    plan->first_endpoint = after.n_endpoints;
    plan->with_ports = false;
    guest_plan_undo(service, plan);
    event_emit(service, "guest.detached", leaving->network, guest->name, "left");
    return 0;
}

static int leave_network(struct service *service, struct guest *guest, const char *network,
                         struct error *error)
{
    size_t index = find_endpoint(guest, network);
    struct guest_plan plan = {.netns_fd = -1};
    int r;

    if (index == guest->n_endpoints)
        return error_set_reason(error, REASON_NOT_FOUND, "guest \"%s\" is not on network \"%s\"",
                                guest->name, network);
    if (guest->n_endpoints == 1)
        return guest_remove(service, guest, "detached", error);
    r = guest_plan_load(service, guest, &plan, error);
    if (r >= 0)
        r = leave(service, &plan, index, error);
    guest_plan_deinit_networks(&plan);
    return r;
}

/* The rest of the guest stays, or it is not there yet, or something is being done to it. */
static bool detach_settles(const struct service *service, const char *name, const char *network)
{
    return network[0] || attach_is_on_its_way(service, name) || service_works_on(service, name);
}

/* Not by service_detach_settles: what is being done to it is this. */
int guest_leave(struct service *service, const char *name, const char *network, struct error *error)
{
    struct guest guest = {0};
    bool found = false;
    int r;

    service_work_on(service, name);
    r = store_guest_find(service->store, name, &guest, &found, error);
    if (r >= 0 && found && guest.n_endpoints > 1)
        service_settle(service); /* the rest of it stays */
    if (r >= 0 && found)
        r = leave_network(service, &guest, network, error);
    guest_deinit(&guest);
    return r;
}

static int guest_detach(struct service *service, const char *name, const char *network,
                        enum guest_kind *ret_of, struct error *error)
{
    struct guest guest = {0};
    int r;

    if (detach_settles(service, name, network))
        service_settle(service);
    r = guest_find(service, name, &guest, error);
    *ret_of = guest.kind;
    if (r >= 0 && network[0])
        r = leave_network(service, &guest, network, error);
    else if (r >= 0)
        r = guest_remove(service, &guest, "detached", error);
    guest_deinit(&guest);
    return r;
}

/* --- several at once --- */

struct detach {
    struct detach *next;
    const struct guest_detach_params *params;
    service_detached_fn done;
    void *userdata;
    struct guest guest;
    struct guest_plan plan; /* of a guest that goes */
    int result;             /* 0: it goes */
    struct error error;     /* why it does not */
};

static struct detach *take_queue(struct service *service)
{
    struct detach *first = service->detaching;

    service->detaching = NULL;
    service->detaching_end = &service->detaching;
    return first;
}

bool service_detach_settles(const struct service *service, const struct guest_detach_params *params)
{
    return detach_settles(service, params->name, params->network);
}

/* Inside the transaction. Fails where nothing may be committed; a guest that is not there is its
 * detach's failure alone. */
static int release_one(struct service *service, struct detach *detach, struct error *error)
{
    detach->result = guest_find(service, detach->params->name, &detach->guest, &detach->error);
    if (detach->result < 0)
        return detach->error.kind == ERROR_INTERNAL ? detach->result : 0;
    detach->result = guest_plan_load(service, &detach->guest, &detach->plan, error);
    return detach->result < 0 ? detach->result
                              : store_guest_release(service->store, &detach->guest, error);
}

static int release_all(struct service *service, struct detach *first, struct error *error)
{
    int r = store_begin(service->store, error);

    for (struct detach *detach = first; detach && r >= 0; detach = detach->next)
        r = release_one(service, detach, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static void forget_found(struct detach *detach)
{
    if (detach->plan.networks)
        guest_plan_deinit_networks(&detach->plan);
    guest_deinit(&detach->guest);
    detach->plan = (struct guest_plan){0};
    detach->guest = (struct guest){0};
}

/* They are out of the store: now out of the kernel. */
static void undo_all(struct service *service, struct detach *first)
{
    struct guest_plan *plans[DETACHES_MAX];
    size_t count = 0;

    for (struct detach *detach = first; detach; detach = detach->next)
        if (detach->result >= 0) {
            owner_remove(service, detach->guest.id);
            plans[count++] = &detach->plan;
        }
    guest_plans_undo(service, plans, count);
    for (const struct detach *detach = first; detach; detach = detach->next)
        if (detach->result >= 0)
            event_emit(service, "guest.detached", NULL, detach->guest.name, "detached");
}

static void go_one_by_one(struct service *service, struct detach *first)
{
    for (struct detach *detach = first; detach; detach = detach->next) {
        forget_found(detach);
        detach->error = ERROR_INIT;
        detach->result = guest_detach(service, detach->params->name, detach->params->network,
                                      &detach->guest.kind, &detach->error);
    }
}

static void go_together(struct service *service, struct detach *first)
{
    struct error error = ERROR_INIT;

    if (release_all(service, first, &error) < 0) {
        log_debug("detaches go one by one: %s", error.text);
        go_one_by_one(service, first);
        return;
    }
    undo_all(service, first);
}

void service_detach_flush(struct service *service)
{
    struct detach *first = take_queue(service);
    bool together = true;

    for (const struct detach *detach = first; detach; detach = detach->next)
        together = together && !service_detach_settles(service, detach->params);
    if (first && together)
        go_together(service, first);
    else
        go_one_by_one(service, first);
    while (first) {
        struct detach *detach = first;

        first = detach->next;
        detach->done(detach->userdata, detach->result, detach->guest.kind, &detach->error);
        forget_found(detach);
        free(detach);
        service->n_detaching--;
    }
}

int service_guest_detach(struct service *service, const struct guest_detach_params *params,
                         service_detached_fn done, void *userdata, struct error *error)
{
    struct detach *detach = calloc(1, sizeof(*detach));

    if (!detach)
        return error_set(error, ENOMEM, "guest");
    if (service->n_detaching == DETACHES_MAX)
        service_detach_flush(service);
    *detach = (struct detach){.params = params, .done = done, .userdata = userdata};
    *service->detaching_end = detach;
    service->detaching_end = &detach->next;
    service->n_detaching++;
    return 0;
}
