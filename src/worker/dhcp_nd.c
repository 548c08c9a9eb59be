/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dhcp_nd.h"

#include <string.h>

#define ADVERTISEMENT 136
#define SOLICITATION_SIZE 24
#define FLAG_SOLICITED 0x40
#define OPTION_TARGET_MAC 2

static bool options_are_valid(const struct frame *frame)
{
    size_t at = SOLICITATION_SIZE;

    while (at < frame->length) {
        size_t length = frame->length - at < 2 ? 0 : (size_t)frame->payload[at + 1] * 8;

        if (length == 0 || length > frame->length - at)
            return false;
        at += length;
    }
    return true;
}

bool nd_solicitation_is_answered(const struct dhcp_port *port, const struct frame *frame,
                                 struct ip *ret_target)
{
    const struct cidr subnet = {port->ip6, port->prefix6};
    struct ip target;

    if (!ip_is_set(&port->ip6) || port->on_link6 || frame->hop_limit != 255 ||
        frame->length < SOLICITATION_SIZE || frame->payload[0] != ND_SOLICITATION ||
        frame->payload[1] != 0 || !options_are_valid(frame) || ip_is_unspecified(&frame->source))
        return false;
    target = ip_from_bytes(AF_INET6, frame->payload + 8);
    if (!cidr_contains_ip(&subnet, &target) || ip_equal(&target, &port->ip6))
        return false;
    *ret_target = target;
    return true;
}

/* Without the override flag, as RFC 4861 section 7.2.4 wants it of who answers for others. */
void nd_write(const struct dhcp_port *port, const struct ip *target,
              uint8_t buffer[ND_ADVERTISEMENT_SIZE])
{
    memset(buffer, 0, ND_ADVERTISEMENT_SIZE);
    buffer[0] = ADVERTISEMENT;
    buffer[4] = FLAG_SOLICITED;
    memcpy(buffer + 8, target->bytes, 16);
    buffer[24] = OPTION_TARGET_MAC;
    buffer[25] = 1;
    memcpy(buffer + 26, port->server_mac.bytes, 6);
}
