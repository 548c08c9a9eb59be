/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat port, moat localhost */
#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "base/cleanup.h"
#include "remote.h"
#include "table.h"

/* --- add, rm --- */

static const struct positional change_positionals[] = {
    ARGUMENTS_GUEST("guest"),
    {.name = "PORT", .field = "ports", .set = arguments_add_port, .repeat = true},
    {0},
};

static int print_ports(struct invocation *invocation, const struct proto_response *response)
{
    struct port *ports;
    void *items;
    size_t count;
    int code = invocation_decode_list(response, &proto_port, &items, &count);

    (void)invocation;
    if (code != EXIT_DONE)
        return code;
    ports = items;
    for (size_t i = 0; i < count; i++) {
        char text[PORT_TEXT_MAX];

        puts(port_format(&ports[i], text));
    }
    invocation_free_list(&proto_port, items, count);
    return EXIT_DONE;
}

static int port_add(struct invocation *invocation)
{
    return invocation_show(invocation, print_ports);
}

static int port_rm(struct invocation *invocation)
{
    return invocation_show(invocation, NULL);
}

/* --- ls --- */

static void add_row(struct table *table, const char *guest, const struct port *port)
{
    char host_ip[IP_TEXT_MAX];
    char host[32];
    char inside[32];
    unsigned last = port->count - 1u;

    snprintf(host, sizeof(host), last ? "%u-%u" : "%u", port->host_port, port->host_port + last);
    snprintf(inside, sizeof(inside), last ? "%u-%u" : "%u", port->guest_port,
             port->guest_port + last);
    table_add(table, guest, ip_is_set(&port->host_ip) ? ip_format(&port->host_ip, host_ip) : "any",
              host, inside, port->protocol == IPPROTO_UDP ? "udp" : "tcp",
              port->waiting[0] ? port->waiting : "served");
}

/* The table names each port's guest, which port.list doesn't: it is made of the guests. */
static int print_table(struct invocation *invocation)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    const char *only = invocation->params.guest.guest;
    union params params = {0};
    struct guest *guests;
    struct table table;
    void *items;
    size_t count;
    int code;

    if (only[0])
        snprintf(params.name.name, sizeof(params.name.name), "%s", only);
    code = invocation_call(invocation, METHOD_GUEST_LIST, &params, &response);
    if (code == EXIT_DONE)
        code = invocation_decode_list(response, &proto_guest, &items, &count);
    if (code != EXIT_DONE)
        return code;
    guests = items;
    table_init(&table, 6, "GUEST", "HOST_IP", "HOST_PORT", "GUEST_PORT", "PROTOCOL", "STATE");
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; (!only[0] || strcmp(only, guests[i].name) == 0) && j < guests[i].n_ports;
             j++)
            add_row(&table, guests[i].name, &guests[i].ports[j]);
    (void)table_print(&table);
    table_deinit(&table);
    invocation_free_list(&proto_guest, items, count);
    return EXIT_DONE;
}

static int port_ls(struct invocation *invocation)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    int code;

    /* Also without --json: it is what refuses a guest that isn't there. */
    code = invocation_call_own(invocation, &response);
    if (code != EXIT_DONE)
        return code;
    return invocation->json ? invocation_print_json(response) : print_table(invocation);
}

static const struct positional ls_positionals[] = {
    {.name = "GUEST", .field = "guest", .optional = true, .complete = COMPLETE_GUEST},
    {0},
};

/* --- localhost --- */

static int set_enabled(struct invocation *invocation, const char *value, struct error *error)
{
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return option_refuse(error, "\"%.40s\" is neither on nor off", value);
    invocation->params.localhost.enabled = strcmp(value, "on") == 0;
    return 0;
}

static int port_localhost(struct invocation *invocation)
{
    return invocation_show(invocation, NULL);
}

static const struct positional localhost_positionals[] = {
    ARGUMENTS_GUEST("guest"),
    {.name = "on|off", .field = "enabled", .set = set_enabled, .words = "on off"},
    {0},
};

const struct command port_commands[] = {
    {.group = "port",
     .name = "add",
     .summary = "publish ports of a guest",
     .positionals = change_positionals,
     .method = METHOD_PORT_ADD,
     .run = port_add,
     .text = "PORT is [HOST_IP:][HOST_PORT[-END]:]GUEST_PORT[-END][/tcp|/udp]. Prints what was "
             "published."},
    {.group = "port",
     .name = "rm",
     .summary = "take published ports back",
     .positionals = change_positionals,
     .method = METHOD_PORT_REMOVE,
     .run = port_rm},
    {.group = "port",
     .name = "ls",
     .summary = "list the published ports",
     .positionals = ls_positionals,
     .method = METHOD_PORT_LIST,
     .run = port_ls,
     .text = "STATE names the program that held a port when moatd started.\n"
             "The port is served once that program is gone."},
    {.name = "localhost",
     .summary = "let 127.0.0.1 inside a guest reach its gateway",
     .positionals = localhost_positionals,
     .method = METHOD_LOCALHOST_SET,
     .run = port_localhost,
     .text =
         "On: 127.0.0.1:PORT inside leads to the network's gateway where nothing local listens."},
    {0},
};
