/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "worker/channel.h"
#include "worker/supervisor.h"
#include "worker/worker.h"
#include "worker_process.h"

/* ---------------------------------------------------------------- a worker for the tests */

enum {
    TEST_ECHO = WORKER_FIRST_OWN, /* answered by the same */
    TEST_SOCKET,                  /* struct worker_socket + fd: kept */
    TEST_CRASH,
    TEST_HANG,
    TEST_DO,   /* int: tries what the sandbox forbids; answers TEST_DID if it lives on */
    TEST_DID,  /* int: what the call returned */
    TEST_BUSY, /* while draining: something runs */
};

struct test_worker {
    struct worker_runtime *runtime;
    struct worker_socket keys[256];
    int fds[256];
    size_t n_fds;
    bool draining;
    bool busy;
    bool leave;
};

enum {
    DO_OPEN,
    DO_EXEC,
    DO_FORK,
    DO_PTRACE,
    DO_NETLINK,
    DO_UNIX,
    DO_RAW,
    DO_MMAP_EXEC,
    DO_LISTEN,
    DO_KILL,
    DO_TCP,
    DO_UDP6,
    DO_COUNT
};

static long do_forbidden(int what)
{
    switch (what) {
    case DO_OPEN:
        return open("/", O_RDONLY | O_DIRECTORY);
    case DO_EXEC:
        return execve("/proc/self/exe", (char *[]){NULL}, (char *[]){NULL});
    case DO_FORK:
        return syscall(SYS_fork);
    case DO_PTRACE:
        return syscall(SYS_ptrace, 0, 0, 0, 0);
    case DO_NETLINK:
        return socket(AF_NETLINK, SOCK_RAW, 0);
    case DO_UNIX:
        return socket(AF_UNIX, SOCK_STREAM, 0);
    case DO_RAW:
        return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    case DO_MMAP_EXEC:
        return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
               MAP_FAILED;
    case DO_LISTEN:
        return listen(WORKER_LISTENER_FD, 1);
    case DO_KILL:
        return kill(1, 0);
    case DO_TCP:
        return socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    default:
        return socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP);
    }
}

static void test_message(void *userdata, uint16_t type, const void *payload, size_t length,
                         int *fds, size_t n_fds)
{
    struct test_worker *worker = userdata;
    int number = 0;

    if (length >= sizeof(number))
        memcpy(&number, payload, sizeof(number));
    if (type == TEST_ECHO)
        worker_runtime_send(worker->runtime, TEST_ECHO, payload, length);
    if (type == TEST_CRASH)
        kill(getpid(), SIGABRT);
    if (type == TEST_BUSY)
        worker->busy = number != 0;
    while (type == TEST_HANG)
        ;
    if (type == TEST_DO) {
        number = (int)do_forbidden(number);
        worker_runtime_send(worker->runtime, TEST_DID, &number, sizeof(number));
    }
    for (size_t i = 0; type == TEST_SOCKET && i < n_fds && worker->n_fds < 256; i++) {
        memcpy(&worker->keys[worker->n_fds],
               (const unsigned char *)payload + i * sizeof(struct worker_socket),
               sizeof(struct worker_socket));
        worker->fds[worker->n_fds++] = TAKE_FD(fds[i]);
    }
}

static void test_sockets(void *userdata, struct worker_handover *handover)
{
    struct test_worker *worker = userdata;

    for (size_t i = 0; i < worker->n_fds; i++)
        worker_handover_add(handover, &worker->keys[i], worker->fds[i]);
}

static void test_drain(void *userdata)
{
    struct test_worker *worker = userdata;

    worker->draining = true;
    for (size_t i = 0; i < worker->n_fds; i++)
        close(worker->fds[i]);
    worker->n_fds = 0;
}

static bool test_serves(void *userdata)
{
    const struct test_worker *worker = userdata;

    return worker->draining ? worker->busy : worker->n_fds > 0;
}

static int test_worker_run(struct worker_runtime *runtime)
{
    static const struct worker_kind_ops ops = {test_message, test_sockets, test_drain, test_serves};
    static struct test_worker worker;

    worker.runtime = runtime;
    worker_runtime_start(runtime, &ops, &worker);
    while (!worker_runtime_is_done(runtime)) {
        struct pollfd ready = {.fd = worker_runtime_fd(runtime), .events = POLLIN};

        poll(&ready, 1, -1);
        worker_runtime_handle(runtime);
    }
    return 0;
}

static const struct worker_kind kinds[] = {{"test", test_worker_run}, {NULL, NULL}};

/* ---------------------------------------------------------------- the daemon's side */

struct fixture {
    struct loop *loop;
    struct worker *worker;
    char run_dir[64];
    unsigned fds;
    unsigned started;
    unsigned echoes;
    int last_echo;
    bool in_order;
    int did;
    bool has_done;
    pid_t stopped;
    unsigned n_synced;
    uint64_t asked; /* worker_sync_begin */
};

static void on_started(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->started++;
}

static void on_message(void *userdata, uint16_t type, const void *payload, size_t length)
{
    struct fixture *fixture = userdata;
    int number;

    assert_true(length >= sizeof(number));
    memcpy(&number, payload, sizeof(number));
    if (type == TEST_ECHO) {
        fixture->in_order = fixture->in_order && number == fixture->last_echo + 1;
        fixture->last_echo = number;
        fixture->echoes++;
    } else if (type == TEST_DID) {
        fixture->did = number;
        fixture->has_done = true;
    }
}

static void on_synced(void *userdata)
{
    ((struct fixture *)userdata)->n_synced++;
}

static const struct worker_ops ops = {
    .started = on_started, .message = on_message, .synced = on_synced};

static void start_with(struct fixture *fixture, uid_t uid)
{
    struct worker_config config = {.loop = fixture->loop,
                                   .kind = "test",
                                   .run_dir = fixture->run_dir,
                                   .uid = uid,
                                   .gid = uid,
                                   .without_root = uid == 0,
                                   .log_level = LOG_LEVEL_ERROR};
    struct error error = ERROR_INIT;

    if (worker_new(&config, &ops, fixture, &fixture->worker, &error) < 0)
        fail_msg("worker_new: %s", error.text);
}

static void start(struct fixture *fixture)
{
    start_with(fixture, 0);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error error = ERROR_INIT;

    run_dir_make(fixture->run_dir);
    assert_int_equal(loop_new(&fixture->loop, &error), 0);
    fixture->fds = fds_count();
    fixture->last_echo = -1;
    fixture->in_order = true;
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    worker_free(fixture->worker, false);
    assert_int_equal(fds_count(), fixture->fds);
    assert_int_equal(run_dir_count(fixture->run_dir), 0);
    assert_int_equal(rmdir(fixture->run_dir), 0);
    loop_free(fixture->loop);
    free(fixture);
    return 0;
}

static void send_number(struct fixture *fixture, uint16_t type, int number)
{
    struct error error = ERROR_INIT;

    assert_int_equal(worker_send(fixture->worker, type, &number, sizeof(number), NULL, 0, &error),
                     0);
}

static bool has_echoed(void *userdata)
{
    struct fixture *fixture = userdata;

    return fixture->echoes > 0;
}

static bool has_restarted(void *userdata)
{
    struct fixture *fixture = userdata;

    return fixture->started > 1;
}

static bool has_done_or_died(void *userdata)
{
    struct fixture *fixture = userdata;

    return fixture->has_done || fixture->started > 1;
}

/* ---------------------------------------------------------------- tests */

static void started_comes_before_new_returns(void **state)
{
    struct fixture *fixture = *state;

    start(fixture);
    assert_int_equal(fixture->started, 1);
    assert_true(worker_pid(fixture->worker) > 0);
    assert_true(file_exists(fixture->run_dir, "worker-test.sock"));
}

static void only_root_may_connect(void **state)
{
    struct fixture *fixture = *state;
    struct stat status;
    char path[128];

    start(fixture);
    snprintf(path, sizeof(path), "%s/worker-test.sock", fixture->run_dir);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void messages_arrive(void **state)
{
    struct fixture *fixture = *state;

    start(fixture);
    send_number(fixture, TEST_ECHO, 0);
    assert_true(wait_for(fixture->loop, has_echoed, fixture));
}

static bool has_echoed_many(void *userdata)
{
    struct fixture *fixture = userdata;

    return fixture->echoes == 200;
}

static void more_than_the_socket_takes_is_queued_in_order(void **state)
{
    struct fixture *fixture = *state;
    struct error error = ERROR_INIT;
    _cleanup_free_ char *payload = calloc(1, WORKER_MESSAGE_MAX);

    start(fixture);
    for (int i = 0; i < 200; i++) {
        memcpy(payload, &i, sizeof(i));
        assert_int_equal(
            worker_send(fixture->worker, TEST_ECHO, payload, WORKER_MESSAGE_MAX, NULL, 0, &error),
            0);
    }
    assert_true(wait_for(fixture->loop, has_echoed_many, fixture));
    assert_true(fixture->in_order);
}

static void too_long_a_message_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct error error = ERROR_INIT;
    _cleanup_free_ char *payload = calloc(1, WORKER_MESSAGE_MAX + 1);

    start(fixture);
    assert_int_equal(
        worker_send(fixture->worker, TEST_ECHO, payload, WORKER_MESSAGE_MAX + 1, NULL, 0, &error),
        -EMSGSIZE);
}

static void sync_waits_and_keeps_messages_for_the_loop(void **state)
{
    struct fixture *fixture = *state;

    start(fixture);
    for (int i = 0; i < 50; i++)
        send_number(fixture, TEST_ECHO, i);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    assert_int_equal(fixture->echoes, 0);
    assert_true(wait_for(fixture->loop, has_echoed, fixture));
    assert_int_equal(fixture->last_echo, 49);
    assert_true(fixture->in_order);
}

static void sync_with_a_hung_worker_ends_in_time(void **state)
{
    struct fixture *fixture = *state;

    start(fixture);
    send_number(fixture, TEST_HANG, 0);
    assert_int_equal(worker_sync(fixture->worker, 20), -ETIMEDOUT);
}

static void a_crash_is_followed_by_a_restart_within_100_ms(void **state)
{
    struct fixture *fixture = *state;
    pid_t before;
    uint64_t crashed_ms;

    start(fixture);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    before = worker_pid(fixture->worker);
    crashed_ms = loop_now_ms(fixture->loop);
    send_number(fixture, TEST_CRASH, 0);
    assert_true(wait_for(fixture->loop, has_restarted, fixture));
    send_number(fixture, TEST_ECHO, 0);
    assert_true(wait_for(fixture->loop, has_echoed, fixture));
    assert_true(loop_now_ms(fixture->loop) - crashed_ms < 100);
    assert_int_not_equal(worker_pid(fixture->worker), before);
}

static bool has_restarted_thrice(void *userdata)
{
    struct fixture *fixture = userdata;

    if (fixture->started < 4 && worker_pid(fixture->worker))
        kill(worker_pid(fixture->worker), SIGKILL);
    return fixture->started == 4;
}

static void repeated_crashes_are_slowed_down(void **state)
{
    struct fixture *fixture = *state;
    uint64_t start_ms = loop_now_ms(fixture->loop);

    start(fixture);
    assert_true(wait_for(fixture->loop, has_restarted_thrice, fixture));
    /* 0, 100 and 200 ms */
    assert_true(loop_now_ms(fixture->loop) - start_ms >= 290);
}

static void sending_while_it_is_restarted_is_no_error(void **state)
{
    struct fixture *fixture = *state;

    start(fixture);
    kill(worker_pid(fixture->worker), SIGKILL);
    for (int i = 0; i < 100; i++)
        send_number(fixture, TEST_ECHO, i);
    assert_true(wait_for(fixture->loop, has_restarted, fixture));
}

/* ---------------------------------------------------------------- takeover */

static int socket_bound(struct worker_socket *ret_key)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *ret_key = (struct worker_socket){
        .protocol = IPPROTO_UDP, .family = AF_INET, .port = ntohs(address.sin_port)};
    memcpy(ret_key->address, &address.sin_addr, 4);
    return fd;
}

static struct worker_socket give_socket(struct fixture *fixture)
{
    struct error error = ERROR_INIT;
    struct worker_socket key;
    int fd = socket_bound(&key);

    assert_int_equal(worker_send(fixture->worker, TEST_SOCKET, &key, sizeof(key), &fd, 1, &error),
                     0);
    close(fd);
    return key;
}

static int take_socket(struct fixture *fixture, const struct worker_socket *key)
{
    struct ip ip = ip_from_bytes(key->family, key->address);

    return worker_inherited_take(fixture->worker, key->protocol, &ip, key->port);
}

/* moatd goes and comes back. Returns a pidfd of the worker that it left. */
static int restart(struct fixture *fixture)
{
    int pidfd = pidfd_open(worker_pid(fixture->worker), 0);

    worker_free(fixture->worker, true);
    start(fixture);
    return pidfd;
}

static void sockets_come_back_and_the_former_worker_ends(void **state)
{
    struct fixture *fixture = *state;
    struct worker_socket keys[100];
    int pidfd;

    start(fixture);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        keys[i] = give_socket(fixture);
    pidfd = restart(fixture);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        struct sockaddr_in address;
        socklen_t length = sizeof(address);
        int fd = take_socket(fixture, &keys[i]);

        assert_true(fd >= 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
        assert_int_equal(ntohs(address.sin_port), keys[i].port);
        close(fd);
        assert_int_equal(take_socket(fixture, &keys[i]), -1);
    }
    assert_true(process_is_gone(pidfd));
    close(pidfd);
}

static void what_nobody_takes_is_closed(void **state)
{
    struct fixture *fixture = *state;
    struct worker_socket key;

    start(fixture);
    key = give_socket(fixture);
    close(restart(fixture));
    worker_inherited_close(fixture->worker);
    assert_int_equal(take_socket(fixture, &key), -1);
}

static void an_orphan_keeps_its_sockets(void **state)
{
    struct fixture *fixture = *state;
    struct worker_socket key;
    struct pollfd process = {.events = POLLIN};

    start(fixture);
    key = give_socket(fixture);
    process.fd = pidfd_open(worker_pid(fixture->worker), 0);
    worker_free(fixture->worker, true);
    fixture->worker = NULL;
    assert_int_equal(poll(&process, 1, 50), 0);
    start(fixture);
    close(take_socket(fixture, &key));
    assert_true(process_is_gone(process.fd));
    close(process.fd);
}

static void an_orphan_without_sockets_ends(void **state)
{
    struct fixture *fixture = *state;
    int pidfd;

    start(fixture);
    pidfd = pidfd_open(worker_pid(fixture->worker), 0);
    worker_free(fixture->worker, true);
    fixture->worker = NULL;
    assert_true(process_is_gone(pidfd));
    close(pidfd);
    start(fixture);
}

static void sigterm_ends_an_orphan_but_no_other(void **state)
{
    struct fixture *fixture = *state;
    int pidfd;

    start(fixture);
    give_socket(fixture);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    pidfd = pidfd_open(worker_pid(fixture->worker), 0);
    assert_int_equal(pidfd_send_signal(pidfd, SIGTERM, NULL, 0), 0);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    assert_int_equal(fixture->started, 1);
    worker_free(fixture->worker, true);
    fixture->worker = NULL;
    /* It may not have seen yet that it is alone. */
    for (int i = 0; i < 1000; i++) {
        struct pollfd process = {.fd = pidfd, .events = POLLIN};

        pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
        if (poll(&process, 1, 10) == 1)
            break;
    }
    assert_true(process_is_gone(pidfd));
    close(pidfd);
    start(fixture);
}

/* Draining lasts as long as something runs; it can be told to end through any number of restarts.
 */
static void a_draining_worker_is_still_told(void **state)
{
    struct fixture *fixture = *state;
    struct pollfd process = {.events = POLLIN};
    char file[64];
    int none = 0;

    start(fixture);
    give_socket(fixture);
    send_number(fixture, TEST_BUSY, 1);
    snprintf(file, sizeof(file), "worker-test.%d.sock", (int)worker_pid(fixture->worker));
    process.fd = restart(fixture);
    assert_true(file_exists(fixture->run_dir, file));
    close(restart(fixture));
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    assert_int_equal(poll(&process, 1, 0), 0);
    worker_send_draining(fixture->worker, TEST_BUSY, &none, sizeof(none));
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    assert_true(process_is_gone(process.fd));
    close(process.fd);
}

static void teardown_ends_draining_workers(void **state)
{
    struct fixture *fixture = *state;
    int pidfd;

    start(fixture);
    give_socket(fixture);
    send_number(fixture, TEST_BUSY, 1);
    pidfd = restart(fixture);
    worker_free(fixture->worker, false);
    fixture->worker = NULL;
    assert_true(process_is_gone(pidfd));
    close(pidfd);
}

static void a_former_worker_that_hangs_is_killed(void **state)
{
    struct fixture *fixture = *state;
    uint64_t before_ms = loop_now_ms(fixture->loop);
    int pidfd;

    start(fixture);
    give_socket(fixture);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    kill(worker_pid(fixture->worker), SIGSTOP);
    pidfd = restart(fixture);
    assert_true(process_is_gone(pidfd));
    close(pidfd);
    assert_true(loop_now_ms(fixture->loop) - before_ms < 5000);
    send_number(fixture, TEST_ECHO, 0);
    assert_true(wait_for(fixture->loop, has_echoed, fixture));
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool has_caught_up(void *userdata)
{
    struct fixture *fixture = userdata;

    return worker_sync(fixture->worker, 0) == 0;
}

static bool is_another_process(void *userdata)
{
    struct fixture *fixture = userdata;

    return worker_pid(fixture->worker) > 0 && worker_pid(fixture->worker) != fixture->stopped;
}

/* It delays the loop once, however often it is waited for, and is replaced. */
static void a_worker_that_hangs_is_waited_for_once(void **state)
{
    struct fixture *fixture = *state;

    start(fixture);
    assert_true(worker_answers(fixture->worker, WAIT_MS));
    fixture->stopped = worker_pid(fixture->worker);
    kill(fixture->stopped, SIGSTOP);
    assert_int_equal(worker_sync(fixture->worker, 20), -ETIMEDOUT);
    uint64_t before_ms = now_ms();
    for (int i = 0; i < 100; i++) {
        assert_int_equal(worker_sync(fixture->worker, WAIT_MS), -ETIMEDOUT);
        assert_false(worker_answers(fixture->worker, WAIT_MS));
    }
    assert_true(now_ms() - before_ms < WAIT_MS);
    assert_true(wait_for(fixture->loop, is_another_process, fixture));
    assert_true(worker_answers(fixture->worker, WAIT_MS));
}

/* Being slow is no crime. */
static void a_worker_that_answers_late_stays(void **state)
{
    struct fixture *fixture = *state;
    pid_t pid;

    start(fixture);
    pid = worker_pid(fixture->worker);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    kill(pid, SIGSTOP);
    assert_int_equal(worker_sync(fixture->worker, 20), -ETIMEDOUT);
    kill(pid, SIGCONT);
    assert_true(wait_for(fixture->loop, has_caught_up, fixture));
    assert_int_equal(worker_pid(fixture->worker), pid);
}

static bool is_gone_now(int pidfd)
{
    struct pollfd process = {.fd = pidfd, .events = POLLIN};

    return poll(&process, 1, 0) == 1;
}

static bool has_answered(void *userdata)
{
    struct fixture *fixture = userdata;

    return fixture->n_synced > 0 && worker_has_synced(fixture->worker, fixture->asked);
}

static bool was_told(void *userdata)
{
    return ((struct fixture *)userdata)->n_synced > 0;
}

/* A worker that is stopped is asked. */
static uint64_t begin_stopped(struct fixture *fixture)
{
    start(fixture);
    fixture->stopped = worker_pid(fixture->worker);
    kill(fixture->stopped, SIGSTOP);
    return worker_sync_begin(fixture->worker);
}

static void an_answer_is_told_without_waiting(void **state)
{
    struct fixture *fixture = *state;
    uint64_t number = begin_stopped(fixture);

    assert_false(worker_has_synced(fixture->worker, number));
    kill(fixture->stopped, SIGCONT);
    assert_true(wait_for(fixture->loop, was_told, fixture));
    assert_true(worker_has_synced(fixture->worker, number));
    assert_int_equal(worker_pid(fixture->worker), fixture->stopped);
}

/* Somebody else's wait reads it first: it is told all the same. */
static void an_answer_that_a_wait_has_read_is_told(void **state)
{
    struct fixture *fixture = *state;
    uint64_t number;

    start(fixture);
    number = worker_sync_begin(fixture->worker);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    assert_true(worker_has_synced(fixture->worker, number));
    assert_int_equal(fixture->n_synced, 0);
    assert_true(wait_for(fixture->loop, was_told, fixture));
}

/* Told only when the process is gone, and all that it held with it. */
static void who_never_answers_is_ended(void **state)
{
    struct fixture *fixture = *state;
    uint64_t number = begin_stopped(fixture);
    int pidfd = pidfd_open(fixture->stopped, 0);

    assert_true(wait_for(fixture->loop, was_told, fixture));
    assert_true(worker_has_synced(fixture->worker, number));
    assert_true(is_gone_now(pidfd));
    close(pidfd);
    assert_true(wait_for(fixture->loop, is_another_process, fixture));
    number = worker_sync_begin(fixture->worker);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    assert_true(worker_has_synced(fixture->worker, number));
}

/* What a process is killed with it still holds: it is waited for. */
static void who_is_being_killed_is_waited_for(void **state)
{
    struct fixture *fixture = *state;
    uint64_t number;
    int pidfd;

    start(fixture);
    pidfd = pidfd_open(worker_pid(fixture->worker), 0);
    kill(worker_pid(fixture->worker), SIGSTOP);
    number = worker_sync_begin(fixture->worker);
    kill(worker_pid(fixture->worker), SIGKILL);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    assert_true(is_gone_now(pidfd));
    close(pidfd);
    assert_true(wait_for(fixture->loop, was_told, fixture));
    assert_true(worker_has_synced(fixture->worker, number));
}

/* A former worker that is stopped while it drains. */
static uint64_t begin_former_stopped(struct fixture *fixture, int *ret_pidfd)
{
    start(fixture);
    give_socket(fixture);
    send_number(fixture, TEST_BUSY, 1);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    fixture->stopped = worker_pid(fixture->worker);
    *ret_pidfd = restart(fixture);
    kill(fixture->stopped, SIGSTOP);
    fixture->n_synced = 0;
    fixture->asked = worker_sync_begin(fixture->worker);
    return fixture->asked;
}

static void a_draining_worker_is_asked_without_waiting(void **state)
{
    struct fixture *fixture = *state;
    int pidfd;
    uint64_t number = begin_former_stopped(fixture, &pidfd);

    assert_true(wait_for(fixture->loop, was_told, fixture)); /* by the one of today */
    assert_false(worker_has_synced(fixture->worker, number));
    kill(fixture->stopped, SIGCONT);
    fixture->n_synced = 0;
    assert_true(wait_for(fixture->loop, has_answered, fixture));
    assert_false(is_gone_now(pidfd));
    close(pidfd);
}

static void a_draining_worker_that_never_answers_is_ended(void **state)
{
    struct fixture *fixture = *state;
    int pidfd;
    uint64_t number = begin_former_stopped(fixture, &pidfd);

    assert_true(wait_for(fixture->loop, was_told, fixture));
    assert_false(worker_has_synced(fixture->worker, number));
    fixture->n_synced = 0;
    assert_true(wait_for(fixture->loop, has_answered, fixture));
    assert_true(is_gone_now(pidfd));
    close(pidfd);
}

static void a_stale_socket_file_is_replaced(void **state)
{
    struct fixture *fixture = *state;
    int pidfd;

    start(fixture);
    pidfd = pidfd_open(worker_pid(fixture->worker), 0);
    worker_free(fixture->worker, true);
    assert_true(process_is_gone(pidfd));
    close(pidfd);
    assert_true(file_exists(fixture->run_dir, "worker-test.sock"));
    start(fixture);
    send_number(fixture, TEST_ECHO, 0);
    assert_true(wait_for(fixture->loop, has_echoed, fixture));
}

/* ---------------------------------------------------------------- sandbox */

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

static void forbidden_calls_kill(void **state)
{
    struct fixture *fixture = *state;
    int last = DO_KILL;

    start(fixture);
    for (int what = DO_OPEN; what <= last; what++) {
#ifdef SANITIZED /* these are let through, or fail (sandbox.c) */
        if (what == DO_OPEN || what == DO_FORK || what == DO_MMAP_EXEC)
            continue;
#endif
        fixture->started = 1;
        fixture->has_done = false;
        send_number(fixture, TEST_DO, what);
        assert_true(wait_for(fixture->loop, has_done_or_died, fixture));
        if (fixture->has_done)
            fail_msg("call %d was not stopped: it returned %d", what, fixture->did);
        /* Each starts with the back-off of the one before: begin anew. */
        worker_free(fixture->worker, false);
        start(fixture);
    }
}

static void sockets_of_ip_are_allowed(void **state)
{
    struct fixture *fixture = *state;

    start(fixture);
    for (int what = DO_TCP; what <= DO_UDP6; what++) {
        fixture->has_done = false;
        send_number(fixture, TEST_DO, what);
        assert_true(wait_for(fixture->loop, has_done_or_died, fixture));
        assert_true(fixture->has_done);
        assert_true(fixture->did >= 0);
    }
}

static void status_read(pid_t pid, char *text, size_t size)
{
    char path[64];
    ssize_t length;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    length = read(fd, text, size - 1);
    assert_true(length > 0);
    text[length] = '\0';
    close(fd);
}

static void assert_line(const char *text, const char *line)
{
    if (!strstr(text, line))
        fail_msg("no line \"%s\" in %s", line, text);
}

static void assert_fds(pid_t pid, unsigned count)
{
    char path[64];
    DIR *directory;
    unsigned found = 0;
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    directory = opendir(path);
    assert_non_null(directory);
    while ((entry = readdir(directory)))
        found += entry->d_name[0] != '.';
    closedir(directory);
    assert_int_equal(found, count);
}

static void the_sandbox_is_complete(void **state)
{
    struct fixture *fixture = *state;
    char status[8192];
    char path[64];
    pid_t pid;

    if (geteuid() != 0)
        skip();
    start_with(fixture, 65534);
    assert_int_equal(worker_sync(fixture->worker, WAIT_MS), 0);
    pid = worker_pid(fixture->worker);
    status_read(pid, status, sizeof(status));
    assert_line(status, "\nUid:\t65534\t65534\t65534\t65534\n");
    assert_line(status, "\nGid:\t65534\t65534\t65534\t65534\n");
    assert_line(status, "\nGroups:\t \n");
    assert_line(status, "\nCapInh:\t0000000000000000\n");
    assert_line(status, "\nCapPrm:\t0000000000000000\n");
    assert_line(status, "\nCapEff:\t0000000000000000\n");
    assert_line(status, "\nCapBnd:\t0000000000000000\n");
    assert_line(status, "\nCapAmb:\t0000000000000000\n");
    assert_line(status, "\nNoNewPrivs:\t1\n");
    assert_line(status, "\nSeccomp:\t2\n");
    /* The directory of a process that is gone: it can't even be opened. */
    snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
    assert_null(opendir(path));
    /* 0, 1, 2, control, listener, epoll */
    assert_fds(pid, 6);
}

static void a_former_worker_of_another_uid_is_taken_over(void **state)
{
    struct fixture *fixture = *state;
    struct worker_socket key;
    int pidfd;
    int fd;

    if (geteuid() != 0)
        skip();
    start_with(fixture, 65534);
    key = give_socket(fixture);
    pidfd = pidfd_open(worker_pid(fixture->worker), 0);
    worker_free(fixture->worker, true);
    start_with(fixture, 65534);
    fd = take_socket(fixture, &key);
    assert_true(fd >= 0);
    close(fd);
    assert_true(process_is_gone(pidfd));
    close(pidfd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(started_comes_before_new_returns),
        TEST(only_root_may_connect),
        TEST(messages_arrive),
        TEST(more_than_the_socket_takes_is_queued_in_order),
        TEST(too_long_a_message_is_refused),
        TEST(sync_waits_and_keeps_messages_for_the_loop),
        TEST(sync_with_a_hung_worker_ends_in_time),
        TEST(a_crash_is_followed_by_a_restart_within_100_ms),
        TEST(repeated_crashes_are_slowed_down),
        TEST(sending_while_it_is_restarted_is_no_error),
        TEST(sockets_come_back_and_the_former_worker_ends),
        TEST(what_nobody_takes_is_closed),
        TEST(an_orphan_keeps_its_sockets),
        TEST(an_orphan_without_sockets_ends),
        TEST(sigterm_ends_an_orphan_but_no_other),
        TEST(a_draining_worker_is_still_told),
        TEST(teardown_ends_draining_workers),
        TEST(a_former_worker_that_hangs_is_killed),
        TEST(a_worker_that_hangs_is_waited_for_once),
        TEST(a_worker_that_answers_late_stays),
        TEST(an_answer_is_told_without_waiting),
        TEST(an_answer_that_a_wait_has_read_is_told),
        TEST(who_never_answers_is_ended),
        TEST(who_is_being_killed_is_waited_for),
        TEST(a_draining_worker_is_asked_without_waiting),
        TEST(a_draining_worker_that_never_answers_is_ended),
        TEST(a_stale_socket_file_is_replaced),
        TEST(forbidden_calls_kill),
        TEST(sockets_of_ip_are_allowed),
        TEST(the_sandbox_is_complete),
        TEST(a_former_worker_of_another_uid_is_taken_over),
    };

    if (argc > 1 && strcmp(argv[1], "--worker") == 0)
        return worker_main_kinds(argc, argv, kinds);
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
