/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mounts of a guest's private mount namespace. All of these act on the caller's own namespace,
 * block no longer than the kernel takes, and return 0 or a negative errno with the error filled. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* From here on nothing that is mounted here reaches the namespace that this one was copied from;
 * what the host unmounts later is unmounted here too (mount_namespaces(7), slave). Works in a plain
 * chroot as well, where "/" is no mount. Keeps the working directory. */
int mounts_separate(struct error *error);

/* A fresh /proc for the caller's pid namespace. Where locked mounts forbid it (user namespaces
 * within containers) the one that is there stays. */
int mounts_proc(struct error *error);
/* A fresh /sys for the caller's network namespace, with what is mounted below it (cgroups) in its
 * place. Stays as it is where it can't be mounted. */
int mounts_sys(struct error *error);

/* A tmpfs on top of /proc, for a while: a place to write that every system has and that nobody else
 * sees. options are those of tmpfs(5). mounts_unstage takes it away; what was bound from it, or is
 * an overlay's layer, stays. */
int mounts_stage(const char *options, struct error *error);
int mounts_unstage(struct error *error);
#define MOUNTS_STAGE "/proc"

/* Writes a file (mode 0644) with this text. */
int mounts_write_file(const char *path, const char *text, struct error *error);

/* An overlay at target: lower (never written) below the folders STAGE/NAME.upper and
 * STAGE/NAME.work, which are made unless they are there. The upper folder gets lower's owner and
 * mode. */
int mounts_overlay(const char *lower, const char *name, const char *target, bool user_namespace,
                   struct error *error);
