/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IPv4 and IPv6 addresses, prefixes and MACs as values. family 0 means "absent" everywhere. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ip {
    uint8_t family;    /* 0 (absent), AF_INET or AF_INET6 */
    uint8_t bytes[16]; /* network byte order; IPv4 in the first four, the rest zero */
};

struct cidr {
    struct ip ip; /* host bits are kept as given; see cidr_mask */
    uint8_t prefix;
};

struct mac {
    uint8_t bytes[6]; /* all zero: absent */
};

#define IP_TEXT_MAX 46
#define IP_REVERSE_MAX 80
#define CIDR_TEXT_MAX 50
#define MAC_TEXT_MAX 18

static inline bool ip_is_set(const struct ip *ip)
{
    return ip->family != 0;
}

/* Number of address bits of a family: 32 or 128. */
unsigned ip_bits(uint8_t family);
struct ip ip_from_v4(uint32_t host_order);
uint32_t ip_to_v4(const struct ip *ip); /* host order; 0 unless AF_INET */
struct ip ip_from_bytes(uint8_t family, const void *bytes);
bool ip_equal(const struct ip *a, const struct ip *b);
int ip_compare(const struct ip *a, const struct ip *b); /* family first, then value */
/* ip + offset (may be negative); wraps modulo 2^bits. */
struct ip ip_add(const struct ip *ip, int64_t offset);

/* Strict: dotted quad without leading zeros, or RFC 4291 text; no zone, no white space.
 * Return 0 or -EINVAL. */
int ip_parse(const char *text, struct ip *ret_ip);
const char *ip_format(const struct ip *ip, char text[IP_TEXT_MAX]); /* "" when absent; RFC 5952 */
/* The name in in-addr.arpa or ip6.arpa of the address's first octets or nibbles: of 10.88.0.1 with
 * 2 parts "88.10.in-addr.arpa". Without the last dot. */
const char *ip_reverse_format(const struct ip *ip, unsigned parts, char text[IP_REVERSE_MAX]);
/* "A/N"; the prefix is required, decimal without leading zeros. Host bits may be set. */
int cidr_parse(const char *text, struct cidr *ret_cidr);
const char *cidr_format(const struct cidr *cidr, char text[CIDR_TEXT_MAX]);
/* Six hex pairs separated by ':' or '-'. */
int mac_parse(const char *text, struct mac *ret_mac);
const char *mac_format(const struct mac *mac,
                       char text[MAC_TEXT_MAX]); /* lower case, "" if absent */
bool mac_is_set(const struct mac *mac);
bool mac_equal(const struct mac *a, const struct mac *b);

struct cidr cidr_mask(const struct cidr *cidr); /* host bits cleared */
bool cidr_is_set(const struct cidr *cidr);
bool cidr_has_host_bits(const struct cidr *cidr);
struct ip cidr_first(const struct cidr *cidr); /* network address */
struct ip cidr_last(const struct cidr *cidr);  /* last (IPv4: broadcast) address */
bool cidr_contains_ip(const struct cidr *cidr, const struct ip *ip);
bool cidr_contains(const struct cidr *outer, const struct cidr *inner);
bool cidr_overlaps(const struct cidr *a, const struct cidr *b);
bool cidr_equal(const struct cidr *a, const struct cidr *b);

bool ip_is_loopback(const struct ip *ip); /* 127/8, ::1 */
bool ip_is_multicast(const struct ip *ip);
bool ip_is_unspecified(const struct ip *ip);
/* Whether two sockets can't have the same port: bound to `a` and to `b`, where an absent address is
 * every one of both families, and an unspecified one (0.0.0.0, ::) every one of its family. */
bool ip_bindings_overlap(const struct ip *a, const struct ip *b);
bool ip_is_link_local(const struct ip *ip); /* 169.254/16, fe80::/10 */

/* Fills a sockaddr; returns its length. port in host order. */
socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *ret_address);
