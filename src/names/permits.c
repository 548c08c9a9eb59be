/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "names/permits.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "worker/message.h"

#define RULES_ROOM (WORKER_MESSAGE_MAX - sizeof(struct dns_permit_message))

DEFINE_CLEANUP(struct permit_parts, permit_parts_free)

void permit_parts_free(struct permit_parts *parts)
{
    if (!parts)
        return;
    for (size_t i = 0; i < parts->count; i++)
        free(parts->items[i].payload);
    free(parts->items);
    free(parts);
}

/* An empty part at the end; NULL: no memory. */
static struct dns_permit_message *part_add(struct permit_parts *parts,
                                           const struct names_permit *permit)
{
    struct permit_part *items = reallocarray(parts->items, parts->count + 1, sizeof(*parts->items));
    struct dns_permit_message *message;

    if (!items)
        return NULL;
    parts->items = items;
    message = calloc(1, sizeof(*message) + RULES_ROOM);
    if (!message)
        return NULL;
    message->guest_id = permit->guest_id;
    message->version = permit->version;
    message->grace_ms = permit->grace_ms;
    message->flags = parts->count == 0 ? DNS_PERMIT_FIRST : 0;
    items[parts->count++] = (struct permit_part){.payload = message};
    return message;
}

/* What the rule is to the name service; 0: nothing. */
static uint8_t rule_bits(const struct policy_rule *rule, bool deny)
{
    uint8_t names = 0;

    if (rule->destination == RULE_NAME || rule->destination == RULE_BOTH)
        names |= DNS_RULE_SELF;
    if (rule->destination == RULE_BELOW || rule->destination == RULE_BOTH)
        names |= DNS_RULE_BELOW;
    if (!names)
        return 0;
    if (!deny)
        return names | DNS_RULE_ALLOW;
    return names | (rule->port || rule->protocol ? DNS_RULE_CLOSE : DNS_RULE_DENY);
}

static bool rule_add(struct permit_parts *parts, const struct names_permit *permit,
                     const struct policy_rule *rule, uint8_t bits)
{
    struct dns_permit_message *message = parts->items[parts->count - 1].payload;
    size_t length = strlen(rule->name) + 1;

    if (message->rules_length + 1 + length > RULES_ROOM)
        message = part_add(parts, permit);
    if (!message)
        return false;
    message->rules[message->rules_length] = (char)bits;
    memcpy(message->rules + message->rules_length + 1, rule->name, length);
    message->rules_length += (uint32_t)(1 + length);
    message->n_rules++;
    return true;
}

static bool rules_add(struct permit_parts *parts, const struct names_permit *permit,
                      const struct policy_rules *rules, bool deny)
{
    for (size_t i = 0; i < rules->count; i++) {
        uint8_t bits = rule_bits(&rules->items[i], deny);

        if (bits && !rule_add(parts, permit, &rules->items[i], bits))
            return false;
    }
    return true;
}

static bool has_allowed_domain(const struct policy_rules *allow)
{
    for (size_t i = 0; i < allow->count; i++)
        if (policy_rule_is_domain(&allow->items[i]))
            return true;
    return false;
}

static void part_finish(struct permit_part *part, uint8_t flags)
{
    part->payload->flags |= flags;
    part->length = sizeof(*part->payload) + part->payload->rules_length;
}

struct permit_parts *permit_parts_new(const struct names_permit *permit)
{
    _cleanup_(permit_parts_freep) struct permit_parts *parts = calloc(1, sizeof(*parts));
    uint8_t flags = 0;

    if (!parts)
        return NULL;
    parts->guest_id = permit->guest_id;
    if (!part_add(parts, permit) || !rules_add(parts, permit, permit->allow, false) ||
        !rules_add(parts, permit, permit->deny, true))
        return NULL;
    if (has_allowed_domain(permit->allow))
        flags |= DNS_PERMIT_LISTED;
    if (permit->report)
        flags |= DNS_PERMIT_REPORT;
    for (size_t i = 0; i < parts->count; i++) {
        struct permit_part *part = &parts->items[i];

        part_finish(part, i + 1 == parts->count ? flags | DNS_PERMIT_LAST : flags);
        /* What was room is given back; shrinking does not fail in a way that matters. */
        struct dns_permit_message *shrunk = realloc(part->payload, part->length);
        if (shrunk)
            part->payload = shrunk;
    }
    return TAKE_PTR(parts);
}

bool permit_parts_equal(const struct permit_parts *a, const struct permit_parts *b)
{
    const size_t skipped = sizeof(struct dns_message);

    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->items[i].length != b->items[i].length ||
            memcmp((const char *)a->items[i].payload + skipped,
                   (const char *)b->items[i].payload + skipped, a->items[i].length - skipped) != 0)
            return false;
    return true;
}
