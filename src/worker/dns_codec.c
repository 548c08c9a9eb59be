/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_codec.h"

#include <errno.h>
#include <sys/random.h>

#define POINTER 0xc0
#define LABEL_MAX 63
#define RECORD_FIXED 10 /* type, class, TTL, rdata length */

/* --- names --- */

/* Lower-cases A–Z in whole words; label lengths (0–63) are below 'A', so they pass unchanged. Reads
 * and writes up to seven bytes beyond length. */
static void bytes_lower(uint8_t *to, const uint8_t *from, size_t length)
{
    const uint64_t ones = 0x0101010101010101u;

    for (size_t i = 0; i < length; i += 8) {
        uint64_t word;

        memcpy(&word, from + i, sizeof(word));
        uint64_t low = word & (0x7f * ones);
        uint64_t from_a = low + (0x80 - 'A') * ones;  /* bit 7: at least 'A' */
        uint64_t after_z = low + (0x7f - 'Z') * ones; /* bit 7: above 'Z' */
        uint64_t upper = from_a & ~after_z & ~word & (0x80 * ones);
        word |= upper >> 2; /* 0x20 */
        memcpy(to + i, &word, sizeof(word));
    }
}

size_t dns_name_read(const uint8_t *data, size_t length, size_t offset, struct dns_name *ret_name)
{
    size_t at = offset;
    unsigned labels = 0;

    for (;;) {
        if (at >= length || at - offset >= DNS_NAME_MAX)
            return 0;
        ret_name->offsets[labels] = (uint8_t)(at - offset);
        if (data[at] == 0)
            break;
        if (data[at] > LABEL_MAX)
            return 0;
        at += data[at] + 1u;
        labels++; /* at most 127: each takes two bytes of 254 */
    }
    at++;
    ret_name->length = (uint8_t)(at - offset);
    ret_name->labels = (uint8_t)labels;
    if (offset + ((at - offset + 7) & ~(size_t)7) <= length) {
        bytes_lower(ret_name->wire, data + offset, at - offset);
    } else {
        memcpy(ret_name->wire, data + offset, at - offset);
        memset(ret_name->wire + (at - offset), 0, 8);
        bytes_lower(ret_name->wire, ret_name->wire, at - offset);
    }
    return at;
}

size_t dns_name_skip(const uint8_t *data, size_t length, size_t offset)
{
    size_t at = offset;

    for (;;) {
        if (at >= length || at - offset >= DNS_NAME_MAX)
            return 0;
        if (data[at] == 0)
            return at + 1;
        if ((data[at] & POINTER) == POINTER) {
            if (at + 1 >= length || (size_t)(dns_read_u16(data + at) & 0x3fff) >= at)
                return 0;
            return at + 2;
        }
        if (data[at] > LABEL_MAX)
            return 0;
        at += data[at] + 1u;
    }
}

int dns_name_parse(const char *text, struct dns_name *ret_name)
{
    uint8_t wire[DNS_NAME_MAX + 8];
    size_t at = 0;

    if (text[0] == '.' && text[1] == '\0')
        text++;
    while (*text) {
        size_t label = strcspn(text, ".");

        if (label == 0 || label > LABEL_MAX || at + label + 2 > DNS_NAME_MAX)
            return -EINVAL;
        wire[at] = (uint8_t)label;
        memcpy(wire + at + 1, text, label);
        at += label + 1;
        text += label;
        text += *text == '.';
    }
    wire[at] = 0;
    return dns_name_read(wire, at + 1, 0, ret_name) ? 0 : -EINVAL;
}

static size_t byte_format(uint8_t byte, char *text)
{
    if (byte > ' ' && byte < 0x7f && byte != '.' && byte != '\\') {
        text[0] = (char)byte;
        return 1;
    }
    text[0] = '\\';
    text[1] = (char)('0' + byte / 100);
    text[2] = (char)('0' + byte / 10 % 10);
    text[3] = (char)('0' + byte % 10);
    return 4;
}

const char *dns_name_format(const uint8_t *wire, char text[DNS_TEXT_MAX])
{
    size_t length = 0;

    for (const uint8_t *label = wire; *label; label += *label + 1) {
        if (length > 0)
            text[length++] = '.';
        for (unsigned i = 1; i <= *label; i++)
            length += byte_format(label[i], text + length);
    }
    if (length == 0)
        text[length++] = '.';
    text[length] = '\0';
    return text;
}

bool dns_name_is_below(const struct dns_name *name, const struct dns_name *suffix)
{
    if (name->labels < suffix->labels)
        return false;
    unsigned offset = name->offsets[name->labels - suffix->labels];
    return name->length - offset == suffix->length &&
           memcmp(name->wire + offset, suffix->wire, suffix->length) == 0;
}

/* A label of one to three digits, 0–255, without leading zeros. */
static bool reverse_octet(const uint8_t *label, uint8_t *ret_octet)
{
    unsigned value = 0;

    if (label[0] > 3 || (label[0] > 1 && label[1] == '0'))
        return false;
    for (unsigned i = 1; i <= label[0]; i++) {
        if (label[i] < '0' || label[i] > '9')
            return false;
        value = value * 10 + (label[i] - '0');
    }
    *ret_octet = (uint8_t)value;
    return value <= UINT8_MAX;
}

static bool reverse_nibble(const uint8_t *label, uint8_t *ret_nibble)
{
    uint8_t c = label[1];

    if (label[0] != 1)
        return false;
    if (c >= '0' && c <= '9')
        *ret_nibble = (uint8_t)(c - '0');
    else if (c >= 'a' && c <= 'f')
        *ret_nibble = (uint8_t)(c - 'a' + 10);
    else
        return false;
    return true;
}

/* Reads one label of a reverse name into the address at position i. */
typedef bool (*reverse_label_fn)(struct ip *ip, unsigned i, const uint8_t *label);

static bool reverse_label_v4(struct ip *ip, unsigned i, const uint8_t *label)
{
    return reverse_octet(label, &ip->bytes[i]);
}

static bool reverse_label_v6(struct ip *ip, unsigned i, const uint8_t *label)
{
    uint8_t nibble;

    if (!reverse_nibble(label, &nibble))
        return false;
    ip->bytes[i / 2] |= (uint8_t)(i % 2 ? nibble : nibble << 4);
    return true;
}

static enum dns_reverse reverse_read(const struct dns_name *name, reverse_label_fn read,
                                     unsigned bits_each, struct ip *ip, unsigned *ret_bits)
{
    unsigned count = name->labels - 2u;
    unsigned most = ip_bits(ip->family) / bits_each;
    unsigned good = 0;

    while (good < count && good < most &&
           read(ip, good, name->wire + name->offsets[count - 1 - good]))
        good++;
    *ret_bits = good * bits_each;
    if (good < count) {
        if (good < most && ip->family == AF_INET)
            ip->bytes[good] = 0;
        return DNS_REVERSE_BAD;
    }
    return good == most ? DNS_REVERSE_ADDRESS : DNS_REVERSE_PART;
}

enum dns_reverse dns_reverse_parse(const struct dns_name *name, struct ip *ret_ip,
                                   unsigned *ret_bits)
{
    static const uint8_t v4[] = "\7in-addr\4arpa"; /* with the root's byte, which ends the string */
    static const uint8_t v6[] = "\3ip6\4arpa";
    unsigned offset;

    if (name->labels < 2)
        return DNS_REVERSE_NO;
    offset = name->offsets[name->labels - 2];
    if (name->length - offset == sizeof(v4) && memcmp(name->wire + offset, v4, sizeof(v4)) == 0) {
        *ret_ip = (struct ip){.family = AF_INET};
        return reverse_read(name, reverse_label_v4, 8, ret_ip, ret_bits);
    }
    if (name->length - offset == sizeof(v6) && memcmp(name->wire + offset, v6, sizeof(v6)) == 0) {
        *ret_ip = (struct ip){.family = AF_INET6};
        return reverse_read(name, reverse_label_v6, 4, ret_ip, ret_bits);
    }
    return DNS_REVERSE_NO;
}

/* --- hash --- */

static uint64_t hash_seeds[2] = {0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu};

void dns_hash_seed(void)
{
    uint64_t seeds[2];

    if (getrandom(seeds, sizeof(seeds), 0) != sizeof(seeds))
        return; /* can't happen for so few bytes once the pool is ready */
    hash_seeds[0] = seeds[0] | 1;
    hash_seeds[1] = seeds[1];
}

static uint64_t hash_fold(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Sixteen bytes a step, each folded by a 64×64→128 bit multiplication with secret seeds. */
uint32_t dns_hash(const void *data, size_t length, uint64_t salt)
{
    const uint8_t *at = data;
    uint64_t state = hash_seeds[1] ^ salt;
    uint64_t tail[2] = {0};

    for (size_t left = length; left > 16; left -= 16, at += 16) {
        uint64_t words[2];

        memcpy(words, at, sizeof(words));
        state = hash_fold(state ^ words[0] ^ hash_seeds[0], words[1] ^ hash_seeds[1]);
    }
    size_t rest = length == 0 ? 0 : (length - 1) % 16 + 1;
    if (rest >= 8) {
        memcpy(&tail[0], at, 8);
        memcpy(&tail[1], at + rest - 8, 8);
    } else if (rest >= 4) {
        memcpy(&tail[0], at, 4);
        memcpy(&tail[1], at + rest - 4, 4);
    } else if (rest > 0) {
        tail[0] = at[0];
        tail[1] = (uint64_t)at[rest / 2] << 8 | at[rest - 1];
    }
    state = hash_fold(state ^ tail[0] ^ hash_seeds[0], tail[1] ^ hash_seeds[1] ^ length);
    return (uint32_t)hash_fold(state ^ hash_seeds[0], hash_seeds[1] | 1);
}

/* --- records --- */

/* A record as it lies in a message. */
struct record {
    size_t fixed; /* offset of type, class, TTL, rdata length */
    uint16_t type;
    uint16_t class;
    uint32_t ttl;
    size_t rdata;
    size_t end;
};

static bool record_read(const uint8_t *data, size_t length, size_t offset,
                        struct record *ret_record)
{
    size_t fixed = dns_name_skip(data, length, offset);

    if (fixed == 0 || length - fixed < RECORD_FIXED)
        return false;
    size_t rdata_length = dns_read_u16(data + fixed + 8);
    if (length - fixed - RECORD_FIXED < rdata_length)
        return false;
    *ret_record = (struct record){
        .fixed = fixed,
        .type = dns_read_u16(data + fixed),
        .class = dns_read_u16(data + fixed + 2),
        .ttl = dns_read_u32(data + fixed + 4),
        .rdata = fixed + RECORD_FIXED,
        .end = fixed + RECORD_FIXED + rdata_length,
    };
    return true;
}

/* --- queries --- */

/* OPT (RFC 6891 section 6.1): the class is the size that is taken by UDP, the TTL holds upper
 * rcode, version and flags. Options are passed over unread, but they must fill the rdata exactly.
 */
static bool query_opt(const uint8_t *data, const struct record *record, bool owner_is_root,
                      struct dns_terms *terms)
{
    size_t at = record->rdata;

    if (terms->edns || !owner_is_root)
        return false;
    while (at < record->end) {
        if (record->end - at < 4 || record->end - at - 4 < dns_read_u16(data + at + 2))
            return false;
        at += 4u + dns_read_u16(data + at + 2);
    }
    terms->edns = true;
    terms->edns_version = (uint8_t)(record->ttl >> 16);
    terms->dnssec_ok = record->ttl & 0x8000;
    if (record->class > DNS_UDP_MIN)
        terms->udp_size = record->class < DNS_UDP_MAX ? record->class : DNS_UDP_MAX;
    return true;
}

/* Nothing but the additional section may hold records in a query that we answer. */
static bool query_records(const uint8_t *data, size_t length, struct dns_terms *terms)
{
    size_t at = terms->question_end;

    if (dns_read_u16(data + 6) || dns_read_u16(data + 8))
        return false;
    for (unsigned i = dns_read_u16(data + 10); i > 0; i--) {
        struct record record;

        if (!record_read(data, length, at, &record))
            return false;
        if (record.type == DNS_TYPE_OPT && !query_opt(data, &record, data[at] == 0, terms))
            return false;
        at = record.end;
    }
    return true;
}

enum dns_parse dns_query_parse(const uint8_t *data, size_t length, struct dns_query *ret_query)
{
    size_t at;

    if (length < DNS_HEADER_SIZE || length > DNS_MESSAGE_MAX || data[2] & 0x80)
        return DNS_PARSE_DROP;
    ret_query->terms.id = dns_read_u16(data);
    ret_query->terms.flags = dns_read_u16(data + 2);
    if (ret_query->terms.flags & DNS_FLAG_OPCODE)
        return DNS_PARSE_NOTIMP;
    if (dns_read_u16(data + 4) != 1) /* RFC 9619: exactly one */
        return DNS_PARSE_FORMERR;
    at = dns_name_read(data, length, DNS_HEADER_SIZE, &ret_query->name);
    if (at == 0 || length - at < 4)
        return DNS_PARSE_FORMERR;
    ret_query->type = dns_read_u16(data + at);
    ret_query->class = dns_read_u16(data + at + 2);
    ret_query->terms.question_end = (uint16_t)(at + 4);
    ret_query->terms.udp_size = DNS_UDP_MIN;
    ret_query->terms.edns_version = 0;
    ret_query->terms.edns = false;
    ret_query->terms.dnssec_ok = false;
    return query_records(data, length, &ret_query->terms) ? DNS_PARSE_OK : DNS_PARSE_FORMERR;
}

/* --- replies --- */

static void header_write(uint8_t *data, uint16_t flags, uint16_t questions, uint16_t answers,
                         uint16_t authority, uint16_t additional)
{
    dns_write_u16(data + 2, flags);
    dns_write_u16(data + 4, questions);
    dns_write_u16(data + 6, answers);
    dns_write_u16(data + 8, authority);
    dns_write_u16(data + 10, additional);
}

static uint16_t reply_flags(uint16_t query_flags, uint16_t flags, unsigned rcode)
{
    return (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RA | flags | (rcode & DNS_FLAG_RCODE) |
                      (query_flags & (DNS_FLAG_OPCODE | DNS_FLAG_RD | DNS_FLAG_CD)));
}

static void opt_write(uint8_t *at, unsigned rcode, bool dnssec_ok, uint16_t options_length)
{
    at[0] = 0;
    dns_write_u16(at + 1, DNS_TYPE_OPT);
    dns_write_u16(at + 3, DNS_UDP_MAX);
    dns_write_u32(at + 5, (rcode >> 4) << 24 | (dnssec_ok ? 0x8000u : 0));
    dns_write_u16(at + 9, options_length);
}

size_t dns_error_build(uint8_t *data, enum dns_rcode rcode)
{
    header_write(data, reply_flags(dns_read_u16(data + 2), 0, rcode), 0, 0, 0, 0);
    return DNS_HEADER_SIZE;
}

void dns_reply_begin(struct dns_reply *reply, uint8_t *data, size_t capacity,
                     const struct dns_terms *terms)
{
    size_t limit = terms->tcp ? DNS_MESSAGE_MAX : terms->udp_size;

    if (limit > capacity)
        limit = capacity;
    if (terms->edns)
        limit -= DNS_OPT_SIZE;
    *reply = (struct dns_reply){.data = data, .length = terms->question_end, .limit = limit};
}

static bool reply_add(struct dns_reply *reply, uint16_t owner, uint16_t type, uint32_t ttl_s,
                      const void *rdata, uint16_t rdata_length)
{
    size_t owner_length = owner == DNS_OWNER_ROOT ? 1 : 2;
    uint8_t *at = reply->data + reply->length;

    if (reply->length + owner_length + RECORD_FIXED + rdata_length > reply->limit) {
        reply->truncated = true;
        return false;
    }
    if (owner == DNS_OWNER_ROOT)
        at[0] = 0;
    else
        dns_write_u16(at, (uint16_t)(POINTER << 8 | owner));
    at += owner_length;
    dns_write_u16(at, type);
    dns_write_u16(at + 2, DNS_CLASS_IN);
    dns_write_u32(at + 4, ttl_s);
    dns_write_u16(at + 8, rdata_length);
    memcpy(at + RECORD_FIXED, rdata, rdata_length);
    reply->length += owner_length + RECORD_FIXED + rdata_length;
    return true;
}

bool dns_reply_answer(struct dns_reply *reply, uint16_t owner, uint16_t type, uint32_t ttl_s,
                      const void *rdata, uint16_t rdata_length)
{
    if (!reply_add(reply, owner, type, ttl_s, rdata, rdata_length))
        return false;
    reply->answers++;
    return true;
}

bool dns_reply_authority(struct dns_reply *reply, uint16_t owner, uint16_t type, uint32_t ttl_s,
                         const void *rdata, uint16_t rdata_length)
{
    if (!reply_add(reply, owner, type, ttl_s, rdata, rdata_length))
        return false;
    reply->authority++;
    return true;
}

bool dns_reply_append(struct dns_reply *reply, const void *records, size_t length)
{
    if (length > reply->limit - reply->length) {
        reply->truncated = true;
        return false;
    }
    if (length > 0)
        memcpy(reply->data + reply->length, records, length);
    reply->length += length;
    return true;
}

/* OPT at the end; an extended error only where it fits. */
static void reply_opt(struct dns_reply *reply, const struct dns_terms *terms, unsigned rcode,
                      enum dns_ede ede)
{
    uint8_t *at = reply->data + reply->length;
    bool with_ede = ede != DNS_EDE_NONE && reply->length + DNS_EDE_SIZE <= reply->limit;

    opt_write(at, rcode, terms->dnssec_ok, with_ede ? DNS_EDE_SIZE : 0);
    reply->length += DNS_OPT_SIZE;
    if (!with_ede)
        return;
    dns_write_u16(at + 11, 15); /* option: extended error */
    dns_write_u16(at + 13, 2);
    dns_write_u16(at + 15, (uint16_t)ede);
    reply->length += DNS_EDE_SIZE;
}

size_t dns_reply_finish(struct dns_reply *reply, const struct dns_terms *terms, uint16_t flags,
                        enum dns_rcode rcode, enum dns_ede ede)
{
    if (reply->truncated) {
        reply->length = terms->question_end;
        reply->answers = 0;
        reply->authority = 0;
        reply->additional = 0;
        flags |= DNS_FLAG_TC;
    }
    header_write(reply->data, reply_flags(terms->flags, flags, rcode), 1, reply->answers,
                 reply->authority, (uint16_t)(reply->additional + terms->edns));
    if (terms->edns)
        reply_opt(reply, terms, rcode, ede);
    return reply->length;
}

/* --- questions to upstream servers, and their answers --- */

size_t dns_question_build(uint8_t data[DNS_QUESTION_MAX], uint16_t id, const uint8_t *name,
                          size_t name_length, uint16_t type, uint16_t flags, bool edns,
                          bool dnssec_ok)
{
    size_t length = DNS_HEADER_SIZE;

    dns_write_u16(data, id);
    header_write(data, (uint16_t)(DNS_FLAG_RD | flags), 1, 0, 0, edns);
    memcpy(data + length, name, name_length);
    length += name_length;
    dns_write_u16(data + length, type);
    dns_write_u16(data + length + 2, DNS_CLASS_IN);
    length += 4;
    if (edns) {
        opt_write(data + length, 0, dnssec_ok, 0);
        length += DNS_OPT_SIZE;
    }
    return length;
}

/* Goes through the records of an answer, in the order of its sections. */
struct walk {
    const uint8_t *data;
    size_t length;
    size_t at;
    struct dns_answer *answer;
    uint32_t lowest_ttl;
    uint32_t negative_ttl; /* from the SOA of the authority section */
    bool has_soa;
    bool has_opt;
};

static uint32_t lower_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void walk_ttl(struct walk *walk, const struct record *record)
{
    /* RFC 2181 section 8: a TTL with the top bit set counts as zero. */
    uint32_t ttl = record->ttl > INT32_MAX ? 0 : record->ttl;
    struct dns_answer *answer = walk->answer;

    walk->lowest_ttl = lower_u32(walk->lowest_ttl, ttl);
    if (answer->n_ttls < DNS_TTLS_MAX)
        answer->ttls[answer->n_ttls] = (uint16_t)(record->fixed + 4);
    answer->n_ttls++; /* beyond the maximum: not cached */
}

static void walk_soa(struct walk *walk, const struct record *record)
{
    size_t length = record->end - record->rdata;

    if (record->type != DNS_TYPE_SOA || length < 22)
        return;
    walk->has_soa = true;
    walk->negative_ttl = lower_u32(record->ttl, dns_read_u32(walk->data + record->end - 4));
}

static bool walk_section(struct walk *walk, unsigned count, uint16_t *ret_kept, bool authority)
{
    *ret_kept = 0;
    for (unsigned i = 0; i < count; i++) {
        struct record record;

        if (!record_read(walk->data, walk->length, walk->at, &record))
            return false;
        walk->at = record.end;
        if (walk->has_opt)
            continue;
        walk_ttl(walk, &record);
        if (authority)
            walk_soa(walk, &record);
        walk->answer->body_end = (uint16_t)record.end;
        ++*ret_kept;
    }
    return true;
}

/* What stands behind OPT is left out with it: cutting from the middle would move what pointers
 * point to. */
static bool walk_additional(struct walk *walk, unsigned count)
{
    struct dns_answer *answer = walk->answer;

    for (unsigned i = 0; i < count; i++) {
        size_t start = walk->at;
        struct record record;

        if (!record_read(walk->data, walk->length, start, &record))
            return false;
        walk->at = record.end;
        if (record.type == DNS_TYPE_OPT) {
            if (walk->has_opt || walk->data[start] != 0)
                return false;
            walk->has_opt = true;
            answer->rcode = (uint16_t)(answer->rcode | (record.ttl >> 24) << 4);
        } else if (!walk->has_opt) {
            walk_ttl(walk, &record);
            answer->body_end = (uint16_t)record.end;
            answer->additional++;
        }
    }
    return true;
}

/* RFC 2308 section 5: an answer without data is cached for as long as its SOA says, and without SOA
 * not at all. A referral or anything else without SOA is no negative answer either. */
static uint32_t walk_cache_ttl(const struct walk *walk)
{
    const struct dns_answer *answer = walk->answer;
    bool negative = answer->rcode == DNS_RCODE_NXDOMAIN || answer->answers == 0;

    if (answer->rcode != DNS_RCODE_NOERROR && answer->rcode != DNS_RCODE_NXDOMAIN)
        return 0;
    if (answer->n_ttls > DNS_TTLS_MAX || answer->n_ttls == 0)
        return 0;
    if (!negative)
        return walk->lowest_ttl;
    return walk->has_soa ? lower_u32(walk->lowest_ttl, walk->negative_ttl) : 0;
}

static bool answer_question(const uint8_t *data, size_t length, struct dns_answer *answer)
{
    unsigned questions = dns_read_u16(data + 4);
    size_t at;

    answer->has_question = questions == 1;
    answer->question_end = DNS_HEADER_SIZE;
    answer->type = 0;
    answer->class = 0;
    if (questions == 0)
        return true; /* some servers' errors */
    if (questions > 1)
        return false;
    at = dns_name_read(data, length, DNS_HEADER_SIZE, &answer->name);
    if (at == 0 || length - at < 4)
        return false;
    answer->type = dns_read_u16(data + at);
    answer->class = dns_read_u16(data + at + 2);
    answer->question_end = (uint16_t)(at + 4);
    return true;
}

bool dns_answer_parse(const uint8_t *data, size_t length, struct dns_answer *ret_answer)
{
    struct dns_answer *answer = ret_answer;

    if (length < DNS_HEADER_SIZE || length > DNS_MESSAGE_MAX)
        return false;
    answer->id = dns_read_u16(data);
    answer->flags = dns_read_u16(data + 2);
    if (!(answer->flags & DNS_FLAG_QR) || answer->flags & DNS_FLAG_OPCODE)
        return false;
    answer->rcode = answer->flags & DNS_FLAG_RCODE;
    if (!answer_question(data, length, answer))
        return false;

    struct walk walk = {.data = data,
                        .length = length,
                        .at = answer->question_end,
                        .answer = answer,
                        .lowest_ttl = UINT32_MAX};
    answer->body_end = answer->question_end;
    answer->n_ttls = 0;
    answer->answers = 0;
    answer->authority = 0;
    answer->additional = 0;
    answer->ttl_s = 0;
    if (answer->flags & DNS_FLAG_TC)
        return true; /* may end in the middle of a record; asked again by TCP */
    if (!walk_section(&walk, dns_read_u16(data + 6), &answer->answers, false) ||
        !walk_section(&walk, dns_read_u16(data + 8), &answer->authority, true) ||
        !walk_additional(&walk, dns_read_u16(data + 10)))
        return false;
    answer->ttl_s = walk_cache_ttl(&walk);
    return true;
}
