/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What moatd (nat/reserve.c) tells the relay worker. Sockets are known by what they are bound to; a
 * range is one message or a few, never one for each port. */
#pragma once

#include "base/address.h"
#include "worker/message.h"

enum {
    /* struct relay_range + a descriptor for each port of it (at most WORKER_FDS_MAX): hold them.
     * TCP sockets of family AF_INET6 listen already. */
    RELAY_SOCKETS = WORKER_FIRST_OWN,
    /* struct relay_target: serve those of the range that are IPv6 sockets, each with its guest
     * port. Before it, clients wait. */
    RELAY_TARGET,
    /* struct relay_range: close them, and what is relayed through them. */
    RELAY_RELEASE,
};

/* count sockets on one address, from `first.port` upward. */
struct relay_range {
    struct worker_socket first;
    uint32_t count;
};

struct relay_target {
    struct relay_range range;
    struct ip guest_ip;  /* absent: clients are refused */
    uint16_t guest_port; /* of the first; the others follow */
    uint16_t reserved;   /* 0 */
};
