/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's side of DHCP and router advertisements for guests on taps: it opens a packet socket
 * on each tap and tells the DHCP worker (worker/dhcp.c) what the guest behind it may be told.
 * Calls never block; what the worker is owed after a crash is sent again from the copy here. */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "base/loop.h"
#include "worker/dhcp_message.h"

struct leases;

struct leases_config {
    struct loop *loop;
    const char *run_dir;
    uid_t uid;
    gid_t gid;
};

int leases_new(const struct leases_config *config, struct leases **ret_leases, struct error *error);
void leases_free(struct leases *leases, bool keep_running);

/* Serves the guest of this endpoint on its tap, which is there; replaces what was said before. The
 * socket is opened anew only when the tap is another one. */
int leases_port_set(struct leases *leases, int64_t endpoint_id, const char *interface,
                    const struct dhcp_port *port, struct error *error);
/* Fine when it is not there. */
void leases_port_remove(struct leases *leases, int64_t endpoint_id);
/* After start-up: sockets of the former worker that nobody claimed are closed. */
void leases_settled(struct leases *leases);
/* The worker's process; 0 while it is being restarted. */
pid_t leases_pid(const struct leases *leases);
