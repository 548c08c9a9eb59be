/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread beside the loop for what makes the caller wait for others (the kernel's configuration
 * lock, say): it runs jobs one after the other, in the order in which they were submitted, and the
 * loop hears of each when it has run. Used from the loop's thread, but for what `run` does. */
#pragma once

#include "base/loop.h"

struct background;

/* Part of the submitter's own object; it must stay until `done` is called. */
struct job {
    void (*run)(struct job *job);  /* on the thread */
    void (*done)(struct job *job); /* then on the loop; may submit, and free the job. NULL: none */
    /* background's own */
    struct job *next;
    bool awaited; /* by background_run: nobody else is told */
};

/* Starts the thread under that name (15 characters at most); signals stay the caller's. */
int background_new(struct loop *loop, const char *name, struct background **ret_background,
                   struct error *error);
/* Settles, then ends the thread. */
void background_free(struct background *background);
/* fn is called from the loop when the last job has been told of, and no other was submitted; maybe
 * once too often. */
typedef void (*background_idle_fn)(void *userdata);
void background_on_idle(struct background *background, background_idle_fn fn, void *userdata);
/* Has every job run, and was it told of? */
bool background_is_idle(struct background *background);
/* Never fails, never blocks. */
void background_submit(struct background *background, struct job *job);
/* Has a job run in its turn and waits for that; what is urgent goes on meanwhile (yield.h). `done`
 * is not called. Other jobs that have run by then are not told of before. */
void background_run(struct background *background, struct job *job);
/* Blocks until every job has run and was told of, those that are submitted meanwhile included. May
 * be called from `done`: then it returns when the others are. */
void background_settle(struct background *background);
