/* SPDX-License-Identifier: GPL-2.0-or-later */
/* COMMAND's process, from the inside, for run and exec. */
#pragma once

#include <signal.h>
#include <stdbool.h>

#include "command.h"
#include "user.h"

/* What COMMAND's process gets. All of it is borrowed. */
struct process {
    char **argv;
    const struct strings *env; /* --env: K=V, or K */
    const char *user_text;     /* --user, looked up in the files inside; NULL: see user */
    const struct user *user;   /* the user, looked up outside; NULL: the caller's */
    const sigset_t *mask;      /* the caller's signal mask */
    bool user_namespace;       /* there is one id in it: the caller's */
    bool ignore_children;      /* SIGCHLD is ignored, as the caller has it */
    bool own_group;            /* a process group of its own, with the terminal (terminal.h) */
    bool tied;                 /* ends with its parent */
    int channel;
};

/* Becomes COMMAND. On failure tells the channel, with exit code 125, 126 (can't be executed) or 127
 * (not found), and exits with it. Says MESSAGE_STARTED before it executes. */
_Noreturn void process_execute(const struct process *process);
/* Tells the channel and exits. */
_Noreturn void process_fail(int channel, int exit_code, const struct error *error);
/* Whoever waits for children may not ignore SIGCHLD, as some callers do. Returns whether it was
 * ignored. */
bool process_claim_children(void);
/* The caller ends with its parent from here on, also when that ended before it could be asked for:
 * then the other end of the channel is closed. */
void process_tie_to_parent(int channel);
/* Waits for the caller's children until `command` has ended; tells the channel how it fares. */
void process_reap(int channel, pid_t command);
