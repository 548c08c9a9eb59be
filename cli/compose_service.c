/* SPDX-License-Identifier: GPL-2.0-or-later */
/* services.KEY of a Compose file. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rule.h"
#include "compose_read.h"
#include "compose_words.h"

struct service_reading {
    struct compose_service *service;
    const struct yml_node *image; /* image: or build: */
    const char *container_name;   /* NULL: made of the project's and the key */
    bool has_networks;
    bool has_mode;                  /* x-moat-policy says one */
    bool alone;                     /* network_mode: none */
    struct attach_network *network; /* the one that is being read */
};

static int set(struct compose_reader *reader, struct service_reading *reading,
               const struct yml_node *value, const char *member)
{
    return compose_read_member(reader, value, METHOD_GUEST_ATTACH, member,
                               &reading->service->attach);
}

static int set_text(struct compose_reader *reader, struct service_reading *reading,
                    const struct yml_node *value, const char *text, const char *member)
{
    return compose_set_member(reader, value, text, METHOD_GUEST_ATTACH, member,
                              &reading->service->attach);
}

/* --- the process --- */

static int add_word(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    const char *text;
    int r = compose_read_text(reader, value, &text);

    if (r == 0 && strings_add(&reading->service->command, text) < 0)
        r = compose_out_of_memory(reader);
    return r;
}

static int read_command(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    int r;

    if (value->kind == YML_LIST)
        return compose_read_each(reader, value, add_word, object);
    if (value->kind != YML_TEXT)
        return compose_refuse(reader, value, "this must be a text or a list, not %s",
                              yml_kind_name(value->kind));
    r = compose_split(value->text, &reading->service->command, reader->error);
    return r == -EINVAL ? compose_blame(reader, value) : r;
}

/* A name without a value is one of moat's own environment. */
static int add_variable(struct compose_reader *reader, void *object, const struct yml_node *value,
                        const char *key, const char *text)
{
    struct service_reading *reading = object;
    _cleanup_free_ char *pair = NULL;

    if (key[0] == '\0' || strchr(key, '='))
        return compose_refuse(reader, value, "\"%.80s\" is not the name of a variable", key);
    if (!text)
        text = getenv(key);
    if (!text)
        return 0;
    if (asprintf(&pair, "%s=%s", key, text) < 0) {
        pair = NULL;
        return compose_out_of_memory(reader);
    }
    return strings_add(&reading->service->env, pair) < 0 ? compose_out_of_memory(reader) : 0;
}

static int read_environment(struct compose_reader *reader, void *object,
                            const struct yml_node *value)
{
    return compose_read_pairs(reader, value, "=", add_variable, object);
}

static int read_user(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    const char *user;
    int r = compose_read_string(reader, value, &reading->service->user);

    if (r < 0)
        return r;
    user = reading->service->user;
    if (user[0] == ':' || user[strlen(user) - 1] == ':')
        return compose_refuse(reader, value, "\"%.80s\" is not UID[:GID]", user);
    return 0;
}

static int read_working_dir(struct compose_reader *reader, void *object,
                            const struct yml_node *value)
{
    struct service_reading *reading = object;

    return compose_read_string(reader, value, &reading->service->workdir);
}

static int read_rootfs(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;

    return compose_read_path(reader, value, &reading->service->rootfs);
}

static int read_hostname(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    int r = compose_read_string(reader, value, &reading->service->hostname);

    if (r < 0)
        return r;
    if (!name_is_dns(reading->service->hostname) ||
        strlen(reading->service->hostname) > HOST_NAME_MAX)
        return compose_refuse(reader, value, "\"%.80s\" is not a hostname of at most %d characters",
                              reading->service->hostname, HOST_NAME_MAX);
    return 0;
}

static int read_image(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;

    (void)reader;
    reading->image = value;
    return 0;
}

static int read_container_name(struct compose_reader *reader, void *object,
                               const struct yml_node *value)
{
    struct service_reading *reading = object;

    return compose_read_text(reader, value, &reading->container_name);
}

/* --- networks --- */

static int refuse_network(struct compose_reader *reader, const struct yml_node *value,
                          const char *key)
{
    return compose_refuse(reader, value,
                          "there is no \"%.80s\" below networks: at the top of the "
                          "file",
                          key);
}

static int add_network(struct compose_reader *reader, struct service_reading *reading,
                       const struct yml_node *value, const char *key)
{
    struct guest_attach_params *attach = &reading->service->attach;
    const struct compose_network *network = compose_network_find(reader->compose, key);
    struct attach_network *grown;

    if (!network)
        return refuse_network(reader, value, key);
    for (size_t i = 0; i < attach->n_networks; i++)
        if (strcmp(attach->networks[i].name, network->name) == 0)
            return compose_refuse(reader, value, "the network \"%.80s\" is given twice", key);
    if (attach->n_networks >= LIMIT_ENDPOINTS)
        return compose_refuse(reader, value, "a service has at most %d networks", LIMIT_ENDPOINTS);
    grown = reallocarray(attach->networks, attach->n_networks + 1, sizeof(*grown));
    if (!grown)
        return compose_out_of_memory(reader);
    attach->networks = grown;
    reading->network = &grown[attach->n_networks++];
    *reading->network = (struct attach_network){0};
    memcpy(reading->network->name, network->name, sizeof(reading->network->name));
    if (strings_add(&reading->network->aliases, reading->service->key) < 0)
        return compose_out_of_memory(reader);
    return 0;
}

static int add_alias(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    struct strings *aliases = &reading->network->aliases;
    const char *text;
    int r = compose_read_text(reader, value, &text);

    if (r < 0)
        return r;
    if (!name_is_dns(text) || strlen(text) > NAME_MAX_LENGTH)
        return compose_refuse(reader, value, "\"%.80s\" is not a name of up to %d characters", text,
                              NAME_MAX_LENGTH);
    if (strings_contains(aliases, text))
        return 0;
    if (aliases->count >= LIMIT_ALIASES)
        return compose_refuse(reader, value,
                              "a service has at most %d names on a network, its own "
                              "included",
                              LIMIT_ALIASES);
    return strings_add(aliases, text) < 0 ? compose_out_of_memory(reader) : 0;
}

static int read_aliases(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_each(reader, value, add_alias, object);
}

static int read_ip4(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    struct ip ip;

    if (value->kind != YML_TEXT || ip_parse(value->text, &ip) < 0 || ip.family != AF_INET)
        return compose_refuse(reader, value, "this is not an IPv4 address");
    reading->network->ip = ip;
    return 0;
}

static int read_ip6(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    struct ip ip;

    if (value->kind != YML_TEXT || ip_parse(value->text, &ip) < 0 || ip.family != AF_INET6)
        return compose_refuse(reader, value, "this is not an IPv6 address");
    reading->network->ip6 = ip;
    return 0;
}

static int read_mac(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;

    if (value->kind != YML_TEXT || mac_parse(value->text, &reading->network->mac) < 0)
        return compose_refuse(reader, value,
                              "this is not a MAC address; write it like 02:00:00:00:00:01");
    return 0;
}

static const struct compose_key endpoint_keys[] = {
    {"aliases", read_aliases},
    {"ipv4_address", read_ip4},
    {"ipv6_address", read_ip6},
    {"mac_address", read_mac},
    {0},
};

static int read_network_name(struct compose_reader *reader, void *object,
                             const struct yml_node *value)
{
    const char *key;
    int r = compose_read_text(reader, value, &key);

    return r < 0 ? r : add_network(reader, object, value, key);
}

static int read_networks(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    int r = 0;

    reading->has_networks = true;
    if (value->kind != YML_MAP)
        return compose_read_each(reader, value, read_network_name, object);
    for (size_t i = 0; r == 0 && i < value->count; i++) {
        const struct yml_entry *entry = &value->entries[i];
        size_t before = compose_enter(reader, entry->key);

        r = add_network(reader, reading, entry->value, entry->key);
        if (r == 0 && entry->value->kind != YML_NULL)
            r = compose_read_map(reader, entry->value, endpoint_keys, object);
        if (r == 0)
            compose_leave(reader, before);
    }
    return r;
}

static int read_network_mode(struct compose_reader *reader, void *object,
                             const struct yml_node *value)
{
    struct service_reading *reading = object;
    const char *text;
    int r = compose_read_text(reader, value, &text);

    if (r == 0 && strcmp(text, "none") != 0)
        r = compose_refuse(reader, value,
                           "moat knows network_mode: none only, not \"%.40s\"; name "
                           "the networks by networks:",
                           text);
    reading->alone = true;
    return r;
}

/* --- ports --- */

static int add_port(struct compose_reader *reader, struct service_reading *reading,
                    const struct yml_node *value, const char *text)
{
    struct port port;

    if (port_parse(text, "", &port, reader->error) < 0)
        return compose_blame(reader, value);
    return set_text(reader, reading, value, text, "ports");
}

struct long_port {
    const char *target;
    const char *published;
    const char *protocol;
    const char *host_ip;
};

static int read_target(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_text(reader, value, &((struct long_port *)object)->target);
}

static int read_published(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_text(reader, value, &((struct long_port *)object)->published);
}

static int read_protocol(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_text(reader, value, &((struct long_port *)object)->protocol);
}

static int read_host_ip(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct ip ip;

    if (value->kind != YML_TEXT || ip_parse(value->text, &ip) < 0)
        return compose_refuse(reader, value, "this is not an IP address");
    return compose_read_text(reader, value, &((struct long_port *)object)->host_ip);
}

static int read_port_mode(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    const char *text;
    int r = compose_read_text(reader, value, &text);

    (void)object;
    if (r == 0 && strcmp(text, "host") != 0 && strcmp(text, "ingress") != 0)
        r = compose_refuse(reader, value, "\"%.40s\" is neither host nor ingress", text);
    return r;
}

static int read_long_port(struct compose_reader *reader, struct service_reading *reading,
                          const struct yml_node *value)
{
    static const struct compose_key keys[] = {
        {"target", read_target},
        {"published", read_published},
        {"protocol", read_protocol},
        {"host_ip", read_host_ip},
        {"mode", read_port_mode},
        {"name", compose_read_nothing},
        {"app_protocol", compose_read_nothing},
        {0},
    };
    _cleanup_free_ char *text = NULL;
    struct long_port port = {.protocol = "tcp"};
    bool six;
    int r = compose_read_map(reader, value, keys, &port);

    if (r < 0)
        return r;
    if (!port.target)
        return compose_refuse(reader, value, "target: is missing, the port inside");
    six = port.host_ip && strchr(port.host_ip, ':');
    if (asprintf(&text, "%s%s%s%s%s%s%s/%s", six ? "[" : "", port.host_ip ? port.host_ip : "",
                 six ? "]" : "", port.host_ip ? ":" : "", port.published ? port.published : "",
                 port.published ? ":" : "", port.target, port.protocol) < 0) {
        text = NULL;
        return compose_out_of_memory(reader);
    }
    return add_port(reader, reading, value, text);
}

static int read_port(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    if (value->kind == YML_MAP)
        return read_long_port(reader, object, value);
    if (value->kind != YML_TEXT)
        return compose_refuse(reader, value, "a port is a text or a mapping, not %s",
                              yml_kind_name(value->kind));
    return add_port(reader, object, value, value->text);
}

static int read_ports(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_each(reader, value, read_port, object);
}

/* --- names --- */

static int add_dns(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return set(reader, object, value, "dns");
}

static int read_dns(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_each(reader, value, add_dns, object);
}

static int add_search(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    const char *text;
    int r = compose_read_text(reader, value, &text);

    if (r == 0 && !name_is_dns(text))
        r = compose_refuse(reader, value, "\"%.80s\" is not a domain", text);
    return r < 0 ? r : set(reader, object, value, "dns_search");
}

static int read_search(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_each(reader, value, add_search, object);
}

/* host-gateway is known once the network is there. */
static int add_host(struct compose_reader *reader, void *object, const struct yml_node *value,
                    const char *key, const char *text)
{
    struct service_reading *reading = object;
    char entry[254 + 1 + IP_TEXT_MAX];
    char bare[IP_TEXT_MAX + 2];
    size_t length = text ? strlen(text) : 0;
    char address[IP_TEXT_MAX];
    struct ip ip;

    if (!name_is_dns(key))
        return compose_refuse(reader, value, "\"%.80s\" is not a host's name", key);
    if (text && strcmp(text, "host-gateway") == 0)
        return strings_add(&reading->service->gateway_hosts, key) < 0
                   ? compose_out_of_memory(reader)
                   : 0;
    if (length > 2 && text[0] == '[' && text[length - 1] == ']')
        snprintf(bare, sizeof(bare), "%.*s", (int)(length - 2), text + 1);
    else
        snprintf(bare, sizeof(bare), "%s", text ? text : "");
    if (ip_parse(bare, &ip) < 0)
        return compose_refuse(reader, value,
                              "%.80s: \"%.80s\" is neither an IP address nor "
                              "host-gateway",
                              key, text ? text : "");
    snprintf(entry, sizeof(entry), "%s:%s", key, ip_format(&ip, address));
    return set_text(reader, reading, value, entry, "hosts");
}

static int read_hosts(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_pairs(reader, value, ":=", add_host, object);
}

static int add_label(struct compose_reader *reader, void *object, const struct yml_node *value,
                     const char *key, const char *text)
{
    _cleanup_free_ char *pair = NULL;

    if (asprintf(&pair, "%s=%s", key, text ? text : "") < 0) {
        pair = NULL;
        return compose_out_of_memory(reader);
    }
    return set_text(reader, object, value, pair, "labels");
}

static int read_labels(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_pairs(reader, value, "=", add_label, object);
}

/* --- policy --- */

static int read_mode(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;

    reading->has_mode = true;
    return set(reader, reading, value, "mode");
}

static int add_rule(struct compose_reader *reader, struct service_reading *reading,
                    const struct yml_node *value, const char *member)
{
    struct policy_rule rule;
    const char *text;
    int r = compose_read_text(reader, value, &text);

    if (r < 0)
        return r;
    if (policy_rule_parse(text, "", &rule, reader->error) < 0)
        return compose_blame(reader, value);
    return set_text(reader, reading, value, text, member);
}

static int add_allow(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return add_rule(reader, object, value, "policy.allow");
}

static int add_deny(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return add_rule(reader, object, value, "policy.deny");
}

static int read_allow(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_each(reader, value, add_allow, object);
}

static int read_deny(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    return compose_read_each(reader, value, add_deny, object);
}

static int read_log_denied(struct compose_reader *reader, void *object,
                           const struct yml_node *value)
{
    struct service_reading *reading = object;

    return compose_read_bool(reader, value, &reading->service->attach.policy.log_denied);
}

static int read_drop(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;

    return compose_read_bool(reader, value, &reading->service->attach.policy.silent);
}

static int read_policy(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    static const struct compose_key keys[] = {{"mode", read_mode}, {"allow", read_allow},
                                              {"deny", read_deny}, {"log_denied", read_log_denied},
                                              {"drop", read_drop}, {0}};

    return compose_read_map(reader, value, keys, object);
}

/* --- depends_on --- */

static int find_service(struct compose_reader *reader, const struct yml_node *node, const char *key,
                        size_t *ret_index)
{
    const struct compose_service *found = compose_service_find(reader->compose, key);

    if (!found)
        return compose_refuse(reader, node, "there is no service \"%.80s\"", key);
    *ret_index = (size_t)(found - reader->compose->services);
    return 0;
}

static int add_dependency(struct compose_reader *reader, struct service_reading *reading,
                          const struct yml_node *node, const char *key)
{
    struct compose_service *service = reading->service;
    struct compose_dependency *grown;
    size_t index = 0;
    int r = find_service(reader, node, key, &index);

    if (r < 0)
        return r;
    grown = reallocarray(service->dependencies, service->n_dependencies + 1, sizeof(*grown));
    if (!grown)
        return compose_out_of_memory(reader);
    service->dependencies = grown;
    grown[service->n_dependencies++] =
        (struct compose_dependency){.service = index, .condition = CONDITION_STARTED};
    return 0;
}

static int add_dependency_name(struct compose_reader *reader, void *object,
                               const struct yml_node *value)
{
    const char *key;
    int r = compose_read_text(reader, value, &key);

    return r < 0 ? r : add_dependency(reader, object, value, key);
}

static int read_condition(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    struct service_reading *reading = object;
    struct compose_service *service = reading->service;
    const char *text;
    int r = compose_read_text(reader, value, &text);

    if (r < 0 || strcmp(text, "service_started") == 0)
        return r;
    if (strcmp(text, "service_completed_successfully") != 0)
        return compose_refuse(reader, value,
                              "moat knows the conditions service_started and "
                              "service_completed_successfully, not \"%.40s\"",
                              text);
    service->dependencies[service->n_dependencies - 1].condition = CONDITION_COMPLETED;
    return 0;
}

static int read_dependencies(struct compose_reader *reader, void *object,
                             const struct yml_node *value)
{
    static const struct compose_key keys[] = {{"condition", read_condition}, {0}};
    int r = 0;

    if (value->kind != YML_MAP)
        return compose_read_each(reader, value, add_dependency_name, object);
    for (size_t i = 0; r == 0 && i < value->count; i++) {
        const struct yml_entry *entry = &value->entries[i];
        size_t before = compose_enter(reader, entry->key);

        r = add_dependency(reader, object, entry->value, entry->key);
        if (r == 0 && entry->value->kind != YML_NULL)
            r = compose_read_map(reader, entry->value, keys, object);
        if (r == 0)
            compose_leave(reader, before);
    }
    return r;
}

static const struct compose_key service_keys[] = {
    {"command", read_command},
    {"environment", read_environment},
    {"working_dir", read_working_dir},
    {"user", read_user},
    {"hostname", read_hostname},
    {"container_name", read_container_name},
    {"image", read_image},
    {"build", read_image},
    {"x-moat-rootfs", read_rootfs},
    {"networks", read_networks},
    {"network_mode", read_network_mode},
    {"ports", read_ports},
    {"expose", compose_read_nothing},
    {"dns", read_dns},
    {"dns_search", read_search},
    {"extra_hosts", read_hosts},
    {"labels", read_labels},
    {"x-moat-policy", read_policy},
    {"depends_on", read_dependencies},
    {0},
};

/* --- the whole --- */

static int choose_name(struct compose_reader *reader, const struct service_reading *reading,
                       const struct yml_node *node)
{
    struct compose_service *service = reading->service;
    const char *given = reading->container_name;

    if (given && name_is_valid(given)) {
        snprintf(service->attach.name, sizeof(service->attach.name), "%s", given);
        return 0;
    }
    if (!given && compose_name(reader->compose->project, service->key, service->attach.name) == 0)
        return 0;
    return compose_refuse(reader, node,
                          "\"%s%s%.80s\" is not a guest's name: 1 to 63 of a-z, 0-9 and '-', with "
                          "no '-' at either end; give another by container_name:",
                          given ? "" : reader->compose->project, given ? "" : "-",
                          given ? given : service->key);
}

static int check_program(struct compose_reader *reader, const struct service_reading *reading,
                         const struct yml_node *node)
{
    const struct compose_service *service = reading->service;

    if (reading->image && !service->rootfs)
        return compose_refuse(reader, reading->image,
                              "moat has no images: unpack it, and name its folder by "
                              "x-moat-rootfs: DIR");
    if (service->command.count == 0 || service->command.items[0][0] == '\0')
        return compose_refuse(reader, node, "it needs a command: the program to run%s",
                              service->rootfs ? "; an image's own one is not known here" : "");
    return 0;
}

/* Without a network there is nothing to publish on, and nobody to be found by. */
static int check_networks(struct compose_reader *reader, struct service_reading *reading,
                          const struct yml_node *node)
{
    struct guest_attach_params *attach = &reading->service->attach;

    if (reading->alone && reading->has_mode)
        return compose_refuse(reader, node,
                              "network_mode: and a mode in x-moat-policy: exclude "
                              "each other");
    if (reading->alone) {
        attach->has_mode = true;
        attach->mode = MODE_LOOPBACK;
    }
    if (!attach->has_mode || attach->mode >= MODE_OUTBOUND)
        return 0;
    if (attach->n_networks > 0)
        return compose_refuse(reader, node, "a service in mode %s has no networks; leave them out",
                              guest_mode_name(attach->mode));
    if (attach->ports.count > 0)
        return compose_refuse(reader, node, "a service in mode %s has no ports; leave them out",
                              guest_mode_name(attach->mode));
    if (reading->service->gateway_hosts.count > 0)
        return compose_refuse(reader, node, "a service in mode %s has no gateway for host-gateway",
                              guest_mode_name(attach->mode));
    return 0;
}

/* On the host's files it starts in the file's folder, as its command's paths are written. */
static int choose_workdir(struct compose_reader *reader, struct compose_service *service)
{
    const char *given = service->workdir;
    char *path = NULL;

    if (service->rootfs || (given && given[0] == '/'))
        return 0;
    if (asprintf(&path, "%s%s%s", reader->directory, given ? "/" : "", given ? given : "") < 0)
        return compose_out_of_memory(reader);
    free(service->workdir);
    service->workdir = path;
    return 0;
}

static int finish(struct compose_reader *reader, struct service_reading *reading,
                  const struct yml_node *node)
{
    const struct guest_attach_params *attach = &reading->service->attach;
    int r = check_program(reader, reading, node);

    if (r == 0)
        r = check_networks(reader, reading, node);
    if (r == 0)
        r = choose_name(reader, reading, node);
    if (r == 0 && !reading->has_networks && (!attach->has_mode || attach->mode >= MODE_OUTBOUND))
        r = add_network(reader, reading, node, DEFAULT_NETWORK);
    return r < 0 ? r : choose_workdir(reader, reading->service);
}

int compose_service_read(struct compose_reader *reader, struct compose_service *service,
                         const struct yml_node *node)
{
    struct service_reading reading = {.service = service};
    int r;

    if (!name_is_dns(service->key) || strlen(service->key) > NAME_MAX_LENGTH)
        return compose_refuse(reader, node,
                              "a service's name has 1 to %d letters, digits, '-', "
                              "'_' and '.'",
                              NAME_MAX_LENGTH);
    r = compose_read_map(reader, node, service_keys, &reading);
    return r < 0 ? r : finish(reader, &reading, node);
}
