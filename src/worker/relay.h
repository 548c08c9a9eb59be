/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside the relay worker: the sockets that moatd gave, and what runs through them. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "worker/relay_message.h"
#include "worker/runtime.h"

/* Limits on what clients and guests can make the worker hold. At a limit the one that was idle
 * longest makes place; a TCP connection only if it was idle for RELAY_SHED_IDLE_MS, else the
 * newcomer is refused. */
#define RELAY_FLOWS_MAX 16384         /* TCP connections in all */
#define RELAY_FLOWS_PER_PORT_MAX 4096 /* through one socket */
#define RELAY_SESSIONS_MAX 8192       /* UDP sessions in all */
#define RELAY_SESSIONS_PER_PORT_MAX 1024
#define RELAY_SHED_IDLE_MS 30000
#define RELAY_CONNECT_TIMEOUT_MS 10000
#define RELAY_HALF_CLOSED_IDLE_MS 600000 /* one side has finished, the other says nothing */
#define RELAY_SESSION_IDLE_MS 60000
#define RELAY_SWEEP_INTERVAL_MS 2000

/* A ring of links; an empty one points to itself. */
struct relay_link {
    struct relay_link *previous;
    struct relay_link *next;
};

void relay_link_init(struct relay_link *link);
void relay_link_append(struct relay_link *ring, struct relay_link *link); /* as the last */
void relay_link_remove(struct relay_link *link); /* links itself after it */
bool relay_ring_is_empty(const struct relay_link *ring);
#define RELAY_CONTAINER(link, type, member) \
    ((type *)(void *)((char *)(link)-offsetof(type, member)))

struct relay;
struct relay_udp;

struct relay_socket {
    struct relay_socket *next; /* of the same protocol and port */
    struct relay *relay;
    struct worker_socket key;
    int fd; /* -1: given up, while flows still run (draining) */
    struct loop_io *io;
    struct sockaddr_storage target;
    socklen_t target_length;   /* 0: clients are refused */
    bool has_target;           /* false: clients wait */
    struct relay_link running; /* flows or sessions through it, the longest idle first */
    size_t n_running;
};

struct relay {
    struct loop *loop;
    struct worker_runtime *runtime;
    struct loop_io *runtime_io;
    struct loop_timer *sweep_timer;
    struct loop_timer *accept_timer; /* accepting pauses while descriptors are short */
    struct relay_socket **tcp;       /* by port */
    struct relay_socket **udp;
    size_t n_sockets;
    bool draining;
    bool accept_paused;
    struct relay_link flows; /* all, the longest idle first */
    size_t n_flows;
    struct relay_link sessions;
    size_t n_sessions;
    struct relay_udp *udp_sessions;
    unsigned char *scratch; /* RELAY_SCRATCH_SIZE bytes, for one call */
};

#define RELAY_SCRATCH_SIZE 65536

/* --- relay.c --- */
int relay_new(struct worker_runtime *runtime, struct relay **ret_relay, struct error *error);
void relay_free(struct relay *relay);
/* A flow or session of the socket has ended: a draining worker may give it up. May free the socket.
 */
void relay_socket_settle(struct relay_socket *socket);
/* Something runs: idle times are looked at from now on. */
void relay_sweep_start(struct relay *relay);
/* Descriptors are short: nothing is accepted for a moment. */
void relay_accept_pause(struct relay *relay);

/* --- relay_tcp.c --- */
void relay_tcp_accept(struct relay_socket *socket);  /* the listener is readable */
void relay_tcp_end_all(struct relay_socket *socket); /* resets both ends of each; no settling */
void relay_tcp_sweep(struct relay *relay, uint64_t now_ms);

/* --- relay_udp.c --- */
int relay_udp_new(struct relay_udp **ret_udp);
void relay_udp_free(struct relay_udp *udp);
void relay_udp_socket_init(const struct relay_socket *socket);
void relay_udp_receive(struct relay_socket *socket); /* the bound socket is readable */
void relay_udp_end_all(struct relay_socket *socket); /* no settling */
void relay_udp_sweep(struct relay *relay, uint64_t now_ms);
