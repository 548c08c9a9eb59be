/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the name service answers: names of guests, and static ones. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

/* --- the list --- */

struct records {
    struct record_result *items;
    size_t count;
};

static int add(struct records *records, const char *name, const char *network, const struct ip *ip,
               const char *guest, struct error *error)
{
    struct record_result *items = reallocarray(records->items, records->count + 1, sizeof(*items));
    struct record_result *item;

    if (!items)
        return error_set(error, ENOMEM, "names");
    records->items = items;
    item = &items[records->count++];
    *item = (struct record_result){.ip = *ip};
    snprintf(item->name, sizeof(item->name), "%s", name);
    snprintf(item->network, sizeof(item->network), "%s", network);
    snprintf(item->guest, sizeof(item->guest), "%s", guest);
    return 0;
}

static int add_name(struct records *records, const char *name, const struct endpoint *endpoint,
                    const char *guest, struct error *error)
{
    int r = 0;

    if (ip_is_set(&endpoint->ip))
        r = add(records, name, endpoint->network, &endpoint->ip, guest, error);
    if (r >= 0 && ip_is_set(&endpoint->ip6))
        r = add(records, name, endpoint->network, &endpoint->ip6, guest, error);
    return r;
}

static int add_guest(struct records *records, const struct guest *guest, const char *network,
                     struct error *error)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < guest->n_endpoints; i++) {
        const struct endpoint *endpoint = &guest->endpoints[i];

        if (network[0] && strcmp(endpoint->network, network) != 0)
            continue;
        r = add_name(records, guest->name, endpoint, guest->name, error);
        for (size_t j = 0; r >= 0 && j < endpoint->aliases.count; j++)
            r = add_name(records, endpoint->aliases.items[j], endpoint, guest->name, error);
    }
    return r;
}

static int add_guests(struct service *service, struct records *records, const char *network,
                      struct error *error)
{
    struct guest *guests = NULL;
    size_t count = 0;
    int r = store_guest_list(service->store, &guests, &count, error);

    for (size_t i = 0; i < count; i++) {
        if (r >= 0)
            r = add_guest(records, &guests[i], network, error);
        guest_deinit(&guests[i]);
    }
    free(guests);
    return r;
}

static int add_static(struct service *service, struct records *records, const char *network,
                      struct error *error)
{
    struct dns_record *list = NULL;
    size_t count = 0;
    int r = store_record_list(service->store, &list, &count, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (!network[0] || !list[i].network[0] || strcmp(list[i].network, network) == 0)
            r = add(records, list[i].name, list[i].network, &list[i].ip, "", error);
    }
    free(list);
    return r;
}

static int find_network(struct service *service, const char *name, int64_t *ret_id,
                        struct error *error)
{
    struct network network = {0};
    int r;

    *ret_id = 0;
    if (!name[0])
        return 0;
    r = network_find(service, name, &network, error);
    *ret_id = network.id;
    network_deinit(&network);
    return r;
}

int service_dns_list(struct service *service, const struct dns_params *params,
                     struct record_result **ret_records, size_t *ret_count, struct error *error)
{
    struct records records = {0};
    int64_t network_id;
    int r = find_network(service, params->network, &network_id, error);

    if (r >= 0)
        r = add_guests(service, &records, params->network, error);
    if (r >= 0)
        r = add_static(service, &records, params->network, error);
    if (r < 0) {
        free(records.items);
        return r;
    }
    *ret_records = records.items;
    *ret_count = records.count;
    return 0;
}

/* --- static names --- */

/* Names are kept relative to the domain and in lower case. */
static int normalise(struct service *service, const char *given, char name[254],
                     struct error *error)
{
    const char *domain = service->config->domain;
    size_t length = strlen(given);
    size_t domain_length = strlen(domain);

    if (length > domain_length + 1 && given[length - domain_length - 1] == '.' &&
        strcasecmp(given + length - domain_length, domain) == 0)
        length -= domain_length + 1;
    if (length + 1 + domain_length > 253)
        return error_set_field(error, "name", "name: \"%.80s…\" is too long below %s", given,
                               domain);
    for (size_t i = 0; i < length; i++)
        name[i] = (char)(given[i] >= 'A' && given[i] <= 'Z' ? given[i] + 32 : given[i]);
    name[length] = '\0';
    return 0;
}

static int check_record(struct service *service, const struct dns_record *record,
                        struct error *error)
{
    struct dns_record *list = NULL;
    size_t count = 0;
    int r = store_record_list(service->store, &list, &count, error);

    if (r >= 0 && count >= LIMIT_DNS_RECORDS)
        r = error_set_reason(error, REASON_QUOTA, "there are %zu static names, which is the limit",
                             count);
    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (list[i].network_id == record->network_id && strcmp(list[i].name, record->name) == 0 &&
            ip_equal(&list[i].ip, &record->ip))
            r = error_set_reason(error, REASON_EXISTS, "\"%s\" has that address already",
                                 record->name);
    }
    free(list);
    return r;
}

static int write_record(struct service *service, struct dns_record *record, struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_record_insert(service->store, record, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

/* ids of what was deleted are told to the name service. */
static int delete_records(struct service *service, const struct dns_record *wanted,
                          struct error *error)
{
    struct dns_record *list = NULL;
    size_t count = 0;
    size_t found = 0;
    int r = store_record_list(service->store, &list, &count, error);

    if (r >= 0)
        r = store_begin(service->store, error);
    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (list[i].network_id != wanted->network_id || strcmp(list[i].name, wanted->name) != 0 ||
            (ip_is_set(&wanted->ip) && !ip_equal(&list[i].ip, &wanted->ip)))
            continue;
        found++;
        r = store_record_delete_by_id(service->store, list[i].id, error);
        list[i].network_id = -1; /* marked: to be told */
    }
    if (r >= 0 && !found)
        r = error_set_reason(error, REASON_NOT_FOUND,
                             "there is no static name \"%s\" there; see `moat dns ls`",
                             wanted->name);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (list[i].network_id == -1)
            names_record_remove(service->names, list[i].id);
    }
    free(list);
    return r;
}

int service_dns_add(struct service *service, const struct dns_params *params, struct error *error)
{
    struct dns_record record = {.ip = params->ip};
    struct error undo = ERROR_INIT;
    int r = find_network(service, params->network, &record.network_id, error);

    if (r >= 0)
        r = normalise(service, params->name, record.name, error);
    snprintf(record.network, sizeof(record.network), "%s", params->network);
    if (r >= 0)
        r = check_record(service, &record, error);
    if (r >= 0)
        r = write_record(service, &record, error);
    if (r < 0)
        return r;
    r = names_record_add(service->names, &record, error);
    if (r < 0 && delete_records(service, &record, &undo) < 0)
        log_error("name %s stays in the store: %s", record.name, undo.text);
    return r;
}

int service_dns_remove(struct service *service, const struct dns_params *params,
                       struct error *error)
{
    struct dns_record record = {.ip = params->ip};
    int r = find_network(service, params->network, &record.network_id, error);

    if (r >= 0)
        r = normalise(service, params->name, record.name, error);
    return r < 0 ? r : delete_records(service, &record, error);
}
