/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "names/socket.h"

#include <errno.h>
#include <linux/in6.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/holder.h"

#define RECEIVE_BUFFER (4 << 20) /* thousands of queries may come at once */
#define SEND_BUFFER (1 << 20)
#define BACKLOG 256

static int option_set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value));
}

/* A TCP port whose former connections are in TIME_WAIT can be bound again; a UDP socket must not
 * let another program in beside it. */
static int options_set(int fd, uint8_t protocol, uint8_t family)
{
    if (family == AF_INET6 && (option_set(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1) < 0 ||
                               option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0))
        return -errno;
    if (family == AF_INET && option_set(fd, IPPROTO_IP, IP_FREEBIND, 1) < 0)
        return -errno;
    if (protocol == IPPROTO_TCP)
        return option_set(fd, SOL_SOCKET, SO_REUSEADDR, 1) < 0 ? -errno : 0;
    /* Beyond net.core.rmem_max for who may; as much as that allows for others. */
    if (option_set(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER) < 0)
        option_set(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
    if (option_set(fd, SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER) < 0)
        option_set(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER);
    return 0;
}

static int in_use(uint8_t protocol, const struct ip *ip, uint16_t port, struct error *error)
{
    const char *name = protocol == IPPROTO_TCP ? "TCP" : "UDP";
    char address[IP_TEXT_MAX];
    char holder[128];

    ip_format(ip, address);
    port_holder_format(protocol, ip, port, holder, sizeof(holder));
    return error_set_reason(
        error, REASON_PORT_IN_USE,
        "the name service needs %s port %u on %s, which %s has; stop it, keep it off "
        "that address, or make the network with --no-dns",
        name, port, address, holder[0] ? holder : "another program");
}

int names_socket_bind(uint8_t protocol, const struct ip *ip, uint16_t port, int *ret_fd,
                      struct error *error)
{
    int type = protocol == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM;
    _cleanup_close_ int fd = socket(ip->family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(ip, port, &address);
    int r;

    if (fd < 0)
        return error_set(error, errno, "cannot make a socket for the name service");
    r = options_set(fd, protocol, ip->family);
    if (r < 0)
        return error_set(error, r, "cannot set up a socket for the name service");
    /* With SO_REUSEADDR only listen(2) finds out that another program listens there. */
    if (bind(fd, (const struct sockaddr *)&address, length) < 0 ||
        (protocol == IPPROTO_TCP && listen(fd, BACKLOG) < 0)) {
        if (errno == EADDRINUSE)
            return in_use(protocol, ip, port, error);
        return error_set(error, errno, "cannot bind a socket for the name service");
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}
