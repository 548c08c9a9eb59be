/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The service manager's file-descriptor store (sd_pid_notify_with_fds(3)): what is put there under
 * a name comes back to the next moatd, whatever became of this one and its workers. Without a
 * service manager there is none, and everything here does nothing.
 *
 * The protocol is the one of sd_notify(3). libsystemd's functions wait for a manager that does not
 * read; these wait for a moment, then do without. */
#pragma once

#include <stdbool.h>

#define FDSTORE_PREFIX "moat-"
#define FDSTORE_NAME_MAX 128

struct fdstore;

/* socket: the manager's notification socket, as $NOTIFY_SOCKET names it. NULL: no memory, or it
 * can't be reached. */
struct fdstore *fdstore_new(const char *socket);
/* Closes what nobody took; it stays in the store. Accepts NULL, as do the others. */
void fdstore_free(struct fdstore *store);
/* A descriptor that came at start-up; it is the store's then. One whose name has not our prefix is
 * closed. */
void fdstore_add(struct fdstore *store, const char *name, int fd);
/* One that came at start-up, the caller's then; -1: there is none. It stays in the store. */
int fdstore_take(struct fdstore *store, const char *name);
/* Keeps a copy of it, from now on. */
void fdstore_put(struct fdstore *store, const char *name, int fd);
void fdstore_remove(struct fdstore *store, const char *name);
/* What came at start-up and nobody took is closed and forgotten. */
void fdstore_settle(struct fdstore *store);
