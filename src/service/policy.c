/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's mode and rules. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/yield.h"
#include "service/private.h"

/* --- rules --- */

/* What is kept is what the rules mean, in their shortest form. */
static int accept_list(const struct strings *texts, const char *prefix, const char *name,
                       struct strings *ret_texts, struct error *error)
{
    struct policy_rules rules = {0};
    char field[48];
    char text[RULE_TEXT_MAX];
    int r;

    snprintf(field, sizeof(field), "%s%s", prefix, name);
    r = policy_rules_parse(texts, field, &rules, error);
    for (size_t i = 0; r >= 0 && i < rules.count; i++)
        if (strings_add(ret_texts, policy_rule_format(&rules.items[i], text)) < 0)
            r = error_set(error, ENOMEM, "policy");
    policy_rules_deinit(&rules);
    return r;
}

int policy_accept(const struct policy *policy, const char *prefix, struct policy *ret_policy,
                  struct error *error)
{
    struct policy accepted = {.log_denied = policy->log_denied, .silent = policy->silent};
    char field[48];
    int r;

    if (policy->allow.count + policy->deny.count > LIMIT_RULES) {
        snprintf(field, sizeof(field), "%s%s", prefix, policy->deny.count ? "deny" : "allow");
        return error_set_field(error, field, "%s: a policy has at most %d rules", field,
                               LIMIT_RULES);
    }
    r = accept_list(&policy->allow, prefix, "allow", &accepted.allow, error);
    if (r >= 0)
        r = accept_list(&policy->deny, prefix, "deny", &accepted.deny, error);
    if (r >= 0)
        *ret_policy = TAKE_STRUCT(accepted);
    policy_deinit(&accepted);
    return r;
}

bool policy_has_rules(const struct policy *policy)
{
    return policy->allow.count || policy->deny.count;
}

bool policy_wants_routed(const struct guest *guest, const struct network *network)
{
    return network->isolated || guest->mode == MODE_OUTBOUND || policy_has_rules(&guest->policy);
}

/* FNV-1a, 64 bits. */
static uint64_t hash_texts(uint64_t hash, const struct strings *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        for (const char *at = texts->items[i]; at == texts->items[i] || at[-1]; at++)
            hash = (hash ^ (uint8_t)*at) * 0x100000001b3u;
    return (hash ^ 0xff) * 0x100000001b3u;
}

uint64_t policy_version(const struct policy *policy)
{
    return hash_texts(hash_texts(0xcbf29ce484222325u, &policy->allow), &policy->deny);
}

int policy_append(struct nat_batch *batch, const struct guest *guest, bool add, struct error *error)
{
    struct policy_rules allow = {0};
    struct policy_rules deny = {0};
    const struct nat_policy policy = {guest->id, policy_version(&guest->policy), &allow, &deny};
    int r;

    if (!policy_has_rules(&guest->policy))
        return 0;
    r = policy_rules_parse(&guest->policy.allow, "allow", &allow, error);
    if (r >= 0)
        r = policy_rules_parse(&guest->policy.deny, "deny", &deny, error);
    if (r >= 0)
        r = nat_batch_policy(batch, &policy, add, error);
    policy_rules_deinit(&allow);
    policy_rules_deinit(&deny);
    return r;
}

bool policy_address_is_own(struct service *service, const struct ip *ip)
{
    struct network *networks = NULL;
    struct error error = ERROR_INIT;
    size_t count = 0;
    bool own = false;

    if (link_address_is_local(service->link, ip, &own, &error) < 0 ||
        store_network_list(service->store, &networks, &count, &error) < 0)
        log_warning("is an address ours? %s", error.text);
    for (size_t i = 0; i < count; i++) {
        own = own || cidr_contains_ip(&networks[i].subnet, ip) ||
              cidr_contains_ip(&networks[i].subnet6, ip);
        network_deinit(&networks[i]);
    }
    free(networks);
    return own;
}

/* --- asking --- */

static int result(const struct guest *guest, struct policy_result *ret_policy, struct error *error)
{
    struct policy_result policy = {.mode = guest->mode};

    policy.policy.log_denied = guest->policy.log_denied;
    policy.policy.silent = guest->policy.silent;
    if (strings_copy(&guest->policy.allow, &policy.policy.allow) < 0 ||
        strings_copy(&guest->policy.deny, &policy.policy.deny) < 0) {
        policy_deinit(&policy.policy);
        return error_set(error, ENOMEM, "policy");
    }
    *ret_policy = policy;
    return 0;
}

int service_policy_get(struct service *service, const struct guest_params *params,
                       struct policy_result *ret_policy, struct error *error)
{
    struct guest guest = {0};
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        r = result(&guest, ret_policy, error);
    guest_deinit(&guest);
    return r;
}

/* --- changing --- */

/* Modes with and without interfaces differ in what exists inside: only a new attach makes that. */
static int check_mode(const struct guest *guest, enum guest_mode mode, struct error *error)
{
    bool had = guest->mode == MODE_FULL || guest->mode == MODE_OUTBOUND;
    bool has = mode == MODE_FULL || mode == MODE_OUTBOUND;

    if (had != has)
        return error_set_reason(
            error, REASON_MODE_FORBIDS,
            "guest \"%s\" was attached in mode %s; detach it and attach it in mode %s", guest->name,
            guest_mode_name(guest->mode), guest_mode_name(mode));
    if (mode == MODE_OUTBOUND && guest->n_ports)
        return error_set_reason(
            error, REASON_MODE_FORBIDS,
            "guest \"%s\" has published ports; `moat port rm` them before mode outbound",
            guest->name);
    return 0;
}

/* Must it be a routed port? Else it is one where the bridge has enough of them (DESIGN.md). */
int policy_choose_port(struct service *service, const struct guest *guest,
                       const struct network *network, bool bridged, bool *ret_routed,
                       struct error *error)
{
    uint64_t count = 0;
    int r;

    *ret_routed = policy_wants_routed(guest, network) || learn_is_on(service, guest->id);
    if (*ret_routed || bridged)
        return 0;
    r = store_endpoint_count(service->store, network->id, false, &count, error);
    *ret_routed = count >= service->config->bridge_ports;
    return r;
}

static int set_routed(struct link *link, void *subject, struct error *error)
{
    return link_endpoint_set_routed(link, subject, error);
}

static int move_port(struct service *service, const struct guest_plan *plan, size_t index,
                     bool routed, struct error *error)
{
    struct endpoint *endpoint = &plan->guest->endpoints[index];
    struct link_endpoint link;

    if (endpoint->routed == routed)
        return 0;
    endpoint->routed = routed;
    plan_link(plan, index, &link);
    return beside_run(service, set_routed, &link, error);
}

/* RET_ROUTED: as many as the guest has endpoints. */
static int choose_ports(struct service *service, const struct guest_plan *plan,
                        const struct guest *guest, bool *ret_routed, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < guest->n_endpoints; i++)
        r = policy_choose_port(service, guest, &plan->networks[i], !guest->endpoints[i].routed,
                               &ret_routed[i], error);
    return r;
}

static bool any_moves(const struct guest *guest, const bool *routed)
{
    for (size_t i = 0; i < guest->n_endpoints; i++)
        if (guest->endpoints[i].routed != routed[i])
            return true;
    return false;
}

/* The guest is told, too: inside its namespace, or by router advertisements. */
static int move_ports(struct service *service, const struct guest_plan *plan, const bool *routed,
                      struct error *error)
{
    struct guest_plan moving = *plan;
    int r = 0;

    if (!any_moves(plan->guest, routed))
        return 0;
    guest_netns_open(plan->guest, &moving.netns_fd);
    for (size_t i = 0; r >= 0 && i < plan->guest->n_endpoints; i++)
        r = move_port(service, &moving, i, routed[i], error);
    cleanup_close(&moving.netns_fd);
    return r < 0 ? r : guest_leases_apply(service, plan, error);
}

static int write_ports(struct service *service, const struct guest *guest, const bool *routed,
                       struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < guest->n_endpoints; i++)
        r = store_endpoint_set_routed(service->store, guest->endpoints[i].id, routed[i], error);
    return r;
}

int policy_move_ports(struct service *service, const struct guest_plan *plan, struct error *error)
{
    _cleanup_free_ bool *routed = calloc(plan->guest->n_endpoints + 1, sizeof(*routed));
    int r;

    if (!routed)
        return error_set(error, ENOMEM, "policy");
    r = choose_ports(service, plan, plan->guest, routed, error);
    if (r >= 0)
        r = move_ports(service, plan, routed, error);
    return r < 0 ? r : write_ports(service, plan->guest, routed, error);
}

/* Rules come first, in one transaction. A port that becomes a routed one passes them from the
 * instant it is; until then it is as open as it was. One that goes back to the bridge has none any
 * more. */
static int change_guest(struct service *service, const struct guest_plan *plan, struct guest *after,
                        const bool *routed, struct error *error)
{
    struct guest_plan after_plan = *plan;
    int r = guest_rules_replace(service, plan, after, error);

    yield_if_due();
    after_plan.guest = after; /* shares the endpoints, whose kind of port is noted as it changes */
    if (r >= 0)
        r = domain_follow(service, after, error);
    return r < 0 ? r : move_ports(service, &after_plan, routed, error);
}

/* The kind of each port with the policy, or a crash in between would leave one that passes by the
 * rules. */
static int write_policy(struct service *service, const struct guest *guest, const bool *routed,
                        struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_guest_set_policy(service->store, guest->id, guest->mode, &guest->policy, error);
    if (r >= 0)
        r = write_ports(service, guest, routed, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

/* After a failed apply: the old intent, and the kernel made to match it. */
static void restore(struct service *service, const struct guest *guest, const bool *was_routed)
{
    struct error error = ERROR_INIT;

    if (write_policy(service, guest, was_routed, &error) < 0)
        log_error("guest %s: %s", guest->name, error.text);
    reconcile_schedule(service);
}

static bool policy_equal(const struct policy *a, const struct policy *b)
{
    if (a->allow.count != b->allow.count || a->deny.count != b->deny.count ||
        a->log_denied != b->log_denied || a->silent != b->silent)
        return false;
    for (size_t i = 0; i < a->allow.count; i++)
        if (strcmp(a->allow.items[i], b->allow.items[i]) != 0)
            return false;
    for (size_t i = 0; i < a->deny.count; i++)
        if (strcmp(a->deny.items[i], b->deny.items[i]) != 0)
            return false;
    return true;
}

static int replace_policy(struct service *service, const struct guest_plan *plan,
                          struct guest *after, struct error *error)
{
    const struct guest *before = plan->guest;
    size_t count = before->n_endpoints;
    _cleanup_free_ bool *routed = calloc(2 * count + 1, sizeof(*routed));
    int r;

    if (!routed)
        return error_set(error, ENOMEM, "policy");
    for (size_t i = 0; i < count; i++)
        routed[count + i] = before->endpoints[i].routed;
    r = choose_ports(service, plan, after, routed, error);
    if (r >= 0)
        r = write_policy(service, after, routed, error);
    if (r < 0)
        return r;
    yield_if_due();
    if (after->mode != before->mode || !policy_equal(&after->policy, &before->policy))
        r = change_guest(service, plan, after, routed, error);
    if (r < 0)
        restore(service, before, routed + count);
    return r;
}

static int apply_policy(struct service *service, struct guest *guest, enum guest_mode mode,
                        struct policy *policy, struct error *error)
{
    struct guest_plan plan;
    struct guest after = *guest; /* shallow */
    int r = guest_plan_load(service, guest, &plan, error);

    if (r < 0)
        return r;
    after.mode = mode;
    after.policy = *policy;
    r = replace_policy(service, &plan, &after, error);
    guest_plan_deinit_networks(&plan);
    if (r < 0)
        return r;
    policy_deinit(&guest->policy);
    guest->policy = TAKE_STRUCT(*policy);
    guest->mode = mode;
    return 0;
}

int service_policy_set(struct service *service, const struct policy_set_params *params,
                       struct policy_result *ret_policy, struct error *error)
{
    struct guest guest = {0};
    struct policy policy = {0};
    enum guest_mode mode;
    int r = guest_find(service, params->guest, &guest, error);

    service_work_on(service, params->guest);
    mode = params->has_mode ? params->mode : guest.mode;
    if (r >= 0)
        r = policy_accept(&params->policy, "", &policy, error);
    if (r >= 0)
        r = domain_check(service, &policy, "", error);
    if (r >= 0)
        r = check_mode(&guest, mode, error);
    yield_if_due();
    if (r >= 0)
        r = apply_policy(service, &guest, mode, &policy, error);
    if (r >= 0) {
        event_emit(service, "policy.changed", NULL, guest.name, "mode %s, %zu allow, %zu deny",
                   guest_mode_name(mode), guest.policy.allow.count, guest.policy.deny.count);
        if (params->cut)
            r = policy_cut(service, &guest, error);
    }
    if (r >= 0) {
        r = result(&guest, ret_policy, error);
    }
    policy_deinit(&policy);
    guest_deinit(&guest);
    return r;
}
