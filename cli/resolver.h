/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest's /etc/resolv.conf and /etc/hosts say. */
#pragma once

#include "base/model.h"
#include "proto/proto.h"

#define RESOLVER_NAMESERVERS_MAX 3 /* more are ignored by every C library */

struct resolver {
    struct ips gateways;          /* of the guest's networks that have a name service */
    const struct ips *dns;        /* --dns: used where no network has one */
    const struct strings *search; /* --dns-search */
    const char *domain;           /* of the name service */
    const char
        *host_text; /* the host's resolv.conf: what remains where there is neither; NULL: none */
    const struct ips
        *host_servers; /* whom the daemon asks, in case the host's file only names a local stub */
};

/* resolv.conf(5). Nameservers on a loopback address are left out: there is no such server inside.
 */
void resolver_write_conf(const struct resolver *resolver, struct text *text);

/* hosts(5): localhost, --add-host ("NAME:IP"), and the guest's addresses with its names. hostname:
 * as uname(2) shows it inside. */
void resolver_write_hosts(const struct guest *guest, const char *domain, const char *hostname,
                          const struct strings *add_hosts, struct text *text);
