/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers of upstream servers, positive and negative (RFC 2308), kept for their TTL within a bound
 * of bytes. An entry is the message as it came, without OPT, and where its TTLs are: a hit is one
 * copy. What was not asked for longest makes room (second chance).
 *
 * Where that is wanted, entries stay for a while after they have expired (RFC 8767): nothing finds
 * them until dns_cache_find_stale, for want of an answer, has given one out; from then on, for 30
 * seconds, dns_cache_find does too, so that not every client waits for what does not come. */
#pragma once

#include "worker/dns_codec.h"

struct dns_cache;

/* What tells two questions apart besides the name. */
struct dns_cache_key {
    uint32_t upstreams; /* id of the set that is asked */
    uint16_t type;
    uint16_t flags; /* DNS_FLAG_CD of the query, and DNS_CACHE_DO */
    const struct dns_name *name;
};
#define DNS_CACHE_DO 1 /* the query wants DNSSEC records */

/* An answer of an upstream server in a form that replies are built from. */
struct dns_stored {
    const uint8_t *body; /* the records, as they lie behind the question */
    uint16_t length;
    uint16_t flags; /* of its header */
    uint16_t rcode;
    uint16_t answers;
    uint16_t authority;
    uint16_t additional;
    uint16_t n_ttls;
    const uint16_t *ttls; /* offsets of the TTLs, from the start of the message */
    uint32_t age_s;       /* to be taken off the TTLs */
    bool stale;           /* expired: TTLs are 30 s, and the reply says so */
    enum dns_ede ede;     /* said in the reply */
};

struct dns_cache *dns_cache_new(size_t max_bytes); /* NULL: no memory */
void dns_cache_free(struct dns_cache *cache);
/* How much it may hold from now on, and how long entries stay that have expired (0: not at all). */
void dns_cache_set_bounds(struct dns_cache *cache, size_t max_bytes, uint32_t stale_s);
void dns_cache_flush(struct dns_cache *cache);
/* Only this name and those below it. */
void dns_cache_flush_below(struct dns_cache *cache, const struct dns_name *name);
/* Valid until the next call. */
bool dns_cache_find(struct dns_cache *cache, const struct dns_cache_key *key, uint64_t now_ms,
                    struct dns_stored *ret_stored);
/* The same for an entry that has expired. */
bool dns_cache_find_stale(struct dns_cache *cache, const struct dns_cache_key *key, uint64_t now_ms,
                          struct dns_stored *ret_stored);
/* Keeps the answer (to the question of this key) for its ttl_s; nothing when that is 0 or there is
 * no memory. data: the message that it was parsed from. */
void dns_cache_put(struct dns_cache *cache, const struct dns_cache_key *key,
                   const struct dns_answer *answer, const uint8_t *data, uint64_t now_ms);
size_t dns_cache_bytes(const struct dns_cache *cache);
size_t dns_cache_count(const struct dns_cache *cache);

void dns_stored_from_answer(struct dns_stored *stored, const struct dns_answer *answer,
                            const uint8_t *data);
/* Takes the age off the TTLs of a copy in data that was moved up by so many bytes. */
void dns_stored_age_ttls(const struct dns_stored *stored, uint8_t *data, size_t moved);
/* Builds the reply to a client over its query in data (header and question are there); returns its
 * length. */
size_t dns_stored_reply(const struct dns_stored *stored, uint8_t *data, size_t capacity,
                        const struct dns_terms *terms);
