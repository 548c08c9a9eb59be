/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A worker's process, as it begins. */
#pragma once

#include <sys/types.h>

#include "base/error.h"

/* What of moatd's environment a worker gets; its strings stay those of environ. The array is the
 * caller's to free; NULL without memory. */
char **spawn_environment_new(void);
/* Forks and executes this very binary as `moatd --worker KIND`, with nothing open but /dev/null,
 * its end of the control channel and its listener. The pidfd is the caller's. */
int spawn_worker(char *kind, char **environment, int listener_fd, int control_fd, pid_t *ret_pid,
                 int *ret_pidfd, struct error *error);
