/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls over moatd's socket, one at a time, and how long they take. A request that is refused ends
 * the program. */
#pragma once

#include <sys/un.h>

#include "bench.h"

#define REPLY_MAX 65536

static inline int connection_open(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die("%s", path);
    return fd;
}

static inline void request_send(int fd, const char *text, size_t length, int passed_fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr alignment;
    } control = {0};
    struct iovec part = {.iov_base = (char *)(uintptr_t)text, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (passed_fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &passed_fd, sizeof(passed_fd));
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)length)
        die("send");
}

/* One line; it must not be an error. Only one request is under way, so nothing follows it. */
static inline void reply_take(int fd, const char *request)
{
    char reply[REPLY_MAX];
    size_t length = 0;

    do {
        ssize_t received = recv(fd, reply + length, sizeof(reply) - 1 - length, 0);

        if (received <= 0)
            die("receive");
        length += (size_t)received;
    } while (reply[length - 1] != '\n' && length < sizeof(reply) - 1);
    reply[length] = '\0';
    if (strstr(reply, "\"error\":")) {
        errno = 0;
        die("%s -> %s", request, reply);
    }
}

static inline uint64_t call(int fd, const char *text, size_t length, int passed_fd)
{
    uint64_t start = now_ns();

    request_send(fd, text, length, passed_fd);
    reply_take(fd, text);
    return now_ns() - start;
}
