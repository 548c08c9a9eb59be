/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Endpoints and static records: kept in the form of their messages, by id. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/record.h"
#include "names/private.h"

uint32_t names_id_hash(int64_t id)
{
    return (uint32_t)(((uint64_t)id * 0x9e3779b97f4a7c15u) >> 32);
}

static bool kept_has_id(const void *item, const void *key)
{
    return ((const struct kept_message *)item)->id == *(const int64_t *)key;
}

static struct kept_message *kept_find(const struct dns_table *table, int64_t id)
{
    return dns_table_find(table, names_id_hash(id), kept_has_id, &id);
}

static void kept_free(struct kept_message *kept)
{
    if (!kept)
        return;
    ips_deinit(&kept->servers);
    free(kept->payload);
    free(kept);
}

DEFINE_CLEANUP(struct kept_message, kept_free)

static struct kept_message *kept_new(int64_t id, uint16_t type, size_t length)
{
    struct kept_message *kept = calloc(1, sizeof(*kept));

    if (!kept)
        return NULL;
    kept->id = id;
    kept->type = type;
    kept->length = length;
    kept->payload = calloc(1, length);
    if (!kept->payload) {
        free(kept);
        return NULL;
    }
    return kept;
}

/* Do they say the same, but for their numbers? */
static bool kept_equal(const struct kept_message *a, const struct kept_message *b)
{
    size_t skipped = sizeof(struct dns_message);

    return a->length == b->length &&
           memcmp((const char *)a->payload + skipped, (const char *)b->payload + skipped,
                  a->length - skipped) == 0;
}

/* Sends it, and keeps it in the place of what had its id; takes it over when it returns 0. On
 * failure the former one stays. */
static int kept_add(struct names *names, struct dns_table *table, struct kept_message *kept,
                    struct error *error)
{
    struct kept_message *former = kept_find(table, kept->id);
    int r;

    if (former && kept_equal(former, kept)) {
        kept_free(kept);
        return 0;
    }
    if (dns_table_reserve(table, 1) < 0)
        return error_set(error, ENOMEM, "out of memory");
    r = names_send(names, kept->type, kept->payload, kept->length, NULL, 0, error);
    if (r < 0)
        return r;
    if (former) {
        dns_table_remove(table, names_id_hash(former->id), former);
        kept_free(former);
    }
    dns_table_add(table, names_id_hash(kept->id), kept);
    return 0;
}

static bool kept_remove(struct dns_table *table, int64_t id)
{
    struct kept_message *kept = kept_find(table, id);

    if (!kept)
        return false;
    dns_table_remove(table, names_id_hash(id), kept);
    kept_free(kept);
    return true;
}

int names_kept_send(struct names *names, const struct dns_table *table, struct error *error)
{
    for (uint32_t i = 0; table->slots && i <= table->mask; i++) {
        struct kept_message *kept = table->slots[i].item;
        int r;

        if (!kept)
            continue;
        r = names_send(names, kept->type, kept->payload, kept->length, NULL, 0, error);
        if (r < 0)
            return r;
    }
    return 0;
}

void names_kept_free(struct dns_table *table)
{
    for (uint32_t i = 0; table->slots && i <= table->mask; i++)
        kept_free(table->slots[i].item);
    dns_table_deinit(table);
}

static size_t endpoint_names(const struct guest *guest, const struct endpoint *endpoint,
                             const char *ret_names[DNS_ENDPOINT_NAMES], size_t *ret_length)
{
    size_t count = 0;

    ret_names[count++] = guest->name;
    for (size_t i = 0; i < endpoint->aliases.count && count < DNS_ENDPOINT_NAMES; i++)
        ret_names[count++] = endpoint->aliases.items[i];
    *ret_length = 0;
    for (size_t i = 0; i < count; i++)
        *ret_length += strlen(ret_names[i]) + 1;
    return count;
}

static struct kept_message *endpoint_message(const struct names *names, const struct guest *guest,
                                             const struct endpoint *endpoint)
{
    const char *texts[DNS_ENDPOINT_NAMES];
    size_t length;
    size_t count = endpoint_names(guest, endpoint, texts, &length);
    struct kept_message *kept =
        kept_new(endpoint->id, DNS_MESSAGE_ENDPOINT, sizeof(struct dns_endpoint_message) + length);
    struct dns_endpoint_message *message;
    char *at;

    if (!kept)
        return NULL;
    if (ips_copy(&guest->dns, &kept->servers) < 0) {
        kept_free(kept);
        return NULL;
    }
    message = (struct dns_endpoint_message *)kept->payload;
    message->id = endpoint->id;
    message->guest_id = guest->id;
    message->network_id = endpoint->network_id;
    message->ip = endpoint->ip;
    message->ip6 = endpoint->ip6;
    message->n_names = (uint16_t)count;
    message->names_length = (uint16_t)length;
    names_servers_fill(names, &kept->servers, &message->upstreams);
    at = message->names;
    for (size_t i = 0; i < count; i++)
        at = (char *)memcpy(at, texts[i], strlen(texts[i]) + 1) + strlen(texts[i]) + 1;
    return kept;
}

int names_endpoint_add(struct names *names, const struct guest *guest,
                       const struct endpoint *endpoint, struct error *error)
{
    _cleanup_(kept_freep) struct kept_message *kept = NULL;
    int r = fault_point("names.endpoint", error);

    if (r < 0)
        return r;
    kept = endpoint_message(names, guest, endpoint);
    if (!kept)
        return error_set(error, ENOMEM, "out of memory");
    r = kept_add(names, &names->endpoints, kept, error);
    if (r < 0)
        return r;
    (void)TAKE_PTR(kept);
    return 0;
}

void names_endpoint_remove(struct names *names, int64_t endpoint_id)
{
    if (kept_remove(&names->endpoints, endpoint_id))
        names_send_removal(names, DNS_MESSAGE_ENDPOINT_REMOVE, endpoint_id);
}

int names_record_add(struct names *names, const struct dns_record *record, struct error *error)
{
    uint8_t rdata[RECORD_RDATA_MAX];
    uint16_t length = record_rdata_build(record->type, record->value, names->config.domain, rdata);
    _cleanup_(kept_freep) struct kept_message *kept = NULL;
    struct dns_record_message *message;
    int r = fault_point("names.record", error);

    if (r < 0)
        return r;
    if (length == 0) /* possible after a change of the domain to a longer one */
        return error_set(error, 0, "\"%.80s\" of %s is too long below %s", record->value,
                         record->name, names->config.domain);
    kept = kept_new(record->id, DNS_MESSAGE_RECORD, sizeof(*message) + length);
    if (!kept)
        return error_set(error, ENOMEM, "out of memory");
    message = (struct dns_record_message *)kept->payload;
    message->id = record->id;
    message->network_id = record->network_id;
    message->type = record->type;
    message->rdata_length = length;
    memcpy(message->name, record->name, strlen(record->name));
    memcpy(message->rdata, rdata, length);
    r = kept_add(names, &names->records, kept, error);
    if (r < 0)
        return r;
    (void)TAKE_PTR(kept);
    return 0;
}

void names_record_remove(struct names *names, int64_t record_id)
{
    if (kept_remove(&names->records, record_id))
        names_send_removal(names, DNS_MESSAGE_RECORD_REMOVE, record_id);
}
