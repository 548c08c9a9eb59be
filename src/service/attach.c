/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest.attach: what is asked is checked whole before anything is taken; then ports are bound, the
 * intent is written, and the kernel follows.
 *
 * Links are made beside the loop (step.c), so a new guest is attached in two parts: attach_begin
 * goes as far as that, on_applied goes on when they are there. In between other guests are attached
 * and detached; whatever else happens first waits (service_settle), so nobody but those two sees a
 * guest that is half made. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "service/attach.h"

/* --- the intent --- */

/* The address makes the MAC: whoever gets the address next has the same one, so no neighbour's
 * cache is wrong. */
static int choose_mac(struct service *service, struct endpoint *endpoint, struct error *error)
{
    struct mac mac =
        neighbours_usual_mac(ip_is_set(&endpoint->ip) ? &endpoint->ip : &endpoint->ip6);
    char holder[NAME_MAX_LENGTH + 1];
    bool found = true;

    for (unsigned attempt = 0; attempt < 16 && found; attempt++) {
        int r = store_mac_find(service->store, endpoint->network_id, &mac, holder, &found, error);

        if (r < 0)
            return r;
        if (!found)
            endpoint->mac = mac;
        else if (getrandom(mac.bytes + 1, sizeof(mac.bytes) - 1, 0) < 0)
            return error_set(error, errno, "getrandom");
    }
    return found ? error_set(error, 0, "no free MAC address was found") : 0;
}

int attach_take_addresses(struct attach *attach, size_t index, struct error *error)
{
    struct endpoint *endpoint = &attach->guest.endpoints[index];
    const struct network *network = &attach->plan.networks[index];
    struct store *store = attach->service->store;
    int r = 0;

    if (cidr_is_set(&network->subnet))
        r = store_address_take(store, network, AF_INET,
                               ip_is_set(&endpoint->ip) ? &endpoint->ip : NULL, attach->guest.name,
                               &endpoint->ip, error);
    if (r >= 0 && cidr_is_set(&network->subnet6))
        r = store_address_take(store, network, AF_INET6,
                               ip_is_set(&endpoint->ip6) ? &endpoint->ip6 : NULL,
                               attach->guest.name, &endpoint->ip6, error);
    if (r >= 0 && !mac_is_set(&endpoint->mac))
        r = choose_mac(attach->service, endpoint, error);
    return r;
}

static int write_guest(struct attach *attach, struct error *error)
{
    struct service *service = attach->service;
    struct guest *guest = &attach->guest;
    int r = 0;

    for (size_t i = 0; r >= 0 && i < guest->n_endpoints; i++)
        r = attach_take_addresses(attach, i, error);
    if (r >= 0)
        r = store_guest_insert(service->store, guest, error);
    if (r >= 0)
        r = fault_point("store.commit", error);
    return r < 0 ? r : store_commit(service->store, error);
}

static void forget_guest(struct service *service, const struct guest *guest)
{
    struct error error = ERROR_INIT;
    int r = store_begin(service->store, &error);

    if (r >= 0)
        r = store_guest_release(service->store, guest, &error);
    if (r >= 0)
        r = store_commit(service->store, &error);
    if (r < 0) {
        store_rollback(service->store);
        log_error("guest %s stays in the store: %s", guest->name, error.text);
    }
}

/* Binding many takes long, and others' detaches go on meanwhile: not in the middle of the
 * transaction, of which nothing was written so far. What was checked holds all the same: they only
 * make free, and our own guest waits for us. */
static int reserve_ports(struct attach *attach, struct error *error)
{
    struct service *service = attach->service;
    const struct strings *texts = &attach->params->ports;
    struct guest *guest = &attach->guest;
    bool many = ports_are_many(texts);
    int r;

    if (texts->count == 0)
        return 0;
    r = ports_check_guest(&attach->plan, error);
    if (r < 0)
        return r;
    if (many)
        store_rollback(service->store);
    r = ports_reserve(service, texts, "ports", &attach->plan, &guest->ports, &guest->n_ports,
                      error);
    if (r < 0 || !many)
        return r;
    r = store_begin(service->store, error);
    if (r < 0)
        ports_release(service, guest->ports, guest->n_ports);
    return r;
}

/* Reservations were made under temporary ids; the store has given the real ones. */
static void rename_reservations(struct service *service, const struct guest *guest,
                                const int64_t *temporary)
{
    for (size_t i = 0; i < guest->n_ports; i++)
        reserve_rename(service->reservations, temporary[i], guest->ports[i].id);
}

/* The guest's plan has been applied, or undone again. */
static int settle_guest(struct attach *attach, int r, struct error *error)
{
    struct service *service = attach->service;
    const struct guest *guest = &attach->guest;

    if (r >= 0 && guest->ephemeral) {
        r = owner_add(service, guest, attach->peer->connection, error);
        if (r < 0)
            guest_plan_undo(service, &attach->plan);
    }
    if (r < 0) {
        ports_release(service, guest->ports, guest->n_ports);
        forget_guest(service, guest);
    }
    return r;
}

static void on_applied(void *userdata, int r, struct error *error);

static int commit_guest(struct attach *attach, struct error *error)
{
    struct service *service = attach->service;
    struct guest *guest = &attach->guest;
    int64_t temporary[LIMIT_PORTS_PER_GUEST];
    int r;

    for (size_t i = 0; i < guest->n_ports; i++)
        temporary[i] = guest->ports[i].id;
    r = write_guest(attach, error);
    if (r < 0) {
        for (size_t i = 0; i < guest->n_ports; i++)
            reserve_release(service->reservations, temporary[i]);
        return r;
    }
    rename_reservations(service, guest, temporary);
    r = guest_plan_start(service, &attach->plan, on_applied, attach, error);
    return r < 0 ? settle_guest(attach, r, error) : r;
}

static int attach_new(struct attach *attach, struct error *error)
{
    int r = attach_copy_settings(attach, error);

    if (r >= 0)
        r = attach_check_settings(attach, error);
    if (r >= 0)
        r = attach_check_tap_name(attach, error);
    if (r >= 0)
        r = attach_add_endpoints(attach, error);
    if (r >= 0)
        r = attach_open_namespace(attach, error);
    if (r >= 0)
        r = inject_check(&attach->plan, attach->peer, error);
    if (r >= 0)
        r = reserve_ports(attach, error);
    if (r >= 0)
        r = commit_guest(attach, error);
    return r;
}

/* --- the flow --- */

static void list_add(struct attach *attach)
{
    attach->next = attach->service->attaching;
    attach->service->attaching = attach;
}

static void list_remove(struct attach *attach)
{
    struct attach **place = &attach->service->attaching;

    while (*place != attach)
        place = &(*place)->next;
    *place = attach->next;
}

bool attach_is_on_its_way(const struct service *service, const char *guest)
{
    const struct attach *attach = service->attaching;

    while (attach && strcmp(attach->guest.name, guest) != 0)
        attach = attach->next;
    return attach;
}

/* What a try took, as far as it is still held. */
static void attach_deinit(struct attach *attach)
{
    guest_plan_deinit_networks(&attach->plan);
    cleanup_close(&attach->plan.netns_fd);
    attach->plan.netns_fd = -1;
    for (size_t i = 0; i < ARRAY_SIZE(attach->tap_fds); i++) {
        cleanup_close(&attach->tap_fds[i]);
        attach->tap_fds[i] = -1;
    }
    guest_deinit(&attach->guest);
}

static void attach_free(struct attach *attach)
{
    attach_deinit(attach);
    free(attach);
}

static void tell_attached(struct attach *attach, struct error *error)
{
    int fds[LIMIT_ENDPOINTS];
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(attach->tap_fds); i++)
        if (attach->tap_fds[i] >= 0)
            fds[count++] = TAKE_FD(attach->tap_fds[i]);
    attach->done(attach->userdata, &attach->guest, fds, count, error);
}

/* The guest is there, or it is not and nothing is left of it. */
static void attach_finish(struct attach *attach, int r, struct error *error)
{
    struct service *service = attach->service;
    const struct guest *guest = &attach->guest;

    if (r < 0) {
        attach->done(attach->userdata, NULL, NULL, 0, error);
        return;
    }
    for (size_t i = attach->plan.first_endpoint; i < guest->n_endpoints; i++)
        event_emit(service, "guest.attached", guest->endpoints[i].network, guest->name, "%s",
                   guest->endpoints[i].host_interface);
    if (guest->n_endpoints == 0)
        event_emit(service, "guest.attached", NULL, guest->name, "mode %s",
                   guest_mode_name(guest->mode));
    guest_show_netns(&attach->guest);
    if (guest_show_vmm(service, &attach->guest, error) < 0 ||
        (attach->plan.first_endpoint > 0 && guest_show_drops(service, &attach->guest, error) < 0))
        log_warning("guest %s: %s", guest->name, error->text); /* it is there all the same */
    guest_plan_deinit_networks(&attach->plan);                 /* it looks at the guest */
    tell_attached(attach, error);
    attach->guest = (struct guest){0}; /* the callee's now */
}

static int attach_try(struct attach *attach, struct error *error)
{
    struct service *service = attach->service;
    int r;

    attach->guest = (struct guest){0};
    attach->plan = (struct guest_plan){.guest = &attach->guest, .with_ports = true, .netns_fd = -1};
    for (size_t i = 0; i < ARRAY_SIZE(attach->tap_fds); i++)
        attach->tap_fds[i] = -1;
    if (attach->params->tap.fd)
        attach->plan.ret_tap_fds = attach->tap_fds;
    /* One transaction from the first look to the commit: what was checked still holds, and it is
     * cheaper than one for each look. */
    r = store_begin(service->store, error);
    if (r >= 0)
        r = attach->params->has_kind ? attach_new(attach, error) : attach_join(attach, error);
    store_rollback(service->store); /* what failed before the commit; else there is nothing */
    return r;
}

/* Was a name inside taken that we wanted? Then *ret_taken says which names are. */
static bool names_collide(const struct attach *attach, uint64_t *ret_taken)
{
    struct error ignored = ERROR_INIT;
    unsigned number;

    if (attach->plan.netns_fd < 0 ||
        link_guest_numbers(attach->plan.netns_fd, ret_taken, &ignored) < 0)
        return false;
    for (size_t i = attach->plan.first_endpoint; i < attach->guest.n_endpoints; i++)
        if (sscanf(attach->guest.endpoints[i].interface, "eth%3u", &number) == 1 &&
            number < LINK_GUEST_NUMBERS && *ret_taken >> number & 1)
            return true;
    return false;
}

/* Hardly any namespace has links called eth0 before we come: it is not asked before, but tried
 * again when it has. What the first try made is not taken: it has to be gone before anybody looks,
 * for which the loop waits this once. */
static bool wants_another_try(struct attach *attach, const struct error *error)
{
    uint64_t taken = 0;

    if (attach->again || error->reason != REASON_EXISTS || attach->plan.netns_fd < 0)
        return false;
    service_settle(attach->service);
    link_reaper_wait(attach->service->link);
    if (!names_collide(attach, &taken))
        return false;
    attach_deinit(attach);
    attach->taken = taken;
    attach->again = true;
    return true;
}

/* Goes on when the links are there, or has failed. A guest that only joins a network is done. */
static int attach_begin(struct attach *attach, struct error *error)
{
    struct error first = ERROR_INIT;
    int r = attach_try(attach, &first);

    if (r < 0 && wants_another_try(attach, &first))
        r = attach_try(attach, error);
    else if (r < 0)
        *error = first;
    if (r >= 0 && attach->params->has_kind)
        list_add(attach);
    return r;
}

static void on_applied(void *userdata, int r, struct error *error)
{
    struct attach *attach = userdata;
    struct error second = ERROR_INIT;

    list_remove(attach);
    r = settle_guest(attach, r, error);
    if (r < 0 && wants_another_try(attach, error)) {
        r = attach_begin(attach, &second);
        if (r >= 0)
            return;
        *error = second;
    }
    attach_finish(attach, r, error);
    attach_free(attach);
}

bool service_attach_settles(const struct guest_attach_params *params)
{
    return !params->has_kind || params->tap.name[0];
}

int service_guest_attach(struct service *service, const struct peer *peer,
                         struct guest_attach_params *params, const int *fds, size_t n_fds,
                         service_attached_fn done, void *userdata, struct error *error)
{
    struct attach *attach;
    int r;

    attach = calloc(1, sizeof(*attach));
    if (!attach)
        return error_set(error, ENOMEM, "guest");
    service_work_on(service, params->name);
    *attach = (struct attach){.service = service,
                              .peer = peer,
                              .params = params,
                              .fds = fds,
                              .n_fds = n_fds,
                              .done = done,
                              .userdata = userdata};
    r = attach_begin(attach, error);
    if (r >= 0 && params->has_kind)
        return 0;
    if (r >= 0)
        attach_finish(attach, 0, error);
    attach_free(attach);
    return r;
}
