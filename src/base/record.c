/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/address.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/name.h"

#define NAME_TEXT_MAX 253
#define NAME_WIRE_MAX 255
#define STRING_MAX 255 /* of one piece of a TXT record */

/* A name in the store's form, or as people write it. */
typedef char name_text[NAME_TEXT_MAX + 2];

struct srv {
    unsigned numbers[3]; /* priority, weight, port */
    const char *target;
};

/* --- types and names --- */

static const struct {
    uint16_t type;
    const char *name;
} types[] = {
    {RECORD_A, "A"},     {RECORD_AAAA, "AAAA"}, {RECORD_CNAME, "CNAME"},
    {RECORD_TXT, "TXT"}, {RECORD_SRV, "SRV"},
};

const char *record_type_name(uint16_t type)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (types[i].type == type)
            return types[i].name;
    return "";
}

int record_type_parse(const char *text, uint16_t *ret_type)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (strcasecmp(types[i].name, text) == 0) {
            *ret_type = types[i].type;
            return 0;
        }
    }
    return -EINVAL;
}

bool record_name_is_wildcard(const char *name)
{
    return name[0] == '*' && (name[1] == '.' || name[1] == '\0');
}

bool record_name_is_valid(const char *name)
{
    if (!record_name_is_wildcard(name))
        return name_is_dns(name);
    return strlen(name) <= NAME_TEXT_MAX && (name[1] == '\0' || name_is_dns(name + 2));
}

/* --- names in values --- */

/* How many characters of the name stand before the domain; 0: it does not end with it. */
static size_t length_before_domain(const char *name, const char *domain)
{
    size_t length = strlen(name);
    size_t domain_length = strlen(domain);

    if (length < domain_length + 2 || name[length - domain_length - 1] != '.' ||
        strcasecmp(name + length - domain_length, domain) != 0)
        return 0;
    return length - domain_length - 1;
}

/* -EINVAL: it is no name. The longest name below a domain must still be one. */
static int target_parse(const char *text, const char *domain, name_text ret_name)
{
    size_t length = strlen(text);
    bool whole = length > 0 && text[length - 1] == '.';
    size_t before;

    if (length == 0 || length > NAME_TEXT_MAX)
        return -EINVAL;
    for (size_t i = 0; i <= length; i++)
        ret_name[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i]);
    if (whole)
        ret_name[--length] = '\0';
    if (!name_is_dns(ret_name))
        return -EINVAL;
    before = length_before_domain(ret_name, domain);
    if (before > 0)
        ret_name[before] = '\0';
    else if (whole || strchr(ret_name, '.'))
        memcpy(ret_name + length, ".", 2);
    else if (length + 1 + strlen(domain) > NAME_TEXT_MAX)
        return -EINVAL;
    return 0;
}

static bool is_whole(const char *name)
{
    return name[strlen(name) - 1] == '.';
}

/* A whole name of several labels needs no dot to be taken for one again. */
static void target_format(const char *name, const char *domain, char text[NAME_WIRE_MAX])
{
    size_t length = strlen(name);

    if (!is_whole(name))
        snprintf(text, NAME_WIRE_MAX, "%s.%s", name, domain);
    else if (memchr(name, '.', length - 1))
        snprintf(text, NAME_WIRE_MAX, "%.*s", (int)length - 1, name);
    else
        snprintf(text, NAME_WIRE_MAX, "%s", name);
}

/* Returns its length; 0: too long. */
static uint16_t target_build(const char *name, const char *domain, uint8_t *wire)
{
    const char *const parts[] = {name, is_whole(name) ? "" : domain};
    size_t at = 0;

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        for (const char *label = parts[i]; *label;) {
            size_t length = strcspn(label, ".");

            if (length == 0) /* the root: "." */
                break;
            if (at + length + 2 > NAME_WIRE_MAX)
                return 0;
            wire[at] = (uint8_t)length;
            memcpy(wire + at + 1, label, length);
            at += length + 1;
            label += length + (label[length] == '.');
        }
    }
    wire[at++] = 0;
    return (uint16_t)at;
}

/* --- one type each --- */

static int address_parse(uint16_t type, const char *text, const char *field, char **ret_value,
                         struct error *error)
{
    bool v6 = type == RECORD_AAAA;
    char canonical[IP_TEXT_MAX];
    struct ip ip;

    if (ip_parse(text, &ip) < 0 || (ip.family == AF_INET6) != v6)
        return error_set_field(error, field, "%s: \"%.80s\" is not an %s address", field, text,
                               v6 ? "IPv6" : "IPv4");
    *ret_value = strdup(ip_format(&ip, canonical));
    return *ret_value ? 0 : error_set(error, ENOMEM, "record");
}

static int name_parse(const char *text, const char *domain, const char *field, char **ret_value,
                      struct error *error)
{
    name_text name;

    if (target_parse(text, domain, name) < 0)
        return error_set_field(error, field, "%s: \"%.80s\" is not a DNS name", field, text);
    *ret_value = strdup(name);
    return *ret_value ? 0 : error_set(error, ENOMEM, "record");
}

static int text_parse(const char *text, const char *field, char **ret_value, struct error *error)
{
    size_t length = strlen(text);

    if (length == 0 || length > RECORD_VALUE_MAX)
        return error_set_field(error, field, "%s: a text has 1 to %d bytes, not %zu", field,
                               RECORD_VALUE_MAX, length);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return error_set_field(error, field, "%s: a text has no control characters", field);
    *ret_value = strdup(text);
    return *ret_value ? 0 : error_set(error, ENOMEM, "record");
}

/* "PRIORITY WEIGHT PORT TARGET". False: it is something else. */
static bool srv_split(const char *text, struct srv *ret_srv)
{
    for (size_t i = 0; i < ARRAY_SIZE(ret_srv->numbers); i++) {
        size_t digits = strspn(text, "0123456789");
        unsigned number = 0;

        if (digits == 0 || digits > 5 || text[digits] != ' ')
            return false;
        for (size_t j = 0; j < digits; j++)
            number = number * 10 + (unsigned)(text[j] - '0');
        if (number > UINT16_MAX)
            return false;
        ret_srv->numbers[i] = number;
        text += digits;
        text += strspn(text, " ");
    }
    ret_srv->target = text;
    return true;
}

static int srv_parse(const char *text, const char *domain, const char *field, char **ret_value,
                     struct error *error)
{
    char canonical[NAME_TEXT_MAX + 32];
    name_text target = ".";
    struct srv srv;

    if (!srv_split(text, &srv) ||
        (strcmp(srv.target, ".") != 0 && target_parse(srv.target, domain, target) < 0))
        return error_set_field(error, field,
                               "%s: \"%.80s\" is not PRIORITY WEIGHT PORT TARGET, such as "
                               "\"10 5 5060 sip\"",
                               field, text);
    snprintf(canonical, sizeof(canonical), "%u %u %u %s", srv.numbers[0], srv.numbers[1],
             srv.numbers[2], target);
    *ret_value = strdup(canonical);
    return *ret_value ? 0 : error_set(error, ENOMEM, "record");
}

static void srv_format(const char *value, const char *domain, char text[RECORD_TEXT_MAX])
{
    char target[NAME_WIRE_MAX];
    struct srv srv = {.target = "."};

    srv_split(value, &srv);
    target_format(srv.target, domain, target);
    snprintf(text, RECORD_TEXT_MAX, "%u %u %u %s", srv.numbers[0], srv.numbers[1], srv.numbers[2],
             target);
}

static uint16_t address_build(const char *value, uint8_t *rdata)
{
    struct ip ip = {0};
    uint16_t length;

    if (ip_parse(value, &ip) < 0)
        return 0;
    length = ip.family == AF_INET6 ? 16 : 4;
    memcpy(rdata, ip.bytes, length);
    return length;
}

/* Texts above 255 bytes are several strings of one record. */
static uint16_t text_build(const char *value, uint8_t *rdata)
{
    size_t left = strlen(value);
    size_t at = 0;

    while (left > 0) {
        size_t length = left < STRING_MAX ? left : STRING_MAX;

        rdata[at] = (uint8_t)length;
        memcpy(rdata + at + 1, value, length);
        at += length + 1;
        value += length;
        left -= length;
    }
    return (uint16_t)at;
}

static uint16_t srv_build(const char *value, const char *domain, uint8_t *rdata)
{
    struct srv srv;
    uint16_t length;

    if (!srv_split(value, &srv))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(srv.numbers); i++) {
        rdata[2 * i] = (uint8_t)(srv.numbers[i] >> 8);
        rdata[2 * i + 1] = (uint8_t)srv.numbers[i];
    }
    length = target_build(srv.target, domain, rdata + 6);
    return length ? (uint16_t)(length + 6) : 0;
}

/* --- interface --- */

int record_value_parse(uint16_t type, const char *text, const char *domain, const char *field,
                       char **ret_value, struct error *error)
{
    switch (type) {
    case RECORD_A:
    case RECORD_AAAA:
        return address_parse(type, text, field, ret_value, error);
    case RECORD_CNAME:
        return name_parse(text, domain, field, ret_value, error);
    case RECORD_SRV:
        return srv_parse(text, domain, field, ret_value, error);
    default:
        return text_parse(text, field, ret_value, error);
    }
}

const char *record_value_format(uint16_t type, const char *value, const char *domain,
                                char text[RECORD_TEXT_MAX])
{
    if (type == RECORD_CNAME)
        target_format(value, domain, text);
    else if (type == RECORD_SRV)
        srv_format(value, domain, text);
    else
        snprintf(text, RECORD_TEXT_MAX, "%s", value);
    return text;
}

uint16_t record_rdata_build(uint16_t type, const char *value, const char *domain,
                            uint8_t rdata[RECORD_RDATA_MAX])
{
    switch (type) {
    case RECORD_A:
    case RECORD_AAAA:
        return address_build(value, rdata);
    case RECORD_CNAME:
        return target_build(value, domain, rdata);
    case RECORD_SRV:
        return srv_build(value, domain, rdata);
    default:
        return text_build(value, rdata);
    }
}
