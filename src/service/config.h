/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat.conf: an INI file, every key optional (moat.conf(5)). One table in config.c binds keys to
 * members. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/list.h"
#include "names/names.h"

#define CONFIG_FORWARDS_MAX 256 /* suffixes in `forward` */

#define CONFIG_DEFAULT_SUBNET "10.88.0.0/16" /* default_subnet where the file does not say */

struct config {
    char *state_dir; /* from the command line, not the file */
    char *run_dir;
    struct fdstore *fdstore; /* borrowed, from systemd; NULL: none */
    /* [daemon] */
    char *socket_group; /* group that may use the socket; "" for root only */
    uint32_t socket_mode;
    char *worker_user; /* what the workers run as */
    uint32_t max_clients;
    bool debug; /* log_level = debug */
    /* [network] */
    struct strings pools;      /* prefixes that automatic subnets come from */
    uint32_t subnet_size;      /* their prefix length */
    char *default_subnet;      /* of the network `default` */
    struct ip publish_address; /* of PORTs without HOST_IP; absent: every host address */
    bool open_firewalls;       /* others' chains get accepts for our networks (firewalls.c) */
    uint32_t bridge_ports;     /* from here on, a network's further guests get routed ports */
    /* [dns] */
    char *domain;
    char *resolv_conf;
    struct ips upstreams;
    struct names_forward *forwards; /* as an array that grows by list_grow */
    size_t n_forwards;
    uint32_t ttl_s;
    uint32_t stale_s;         /* how long expired answers may be used for want of others */
    uint32_t cache_kib;       /* that the name service's cache may take */
    uint32_t max_in_flight;   /* forwarded questions of one guest */
    uint32_t max_connections; /* of one guest to the name service */
    uint32_t rate;            /* queries of one guest in a second; 0: any number */
    bool rebind_guard;
    bool resolved; /* systemd-resolved is told */
    /* [policy] */
    uint32_t grace_s; /* how long addresses given by name stay open beyond their TTL */
    /* [dhcp] for guests on taps */
    uint32_t lease_s;
    struct ips ntp;
};

void config_init(struct config *ret_config); /* the defaults */
/* Reads the file over what is there. required: a missing file is an error. Errors name file, line,
 * key and what the key takes; unknown sections and keys are errors. */
int config_read(struct config *config, const char *path, bool required, struct error *error);
void config_deinit(struct config *config);
/* Uid and gid of worker_user; "nobody" when that user does not exist. */
int config_worker_ids(const struct config *config, uid_t *ret_uid, gid_t *ret_gid,
                      struct error *error);
/* Name of the index-th key, for the check of the manual page; NULL behind the last. */
const char *config_key_get(size_t index, const char **ret_section);
