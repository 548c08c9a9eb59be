/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/policy_names.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "nat/ruleset.h"

static const char *const opening_words[] = {"open", "closed"}; /* by `closes` */
static const char *const class_names[POLICY_CLASSES] = {"public", "private"};
static const uint8_t families[] = {AF_INET, AF_INET6};

void policy_chain_name(int64_t id, uint64_t version, enum policy_class class,
                       char ret_name[POLICY_NAME_MAX])
{
    if (id == 0)
        snprintf(ret_name, POLICY_NAME_MAX, "%s", chain_def_get(CHAIN_POLICY_WAIT)->name);
    else
        snprintf(ret_name, POLICY_NAME_MAX, "guest%lld_%016llx_%s", (long long)id,
                 (unsigned long long)version, class_names[class]);
}

const char *policy_name_read(const char *name, int64_t *ret_id, uint64_t *ret_version)
{
    unsigned long long version;
    long long id;
    int end = 0;

    if (sscanf(name, "guest%18lld_%16llx_%n", &id, &version, &end) != 2 || end == 0)
        return NULL;
    *ret_id = id;
    *ret_version = version;
    return name + end;
}

bool policy_chain_find(const char *name, int64_t *ret_id, uint64_t *ret_version,
                       enum policy_class *ret_class)
{
    int64_t id;
    uint64_t version;
    const char *rest = policy_name_read(name, &id, &version);

    for (int class = 0; rest && class < POLICY_CLASSES; class ++) {
        if (strcmp(rest, class_names[class]) != 0)
            continue;
        *ret_id = id;
        *ret_version = version;
        *ret_class = (enum policy_class) class;
        return true;
    }
    return false;
}

/* family and service only where they count: AF_UNSPEC, -1. */
static void set_name(int64_t id, uint64_t version, const char *what, uint8_t family, int service,
                     char ret_name[POLICY_NAME_MAX])
{
    char number[16] = "";

    if (service >= 0)
        snprintf(number, sizeof(number), "_%d", service);
    snprintf(ret_name, POLICY_NAME_MAX, "guest%lld_%016llx_%s%s%s", (long long)id,
             (unsigned long long)version, what,
             family == AF_INET    ? "4"
             : family == AF_INET6 ? "6"
                                  : "",
             number);
}

void policy_ranges_name(int64_t id, uint64_t version, enum policy_class class, uint8_t family,
                        char ret_name[POLICY_NAME_MAX])
{
    set_name(id, version, class < POLICY_CLASSES ? class_names[class] : "any", family, -1,
             ret_name);
}

void policy_openings_name(int64_t id, uint64_t version, bool closes, uint8_t family,
                          uint32_t service, char ret_name[POLICY_NAME_MAX])
{
    set_name(id, version, opening_words[closes], family, (int)service, ret_name);
}

bool policy_openings_read(const char *name, struct nat_opening *ret_opening)
{
    struct nat_opening opening = {0};
    const char *rest = policy_name_read(name, &opening.policy_id, &opening.policy_version);
    char wanted[POLICY_NAME_MAX];
    const char *number = rest ? strchr(rest, '_') : NULL;

    if (!number || sscanf(number, "_%3u", &opening.service) != 1)
        return false;
    for (int i = 0; i < 2 * (int)ARRAY_SIZE(families); i++) {
        opening.closes = i / 2;
        opening.ip.family = families[i % 2];
        policy_openings_name(opening.policy_id, opening.policy_version, opening.closes,
                             opening.ip.family, opening.service, wanted);
        if (strcmp(name, wanted) != 0)
            continue;
        *ret_opening = opening;
        return true;
    }
    return false;
}

void policy_service_name(int64_t id, uint64_t version, bool closes, uint32_t service,
                         char ret_name[POLICY_NAME_MAX])
{
    set_name(id, version, opening_words[closes], AF_UNSPEC, (int)service, ret_name);
}

void policy_services_name(int64_t id, uint64_t version, bool closes, char ret_name[POLICY_NAME_MAX])
{
    set_name(id, version, opening_words[closes], AF_UNSPEC, -1, ret_name);
}
