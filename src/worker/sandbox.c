/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The order matters: each step needs a right that a later one gives up. The root directory goes
 * first (CAP_SYS_CHROOT), then the ids and capabilities in one step (CAP_SETPCAP for the bounding
 * set), at last the seccomp filter, which forbids all of these calls. */
#include "worker/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || \
    __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Enough for tens of thousands of sockets; the kernel's default for fs.nr_open. */
#define DESCRIPTORS_MAX 1048576

static int limits_set(struct error *error)
{
    struct rlimit descriptors = {.rlim_cur = DESCRIPTORS_MAX, .rlim_max = DESCRIPTORS_MAX};
    struct rlimit core = {.rlim_cur = 0, .rlim_max = 0};

    if (setrlimit(RLIMIT_CORE, &core) < 0)
        return error_set(error, errno, "cannot switch core files off");
    /* More than the limit that moatd has needs CAP_SYS_RESOURCE; without it that one must do. */
    if (setrlimit(RLIMIT_NOFILE, &descriptors) == 0)
        return 0;
    if (getrlimit(RLIMIT_NOFILE, &descriptors) < 0)
        return error_set(error, errno, "cannot read the limit of descriptors");
    descriptors.rlim_cur = descriptors.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &descriptors) < 0)
        return error_set(error, errno, "cannot raise the limit of descriptors");
    return 0;
}

/* A helper that shares our root directory (CLONE_FS) makes its own /proc/self/fdinfo the root for
 * both, and ends: the directory of a process that is gone has no entry, and never gets one
 * (proc(5)). Nothing has to be made in the file system for it, or removed. */
static int root_empty(struct error *error)
{
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, NULL);
    int status;

    if (pid < 0)
        return error_set(error, errno, "cannot start the helper for an empty root directory");
    if (pid == 0) {
        int code = chroot("/proc/self/fdinfo") < 0 || chdir("/") < 0 ? errno : 0;

        syscall(SYS_exit_group, code);
        __builtin_unreachable();
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return error_set(error, errno,
                             "cannot wait for the helper for an empty root directory");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(error, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                         "cannot change to an empty root directory");
    return 0;
}

static int identity_drop(const struct sandbox_config *config, struct error *error)
{
    int code;

    capng_clear(CAPNG_SELECT_ALL);
    code = capng_change_id((int)config->uid, (int)config->gid,
                           CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING | CAPNG_CLEAR_AMBIENT);
    if (code < 0)
        return error_set(error, errno,
                         "cannot become uid %u, gid %u without capabilities (step %d)", config->uid,
                         config->gid, -code);
    return 0;
}

static int identity_check(const struct sandbox_config *config, struct error *error)
{
    uid_t uids[3];
    gid_t gids[3];

    if (getresuid(&uids[0], &uids[1], &uids[2]) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
        return error_set(error, errno, "cannot read the ids");
    for (int i = 0; i < 3; i++) {
        if (uids[i] != config->uid || gids[i] != config->gid)
            return error_set(error, EPERM, "still uid %u, gid %u after giving them up", uids[i],
                             gids[i]);
    }
    if (getgroups(0, NULL) != 0)
        return error_set(error, EPERM, "still in supplementary groups after giving them up");
    if (prctl(PR_CAPBSET_READ, 0, 0, 0, 0) != 0 || setuid(0) == 0)
        return error_set(error, EPERM, "still privileged after giving it up");
    return 0;
}

int sandbox_drop(const struct sandbox_config *config, struct error *error)
{
    int code = limits_set(error);

    if (code == 0 && !config->without_root)
        code = root_empty(error);
    if (code == 0 && !config->without_root)
        code = identity_drop(config, error);
    if (code == 0 && !config->without_root)
        code = identity_check(config, error);
    if (code < 0)
        return code;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(error, errno, "cannot give up new privileges");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return error_set(error, errno, "cannot forbid looking into the process");
    return 0;
}

/* ---------------------------------------------------------------- calls */

/* Allowed with any arguments: they work on descriptors that the process has, on its own memory and
 * time. */
static const int calls_plain[] = {
    /* sockets */
    SCMP_SYS(accept4), SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(getpeername),
    SCMP_SYS(getsockname), SCMP_SYS(getsockopt), SCMP_SYS(recvfrom), SCMP_SYS(recvmmsg),
    SCMP_SYS(recvmsg), SCMP_SYS(sendmmsg), SCMP_SYS(sendmsg), SCMP_SYS(sendto),
    SCMP_SYS(setsockopt), SCMP_SYS(shutdown),
    /* descriptors */
    SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(fcntl), SCMP_SYS(fstat), SCMP_SYS(lseek),
    SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev),
    /* waiting (libev's needs included) */
    SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
    SCMP_SYS(epoll_wait), SCMP_SYS(eventfd2), SCMP_SYS(pipe2), SCMP_SYS(poll), SCMP_SYS(ppoll),
    SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_gettime), SCMP_SYS(timerfd_settime),
    /* time, chance */
    SCMP_SYS(clock_getres), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(getrandom),
    SCMP_SYS(gettimeofday), SCMP_SYS(nanosleep), SCMP_SYS(time),
    /* the process itself */
    SCMP_SYS(brk), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(futex), SCMP_SYS(getegid),
    SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(getrusage),
    SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(madvise), SCMP_SYS(mremap), SCMP_SYS(munmap),
    SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(sched_yield), SCMP_SYS(sigaltstack), SCMP_SYS(sysinfo),
    SCMP_SYS(uname)};

/* Sanitizers map memory without regard to us and look at /proc when they report: that must fail
 * instead of ending the process before the report is written. */
static const int calls_sanitizer[] = {SCMP_SYS(getrlimit), SCMP_SYS(prctl), SCMP_SYS(prlimit64),
                                      SCMP_SYS(sched_getaffinity)};
static const int calls_sanitizer_fail[] = {
    SCMP_SYS(access),   SCMP_SYS(newfstatat), SCMP_SYS(open),   SCMP_SYS(openat),
    SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(stat),   SCMP_SYS(clone),
    SCMP_SYS(fork),     SCMP_SYS(vfork),      SCMP_SYS(clone3), SCMP_SYS(statx)};

static int rules_add_list(scmp_filter_ctx filter, uint32_t action, const int *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int code = seccomp_rule_add(filter, action, calls[i], 0);

        if (code < 0)
            return code;
    }
    return 0;
}

/* socket(2): IPv4 and IPv6, TCP and UDP, and nothing else: no netlink, no raw sockets, no Unix
 * ones. */
static int rules_add_socket(scmp_filter_ctx filter)
{
    static const int families[] = {AF_INET, AF_INET6};
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(types); j++) {
            int code = seccomp_rule_add(
                filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
                SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0),
                SCMP_A1(SCMP_CMP_MASKED_EQ,
                        (scmp_datum_t) ~(SOCK_NONBLOCK | SOCK_CLOEXEC) & 0xffffffff,
                        (scmp_datum_t)types[j]));

            if (code < 0)
                return code;
        }
    }
    return 0;
}

/* Memory that can be executed is never made; signals go to nobody else. fstat is newfstatat with an
 * empty path in newer C libraries; the file system is empty anyhow. */
static int rules_add_restricted(scmp_filter_ctx filter)
{
    pid_t self = getpid();
    int code = 0;

    if (SANITIZED)
        code = rules_add_list(filter, SCMP_ACT_ALLOW,
                              (const int[]){SCMP_SYS(mmap), SCMP_SYS(mprotect)}, 2);
    else
        code = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (code == 0 && !SANITIZED)
        code = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                                SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (code == 0 && !SANITIZED)
        code = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
                                SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));
    if (code == 0)
        code = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                                SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)self, 0));
    if (code == 0)
        code = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1,
                                SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)self, 0));
    return code;
}

static int filter_fill(scmp_filter_ctx filter)
{
    int code = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

    if (code == 0)
        code = rules_add_list(filter, SCMP_ACT_ALLOW, calls_plain, ARRAY_SIZE(calls_plain));
    if (code == 0)
        code = rules_add_socket(filter);
    if (code == 0)
        code = rules_add_restricted(filter);
    if (code == 0 && SANITIZED)
        code = rules_add_list(filter, SCMP_ACT_ALLOW, calls_sanitizer, ARRAY_SIZE(calls_sanitizer));
    if (code == 0 && SANITIZED)
        code = rules_add_list(filter, SCMP_ACT_ERRNO(EACCES), calls_sanitizer_fail,
                              ARRAY_SIZE(calls_sanitizer_fail));
    /* A tree of comparisons instead of a chain: a call costs the same wherever it stands. */
    if (code == 0)
        code = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    return code;
}

int sandbox_restrict(struct error *error)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int code;

    if (!filter)
        return error_set(error, ENOMEM, "cannot make the seccomp filter");
    code = filter_fill(filter);
    if (code == 0)
        code = seccomp_load(filter);
    seccomp_release(filter);
    if (code < 0)
        return error_set(error, -code, "cannot load the seccomp filter");
    return 0;
}
