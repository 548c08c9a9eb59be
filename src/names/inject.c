/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file is whatever the container's root has put there: a link, a device, a FIFO, a mount of a
 * file system that never answers, or of a file that is not his. So it is written by a process of
 * its own, which becomes the user that root is inside, drops every capability, opens the file below
 * the container's root only (openat2(2), RESOLVE_IN_ROOT) and takes regular files only. After fork
 * that process calls nothing but the kernel: other threads may have held locks. */
#include "names/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define FILE_NAME "/etc/resolv.conf"
#define BLOCK_BEGIN "# moat: begin\n"
#define BLOCK_END "# moat: end\n"
#define BLOCK_MAX 512

/* --- the place --- */

/* The host's number of the id 0 of a map (user_namespaces(7)); without one, the first there is. */
static int map_root(int32_t pid, const char *map, uint32_t *ret_id)
{
    _cleanup_fclose_ FILE *file = NULL;
    unsigned inside;
    unsigned outside;
    bool found = false;
    char path[48];

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, map);
    file = fopen(path, "re");
    while (file && fscanf(file, "%u %u %*u", &inside, &outside) == 2) {
        if (!found || inside == 0)
            *ret_id = outside;
        found = true;
        if (inside == 0)
            break;
    }
    return found ? 0 : -ESRCH;
}

static int find_owner(int32_t pid, uint32_t *ret_owner)
{
    _cleanup_close_ int fd = -1;
    char path[48];
    uid_t owner;

    snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, NS_GET_OWNER_UID, &owner) < 0)
        return -errno;
    *ret_owner = owner;
    return 0;
}

static int place_refused(int32_t pid, int errnum, struct error *error)
{
    if (errnum == EACCES || errnum == EPERM)
        return error_set_reason(error, REASON_PERMISSION_DENIED,
                                "the files of process %d may not be looked at", pid);
    return error_set_reason(error, REASON_NOT_FOUND, "there is no process %d", pid);
}

int inject_place_open(int32_t pid, struct inject_place *ret_place, struct error *error)
{
    struct inject_place place = {.root_fd = -1, .file_fd = -1};
    char path[48];
    int r = find_owner(pid, &place.owner);

    if (r == 0)
        r = map_root(pid, "uid_map", &place.uid);
    if (r == 0)
        r = map_root(pid, "gid_map", &place.gid);
    if (r < 0)
        return place_refused(pid, -r, error);
    snprintf(path, sizeof(path), "/proc/%d/root", pid);
    place.root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place.root_fd < 0)
        return place_refused(pid, errno, error);
    *ret_place = place;
    return 0;
}

void inject_place_deinit(struct inject_place *place)
{
    cleanup_close(&place->root_fd);
    cleanup_close(&place->file_fd);
    place->root_fd = place->file_fd = -1;
}

/* --- the text --- */

static bool starts_with(const char *text, size_t length, const char *word)
{
    return length >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
}

static size_t line_length(const char *text, size_t length)
{
    const char *end = memchr(text, '\n', length);

    return end ? (size_t)(end - text) + 1 : length;
}

/* The length of a block of ours that begins here. One whose end somebody has taken away ends with
 * its last server. */
static size_t block_length(const char *text, size_t length)
{
    size_t used = strlen(BLOCK_BEGIN);

    while (used < length && starts_with(text + used, length - used, "nameserver "))
        used += line_length(text + used, length - used);
    if (starts_with(text + used, length - used, BLOCK_END))
        used += strlen(BLOCK_END);
    return used;
}

long inject_edit(const char *old, size_t length, const char *block, char *result)
{
    size_t used = 0;

    for (; block[used]; used++) {
        if (used == INJECT_FILE_MAX)
            return -EFBIG;
        result[used] = block[used];
    }
    for (size_t i = 0; i < length;) {
        size_t line = line_length(old + i, length - i);

        if (starts_with(old + i, length - i, BLOCK_BEGIN)) {
            i += block_length(old + i, length - i);
            continue;
        }
        if (used + line > INJECT_FILE_MAX)
            return -EFBIG;
        memcpy(result + used, old + i, line);
        used += line;
        i += line;
    }
    return (long)used;
}

static void write_block(const struct ips *servers, char block[BLOCK_MAX])
{
    size_t used = 0;

    block[0] = '\0';
    for (size_t i = 0; i < servers->count && i < INJECT_SERVERS_MAX; i++) {
        char text[IP_TEXT_MAX];

        used += (size_t)snprintf(block + used, BLOCK_MAX - used, "%snameserver %s\n",
                                 i == 0 ? BLOCK_BEGIN : "", ip_format(&servers->items[i], text));
    }
    if (used > 0)
        snprintf(block + used, BLOCK_MAX - used, "%s", BLOCK_END);
}

/* --- the process --- */

/* What it says at its end; 0: done. */
enum stage { STAGE_IDENTITY, STAGE_OPEN, STAGE_KIND, STAGE_HOST, STAGE_SIZE, STAGE_WRITE };

struct outcome {
    int errnum;
    enum stage stage;
};

struct file_id {
    dev_t dev;
    ino_t ino;
};

struct task {
    const struct inject_place *place;
    const char *block;
    struct file_id
        hosts[2]; /* files that are the host's own: as we see it, and as process 1 does */
};

/* setres*id of the C library would stop the other threads, which a forked process has not got. */
static int become(const struct inject_place *place)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

    if (syscall(SYS_setgroups, 0, NULL) < 0 ||
        syscall(SYS_setresgid, place->gid, place->gid, place->gid) < 0 ||
        syscall(SYS_setresuid, place->uid, place->uid, place->uid) < 0)
        return -errno;
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

/* O_PATH: nothing is done to what is there, whatever it is. */
static int find_file(int root_fd)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, root_fd, FILE_NAME, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

static int open_file(int file_fd)
{
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", file_fd);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

static bool is_hosts(const struct task *task, const struct stat *status)
{
    for (size_t i = 0; i < ARRAY_SIZE(task->hosts); i++)
        if (task->hosts[i].ino == status->st_ino && task->hosts[i].dev == status->st_dev)
            return true;
    return false;
}

static ssize_t read_all(int fd, char *data, size_t size)
{
    size_t length = 0;

    while (length < size) {
        ssize_t n = read(fd, data + length, size - length);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            break;
        length += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)length;
}

static int write_all(int fd, const char *data, size_t length)
{
    size_t done = 0;

    while (done < length) {
        ssize_t n = pwrite(fd, data + done, length - done, (off_t)done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
}

static struct outcome edit_file(int fd, const struct task *task)
{
    static char old[INJECT_FILE_MAX + 1];
    static char new[INJECT_FILE_MAX];
    ssize_t length = read_all(fd, old, sizeof(old));
    long result;

    if (length < 0)
        return (struct outcome){(int)-length, STAGE_OPEN};
    if ((size_t)length > INJECT_FILE_MAX)
        return (struct outcome){EFBIG, STAGE_SIZE};
    result = inject_edit(old, (size_t)length, task->block, new);
    if (result < 0)
        return (struct outcome){EFBIG, STAGE_SIZE};
    if (result == length && memcmp(old, new, (size_t)length) == 0)
        return (struct outcome){0, STAGE_WRITE};
    result = write_all(fd, new, (size_t)result);
    if (result < 0) /* the disk is full, or worse: as it was */
        (void)write_all(fd, old, (size_t)length);
    return (struct outcome){(int)-result, STAGE_WRITE};
}

static struct outcome work(const struct task *task, int *ret_file_fd)
{
    struct stat status;
    int r = become(task->place);
    int file_fd;
    int fd;

    if (r < 0)
        return (struct outcome){-r, STAGE_IDENTITY};
    file_fd = task->place->root_fd >= 0 ? find_file(task->place->root_fd) : task->place->file_fd;
    if (file_fd < 0)
        return (struct outcome){-file_fd, STAGE_OPEN};
    if (fstat(file_fd, &status) < 0)
        return (struct outcome){errno, STAGE_OPEN};
    if (is_hosts(task, &status))
        return (struct outcome){EINVAL, STAGE_HOST};
    if (!S_ISREG(status.st_mode))
        return (struct outcome){EINVAL, STAGE_KIND};
    fd = open_file(file_fd);
    if (fd < 0)
        return (struct outcome){-fd, STAGE_OPEN};
    *ret_file_fd = file_fd;
    return edit_file(fd, task);
}

union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

/* The file goes along with the outcome. */
static void send_outcome(int channel, struct outcome *outcome, int file_fd)
{
    union control control = {0};
    struct iovec part = {.iov_base = outcome, .iov_len = sizeof(*outcome)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (file_fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &file_fd, sizeof(file_fd));
    }
    (void)sendmsg(channel, &message, MSG_NOSIGNAL);
}

static _Noreturn void work_and_exit(const struct task *task, int channel)
{
    int file_fd = -1;
    struct outcome outcome = work(task, &file_fd);

    send_outcome(channel, &outcome, file_fd);
    _exit(0);
}

/* --- from outside --- */

static int outcome_tell(const struct outcome *outcome, struct error *error)
{
    if (outcome->errnum == 0)
        return 0;
    switch (outcome->stage) {
    case STAGE_OPEN:
        if (outcome->errnum == ENOENT || outcome->errnum == ENOTDIR || outcome->errnum == ELOOP)
            return error_set_reason(error, REASON_NOT_FOUND,
                                    "the container has no " FILE_NAME " to put the name server in");
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "the container's " FILE_NAME " can't be written: %s",
                                strerror(outcome->errnum));
    case STAGE_KIND:
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "the container's " FILE_NAME " is no regular file");
    case STAGE_HOST:
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "the process has the host's own " FILE_NAME
                                ": that is never changed; give it one of its own");
    case STAGE_SIZE:
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "the container's " FILE_NAME " has more than %zu bytes",
                                INJECT_FILE_MAX);
    case STAGE_WRITE:
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "the container's " FILE_NAME " can't be written: %s",
                                strerror(outcome->errnum));
    case STAGE_IDENTITY:
        break;
    }
    return error_set(error, outcome->errnum, "can't become the container's root");
}

/* A process that hangs in the kernel may outlive its SIGKILL: then it stays behind, and ends when
 * what it waits for answers. */
static void end_process(int pidfd, pid_t pid)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    siginfo_t info;

    kill(pid, SIGKILL);
    if (pidfd < 0 || poll(&end, 1, 100) > 0)
        (void)waitid(P_PID, (id_t)pid, &info, WEXITED);
}

static bool receive_outcome(int channel, struct outcome *ret_outcome, int *ret_file_fd)
{
    union control control;
    struct iovec part = {.iov_base = ret_outcome, .iov_len = sizeof(*ret_outcome)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(ret_file_fd, CMSG_DATA(header), sizeof(*ret_file_fd));
    return n == sizeof(*ret_outcome);
}

/* *ret_file_fd stays unless the file was found. */
static int wait_for(int channel, pid_t pid, int *ret_file_fd, struct error *error)
{
    struct pollfd answer = {.fd = channel, .events = POLLIN};
    struct outcome outcome;
    _cleanup_close_ int pidfd = pidfd_open(pid, 0);
    bool told;
    int n;

    do
        n = poll(&answer, 1, INJECT_TIMEOUT_MS);
    while (n < 0 && errno == EINTR);
    told = n > 0 && receive_outcome(channel, &outcome, ret_file_fd);
    end_process(pidfd, pid);
    if (told)
        return outcome_tell(&outcome, error);
    if (n > 0)
        return error_set(error, 0, "the process that writes " FILE_NAME " ended without a word");
    return error_set_reason(error, REASON_BUSY,
                            "the container's " FILE_NAME " did not answer within %d ms",
                            INJECT_TIMEOUT_MS);
}

/* The host's own file, as a process with that root sees it. */
static struct file_id hosts_file(const char *root)
{
    _cleanup_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = root_fd < 0 ? -1 : find_file(root_fd);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        return (struct file_id){0};
    return (struct file_id){status.st_dev, status.st_ino};
}

int inject_servers(struct inject_place *place, const struct ips *servers, struct error *error)
{
    char block[BLOCK_MAX];
    struct task task = {
        .place = place, .block = block, .hosts = {hosts_file("/"), hosts_file("/proc/1/root")}};
    int file_fd = -1;
    int fds[2];
    pid_t pid;
    int r;

    write_block(servers, block);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return error_set(error, errno, "socket pair");
    pid = fork();
    if (pid == 0)
        work_and_exit(&task, fds[1]);
    r = errno;
    close(fds[1]);
    r = pid < 0 ? error_set(error, r, "can't start a process")
                : wait_for(fds[0], pid, &file_fd, error);
    close(fds[0]);
    if (file_fd >= 0) {
        cleanup_close(&place->file_fd);
        place->file_fd = file_fd;
    }
    return r;
}
