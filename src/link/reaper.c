/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Deleting a link waits for an RCU grace period, 16 to 40 ms, however many are deleted at once. So
 * links that are to go are only moved into one group (LINK_GROUP_DYING) by whoever detaches them,
 * and this thread deletes the group, again and again while something is put there. The kernel's
 * configuration lock (RTNL) is held for a part of that time, in which everybody else waits: so in a
 * burst of detaches (BURST_MS after the last deletion) the next one begins in a quiet moment,
 * QUIET_MS after the last detach, but no later than LATEST_MS after the first one, and takes all at
 * once. A single detach is not held back, and somebody who waits for it ends the pause.
 *
 * `queued` counts the kicks, `done` how many of them a finished deletion has covered. */
#include <errno.h>
#include <linux/if_link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/thread.h"
#include "handle.h"

#define BURST_MS 50
#define QUIET_MS 4
#define LATEST_MS 30

struct reaper {
    struct netlink netlink;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;     /* queued moved, or stop */
    pthread_cond_t finished; /* done moved */
    uint64_t queued;
    uint64_t done;
    struct timespec last_deletion;
    unsigned waiting; /* threads in reaper_wait: no pause then */
    bool stop;
};

/* A failure is logged; the links stay in their group for the next round. */
static void reaper_delete_group(struct reaper *reaper)
{
    struct netlink_failure failure;
    struct request request;

    request_init(&request);
    struct nlmsghdr *message = request_link(&request, RTM_DELLINK, 0, 0, "delete");
    mnl_attr_put_u32(message, IFLA_GROUP, LINK_GROUP_DYING);
    request_tolerate(&request, ENODEV);
    int r = netlink_send(&reaper->netlink, &request, &failure);
    if (r < 0)
        log_warning("cannot delete detached links: %s%s%s", strerrordesc_np(-r),
                    failure.extack[0] ? ": " : "", failure.extack);
}

static struct timespec time_after(struct timespec from, long delay_ms)
{
    from.tv_nsec += delay_ms * 1000000;
    from.tv_sec += from.tv_nsec / 1000000000;
    from.tv_nsec %= 1000000000;
    return from;
}

static bool time_is_before(struct timespec a, struct timespec b)
{
    return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

/* With the lock held: in a burst, until nothing was queued for QUIET_MS. */
static void reaper_pause(struct reaper *reaper)
{
    struct timespec now, latest;
    uint64_t seen;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!time_is_before(now, time_after(reaper->last_deletion, BURST_MS)))
        return;
    latest = time_after(now, LATEST_MS);
    do {
        struct timespec quiet = time_after(now, QUIET_MS);

        seen = reaper->queued;
        while (!reaper->stop && !reaper->waiting && reaper->queued == seen &&
               pthread_cond_timedwait(&reaper->work, &reaper->lock, &quiet) != ETIMEDOUT)
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (!reaper->stop && !reaper->waiting && reaper->queued != seen &&
             time_is_before(now, latest));
}

static void *reaper_main(void *userdata)
{
    struct reaper *reaper = userdata;

    pthread_mutex_lock(&reaper->lock);
    for (;;) {
        uint64_t target = reaper->queued;

        if (target == reaper->done) {
            if (reaper->stop)
                break;
            pthread_cond_wait(&reaper->work, &reaper->lock);
            continue;
        }
        reaper_pause(reaper);
        target = reaper->queued;
        pthread_mutex_unlock(&reaper->lock);
        reaper_delete_group(reaper);
        pthread_mutex_lock(&reaper->lock);
        clock_gettime(CLOCK_MONOTONIC, &reaper->last_deletion);
        reaper->done = target;
        pthread_cond_broadcast(&reaper->finished);
    }
    pthread_mutex_unlock(&reaper->lock);
    return NULL;
}

static int reaper_start(struct reaper *reaper)
{
    int r = thread_start(&reaper->thread, reaper_main, reaper);

    if (r == 0)
        pthread_setname_np(reaper->thread, "reaper");
    return r;
}

/* Timed waits are by the clock that nobody sets. */
static void work_init(pthread_cond_t *work)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(work, &attributes);
    pthread_condattr_destroy(&attributes);
}

int reaper_new(struct reaper **ret_reaper, struct error *error)
{
    _cleanup_free_ struct reaper *reaper = calloc(1, sizeof(*reaper));

    if (!reaper)
        return error_set(error, ENOMEM, "cannot start the link reaper");
    int r = netlink_open(&reaper->netlink, error);
    if (r < 0)
        return r;
    pthread_mutex_init(&reaper->lock, NULL);
    work_init(&reaper->work);
    pthread_cond_init(&reaper->finished, NULL);
    r = reaper_start(reaper);
    if (r < 0) {
        netlink_close(&reaper->netlink);
        return error_set(error, r, "cannot start the link reaper");
    }
    *ret_reaper = TAKE_PTR(reaper);
    return 0;
}

void reaper_free(struct reaper *reaper)
{
    if (!reaper)
        return;
    pthread_mutex_lock(&reaper->lock);
    reaper->stop = true;
    pthread_cond_signal(&reaper->work);
    pthread_mutex_unlock(&reaper->lock);
    pthread_join(reaper->thread, NULL);
    pthread_cond_destroy(&reaper->finished);
    pthread_cond_destroy(&reaper->work);
    pthread_mutex_destroy(&reaper->lock);
    netlink_close(&reaper->netlink);
    free(reaper);
}

void reaper_kick(struct reaper *reaper)
{
    pthread_mutex_lock(&reaper->lock);
    reaper->queued++;
    pthread_cond_signal(&reaper->work);
    pthread_mutex_unlock(&reaper->lock);
}

void reaper_wait(struct reaper *reaper)
{
    pthread_mutex_lock(&reaper->lock);
    uint64_t target = reaper->queued;
    reaper->waiting++;
    pthread_cond_signal(&reaper->work);
    while (reaper->done < target)
        pthread_cond_wait(&reaper->finished, &reaper->lock);
    reaper->waiting--;
    pthread_mutex_unlock(&reaper->lock);
}
