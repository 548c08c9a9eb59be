/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What guests with domain rules may ask: for each such guest the names of its rules, in a hash
 * table by their labels, so that a name costs a look-up for each of its labels, however many rules
 * there are. */
#pragma once

#include "worker/dns_codec.h"
#include "worker/dns_message.h"
#include "worker/dns_table.h"

struct dns_permits;

/* What is known of one guest. */
struct dns_permit {
    int64_t guest_id;
    uint64_t version;  /* of its policy */
    uint32_t grace_ms; /* how long addresses stay open beyond their TTL */
    bool listed;       /* only names of allow rules are asked of the outside */
    bool report;       /* moatd is told of every address, and not waited for */
    uint32_t n_held;   /* replies that wait for moatd; kept by dns_give.c, like `given` */
    struct dns_table given;
    struct dns_table names; /* of struct permit_name */
};

enum dns_permit_answer {
    DNS_PERMIT_OUTSIDE = 1, /* may be asked of the outside */
    DNS_PERMIT_NEVER = 2,   /* denied, whoever would answer */
    DNS_PERMIT_GIVE = 4,    /* its addresses are opened (or closed) before they are told */
};

struct dns_permits *dns_permits_new(void); /* NULL: no memory */
void dns_permits_free(struct dns_permits *permits);
/* One part of what moatd says of a guest (dns_message.h); it holds from the last part on. 0,
 * -EPROTO or -ENOMEM: then the guest may ask nothing, until it is said again. */
int dns_permits_set(struct dns_permits *permits, const struct dns_permit_message *message,
                    size_t length);
/* The guest may ask everything again. */
void dns_permits_remove(struct dns_permits *permits, int64_t guest_id);
/* NULL: a guest without domain rules. */
struct dns_permit *dns_permits_find(const struct dns_permits *permits, int64_t guest_id);
/* Bits of enum dns_permit_answer. */
unsigned dns_permit_check(const struct dns_permit *permit, const struct dns_name *name);
