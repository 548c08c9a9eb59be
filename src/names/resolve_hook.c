/* SPDX-License-Identifier: GPL-2.0-or-later */
/* absent: the directory is not there (an older systemd-resolved, or none), or somebody else's
 * socket has our name in it.
 *
 * listening: the socket is ours. It is recognised by its inode: systemd removes what is in /run at
 * will, and then it is made again.
 *
 * foreign: a systemd-resolved of another network namespace came; the socket is removed, for good.
 */
#include "names/resolve_hook.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "names/same_host.h"

#define DIRECTORY "/run/systemd/resolve.hook"
#define SOCKET DIRECTORY "/io.moat"
#define USER "systemd-resolve"
#define CHECK_INTERVAL_MS 3000
#define BACKLOG 64
#define ACCEPTS_MAX 16 /* in one turn */

struct resolve_hook {
    struct loop *loop;
    resolve_hook_fn connected;
    void *userdata;
    struct loop_timer *timer;
    struct loop_io *io; /* NULL: not listening */
    int fd;
    dev_t device; /* of the socket in the file system */
    ino_t inode;
    bool used; /* somebody has connected */
    bool foreign;
    bool failed; /* said already that it can't be made */
};

/* --- the socket --- */

static bool socket_is_there(const struct resolve_hook *hook)
{
    struct stat status;

    return lstat(SOCKET, &status) == 0 && status.st_dev == hook->device &&
           status.st_ino == hook->inode;
}

static void socket_close(struct resolve_hook *hook)
{
    if (!hook->io)
        return;
    if (socket_is_there(hook))
        unlink(SOCKET);
    loop_io_free(hook->io);
    hook->io = NULL;
    hook->used = false;
    close(hook->fd);
    hook->fd = -1;
}

static struct sockaddr_un socket_address(void)
{
    return (struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = SOCKET};
}

/* Does a live program listen there? What is left of a moatd that was killed does not. */
static bool somebody_listens(void)
{
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const struct sockaddr_un address = socket_address();

    return fd >= 0 && (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ||
                       errno == EAGAIN);
}

/* Bound with no rights for anybody; then its owner has them. 0 or a negative errno. */
static int socket_bind(int fd)
{
    const struct sockaddr_un address = socket_address();
    const struct passwd *user = getpwnam(USER);
    mode_t former = umask(0777);
    int r = bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;

    umask(former);
    if (r < 0)
        return r;
    if ((user && chown(SOCKET, user->pw_uid, user->pw_gid) < 0) || chmod(SOCKET, 0600) < 0 ||
        listen(fd, BACKLOG) < 0) {
        r = -errno;
        unlink(SOCKET);
    }
    return r;
}

static int socket_make(struct resolve_hook *hook, int *ret_fd)
{
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat status;
    int r;

    if (fd < 0)
        return -errno;
    if (lstat(SOCKET, &status) == 0) {
        if (!S_ISSOCK(status.st_mode) || somebody_listens())
            return -EADDRINUSE;
        unlink(SOCKET);
    }
    r = socket_bind(fd);
    if (r < 0)
        return r;
    if (lstat(SOCKET, &status) < 0)
        return -errno;
    hook->device = status.st_dev;
    hook->inode = status.st_ino;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* --- connections --- */

static bool peer_is_of_our_host(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid > 0 &&
           process_is_of_our_host((uint32_t)peer.pid);
}

static void socket_ready(void *userdata, unsigned events)
{
    struct resolve_hook *hook = userdata;

    (void)events;
    for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(hook->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
            return; /* a connection that ended before, or no descriptors: they come again */
        if (!peer_is_of_our_host(fd)) {
            close(fd);
            log_info("the systemd-resolved of %s is of another network namespace", DIRECTORY);
            hook->foreign = true;
            socket_close(hook);
            return;
        }
        hook->used = true;
        hook->connected(hook->userdata, fd);
    }
}

/* --- the directory --- */

static void socket_open(struct resolve_hook *hook)
{
    int r = socket_make(hook, &hook->fd);

    if (r == 0) {
        hook->io = loop_io_new(hook->loop, hook->fd, LOOP_READ, socket_ready, hook);
        if (!hook->io) {
            unlink(SOCKET);
            close(hook->fd);
            r = -ENOMEM;
        }
    }
    if (r == 0)
        log_info("systemd-resolved may ask us by %s", SOCKET);
    else if (!hook->failed)
        log_warning("systemd-resolved can't ask us by %s: %s", SOCKET, strerror(-r));
    hook->failed = r < 0;
}

static void check_due(void *userdata)
{
    struct resolve_hook *hook = userdata;
    struct stat status;

    if (hook->foreign)
        return;
    if (hook->io && !socket_is_there(hook))
        socket_close(hook);
    if (!hook->io && stat(DIRECTORY, &status) == 0 && S_ISDIR(status.st_mode))
        socket_open(hook);
    loop_timer_start(hook->timer, CHECK_INTERVAL_MS);
}

/* --- interface --- */

struct resolve_hook *resolve_hook_new(struct loop *loop, resolve_hook_fn connected, void *userdata)
{
    struct resolve_hook *hook = calloc(1, sizeof(*hook));

    if (!hook)
        return NULL;
    hook->loop = loop;
    hook->connected = connected;
    hook->userdata = userdata;
    hook->fd = -1;
    hook->timer = loop_timer_new(loop, check_due, hook);
    if (!hook->timer) {
        free(hook);
        return NULL;
    }
    loop_timer_start(hook->timer, 0);
    return hook;
}

void resolve_hook_free(struct resolve_hook *hook)
{
    if (!hook)
        return;
    socket_close(hook);
    loop_timer_free(hook->timer);
    free(hook);
}

bool resolve_hook_is_used(const struct resolve_hook *hook)
{
    return hook && hook->used;
}
