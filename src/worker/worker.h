/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The worker's side: what `moatd --worker KIND` runs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/runtime.h"

/* The first message to a fresh worker (WORKER_SETTINGS). */
struct worker_settings {
    uint32_t uid;
    uint32_t gid;
    uint32_t log_level; /* enum log_level */
    uint32_t without_root;
};

/* Descriptors that a worker starts with, beside 0 and 1 (/dev/null) and 2 (moatd's stderr). */
#define WORKER_CONTROL_FD 3  /* the channel to moatd */
#define WORKER_LISTENER_FD 4 /* bound to RUN_DIR/worker-KIND.sock */
#define WORKER_LISTENER_BACKLOG 4

struct worker_kind {
    const char *name;
    int (*run)(struct worker_runtime *runtime);
};

/* Entry of a worker process: argv is {"moatd", "--worker", KIND}. Reads the settings, enters the
 * sandbox, runs the kind until it is done. Returns the exit status; does not return from a
 * violation of the sandbox. */
int worker_main(int argc, char **argv);
/* The same with kinds of one's own (tests); the table ends with a NULL name. */
int worker_main_kinds(int argc, char **argv, const struct worker_kind *kinds);

/* For tests: a runtime on descriptors of one's own (taken over), without a sandbox. listener may be
 * -1. NULL when memory or descriptors are short. */
struct worker_runtime *worker_runtime_new(int control_fd, int listener_fd);
void worker_runtime_free(struct worker_runtime *runtime);
