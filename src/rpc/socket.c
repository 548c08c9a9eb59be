/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The socket that moatd makes for itself. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/client.h"

int rpc_check(const struct config *config, struct error *error)
{
    size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/worker-relay.sock");

    if (strlen(config->run_dir) <= most)
        return 0;
    return error_set(
        error, ENAMETOOLONG,
        "the run directory %.40s… is longer than %zu characters, so no socket fits in it",
        config->run_dir, most);
}

void socket_path(const struct config *config, char *path, size_t size)
{
    snprintf(path, size, "%s/moat.sock", config->run_dir); /* fits: rpc_check */
}

static int set_access(const struct config *config, const char *path, struct error *error)
{
    const struct group *group = config->socket_group[0] ? getgrnam(config->socket_group) : NULL;

    if (group && chown(path, (uid_t)-1, group->gr_gid) < 0)
        return error_set(error, errno, "cannot give %s to the group %s", path,
                         config->socket_group);
    if (chmod(path, (mode_t)config->socket_mode) < 0)
        return error_set(error, errno, "cannot set the mode of %s", path);
    return 0;
}

/* The lock on the directory says that nobody else serves there: a socket file that exists is a
 * leftover. It appears under its name only when it listens. */
int socket_make(const struct config *config, int *ret_fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char temporary[sizeof(address.sun_path)];
    char path[sizeof(address.sun_path)];
    int r;

    socket_path(config, path, sizeof(path));
    snprintf(temporary, sizeof(temporary), "%s/.moat.%u", config->run_dir,
             (unsigned)getpid() % 1000000u);
    memcpy(address.sun_path, temporary, sizeof(temporary));
    *ret_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*ret_fd < 0)
        return error_set(error, errno, "socket");
    if (unlink(temporary) < 0 && errno != ENOENT)
        return error_set(error, errno, "cannot remove %s", temporary);
    if (bind(*ret_fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(error, errno, "cannot bind %s", temporary);
    r = set_access(config, temporary, error);
    if (r >= 0 && listen(*ret_fd, 1024) < 0)
        r = error_set(error, errno, "cannot listen on %s", temporary);
    if (r >= 0 && rename(temporary, path) < 0)
        r = error_set(error, errno, "cannot rename %s", temporary);
    if (r < 0)
        unlink(temporary);
    return r;
}
