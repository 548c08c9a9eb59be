/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stray is recognised by what it is, never by its name: its executable and its network namespace
 * are the same files as ours, its command line is that of a worker, and its parent is no moatd. It
 * is killed through a descriptor that was opened before the look, so that a number that is used
 * again meanwhile hits nobody else. */
#include "worker/stray.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define END_TIMEOUT_MS 1000

/* Is /proc/PID/<name> the same file as /proc/self/<name>? */
static bool is_same(pid_t pid, const char *name)
{
    char path[64];
    struct stat own;
    struct stat other;

    snprintf(path, sizeof(path), "/proc/self/%s", name);
    if (stat(path, &own) < 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    return stat(path, &other) == 0 && own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

static ssize_t read_file(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    ssize_t length;

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    length = read(fd, text, size - 1);
    text[length > 0 ? length : 0] = '\0';
    return length;
}

/* The kind in a worker's command line ("moatd\0--worker\0KIND\0"), NULL for any other process. */
static const char *worker_kind(pid_t pid, char *text, size_t size)
{
    ssize_t length = read_file(pid, "cmdline", text, size);
    const char *end = text + (length > 0 ? length : 0);
    const char *option = text + strlen(text) + 1;

    if (option >= end || strcmp(option, "--worker") != 0)
        return NULL;
    option += strlen(option) + 1;
    return option < end ? option : NULL;
}

static pid_t parent_of(pid_t pid)
{
    char text[512];
    const char *after;
    int parent = 0;

    if (read_file(pid, "stat", text, sizeof(text)) <= 0)
        return 0;
    after = strrchr(text, ')'); /* the name before it may hold anything */
    if (!after || sscanf(after + 1, " %*c %d", &parent) != 1)
        return 0;
    return parent;
}

static bool is_stray(pid_t pid, const char *kind)
{
    char text[256];
    const char *found = worker_kind(pid, text, sizeof(text));
    pid_t parent;

    if (!found || strcmp(found, kind) != 0 || !is_same(pid, "exe") || !is_same(pid, "ns/net"))
        return false;
    parent = parent_of(pid);
    return !(parent > 0 && is_same(parent, "exe") && !worker_kind(parent, text, sizeof(text)));
}

static void stray_end(pid_t pid, const char *kind)
{
    _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd wait = {.fd = pidfd, .events = POLLIN};

    if (pidfd < 0 || !is_stray(pid, kind))
        return;
    log_info("ending a %s worker (pid %d) that a former moatd left", kind, pid);
    if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 ||
        poll(&wait, 1, END_TIMEOUT_MS) <= 0)
        log_warning("the %s worker (pid %d) does not end", kind, pid);
}

void strays_end(const char *kind, bool (*is_known)(void *userdata, pid_t pid), void *userdata)
{
    DIR *directory = opendir("/proc");
    struct dirent *entry;

    if (!directory) {
        log_warning("cannot look for former workers: /proc is not there");
        return;
    }
    while ((entry = readdir(directory))) {
        char *end = NULL;
        long pid = strtol(entry->d_name, &end, 10);

        if (*end || pid <= 0 || pid == getpid() || !is_stray((pid_t)pid, kind) ||
            is_known(userdata, (pid_t)pid))
            continue;
        stray_end((pid_t)pid, kind);
    }
    closedir(directory);
}
