/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Published ports hold a bound socket on the host for as long as they are published, so that no
 * program can bind them meanwhile and a port that a program holds is refused. For every address:
 * one dual-stack [::] socket (AF_INET alone where the host has no IPv6); for one address: one
 * socket on it. TCP sockets on IPv6 listen, and are served by the relay worker (worker/relay.c),
 * which carries what the kernel can't translate: IPv6 clients, [::1] included, of an IPv4 guest.
 * TCP on IPv4 addresses listens nowhere: the kernel translates before a socket is looked up.
 *
 * The relay worker has all of the sockets too, so that ports stay reserved while moatd is away. */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/model.h"

struct reservations; /* all of them, and the relay worker */

/* More of what was given back may be free (reserve_release). Called from the loop. */
typedef void (*reserve_released_fn)(void *userdata);

struct reservations_config {
    struct loop *loop;
    reserve_released_fn on_released; /* NULL: nobody wants to know */
    void *userdata;
    const char *run_dir;
    uid_t uid;
    gid_t gid;
    bool without_root;        /* tests only: the relay's sandbox leaves out what needs root */
    enum log_level log_level; /* of the relay; 0: info */
};

/* Takes over from the relay of a former moatd and starts a fresh one. Blocks as worker_new does. */
int reservations_new(const struct reservations_config *config,
                     struct reservations **ret_reservations, struct error *error);
/* keep_running: ports stay reserved and relayed (SIGTERM of moatd). Otherwise all is given back.
 * Accepts NULL. */
void reservations_free(struct reservations *reservations, bool keep_running);
/* The relay worker's; 0 while it is being restarted. */
pid_t reservations_pid(const struct reservations *reservations);

/* Does the relay worker run and answer? Blocks for 100 ms at most. */
bool reservations_answer(struct reservations *reservations);

/* Binds all ports of the entry (port->id names it; it must not be there). boot: addresses that the
 * host does not have yet are fine (IP_FREEBIND), and sockets of the former relay are used. Reasons:
 * port_in_use, naming program and pid where /proc tells (sock_diag, then the fd tables),
 * address_outside when host_ip is no address of the host (not with boot), permission_denied, quota
 * when descriptors are short. Nothing stays bound on failure. A range of 10,000 takes milliseconds.
 * Does not block. */
int reserve_port(struct reservations *reservations, const struct port *port, bool boot,
                 struct error *error);
/* Picks a free port of the ephemeral range (net.ipv4.ip_local_port_range, without those of
 * ip_local_reserved_ports) for `count` consecutive ports, binds it and sets port->host_port. Reason
 * port_in_use when there is none, else as reserve_port. */
int reserve_port_any(struct reservations *reservations, struct port *port, struct error *error);
/* Where the relay leads this entry: the guest's address (IPv4 where it has one: what comes by IPv6
 * is translated in the kernel where the guest has that), port->guest_port as it was given at
 * reserve_port. Absent: clients of the relay are refused; before this call they wait.
 * Unknown ids are an internal error. */
int reserve_relay_to(struct reservations *reservations, int64_t port_id, const struct ip *guest_ip,
                     struct error *error);
/* port->id is known only after the store's insert: renames the entry made under a temporary
 * (negative) id. */
void reserve_rename(struct reservations *reservations, int64_t old_id, int64_t new_id);
/* Gives the ports back and ends what is relayed through them. They are free as soon as the relay
 * has let go of them too, and of a long range when a thread of ours has closed it then: when
 * reserve_is_released is true of the number that reserve_released has now, and reserve_is_closed of
 * reserve_closing's. That takes 20–50 µs, 10 µs more for each of a range, longer where the machine
 * is busy; a relay that hangs is ended within 3 s. Does not block. Unknown ids are ignored. */
void reserve_release(struct reservations *reservations, int64_t port_id);
uint64_t reserve_released(const struct reservations *reservations);
bool reserve_is_released(struct reservations *reservations, uint64_t release);
uint64_t reserve_closing(const struct reservations *reservations);
bool reserve_is_closed(const struct reservations *reservations, uint64_t closing);
/* Waits until everything that was given back is free: for the relay 200 ms at most, up to a second
 * more for a former relay that hangs and is ended, and 200 ms for what is being closed. Yields
 * (base/yield.h). */
void reserve_released_wait(struct reservations *reservations);
/* After start-up: sockets of the former relay that nobody claimed are closed. */
void reservations_settled(struct reservations *reservations);
