/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"

struct channel_item {
    struct channel_item *next;
    struct worker_header header;
    int fds[WORKER_FDS_MAX];
    size_t n_fds;
    unsigned char payload[];
};

union fds_control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * WORKER_FDS_MAX)];
};

void channel_init(struct channel *channel, int fd)
{
    *channel = (struct channel){.fd = fd};
    channel->last = &channel->first;
}

static void item_free(struct channel_item *item)
{
    for (size_t i = 0; i < item->n_fds; i++)
        close(item->fds[i]);
    free(item);
}

static void queue_drop_first(struct channel *channel)
{
    struct channel_item *item = channel->first;

    channel->first = item->next;
    if (!channel->first)
        channel->last = &channel->first;
    channel->n_queued--;
    channel->queued_bytes -= sizeof(*item) + item->header.length;
    item_free(item);
}

void channel_deinit(struct channel *channel)
{
    if (channel->fd >= 0)
        close(channel->fd);
    channel->fd = -1;
    while (channel->first)
        queue_drop_first(channel);
}

bool channel_is_open(const struct channel *channel)
{
    return channel->fd >= 0;
}

static void control_set_fds(struct msghdr *message, union fds_control *control, const int *fds,
                            size_t n_fds)
{
    struct cmsghdr *cmsg;

    message->msg_control = control->bytes;
    message->msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
    memset(control->bytes, 0, message->msg_controllen);
    cmsg = CMSG_FIRSTHDR(message);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
    memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
}

static int send_now(int fd, const struct worker_header *header, const void *payload, const int *fds,
                    size_t n_fds)
{
    struct worker_header copy = *header;
    struct iovec parts[2] = {{.iov_base = &copy, .iov_len = sizeof(copy)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 1};
    union fds_control control;
    ssize_t sent;

    if (header->length) {
        /* sendmsg(2) only reads; struct iovec has no const. */
        memcpy(&parts[1].iov_base, &payload, sizeof(payload));
        parts[1].iov_len = header->length;
        message.msg_iovlen = 2;
    }
    if (n_fds)
        control_set_fds(&message, &control, fds, n_fds);
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

static int queue_append(struct channel *channel, const struct worker_header *header,
                        const void *payload, const int *fds, size_t n_fds)
{
    struct channel_item *item = calloc(1, sizeof(*item) + header->length);

    if (!item)
        return -ENOMEM;
    item->header = *header;
    if (header->length)
        memcpy(item->payload, payload, header->length);
    for (; item->n_fds < n_fds; item->n_fds++) {
        int fd = fcntl(fds[item->n_fds], F_DUPFD_CLOEXEC, 3);

        if (fd < 0) {
            int code = -errno;

            item_free(item);
            return code;
        }
        item->fds[item->n_fds] = fd;
    }
    *channel->last = item;
    channel->last = &item->next;
    channel->n_queued++;
    channel->queued_bytes += sizeof(*item) + header->length;
    return 0;
}

/* The kernel refuses more descriptors in flight than the sender's limit with ETOOMANYREFS, until
 * the other end has received some (unix(7)). */
static bool is_try_later(int code)
{
    return code == -EAGAIN || code == -ENOBUFS || code == -ETOOMANYREFS;
}

int channel_send(struct channel *channel, uint16_t type, const void *payload, size_t length,
                 const int *fds, size_t n_fds)
{
    struct worker_header header = {.type = type, .length = (uint32_t)length};
    int code;

    if (channel->fd < 0)
        return -EPIPE;
    if (length > WORKER_MESSAGE_MAX || n_fds > WORKER_FDS_MAX)
        return -EMSGSIZE;
    if (!channel->first) {
        code = send_now(channel->fd, &header, payload, fds, n_fds);
        if (!is_try_later(code))
            return code;
    }
    return queue_append(channel, &header, payload, fds, n_fds);
}

int channel_flush(struct channel *channel)
{
    while (channel->first) {
        struct channel_item *item = channel->first;
        int code = channel->fd < 0 ? -EPIPE
                                   : send_now(channel->fd, &item->header, item->payload, item->fds,
                                              item->n_fds);

        if (is_try_later(code))
            return -EAGAIN;
        if (code < 0)
            return code;
        queue_drop_first(channel);
    }
    return 0;
}

static void message_take_fds(struct channel_message *message, struct msghdr *received)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(received); cmsg; cmsg = CMSG_NXTHDR(received, cmsg)) {
        size_t bytes;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        bytes = cmsg->cmsg_len - CMSG_LEN(0);
        memcpy(message->fds, CMSG_DATA(cmsg), bytes);
        message->n_fds = bytes / sizeof(int);
    }
    message->fds_lost = received->msg_flags & MSG_CTRUNC;
}

int channel_receive(struct channel *channel, struct channel_message *ret_message)
{
    struct iovec parts[2] = {
        {.iov_base = &ret_message->header, .iov_len = sizeof(ret_message->header)},
        {.iov_base = ret_message->payload, .iov_len = sizeof(ret_message->payload)}};
    union fds_control control;
    struct msghdr received = {.msg_iov = parts,
                              .msg_iovlen = 2,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof(control.bytes)};
    ssize_t length;

    ret_message->n_fds = 0;
    if (channel->fd < 0)
        return 0;
    do
        length = recvmsg(channel->fd, &received, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (length < 0 && errno == EINTR);
    if (length < 0)
        return errno == ECONNRESET ? 0 : -errno;
    if (length == 0)
        return 0;
    message_take_fds(ret_message, &received);
    if ((received.msg_flags & MSG_TRUNC) || (size_t)length < sizeof(struct worker_header) ||
        ret_message->header.length != (size_t)length - sizeof(struct worker_header)) {
        channel_message_close_fds(ret_message);
        return -EPROTO;
    }
    return 1;
}

void channel_message_close_fds(struct channel_message *message)
{
    for (size_t i = 0; i < message->n_fds; i++) {
        if (message->fds[i] >= 0)
            close(message->fds[i]);
    }
    message->n_fds = 0;
}
