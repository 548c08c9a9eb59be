/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a worker process has: its channel to moatd, and the protocol that every kind shares
 * (takeover, end).
 *
 * A kind is one function, `int KIND_worker_run(struct worker_runtime *)`. worker_main calls it
 * inside the sandbox: no file can be opened, no program started, only IPv4 and IPv6 sockets made.
 * Logging works (stderr). The kind
 *
 * 1. makes its state and calls worker_runtime_start with its callbacks,
 * 2. waits for its own descriptors and worker_runtime_fd, in whatever loop it likes (it is an
 *    epoll instance, which may be put into another one or into a libev loop), and calls
 *    worker_runtime_handle when that is readable, which calls back,
 * 3. returns 0 as soon as worker_runtime_is_done, asked once per turn of its loop.
 *
 * States, which only the runtime moves:
 *
 * - serving: a moatd is there.
 * - orphaned: moatd is gone (the control channel ended). The worker goes on as it is, and is done
 *   when serves() is false.
 * - draining: a new moatd took the sockets over, drain() was called. Done when serves() is false.
 *   The new moatd's connection is the control channel now: messages may still come (a port that
 *   is released ends what runs there), and when it ends too, draining goes on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/message.h"

struct worker_runtime;
struct worker_handover;

struct worker_kind_ops {
    /* One message from moatd (type >= WORKER_FIRST_OWN), in the order sent; payload (aligned for
     * any type) and fds are valid during the call. A descriptor that is kept is taken by
     * TAKE_FD(fds[i]); what is left in the array is closed. All descriptors are close-on-exec;
     * O_NONBLOCK is as moatd made them. The sender is trusted, but check `length` against the
     * payload's type. */
    void (*message)(void *userdata, uint16_t type, const void *payload, size_t length, int *fds,
                    size_t n_fds);
    /* A takeover: call worker_handover_add for each socket that moatd gave (bound ones, not those
     * that were accepted or connected). Each stays open here too. */
    void (*sockets)(void *userdata, struct worker_handover *handover);
    /* Next, once: accept and receive nothing new; finish what runs. Sockets that this does not need
     * are closed. */
    void (*drain)(void *userdata);
    /* Does the worker still serve anybody? Before drain: has it any socket that clients use; after:
     * does anything still run. */
    bool (*serves)(void *userdata);
};

/* From here on messages are delivered (nothing is lost that came before). ops must stay valid. */
void worker_runtime_start(struct worker_runtime *runtime, const struct worker_kind_ops *ops,
                          void *userdata);
/* Readable when worker_runtime_handle has something to do (level-triggered). */
int worker_runtime_fd(const struct worker_runtime *runtime);
/* Takes everything that has arrived, calls back, returns. Never blocks, but for the moment in which
 * sockets are handed over (at most 1 s). With nothing there: one system call. A kind whose answers
 * must reflect all that moatd said before calls this before it answers (names). */
void worker_runtime_handle(struct worker_runtime *runtime);
/* Queues one message for moatd (type >= WORKER_FIRST_OWN, at most WORKER_MESSAGE_MAX bytes); never
 * blocks. 0, -ENOTCONN when nobody listens, -ENOBUFS when moatd is behind by more than 256
 * messages. Both may be ignored: what moatd must know is sent again when it asks. */
int worker_runtime_send(struct worker_runtime *runtime, uint16_t type, const void *payload,
                        size_t length);
/* Time to return: moatd is gone or has taken over, and nobody is served any more. */
bool worker_runtime_is_done(struct worker_runtime *runtime);
bool worker_runtime_is_draining(const struct worker_runtime *runtime);

/* Adds one socket to the handover; fd is duplicated by the kernel. The key is what
 * worker_inherited_take asks by: protocol, address family, port and address as moatd bound it. */
void worker_handover_add(struct worker_handover *handover, const struct worker_socket *socket,
                         int fd);

/* The kinds (worker.c has the table). Returns the process's exit status. */
int dns_worker_run(struct worker_runtime *runtime);
int relay_worker_run(struct worker_runtime *runtime);
int dhcp_worker_run(struct worker_runtime *runtime);
