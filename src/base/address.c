/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

unsigned ip_bits(uint8_t family)
{
    return family == AF_INET6 ? 128 : 32;
}

static size_t ip_size(uint8_t family)
{
    return ip_bits(family) / 8;
}

struct ip ip_from_v4(uint32_t host_order)
{
    uint32_t network_order = htonl(host_order);

    return ip_from_bytes(AF_INET, &network_order);
}

uint32_t ip_to_v4(const struct ip *ip)
{
    uint32_t network_order;

    if (ip->family != AF_INET)
        return 0;
    memcpy(&network_order, ip->bytes, sizeof(network_order));
    return ntohl(network_order);
}

struct ip ip_from_bytes(uint8_t family, const void *bytes)
{
    struct ip ip = {.family = family};

    memcpy(ip.bytes, bytes, ip_size(family));
    return ip;
}

bool ip_equal(const struct ip *a, const struct ip *b)
{
    return ip_compare(a, b) == 0;
}

int ip_compare(const struct ip *a, const struct ip *b)
{
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    if (!ip_is_set(a))
        return 0;
    return memcmp(a->bytes, b->bytes, ip_size(a->family));
}

struct ip ip_add(const struct ip *ip, int64_t offset)
{
    struct ip sum = *ip;
    uint64_t rest = (uint64_t)offset;
    uint8_t extension = offset < 0 ? 0xff : 0; /* the sign, beyond the offset's eight bytes */
    unsigned carry = 0;

    for (size_t done = 0; done < ip_size(ip->family); done++) {
        size_t i = ip_size(ip->family) - 1 - done;
        unsigned addend = done < sizeof(rest) ? (unsigned)(rest >> (8 * done)) & 0xff : extension;

        carry += sum.bytes[i] + addend;
        sum.bytes[i] = (uint8_t)carry;
        carry >>= 8;
    }
    return sum;
}

int ip_parse(const char *text, struct ip *ret_ip)
{
    uint8_t bytes[16];
    uint8_t family = strchr(text, ':') ? AF_INET6 : AF_INET;

    if (inet_pton(family, text, bytes) != 1)
        return -EINVAL;
    *ret_ip = ip_from_bytes(family, bytes);
    return 0;
}

const char *ip_format(const struct ip *ip, char text[IP_TEXT_MAX])
{
    if (!ip_is_set(ip) || !inet_ntop(ip->family, ip->bytes, text, IP_TEXT_MAX))
        text[0] = '\0';
    return text;
}

/* Decimal without sign, white space or leading zeros, at most three digits. */
static int prefix_parse(const char *text, unsigned max, uint8_t *ret_prefix)
{
    size_t length = strspn(text, "0123456789");
    unsigned value = 0;

    if (length == 0 || length > 3 || text[length] != '\0' || (text[0] == '0' && length > 1))
        return -EINVAL;
    for (size_t i = 0; i < length; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    if (value > max)
        return -EINVAL;
    *ret_prefix = (uint8_t)value;
    return 0;
}

const char *ip_reverse_format(const struct ip *ip, unsigned parts, char text[IP_REVERSE_MAX])
{
    size_t length = 0;

    for (unsigned i = parts; i-- > 0;) {
        if (ip->family == AF_INET6)
            length += (size_t)snprintf(text + length, IP_REVERSE_MAX - length, "%x.",
                                       ip->bytes[i / 2] >> (i % 2 ? 0 : 4) & 0xf);
        else
            length += (size_t)snprintf(text + length, IP_REVERSE_MAX - length, "%u.", ip->bytes[i]);
    }
    snprintf(text + length, IP_REVERSE_MAX - length, "%s",
             ip->family == AF_INET6 ? "ip6.arpa" : "in-addr.arpa");
    return text;
}

int cidr_parse(const char *text, struct cidr *ret_cidr)
{
    const char *slash = strchr(text, '/');
    char address[IP_TEXT_MAX];
    struct cidr cidr = {0};

    if (!slash || (size_t)(slash - text) >= sizeof(address))
        return -EINVAL;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    if (ip_parse(address, &cidr.ip) < 0 ||
        prefix_parse(slash + 1, ip_bits(cidr.ip.family), &cidr.prefix) < 0)
        return -EINVAL;
    *ret_cidr = cidr;
    return 0;
}

const char *cidr_format(const struct cidr *cidr, char text[CIDR_TEXT_MAX])
{
    char address[IP_TEXT_MAX];

    text[0] = '\0';
    if (cidr_is_set(cidr))
        snprintf(text, CIDR_TEXT_MAX, "%s/%u", ip_format(&cidr->ip, address), cidr->prefix);
    return text;
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

int mac_parse(const char *text, struct mac *ret_mac)
{
    struct mac mac;

    if (strlen(text) != MAC_TEXT_MAX - 1)
        return -EINVAL;
    char separator = text[2];
    if (separator != ':' && separator != '-')
        return -EINVAL;
    for (size_t i = 0; i < sizeof(mac.bytes); i++) {
        int high = hex_value(text[3 * i]);
        int low = hex_value(text[3 * i + 1]);

        if (high < 0 || low < 0 || (i < sizeof(mac.bytes) - 1 && text[3 * i + 2] != separator))
            return -EINVAL;
        mac.bytes[i] = (uint8_t)(high * 16 + low);
    }
    *ret_mac = mac;
    return 0;
}

const char *mac_format(const struct mac *mac, char text[MAC_TEXT_MAX])
{
    const uint8_t *b = mac->bytes;

    text[0] = '\0';
    if (mac_is_set(mac))
        snprintf(text, MAC_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4],
                 b[5]);
    return text;
}

bool mac_is_set(const struct mac *mac)
{
    static const struct mac absent = {0};

    return !mac_equal(mac, &absent);
}

bool mac_equal(const struct mac *a, const struct mac *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* Sets the host bits of the address to `ones`. */
static struct ip cidr_fill(const struct cidr *cidr, bool ones)
{
    struct ip ip = cidr->ip;

    if (!cidr_is_set(cidr))
        return ip;
    for (size_t i = 0; i < ip_size(ip.family); i++) {
        unsigned first_bit = (unsigned)i * 8;
        unsigned kept = cidr->prefix <= first_bit ? 0 : cidr->prefix - first_bit;
        uint8_t host = kept >= 8 ? 0 : (uint8_t)(0xff >> kept);

        ip.bytes[i] = ones ? (uint8_t)(ip.bytes[i] | host) : (uint8_t)(ip.bytes[i] & ~host);
    }
    return ip;
}

struct cidr cidr_mask(const struct cidr *cidr)
{
    return (struct cidr){.ip = cidr_fill(cidr, false), .prefix = cidr->prefix};
}

bool cidr_is_set(const struct cidr *cidr)
{
    return ip_is_set(&cidr->ip);
}

bool cidr_has_host_bits(const struct cidr *cidr)
{
    struct ip first = cidr_first(cidr);

    return !ip_equal(&first, &cidr->ip);
}

struct ip cidr_first(const struct cidr *cidr)
{
    return cidr_fill(cidr, false);
}

struct ip cidr_last(const struct cidr *cidr)
{
    return cidr_fill(cidr, true);
}

bool cidr_contains_ip(const struct cidr *cidr, const struct ip *ip)
{
    struct cidr other = {.ip = *ip, .prefix = cidr->prefix};

    if (!cidr_is_set(cidr) || cidr->ip.family != ip->family)
        return false;
    struct ip a = cidr_first(cidr);
    struct ip b = cidr_first(&other);
    return ip_equal(&a, &b);
}

bool cidr_contains(const struct cidr *outer, const struct cidr *inner)
{
    return cidr_is_set(inner) && outer->prefix <= inner->prefix &&
           cidr_contains_ip(outer, &inner->ip);
}

bool cidr_overlaps(const struct cidr *a, const struct cidr *b)
{
    return cidr_contains(a, b) || cidr_contains(b, a);
}

bool cidr_equal(const struct cidr *a, const struct cidr *b)
{
    if (!cidr_is_set(a) || !cidr_is_set(b))
        return cidr_is_set(a) == cidr_is_set(b);
    return a->prefix == b->prefix && ip_equal(&a->ip, &b->ip);
}

bool ip_is_loopback(const struct ip *ip)
{
    if (ip->family == AF_INET6)
        return memcmp(ip->bytes, &in6addr_loopback, sizeof(in6addr_loopback)) == 0;
    return ip->family == AF_INET && ip->bytes[0] == 127;
}

bool ip_is_multicast(const struct ip *ip)
{
    if (ip->family == AF_INET6)
        return ip->bytes[0] == 0xff;
    return ip->family == AF_INET && (ip->bytes[0] & 0xf0) == 0xe0;
}

bool ip_is_unspecified(const struct ip *ip)
{
    return ip_is_set(ip) && memcmp(ip->bytes, &in6addr_any, ip_size(ip->family)) == 0;
}

bool ip_bindings_overlap(const struct ip *a, const struct ip *b)
{
    if (!ip_is_set(a) || !ip_is_set(b))
        return true;
    return a->family == b->family &&
           (ip_is_unspecified(a) || ip_is_unspecified(b) || ip_equal(a, b));
}

bool ip_is_link_local(const struct ip *ip)
{
    if (ip->family == AF_INET6)
        return ip->bytes[0] == 0xfe && (ip->bytes[1] & 0xc0) == 0x80;
    return ip->family == AF_INET && ip->bytes[0] == 169 && ip->bytes[1] == 254;
}

socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *ret_address)
{
    memset(ret_address, 0, sizeof(*ret_address));
    if (ip->family == AF_INET6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

        memcpy(&in6.sin6_addr, ip->bytes, sizeof(in6.sin6_addr));
        memcpy(ret_address, &in6, sizeof(in6));
        return sizeof(in6);
    }
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};

    memcpy(&in.sin_addr, ip->bytes, sizeof(in.sin_addr));
    memcpy(ret_address, &in, sizeof(in));
    return sizeof(in);
}
