/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the supervisor's parts share: the process and its messages (supervisor.c), and waiting for
 * it to have handled them (sync.c). Private to these. */
#pragma once

#include "worker/channel.h"
#include "worker/supervisor.h"
#include "worker/worker.h"

/* Questions "have you handled everything?", numbered; numbers go on from one process to the next,
 * and those of a process that is gone count as answered. */
struct syncs {
    uint64_t sent;
    uint64_t answered;
    struct loop_wake *due; /* `synced` is */
    struct loop_timer *ping_timer;
    uint64_t ping_number; /* the one that the last ping was; 0: none */
    uint64_t ping_sent_ms;
    struct loop_timer *late_timer;
    uint64_t late_number; /* the one that was waited for in vain; 0: none */
    struct loop_timer *begun_timer;
    uint64_t begun_number; /* the last of worker_sync_begin */
    uint64_t begun_first;  /* must be answered when begun_timer is due */
};

struct worker {
    struct loop *loop;
    char *kind;
    char **environment;
    int run_dir_fd;
    int listener_fd;
    struct worker_settings settings;
    const struct worker_ops *ops;
    void *userdata;

    pid_t pid; /* 0: waiting to be restarted */
    int pidfd;
    struct loop_io *pidfd_io;
    struct channel channel;
    struct loop_io *channel_io;
    uint64_t started_ms;
    unsigned failures; /* restarts in a row without a healthy time between */
    struct loop_timer *restart_timer;

    struct syncs syncs;

    struct inbox_item *inbox;
    struct inbox_item **inbox_last;
    size_t n_inbox;
    struct loop_timer *inbox_timer;
    struct channel_message *message; /* buffer for what is received */
    struct takeover *takeover;
};

/* --- supervisor.c --- */
/* The process is killed; that it ends is seen from the loop. */
void supervised_fail(struct worker *worker);
void supervised_watch(struct worker *worker);
/* False at the end of what there is, or of the channel. */
bool supervised_take(struct worker *worker, struct channel_message *message);
/* To be delivered from the loop. draining: of a former worker. */
void supervised_inbox_add(struct worker *worker, const struct channel_message *message,
                          bool draining);

/* --- sync.c --- */
int syncs_init(struct worker *worker);
void syncs_deinit(struct worker *worker);
/* A fresh process. */
void syncs_start(struct worker *worker);
/* The process is gone: nobody waits for its answers. */
void syncs_end(struct worker *worker);
void syncs_answered(struct worker *worker, const struct channel_message *message);
void syncs_tell(struct worker *worker);
/* From the loop, urgent: this may be called in the middle of anything. */
void syncs_tell_later(struct worker *worker);
