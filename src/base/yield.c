/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/yield.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_NS 75000

/* Of the thread. */
static _Thread_local struct {
    yield_fn fn;
    void *userdata;
    unsigned held; /* by yield_hold, and while fn runs */
    uint64_t last_ns;
} yielder;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void give_way(int fd, int timeout_ms)
{
    yielder.held++;
    yielder.fn(yielder.userdata, fd, timeout_ms);
    yielder.held--;
    yielder.last_ns = now_ns();
}

bool yield_is_possible(void)
{
    return yielder.fn && yielder.held == 0;
}

void yield_begin(yield_fn fn, void *userdata)
{
    yielder.fn = fn;
    yielder.userdata = userdata;
    yielder.last_ns = now_ns();
}

void yield_end(void)
{
    yielder.fn = NULL;
}

void yield_hold(void)
{
    yielder.held++;
}

void yield_release(void)
{
    yielder.held--;
}

void yield_if_due(void)
{
    if (yield_is_possible() && now_ns() - yielder.last_ns >= PERIOD_NS)
        give_way(-1, 0);
}

void yield_poll(int fd, int timeout_ms)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    if (yield_is_possible())
        give_way(fd, timeout_ms);
    else
        (void)poll(&readable, 1, timeout_ms);
}

void yield_wake(int fd)
{
    const uint64_t one = 1;

    while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ; /* EAGAIN: it was woken 2^64 - 2 times already */
}
