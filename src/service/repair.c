/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Somebody else has changed what is ours: the same "make the kernel match" as at start. Rules are
 * put right at once, in one transaction, and networks with them; guests follow, one in each turn of
 * the loop, or everybody else would wait for all of them. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/reconcile.h"

#define REPAIR_DELAY_MS 20 /* what is changed in one go is repaired in one go */
#define CHECKPOINT_DELAY_MS 2000

/* Guests whose namespace ended between the look at who is there and the look at their links. */
static void remove_unreachable(struct service *service)
{
    struct error error = ERROR_INIT;
    struct guest *guests = NULL;
    size_t count = 0;

    service->has_unreachable = false;
    if (store_guest_list(service->store, &guests, &count, &error) < 0)
        log_error("repair: %s", error.text);
    for (size_t i = 0; i < count; i++) {
        if (!guest_is_alive(service, &guests[i]))
            guest_remove_by_id(service, guests[i].id, "its namespace is gone");
        guest_deinit(&guests[i]);
    }
    free(guests);
}

/* A repair that is under way: rules and networks are as they should be, guests come one a turn. */
struct repair {
    struct state state;
    int64_t *guests; /* their ids */
    size_t count;
    size_t next;
};

static void repair_free(struct repair *repair)
{
    free(repair->guests);
    free(repair);
}

static void repair_end(struct service *service, struct repair *repair, int r, struct error *error)
{
    if (reconcile_end(&repair->state, r, error) < 0)
        loop_timer_start(service->repair_timer, 1000);
    repair_free(repair);
}

void repair_drop(struct service *service)
{
    struct repair *repair = service->repair;

    if (!repair)
        return;
    service->repair = NULL;
    strings_deinit(&repair->state.failed_before);
    repair_free(repair);
}

static int take_guests(struct repair *repair, struct error *error)
{
    repair->guests = calloc(repair->state.n_guests + 1, sizeof(*repair->guests));
    if (!repair->guests)
        return error_set(error, ENOMEM, "repair");
    for (size_t i = 0; i < repair->state.n_guests; i++)
        repair->guests[repair->count++] = repair->state.guests[i].id;
    reconcile_forget(&repair->state);
    return 0;
}

static void repair_begin(struct service *service)
{
    struct repair *repair = calloc(1, sizeof(*repair));
    struct error error = ERROR_INIT;
    int r;

    if (!repair) {
        log_error("repair: out of memory; trying again");
        loop_timer_start(service->repair_timer, 1000);
        return;
    }
    repair->state.service = service;
    r = reconcile_begin(&repair->state, &error);
    if (r >= 0)
        r = take_guests(repair, &error);
    if (r < 0) {
        repair_end(service, repair, r, &error);
        return;
    }
    service->repair = repair;
    loop_timer_start(service->guests_timer, 0);
}

/* As it is now: in between it may have changed, or gone. One that is on its way here is being made
 * as it should be. */
static int repair_guest(struct repair *repair, int64_t id, struct error *error)
{
    struct service *service = repair->state.service;
    struct guest guest = {0};
    struct guest_plan plan = {.netns_fd = -1};
    int r = store_guest_get(service->store, id, &guest, error);

    if (r < 0)
        return error->reason == REASON_NOT_FOUND ? 0 : r;
    if (attach_is_on_its_way(service, guest.name)) {
        guest_deinit(&guest);
        return 0;
    }
    r = guest_plan_load(service, &guest, &plan, error);
    if (r >= 0)
        reconcile_guest(&repair->state, &plan);
    guest_plan_deinit_networks(&plan);
    cleanup_close(&plan.netns_fd);
    guest_deinit(&guest);
    return r;
}

static void repair_step(struct service *service)
{
    struct repair *repair = service->repair;
    struct error error = ERROR_INIT;
    int r = 0;

    if (repair->next < repair->count)
        r = repair_guest(repair, repair->guests[repair->next++], &error);
    if (r >= 0 && repair->next < repair->count)
        return;
    service->repair = NULL;
    repair_end(service, repair, r, &error);
}

static void on_guests(void *userdata)
{
    struct service *service = userdata;

    if (service->repair)
        repair_step(service);
    if (service->repair)
        loop_timer_start(service->guests_timer, 0);
}

void repair_finish(struct service *service)
{
    while (service->repair)
        repair_step(service);
}

static void on_repair(void *userdata)
{
    struct service *service = userdata;

    service_settle(service);
    if (service->has_unreachable)
        remove_unreachable(service);
    service_settle(service);
    loop_timer_stop(service->retry_timer);
    repair_drop(service); /* it begins anew */
    repair_begin(service);
}

void reconcile_schedule(struct service *service)
{
    if (!loop_timer_is_active(service->repair_timer))
        loop_timer_start(service->repair_timer, REPAIR_DELAY_MS);
}

static void on_link_gone(void *userdata, const char *name, uint32_t index)
{
    struct service *service = userdata;
    struct error error = ERROR_INIT;
    struct guest guest = {0};
    bool found = false;
    int fd = -1;
    int r;

    (void)index;
    r = store_guest_find_by_host_interface(service->store, name, &guest, &found, &error);
    if (r >= 0 && found && attach_is_on_its_way(service, guest.name)) {
        guest_deinit(&guest);
        service_settle(service); /* whoever makes it may have given up by then */
        r = store_guest_find_by_host_interface(service->store, name, &guest, &found, &error);
    }
    if (r >= 0 && found)
        guest_netns_open(&guest, &fd);
    if (r >= 0 && found && guest.kind == KIND_NETNS && fd < 0)
        r = guest_remove(service, &guest, "its namespace is gone", &error);
    else
        reconcile_schedule(service); /* a bridge, a tap, or a link somebody deleted */
    cleanup_close(&fd);
    guest_deinit(&guest);
    if (r < 0)
        log_error("link %s is gone: %s", name, error.text);
}

static void on_drift(void *userdata)
{
    reconcile_schedule(userdata);
}

/* --- watching --- */

static void on_checkpoint(void *userdata)
{
    struct service *service = userdata;

    store_checkpoint(service->store);
}

void service_changed(struct service *service)
{
    if (service->checkpoint_timer && !loop_timer_is_active(service->checkpoint_timer))
        loop_timer_start(service->checkpoint_timer, CHECKPOINT_DELAY_MS);
}

int watch_start(struct service *service, struct error *error)
{
    static const struct link_watch_ops ops = {on_link_gone, on_drift, surroundings_changed};
    int r;

    service->repair_timer = loop_timer_new(service->loop, on_repair, service);
    service->retry_timer = loop_timer_new(service->loop, on_repair, service);
    service->host_timer = loop_timer_new(service->loop, surroundings_look, service);
    service->firewalls_timer = loop_timer_new(service->loop, firewalls_open, service);
    service->checkpoint_timer = loop_timer_new(service->loop, on_checkpoint, service);
    service->guests_timer = loop_timer_new(service->loop, on_guests, service);
    if (!service->repair_timer || !service->retry_timer || !service->host_timer ||
        !service->firewalls_timer || !service->checkpoint_timer || !service->guests_timer)
        return error_set(error, ENOMEM, "timers");
    loop_timer_set_last(service->guests_timer);
    r = link_watch_start(service->link, service->loop, &ops, service, error);
    if (r >= 0)
        r = nat_watch_start(service->nat, service->loop, on_drift,
                            service->config->open_firewalls ? firewalls_follow : NULL, service,
                            error);
    return r;
}

void watch_stop(struct service *service)
{
    if (service->link)
        link_watch_stop(service->link);
    if (service->nat)
        nat_watch_stop(service->nat);
    loop_timer_free(service->repair_timer);
    loop_timer_free(service->retry_timer);
    loop_timer_free(service->host_timer);
    loop_timer_free(service->firewalls_timer);
    loop_timer_free(service->checkpoint_timer);
    loop_timer_free(service->guests_timer);
    repair_drop(service);
    service->repair_timer = service->host_timer = service->checkpoint_timer = NULL;
    service->firewalls_timer = service->guests_timer = NULL;
    service->retry_timer = NULL;
    strings_deinit(&service->collisions);
    strings_deinit(&service->failures);
}
