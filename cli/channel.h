/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between `moat` outside and what it starts inside: a pair of SOCK_SEQPACKET sockets, one message a
 * packet. */
#pragma once

#include <sys/types.h>

enum message_type {
    MESSAGE_FILES = 1, /* files holds the guest's resolv.conf and hosts, open to be written */
    MESSAGE_BEGIN,     /* to the inside: the guest is attached, and its files say so */
    MESSAGE_STARTED,  /* COMMAND's process is there and about to execute; its sender is that process
                       */
    MESSAGE_FAILED,   /* COMMAND is not executed: value is the exit code, text says why */
    MESSAGE_EXECUTED, /* COMMAND is executed, unless MESSAGE_FAILED came before */
    MESSAGE_STOPPED,  /* COMMAND was stopped: value is the signal */
    MESSAGE_ENDED,    /* COMMAND ended: value is its wait(2) status */
};

#define CHANNEL_FILES 2

struct message {
    enum message_type type;
    int value;
    int files[CHANNEL_FILES]; /* the receiver's, who closes them; -1: none */
    char text[800];
};

/* Returns 0 or a negative errno. Both ends are close-on-exec; ret_fds[0] (outside) is told who
 * sends. */
int channel_open(int ret_fds[2]);
/* Returns 0 or a negative errno; text may be NULL. Blocks while the other side has a full queue. */
int channel_send(int fd, enum message_type type, int value, const char *text);
/* MESSAGE_FILES with these descriptors, which stay the caller's. As channel_send. */
int channel_send_files(int fd, const int files[CHANNEL_FILES]);
/* Receives one message; *ret_sender is the sender as we see it, 0 when it is not known. Returns 0,
 * -ECONNRESET when the other side is gone, or another negative errno. Blocks. */
int channel_receive(int fd, struct message *ret_message, pid_t *ret_sender);
