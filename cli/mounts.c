/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SYS_MOUNTS_MAX 64 /* below /sys */

/* --- separation --- */

/* In a plain chroot "/" is no mount, so its propagation can't be set. A copy of the tree becomes
 * one: it is put on top of /proc, which is a mount, and the root moves there. */
static int separate_chroot(struct error *error)
{
    struct mount_attr attr = {.propagation = MS_SLAVE};
    _cleanup_free_ char *directory = getcwd(NULL, 0);
    _cleanup_close_ int tree = -1;

    if (mount(NULL, "/proc", NULL, MS_PRIVATE, NULL) < 0)
        return error_set(error, errno,
                         "\"/\" is not a mount, and neither is /proc; make one of them a mount");
    tree = open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0)
        return error_set(error, errno, "can't copy the tree of mounts");
    if (mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
        return error_set(error, errno, "can't separate the tree of mounts");
    if (move_mount(tree, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_set(error, errno, "can't attach the tree of mounts");
    if (fchdir(tree) < 0 || chroot(".") < 0)
        return error_set(error, errno, "can't enter the tree of mounts");
    if (chdir(directory ? directory : "/") < 0)
        return error_set(error, errno, "can't go back to %s", directory ? directory : "/");
    return 0;
}

int mounts_separate(struct error *error)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0)
        return 0;
    if (errno == EINVAL)
        return separate_chroot(error);
    return error_set(error, errno, "can't separate the mounts");
}

/* --- /proc and /sys --- */

/* Not a failure: what is there already shows too much, or nothing, but it is what this place can
 * have. */
static bool is_forbidden(int errnum)
{
    return errnum == EPERM || errnum == EACCES || errnum == EBUSY || errnum == ENOENT ||
           errnum == ENODEV;
}

int mounts_proc(struct error *error)
{
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0 ||
        is_forbidden(errno))
        return 0;
    return error_set(error, errno, "can't mount /proc");
}

struct saved_mounts {
    size_t count;
    struct {
        char *path;
        int tree;
    } items[SYS_MOUNTS_MAX];
};

/* Decodes \040 and the like of mountinfo in place. */
static void unescape(char *text)
{
    char *out = text;

    while (*text) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' &&
            text[2] <= '7' && text[3] >= '0' && text[3] <= '7') {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 4;
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

static void save_mount(struct saved_mounts *saved, const char *path)
{
    int tree;

    if (saved->count == SYS_MOUNTS_MAX)
        return;
    tree = open_tree(AT_FDCWD, path,
                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
    if (tree < 0)
        return;
    saved->items[saved->count].path = strdup(path);
    saved->items[saved->count].tree = tree;
    saved->count++;
}

/* Copies of the mounts that are right below the mount /sys (proc(5), mountinfo: id, parent id,
 * device, root, mount point, …). The file lists parents before children; of several at /sys the
 * last is on top. */
static void save_sys_mounts(struct saved_mounts *saved)
{
    _cleanup_fclose_ FILE *file = fopen("/proc/self/mountinfo", "re");
    _cleanup_free_ char *line = NULL;
    size_t size = 0;
    int sys = -1;

    while (file && getline(&line, &size, file) > 0) {
        char path[PATH_MAX];
        int id;
        int parent;

        if (sscanf(line, "%d %d %*s %*s %4095s", &id, &parent, path) != 3)
            continue;
        unescape(path);
        if (strcmp(path, "/sys") == 0)
            sys = id;
        else if (parent == sys && strncmp(path, "/sys/", 5) == 0)
            save_mount(saved, path);
    }
}

/* A folder that the new /sys hasn't got is passed over. */
static void restore_mounts(struct saved_mounts *saved, bool attach)
{
    for (size_t i = 0; i < saved->count; i++) {
        if (attach && saved->items[i].path)
            (void)move_mount(saved->items[i].tree, "", AT_FDCWD, saved->items[i].path,
                             MOVE_MOUNT_F_EMPTY_PATH);
        close(saved->items[i].tree);
        free(saved->items[i].path);
    }
}

int mounts_sys(struct error *error)
{
    struct saved_mounts saved = {0};
    struct statvfs old;
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    bool mounted;
    int errnum;

    if (statvfs("/sys", &old) == 0 && (old.f_flag & ST_RDONLY))
        flags |= MS_RDONLY;
    save_sys_mounts(&saved);
    mounted = mount("sysfs", "/sys", "sysfs", flags, NULL) == 0;
    errnum = errno;
    restore_mounts(&saved, mounted);
    if (mounted || is_forbidden(errnum))
        return 0;
    return error_set(error, errnum, "can't mount /sys");
}

/* --- the stage --- */

int mounts_stage(const char *options, struct error *error)
{
    if (mount("moat", MOUNTS_STAGE, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
        return error_set(error, errno, "can't mount a tmpfs on " MOUNTS_STAGE);
    return 0;
}

int mounts_unstage(struct error *error)
{
    if (umount2(MOUNTS_STAGE, MNT_DETACH) < 0)
        return error_set(error, errno, "can't unmount the tmpfs from " MOUNTS_STAGE);
    return 0;
}

int mounts_write_file(const char *path, const char *text, struct error *error)
{
    _cleanup_close_ int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    size_t left = strlen(text);

    if (fd < 0 || fchmod(fd, 0644) < 0)
        return error_set(error, errno, "can't make %s", path);
    while (left > 0) {
        ssize_t n = write(fd, text, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(error, errno, "can't write %s", path);
        text += n;
        left -= (size_t)n;
    }
    return 0;
}

/* --- overlays --- */

static int make_layers(const char *lower, const char *upper, const char *work, struct error *error)
{
    struct stat st;

    if (stat(lower, &st) < 0)
        return error_set(error, errno, "can't look at %s", lower);
    if (!S_ISDIR(st.st_mode))
        return error_set(error, ENOTDIR, "%s", lower);
    if ((mkdir(upper, 0755) < 0 && errno != EEXIST) || (mkdir(work, 0755) < 0 && errno != EEXIST))
        return error_set(error, errno, "can't make the layers over %s", lower);
    /* In a user namespace the owner may have no number there: the layer is then the caller's. */
    (void)!chown(upper, st.st_uid, st.st_gid);
    if (chmod(upper, st.st_mode & 07777) < 0)
        return error_set(error, errno, "can't make the layers over %s", lower);
    return 0;
}

/* The lower folder is given as "." so that no character of its path can be mistaken for an option's
 * end. */
static int mount_overlay(const char *lower, const char *options, const char *target,
                         bool user_namespace, struct error *error)
{
    _cleanup_close_ int directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = 0;

    if (chdir(lower) < 0)
        return error_set(error, errno, "can't enter %s", lower);
    if (mount("overlay", target, "overlay", 0, options) < 0)
        r = error_set(error, errno, "can't mount an overlay over %s%s", lower,
                      errno == EINVAL && user_namespace
                          ? " (without root there must be no mount below it)"
                          : "");
    if (directory >= 0 && fchdir(directory) < 0 && r == 0)
        r = error_set(error, errno, "can't go back to the working directory");
    return r;
}

int mounts_overlay(const char *lower, const char *name, const char *target, bool user_namespace,
                   struct error *error)
{
    char upper[64];
    char work[64];
    char options[256];
    int r;

    snprintf(upper, sizeof(upper), MOUNTS_STAGE "/%s.upper", name);
    snprintf(work, sizeof(work), MOUNTS_STAGE "/%s.work", name);
    /* In a user namespace only "user." attributes can be written (kernel documentation,
     * overlayfs.rst). */
    snprintf(options, sizeof(options), "lowerdir=.,upperdir=%s,workdir=%s%s", upper, work,
             user_namespace ? ",userxattr" : "");
    r = make_layers(lower, upper, work, error);
    return r < 0 ? r : mount_overlay(lower, options, target, user_namespace, error);
}
