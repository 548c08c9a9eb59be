/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the table dropped, as the kernel tells of it (NFLOG, nfnetlink_log): at most a few packets
 * a second for each endpoint, which the sets see to (sets.c). Headers only are taken over, and read
 * by denial_parse alone. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/error.h"
#include "base/loop.h"

struct nat_log;

enum nat_log_kind {
    NAT_LOG_DROPPED, /* a source that was not given to the endpoint */
    NAT_LOG_LIMITED, /* a connection too many */
    NAT_LOG_DENIED,  /* a connection that policy or the table's own rules refuse */
};

/* One packet. */
struct nat_log_entry {
    enum nat_log_kind kind;
    uint32_t interface; /* index of the link that it came in by: the port of a bridge, for
                           NAT_LOG_DROPPED */
    struct ip source;   /* absent for NAT_LOG_DROPPED */
    struct ip destination;
    uint8_t protocol;
    uint16_t port; /* destination; 0 where the protocol has none, or it is out of sight */
};

typedef void (*nat_log_fn)(void *userdata, const struct nat_log_entry *entry);

/* Binds to the group in the caller's network namespace. What comes is handed over from the loop.
 * Needs CAP_NET_ADMIN. Reason busy when another program listens to the group. */
int nat_log_open(struct loop *loop, nat_log_fn fn, void *userdata, struct nat_log **ret_log,
                 struct error *error);
void nat_log_close(struct nat_log *log);

/* Reads the beginning of an IPv4 or IPv6 packet as the kernel gave it: any bytes. -EINVAL for what
 * is none. Pure. */
int nat_log_parse_packet(const uint8_t *data, size_t length, struct nat_log_entry *entry);
