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

/* Adds the gateway of a network that has a name service. */
static int query_gateway(struct remote *remote, const char *name, struct ips *gateways,
                         struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    union params params = {0};
    struct network network;
    int r;

    snprintf(params.name.name, sizeof(params.name.name), "%s", name);
    r = remote_call(remote, METHOD_NETWORK_GET, &params, &response, error);
    if (r == 0)
        r = proto_response_object(response, &proto_network, &network, error);
    if (r < 0)
        return r;
    if (network.dns && (ip_is_set(&network.gateway) || ip_is_set(&network.gateway6))) {
        r = ips_add(gateways, ip_is_set(&network.gateway) ? &network.gateway : &network.gateway6);
        if (r < 0)
            error_set(error, r, "gateways");
    }
    network_deinit(&network);
    return r;
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

static int write_conf(struct remote *remote, const struct guest *guest,
                      const struct resolver_wish *wish, const struct status_result *status,
                      struct text *conf, struct error *error)
{
    _cleanup_free_ char *host_text = NULL;
    struct resolver resolver = {.dns = wish->dns,
                                .search = wish->search,
                                .domain = status->domain,
                                .host_servers = &status->upstreams};
    int r = 0;

    for (size_t i = 0; r == 0 && i < guest->n_endpoints; i++)
        r = query_gateway(remote, guest->endpoints[i].network, &resolver.gateways, error);
    if (r == 0) {
        host_text = guest->n_endpoints > 0 ? read_host_text() : NULL;
        resolver.host_text = host_text;
        resolver_write_conf(&resolver, conf);
    }
    ips_deinit(&resolver.gateways);
    return r;
}

int resolver_query(struct remote *remote, const struct guest *guest,
                   const struct resolver_wish *wish, struct text *conf, struct text *hosts,
                   struct error *error)
{
    struct status_result status;
    struct utsname names;
    int r = query_status(remote, &status, error);

    if (r < 0)
        return r;
    r = write_conf(remote, guest, wish, &status, conf, error);
    if (r == 0) {
        uname(&names);
        resolver_write_hosts(guest, status.domain, wish->hostname ? wish->hostname : names.nodename,
                             wish->add_hosts, hosts);
    }
    ips_deinit(&status.upstreams);
    if (r == 0 && (conf->failed || hosts->failed))
        r = error_set(error, ENOMEM, "files");
    return r;
}
