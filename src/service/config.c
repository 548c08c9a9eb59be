/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "service/config.h"

#include <errno.h>
#include <ini.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/name.h"

/* Sets one member from the text of a key; returns what the key takes when the text is not that,
 * else NULL. */
typedef const char *(*key_fn)(const char *text, void *member, uint32_t min, uint32_t max);

static const char *set_string(const char *text, void *member, uint32_t min, uint32_t max)
{
    char *copy = strdup(text);

    (void)min;
    (void)max;
    if (!copy)
        return "less memory than this";
    free(*(char **)member);
    *(char **)member = copy;
    return NULL;
}

static const char *set_domain(const char *text, void *member, uint32_t min, uint32_t max)
{
    return name_is_dns(text) ? set_string(text, member, min, max) : "a DNS name";
}

static const char *set_path(const char *text, void *member, uint32_t min, uint32_t max)
{
    return text[0] == '/' ? set_string(text, member, min, max) : "an absolute path";
}

static const char *set_subnet(const char *text, void *member, uint32_t min, uint32_t max)
{
    struct cidr cidr;

    if (cidr_parse(text, &cidr) < 0 || cidr.ip.family != AF_INET || cidr_has_host_bits(&cidr) ||
        cidr.prefix < 8 || cidr.prefix > 30)
        return "an IPv4 prefix of /8 to /30, such as 10.88.0.0/16";
    return set_string(text, member, min, max);
}

static const char *set_number(const char *text, void *member, uint32_t min, uint32_t max)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end || value < min || value > max)
        return "a whole number within its bounds (moat.conf(5))";
    *(uint32_t *)member = (uint32_t)value;
    return NULL;
}

static const char *set_octal(const char *text, void *member, uint32_t min, uint32_t max)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 8);

    if (text[0] < '0' || text[0] > '7' || *end || value < min || value > max)
        return "an octal mode such as 0660";
    *(uint32_t *)member = (uint32_t)value;
    return NULL;
}

static const char *set_level(const char *text, void *member, uint32_t min, uint32_t max)
{
    (void)min;
    (void)max;
    if (strcmp(text, "info") != 0 && strcmp(text, "debug") != 0)
        return "info or debug";
    *(bool *)member = strcmp(text, "debug") == 0;
    return NULL;
}

static const char *set_bool(const char *text, void *member, uint32_t min, uint32_t max)
{
    (void)min;
    (void)max;
    if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
        return "yes or no";
    *(bool *)member = strcmp(text, "yes") == 0;
    return NULL;
}

static const char *set_ip(const char *text, void *member, uint32_t min, uint32_t max)
{
    (void)min;
    (void)max;
    return ip_parse(text, member) < 0 ? "an IP address" : NULL;
}

/* Words separated by spaces or commas, each handed to `each`. */
static const char *split(const char *text, const char *(*each)(const char *word, void *member),
                         void *member)
{
    while (*text) {
        size_t length = strcspn(text, " ,\t");
        char word[256];
        const char *wanted;

        if (length >= sizeof(word))
            return "shorter words";
        if (length) {
            snprintf(word, sizeof(word), "%.*s", (int)length, text);
            wanted = each(word, member);
            if (wanted)
                return wanted;
        }
        text += length;
        text += strspn(text, " ,\t");
    }
    return NULL;
}

static const char *add_pool(const char *word, void *member)
{
    struct cidr cidr;

    if (cidr_parse(word, &cidr) < 0 || cidr.ip.family != AF_INET || cidr_has_host_bits(&cidr))
        return "IPv4 prefixes such as 10.89.0.0/16";
    return strings_add(member, word) < 0 ? "less memory than this" : NULL;
}

static const char *add_ip(const char *word, void *member)
{
    struct ip ip;

    if (ip_parse(word, &ip) < 0)
        return "IP addresses";
    return ips_add(member, &ip) < 0 ? "less memory than this" : NULL;
}

static const char *set_pools(const char *text, void *member, uint32_t min, uint32_t max)
{
    (void)min;
    (void)max;
    strings_deinit(member);
    return split(text, add_pool, member);
}

static const char *set_ips(const char *text, void *member, uint32_t min, uint32_t max)
{
    (void)min;
    (void)max;
    ips_deinit(member);
    return split(text, add_ip, member);
}

/* The suffix's entry, made where there is none; NULL: no memory. */
static struct names_forward *forward_get(struct config *config, const char *suffix)
{
    struct names_forward *forwards;

    for (size_t i = 0; i < config->n_forwards; i++)
        if (strcasecmp(config->forwards[i].suffix, suffix) == 0)
            return &config->forwards[i];
    forwards = list_grow(config->forwards, config->n_forwards, sizeof(*forwards));
    if (!forwards)
        return NULL;
    config->forwards = forwards;
    forwards += config->n_forwards++;
    *forwards = (struct names_forward){0};
    snprintf(forwards->suffix, sizeof(forwards->suffix), "%s", suffix);
    return forwards;
}

/* SUFFIX=IP; the same suffix again adds a server. */
static const char *add_forward(const char *word, void *member)
{
    struct config *config = member;
    size_t length = strcspn(word, "=");
    char suffix[256];
    struct names_forward *forward;
    struct ip ip;

    snprintf(suffix, sizeof(suffix), "%.*s", (int)length, word);
    if (!word[length] || !name_is_dns(suffix) || ip_parse(word + length + 1, &ip) < 0 ||
        ip_is_unspecified(&ip))
        return "SUFFIX=IP, such as corp.example=10.1.1.1";
    forward = forward_get(config, suffix);
    if (!forward)
        return "less memory than this";
    if (config->n_forwards > CONFIG_FORWARDS_MAX)
        return "at most 256 suffixes";
    if (ips_contains(&forward->servers, &ip))
        return NULL;
    if (forward->servers.count == LIMIT_DNS_SERVERS)
        return "at most 8 servers for a suffix";
    return ips_add(&forward->servers, &ip) < 0 ? "less memory than this" : NULL;
}

/* Lines of this key add up. */
static const char *set_forward(const char *text, void *member, uint32_t min, uint32_t max)
{
    (void)min;
    (void)max;
    return split(text, add_forward, member);
}

static const struct key {
    const char *section;
    const char *name;
    key_fn set;
    size_t offset;
    uint32_t min, max;
} keys[] = {
    {"daemon", "socket_group", set_string, offsetof(struct config, socket_group), 0, 0},
    {"daemon", "socket_mode", set_octal, offsetof(struct config, socket_mode), 0, 0777},
    {"daemon", "worker_user", set_string, offsetof(struct config, worker_user), 0, 0},
    {"daemon", "max_clients", set_number, offsetof(struct config, max_clients), 1, 65536},
    {"daemon", "log_level", set_level, offsetof(struct config, debug), 0, 0},
    {"network", "pools", set_pools, offsetof(struct config, pools), 0, 0},
    {"network", "subnet_size", set_number, offsetof(struct config, subnet_size), 8, 30},
    {"network", "default_subnet", set_subnet, offsetof(struct config, default_subnet), 0, 0},
    {"network", "publish_address", set_ip, offsetof(struct config, publish_address), 0, 0},
    {"network", "open_firewalls", set_bool, offsetof(struct config, open_firewalls), 0, 0},
    {"network", "bridge_ports", set_number, offsetof(struct config, bridge_ports), 0, 1000},
    {"dns", "domain", set_domain, offsetof(struct config, domain), 0, 0},
    {"dns", "resolv_conf", set_path, offsetof(struct config, resolv_conf), 0, 0},
    {"dns", "upstreams", set_ips, offsetof(struct config, upstreams), 0, 0},
    {"dns", "forward", set_forward, 0, 0, 0},
    {"dhcp", "lease", set_number, offsetof(struct config, lease_s), 120, 31536000},
    {"dhcp", "ntp", set_ips, offsetof(struct config, ntp), 0, 0},
    {"dns", "ttl", set_number, offsetof(struct config, ttl_s), 0, 86400},
    {"dns", "stale", set_number, offsetof(struct config, stale_s), 0, 604800},
    {"dns", "cache", set_number, offsetof(struct config, cache_kib), 16, 1048576},
    {"dns", "in_flight", set_number, offsetof(struct config, max_in_flight), 1, 65536},
    {"dns", "connections", set_number, offsetof(struct config, max_connections), 1, 1024},
    {"dns", "rate", set_number, offsetof(struct config, rate), 0, 1000000},
    {"dns", "resolved", set_bool, offsetof(struct config, resolved), 0, 0},
    {"dns", "rebind_guard", set_bool, offsetof(struct config, rebind_guard), 0, 0},
    {"policy", "grace", set_number, offsetof(struct config, grace_s), 1, 3600},
};

void config_init(struct config *ret_config)
{
    static const char *const pools[] = {"10.89.0.0/16", "10.90.0.0/15", "10.92.0.0/14",
                                        "10.96.0.0/11", "172.16.0.0/12"};

    *ret_config = (struct config){
        .state_dir = strdup("/var/lib/moat"),
        .run_dir = strdup("/run/moat"),
        .socket_group = strdup("moat"),
        .socket_mode = 0660,
        .worker_user = strdup("moat"),
        .max_clients = 1024,
        .subnet_size = 24,
        .default_subnet = strdup(CONFIG_DEFAULT_SUBNET),
        .bridge_ports = 256,
        .domain = strdup("moat.internal"),
        .resolv_conf = strdup("/etc/resolv.conf"),
        .ttl_s = 5,
        .cache_kib = 2048,
        .max_in_flight = 2048,
        .max_connections = 64,
        .resolved = true,
        .grace_s = 30,
        .lease_s = 3600,
    };
    for (size_t i = 0; i < ARRAY_SIZE(pools); i++)
        (void)strings_add(&ret_config->pools, pools[i]);
}

struct reading {
    struct config *config;
    char problem[512]; /* the first one; inih goes on after it */
};

static void set_problem(struct reading *reading, const char *section, const char *name,
                        const char *text)
{
    if (!reading->problem[0])
        snprintf(reading->problem, sizeof(reading->problem), "[%.40s] %.40s %.300s", section, name,
                 text);
}

/* inih's handler: 0 marks the line as wrong. */
static int on_key(void *userdata, const char *section, const char *name, const char *value)
{
    struct reading *reading = userdata;
    char text[300];

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const struct key *key = &keys[i];
        const char *wanted;

        if (strcmp(key->section, section) != 0 || strcmp(key->name, name) != 0)
            continue;
        wanted = key->set(value, (char *)reading->config + key->offset, key->min, key->max);
        if (!wanted)
            return 1;
        snprintf(text, sizeof(text), "takes %s, not \"%.80s\"", wanted, value);
        set_problem(reading, section, name, text);
        return 0;
    }
    set_problem(reading, section, name, "is no key of moat.conf; see moat.conf(5)");
    return 0;
}

/* What only the whole shows. Names of our own domain never leave. */
static int config_check(const struct config *config, const char *path, struct error *error)
{
    size_t domain_length = strlen(config->domain);

    for (size_t i = 0; i < config->n_forwards; i++) {
        const char *suffix = config->forwards[i].suffix;
        size_t length = strlen(suffix);

        if (length < domain_length ||
            strcasecmp(suffix + length - domain_length, config->domain) != 0 ||
            (length > domain_length && suffix[length - domain_length - 1] != '.'))
            continue;
        error_set(error, 0,
                  "%s: [dns] forward: \"%s\" is of our own domain %s, which is never forwarded",
                  path, suffix, config->domain);
        return -EINVAL;
    }
    return 0;
}

int config_read(struct config *config, const char *path, bool required, struct error *error)
{
    struct reading reading = {.config = config};
    _cleanup_fclose_ FILE *file = fopen(path, "re");
    int line;

    if (!file) {
        if (errno == ENOENT && !required)
            return 0;
        return error_set(error, errno, "cannot read the configuration %s", path);
    }
    line = ini_parse_file(file, on_key, &reading);
    if (line == 0)
        return config_check(config, path, error);
    if (line < 0)
        return error_set(error, EIO, "cannot read the configuration %s", path);
    error_set(error, 0, "%s:%d: %s", path, line,
              reading.problem[0] ? reading.problem
                                 : "this is neither \"[section]\" nor \"key = value\"");
    return -EINVAL;
}

void config_deinit(struct config *config)
{
    free(config->state_dir);
    free(config->run_dir);
    free(config->socket_group);
    free(config->worker_user);
    free(config->default_subnet);
    free(config->domain);
    free(config->resolv_conf);
    strings_deinit(&config->pools);
    ips_deinit(&config->upstreams);
    for (size_t i = 0; i < config->n_forwards; i++)
        ips_deinit(&config->forwards[i].servers);
    free(config->forwards);
    ips_deinit(&config->ntp);
    *config = (struct config){0};
}

int config_worker_ids(const struct config *config, uid_t *ret_uid, gid_t *ret_gid,
                      struct error *error)
{
    const struct passwd *user = getpwnam(config->worker_user);

    if (!user)
        user = getpwnam("nobody");
    if (!user)
        return error_set(error, 0,
                         "neither the user \"%s\" nor \"nobody\" exists; set [daemon] worker_user",
                         config->worker_user);
    *ret_uid = user->pw_uid;
    *ret_gid = user->pw_gid;
    return 0;
}

const char *config_key_get(size_t index, const char **ret_section)
{
    if (index >= ARRAY_SIZE(keys))
        return NULL;
    *ret_section = keys[index].section;
    return keys[index].name;
}
