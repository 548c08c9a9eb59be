/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A *give* is one question to moatd, with the reply that waits for it:
 *
 *   waiting ── there is room in the window, and moatd takes it ──> asked ── answered ──> gone
 *      ^                                                             │
 *      └────────────────── another moatd listens ────────────────────┘
 *
 * All of them stand in one list in the order in which they came; it ends as SERVFAIL when moatd has
 * not answered for TIMEOUT_MS.
 *
 * What moatd has opened for a name is remembered with its time, so that an answer from the cache,
 * whose addresses stay open as long as its TTLs say, need not wait. */
#include "worker/dns_give.h"

#include <stdlib.h>
#include <sys/random.h>

#include "worker/dns_service.h"

#define WINDOW 64       /* questions that moatd has at a time */
#define HELD_MAX 1024   /* replies of one guest */
#define GIVEN_MAX 16384 /* remembered for one guest */
#define TIMEOUT_MS 4000
#define RETRY_MS 100      /* moatd does not take questions now */
#define TOLERANCE_MS 1000 /* TTLs are whole seconds */
#define SALT_GIVEN 18
#define SALT_GIVEN_NAME 19

/* An address that moatd has opened for a name; names are told apart by 64 bits of a seeded hash. */
struct given {
    struct ip ip;
    uint64_t name;
    uint64_t until_ms;
};

struct dns_give {
    struct dns_gives *gives;
    struct dns_give *next;
    struct dns_give *prev;
    struct dns_client *client;
    uint64_t number;
    uint64_t name; /* hash */
    uint64_t made_ms;
    bool asked;
    enum dns_rcode rcode; /* of the answer, once there is one */
    bool answered;
    size_t message_length;
    struct dns_give_message *message;
    size_t reply_length;
    uint8_t reply[];
};

struct dns_gives {
    struct dns_gives_config config;
    struct dns_give *first;
    struct dns_give *last;
    uint32_t n_asked;
    uint64_t last_number;
    struct loop_timer *timer;
    struct loop_timer *release_timer;
    bool has_answered; /* some wait for release_timer */
    /* of dns_give_needed */
    const struct dns_name *name;
    size_t n_addresses;
    struct dns_give_address addresses[DNS_GIVE_MAX];
};

static void timer_expired(void *userdata);
static void release_answered(void *userdata);

struct dns_gives *dns_gives_new(const struct dns_gives_config *config)
{
    struct dns_gives *gives = calloc(1, sizeof(*gives));

    if (!gives)
        return NULL;
    gives->config = *config;
    gives->timer = loop_timer_new(config->loop, timer_expired, gives);
    gives->release_timer = loop_timer_new(config->loop, release_answered, gives);
    /* So that a moatd never takes the numbers of two workers for each other. */
    if (!gives->timer || !gives->release_timer ||
        getrandom(&gives->last_number, sizeof(gives->last_number), 0) < 0) {
        dns_gives_free(gives);
        return NULL;
    }
    return gives;
}

/* --- the list --- */

static void give_link(struct dns_give *give)
{
    struct dns_gives *gives = give->gives;

    give->prev = gives->last;
    if (gives->last)
        gives->last->next = give;
    else
        gives->first = give;
    gives->last = give;
}

/* Out of the list; the client is another's matter from here on. */
static void give_unlink(struct dns_give *give)
{
    struct dns_gives *gives = give->gives;
    struct dns_permit *permit = dns_permits_find(gives->config.permits, give->message->guest_id);

    if (give->prev)
        give->prev->next = give->next;
    else
        gives->first = give->next;
    if (give->next)
        give->next->prev = give->prev;
    else
        gives->last = give->prev;
    if (give->asked)
        gives->n_asked--;
    if (permit && permit->n_held > 0)
        permit->n_held--;
    if (give->client)
        give->client->give = NULL;
}

static void give_free(struct dns_give *give)
{
    give_unlink(give);
    free(give->message);
    free(give);
}

void dns_gives_free(struct dns_gives *gives)
{
    if (!gives)
        return;
    while (gives->first) {
        struct dns_client *client = gives->first->client;

        give_free(gives->first);
        gives->config.drop(client);
    }
    loop_timer_free(gives->timer);
    loop_timer_free(gives->release_timer);
    free(gives);
}

void dns_give_cancel(struct dns_give *give)
{
    give_free(give);
}

void dns_gives_drop_guest(struct dns_gives *gives, int64_t guest_id)
{
    for (struct dns_give *give = gives->first, *next; give; give = next) {
        struct dns_client *client = give->client;

        next = give->next;
        if (give->message->guest_id != guest_id)
            continue;
        give_free(give);
        gives->config.drop(client);
    }
}

bool dns_gives_is_busy(const struct dns_gives *gives)
{
    return gives->first != NULL;
}

/* --- what is open --- */

static uint64_t name_hash(const struct dns_name *name)
{
    return (uint64_t)dns_hash(name->wire, name->length, SALT_GIVEN_NAME) << 32 |
           dns_hash(name->wire, name->length, SALT_GIVEN);
}

static uint32_t given_hash(const struct given *given)
{
    return dns_hash(given->ip.bytes, sizeof(given->ip.bytes), given->name);
}

static bool given_equal(const void *item, const void *key)
{
    const struct given *given = item;
    const struct given *wanted = key;

    return given->name == wanted->name && ip_equal(&given->ip, &wanted->ip);
}

static uint64_t open_until_ms(const struct dns_permit *permit,
                              const struct dns_give_address *address, uint64_t now_ms)
{
    return now_ms + (uint64_t)address->ttl_s * 1000 + permit->grace_ms;
}

/* Are all addresses open for as long as they may be used? */
static bool given_all(const struct dns_gives *gives, const struct dns_permit *permit,
                      uint64_t now_ms)
{
    for (size_t i = 0; i < gives->n_addresses; i++) {
        struct given wanted = {.ip = gives->addresses[i].ip, .name = name_hash(gives->name)};
        const struct given *given =
            dns_table_find(&permit->given, given_hash(&wanted), given_equal, &wanted);

        if (!given ||
            given->until_ms + TOLERANCE_MS < open_until_ms(permit, &gives->addresses[i], now_ms))
            return false;
    }
    return true;
}

static void given_forget(struct dns_permit *permit)
{
    for (uint32_t i = 0; permit->given.slots && i <= permit->given.mask; i++)
        free(permit->given.slots[i].item);
    dns_table_deinit(&permit->given);
}

/* What does not fit, or finds no memory, is asked again. */
static void given_note(struct dns_permit *permit, const struct given *given)
{
    uint32_t hash = given_hash(given);
    struct given *former = dns_table_find(&permit->given, hash, given_equal, given);
    struct given *item;

    if (former) {
        if (former->until_ms < given->until_ms)
            former->until_ms = given->until_ms;
        return;
    }
    if (permit->given.count == GIVEN_MAX)
        given_forget(permit);
    item = malloc(sizeof(*item));
    if (!item)
        return;
    *item = *given;
    if (dns_table_add(&permit->given, hash, item) < 0)
        free(item);
}

static void given_note_all(struct dns_permit *permit, const struct dns_give_message *message,
                           uint64_t name, uint64_t now_ms)
{
    for (size_t i = 0; i < message->count; i++) {
        struct given given = {
            .ip = message->addresses[i].ip,
            .name = name,
            .until_ms = open_until_ms(permit, &message->addresses[i], now_ms),
        };

        given_note(permit, &given);
    }
}

/* moatd counts from when it was asked. */
static void give_note(const struct dns_give *give)
{
    const struct dns_give_message *message = give->message;
    struct dns_permit *permit = dns_permits_find(give->gives->config.permits, message->guest_id);

    if (permit && permit->version == message->version)
        given_note_all(permit, message, give->name, give->made_ms);
}

/* --- asking --- */

static int give_send(const struct dns_gives *gives, const struct dns_give_message *message,
                     size_t length)
{
    return gives->config.send(gives->config.userdata, DNS_MESSAGE_GIVE, message, length);
}

/* Asks as much as the window has room for. */
static void gives_ask(struct dns_gives *gives)
{
    for (struct dns_give *give = gives->first; give && gives->n_asked < WINDOW; give = give->next) {
        if (give->asked || give->answered)
            continue;
        if (give_send(gives, give->message, give->message_length) < 0)
            return;
        give->asked = true;
        gives->n_asked++;
    }
}

static void timer_arm(struct dns_gives *gives)
{
    if (gives->first && !loop_timer_is_active(gives->timer))
        loop_timer_start(gives->timer, RETRY_MS);
}

void dns_gives_ask_again(struct dns_gives *gives)
{
    for (struct dns_give *give = gives->first; give; give = give->next)
        give->asked = false;
    gives->n_asked = 0;
    gives_ask(gives);
}

/* The question for what dns_give_needed has found; *ret_length: its length. */
static struct dns_give_message *
message_new(struct dns_gives *gives, const struct dns_permit *permit, bool wait, size_t *ret_length)
{
    size_t size = gives->n_addresses * sizeof(gives->addresses[0]);
    struct dns_give_message *message = calloc(1, sizeof(*message) + size);
    char name[DNS_TEXT_MAX];

    if (!message)
        return NULL;
    dns_name_format(gives->name->wire, name);
    memcpy(message->name, name, strnlen(name, sizeof(message->name) - 1));
    message->number = ++gives->last_number;
    message->guest_id = permit->guest_id;
    message->version = permit->version;
    message->wait = wait;
    message->count = (uint16_t)gives->n_addresses;
    memcpy(message->addresses, gives->addresses, size);
    *ret_length = sizeof(*message) + size;
    return message;
}

/* Nobody waits for it: what moatd does not take now is told with the next answer. */
static void give_report(struct dns_gives *gives, struct dns_permit *permit)
{
    size_t length;
    struct dns_give_message *message = message_new(gives, permit, false, &length);

    if (message && give_send(gives, message, length) == 0)
        given_note_all(permit, message, name_hash(gives->name), loop_now_ms(gives->config.loop));
    free(message);
}

bool dns_give_needed(struct dns_gives *gives, struct dns_permit *permit,
                     const struct dns_name *name, uint8_t *data, size_t length)
{
    bool wait = dns_permit_check(permit, name) & DNS_PERMIT_GIVE;

    if (!wait && !permit->report)
        return false;
    gives->name = name;
    gives->n_addresses = dns_addresses_read(data, length, name, gives->addresses);
    if (gives->n_addresses == 0 || given_all(gives, permit, loop_now_ms(gives->config.loop)))
        return false;
    if (!wait)
        give_report(gives, permit);
    return wait;
}

bool dns_give_hold(struct dns_gives *gives, struct dns_permit *permit, struct dns_client *client,
                   const uint8_t *data, size_t length)
{
    struct dns_give *give;

    if (permit->n_held >= HELD_MAX)
        return false;
    give = calloc(1, sizeof(*give) + length);
    if (!give)
        return false;
    give->message = message_new(gives, permit, true, &give->message_length);
    if (!give->message) {
        free(give);
        return false;
    }
    give->gives = gives;
    give->client = client;
    give->number = give->message->number;
    give->name = name_hash(gives->name);
    give->made_ms = loop_now_ms(gives->config.loop);
    give->reply_length = length;
    memcpy(give->reply, data, length);
    permit->n_held++;
    client->give = give;
    give_link(give);
    gives_ask(gives);
    timer_arm(gives);
    return true;
}

/* --- answers --- */

/* The client's reply goes out, and both are gone. */
static void give_release(struct dns_give *give, enum dns_rcode rcode)
{
    struct dns_client *client = give->client;

    give_unlink(give);
    give->gives->config.release(client, give->reply, give->reply_length, rcode);
    free(give->message);
    free(give);
}

static enum dns_rcode rcode_of(uint8_t given)
{
    if (given == DNS_GIVEN_OPEN)
        return DNS_RCODE_NOERROR;
    return given == DNS_GIVEN_REFUSED ? DNS_RCODE_REFUSED : DNS_RCODE_SERVFAIL;
}

void dns_gives_answered(struct dns_gives *gives, const struct dns_given_message *message,
                        bool later)
{
    struct dns_give *give = gives->first;

    while (give && (give->number != message->number || give->answered))
        give = give->next;
    if (!give)
        return; /* cancelled, or too late */
    if (give->asked) {
        give->asked = false;
        gives->n_asked--;
    }
    give->answered = true;
    give->rcode = rcode_of(message->given);
    if (message->given == DNS_GIVEN_OPEN)
        give_note(give);
    gives_ask(gives);
    if (later)
        loop_timer_start(gives->release_timer, 0);
    else
        give_release(give, give->rcode);
}

/* Sending a reply may end other clients, and so take other gives out of the list. */
static void release_answered(void *userdata)
{
    struct dns_gives *gives = userdata;
    struct dns_give *give = gives->first;

    while (give) {
        if (!give->answered) {
            give = give->next;
            continue;
        }
        give_release(give, give->rcode);
        give = gives->first;
    }
}

static void timer_expired(void *userdata)
{
    struct dns_gives *gives = userdata;
    uint64_t now_ms = loop_now_ms(gives->config.loop);

    while (gives->first && gives->first->made_ms + TIMEOUT_MS <= now_ms)
        give_release(gives->first, DNS_RCODE_SERVFAIL);
    gives_ask(gives);
    timer_arm(gives);
}
