/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a caller of guest.attach gave: checked whole before anything is taken. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "service/attach.h"

/* --- what the caller gave --- */

bool attach_needs_networks(const struct attach *attach)
{
    return attach->guest.mode == MODE_OUTBOUND || attach->guest.mode == MODE_FULL;
}

static int check_mode(struct attach *attach, struct error *error)
{
    const struct guest_attach_params *params = attach->params;
    const char *mode = guest_mode_name(attach->guest.mode);

    if (params->ports.count && attach->guest.mode != MODE_FULL)
        return error_set_reason(
            error, REASON_MODE_FORBIDS,
            "mode %s takes no published ports: nobody may open a connection to such a guest", mode);
    if (attach_needs_networks(attach))
        return 0;
    if (params->n_networks)
        return error_set_reason(error, REASON_MODE_FORBIDS,
                                "mode %s takes no network; leave the networks out", mode);
    if (attach->guest.kind == KIND_TAP)
        return error_set_reason(error, REASON_MODE_FORBIDS,
                                "mode %s is for namespaces, not for a tap", mode);
    return 0;
}

static int check_kind(struct attach *attach, struct error *error)
{
    const struct guest_attach_params *params = attach->params;
    unsigned sources = (params->netns != NULL) + (params->pid != 0) + params->netns_fd;

    if (attach->guest.kind == KIND_TAP && sources)
        return error_set_field(error,
                               params->netns ? "netns"
                               : params->pid ? "pid"
                                             : "netns_fd",
                               "a tap guest has no namespace; leave netns, pid and netns_fd out");
    if (attach->guest.kind == KIND_TAP)
        return 0;
    if (params->tap.given)
        return error_set_field(error, "tap", "tap: goes with kind \"tap\"");
    if (sources != 1)
        return error_set_field(error, "netns",
                               "a namespace is given by exactly one of netns, pid and netns_fd");
    if (params->netns_fd && attach->n_fds == 0)
        return error_set_field(error, "netns_fd", "netns_fd: no descriptor came with the request");
    return 0;
}

static int check_hosts(const struct strings *hosts, struct error *error)
{
    for (size_t i = 0; i < hosts->count; i++) {
        const char *colon = strchr(hosts->items[i], ':');
        char field[48];
        char name[256];
        struct ip ip;

        snprintf(field, sizeof(field), "hosts[%zu]", i);
        if (!colon || (size_t)(colon - hosts->items[i]) >= sizeof(name))
            return error_set_field(error, field, "%s: \"%.80s\" is not NAME:IP", field,
                                   hosts->items[i]);
        snprintf(name, sizeof(name), "%.*s", (int)(colon - hosts->items[i]), hosts->items[i]);
        if (!name_is_dns(name) || ip_parse(colon + 1, &ip) < 0)
            return error_set_field(error, field, "%s: \"%.80s\" is not NAME:IP", field,
                                   hosts->items[i]);
    }
    return 0;
}

static int check_search(const struct strings *search, struct error *error)
{
    for (size_t i = 0; i < search->count; i++) {
        char field[48];

        snprintf(field, sizeof(field), "dns_search[%zu]", i);
        if (!name_is_dns(search->items[i]))
            return error_set_field(error, field, "%s: \"%.80s\" is not a DNS name", field,
                                   search->items[i]);
    }
    return 0;
}

static int check_dns(const struct ips *dns, struct error *error)
{
    for (size_t i = 0; i < dns->count; i++) {
        char field[48];

        snprintf(field, sizeof(field), "dns[%zu]", i);
        if (ip_is_unspecified(&dns->items[i]) || ip_is_multicast(&dns->items[i]))
            return error_set_field(error, field, "%s: is no server's address", field);
    }
    return 0;
}

static int check_quota(struct attach *attach, struct error *error)
{
    uint64_t guests = 0;
    uint64_t ports = 0;
    int r = store_guest_count(attach->service->store, &guests, &ports, error);

    if (r >= 0 && guests >= LIMIT_GUESTS)
        return error_set_reason(error, REASON_QUOTA,
                                "there are %llu guests, which is the limit; detach one",
                                (unsigned long long)guests);
    return r;
}

int attach_copy_settings(struct attach *attach, struct error *error)
{
    struct guest_attach_params *params = attach->params;
    struct guest *guest = &attach->guest;
    int r;

    snprintf(guest->name, sizeof(guest->name), "%s", params->name);
    id_generate(guest->uid);
    guest->kind = params->kind;
    guest->mode = params->has_mode ? params->mode : MODE_FULL;
    guest->ephemeral = params->ephemeral;
    guest->dns_inject = params->dns_inject;
    if (guest->ephemeral) {
        guest->owner_pid = attach->peer->pid;
        guest->owner_start = attach->peer->pid_start;
    }
    guest->owner_uid = attach->peer->uid;
    guest->created_s = (int64_t)time(NULL);
    guest->tap_owner = params->tap.owner;
    guest->tap_group = params->tap.group;
    /* A tap without owner and group could be opened by everybody who may open /dev/net/tun. */
    if (guest->kind == KIND_TAP && guest->tap_owner < 0 && guest->tap_group < 0)
        guest->tap_owner = attach->peer->uid;
    guest->tap_multi_queue = params->tap.multi_queue;
    guest->tap_vnet_hdr = params->tap.vnet_hdr;
    if (params->netns && !(guest->netns = strdup(params->netns)))
        return error_set(error, ENOMEM, "guest");
    if (strings_copy(&params->hosts, &guest->hosts) < 0 ||
        ips_copy(&params->dns, &guest->dns) < 0 ||
        strings_copy(&params->dns_search, &guest->dns_search) < 0 ||
        labels_copy(&params->labels, &guest->labels) < 0)
        return error_set(error, ENOMEM, "guest");
    guest->limits = params->limits;
    r = limits_check(&params->limits, "limits.", error);
    if (r >= 0)
        r = policy_accept(&params->policy, "policy.", &guest->policy, error);
    return r < 0 ? r : domain_check(attach->service, &guest->policy, "policy.", error);
}

int attach_check_settings(struct attach *attach, struct error *error)
{
    const struct guest_attach_params *params = attach->params;
    bool found = false;
    struct guest other = {0};
    int r = record_name_check_free(params->name, "name", error);

    if (r >= 0)
        r = check_kind(attach, error);
    if (r >= 0)
        r = check_mode(attach, error);
    if (r >= 0)
        r = check_hosts(&params->hosts, error);
    if (r >= 0)
        r = check_search(&params->dns_search, error);
    if (r >= 0)
        r = check_dns(&params->dns, error);
    if (r >= 0)
        r = check_quota(attach, error);
    if (r >= 0)
        r = store_guest_find(attach->service->store, params->name, &other, &found, error);
    guest_deinit(&other);
    if (r >= 0 && found)
        return error_set_reason(error, REASON_EXISTS,
                                "a guest \"%s\" exists; give another name or detach it first",
                                params->name);
    return r;
}

/* --- the namespace --- */

/* Another user than root may attach only namespaces of user namespaces that are its own. */
static int check_permission(const struct attach *attach, int netns_fd, struct error *error)
{
    uint32_t owner = 0;
    int r;

    if (attach->peer->uid == 0 || attach->peer->uid == geteuid())
        return 0;
    r = netns_owner(netns_fd, &owner, error);
    if (r < 0)
        return r;
    if (owner == attach->peer->uid)
        return 0;
    return error_set_reason(
        error, REASON_PERMISSION_DENIED,
        "the namespace belongs to user %u, not to you (%u); ask as its owner or as root", owner,
        attach->peer->uid);
}

/* A namespace is one guest's, and never the host's own. */
static int check_identity(struct attach *attach, struct error *error)
{
    const struct service *service = attach->service;

    if (service->netns_dev == attach->guest.netns_dev &&
        service->netns_ino == attach->guest.netns_ino)
        return error_set_reason(error, REASON_IN_USE,
                                "that is the host's own network namespace; give the guest's");
    return netns_check_free(attach->service, &attach->guest, error);
}

/* A process number means something in the caller's process namespace only: from another one, as
 * inside a guest of `moat run`, it would be a stranger's here. */
static int check_pid_namespace(const struct attach *attach, struct error *error)
{
    char path[40];
    struct stat ours;
    struct stat callers;

    snprintf(path, sizeof(path), "/proc/%d/ns/pid", attach->peer->pid);
    if (attach->peer->pid > 0 && stat("/proc/self/ns/pid", &ours) == 0 &&
        stat(path, &callers) == 0 && ours.st_ino == callers.st_ino && ours.st_dev == callers.st_dev)
        return 0;
    return error_set_reason(error, REASON_NOT_SUPPORTED,
                            "process %u is not looked for: the caller is in another process "
                            "namespace than moatd (inside a container?); give the network "
                            "namespace by path or descriptor, or call from the host",
                            attach->params->pid);
}

int attach_open_namespace(struct attach *attach, struct error *error)
{
    const struct guest_attach_params *params = attach->params;
    struct guest *guest = &attach->guest;
    int fd = -1;
    int r;

    if (guest->kind == KIND_TAP)
        return 0;
    if (params->netns_fd) {
        fd = dup(attach->fds[0]);
        r = fd < 0 ? error_set(error, errno, "dup") : netns_check(fd, error);
    } else if (params->pid) {
        guest->pid = (int32_t)params->pid;
        r = check_pid_namespace(attach, error);
        if (r >= 0)
            r = netns_open_pid(guest->pid, &fd, &guest->pid_start, error);
    } else {
        r = netns_open_path(params->netns, &fd, error);
    }
    attach->plan.netns_fd = fd;
    if (r >= 0)
        r = netns_identify(fd, &guest->netns_dev, &guest->netns_ino, error);
    if (r >= 0)
        netns_handle_get(fd, guest->netns_handle);
    if (r >= 0)
        r = check_permission(attach, fd, error);
    if (r >= 0)
        r = check_identity(attach, error);
    return r;
}

/* --- networks and endpoints --- */

static int check_mac(struct attach *attach, const struct network *network, const struct mac *mac,
                     const char *field, struct error *error)
{
    char holder[NAME_MAX_LENGTH + 1];
    char text[MAC_TEXT_MAX];
    bool found = false;
    int r;

    if (!mac_is_set(mac))
        return 0;
    if (mac->bytes[0] & 1)
        return error_set_field(error, field, "%s: %s is a multicast address", field,
                               mac_format(mac, text));
    if (mac_equal(mac, &network->mac))
        return error_set_reason(error, REASON_ADDRESS_IN_USE,
                                "MAC %s is the bridge's own on network \"%s\"",
                                mac_format(mac, text), network->name);
    r = store_mac_find(attach->service->store, 0, mac, holder, &found, error);
    if (r >= 0 && found)
        return error_set_reason(error, REASON_ADDRESS_IN_USE, "MAC %s is guest \"%s\"'s",
                                mac_format(mac, text), holder);
    if (r >= 0)
        r = link_mac_find(attach->service->link, mac, holder, &found, error);
    if (r >= 0 && found)
        return error_set_reason(error, REASON_ADDRESS_IN_USE,
                                "MAC %s is that of the host's interface %s", mac_format(mac, text),
                                holder);
    return r;
}

static int check_aliases(const struct strings *aliases, size_t index, struct error *error)
{
    for (size_t i = 0; i < aliases->count; i++) {
        char field[48];

        snprintf(field, sizeof(field), "networks[%zu].aliases[%zu]", index, i);
        if (!name_is_dns(aliases->items[i]) || strlen(aliases->items[i]) > NAME_MAX_LENGTH)
            return error_set_field(error, field,
                                   "%s: \"%.80s\" is not a name of up to 63 characters", field,
                                   aliases->items[i]);
        if (record_name_check_free(aliases->items[i], field, error) < 0)
            return -EINVAL;
    }
    return 0;
}

static int check_network(struct attach *attach, const struct attach_network *wanted,
                         const struct network *network, size_t index, struct error *error)
{
    char field[48];
    int r;

    for (size_t i = 0; i < index; i++) {
        if (strcmp(attach->guest.endpoints[i].network, wanted->name) == 0) {
            snprintf(field, sizeof(field), "networks[%zu].name",
                     index - attach->plan.first_endpoint);
            if (i < attach->plan.first_endpoint)
                return error_set_reason(error, REASON_EXISTS,
                                        "guest \"%s\" is on network \"%s\" already",
                                        attach->guest.name, wanted->name);
            return error_set_field(error, field, "%s: network \"%s\" is given twice", field,
                                   wanted->name);
        }
    }
    snprintf(field, sizeof(field), "networks[%zu].ip6", index);
    if (ip_is_set(&wanted->ip6) && !cidr_is_set(&network->subnet6))
        return error_set_reason(error, REASON_ADDRESS_OUTSIDE, "network \"%s\" has no IPv6",
                                network->name);
    if (ip_is_set(&wanted->ip) && !cidr_is_set(&network->subnet))
        return error_set_reason(error, REASON_ADDRESS_OUTSIDE, "network \"%s\" has no IPv4",
                                network->name);
    snprintf(field, sizeof(field), "networks[%zu].mac", index);
    for (size_t i = 0; mac_is_set(&wanted->mac) && i < index; i++) {
        if (mac_equal(&wanted->mac, &attach->guest.endpoints[i].mac))
            return error_set_field(error, field, "%s: is given twice", field);
    }
    r = check_mac(attach, network, &wanted->mac, field, error);
    return r < 0 ? r : check_aliases(&wanted->aliases, index, error);
}

/* eth0, eth1, … in order; in a namespace where somebody else has such names, the next ones. */
static void choose_interface(const struct attach *attach, struct endpoint *endpoint, bool first)
{
    unsigned number = endpoint->position % 1000;
    unsigned last;

    if (!first && sscanf(endpoint[-1].interface, "eth%3u", &last) == 1 && last >= number)
        number = last + 1;
    while (number < LINK_GUEST_NUMBERS && attach->taken >> number & 1)
        number++;
    snprintf(endpoint->interface, sizeof(endpoint->interface), "eth%u", number);
}

static int add_endpoint(struct attach *attach, const struct attach_network *wanted,
                        struct error *error)
{
    size_t index = attach->guest.n_endpoints;
    struct endpoint *endpoint = &attach->guest.endpoints[index];
    struct network *network = &attach->plan.networks[index];
    int r = network_find(attach->service, wanted->name, network, error);

    if (r < 0)
        return r;
    attach->guest.n_endpoints++; /* from here on deinit knows it */
    *endpoint = (struct endpoint){
        .network_id = network->id,
        .position = index ? endpoint[-1].position + 1 : 0,
        .ip = wanted->ip,
        .prefix = network->subnet.prefix,
        .ip6 = wanted->ip6,
        .prefix6 = network->subnet6.prefix,
        .gateway = ip_is_set(&network->gateway) ? network->gateway : network->gateway6,
        .mac = wanted->mac,
    };
    snprintf(endpoint->network, sizeof(endpoint->network), "%s", network->name);
    if (attach->guest.kind == KIND_NETNS)
        choose_interface(attach, endpoint, index == 0);
    else if (index == 0 && attach->params->tap.name[0])
        snprintf(endpoint->host_interface, sizeof(endpoint->host_interface), "%s",
                 attach->params->tap.name);
    if (strings_copy(&wanted->aliases, &endpoint->aliases) < 0)
        return error_set(error, ENOMEM, "guest");
    r = check_network(attach, wanted, network, index, error);
    return r < 0 ? r
                 : policy_choose_port(attach->service, &attach->guest, network, false,
                                      &endpoint->routed, error);
}

int attach_add_endpoints(struct attach *attach, struct error *error)
{
    static const struct attach_network fallback = {.name = DEFAULT_NETWORK};
    const struct guest_attach_params *params = attach->params;
    size_t count = params->n_networks;
    size_t have = attach->guest.n_endpoints;
    struct endpoint *endpoints;
    struct network *networks;

    if (count == 0 && attach_needs_networks(attach) && have == 0)
        count = 1;
    if (have + count > LIMIT_ENDPOINTS)
        return error_set_reason(error, REASON_QUOTA, "a guest has at most %d networks",
                                LIMIT_ENDPOINTS);
    endpoints = reallocarray(attach->guest.endpoints, have + count + 1, sizeof(*endpoints));
    if (!endpoints)
        return error_set(error, ENOMEM, "guest");
    attach->guest.endpoints = endpoints;
    networks = reallocarray(attach->plan.networks, have + count + 1, sizeof(*networks));
    if (!networks)
        return error_set(error, ENOMEM, "guest");
    attach->plan.networks = networks;
    for (size_t i = 0; i < count; i++) {
        int r;

        networks[have + i] = (struct network){0};
        endpoints[have + i] = (struct endpoint){0};
        r = add_endpoint(attach, params->n_networks ? &params->networks[i] : &fallback, error);
        if (r < 0)
            return r;
    }
    return 0;
}

int attach_check_tap_name(struct attach *attach, struct error *error)
{
    const char *name = attach->params->tap.name;

    if (!name[0] || !link_exists(attach->service->link, name))
        return 0;
    return error_set_reason(error, REASON_IN_USE,
                            "the host has an interface \"%s\" already; give another name", name);
}
