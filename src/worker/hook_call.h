/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One call of systemd-resolved's hook (>= 259): the Varlink interface io.systemd.Resolve.Hook, as
 * systemd publishes it in src/shared/varlink-io.systemd.Resolve.Hook.c. Calls and replies are JSON
 * texts, each ended by a NUL (varlink.org).
 *
 *     QueryFilter() -> (filterDomains: ?[]string, filterLabelsMin: ?int, filterLabelsMax: ?int)
 *         with "more" set a reply is sent again whenever the filter is another one
 *     ResolveRecord(question: [](key: (class, type: int, name: string)))
 *         -> (rcode: ?int, answer: ?[](raw: string))
 *         all keys are answered together; without rcode systemd-resolved goes on as if there were
 *         no hook; raw is a record in wire form, in Base64
 *
 * The host asks, so it sees every network. Only names below our domain, static names elsewhere and
 * addresses of our subnets are answered: a single label is for others to complete. */
#pragma once

#include "worker/dns_zone.h"

#define HOOK_CALL_MAX 8192 /* bytes of one call, without its NUL */
#define HOOK_KEYS_MAX 16   /* of one question */

/* A text that grows up to a bound. */
struct hook_text {
    char *data; /* owned */
    size_t length;
    size_t size;
    bool failed; /* no memory, or too long: what is there is not whole */
};

enum hook_call {
    HOOK_CALL_REPLY,     /* the reply, with its NUL, was added */
    HOOK_CALL_SUBSCRIBE, /* the same, and filters are to follow (hook_filter_write) */
    HOOK_CALL_ONEWAY,    /* no reply is wanted */
    HOOK_CALL_BAD,       /* malformed: nothing more can be understood of this peer */
};

/* message: room for work, DNS_MESSAGE_MAX bytes. text: without its NUL. */
enum hook_call hook_call_handle(const struct zone *zone, const char *text, size_t length,
                                uint8_t *message, struct hook_text *reply);
/* Adds the reply to QueryFilter, with its NUL. */
void hook_filter_write(const struct zone *zone, bool continues, struct hook_text *reply);
void hook_text_deinit(struct hook_text *text);
