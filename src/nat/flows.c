/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/flows.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_compat.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "nat/entry.h"

#define RECEIVE_BUFFER (4 * 1024 * 1024)
#define DATAGRAM_MAX 65536
#define DATAGRAMS_MAX 64 /* taken in one turn */

struct flow_watch {
    struct mnl_socket *mnl;
    struct loop_io *io;
    flow_fn fn;
    void *userdata;
    _Alignas(struct nlmsghdr) char buffer[DATAGRAM_MAX];
};

DEFINE_CLEANUP(struct flow_watch, flow_watch_free)

static void message_tell(const struct flow_watch *watch, const struct nlmsghdr *message)
{
    struct entry entry;

    if (message->nlmsg_type != (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW) ||
        mnl_nlmsg_get_payload_len(message) < sizeof(struct nfgenmsg))
        return;
    entry_read(message, &entry);
    watch->fn(watch->userdata, &(struct flow){
                                   .source = entry.original.source,
                                   .destination = entry.original.destination,
                                   .protocol = entry.original.protocol,
                                   .port = entry.original.destination_port,
                               });
}

static void watch_ready(void *userdata, unsigned events)
{
    struct flow_watch *watch = userdata;

    (void)events;
    for (int i = 0; i < DATAGRAMS_MAX; i++) {
        ssize_t length =
            recv(mnl_socket_get_fd(watch->mnl), watch->buffer, sizeof(watch->buffer), MSG_DONTWAIT);
        int left = (int)length;
        const struct nlmsghdr *message = (const void *)watch->buffer;

        if (length < 0 && errno == ENOBUFS)
            watch->fn(watch->userdata, NULL);
        if (length < 0 && errno != ENOBUFS && errno != EINTR)
            return;
        for (; left > 0 && mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
            message_tell(watch, message);
    }
}

/* 1 and 2 (the default: where somebody listens) are fine. */
static bool events_are_off(void)
{
    _cleanup_fclose_ FILE *file = fopen("/proc/sys/net/netfilter/nf_conntrack_events", "re");

    return file && fgetc(file) == '0';
}

static int watch_open(struct flow_watch *watch)
{
    const int group = NFNLGRP_CONNTRACK_NEW;
    const int size = RECEIVE_BUFFER;

    watch->mnl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (!watch->mnl || mnl_socket_bind(watch->mnl, 0, MNL_SOCKET_AUTOPID) < 0)
        return -errno;
    setsockopt(mnl_socket_get_fd(watch->mnl), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    return setsockopt(mnl_socket_get_fd(watch->mnl), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group,
                      sizeof(group)) < 0
               ? -errno
               : 0;
}

int flow_watch_new(struct loop *loop, flow_fn fn, void *userdata, struct flow_watch **ret_watch,
                   struct error *error)
{
    _cleanup_(flow_watch_freep) struct flow_watch *watch = NULL;
    int result;

    if (events_are_off())
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "the host tells of no connections: set "
                                "net.netfilter.nf_conntrack_events to 1");
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return error_set(error, ENOMEM, "cannot watch connections");
    watch->fn = fn;
    watch->userdata = userdata;
    result = watch_open(watch);
    if (result < 0)
        return error_set_kernel(error, result, NULL, "cannot watch connections");
    watch->io = loop_io_new(loop, mnl_socket_get_fd(watch->mnl), LOOP_READ, watch_ready, watch);
    if (!watch->io)
        return error_set(error, ENOMEM, "cannot watch connections");
    *ret_watch = TAKE_PTR(watch);
    return 0;
}

void flow_watch_free(struct flow_watch *watch)
{
    if (!watch)
        return;
    loop_io_free(watch->io);
    if (watch->mnl)
        mnl_socket_close(watch->mnl);
    free(watch);
}
