/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Thin watchers over libev. libev drops what is pending for a watcher when it is stopped and does
 * not look at a watcher after it has called it, which is why any watcher may be freed from any
 * callback. */
#include "base/loop.h"

#include <errno.h>
#include <ev.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/yield.h"

#define URGENT_MAX 64 /* calls of one loop_run_urgent */

struct loop {
    struct ev_loop *ev;
    int urgent_fd; /* epoll(7), edge-triggered: what became ready of urgent watchers */
};

struct loop_io {
    ev_io ev;
    struct loop *loop;
    loop_io_fn fn;
    void *userdata;
    loop_io_fn urgent; /* NULL: it is not */
};

struct loop_timer {
    ev_timer ev;
    struct loop *loop;
    loop_timer_fn fn;
    void *userdata;
};

struct loop_signal {
    ev_signal ev;
    struct loop *loop;
    loop_signal_fn fn;
    void *userdata;
};

struct loop_wake {
    int fd; /* eventfd(2) */
    struct loop_io *io;
    loop_wake_fn fn;
    void *userdata;
};

int loop_new(struct loop **ret_loop, struct error *error)
{
    _cleanup_free_ struct loop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return error_set(error, ENOMEM, "cannot make an event loop");
    loop->urgent_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->urgent_fd < 0)
        return error_set(error, errno, "cannot make an event loop");
    loop->ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
    if (!loop->ev) {
        int r = error_set(error, errno, "cannot make an event loop");

        close(loop->urgent_fd);
        return r;
    }
    *ret_loop = TAKE_PTR(loop);
    return 0;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    ev_loop_destroy(loop->ev);
    close(loop->urgent_fd);
    free(loop);
}

void loop_run(struct loop *loop)
{
    ev_run(loop->ev, 0);
}

void loop_stop(struct loop *loop)
{
    ev_break(loop->ev, EVBREAK_ALL);
}

static int events_to_ev(unsigned events)
{
    return (events & LOOP_READ ? EV_READ : 0) | (events & LOOP_WRITE ? EV_WRITE : 0);
}

static void io_ready(struct ev_loop *ev, ev_io *watcher, int revents)
{
    struct loop_io *io = watcher->data;

    (void)ev;
    io->fn(io->userdata,
           (revents & EV_READ ? LOOP_READ : 0u) | (revents & EV_WRITE ? LOOP_WRITE : 0u));
}

struct loop_io *loop_io_new(struct loop *loop, int fd, unsigned events, loop_io_fn fn,
                            void *userdata)
{
    struct loop_io *io = calloc(1, sizeof(*io));

    if (!io)
        return NULL;
    io->loop = loop;
    io->fn = fn;
    io->userdata = userdata;
    ev_io_init(&io->ev, io_ready, fd, 0);
    io->ev.data = io;
    loop_io_set_events(io, events);
    return io;
}

/* Of an urgent watcher. What becomes ready in a pause is told of once and not heard; when the pause
 * ends it is told of anew. */
static int urgent_control(struct loop_io *io, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = io};

    return epoll_ctl(io->loop->urgent_fd, operation, io->ev.fd, &event) < 0 ? -errno : 0;
}

void loop_io_set_urgent(struct loop_io *io, loop_io_fn fn)
{
    int r = urgent_control(io, EPOLL_CTL_ADD);

    if (r >= 0)
        io->urgent = fn;
    else /* it has its turns with the others */
        log_warning("a watcher can't be urgent: %s", strerrordesc_np(-r));
}

void loop_io_set_events(struct loop_io *io, unsigned events)
{
    int wanted = events_to_ev(events);

    bool was_read = ev_is_active(&io->ev) && io->ev.events & EV_READ;

    if ((io->ev.events & (EV_READ | EV_WRITE)) == wanted && (wanted != 0) == ev_is_active(&io->ev))
        return;
    ev_io_stop(io->loop->ev, &io->ev);
    ev_io_set(&io->ev, io->ev.fd, wanted);
    if (wanted)
        ev_io_start(io->loop->ev, &io->ev);
    if (io->urgent && !was_read && events & LOOP_READ)
        loop_io_again(io);
}

void loop_io_again(struct loop_io *io)
{
    (void)urgent_control(io, EPOLL_CTL_MOD); /* if that fails, it has its turns */
}

void loop_io_free(struct loop_io *io)
{
    if (!io)
        return;
    if (io->urgent)
        (void)urgent_control(io, EPOLL_CTL_DEL); /* fails for one that is closed already */
    ev_io_stop(io->loop->ev, &io->ev);
    free(io);
}

static void timer_expired(struct ev_loop *ev, ev_timer *watcher, int revents)
{
    struct loop_timer *timer = watcher->data;

    (void)ev;
    (void)revents;
    timer->fn(timer->userdata);
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn fn, void *userdata)
{
    struct loop_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        return NULL;
    timer->loop = loop;
    timer->fn = fn;
    timer->userdata = userdata;
    ev_timer_init(&timer->ev, timer_expired, 0., 0.);
    timer->ev.data = timer;
    return timer;
}

void loop_timer_set_last(struct loop_timer *timer)
{
    ev_set_priority(&timer->ev, EV_MINPRI);
}

void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms)
{
    ev_timer_stop(timer->loop->ev, &timer->ev);
    /* libev counts from the time it read at the start of its turn, which may be long ago. */
    if (delay_ms > 0)
        ev_now_update(timer->loop->ev);
    ev_timer_set(&timer->ev, (double)delay_ms / 1000., 0.);
    ev_timer_start(timer->loop->ev, &timer->ev);
}

void loop_timer_stop(struct loop_timer *timer)
{
    ev_timer_stop(timer->loop->ev, &timer->ev);
}

bool loop_timer_is_active(const struct loop_timer *timer)
{
    return timer->ev.active != 0;
}

void loop_timer_free(struct loop_timer *timer)
{
    if (!timer)
        return;
    ev_timer_stop(timer->loop->ev, &timer->ev);
    free(timer);
}

static void signal_received(struct ev_loop *ev, ev_signal *watcher, int revents)
{
    struct loop_signal *signal = watcher->data;

    (void)ev;
    (void)revents;
    signal->fn(signal->userdata, watcher->signum);
}

struct loop_signal *loop_signal_new(struct loop *loop, int signal_number, loop_signal_fn fn,
                                    void *userdata)
{
    struct loop_signal *watcher = calloc(1, sizeof(*watcher));

    if (!watcher)
        return NULL;
    watcher->loop = loop;
    watcher->fn = fn;
    watcher->userdata = userdata;
    ev_signal_init(&watcher->ev, signal_received, signal_number);
    watcher->ev.data = watcher;
    ev_signal_start(loop->ev, &watcher->ev);
    return watcher;
}

void loop_signal_free(struct loop_signal *watcher)
{
    if (!watcher)
        return;
    ev_signal_stop(watcher->loop->ev, &watcher->ev);
    free(watcher);
}

/* --- waking --- */

static void wake_received(void *userdata, unsigned events)
{
    struct loop_wake *wake = userdata;
    uint64_t count;

    (void)events;
    if (read(wake->fd, &count, sizeof(count)) == sizeof(count))
        wake->fn(wake->userdata);
}

struct loop_wake *loop_wake_new(struct loop *loop, loop_wake_fn fn, void *userdata)
{
    struct loop_wake *wake = calloc(1, sizeof(*wake));

    if (!wake)
        return NULL;
    *wake = (struct loop_wake){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = fn, .userdata = userdata};
    if (wake->fd >= 0)
        wake->io = loop_io_new(loop, wake->fd, LOOP_READ, wake_received, wake);
    if (!wake->io) {
        loop_wake_free(wake);
        return NULL;
    }
    return wake;
}

void loop_wake_set_urgent(struct loop_wake *wake)
{
    loop_io_set_urgent(wake->io, wake_received);
}

void loop_wake_send(struct loop_wake *wake)
{
    yield_wake(wake->fd);
}

void loop_wake_free(struct loop_wake *wake)
{
    if (!wake)
        return;
    loop_io_free(wake->io);
    if (wake->fd >= 0)
        close(wake->fd);
    free(wake);
}

/* --- what is urgent --- */

/* One that became ready. False when there is none. */
static bool run_one_urgent(struct loop *loop)
{
    struct epoll_event event;
    struct loop_io *io;

    if (epoll_wait(loop->urgent_fd, &event, 1, 0) != 1)
        return false;
    io = event.data.ptr;
    if (io->ev.events & EV_READ && ev_is_active(&io->ev))
        io->urgent(io->userdata, LOOP_READ);
    return true;
}

void loop_run_urgent(struct loop *loop, int fd, int64_t timeout_us)
{
    const struct timespec timeout = {.tv_sec = timeout_us / 1000000,
                                     .tv_nsec = timeout_us % 1000000 * 1000};
    struct pollfd fds[] = {{.fd = loop->urgent_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};

    if (ppoll(fds, 2, &timeout, NULL) <= 0)
        return;
    for (unsigned i = 0; i < URGENT_MAX && run_one_urgent(loop); i++)
        ;
}

uint64_t loop_now_ms(struct loop *loop)
{
    struct timespec now;

    (void)loop; /* libev shows its turn's wall clock only; reading the monotonic one costs 20 ns */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
