/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The thread that moves the log into the database file. Private to the store. */
#pragma once

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>

#include "base/error.h"

struct checkpoint {
    sqlite3 *db; /* the thread's own connection */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;   /* guards what follows */
    pthread_cond_t changed; /* something of it */
    bool wanted;
    bool working;
    bool stop;
};

/* Zero-initialised before. Opens the database, which must be set up already, once more. */
int checkpoint_start(struct checkpoint *checkpoint, const char *path, struct error *error);
/* Waits for one that is being made, and closes. Fine when it was not started. */
void checkpoint_stop(struct checkpoint *checkpoint);
/* One soon. Never blocks for the disk. */
void checkpoint_want(struct checkpoint *checkpoint);
/* Blocks until every one that was wanted has been made. */
void checkpoint_wait(struct checkpoint *checkpoint);
