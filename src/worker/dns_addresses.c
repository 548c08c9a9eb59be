/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_addresses.h"

#define POINTER 0xc0
#define LABEL_MAX 63
#define RECORD_FIXED 10 /* type, class, TTL, length */
#define CHAIN_MAX 16    /* CNAMEs that are followed */

struct record {
    uint16_t owner; /* offsets in the message */
    uint16_t ttl;
    uint16_t rdata;
    uint16_t rdata_length;
    uint16_t type;
};

struct answer {
    uint8_t *data;
    size_t length;
    struct record records[DNS_GIVE_MAX];
    size_t count;
};

/* A name in the message, which may be compressed: each pointer must lead further back than the one
 * before. False when it is malformed. */
static bool name_expand(const struct answer *answer, size_t offset, struct dns_name *ret_name)
{
    uint8_t wire[DNS_NAME_MAX + 8];
    size_t limit = answer->length;
    size_t written = 0;
    size_t at = offset;

    while (at < limit) {
        uint8_t size = answer->data[at];

        if ((size & POINTER) == POINTER) {
            if (at + 1 >= limit)
                return false;
            limit = at;
            at = dns_read_u16(answer->data + at) & 0x3fffu;
            continue;
        }
        if (size > LABEL_MAX || at + 1 + size > limit || written + 1 + size > DNS_NAME_MAX)
            return false;
        memcpy(wire + written, answer->data + at, size + 1u);
        written += size + 1u;
        at += size + 1u;
        if (size == 0)
            return dns_name_read(wire, written, 0, ret_name) != 0;
    }
    return false;
}

static bool record_read(const struct answer *answer, size_t offset, struct record *ret_record,
                        size_t *ret_end)
{
    size_t fixed = dns_name_skip(answer->data, answer->length, offset);
    size_t length;

    if (fixed == 0 || answer->length - fixed < RECORD_FIXED)
        return false;
    length = dns_read_u16(answer->data + fixed + 8);
    if (answer->length - fixed - RECORD_FIXED < length)
        return false;
    *ret_record = (struct record){
        .owner = (uint16_t)offset,
        .ttl = (uint16_t)(fixed + 4),
        .rdata = (uint16_t)(fixed + RECORD_FIXED),
        .rdata_length = (uint16_t)length,
        .type = dns_read_u16(answer->data + fixed) /* of other classes: none that counts */,
    };
    if (dns_read_u16(answer->data + fixed + 2) != DNS_CLASS_IN)
        ret_record->type = DNS_TYPE_NONE;
    *ret_end = fixed + RECORD_FIXED + length;
    return true;
}

static void records_read(struct answer *answer, size_t offset)
{
    unsigned count = dns_read_u16(answer->data + 6);

    while (count-- > 0 && answer->count < DNS_GIVE_MAX &&
           record_read(answer, offset, &answer->records[answer->count], &offset))
        answer->count++;
}

static bool record_is_of(const struct answer *answer, const struct record *record,
                         const struct dns_name *name)
{
    struct dns_name owner;

    return name_expand(answer, record->owner, &owner) && owner.length == name->length &&
           memcmp(owner.wire, name->wire, name->length) == 0;
}

/* Where the name's CNAME leads; false when it has none. */
static bool chain_next(const struct answer *answer, struct dns_name *name)
{
    for (size_t i = 0; i < answer->count; i++) {
        const struct record *record = &answer->records[i];
        struct dns_name target;

        if (record->type == DNS_TYPE_CNAME && record_is_of(answer, record, name) &&
            name_expand(answer, record->rdata, &target)) {
            *name = target;
            return true;
        }
    }
    return false;
}

static uint32_t ttl_bound(uint8_t *at)
{
    uint32_t ttl_s = dns_read_u32(at);

    if (ttl_s > INT32_MAX) /* RFC 2181 section 8 */
        ttl_s = 0;
    if (ttl_s <= DNS_GIVE_TTL_MAX_S)
        return ttl_s;
    dns_write_u32(at, DNS_GIVE_TTL_MAX_S);
    return DNS_GIVE_TTL_MAX_S;
}

size_t dns_addresses_read(uint8_t *data, size_t length, const struct dns_name *name,
                          struct dns_give_address ret_addresses[DNS_GIVE_MAX])
{
    struct answer answer = {.data = data, .length = length};
    struct dns_name owner = *name;
    size_t count = 0;

    if (length < DNS_HEADER_SIZE || dns_read_u16(data + 4) != 1)
        return 0;
    records_read(&answer, DNS_HEADER_SIZE + name->length + 4u);
    for (int i = 0; i < CHAIN_MAX && chain_next(&answer, &owner); i++)
        continue;
    for (size_t i = 0; i < answer.count; i++) {
        const struct record *record = &answer.records[i];
        bool v6 = record->type == DNS_TYPE_AAAA;

        if ((!v6 && record->type != DNS_TYPE_A) || record->rdata_length != (v6 ? 16 : 4) ||
            !record_is_of(&answer, record, &owner))
            continue;
        ret_addresses[count].ip = ip_from_bytes(v6 ? AF_INET6 : AF_INET, data + record->rdata);
        ret_addresses[count++].ttl_s = ttl_bound(data + record->ttl);
    }
    return count;
}
