/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

bool terminal_wants_own_group(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO) &&
           getpgrp() == getpid() && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

void terminal_enter_own_group(void)
{
    sigset_t set;
    sigset_t mask;

    /* Who takes the terminal from the background is stopped unless it blocks this. */
    sigemptyset(&set);
    sigaddset(&set, SIGTTOU);
    sigprocmask(SIG_BLOCK, &set, &mask);
    if (setpgid(0, 0) == 0)
        (void)tcsetpgrp(STDIN_FILENO, getpgrp());
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

int terminal_open(void)
{
    return open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
}

void terminal_give(int terminal, pid_t group)
{
    if (terminal >= 0 && group > 0 && tcgetpgrp(terminal) == getpgrp())
        (void)tcsetpgrp(terminal, group);
}

void terminal_take_back(int terminal, pid_t group)
{
    pid_t foreground = terminal >= 0 ? tcgetpgrp(terminal) : -1;

    if (foreground <= 0 || foreground == getpgrp())
        return;
    if (foreground == group || (kill(-foreground, 0) < 0 && errno == ESRCH))
        (void)tcsetpgrp(terminal, getpgrp());
}
