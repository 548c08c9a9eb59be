/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the model to what each layer is told. Pure functions, used by attach, detach, start-up and
 * repair alike, so that all of them mean the same. */
#include <stdio.h>
#include <string.h>

#include "service/private.h"

void plan_bridge(const struct network *network, struct link_bridge *ret_bridge)
{
    struct link_bridge bridge = {
        .group = LINK_GROUP_OF(network->id),
        .mac = network->mac,
        .mtu = network->mtu_now,
    };

    snprintf(bridge.name, sizeof(bridge.name), "%s", network->bridge);
    snprintf(bridge.alias, sizeof(bridge.alias), LINK_ALIAS_PREFIX "%s", network->uid);
    if (cidr_is_set(&network->subnet))
        bridge.address = (struct cidr){network->gateway, network->subnet.prefix};
    if (cidr_is_set(&network->subnet6))
        bridge.address6 = (struct cidr){network->gateway6, network->subnet6.prefix};
    *ret_bridge = bridge;
}

size_t plan_default_endpoint(const struct guest_plan *plan, uint8_t family)
{
    for (size_t i = 0; i < plan->guest->n_endpoints; i++) {
        const struct network *network = &plan->networks[i];

        if (!network->internal &&
            cidr_is_set(family == AF_INET ? &network->subnet : &network->subnet6))
            return i;
    }
    return plan->guest->n_endpoints;
}

void plan_link(const struct guest_plan *plan, size_t index, struct link_endpoint *ret_endpoint)
{
    const struct endpoint *endpoint = &plan->guest->endpoints[index];
    const struct network *network = &plan->networks[index];
    struct link_endpoint link = {
        .group = LINK_GROUP_OF(network->id),
        .routed = endpoint->routed,
        .bridge_mac = network->mac,
        .bridge_ip = network->gateway,
        .mtu = network->mtu_now,
        .mac = endpoint->mac,
        .ip = endpoint->ip,
        .ip6 = endpoint->ip6,
        .prefix = endpoint->prefix,
        .prefix6 = endpoint->prefix6,
        .netns_fd = plan->netns_fd,
        .owner = plan->guest->tap_owner,
        .tap_group = plan->guest->tap_group,
        .multi_queue = plan->guest->tap_multi_queue,
        .vnet_hdr = plan->guest->tap_vnet_hdr,
    };

    snprintf(link.host_name, sizeof(link.host_name), "%s", endpoint->host_interface);
    snprintf(link.alias, sizeof(link.alias), LINK_ALIAS_PREFIX "%s", plan->guest->uid);
    snprintf(link.bridge, sizeof(link.bridge), "%s", network->bridge);
    snprintf(link.peer_name, sizeof(link.peer_name), "%s", endpoint->interface);
    if (index == plan_default_endpoint(plan, AF_INET))
        link.gateway = network->gateway;
    if (index == plan_default_endpoint(plan, AF_INET6))
        link.gateway6 = network->gateway6;
    *ret_endpoint = link;
}

void plan_nat_network(const struct network *network, struct nat_network *ret_network)
{
    *ret_network = (struct nat_network){
        .group = LINK_GROUP_OF(network->id),
        .subnet = network->subnet,
        .subnet6 = network->subnet6,
        .gateway = network->gateway,
        .gateway6 = network->gateway6,
        .internal = network->internal,
        .isolated = network->isolated,
        .host_access = network->host_access,
        .dns = network->dns,
    };
}

size_t plan_localhost_endpoint(const struct guest_plan *plan)
{
    size_t index = plan_default_endpoint(plan, AF_INET);

    return index < plan->guest->n_endpoints ? index : 0;
}

void plan_nat_endpoint(const struct guest_plan *plan, size_t index,
                       struct nat_endpoint *ret_endpoint)
{
    const struct endpoint *endpoint = &plan->guest->endpoints[index];
    struct nat_endpoint nat = {
        .group = LINK_GROUP_OF(endpoint->network_id),
        .ip = endpoint->ip,
        .ip6 = endpoint->ip6,
        .closed = plan->guest->mode == MODE_OUTBOUND,
        .mac = endpoint->mac,
        .routed = endpoint->routed,
        .localhost = plan->guest->localhost && index == plan_localhost_endpoint(plan),
        .logged = plan->guest->policy.log_denied,
        .silent = plan->guest->policy.silent,
        .max_conns = plan->guest->limits.max_conns,
        .conn_rate = plan->guest->limits.conn_rate,
    };

    if (policy_has_rules(&plan->guest->policy)) {
        nat.policy_id = plan->guest->id;
        nat.policy_version = policy_version(&plan->guest->policy);
    }

    snprintf(nat.host_interface, sizeof(nat.host_interface), "%s", endpoint->host_interface);
    *ret_endpoint = nat;
}

void plan_nat_port(const struct guest_plan *plan, const struct port *port,
                   struct nat_port *ret_port)
{
    size_t target = plan_default_endpoint(plan, AF_INET);
    size_t target6 = plan_default_endpoint(plan, AF_INET6);
    struct nat_port nat = {
        .host_ip = port->host_ip,
        .host_port = port->host_port,
        .guest_port = port->guest_port,
        .count = port->count,
        .protocol = port->protocol,
    };

    if (target < plan->guest->n_endpoints)
        nat.guest_ip = plan->guest->endpoints[target].ip;
    if (target6 < plan->guest->n_endpoints)
        nat.guest_ip6 = plan->guest->endpoints[target6].ip6;
    *ret_port = nat;
}

const struct ip *plan_relay_target(const struct nat_port *port)
{
    return ip_is_set(&port->guest_ip) ? &port->guest_ip : &port->guest_ip6;
}

static void servers_add(struct dhcp_servers *servers, const struct ip *ip)
{
    if (servers->count < DHCP_SERVERS_MAX && !ip_is_loopback(ip) && !ip_is_link_local(ip))
        servers->items[servers->count++] = *ip;
}

static void servers_fill(const struct ips *ips, uint8_t family, struct dhcp_servers *servers)
{
    for (size_t i = 0; i < ips->count; i++) {
        if (ips->items[i].family == family)
            servers_add(servers, &ips->items[i]);
    }
}

static void plan_lease_names(const struct guest *guest, const struct config *config,
                             struct dhcp_port *port)
{
    snprintf(port->host_name, sizeof(port->host_name), "%s", guest->name);
    snprintf(port->search[port->n_search++], DHCP_DOMAIN_MAX, "%s", config->domain);
    for (size_t i = 0; i < guest->dns_search.count && port->n_search < DHCP_SEARCH_MAX; i++)
        snprintf(port->search[port->n_search++], DHCP_DOMAIN_MAX, "%s", guest->dns_search.items[i]);
}

void plan_lease(const struct guest_plan *plan, size_t index, const struct config *config,
                const struct ips *servers, struct dhcp_port *ret_port)
{
    const struct endpoint *endpoint = &plan->guest->endpoints[index];
    const struct network *network = &plan->networks[index];
    const struct ips *others = plan->guest->dns.count ? &plan->guest->dns : servers;

    memset(ret_port, 0, sizeof(*ret_port)); /* padding too: ports are compared as bytes */
    ret_port->mac = endpoint->mac;
    ret_port->server_mac = network->mac;
    ret_port->ip = endpoint->ip;
    ret_port->prefix = endpoint->prefix;
    ret_port->gateway = network->gateway;
    ret_port->ip6 = endpoint->ip6;
    ret_port->prefix6 = endpoint->prefix6;
    ret_port->default_route = index == plan_default_endpoint(plan, AF_INET);
    ret_port->default_route6 = index == plan_default_endpoint(plan, AF_INET6);
    ret_port->on_link6 = !endpoint->routed;
    ret_port->mtu = network->mtu_now;
    ret_port->lease_s = config->lease_s;
    if (network->dns && cidr_is_set(&network->subnet))
        servers_add(&ret_port->dns, &network->gateway);
    if (network->dns && cidr_is_set(&network->subnet6))
        servers_add(&ret_port->dns6, &network->gateway6);
    if (!network->dns) {
        servers_fill(others, AF_INET, &ret_port->dns);
        servers_fill(others, AF_INET6, &ret_port->dns6);
    }
    servers_fill(&config->ntp, AF_INET, &ret_port->ntp);
    servers_fill(&config->ntp, AF_INET6, &ret_port->ntp6);
    plan_lease_names(plan->guest, config, ret_port);
}
