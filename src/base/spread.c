/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/spread.h"

#include <stdatomic.h>
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
    do_some(userdata);
    return NULL;
}

/* With the caller's. */
static unsigned thread_count(uint32_t count, uint32_t worth)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long most = processors < THREADS_MAX ? processors : THREADS_MAX;
    long wanted = count / worth;

    return (unsigned)(wanted < most ? wanted : most);
}

int spread(uint32_t count, uint32_t worth, spread_fn fn, void *userdata, uint32_t *ret_index)
{
    struct work work = {.fn = fn, .userdata = userdata, .count = count, .failure = NO_FAILURE};
    unsigned wanted = thread_count(count, worth);
    pthread_t threads[THREADS_MAX];
    unsigned started = 0;

    while (started + 1 < wanted && thread_start(&threads[started], thread_main, &work) == 0)
        started++;
    do_some(&work);
    while (started-- > 0)
        pthread_join(threads[started], NULL);
    if (work.failure == NO_FAILURE)
        return 0;
    *ret_index = (uint32_t)(work.failure >> 32);
    return -(int)(work.failure & UINT32_MAX);
}
