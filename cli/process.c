/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "process.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel.h"
#include "terminal.h"

_Noreturn void process_fail(int channel, int exit_code, const struct error *error)
{
    (void)channel_send(channel, MESSAGE_FAILED, exit_code, error->text);
    _exit(exit_code);
}

bool process_claim_children(void)
{
    return signal(SIGCHLD, SIG_DFL) == SIG_IGN;
}

void process_tie_to_parent(int channel)
{
    char peek;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (recv(channel, &peek, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        _exit(EXIT_MOAT_FAILED);
}

void process_reap(int channel, pid_t command)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WUNTRACED);

        if (pid < 0 && errno != EINTR)
            return;
        if (pid != command)
            continue;
        (void)channel_send(channel, WIFSTOPPED(status) ? MESSAGE_STOPPED : MESSAGE_ENDED,
                           WIFSTOPPED(status) ? WSTOPSIG(status) : status, NULL);
        if (!WIFSTOPPED(status))
            return;
    }
}

/* K=V sets, K copies from the caller's environment: it is there already. */
static int set_environment(const struct strings *env, struct error *error)
{
    for (size_t i = 0; env && i < env->count; i++) {
        const char *item = env->items[i];
        size_t length = strcspn(item, "=");
        _cleanup_free_ char *name = strndup(item, length);

        if (item[length] == '=' && (!name || setenv(name, item + length + 1, 1) < 0))
            return error_set(error, errno, "can't set %s", item);
    }
    return 0;
}

/* PWD names the directory where that changed (--workdir, --rootfs, another container's files);
 * OLDPWD is nothing that COMMAND could go back to then. */
static int set_directory(struct error *error)
{
    const char *named = getenv("PWD");
    _cleanup_free_ char *here = NULL;
    struct stat there;
    struct stat st;

    if (!named || stat(".", &st) < 0 ||
        (stat(named, &there) == 0 && there.st_ino == st.st_ino && there.st_dev == st.st_dev))
        return 0;
    here = getcwd(NULL, 0);
    if (unsetenv("OLDPWD") < 0 || (here ? setenv("PWD", here, 1) : unsetenv("PWD")) < 0)
        return error_set(error, errno, "can't set PWD");
    return 0;
}

static int set_user(const struct process *process, const struct user *user, struct error *error)
{
    if (process->user_namespace) {
        if (user->uid != geteuid() || (user->gid_given && user->gid != getegid()))
            return error_set(error, 0,
                             "COMMAND can only run as user %u, group %u here; others need root",
                             geteuid(), getegid());
        return 0;
    }
    if (setgroups(user->n_groups, user->groups) < 0 ||
        setresgid(user->gid, user->gid, user->gid) < 0 ||
        setresuid(user->uid, user->uid, user->uid) < 0)
        return error_set(error, errno, "can't become user %u, group %u", user->uid, user->gid);
    return 0;
}

static int become_user(const struct process *process, struct error *error)
{
    struct user found = {0};
    int r = 0;

    if (process->user_text)
        r = user_parse(process->user_text, USER_FILES, &found, error);
    if (r == 0 && (process->user_text || process->user))
        r = set_user(process, process->user_text ? &found : process->user, error);
    user_deinit(&found);
    return r;
}

static int prepare(const struct process *process, struct error *error)
{
    int r = set_directory(error);

    if (r == 0)
        r = set_environment(process->env, error);
    if (r < 0)
        return r;
    r = become_user(process, error);
    if (r < 0)
        return r;
    /* A change of user takes this away: it comes after it. */
    if (process->tied)
        process_tie_to_parent(process->channel);
    /* The channel is among them, and is needed until the moment of execution. */
    if (close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0)
        return error_set(error, errno, "can't close inherited descriptors");
    return 0;
}

/* Is there a file of this name in a folder of the PATH? One that can't be searched has none, as for
 * any shell. */
static bool is_on_path(const char *name)
{
    const char *path = getenv("PATH");
    char file[PATH_MAX];
    struct stat st;

    while (path && *path) {
        size_t length = strcspn(path, ":");

        if (snprintf(file, sizeof(file), "%.*s/%s", (int)length, path, name) < (int)sizeof(file) &&
            stat(file, &st) == 0)
            return true;
        path += length + (path[length] == ':');
    }
    return false;
}

static int refuse_execution(const char *name, int errnum, struct error *error)
{
    if (!strchr(name, '/') && (errnum == ENOENT || (errnum == EACCES && !is_on_path(name)))) {
        error_set(error, 0, "%s: there is no such command on the PATH", name);
        return EXIT_NOT_FOUND;
    }
    error_set(error, errnum, "can't execute %s", name);
    return errnum == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

_Noreturn void process_execute(const struct process *process)
{
    struct error error = ERROR_INIT;
    int exit_code = EXIT_MOAT_FAILED;

    if (process->own_group)
        terminal_enter_own_group();
    if (prepare(process, &error) == 0) {
        (void)channel_send(process->channel, MESSAGE_STARTED, 0, NULL);
        if (process->ignore_children)
            signal(SIGCHLD, SIG_IGN);
        sigprocmask(SIG_SETMASK, process->mask, NULL);
        execvp(process->argv[0], process->argv);
        exit_code = refuse_execution(process->argv[0], errno, &error);
    }
    process_fail(process->channel, exit_code, &error);
}
