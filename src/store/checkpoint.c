/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A checkpoint (sqlite.org/wal.html) syncs the log, copies the latest version of each page that it
 * has into the database, and syncs that: milliseconds, tens of them on a busy disk. PASSIVE ones
 * wait for nobody and hold nobody up, so that another connection can make them while the store goes
 * on with its own. What one could not copy stays in the log, which is just as durable, for the
 * next. */
#include "store/checkpoint.h"

#include <errno.h>

#include "base/thread.h"
#include "store/vfs.h"

static void make(struct checkpoint *checkpoint)
{
    pthread_mutex_unlock(&checkpoint->lock);
    sqlite3_wal_checkpoint_v2(checkpoint->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    pthread_mutex_lock(&checkpoint->lock);
}

static void *checkpoint_main(void *userdata)
{
    struct checkpoint *checkpoint = userdata;

    pthread_mutex_lock(&checkpoint->lock);
    while (!checkpoint->stop) {
        if (!checkpoint->wanted) {
            pthread_cond_wait(&checkpoint->changed, &checkpoint->lock);
            continue;
        }
        checkpoint->wanted = false;
        checkpoint->working = true;
        make(checkpoint);
        checkpoint->working = false;
        pthread_cond_broadcast(&checkpoint->changed);
    }
    pthread_mutex_unlock(&checkpoint->lock);
    return NULL;
}

int checkpoint_start(struct checkpoint *checkpoint, const char *path, struct error *error)
{
    int r;

    if (sqlite3_open_v2(path, &checkpoint->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                        STORE_VFS) != SQLITE_OK ||
        sqlite3_exec(checkpoint->db, "PRAGMA synchronous = NORMAL;", NULL, NULL, NULL) !=
            SQLITE_OK) {
        error_set(error, EIO, "the state database: %s",
                  checkpoint->db ? sqlite3_errmsg(checkpoint->db) : "out of memory");
        sqlite3_close(checkpoint->db);
        return -EIO;
    }
    pthread_mutex_init(&checkpoint->lock, NULL);
    pthread_cond_init(&checkpoint->changed, NULL);
    r = thread_start(&checkpoint->thread, checkpoint_main, checkpoint);
    if (r < 0) {
        sqlite3_close(checkpoint->db);
        return error_set(error, r, "cannot start the thread that writes the state database");
    }
    checkpoint->started = true;
    return 0;
}

void checkpoint_stop(struct checkpoint *checkpoint)
{
    if (!checkpoint->started)
        return;
    pthread_mutex_lock(&checkpoint->lock);
    checkpoint->stop = true;
    pthread_cond_broadcast(&checkpoint->changed);
    pthread_mutex_unlock(&checkpoint->lock);
    pthread_join(checkpoint->thread, NULL);
    sqlite3_close(checkpoint->db);
    pthread_cond_destroy(&checkpoint->changed);
    pthread_mutex_destroy(&checkpoint->lock);
    checkpoint->started = false;
}

void checkpoint_want(struct checkpoint *checkpoint)
{
    pthread_mutex_lock(&checkpoint->lock);
    checkpoint->wanted = true;
    pthread_cond_broadcast(&checkpoint->changed);
    pthread_mutex_unlock(&checkpoint->lock);
}

void checkpoint_wait(struct checkpoint *checkpoint)
{
    pthread_mutex_lock(&checkpoint->lock);
    while (checkpoint->wanted || checkpoint->working)
        pthread_cond_wait(&checkpoint->changed, &checkpoint->lock);
    pthread_mutex_unlock(&checkpoint->lock);
}
