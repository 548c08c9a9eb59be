/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/fdstore.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

#define PATIENCE_MS 100

struct kept {
    struct kept *next;
    int fd;
    char name[FDSTORE_NAME_MAX];
};

struct fdstore {
    int fd;            /* connected to the manager; -1 when it has not read */
    struct kept *came; /* at start-up, and was not taken */
};

/* --- the manager --- */

/* "@name" is an abstract socket. -1: it can't be reached. */
static int manager_connect(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    int fd;

    if (length == 0 || length >= sizeof(address.sun_path))
        return -1;
    memcpy(address.sun_path, name, length);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address,
                           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* fd -1: none. */
static ssize_t message_send(int manager, char *state, int fd)
{
    union {
        char data[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {.iov_base = state, .iov_len = strlen(state)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *header;

        message.msg_control = control.data;
        message.msg_controllen = sizeof(control.data);
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    return sendmsg(manager, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void manager_tell(struct fdstore *store, char *state, int fd)
{
    struct pollfd manager = {.fd = store->fd, .events = POLLOUT};

    if (store->fd < 0 || message_send(store->fd, state, fd) >= 0)
        return;
    if (errno == EAGAIN && poll(&manager, 1, PATIENCE_MS) == 1 &&
        message_send(store->fd, state, fd) >= 0)
        return;
    log_warning("the service manager does not keep our sockets: %s", strerror(errno));
    close(store->fd);
    store->fd = -1;
}

/* --- the store --- */

struct fdstore *fdstore_new(const char *socket)
{
    struct fdstore *store = calloc(1, sizeof(*store));

    if (!store)
        return NULL;
    store->fd = manager_connect(socket);
    if (store->fd < 0) {
        free(store);
        return NULL;
    }
    return store;
}

static void kept_unlink(struct kept **link)
{
    struct kept *kept = *link;

    *link = kept->next;
    free(kept);
}

void fdstore_free(struct fdstore *store)
{
    if (!store)
        return;
    while (store->came) {
        close(store->came->fd);
        kept_unlink(&store->came);
    }
    if (store->fd >= 0)
        close(store->fd);
    free(store);
}

void fdstore_add(struct fdstore *store, const char *name, int fd)
{
    struct kept *kept = NULL;

    if (store && strncmp(name, FDSTORE_PREFIX, strlen(FDSTORE_PREFIX)) == 0 &&
        strlen(name) < FDSTORE_NAME_MAX)
        kept = calloc(1, sizeof(*kept));
    if (!kept) {
        close(fd);
        return;
    }
    kept->fd = fd;
    memcpy(kept->name, name, strlen(name) + 1);
    kept->next = store->came;
    store->came = kept;
}

int fdstore_take(struct fdstore *store, const char *name)
{
    struct kept **link = store ? &store->came : NULL;

    while (link && *link) {
        if (strcmp((*link)->name, name) == 0) {
            int fd = (*link)->fd;

            kept_unlink(link);
            return fd;
        }
        link = &(*link)->next;
    }
    return -1;
}

/* FDPOLL=0: an ICMP error on a UDP socket is no reason to drop it. */
void fdstore_put(struct fdstore *store, const char *name, int fd)
{
    char state[FDSTORE_NAME_MAX + 64];

    if (!store)
        return;
    snprintf(state, sizeof(state), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    manager_tell(store, state, fd);
}

void fdstore_remove(struct fdstore *store, const char *name)
{
    char state[FDSTORE_NAME_MAX + 64];

    if (!store)
        return;
    snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
    manager_tell(store, state, -1);
}

void fdstore_settle(struct fdstore *store)
{
    while (store && store->came) {
        fdstore_remove(store, store->came->name);
        close(store->came->fd);
        kept_unlink(&store->came);
    }
}
