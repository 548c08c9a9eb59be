/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dhcp4.h"

#include <string.h>

#include "base/cleanup.h"

#define HEADER_SIZE 236
#define COOKIE_SIZE 4
#define OPTIONS_START (HEADER_SIZE + COOKIE_SIZE)
#define MESSAGE_MIN 300  /* RFC 1542 section 2.1: BOOTP's size, which some clients insist on */
#define DATAGRAM_MIN 576 /* what every client takes: RFC 2131 section 2 */
#define DATAGRAM_HEADERS 28
#define FLAG_BROADCAST 0x8000u

static const uint8_t cookie[COOKIE_SIZE] = {99, 130, 83, 99};

enum {
    OPTION_PAD = 0,
    OPTION_MASK = 1,
    OPTION_ROUTER = 3,
    OPTION_DNS = 6,
    OPTION_HOST_NAME = 12,
    OPTION_DOMAIN = 15,
    OPTION_MTU = 26,
    OPTION_BROADCAST = 28,
    OPTION_NTP = 42,
    OPTION_REQUESTED = 50,
    OPTION_LEASE = 51,
    OPTION_OVERLOAD = 52,
    OPTION_TYPE = 53,
    OPTION_SERVER = 54,
    OPTION_MESSAGE = 56,
    OPTION_SIZE_MAX = 57,
    OPTION_T1 = 58,
    OPTION_T2 = 59,
    OPTION_CLIENT_ID = 61,
    OPTION_SEARCH = 119, /* RFC 3397 */
    OPTION_END = 255,
};

static uint16_t get_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)get_u16(bytes) << 16 | get_u16(bytes + 2);
}

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

/* An address, or absent when it is 0.0.0.0. */
static struct ip get_ip(const uint8_t *bytes)
{
    struct ip ip = ip_from_bytes(AF_INET, bytes);

    return ip_is_unspecified(&ip) ? (struct ip){0} : ip;
}

/* --- reading --- */

/* False when an option has a length that it can't have. */
static bool option_take(struct dhcp4_request *request, uint8_t code, const uint8_t *data,
                        uint8_t length, uint8_t *overload)
{
    switch (code) {
    case OPTION_TYPE:
        request->type = data[0];
        return length == 1 && data[0] >= DHCP4_DISCOVER && data[0] <= DHCP4_INFORM;
    case OPTION_REQUESTED:
        if (length == 4)
            request->requested = get_ip(data);
        return length == 4;
    case OPTION_SERVER:
        if (length == 4)
            request->server = get_ip(data);
        return length == 4;
    case OPTION_SIZE_MAX:
        if (length == 2)
            request->size_max = get_u16(data);
        return length == 2;
    case OPTION_OVERLOAD:
        *overload = data[0];
        return length == 1;
    case OPTION_CLIENT_ID:
        memcpy(request->client_id, data, length);
        request->client_id_length = length;
        return true;
    default:
        return true;
    }
}

/* Options may end without an end mark; a length beyond the field's end is malformed. */
static bool options_take(struct dhcp4_request *request, const uint8_t *data, size_t length,
                         uint8_t *overload)
{
    size_t at = 0;

    while (at < length && data[at] != OPTION_END) {
        uint8_t code = data[at++];

        if (code == OPTION_PAD)
            continue;
        if (at == length || data[at] > length - at - 1)
            return false;
        if (data[at] > 0 && !option_take(request, code, data + at + 1, data[at], overload))
            return false;
        at += 1u + data[at];
    }
    return true;
}

/* RFC 2131 section 2; relayed messages (hops, giaddr) are refused. */
static bool header_take(struct dhcp4_request *request, const uint8_t *data)
{
    static const uint8_t zero[16];

    if (data[0] != 1 || data[1] != 1 || data[2] != 6 || data[3] != 0)
        return false;
    if (memcmp(data + 24, zero, 4) != 0 || memcmp(data + HEADER_SIZE, cookie, COOKIE_SIZE) != 0)
        return false;
    request->xid = get_u32(data + 4);
    request->flags = get_u16(data + 10);
    request->ciaddr = get_ip(data + 12);
    memcpy(request->chaddr.bytes, data + 28, 6);
    return true;
}

bool dhcp4_request_parse(const uint8_t *data, size_t length, struct dhcp4_request *ret_request)
{
    struct dhcp4_request request = {0};
    uint8_t overload = 0;
    uint8_t nested = 0; /* an overload within an overloaded field means nothing */

    if (length < OPTIONS_START || !header_take(&request, data) ||
        !options_take(&request, data + OPTIONS_START, length - OPTIONS_START, &overload))
        return false;
    if ((overload & 1) && !options_take(&request, data + 108, 128, &nested))
        return false;
    if ((overload & 2) && !options_take(&request, data + 44, 64, &nested))
        return false;
    if (request.type == 0)
        return false;
    *ret_request = request;
    return true;
}

/* --- writing --- */

struct writer {
    uint8_t *data;
    size_t length;
    size_t size; /* room for the end mark is kept apart */
};

static void option_put(struct writer *writer, uint8_t code, const void *data, size_t length)
{
    if (length == 0 || length > 255 || writer->size - writer->length < length + 2)
        return;
    writer->data[writer->length++] = code;
    writer->data[writer->length++] = (uint8_t)length;
    memcpy(writer->data + writer->length, data, length);
    writer->length += length;
}

static void option_put_u8(struct writer *writer, uint8_t code, unsigned value)
{
    uint8_t byte = (uint8_t)value;

    option_put(writer, code, &byte, 1);
}

static void option_put_u16(struct writer *writer, uint8_t code, uint32_t value)
{
    uint8_t bytes[2];

    put_u16(bytes, value);
    option_put(writer, code, bytes, sizeof(bytes));
}

static void option_put_u32(struct writer *writer, uint8_t code, uint32_t value)
{
    uint8_t bytes[4];

    put_u32(bytes, value);
    option_put(writer, code, bytes, sizeof(bytes));
}

static void option_put_text(struct writer *writer, uint8_t code, const char *text)
{
    option_put(writer, code, text, strlen(text));
}

static void option_put_servers(struct writer *writer, uint8_t code,
                               const struct dhcp_servers *servers)
{
    uint8_t bytes[DHCP_SERVERS_MAX * 4];

    for (uint32_t i = 0; i < servers->count; i++)
        memcpy(bytes + (size_t)i * 4, servers->items[i].bytes, 4);
    option_put(writer, code, bytes, (size_t)servers->count * 4);
}

/* False when the name or one of its labels can't be written so. */
static bool name_write(const char *name, uint8_t *buffer, size_t size, size_t *at)
{
    size_t start = *at;

    while (*name) {
        size_t length = strcspn(name, ".");

        if (length == 0 || length > 63 || *at + length + 2 > size || *at - start + length > 253) {
            *at = start;
            return false;
        }
        buffer[(*at)++] = (uint8_t)length;
        memcpy(buffer + *at, name, length);
        *at += length;
        name += length + (name[length] == '.');
    }
    buffer[(*at)++] = 0;
    return true;
}

size_t dhcp_search_write(const struct dhcp_port *port, uint8_t *buffer, size_t size)
{
    size_t length = 0;

    for (uint32_t i = 0; i < port->n_search; i++) {
        if (port->search[i][0] && size > length)
            (void)name_write(port->search[i], buffer, size, &length);
    }
    return length;
}

/* More than 255 bytes go into several options of that code (RFC 3396), which the client joins. */
static void put_search(struct writer *writer, const struct dhcp_port *port)
{
    uint8_t names[DHCP4_MESSAGE_MAX];
    size_t room = writer->size - writer->length;
    size_t headers = 2 * (room / 257 + 1);
    size_t length = room > headers ? dhcp_search_write(port, names, room - headers) : 0;

    for (size_t at = 0; at < length; at += 255)
        option_put(writer, OPTION_SEARCH, names + at, length - at < 255 ? length - at : 255);
}

static void put_lease(struct writer *writer, const struct dhcp_port *port)
{
    option_put_u32(writer, OPTION_LEASE, port->lease_s);
    option_put_u32(writer, OPTION_T1, port->lease_s / 2);
    option_put_u32(writer, OPTION_T2, port->lease_s / 8 * 7);
}

/* What the guest should know, the needful first: what does not fit is left out. */
static void put_settings(struct writer *writer, const struct dhcp_port *port)
{
    struct cidr subnet = {port->ip, port->prefix};
    struct ip last = cidr_last(&subnet);
    uint32_t mask = port->prefix ? UINT32_MAX << (32 - port->prefix) : 0;

    option_put_u32(writer, OPTION_MASK, mask);
    if (port->default_route)
        option_put(writer, OPTION_ROUTER, port->gateway.bytes, 4);
    option_put_servers(writer, OPTION_DNS, &port->dns);
    option_put_u16(writer, OPTION_MTU, port->mtu > UINT16_MAX ? UINT16_MAX : port->mtu);
    option_put_text(writer, OPTION_HOST_NAME, port->host_name);
    if (port->n_search)
        option_put_text(writer, OPTION_DOMAIN, port->search[0]);
    option_put(writer, OPTION_BROADCAST, last.bytes, 4);
    option_put_servers(writer, OPTION_NTP, &port->ntp);
    put_search(writer, port);
}

static size_t reply_size(const struct dhcp_port *port, const struct dhcp4_request *request)
{
    size_t datagram = request->size_max > DATAGRAM_MIN ? request->size_max : DATAGRAM_MIN;

    if (port->mtu >= DATAGRAM_MIN && datagram > port->mtu)
        datagram = port->mtu;
    if (datagram > DHCP4_MESSAGE_MAX + DATAGRAM_HEADERS)
        datagram = DHCP4_MESSAGE_MAX + DATAGRAM_HEADERS;
    return datagram - DATAGRAM_HEADERS;
}

/* RFC 2131 table 3. */
static void header_put(const struct dhcp_port *port, const struct dhcp4_request *request,
                       enum dhcp4_type type, uint8_t *data)
{
    memset(data, 0, HEADER_SIZE);
    data[0] = 2;
    data[1] = 1;
    data[2] = 6;
    put_u32(data + 4, request->xid);
    put_u16(data + 10, request->flags);
    if (type == DHCP4_ACK && ip_is_set(&request->ciaddr))
        memcpy(data + 12, request->ciaddr.bytes, 4);
    if (type != DHCP4_NAK && request->type != DHCP4_INFORM)
        memcpy(data + 16, port->ip.bytes, 4);
    memcpy(data + 28, request->chaddr.bytes, 6);
    memcpy(data + HEADER_SIZE, cookie, COOKIE_SIZE);
}

/* RFC 2131 section 4.1. */
static void address_reply(const struct dhcp_port *port, const struct dhcp4_request *request,
                          struct dhcp4_reply *reply)
{
    static const struct ip everybody = {AF_INET, {255, 255, 255, 255}};

    reply->broadcast = false;
    if (reply->type != DHCP4_NAK && ip_is_set(&request->ciaddr)) {
        reply->destination = request->ciaddr;
    } else if (reply->type == DHCP4_NAK || (request->flags & FLAG_BROADCAST)) {
        reply->destination = everybody;
        reply->broadcast = true;
    } else {
        reply->destination = port->ip;
    }
}

static void reply_write(const struct dhcp_port *port, const struct dhcp4_request *request,
                        struct dhcp4_reply *reply)
{
    struct writer writer = {
        .data = reply->data, .length = OPTIONS_START, .size = reply_size(port, request) - 1};

    header_put(port, request, reply->type, reply->data);
    option_put_u8(&writer, OPTION_TYPE, reply->type);
    option_put(&writer, OPTION_SERVER, port->gateway.bytes, 4);
    if (reply->type == DHCP4_NAK)
        option_put_text(&writer, OPTION_MESSAGE, "this is not the address of this guest");
    if (reply->type != DHCP4_NAK && request->type != DHCP4_INFORM)
        put_lease(&writer, port);
    /* RFC 6842: the client finds its own identifier in the answer. */
    option_put(&writer, OPTION_CLIENT_ID, request->client_id, request->client_id_length);
    if (reply->type != DHCP4_NAK)
        put_settings(&writer, port);
    reply->data[writer.length++] = OPTION_END;
    if (writer.length < MESSAGE_MIN) {
        memset(reply->data + writer.length, 0, MESSAGE_MIN - writer.length);
        writer.length = MESSAGE_MIN;
    }
    reply->length = writer.length;
    address_reply(port, request, reply);
}

/* --- deciding --- */

/* RFC 2131 section 4.3.2: which state the client is in shows by what it gives. The address in
 * question is the requested one, or the one that it has. */
static enum dhcp4_type request_decide(const struct dhcp_port *port,
                                      const struct dhcp4_request *request)
{
    const struct ip *wanted =
        ip_is_set(&request->requested) ? &request->requested : &request->ciaddr;

    if (!ip_is_set(wanted))
        return 0;
    return ip_equal(wanted, &port->ip) ? DHCP4_ACK : DHCP4_NAK;
}

/* 0: no answer. */
static enum dhcp4_type decide(const struct dhcp_port *port, const struct dhcp4_request *request)
{
    if (ip_is_set(&request->server) && !ip_equal(&request->server, &port->gateway))
        return 0; /* it took another server's offer */
    switch (request->type) {
    case DHCP4_DISCOVER:
        return DHCP4_OFFER;
    case DHCP4_REQUEST:
        return request_decide(port, request);
    case DHCP4_INFORM:
        return ip_equal(&request->ciaddr, &port->ip) ? DHCP4_ACK : 0;
    default:
        return 0;
    }
}

bool dhcp4_answer(const struct dhcp_port *port, const struct dhcp4_request *request,
                  struct dhcp4_reply *ret_reply)
{
    if (!ip_is_set(&port->ip) || !mac_equal(&request->chaddr, &port->mac))
        return false;
    ret_reply->type = decide(port, request);
    if (ret_reply->type == 0)
        return false;
    reply_write(port, request, ret_reply);
    return true;
}
