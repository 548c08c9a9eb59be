/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat attach, detach, ps, inspect */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "base/cleanup.h"
#include "show.h"
#include "table.h"
#include "user.h"

/* --- attach --- */

/* One of --netns, --pid and --tap says what the guest is. */
static int set_kind(struct guest_attach_params *params, enum guest_kind kind, struct error *error)
{
    if (params->has_kind)
        return option_refuse(error, "a guest is attached by one of --netns, --pid and --tap");
    params->has_kind = true;
    params->kind = kind;
    return 0;
}

/* The daemon's directory is another one: the path is made absolute. It is not resolved: the links
 * in /proc/PID/ns lead to no path. */
static int set_netns(struct invocation *invocation, const char *value, struct error *error)
{
    struct guest_attach_params *params = &invocation->params.guest_attach;
    _cleanup_free_ char *directory = NULL;
    int r = set_kind(params, KIND_NETNS, error);

    if (r < 0)
        return r;
    if (value[0] == '\0')
        return option_refuse(error, "the path is empty");
    if (value[0] == '/') {
        params->netns = strdup(value);
    } else {
        directory = getcwd(NULL, 0);
        if (!directory || asprintf(&params->netns, "%s/%s", directory, value) < 0)
            params->netns = NULL;
    }
    return params->netns ? 0 : error_set(error, ENOMEM, "path");
}

static int set_pid(struct invocation *invocation, const char *value, struct error *error)
{
    struct guest_attach_params *params = &invocation->params.guest_attach;
    char *end;
    unsigned long pid;
    int r = set_kind(params, KIND_NETNS, error);

    if (r < 0)
        return r;
    pid = strtoul(value, &end, 10);
    if (value[0] < '1' || value[0] > '9' || *end != '\0' || pid > INT_MAX)
        return option_refuse(error, "\"%.40s\" is not a process id", value);
    params->pid = (uint32_t)pid;
    return 0;
}

static int set_tap(struct invocation *invocation, const char *value, struct error *error)
{
    struct attach_tap *tap = &invocation->params.guest_attach.tap;
    int r = set_kind(&invocation->params.guest_attach, KIND_TAP, error);

    if (r < 0)
        return r;
    tap->given = true;
    if (!value)
        return 0;
    if (!name_is_interface(value))
        return option_refuse(error,
                             "\"%.40s\" is not an interface name: 1 to 15 characters without "
                             "space, '/', ':' and '%%'",
                             value);
    snprintf(tap->name, sizeof(tap->name), "%s", value);
    return 0;
}

static int set_tap_owner(struct invocation *invocation, const char *value, struct error *error)
{
    struct attach_tap *tap = &invocation->params.guest_attach.tap;
    struct user user;
    int r = user_parse(value, USER_HOST, &user, error);

    if (r < 0)
        return r;
    tap->owner = user.uid;
    if (user.gid_given)
        tap->group = user.gid;
    user_deinit(&user);
    return 0;
}

static const struct option attach_options[] = {
    ARGUMENTS_NETWORK,
    {.name = "netns",
     .kind = OPTION_VALUE,
     .value = "PATH",
     .field = "netns",
     .set = set_netns,
     .complete = COMPLETE_FILE,
     .doc = "the guest is the network namespace at PATH"},
    {.name = "pid",
     .kind = OPTION_VALUE,
     .value = "PID",
     .field = "pid",
     .set = set_pid,
     .doc = "the guest is this process, in its network namespace"},
    {.name = "tap",
     .kind = OPTION_MAYBE,
     .value = "IFNAME",
     .field = "tap.name",
     .set = set_tap,
     .doc = "the guest is a VM, on a tap device"},
    ARGUMENTS_MODE,
    ARGUMENTS_PUBLISH,
    ARGUMENTS_ALLOW("policy.allow"),
    ARGUMENTS_DENY("policy.deny"),
    ARGUMENTS_LOG_DENIED("policy.log_denied"),
    ARGUMENTS_DROP("policy.drop"),
    ARGUMENTS_LIMITS,
    {.name = "tap-owner",
     .kind = OPTION_VALUE,
     .value = "UID[:GID]",
     .field = "tap.owner",
     .set = set_tap_owner,
     .doc = "who may open the tap"},
    {.name = "multi-queue", .field = "tap.multi_queue", .doc = "a tap with several queues"},
    {.name = "vnet-hdr", .field = "tap.vnet_hdr", .doc = "a tap with virtio-net headers"},
    {.name = "dns-inject",
     .field = "dns_inject",
     .doc = "put the network's name server first in the container's /etc/resolv.conf, until "
            "detach; needs --pid"},
    ARGUMENTS_LABEL,
    {0},
};

static const struct positional attach_positionals[] = {{.name = "GUEST", .field = "name"}, {0}};

/* "web: eth0 10.88.0.2/16 on default", one line for each endpoint. */
static int print_attached(struct invocation *invocation, const struct proto_response *response)
{
    struct guest guest;
    int code = invocation_decode(response, &proto_guest, &guest);

    (void)invocation;
    if (code != EXIT_DONE)
        return code;
    for (size_t i = 0; i < guest.n_endpoints; i++) {
        const struct endpoint *endpoint = &guest.endpoints[i];
        struct text addresses = {0};

        show_append_address(&addresses, &endpoint->ip, endpoint->prefix);
        show_append_address(&addresses, &endpoint->ip6, endpoint->prefix6);
        printf("%s: %s %s on %s\n", guest.name,
               endpoint->interface[0] ? endpoint->interface : endpoint->host_interface,
               show_text(&addresses), endpoint->network);
        text_deinit(&addresses);
    }
    guest_deinit(&guest);
    return EXIT_DONE;
}

static int guest_attach(struct invocation *invocation)
{
    struct guest_attach_params *params = &invocation->params.guest_attach;
    const struct attach_tap *tap = &params->tap;
    struct error error = ERROR_INIT;

    if (!tap->given || params->kind != KIND_TAP) {
        if (tap->owner >= 0 || tap->multi_queue || tap->vnet_hdr) {
            option_refuse(&error, "--tap-owner, --multi-queue and --vnet-hdr need --tap");
            return invocation_fail(EXIT_USAGE, &error);
        }
    }
    if (params->n_networks == 0 && (!params->has_mode || params->mode >= MODE_OUTBOUND)) {
        option_refuse(&error, "moat attach needs a network: --network NET");
        return invocation_fail(EXIT_USAGE, &error);
    }
    return invocation_show(invocation, print_attached);
}

/* --- detach --- */

static const struct option detach_options[] = {
    {.name = "network",
     .kind = OPTION_VALUE,
     .value = "NET",
     .field = "network",
     .complete = COMPLETE_NETWORK,
     .doc = "only from this network"},
    {0},
};

static const struct positional detach_positionals[] = {ARGUMENTS_GUEST("name"), {0}};

static int guest_detach(struct invocation *invocation)
{
    return invocation_show(invocation, NULL);
}

/* --- ps --- */

static void add_row(struct table *table, const struct guest *guest)
{
    struct text networks = {0};
    struct text addresses = {0};
    struct text ports = {0};
    char port[PORT_TEXT_MAX];
    char address[IP_TEXT_MAX];

    for (size_t i = 0; i < guest->n_endpoints; i++) {
        const struct endpoint *endpoint = &guest->endpoints[i];

        show_append(&networks, endpoint->network);
        if (ip_is_set(&endpoint->ip))
            show_append(&addresses, ip_format(&endpoint->ip, address));
        if (ip_is_set(&endpoint->ip6))
            show_append(&addresses, ip_format(&endpoint->ip6, address));
    }
    for (size_t i = 0; i < guest->n_ports; i++)
        show_append(&ports, port_format(&guest->ports[i], port));
    table_add(table, guest->name, guest_kind_name(guest->kind), guest_mode_name(guest->mode),
              show_text(&networks), show_text(&addresses), show_text(&ports), "running");
    text_deinit(&networks);
    text_deinit(&addresses);
    text_deinit(&ports);
}

static int print_guests(struct invocation *invocation, const struct proto_response *response)
{
    struct guest *guests;
    struct table table;
    void *items;
    size_t count;
    int code = invocation_decode_list(response, &proto_guest, &items, &count);

    if (code != EXIT_DONE)
        return code;
    guests = items;
    table_init(&table, 7, "NAME", "KIND", "MODE", "NETWORKS", "ADDRESSES", "PORTS", "STATE");
    for (size_t i = 0; i < count; i++) {
        if (invocation->quiet)
            puts(guests[i].name);
        else
            add_row(&table, &guests[i]);
    }
    if (!invocation->quiet)
        (void)table_print(&table);
    table_deinit(&table);
    invocation_free_list(&proto_guest, items, count);
    return EXIT_DONE;
}

static int guest_ps(struct invocation *invocation)
{
    return invocation_show(invocation, print_guests);
}

static const struct option ps_options[] = {ARGUMENTS_QUIET, {0}};

static const struct positional inspect_positionals[] = {
    {.name = "GUEST",
     .field = "name",
     .set = arguments_add_name,
     .repeat = true,
     .complete = COMPLETE_GUEST},
    {0},
};

const struct command guest_commands[] = {
    {.name = "attach",
     .summary = "attach a namespace, a process or a VM to networks",
     .options = attach_options,
     .positionals = attach_positionals,
     .method = METHOD_GUEST_ATTACH,
     .run = guest_attach,
     .text = "Without --netns, --pid and --tap: one more network for a guest that is there, while "
             "it runs."},
    {.name = "detach",
     .summary = "detach a guest from its networks",
     .options = detach_options,
     .positionals = detach_positionals,
     .method = METHOD_GUEST_DETACH,
     .run = guest_detach},
    {.name = "ps",
     .summary = "list the guests",
     .options = ps_options,
     .method = METHOD_GUEST_LIST,
     .run = guest_ps},
    {.name = "inspect",
     .summary = "show all about guests, as a JSON array",
     .positionals = inspect_positionals,
     .method = METHOD_GUEST_GET,
     .run = show_inspect},
    {0},
};
