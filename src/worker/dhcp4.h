/* SPDX-License-Identifier: GPL-2.0-or-later */
/* DHCPv4 (RFC 2131, RFC 2132) for one port: a guest that has exactly one address, for good. There
 * are no leases to remember: what is offered, granted and refused follows from the port alone, so a
 * worker that starts anew answers as the former one did, and no flood can use anything up. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/dhcp_message.h"

#define DHCP4_MESSAGE_MAX 1472 /* bytes of a reply */

enum dhcp4_type { /* RFC 2132 section 9.6 */
                  DHCP4_DISCOVER = 1,
                  DHCP4_OFFER,
                  DHCP4_REQUEST,
                  DHCP4_DECLINE,
                  DHCP4_ACK,
                  DHCP4_NAK,
                  DHCP4_RELEASE,
                  DHCP4_INFORM,
};

/* A client's message; options that were not given are zero. */
struct dhcp4_request {
    uint32_t xid;
    uint16_t flags;
    struct mac chaddr;
    struct ip ciaddr;
    enum dhcp4_type type;
    struct ip requested; /* option 50 */
    struct ip server;    /* option 54 */
    uint16_t size_max;   /* option 57, bytes of an IP datagram */
    uint8_t client_id[255];
    uint8_t client_id_length; /* 0: none */
};

/* Is it a client's message to a server on its own link (no relay), over Ethernet? Others, plain
 * BOOTP among them, are nobody's to answer. */
bool dhcp4_request_parse(const uint8_t *data, size_t length, struct dhcp4_request *ret_request);

struct dhcp4_reply {
    enum dhcp4_type type;
    struct ip destination;
    bool broadcast; /* the frame goes to all; else to the client's MAC */
    size_t length;
    uint8_t data[DHCP4_MESSAGE_MAX];
};

/* The answer of the port's server, if there is one. */
bool dhcp4_answer(const struct dhcp_port *port, const struct dhcp4_request *request,
                  struct dhcp4_reply *ret_reply);

/* Domains in the form of RFC 1035 section 3.1, one after the other, without compression. Returns
 * the bytes written; names that don't fit are left out. */
size_t dhcp_search_write(const struct dhcp_port *port, uint8_t *buffer, size_t size);
