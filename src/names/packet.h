/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Packet sockets on taps, as moatd opens them for the DHCP worker (packet(7)). */
#pragma once

#include <stdint.h>

#include "base/address.h"
#include "base/error.h"

/* Opens a socket that receives, of everything that the guest behind this interface sends from its
 * own MAC, only what is meant for a DHCP server or a router: UDP to ports 67 (IPv4) and 547 (IPv6),
 * router solicitations. The filter is locked: whoever gets the socket can't widen it. Non-blocking,
 * close-on-exec, the caller's. Needs CAP_NET_RAW. Does not block. */
int packet_socket_open(uint32_t interface, const struct mac *mac, int *ret_fd, struct error *error);
