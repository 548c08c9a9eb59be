/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "resolver_query.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define HOST_TEXT_MAX ((size_t)64 * 1024) /* of the host's resolv.conf; more is cut */

static int query_status(struct remote *remote, struct status_result *ret_status,
                        struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    union params params = {0};
    int r = remote_call(remote, METHOD_SYSTEM_STATUS, &params, &response, error);

    return r < 0 ? r : proto_response_object(response, &proto_status, ret_status, error);
}

int resolver_facts_add(struct resolver_facts *facts, const struct network *network,
                       struct error *error)
{
    const struct ip *gateway =
        ip_is_set(&network->gateway) ? &network->gateway : &network->gateway6;
    int r = 0;

    if (network->dns && ip_is_set(gateway))
        r = ips_add(network->internal ? &facts->internal : &facts->gateways, gateway);
    return r < 0 ? error_set(error, r, "gateways") : 0;
}

static int query_network(struct remote *remote, const char *name, struct resolver_facts *facts,
                         struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    struct error refused = ERROR_INIT;
    union params params = {0};
    struct network network;
    int r;

    snprintf(params.name.name, sizeof(params.name.name), "%s", name);
    r = remote_call(remote, METHOD_NETWORK_GET, &params, &response, &refused);
    if (r < 0 && (refused.kind == ERROR_REASON || refused.kind == ERROR_FIELD))
        return 0; /* what uses the name says so */
    if (r == 0)
        r = proto_response_object(response, &proto_network, &network, &refused);
    if (r < 0) {
        *error = refused;
        return r;
    }
    r = resolver_facts_add(facts, &network, error);
    network_deinit(&network);
    return r;
}

int resolver_facts_query(struct remote *remote, const char *const networks[], size_t count,
                         struct resolver_facts *ret_facts, struct error *error)
{
    struct resolver_facts facts = {0};
    int r = query_status(remote, &facts.status, error);

    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = query_network(remote, networks[i], &facts, error);
    if (r < 0)
        resolver_facts_deinit(&facts);
    else
        *ret_facts = facts;
    return r;
}

void resolver_facts_deinit(struct resolver_facts *facts)
{
    ips_deinit(&facts->status.upstreams);
    strings_deinit(&facts->status.forward);
    ips_deinit(&facts->gateways);
    ips_deinit(&facts->internal);
    *facts = (struct resolver_facts){0};
}

/* The host's resolv.conf; NULL when it has none. */
static char *read_host_text(void)
{
    _cleanup_fclose_ FILE *file = fopen("/etc/resolv.conf", "re");
    char *text = file ? malloc(HOST_TEXT_MAX) : NULL;

    if (text)
        text[fread(text, 1, HOST_TEXT_MAX - 1, file)] = '\0';
    return text;
}

static int all_gateways(const struct resolver_facts *facts, struct ips *ret_gateways)
{
    const struct ips *lists[] = {&facts->gateways, &facts->internal};
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        for (size_t j = 0; r == 0 && j < lists[i]->count; j++)
            r = ips_add(ret_gateways, &lists[i]->items[j]);
    return r;
}

static int write_conf(const struct resolver_facts *facts, const struct guest *guest,
                      const struct resolver_wish *wish, struct text *conf)
{
    bool connected = guest->n_endpoints > 0;
    _cleanup_free_ char *host_text = connected ? read_host_text() : NULL;
    struct resolver resolver = {.dns = wish->dns,
                                .search = wish->search,
                                .domain = facts->status.domain,
                                .host_text = host_text,
                                .host_servers = &facts->status.upstreams};
    int r = connected ? all_gateways(facts, &resolver.gateways) : 0;

    resolver_write_conf(&resolver, conf);
    ips_deinit(&resolver.gateways);
    return r;
}

int resolver_write(const struct resolver_facts *facts, const struct guest *guest,
                   const struct resolver_wish *wish, struct text *conf, struct text *hosts,
                   struct error *error)
{
    struct utsname names;
    int r = write_conf(facts, guest, wish, conf);

    uname(&names);
    resolver_write_hosts(guest, facts->status.domain,
                         wish->hostname ? wish->hostname : names.nodename, wish->add_hosts, hosts);
    return r < 0 || conf->failed || hosts->failed ? error_set(error, ENOMEM, "files") : 0;
}
