/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits: how much a guest may send and receive, and how many connections it may open. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/rate.h"
#include "service/private.h"

/* --- checking --- */

static int check_rate(uint64_t rate, const char *prefix, const char *name, struct error *error)
{
    char field[64];

    if (rate == 0 || (rate >= RATE_MIN_BITS && rate <= RATE_MAX_BITS))
        return 0;
    snprintf(field, sizeof(field), "%s%s", prefix, name);
    return error_set_field(error, field, "%s: takes 0 for none, or from %u to %llu bits a second",
                           field, RATE_MIN_BITS, RATE_MAX_BITS);
}

int limits_check(const struct limits *limits, const char *prefix, struct error *error)
{
    int r = check_rate(limits->rate_up, prefix, "rate_up", error);

    return r < 0 ? r : check_rate(limits->rate_down, prefix, "rate_down", error);
}

/* --- in the kernel --- */

static void plan_shape(const struct guest_plan *plan, size_t index, struct link_shape *ret_shape)
{
    const struct guest *guest = plan->guest;
    const struct endpoint *endpoint = &guest->endpoints[index];
    struct link_shape shape = {
        .mtu = plan->networks[index].mtu_now,
        .rate_up = guest->limits.rate_up,
        .rate_down = guest->limits.rate_down,
    };

    snprintf(shape.host_name, sizeof(shape.host_name), "%s", endpoint->host_interface);
    limit_link_name(endpoint, shape.between);
    snprintf(shape.alias, sizeof(shape.alias), LINK_ALIAS_PREFIX "%s", guest->uid);
    *ret_shape = shape;
}

void limit_link_name(const struct endpoint *endpoint, char ret_name[IFNAMSIZ])
{
    snprintf(ret_name, IFNAMSIZ, "mi%lld", (long long)endpoint->id);
}

static bool has_rates(const struct limits *limits)
{
    return limits->rate_up > 0 || limits->rate_down > 0;
}

int limit_apply(struct service *service, const struct guest_plan *plan, size_t index,
                struct error *error)
{
    struct link_shape shape;

    if (!has_rates(&plan->guest->limits))
        return 0;
    plan_shape(plan, index, &shape);
    return link_shape_set(service->link, &shape, error);
}

void limit_undo(struct service *service, const struct guest_plan *plan, size_t index)
{
    struct error error = ERROR_INIT;
    struct link_shape shape;

    if (plan->guest->limits.rate_up == 0)
        return;
    plan_shape(plan, index, &shape);
    if (link_shape_remove(service->link, &shape, &error) < 0) {
        log_warning("%s: %s; repairing", shape.between, error.text);
        reconcile_schedule(service);
    }
}

/* Limits that are taken away as well. */
static int set_rates(struct service *service, const struct guest_plan *plan, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < plan->guest->n_endpoints; i++) {
        struct link_shape shape;

        plan_shape(plan, i, &shape);
        r = link_shape_set(service->link, &shape, error);
    }
    return r;
}

/* --- changing --- */

static int write_limits(struct service *service, int64_t guest_id, const struct limits *limits,
                        struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_guest_set_limits(service->store, guest_id, limits, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int change_guest(struct service *service, struct guest *guest, const struct limits *limits,
                        struct error *error)
{
    bool rates =
        limits->rate_up != guest->limits.rate_up || limits->rate_down != guest->limits.rate_down;
    struct guest after = *guest; /* shallow */
    struct guest_plan plan;
    int r = guest_plan_load(service, guest, &plan, error);

    if (r < 0)
        return r;
    after.limits = *limits;
    r = guest_rules_replace(service, &plan, &after, error);
    if (r >= 0 && rates) {
        struct guest_plan after_plan = plan;

        after_plan.guest = &after;
        r = set_rates(service, &after_plan, error);
    }
    guest_plan_deinit_networks(&plan);
    return r;
}

/* After a change that failed halfway: as it was. */
static void restore(struct service *service, struct guest *guest, const struct limits *tried)
{
    const struct limits before = guest->limits;
    struct error error = ERROR_INIT;

    if (write_limits(service, guest->id, &before, &error) < 0)
        log_error("guest %s: %s", guest->name, error.text);
    guest->limits = *tried;
    if (change_guest(service, guest, &before, &error) < 0)
        log_warning("guest %s: %s; repairing", guest->name, error.text);
    guest->limits = before;
    reconcile_schedule(service);
}

static int apply_limits(struct service *service, struct guest *guest, const struct limits *limits,
                        struct error *error)
{
    int r = limits_check(limits, "", error);

    if (r >= 0)
        r = write_limits(service, guest->id, limits, error);
    if (r < 0)
        return r;
    r = change_guest(service, guest, limits, error);
    if (r < 0) {
        restore(service, guest, limits);
        return r;
    }
    guest->limits = *limits;
    return 0;
}

static void show(const struct service *service, const struct guest *guest,
                 struct limits *ret_limits)
{
    *ret_limits = guest->limits;
    if (ret_limits->max_conns == 0)
        ret_limits->max_conns = nat_share_get(service->nat);
}

int service_limit_get(struct service *service, const struct guest_params *params,
                      struct limits *ret_limits, struct error *error)
{
    struct guest guest = {0};
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        show(service, &guest, ret_limits);
    guest_deinit(&guest);
    return r;
}

int service_limit_set(struct service *service, const struct limit_set_params *params,
                      struct limits *ret_limits, struct error *error)
{
    struct guest guest = {0};
    struct limits limits;
    int r = guest_find(service, params->guest, &guest, error);

    limits = guest.limits;
    if (params->has_rate_up)
        limits.rate_up = params->limits.rate_up;
    if (params->has_rate_down)
        limits.rate_down = params->limits.rate_down;
    if (params->has_max_conns)
        limits.max_conns = params->limits.max_conns;
    if (params->has_conn_rate)
        limits.conn_rate = params->limits.conn_rate;
    if (r >= 0)
        r = apply_limits(service, &guest, &limits, error);
    if (r >= 0) {
        char up[RATE_TEXT_MAX];
        char down[RATE_TEXT_MAX];

        event_emit(service, "limit.changed", NULL, guest.name,
                   "up %s, down %s, %u connections, %u a second", rate_format(limits.rate_up, up),
                   rate_format(limits.rate_down, down), limits.max_conns, limits.conn_rate);
        show(service, &guest, ret_limits);
    }
    guest_deinit(&guest);
    return r;
}
