/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tells of connections as they are opened through the host: ctnetlink's events. */
#pragma once

#include "base/address.h"
#include "base/error.h"
#include "base/loop.h"

struct flow {
    struct ip source;
    struct ip destination; /* that was called: before translation */
    uint8_t protocol;
    uint16_t port; /* of the destination, where the protocol has ports */
};

/* NULL: the kernel had more to tell than was taken, and some are missed. */
typedef void (*flow_fn)(void *userdata, const struct flow *flow);

struct flow_watch;
/* Calls fn from the loop until flow_watch_free. Reason not_supported where the host's
 * net.netfilter.nf_conntrack_events turns them off. Needs CAP_NET_ADMIN; does not block. */
int flow_watch_new(struct loop *loop, flow_fn fn, void *userdata, struct flow_watch **ret_watch,
                   struct error *error);
void flow_watch_free(struct flow_watch *watch); /* accepts NULL */
