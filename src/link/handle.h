/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of link/ share: the handle and helpers on it. Private to link/. */
#pragma once

#include <stdatomic.h>

#include "known.h"
#include "link.h"
#include "message.h"
#include "netlink.h"

/* Interface indexes that we choose ourselves, so that a link can be spoken of before the kernel
 * has answered. Far above what the kernel hands out one by one. */
#define LINK_INDEX_BASE 0x6d0000u
#define LINK_INDEX_END 0x7ffffff0u

#define HANDLES_MAX 3 /* of one process: the loop's, the one that makes links, the patrol's */

struct reaper;
struct watch;

/* What the handles of one process share (link_open_beside). */
struct link_shared {
    struct known_table known;
    struct reaper *reaper;
    _Atomic uint32_t next_index; /* of those that we choose */
    _Atomic bool watched;        /* somebody hears of links that are gone */
    uint32_t ports[HANDLES_MAX]; /* of the handles' sockets */
    unsigned n_ports;
};

struct link {
    struct link_shared *shared;
    bool beside; /* shared is another handle's */
    struct netlink host;
    int home_fd; /* the host's network namespace */
    uint64_t home_dev, home_ino;
    int query_fd;        /* any socket of the host's, for SIOCGIF… */
    int packet_fd;       /* ARP announcements; -1 until the first one */
    int bridge_nf_fd;    /* net.bridge.bridge-nf-call-iptables; -1 where there is no br_netfilter */
    int arp_ignore_fd;   /* net.ipv4.conf.all.arp_ignore */
    int ipv6_conf_fd;    /* directory net/ipv6/conf; -1 where the kernel has no IPv6 */
    struct watch *watch; /* NULL while not watching */
};

/* Where a guest on any link of a network finds its IPv6 router. */
extern const struct cidr link_router6;

/* Is that the port of a handle's socket: did we cause what it tells? */
bool link_port_is_ours(const struct link *link, uint32_t port);
/* Interface index of a name in the host's namespace, 0 if there is none. */
uint32_t link_index(const struct link *link, const char *name);
/* Every link of the host, ours or not; the array is the caller's. */
int link_list_all(struct link *link, struct link_info **ret_links, size_t *ret_count,
                  struct error *error);
/* The next index of our own to try; never 0. */
uint32_t link_index_next(struct link *link);
/* State of a link: -ENODEV when it is not there. No error text. */
int link_get(struct netlink *netlink, uint32_t index, const char *name,
             struct link_state *ret_state);
/* link_get by name in the host's namespace; absence is *ret_found false, not a failure. */
int link_find(struct link *link, const char *name, struct link_state *ret_state, bool *ret_found,
              struct error *error);
/* Must a bridged port have hairpin mode (br_netfilter passes bridged IPv4 to iptables)? */
bool link_bridge_nf(struct link *link);
/* Is the host set to answer ARP only on the link that has the address? */
bool link_arp_ignores(const struct link *link);
/* Does a link of this MTU have IPv6 on this kernel (RFC 8200 section 5: 1280 at least)? */
bool link_has_ipv6(const struct link *link, uint32_t mtu);
/* Writes net.ipv6.conf.<name>.<key>; fine on a kernel without IPv6. */
int link_ipv6_set(const struct link *link, const char *name, const char *key, const char *value,
                  struct error *error);
/* We are about to remove this link: its end is no news. Fine when it is not known. */
void link_forget(struct link *link, uint32_t index, const char *name);
/* Marks a link of ours as dying: down, out of its bridge, in the dying group; wakes the reaper.
 * Fine when it is gone. */
int link_discard(struct link *link, uint32_t index, const char *name, struct error *error);

/* --- endpoint.c --- */
/* Brings the host's side of an existing port, already in our group, to what the endpoint says:
 * alias, settings, route and proxies or neighbour entries; a bridged port is in its bridge already.
 * Remembers it. */
int endpoint_settle(struct link *link, const struct link_endpoint *endpoint, uint32_t index,
                    uint32_t bridge_index, struct error *error);
/* Index of the endpoint's bridge; reason not_found when there is none. */
int endpoint_bridge_index(const struct link *link, const struct link_endpoint *endpoint,
                          uint32_t *ret_index, struct error *error);
/* Undoes a creation that failed halfway: the error that led here stays. */
void endpoint_undo(struct link *link, const struct link_endpoint *endpoint, uint32_t index);
/* The name that a new link should have is taken: by a foreign link (in_use) or one of ours. */
int endpoint_name_taken(struct link *link, const struct link_endpoint *endpoint,
                        struct error *error);

/* --- reaper.c --- */
int reaper_new(struct reaper **ret_reaper, struct error *error);
/* Finishes what is queued, then ends the thread. */
void reaper_free(struct reaper *reaper);
/* Something is in the dying group. Does not block. */
void reaper_kick(struct reaper *reaper);
void reaper_wait(struct reaper *reaper);

/* --- veth.c --- */
/* The guest's side of a port that has moved: its IPv6 subnet is on the link of a bridged port only.
 * Nothing without netns_fd. */
int guest_follow_port(const struct link *link, const struct link_endpoint *endpoint,
                      struct error *error);

/* --- announce.c --- */
/* After a port changed its kind: corrects the ARP entries of the guest and of its network's other
 * guests by gratuitous ARP (RFC 5227 section 3). */
int announce_move(struct link *link, const struct known *moved, uint32_t bridge_index,
                  const struct mac *bridge_mac, struct error *error);
