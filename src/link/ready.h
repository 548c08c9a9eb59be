/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel finishes some of what it was told behind the answer, from queues; who is told "done"
 * and sends a packet at once loses it, and a lost ARP or neighbour solicitation costs a second.
 * These wait for it, mostly for one question's time, READY_WAIT_US at most: what is late is not an
 * error, and a link that is gone is not waited for. Private to link/. */
#pragma once

#include "handle.h"

/* Until what is handed to the link leaves, and its bridge forwards for it (the link watch). */
void ready_await_carrier(struct netlink *netlink, uint32_t index);
/* Until the link takes neighbour solicitations for these IPv6 addresses, which are its own: it
 * joins their solicited-node groups (RFC 4291 section 2.7.1) some time after it got them. */
void ready_await_groups(struct netlink *netlink, uint32_t index, const struct ip *addresses,
                        size_t count);
