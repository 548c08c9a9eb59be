/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's side of the name service: it owns the sockets on the gateways, knows the zones, and
 * tells the DNS worker (worker/dns.c) of changes. Names are there when the caller's answer goes
 * out: the worker reads its control channel before it answers any query that it received. Calls
 * never block; what the worker is owed after a crash is sent again from the copy here. */
#pragma once

#include "base/api.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/model.h"
#include "base/rule.h"

struct fdstore;
struct names;

/* Names below the suffix are asked of these servers, whoever asks; the longest suffix wins. */
struct names_forward {
    char suffix[254];
    struct ips servers;
};

/* Addresses that a guest with domain rules is about to be told for a name. All of it comes from the
 * worker, which may be in the hands of whoever sent it a message: the name is printable and not
 * empty, and the addresses are some, but nothing else is sure. */
struct names_address {
    struct ip ip;
    uint32_t ttl_s;
};

struct names_give {
    int64_t guest_id;
    uint64_t version;
    const char *name;
    const struct names_address *addresses;
    size_t count;
    bool wait; /* the guest is told after this; else only the host wants to know */
};

enum names_given { NAMES_GIVEN_OPEN, NAMES_GIVEN_REFUSED, NAMES_GIVEN_FAILED };
typedef enum names_given (*names_give_fn)(void *userdata, const struct names_give *give);

struct names_config {
    struct loop *loop;
    const char *run_dir;
    uid_t uid;
    gid_t gid;
    const char *domain;      /* "moat.internal" */
    const char *resolv_conf; /* "/etc/resolv.conf": watched */
    struct ips upstreams;    /* from the configuration; empty: those of resolv_conf */
    uint32_t ttl_s;          /* of our own answers */
    uint32_t stale_s;        /* how long expired answers may be used for want of others; 0: not */
    uint32_t cache_bytes;
    uint32_t max_in_flight;   /* questions of one guest that wait for upstream servers */
    uint32_t max_connections; /* of one guest, by TCP */
    uint32_t rate;            /* queries of one guest in a second; 0: any number */
    bool rebind_guard;        /* refuse addresses of the inside for names of the outside */
    bool resolved;            /* tell systemd-resolved, where it runs */
    struct fdstore *fdstore;  /* borrowed; NULL: none. The sockets of networks are kept there */
    const struct names_forward *forwards;
    size_t n_forwards;
    names_give_fn give; /* called from the loop; NULL: none is opened */
    void *userdata;
};

int names_new(const struct names_config *config, struct names **ret_names, struct error *error);
void names_free(struct names *names, bool keep_running);

/* Binds UDP and TCP port 53 on the gateways (IP_FREEBIND, so that the bridge may come later; taken
 * over from the former worker where it has them) and serves them. Nothing for a network with
 * dns=false. Reason port_in_use with the holder when another program has it. Adding a network that
 * is there replaces its settings. */
int names_network_add(struct names *names, const struct network *network, struct error *error);
void names_network_remove(struct names *names, int64_t network_id);
/* Guest name, aliases, addresses; replaces what was there for this endpoint. guest->dns: own
 * upstreams. */
int names_endpoint_add(struct names *names, const struct guest *guest,
                       const struct endpoint *endpoint, struct error *error);
void names_endpoint_remove(struct names *names, int64_t endpoint_id);
int names_record_add(struct names *names, const struct dns_record *record, struct error *error);
void names_record_remove(struct names *names, int64_t record_id);
/* What a guest with domain rules may ask of the outside; replaces what was there. Said before the
 * guest's first endpoint, so that no query of it passes. */
struct names_permit {
    int64_t guest_id;
    uint64_t version; /* of its policy: comes back with names_give */
    const struct policy_rules *allow;
    const struct policy_rules *deny;
    uint32_t grace_ms; /* how long addresses are open beyond their TTL */
    bool report;       /* `give` is called for every answer, without any wait */
};
int names_permit_set(struct names *names, const struct names_permit *permit, struct error *error);
/* Fine when there is none. */
void names_permit_remove(struct names *names, int64_t guest_id);
/* Is it an address of one of the networks' subnets? */
bool names_is_of_networks(const struct names *names, const struct ip *ip);
/* After start-up: sockets of the former worker that nobody claimed are closed. */
void names_settled(struct names *names);
/* The host's resolver addresses as they are now (for the choice of subnets and guests'
 * resolv.conf). */
const struct ips *names_upstreams(const struct names *names);
/* What is cached is forgotten: of this name and those below it, or ("") all. A query that is sent
 * after this finds it so. */
int names_flush(struct names *names, const char *name, struct error *error);
/* Does systemd-resolved ask us for the host? */
bool names_is_resolved(const struct names *names);
/* The log of queries since a number (0: all there is). It goes on when this is asked for, and off
 * again some minutes after it was asked for last. */
int names_log_read(struct names *names, uint64_t since, struct dns_log_result *ret_result,
                   struct error *error);
/* For `system.status`. */
struct names_status {
    pid_t pid;
    struct dns_counters counters; /* as the worker last reported them, at most a second ago */
};
void names_status_get(const struct names *names, struct names_status *ret_status);
/* Does the worker run and answer? Blocks for 100 ms at most. */
bool names_answer(struct names *names);
