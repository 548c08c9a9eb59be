/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections of systemd-resolved: the other end of a socket pair plays it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/dns_hook.h"
#include "worker/hook_call.h"

#define FILTER "{\"method\":\"io.systemd.Resolve.Hook.QueryFilter\",\"more\":true}"
#define QUESTION(keys)                                                                          \
    "{\"method\":\"io.systemd.Resolve.Hook.ResolveRecord\",\"parameters\":{\"question\":[" keys \
    "]}}"
#define KEY(name) "{\"key\":{\"class\":1,\"type\":1,\"name\":\"" name "\"}}"
#define NXDOMAIN "{\"parameters\":{\"rcode\":3}}"
#define WEB                                                                                     \
    "{\"parameters\":{\"answer\":[{\"raw\":\"A3dlYgRtb2F0CGludGVybmFsAAABAAEAAAA8AAQKWAAF\"}]," \
    "\"rcode\":0}}"

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct dns_hook *hook;
    struct zone *zone;
    unsigned syncs;
};

static void synced(void *userdata)
{
    ((struct fixture *)userdata)->syncs++;
}

static void tick(void *userdata)
{
    loop_stop(((struct fixture *)userdata)->loop);
}

static void turn(struct fixture *fixture)
{
    for (int i = 0; i < 3; i++) {
        loop_timer_start(fixture->timer, 1);
        loop_run(fixture->loop);
    }
}

static void network_add(struct fixture *fixture, int64_t id, const char *name, const char *subnet)
{
    struct zone_network config = {.id = id};
    struct zone_network *network;

    assert_int_equal(cidr_parse(subnet, &config.subnet), 0);
    config.gateway = ip_add(&config.subnet.ip, 1);
    assert_int_equal(dns_name_parse(name, &config.label), 0);
    assert_int_equal(zone_network_set(fixture->zone, &config, &network), 0);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct zone_endpoint_config web = {
        .id = 1, .guest_id = 1, .network_id = 1, .names = {"web"}, .n_names = 1};
    struct error error = ERROR_INIT;

    if (!fixture || loop_new(&fixture->loop, &error) < 0)
        return -1;
    *state = fixture;
    fixture->timer = loop_timer_new(fixture->loop, tick, fixture);
    fixture->hook = dns_hook_new(
        &(struct dns_hook_config){.loop = fixture->loop, .sync = synced, .userdata = fixture});
    assert_int_equal(zone_new("moat.internal", 60, NULL, NULL, &fixture->zone), 0);
    network_add(fixture, 1, "default", "10.88.0.0/16");
    assert_int_equal(ip_parse("10.88.0.5", &web.ip), 0);
    assert_int_equal(zone_endpoint_set(fixture->zone, &web), 0);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    dns_hook_free(fixture->hook);
    zone_free(fixture->zone);
    loop_timer_free(fixture->timer);
    loop_free(fixture->loop);
    free(fixture);
    return 0;
}

/* Our end of a connection. */
static int connection_new(struct fixture *fixture)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    dns_hook_add(fixture->hook, fds[1]);
    return fds[0];
}

static void ask(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text) + 1, MSG_NOSIGNAL), strlen(text) + 1);
}

static void assert_reply(struct fixture *fixture, int fd, const char *expected)
{
    char text[4096];
    ssize_t length;

    turn(fixture);
    length = recv(fd, text, sizeof(text), 0);
    assert_int_equal(length, strlen(expected) + 1);
    assert_string_equal(text, expected);
}

static void assert_nothing(struct fixture *fixture, int fd)
{
    char byte;

    turn(fixture);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static void assert_ended(struct fixture *fixture, int fd)
{
    char byte;

    turn(fixture);
    /* Reset where what was sent has not been read. */
    assert_true(recv(fd, &byte, 1, 0) == 0 || errno == ECONNRESET);
}

static void test_nothing_is_answered_before_the_start(void **state)
{
    struct fixture *fixture = *state;
    int fd = connection_new(fixture);

    ask(fd, QUESTION(KEY("web.moat.internal")));
    assert_nothing(fixture, fd);
    dns_hook_start(fixture->hook, fixture->zone);
    assert_reply(fixture, fd, WEB);
    assert_true(fixture->syncs > 0);
    dns_hook_stop(fixture->hook);
    assert_ended(fixture, fd);
    close(fd);
}

static void test_calls_in_pieces_and_together(void **state)
{
    static const char call[] = QUESTION(KEY("nobody.moat.internal"));
    struct fixture *fixture = *state;
    int fd = connection_new(fixture);

    dns_hook_start(fixture->hook, fixture->zone);
    for (size_t i = 0; i < sizeof(call) - 1; i++) {
        assert_int_equal(send(fd, call + i, 1, 0), 1);
        if (i % 16 == 0)
            assert_nothing(fixture, fd);
    }
    assert_int_equal(send(fd, "", 1, 0), 1);
    assert_reply(fixture, fd, NXDOMAIN);
    assert_int_equal(send(fd, call, sizeof(call), 0), sizeof(call));
    assert_int_equal(send(fd, call, sizeof(call), 0), sizeof(call));
    turn(fixture);
    for (int i = 0; i < 2; i++) {
        char text[sizeof(NXDOMAIN)];

        assert_int_equal(recv(fd, text, sizeof(text), 0), sizeof(text));
        assert_string_equal(text, NXDOMAIN);
    }
    close(fd);
}

static void test_who_does_not_read_is_not_read(void **state)
{
    struct fixture *fixture = *state;
    int fd = connection_new(fixture);
    int small = 1;
    unsigned sent = 0;
    unsigned answered = 0;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    dns_hook_start(fixture->hook, fixture->zone);
    for (int i = 0; i < 2000; i++) {
        static const char call[] = QUESTION(KEY("web.moat.internal"));

        if (send(fd, call, sizeof(call), MSG_NOSIGNAL) == sizeof(call))
            sent++;
        else
            turn(fixture);
    }
    for (int idle = 0; idle < 5;) {
        char text[sizeof(WEB)];
        ssize_t length = recv(fd, text, sizeof(text), MSG_WAITALL);

        turn(fixture);
        idle = length == sizeof(text) ? 0 : idle + 1;
        answered += length == sizeof(text);
    }
    assert_true(sent > 100);
    assert_int_equal(answered, sent);
    close(fd);
}

static void test_filters_follow(void **state)
{
    struct fixture *fixture = *state;
    int fd = connection_new(fixture);

    dns_hook_start(fixture->hook, fixture->zone);
    ask(fd, FILTER);
    assert_reply(fixture, fd,
                 "{\"parameters\":{\"filterDomains\":[\"moat.internal\",\"88.10.in-addr.arpa\"]},"
                 "\"continues\":true}");
    network_add(fixture, 2, "blue", "10.0.0.0/9"); /* not of whole octets: a little more is named */
    dns_hook_filter_changed(fixture->hook);
    assert_reply(fixture, fd,
                 "{\"parameters\":{\"filterDomains\":[\"moat.internal\",\"88.10.in-addr.arpa\","
                 "\"10.in-addr.arpa\"]},\"continues\":true}");
    ask(fd, FILTER); /* a call after that is none that Varlink knows */
    assert_ended(fixture, fd);
    dns_hook_filter_changed(fixture->hook);
    close(fd);
}

static void test_bounds(void **state)
{
    static char call[HOOK_CALL_MAX + 2];
    struct fixture *fixture = *state;
    int fd = connection_new(fixture);
    int others[64];

    dns_hook_start(fixture->hook, fixture->zone);
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
        others[i] = connection_new(fixture);
    assert_ended(fixture, others[63]); /* one too many */
    ask(fd,
        QUESTION(KEY("a.moat.internal") "," KEY("a.moat.internal") "," KEY("web.moat.internal")));
    assert_reply(fixture, fd, WEB);
    memset(call, ' ', sizeof(call));
    memcpy(call, FILTER, sizeof(FILTER) - 1);
    call[HOOK_CALL_MAX] = '\0'; /* as long as may be */
    ask(fd, call);
    turn(fixture);
    assert_true(recv(fd, call, sizeof(call), 0) > 0);
    close(fd);
    memset(call, ' ', sizeof(call) - 1);
    call[sizeof(call) - 1] = '\0';
    ask(others[0], call);
    assert_ended(fixture, others[0]);
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
        close(others[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_answered_before_the_start, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_calls_in_pieces_and_together, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_who_does_not_read_is_not_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_filters_follow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
