/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/spread.h"

#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/yield.h"

#define THREADS_MAX 4
#define FEW 16
#define NO_FAILURE UINT64_MAX

struct work {
    spread_fn fn;
    void *userdata;
    uint32_t count;
    _Atomic uint32_t next;    /* the first that nobody has taken */
    _Atomic uint64_t failure; /* the first that failed, and below it its errno */
    _Atomic unsigned busy;    /* threads that have not ended yet, with the caller's */
    int ended_fd;             /* eventfd(2): the last of them has; -1: there is none */
};

static void fail(struct work *work, uint32_t index, int code)
{
    uint64_t failure = (uint64_t)index << 32 | (uint32_t)-code;
    uint64_t known = work->failure;

    while (failure < known && !atomic_compare_exchange_weak(&work->failure, &known, failure))
        ;
}

static void do_few(struct work *work, uint32_t from, uint32_t end)
{
    for (uint32_t i = from; i < end; i++) {
        int code = work->fn(work->userdata, i);

        if (code == 0)
            continue;
        fail(work, i, code);
        return;
    }
}

static void do_some(struct work *work)
{
    while (work->failure == NO_FAILURE) {
        uint32_t from = atomic_fetch_add(&work->next, FEW);

        if (from >= work->count)
            return;
        do_few(work, from, work->count - from > FEW ? from + FEW : work->count);
        yield_if_due();
    }
}

static void *thread_main(void *userdata)
{
    struct work *work = userdata;

    do_some(work);
    if (atomic_fetch_sub(&work->busy, 1) == 1 && work->ended_fd >= 0)
        yield_wake(work->ended_fd);
    return NULL;
}

/* One that has lost its processor may take a while. */
static void wait_for_helpers(struct work *work)
{
    atomic_fetch_sub(&work->busy, 1);
    while (work->busy > 0 && work->ended_fd >= 0)
        yield_poll(work->ended_fd, 1000);
}

/* With the caller's. */
static unsigned thread_count(uint32_t count, uint32_t worth)
{
    long wanted = count / worth;
    long most;

    if (wanted < 2)
        return 1;
    most = sysconf(_SC_NPROCESSORS_ONLN);
    if (most > THREADS_MAX)
        most = THREADS_MAX;
    return most < 1 ? 1 : (unsigned)(wanted < most ? wanted : most);
}

int spread(uint32_t count, uint32_t worth, spread_fn fn, void *userdata, uint32_t *ret_index)
{
    struct work work = {.fn = fn,
                        .userdata = userdata,
                        .count = count,
                        .failure = NO_FAILURE,
                        .busy = 1,
                        .ended_fd = -1};
    unsigned wanted = thread_count(count, worth);
    pthread_t threads[THREADS_MAX];
    unsigned started = 0;

    if (wanted > 1)
        work.ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    while (started + 1 < wanted) {
        work.busy++;
        if (thread_start(&threads[started], thread_main, &work) < 0) {
            work.busy--;
            break;
        }
        started++;
    }
    do_some(&work);
    wait_for_helpers(&work);
    while (started-- > 0)
        pthread_join(threads[started], NULL);
    if (work.ended_fd >= 0)
        close(work.ended_fd);
    if (work.failure == NO_FAILURE)
        return 0;
    *ret_index = (uint32_t)(work.failure >> 32);
    return -(int)(work.failure & UINT32_MAX);
}
