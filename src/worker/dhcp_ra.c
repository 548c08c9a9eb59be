/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dhcp_ra.h"

#include <string.h>

#include "worker/dhcp4.h"

#define SOLICITATION 133
#define ADVERTISEMENT 134
#define SOLICITATION_SIZE 8
#define ADVERTISEMENT_SIZE 16
#define FLAGS_MANAGED_OTHER 0xc0
#define PREFIX_ON_LINK 0x80

enum {
    OPTION_SOURCE_MAC = 1,
    OPTION_PREFIX = 3,
    OPTION_MTU = 5,
    OPTION_DNS = 25,
    OPTION_SEARCH = 31,
};

static void put_u16(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static void put_u32(uint8_t *bytes, uint32_t value)
{
    put_u16(bytes, value >> 16);
    put_u16(bytes + 2, value);
}

bool ra_solicitation_is_valid(const struct frame *frame)
{
    const uint8_t *data = frame->payload;
    size_t at = SOLICITATION_SIZE;

    if (frame->protocol != IPPROTO_ICMPV6 || frame->hop_limit != 255 ||
        frame->length < SOLICITATION_SIZE || data[0] != SOLICITATION || data[1] != 0)
        return false;
    while (at < frame->length) {
        size_t length;

        if (frame->length - at < 2)
            return false;
        length = (size_t)data[at + 1] * 8;
        if (length == 0 || length > frame->length - at)
            return false;
        if (data[at] == OPTION_SOURCE_MAC && ip_is_unspecified(&frame->source))
            return false;
        at += length;
    }
    return true;
}

struct writer {
    uint8_t *data;
    size_t length;
};

/* length: in bytes, a multiple of 8. All bytes behind the header are zero. NULL when it is too
 * much. */
static uint8_t *option_put(struct writer *writer, uint8_t type, size_t length)
{
    uint8_t *at = writer->data + writer->length;

    if (length > RA_MAX - writer->length)
        return NULL;
    memset(at, 0, length);
    at[0] = type;
    at[1] = (uint8_t)(length / 8);
    writer->length += length;
    return at;
}

/* A prefix that is not on this link any more has no time left there (RFC 4861 section 6.3.4); that
 * the flag is absent would say nothing about it. */
static void put_prefix(struct writer *writer, const struct dhcp_port *port)
{
    struct cidr prefix = {port->ip6, port->prefix6};
    struct ip first = cidr_first(&prefix);
    uint8_t *option = option_put(writer, OPTION_PREFIX, 32);

    option[2] = port->prefix6;
    option[3] = PREFIX_ON_LINK;
    put_u32(option + 4, port->on_link6 ? 86400 : 0); /* valid, preferred: none is autonomous */
    put_u32(option + 8, port->on_link6 ? 86400 : 0);
    memcpy(option + 16, first.bytes, 16);
}

static void put_dns(struct writer *writer, const struct dhcp_port *port)
{
    uint8_t *option;

    if (port->dns6.count == 0)
        return;
    option = option_put(writer, OPTION_DNS, 8 + (size_t)port->dns6.count * 16);
    if (!option)
        return;
    put_u32(option + 4, RA_ROUTER_LIFETIME_S);
    for (uint32_t i = 0; i < port->dns6.count; i++)
        memcpy(option + 8 + (size_t)i * 16, port->dns6.items[i].bytes, 16);
}

static void put_search(struct writer *writer, const struct dhcp_port *port)
{
    uint8_t names[512];
    size_t length = dhcp_search_write(port, names, sizeof(names));
    uint8_t *option;

    if (length == 0 || port->dns6.count == 0)
        return;
    option = option_put(writer, OPTION_SEARCH, 8 + (length + 7) / 8 * 8);
    if (!option)
        return;
    put_u32(option + 4, RA_ROUTER_LIFETIME_S);
    memcpy(option + 8, names, length);
}

size_t ra_write(const struct dhcp_port *port, uint8_t buffer[RA_MAX])
{
    struct writer writer = {.data = buffer, .length = ADVERTISEMENT_SIZE};
    uint8_t *option;

    memset(buffer, 0, ADVERTISEMENT_SIZE);
    buffer[0] = ADVERTISEMENT;
    buffer[4] = 64; /* hop limit */
    buffer[5] = FLAGS_MANAGED_OTHER;
    put_u16(buffer + 6, port->default_route6 ? RA_ROUTER_LIFETIME_S : 0);
    option = option_put(&writer, OPTION_SOURCE_MAC, 8);
    memcpy(option + 2, port->server_mac.bytes, 6);
    option = option_put(&writer, OPTION_MTU, 8);
    put_u32(option + 4, port->mtu);
    put_prefix(&writer, port);
    put_dns(&writer, port);
    put_search(&writer, port);
    return writer.length;
}
