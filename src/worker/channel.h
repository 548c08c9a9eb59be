/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One end of the channel between moatd and a worker: a non-blocking SOCK_SEQPACKET socket, and a
 * queue, in order, of what it did not take at once. Used on both sides. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/message.h"

struct channel_item;

struct channel {
    int fd; /* owned; -1: closed */
    struct channel_item *first;
    struct channel_item **last;
    size_t n_queued;
    size_t queued_bytes;
};

/* A received message. fds are owned by it until taken (TAKE_FD on the array's element). */
struct channel_message {
    struct worker_header header;
    int fds[WORKER_FDS_MAX];
    size_t n_fds;
    bool fds_lost; /* the descriptor table was full: there are fewer than were sent */
    _Alignas(16) unsigned char payload[WORKER_MESSAGE_MAX];
};

void channel_init(struct channel *channel, int fd);
/* Closes the descriptor and drops what is queued; may be called twice. */
void channel_deinit(struct channel *channel);
bool channel_is_open(const struct channel *channel);

/* Sends at once or queues a copy (descriptors duplicated). Never blocks. 0; -EPIPE when the other
 * end is gone (and other errors of sendmsg(2)); -EMFILE, -ENOMEM when it can't be queued;
 * -EMSGSIZE. */
int channel_send(struct channel *channel, uint16_t type, const void *payload, size_t length,
                 const int *fds, size_t n_fds);
/* Sends what is queued. 0 when all is gone, -EAGAIN when some is left, else the error of
 * sendmsg(2). */
int channel_flush(struct channel *channel);

/* Receives one message into ret_message. 1; 0 at the end; -EAGAIN when there is none; -EPROTO when
 * it is none of ours (it is consumed); other errors of recvmsg(2). */
int channel_receive(struct channel *channel, struct channel_message *ret_message);
/* Closes the descriptors that nobody took. */
void channel_message_close_fds(struct channel_message *message);
