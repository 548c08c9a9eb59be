/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file as a whole: which it is, the project's name, the order of the services. Networks are
 * read before services, which name them, wherever they stand. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compose_read.h"
#include "compose_words.h"
#include "option.h"

int compose_file_find(const char **ret_path, struct error *error)
{
    static const char *const names[] = {"compose.yaml", "compose.yml", "docker-compose.yaml",
                                        "docker-compose.yml"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (access(names[i], F_OK) == 0) {
            *ret_path = names[i];
            return 0;
        }
    }
    return option_refuse(error, "there is no compose.yaml here; name the file by --file");
}

/* --- lookups --- */

struct compose_network *compose_network_find(const struct compose *compose, const char *key)
{
    for (size_t i = 0; i < compose->n_networks; i++)
        if (strcmp(compose->networks[i].key, key) == 0)
            return &compose->networks[i];
    return NULL;
}

const struct compose_service *compose_service_find(const struct compose *compose, const char *key)
{
    for (size_t i = 0; i < compose->n_services; i++)
        if (strcmp(compose->services[i].key, key) == 0)
            return &compose->services[i];
    return NULL;
}

/* --- the project's name --- */

static int take_name(struct compose_reader *reader, const char *name)
{
    return compose_name(NULL, name, reader->compose->project);
}

/* The folder's name, without what no name has. */
static int take_folder(struct compose_reader *reader)
{
    _cleanup_free_ char *copy = strdup(reader->directory);
    const char *name = copy ? basename(copy) : "";
    char kept[NAME_MAX_LENGTH + 1];
    size_t length = 0;

    for (; *name && length < NAME_MAX_LENGTH; name++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", *name) ||
            (length > 0 && strchr("-_.", *name)))
            kept[length++] = *name;
    while (length > 0 && strchr("-_.", kept[length - 1]))
        length--;
    kept[length] = '\0';
    if (take_name(reader, kept) < 0)
        return option_refuse(reader->error,
                             "the folder %s gives the project no name; give one by "
                             "--project-name",
                             reader->directory);
    return 0;
}

static int choose_project(struct compose_reader *reader, const struct yml_node *root,
                          const char *given)
{
    const struct yml_node *node = yml_find(root, "name");

    if (given && take_name(reader, given) < 0)
        return option_refuse(reader->error, "\"%.80s\" is not a project's name", given);
    if (given)
        return 0;
    if (!node || node->kind == YML_NULL)
        return take_folder(reader);
    if (node->kind == YML_TEXT && take_name(reader, node->text) == 0)
        return 0;
    return compose_refuse(reader, node,
                          "name: this is not a project's name: 1 to %d letters, "
                          "digits, '-' and '_'",
                          NAME_MAX_LENGTH);
}

/* --- networks --- */

static int add_network(struct compose_reader *reader, const char *key, const struct yml_node *node)
{
    struct compose *compose = reader->compose;
    struct compose_network *network = &compose->networks[compose->n_networks];
    size_t before = compose_enter(reader, key);
    int r;

    proto_params_init(proto_method_get(METHOD_NETWORK_CREATE), &network->params);
    network->key = strdup(key);
    if (!network->key)
        return compose_out_of_memory(reader);
    compose->n_networks++;
    r = compose_network_read(reader, network, node);
    for (size_t i = 0; r == 0 && i + 1 < compose->n_networks; i++)
        if (strcmp(compose->networks[i].name, network->name) == 0)
            r = compose_refuse(reader, node, "the network \"%s\" has the same name, \"%s\"",
                               compose->networks[i].key, network->name);
    if (r == 0)
        compose_leave(reader, before);
    return r;
}

static int read_networks(struct compose_reader *reader, const struct yml_node *node)
{
    size_t before = compose_enter(reader, "networks");
    bool given = node && node->kind != YML_NULL;
    int r = 0;

    if (given && node->kind != YML_MAP)
        return compose_refuse(reader, node, "this must be a mapping, not %s",
                              yml_kind_name(node->kind));
    if (given && node->count > COMPOSE_NETWORKS_MAX)
        return compose_refuse(reader, node, "a file has at most %d networks", COMPOSE_NETWORKS_MAX);
    reader->compose->networks =
        calloc((given ? node->count : 0) + 1, sizeof(*reader->compose->networks));
    reader->compose->n_networks = 0;
    if (!reader->compose->networks)
        return compose_out_of_memory(reader);
    for (size_t i = 0; given && r == 0 && i < node->count; i++)
        r = add_network(reader, node->entries[i].key, node->entries[i].value);
    if (r == 0 && !compose_network_find(reader->compose, DEFAULT_NETWORK))
        r = add_network(reader, DEFAULT_NETWORK, NULL);
    if (r == 0)
        compose_leave(reader, before);
    return r;
}

/* --- services --- */

static int add_services(struct compose_reader *reader, const struct yml_node *node)
{
    struct compose *compose = reader->compose;

    compose->services = calloc(node->count + 1, sizeof(*compose->services));
    if (!compose->services)
        return compose_out_of_memory(reader);
    for (size_t i = 0; i < node->count; i++) {
        struct compose_service *service = &compose->services[i];

        proto_params_init(proto_method_get(METHOD_GUEST_ATTACH), &service->params);
        service->key = strdup(node->entries[i].key);
        if (!service->key)
            return compose_out_of_memory(reader);
        compose->n_services++;
    }
    return 0;
}

static int check_name(struct compose_reader *reader, size_t index, const struct yml_node *node)
{
    const struct compose *compose = reader->compose;
    const char *name = compose->services[index].attach.name;

    for (size_t i = 0; i < index; i++)
        if (strcmp(compose->services[i].attach.name, name) == 0)
            return compose_refuse(reader, node, "the service \"%s\" has the same name, \"%s\"",
                                  compose->services[i].key, name);
    return 0;
}

static int read_services(struct compose_reader *reader, const struct yml_node *root)
{
    const struct yml_node *node = yml_find(root, "services");
    size_t before = compose_enter(reader, "services");
    int r;

    if (!node || node->kind != YML_MAP || node->count == 0)
        return compose_refuse(reader, node ? node : root,
                              "there must be a mapping with a service at least");
    if (node->count > COMPOSE_SERVICES_MAX)
        return compose_refuse(reader, node, "a file has at most %d services", COMPOSE_SERVICES_MAX);
    r = add_services(reader, node);
    for (size_t i = 0; r == 0 && i < node->count; i++) {
        size_t within = compose_enter(reader, node->entries[i].key);

        r = compose_service_read(reader, &reader->compose->services[i], node->entries[i].value);
        if (r == 0)
            r = check_name(reader, i, node->entries[i].value);
        if (r == 0)
            compose_leave(reader, within);
    }
    if (r == 0)
        compose_leave(reader, before);
    return r;
}

/* --- the order --- */

/* Everything that depends on nothing is of depth 0. A round that finds no depth leaves a circle. */
static bool find_depth(struct compose *compose, struct compose_service *service, size_t round)
{
    size_t depth = 0;

    for (size_t i = 0; i < service->n_dependencies; i++) {
        const struct compose_service *other = &compose->services[service->dependencies[i].service];

        if (other->depth >= round)
            return false;
        depth = other->depth + 1 > depth ? other->depth + 1 : depth;
    }
    if (depth != round)
        return false;
    service->depth = depth;
    return true;
}

static int order_services(struct compose_reader *reader, const struct yml_node *root)
{
    struct compose *compose = reader->compose;
    const struct yml_node *node = yml_find(root, "services");
    size_t left = compose->n_services;

    for (size_t i = 0; i < compose->n_services; i++)
        compose->services[i].depth = SIZE_MAX;
    for (size_t round = 0; left > 0; round++) {
        size_t found = 0;

        for (size_t i = 0; i < compose->n_services; i++)
            if (compose->services[i].depth == SIZE_MAX)
                found += find_depth(compose, &compose->services[i], round);
        left -= found;
        for (size_t i = 0; found == 0 && i < compose->n_services; i++)
            if (compose->services[i].depth == SIZE_MAX)
                return compose_refuse(reader, node->entries[i].value,
                                      "services.%.64s: it depends on itself, by way of others or "
                                      "directly, or on services that do",
                                      compose->services[i].key);
    }
    return 0;
}

/* --- settings as a number --- */

/* FNV-1a, 64 bits (draft-eastlake-fnv). */
static void write_config(const struct text *text, char ret_config[COMPOSE_CONFIG_LENGTH + 1])
{
    uint64_t hash = 0xcbf29ce484222325;

    for (size_t i = 0; i < text->length; i++)
        hash = (hash ^ (unsigned char)text->data[i]) * 0x100000001b3;
    snprintf(ret_config, COMPOSE_CONFIG_LENGTH + 1, "%016llx", (unsigned long long)hash);
}

static void append_strings(struct text *text, char kind, const struct strings *strings)
{
    for (size_t i = 0; i < strings->count; i++)
        text_append(text, "%c%zu:%s", kind, strlen(strings->items[i]), strings->items[i]);
}

static void append_string(struct text *text, char kind, const char *string)
{
    if (string)
        text_append(text, "%c%zu:%s", kind, strlen(string), string);
}

static void network_text(const struct compose_network *network, struct text *text)
{
    append_string(text, 'n', network->name);
    if (!network->external)
        proto_call_encode(text, proto_method_get(METHOD_NETWORK_CREATE), &network->params, 0);
}

/* With the settings of its networks: a network that is made anew takes its services along. */
static void service_text(const struct compose *compose, const struct compose_service *service,
                         struct text *text)
{
    proto_call_encode(text, proto_method_get(METHOD_GUEST_ATTACH), &service->params, 0);
    append_strings(text, 'c', &service->command);
    append_strings(text, 'e', &service->env);
    append_strings(text, 'g', &service->gateway_hosts);
    append_string(text, 'u', service->user);
    append_string(text, 'w', service->workdir);
    append_string(text, 'r', service->rootfs);
    append_string(text, 'h', service->hostname);
    for (size_t i = 0; i < service->attach.n_networks; i++)
        for (size_t j = 0; j < compose->n_networks; j++)
            if (strcmp(service->attach.networks[i].name, compose->networks[j].name) == 0)
                append_string(text, 'n', compose->networks[j].config);
}

static int add_labels(struct compose_reader *reader, struct labels *labels, const char *kind,
                      const char *key, const char *config)
{
    if (labels_set(labels, COMPOSE_LABEL_PROJECT, reader->compose->project) < 0 ||
        labels_set(labels, kind, key) < 0 || labels_set(labels, COMPOSE_LABEL_CONFIG, config) < 0)
        return compose_out_of_memory(reader);
    if (labels->count > LIMIT_LABELS)
        return option_refuse(reader->error, "\"%s\" has more than %d labels, moat's own included",
                             key, LIMIT_LABELS);
    return 0;
}

static int mark_network(struct compose_reader *reader, struct compose_network *network)
{
    struct text text = {0};
    int r = 0;

    memcpy(network->create.name, network->name, sizeof(network->create.name));
    network_text(network, &text);
    if (text.failed)
        r = compose_out_of_memory(reader);
    else
        write_config(&text, network->config);
    text_deinit(&text);
    if (r < 0 || network->external)
        return r;
    return add_labels(reader, &network->create.labels, COMPOSE_LABEL_NETWORK, network->key,
                      network->config);
}

static int mark_service(struct compose_reader *reader, struct compose_service *service)
{
    struct text text = {0};
    int r = 0;

    service_text(reader->compose, service, &text);
    if (text.failed)
        r = compose_out_of_memory(reader);
    else
        write_config(&text, service->config);
    text_deinit(&text);
    return r < 0 ? r
                 : add_labels(reader, &service->attach.labels, COMPOSE_LABEL_SERVICE, service->key,
                              service->config);
}

static int mark(struct compose_reader *reader)
{
    struct compose *compose = reader->compose;
    int r = 0;

    for (size_t i = 0; r == 0 && i < compose->n_networks; i++)
        r = mark_network(reader, &compose->networks[i]);
    for (size_t i = 0; r == 0 && i < compose->n_services; i++)
        r = mark_service(reader, &compose->services[i]);
    return r;
}

/* --- the whole --- */

/* Read by themselves, in the order that they need. */
static int pass_over(struct compose_reader *reader, void *object, const struct yml_node *value)
{
    (void)reader;
    (void)object;
    (void)value;
    return 0;
}

static int read_root(struct compose_reader *reader, const struct yml_node *root,
                     const char *project)
{
    static const struct compose_key keys[] = {{"version", compose_read_nothing},
                                              {"name", compose_read_nothing},
                                              {"networks", pass_over},
                                              {"services", pass_over},
                                              {0}};
    int r = compose_read_map(reader, root, keys, NULL);

    if (r == 0)
        r = choose_project(reader, root, project);
    if (r == 0)
        r = read_networks(reader, yml_find(root, "networks"));
    if (r == 0)
        r = read_services(reader, root);
    if (r == 0)
        r = order_services(reader, root);
    return r < 0 ? r : mark(reader);
}

/* The folder of the file; malloc'ed, NULL with errno. */
static char *find_directory(const char *path)
{
    _cleanup_free_ char *copy = strdup(path);

    return copy ? realpath(dirname(copy), NULL) : NULL;
}

int compose_load(const char *path, const char *project, struct compose *ret_compose,
                 struct error *error)
{
    _cleanup_(yml_freep) struct yml *yaml = NULL;
    _cleanup_free_ char *directory = NULL;
    struct compose compose = {0};
    struct compose_reader reader = {.compose = &compose, .error = error};
    int r = yml_load(path, &yaml, error);

    if (r < 0)
        return r;
    directory = find_directory(path);
    if (!directory)
        return error_set(error, errno, "can't find the folder of %s", path);
    reader.directory = directory;
    r = read_root(&reader, yml_root(yaml), project);
    if (r < 0)
        compose_deinit(&compose);
    else
        *ret_compose = compose;
    return r;
}

static void service_deinit(struct compose_service *service)
{
    proto_params_deinit(proto_method_get(METHOD_GUEST_ATTACH), &service->params);
    strings_deinit(&service->command);
    strings_deinit(&service->env);
    strings_deinit(&service->gateway_hosts);
    free(service->dependencies);
    free(service->key);
    free(service->user);
    free(service->workdir);
    free(service->rootfs);
    free(service->hostname);
}

void compose_deinit(struct compose *compose)
{
    for (size_t i = 0; i < compose->n_networks; i++) {
        proto_params_deinit(proto_method_get(METHOD_NETWORK_CREATE), &compose->networks[i].params);
        free(compose->networks[i].key);
    }
    for (size_t i = 0; i < compose->n_services; i++)
        service_deinit(&compose->services[i]);
    free(compose->networks);
    free(compose->services);
    *compose = (struct compose){0};
}
