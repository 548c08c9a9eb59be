/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Links, addresses, routes and neighbours by rtnetlink. One handle per process: its sockets live in the
 * namespace where moatd was started ("the host"). Nothing here waits for an RCU grace period on the caller's
 * thread: what must (deletion of links) goes to the reaper thread.
 *
 * Ownership: every link that is made carries its network's group (LINK_GROUP_OF) from its first instant, and
 * the alias "moat:<uid>". Only links with such a group or alias are ever changed or deleted. Routes carry
 * LINK_ROUTE_PROTOCOL. */
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/model.h"

#define LINK_GROUP_BASE 0x6d000000u /* 'm' */
#define LINK_GROUP_MASK 0xff000000u
#define LINK_GROUP_DYING 0x6dffffffu /* soft-detached: the reaper deletes the whole group */
#define LINK_GROUP_OF(network_id) (LINK_GROUP_BASE | ((uint32_t)(network_id) & 0x00ffffffu))
#define LINK_ROUTE_PROTOCOL 109 /* 'm'; rtnetlink(7) leaves 5–255 to user space daemons */
#define LINK_ALIAS_PREFIX "moat:"

struct link;

int link_open(struct link **ret_link, struct error *error);
/* Waits for the reaper to finish what is queued, then closes. */
void link_close(struct link *link);

/* --- bridges (bridge.c) --- */
struct link_bridge {
    char name[IFNAMSIZ];
    char alias[IFNAMSIZ * 2]; /* "moat:<network uid>" */
    uint32_t group;
    struct mac mac;
    uint32_t mtu;
    struct cidr address;  /* gateway/prefix; absent: no IPv4 */
    struct cidr address6; /* absent: IPv6 is off on the link (no link-local address either) */
};

/* Creates the bridge or makes an existing one of ours match: up, MTU, MAC, group, alias, exactly these
 * addresses (foreign addresses on it are left alone), route_localnet=1, rp_filter left as the host has it, forwarding=1, send_redirects=0, no
 * STP, forward delay 0, accept_ra off. A link of that name that is not ours: reason in_use. */
int link_bridge_ensure(struct link *link, const struct link_bridge *bridge, struct error *error);
/* Deletes it if it is ours; fine when it is not there. The deletion is synchronous for names to be free at once?
 * No: the bridge is taken down, renamed away and reaped behind. */
int link_bridge_remove(struct link *link, const char *name, struct error *error);

/* --- endpoints (endpoint.c): veth pairs and taps --- */
struct link_endpoint {
    char host_name[IFNAMSIZ];
    char alias[IFNAMSIZ * 2]; /* "moat:<guest uid>" */
    uint32_t group;
    char bridge[IFNAMSIZ]; /* the network's bridge, for both kinds of port */
    bool routed;           /* false: member of the bridge; true: routed port (DESIGN.md) */
    struct mac bridge_mac; /* a routed port's host end has the bridge's own MAC */
    struct ip bridge_ip;   /* the network's gateway address (routed ports answer for it) */
    uint32_t mtu;
    struct mac mac; /* the guest's */
    struct ip ip;   /* the guest's; absent: none */
    struct ip ip6;
    bool bridge_nf; /* set hairpin mode on a bridged port (needed where br_netfilter is on); the callee reads the sysctl itself when unset */
    /* veth only */
    int netns_fd;              /* the guest's namespace; -1 when the peer's side is not to be touched */
    char peer_name[IFNAMSIZ];  /* eth0, … */
    uint8_t prefix;
    uint8_t prefix6;
    struct ip gateway;  /* default route through it; absent: none */
    struct ip gateway6;
    /* tap only */
    int64_t owner; /* uid, -1 for none */
    int64_t tap_group; /* gid, -1 for none */
    bool multi_queue;
    bool vnet_hdr;
};

/* One RTM_NEWLINK makes the pair in place (RECIPES.md, "Attach: the fast way"), then the guest's side is
 * set up through a socket opened inside: lo up, IPv6 off on it unless ip6 is set, address, link up, default
 * route. For a routed port the host's side gets its route, proxies and settings before the peer is up.
 * Fails whole: what was made is taken back. Reason exists when peer_name is there already in the guest (a link
 * that the reaper is just deleting there is waited for first), in_use when host_name is a foreign link. */
int link_veth_create(struct link *link, const struct link_endpoint *endpoint, struct error *error);
/* Persistent tap, up, in the bridge or routed. ret_fd (may be NULL): an open queue of it. */
int link_tap_create(struct link *link, const struct link_endpoint *endpoint, int *ret_fd,
                    struct error *error);
/* Makes the host's side of an existing link match (master or route and proxies, group, alias, MTU, up) without
 * touching the guest's. *ret_found false when there is no such link. For reconcile. */
int link_endpoint_ensure(struct link *link, const struct link_endpoint *endpoint, bool *ret_found,
                         struct error *error);
/* Moves a live port between bridged and routed as endpoint->routed says. */
int link_endpoint_set_routed(struct link *link, const struct link_endpoint *endpoint, struct error *error);
/* Soft detach: down, out of the bridge, routes and proxies gone, in the dying group; answers at once. The
 * reaper deletes it. Fine when it is not there. A tap that a VMM holds open is deleted all the same. */
int link_endpoint_remove(struct link *link, const struct link_endpoint *endpoint, struct error *error);
/* By name only (what the store does not know any more). Ours only. */
int link_remove_by_name(struct link *link, const char *host_name, struct error *error);
/* Blocks until everything that was queued for deletion is gone (teardown, tests). */
void link_reaper_wait(struct link *link);
/* Sets lo up inside a namespace. */
int link_loopback_up(int netns_fd, struct error *error);
/* `moat localhost`, the link part: route_localnet on an interface inside. */
int link_set_route_localnet(int netns_fd, const char *interface, bool on, struct error *error);

/* Makes this interface inside carry the default route (per family; absent: left alone), instead of
 * the one that carried it. */
int link_default_route_set(int netns_fd, const char *interface, const struct ip *gateway,
                           const struct ip *gateway6, struct error *error);

/* --- what the host has (host.c) --- */
enum link_prefix_kind { LINK_PREFIX_ADDRESS, LINK_PREFIX_ROUTE };
struct link_prefix {
    enum link_prefix_kind kind;
    struct cidr cidr;
    char interface[IFNAMSIZ]; /* "" for a route without device (blackhole, multipath) */
    uint32_t table;
    bool ours; /* on a link of ours, or a route of our protocol */
};
/* Every address and every unicast/blackhole/unreachable route of every table, without default routes (/0) and
 * without table local's broadcast/multicast entries. The array is malloc'ed. */
int link_prefix_list(struct link *link, struct link_prefix **ret_prefixes, size_t *ret_count,
                     struct error *error);
/* Is it an address of the host (any interface; all of 127/8)? */
int link_address_is_local(struct link *link, const struct ip *ip, bool *ret_local, struct error *error);
/* MTU of the way out: the default route's own mtu metric, else its device's MTU; the lower of IPv4's and
 * IPv6's when both exist; 1500 without a default route. */
int link_default_mtu(struct link *link, uint32_t *ret_mtu, struct error *error);
/* Free name for a bridge: "moat<N>" with the lowest N >= first that no link has. */
int link_bridge_name(struct link *link, unsigned first, char ret_name[IFNAMSIZ], struct error *error);

struct link_info {
    char name[IFNAMSIZ];
    char alias[IFNAMSIZ * 2];
    char kind[16]; /* "bridge", "veth", "tun" */
    uint32_t index;
    uint32_t group;
    uint32_t master; /* ifindex, 0 for none */
    bool up;
};
/* Links of ours (group or alias), dying ones left out. */
int link_list(struct link *link, struct link_info **ret_links, size_t *ret_count, struct error *error);
/* Does a link of this name exist at all (foreign or not)? */
bool link_exists(struct link *link, const char *name);

/* --- sysctls of the host's namespace (sysctl.c); key in dotted form, "net.ipv4.ip_forward" --- */
#define SYSCTL_VALUE_MAX 64
int sysctl_get(const char *key, char ret_value[SYSCTL_VALUE_MAX], struct error *error);
int sysctl_set(const char *key, const char *value, struct error *error);

/* --- network namespaces (netns.c) --- */
/* All return an open nsfs descriptor (O_CLOEXEC) that was checked to be a network namespace.
 * Reasons: not_found (no such path/process), permission_denied. Field error where it is no netns. */
int netns_open_path(const char *path, int *ret_fd, struct error *error);
/* Through a pidfd, so that a pid that is reused meanwhile is noticed. ret_start: proc(5) field 22. */
int netns_open_pid(int32_t pid, int *ret_fd, uint64_t *ret_start, struct error *error);
int netns_check(int fd, struct error *error);
int netns_identify(int fd, uint64_t *ret_dev, uint64_t *ret_ino, struct error *error);
/* Uid (in our user namespace) that owns the user namespace of this network namespace. */
int netns_owner(int fd, uint32_t *ret_uid, struct error *error);
/* Start time of a process (clock ticks), or -ESRCH. No error text: absence is an answer. */
int process_start_time(int32_t pid, uint64_t *ret_start);

/* --- watching (watch.c) --- */
struct link_watch_ops {
    /* A link of ours is gone and we did not remove it. */
    void (*link_gone)(void *userdata, const char *name, uint32_t index);
    /* Something of ours was changed by somebody else (address lost, link down, master changed, forwarding
     * turned off): time to reconcile. Called at most once per loop turn. */
    void (*drift)(void *userdata);
    /* Addresses, routes or links of the host changed (MTU may follow, subnets may collide). Coalesced. */
    void (*host_changed)(void *userdata);
};
int link_watch_start(struct link *link, struct loop *loop, const struct link_watch_ops *ops, void *userdata,
                     struct error *error);
void link_watch_stop(struct link *link);
