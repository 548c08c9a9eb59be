/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat net */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "base/cleanup.h"
#include "remote.h"
#include "show.h"
#include "table.h"

/* --- create --- */

static int set_no_dns(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->params.network_create.dns = false;
    return 0;
}

/* --ipv4=false */
static int set_ipv4(struct invocation *invocation, const char *value, struct error *error)
{
    bool yes = !value || strcmp(value, "true") == 0;

    if (!yes && strcmp(value, "false") != 0)
        return option_refuse(error, "--ipv4 takes true or false, not \"%.40s\"", value);
    invocation->params.network_create.ipv4 = yes;
    return 0;
}

static int print_name(struct invocation *invocation, const struct proto_response *response)
{
    (void)response;
    puts(invocation->params.network_create.name);
    return EXIT_DONE;
}

static int net_create(struct invocation *invocation)
{
    return invocation_show(invocation, print_name);
}

static const struct option create_options[] = {
    {.name = "subnet",
     .kind = OPTION_VALUE,
     .value = "CIDR",
     .field = "subnet",
     .doc = "IPv4 subnet, /8 to /30 (default: a free one)"},
    {.name = "gateway",
     .kind = OPTION_VALUE,
     .value = "IP",
     .field = "gateway",
     .doc = "address of the bridge (default: the subnet's first)"},
    {.name = "ip-range",
     .kind = OPTION_VALUE,
     .value = "CIDR",
     .field = "ip_range",
     .doc = "part of the subnet that addresses are chosen from"},
    {.name = "ipv4",
     .kind = OPTION_MAYBE,
     .value = "true|false",
     .field = "ipv4",
     .set = set_ipv4,
     .words = "true false",
     .doc = "false: a network with IPv6 only"},
    {.name = "ipv6", .field = "ipv6", .doc = "IPv6 as well, with a subnet of its own"},
    {.name = "subnet6",
     .kind = OPTION_VALUE,
     .value = "CIDR",
     .field = "subnet6",
     .doc = "IPv6 subnet"},
    {.name = "gateway6",
     .kind = OPTION_VALUE,
     .value = "IP",
     .field = "gateway6",
     .doc = "IPv6 address of the bridge"},
    {.name = "internal", .field = "internal", .doc = "nothing goes in or out but to the gateway"},
    {.name = "isolated", .field = "isolated", .doc = "guests don't reach one another"},
    {.name = "host-access", .field = "host_access", .doc = "guests reach all services of the host"},
    {.name = "mtu",
     .kind = OPTION_VALUE,
     .value = "N",
     .field = "mtu",
     .doc = "MTU in bytes (default: that of the host's route out)"},
    {.name = "bridge",
     .kind = OPTION_VALUE,
     .value = "IFNAME",
     .field = "bridge",
     .doc = "interface name of the bridge (default: moat<N>)"},
    {.name = "no-dns", .field = "dns", .set = set_no_dns, .doc = "no name service on this network"},
    {.name = "dns",
     .kind = OPTION_VALUE,
     .repeat = true,
     .value = "IP",
     .field = "dns_servers",
     .doc = "ask this server for other names (default: the host's)"},
    ARGUMENTS_LABEL,
    {.name = "ignore", .field = "ignore", .doc = "be content if it exists with these settings"},
    {0},
};

static const struct positional create_positionals[] = {{.name = "NAME", .field = "name"}, {0}};

/* --- ls --- */

static const char *network_flags(const struct network *network, struct text *text)
{
    if (network->internal)
        show_append(text, "internal");
    if (network->isolated)
        show_append(text, "isolated");
    if (network->host_access)
        show_append(text, "host-access");
    if (!network->dns)
        show_append(text, "no-dns");
    return show_text(text);
}

static const char *network_subnets(const struct network *network, struct text *text)
{
    char cidr[CIDR_TEXT_MAX];

    if (cidr_is_set(&network->subnet))
        show_append(text, cidr_format(&network->subnet, cidr));
    if (cidr_is_set(&network->subnet6))
        show_append(text, cidr_format(&network->subnet6, cidr));
    return show_text(text);
}

static void add_row(struct table *table, const struct network *network)
{
    struct text subnets = {0};
    struct text flags = {0};
    char gateway[IP_TEXT_MAX];
    char guests[24];

    snprintf(guests, sizeof(guests), "%zu", network->guests.count);
    table_add(
        table, network->name, network->bridge, network_subnets(network, &subnets),
        ip_format(ip_is_set(&network->gateway) ? &network->gateway : &network->gateway6, gateway),
        guests, network_flags(network, &flags));
    text_deinit(&subnets);
    text_deinit(&flags);
}

static int print_networks(struct invocation *invocation, const struct proto_response *response)
{
    struct network *networks;
    struct table table;
    void *items;
    size_t count;
    int code = invocation_decode_list(response, &proto_network, &items, &count);

    if (code != EXIT_DONE)
        return code;
    networks = items;
    table_init(&table, 6, "NAME", "BRIDGE", "SUBNET", "GATEWAY", "GUESTS", "OPTIONS");
    for (size_t i = 0; i < count; i++) {
        if (invocation->quiet)
            puts(networks[i].name);
        else
            add_row(&table, &networks[i]);
    }
    if (!invocation->quiet)
        (void)table_print(&table);
    table_deinit(&table);
    invocation_free_list(&proto_network, items, count);
    return EXIT_DONE;
}

static int net_ls(struct invocation *invocation)
{
    return invocation_show(invocation, print_networks);
}

static const struct option ls_options[] = {ARGUMENTS_QUIET, {0}};

/* --- inspect, rm --- */

static const struct positional names_positionals[] = {
    {.name = "NAME",
     .field = "name",
     .set = arguments_add_name,
     .repeat = true,
     .complete = COMPLETE_NETWORK},
    {0},
};

static int net_rm(struct invocation *invocation)
{
    int worst = EXIT_DONE;

    for (size_t i = 0; i < invocation->words.count && worst != EXIT_UNREACHABLE; i++) {
        _cleanup_(proto_response_freep) struct proto_response *response = NULL;
        char *name = invocation->params.network_remove.name;
        int code;

        snprintf(name, sizeof(invocation->params.network_remove.name), "%s",
                 invocation->words.items[i]);
        code = invocation_call_own(invocation, &response);
        if (code > worst)
            worst = code;
    }
    if (worst == EXIT_DONE && invocation->json)
        puts("{}");
    return worst;
}

static const struct option rm_options[] = {
    {.name = "force", .field = "force", .doc = "detach the guests that are on it"},
    {0},
};

/* --- prune --- */

static bool ask(const char *question)
{
    char answer[16];

    fprintf(stderr, "%s [y/N] ", question);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static int print_names(struct invocation *invocation, const struct proto_response *response)
{
    struct error error = ERROR_INIT;
    struct strings names;

    (void)invocation;
    if (proto_response_strings(response, &names, &error) < 0)
        return invocation_fail(EXIT_REFUSED, &error);
    for (size_t i = 0; i < names.count; i++)
        puts(names.items[i]);
    strings_deinit(&names);
    return EXIT_DONE;
}

static int net_prune(struct invocation *invocation)
{
    struct error error = ERROR_INIT;

    if (!invocation->yes && !isatty(STDIN_FILENO)) {
        option_refuse(&error,
                      "net prune asks before it removes networks; without a terminal add --yes");
        return invocation_fail(EXIT_USAGE, &error);
    }
    if (!invocation->yes && !ask("Remove every network without guests, but the default one?")) {
        option_refuse(&error, "nothing was removed");
        return invocation_fail(EXIT_REFUSED, &error);
    }
    return invocation_show(invocation, print_names);
}

static const struct option prune_options[] = {
    {.name = "yes", .letter = 'y', .set = arguments_set_yes, .doc = "don't ask"},
    {0},
};

/* --- allow, deny --- */

static int net_passage(struct invocation *invocation)
{
    return invocation_show(invocation, NULL);
}

static int add_span(struct invocation *invocation, const char *value, struct error *error)
{
    struct port_span span;
    int r = span_parse(value, "", &span, error);

    return r < 0 ? r : arguments_add(invocation, "ports", value, error);
}

static const struct positional passage_positionals[] = {
    {.name = "FROM", .field = "from", .complete = COMPLETE_NETWORK},
    {.name = "TO", .field = "to", .complete = COMPLETE_NETWORK},
    {.name = "PORT", .field = "ports", .set = add_span, .repeat = true, .optional = true},
    {0},
};

static const struct option deny_options[] = {
    {.name = "cut", .field = "cut", .doc = "end connections that run and are no longer allowed"},
    {0},
};

const struct command net_commands[] = {
    {.group = "net",
     .name = "create",
     .summary = "make a network",
     .options = create_options,
     .positionals = create_positionals,
     .method = METHOD_NETWORK_CREATE,
     .run = net_create,
     .text = "Prints the name."},
    {.group = "net",
     .name = "ls",
     .summary = "list the networks",
     .options = ls_options,
     .method = METHOD_NETWORK_LIST,
     .run = net_ls},
    {.group = "net",
     .name = "inspect",
     .summary = "show all about networks, as a JSON array",
     .positionals = names_positionals,
     .method = METHOD_NETWORK_GET,
     .run = show_inspect},
    {.group = "net",
     .name = "rm",
     .summary = "remove networks",
     .options = rm_options,
     .positionals = names_positionals,
     .method = METHOD_NETWORK_REMOVE,
     .run = net_rm,
     .text = "A network that has guests is refused without --force."},
    {.group = "net",
     .name = "prune",
     .summary = "remove every network without guests, but the default one",
     .options = prune_options,
     .method = METHOD_NETWORK_PRUNE,
     .run = net_prune,
     .text = "Asks first on a terminal. Prints the names of those that are gone."},
    {.group = "net",
     .name = "allow",
     .summary = "let guests of one network open connections to another",
     .positionals = passage_positionals,
     .method = METHOD_NETWORK_ALLOW,
     .run = net_passage,
     .text = "PORT is PORT[-END][/tcp|/udp] of the guests in TO; without one everything is open.\n"
             "Nothing is opened the other way."},
    {.group = "net",
     .name = "deny",
     .summary = "close what net allow opened",
     .options = deny_options,
     .positionals = passage_positionals,
     .method = METHOD_NETWORK_DENY,
     .run = net_passage,
     .text = "Without PORT all of it. Connections that run go on, without --cut."},
    {0},
};
