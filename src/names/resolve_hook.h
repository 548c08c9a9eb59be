/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hook of systemd-resolved (>= 259): where its directory is there, a socket of ours in it. Each
 * connection of systemd-resolved is handed on to the name worker, which reads what comes by it
 * (worker/hook_call.h). The socket is made when the directory comes, made anew when it is removed,
 * and taken away at the end; it belongs to systemd-resolved's user, so that nobody but it and root
 * can connect. A systemd-resolved of another network namespace is not answered: its host is not
 * ours. Nothing here blocks. */
#pragma once

#include "base/loop.h"

struct resolve_hook;

/* A connection was made. The descriptor is the callee's. */
typedef void (*resolve_hook_fn)(void *userdata, int fd);

/* NULL: no memory. */
struct resolve_hook *resolve_hook_new(struct loop *loop, resolve_hook_fn connected, void *userdata);
/* Removes the socket. Accepts NULL. */
void resolve_hook_free(struct resolve_hook *hook);
/* Has systemd-resolved come by it? */
bool resolve_hook_is_used(const struct resolve_hook *hook);
