/* SPDX-License-Identifier: GPL-2.0-or-later */
/* systemd-resolved is told, over D-Bus (org.freedesktop.resolve1(5)), that names below our domain
 * and those of our subnets' addresses are asked of our gateways, so that the host resolves guests.
 * Said again when it was restarted, or when a bridge was made anew. Only the systemd-resolved of
 * our own network namespace is spoken to. Without libsystemd, without the bus, or without it
 * running nothing happens. Nothing here blocks. */
#pragma once

#include "base/loop.h"
#include "base/model.h"

struct resolved;

/* domain: borrowed. NULL: no memory, or built without libsystemd. */
struct resolved *resolved_new(struct loop *loop, const char *domain);
/* The settings go with the bridges; those of bridges that stay, stay too. Accepts NULL, as do the
 * others. */
void resolved_free(struct resolved *resolved);
/* A network with a name service; replaces what was there for it. */
void resolved_network_set(struct resolved *resolved, const struct network *network);
/* Takes the settings back. */
void resolved_network_remove(struct resolved *resolved, int64_t network_id);
/* Does it run, and is it told of everything? */
bool resolved_is_served(const struct resolved *resolved);
