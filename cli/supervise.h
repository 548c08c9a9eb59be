/* SPDX-License-Identifier: GPL-2.0-or-later */
/* COMMAND from outside: signals, the terminal, stops and the end, for run and exec. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "follow.h"

struct supervise {
    int channel; /* the outer end; becomes supervise_run's */
    pid_t child; /* COMMAND's parent, that tells the channel how it fares */
    struct follow
        *follow;    /* of the guest that ends with COMMAND, and COMMAND with it; NULL: none */
    bool own_group; /* COMMAND's process makes one (terminal.h) */
    int report;     /* who is told whether COMMAND is executed (run.h); -1: nobody */
    /* The rest is private. */
    pid_t command;  /* as we see it; 0: not started yet */
    int command_fd; /* its pidfd */
    pid_t group;    /* its own group; 0: ours */
    int signals;
    int tty;
    int64_t kill_at_ms; /* the guest is gone, and COMMAND has so long to end; 0: it is there */
    int code;           /* -1: not known yet */
    bool ended;
    bool interrupted; /* by Ctrl-C */
};

/* SIGTERM ends this process from here on with the exit status 143, as it will when COMMAND runs. */
void supervise_end_by_status(void);
/* Signals that supervise_run takes care of are blocked from here on; *ret_mask is the mask before.
 */
void supervise_block_signals(sigset_t *ret_mask);
/* Until COMMAND has ended: passes signals on, stops and goes on with it, keeps the terminal in
 * order. When its guest is detached by others, ends it: by SIGTERM, and ten seconds later by
 * SIGKILL. Prints that, and why COMMAND could not be executed. Returns the exit code; the child has
 * been waited for. */
int supervise_run(struct supervise *supervise);
/* When Ctrl-C ended COMMAND: ends the caller by SIGINT too, for a shell goes on with its script or
 * loop after anything else. Else returns. The caller has nothing left to do. */
void supervise_pass_interrupt(const struct supervise *supervise);
