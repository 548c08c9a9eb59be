/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The network "default" always exists, so nobody can remove it and make it anew elsewhere. At a
 * start without guests on it, it moves to where default_subnet says, if that was changed since it
 * was last followed, or out of the way of what the host uses now. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

#define FOLLOWED_SETTING "default_subnet/followed"

/* The value of default_subnet that the network was made or moved by. Databases of before do not
 * say: it was the usual one, then. */
static int followed_get(struct service *service, char **ret_value, struct error *error)
{
    int r = store_setting_get(service->store, FOLLOWED_SETTING, ret_value, error);

    if (r >= 0 && !*ret_value && !(*ret_value = strdup(CONFIG_DEFAULT_SUBNET)))
        r = error_set(error, ENOMEM, "setting");
    return r;
}

static bool is_at(const struct network *network, const char *subnet)
{
    struct cidr cidr;

    return cidr_parse(subnet, &cidr) == 0 && cidr_equal(&cidr, &network->subnet);
}

int default_network_pending(struct service *service, char *ret_text, size_t size, bool *ret_pending,
                            struct error *error)
{
    const char *wanted = service->config->default_subnet;
    _cleanup_free_ char *followed = NULL;
    struct network network = {0};
    char text[CIDR_TEXT_MAX];
    bool found = false;
    int r = followed_get(service, &followed, error);

    *ret_pending = false;
    if (r >= 0 && strcmp(followed, wanted) != 0)
        r = store_network_find(service->store, DEFAULT_NETWORK, &network, &found, error);
    if (r >= 0 && found && cidr_is_set(&network.subnet) && !is_at(&network, wanted)) {
        *ret_pending = true;
        snprintf(ret_text, size, "default_subnet is %s, but the network " DEFAULT_NETWORK " is %s",
                 wanted, cidr_format(&network.subnet, text));
    }
    network_deinit(&network);
    return r;
}

static int move(struct service *service, struct network *network, const struct cidr *subnet,
                struct error *error)
{
    char before[CIDR_TEXT_MAX];
    char after[CIDR_TEXT_MAX];
    int r;

    cidr_format(&network->subnet, before);
    network_take_subnet(network, subnet);
    r = store_begin(service->store, error);
    if (r >= 0)
        r = store_network_move(service->store, network, error);
    if (r >= 0)
        r = store_setting_set(service->store, FOLLOWED_SETTING, service->config->default_subnet,
                              error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    else
        log_info("network " DEFAULT_NETWORK ": moved from %s to %s", before,
                 cidr_format(subnet, after));
    return r;
}

static int look_at_host(struct service *service, const struct network *network, bool *ret_collides,
                        struct error *error)
{
    struct link_prefix *prefixes = NULL;
    size_t count = 0;
    int r = link_prefix_list(service->link, &prefixes, &count, error);

    *ret_collides = false;
    for (size_t i = 0; r >= 0 && i < count; i++)
        if (!prefixes[i].ours && prefixes[i].cidr.ip.family == AF_INET &&
            prefix_collides(&prefixes[i], network))
            *ret_collides = true;
    free(prefixes);
    return r;
}

/* Where it could go. */
static int choose(struct service *service, const struct network *network, struct cidr *ret_subnet,
                  struct error *error)
{
    const char *wanted = service->config->default_subnet;
    struct used_prefixes used = {0};
    struct cidr preferred;
    int r = used_prefixes_collect(service, network->id, &used, error);

    if (r < 0)
        return r;
    (void)cidr_parse(wanted, &preferred); /* checked when it was read */
    r = subnet_choose(service, wanted, preferred.prefix, &used, ret_subnet, error);
    used_prefixes_deinit(&used);
    return r;
}

static int follow(struct service *service, struct network *network, bool pending,
                  struct error *error)
{
    struct strings guests = {0};
    struct cidr subnet = {0};
    bool collides = false;
    char text[CIDR_TEXT_MAX];
    int r = look_at_host(service, network, &collides, error);

    if (r < 0 || (!collides && !pending))
        return r;
    r = choose(service, network, &subnet, error);
    if (r >= 0)
        r = store_network_guests(service->store, network->id, &guests, error);
    if (r < 0)
        return r;
    cidr_format(&network->subnet, text);
    if (guests.count)
        log_warning("network " DEFAULT_NETWORK " stays at %s%s: %zu guest%s on it (%s%s); it moves "
                    "at the next start without",
                    text, collides ? ", which the host uses too" : "", guests.count,
                    guests.count == 1 ? " is" : "s are", guests.items[0],
                    guests.count > 1 ? ", …" : "");
    else if (!collides && !cidr_equal(&subnet, &network->subnet) &&
             strcmp(cidr_format(&subnet, text), service->config->default_subnet) != 0)
        log_warning("network " DEFAULT_NETWORK " stays where it is: the host uses %s",
                    service->config->default_subnet);
    else
        r = move(service, network, &subnet, error);
    strings_deinit(&guests);
    return r;
}

void default_network_follow(struct service *service)
{
    struct error error = ERROR_INIT;
    struct network network = {0};
    char text[256];
    bool pending = false;
    bool found = false;
    int r = default_network_pending(service, text, sizeof(text), &pending, &error);

    if (r >= 0)
        r = store_network_find(service->store, DEFAULT_NETWORK, &network, &found, &error);
    if (r >= 0 && found && cidr_is_set(&network.subnet))
        r = follow(service, &network, pending, &error);
    if (r < 0)
        log_warning("network " DEFAULT_NETWORK " stays where it is: %s", error.text);
    network_deinit(&network);
}

int default_network_ensure(struct service *service, struct error *error)
{
    struct network_create_params params = {.name = DEFAULT_NETWORK, .ipv4 = true, .dns = true};
    const char *wanted = service->config->default_subnet;
    struct network network = {0};
    struct cidr preferred;
    bool found = false;
    int r = store_network_find(service->store, DEFAULT_NETWORK, &network, &found, error);

    if (r >= 0 && !found) {
        (void)cidr_parse(wanted, &preferred); /* checked when it was read */
        r = network_create(service, &params, wanted, preferred.prefix, &network, error);
        if (r >= 0)
            r = store_setting_set(service->store, FOLLOWED_SETTING, wanted, error);
    }
    network_deinit(&network);
    return r;
}
