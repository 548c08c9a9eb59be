/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which upstream servers are asked for names below a suffix, whoever asks. The longest suffix wins;
 * names below none go to the asker's own servers. */
#pragma once

#include "worker/dns_codec.h"
#include "worker/dns_table.h"
#include "worker/dns_upstream.h"

struct dns_routes {
    struct dns_table table; /* of struct dns_route, by suffix */
    unsigned most_labels;   /* of the longest suffix; 0: there is none */
};

/* Takes a reference of its own; replaces what the suffix had. 0, -EINVAL (no name, or the root) or
 * -ENOMEM. */
int dns_routes_set(struct dns_routes *routes, const char *suffix, struct dns_upstreams *upstreams);
/* NULL: the name is below no suffix. */
struct dns_upstreams *dns_routes_find(const struct dns_routes *routes, const struct dns_name *name);
void dns_routes_deinit(struct dns_routes *routes);
