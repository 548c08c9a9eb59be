/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to ctnetlink (linux/netfilter/nfnetlink_conntrack.h), and which of its filters can be
 * relied on. */
#pragma once

#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"

/* The kernel's bits for CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS, which its headers don't export
 * (net/netfilter/nf_internals.h). */
#define CTNETLINK_IP_SRC (1u << 0)
#define CTNETLINK_PROTO_NUM (1u << 3)
#define CTNETLINK_PROTO_DST_PORT (1u << 5)

/* Begins a message (IPCTNL_MSG_CT_*) in buffer. */
struct nlmsghdr *ctnetlink_put(char *buffer, uint16_t type, uint16_t flags, uint8_t family,
                               uint32_t sequence);
/* Which parts of the two tuples count. Linux 5.8 on for dumps, 6.11 on for DELETE; older ones
 * refuse it. */
void ctnetlink_put_filter(struct nlmsghdr *message, uint32_t original, uint32_t reply);
/* tuple: CTA_TUPLE_ORIG or _REPLY, with nothing but its source or its protocol and port. */
void ctnetlink_put_source(struct nlmsghdr *message, uint16_t tuple, const struct ip *source);
void ctnetlink_put_port(struct nlmsghdr *message, uint16_t tuple, uint8_t protocol, uint16_t port);

/* Does a filter by source address find the entries of that address, and those only? Linux 6.18
 * compares IPv6 addresses the other way round, and means everything *but* what was asked for.
 * So it is tried on two entries made for the purpose, in a zone that nothing else uses, which are
 * gone again when this returns. False when they can't be made. Blocks: two walks of the table at
 * most, each for milliseconds where it is large. */
bool ctnetlink_filter_works(uint8_t family);
