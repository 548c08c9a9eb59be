/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One connection, and whose turn it is. Private to rpc. */
#pragma once

#include "proto/proto.h"
#include "rpc/dispatch.h"
#include "rpc/rpc.h"

struct output_fd {
    size_t offset; /* leaves with the byte at this place of the output */
    int fd;
};

/* A line whose requests are being answered. The answer is put together aside: events that happen
 * meanwhile go out before it. */
struct work {
    bool active;
    struct proto_requests requests;
    size_t next; /* the request behind the one that is in hand */
    struct call call;
    bool undispatched;     /* the request in hand is not being answered yet */
    enum call_wait parked; /* what it waits for */
    enum call_wait waited; /* what it last had to wait for */
    uint64_t patience_ms;  /* until when at most (loop_now_ms) */
    struct text text;
    struct output_fd fds[PROTO_FDS_MAX]; /* offsets are in `text` */
    size_t n_fds;
    size_t n_fds_used;      /* of the client's: by requests so far */
    struct promise before;  /* promised by the service before the request in hand */
    struct promise promise; /* by those that are answered */
    bool impatient;         /* no request waits any more */
};

struct client {
    struct rpc *rpc;
    struct client *next;
    struct client **place; /* what points to this client */
    int fd;
    struct loop_io *io;
    struct client *behind; /* in the queue */
    bool queued;
    struct peer peer;
    struct text input;
    size_t scanned; /* bytes of the input known to hold no newline */
    int fds[PROTO_FDS_MAX];
    size_t n_fds;
    struct work work;
    struct text output;
    size_t sent;
    struct output_fd output_fds[PROTO_FDS_MAX];
    size_t n_output_fds;
    struct promise promise; /* what the output waits for */
    bool held;              /* it does */
    bool subscribed;
    char only_guest[NAME_MAX_LENGTH + 1]; /* whose events; "": all */
    bool end_of_input;
    bool broken;   /* to be ended when nothing is in between */
    bool skipping; /* the rest of a line that was too long */
};

struct queue {
    struct client *first;
    struct client *last;
};

struct rpc {
    const struct config *config;
    struct loop *loop;
    struct service *service;
    int fd;
    bool passed; /* by systemd: the socket file is systemd's */
    struct loop_io *io;
    struct client *clients;
    size_t n_clients;
    struct loop_timer *turn; /* runs while a queue has clients */
    struct queue urgent;
    struct queue ordinary;
    size_t n_settling;           /* clients that are parked until all is settled */
    struct loop_timer *patience; /* runs while a client is parked */
    size_t n_broken;             /* clients that are to be ended */
    bool between;                /* the urgent ones go on, in the middle of another's request */
    uint64_t urgent_ms;          /* when one last did (loop_now_ms) */
    uint64_t paused_ms;          /* when the loop last slept for them */
    bool worked;                 /* such a request has just been answered */
    bool ending;                 /* nothing comes in between any more */
};

/* --- turn.c --- */
/* It has a line of that length to be answered; it is not in a queue yet. */
void turn_queue_line(struct client *client, size_t line_length);
/* The answer that it waited for is there. */
void turn_queue_work(struct client *client);
/* Lets the request in hand wait, while others go on; false when it need not or has waited long
 * enough. */
bool turn_park(struct client *client);
/* Its requests wait no longer. */
void turn_end_patience(struct client *client);
/* One that is parked may go on: then it goes first of the ordinary ones. */
void turn_unpark_ready(struct client *client);
/* It waits for nothing any more. Fine when it is neither in a queue nor parked. */
void turn_leave(struct client *client);
/* Those that go first have theirs. */
void turn_urgent(struct rpc *rpc);
/* Takes the client of the others whose turn it is out of its queue, and sees to it that the next
 * one has its; NULL when there is none. */
struct client *turn_take(struct rpc *rpc);

/* Answers the request in hand, while the urgent ones go on where it can be interrupted. */
void turn_dispatch(struct client *client);

/* --- client.c --- */
/* Takes fd. NULL: out of memory, or the peer is gone; fd stays the caller's. */
struct client *client_new(struct rpc *rpc, int fd);
void client_free(struct client *client);
/* Ends those of which that was seen in the middle of another's request. */
void clients_end_broken(struct rpc *rpc);
/* Takes the next step of the client whose turn it is. May end it. */
void client_turn(struct client *client);
/* A promise may be kept now. May end it. */
void client_kept(struct client *client);
/* Waits for what is being answered and sends what the socket takes: the daemon ends. */
void client_finish(struct client *client);
void client_tell(struct client *client, const struct event *event);

/* --- socket.c --- */
/* Makes and names RUN_DIR/moat.sock; *ret_fd also when it fails later on. */
int socket_make(const struct config *config, int *ret_fd, struct error *error);
/* Its path; what is too long for one is rpc_check's. */
void socket_path(const struct config *config, char *path, size_t size);
