/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Published ports. Each is a bound socket on the host first (nobody else can have it then), a row,
 * an element of the kernel's maps, and where the kernel can't translate a listener of the relay. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/yield.h"
#include "service/step.h"

int ports_check_guest(const struct guest_plan *plan, struct error *error)
{
    const struct guest *guest = plan->guest;

    if (guest->mode != MODE_FULL)
        return error_set_reason(error, REASON_MODE_FORBIDS,
                                "guest \"%s\" is in mode %s: nobody may open a connection to it",
                                guest->name, guest_mode_name(guest->mode));
    if (plan_default_endpoint(plan, AF_INET) == guest->n_endpoints &&
        plan_default_endpoint(plan, AF_INET6) == guest->n_endpoints)
        return error_set_reason(error, REASON_MODE_FORBIDS,
                                "guest \"%s\" is on internal networks only: nothing goes in there",
                                guest->name);
    return 0;
}

#define MANY 256

bool ports_are_many(const struct strings *texts)
{
    struct error ignored = ERROR_INIT; /* told when they are reserved */
    uint32_t count = 0;

    for (size_t i = 0; i < texts->count; i++) {
        struct port port;

        if (port_parse(texts->items[i], "ports", &port, &ignored) >= 0)
            count += port.count;
    }
    return count > MANY;
}

bool ports_have_many_rules(const struct port *ports, size_t count)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += ports[i].count;
    return sum > MANY;
}

static int check_overlap(struct service *service, const struct port *port, struct error *error)
{
    char holder[NAME_MAX_LENGTH + 1];
    char text[PORT_TEXT_MAX];
    struct port taken;
    bool found = false;
    int r = store_port_overlap(service->store, port, holder, &taken, &found, error);

    if (r >= 0 && found)
        return error_set_reason(
            error, REASON_PORT_IN_USE,
            "port %u/%s is taken by guest \"%s\" (%s); give another host port",
            taken.host_port > port->host_port ? taken.host_port : port->host_port,
            port->protocol == IPPROTO_UDP ? "udp" : "tcp", holder, port_format(&taken, text));
    return r;
}

/* Only what listens on every address is carried from IPv4 to IPv6. */
static int check_family(const struct guest_plan *plan, const struct port *port, struct error *error)
{
    char text[IP_TEXT_MAX];

    if (port->host_ip.family != AF_INET ||
        plan_default_endpoint(plan, AF_INET) < plan->guest->n_endpoints)
        return 0;
    return error_set_reason(error, REASON_NOT_SUPPORTED,
                            "guest \"%s\" has IPv6 only, and %s is an IPv4 address; publish on an "
                            "IPv6 address, or leave it out",
                            plan->guest->name, ip_format(&port->host_ip, text));
}

static int reserve_one(struct service *service, const struct guest_plan *plan, const char *text,
                       const char *field, struct port *port, struct error *error)
{
    int r = port_parse(text, field, port, error);

    if (r < 0)
        return r;
    if (!ip_is_set(&port->host_ip))
        port->host_ip = service->config->publish_address;
    r = check_family(plan, port, error);
    if (r < 0)
        return r;
    port->id = --service->last_temporary;
    if (port->host_port == 0)
        return reserve_port_any(service->reservations, port, error);
    r = check_overlap(service, port, error);
    if (r >= 0)
        r = fault_point("port.reserve", error);
    return r < 0 ? r : reserve_port(service->reservations, port, false, error);
}

int ports_reserve(struct service *service, const struct strings *texts, const char *field,
                  const struct guest_plan *plan, struct port **ret_ports, size_t *ret_count,
                  struct error *error)
{
    struct port *ports = calloc(texts->count + 1, sizeof(*ports));

    if (!ports)
        return error_set(error, ENOMEM, "ports");
    for (size_t i = 0; i < texts->count; i++) {
        char item[64];
        int r;

        snprintf(item, sizeof(item), "%s[%zu]", field, i);
        r = reserve_one(service, plan, texts->items[i], item, &ports[i], error);
        if (r < 0) {
            ports_release(service, ports, i);
            free(ports);
            return r;
        }
        ports[i].guest_id = plan->guest->id;
    }
    *ret_ports = ports;
    *ret_count = texts->count;
    return 0;
}

void ports_release(struct service *service, const struct port *ports, size_t count)
{
    for (size_t i = 0; i < count; i++)
        reserve_release(service->reservations, ports[i].id);
}

/* --- on live guests --- */

void ports_append(struct service *service, const struct guest_plan *plan, const struct port *ports,
                  size_t count, bool add, struct nat_batch *batch)
{
    for (size_t i = 0; i < count; i++) {
        struct nat_port port;

        if (port_is_waiting(service, &ports[i]))
            continue;
        plan_nat_port(plan, &ports[i], &port);
        nat_batch_port(batch, &port, add);
    }
}

/* A long range is many elements: piece by piece, so that others have their turn in between. */
#define PIECE 128 /* ports whose rules are changed at once */

/* A place among the ports of a list. */
struct place {
    size_t entry;
    uint32_t port; /* of the entry */
};

static bool place_is_before(const struct place *place, const struct place *other)
{
    return place->entry != other->entry ? place->entry < other->entry : place->port < other->port;
}

static void append_piece(struct service *service, const struct guest_plan *plan,
                         const struct port *ports, const struct place *end, bool add,
                         struct nat_batch *batch, struct place *place)
{
    uint32_t room = PIECE;

    while (room > 0 && place_is_before(place, end)) {
        const struct port *entry = &ports[place->entry];
        struct nat_port port;
        uint32_t left;

        plan_nat_port(plan, entry, &port);
        left = port.count - place->port;
        if (place->entry == end->entry && left > end->port - place->port)
            left = end->port - place->port;
        port.host_port = (uint16_t)(port.host_port + place->port);
        port.guest_port = (uint16_t)(port.guest_port + place->port);
        port.count = (uint16_t)(left < room ? left : room);
        if (!port_is_waiting(service, entry))
            nat_batch_port(batch, &port, add);
        room -= port.count;
        place->port += port.count;
        if (place->port == entry->count)
            *place = (struct place){.entry = place->entry + 1};
    }
}

/* Up to `end`; place moves with what is done, also on failure. */
static int commit_pieces(struct service *service, const struct guest_plan *plan,
                         const struct port *ports, const struct place *end, bool add,
                         struct place *place, struct error *error)
{
    int r = 0;

    while (r >= 0 && place_is_before(place, end)) {
        struct nat_batch *batch = nat_batch_new(service->nat);
        struct place next = *place;

        if (!batch)
            return error_set(error, ENOMEM, "rules");
        append_piece(service, plan, ports, end, add, batch, &next);
        r = nat_batch_commit(batch, error);
        nat_batch_free(batch);
        if (r >= 0)
            *place = next;
        yield_if_due();
    }
    return r;
}

int ports_commit(struct service *service, const struct guest_plan *plan, const struct port *ports,
                 size_t count, bool add, struct error *error)
{
    const struct place end = {.entry = count};
    struct place place = {0};
    struct place start = {0};
    struct error undo = ERROR_INIT;
    int r = commit_pieces(service, plan, ports, &end, add, &place, error);

    if (r < 0 && add && commit_pieces(service, plan, ports, &place, false, &start, &undo) < 0)
        undo_failed(service, "published ports", &undo);
    return r;
}

static int rows_insert(struct service *service, struct port *ports, size_t count,
                       struct error *error)
{
    int r = store_begin(service->store, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        int64_t temporary = ports[i].id;

        r = store_port_insert(service->store, &ports[i], error);
        if (r >= 0)
            reserve_rename(service->reservations, temporary, ports[i].id);
    }
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int rows_delete(struct service *service, const struct port *ports, size_t count,
                       struct error *error)
{
    int r = store_begin(service->store, error);

    for (size_t i = 0; r >= 0 && i < count; i++)
        r = store_port_delete(service->store, ports[i].id, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int relay(struct service *service, const struct guest_plan *plan, const struct port *ports,
                 size_t count, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < count; i++) {
        struct nat_port port;

        plan_nat_port(plan, &ports[i], &port);
        if (ip_is_set(plan_relay_target(&port)))
            r = reserve_relay_to(service->reservations, ports[i].id, plan_relay_target(&port),
                                 error);
    }
    return r;
}

int ports_retarget(struct service *service, const struct guest_plan *plan,
                   const struct nat_port *before, struct error *error)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    const struct guest *guest = plan->guest;
    int r;

    if (!batch)
        return error_set(error, ENOMEM, "ports");
    for (size_t i = 0; i < guest->n_ports; i++) {
        struct nat_port after;

        if (port_is_waiting(service, &guest->ports[i]))
            continue;
        plan_nat_port(plan, &guest->ports[i], &after);
        nat_batch_port(batch, &before[i], false);
        nat_batch_port(batch, &after, true);
    }
    r = nat_batch_commit(batch, error);
    nat_batch_free(batch);
    for (size_t i = 0; r >= 0 && i < guest->n_ports; i++) {
        struct nat_port after;

        if (port_is_waiting(service, &guest->ports[i]))
            continue;
        plan_nat_port(plan, &guest->ports[i], &after);
        conntrack_flush_port(service->conntrack, &before[i]);
        if (ip_is_set(plan_relay_target(&after)))
            r = reserve_relay_to(service->reservations, guest->ports[i].id,
                                 plan_relay_target(&after), error);
    }
    return r;
}

static int apply(struct service *service, const struct guest_plan *plan, struct port *ports,
                 size_t count, struct error *error)
{
    struct error undo = ERROR_INIT;
    int r = rows_insert(service, ports, count, error);

    if (r < 0)
        return r;
    r = ports_commit(service, plan, ports, count, true, error);
    if (r >= 0) {
        r = relay(service, plan, ports, count, error);
        if (r < 0 && ports_commit(service, plan, ports, count, false, &undo) < 0)
            reconcile_schedule(service);
    }
    for (size_t i = 0; r >= 0 && i < count; i++) {
        struct nat_port port;

        plan_nat_port(plan, &ports[i], &port);
        conntrack_flush_port(service->conntrack,
                             &port); /* flows that went to the host itself before */
    }
    if (r < 0 && rows_delete(service, ports, count, &undo) < 0)
        log_error("ports of guest %s stay in the store: %s", plan->guest->name, undo.text);
    return r;
}

int service_port_add(struct service *service, const struct port_params *params,
                     struct port **ret_ports, size_t *ret_count, struct error *error)
{
    struct guest guest = {0};
    struct guest_plan plan = {.guest = &guest, .netns_fd = -1};
    struct port *ports = NULL;
    size_t count = 0;
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        r = guest_plan_load(service, &guest, &plan, error);
    if (r >= 0)
        r = ports_check_guest(&plan, error);
    if (r >= 0 && guest.n_ports + params->ports.count > LIMIT_PORTS_PER_GUEST)
        r = error_set_reason(error, REASON_QUOTA,
                             "a guest has at most %d published entries; use ranges",
                             LIMIT_PORTS_PER_GUEST);
    service_work_on(service, params->guest);
    if (r >= 0)
        r = ports_reserve(service, &params->ports, "ports", &plan, &ports, &count, error);
    if (r >= 0) {
        r = apply(service, &plan, ports, count, error);
        if (r < 0)
            ports_release(service, ports, count);
    }
    for (size_t i = 0; r >= 0 && i < count; i++) {
        char text[PORT_TEXT_MAX];

        event_emit(service, "port.added", NULL, guest.name, "%s", port_format(&ports[i], text));
    }
    guest_plan_deinit_networks(&plan);
    guest_deinit(&guest);
    if (r < 0) {
        free(ports);
        return r;
    }
    *ret_ports = ports;
    *ret_count = count;
    return 0;
}

/* The entry that a PORT names: as it was given, or by its host port alone when that says which. */
static bool matches(const struct port *have, const struct port *wanted)
{
    if (have->protocol != wanted->protocol || have->count != wanted->count)
        return false;
    if (ip_is_set(&wanted->host_ip) && !ip_equal(&have->host_ip, &wanted->host_ip))
        return false;
    if (wanted->host_port == 0)
        return have->guest_port == wanted->guest_port;
    return have->host_port == wanted->host_port && have->guest_port == wanted->guest_port;
}

static int find_port(const struct guest *guest, const char *text, const char *field,
                     struct port *ret_port, struct error *error)
{
    struct port wanted;
    const struct port *found = NULL;
    int r = port_parse(text, field, &wanted, error);

    if (r < 0)
        return r;
    for (size_t i = 0; i < guest->n_ports; i++) {
        if (!matches(&guest->ports[i], &wanted))
            continue;
        if (found)
            return error_set_reason(error, REASON_IN_USE,
                                    "\"%.80s\" names several ports of guest \"%s\"; give "
                                    "HOST_IP:HOST_PORT:GUEST_PORT too",
                                    text, guest->name);
        found = &guest->ports[i];
    }
    if (!found)
        return error_set_reason(
            error, REASON_NOT_FOUND,
            "guest \"%s\" has no published port \"%.80s\"; see `moat port ls %s`", guest->name,
            text, guest->name);
    *ret_port = *found;
    return 0;
}

static int find_ports(const struct guest *guest, const struct strings *texts, struct port *ports,
                      struct error *error)
{
    for (size_t i = 0; i < texts->count; i++) {
        char field[32];
        int r;

        snprintf(field, sizeof(field), "ports[%zu]", i);
        r = find_port(guest, texts->items[i], field, &ports[i], error);
        for (size_t j = 0; r >= 0 && j < i; j++) {
            if (ports[j].id == ports[i].id)
                r = error_set_field(error, field, "%s: \"%.80s\" is given twice", field,
                                    texts->items[i]);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static void remove_applied(struct service *service, const struct guest_plan *plan,
                           const struct port *ports, size_t count)
{
    struct error error = ERROR_INIT;

    ports_release(service, ports, count);
    if (ports_commit(service, plan, ports, count, false, &error) < 0) {
        log_warning("ports of guest %s: %s; repairing", plan->guest->name, error.text);
        reconcile_schedule(service);
    }
    waiting_forget_ports(service, ports, count);
    for (size_t i = 0; i < count; i++) {
        char text[PORT_TEXT_MAX];
        struct nat_port port;

        plan_nat_port(plan, &ports[i], &port);
        conntrack_flush_port(service->conntrack, &port);
        event_emit(service, "port.removed", NULL, plan->guest->name, "%s",
                   port_format(&ports[i], text));
    }
}

int service_port_remove(struct service *service, const struct port_params *params,
                        struct error *error)
{
    struct guest guest = {0};
    struct guest_plan plan = {.guest = &guest, .netns_fd = -1};
    struct port ports[LIMIT_PORTS_PER_GUEST];
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        r = find_ports(&guest, &params->ports, ports, error);
    if (r >= 0)
        r = guest_plan_load(service, &guest, &plan, error);
    service_work_on(service, params->guest);
    if (r >= 0)
        r = rows_delete(service, ports, params->ports.count, error);
    if (r >= 0)
        remove_applied(service, &plan, ports, params->ports.count);
    guest_plan_deinit_networks(&plan);
    guest_deinit(&guest);
    return r;
}

int service_port_list(struct service *service, const struct guest_params *params,
                      struct port **ret_ports, size_t *ret_count, struct error *error)
{
    struct guest *guests = NULL;
    struct port *ports = NULL;
    size_t n_guests = 0;
    size_t count = 0;
    int r;

    if (params->guest[0]) {
        guests = calloc(1, sizeof(*guests));
        n_guests = 1;
        r = guests ? guest_find(service, params->guest, guests, error)
                   : error_set(error, ENOMEM, "ports");
    } else {
        r = store_guest_list(service->store, &guests, &n_guests, error);
    }
    for (size_t i = 0; r >= 0 && guests && i < n_guests; i++) {
        struct port *more = reallocarray(ports, count + guests[i].n_ports + 1, sizeof(*ports));

        if (!more) {
            r = error_set(error, ENOMEM, "ports");
            break;
        }
        ports = more;
        if (guests[i].n_ports)
            memcpy(ports + count, guests[i].ports, guests[i].n_ports * sizeof(*ports));
        count += guests[i].n_ports;
    }
    for (size_t i = 0; guests && i < n_guests; i++)
        guest_deinit(&guests[i]);
    free(guests);
    if (r < 0) {
        free(ports);
        return r;
    }
    waiting_show(service, ports, count);
    *ret_ports = ports;
    *ret_count = count;
    return 0;
}
