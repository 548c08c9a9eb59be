/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "network_option.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "command.h"
#include "value.h"

/* The object behind "networks" of guest.attach: its members are the keys. */
static const struct proto_object *network_object(void)
{
    size_t offset;

    return value_field_find(proto_method_get(METHOD_GUEST_ATTACH)->params, "networks", &offset)
        ->object;
}

static const char *key_member(const char *key)
{
    static const char *const keys[][2] = {
        {"ip", "ip"}, {"ip6", "ip6"}, {"mac", "mac"}, {"alias", "aliases"}};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (strcmp(keys[i][0], key) == 0)
            return keys[i][1];
    return NULL;
}

static int take_pair(const char *pair, struct attach_network *network, struct error *error)
{
    size_t length = strcspn(pair, "=");
    _cleanup_free_ char *key = strndup(pair, length);
    const char *member = key ? key_member(key) : NULL;
    int r;

    if (!key)
        return error_set(error, ENOMEM, "option");
    if (!member || pair[length] == '\0')
        return option_refuse(
            error, "\"%.40s\": behind the network's name stand ip=A, ip6=A, mac=M or alias=N",
            pair);
    if (strcmp(key, "alias") == 0 && !name_is_dns(pair + length + 1))
        return option_refuse(error, "alias: \"%.80s\" is not a DNS name", pair + length + 1);
    r = value_set(network_object(), member, network, pair + length + 1, error);
    if (r < 0)
        error_add_context(error, "%s", key);
    return r;
}

static int take_parts(char *text, struct attach_network *network, struct error *error)
{
    char *rest = text;
    const char *name = strsep(&rest, ",");
    int r = value_set(network_object(), "name", network, name, error);

    while (r == 0 && rest)
        r = take_pair(strsep(&rest, ","), network, error);
    return r;
}

int network_option_parse(const char *text, struct attach_network *ret_network, struct error *error)
{
    struct attach_network network = {0};
    _cleanup_free_ char *copy = strdup(text);
    int r = copy ? take_parts(copy, &network, error) : error_set(error, ENOMEM, "option");

    if (r < 0)
        strings_deinit(&network.aliases);
    else
        *ret_network = network;
    return r;
}

int network_option_add(struct guest_attach_params *params, const char *text, struct error *error)
{
    struct attach_network network;
    struct attach_network *grown;
    int r;

    if (params->n_networks >= LIMIT_ENDPOINTS)
        return option_refuse(error, "a guest has at most %d networks", LIMIT_ENDPOINTS);
    r = network_option_parse(text, &network, error);
    if (r < 0)
        return r;
    grown = reallocarray(params->networks, params->n_networks + 1, sizeof(*grown));
    if (!grown) {
        strings_deinit(&network.aliases);
        return error_set(error, ENOMEM, "option");
    }
    params->networks = grown;
    grown[params->n_networks++] = network;
    return 0;
}
