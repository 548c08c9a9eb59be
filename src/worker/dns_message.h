/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The messages between names/ and the DNS worker (worker/message.h carries them). Each payload
 * begins with its own number; the *page*, a piece of memory that both map, holds the number of the
 * last message that moatd has set out to send. A worker whose page says the number that it has
 * handled knows everything without a system call. */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/name.h"
#include "worker/message.h"

#define DNS_PORT 53
#define DNS_DOMAIN_MAX 254    /* with the NUL */
#define DNS_SERVERS_MAX 8     /* upstream servers of one list */
#define DNS_ENDPOINT_NAMES 17 /* the guest's name and LIMIT_ALIASES aliases */

enum {
    DNS_MESSAGE_CONFIG = WORKER_FIRST_OWN, /* first of all; with the page's descriptor */
    DNS_MESSAGE_UPSTREAMS,                 /* those of the host */
    DNS_MESSAGE_NETWORK,                   /* added or replaced; with its sockets */
    DNS_MESSAGE_NETWORK_REMOVE,
    DNS_MESSAGE_ENDPOINT, /* added or replaced */
    DNS_MESSAGE_ENDPOINT_REMOVE,
    DNS_MESSAGE_RECORD, /* added or replaced */
    DNS_MESSAGE_RECORD_REMOVE,
    DNS_MESSAGE_FORWARD, /* added or replaced, by suffix */
    DNS_MESSAGE_FLUSH,   /* what is cached is forgotten */
    DNS_MESSAGE_READY,   /* everything has been said: queries may be answered */
    DNS_MESSAGE_STATS,   /* from the worker, when something changed, at most once a second */
    DNS_MESSAGE_PERMIT,  /* a guest's domain rules: replaced by the last of its parts */
    DNS_MESSAGE_PERMIT_REMOVE,
    DNS_MESSAGE_GIVE,    /* from the worker: addresses that a guest is about to be told */
    DNS_MESSAGE_GIVEN,   /* the answer to it */
    DNS_MESSAGE_LOG,     /* the query log goes on or off */
    DNS_MESSAGE_QUERIES, /* from the worker: entries of it */
    DNS_MESSAGE_HOOK,    /* a connection of systemd-resolved, which asks through its hook */
};

/* Read by the worker, written by moatd. */
struct dns_page {
    _Atomic uint64_t number; /* of the last message */
};

struct dns_servers {
    uint32_t count;
    struct ip servers[DNS_SERVERS_MAX];
};

struct dns_message { /* what every payload begins with; READY and HOOK are no more than this */
    uint64_t number;
};

struct dns_config_message {
    struct dns_message message;
    uint32_t ttl_s;
    uint32_t stale_s;         /* how long expired answers are kept for want of others; 0: not */
    uint32_t cache_bytes;     /* that the cache may hold; 0, here and below: the worker's own */
    uint32_t max_in_flight;   /* questions of one asker that wait for upstream servers */
    uint32_t max_connections; /* of one asker, by TCP */
    uint32_t rate;            /* queries of one guest in a second; 0: any number */
    uint8_t rebind_guard;     /* dns_rebind.h */
    char domain[DNS_DOMAIN_MAX];
};

struct dns_upstreams_message {
    struct dns_message message;
    struct dns_servers upstreams;
};

/* Which descriptors come along, in this order. They replace those that the worker has. */
enum {
    DNS_SOCKET_UDP = 1,
    DNS_SOCKET_TCP = 2,
    DNS_SOCKET_UDP6 = 4,
    DNS_SOCKET_TCP6 = 8,
    DNS_SOCKETS_COUNT = 4,
    DNS_SOCKETS_KEEP = 0x80, /* alone: none come, and the worker keeps those that it has */
};

struct dns_network_message {
    struct dns_message message;
    int64_t id;
    struct ip gateway;
    struct ip gateway6;
    struct cidr subnet;
    struct cidr subnet6;
    uint8_t internal;
    uint8_t sockets; /* DNS_SOCKET_… */
    char name[NAME_MAX_LENGTH + 1];
    struct dns_servers upstreams; /* none: the host's */
};

struct dns_endpoint_message {
    struct dns_message message;
    int64_t id;
    int64_t guest_id;
    int64_t network_id;
    struct ip ip;
    struct ip ip6;
    struct dns_servers upstreams; /* none: the network's */
    uint16_t n_names;
    uint16_t names_length;
    char names[]; /* each with its NUL; the guest's first */
};

struct dns_record_message {
    struct dns_message message;
    int64_t id;
    int64_t network_id; /* 0: every network */
    uint16_t type;
    uint16_t rdata_length;
    char name[DNS_DOMAIN_MAX]; /* may begin with "*." */
    uint8_t rdata[];
};

struct dns_forward_message {
    struct dns_message message;
    struct dns_servers servers; /* none are left: nothing below the suffix can be asked */
    char suffix[DNS_DOMAIN_MAX];
};

struct dns_flush_message {
    struct dns_message message;
    char name[DNS_DOMAIN_MAX]; /* this one and those below it; "": all */
};

struct dns_remove_message {
    struct dns_message message;
    int64_t id;
};

struct dns_stats_message {
    struct dns_message message; /* number: the last that was handled */
    uint64_t queries;
    uint64_t local;     /* answered from the zone */
    uint64_t cached;    /* answered from the cache */
    uint64_t missed;    /* not in the cache: waited for upstream servers */
    uint64_t stale;     /* questions answered by what had expired, for want of others */
    uint64_t forwarded; /* questions asked of upstream servers */
    uint64_t failed;    /* of those, without a good answer */
    uint64_t refused;   /* not answered: nobody that may ask, or not forwarded by rule */
    uint64_t shed;      /* beyond their guest's bounds */
    uint64_t cache_bytes;
    uint64_t cache_entries;
};

/* --- domain rules --- */

/* What a rule says, and of which names; the first byte of each. */
enum {
    DNS_RULE_SELF = 1,   /* the name itself */
    DNS_RULE_BELOW = 2,  /* every name below it */
    DNS_RULE_ALLOW = 4,  /* may be asked; addresses are opened */
    DNS_RULE_DENY = 8,   /* may not be asked */
    DNS_RULE_CLOSE = 16, /* may be asked, but something is closed at its addresses */
};

enum {
    DNS_PERMIT_FIRST = 1, /* part of a guest's rules */
    DNS_PERMIT_LAST = 2,
    DNS_PERMIT_LISTED = 4, /* only names of allow rules are asked of the outside */
    DNS_PERMIT_REPORT = 8, /* every address is told to moatd */
};

struct dns_permit_message {
    struct dns_message message;
    int64_t guest_id;
    uint64_t version; /* of the policy */
    uint32_t grace_ms;
    uint32_t rules_length;
    uint16_t n_rules;
    uint8_t flags;
    char rules[]; /* each: a byte of DNS_RULE_…, the name, its NUL */
};

#define DNS_GIVE_MAX 256 /* addresses of one answer that are opened */

struct dns_give_address {
    struct ip ip;
    uint32_t ttl_s;
};

/* From a worker that may be anybody's: moatd checks every word of it. */
struct dns_give_message {
    uint64_t number; /* the worker's */
    int64_t guest_id;
    uint64_t version; /* of the policy that it went by */
    uint16_t count;
    uint8_t wait;              /* an answer is held until DNS_MESSAGE_GIVEN comes */
    char name[DNS_DOMAIN_MAX]; /* for which the guest asked */
    struct dns_give_address addresses[];
};

enum dns_given {
    DNS_GIVEN_OPEN,    /* what rules open of it is open */
    DNS_GIVEN_REFUSED, /* no rule of the guest names it */
    DNS_GIVEN_FAILED,  /* it could not be done */
};

struct dns_given_message {
    struct dns_message message;
    uint64_t number; /* of the question */
    uint8_t given;   /* enum dns_given */
};

/* --- the query log --- */

struct dns_log_message {
    struct dns_message message;
    uint8_t on;
};

enum dns_source {
    DNS_SOURCE_LOCAL, /* our own names, and what is refused */
    DNS_SOURCE_CACHE,
    DNS_SOURCE_UPSTREAM,
    DNS_SOURCE_COUNT_,
};

/* One query that was answered. text: the name in wire form, then guest and network. */
struct dns_query_entry {
    uint64_t time_ms; /* UTC, ms since the epoch: of the answer */
    uint32_t duration_us;
    uint16_t type;
    uint16_t rcode;
    uint8_t source; /* enum dns_source */
    uint8_t name_length;
    uint8_t guest_length; /* 0: the host */
    uint8_t network_length;
    uint8_t text[];
};

/* With its padding. */
#define DNS_QUERY_ENTRY_SIZE(text_length) \
    ((offsetof(struct dns_query_entry, text) + (text_length) + 7) & ~(size_t)7)

/* From a worker that may be anybody's: moatd checks every word of it. */
struct dns_queries_message {
    uint64_t lost; /* entries that there was no room for, before these */
    uint64_t count;
    uint8_t entries[];
};
