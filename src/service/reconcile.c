/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Make the kernel match", over everything: at start (after a stop, a crash, a reboot) and whenever
 * somebody else changed what is ours. Guests whose namespace or owner ended meanwhile leave first;
 * links that the store does not know go; rules are replaced in one transaction; what is missing is
 * made by the same calls as at attach. One object that can't be put right is logged and does not
 * keep the others from it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/reconcile.h"

#define GAP_LOOKS 2 /* packets were under way at the first */
#define GAP_AGAIN_MS 500
#define RETRY_FAILED_MS 10000 /* what could not be put right is tried again */

#define MTU_SETTING "mtu/applied"

/* What somebody else had changed is as it should be again. */
static void tell_repair(struct service *service, const char *network, const char *guest,
                        const char *what)
{
    event_emit(service, "repaired", network, guest, "%s", what);
}

void reconcile_forget(struct state *state)
{
    for (size_t i = 0; i < state->n_guests; i++) {
        if (state->plans) {
            guest_plan_deinit_networks(&state->plans[i]);
            cleanup_close(&state->plans[i].netns_fd);
        }
        guest_deinit(&state->guests[i]);
    }
    for (size_t i = 0; i < state->n_networks; i++)
        network_deinit(&state->networks[i]);
    free(state->networks);
    free(state->guests);
    free(state->plans);
    free(state->links);
    state->networks = NULL;
    state->guests = NULL;
    state->plans = NULL;
    state->links = NULL;
    state->n_networks = state->n_guests = state->n_links = 0;
}

/* Logged once, and a finding of doctor until a later repair succeeds. */
static void tell_failure(const struct state *state, const char *kind, const char *name,
                         const struct error *error)
{
    char text[sizeof(error->text) + NAME_MAX_LENGTH + 16];

    snprintf(text, sizeof(text), "%s%s%s: %s", kind, name ? " " : "", name ? name : "",
             error->text);
    if (!strings_contains(&state->failed_before, text))
        log_error("%s", text);
    if (strings_add(&state->service->failures, text) < 0)
        log_error("%s: out of memory", text);
}

static const struct network *find_network(const struct state *state, int64_t id)
{
    for (size_t i = 0; i < state->n_networks; i++) {
        if (state->networks[i].id == id)
            return &state->networks[i];
    }
    return NULL;
}

/* The networks of a plan are copies without their lists: enough for every plan_*, and free of cost.
 */
static int plan_guest(struct state *state, size_t index, struct error *error)
{
    struct guest *guest = &state->guests[index];
    struct guest_plan *plan = &state->plans[index];

    *plan = (struct guest_plan){.guest = guest, .with_ports = true, .netns_fd = -1};
    plan->networks = calloc(guest->n_endpoints + 1, sizeof(*plan->networks));
    if (!plan->networks)
        return error_set(error, ENOMEM, "reconcile");
    for (size_t i = 0; i < guest->n_endpoints; i++) {
        const struct network *network = find_network(state, guest->endpoints[i].network_id);

        if (!network)
            return error_set(error, 0, "guest %s: its network is missing in the store",
                             guest->name);
        plan->networks[i] = *network;
        plan->networks[i].dns_servers = (struct ips){0};
        plan->networks[i].labels = (struct labels){0};
        plan->networks[i].guests = (struct strings){0};
    }
    return 0;
}

static int state_load(struct state *state, struct error *error)
{
    int r = store_network_list(state->service->store, &state->networks, &state->n_networks, error);

    for (size_t i = 0; r >= 0 && i < state->n_networks; i++)
        network_follow_mtu(state->service, &state->networks[i]);
    if (r >= 0)
        r = store_guest_list(state->service->store, &state->guests, &state->n_guests, error);
    if (r < 0)
        return r;
    state->plans = calloc(state->n_guests + 1, sizeof(*state->plans));
    if (!state->plans)
        return error_set(error, ENOMEM, "reconcile");
    for (size_t i = 0; r >= 0 && i < state->n_guests; i++)
        r = plan_guest(state, i, error);
    return r;
}

/* --- who is still there --- */

static bool links_exist(struct service *service, const struct guest *guest)
{
    for (size_t i = 0; i < guest->n_endpoints; i++) {
        if (!link_exists(service->link, guest->endpoints[i].host_interface))
            return false;
    }
    return guest->n_endpoints > 0;
}

bool guest_is_alive(struct service *service, const struct guest *guest)
{
    int fd = -1;

    if (guest->ephemeral && !owner_is_alive(guest))
        return false;
    if (guest->kind == KIND_TAP)
        return true;
    guest_netns_open(guest, &fd);
    if (fd >= 0) {
        close(fd);
        return true;
    }
    /* neither path nor process lead there: the links do, as long as the namespace lives */
    return links_exist(service, guest);
}

/* What the kernel keeps for a guest besides its links: routes, proxies, neighbours, flows. */
static void clear_traces(struct service *service, const struct guest_plan *plan)
{
    for (size_t i = 0; i < plan->guest->n_endpoints; i++) {
        const struct endpoint *endpoint = &plan->guest->endpoints[i];
        struct link_endpoint link;
        struct error error = ERROR_INIT;

        plan_link(plan, i, &link);
        if (link_endpoint_remove(service->link, &link, &error) < 0)
            log_warning("guest %s: %s", plan->guest->name, error.text);
        if (ip_is_set(&endpoint->ip))
            conntrack_flush_guest(service->conntrack, &endpoint->ip);
        if (ip_is_set(&endpoint->ip6))
            conntrack_flush_guest(service->conntrack, &endpoint->ip6);
    }
}

static int drop_guest(struct service *service, struct guest *guest, struct error *error)
{
    struct guest_plan plan;
    int r = guest_plan_load(service, guest, &plan, error);

    if (r < 0)
        return r;
    r = store_begin(service->store, error);
    if (r >= 0)
        r = store_guest_release(service->store, guest, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0) {
        store_rollback(service->store);
    } else {
        clear_traces(service, &plan);
        log_info("guest %s ended while moatd was away", guest->name);
    }
    guest_plan_deinit_networks(&plan);
    return r;
}

static int drop_dead_guests(struct service *service, struct error *error)
{
    struct guest *guests = NULL;
    size_t count = 0;
    int r = store_guest_list(service->store, &guests, &count, error);

    for (size_t i = 0; i < count; i++) {
        if (r >= 0 && !guest_is_alive(service, &guests[i]))
            r = drop_guest(service, &guests[i], error);
        guest_deinit(&guests[i]);
    }
    free(guests);
    return r;
}

/* --- links that the store does not know --- */

static bool is_known_link(const struct state *state, const char *name)
{
    for (size_t i = 0; i < state->n_networks; i++) {
        if (strcmp(state->networks[i].bridge, name) == 0)
            return true;
    }
    for (size_t i = 0; i < state->n_guests; i++) {
        for (size_t j = 0; j < state->guests[i].n_endpoints; j++) {
            const struct endpoint *endpoint = &state->guests[i].endpoints[j];
            char between[IFNAMSIZ];

            limit_link_name(endpoint, between);
            if (strcmp(endpoint->host_interface, name) == 0 ||
                (state->guests[i].limits.rate_up > 0 && strcmp(between, name) == 0))
                return true;
        }
    }
    return false;
}

static int remove_strays(struct state *state, struct error *error)
{
    const struct link_info *links;
    int r = link_list(state->service->link, &state->links, &state->n_links, error);

    links = state->links;
    for (size_t i = 0; r >= 0 && i < state->n_links; i++) {
        struct error refused = ERROR_INIT;

        if (is_known_link(state, links[i].name))
            continue;
        log_info("removing %s, which nothing in the store has", links[i].name);
        if (strcmp(links[i].kind, "bridge") == 0)
            (void)link_bridge_remove(state->service->link, links[i].name, &refused);
        else
            (void)link_remove_by_name(state->service->link, links[i].name, &refused);
        if (refused.kind != ERROR_NONE)
            log_warning("%s", refused.text);
    }
    return r;
}

/* --- rules --- */

/* What is open of it stays open. At start-up that is what the kernel has. */
static int batch_policy(const struct state *state, const struct guest *guest,
                        struct nat_batch *batch, struct error *error)
{
    struct service *service = state->service;
    struct domain *domain = NULL;
    int r = policy_append(batch, guest, true, error);

    if (r < 0 || !policy_has_rules(&guest->policy))
        return r;
    if (domain_is_current(service, guest)) {
        domain_append(service, guest->id, batch);
        return 0;
    }
    r = domain_prepare(service, guest, batch, &domain, error);
    if (r >= 0)
        domain_install(service, guest->id, domain);
    return r;
}

static int batch_everything(const struct state *state, struct nat_batch *batch, struct error *error)
{
    int r = 0;

    for (size_t i = 0; i < state->n_networks; i++) {
        struct nat_network network;

        plan_nat_network(&state->networks[i], &network);
        nat_batch_network(batch, &network, true);
    }
    r = passages_append(state->service, 0, true, batch, error);
    for (size_t i = 0; r >= 0 && i < state->n_guests; i++) {
        const struct guest_plan *plan = &state->plans[i];

        r = batch_policy(state, plan->guest, batch, error);
        for (size_t j = 0; j < plan->guest->n_endpoints; j++) {
            struct nat_endpoint endpoint;

            plan_nat_endpoint(plan, j, &endpoint);
            nat_batch_endpoint(batch, &endpoint, true);
        }
        ports_append(state->service, plan, plan->guest->ports, plan->guest->n_ports, true, batch);
    }
    return r;
}

static int close_gap(const struct state *state, struct error *error)
{
    size_t ended = 0;
    int r = gap_close(state->service, state->networks, state->n_networks, state->plans,
                      state->n_guests, &ended, error);

    if (r < 0 && state->start) { /* is no reason not to start */
        log_error("%s; trying again", error->text);
        *error = ERROR_INIT;
        reconcile_schedule(state->service);
        return 0;
    }
    if (r < 0)
        return r;
    if (--state->service->gap_looks > 0)
        loop_timer_start(state->service->repair_timer, GAP_AGAIN_MS);
    if (ended > 0)
        log_warning("%zu connections came about while rules of the nftables table were gone, and "
                    "were ended",
                    ended);
    return 0;
}

static int apply_batch(const struct state *state, struct nat_batch *batch, struct error *error)
{
    struct service *service = state->service;
    enum nat_verdict verdict = NAT_CHANGED;
    int r = nat_verify(service->nat, batch, &verdict, error);

    if (r < 0 || verdict != NAT_SAME) {
        if (verdict == NAT_CHANGED)
            service->gap_looks = GAP_LOOKS;
        *error = ERROR_INIT;
        r = nat_rebuild(service->nat, batch, error);
        if (r >= 0 && !state->start)
            tell_repair(service, NULL, NULL, "the nftables table");
    }
    if (r >= 0 && service->gap_looks > 0)
        r = close_gap(state, error);
    return r;
}

static int apply_rules(const struct state *state, struct error *error)
{
    struct nat_batch *batch = nat_batch_new(state->service->nat);
    int r;

    if (!batch)
        return error_set(error, ENOMEM, "reconcile");
    r = batch_everything(state, batch, error);
    if (r >= 0)
        r = apply_batch(state, batch, error);
    nat_batch_free(batch);
    return r;
}

/* --- networks and guests --- */

/* There, up, and with the gateway's address? What else may be wrong is put right without a word. */
static bool bridge_is_right(const struct state *state, const struct network *network)
{
    const struct ip *const gateways[] = {&network->gateway, &network->gateway6};
    struct error error = ERROR_INIT;
    bool right = false;

    for (size_t i = 0; i < state->n_links && !right; i++)
        right = state->links[i].up && strcmp(state->links[i].name, network->bridge) == 0;
    for (size_t i = 0; i < ARRAY_SIZE(gateways) && right; i++)
        if (ip_is_set(gateways[i]) &&
            link_address_is_local(state->service->link, gateways[i], &right, &error) < 0)
            log_warning("network %s: %s", network->name, error.text);
    return right;
}

static void ensure_network(const struct state *state, const struct network *network)
{
    struct error error = ERROR_INIT;
    struct link_bridge bridge;
    bool was_right = state->start || bridge_is_right(state, network);
    int r = 0;

    plan_bridge(network, &bridge);
    if (!network->internal && cidr_is_set(&network->subnet))
        r = hostset_forwarding_ensure(state->service, AF_INET, &error);
    if (r >= 0 && !network->internal && cidr_is_set(&network->subnet6))
        r = hostset_forwarding_ensure(state->service, AF_INET6, &error);
    if (r >= 0)
        r = link_bridge_ensure(state->service->link, &bridge, &error);
    if (r >= 0 && state->start)
        r = nameless_network_add(state->service, network, &error);
    if (r < 0)
        tell_failure(state, "network", network->name, &error);
    else if (!was_right)
        tell_repair(state->service, network->name, NULL, network->bridge);
}

static int create_link(struct service *service, struct guest_plan *plan,
                       const struct link_endpoint *endpoint, struct error *error)
{
    if (plan->guest->kind == KIND_TAP)
        return link_tap_create(service->link, endpoint, NULL, error);
    return link_veth_create(service->link, endpoint, error);
}

/* A crash between the pair and the guest's side of it: the pair is made again. */
static int drop_half_made(struct service *service, const struct link_endpoint *endpoint,
                          bool *ret_found, struct error *error)
{
    int r = link_guest_is_set_up(endpoint, ret_found, error);

    if (r < 0 || *ret_found)
        return r;
    log_info("%s was only half made; making it again", endpoint->host_name);
    r = link_endpoint_remove(service->link, endpoint, error);
    link_reaper_wait(service->link);
    return r;
}

/* A guest that sends larger packets than its network carries would never hear of it: nobody on the
 * way is a router. */
static int follow_mtu_inside(const struct state *state, struct guest_plan *plan,
                             const struct link_endpoint *endpoint, struct error *error)
{
    if (!state->follow_mtu || plan->guest->kind != KIND_NETNS)
        return 0;
    if (plan->netns_fd < 0)
        guest_netns_open(plan->guest, &plan->netns_fd);
    return plan->netns_fd < 0
               ? 0
               : link_guest_set_mtu(plan->netns_fd, endpoint->peer_name, endpoint->mtu, error);
}

/* *ret_made is set when the link had to be made. */
static int ensure_endpoint(const struct state *state, struct guest_plan *plan, size_t index,
                           bool *ret_made, struct error *error)
{
    struct service *service = state->service;
    struct link_endpoint endpoint;
    bool found = false;
    int r;

    if (plan->guest->kind == KIND_NETNS && plan->netns_fd < 0 && state->start)
        guest_netns_open(plan->guest, &plan->netns_fd);
    plan_link(plan, index, &endpoint);
    r = link_endpoint_ensure(service->link, &endpoint, &found, error);
    if (r >= 0 && found && state->start && endpoint.netns_fd >= 0)
        r = drop_half_made(service, &endpoint, &found, error);
    if (r >= 0 && found)
        r = follow_mtu_inside(state, plan, &endpoint, error);
    if (r < 0 || found)
        return r;
    if (plan->guest->kind == KIND_NETNS && plan->netns_fd < 0)
        guest_netns_open(plan->guest, &plan->netns_fd);
    if (plan->guest->kind == KIND_NETNS && plan->netns_fd < 0) {
        service->has_unreachable = true; /* it was ending when we looked who is there */
        reconcile_schedule(service);
        return error_set(error, 0, "its link is gone and its namespace can't be reached");
    }
    endpoint.netns_fd = plan->netns_fd;
    tell_repair(service, plan->networks[index].name, plan->guest->name, endpoint.host_name);
    *ret_made = true;
    return create_link(service, plan, &endpoint, error);
}

static int start_names(const struct state *state, struct guest_plan *plan, struct error *error)
{
    struct service *service = state->service;
    int r = 0;

    for (size_t i = 0; r >= 0 && i < plan->guest->n_endpoints; i++)
        r = names_endpoint_add(service->names, plan->guest, &plan->guest->endpoints[i], error);
    if (r >= 0 && plan->guest->ephemeral)
        r = owner_add(service, plan->guest, NULL, error);
    return r;
}

void reconcile_guest(const struct state *state, struct guest_plan *plan)
{
    struct error error = ERROR_INIT;
    bool made = false;
    int r = 0;

    for (size_t i = 0; r >= 0 && i < plan->guest->n_endpoints; i++)
        r = ensure_endpoint(state, plan, i, &made, &error);
    for (size_t i = 0; r >= 0 && i < plan->guest->n_endpoints; i++)
        r = limit_apply(state->service, plan, i, &error);
    if (r >= 0)
        r = guest_leases_apply(state->service, plan, &error);
    if (r >= 0)
        r = domain_follow(state->service, plan->guest, &error);
    if (r >= 0 && state->start)
        r = start_names(state, plan, &error);
    if (r >= 0 && (state->start || made))
        r = guest_inside_ensure(state->service, plan, made, &error);
    if (r < 0)
        tell_failure(state, "guest", plan->guest->name, &error);
}

static int start_records(struct service *service, struct error *error)
{
    struct dns_record *records = NULL;
    size_t count = 0;
    int r = store_record_list(service->store, &records, &count, error);

    /* One that can't be had, below a longer domain than before, does not hold up the others. */
    for (size_t i = 0; r >= 0 && i < count; i++) {
        struct error refused = ERROR_INIT;

        if (names_record_add(service->names, &records[i], &refused) < 0)
            log_error("the record of %s is not served: %s", records[i].name, refused.text);
    }
    dns_records_free(records, count);
    return r;
}

static int mtu_remember(struct service *service, struct error *error)
{
    char value[16];

    service->applied_mtu = service->host_mtu;
    snprintf(value, sizeof(value), "%u", service->applied_mtu);
    return store_setting_set(service->store, MTU_SETTING, value, error);
}

/* What the guests were told. Where nothing was recorded there are none yet: they will be told what
 * holds now. */
static int mtu_recall(struct service *service, struct error *error)
{
    _cleanup_free_ char *value = NULL;
    struct error unknown = ERROR_INIT;
    int r = store_setting_get(service->store, MTU_SETTING, &value, error);

    if (r < 0)
        return r;
    if (value) {
        service->applied_mtu = (uint32_t)strtoul(value, NULL, 10);
        return 0;
    }
    if (link_default_mtu(service->link, &service->host_mtu, &unknown) < 0) {
        log_warning("the host's MTU: %s", unknown.text);
        return 0;
    }
    return mtu_remember(service, error);
}

int reconcile_begin(struct state *state, struct error *error)
{
    struct service *service = state->service;
    int r = state_load(state, error);

    state->failed_before = service->failures;
    service->failures = (struct strings){0};
    state->follow_mtu = service->host_mtu != 0 && service->host_mtu != service->applied_mtu;
    if (r >= 0)
        r = remove_strays(state, error);
    for (size_t i = 0; r >= 0 && state->start && i < state->n_guests; i++)
        r = waiting_start(service, &state->plans[i], error);
    if (r >= 0)
        r = apply_rules(state, error);
    for (size_t i = 0; r >= 0 && i < state->n_networks; i++)
        ensure_network(state, &state->networks[i]);
    return r;
}

int reconcile_end(struct state *state, int r, struct error *error)
{
    struct service *service = state->service;

    if (r >= 0 && state->follow_mtu)
        r = mtu_remember(service, error);
    if (r >= 0 && state->start)
        r = start_records(service, error);
    if (r < 0)
        tell_failure(state, "repair", NULL, error);
    if (service->failures.count > 0)
        loop_timer_start(service->retry_timer, RETRY_FAILED_MS);
    reconcile_forget(state);
    strings_deinit(&state->failed_before);
    return r;
}

static int reconcile_everything(struct service *service, struct error *error)
{
    struct state state = {.service = service, .start = true};
    int r = reconcile_begin(&state, error);

    for (size_t i = 0; r >= 0 && i < state.n_guests; i++)
        reconcile_guest(&state, &state.plans[i]);
    return reconcile_end(&state, r, error);
}

int reconcile_start(struct service *service, struct error *error)
{
    int r = drop_dead_guests(service, error);

    if (r >= 0)
        default_network_follow(service);
    if (r >= 0)
        r = mtu_recall(service, error);
    if (r >= 0)
        r = domains_load(service, error);
    if (r >= 0)
        r = reconcile_everything(service, error);
    domains_loaded_forget(service);
    if (r < 0)
        return r;
    firewalls_start(service);
    names_settled(service->names);
    leases_settled(service->leases);
    reservations_settled(service->reservations);
    return 0;
}
