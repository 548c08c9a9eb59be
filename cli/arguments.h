/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows of option tables that several commands have, and what they do. */
#pragma once

#include "command.h"

/* Into the list that is this member of the method's params. */
int arguments_add(struct invocation *invocation, const char *member, const char *value,
                  struct error *error);
int arguments_add_network(struct invocation *invocation, const char *value, struct error *error);
int arguments_add_port(struct invocation *invocation, const char *value, struct error *error);
int arguments_add_host(struct invocation *invocation, const char *value, struct error *error);
int arguments_add_search(struct invocation *invocation, const char *value, struct error *error);
/* Positional: adds a name of a guest or network to words. */
int arguments_add_name(struct invocation *invocation, const char *value, struct error *error);
int arguments_set_quiet(struct invocation *invocation, const char *value, struct error *error);
int arguments_set_yes(struct invocation *invocation, const char *value, struct error *error);
int arguments_set_user(struct invocation *invocation, const char *value, struct error *error);
int arguments_set_workdir(struct invocation *invocation, const char *value, struct error *error);
int arguments_add_env(struct invocation *invocation, const char *value, struct error *error);

#define MODE_WORDS "disabled loopback outbound full"

/* Options of guest.attach that run and attach have in common. */
#define ARGUMENTS_NETWORK                                                                 \
    {                                                                                     \
        .name = "network", .kind = OPTION_VALUE, .repeat = true, .field = "networks",     \
        .value = "NET[,ip=A][,ip6=A][,mac=M][,alias=N]...", .set = arguments_add_network, \
        .complete = COMPLETE_NETWORK,                                                     \
        .doc = "network to be on, with the address, MAC and names there"                  \
    }
#define ARGUMENTS_MODE                                                             \
    {                                                                              \
        .name = "mode", .kind = OPTION_VALUE, .value = "MODE", .field = "mode",    \
        .words = MODE_WORDS,                                                       \
        .doc = "what it may reach: disabled, loopback, outbound or full (default)" \
    }
#define ARGUMENTS_PUBLISH                                                                        \
    {                                                                                            \
        .name = "publish", .letter = 'p', .kind = OPTION_VALUE, .repeat = true, .value = "PORT", \
        .field = "ports", .set = arguments_add_port,                                             \
        .doc = "publish a port: [HOST_IP:][HOST_PORT[-END]:]GUEST_PORT[-END][/tcp|/udp]"         \
    }
/* A RULE, into the list of the method's policy. */
int arguments_add_allow(struct invocation *invocation, const char *value, struct error *error);
int arguments_add_deny(struct invocation *invocation, const char *value, struct error *error);
#define ARGUMENTS_ALLOW(field_)                                                                    \
    {                                                                                              \
        .name = "allow", .kind = OPTION_VALUE, .repeat = true, .value = "RULE", .field = (field_), \
        .set = arguments_add_allow,                                                                \
        .doc = "allow connections to DEST[:PORT[-END]][/tcp|/udp|/icmp], and to nothing else"      \
    }
#define ARGUMENTS_DENY(field_)                                                                    \
    {                                                                                             \
        .name = "deny", .kind = OPTION_VALUE, .repeat = true, .value = "RULE", .field = (field_), \
        .set = arguments_add_deny,                                                                \
        .doc = "deny connections to DEST[:PORT[-END]][/tcp|/udp|/icmp]; wins over --allow"        \
    }
#define ARGUMENTS_LOG_DENIED(field_)                                                              \
    {                                                                                             \
        .name = "log-denied", .field = (field_), .doc = "make an event of each denied connection" \
    }
#define ARGUMENTS_DROP(field_)                                                  \
    {                                                                           \
        .name = "drop", .field = (field_),                                      \
        .doc = "drop what is denied in silence, instead of refusing it at once" \
    }
int arguments_set_rate_up(struct invocation *invocation, const char *value, struct error *error);
int arguments_set_rate_down(struct invocation *invocation, const char *value, struct error *error);
int arguments_set_max_conns(struct invocation *invocation, const char *value, struct error *error);
int arguments_set_conn_rate(struct invocation *invocation, const char *value, struct error *error);
/* A number from 1 to LIMIT_CONNS, or this word for 0. */
int arguments_set_count(const char *value, const char *none, uint32_t *ret_count,
                        struct error *error);

#define ARGUMENTS_RATE_UP(field_, set_)                                                        \
    {                                                                                          \
        .name = "rate-up", .kind = OPTION_VALUE, .value = "RATE", .field = (field_),           \
        .set = (set_), .doc = "what each interface may send, such as 10mbit or 1gbit, or none" \
    }
#define ARGUMENTS_RATE_DOWN(field_, set_)                                                \
    {                                                                                    \
        .name = "rate-down", .kind = OPTION_VALUE, .value = "RATE", .field = (field_),   \
        .set = (set_), .doc = "what each interface may receive, such as 10mbit, or none" \
    }
#define ARGUMENTS_MAX_CONNS(field_, set_)                                                          \
    {                                                                                              \
        .name = "max-conns", .kind = OPTION_VALUE, .value = "N", .field = (field_), .set = (set_), \
        .doc = "connections through the host at once (default: a share of all)"                    \
    }
#define ARGUMENTS_CONN_RATE(field_, set_)                                                          \
    {                                                                                              \
        .name = "conn-rate", .kind = OPTION_VALUE, .value = "N", .field = (field_), .set = (set_), \
        .doc = "connections that may be opened a second, or none"                                  \
    }
#define ARGUMENTS_LIMITS                                                  \
    ARGUMENTS_RATE_UP("limits.rate_up", arguments_set_rate_up),           \
        ARGUMENTS_RATE_DOWN("limits.rate_down", arguments_set_rate_down), \
        ARGUMENTS_MAX_CONNS("limits.max_conns", arguments_set_max_conns), \
        ARGUMENTS_CONN_RATE("limits.conn_rate", arguments_set_conn_rate)
#define ARGUMENTS_LABEL                                                                           \
    {                                                                                             \
        .name = "label", .kind = OPTION_VALUE, .repeat = true, .value = "K=V", .field = "labels", \
        .doc = "attach a label"                                                                   \
    }
#define ARGUMENTS_QUIET                                                                       \
    {                                                                                         \
        .name = "quiet", .letter = 'q', .set = arguments_set_quiet, .doc = "print names only" \
    }
#define ARGUMENTS_USER                                                                     \
    {                                                                                      \
        .name = "user", .letter = 'u', .kind = OPTION_VALUE, .value = "UID[:GID]",         \
        .set = arguments_set_user, .doc = "run COMMAND as this user (default: the caller)" \
    }
#define ARGUMENTS_WORKDIR(doc_)                                                     \
    {                                                                               \
        .name = "workdir", .letter = 'w', .kind = OPTION_VALUE, .value = "DIR",     \
        .set = arguments_set_workdir, .complete = COMPLETE_DIRECTORY, .doc = (doc_) \
    }
#define ARGUMENTS_ENV                                                                          \
    {                                                                                          \
        .name = "env", .letter = 'e', .kind = OPTION_VALUE, .repeat = true, .value = "K=V",    \
        .set = arguments_add_env, .doc = "set an environment variable; K alone: as it is here" \
    }
#define ARGUMENTS_GUEST(field_)                                        \
    {                                                                  \
        .name = "GUEST", .field = (field_), .complete = COMPLETE_GUEST \
    }
