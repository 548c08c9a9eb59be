/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat's /etc/resolv.conf and /etc/hosts inside a guest. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* Shows the two texts as /etc/resolv.conf and /etc/hosts in the caller's own mount namespace, which
 * must have been separated (mounts_separate): each is a file on a tmpfs that is mounted nowhere
 * else, bound over the file, or over what the symbolic link leads to. Where one of them doesn't
 * exist, or leads nowhere, /etc gets a throw-away layer that holds it. No file of the host changes.
 * Also hides the sockets by which the C library would ask the host's name services past them.
 * Returns 0 or a negative errno with the error filled. */
int etc_files_install(const char *resolv_conf, const char *hosts, bool user_namespace,
                      struct error *error);
