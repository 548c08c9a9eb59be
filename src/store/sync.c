/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Durability. SQLite (synchronous=NORMAL) leaves a commit in its log, from where it survives a
 * crash of the daemon; fdatasync(2) of the log, 50 µs to many ms, makes it survive one of the
 * machine. A thread does that while the caller goes on: all commits that came meanwhile are covered
 * by one call. Whoever has promised something asks with the number of the commit whether it is
 * kept, and is woken when it may have changed.
 *
 * What SQLite must have on disk in order, the log before the database and the database before the
 * log is used anew, it syncs itself at a checkpoint.
 *
 * When fdatasync fails the kernel may have dropped what it could not write, and a second call would
 * lie. So nothing is durable any more from there on, and the daemon ends (service.c). */
#include "store/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/thread.h"

static void sync_once(struct sync *sync, uint64_t target)
{
    store_durable_fn fn;

    pthread_mutex_unlock(&sync->lock);
    int errnum = fdatasync(sync->fd) < 0 ? errno : 0;
    pthread_mutex_lock(&sync->lock);
    sync->errnum = errnum;
    if (errnum == 0)
        sync->durable = target;
    else
        log_error("the state database can't be written to disk: %s", strerrordesc_np(errnum));
    pthread_cond_broadcast(&sync->done);
    fn = atomic_exchange(&sync->waited, false) || errnum ? sync->fn : NULL;
    if (fn)
        fn(sync->userdata);
}

static void *sync_main(void *userdata)
{
    struct sync *sync = userdata;

    pthread_mutex_lock(&sync->lock);
    for (;;) {
        uint64_t target = sync->committed;

        if (sync->errnum == 0 && target != sync->durable)
            sync_once(sync, target);
        else if (sync->stop)
            break;
        else
            pthread_cond_wait(&sync->work, &sync->lock);
    }
    pthread_mutex_unlock(&sync->lock);
    return NULL;
}

int sync_start(struct sync *sync, const char *log_path, struct error *error)
{
    _cleanup_close_ int fd = open(log_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return error_set(error, errno, "cannot open %s", log_path);
    pthread_mutex_init(&sync->lock, NULL);
    pthread_cond_init(&sync->work, NULL);
    pthread_cond_init(&sync->done, NULL);
    sync->fd = fd;
    int r = thread_start(&sync->thread, sync_main, sync);
    if (r < 0)
        return error_set(error, r, "cannot start the thread that syncs the state database");
    TAKE_FD(fd);
    sync->started = true;
    return 0;
}

void sync_stop(struct sync *sync)
{
    if (!sync->started)
        return;
    pthread_mutex_lock(&sync->lock);
    sync->stop = true;
    pthread_cond_signal(&sync->work);
    pthread_mutex_unlock(&sync->lock);
    pthread_join(sync->thread, NULL);
    pthread_cond_destroy(&sync->done);
    pthread_cond_destroy(&sync->work);
    pthread_mutex_destroy(&sync->lock);
    close(sync->fd);
    sync->started = false;
}

void sync_commit(struct sync *sync)
{
    if (!sync->started) {
        sync->committed++; /* while it is opened: synced with the first that follows */
        return;
    }
    pthread_mutex_lock(&sync->lock);
    sync->committed++;
    pthread_cond_signal(&sync->work);
    pthread_mutex_unlock(&sync->lock);
}

uint64_t sync_committed(const struct sync *sync)
{
    return sync->committed;
}

bool sync_is_durable(struct sync *sync, uint64_t commit)
{
    if (sync->durable >= commit)
        return true;
    atomic_store(&sync->waited, true);
    return sync->durable >= commit; /* it may have become so before the thread saw the wish */
}

void sync_on_durable(struct sync *sync, store_durable_fn fn, void *userdata)
{
    pthread_mutex_lock(&sync->lock);
    sync->fn = fn;
    sync->userdata = userdata;
    pthread_mutex_unlock(&sync->lock);
}

void sync_wait(struct sync *sync)
{
    pthread_mutex_lock(&sync->lock);
    while (sync->errnum == 0 && sync->durable != sync->committed)
        pthread_cond_wait(&sync->done, &sync->lock);
    pthread_mutex_unlock(&sync->lock);
}
