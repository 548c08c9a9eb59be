/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the name service answers: names of guests, and static records (record.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/record.h"
#include "base/yield.h"
#include "service/private.h"

struct records {
    struct record_result *items;
    size_t count;
};

/* Room for one more, zeroed, with name and network; NULL: no memory. */
static struct record_result *add(struct records *records, const char *name, const char *network)
{
    struct record_result *items = list_grow(records->items, records->count, sizeof(*items));
    struct record_result *item;

    if (!items)
        return NULL;
    records->items = items;
    item = &items[records->count++];
    *item = (struct record_result){0};
    snprintf(item->name, sizeof(item->name), "%s", name);
    snprintf(item->network, sizeof(item->network), "%s", network);
    return item;
}

static int add_address(struct records *records, const char *name, const struct endpoint *endpoint,
                       const struct ip *ip, const char *guest, struct error *error)
{
    struct record_result *item;
    char text[IP_TEXT_MAX];

    if (!ip_is_set(ip))
        return 0;
    item = add(records, name, endpoint->network);
    if (!item)
        return error_set(error, ENOMEM, "names");
    item->type = ip->family == AF_INET6 ? RECORD_AAAA : RECORD_A;
    item->ip = *ip;
    snprintf(item->guest, sizeof(item->guest), "%s", guest);
    item->value = strdup(ip_format(ip, text));
    return item->value ? 0 : error_set(error, ENOMEM, "names");
}

static int add_name(struct records *records, const char *name, const struct endpoint *endpoint,
                    const char *guest, struct error *error)
{
    int r = add_address(records, name, endpoint, &endpoint->ip, guest, error);

    return r < 0 ? r : add_address(records, name, endpoint, &endpoint->ip6, guest, error);
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
        yield_if_due();
    }
    free(guests);
    return r;
}

static int add_record(struct records *records, const struct dns_record *record, const char *domain,
                      struct error *error)
{
    struct record_result *item = add(records, record->name, record->network);
    char text[RECORD_TEXT_MAX];

    if (!item)
        return error_set(error, ENOMEM, "names");
    item->type = record->type;
    item->value = strdup(record_value_format(record->type, record->value, domain, text));
    if (!item->value)
        return error_set(error, ENOMEM, "names");
    if (record->type == RECORD_A || record->type == RECORD_AAAA)
        (void)ip_parse(record->value, &item->ip); /* it was written by ip_format */
    return 0;
}

static int add_records(struct service *service, struct records *records, const char *network,
                       struct error *error)
{
    struct dns_record *list = NULL;
    size_t count = 0;
    int r = store_record_list(service->store, &list, &count, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (!network[0] || !list[i].network[0] || strcmp(list[i].network, network) == 0)
            r = add_record(records, &list[i], service->config->domain, error);
    }
    dns_records_free(list, count);
    return r;
}

static int check_network(struct service *service, const char *name, struct error *error)
{
    struct network network = {0};
    int r = name[0] ? network_find(service, name, &network, error) : 0;

    network_deinit(&network);
    return r;
}

int service_dns_list(struct service *service, const struct dns_params *params,
                     struct record_result **ret_records, size_t *ret_count, struct error *error)
{
    struct records records = {0};
    int r = check_network(service, params->network, error);

    if (r >= 0)
        r = add_guests(service, &records, params->network, error);
    if (r >= 0)
        r = add_records(service, &records, params->network, error);
    if (r < 0) {
        for (size_t i = 0; i < records.count; i++)
            free(records.items[i].value);
        free(records.items);
        return r;
    }
    *ret_records = records.items;
    *ret_count = records.count;
    return 0;
}

int service_dns_flush(struct service *service, const struct dns_flush_params *params,
                      struct error *error)
{
    return names_flush(service->names, params->name, error);
}

int service_dns_log(struct service *service, const struct dns_log_params *params,
                    struct dns_log_result *ret_result, struct error *error)
{
    return names_log_read(service->names, params->since, ret_result, error);
}
