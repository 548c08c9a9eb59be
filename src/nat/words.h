/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The words that rules of several tables (rules.h) use. A word that needs fields of IPv4, IPv6 or a
 * protocol asks for it first; those that only load say so. */
#pragma once

#include <stdint.h>

#include "nat/rule.h"
#include "nat/sets.h"

#define ND_ROUTER_SOLICIT 133 /* RFC 4861, section 4 */
#define ND_ROUTER_ADVERT 134
#define ND_NEIGHBOR_SOLICIT 135
#define ND_NEIGHBOR_ADVERT 136
#define ND_REDIRECT 137

/* --- fields: load to reg on, match nothing --- */

void word_load_source4(struct rule *rule, unsigned reg);
void word_load_source6(struct rule *rule, unsigned reg);
void word_load_destination4(struct rule *rule, unsigned reg);
void word_load_destination6(struct rule *rule, unsigned reg);
/* proto . destination port, as in the maps of published ports. TCP and UDP have it in the same
 * place; of other protocols no element exists. */
void word_load_service(struct rule *rule, unsigned reg);
void word_load_groups(struct rule *rule); /* where it came in . where it goes out */
/* Where it came in . destination; of that family only. */
void word_load_group_and_destination4(struct rule *rule);
void word_load_group_and_destination6(struct rule *rule);

/* What was loaded is (not) in the set. */
void word_lookup(struct rule *rule, enum set_id set);
void word_lookup_not(struct rule *rule, enum set_id set);

/* --- protocols --- */

void word_ip4(struct rule *rule);
void word_ip6(struct rule *rule);
void word_protocol(struct rule *rule, uint8_t number);
void word_tcp(struct rule *rule);
void word_udp(struct rule *rule);
void word_udp_ports(struct rule *rule, uint16_t source, uint16_t destination);
void word_dhcp4_request(struct rule *rule);
void word_dhcp6_request(struct rule *rule);
/* The type is then in register 0. */
void word_icmp4(struct rule *rule);
void word_icmp6(struct rule *rule);
void word_router_solicit(struct rule *rule);
void word_neighbour_discovery(struct rule *rule);

/* --- where from, where to --- */

/* By the group of the link: of one of our networks, or not. */
void word_from_ours(struct rule *rule);
void word_from_others(struct rule *rule);
void word_to_ours(struct rule *rule);
void word_to_others(struct rule *rule);
void word_from_loopback(struct rule *rule);
void word_not_from_loopback(struct rule *rule);
void word_source4_loopback(struct rule *rule);
void word_destination4_loopback(struct rule *rule);
void word_source6_loopback(struct rule *rule);
void word_destination6_loopback(struct rule *rule);
void word_to_host(struct rule *rule); /* an address of this host, wherever it came in */
void word_within_same(struct rule *rule);
void word_from_internal(struct rule *rule);
void word_to_internal(struct rule *rule);
void word_from_host_access(struct rule *rule);
/* IPv4 to a port of an IPv6-only guest: a listener of the relay worker. */
void word_to_relay4(struct rule *rule);
/* What stands for a guest's localhost (localhost.c). */
void word_to_localhost(struct rule *rule);
/* The gateway of its own network; where the name service answers. */
void word_to_own4(struct rule *rule);
void word_to_own6(struct rule *rule);
void word_to_dns4(struct rule *rule);
void word_to_dns6(struct rule *rule);
/* What it says by UDP. */
void word_from_dns4(struct rule *rule);
void word_from_dns6(struct rule *rule);

/* --- connections --- */

void word_known(struct rule *rule); /* established or related */
void word_unknown(struct rule *rule);
void word_invalid(struct rule *rule);
void word_published(struct rule *rule); /* it goes to a published port */

/* --- actions --- */

void word_accept_it(struct rule *rule);
void word_drop_it(struct rule *rule);
void word_goto(struct rule *rule, enum chain_id chain);
void word_refuse_it(struct rule *rule);
/* By NFLOG (log.c); the rule goes on. */
void word_tell(struct rule *rule, const char *prefix);
