/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/priority.h"

struct start {
    void *(*run)(void *userdata);
    void *userdata;
};

static void *thread_main(void *userdata)
{
    struct start start = *(struct start *)userdata;

    free(userdata);
    priority_give_up();
    return start.run(start.userdata);
}

int thread_start(pthread_t *ret_thread, void *(*run)(void *), void *userdata)
{
    struct start *start = malloc(sizeof(*start));
    sigset_t all;
    sigset_t before;
    int code;

    if (!start)
        return -ENOMEM;
    *start = (struct start){run, userdata};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(ret_thread, NULL, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0)
        free(start);
    return -code;
}
