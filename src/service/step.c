/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The mechanism, and what a network is made of. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "service/step.h"

const char *const service_fault_points[] = {
    "network.forwarding", "network.rules", "network.bridge",   "network.names", "guest.rules",
    "guest.loopback",     "guest.links",   "guest.neighbours", "guest.names",   "guest.relay",
    "store.commit",       "link.bridge",   "link.veth",        "link.guest",    "link.route",
    "link.tap",           "link.remove",   "nat.commit",       "nat.rebuild",   "names.network",
    "names.endpoint",     "names.record",  "guest.leases",     "names.lease",   "port.reserve",
    "names.permit",       "guest.inside",  "guest.limits",     "link.shape",    NULL,
};

static int step_apply(struct service *service, const struct step *step, void *subject,
                      struct error *error)
{
    int r = fault_point(step->name, error);

    return r < 0 ? r : step->apply(service, subject, error);
}

void steps_undo(struct service *service, const struct step *steps, size_t count, void *subject)
{
    while (count-- > 0)
        steps[count].undo(service, subject);
}

int steps_apply(struct service *service, const struct step *steps, size_t first, size_t count,
                void *subject, struct error *error)
{
    for (size_t i = first; i < count; i++) {
        int r = step_apply(service, &steps[i], subject, error);

        if (r >= 0)
            continue;
        log_debug("step %s failed: %s", steps[i].name, error->text);
        steps_undo(service, steps, i, subject);
        return r;
    }
    return 0;
}

void undo_failed(struct service *service, const char *what, const struct error *error)
{
    log_warning("undoing %s: %s; repairing", what, error->text);
    reconcile_schedule(service);
}

/* --- networks --- */

static bool forwards(const struct network *network, uint8_t family)
{
    return !network->internal &&
           cidr_is_set(family == AF_INET ? &network->subnet : &network->subnet6);
}

static int network_forwarding_apply(struct service *service, void *subject, struct error *error)
{
    const struct network *network = subject;
    int r = 0;

    if (forwards(network, AF_INET))
        r = hostset_forwarding_ensure(service, AF_INET, error);
    if (r >= 0 && forwards(network, AF_INET6))
        r = hostset_forwarding_ensure(service, AF_INET6, error);
    return r;
}

static void network_forwarding_undo(struct service *service, void *subject)
{
    (void)subject;
    hostset_forwarding_release(service, AF_INET);
    hostset_forwarding_release(service, AF_INET6);
}

static int network_rules_commit(struct service *service, const struct network *network, bool add,
                                struct error *error)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    struct nat_network nat;
    int r;

    if (!batch)
        return error_set(error, ENOMEM, "rules");
    plan_nat_network(network, &nat);
    nat_batch_network(batch, &nat, add);
    r = nat_batch_commit(batch, error);
    nat_batch_free(batch);
    return r;
}

static int network_rules_apply(struct service *service, void *subject, struct error *error)
{
    return network_rules_commit(service, subject, true, error);
}

static void network_rules_undo(struct service *service, void *subject)
{
    struct error error = ERROR_INIT;

    if (network_rules_commit(service, subject, false, &error) < 0)
        undo_failed(service, "a network's rules", &error);
}

static int bridge_ensure(struct link *link, void *subject, struct error *error)
{
    return link_bridge_ensure(link, subject, error);
}

static int network_bridge_apply(struct service *service, void *subject, struct error *error)
{
    struct link_bridge bridge;

    plan_bridge(subject, &bridge);
    return beside_run(service, bridge_ensure, &bridge, error);
}

static int bridge_remove(struct link *link, void *subject, struct error *error)
{
    return link_bridge_remove(link, subject, error);
}

/* Its ports go first: they were asked for there before. */
static void network_bridge_undo(struct service *service, void *subject)
{
    struct network *network = subject;
    struct error error = ERROR_INIT;

    if (beside_run(service, bridge_remove, network->bridge, &error) < 0)
        undo_failed(service, network->bridge, &error);
}

static int network_names_apply(struct service *service, void *subject, struct error *error)
{
    const struct network *network = subject;

    /* Whoever makes a network is told at once; the default one exists whatever the host runs. */
    if (strcmp(network->name, DEFAULT_NETWORK) == 0)
        return nameless_network_add(service, network, error);
    return names_network_add(service->names, network, error);
}

static void network_names_undo(struct service *service, void *subject)
{
    const struct network *network = subject;

    nameless_forget(service, network->id);
    names_network_remove(service->names, network->id);
}

static const struct step network_steps[] = {
    {"network.forwarding", network_forwarding_apply, network_forwarding_undo},
    {"network.rules", network_rules_apply, network_rules_undo},
    {"network.bridge", network_bridge_apply, network_bridge_undo},
    {"network.names", network_names_apply, network_names_undo},
};

int network_apply(struct service *service, const struct network *network, struct error *error)
{
    struct network subject = *network; /* borrowed lists: steps only read */

    return steps_apply(service, network_steps, 0, ARRAY_SIZE(network_steps), &subject, error);
}

void network_undo(struct service *service, const struct network *network)
{
    struct network subject = *network;

    steps_undo(service, network_steps, ARRAY_SIZE(network_steps), &subject);
}
