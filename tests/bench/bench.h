/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the programs of tests/bench share. Each reads commands, one per line, from its standard
 * input and answers each with one line of numbers; `run` drives them. They die with it. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define GUESTS_MAX 4096
#define SETTLE_MS 10000

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;
    int errnum = errno;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (%s)\n", strerror(errnum));
    exit(1);
}

static inline void enter(int netns_fd)
{
    if (setns(netns_fd, CLONE_NEWNET) < 0)
        die("setns");
}

/* Makes a network namespace and leaves the caller where it was. */
static inline int netns_make(int home_fd)
{
    if (unshare(CLONE_NEWNET) < 0)
        die("unshare");
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die("the new namespace");
    enter(home_fd);
    return fd;
}

static inline int netns_home(void)
{
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        die("the own namespace");
    return fd;
}

/* Waits until the guest's interface is gone: its deletion goes on behind a detach. */
static inline void netns_settle(int netns_fd, int home_fd)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    enter(netns_fd);
    for (unsigned i = 0; if_nametoindex("eth0") != 0; i++) {
        if (i == SETTLE_MS)
            die("eth0 does not go away");
        nanosleep(&pause, NULL);
    }
    enter(home_fd);
}
