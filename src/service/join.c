/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest.attach without a kind: one more network for a guest that is there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/attach.h"

static bool has_policy(const struct policy *policy)
{
    return policy->allow.count || policy->deny.count || policy->log_denied || policy->silent;
}

static bool has_limits(const struct limits *limits)
{
    return limits->rate_up || limits->rate_down || limits->max_conns || limits->conn_rate;
}

/* Nothing but the wish for the open taps. */
static bool asks_only_for_fd(const struct attach_tap *tap)
{
    return tap->fd && !tap->name[0] && tap->owner < 0 && tap->group < 0 && !tap->multi_queue &&
           !tap->vnet_hdr;
}

static int check_join(const struct guest_attach_params *params, struct error *error)
{
    const char *field = params->netns                                          ? "netns"
                        : params->pid                                          ? "pid"
                        : params->netns_fd                                     ? "netns_fd"
                        : params->tap.given && !asks_only_for_fd(&params->tap) ? "tap"
                        : params->has_mode                                     ? "mode"
                        : params->ports.count                                  ? "ports"
                        : params->hosts.count                                  ? "hosts"
                        : params->dns.count                                    ? "dns"
                        : params->dns_search.count                             ? "dns_search"
                        : params->labels.count                                 ? "labels"
                        : has_policy(&params->policy)                          ? "policy"
                        : has_limits(&params->limits)                          ? "limits"
                        : params->ephemeral                                    ? "ephemeral"
                        : params->dns_inject                                   ? "dns_inject"
                                                                               : NULL;

    if (field)
        return error_set_field(
            error, field, "%s: is given with the guest's kind, when it is attached first", field);
    if (params->n_networks == 0)
        return error_set_field(error, "networks",
                               "networks: name the network to join, or give kind for a new guest");
    return 0;
}

static void forget_endpoints(struct attach *attach)
{
    struct service *service = attach->service;
    struct error error = ERROR_INIT;
    int r = store_begin(service->store, &error);

    for (size_t i = attach->plan.first_endpoint; r >= 0 && i < attach->guest.n_endpoints; i++)
        r = endpoint_forget(service, &attach->guest, i, &attach->plan.networks[i], &error);
    if (r >= 0)
        r = store_commit(service->store, &error);
    if (r < 0) {
        store_rollback(service->store);
        log_error("guest %s: %s", attach->guest.name, error.text);
    }
}

static int write_endpoints(struct attach *attach, struct error *error)
{
    struct service *service = attach->service;
    int r = 0;

    for (size_t i = attach->plan.first_endpoint; r >= 0 && i < attach->guest.n_endpoints; i++) {
        attach->guest.endpoints[i].guest_id = attach->guest.id;
        r = attach_take_addresses(attach, i, error);
        if (r >= 0)
            r = store_endpoint_insert(service->store, &attach->guest.endpoints[i], error);
    }
    return r < 0 ? r : store_commit(service->store, error);
}

/* The new network may be the first of its family with an outside: published ports lead there too
 * then. */
static int join_ports(struct attach *attach, struct error *error)
{
    struct nat_port before[LIMIT_PORTS_PER_GUEST];
    struct guest old = attach->guest; /* shallow: as it was */
    struct guest_plan plan = attach->plan;

    if (attach->guest.n_ports == 0)
        return 0;
    old.n_endpoints = attach->plan.first_endpoint;
    plan.guest = &old;
    for (size_t i = 0; i < old.n_ports; i++)
        plan_nat_port(&plan, &old.ports[i], &before[i]);
    return ports_retarget(attach->service, &attach->plan, before, error);
}

int attach_join(struct attach *attach, struct error *error)
{
    int r = check_join(attach->params, error);

    if (r >= 0)
        r = guest_find(attach->service, attach->params->name, &attach->guest, error);
    if (r < 0)
        return r;
    if (attach->params->tap.fd && attach->guest.kind != KIND_TAP)
        return error_set_field(error, "tap.fd", "tap.fd: guest \"%s\" is a namespace, without taps",
                               attach->guest.name);
    if (!attach_needs_networks(attach))
        return error_set_reason(error, REASON_MODE_FORBIDS,
                                "guest \"%s\" is in mode %s, which takes no network",
                                attach->guest.name, guest_mode_name(attach->guest.mode));
    r = guest_plan_load(attach->service, &attach->guest, &attach->plan, error);
    if (r < 0)
        return r;
    attach->plan.first_endpoint = attach->guest.n_endpoints;
    attach->plan.with_ports = false;
    if (attach->params->tap.fd)
        attach->plan.ret_tap_fds = attach->tap_fds;
    r = attach_add_endpoints(attach, error);
    if (r < 0)
        return r;
    guest_netns_find(&attach->guest, &attach->plan.netns_fd);
    if (attach->guest.kind == KIND_NETNS && attach->plan.netns_fd < 0)
        return guest_netns_lost(&attach->guest, error);
    r = write_endpoints(attach, error);
    if (r < 0)
        return r;
    r = guest_plan_apply(attach->service, &attach->plan, error);
    if (r >= 0) {
        r = join_ports(attach, error);
        if (r < 0)
            guest_plan_undo(attach->service, &attach->plan);
    }
    if (r < 0)
        forget_endpoints(attach);
    return r;
}
