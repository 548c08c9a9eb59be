/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options and positional arguments as tables, and the parser that they drive. The same rows make
 * --help, the completions and the check of the manual page. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct command;
struct invocation;

enum option_kind {
    OPTION_FLAG,  /* takes no value */
    OPTION_VALUE, /* --name VALUE, --name=VALUE, -nVALUE, -n VALUE */
    OPTION_MAYBE, /* --name or --name=VALUE */
};

/* What a shell offers for a value. */
enum completion {
    COMPLETE_NONE,
    COMPLETE_NETWORK,
    COMPLETE_GUEST,
    COMPLETE_FILE,
    COMPLETE_DIRECTORY
};

/* Takes a value (NULL for a flag) into the invocation. Returns 0, or -EINVAL with what is wrong
 * with it. */
typedef int (*option_set_fn)(struct invocation *invocation, const char *value, struct error *error);

struct option {
    const char *name; /* without dashes; NULL ends a table */
    char letter;      /* 0: none */
    enum option_kind kind;
    bool repeat;
    const char *value; /* what the help calls the value */
    const char *doc;
    const char *
        field; /* path of the member of the method's params that it fills, such as "policy.allow" */
    option_set_fn
        set; /* instead of by the member's type; field then only says what it stands for */
    enum completion complete;
    const char *words; /* the values there are, separated by spaces; NULL: any */
};

struct positional {
    const char *name; /* as in the help: GUEST; NULL ends a table */
    const char *field;
    option_set_fn set;
    bool repeat;
    bool optional;
    enum completion complete;
    const char *words;
};

/* --json, --socket, --help, --version: good for every command, before or after its name. */
extern const struct option option_globals[];

/* Parses the command line into an invocation made by invocation_init. Returns 0, or -EINVAL (usage)
 * with a text that names the culprit and the remedy. Stops early at --help and --version, which
 * need nothing else. */
int option_parse(int argc, char **argv, struct invocation *invocation, struct error *error);

/* A usage error. Returns -EINVAL. */
#define option_refuse(error, ...) error_set_field((error), "", __VA_ARGS__)
