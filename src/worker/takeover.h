/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Former workers of one kind: finding those that an earlier moatd left in RUN_DIR, getting the
 * sockets back, and speaking to them while they drain. The supervisor's second half. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/address.h"
#include "base/error.h"
#include "base/loop.h"

struct takeover;
struct channel_message;

struct takeover_config {
    struct loop *loop;
    const char *kind;
    int run_dir_fd; /* the caller's; must stay open */
    uid_t uid;      /* of workers: only such a process is spoken to, or killed */
    /* A message of the kind's own from one that drains. May be called by every function below, but
     * by takeover_run. */
    void (*message)(void *userdata, const struct channel_message *message);
    /* One that drains has answered a question, or is gone. May be called as `message` may. */
    void (*synced)(void *userdata);
    void *userdata;
};

/* Asks every former worker for its sockets, and keeps the connection of those that drain. Blocks as
 * long as they answer; one that does not for 1 s is killed. Socket files that nobody serves are
 * removed. */
int takeover_run(const struct takeover_config *config, struct takeover **ret_takeover,
                 struct error *error);
/* Closes the connections (the workers go on) and what nobody took. Accepts NULL. */
void takeover_free(struct takeover *takeover);
/* Ends the former workers and removes all socket files of the kind. Accepts NULL. */
void takeover_end_all(struct takeover *takeover);

/* Binds RUN_DIR/worker-KIND.sock, mode 0600, and listens; the new worker, who inherits it, does so
 * again with its own ids. Comes after takeover_run, which moves a former worker's away. */
int takeover_listener_make(const struct takeover_config *config, int *ret_fd, struct error *error);

/* As in supervisor.h; NULL is one that has nothing. */
int takeover_take(struct takeover *takeover, uint8_t protocol, const struct ip *ip, uint16_t port);
void takeover_close(struct takeover *takeover);
void takeover_send(struct takeover *takeover, uint16_t type, const void *payload, size_t length);
/* Asks all that drain for a sign that they handled everything; numbers rise. Then waits for it: 0
 * or -ETIMEDOUT; or looks whether it is there, or the process gone. */
void takeover_sync_start(struct takeover *takeover, uint64_t number);
int takeover_sync_wait(struct takeover *takeover, uint64_t deadline_ms);
bool takeover_has_synced(struct takeover *takeover, uint64_t number);
/* Kills those that have not answered that question. */
void takeover_end_silent(struct takeover *takeover, uint64_t number);
