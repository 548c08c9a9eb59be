/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A plain table can be changed or flushed by anybody; nf_tables tells listeners. The events carry
 * the netlink port of whoever made the change: a socket filter drops those of our own, so that our
 * largest transaction never overflows the queue. An overflow by others is taken for a loss. An
 * owned table is not watched: nobody else can change it, and where nobody listens the kernel need
 * not make an event for each element. */
#include "nat/table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define RECEIVE_BUFFER (1024 * 1024)
#define DATAGRAM_MAX 65536

struct nat_watch {
    struct mnl_socket *mnl;
    struct loop_io *io;
    nat_lost_fn lost;
    nat_lost_fn others; /* NULL: other tables don't matter */
    void *userdata;
    _Alignas(struct nlmsghdr) char buffer[DATAGRAM_MAX];
};

/* Table names are the first attribute of every kind of nf_tables event. */
static bool event_is_ours(const struct nlmsghdr *message)
{
    const struct nfgenmsg *extra = mnl_nlmsg_get_payload(message);
    struct nlattr *attribute;

    if (message->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES ||
        mnl_nlmsg_get_payload_len(message) < sizeof(*extra) ||
        (extra->nfgen_family != NFPROTO_INET && extra->nfgen_family != NFPROTO_BRIDGE))
        return false;
    mnl_attr_for_each(attribute, message,
                      sizeof(*extra)) if (mnl_attr_get_type(attribute) == NFTA_TABLE_NAME &&
                                          mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >=
                                              0) return strcmp(mnl_attr_get_str(attribute),
                                                               RULESET_TABLE) == 0;
    return false;
}

/* What others have there: chains and their rules. */
static bool event_is_of_rules(const struct nlmsghdr *message)
{
    switch (message->nlmsg_type & 0xff) {
    case NFT_MSG_NEWCHAIN:
    case NFT_MSG_DELCHAIN:
    case NFT_MSG_NEWRULE:
    case NFT_MSG_DELRULE:
    case NFT_MSG_DELTABLE:
        return message->nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES;
    default:
        return false;
    }
}

static void datagram_look(const struct nat_watch *watch, ssize_t length, bool *lost, bool *others)
{
    int left = (int)length;
    const struct nlmsghdr *message = (const void *)watch->buffer;

    for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
        bool ours = event_is_ours(message);

        *lost |= ours;
        *others |= !ours && event_is_of_rules(message);
    }
}

static void watch_ready(void *userdata, unsigned events)
{
    struct nat_watch *watch = userdata;
    nat_lost_fn others_changed = watch->others;
    void *data = watch->userdata;
    bool lost = false;
    bool others = false;

    (void)events;
    for (;;) {
        ssize_t received =
            recv(mnl_socket_get_fd(watch->mnl), watch->buffer, sizeof(watch->buffer), MSG_DONTWAIT);

        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0 && errno != ENOBUFS)
            break;
        if (received < 0)
            lost = others = true;
        else
            datagram_look(watch, received, &lost, &others);
    }
    if (lost)
        watch->lost(data); /* may stop the watch */
    if (others && others_changed)
        others_changed(data);
}

/* Drops datagrams whose first message was caused by `port`; the kernel never mixes causes in one.
 */
static int watch_filter(struct nat_watch *watch, uint32_t port)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(port), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog program = {ARRAY_SIZE(code), code};

    return setsockopt(mnl_socket_get_fd(watch->mnl), SOL_SOCKET, SO_ATTACH_FILTER, &program,
                      sizeof(program));
}

static int watch_open(struct nat_watch *watch, uint32_t port)
{
    int group = NFNLGRP_NFTABLES;
    int size = RECEIVE_BUFFER;

    watch->mnl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (!watch->mnl || mnl_socket_bind(watch->mnl, 0, MNL_SOCKET_AUTOPID) < 0 ||
        watch_filter(watch, port) < 0 ||
        mnl_socket_setsockopt(watch->mnl, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
        return -errno;
    setsockopt(mnl_socket_get_fd(watch->mnl), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    return 0;
}

int nat_watch_start(struct nat *nat, struct loop *loop, nat_lost_fn lost, nat_lost_fn others,
                    void *userdata, struct error *error)
{
    nat_watch_stop(nat);
    if (nat_is_owned(nat) && !others)
        return 0;
    nat->watch = calloc(1, sizeof(*nat->watch));
    if (!nat->watch)
        return error_set(error, ENOMEM, "cannot watch nftables");
    nat->watch->lost = lost;
    nat->watch->others = others;
    nat->watch->userdata = userdata;
    int result = watch_open(nat->watch, nft_socket_port(nat->socket));
    if (result == 0) {
        nat->watch->io = loop_io_new(loop, mnl_socket_get_fd(nat->watch->mnl), LOOP_READ,
                                     watch_ready, nat->watch);
        result = nat->watch->io ? 0 : -ENOMEM;
    }
    if (result == 0)
        return 0;
    nat_watch_stop(nat);
    return error_set(error, result, "cannot watch nftables");
}

void nat_watch_stop(struct nat *nat)
{
    struct nat_watch *watch = TAKE_PTR(nat->watch);

    if (!watch)
        return;
    loop_io_free(watch->io);
    if (watch->mnl)
        mnl_socket_close(watch->mnl);
    free(watch);
}
