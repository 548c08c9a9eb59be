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

/* What the daemon knows of it. Asked before a guest is attached: behind that nothing of the guest
 * needs the daemon any more, which may be restarted at any moment. */
struct resolver_facts {
    struct status_result status;
    struct ips gateways; /* of the networks that have a name service */
    struct ips internal; /* those of internal ones, which answer for nothing outside */
};

/* Adds what a network contributes. Returns 0 or -ENOMEM. */
int resolver_facts_add(struct resolver_facts *facts, const struct network *network,
                       struct error *error);

/* Asks for the domain and for networks[0…count-1]; one that the daemon refuses is left out. Blocks
 * for the calls. Returns 0, or as remote_call. */
int resolver_facts_query(struct remote *remote, const char *const networks[], size_t count,
                         struct resolver_facts *ret_facts, struct error *error);
void resolver_facts_deinit(struct resolver_facts *facts);

/* Writes both texts for the guest. Returns 0 or -ENOMEM. */
int resolver_write(const struct resolver_facts *facts, const struct guest *guest,
                   const struct resolver_wish *wish, struct text *conf, struct text *hosts,
                   struct error *error);
