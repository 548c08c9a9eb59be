/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/link in real network namespaces: one that plays the host, and one for each guest, all made
 * here and gone with this program. Needs root. Packets are sent through sockets that were opened
 * inside the namespaces. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/veth.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "link/handle.h"
#include "link/link.h"

#define GROUP LINK_GROUP_OF(7)
#define PORT 7777
#define REACH_TIMEOUT_MS 3000

static int host_netns = -1;
static struct link *host;
static struct loop *loop;
static struct error error;

/* ------------------------------------------------------------------------------- helpers */
static void enter(int netns_fd)
{
    assert_return_code(setns(netns_fd, CLONE_NEWNET), errno);
}

static int netns_new(void)
{
    assert_return_code(unshare(CLONE_NEWNET), errno);
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_return_code(fd, errno);
    enter(host_netns);
    return fd;
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static struct ip ip(const char *text)
{
    struct ip ip = {0};

    assert_int_equal(ip_parse(text, &ip), 0);
    return ip;
}

static struct cidr cidr(const char *text)
{
    struct cidr cidr = {0};

    assert_int_equal(cidr_parse(text, &cidr), 0);
    return cidr;
}

static struct mac mac(unsigned last)
{
    return (struct mac){.bytes = {0x02, 0x42, 0, 0, (uint8_t)(last >> 8), (uint8_t)last}};
}

#define assert_ok(expression)                            \
    do {                                                 \
        error = ERROR_INIT;                              \
        if ((expression) < 0)                            \
            fail_msg("%s: %s", #expression, error.text); \
    } while (0)

#define assert_reason(expression, wanted)                                    \
    do {                                                                     \
        error = ERROR_INIT;                                                  \
        assert_true((expression) < 0);                                       \
        assert_string_equal(reason_name(error.reason), reason_name(wanted)); \
    } while (0)

static struct link_bridge bridge_new(void)
{
    return (struct link_bridge){.name = "moat0",
                                .alias = "moat:0123456789ab",
                                .group = GROUP,
                                .mac = mac(0xffff),
                                .mtu = 1500,
                                .address = cidr("10.88.0.1/16")};
}

/* The guest 10.88.0.<last>. */
static struct link_endpoint endpoint_new(unsigned last, bool routed, int netns_fd)
{
    struct link_endpoint endpoint = {.alias = "moat:ba9876543210",
                                     .group = GROUP,
                                     .bridge = "moat0",
                                     .routed = routed,
                                     .bridge_mac = mac(0xffff),
                                     .bridge_ip = ip("10.88.0.1"),
                                     .mtu = 1500,
                                     .mac = mac(last),
                                     .netns_fd = netns_fd,
                                     .peer_name = "eth0",
                                     .prefix = 16,
                                     .gateway = ip("10.88.0.1"),
                                     .owner = -1,
                                     .tap_group = -1};

    snprintf(endpoint.host_name, sizeof(endpoint.host_name), "mv%u", last);
    endpoint.ip = ip_from_v4(0x0a580000u + last);
    return endpoint;
}

/* Somebody else's request in the namespace the thread is in. */
static int foreign_run(struct request *request)
{
    struct netlink netlink;
    struct netlink_failure failure;

    assert_ok(netlink_open(&netlink, &error));
    int r = netlink_send(&netlink, request, &failure);
    netlink_close(&netlink);
    return r;
}

static void foreign_veth(const char *name, const char *peer_name, uint32_t mtu)
{
    struct request request;

    request_init(&request);
    struct nlmsghdr *message =
        request_link(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, "create");
    message_set_up(message, true);
    mnl_attr_put_strz(message, IFLA_IFNAME, name);
    mnl_attr_put_u32(message, IFLA_MTU, mtu);
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    mnl_attr_put_str(message, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
    struct nlattr *peer = mnl_attr_nest_start(message, VETH_INFO_PEER);
    mnl_nlmsg_put_extra_header(message, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(message, IFLA_IFNAME, peer_name);
    mnl_attr_nest_end(message, peer);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, info);
    assert_int_equal(foreign_run(&request), 0);
    request_init(&request);
    request_up(&request, if_nametoindex(peer_name), true, "bring up");
    assert_int_equal(foreign_run(&request), 0);
}

static void foreign_delete(const char *name)
{
    struct request request;

    request_init(&request);
    request_link(&request, RTM_DELLINK, 0, if_nametoindex(name), "delete");
    assert_int_equal(foreign_run(&request), 0);
}

static int udp_socket(int netns_fd, uint8_t family, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(&(struct ip){.family = family}, port, &address);

    enter(netns_fd);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    enter(host_netns);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    return fd;
}

static struct ip ip_from_sockaddr(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ip_from_bytes(AF_INET, &((const struct sockaddr_in *)address)->sin_addr);
    return ip_from_bytes(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr);
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, timeout_ms) == 1 && wait.revents & POLLIN;
}

/* A datagram there and back. Returns the source as the server saw it; absent when it did not come.
 */
static struct ip exchange(int from_netns, int to_netns, const struct ip *to)
{
    struct sockaddr_storage target, source;
    socklen_t target_length = ip_to_sockaddr(to, PORT, &target), length = sizeof(source);
    _cleanup_close_ int server = udp_socket(to_netns, to->family, PORT);
    _cleanup_close_ int client = udp_socket(from_netns, to->family, 0);
    uint64_t deadline = now_us() + REACH_TIMEOUT_MS * 1000;
    char text[8];

    /* Sent again until it arrives: a port forwards a moment after its peer is up. */
    do
        (void)sendto(client, "ping", 4, 0, (struct sockaddr *)&target, target_length);
    while (!readable(server, 20) && now_us() < deadline);
    if (recvfrom(server, text, sizeof(text), MSG_DONTWAIT, (struct sockaddr *)&source, &length) < 0)
        return (struct ip){0};
    if (sendto(server, "pong", 4, 0, (struct sockaddr *)&source, length) < 0 ||
        !readable(client, REACH_TIMEOUT_MS))
        return (struct ip){0};
    return ip_from_sockaddr(&source);
}

static void assert_reaches(int from_netns, const char *from, int to_netns, const char *to)
{
    struct ip target = ip(to);
    struct ip source = exchange(from_netns, to_netns, &target);
    char text[IP_TEXT_MAX];

    if (!ip_is_set(&source))
        fail_msg("%s does not reach %s", from, to);
    assert_string_equal(ip_format(&source, text), from);
}

static size_t count_entries(const char *directory)
{
    DIR *stream = opendir(directory);
    size_t count = 0;

    assert_non_null(stream);
    while (readdir(stream))
        count++;
    closedir(stream);
    return count;
}

/* Number of objects that a dump in the host's namespace gives; of neighbours those that stay. */
static int count_take(const struct nlmsghdr *message, void *userdata)
{
    size_t *count = userdata;

    if (!message)
        *count = 0;
    else if (message->nlmsg_type != RTM_NEWNEIGH)
        ++*count;
    else {
        const struct ndmsg *header = mnl_nlmsg_get_payload(message);

        *count += header->ndm_flags & NTF_PROXY || header->ndm_state & NUD_PERMANENT;
    }
    return 0;
}

static size_t count_dump(uint16_t type, uint8_t family, uint8_t neighbour_flags)
{
    struct netlink netlink;
    struct request request;
    size_t count = 0;
    void *extra;
    static const size_t sizes[] = {
        [RTM_GETLINK - RTM_BASE] = sizeof(struct ifinfomsg),
        [RTM_GETADDR - RTM_BASE] = sizeof(struct ifaddrmsg),
        [RTM_GETROUTE - RTM_BASE] = sizeof(struct rtmsg),
        [RTM_GETNEIGH - RTM_BASE] = sizeof(struct ndmsg),
    };

    assert_ok(netlink_open(&netlink, &error));
    request_init(&request);
    request_add(&request, type, 0, sizes[type - RTM_BASE], &extra, "count");
    *(uint8_t *)extra = family;
    if (type == RTM_GETNEIGH)
        ((struct ndmsg *)extra)->ndm_flags = neighbour_flags;
    assert_int_equal(netlink_dump(&netlink, &request, count_take, &count), 0);
    netlink_close(&netlink);
    return count;
}

/* Everything that link/ may leave behind on the host. */
struct inventory {
    size_t links, addresses, routes, neighbours, proxies;
};

static struct inventory inventory_take(void)
{
    link_reaper_wait(host);
    return (struct inventory){.links = count_dump(RTM_GETLINK, AF_UNSPEC, 0),
                              .addresses = count_dump(RTM_GETADDR, AF_UNSPEC, 0),
                              .routes = count_dump(RTM_GETROUTE, AF_INET, 0),
                              .neighbours = count_dump(RTM_GETNEIGH, AF_INET, 0),
                              .proxies = count_dump(RTM_GETNEIGH, AF_UNSPEC, NTF_PROXY)};
}

static void assert_inventory(const struct inventory *wanted)
{
    struct inventory now = inventory_take();

    assert_int_equal(now.links, wanted->links);
    assert_int_equal(now.addresses, wanted->addresses);
    assert_int_equal(now.routes, wanted->routes);
    assert_int_equal(now.neighbours, wanted->neighbours);
    assert_int_equal(now.proxies, wanted->proxies);
}

static bool set_br_netfilter(bool on)
{
    return sysctl_set("net.bridge.bridge-nf-call-iptables", on ? "1" : "0", &error) == 0;
}

/* ------------------------------------------------------------------------------- fixtures */
static int host_set_up(void **state)
{
    (void)state;
    assert_return_code(unshare(CLONE_NEWNET), errno);
    host_netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_return_code(host_netns, errno);
    assert_ok(sysctl_set("net.ipv4.ip_forward", "1", &error));
    assert_ok(sysctl_set("net.ipv6.conf.all.forwarding", "1", &error));
    assert_ok(link_loopback_set(host_netns, true, &error));
    assert_ok(link_open(&host, &error));
    assert_ok(loop_new(&loop, &error));
    return 0;
}

static int host_tear_down(void **state)
{
    (void)state;
    link_close(host);
    loop_free(loop);
    close(host_netns);
    return 0;
}

/* ------------------------------------------------------------------------------- bridges */
static void test_bridge_is_made_matched_and_removed(void **state)
{
    struct link_bridge bridge = bridge_new();
    struct inventory before = inventory_take();
    char value[SYSCTL_VALUE_MAX];
    struct link_info *links;
    size_t count;

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_list(host, &links, &count, &error));
    assert_int_equal(count, 1);
    assert_string_equal(links[0].name, "moat0");
    assert_string_equal(links[0].alias, bridge.alias);
    assert_string_equal(links[0].kind, "bridge");
    assert_int_equal(links[0].group, GROUP);
    assert_true(links[0].up);
    free(links);
    assert_ok(sysctl_get("net.ipv4.conf.moat0.route_localnet", value, &error));
    assert_string_equal(value, "1");
    assert_ok(sysctl_get("net.ipv4.conf.moat0.forwarding", value, &error));
    assert_string_equal(value, "1");
    assert_ok(sysctl_get("net.ipv4.conf.moat0.send_redirects", value, &error));
    assert_string_equal(value, "0");
    assert_ok(sysctl_get("net.ipv4.neigh.moat0.proxy_delay", value, &error));
    assert_string_equal(value, "0");
    assert_ok(sysctl_get("net.ipv6.conf.moat0.disable_ipv6", value, &error));
    assert_string_equal(value, "1");
    assert_ok(link_bridge_remove(host, "moat0", &error));
    assert_false(link_exists(host, "moat0")); /* at once */
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_bridge_remove(host, "moat0", &error));
    assert_ok(link_bridge_remove(host, "moat0", &error));
    assert_inventory(&before);
}

static void test_bridge_changes_are_applied(void **state)
{
    struct link_bridge bridge = bridge_new();
    struct link_state now;
    struct netlink netlink;
    bool local;

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    bridge.mtu = 9000;
    bridge.address = cidr("10.89.0.1/24");
    bridge.address6 = cidr("fd00:88::1/64");
    bridge.mac = mac(0xfffe);
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(netlink_open(&netlink, &error));
    assert_int_equal(link_get(&netlink, 0, "moat0", &now), 0);
    netlink_close(&netlink);
    assert_int_equal(now.mtu, 9000);
    assert_true(mac_equal(&now.mac, &bridge.mac));
    struct ip gone = ip("10.88.0.1"), here = ip("10.89.0.1"), here6 = ip("fd00:88::1"),
              loopback = ip("127.9.9.9"), far = ip("192.0.2.1");
    assert_ok(link_address_is_local(host, &gone, &local, &error));
    assert_false(local);
    assert_ok(link_address_is_local(host, &here, &local, &error));
    assert_true(local);
    do /* the kernel makes IPv6 addresses usable by a work queue */
        assert_ok(link_address_is_local(host, &here6, &local, &error));
    while (!local);
    assert_ok(link_address_is_local(host, &loopback, &local, &error));
    assert_true(local);
    assert_ok(link_address_is_local(host, &far, &local, &error));
    assert_false(local);
    bridge.address6 = (struct cidr){0};
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_address_is_local(host, &here6, &local, &error));
    assert_false(local);
    assert_ok(link_bridge_remove(host, "moat0", &error));
    link_reaper_wait(host);
}

static void test_foreign_links_are_not_touched(void **state)
{
    struct link_bridge bridge = bridge_new();
    _cleanup_close_ int guest = netns_new();
    struct link_endpoint endpoint = endpoint_new(2, false, guest);
    struct inventory before;

    (void)state;
    assert_ok(sysctl_set("net.ipv6.conf.default.addr_gen_mode", "1", &error));
    foreign_veth("moat0", "other", 1500);
    before = inventory_take();
    assert_reason(link_bridge_ensure(host, &bridge, &error), REASON_IN_USE);
    assert_ok(link_bridge_remove(host, "moat0", &error));
    assert_ok(link_remove_by_name(host, "moat0", &error));
    assert_true(link_exists(host, "moat0"));
    assert_inventory(&before);
    foreign_delete("moat0");

    assert_ok(link_bridge_ensure(host, &bridge, &error));
    foreign_veth("mv2", "other", 1500);
    before = inventory_take();
    assert_reason(link_veth_create(host, &endpoint, &error), REASON_IN_USE);
    assert_ok(link_endpoint_remove(host, &endpoint, &error));
    assert_true(link_exists(host, "mv2"));
    endpoint.netns_fd = -1;
    assert_reason(link_tap_create(host, &endpoint, NULL, &error), REASON_IN_USE);
    assert_inventory(&before);
    foreign_delete("mv2");
    assert_ok(link_bridge_remove(host, "moat0", &error));
}

/* ------------------------------------------------------------------------------- reach */
struct guests {
    int netns[4];
    struct link_endpoint endpoints[4];
};

/* .2 and .3 are bridged, .4 and .5 routed. */
static void guests_init(struct guests *guests)
{
    struct link_bridge bridge = bridge_new();

    assert_ok(link_bridge_ensure(host, &bridge, &error));
    for (unsigned i = 0; i < 4; i++) {
        guests->netns[i] = netns_new();
        guests->endpoints[i] = endpoint_new(i + 2, i >= 2, guests->netns[i]);
        assert_ok(link_veth_create(host, &guests->endpoints[i], &error));
    }
}

static void guests_deinit(struct guests *guests)
{
    for (unsigned i = 0; i < 4; i++) {
        assert_ok(link_endpoint_remove(host, &guests->endpoints[i], &error));
        close(guests->netns[i]);
    }
    assert_ok(link_bridge_remove(host, "moat0", &error));
    link_reaper_wait(host);
}

static void assert_all_reach(const struct guests *guests)
{
    static const char *const ips[] = {"10.88.0.2", "10.88.0.3", "10.88.0.4", "10.88.0.5"};

    for (unsigned from = 0; from < 4; from++) {
        assert_reaches(guests->netns[from], ips[from], host_netns, "10.88.0.1");
        assert_reaches(host_netns, "10.88.0.1", guests->netns[from], ips[from]);
        for (unsigned to = 0; to < 4; to++)
            if (to != from)
                assert_reaches(guests->netns[from], ips[from], guests->netns[to], ips[to]);
    }
}

static void test_everyone_reaches_everyone(void **state)
{
    struct inventory before = inventory_take();
    struct guests guests;

    (void)state;
    for (int on = 0; on < 2; on++) {
        if (!set_br_netfilter(on))
            continue;
        guests_init(&guests);
        assert_all_reach(&guests);
        guests_deinit(&guests);
    }
    assert_inventory(&before);
}

static void test_everyone_reaches_everyone_by_ipv6(void **state)
{
    static const char *const ips[] = {"fd00:88::2", "fd00:88::3", "fd00:88::4", "fd00:88::5"};
    struct link_bridge bridge = bridge_new();
    struct link_endpoint endpoints[4];
    int netns[4];
    struct inventory before = inventory_take();

    (void)state;
    bridge.address6 = cidr("fd00:88::1/64");
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    for (unsigned i = 0; i < 4; i++) {
        netns[i] = netns_new();
        endpoints[i] = endpoint_new(i + 2, i >= 2, netns[i]);
        endpoints[i].ip6 = ip(ips[i]);
        endpoints[i].prefix6 = 64;
        endpoints[i].gateway6 = ip("fd00:88::1");
        assert_ok(link_veth_create(host, &endpoints[i], &error));
    }
    for (unsigned from = 0; from < 4; from++) {
        assert_reaches(netns[from], ips[from], host_netns, "fd00:88::1");
        assert_reaches(host_netns, "fd00:88::1", netns[from], ips[from]);
        for (unsigned to = 0; to < 4; to++)
            if (to != from)
                assert_reaches(netns[from], ips[from], netns[to], ips[to]);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_ok(link_endpoint_remove(host, &endpoints[i], &error));
        close(netns[i]);
    }
    assert_ok(link_bridge_remove(host, "moat0", &error));
    assert_inventory(&before);
}

/* A host that answers ARP only on the link that has the address, as kube-proxy's strictARP sets. */
static void test_gateway_answers_with_arp_ignore(void **state)
{
    struct guests guests;

    (void)state;
    assert_ok(sysctl_set("net.ipv4.conf.all.arp_ignore", "1", &error));
    guests_init(&guests);
    assert_all_reach(&guests);
    guests_deinit(&guests);
    assert_ok(sysctl_set("net.ipv4.conf.all.arp_ignore", "0", &error));
}

static void test_ports_move_between_kinds(void **state)
{
    struct inventory before = inventory_take();
    struct guests guests;

    (void)state;
    guests_init(&guests);
    assert_all_reach(&guests);
    for (unsigned round = 0; round < 4; round++) {
        struct link_endpoint *endpoint = &guests.endpoints[round];

        endpoint->routed = !endpoint->routed;
        uint64_t start = now_us();
        assert_ok(link_endpoint_set_routed(host, endpoint, &error));
        assert_all_reach(&guests);
        if (now_us() - start > 1000000)
            fail_msg("it took %u ms until all guests were reached again",
                     (unsigned)((now_us() - start) / 1000));
    }
    guests_deinit(&guests);
    assert_inventory(&before);
}

/* A second address that the guest gives itself must not get anywhere from a routed port. */
static void test_routed_port_drops_made_up_sources(void **state)
{
    struct guests guests;
    struct request request;
    struct cidr made_up = cidr("10.88.0.77/16");
    struct ip target = ip("10.88.0.2");
    struct sockaddr_storage source, to;

    (void)state;
    guests_init(&guests);
    enter(guests.netns[2]);
    request_init(&request);
    request_address_add(&request, if_nametoindex("eth0"), &made_up, 0);
    assert_int_equal(foreign_run(&request), 0);
    int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    enter(host_netns);
    int server = udp_socket(guests.netns[0], AF_INET, PORT);
    socklen_t length = ip_to_sockaddr(&made_up.ip, 0, &source);
    assert_return_code(bind(client, (struct sockaddr *)&source, length), errno);
    length = ip_to_sockaddr(&target, PORT, &to);
    assert_int_equal(sendto(client, "evil", 4, 0, (struct sockaddr *)&to, length), 4);
    assert_false(readable(server, 100));
    close(client);
    close(server);
    assert_reaches(guests.netns[2], "10.88.0.4", guests.netns[0], "10.88.0.2");
    guests_deinit(&guests);
}

/* ------------------------------------------------------------------------------- veth */
static void test_guest_side_is_complete(void **state)
{
    struct link_bridge bridge = bridge_new();
    _cleanup_close_ int guest = netns_new();
    struct link_endpoint endpoint = endpoint_new(2, false, guest);
    struct link_prefix *prefixes;
    struct link *inside;
    size_t count, eth0 = 0;
    uint32_t mtu;

    (void)state;
    endpoint.mtu = bridge.mtu = 1400;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_veth_create(host, &endpoint, &error));
    enter(guest);
    assert_ok(link_open(&inside, &error));
    assert_ok(link_default_mtu(inside, &mtu, &error));
    assert_int_equal(mtu, 1400);
    assert_ok(link_prefix_list(inside, &prefixes, &count, &error));
    for (size_t i = 0; i < count; i++)
        if (strcmp(prefixes[i].interface, "eth0") == 0) {
            char text[CIDR_TEXT_MAX];

            cidr_format(&prefixes[i].cidr, text);
            assert_true(strcmp(text, "10.88.0.2/16") == 0 || strcmp(text, "10.88.0.0/16") == 0 ||
                        strcmp(text, "ff00::/8") == 0);
            eth0++;
        }
    assert_true(eth0 >= 2);
    free(prefixes);
    assert_int_equal(if_nametoindex("eth0"), 2);
    link_close(inside);
    enter(host_netns);
    assert_ok(link_set_route_localnet(guest, "eth0", true, &error));
    enter(guest);
    char value[SYSCTL_VALUE_MAX];
    assert_ok(sysctl_get("net.ipv4.conf.eth0.route_localnet", value, &error));
    enter(host_netns);
    assert_string_equal(value, "1");
    assert_ok(link_endpoint_remove(host, &endpoint, &error));
    assert_ok(link_bridge_remove(host, "moat0", &error));
}

/* A namespace that has links of its own, so that the indexes we would choose are not free. */
static void test_indexes_that_are_taken(void **state)
{
    struct link_bridge bridge = bridge_new();
    _cleanup_close_ int guest = netns_new();
    struct link_endpoint endpoint = endpoint_new(2, false, guest);

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    enter(guest);
    foreign_veth("up0", "up1", 1500); /* 2 and 3 */
    enter(host_netns);
    uint32_t next = host->shared->next_index; /* and the host's next one */
    assert_ok(link_veth_create(host, &endpoint, &error));
    assert_reaches(guest, "10.88.0.2", host_netns, "10.88.0.1");
    assert_ok(link_endpoint_remove(host, &endpoint, &error));
    link_reaper_wait(host);
    assert_ok(link_veth_create(host, &endpoint, &error));
    uint32_t taken = if_nametoindex("mv2");
    assert_true(taken > next);
    struct link_endpoint second = endpoint_new(3, true, guest);
    memcpy(second.peer_name, "eth1", 5);
    second.gateway = (struct ip){0};
    host->shared->next_index = taken;
    assert_ok(link_veth_create(host, &second, &error));
    assert_true(if_nametoindex("mv3") > taken);
    assert_ok(link_endpoint_remove(host, &endpoint, &error));
    assert_ok(link_endpoint_remove(host, &second, &error));
    assert_ok(link_bridge_remove(host, "moat0", &error));
}

static void test_the_default_route_moves(void **state)
{
    struct link_bridge bridge = bridge_new();
    _cleanup_close_ int guest = netns_new();
    struct link_endpoint first = endpoint_new(2, false, guest),
                         second = endpoint_new(3, true, guest);
    struct link *inside;
    struct ip none = {0};
    uint32_t mtu;

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_veth_create(host, &first, &error));
    memcpy(second.peer_name, "eth1", 5);
    second.gateway = none;
    second.mtu = 1300;
    assert_ok(link_veth_create(host, &second, &error));
    enter(guest);
    assert_ok(link_open(&inside, &error));
    enter(host_netns);
    assert_ok(link_default_mtu(inside, &mtu, &error));
    assert_int_equal(mtu, 1500);
    assert_ok(link_default_route_set(guest, "eth1", &bridge.address.ip, &none, &error));
    assert_ok(link_default_mtu(inside, &mtu, &error));
    assert_int_equal(mtu, 1300);
    assert_ok(link_endpoint_remove(host, &first, &error));
    assert_ok(link_default_mtu(inside, &mtu, &error));
    assert_int_equal(mtu, 1300);
    assert_true(link_default_route_set(guest, "eth7", &bridge.address.ip, &none, &error) < 0);
    link_close(inside);
    assert_ok(link_endpoint_remove(host, &second, &error));
    assert_ok(link_bridge_remove(host, "moat0", &error));
}

static void test_names_that_are_taken(void **state)
{
    struct link_bridge bridge = bridge_new();
    _cleanup_close_ int guest = netns_new(), other = netns_new();
    struct link_endpoint first = endpoint_new(2, false, guest),
                         second = endpoint_new(3, true, guest);
    struct inventory before;

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_veth_create(host, &first, &error));
    before = inventory_take();
    assert_reason(link_veth_create(host, &second, &error), REASON_EXISTS); /* eth0 */
    second = first;
    second.netns_fd = other;
    assert_reason(link_veth_create(host, &second, &error), REASON_EXISTS); /* mv2 */
    second.netns_fd = host_netns;
    error = ERROR_INIT;
    assert_true(link_veth_create(host, &second, &error) < 0);
    assert_int_equal(error.kind, ERROR_FIELD);
    assert_inventory(&before);
    /* The same names again, while the reaper is still at it. */
    for (unsigned i = 0; i < 5; i++) {
        assert_ok(link_endpoint_remove(host, &first, &error));
        first.routed = !first.routed;
        assert_ok(link_veth_create(host, &first, &error));
        assert_reaches(guest, "10.88.0.2", host_netns, "10.88.0.1");
    }
    assert_ok(link_endpoint_remove(host, &first, &error));
    assert_ok(link_endpoint_remove(host, &first, &error));
    assert_ok(link_bridge_remove(host, "moat0", &error));
}

/* All in one guest: the number of namespaces does not matter here. */
static void test_a_full_bridge_is_told(void **state)
{
    enum { PORTS = 1023 };
    struct link_bridge bridge = bridge_new();
    struct inventory before = inventory_take(), full;
    _cleanup_close_ int guest = netns_new();
    struct link_endpoint endpoint;

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    for (unsigned i = 0; i <= PORTS; i++) {
        endpoint = endpoint_new(i + 2, false, guest);
        snprintf(endpoint.peer_name, sizeof(endpoint.peer_name), "eth%u", i);
        endpoint.gateway = (struct ip){0};
        if (i < PORTS)
            assert_ok(link_veth_create(host, &endpoint, &error));
    }
    full = inventory_take();
    assert_reason(link_veth_create(host, &endpoint, &error), REASON_QUOTA);
    assert_inventory(&full);
    /* A port that was just given up counts until it is reaped, which is waited for. */
    struct link_endpoint first = endpoint_new(2, false, guest);
    assert_ok(link_endpoint_remove(host, &first, &error));
    assert_ok(link_veth_create(host, &endpoint, &error));
    for (unsigned i = 1; i <= PORTS; i++) {
        endpoint = endpoint_new(i + 2, false, guest);
        uint64_t start = now_us();
        assert_ok(link_endpoint_remove(host, &endpoint, &error));
        assert_true(now_us() - start < 1000000);
    }
    assert_ok(link_bridge_remove(host, "moat0", &error));
    assert_inventory(&before);
}

static void test_ensure_repairs_the_host_side(void **state)
{
    struct guests guests;
    struct request request;
    bool found;

    (void)state;
    guests_init(&guests);
    /* Somebody takes a port out of the bridge and down, and another one's route. */
    request_init(&request);
    request_up(&request, if_nametoindex("mv2"), false, "down");
    mnl_attr_put_u32(request_link(&request, RTM_SETLINK, 0, if_nametoindex("mv3"), "release"),
                     IFLA_MASTER, 0);
    request_up(&request, if_nametoindex("mv4"), false, "down");
    request_up(&request, if_nametoindex("mv5"), false, "down");
    request_up(&request, if_nametoindex("moat0"), false, "down");
    assert_int_equal(foreign_run(&request), 0);
    struct link_bridge bridge = bridge_new();
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    for (unsigned i = 0; i < 4; i++) {
        assert_ok(link_endpoint_ensure(host, &guests.endpoints[i], &found, &error));
        assert_true(found);
    }
    assert_all_reach(&guests);
    struct link_endpoint missing = endpoint_new(9, false, -1);
    assert_ok(link_endpoint_ensure(host, &missing, &found, &error));
    assert_false(found);
    guests_deinit(&guests);
}

static void test_changed_settings_are_found(void **state)
{
    struct guests guests;
    struct request request;
    char wrong[256] = "";
    bool found;

    (void)state;
    guests_init(&guests);
    const struct link_endpoint *routed = &guests.endpoints[0];
    while (!routed->routed)
        routed++;
    struct link_bridge bridge = bridge_new();
    if (!link_settings_check(host, wrong, sizeof(wrong)))
        fail_msg("%s", wrong);
    assert_ok(sysctl_set("net.ipv4.conf.moat0.route_localnet", "0", &error));
    assert_false(link_settings_check(host, wrong, sizeof(wrong)));
    assert_string_equal(wrong, "net.ipv4.conf.moat0.route_localnet is 0");
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_true(link_settings_check(host, wrong, sizeof(wrong)));
    request_init(&request);
    request_proxy_remove(&request, if_nametoindex("moat0"), &routed->ip);
    assert_int_equal(foreign_run(&request), 0);
    assert_false(link_settings_check(host, wrong, sizeof(wrong)));
    assert_non_null(strstr(wrong, routed->host_name));
    assert_ok(link_endpoint_ensure(host, routed, &found, &error));
    assert_true(link_settings_check(host, wrong, sizeof(wrong)));
    guests_deinit(&guests);
}

/* ------------------------------------------------------------------------------- tap */
/* Asks by ARP who has the gateway, as the VM behind the tap would. */
static bool tap_resolves_gateway(int fd, const struct link_endpoint *endpoint)
{
    struct {
        struct ether_header ethernet;
        struct ether_arp arp;
    } __attribute__((packed)) frame = {.ethernet.ether_type = htons(ETHERTYPE_ARP),
                                       .arp.ea_hdr = {.ar_hrd = htons(1),
                                                      .ar_pro = htons(ETHERTYPE_IP),
                                                      .ar_hln = 6,
                                                      .ar_pln = 4,
                                                      .ar_op = htons(ARPOP_REQUEST)}};
    uint64_t deadline = now_us() + REACH_TIMEOUT_MS * 1000;

    memset(frame.ethernet.ether_dhost, 0xff, 6);
    memcpy(frame.ethernet.ether_shost, endpoint->mac.bytes, 6);
    memcpy(frame.arp.arp_sha, endpoint->mac.bytes, 6);
    memcpy(frame.arp.arp_spa, endpoint->ip.bytes, 4);
    memcpy(frame.arp.arp_tpa, endpoint->bridge_ip.bytes, 4);
    while (now_us() < deadline) {
        assert_int_equal(write(fd, &frame, sizeof(frame)), sizeof(frame));
        while (readable(fd, 20)) {
            char answer[2048];
            ssize_t length = read(fd, answer, sizeof(answer));

            if (length >= (ssize_t)sizeof(frame) && memcmp(answer + 12, "\x08\x06", 2) == 0 &&
                memcmp(answer + 6, endpoint->bridge_mac.bytes, 6) == 0)
                return true;
        }
    }
    return false;
}

static void test_tap_is_made_and_removed(void **state)
{
    struct link_bridge bridge = bridge_new();
    struct inventory before = inventory_take();
    struct link_endpoint endpoint = endpoint_new(2, false, -1);
    struct link_info *links;
    size_t count;

    (void)state;
    memcpy(endpoint.host_name, "tap0", 5);
    endpoint.owner = 1000;
    endpoint.tap_group = 1000;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    for (unsigned i = 0; i < 4; i++) {
        _cleanup_close_ int fd = -1;

        endpoint.routed = i & 1;
        assert_ok(link_tap_create(host, &endpoint, &fd, &error));
        assert_true(tap_resolves_gateway(fd, &endpoint));
        assert_reason(link_tap_create(host, &endpoint, NULL, &error), REASON_EXISTS);
        assert_ok(link_endpoint_remove(host, &endpoint, &error)); /* although it is open */
    }
    endpoint.multi_queue = endpoint.vnet_hdr = true;
    assert_ok(link_tap_create(host, &endpoint, NULL, &error));
    assert_ok(link_list(host, &links, &count, &error));
    assert_int_equal(count, 2);
    assert_string_equal(links[1].kind, "tun");
    assert_int_equal(links[1].group, GROUP);
    assert_string_equal(links[1].alias, endpoint.alias);
    free(links);
    assert_ok(link_remove_by_name(host, "tap0", &error));
    assert_ok(link_bridge_remove(host, "moat0", &error));
    assert_ok(link_endpoint_remove(host, &endpoint, &error)); /* the rest of it */
    assert_inventory(&before);
}

/* ------------------------------------------------------------------------------- failures */
#ifdef MOAT_FAULTS
/* Makes every pass of a step fail or crash: the step's counter goes on from test to test. */
static void set_every_pass(const char *variable, const char *step)
{
    static char list[128 * 1024];
    size_t used = 0;

    for (unsigned pass = 1; pass <= 5000; pass++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s:%u,", step, pass);
    assert_return_code(setenv(variable, list, 1), errno);
}

static void assert_fault_leaves_nothing(const char *step, bool routed, bool tap)
{
    struct inventory before = inventory_take();
    _cleanup_close_ int guest = netns_new();
    struct link_endpoint endpoint = endpoint_new(2, routed, tap ? -1 : guest);

    set_every_pass("MOAT_FAULT", step);
    error = ERROR_INIT;
    int r = tap ? link_tap_create(host, &endpoint, NULL, &error)
                : link_veth_create(host, &endpoint, &error);
    unsetenv("MOAT_FAULT");
    assert_int_equal(r, -EIO);
    assert_non_null(strstr(error.text, step));
    assert_inventory(&before);
}

static void test_faults_leave_nothing(void **state)
{
    struct link_bridge bridge = bridge_new();

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_fault_leaves_nothing("link.veth", false, false);
    assert_fault_leaves_nothing("link.guest", false, false);
    assert_fault_leaves_nothing("link.guest", true, false);
    assert_fault_leaves_nothing("link.route", true, false);
    assert_fault_leaves_nothing("link.tap", false, true);
    assert_fault_leaves_nothing("link.route", true, true);
    assert_ok(link_bridge_remove(host, "moat0", &error));
}

/* Runs make() in a child that ends at its step: its own handle, the same namespace. */
static void crash_at(const char *step, const struct link_endpoint *endpoint)
{
    pid_t child = fork();

    assert_return_code(child, errno);
    if (child == 0) {
        struct error ignored = ERROR_INIT;
        struct link *link;

        if (link_open(&link, &ignored) < 0)
            _exit(1);
        set_every_pass("MOAT_CRASH", step);
        link_veth_create(link, endpoint, &ignored);
        link_endpoint_remove(link, endpoint, &ignored);
        _exit(2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 86);
}

static void assert_crash_leaves_marked(const char *step, bool routed)
{
    struct inventory before = inventory_take();
    _cleanup_close_ int guest = netns_new();
    struct link_endpoint endpoint = endpoint_new(2, routed, guest);
    struct link_info *links;
    size_t count;

    crash_at(step, &endpoint);
    assert_ok(link_list(host, &links, &count, &error));
    for (size_t i = 0; i < count; i++)
        if (strcmp(links[i].name, "moat0") != 0)
            assert_ok(link_remove_by_name(host, links[i].name, &error));
    free(links);
    struct inventory now = inventory_take();
    assert_int_equal(now.links, before.links);
    assert_int_equal(now.routes, before.routes);
    /* What stands on the bridge is the store's to name: removing what it knows ends it. */
    assert_ok(link_endpoint_remove(host, &endpoint, &error));
    assert_inventory(&before);
}

static void test_crashes_leave_marked_links(void **state)
{
    struct link_bridge bridge = bridge_new();

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_crash_leaves_marked("link.veth", false);
    assert_crash_leaves_marked("link.guest", false);
    assert_crash_leaves_marked("link.guest", true);
    assert_crash_leaves_marked("link.route", true);
    assert_crash_leaves_marked("link.remove", true);
    assert_ok(link_bridge_remove(host, "moat0", &error));
}
#endif

/* A proxy whose route is gone would draw a bridged guest's packets to the host. */
static void test_ensure_sweeps_stale_proxies(void **state)
{
    struct guests guests;
    struct link_bridge bridge = bridge_new();
    struct request request;

    (void)state;
    guests_init(&guests);
    size_t used = count_dump(RTM_GETNEIGH, AF_UNSPEC, NTF_PROXY);
    struct ip stale = ip("10.88.0.99");
    request_init(&request);
    request_proxy_add(&request, if_nametoindex("moat0"), &stale);
    assert_int_equal(foreign_run(&request), 0);
    assert_int_equal(count_dump(RTM_GETNEIGH, AF_UNSPEC, NTF_PROXY), used + 1);
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_int_equal(count_dump(RTM_GETNEIGH, AF_UNSPEC, NTF_PROXY), used);
    guests_deinit(&guests);
}

/* ------------------------------------------------------------------------------- the host */
/* Of few foreign links each is asked for, of many all are read: the list is the same. */
static void test_prefixes_of_many_foreign_links(void **state)
{
    struct link_bridge bridge = bridge_new();
    struct link_prefix *prefixes;
    size_t count;

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    for (unsigned n = 0; n < 70; n++) {
        char name[IFNAMSIZ], peer[IFNAMSIZ], text[CIDR_TEXT_MAX];
        unsigned found = 0, ours = 0;
        struct request request;
        struct cidr address;

        snprintf(name, sizeof(name), "up%u", n);
        snprintf(peer, sizeof(peer), "down%u", n);
        snprintf(text, sizeof(text), "198.18.%u.1/24", n);
        address = cidr(text);
        foreign_veth(name, peer, 1500);
        request_init(&request);
        request_address_add(&request, if_nametoindex(name), &address, 0);
        assert_int_equal(foreign_run(&request), 0);
        if (n != 0 && n != 69)
            continue;
        assert_ok(link_prefix_list(host, &prefixes, &count, &error));
        for (size_t i = 0; i < count; i++) {
            unsigned third;

            if (prefixes[i].ours)
                ours += strcmp(prefixes[i].interface, "moat0") == 0;
            if (prefixes[i].ours || prefixes[i].kind != LINK_PREFIX_ADDRESS ||
                sscanf(cidr_format(&prefixes[i].cidr, text), "198.18.%u.1/24", &third) != 1)
                continue;
            snprintf(name, sizeof(name), "up%u", third);
            assert_string_equal(prefixes[i].interface, name);
            found++;
        }
        assert_int_equal(found, n + 1);
        assert_true(ours >= 1);
        free(prefixes);
    }
    for (unsigned n = 0; n < 70; n++) {
        char name[IFNAMSIZ];

        snprintf(name, sizeof(name), "up%u", n);
        foreign_delete(name);
    }
}

static void test_prefixes_of_the_host_are_listed(void **state)
{
    struct link_bridge bridge = bridge_new();
    struct request request;
    struct cidr address = cidr("192.0.2.5/24"), to = cidr("198.51.100.0/24");
    struct link_prefix *prefixes;
    size_t count;
    unsigned found = 0;
    uint32_t mtu;
    void *extra;

    (void)state;
    assert_ok(link_default_mtu(host, &mtu, &error));
    assert_int_equal(mtu, 1500);
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    foreign_veth("up0", "up1", 1420);
    request_init(&request);
    request_address_add(&request, if_nametoindex("up0"), &address, 0);
    struct route route = {
        .to = {.ip = {.family = AF_INET}}, .via = ip("192.0.2.1"), .index = if_nametoindex("up0")};
    request_route(&request, RTM_NEWROUTE, NLM_F_CREATE, &route, "add");
    struct nlmsghdr *message =
        request_add(&request, RTM_NEWROUTE, NLM_F_CREATE, sizeof(struct rtmsg), &extra, "add");
    *(struct rtmsg *)extra = (struct rtmsg){.rtm_family = AF_INET,
                                            .rtm_dst_len = 24,
                                            .rtm_table = 200,
                                            .rtm_protocol = RTPROT_STATIC,
                                            .rtm_type = RTN_BLACKHOLE};
    mnl_attr_put(message, RTA_DST, 4, to.ip.bytes);
    assert_int_equal(foreign_run(&request), 0);
    assert_ok(link_default_mtu(host, &mtu, &error));
    assert_int_equal(mtu, 1420);
    assert_ok(link_prefix_list(host, &prefixes, &count, &error));
    for (size_t i = 0; i < count; i++) {
        const struct link_prefix *prefix = &prefixes[i];
        char text[CIDR_TEXT_MAX];

        cidr_format(&prefix->cidr, text);
        if (strcmp(text, "10.88.0.1/16") == 0 && prefix->kind == LINK_PREFIX_ADDRESS)
            found |= prefix->ours && strcmp(prefix->interface, "moat0") == 0 ? 1u : 0;
        if (strcmp(text, "192.0.2.5/24") == 0 && prefix->kind == LINK_PREFIX_ADDRESS)
            found |= !prefix->ours && strcmp(prefix->interface, "up0") == 0 ? 2u : 0;
        if (strcmp(text, "198.51.100.0/24") == 0 && prefix->kind == LINK_PREFIX_ROUTE)
            found |= !prefix->ours && prefix->table == 200 && !prefix->interface[0] ? 4u : 0;
        if (strcmp(text, "192.0.2.0/24") == 0 && prefix->kind == LINK_PREFIX_ROUTE)
            found |= prefix->table == RT_TABLE_MAIN ? 8u : 0;
        assert_int_not_equal(prefix->cidr.prefix, 0);
    }
    assert_int_equal(found, 15);
    free(prefixes);
    /* The route's own MTU comes before the link's. */
    request_init(&request);
    message = request_add(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
                          sizeof(struct rtmsg), &extra, "add");
    *(struct rtmsg *)extra = (struct rtmsg){.rtm_family = AF_INET,
                                            .rtm_table = RT_TABLE_MAIN,
                                            .rtm_protocol = RTPROT_STATIC,
                                            .rtm_type = RTN_UNICAST};
    mnl_attr_put(message, RTA_GATEWAY, 4, ip("192.0.2.1").bytes);
    mnl_attr_put_u32(message, RTA_OIF, if_nametoindex("up0"));
    struct nlattr *metrics = mnl_attr_nest_start(message, RTA_METRICS);
    mnl_attr_put_u32(message, RTAX_MTU, 1300);
    mnl_attr_nest_end(message, metrics);
    assert_int_equal(foreign_run(&request), 0);
    assert_ok(link_default_mtu(host, &mtu, &error));
    assert_int_equal(mtu, 1300);
    char name[IFNAMSIZ];
    assert_ok(link_bridge_name(host, 0, name, &error));
    assert_string_equal(name, "moat1");
    foreign_delete("up0");
    assert_ok(link_bridge_remove(host, "moat0", &error));
    link_reaper_wait(host);
}

/* ------------------------------------------------------------------------------- watching */
struct heard {
    char gone[IFNAMSIZ];
    unsigned n_gone, n_drift, n_host;
};

static void heard_gone(void *userdata, const char *name, uint32_t index)
{
    struct heard *heard = userdata;

    (void)index;
    snprintf(heard->gone, sizeof(heard->gone), "%s", name);
    heard->n_gone++;
    loop_stop(loop);
}

static void heard_drift(void *userdata)
{
    ((struct heard *)userdata)->n_drift++;
    loop_stop(loop);
}

static void heard_host(void *userdata)
{
    ((struct heard *)userdata)->n_host++;
    loop_stop(loop);
}

static const struct link_watch_ops heard_ops = {
    .link_gone = heard_gone, .drift = heard_drift, .host_changed = heard_host};

static void timed_out(void *userdata)
{
    *(bool *)userdata = true;
    loop_stop(loop);
}

/* Runs the loop until a counter is above 0, or for timeout_ms. */
static void listen_until(const unsigned *counter, uint64_t timeout_ms)
{
    bool over = false;
    struct loop_timer *timer = loop_timer_new(loop, timed_out, &over);

    loop_timer_start(timer, timeout_ms);
    while (!over && !(counter && *counter > 0))
        loop_run(loop);
    loop_timer_free(timer);
}

#define assert_drift(heard)                   \
    do {                                      \
        listen_until(&(heard).n_drift, 2000); \
        assert_int_equal((heard).n_drift, 1); \
        assert_int_equal((heard).n_gone, 0);  \
        listen_until(NULL, 100);              \
        heard = (struct heard){0};            \
    } while (0)

static void test_own_changes_are_not_drift(void **state)
{
    struct heard heard = {0};
    struct guests guests;
    bool found;

    (void)state;
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    for (unsigned round = 0; round < 3; round++) {
        guests_init(&guests);
        for (unsigned i = 0; i < 4; i++) {
            guests.endpoints[i].routed = !guests.endpoints[i].routed;
            assert_ok(link_endpoint_set_routed(host, &guests.endpoints[i], &error));
            assert_ok(link_endpoint_ensure(host, &guests.endpoints[i], &found, &error));
        }
        listen_until(NULL, 50);
        guests_deinit(&guests);
        listen_until(NULL, 50);
    }
    listen_until(NULL, 200);
    assert_int_equal(heard.n_drift, 0);
    assert_int_equal(heard.n_gone, 0);
    assert_int_equal(heard.n_host, 0);
    link_watch_stop(host);
}

struct tap_maker {
    struct link *link; /* a handle of its own */
    struct error error;
    bool failed;
};

static void *short_lived_taps(void *userdata)
{
    struct link_endpoint endpoint = endpoint_new(2, false, -1);
    struct tap_maker *maker = userdata;

    memcpy(endpoint.host_name, "tap0", 5);
    for (unsigned i = 0; i < 20 && !maker->failed; i++) {
        _cleanup_close_ int fd = -1;

        endpoint.routed = i & 1;
        maker->failed = link_tap_create(maker->link, &endpoint, &fd, &maker->error) < 0 ||
                        link_endpoint_remove(maker->link, &endpoint, &maker->error) < 0;
        link_reaper_wait(maker->link);
    }
    return NULL;
}

/* A tap has no mark before it is there, and may be gone again before we look whose it was. */
static void test_own_short_lived_taps_are_no_news(void **state)
{
    struct link_bridge bridge = bridge_new();
    struct heard heard = {0};
    struct tap_maker maker = {.error = ERROR_INIT};
    pthread_t thread;

    (void)state;
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    assert_ok(link_open_beside(host, &maker.link, &error));
    listen_until(NULL, 100);
    assert_int_equal(pthread_create(&thread, NULL, short_lived_taps, &maker), 0);
    listen_until(&heard.n_host, 600);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (maker.failed)
        fail_msg("%s", maker.error.text);
    listen_until(&heard.n_host, 200);
    assert_int_equal(heard.n_host, 0);
    assert_int_equal(heard.n_drift, 0);
    assert_int_equal(heard.n_gone, 0);
    link_watch_stop(host);
    link_close(maker.link);
    assert_ok(link_bridge_remove(host, "moat0", &error));
}

static void test_changes_by_others_are_heard(void **state)
{
    struct heard heard = {0};
    struct guests guests;
    struct request request;
    struct link_bridge bridge = bridge_new();
    bool found;

    (void)state;
    guests_init(&guests);
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    listen_until(NULL, 100);
    assert_int_equal(heard.n_drift + heard.n_gone + heard.n_host, 0);

    request_init(&request); /* a lost address */
    request_address_remove(&request, if_nametoindex("moat0"), &bridge.address);
    assert_int_equal(foreign_run(&request), 0);
    assert_drift(heard);
    assert_ok(link_bridge_ensure(host, &bridge, &error));
    for (unsigned i = 2; i < 4; i++) /* their host routes had it as their source */
        assert_ok(link_endpoint_ensure(host, &guests.endpoints[i], &found, &error));
    listen_until(NULL, 100);
    assert_int_equal(heard.n_drift, 0);

    request_init(&request); /* a port taken out of its bridge */
    mnl_attr_put_u32(request_link(&request, RTM_SETLINK, 0, if_nametoindex("mv2"), "release"),
                     IFLA_MASTER, 0);
    assert_int_equal(foreign_run(&request), 0);
    assert_drift(heard);
    assert_ok(link_endpoint_ensure(host, &guests.endpoints[0], &found, &error));

    request_init(&request); /* a link down */
    request_up(&request, if_nametoindex("mv4"), false, "down");
    assert_int_equal(foreign_run(&request), 0);
    assert_drift(heard);
    assert_ok(link_endpoint_ensure(host, &guests.endpoints[2], &found, &error));

    struct cidr to = cidr("10.88.0.4/32"); /* a route */
    struct route route = {.to = to, .index = if_nametoindex("mv4")};
    request_init(&request);
    request_route(&request, RTM_DELROUTE, 0, &route, "remove");
    assert_int_equal(foreign_run(&request), 0);
    assert_drift(heard);
    assert_ok(link_endpoint_ensure(host, &guests.endpoints[2], &found, &error));

    assert_ok(sysctl_set("net.ipv4.conf.mv4.proxy_arp", "0", &error)); /* a setting */
    assert_drift(heard);
    assert_ok(link_endpoint_ensure(host, &guests.endpoints[2], &found, &error));

    assert_ok(sysctl_set("net.ipv4.ip_forward", "0", &error));
    assert_drift(heard);
    assert_ok(sysctl_set("net.ipv4.ip_forward", "1", &error));
    listen_until(NULL, 200);
    assert_int_equal(heard.n_drift, 0);
    assert_int_equal(heard.n_host, 0);

    foreign_veth("up0", "up1", 1500); /* the host's own */
    listen_until(&heard.n_host, 2000);
    assert_int_equal(heard.n_host, 1);
    foreign_delete("up0");
    listen_until(NULL, 200);
    assert_int_equal(heard.n_drift, 0);
    assert_int_equal(heard.n_gone, 0);
    link_watch_stop(host);
    guests_deinit(&guests);
}

static void test_links_that_go_are_heard(void **state)
{
    struct heard heard = {0};
    struct guests guests;

    (void)state;
    guests_init(&guests);
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    listen_until(NULL, 100);
    close(guests.netns[1]); /* the namespace and its link with it */
    listen_until(&heard.n_gone, 5000);
    assert_int_equal(heard.n_gone, 1);
    assert_string_equal(heard.gone, "mv3");
    listen_until(NULL, 100);
    assert_int_equal(heard.n_drift, 0);
    heard = (struct heard){0};
    foreign_delete("moat0");
    listen_until(&heard.n_gone, 5000);
    assert_int_equal(heard.n_gone, 1);
    assert_string_equal(heard.gone, "moat0");
    link_watch_stop(host);
    guests.netns[1] = netns_new();
    guests_deinit(&guests);
}

/* What went while nobody watched is told when watching begins. */
static void test_links_that_went_before_are_heard(void **state)
{
    struct heard heard = {0};
    struct guests guests;

    (void)state;
    guests_init(&guests);
    foreign_delete("mv5");
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    listen_until(&heard.n_gone, 5000);
    assert_int_equal(heard.n_gone, 1);
    assert_string_equal(heard.gone, "mv5");
    link_watch_stop(host);
    guests_deinit(&guests);
}

/* More changes than the socket holds: what was missed is found all the same. */
static void test_an_overflow_is_survived(void **state)
{
    struct heard heard = {0};
    struct guests guests;

    (void)state;
    guests_init(&guests);
    foreign_veth("up0", "up1", 1500);
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    listen_until(NULL, 100);
    heard = (struct heard){0};
    uint32_t index = if_nametoindex("up0");
    for (unsigned i = 0; i < 2000; i++) {
        struct request request;

        request_init(&request);
        for (unsigned step = 0; step < 10; step++)
            mnl_attr_put_u32(request_link(&request, RTM_SETLINK, 0, index, "change"), IFLA_MTU,
                             1400 + (i + step) % 2);
        assert_int_equal(foreign_run(&request), 0);
    }
    foreign_delete("mv5");
    listen_until(&heard.n_gone, 5000);
    assert_int_equal(heard.n_gone, 1);
    assert_string_equal(heard.gone, "mv5");
    listen_until(&heard.n_host, 5000);
    assert_true(heard.n_drift >= 1);
    assert_true(heard.n_host >= 1);
    link_watch_stop(host);
    guests_deinit(&guests);
}

/* ------------------------------------------------------------------------------- namespaces */
static void test_namespaces_are_opened_and_checked(void **state)
{
    _cleanup_close_ int guest = netns_new();
    _cleanup_close_ int by_pid = -1, by_path = -1, file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    uint64_t dev, ino, dev2, ino2, start, start2;
    char path[64];
    uint32_t uid;

    (void)state;
    assert_ok(netns_check(guest, &error));
    assert_true(netns_check(file, &error) < 0);
    assert_int_equal(error.kind, ERROR_FIELD);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", guest);
    assert_ok(netns_open_path(path, &by_path, &error));
    assert_ok(netns_identify(guest, &dev, &ino, &error));
    assert_ok(netns_identify(by_path, &dev2, &ino2, &error));
    assert_true(dev == dev2 && ino == ino2);
    assert_ok(netns_owner(guest, &uid, &error));
    assert_int_equal(uid, 0);
    assert_reason(netns_open_path("/nowhere/at/all", &file, &error), REASON_NOT_FOUND);
    error = ERROR_INIT;
    assert_true(netns_open_path("/dev/null", &file, &error) < 0);
    assert_int_equal(error.kind, ERROR_FIELD);
    error = ERROR_INIT;
    assert_true(netns_open_path("/proc/self/ns/mnt", &file, &error) < 0);
    assert_int_equal(error.kind, ERROR_FIELD);
    assert_ok(netns_open_pid(getpid(), &by_pid, &start, &error));
    assert_int_equal(process_start_time(getpid(), &start2), 0);
    assert_true(start == start2);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    siginfo_t info;
    assert_return_code(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), errno);
    assert_reason(netns_open_pid(child, &file, &start, &error), REASON_NOT_FOUND); /* a zombie */
    waitpid(child, NULL, 0);
    assert_reason(netns_open_pid(child, &file, &start, &error), REASON_NOT_FOUND);
    assert_reason(netns_open_pid(-1, &file, &start, &error), REASON_NOT_FOUND);
    assert_int_equal(process_start_time(child, &start), -ESRCH);
}

static void test_namespaces_are_found_again(void **state)
{
    char handle[NETNS_HANDLE_MAX], foreign[NETNS_HANDLE_MAX];
    uint64_t dev, ino, dev2, ino2;
    int guest = netns_new();
    int fd = -1;

    (void)state;
    assert_ok(netns_identify(guest, &dev, &ino, &error));
    netns_handle_get(guest, handle);
    assert_int_equal(netns_find(dev, ino, &fd), -ENOENT); /* nobody is in it */
    assert_int_equal(netns_open_handle("", &fd), -ENOENT);
    if (handle[0]) {
        assert_int_equal(netns_open_handle(handle, &fd), 0);
        assert_ok(netns_identify(fd, &dev2, &ino2, &error));
        assert_true(dev == dev2 && ino == ino2);
        close(fd);
        memcpy(foreign, handle, sizeof(foreign));
        foreign[0] = handle[0] == '0' ? '1' : '0';
        assert_int_equal(netns_open_handle(foreign, &fd), -ESTALE); /* another boot's */
    }
    pid_t child = fork();
    if (child == 0) {
        setns(guest, CLONE_NEWNET);
        pause();
        _exit(0);
    }
    while (!netns_is_of_pid(child, dev, ino))
        assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
    assert_int_equal(netns_find(dev, ino, &fd), 0);
    assert_ok(netns_identify(fd, &dev2, &ino2, &error));
    assert_true(dev == dev2 && ino == ino2);
    close(fd);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(guest);
    /* A handle keeps nothing alive. */
    for (unsigned i = 0; handle[0] && i < 1000 && netns_open_handle(handle, &fd) == 0; i++) {
        close(fd);
        usleep(1000);
    }
    assert_true(!handle[0] || netns_open_handle(handle, &fd) == -ESTALE);
}

static void test_no_descriptor_is_lost(void **state)
{
    struct guests guests;
    struct heard heard = {0};
    struct link *again;

    (void)state;
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    link_watch_stop(host); /* the loop keeps what its first wake-up needs */
    size_t before = count_entries("/proc/self/fd");
    guests_init(&guests);
    assert_ok(link_watch_start(host, loop, &heard_ops, &heard, &error));
    listen_until(NULL, 20);
    link_watch_stop(host);
    guests_deinit(&guests);
    assert_ok(link_open(&again, &error));
    link_close(again);
    assert_int_equal(count_entries("/proc/self/fd"), before);
}

#define in_host(test) cmocka_unit_test_setup_teardown(test, host_set_up, host_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_host(test_bridge_is_made_matched_and_removed),
        in_host(test_bridge_changes_are_applied),
        in_host(test_foreign_links_are_not_touched),
        in_host(test_everyone_reaches_everyone),
        in_host(test_everyone_reaches_everyone_by_ipv6),
        in_host(test_gateway_answers_with_arp_ignore),
        in_host(test_ports_move_between_kinds),
        in_host(test_routed_port_drops_made_up_sources),
        in_host(test_guest_side_is_complete),
        in_host(test_indexes_that_are_taken),
        in_host(test_the_default_route_moves),
        in_host(test_names_that_are_taken),
        in_host(test_a_full_bridge_is_told),
        in_host(test_ensure_repairs_the_host_side),
        in_host(test_changed_settings_are_found),
        in_host(test_tap_is_made_and_removed),
#ifdef MOAT_FAULTS
        in_host(test_faults_leave_nothing),
        in_host(test_crashes_leave_marked_links),
#endif
        in_host(test_ensure_sweeps_stale_proxies),
        in_host(test_prefixes_of_the_host_are_listed),
        in_host(test_prefixes_of_many_foreign_links),
        in_host(test_own_changes_are_not_drift),
        in_host(test_own_short_lived_taps_are_no_news),
        in_host(test_changes_by_others_are_heard),
        in_host(test_links_that_go_are_heard),
        in_host(test_links_that_went_before_are_heard),
        in_host(test_an_overflow_is_survived),
        in_host(test_namespaces_are_opened_and_checked),
        in_host(test_namespaces_are_found_again),
        in_host(test_no_descriptor_is_lost),
    };

    if (geteuid() != 0) {
        puts("skipped: needs root, to make network namespaces");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
