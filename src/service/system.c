/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon as a whole: status, teardown. */
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
    service_settle(service);
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

static void remove_socket(const struct service *service)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/moat.sock", service->config->run_dir);
    if (unlink(path) < 0 && errno != ENOENT)
        log_warning("%s: %s", path, strerror(errno));
}

int service_teardown(struct service *service, struct error *error)
{
    int r;

    repair_drop(service);
    r = remove_everything(service, error);
    if (r >= 0)
        r = firewalls_close(service, error);
    if (r >= 0)
        r = nat_remove_all(service->nat, error);
    if (r < 0)
        return r;
    conntrack_wait(service->conntrack);
    link_reaper_wait(service->link);
    service_close_layers(service, false);
    remove_socket(service);
    directories_forget(service);
    service->torn_down = true;
    event_emit(service, "teardown", NULL, NULL, "everything is removed");
    return 0;
}
