/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon as a whole: status, localhost, teardown. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

#ifndef MOAT_VERSION
#error "MOAT_VERSION comes from the build"
#endif

static int forwards_format(const struct config *config, struct strings *strings)
{
    for (size_t i = 0; i < config->n_forwards; i++) {
        const struct names_forward *forward = &config->forwards[i];

        for (size_t j = 0; j < forward->servers.count; j++) {
            char text[sizeof(forward->suffix) + IP_TEXT_MAX + 1];
            char ip[IP_TEXT_MAX];

            snprintf(text, sizeof(text), "%s=%s", forward->suffix,
                     ip_format(&forward->servers.items[j], ip));
            if (strings_add(strings, text) < 0)
                return -ENOMEM;
        }
    }
    return 0;
}

int service_status(struct service *service, struct status_result *ret_status, struct error *error)
{
    struct status_result status = {
        .version = MOAT_VERSION,
        .uptime_seconds = service_uptime_s(service),
        .pid = (uint32_t)getpid(),
        .table_owned = nat_is_owned(service->nat),
        .relay_pid = (uint32_t)reservations_pid(service->reservations),
        .dhcp_pid = (uint32_t)leases_pid(service->leases),
    };
    struct names_status names;
    int r = store_network_count(service->store, &status.networks, error);

    if (r >= 0)
        r = store_guest_count(service->store, &status.guests, &status.ports, error);
    if (r < 0)
        return r;
    names_status_get(service->names, &names);
    status.dns_pid = (uint32_t)names.pid;
    status.dns = names.counters;
    snprintf(status.domain, sizeof(status.domain), "%s", service->config->domain);
    if (ips_copy(names_upstreams(service->names), &status.upstreams) < 0 ||
        forwards_format(service->config, &status.forward) < 0) {
        ips_deinit(&status.upstreams);
        strings_deinit(&status.forward);
        return error_set(error, ENOMEM, "status");
    }
    *ret_status = status;
    return 0;
}

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
        guest_netns_open(&guest, &plan.netns_fd);
        if (plan.netns_fd < 0)
            r = error_set_reason(error, REASON_NOT_FOUND,
                                 "the namespace of guest \"%s\" can't be reached", guest.name);
    }
    if (r >= 0 && guest.localhost != params->enabled)
        r = localhost_change(service, &plan, params->enabled, error);
    cleanup_close(&plan.netns_fd);
    guest_plan_deinit_networks(&plan);
    guest_deinit(&guest);
    return r;
}

/* --- teardown --- */

/* Everything in one transaction: one by one each would wait for the disk. */
static int forget_all(struct service *service, const struct guest *guests, size_t n_guests,
                      const struct network *networks, size_t n_networks, struct error *error)
{
    int r = store_begin(service->store, error);

    for (size_t i = 0; r >= 0 && i < n_guests; i++)
        r = store_guest_release(service->store, &guests[i], error);
    for (size_t i = 0; r >= 0 && i < n_networks; i++)
        r = store_network_delete(service->store, networks[i].id, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int load_plans(struct service *service, struct guest *guests, size_t count,
                      struct guest_plan *plans, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < count; i++)
        r = guest_plan_load(service, &guests[i], &plans[i], error);
    return r;
}

static int remove_objects(struct service *service, struct guest *guests, size_t n_guests,
                          struct network *networks, size_t n_networks, struct error *error)
{
    struct guest_plan *plans = calloc(n_guests + 1, sizeof(*plans));
    int r = plans ? load_plans(service, guests, n_guests, plans, error)
                  : error_set(error, ENOMEM, "teardown");

    if (r >= 0)
        r = forget_all(service, guests, n_guests, networks, n_networks, error);
    if (r >= 0)
        r = link_remove_all(service->link,
                            error); /* at once, for the same reason; the undos find nothing */
    for (size_t i = 0; r >= 0 && i < n_guests; i++) {
        owner_remove(service, guests[i].id);
        guest_plan_undo(service, &plans[i]);
        event_emit(service, "guest.detached", NULL, guests[i].name, "teardown");
    }
    for (size_t i = 0; r >= 0 && i < n_networks; i++)
        network_undo(service, &networks[i]);
    for (size_t i = 0; plans && i < n_guests; i++) {
        if (plans[i].guest)
            guest_plan_deinit_networks(&plans[i]);
    }
    free(plans);
    return r;
}

static int remove_everything(struct service *service, struct error *error)
{
    struct guest *guests = NULL;
    struct network *networks = NULL;
    size_t n_guests = 0;
    size_t n_networks = 0;
    int r = store_guest_list(service->store, &guests, &n_guests, error);

    if (r >= 0)
        r = store_network_list(service->store, &networks, &n_networks, error);
    if (r >= 0)
        r = remove_objects(service, guests, n_guests, networks, n_networks, error);
    for (size_t i = 0; i < n_guests; i++)
        guest_deinit(&guests[i]);
    for (size_t i = 0; i < n_networks; i++)
        network_deinit(&networks[i]);
    free(guests);
    free(networks);
    return r;
}

static void remove_file(const char *directory, const char *name)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    if (unlink(path) < 0 && errno != ENOENT)
        log_warning("%s: %s", path, strerror(errno));
}

static void remove_files(struct service *service)
{
    static const char *const state_files[] = {"moat.db", "moat.db-wal", "moat.db-shm",
                                              "moatd.lock"};
    static const char *const run_files[] = {"moat.sock", "moatd.lock"};

    for (size_t i = 0; i < ARRAY_SIZE(state_files); i++)
        remove_file(service->config->state_dir, state_files[i]);
    for (size_t i = 0; i < ARRAY_SIZE(run_files); i++)
        remove_file(service->config->run_dir, run_files[i]);
    service_remove_directories(service);
}

int service_teardown(struct service *service, struct error *error)
{
    int r = remove_everything(service, error);

    if (r >= 0)
        r = nat_remove_all(service->nat, error);
    if (r < 0)
        return r;
    conntrack_wait(service->conntrack);
    link_reaper_wait(service->link);
    service_close_layers(service, false);
    remove_files(service);
    service->torn_down = true;
    event_emit(service, "teardown", NULL, NULL, "everything is removed");
    return 0;
}
