/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest is made of, in that order. Rules come before links, so that a guest's link never
 * carries a packet that its rules have not seen; names and relays come last. Detaching is the same
 * table, undone as a whole. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "service/step.h"

/* Else the guest stays, and its policy. */
static bool with_policy(const struct guest_plan *plan)
{
    return plan->first_endpoint == 0;
}

static int rules_append(struct service *service, const struct guest_plan *plan, bool add,
                        struct nat_batch *batch, struct domain **ret_domain, struct error *error)
{
    int r = 0;

    if (with_policy(plan))
        r = policy_append(batch, plan->guest, add, error);
    if (r >= 0 && with_policy(plan) && add && policy_has_rules(&plan->guest->policy))
        r = domain_prepare(service, plan->guest, batch, ret_domain, error);
    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++) {
        struct nat_endpoint endpoint;

        plan_nat_endpoint(plan, i, &endpoint);
        nat_batch_endpoint(batch, &endpoint, add);
    }
    if (plan->with_ports)
        ports_append(service, plan, plan->guest->ports, plan->guest->n_ports, add, batch);
    return r;
}

static int rules_commit(struct service *service, const struct guest_plan *plan, bool add,
                        struct error *error)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    struct domain *domain = NULL;
    int r;

    if (!batch)
        return error_set(error, ENOMEM, "rules");
    r = rules_append(service, plan, add, batch, &domain, error);
    if (r >= 0)
        r = nat_batch_commit(batch, error);
    nat_batch_free(batch);
    if (r < 0)
        domain_free(domain);
    else if (with_policy(plan))
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

/* What leads to it comes last. */
static int rules_commit_with_many_ports(struct service *service, const struct guest_plan *plan,
                                        struct error *error)
{
    struct guest_plan without = *plan;
    struct error undo = ERROR_INIT;
    int r;

    without.with_ports = false;
    r = rules_commit(service, &without, true, error);
    if (r < 0)
        return r;
    r = ports_commit(service, plan, plan->guest->ports, plan->guest->n_ports, true, error);
    if (r < 0 && rules_commit(service, &without, false, &undo) < 0)
        undo_failed(service, "a guest's rules", &undo);
    return r;
}

static int guest_rules_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;
    bool many = plan->with_ports && ports_have_many_rules(plan->guest->ports, plan->guest->n_ports);
    int r = many ? rules_commit_with_many_ports(service, plan, error)
                 : rules_commit(service, plan, true, error);

    if (r >= 0)
        flush_ports(service, subject);
    return r;
}

/* The guest's rules are gone: what there is because of them. */
static void rules_were_removed(struct service *service, const struct guest_plan *plan)
{
    if (plan->with_ports)
        waiting_forget_ports(service, plan->guest->ports, plan->guest->n_ports);
    /* What its ports led to it is from or to its addresses too. */
    for (size_t i = plan->first_endpoint; i < plan->guest->n_endpoints; i++) {
        const struct endpoint *endpoint = &plan->guest->endpoints[i];

        if (ip_is_set(&endpoint->ip))
            conntrack_flush_guest(service->conntrack, &endpoint->ip);
        if (ip_is_set(&endpoint->ip6))
            conntrack_flush_guest(service->conntrack, &endpoint->ip6);
    }
}

static void guest_rules_undo(struct service *service, void *subject)
{
    struct error error = ERROR_INIT;

    if (rules_commit(service, subject, false, &error) < 0)
        undo_failed(service, "a guest's rules", &error);
    rules_were_removed(service, subject);
}

static int rules_remove_together(struct service *service, struct guest_plan *const *plans,
                                 size_t count)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    struct error error = ERROR_INIT;
    int r = batch ? 0 : -ENOMEM;

    for (size_t i = 0; r >= 0 && i < count; i++)
        r = rules_append(service, plans[i], false, batch, NULL, &error);
    if (r >= 0)
        r = nat_batch_commit(batch, &error);
    nat_batch_free(batch);
    return r;
}

void guest_plans_undo(struct service *service, struct guest_plan *const *plans, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t step = n_guest_steps; step-- > GUEST_STEP_RULES + 1;)
            guest_steps[step].undo(service, plans[i]);
    if (rules_remove_together(service, plans, count) < 0) {
        for (size_t i = 0; i < count; i++) /* one of them was not as it should be */
            guest_rules_undo(service, plans[i]);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        domain_install(service, plans[i]->guest->id, NULL);
        rules_were_removed(service, plans[i]);
    }
}

static int guest_loopback_apply(struct service *service, void *subject, struct error *error)
{
    const struct guest_plan *plan = subject;

    (void)service;
    if (plan->netns_fd < 0 || plan->guest->mode > MODE_LOOPBACK)
        return 0; /* with endpoints lo comes up with the first of them */
    return link_loopback_set(plan->netns_fd, plan->guest->mode == MODE_LOOPBACK, error);
}

static void guest_loopback_undo(struct service *service, void *subject)
{
    (void)service; /* lo belongs to the guest: it is no trace of ours */
    (void)subject;
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

const struct step guest_steps[] = {
    [GUEST_STEP_RULES] = {"guest.rules", guest_rules_apply, guest_rules_undo},
    {"guest.loopback", guest_loopback_apply, guest_loopback_undo},
    [GUEST_STEP_LINKS] = {"guest.links", guest_links_apply, guest_links_undo},
    {"guest.neighbours", guest_neighbours_apply, guest_neighbours_undo},
    {"guest.limits", guest_limits_apply, guest_limits_undo},
    {"guest.leases", guest_lease_step, guest_lease_step_undo},
    {"guest.names", guest_names_apply, guest_names_undo},
    {"guest.relay", guest_relay_apply, guest_relay_undo},
    {"guest.inside", guest_inside_step, guest_inside_step_undo},
};

const size_t n_guest_steps = ARRAY_SIZE(guest_steps);

int guest_plan_apply(struct service *service, struct guest_plan *plan, struct error *error)
{
    return steps_apply(service, guest_steps, 0, ARRAY_SIZE(guest_steps), plan, error);
}

void guest_plan_undo(struct service *service, struct guest_plan *plan)
{
    steps_undo(service, guest_steps, ARRAY_SIZE(guest_steps), plan);
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
