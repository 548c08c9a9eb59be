/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's side of a worker: an unprivileged child (own uid, no capabilities, seccomp, no file
 * system) of the same binary (`moatd --worker KIND`, by /proc/self/exe), spoken to in typed
 * messages over a SOCK_SEQPACKET pair.
 *
 * Workers outlive the daemon: when the control channel ends, a worker that serves somebody keeps
 * serving on the sockets that it has; one with nothing to serve ends. It listens on
 * RUN_DIR/worker-KIND.sock (made by moatd, root only, inherited as a descriptor). The next moatd
 * connects there first, asks for the sockets back (TAKEOVER: each comes by SCM_RIGHTS with its
 * address), and the old worker then drains: it accepts nothing new, finishes what runs (relayed
 * connections) and ends. The new moatd starts a fresh worker on the same sockets, so no query
 * queued and no port is lost in between, and reserved ports stay reserved while moatd is away.
 *
 * While a former worker drains, its socket file is RUN_DIR/worker-KIND.PID.sock, so that it can be
 * told of what ends, and be ended, by every moatd that comes after. Former workers that don't
 * answer are killed. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/address.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/message.h"

struct worker;

struct worker_config {
    struct loop *loop;
    const char *kind; /* "dns", "relay": [a-z]+ */
    const char *run_dir;
    uid_t uid; /* what the worker becomes */
    gid_t gid;
    bool without_root;        /* tests only: sandbox.h */
    enum log_level log_level; /* of the worker; 0: info */
};

/* Called from the loop, but for the first `started`; never from inside a function of this header.
 */
struct worker_ops {
    /* A fresh worker runs (at start, or after a crash): send it everything, sockets included. */
    void (*started)(void *userdata);
    /* A message from the worker; fds never travel this way. payload is valid during the call. */
    void (*message)(void *userdata, uint16_t type, const void *payload, size_t length);
    /* The same from a former worker that still finishes what runs; worker_send_draining answers.
     * NULL: nobody wants to know. */
    void (*message_draining)(void *userdata, uint16_t type, const void *payload, size_t length);
    /* It, or a former one, has handled more of what was sent, or is gone (worker_has_synced). NULL:
     * nobody wants to know. */
    void (*synced)(void *userdata);
};

/* Takes over from a worker that a former moatd left, then starts a fresh one. `started` is called
 * before it returns, with *ret_worker set already (not from inside supervisor restarts: then from
 * the loop). ops may be called until worker_free. Blocks while a former worker hands its sockets
 * over: microseconds for each socket; one that does not answer for 1 s is killed. */
int worker_new(const struct worker_config *config, const struct worker_ops *ops, void *userdata,
               struct worker **ret_worker, struct error *error);
/* keep_running: leave the process serving (SIGTERM of moatd). Otherwise it is ended and reaped
 * (teardown), former ones that still drain are ended, and its socket files are removed. Accepts
 * NULL. */
void worker_free(struct worker *worker, bool keep_running);
pid_t worker_pid(const struct worker *worker); /* 0 while it is being restarted */

/* Queues one message (at most WORKER_MESSAGE_MAX bytes, WORKER_FDS_MAX descriptors, duplicated by
 * the kernel: the caller keeps its own). Never blocks: what the socket does not take waits in a
 * queue in order. While the worker is being restarted the message is dropped, since `started` sends
 * everything. Fails when descriptors or memory are short: reason quota. */
int worker_send(struct worker *worker, uint16_t type, const void *payload, size_t length,
                const int *fds, size_t n_fds, struct error *error);
/* The same without descriptors, for what must not be missed: a worker that can't be told for want
 * of memory is ended, and a fresh one told everything. */
void worker_tell(struct worker *worker, uint16_t type, const void *payload, size_t length);
/* The same message, without descriptors, to the former workers that still finish what runs. Best
 * effort. */
void worker_send_draining(struct worker *worker, uint16_t type, const void *payload, size_t length);
/* Blocks until the worker, and the former ones that drain, have handled everything that was sent
 * before, or are gone: 20–50 µs when they are idle. -ETIMEDOUT after timeout_ms. One that was late
 * is not waited for again until it answers (-ETIMEDOUT at once), and is killed within a second if
 * it doesn't. */
int worker_sync(struct worker *worker, unsigned timeout_ms);
/* Asks the worker, and the former ones that drain, to say when they have handled everything that
 * was sent before, and returns the number of that; `synced` is called when worker_has_synced may
 * have become true: each has answered or its process is gone. One that stays silent for 1.5 to 3 s
 * is killed. Does not block. */
uint64_t worker_sync_begin(struct worker *worker);
bool worker_has_synced(struct worker *worker, uint64_t number);
/* Does it run and answer within timeout_ms? Blocks so long at most. */
bool worker_answers(struct worker *worker, unsigned timeout_ms);

/* A bound socket that the former worker handed back, keyed by protocol (IPPROTO_UDP/TCP), address
 * (family AF_INET6 with all zero bytes: [::]) and port; -1 when there is none. The caller owns it.
 */
int worker_inherited_take(struct worker *worker, uint8_t protocol, const struct ip *ip,
                          uint16_t port);
/* Closes what nobody took (after start-up's reconcile). */
void worker_inherited_close(struct worker *worker);
