/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/hook_call.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/dns_local.h"
#include "worker/dns_message.h"
#include "worker/json.h"

#define TEXT_MAX (1u << 20)
#define INTERFACE "io.systemd.Resolve.Hook."
#define RDATA_OFFSET 10 /* from the end of a record's owner */

/* What is asked for together. */
struct key {
    char name[DNS_DOMAIN_MAX];
    int64_t type;
    int64_t class;
};

struct call {
    char method[64];
    bool more;
    bool oneway;
    bool has_question;
    size_t n_keys;
    struct key keys[HOOK_KEYS_MAX];
};

/* --- the text --- */

static bool text_reserve(struct hook_text *text, size_t more)
{
    size_t size = text->size ? text->size : 512;
    char *data;

    while (size - text->length < more && size <= TEXT_MAX)
        size *= 2;
    if (size > TEXT_MAX)
        return false;
    if (size == text->size)
        return true;
    data = realloc(text->data, size);
    if (!data)
        return false;
    text->data = data;
    text->size = size;
    return true;
}

static void text_add_bytes(struct hook_text *text, const char *bytes, size_t length)
{
    if (text->failed || !text_reserve(text, length)) {
        text->failed = true;
        return;
    }
    memcpy(text->data + text->length, bytes, length);
    text->length += length;
}

static void text_add(struct hook_text *text, const char *words)
{
    text_add_bytes(text, words, strlen(words));
}

/* The end of a reply. */
static void text_end(struct hook_text *text, const char *words)
{
    text_add_bytes(text, words, strlen(words) + 1);
}

static void text_add_base64(struct hook_text *text, const uint8_t *data, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i < 3 ? length - i : 3;
        uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (left > 2 ? data[i + 2] : 0);
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63], digits[bits >> 6 & 63],
                        digits[bits & 63]};

        memset(four + left + 1, '=', 3 - left);
        text_add_bytes(text, four, sizeof(four));
    }
}

void hook_text_deinit(struct hook_text *text)
{
    free(text->data);
    *text = (struct hook_text){0};
}

/* --- the filter --- */

/* What is ours of a prefix, or a little more: the name is of whole octets or nibbles. */
static void filter_add_subnet(struct hook_text *reply, const struct cidr *subnet)
{
    unsigned parts = subnet->prefix / (subnet->ip.family == AF_INET6 ? 4 : 8);
    char name[IP_REVERSE_MAX];

    if (!cidr_is_set(subnet) || parts == 0)
        return;
    text_add(reply, ",\"");
    text_add(reply, ip_reverse_format(&subnet->ip, parts, name));
    text_add(reply, "\"");
}

void hook_filter_write(const struct zone *zone, bool continues, struct hook_text *reply)
{
    char domain[DNS_TEXT_MAX];

    text_add(reply, "{\"parameters\":{\"filterDomains\":[\"");
    text_add(reply, dns_name_format(zone_domain(zone)->wire, domain));
    text_add(reply, "\"");
    for (uint16_t i = 0; i < ZONE_NETWORKS_MAX; i++) {
        const struct zone_network *network = zone_network_at(zone, i);

        if (!network)
            continue;
        filter_add_subnet(reply, &network->subnet);
        filter_add_subnet(reply, &network->subnet6);
    }
    text_end(reply, continues ? "]},\"continues\":true}" : "]}}");
}

/* --- the answer --- */

static bool class_and_type_are_plain(const struct key *key)
{
    return key->class == DNS_CLASS_IN && key->type > 0 && key->type <= UINT16_MAX &&
           key->type != DNS_TYPE_OPT &&
           !(key->type >= DNS_TYPE_META_FIRST && key->type <= DNS_TYPE_META_LAST);
}

/* The host asks through any network: it sees them all. */
static struct zone_network *any_network(const struct zone *zone)
{
    struct zone_network *network = NULL;

    for (uint16_t i = 0; i < ZONE_NETWORKS_MAX && !network; i++)
        network = zone_network_at(zone, i);
    return network;
}

/* One record of the message, whose owner is a name of the message; where it ends. */
static size_t record_write(const uint8_t *message, size_t length, size_t at, bool first,
                           struct hook_text *reply)
{
    size_t fixed = dns_name_skip(message, length, at);
    size_t end = fixed + RDATA_OFFSET + dns_read_u16(message + fixed + RDATA_OFFSET - 2);
    size_t owner = message[at] >= 0xc0 ? dns_read_u16(message + at) & 0x3fff : at;
    struct dns_name name;
    uint8_t *raw;

    if (dns_name_read(message, length, owner, &name) == 0) {
        reply->failed = true;
        return end;
    }
    raw = malloc(name.length + end - fixed);
    if (!raw) {
        reply->failed = true;
        return end;
    }
    memcpy(raw, name.wire, name.length);
    memcpy(raw + name.length, message + fixed, end - fixed);
    text_add(reply, first ? "{\"raw\":\"" : ",{\"raw\":\"");
    text_add_base64(reply, raw, name.length + end - fixed);
    text_add(reply, "\"}");
    free(raw);
    return end;
}

/* What has been found so far for the keys of a question. */
struct finding {
    bool ours;   /* one of the names is for us to answer */
    bool exists; /* one of them exists */
    unsigned n_records;
};

/* Adds the records that were built behind the question in `message`. */
static void finding_add(struct finding *finding, const uint8_t *message, size_t length, size_t at,
                        unsigned count, struct hook_text *reply)
{
    finding->ours = true;
    finding->exists = true;
    for (unsigned i = 0; i < count && !reply->failed; i++)
        at = record_write(message, length, at, finding->n_records++ == 0, reply);
}

/* False: not ours to answer. */
static bool query_build(const struct zone *zone, const struct key *key, uint8_t *message,
                        struct dns_query *ret_query)
{
    struct dns_name name;
    size_t length;

    if (!class_and_type_are_plain(key) || dns_name_parse(key->name, &name) < 0 || name.labels < 2)
        return false;
    length = dns_question_build(message, 0, name.wire, name.length, (uint16_t)key->type, 0, false,
                                false);
    if (dns_query_parse(message, length, ret_query) != DNS_PARSE_OK)
        return false;
    ret_query->terms.tcp = true; /* as much as a message holds */
    dns_local_prepare(zone, ret_query);
    return true;
}

static void key_answer(const struct zone *zone, const struct key *key, uint8_t *message,
                       struct finding *finding, struct hook_text *reply)
{
    struct dns_asker host = {.network = any_network(zone)};
    struct dns_query query;
    struct dns_alias alias;
    size_t length;

    if (!host.network || !query_build(zone, key, message, &query))
        return;
    switch (dns_local_answer(zone, &host, &query, message, DNS_MESSAGE_MAX, &length, &alias)) {
    case DNS_LOCAL_DONE:
        if (message[2] & (DNS_FLAG_TC >> 8))
            break; /* too much for one message: systemd-resolved asks by DNS */
        if ((message[3] & DNS_FLAG_RCODE) == DNS_RCODE_NOERROR)
            finding_add(finding, message, length, query.terms.question_end,
                        dns_read_u16(message + 6), reply);
        finding->ours = true;
        break;
    case DNS_LOCAL_ALIAS: /* systemd-resolved goes on with what it stands for */
        finding_add(finding, message, alias.length, query.terms.question_end, alias.answers, reply);
        break;
    case DNS_LOCAL_NOT_OURS:
        break;
    }
}

static void call_resolve(const struct call *call, const struct zone *zone, uint8_t *message,
                         struct hook_text *reply)
{
    struct finding finding = {0};
    size_t start = reply->length;

    text_add(reply, "{\"parameters\":{\"answer\":[");
    for (size_t i = 0; i < call->n_keys; i++)
        key_answer(zone, &call->keys[i], message, &finding, reply);
    if (finding.exists && !reply->failed) {
        text_end(reply, "],\"rcode\":0}}");
        return;
    }
    reply->length = start;
    if (finding.ours && !finding.exists)
        text_end(reply, "{\"parameters\":{\"rcode\":3}}"); /* NXDOMAIN */
    else
        text_end(reply, "{\"parameters\":{}}");
}

/* --- the call --- */

/* false: malformed, as for the next ones. */
static bool key_read(struct json *json, struct key *ret_key)
{
    char name[16];

    *ret_key = (struct key){0};
    if (!json_open(json, '{'))
        return false;
    while (json_member(json, name, sizeof(name))) {
        if (strcmp(name, "name") == 0)
            json_string(json, ret_key->name, sizeof(ret_key->name));
        else if (strcmp(name, "type") == 0)
            json_integer(json, &ret_key->type);
        else if (strcmp(name, "class") == 0)
            json_integer(json, &ret_key->class);
        else
            json_skip(json);
    }
    return !json->failed;
}

static bool question_read(struct json *json, struct call *call)
{
    char name[16];

    call->has_question = true;
    if (!json_open(json, '['))
        return false;
    while (json_element(json)) {
        if (call->n_keys == HOOK_KEYS_MAX || !json_open(json, '{'))
            return false;
        while (json_member(json, name, sizeof(name))) {
            if (strcmp(name, "key") == 0)
                key_read(json, &call->keys[call->n_keys]);
            else
                json_skip(json);
        }
        call->n_keys++;
    }
    return !json->failed;
}

static bool parameters_read(struct json *json, struct call *call)
{
    char name[16];

    if (!json_open(json, '{'))
        return false;
    while (json_member(json, name, sizeof(name)))
        if (strcmp(name, "question") == 0 && !call->has_question) {
            if (!question_read(json, call))
                return false;
        } else {
            json_skip(json);
        }
    return !json->failed;
}

static bool call_read(struct json *json, struct call *call)
{
    char name[16];
    bool done = false; /* with parameters, which are read once */

    if (!json_open(json, '{'))
        return false;
    while (json_member(json, name, sizeof(name))) {
        if (strcmp(name, "method") == 0) {
            json_string(json, call->method, sizeof(call->method));
        } else if (strcmp(name, "more") == 0) {
            json_bool(json, &call->more);
        } else if (strcmp(name, "oneway") == 0) {
            json_bool(json, &call->oneway);
        } else if (strcmp(name, "parameters") == 0 && !done && json_is_object(json)) {
            done = true;
            if (!parameters_read(json, call))
                return false;
        } else {
            json_skip(json);
        }
    }
    return json_is_done(json);
}

static void error_write(const char *error, const char *parameter, const char *value,
                        struct hook_text *reply)
{
    text_add(reply, "{\"error\":\"org.varlink.service.");
    text_add(reply, error);
    text_add(reply, "\",\"parameters\":{\"");
    text_add(reply, parameter);
    text_add(reply, "\":\"");
    text_add(reply, value);
    text_end(reply, "\"}}");
}

/* The method's name as it may stand in a reply. */
static const char *method_name(const struct call *call)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-";

    return strspn(call->method, plain) == strlen(call->method) ? call->method : "";
}

static enum hook_call call_act(const struct call *call, const struct zone *zone, uint8_t *message,
                               struct hook_text *reply)
{
    if (strcmp(call->method, INTERFACE "QueryFilter") == 0) {
        hook_filter_write(zone, call->more, reply);
        return call->more ? HOOK_CALL_SUBSCRIBE : HOOK_CALL_REPLY;
    }
    if (strcmp(call->method, INTERFACE "ResolveRecord") != 0)
        error_write("MethodNotFound", "method", method_name(call), reply);
    else if (call->n_keys == 0)
        error_write("InvalidParameter", "parameter", "question", reply);
    else
        call_resolve(call, zone, message, reply);
    return HOOK_CALL_REPLY;
}

enum hook_call hook_call_handle(const struct zone *zone, const char *text, size_t length,
                                uint8_t *message, struct hook_text *reply)
{
    struct call call = {0};
    struct json json;
    enum hook_call handled;

    json_begin(&json, text, length);
    if (!call_read(&json, &call))
        return HOOK_CALL_BAD;
    if (call.oneway) /* there is nothing that could be told us */
        return HOOK_CALL_ONEWAY;
    handled = call_act(&call, zone, message, reply);
    return reply->failed ? HOOK_CALL_BAD : handled;
}
