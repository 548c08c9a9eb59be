/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Process 1 of a guest that `moat run` makes. */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "command.h"
#include "user.h"

struct guest_init {
    const struct process_options *options;
    const struct user
        *user; /* --user, looked up outside; NULL: none, or to be looked up in the new root */
    char **command_line;
    const char *hostname; /* NULL: the host's */
    bool user_namespace;
    bool ignore_children; /* COMMAND's signal disposition */
    bool own_group;       /* COMMAND's (terminal.h) */
    uid_t uid;            /* the caller's */
    gid_t gid;
    const sigset_t *mask; /* COMMAND's */
    int channel;
};

/* Clones the caller into new namespaces: network, mount, process; user where user_namespace is set;
 * UTS with a hostname. Returns like fork(2), or -1 with errno; the parent gets a pidfd. */
pid_t guest_init_clone(const struct guest_init *init, int *ret_pidfd);

/* What the child does, and never returns: makes its mounts, waits for two texts (resolv.conf,
 * hosts) on the channel, starts COMMAND, reaps whatever ends, and tells the channel how COMMAND
 * fares. Ends with COMMAND, or as soon as its parent does; the kernel ends everything else in the
 * namespace with it. */
_Noreturn void guest_init_main(const struct guest_init *init);
