/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses are open before they are told: a reply to a guest with domain rules is held until moatd
 * has opened what it gives for the name. */
#pragma once

#include "base/loop.h"
#include "worker/dns_addresses.h"
#include "worker/dns_permit.h"

struct dns_gives;
struct dns_give; /* one question to moatd */
struct dns_client;

/* Sends a message to moatd: 0, or negative when it can't be taken now. */
typedef int (*dns_give_send_fn)(void *userdata, uint16_t type, const void *payload, size_t length);

struct dns_gives_config {
    struct loop *loop;
    const struct dns_permits *permits;
    dns_give_send_fn send;
    /* A held reply goes out: as it is (rcode NOERROR), or as REFUSED or SERVFAIL. */
    void (*release)(struct dns_client *client, uint8_t *data, size_t length, enum dns_rcode rcode);
    /* It is not wanted any more: the client is to be freed. */
    void (*drop)(struct dns_client *client);
    void *userdata; /* of send */
};

struct dns_gives *dns_gives_new(const struct dns_gives_config *config); /* NULL: no memory */
/* Drops what is held. */
void dns_gives_free(struct dns_gives *gives);

/* Must this reply (to a question for the name) wait? Where it need not, but moatd wants to be told,
 * it is told. What it found is kept for the next call of dns_give_hold. */
bool dns_give_needed(struct dns_gives *gives, struct dns_permit *permit,
                     const struct dns_name *name, uint8_t *data, size_t length);
/* After dns_give_needed has returned true: holds a copy of the reply for this client until moatd
 * answers, or for so long that the client would ask again. False: no memory, or the guest has too
 * many of them; the client stays the caller's. */
bool dns_give_hold(struct dns_gives *gives, struct dns_permit *permit, struct dns_client *client,
                   const uint8_t *data, size_t length);
/* Forgets a held reply; the client stays the caller's. */
void dns_give_cancel(struct dns_give *give);
/* Drops all that is held for a guest. */
void dns_gives_drop_guest(struct dns_gives *gives, int64_t guest_id);

/* moatd's answer. later: release the reply from the loop, since the caller is in the middle of
 * other queries. */
void dns_gives_answered(struct dns_gives *gives, const struct dns_given_message *message,
                        bool later);
/* Another moatd listens: it is asked all that the former one has not answered. */
void dns_gives_ask_again(struct dns_gives *gives);
bool dns_gives_is_busy(const struct dns_gives *gives);
