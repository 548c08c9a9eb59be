/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Entries of connection tracking as ctnetlink gives them, in dumps and events
 * (linux/netfilter/nfnetlink_conntrack.h). */
#pragma once

#include <libmnl/libmnl.h>

#include "base/address.h"

struct tuple {
    struct ip source;
    struct ip destination;
    uint8_t protocol;
    uint16_t source_port;
    uint16_t destination_port;
};

struct entry {
    struct tuple original;
    struct tuple reply;
    uint32_t status;
    const struct nlattr *original_raw;
    const struct nlattr *zone_raw;
    const struct nlattr *id_raw;
};

/* The raw attributes point into the message. */
void entry_read(const struct nlmsghdr *message, struct entry *entry);
