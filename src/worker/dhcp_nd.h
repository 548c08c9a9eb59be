/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Neighbour discovery (RFC 4861) for one routed port: nobody but the host is on its link, and the
 * host answers for the rest of the subnet, as proxy ARP does for IPv4. So a guest whose prefix is
 * configured on its link, by hand or by the VMM, reaches its neighbours all the same. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/dhcp_frame.h"
#include "worker/dhcp_message.h"

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT_SIZE 32

/* Is it a valid neighbour solicitation (RFC 4861 section 7.1.1) that the host answers on this port:
 * for an address of the subnet that is not the guest's own? One that looks for duplicates is not
 * answered: the guest would give its address up. */
bool nd_solicitation_is_answered(const struct dhcp_port *port, const struct frame *frame,
                                 struct ip *ret_target);
/* Writes the ICMPv6 message, its checksum left 0: target is at the host's MAC. */
void nd_write(const struct dhcp_port *port, const struct ip *target,
              uint8_t buffer[ND_ADVERTISEMENT_SIZE]);
