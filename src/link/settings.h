/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the links of each kind are set to, and whether they still are. The kernel tells of few
 * changes of these by itself: of the rest nobody would ever hear. Private to link/. */
#pragma once

#include "handle.h"

#define SETTINGS_MAX 5 /* of one kind */

/* IPv4 settings of a bridge (KNOWN_BRIDGE) or a routed port (KNOWN_ROUTED); none of others. */
const struct ipv4_setting *settings_of(enum known_kind kind, size_t *ret_count);
/* "route_localnet" for IPV4_DEVCONF_ROUTE_LOCALNET. */
const char *settings_name(uint16_t id);

/* What is wrong with a link: a setting of either family, or an address that the host no longer
 * answers for on its network's bridge. Says "net.ipv4.conf.moat1.route_localnet is 0" and such in
 * ret_text. False when all is right, or the link is gone or retired. Three requests to the kernel
 * at most. */
bool settings_find_wrong(struct link *link, const struct known *known, char *ret_text, size_t size);

/* settings_find_wrong for `count` of the links that are known, from the position *at on, which is
 * moved: 0 again after the last one. Returns the index of a link that is wrong, 0 for none. */
uint32_t settings_patrol(struct link *link, size_t *at, size_t count);
