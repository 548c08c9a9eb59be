/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat dns */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "base/cleanup.h"
#include "base/record.h"
#include "dns_log.h"
#include "table.h"
#include "value.h"

#define SRV_WORDS 4 /* PRIORITY WEIGHT PORT TARGET */

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
    table_init(&table, 5, "NAME", "TYPE", "VALUE", "NETWORK", "GUEST");
    for (size_t i = 0; i < count; i++)
        table_add(&table, records[i].name, record_type_name(records[i].type), records[i].value,
                  records[i].network, records[i].guest);
    (void)table_print(&table);
    table_deinit(&table);
    invocation_free_list(&proto_record, items, count);
    return EXIT_DONE;
}

static int dns_ls(struct invocation *invocation)
{
    return invocation_show(invocation, print_records);
}

/* --- records on the command line --- */

/* Into the list `values` of the method's params. */
static int value_add(struct invocation *invocation, const char *value, struct error *error)
{
    return value_set(proto_method_get(invocation->command->method)->params, "values",
                     &invocation->params, value, error);
}

static int type_or_address_set(struct invocation *invocation, const char *word, struct error *error)
{
    struct dns_params *params = &invocation->params.dns;

    if (record_type_parse(word, &params->type) == 0 || ip_parse(word, &params->ip) == 0)
        return 0;
    if (strcasecmp(word, "PTR") == 0)
        return option_refuse(error, "PTR records come by themselves with A and AAAA");
    return option_refuse(error, "\"%.80s\" is neither an IP address nor a type: %s", word,
                         RECORD_TYPES);
}

/* A second address makes the first one the first of the values. */
static int further_value_add(struct invocation *invocation, const char *word, struct error *error)
{
    struct dns_params *params = &invocation->params.dns;
    char text[IP_TEXT_MAX];
    int r = 0;

    if (ip_is_set(&params->ip)) {
        r = value_add(invocation, ip_format(&params->ip, text), error);
        params->ip = (struct ip){0};
    }
    return r < 0 ? r : value_add(invocation, word, error);
}

/* Four words, or one that holds all four, are one value. */
static int srv_group(struct invocation *invocation, struct error *error)
{
    struct strings *values = &invocation->params.dns.values;
    struct strings given = TAKE_STRUCT(*values);
    char value[RECORD_VALUE_MAX] = "";
    unsigned words = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < given.count; i++) {
        char *save;

        for (const char *word = strtok_r(given.items[i], " ", &save); r == 0 && word;
             word = strtok_r(NULL, " ", &save)) {
            size_t length = strlen(value);

            snprintf(value + length, sizeof(value) - length, "%s%s", length ? " " : "", word);
            if (++words % SRV_WORDS != 0)
                continue;
            r = value_add(invocation, value, error);
            value[0] = '\0';
        }
    }
    strings_deinit(&given);
    if (r == 0 && words % SRV_WORDS != 0)
        r = option_refuse(error, "SRV takes PRIORITY WEIGHT PORT TARGET, such as 10 5 5060 sip");
    return r;
}

/* The daemon knows the domain, and looks again: here any will do. */
static int values_check(const struct dns_params *params, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < params->values.count; i++) {
        _cleanup_free_ char *parsed = NULL;
        const char *value = params->values.items[i];
        uint16_t type = params->type;

        if (type == RECORD_NONE)
            type = strchr(value, ':') ? RECORD_AAAA : RECORD_A;
        r = record_value_parse(type, value, "x", "VALUE", &parsed, error);
    }
    return r;
}

static int dns_change(struct invocation *invocation)
{
    const struct dns_params *params = &invocation->params.dns;
    struct error error = ERROR_INIT;
    int r = 0;

    if (params->type == RECORD_SRV)
        r = srv_group(invocation, &error);
    if (r == 0 && params->type != RECORD_NONE && params->values.count == 0 &&
        invocation->command->method == METHOD_DNS_ADD)
        r = option_refuse(&error, "%s needs a VALUE; see \"moat dns add --help\"",
                          record_type_name(params->type));
    if (r == 0)
        r = values_check(params, &error);
    return r < 0 ? invocation_fail(EXIT_USAGE, &error) : invocation_show(invocation, NULL);
}

static int dns_flush(struct invocation *invocation)
{
    return invocation_show(invocation, NULL);
}

static int follow_set(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->follow = true;
    return 0;
}

/* --- tables --- */

static const struct option options[] = {
    {.name = "network",
     .kind = OPTION_VALUE,
     .value = "NET",
     .field = "network",
     .complete = COMPLETE_NETWORK,
     .doc = "only on this network (default: on every one)"},
    {0},
};

#define TYPE_WORDS "A AAAA CNAME TXT SRV"

static const struct positional add_positionals[] = {
    {.name = "NAME", .field = "name"},
    {.name = "TYPE|IP", .field = "type", .set = type_or_address_set, .words = TYPE_WORDS},
    {.name = "VALUE",
     .field = "values",
     .set = further_value_add,
     .optional = true,
     .repeat = true},
    {0},
};

static const struct positional rm_positionals[] = {
    {.name = "NAME", .field = "name"},
    {.name = "TYPE|IP",
     .field = "type",
     .set = type_or_address_set,
     .optional = true,
     .words = TYPE_WORDS},
    {.name = "VALUE",
     .field = "values",
     .set = further_value_add,
     .optional = true,
     .repeat = true},
    {0},
};

static const struct positional flush_positionals[] = {
    {.name = "NAME", .field = "name", .optional = true},
    {0},
};

static const struct option log_options[] = {
    {.name = "follow", .letter = 'f', .set = follow_set, .doc = "go on as queries come"},
    {0},
};

const struct command dns_commands[] = {
    {.group = "dns",
     .name = "ls",
     .summary = "list the records that the name service answers",
     .options = options,
     .method = METHOD_DNS_LIST,
     .run = dns_ls,
     .text = "Not listed: PTR records, which come by themselves with A and AAAA."},
    {.group = "dns",
     .name = "add",
     .summary = "add static records for a name",
     .options = options,
     .positionals = add_positionals,
     .method = METHOD_DNS_ADD,
     .run = dns_change,
     .text = "NAME is below the domain (moat.internal), which is left out; \"*.NAME\" stands for\n"
             "every name below NAME that is not there otherwise. TYPE is A, AAAA, CNAME, TXT or\n"
             "SRV; without TYPE each VALUE is an address. A VALUE of CNAME is a name, of SRV\n"
             "PRIORITY WEIGHT PORT TARGET; names of one label are below the domain."},
    {.group = "dns",
     .name = "rm",
     .summary = "remove static records of a name",
     .options = options,
     .positionals = rm_positionals,
     .method = METHOD_DNS_REMOVE,
     .run = dns_change,
     .text = "All of the name's, or only those of that TYPE, or only those VALUEs."},
    {.group = "dns",
     .name = "flush",
     .summary = "forget cached answers of other name servers",
     .positionals = flush_positionals,
     .method = METHOD_DNS_FLUSH,
     .run = dns_flush,
     .text = "Of NAME and the names below it, or all."},
    {.group = "dns",
     .name = "log",
     .summary = "show the latest queries of guests and the host",
     .options = log_options,
     .method = METHOD_DNS_LOG,
     .run = dns_log_run,
     .text =
         "Time, guest, name, type, rcode, where the answer came from (local, cache or upstream)\n"
         "and how long it took. Queries are kept, the latest 4096, from the first use of this\n"
         "command until ten minutes after the last."},
    {0},
};
