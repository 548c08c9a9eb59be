/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SO_REUSEADDR on TCP sockets means two things to the kernel: remnants in TIME_WAIT that had it are
 * passed over, and sockets that both have it may share the port as long as none of them listens. We
 * want the first and not the second:
 *
 * - A socket that listens is shared with nobody, whatever the options. It keeps SO_REUSEADDR, so
 *   that what it accepts has it too, and leaves remnants that the next one passes over.
 * - One that is only bound must end up without the option. It is first bound without it. When that
 *   fails, it may be for remnants: it is bound with the option, then listens for a moment and
 *   stops. Only listening makes the kernel note on the port that it is not shared any more;
 *   switching the option off alone leaves the mark of the bind there, and others with SO_REUSEADDR
 *   could bind.
 *
 * Remnants of sockets that did not have the option can't be passed over. Where nothing else is on
 * the port they are ended. */
#include "nat/reserve_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/holder.h"

#define LISTEN_BACKLOG 1024

static int option_set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int socket_make(uint8_t protocol, const struct ip *ip, bool both_families, bool freebind,
                       int *ret_fd)
{
    int type = protocol == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM;
    _cleanup_close_ int fd = socket(ip->family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int code = fd < 0 ? -errno : 0;

    if (code == 0 && ip->family == AF_INET6)
        code = option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !both_families);
    if (code == 0 && freebind)
        code = ip->family == AF_INET6 ? option_set(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1)
                                      : option_set(fd, IPPROTO_IP, IP_FREEBIND, 1);
    if (code < 0)
        return code;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int socket_bind(int fd, const struct ip *ip, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(ip, port, &address);

    return bind(fd, (const struct sockaddr *)&address, length) < 0 ? -errno : 0;
}

/* Bound with SO_REUSEADDR: makes the port ours alone, without anybody listening in the end. */
static int socket_claim(int fd)
{
    if (listen(fd, 0) < 0 || shutdown(fd, SHUT_RDWR) < 0)
        return -errno;
    return option_set(fd, SOL_SOCKET, SO_REUSEADDR, 0);
}

static int tcp_bind_reusing(int fd, const struct ip *ip, uint16_t port)
{
    int code = option_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);

    if (code == 0)
        code = socket_bind(fd, ip, port);
    if (code == -EADDRINUSE && port_remnants_end(ip, port))
        code = socket_bind(fd, ip, port);
    return code;
}

static int tcp_listen(int fd)
{
    int code = option_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);

    if (code == 0 && listen(fd, LISTEN_BACKLOG) < 0)
        code = -errno;
    return code;
}

static int tcp_bind(int fd, const struct ip *ip, uint16_t port)
{
    int code = socket_bind(fd, ip, port);
    bool reusing = code == -EADDRINUSE;

    if (reusing)
        code = tcp_bind_reusing(fd, ip, port);
    if (code < 0)
        return code;
    if (ip->family == AF_INET6)
        return tcp_listen(fd);
    return reusing ? socket_claim(fd) : 0;
}

int reserve_socket_open(uint8_t protocol, const struct ip *ip, bool both_families, uint16_t port,
                        bool freebind, int *ret_fd)
{
    _cleanup_close_ int fd = -1;
    int code = socket_make(protocol, ip, both_families, freebind, &fd);

    if (code == 0)
        code = protocol == IPPROTO_TCP ? tcp_bind(fd, ip, port) : socket_bind(fd, ip, port);
    if (code < 0)
        return code;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

void reserve_socket_prepare(unsigned count)
{
    struct rlimit limit;
    int lowest = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    int highest;

    if (lowest < 0)
        return;
    /* The lowest free number tells well enough how many are open. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > (rlim_t)lowest + count) {
        highest = fcntl(lowest, F_DUPFD_CLOEXEC, lowest + (int)count);
        if (highest >= 0)
            close(highest);
    }
    close(lowest);
}
