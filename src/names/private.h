/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the name service share. Each file here is one kind of thing that the worker is
 * told of; names.c starts the worker, tells it everything, and hears what it says. */
#pragma once

#include "base/fdstore.h"
#include "names/names.h"
#include "names/query_log.h"
#include "names/resolv.h"
#include "worker/dns_message.h"
#include "worker/dns_table.h"
#include "worker/supervisor.h"

/* One network, with its sockets in the order of DNS_SOCKET_…; -1 where there is none. */
struct served_network {
    struct served_network *next;
    struct ips servers; /* as configured; the message has those that are no gateways of ours */
    struct dns_network_message message;
    int fds[DNS_SOCKETS_COUNT];
};

/* A suffix with servers of its own. */
struct served_forward {
    struct ips servers; /* as configured; the message has those that are no gateways of ours */
    struct dns_forward_message message;
};

/* An endpoint's or a static record's message. */
struct kept_message {
    int64_t id;
    uint16_t type;
    size_t length;
    struct ips servers; /* as for networks */
    struct dns_message *payload;
};

struct names {
    struct loop *loop;
    struct worker *worker;
    struct resolv *resolv;
    struct resolved *resolved; /* NULL: it is not to be told */
    struct resolve_hook *hook; /* NULL: it is not to ask */
    struct fdstore *fdstore;
    struct dns_page *page;
    int page_fd;
    struct dns_config_message config;
    struct ips configured; /* upstream servers from the configuration */
    struct ips upstreams;  /* those in use: without our own gateways */
    struct served_network *networks;
    struct served_forward *forwards;
    size_t n_forwards;
    struct dns_table endpoints; /* of struct kept_message */
    struct dns_table records;
    struct dns_table permits; /* of struct permit_parts */
    names_give_fn give;
    void *userdata;
    struct dns_stats_message stats;
    struct query_log *log; /* NULL: it is off */
    struct loop_timer *log_timer;
    bool settled;
};

/* --- sending (send.c): returns 0 or a negative code --- */
int names_send(struct names *names, uint16_t type, struct dns_message *message, size_t length,
               const int *fds, size_t n_fds, struct error *error);
/* For what nobody waits for, and for what can't be refused any more. */
void names_send_or_log(struct names *names, uint16_t type, struct dns_message *message,
                       size_t length);
void names_send_removal(struct names *names, uint16_t type, int64_t id);

/* --- whom it asks (upstream.c) --- */
/* Those of the servers that are no gateways of ours: asking ourselves would go in circles. */
void names_servers_fill(const struct names *names, const struct ips *servers,
                        struct dns_servers *ret_servers);
int names_upstreams_init(struct names *names, const struct names_config *config,
                         struct error *error);
int names_upstreams_send(struct names *names, struct error *error);
void names_upstreams_log(const struct names *names);
int names_forwards_init(struct names *names, const struct names_config *config,
                        struct error *error);
int names_forwards_send(struct names *names, struct error *error);
/* The set of our gateways is another one: every list of servers is looked at again. */
void names_gateways_changed(struct names *names);
void names_upstreams_deinit(struct names *names);

/* --- networks (network.c) --- */
int names_network_send(struct names *names, struct served_network *network, bool with_sockets,
                       struct error *error);
void names_networks_free(struct names *names);

/* --- endpoints and static records (kept.c) --- */
/* Sends all of a table. */
int names_kept_send(struct names *names, const struct dns_table *table, struct error *error);
void names_kept_free(struct dns_table *table);

/* --- domain rules (domain_rules.c) --- */
/* Spreads ids over the slots of a table. */
uint32_t names_id_hash(int64_t id);
int names_permits_send(struct names *names, struct error *error);
void names_permits_free(struct names *names);
/* The worker, or a former moatd's that finishes what it had begun (draining), is about to tell a
 * guest addresses. */
void names_give_received(struct names *names, const void *payload, size_t length, bool draining);
