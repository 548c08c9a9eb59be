/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The event loop: the only place that knows libev. One loop per process, one thread. Callbacks may
 * free their own watcher. Freeing a watcher stops it; the descriptor stays the caller's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct loop;
struct loop_io;
struct loop_timer;
struct loop_signal;

enum loop_events { LOOP_READ = 1, LOOP_WRITE = 2 };

int loop_new(struct loop **ret_loop, struct error *error);
void loop_free(struct loop *loop);
/* Runs until loop_stop. Blocks. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

typedef void (*loop_io_fn)(void *userdata, unsigned events);
struct loop_io *loop_io_new(struct loop *loop, int fd, unsigned events, loop_io_fn fn,
                            void *userdata);
/* events 0 pauses. Cheap when nothing changes. */
void loop_io_set_events(struct loop_io *io, unsigned events);
/* From now on loop_run_urgent calls fn when there is something to read. Before it is paused for the
 * first time. */
void loop_io_set_urgent(struct loop_io *io, loop_io_fn fn);
/* Of an urgent one, which has left something unread: it is called for that again. */
void loop_io_again(struct loop_io *io);
void loop_io_free(struct loop_io *io);

typedef void (*loop_timer_fn)(void *userdata);
/* Created stopped. */
struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn fn, void *userdata);
/* From now on it is called after everything else that is ready in the same turn. Before it is
 * started. */
void loop_timer_set_last(struct loop_timer *timer);
/* One shot, delay_ms from now (0: next turn); a second start moves it. */
void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms);
void loop_timer_stop(struct loop_timer *timer);
bool loop_timer_is_active(const struct loop_timer *timer);
void loop_timer_free(struct loop_timer *timer);

typedef void (*loop_signal_fn)(void *userdata, int signal_number);
struct loop_signal *loop_signal_new(struct loop *loop, int signal_number, loop_signal_fn fn,
                                    void *userdata);
void loop_signal_free(struct loop_signal *watcher);

/* Wakes the loop from another thread and runs fn there (once per loop_wake_send burst). */
struct loop_wake;
typedef void (*loop_wake_fn)(void *userdata);
struct loop_wake *loop_wake_new(struct loop *loop, loop_wake_fn fn, void *userdata);
void loop_wake_set_urgent(struct loop_wake *wake);
void loop_wake_send(struct loop_wake *wake); /* thread-safe */
void loop_wake_free(struct loop_wake *wake);

/* From inside of a callback: waits until something urgent or fd (-1: none) is readable, timeout_us
 * at most, and calls what is urgent and readable, and nothing else; a callback may free its own
 * watcher only. */
void loop_run_urgent(struct loop *loop, int fd, int64_t timeout_us);

/* Monotonic clock, ms. */
uint64_t loop_now_ms(struct loop *loop);
