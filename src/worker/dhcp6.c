/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dhcp6.h"

#include <string.h>

#include "worker/dhcp4.h"

#define HEADER_SIZE 4
#define OPTION_HEADER 4
#define IA_HEADER 12 /* IAID, T1, T2; a temporary one has the IAID only */
#define DUID_LL 3    /* RFC 8415 section 11.4 */
#define SERVER_ID_SIZE 10
#define NTP_SERVER_ADDRESS 1 /* RFC 5908 section 4.1 */

enum { /* RFC 8415 section 21.13 */
       STATUS_SUCCESS = 0,
       STATUS_NO_ADDRESS = 2,
       STATUS_NO_BINDING = 3,
       STATUS_NOT_ON_LINK = 4,
       STATUS_NO_PREFIX = 6,
};

static uint16_t get_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)get_u16(bytes) << 16 | get_u16(bytes + 2);
}

/* --- reading --- */

struct option {
    uint16_t code;
    uint16_t length;
    const uint8_t *data;
};

/* Takes the next option off the bytes. False at their end; malformed ones set *ret_bad. */
static bool option_next(const uint8_t **data, size_t *length, struct option *ret_option,
                        bool *ret_bad)
{
    if (*length == 0)
        return false;
    if (*length < OPTION_HEADER || get_u16(*data + 2) > *length - OPTION_HEADER) {
        *ret_bad = true;
        return false;
    }
    *ret_option = (struct option){get_u16(*data), get_u16(*data + 2), *data + OPTION_HEADER};
    *data += OPTION_HEADER + ret_option->length;
    *length -= OPTION_HEADER + (size_t)ret_option->length;
    return true;
}

static bool duid_take(const struct option *option, uint8_t *duid, uint8_t *ret_length)
{
    if (option->length < 3 || option->length > DHCP6_DUID_MAX || *ret_length != 0)
        return false;
    memcpy(duid, option->data, option->length);
    *ret_length = (uint8_t)option->length;
    return true;
}

static bool ia_take(struct dhcp6_request *request, const struct option *option)
{
    size_t header = option->code == DHCP6_OPTION_IA_TA ? 4 : IA_HEADER;
    struct dhcp6_ia *ia = &request->ias[request->n_ias];
    const uint8_t *data = option->data + header;
    struct option inner;
    size_t length;
    bool bad = false;

    if (option->length < header || request->n_ias == DHCP6_IAS_MAX)
        return false;
    *ia = (struct dhcp6_ia){.kind = option->code, .iaid = get_u32(option->data)};
    length = option->length - header;
    while (option_next(&data, &length, &inner, &bad)) {
        if (inner.code != DHCP6_OPTION_ADDRESS || ia->n_addresses == DHCP6_ADDRESSES_MAX)
            continue;
        if (inner.length < 24)
            return false;
        ia->addresses[ia->n_addresses++] = ip_from_bytes(AF_INET6, inner.data);
    }
    request->n_ias++;
    return !bad;
}

static bool option_take(struct dhcp6_request *request, const struct option *option)
{
    switch (option->code) {
    case DHCP6_OPTION_CLIENT_ID:
        return duid_take(option, request->client_id, &request->client_id_length);
    case DHCP6_OPTION_SERVER_ID:
        return duid_take(option, request->server_id, &request->server_id_length);
    case DHCP6_OPTION_IA_NA:
    case DHCP6_OPTION_IA_TA:
    case DHCP6_OPTION_IA_PD:
        return ia_take(request, option);
    case DHCP6_OPTION_RAPID_COMMIT:
        request->rapid_commit = true;
        return true;
    default:
        return true;
    }
}

bool dhcp6_request_parse(const uint8_t *data, size_t length, struct dhcp6_request *ret_request)
{
    struct dhcp6_request request = {0};
    struct option option;
    bool bad = false;

    if (length < HEADER_SIZE || data[0] < DHCP6_SOLICIT || data[0] > DHCP6_INFORMATION_REQUEST)
        return false;
    request.type = data[0];
    if (request.type == DHCP6_ADVERTISE || request.type == DHCP6_REPLY ||
        request.type == DHCP6_RECONFIGURE)
        return false;
    memcpy(request.xid, data + 1, sizeof(request.xid));
    data += HEADER_SIZE;
    length -= HEADER_SIZE;
    while (option_next(&data, &length, &option, &bad)) {
        if (!option_take(&request, &option))
            return false;
    }
    if (bad)
        return false;
    *ret_request = request;
    return true;
}

/* --- writing --- */

struct writer {
    struct dhcp6_reply *reply;
    bool full;
};

static uint8_t *reserve(struct writer *writer, size_t size)
{
    struct dhcp6_reply *reply = writer->reply;
    uint8_t *at = reply->data + reply->length;

    if (size > sizeof(reply->data) - reply->length) {
        writer->full = true;
        return NULL;
    }
    reply->length += size;
    return at;
}

static void put_u16(uint8_t *bytes, size_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static void put_u32(uint8_t *bytes, uint32_t value)
{
    put_u16(bytes, value >> 16);
    put_u16(bytes + 2, value & 0xffff);
}

/* The option's data, to be filled; NULL when it does not fit. */
static uint8_t *option_put(struct writer *writer, uint16_t code, size_t length)
{
    uint8_t *at = reserve(writer, OPTION_HEADER + length);

    if (!at)
        return NULL;
    put_u16(at, code);
    put_u16(at + 2, length);
    return at + OPTION_HEADER;
}

static void option_put_bytes(struct writer *writer, uint16_t code, const void *bytes, size_t length)
{
    uint8_t *data = option_put(writer, code, length);

    if (data && length)
        memcpy(data, bytes, length);
}

static void put_status(struct writer *writer, uint16_t status)
{
    uint8_t *data = option_put(writer, DHCP6_OPTION_STATUS, 2);

    if (data)
        put_u16(data, status);
}

static void put_address(struct writer *writer, const struct ip *ip, uint32_t lifetime_s)
{
    uint8_t *data = option_put(writer, DHCP6_OPTION_ADDRESS, 24);

    if (!data)
        return;
    memcpy(data, ip->bytes, 16);
    put_u32(data + 16, lifetime_s);
    put_u32(data + 20, lifetime_s);
}

static void server_id_write(const struct dhcp_port *port, uint8_t id[SERVER_ID_SIZE])
{
    put_u16(id, DUID_LL);
    put_u16(id + 2, 1); /* Ethernet */
    memcpy(id + 4, port->server_mac.bytes, 6);
}

static void put_servers(struct writer *writer, const struct dhcp_port *port)
{
    uint8_t *data;

    if (port->dns6.count) {
        data = option_put(writer, DHCP6_OPTION_DNS, (size_t)port->dns6.count * 16);
        for (uint32_t i = 0; data && i < port->dns6.count; i++)
            memcpy(data + (size_t)i * 16, port->dns6.items[i].bytes, 16);
    }
    if (port->ntp6.count) {
        data = option_put(writer, DHCP6_OPTION_NTP, (size_t)port->ntp6.count * 20);
        for (uint32_t i = 0; data && i < port->ntp6.count; i++, data += 20) {
            put_u16(data, NTP_SERVER_ADDRESS);
            put_u16(data + 2, 16);
            memcpy(data + 4, port->ntp6.items[i].bytes, 16);
        }
    }
}

static void put_settings(struct writer *writer, const struct dhcp_port *port)
{
    uint8_t names[512];
    size_t length = dhcp_search_write(port, names, sizeof(names));

    put_servers(writer, port);
    if (length)
        option_put_bytes(writer, DHCP6_OPTION_SEARCH, names, length);
}

/* --- identity associations --- */

static bool ia_has(const struct dhcp6_ia *ia, const struct ip *ip)
{
    for (uint32_t i = 0; i < ia->n_addresses; i++) {
        if (ip_equal(&ia->addresses[i], ip))
            return true;
    }
    return false;
}

/* Addresses that the client holds without right are taken from it: lifetime 0 (section 18.3.4). */
static void put_foreign_addresses(struct writer *writer, const struct dhcp_port *port,
                                  const struct dhcp6_ia *ia)
{
    for (uint32_t i = 0; i < ia->n_addresses; i++) {
        if (!ip_equal(&ia->addresses[i], &port->ip6))
            put_address(writer, &ia->addresses[i], 0);
    }
}

static void put_granted(struct writer *writer, const struct dhcp_port *port,
                        const struct dhcp6_request *request, const struct dhcp6_ia *ia)
{
    put_address(writer, &port->ip6, port->lease_s);
    if (request->type == DHCP6_RENEW || request->type == DHCP6_REBIND)
        put_foreign_addresses(writer, port, ia);
}

/* The option's length is known at its end. */
static void put_ia(struct writer *writer, const struct dhcp_port *port,
                   const struct dhcp6_request *request, const struct dhcp6_ia *ia, bool granted,
                   uint16_t refusal)
{
    size_t header = ia->kind == DHCP6_OPTION_IA_TA ? 4 : IA_HEADER;
    size_t start = writer->reply->length;
    uint8_t *data = option_put(writer, ia->kind, header);

    if (!data)
        return;
    memset(data, 0, header);
    put_u32(data, ia->iaid);
    if (granted) {
        put_u32(data + 4, port->lease_s / 2);
        put_u32(data + 8, port->lease_s / 5 * 4);
        put_granted(writer, port, request, ia);
    } else {
        put_status(writer, refusal);
    }
    put_u16(writer->reply->data + start + 2, writer->reply->length - start - OPTION_HEADER);
}

/* One association has the address: the one that names it already, else the first. */
static uint32_t ia_choose(const struct dhcp_port *port, const struct dhcp6_request *request)
{
    uint32_t first = request->n_ias;

    for (uint32_t i = 0; i < request->n_ias; i++) {
        if (request->ias[i].kind != DHCP6_OPTION_IA_NA)
            continue;
        if (ia_has(&request->ias[i], &port->ip6))
            return i;
        if (first == request->n_ias)
            first = i;
    }
    return first;
}

static void put_ias(struct writer *writer, const struct dhcp_port *port,
                    const struct dhcp6_request *request)
{
    uint32_t chosen = ia_choose(port, request);

    for (uint32_t i = 0; i < request->n_ias; i++)
        put_ia(writer, port, request, &request->ias[i], i == chosen,
               request->ias[i].kind == DHCP6_OPTION_IA_PD ? STATUS_NO_PREFIX : STATUS_NO_ADDRESS);
}

/* --- deciding --- */

/* Section 18.3.3: the addresses of all associations; without any, the server stays silent. */
static bool confirm(struct writer *writer, const struct dhcp_port *port,
                    const struct dhcp6_request *request)
{
    struct cidr subnet = {port->ip6, port->prefix6};
    uint32_t count = 0;
    bool on_link = true;

    for (uint32_t i = 0; i < request->n_ias; i++) {
        for (uint32_t j = 0; j < request->ias[i].n_addresses; j++, count++)
            on_link = on_link && cidr_contains_ip(&subnet, &request->ias[i].addresses[j]);
    }
    put_status(writer, on_link ? STATUS_SUCCESS : STATUS_NOT_ON_LINK);
    return count > 0;
}

/* Sections 18.3.7 and 18.3.8: nothing is remembered, so what the client gives up is its own matter;
 * of what it never had there is no binding. */
static void release(struct writer *writer, const struct dhcp_port *port,
                    const struct dhcp6_request *request)
{
    put_status(writer, STATUS_SUCCESS);
    for (uint32_t i = 0; i < request->n_ias; i++) {
        if (!ia_has(&request->ias[i], &port->ip6))
            put_ia(writer, port, request, &request->ias[i], false, STATUS_NO_BINDING);
    }
}

static bool body_put(struct writer *writer, const struct dhcp_port *port,
                     const struct dhcp6_request *request)
{
    switch (request->type) {
    case DHCP6_CONFIRM:
        return confirm(writer, port, request);
    case DHCP6_RELEASE:
    case DHCP6_DECLINE:
        release(writer, port, request);
        return true;
    case DHCP6_INFORMATION_REQUEST: {
        uint8_t *data = option_put(writer, DHCP6_OPTION_REFRESH, 4);

        if (data)
            put_u32(data, port->lease_s < 600 ? 600 : port->lease_s); /* RFC 8415 section 21.23 */
        put_settings(writer, port);
        return true;
    }
    default:
        if (request->type == DHCP6_SOLICIT && request->rapid_commit)
            option_put_bytes(writer, DHCP6_OPTION_RAPID_COMMIT, NULL, 0);
        put_ias(writer, port, request);
        put_settings(writer, port);
        return true;
    }
}

/* Section 16: which identifiers a message has to have, and must not have. */
static bool identifiers_are_valid(const struct dhcp_port *port, const struct dhcp6_request *request)
{
    uint8_t own[SERVER_ID_SIZE];
    bool ours;

    server_id_write(port, own);
    ours = request->server_id_length == sizeof(own) &&
           memcmp(request->server_id, own, sizeof(own)) == 0;
    switch (request->type) {
    case DHCP6_SOLICIT:
    case DHCP6_CONFIRM:
    case DHCP6_REBIND:
        return request->client_id_length && !request->server_id_length;
    case DHCP6_INFORMATION_REQUEST:
        return (ours || !request->server_id_length) && request->n_ias == 0;
    default:
        return request->client_id_length && ours;
    }
}

bool dhcp6_answer(const struct dhcp_port *port, const struct dhcp6_request *request,
                  struct dhcp6_reply *ret_reply)
{
    struct writer writer = {.reply = ret_reply};
    bool advertise = request->type == DHCP6_SOLICIT && !request->rapid_commit;
    uint8_t server_id[SERVER_ID_SIZE];

    if (!ip_is_set(&port->ip6) || !identifiers_are_valid(port, request))
        return false;
    server_id_write(port, server_id);
    ret_reply->length = HEADER_SIZE;
    ret_reply->data[0] = advertise ? DHCP6_ADVERTISE : DHCP6_REPLY;
    memcpy(ret_reply->data + 1, request->xid, sizeof(request->xid));
    if (request->client_id_length)
        option_put_bytes(&writer, DHCP6_OPTION_CLIENT_ID, request->client_id,
                         request->client_id_length);
    option_put_bytes(&writer, DHCP6_OPTION_SERVER_ID, server_id, sizeof(server_id));
    return body_put(&writer, port, request) && !writer.full;
}
