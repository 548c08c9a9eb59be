/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat dns */
#include <stdio.h>

#include "arguments.h"
#include "table.h"

static int print_records(struct invocation *invocation, const struct proto_response *response)
{
    struct record_result *records;
    struct table table;
    void *items;
    size_t count;
    int code = invocation_decode_list(response, &proto_record, &items, &count);

    (void)invocation;
    if (code != EXIT_DONE)
        return code;
    records = items;
    table_init(&table, 4, "NAME", "ADDRESS", "NETWORK", "GUEST");
    for (size_t i = 0; i < count; i++) {
        char address[IP_TEXT_MAX];

        table_add(&table, records[i].name, ip_format(&records[i].ip, address), records[i].network,
                  records[i].guest);
    }
    (void)table_print(&table);
    table_deinit(&table);
    invocation_free_list(&proto_record, items, count);
    return EXIT_DONE;
}

static int dns_ls(struct invocation *invocation)
{
    return invocation_show(invocation, print_records);
}

static int dns_change(struct invocation *invocation)
{
    return invocation_show(invocation, NULL);
}

static const struct option options[] = {
    {.name = "network",
     .kind = OPTION_VALUE,
     .value = "NET",
     .field = "network",
     .complete = COMPLETE_NETWORK,
     .doc = "only on this network (default: on every one)"},
    {0},
};

static const struct positional add_positionals[] = {
    {.name = "NAME", .field = "name"},
    {.name = "IP", .field = "ip"},
    {0},
};

static const struct positional rm_positionals[] = {
    {.name = "NAME", .field = "name"},
    {.name = "IP", .field = "ip", .optional = true},
    {0},
};

const struct command dns_commands[] = {
    {.group = "dns",
     .name = "ls",
     .summary = "list the names and their addresses",
     .options = options,
     .method = METHOD_DNS_LIST,
     .run = dns_ls},
    {.group = "dns",
     .name = "add",
     .summary = "add a name",
     .options = options,
     .positionals = add_positionals,
     .method = METHOD_DNS_ADD,
     .run = dns_change,
     .text = "NAME is below the domain (moat.internal), which is left out."},
    {.group = "dns",
     .name = "rm",
     .summary = "remove a name that was added",
     .options = options,
     .positionals = rm_positionals,
     .method = METHOD_DNS_REMOVE,
     .run = dns_change,
     .text = "With IP only that address of the name."},
    {0},
};
