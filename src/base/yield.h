/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Long work on the loop's thread lets what is urgent go on in between, at places where it is
 * prepared for that: as cond_resched() does in the kernel. Whoever begins such work says what is
 * urgent; the code that does it calls yield_if_due wherever everything may change but what the
 * caller has declared to be its own. On other threads, outside such work and from inside of what is
 * urgent these only do what they say without. */
#pragma once

#include <stdbool.h>

/* Does what is urgent, and that alone. fd >= 0: waits before, until there is any, or fd is
 * readable, or for timeout_ms. */
typedef void (*yield_fn)(void *userdata, int fd, int timeout_ms);

/* From now on, on this thread, until yield_end. Not within another. */
void yield_begin(yield_fn fn, void *userdata);
void yield_end(void);
/* In between nothing is urgent. They nest. */
void yield_hold(void);
void yield_release(void);
/* Lets what is urgent go on if that has had no turn for 75 µs. Cheap where it has. */
void yield_if_due(void);
/* Would anything go on in between now? */
bool yield_is_possible(void);
/* Waits until fd is readable, or something urgent went on meanwhile, which may have brought what is
 * waited for, or for timeout_ms: look again. */
void yield_poll(int fd, int timeout_ms);
/* Makes an eventfd(2) readable, on which somebody waits so. From any thread. */
void yield_wake(int fd);
