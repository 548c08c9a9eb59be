/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Each service has a process that keeps it: a child of ours that does what `moat run` does, in a
 * session of its own, so that the terminal's signals reach us alone. It tells by a channel whether
 * the service's program is executed, and ends with the program.
 *
 *     waiting ── dependencies are there ──> starting ── executed ──> running ──> ended
 *                                              └────── failed ──────────────────> ended
 *
 * With a signal, or when a service can't be started, everything is stopped: who nobody depends on
 * any more gets SIGTERM, and SIGKILL when its time is over. A service that runs from an earlier up
 * is kept: it is not ours to look after. */
#include "compose_up.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#ifdef MOAT_HAVE_SYSTEMD
#include <syslog.h>
#include <systemd/sd-journal.h>
#endif

#include "channel.h"
#include "clock.h"
#include "compose_output.h"
#include "remote.h"
#include "run.h"

enum unit_state {
    UNIT_WAITING,
    UNIT_STARTING,
    UNIT_RUNNING,
    UNIT_ENDED,
    UNIT_KEPT, /* runs from an earlier up */
};

struct unit {
    const struct compose_service *service;
    enum unit_state state;
    pid_t pid;
    int pidfd;  /* -1: no process, or no more */
    int report; /* the outer end of its channel */
    struct compose_stream output;
    struct compose_stream errors;
    struct compose_prefix output_prefix;
    struct compose_prefix errors_prefix;
    int code;           /* of one that has ended */
    int64_t kill_at_ms; /* when it was asked to end: the time for SIGKILL; 0: it was not */
    bool killed;
};

struct session {
    const struct compose_up *up;
    struct unit *units;
    size_t count;
    struct pollfd *fds; /* 1 + 4 for each unit */
    int signals;
    sigset_t mask; /* as it was before */
    bool stopping;
    int signal; /* that asked for the end; 0: none */
    int code;   /* EXIT_DONE unless something could not be started */
};

/* The first failure is what is said; all of them lead to the end. */
static void session_fail(struct session *session, const struct unit *unit, struct error *error)
{
    if (session->code == EXIT_DONE && session->signal == 0) {
        error_add_context(error, "service %s", unit->service->key);
        session->code = invocation_fail(EXIT_REFUSED, error);
    }
    session->stopping = true;
}

/* --- the process that keeps a service --- */

struct inside {
    int report;
    int output;
    int errors;
    struct ip gateway; /* for host-gateway; absent: nobody asked */
};

static void set_environment(const struct strings *env)
{
    /* Of our environment a program needs no more to find its way about. */
    static const char *const kept[] = {"PATH",  "HOME", "USER",   "LOGNAME",
                                       "SHELL", "LANG", "LC_ALL", "TZ"};
    struct strings values = {0};

    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        const char *value = getenv(kept[i]);
        _cleanup_free_ char *pair = NULL;

        if (value && asprintf(&pair, "%s=%s", kept[i], value) > 0)
            (void)strings_add(&values, pair);
    }
    clearenv();
    for (size_t i = 0; i < values.count; i++)
        putenv(values.items[i]);
    for (size_t i = 0; i < env->count; i++)
        putenv(env->items[i]);
}

static int add_gateway_hosts(struct compose_service *service, const struct ip *gateway)
{
    for (size_t i = 0; i < service->gateway_hosts.count; i++) {
        char entry[254 + 1 + IP_TEXT_MAX];
        char address[IP_TEXT_MAX];

        snprintf(entry, sizeof(entry), "%s:%s", service->gateway_hosts.items[i],
                 ip_format(gateway, address));
        if (strings_add(&service->attach.hosts, entry) < 0)
            return -ENOMEM;
    }
    return 0;
}

static _Noreturn void run_service(const struct session *session, const struct unit *unit,
                                  const struct inside *inside)
{
    struct compose_service service = *unit->service;
    const char *socket = getenv("MOAT_SOCKET"); /* the environment goes */
    struct strings words = {0};
    struct invocation invocation;

    invocation_init(&invocation);
    invocation.command = command_find(NULL, "run");
    invocation.socket = session->up->invocation->socket;
    if (!invocation.socket && socket)
        invocation.socket = strdup(socket);
    set_environment(&service.env);
    /* execvp(3) wants NULL behind the last word. */
    if (strings_copy(&service.command, &words) < 0 ||
        !(invocation.command_line = calloc(words.count + 1, sizeof(char *))) ||
        add_gateway_hosts(&service, &inside->gateway) < 0) {
        (void)channel_send(inside->report, MESSAGE_FAILED, EXIT_MOAT_FAILED, "out of memory");
        _exit(EXIT_MOAT_FAILED);
    }
    memcpy(invocation.command_line, words.items, words.count * sizeof(char *));
    invocation.params = service.params;
    invocation.process = (struct process_options){.user = service.user,
                                                  .workdir = service.workdir,
                                                  .rootfs = service.rootfs,
                                                  .hostname = service.hostname};
    _exit(run_guest(&invocation, inside->report));
}

/* Where the output of a service goes that nobody looks after: the journal, under the guest's name;
 * nowhere where there is none. */
static int open_log(const struct unit *unit)
{
    int fd = -1;

#ifdef MOAT_HAVE_SYSTEMD
    fd = sd_journal_stream_fd(unit->service->attach.name, LOG_INFO, false);
#else
    (void)unit;
#endif
    return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

static _Noreturn void keep(const struct session *session, const struct unit *unit,
                           struct inside *inside, pid_t parent)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    setsid();
    if (!session->up->detach) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(EXIT_MOAT_FAILED);
    } else {
        inside->output = inside->errors = open_log(unit);
    }
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(inside->output, STDOUT_FILENO) < 0 ||
        dup2(inside->errors, STDERR_FILENO) < 0 || chdir("/") < 0)
        _exit(EXIT_MOAT_FAILED);
    sigprocmask(SIG_SETMASK, &session->mask, NULL);
    run_service(session, unit, inside);
}

/* --- starting --- */

/* The address that host-gateway stands for: that of the first network. */
static int find_gateway(struct session *session, const struct unit *unit, struct ip *ret_gateway,
                        struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    union params params = {0};
    struct network network;
    int r;

    *ret_gateway = (struct ip){0};
    if (unit->service->gateway_hosts.count == 0)
        return 0;
    memcpy(params.name.name, unit->service->attach.networks[0].name, sizeof(params.name.name));
    r = remote_call(session->up->invocation->remote, METHOD_NETWORK_GET, &params, &response, error);
    if (r == 0)
        r = proto_response_object(response, &proto_network, &network, error);
    if (r < 0)
        return r;
    *ret_gateway = ip_is_set(&network.gateway) ? network.gateway : network.gateway6;
    network_deinit(&network);
    return 0;
}

/* [0] is ours, [1] its own; -1: none. */
struct lines {
    int report[2];
    int output[2];
    int errors[2];
};

#define LINES_NONE ((struct lines){{-1, -1}, {-1, -1}, {-1, -1}})

static void close_lines(struct lines *lines, int side)
{
    const int fds[] = {lines->report[side], lines->output[side], lines->errors[side]};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int open_lines(const struct session *session, struct lines *ret_lines, struct error *error)
{
    struct lines lines = LINES_NONE;
    int r = channel_open(lines.report);

    if (r == 0 && !session->up->detach &&
        (pipe2(lines.output, O_CLOEXEC) < 0 || pipe2(lines.errors, O_CLOEXEC) < 0))
        r = -errno;
    if (r == 0) {
        *ret_lines = lines;
        return 0;
    }
    close_lines(&lines, 0);
    close_lines(&lines, 1);
    return error_set(error, r, "can't make its pipes");
}

static int fork_unit(struct session *session, struct unit *unit, struct lines *lines,
                     const struct ip *gateway, struct error *error)
{
    struct inside inside = {.report = lines->report[1],
                            .output = lines->output[1],
                            .errors = lines->errors[1],
                            .gateway = *gateway};
    pid_t parent = getpid();
    pid_t pid;

    fflush(stdout);
    fflush(stderr);
    pid = fork();
    if (pid == 0)
        keep(session, unit, &inside, parent);
    if (pid < 0)
        return error_set(error, errno, "can't start a process");
    unit->pid = pid;
    unit->pidfd = pidfd_open(pid, 0);
    if (unit->pidfd >= 0)
        return 0;
    error_set(error, errno, "can't watch process %d", pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return -EIO;
}

static void start(struct session *session, struct unit *unit)
{
    struct error error = ERROR_INIT;
    struct ip gateway;
    struct lines lines = LINES_NONE;
    int r = find_gateway(session, unit, &gateway, &error);

    if (r == 0)
        r = open_lines(session, &lines, &error);
    if (r < 0) {
        session_fail(session, unit, &error);
        return;
    }
    r = fork_unit(session, unit, &lines, &gateway, &error);
    close_lines(&lines, 1);
    if (r < 0) {
        close_lines(&lines, 0);
        session_fail(session, unit, &error);
        return;
    }
    unit->report = lines.report[0];
    unit->output.fd = lines.output[0];
    unit->errors.fd = lines.errors[0];
    unit->state = UNIT_STARTING;
}

/* 1: is there, 0: not yet, or a negative code: never will. */
static int check_dependency(const struct session *session, const struct compose_dependency *wanted,
                            struct error *error)
{
    const struct unit *other = &session->units[wanted->service];
    const char *key = other->service->key;

    if (wanted->condition == CONDITION_STARTED)
        return other->state >= UNIT_RUNNING;
    if (other->state == UNIT_KEPT)
        return error_set(error, 0,
                         "it waits for the end of %s, which runs from an earlier up; how "
                         "that will end can't be known",
                         key);
    if (other->state == UNIT_ENDED && other->code != 0)
        return error_set(error, 0, "it depends on the success of %s, which ended with code %d", key,
                         other->code);
    return other->state == UNIT_ENDED;
}

static bool is_ready(struct session *session, const struct unit *unit)
{
    struct error error = ERROR_INIT;

    for (size_t i = 0; i < unit->service->n_dependencies; i++) {
        int r = check_dependency(session, &unit->service->dependencies[i], &error);

        if (r < 0)
            session_fail(session, unit, &error);
        if (r <= 0)
            return false;
    }
    return true;
}

/* --- stopping --- */

static bool has_process(const struct unit *unit)
{
    return unit->state == UNIT_STARTING || unit->state == UNIT_RUNNING;
}

static bool is_needed(const struct session *session, const struct unit *unit)
{
    size_t index = (size_t)(unit - session->units);

    for (size_t i = 0; i < session->count; i++) {
        const struct compose_service *other = session->units[i].service;

        for (size_t j = 0; has_process(&session->units[i]) && j < other->n_dependencies; j++)
            if (other->dependencies[j].service == index)
                return true;
    }
    return false;
}

static void stop(struct session *session, struct unit *unit)
{
    if (unit->kill_at_ms == 0) {
        if (is_needed(session, unit))
            return;
        unit->kill_at_ms = clock_now_ms() + (int64_t)session->up->timeout_s * 1000;
        (void)pidfd_send_signal(unit->pidfd, SIGTERM, NULL, 0);
    }
    if (!unit->killed && clock_now_ms() >= unit->kill_at_ms) {
        unit->killed = true;
        (void)pidfd_send_signal(unit->pidfd, SIGKILL, NULL, 0);
    }
}

/* Until the next SIGKILL is due; -1: none is. */
static int next_kill_ms(const struct session *session)
{
    int64_t least = -1;

    for (size_t i = 0; i < session->count; i++) {
        const struct unit *unit = &session->units[i];
        int64_t left = unit->kill_at_ms - clock_now_ms();

        if (has_process(unit) && unit->kill_at_ms && !unit->killed && (least < 0 || left < least))
            least = left < 0 ? 0 : left;
    }
    return (int)least;
}

/* --- what happens --- */

static void on_report(struct session *session, struct unit *unit)
{
    struct error error = ERROR_INIT;
    struct message message;
    pid_t sender;

    if (channel_receive(unit->report, &message, &sender) < 0) {
        close(TAKE_FD(unit->report));
        return;
    }
    if (message.type == MESSAGE_EXECUTED && unit->state == UNIT_STARTING) {
        unit->state = UNIT_RUNNING;
        printf("service %s started\n", unit->service->key);
        fflush(stdout);
    } else if (message.type == MESSAGE_FAILED) {
        error_set(&error, 0, "%s", message.text);
        session_fail(session, unit, &error);
    }
}

static void on_end(struct session *session, struct unit *unit)
{
    struct error error = ERROR_INIT;
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)unit->pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return;
    unit->code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    close(TAKE_FD(unit->pidfd));
    /* What it said about its start has been read before: that comes first in a turn. */
    if (unit->state == UNIT_STARTING && unit->kill_at_ms == 0) {
        error_set(&error, 0, "it ended with code %d before it was started", unit->code);
        session_fail(session, unit, &error);
    }
    unit->state = UNIT_ENDED;
    if (unit->kill_at_ms == 0 && session->code == EXIT_DONE && !session->up->detach)
        printf("service %s ended with code %d\n", unit->service->key, unit->code);
    fflush(stdout);
}

static void on_signal(struct session *session)
{
    struct signalfd_siginfo info;

    if (read(session->signals, &info, sizeof(info)) != sizeof(info))
        return;
    session->stopping = true;
    /* Who asks twice does not want to wait. */
    for (size_t i = 0; session->signal && i < session->count; i++)
        if (has_process(&session->units[i]))
            session->units[i].kill_at_ms = 1;
    session->signal = (int)info.ssi_signo;
}

/* --- the loop --- */

static void fill_fds(const struct session *session)
{
    session->fds[0] = (struct pollfd){.fd = session->signals, .events = POLLIN};
    for (size_t i = 0; i < session->count; i++) {
        const struct unit *unit = &session->units[i];
        const int fds[] = {unit->report, unit->output.fd, unit->errors.fd, unit->pidfd};

        for (size_t j = 0; j < ARRAY_SIZE(fds); j++)
            session->fds[1 + 4 * i + j] = (struct pollfd){.fd = fds[j], .events = POLLIN};
    }
}

/* A service's last words come before its end. */
static void serve_unit(struct session *session, struct unit *unit, const struct pollfd fds[4])
{
    if (fds[0].revents)
        on_report(session, unit);
    if (fds[1].revents)
        compose_stream_read(&unit->output, &unit->output_prefix, stdout);
    if (fds[2].revents)
        compose_stream_read(&unit->errors, &unit->errors_prefix, stderr);
    if (fds[3].revents && !fds[0].revents && unit->output.fd < 0 && unit->errors.fd < 0)
        on_end(session, unit);
}

static void advance(struct session *session)
{
    for (size_t i = 0; i < session->count; i++) {
        struct unit *unit = &session->units[i];

        if (!session->stopping && unit->state == UNIT_WAITING && is_ready(session, unit))
            start(session, unit);
    }
    for (size_t i = 0; session->stopping && i < session->count; i++)
        if (has_process(&session->units[i]))
            stop(session, &session->units[i]);
}

static bool is_done(const struct session *session)
{
    for (size_t i = 0; i < session->count; i++) {
        enum unit_state state = session->units[i].state;

        if ((state == UNIT_WAITING && !session->stopping) || state == UNIT_STARTING ||
            (state == UNIT_RUNNING && (session->stopping || !session->up->detach)))
            return false;
    }
    return true;
}

static void turn(struct session *session)
{
    fill_fds(session);
    if (poll(session->fds, 1 + 4 * session->count, next_kill_ms(session)) <= 0)
        return;
    for (size_t i = 0; i < session->count; i++)
        serve_unit(session, &session->units[i], &session->fds[1 + 4 * i]);
    if (session->fds[0].revents)
        on_signal(session);
}

/* --- the whole --- */

static void init_units(struct session *session)
{
    const struct compose *compose = session->up->compose;
    size_t width = 0;

    for (size_t i = 0; i < session->count; i++)
        if (strlen(compose->services[i].key) > width)
            width = strlen(compose->services[i].key);
    for (size_t i = 0; i < session->count; i++) {
        struct unit *unit = &session->units[i];
        const char *key = compose->services[i].key;

        unit->service = &compose->services[i];
        unit->state = session->up->running[i] ? UNIT_KEPT : UNIT_WAITING;
        unit->pidfd = unit->report = unit->output.fd = unit->errors.fd = -1;
        unit->output_prefix = (struct compose_prefix){
            .name = key, .width = width, .colour = compose_colour(stdout, i)};
        unit->errors_prefix = (struct compose_prefix){
            .name = key, .width = width, .colour = compose_colour(stderr, i)};
    }
}

/* Signals that the caller ignores, as in the background of a script, stay ignored. */
static void catch_signals(struct session *session)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        struct sigaction action;

        if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&set, numbers[i]);
    }
    sigprocmask(SIG_BLOCK, &set, &session->mask);
    signal(SIGCHLD, SIG_DFL);
    session->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void session_deinit(struct session *session)
{
    for (size_t i = 0; session->units && i < session->count; i++) {
        const struct unit *unit = &session->units[i];

        if (unit->pidfd >= 0)
            close(unit->pidfd);
        if (unit->report >= 0)
            close(unit->report);
    }
    if (session->signals >= 0)
        close(session->signals);
    sigprocmask(SIG_SETMASK, &session->mask, NULL);
    free(session->units);
    free(session->fds);
}

/* Of a keeper that was killed the daemon takes the guest back soon; here it has to be gone. */
static void detach_killed(const struct session *session)
{
    for (size_t i = 0; i < session->count; i++)
        if (session->units[i].killed)
            (void)compose_guest_detach(session->up->invocation,
                                       session->units[i].service->attach.name);
}

/* A service that failed by itself is the command's failure too. */
static int result(const struct session *session)
{
    struct error error = ERROR_INIT;

    if (session->code != EXIT_DONE)
        return session->code;
    if (session->signal)
        return 128 + session->signal;
    for (size_t i = 0; i < session->count; i++) {
        const struct unit *unit = &session->units[i];

        if (unit->state != UNIT_ENDED || unit->code == 0)
            continue;
        error_set(&error, 0, "service %s ended with code %d", unit->service->key, unit->code);
        return invocation_fail(EXIT_REFUSED, &error);
    }
    return EXIT_DONE;
}

int compose_up_run(const struct compose_up *up, bool *ret_started)
{
    struct session session = {.up = up, .count = up->compose->n_services, .signals = -1};
    struct error error = ERROR_INIT;
    int code;

    session.units = calloc(session.count + 1, sizeof(*session.units));
    session.fds = calloc(1 + 4 * session.count, sizeof(*session.fds));
    if (!session.units || !session.fds) {
        free(session.units);
        free(session.fds);
        error_set(&error, ENOMEM, "services");
        return invocation_fail(EXIT_REFUSED, &error);
    }
    init_units(&session);
    catch_signals(&session);
    for (advance(&session); !is_done(&session); advance(&session))
        turn(&session);
    detach_killed(&session);
    *ret_started = session.code == EXIT_DONE;
    code = result(&session);
    session_deinit(&session);
    return code;
}
