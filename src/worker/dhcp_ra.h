/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Router advertisements (RFC 4861; RDNSS and DNSSL RFC 8106) for one port. Addresses come by DHCPv6
 * only (managed, no autonomous prefix): a guest that made one of its own would answer from an
 * address that is not its own on the network. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/dhcp_frame.h"
#include "worker/dhcp_message.h"

#define RA_MAX 1024           /* bytes of an advertisement */
#define RA_INTERVAL_MIN_S 200 /* between unsolicited ones: RFC 4861 section 6.2.1 */
#define RA_INTERVAL_MAX_S 600
#define RA_ROUTER_LIFETIME_S 1800

/* Is it a valid router solicitation (RFC 4861 section 6.1.1)? */
bool ra_solicitation_is_valid(const struct frame *frame);
/* Writes the ICMPv6 message, its checksum left 0. Returns its length. */
size_t ra_write(const struct dhcp_port *port, uint8_t buffer[RA_MAX]);
