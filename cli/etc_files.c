/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "etc_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "mounts.h"

struct etc_file {
    const char *staged;
    const char *upper; /* the same in a layer over /etc */
    const char *target;
    const char *text;
};

/* nss-resolve and nscd answer for the host: connecting to an empty file is refused, and the C
 * library goes on to resolv.conf. */
static const char *const host_sockets[] = {
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/var/run/nscd/socket",
};

static int hide_host_sockets(struct error *error)
{
    static const char empty[] = MOUNTS_STAGE "/empty";
    int r = mounts_write_file(empty, "", error);

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(host_sockets); i++) {
        struct stat st;

        if (stat(host_sockets[i], &st) == 0 && S_ISSOCK(st.st_mode) &&
            mount(empty, host_sockets[i], NULL, MS_BIND, NULL) < 0)
            r = error_set(error, errno, "can't hide %s", host_sockets[i]);
    }
    return r;
}

/* 1: bound, 0: there is nothing to bind over. */
static int bind_file(const struct etc_file *file, struct error *error)
{
    int r = mounts_write_file(file->staged, file->text, error);

    if (r < 0)
        return r;
    if (mount(file->staged, file->target, NULL, MS_BIND, NULL) == 0)
        return 1;
    if (errno == ENOENT || errno == ELOOP || errno == ENOTDIR)
        return 0;
    return error_set(error, errno, "can't show moat's %s", file->target);
}

/* A working directory in /etc becomes that of the layered one. */
static int enter_again(struct error *error)
{
    _cleanup_free_ char *directory = getcwd(NULL, 0);

    if (!directory || strncmp(directory, "/etc", 4) != 0 ||
        (directory[4] != '/' && directory[4] != '\0'))
        return 0;
    return chdir(directory) < 0 ? error_set(error, errno, "can't go back to %s", directory) : 0;
}

/* A file of the upper layer hides the link, or nothing, that is below. */
static int layer_etc(const struct etc_file *files, size_t count, bool user_namespace,
                     struct error *error)
{
    int r = 0;

    if (mkdir(MOUNTS_STAGE "/etc.upper", 0755) < 0)
        return error_set(error, errno, "can't make a layer over /etc");
    for (size_t i = 0; r == 0 && i < count; i++)
        r = mounts_write_file(files[i].upper, files[i].text, error);
    if (r == 0)
        r = mounts_overlay("/etc", "etc", "/etc", user_namespace, error);
    return r < 0 ? r : enter_again(error);
}

static int install(const struct etc_file *files, size_t count, bool user_namespace,
                   struct error *error)
{
    bool missing = false;
    int r = hide_host_sockets(error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        r = bind_file(&files[i], error);
        missing |= r == 0;
    }
    if (r >= 0 && missing)
        r = layer_etc(files, count, user_namespace, error);
    return r < 0 ? r : 0;
}

int etc_files_install(const char *resolv_conf, const char *hosts, bool user_namespace,
                      struct error *error)
{
    const struct etc_file files[] = {
        {MOUNTS_STAGE "/resolv.conf", MOUNTS_STAGE "/etc.upper/resolv.conf", "/etc/resolv.conf",
         resolv_conf},
        {MOUNTS_STAGE "/hosts", MOUNTS_STAGE "/etc.upper/hosts", "/etc/hosts", hosts},
    };
    int r = mounts_stage("mode=0755", error);
    int unstaged;

    if (r < 0)
        return r;
    r = install(files, ARRAY_SIZE(files), user_namespace, error);
    unstaged = mounts_unstage(r < 0 ? &(struct error){0} : error);
    return r < 0 ? r : unstaged;
}
