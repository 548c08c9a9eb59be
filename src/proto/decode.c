/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON to structs. One function per type of field, in one table; every refusal names the member's
 * path, what it was given and what it takes. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/record.h"
#include "proto/codec.h"

#define PATH_MAX_LENGTH 64

struct decode {
    bool strict; /* params: unknown members and nulls of required members are refused */
    struct error *error;
};

static int decode_object(struct decode *decode, const cJSON *json,
                         const struct proto_object *object, const char *parent, void *data);

static const char *type_name(const cJSON *json)
{
    if (cJSON_IsObject(json))
        return "an object";
    if (cJSON_IsArray(json))
        return "an array";
    if (cJSON_IsString(json))
        return "a string";
    if (cJSON_IsNumber(json))
        return "a number";
    return cJSON_IsBool(json) ? "a boolean" : "null";
}

static int refuse_type(struct decode *decode, const cJSON *json, const char *path,
                       const char *wanted)
{
    return error_set_field(decode->error, path, "%s: takes %s, not %s", path, wanted,
                           type_name(json));
}

/* U+FFFF stands for an escaped NUL (request.c). */
static int check_string(struct decode *decode, const cJSON *json, const char *path)
{
    if (!cJSON_IsString(json))
        return refuse_type(decode, json, path, "a string");
    if (decode->strict && strstr(json->valuestring, "\xef\xbf\xbf"))
        return error_set_field(decode->error, path, "%s: contains a NUL character", path);
    return 0;
}

static int refuse_value(struct decode *decode, const char *path, const char *value,
                        const char *wanted)
{
    return error_set_field(decode->error, path, "%s: \"%.80s\" is not %s", path, value, wanted);
}

static int decode_text(struct decode *decode, const cJSON *json, const struct proto_field *field,
                       const char *path, char *text)
{
    size_t length = strlen(json->valuestring);

    if (length >= field->size)
        return error_set_field(decode->error, path, "%s: longer than %zu characters", path,
                               field->size - 1);
    memcpy(text, json->valuestring, length + 1);
    return 0;
}

/* The text must pass `valid`; `wanted` says what that is. */
static int decode_checked(struct decode *decode, const cJSON *json, const struct proto_field *field,
                          const char *path, char *text, bool (*valid)(const char *),
                          const char *wanted)
{
    if (decode->strict && !valid(json->valuestring))
        return refuse_value(decode, path, json->valuestring, wanted);
    return decode_text(decode, json, field, path, text);
}

static int decode_string(struct decode *decode, const cJSON *json, const struct proto_field *field,
                         const char *path, char **string)
{
    if (field->max && strlen(json->valuestring) > field->max)
        return error_set_field(decode->error, path, "%s: longer than %llu bytes", path,
                               (unsigned long long)field->max);
    if (decode->strict && !json->valuestring[0])
        return error_set_field(decode->error, path, "%s: is empty", path);
    *string = strdup(json->valuestring);
    return *string ? 0 : error_set(decode->error, ENOMEM, "decode");
}

static int decode_ip(struct decode *decode, const cJSON *json, const char *path, uint8_t family,
                     struct ip *ret_ip)
{
    const char *wanted = family == AF_INET    ? "an IPv4 address"
                         : family == AF_INET6 ? "an IPv6 address"
                                              : "an IP address";
    struct ip ip;

    if (ip_parse(json->valuestring, &ip) < 0 || (family && ip.family != family))
        return refuse_value(decode, path, json->valuestring, wanted);
    *ret_ip = ip;
    return 0;
}

static int decode_cidr(struct decode *decode, const cJSON *json, const char *path, uint8_t family,
                       struct cidr *ret_cidr)
{
    const char *wanted = family == AF_INET ? "an IPv4 prefix such as 10.1.0.0/24"
                                           : "an IPv6 prefix such as fd00:1::/64";
    struct cidr cidr;

    if (cidr_parse(json->valuestring, &cidr) < 0 || cidr.ip.family != family)
        return refuse_value(decode, path, json->valuestring, wanted);
    *ret_cidr = cidr;
    return 0;
}

static int decode_time(const char *text, bool milliseconds, int64_t *ret_time)
{
    struct tm tm = {0};
    unsigned fraction = 0;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

    if (!end)
        return -EINVAL;
    if (milliseconds && *end == '.')
        fraction = (unsigned)strtoul(end + 1, NULL, 10);
    *ret_time = (int64_t)timegm(&tm);
    if (milliseconds)
        *ret_time = *ret_time * 1000 + fraction;
    return 0;
}

/* Members whose JSON is a string. */
static int decode_from_string(struct decode *decode, const cJSON *json,
                              const struct proto_field *field, const char *path, void *member)
{
    const char *value = json->valuestring;

    switch (field->type) {
    case PROTO_TEXT:
        return decode_text(decode, json, field, path, member);
    case PROTO_STRING:
        return decode_string(decode, json, field, path, member);
    case PROTO_NAME:
        return decode_checked(decode, json, field, path, member, name_is_valid,
                              "a name: 1 to 63 of a-z, 0-9 and '-', not '-' first or last");
    case PROTO_IFNAME:
        return decode_checked(
            decode, json, field, path, member, name_is_interface,
            "an interface name: 1 to 15 characters, no '/', ':', '%' or space, and not "
            "all or default");
    case PROTO_DNSNAME:
        return decode_checked(decode, json, field, path, member, record_name_is_valid,
                              "a DNS name such as web or *.apps");
    case PROTO_IP:
        return decode_ip(decode, json, path, 0, member);
    case PROTO_IP4:
        return decode_ip(decode, json, path, AF_INET, member);
    case PROTO_IP6:
        return decode_ip(decode, json, path, AF_INET6, member);
    case PROTO_CIDR4:
        return decode_cidr(decode, json, path, AF_INET, member);
    case PROTO_CIDR6:
        return decode_cidr(decode, json, path, AF_INET6, member);
    case PROTO_MAC:
        return mac_parse(value, member) < 0 || !mac_is_set(member)
                   ? refuse_value(decode, path, value, "a MAC address such as 02:00:00:00:00:01")
                   : 0;
    case PROTO_MODE:
        return guest_mode_parse(value, member) < 0
                   ? refuse_value(decode, path, value,
                                  "a mode: disabled, loopback, outbound or full")
                   : 0;
    case PROTO_KIND:
        return guest_kind_parse(value, member) < 0
                   ? refuse_value(decode, path, value, "a kind: netns or tap")
                   : 0;
    case PROTO_RECORD:
        return record_type_parse(value, member) < 0
                   ? refuse_value(decode, path, value, "a type: " RECORD_TYPES)
                   : 0;
    case PROTO_PROTOCOL:
        *(uint8_t *)member = strcmp(value, "udp") == 0 ? IPPROTO_UDP : IPPROTO_TCP;
        return 0;
    case PROTO_TIME_S:
    case PROTO_TIME_MS:
        return decode_time(value, field->type == PROTO_TIME_MS, member) < 0
                   ? refuse_value(decode, path, value, "a time")
                   : 0;
    default:
        return 0; /* PROTO_STATE: says nothing new */
    }
}

static int decode_number(struct decode *decode, const cJSON *json, const struct proto_field *field,
                         const char *path, void *member)
{
    double value = json->valuedouble;
    uint64_t min = field->min;
    uint64_t max = field->max;

    if (!max)
        max = field->type == PROTO_UINT16   ? UINT16_MAX
              : field->type == PROTO_PREFIX ? 128
              : field->type == PROTO_UINT64 ? (uint64_t)1 << 53
                                            : UINT32_MAX - 1;
    if (!(value >= (double)min && value <= (double)max) || floor(value) != value)
        return error_set_field(decode->error, path,
                               "%s: takes a whole number from %llu to %llu, not %.15g", path,
                               (unsigned long long)min, (unsigned long long)max, value);
    if (field->type == PROTO_UINT16)
        *(uint16_t *)member = (uint16_t)value;
    else if (field->type == PROTO_PREFIX)
        *(uint8_t *)member = (uint8_t)value;
    else if (field->type == PROTO_PID)
        *(int32_t *)member = (int32_t)value;
    else if (field->type == PROTO_UINT64)
        *(uint64_t *)member = (uint64_t)value;
    else if (field->type == PROTO_ID)
        *(int64_t *)member = (int64_t)value;
    else
        *(uint32_t *)member = (uint32_t)value;
    return 0;
}

static int check_count(struct decode *decode, const cJSON *json, const struct proto_field *field,
                       const char *path)
{
    size_t count = (size_t)cJSON_GetArraySize(json);

    if (field->max && count > field->max)
        return error_set_field(decode->error, path, "%s: %zu items; at most %llu are taken", path,
                               count, (unsigned long long)field->max);
    if (count < field->min)
        return error_set_field(decode->error, path, "%s: is empty", path);
    return 0;
}

static int decode_strings(struct decode *decode, const cJSON *json, const struct proto_field *field,
                          const char *path, struct strings *strings)
{
    size_t index = 0;
    const cJSON *item;

    cJSON_ArrayForEach(item, json)
    {
        char item_path[PATH_MAX_LENGTH];
        int r;

        snprintf(item_path, sizeof(item_path), "%s[%zu]", path, index++);
        r = check_string(decode, item, item_path);
        if (r < 0)
            return r;
        if (decode->strict && strlen(item->valuestring) > 1024)
            return error_set_field(decode->error, item_path, "%s: longer than 1024 bytes",
                                   item_path);
        if (strings_add(strings, item->valuestring) < 0)
            return error_set(decode->error, ENOMEM, "decode");
    }
    (void)field;
    return 0;
}

static int decode_ips(struct decode *decode, const cJSON *json, const char *path, struct ips *ips)
{
    size_t index = 0;
    const cJSON *item;

    cJSON_ArrayForEach(item, json)
    {
        char item_path[PATH_MAX_LENGTH];
        struct ip ip;
        int r;

        snprintf(item_path, sizeof(item_path), "%s[%zu]", path, index++);
        r = check_string(decode, item, item_path);
        if (r < 0)
            return r;
        r = decode_ip(decode, item, item_path, 0, &ip);
        if (r < 0)
            return r;
        if (ips_add(ips, &ip) < 0)
            return error_set(decode->error, ENOMEM, "decode");
    }
    return 0;
}

static int decode_label(struct decode *decode, const cJSON *item, const char *path,
                        struct labels *labels)
{
    int r = check_string(decode, item, path);

    if (r < 0)
        return r;
    if (decode->strict && strstr(item->string, "\xef\xbf\xbf"))
        return error_set_field(decode->error, path, "%s: a key contains a NUL character", path);
    if (decode->strict && (!item->string[0] || strlen(item->string) > LIMIT_LABEL_KEY))
        return error_set_field(decode->error, path, "%s: a key has 1 to %d bytes", path,
                               LIMIT_LABEL_KEY);
    if (decode->strict && strlen(item->valuestring) > LIMIT_LABEL_VALUE)
        return error_set_field(decode->error, path, "%s: a value has at most %d bytes", path,
                               LIMIT_LABEL_VALUE);
    if (labels_set(labels, item->string, item->valuestring) < 0)
        return error_set(decode->error, ENOMEM, "decode");
    return 0;
}

static int decode_labels(struct decode *decode, const cJSON *json, const char *path,
                         struct labels *labels)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, json)
    {
        int r = decode_label(decode, item, path, labels);

        if (r < 0)
            return r;
    }
    return 0;
}

/* The array belongs to the struct from the start, so that its deinit frees a half-filled one. */
static int decode_objects(struct decode *decode, const cJSON *json, const struct proto_field *field,
                          const char *path, char *data)
{
    size_t count = (size_t)cJSON_GetArraySize(json);
    size_t *ret_count = (size_t *)(void *)(data + field->count_offset);
    char *items;
    const cJSON *item;

    if (count == 0)
        return 0;
    items = calloc(count, field->size);
    if (!items)
        return error_set(decode->error, ENOMEM, "decode");
    *(void **)(void *)(data + field->offset) = items;
    cJSON_ArrayForEach(item, json)
    {
        char item_path[PATH_MAX_LENGTH];
        void *target = items + *ret_count * field->size;
        int r;

        snprintf(item_path, sizeof(item_path), "%s[%zu]", path, *ret_count);
        if (!cJSON_IsObject(item))
            return refuse_type(decode, item, item_path, "an object");
        proto_object_init(field->object, target);
        ++*ret_count;
        r = decode_object(decode, item, field->object, item_path, target);
        if (r < 0)
            return r;
    }
    return 0;
}

enum json_kind { JSON_STRING, JSON_NUMBER, JSON_BOOL, JSON_ARRAY, JSON_OBJECT };

static enum json_kind kind_of(enum proto_type type)
{
    switch (type) {
    case PROTO_BOOL:
        return JSON_BOOL;
    case PROTO_UINT16:
    case PROTO_UINT32:
    case PROTO_UINT64:
    case PROTO_PREFIX:
    case PROTO_PID:
    case PROTO_ID:
        return JSON_NUMBER;
    case PROTO_STRINGS:
    case PROTO_IPS:
    case PROTO_OBJECTS:
        return JSON_ARRAY;
    case PROTO_LABELS:
    case PROTO_OBJECT:
        return JSON_OBJECT;
    default:
        return JSON_STRING;
    }
}

static int check_kind(struct decode *decode, const cJSON *json, enum json_kind kind,
                      const char *path)
{
    switch (kind) {
    case JSON_STRING:
        return check_string(decode, json, path);
    case JSON_NUMBER:
        return cJSON_IsNumber(json) ? 0 : refuse_type(decode, json, path, "a number");
    case JSON_BOOL:
        return cJSON_IsBool(json) ? 0 : refuse_type(decode, json, path, "true or false");
    case JSON_ARRAY:
        return cJSON_IsArray(json) ? 0 : refuse_type(decode, json, path, "an array");
    default:
        return cJSON_IsObject(json) ? 0 : refuse_type(decode, json, path, "an object");
    }
}

static int decode_field(struct decode *decode, const cJSON *json, const struct proto_field *field,
                        const char *path, char *data)
{
    void *member = data + field->offset;
    enum json_kind kind = kind_of(field->type);
    int r = check_kind(decode, json, kind, path);

    if (r < 0)
        return r;
    if (field->flags & PROTO_HAS)
        *(bool *)(void *)(data + field->has_offset) = true;
    if (kind == JSON_ARRAY || field->type == PROTO_LABELS) {
        r = check_count(decode, json, field, path);
        if (r < 0)
            return r;
    }
    switch (field->type) {
    case PROTO_BOOL:
        *(bool *)member = cJSON_IsTrue(json);
        return 0;
    case PROTO_STRINGS:
        return decode_strings(decode, json, field, path, member);
    case PROTO_IPS:
        return decode_ips(decode, json, path, member);
    case PROTO_LABELS:
        return decode_labels(decode, json, path, member);
    case PROTO_OBJECT:
        return decode_object(decode, json, field->object, path, member);
    case PROTO_OBJECTS:
        return decode_objects(decode, json, field, path, data);
    default:
        return kind == JSON_NUMBER ? decode_number(decode, json, field, path, member)
                                   : decode_from_string(decode, json, field, path, member);
    }
}

static const struct proto_field *find_field(const struct proto_object *object, const char *name,
                                            size_t *ret_index)
{
    for (size_t i = 0; i < object->n_fields; i++) {
        if (strcmp(object->fields[i].name, name) == 0) {
            *ret_index = i;
            return &object->fields[i];
        }
    }
    return NULL;
}

static void join_path(char path[PATH_MAX_LENGTH], const char *parent, const char *name)
{
    snprintf(path, PATH_MAX_LENGTH, "%s%s%.40s", parent, parent[0] ? "." : "", name);
}

static int check_required(struct decode *decode, const struct proto_object *object,
                          const char *parent, uint64_t seen)
{
    for (size_t i = 0; i < object->n_fields; i++) {
        char path[PATH_MAX_LENGTH];

        if (!(object->fields[i].flags & PROTO_REQUIRED) || (seen & (1ull << i)))
            continue;
        join_path(path, parent, object->fields[i].name);
        return error_set_field(decode->error, path, "%s: is missing", path);
    }
    return 0;
}

static int decode_object(struct decode *decode, const cJSON *json,
                         const struct proto_object *object, const char *parent, void *data)
{
    uint64_t seen = 0; /* members given, one bit each; no object has more than 64 */
    const cJSON *item;

    cJSON_ArrayForEach(item, json)
    {
        char path[PATH_MAX_LENGTH];
        size_t index = 0;
        const struct proto_field *field = find_field(object, item->string, &index);
        int r;

        join_path(path, parent, item->string);
        if (!field) {
            if (decode->strict)
                return error_set_field(decode->error, path, "%s: there is no such member", path);
            continue;
        }
        if (seen & (1ull << index))
            return error_set_field(decode->error, path, "%s: is given twice", path);
        if (cJSON_IsNull(item) && !decode->strict)
            continue; /* absent */
        seen |= 1ull << index;
        r = decode_field(decode, item, field, path, data);
        if (r < 0)
            return r;
    }
    return decode->strict ? check_required(decode, object, parent, seen) : 0;
}

int codec_decode_params(const cJSON *json, const struct proto_object *object, const char *path,
                        void *ret_data, struct error *error)
{
    struct decode decode = {.strict = true, .error = error};

    return decode_object(&decode, json, object, path, ret_data);
}

int codec_decode_result(const cJSON *json, const struct proto_object *object, void *ret_data,
                        struct error *error)
{
    struct decode decode = {.strict = false, .error = error};

    if (!cJSON_IsObject(json))
        return error_set(error, EPROTO, "the daemon answered %s instead of a %s", type_name(json),
                         object->name);
    return decode_object(&decode, json, object, "", ret_data);
}

void proto_object_init(const struct proto_object *object, void *ret_data)
{
    for (size_t i = 0; i < object->n_fields; i++) {
        const struct proto_field *field = &object->fields[i];
        void *member = (char *)ret_data + field->offset;

        if (field->type == PROTO_BOOL)
            *(bool *)member = field->fallback;
        else if (field->type == PROTO_ID)
            *(int64_t *)member = -1;
        else if (field->type == PROTO_OBJECT)
            proto_object_init(field->object, member);
    }
}
