/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reserved ports as other programs and clients see them, with a real relay worker, in an own
 * network namespace. The guest is this program, on 127.0.0.9. */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "nat/reserve.h"
#include "worker/holder.h"
#include "worker/relay.h"
#include "worker/worker.h"
#include "worker_process.h"

/* Another one for each test: connections of the one before may have left remnants. */
static uint16_t port_now = 8000;
#define PORT port_now
#define PORTS_PER_TEST 400
#define GUEST "127.0.0.9"
#define GUEST_PORT 80

/* With root in earnest, the relay is in the whole sandbox. */
static bool is_root;

struct fixture {
    struct loop *loop;
    struct reservations *reservations;
    char run_dir[64];
    unsigned fds;
    bool releasing; /* the loop stops when something is free */
};

/* ---------------------------------------------------------------- addresses and sockets */

static struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    if (*text)
        assert_int_equal(ip_parse(text, &ip), 0);
    return ip;
}

static void timeout_set(int fd)
{
    struct timeval timeout = {.tv_sec = WAIT_MS / 1000};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

enum { REUSEADDR = 1, REUSEPORT = 2, V6ONLY = 4, LISTEN = 8 };

/* A socket as any program may bind it. Returns it, or -1 with errno. */
static int program_bind(int type, const char *address, uint16_t port, unsigned flags)
{
    struct ip ip = ip_of(address);
    struct sockaddr_storage bound;
    socklen_t length = ip_to_sockaddr(&ip, port, &bound);
    int fd = socket(ip.family, type | SOCK_CLOEXEC, 0);
    int on = 1;
    int v6only = flags & V6ONLY ? 1 : 0;

    assert_true(fd >= 0);
    timeout_set(fd);
    if (ip.family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
    if (flags & REUSEADDR)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (flags & REUSEPORT)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&bound, length) < 0 ||
        ((flags & LISTEN) && listen(fd, 16) < 0)) {
        int code = errno;

        close(fd);
        errno = code;
        return -1;
    }
    return fd;
}

static int client_connect(int type, const char *address, uint16_t port)
{
    struct ip ip = ip_of(address);
    struct sockaddr_storage host;
    socklen_t length = ip_to_sockaddr(&ip, port, &host);
    int fd = socket(ip.family, type | SOCK_CLOEXEC, 0);

    timeout_set(fd);
    if (connect(fd, (struct sockaddr *)&host, length) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int guest_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    assert_true(fd >= 0);
    timeout_set(fd);
    return fd;
}

static void assert_carries(int from, int to, const char *text)
{
    char received[64] = "";

    assert_int_equal(send(from, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    assert_int_equal(recv(to, received, sizeof(received), 0), strlen(text));
    assert_string_equal(received, text);
}

/* ---------------------------------------------------------------- moatd's side */

static void on_released(void *userdata)
{
    struct fixture *fixture = userdata;

    if (fixture->releasing)
        loop_stop(fixture->loop);
}

static void moatd_start(struct fixture *fixture)
{
    struct reservations_config config = {.loop = fixture->loop,
                                         .on_released = on_released,
                                         .userdata = fixture,
                                         .run_dir = fixture->run_dir,
                                         .uid = 65534,
                                         .gid = 65534,
                                         .without_root = !is_root,
                                         .log_level = LOG_LEVEL_ERROR};
    struct error error = ERROR_INIT;

    if (reservations_new(&config, &fixture->reservations, &error) < 0)
        fail_msg("reservations_new: %s", error.text);
}

static void moatd_restart(struct fixture *fixture)
{
    reservations_free(fixture->reservations, true);
    moatd_start(fixture);
}

static struct port port_of(int64_t id, uint8_t protocol, const char *host_ip, uint16_t host_port,
                           uint16_t count)
{
    return (struct port){.id = id,
                         .host_ip = ip_of(host_ip),
                         .host_port = host_port,
                         .guest_port = GUEST_PORT,
                         .count = count,
                         .protocol = protocol};
}

static void reserve(struct fixture *fixture, const struct port *port)
{
    struct error error = ERROR_INIT;

    if (reserve_port(fixture->reservations, port, false, &error) < 0)
        fail_msg("reserve_port: %s", error.text);
}

static void reserve_and_relay(struct fixture *fixture, const struct port *port)
{
    struct error error = ERROR_INIT;
    struct ip guest = ip_of(GUEST);

    reserve(fixture, port);
    assert_int_equal(reserve_relay_to(fixture->reservations, port->id, &guest, &error), 0);
}

static void assert_refused(struct fixture *fixture, const struct port *port, enum reason reason,
                           const char *text)
{
    struct error error = ERROR_INIT;

    assert_int_equal(reserve_port(fixture->reservations, port, false, &error), -EREMOTEIO);
    assert_int_equal(error.reason, reason);
    if (!strstr(error.text, text))
        fail_msg("\"%s\" does not say \"%s\"", error.text, text);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error error = ERROR_INIT;

    port_now += PORTS_PER_TEST;
    run_dir_make(fixture->run_dir);
    assert_int_equal(loop_new(&fixture->loop, &error), 0);
    fixture->fds = fds_count();
    moatd_start(fixture);
    *state = fixture;
    return 0;
}

/* Until the loop says that it is free. */
static void release(struct fixture *fixture, int64_t id)
{
    uint64_t number;

    reserve_release(fixture->reservations, id);
    number = reserve_released(fixture->reservations);
    fixture->releasing = true;
    while (!reserve_is_released(fixture->reservations, number))
        loop_run(fixture->loop);
    fixture->releasing = false;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    reservations_free(fixture->reservations, false);
    assert_int_equal(fds_count(), fixture->fds);
    assert_int_equal(run_dir_count(fixture->run_dir), 0);
    rmdir(fixture->run_dir);
    loop_free(fixture->loop);
    free(fixture);
    return 0;
}

/* ---------------------------------------------------------------- nobody else can bind */

static const unsigned option_sets[] = {0, REUSEADDR, REUSEPORT, REUSEADDR | REUSEPORT};

static void assert_none_can_bind(int type, const char *address, unsigned flags)
{
    for (size_t i = 0; i < ARRAY_SIZE(option_sets); i++) {
        int fd = program_bind(type, address, PORT, option_sets[i] | flags);

        if (fd >= 0)
            fail_msg("%s was bound with options %u", address, option_sets[i] | flags);
        assert_int_equal(errno, EADDRINUSE);
    }
}

static void assert_can_bind(int type, const char *address, unsigned flags)
{
    int fd = program_bind(type, address, PORT, flags);

    assert_true(fd >= 0);
    close(fd);
}

static void assert_all_are_taken(int type)
{
    assert_none_can_bind(type, "0.0.0.0", 0);
    assert_none_can_bind(type, "127.0.0.1", 0);
    assert_none_can_bind(type, "127.0.0.2", 0);
    assert_none_can_bind(type, "::", 0);
    assert_none_can_bind(type, "::", V6ONLY);
    assert_none_can_bind(type, "::1", V6ONLY);
}

static void every_address_is_taken(void **state)
{
    struct port tcp = port_of(1, IPPROTO_TCP, "", PORT, 1);
    struct port udp = port_of(2, IPPROTO_UDP, "", PORT, 1);

    reserve(*state, &tcp);
    assert_all_are_taken(SOCK_STREAM);
    assert_can_bind(SOCK_DGRAM, "0.0.0.0", 0);
    reserve(*state, &udp);
    assert_all_are_taken(SOCK_DGRAM);
}

static void one_ipv4_address_is_taken(void **state)
{
    struct port tcp = port_of(1, IPPROTO_TCP, "127.0.0.1", PORT, 1);
    struct port udp = port_of(2, IPPROTO_UDP, "127.0.0.1", PORT, 1);
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

    reserve(*state, &tcp);
    reserve(*state, &udp);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        assert_none_can_bind(types[i], "127.0.0.1", 0);
        assert_none_can_bind(types[i], "0.0.0.0", 0);
        assert_none_can_bind(types[i], "::", 0);
        assert_can_bind(types[i], "127.0.0.2", 0);
        assert_can_bind(types[i], "::1", V6ONLY);
    }
}

static void one_ipv6_address_is_taken(void **state)
{
    struct port tcp = port_of(1, IPPROTO_TCP, "::1", PORT, 1);
    struct port udp = port_of(2, IPPROTO_UDP, "::1", PORT, 1);
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

    reserve(*state, &tcp);
    reserve(*state, &udp);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        assert_none_can_bind(types[i], "::1", V6ONLY);
        assert_none_can_bind(types[i], "::", 0);
        assert_can_bind(types[i], "0.0.0.0", 0);
    }
}

static void released_ports_are_free(void **state)
{
    struct fixture *fixture = *state;

    for (int i = 0; i < 50; i++) {
        struct port port = port_of(1, i % 2 ? IPPROTO_TCP : IPPROTO_UDP, "", PORT, 1);
        int fd;

        reserve_and_relay(fixture, &port);
        release(fixture, 1);
        fd = program_bind(i % 2 ? SOCK_STREAM : SOCK_DGRAM, "::", PORT, i % 2 ? LISTEN : 0);
        assert_true(fd >= 0);
        close(fd);
    }
}

/* A connection that the listener's side closes first leaves a remnant on the port for a minute. */
static void remnant_make(const char *address, unsigned flags)
{
    int listener = program_bind(SOCK_STREAM, address, PORT, flags | LISTEN);
    int client = client_connect(SOCK_STREAM, address, PORT);
    int accepted = guest_accept(listener);
    char byte;

    close(listener);
    close(accepted);
    assert_int_equal(recv(client, &byte, 1, 0), 0);
    close(client);
    assert_int_equal(program_bind(SOCK_STREAM, address, PORT, 0), -1);
    assert_int_equal(errno, EADDRINUSE);
}

static void remnants_of_a_former_server_are_passed_over(void **state)
{
    struct fixture *fixture = *state;
    struct port every = port_of(1, IPPROTO_TCP, "", PORT, 1);
    struct port one = port_of(2, IPPROTO_TCP, "127.0.0.1", PORT, 1);

    remnant_make("127.0.0.1", REUSEADDR);
    reserve(fixture, &every);
    assert_all_are_taken(SOCK_STREAM);
    reserve_release(fixture->reservations, 1);
    reserve(fixture, &one);
    assert_none_can_bind(SOCK_STREAM, "127.0.0.1", 0);
    assert_none_can_bind(SOCK_STREAM, "0.0.0.0", 0);
    assert_can_bind(SOCK_STREAM, "127.0.0.2", REUSEADDR);
}

static void remnants_of_a_server_without_reuseaddr_are_ended(void **state)
{
    static const char *const addresses[] = {"", "127.0.0.1"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        struct port port = port_of(1, IPPROTO_TCP, addresses[i], PORT, 1);
        struct error error = ERROR_INIT;

        remnant_make("127.0.0.1", 0);
        if (i == 0 && !port_remnants_end(&port.host_ip, PORT)) {
            port_now++;
            skip(); /* the kernel can't */
        }
        if (i == 0)
            remnant_make("127.0.0.1", 0);
        assert_int_equal(reserve_port(fixture->reservations, &port, false, &error), 0);
        assert_none_can_bind(SOCK_STREAM, "127.0.0.1", 0);
        release(fixture, 1);
    }
}

/* A program that is there keeps its remnants, and the port. */
static void remnants_of_a_running_server_are_left_alone(void **state)
{
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int listener = program_bind(SOCK_STREAM, "127.0.0.1", PORT, REUSEADDR | LISTEN);
    int client = client_connect(SOCK_STREAM, "127.0.0.1", PORT);
    char byte;

    close(guest_accept(listener));
    assert_int_equal(recv(client, &byte, 1, 0), 0);
    close(client);
    assert_refused(*state, &port, REASON_PORT_IN_USE, "taken by");
    assert_int_equal(port_remnants_end(&port.host_ip, PORT), 0);
    close(listener);
}

/* The relay's own connections, closed by the guest first, leave remnants too. */
static void remnants_of_the_relay_are_passed_over(void **state)
{
    struct fixture *fixture = *state;
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    char byte;

    for (int i = 0; i < 3; i++) {
        int client;

        reserve_and_relay(fixture, &port);
        client = client_connect(SOCK_STREAM, "::1", PORT);
        assert_true(client >= 0);
        close(guest_accept(listener));
        assert_int_equal(recv(client, &byte, 1, 0), 0);
        close(client);
        release(fixture, 1);
    }
    close(listener);
}

/* ---------------------------------------------------------------- refusals */

/* A program that holds the port. Returns its pid. */
static pid_t holder_start(int type, const char *address, unsigned flags)
{
    int ready[2];
    char byte = 0;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        byte = program_bind(type, address, PORT, flags) >= 0;
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void holder_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void a_port_that_a_program_holds_is_refused_naming_it(void **state)
{
    static const struct {
        int type;
        const char *address;
        unsigned flags;
    } rows[] = {
        {SOCK_STREAM, "0.0.0.0", LISTEN},
        {SOCK_STREAM, "127.0.0.2", LISTEN | REUSEADDR},
        {SOCK_STREAM, "::1", LISTEN | REUSEADDR | REUSEPORT},
        {SOCK_STREAM, "::", LISTEN | V6ONLY},
        {SOCK_DGRAM, "0.0.0.0", REUSEADDR},
        {SOCK_DGRAM, "127.0.0.3", 0},
        {SOCK_DGRAM, "::1", REUSEPORT},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct port port =
            port_of(1, rows[i].type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP, "", PORT, 1);
        pid_t pid = holder_start(rows[i].type, rows[i].address, rows[i].flags);
        char text[64];

        snprintf(text, sizeof(text), "%u/%s is taken by test_nat_reserv (pid %d)", PORT,
                 rows[i].type == SOCK_STREAM ? "tcp" : "udp", (int)pid);
        assert_refused(*state, &port, REASON_PORT_IN_USE, text);
        holder_end(pid);
        reserve(*state, &port);
        release(*state, 1);
    }
}

static void our_own_port_is_named_so(void **state)
{
    struct port first = port_of(1, IPPROTO_TCP, "", PORT, 1);
    struct port second = port_of(2, IPPROTO_TCP, "127.0.0.1", PORT, 1);

    char text[64];

    reserve(*state, &first);
    snprintf(text, sizeof(text), "127.0.0.1:%u/tcp is published already", PORT);
    assert_refused(*state, &second, REASON_PORT_IN_USE, text);
}

static void an_address_that_is_not_ours_is_refused(void **state)
{
    struct port ipv4 = port_of(1, IPPROTO_TCP, "192.0.2.1", PORT, 1);
    struct port ipv6 = port_of(1, IPPROTO_UDP, "2001:db8::1", PORT, 1);
    struct port local = port_of(1, IPPROTO_TCP, "fe80::1", PORT, 1);

    assert_refused(*state, &ipv4, REASON_ADDRESS_OUTSIDE, "192.0.2.1");
    assert_refused(*state, &ipv6, REASON_ADDRESS_OUTSIDE, "2001:db8::1");
    assert_refused(*state, &local, REASON_ADDRESS_OUTSIDE, "fe80::1");
}

static void at_boot_addresses_may_come_later(void **state)
{
    struct fixture *fixture = *state;
    struct port ipv4 = port_of(1, IPPROTO_TCP, "192.0.2.1", PORT, 1);
    struct port ipv6 = port_of(2, IPPROTO_TCP, "2001:db8::1", PORT, 1);
    struct error error = ERROR_INIT;

    assert_int_equal(reserve_port(fixture->reservations, &ipv4, true, &error), 0);
    assert_int_equal(reserve_port(fixture->reservations, &ipv6, true, &error), 0);
    assert_none_can_bind(SOCK_STREAM, "0.0.0.0", 0);
}

static void nothing_stays_of_a_range_that_fails(void **state)
{
    struct port port = port_of(1, IPPROTO_TCP, "", PORT - 10, 20);
    pid_t pid = holder_start(SOCK_STREAM, "127.0.0.1", LISTEN);
    char text[64];

    snprintf(text, sizeof(text), "port %u/tcp", PORT);
    assert_refused(*state, &port, REASON_PORT_IN_USE, text);
    for (int i = -10; i < 10; i++) {
        int fd = i ? program_bind(SOCK_STREAM, "::", (uint16_t)(PORT + i), LISTEN) : -1;

        assert_true(i == 0 || fd >= 0);
        if (fd >= 0)
            close(fd);
    }
    holder_end(pid);
}

/* Parts of a long range are bound side by side: the first port that is taken is the one that is
 * said, wherever it is, and the other parts are given back too. */
static void the_first_that_is_taken_of_a_long_range_is_said(void **state)
{
    struct port port = port_of(1, IPPROTO_TCP, "", PORT - 1500, 2000);
    pid_t pid = holder_start(SOCK_STREAM, "127.0.0.1", LISTEN);
    int later = program_bind(SOCK_STREAM, "::", PORT + 450, LISTEN);
    static const int places[] = {-1500, -1000, -500, -1, 1, 499};
    char text[64];

    assert_true(later >= 0);
    snprintf(text, sizeof(text), "port %u/tcp", PORT);
    assert_refused(*state, &port, REASON_PORT_IN_USE, text);
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        int fd = program_bind(SOCK_STREAM, "::", (uint16_t)(PORT + places[i]), LISTEN);

        assert_true(fd >= 0);
        close(fd);
    }
    holder_end(pid);
    close(later);
    reserve(*state, &port);
}

static void short_descriptors_are_a_quota(void **state)
{
    struct port port = port_of(1, IPPROTO_UDP, "", 20000, 500);
    struct rlimit before;
    struct rlimit low;

    getrlimit(RLIMIT_NOFILE, &before);
    low = before;
    low.rlim_cur = 300;
    setrlimit(RLIMIT_NOFILE, &low);
    assert_refused(*state, &port, REASON_QUOTA, "LimitNOFILE");
    setrlimit(RLIMIT_NOFILE, &before);
    reserve(*state, &port);
}

/* ---------------------------------------------------------------- any free port */

static void assert_any(struct fixture *fixture, struct port *port)
{
    struct error error = ERROR_INIT;

    if (reserve_port_any(fixture->reservations, port, &error) < 0)
        fail_msg("reserve_port_any: %s", error.text);
}

static void any_port_is_of_the_ephemeral_range(void **state)
{
    struct fixture *fixture = *state;
    struct error error = ERROR_INIT;
    struct port port;
    unsigned seen = 0;

    assert_true(file_write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40009"));
    assert_true(file_write("/proc/sys/net/ipv4/ip_local_reserved_ports", "40001,40003-40004"));
    for (int i = 1; i <= 7; i++) {
        port = port_of(i, IPPROTO_TCP, "", 0, 1);
        assert_any(fixture, &port);
        assert_in_range(port.host_port, 40000, 40009);
        seen |= 1u << (port.host_port - 40000);
    }
    assert_int_equal(seen, 0x3ff & ~0x1a);
    port = port_of(8, IPPROTO_TCP, "", 0, 1);
    assert_int_equal(reserve_port_any(fixture->reservations, &port, &error), -EREMOTEIO);
    assert_int_equal(error.reason, REASON_PORT_IN_USE);
    assert_int_equal(port.host_port, 0);
    port = port_of(8, IPPROTO_UDP, "", 0, 5);
    assert_any(fixture, &port);
    assert_int_equal(port.host_port, 40005);
    assert_true(file_write("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n"));
    assert_true(file_write("/proc/sys/net/ipv4/ip_local_port_range", "32768 60999"));
}

/* ---------------------------------------------------------------- relay, TCP */

static void tcp_is_carried(void **state)
{
    static const char *const addresses[] = {"::1", "127.0.0.1"};
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);

    reserve_and_relay(*state, &port);
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        int client = client_connect(SOCK_STREAM, addresses[i], PORT);
        int guest = guest_accept(listener);

        assert_carries(client, guest, "question");
        assert_carries(guest, client, "answer");
        close(client);
        close(guest);
    }
    close(listener);
}

static void a_half_closed_connection_stays_so(void **state)
{
    struct port port = port_of(1, IPPROTO_TCP, "::1", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    char byte;

    reserve_and_relay(*state, &port);
    for (int i = 0; i < 2; i++) {
        int client = client_connect(SOCK_STREAM, "::1", PORT);
        int guest = guest_accept(listener);
        int first = i ? guest : client;
        int other = i ? client : guest;

        assert_int_equal(shutdown(first, SHUT_WR), 0);
        assert_int_equal(recv(other, &byte, 1, 0), 0);
        assert_carries(other, first, "still here");
        close(other);
        assert_int_equal(recv(first, &byte, 1, 0), 0);
        close(first);
    }
    close(listener);
}

static void a_refused_connection_is_reset(void **state)
{
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int client;
    char byte;

    reserve_and_relay(*state, &port);
    client = client_connect(SOCK_STREAM, "::1", PORT);
    assert_true(client < 0 || (recv(client, &byte, 1, 0) < 0 && errno == ECONNRESET));
    if (client >= 0)
        close(client);
}

static void without_a_guest_clients_wait_or_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    struct ip none = {0};
    struct error error = ERROR_INIT;
    struct pollfd ready = {.events = POLLIN};
    char byte;

    reserve(fixture, &port);
    ready.fd = client_connect(SOCK_STREAM, "::1", PORT);
    assert_int_equal(poll(&ready, 1, 20), 0);
    assert_int_equal(reserve_relay_to(fixture->reservations, 1, &none, &error), 0);
    assert_int_equal(recv(ready.fd, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(ready.fd);
}

static void a_reset_is_passed_on(void **state)
{
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    struct linger at_once = {.l_onoff = 1};
    int client;
    int guest;
    char byte;

    reserve_and_relay(*state, &port);
    client = client_connect(SOCK_STREAM, "::1", PORT);
    guest = guest_accept(listener);
    assert_carries(client, guest, "hello");
    setsockopt(guest, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(guest);
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
    close(listener);
}

/* The reader is slow: the relay holds little of it, the writer waits. */
static void much_is_carried_whole_and_held_back(void **state)
{
    enum { CHUNK = 1 << 20, CHUNKS = 64 };
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    _cleanup_free_ unsigned char *chunk = malloc(CHUNK);
    uint64_t written = 0;
    uint64_t length = 0;
    int client;
    int guest;
    ssize_t count;

    reserve_and_relay(*state, &port);
    client = client_connect(SOCK_STREAM, "::1", PORT);
    guest = guest_accept(listener);
    for (size_t i = 0; i < CHUNK; i++)
        chunk[i] = (unsigned char)(i * 7 + (i >> 8));
    /* Until everything on the way is full. */
    for (int idle = 0; idle < 5;) {
        count = send(client, chunk + written % CHUNK, CHUNK - written % CHUNK, MSG_DONTWAIT);
        if (count > 0)
            written += (uint64_t)count;
        idle = count > 0 ? 0 : idle + 1;
        if (count < 0)
            poll(NULL, 0, 20);
    }
    assert_true(written < (uint64_t)CHUNK * CHUNKS);
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (written < (uint64_t)CHUNK * CHUNKS) {
            count = send(client, chunk + written % CHUNK, CHUNK - written % CHUNK, MSG_NOSIGNAL);
            if (count <= 0)
                _exit(1);
            written += (uint64_t)count;
        }
        _exit(0);
    }
    close(client);
    while (true) {
        unsigned char buffer[65536];

        count = recv(guest, buffer, sizeof(buffer), 0);
        if (count <= 0)
            break;
        for (ssize_t i = 0; i < count; i++, length++) {
            if (buffer[i] != chunk[length % CHUNK])
                fail_msg("byte %llu differs", (unsigned long long)length);
        }
    }
    assert_int_equal(count, 0);
    assert_int_equal(length, (uint64_t)CHUNK * CHUNKS);
    wait(NULL);
    close(guest);
    close(listener);
}

static void release_ends_what_is_relayed(void **state)
{
    struct fixture *fixture = *state;
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    int client;
    int guest;
    char byte;

    reserve_and_relay(fixture, &port);
    reserve_rename(fixture->reservations, 1, 77);
    client = client_connect(SOCK_STREAM, "::1", PORT);
    guest = guest_accept(listener);
    assert_carries(client, guest, "hello");
    release(fixture, 77);
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(recv(guest, &byte, 1, 0), -1);
    assert_int_equal(client_connect(SOCK_STREAM, "::1", PORT), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(client);
    close(guest);
    close(listener);
}

/* ---------------------------------------------------------------- relay, UDP */

/* A connected socket takes datagrams only from the address that it asked. */
static void udp_is_answered_from_the_address_asked(void **state)
{
    static const char *const addresses[] = {"::1", "127.0.0.1", "127.0.0.5"};
    struct port port = port_of(1, IPPROTO_UDP, "", PORT, 1);
    int guest = program_bind(SOCK_DGRAM, GUEST, GUEST_PORT, 0);

    reserve_and_relay(*state, &port);
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        int client = client_connect(SOCK_DGRAM, addresses[i], PORT);
        struct sockaddr_in relay;
        socklen_t length = sizeof(relay);
        char received[16] = "";

        assert_int_equal(send(client, "ask", 3, 0), 3);
        assert_int_equal(
            recvfrom(guest, received, sizeof(received), 0, (struct sockaddr *)&relay, &length), 3);
        assert_int_equal(sendto(guest, "answer", 6, 0, (struct sockaddr *)&relay, length), 6);
        assert_int_equal(recv(client, received, sizeof(received), 0), 6);
        /* The same session: the same port towards the guest. */
        assert_int_equal(send(client, "more", 4, 0), 4);
        {
            struct sockaddr_in again;

            assert_int_equal(
                recvfrom(guest, received, sizeof(received), 0, (struct sockaddr *)&again, &length),
                4);
            assert_int_equal(again.sin_port, relay.sin_port);
        }
        close(client);
    }
    close(guest);
}

static void clients_of_udp_are_told_apart(void **state)
{
    struct port port = port_of(1, IPPROTO_UDP, "", PORT, 1);
    int guest = program_bind(SOCK_DGRAM, GUEST, GUEST_PORT, 0);
    int clients[20];

    reserve_and_relay(*state, &port);
    for (unsigned i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = client_connect(SOCK_DGRAM, "::1", PORT);
        assert_int_equal(send(clients[i], &i, sizeof(i), 0), sizeof(i));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(clients); i++) {
        struct sockaddr_in relay;
        socklen_t length = sizeof(relay);
        unsigned number;

        assert_int_equal(
            recvfrom(guest, &number, sizeof(number), 0, (struct sockaddr *)&relay, &length),
            sizeof(number));
        sendto(guest, &number, sizeof(number), 0, (struct sockaddr *)&relay, length);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(clients); i++) {
        unsigned number;

        assert_int_equal(recv(clients[i], &number, sizeof(number), 0), sizeof(number));
        assert_int_equal(number, i);
        close(clients[i]);
    }
    close(guest);
}

static void a_guest_that_does_not_listen_yet_is_reached_later(void **state)
{
    struct port port = port_of(1, IPPROTO_UDP, "", PORT, 1);
    int client;
    int guest;
    char received[16];

    reserve_and_relay(*state, &port);
    client = client_connect(SOCK_DGRAM, "::1", PORT);
    assert_int_equal(send(client, "lost", 4, 0), 4);
    guest = program_bind(SOCK_DGRAM, GUEST, GUEST_PORT, 0);
    for (int i = 0; i < 100; i++) {
        struct pollfd ready = {.fd = guest, .events = POLLIN};

        assert_int_equal(send(client, "hello", 5, 0), 5);
        if (poll(&ready, 1, 100) == 1)
            break;
    }
    assert_true(recv(guest, received, sizeof(received), MSG_DONTWAIT) > 0);
    close(guest);
    close(client);
}

/* ---------------------------------------------------------------- limits */

static bool descriptors_suffice(unsigned count)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur >= count;
}

/* None of them was idle for long, so the newcomer is refused; other ports don't notice. */
static void a_port_full_of_connections_refuses_more(void **state)
{
    enum { FULL = RELAY_FLOWS_PER_PORT_MAX };
    struct port full = port_of(1, IPPROTO_TCP, "", PORT, 1);
    struct port other = port_of(2, IPPROTO_TCP, "", PORT + 1, 1);
    int listener;
    int *fds;
    int client;
    int guest;
    char byte;

    if (!descriptors_suffice(2 * FULL + 100))
        skip();
    listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    fds = calloc(2 * FULL, sizeof(*fds));
    reserve_and_relay(*state, &full);
    reserve_and_relay(*state, &other);
    for (int i = 0; i < FULL; i++) {
        fds[2 * i] = client_connect(SOCK_STREAM, "::1", PORT);
        assert_true(fds[2 * i] >= 0);
        fds[2 * i + 1] = guest_accept(listener);
    }
    client = client_connect(SOCK_STREAM, "::1", PORT);
    assert_true(client < 0 || (recv(client, &byte, 1, 0) < 0 && errno == ECONNRESET));
    if (client >= 0)
        close(client);
    client = client_connect(SOCK_STREAM, "::1", PORT + 1);
    guest = guest_accept(listener);
    assert_carries(client, guest, "room here");
    close(client);
    close(guest);
    for (int i = 0; i < 2 * FULL; i++)
        close(fds[i]);
    free(fds);
    close(listener);
}

/* The session that was idle longest makes room. */
static void a_port_full_of_udp_sessions_forgets_the_oldest(void **state)
{
    enum { CLIENTS = RELAY_SESSIONS_PER_PORT_MAX + 50 };
    struct port port = port_of(1, IPPROTO_UDP, "", PORT, 1);
    int guest = program_bind(SOCK_DGRAM, GUEST, GUEST_PORT, 0);
    struct sockaddr_in *relay = calloc(CLIENTS, sizeof(*relay));
    int *clients = calloc(CLIENTS, sizeof(*clients));
    char received[16];

    reserve_and_relay(*state, &port);
    for (int i = 0; i < CLIENTS; i++) {
        socklen_t length = sizeof(relay[i]);

        clients[i] = client_connect(SOCK_DGRAM, "::1", PORT);
        assert_int_equal(send(clients[i], "ask", 3, 0), 3);
        assert_int_equal(
            recvfrom(guest, received, sizeof(received), 0, (struct sockaddr *)&relay[i], &length),
            3);
    }
    for (int i = 0; i < CLIENTS; i++)
        sendto(guest, "answer", 6, 0, (struct sockaddr *)&relay[i], sizeof(relay[i]));
    /* When the last has its answer, the others would have had theirs. */
    assert_int_equal(recv(clients[CLIENTS - 1], received, sizeof(received), 0), 6);
    assert_int_equal(
        recv(clients[CLIENTS - RELAY_SESSIONS_PER_PORT_MAX], received, sizeof(received), 0), 6);
    assert_int_equal(recv(clients[0], received, sizeof(received), MSG_DONTWAIT), -1);
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    free(clients);
    free(relay);
    close(guest);
}

/* ---------------------------------------------------------------- restarts */

static pid_t relay_before;

static bool relay_is_another(void *userdata)
{
    struct fixture *fixture = userdata;
    pid_t pid = reservations_pid(fixture->reservations);

    return pid && pid != relay_before;
}

static void after_a_crash_ports_are_relayed_again(void **state)
{
    struct fixture *fixture = *state;
    struct port range = port_of(1, IPPROTO_TCP, "", PORT, 200);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT + 150, REUSEADDR | LISTEN);
    int client;
    int guest;

    reserve_and_relay(fixture, &range);
    relay_before = reservations_pid(fixture->reservations);
    kill(relay_before, SIGKILL);
    /* The listener is moatd's too: a client that comes now waits in its queue. */
    client = client_connect(SOCK_STREAM, "::1", PORT + 150);
    assert_true(client >= 0);
    assert_true(wait_for(fixture->loop, relay_is_another, fixture));
    guest = guest_accept(listener);
    assert_carries(client, guest, "hello");
    close(client);
    close(guest);
    close(listener);
}

static void reserve_inherited(struct fixture *fixture, const struct port *port)
{
    struct error error = ERROR_INIT;
    struct ip guest = ip_of(GUEST);

    if (reserve_port(fixture->reservations, port, true, &error) < 0)
        fail_msg("after the restart: %s", error.text);
    assert_int_equal(reserve_relay_to(fixture->reservations, port->id, &guest, &error), 0);
}

static void a_connection_outlives_restarts_of_moatd(void **state)
{
    struct fixture *fixture = *state;
    struct port port = port_of(1, IPPROTO_TCP, "", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    int client;
    int guest;
    int later;
    char byte;

    reserve_and_relay(fixture, &port);
    client = client_connect(SOCK_STREAM, "::1", PORT);
    guest = guest_accept(listener);
    for (int i = 0; i < 3; i++) {
        int waiting;

        moatd_restart(fixture);
        /* Between the takeover and the new relay: it waits in the listener's queue. */
        waiting = client_connect(SOCK_STREAM, "::1", PORT);
        assert_true(waiting >= 0);
        assert_carries(client, guest, "still");
        reserve_inherited(fixture, &port);
        reservations_settled(fixture->reservations);
        assert_carries(guest, client, "running");
        later = guest_accept(listener);
        assert_carries(waiting, later, "served");
        close(waiting);
        close(later);
    }
    /* It belongs to a relay two moatds ago, and ends with its port all the same. */
    release(fixture, 1);
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
    close(guest);
    close(listener);
}

static void ports_stay_reserved_and_relayed_while_moatd_is_away(void **state)
{
    struct fixture *fixture = *state;
    struct port tcp = port_of(1, IPPROTO_TCP, "", PORT, 1);
    struct port ipv4 = port_of(2, IPPROTO_UDP, "127.0.0.1", PORT, 1);
    int listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT, REUSEADDR | LISTEN);
    int client;
    int guest;

    reserve_and_relay(fixture, &tcp);
    reserve_and_relay(fixture, &ipv4);
    reservations_free(fixture->reservations, true);
    fixture->reservations = NULL;
    assert_all_are_taken(SOCK_STREAM);
    assert_none_can_bind(SOCK_DGRAM, "127.0.0.1", 0);
    client = client_connect(SOCK_STREAM, "::1", PORT);
    guest = guest_accept(listener);
    assert_carries(client, guest, "hello");
    moatd_start(fixture);
    reserve_inherited(fixture, &tcp);
    reserve_inherited(fixture, &ipv4);
    assert_carries(client, guest, "again");
    close(client);
    close(guest);
    close(listener);
}

static void udp_is_answered_across_a_restart(void **state)
{
    struct fixture *fixture = *state;
    struct port port = port_of(1, IPPROTO_UDP, "", PORT, 1);
    int guest = program_bind(SOCK_DGRAM, GUEST, GUEST_PORT, 0);
    int client;
    struct sockaddr_in relay;
    socklen_t length = sizeof(relay);
    char received[16];

    reserve_and_relay(fixture, &port);
    client = client_connect(SOCK_DGRAM, "::1", PORT);
    assert_int_equal(send(client, "ask", 3, 0), 3);
    assert_int_equal(
        recvfrom(guest, received, sizeof(received), 0, (struct sockaddr *)&relay, &length), 3);
    moatd_restart(fixture);
    /* The answer to what was asked before, and a question that came in between. */
    assert_int_equal(sendto(guest, "answer", 6, 0, (struct sockaddr *)&relay, length), 6);
    assert_int_equal(recv(client, received, sizeof(received), 0), 6);
    assert_int_equal(send(client, "again", 5, 0), 5);
    reserve_inherited(fixture, &port);
    assert_int_equal(
        recvfrom(guest, received, sizeof(received), 0, (struct sockaddr *)&relay, &length), 5);
    release(fixture, 1);
    assert_can_bind(SOCK_DGRAM, "::", 0);
    close(client);
    close(guest);
}

/* ---------------------------------------------------------------- large ranges */

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void a_range_of_10000_ports(void **state)
{
    static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP};
    struct fixture *fixture = *state;
    int listener;

    if (!descriptors_suffice(15000))
        skip();
    listener = program_bind(SOCK_STREAM, GUEST, GUEST_PORT + 9999, REUSEADDR | LISTEN);
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
        struct port range = port_of(1, protocols[i], "", 20000, 10000);
        double start = now_s();
        double bound;
        double released;

        reserve_and_relay(fixture, &range);
        bound = now_s();
        if (protocols[i] == IPPROTO_TCP) {
            int client = client_connect(SOCK_STREAM, "::1", 29999);
            int guest;

            /* What the socket did not take at once goes out by the loop. */
            relay_before = 0;
            assert_true(wait_for(fixture->loop, relay_is_another, fixture));
            guest = guest_accept(listener);
            assert_carries(client, guest, "last");
            close(client);
            close(guest);
        }
        released = now_s();
        release(fixture, 1);
        print_message("%s: 10,000 ports bound in %.1f ms, released in %.1f ms\n", i ? "UDP" : "TCP",
                      (bound - start) * 1e3, (now_s() - released) * 1e3);
        assert_true(bound - start < 2);
    }
    close(listener);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(every_address_is_taken),
        TEST(one_ipv4_address_is_taken),
        TEST(one_ipv6_address_is_taken),
        TEST(released_ports_are_free),
        TEST(remnants_of_a_former_server_are_passed_over),
        TEST(remnants_of_a_server_without_reuseaddr_are_ended),
        TEST(remnants_of_a_running_server_are_left_alone),
        TEST(remnants_of_the_relay_are_passed_over),
        TEST(a_port_that_a_program_holds_is_refused_naming_it),
        TEST(our_own_port_is_named_so),
        TEST(an_address_that_is_not_ours_is_refused),
        TEST(at_boot_addresses_may_come_later),
        TEST(nothing_stays_of_a_range_that_fails),
        TEST(the_first_that_is_taken_of_a_long_range_is_said),
        TEST(short_descriptors_are_a_quota),
        TEST(any_port_is_of_the_ephemeral_range),
        TEST(tcp_is_carried),
        TEST(a_half_closed_connection_stays_so),
        TEST(a_refused_connection_is_reset),
        TEST(without_a_guest_clients_wait_or_are_refused),
        TEST(a_reset_is_passed_on),
        TEST(much_is_carried_whole_and_held_back),
        TEST(release_ends_what_is_relayed),
        TEST(udp_is_answered_from_the_address_asked),
        TEST(clients_of_udp_are_told_apart),
        TEST(a_guest_that_does_not_listen_yet_is_reached_later),
        TEST(a_port_full_of_connections_refuses_more),
        TEST(a_port_full_of_udp_sessions_forgets_the_oldest),
        TEST(after_a_crash_ports_are_relayed_again),
        TEST(a_connection_outlives_restarts_of_moatd),
        TEST(ports_stay_reserved_and_relayed_while_moatd_is_away),
        TEST(udp_is_answered_across_a_restart),
        TEST(a_range_of_10000_ports),
    };
    struct rlimit limit;

    if (argc > 1 && strcmp(argv[1], "--worker") == 0)
        return worker_main(argc, argv);
    is_root = geteuid() == 0;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max = 65536; /* root only */
    setrlimit(RLIMIT_NOFILE, &limit);
    log_init("test", LOG_LEVEL_ERROR);
    if (!netns_enter()) {
        print_message("skipped: no network namespace can be made\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
