/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/ctnetlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "nat/entry.h"

#define PROBE_ZONE 28013
#define PROBE_PORT 9 /* discard */
#define PROBE_TIMEOUT_S 10
#define REQUEST_SIZE 512
#define DATAGRAM_MAX 65536

/* --- messages --- */

struct nlmsghdr *ctnetlink_put(char *buffer, uint16_t type, uint16_t flags, uint8_t family,
                               uint32_t sequence)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    struct nfgenmsg *extra = mnl_nlmsg_put_extra_header(message, sizeof(*extra));

    message->nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    message->nlmsg_seq = sequence;
    extra->nfgen_family = family;
    extra->version = NFNETLINK_V0;
    return message;
}

void ctnetlink_put_filter(struct nlmsghdr *message, uint32_t original, uint32_t reply)
{
    struct nlattr *nest = mnl_attr_nest_start(message, CTA_FILTER);

    mnl_attr_put_u32(message, CTA_FILTER_ORIG_FLAGS, original);
    mnl_attr_put_u32(message, CTA_FILTER_REPLY_FLAGS, reply);
    mnl_attr_nest_end(message, nest);
}

static void put_addresses(struct nlmsghdr *message, const struct ip *source,
                          const struct ip *destination)
{
    struct nlattr *nest = mnl_attr_nest_start(message, CTA_TUPLE_IP);
    bool is_ipv4 = source->family == AF_INET;
    size_t length = ip_bits(source->family) / 8;

    mnl_attr_put(message, is_ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, length, source->bytes);
    if (destination)
        mnl_attr_put(message, is_ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, length, destination->bytes);
    mnl_attr_nest_end(message, nest);
}

void ctnetlink_put_source(struct nlmsghdr *message, uint16_t tuple, const struct ip *source)
{
    struct nlattr *nest = mnl_attr_nest_start(message, tuple);

    put_addresses(message, source, NULL);
    mnl_attr_nest_end(message, nest);
}

void ctnetlink_put_port(struct nlmsghdr *message, uint16_t tuple, uint8_t protocol, uint16_t port)
{
    struct nlattr *nest = mnl_attr_nest_start(message, tuple);
    struct nlattr *inner = mnl_attr_nest_start(message, CTA_TUPLE_PROTO);

    mnl_attr_put_u8(message, CTA_PROTO_NUM, protocol);
    mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(port));
    mnl_attr_nest_end(message, inner);
    mnl_attr_nest_end(message, nest);
}

/* --- the probe --- */

/* Two entries: what a filter finds has to be the first, and not the second. */
#define PROBE_ENTRIES 2
#define PROBE_FIRST (1u << 0)

struct probe {
    struct mnl_socket *socket;
    uint32_t sequence;
    uint8_t family;
    struct ip clients[PROBE_ENTRIES], servers[PROBE_ENTRIES];
    _Alignas(struct nlmsghdr) char request[REQUEST_SIZE];
    _Alignas(struct nlmsghdr) char receive[DATAGRAM_MAX];
};

/* Addresses that nobody has: TEST-NET-1 (RFC 5737) and the discard prefix (RFC 6666). */
static struct ip probe_address(uint8_t family, uint8_t last)
{
    const uint8_t ip4[4] = {192, 0, 2, last};
    const uint8_t ip6[16] = {[0] = 1, [15] = last};

    return ip_from_bytes(family, family == AF_INET ? ip4 : ip6);
}

static struct nlmsghdr *probe_request(struct probe *probe, uint16_t type, uint16_t flags)
{
    return ctnetlink_put(probe->request, type, flags, probe->family, ++probe->sequence);
}

static void put_tuple(struct nlmsghdr *message, uint16_t tuple, const struct ip *source,
                      const struct ip *destination)
{
    struct nlattr *nest = mnl_attr_nest_start(message, tuple);

    put_addresses(message, source, destination);
    struct nlattr *protocol = mnl_attr_nest_start(message, CTA_TUPLE_PROTO);
    mnl_attr_put_u8(message, CTA_PROTO_NUM, IPPROTO_UDP);
    mnl_attr_put_u16(message, CTA_PROTO_SRC_PORT, htons(PROBE_PORT));
    mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(PROBE_PORT));
    mnl_attr_nest_end(message, protocol);
    mnl_attr_nest_end(message, nest);
}

/* The bit of the probe's entry that the message tells of; 0 for what is none of the probe's. */
static unsigned probe_entry(const struct probe *probe, const struct nlmsghdr *message)
{
    struct entry entry;

    entry_read(message, &entry);
    if (!entry.zone_raw || mnl_attr_get_payload_len(entry.zone_raw) != 2 ||
        mnl_attr_get_u16(entry.zone_raw) != htons(PROBE_ZONE))
        return 0;
    for (unsigned i = 0; i < PROBE_ENTRIES; i++)
        if (ip_equal(&entry.original.source, &probe->clients[i]))
            return 1u << i;
    return 0;
}

/* Sends the request and reads until its end. Returns 0 or the kernel's error; *ret_found has the
 * bits of the probe's entries that it told of. */
static int probe_ask(struct probe *probe, unsigned *ret_found)
{
    const struct nlmsghdr *request = (const void *)probe->request;

    *ret_found = 0;
    if (mnl_socket_sendto(probe->socket, request, request->nlmsg_len) < 0)
        return -errno;
    for (;;) {
        ssize_t length = mnl_socket_recvfrom(probe->socket, probe->receive, sizeof(probe->receive));
        const struct nlmsghdr *message = (const void *)probe->receive;
        int left = (int)length;

        if (length < 0 && errno != EINTR)
            return -errno;
        for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
            if (message->nlmsg_seq != probe->sequence)
                continue;
            if (message->nlmsg_type == NLMSG_DONE)
                return 0;
            if (message->nlmsg_type == NLMSG_ERROR)
                return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(message))->error;
            *ret_found |= probe_entry(probe, message);
        }
    }
}

/* One that is there already was left by a probe that was interrupted: it serves as well. */
static int probe_make(struct probe *probe, unsigned i)
{
    struct nlmsghdr *message =
        probe_request(probe, IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
    unsigned ignored;

    put_tuple(message, CTA_TUPLE_ORIG, &probe->clients[i], &probe->servers[i]);
    put_tuple(message, CTA_TUPLE_REPLY, &probe->servers[i], &probe->clients[i]);
    mnl_attr_put_u16(message, CTA_ZONE, htons(PROBE_ZONE));
    mnl_attr_put_u32(message, CTA_TIMEOUT, htonl(PROBE_TIMEOUT_S));
    int result = probe_ask(probe, &ignored);
    return result == -EEXIST ? 0 : result;
}

/* It would time out as well. */
static void probe_remove(struct probe *probe, unsigned i)
{
    struct nlmsghdr *message = probe_request(probe, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
    unsigned ignored;

    put_tuple(message, CTA_TUPLE_ORIG, &probe->clients[i], &probe->servers[i]);
    mnl_attr_put_u16(message, CTA_ZONE, htons(PROBE_ZONE));
    (void)probe_ask(probe, &ignored);
}

/* Does a filter by the source of this tuple, which the first entry has, find the first alone? */
static bool probe_finds_first(struct probe *probe, uint16_t tuple, const struct ip *source)
{
    struct nlmsghdr *message = probe_request(probe, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    bool reply = tuple == CTA_TUPLE_REPLY;
    unsigned found;

    ctnetlink_put_source(message, tuple, source);
    ctnetlink_put_filter(message, reply ? 0 : CTNETLINK_IP_SRC, reply ? CTNETLINK_IP_SRC : 0);
    return probe_ask(probe, &found) == 0 && found == PROBE_FIRST;
}

static bool probe_run(struct probe *probe)
{
    bool works = true;

    for (unsigned i = 0; i < PROBE_ENTRIES; i++) {
        probe->clients[i] = probe_address(probe->family, (uint8_t)(1 + 2 * i));
        probe->servers[i] = probe_address(probe->family, (uint8_t)(2 + 2 * i));
        works = works && probe_make(probe, i) == 0;
    }
    works = works && probe_finds_first(probe, CTA_TUPLE_ORIG, &probe->clients[0]) &&
            probe_finds_first(probe, CTA_TUPLE_REPLY, &probe->servers[0]);
    for (unsigned i = 0; i < PROBE_ENTRIES; i++)
        probe_remove(probe, i);
    return works;
}

bool ctnetlink_filter_works(uint8_t family)
{
    struct probe *probe = calloc(1, sizeof(*probe));
    bool works = false;

    if (!probe)
        return false;
    probe->family = family;
    probe->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (probe->socket && mnl_socket_bind(probe->socket, 0, MNL_SOCKET_AUTOPID) == 0)
        works = probe_run(probe);
    if (probe->socket)
        mnl_socket_close(probe->socket);
    free(probe);
    return works;
}
