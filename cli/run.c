/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat run
 *
 * The child is made and prepares its place; when that is there, the daemon attaches the namespace,
 * on a connection that stays open as long as the guest lives; then resolv.conf and hosts inside are
 * filled, and the child starts COMMAND. Until then signals have their usual effect: when this
 * process ends, so do the child and the guest. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arguments.h"
#include "base/cleanup.h"
#include "channel.h"
#include "guest_init.h"
#include "process.h"
#include "refusal.h"
#include "remote.h"
#include "resolver_query.h"
#include "run.h"
#include "supervise.h"
#include "terminal.h"

struct run {
    struct invocation *invocation;
    struct remote *remote;
    struct user user;
    bool has_user;
    struct guest_init init;
    pid_t child;
    int pidfd;
    int channel; /* the outer end */
    struct resolver_facts facts;
    int report; /* run.h */
    struct guest guest;
    struct follow follow;
    sigset_t mask;
};

/* --- options --- */

static int set_hostname(struct invocation *invocation, const char *value, struct error *error)
{
    if (!name_is_dns(value) || strlen(value) > HOST_NAME_MAX)
        return option_refuse(error, "\"%.80s\" is not a hostname of at most %d characters", value,
                             HOST_NAME_MAX);
    invocation->process.hostname = value;
    return 0;
}

static int set_rootfs(struct invocation *invocation, const char *value, struct error *error)
{
    if (value[0] == '\0')
        return option_refuse(error, "the path is empty");
    invocation->process.rootfs = value;
    return 0;
}

static const struct option run_options[] = {
    {.name = "name",
     .letter = 'n',
     .kind = OPTION_VALUE,
     .value = "GUEST",
     .field = "name",
     .doc = "the guest's name (default: run-<6 hex digits>)"},
    ARGUMENTS_NETWORK,
    ARGUMENTS_MODE,
    ARGUMENTS_PUBLISH,
    ARGUMENTS_ALLOW("policy.allow"),
    ARGUMENTS_DENY("policy.deny"),
    ARGUMENTS_LOG_DENIED("policy.log_denied"),
    ARGUMENTS_DROP("policy.drop"),
    ARGUMENTS_LIMITS,
    {.name = "dns",
     .kind = OPTION_VALUE,
     .repeat = true,
     .value = "IP",
     .field = "dns",
     .doc = "ask this server for names that are not moat's (default: the network's)"},
    {.name = "dns-search",
     .kind = OPTION_VALUE,
     .repeat = true,
     .value = "DOMAIN",
     .field = "dns_search",
     .set = arguments_add_search,
     .doc = "search names in this domain too"},
    {.name = "add-host",
     .kind = OPTION_VALUE,
     .repeat = true,
     .value = "NAME:IP",
     .field = "hosts",
     .set = arguments_add_host,
     .doc = "put a line into /etc/hosts"},
    {.name = "hostname",
     .kind = OPTION_VALUE,
     .value = "NAME",
     .set = set_hostname,
     .doc = "the hostname inside (default: the host's; with --rootfs GUEST)"},
    {.name = "rootfs",
     .kind = OPTION_VALUE,
     .value = "DIR",
     .set = set_rootfs,
     .complete = COMPLETE_DIRECTORY,
     .doc = "run on a throw-away layer over DIR, which never changes"},
    ARGUMENTS_USER,
    ARGUMENTS_WORKDIR("start in this directory (default: the caller's; with --rootfs /)"),
    ARGUMENTS_ENV,
    ARGUMENTS_LABEL,
    {0},
};

/* --- the child --- */

static int resolve_user(struct run *run, struct error *error)
{
    const struct process_options *options = &run->invocation->process;
    int r;

    if (!options->user || options->rootfs)
        return 0;
    r = user_parse(options->user, USER_HOST, &run->user, error);
    run->has_user = r == 0;
    return r;
}

/* Root that may not make namespaces (in a container) does as any user does. */
static pid_t clone_child(struct run *run)
{
    pid_t child;

    run->init.user_namespace = geteuid() != 0;
    child = guest_init_clone(&run->init, &run->pidfd);
    if (child < 0 && errno == EPERM && !run->init.user_namespace) {
        run->init.user_namespace = true;
        child = guest_init_clone(&run->init, &run->pidfd);
    }
    return child;
}

static int start_child(struct run *run, struct error *error)
{
    int fds[2];
    int r = channel_open(fds);

    if (r < 0)
        return error_set(error, r, "can't make a socket");
    run->init.channel = fds[1];
    run->child = clone_child(run);
    if (run->child == 0) {
        close(fds[0]);
        remote_free(run->remote);
        guest_init_main(&run->init);
    }
    r = errno;
    close(fds[1]);
    run->channel = fds[0];
    if (run->child < 0)
        return error_set(
            error, r, "can't make the guest's namespaces%s",
            r == EPERM || r == ENOSPC ? " (are user namespaces allowed here? run it as root)" : "");
    return 0;
}

/* --- the guest --- */

static void choose_name(struct guest_attach_params *params)
{
    char id[ID_TEXT_LENGTH + 1];

    if (params->name[0])
        return;
    id_generate(id);
    snprintf(params->name, sizeof(params->name), "run-%.6s", id);
}

/* When the child has failed meanwhile, that is the reason, and not what the daemon says about it.
 */
static void prefer_childs_reason(const struct run *run, struct error *error)
{
    struct pollfd poll_fd = {.fd = run->channel, .events = POLLIN};
    struct message message;
    pid_t sender;

    if (poll(&poll_fd, 1, 0) == 1 && channel_receive(run->channel, &message, &sender) == 0 &&
        message.type == MESSAGE_FAILED)
        error_set(error, 0, "%s", message.text);
}

static int attach(struct run *run, struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    union params *params = &run->invocation->params;
    int r;

    params->guest_attach.has_kind = true;
    params->guest_attach.kind = KIND_NETNS;
    params->guest_attach.pid = (uint32_t)run->child;
    params->guest_attach.ephemeral = true;
    r = remote_call(run->remote, METHOD_GUEST_ATTACH, params, &response, error);
    if (r < 0) {
        (void)refusal_translate(run->invocation->command, error);
        prefer_childs_reason(run, error);
        return r;
    }
    return proto_response_object(response, &proto_guest, &run->guest, error);
}

static int query_facts(struct run *run, struct error *error)
{
    const struct guest_attach_params *params = &run->invocation->params.guest_attach;
    size_t count = params->n_networks ? params->n_networks : 1;
    _cleanup_free_ const char **networks = calloc(count, sizeof(*networks));
    int r;

    if (!networks)
        return error_set(error, ENOMEM, "networks");
    networks[0] = DEFAULT_NETWORK;
    for (size_t i = 0; i < params->n_networks; i++)
        networks[i] = params->networks[i].name;
    r = resolver_facts_query(run->remote, networks, count, &run->facts, error);
    if (r < 0)
        prefer_childs_reason(run, error);
    return r;
}

/* The child has made the guest's place: whoever is told of the guest may enter it. */
static int receive_files(struct run *run, int ret_files[CHANNEL_FILES], struct error *error)
{
    struct message message;
    pid_t sender;
    int r = channel_receive(run->channel, &message, &sender);

    if (r == 0 && message.type == MESSAGE_FAILED)
        return error_set(error, 0, "%s", message.text);
    if (r < 0 || message.type != MESSAGE_FILES)
        return error_set(error, r, "the guest's first process ended");
    memcpy(ret_files, message.files, sizeof(message.files));
    return 0;
}

/* The guest is attached: its files are written, and follow its networks from now on. */
static int write_files(struct run *run, const int files[CHANNEL_FILES], struct error *error)
{
    const struct guest_attach_params *params = &run->invocation->params.guest_attach;
    const struct resolver_wish wish = {
        .dns = &params->dns,
        .search = &params->dns_search,
        .add_hosts = &params->hosts,
        .hostname = run->init.hostname,
    };
    struct text conf = {0};
    struct text hosts = {0};
    int r = resolver_write(&run->facts, &run->guest, &wish, &conf, &hosts, error);

    if (r == 0)
        r = etc_file_write(files[ETC_RESOLV_CONF], conf.data, error);
    if (r == 0)
        r = etc_file_write(files[ETC_HOSTS], hosts.data, error);
    if (r == 0)
        follow_begin(&run->follow, TAKE_PTR(run->remote), &run->guest, &wish, &conf, &hosts);
    text_deinit(&conf);
    text_deinit(&hosts);
    return r;
}

static int attach_in_place(struct run *run, struct error *error)
{
    int files[CHANNEL_FILES] = {-1, -1};
    int r = receive_files(run, files, error);

    if (r < 0)
        return r;
    supervise_end_by_status();
    r = attach(run, error);
    if (r == 0) {
        supervise_block_signals(&run->mask);
        r = write_files(run, files, error);
    }
    if (r < 0) {
        for (size_t i = 0; i < CHANNEL_FILES; i++)
            close(files[i]);
        return r;
    }
    follow_take_files(&run->follow, files);
    /* A child that is gone has said why: that is read from the channel. */
    (void)channel_send(run->channel, MESSAGE_BEGIN, 0, NULL);
    return 0;
}

/* Which port was chosen where none was given: people have to know. */
static void tell_ports(const struct run *run)
{
    const struct strings *wanted = &run->invocation->params.guest_attach.ports;
    const struct guest *guest = &run->follow.guest;
    struct error ignored = ERROR_INIT;
    bool chosen = false;

    for (size_t i = 0; i < wanted->count; i++) {
        struct port port;

        chosen |= port_parse(wanted->items[i], "", &port, &ignored) == 0 && port.host_port == 0;
    }
    for (size_t i = 0; chosen && i < guest->n_ports; i++) {
        char text[PORT_TEXT_MAX];

        fprintf(stderr, "moat: %s: published %s\n", guest->name,
                port_format(&guest->ports[i], text));
    }
}

/* --- the whole --- */

static void run_init(struct run *ret_run, struct invocation *invocation)
{
    struct guest_attach_params *params = &invocation->params.guest_attach;
    const struct process_options *options = &invocation->process;

    choose_name(params);
    *ret_run = (struct run){
        .invocation = invocation,
        .channel = -1,
        .pidfd = -1,
        .init = {.options = options,
                 .command_line = invocation->command_line,
                 .hostname = options->hostname ? options->hostname
                             : options->rootfs ? params->name
                                               : NULL,
                 .ignore_children = process_claim_children(),
                 .own_group = terminal_wants_own_group(),
                 .uid = geteuid(),
                 .gid = getegid()},
    };
    follow_init(&ret_run->follow, invocation->socket);
}

static void run_deinit(struct run *run)
{
    if (run->child > 0) {
        kill(run->child, SIGKILL);
        waitpid(run->child, NULL, 0);
    }
    if (run->channel >= 0)
        close(run->channel);
    if (run->pidfd >= 0)
        close(run->pidfd);
    remote_free(run->remote);
    guest_deinit(&run->guest);
    follow_deinit(&run->follow);
    resolver_facts_deinit(&run->facts);
    user_deinit(&run->user);
}

static int prepare(struct run *run, struct error *error)
{
    int r = resolve_user(run, error);

    if (r < 0)
        return r;
    run->init.user = run->has_user ? &run->user : NULL;
    sigprocmask(SIG_SETMASK, NULL, &run->mask);
    run->init.mask = &run->mask;
    r = remote_connect(run->invocation->socket, &run->remote, error);
    if (r == 0)
        r = start_child(run, error);
    if (r == 0)
        r = query_facts(run, error);
    return r < 0 ? r : attach_in_place(run, error);
}

static int supervise_command(struct run *run, struct supervise *ret_supervise)
{
    int code;

    *ret_supervise = (struct supervise){.channel = TAKE_FD(run->channel),
                                        .report = run->report,
                                        .child = run->child,
                                        .follow = &run->follow,
                                        .own_group = run->init.own_group};
    run->child = 0;
    tell_ports(run);
    code = supervise_run(ret_supervise);
    follow_detach(&run->follow);
    return code;
}

static int fail(int report, const struct error *error)
{
    if (report < 0)
        return invocation_fail(EXIT_MOAT_FAILED, error);
    (void)channel_send(report, MESSAGE_FAILED, EXIT_MOAT_FAILED, error->text);
    return EXIT_MOAT_FAILED;
}

static int close_inherited(int report, struct error *error)
{
    unsigned first = STDERR_FILENO + 1;
    int r = 0;

    if (report > STDERR_FILENO) {
        if (report > (int)first)
            r = close_range(first, (unsigned)report - 1, 0);
        first = (unsigned)report + 1;
    }
    if (r < 0 || close_range(first, UINT_MAX, 0) < 0)
        return error_set(error, errno, "can't close inherited descriptors");
    return 0;
}

int run_guest(struct invocation *invocation, int report)
{
    struct supervise supervise = {.report = -1};
    struct error error = ERROR_INIT;
    struct run run;
    int code;

    if (close_inherited(report, &error) < 0)
        return fail(report, &error);
    run_init(&run, invocation);
    run.report = report;
    if (prepare(&run, &error) < 0)
        code = fail(report, &error);
    else
        code = supervise_command(&run, &supervise);
    run_deinit(&run);
    supervise_pass_interrupt(&supervise);
    return code;
}

static int guest_run(struct invocation *invocation)
{
    return run_guest(invocation, -1);
}

const struct command run_commands[] = {
    {.name = "run",
     .summary = "run a command as a guest of networks",
     .options = run_options,
     .takes_command = true,
     .method = METHOD_GUEST_ATTACH,
     .run = guest_run,
     .text =
         "COMMAND has a network, mount and process namespace of its own, and the caller's "
         "user, directory,\n"
         "environment and terminal. When it ends, everything that it started is ended, and the "
         "guest is gone.\n"
         "When the guest is detached by others COMMAND is sent SIGTERM, and SIGKILL ten seconds "
         "later.\n"
         "Exit status: COMMAND's own, 128+signal when it was killed; 125 when moat failed, 126 "
         "when COMMAND\n"
         "can't be executed, 127 when it isn't found."},
    {0},
};
