/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Links, addresses, routes and neighbours by rtnetlink (rtnetlink(7)). A handle's sockets live in
 * the namespace where moatd was started ("the host"). A handle is used from one thread; another
 * thread takes one of its own beside it. Nothing here waits for an RCU grace period on the caller's
 * thread, but where a name is wanted that a dying link still has: what must wait (deletion of
 * links) goes to the reaper thread. Each call is a few sendmsg(2), tens to hundreds of
 * microseconds.
 *
 * Ownership: every link that is made carries its network's group (LINK_GROUP_OF) from its first
 * instant, and soon after the alias "moat:<uid>". Only links with such a group or alias are ever
 * changed or deleted. Routes, addresses and neighbour entries carry LINK_ROUTE_PROTOCOL.
 *
 * Two host settings are not per link and are the caller's: net.ipv4.ip_forward (and
 * net.ipv6.conf.all.forwarding), and net.ipv4.conf.all.send_redirects, which the kernel ORs with
 * the links' own 0. With net.ipv4.conf.all.rp_filter=2 a routed port's strict filter becomes loose
 * (the higher of both counts): sources must be checked by the firewall as well. */
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/model.h"

#define LINK_GROUP_BASE 0x6d000000u /* 'm' */
#define LINK_GROUP_MASK 0xff000000u
#define LINK_GROUP_DYING 0x6dffffffu   /* soft-detached: the reaper deletes the whole group */
#define LINK_GROUP_BETWEEN 0x6dfffffeu /* links that what guests send is led over (shape.c) */
#define LINK_GROUP_OF(network_id) (LINK_GROUP_BASE | ((uint32_t)(network_id)&0x00ffffffu))
#define LINK_ROUTE_PROTOCOL 109 /* 'm'; rtnetlink(7) leaves 5–255 to user space daemons */
#define LINK_ALIAS_PREFIX "moat:"

struct link;

/* Opens the handle in the calling thread's namespace and starts the reaper, which deletes at once
 * what an earlier process left in the dying group. Needs CAP_NET_ADMIN; CAP_SYS_ADMIN to enter
 * guests' namespaces, CAP_NET_RAW to announce ports that move. */
int link_open(struct link **ret_link, struct error *error);
/* One more handle of the same host for another thread: what is known of links, their indexes and
 * the reaper are shared. To be called in the thread where the first was opened, and closed before
 * it; only the first one watches. */
int link_open_beside(const struct link *link, struct link **ret_link, struct error *error);
/* Stops watching, waits for the reaper to finish what is queued, closes. Leaves links as they are.
 */
void link_close(struct link *link);

/* --- bridges (bridge.c) --- */
struct link_bridge {
    char name[IFNAMSIZ];
    char alias[IFNAMSIZ * 2]; /* "moat:<network uid>" */
    uint32_t group;
    struct mac mac;
    uint32_t mtu;         /* bytes */
    struct cidr address;  /* gateway/prefix; absent: no IPv4 */
    struct cidr address6; /* absent: IPv6 is off on the link (no link-local address either) */
};

/* Creates the bridge or makes an existing one of ours match: up, MTU, MAC, group, alias, exactly
 * these addresses (foreign ones are left alone), with IPv6 also fe80::1, the router's address on
 * every link of a network; route_localnet=1, forwarding=1, send_redirects=0, no STP, forward delay
 * 0, no multicast snooping, accept_ra off, rp_filter as the host has it, proxied ARP answers
 * without delay. Removes proxy entries of routed ports that are gone. Harmless to traffic when all
 * is right already. A link of that name that is not ours or not a bridge: reason in_use. */
int link_bridge_ensure(struct link *link, const struct link_bridge *bridge, struct error *error);
/* Deletes it if it is ours; fine when it is not there or not ours. It is taken down and renamed,
 * so that its name is free at once, and reaped behind. */
int link_bridge_remove(struct link *link, const char *name, struct error *error);

/* --- endpoints (endpoint.c, veth.c, tap.c): veth pairs and taps --- */
struct link_endpoint {
    char host_name[IFNAMSIZ];
    char alias[IFNAMSIZ * 2]; /* "moat:<guest uid>" */
    uint32_t group;
    char bridge[IFNAMSIZ]; /* the network's bridge, for both kinds of port */
    bool routed;           /* false: member of the bridge; true: routed port */
    struct mac bridge_mac; /* every port's host end has it, so that a guest's ARP entry for its
                              gateway stays right when its port changes kind */
    struct ip bridge_ip;   /* the network's gateway address (routed ports answer for it) */
    uint32_t mtu;          /* bytes */
    struct mac mac;        /* the guest's */
    struct ip ip;          /* the guest's; absent: none */
    struct ip ip6;
    bool bridge_nf; /* hairpin mode on a bridged port in any case; else only where br_netfilter
                       passes bridged packets to iptables, which is read each time */
    /* veth only */
    int netns_fd;             /* the guest's namespace; -1 when its side is not to be touched */
    char peer_name[IFNAMSIZ]; /* eth0, … */
    uint8_t prefix;
    uint8_t prefix6;
    struct ip gateway;  /* default route through it; absent: none */
    struct ip gateway6; /* present: IPv6 default route, always through fe80::1 */
    /* tap only */
    int64_t owner;     /* uid, -1 for none */
    int64_t tap_group; /* gid, -1 for none */
    bool multi_queue;
    bool vnet_hdr;
};

/* One RTM_NEWLINK makes the pair in place, then the host's side is completed, then the guest's
 * through a socket opened inside: lo up, no IPv6 autoconfiguration (and no IPv6 address at all
 * unless ip6 is set, which then needs no duplicate address detection), address, link up, default
 * route. On the host: alias; bridged: hairpin mode where needed, a static forwarding entry and a
 * permanent neighbour entry on the bridge; routed: proxy_arp=1, rp_filter=1, send_redirects=0,
 * route_localnet=1, forwarding=1, no accept_ra, host route with the gateway as source, permanent
 * neighbour entry, and a proxy entry on the bridge. Waits until the port forwards.
 *
 * Fails whole: what was made is taken back. A default route that is there already in the guest
 * stays instead. Reasons: exists when host_name is a link of ours, or peer_name is there already in
 * the guest (links that are just being reaped are waited for first, up to 40 ms); in_use when
 * host_name is a foreign link; quota when the bridge has its 1023 ports; field error "netns" when
 * that is the host's own namespace. */
int link_veth_create(struct link *link, const struct link_endpoint *endpoint, struct error *error);
/* Persistent tap, up, in the bridge or routed, its host side completed like a veth's. ret_fd (may
 * be NULL): an open queue of it, non-blocking, the caller's to close. It is not persistent before
 * it is marked as ours, so a crash leaves nothing foreign. Reasons as above. */
int link_tap_create(struct link *link, const struct link_endpoint *endpoint, int *ret_fd,
                    struct error *error);
/* Makes the host's side of an existing link match (master or route and proxies, group, alias, MTU,
 * MAC, hairpin mode, up) without touching the guest's. *ret_found false when there is no such link,
 * or only a dying one. For reconcile. A link of that name that is not ours: reason in_use. */
int link_endpoint_ensure(struct link *link, const struct link_endpoint *endpoint, bool *ret_found,
                         struct error *error);
/* Moves a live port between bridged and routed as endpoint->routed says, and tells the guest and
 * its neighbours by gratuitous ARP and neighbour advertisements. Open connections survive. The
 * addresses inside are the same for both kinds; with netns_fd, an IPv6 guest's subnet is led to its
 * router, or back to the link (what fails there is the guest's loss, and only a warning). Reason
 * not_found. */
int link_endpoint_set_routed(struct link *link, const struct link_endpoint *endpoint,
                             struct error *error);
/* Tells everybody on a network that ip is at mac: gratuitous ARP, unsolicited neighbour
 * advertisement with the override flag (RFC 5227 section 3, RFC 4861 section 7.2.6). Who has an
 * entry for ip changes it, nobody makes one. What is lost is not repeated; nothing blocks. */
void link_announce(struct link *link, const char *bridge, const struct ip *ip,
                   const struct mac *mac);
/* Soft detach: proxies, neighbour entries and routes gone, down, in the dying group; answers at
 * once. The reaper deletes it, which takes it out of its bridge. Fine when it is not there (then
 * the entries on the bridge are removed all the same) or not ours. A tap that a VMM holds open is
 * deleted all the same. */
int link_endpoint_remove(struct link *link, const struct link_endpoint *endpoint,
                         struct error *error);
/* Its removal is decided and follows, maybe in another thread: that it is gone is no news. */
void link_endpoint_abandon(struct link *link, const struct link_endpoint *endpoint);
/* By name only (what the store does not know any more): soft detach of a link of ours. Its proxy
 * and neighbour entries on the bridge stay until link_bridge_ensure or the address's next owner. */
int link_remove_by_name(struct link *link, const char *host_name, struct error *error);
/* Deletes every link of ours, whatever made it, and waits until they are gone (teardown). */
int link_remove_all(struct link *link, struct error *error);
/* Blocks until everything that was queued for deletion is gone (teardown, tests). */
void link_reaper_wait(struct link *link);
/* Takes lo up or down inside a namespace. */
int link_loopback_set(int netns_fd, bool up, struct error *error);
/* Has the guest's side of a veth pair its address (a crash may have come before)? Needs netns_fd.
 */
int link_guest_is_set_up(const struct link_endpoint *endpoint, bool *ret_set_up,
                         struct error *error);
#define LINK_GUEST_NUMBERS 64
/* Which of eth0, eth1, … eth63 are there inside: bit N is ethN. */
int link_guest_numbers(int netns_fd, uint64_t *ret_taken, struct error *error);
/* Makes this interface inside carry the default route (per family; absent: left alone), instead of
 * the one of ours that carried it. A default route that is not ours stays. */
int link_default_route_set(int netns_fd, const char *interface, const struct ip *gateway,
                           const struct ip *gateway6, struct error *error);
/* The MTU of an interface inside, bytes. */
int link_guest_set_mtu(int netns_fd, const char *interface, uint32_t mtu, struct error *error);
/* `moat localhost`, the link part: route_localnet on an interface inside. */
int link_set_route_localnet(int netns_fd, const char *interface, bool on, struct error *error);

/* --- rates of endpoints (shape.c) --- */
struct link_shape {
    char host_name[IFNAMSIZ];
    char between[IFNAMSIZ];   /* name of the link that what the guest sends is led over */
    char alias[IFNAMSIZ * 2]; /* "moat:<guest uid>" */
    uint32_t mtu;             /* bytes */
    uint64_t rate_up;         /* bits a second that the guest may send; 0: any */
    uint64_t rate_down;       /* and receive */
};
/* Makes the port match, whatever it had before, while it carries traffic; harmless when all is
 * right already. Reasons: not_supported on a kernel without the parts, not_found when the port is
 * gone, in_use when the name is a foreign link's. */
int link_shape_set(struct link *link, const struct link_shape *shape, struct error *error);
/* After the port was removed: what was made beside it. Fine when there is nothing. */
int link_shape_remove(struct link *link, const struct link_shape *shape, struct error *error);

/* --- what the host has (host.c) --- */
enum link_prefix_kind { LINK_PREFIX_ADDRESS, LINK_PREFIX_ROUTE };
struct link_prefix {
    enum link_prefix_kind kind;
    struct cidr cidr;         /* of an address: host bits as configured */
    char interface[IFNAMSIZ]; /* "" for a route without device (blackhole, multipath) */
    uint32_t table;           /* 0 for an address */
    bool ours;                /* on a link of ours, or a route of our protocol */
};
/* Every address and every unicast, blackhole, unreachable, prohibit and throw route of every table,
 * and prefixes that are local as a whole; no default routes (/0), no single local addresses twice,
 * nothing of broadcast or multicast. On a point-to-point link both ends. The array is the caller's
 * to free. */
int link_prefix_list(struct link *link, struct link_prefix **ret_prefixes, size_t *ret_count,
                     struct error *error);
/* Is it an address of the host (on any interface that is up; all of 127/8)? */
int link_address_is_local(struct link *link, const struct ip *ip, bool *ret_local,
                          struct error *error);
/* MTU in bytes of the way out, as the host's routing (all rules and tables) goes to a far address:
 * the route's own mtu metric or its device's MTU, whichever is lower; the lower of IPv4's and
 * IPv6's when both exist; 1500 without a way out. */
int link_default_mtu(struct link *link, uint32_t *ret_mtu, struct error *error);
/* The interface that the host's routing sends packets to this address out by; "" where there is no
 * way. */
int link_way_out(struct link *link, const struct ip *ip, char ret_interface[IFNAMSIZ],
                 struct error *error);
/* Free name for a bridge: "moat<N>" with the lowest N >= first that no link has. Reason quota from
 * moat100000 on. */
int link_bridge_name(struct link *link, unsigned first, char ret_name[IFNAMSIZ],
                     struct error *error);

struct link_info {
    char name[IFNAMSIZ];
    char alias[IFNAMSIZ * 2];
    char kind[16]; /* "bridge", "veth", "tun" */
    uint32_t index;
    uint32_t group;
    uint32_t master; /* ifindex, 0 for none */
    bool up;
};
/* Links of ours (group or alias), dying ones left out. The array is the caller's to free. */
int link_list(struct link *link, struct link_info **ret_links, size_t *ret_count,
              struct error *error);
/* Reason not_supported on a kernel without IPv6 (not built in, or switched off at boot). Fault
 * point link.ipv6 plays such a kernel (read by link_open). */
int link_ipv6_check(const struct link *link, struct error *error);
/* Has a link of the host, up or not, this MAC? ret_name: whose. */
int link_mac_find(struct link *link, const struct mac *mac, char ret_name[IFNAMSIZ],
                  bool *ret_found, struct error *error);
/* The name of the link with this index, in the calling thread's namespace. */
bool link_name_find(uint32_t index, char ret_name[IFNAMSIZ]);
/* Does a link of this name exist at all (foreign or not)? */
bool link_exists(struct link *link, const char *name);

/* Are the settings of our links, and what the host answers for on bridges, as they should be?
 * ret_wrong: the first that isn't. About 20 µs for each link. */
bool link_settings_check(struct link *link, char *ret_wrong, size_t size);

/* --- sysctls (sysctl.c) of the calling thread's namespace; key in dotted form,
 * "net.ipv4.ip_forward"; a '/' in it stands for a '.' in a file name, as with sysctl(8) --- */
#define SYSCTL_VALUE_MAX 64
/* Without the newline. -ENOENT and such with the error's text; -EOVERFLOW for a longer value. */
int sysctl_get(const char *key, char ret_value[SYSCTL_VALUE_MAX], struct error *error);
int sysctl_set(const char *key, const char *value, struct error *error);

/* --- network namespaces (netns.c; namespaces(7), ioctl_ns(2)) --- */
/* netns_open_* return an open nsfs descriptor (O_CLOEXEC), the caller's to close. The path may name
 * anything: what is no network namespace is not opened (field error "netns"). Reasons: not_found
 * (no such path or process), permission_denied. */
int netns_open_path(const char *path, int *ret_fd, struct error *error);
/* Through a pidfd, so that a pid that is reused meanwhile is noticed. ret_start: proc(5) field 22.
 */
int netns_open_pid(int32_t pid, int *ret_fd, uint64_t *ret_start, struct error *error);
/* Field error "netns_fd" when it is not a network namespace. */
int netns_check(int fd, struct error *error);
/* What tells one namespace from all others that exist: device and inode of its nsfs file. */
int netns_identify(int fd, uint64_t *ret_dev, uint64_t *ret_ino, struct error *error);
/* What a namespace is found by as long as it lives, without being kept alive, as it would be by a
 * descriptor. Text for the store; "" where the kernel has no such handles (before Linux 6.18).
 * Fault point link.handle plays such a kernel. */
void netns_handle_get(int fd, char ret_handle[NETNS_HANDLE_MAX]);
/* -ESTALE: it is gone (another boot's are); -ENOENT: "" was given; or what the kernel says. */
int netns_open_handle(const char *handle, int *ret_fd);
/* Without a handle: by a process that is in it, or a mount of it in our mount namespace. Looks at
 * every process: some µs for each. -ENOENT: none leads there, though it may live. */
int netns_find(uint64_t dev, uint64_t ino, int *ret_fd);
/* Does the path lead to it; is it the namespace of that process? */
bool netns_is_at(const char *path, uint64_t dev, uint64_t ino);
bool netns_is_of_pid(int32_t pid, uint64_t dev, uint64_t ino);
/* Uid (in our user namespace) that owns the user namespace of this network namespace. */
int netns_owner(int fd, uint32_t *ret_uid, struct error *error);
/* Start time of a process (clock ticks), or -ESRCH. No error text: absence is an answer. */
int process_start_time(int32_t pid, uint64_t *ret_start);

/* --- watching (watch.c) --- */
/* None of these may stop the watch or close the handle; all else may be called from them. */
struct link_watch_ops {
    /* A link of ours (one that was made, ensured or found by ensure through this handle) is gone
     * and we did not remove it. */
    void (*link_gone)(void *userdata, const char *name, uint32_t index);
    /* Something of ours was changed by somebody else (address lost, link down, master, MTU or group
     * changed, STP on, route removed, a setting changed), or br_netfilter was switched: time to
     * reconcile. What the kernel does not tell of (settings, proxy entries) is found by looking,
     * 64 links each second. Called at most once per loop turn, after its link_gone. Changes made
     * through this handle do not count. */
    void (*drift)(void *userdata);
    /* Addresses, routes or links of the host changed (MTU may follow, subnets may collide).
     * Coalesced over 50 ms. */
    void (*host_changed)(void *userdata);
};
/* Begin before reconciling. What was ensured earlier and is gone by now is told on the first turn.
 * ops must outlive the watch; a second start replaces the first. */
int link_watch_start(struct link *link, struct loop *loop, const struct link_watch_ops *ops,
                     void *userdata, struct error *error);
/* Fine when not watching. */
void link_watch_stop(struct link *link);
