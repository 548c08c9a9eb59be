/* SPDX-License-Identifier: GPL-2.0-or-later */
/* networks.KEY of a Compose file. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "compose_read.h"
#include "compose_words.h"

struct network_reading {
    struct compose_network *network;
    char *name;              /* NULL: made of the project's and the key */
    const char *first_other; /* a key that goes with no external network; NULL: there is none */
    bool has_ipv6;           /* enable_ipv6 is there */
};

static int set(struct compose_reader *reader, struct network_reading *reading,
               const struct yml_node *value, const char *member)
{
    return compose_read_member(reader, value, METHOD_NETWORK_CREATE, member,
                               &reading->network->create);
}

static int read_name(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;

    return compose_read_string(reader, value, &reading->name);
}

/* external: true, or as it was once written, external: {name: …} */
static int read_external_name(struct compose_reader *reader, void *object,
                              const struct yml_node *value)
{
    return read_name(reader, object, value);
}

static int read_external(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;
    static const struct compose_key keys[] = {{"name", read_external_name}, {0}};

    if (value->kind != YML_MAP)
        return compose_read_bool(reader, value, &reading->network->external);
    reading->network->external = true;
    return compose_read_map(reader, value, keys, object);
}

static int read_driver(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;
    const char *text;
    int r = compose_read_text(reader, value, &text);

    reading->first_other = "driver";
    if (r == 0 && strcmp(text, "bridge") != 0)
        r = compose_refuse(reader, value, "moat's networks are of the driver bridge, not \"%.40s\"",
                           text);
    return r;
}

static int read_mtu(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return set(reader, object, value, "mtu");
}

static int read_bridge(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return set(reader, object, value, "bridge");
}

static int read_driver_opts(struct compose_reader *reader, void *object,
                            const struct yml_node *value)
{
    struct network_reading *reading = object;
    static const struct compose_key keys[] = {
        {"com.docker.network.driver.mtu", read_mtu},
        {"com.docker.network.bridge.name", read_bridge},
        {0},
    };

    reading->first_other = "driver_opts";
    return compose_read_map(reader, value, keys, object);
}

/* --- ipam --- */

static int read_ipam_driver(struct compose_reader *reader, void *object,
                            const struct yml_node *value)
{
    const char *text;
    int r = compose_read_text(reader, value, &text);

    (void)object;
    if (r == 0 && strcmp(text, "default") != 0)
        r = compose_refuse(reader, value,
                           "moat's addresses come from the driver default, not "
                           "\"%.40s\"",
                           text);
    return r;
}

/* IPv4 or IPv6: the member of that family, which may not be there yet. */
static int set_of_family(struct compose_reader *reader, struct network_reading *reading,
                         const struct yml_node *value, const char *member, const char *member6)
{
    struct network_create_params *create = &reading->network->create;
    const char *text;
    int r = compose_read_text(reader, value, &text);
    bool six = r == 0 && strchr(text, ':');
    bool taken = strcmp(member, "subnet") == 0
                     ? cidr_is_set(six ? &create->subnet6 : &create->subnet)
                     : ip_is_set(six ? &create->gateway6 : &create->gateway);

    if (r == 0 && taken)
        r = compose_refuse(reader, value, "a network has one %s for each of IPv4 and IPv6", member);
    return r < 0 ? r : set(reader, reading, value, six ? member6 : member);
}

static int read_subnet(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return set_of_family(reader, object, value, "subnet", "subnet6");
}

static int read_gateway(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return set_of_family(reader, object, value, "gateway", "gateway6");
}

static int read_ip_range(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return set(reader, object, value, "ip_range");
}

static int read_ipam_block(struct compose_reader *reader, void *object,
                           const struct yml_node *value)
{
    static const struct compose_key keys[] = {
        {"subnet", read_subnet}, {"gateway", read_gateway}, {"ip_range", read_ip_range}, {0}};

    return compose_read_map(reader, value, keys, object);
}

static int read_ipam_config(struct compose_reader *reader, void *object,
                            const struct yml_node *value)
{
    return compose_read_each(reader, value, read_ipam_block, object);
}

static int read_ipam(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;
    static const struct compose_key keys[] = {
        {"driver", read_ipam_driver}, {"config", read_ipam_config}, {0}};

    reading->first_other = "ipam";
    return compose_read_map(reader, value, keys, object);
}

/* --- the rest --- */

static int read_internal(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;

    reading->first_other = "internal";
    return compose_read_bool(reader, value, &reading->network->create.internal);
}

static int read_ipv4(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;

    reading->first_other = "enable_ipv4";
    return compose_read_bool(reader, value, &reading->network->create.ipv4);
}

static int read_ipv6(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;

    reading->first_other = "enable_ipv6";
    reading->has_ipv6 = true;
    return compose_read_bool(reader, value, &reading->network->create.ipv6);
}

static int add_label(struct compose_reader *reader, void *object, const struct yml_node *value,
                     const char *key, const char *text)
{
    struct network_reading *reading = object;
    _cleanup_free_ char *pair = NULL;

    if (asprintf(&pair, "%s=%s", key, text ? text : "") < 0)
        return compose_out_of_memory(reader);
    return compose_set_member(reader, value, pair, METHOD_NETWORK_CREATE, "labels",
                              &reading->network->create);
}

static int read_labels(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct network_reading *reading = object;

    reading->first_other = "labels";
    return compose_read_pairs(reader, value, "=", add_label, object);
}

static int read_attachable(struct compose_reader *reader, void *object,
                           const struct yml_node *value)
{
    bool ignored;

    (void)object;
    return compose_read_bool(reader, value, &ignored);
}

static const struct compose_key network_keys[] = {
    {"name", read_name},
    {"external", read_external},
    {"driver", read_driver},
    {"driver_opts", read_driver_opts},
    {"ipam", read_ipam},
    {"internal", read_internal},
    {"enable_ipv4", read_ipv4},
    {"enable_ipv6", read_ipv6},
    {"labels", read_labels},
    {"attachable", read_attachable},
    {0},
};

/* --- the whole --- */

/* What is given by name is taken as it is; what is made of the key is made to fit. */
static int choose_name(struct compose_reader *reader, const struct network_reading *reading,
                       const struct yml_node *node)
{
    struct compose_network *network = reading->network;
    bool given = reading->name || network->external;
    const char *name = reading->name ? reading->name : network->key;
    const struct yml_node nowhere = {0};
    int r;

    if (given && name_is_valid(name)) {
        snprintf(network->name, sizeof(network->name), "%s", name);
        return 0;
    }
    r = given ? -EINVAL : compose_name(reader->compose->project, name, network->name);
    if (r == 0)
        return 0;
    return compose_refuse(reader, node ? node : &nowhere,
                          "\"%s%s%.80s\" is not a network's name: 1 to 63 of a-z, 0-9 and '-', "
                          "with no '-' at either end; give another by name:",
                          given ? "" : reader->compose->project, given ? "" : "-", name);
}

static int check(struct compose_reader *reader, struct network_reading *reading,
                 const struct yml_node *node)
{
    struct network_create_params *create = &reading->network->create;

    if (reading->network->external && reading->first_other)
        return compose_refuse(reader, node, "an external network is as it is; leave %s out",
                              reading->first_other);
    if (cidr_is_set(&create->subnet6) && reading->has_ipv6 && !create->ipv6)
        return compose_refuse(reader, node, "there is an IPv6 subnet, but enable_ipv6 is false");
    return 0;
}

int compose_network_read(struct compose_reader *reader, struct compose_network *network,
                         const struct yml_node *node)
{
    struct network_reading reading = {.network = network};
    int r = 0;

    if (node && node->kind != YML_NULL)
        r = compose_read_map(reader, node, network_keys, &reading);
    if (r == 0)
        r = check(reader, &reading, node);
    if (r == 0)
        r = choose_name(reader, &reading, node);
    free(reading.name);
    return r;
}
