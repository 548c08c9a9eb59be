/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks: validate, intent, apply, undo. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/yield.h"
#include "service/private.h"

#define SUBNET_PREFIX_MIN 8
#define SUBNET_PREFIX_MAX 30
#define IPV6_MTU_MIN 1280 /* RFC 8200 section 5 */

/* The host's MTU is looked up once and again when the watcher says that the host changed. */
void network_follow_mtu(struct service *service, struct network *network)
{
    struct error error = ERROR_INIT;

    if (network->mtu == 0 && service->host_mtu == 0 &&
        link_default_mtu(service->link, &service->host_mtu, &error) < 0) {
        log_warning("the host's MTU: %s; taking 1500", error.text);
        service->host_mtu = 1500;
    }
    network->mtu_now = network->mtu ? network->mtu : service->host_mtu;
    if (cidr_is_set(&network->subnet6) && network->mtu_now < IPV6_MTU_MIN)
        network->mtu_now = IPV6_MTU_MIN; /* below, a link has no IPv6 at all */
}

int network_load(struct service *service, int64_t id, struct network *ret_network,
                 struct error *error)
{
    int r = store_network_get(service->store, id, ret_network, error);

    if (r >= 0)
        network_follow_mtu(service, ret_network);
    return r;
}

int network_find(struct service *service, const char *name, struct network *ret_network,
                 struct error *error)
{
    bool found = false;
    int r = store_network_find(service->store, name, ret_network, &found, error);

    if (r < 0)
        return r;
    if (!found)
        return error_set_reason(error, REASON_NOT_FOUND,
                                "there is no network \"%s\"; see `moat net ls`", name);
    network_follow_mtu(service, ret_network);
    return 0;
}

/* --- validation of what the caller gave --- */

static int check_subnet4(const struct cidr *subnet, struct error *error)
{
    static const char *const forbidden[] = {"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16",
                                            "224.0.0.0/3"};
    char text[CIDR_TEXT_MAX];
    struct cidr masked = cidr_mask(subnet);

    if (subnet->prefix < SUBNET_PREFIX_MIN || subnet->prefix > SUBNET_PREFIX_MAX)
        return error_set_reason(error, REASON_SUBNET_INVALID,
                                "subnet %s: the prefix length must be from %d to %d",
                                cidr_format(subnet, text), SUBNET_PREFIX_MIN, SUBNET_PREFIX_MAX);
    if (cidr_has_host_bits(subnet)) {
        char right[CIDR_TEXT_MAX];

        return error_set_reason(error, REASON_SUBNET_INVALID,
                                "subnet %s has host bits set; write %s", cidr_format(subnet, text),
                                cidr_format(&masked, right));
    }
    for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
        struct cidr cidr;

        if (cidr_parse(forbidden[i], &cidr) == 0 && cidr_overlaps(&cidr, subnet))
            return error_set_reason(error, REASON_SUBNET_INVALID,
                                    "subnet %s overlaps %s, which no network can use",
                                    cidr_format(subnet, text), forbidden[i]);
    }
    return 0;
}

static int check_subnet6(const struct cidr *subnet, struct error *error)
{
    /* RFC 4291 section 2.5, RFC 6890 section 2.2.3 */
    static const struct {
        const char *cidr;
        const char *what;
    } forbidden[] = {
        {"::/96", "the unspecified and the loopback address"},
        {"::ffff:0:0/96", "IPv4 addresses as IPv6 sockets show them"},
        {"100::/64", "addresses that are thrown away"},
        {"fe80::/10", "addresses of one link"},
        {"ff00::/8", "multicast"},
    };
    char text[CIDR_TEXT_MAX];
    struct cidr masked = cidr_mask(subnet);

    if (cidr_has_host_bits(subnet)) {
        char right[CIDR_TEXT_MAX];

        return error_set_reason(error, REASON_SUBNET_INVALID,
                                "subnet %s has host bits set; write %s", cidr_format(subnet, text),
                                cidr_format(&masked, right));
    }
    if (subnet->prefix < 16 || subnet->prefix > 126)
        return error_set_reason(error, REASON_SUBNET_INVALID,
                                "subnet %s: the prefix length must be from 16 to 126",
                                cidr_format(subnet, text));
    for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
        struct cidr cidr;

        if (cidr_parse(forbidden[i].cidr, &cidr) == 0 && cidr_overlaps(&cidr, subnet))
            return error_set_reason(
                error, REASON_SUBNET_INVALID, "subnet %s overlaps %s, %s, which no network can use",
                cidr_format(subnet, text), forbidden[i].cidr, forbidden[i].what);
    }
    return 0;
}

static int check_overlap(const struct used_prefixes *used, const struct cidr *subnet,
                         struct error *error)
{
    const struct used_prefix *hit = used_prefixes_find(used, subnet);
    char text[CIDR_TEXT_MAX];

    if (!hit)
        return 0;
    return error_set_reason(
        error, REASON_SUBNET_OVERLAP,
        "subnet %s overlaps %s; give another, or leave it out and one is chosen",
        cidr_format(subnet, text), hit->text);
}

static int set_gateway(const struct cidr *subnet, const struct ip *wanted, struct ip *ret_gateway,
                       struct error *error)
{
    char gateway[IP_TEXT_MAX];
    char text[CIDR_TEXT_MAX];
    struct ip first = cidr_first(subnet);
    struct ip last = cidr_last(subnet);

    if (!ip_is_set(wanted)) {
        *ret_gateway = ip_add(&first, 1);
        return 0;
    }
    if (!cidr_contains_ip(subnet, wanted))
        return error_set_reason(error, REASON_ADDRESS_OUTSIDE, "gateway %s is not in the subnet %s",
                                ip_format(wanted, gateway), cidr_format(subnet, text));
    if (ip_equal(wanted, &first) || (subnet->ip.family == AF_INET && ip_equal(wanted, &last)))
        return error_set_reason(
            error, REASON_ADDRESS_OUTSIDE,
            "gateway %s is the network or broadcast address of %s; take one in between",
            ip_format(wanted, gateway), cidr_format(subnet, text));
    *ret_gateway = *wanted;
    return 0;
}

static bool range_has_room(const struct network *network, const struct cidr *range)
{
    const struct ip first = cidr_first(&network->subnet);
    const struct ip last = cidr_last(&network->subnet);
    unsigned size = 1u << (ip_bits(AF_INET) - range->prefix);

    /* three addresses are no guest's at most */
    for (unsigned i = 0; i < size && i < 4; i++) {
        const struct ip ip = ip_add(&range->ip, i);

        if (!ip_equal(&ip, &first) && !ip_equal(&ip, &last) && !ip_equal(&ip, &network->gateway))
            return true;
    }
    return false;
}

static int set_range(struct network *network, const struct cidr *range, struct error *error)
{
    char text[CIDR_TEXT_MAX];
    char subnet[CIDR_TEXT_MAX];

    if (!cidr_is_set(range))
        return 0;
    if (cidr_has_host_bits(range)) {
        struct cidr masked = cidr_mask(range);

        return error_set_reason(error, REASON_SUBNET_INVALID,
                                "range %s has host bits set; write %s", cidr_format(range, text),
                                cidr_format(&masked, subnet));
    }
    if (!cidr_contains(&network->subnet, range))
        return error_set_reason(error, REASON_ADDRESS_OUTSIDE, "range %s is not in the subnet %s",
                                cidr_format(range, text), cidr_format(&network->subnet, subnet));
    if (!range_has_room(network, range))
        return error_set_reason(error, REASON_SUBNET_INVALID,
                                "range %s has no address for a guest beside the gateway and the "
                                "subnet's first and last one",
                                cidr_format(range, text));
    network->ip_range = *range;
    return 0;
}

/* RFC 7042 section 2.1: locally administered; the rest is the gateway's address, so it is the same
 * after a rebuild. */
static struct mac bridge_mac(const struct network *network)
{
    const uint8_t *ip =
        ip_is_set(&network->gateway) ? network->gateway.bytes : network->gateway6.bytes + 12;
    struct mac mac = {{0x02, 0x6d, ip[0], ip[1], ip[2], ip[3]}};

    return mac;
}

void network_take_subnet(struct network *network, const struct cidr *subnet)
{
    struct ip first = cidr_first(subnet);

    network->subnet = *subnet;
    network->gateway = ip_add(&first, 1);
    network->ip_range = (struct cidr){0};
    network->mac = bridge_mac(network);
}

static int choose_bridge(struct service *service, const char *wanted, bool is_default,
                         char ret_name[IFNAMSIZ], struct error *error)
{
    if (!wanted[0])
        return link_bridge_name(service->link, is_default ? 0 : 1, ret_name, error);
    if (link_exists(service->link, wanted))
        return error_set_reason(
            error, REASON_IN_USE,
            "the host has an interface \"%s\" already; give another name with --bridge", wanted);
    snprintf(ret_name, IFNAMSIZ, "%s", wanted);
    return 0;
}

static int check_count(struct service *service, struct error *error)
{
    uint64_t count = 0;
    int r = store_network_count(service->store, &count, error);

    if (r >= 0 && count >= LIMIT_NETWORKS)
        return error_set_reason(error, REASON_QUOTA,
                                "there are %d networks, which is the limit; remove one",
                                LIMIT_NETWORKS);
    return r;
}

static bool wants_ipv6(const struct network_create_params *params)
{
    return params->ipv6 || cidr_is_set(&params->subnet6);
}

static int set_subnets(struct service *service, const struct network_create_params *params,
                       const char *preferred, unsigned prefix, struct network *network,
                       struct error *error)
{
    struct used_prefixes used = {0};
    int r = used_prefixes_collect(service, 0, &used, error);

    if (r < 0)
        return r;
    if (!params->ipv4) {
        r = 0;
    } else if (cidr_is_set(&params->subnet)) {
        network->subnet = params->subnet;
        r = check_subnet4(&network->subnet, error);
        if (r >= 0)
            r = check_overlap(&used, &network->subnet, error);
    } else {
        r = subnet_choose(service, preferred, prefix, &used, &network->subnet, error);
    }
    if (r >= 0 && cidr_is_set(&params->subnet6)) {
        network->subnet6 = params->subnet6;
        r = check_subnet6(&network->subnet6, error);
        if (r >= 0)
            r = check_overlap(&used, &network->subnet6, error);
    } else if (r >= 0 && wants_ipv6(params)) {
        r = subnet6_choose(service, params->name, &used, &network->subnet6, error);
    }
    used_prefixes_deinit(&used);
    return r;
}

static int check_families(struct service *service, const struct network_create_params *params,
                          struct error *error)
{
    if (!params->ipv4 && !wants_ipv6(params))
        return error_set_field(error, "ipv4",
                               "ipv4: a network without IPv4 needs IPv6; ask for that too");
    if (!params->ipv4 && cidr_is_set(&params->subnet))
        return error_set_field(error, "subnet", "subnet: is IPv4, and the network is to have none");
    if (!wants_ipv6(params))
        return 0;
    if (params->mtu && params->mtu < IPV6_MTU_MIN)
        return error_set_field(error, "mtu", "mtu: IPv6 needs at least %d bytes", IPV6_MTU_MIN);
    return link_ipv6_check(service->link, error);
}

static int check_options(const struct network_create_params *params, struct error *error)
{
    if (ip_is_set(&params->gateway) && !cidr_is_set(&params->subnet))
        return error_set_field(error, "gateway", "gateway: needs a subnet given too");
    if (cidr_is_set(&params->ip_range) && !cidr_is_set(&params->subnet))
        return error_set_field(error, "ip_range", "ip_range: needs a subnet given too");
    if (ip_is_set(&params->gateway6) && !cidr_is_set(&params->subnet6))
        return error_set_field(error, "gateway6", "gateway6: needs subnet6 given too");
    if (params->dns_servers.count && !params->dns)
        return error_set_field(error, "dns_servers",
                               "dns_servers: there is no name service to use them");
    for (size_t i = 0; i < params->dns_servers.count; i++) {
        if (ip_is_unspecified(&params->dns_servers.items[i]) ||
            ip_is_multicast(&params->dns_servers.items[i]))
            return error_set_field(error, "dns_servers", "dns_servers[%zu]: is no server's address",
                                   i);
    }
    return 0;
}

static int build(struct service *service, const struct network_create_params *params,
                 const char *preferred, unsigned prefix, struct network *network,
                 struct error *error)
{
    int r = check_options(params, error);

    if (r >= 0)
        r = check_families(service, params, error);
    if (r < 0)
        return r;
    snprintf(network->name, sizeof(network->name), "%s", params->name);
    id_generate(network->uid);
    network->internal = params->internal;
    network->isolated = params->isolated;
    network->host_access = params->host_access;
    network->dns = params->dns;
    network->mtu = params->mtu;
    network->created_s = (int64_t)time(NULL);
    r = set_subnets(service, params, preferred, prefix, network, error);
    if (r >= 0 && params->ipv4)
        r = set_gateway(&network->subnet, &params->gateway, &network->gateway, error);
    if (r >= 0 && cidr_is_set(&network->subnet6))
        r = set_gateway(&network->subnet6, &params->gateway6, &network->gateway6, error);
    if (r >= 0)
        r = set_range(network, &params->ip_range, error);
    if (r >= 0)
        r = choose_bridge(service, params->bridge, strcmp(params->name, DEFAULT_NETWORK) == 0,
                          network->bridge, error);
    if (r < 0)
        return r;
    network->mac = bridge_mac(network);
    network_follow_mtu(service, network);
    if (ips_copy(&params->dns_servers, &network->dns_servers) < 0 ||
        labels_copy(&params->labels, &network->labels) < 0)
        return error_set(error, ENOMEM, "network");
    return 0;
}

/* --- --ignore: is the network that exists the one that was asked for? --- */

/* Name of the first setting that differs, NULL when none does. What was not given counts as
 * content. */
static const char *find_difference(const struct network_create_params *params,
                                   const struct network *network)
{
    if (cidr_is_set(&params->subnet) && !cidr_equal(&params->subnet, &network->subnet))
        return "subnet";
    if (ip_is_set(&params->gateway) && !ip_equal(&params->gateway, &network->gateway))
        return "gateway";
    if (cidr_is_set(&params->ip_range) && !cidr_equal(&params->ip_range, &network->ip_range))
        return "ip_range";
    if (cidr_is_set(&params->subnet6) && !cidr_equal(&params->subnet6, &network->subnet6))
        return "subnet6";
    if (ip_is_set(&params->gateway6) && !ip_equal(&params->gateway6, &network->gateway6))
        return "gateway6";
    if (params->ipv4 != cidr_is_set(&network->subnet))
        return "ipv4";
    if (wants_ipv6(params) != cidr_is_set(&network->subnet6))
        return "ipv6";
    if (params->internal != network->internal)
        return "internal";
    if (params->isolated != network->isolated)
        return "isolated";
    if (params->host_access != network->host_access)
        return "host_access";
    if (params->mtu && params->mtu != network->mtu)
        return "mtu";
    if (params->bridge[0] && strcmp(params->bridge, network->bridge) != 0)
        return "bridge";
    if (params->dns != network->dns)
        return "dns";
    if (params->dns_servers.count && !ips_equal(&params->dns_servers, &network->dns_servers))
        return "dns_servers";
    if (params->labels.count && !labels_equal(&params->labels, &network->labels))
        return "labels";
    return NULL;
}

/* For an answer. */
static int show(struct service *service, struct network *network, struct error *error)
{
    int r = store_network_guests(service->store, network->id, &network->guests, error);

    network_follow_mtu(service, network);
    return r < 0 ? r : passages_show(service, network, error);
}

static int existing(struct service *service, const struct network_create_params *params,
                    struct network *network, struct error *error)
{
    const char *difference = find_difference(params, network);

    if (!params->ignore)
        return error_set_reason(
            error, REASON_EXISTS,
            "a network \"%s\" exists; give another name, or --ignore to take it as it is",
            params->name);
    if (difference)
        return error_set_reason(error, REASON_EXISTS,
                                "a network \"%s\" exists with another %s; remove it first",
                                params->name, difference);
    return show(service, network, error);
}

/* --- the methods --- */

static int insert(struct service *service, struct network *network, struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_network_insert(service->store, network, error);
    if (r >= 0)
        r = fault_point("store.commit", error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int forget(struct service *service, int64_t id, struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_network_delete(service->store, id, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

int network_create(struct service *service, const struct network_create_params *params,
                   const char *preferred, unsigned prefix, struct network *network,
                   struct error *error)
{
    struct error undo = ERROR_INIT;
    int r = check_count(service, error);

    if (r >= 0)
        r = build(service, params, preferred, prefix, network, error);
    if (r >= 0)
        r = insert(service, network, error);
    if (r < 0)
        return r;
    r = network_apply(service, network, error);
    if (r < 0) {
        if (forget(service, network->id, &undo) < 0)
            log_error("network %s stays in the store: %s", network->name, undo.text);
        hostset_forwarding_release(service, AF_INET);
        hostset_forwarding_release(service, AF_INET6);
        return r;
    }
    firewalls_follow(service);
    event_emit(service, "network.created", network->name, NULL, "%s", network->bridge);
    return 0;
}

int service_network_create(struct service *service, const struct network_create_params *params,
                           struct network *ret_network, struct error *error)
{
    struct network network = {0};
    bool found = false;
    int r = store_network_find(service->store, params->name, &network, &found, error);

    if (r >= 0 && found)
        r = existing(service, params, &network, error);
    else if (r >= 0)
        r = network_create(service, params, NULL, service->config->subnet_size, &network, error);
    if (r < 0) {
        network_deinit(&network);
        return r;
    }
    *ret_network = network;
    return 0;
}

int service_network_list(struct service *service, struct network **ret_networks, size_t *ret_count,
                         struct error *error)
{
    struct network *networks = NULL;
    size_t count = 0;
    int r = store_network_list(service->store, &networks, &count, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        r = show(service, &networks[i], error);
        yield_if_due();
    }
    if (r < 0) {
        for (size_t i = 0; i < count; i++)
            network_deinit(&networks[i]);
        free(networks);
        return r;
    }
    *ret_networks = networks;
    *ret_count = count;
    return 0;
}

int service_network_get(struct service *service, const char *name, struct network *ret_network,
                        struct error *error)
{
    struct network network = {0};
    int r = network_find(service, name, &network, error);

    if (r >= 0)
        r = show(service, &network, error);
    if (r < 0) {
        network_deinit(&network);
        return r;
    }
    *ret_network = network;
    return 0;
}

/* Passages go with either of their networks: the store forgets them with it. */
static int remove_one(struct service *service, struct network *network, struct error *error)
{
    struct nat_batch *passages = nat_batch_new(service->nat);
    struct error refused = ERROR_INIT;
    int r;

    if (!passages)
        return error_set(error, ENOMEM, "network");
    r = passages_append(service, network->id, false, passages, error);
    if (r >= 0)
        r = forget(service, network->id, error);
    if (r >= 0 && nat_batch_commit(passages, &refused) < 0) {
        log_warning("passages of network %s: %s; repairing", network->name, refused.text);
        reconcile_schedule(service);
    }
    nat_batch_free(passages);
    if (r < 0)
        return r;
    network_undo(service, network);
    firewalls_follow(service);
    event_emit(service, "network.removed", network->name, NULL, "%s", network->bridge);
    return 0;
}

int service_network_remove(struct service *service, const struct network_remove_params *params,
                           struct error *error)
{
    struct network network = {0};
    int r = service_network_get(service, params->name, &network, error);

    if (r < 0)
        return r;
    if (strcmp(params->name, DEFAULT_NETWORK) == 0)
        r = error_set_reason(error, REASON_IN_USE,
                             "the network \"%s\" always exists and can't be removed",
                             DEFAULT_NETWORK);
    else if (network.guests.count && !params->force)
        r = error_set_reason(
            error, REASON_IN_USE,
            "network \"%s\" has %zu guest%s (%s%s); detach %s first, or give --force", params->name,
            network.guests.count, network.guests.count == 1 ? "" : "s", network.guests.items[0],
            network.guests.count > 1 ? ", …" : "", network.guests.count == 1 ? "it" : "them");
    for (size_t i = 0; r >= 0 && i < network.guests.count; i++) {
        r = guest_leave(service, network.guests.items[i], params->name, error);
        yield_if_due();
    }
    if (r >= 0)
        r = remove_one(service, &network, error);
    network_deinit(&network);
    return r;
}

int service_network_prune(struct service *service, struct strings *ret_names, struct error *error)
{
    struct strings names = {0};
    struct network *networks = NULL;
    size_t count = 0;
    int r = service_network_list(service, &networks, &count, error);

    for (size_t i = 0; i < count; i++) {
        if (r >= 0 && networks[i].guests.count == 0 &&
            strcmp(networks[i].name, DEFAULT_NETWORK) != 0) {
            r = remove_one(service, &networks[i], error);
            if (r >= 0 && strings_add(&names, networks[i].name) < 0)
                r = error_set(error, ENOMEM, "network");
        }
        network_deinit(&networks[i]);
    }
    free(networks);
    if (r < 0) {
        strings_deinit(&names);
        return r;
    }
    *ret_names = names;
    return 0;
}
