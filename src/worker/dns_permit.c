/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A policy may need several messages. They fill a permit that nobody uses yet; with the last one it
 * takes the place of the guest's former one. */
#include "worker/dns_permit.h"

#include <errno.h>
#include <stdlib.h>

#define SALT_PERMIT 16
#define SALT_NAME 17

/* What rules say of one name: of itself, and of those below. */
struct permit_name {
    uint8_t self; /* DNS_RULE_ALLOW, … */
    uint8_t below;
    uint8_t length;
    uint8_t wire[];
};

struct dns_permits {
    struct dns_table guests; /* of struct dns_permit */
    struct dns_permit *next; /* being filled; not in the table */
};

struct wire {
    const uint8_t *bytes;
    size_t length;
};

static uint32_t guest_hash(int64_t guest_id)
{
    return dns_hash(&guest_id, sizeof(guest_id), SALT_PERMIT);
}

static bool permit_is_of(const void *item, const void *key)
{
    return ((const struct dns_permit *)item)->guest_id == *(const int64_t *)key;
}

static bool name_has_wire(const void *item, const void *key)
{
    const struct permit_name *name = item;
    const struct wire *wire = key;

    return name->length == wire->length && memcmp(name->wire, wire->bytes, wire->length) == 0;
}

static void table_free(struct dns_table *table)
{
    for (uint32_t i = 0; table->slots && i <= table->mask; i++)
        free(table->slots[i].item);
    dns_table_deinit(table);
}

static void permit_free(struct dns_permit *permit)
{
    if (!permit)
        return;
    table_free(&permit->names);
    table_free(&permit->given);
    free(permit);
}

struct dns_permits *dns_permits_new(void)
{
    return calloc(1, sizeof(struct dns_permits));
}

void dns_permits_free(struct dns_permits *permits)
{
    if (!permits)
        return;
    for (uint32_t i = 0; permits->guests.slots && i <= permits->guests.mask; i++)
        permit_free(permits->guests.slots[i].item);
    dns_table_deinit(&permits->guests);
    permit_free(permits->next);
    free(permits);
}

struct dns_permit *dns_permits_find(const struct dns_permits *permits, int64_t guest_id)
{
    if (permits->guests.count == 0)
        return NULL;
    return dns_table_find(&permits->guests, guest_hash(guest_id), permit_is_of, &guest_id);
}

void dns_permits_remove(struct dns_permits *permits, int64_t guest_id)
{
    struct dns_permit *permit = dns_permits_find(permits, guest_id);

    if (!permit)
        return;
    dns_table_remove(&permits->guests, guest_hash(guest_id), permit);
    permit_free(permit);
}

/* --- filling --- */

static struct permit_name *name_get(struct dns_permit *permit, const struct dns_name *name)
{
    struct wire wire = {name->wire, name->length};
    uint32_t hash = dns_hash(name->wire, name->length, SALT_NAME);
    struct permit_name *item = dns_table_find(&permit->names, hash, name_has_wire, &wire);

    if (item)
        return item;
    item = calloc(1, sizeof(*item) + name->length);
    if (!item)
        return NULL;
    item->length = name->length;
    memcpy(item->wire, name->wire, name->length);
    if (dns_table_add(&permit->names, hash, item) < 0) {
        free(item);
        return NULL;
    }
    return item;
}

static int rule_add(struct dns_permit *permit, uint8_t bits, const char *text)
{
    const uint8_t what = bits & (DNS_RULE_ALLOW | DNS_RULE_DENY | DNS_RULE_CLOSE);
    struct permit_name *item;
    struct dns_name name;

    if (dns_name_parse(text, &name) < 0)
        return -EPROTO;
    item = name_get(permit, &name);
    if (!item)
        return -ENOMEM;
    if (bits & DNS_RULE_SELF)
        item->self |= what;
    if (bits & DNS_RULE_BELOW)
        item->below |= what;
    return 0;
}

static int rules_add(struct dns_permit *permit, const struct dns_permit_message *message)
{
    const char *at = message->rules;
    const char *end = at + message->rules_length;
    int result = 0;

    for (unsigned i = 0; result == 0 && i < message->n_rules; i++) {
        const char *nul = at < end ? memchr(at, '\0', (size_t)(end - at)) : NULL;

        if (!nul || nul == at)
            return -EPROTO;
        result = rule_add(permit, (uint8_t)at[0], at + 1);
        at = nul + 1;
    }
    return result;
}

static int permit_begin(struct dns_permits *permits, const struct dns_permit_message *message)
{
    permit_free(permits->next);
    permits->next = calloc(1, sizeof(*permits->next));
    if (!permits->next)
        return -ENOMEM;
    permits->next->guest_id = message->guest_id;
    permits->next->version = message->version;
    permits->next->grace_ms = message->grace_ms;
    permits->next->listed = message->flags & DNS_PERMIT_LISTED;
    permits->next->report = message->flags & DNS_PERMIT_REPORT;
    return 0;
}

/* The former one's place in the table is taken, so this needs no memory but for a new guest. */
static int permit_install(struct dns_permits *permits)
{
    struct dns_permit *permit = permits->next;
    struct dns_permit *former = dns_permits_find(permits, permit->guest_id);

    if (dns_table_reserve(&permits->guests, 1) < 0)
        return -ENOMEM;
    permits->next = NULL;
    if (former) {
        permit->n_held = former->n_held;
        dns_permits_remove(permits, permit->guest_id);
    }
    dns_table_add(&permits->guests, guest_hash(permit->guest_id), permit);
    return 0;
}

/* Nothing may be asked. Where there is no memory even for that, the process ends: a fresh one is
 * told everything again. */
static void permit_close(struct dns_permits *permits, int64_t guest_id)
{
    struct dns_permit *permit = dns_permits_find(permits, guest_id);

    permit_free(permits->next);
    permits->next = NULL;
    if (!permit) {
        permit = calloc(1, sizeof(*permit));
        if (!permit || dns_table_add(&permits->guests, guest_hash(guest_id), permit) < 0)
            abort();
        permit->guest_id = guest_id;
    }
    table_free(&permit->names);
    permit->listed = true;
}

int dns_permits_set(struct dns_permits *permits, const struct dns_permit_message *message,
                    size_t length)
{
    int result = 0;

    if (length - sizeof(*message) != message->rules_length)
        return -EPROTO;
    if (message->flags & DNS_PERMIT_FIRST)
        result = permit_begin(permits, message);
    else if (!permits->next || permits->next->guest_id != message->guest_id)
        result = -EPROTO;
    if (result == 0)
        result = rules_add(permits->next, message);
    if (result == 0 && message->flags & DNS_PERMIT_LAST)
        result = permit_install(permits);
    if (result < 0)
        permit_close(permits, message->guest_id);
    return result;
}

/* --- asking --- */

static unsigned name_bits(const struct dns_permit *permit, const struct dns_name *name)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < name->labels; i++) {
        struct wire wire = {name->wire + name->offsets[i],
                            (size_t)(name->length - name->offsets[i])};
        const struct permit_name *item = dns_table_find(
            &permit->names, dns_hash(wire.bytes, wire.length, SALT_NAME), name_has_wire, &wire);

        if (item)
            bits |= i == 0 ? item->self : item->below;
    }
    return bits;
}

unsigned dns_permit_check(const struct dns_permit *permit, const struct dns_name *name)
{
    unsigned bits = permit->names.count > 0 ? name_bits(permit, name) : 0;
    unsigned answer = 0;

    if (bits & DNS_RULE_DENY)
        return DNS_PERMIT_NEVER;
    if (bits & DNS_RULE_ALLOW || !permit->listed)
        answer |= DNS_PERMIT_OUTSIDE;
    if (bits & (DNS_RULE_ALLOW | DNS_RULE_CLOSE))
        answer |= DNS_PERMIT_GIVE;
    return answer;
}
