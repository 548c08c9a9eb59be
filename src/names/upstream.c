/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whom the worker asks for names that are not ours: the host's servers, those of a suffix, of a
 * network, of a guest. None of them may be a gateway of ours, and those come and go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "names/private.h"

static bool is_own_gateway(const struct names *names, const struct ip *ip)
{
    for (const struct served_network *network = names->networks; network; network = network->next)
        if (ip_equal(&network->message.gateway, ip) || ip_equal(&network->message.gateway6, ip))
            return true;
    return false;
}

/* Asking ourselves would go in circles. */
void names_servers_fill(const struct names *names, const struct ips *servers,
                        struct dns_servers *ret_servers)
{
    struct dns_servers filled = {0};

    for (size_t i = 0; i < servers->count && filled.count < DNS_SERVERS_MAX; i++)
        if (!is_own_gateway(names, &servers->items[i]))
            filled.servers[filled.count++] = servers->items[i];
    *ret_servers = filled;
}

static bool servers_update(const struct names *names, const struct ips *servers,
                           struct dns_servers *filled)
{
    struct dns_servers now;

    names_servers_fill(names, servers, &now);
    if (memcmp(&now, filled, sizeof(now)) == 0)
        return false;
    *filled = now;
    return true;
}

static const struct ips *upstreams_wanted(const struct names *names)
{
    return names->resolv ? resolv_servers(names->resolv) : &names->configured;
}

int names_upstreams_send(struct names *names, struct error *error)
{
    struct dns_upstreams_message message = {0};

    names_servers_fill(names, &names->upstreams, &message.upstreams);
    return names_send(names, DNS_MESSAGE_UPSTREAMS, &message.message, sizeof(message), NULL, 0,
                      error);
}

void names_upstreams_log(const struct names *names)
{
    char text[DNS_SERVERS_MAX * (IP_TEXT_MAX + 1) + 1] = "";
    size_t length = 0;

    for (size_t i = 0; i < names->upstreams.count && i < DNS_SERVERS_MAX; i++) {
        char address[IP_TEXT_MAX];

        ip_format(&names->upstreams.items[i], address);
        text[length++] = ' ';
        memcpy(text + length, address, strlen(address) + 1);
        length += strlen(address);
    }
    if (length > 0)
        log_info("name servers of the host:%s", text);
    else
        log_warning("the host has no name server: only guests' names are resolved");
}

/* Takes what the host's resolv.conf says now, without our own gateways. Returns whether that is
 * something new. */
static bool upstreams_read(struct names *names)
{
    const struct ips *wanted = upstreams_wanted(names);
    struct ips now = {0};

    for (size_t i = 0; i < wanted->count; i++)
        if (!is_own_gateway(names, &wanted->items[i]) && ips_add(&now, &wanted->items[i]) < 0)
            break;
    if (ips_equal(&now, &names->upstreams)) {
        ips_deinit(&now);
        return false;
    }
    ips_deinit(&names->upstreams);
    names->upstreams = now;
    return true;
}

static void upstreams_changed(void *userdata)
{
    struct names *names = userdata;
    struct error error = ERROR_INIT;

    if (!upstreams_read(names))
        return;
    names_upstreams_log(names);
    if (names_upstreams_send(names, &error) < 0)
        log_error("the name worker can't be told of the host's name servers: %s", error.text);
}

/* Sends those whose servers are others now. */
static void forwards_changed(struct names *names)
{
    for (size_t i = 0; i < names->n_forwards; i++) {
        struct served_forward *forward = &names->forwards[i];

        if (servers_update(names, &forward->servers, &forward->message.servers))
            names_send_or_log(names, DNS_MESSAGE_FORWARD, &forward->message.message,
                              sizeof(forward->message));
    }
}

int names_forwards_send(struct names *names, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < names->n_forwards; i++)
        r = names_send(names, DNS_MESSAGE_FORWARD, &names->forwards[i].message.message,
                       sizeof(names->forwards[i].message), NULL, 0, error);
    return r;
}

/* The set of our gateways is another one: every list of servers is looked at again. */
void names_gateways_changed(struct names *names)
{
    struct error error = ERROR_INIT;

    upstreams_changed(names);
    forwards_changed(names);
    for (struct served_network *network = names->networks; network; network = network->next)
        if (servers_update(names, &network->servers, &network->message.upstreams) &&
            names_network_send(names, network, false, &error) < 0)
            log_error("the name worker can't be told of a network's name servers: %s", error.text);
    for (uint32_t i = 0; names->endpoints.slots && i <= names->endpoints.mask; i++) {
        struct kept_message *kept = names->endpoints.slots[i].item;
        struct dns_endpoint_message *message;

        if (!kept || kept->servers.count == 0)
            continue;
        message = (struct dns_endpoint_message *)kept->payload;
        if (servers_update(names, &kept->servers, &message->upstreams))
            names_send_or_log(names, kept->type, kept->payload, kept->length);
    }
}

int names_upstreams_init(struct names *names, const struct names_config *config,
                         struct error *error)
{
    int r = 0;

    if (config->upstreams.count == 0)
        r = resolv_new(config->loop, config->resolv_conf, upstreams_changed, names, &names->resolv,
                       error);
    else if (ips_copy(&config->upstreams, &names->configured) < 0)
        r = error_set(error, ENOMEM, "out of memory");
    if (r == 0)
        upstreams_read(names);
    return r;
}

int names_forwards_init(struct names *names, const struct names_config *config, struct error *error)
{
    names->forwards = calloc(config->n_forwards ? config->n_forwards : 1, sizeof(*names->forwards));
    if (!names->forwards)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < config->n_forwards; i++) {
        const struct names_forward *from = &config->forwards[i];
        struct served_forward *forward = &names->forwards[names->n_forwards++];

        memcpy(forward->message.suffix, from->suffix, strlen(from->suffix) + 1);
        if (ips_copy(&from->servers, &forward->servers) < 0)
            return error_set(error, ENOMEM, "out of memory");
        names_servers_fill(names, &forward->servers, &forward->message.servers);
    }
    return 0;
}

const struct ips *names_upstreams(const struct names *names)
{
    return &names->upstreams;
}

void names_upstreams_deinit(struct names *names)
{
    resolv_free(names->resolv);
    for (size_t i = 0; i < names->n_forwards; i++)
        ips_deinit(&names->forwards[i].servers);
    free(names->forwards);
    ips_deinit(&names->configured);
    ips_deinit(&names->upstreams);
}
