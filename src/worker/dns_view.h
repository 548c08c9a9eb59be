/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The records of one name as somebody sees them who is on some of the networks. */
#pragma once

#include "worker/dns_zone.h"

/* The networks whose records count. */
struct dns_view {
    const uint16_t *networks; /* indices, ascending */
    unsigned count;
    bool all;
};

/* Those that the asker is on; all, for the host. */
struct dns_view dns_view_of(const struct dns_asker *asker);
/* NULL is a name that does not exist, for all of these. Does it exist here, with data or without?
 */
bool dns_view_has_node(const struct dns_view *view, const struct zone_node *node);
/* Has it data of any type, not only descendants? */
bool dns_view_has_data(const struct dns_view *view, const struct zone_node *node);
/* The CNAME of a name that has no other data here (RFC 1034 section 3.6.2); NULL: none. */
const struct zone_record *dns_view_alias(const struct dns_view *view, const struct zone_node *node);
/* Adds the records of this type to the reply, beginning with another one each time; of ANY those of
 * one type (RFC 8482 section 4.1). owner: as for dns_reply_answer. False: the name does not exist
 * here. */
bool dns_view_answer(const struct dns_view *view, struct zone_node *node, uint16_t type,
                     uint16_t owner, uint32_t ttl_s, struct dns_reply *reply);
