/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dhcp_frame.h"

#include <netinet/in.h>
#include <string.h>

#define ETHERNET_SIZE 14
#define IPV4_SIZE 20
#define IPV6_SIZE 40
#define UDP_SIZE 8
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6_FRAME 0x86dd

static uint16_t get_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static void put_u16(uint8_t *bytes, size_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

/* --- checksums (RFC 1071) --- */

static uint32_t sum_add(uint32_t sum, const uint8_t *data, size_t length)
{
    for (; length > 1; data += 2, length -= 2)
        sum += get_u16(data);
    if (length)
        sum += (uint32_t)data[0] << 8;
    return sum;
}

static uint16_t sum_fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* Over the pseudo header and the transport's bytes (RFC 768; RFC 8200 section 8.1). */
static uint16_t transport_sum(const struct ip *source, const struct ip *destination,
                              uint8_t protocol, const uint8_t *data, size_t length)
{
    size_t size = ip_bits(source->family) / 8;
    uint32_t sum = protocol + (uint32_t)length;

    sum = sum_add(sum, source->bytes, size);
    sum = sum_add(sum, destination->bytes, size);
    return sum_fold(sum_add(sum, data, length));
}

/* --- reading --- */

/* Returns the transport's bytes, NULL when it is no IPv4 packet of ours. */
static const uint8_t *parse_ipv4(const uint8_t *packet, size_t size, struct frame *frame,
                                 size_t *ret_length)
{
    size_t header;
    size_t total;

    if (size < IPV4_SIZE || packet[0] >> 4 != 4)
        return NULL;
    header = (size_t)(packet[0] & 15) * 4;
    total = get_u16(packet + 2);
    if (header < IPV4_SIZE || total < header || total > size)
        return NULL;
    if (get_u16(packet + 6) & 0x3fff || sum_fold(sum_add(0, packet, header)) != 0)
        return NULL;
    frame->hop_limit = packet[8];
    frame->protocol = packet[9];
    frame->source = ip_from_bytes(AF_INET, packet + 12);
    frame->destination = ip_from_bytes(AF_INET, packet + 16);
    *ret_length = total - header;
    return packet + header;
}

static const uint8_t *parse_ipv6(const uint8_t *packet, size_t size, struct frame *frame,
                                 size_t *ret_length)
{
    size_t length;

    if (size < IPV6_SIZE || packet[0] >> 4 != 6)
        return NULL;
    length = get_u16(packet + 4);
    if (length > size - IPV6_SIZE)
        return NULL;
    frame->protocol = packet[6];
    frame->hop_limit = packet[7];
    frame->source = ip_from_bytes(AF_INET6, packet + 8);
    frame->destination = ip_from_bytes(AF_INET6, packet + 24);
    *ret_length = length;
    return packet + IPV6_SIZE;
}

/* UDP may go without a checksum over IPv4 only. */
static bool parse_udp(const uint8_t *data, size_t size, bool checksum_pending, struct frame *frame)
{
    size_t length;
    bool unchecked;

    if (size < UDP_SIZE)
        return false;
    length = get_u16(data + 4);
    if (length < UDP_SIZE || length > size)
        return false;
    unchecked = get_u16(data + 6) == 0 && frame->source.family == AF_INET;
    if (!checksum_pending && !unchecked &&
        transport_sum(&frame->source, &frame->destination, IPPROTO_UDP, data, length) != 0)
        return false;
    frame->source_port = get_u16(data);
    frame->destination_port = get_u16(data + 2);
    frame->payload = data + UDP_SIZE;
    frame->length = length - UDP_SIZE;
    return true;
}

static bool parse_icmpv6(const uint8_t *data, size_t size, bool checksum_pending,
                         struct frame *frame)
{
    if (size < 4 || frame->source.family != AF_INET6)
        return false;
    if (!checksum_pending &&
        transport_sum(&frame->source, &frame->destination, IPPROTO_ICMPV6, data, size) != 0)
        return false;
    frame->payload = data;
    frame->length = size;
    return true;
}

bool frame_parse(const uint8_t *data, size_t size, bool checksum_pending, struct frame *ret_frame)
{
    struct frame frame = {0};
    const uint8_t *transport = NULL;
    size_t length = 0;

    if (size < ETHERNET_SIZE || size > FRAME_MAX)
        return false;
    memcpy(frame.destination_mac.bytes, data, 6);
    memcpy(frame.source_mac.bytes, data + 6, 6);
    if (get_u16(data + 12) == ETHERTYPE_IPV4)
        transport = parse_ipv4(data + ETHERNET_SIZE, size - ETHERNET_SIZE, &frame, &length);
    else if (get_u16(data + 12) == ETHERTYPE_IPV6_FRAME)
        transport = parse_ipv6(data + ETHERNET_SIZE, size - ETHERNET_SIZE, &frame, &length);
    if (!transport)
        return false;
    if (frame.protocol == IPPROTO_UDP
            ? !parse_udp(transport, length, checksum_pending, &frame)
            : frame.protocol != IPPROTO_ICMPV6 ||
                  !parse_icmpv6(transport, length, checksum_pending, &frame))
        return false;
    *ret_frame = frame;
    return true;
}

/* --- writing --- */

static void build_ipv4(const struct frame *frame, uint8_t *packet, size_t transport)
{
    memset(packet, 0, IPV4_SIZE);
    packet[0] = 0x45;
    packet[1] = 0x10; /* low delay, as DHCP servers do */
    put_u16(packet + 2, IPV4_SIZE + transport);
    packet[8] = frame->hop_limit;
    packet[9] = frame->protocol;
    memcpy(packet + 12, frame->source.bytes, 4);
    memcpy(packet + 16, frame->destination.bytes, 4);
    put_u16(packet + 10, sum_fold(sum_add(0, packet, IPV4_SIZE)));
}

static void build_ipv6(const struct frame *frame, uint8_t *packet, size_t transport)
{
    memset(packet, 0, 8);
    packet[0] = 0x60;
    put_u16(packet + 4, transport);
    packet[6] = frame->protocol;
    packet[7] = frame->hop_limit;
    memcpy(packet + 8, frame->source.bytes, 16);
    memcpy(packet + 24, frame->destination.bytes, 16);
}

/* A checksum of zero means "none" in UDP, and is sent as its other form. */
static void build_transport(const struct frame *frame, uint8_t *data, size_t length)
{
    bool udp = frame->protocol == IPPROTO_UDP;
    uint8_t *checksum = data + (udp ? 6 : 2);
    uint16_t sum;

    if (udp) {
        put_u16(data, frame->source_port);
        put_u16(data + 2, frame->destination_port);
        put_u16(data + 4, length);
    }
    memcpy(data + (udp ? UDP_SIZE : 0), frame->payload, frame->length);
    put_u16(checksum, 0);
    sum = transport_sum(&frame->source, &frame->destination, frame->protocol, data, length);
    put_u16(checksum, udp && sum == 0 ? 0xffff : sum);
}

size_t frame_build(const struct frame *frame, uint8_t *buffer, size_t size)
{
    bool v6 = frame->source.family == AF_INET6;
    size_t ip_size = v6 ? IPV6_SIZE : IPV4_SIZE;
    size_t transport = frame->length + (frame->protocol == IPPROTO_UDP ? UDP_SIZE : 0);

    if (transport > 0xffff - IPV4_SIZE || ETHERNET_SIZE + ip_size + transport > size)
        return 0;
    memcpy(buffer, frame->destination_mac.bytes, 6);
    memcpy(buffer + 6, frame->source_mac.bytes, 6);
    put_u16(buffer + 12, v6 ? ETHERTYPE_IPV6_FRAME : ETHERTYPE_IPV4);
    if (v6)
        build_ipv6(frame, buffer + ETHERNET_SIZE, transport);
    else
        build_ipv4(frame, buffer + ETHERNET_SIZE, transport);
    build_transport(frame, buffer + ETHERNET_SIZE + ip_size, transport);
    return ETHERNET_SIZE + ip_size + transport;
}
