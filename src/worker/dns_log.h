/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The query log, while moatd asks for it: entries are gathered and sent together, so much in a time
 * and no more; what is beyond that is counted. */
#pragma once

#include "base/loop.h"
#include "worker/dns_message.h"
#include "worker/dns_zone.h"

struct dns_log;

struct dns_log_config {
    struct loop *loop;
    /* Sends a message to moatd: 0, or negative when it can't be taken now. */
    int (*send)(void *userdata, uint16_t type, const void *payload, size_t length);
    void *userdata;
};

struct dns_log *dns_log_new(const struct dns_log_config *config); /* NULL: no memory */
void dns_log_free(struct dns_log *log);
/* Adds an answer that goes out now. question: the message that it answers, parsed before; guest
 * NULL: the host. */
void dns_log_add(struct dns_log *log, const struct zone_guest *guest,
                 const struct zone_network *network, const uint8_t *question, size_t question_end,
                 uint16_t rcode, enum dns_source source, uint64_t started_us);
uint64_t dns_log_now_us(void);
