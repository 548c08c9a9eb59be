/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The thread that makes commits durable; the theory is in sync.c. Private to the store. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "store/store.h"

struct sync {
    int fd; /* the log */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows; the atomics are read without it */
    pthread_cond_t work;  /* committed moved, or stop */
    pthread_cond_t done;  /* durable moved, or it failed */
    _Atomic uint64_t committed;
    _Atomic uint64_t durable; /* the commits up to this one are on disk */
    _Atomic bool waited;      /* somebody was told that a commit is not durable yet */
    _Atomic int errnum;       /* why nothing becomes durable any more */
    bool stop;
    store_durable_fn fn;
    void *userdata;
};

/* Zero-initialised before. The log must exist. */
int sync_start(struct sync *sync, const char *log_path, struct error *error);
/* Syncs what is left and ends the thread. Fine when it was not started. */
void sync_stop(struct sync *sync);
/* Something was committed. */
void sync_commit(struct sync *sync);
/* What store.h says of store_… . */
uint64_t sync_committed(const struct sync *sync);
bool sync_is_durable(struct sync *sync, uint64_t commit);
void sync_on_durable(struct sync *sync, store_durable_fn fn, void *userdata);
void sync_wait(struct sync *sync);
