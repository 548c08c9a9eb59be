/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The nftables tables `inet moat` and `bridge moat`, through libnftnl over libmnl; "the table" is
 * both of them. The number of rules is constant; what grows are elements of sets and maps. One
 * socket owns the table (NFT_TABLE_F_OWNER|NFT_TABLE_F_PERSIST, Linux 6.9 on; a plain table and a
 * watcher where not). Each batch is one atomic nf_tables transaction.
 *
 * Networks are told apart by interface group (LINK_GROUP_OF in link.h; plain numbers here): every
 * L3 link of a network, its bridge and the host ends of its routed ports, has the network's group.
 *
 * One thread at a time; everything works in the network namespace that nat_open was called in. Only
 * CAP_NET_ADMIN is needed. Functions don't block but for the kernel's own work, where nothing else
 * is said. */
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/model.h"
#include "base/rule.h"

struct nat;
struct nat_batch;

/* Opens the socket and takes the table over, contents and all, when its owner is gone; creates it,
 * empty of elements but with all chains and rules, when there is none. A table that is there keeps
 * its contents until nat_rebuild. Reason busy when another live process owns a table of that name.
 * group_base/group_mask: what marks our links, (group & mask) == base. */
int nat_open(uint32_t group_base, uint32_t group_mask, struct nat **ret_nat, struct error *error);
/* Closes the socket and leaves the table in the kernel. */
void nat_close(struct nat *nat);
/* Deletes the table; fine when it is gone already. */
int nat_remove_all(struct nat *nat, struct error *error);
/* Nobody else can change or flush the table. False on older kernels, and for a plain table that was
 * found by nat_open until the next nat_rebuild. */
bool nat_is_owned(const struct nat *nat);

/* How many connections an endpoint may have where nothing else is said: an eighth of the connection
 * tracking table, and no more than what the kernel counts without effort. */
#define NAT_SHARE_MAX 8192
uint32_t nat_share_get(const struct nat *nat);

struct nat_network {
    uint32_t group;
    struct cidr subnet;
    struct cidr subnet6;
    struct ip gateway;
    struct ip gateway6;
    bool internal;
    bool isolated;
    bool host_access;
    bool dns; /* the name service answers on the gateways, port 53 */
};

/* What may be opened from one network to another, besides what is published. */
struct nat_passage {
    uint32_t from_group;
    uint32_t to_group;
    struct port_span span;
};

struct nat_endpoint {
    uint32_t group;
    struct ip ip;
    struct ip ip6;
    bool closed;                   /* mode outbound: nobody may open a connection to it */
    char host_interface[IFNAMSIZ]; /* only its MAC and addresses may come in there; "": no check */
    struct mac mac;
    bool routed;
    bool localhost;     /* `moat localhost`: see nat_localhost_set */
    bool logged;        /* refused connections are told of (log.h) */
    bool silent;        /* and dropped, instead of refused */
    uint32_t max_conns; /* of each address, that go through the host at once; 0: nat_share_get */
    uint32_t conn_rate; /* and that it opens a second, as many at once; 0: any */
    /* Both 0: no policy; else of one that is there before the endpoint, or added with it. */
    int64_t policy_id;
    uint64_t policy_version;
};

/* What an endpoint may open connections to, whoever its packets say they are from: its interface
 * counts, so it must be a routed one. Established connections go on, the network's own name service
 * and DHCP are always open. Domain rules open what nat_batch_opening adds. */
struct nat_policy {
    int64_t id;       /* > 0 */
    uint64_t version; /* differs where rules differ: two versions can be there at once */
    const struct policy_rules *allow;
    const struct policy_rules *deny;
};

/* An address that a guest was given for a name, and what that opens of it: one service of the
 * policy (policy_services.h), for a time. Never of effect for addresses of the host and of
 * networks.
 */
struct nat_opening {
    int64_t policy_id;
    uint64_t policy_version;
    struct ip ip;
    uint32_t service;
    bool closes; /* denied by name, else given by name */
    bool renews; /* it is, or was a moment ago, there already */
    uint64_t timeout_ms;
    const char *name; /* for which it was given first; kept with it; at most 253 characters */
};

/* A published port that leads to an IPv4 (or IPv6) guest address of the same family as the
 * client's. */
struct nat_port {
    struct ip host_ip; /* absent: every address of the host; unspecified: of its family */
    uint16_t host_port;
    uint16_t guest_port;
    uint16_t count;
    uint8_t protocol;
    struct ip guest_ip;  /* IPv4 target, or absent */
    struct ip guest_ip6; /* IPv6 target, or absent */
};

/* A batch collects changes in memory; nothing fails before commit but memory (reported by commit).
 * They are made in the order given, so an endpoint may be deleted as it was and added as it is in
 * one batch. With `add` false the elements are deleted; deleting one that is not there makes the
 * commit fail (the kernel's word, ENOENT), which reconcile treats by a rebuild. Adding what is
 * there already is fine, but not a port that leads elsewhere (EEXIST). nat_batch_new returns NULL
 * without memory. */
struct nat_batch *nat_batch_new(struct nat *nat);
void nat_batch_free(struct nat_batch *batch);
void nat_batch_network(struct nat_batch *batch, const struct nat_network *network, bool add);
void nat_batch_passage(struct nat_batch *batch, const struct nat_passage *passage, bool add);
void nat_batch_endpoint(struct nat_batch *batch, const struct nat_endpoint *endpoint, bool add);
void nat_batch_port(struct nat_batch *batch, const struct nat_port *port, bool add);
/* Adds or removes a version of a policy; compiles at once, and the rules are not needed after it.
 * To remove one its rules must be the same. Endpoints move from one version to another without an
 * instant in which none holds. To remove one, no endpoint may be left with it after the batch.
 * Reason quota when the rules overlap in more ways than the kernel is asked to keep
 * (POLICY_TABLE_MAX). */
int nat_batch_policy(struct nat_batch *batch, const struct nat_policy *policy, bool add,
                     struct error *error);
/* Adds an opening to a policy that is there, or is added with the batch; one that is there gets the
 * new timeout. It goes by itself, or with the policy. The name must stay until the batch is freed.
 */
void nat_batch_opening(struct nat_batch *batch, const struct nat_opening *opening);
/* Sends it as one transaction (policies that are added: as one before it, in which nothing leads to
 * them yet) and takes the kernel's verdict (microseconds for one element, about 1
 * µs for each of many). Reason kernel on refusal, with nothing changed. An empty batch is fine. The
 * batch stays the caller's and can be committed again. Fault point: nat.commit. */
int nat_batch_commit(struct nat_batch *batch, struct error *error);

/* Replaces the whole table by the static rules plus the batch's additions (NULL: none), in one
 * transaction: no packet sees a state in between, established flows keep their translation. For
 * start-up and repair. Fault points: nat.rebuild; nat.owner plays a kernel without owned tables,
 * nat.renew one that does not renew elements (both read by nat_open). */
int nat_rebuild(struct nat *nat, struct nat_batch *batch, struct error *error);

/* How the kernel's table compares with what a rebuild with a batch would make. */
enum nat_verdict {
    NAT_SAME,    /* ownership, chains, rules, elements: all of it */
    NAT_FORMER,  /* it is another version's of moat; nothing else was looked at */
    NAT_CHANGED, /* something is missing, or there is something else */
};
/* About 1 ms, and 1 µs for each element; when elements differ it looks again for up to 15 ms. */
int nat_verify(struct nat *nat, struct nat_batch *batch, enum nat_verdict *ret_verdict,
               struct error *error);

/* What is open in the kernel now, for start-up: calls fn for each opening, with the time that is
 * left. */
typedef int (*nat_opening_fn)(void *userdata, const struct nat_opening *opening);
int nat_openings_load(struct nat *nat, nat_opening_fn fn, void *userdata, struct error *error);

/* `moat localhost` inside a guest's namespace: an own small table there (`ip moat_localhost`), that
 * leads 127.0.0.1:PORT to the gateway where nothing local listens. Installed, replaced or removed
 * (on false: the addresses don't matter) through a socket opened inside. The interface also needs
 * route_localnet (link_set_route_localnet), and the endpoint its element on the host's side (struct
 * nat_endpoint.localhost). What the guest then reaches is the gateway's as if it had asked for that
 * address: published ports, the name service, other services with host access. Reasons:
 * not_supported without IPv4, not_found without that interface, kernel. */
int nat_localhost_set(int netns_fd, const char *interface, const struct ip *guest_ip,
                      const struct ip *gateway, bool on, struct error *error);

/* What was dropped of an endpoint since its rules were made; a rebuild of the table keeps it. */
struct nat_drops {
    uint64_t frames;      /* that it may not send: a source or a message that is not its own */
    uint64_t connections; /* attempts, refused by its policy or by its network's bounds */
};

/* Of this endpoint alone, in some microseconds. Only its interface, group and addresses are looked
 * at. */
int nat_drops_get(struct nat *nat, const struct nat_endpoint *endpoint, struct nat_drops *ret_drops,
                  struct error *error);
/* Of all, for who wants many: about 1 µs for each. Yields (base/yield.h). nat_drops_find gives what
 * nat_drops_get would; what a change in the middle of the dump may have hidden it asks for. */
struct nat_drops_list;
int nat_drops_load(struct nat *nat, struct nat_drops_list **ret_list, struct error *error);
int nat_drops_find(const struct nat_drops_list *list, const struct nat_endpoint *endpoint,
                   struct nat_drops *ret_drops, struct error *error);
void nat_drops_list_free(struct nat_drops_list *list);

/* Watches for changes of the table by others (possible while it is not owned): calls lost() from
 * the loop, once for all that came together. lost() may call anything here. Our own changes,
 * however large, don't count. others() (may be NULL) is called for changes of other tables' rules.
 */
typedef void (*nat_lost_fn)(void *userdata);
int nat_watch_start(struct nat *nat, struct loop *loop, nat_lost_fn lost, nat_lost_fn others,
                    void *userdata, struct error *error);
void nat_watch_stop(struct nat *nat);

/* --- connection tracking (conntrack.c) --- */
/* Entries are flushed by a thread behind: flushes only queue and may be called from any thread.
 * Call them after the commit that takes the rules away. Filtered in the kernel where it can be
 * (CTA_FILTER), else by dump and delete; no other entry is touched. */
struct conntrack;
int conntrack_open(struct conntrack **ret_conntrack, struct error *error);
void conntrack_close(struct conntrack *conntrack); /* finishes what is queued: blocks */
/* Everything from or to this guest address (original source, or reply source after translation). */
void conntrack_flush_guest(struct conntrack *conntrack, const struct ip *guest_ip);
/* What was translated from these host ports to this guest, and what went to the host's own ports
 * untranslated (so that a client that never stops sending finds a port that has just been
 * published). Call it after publishing as well as after taking back. */
void conntrack_flush_port(struct conntrack *conntrack, const struct nat_port *port);
/* A connection as it was opened: from whom to whom, and who answers (after translation). */
struct conntrack_flow {
    struct ip source;
    struct ip destination;
    struct ip server;
    uint8_t protocol;
    uint16_t source_port;
    uint16_t port;        /* of the destination; 0 where the protocol has none */
    uint16_t server_port; /* who answers has it there; the same */
    bool published;       /* the destination was translated */
    bool masqueraded;     /* the source was */
};

typedef bool (*conntrack_wants_fn)(void *userdata, struct conntrack *conntrack,
                                   const struct conntrack_flow *flow);
/* Forgets each connection that `wants` says true of: what comes of it next is asked by the rules
 * like a new one. Blocks until that is done, some milliseconds for a table that is full; `wants` is
 * called by the thread meanwhile. Everything queued before is done too. On failure some may be
 * left. Fault point: conntrack.cut. */
int conntrack_cut(struct conntrack *conntrack, conntrack_wants_fn wants, void *userdata,
                  struct error *error);
/* For `wants`: an address of the host. */
bool conntrack_address_is_local(struct conntrack *conntrack, const struct ip *ip);
/* Blocks until what is queued is done (teardown, tests). */
void conntrack_wait(struct conntrack *conntrack);
