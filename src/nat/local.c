/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/local.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"

struct local {
    struct mnl_socket *route;
    uint32_t sequence;
};

DEFINE_CLEANUP(struct local, local_close)

int local_open(struct local **ret_local)
{
    _cleanup_(local_closep) struct local *local = calloc(1, sizeof(*local));

    if (!local)
        return -ENOMEM;
    local->route = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!local->route || mnl_socket_bind(local->route, 0, MNL_SOCKET_AUTOPID) < 0)
        return -errno;
    *ret_local = TAKE_PTR(local);
    return 0;
}

void local_close(struct local *local)
{
    if (!local)
        return;
    if (local->route)
        mnl_socket_close(local->route);
    free(local);
}

static int local_ask(struct local *local, const struct ip *ip)
{
    char buffer[128] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    struct rtmsg *route = mnl_nlmsg_put_extra_header(message, sizeof(*route));
    unsigned bits = ip_bits(ip->family);

    message->nlmsg_type = RTM_GETROUTE;
    message->nlmsg_flags = NLM_F_REQUEST;
    message->nlmsg_seq = ++local->sequence;
    route->rtm_family = ip->family;
    route->rtm_dst_len = (unsigned char)bits;
    mnl_attr_put(message, RTA_DST, bits / 8, ip->bytes);
    return mnl_socket_sendto(local->route, message, message->nlmsg_len) < 0 ? -errno : 0;
}

bool local_has(struct local *local, const struct ip *ip)
{
    char buffer[4096] __attribute__((aligned(NLMSG_ALIGNTO)));
    const struct nlmsghdr *message = (const void *)buffer;

    if (local_ask(local, ip) < 0)
        return false;
    do {
        ssize_t length = mnl_socket_recvfrom(local->route, buffer, sizeof(buffer));

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 || !mnl_nlmsg_ok(message, (int)length))
            return false;
    } while (message->nlmsg_seq != local->sequence);
    const struct rtmsg *route = mnl_nlmsg_get_payload(message);
    return message->nlmsg_type == RTM_NEWROUTE && route->rtm_type == RTN_LOCAL;
}
