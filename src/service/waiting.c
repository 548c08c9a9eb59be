/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Published ports that another program holds when moatd starts. The program keeps its port, the
 * guest comes up without it, and moatd tries again until it can have it:
 *
 *   start ── bound ───────────────────────────────► served: reserved, translated, relayed
 *     └───── somebody has it ──► waiting ── bound ────┘
 *                                  └── tried again after 1 s, 2 s, 4 s, then each 8 s
 *
 * Nothing is led to the guest while it waits, neither by the kernel nor by the relay. That there is
 * no reservation is what counts; the list here says why. (A port that is published while moatd runs
 * is refused instead.) */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "base/log.h"
#include "service/private.h"

#define RETRY_FIRST_MS 1000
#define RETRY_LAST_MS 8000

struct waiting {
    int64_t port_id;
    int64_t guest_id;
    char why[PORT_WHY_MAX];
};

struct waitings {
    struct loop_timer *timer;
    uint64_t pause_ms;
    struct waiting *items;
    size_t count;
};

static struct waiting *waiting_find(const struct service *service, int64_t port_id)
{
    const struct waitings *waitings = service->waitings;

    for (size_t i = 0; waitings && i < waitings->count; i++)
        if (waitings->items[i].port_id == port_id)
            return &waitings->items[i];
    return NULL;
}

bool port_is_waiting(const struct service *service, const struct port *port)
{
    return waiting_find(service, port->id) != NULL;
}

/* The first half of the message says what is the matter; the rest is for who asked for the port. */
static void why_set(struct waiting *waiting, const struct error *error)
{
    snprintf(waiting->why, sizeof(waiting->why), "%.*s", (int)strcspn(error->text, ";"),
             error->text);
}

/* --- binding --- */

static int serve(struct service *service, const struct guest_plan *plan, const struct port *port,
                 struct error *error)
{
    struct nat_port nat;
    int r = reserve_port(service->reservations, port, true, error);

    plan_nat_port(plan, port, &nat);
    if (r >= 0 && ip_is_set(plan_relay_target(&nat)))
        r = reserve_relay_to(service->reservations, port->id, plan_relay_target(&nat), error);
    if (r < 0)
        reserve_release(service->reservations, port->id);
    return r;
}

static void on_retry(void *userdata);

static int waiting_add(struct service *service, const struct port *port, const struct error *why)
{
    struct waitings *waitings = service->waitings;
    struct waiting *items;

    if (!waitings)
        waitings = service->waitings = calloc(1, sizeof(*waitings));
    if (waitings && !waitings->timer)
        waitings->timer = loop_timer_new(service->loop, on_retry, service);
    if (!waitings || !waitings->timer)
        return -ENOMEM;
    items = list_grow(waitings->items, waitings->count, sizeof(*items));
    if (!items)
        return -ENOMEM;
    waitings->items = items;
    items += waitings->count++;
    *items = (struct waiting){.port_id = port->id, .guest_id = port->guest_id};
    why_set(items, why);
    waitings->pause_ms = RETRY_FIRST_MS;
    if (!loop_timer_is_active(waitings->timer))
        loop_timer_start(waitings->timer, waitings->pause_ms);
    return 0;
}

int waiting_start(struct service *service, const struct guest_plan *plan, struct error *error)
{
    for (size_t i = 0; i < plan->guest->n_ports; i++) {
        const struct port *port = &plan->guest->ports[i];
        struct error refused = ERROR_INIT;
        char text[PORT_TEXT_MAX];

        if (serve(service, plan, port, &refused) >= 0)
            continue;
        if (waiting_add(service, port, &refused) < 0)
            return error_set(error, ENOMEM, "ports");
        log_warning("guest %s: %s is not served: %s", plan->guest->name, port_format(port, text),
                    waiting_find(service, port->id)->why);
        event_emit(service, "port.waiting", NULL, plan->guest->name, "%s: %s", text,
                   waiting_find(service, port->id)->why);
    }
    return 0;
}

/* --- trying again --- */

static void waiting_forget(struct service *service, int64_t port_id)
{
    struct waiting *waiting = waiting_find(service, port_id);

    if (waiting)
        *waiting = service->waitings->items[--service->waitings->count];
}

void waiting_forget_ports(struct service *service, const struct port *ports, size_t count)
{
    for (size_t i = 0; i < count; i++)
        waiting_forget(service, ports[i].id);
}

static void served(struct service *service, const struct guest_plan *plan, const struct port *port)
{
    struct error error = ERROR_INIT;
    char text[PORT_TEXT_MAX];
    struct nat_port nat;

    waiting_forget(service, port->id);
    if (ports_commit(service, plan, port, 1, true, &error) < 0) {
        log_warning("guest %s: %s; repairing", plan->guest->name, error.text);
        reconcile_schedule(service);
    }
    plan_nat_port(plan, port, &nat);
    conntrack_flush_port(service->conntrack, &nat);
    log_info("guest %s: %s is served now", plan->guest->name, port_format(port, text));
    event_emit(service, "port.served", NULL, plan->guest->name, "%s", text);
}

static void retry_port(struct service *service, const struct guest_plan *plan,
                       struct waiting *waiting)
{
    struct error error = ERROR_INIT;

    for (size_t i = 0; i < plan->guest->n_ports; i++) {
        const struct port *port = &plan->guest->ports[i];

        if (port->id != waiting->port_id)
            continue;
        if (serve(service, plan, port, &error) >= 0)
            served(service, plan, port);
        else
            why_set(waiting, &error);
        return;
    }
}

static void retry(struct service *service, struct waiting *waiting)
{
    struct error error = ERROR_INIT;
    struct guest guest = {0};
    struct guest_plan plan = {.guest = &guest, .netns_fd = -1};
    int r = store_guest_get(service->store, waiting->guest_id, &guest, &error);

    if (r >= 0)
        r = guest_plan_load(service, &guest, &plan, &error);
    if (r >= 0)
        retry_port(service, &plan, waiting);
    else
        log_warning("a port that waits: %s", error.text);
    guest_plan_deinit_networks(&plan);
    guest_deinit(&guest);
}

static void on_retry(void *userdata)
{
    struct service *service = userdata;
    struct waitings *waitings = service->waitings;

    service_settle(service);
    for (size_t i = waitings->count; i-- > 0;) /* one that is served gives its place to the last */
        retry(service, &waitings->items[i]);
    if (waitings->count == 0)
        return;
    if (waitings->pause_ms < RETRY_LAST_MS)
        waitings->pause_ms *= 2;
    loop_timer_start(waitings->timer, waitings->pause_ms);
}

/* --- telling --- */

void waiting_show(const struct service *service, struct port *ports, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct waiting *waiting = waiting_find(service, ports[i].id);

        if (waiting)
            snprintf(ports[i].waiting, sizeof(ports[i].waiting), "%s", waiting->why);
    }
}

size_t waiting_count(const struct service *service, const char **ret_why)
{
    const struct waitings *waitings = service->waitings;

    *ret_why = waitings && waitings->count ? waitings->items[0].why : "";
    return waitings ? waitings->count : 0;
}

void waiting_free_all(struct service *service)
{
    struct waitings *waitings = TAKE_PTR(service->waitings);

    if (!waitings)
        return;
    loop_timer_free(waitings->timer);
    free(waitings->items);
    free(waitings);
}
