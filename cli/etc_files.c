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
#include "proto/proto.h"

#define FILE_MAX ((size_t)1024 * 1024)

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

/* --- later --- */

int etc_files_open(int ret_fds[ETC_FILES], struct error *error)
{
    static const char *const paths[ETC_FILES] = {"/etc/resolv.conf", "/etc/hosts"};
    int fds[ETC_FILES] = {-1, -1};

    for (size_t i = 0; i < ETC_FILES; i++) {
        fds[i] = open(paths[i], O_RDWR | O_CLOEXEC | O_NOCTTY);
        if (fds[i] >= 0)
            continue;
        error_set(error, errno, "can't open %s", paths[i]);
        if (i > 0)
            close(fds[0]);
        return -EIO;
    }
    memcpy(ret_fds, fds, sizeof(fds));
    return 0;
}

int etc_file_write(int fd, const char *text, struct error *error)
{
    size_t length = strlen(text);

    if (pwrite(fd, text, length, 0) != (ssize_t)length)
        return error_set(error, errno, "can't write a file of the guest");
    return 0;
}

/* All that the file holds, but never more than it may. */
static int read_all(int fd, struct text *text, struct error *error)
{
    char buffer[4096];
    ssize_t n;

    while ((n = pread(fd, buffer, sizeof(buffer), (off_t)text->length)) > 0) {
        text_append_n(text, buffer, (size_t)n);
        if (text->failed || text->length > FILE_MAX)
            return error_set(error, EFBIG, "a file of the guest");
    }
    return n < 0 ? error_set(error, errno, "can't read a file of the guest") : 0;
}

/* Where the old text was longer, lines follow until it is cut: never half an old one. */
static int write_all(int fd, struct text *text, size_t length_before, struct error *error)
{
    size_t length = text->length;

    while (text->length < length_before && !text->failed)
        text_append_n(text, "\n", 1);
    if (text->failed)
        return error_set(error, ENOMEM, "a file of the guest");
    if (pwrite(fd, text->data, text->length, 0) != (ssize_t)text->length ||
        ftruncate(fd, (off_t)length) < 0)
        return error_set(error, errno, "can't write a file of the guest");
    return 0;
}

int etc_file_replace(int fd, const char *before, const char *after, struct error *error)
{
    struct text old = {0};
    struct text new = {0};
    const char *place = NULL;
    int r = strcmp(before, after) == 0 ? 0 : read_all(fd, &old, error);

    if (r == 0 && old.data)
        place = strstr(old.data, before);
    if (place) {
        text_append_n(&new, old.data, (size_t)(place - old.data));
        text_append(&new, "%s%s", after, place + strlen(before));
        r = write_all(fd, &new, old.length, error);
    }
    text_deinit(&old);
    text_deinit(&new);
    return r;
}

/* --- the whole --- */

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
