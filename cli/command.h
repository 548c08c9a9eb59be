/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands: one table, and one invocation that options and arguments are parsed into. */
#pragma once

#include "base/api.h"
#include "option.h"
#include "proto/proto.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
    EXIT_MOAT_FAILED = 125, /* run, exec: moat itself failed */
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
};

struct command {
    const char *group; /* "net" of `net create`; NULL: none */
    const char *name;  /* NULL ends a table */
    const char *summary;
    const char *text; /* the rest of the help; NULL: none */
    const struct option *options;
    const struct positional *positionals;
    bool takes_command; /* COMMAND [ARG...] follows the positional arguments */
    /* Options with a field fill this method's params. The commands without a method of their own
     * have METHOD_COUNT_, and none of their options a field. */
    enum method_id method;
    int (*run)(struct invocation *invocation); /* returns the exit code */
};

/* What run and exec want of COMMAND's process. The texts are the command line's. */
struct process_options {
    const char *user;
    const char *workdir;
    const char *rootfs;
    const char *hostname;
    struct strings env;
};

/* moat compose. The texts are the command line's. */
struct compose_options {
    const char *file;    /* NULL: the one that is there */
    const char *project; /* NULL: as the file says */
    bool detach;
    bool remove_orphans;
    bool has_timeout;
    unsigned timeout_s;
};

struct remote;

struct invocation {
    const char *group; /* the first word, if it is a group's name */
    const struct command *command;
    bool help;
    bool version;
    bool json;
    const char *socket; /* NULL: the default */
    union params params;
    bool quiet;
    bool yes;
    bool follow;
    uint32_t for_s; /* policy learn; 0: the default */
    struct process_options process;
    struct compose_options compose;
    struct strings words; /* positional arguments that go to no member of params */
    char **command_line;  /* COMMAND and its arguments, NULL-terminated; NULL: none */
    struct remote *remote;
};

void invocation_init(struct invocation *ret_invocation);
void invocation_deinit(struct invocation *invocation);
/* Sets the command, and params to its method's defaults. */
void invocation_set_command(struct invocation *invocation, const struct command *command);

/* Connects, unless that was done. Returns the exit code; says what went wrong on stderr. */
int invocation_connect(struct invocation *invocation);
/* Calls a method. Connects when there is no connection yet. Returns EXIT_DONE with the answer,
 * which the caller frees, or says what went wrong on stderr and returns the exit code. */
int invocation_call(struct invocation *invocation, enum method_id method,
                    const union params *params, struct proto_response **ret_response);
/* The same with the command's own method and params. */
int invocation_call_own(struct invocation *invocation, struct proto_response **ret_response);
/* Prints "moat: <text>". Returns exit_code. */
int invocation_fail(int exit_code, const struct error *error);
/* The command's result as one line of JSON. Returns the exit code. */
int invocation_print_json(const struct proto_response *response);
/* Calls the command's method and prints its result: as JSON, or by `print` (NULL: prints nothing).
 */
int invocation_show(struct invocation *invocation,
                    int (*print)(struct invocation *invocation,
                                 const struct proto_response *response));
/* Decodes a result into data; on failure says so. Returns the exit code. */
int invocation_decode(const struct proto_response *response, const struct proto_object *object,
                      void *ret_data);
int invocation_decode_list(const struct proto_response *response, const struct proto_object *object,
                           void **ret_items, size_t *ret_count);
/* Frees what invocation_decode_list returned. */
void invocation_free_list(const struct proto_object *object, void *items, size_t count);

/* The commands in the order of the help; index from 0, NULL behind the last. */
const struct command *command_get(size_t index);
const struct command *command_find(const char *group, const char *name);
bool command_group_exists(const char *name);
/* Summary of a group of commands. */
const char *command_group_summary(const char *name);
/* The options that may stand behind the group's name already; NULL: none but the global ones. */
const struct option *command_group_options(const char *name);
/* "moat net create" */
void command_name_write(struct text *text, const struct command *command);
/* "moat net create NAME [OPTION...]" */
void command_usage_write(struct text *text, const struct command *command);
/* The help of a command, of a group (command NULL), or of moat (both NULL). */
void command_help_write(struct text *text, const char *group, const struct command *command);

/* Everything from the arguments to the exit code. */
int command_main(int argc, char **argv);

/* --- the tables, by file; each ends with a row without a name --- */
extern const struct option compose_group_options[];
extern const struct command net_commands[], run_commands[], guest_commands[], exec_commands[],
    port_commands[], policy_commands[], limit_commands[], dns_commands[], compose_commands[],
    system_commands[], completion_commands[];
