/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domain rules of guests: what the worker is told of them, and the addresses that it is about to
 * give to such a guest. */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "names/permits.h"
#include "names/private.h"

static bool permit_is_of(const void *item, const void *key)
{
    return ((const struct permit_parts *)item)->guest_id == *(const int64_t *)key;
}

static int permit_send(struct names *names, const struct permit_parts *parts, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < parts->count; i++)
        r = names_send(names, DNS_MESSAGE_PERMIT, &parts->items[i].payload->message,
                       parts->items[i].length, NULL, 0, error);
    return r;
}

int names_permits_send(struct names *names, struct error *error)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && names->permits.slots && i <= names->permits.mask; i++)
        if (names->permits.slots[i].item)
            r = permit_send(names, names->permits.slots[i].item, error);
    return r;
}

static void permit_forget(struct names *names, struct permit_parts *parts)
{
    dns_table_remove(&names->permits, names_id_hash(parts->guest_id), parts);
    permit_parts_free(parts);
}

/* The worker's state after a failure is not known: it is told the former rules once more. */
static void permit_send_again(struct names *names, const struct permit_parts *former,
                              int64_t guest_id)
{
    struct error error = ERROR_INIT;

    if (!former)
        names_send_removal(names, DNS_MESSAGE_PERMIT_REMOVE, guest_id);
    else if (permit_send(names, former, &error) < 0)
        log_error("the name worker can't be told of a guest's rules: %s", error.text);
}

int names_permit_set(struct names *names, const struct names_permit *permit, struct error *error)
{
    struct permit_parts *former = dns_table_find(&names->permits, names_id_hash(permit->guest_id),
                                                 permit_is_of, &permit->guest_id);
    struct permit_parts *parts;
    int r = fault_point("names.permit", error);

    if (r < 0)
        return r;
    parts = permit_parts_new(permit);
    if (!parts || dns_table_reserve(&names->permits, 1) < 0) {
        permit_parts_free(parts);
        return error_set(error, ENOMEM, "out of memory");
    }
    if (former && permit_parts_equal(former, parts)) {
        permit_parts_free(parts);
        return 0;
    }
    r = permit_send(names, parts, error);
    if (r < 0) {
        permit_send_again(names, former, permit->guest_id);
        permit_parts_free(parts);
        return r;
    }
    if (former)
        permit_forget(names, former);
    dns_table_add(&names->permits, names_id_hash(parts->guest_id), parts);
    return 0;
}

void names_permit_remove(struct names *names, int64_t guest_id)
{
    struct permit_parts *parts =
        dns_table_find(&names->permits, names_id_hash(guest_id), permit_is_of, &guest_id);

    if (!parts)
        return;
    names_send_removal(names, DNS_MESSAGE_PERMIT_REMOVE, guest_id);
    permit_forget(names, parts);
}

void names_permits_free(struct names *names)
{
    for (uint32_t i = 0; names->permits.slots && i <= names->permits.mask; i++)
        permit_parts_free(names->permits.slots[i].item);
    dns_table_deinit(&names->permits);
}

static bool name_is_printable(const char *name)
{
    const char *at = name;

    while (*at > ' ' && *at < 0x7f)
        at++;
    return at > name && *at == '\0';
}

static bool give_is_well_formed(const struct dns_give_message *message, size_t length)
{
    if (length < sizeof(*message) || message->count == 0 || message->count > DNS_GIVE_MAX ||
        length != sizeof(*message) + message->count * sizeof(message->addresses[0]) ||
        !memchr(message->name, '\0', sizeof(message->name)) || !name_is_printable(message->name))
        return false;
    for (size_t i = 0; i < message->count; i++)
        if (message->addresses[i].ip.family != AF_INET &&
            message->addresses[i].ip.family != AF_INET6)
            return false;
    return true;
}

static enum names_given give_ask(struct names *names, const struct dns_give_message *message)
{
    struct names_address addresses[DNS_GIVE_MAX];
    struct names_give give = {
        .guest_id = message->guest_id,
        .version = message->version,
        .name = message->name,
        .addresses = addresses,
        .count = message->count,
        .wait = message->wait,
    };

    for (size_t i = 0; i < message->count; i++) {
        const struct dns_give_address *address = &message->addresses[i];

        addresses[i].ip = ip_from_bytes(address->ip.family, address->ip.bytes);
        addresses[i].ttl_s = address->ttl_s;
    }
    return names->give ? names->give(names->userdata, &give) : NAMES_GIVEN_FAILED;
}

static void given_answer(struct names *names, uint64_t number, enum names_given given,
                         bool draining)
{
    static const uint8_t words[] = {
        [NAMES_GIVEN_OPEN] = DNS_GIVEN_OPEN,
        [NAMES_GIVEN_REFUSED] = DNS_GIVEN_REFUSED,
        [NAMES_GIVEN_FAILED] = DNS_GIVEN_FAILED,
    };
    struct dns_given_message answer = {.number = number, .given = words[given]};

    if (draining)
        worker_send_draining(names->worker, DNS_MESSAGE_GIVEN, &answer, sizeof(answer));
    else
        names_send_or_log(names, DNS_MESSAGE_GIVEN, &answer.message, sizeof(answer));
}

void names_give_received(struct names *names, const void *payload, size_t length, bool draining)
{
    const struct dns_give_message *message = payload; /* aligned for any type */
    enum names_given given;

    if (!give_is_well_formed(message, length)) {
        log_warning("the name worker said something that can't be understood");
        return;
    }
    given = give_ask(names, message);
    if (message->wait)
        given_answer(names, message->number, given, draining);
}
