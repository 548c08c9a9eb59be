/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/model.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

static const char *const mode_names[] = {
    [MODE_DISABLED] = "disabled",
    [MODE_LOOPBACK] = "loopback",
    [MODE_OUTBOUND] = "outbound",
    [MODE_FULL] = "full",
};

static const char *const kind_names[] = {
    [KIND_NETNS] = "netns",
    [KIND_TAP] = "tap",
};

static_assert(ARRAY_SIZE(mode_names) == MODE_COUNT_, "a name for each mode");
static_assert(ARRAY_SIZE(kind_names) == KIND_COUNT_, "a name for each kind");

/* Index of the text among the names, or -EINVAL. */
static int names_find(const char *const *names, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], text) == 0)
            return (int)i;
    return -EINVAL;
}

const char *guest_mode_name(enum guest_mode mode)
{
    assert((unsigned)mode < MODE_COUNT_);
    return mode_names[mode];
}

int guest_mode_parse(const char *text, enum guest_mode *ret_mode)
{
    int found = names_find(mode_names, ARRAY_SIZE(mode_names), text);

    if (found < 0)
        return found;
    *ret_mode = (enum guest_mode)found;
    return 0;
}

const char *guest_kind_name(enum guest_kind kind)
{
    assert((unsigned)kind < KIND_COUNT_);
    return kind_names[kind];
}

int guest_kind_parse(const char *text, enum guest_kind *ret_kind)
{
    int found = names_find(kind_names, ARRAY_SIZE(kind_names), text);

    if (found < 0)
        return found;
    *ret_kind = (enum guest_kind)found;
    return 0;
}

void opening_deinit(struct opening *opening)
{
    strings_deinit(&opening->ports);
}

static void openings_free(struct opening *openings, size_t count)
{
    for (size_t i = 0; i < count; i++)
        opening_deinit(&openings[i]);
    free(openings);
}

void network_deinit(struct network *network)
{
    ips_deinit(&network->dns_servers);
    labels_deinit(&network->labels);
    strings_deinit(&network->guests);
    openings_free(network->allowed_to, network->n_allowed_to);
    openings_free(network->allowed_from, network->n_allowed_from);
    network->allowed_to = network->allowed_from = NULL;
    network->n_allowed_to = network->n_allowed_from = 0;
}

void endpoint_deinit(struct endpoint *endpoint)
{
    strings_deinit(&endpoint->aliases);
}

void policy_deinit(struct policy *policy)
{
    strings_deinit(&policy->allow);
    strings_deinit(&policy->deny);
}

static void vmm_deinit(struct vmm *vmm)
{
    for (size_t i = 0; i < vmm->n_interfaces; i++)
        ips_deinit(&vmm->interfaces[i].dns);
    free(vmm->interfaces);
    free(vmm->devices);
    *vmm = (struct vmm){0};
}

void guest_deinit(struct guest *guest)
{
    for (size_t i = 0; i < guest->n_endpoints; i++)
        endpoint_deinit(&guest->endpoints[i]);
    free(guest->endpoints);
    guest->endpoints = NULL;
    guest->n_endpoints = 0;
    free(guest->ports);
    guest->ports = NULL;
    guest->n_ports = 0;
    free(guest->netns);
    guest->netns = NULL;
    policy_deinit(&guest->policy);
    strings_deinit(&guest->hosts);
    ips_deinit(&guest->dns);
    strings_deinit(&guest->dns_search);
    labels_deinit(&guest->labels);
    vmm_deinit(&guest->vmm);
    guest->has_vmm = false;
}

void dns_record_deinit(struct dns_record *record)
{
    free(record->value);
    record->value = NULL;
}

void dns_records_free(struct dns_record *records, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dns_record_deinit(&records[i]);
    free(records);
}

/* --- PORT --- */

/* A parse in progress: `rest` is what is not consumed yet, the other members are for error texts.
 */
struct port_text {
    char *rest;
    const char *whole;
    const char *field;
    struct error *error;
};

struct port_range {
    uint16_t first;
    uint16_t count;
};

__attribute__((format(printf, 2, 3))) static int port_refuse(const struct port_text *text,
                                                             const char *format, ...)
{
    char detail[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(detail, sizeof(detail), format, arguments);
    va_end(arguments);
    return error_set_field(text->error, text->field, "port \"%.*s\": %s", PORT_TEXT_MAX,
                           text->whole, detail);
}

static int protocol_parse(struct port_text *text, uint8_t *ret_protocol)
{
    char *slash = strchr(text->rest, '/');

    *ret_protocol = IPPROTO_TCP;
    if (!slash)
        return 0;
    *slash = '\0';
    if (strcmp(slash + 1, "tcp") == 0)
        return 0;
    if (strcmp(slash + 1, "udp") != 0)
        return port_refuse(text, "\"%.20s\" is not a protocol; use /tcp or /udp", slash + 1);
    *ret_protocol = IPPROTO_UDP;
    return 0;
}

/* Consumes "HOST_IP:" if it is there. An IPv6 address stands in brackets; an IPv4 one has dots. */
static int host_ip_parse(struct port_text *text, struct ip *ret_ip)
{
    bool bracket = text->rest[0] == '[';
    char *start = text->rest + bracket;
    char *end = strpbrk(start, bracket ? "]" : ":");

    if (!bracket && (!end || !memchr(start, '.', (size_t)(end - start))))
        return 0;
    if (!end)
        return port_refuse(text, "the bracket is not closed; write [ADDRESS]:HOST_PORT:GUEST_PORT");
    if (bracket && end[1] != ':')
        return port_refuse(text, "a colon must follow the address in brackets");
    *end = '\0';
    if (ip_parse(start, ret_ip) < 0 || bracket != (ret_ip->family == AF_INET6))
        return port_refuse(text, "\"%.50s\" is not an %s address of the host", start,
                           bracket ? "IPv6" : "IPv4");
    if (ip_is_multicast(ret_ip))
        return port_refuse(text, "%s is a multicast address; use an address of the host", start);
    text->rest = end + 1 + bracket;
    return 0;
}

/* 1–65535 in decimal without sign or leading zeros. */
static int number_parse(const struct port_text *text, const char *number, uint16_t *ret_number)
{
    size_t length = strspn(number, "0123456789");
    unsigned value = 0;

    if (length == 0 || number[length] != '\0' || (number[0] == '0' && length > 1))
        return port_refuse(text, "\"%.20s\" is not a port number", number);
    for (size_t i = 0; i < length && value <= UINT16_MAX; i++)
        value = value * 10 + (unsigned)(number[i] - '0');
    if (value == 0 || value > UINT16_MAX)
        return port_refuse(text, "%.20s is out of range; ports are 1 to 65535", number);
    *ret_number = (uint16_t)value;
    return 0;
}

static int range_parse(const struct port_text *text, char *range, struct port_range *ret_range)
{
    char *dash = strchr(range, '-');
    uint16_t first;
    uint16_t last;
    int r;

    if (dash)
        *dash = '\0';
    r = number_parse(text, range, &first);
    if (r < 0)
        return r;
    last = first;
    if (dash) {
        r = number_parse(text, dash + 1, &last);
        if (r < 0)
            return r;
    }
    if (last < first)
        return port_refuse(text, "the range %u-%u ends before it begins", first, last);
    *ret_range = (struct port_range){.first = first, .count = (uint16_t)(last - first + 1)};
    return 0;
}

/* What remains is [HOST_PORT[-END]:]GUEST_PORT[-END]. */
static int ranges_parse(struct port_text *text, struct port *port)
{
    char *colon = strchr(text->rest, ':');
    struct port_range host = {0};
    struct port_range guest;
    int r;

    if (colon)
        *colon = '\0';
    /* "HOST_IP::GUEST_PORT" is what Docker users write where the host port is to be chosen. */
    if (colon && (text->rest[0] != '\0' || !ip_is_set(&port->host_ip))) {
        r = range_parse(text, text->rest, &host);
        if (r < 0)
            return r;
    }
    r = range_parse(text, colon ? colon + 1 : text->rest, &guest);
    if (r < 0)
        return r;
    if (host.count > 0 && host.count != guest.count)
        return port_refuse(text,
                           "%u host ports can't lead to %u guest ports; make both ranges as long",
                           host.count, guest.count);
    port->host_port = host.first;
    port->guest_port = guest.first;
    port->count = guest.count;
    return 0;
}

int port_parse(const char *text, const char *field, struct port *ret_port, struct error *error)
{
    char buffer[PORT_TEXT_MAX];
    struct port_text parse = {.rest = buffer, .whole = text, .field = field, .error = error};
    struct port port = {0};
    int r;

    if (strlen(text) >= sizeof(buffer))
        return port_refuse(
            &parse, "too long; write [HOST_IP:][HOST_PORT[-END]:]GUEST_PORT[-END][/tcp|/udp]");
    memcpy(buffer, text, strlen(text) + 1);
    r = protocol_parse(&parse, &port.protocol);
    if (r < 0)
        return r;
    r = host_ip_parse(&parse, &port.host_ip);
    if (r < 0)
        return r;
    r = ranges_parse(&parse, &port);
    if (r < 0)
        return r;
    *ret_port = port;
    return 0;
}

/* "N" or "N-M"; the longest is 11 characters. */
static void range_format(uint16_t first, uint16_t count, char text[16])
{
    if (count > 1)
        snprintf(text, 16, "%u-%u", first, first + count - 1u);
    else
        snprintf(text, 16, "%u", first);
}

const char *port_format(const struct port *port, char text[PORT_TEXT_MAX])
{
    const char *protocol = port->protocol == IPPROTO_UDP ? "udp" : "tcp";
    char address[IP_TEXT_MAX];
    char host_ip[IP_TEXT_MAX + 3] = "";
    char host[16];
    char guest[16];

    ip_format(&port->host_ip, address);
    if (ip_is_set(&port->host_ip))
        snprintf(host_ip, sizeof(host_ip),
                 port->host_ip.family == AF_INET6 ? "[%s]:" : "%s:", address);
    range_format(port->host_port, port->count, host);
    range_format(port->guest_port, port->count, guest);
    if (port->host_port != 0)
        snprintf(text, PORT_TEXT_MAX, "%s%s:%s/%s", host_ip, host, guest, protocol);
    else
        snprintf(text, PORT_TEXT_MAX, "%s%s/%s", host_ip, guest, protocol);
    return text;
}
