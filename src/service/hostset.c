/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Settings of the host that moat needs, with a memory. Before the first change the former values
 * are written to the store, one setting a sysctl ("sysctl/KEY"); they are given back with the last
 * network that needs them. Writing net.ipv4.ip_forward also rewrites every device's forwarding and
 * accept_redirects (inet_forward_change in the kernel), so those are recorded as well; for IPv6
 * accept_ra is. What each became is written too ("sysctl-set/KEY"): what somebody has changed since
 * is his, and stays. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

#define PREFIX "sysctl/"
#define SET_PREFIX "sysctl-set/"
#define KEY_MAX 96

struct family {
    uint8_t family;
    const char
        *main_key; /* written last when giving back would undo the others, first when setting */
    const char *directory;
    const char *conf;           /* what each device's keys begin with */
    const char *device_keys[3]; /* NULL-terminated */
};

static const struct family families[] = {
    {AF_INET,
     "net.ipv4.ip_forward",
     "/proc/sys/net/ipv4/conf",
     "net.ipv4.conf",
     {"forwarding", "accept_redirects", NULL}},
    {AF_INET6,
     "net.ipv6.conf.all.forwarding",
     "/proc/sys/net/ipv6/conf",
     "net.ipv6.conf",
     {"forwarding", "accept_ra", NULL}},
};

static const struct family *family_of(uint8_t family)
{
    return &families[family == AF_INET6];
}

static int record(struct service *service, const char *key, struct error *error)
{
    char setting[KEY_MAX + sizeof(PREFIX)];
    char value[SYSCTL_VALUE_MAX];
    int r = sysctl_get(key, value, error);

    if (r < 0)
        return r;
    snprintf(setting, sizeof(setting), PREFIX "%s", key);
    return store_setting_set(service->store, setting, value, error);
}

/* Device names may hold dots: sysctl keys use '/' for them. */
static void device_key(const struct family *family, const char *device, const char *name,
                       char key[KEY_MAX])
{
    char escaped[IFNAMSIZ];

    snprintf(escaped, sizeof(escaped), "%s", device);
    for (char *p = escaped; *p; p++) {
        if (*p == '.')
            *p = '/';
    }
    snprintf(key, KEY_MAX, "%s.%s.%s", family->conf, escaped, name);
}

static int record_devices(struct service *service, const struct family *family, struct error *error)
{
    DIR *directory = opendir(family->directory);
    struct dirent *entry;
    int r = 0;

    if (!directory)
        return error_set_reason(error, REASON_NOT_SUPPORTED, "this host has no %s: %s",
                                family->family == AF_INET6 ? "IPv6" : "IPv4", family->directory);
    while (r >= 0 && (entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        for (size_t i = 0; r >= 0 && family->device_keys[i]; i++) {
            char key[KEY_MAX];
            struct error gone = ERROR_INIT;

            device_key(family, entry->d_name, family->device_keys[i], key);
            r = record(service, key, &gone);
            if (r == -ENOENT)
                r = 0; /* the device went meanwhile */
            else if (r < 0)
                *error = gone;
        }
    }
    closedir(directory);
    return r;
}

static int is_recorded(struct service *service, const struct family *family, bool *ret_recorded,
                       struct error *error)
{
    _cleanup_free_ char *former = NULL;
    char setting[KEY_MAX];
    int r;

    snprintf(setting, sizeof(setting), PREFIX "%s", family->main_key);
    r = store_setting_get(service->store, setting, &former, error);
    if (r >= 0)
        *ret_recorded = former != NULL;
    return r;
}

/* A router takes no advertisements where accept_ra is 1, and drops the routes that it has from
 * them: the host would lose its own way out. With 2 it goes on as before; `default` stands for
 * uplinks that come later. */
static void accept_ra_keep(void *userdata, const char *setting, const char *value)
{
    static const char name[] = ".accept_ra";
    const char *key = setting + strlen(PREFIX);
    size_t length = strlen(key);
    struct error error = ERROR_INIT;
    char now[SYSCTL_VALUE_MAX];

    (void)userdata;
    if (length < sizeof(name) || strcmp(key + length - sizeof(name) + 1, name) != 0 ||
        strcmp(value, "1") != 0 || sysctl_get(key, now, &error) < 0 || strcmp(now, "1") != 0)
        return;
    if (sysctl_set(key, "2", &error) < 0)
        log_warning("%s", error.text);
}

/* Writes down what a recorded setting has become. */
static void record_set(void *userdata, const char *setting, const char *value)
{
    struct service *service = userdata;
    const char *key = setting + strlen(PREFIX);
    char set[KEY_MAX + sizeof(SET_PREFIX)];
    char now[SYSCTL_VALUE_MAX];
    struct error error = ERROR_INIT;

    (void)value;
    snprintf(set, sizeof(set), SET_PREFIX "%s", key);
    if (sysctl_get(key, now, &error) >= 0 &&
        store_setting_set(service->store, set, now, &error) < 0)
        log_warning("%s", error.text);
}

static int set_forwarding(struct service *service, const struct family *family, bool first,
                          struct error *error)
{
    char main_setting[KEY_MAX];
    char prefix[KEY_MAX];
    int r = sysctl_set(family->main_key, "1", error);

    if (r < 0 || !first)
        return r;
    snprintf(main_setting, sizeof(main_setting), PREFIX "%s", family->main_key);
    snprintf(prefix, sizeof(prefix), PREFIX "%s.", family->conf);
    r = store_begin(service->store, error);
    if (r < 0)
        return r;
    record_set(service, main_setting, "");
    r = store_setting_each(service->store, prefix, record_set, service, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

int hostset_forwarding_ensure(struct service *service, uint8_t address_family, struct error *error)
{
    const struct family *family = family_of(address_family);
    char value[SYSCTL_VALUE_MAX];
    bool recorded = false;
    int r = sysctl_get(family->main_key, value, error);

    if (r < 0)
        return r;
    if (strcmp(value, "1") == 0)
        return 0; /* nothing to change: nothing to give back */
    r = is_recorded(service, family, &recorded, error);
    if (r < 0)
        return r;
    if (!recorded) {
        r = store_begin(service->store, error);
        if (r >= 0)
            r = record_devices(service, family, error);
        if (r >= 0)
            r = record(service, family->main_key, error);
        if (r >= 0)
            r = store_commit(service->store, error);
        if (r < 0) {
            store_rollback(service->store);
            return r;
        }
    }
    if (address_family == AF_INET6)
        r = store_setting_each(service->store, PREFIX "net.ipv6.conf.", accept_ra_keep, NULL,
                               error);
    return r < 0 ? r : set_forwarding(service, family, !recorded, error);
}

/* Settings and what they are to be. */
struct giving {
    struct service *service;
    struct strings keys;
    struct strings values;
};

static void giving_deinit(struct giving *giving)
{
    strings_deinit(&giving->keys);
    strings_deinit(&giving->values);
}

/* The former value where ours still stands, else what somebody has made of it. */
static void giving_add(void *userdata, const char *setting, const char *value)
{
    struct giving *giving = userdata;
    const char *key = setting + strlen(PREFIX);
    _cleanup_free_ char *set_by_us = NULL;
    char set[KEY_MAX + sizeof(SET_PREFIX)];
    char now[SYSCTL_VALUE_MAX];
    struct error error = ERROR_INIT;
    bool ours;

    snprintf(set, sizeof(set), SET_PREFIX "%s", key);
    if (sysctl_get(key, now, &error) < 0)
        return; /* a device that is gone */
    if (store_setting_get(giving->service->store, set, &set_by_us, &error) < 0)
        log_warning("%s", error.text);
    ours = !set_by_us || strcmp(set_by_us, now) == 0;
    if (strings_add(&giving->keys, key) < 0 || strings_add(&giving->values, ours ? value : now) < 0)
        log_warning("%s is not given back: out of memory", key);
}

static void giving_write(const struct giving *giving)
{
    for (size_t i = 0; i < giving->values.count; i++) {
        struct error error = ERROR_INIT;
        char now[SYSCTL_VALUE_MAX];

        if (sysctl_get(giving->keys.items[i], now, &error) < 0 ||
            strcmp(now, giving->values.items[i]) == 0)
            continue;
        if (sysctl_set(giving->keys.items[i], giving->values.items[i], &error) < 0)
            log_warning("%s", error.text);
    }
}

static void forget(void *userdata, const char *setting, const char *value)
{
    (void)value;
    (void)strings_add(userdata, setting);
}

static int release(struct service *service, const struct family *family, struct error *error)
{
    _cleanup_(strings_deinit) struct strings settings = {0};
    struct giving giving = {.service = service};
    char main_setting[KEY_MAX];
    char prefix[KEY_MAX];
    char set_prefix[KEY_MAX];
    _cleanup_free_ char *main_value = NULL;
    int r;

    snprintf(main_setting, sizeof(main_setting), PREFIX "%s", family->main_key);
    snprintf(prefix, sizeof(prefix), PREFIX "%s.", family->conf);
    r = store_setting_get(service->store, main_setting, &main_value, error);
    if (r < 0 || !main_value)
        return r;
    giving_add(&giving, main_setting, main_value); /* first: it rewrites all devices */
    r = store_setting_each(service->store, prefix, giving_add, &giving, error);
    if (r >= 0)
        giving_write(&giving);
    giving_deinit(&giving);
    snprintf(set_prefix, sizeof(set_prefix), SET_PREFIX "%s.", family->conf);
    if (r >= 0)
        r = store_setting_each(service->store, prefix, forget, &settings, error);
    if (r >= 0)
        r = store_setting_each(service->store, set_prefix, forget, &settings, error);
    if (r >= 0)
        r = store_begin(service->store, error);
    for (size_t i = 0; r >= 0 && i < settings.count; i++)
        r = store_setting_set(service->store, settings.items[i], NULL, error);
    if (r >= 0)
        r = store_setting_set(service->store, main_setting, NULL, error);
    snprintf(main_setting, sizeof(main_setting), SET_PREFIX "%s", family->main_key);
    if (r >= 0)
        r = store_setting_set(service->store, main_setting, NULL, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

void hostset_forwarding_release(struct service *service, uint8_t address_family)
{
    struct error error = ERROR_INIT;
    bool forwards = false;
    int r = store_network_forwards(service->store, address_family, &forwards, &error);

    if (r >= 0 && !forwards)
        r = release(service, family_of(address_family), &error);
    if (r < 0)
        log_warning("giving the host's settings back: %s", error.text);
}
