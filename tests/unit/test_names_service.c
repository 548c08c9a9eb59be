/* SPDX-License-Identifier: GPL-2.0-or-later */
/* names.h with a real worker in its sandbox, in a network namespace of the test's own. Gateways are
 * addresses of 127/8; a guest's queries come from its address there. Needs root: the worker becomes
 * another user. */
#include <signal.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/record.h"
#include "names/names.h"
#include "worker/worker.h"
#include "worker_process.h"

#include "dns_wire.h"

#define WORKER_UID 65534

struct fixture {
    struct loop *loop;
    struct names *names;
    char run_dir[64];
    char resolv_conf[128];
    unsigned fds;
};

static struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    assert_int_equal(ip_parse(text, &ip), 0);
    return ip;
}

static void resolv_conf_write(struct fixture *fixture, const char *text)
{
    FILE *file = fopen(fixture->resolv_conf, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

static void start(struct fixture *fixture)
{
    struct names_config config = {.loop = fixture->loop,
                                  .run_dir = fixture->run_dir,
                                  .uid = WORKER_UID,
                                  .gid = WORKER_UID,
                                  .domain = "moat.internal",
                                  .resolv_conf = fixture->resolv_conf,
                                  .ttl_s = 60};
    struct error error = ERROR_INIT;

    if (names_new(&config, &fixture->names, &error) < 0)
        fail_msg("names_new: %s", error.text);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error error = ERROR_INIT;

    if (geteuid() != 0)
        skip();
    run_dir_make(fixture->run_dir);
    snprintf(fixture->resolv_conf, sizeof(fixture->resolv_conf), "%s/resolv.conf",
             fixture->run_dir);
    resolv_conf_write(fixture, "nameserver 127.0.0.53\n");
    assert_int_equal(loop_new(&fixture->loop, &error), 0);
    fixture->fds = fds_count();
    start(fixture);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    names_free(fixture->names, false);
    assert_int_equal(fds_count(), fixture->fds);
    unlink(fixture->resolv_conf);
    assert_int_equal(rmdir(fixture->run_dir), 0);
    loop_free(fixture->loop);
    free(fixture);
    return 0;
}

static int try_network(struct fixture *fixture, int64_t id, const char *name, const char *gateway,
                       bool dns, struct error *error)
{
    struct network network = {.id = id, .gateway = ip_of(gateway), .dns = dns};

    snprintf(network.name, sizeof(network.name), "%s", name);
    network.subnet = (struct cidr){.ip = network.gateway, .prefix = 24};
    network.subnet = cidr_mask(&network.subnet);
    return names_network_add(fixture->names, &network, error);
}

static void add_network(struct fixture *fixture, int64_t id, const char *name, const char *gateway)
{
    struct error error = ERROR_INIT;

    if (try_network(fixture, id, name, gateway, true, &error) < 0)
        fail_msg("names_network_add: %s", error.text);
}

static void add_endpoint(struct fixture *fixture, int64_t id, int64_t network, const char *name,
                         const char *ip)
{
    struct guest guest = {.id = id};
    struct endpoint endpoint = {.id = id, .network_id = network, .ip = ip_of(ip)};
    struct error error = ERROR_INIT;

    snprintf(guest.name, sizeof(guest.name), "%s", name);
    if (names_endpoint_add(fixture->names, &guest, &endpoint, &error) < 0)
        fail_msg("names_endpoint_add: %s", error.text);
}

static int client_open(const char *source, const char *gateway)
{
    struct ip from = ip_of(source);
    struct ip to = ip_of(gateway);
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(&from, 0, &address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    length = ip_to_sockaddr(&to, 53, &address);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
    return fd;
}

static void query_send(int fd, const char *name)
{
    struct message message;

    put_query(&message, 1, name, 1, 0);
    assert_int_equal(send(fd, message.data, message.length, 0), message.length);
}

/* Blocks: the loop of "moatd" does not turn meanwhile. */
static const char *answer_receive(int fd, char text[8192])
{
    static struct message message;
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    ssize_t got;

    if (poll(&readable, 1, WAIT_MS) != 1)
        return "nothing";
    got = recv(fd, message.data, sizeof(message.data), 0);
    if (got <= 0)
        return "refused";
    message.length = (size_t)got;
    return get_text(&message, text, 8192);
}

static const char *ask(const char *source, const char *gateway, const char *name, char text[8192])
{
    int fd = client_open(source, gateway);
    const char *answer;

    query_send(fd, name);
    answer = answer_receive(fd, text);
    close(fd);
    return answer;
}

static bool readable(void *userdata)
{
    struct pollfd poll_fd = {.fd = *(int *)userdata, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

/* --- tests --- */

static void names_are_there_when_attach_has_answered(void **state)
{
    struct fixture *fixture = *state;
    char text[8192];

    add_network(fixture, 1, "default", "127.0.5.1");
    add_endpoint(fixture, 1, 1, "web", "127.0.5.2");
    names_settled(fixture->names);
    for (int i = 0; i < 300; i++) {
        add_endpoint(fixture, 2, 1, "flash", "127.0.5.3");
        assert_string_equal(ask("127.0.5.2", "127.0.5.1", "flash", text),
                            "NOERROR aa: flash 60 A 127.0.5.3");
        names_endpoint_remove(fixture->names, 2);
        assert_string_equal(ask("127.0.5.2", "127.0.5.1", "flash", text),
                            "NXDOMAIN aa: auth . 5 SOA");
    }
}

/* More than the channel takes at once, while the worker can't read: the last is known all the same.
 */
static void a_burst_is_known_whole(void **state)
{
    struct fixture *fixture = *state;
    char text[8192];
    int fd;

    add_network(fixture, 1, "default", "127.0.5.1");
    add_endpoint(fixture, 1, 1, "web", "127.0.5.2");
    names_settled(fixture->names);
    ask("127.0.5.2", "127.0.5.1", "web", text);
    for (int i = 0; i < 5000; i++) {
        char name[32];
        char ip[32];

        snprintf(name, sizeof(name), "g%d", i);
        snprintf(ip, sizeof(ip), "127.1.%d.%d", i / 250, i % 250);
        add_endpoint(fixture, 100 + i, 1, name, ip);
    }
    fd = client_open("127.0.5.2", "127.0.5.1");
    query_send(fd, "g4999");
    assert_true(wait_for(fixture->loop, readable, &fd));
    assert_string_equal(answer_receive(fd, text), "NOERROR aa: g4999 60 A 127.1.19.249");
    close(fd);
}

struct crash {
    struct fixture *fixture;
    pid_t former;
};

static bool is_restarted(void *userdata)
{
    struct crash *crash = userdata;
    struct names_status status;

    names_status_get(crash->fixture->names, &status);
    return status.pid != 0 && status.pid != crash->former;
}

static void a_crash_loses_no_name_and_no_query(void **state)
{
    struct fixture *fixture = *state;
    struct names_status status;
    struct crash crash = {.fixture = fixture};
    struct error error = ERROR_INIT;
    char address[] = "10.1.1.1";
    struct dns_record record = {
        .id = 1, .name = "printer.example", .type = RECORD_A, .value = address};
    char text[8192];
    int fd;

    add_network(fixture, 1, "default", "127.0.5.1");
    add_endpoint(fixture, 1, 1, "web", "127.0.5.2");
    assert_int_equal(names_record_add(fixture->names, &record, &error), 0);
    names_settled(fixture->names);
    ask("127.0.5.2", "127.0.5.1", "web", text);
    names_status_get(fixture->names, &status);
    crash.former = status.pid;
    assert_int_equal(kill(status.pid, SIGKILL), 0);
    fd = client_open("127.0.5.2", "127.0.5.1");
    query_send(fd, "printer.example"); /* it waits in the socket that moatd keeps */
    assert_true(wait_for(fixture->loop, is_restarted, &crash));
    assert_string_equal(answer_receive(fd, text), "NOERROR aa: printer.example 60 A 10.1.1.1");
    assert_string_equal(ask("127.0.5.2", "127.0.5.1", "web", text),
                        "NOERROR aa: web 60 A 127.0.5.2");
    close(fd);
}

static void a_restart_of_moatd_keeps_the_sockets(void **state)
{
    struct fixture *fixture = *state;
    char text[8192];
    int fd;

    add_network(fixture, 1, "default", "127.0.5.1");
    add_network(fixture, 2, "gone", "127.0.6.1");
    add_endpoint(fixture, 1, 1, "web", "127.0.5.2");
    add_endpoint(fixture, 2, 2, "old", "127.0.6.2");
    names_settled(fixture->names);
    ask("127.0.5.2", "127.0.5.1", "web", text);
    names_free(fixture->names, true);
    /* Nobody is there: it goes on. */
    assert_string_equal(ask("127.0.5.2", "127.0.5.1", "web", text),
                        "NOERROR aa: web 60 A 127.0.5.2");
    start(fixture);
    fd = client_open("127.0.5.2", "127.0.5.1");
    query_send(fd, "new");
    add_network(fixture, 1, "default", "127.0.5.1");
    add_endpoint(fixture, 1, 1, "web", "127.0.5.2");
    add_endpoint(fixture, 3, 1, "new", "127.0.5.3");
    names_settled(fixture->names);
    assert_string_equal(answer_receive(fd, text), "NOERROR aa: new 60 A 127.0.5.3");
    assert_string_equal(ask("127.0.6.2", "127.0.6.1", "old", text),
                        "refused"); /* its socket is closed */
    close(fd);
}

static int socket_taken(int type, const char *ip_text)
{
    struct ip ip = ip_of(ip_text);
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(&ip, 53, &address);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&address, length) < 0 ||
        (type == SOCK_STREAM && listen(fd, 1) < 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void a_taken_port_is_refused_and_nothing_stays(void **state)
{
    static const int types[] = {SOCK_DGRAM, SOCK_STREAM};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        struct error error = ERROR_INIT;
        int taken = socket_taken(types[i], "127.0.5.1");
        int other;

        assert_true(taken >= 0);
        assert_true(try_network(fixture, 1, "default", "127.0.5.1", true, &error) < 0);
        assert_int_equal(error.reason, REASON_PORT_IN_USE);
        other = socket_taken(types[i] == SOCK_DGRAM ? SOCK_STREAM : SOCK_DGRAM, "127.0.5.1");
        assert_true(other >= 0);
        close(other);
        close(taken);
    }
    add_network(fixture, 1, "default", "127.0.5.1");
}

static void without_dns_no_socket_is_bound(void **state)
{
    struct fixture *fixture = *state;
    struct error error = ERROR_INIT;
    char text[8192];

    assert_int_equal(try_network(fixture, 1, "default", "127.0.5.1", false, &error), 0);
    add_endpoint(fixture, 1, 1, "web", "127.0.5.2");
    names_settled(fixture->names);
    assert_string_equal(ask("127.0.5.2", "127.0.5.1", "web", text), "refused");
    assert_int_equal(try_network(fixture, 1, "default", "127.0.5.1", true, &error), 0);
    assert_string_equal(ask("127.0.5.2", "127.0.5.1", "web", text),
                        "NOERROR aa: web 60 A 127.0.5.2");
    names_network_remove(fixture->names, 1);
    names_network_remove(fixture->names, 1);       /* twice is fine */
    add_network(fixture, 2, "other", "127.0.7.1"); /* and bound again elsewhere */
    add_endpoint(fixture, 2, 2, "web2", "127.0.7.2");
    assert_string_equal(ask("127.0.7.2", "127.0.7.1", "web2", text),
                        "NOERROR aa: web2 60 A 127.0.7.2");
}

/* The worker has not read of the removal yet: no reason to refuse. */
static void a_removed_networks_address_can_be_used_at_once(void **state)
{
    struct fixture *fixture = *state;

    add_network(fixture, 1, "default", "127.0.5.1");
    names_settled(fixture->names);
    for (int i = 2; i < 30; i++) {
        names_network_remove(fixture->names, i - 1);
        add_network(fixture, i, "default", "127.0.5.1");
    }
}

struct upstreams {
    struct fixture *fixture;
    const char *wanted;
};

static bool upstream_is(void *userdata)
{
    struct upstreams *wanted = userdata;
    const struct ips *upstreams = names_upstreams(wanted->fixture->names);
    struct ip ip = ip_of(wanted->wanted);

    return upstreams->count == 1 && ip_equal(&upstreams->items[0], &ip);
}

static void own_gateways_are_no_upstreams(void **state)
{
    struct fixture *fixture = *state;
    struct upstreams wanted = {.fixture = fixture, .wanted = "127.0.0.53"};

    assert_true(upstream_is(&wanted));
    resolv_conf_write(fixture, "nameserver 127.0.5.1\nnameserver 127.0.0.54\n");
    add_network(fixture, 1, "default", "127.0.5.1");
    wanted.wanted = "127.0.0.54";
    assert_true(wait_for(fixture->loop, upstream_is, &wanted));
}

static void faults_are_reported(void **state)
{
#ifdef MOAT_FAULTS
    struct fixture *fixture = *state;
    struct error error = ERROR_INIT;
    struct guest guest = {.id = 1, .name = "web"};
    struct endpoint endpoint = {.id = 1, .network_id = 1, .ip = ip_of("127.0.5.2")};

    setenv("MOAT_FAULT", "names.network,names.endpoint", 1);
    assert_true(try_network(fixture, 1, "default", "127.0.5.1", true, &error) < 0);
    error = ERROR_INIT;
    assert_true(names_endpoint_add(fixture->names, &guest, &endpoint, &error) < 0);
    unsetenv("MOAT_FAULT");
    add_network(fixture, 1, "default", "127.0.5.1");
#else
    (void)state;
    skip();
#endif
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(faults_are_reported), /* first: it counts passes */
        TEST(names_are_there_when_attach_has_answered),
        TEST(a_burst_is_known_whole),
        TEST(a_crash_loses_no_name_and_no_query),
        TEST(a_restart_of_moatd_keeps_the_sockets),
        TEST(a_taken_port_is_refused_and_nothing_stays),
        TEST(without_dns_no_socket_is_bound),
        TEST(a_removed_networks_address_can_be_used_at_once),
        TEST(own_gateways_are_no_upstreams),
    };

    if (argc > 1 && strcmp(argv[1], "--worker") == 0)
        return worker_main(argc, argv);
    log_init("test", LOG_LEVEL_ERROR);
    if (!netns_enter()) {
        fprintf(stderr, "no network namespace can be made here: skipped\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
