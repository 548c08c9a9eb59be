/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One socket that reserves one port. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"

/* Binds a socket so that no other program can bind the port on that address (both_families: an
 * unspecified IPv6 one means every address of both), whatever options it sets. TCP on IPv6 listens.
 * TIME_WAIT remnants of former connections don't stand in the way (reserve_socket.c). freebind: the
 * host need not have the address. 0, or -EADDRINUSE, -EADDRNOTAVAIL
 * (-EINVAL for an IPv6 link-local one), -EACCES, -EMFILE, … of socket(2), bind(2), listen(2). */
int reserve_socket_open(uint8_t protocol, const struct ip *ip, bool both_families, uint16_t port,
                        bool freebind, int *ret_fd);

/* Makes room in the descriptor table for count more at once. The kernel doubles the table again and
 * again otherwise, and waits for an RCU grace period (10–20 ms) at each step in a program with
 * threads. */
void reserve_socket_prepare(unsigned count);
