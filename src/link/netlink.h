/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to rtnetlink: several messages in one sendmsg(2), dumps, and the kernel's answers with
 * their extended ack (Documentation/userspace-api/netlink/intro.rst of the kernel). Private to
 * link/. */
#pragma once

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdalign.h>

#include "base/error.h"

#define NETLINK_EXTACK_MAX 128

struct netlink {
    int fd; /* -1: closed */
    uint32_t port;
    uint32_t sequence;
};

#define NETLINK_INIT ((struct netlink){.fd = -1})

/* Opens a socket in the calling thread's namespace, bound, with extended acks and strict checking
 * of dump requests. */
int netlink_open(struct netlink *ret_netlink, struct error *error);
/* The same inside another namespace; the calling thread is back in home_fd's when it returns. A
 * thread that can't return would act on a guest's namespace as if it were the host's: the process
 * is aborted then. */
int netlink_open_in(int netns_fd, int home_fd, struct netlink *ret_netlink, struct error *error);
void netlink_close(struct netlink *netlink);

/* --- requests --- */
#define REQUEST_STEPS_MAX 24
#define REQUEST_MESSAGE_MAX 640 /* bytes of one message; every value put is bounded by its type */
#define REQUEST_TOLERATED_MAX 3

struct request_step {
    const char *what; /* "set the address of": what stands between "cannot" and the object */
    int tolerated[REQUEST_TOLERATED_MAX]; /* errno values that count as success; 0: none */
};

/* Messages that go out in one sendmsg. The kernel runs them in order and does not stop at one that
 * fails, so a message may only stand behind another if it does no harm when that one failed. */
struct request {
    size_t used; /* bytes, the message begun last not counted in */
    unsigned count;
    bool open; /* a message was begun and not counted in yet */
    struct request_step steps[REQUEST_STEPS_MAX];
    alignas(8) char buffer[REQUEST_STEPS_MAX * REQUEST_MESSAGE_MAX];
};

struct netlink_failure {
    unsigned step; /* which message */
    const char *what;
    char extack[NETLINK_EXTACK_MAX]; /* "" if there is none */
};

/* Empties it. Leaves the buffer as it is. */
void request_init(struct request *request);
/* Begins the next message; it ends where the next one begins. extra_size bytes of zeros after the
 * header are returned through ret_extra. */
struct nlmsghdr *request_add(struct request *request, uint16_t type, uint16_t flags,
                             size_t extra_size, void **ret_extra, const char *what);
/* The message begun last may fail with this errno. */
void request_tolerate(struct request *request, int errnum);

/* Sends all messages and waits for the kernel, which answers before sendmsg returns. Returns 0, or
 * -errno of the first message that failed, described in ret_failure. An empty request is fine. */
int netlink_send(struct netlink *netlink, struct request *request,
                 struct netlink_failure *ret_failure);
/* netlink_send, with the failure as an error: "cannot <what> <object>: …", reason kernel. */
int netlink_commit(struct netlink *netlink, struct request *request, const char *object,
                   struct error *error);
/* Sends the one message of the request and returns its one answer, which lies in buffer. -errno as
 * the kernel says; no error text, as the absence of an object is an answer too. */
#define NETLINK_REPLY_MAX 16384
struct netlink_reply {
    alignas(8) char buffer[NETLINK_REPLY_MAX];
};
int netlink_get(struct netlink *netlink, struct request *request, struct netlink_reply *reply,
                const struct nlmsghdr **ret_message);

/* Called for each message of a dump; with NULL when the dump starts again because objects changed
 * meanwhile (NLM_F_DUMP_INTR): forget what was collected. Returns 0 or a negative errno, which ends
 * the dump. */
typedef int (*netlink_dump_fn)(const struct nlmsghdr *message, void *userdata);
/* Sends the one message of the request with NLM_F_DUMP. -errno without text, as above; -EINTR when
 * things changed all the time. */
int netlink_dump(struct netlink *netlink, struct request *request, netlink_dump_fn fn,
                 void *userdata);

/* --- pure parts --- */
/* Errno (positive, 0 for an ack) of an NLMSG_ERROR message and its NLMSGERR_ATTR_MSG. A message
 * that is too short is EBADMSG. */
int netlink_parse_error(const struct nlmsghdr *message, char ret_extack[NETLINK_EXTACK_MAX]);
/* Attributes by type into table[0 … max], NULL where absent; types above max are skipped. Later
 * ones win. Malformed lengths end the walk. */
void netlink_parse_attributes(const void *first, size_t length, const struct nlattr **table,
                              uint16_t max);
/* The same for the attributes after a message's fixed header. */
void netlink_parse_message(const struct nlmsghdr *message, size_t header_size,
                           const struct nlattr **table, uint16_t max);
/* Value of an attribute; 0 or "" where it is NULL or too short. */
uint32_t attribute_u32(const struct nlattr *attribute);
uint8_t attribute_u8(const struct nlattr *attribute);
void attribute_text(const struct nlattr *attribute, char *ret_text, size_t size);
