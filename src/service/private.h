/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of service share. */
#pragma once

#include "base/background.h"
#include "link/link.h"
#include "names/leases.h"
#include "names/names.h"
#include "nat/log.h"
#include "nat/nat.h"
#include "nat/reserve.h"
#include "service/domain.h"
#include "service/service.h"
#include "store/store.h"

struct attach;
struct owner;
struct injected;
struct waitings;
struct drops;

#define NEIGHBOURS_LEFT 512 /* addresses that are remembered after they were given back */

struct neighbour_left {
    int64_t network_id;
    struct ip ip;
    struct mac mac; /* on the wire */
};

#define DETACHES_MAX 64 /* that go together */

struct service {
    const struct config *config;
    struct loop *loop;
    service_event_fn on_event;
    void *on_event_userdata;
    bool working;                         /* on a call in whose middle detaches may come */
    char working_on[NAME_MAX_LENGTH + 1]; /* the guest that these may not be of; "": none */
    struct store *store;
    struct loop_wake *durable_wake; /* from the store's thread */
    service_progress_fn on_progress;
    void *on_progress_userdata;
    struct link *link;
    struct link *link_beside;      /* the other thread's */
    struct background *background; /* makes and removes the links of guests */
    struct attach *attaching;      /* guests whose links are being made (attach.c) */
    struct detach *detaching;      /* detaches that wait for service_detach_flush (detach.c) */
    struct detach **detaching_end;
    size_t n_detaching;
    struct nat *nat;
    struct conntrack *conntrack;
    struct names *names;
    struct domains *domains; /* what guests were given by name (domain.c) */
    struct learns *learns;   /* guests that are learnt (learn.c); NULL before the first */
    struct leases *leases;
    struct reservations *reservations;
    int lock_fds[2]; /* state directory, run directory; -1 when not held */
    uint64_t started_ms;
    uint64_t netns_dev; /* identity of the host's own network namespace */
    uint64_t netns_ino;
    bool torn_down;
    unsigned made_state_dir; /* so many folders of its path, by this moatd or a former one: teardown
                                takes them back */
    unsigned made_run_dir;
    unsigned started_run_dir;  /* of them by this moatd */
    bool made_store;           /* by this moatd */
    bool reconciling;          /* the kernel may have been changed */
    struct drops *drops;       /* drops.c */
    struct owner *owners;      /* who keeps ephemeral guests alive (owner.c) */
    struct injected *injected; /* files that were changed inside guests (inside.c) */
    struct waitings *waitings; /* ports that others hold (waiting.c); NULL before the first */
    struct loop_timer *repair_timer;
    struct loop_timer *guests_timer;     /* the next guest of the repair */
    struct repair *repair;               /* one that is under way (repair.c) */
    struct loop_timer *checkpoint_timer; /* moves the store's log into its file in idle moments */
    struct loop_timer *firewalls_timer;  /* others changed their rules, or we our networks */
    struct loop_timer *host_timer;       /* the host changed: look at MTU and subnets */
    uint32_t host_mtu;                   /* of the way out; 0: look it up */
    unsigned gap_looks;   /* rules were gone: how often to look yet for what came about meanwhile */
    bool has_unreachable; /* a guest lost its link and its namespace during a repair */
    uint32_t applied_mtu; /* what guests were told of host_mtu, and the store remembers */
    struct strings failures;   /* what the last repair could not put right */
    struct nameless *nameless; /* networks whose name service waits (nameless.c) */
    struct loop_timer *nameless_timer;
    struct loop_timer *retry_timer; /* repairs again what failed */
    struct strings collisions;      /* "NETWORK CIDR": what the host uses too, said once each */
    struct neighbour_left left[NEIGHBOURS_LEFT]; /* a ring (neighbours.c) */
    size_t n_left;                               /* in all */
    int64_t last_temporary; /* ids of reservations made before the store gave theirs: -1, -2, … */
};

/* --- steps (step.c): apply in order, undo in reverse --- */

/* A guest on its way in or out: the guest and, at the same index as each endpoint, its network. */
struct guest_plan {
    struct guest *guest;
    struct network *networks;
    size_t first_endpoint; /* endpoints before it are in place already (one more network for a
                              guest) */
    bool with_ports;       /* ports are part of the plan */
    int netns_fd;          /* -1 when it can't be opened (any more) or for a tap */
    int *ret_tap_fds;      /* where the open taps go, from first_endpoint on; NULL: nobody asked */
};

/* On the loop, with nothing on its way (service_settle). */
int guest_plan_apply(struct service *service, struct guest_plan *plan, struct error *error);
/* The same with links made beside the loop. When it fails at once, that is all; else `done` is
 * called later, from the loop, with what came out. The plan must stay until then. */
typedef void (*guest_plan_done_fn)(void *userdata, int r, struct error *error);
int guest_plan_start(struct service *service, struct guest_plan *plan, guest_plan_done_fn done,
                     void *userdata, struct error *error);
/* Never fails: what the kernel refuses is logged and repaired by a reconcile. Links go behind. */
void guest_plan_undo(struct service *service, struct guest_plan *plan);
/* Replaces the rules of a guest's endpoints by those of the guest as it will be (`changed`: a
 * shallow copy with other settings), in one transaction. */
int guest_rules_replace(struct service *service, const struct guest_plan *plan,
                        struct guest *changed, struct error *error);
/* Tells a VM's endpoints anew what DHCP says to them (another default route, MTU). */
int guest_leases_apply(struct service *service, const struct guest_plan *plan, struct error *error);
void guest_plan_deinit_networks(struct guest_plan *plan);
/* Loads the network of each endpoint. */
int guest_plan_load(struct service *service, struct guest *guest, struct guest_plan *ret_plan,
                    struct error *error);

int network_apply(struct service *service, const struct network *network, struct error *error);
void network_undo(struct service *service, const struct network *network);

/* --- beside the loop (beside.c) --- */
typedef int (*beside_fn)(struct link *link, void *subject, struct error *error);
/* Has fn run with the other thread's handle, after what was submitted there before, and waits for
 * it; yields. fn must not touch what the loop uses, which includes `service`. Returns what it does.
 */
int beside_run(struct service *service, beside_fn fn, void *subject, struct error *error);
/* link_prefix_list, so. */
int prefixes_list(struct service *service, struct link_prefix **ret_prefixes, size_t *ret_count,
                  struct error *error);

/* --- networks (network.c) --- */
/* From the store, with mtu_now filled. */
int network_load(struct service *service, int64_t id, struct network *ret_network,
                 struct error *error);
int network_find(struct service *service, const char *name, struct network *ret_network,
                 struct error *error);
/* Makes it: intent, kernel. preferred: the subnet where none is asked for, if it is free (NULL: no
 * matter), else one of this prefix length from the pools. */
int network_create(struct service *service, const struct network_create_params *params,
                   const char *preferred, unsigned prefix, struct network *network,
                   struct error *error);
/* Gives it another IPv4 subnet, with the first address as the gateway: the value, not the store. */
void network_take_subnet(struct network *network, const struct cidr *subnet);
void network_follow_mtu(struct service *service, struct network *network);

/* --- passages between networks (passage.c) --- */
/* Appends those from or to the network (0: all), or their removal. */
int passages_append(struct service *service, int64_t network_id, bool add, struct nat_batch *batch,
                    struct error *error);
/* Fills allowed_to and allowed_from, for an answer. */
int passages_show(struct service *service, struct network *network, struct error *error);

/* --- what the layers are told (plan.c): pure functions of the model --- */
void plan_bridge(const struct network *network, struct link_bridge *ret_bridge);
void plan_link(const struct guest_plan *plan, size_t index, struct link_endpoint *ret_endpoint);
void plan_nat_network(const struct network *network, struct nat_network *ret_network);
void plan_nat_endpoint(const struct guest_plan *plan, size_t index,
                       struct nat_endpoint *ret_endpoint);
/* What a guest on a tap is told by DHCP and router advertisements. servers: the host's resolvers,
 * for networks without a name service. */
void plan_lease(const struct guest_plan *plan, size_t index, const struct config *config,
                const struct ips *servers, struct dhcp_port *ret_port);
/* Where the relay leads what the kernel can't translate: the IPv4 address, or the IPv6 one. */
const struct ip *plan_relay_target(const struct nat_port *port);
void plan_nat_port(const struct guest_plan *plan, const struct port *port,
                   struct nat_port *ret_port);
/* Index of the endpoint that carries the family's default route and published ports: the first on a
 * network that has that family and is not internal; n_endpoints when there is none. */
size_t plan_default_endpoint(const struct guest_plan *plan, uint8_t family);
/* The endpoint whose gateway 127.0.0.1 leads to with `moat localhost`: the same, or the first. */
size_t plan_localhost_endpoint(const struct guest_plan *plan);

/* --- neighbours (neighbours.c) --- */
/* The MAC that a guest has when none is asked for. RFC 7042 section 2.1: locally administered. */
struct mac neighbours_usual_mac(const struct ip *ip);
/* An endpoint's address is free; an endpoint is up, and neighbours are told if they may know
 * another MAC for its address. */
void neighbours_left(struct service *service, const struct endpoint *endpoint,
                     const struct network *network);
void neighbours_joined(struct service *service, const struct endpoint *endpoint,
                       const struct network *network);

/* --- subnets (subnet.c) --- */
/* What the host and the other networks use; to be freed. */
struct used_prefixes {
    struct used_prefix {
        struct cidr cidr;
        char text[160]; /* "network web", "route 10.0.0.0/8 dev eth0 table 254", … */
    } * items;
    size_t count;
};
/* except_id: a network that does not count; 0: all do. */
int used_prefixes_collect(struct service *service, int64_t except_id,
                          struct used_prefixes *ret_used, struct error *error);
void used_prefixes_deinit(struct used_prefixes *used);
const struct used_prefix *used_prefixes_find(const struct used_prefixes *used,
                                             const struct cidr *cidr);
int subnet_choose(struct service *service, const char *preferred, unsigned prefix,
                  const struct used_prefixes *used, struct cidr *ret_subnet, struct error *error);
/* RFC 4193: a /64 that stays the same for this host and network name. */
int subnet6_choose(struct service *service, const char *network, const struct used_prefixes *used,
                   struct cidr *ret_subnet, struct error *error);

/* --- host settings with a memory (hostset.c) --- */
/* Turns forwarding on (of the family) and records what was there before, once. */
int hostset_forwarding_ensure(struct service *service, uint8_t address_family, struct error *error);
/* Gives everything back when no network that forwards (of that family) is left. */
void hostset_forwarding_release(struct service *service, uint8_t address_family);

/* --- guests (guest.c) --- */
/* Fills what a VMM needs, for an answer; nothing for a namespace. */
int guest_show_vmm(struct service *service, struct guest *guest, struct error *error);
/* Opens the guest's namespace, by what it was attached by or by its handle, and checks that it is
 * the one that was attached. *ret_fd is -1 when neither leads there: it is gone, or, on a kernel
 * without handles, only those who are in it know the way. */
void guest_netns_open(const struct guest *guest, int *ret_fd);
/* The same; without a handle it is looked for among all processes and mounts (link.h). */
void guest_netns_find(const struct guest *guest, int *ret_fd);
/* The error when that found nothing; says why. */
int guest_netns_lost(const struct guest *guest, struct error *error);
int guest_find(struct service *service, const char *name, struct guest *ret_guest,
               struct error *error);
/* For a result: people and scripts want a path to the namespace where there is one. */
void guest_show_netns(struct guest *guest);
/* Refuses a namespace that is another guest's. */
int netns_check_free(struct service *service, const struct guest *guest, struct error *error);
/* Gives an endpoint's addresses back and deletes its row; inside a transaction. */
int endpoint_forget(struct service *service, const struct guest *guest, size_t index,
                    const struct network *network, struct error *error);

/* --- guests that go (detach.c) --- */
/* Removes the guest from store and kernel; why: for the event. */
int guest_remove(struct service *service, struct guest *guest, const char *why,
                 struct error *error);
void guest_remove_by_id(struct service *service, int64_t guest_id, const char *why);
/* In the middle of a call: it leaves that network, and goes with the last. Fine when it has gone
 * meanwhile; no other detach of it comes in between. */
int guest_leave(struct service *service, const char *name, const char *network,
                struct error *error);

/* --- inside guests (inside.c) --- */
/* Can the guest's resolv.conf be changed, and may this caller ask for it? Fine when nobody asks. */
int inject_check(const struct guest_plan *plan, const struct peer *peer, struct error *error);
/* localhost and resolv.conf as all endpoints of the plan want them. */
int guest_inside_apply(struct service *service, const struct guest_plan *plan, struct error *error);
/* After a start: the resolv.conf; localhost only if a link is a new one, since what it remembers of
 * flows would be lost. */
int guest_inside_ensure(struct service *service, const struct guest_plan *plan, bool new_link,
                        struct error *error);
/* The same as only the endpoints before the first want them; without any, as they were. Never
 * fails: what can't be undone is logged. */
void guest_inside_undo(struct service *service, const struct guest_plan *plan);
/* Forgets what was changed, and leaves it: moatd ends. */
void inside_free_all(struct service *service);

/* --- policy (policy.c) --- */
/* Checks the rules and copies them. prefix: of the fields' names, such as "policy.". */
int policy_accept(const struct policy *policy, const char *prefix, struct policy *ret_policy,
                  struct error *error);
bool policy_has_rules(const struct policy *policy);
/* Must the guest's port be a routed one, so that its rules hold (DESIGN.md)? */
bool policy_wants_routed(const struct guest *guest, const struct network *network);
/* Names what the rules say: policies with different rules have different versions. */
uint64_t policy_version(const struct policy *policy);
/* An address of the host or of one of its networks: never public. */
bool policy_address_is_own(struct service *service, const struct ip *ip);
/* Appends the guest's policy, or its removal, if it has rules. */
int policy_append(struct nat_batch *batch, const struct guest *guest, bool add,
                  struct error *error);

/* Ends the guest's connections that its rules and mode don't allow; cut.c. Blocks for some
 * milliseconds at most. */
int policy_cut(struct service *service, struct guest *guest, struct error *error);

/* --- gaps in the rules (gap.c) --- */
/* Ends the connections that came about while rules of ours were gone, and should not have, or not
 * so. To be called when the rules are back. *ret_ended: how many there were. Blocks for some
 * milliseconds where connection tracking is full. */
int gap_close(struct service *service, const struct network *networks, size_t n_networks,
              const struct guest_plan *plans, size_t n_plans, size_t *ret_ended,
              struct error *error);

/* --- limits (limit.c) --- */
/* prefix: of the fields' names, such as "limits.". */
int limits_check(const struct limits *limits, const char *prefix, struct error *error);
/* The link that what the endpoint sends is led over. */
void limit_link_name(const struct endpoint *endpoint, char ret_name[IFNAMSIZ]);
/* Rates of an endpoint whose link is there; nothing where it has none. */
int limit_apply(struct service *service, const struct guest_plan *plan, size_t index,
                struct error *error);
void limit_undo(struct service *service, const struct guest_plan *plan, size_t index);

/* Which kind of port the guest gets on this network, or has to have now; bridged: whether it has a
 * bridged one. */
int policy_choose_port(struct service *service, const struct guest *guest,
                       const struct network *network, bool bridged, bool *ret_routed,
                       struct error *error);
/* Live ports change their kind where they must; rules were there before they do. */
int policy_move_ports(struct service *service, const struct guest_plan *plan, struct error *error);

/* --- learning (learn.c) --- */
bool learn_is_on(const struct service *service, int64_t guest_id);
/* The guest is gone. */
void learn_forget(struct service *service, int64_t guest_id);
void learn_connection_closed(struct service *service, const void *connection);
void learn_free_all(struct service *service);

/* --- ports (port.c) --- */
/* Parses, checks and binds; entries get temporary ids. On failure nothing stays bound. */
int ports_reserve(struct service *service, const struct strings *texts, const char *field,
                  const struct guest_plan *plan, struct port **ret_ports, size_t *ret_count,
                  struct error *error);
void ports_release(struct service *service, const struct port *ports, size_t count);
/* Leads the guest's published ports (before: where they led, one for each) to where `plan` says. */
int ports_retarget(struct service *service, const struct guest_plan *plan,
                   const struct nat_port *before, struct error *error);
int ports_check_guest(const struct guest_plan *plan, struct error *error);
/* So many that reserving them, or changing their rules, takes long? */
bool ports_are_many(const struct strings *texts);
bool ports_have_many_rules(const struct port *ports, size_t count);
/* Appends what leads to the guest through these ports, or its removal; nothing for those that wait.
 */
void ports_append(struct service *service, const struct guest_plan *plan, const struct port *ports,
                  size_t count, bool add, struct nat_batch *batch);
/* The same, piece by piece, each a transaction; yields. On failure nothing is added; of a removal
 * the rest is left. */
int ports_commit(struct service *service, const struct guest_plan *plan, const struct port *ports,
                 size_t count, bool add, struct error *error);

/* --- ports that others hold (waiting.c) --- */
/* At start: binds the guest's ports and tells the relay. Those that can't be had wait, and are
 * tried again until they can. Fails without memory only. */
int waiting_start(struct service *service, const struct guest_plan *plan, struct error *error);
bool port_is_waiting(const struct service *service, const struct port *port);
/* They are gone, and so are the rules of those that did not wait. */
void waiting_forget_ports(struct service *service, const struct port *ports, size_t count);
/* Fills port.waiting, for an answer. */
void waiting_show(const struct service *service, struct port *ports, size_t count);
/* How many wait, and why one of them does ("" when none does; until the next call of the loop). */
size_t waiting_count(const struct service *service, const char **ret_why);
void waiting_free_all(struct service *service);

/* --- owners (owner.c) --- */
int owner_add(struct service *service, const struct guest *guest, const void *connection,
              struct error *error);
void owner_remove(struct service *service, int64_t guest_id);
bool owner_is_alive(const struct guest *guest);
void owner_free_all(struct service *service);

/* --- name services whose port another program has (nameless.c) --- */
/* Adds the network to the name service. Where another program has the port, guests are without
 * names until it goes: that is tried again every few seconds. */
int nameless_network_add(struct service *service, const struct network *network,
                         struct error *error);
/* Whose name service waits, and why: returns false when there is none at `index`. The texts are
 * valid until the next call of the loop. */
bool nameless_get(const struct service *service, size_t index, const char **ret_network,
                  const char **ret_why);
void nameless_forget(struct service *service, int64_t network_id);
void nameless_free_all(struct service *service);

/* --- start (reconcile.c) and repair (repair.c) --- */
int reconcile_start(struct service *service, struct error *error);
/* Soon; what comes in one go is repaired in one go. */
void reconcile_schedule(struct service *service);
/* Brings a repair that is under way to its end at once; gives it up. Fine when there is none. */
void repair_finish(struct service *service);
void repair_drop(struct service *service);
/* Something was written to the store. */
void service_changed(struct service *service);
int watch_start(struct service *service, struct error *error);
void watch_stop(struct service *service);

/* --- other firewalls (firewalls.c); userdata: the service --- */
/* Opens them, or takes back what a former moatd with another configuration opened. */
void firewalls_start(struct service *service);
/* Networks or other firewalls have changed: follow them soon, if that is wanted at all. */
void firewalls_follow(void *userdata);
void firewalls_open(void *userdata);
/* Takes all of it back. */
int firewalls_close(struct service *service, struct error *error);

/* --- the host around us (surroundings.c); userdata: the service --- */
/* Does what the host has overlap the network's subnet of that family? */
bool prefix_collides(const struct link_prefix *prefix, const struct network *network);
/* Something changed: look at it soon. */
void surroundings_changed(void *userdata);
void surroundings_look(void *userdata);

/* --- the network "default" (default.c) --- */
int default_network_ensure(struct service *service, struct error *error);
/* At a start, before the kernel is made to match: moves it where it can and should, else says why
 * not. */
void default_network_follow(struct service *service);
/* Was the configuration changed and not followed (yet)? Says so in words. */
int default_network_pending(struct service *service, char *ret_text, size_t size, bool *ret_pending,
                            struct error *error);

/* --- static records (record.c) --- */
/* Refuses the names that are always answered otherwise (RFC 6761 section 6.3), for records, guests
 * and aliases. */
int record_name_check_free(const char *name, const char *field, struct error *error);

/* --- attaching (attach.c) --- */
/* Are the links of a guest of that name being made? */
bool attach_is_on_its_way(const struct service *service, const char *guest);

/* --- the daemon (service.c) --- */
/* The call that is being worked on would not bear the end of this guest from now on: that waits. */
void service_work_on(struct service *service, const char *guest);
bool service_works_on(const struct service *service, const char *guest);
uint64_t service_uptime_s(const struct service *service);
void service_close_layers(struct service *service, bool keep_running);

/* --- directories (directory.c) --- */
/* Makes and locks both. Reason in_use when another moatd has one of them. */
int directories_open(struct service *service, struct error *error);
/* Once there is a store. */
int directories_remember(struct service *service, struct error *error);
/* Removes the store and the locks, as far as they are ours, and then the directories that moatd
 * itself made, if they are empty. */
void directories_forget(struct service *service);
/* Only what directories_open made. */
void directories_unmake(struct service *service);

/* --- what is dropped (drops.c) --- */
int drops_start(struct service *service, struct error *error);
void drops_stop(struct service *service);
/* Do events tell of it? Not when another program listens in our place. */
bool drops_are_told(const struct service *service);
/* Fills what was dropped of a guest, of many guests, for an answer. */
int guest_show_drops(struct service *service, struct guest *guest, struct error *error);
int guests_show_drops(struct service *service, struct guest *guests, size_t count,
                      struct error *error);

/* --- events (event.c) --- */
void event_emit(struct service *service, const char *type, const char *network, const char *guest,
                const char *format, ...) __attribute__((format(printf, 5, 6)));
void event_emit_denied(struct service *service, const char *network, const char *guest,
                       const struct denial *denial);
