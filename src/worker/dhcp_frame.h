/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ethernet frames with UDP or ICMPv6 over IPv4 or IPv6 (RFC 791, RFC 768, RFC 8200, RFC 4443), as
 * the DHCP worker reads and writes them on a tap. Nothing is allocated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"

#define FRAME_MAX 2048   /* bytes; longer ones are none of ours */
#define FRAME_HEADERS 62 /* Ethernet, IPv6 and UDP: the most that stands before a payload */

struct frame {
    struct mac source_mac;
    struct mac destination_mac;
    struct ip source;
    struct ip destination;
    uint8_t protocol; /* IPPROTO_UDP or IPPROTO_ICMPV6 */
    uint8_t hop_limit;
    uint16_t source_port; /* UDP only */
    uint16_t destination_port;
    const uint8_t *payload; /* of UDP; the whole ICMPv6 message */
    size_t length;
};

/* Is it a whole, unfragmented frame of that kind, without VLAN tag and without IPv6 extension
 * headers? checksum_pending: the sender left the transport checksum to its network card. The
 * payload lies in `data`. */
bool frame_parse(const uint8_t *data, size_t size, bool checksum_pending, struct frame *ret_frame);
/* Writes the frame with all its checksums; those of an ICMPv6 payload too, whose own bytes 2 and 3
 * are not read. Returns its length, 0 when it does not fit. */
size_t frame_build(const struct frame *frame, uint8_t *buffer, size_t size);
