/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A Compose file, as `moat compose` understands it: every value checked as far as that can be done
 * without the daemon. */
#pragma once

#include "base/api.h"
#include "base/cleanup.h"
#include "base/error.h"

/* Labels of what belongs to a project; nothing else is known about it anywhere. */
#define COMPOSE_LABEL_PROJECT "moat.compose.project"
#define COMPOSE_LABEL_SERVICE "moat.compose.service" /* of a guest: the service */
#define COMPOSE_LABEL_NETWORK "moat.compose.network" /* of a network: its name in the file */
#define COMPOSE_LABEL_CONFIG "moat.compose.config"   /* what its settings are, as a number */

#define COMPOSE_SERVICES_MAX 256
#define COMPOSE_NETWORKS_MAX 64
#define COMPOSE_TIMEOUT_MAX_S 86400 /* of --timeout */

#define COMPOSE_CONFIG_LENGTH 16 /* hex digits */

struct compose_network {
    char *key; /* as the file calls it */
    bool external;
    char name[NAME_MAX_LENGTH + 1];
    union { /* what makes it, unless it is external */
        struct network_create_params create;
        union params params;
    };
    char config[COMPOSE_CONFIG_LENGTH + 1];
};

enum compose_condition {
    CONDITION_STARTED,   /* service_started */
    CONDITION_COMPLETED, /* service_completed_successfully */
};

struct compose_dependency {
    size_t service; /* index */
    enum compose_condition condition;
};

struct compose_service {
    char *key;
    union {
        struct guest_attach_params attach; /* name, networks, ports, policy, … */
        union params params;
    };
    struct strings command;
    struct strings env; /* K=V */
    char *user;
    char *workdir;
    char *rootfs;
    char *hostname;
    struct strings gateway_hosts; /* names in extra_hosts whose address is the gateway's */
    struct compose_dependency *dependencies;
    size_t n_dependencies;
    size_t depth; /* 0: depends on nothing; else one more than what it depends on */
    char config[COMPOSE_CONFIG_LENGTH + 1];
};

struct compose {
    char project[NAME_MAX_LENGTH + 1];
    struct compose_network *networks;
    size_t n_networks;
    struct compose_service *services;
    size_t n_services;
};

/* The file's name when none is given: the first of those that people use which is there. Returns 0,
 * or -EINVAL. */
int compose_file_find(const char **ret_path, struct error *error);
/* Reads and checks a file. project: its name; NULL: as the file says, else that of its folder.
 * Relative paths in it start at its folder. Returns 0, or a negative code with an error that names
 * the file and the line. */
int compose_load(const char *path, const char *project, struct compose *ret_compose,
                 struct error *error);
void compose_deinit(struct compose *compose);

/* The networks of a file that the daemon makes have their settings and labels; this one is by key.
 * NULL when there is none. */
struct compose_network *compose_network_find(const struct compose *compose, const char *key);
const struct compose_service *compose_service_find(const struct compose *compose, const char *key);
