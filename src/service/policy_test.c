/* SPDX-License-Identifier: GPL-2.0-or-later */
/* May a guest open this connection? The plain evaluation of its rules (base/rule.c), then what its
 * networks let through; no packet is sent. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "service/private.h"

#define NAMES_MAX 16
#define DNS_PORT 53

struct probe {
    struct service *service;
    const struct guest_plan *plan;
    struct policy_rules allow;
    struct policy_rules deny;
    struct policy_rule destination;
    struct policy_flow flow;
    const char *names[NAMES_MAX];
    struct policy_test_result *result;
};

__attribute__((format(printf, 3, 4))) static int conclude(struct probe *probe, bool allowed,
                                                          const char *format, ...)
{
    va_list arguments;

    probe->result->allowed = allowed;
    va_start(arguments, format);
    vsnprintf(probe->result->reason, sizeof(probe->result->reason), format, arguments);
    va_end(arguments);
    return 0;
}

/* --- what is asked --- */

static int read_destination(const char *text, struct policy_rule *ret_rule, struct error *error)
{
    static const char field[] = "destination";
    int r = policy_rule_parse(text, field, ret_rule, error);
    bool one = ret_rule->destination == RULE_NAME ||
               (ret_rule->destination == RULE_PREFIX &&
                ret_rule->prefix.prefix == ip_bits(ret_rule->prefix.ip.family));

    if (r < 0)
        return r;
    if (!one || ret_rule->port != ret_rule->port_end)
        return error_set_field(error, field,
                               "%s: \"%.80s\" is more than one connection; give ADDRESS:PORT or "
                               "NAME:PORT, with /tcp or /udp, or ADDRESS/icmp",
                               field, text);
    if (!ret_rule->port && ret_rule->protocol != IPPROTO_ICMP)
        return error_set_field(error, field, "%s: \"%.80s\" has no port; give %.80s:PORT", field,
                               text, text);
    return 0;
}

static uint8_t protocol_of(const struct policy_rule *destination, uint8_t family)
{
    if (destination->protocol == IPPROTO_ICMP && family == AF_INET6)
        return IPPROTO_ICMPV6;
    return destination->protocol ? destination->protocol : IPPROTO_TCP;
}

/* --- rules --- */

static int conclude_by_rule(struct probe *probe, bool allowed, const struct policy_rule *rule,
                            const char *list, const char *detail)
{
    struct policy_test_result *result = probe->result;

    snprintf(result->list, sizeof(result->list), "%s", list);
    policy_rule_format(rule, result->rule);
    return conclude(probe, allowed, "%s %s%s", list, result->rule, detail);
}

static const char *name_of(const struct probe *probe, const struct policy_rule *rule)
{
    size_t i = 0;

    while (i + 1 < probe->flow.n_names && !policy_rule_covers_name(rule, probe->names[i]))
        i++;
    return probe->names[i];
}

/* 1: the rules allow it; 0: they deny it, and the result says so. */
static int ask_rules(struct probe *probe)
{
    const struct policy_rule *rule;
    bool allowed = policy_allows(&probe->allow, &probe->deny, &probe->flow, &rule);
    char detail[RULE_TEXT_MAX] = "";

    if (rule && policy_rule_is_domain(rule) && probe->destination.destination == RULE_PREFIX)
        snprintf(detail, sizeof(detail), ", as an address that was given for %s",
                 name_of(probe, rule));
    if (rule) {
        conclude_by_rule(probe, allowed, rule, allowed ? "allow" : "deny", detail);
        return allowed;
    }
    if (allowed) {
        conclude(probe, true,
                 probe->deny.count ? "no deny rule matches" : "the guest has no rules");
        return 1;
    }
    if (policy_port_is_dns(probe->flow.protocol, probe->flow.port) &&
        policy_has_domains(&probe->allow, &probe->deny))
        conclude(probe, false,
                 "beside domain rules, other name servers are closed but for allow rules with that "
                 "port");
    else
        conclude(probe, false, "no allow rule matches");
    return 0;
}

/* --- the networks --- */

static const struct network *network_of(const struct probe *probe, const struct ip *ip)
{
    for (size_t i = 0; i < probe->plan->guest->n_endpoints; i++) {
        const struct network *network = &probe->plan->networks[i];

        if (cidr_contains_ip(&network->subnet, ip) || cidr_contains_ip(&network->subnet6, ip))
            return network;
    }
    return NULL;
}

static bool is_gateway(const struct network *network, const struct ip *ip)
{
    return ip_equal(&network->gateway, ip) || ip_equal(&network->gateway6, ip);
}

static bool is_name_service(const struct probe *probe, const struct network *network)
{
    return network && network->dns && is_gateway(network, &probe->flow.ip) &&
           probe->flow.port == DNS_PORT;
}

/* *ret_guest: whose port is published there; "" for none. */
static int find_published(struct probe *probe, char ret_guest[NAME_MAX_LENGTH + 1],
                          struct error *error)
{
    struct guest *guests = NULL;
    size_t count = 0;
    int r = store_guest_list(probe->service->store, &guests, &count, error);

    ret_guest[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; r >= 0 && j < guests[i].n_ports; j++) {
            const struct port *port = &guests[i].ports[j];

            if (port->protocol == probe->flow.protocol && probe->flow.port >= port->host_port &&
                probe->flow.port - port->host_port < port->count &&
                !port_is_waiting(probe->service, port) &&
                (!ip_is_set(&port->host_ip) || ip_equal(&port->host_ip, &probe->flow.ip)))
                snprintf(ret_guest, NAME_MAX_LENGTH + 1, "%s", guests[i].name);
        }
        guest_deinit(&guests[i]);
    }
    free(guests);
    return r;
}

/* The first network that the guest would go out by. */
static const struct network *way_out(const struct probe *probe)
{
    size_t index = plan_default_endpoint(probe->plan, probe->flow.ip.family);

    return index < probe->plan->guest->n_endpoints ? &probe->plan->networks[index] : NULL;
}

static int ask_host(struct probe *probe, const struct network *network, struct error *error)
{
    char guest[NAME_MAX_LENGTH + 1];
    char rules[sizeof(probe->result->reason)];
    int r = find_published(probe, guest, error);

    if (r < 0)
        return r;
    snprintf(rules, sizeof(rules), "%s", probe->result->reason); /* conclude writes over it */
    if (guest[0])
        return conclude(probe, true, "%s; port published by guest \"%s\"", rules, guest);
    if (network->host_access)
        return 0;
    if (probe->flow.protocol == IPPROTO_ICMP || probe->flow.protocol == IPPROTO_ICMPV6)
        return network->internal && !is_gateway(network, &probe->flow.ip)
                   ? conclude(probe, false, "network \"%s\" is internal", network->name)
                   : 0;
    return conclude(probe, false,
                    "of the host only its name service, ping and published ports are open to "
                    "network \"%s\" (--host-access)",
                    network->name);
}

/* A guest in mode outbound answers nobody. */
static int ask_mode(struct probe *probe, struct error *error)
{
    struct guest *guests = NULL;
    size_t count = 0;
    int r = store_guest_list(probe->service->store, &guests, &count, error);

    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; r >= 0 && j < guests[i].n_endpoints; j++)
            if (guests[i].mode == MODE_OUTBOUND &&
                (ip_equal(&guests[i].endpoints[j].ip, &probe->flow.ip) ||
                 ip_equal(&guests[i].endpoints[j].ip6, &probe->flow.ip)))
                conclude(probe, false, "guest \"%s\" is in mode outbound", guests[i].name);
        guest_deinit(&guests[i]);
    }
    free(guests);
    return r;
}

static int ask_peer(struct probe *probe, const struct network *network, struct error *error)
{
    if (network->isolated)
        return conclude(probe, false,
                        "network \"%s\" is isolated: its guests don't reach one another",
                        network->name);
    return ask_mode(probe, error);
}

/* On a network that the guest is not on: only a passage leads there. */
static int ask_passage(struct probe *probe, const struct network *from, struct error *error)
{
    const struct port_span span = {probe->flow.protocol, probe->flow.port, probe->flow.port};
    const struct port_span everything = {0};
    struct network *networks = NULL;
    struct port_spans spans = {0};
    size_t count = 0;
    bool open = false;
    int r = store_network_list(probe->service->store, &networks, &count, error);

    for (size_t i = 0; i < count; i++) {
        if (r >= 0 && (cidr_contains_ip(&networks[i].subnet, &probe->flow.ip) ||
                       cidr_contains_ip(&networks[i].subnet6, &probe->flow.ip))) {
            r = store_passage_get(probe->service->store, from->id, networks[i].id, &spans, error);
            open = open || spans_contains(&spans, &everything) || spans_contains(&spans, &span);
            spans_deinit(&spans);
        }
        network_deinit(&networks[i]);
    }
    free(networks);
    if (r < 0 || open)
        return r < 0 ? r : ask_mode(probe, error);
    return conclude(probe, false,
                    "it is on a network that the guest is not on, and to which \"%s\" is not let",
                    from->name);
}

static int ask_networks(struct probe *probe, bool local, struct error *error)
{
    const struct ip *ip = &probe->flow.ip;
    const struct network *on_link = network_of(probe, ip);
    const struct network *out = way_out(probe);

    if (on_link && !is_gateway(on_link, ip))
        return ask_peer(probe, on_link, error);
    if (on_link)
        return ask_host(probe, on_link, error);
    if (!out)
        return conclude(probe, false, "the guest has no network with %s and an outside",
                        ip->family == AF_INET6 ? "IPv6" : "IPv4");
    if (local)
        return ask_host(probe, out, error);
    if (names_is_of_networks(probe->service->names, ip))
        return ask_passage(probe, out, error);
    return 0;
}

/* --- the two kinds of destination --- */

static int ask_address(struct probe *probe, struct error *error)
{
    const struct ip *ip = &probe->flow.ip;
    bool local = false;
    int r;

    if (ip_is_loopback(ip))
        return conclude(probe, true, "it is the guest itself");
    if (is_name_service(probe, network_of(probe, ip)))
        return conclude(probe, true, "it is the network's name service");
    r = link_address_is_local(probe->service->link, ip, &local, error);
    if (r < 0)
        return r;
    probe->flow.own = local || names_is_of_networks(probe->service->names, ip);
    probe->flow.n_names = domain_names_find(probe->service, probe->plan->guest->id, ip, true,
                                            probe->names, NAMES_MAX);
    if (!ask_rules(probe))
        return 0;
    return ask_networks(probe, local, error);
}

/* Of an address that is not known yet only is said that no rule about single addresses speaks of
 * it, that it is public, and of a family by which the guest gets out. */
static int ask_name(struct probe *probe)
{
    static const struct ip public4 = {.family = AF_INET, .bytes = {1, 1, 1, 1}};
    static const struct ip public6 = {.family = AF_INET6, .bytes = {0x2a, 0, [15] = 1}};
    const struct policy_rule *rule;

    probe->flow.ip = public4;
    if (!way_out(probe))
        probe->flow.ip = public6;
    probe->flow.protocol = protocol_of(&probe->destination, probe->flow.ip.family);
    probe->names[0] = probe->destination.name;
    probe->flow.n_names = 1;
    if (!policy_allows_name(&probe->allow, &probe->deny, probe->destination.name, &rule)) {
        if (rule)
            return conclude_by_rule(probe, false, rule, "deny", "");
        return conclude(probe, false, "no allow rule names it, and it is not resolved");
    }
    if (!ask_rules(probe))
        return 0;
    if (!way_out(probe))
        conclude(probe, false, "the guest has no network with an outside");
    return 0;
}

static int ask(struct probe *probe, struct error *error)
{
    const struct guest *guest = probe->plan->guest;

    probe->flow.names = probe->names;
    probe->flow.ip = probe->destination.prefix.ip;
    probe->flow.port = probe->destination.port;
    probe->flow.protocol = protocol_of(&probe->destination, probe->flow.ip.family);
    if (guest->mode == MODE_DISABLED || guest->mode == MODE_LOOPBACK)
        return conclude(probe, false, "the guest is in mode %s", guest_mode_name(guest->mode));
    if (probe->destination.destination == RULE_NAME)
        return ask_name(probe);
    return ask_address(probe, error);
}

int service_policy_test(struct service *service, const struct policy_test_params *params,
                        struct policy_test_result *ret_result, struct error *error)
{
    struct policy_test_result result = {0};
    struct probe probe = {.service = service, .result = &result};
    struct guest guest = {0};
    struct guest_plan plan = {.guest = &guest};
    int r = guest_find(service, params->guest, &guest, error);

    if (r >= 0)
        r = read_destination(params->destination, &probe.destination, error);
    if (r >= 0)
        r = guest_plan_load(service, &guest, &plan, error);
    if (r >= 0)
        r = policy_rules_parse(&guest.policy.allow, "allow", &probe.allow, error);
    if (r >= 0)
        r = policy_rules_parse(&guest.policy.deny, "deny", &probe.deny, error);
    probe.plan = &plan;
    if (r >= 0)
        r = ask(&probe, error);
    policy_rules_deinit(&probe.allow);
    policy_rules_deinit(&probe.deny);
    guest_plan_deinit_networks(&plan);
    guest_deinit(&guest);
    if (r >= 0)
        *ret_result = result;
    return r;
}
