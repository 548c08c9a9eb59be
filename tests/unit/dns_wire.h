/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For the tests of the name worker: DNS messages written and read by other code than the worker's
 * own. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/address.h"

struct message {
    uint8_t data[65536];
    size_t length;
};

static inline void put_bytes(struct message *message, const void *bytes, size_t length)
{
    memcpy(message->data + message->length, bytes, length);
    message->length += length;
}

static inline void put_u16(struct message *message, unsigned value)
{
    uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};

    put_bytes(message, bytes, 2);
}

static inline void put_u32(struct message *message, uint32_t value)
{
    put_u16(message, value >> 16);
    put_u16(message, value & 0xffff);
}

/* "web.example" in wire form; "" and "." are the root. */
static inline void put_name(struct message *message, const char *name)
{
    while (*name && strcmp(name, ".") != 0) {
        size_t label = strcspn(name, ".");
        uint8_t length = (uint8_t)label;

        put_bytes(message, &length, 1);
        put_bytes(message, name, label);
        name += label;
        name += *name == '.';
    }
    put_bytes(message, "", 1);
}

static inline void put_header(struct message *message, unsigned id, unsigned flags,
                              unsigned questions, unsigned answers, unsigned authority,
                              unsigned additional)
{
    message->length = 0;
    put_u16(message, id);
    put_u16(message, flags);
    put_u16(message, questions);
    put_u16(message, answers);
    put_u16(message, authority);
    put_u16(message, additional);
}

static inline void put_question(struct message *message, const char *name, unsigned type)
{
    put_name(message, name);
    put_u16(message, type);
    put_u16(message, 1);
}

/* owner: a pointer to the question's name is 0xc00c. */
static inline void put_record(struct message *message, unsigned owner, unsigned type,
                              uint32_t ttl_s, const void *rdata, size_t length)
{
    put_u16(message, owner);
    put_u16(message, type);
    put_u16(message, 1);
    put_u32(message, ttl_s);
    put_u16(message, (unsigned)length);
    put_bytes(message, rdata, length);
}

static inline void put_opt(struct message *message, unsigned size, unsigned version, unsigned flags)
{
    put_bytes(message, "", 1);
    put_u16(message, 41);
    put_u16(message, size);
    put_u32(message, version << 16 | flags);
    put_u16(message, 0);
}

/* A query with RD; size 0: without EDNS. */
static inline void put_query(struct message *message, unsigned id, const char *name, unsigned type,
                             unsigned size)
{
    put_header(message, id, 0x0100, 1, 0, 0, size > 0);
    put_question(message, name, type);
    if (size > 0)
        put_opt(message, size, 0, 0);
}

static inline unsigned get_u16(const struct message *message, size_t at)
{
    assert_true(at + 2 <= message->length);
    return (unsigned)(message->data[at] << 8 | message->data[at + 1]);
}

static inline unsigned get_rcode(const struct message *message)
{
    return get_u16(message, 2) & 15;
}

/* Text of the name at *at, pointers followed; *at moves behind it. */
static inline void get_name(const struct message *message, size_t *at, char text[512])
{
    size_t position = *at;
    size_t length = 0;
    bool jumped = false;

    for (int steps = 0; steps < 256; steps++) {
        unsigned label = message->data[position];

        assert_true(position < message->length);
        if (label >= 0xc0) {
            if (!jumped)
                *at = position + 2;
            jumped = true;
            position = get_u16(message, position) & 0x3fff;
            continue;
        }
        if (label == 0) {
            if (!jumped)
                *at = position + 1;
            text[length] = '\0';
            return;
        }
        if (length > 0)
            text[length++] = '.';
        memcpy(text + length, message->data + position + 1, label);
        length += label;
        position += label + 1;
    }
    fail_msg("a name without end");
}

static inline void put_text(char *text, size_t size, const char *word)
{
    size_t length = strlen(text);

    snprintf(text + length, size - length, "%s%s", length ? " " : "", word);
}

/* One record as text: "web 60 A 10.88.0.5". */
static inline void get_record(const struct message *message, size_t *at, char *text, size_t size)
{
    char word[1400];
    char owner[512];
    char target[512];
    unsigned type;
    unsigned length;
    struct ip ip;

    get_name(message, at, owner);
    type = get_u16(message, *at);
    length = get_u16(message, *at + 8);
    assert_true(*at + 10 + length <= message->length);
    if (type == 41) {
        snprintf(word, sizeof(word), "OPT %u %u", get_u16(message, *at + 2),
                 (unsigned)message->data[*at + 4]);
        put_text(text, size, word);
        *at += 10 + length;
        return;
    }
    snprintf(word, sizeof(word), "%s %u", owner[0] ? owner : ".",
             get_u16(message, *at + 4) << 16 | get_u16(message, *at + 6));
    put_text(text, size, word);
    *at += 10;
    if (type == 1 || type == 28) {
        ip = ip_from_bytes(type == 1 ? AF_INET : AF_INET6, message->data + *at);
        snprintf(word, sizeof(word), "%s %s", type == 1 ? "A" : "AAAA", ip_format(&ip, target));
    } else if (type == 12 || type == 2 || type == 5) {
        size_t in_rdata = *at;

        get_name(message, &in_rdata, target);
        snprintf(word, sizeof(word), "%s %s",
                 type == 12  ? "PTR"
                 : type == 2 ? "NS"
                             : "CNAME",
                 target);
    } else if (type == 16) {
        int length_word = snprintf(word, sizeof(word), "TXT");

        for (size_t i = *at; i < *at + length; i += message->data[i] + 1u)
            length_word +=
                snprintf(word + length_word, sizeof(word) - (size_t)length_word, " \"%.*s\"",
                         message->data[i], (const char *)message->data + i + 1);
    } else if (type == 33) {
        size_t in_rdata = *at + 6;

        get_name(message, &in_rdata, target);
        snprintf(word, sizeof(word), "SRV %u %u %u %s", get_u16(message, *at),
                 get_u16(message, *at + 2), get_u16(message, *at + 4), target[0] ? target : ".");
    } else {
        snprintf(word, sizeof(word), type == 6 ? "SOA" : "TYPE%u", type);
    }
    put_text(text, size, word);
    *at += length;
}

/* The whole message but id and question: "NOERROR aa: web 60 A 10.88.0.5; auth …; OPT 1232 0". */
static inline const char *get_text(const struct message *message, char *text, size_t size)
{
    static const char *const rcodes[16] = {"NOERROR",  "FORMERR", "SERVFAIL",
                                           "NXDOMAIN", "NOTIMP",  "REFUSED"};
    static const char *const sections[] = {"", "auth", ""};
    unsigned flags = get_u16(message, 2);
    char name[512];
    size_t at = 12;

    snprintf(text, size, "%s%s%s%s:", rcodes[flags & 15] ? rcodes[flags & 15] : "?",
             flags & 0x0400 ? " aa" : "", flags & 0x0200 ? " tc" : "", flags & 0x0020 ? " ad" : "");
    assert_true(flags & 0x8000);
    for (unsigned i = get_u16(message, 4); i > 0; i--) {
        get_name(message, &at, name);
        at += 4;
    }
    for (int section = 0; section < 3; section++) {
        for (unsigned i = get_u16(message, 6 + 2 * (size_t)section); i > 0; i--) {
            if (sections[section][0])
                put_text(text, size, sections[section]);
            get_record(message, &at, text, size);
        }
    }
    assert_int_equal(at, message->length);
    return text;
}
