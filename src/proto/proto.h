/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one document per line, and the one table of
 * methods and fields (methods.c) that drives parsing, encoding, refusal of unknown members,
 * docs/api.md and completions. The only place that knows cJSON. */
#pragma once

#include <assert.h>
#include <stddef.h>

#include "base/api.h"
#include "base/error.h"

/* Limits of the socket (docs/api.md). */
#define PROTO_LINE_MAX ((size_t)1 << 20) /* bytes of one document, without the newline */
#define PROTO_DEPTH_MAX 16
#define PROTO_BATCH_MAX 256
#define PROTO_FDS_MAX 16 /* descriptors that may wait for their line */

#define PROTO_PARSE_ERROR (-32700)
#define PROTO_INVALID_REQUEST (-32600)
#define PROTO_METHOD_NOT_FOUND (-32601)
#define PROTO_INVALID_PARAMS (-32602)
#define PROTO_INTERNAL_ERROR (-32603)
#define PROTO_REFUSED (-32000)

enum method_id {
    METHOD_NETWORK_CREATE,
    METHOD_NETWORK_LIST,
    METHOD_NETWORK_GET,
    METHOD_NETWORK_REMOVE,
    METHOD_NETWORK_PRUNE,
    METHOD_NETWORK_ALLOW,
    METHOD_NETWORK_DENY,
    METHOD_GUEST_ATTACH,
    METHOD_GUEST_DETACH,
    METHOD_GUEST_LIST,
    METHOD_GUEST_GET,
    METHOD_PORT_ADD,
    METHOD_PORT_REMOVE,
    METHOD_PORT_LIST,
    METHOD_POLICY_GET,
    METHOD_POLICY_SET,
    METHOD_POLICY_TEST,
    METHOD_LIMIT_GET,
    METHOD_LIMIT_SET,
    METHOD_POLICY_LEARN,
    METHOD_POLICY_LEARNED,
    METHOD_LOCALHOST_SET,
    METHOD_DNS_LIST,
    METHOD_DNS_ADD,
    METHOD_DNS_REMOVE,
    METHOD_DNS_FLUSH,
    METHOD_DNS_LOG,
    METHOD_EVENTS_SUBSCRIBE,
    METHOD_SYSTEM_STATUS,
    METHOD_SYSTEM_DOCTOR,
    METHOD_SYSTEM_TEARDOWN,
    METHOD_COUNT_,
};

enum proto_type {
    PROTO_TEXT,    /* char[size] */
    PROTO_STRING,  /* char *, malloc'ed, NULL when absent */
    PROTO_NAME,    /* char[64], name_is_valid */
    PROTO_IFNAME,  /* char[IFNAMSIZ], name_is_interface */
    PROTO_DNSNAME, /* char[254], record_name_is_valid */
    PROTO_BOOL,    /* bool */
    PROTO_UINT16,  /* uint16_t, min..max */
    PROTO_UINT32,  /* uint32_t */
    PROTO_UINT64,  /* uint64_t, result only */
    PROTO_PREFIX,  /* uint8_t; 0 is absent; result only */
    PROTO_PID,     /* int32_t; 0 is absent; result only */
    PROTO_STATE,   /* always "running"; result only */
    PROTO_ID,      /* int64_t: uid/gid, 0..2^32-2 */
    PROTO_IP,      /* struct ip of any family */
    PROTO_IP4,
    PROTO_IP6,
    PROTO_CIDR4, /* struct cidr */
    PROTO_CIDR6,
    PROTO_MAC,      /* struct mac */
    PROTO_STRINGS,  /* struct strings, at most max items */
    PROTO_IPS,      /* struct ips */
    PROTO_LABELS,   /* struct labels as an object of strings */
    PROTO_MODE,     /* enum guest_mode */
    PROTO_KIND,     /* enum guest_kind */
    PROTO_PROTOCOL, /* uint8_t: "tcp" or "udp" */
    PROTO_RECORD,   /* uint16_t: enum record_type; 0 is absent */
    PROTO_TIME_S,   /* int64_t seconds → RFC 3339 UTC; result only */
    PROTO_TIME_MS,
    PROTO_OBJECT,  /* embedded struct */
    PROTO_OBJECTS, /* pointer to an array of structs; size_t at count_offset */
};

enum proto_flags {
    PROTO_REQUIRED = 1,
    PROTO_NULL = 2, /* results: an absent value is null */
    PROTO_HAS = 4,  /* params: the bool at has_offset is set when the member was there */
    PROTO_OMIT = 8, /* results: left out when absent, false or empty; with PROTO_HAS, unless that
                       bool is set */
};

struct proto_object;

struct proto_field {
    const char *name;
    enum proto_type type;
    unsigned flags;
    size_t offset;
    size_t size;         /* PROTO_TEXT: bytes; PROTO_OBJECTS: of one item */
    size_t has_offset;   /* PROTO_HAS */
    size_t count_offset; /* PROTO_OBJECTS */
    uint64_t min, max;   /* numbers: bounds; lists: max items; strings: max bytes */
    bool fallback;       /* PROTO_BOOL: value when absent */
    const struct proto_object *object;
    const char *doc; /* one line for docs/api.md */
};

struct proto_object {
    const char *name; /* "Network" */
    size_t size;
    const struct proto_field *fields;
    size_t n_fields;
    void (*deinit)(void *object); /* frees what the fields own; may be NULL */
};

enum proto_result_kind {
    RESULT_EMPTY,   /* {} */
    RESULT_OBJECT,  /* one object */
    RESULT_LIST,    /* array of objects */
    RESULT_STRINGS, /* array of strings (struct strings) */
};

struct proto_method {
    enum method_id id;
    const char *name;
    const struct proto_object *params;
    enum proto_result_kind result_kind;
    const struct proto_object *result;
    const char *doc;
};

extern const struct proto_object proto_network, proto_opening, proto_guest, proto_vmm,
    proto_endpoint, proto_drops, proto_limits, proto_port, proto_policy, proto_policy_result,
    proto_policy_test_result, proto_learn_result, proto_record, proto_dns_log, proto_status,
    proto_check, proto_denial, proto_event;

/* Sets an object's members to their defaults (bool fallbacks, -1 for ids); the rest is zeroed by
 * the caller. */
void proto_object_init(const struct proto_object *object, void *ret_data);

const struct proto_method *proto_method_get(enum method_id id);
const struct proto_method *proto_method_find(const char *name);

/* Sets the defaults of a method's params (booleans that default to true, owner -1, …). */
void proto_params_init(const struct proto_method *method, union params *ret_params);
void proto_params_deinit(const struct proto_method *method, union params *params);

/* A growing piece of text; ends with a NUL that is not counted. */
struct text {
    char *data;
    size_t length;
    size_t allocated;
    bool failed; /* out of memory somewhere: data must not be used */
};
void text_append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_append_n(struct text *text, const char *data, size_t length);
void text_deinit(struct text *text);

/* --- server side (request.c, response.c) --- */

struct proto_request {
    char *id;                          /* JSON text of the id; NULL for a notification */
    const struct proto_method *method; /* NULL when refused */
    union params params;
    int code; /* 0, or the JSON-RPC error that must be answered instead; error says why */
    struct error error;
};

struct proto_requests {
    struct proto_request *items;
    size_t count;
    bool batch; /* the answers go into one array */
};

/* Parses one line. Malformed JSON and an empty batch become one request with code set and id
 * "null". Returns 0 or -ENOMEM. */
int proto_requests_parse(const char *line, size_t length, struct proto_requests *ret_requests);
void proto_requests_deinit(struct proto_requests *requests);

/* Results: what the method's table row says. `data` points to the struct, to the first of an array
 * of structs (count), or to a struct strings. */
void proto_result_encode(struct text *text, const char *id, const struct proto_method *method,
                         const void *data, size_t count);
void proto_error_encode(struct text *text, const char *id, int code, const struct error *error);
/* The code that a struct error is answered with. */
int proto_error_code(const struct error *error);
/* {"jsonrpc":"2.0","method":"event","params":{…}} */
void proto_event_encode(struct text *text, const struct event *event);

/* --- client side (client_codec.c) --- */

/* One request line without the newline. Members with their default value are left out. */
void proto_call_encode(struct text *text, const struct proto_method *method,
                       const union params *params, uint32_t id);

struct proto_response; /* a parsed answer */
/* Parses a line into an answer or an event. Returns 0, -EPROTO (error filled) or -ENOMEM. */
int proto_response_parse(const char *line, size_t length, struct proto_response **ret_response,
                         struct error *error);
void proto_response_free(struct proto_response *response);
bool proto_response_is_event(const struct proto_response *response);
/* 0, or -EREMOTEIO/-EINVAL/-EIO with error filled from the server's error object (kind, reason,
 * field, text). */
int proto_response_error(const struct proto_response *response, struct error *error);
/* JSON text of the result (or of an event's params), compact, malloc'ed. */
char *proto_response_text(const struct proto_response *response);
/* Decodes the result into ret_data (struct) or a malloc'ed array of them (list). The caller deinits
 * each by object->deinit and frees the array. */
int proto_response_object(const struct proto_response *response, const struct proto_object *object,
                          void *ret_data, struct error *error);
int proto_response_list(const struct proto_response *response, const struct proto_object *object,
                        void **ret_items, size_t *ret_count, struct error *error);
int proto_response_strings(const struct proto_response *response, struct strings *ret_strings,
                           struct error *error);

/* docs/api.md, generated from the tables. */
void proto_reference_write(struct text *text);
