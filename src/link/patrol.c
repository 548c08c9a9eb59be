/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Goes round the known links, PATROL_LINKS of them every PATROL_INTERVAL_MS. A link is looked at in
 * about 20 µs where nobody holds the lock. */
#include "patrol.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/thread.h"
#include "settings.h"

#define PATROL_INTERVAL_MS 1000
#define PATROL_LINKS 64

struct patrol {
    struct link *link; /* a handle of its own */
    patrol_fn fn;
    void *userdata;
    pthread_t thread;
    _Atomic uint32_t suspect; /* index of a link */
    pthread_mutex_t lock;     /* guards stop */
    pthread_cond_t stopped;
    bool stop;
};

static bool wait_for_turn(struct patrol *patrol)
{
    struct timespec turn;

    clock_gettime(CLOCK_MONOTONIC, &turn);
    turn.tv_sec += PATROL_INTERVAL_MS / 1000;
    turn.tv_nsec += PATROL_INTERVAL_MS % 1000 * 1000000L;
    turn.tv_sec += turn.tv_nsec / 1000000000;
    turn.tv_nsec %= 1000000000;
    pthread_mutex_lock(&patrol->lock);
    while (!patrol->stop &&
           pthread_cond_timedwait(&patrol->stopped, &patrol->lock, &turn) != ETIMEDOUT)
        ;
    bool stop = patrol->stop;
    pthread_mutex_unlock(&patrol->lock);
    return !stop;
}

static void *patrol_main(void *userdata)
{
    struct patrol *patrol = userdata;
    size_t at = 0;

    while (wait_for_turn(patrol)) {
        uint32_t index = settings_patrol(patrol->link, &at, PATROL_LINKS);

        if (index == 0)
            continue;
        atomic_store(&patrol->suspect, index);
        patrol->fn(patrol->userdata);
    }
    return NULL;
}

uint32_t patrol_take(struct patrol *patrol)
{
    return atomic_exchange(&patrol->suspect, 0);
}

static void patrol_deinit(struct patrol *patrol)
{
    pthread_cond_destroy(&patrol->stopped);
    pthread_mutex_destroy(&patrol->lock);
    link_close(patrol->link);
    free(patrol);
}

int patrol_new(const struct link *link, patrol_fn fn, void *userdata, struct patrol **ret_patrol,
               struct error *error)
{
    struct patrol *patrol = calloc(1, sizeof(*patrol));
    pthread_condattr_t monotonic;

    if (!patrol)
        return error_set(error, ENOMEM, "cannot watch the host's links");
    *patrol = (struct patrol){.fn = fn, .userdata = userdata};
    pthread_mutex_init(&patrol->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&patrol->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int r = link_open_beside(link, &patrol->link, error);
    if (r >= 0) {
        r = thread_start(&patrol->thread, patrol_main, patrol);
        if (r < 0)
            error_set(error, r, "cannot start the thread that watches the host's links");
    }
    if (r < 0) {
        patrol_deinit(patrol);
        return r;
    }
    pthread_setname_np(patrol->thread, "patrol");
    *ret_patrol = patrol;
    return 0;
}

void patrol_free(struct patrol *patrol)
{
    if (!patrol)
        return;
    pthread_mutex_lock(&patrol->lock);
    patrol->stop = true;
    pthread_cond_signal(&patrol->stopped);
    pthread_mutex_unlock(&patrol->lock);
    pthread_join(patrol->thread, NULL);
    patrol_deinit(patrol);
}
