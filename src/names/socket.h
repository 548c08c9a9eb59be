/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The name service's sockets, as moatd binds them for the worker. */
#pragma once

#include "base/address.h"
#include "base/error.h"

/* Binds UDP or TCP (protocol: IPPROTO_…) on the address, which the host need not have yet. TCP
 * listens. Non-blocking, close-on-exec. Reason port_in_use, naming the program where it is known.
 */
int names_socket_bind(uint8_t protocol, const struct ip *ip, uint16_t port, int *ret_fd,
                      struct error *error);
