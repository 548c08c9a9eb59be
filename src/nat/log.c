/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "nat/ruleset.h"

#define DATAGRAM_MAX 65536
#define RECEIVE_BUFFER (1024 * 1024)
#define FLUSH_CENTISECONDS 2 /* the kernel gathers messages for so long */
#define DATAGRAMS_PER_TURN 16
#define EXTENSION_HEADERS_MAX 8

struct nat_log {
    struct mnl_socket *socket;
    struct loop_io *io;
    nat_log_fn fn;
    void *userdata;
    _Alignas(struct nlmsghdr) char receive[DATAGRAM_MAX];
};

/* --- packets --- */

static bool has_ports(uint8_t protocol)
{
    switch (protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
    case IPPROTO_DCCP:
    case IPPROTO_UDPLITE:
        return true;
    default:
        return false;
    }
}

/* data: from the transport header on. */
static uint16_t port_read(uint8_t protocol, const uint8_t *data, size_t length)
{
    if (!has_ports(protocol) || length < 4)
        return 0;
    return (uint16_t)(data[2] << 8 | data[3]);
}

/* RFC 791 section 3.1. */
static int parse4(const uint8_t *data, size_t length, struct nat_log_entry *entry)
{
    size_t header = length > 0 ? (size_t)(data[0] & 0xf) * 4 : 0;

    if (length < 20 || header < 20)
        return -EINVAL;
    entry->source = ip_from_bytes(AF_INET, data + 12);
    entry->destination = ip_from_bytes(AF_INET, data + 16);
    entry->protocol = data[9];
    entry->port = 0;
    if ((data[6] & 0x1f) == 0 && data[7] == 0 && header < length)
        entry->port = port_read(entry->protocol, data + header, length - header);
    return 0;
}

static bool is_extension(uint8_t header)
{
    return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS;
}

/* RFC 8200 sections 3 and 4. What lies behind a fragment header is out of sight. */
static int parse6(const uint8_t *data, size_t length, struct nat_log_entry *entry)
{
    size_t at = 40;

    if (length < 40)
        return -EINVAL;
    entry->source = ip_from_bytes(AF_INET6, data + 8);
    entry->destination = ip_from_bytes(AF_INET6, data + 24);
    entry->protocol = data[6];
    for (int i = 0; i < EXTENSION_HEADERS_MAX && is_extension(entry->protocol); i++) {
        if (length < at + 8)
            break;
        entry->protocol = data[at];
        at += ((size_t)data[at + 1] + 1) * 8;
    }
    entry->port = at < length ? port_read(entry->protocol, data + at, length - at) : 0;
    return 0;
}

int nat_log_parse_packet(const uint8_t *data, size_t length, struct nat_log_entry *entry)
{
    if (length > 0 && data[0] >> 4 == 4)
        return parse4(data, length, entry);
    if (length > 0 && data[0] >> 4 == 6)
        return parse6(data, length, entry);
    return -EINVAL;
}

/* --- messages --- */

static bool prefix_find(const struct nlattr *attribute, enum nat_log_kind *ret_kind)
{
    static const char *const prefixes[] = {
        [NAT_LOG_DROPPED] = RULESET_LOG_DROPPED,
        [NAT_LOG_LIMITED] = RULESET_LOG_LIMITED,
        [NAT_LOG_DENIED] = RULESET_LOG_DENIED,
    };

    if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        if (strcmp(mnl_attr_get_str(attribute), prefixes[i]) != 0)
            continue;
        *ret_kind = (enum nat_log_kind)i;
        return true;
    }
    return false;
}

struct message {
    bool known;           /* it is one of ours */
    uint32_t device;      /* the link that the packet came in by */
    uint32_t bridge_port; /* under it */
    const struct nlattr *packet;
    enum nat_log_kind kind;
};

static void message_read(const struct nlmsghdr *netlink, struct message *message)
{
    struct nlattr *attribute;

    *message = (struct message){0};
    mnl_attr_for_each(attribute, netlink, sizeof(struct nfgenmsg))
    {
        switch (mnl_attr_get_type(attribute)) {
        case NFULA_PREFIX:
            message->known = prefix_find(attribute, &message->kind);
            break;
        case NFULA_IFINDEX_INDEV:
            if (mnl_attr_get_payload_len(attribute) == 4)
                message->device = ntohl(mnl_attr_get_u32(attribute));
            break;
        case NFULA_IFINDEX_PHYSINDEV:
            if (mnl_attr_get_payload_len(attribute) == 4)
                message->bridge_port = ntohl(mnl_attr_get_u32(attribute));
            break;
        case NFULA_PAYLOAD:
            message->packet = attribute;
            break;
        }
    }
}

/* What the guest called is said, and not the address that stands for it on the way. */
static void name_localhost(struct nat_log_entry *entry)
{
    static const uint8_t wire[4] = {NAT_LOCALHOST_WIRE};
    static const uint8_t loopback[4] = {127, 0, 0, 1};
    const struct ip stand_in = ip_from_bytes(AF_INET, wire);

    if (ip_equal(&entry->destination, &stand_in))
        entry->destination = ip_from_bytes(AF_INET, loopback);
}

static void message_take(struct nat_log *log, const struct nlmsghdr *netlink)
{
    struct nat_log_entry entry = {0};
    struct message message;

    if (netlink->nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET) ||
        mnl_nlmsg_get_payload_len(netlink) < sizeof(struct nfgenmsg))
        return;
    message_read(netlink, &message);
    entry.kind = message.kind;
    entry.interface = message.bridge_port ? message.bridge_port : message.device;
    if (!message.known || !entry.interface)
        return;
    if (entry.kind != NAT_LOG_DROPPED &&
        (!message.packet ||
         nat_log_parse_packet(mnl_attr_get_payload(message.packet),
                              mnl_attr_get_payload_len(message.packet), &entry) < 0))
        return;
    name_localhost(&entry);
    log->fn(log->userdata, &entry);
}

/* What did not fit (ENOBUFS) is lost: the counters have it. */
static void on_readable(void *userdata, unsigned events)
{
    struct nat_log *log = userdata;
    int fd = mnl_socket_get_fd(log->socket);

    (void)events;
    for (int i = 0; i < DATAGRAMS_PER_TURN; i++) {
        ssize_t received = recv(fd, log->receive, sizeof(log->receive), MSG_DONTWAIT);

        if (received < 0 && (errno == EINTR || errno == ENOBUFS))
            continue;
        if (received < 0)
            return;
        int left = (int)received;
        const struct nlmsghdr *message = (const void *)log->receive;
        for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
            message_take(log, message);
    }
}

/* --- opening --- */

static struct nlmsghdr *config_begin(char *buffer)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    struct nfgenmsg *extra = mnl_nlmsg_put_extra_header(message, sizeof(*extra));

    message->nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    extra->nfgen_family = AF_UNSPEC;
    extra->version = NFNETLINK_V0;
    extra->res_id = htons(RULESET_LOG_GROUP);
    return message;
}

static int config_send(struct nat_log *log, const struct nlmsghdr *message)
{
    unsigned port = mnl_socket_get_portid(log->socket);
    ssize_t received;

    if (mnl_socket_sendto(log->socket, message, message->nlmsg_len) < 0)
        return -errno;
    received = mnl_socket_recvfrom(log->socket, log->receive, sizeof(log->receive));
    if (received < 0 ||
        mnl_cb_run(log->receive, (size_t)received, message->nlmsg_seq, port, NULL, NULL) < 0)
        return -errno;
    return 0;
}

static int bind_group(struct nat_log *log)
{
    struct nfulnl_msg_config_cmd command = {.command = NFULNL_CFG_CMD_BIND};
    char buffer[128] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct nlmsghdr *message = config_begin(buffer);

    mnl_attr_put(message, NFULA_CFG_CMD, sizeof(command), &command);
    return config_send(log, message);
}

static int set_mode(struct nat_log *log)
{
    struct nfulnl_msg_config_mode mode = {.copy_range = htonl(RULESET_LOG_LENGTH),
                                          .copy_mode = NFULNL_COPY_PACKET};
    char buffer[128] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct nlmsghdr *message = config_begin(buffer);

    mnl_attr_put(message, NFULA_CFG_MODE, sizeof(mode), &mode);
    mnl_attr_put_u32(message, NFULA_CFG_TIMEOUT, htonl(FLUSH_CENTISECONDS));
    return config_send(log, message);
}

static int log_configure(struct nat_log *log, struct error *error)
{
    int size = RECEIVE_BUFFER;
    int r;

    log->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (!log->socket || mnl_socket_bind(log->socket, 0, MNL_SOCKET_AUTOPID) < 0)
        return error_set(error, errno, "cannot open a netfilter socket for the log");
    setsockopt(mnl_socket_get_fd(log->socket), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    r = bind_group(log);
    if (r == -EBUSY)
        return error_set_reason(error, REASON_BUSY,
                                "another program listens to NFLOG group %d, which is moatd's",
                                RULESET_LOG_GROUP);
    if (r == 0)
        r = set_mode(log);
    return r < 0 ? error_set(error, r, "cannot listen to NFLOG group %d", RULESET_LOG_GROUP) : 0;
}

DEFINE_CLEANUP(struct nat_log, nat_log_close)

int nat_log_open(struct loop *loop, nat_log_fn fn, void *userdata, struct nat_log **ret_log,
                 struct error *error)
{
    _cleanup_(nat_log_closep) struct nat_log *log = calloc(1, sizeof(*log));
    int r;

    if (!log)
        return error_set(error, ENOMEM, "log");
    log->fn = fn;
    log->userdata = userdata;
    r = log_configure(log, error);
    if (r < 0)
        return r;
    log->io = loop_io_new(loop, mnl_socket_get_fd(log->socket), LOOP_READ, on_readable, log);
    if (!log->io)
        return error_set(error, ENOMEM, "log");
    *ret_log = TAKE_PTR(log);
    return 0;
}

void nat_log_close(struct nat_log *log)
{
    if (!log)
        return;
    if (log->io)
        loop_io_free(log->io);
    if (log->socket)
        mnl_socket_close(log->socket);
    free(log);
}
