/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Network namespaces by path, process or descriptor. A path comes from a caller and may name
 * anything: it is opened with O_PATH first, which has no side effects, and for real only once the
 * file is known to be on nsfs. */
#include "netns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "link.h"

/* ------------------------------------------------------------------------------- by descriptor */
static bool fd_is_netns(int fd)
{
    struct statfs status;

    return fstatfs(fd, &status) == 0 && status.f_type == NSFS_MAGIC &&
           ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
}

int netns_check(int fd, struct error *error)
{
    if (!fd_is_netns(fd))
        return error_set_field(error, "netns_fd", "the descriptor is not a network namespace");
    return 0;
}

int netns_identify(int fd, uint64_t *ret_dev, uint64_t *ret_ino, struct error *error)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_set(error, errno, "cannot identify the network namespace");
    *ret_dev = status.st_dev;
    *ret_ino = status.st_ino;
    return 0;
}

int netns_owner(int fd, uint32_t *ret_uid, struct error *error)
{
    _cleanup_close_ int user_fd = ioctl(fd, NS_GET_USERNS);
    uid_t uid;

    if (user_fd < 0 || ioctl(user_fd, NS_GET_OWNER_UID, &uid) < 0)
        return error_set(error, errno, "cannot find the owner of the network namespace");
    *ret_uid = uid;
    return 0;
}

/* ------------------------------------------------------------------------------- inside */
int netns_enter(int netns_fd, struct error *error)
{
    if (setns(netns_fd, CLONE_NEWNET) < 0)
        return error_set(error, errno, "cannot enter the guest's network namespace");
    return 0;
}

void netns_return(int home_fd)
{
    if (setns(home_fd, CLONE_NEWNET) == 0)
        return;
    log_error("cannot return to the host's network namespace: %s", strerrordesc_np(errno));
    abort();
}

int netns_sysctl_set(int netns_fd, int home_fd, const char *key, const char *value,
                     struct error *error)
{
    int r = netns_enter(netns_fd, error);

    if (r < 0)
        return r;
    r = sysctl_set(key, value, error);
    netns_return(home_fd);
    return r;
}

/* ------------------------------------------------------------------------------- by path */
static int path_refused(const char *path, int errnum, struct error *error)
{
    if (errnum == ENOENT || errnum == ENOTDIR)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no %s", path);
    if (errnum == EACCES || errnum == EPERM)
        return error_set_reason(error, REASON_PERMISSION_DENIED, "%s may not be opened", path);
    return error_set(error, errnum, "cannot open %s", path);
}

int netns_open_path(const char *path, int *ret_fd, struct error *error)
{
    _cleanup_close_ int found = open(path, O_PATH | O_CLOEXEC);
    _cleanup_close_ int fd = -1;
    struct statfs status;
    char again[32];

    if (found < 0)
        return path_refused(path, errno, error);
    if (fstatfs(found, &status) == 0 && status.f_type == NSFS_MAGIC) {
        snprintf(again, sizeof(again), "/proc/self/fd/%d", found);
        fd = open(again, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return path_refused(path, errno, error);
    }
    if (fd < 0 || !fd_is_netns(fd))
        return error_set_field(error, "netns", "%s is not a network namespace", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* ------------------------------------------------------------------------------- by process */
int process_parse_start_time(const char *text, uint64_t *ret_start)
{
    const char *rest = strrchr(text, ')'); /* the command may hold anything, ')' too */
    char *end;

    /* What follows it is field 3; field 22 stands behind 20 spaces. */
    for (unsigned i = 0; rest && i < 20; i++)
        rest = strchr(rest + 1, ' ');
    if (!rest || rest[1] < '0' || rest[1] > '9')
        return -EINVAL;
    errno = 0;
    unsigned long long start = strtoull(rest + 1, &end, 10);
    if (errno != 0 || *end != ' ')
        return -EINVAL;
    *ret_start = start;
    return 0;
}

int process_start_time(int32_t pid, uint64_t *ret_start)
{
    char path[32], text[2048];

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -ESRCH;
    ssize_t length = read(fd, text, sizeof(text) - 1);
    if (length <= 0)
        return -ESRCH;
    text[length] = '\0';
    return process_parse_start_time(text, ret_start) < 0 ? -ESRCH : 0;
}

static bool process_ended(int pidfd)
{
    struct pollfd process = {.fd = pidfd, .events = POLLIN};

    return poll(&process, 1, 0) != 0;
}

static int process_refused(int32_t pid, int errnum, struct error *error)
{
    if (errnum == EACCES || errnum == EPERM)
        return error_set_reason(error, REASON_PERMISSION_DENIED,
                                "the network namespace of process %d may not be opened", pid);
    if (errnum == ESRCH || errnum == ENOENT || errnum == EINVAL)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no process %d", pid);
    return error_set(error, errnum, "cannot open the network namespace of process %d", pid);
}

/* The process is looked at again after everything was read through its number: if it still runs,
 * the number was its own all the time. */
int netns_open_pid(int32_t pid, int *ret_fd, uint64_t *ret_start, struct error *error)
{
    _cleanup_close_ int pidfd = pidfd_open(pid, 0);
    char path[40];
    uint64_t start;

    if (pidfd < 0)
        return process_refused(pid, errno, error);
    snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return process_refused(pid, errno, error);
    if (process_start_time(pid, &start) < 0 || process_ended(pidfd))
        return process_refused(pid, ESRCH, error);
    *ret_fd = TAKE_FD(fd);
    *ret_start = start;
    return 0;
}

/* ------------------------------------------------------------------------------- by handle
 * open_by_handle_at(2) on nsfs. The text is BOOT:TYPE:BYTES; what the bytes are is the kernel's
 * affair, and they are counted anew in each boot. */
#define HANDLE_BYTES 32
#define BOOT_LENGTH 36

struct handle {
    struct file_handle head;
    unsigned char bytes[HANDLE_BYTES]; /* head.f_handle, which has no length of its own */
};

static int boot_id_get(char ret_boot[BOOT_LENGTH + 1])
{
    _cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, ret_boot, BOOT_LENGTH) != BOOT_LENGTH)
        return -ENOENT;
    ret_boot[BOOT_LENGTH] = '\0';
    return 0;
}

void netns_handle_get(int fd, char ret_handle[NETNS_HANDLE_MAX])
{
    struct handle handle = {.head.handle_bytes = HANDLE_BYTES};
    struct error ignored = ERROR_INIT;
    char boot[BOOT_LENGTH + 1];
    size_t length;
    int mount;

    ret_handle[0] = '\0';
    if (fault_point("link.handle", &ignored) < 0)
        return;
    if (name_to_handle_at(fd, "", &handle.head, &mount, AT_EMPTY_PATH) < 0 || boot_id_get(boot) < 0)
        return;
    length =
        (size_t)snprintf(ret_handle, NETNS_HANDLE_MAX, "%s:%x:", boot, handle.head.handle_type);
    for (unsigned i = 0; i < handle.head.handle_bytes; i++)
        length += (size_t)snprintf(ret_handle + length, NETNS_HANDLE_MAX - length, "%02x",
                                   handle.bytes[i]);
}

/* -EINVAL: not one of ours. */
static int handle_parse(const char *text, struct handle *ret_handle)
{
    struct handle handle = {0};
    unsigned type;
    int start = 0;

    if (sscanf(text, "%x:%n", &type, &start) != 1 || start == 0)
        return -EINVAL;
    text += start;
    handle.head.handle_type = (int)type;
    for (; text[0]; text += 2) {
        unsigned byte;

        if (handle.head.handle_bytes == HANDLE_BYTES || !text[1] || sscanf(text, "%2x", &byte) != 1)
            return -EINVAL;
        handle.bytes[handle.head.handle_bytes++] = (unsigned char)byte;
    }
    *ret_handle = handle;
    return 0;
}

int netns_open_handle(const char *handle, int *ret_fd)
{
    _cleanup_close_ int place = -1; /* any file of nsfs */
    struct handle parsed;
    char boot[BOOT_LENGTH + 1];
    int fd;

    if (!handle[0])
        return -ENOENT;
    if (boot_id_get(boot) < 0 || strncmp(handle, boot, BOOT_LENGTH) != 0 ||
        handle[BOOT_LENGTH] != ':')
        return -ESTALE;
    if (handle_parse(handle + BOOT_LENGTH + 1, &parsed) < 0)
        return -ESTALE;
    place = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (place < 0)
        return -errno;
    fd = open_by_handle_at(place, &parsed.head, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

/* ------------------------------------------------------------------------------- by looking */
static bool is_netns(int fd, uint64_t dev, uint64_t ino)
{
    struct stat status;

    return fd_is_netns(fd) && fstat(fd, &status) == 0 && status.st_dev == dev &&
           status.st_ino == ino;
}

bool netns_is_at(const char *path, uint64_t dev, uint64_t ino)
{
    struct stat status;

    return stat(path, &status) == 0 && status.st_dev == dev && status.st_ino == ino;
}

bool netns_is_of_pid(int32_t pid, uint64_t dev, uint64_t ino)
{
    char path[40];

    snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
    return netns_is_at(path, dev, ino);
}

/* The descriptor when the path leads to it, else -1. */
static int open_if_it_is(const char *path, uint64_t dev, uint64_t ino)
{
    struct error ignored = ERROR_INIT;
    int fd = -1;

    if (netns_open_path(path, &fd, &ignored) < 0)
        return -1;
    if (is_netns(fd, dev, ino))
        return fd;
    close(fd);
    return -1;
}

static int find_by_process(uint64_t dev, uint64_t ino)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int fd = -1;

    while (fd < 0 && proc && (entry = readdir(proc))) {
        long pid = strtol(entry->d_name, NULL, 10);
        char path[40];

        if (pid <= 0 || !netns_is_of_pid((int32_t)pid, dev, ino))
            continue;
        snprintf(path, sizeof(path), "/proc/%ld/ns/net", pid);
        fd = open_if_it_is(path, dev, ino);
    }
    if (proc)
        closedir(proc);
    return fd;
}

/* proc(5), mountinfo: field 4 of a namespace's mount is "net:[INODE]", field 5 where it is. */
static int find_by_mount(uint64_t dev, uint64_t ino)
{
    _cleanup_fclose_ FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char line[4096];
    int fd = -1;

    while (fd < 0 && mounts && fgets(line, sizeof(line), mounts)) {
        unsigned long long inode;
        char place[3072];

        if (sscanf(line, "%*d %*d %*s net:[%llu] %3071s", &inode, place) == 2 && inode == ino)
            fd = open_if_it_is(place, dev, ino);
    }
    return fd;
}

int netns_find(uint64_t dev, uint64_t ino, int *ret_fd)
{
    int fd = find_by_process(dev, ino);

    if (fd < 0)
        fd = find_by_mount(dev, ino);
    if (fd < 0)
        return -ENOENT;
    *ret_fd = fd;
    return 0;
}
