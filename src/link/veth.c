/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A veth pair is made where it stays: the host's end here, in its bridge and up, the guest's end in
 * its namespace, by one RTM_NEWLINK. (Moving an end into a namespace waits for an RCU grace period,
 * 19 ms.) It carries our group from that instant on.
 *
 * We choose both indexes, so that the messages that follow need not ask for them; veth honours the
 * peer's only if the link's own is given too. An index that is taken (EBUSY) is a reason to try the
 * next one.
 *
 * Nothing stands in the same sendmsg behind the RTM_NEWLINK: if that fails, the index may belong to
 * somebody else's link. The guest's end comes up last, after the host's side is complete. */
#include <errno.h>
#include <fcntl.h>
#include <linux/ip.h>
#include <linux/veth.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "handle.h"
#include "netns.h"
#include "ready.h"

#define INDEX_TRIES 64
#define LOOPBACK_INDEX 1

struct pair {
    uint32_t index;      /* of the host's end, in the host's namespace */
    uint32_t peer_index; /* of the guest's end, in the guest's */
    uint32_t bridge_index;
};

/* ------------------------------------------------------------------------------- the pair */
static void put_peer(struct nlmsghdr *message, const struct link_endpoint *endpoint,
                     const struct pair *pair)
{
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);

    mnl_attr_put_str(message, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
    struct nlattr *peer = mnl_attr_nest_start(message, VETH_INFO_PEER);
    struct ifinfomsg *header = mnl_nlmsg_put_extra_header(message, sizeof(*header));
    header->ifi_index = (int)pair->peer_index;
    mnl_attr_put_strz(message, IFLA_IFNAME, endpoint->peer_name);
    mnl_attr_put_u32(message, IFLA_MTU, endpoint->mtu);
    message_put_mac(message, &endpoint->mac);
    mnl_attr_put_u32(message, IFLA_NET_NS_FD, (uint32_t)endpoint->netns_fd);
    mnl_attr_nest_end(message, peer);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, info);
}

static int pair_make(struct link *link, const struct link_endpoint *endpoint,
                     const struct pair *pair, struct netlink_failure *ret_failure)
{
    struct request request;

    request_init(&request);
    struct nlmsghdr *message =
        request_link(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, pair->index, "create");
    message_set_up(message, true);
    mnl_attr_put_strz(message, IFLA_IFNAME, endpoint->host_name);
    mnl_attr_put_u32(message, IFLA_MTU, endpoint->mtu);
    mnl_attr_put_u32(message, IFLA_GROUP, endpoint->group);
    message_put_mac(message, &endpoint->bridge_mac);
    if (!endpoint->routed)
        mnl_attr_put_u32(message, IFLA_MASTER, pair->bridge_index);
    put_peer(message, endpoint, pair);
    return netlink_send(&link->host, &request, ret_failure);
}

/* eth0 is 2, as in a namespace in which the kernel numbers: loopback is 1. */
static uint32_t peer_index_first(struct link *link, const char *name)
{
    unsigned number;
    char rest;

    if (sscanf(name, "eth%3u%c", &number, &rest) == 1)
        return number + 2;
    return link_index_next(link);
}

static int pair_refused(struct link *link, const struct link_endpoint *endpoint, int r,
                        const struct netlink_failure *failure, struct error *error)
{
    if (r == -EEXIST)
        return endpoint_name_taken(link, endpoint, error);
    if (r == -EXFULL)
        return error_set_reason(error, REASON_QUOTA, "the bridge %s is full: it takes 1023 ports",
                                endpoint->bridge);
    return error_set_kernel(error, r, failure->extack, "cannot create the link %s",
                            endpoint->host_name);
}

/* The answer may have been lost, not the request: a link of that index, name and group is what we
 * asked for. */
static void pair_forsake(struct link *link, const struct link_endpoint *endpoint,
                         const struct pair *pair)
{
    struct link_state state;

    if (link_get(&link->host, pair->index, NULL, &state) == 0 &&
        state.info.group == endpoint->group && strcmp(state.info.name, endpoint->host_name) == 0)
        endpoint_undo(link, endpoint, pair->index);
}

static bool index_is_taken(struct link *link, const struct link_endpoint *endpoint, uint32_t index)
{
    struct link_state state;

    return link_get(&link->host, index, NULL, &state) == 0 &&
           strcmp(state.info.name, endpoint->host_name) != 0;
}

/* A name that is taken may be that of a link which is just being deleted, on the host or in the
 * guest: then waiting for that helps. */
static int pair_create(struct link *link, const struct link_endpoint *endpoint, struct pair *pair,
                       struct error *error)
{
    struct netlink_failure failure = {0};
    bool waited = false;
    int r = -EBUSY;

    pair->peer_index = peer_index_first(link, endpoint->peer_name);
    for (unsigned try = 0; try < INDEX_TRIES; try++) {
        pair->index = link_index_next(link);
        r = pair_make(link, endpoint, pair, &failure);
        if (r == -EEXIST && index_is_taken(link, endpoint, pair->index))
            r = -EBUSY;
        else if (r == -EBUSY && try > 0)
            pair->peer_index = link_index_next(link);
        else if ((r == -EEXIST || r == -EXFULL) && !waited)
            link_reaper_wait(link);
        else if (r != -EBUSY)
            break;
        waited = waited || r == -EEXIST || r == -EXFULL;
    }
    if (r == 0)
        return 0;
    if (r != -EEXIST)
        pair_forsake(link, endpoint, pair);
    return pair_refused(link, endpoint, r, &failure, error);
}

/* ------------------------------------------------------------------------------- the guest */
/* The IPv6 router is fe80::1 on every link. */
static const struct ip guest_router = {.family = AF_INET6, .bytes = {0xfe, 0x80, [15] = 1}};

static void request_default_route(struct request *request, uint32_t index, const struct ip *via,
                                  uint16_t flag)
{
    struct route route = {.to = {.ip = {.family = via->family}}, .via = *via, .index = index};

    request_route(request, RTM_NEWROUTE, (uint16_t)(NLM_F_CREATE | flag), &route,
                  "set the default route of");
}

/* Leads the way to the internet over a default route that is not ours? An address that nobody has
 * (RFC 5737, RFC 3849) is looked up; there is no error: no answer is no route. */
static bool default_is_foreign(struct netlink *guest, uint8_t family)
{
    static const uint8_t far4[4] = {203, 0, 113, 1}, far6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
    struct netlink_reply reply;
    const struct nlmsghdr *message;
    const struct rtmsg *answer;
    struct request request;
    void *extra;

    request_init(&request);
    struct nlmsghdr *question =
        request_add(&request, RTM_GETROUTE, 0, sizeof(struct rtmsg), &extra, "find the route of");
    struct rtmsg *header = extra;
    header->rtm_family = family;
    header->rtm_dst_len = (uint8_t)ip_bits(family);
    header->rtm_flags = RTM_F_FIB_MATCH;
    mnl_attr_put(question, RTA_DST, ip_bits(family) / 8, family == AF_INET ? far4 : far6);
    if (netlink_get(guest, &request, &reply, &message) < 0 || message->nlmsg_type != RTM_NEWROUTE)
        return false;
    answer = mnl_nlmsg_get_payload(message);
    return answer->rtm_dst_len == 0 && answer->rtm_type == RTN_UNICAST &&
           answer->rtm_protocol != LINK_ROUTE_PROTOCOL;
}

static void request_guest_ipv4(struct request *request, const struct link_endpoint *endpoint,
                               uint32_t index)
{
    struct cidr address = {.ip = endpoint->ip, .prefix = endpoint->prefix};

    if (ip_is_set(&endpoint->ip))
        request_address_add(request, index, &address, 0);
}

/* As the kernel would form it (RFC 4291 appendix A), but usable at once. */
static struct cidr link_local_of(const struct mac *mac)
{
    const uint8_t *bytes = mac->bytes;

    return (struct cidr){.ip = {.family = AF_INET6,
                                .bytes = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, bytes[0] ^ 2, bytes[1],
                                          bytes[2], 0xff, 0xfe, bytes[3], bytes[4], bytes[5]}},
                         .prefix = 64};
}

/* A routed guest finds nobody else on its link, so its subnet
 * leads there too instead of being on the link. */
static void request_guest_ipv6(struct request *request, const struct link_endpoint *endpoint,
                               uint32_t index)
{
    struct cidr address = {.ip = endpoint->ip6, .prefix = endpoint->prefix6};
    struct cidr link_local = link_local_of(&endpoint->mac);
    struct route subnet = {.to = address, .via = guest_router, .index = index};

    if (!ip_is_set(&endpoint->ip6))
        return;
    if (mac_is_set(&endpoint->mac))
        request_address_add(request, index, &link_local, 0);
    request_address_add(request, index, &address, endpoint->routed ? REQUEST_ADDRESS_NO_ROUTE : 0);
    if (endpoint->routed && endpoint->prefix6 < 128)
        request_route(request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &subnet,
                      "set the IPv6 route of");
}

static int guest_refused(const struct link_endpoint *endpoint, int r,
                         const struct netlink_failure *failure, struct error *error)
{
    return error_set_kernel(error, r, failure->extack, "cannot %s %s in the guest", failure->what,
                            endpoint->peer_name);
}

/* A route that is there already and is not a foreign one is that of a link which is just being
 * deleted: waiting for that helps. */
static int guest_set_default(struct link *link, const struct link_endpoint *endpoint,
                             const struct pair *pair, const struct ip *via, struct netlink *guest,
                             struct error *error)
{
    struct netlink_failure failure;
    struct request request;
    int r = -EEXIST;

    for (unsigned try = 0; try < 2 && r == -EEXIST; try++) {
        if (try > 0)
            link_reaper_wait(link);
        request_init(&request);
        request_default_route(&request, pair->peer_index, via, NLM_F_EXCL);
        r = netlink_send(guest, &request, &failure);
    }
    return r < 0 ? guest_refused(endpoint, r, &failure, error) : 0;
}

/* Other runtimes switch IPv6 off in what they make; on our own link it is wanted. */
static int guest_allow_ipv6(const struct link *link, const struct link_endpoint *endpoint,
                            struct error *error)
{
    char key[64];

    snprintf(key, sizeof(key), "net.ipv6.conf.%s.disable_ipv6", endpoint->peer_name);
    return netns_sysctl_set(endpoint->netns_fd, link->home_fd, key, "0", error);
}

static void request_guest(struct link *link, struct request *request,
                          const struct link_endpoint *endpoint, const struct pair *pair)
{
    request_init(request);
    request_up(request, LOOPBACK_INDEX, true, "bring up the loopback beside");
    if (link_has_ipv6(link, endpoint->mtu) &&
        (!ip_is_set(&endpoint->ip6) || mac_is_set(&endpoint->mac)))
        message_put_settings(request_link(request, RTM_SETLINK, 0, pair->peer_index,
                                          "turn IPv6 autoconfiguration off on"),
                             NULL, 0, true);
    request_guest_ipv4(request, endpoint, pair->peer_index);
    request_up(request, pair->peer_index, true, "bring up");
    request_guest_ipv6(request, endpoint, pair->peer_index);
}

static int guest_set_up(struct link *link, const struct link_endpoint *endpoint,
                        const struct pair *pair, struct netlink *guest, struct error *error)
{
    struct netlink_failure failure;
    struct request request;

    request_guest(link, &request, endpoint, pair);
    int r = netlink_send(guest, &request, &failure);
    if (r == -EACCES && ip_is_set(&endpoint->ip6)) {
        r = guest_allow_ipv6(link, endpoint, error);
        if (r < 0)
            return r;
        request_guest(link, &request, endpoint, pair);
        r = netlink_send(guest, &request, &failure);
    }
    if (r < 0)
        return guest_refused(endpoint, r, &failure, error);
    if (ip_is_set(&endpoint->gateway))
        r = guest_set_default(link, endpoint, pair, &endpoint->gateway, guest, error);
    if (r == 0 && ip_is_set(&endpoint->gateway6))
        r = guest_set_default(link, endpoint, pair, &guest_router, guest, error);
    return r;
}

/* A namespace that somebody else has given a default route keeps it. */
static void leave_foreign_routes(struct netlink *guest, struct link_endpoint *inside)
{
    if (ip_is_set(&inside->gateway) && default_is_foreign(guest, AF_INET))
        inside->gateway = (struct ip){0};
    if (ip_is_set(&inside->gateway6) && default_is_foreign(guest, AF_INET6))
        inside->gateway6 = (struct ip){0};
}

/* The first packet in either direction arrives. */
static void guest_await(struct link *link, const struct link_endpoint *endpoint,
                        const struct pair *pair, struct netlink *guest)
{
    const struct ip addresses[] = {endpoint->ip6, link_local_of(&endpoint->mac).ip};

    ready_await_carrier(&link->host, pair->index);
    if (!ip_is_set(&endpoint->ip6))
        return;
    ready_await_groups(guest, pair->peer_index, addresses, mac_is_set(&endpoint->mac) ? 2 : 1);
    if (endpoint->routed)
        ready_await_groups(&link->host, pair->index, &guest_router, 1);
}

static int guest_finish(struct link *link, const struct link_endpoint *endpoint,
                        const struct pair *pair, struct error *error)
{
    struct netlink guest = NETLINK_INIT;
    struct link_endpoint inside = *endpoint;

    int r = endpoint_settle(link, endpoint, pair->index, pair->bridge_index, error);
    if (r == 0)
        r = fault_point("link.guest", error);
    if (r == 0)
        r = netlink_open_in(endpoint->netns_fd, link->home_fd, &guest, error);
    if (r == 0) {
        leave_foreign_routes(&guest, &inside);
        r = guest_set_up(link, &inside, pair, &guest, error);
    }
    if (r == 0)
        guest_await(link, endpoint, pair, &guest);
    netlink_close(&guest);
    return r;
}

/* ------------------------------------------------------------------------------- public */
static int guest_check(const struct link *link, const struct link_endpoint *endpoint,
                       struct error *error)
{
    struct stat status;

    if (fstat(endpoint->netns_fd, &status) < 0)
        return error_set(error, errno, "cannot look at the guest's network namespace");
    if (status.st_dev == link->home_dev && status.st_ino == link->home_ino)
        return error_set_field(error, "netns", "this is the host's own network namespace");
    return 0;
}

int link_veth_create(struct link *link, const struct link_endpoint *endpoint, struct error *error)
{
    struct pair pair;

    int r = guest_check(link, endpoint, error);
    if (r == 0)
        r = endpoint_bridge_index(link, endpoint, &pair.bridge_index, error);
    if (r == 0)
        r = fault_point("link.veth", error);
    if (r == 0)
        r = pair_create(link, endpoint, &pair, error);
    if (r < 0)
        return r;
    r = guest_finish(link, endpoint, &pair, error);
    if (r < 0)
        endpoint_undo(link, endpoint, pair.index);
    return r;
}

/* ------------------------------------------------------------------------------- inside */
/* Runs a request inside a namespace. */
static int guest_run(int netns_fd, struct request *request, const char *object, struct error *error)
{
    struct netlink guest = NETLINK_INIT;
    _cleanup_close_ int home_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (home_fd < 0)
        return error_set(error, errno, "cannot open the host's network namespace");
    int r = netlink_open_in(netns_fd, home_fd, &guest, error);
    if (r == 0)
        r = netlink_commit(&guest, request, object, error);
    netlink_close(&guest);
    return r;
}

int link_loopback_set(int netns_fd, bool up, struct error *error)
{
    struct request request;

    request_init(&request);
    request_up(&request, LOOPBACK_INDEX, up, up ? "bring up" : "take down");
    return guest_run(netns_fd, &request, "the loopback of the guest", error);
}

int link_guest_set_mtu(int netns_fd, const char *interface, uint32_t mtu, struct error *error)
{
    struct request request;

    request_init(&request);
    struct nlmsghdr *message =
        request_link(&request, RTM_SETLINK, 0, 0, "set the MTU of the guest's");
    mnl_attr_put_strz(message, IFLA_IFNAME, interface);
    mnl_attr_put_u32(message, IFLA_MTU, mtu);
    return guest_run(netns_fd, &request, interface, error);
}

int link_set_route_localnet(int netns_fd, const char *interface, bool on, struct error *error)
{
    struct ipv4_setting setting = {IPV4_DEVCONF_ROUTE_LOCALNET, on};
    struct request request;

    request_init(&request);
    struct nlmsghdr *message =
        request_link(&request, RTM_SETLINK, 0, 0, "set route_localnet of the guest's");
    mnl_attr_put_strz(message, IFLA_IFNAME, interface);
    message_put_settings(message, &setting, 1, false);
    return guest_run(netns_fd, &request, interface, error);
}

static int default_replace(struct netlink *guest, uint32_t index, const struct ip *via,
                           const char *interface, struct error *error)
{
    struct request request;

    if (default_is_foreign(guest, via->family))
        return 0;
    request_init(&request);
    request_default_route(&request, index, via, NLM_F_REPLACE);
    return netlink_commit(guest, &request, interface, error);
}

static int link_take(const struct nlmsghdr *message, void *userdata)
{
    const struct nlattr *table[IFLA_MAX + 1];
    uint64_t *taken = userdata;
    unsigned number;
    char rest;

    if (!message) {
        *taken = 0;
        return 0;
    }
    netlink_parse_message(message, sizeof(struct ifinfomsg), table, IFLA_MAX);
    if (table[IFLA_IFNAME] &&
        sscanf(mnl_attr_get_str(table[IFLA_IFNAME]), "eth%2u%c", &number, &rest) == 1 &&
        number < LINK_GUEST_NUMBERS)
        *taken |= UINT64_C(1) << number;
    return 0;
}

int link_guest_numbers(int netns_fd, uint64_t *ret_taken, struct error *error)
{
    struct netlink guest = NETLINK_INIT;
    _cleanup_close_ int home_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    struct request request;
    uint64_t taken = 0;
    void *extra;

    if (home_fd < 0)
        return error_set(error, errno, "cannot open the host's network namespace");
    int r = netlink_open_in(netns_fd, home_fd, &guest, error);
    if (r == 0) {
        request_init(&request);
        request_add(&request, RTM_GETLINK, 0, sizeof(struct ifinfomsg), &extra, "read links of");
        r = netlink_dump(&guest, &request, link_take, &taken);
        if (r == 0)
            *ret_taken = taken;
        else
            error_set_kernel(error, r, NULL, "cannot look at the links of the guest");
    }
    netlink_close(&guest);
    return r;
}

int link_default_route_set(int netns_fd, const char *interface, const struct ip *gateway,
                           const struct ip *gateway6, struct error *error)
{
    struct netlink guest = NETLINK_INIT;
    struct link_state state;
    _cleanup_close_ int home_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (home_fd < 0)
        return error_set(error, errno, "cannot open the host's network namespace");
    int r = netlink_open_in(netns_fd, home_fd, &guest, error);
    if (r == 0) {
        r = link_get(&guest, 0, interface, &state);
        if (r < 0)
            error_set_kernel(error, -r, NULL, "cannot look at %s of the guest", interface);
    }
    if (r == 0 && ip_is_set(gateway))
        r = default_replace(&guest, state.info.index, gateway, interface, error);
    if (r == 0 && ip_is_set(gateway6))
        r = default_replace(&guest, state.info.index, &guest_router, interface, error);
    netlink_close(&guest);
    return r;
}

/* The subnet on the link, or behind the router on it. The address stays. */
static void request_guest_subnet6(struct request *request, const struct link_endpoint *endpoint,
                                  uint32_t index)
{
    struct cidr address = {.ip = endpoint->ip6, .prefix = endpoint->prefix6};
    struct route subnet = {.to = address, .via = guest_router, .index = index};

    if (endpoint->routed)
        request_route(request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &subnet,
                      "set the IPv6 route of");
    request_address_add(request, index, &address, endpoint->routed ? REQUEST_ADDRESS_NO_ROUTE : 0);
    if (!endpoint->routed) {
        request_route(request, RTM_DELROUTE, 0, &subnet, "remove the IPv6 route of");
        request_tolerate(request, ESRCH);
    }
}

int guest_follow_port(const struct link *link, const struct link_endpoint *endpoint,
                      struct error *error)
{
    struct netlink guest = NETLINK_INIT;
    struct link_state state;
    struct request request;

    if (endpoint->netns_fd < 0 || !ip_is_set(&endpoint->ip6) || endpoint->prefix6 >= 128)
        return 0;
    int r = netlink_open_in(endpoint->netns_fd, link->home_fd, &guest, error);
    if (r == 0) {
        r = link_get(&guest, 0, endpoint->peer_name, &state);
        if (r < 0)
            error_set_kernel(error, r, NULL, "cannot look at %s of the guest", endpoint->peer_name);
    }
    if (r == 0) {
        request_init(&request);
        request_guest_subnet6(&request, endpoint, state.info.index);
        r = netlink_commit(&guest, &request, endpoint->peer_name, error);
    }
    netlink_close(&guest);
    return r;
}

struct wanted_address {
    struct ip ip;
    uint32_t index;
    bool found;
};

static int address_take(const struct nlmsghdr *message, void *userdata)
{
    const struct nlattr *table[IFA_MAX + 1];
    struct wanted_address *wanted = userdata;
    const struct ifaddrmsg *header;

    if (!message) {
        wanted->found = false;
        return 0;
    }
    header = mnl_nlmsg_get_payload(message);
    netlink_parse_message(message, sizeof(*header), table, IFA_MAX);
    struct ip ip = attribute_ip(header->ifa_family, table[IFA_ADDRESS]);
    if (header->ifa_index == wanted->index && ip_equal(&ip, &wanted->ip))
        wanted->found = true;
    return 0;
}

static int guest_has_address(struct netlink *guest, const struct link_endpoint *endpoint,
                             bool *ret_has)
{
    struct wanted_address wanted = {.ip = ip_is_set(&endpoint->ip) ? endpoint->ip : endpoint->ip6};
    struct link_state state;
    struct request request;
    void *extra;

    int r = link_get(guest, 0, endpoint->peer_name, &state);
    if (r == -ENODEV) {
        *ret_has = false;
        return 0;
    }
    if (r < 0)
        return r;
    wanted.index = state.info.index;
    request_init(&request);
    request_add(&request, RTM_GETADDR, 0, sizeof(struct ifaddrmsg), &extra, "read addresses of");
    ((struct ifaddrmsg *)extra)->ifa_family = wanted.ip.family;
    r = netlink_dump(guest, &request, address_take, &wanted);
    if (r == 0)
        *ret_has = wanted.found;
    return r;
}

int link_guest_is_set_up(const struct link_endpoint *endpoint, bool *ret_set_up,
                         struct error *error)
{
    struct netlink guest = NETLINK_INIT;
    _cleanup_close_ int home_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (home_fd < 0)
        return error_set(error, errno, "cannot open the host's network namespace");
    int r = netlink_open_in(endpoint->netns_fd, home_fd, &guest, error);
    if (r == 0) {
        r = guest_has_address(&guest, endpoint, ret_set_up);
        if (r < 0)
            error_set_kernel(error, r, NULL, "cannot look at %s in the guest", endpoint->peer_name);
    }
    netlink_close(&guest);
    return r;
}
