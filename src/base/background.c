/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two queues with one lock: what is to run, and what has run and was not told of yet. `unfinished`
 * counts the jobs between submission and the moment in which they are taken for telling, or in
 * which whoever waits for one is told. */
#include "base/background.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/thread.h"
#include "base/yield.h"

struct jobs {
    struct job *first;
    struct job **end;
};

struct background {
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work;  /* something is to run, or stop */
    pthread_cond_t ran;   /* something has run */
    struct jobs to_run;
    struct jobs to_tell;
    size_t unfinished;
    bool settling; /* somebody waits: the loop need not be woken */
    bool stop;
    int awaited_fd; /* eventfd(2): the job that background_run waits for has run */
    struct loop_wake *wake;
    background_idle_fn on_idle; /* the loop's own, as is what follows */
    void *on_idle_userdata;
};

static void jobs_init(struct jobs *jobs)
{
    jobs->first = NULL;
    jobs->end = &jobs->first;
}

static void jobs_push(struct jobs *jobs, struct job *job)
{
    job->next = NULL;
    *jobs->end = job;
    jobs->end = &job->next;
}

static struct job *jobs_pop(struct jobs *jobs)
{
    struct job *job = jobs->first;

    if (job) {
        jobs->first = job->next;
        if (!jobs->first)
            jobs->end = &jobs->first;
    }
    return job;
}

/* --- the thread --- */

static struct job *wait_for_work(struct background *background)
{
    struct job *job;

    while (!(job = jobs_pop(&background->to_run)) && !background->stop)
        pthread_cond_wait(&background->work, &background->lock);
    return job;
}

/* Who waits for it has it back from now on. */
static void end_awaited(struct background *background)
{
    background->unfinished--;
    if (background->settling)
        pthread_cond_signal(&background->ran);
    yield_wake(background->awaited_fd);
}

static void end_job(struct background *background, struct job *job)
{
    if (job->awaited) {
        end_awaited(background);
        return;
    }
    jobs_push(&background->to_tell, job);
    if (background->settling)
        pthread_cond_signal(&background->ran);
    else
        loop_wake_send(background->wake);
}

static void *background_main(void *userdata)
{
    struct background *background = userdata;
    struct job *job;

    pthread_mutex_lock(&background->lock);
    while ((job = wait_for_work(background))) {
        pthread_mutex_unlock(&background->lock);
        job->run(job);
        pthread_mutex_lock(&background->lock);
        end_job(background, job);
    }
    pthread_mutex_unlock(&background->lock);
    return NULL;
}

/* --- the loop --- */

static struct job *take_told(struct background *background, bool *ret_more)
{
    struct job *job;

    pthread_mutex_lock(&background->lock);
    job = jobs_pop(&background->to_tell);
    if (job)
        background->unfinished--;
    *ret_more = background->to_tell.first;
    pthread_mutex_unlock(&background->lock);
    return job;
}

static void tell(struct job *job)
{
    if (job->done)
        job->done(job);
}

/* One job each turn, so that others on the loop have theirs in between. */
static void on_wake(void *userdata)
{
    struct background *background = userdata;
    bool more = false;
    struct job *job = take_told(background, &more);

    if (more)
        loop_wake_send(background->wake);
    if (job)
        tell(job);
    if (background->on_idle && background_is_idle(background))
        background->on_idle(background->on_idle_userdata);
}

void background_on_idle(struct background *background, background_idle_fn fn, void *userdata)
{
    background->on_idle = fn;
    background->on_idle_userdata = userdata;
}

bool background_is_idle(struct background *background)
{
    bool idle;

    pthread_mutex_lock(&background->lock);
    idle = background->unfinished == 0;
    pthread_mutex_unlock(&background->lock);
    return idle;
}

static void submit(struct background *background, struct job *job)
{
    pthread_mutex_lock(&background->lock);
    jobs_push(&background->to_run, job);
    background->unfinished++;
    pthread_cond_signal(&background->work);
    pthread_mutex_unlock(&background->lock);
}

void background_submit(struct background *background, struct job *job)
{
    job->awaited = false;
    submit(background, job);
}

void background_run(struct background *background, struct job *job)
{
    uint64_t count;

    job->awaited = true;
    submit(background, job);
    while (read(background->awaited_fd, &count, sizeof(count)) != sizeof(count))
        yield_poll(background->awaited_fd, 1000);
}

/* False when there is nothing to wait for. */
static bool wait_for_one(struct background *background)
{
    bool any;

    pthread_mutex_lock(&background->lock);
    background->settling = true;
    while (background->unfinished > 0 && !background->to_tell.first)
        pthread_cond_wait(&background->ran, &background->lock);
    background->settling = false;
    any = background->to_tell.first;
    pthread_mutex_unlock(&background->lock);
    return any;
}

void background_settle(struct background *background)
{
    bool any = false;
    bool more;

    for (; wait_for_one(background); any = true) {
        struct job *job = take_told(background, &more);

        if (job)
            tell(job);
    }
    if (any && background->on_idle)
        loop_wake_send(background->wake);
}

int background_new(struct loop *loop, const char *name, struct background **ret_background,
                   struct error *error)
{
    struct background *background = calloc(1, sizeof(*background));
    int r;

    if (!background)
        return error_set(error, ENOMEM, "cannot start a thread");
    jobs_init(&background->to_run);
    jobs_init(&background->to_tell);
    pthread_mutex_init(&background->lock, NULL);
    pthread_cond_init(&background->work, NULL);
    pthread_cond_init(&background->ran, NULL);
    background->awaited_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (background->awaited_fd >= 0)
        background->wake = loop_wake_new(loop, on_wake, background);
    r = background->wake ? thread_start(&background->thread, background_main, background) : -ENOMEM;
    if (r < 0) {
        loop_wake_free(background->wake);
        cleanup_close(&background->awaited_fd);
        free(background);
        return error_set(error, r, "cannot start a thread");
    }
    pthread_setname_np(background->thread, name);
    *ret_background = background;
    return 0;
}

void background_free(struct background *background)
{
    if (!background)
        return;
    background_settle(background);
    pthread_mutex_lock(&background->lock);
    background->stop = true;
    pthread_cond_signal(&background->work);
    pthread_mutex_unlock(&background->lock);
    pthread_join(background->thread, NULL);
    pthread_cond_destroy(&background->work);
    pthread_cond_destroy(&background->ran);
    pthread_mutex_destroy(&background->lock);
    loop_wake_free(background->wake);
    close(background->awaited_fd);
    free(background);
}
