/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_alias.h"

#define POINTER 0xc000
#define POINTER_MAX 0x3fff
#define LABEL_MAX 63
#define RECORD_FIXED 10 /* type, class, TTL, rdata length */
#define TTL_OFFSET 4

/* Records that are moved from behind the question of their message to behind our aliases. */
struct move {
    uint8_t *data;
    size_t at;       /* the next byte that is looked at */
    size_t end;      /* of the records, where they stand now */
    size_t question; /* how long the question's name was; it stood at DNS_HEADER_SIZE */
    size_t owner;    /* where that name stands now */
    size_t former;   /* where the records began */
    size_t delta;    /* by how much they were moved up */
};

/* RFC 3597 section 4: the types whose rdata may hold compressed names: that many, behind so many
 * bytes. */
static const struct {
    uint16_t type;
    uint8_t skip;
    uint8_t names;
} with_names[] = {
    {DNS_TYPE_NS, 0, 1},
    {DNS_TYPE_CNAME, 0, 1},
    {DNS_TYPE_SOA, 0, 2},
    {DNS_TYPE_PTR, 0, 1},
    {DNS_TYPE_SRV, 6, 1},
    {3, 0, 1},  /* MD */
    {4, 0, 1},  /* MF */
    {7, 0, 1},  /* MB */
    {8, 0, 1},  /* MG */
    {9, 0, 1},  /* MR */
    {14, 0, 2}, /* MINFO */
    {15, 2, 1}, /* MX */
    {17, 0, 2}, /* RP */
    {18, 2, 1}, /* AFSDB */
    {21, 2, 1}, /* RT */
    {26, 2, 2}, /* PX */
    {39, 0, 1}, /* DNAME */
};

/* Where what stood at this offset of the former message stands now; 0: nowhere. */
static size_t moved_to(const struct move *move, size_t offset)
{
    size_t to = 0;

    if (offset >= move->former)
        to = offset + move->delta;
    else if (offset >= DNS_HEADER_SIZE && offset < DNS_HEADER_SIZE + move->question)
        to = offset - DNS_HEADER_SIZE + move->owner;
    return to <= POINTER_MAX ? to : 0;
}

/* Passes over a name, up to `end`, and turns the pointer at its end. */
static bool move_name(struct move *move, size_t end)
{
    uint8_t *data = move->data;

    while (move->at < end && data[move->at] != 0 && data[move->at] <= LABEL_MAX)
        move->at += data[move->at] + 1u;
    if (move->at >= end)
        return false;
    if (data[move->at] != 0) {
        size_t to;

        if (end - move->at < 2 || (dns_read_u16(data + move->at) & POINTER) != POINTER)
            return false;
        to = moved_to(move, dns_read_u16(data + move->at) & POINTER_MAX);
        if (to == 0)
            return false;
        dns_write_u16(data + move->at, (uint16_t)(POINTER | to));
        move->at++;
    }
    move->at++;
    return true;
}

static bool move_rdata(struct move *move, uint16_t type, size_t end)
{
    for (size_t i = 0; i < sizeof(with_names) / sizeof(with_names[0]); i++) {
        if (with_names[i].type != type)
            continue;
        move->at += with_names[i].skip;
        for (unsigned name = 0; name < with_names[i].names; name++)
            if (!move_name(move, end))
                return false;
    }
    move->at = end;
    return true;
}

static bool move_records(struct move *move)
{
    while (move->at < move->end) {
        uint16_t type;
        size_t length;

        if (!move_name(move, move->end) || move->end - move->at < RECORD_FIXED)
            return false;
        type = dns_read_u16(move->data + move->at);
        length = dns_read_u16(move->data + move->at + 8);
        move->at += RECORD_FIXED;
        if (move->end - move->at < length || !move_rdata(move, type, move->at + length))
            return false;
    }
    return true;
}

/* Adds what upstream said; false when it can't be moved. */
static bool append_stored(const struct dns_alias_place *place, const struct dns_stored *stored,
                          struct dns_reply *reply)
{
    size_t former = DNS_HEADER_SIZE + place->name_length + 4u;
    struct move move = {
        .data = reply->data,
        .at = reply->length,
        .question = place->name_length,
        .owner = place->owner,
        .former = former,
        .delta = reply->length - former,
    };

    if (!dns_reply_append(reply, stored->body, stored->length))
        return true; /* truncated */
    move.end = reply->length;
    if (!move_records(&move))
        return false;
    reply->answers = (uint16_t)(reply->answers + stored->answers);
    reply->authority = stored->authority;
    reply->additional = stored->additional;
    dns_stored_age_ttls(stored, reply->data, move.delta);
    return true;
}

static void reply_begin(struct dns_reply *reply, const struct dns_alias_place *place, uint8_t *data,
                        size_t capacity, const struct dns_terms *terms)
{
    dns_reply_begin(reply, data, capacity, terms);
    reply->length = place->length;
    reply->answers = place->answers;
}

struct dns_alias_place dns_alias_place_of(const struct dns_alias *alias)
{
    return (struct dns_alias_place){.length = alias->length,
                                    .answers = alias->answers,
                                    .owner = alias->owner,
                                    .name_length = alias->name.length};
}

size_t dns_alias_reply_rcode(const struct dns_alias_place *place, uint8_t *data, size_t capacity,
                             const struct dns_terms *terms, enum dns_rcode rcode, enum dns_ede ede)
{
    struct dns_reply reply;

    reply_begin(&reply, place, data, capacity, terms);
    return dns_reply_finish(&reply, terms, DNS_FLAG_AA, rcode, ede);
}

size_t dns_alias_reply(const struct dns_alias_place *place, const struct dns_stored *stored,
                       uint8_t *data, size_t capacity, const struct dns_terms *terms)
{
    uint16_t rcode = stored->rcode;
    struct dns_reply reply;

    reply_begin(&reply, place, data, capacity, terms);
    if (stored->flags & DNS_FLAG_TC)
        reply.truncated = true;
    else if (!append_stored(place, stored, &reply))
        return dns_alias_reply_rcode(place, data, capacity, terms, DNS_RCODE_SERVFAIL,
                                     DNS_EDE_NONE);
    if (rcode > DNS_FLAG_RCODE && !terms->edns)
        rcode = DNS_RCODE_SERVFAIL;
    return dns_reply_finish(&reply, terms, DNS_FLAG_AA, (enum dns_rcode)rcode, stored->ede);
}
