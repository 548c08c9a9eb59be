/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ending what a guest may no longer have: its connections are forgotten by the kernel's connection
 * tracking, so that their next packet is asked by the rules like a new connection's, and refused.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "service/private.h"

#define DNS_PORT 53

#define NAMES_MAX 64

struct cut {
    struct service *service;
    const struct guest_plan *plan; /* the guest as it is now */
    struct policy_rules allow;
    struct policy_rules deny;
    struct network *networks;
    size_t n_networks;
};

static void cut_deinit(struct cut *cut)
{
    for (size_t i = 0; i < cut->n_networks; i++)
        network_deinit(&cut->networks[i]);
    free(cut->networks);
    policy_rules_deinit(&cut->allow);
    policy_rules_deinit(&cut->deny);
}

static bool is_guest(const struct cut *cut, const struct ip *ip)
{
    const struct guest *guest = cut->plan->guest;

    for (size_t i = 0; i < guest->n_endpoints; i++)
        if (ip_equal(&guest->endpoints[i].ip, ip) || ip_equal(&guest->endpoints[i].ip6, ip))
            return true;
    return false;
}

/* Always open, whatever the policy. */
static bool is_name_service(const struct cut *cut, const struct conntrack_flow *flow)
{
    if (flow->port != DNS_PORT)
        return false;
    for (size_t i = 0; i < cut->plan->guest->n_endpoints; i++)
        if (ip_equal(&cut->plan->networks[i].gateway, &flow->destination) ||
            ip_equal(&cut->plan->networks[i].gateway6, &flow->destination))
            return true;
    return false;
}

static bool is_own(const struct cut *cut, struct conntrack *conntrack, const struct ip *ip)
{
    for (size_t i = 0; i < cut->n_networks; i++)
        if (cidr_contains_ip(&cut->networks[i].subnet, ip) ||
            cidr_contains_ip(&cut->networks[i].subnet6, ip))
            return true;
    return conntrack_address_is_local(conntrack, ip);
}

/* Called by another thread, while this one waits. */
static bool wants(void *userdata, struct conntrack *conntrack, const struct conntrack_flow *flow)
{
    const struct cut *cut = userdata;

    if (is_guest(cut, &flow->source)) {
        const char *names[NAMES_MAX];
        const struct policy_flow asked = {
            .ip = flow->destination,
            .own = is_own(cut, conntrack, &flow->destination),
            .protocol = flow->protocol,
            .port = flow->port,
            .names = names,
            .n_names = domain_names_find(cut->service, cut->plan->guest->id, &flow->destination,
                                         false, names, NAMES_MAX),
        };

        return !is_name_service(cut, flow) && !policy_allows(&cut->allow, &cut->deny, &asked, NULL);
    }
    return cut->plan->guest->mode == MODE_OUTBOUND && is_guest(cut, &flow->server);
}

int policy_cut(struct service *service, struct guest *guest, struct error *error)
{
    _cleanup_(cut_deinit) struct cut cut = {0};
    struct guest_plan plan;
    int r = guest_plan_load(service, guest, &plan, error);

    if (r < 0)
        return r;
    cut.service = service;
    cut.plan = &plan;
    r = policy_rules_parse(&guest->policy.allow, "allow", &cut.allow, error);
    if (r >= 0)
        r = policy_rules_parse(&guest->policy.deny, "deny", &cut.deny, error);
    if (r >= 0)
        r = store_network_list(service->store, &cut.networks, &cut.n_networks, error);
    if (r >= 0)
        r = conntrack_cut(service->conntrack, wants, &cut, error);
    guest_plan_deinit_networks(&plan);
    return r;
}
