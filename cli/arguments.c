/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "arguments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/rate.h"
#include "base/rule.h"
#include "network_option.h"
#include "value.h"

int arguments_add(struct invocation *invocation, const char *member, const char *value,
                  struct error *error)
{
    return value_set(proto_method_get(invocation->command->method)->params, member,
                     &invocation->params, value, error);
}

int arguments_add_network(struct invocation *invocation, const char *value, struct error *error)
{
    return network_option_add(&invocation->params.guest_attach, value, error);
}

int arguments_add_port(struct invocation *invocation, const char *value, struct error *error)
{
    struct port port;
    int r = port_parse(value, "", &port, error);

    return r < 0 ? r : arguments_add(invocation, "ports", value, error);
}

static int add_rule(struct invocation *invocation, const char *list, const char *value,
                    struct error *error)
{
    struct policy_rule rule;
    char member[32];
    int r = policy_rule_parse(value, "", &rule, error);

    if (r < 0)
        return r;
    snprintf(member, sizeof(member), "%s%s",
             invocation->command->method == METHOD_GUEST_ATTACH ? "policy." : "", list);
    return arguments_add(invocation, member, value, error);
}

int arguments_add_allow(struct invocation *invocation, const char *value, struct error *error)
{
    return add_rule(invocation, "allow", value, error);
}

int arguments_add_deny(struct invocation *invocation, const char *value, struct error *error)
{
    return add_rule(invocation, "deny", value, error);
}

/* NAME:IP; an IPv6 address may stand in brackets. The API takes it without them. */
int arguments_add_host(struct invocation *invocation, const char *value, struct error *error)
{
    size_t length = strcspn(value, ":");
    _cleanup_free_ char *name = strndup(value, length);
    _cleanup_free_ char *address = value[length] ? strdup(value + length + 1) : NULL;
    size_t address_length = address ? strlen(address) : 0;
    char entry[254 + 1 + IP_TEXT_MAX];
    char text[IP_TEXT_MAX];
    char *bare = address;
    struct ip ip;

    if (address_length > 2 && address[0] == '[' && address[address_length - 1] == ']') {
        address[address_length - 1] = '\0';
        bare++;
    }
    if (!name || !name_is_dns(name) || !bare || ip_parse(bare, &ip) < 0)
        return option_refuse(error, "\"%.80s\" is not a NAME:IP such as db:192.0.2.7", value);
    snprintf(entry, sizeof(entry), "%s:%s", name, ip_format(&ip, text));
    return arguments_add(invocation, "hosts", entry, error);
}

int arguments_add_search(struct invocation *invocation, const char *value, struct error *error)
{
    if (!name_is_dns(value))
        return option_refuse(error, "\"%.80s\" is not a domain", value);
    return arguments_add(invocation, "dns_search", value, error);
}

int arguments_add_name(struct invocation *invocation, const char *value, struct error *error)
{
    int r;

    if (!name_is_valid(value))
        return option_refuse(
            error,
            "\"%.80s\" is not a name: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end",
            value);
    r = strings_add(&invocation->words, value);
    return r < 0 ? error_set(error, r, "option") : 0;
}

int arguments_set_quiet(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->quiet = true;
    return 0;
}

int arguments_set_yes(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->yes = true;
    return 0;
}

/* Who that is turns out where the process is made: with --rootfs the names are those inside. */
int arguments_set_user(struct invocation *invocation, const char *value, struct error *error)
{
    if (value[0] == '\0' || value[0] == ':' || value[strlen(value) - 1] == ':')
        return option_refuse(error, "\"%.80s\" is not UID[:GID]", value);
    invocation->process.user = value;
    return 0;
}

int arguments_set_workdir(struct invocation *invocation, const char *value, struct error *error)
{
    if (value[0] == '\0')
        return option_refuse(error, "the path is empty");
    invocation->process.workdir = value;
    return 0;
}

int arguments_add_env(struct invocation *invocation, const char *value, struct error *error)
{
    int r;

    if (value[0] == '\0' || value[0] == '=')
        return option_refuse(error, "\"%.80s\" is not K=V", value);
    r = strings_add(&invocation->process.env, value);
    return r < 0 ? error_set(error, r, "option") : 0;
}

int arguments_set_rate_up(struct invocation *invocation, const char *value, struct error *error)
{
    return rate_parse(value, "", &invocation->params.guest_attach.limits.rate_up, error);
}

int arguments_set_rate_down(struct invocation *invocation, const char *value, struct error *error)
{
    return rate_parse(value, "", &invocation->params.guest_attach.limits.rate_down, error);
}

int arguments_set_count(const char *value, const char *none, uint32_t *ret_count,
                        struct error *error)
{
    size_t digits = strspn(value, "0123456789");
    unsigned long count = digits > 0 && digits < 9 ? strtoul(value, NULL, 10) : 0;

    if (strcmp(value, none) == 0) {
        *ret_count = 0;
        return 0;
    }
    if (value[digits] != '\0' || count < 1 || count > LIMIT_CONNS)
        return option_refuse(error, "\"%.40s\" is not a whole number from 1 to %d, or %s", value,
                             LIMIT_CONNS, none);
    *ret_count = (uint32_t)count;
    return 0;
}

int arguments_set_max_conns(struct invocation *invocation, const char *value, struct error *error)
{
    return arguments_set_count(value, "default", &invocation->params.guest_attach.limits.max_conns,
                               error);
}

int arguments_set_conn_rate(struct invocation *invocation, const char *value, struct error *error)
{
    return arguments_set_count(value, "none", &invocation->params.guest_attach.limits.conn_rate,
                               error);
}
