/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What moat does: one function per RPC method. Each validates against the store, writes the intent
 * in one transaction, makes the kernel match, and answers; on failure it undoes in reverse and the
 * store is as before. Start-up and repair are the same apply over everything (reconcile.c).
 * Called from one thread, the loop's; calls block for as long as the kernel takes (microseconds to
 * a few milliseconds). Results are the caller's to deinit. */
#pragma once

#include "base/api.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/model.h"
#include "service/config.h"

struct service;

/* Who is asking. */
struct peer {
    int32_t pid; /* as we see it; 0 when it is outside our pid namespace */
    uint64_t pid_start;
    uint32_t uid;
    const void *connection; /* identity only: ephemeral guests end with it */
};

/* Fills pid_start, by which a pid that is reused is told; pid becomes 0 when the process has ended
 * already. */
void service_peer_identify(struct peer *peer);

typedef void (*service_event_fn)(void *userdata, const struct event *event);

/* Opens the store, the kernel's sockets and the workers, makes the kernel match the store, makes
 * the network `default`, and starts watching. config must outlive it. Reason in_use when another
 * moatd has the directories. */
int service_new(const struct config *config, struct loop *loop, service_event_fn on_event,
                void *userdata, struct service **ret_service, struct error *error);
/* The daemon can't serve: what service_new made goes again, unless a former moatd has left
 * something. */
void service_give_up(struct service *service);
/* Leaves the data plane in place (SIGTERM), unless it was torn down. */
void service_free(struct service *service);
/* After system.teardown: nothing is left to serve, the daemon ends. */
bool service_is_torn_down(const struct service *service);
/* The connection is gone: its ephemeral guests end. */
void service_connection_closed(struct service *service, const void *connection);

/* What an answer promises: what was written, up to a commit, is on disk; what was given back, up to
 * a release, other programs can bind. */
struct promise {
    uint64_t commit;
    uint64_t release; /* by the relay */
    uint64_t closing; /* of long ranges: by us, when the relay has */
};

/* Who waits for service_is_kept, service_is_settled or service_is_released to become true is told
 * from the loop when one of them may be. */
typedef void (*service_progress_fn)(void *userdata);
void service_on_progress(struct service *service, service_progress_fn fn, void *userdata);

/* An answer that is given now promises service_promised, and waits until that is kept. When the
 * disk fails the loop is stopped instead, and service_has_failed is true. Without a store (torn
 * down) everything is kept. */
struct promise service_promised(const struct service *service);
/* What it promises beyond `before`; all zero, which is kept, where that is nothing. */
struct promise promise_since(const struct promise *promise, const struct promise *before);
struct promise promise_both(const struct promise *one, const struct promise *other);
bool promise_is_empty(const struct promise *promise);
bool service_is_kept(struct service *service, const struct promise *promise);
/* Blocks until everything promised is kept, or the disk has failed. */
void service_wait_kept(struct service *service);
bool service_has_failed(const struct service *service);

int service_network_create(struct service *service, const struct network_create_params *params,
                           struct network *ret_network, struct error *error);
int service_network_list(struct service *service, struct network **ret_networks, size_t *ret_count,
                         struct error *error);
int service_network_get(struct service *service, const char *name, struct network *ret_network,
                        struct error *error);
int service_network_remove(struct service *service, const struct network_remove_params *params,
                           struct error *error);
int service_network_prune(struct service *service, struct strings *ret_names, struct error *error);

int service_network_allow(struct service *service, const struct passage_params *params,
                          struct error *error);
int service_network_deny(struct service *service, const struct passage_params *params,
                         struct error *error);

/* Links of guests are made and removed beside the loop, one after the other: nobody waits there for
 * the kernel's configuration lock. So an attach is answered later, by `done`, and may be so before
 * the call returns; when the call fails, `done` is not called. peer, params and fds (descriptors
 * that came with the request) are borrowed until then. On success *guest is the callee's, and so
 * are the descriptors to send back; on failure guest is NULL. A detach answers when nothing passes
 * any more; the link goes behind. All other calls are to be made when nothing is on its way:
 * service_settle before. */
typedef void (*service_attached_fn)(void *userdata, struct guest *guest, const int *fds,
                                    size_t n_fds, struct error *error);
int service_guest_attach(struct service *service, const struct peer *peer,
                         struct guest_attach_params *params, const int *fds, size_t n_fds,
                         service_attached_fn done, void *userdata, struct error *error);
/* Must nothing be on its way when this attach begins (service_settle)? A guest that joins is
 * changed like by any other call, and a name that was just given back may still be that of a link.
 */
bool service_attach_settles(const struct guest_attach_params *params);
/* Are all ports free that were given back up to there (`release` and `closing`)? Who wants ports is
 * better heard when they are. */
bool service_is_released(struct service *service, const struct promise *promise);
/* Is nothing on its way? */
bool service_is_settled(struct service *service);
/* A call that is not one of these begins, and others may come in its middle (base/yield.h):
 * detaches that need not wait until all is settled (service_detach_settles), and
 * service_detach_flush. Nothing counts as settled until its end. */
void service_work_begin(struct service *service);
void service_work_end(struct service *service);
bool service_is_working(const struct service *service);
/* Blocks until no attach is on its way any more (each is told of first) and no link that is to go
 * is there. */
void service_settle(struct service *service);
/* Detaches that come together go together: `done` is called from service_detach_flush, which the
 * caller calls when it has no more of them at hand; until then params must stay. r < 0: refused,
 * error says why. of: what the guest was; a namespace is gone after a crash of the machine, and its
 * guest with it, so nobody need wait for the disk, whereas a tap would be back. */
typedef void (*service_detached_fn)(void *userdata, int r, enum guest_kind of, struct error *error);
int service_guest_detach(struct service *service, const struct guest_detach_params *params,
                         service_detached_fn done, void *userdata, struct error *error);
void service_detach_flush(struct service *service);
/* Must nothing be on its way when this detach begins? */
bool service_detach_settles(const struct service *service,
                            const struct guest_detach_params *params);
int service_guest_list(struct service *service, struct guest **ret_guests, size_t *ret_count,
                       struct error *error);
int service_guest_get(struct service *service, const char *name, struct guest *ret_guest,
                      struct error *error);

int service_port_add(struct service *service, const struct port_params *params,
                     struct port **ret_ports, size_t *ret_count, struct error *error);
int service_port_remove(struct service *service, const struct port_params *params,
                        struct error *error);
int service_port_list(struct service *service, const struct guest_params *params,
                      struct port **ret_ports, size_t *ret_count, struct error *error);

int service_policy_get(struct service *service, const struct guest_params *params,
                       struct policy_result *ret_policy, struct error *error);
int service_policy_set(struct service *service, const struct policy_set_params *params,
                       struct policy_result *ret_policy, struct error *error);
int service_policy_test(struct service *service, const struct policy_test_params *params,
                        struct policy_test_result *ret_result, struct error *error);
int service_limit_get(struct service *service, const struct guest_params *params,
                      struct limits *ret_limits, struct error *error);
int service_limit_set(struct service *service, const struct limit_set_params *params,
                      struct limits *ret_limits, struct error *error);
/* Bound to the peer's connection. */
int service_policy_learn(struct service *service, const struct peer *peer,
                         const struct learn_params *params, struct error *error);
int service_policy_learned(struct service *service, const struct guest_params *params,
                           struct learn_result *ret_result, struct error *error);
int service_localhost_set(struct service *service, const struct localhost_params *params,
                          struct error *error);

int service_dns_list(struct service *service, const struct dns_params *params,
                     struct record_result **ret_records, size_t *ret_count, struct error *error);
int service_dns_add(struct service *service, const struct dns_params *params, struct error *error);
int service_dns_log(struct service *service, const struct dns_log_params *params,
                    struct dns_log_result *ret_result, struct error *error);
int service_dns_flush(struct service *service, const struct dns_flush_params *params,
                      struct error *error);
int service_dns_remove(struct service *service, const struct dns_params *params,
                       struct error *error);

int service_status(struct service *service, struct status_result *ret_status, struct error *error);
int service_doctor(struct service *service, struct check_result **ret_checks, size_t *ret_count,
                   struct error *error);
/* Removes everything that moat ever made, the database included. */
int service_teardown(struct service *service, struct error *error);

/* Names of the fault points of all layers, NULL-terminated (moatd --list-fault-points). */
extern const char *const service_fault_points[];
