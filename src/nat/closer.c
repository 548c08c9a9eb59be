/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ranges wait in the order in which they were added, are handed to the thread from the front, and
 * are closed in that order. What is closed counts at once, and is told of by a wake of its own; the
 * memory comes back later. */
#include "nat/closer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/background.h"
#include "base/cleanup.h"
#include "base/priority.h"
#include "base/spread.h"
#include "base/yield.h"

#define SPREAD_WORTH 256 /* so many are closed before another thread has begun */

struct range {
    struct job job;
    struct closer *closer;
    struct range *next;
    uint64_t release;
    bool submitted;
    uint32_t count;
    int fds[];
};

struct closer {
    struct loop *loop;
    struct background *background;
    closer_ready_fn ready;
    closer_closed_fn closed;
    void *userdata;
    struct loop_wake *wake; /* more is closed */
    int closed_fd;          /* eventfd(2): the same, for closer_wait */
    struct range *first;    /* those whose memory has not come back yet */
    struct range **end;
    uint64_t added;
    _Atomic uint64_t n_closed;
};

static int close_one(void *userdata, uint32_t index)
{
    int *fds = userdata;

    if (fds[index] >= 0)
        close(fds[index]);
    fds[index] = -1;
    return 0;
}

void closer_close(int *fds, uint32_t count)
{
    uint32_t failed;

    (void)spread(count, SPREAD_WORTH, close_one, fds, &failed); /* which can't fail */
}

static void range_close(struct job *job)
{
    struct range *range = (struct range *)job;
    struct closer *closer = range->closer;

    priority_lower();
    closer_close(range->fds, range->count);
    closer->n_closed++;
    yield_wake(closer->closed_fd);
    loop_wake_send(closer->wake);
}

static void range_free(struct job *job)
{
    struct range *range = (struct range *)job;
    struct closer *closer = range->closer;

    closer->first = range->next;
    if (!closer->first)
        closer->end = &closer->first;
    free(range);
}

static void on_wake(void *userdata)
{
    struct closer *closer = userdata;

    closer->closed(closer->userdata);
}

static void submit(struct closer *closer, bool all)
{
    for (struct range *range = closer->first; range; range = range->next) {
        if (range->submitted)
            continue;
        if (!all && !closer->ready(closer->userdata, range->release))
            return;
        range->submitted = true;
        background_submit(closer->background, &range->job);
    }
}

void closer_look(struct closer *closer)
{
    submit(closer, false);
}

void closer_add(struct closer *closer, int *fds, uint32_t count, uint64_t release)
{
    struct range *range = calloc(1, sizeof(*range) + count * sizeof(range->fds[0]));

    if (!range) {
        closer_close(fds, count);
        return;
    }
    *range = (struct range){.job = {.run = range_close, .done = range_free},
                            .closer = closer,
                            .release = release,
                            .count = count};
    memcpy(range->fds, fds, count * sizeof(range->fds[0]));
    for (uint32_t i = 0; i < count; i++)
        fds[i] = -1;
    closer->added++;
    *closer->end = range;
    closer->end = &range->next;
    closer_look(closer);
}

bool closer_has_closed(const struct closer *closer, uint64_t number)
{
    return closer->n_closed >= number;
}

uint64_t closer_added(const struct closer *closer)
{
    return closer->added;
}

bool closer_wait(struct closer *closer, uint64_t number, unsigned timeout_ms)
{
    uint64_t deadline_ms = loop_now_ms(closer->loop) + timeout_ms;
    uint64_t count;

    closer_look(closer);
    while (!closer_has_closed(closer, number)) {
        uint64_t now_ms = loop_now_ms(closer->loop);

        if (now_ms >= deadline_ms)
            return false;
        /* Nothing more since the last look? */
        if (read(closer->closed_fd, &count, sizeof(count)) < 0)
            yield_poll(closer->closed_fd, (int)(deadline_ms - now_ms));
    }
    return true;
}

static int parts_make(struct closer *closer, struct error *error)
{
    closer->closed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    closer->wake = loop_wake_new(closer->loop, on_wake, closer);
    if (closer->closed_fd < 0 || !closer->wake)
        return error_set(error, ENOMEM, "cannot close ports");
    loop_wake_set_urgent(closer->wake);
    return background_new(closer->loop, "ports", &closer->background, error);
}

int closer_new(struct loop *loop, closer_ready_fn ready, closer_closed_fn closed, void *userdata,
               struct closer **ret_closer, struct error *error)
{
    struct closer *closer = calloc(1, sizeof(*closer));
    int r;

    if (!closer)
        return error_set(error, ENOMEM, "cannot close ports");
    *closer = (struct closer){
        .loop = loop, .ready = ready, .closed = closed, .userdata = userdata, .closed_fd = -1};
    closer->end = &closer->first;
    r = parts_make(closer, error);
    if (r < 0) {
        closer_free(closer);
        return r;
    }
    *ret_closer = closer;
    return 0;
}

void closer_free(struct closer *closer)
{
    if (!closer)
        return;
    if (closer->background)
        submit(closer, true);
    background_free(closer->background);
    loop_wake_free(closer->wake);
    cleanup_close(&closer->closed_fd);
    free(closer);
}
