/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_cache.h"

#include <stdlib.h>

#include "worker/dns_table.h"

#define TTL_MAX_S 86400
#define NEGATIVE_TTL_MAX_S 3600
#define ENTRY_MAX 16384 /* bytes; longer answers are not kept */
/* RFC 8767 section 4 and 5: the TTL of stale answers, and how long an entry that was needed once is
 * given out without asking again. */
#define STALE_TTL_S 30
#define STALE_RECHECK_MS 30000

/* In a ring, by age; `clock` of the cache is the oldest. */
struct entry {
    struct entry *next;
    struct entry *prev;
    uint64_t stored_ms;
    uint64_t expires_ms;
    uint64_t stale_until_ms; /* given out until then though it has expired */
    uint32_t hash;
    uint32_t upstreams;
    uint16_t type;
    uint16_t key_flags;
    uint16_t length; /* of the body */
    uint16_t flags;
    uint16_t rcode;
    uint16_t answers;
    uint16_t authority;
    uint16_t additional;
    uint16_t n_ttls;
    bool used; /* asked for since the clock was here */
    uint8_t name_length;
    uint16_t ttls[]; /* n_ttls, then the name, then the body */
};

struct dns_cache {
    struct dns_table table;
    struct entry *clock;
    size_t bytes;
    size_t max_bytes;
    uint64_t stale_ms;
};

struct dns_cache *dns_cache_new(size_t max_bytes)
{
    struct dns_cache *cache = calloc(1, sizeof(*cache));

    if (cache)
        cache->max_bytes = max_bytes;
    return cache;
}

void dns_cache_free(struct dns_cache *cache)
{
    if (!cache)
        return;
    dns_cache_flush(cache);
    dns_table_deinit(&cache->table);
    free(cache);
}

static uint8_t *entry_name(struct entry *entry)
{
    return (uint8_t *)(entry->ttls + entry->n_ttls);
}

static size_t entry_size(const struct entry *entry)
{
    return sizeof(*entry) + entry->n_ttls * sizeof(entry->ttls[0]) + entry->name_length +
           entry->length;
}

static uint32_t key_hash(const struct dns_cache_key *key)
{
    return dns_hash(key->name->wire, key->name->length,
                    (uint64_t)key->upstreams << 32 | (uint32_t)key->type << 16 | key->flags);
}

static bool entry_has_key(const void *item, const void *wanted)
{
    const struct entry *entry = item;
    const struct dns_cache_key *key = wanted;
    const uint8_t *name = (const uint8_t *)(entry->ttls + entry->n_ttls);

    return entry->upstreams == key->upstreams && entry->type == key->type &&
           entry->key_flags == key->flags && entry->name_length == key->name->length &&
           memcmp(name, key->name->wire, entry->name_length) == 0;
}

static void entry_remove(struct dns_cache *cache, struct entry *entry)
{
    if (entry->next == entry) {
        cache->clock = NULL;
    } else {
        if (cache->clock == entry)
            cache->clock = entry->next;
        entry->prev->next = entry->next;
        entry->next->prev = entry->prev;
    }
    dns_table_remove(&cache->table, entry->hash, entry);
    cache->bytes -= entry_size(entry);
    free(entry);
}

/* Before the clock's hand: the last that it comes to. */
static void entry_link(struct dns_cache *cache, struct entry *entry)
{
    if (!cache->clock) {
        entry->next = entry;
        entry->prev = entry;
        cache->clock = entry;
        return;
    }
    entry->next = cache->clock;
    entry->prev = cache->clock->prev;
    entry->prev->next = entry;
    entry->next->prev = entry;
}

/* Does a label begin at this byte of the name? */
static bool name_has_label_at(const uint8_t *wire, size_t offset)
{
    size_t at = 0;

    while (at < offset && wire[at] != 0)
        at += wire[at] + 1u;
    return at == offset;
}

void dns_cache_flush(struct dns_cache *cache)
{
    while (cache->clock)
        entry_remove(cache, cache->clock);
}

void dns_cache_flush_below(struct dns_cache *cache, const struct dns_name *name)
{
    size_t left = cache->table.count;

    for (struct entry *entry = cache->clock; left > 0; left--) {
        struct entry *next = entry->next;
        const uint8_t *suffix = entry_name(entry) + entry->name_length - name->length;

        if (entry->name_length >= name->length && memcmp(suffix, name->wire, name->length) == 0 &&
            name_has_label_at(entry_name(entry), entry->name_length - name->length))
            entry_remove(cache, entry);
        entry = next;
    }
}

static void cache_make_room(struct dns_cache *cache, size_t size, uint64_t now_ms)
{
    while (cache->clock && cache->bytes + size > cache->max_bytes) {
        struct entry *entry = cache->clock;

        if (entry->used && entry->expires_ms > now_ms) {
            entry->used = false;
            cache->clock = entry->next;
        } else {
            entry_remove(cache, entry);
        }
    }
}

static void entry_read(struct entry *entry, uint64_t now_ms, struct dns_stored *ret_stored)
{
    bool stale = entry->expires_ms <= now_ms;
    enum dns_ede ede = DNS_EDE_NONE;

    if (!entry->used)
        entry->used = true;
    if (stale)
        ede = entry->rcode == DNS_RCODE_NXDOMAIN ? DNS_EDE_STALE_NXDOMAIN : DNS_EDE_STALE;
    *ret_stored = (struct dns_stored){
        .body = entry_name(entry) + entry->name_length,
        .length = entry->length,
        .flags = entry->flags,
        .rcode = entry->rcode,
        .answers = entry->answers,
        .authority = entry->authority,
        .additional = entry->additional,
        .n_ttls = entry->n_ttls,
        .ttls = entry->ttls,
        .age_s = (uint32_t)((now_ms - entry->stored_ms) / 1000),
        .stale = stale,
        .ede = ede,
    };
}

/* NULL, and the entry gone, when it has expired and not even stale answers are taken from it. */
static struct entry *entry_find(struct dns_cache *cache, const struct dns_cache_key *key,
                                uint64_t now_ms)
{
    struct entry *entry = dns_table_find(&cache->table, key_hash(key), entry_has_key, key);

    if (entry && entry->expires_ms + cache->stale_ms <= now_ms) {
        entry_remove(cache, entry);
        return NULL;
    }
    return entry;
}

bool dns_cache_find(struct dns_cache *cache, const struct dns_cache_key *key, uint64_t now_ms,
                    struct dns_stored *ret_stored)
{
    struct entry *entry = entry_find(cache, key, now_ms);

    if (!entry || (entry->expires_ms <= now_ms && entry->stale_until_ms <= now_ms))
        return false;
    entry_read(entry, now_ms, ret_stored);
    return true;
}

bool dns_cache_find_stale(struct dns_cache *cache, const struct dns_cache_key *key, uint64_t now_ms,
                          struct dns_stored *ret_stored)
{
    struct entry *entry = cache->stale_ms > 0 ? entry_find(cache, key, now_ms) : NULL;

    if (!entry || entry->expires_ms > now_ms)
        return false;
    entry->stale_until_ms = now_ms + STALE_RECHECK_MS;
    entry_read(entry, now_ms, ret_stored);
    return true;
}

void dns_cache_set_bounds(struct dns_cache *cache, size_t max_bytes, uint32_t stale_s)
{
    cache->max_bytes = max_bytes;
    cache->stale_ms = stale_s * 1000ull;
    cache_make_room(cache, 0, 0);
}

static uint64_t answer_ttl_ms(const struct dns_answer *answer)
{
    bool negative = answer->rcode == DNS_RCODE_NXDOMAIN || answer->answers == 0;
    uint32_t most = negative ? NEGATIVE_TTL_MAX_S : TTL_MAX_S;

    return (answer->ttl_s < most ? answer->ttl_s : most) * 1000ull;
}

static void entry_fill(struct entry *entry, const struct dns_cache_key *key,
                       const struct dns_answer *answer, const uint8_t *data)
{
    entry->hash = key_hash(key);
    entry->upstreams = key->upstreams;
    entry->type = key->type;
    entry->key_flags = key->flags;
    entry->length = (uint16_t)(answer->body_end - answer->question_end);
    entry->flags = answer->flags;
    entry->rcode = answer->rcode;
    entry->answers = answer->answers;
    entry->authority = answer->authority;
    entry->additional = answer->additional;
    entry->n_ttls = answer->n_ttls;
    entry->name_length = key->name->length;
    memcpy(entry->ttls, answer->ttls, answer->n_ttls * sizeof(entry->ttls[0]));
    memcpy(entry_name(entry), key->name->wire, entry->name_length);
    memcpy(entry_name(entry) + entry->name_length, data + answer->question_end, entry->length);
}

void dns_cache_put(struct dns_cache *cache, const struct dns_cache_key *key,
                   const struct dns_answer *answer, const uint8_t *data, uint64_t now_ms)
{
    struct entry *former = dns_table_find(&cache->table, key_hash(key), entry_has_key, key);
    size_t size = sizeof(*former) + answer->n_ttls * sizeof(uint16_t) + key->name->length +
                  (size_t)(answer->body_end - answer->question_end);
    struct entry *entry;

    if (former)
        entry_remove(cache, former);
    if (answer->ttl_s == 0 || size > ENTRY_MAX || size > cache->max_bytes)
        return;
    cache_make_room(cache, size, now_ms);
    entry = calloc(1, size);
    if (!entry)
        return;
    entry_fill(entry, key, answer, data);
    entry->stored_ms = now_ms;
    entry->expires_ms = now_ms + answer_ttl_ms(answer);
    if (dns_table_add(&cache->table, entry->hash, entry) < 0) {
        free(entry);
        return;
    }
    entry_link(cache, entry);
    cache->bytes += size;
}

size_t dns_cache_bytes(const struct dns_cache *cache)
{
    return cache->bytes;
}

size_t dns_cache_count(const struct dns_cache *cache)
{
    return cache->table.count;
}

/* --- replies --- */

void dns_stored_from_answer(struct dns_stored *stored, const struct dns_answer *answer,
                            const uint8_t *data)
{
    *stored = (struct dns_stored){
        .body = data + answer->question_end,
        .length = (uint16_t)(answer->body_end - answer->question_end),
        .flags = answer->flags,
        .rcode = answer->rcode,
        .answers = answer->answers,
        .authority = answer->authority,
        .additional = answer->additional,
    };
}

void dns_stored_age_ttls(const struct dns_stored *stored, uint8_t *data, size_t moved)
{
    for (uint16_t i = 0; i < stored->n_ttls; i++) {
        uint8_t *at = data + stored->ttls[i] + moved;
        uint32_t ttl_s = dns_read_u32(at);

        if (ttl_s > TTL_MAX_S)
            ttl_s = TTL_MAX_S;
        ttl_s = ttl_s > stored->age_s ? ttl_s - stored->age_s : 0;
        dns_write_u32(at, stored->stale ? STALE_TTL_S : ttl_s);
    }
}

size_t dns_stored_reply(const struct dns_stored *stored, uint8_t *data, size_t capacity,
                        const struct dns_terms *terms)
{
    struct dns_reply reply;
    uint16_t flags = 0;
    uint16_t rcode = stored->rcode;

    dns_reply_begin(&reply, data, capacity, terms);
    if (stored->flags & DNS_FLAG_TC) {
        reply.truncated = true;
    } else if (dns_reply_append(&reply, stored->body, stored->length)) {
        reply.answers = stored->answers;
        reply.authority = stored->authority;
        reply.additional = stored->additional;
        dns_stored_age_ttls(stored, data, 0);
    }
    /* AD tells nothing to a client that does not ask for it (RFC 6840 section 5.8). */
    if (terms->dnssec_ok || terms->flags & DNS_FLAG_AD)
        flags = stored->flags & DNS_FLAG_AD;
    if (rcode > DNS_FLAG_RCODE && !terms->edns)
        rcode = DNS_RCODE_SERVFAIL;
    return dns_reply_finish(&reply, terms, flags, (enum dns_rcode)rcode, stored->ede);
}
