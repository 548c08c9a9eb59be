/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages between moatd and its workers: one SOCK_SEQPACKET datagram each, a header and a payload
 * struct (same machine, native layout). Descriptors travel with the message that names them.
 *
 * The types below WORKER_FIRST_OWN are spoken between a moatd and the worker of an older or newer
 * one too (takeover): their numbers and layouts never change. Those of the kinds are spoken within
 * one binary only, except that a draining worker ignores what it does not know. */
#pragma once

#include <stdint.h>

#define WORKER_MESSAGE_MAX 65536 /* bytes of payload */
#define WORKER_FDS_MAX 64        /* descriptors of one message */

struct worker_header {
    uint16_t type;
    uint16_t reserved; /* 0 */
    uint32_t length;   /* of the payload */
};

/* Understood by every worker. */
enum {
    WORKER_TAKEOVER = 1, /* to an orphan: hand the sockets back, then drain */
    WORKER_SOCKET = 2,   /* from it: n struct worker_socket and n descriptors */
    WORKER_DONE = 3,     /* from it: that was the last */
    WORKER_SETTINGS = 4, /* the first message to a fresh worker: struct worker_settings */
    WORKER_SYNC = 5, /* struct worker_sync: answered by the same when all before it was handled */
    WORKER_FIRST_OWN = 16, /* each kind numbers its own from here */
};

struct worker_socket {
    uint8_t protocol; /* IPPROTO_UDP, IPPROTO_TCP */
    uint8_t family;   /* AF_INET, AF_INET6 */
    uint16_t port;    /* host order */
    uint8_t address[16];
};

struct worker_sync {
    uint64_t number;
};
