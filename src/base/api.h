/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests and results of the API as values: one struct per shape of `params`, and per result that
 * is not a row of base/model.h. Shared by service (which acts on them) and proto (which binds them
 * to JSON). The tables in proto/methods.c bind their members to JSON names; nothing else knows
 * both. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/model.h"
#include "base/rule.h"

struct network_create_params {
    char name[NAME_MAX_LENGTH + 1];
    struct cidr subnet;
    struct ip gateway;
    struct cidr ip_range;
    bool ipv4; /* default true */
    bool ipv6;
    struct cidr subnet6;
    struct ip gateway6;
    bool internal;
    bool isolated;
    bool host_access;
    uint32_t mtu; /* 0: follow the host */
    char bridge[IFNAMSIZ];
    bool dns; /* default true */
    struct ips dns_servers;
    struct labels labels;
    bool ignore;
};

struct name_params {
    char name[NAME_MAX_LENGTH + 1];
};

struct network_remove_params {
    char name[NAME_MAX_LENGTH + 1];
    bool force;
};

struct passage_params {
    char from[NAME_MAX_LENGTH + 1];
    char to[NAME_MAX_LENGTH + 1];
    struct strings ports; /* PORT[-END][/tcp|/udp]; empty: everything */
    bool cut;             /* network.deny */
};

struct attach_network {
    char name[NAME_MAX_LENGTH + 1];
    struct ip ip;
    struct ip ip6;
    struct mac mac;
    struct strings aliases;
};

struct attach_tap {
    bool given;
    char name[IFNAMSIZ];
    int64_t owner; /* -1: none */
    int64_t group;
    bool multi_queue;
    bool vnet_hdr;
    bool fd;
};

struct guest_attach_params {
    char name[NAME_MAX_LENGTH + 1];
    struct attach_network *networks;
    size_t n_networks;
    bool has_kind;
    enum guest_kind kind;
    char *netns; /* path; NULL when absent */
    uint32_t pid;
    bool netns_fd;
    struct attach_tap tap;
    bool has_mode;
    enum guest_mode mode;
    struct strings
        ports; /* PORT text: each is parsed by the service, which knows the field's index */
    struct policy policy;
    struct limits limits;
    struct strings hosts;
    struct ips dns;
    struct strings dns_search;
    struct labels labels;
    bool ephemeral;
    bool dns_inject;
};

struct guest_detach_params {
    char name[NAME_MAX_LENGTH + 1];
    char network[NAME_MAX_LENGTH + 1];
};

struct port_params {
    char guest[NAME_MAX_LENGTH + 1];
    struct strings ports;
};

struct guest_params {
    char guest[NAME_MAX_LENGTH + 1]; /* "" where it is optional and absent */
};

struct policy_set_params {
    char guest[NAME_MAX_LENGTH + 1];
    bool has_mode;
    enum guest_mode mode;
    struct policy policy;
    bool cut;
};

struct policy_test_params {
    char guest[NAME_MAX_LENGTH + 1];
    char *destination; /* DEST:PORT[/tcp|/udp], DEST/icmp */
};

struct limit_set_params {
    char guest[NAME_MAX_LENGTH + 1];
    struct limits limits;
    bool has_rate_up;
    bool has_rate_down;
    bool has_max_conns;
    bool has_conn_rate;
};

struct learn_params {
    char guest[NAME_MAX_LENGTH + 1];
    bool enabled;
};

struct localhost_params {
    char guest[NAME_MAX_LENGTH + 1];
    bool enabled;
};

struct dns_params {
    char network[NAME_MAX_LENGTH + 1];
    char name[254];
    struct ip ip;          /* instead of values */
    uint16_t type;         /* enum record_type; 0: by the values, which are addresses */
    struct strings values; /* as people write them (base/record.h) */
};

struct dns_flush_params {
    char name[254]; /* "": all */
};

struct dns_log_params {
    uint64_t since; /* number; 0: all there is */
};

struct empty_params {
    char unused;
};

/* Any of them; which one is said by the method. */
union params {
    struct network_create_params network_create;
    struct name_params name;
    struct network_remove_params network_remove;
    struct passage_params passage;
    struct guest_attach_params guest_attach;
    struct guest_detach_params guest_detach;
    struct port_params port;
    struct guest_params guest;
    struct policy_set_params policy_set;
    struct policy_test_params policy_test;
    struct limit_set_params limit_set;
    struct learn_params learn;
    struct localhost_params localhost;
    struct dns_params dns;
    struct dns_flush_params dns_flush;
    struct dns_log_params dns_log;
    struct empty_params empty;
};

/* --- results --- */

struct policy_result {
    enum guest_mode mode;
    struct policy policy;
};

struct policy_test_result {
    bool allowed;
    char list[8];             /* "allow" or "deny": where the rule stands; "": no rule decided */
    char rule[RULE_TEXT_MAX]; /* the rule that decided */
    char reason[RULE_TEXT_MAX + 256];
};

struct learn_result {
    uint64_t seconds;
    uint64_t connections; /* different ones: destination, protocol and port */
    bool complete;        /* none was missed */
    struct strings rules;
};

struct record_result { /* one record that the name service answers */
    char name[254];
    char network[NAME_MAX_LENGTH + 1];
    uint16_t type;
    char *value;
    struct ip ip;                    /* of an address record */
    char guest[NAME_MAX_LENGTH + 1]; /* "": static */
};

#define LIMIT_DNS_LOG 1000 /* queries of one answer */

struct dns_query_result { /* one query that the name service answered */
    uint64_t number;
    int64_t time_ms;                 /* UTC, ms since the epoch */
    char guest[NAME_MAX_LENGTH + 1]; /* "": the host */
    char network[NAME_MAX_LENGTH + 1];
    char *name;
    char type[16];
    char rcode[16];
    char source[16]; /* local, cache, upstream */
    uint32_t duration_us;
};

struct dns_log_result {
    bool began; /* the log was off before */
    uint64_t next;
    uint64_t lost;
    struct dns_query_result *queries;
    size_t n_queries;
};

void dns_log_result_deinit(struct dns_log_result *result);

/* What the name service's worker has done since it started. */
struct dns_counters {
    uint64_t queries;
    uint64_t local;     /* answered from the zone */
    uint64_t cached;    /* answered from the cache */
    uint64_t missed;    /* not in the cache */
    uint64_t forwarded; /* questions asked of upstream servers */
    uint64_t failed;    /* of these, without a good answer */
    uint64_t stale;     /* answered by what had expired */
    uint64_t refused;
    uint64_t shed; /* beyond their guest's bounds */
    uint64_t cache_entries;
    uint64_t cache_bytes;
};

struct status_result {
    char version[32];
    uint64_t uptime_seconds;
    uint64_t networks;
    uint64_t guests;
    uint64_t ports;
    uint32_t pid;
    bool table_owned;
    char domain[254];
    struct ips upstreams;
    struct strings forward; /* "corp.example=10.1.1.1" */
    struct dns_counters dns;
    uint32_t dns_pid;
    uint32_t relay_pid;
    uint32_t dhcp_pid;
};

struct check_result { /* one line of `system.doctor` */
    char name[64];
    bool ok;
    char detail[512];
    char remedy[512]; /* "" when ok */
};

/* What was denied, of an event "connection.denied". */
struct denial {
    char protocol[16]; /* "tcp", "udp", "icmp", or its number */
    struct ip ip;
    uint16_t port;  /* 0: it has none */
    char name[254]; /* that the guest was given the address for; "": none known */
    char rule[340]; /* "deny @private"; "": no rule allows it, or it leads out of bounds */
    uint64_t count; /* attempts that this event is about */
};

struct event {
    int64_t time_ms; /* UTC, ms since the epoch */
    char type[32];   /* "network.created", … (docs/api.md) */
    char network[NAME_MAX_LENGTH + 1];
    char guest[NAME_MAX_LENGTH + 1];
    char detail[512];
    bool has_denied;
    struct denial denied;
};
