/* SPDX-License-Identifier: GPL-2.0-or-later */
/* DNS messages on the wire (RFC 1035 section 4, RFC 6891): queries are parsed, replies are built in
 * the buffer that the query came in, so that its question, with the case as asked, is never copied.
 * Answers of upstream servers are walked, not rebuilt. Nothing here allocates, blocks or keeps
 * state; every input may be hostile. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/address.h"

#define DNS_HEADER_SIZE 12
#define DNS_NAME_MAX 255 /* bytes on the wire, with the root's */
#define DNS_LABELS_MAX 127
#define DNS_TEXT_MAX 1024 /* the longest name with every byte escaped, and its NUL */
#define DNS_UDP_MIN 512   /* without EDNS (RFC 1035 2.3.4) */
#define DNS_UDP_MAX 1232  /* what we say by EDNS and never exceed: no fragments on any path */
#define DNS_MESSAGE_MAX 65535
#define DNS_OPT_SIZE 11
#define DNS_EDE_SIZE 6 /* an extended error without text (RFC 8914) */

enum dns_type {
    DNS_TYPE_NONE = 0,
    DNS_TYPE_A = 1,
    DNS_TYPE_NS = 2,
    DNS_TYPE_CNAME = 5,
    DNS_TYPE_SOA = 6,
    DNS_TYPE_PTR = 12,
    DNS_TYPE_TXT = 16,
    DNS_TYPE_AAAA = 28,
    DNS_TYPE_SRV = 33,
    DNS_TYPE_OPT = 41,
    DNS_TYPE_DS = 43,
    DNS_TYPE_DNSKEY = 48,
    DNS_TYPE_SVCB = 64,
    DNS_TYPE_HTTPS = 65,
    DNS_TYPE_META_FIRST = 249, /* TKEY, TSIG, IXFR, AXFR, MAILB, MAILA: no data of names */
    DNS_TYPE_META_LAST = 254,
    DNS_TYPE_ANY = 255,
};

enum dns_class { DNS_CLASS_IN = 1 };

enum dns_rcode {
    DNS_RCODE_NOERROR = 0,
    DNS_RCODE_FORMERR = 1,
    DNS_RCODE_SERVFAIL = 2,
    DNS_RCODE_NXDOMAIN = 3,
    DNS_RCODE_NOTIMP = 4,
    DNS_RCODE_REFUSED = 5,
    DNS_RCODE_BADVERS = 16,
};

/* Extended errors (RFC 8914 section 4). */
enum dns_ede {
    DNS_EDE_NONE = 0,
    DNS_EDE_STALE = 3,
    DNS_EDE_BLOCKED = 15,
    DNS_EDE_PROHIBITED = 18,
    DNS_EDE_STALE_NXDOMAIN = 19,
    DNS_EDE_NO_REACHABLE = 22,
};

/* Header flags in host order (RFC 1035 4.1.1, RFC 4035 3.1.6 and 3.2.2). */
enum {
    DNS_FLAG_QR = 0x8000,
    DNS_FLAG_OPCODE = 0x7800,
    DNS_FLAG_AA = 0x0400,
    DNS_FLAG_TC = 0x0200,
    DNS_FLAG_RD = 0x0100,
    DNS_FLAG_RA = 0x0080,
    DNS_FLAG_AD = 0x0020,
    DNS_FLAG_CD = 0x0010,
    DNS_FLAG_RCODE = 0x000f,
};

static inline uint16_t dns_read_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t dns_read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void dns_write_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void dns_write_u32(uint8_t *at, uint32_t value)
{
    dns_write_u16(at, (uint16_t)(value >> 16));
    dns_write_u16(at + 2, (uint16_t)value);
}

/* --- names --- */

/* A name in wire form, lower case, not compressed. The padding behind it may be written and read in
 * words. */
struct dns_name {
    uint8_t length; /* with the root's byte: 1–255 */
    uint8_t labels; /* without the root */
    uint8_t offsets[DNS_LABELS_MAX +
                    1]; /* where label i begins (its length byte); [labels]: the root's byte */
    uint8_t wire[DNS_NAME_MAX + 9];
};

/* Reads a name that is not compressed at data[offset]; returns where it ends, or 0 when it is
 * malformed (a pointer, too long, beyond length). */
size_t dns_name_read(const uint8_t *data, size_t length, size_t offset, struct dns_name *ret_name);
/* Passes over a name that may be compressed; returns where it ends in the message, or 0. Pointers
 * must point back (RFC 1035 4.1.4); they are not followed. */
size_t dns_name_skip(const uint8_t *data, size_t length, size_t offset);
/* From text ("web.example" with or without the last dot, "." for the root; no escapes): 0 or
 * -EINVAL. */
int dns_name_parse(const char *text, struct dns_name *ret_name);
/* With escapes as in RFC 1035 5.1, without the last dot; "." for the root. Returns text. For logs
 * and tests. */
const char *dns_name_format(const uint8_t *wire, char text[DNS_TEXT_MAX]);
/* Do the last labels of the name spell the suffix? The suffix's own length counts its root. */
bool dns_name_is_below(const struct dns_name *name, const struct dns_name *suffix);
/* in-addr.arpa and ip6.arpa (RFC 1035 3.5, RFC 3596 2.5). DNS_REVERSE_NO: no reverse name. _PART:
 * an ancestor of one; ret_ip is its first address and *ret_bits says how many bits it gives.
 * _ADDRESS: a whole address. _BAD: below one of the two trees, but nothing that an address can be
 * spelled as; ret_ip and *ret_bits are those of the nearest ancestor that is one. */
enum dns_reverse { DNS_REVERSE_NO, DNS_REVERSE_PART, DNS_REVERSE_ADDRESS, DNS_REVERSE_BAD };
enum dns_reverse dns_reverse_parse(const struct dns_name *name, struct ip *ret_ip,
                                   unsigned *ret_bits);

/* Seeds dns_hash from the kernel's random source; once per process. */
void dns_hash_seed(void);
uint32_t dns_hash(const void *data, size_t length, uint64_t salt);

/* --- queries --- */

/* What a query says about the reply to it. */
struct dns_terms {
    uint16_t id;
    uint16_t flags;
    uint16_t question_end; /* offset in the message */
    uint16_t udp_size;     /* what the client takes by UDP: 512–1232 */
    uint8_t edns_version;
    bool edns;
    bool dnssec_ok;
    bool tcp; /* set by the transport: replies up to DNS_MESSAGE_MAX */
};

struct dns_query {
    struct dns_terms terms;
    uint16_t type;
    uint16_t class;
    uint32_t key_hash;    /* set by dns_local_prepare, as is key_length */
    uint8_t key_length;   /* of the name without the domain and without the root's byte */
    struct dns_name name; /* lower case; the message keeps the case as asked */
};

enum dns_parse {
    DNS_PARSE_OK,
    DNS_PARSE_DROP,    /* no header, or not a query: no answer at all */
    DNS_PARSE_FORMERR, /* answered without question: dns_error_build */
    DNS_PARSE_NOTIMP,
};

/* Sets everything but terms.tcp and the key's. */
enum dns_parse dns_query_parse(const uint8_t *data, size_t length, struct dns_query *ret_query);
/* Turns the query in data (at least a header) into an answer of a header alone; returns its length.
 */
size_t dns_error_build(uint8_t *data, enum dns_rcode rcode);

/* --- replies --- */

/* A reply that is being built behind the question of its query, in the query's own buffer. */
struct dns_reply {
    uint8_t *data;
    size_t length;
    size_t limit; /* what may be used, with room for OPT kept */
    uint16_t answers;
    uint16_t authority;
    uint16_t additional; /* without OPT */
    bool truncated;      /* something did not fit */
};

/* capacity: of the buffer, at least question_end + DNS_OPT_SIZE + DNS_EDE_SIZE. */
void dns_reply_begin(struct dns_reply *reply, uint8_t *data, size_t capacity,
                     const struct dns_terms *terms);
/* Offset in the message of label i of the question's name, for use as owner. */
static inline uint16_t dns_question_label(const struct dns_query *query, unsigned label)
{
    return (uint16_t)(DNS_HEADER_SIZE + query->name.offsets[label]);
}
#define DNS_OWNER_ROOT 0 /* as owner: the root */
/* Adds an answer (class IN) whose owner is the name at this offset of the message. All or nothing:
 * false, and `truncated` set, when it does not fit. */
bool dns_reply_answer(struct dns_reply *reply, uint16_t owner, uint16_t type, uint32_t ttl_s,
                      const void *rdata, uint16_t rdata_length);
bool dns_reply_authority(struct dns_reply *reply, uint16_t owner, uint16_t type, uint32_t ttl_s,
                         const void *rdata, uint16_t rdata_length);
/* Appends records that are in wire form already, as they are. */
bool dns_reply_append(struct dns_reply *reply, const void *records, size_t length);
/* Writes the header and, where the query had one, OPT. flags: DNS_FLAG_AA, DNS_FLAG_AD or none; RD,
 * CD and opcode are the query's, RA is always set. Truncated answers lose all their records.
 * Returns the message's length. */
size_t dns_reply_finish(struct dns_reply *reply, const struct dns_terms *terms, uint16_t flags,
                        enum dns_rcode rcode, enum dns_ede ede);

/* --- questions to upstream servers, and their answers --- */

/* The longest question that dns_question_build makes. */
#define DNS_QUESTION_MAX (DNS_HEADER_SIZE + DNS_NAME_MAX + 4 + DNS_OPT_SIZE)

/* Builds a recursive question (class IN) for this wire name; returns its length. flags: DNS_FLAG_CD
 * or none. */
size_t dns_question_build(uint8_t data[DNS_QUESTION_MAX], uint16_t id, const uint8_t *name,
                          size_t name_length, uint16_t type, uint16_t flags, bool edns,
                          bool dnssec_ok);

#define DNS_TTLS_MAX 256 /* records of an answer that can be cached */

struct dns_answer {
    uint16_t id;
    uint16_t flags;
    uint16_t rcode; /* with EDNS's upper bits */
    bool has_question;
    uint16_t type;
    uint16_t class;
    uint16_t question_end;
    uint16_t body_end; /* of the records that are kept: OPT, and what follows it, is left out */
    uint16_t answers;
    uint16_t authority;
    uint16_t additional; /* of those kept */
    /* For the cache. Lowest TTL; of a negative answer that which its SOA gives (RFC 2308 section
     * 5). 0: not to be cached. Offsets of the TTL fields. */
    uint32_t ttl_s;
    uint16_t n_ttls;
    uint16_t ttls[DNS_TTLS_MAX];
    struct dns_name name; /* of the question, lower case */
};

/* Walks the whole message. False when any of it is malformed or it is no response to a standard
 * query. Names of owners are checked for form; the contents of rdata are passed on as they are. */
bool dns_answer_parse(const uint8_t *data, size_t length, struct dns_answer *ret_answer);
