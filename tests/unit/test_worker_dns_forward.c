/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The forwarder against upstream servers that follow a script, on loopback addresses. */
#include "dns_wire.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/dns_forward.h"

#define WAIT_MS 8000

/* --- a scripted upstream server --- */

enum behaviour {
    ANSWER,            /* the address 192.0.2.<server> for every name */
    SILENT,            /* nothing */
    REFUSE,            /* REFUSED */
    FAIL,              /* SERVFAIL */
    NXDOMAIN,          /* with SOA */
    TRUNCATE,          /* by UDP; by TCP 100 addresses */
    TRUNCATE_AND_HANG, /* by TCP nothing */
    NO_EDNS,           /* FORMERR to EDNS */
    FOLD_CASE,         /* lower-cases the question */
    LIE,               /* wrong id, wrong name, wrong type, garbage; then the answer */
};

struct server {
    struct loop *loop;
    enum behaviour behaviour;
    unsigned number;
    unsigned questions; /* by UDP */
    unsigned tcp;
    unsigned last_edns;
    uint16_t ports_seen[64];
    int fd;
    int listener;
    int connection;
    struct loop_io *io;
    struct loop_io *listener_io;
    struct loop_io *connection_io;
};

struct fixture {
    struct loop *loop;
    struct dns_cache *cache;
    struct dns_forward *forward;
    struct dns_upstream_pool *pool;
    struct dns_quota quota;
    struct server servers[3];
    uint16_t port;
    unsigned waiting;
    bool expired;
};

static struct ip server_ip(unsigned number)
{
    return ip_from_v4(0x7f000101u + number); /* 127.0.1.1, … */
}

static int socket_on(unsigned number, int type, uint16_t port)
{
    struct ip ip = server_ip(number);
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(&ip, port, &address);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&address, length) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void lower(struct message *message, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (message->data[i] >= 'A' && message->data[i] <= 'Z')
            message->data[i] |= 0x20;
}

static size_t question_end(const struct message *message)
{
    size_t at = 12;

    while (message->data[at])
        at += message->data[at] + 1ul;
    return at + 5;
}

static void answer_build(const struct server *server, struct message *message, unsigned flags,
                         unsigned answers)
{
    uint8_t rdata[4] = {192, 0, 2, (uint8_t)server->number};

    message->length = question_end(message);
    message->data[2] = (uint8_t)(flags >> 8);
    message->data[3] = (uint8_t)flags;
    memset(message->data + 6, 0, 6);
    message->data[7] = (uint8_t)answers;
    for (unsigned i = 0; i < answers; i++)
        put_record(message, 0xc00c, 1, 60, rdata, 4);
}

static void reply_send(const struct server *server, const struct message *message,
                       const struct sockaddr_storage *to, socklen_t length)
{
    assert_int_equal(
        sendto(server->fd, message->data, message->length, 0, (const struct sockaddr *)to, length),
        message->length);
}

static void lie(const struct server *server, const struct message *question,
                const struct sockaddr_storage *to, socklen_t length)
{
    struct message message = *question;

    answer_build(server, &message, 0x8180, 1);
    message.data[message.length - 1] = 66;
    message.data[0] ^= 1; /* id */
    reply_send(server, &message, to, length);
    message.data[0] ^= 1;
    message.data[13] ^= 1; /* name */
    reply_send(server, &message, to, length);
    message.data[13] ^= 1;
    message.data[question_end(question) - 3] = 28; /* type */
    reply_send(server, &message, to, length);
    message.data[question_end(question) - 3] = 1;
    message.data[2] &= 0x7f; /* a query */
    reply_send(server, &message, to, length);
    message.length = 20;
    reply_send(server, &message, to, length);
}

static void server_reply(struct server *server, struct message *message,
                         const struct sockaddr_storage *to, socklen_t length)
{
    bool edns = message->data[11] == 1;

    switch (server->behaviour) {
    case SILENT:
        return;
    case REFUSE:
        answer_build(server, message, 0x8185, 0);
        break;
    case FAIL:
        answer_build(server, message, 0x8182, 0);
        break;
    case NXDOMAIN:
        answer_build(server, message, 0x8183, 0);
        message->data[9] = 1;
        put_record(message, 0xc00c, 6, 60, "\0\0\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\36", 22);
        break;
    case TRUNCATE:
    case TRUNCATE_AND_HANG:
        answer_build(server, message, 0x8380, 0);
        break;
    case NO_EDNS:
        answer_build(server, message, edns ? 0x8181 : 0x8180, edns ? 0 : 1);
        break;
    case FOLD_CASE:
        lower(message, 12, question_end(message));
        answer_build(server, message, 0x8180, 1);
        break;
    case LIE:
        lie(server, message, to, length);
        answer_build(server, message, 0x8180, 1);
        break;
    case ANSWER:
        answer_build(server, message, 0x8180, 1);
        break;
    }
    reply_send(server, message, to, length);
}

static void server_readable(void *userdata, unsigned events)
{
    struct server *server = userdata;
    static struct message message;
    struct sockaddr_storage from;
    socklen_t length = sizeof(from);
    ssize_t got;

    (void)events;
    while ((got = recvfrom(server->fd, message.data, sizeof(message.data), MSG_DONTWAIT,
                           (struct sockaddr *)&from, &length)) > 0) {
        message.length = (size_t)got;
        server->ports_seen[server->questions % 64] = ((struct sockaddr_in *)&from)->sin_port;
        server->questions++;
        server->last_edns = message.data[11];
        server_reply(server, &message, &from, length);
        length = sizeof(from);
    }
}

static void connection_readable(void *userdata, unsigned events)
{
    struct server *server = userdata;
    static struct message message;
    uint8_t prefix[2];
    ssize_t got = recv(server->connection, message.data, sizeof(message.data), MSG_DONTWAIT);

    (void)events;
    if (got <= 0) {
        loop_io_free(server->connection_io);
        server->connection_io = NULL;
        close(server->connection);
        server->connection = -1;
        return;
    }
    server->tcp++;
    if (server->behaviour == TRUNCATE_AND_HANG)
        return;
    memmove(message.data, message.data + 2, (size_t)got - 2);
    message.length = (size_t)got - 2;
    answer_build(server, &message, 0x8180, 100);
    prefix[0] = (uint8_t)(message.length >> 8);
    prefix[1] = (uint8_t)message.length;
    /* In pieces: the length is split too. */
    assert_int_equal(send(server->connection, prefix, 1, 0), 1);
    assert_int_equal(send(server->connection, prefix + 1, 1, 0), 1);
    assert_int_equal(send(server->connection, message.data, 100, 0), 100);
    assert_int_equal(send(server->connection, message.data + 100, message.length - 100, 0),
                     message.length - 100);
}

static void listener_readable(void *userdata, unsigned events)
{
    struct server *server = userdata;

    (void)events;
    if (server->connection_io) {
        loop_io_free(server->connection_io);
        close(server->connection);
    }
    server->connection = accept(server->listener, NULL, NULL);
    server->connection_io =
        loop_io_new(server->loop, server->connection, LOOP_READ, connection_readable, server);
}

static bool server_open(struct fixture *fixture, unsigned i, uint16_t port)
{
    struct server *server = &fixture->servers[i];

    *server = (struct server){.loop = fixture->loop, .number = i, .connection = -1};
    server->fd = socket_on(i, SOCK_DGRAM, port);
    server->listener = socket_on(i, SOCK_STREAM, port);
    if (server->fd < 0 || server->listener < 0 || listen(server->listener, 16) < 0)
        return false;
    server->io = loop_io_new(fixture->loop, server->fd, LOOP_READ, server_readable, server);
    server->listener_io =
        loop_io_new(fixture->loop, server->listener, LOOP_READ, listener_readable, server);
    return true;
}

static void server_close(struct server *server)
{
    loop_io_free(server->io);
    loop_io_free(server->listener_io);
    loop_io_free(server->connection_io);
    if (server->fd >= 0)
        close(server->fd);
    if (server->listener >= 0)
        close(server->listener);
    if (server->connection >= 0)
        close(server->connection);
    server->io = server->listener_io = server->connection_io = NULL;
    server->fd = server->listener = server->connection = -1;
}

/* --- the fixture --- */

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error error = ERROR_INIT;
    bool open = false;

    if (!fixture || loop_new(&fixture->loop, &error) < 0)
        return -1;
    for (fixture->port = 21053; !open && fixture->port < 21153; fixture->port++) {
        open = true;
        for (unsigned i = 0; i < 3; i++)
            open = server_open(fixture, i, fixture->port) && open;
        for (unsigned i = 0; !open && i < 3; i++)
            server_close(&fixture->servers[i]);
    }
    fixture->port--;
    fixture->cache = dns_cache_new(1 << 20);
    fixture->pool = dns_upstream_pool_new();
    fixture->forward = dns_forward_new(&(struct dns_forward_config){.loop = fixture->loop,
                                                                    .cache = fixture->cache,
                                                                    .port = fixture->port,
                                                                    .max_waiters = 100,
                                                                    .max_sockets = 200});
    *state = fixture;
    return open ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    dns_forward_free(fixture->forward);
    assert_int_equal(fixture->waiting, 0);
    assert_int_equal(fixture->quota.n_waiters, 0);
    dns_cache_free(fixture->cache);
    dns_upstream_pool_free(fixture->pool);
    for (unsigned i = 0; i < 3; i++)
        server_close(&fixture->servers[i]);
    loop_free(fixture->loop);
    free(fixture);
    return 0;
}

/* --- waiters --- */

struct waiter {
    struct dns_waiter waiter;
    struct fixture *fixture;
    struct dns_terms terms;
    struct message message;
    char *text; /* NULL: not wanted */
    unsigned *done;
};

static void waiter_end(struct waiter *waiter)
{
    if (waiter->done)
        ++*waiter->done;
    if (--waiter->fixture->waiting == 0)
        loop_stop(waiter->fixture->loop);
    free(waiter);
}

static void waiter_answer(struct dns_waiter *base, const struct dns_stored *stored)
{
    struct waiter *waiter = (struct waiter *)base;
    struct dns_stored failed = {.rcode = DNS_RCODE_SERVFAIL};

    waiter->message.length = dns_stored_reply(stored ? stored : &failed, waiter->message.data,
                                              DNS_MESSAGE_MAX, &waiter->terms);
    if (waiter->text)
        get_text(&waiter->message, waiter->text, 8192);
    waiter_end(waiter);
}

static void waiter_drop(struct dns_waiter *base)
{
    waiter_end((struct waiter *)base);
}

static const struct dns_waiter_ops waiter_ops = {.answer = waiter_answer, .drop = waiter_drop};

/* text: 8192 bytes for the answer, or NULL. */
static void ask_for(struct fixture *fixture, struct dns_quota *quota, struct dns_upstreams *set,
                    const char *name, char *text, unsigned *done)
{
    struct waiter *waiter = calloc(1, sizeof(*waiter));
    struct dns_query query;

    assert_non_null(waiter);
    waiter->waiter.ops = &waiter_ops;
    waiter->waiter.quota = quota;
    waiter->fixture = fixture;
    waiter->text = text;
    waiter->done = done;
    put_query(&waiter->message, 1, name, 1, 0);
    assert_int_equal(dns_query_parse(waiter->message.data, waiter->message.length, &query), 0);
    query.terms.tcp = true;
    waiter->terms = query.terms;
    fixture->waiting++;
    assert_int_equal(dns_forward_ask(fixture->forward, set, &query, &waiter->waiter), 0);
}

static void ask(struct fixture *fixture, struct dns_upstreams *set, const char *name, char *text,
                unsigned *done)
{
    ask_for(fixture, &fixture->quota, set, name, text, done);
}

static void deadline_over(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->expired = true;
    loop_stop(fixture->loop);
}

static void tick_over(void *userdata)
{
    loop_stop(((struct fixture *)userdata)->loop);
}

/* Runs until everybody has been answered; returns after how many ms. */
static uint64_t run(struct fixture *fixture)
{
    uint64_t start = loop_now_ms(fixture->loop);
    struct loop_timer *timer = loop_timer_new(fixture->loop, deadline_over, fixture);

    loop_timer_start(timer, WAIT_MS);
    while (fixture->waiting > 0 && !fixture->expired)
        loop_run(fixture->loop);
    loop_timer_free(timer);
    assert_false(fixture->expired);
    return loop_now_ms(fixture->loop) - start;
}

static struct dns_upstreams *set_of(struct fixture *fixture, unsigned count)
{
    struct ip ips[3] = {server_ip(0), server_ip(1), server_ip(2)};
    struct dns_upstreams *set = dns_upstreams_get(fixture->pool, ips, count);

    assert_non_null(set);
    return set;
}

static uint64_t ask_and_run(struct fixture *fixture, struct dns_upstreams *set, const char *name,
                            char *text)
{
    ask(fixture, set, name, text, NULL);
    return run(fixture);
}

/* --- tests --- */

static void one_server_answers(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 2);
    char text[8192];

    ask_and_run(fixture, set, "WWW.Example.org", text);
    assert_string_equal(text, "NOERROR: WWW.Example.org 60 A 192.0.2.0");
    assert_int_equal(fixture->servers[0].questions, 1);
    assert_int_equal(fixture->servers[1].questions, 0);
    assert_int_equal(dns_cache_count(fixture->cache), 1);
    dns_upstreams_put(set);
}

static void ports_are_drawn(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    unsigned same = 0;

    for (int i = 0; i < 20; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%d.example", i);
        ask_and_run(fixture, set, name, NULL);
    }
    for (int i = 1; i < 20; i++)
        same += fixture->servers[0].ports_seen[i] == fixture->servers[0].ports_seen[0];
    assert_in_range(same, 0, 2);
    dns_upstreams_put(set);
}

static void a_question_is_asked_once(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    unsigned done = 0;

    for (int i = 0; i < 50; i++)
        ask(fixture, set, i % 2 ? "same.example" : "SAME.example", NULL, &done);
    run(fixture);
    assert_int_equal(done, 50);
    assert_int_equal(fixture->servers[0].questions, 1);
    dns_upstreams_put(set);
}

static void the_next_server_after_the_fuse(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 2);
    char text[8192];
    uint64_t took;

    fixture->servers[0].behaviour = SILENT;
    took = ask_and_run(fixture, set, "a.example", text);
    assert_string_equal(text, "NOERROR: a.example 60 A 192.0.2.1");
    assert_in_range(took, 200, 1000);
    took = ask_and_run(fixture, set, "b.example", text); /* it is remembered */
    assert_string_equal(text, "NOERROR: b.example 60 A 192.0.2.1");
    assert_in_range(took, 0, 150);
    dns_upstreams_put(set);
}

static void closed_port_and_errors_lead_on_at_once(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 3);
    char text[8192];

    server_close(&fixture->servers[0]); /* ICMP port unreachable */
    fixture->servers[1].behaviour = REFUSE;
    assert_in_range(ask_and_run(fixture, set, "a.example", text), 0, 150);
    assert_string_equal(text, "NOERROR: a.example 60 A 192.0.2.2");
    dns_upstreams_put(set);
}

static void rcodes_are_passed_on(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 2);
    char text[8192];

    fixture->servers[0].behaviour = fixture->servers[1].behaviour = REFUSE;
    assert_in_range(ask_and_run(fixture, set, "a.example", text), 0, 150);
    assert_string_equal(text, "REFUSED:");
    fixture->servers[0].behaviour = fixture->servers[1].behaviour = FAIL;
    ask_and_run(fixture, set, "b.example", text);
    assert_string_equal(text, "SERVFAIL:");
    fixture->servers[0].behaviour = fixture->servers[1].behaviour = NXDOMAIN;
    ask_and_run(fixture, set, "c.example", text);
    assert_string_equal(text, "NXDOMAIN: auth c.example 60 SOA");
    dns_upstreams_put(set);
}

static void nobody_there_is_servfail_at_once(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 2);
    char text[8192];

    server_close(&fixture->servers[0]);
    server_close(&fixture->servers[1]);
    assert_in_range(ask_and_run(fixture, set, "a.example", text), 0, 150);
    assert_string_equal(text, "SERVFAIL:");
    dns_upstreams_put(set);
}

static void silence_ends_before_the_client_does(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 2);
    char text[8192];

    fixture->servers[0].behaviour = fixture->servers[1].behaviour = SILENT;
    assert_in_range(ask_and_run(fixture, set, "a.example", text), 4000, 4900);
    assert_string_equal(text, "SERVFAIL:");
    assert_in_range(fixture->servers[0].questions, 2, 4); /* asked again */
    dns_upstreams_put(set);
}

static void truncated_answers_come_by_tcp(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    char text[8192];

    fixture->servers[0].behaviour = TRUNCATE;
    ask_and_run(fixture, set, "big.example", text);
    assert_int_equal(strncmp(text, "NOERROR: big.example 60 A 192.0.2.0 big", 39), 0);
    assert_int_equal(fixture->servers[0].questions, 1);
    assert_int_equal(fixture->servers[0].tcp, 1);
    dns_upstreams_put(set);
}

static void tcp_that_hangs_leads_to_the_next(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 2);
    char text[8192];

    fixture->servers[0].behaviour = TRUNCATE_AND_HANG;
    fixture->servers[1].behaviour = TRUNCATE;
    assert_in_range(ask_and_run(fixture, set, "big.example", text), 1500, 3000);
    assert_int_equal(strncmp(text, "NOERROR: big.example 60 A 192.0.2.1 big", 39), 0);
    dns_upstreams_put(set);
}

static void servers_without_edns_are_asked_without(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    char text[8192];

    fixture->servers[0].behaviour = NO_EDNS;
    ask_and_run(fixture, set, "a.example", text);
    assert_string_equal(text, "NOERROR: a.example 60 A 192.0.2.0");
    assert_int_equal(fixture->servers[0].questions, 2);
    ask_and_run(fixture, set, "b.example", text);
    assert_int_equal(fixture->servers[0].questions, 3);
    assert_int_equal(fixture->servers[0].last_edns, 0);
    dns_upstreams_put(set);
}

static void servers_that_fold_case_are_asked_without_0x20(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    char text[8192];

    fixture->servers[0].behaviour = FOLD_CASE;
    ask_and_run(fixture, set, "Some-Longer-Name.Example", text);
    assert_string_equal(text, "NOERROR: Some-Longer-Name.Example 60 A 192.0.2.0");
    assert_int_equal(fixture->servers[0].questions, 2);
    ask_and_run(fixture, set, "another-longer-name.example", text);
    assert_int_equal(fixture->servers[0].questions, 3);
    dns_upstreams_put(set);
}

static void forged_answers_are_none(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    char text[8192];

    fixture->servers[0].behaviour = LIE;
    ask_and_run(fixture, set, "a.example", text);
    assert_string_equal(text, "NOERROR: a.example 60 A 192.0.2.0");
    assert_int_equal(dns_forward_stats(fixture->forward)->strays, 5);
    dns_upstreams_put(set);
}

static void an_askers_oldest_makes_room(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    char first[8192] = "";
    unsigned done = 0;

    fixture->servers[0].behaviour = SILENT;
    ask(fixture, set, "oldest.example", first, &done);
    for (int i = 0; i < 99; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%d.example", i);
        ask(fixture, set, name, NULL, &done);
    }
    assert_int_equal(done, 0);
    ask(fixture, set, "newest.example", NULL, &done);
    assert_int_equal(done, 1);
    assert_string_equal(first, "SERVFAIL:");
    assert_int_equal(dns_forward_stats(fixture->forward)->shed, 1);
    dns_forward_cancel_all(fixture->forward, &fixture->quota);
    assert_int_equal(done, 101);
    assert_false(dns_forward_is_busy(fixture->forward));
    dns_upstreams_put(set);
}

/* Twenty askers with twenty questions each, in turn: nobody has too many, so the oldest of all make
 * room. */
static void sockets_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    struct dns_quota quotas[20] = {0};
    unsigned done = 0;

    fixture->servers[0].behaviour = SILENT;
    for (unsigned i = 0; i < 400; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%u.example", i);
        ask_for(fixture, &quotas[i % 20], set, name, NULL, &done);
    }
    assert_int_equal(done, 200);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(quotas[i].n_waiters, 10);
        dns_forward_cancel_all(fixture->forward, &quotas[i]);
    }
    dns_upstreams_put(set);
}

/* One asker with many makes room itself; another's question is not touched. */
static void an_asker_with_many_makes_room_for_others(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    struct dns_quota other = {0};
    unsigned others_done = 0;
    unsigned done = 0;

    dns_forward_free(fixture->forward);
    fixture->forward = dns_forward_new(&(struct dns_forward_config){.loop = fixture->loop,
                                                                    .cache = fixture->cache,
                                                                    .port = fixture->port,
                                                                    .max_waiters = 1000,
                                                                    .max_sockets = 200});
    fixture->servers[0].behaviour = SILENT;
    ask_for(fixture, &other, set, "other.example", NULL, &others_done);
    for (unsigned i = 0; i < 500; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%u.example", i);
        ask(fixture, set, name, NULL, &done);
    }
    assert_int_equal(others_done, 0);
    assert_int_equal(done, 301);
    dns_forward_cancel_all(fixture->forward, &other);
    dns_forward_cancel_all(fixture->forward, &fixture->quota);
    dns_upstreams_put(set);
}

static void many_at_once_lose_none(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    int size = 8 << 20;
    unsigned done = 0;

    dns_forward_free(fixture->forward);
    fixture->forward = dns_forward_new(&(struct dns_forward_config){.loop = fixture->loop,
                                                                    .cache = fixture->cache,
                                                                    .port = fixture->port,
                                                                    .max_waiters = 2048,
                                                                    .max_sockets = 900});
    setsockopt(fixture->servers[0].fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    for (int i = 0; i < 800; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%d.example", i);
        ask(fixture, set, name, NULL, &done);
    }
    run(fixture);
    assert_int_equal(done, 800);
    assert_int_equal(dns_forward_stats(fixture->forward)->failed, 0);
    assert_int_equal(dns_forward_stats(fixture->forward)->shed, 0);
    dns_upstreams_put(set);
}

static void an_empty_set_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 0);
    struct dns_waiter waiter = {.ops = &waiter_ops, .quota = &fixture->quota};
    struct message message;
    struct dns_query query;

    put_query(&message, 1, "a.example", 1, 0);
    assert_int_equal(dns_query_parse(message.data, message.length, &query), 0);
    assert_true(dns_forward_ask(fixture->forward, set, &query, &waiter) < 0);
    dns_upstreams_put(set);
}

static void sets_are_shared_and_ordered(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *a = set_of(fixture, 3);
    struct dns_upstreams *b = set_of(fixture, 3);
    struct dns_upstreams *one = set_of(fixture, 1);
    struct dns_server *order[DNS_UPSTREAMS_MAX];

    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, one);
    assert_ptr_equal(a->servers[0], one->servers[0]);
    dns_server_answered(a->servers[0], 9000);
    dns_server_answered(a->servers[1], 1000);
    dns_upstreams_order(a, order); /* both quick: as given */
    assert_ptr_equal(order[0], a->servers[0]);
    dns_server_slow(a->servers[0], 250000, 0);
    dns_upstreams_order(a, order);
    assert_ptr_equal(order[0], a->servers[1]);
    assert_ptr_equal(order[2], a->servers[0]);
    dns_server_failed(a->servers[1], 0);
    dns_server_failed(a->servers[2], 0);
    dns_server_failed(a->servers[2], 0);
    dns_upstreams_order(a, order);
    assert_ptr_equal(order[0], a->servers[0]);
    assert_ptr_equal(order[1], a->servers[1]);
    assert_false(dns_server_probe_due(a->servers[1], 999));
    assert_true(dns_server_probe_due(a->servers[1], 1000));
    assert_false(dns_server_probe_due(a->servers[1], 1001));
    dns_server_answered(a->servers[1], 1000);
    assert_false(dns_server_probe_due(a->servers[1], 100000));
    dns_upstreams_put(a);
    dns_upstreams_put(b);
    dns_upstreams_put(one);
}

/* Puts an answer into the cache that has expired a while ago. */
static void cache_put_expired(struct fixture *fixture, const struct dns_upstreams *set,
                              const char *name)
{
    static struct message message;
    struct dns_answer answer;
    struct dns_cache_key key = {.upstreams = set->id, .type = 1, .name = &answer.name};
    uint64_t now_ms = loop_now_ms(fixture->loop);

    put_header(&message, 1, 0x8180, 1, 1, 0, 0);
    put_question(&message, name, 1);
    put_record(&message, 0xc00c, 1, 1, "\300\0\2\143", 4);
    assert_true(dns_answer_parse(message.data, message.length, &answer));
    dns_cache_put(fixture->cache, &key, &answer, message.data, now_ms - 2000);
}

#define STALE_ANSWER "NOERROR: old.example 30 A 192.0.2.99"

static void what_expired_answers_when_all_fail(void **state)
{
    static const enum behaviour behaviours[] = {FAIL, REFUSE};
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    char text[8192];

    dns_cache_set_bounds(fixture->cache, 1 << 20, 3600);
    dns_forward_set_stale(fixture->forward, true);
    for (size_t i = 0; i < 2; i++) {
        fixture->servers[0].behaviour = behaviours[i];
        cache_put_expired(fixture, set, "old.example");
        ask_and_run(fixture, set, "old.example", text);
        assert_string_equal(text, STALE_ANSWER);
        ask_and_run(fixture, set, "other.example", text);
        assert_int_equal(strncmp(text, "NOERROR", 7) == 0, false);
    }
    assert_int_equal(dns_forward_stats(fixture->forward)->stale, 2);
    /* A good answer is better. */
    fixture->servers[0].behaviour = ANSWER;
    cache_put_expired(fixture, set, "old.example");
    ask_and_run(fixture, set, "old.example", text);
    assert_string_equal(text, "NOERROR: old.example 60 A 192.0.2.0");
    dns_upstreams_put(set);
}

static void what_expired_answers_before_the_client_gives_up(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    struct dns_cache_key key = {.upstreams = set->id, .type = 1};
    struct dns_stored stored;
    struct dns_name name;
    char text[8192];
    uint64_t took_ms;

    dns_cache_set_bounds(fixture->cache, 1 << 20, 3600);
    dns_forward_set_stale(fixture->forward, true);
    fixture->servers[0].behaviour = SILENT;
    cache_put_expired(fixture, set, "old.example");
    took_ms = ask_and_run(fixture, set, "old.example", text);
    assert_string_equal(text, STALE_ANSWER);
    assert_in_range(took_ms, 1750, 4000);
    /* The question goes on: its next attempt is answered, and refreshes the cache. */
    assert_false(dns_forward_is_busy(fixture->forward));
    fixture->servers[0].behaviour = ANSWER;
    dns_name_parse("old.example", &name);
    key.name = &name;
    for (int i = 0; i < 4000; i++) {
        struct loop_timer *timer = loop_timer_new(fixture->loop, tick_over, fixture);

        loop_timer_start(timer, 10);
        loop_run(fixture->loop);
        loop_timer_free(timer);
        if (dns_cache_find(fixture->cache, &key, loop_now_ms(fixture->loop), &stored) &&
            !stored.stale)
            break;
    }
    assert_true(dns_cache_find(fixture->cache, &key, loop_now_ms(fixture->loop), &stored));
    assert_false(stored.stale);
    dns_upstreams_put(set);
}

static void what_expired_is_no_answer_where_that_is_off(void **state)
{
    struct fixture *fixture = *state;
    struct dns_upstreams *set = set_of(fixture, 1);
    char text[8192];

    fixture->servers[0].behaviour = FAIL;
    cache_put_expired(fixture, set, "old.example");
    ask_and_run(fixture, set, "old.example", text);
    assert_string_equal(text, "SERVFAIL:");
    dns_upstreams_put(set);
}

static bool refuses_even(void *userdata, const uint8_t *data, const struct dns_answer *answer)
{
    (void)userdata;
    return data[answer->body_end - 1] % 2 == 0;
}

static void answers_are_refused_but_from_trusted_servers(void **state)
{
    struct fixture *fixture = *state;
    struct ip ips[1] = {server_ip(0)};
    struct dns_upstreams *set = set_of(fixture, 1);
    struct dns_upstreams *trusted = dns_upstreams_get_trusted(fixture->pool, ips, 1);
    struct dns_forward *former = fixture->forward;
    char text[8192];

    assert_ptr_not_equal(set, trusted);
    fixture->forward = dns_forward_new(&(struct dns_forward_config){.loop = fixture->loop,
                                                                    .cache = fixture->cache,
                                                                    .port = fixture->port,
                                                                    .max_waiters = 100,
                                                                    .max_sockets = 200,
                                                                    .refuses = refuses_even});
    dns_forward_free(former);
    ask_and_run(fixture, set, "inside.example", text); /* 192.0.2.0 */
    assert_string_equal(text, "REFUSED:");
    assert_int_equal(dns_cache_count(fixture->cache), 0);
    ask_and_run(fixture, trusted, "inside.example", text);
    assert_string_equal(text, "NOERROR: inside.example 60 A 192.0.2.0");
    ask_and_run(fixture, set, "inside.example", text); /* not from the other's cache */
    assert_string_equal(text, "REFUSED:");
    assert_int_equal(dns_forward_stats(fixture->forward)->refused, 2);
    dns_upstreams_put(set);
    dns_upstreams_put(trusted);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_server_answers),
        TEST(ports_are_drawn),
        TEST(a_question_is_asked_once),
        TEST(the_next_server_after_the_fuse),
        TEST(closed_port_and_errors_lead_on_at_once),
        TEST(rcodes_are_passed_on),
        TEST(nobody_there_is_servfail_at_once),
        TEST(silence_ends_before_the_client_does),
        TEST(truncated_answers_come_by_tcp),
        TEST(tcp_that_hangs_leads_to_the_next),
        TEST(servers_without_edns_are_asked_without),
        TEST(servers_that_fold_case_are_asked_without_0x20),
        TEST(forged_answers_are_none),
        TEST(an_askers_oldest_makes_room),
        TEST(sockets_are_bounded),
        TEST(an_asker_with_many_makes_room_for_others),
        TEST(many_at_once_lose_none),
        TEST(an_empty_set_is_refused),
        TEST(what_expired_answers_when_all_fail),
        TEST(what_expired_answers_before_the_client_gives_up),
        TEST(what_expired_is_no_answer_where_that_is_off),
        TEST(answers_are_refused_but_from_trusted_servers),
        TEST(sets_are_shared_and_ordered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
