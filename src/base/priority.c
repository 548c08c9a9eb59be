/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/priority.h"

#include <sys/resource.h>
#include <unistd.h>

#define NICE_LOOP (-10)
#define NICE_LOW 5

/* On Linux a nice value is a thread's own. No thread has the id 0: who is meant is the caller. */
void priority_raise(void)
{
    if (getpriority(PRIO_PROCESS, 0) == 0)
        (void)setpriority(PRIO_PROCESS, 0, NICE_LOOP); /* without CAP_SYS_NICE it stays as it is */
}

void priority_give_up(void)
{
    if (getpriority(PRIO_PROCESS, 0) < 0)
        (void)setpriority(PRIO_PROCESS, 0, 0); /* needs no privilege in this direction */
}

void priority_lower(void)
{
    if (getpriority(PRIO_PROCESS, 0) < NICE_LOW)
        (void)setpriority(PRIO_PROCESS, 0, NICE_LOW); /* needs no privilege either */
}
