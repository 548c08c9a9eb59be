/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The whole name worker in one process: moatd's messages go in, clients ask by UDP and TCP over
 * loopback addresses. The gateway is 127.0.2.1, guests have 127.0.2.2, …; any other address of
 * 127/8 is the host. */
#include "dns_wire.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/dns_control.h"

#define WAIT_MS 5000
#define GATEWAY "127.0.2.1"
#define GUEST "127.0.2.2"
#define OTHER "127.0.2.3"
#define HOST "127.0.0.1"

struct fixture {
    struct loop *loop;
    struct dns_control *control;
    struct dns_page *page;
    int page_fd;
    uint16_t port;    /* of the gateway */
    uint16_t up_port; /* of upstream servers */
    int upstream;     /* answers nothing by itself */
    struct loop_timer *timer;
    /* What moatd sends while the worker looks at its channel. */
    void (*on_receive)(struct fixture *fixture);
    unsigned receives;
    unsigned waits;
    uint64_t number;
};

/* --- moatd's side --- */

static void send_message(struct fixture *fixture, uint16_t type, struct dns_message *message,
                         size_t length, int *fds, size_t n_fds)
{
    message->number = ++fixture->number;
    atomic_store(&fixture->page->number, message->number);
    dns_control_message(fixture->control, type, message, length, fds, n_fds);
}

static struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    assert_int_equal(ip_parse(text, &ip), 0);
    return ip;
}

static int socket_bound(int type, const char *ip_text, uint16_t port)
{
    struct ip ip = ip_of(ip_text);
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(&ip, port, &address);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&address, length) < 0 ||
        (type == SOCK_STREAM && listen(fd, 300) < 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void send_network(struct fixture *fixture, int64_t id, const char *name, bool internal,
                         bool sockets)
{
    struct dns_network_message message = {.id = id,
                                          .gateway = ip_of(GATEWAY),
                                          .internal = internal,
                                          .sockets = sockets ? 3 : DNS_SOCKETS_KEEP};
    int fds[2] = {-1, -1};

    cidr_parse("127.0.2.0/24", &message.subnet);
    snprintf(message.name, sizeof(message.name), "%s", name);
    if (sockets) {
        fds[0] = socket_bound(SOCK_DGRAM, GATEWAY, fixture->port);
        fds[1] = socket_bound(SOCK_STREAM, GATEWAY, fixture->port);
        assert_true(fds[0] >= 0 && fds[1] >= 0);
    }
    send_message(fixture, DNS_MESSAGE_NETWORK, &message.message, sizeof(message), fds,
                 sockets ? 2 : 0);
    assert_int_equal(fds[0], -1); /* the worker took it */
    assert_int_equal(fds[1], -1);
}

static void send_endpoint(struct fixture *fixture, int64_t id, const char *ip, const char *name,
                          const char *upstream)
{
    size_t length = sizeof(struct dns_endpoint_message) + strlen(name) + 1;
    _cleanup_free_ struct dns_endpoint_message *message = calloc(1, length);

    assert_non_null(message);
    message->id = id;
    message->guest_id = id;
    message->network_id = 1;
    message->ip = ip_of(ip);
    message->n_names = 1;
    message->names_length = (uint16_t)(strlen(name) + 1);
    memcpy(message->names, name, strlen(name) + 1);
    if (upstream) {
        message->upstreams.count = 1;
        message->upstreams.servers[0] = ip_of(upstream);
    }
    send_message(fixture, DNS_MESSAGE_ENDPOINT, &message->message, length, NULL, 0);
}

static void send_remove(struct fixture *fixture, uint16_t type, int64_t id)
{
    struct dns_remove_message message = {.id = id};

    send_message(fixture, type, &message.message, sizeof(message), NULL, 0);
}

static void send_upstream(struct fixture *fixture, const char *ip)
{
    struct dns_upstreams_message message = {.upstreams = {.count = 1, .servers = {ip_of(ip)}}};

    send_message(fixture, DNS_MESSAGE_UPSTREAMS, &message.message, sizeof(message), NULL, 0);
}

static void send_ready(struct fixture *fixture)
{
    struct dns_message message = {0};

    send_message(fixture, DNS_MESSAGE_READY, &message, sizeof(message), NULL, 0);
}

static void channel_receive(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->receives++;
    if (fixture->on_receive)
        fixture->on_receive(fixture);
}

static void channel_wait(void *userdata)
{
    ((struct fixture *)userdata)->waits++;
}

static void is_active(void *userdata)
{
    (void)userdata;
}

/* --- the fixture --- */

static void ports_choose(struct fixture *fixture)
{
    for (uint16_t port = 22053; port < 22253; port++) {
        int udp = socket_bound(SOCK_DGRAM, GATEWAY, port);
        int tcp = socket_bound(SOCK_STREAM, GATEWAY, port);
        int up = socket_bound(SOCK_DGRAM, "127.0.3.1", port);
        int taken = udp < 0 || tcp < 0 || up < 0;

        if (udp >= 0)
            close(udp);
        if (tcp >= 0)
            close(tcp);
        if (!taken) {
            fixture->port = fixture->up_port = port;
            fixture->upstream = up;
            return;
        }
        if (up >= 0)
            close(up);
    }
    fail_msg("no port is free");
}

static void loop_tick(void *userdata)
{
    loop_stop(((struct fixture *)userdata)->loop);
}

static int set_up_unready(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct dns_config_message config = {.ttl_s = 60, .domain = "moat.internal"};
    struct error error = ERROR_INIT;

    if (!fixture || loop_new(&fixture->loop, &error) < 0)
        return -1;
    *state = fixture;
    fixture->timer = loop_timer_new(fixture->loop, loop_tick, fixture);
    ports_choose(fixture);
    fixture->page_fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fixture->page_fd, sizeof(*fixture->page)), 0);
    fixture->page =
        mmap(NULL, sizeof(*fixture->page), PROT_READ | PROT_WRITE, MAP_SHARED, fixture->page_fd, 0);
    assert_ptr_not_equal(fixture->page, MAP_FAILED);
    fixture->control = dns_control_new(&(struct dns_control_config){.loop = fixture->loop,
                                                                    .port = fixture->up_port,
                                                                    .receive = channel_receive,
                                                                    .wait = channel_wait,
                                                                    .active = is_active,
                                                                    .userdata = fixture});
    send_message(fixture, DNS_MESSAGE_CONFIG, &config.message, sizeof(config), &fixture->page_fd,
                 1);
    send_network(fixture, 1, "default", false, true);
    send_endpoint(fixture, 1, GUEST, "web", NULL);
    return 0;
}

static int set_up(void **state)
{
    if (set_up_unready(state) < 0)
        return -1;
    send_ready(*state);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    dns_control_free(fixture->control);
    loop_timer_free(fixture->timer);
    loop_free(fixture->loop);
    munmap(fixture->page, sizeof(*fixture->page));
    close(fixture->page_fd);
    close(fixture->upstream);
    free(fixture);
    return 0;
}

/* Lets the worker run until the descriptor is readable. */
static bool turn_until_readable(struct fixture *fixture, int fd, uint64_t wait_ms)
{
    uint64_t end = loop_now_ms(fixture->loop) + wait_ms;

    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

        if (poll(&poll_fd, 1, 0) > 0)
            return true;
        if (loop_now_ms(fixture->loop) > end)
            return false;
        loop_timer_start(fixture->timer, 1);
        loop_run(fixture->loop);
    }
}

/* Lets the worker do what it has to do now. */
static void turn(struct fixture *fixture)
{
    for (int i = 0; i < 5; i++) {
        loop_timer_start(fixture->timer, 1);
        loop_run(fixture->loop);
    }
}

/* --- clients --- */

static int client_open(struct fixture *fixture, const char *source, int type)
{
    int fd = socket_bound(type == SOCK_STREAM ? SOCK_DGRAM : type, source, 0);
    struct ip gateway = ip_of(GATEWAY);
    struct ip own = ip_of(source);
    struct sockaddr_storage address;
    socklen_t length;

    if (type == SOCK_STREAM) { /* no listening */
        close(fd);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        length = ip_to_sockaddr(&own, 0, &address);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    }
    length = ip_to_sockaddr(&gateway, fixture->port, &address);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
    return fd;
}

static const char *receive_text(struct fixture *fixture, int fd, char text[8192])
{
    static struct message message;
    ssize_t got;

    if (!turn_until_readable(fixture, fd, WAIT_MS))
        return "nothing";
    got = recv(fd, message.data, sizeof(message.data), MSG_DONTWAIT);
    if (got <= 0)
        return "closed";
    message.length = (size_t)got;
    return get_text(&message, text, 8192);
}

static const char *ask(struct fixture *fixture, const char *source, const char *name,
                       char text[8192])
{
    struct message message;
    int fd = client_open(fixture, source, SOCK_DGRAM);
    const char *answer;

    put_query(&message, 1, name, 1, 0);
    assert_int_equal(send(fd, message.data, message.length, 0), message.length);
    answer = receive_text(fixture, fd, text);
    close(fd);
    return answer;
}

/* What upstream servers do: answers the question that waits at the socket with 192.0.2.9. */
static void upstream_answer(struct fixture *fixture)
{
    static struct message message;
    struct sockaddr_storage from;
    socklen_t length = sizeof(from);
    ssize_t got;

    assert_true(turn_until_readable(fixture, fixture->upstream, WAIT_MS));
    got = recvfrom(fixture->upstream, message.data, sizeof(message.data), 0,
                   (struct sockaddr *)&from, &length);
    assert_true(got > 0);
    message.length = (size_t)got - DNS_OPT_SIZE;
    message.data[2] = 0x81;
    message.data[3] = 0x80;
    message.data[7] = 1;
    message.data[11] = 0;
    put_record(&message, 0xc00c, 1, 60, "\300\0\2\11", 4);
    assert_int_equal(sendto(fixture->upstream, message.data, message.length, 0,
                            (struct sockaddr *)&from, length),
                     message.length);
}

/* --- TCP clients --- */

static void tcp_put(struct message *stream, unsigned id, const char *name)
{
    struct message message;

    put_query(&message, id, name, 1, 0);
    put_u16(stream, (unsigned)message.length);
    put_bytes(stream, message.data, message.length);
}

/* The next answer of a stream; returns its id, or -1 when the connection is closed, -2 when nothing
 * comes. */
static int tcp_receive(struct fixture *fixture, int fd, struct message *ret_message)
{
    uint8_t prefix[2];
    size_t wanted = 0;

    if (!turn_until_readable(fixture, fd, WAIT_MS))
        return -2;
    if (recv(fd, prefix, 2, MSG_WAITALL) != 2)
        return -1;
    wanted = (size_t)(prefix[0] << 8 | prefix[1]);
    ret_message->length = 0;
    while (ret_message->length < wanted) {
        ssize_t got;

        assert_true(turn_until_readable(fixture, fd, WAIT_MS));
        got = recv(fd, ret_message->data + ret_message->length, wanted - ret_message->length, 0);
        assert_true(got > 0);
        ret_message->length += (size_t)got;
    }
    return (int)get_u16(ret_message, 0);
}

/* --- tests --- */

static void udp_is_answered(void **state)
{
    struct fixture *fixture = *state;
    char text[8192];

    assert_string_equal(ask(fixture, GUEST, "WEB", text), "NOERROR aa: WEB 60 A " GUEST);
    assert_string_equal(ask(fixture, HOST, "web.moat.internal", text),
                        "NOERROR aa: web.moat.internal 60 A " GUEST);
    assert_string_equal(ask(fixture, GUEST, "host", text), "NOERROR aa: host 60 A " GATEWAY);
}

static void garbage_is_answered_or_dropped(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_DGRAM);
    struct message message;
    char text[8192];

    assert_int_equal(send(fd, "", 0, 0), 0);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    put_query(&message, 1, "web", 1, 0);
    message.data[2] |= 0x80;
    send(fd, message.data, message.length, 0);
    message.data[2] = 0x28; /* UPDATE */
    send(fd, message.data, message.length, 0);
    assert_string_equal(receive_text(fixture, fd, text), "NOTIMP:");
    put_query(&message, 1, "web", 1, 0);
    send(fd, message.data, message.length - 1, 0);
    assert_string_equal(receive_text(fixture, fd, text), "FORMERR:");
    put_query(&message, 1, "web", 1, 0);
    message.data[message.length - 1] = 3; /* CHAOS */
    send(fd, message.data, message.length, 0);
    assert_string_equal(receive_text(fixture, fd, text), "REFUSED:");
    put_query(&message, 1, "web", 252, 0);
    send(fd, message.data, message.length, 0);
    assert_string_equal(receive_text(fixture, fd, text), "REFUSED:");
    put_header(&message, 1, 0x0100, 1, 0, 0, 1);
    put_question(&message, "web", 1);
    put_opt(&message, 1232, 1, 0);
    send(fd, message.data, message.length, 0);
    assert_string_equal(receive_text(fixture, fd, text), "NOERROR: OPT 1232 1"); /* BADVERS */
    close(fd);
}

static void batches_are_answered_in_full(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_DGRAM);
    struct message message;
    char text[8192];

    for (unsigned i = 0; i < 200; i++) {
        put_query(&message, i, i % 2 ? "web" : "nope", 1, 0);
        assert_int_equal(send(fd, message.data, message.length, 0), message.length);
    }
    for (unsigned i = 0; i < 200; i++) {
        const char *answer = receive_text(fixture, fd, text);

        assert_int_equal(strncmp(answer, i % 2 ? "NOERROR" : "NXDOMAIN", 7), 0);
    }
    close(fd);
}

/* So many that the worker takes them singly (dns_udp.c). */
static void ask_one_by_one(struct fixture *fixture)
{
    char text[8192];

    for (unsigned i = 0; i < 20; i++) {
        const char *source = i % 3 ? GUEST : HOST;

        assert_string_equal(ask(fixture, source, i % 2 ? "web" : "nope", text),
                            i % 2 ? "NOERROR aa: web 60 A " GUEST : "NXDOMAIN aa: auth . 5 SOA");
    }
}

static void one_by_one_and_then_many(void **state)
{
    struct fixture *fixture = *state;

    for (unsigned round = 0; round < 3; round++) {
        ask_one_by_one(fixture);
        batches_are_answered_in_full(state);
    }
    ask_one_by_one(fixture);
    garbage_is_answered_or_dropped(state);
}

static void nothing_is_answered_before_ready(void **state)
{
    struct fixture *fixture = *state;
    int udp = client_open(fixture, GUEST, SOCK_DGRAM);
    int tcp = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;
    char text[8192];

    put_query(&message, 1, "late", 1, 0);
    send(udp, message.data, message.length, 0);
    tcp_put(&stream, 2, "late");
    send(tcp, stream.data, stream.length, 0);
    assert_false(turn_until_readable(fixture, udp, 50));
    assert_false(turn_until_readable(fixture, tcp, 50));
    send_endpoint(fixture, 2, OTHER, "late", NULL);
    send_ready(fixture);
    assert_string_equal(receive_text(fixture, udp, text), "NOERROR aa: late 60 A " OTHER);
    assert_int_equal(tcp_receive(fixture, tcp, &message), 2);
    close(udp);
    close(tcp);
}

static void endpoint_arrives(struct fixture *fixture)
{
    fixture->on_receive = NULL;
    send_endpoint(fixture, 2, OTHER, "new", NULL);
}

static void what_is_said_is_known_to_a_single_query(void **state)
{
    struct fixture *fixture = *state;
    char text[8192];

    ask_one_by_one(fixture);
    fixture->on_receive = endpoint_arrives;
    atomic_fetch_add(&fixture->page->number, 1);
    fixture->number = atomic_load(&fixture->page->number) - 1;
    assert_string_equal(ask(fixture, GUEST, "new", text), "NOERROR aa: new 60 A " OTHER);
}

/* A query after attach has answered: the message is on its way, the page says so. */
static void what_moatd_has_said_is_known_to_the_next_query(void **state)
{
    struct fixture *fixture = *state;
    unsigned receives = fixture->receives;
    char text[8192];

    ask(fixture, GUEST, "web", text);
    assert_int_equal(fixture->receives, receives); /* nothing new: not looked at */
    fixture->on_receive = endpoint_arrives;
    atomic_fetch_add(&fixture->page->number, 1);
    fixture->number = atomic_load(&fixture->page->number) - 1;
    assert_string_equal(ask(fixture, GUEST, "new", text), "NOERROR aa: new 60 A " OTHER);
    assert_int_equal(fixture->receives, receives + 1);
    /* It never comes: waited for once, then answered. */
    atomic_fetch_add(&fixture->page->number, 1);
    assert_string_equal(ask(fixture, GUEST, "web", text), "NOERROR aa: web 60 A " GUEST);
    assert_string_equal(ask(fixture, GUEST, "web", text), "NOERROR aa: web 60 A " GUEST);
    assert_int_equal(fixture->waits, 1);
}

static void network_goes(struct fixture *fixture)
{
    fixture->on_receive = NULL;
    send_remove(fixture, DNS_MESSAGE_NETWORK_REMOVE, 1);
}

/* The very socket that is being read goes with the message that is read in between. */
static void network_goes_under_a_query(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_DGRAM);
    int tcp = client_open(fixture, GUEST, SOCK_STREAM);
    struct message message;

    turn(fixture);
    put_query(&message, 1, "web", 1, 0);
    fixture->on_receive = network_goes;
    atomic_fetch_add(&fixture->page->number, 1);
    fixture->number = atomic_load(&fixture->page->number) - 1;
    send(fd, message.data, message.length, 0);
    turn(fixture);
    assert_false(dns_control_serves(fixture->control));
    assert_int_equal(tcp_receive(fixture, tcp, &message), -1);
    close(fd);
    close(tcp);
}

static void forwarded_by_the_hosts_servers_and_cached(void **state)
{
    struct fixture *fixture = *state;
    struct message message;
    char text[8192];
    int fd = client_open(fixture, GUEST, SOCK_DGRAM);

    assert_string_equal(ask(fixture, GUEST, "www.example", text), "SERVFAIL:"); /* none yet */
    send_upstream(fixture, "127.0.3.1");
    put_query(&message, 1, "www.example", 1, 0);
    send(fd, message.data, message.length, 0);
    upstream_answer(fixture);
    assert_string_equal(receive_text(fixture, fd, text), "NOERROR: www.example 60 A 192.0.2.9");
    assert_string_equal(ask(fixture, HOST, "www.example", text),
                        "NOERROR: www.example 60 A 192.0.2.9");
    close(fd);
}

static void guests_own_servers_come_first(void **state)
{
    struct fixture *fixture = *state;
    struct message message;
    char text[8192];
    int fd = client_open(fixture, GUEST, SOCK_DGRAM);

    send_upstream(fixture, "127.0.3.99");
    send_endpoint(fixture, 1, GUEST, "web", "127.0.3.1");
    put_query(&message, 1, "www.example", 1, 0);
    send(fd, message.data, message.length, 0);
    upstream_answer(fixture);
    assert_string_equal(receive_text(fixture, fd, text), "NOERROR: www.example 60 A 192.0.2.9");
    close(fd);
}

static void internal_networks_never_forward(void **state)
{
    struct fixture *fixture = *state;
    char text[8192];

    send_upstream(fixture, "127.0.3.1");
    send_network(fixture, 1, "default", true, false);
    assert_string_equal(ask(fixture, GUEST, "www.example", text), "REFUSED:");
    assert_string_equal(ask(fixture, GUEST, "web", text), "NOERROR aa: web 60 A " GUEST);
    assert_false(turn_until_readable(fixture, fixture->upstream, 50));
}

/* Its queries in flight and its connections end with the guest. */
static void guests_leave_nothing(void **state)
{
    struct fixture *fixture = *state;
    int udp = client_open(fixture, GUEST, SOCK_DGRAM);
    int tcp = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;

    send_upstream(fixture, "127.0.3.1");
    put_query(&message, 1, "www.example", 1, 0);
    send(udp, message.data, message.length, 0);
    tcp_put(&stream, 2, "www2.example");
    send(tcp, stream.data, stream.length, 0);
    turn(fixture);
    send_remove(fixture, DNS_MESSAGE_ENDPOINT_REMOVE, 1);
    assert_int_equal(tcp_receive(fixture, tcp, &message), -1);
    upstream_answer(fixture);
    assert_false(turn_until_readable(fixture, udp, 50));
    close(udp);
    close(tcp);
}

static void tcp_is_pipelined_and_answered_as_ready(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;
    char text[8192];

    send_upstream(fixture, "127.0.3.1");
    tcp_put(&stream, 1, "slow.example");
    tcp_put(&stream, 2, "web");
    tcp_put(&stream, 3, "nope");
    assert_int_equal(send(fd, stream.data, stream.length, 0), stream.length);
    assert_int_equal(tcp_receive(fixture, fd, &message), 2);
    assert_string_equal(get_text(&message, text, sizeof(text)), "NOERROR aa: web 60 A " GUEST);
    assert_int_equal(tcp_receive(fixture, fd, &message), 3);
    upstream_answer(fixture);
    assert_int_equal(tcp_receive(fixture, fd, &message), 1);
    assert_string_equal(get_text(&message, text, sizeof(text)),
                        "NOERROR: slow.example 60 A 192.0.2.9");
    close(fd);
}

static void tcp_in_single_bytes(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;

    tcp_put(&stream, 1, "web");
    tcp_put(&stream, 2, "web");
    for (size_t i = 0; i < stream.length; i++) {
        assert_int_equal(send(fd, stream.data + i, 1, 0), 1);
        loop_timer_start(fixture->timer, 0);
        loop_run(fixture->loop);
    }
    assert_int_equal(tcp_receive(fixture, fd, &message), 1);
    assert_int_equal(tcp_receive(fixture, fd, &message), 2);
    close(fd);
}

static void tcp_half_closed_is_answered_to_the_end(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;

    send_upstream(fixture, "127.0.3.1");
    tcp_put(&stream, 1, "slow.example");
    tcp_put(&stream, 2, "web");
    send(fd, stream.data, stream.length, 0);
    shutdown(fd, SHUT_WR);
    assert_int_equal(tcp_receive(fixture, fd, &message), 2);
    upstream_answer(fixture);
    assert_int_equal(tcp_receive(fixture, fd, &message), 1);
    assert_int_equal(tcp_receive(fixture, fd, &message), -1);
    close(fd);
}

static void tcp_nonsense_is_cut_off(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
    } rows[] = {{"\0\0", 2}, {"\0\13", 2}, {"\377\377", 2}, {"GET / HTTP/1.0\r\n", 16}};
    struct fixture *fixture = *state;
    struct message message;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fd = client_open(fixture, GUEST, SOCK_STREAM);

        assert_int_equal(send(fd, rows[i].bytes, rows[i].length, 0), rows[i].length);
        assert_int_equal(tcp_receive(fixture, fd, &message), -1);
        close(fd);
    }
}

/* Far more queries than may wait or be answered unread: all are answered once the client reads. */
static void tcp_client_that_does_not_read_is_held(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;
    unsigned sent = 0;
    size_t at = 0;
    int small = 65536;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    for (unsigned i = 0; i < 2000; i++)
        tcp_put(&stream, i, "web");
    while (sent < 2000000) {
        ssize_t done = send(fd, stream.data + at, stream.length - at, MSG_DONTWAIT);

        for (int i = 0; done < 0 && i < 20; i++) {
            turn(fixture);
            done = send(fd, stream.data + at, stream.length - at, MSG_DONTWAIT);
        }
        if (done < 0)
            break;
        at = (at + (size_t)done) % stream.length;
        sent += (unsigned)done / 21;
    }
    assert_true(sent < 2000000); /* it was held */
    for (unsigned i = 0; i < 20000; i++)
        assert_int_equal(tcp_receive(fixture, fd, &message), i % 2000);
    close(fd);
}

/* More queries in flight than may wait; those that were kept are taken up as answers come. */
static void tcp_waiting_queries_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    int fd = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;
    unsigned answered[200] = {0};

    send_upstream(fixture, "127.0.3.1");
    for (unsigned i = 0; i < 200; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%u.example", i);
        tcp_put(&stream, i, name);
    }
    send(fd, stream.data, stream.length, 0);
    for (unsigned i = 0; i < 200; i++)
        upstream_answer(fixture);
    for (unsigned i = 0; i < 200; i++) {
        int id = tcp_receive(fixture, fd, &message);

        assert_in_range(id, 0, 199);
        assert_int_equal(answered[id]++, 0);
    }
    close(fd);
}

static void idle_connections_are_bounded_per_guest(void **state)
{
    struct fixture *fixture = *state;
    int fds[200];
    struct message stream = {.length = 0};
    struct message message;
    int other;

    send_endpoint(fixture, 2, OTHER, "other", NULL);
    other = client_open(fixture, OTHER, SOCK_STREAM);
    turn(fixture);
    for (int i = 0; i < 200; i++) {
        fds[i] = client_open(fixture, GUEST, SOCK_STREAM);
        send(fds[i], "\0", 1, 0); /* half a length */
        turn(fixture);
    }
    tcp_put(&stream, 7, "web");
    assert_int_equal(tcp_receive(fixture, fds[0], &message), -1); /* its oldest went */
    assert_int_equal(tcp_receive(fixture, fds[135], &message), -1);
    send(other, stream.data, stream.length, 0); /* nobody else's */
    assert_int_equal(tcp_receive(fixture, other, &message), 7);
    for (int i = 0; i < 200; i++)
        close(fds[i]);
    close(other);
}

static void draining_finishes_what_runs(void **state)
{
    struct fixture *fixture = *state;
    int udp = client_open(fixture, GUEST, SOCK_DGRAM);
    int tcp = client_open(fixture, GUEST, SOCK_STREAM);
    int idle = client_open(fixture, GUEST, SOCK_STREAM);
    struct message stream = {.length = 0};
    struct message message;
    char text[8192];

    send_upstream(fixture, "127.0.3.1");
    put_query(&message, 1, "www.example", 1, 0);
    send(udp, message.data, message.length, 0);
    tcp_put(&stream, 2, "www.example");
    send(tcp, stream.data, stream.length, 0);
    turn(fixture);
    assert_true(dns_control_serves(fixture->control));
    dns_control_drain(fixture->control);
    assert_int_equal(tcp_receive(fixture, idle, &message), -1);
    assert_true(dns_control_serves(fixture->control));
    put_query(&message, 3, "web", 1, 0);
    send(udp, message.data, message.length, 0); /* the next worker's */
    upstream_answer(fixture);
    assert_string_equal(receive_text(fixture, udp, text), "NOERROR: www.example 60 A 192.0.2.9");
    assert_int_equal(tcp_receive(fixture, tcp, &message), 2);
    assert_int_equal(tcp_receive(fixture, tcp, &message), -1);
    turn(fixture);
    assert_false(dns_control_serves(fixture->control));
    close(udp);
    close(tcp);
    close(idle);
}

static void a_draining_worker_lets_go_of_networks(void **state)
{
    struct fixture *fixture = *state;
    int udp = client_open(fixture, GUEST, SOCK_DGRAM);
    struct message message;
    int again;

    send_upstream(fixture, "127.0.3.1");
    put_query(&message, 1, "www.example", 1, 0);
    send(udp, message.data, message.length, 0);
    turn(fixture);
    dns_control_drain(fixture->control);
    assert_true(dns_control_serves(fixture->control));
    send_remove(fixture, DNS_MESSAGE_NETWORK_REMOVE, 1);
    assert_false(dns_control_serves(fixture->control));
    again = socket_bound(SOCK_DGRAM, GATEWAY, fixture->port);
    assert_true(again >= 0);
    close(again);
    close(udp);
}

static void malformed_messages_change_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct dns_endpoint_message endpoint = {.id = 5, .n_names = 3, .names_length = 0};
    struct dns_network_message network = {.id = 9, .sockets = 3};
    struct dns_message message = {0};
    char text[8192];

    dns_control_message(fixture->control, 999, &message, sizeof(message), NULL, 0);
    dns_control_message(fixture->control, DNS_MESSAGE_ENDPOINT, &message, sizeof(message), NULL, 0);
    send_message(fixture, DNS_MESSAGE_ENDPOINT, &endpoint.message, sizeof(endpoint), NULL, 0);
    memset(network.name, 'a', sizeof(network.name));
    send_message(fixture, DNS_MESSAGE_NETWORK, &network.message, sizeof(network), NULL, 0);
    assert_string_equal(ask(fixture, GUEST, "web", text), "NOERROR aa: web 60 A " GUEST);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(udp_is_answered),
        TEST(garbage_is_answered_or_dropped),
        TEST(batches_are_answered_in_full),
        TEST(one_by_one_and_then_many),
        cmocka_unit_test_setup_teardown(nothing_is_answered_before_ready, set_up_unready,
                                        tear_down),
        TEST(what_moatd_has_said_is_known_to_the_next_query),
        TEST(what_is_said_is_known_to_a_single_query),
        TEST(network_goes_under_a_query),
        TEST(forwarded_by_the_hosts_servers_and_cached),
        TEST(guests_own_servers_come_first),
        TEST(internal_networks_never_forward),
        TEST(guests_leave_nothing),
        TEST(tcp_is_pipelined_and_answered_as_ready),
        TEST(tcp_in_single_bytes),
        TEST(tcp_half_closed_is_answered_to_the_end),
        TEST(tcp_nonsense_is_cut_off),
        TEST(tcp_client_that_does_not_read_is_held),
        TEST(tcp_waiting_queries_are_bounded),
        TEST(idle_connections_are_bounded_per_guest),
        TEST(draining_finishes_what_runs),
        TEST(a_draining_worker_lets_go_of_networks),
        TEST(malformed_messages_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
