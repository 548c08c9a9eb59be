/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What moatd (names/leases.c) tells the DHCP worker: one port for each tap, with the packet socket
 * on it, and everything that the guest behind it may be told. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/address.h"
#include "base/model.h"
#include "worker/message.h"

#define DHCP_SERVER_PORT 67
#define DHCP_CLIENT_PORT 68
#define DHCP6_CLIENT_PORT 546
#define DHCP6_SERVER_PORT 547

#define DHCP_SERVERS_MAX 4
#define DHCP_DOMAIN_MAX 254                    /* with the NUL */
#define DHCP_SEARCH_MAX (LIMIT_DNS_SEARCH + 1) /* the domain first */

enum {
    DHCP_MESSAGE_PORT = WORKER_FIRST_OWN, /* struct dhcp_port_message, added or replaced */
    DHCP_MESSAGE_PORT_REMOVE,             /* struct dhcp_remove_message */
};

struct dhcp_servers {
    uint32_t count;
    struct ip items[DHCP_SERVERS_MAX];
};

/* One guest on one tap. All bytes that are not used are zero, so that ports can be compared. */
struct dhcp_port {
    struct mac mac;        /* the guest's: nobody else is answered */
    struct mac server_mac; /* the bridge's, which every host end has */
    struct ip ip;          /* absent: no DHCPv4 */
    struct ip gateway;     /* server identifier, and router where default_route is set */
    struct ip ip6;         /* absent: no DHCPv6, no router advertisements */
    uint8_t prefix;
    uint8_t prefix6;
    uint8_t default_route;  /* the guest's IPv4 default route leads here */
    uint8_t default_route6; /* the same for IPv6 */
    uint8_t on_link6;       /* other guests of the prefix are on this link (a bridged port) */
    uint32_t mtu;
    uint32_t lease_s;
    struct dhcp_servers dns;  /* IPv4 */
    struct dhcp_servers dns6; /* IPv6 */
    struct dhcp_servers ntp;  /* IPv4 */
    struct dhcp_servers ntp6; /* IPv6 */
    char host_name[NAME_MAX_LENGTH + 1];
    uint32_t n_search;
    char search[DHCP_SEARCH_MAX][DHCP_DOMAIN_MAX]; /* the first is the guest's domain */
};

/* With one descriptor, a packet socket on the tap; without any, the worker keeps that it has. */
struct dhcp_port_message {
    int64_t id; /* of the endpoint */
    uint32_t interface;
    uint32_t reserved; /* 0 */
    struct dhcp_port port;
};

struct dhcp_remove_message {
    int64_t id;
};

/* By what a port's packet socket is known in a takeover: no address, but endpoint and interface in
 * the place of one. */
static inline struct ip dhcp_socket_key(int64_t id, uint32_t interface)
{
    struct ip key = {.family = AF_INET6};

    memcpy(key.bytes, &id, sizeof(id));
    memcpy(key.bytes + sizeof(id), &interface, sizeof(interface));
    return key;
}
