/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What stands between bytes from guests and the host: another uid, no capability, no file system,
 * and only the system calls that a network server needs on descriptors that it was given. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct sandbox_config {
    uid_t uid;
    gid_t gid;
    bool without_root; /* tests only: leave out what needs root (root directory, ids, bounding set)
                        */
};

/* Gives up, for good and for the whole (single-threaded) process, what a worker does not need of
 * the host:
 *
 * - limits: no core file, as many descriptors as the kernel gives
 * - files: the root directory is an empty one, without a name, that nothing can be made in
 * - identity: uid, gid, no supplementary groups, no capability in any set, bounding set included
 * - privileges: PR_SET_NO_NEW_PRIVS, not dumpable (no ptrace by others of the same uid)
 *
 * Not root without `without_root` is an error, like each step that the kernel refuses: the caller
 * must end the process then, which may have given up a part already. */
int sandbox_drop(const struct sandbox_config *config, struct error *error);
/* The last step: the seccomp allow list. Any other system call kills the process with SIGSYS. */
int sandbox_restrict(struct error *error);
