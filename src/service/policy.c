/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's mode and rules. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

int policy_accept(const struct policy *policy, struct policy *ret_policy, struct error *error)
{
    if (policy->allow.count || policy->deny.count)
        return error_set_reason(
            error, REASON_NOT_SUPPORTED,
            "this moatd enforces modes but no allow and deny rules; leave the rules out");
    *ret_policy = (struct policy){.log_denied = policy->log_denied};
    return 0;
}

static int result(const struct guest *guest, struct policy_result *ret_policy, struct error *error)
{
    struct policy_result policy = {.mode = guest->mode};

    policy.policy.log_denied = guest->policy.log_denied;
    if (strings_copy(&guest->policy.allow, &policy.policy.allow) < 0 ||
        strings_copy(&guest->policy.deny, &policy.policy.deny) < 0) {
        policy_deinit(&policy.policy);
        return error_set(error, ENOMEM, "policy");
    }
    *ret_policy = policy;
    return 0;
}

int service_policy_get(struct service *service, const struct guest_params *params,
                       struct policy_result *ret_policy, struct error *error)
{
    struct guest guest = {0};
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        r = result(&guest, ret_policy, error);
    guest_deinit(&guest);
    return r;
}

/* Modes with and without interfaces differ in what exists inside: only a new attach makes that. */
static int check_mode(const struct guest *guest, enum guest_mode mode, struct error *error)
{
    bool had = guest->mode == MODE_FULL || guest->mode == MODE_OUTBOUND;
    bool has = mode == MODE_FULL || mode == MODE_OUTBOUND;

    if (had != has)
        return error_set_reason(
            error, REASON_MODE_FORBIDS,
            "guest \"%s\" was attached in mode %s; detach it and attach it in mode %s", guest->name,
            guest_mode_name(guest->mode), guest_mode_name(mode));
    if (mode == MODE_OUTBOUND && guest->n_ports)
        return error_set_reason(
            error, REASON_MODE_FORBIDS,
            "guest \"%s\" has published ports; `moat port rm` them before mode outbound",
            guest->name);
    return 0;
}

/* The live port changes kind; rules were there before it does. */
static int move_ports(struct service *service, struct guest_plan *plan, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < plan->guest->n_endpoints; i++) {
        struct endpoint *endpoint = &plan->guest->endpoints[i];
        bool routed = plan->networks[i].isolated || plan->guest->mode == MODE_OUTBOUND;
        struct link_endpoint link;

        if (endpoint->routed == routed)
            continue;
        endpoint->routed = routed;
        plan_link(plan, i, &link);
        r = link_endpoint_set_routed(service->link, &link, error);
        if (r >= 0)
            r = store_endpoint_set_routed(service->store, endpoint->id, routed, error);
    }
    return r;
}

static int set_mode(struct service *service, struct guest *guest, enum guest_mode mode,
                    struct error *error)
{
    struct guest_plan plan;
    struct guest changed = *guest; /* shallow */
    int r = guest_plan_load(service, guest, &plan, error);

    if (r < 0)
        return r;
    changed.mode = mode;
    r = guest_rules_replace(service, &plan, &changed, error);
    guest->mode = mode;
    if (r >= 0)
        r = move_ports(service, &plan, error);
    guest_plan_deinit_networks(&plan);
    return r;
}

static int write_policy(struct service *service, const struct guest *guest, enum guest_mode mode,
                        const struct policy *policy, struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_guest_set_policy(service->store, guest->id, mode, policy, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

/* After a failed apply: the old intent, and the kernel made to match it. */
static void restore(struct service *service, const struct guest *guest, enum guest_mode mode)
{
    struct error error = ERROR_INIT;

    if (write_policy(service, guest, mode, &guest->policy, &error) < 0)
        log_error("guest %s: %s", guest->name, error.text);
    reconcile_schedule(service);
}

int service_policy_set(struct service *service, const struct policy_set_params *params,
                       struct policy_result *ret_policy, struct error *error)
{
    struct guest guest = {0};
    struct policy policy = {0};
    enum guest_mode old;
    enum guest_mode mode;
    int r = guest_find(service, params->guest, &guest, error);

    old = guest.mode;
    mode = params->has_mode ? params->mode : guest.mode;
    if (r >= 0)
        r = policy_accept(&params->policy, &policy, error);
    if (r >= 0)
        r = check_mode(&guest, mode, error);
    if (r >= 0)
        r = write_policy(service, &guest, mode, &policy, error);
    if (r >= 0 && mode != old) {
        r = set_mode(service, &guest, mode, error);
        if (r < 0)
            restore(service, &guest, old);
    }
    if (r >= 0) {
        policy_deinit(&guest.policy);
        guest.policy = policy;
        policy = (struct policy){0};
        event_emit(service, "policy.changed", NULL, guest.name, "mode %s", guest_mode_name(mode));
        r = result(&guest, ret_policy, error);
    }
    policy_deinit(&policy);
    guest_deinit(&guest);
    return r;
}
