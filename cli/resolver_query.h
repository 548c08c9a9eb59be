/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's resolv.conf and hosts, from what the daemon knows. */
#pragma once

#include "remote.h"
#include "resolver.h"

/* What the command line adds; all of it may be NULL. */
struct resolver_wish {
    const struct ips *dns;
    const struct strings *search;
    const struct strings *add_hosts;
    const char *hostname; /* inside; NULL: the host's */
};

/* Asks for the domain and the guest's networks, and writes both texts. Blocks for the calls.
 * Returns 0, or as remote_call. */
int resolver_query(struct remote *remote, const struct guest *guest,
                   const struct resolver_wish *wish, struct text *conf, struct text *hosts,
                   struct error *error);
