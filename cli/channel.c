/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

int channel_open(int ret_fds[2])
{
    int fds[2];
    int on = 1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    if (setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
        int r = -errno;

        close(fds[0]);
        close(fds[1]);
        return r;
    }
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}

static int send_packet(int fd, const void *data, size_t size)
{
    ssize_t n;

    do
        n = send(fd, data, size, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int channel_send(int fd, enum message_type type, int value, const char *text)
{
    struct message message = {.type = type, .value = value};

    snprintf(message.text, sizeof(message.text), "%s", text ? text : "");
    return send_packet(fd, &message, sizeof(message));
}

int channel_send_files(int fd, const int files[CHANNEL_FILES])
{
    union {
        char bytes[CMSG_SPACE(sizeof(int[CHANNEL_FILES]))];
        struct cmsghdr align;
    } control = {0};
    struct message message = {.type = MESSAGE_FILES};
    struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control)};
    struct cmsghdr *item = CMSG_FIRSTHDR(&header);
    ssize_t n;

    *item = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int[CHANNEL_FILES])),
                             .cmsg_level = SOL_SOCKET,
                             .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(item), files, sizeof(int[CHANNEL_FILES]));
    do
        n = sendmsg(fd, &header, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* What came beside the message. */
static void take_control(struct msghdr *header, struct message *message, pid_t *ret_sender)
{
    struct ucred credentials;

    *ret_sender = 0;
    for (size_t i = 0; i < CHANNEL_FILES; i++)
        message->files[i] = -1;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item; item = CMSG_NXTHDR(header, item)) {
        if (item->cmsg_level != SOL_SOCKET)
            continue;
        if (item->cmsg_type == SCM_CREDENTIALS) {
            memcpy(&credentials, CMSG_DATA(item), sizeof(credentials));
            *ret_sender = credentials.pid;
        } else if (item->cmsg_type == SCM_RIGHTS &&
                   item->cmsg_len == CMSG_LEN(sizeof(message->files))) {
            memcpy(message->files, CMSG_DATA(item), sizeof(message->files));
        }
    }
}

int channel_receive(int fd, struct message *ret_message, pid_t *ret_sender)
{
    union {
        char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int[CHANNEL_FILES]))];
        struct cmsghdr align;
    } control;
    struct message message;
    struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    ssize_t n;

    do
        n = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (n == 0)
        return -ECONNRESET;
    if ((size_t)n != sizeof(message))
        return -EPROTO;
    message.text[sizeof(message.text) - 1] = '\0';
    take_control(&header, &message, ret_sender);
    *ret_message = message;
    return 0;
}
