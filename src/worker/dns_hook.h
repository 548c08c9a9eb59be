/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections of systemd-resolved (hook_call.h says what is spoken). moatd accepts them and hands
 * them over; there are few, and each call is answered before the next one is read. */
#pragma once

#include "base/loop.h"
#include "worker/dns_zone.h"

struct dns_hook;

struct dns_hook_config {
    struct loop *loop;
    /* Called before calls are answered. */
    void (*sync)(void *userdata);
    void *userdata;
};

struct dns_hook *dns_hook_new(const struct dns_hook_config *config); /* NULL: no memory */
void dns_hook_free(struct dns_hook *hook);
/* Takes the connection: closes it where it can't be served. Nothing is read from it before
 * dns_hook_start. */
void dns_hook_add(struct dns_hook *hook, int fd);
/* Everything is known now: calls are answered, from this zone (borrowed). */
void dns_hook_start(struct dns_hook *hook, const struct zone *zone);
/* Networks are other ones now: those who have asked for filters are told. */
void dns_hook_filter_changed(struct dns_hook *hook);
/* Closes all connections: systemd-resolved makes new ones, to the next worker. */
void dns_hook_stop(struct dns_hook *hook);
