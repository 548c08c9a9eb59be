/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows of `endpoint`, as guest.c stores and loads them with their guest. */
#pragma once

#include "store/query.h"

#define ENDPOINT_COLUMNS                                                                         \
    "endpoint.id, guest_id, network_id, position, network.name, interface, host_interface, ip,"  \
    " prefix, ip6, prefix6, coalesce(network.gateway, network.gateway6), endpoint.mac, routed, " \
    "aliases"
#define ENDPOINT_TABLES "endpoint JOIN network ON network.id = network_id"

/* Reads ENDPOINT_COLUMNS; failures are the query's (query_check). */
void endpoint_read(struct query *query, struct endpoint *ret_endpoint);
