/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The order matters. The nodes of /dev are taken as detached mounts before the root changes, since
 * mknod(2) is forbidden in a user namespace. After pivot_root(2) the old root lies on top of the
 * new one until the end: a user namespace may mount /proc and /sys only as long as it sees such
 * mounts, and every path is already resolved below the new root, so that no symbolic link in DIR
 * leads anywhere else. */
#include "rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "mounts.h"

static const char *const nodes[] = {
    "/dev/null",    "/dev/zero", "/dev/full",    "/dev/random",
    "/dev/urandom", "/dev/tty",  "/dev/console",
};

#define NODE_CONSOLE 6 /* the caller's terminal, if there is one */

static const char *const links[][2] = {
    {"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
    {"pts/ptmx", "/dev/ptmx"},
};

struct entry {
    bool user_namespace;
    int nodes[ARRAY_SIZE(nodes)]; /* detached mounts; -1: there is none */
};

static void take_nodes(struct entry *entry)
{
    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
        const char *source = i == NODE_CONSOLE ? ttyname(STDIN_FILENO) : nodes[i];

        entry->nodes[i] =
            source ? open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) : -1;
    }
}

static void close_nodes(struct entry *entry)
{
    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
        if (entry->nodes[i] >= 0)
            close(entry->nodes[i]);
}

/* --- the root --- */

static int layer_root(const char *directory, bool user_namespace, struct error *error)
{
    static const char root[] = MOUNTS_STAGE "/root";
    int r = mounts_stage("mode=0755", error);

    if (r < 0)
        return r;
    if (mkdir(root, 0755) < 0)
        return error_set(error, errno, "can't make the new root");
    r = mounts_overlay(directory, "root", root, user_namespace, error);
    if (r < 0) {
        error_add_context(error, "--rootfs");
        return r;
    }
    if (chdir(root) < 0)
        return error_set(error, errno, "can't enter the new root");
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return error_set(error, errno, "can't change the root");
    return 0;
}

static int leave_old_root(int old_root, struct error *error)
{
    if (fchdir(old_root) < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_set(error, errno, "can't leave the old root");
    return 0;
}

/* --- /proc, /sys, /dev --- */

static int make_folder(const char *path, struct error *error)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_set(error, errno, "can't make %s in the root file system", path);
    return 0;
}

static int put_node(const char *path, int tree, struct error *error)
{
    _cleanup_close_ int fd = -1;

    if (tree < 0)
        return 0;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 || move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_set(error, errno, "can't make %s", path);
    return 0;
}

static int mount_pts(bool user_namespace, struct error *error)
{
    /* The group tty (5) has no number in a user namespace with one group. */
    const char *options = user_namespace ? "newinstance,ptmxmode=0666,mode=0620"
                                         : "newinstance,ptmxmode=0666,mode=0620,gid=5";

    if (mkdir("/dev/pts", 0755) < 0 ||
        mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options) < 0)
        return error_set(error, errno, "can't mount /dev/pts");
    return 0;
}

static int mount_shm(struct error *error)
{
    if (mkdir("/dev/shm", 0755) < 0 ||
        mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") < 0)
        return error_set(error, errno, "can't mount /dev/shm");
    return 0;
}

/* Only with the right over the IPC namespace, which is the caller's: without it there is no
 * /dev/mqueue. */
static void mount_mqueue(void)
{
    if (mkdir("/dev/mqueue", 0755) == 0 &&
        mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        (void)rmdir("/dev/mqueue");
}

static int fill_dev(struct entry *entry, struct error *error)
{
    mode_t mask = umask(0);
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(nodes); i++)
        r = put_node(nodes[i], entry->nodes[i], error);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(links); i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            r = error_set(error, errno, "can't make %s", links[i][1]);
    umask(mask);
    return r;
}

static int mount_dev(struct entry *entry, struct error *error)
{
    int r = make_folder("/dev", error);

    if (r < 0)
        return r;
    if (mount("dev", "/dev", "tmpfs", MS_NOSUID, "mode=0755") < 0)
        return error_set(error, errno, "can't mount /dev");
    r = fill_dev(entry, error);
    if (r == 0)
        r = mount_pts(entry->user_namespace, error);
    if (r == 0)
        r = mount_shm(error);
    mount_mqueue();
    return r;
}

static int mount_all(struct entry *entry, struct error *error)
{
    int r = make_folder("/etc", error);

    if (r == 0)
        r = make_folder("/proc", error);
    if (r == 0)
        r = mounts_proc(error);
    if (r == 0)
        r = make_folder("/sys", error);
    if (r == 0)
        r = mounts_sys(error);
    if (r == 0)
        r = mount_dev(entry, error);
    return r;
}

int rootfs_enter(const char *directory, bool user_namespace, struct error *error)
{
    _cleanup_close_ int old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct entry entry = {.user_namespace = user_namespace};
    int r;

    if (old_root < 0)
        return error_set(error, errno, "can't open the root");
    take_nodes(&entry);
    r = layer_root(directory, user_namespace, error);
    if (r == 0)
        r = mount_all(&entry, error);
    if (r == 0)
        r = leave_old_root(old_root, error);
    close_nodes(&entry);
    return r;
}
