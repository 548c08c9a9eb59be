/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/priority.h"
#include "worker/worker.h"

/* Only what the worker has a use for: its journal stream, the sanitizers' options, and what our
 * tests find their processes by. Secrets of the daemon's environment stay here. */
static bool environment_is_passed(const char *variable)
{
    static const char *const prefixes[] = {"JOURNAL_STREAM=", "MOAT_",
                                           "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "LC_ALL="};

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

/* The strings stay those of environ. */
char **spawn_environment_new(void)
{
    size_t count = 0;
    char **environment;

    while (environ && environ[count])
        count++;
    environment = calloc(count + 1, sizeof(*environment));
    if (!environment)
        return NULL;
    for (size_t i = 0, kept = 0; i < count; i++) {
        if (environment_is_passed(environ[i]))
            environment[kept++] = environ[i];
    }
    return environment;
}

/* In the child, with all signals blocked, since moatd's handlers must not run here; other threads
 * of moatd may have held any lock at the fork, so only async-signal-safe functions are called
 * (fork(2)). */
static void child_exec(char *kind, char **environment, int listener_fd, int control_fd)
{
    char program[] = "moatd";
    char option[] = "--worker";
    char *arguments[] = {program, option, kind, NULL};
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int control_high = fcntl(control_fd, F_DUPFD_CLOEXEC, WORKER_LISTENER_FD + 1);
    int listener_high = fcntl(listener_fd, F_DUPFD_CLOEXEC, WORKER_LISTENER_FD + 1);

    if (null_fd < 0 || control_high < 0 || listener_high < 0)
        _exit(126);
    if (dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0 ||
        dup2(control_high, WORKER_CONTROL_FD) < 0 || dup2(listener_high, WORKER_LISTENER_FD) < 0)
        _exit(126);
    if (close_range(WORKER_LISTENER_FD + 1, ~0u, 0) < 0)
        _exit(126);
    setsid();
    priority_give_up(); /* it works for guests */
    execve("/proc/self/exe", arguments, environment);
    _exit(127);
}

int spawn_worker(char *kind, char **environment, int listener_fd, int control_fd, pid_t *ret_pid,
                 int *ret_pidfd, struct error *error)
{
    sigset_t all;
    sigset_t before;
    pid_t pid;
    int pidfd;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0)
        child_exec(kind, environment, listener_fd, control_fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return error_set(error, errno, "cannot start the %s worker", kind);
    pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        int code = errno;

        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return error_set(error, code, "cannot watch the %s worker", kind);
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}
