/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Name servers put first into the /etc/resolv.conf of somebody else's container. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"

#define INJECT_FILE_MAX ((size_t)64 * 1024) /* bytes of a resolv.conf; a larger one is refused */
#define INJECT_SERVERS_MAX 3                /* more are read by no C library (resolv.conf(5)) */
#define INJECT_TIMEOUT_MS 1000              /* for a file system that does not answer */

/* Whose files they are. */
struct inject_place {
    int root_fd;  /* the process's root directory, O_PATH; -1: it has ended */
    int file_fd;  /* the file that was written last, O_PATH: it may outlive the process; -1: none */
    uint32_t uid; /* as whom it is written: root in its user namespace, as the host sees him */
    uint32_t gid;
    uint32_t owner; /* who made that user namespace; the host's root for our own */
};

/* Looks at a process. Reasons: not_found, permission_denied. The caller deinits it, and has to look
 * whether pid still is the process that he means. */
int inject_place_open(int32_t pid, struct inject_place *ret_place, struct error *error);
void inject_place_deinit(struct inject_place *place);

/* Puts a block that names the servers at the beginning of the place's /etc/resolv.conf, instead of
 * a block of ours that is there; none: only takes that away. All else in the file stays as it is,
 * and so does the file itself (it may be a mount). No link leads out of the place's root. When that
 * is not there any more, the file that was written last is meant; file_fd says which that is now.
 *
 * It is done by a process that has no rights but those of the place's root, and that is killed when
 * it takes longer than INJECT_TIMEOUT_MS: blocks as long. Reasons: not_found (no such file),
 * not_supported (the file is the host's own, or none that can be written), busy (timeout). */
int inject_servers(struct inject_place *place, const struct ips *servers, struct error *error);

/* --- for tests --- */
/* The new text of a file, without a NUL: old (length bytes) without a block of ours, behind the
 * block if there is one. result has INJECT_FILE_MAX bytes. Returns its length, or -EFBIG. */
long inject_edit(const char *old, size_t length, const char *block, char *result);
