/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other firewalls beside ours: what becomes of a packet in their rules? A packet must be accepted
 * by every base chain of its hook, so that a drop of somebody else's is final, whatever our table
 * says. Their rules are read, and followed with a made-up packet: nothing is sent, nothing changed.
 */
#pragma once

#include <net/if.h>

#include "nat/nat.h"

struct foreign_packet {
    uint32_t hook; /* NF_INET_FORWARD or NF_INET_LOCAL_IN */
    char in[IFNAMSIZ];
    char out[IFNAMSIZ]; /* "" on the way to the host itself */
    struct ip source;
    struct ip destination;
    uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP: the first packet of a connection */
    uint16_t source_port;
    uint16_t destination_port;
    bool published; /* its destination was translated by us */
};

enum foreign_verdict {
    FOREIGN_PASSES,
    FOREIGN_UNSURE, /* rules with matches that are not understood here decide */
    FOREIGN_DROPS,
};

struct foreign_answer {
    enum foreign_verdict verdict;
    char by[160]; /* the base chain that drops: "ip filter FORWARD"; with "iptables-legacy " before
                     it where it is one of the older kind */
};

/* All rules of nf_tables (families ip, ip6, inet) but ours, and the filter tables of
 * iptables-legacy where there are any, as they are at this moment. Takes about 1 µs for each rule.
 * Valid as long as nat is. */
struct foreign;
int foreign_load(struct nat *nat, struct foreign **ret_foreign, struct error *error);
void foreign_free(struct foreign *foreign); /* accepts NULL */
/* Sets of theirs that a rule looks something up in are read now. */
void foreign_ask(const struct foreign *foreign, const struct foreign_packet *packet,
                 struct foreign_answer *ret_answer);
