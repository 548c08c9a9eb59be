/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Applying and undoing. A change is a table of steps, each with its undo; a step that fails undoes
 * those before it in reverse. Detaching is the same table, undone as a whole. Rules come before
 * links, so that a guest's link never carries a packet that its rules have not seen; names and
 * relays come last.
 *
 * The kernel has one lock for all that configures links (RTNL), and whoever holds it holds it for
 * long: making a veth pair takes hundreds of microseconds, and deleting links milliseconds. So
 * the loop does not wait for it: links of guests are made (guest_plan_start) and removed (any undo)
 * by the thread beside it, in the order in which that was asked for. Without its rules a guest
 * whose link is to go neither sends nor receives. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "service/private.h"

struct step {
    const char *name; /* also its fault point */
    int (*apply)(struct service *service, void *subject, struct error *error);
    void (*undo)(struct service *service, void *subject);
};

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

static void steps_undo(struct service *service, const struct step *steps, size_t count,
                       void *subject)
{
    while (count-- > 0)
        steps[count].undo(service, subject);
}

/* From `first` on, those before it are done. */
static int steps_apply(struct service *service, const struct step *steps, size_t first,
                       size_t count, void *subject, struct error *error)
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

/* An undo that the kernel refuses leaves something that only a full reconcile can put right. */
static void undo_failed(struct service *service, const char *what, const struct error *error)
{
    log_warning("undoing %s: %s; repairing", what, error->text);
    reconcile_schedule(service);
}

/* --- guests --- */

static int rules_commit(struct service *service, const struct guest_plan *plan, bool add,
                        struct error *error)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    bool with_policy = plan->first_endpoint == 0; /* else the guest stays, and its policy */
    struct domain *domain = NULL;
    int r = 0;

    if (!batch)
        return error_set(error, ENOMEM, "rules");
    if (with_policy)
        r = policy_append(batch, plan->guest, add, error);
    if (r >= 0 && with_policy && add && policy_has_rules(&plan->guest->policy))
        r = domain_prepare(service, plan->guest, batch, &domain, error);
    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++) {
        struct nat_endpoint endpoint;

        plan_nat_endpoint(plan, i, &endpoint);
        nat_batch_endpoint(batch, &endpoint, add);
    }
    for (size_t i = 0; plan->with_ports && i < plan->guest->n_ports; i++) {
        struct nat_port port;

        plan_nat_port(plan, &plan->guest->ports[i], &port);
        nat_batch_port(batch, &port, add);
    }
    if (r >= 0)
        r = nat_batch_commit(batch, error);
    nat_batch_free(batch);
    if (r < 0)
        domain_free(domain);
    else if (with_policy)
        domain_install(service, plan->guest->id, domain);
    return r;
}

static bool same_rules(const struct guest *before, const struct guest *after)
{
    return policy_version(&before->policy) == policy_version(&after->policy);
}

/* Adds the new version beside the old one, then removes that. */
static int replace_policy(struct service *service, struct nat_batch *batch,
                          const struct guest *before, const struct guest *after,
                          struct domain **ret_domain, struct error *error)
{
    int r = policy_append(batch, after, true, error);

    if (r >= 0)
        r = domain_prepare(service, after, batch, ret_domain, error);
    return r < 0 ? r : policy_append(batch, before, false, error);
}

int guest_rules_replace(struct service *service, const struct guest_plan *plan,
                        struct guest *changed, struct error *error)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    bool same = same_rules(plan->guest, changed);
    struct guest_plan after = *plan;
    struct domain *domain = NULL;
    int r = 0;

    if (!batch)
        return error_set(error, ENOMEM, "rules");
    after.guest = changed;
    if (!same)
        r = replace_policy(service, batch, plan->guest, changed, &domain, error);
    for (size_t i = 0; i < plan->guest->n_endpoints; i++) {
        struct nat_endpoint endpoint;

        plan_nat_endpoint(plan, i, &endpoint);
        nat_batch_endpoint(batch, &endpoint, false);
        plan_nat_endpoint(&after, i, &endpoint);
        nat_batch_endpoint(batch, &endpoint, true);
    }
    if (r >= 0)
        r = nat_batch_commit(batch, error);
    nat_batch_free(batch);
    if (r < 0)
        domain_free(domain);
    else if (!same)
        domain_install(service, changed->id, domain);
    return r;
}

/* Datagrams that went to the host itself before a port was published would go on doing so. (A TCP
 * connection that the host has there is a program's own, and stays.) */
static void flush_ports(struct service *service, const struct guest_plan *plan)
{
    for (size_t i = 0; plan->with_ports && i < plan->guest->n_ports; i++) {
        struct nat_port port;

        plan_nat_port(plan, &plan->guest->ports[i], &port);
        if (port.protocol != IPPROTO_UDP)
            continue;
        conntrack_flush_port(service->conntrack, &port);
    }
}

static int guest_rules_apply(struct service *service, void *subject, struct error *error)
{
    int r = rules_commit(service, subject, true, error);

    if (r >= 0)
        flush_ports(service, subject);
    return r;
}

static void guest_rules_undo(struct service *service, void *subject)
{
    const struct guest_plan *plan = subject;
    struct error error = ERROR_INIT;

    if (rules_commit(service, plan, false, &error) < 0)
        undo_failed(service, "a guest's rules", &error);
    /* What its ports led to it is from or to its addresses too. */
    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++) {
        const struct endpoint *endpoint = &plan->guest->endpoints[i];

        if (ip_is_set(&endpoint->ip))
            conntrack_flush_guest(service->conntrack, &endpoint->ip);
        if (ip_is_set(&endpoint->ip6))
            conntrack_flush_guest(service->conntrack, &endpoint->ip6);
    }
}

static int guest_loopback_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;

    (void)service;
    if (plan->netns_fd < 0 || plan->guest->mode != MODE_LOOPBACK)
        return 0; /* with endpoints lo comes up with the first of them */
    return link_loopback_up(plan->netns_fd, error);
}

static void guest_loopback_undo(struct service *service, void *subject)
{
    (void)service; /* lo belongs to the guest: it is no trace of ours */
    (void)subject;
}

/* What is to go, with room for the endpoints. */
struct removal {
    struct job job;
    struct service *service;
    struct error error; /* why the last that failed did */
    size_t n_failed;
    size_t count;
    struct link_endpoint endpoints[];
};

static void removal_run(struct job *job)
{
    struct removal *removal = (struct removal *)job;

    for (size_t i = removal->count; i-- > 0;) {
        struct error error = ERROR_INIT;

        if (link_endpoint_remove(removal->service->link_beside, &removal->endpoints[i], &error) >=
            0)
            continue;
        removal->error = error;
        removal->n_failed++;
    }
}

static void removal_done(struct job *job)
{
    struct removal *removal = (struct removal *)job;

    if (removal->n_failed)
        undo_failed(removal->service, "a guest's links", &removal->error);
    free(removal);
}

/* Of endpoints first to end - 1. Links that nobody can be told to remove are what a reconcile
 * finds. */
static void links_remove(struct service *service, const struct guest_plan *plan, size_t end)
{
    size_t count = end - plan->first_endpoint;
    struct error error = ERROR_INIT;
    struct removal *removal;

    if (count == 0)
        return;
    removal = calloc(1, sizeof(*removal) + count * sizeof(removal->endpoints[0]));
    if (!removal) {
        error_set(&error, ENOMEM, "no job");
        undo_failed(service, "a guest's links", &error);
        return;
    }
    *removal =
        (struct removal){.job = {removal_run, removal_done}, .service = service, .count = count};
    for (size_t i = 0; i < count; i++) {
        plan_link(plan, plan->first_endpoint + i, &removal->endpoints[i]);
        link_endpoint_abandon(service->link, &removal->endpoints[i]);
    }
    background_submit(service->background, &removal->job);
}

static int link_create(struct link *link, const struct guest_plan *plan, size_t index,
                       struct error *error)
{
    struct link_endpoint endpoint;

    plan_link(plan, index, &endpoint);
    if (plan->guest->kind == KIND_TAP)
        return link_tap_create(link, &endpoint, plan->ret_tap_fd, error);
    return link_veth_create(link, &endpoint, error);
}

/* In either thread, with its handle; ret_made: endpoints before it have links, also on failure. */
static int links_create(struct link *link, const struct guest_plan *plan, size_t *ret_made,
                        struct error *error)
{
    size_t i = plan->first_endpoint;
    int r = 0;

    while (i < plan->guest->n_endpoints && (r = link_create(link, plan, i, error)) >= 0)
        i++;
    *ret_made = i;
    return r;
}

static int guest_links_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;
    size_t made;
    int r = links_create(service->link, plan, &made, error);

    if (r < 0)
        links_remove(service, plan, made);
    return r;
}

static void guest_links_undo(struct service *service, void *subject)
{
    const struct guest_plan *plan = subject;

    links_remove(service, plan, plan->guest->n_endpoints);
}

static int guest_neighbours_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;

    (void)error;
    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++)
        neighbours_joined(service, &plan->guest->endpoints[i], &plan->networks[i]);
    return 0;
}

static void guest_neighbours_undo(struct service *service, void *subject)
{
    const struct guest_plan *plan = subject;

    for (size_t i = plan->guest->n_endpoints; i-- > plan->first_endpoint;)
        neighbours_left(service, &plan->guest->endpoints[i], &plan->networks[i]);
}

static int guest_limits_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;

    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++) {
        int r = limit_apply(service, plan, i, error);

        if (r >= 0)
            continue;
        for (size_t j = plan->first_endpoint; j <= i; j++)
            limit_undo(service, plan, j);
        return r;
    }
    return 0;
}

static void guest_limits_undo(struct service *service, void *subject)
{
    const struct guest_plan *plan = subject;

    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++)
        limit_undo(service, plan, i);
}

int guest_leases_apply(struct service *service, const struct guest_plan *plan, struct error *error)
{
    if (plan->guest->kind != KIND_TAP)
        return 0;
    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++) {
        const struct endpoint *endpoint = &plan->guest->endpoints[i];
        struct dhcp_port port;
        int r;

        plan_lease(plan, i, service->config, names_upstreams(service->names), &port);
        r = leases_port_set(service->leases, endpoint->id, endpoint->host_interface, &port, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static void guest_lease_step_undo(struct service *service, void *subject)
{
    const struct guest_plan *plan = subject;

    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++)
        leases_port_remove(service->leases, plan->guest->endpoints[i].id);
}

static int guest_lease_step(struct service *service, void *subject, struct error *error)
{
    int r = guest_leases_apply(service, subject, error);

    if (r < 0)
        guest_lease_step_undo(service, subject);
    return r;
}

static void names_remove(struct service *service, const struct guest_plan *plan, size_t end)
{
    for (size_t i = plan->first_endpoint; i < end; i++)
        names_endpoint_remove(service->names, plan->guest->endpoints[i].id);
}

static int guest_names_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;
    int r = plan->first_endpoint == 0 ? domain_follow(service, plan->guest, error) : 0;

    if (r < 0)
        return r;
    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++) {
        r = names_endpoint_add(service->names, plan->guest, &plan->guest->endpoints[i], error);
        if (r >= 0)
            continue;
        names_remove(service, plan, i);
        if (plan->first_endpoint == 0)
            names_permit_remove(service->names, plan->guest->id);
        return r;
    }
    return 0;
}

static void guest_names_undo(struct service *service, void *subject)
{
    const struct guest_plan *plan = subject;

    names_remove(service, plan, plan->guest->n_endpoints);
    if (plan->first_endpoint == 0) {
        names_permit_remove(service->names, plan->guest->id);
        learn_forget(service, plan->guest->id);
    }
}

static int guest_relay_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;

    for (size_t i = 0; plan->with_ports && i < plan->guest->n_ports; i++) {
        struct nat_port port;
        int r;

        plan_nat_port(plan, &plan->guest->ports[i], &port);
        if (!ip_is_set(plan_relay_target(&port)))
            continue;
        r = reserve_relay_to(service->reservations, plan->guest->ports[i].id,
                             plan_relay_target(&port), error);
        if (r < 0)
            return r; /* the reservation goes with the port: nothing to undo here */
    }
    return 0;
}

static void guest_relay_undo(struct service *service, void *subject)
{
    const struct guest_plan *plan = subject;

    for (size_t i = 0; plan->with_ports && i < plan->guest->n_ports; i++)
        reserve_release(service->reservations, plan->guest->ports[i].id);
}

static int guest_inside_step(struct service *service, void *subject, struct error *error)
{
    return guest_inside_apply(service, subject, error);
}

static void guest_inside_step_undo(struct service *service, void *subject)
{
    guest_inside_undo(service, subject);
}

enum { LINKS_STEP = 2 };

static const struct step guest_steps[] = {
    {"guest.rules", guest_rules_apply, guest_rules_undo},
    {"guest.loopback", guest_loopback_apply, guest_loopback_undo},
    [LINKS_STEP] = {"guest.links", guest_links_apply, guest_links_undo},
    {"guest.neighbours", guest_neighbours_apply, guest_neighbours_undo},
    {"guest.limits", guest_limits_apply, guest_limits_undo},
    {"guest.leases", guest_lease_step, guest_lease_step_undo},
    {"guest.names", guest_names_apply, guest_names_undo},
    {"guest.relay", guest_relay_apply, guest_relay_undo},
    {"guest.inside", guest_inside_step, guest_inside_step_undo},
};

int guest_plan_apply(struct service *service, struct guest_plan *plan, struct error *error)
{
    return steps_apply(service, guest_steps, 0, ARRAY_SIZE(guest_steps), plan, error);
}

void guest_plan_undo(struct service *service, struct guest_plan *plan)
{
    steps_undo(service, guest_steps, ARRAY_SIZE(guest_steps), plan);
}

/* --- guests whose links are made beside the loop --- */

struct creation {
    struct job job;
    struct service *service;
    struct guest_plan *plan;
    guest_plan_done_fn done;
    void *userdata;
    size_t made;
    int result;
    struct error error;
};

static void creation_run(struct job *job)
{
    struct creation *creation = (struct creation *)job;
    int r = fault_point(guest_steps[LINKS_STEP].name, &creation->error);

    if (r >= 0)
        r = links_create(creation->service->link_beside, creation->plan, &creation->made,
                         &creation->error);
    creation->result = r;
}

static void creation_done(struct job *job)
{
    struct creation *creation = (struct creation *)job;
    struct service *service = creation->service;
    struct guest_plan *plan = creation->plan;
    int r = creation->result;

    if (r >= 0) {
        r = steps_apply(service, guest_steps, LINKS_STEP + 1, ARRAY_SIZE(guest_steps), plan,
                        &creation->error);
    } else {
        links_remove(service, plan, creation->made);
        steps_undo(service, guest_steps, LINKS_STEP, plan);
    }
    creation->done(creation->userdata, r, &creation->error);
    free(creation);
}

int guest_plan_start(struct service *service, struct guest_plan *plan, guest_plan_done_fn done,
                     void *userdata, struct error *error)
{
    struct creation *creation = calloc(1, sizeof(*creation));
    int r;

    if (!creation)
        return error_set(error, ENOMEM, "guest");
    r = steps_apply(service, guest_steps, 0, LINKS_STEP, plan, error);
    if (r < 0) {
        free(creation);
        return r;
    }
    *creation = (struct creation){.job = {creation_run, creation_done},
                                  .service = service,
                                  .plan = plan,
                                  .done = done,
                                  .userdata = userdata,
                                  .made = plan->first_endpoint};
    background_submit(service->background, &creation->job);
    return 0;
}

int guest_plan_load(struct service *service, struct guest *guest, struct guest_plan *ret_plan,
                    struct error *error)
{
    struct guest_plan plan = {.guest = guest, .netns_fd = -1, .with_ports = true};

    plan.networks = calloc(guest->n_endpoints ? guest->n_endpoints : 1, sizeof(*plan.networks));
    if (!plan.networks)
        return error_set(error, ENOMEM, "guest");
    for (size_t i = 0; i < guest->n_endpoints; i++) {
        int r = network_load(service, guest->endpoints[i].network_id, &plan.networks[i], error);

        if (r < 0) {
            guest_plan_deinit_networks(&plan);
            return r;
        }
    }
    *ret_plan = plan;
    return 0;
}

void guest_plan_deinit_networks(struct guest_plan *plan)
{
    for (size_t i = 0; plan->networks && i < plan->guest->n_endpoints; i++)
        network_deinit(&plan->networks[i]);
    free(plan->networks);
    plan->networks = NULL;
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

static int network_bridge_apply(struct service *service, void *subject, struct error *error)
{
    struct link_bridge bridge;

    plan_bridge(subject, &bridge);
    return link_bridge_ensure(service->link, &bridge, error);
}

static void network_bridge_undo(struct service *service, void *subject)
{
    const struct network *network = subject;
    struct error error = ERROR_INIT;

    service_settle(service); /* its ports go first */
    if (link_bridge_remove(service->link, network->bridge, &error) < 0)
        undo_failed(service, network->bridge, &error);
}

static int network_names_apply(struct service *service, void *subject, struct error *error)
{
    return names_network_add(service->names, subject, error);
}

static void network_names_undo(struct service *service, void *subject)
{
    const struct network *network = subject;

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
