/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows of `port`, as guest.c loads them with their guest. */
#pragma once

#include "store/query.h"

#define PORT_COLUMNS "port.id, guest_id, protocol, host_ip, first_port, last_port, guest_port"

/* Reads PORT_COLUMNS; failures are the query's (query_check). */
void port_read(struct query *query, struct port *ret_port);
