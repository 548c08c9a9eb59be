/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ranges wait in the order in which they were added, are handed to the thread from the front, and
 * come back from it in the same order. */
#include "nat/closer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/background.h"
#include "base/priority.h"
#include "base/spread.h"

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
    struct background *background;
    closer_ready_fn ready;
    closer_closed_fn closed;
    void *userdata;
    struct range *first; /* those that nobody has told of as closed yet */
    struct range **end;
    uint64_t added;
    uint64_t n_closed;
};

static int close_one(void *userdata, uint32_t index)
{
    const int *fds = userdata;

    if (fds[index] >= 0)
        close(fds[index]);
    return 0;
}

static void range_close(struct job *job)
{
    struct range *range = (struct range *)job;
    uint32_t failed;

    priority_lower();
    (void)spread(range->count, SPREAD_WORTH, close_one, range->fds, &failed); /* which can't fail */
}

static void range_closed(struct job *job)
{
    struct range *range = (struct range *)job;
    struct closer *closer = range->closer;

    closer->n_closed++;
    closer->first = range->next;
    if (!closer->first)
        closer->end = &closer->first;
    free(range);
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

void closer_add(struct closer *closer, const int *fds, uint32_t count, uint64_t release)
{
    struct range *range = calloc(1, sizeof(*range) + count * sizeof(range->fds[0]));

    if (!range) {
        for (uint32_t i = 0; i < count; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        return;
    }
    *range = (struct range){.job = {.run = range_close, .done = range_closed},
                            .closer = closer,
                            .release = release,
                            .count = count};
    memcpy(range->fds, fds, count * sizeof(range->fds[0]));
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

void closer_wait(struct closer *closer)
{
    submit(closer, true);
    background_settle(closer->background);
}

int closer_new(struct loop *loop, closer_ready_fn ready, closer_closed_fn closed, void *userdata,
               struct closer **ret_closer, struct error *error)
{
    struct closer *closer = calloc(1, sizeof(*closer));
    int r;

    if (!closer)
        return error_set(error, ENOMEM, "cannot close ports");
    *closer = (struct closer){.ready = ready, .closed = closed, .userdata = userdata};
    closer->end = &closer->first;
    r = background_new(loop, "ports", &closer->background, error);
    if (r < 0) {
        free(closer);
        return r;
    }
    *ret_closer = closer;
    return 0;
}

void closer_free(struct closer *closer)
{
    if (!closer)
        return;
    closer_wait(closer);
    background_free(closer->background);
    free(closer);
}
