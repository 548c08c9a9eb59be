/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Static records: all values of one `dns add` are there, or none. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/record.h"
#include "service/private.h"

/* What one request is about: one name, on one network or on every one, and its values. */
struct records {
    struct dns_record *items;
    size_t count;
};

static void records_deinit(struct records *records)
{
    dns_records_free(records->items, records->count);
}

/* --- the request --- */

/* Names are kept relative to the domain and in lower case. */
static int normalise(const struct service *service, const char *given, char name[254],
                     struct error *error)
{
    const char *domain = service->config->domain;
    size_t length = strlen(given);
    size_t domain_length = strlen(domain);

    if (strcasecmp(given, domain) == 0)
        return error_set_field(
            error, "name", "name: %s is the domain itself; records are for names below it", domain);
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

int record_name_check_free(const char *name, const char *field, struct error *error)
{
    if (strcasecmp(name, "host") == 0)
        return error_set_field(error, field,
                               "%s: \"host\" is answered with the network's gateway; take another "
                               "name",
                               field);
    if (strcasecmp(name, "localhost") == 0)
        return error_set_field(
            error, field, "%s: \"localhost\" is always the asker itself; take another name", field);
    return 0;
}

static int find_network(struct service *service, const struct dns_params *params,
                        struct dns_record *record, struct error *error)
{
    struct network network = {0};
    int r = 0;

    if (params->network[0])
        r = network_find(service, params->network, &network, error);
    record->network_id = network.id;
    snprintf(record->network, sizeof(record->network), "%s", params->network);
    network_deinit(&network);
    return r;
}

static uint16_t type_of(const struct dns_params *params, const char *value)
{
    if (params->type != RECORD_NONE)
        return params->type;
    return strchr(value, ':') ? RECORD_AAAA : RECORD_A;
}

/* One more record: as `common`, with this value. */
static int records_add(const struct service *service, struct records *records,
                       const struct dns_record *common, uint16_t type, const char *value,
                       const char *field, struct error *error)
{
    struct dns_record *items = list_grow(records->items, records->count, sizeof(*items));
    struct dns_record *item;
    int r;

    if (!items)
        return error_set(error, ENOMEM, "record");
    records->items = items;
    item = &items[records->count];
    *item = *common;
    item->type = type;
    r = record_value_parse(type, value, service->config->domain, field, &item->value, error);
    if (r < 0)
        return r;
    records->count++;
    return 0;
}

static int records_fill(const struct service *service, const struct dns_params *params,
                        const struct dns_record *common, struct records *records,
                        struct error *error)
{
    int r = 0;

    if (ip_is_set(&params->ip) && (params->values.count > 0 || params->type != RECORD_NONE))
        return error_set_field(error, "ip", "ip: stands alone, without type and values");
    if (ip_is_set(&params->ip)) {
        char text[IP_TEXT_MAX];

        ip_format(&params->ip, text);
        return records_add(service, records, common, type_of(params, text), text, "ip", error);
    }
    for (size_t i = 0; r >= 0 && i < params->values.count; i++) {
        const char *value = params->values.items[i];
        char field[32];

        snprintf(field, sizeof(field), "values[%zu]", i);
        r = records_add(service, records, common, type_of(params, value), value, field, error);
    }
    return r;
}

/* --- adding --- */

static bool overlap(const struct dns_record *a, const struct dns_record *b)
{
    return a->network_id == b->network_id || a->network_id == 0 || b->network_id == 0;
}

/* RFC 1034 section 3.6.2: a name that is an alias has no other data. */
static int check_alias(const struct dns_record *record, const struct dns_record *other,
                       struct error *error)
{
    if (!overlap(record, other) || (record->type != RECORD_CNAME && other->type != RECORD_CNAME))
        return 0;
    if (record->type == other->type && strcmp(record->value, other->value) == 0)
        return 0; /* the store says that it is there already */
    return error_set_reason(error, REASON_EXISTS,
                            "\"%s\" has a record of type %s (%.200s); a name with a CNAME can have "
                            "no other",
                            record->name, record_type_name(other->type), other->value);
}

static int check_aliases(struct service *service, const struct records *records,
                         struct error *error)
{
    struct dns_record *there = NULL;
    size_t count = 0;
    int r =
        store_record_list_by_name(service->store, records->items[0].name, &there, &count, error);

    for (size_t i = 0; r >= 0 && i < records->count; i++) {
        for (size_t j = 0; r >= 0 && j < count; j++)
            r = check_alias(&records->items[i], &there[j], error);
        for (size_t j = 0; r >= 0 && j < i; j++)
            r = check_alias(&records->items[i], &records->items[j], error);
        if (r >= 0 && records->items[i].type == RECORD_CNAME &&
            strcmp(records->items[i].name, records->items[i].value) == 0)
            r = error_set_field(error, "values[0]", "values[0]: \"%s\" would be its own alias",
                                records->items[i].name);
    }
    dns_records_free(there, count);
    return r;
}

static int check_quota(struct service *service, size_t more, struct error *error)
{
    uint64_t count;
    int r = store_record_count(service->store, &count, error);

    if (r >= 0 && count + more > LIMIT_DNS_RECORDS)
        return error_set_reason(error, REASON_QUOTA,
                                "there are %llu static records; the limit is %d",
                                (unsigned long long)count, LIMIT_DNS_RECORDS);
    return r;
}

static int records_write(struct service *service, struct records *records, struct error *error)
{
    int r = store_begin(service->store, error);

    for (size_t i = 0; r >= 0 && i < records->count; i++)
        r = store_record_insert(service->store, &records->items[i], error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int records_delete(struct service *service, const struct records *records,
                          struct error *error)
{
    int r = store_begin(service->store, error);

    for (size_t i = 0; r >= 0 && i < records->count; i++)
        r = store_record_delete_by_id(service->store, records->items[i].id, error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

/* All are told to the name service; on failure those that were are taken back, in the store too. */
static int records_publish(struct service *service, const struct records *records,
                           struct error *error)
{
    struct error undo = ERROR_INIT;
    size_t done = 0;
    int r = 0;

    for (; r >= 0 && done < records->count; done++)
        r = names_record_add(service->names, &records->items[done], error);
    if (r >= 0)
        return 0;
    while (done > 0)
        names_record_remove(service->names, records->items[--done].id);
    if (records_delete(service, records, &undo) < 0)
        log_error("records of %s stay in the store: %s", records->items[0].name, undo.text);
    return r;
}

/* One event for each, "printer A 192.0.2.9". network "": on all. */
static void records_tell(struct service *service, const char *type, const char *network,
                         const struct records *records)
{
    for (size_t i = 0; i < records->count; i++) {
        const struct dns_record *record = &records->items[i];
        char text[RECORD_TEXT_MAX];

        event_emit(service, type, network[0] ? network : NULL, NULL, "%s %s %s", record->name,
                   record_type_name(record->type),
                   record_value_format(record->type, record->value, service->config->domain, text));
    }
}

int service_dns_add(struct service *service, const struct dns_params *params, struct error *error)
{
    _cleanup_(records_deinit) struct records records = {0};
    struct dns_record common = {0};
    int r = find_network(service, params, &common, error);

    if (r >= 0)
        r = normalise(service, params->name, common.name, error);
    if (r >= 0)
        r = record_name_check_free(common.name, "name", error);
    if (r >= 0)
        r = records_fill(service, params, &common, &records, error);
    if (r >= 0 && records.count == 0)
        r = error_set_field(error, "values", "values: is missing");
    if (r >= 0)
        r = check_quota(service, records.count, error);
    if (r >= 0)
        r = check_aliases(service, &records, error);
    if (r >= 0)
        r = records_write(service, &records, error);
    if (r >= 0)
        r = records_publish(service, &records, error);
    if (r >= 0)
        records_tell(service, "dns.added", params->network, &records);
    return r;
}

/* --- removing --- */

/* Is the record one of those that the request names? wanted: with values; empty: any value. */
static bool is_meant(const struct dns_record *record, const struct dns_params *params,
                     const struct dns_record *common, const struct records *wanted)
{
    if (record->network_id != common->network_id)
        return false;
    if (wanted->count == 0)
        return params->type == RECORD_NONE || record->type == params->type;
    for (size_t i = 0; i < wanted->count; i++)
        if (record->type == wanted->items[i].type &&
            strcmp(record->value, wanted->items[i].value) == 0)
            return true;
    return false;
}

/* Takes out of `there` what is not meant. */
static void records_keep_meant(struct records *there, const struct dns_params *params,
                               const struct dns_record *common, const struct records *wanted)
{
    size_t kept = 0;

    for (size_t i = 0; i < there->count; i++) {
        if (is_meant(&there->items[i], params, common, wanted))
            there->items[kept++] = there->items[i];
        else
            dns_record_deinit(&there->items[i]);
    }
    there->count = kept;
}

int service_dns_remove(struct service *service, const struct dns_params *params,
                       struct error *error)
{
    _cleanup_(records_deinit) struct records wanted = {0};
    _cleanup_(records_deinit) struct records there = {0};
    struct dns_record common = {0};
    int r = find_network(service, params, &common, error);

    if (r >= 0)
        r = normalise(service, params->name, common.name, error);
    if (r >= 0)
        r = records_fill(service, params, &common, &wanted, error);
    if (r >= 0)
        r = store_record_list_by_name(service->store, common.name, &there.items, &there.count,
                                      error);
    if (r < 0)
        return r;
    records_keep_meant(&there, params, &common, &wanted);
    if (there.count == 0)
        return error_set_reason(error, REASON_NOT_FOUND,
                                "there is no such static record of \"%s\" there; see `moat dns ls`",
                                common.name);
    r = records_delete(service, &there, error);
    for (size_t i = 0; r >= 0 && i < there.count; i++)
        names_record_remove(service->names, there.items[i].id);
    if (r >= 0)
        records_tell(service, "dns.removed", params->network, &there);
    return r;
}
