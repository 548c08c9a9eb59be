/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A tap can't be made by rtnetlink, and not with our mark: so it is not persistent, which means
 * gone with its descriptor, until it has been put into our group. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "handle.h"

#define TUN_FILE "/dev/net/tun"

static int tap_refused(struct link *link, const struct link_endpoint *endpoint, int errnum,
                       struct error *error)
{
    if (errnum == EBUSY || errnum == EEXIST || errnum == EINVAL)
        if (link_exists(link, endpoint->host_name))
            return endpoint_name_taken(link, endpoint, error);
    return error_set_kernel(error, errnum, NULL, "cannot create the tap %s", endpoint->host_name);
}

/* Opens a queue. With IFF_TUN_EXCL an existing tap of that name is refused, not joined. */
static int tap_open(const struct link_endpoint *endpoint, short flags)
{
    struct ifreq query = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | flags)};
    _cleanup_close_ int fd = open(TUN_FILE, O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    if (endpoint->multi_queue)
        query.ifr_flags = (short)(query.ifr_flags | IFF_MULTI_QUEUE);
    if (endpoint->vnet_hdr)
        query.ifr_flags = (short)(query.ifr_flags | IFF_VNET_HDR);
    memcpy(query.ifr_name, endpoint->host_name, sizeof(query.ifr_name));
    if (ioctl(fd, TUNSETIFF, &query) < 0)
        return -errno;
    return TAKE_FD(fd);
}

/* IFF_TUN_EXCL as an int does not fit a short: it is the sign bit. */
static int tap_open_new(struct link *link, const struct link_endpoint *endpoint, int *ret_fd,
                        struct error *error)
{
    int fd = tap_open(endpoint, (short)IFF_TUN_EXCL);

    if (fd == -EBUSY || fd == -EEXIST || fd == -EINVAL) {
        link_reaper_wait(link); /* one of that name may just be going */
        fd = tap_open(endpoint, (short)IFF_TUN_EXCL);
    }
    if (fd < 0)
        return tap_refused(link, endpoint, -fd, error);
    *ret_fd = fd;
    return 0;
}

static int tap_set_access(int fd, const struct link_endpoint *endpoint, struct error *error)
{
    if (endpoint->owner >= 0 && ioctl(fd, TUNSETOWNER, (unsigned long)endpoint->owner) < 0)
        return error_set_kernel(error, errno, NULL, "cannot set the owner of the tap %s",
                                endpoint->host_name);
    if (endpoint->tap_group >= 0 && ioctl(fd, TUNSETGROUP, (unsigned long)endpoint->tap_group) < 0)
        return error_set_kernel(error, errno, NULL, "cannot set the group of the tap %s",
                                endpoint->host_name);
    return 0;
}

/* Marks it as ours while it is down, then makes it stay. */
static int tap_mark(struct link *link, const struct link_endpoint *endpoint, int fd, uint32_t index,
                    struct error *error)
{
    struct request request;

    request_init(&request);
    struct nlmsghdr *message = request_link(&request, RTM_SETLINK, 0, index, "set up the tap");
    mnl_attr_put_u32(message, IFLA_GROUP, endpoint->group);
    mnl_attr_put_u32(message, IFLA_MTU, endpoint->mtu);
    message_put_mac(message, &endpoint->bridge_mac);
    if (link_has_ipv6(link, endpoint->mtu))
        message_put_settings(
            request_link(&request, RTM_SETLINK, 0, index, "turn IPv6 autoconfiguration off on"),
            NULL, 0, true);
    int r = netlink_commit(&link->host, &request, endpoint->host_name, error);
    if (r == 0 && ioctl(fd, TUNSETPERSIST, 1UL) < 0)
        r = error_set_kernel(error, errno, NULL, "cannot make the tap %s persistent",
                             endpoint->host_name);
    return r;
}

static int tap_connect(struct link *link, const struct link_endpoint *endpoint, uint32_t index,
                       uint32_t bridge_index, struct error *error)
{
    struct netlink_failure failure;
    struct request request;

    request_init(&request);
    struct nlmsghdr *message = request_link(&request, RTM_SETLINK, 0, index, "connect");
    message_set_up(message, true);
    if (!endpoint->routed)
        mnl_attr_put_u32(message, IFLA_MASTER, bridge_index);
    int r = netlink_send(&link->host, &request, &failure);
    if (r == -EXFULL)
        return error_set_reason(error, REASON_QUOTA, "the bridge %s is full: it takes 1023 ports",
                                endpoint->bridge);
    if (r < 0)
        return error_set_kernel(error, r, failure.extack, "cannot connect %s", endpoint->host_name);
    return endpoint_settle(link, endpoint, index, bridge_index, error);
}

static int tap_finish(struct link *link, const struct link_endpoint *endpoint, int fd,
                      uint32_t bridge_index, struct error *error)
{
    uint32_t index = link_index(link, endpoint->host_name);

    if (index == 0)
        return error_set_kernel(error, ENODEV, NULL, "the tap %s is gone at once",
                                endpoint->host_name);
    int r = tap_set_access(fd, endpoint, error);
    if (r == 0)
        r = tap_mark(link, endpoint, fd, index, error);
    if (r < 0)
        return r; /* the tap goes with its descriptor */
    r = tap_connect(link, endpoint, index, bridge_index, error);
    if (r < 0)
        endpoint_undo(link, endpoint, index);
    return r;
}

int link_tap_create(struct link *link, const struct link_endpoint *endpoint, int *ret_fd,
                    struct error *error)
{
    _cleanup_close_ int fd = -1;
    uint32_t bridge_index;

    int r = endpoint_bridge_index(link, endpoint, &bridge_index, error);
    if (r == 0)
        r = fault_point("link.tap", error);
    known_expect(&link->shared->known, endpoint->host_name);
    if (r == 0)
        r = tap_open_new(link, endpoint, &fd, error);
    if (r == 0)
        r = tap_finish(link, endpoint, fd, bridge_index, error);
    known_expect_end(&link->shared->known, endpoint->host_name);
    if (r == 0 && ret_fd)
        *ret_fd = TAKE_FD(fd);
    return r;
}
