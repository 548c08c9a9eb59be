/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_log.h"

#include <stdlib.h>
#include <time.h>

#define SEND_INTERVAL_MS 20
#define BUFFER_SIZE 32768 /* of one message: some 20,000 entries a second at most */

struct dns_log {
    struct dns_log_config config;
    struct loop_timer *timer;
    size_t length;
    uint64_t lost;
    alignas(8) uint8_t buffer[sizeof(struct dns_queries_message) + BUFFER_SIZE];
};

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t dns_log_now_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

static void log_reset(struct dns_log *log)
{
    log->length = sizeof(struct dns_queries_message);
}

static void timer_expired(void *userdata)
{
    struct dns_log *log = userdata;
    struct dns_queries_message *message = (struct dns_queries_message *)log->buffer;
    uint64_t count = message->count;

    message->lost = log->lost;
    if (log->config.send(log->config.userdata, DNS_MESSAGE_QUERIES, log->buffer, log->length) == 0)
        log->lost = 0;
    else
        log->lost += count;
    message->count = 0;
    log_reset(log);
    if (log->lost > 0) /* to be told when there is room again */
        loop_timer_start(log->timer, SEND_INTERVAL_MS);
}

struct dns_log *dns_log_new(const struct dns_log_config *config)
{
    struct dns_log *log = calloc(1, sizeof(*log));

    if (!log)
        return NULL;
    log->config = *config;
    log->timer = loop_timer_new(config->loop, timer_expired, log);
    if (!log->timer) {
        free(log);
        return NULL;
    }
    log_reset(log);
    return log;
}

void dns_log_free(struct dns_log *log)
{
    if (!log)
        return;
    loop_timer_free(log->timer);
    free(log);
}

/* NULL: there is no room now. */
static struct dns_query_entry *entry_new(struct dns_log *log, size_t text_length)
{
    struct dns_queries_message *message = (struct dns_queries_message *)log->buffer;
    size_t length = DNS_QUERY_ENTRY_SIZE(text_length);
    struct dns_query_entry *entry;

    if (!loop_timer_is_active(log->timer))
        loop_timer_start(log->timer, SEND_INTERVAL_MS);
    if (length > sizeof(log->buffer) - log->length) {
        log->lost++;
        return NULL;
    }
    entry = (struct dns_query_entry *)(log->buffer + log->length);
    memset(entry, 0, length);
    log->length += length;
    message->count++;
    return entry;
}

void dns_log_add(struct dns_log *log, const struct zone_guest *guest,
                 const struct zone_network *network, const uint8_t *question, size_t question_end,
                 uint16_t rcode, enum dns_source source, uint64_t started_us)
{
    uint8_t name_length = (uint8_t)(question_end - DNS_HEADER_SIZE - 4);
    uint8_t guest_length = guest ? guest->label[0] : 0;
    uint8_t network_length = network->label.wire[0];
    struct dns_query_entry *entry =
        entry_new(log, (size_t)name_length + guest_length + network_length);
    uint8_t *text;

    if (!entry)
        return;
    entry->time_ms = clock_us(CLOCK_REALTIME) / 1000;
    entry->duration_us = (uint32_t)(dns_log_now_us() - started_us);
    entry->type = dns_read_u16(question + question_end - 4);
    entry->rcode = rcode;
    entry->source = (uint8_t)source;
    entry->name_length = name_length;
    entry->guest_length = guest_length;
    entry->network_length = network_length;
    text = entry->text;
    memcpy(text, question + DNS_HEADER_SIZE, name_length);
    text += name_length;
    if (guest)
        memcpy(text, guest->label + 1, guest_length);
    memcpy(text + guest_length, network->label.wire + 1, network_length);
}
