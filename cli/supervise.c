/* SPDX-License-Identifier: GPL-2.0-or-later */
/* COMMAND is in our session, and most often in our process group (terminal.h), so that the
 * terminal's signals reach it without us; what kill(1) sends to us is passed on. All signals come
 * through a signalfd: they never interrupt anything, and ours is a plain loop.
 *
 * Stops: Ctrl-Z reaches COMMAND. We take no notice of it until COMMAND has really stopped (it may
 * ignore the signal, as editors and shells do); then we stop too, and the caller's shell sees its
 * job stopped. When the shell goes on with us, COMMAND goes on, and gets the terminal back if it
 * had it. */
#include "supervise.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel.h"
#include "clock.h"
#include "command.h"
#include "terminal.h"

#define GRACE_MS 10000 /* between SIGTERM and SIGKILL */

static const int handled[] = {
    SIGHUP,  SIGINT,  SIGQUIT, SIGUSR1, SIGUSR2,  SIGALRM, SIGTERM,   SIGCONT, SIGTSTP,
    SIGTTIN, SIGTTOU, SIGURG,  SIGXCPU, SIGWINCH, SIGPWR,  SIGVTALRM, SIGPROF, SIGCHLD,
};

static void handled_set(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    for (size_t i = 0; i < ARRAY_SIZE(handled); i++)
        sigaddset(ret_set, handled[i]);
    for (int signal_number = SIGRTMIN; signal_number <= SIGRTMAX; signal_number++)
        sigaddset(ret_set, signal_number);
}

void supervise_block_signals(sigset_t *ret_mask)
{
    sigset_t set;

    handled_set(&set);
    sigprocmask(SIG_BLOCK, &set, ret_mask);
}

static void end_as_command(int signal_number)
{
    _exit(128 + signal_number);
}

void supervise_end_by_status(void)
{
    struct sigaction action;

    if (sigaction(SIGTERM, NULL, &action) < 0 || action.sa_handler != SIG_DFL)
        return;
    action.sa_handler = end_as_command;
    sigaction(SIGTERM, &action, NULL);
}

/* --- signals --- */

static bool is_stop(int signal_number)
{
    return signal_number == SIGTSTP || signal_number == SIGTTIN || signal_number == SIGTTOU;
}

/* The kernel sends these to a whole process group, for the terminal. */
static bool is_from_terminal(const struct signalfd_siginfo *info)
{
    return info->ssi_code == SI_KERNEL;
}

static bool command_is_in_our_group(const struct supervise *supervise)
{
    return getpgid(supervise->command) == getpgrp();
}

static void forward(struct supervise *supervise, const struct signalfd_siginfo *info)
{
    int signal_number = (int)info->ssi_signo;

    if (is_from_terminal(info) && (command_is_in_our_group(supervise) || is_stop(signal_number)))
        return;
    /* kill(0, SIGTSTP) by COMMAND itself: an editor that suspends its job. */
    if (is_stop(signal_number) && (pid_t)info->ssi_pid == supervise->command)
        return;
    /* A job in the background was made one of the foreground. */
    if (signal_number == SIGCONT && supervise->own_group)
        terminal_give(supervise->tty, supervise->group);
    (void)pidfd_send_signal(supervise->command_fd, signal_number, NULL, 0);
}

static bool ends_by_default(int signal_number)
{
    switch (signal_number) {
    case SIGCONT:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGURG:
    case SIGWINCH:
    case SIGCHLD:
        return false;
    default:
        return true;
    }
}

static void end_with(struct supervise *supervise, int code)
{
    supervise->code = code;
    supervise->ended = true;
}

/* --- stops --- */

static bool command_is_stopped(const struct supervise *supervise)
{
    char path[32];
    char line[512];
    const char *state;
    _cleanup_fclose_ FILE *file = NULL;

    snprintf(path, sizeof(path), "/proc/%d/stat", supervise->command);
    file = fopen(path, "re");
    if (!file || !fgets(line, sizeof(line), file))
        return false;
    state = strrchr(line, ')'); /* the name before it may hold anything */
    return state && (state[2] == 'T' || state[2] == 't');
}

/* The default action of SIGTSTP, which is nothing where nobody could ever continue us. */
static void stop_by_default(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    raise(SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

/* In our group COMMAND got the terminal's stop signal together with us, and the kernel has made
 * sure that somebody can continue us. */
static void stop(const struct supervise *supervise, int signal_number)
{
    if (is_stop(signal_number) && command_is_in_our_group(supervise))
        raise(SIGSTOP);
    else
        stop_by_default();
}

static void go_on(const struct supervise *supervise, pid_t group, bool with_terminal)
{
    if (with_terminal)
        terminal_give(supervise->tty, group);
    if (group > 0 && group != getpgrp())
        (void)kill(-group, SIGCONT);
    (void)pidfd_send_signal(supervise->command_fd, SIGCONT, NULL, 0);
}

/* Without a terminal there is no job control: whoever stops COMMAND also knows how to go on with
 * it. */
static void stop_with_command(const struct supervise *supervise, int signal_number)
{
    pid_t group = getpgid(supervise->command);
    pid_t foreground = supervise->tty >= 0 ? tcgetpgrp(supervise->tty) : -1;
    bool had_terminal = group > 0 && group != getpgrp() && group == foreground;

    if (foreground < 0 || !command_is_stopped(supervise))
        return;
    if (!is_stop(signal_number) && !had_terminal && foreground != getpgrp())
        return;
    stop(supervise, signal_number);
    go_on(supervise, group, had_terminal || supervise->own_group);
}

/* --- what happens --- */

static int status_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The channel has ended, so the child has said all that it had to. */
static void on_child(struct supervise *supervise)
{
    int status;

    if (waitpid(supervise->child, &status, WNOHANG) <= 0)
        return;
    supervise->child = 0;
    end_with(supervise, supervise->code < 0 ? status_code(status) : supervise->code);
}

static bool next_signal(struct supervise *supervise, struct signalfd_siginfo *ret_info)
{
    if (read(supervise->signals, ret_info, sizeof(*ret_info)) != sizeof(*ret_info))
        return false;
    if (ret_info->ssi_signo == SIGINT && is_from_terminal(ret_info))
        supervise->interrupted = true;
    return true;
}

static void on_signal(struct supervise *supervise)
{
    struct signalfd_siginfo info;

    if (!next_signal(supervise, &info))
        return;
    if (info.ssi_signo == SIGCHLD)
        return; /* the loop looks at the child by itself */
    if (supervise->command > 0)
        forward(supervise, &info);
    else if (ends_by_default((int)info.ssi_signo))
        end_with(supervise, 128 + (int)info.ssi_signo);
}

/* COMMAND is not executed: the reason is for whoever started us. */
static int fail(const struct supervise *supervise, const struct message *message)
{
    struct error error = ERROR_INIT;

    if (supervise->report >= 0) {
        (void)channel_send(supervise->report, MESSAGE_FAILED, message->value, message->text);
        return message->value;
    }
    error_set(&error, 0, "%s", message->text);
    return invocation_fail(message->value, &error);
}

static void on_message(struct supervise *supervise)
{
    struct message message;
    pid_t sender;
    int r = channel_receive(supervise->channel, &message, &sender);

    if (r < 0) {
        close(supervise->channel);
        supervise->channel = -1;
        return;
    }
    switch (message.type) {
    case MESSAGE_FILES:
    case MESSAGE_BEGIN:
        break; /* part of what comes before */
    case MESSAGE_STARTED:
        supervise->command = sender;
        supervise->command_fd = pidfd_open(sender, 0);
        supervise->group = supervise->own_group ? getpgid(sender) : 0;
        break;
    case MESSAGE_FAILED:
        supervise->code = fail(supervise, &message);
        break;
    case MESSAGE_EXECUTED:
        if (supervise->report >= 0 && supervise->code < 0)
            (void)channel_send(supervise->report, MESSAGE_EXECUTED, 0, NULL);
        break;
    case MESSAGE_STOPPED:
        stop_with_command(supervise, message.value);
        break;
    case MESSAGE_ENDED:
        if (supervise->code < 0)
            supervise->code = status_code(message.value);
        break;
    }
}

/* --- the guest --- */

/* The daemon also sees a guest go that has ended by itself. */
static bool child_is_alive(const struct supervise *supervise)
{
    siginfo_t info = {0};

    return supervise->child > 0 &&
           waitid(P_PID, (id_t)supervise->child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

/* Somebody has detached it: nobody wants COMMAND to go on without network. A stopped one goes on,
 * to end. */
static void end_command(struct supervise *supervise)
{
    struct error error = ERROR_INIT;

    error_set(&error, 0, "guest \"%s\" is gone (%s): ending its command",
              supervise->follow->guest.name, supervise->follow->reason);
    (void)invocation_fail(EXIT_MOAT_FAILED, &error);
    supervise->kill_at_ms = clock_now_ms() + GRACE_MS;
    if (supervise->command == 0) {
        end_with(supervise, EXIT_MOAT_FAILED);
        return;
    }
    (void)pidfd_send_signal(supervise->command_fd, SIGTERM, NULL, 0);
    (void)pidfd_send_signal(supervise->command_fd, SIGCONT, NULL, 0);
}

static void follow(struct supervise *supervise)
{
    follow_turn(supervise->follow);
    if (supervise->follow->gone && supervise->kill_at_ms == 0 && child_is_alive(supervise))
        end_command(supervise);
}

static void kill_when_due(struct supervise *supervise)
{
    if (supervise->kill_at_ms && clock_now_ms() >= supervise->kill_at_ms && supervise->child > 0)
        (void)kill(supervise->child, SIGKILL);
}

/* --- the loop --- */

static int timeout_ms(const struct supervise *supervise)
{
    int64_t left_ms;

    if (supervise->kill_at_ms == 0)
        return supervise->follow ? follow_timeout_ms(supervise->follow) : -1;
    left_ms = supervise->kill_at_ms - clock_now_ms();
    return left_ms > 0 ? (int)left_ms : GRACE_MS;
}

static void turn(struct supervise *supervise)
{
    struct pollfd fds[3] = {
        {.fd = supervise->channel, .events = POLLIN},
        {.fd = supervise->signals, .events = POLLIN},
        {.fd = supervise->follow ? follow_fd(supervise->follow) : -1, .events = POLLIN},
    };
    int n = poll(fds, ARRAY_SIZE(fds), timeout_ms(supervise));

    if (n < 0)
        return;
    if (supervise->follow && (n == 0 || fds[2].revents))
        follow(supervise);
    kill_when_due(supervise);
    /* Messages first: what process 1 said before it ended is there before its end is. */
    if (fds[0].revents)
        on_message(supervise);
    else if (fds[1].revents)
        on_signal(supervise);
}

static void begin(struct supervise *supervise)
{
    sigset_t set;

    handled_set(&set);
    supervise->code = -1;
    supervise->ended = false;
    supervise->interrupted = false;
    supervise->command = 0;
    supervise->command_fd = -1;
    supervise->group = 0;
    supervise->kill_at_ms = 0;
    supervise->tty = terminal_open();
    supervise->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (supervise->signals < 0)
        end_with(supervise, EXIT_MOAT_FAILED);
}

static void finish(struct supervise *supervise)
{
    const int fds[] = {supervise->channel, supervise->command_fd, supervise->tty,
                       supervise->signals};
    struct signalfd_siginfo info;

    if (supervise->child > 0) {
        kill(supervise->child, SIGKILL);
        waitpid(supervise->child, NULL, 0);
    }
    terminal_take_back(supervise->tty, supervise->group);
    /* A Ctrl-C that ended COMMAND may not have been read yet. */
    while (next_signal(supervise, &info))
        continue;
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

int supervise_run(struct supervise *supervise)
{
    begin(supervise);
    while (!supervise->ended) {
        turn(supervise);
        if (supervise->channel < 0)
            on_child(supervise);
    }
    finish(supervise);
    return supervise->code < 0 ? EXIT_MOAT_FAILED : supervise->code;
}

void supervise_pass_interrupt(const struct supervise *supervise)
{
    sigset_t set;

    /* Somebody else than a shell of this terminal wants a status, not a signal. */
    if ((!supervise->interrupted && !supervise->own_group) || supervise->code != 128 + SIGINT ||
        getsid(getppid()) != getsid(0))
        return;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    raise(SIGINT);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
