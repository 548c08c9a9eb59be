/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat's /etc/resolv.conf and /etc/hosts inside a guest. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { ETC_RESOLV_CONF, ETC_HOSTS, ETC_FILES };

/* Shows the two texts as /etc/resolv.conf and /etc/hosts in the caller's own mount namespace, which
 * must have been separated (mounts_separate): each is a file on a tmpfs that is mounted
 * nowhere else, bound over the file, or over what the symbolic link leads to. Where one of them
 * doesn't exist, or leads nowhere, /etc gets a throw-away layer that holds it. No file of the host
 * changes. Also hides the sockets by which the C library would ask the host's name services past
 * them. Returns 0 or a negative errno with the error filled. */
int etc_files_install(const char *resolv_conf, const char *hosts, bool user_namespace,
                      struct error *error);

/* Opens the two that were installed, for what follows; the caller closes them. Nobody else may
 * have been at work there meanwhile. Returns as etc_files_install. */
int etc_files_open(int ret_fds[ETC_FILES], struct error *error);

/* Writes the whole of a file that was installed with an empty text. Returns as etc_files_install.
 */
int etc_file_write(int fd, const char *text, struct error *error);
/* Where the file still says `before`, whatever stands before and after it, it says `after` from now
 * on; else it is the guest's own by now, and is left alone. It is written in place, since it is a
 * mount; whoever reads it meanwhile finds the old text or the new one, then perhaps with empty
 * lines behind. Returns as etc_files_install. */
int etc_file_replace(int fd, const char *before, const char *after, struct error *error);
