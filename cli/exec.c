/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat exec
 *
 * A guest with a process is entered through a pidfd of that process, so that a number that was
 * given to another process meanwhile can't mislead; the guest is asked for again once the pidfd is
 * there. A guest that is only a path, or whose process sees the host's files, gets a mount
 * namespace for COMMAND alone, in which resolv.conf and hosts are the guest's. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arguments.h"
#include "base/cleanup.h"
#include "channel.h"
#include "etc_files.h"
#include "mounts.h"
#include "process.h"
#include "resolver_query.h"
#include "supervise.h"
#include "terminal.h"

struct execution {
    struct invocation *invocation;
    struct remote *remote;
    struct guest guest;
    int pidfd;      /* -1: the guest is a path */
    int netns;      /* of the path; -1 */
    int directory;  /* the guest's working directory; -1: the caller's */
    int namespaces; /* CLONE_NEW… to be entered through the pidfd */
    bool own_files; /* the guest has a mount namespace that is not ours */
    bool user_namespace;
    struct text conf;
    struct text hosts;
    struct user user;
    bool has_user;
    uid_t owner; /* of the guest's user namespace */
    gid_t owner_group;
    bool has_owner;
    bool ignore_children; /* COMMAND's signal disposition */
    bool own_group;       /* COMMAND's (terminal.h) */
    sigset_t mask;
    int channel;
};

/* --- who is it? --- */

static int get_guest(struct execution *execution, struct guest *ret_guest, struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    int r = remote_call(execution->remote, METHOD_GUEST_GET, &execution->invocation->params,
                        &response, error);

    return r < 0 ? r : proto_response_object(response, &proto_guest, ret_guest, error);
}

/* The same guest as before, with the same process: the pidfd is of the right one. */
static int check_guest(struct execution *execution, struct error *error)
{
    const struct guest *guest = &execution->guest;
    struct guest again;
    bool same;
    int r = get_guest(execution, &again, error);

    if (r < 0)
        return r;
    same = strcmp(again.uid, guest->uid) == 0 && again.pid == guest->pid;
    guest_deinit(&again);
    return same ? 0
                : error_set(error, ESRCH, "the guest %s changed just now; try again", guest->name);
}

static int not_there(const struct execution *execution, struct error *error)
{
    return error_set(error, ESRCH,
                     "the process or path that the guest %s was attached by leads to another "
                     "namespace now; detach it and attach it again",
                     execution->guest.name);
}

static int open_pid(struct execution *execution, struct error *error)
{
    const struct guest *guest = &execution->guest;
    char path[64];
    struct stat status;

    execution->pidfd = pidfd_open(guest->pid, 0);
    if (execution->pidfd < 0)
        return error_set(error, errno, "can't reach process %d of the guest %s", guest->pid,
                         guest->name);
    snprintf(path, sizeof(path), "/proc/%d/ns/net", guest->pid);
    if (stat(path, &status) < 0 || status.st_ino != guest->netns_ino)
        return not_there(execution, error);
    return check_guest(execution, error);
}

static int open_path(struct execution *execution, struct error *error)
{
    struct stat status;

    execution->netns = open(execution->guest.netns, O_RDONLY | O_CLOEXEC);
    if (execution->netns < 0)
        return error_set(error, errno, "can't open the namespace %s", execution->guest.netns);
    if (fstat(execution->netns, &status) < 0 || status.st_ino != execution->guest.netns_ino)
        return not_there(execution, error);
    return 0;
}

static int find_guest(struct execution *execution, struct error *error)
{
    const struct guest *guest = &execution->guest;
    int r = get_guest(execution, &execution->guest, error);

    if (r < 0)
        return r;
    if (guest->kind == KIND_TAP)
        return error_set(error, 0,
                         "the guest %s is a VM: there is no namespace to run a command in",
                         guest->name);
    if (guest->pid > 0)
        return open_pid(execution, error);
    if (guest->netns)
        return open_path(execution, error);
    return error_set(
        error, 0,
        "no process and no path leads to the namespace of the guest %s (it was attached "
        "by a descriptor, or its process ended): attach it again by one that does",
        guest->name);
}

/* --- where is it? --- */

/* Does the guest's process have another namespace of this kind than we? */
static bool differs(const struct execution *execution, const char *kind)
{
    char path[64];
    struct stat mine;
    struct stat its;

    snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
    if (stat(path, &mine) < 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", execution->guest.pid, kind);
    return stat(path, &its) == 0 && (mine.st_ino != its.st_ino || mine.st_dev != its.st_dev);
}

static void find_namespaces(struct execution *execution)
{
    static const struct {
        const char *name;
        int flag;
    } kinds[] = {{"user", CLONE_NEWUSER},
                 {"mnt", CLONE_NEWNS},
                 {"pid", CLONE_NEWPID},
                 {"uts", CLONE_NEWUTS}};
    char path[64];

    execution->namespaces = CLONE_NEWNET;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (differs(execution, kinds[i].name))
            execution->namespaces |= kinds[i].flag;
    execution->own_files = (execution->namespaces & CLONE_NEWNS) != 0;
    execution->user_namespace = (execution->namespaces & CLONE_NEWUSER) != 0;
    if (!execution->own_files)
        return;
    snprintf(path, sizeof(path), "/proc/%d/cwd", execution->guest.pid);
    execution->directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int query_files(struct execution *execution, struct error *error)
{
    static const struct resolver_wish nothing = {0};
    const struct guest *guest = &execution->guest;
    _cleanup_free_ const char **networks = calloc(guest->n_endpoints + 1, sizeof(*networks));
    struct resolver_facts facts = {0};
    int r;

    if (execution->own_files)
        return 0;
    if (!networks)
        return error_set(error, ENOMEM, "networks");
    for (size_t i = 0; i < guest->n_endpoints; i++)
        networks[i] = guest->endpoints[i].network;
    r = resolver_facts_query(execution->remote, networks, guest->n_endpoints, &facts, error);
    if (r == 0)
        r = resolver_write(&facts, guest, &nothing, &execution->conf, &execution->hosts, error);
    resolver_facts_deinit(&facts);
    return r;
}

/* The group that stands for the owner: the first line of gid_map(5) says "inside outside count". */
static gid_t map_group(pid_t pid)
{
    char path[64];
    unsigned inside;
    unsigned outside;
    _cleanup_fclose_ FILE *file = NULL;

    snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
    file = fopen(path, "re");
    return file && fscanf(file, "%u %u", &inside, &outside) == 2 ? outside : (gid_t)-1;
}

/* Root enters a user namespace as the user whom it belongs to, with none of his own rights and
 * groups. */
static int find_owner(struct execution *execution, struct error *error)
{
    char path[64];
    _cleanup_close_ int fd = -1;

    if (!execution->user_namespace || geteuid() != 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/ns/user", execution->guest.pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, NS_GET_OWNER_UID, &execution->owner) < 0)
        return error_set(error, errno, "can't look at the guest's user namespace");
    execution->owner_group = map_group(execution->guest.pid);
    execution->has_owner = execution->owner != 0;
    return 0;
}

static int find_user(struct execution *execution, struct error *error)
{
    const char *text = execution->invocation->process.user;
    int r;

    if (!text || execution->own_files)
        return find_owner(execution, error);
    r = user_parse(text, USER_HOST, &execution->user, error);
    execution->has_user = r == 0;
    return r;
}

/* --- the child --- */

/* In a mount namespace for COMMAND alone. */
static int install_files(const struct execution *execution, struct error *error)
{
    int r;

    if (unshare(CLONE_NEWNS) < 0)
        return error_set(error, errno, "can't make a mount namespace");
    r = mounts_separate(error);
    if (r == 0)
        r = mounts_sys(error);
    return r < 0 ? r : etc_files_install(execution->conf.data, execution->hosts.data, false, error);
}

static int become_owner(const struct execution *execution, struct error *error)
{
    uid_t uid = execution->owner;
    gid_t gid = execution->owner_group;

    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return error_set(error, errno, "can't become user %u, whom the guest belongs to", uid);
    return 0;
}

static int enter(const struct execution *execution, struct error *error)
{
    int fd = execution->pidfd >= 0 ? execution->pidfd : execution->netns;
    int kinds = execution->pidfd >= 0 ? execution->namespaces : CLONE_NEWNET;

    if (execution->has_owner && become_owner(execution, error) < 0)
        return -EPERM;
    if (setns(fd, kinds) < 0)
        return error_set(error, errno, "can't enter the guest %s%s", execution->guest.name,
                         errno == EPERM ? " (only root and who started it can)" : "");
    if (execution->directory >= 0 && fchdir(execution->directory) < 0)
        return error_set(error, errno, "can't go to the guest's directory");
    return execution->own_files ? 0 : install_files(execution, error);
}

static int go_to_directory(const struct execution *execution, struct error *error)
{
    const char *directory = execution->invocation->process.workdir;

    if (!directory || chdir(directory) == 0)
        return 0;
    return error_set(error, errno, "can't go to the directory %s", directory);
}

static _Noreturn void execute(const struct execution *execution)
{
    const struct process process = {
        .argv = execution->invocation->command_line,
        .env = &execution->invocation->process.env,
        .user_text = execution->has_user ? NULL : execution->invocation->process.user,
        .user = execution->has_user ? &execution->user : NULL,
        .mask = &execution->mask,
        .user_namespace = execution->user_namespace,
        .ignore_children = execution->ignore_children,
        .own_group = execution->own_group,
        .tied = true,
        .channel = execution->channel,
    };

    process_execute(&process);
}

/* The process that enters, and has COMMAND as its child: a pid namespace is entered by children
 * only. */
static _Noreturn void enter_and_execute(const struct execution *execution)
{
    struct error error = ERROR_INIT;
    pid_t command;

    if (enter(execution, &error) < 0 || go_to_directory(execution, &error) < 0)
        process_fail(execution->channel, EXIT_MOAT_FAILED, &error);
    process_tie_to_parent(execution->channel);
    command = fork();
    if (command == 0)
        execute(execution);
    if (command < 0) {
        error_set(&error, errno, "can't start COMMAND's process");
        process_fail(execution->channel, EXIT_MOAT_FAILED, &error);
    }
    process_reap(execution->channel, command);
    _exit(0);
}

static int start(struct execution *execution, struct supervise *supervise, struct error *error)
{
    int fds[2];
    int r = channel_open(fds);

    if (r < 0)
        return error_set(error, r, "can't make a socket");
    execution->channel = fds[1];
    execution->ignore_children = process_claim_children();
    execution->own_group = terminal_wants_own_group();
    supervise->own_group = execution->own_group;
    supervise_block_signals(&execution->mask);
    supervise->child = fork();
    if (supervise->child == 0) {
        close(fds[0]);
        enter_and_execute(execution);
    }
    r = errno;
    close(fds[1]);
    supervise->channel = fds[0];
    return supervise->child < 0 ? error_set(error, r, "can't start a process") : 0;
}

/* --- the whole --- */

static int prepare(struct execution *execution, struct error *error)
{
    int r = remote_connect(execution->invocation->socket, &execution->remote, error);

    if (r == 0)
        r = find_guest(execution, error);
    if (r < 0)
        return r;
    if (execution->pidfd >= 0)
        find_namespaces(execution);
    r = query_files(execution, error);
    return r < 0 ? r : find_user(execution, error);
}

static void execution_deinit(struct execution *execution)
{
    const int fds[] = {execution->pidfd, execution->netns, execution->directory};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    remote_free(execution->remote);
    guest_deinit(&execution->guest);
    text_deinit(&execution->conf);
    text_deinit(&execution->hosts);
    user_deinit(&execution->user);
}

static int guest_exec(struct invocation *invocation)
{
    struct execution execution = {
        .invocation = invocation, .pidfd = -1, .netns = -1, .directory = -1};
    struct supervise supervise = {.report = -1};
    struct error error = ERROR_INIT;
    int code;

    if (close_range(STDERR_FILENO + 1, UINT_MAX, 0) < 0)
        error_set(&error, errno, "can't close inherited descriptors");
    else if (prepare(&execution, &error) == 0)
        start(&execution, &supervise, &error);
    if (error.kind != ERROR_NONE)
        code = invocation_fail(EXIT_MOAT_FAILED, &error);
    else
        code = supervise_run(&supervise);
    execution_deinit(&execution);
    supervise_pass_interrupt(&supervise);
    return code;
}

static const struct option exec_options[] = {
    ARGUMENTS_USER,
    ARGUMENTS_WORKDIR("start in this directory (default: the guest's)"),
    ARGUMENTS_ENV,
    {0},
};

static const struct positional exec_positionals[] = {ARGUMENTS_GUEST("name"), {0}};

const struct command exec_commands[] = {
    {.name = "exec",
     .summary = "run a command in the network and files of a guest",
     .options = exec_options,
     .positionals = exec_positionals,
     .takes_command = true,
     .method = METHOD_GUEST_GET,
     .run = guest_exec,
     .text = "COMMAND starts in the guest's directory, with the caller's environment and terminal. "
             "Options of moat\n"
             "stand before COMMAND. Exit status: as with \"moat run\"."},
    {0},
};
