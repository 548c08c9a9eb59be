/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "worker/channel.h"
#include "worker/sandbox.h"

#define SETTINGS_TIMEOUT_MS 1000

static const struct worker_kind kinds_all[] = {
    {"dns", dns_worker_run},
    {"relay", relay_worker_run},
    {"dhcp", dhcp_worker_run},
    {NULL, NULL},
};

static const struct worker_kind *kind_find(const struct worker_kind *kinds, const char *name)
{
    for (; kinds->name; kinds++) {
        if (strcmp(kinds->name, name) == 0)
            return kinds;
    }
    return NULL;
}

/* moatd sends the settings before it starts the process, so they are there. */
static int settings_receive(struct worker_settings *ret_settings)
{
    struct {
        struct worker_header header;
        struct worker_settings settings;
    } message;
    struct pollfd control = {.fd = WORKER_CONTROL_FD, .events = POLLIN};
    ssize_t length;

    if (poll(&control, 1, SETTINGS_TIMEOUT_MS) != 1)
        return -ETIMEDOUT;
    length = recv(WORKER_CONTROL_FD, &message, sizeof(message), MSG_DONTWAIT);
    if (length < 0)
        return -errno;
    if (length != sizeof(message) || message.header.type != WORKER_SETTINGS)
        return -EPROTO;
    *ret_settings = message.settings;
    return 0;
}

/* The signals of a terminal, and SIGTERM, which a service manager may send to all of moatd's
 * processes, are for moatd to decide on (runtime.c lets SIGTERM end an orphan). */
static void signals_init(void)
{
    sigset_t none;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void names_init(const struct worker_kind *kind, char *program, size_t size)
{
    snprintf(program, size, "moatd-%s", kind->name);
    prctl(PR_SET_NAME, program);
}

/* listen(2) once more gives the socket our ids, by which the next moatd knows us (SO_PEERCRED,
 * unix(7)): it comes when the ids have changed and before the filter forbids it. */
static int sandbox_enter(const struct worker_settings *settings, struct error *error)
{
    struct sandbox_config config = {
        .uid = settings->uid, .gid = settings->gid, .without_root = settings->without_root};
    int code = sandbox_drop(&config, error);

    if (code < 0)
        return code;
    if (listen(WORKER_LISTENER_FD, WORKER_LISTENER_BACKLOG) < 0)
        return error_set(error, errno, "cannot listen for the next moatd");
    return sandbox_restrict(error);
}

int worker_main_kinds(int argc, char **argv, const struct worker_kind *kinds)
{
    static char program[16];
    const struct worker_kind *kind = argc == 3 ? kind_find(kinds, argv[2]) : NULL;
    struct worker_settings settings = {0};
    struct worker_runtime *runtime;
    struct error error = ERROR_INIT;
    int code;

    if (!kind) {
        fprintf(stderr, "moatd: --worker is for moatd itself\n");
        return 2;
    }
    signals_init();
    names_init(kind, program, sizeof(program));
    code = settings_receive(&settings);
    if (code < 0) {
        fprintf(stderr, "moatd: --worker is for moatd itself: %s\n", strerror(-code));
        return 2;
    }
    log_init(program, (enum log_level)settings.log_level);
    if (sandbox_enter(&settings, &error) < 0) {
        log_error("the worker can't enter its sandbox: %s", error.text);
        return 1;
    }
    runtime = worker_runtime_new(WORKER_CONTROL_FD, WORKER_LISTENER_FD);
    if (!runtime) {
        log_error("the worker can't start: out of memory");
        return 1;
    }
    code = kind->run(runtime);
    worker_runtime_free(runtime);
    /* Not exit(3): nothing is registered that could work without a file system. */
    _exit(code);
}

int worker_main(int argc, char **argv)
{
    return worker_main_kinds(argc, argv, kinds_all);
}
