/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Network namespaces for the tests of src/nat: a host with four networks, their guests, and an
 * outside, joined by veth pairs that `ip` makes. Everything is gone with the process. Servers say
 * who they are and whom they see: "a1 192.0.2.2".
 *
 *   out   192.0.2.2, 2001:db8::2   routes the guests' subnets to the host, as a LAN machine might
 * do by hand host  192.0.2.1, 2001:db8::1 net A  10.88.0.0/16  a1 .2, a2 .3 (bridged, also
 * fd00:88::), a3 .4 (routed), a4 .5 (routed, closed) net B  10.89.0.0/24  b1 .2            host
 * access net C  10.90.0.0/24  c1 .2, c2 .3     internal net D  10.91.0.0/24  d1 .2, d2 .3 isolated,
 * routed
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "nat/nat.h"
#include "nat/table.h"

#define UNUSED_OK __attribute__((unused)) static

#define TCP SOCK_STREAM
#define UDP SOCK_DGRAM

enum place { HOST, OUT, A1, A2, A3, A4, B1, C1, C2, D1, D2, PLACES };

#define GROUP_A 0x6d000001u
#define GROUP_B 0x6d000002u
#define GROUP_C 0x6d000003u
#define GROUP_D 0x6d000004u

static int places[PLACES];
static const char *const place_names[] = {"host", "out", "a1", "a2", "a3", "a4",
                                          "b1",   "c1",  "c2", "d1", "d2"};

/* --- namespaces --- */

static void enter(enum place place)
{
    assert_int_equal(setns(places[place], CLONE_NEWNET), 0);
}

static int place_new(void)
{
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(system("ip link set lo up"), 0);
    return fd;
}

/* A shell line inside a namespace; the thread ends up on the host. */
__attribute__((format(printf, 2, 3))) static void run(enum place place, const char *format, ...)
{
    char line[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    enter(place);
    if (system(line) != 0)
        fail_msg("%s: %s", place_names[place], line);
    enter(HOST);
}

__attribute__((format(printf, 3, 4))) static void sysctl_write(enum place place, const char *value,
                                                               const char *format, ...)
{
    char path[256] = "/proc/sys/";
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(path + strlen(path), sizeof(path) - strlen(path), format, arguments);
    va_end(arguments);
    enter(place);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    enter(HOST);
    if (fd < 0)
        fail_msg("%s: %s", place_names[place], path);
    assert_int_equal(write(fd, value, strlen(value)), (ssize_t)strlen(value));
    close(fd);
}

/* --- links --- */

#define NETWORK_MAC "02:00:00:00:00:%02x"

static void network_make(const char *bridge, uint32_t group, const char *address)
{
    run(HOST, "ip link add %s group %u address " NETWORK_MAC " type bridge", bridge, group,
        group & 0xff);
    sysctl_write(HOST, "1", "net/ipv4/conf/%s/route_localnet", bridge);
    sysctl_write(HOST, "0", "net/ipv4/neigh/%s/proxy_delay", bridge);
    run(HOST, "ip addr add %s dev %s && ip link set %s up", address, bridge, bridge);
}

static void guest_routed(const char *host_name, const char *bridge, uint32_t group,
                         const char *address)
{
    static const char *const on[] = {"proxy_arp", "rp_filter", "route_localnet"};

    for (size_t i = 0; i < ARRAY_SIZE(on); i++)
        sysctl_write(HOST, "1", "net/ipv4/conf/%s/%s", host_name, on[i]);
    sysctl_write(HOST, "0", "net/ipv4/conf/%s/send_redirects", host_name);
    sysctl_write(HOST, "0", "net/ipv4/neigh/%s/proxy_delay", host_name);
    run(HOST,
        "ip link set %s address " NETWORK_MAC " up && ip route add %s/32 dev %s"
        " && ip neigh add proxy %s dev %s",
        host_name, group & 0xff, address, host_name, address, bridge);
}

static void guest_make(enum place place, const char *bridge, uint32_t group, const char *address,
                       unsigned prefix, const char *gateway, bool routed)
{
    char host_name[16];

    snprintf(host_name, sizeof(host_name), "v%s", place_names[place]);
    run(HOST,
        "ip link add %s group %u type veth peer name eth0 address 02:00:00:00:01:%02x"
        " netns /proc/%d/fd/%d",
        host_name, group, place, getpid(), places[place]);
    if (routed)
        guest_routed(host_name, bridge, group, address);
    else
        run(HOST, "ip link set %s master %s up && ip link set %s type bridge_slave hairpin on",
            host_name, bridge, host_name);
    run(place, "ip addr add %s/%u dev eth0 && ip link set eth0 up && ip route add default via %s",
        address, prefix, gateway);
}

static void ipv6_make(void)
{
    run(HOST, "ip -6 addr add fd00:88::1/64 dev moat0 nodad"
              " && ip -6 addr add 2001:db8::1/64 dev out0 nodad");
    run(OUT, "ip -6 addr add 2001:db8::2/64 dev eth0 nodad"
             " && ip -6 route add fd00::/16 via 2001:db8::1");
    run(A1,
        "ip -6 addr add fd00:88::2/64 dev eth0 nodad && ip -6 route add default via fd00:88::1");
    run(A2,
        "ip -6 addr add fd00:88::3/64 dev eth0 nodad && ip -6 route add default via fd00:88::1");
}

static void outside_make(void)
{
    run(HOST, "ip link add out0 type veth peer name eth0 netns /proc/%d/fd/%d", getpid(),
        places[OUT]);
    run(HOST, "ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up"
              " && ip route add default via 192.0.2.2");
    run(OUT, "ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up"
             " && ip route add 10.88.0.0/14 via 192.0.2.1");
}

/* bridge_nf: what br_netfilter does with bridged frames, "0" or "1". */
UNUSED_OK void topology_make(const char *bridge_nf)
{
    for (int i = 0; i < PLACES; i++)
        places[i] = place_new();
    enter(HOST);
    if (access("/proc/sys/net/bridge/bridge-nf-call-iptables", F_OK) == 0) {
        sysctl_write(HOST, bridge_nf, "net/bridge/bridge-nf-call-iptables");
        sysctl_write(HOST, bridge_nf, "net/bridge/bridge-nf-call-ip6tables");
    }
    sysctl_write(HOST, "1", "net/ipv4/ip_forward");
    sysctl_write(HOST, "1", "net/ipv6/conf/all/forwarding");
    sysctl_write(HOST, "0", "net/ipv4/icmp_ratelimit");
    outside_make();
    network_make("moat0", GROUP_A, "10.88.0.1/16");
    network_make("moat1", GROUP_B, "10.89.0.1/24");
    network_make("moat2", GROUP_C, "10.90.0.1/24");
    network_make("moat3", GROUP_D, "10.91.0.1/24");
    guest_make(A1, "moat0", GROUP_A, "10.88.0.2", 16, "10.88.0.1", false);
    guest_make(A2, "moat0", GROUP_A, "10.88.0.3", 16, "10.88.0.1", false);
    guest_make(A3, "moat0", GROUP_A, "10.88.0.4", 16, "10.88.0.1", true);
    guest_make(A4, "moat0", GROUP_A, "10.88.0.5", 16, "10.88.0.1", true);
    guest_make(B1, "moat1", GROUP_B, "10.89.0.2", 24, "10.89.0.1", false);
    guest_make(C1, "moat2", GROUP_C, "10.90.0.2", 24, "10.90.0.1", false);
    guest_make(C2, "moat2", GROUP_C, "10.90.0.3", 24, "10.90.0.1", false);
    guest_make(D1, "moat3", GROUP_D, "10.91.0.2", 24, "10.91.0.1", true);
    guest_make(D2, "moat3", GROUP_D, "10.91.0.3", 24, "10.91.0.1", true);
    ipv6_make();
}

UNUSED_OK void topology_free(void)
{
    for (int i = 0; i < PLACES; i++)
        close(places[i]);
}

/* --- sockets --- */

static struct ip ip_of(const char *text)
{
    struct ip result = {0};

    if (text)
        assert_int_equal(ip_parse(text, &result), 0);
    return result;
}

static int socket_in(enum place place, uint8_t family, int type)
{
    int on = 1;

    enter(place);
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    enter(HOST);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    return fd;
}

/* Bound to the address ("0.0.0.0", …). */
static int socket_bound(enum place place, const char *address, uint16_t port, int type)
{
    struct sockaddr_storage storage;
    struct ip ip = ip_of(address);
    socklen_t length = ip_to_sockaddr(&ip, port, &storage);
    int fd = socket_in(place, ip.family, type);

    if (bind(fd, (struct sockaddr *)&storage, length) < 0)
        fail_msg("%s: bind %s:%u: %s", place_names[place], address, port, strerror(errno));
    return fd;
}

static int socket_connect(int fd, const char *address, uint16_t port)
{
    struct sockaddr_storage storage;
    struct ip ip = ip_of(address);
    socklen_t length = ip_to_sockaddr(&ip, port, &storage);

    return connect(fd, (struct sockaddr *)&storage, length);
}

/* --- servers: one thread for all --- */

#define SERVERS_MAX 128

struct server {
    enum place place;
    int type;
};

static struct pollfd server_fds[SERVERS_MAX];
static struct server servers[SERVERS_MAX];
static size_t server_count;
static int server_stop[2] = {-1, -1};
static pthread_t server_thread;

UNUSED_OK void serve(enum place place, const char *address, uint16_t port, int type)
{
    int fd = socket_bound(place, address, port, type);

    assert_true(server_count < SERVERS_MAX);
    if (type == TCP)
        assert_int_equal(listen(fd, 64), 0);
    servers[server_count] = (struct server){place, type};
    server_fds[server_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static int answer_text(const struct server *server, const struct sockaddr_storage *peer, char *text,
                       size_t size)
{
    char address[IP_TEXT_MAX];
    struct ip ip = peer->ss_family == AF_INET
                       ? ip_from_bytes(AF_INET, &((const struct sockaddr_in *)peer)->sin_addr)
                       : ip_from_bytes(AF_INET6, &((const struct sockaddr_in6 *)peer)->sin6_addr);

    return snprintf(text, size, "%s %s", place_names[server->place], ip_format(&ip, address));
}

static void server_answer(const struct server *server, int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    char text[128];

    if (server->type == TCP) {
        int client = accept4(fd, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC);

        if (client < 0)
            return;
        int size = answer_text(server, &peer, text, sizeof(text));
        if (send(client, text, (size_t)size, MSG_NOSIGNAL) < 0)
            print_message("server: %s\n", strerror(errno));
        close(client);
        return;
    }
    if (recvfrom(fd, text, sizeof(text), MSG_DONTWAIT, (struct sockaddr *)&peer, &length) < 0)
        return;
    int size = answer_text(server, &peer, text, sizeof(text));
    sendto(fd, text, (size_t)size, 0, (struct sockaddr *)&peer, length);
}

static void *servers_run(void *userdata)
{
    (void)userdata;
    for (;;) {
        poll(server_fds, server_count, -1);
        for (size_t i = 1; i < server_count; i++)
            if (server_fds[i].revents)
                server_answer(&servers[i], server_fds[i].fd);
        if (server_fds[0].revents)
            return NULL;
    }
}

/* Call before any serve(). */
UNUSED_OK void servers_prepare(void)
{
    assert_int_equal(pipe2(server_stop, O_CLOEXEC), 0);
    server_fds[0] = (struct pollfd){.fd = server_stop[0], .events = POLLIN};
    server_count = 1;
}

UNUSED_OK void servers_start(void)
{
    assert_int_equal(pthread_create(&server_thread, NULL, servers_run, NULL), 0);
}

UNUSED_OK void servers_stop(void)
{
    assert_int_equal(write(server_stop[1], "", 1), 1);
    pthread_join(server_thread, NULL);
    for (size_t i = 0; i < server_count; i++)
        close(server_fds[i].fd);
    close(server_stop[1]);
}

/* --- clients --- */

#define ASK_TIMEOUT_MS 2000 /* a lost SYN is repeated after one second */
#define SILENCE_MS 300      /* how long to wait for what must not come */

static bool ask_wait(int fd, short events, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};

    return poll(&poll_fd, 1, timeout_ms) > 0;
}

static const char *ask_tcp(int fd, const char *address, uint16_t port, int timeout_ms, char *text,
                           size_t size)
{
    int errnum = 0;
    socklen_t length = sizeof(errnum);

    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (socket_connect(fd, address, port) < 0 && errno != EINPROGRESS)
        return "unreachable";
    if (!ask_wait(fd, POLLOUT, timeout_ms))
        return "silence";
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &length);
    if (errnum)
        return errnum == ETIMEDOUT ? "silence" : "refused";
    if (!ask_wait(fd, POLLIN, timeout_ms))
        return "silence";
    ssize_t received = recv(fd, text, size - 1, 0);
    text[received > 0 ? received : 0] = '\0';
    return received > 0 ? text : "refused";
}

static const char *ask_udp(int fd, const char *address, uint16_t port, int timeout_ms, char *text,
                           size_t size)
{
    if (socket_connect(fd, address, port) < 0)
        return "unreachable";
    for (int waited_ms = 0; waited_ms < timeout_ms; waited_ms += 100) {
        if (send(fd, "?", 1, 0) < 0)
            return "refused";
        if (!ask_wait(fd, POLLIN, 100))
            continue;
        ssize_t received = recv(fd, text, size - 1, 0);
        text[received > 0 ? received : 0] = '\0';
        return received > 0 ? text : "refused";
    }
    return "silence";
}

/* What the server at address:port says to a client in `place`: its text, "refused" (RST or ICMP) or
 * "silence". Valid until the next call. */
UNUSED_OK const char *ask_from(enum place place, const char *source, const char *address,
                               uint16_t port, int type, int timeout_ms)
{
    static char text[128];
    struct ip ip = ip_of(address);
    int fd = source ? socket_bound(place, source, 0, type) : socket_in(place, ip.family, type);
    const char *answer = type == TCP ? ask_tcp(fd, address, port, timeout_ms, text, sizeof(text))
                                     : ask_udp(fd, address, port, timeout_ms, text, sizeof(text));

    close(fd);
    return answer;
}

UNUSED_OK const char *ask(enum place place, const char *address, uint16_t port, int type)
{
    return ask_from(place, NULL, address, port, type, ASK_TIMEOUT_MS);
}

UNUSED_OK const char *ask_briefly(enum place place, const char *address, uint16_t port, int type)
{
    return ask_from(place, NULL, address, port, type, SILENCE_MS);
}

/* --- what the networks of this topology are in the table --- */

UNUSED_OK void batch_add_networks(struct nat_batch *batch)
{
    const struct nat_network networks[] = {
        {.group = GROUP_A,
         .gateway = ip_of("10.88.0.1"),
         .gateway6 = ip_of("fd00:88::1"),
         .dns = true},
        {.group = GROUP_B, .gateway = ip_of("10.89.0.1"), .host_access = true, .dns = true},
        {.group = GROUP_C, .gateway = ip_of("10.90.0.1"), .internal = true, .dns = true},
        {.group = GROUP_D, .gateway = ip_of("10.91.0.1"), .isolated = true, .dns = true},
    };
    const struct nat_endpoint endpoints[] = {
        {.group = GROUP_A,
         .ip = ip_of("10.88.0.2"),
         .mac = {{2, 0, 0, 0, 1, A1}},
         .host_interface = "va1",
         .ip6 = ip_of("fd00:88::2")},
        {.group = GROUP_A,
         .ip = ip_of("10.88.0.3"),
         .mac = {{2, 0, 0, 0, 1, A2}},
         .host_interface = "va2",
         .ip6 = ip_of("fd00:88::3")},
        {.group = GROUP_A,
         .ip = ip_of("10.88.0.4"),
         .mac = {{2, 0, 0, 0, 1, A3}},
         .host_interface = "va3"},
        {.group = GROUP_A,
         .ip = ip_of("10.88.0.5"),
         .mac = {{2, 0, 0, 0, 1, A4}},
         .host_interface = "va4",
         .closed = true},
        {.group = GROUP_B,
         .ip = ip_of("10.89.0.2"),
         .mac = {{2, 0, 0, 0, 1, B1}},
         .host_interface = "vb1"},
        {.group = GROUP_C,
         .ip = ip_of("10.90.0.2"),
         .mac = {{2, 0, 0, 0, 1, C1}},
         .host_interface = "vc1"},
        {.group = GROUP_C,
         .ip = ip_of("10.90.0.3"),
         .mac = {{2, 0, 0, 0, 1, C2}},
         .host_interface = "vc2"},
        {.group = GROUP_D,
         .ip = ip_of("10.91.0.2"),
         .mac = {{2, 0, 0, 0, 1, D1}},
         .host_interface = "vd1"},
        {.group = GROUP_D,
         .ip = ip_of("10.91.0.3"),
         .mac = {{2, 0, 0, 0, 1, D2}},
         .host_interface = "vd2"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(networks); i++)
        nat_batch_network(batch, &networks[i], true);
    for (size_t i = 0; i < ARRAY_SIZE(endpoints); i++)
        nat_batch_endpoint(batch, &endpoints[i], true);
}

UNUSED_OK struct nat_port port_of(const char *host_ip, uint16_t host_port, const char *guest_ip,
                                  uint16_t guest_port, int type)
{
    return (struct nat_port){
        .host_ip = ip_of(host_ip),
        .host_port = host_port,
        .guest_ip = ip_of(guest_ip),
        .guest_port = guest_port,
        .count = 1,
        .protocol = type == TCP ? IPPROTO_TCP : IPPROTO_UDP,
    };
}

UNUSED_OK double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* Tests of a program without the means: cmocka has no skip for a whole group. */
UNUSED_OK bool can_make_namespaces(void)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
        print_message("skipped: network namespaces need root\n");
        return false;
    }
    if (system("ip link show lo >/dev/null 2>&1") != 0) {
        print_message("skipped: no `ip` (iproute2)\n");
        return false;
    }
    return true;
}
