/* SPDX-License-Identifier: GPL-2.0-or-later */
/* inotify watches the directory of the path and, where the path is a symbolic link, that of the
 * file that it leads to: a file that is renamed over would take a watch of its own with it. What
 * inotify can't see (a link in the middle of a chain, a directory that does not exist yet, a mount)
 * is found by comparing what stat(2) says once a second. */
#include "names/resolv.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define CHECK_INTERVAL_MS 1000
#define FILE_MAX_SIZE 65536
#define SERVERS_MAX 64
#define WATCHED                                                                              \
    (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF | \
     IN_MOVE_SELF | IN_ATTRIB)

struct resolv {
    struct loop *loop;
    char *path;
    resolv_changed_fn changed;
    void *userdata;
    struct ips servers;
    struct stat status; /* of the file that was read; all zero: there is none */
    struct loop_io *io;
    struct loop_timer *timer;
    int inotify;
};

/* --- the file --- */

int resolv_parse(const char *text, struct ips *ret_servers)
{
    static const char keyword[] = "nameserver";
    struct ips servers = {0};

    for (const char *line = text; *line && servers.count < SERVERS_MAX;
         line += strcspn(line, "\n"), line += *line == '\n') {
        char address[IP_TEXT_MAX];
        struct ip ip;
        size_t length;
        const char *at = line + strspn(line, " \t");

        if (strncmp(at, keyword, sizeof(keyword) - 1) != 0)
            continue;
        at += sizeof(keyword) - 1;
        if (*at != ' ' && *at != '\t')
            continue;
        at += strspn(at, " \t");
        length = strcspn(at, " \t\r\n#;");
        if (length == 0 || length >= sizeof(address))
            continue;
        memcpy(address, at, length);
        address[length] = '\0';
        if (ip_parse(address, &ip) < 0 || ip_is_unspecified(&ip))
            continue;
        if (!ips_contains(&servers, &ip) && ips_add(&servers, &ip) < 0) {
            ips_deinit(&servers);
            return -ENOMEM;
        }
    }
    *ret_servers = servers;
    return 0;
}

/* Never waits, whatever the path leads to (a FIFO, say). An absent file is an empty one. */
static void file_read(const char *path, char text[FILE_MAX_SIZE + 1], struct stat *ret_status)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t length = 0;

    *ret_status = (struct stat){0};
    text[0] = '\0';
    if (fd < 0 || fstat(fd, ret_status) < 0 || !S_ISREG(ret_status->st_mode))
        return;
    while (length < FILE_MAX_SIZE) {
        ssize_t got = read(fd, text + length, FILE_MAX_SIZE - length);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    text[length] = '\0';
}

/* Returns whether the servers are others now. */
static bool resolv_read(struct resolv *resolv)
{
    _cleanup_free_ char *text = malloc(FILE_MAX_SIZE + 1);
    struct ips servers;

    if (!text)
        return false;
    file_read(resolv->path, text, &resolv->status);
    if (resolv_parse(text, &servers) < 0)
        return false;
    if (ips_equal(&servers, &resolv->servers)) {
        ips_deinit(&servers);
        return false;
    }
    ips_deinit(&resolv->servers);
    resolv->servers = servers;
    return true;
}

/* --- watching --- */

static void directory_watch(struct resolv *resolv, const char *path)
{
    _cleanup_free_ char *copy = strdup(path);

    if (copy) /* the same directory again is the same watch */
        inotify_add_watch(resolv->inotify, dirname(copy), WATCHED);
}

static void watches_add(struct resolv *resolv)
{
    _cleanup_free_ char *target = realpath(resolv->path, NULL);

    if (resolv->inotify < 0)
        return;
    directory_watch(resolv, resolv->path);
    if (target)
        directory_watch(resolv, target);
}

static void resolv_update(struct resolv *resolv)
{
    watches_add(resolv);
    if (resolv_read(resolv))
        resolv->changed(resolv->userdata);
}

static bool status_equal(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void check_due(void *userdata)
{
    struct resolv *resolv = userdata;
    struct stat status;

    if (stat(resolv->path, &status) < 0)
        status = (struct stat){0};
    if (!status_equal(&status, &resolv->status))
        resolv_update(resolv);
    loop_timer_start(resolv->timer, CHECK_INTERVAL_MS);
}

static void inotify_readable(void *userdata, unsigned events)
{
    struct resolv *resolv = userdata;
    char buffer[4096] __attribute__((aligned(8)));

    (void)events;
    while (read(resolv->inotify, buffer, sizeof(buffer)) > 0)
        continue;
    resolv_update(resolv);
}

/* Without inotify (its instances may be used up) the timer alone does it. */
static void inotify_start(struct resolv *resolv)
{
    resolv->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (resolv->inotify < 0) {
        log_warning("cannot watch %s: %s; looking at it once a second", resolv->path,
                    strerror(errno));
        return;
    }
    resolv->io = loop_io_new(resolv->loop, resolv->inotify, LOOP_READ, inotify_readable, resolv);
    watches_add(resolv);
}

int resolv_new(struct loop *loop, const char *path, resolv_changed_fn changed, void *userdata,
               struct resolv **ret_resolv, struct error *error)
{
    struct resolv *resolv = calloc(1, sizeof(*resolv));

    if (!resolv)
        return error_set(error, ENOMEM, "cannot watch %s", path);
    resolv->loop = loop;
    resolv->changed = changed;
    resolv->userdata = userdata;
    resolv->inotify = -1;
    resolv->path = strdup(path);
    resolv->timer = loop_timer_new(loop, check_due, resolv);
    if (!resolv->path || !resolv->timer) {
        resolv_free(resolv);
        return error_set(error, ENOMEM, "cannot watch %s", path);
    }
    inotify_start(resolv);
    resolv_read(resolv);
    loop_timer_start(resolv->timer, CHECK_INTERVAL_MS);
    *ret_resolv = resolv;
    return 0;
}

void resolv_free(struct resolv *resolv)
{
    if (!resolv)
        return;
    loop_io_free(resolv->io);
    loop_timer_free(resolv->timer);
    if (resolv->inotify >= 0)
        close(resolv->inotify);
    ips_deinit(&resolv->servers);
    free(resolv->path);
    free(resolv);
}

const struct ips *resolv_servers(const struct resolv *resolv)
{
    return &resolv->servers;
}
