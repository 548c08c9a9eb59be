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

/* A network whose packets other firewalls shall let pass. */
struct foreign_accept {
    struct cidr subnet;
    struct ip guest;        /* an address of it */
    struct ip far;          /* one outside */
    char link[IFNAMSIZ];    /* its bridge */
    char way_out[IFNAMSIZ]; /* of the host, towards far */
};

/* Puts rules into the chains of other firewalls on the forward hook that stop what is from or to
 * these subnets: one for each direction, at the head of the chain DOCKER-USER, ufw-user-forward or
 * ufw6-user-forward where the table has it, else of the base chain. Each has the comment
 * "moat: SUBNET", by which it is known again; those for other subnets (with count 0: all) are
 * removed. A chain that lets them pass already is left alone. Tables of iptables-legacy, and those
 * that another program owns, can't be changed so: an error says which, when the rest is done. */
int foreign_accept_all(struct nat *nat, const struct foreign_accept *wanted, size_t count,
                       struct error *error);
