/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests that are there: list, get, detach, and the end of those whose namespace or owner is gone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

int guest_find(struct service *service, const char *name, struct guest *ret_guest,
               struct error *error)
{
    bool found = false;
    int r = store_guest_find(service->store, name, ret_guest, &found, error);

    if (r >= 0 && !found)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no guest \"%s\"; see `moat ps`",
                                name);
    return r;
}

/* Is it still the process that was attached, in the namespace that was attached? */
static bool process_is_there(const struct guest *guest)
{
    uint64_t start = 0;

    return process_start_time(guest->pid, &start) == 0 && start == guest->pid_start &&
           netns_is_of_pid(guest->pid, guest->netns_dev, guest->netns_ino);
}

void guest_show_netns(struct guest *guest)
{
    if (guest->pid && !process_is_there(guest))
        guest->pid = 0;
    if (guest->netns && !netns_is_at(guest->netns, guest->netns_dev, guest->netns_ino)) {
        free(guest->netns);
        guest->netns = NULL;
    }
    if (!guest->netns && guest->pid && asprintf(&guest->netns, "/proc/%d/ns/net", guest->pid) < 0)
        guest->netns = NULL;
}

int service_guest_get(struct service *service, const char *name, struct guest *ret_guest,
                      struct error *error)
{
    struct guest guest = {0};
    int r = guest_find(service, name, &guest, error);

    if (r >= 0)
        r = guest_show_vmm(service, &guest, error);
    if (r >= 0)
        r = guest_show_drops(service, &guest, error);
    waiting_show(service, guest.ports, guest.n_ports);
    if (r < 0) {
        guest_deinit(&guest);
        return r;
    }
    guest_show_netns(&guest);
    *ret_guest = guest;
    return 0;
}

int service_guest_list(struct service *service, struct guest **ret_guests, size_t *ret_count,
                       struct error *error)
{
    struct guest *guests = NULL;
    size_t count = 0;
    int r = store_guest_list(service->store, &guests, &count, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        guest_show_netns(&guests[i]);
        r = guest_show_vmm(service, &guests[i], error);
        waiting_show(service, guests[i].ports, guests[i].n_ports);
    }
    if (r >= 0)
        r = guests_show_drops(service, guests, count, error);
    if (r < 0) {
        for (size_t i = 0; i < count; i++)
            guest_deinit(&guests[i]);
        free(guests);
        return r;
    }
    *ret_guests = guests;
    *ret_count = count;
    return 0;
}

/* By what it was named by. */
static int open_as_attached(const struct guest *guest, int *ret_fd)
{
    struct error ignored = ERROR_INIT; /* absence is an answer here */
    uint64_t start = 0;

    if (guest->netns)
        return netns_open_path(guest->netns, ret_fd, &ignored);
    if (guest->pid)
        return netns_open_pid(guest->pid, ret_fd, &start, &ignored);
    return -ENOENT;
}

static bool is_the_guests(const struct guest *guest, int fd)
{
    struct error ignored = ERROR_INIT;
    uint64_t dev = 0;
    uint64_t ino = 0;

    return netns_identify(fd, &dev, &ino, &ignored) >= 0 && dev == guest->netns_dev &&
           ino == guest->netns_ino;
}

void guest_netns_open(const struct guest *guest, int *ret_fd)
{
    _cleanup_close_ int fd = -1;

    *ret_fd = -1;
    if (guest->netns_ino == 0)
        return;
    if (open_as_attached(guest, &fd) >= 0 && is_the_guests(guest, fd)) {
        *ret_fd = TAKE_FD(fd);
        return;
    }
    if (fd >= 0)
        close(TAKE_FD(fd));
    if (netns_open_handle(guest->netns_handle, &fd) >= 0 && is_the_guests(guest, fd))
        *ret_fd = TAKE_FD(fd);
}

/* Does its handle say so? */
static bool netns_is_gone(const struct guest *guest)
{
    _cleanup_close_ int fd = -1;

    return netns_open_handle(guest->netns_handle, &fd) == -ESTALE;
}

void guest_netns_find(const struct guest *guest, int *ret_fd)
{
    guest_netns_open(guest, ret_fd);
    if (*ret_fd < 0 && guest->netns_ino != 0 && !netns_is_gone(guest) &&
        netns_find(guest->netns_dev, guest->netns_ino, ret_fd) < 0)
        *ret_fd = -1;
}

int guest_netns_lost(const struct guest *guest, struct error *error)
{
    if (netns_is_gone(guest))
        return error_set_reason(error, REASON_NOT_FOUND, "the namespace of guest \"%s\" is gone",
                                guest->name);
    return error_set_reason(
        error, REASON_NOT_FOUND,
        "the namespace of guest \"%s\" can't be reached: nothing leads there "
        "but links and descriptors, which takes Linux 6.18; start a process in it",
        guest->name);
}

int netns_check_free(struct service *service, const struct guest *guest, struct error *error)
{
    struct guest other = {0};
    bool found = false;
    int r = store_guest_find_by_netns(service->store, guest->netns_dev, guest->netns_ino, &other,
                                      &found, error);

    if (r >= 0 && found)
        r = error_set_reason(
            error, REASON_IN_USE,
            "that namespace is guest \"%s\"'s; `moat attach %s --network NET` adds a network to it",
            other.name, other.name);
    guest_deinit(&other);
    return r;
}

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

int endpoint_forget(struct service *service, const struct guest *guest, size_t index,
                    const struct network *network, struct error *error)
{
    const struct endpoint *endpoint = &guest->endpoints[index];
    int r = 0;

    if (ip_is_set(&endpoint->ip))
        r = store_address_release(service->store, network, &endpoint->ip, guest->name, error);
    if (r >= 0 && ip_is_set(&endpoint->ip6))
        r = store_address_release(service->store, network, &endpoint->ip6, guest->name, error);
    return r < 0 ? r : store_endpoint_delete(service->store, endpoint->id, error);
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

static int detach_network(struct service *service, struct guest *guest, const char *network,
                          struct error *error)
{
    size_t index = find_endpoint(guest, network);
    struct guest_plan plan;
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

int service_guest_detach(struct service *service, const struct guest_detach_params *params,
                         struct error *error)
{
    struct guest guest = {0};
    struct promise promised;
    int r;

    if (params->network[0] || attach_is_on_its_way(service, params->name))
        service_settle(service);
    promised = service_promised(service);
    r = guest_find(service, params->name, &guest, error);
    if (r >= 0 && params->network[0])
        r = detach_network(service, &guest, params->network, error);
    else if (r >= 0)
        r = guest_remove(service, &guest, "detached", error);
    if (r >= 0 && guest.kind == KIND_NETNS)
        promise_waive(service, &promised);
    guest_deinit(&guest);
    return r;
}
