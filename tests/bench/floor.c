/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The least that an attach can cost here: one RTM_NEWLINK that makes a veth pair where it stays,
 * one request inside the guest's namespace (loopback up, IPv6 autoconfiguration off, address, link
 * up, default route), one nftables transaction with two elements, one durable SQLite transaction
 * with one row. A detach is one request that takes the link down, out of the bridge and into a
 * group, which is deleted between the measurements.
 *
 *   bench_floor DATABASE BRIDGE GATEWAY     in a namespace that has the bridge and a table
 *     `inet floor` with a set `guest` of mark . ipv4_addr and a map `port` of
 *     inet_proto . inet_service : ipv4_addr . inet_service
 *
 * attach COUNT  ->  for each: its time, then that of its four parts, in ns
 * tap COUNT     ->  the same with a persistent tap, which is opened, gets an owner and a group, and
 *                   goes into the bridge: three parts
 * detach COUNT  ->  one time for each; answers when the links are gone */
#include <arpa/inet.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sqlite3.h>
#include <sys/ioctl.h>

#include "bench.h"

#define GROUP_DYING 0x6666u
#define INDEX_BASE 0x100000u
#define PARTS 4
#define TAP_PARTS 3

struct floor {
    int home_fd;
    unsigned bridge;
    uint32_t gateway; /* network byte order */
    struct mnl_socket *route;
    struct mnl_socket *nft;
    sqlite3 *db;
    sqlite3_stmt *insert;
    uint32_t sequence;
    unsigned count;
    uint64_t serial; /* of all that were ever attached */
    uint32_t indexes[GUESTS_MAX];
    int guests[GUESTS_MAX];
    unsigned n_guests; /* namespaces that are there */
    _Alignas(8) char buffer[8192];
    size_t used;
};

/* --- netlink: messages are collected, sent at once, and the last one is acknowledged --- */

static struct nlmsghdr *message_open(struct floor *bench, uint16_t type, uint16_t flags,
                                     const void *header, size_t size)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(bench->buffer + bench->used);

    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | flags;
    message->nlmsg_seq = ++bench->sequence;
    memcpy(mnl_nlmsg_put_extra_header(message, size), header, size);
    return message;
}

static void message_close(struct floor *bench, const struct nlmsghdr *message)
{
    bench->used += MNL_ALIGN(message->nlmsg_len);
}

/* Netlink answers inside the send: the ack is there when it returns. */
static void messages_send(struct floor *bench, struct mnl_socket *socket, const char *what)
{
    _Alignas(8) char answer[4096];

    if (mnl_socket_sendto(socket, bench->buffer, bench->used) < 0)
        die("%s: send", what);
    ssize_t length = mnl_socket_recvfrom(socket, answer, sizeof(answer));
    if (length < 0)
        die("%s: receive", what);
    const struct nlmsgerr *error = mnl_nlmsg_get_payload((struct nlmsghdr *)(void *)answer);
    if (error->error != 0) {
        errno = -error->error;
        die("%s: refused", what);
    }
    bench->used = 0;
}

static struct mnl_socket *socket_open(int bus)
{
    struct mnl_socket *socket = mnl_socket_open2(bus, SOCK_CLOEXEC);

    if (!socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
        die("netlink socket");
    return socket;
}

/* --- rtnetlink --- */

static void link_make(struct floor *bench, uint32_t index, int netns_fd)
{
    struct ifinfomsg header = {.ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    char name[IFNAMSIZ];

    snprintf(name, sizeof(name), "f%u", index);
    struct nlmsghdr *message = message_open(
        bench, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &header, sizeof(header));
    mnl_attr_put_strz(message, IFLA_IFNAME, name);
    mnl_attr_put_u32(message, IFLA_MTU, 1500);
    mnl_attr_put_u32(message, IFLA_MASTER, bench->bridge);
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    mnl_attr_put_str(message, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
    struct nlattr *peer = mnl_attr_nest_start(message, VETH_INFO_PEER);
    struct ifinfomsg *inside = mnl_nlmsg_put_extra_header(message, sizeof(*inside));
    inside->ifi_index = 2;
    mnl_attr_put_strz(message, IFLA_IFNAME, "eth0");
    mnl_attr_put_u32(message, IFLA_MTU, 1500);
    mnl_attr_put_u32(message, IFLA_NET_NS_FD, (uint32_t)netns_fd);
    mnl_attr_nest_end(message, peer);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, info);
    message_close(bench, message);
    messages_send(bench, bench->route, "veth");
}

static void put_up(struct floor *bench, int index)
{
    struct ifinfomsg header = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};

    message_close(bench, message_open(bench, RTM_SETLINK, 0, &header, sizeof(header)));
}

static void put_ipv6_off(struct floor *bench, int index)
{
    struct ifinfomsg header = {.ifi_index = index};
    struct nlmsghdr *message = message_open(bench, RTM_SETLINK, 0, &header, sizeof(header));
    struct nlattr *families = mnl_attr_nest_start(message, IFLA_AF_SPEC);
    struct nlattr *inet6 = mnl_attr_nest_start(message, AF_INET6);

    mnl_attr_put_u8(message, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(message, inet6);
    mnl_attr_nest_end(message, families);
    message_close(bench, message);
}

static void put_address(struct floor *bench, unsigned index, uint32_t address)
{
    struct ifaddrmsg header = {.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = index};
    struct nlmsghdr *message =
        message_open(bench, RTM_NEWADDR, NLM_F_CREATE, &header, sizeof(header));

    mnl_attr_put_u32(message, IFA_LOCAL, address);
    mnl_attr_put_u32(message, IFA_ADDRESS, address);
    message_close(bench, message);
}

static void put_default_route(struct floor *bench, unsigned index)
{
    struct rtmsg header = {.rtm_family = AF_INET,
                           .rtm_table = RT_TABLE_MAIN,
                           .rtm_protocol = RTPROT_STATIC,
                           .rtm_type = RTN_UNICAST};
    struct nlmsghdr *message =
        message_open(bench, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_ACK, &header, sizeof(header));

    mnl_attr_put_u32(message, RTA_GATEWAY, bench->gateway);
    mnl_attr_put_u32(message, RTA_OIF, index);
    message_close(bench, message);
}

static void guest_set_up(struct floor *bench, int netns_fd, uint32_t address)
{
    enter(netns_fd);
    struct mnl_socket *socket = socket_open(NETLINK_ROUTE);
    enter(bench->home_fd);
    put_up(bench, 1);
    put_ipv6_off(bench, 2);
    put_address(bench, 2, address);
    put_up(bench, 2);
    put_default_route(bench, 2);
    messages_send(bench, socket, "set-up inside");
    mnl_socket_close(socket);
}

static void link_retire(struct floor *bench, uint32_t index)
{
    struct ifinfomsg header = {.ifi_index = (int)index, .ifi_change = IFF_UP};
    struct nlmsghdr *message = message_open(bench, RTM_SETLINK, NLM_F_ACK, &header, sizeof(header));

    mnl_attr_put_u32(message, IFLA_MASTER, 0);
    mnl_attr_put_u32(message, IFLA_GROUP, GROUP_DYING);
    message_close(bench, message);
    messages_send(bench, bench->route, "taking a link down");
}

static void links_delete(struct floor *bench)
{
    struct ifinfomsg header = {0};
    struct nlmsghdr *message = message_open(bench, RTM_DELLINK, NLM_F_ACK, &header, sizeof(header));

    mnl_attr_put_u32(message, IFLA_GROUP, GROUP_DYING);
    message_close(bench, message);
    messages_send(bench, bench->route, "deleting links");
}

/* --- taps --- */

/* Returns its index. */
static uint32_t tap_make(struct floor *bench)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "ft%lu", (unsigned long)bench->serial);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETOWNER, 1000UL) < 0 ||
        ioctl(fd, TUNSETGROUP, 1000UL) < 0 || ioctl(fd, TUNSETPERSIST, 1UL) < 0)
        die("tap");
    close(fd);
    struct ifinfomsg header = {.ifi_index = (int)if_nametoindex(request.ifr_name),
                               .ifi_flags = IFF_UP,
                               .ifi_change = IFF_UP};
    struct nlmsghdr *message = message_open(bench, RTM_SETLINK, NLM_F_ACK, &header, sizeof(header));

    mnl_attr_put_u32(message, IFLA_MTU, 1500);
    mnl_attr_put_u32(message, IFLA_MASTER, bench->bridge);
    message_close(bench, message);
    messages_send(bench, bench->route, "tap into the bridge");
    return (uint32_t)header.ifi_index;
}

/* --- nftables --- */

static void put_batch(struct floor *bench, uint16_t type)
{
    struct nfgenmsg header = {.res_id = htons(NFNL_SUBSYS_NFTABLES)};

    message_close(bench, message_open(bench, type, 0, &header, sizeof(header)));
}

static void put_value(struct nlmsghdr *message, uint16_t type, const void *value, size_t size)
{
    struct nlattr *nest = mnl_attr_nest_start(message, type);

    mnl_attr_put(message, NFTA_DATA_VALUE, size, value);
    mnl_attr_nest_end(message, nest);
}

static void put_element(struct floor *bench, const char *set, const uint32_t key[2],
                        const uint32_t data[2], uint16_t flags)
{
    struct nfgenmsg header = {.nfgen_family = NFPROTO_INET};
    struct nlmsghdr *message = message_open(bench, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM,
                                            NLM_F_CREATE | flags, &header, sizeof(header));

    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, "floor");
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set);
    struct nlattr *list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    struct nlattr *element = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
    put_value(message, NFTA_SET_ELEM_KEY, key, 8);
    if (data)
        put_value(message, NFTA_SET_ELEM_DATA, data, 8);
    mnl_attr_nest_end(message, element);
    mnl_attr_nest_end(message, list);
    message_close(bench, message);
}

static void rules_add(struct floor *bench, uint32_t address)
{
    const uint32_t guest[2] = {7, address};
    const uint32_t port[2] = {htonl(IPPROTO_TCP << 24),
                              htonl((uint32_t)(1024 + bench->serial % 60000) << 16)};
    const uint32_t target[2] = {address, htonl(80u << 16)};

    put_batch(bench, NFNL_MSG_BATCH_BEGIN);
    put_element(bench, "guest", guest, NULL, 0);
    put_element(bench, "port", port, target, NLM_F_ACK);
    put_batch(bench, NFNL_MSG_BATCH_END);
    messages_send(bench, bench->nft, "nftables");
}

/* --- SQLite --- */

static void sql(struct floor *bench, const char *text)
{
    if (sqlite3_exec(bench->db, text, NULL, NULL, NULL) != SQLITE_OK)
        die("%s: %s", text, sqlite3_errmsg(bench->db));
}

static void database_open(struct floor *bench, const char *path)
{
    if (sqlite3_open(path, &bench->db) != SQLITE_OK)
        die("%s", path);
    sql(bench, "PRAGMA journal_mode = WAL");
    sql(bench, "PRAGMA synchronous = FULL");
    sql(bench, "PRAGMA wal_autocheckpoint = 16384");
    sql(bench, "CREATE TABLE guest (id INTEGER PRIMARY KEY, name TEXT, address BLOB)");
    if (sqlite3_prepare_v2(bench->db, "INSERT INTO guest (name, address) VALUES (?, ?)", -1,
                           &bench->insert, NULL) != SQLITE_OK)
        die("prepare");
}

static void row_add(struct floor *bench, uint32_t address)
{
    char name[32];

    snprintf(name, sizeof(name), "guest-%u", bench->count);
    sqlite3_bind_text(bench->insert, 1, name, -1, SQLITE_TRANSIENT);
    sqlite3_bind_blob(bench->insert, 2, &address, sizeof(address), SQLITE_TRANSIENT);
    if (sqlite3_step(bench->insert) != SQLITE_DONE)
        die("insert: %s", sqlite3_errmsg(bench->db));
    sqlite3_reset(bench->insert);
}

/* --- commands --- */

static void attach_one(struct floor *bench)
{
    uint32_t address = htonl(ntohl(bench->gateway) + 1 + (uint32_t)(bench->serial % 60000));
    int netns_fd = bench->guests[bench->count];
    uint32_t index = INDEX_BASE + (uint32_t)bench->serial;
    uint64_t times[PARTS + 1];

    times[0] = now_ns();
    link_make(bench, index, netns_fd);
    times[1] = now_ns();
    guest_set_up(bench, netns_fd, address);
    times[2] = now_ns();
    rules_add(bench, address);
    times[3] = now_ns();
    row_add(bench, address);
    times[4] = now_ns();
    printf("%lu ", (unsigned long)(times[PARTS] - times[0]));
    for (unsigned i = 0; i < PARTS; i++)
        printf("%lu ", (unsigned long)(times[i + 1] - times[i]));
    bench->indexes[bench->count++] = index;
    bench->serial++;
}

static void tap_one(struct floor *bench)
{
    uint32_t address = htonl(ntohl(bench->gateway) + 1 + (uint32_t)(bench->serial % 60000));
    uint64_t times[TAP_PARTS + 1];

    times[0] = now_ns();
    bench->indexes[bench->count++] = tap_make(bench);
    times[1] = now_ns();
    rules_add(bench, address);
    times[2] = now_ns();
    row_add(bench, address);
    times[3] = now_ns();
    printf("%lu ", (unsigned long)(times[TAP_PARTS] - times[0]));
    for (unsigned i = 0; i < TAP_PARTS; i++)
        printf("%lu ", (unsigned long)(times[i + 1] - times[i]));
    bench->serial++;
}

/* Namespaces are there for guests only: those of taps' places stay unused until a guest's turn. */
static void tap(struct floor *bench, unsigned count)
{
    if (bench->count + count > GUESTS_MAX)
        die("too many guests");
    for (unsigned i = 0; i < count; i++)
        tap_one(bench);
    printf("\n");
}

static void attach(struct floor *bench, unsigned count)
{
    if (bench->count + count > GUESTS_MAX)
        die("too many guests");
    while (bench->n_guests < bench->count + count)
        bench->guests[bench->n_guests++] = netns_make(bench->home_fd);
    for (unsigned i = 0; i < count; i++)
        attach_one(bench);
    printf("\n");
}

static void detach(struct floor *bench, unsigned count)
{
    if (count > bench->count)
        die("too few guests");
    for (unsigned i = 0; i < count; i++) {
        uint64_t start = now_ns();

        link_retire(bench, bench->indexes[--bench->count]);
        printf("%lu ", (unsigned long)(now_ns() - start));
    }
    links_delete(bench);
    printf("\n");
}

int main(int argc, char **argv)
{
    static struct floor bench;
    char line[64];
    unsigned count;

    if (argc != 4 || inet_pton(AF_INET, argv[3], &bench.gateway) != 1)
        die("usage: bench_floor DATABASE BRIDGE GATEWAY");
    bench.home_fd = netns_home();
    bench.bridge = if_nametoindex(argv[2]);
    if (bench.bridge == 0)
        die("%s", argv[2]);
    bench.route = socket_open(NETLINK_ROUTE);
    bench.nft = socket_open(NETLINK_NETFILTER);
    database_open(&bench, argv[1]);
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "attach %u", &count) == 1)
            attach(&bench, count);
        else if (sscanf(line, "tap %u", &count) == 1)
            tap(&bench, count);
        else if (sscanf(line, "detach %u", &count) == 1)
            detach(&bench, count);
        fflush(stdout);
    }
    return 0;
}
