/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests that start workers: the test program is its own worker (`--worker KIND`), in a network
 * namespace of its own, with a run directory that goes when the test ends. */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/loop.h"

#define WAIT_MS 10000 /* for what must happen; it takes milliseconds */

typedef bool (*condition_fn)(void *userdata);

struct wait {
    struct loop *loop;
    struct loop_timer *timer;
    condition_fn condition;
    void *userdata;
    uint64_t deadline_ms;
    bool met;
};

static inline void wait_tick(void *userdata)
{
    struct wait *wait = userdata;

    wait->met = wait->condition(wait->userdata);
    if (wait->met || loop_now_ms(wait->loop) > wait->deadline_ms)
        loop_stop(wait->loop);
    else
        loop_timer_start(wait->timer, 1);
}

/* Runs the loop until the condition holds. */
static inline bool wait_for(struct loop *loop, condition_fn condition, void *userdata)
{
    struct wait wait = {.loop = loop,
                        .condition = condition,
                        .userdata = userdata,
                        .deadline_ms = loop_now_ms(loop) + WAIT_MS};

    wait.timer = loop_timer_new(loop, wait_tick, &wait);
    loop_timer_start(wait.timer, 0);
    loop_run(loop);
    loop_timer_free(wait.timer);
    return wait.met;
}

static inline unsigned fds_count(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* A process that is no child of ours, or was waited for. */
static inline bool process_is_gone(int pidfd)
{
    struct pollfd process = {.fd = pidfd, .events = POLLIN};

    return poll(&process, 1, WAIT_MS) == 1;
}

static inline bool file_exists(const char *directory, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

static inline void run_dir_make(char path[64])
{
    snprintf(path, 64, "/tmp/moat-unit-XXXXXX");
    assert_non_null(mkdtemp(path));
}

static inline unsigned run_dir_count(const char *path)
{
    DIR *directory = opendir(path);
    unsigned count = 0;
    struct dirent *entry;

    while ((entry = readdir(directory)))
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static inline bool file_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return written;
}

static inline bool userns_enter(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char map[64];

    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 || !file_write("/proc/self/setgroups", "deny"))
        return false;
    snprintf(map, sizeof(map), "0 %u 1", gid);
    if (!file_write("/proc/self/gid_map", map))
        return false;
    snprintf(map, sizeof(map), "0 %u 1", uid);
    return file_write("/proc/self/uid_map", map);
}

/* An own network namespace with lo up. Without root: in an own user namespace, where we are root
 * (without the right to become others). Returns false where the kernel allows neither. */
static inline bool netns_enter(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd;

    if (unshare(CLONE_NEWNET) < 0 && !userns_enter())
        return false;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return false;
    close(fd);
    return true;
}
