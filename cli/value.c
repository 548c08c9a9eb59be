/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/record.h"
#include "option.h"

static const struct proto_field *member_find(const struct proto_object *object, const char *name,
                                             size_t length)
{
    for (size_t i = 0; i < object->n_fields; i++)
        if (strlen(object->fields[i].name) == length &&
            memcmp(object->fields[i].name, name, length) == 0)
            return &object->fields[i];
    return NULL;
}

/* Walks the path; marks each "has" of data on the way when data is not NULL. */
static const struct proto_field *path_walk(const struct proto_object *object, const char *path,
                                           char *data, size_t *ret_offset)
{
    size_t offset = 0;

    for (;;) {
        size_t length = strcspn(path, ".");
        const struct proto_field *field = member_find(object, path, length);

        if (!field)
            return NULL;
        if (data && (field->flags & PROTO_HAS))
            *(bool *)(void *)(data + offset + field->has_offset) = true;
        offset += field->offset;
        if (path[length] == '\0') {
            *ret_offset = offset;
            return field;
        }
        if (field->type != PROTO_OBJECT)
            return NULL;
        object = field->object;
        path += length + 1;
    }
}

const struct proto_field *value_field_find(const struct proto_object *object, const char *path,
                                           size_t *ret_offset)
{
    return path_walk(object, path, NULL, ret_offset);
}

static int refuse(struct error *error, const char *text, const char *wanted)
{
    return option_refuse(error, "\"%.80s\" is not %s", text, wanted);
}

static int set_text(const struct proto_field *field, char *member, const char *text,
                    struct error *error)
{
    if (strlen(text) >= field->size)
        return option_refuse(error, "\"%.40s…\" is longer than %zu bytes", text, field->size - 1);
    memcpy(member, text, strlen(text) + 1);
    return 0;
}

static int set_string(const struct proto_field *field, char **member, const char *text,
                      struct error *error)
{
    char *copy;

    if (text[0] == '\0')
        return option_refuse(error, "the value is empty");
    if (field->max && strlen(text) > field->max)
        return option_refuse(error, "\"%.40s…\" is longer than %llu bytes", text,
                             (unsigned long long)field->max);
    copy = strdup(text);
    if (!copy)
        return error_set(error, ENOMEM, "option");
    free(*member);
    *member = copy;
    return 0;
}

static int set_ip(uint8_t family, struct ip *member, const char *text, struct error *error)
{
    struct ip ip;

    if (ip_parse(text, &ip) < 0 || (family && ip.family != family))
        return refuse(error, text,
                      family == AF_INET    ? "an IPv4 address"
                      : family == AF_INET6 ? "an IPv6 address"
                                           : "an IP address");
    *member = ip;
    return 0;
}

static int set_cidr(uint8_t family, struct cidr *member, const char *text, struct error *error)
{
    struct cidr cidr;

    if (cidr_parse(text, &cidr) < 0 || cidr.ip.family != family)
        return refuse(error, text,
                      family == AF_INET ? "an IPv4 network; write it like 10.1.0.0/24"
                                        : "an IPv6 network; write it like fd00:1::/64");
    *member = cidr;
    return 0;
}

static int check_count(const struct proto_field *field, size_t count, struct error *error)
{
    if (field->max && count >= field->max)
        return option_refuse(error, "at most %llu of these are taken",
                             (unsigned long long)field->max);
    return 0;
}

static int add_ip(const struct proto_field *field, struct ips *member, const char *text,
                  struct error *error)
{
    struct ip ip;
    int r = set_ip(0, &ip, text, error);

    if (r == 0)
        r = check_count(field, member->count, error);
    if (r < 0)
        return r;
    r = ips_add(member, &ip);
    return r < 0 ? error_set(error, r, "option") : 0;
}

static int add_string(const struct proto_field *field, struct strings *member, const char *text,
                      struct error *error)
{
    int r;

    if (text[0] == '\0')
        return option_refuse(error, "the value is empty");
    r = check_count(field, member->count, error);
    if (r < 0)
        return r;
    r = strings_add(member, text);
    return r < 0 ? error_set(error, r, "option") : 0;
}

static int add_label(const struct proto_field *field, struct labels *member, const char *text,
                     struct error *error)
{
    size_t length = strcspn(text, "=");
    _cleanup_free_ char *key = strndup(text, length);
    int r;

    if (text[length] == '\0' || length == 0)
        return refuse(error, text, "a label; write it as KEY=VALUE");
    r = check_count(field, member->count, error);
    if (r < 0)
        return r;
    r = key ? labels_set(member, key, text + length + 1) : -ENOMEM;
    return r < 0 ? error_set(error, r, "option") : 0;
}

static int set_number(const struct proto_field *field, void *member, const char *text,
                      struct error *error)
{
    uint64_t max = field->max                    ? field->max
                   : field->type == PROTO_UINT16 ? UINT16_MAX
                                                 : UINT32_MAX - 1;
    size_t digits = strspn(text, "0123456789");
    uint64_t value = 0;

    for (size_t i = 0; i < digits && value <= max; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    if (digits == 0 || text[digits] != '\0' || value < field->min || value > max)
        return option_refuse(error, "\"%.40s\" is not a whole number from %llu to %llu", text,
                             (unsigned long long)field->min, (unsigned long long)max);
    if (field->type == PROTO_UINT16)
        *(uint16_t *)member = (uint16_t)value;
    else if (field->type == PROTO_UINT32)
        *(uint32_t *)member = (uint32_t)value;
    else
        *(int64_t *)member = (int64_t)value;
    return 0;
}

static int set_name(const struct proto_field *field, char *member, const char *text,
                    struct error *error)
{
    switch (field->type) {
    case PROTO_NAME:
        if (!name_is_valid(text))
            return refuse(error, text,
                          "a name: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end");
        break;
    case PROTO_IFNAME:
        if (!name_is_interface(text))
            return refuse(
                error, text,
                "an interface name: 1 to 15 characters without space, '/', ':' and '%', and "
                "not all or default");
        break;
    default:
        if (!record_name_is_valid(text))
            return refuse(error, text, "a DNS name such as web or *.apps");
    }
    return set_text(field, member, text, error);
}

/* Scalars with a set of words or a form of their own. */
static int set_form(const struct proto_field *field, void *member, const char *text,
                    struct error *error)
{
    switch (field->type) {
    case PROTO_MAC:
        return mac_parse(text, member) < 0 || !mac_is_set(member)
                   ? refuse(error, text, "a MAC address; write it like 02:00:00:00:00:01")
                   : 0;
    case PROTO_MODE:
        return guest_mode_parse(text, member) < 0
                   ? refuse(error, text, "a mode: disabled, loopback, outbound or full")
                   : 0;
    case PROTO_KIND:
        return guest_kind_parse(text, member) < 0 ? refuse(error, text, "a kind: netns or tap") : 0;
    default:
        return option_refuse(error, "can't be set from the command line");
    }
}

static int member_set(const struct proto_field *field, void *member, const char *text,
                      struct error *error)
{
    switch (field->type) {
    case PROTO_BOOL:
        *(bool *)member = true;
        return 0;
    case PROTO_TEXT:
        return set_text(field, member, text, error);
    case PROTO_STRING:
        return set_string(field, member, text, error);
    case PROTO_NAME:
    case PROTO_IFNAME:
    case PROTO_DNSNAME:
        return set_name(field, member, text, error);
    case PROTO_UINT16:
    case PROTO_UINT32:
    case PROTO_ID:
        return set_number(field, member, text, error);
    case PROTO_IP:
        return set_ip(0, member, text, error);
    case PROTO_IP4:
        return set_ip(AF_INET, member, text, error);
    case PROTO_IP6:
        return set_ip(AF_INET6, member, text, error);
    case PROTO_CIDR4:
        return set_cidr(AF_INET, member, text, error);
    case PROTO_CIDR6:
        return set_cidr(AF_INET6, member, text, error);
    case PROTO_STRINGS:
        return add_string(field, member, text, error);
    case PROTO_IPS:
        return add_ip(field, member, text, error);
    case PROTO_LABELS:
        return add_label(field, member, text, error);
    default:
        return set_form(field, member, text, error);
    }
}

int value_set(const struct proto_object *object, const char *path, void *params, const char *text,
              struct error *error)
{
    size_t offset;
    const struct proto_field *field = path_walk(object, path, params, &offset);

    if (!field)
        return error_set(error, 0, "there is no member \"%s\"", path);
    return member_set(field, (char *)params + offset, text ? text : "", error);
}
