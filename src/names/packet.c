/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The socket takes all protocols of its interface, since the ports of a bridge give packets to
 * nobody else but to such sockets; the filter throws away what is not ours before anything is
 * copied. */
#include "names/packet.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/dhcp_message.h"

#define RECEIVE_BUFFER (64 << 10) /* some dozens of requests; more of one guest are a flood */
#define SNAP 65535
#define ROUTER_SOLICITATION 133
#define NEIGHBOUR_SOLICITATION 135

/* Offsets in a frame: Ethernet 14 bytes, IPv6 40. */
#define AT_SOURCE_MAC 6
#define AT_TYPE 12
#define AT_IPV4 14
#define AT_IPV4_FRAGMENT 20
#define AT_IPV4_PROTOCOL 23
#define AT_IPV6_NEXT 20
#define AT_IPV6_PAYLOAD 54

static int option_set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* Jumps are counted in instructions, from the next one on; IPv6 begins at 14, the last two are
 * "nothing" and "all of it". */
static int filter_set(int fd, const struct mac *mac)
{
    const uint8_t *m = mac->bytes;
    uint32_t mac_high = (uint32_t)m[0] << 24 | (uint32_t)m[1] << 16 | (uint32_t)m[2] << 8 | m[3];
    uint32_t mac_low = (uint32_t)m[4] << 8 | m[5];
    struct sock_filter code[] = {
        /*  0 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, AT_SOURCE_MAC),
        /*  1 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mac_high, 0, 20),
        /*  2 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, AT_SOURCE_MAC + 4),
        /*  3 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mac_low, 0, 18),
        /*  4 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, AT_TYPE),
        /*  5 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 8, 0),
        /*  6 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 15),
        /*  7 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, AT_IPV4_PROTOCOL),
        /*  8 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 13),
        /*  9 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, AT_IPV4_FRAGMENT),
        /* 10 */ BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x3fff, 11, 0),
        /* 11 */ BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, AT_IPV4),
        /* 12 */ BPF_STMT(BPF_LD | BPF_H | BPF_IND, AT_IPV4 + 2),
        /* 13 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DHCP_SERVER_PORT, 9, 8),
        /* 14 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, AT_IPV6_NEXT),
        /* 15 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 4, 0),
        /* 16 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 0, 5),
        /* 17 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, AT_IPV6_PAYLOAD),
        /* 18 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ROUTER_SOLICITATION, 4, 0),
        /* 19 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NEIGHBOUR_SOLICITATION, 3, 2),
        /* 20 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, AT_IPV6_PAYLOAD + 2),
        /* 21 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DHCP6_SERVER_PORT, 1, 0),
        /* 22 */ BPF_STMT(BPF_RET | BPF_K, 0),
        /* 23 */ BPF_STMT(BPF_RET | BPF_K, SNAP),
    };
    struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
        return -errno;
    return option_set(fd, SOL_SOCKET, SO_LOCK_FILTER, 1);
}

static int bind_to(int fd, uint32_t interface)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)interface};

    return bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

int packet_socket_open(uint32_t interface, const struct mac *mac, int *ret_fd, struct error *error)
{
    /* Protocol 0: nothing arrives before filter and interface are set. */
    _cleanup_close_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return error_set(error, errno, "cannot open a packet socket");
    r = filter_set(fd, mac);
    if (r == 0)
        r = option_set(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    if (r == 0)
        r = option_set(fd, SOL_PACKET, PACKET_AUXDATA, 1);
    if (r == 0)
        r = option_set(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
    if (r == 0)
        r = bind_to(fd, interface);
    if (r < 0)
        return error_set(error, r, "cannot set up a packet socket");
    *ret_fd = TAKE_FD(fd);
    return 0;
}
