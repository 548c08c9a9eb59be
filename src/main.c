/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moatd: options, configuration, the loop. As `moatd --worker KIND` the same binary is one of its
 * own workers. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef MOAT_HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "base/cleanup.h"
#include "base/fdstore.h"
#include "base/log.h"
#include "base/priority.h"
#include "proto/proto.h"
#include "rpc/rpc.h"
#include "worker/worker.h"

#define DEFAULT_CONFIG "/etc/moat/moat.conf"

static const char usage[] =
    "Usage: moatd [OPTION]...\n"
    "The daemon of moat: networks, names, ports and policies for sandboxes, containers and VMs.\n"
    "It stays in the foreground and serves the network namespace that it is started in.\n"
    "\n"
    "      --config FILE       configuration (default " DEFAULT_CONFIG ", every key optional)\n"
    "      --state-dir DIR     where the state is kept (default /var/lib/moat)\n"
    "      --run-dir DIR       run-time files and moat.sock (default /run/moat)\n"
    "      --debug             log every change\n"
    "      --print-api         print the API's reference (docs/api.md) and exit\n"
    "      --list-fault-points print the names that MOAT_FAULT and MOAT_CRASH take, and exit\n"
    "  -h, --help              print this and exit\n"
    "  -V, --version           print the version and exit\n"
    "\n"
    "See moatd(8), moat(1) and moat.conf(5).\n";

struct daemon {
    struct loop *loop;
    struct fdstore *fdstore; /* NULL: there is no service manager */
    struct rpc *rpc;
    struct service *service;
    struct loop_signal *signals[3];
    struct loop_timer *teardown_timer;
};

/* --- systemd --- */

static void notify(const char *state)
{
#ifdef MOAT_HAVE_SYSTEMD
    (void)sd_notify(0, state); /* without systemd there is nobody to tell */
#else
    (void)state;
#endif
}

#ifdef MOAT_HAVE_SYSTEMD
/* One that is not from the store is the socket of the API, and there is only one. */
static int take_socket(int fd, const char *name, int *ret_fd, struct error *error)
{
    if (sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) <= 0)
        return error_set(error, EINVAL,
                         "the socket \"%s\" that was passed (LISTEN_FDS, descriptor %d) is no "
                         "listening Unix stream socket; correct the .socket unit: "
                         "ListenStream=/run/moat/moat.sock",
                         name, fd);
    if (*ret_fd >= 0)
        return error_set(error, EINVAL,
                         "more than one socket was passed (LISTEN_FDS: descriptors %d and %d); "
                         "moatd serves one: correct the .socket unit",
                         *ret_fd, fd);
    *ret_fd = fd;
    return 0;
}

/* The socket of the API, -1 when systemd passed none, and what an earlier moatd put into the store.
 */
static int passed_fds(struct daemon *daemon, struct error *error, int *ret_fd)
{
    char **names = NULL;
    int count;
    int r = 0;

    *ret_fd = -1;
    count = sd_listen_fds_with_names(1, &names);
    if (count < 0)
        return error_set(error, -count, "the sockets that were passed (LISTEN_FDS)");
    if (count > 0 && getenv("NOTIFY_SOCKET"))
        daemon->fdstore = fdstore_new(getenv("NOTIFY_SOCKET"));
    for (int i = 0; i < count; i++) {
        int fd = SD_LISTEN_FDS_START + i;

        if (strncmp(names[i], FDSTORE_PREFIX, strlen(FDSTORE_PREFIX)) == 0)
            fdstore_add(daemon->fdstore, names[i], fd);
        else if (r >= 0)
            r = take_socket(fd, names[i], ret_fd, error);
        free(names[i]);
    }
    free(names);
    return r;
}
#else
static int passed_fds(struct daemon *daemon, struct error *error, int *ret_fd)
{
    (void)daemon;
    (void)error;
    *ret_fd = -1;
    return 0;
}
#endif

/* --- the loop --- */

static void on_event(void *userdata, const struct event *event)
{
    struct daemon *daemon = userdata;

    if (daemon->rpc)
        rpc_event(daemon->rpc, event);
    if (daemon->service && service_is_torn_down(daemon->service))
        loop_stop(daemon->loop);
}

static void on_signal(void *userdata, int number)
{
    struct daemon *daemon = userdata;

    log_info("stopping on signal %d; guests keep their networks", number);
    loop_stop(daemon->loop);
}

/* As from a terminal that was closed, or a "reload". */
static void on_hangup(void *userdata, int number)
{
    (void)userdata;
    log_info("signal %d is ignored: the configuration is read at start; restart moatd to read it "
             "again, guests keep their networks",
             number);
}

/* Every published port holds a socket. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max = 1 << 20;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
        return;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE,
                        &limit); /* what there is is used; a lack shows as a clear refusal */
    }
}

static int daemon_start(struct daemon *daemon, struct config *config, struct error *error)
{
    int listen_fd = -1;
    int r = loop_new(&daemon->loop, error);

    priority_raise();
    if (r >= 0)
        r = passed_fds(daemon, error, &listen_fd);
    if (r < 0)
        return r;
    config->fdstore = daemon->fdstore;
    daemon->signals[0] = loop_signal_new(daemon->loop, SIGTERM, on_signal, daemon);
    daemon->signals[1] = loop_signal_new(daemon->loop, SIGINT, on_signal, daemon);
    daemon->signals[2] = loop_signal_new(daemon->loop, SIGHUP, on_hangup, daemon);
    if (!daemon->signals[0] || !daemon->signals[1] || !daemon->signals[2])
        return error_set(error, ENOMEM, "signals");
    r = rpc_check(config, error);
    if (r < 0)
        return r;
    r = service_new(config, daemon->loop, on_event, daemon, &daemon->service, error);
    if (r >= 0)
        r = rpc_new(config, daemon->loop, listen_fd, &daemon->rpc, error);
    if (r < 0 && daemon->service)
        service_give_up(daemon->service);
    if (r >= 0)
        rpc_start(daemon->rpc, daemon->service);
    return r;
}

static void daemon_stop(struct daemon *daemon)
{
    for (size_t i = 0; i < ARRAY_SIZE(daemon->signals); i++)
        loop_signal_free(daemon->signals[i]);
    (void)signal(SIGTERM, SIG_IGN); /* once is enough: what ends is not cut short */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    rpc_free(daemon->rpc);
    service_free(daemon->service);
    fdstore_free(daemon->fdstore);
    loop_free(daemon->loop);
}

static int run(struct config *config)
{
    struct daemon daemon = {0};
    struct error error = ERROR_INIT;
    int r;

    raise_limits();
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGUSR1, SIG_IGN); /* they mean nothing to moatd, and would end it */
    (void)signal(SIGUSR2, SIG_IGN);
    umask(0022);
    r = daemon_start(&daemon, config, &error);
    if (r < 0) {
        log_error("%s", error.text);
    } else {
        log_info("moatd " MOAT_VERSION " serves %s/moat.sock", config->run_dir);
        notify("READY=1\nSTATUS=Serving");
        loop_run(daemon.loop);
        notify("STOPPING=1");
        if (service_has_failed(daemon.service))
            r = error_set(&error, EIO, "the state can't be kept"); /* has been logged */
    }
    daemon_stop(&daemon);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- options --- */

static int print_api(void)
{
    struct text text = {0};

    proto_reference_write(&text);
    if (!text.failed)
        fputs(text.data, stdout);
    text_deinit(&text);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int list_fault_points(void)
{
    for (size_t i = 0; service_fault_points[i]; i++)
        puts(service_fault_points[i]);
    return EXIT_SUCCESS;
}

static void set_directory(char **member, const char *value)
{
    free(*member);
    *member = value[0] == '/' ? strdup(value) : realpath(value, NULL);
    if (*member)
        return;
    /* relative, and not there yet: below where we stand */
    char *here = getcwd(NULL, 0);

    if (!here || asprintf(member, "%s/%s", here, value) < 0)
        *member = NULL;
    free(here);
}

struct options {
    const char *config;
    const char *state_dir;
    const char *run_dir;
    bool debug;
};

enum {
    OPTION_CONFIG = 256,
    OPTION_STATE_DIR,
    OPTION_RUN_DIR,
    OPTION_DEBUG,
    OPTION_API,
    OPTION_FAULTS
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"state-dir", required_argument, NULL, OPTION_STATE_DIR},
    {"run-dir", required_argument, NULL, OPTION_RUN_DIR},
    {"debug", no_argument, NULL, OPTION_DEBUG},
    {"print-api", no_argument, NULL, OPTION_API},
    {"list-fault-points", no_argument, NULL, OPTION_FAULTS},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static int check_directory(const char *option, const char *value)
{
    if (value[0])
        return -1;
    fprintf(stderr, "moatd: %s takes a directory, not \"\"; try `moatd --help`\n", option);
    return 2;
}

/* Returns -1 to go on, else the status to exit with. */
static int parse_option(int option, struct options *options)
{
    switch (option) {
    case OPTION_CONFIG:
        options->config = optarg;
        return -1;
    case OPTION_STATE_DIR:
        options->state_dir = optarg;
        return check_directory("--state-dir", optarg);
    case OPTION_RUN_DIR:
        options->run_dir = optarg;
        return check_directory("--run-dir", optarg);
    case OPTION_DEBUG:
        options->debug = true;
        return -1;
    case OPTION_API:
        return print_api();
    case OPTION_FAULTS:
        return list_fault_points();
    case 'h':
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    case 'V':
        puts("moatd " MOAT_VERSION);
        return EXIT_SUCCESS;
    default:
        fputs("moatd: try `moatd --help`\n", stderr);
        return 2;
    }
}

static int parse_options(int argc, char **argv, struct options *options)
{
    int option;

    while ((option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
        int status = parse_option(option, options);

        if (status >= 0)
            return status;
    }
    if (optind < argc) {
        fprintf(stderr, "moatd: takes no argument \"%s\"; try `moatd --help`\n", argv[optind]);
        return 2;
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct config config;
    struct error error = ERROR_INIT;
    int status;

    if (argc > 1 && strcmp(argv[1], "--worker") == 0)
        return worker_main(argc, argv);
    status = parse_options(argc, argv, &options);
    if (status >= 0)
        return status;
    log_init("moatd", LOG_LEVEL_INFO);
    config_init(&config);
    if (options.state_dir)
        set_directory(&config.state_dir, options.state_dir);
    if (options.run_dir)
        set_directory(&config.run_dir, options.run_dir);
    if (config_read(&config, options.config ? options.config : DEFAULT_CONFIG,
                    options.config != NULL, &error) < 0) {
        log_error("%s", error.text);
        status = EXIT_FAILURE;
    } else {
        config.debug = config.debug || options.debug;
        log_init("moatd", config.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
        status = run(&config);
    }
    config_deinit(&config);
    return status;
}
