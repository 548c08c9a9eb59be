/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stateful DHCPv6 (RFC 8415) for one port: exactly one address, for good, and nothing to remember,
 * as for DHCPv4 (dhcp4.h). No prefixes are delegated, no temporary addresses given. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/dhcp_message.h"

#define DHCP6_MESSAGE_MAX 1232 /* bytes of a reply: what fits the smallest IPv6 MTU */
#define DHCP6_DUID_MAX 130     /* RFC 8415 section 11.1 */
#define DHCP6_IAS_MAX 8        /* identity associations of one message; more are malformed */
#define DHCP6_ADDRESSES_MAX 8  /* addresses of one association that are looked at */

enum dhcp6_type { /* RFC 8415 section 7.3 */
                  DHCP6_SOLICIT = 1,
                  DHCP6_ADVERTISE,
                  DHCP6_REQUEST,
                  DHCP6_CONFIRM,
                  DHCP6_RENEW,
                  DHCP6_REBIND,
                  DHCP6_REPLY,
                  DHCP6_RELEASE,
                  DHCP6_DECLINE,
                  DHCP6_RECONFIGURE,
                  DHCP6_INFORMATION_REQUEST,
};

enum { /* options, RFC 8415 section 21 */
       DHCP6_OPTION_CLIENT_ID = 1,
       DHCP6_OPTION_SERVER_ID = 2,
       DHCP6_OPTION_IA_NA = 3,
       DHCP6_OPTION_IA_TA = 4,
       DHCP6_OPTION_ADDRESS = 5,
       DHCP6_OPTION_STATUS = 13,
       DHCP6_OPTION_RAPID_COMMIT = 14,
       DHCP6_OPTION_DNS = 23,    /* RFC 3646 */
       DHCP6_OPTION_SEARCH = 24, /* RFC 3646 */
       DHCP6_OPTION_IA_PD = 25,
       DHCP6_OPTION_REFRESH = 32,
       DHCP6_OPTION_NTP = 56, /* RFC 5908 */
};

struct dhcp6_ia {
    uint16_t kind; /* DHCP6_OPTION_IA_NA, _TA or _PD */
    uint32_t iaid;
    uint32_t n_addresses;
    struct ip addresses[DHCP6_ADDRESSES_MAX];
};

struct dhcp6_request {
    enum dhcp6_type type;
    uint8_t xid[3];
    uint8_t client_id[DHCP6_DUID_MAX];
    uint8_t server_id[DHCP6_DUID_MAX];
    uint8_t client_id_length; /* 0: none */
    uint8_t server_id_length;
    bool rapid_commit;
    uint32_t n_ias;
    struct dhcp6_ia ias[DHCP6_IAS_MAX];
};

/* Is it a well-formed message of a client (not of a relay or a server)? */
bool dhcp6_request_parse(const uint8_t *data, size_t length, struct dhcp6_request *ret_request);

struct dhcp6_reply {
    size_t length;
    uint8_t data[DHCP6_MESSAGE_MAX];
};

/* The answer of the port's server, if there is one (RFC 8415 sections 16 and 18.3). */
bool dhcp6_answer(const struct dhcp_port *port, const struct dhcp6_request *request,
                  struct dhcp6_reply *ret_reply);
