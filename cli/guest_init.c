/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Process 1 stays in the caller's session and process group. Signals that the terminal sends to the
 * whole group do nothing to it, since the kernel drops those without a handler
 * (pid_namespaces(7)). */
#include "guest_init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "channel.h"
#include "etc_files.h"
#include "mounts.h"
#include "process.h"
#include "rootfs.h"

pid_t guest_init_clone(const struct guest_init *init, int *ret_pidfd)
{
    struct clone_args arguments = {
        .flags = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
        .exit_signal = SIGCHLD,
    };

    if (init->user_namespace)
        arguments.flags |= CLONE_NEWUSER;
    if (init->hostname)
        arguments.flags |= CLONE_NEWUTS;
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
}

/* --- the user namespace --- */

static int write_proc(const char *path, const char *text, struct error *error)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t length = strlen(text);

    if (fd < 0 || write(fd, text, length) != (ssize_t)length)
        return error_set(error, errno, "can't write %s", path);
    return 0;
}

/* The caller stays who he is. A gid map of one's own needs setgroups(2) denied
 * (user_namespaces(7)). */
static int map_ids(const struct guest_init *init, struct error *error)
{
    char text[64];
    int r;

    snprintf(text, sizeof(text), "%u %u 1\n", init->uid, init->uid);
    r = write_proc("/proc/self/uid_map", text, error);
    if (r < 0)
        return r;
    r = write_proc("/proc/self/setgroups", "deny", error);
    if (r < 0)
        return r;
    snprintf(text, sizeof(text), "%u %u 1\n", init->gid, init->gid);
    return write_proc("/proc/self/gid_map", text, error);
}

/* --- the place --- */

static int make_place(const struct guest_init *init, struct error *error)
{
    int r = init->user_namespace ? map_ids(init, error) : 0;

    if (r == 0)
        r = mounts_separate(error);
    if (r < 0)
        return r;
    if (init->hostname && sethostname(init->hostname, strlen(init->hostname)) < 0)
        return error_set(error, errno, "can't set the hostname %s", init->hostname);
    if (init->options->rootfs)
        return rootfs_enter(init->options->rootfs, init->user_namespace, error);
    r = mounts_proc(error);
    return r < 0 ? r : mounts_sys(error);
}

/* Empty ones for now: who enters the guest as soon as it is attached must not find the caller's.
 * Outside they are filled, and follow the guest's networks (follow.h). */
static int hand_out_files(const struct guest_init *init, struct error *error)
{
    int files[ETC_FILES];
    int r = etc_files_install("", "", init->user_namespace, error);

    if (r == 0)
        r = etc_files_open(files, error);
    if (r < 0)
        return r;
    if (channel_send_files(init->channel, files) < 0)
        _exit(EXIT_MOAT_FAILED); /* nobody is there to be told */
    for (size_t i = 0; i < ETC_FILES; i++)
        close(files[i]);
    return 0;
}

static void await_begin(const struct guest_init *init)
{
    struct message message;
    pid_t sender;

    if (channel_receive(init->channel, &message, &sender) < 0 || message.type != MESSAGE_BEGIN)
        _exit(EXIT_MOAT_FAILED);
}

/* --- COMMAND --- */

static _Noreturn void execute(const struct guest_init *init)
{
    const struct process process = {
        .argv = init->command_line,
        .env = &init->options->env,
        .user_text = init->user ? NULL : init->options->user,
        .user = init->user,
        .mask = init->mask,
        .user_namespace = init->user_namespace,
        .ignore_children = init->ignore_children,
        .own_group = init->own_group,
        .channel = init->channel,
    };

    process_execute(&process);
}

/* The pipe's other end was COMMAND's: it ends at execution, or with COMMAND. */
static void tell_execution(const struct guest_init *init, int pipe_fd)
{
    char byte;

    while (read(pipe_fd, &byte, 1) < 0 && errno == EINTR)
        continue;
    close(pipe_fd);
    (void)channel_send(init->channel, MESSAGE_EXECUTED, 0, NULL);
}

_Noreturn void guest_init_main(const struct guest_init *init)
{
    struct error error = ERROR_INIT;
    int fds[2] = {-1, -1};
    pid_t command;

    process_tie_to_parent(init->channel);
    if (make_place(init, &error) < 0 || hand_out_files(init, &error) < 0)
        process_fail(init->channel, EXIT_MOAT_FAILED, &error);
    await_begin(init);
    if (init->options->workdir && chdir(init->options->workdir) < 0) {
        error_set(&error, errno, "can't go to the directory %s", init->options->workdir);
        process_fail(init->channel, EXIT_MOAT_FAILED, &error);
    }
    command = pipe2(fds, O_CLOEXEC) < 0 ? -1 : fork();
    if (command == 0)
        execute(init);
    if (command < 0) {
        error_set(&error, errno, "can't start COMMAND's process");
        process_fail(init->channel, EXIT_MOAT_FAILED, &error);
    }
    close(fds[1]);
    tell_execution(init, fds[0]);
    process_reap(init->channel, command);
    _exit(0);
}
