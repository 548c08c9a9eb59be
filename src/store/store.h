/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The intent, in SQLite: the only copy of the state. WAL, foreign keys on, exclusive locking by the
 * daemon's lock file (not here). Every function runs on the caller's thread; commits are made
 * durable by a thread behind (sync.c). Rows are the structs of base/model.h.
 *
 * Errors: SQLite failures are internal errors; what the contract names (exists, address_in_use, …)
 * is set as a reason where a uniqueness rule is hit. */
#pragma once

#include "base/error.h"
#include "base/model.h"

struct store;

/* Opens or creates DIR/moat.db (mode 0600; the directory must exist), migrates the schema step by
 * step. A database of a newer version than this program is refused with a clear text. */
int store_open(const char *state_dir, struct store **ret_store, struct error *error);
void store_close(struct store *store);

/* One transaction per change. They do not nest. A commit that returned 0 survives a crash of the
 * daemon, and one of the machine as soon as store_is_durable says so; after a failure of any
 * function inside a transaction, store_commit included, the caller rolls back. store_rollback never
 * fails and is a no-op outside a transaction. Functions that write more than one row refuse to run
 * outside a transaction: networks, addresses, guests, endpoints. */
int store_begin(struct store *store, struct error *error);
int store_commit(struct store *store, struct error *error);
void store_rollback(struct store *store);

/* The number of commits so far, and whether those up to a number are on disk. Cheap. Where the
 * answer is no, fn is called once when it may have become yes, and when the disk has failed and it
 * never will: by another thread, so fn only sends a wake-up. */
typedef void (*store_durable_fn)(void *userdata);
uint64_t store_committed(const struct store *store);
bool store_is_durable(struct store *store, uint64_t commit);
void store_on_durable(struct store *store, store_durable_fn fn, void *userdata);
/* Blocks until every commit is durable, or the disk has failed. */
void store_wait_durable(struct store *store);
/* 0, or the negative errno with which the disk failed: nothing becomes durable any more. */
int store_disk_error(const struct store *store);

/* Has another thread move what commits have logged into the database file. Doesn't block; nothing
 * is lost where it can't be done. */
void store_checkpoint(struct store *store);

/* Settings that are not rows: "former sysctls", last bridge number, ULA seed, …. value NULL
 * deletes. store_setting_get: *ret_value is malloc'ed, NULL when absent. */
int store_setting_get(struct store *store, const char *key, char **ret_value, struct error *error);
int store_setting_set(struct store *store, const char *key, const char *value, struct error *error);
/* Calls fn for each setting whose key begins with prefix, in the order of the keys. All are read
 * before the first call: fn may use the store. */
typedef void (*store_setting_fn)(void *userdata, const char *key, const char *value);
int store_setting_each(struct store *store, const char *prefix, store_setting_fn fn, void *userdata,
                       struct error *error);

/* --- networks (network.c) --- */
/* Inserts, sets network->id. Reason exists when the name or the bridge is taken (text says which).
 */
int store_network_insert(struct store *store, struct network *network, struct error *error);
/* Reason in_use while guests are on it. Its addresses, their history and its static names go with
 * it. */
int store_network_delete(struct store *store, int64_t network_id, struct error *error);
/* *ret_found false when there is none; not an error. Fills everything but mtu_now and guests. */
/* Another IPv4 subnet, gateway, range and MAC for a network without guests: its addresses are
 * forgotten, resting ones too. Inside a transaction. */
int store_network_move(struct store *store, const struct network *network, struct error *error);
int store_network_find(struct store *store, const char *name, struct network *ret_network,
                       bool *ret_found, struct error *error);
int store_network_get(struct store *store, int64_t network_id, struct network *ret_network,
                      struct error *error);
/* All networks ordered by id; the array is malloc'ed, the caller deinits and frees. */
int store_network_list(struct store *store, struct network **ret_networks, size_t *ret_count,
                       struct error *error);
/* How many there are, at constant cost. */
int store_network_count(struct store *store, uint64_t *ret_count, struct error *error);
/* Is there a network of that family that is not internal? */
int store_network_forwards(struct store *store, uint8_t family, bool *ret_forwards,
                           struct error *error);
/* Names of the guests that have an endpoint on it, sorted. */
int store_network_guests(struct store *store, int64_t network_id, struct strings *ret_names,
                         struct error *error);

/* --- addresses (ipam.c) --- */
/* Takes an address for `guest_name` on the network; the caller then inserts the endpoint in the
 * same transaction. want absent or NULL: the guest's last address if it is still free, else the
 * next one that was never given, else the one that has been free for longest (which also comes
 * before never given ones once 65,536 free ones rest). Constant cost, whatever the size and fill:
 * index look-ups only. want set: exactly it. The network, broadcast and gateway addresses are never
 * given; automatic ones come from ip_range. family: AF_INET or AF_INET6, by the same rules.
 * Reasons: no_free_address (how many are used of how many), address_in_use (naming the guest that
 * has it), address_outside (also where the network has no subnet of that family). */
int store_address_take(struct store *store, const struct network *network, uint8_t family,
                       const struct ip *want, const char *guest_name, struct ip *ret_ip,
                       struct error *error);
/* Gives the address back: it rests behind all others that are free; guest_name may have it again
 * first. Nothing happens when the guest of that name does not have it. */
int store_address_release(struct store *store, const struct network *network, const struct ip *ip,
                          const char *guest_name, struct error *error);
/* Who uses the address (name copied when found). */
int store_address_find(struct store *store, int64_t network_id, const struct ip *ip,
                       char ret_guest[NAME_MAX_LENGTH + 1], bool *ret_found, struct error *error);
/* Used and all assignable IPv4 addresses of the range; constant cost. */
int store_address_count(struct store *store, const struct network *network, uint64_t *ret_used,
                        uint64_t *ret_total, struct error *error);

/* --- guests (guest.c), their endpoints (endpoint.c) and ports (port.c) --- */
/* Inserts the guest row with everything that hangs on it (endpoints, ports, policy, hosts, dns,
 * labels) and sets all the ids. Reason exists when the name is taken. Endpoint interface and
 * host_interface may be empty: host_interface then becomes "mv<endpoint id>", a form that a given
 * one may not have. After a failure the ids are without meaning. */
int store_guest_insert(struct store *store, struct guest *guest, struct error *error);
/* Deletes the guest with all that hangs on it. Addresses are released by the caller (or here: see
 * store_guest_release). */
int store_guest_delete(struct store *store, int64_t guest_id, struct error *error);
/* Releases all addresses of the guest (given as loaded) and deletes it: one call for detach. */
int store_guest_release(struct store *store, const struct guest *guest, struct error *error);
int store_guest_find(struct store *store, const char *name, struct guest *ret_guest,
                     bool *ret_found, struct error *error);
int store_guest_get(struct store *store, int64_t guest_id, struct guest *ret_guest,
                    struct error *error);
/* All guests ordered by id, complete. Yields (base/yield.h): one that goes meanwhile may be in it
 * or not. */
int store_guest_list(struct store *store, struct guest **ret_guests, size_t *ret_count,
                     struct error *error);
/* The guest that has an endpoint with this host interface. */
int store_guest_find_by_host_interface(struct store *store, const char *host_interface,
                                       struct guest *ret_guest, bool *ret_found,
                                       struct error *error);
/* The guest that has this address on the network with this bridge. */
int store_guest_find_by_address(struct store *store, const char *bridge, const struct ip *ip,
                                struct guest *ret_guest, bool *ret_found, struct error *error);
/* The guest in the network namespace of this identity (st_dev and st_ino of its nsfs file), the
 * oldest if there are several. 0 is nobody's. One index look-up. */
int store_guest_find_by_netns(struct store *store, uint64_t dev, uint64_t ino,
                              struct guest *ret_guest, bool *ret_found, struct error *error);
/* Guests and port entries, at constant cost. */
int store_guest_count(struct store *store, uint64_t *ret_guests, uint64_t *ret_ports,
                      struct error *error);
/* Endpoints of the network of either sort, at constant cost. */
int store_endpoint_count(struct store *store, int64_t network_id, bool routed, uint64_t *ret_count,
                         struct error *error);
/* Adds an endpoint to a stored guest; sets id and (when empty) host_interface. Reasons:
 * address_in_use when its MAC or an address is taken on that network, exists when the host
 * interface's name is taken or the guest is on that network already. */
int store_endpoint_insert(struct store *store, struct endpoint *endpoint, struct error *error);
int store_endpoint_delete(struct store *store, int64_t endpoint_id, struct error *error);
int store_endpoint_set_routed(struct store *store, int64_t endpoint_id, bool routed,
                              struct error *error);
/* Is the MAC taken on the network (0: on any)? By whom (name copied when found). */
/* network_id 0: on any network. */
int store_mac_find(struct store *store, int64_t network_id, const struct mac *mac,
                   char ret_guest[NAME_MAX_LENGTH + 1], bool *ret_found, struct error *error);
/* Replace what was there. Reason not_found without such a guest. */
int store_guest_set_policy(struct store *store, int64_t guest_id, enum guest_mode mode,
                           const struct policy *policy, struct error *error);
int store_guest_set_limits(struct store *store, int64_t guest_id, const struct limits *limits,
                           struct error *error);
int store_guest_set_localhost(struct store *store, int64_t guest_id, bool on, struct error *error);

/* Ports: insert sets the id; reason port_in_use where it would overlap another, of the same guest
 * too, naming the holder. host_port must have been chosen. store_port_overlap: is any port of
 * [first, first+count) of that protocol taken on an overlapping host address (absent overlaps every
 * address)? Fills the holder's name and the entry. Index look-ups only. */
int store_port_insert(struct store *store, struct port *port, struct error *error);
int store_port_delete(struct store *store, int64_t port_id, struct error *error);
int store_port_overlap(struct store *store, const struct port *port,
                       char ret_guest[NAME_MAX_LENGTH + 1], struct port *ret_port, bool *ret_found,
                       struct error *error);

/* --- passages between networks (passage.c) --- */
/* Those that lead from or to the network (0: all), by networks and ports. */
int store_passage_list(struct store *store, int64_t network_id, struct passage **ret_passages,
                       size_t *ret_count, struct error *error);
/* What is open from one network to another. */
int store_passage_get(struct store *store, int64_t from_id, int64_t to_id,
                      struct port_spans *ret_spans, struct error *error);
/* Replaces it; inside a transaction. */
int store_passage_set(struct store *store, int64_t from_id, int64_t to_id,
                      const struct port_spans *spans, struct error *error);
/* How many there are, at constant cost. */
int store_passage_count(struct store *store, uint64_t *ret_count, struct error *error);

/* --- static names (record.c) --- */
/* Sets the id. Reason exists when that name has that value there already. Names are compared
 * without regard to case. */
int store_record_insert(struct store *store, struct dns_record *record, struct error *error);
/* Reason not_found when it is not there. */
int store_record_delete_by_id(struct store *store, int64_t record_id, struct error *error);
/* All of them, or those of one name on whatever networks, in the order of their ids. The caller
 * frees them by dns_records_free. */
int store_record_list(struct store *store, struct dns_record **ret_records, size_t *ret_count,
                      struct error *error);
int store_record_list_by_name(struct store *store, const char *name,
                              struct dns_record **ret_records, size_t *ret_count,
                              struct error *error);
/* How many there are, at constant cost. */
int store_record_count(struct store *store, uint64_t *ret_count, struct error *error);
